"""The measurements of benchmarks/robustness.py: top-1 of a run on incomplete test clips."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Protocol

import torch

from skeleton_focus import Batch, SkeletonDataset, SkeletonLayout, seeded_generator
from skeleton_focus.occlusion import (
    body_parts,
    drop_frames,
    hide_frames,
    hide_joints,
    hide_random_joints,
    jitter_joints,
    keep_beginning,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from loading import clips_of
from recipe import prepare
from results import load_run


class Change(Protocol):
    """What a setting does to clips."""

    def __call__(self, batch: Batch, random: torch.Generator) -> Batch: ...


SHARES = (0.1, 0.3, 0.5)
PARTS = ("left_arm", "right_arm", "two_hands", "two_legs", "trunk")
HIDDEN = {f"frames {share:.0%}": share for share in SHARES}
LOST = {f"joints {p:.0%}": p for p in SHARES}
JITTER = {f"jitter {p:.0%}, {sigma}": (p, sigma) for p in (0.02, 0.1) for sigma in (0.05, 0.1)}
BEGINNINGS = {f"first {share:.0%}": share for share in (0.5, 0.7, 0.9)}
DROPPED = {f"dropped {p:.0%}": p for p in SHARES}
SETTINGS = ("clean", *PARTS, *HIDDEN, *LOST, *JITTER, *BEGINNINGS, *DROPPED)

# The columns of the table, and the settings that each is a mean over.
COLUMNS: dict[str, tuple[str, ...]] = {
    "clean": ("clean",),
    **{part.replace("_", " "): (part,) for part in PARTS},
    "parts, mean": PARTS,
    "frames, mean": tuple(HIDDEN),
    "frames, 30 %": ("frames 30%",),
    "random joints": tuple(LOST),
    "jitter": tuple(JITTER),
    "beginning": tuple(BEGINNINGS),
    "dropped frames": tuple(DROPPED),
}


def changes(layout: SkeletonLayout) -> dict[str, Change]:
    """Every setting by its name."""
    parts = body_parts(layout)

    def part(name: str) -> Change:
        return lambda batch, random: hide_joints(batch, parts[name])

    def frames(share: float) -> Change:
        return lambda batch, random: hide_frames(batch, share)

    def joints(p: float) -> Change:
        return lambda batch, random: hide_random_joints(batch, p, random)

    def jitter(p: float, sigma: float) -> Change:
        return lambda batch, random: jitter_joints(
            batch, layout, p=p, sigma=sigma, generator=random
        )

    def beginning(share: float) -> Change:
        return lambda batch, random: keep_beginning(batch, share)

    def dropped(p: float) -> Change:
        return lambda batch, random: drop_frames(batch, p, random)

    return {
        "clean": lambda batch, random: batch,
        **{name: part(name) for name in PARTS},
        **{name: frames(share) for name, share in HIDDEN.items()},
        **{name: joints(p) for name, p in LOST.items()},
        **{name: jitter(*options) for name, options in JITTER.items()},
        **{name: beginning(share) for name, share in BEGINNINGS.items()},
        **{name: dropped(p) for name, p in DROPPED.items()},
    }


def robustness(folder: Path) -> dict[str, float]:
    """Measure top-1 of a finished run in every setting, %.

    The values are kept beside the run, and measured again if the settings change.
    """
    kept = folder / "robustness.json"
    if kept.exists() and (found := json.loads(kept.read_text()))["settings"] == list(SETTINGS):
        values: dict[str, float] = found["values"]
        return values
    torch.set_num_threads(1)
    objective, recipe, layout, classes, *_ = load_run(folder)
    data, _ = clips_of(str(folder), recipe, layout, classes)
    hits = dict.fromkeys(SETTINGS, 0)
    # Batches of their own size, so that every network sees the same random numbers.
    for start in range(0, len(data), 32):
        batch = SkeletonDataset.collate([data[i] for i in range(start, min(start + 32, len(data)))])
        for name, change in changes(layout).items():
            occlude = partial(change, random=seeded_generator(1, epoch=0, step=start))
            x = prepare(batch, recipe, layout, occlude=occlude)
            with torch.no_grad():
                predicted = objective.model(x).argmax(1)
            hits[name] += int((predicted == batch.label).sum())
    values = {name: 100 * count / len(data) for name, count in hits.items()}
    kept.write_text(json.dumps({"settings": list(SETTINGS), "values": values}, indent=2) + "\n")
    return values


def columns(values: Mapping[str, float]) -> dict[str, float]:
    """The columns of the table: means over settings."""
    return {title: mean(values[name] for name in settings) for title, settings in COLUMNS.items()}
