"""The command line of train.py: an option for every field of the recipe, checked before a run."""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from recipe import (
    BRANCHES,
    IN_TIME,
    NETWORKS,
    PREPARATIONS,
    PRESETS,
    WITH_STF_ADJACENCY,
    Recipe,
    augmentation,
    build_loss,
    options_of,
    with_options,
    with_tuples,
)

from skeleton_focus import NTU25

# Options besides the recipe that a run keeps when it is resumed.
KEPT = ("preset", "data", "precision", "split", "layout", "skip_bad_clips", "validate_every")


def as_text(value: Any) -> str:
    """Write a value as the command line takes it."""
    if isinstance(value, dict):
        return " ".join(f"{name}={as_text(part).replace(' ', ',')}" for name, part in value.items())
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def name_and_value(text: str) -> tuple[str, Any]:
    """Parse ``widths=24,48``, ``dropout=0.3``, ``parts=false`` or ``context=forward``."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, such as dropout=0.3, got {text!r}")
    if "," not in value:
        return name, number_or_word(value)
    return name, tuple(number_or_word(part) for part in value.split(",") if part)


def number_or_word(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that a run needs besides its recipe, and one for every field of the recipe."""
    lines = ["presets (options on the command line override them):"]
    for name, preset in PRESETS.items():
        options = [f"--{key.replace('_', '-')} {as_text(value)}" for key, value in preset.items()]
        lines.append(f"  {name}: {' '.join(options)}")
    parser = argparse.ArgumentParser(
        usage="%(prog)s [--data PATH] [--out RUN] [options, listed by --help]",
        description=description,
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data", help="folder or file of clips; default: generated actions")
    add("--split", help="split of the data, such as xsub; default: the first one of the format")
    add(
        "--layout",
        help="skeleton of the data, where the files do not name it: a name such as COCO17, or a "
        "JSON file; with --start-from, the clips are converted to that run's skeleton",
    )
    add("--skip-bad-clips", action="store_true", help="skip clips that cannot be read")
    add(
        "--preset",
        choices=PRESETS,
        help="named settings; default: nw_ucla with --data, for any data set, or else synthetic; "
        "with _MODEL appended for models that have a preset of their own",
    )
    add("--out", help="folder of the run; default: a new folder in runs/")
    add("--resume", action="store_true", help="resume the run in --out after its last epoch")
    add("--precision", choices=["32-true", "bf16-mixed", "16-mixed"], help="default: 32-true")
    add("--devices", type=int, default=-1, help="devices per machine, without torchrun; -1: all")
    add("--nodes", type=int, default=1, help="number of machines, without torchrun")
    add("--workers", type=int, default=0, help="processes that read and load clips")
    add("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's, or the resumed run's")
    add(
        "--validate-every",
        type=int,
        help="epochs between two evaluations, on the hold-out clips (default 1) or else on the "
        "test clips (default 10)",
    )
    add("--quiet", action="store_true", help="no progress bar")
    for option in fields(Recipe):
        flag = f"--{option.name.replace('_', '-')}"
        default = getattr(Recipe(), option.name)
        shown = as_text(default) or "none"
        text = f"{option.metadata['help']} (if the preset does not set it: {shown})"
        choices = option.metadata.get("choices")
        if isinstance(default, bool):
            add(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif isinstance(default, dict):
            add(
                flag,
                type=name_and_value,
                nargs="+",
                action="extend",
                metavar="NAME=VALUE",
                help=text,
            )
        elif isinstance(default, tuple):
            add(flag, type=option.metadata["kind"], nargs="+", help=text)
        else:
            add(flag, type=type(default), choices=choices, help=text)
    return parser


def parse(
    arguments: list[str] | None = None, *, description: str | None = None
) -> tuple[argparse.Namespace, Recipe]:
    """Read the options and the recipe, for --resume from the run's folder."""
    given = build_parser(description).parse_args(arguments)
    chosen: dict[str, Any] = {}
    for option in fields(Recipe):
        value = getattr(given, option.name)
        if isinstance(value, list):
            is_dict = isinstance(getattr(Recipe(), option.name), dict)
            value = dict(value) if is_dict else tuple(value)
        if value is not None:
            chosen[option.name] = value
    if given.threads < 0 or given.workers < 0 or given.devices == 0:
        raise ValueError(
            "expected --threads and --workers of at least 0 and --devices other than 0, got "
            f"{given.threads}, {given.workers} and {given.devices}"
        )
    if given.resume:
        if chosen or any(getattr(given, name) for name in KEPT):
            raise ValueError(
                "expected --resume with --out alone, got options that the run keeps from its start"
            )
        return given, resumed_recipe(given)

    suited = "synthetic" if given.data is None else "nw_ucla"
    model = chosen.get("model", "stf_gcn")
    own = f"{suited}_{model}"
    given.preset = given.preset or (own if own in PRESETS else suited)
    given.precision = given.precision or "32-true"
    given.clip_counts = None
    given.skeleton = None
    given.own_rotation = "rotation" in chosen.get("augment", {})
    preset = dict(PRESETS[given.preset])
    if preset.get("model", "stf_gcn") != model and "model" in chosen:
        # The preset is that of another network, whose options this one need not have.
        taken = options_of(NETWORKS[model])
        options = preset.get("network", {}).items()
        preset["network"] = {name: value for name, value in options if name in taken}
    merged = {
        name: {**preset.get(name, {}), **chosen[name]}
        for name in ("network", "augment")
        if name in chosen
    }
    recipe = Recipe(**{**preset, **chosen, **merged})
    if recipe.guide:
        recipe.guide = str(Path(recipe.guide).resolve())  # to resume from another folder
    if "guidance" in recipe.branch and "stf_after" not in chosen:
        recipe.stf_after = 0.0  # a shortcut is learned in the first epochs
    if given.validate_every is None:
        given.validate_every = 1 if recipe.hold_out else 10
    check_effects(given, recipe, chosen)
    check_out(given, recipe)
    return given, recipe


def resumed_recipe(given: argparse.Namespace) -> Recipe:
    """Read the recipe of the run in ``given.out``; its data and precision go into ``given``."""
    if given.out is None:
        raise ValueError("expected --resume with --out and the folder of the run, got no --out")
    path = Path(given.out) / "recipe.json"
    if not path.is_file() or not path.with_name("last.ckpt").is_file():
        raise ValueError(
            f"expected --out with a run to resume, got {given.out}, which holds no last.ckpt of one"
        )
    if path.with_name("report.json").exists():
        raise ValueError(
            f"expected an unfinished run to resume, got {given.out}, which is finished; "
            "--start-from with another --out trains its weights further"
        )
    facts = json.loads(path.read_text())
    try:
        recipe = Recipe(**with_tuples(facts["recipe"]))
        for name in KEPT:
            setattr(given, name, facts[name])
        given.clip_counts = facts["clips"]
        given.skeleton = facts["skeleton"]
        given.threads = given.threads or facts["threads"]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"expected {path} from this version of the program, got another: {error}"
        ) from None
    return recipe


def check_out(given: argparse.Namespace, recipe: Recipe) -> None:
    """Choose a folder for the run; refuse one that holds a run."""
    if given.out is None:
        folders = (Path("runs") / f"{recipe.model}-{recipe.branch}-{i}" for i in itertools.count(1))
        given.out = str(next(folder for folder in folders if not folder.exists()))
    out = Path(given.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"expected --out to be a folder, got the file {out}")
    holds_run = any((out / name).exists() for name in ("last.ckpt", "report.json"))
    if rank_zero_only.rank == 0 and holds_run:
        raise ValueError(f"expected a new --out, got {out}, which holds a run; --resume resumes it")


def check_effects(given: argparse.Namespace, recipe: Recipe, chosen: dict[str, Any]) -> None:
    """Refuse options that would change nothing, and presets whose --start-from is missing."""
    weights = build_loss(recipe).weights  # this and the next two raise for unknown options
    with_options(NETWORKS[recipe.model], "--network", recipe.network)
    augmentation(recipe, NTU25)
    if (
        weights["adjacency"]
        and recipe.branch not in BRANCHES  # focus and all name L_G for the networks that have it
        and recipe.model not in WITH_STF_ADJACENCY
    ):
        raise ValueError(
            f"expected --branch without adjacency with --model {recipe.model}, which has no "
            f"STFAdjacency for L_G to act on, got {recipe.branch}; leave the term out, or take "
            f"--model {' or '.join(WITH_STF_ADJACENCY)}"
        )
    if weights["guidance"] and not recipe.guide:
        raise ValueError(
            f"expected --guide with --branch {recipe.branch}, got none; name a JSON file such as "
            '{"drink": ["right hand", "head"]}'
        )
    by_distance = weights["divergence"] and recipe.separation == "distance"
    normed = by_distance or weights["coherence"] or weights["adjacency"]
    branch = f"with --branch {recipe.branch}"
    if recipe.branch == "plain":
        branch += "; name the losses, such as --branch focus"
    losses = recipe.branch != "plain" or recipe.erasing
    idle = {  # option: why it would change nothing
        "freeze": "" if recipe.start_from else "without --start-from",
        "erasing": "with --freeze" if recipe.freeze else "",
        "draw": "without --share" if recipe.share == 1 else "",
        "warmup": "" if recipe.decay else "without --decay",
        "cycle": "with --decay" if recipe.decay else "",
        "stf_after": "" if losses else branch,
        "score": "" if losses else branch,
        "norm": "" if normed else branch,
        "separation": "" if weights["divergence"] else branch,
        "guide": "" if weights["guidance"] else f"{branch}; guidance=0.3 in --branch uses it",
        "clips": "" if given.data is None else "with --data",
        "shortcut": "" if given.data is None else "with --data",
        "split": "without --data" if given.data is None else "",
        "layout": "without --data" if given.data is None else "",
        "skip_bad_clips": "without --data" if given.data is None else "",
    }
    of_data = ("split", "layout", "skip_bad_clips")
    named = [*chosen, *(name for name in of_data if getattr(given, name))]
    for name in named:
        if reason := idle.get(name):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"expected options that change something, got {flag} {reason}")
    if recipe.freeze and "dropout" in chosen.get("network", {}):
        raise ValueError(
            "expected options that change something, got --network dropout with --freeze"
        )
    in_time = [name for name in IN_TIME if name in chosen.get("augment", {})]
    if in_time and PREPARATIONS[recipe.preparation].repeats:
        raise ValueError(
            f"expected options that change something, got --augment {in_time[0]} with "
            f"--preparation {recipe.preparation}, which keeps clips whole"
        )
    if recipe.freeze and recipe.branch != "plain":
        raise ValueError(
            f"expected --freeze with --branch plain, got {recipe.branch}; the STF terms act on "
            "features, which --freeze keeps as they are"
        )
    if given.validate_every < 1 or (recipe.hold_out and given.validate_every > recipe.epochs):
        raise ValueError(
            f"expected --validate-every in 1..{recipe.epochs}, got {given.validate_every}"
        )
    goes_on = PRESETS[given.preset].get("model") == "stf_ms_g3d" or given.preset.endswith("_focus")
    if goes_on and not recipe.start_from:
        raise ValueError(
            f"expected --start-from with the preset {given.preset}, got none; name the folder of a "
            "finished run, or another --preset to train from scratch"
        )
