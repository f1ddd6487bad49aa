"""Measures of a run for focus_quality.py and focus_scores.py, each a mean over the test clips."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from trained import averaged

from skeleton_focus import (
    Batch,
    SkeletonDataset,
    SkeletonLayout,
    STFAdjacency,
    STFObjective,
    divergence_loss,
    min_max_normalize,
)
from skeleton_focus.feature_tap import FeatureTap
from skeleton_focus.focus import mask_by_focus, top_two
from skeleton_focus.focus_metrics import (
    area_under_curve,
    class_overlap,
    deletion_curve,
    focus_average_precision,
    focus_coverage,
    focus_iou,
    insertion_curve,
    layer_coherence,
    pointing_game,
    relevance_mass,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from loading import clips_of
from recipe import Recipe, augmentation, prepare
from results import load_run

MEASURES = {  # name: title, digits; docs/focus_quality.md says what each is
    "top1": ("top-1, %", 2),
    "precision": ("average precision", 3),
    "iou": ("IoU", 3),
    "pointing": ("pointing", 3),
    "mass": ("relevance mass", 3),
    "coverage": ("coverage", 3),
    "distance": ("distance of two", 3),
    "overlap": ("overlap of two", 3),
    "coherence": ("coherence", 3),
    "embedding": ("embedding and Q", 3),
    "masked": ("p masked", 3),
    "deletion": ("deletion", 3),
    "insertion": ("insertion", 3),
}


def measure(folder: Path, score: str, shortcut: float | None = None) -> dict[str, float]:
    """Every measure that the run allows, of the focus of one score; kept beside the run.

    ``shortcut`` replaces the run's own share of generated test clips with a shortcut; top-1 stays
    that of the run.
    """
    kept = folder / f"focus_{score}.json"
    if shortcut is not None:
        kept = folder / f"focus_{score}_shortcut_{shortcut}.json"
    if kept.exists() and (found := json.loads(kept.read_text()))["measures"] == list(MEASURES):
        values: dict[str, float] = found["values"]
        return values
    torch.set_num_threads(1)
    objective, recipe, layout, classes, *_ = load_run(folder)
    objective.score = score
    recipe.shortcut = recipe.shortcut if shortcut is None else shortcut
    data, _ = clips_of(str(folder), recipe, layout, classes)
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(data), 32):
        batch = SkeletonDataset.collate([data[i] for i in range(start, min(start + 32, len(data)))])
        for name, of_clips in measure_batch(objective, batch, layout, recipe).items():
            parts.setdefault(name, []).append(of_clips)
    values = {
        name: torch.cat(of_clips).double().nanmean().item() for name, of_clips in parts.items()
    }
    values["top1"] = averaged([folder])
    kept.write_text(json.dumps({"measures": list(MEASURES), "values": values}, indent=2) + "\n")
    return values


def measure_batch(
    objective: STFObjective, batch: Batch, layout: SkeletonLayout, recipe: Recipe
) -> dict[str, Tensor]:
    """Each measure, a number for each clip."""
    model = objective.model
    x = prepare(batch, recipe, layout)
    modules = [name for name, module in model.named_modules() if isinstance(module, STFAdjacency)]
    with torch.no_grad(), FeatureTap(model, modules) as tap:
        logits = model(x)
    first, second = top_two(logits)
    focus, rival = (objective.explain(x, classes)[0] for classes in (first, second))
    low = objective.explain(x, first, layer=objective.layers[-2])[0]
    present = rearrange(x != 0, "n c t v m -> n m t v c").any(-1)
    found = {
        "coverage": focus_coverage(focus, present),
        "distance": -divergence_loss(focus, rival, norm="rms", reduction="none"),
        "overlap": class_overlap(focus, rival),
        "coherence": layer_coherence(low, focus),
        "masked": masked_probability(model, x, first, focus),
    }
    embeddings = [
        rearrange(tap.output(name)[1], "(n m) t v -> n m t v", n=len(x)) for name in modules
    ]
    if embeddings:
        follows = [layer_coherence(embedding, focus) for embedding in embeddings]
        found["embedding"] = torch.stack(follows).mean(0)
    found |= against_chance(model, x, first, focus)
    critical = augmentation(recipe, layout)(batch, None).critical  # resampled as the clip is
    return found | (against_truth(focus, critical) if critical.any() else {})


def without_network(folder: Path) -> dict[str, dict[str, float]]:
    """Measure two maps that need no network, on a run's test clips; empty without ground truth.

    One is constant over the joints that are present, the other is their speed in the prepared clip,
    averaged over five frames.
    """
    _, recipe, layout, classes, *_ = load_run(folder)
    data, _ = clips_of(str(folder), recipe, layout, classes)
    batch = SkeletonDataset.collate([data[i] for i in range(len(data))])
    critical = augmentation(recipe, layout)(batch, None).critical
    if not critical.any():
        return {}
    x = prepare(batch, replace(recipe, stream="joint"), layout)
    present = rearrange(x != 0, "n c t v m -> n m t v c").any(-1).float()
    steps = x[:, :-1].diff(dim=2).norm(dim=1)  # (N, T - 1, V, M)
    series = rearrange(steps, "n t v m -> n (m v) t")
    smooth = F.avg_pool1d(F.pad(series, (1, 0)), 5, 1, 2, count_include_pad=False)
    speed = rearrange(smooth, "n (m v) t -> n m t v", v=layout.num_joints) * present
    maps = {"constant map": present, "speed of the joints": min_max_normalize(speed)}
    found = {}
    for title, focus in maps.items():
        measures = against_truth(focus, critical) | {"coverage": focus_coverage(focus, present)}
        found[title] = {
            name: of_clips.double().nanmean().item() for name, of_clips in measures.items()
        }
    return found


def against_truth(focus: Tensor, critical: Tensor) -> dict[str, Tensor]:
    """The measures of a focus that need the ground truth."""
    return {
        "precision": focus_average_precision(focus, critical),
        "iou": focus_iou(focus, critical),
        "pointing": pointing_game(focus, critical),
        "mass": relevance_mass(focus, critical),
    }


def masked_probability(model: nn.Module, x: Tensor, classes: Tensor, focus: Tensor) -> Tensor:
    """p of the class once its focus is taken out of the clip."""
    with torch.no_grad():
        return model(mask_by_focus(x, focus)).softmax(1).gather(1, classes[:, None]).squeeze(1)


def against_chance(
    model: nn.Module, x: Tensor, classes: Tensor, focus: Tensor
) -> dict[str, Tensor]:
    """Compute what deletion and insertion gain over a random order, for every eighth clip."""
    x = x[::8]
    classes = classes[::8]
    focus = focus[::8]
    chance = torch.rand(focus.shape, generator=torch.Generator().manual_seed(1))
    found = {}
    for name, curve, sign in (("deletion", deletion_curve, -1), ("insertion", insertion_curve, 1)):
        ours = area_under_curve(curve(model, x, focus, classes, steps=5))
        theirs = area_under_curve(curve(model, x, chance, classes, steps=5))
        found[name] = sign * (ours - theirs)
    return found
