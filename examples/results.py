"""Write and read the results of a run: the network, its log-probabilities, its reports."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import torch
from recipe import Recipe, build_objective, prepare, with_tuples
from torch import Tensor, nn
from torch.utils.data import DataLoader

from skeleton_focus import (
    Batch,
    SkeletonDataset,
    SkeletonLayout,
    Split,
    STFObjective,
    __version__,
)
from skeleton_focus.layouts import LAYOUTS
from skeleton_focus.pretrained import Pretrained, pretrained_names, weights_folder

WEIGHTS = weights_folder().resolve()
PUBLISHED = WEIGHTS.parent / "results"  # outputs of published runs, without weights


def batches(
    model: nn.Module, data: SkeletonDataset, recipe: Recipe, **options: Any
) -> Iterator[Batch]:
    """Load clips in batches, on the network's device; ``options`` are the loader's."""
    device = next(model.parameters()).device
    for batch in DataLoader(data, recipe.batch, collate_fn=SkeletonDataset.collate, **options):
        yield Batch(*(part.to(device) for part in batch))


@torch.no_grad()
def predict(
    model: nn.Module, data: SkeletonDataset, recipe: Recipe, *, mirror: bool = False
) -> Tensor:
    """Compute log-probabilities (clips, classes); ``mirror`` averages the probabilities of each
    clip and its mirror image.
    """
    model.eval()
    found = []
    for batch in batches(model, data, recipe):
        views = [
            prepare(batch, recipe, data.layout, mirror=side)
            for side in ([False, True] if mirror else [False])
        ]
        each = [model(view).float().log_softmax(1).cpu() for view in views]
        found.append(torch.stack(each).logsumexp(0) - math.log(len(each)))
    return torch.cat(found)


def accuracy(scores: Tensor, label: Tensor) -> dict[str, float]:
    """Compute top-1 and top-5 of (clips, classes): logits, log-probabilities or probabilities."""
    hits = scores.argsort(dim=1, descending=True, stable=True) == label[:, None]
    return {f"top{k}": round(hits[:, :k].any(1).float().mean().item(), 4) for k in (1, 5)}


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under another name first, so that an interruption leaves no partial file."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        write(file)
    part.replace(path)


def write_json(path: Path, report: dict[str, Any]) -> None:
    write_whole(path, lambda file: file.write((json.dumps(report, indent=2) + "\n").encode()))


def write_model(folder: Path, model: nn.Module, facts: dict[str, Any]) -> None:
    """Write the state_dict to model.pt and what is needed to rebuild the network to model.json."""
    write_json(folder / "model.json", facts)
    write_whole(folder / "model.pt", lambda file: torch.save(model.state_dict(), file))


def write_results(
    folder: Path,
    objective: STFObjective,
    recipe: Recipe,
    clips: SkeletonDataset,
    run: dict[str, Any],
) -> dict[str, float]:
    """Write model.json, model.pt and log_probabilities.npz; return top-1 and top-5 of the last."""
    channels, _, _, persons = clips[0].x.shape
    facts = {
        "version": __version__,
        "recipe": asdict(recipe),
        "code": code_of(objective.model),
        "layout": stored_layout(clips.layout),
        "clips_layout": run["clips_layout"],
        "classes": list(clips.classes),
        "persons": persons,
        "channels": channels,
        "split": run["split"],
    }
    write_model(folder, objective.model, facts)
    # Half precision takes half the space and is finest near 0, where the log-probabilities of the
    # first classes lie. The accuracy is that of the kept numbers; equal ones rank in class order.
    arrays = {
        "log_probabilities": predict(objective.model, clips, recipe).half().numpy(),
        "label": np.array(clips.labels),
        "names": np.array(clips.names),
    }
    write_whole(folder / "log_probabilities.npz", lambda file: np.savez_compressed(file, **arrays))
    found, label, _ = load_log_probabilities(folder)
    return accuracy(found, label)


def write_best(
    out: Path,
    objective: STFObjective,
    recipe: Recipe,
    data: Split,
    validation: SkeletonDataset,
    run: dict[str, Any],
) -> dict[str, Any]:
    """Write the results of the best epoch on the hold-out clips into the run's folder ``best``."""
    saved = load_file(out / "best.ckpt")
    best = copy.deepcopy(objective)
    states = saved["state_dict"].items()
    best.load_state_dict(
        {name[10:]: value for name, value in states if name.startswith("objective.")}
    )
    seen = accuracy(predict(best.model, validation, recipe), torch.tensor(validation.labels))
    (out / "best").mkdir(exist_ok=True)
    found = write_results(out / "best", best, recipe, data.test, run)
    return {"epoch": saved["epoch"] + 1, "validation_top1": seen["top1"], **found}


