"""What benchmarks/focus_quality.py measures of a run: each a mean over the test clips."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from trained import averaged

from skeleton_focus import (
    Augment,
    Batch,
    FeatureTap,
    SkeletonDataset,
    SkeletonLayout,
    STFAdjacency,
    STFObjective,
    area_under_curve,
    class_overlap,
    deletion_curve,
    divergence_loss,
    focus_average_precision,
    focus_coverage,
    focus_iou,
    insertion_curve,
    layer_coherence,
    mask_by_focus,
    pointing_game,
)
from skeleton_focus.focus import top_two, weigh_channels

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from loading import clips_of
from recipe import Recipe, prepare
from results import load_run

MEASURES = {  # name: title, digits; docs/focus_quality.md says what each is
    "top1": ("top-1, %", 2),
    "coverage": ("coverage", 3),
    "distance": ("distance of two", 3),
    "overlap": ("overlap of two", 4),
    "logit_overlap": ("overlap, logits", 3),
    "empty": ("second empty", 3),
    "coherence": ("coherence", 3),
    "embedding": ("embedding and Q", 3),
    "masked": ("p masked", 3),
    "opposed": ("L_e against L_d", 3),
    "deletion": ("deletion", 3),
    "insertion": ("insertion", 3),
    "precision": ("average precision", 3),
    "iou": ("IoU", 3),
    "pointing": ("pointing", 3),
    "found": ("truth covered", 3),
    "training_loss": ("training loss", 3),
}


def measure(folder: Path) -> dict[str, float]:
    """Every measure that the run allows; kept beside it, where other measures are made anew."""
    kept = folder / "focus_quality.json"
    if kept.exists() and (found := json.loads(kept.read_text()))["measures"] == list(MEASURES):
        values: dict[str, float] = found["values"]
        return values
    torch.set_num_threads(1)
    objective, recipe, layout, classes = load_run(folder)
    data, _ = clips_of(str(folder), recipe, layout, classes)
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(data), 32):
        batch = SkeletonDataset.collate([data[i] for i in range(start, min(start + 32, len(data)))])
        for name, of_clips in measure_batch(objective, batch, layout, recipe).items():
            parts.setdefault(name, []).append(of_clips)
    values = {name: torch.cat(of_clips).double().nanmean().item() for name, of_clips in parts.items()}
    values |= {"top1": averaged([folder]), "training_loss": training_loss(folder)}
    kept.write_text(json.dumps({"measures": list(MEASURES), "values": values}, indent=2) + "\n")
    return values


def measure_batch(objective: STFObjective, batch: Batch, layout: SkeletonLayout, recipe: Recipe) -> dict[str, Tensor]:
    """Each measure, a number for each clip."""
    model, last = objective.model, objective.layers[-1]
    x = prepare(batch, recipe, layout)
    modules = [name for name, module in model.named_modules() if isinstance(module, STFAdjacency)]
    with torch.no_grad(), FeatureTap(model, [*modules, last]) as tap:
        logits = model(x)
    first, second = top_two(logits)
    focus, rival = (objective.explain(x, classes)[0] for classes in (first, second))
    low = objective.explain(x, first, layer=objective.layers[-2])[0]
    present = rearrange(x != 0, "n c t v m -> n m t v c").any(-1)
    found = {
        "coverage": focus_coverage(focus, present),
        "distance": -divergence_loss(focus, rival, norm="rms", reduction="none"),
        "overlap": class_overlap(focus, rival),
        "empty": (~rival.flatten(1).any(1)).float(),
        "coherence": layer_coherence(low, focus),
    }
    if objective.head is not None:  # of the logits themselves, not of their difference from the others
        weight, m = model.get_submodule(objective.head).weight.detach(), x.shape[-1]
        rows = (weight[classes].repeat_interleave(m, 0) for classes in (first, second))  # (N * M, C)
        there = present.flatten(2).any(2)  # (N, M)
        maps = (weigh_channels(row, tap[last], num_persons=m, present=there) for row in rows)
        found["logit_overlap"] = class_overlap(*maps)
    embeddings = [rearrange(tap.output(name)[1], "(n m) t v -> n m t v", n=len(x)) for name in modules]
    if embeddings:
        found["embedding"] = torch.stack([layer_coherence(embedding, focus) for embedding in embeddings]).mean(0)
    found |= at_focus(model, x, first, focus, rival) | against_chance(model, x, first, focus)
    critical = Augment(layout, frames=recipe.frames)(batch, None).critical
    if critical.any():
        found |= {"precision": focus_average_precision(focus, critical), "iou": focus_iou(focus, critical)}
        found |= {"pointing": pointing_game(focus, critical), "found": focus_coverage(focus, critical)}
    return found


def at_focus(model: nn.Module, x: Tensor, classes: Tensor, focus: Tensor, rival: Tensor) -> dict[str, Tensor]:
    """p of the class once Q is masked, and whether L_e and L_d pull Q against each other: 1 or 0."""
    q = focus.detach().requires_grad_()
    p = model(mask_by_focus(x, q)).softmax(1).gather(1, classes[:, None]).squeeze(1)
    (of_e,) = torch.autograd.grad(p.sum(), q)
    (of_d,) = torch.autograd.grad(divergence_loss(q, rival, reduction="sum"), q)
    return {"masked": p.detach(), "opposed": ((of_e * of_d).flatten(1).sum(1) < 0).float()}


def against_chance(model: nn.Module, x: Tensor, classes: Tensor, focus: Tensor) -> dict[str, Tensor]:
    """How much deletion and insertion gain over a random order of the entries; of every eighth clip."""
    x, classes, focus = x[::8], classes[::8], focus[::8]
    chance = torch.rand(focus.shape, generator=torch.Generator().manual_seed(1))
    found = {}
    for name, curve, sign in (("deletion", deletion_curve, -1), ("insertion", insertion_curve, 1)):
        ours, theirs = (area_under_curve(curve(model, x, order, classes, steps=5)) for order in (focus, chance))
        found[name] = sign * (ours - theirs)
    return found


def training_loss(folder: Path) -> float:
    """The classification loss, a mean over the last epoch's training clips as training saw them."""
    logged: dict[int, float] = {}
    for log in folder.glob("log/version_*/metrics.csv"):  # one for each time that the run was started
        with log.open(newline="") as file:
            logged |= {int(row["epoch"]): float(loss) for row in csv.DictReader(file)
                       if (loss := row.get("train/classification"))}  # fmt: skip
    return logged[max(logged)]
