"""The command line of train.py: an option for every field of the recipe, and checks before the run
starts.
"""

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
    LAYERS,
    OF_ONE_NETWORK,
    PREPARATIONS,
    PRESETS,
    WITH_STF_ADJACENCY,
    Recipe,
    build_loss,
    kept_recipe,
    watched,
)

from skeleton_focus.focus import SCORES
from skeleton_focus.losses import FORMS, NORMS


def given_as(value: Any) -> str:
    """A value as the command line takes it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def options(says: str | None) -> argparse.ArgumentParser:
    """The command line: what a run needs besides its recipe, and every field of that."""
    listed = "\n".join(
        f"  {name}: "
        + " ".join(f"--{key.replace('_', '-')} {given_as(value)}" for key, value in preset.items())
        for name, preset in PRESETS.items()
    )
    parser = argparse.ArgumentParser(
        description=says,
        epilog="presets (options on the command line override them):\n" + listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data", help="folder or file of clips; default: generated actions")
    parser.add_argument(
        "--split", help="split of the data, such as xsub; default: the first one of the format"
    )
    parser.add_argument(
        "--skip-bad-clips", action="store_true", help="skip clips that cannot be read"
    )
    parser.add_argument(
        "--preset", choices=PRESETS, help="named settings; default: chosen by --data and --model"
    )
    parser.add_argument("--out", help="folder of the run; default: a new folder in runs/")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume the run in --out after its last complete epoch",
    )
    parser.add_argument(
        "--precision", choices=["32-true", "bf16-mixed", "16-mixed"], help="default: 32-true"
    )
    parser.add_argument(
        "--devices",
        type=int,
        default=-1,
        help="devices per machine, unless torchrun sets them; -1: all",
    )
    parser.add_argument(
        "--nodes", type=int, default=1, help="number of machines, unless torchrun sets it"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that read and load clips")
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        help="CPU threads; 0: PyTorch's default, or those of the resumed run",
    )
    watching = "epochs between two evaluations, on the hold-out clips (default 1) or else on the test clips (default 10)"
    parser.add_argument("--validate-every", type=int, help=watching)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    choices = {
        "model": LAYERS,
        "norm": NORMS,
        "preparation": PREPARATIONS,
        "score": SCORES,
        "separation": FORMS,
    }
    choices |= {"shared_map": ["one", "per_head"]}
    choices |= {"stf_arrangement": ["modules", "scales"]}
    choices |= {
        "focusing": ["attention", "mean", "max", "none"],
        "context": ["bidirectional", "forward", "none"],
    }
    for option in fields(Recipe):
        several = isinstance(option.default, tuple)
        flag = f"--{option.name.replace('_', '-')}"
        default = given_as(option.default) or "none"
        says = f"{option.metadata['help']} (default without a preset: {default})"
        if isinstance(option.default, bool):
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=None, help=says
            )
            continue
        kind = type(option.default[0] if several else option.default)
        nargs = "+" if several else None
        parser.add_argument(
            flag, type=kind, nargs=nargs, choices=choices.get(option.name), help=says
        )
    return parser


def parse(
    arguments: list[str] | None = None, *, says: str | None = None
) -> tuple[argparse.Namespace, Recipe]:
    """What to do and how: from the command line, or, of a run that goes on, from its folder."""
    given = options(says).parse_args(arguments)
    chosen = {
        o.name: getattr(given, o.name) for o in fields(Recipe) if getattr(given, o.name) is not None
    }
    chosen = {
        name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()
    }
    if given.resume:
        kept = (
            given.preset,
            given.data,
            given.precision,
            given.split,
            given.skip_bad_clips,
            given.validate_every,
        )
        if chosen or any(kept):
            raise ValueError(
                "expected --resume with --out alone, got options that the run keeps from its start"
            )
        return given, resumed_recipe(given)
    check_ranges(given, chosen)
    given.precision = given.precision or "32-true"
    given.clip_counts = None
    suited = "synthetic" if given.data is None else "nw_ucla"
    model = chosen.get("model", "stf_gcn")
    given.preset = given.preset or (suited if model == "stf_gcn" else f"{suited}_{model}")
    recipe = Recipe(**{**PRESETS[given.preset], **chosen})
    recipe.guide = recipe.guide and str(
        Path(recipe.guide).resolve()
    )  # a resumed run may start in another folder
    if "guidance" in recipe.branch and "stf_after" not in chosen:
        recipe.stf_after = 0.0  # a shortcut is learned in the first epochs
    given.validate_every = given.validate_every or (1 if watched(recipe) == "validation" else 10)
    check_effects(given, recipe, chosen)
    if given.out is None:
        folders = (Path("runs") / f"{recipe.model}-{recipe.branch}-{i}" for i in itertools.count(1))
        given.out = str(next(folder for folder in folders if not folder.exists()))
    if Path(given.out).exists() and not Path(given.out).is_dir():
        raise ValueError(f"expected --out to be a folder, got the file {given.out}")
    if rank_zero_only.rank == 0 and any(
        (Path(given.out) / name).exists() for name in ("last.ckpt", "report.json")
    ):
        raise ValueError(
            f"expected a new --out, got {given.out}, which holds a run; resume it with --resume"
        )
    return given, recipe


def resumed_recipe(given: argparse.Namespace) -> Recipe:
    """The recipe of the run in ``given.out``; its data, preset and precision go into ``given``."""
    if given.out is None:
        raise ValueError("expected --resume with --out and the folder of the run, got no --out")
    path = Path(given.out) / "recipe.json"
    if not path.is_file() or not path.with_name("last.ckpt").is_file():
        raise ValueError(
            f"expected --out with a run to resume, got {given.out}, which holds no last.ckpt of one"
        )
    if path.with_name("report.json").exists():
        hint = "--start-from with another --out trains its weights further"
        raise ValueError(
            f"expected an unfinished run to resume, got {given.out}, which is finished; {hint}"
        )
    kept = {
        "precision": "32-true",
        "split": None,
        "skip_bad_clips": False,
        "validate_every": 10,
        "threads": 0,
    }
    kept |= json.loads(path.read_text())
    for name in ("data", "preset", "precision", "split", "skip_bad_clips", "validate_every"):
        setattr(given, name, kept[name])
    given.clip_counts = kept.get("clips")
    given.threads = given.threads or kept["threads"]
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in kept["recipe"].items()
    }
    try:
        return kept_recipe(values)
    except TypeError as error:
        raise ValueError(
            f"expected {path} from this version of the program, got another: {error}"
        ) from None


def check_ranges(given: argparse.Namespace, chosen: dict[str, Any]) -> None:
    """Refuse numbers that no run can have."""
    for name, least in (
        ("epochs", 1),
        ("batch", 1),
        ("frames", 1),
        ("clips", 4),
        ("scales", 1),
        ("window_scales", 1),
    ):
        if chosen.get(name, least) < least:
            raise ValueError(f"expected {name} of at least {least}, got {chosen[name]}")
    if given.threads < 0 or given.workers < 0:
        raise ValueError(
            f"expected --threads and --workers of at least 0, got {given.threads} and {given.workers}"
        )
    for name, low, high in (
        ("label_smoothing", 0, 1),
        ("ema", 0, 1),
        ("dropout", 0, 0.99),
        ("crop", 0.01, 1),
        ("speed", 0, 0.99),
        ("stretch", 0, 0.99),
        ("shear", 0, 1),
        ("flip", 0, 1),
        ("share", 1e-9, 1),
        ("shortcut", 0, 1),
        ("erasing", 0, 1),
        ("joint_dropout", 0, 0.99),
        ("cycle", 0.1, 1),
        ("lr", 1e-9, 99),
        ("weight_decay", 0, 1),
        ("clip_gradient", 1e-9, 1e9),
        ("stf_after", 0, 1),
    ):
        if name in chosen and not low <= chosen[name] <= high:
            raise ValueError(f"expected {name} in {low}..{high}, got {chosen[name]}")
    if chosen.get("focal_joints", 0) < 0 or chosen.get("warmup", 0) < 0:
        raise ValueError("expected --focal-joints and --warmup of at least 0")
    looks = 1 if given.validate_every is None else given.validate_every
    if len(chosen.get("turn", (0, 0, 0))) != 3 or looks < 1 or given.devices == 0:
        raise ValueError(
            "expected --turn with 3 angles, --validate-every of at least 1 and --devices other than 0"
        )


def check_effects(given: argparse.Namespace, recipe: Recipe, chosen: dict[str, Any]) -> None:
    """Refuse options that would change nothing, and a preset without what it needs."""
    weights = build_loss(recipe).weights  # refuses a branch that is none
    named = (
        recipe.branch not in BRANCHES
    )  # focus and all hold L_G for the networks that have something for it
    if weights["adjacency"] and named and recipe.model not in WITH_STF_ADJACENCY:
        hint = f"leave the term out, or take --model {' or '.join(WITH_STF_ADJACENCY)}"
        raise ValueError(
            f"expected --branch without adjacency with --model {recipe.model}, which has no STFAdjacency "
            f"for L_G to act on, got {recipe.branch}; {hint}"
        )
    by_distance = weights["divergence"] and recipe.separation == "distance"
    normed = by_distance or weights["coherence"] or weights["adjacency"]
    if weights["guidance"] and not recipe.guide:
        raise ValueError(
            f"expected --guide with --branch {recipe.branch}, got none; name a JSON file such as "
            '{"drink": ["right hand", "head"]}'
        )
    own = OF_ONE_NETWORK.get(recipe.model, ())
    of_others = [name for names in OF_ONE_NETWORK.values() for name in names if name not in own]
    idle = dict.fromkeys(of_others, f"with --model {recipe.model}")
    for names, hint, holds in (
        (["freeze"], "without --start-from", not recipe.start_from),
        (["dropout", "erasing"], "with --freeze", recipe.freeze),
        (["draw"], "without --share", recipe.share == 1),
        (["warmup"], "without --decay", recipe.decay == (0,)),
        (["cycle"], "with --decay", recipe.decay != (0,)),
        (["context"], "with --focusing none", recipe.focusing == "none"),
        (
            ["crop", "speed"],
            f"with --preparation {recipe.preparation}",
            PREPARATIONS[recipe.preparation].repeats,
        ),
        (["stf_after"], "with --branch plain", recipe.branch == "plain" and not recipe.erasing),
        (["norm"], f"with --branch {recipe.branch}", not normed),
        (["separation"], f"with --branch {recipe.branch}", not weights["divergence"]),
        (
            ["guide"],
            f"with --branch {recipe.branch}; guidance=0.3 in --branch uses it",
            not weights["guidance"],
        ),
        (["clips", "shortcut"], "with --data", given.data is not None),
        (["split", "skip_bad_clips"], "without --data", given.data is None),
    ):
        idle |= dict.fromkeys(names, hint) if holds else {}
    also = [name for name in ("split", "skip_bad_clips") if getattr(given, name)]
    for name in [name for name in [*chosen, *also] if name in idle]:
        raise ValueError(
            f"expected options that change something, got --{name.replace('_', '-')} {idle[name]}"
        )
    if recipe.freeze and recipe.branch != "plain":
        hint = "the STF terms act on features, which it keeps as they are"
        raise ValueError(f"expected --freeze with --branch plain, got {recipe.branch}; {hint}")
    if watched(recipe) == "validation" and given.validate_every > recipe.epochs:
        raise ValueError(
            f"expected --validate-every within the {recipe.epochs} epochs, got {given.validate_every}"
        )
    goes_on = PRESETS[given.preset].get("model") == "stf_ms_g3d" or given.preset.endswith("_focus")
    if goes_on and not recipe.start_from:
        hint = "name the folder of a finished run, or another --preset to train from scratch"
        raise ValueError(f"expected --start-from with the preset {given.preset}, got none; {hint}")
