"""What a run leaves in its folder, and how it is read back: the network, its probabilities, its reports."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recipe import Recipe, build_objective, prepare, watched
from torch import Tensor, nn
from torch.utils.data import DataLoader

from skeleton_focus import LAYOUTS, Augment, Batch, SkeletonDataset, SkeletonLayout, Split, STFObjective


def batches(model: nn.Module, data: SkeletonDataset, recipe: Recipe, **options: Any) -> Iterator[Batch]:
    """The clips in batches, on the network's device; ``options`` are the loader's."""
    device = next(model.parameters()).device
    for batch in DataLoader(data, recipe.batch, collate_fn=SkeletonDataset.collate, **options):
        yield Batch(*(part.to(device) for part in batch))


@torch.no_grad()
def predict(model: nn.Module, data: SkeletonDataset, recipe: Recipe, *, mirror: bool = False) -> Tensor:
    """Class probabilities (clips, classes); with ``mirror`` the means over each clip and its mirror image."""
    model.eval()
    found = []
    for batch in batches(model, data, recipe):
        views = [batch, Augment(data.layout, flip=1.0)(batch, torch.Generator())] if mirror else [batch]
        each = [model(prepare(view, recipe, data.layout)).float().softmax(1).cpu() for view in views]
        found.append(torch.stack(each).mean(0))
    return torch.cat(found)


def accuracy(probabilities: Tensor, label: Tensor) -> dict[str, float]:
    """Top-1 and top-5."""
    hits = probabilities.argsort(1, descending=True) == label[:, None]
    return {f"top{k}": round(hits[:, :k].any(1).float().mean().item(), 4) for k in (1, 5)}


def write_results(folder: Path, objective: STFObjective, recipe: Recipe, clips: SkeletonDataset) -> dict[str, float]:
    """The network as load_run takes it and the clips' probabilities as ensemble.py does; top-1 and top-5."""
    channels, _, _, persons = clips[0].x.shape
    kept = {"weights": objective.state_dict(), "recipe": asdict(recipe), "layout": clips.layout.name}
    kept |= {"classes": list(clips.classes), "persons": persons, "channels": channels}
    torch.save(kept, folder / "model.pt")
    probabilities, label = predict(objective.model, clips, recipe), torch.tensor(clips.labels)
    arrays = {"probabilities": probabilities.numpy(), "label": label.numpy(), "names": np.array(clips.names)}
    np.savez_compressed(folder / "probabilities.npz", **arrays)
    return accuracy(probabilities, label)


def write_best(
    out: Path, objective: STFObjective, recipe: Recipe, validation: SkeletonDataset, test: SkeletonDataset
) -> dict[str, Any]:
    """The same of the epoch that was best on the held-out clips, into the run's folder ``best``."""
    saved, best = load_file(out / "best.ckpt"), copy.deepcopy(objective)
    states = saved["state_dict"].items()
    best.load_state_dict({name[10:]: value for name, value in states if name.startswith("objective.")})
    seen = accuracy(predict(best.model, validation, recipe), torch.tensor(validation.labels))
    (out / "best").mkdir(exist_ok=True)
    found = write_results(out / "best", best, recipe, test)
    return {"epoch": saved["epoch"] + 1, "validation_top1": seen["top1"], **found}


def write_reports(
    out: Path, objective: STFObjective, recipe: Recipe, data: Split, validation: SkeletonDataset, facts: dict[str, Any]
) -> dict[str, Any]:
    """All that a finished run leaves, and the figures in words."""
    report = {**write_results(out, objective, recipe, data.test), **facts}
    if watched(recipe) == "validation":
        report["best"] = write_best(out, objective, recipe, validation, data.test)
        (out / "best" / "report.json").write_text(json.dumps({**report["best"], **facts}, indent=2) + "\n")
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    told = f"on {len(data.test)} test clips, {facts['seconds']} s of training"
    print(f"top-1 {report['top1']:.2%}, top-5 {report['top5']:.2%} {told}")
    if best := report.get("best"):
        seen = f"best on {len(validation)} held-out clips ({best['validation_top1']:.2%} there)"
        print(f"top-1 {best['top1']:.2%} after epoch {best['epoch']} of {recipe.epochs}, {seen}")
    return report


def load_run(folder: str | Path) -> tuple[STFObjective, Recipe, SkeletonLayout, list[str]]:
    """The trained network of a run, how it was trained, its skeleton and its classes."""
    path = Path(folder) / "model.pt"
    if not path.is_file():
        raise ValueError(f"expected a finished run, got {folder}, which holds no model.pt; --resume finishes one")
    saved = load_file(path)
    try:
        recipe, layout = Recipe(**saved["recipe"]), LAYOUTS[saved["layout"]]
        channels = saved.get("channels", 3)  # runs of earlier versions had no others
        objective = build_objective(recipe, len(saved["classes"]), saved["persons"], layout, channels=channels)
        objective.load_state_dict(saved["weights"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"expected {path} from this version of the program, got another: {error}") from None
    return objective.eval(), recipe, layout, saved["classes"]


def load_file(path: Path) -> dict[str, Any]:
    """A file of tensors and plain values; nothing in it is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"expected a checkpoint of this program, got {path}, which cannot be read: {reason}") from None