def write_reports(
    out: Path,
    objective: STFObjective,
    recipe: Recipe,
    data: Split,
    validation: SkeletonDataset,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write the results and reports of a finished run, and print the accuracy."""
    report = {**write_results(out, objective, recipe, data.test, facts), **facts}
    if recipe.hold_out:
        report["best"] = write_best(out, objective, recipe, data, validation, facts)
        write_json(out / "best" / "report.json", {**report["best"], **facts})
    write_json(out / "report.json", report)
    top5 = f", top-5 {report['top5']:.2%}" if len(report["classes"]) > 5 else ""
    line = f"top-1 {report['top1']:.2%}{top5} on {len(data.test)} test clips"
    line += f", {facts['seconds']} s of training"
    if facts["frozen"]:
        trained = facts["parameters"] - facts["frozen"]
        line += f", {trained:,} parameters trained and {facts['frozen']:,} frozen"
    print(line)
    if best := report.get("best"):
        print(
            f"top-1 {best['top1']:.2%} after epoch {best['epoch']} of {recipe.epochs}, best on "
            f"{len(validation)} held-out clips ({best['validation_top1']:.2%} there)"
        )
    return report


def run_folder(folder: str | Path) -> Path:
    """Return the folder of a run, or of the network with this name in ``weights/``."""
    ours = WEIGHTS / folder
    return ours if ours.is_dir() and not Path(folder).exists() else Path(folder)


def output_folder(folder: str | Path) -> Path:
    """Return where programs write by default: a run's own folder, or this one for ours."""
    parents = run_folder(folder).resolve().parents
    return Path() if WEIGHTS in parents or PUBLISHED in parents else Path(folder)


def finished(folder: str | Path, name: str) -> Path:
    """Return the path of a file of a finished run; the error says how to get a missing one."""
    path = run_folder(folder) / name
    if path.is_file():
        return path
    lacks = f"which holds no {name}" if path.parent.is_dir() else "which is no folder"
    if name == "model.json" and path.with_name("model.pt").is_file():
        lacks += "; versions before 0.2 wrote none, so train the run again"
    elif path.with_name("model.pt").is_file():
        lacks += "; --data PATH runs the network on the clips"
    elif path.with_name("last.ckpt").is_file():
        lacks += f"; python examples/train.py --out {folder} --resume finishes it"
    elif path.parent.is_dir():
        if PUBLISHED in path.resolve().parents:
            lacks += "; benchmarks/published.py --commands tells how to train it"
        inside = [*path.parent.glob(f"*/{name}"), *path.parent.glob(f"*/*/{name}")]
        runs = sorted(file.parent for file in inside)
        if runs:
            lacks += f"; its folder {runs[0].relative_to(path.parent)} does"
    else:
        lacks += f"; the networks of weights/ are {', '.join(pretrained_names())}"
    raise ValueError(f"expected a finished run, got {folder}, {lacks}")


def facts_of(folder: str | Path) -> dict[str, Any]:
    """Read a run's report.json or, without one, the split and classes from model.json."""
    path = run_folder(folder) / "report.json"
    if not path.is_file():
        saved = load_json(finished(folder, "model.json"))
        return {"data": None, "split": saved.get("split"), "classes": saved["classes"]}
    try:
        found = {"data": None, **json.loads(path.read_text())}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"expected the report of a run, got {path}, which cannot be read: {error}"
        ) from None
    if "classes" not in found:  # of version 0.1
        found["classes"] = load_json(finished(folder, "model.json"))["classes"]
    return found


def load_log_probabilities(folder: str | Path) -> tuple[Tensor, Tensor, list[str]]:
    """Read log-probabilities, labels and clip names of a run; no code in the file is run."""
    path = finished(folder, "log_probabilities.npz")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return (
                # Again, because rounded ones do not add up to 1.
                torch.from_numpy(file["log_probabilities"]).float().log_softmax(1),
                torch.from_numpy(file["label"]),
                file["names"].tolist(),
            )
    except (ValueError, TypeError, KeyError, IndexError, EOFError, BadZipFile) as error:
        reason = "it is no .npz of arrays" if "pickle" in str(error) else str(error)
        raise ValueError(
            f"expected the log-probabilities of a run, got {path}, which cannot be read: {reason}"
        ) from None


def stored_layout(layout: SkeletonLayout) -> str | dict[str, Any]:
    """Describe a skeleton in plain values: by its name, or whole if it has none of ours."""
    return layout.name if LAYOUTS.get(layout.name) == layout else layout.to_dict()


def read_layout(stored: str | dict[str, Any]) -> SkeletonLayout:
    """Undo :func:`stored_layout`."""
    return SkeletonLayout.from_dict(stored) if isinstance(stored, dict) else LAYOUTS[stored]


def load_run(folder: str | Path) -> Pretrained:
    """Load a run: the trained network, its recipe, skeleton and classes."""
    path = finished(folder, "model.pt")
    weights = load_file(path)
    facts_path = finished(folder, "model.json")
    facts = load_json(facts_path)
    version = facts.get("version", "unknown")
    of = "" if version == __version__ else f" of version {version}, not {__version__}"
    try:
        recipe = Recipe(**with_tuples(facts["recipe"]))
        layout, clips_layout = (read_layout(facts[name]) for name in ("layout", "clips_layout"))
        sizes = (facts["persons"], facts["channels"])
        classes = facts["classes"]
        objective = build_objective(recipe, len(classes), sizes[0], layout, channels=sizes[1])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"expected {facts_path} to describe a network that can be built, got one{of}: {error!r}"
        ) from None
    try:
        objective.model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        first = " ".join(str(error).split())[:300]
        raise ValueError(f"expected {path} to fit {facts_path.name}, got{of}: {first}") from None
    if not of and facts.get("code") not in (None, code_of(objective.model)):
        warnings.warn(
            f"{path} was trained with another {type(objective.model).__name__} than this one, "
            f"perhaps an edited copy; load it with load_run in the results.py beside that copy",
            stacklevel=2,
        )
    return Pretrained(objective.eval(), recipe, layout, classes, *sizes, clips_layout)


def code_of(network: nn.Module) -> str:
    """Return a digest of the file that defines a network; a copy by copy_example has the same."""
    try:
        text = inspect.getsource(sys.modules[type(network).__module__])
    except OSError:  # it was defined in a notebook, for example
        return ""
    return hashlib.sha256(text.replace("examples/", "").encode()).hexdigest()[:16]


def load_json(path: Path) -> dict[str, Any]:
    """Read model.json."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"expected JSON in {path}, which cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"expected an object of JSON in {path}, got {type(found).__name__}")
    return found


def load_file(path: Path) -> dict[str, Any]:
    """Load a file of tensors and plain values; no code in it is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"expected a checkpoint of this program, got {path}, which cannot be read: {reason}"
        ) from None
