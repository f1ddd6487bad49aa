"""Fuse the class probabilities of finished runs: the two STF branches, or several streams.

python examples/ensemble.py runs/exploration runs/focus
python examples/ensemble.py runs/joint runs/bone --weights 0.6 0.4
python examples/ensemble.py runs/joint runs/bone runs/jm runs/bm --logits --weights 0.6 0.6 0.4 0.4
python examples/ensemble.py nw_ucla/stf_gcn/joint nw_ucla/stf_gcn/bone --data PATH --mirror   # \
    run the networks on each clip and its mirror
python examples/ensemble.py runs/joint runs/bone --wrong             # also list the clips that \
    the average gets wrong
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from loading import chosen_clips, clip_options, clips_of
from results import accuracy, facts_of, load_log_probabilities, load_run, predict
from torch import Tensor
from train import run

from skeleton_focus import fuse


def same_clips(
    folders: Sequence[str], found: Sequence[tuple[Tensor, Tensor, list[str]]]
) -> tuple[list[Tensor], Tensor, list[str]]:
    """Return each run's log-probabilities, labels and clip names; the clips must be equal."""
    logs, labels, names = zip(*found, strict=True)
    first = folders[0]
    clips = names[0]
    label = labels[0]
    for folder, others, theirs in zip(folders, names, labels, strict=True):
        if strange := set(clips) ^ set(others):
            raise ValueError(
                f"expected runs tested on the same clips, got {first} and {folder} with "
                f"{len(strange)} clips in one of them only, such as {min(strange)}"
            )
        if clips != others:
            raise ValueError(
                f"expected runs tested on the same clips in one order, got another in {folder}"
            )
        if not torch.equal(label, theirs):
            name = clips[int((label != theirs).nonzero()[0])]
            raise ValueError(
                f"expected the same class of every clip in both runs, got two of {name}"
            )
    return list(logs), label, clips


def read_all(folders: Sequence[str]) -> tuple[list[Tensor], Tensor, list[str]]:
    """Read each run's log-probabilities, and the labels and names of their clips."""
    return same_clips(folders, [load_log_probabilities(folder) for folder in folders])


def recognise(
    folders: Sequence[str], *, mirror: bool = False, **clips_asked: Any
) -> tuple[list[Tensor], Tensor, list[str]]:
    """Run each run's network on its test clips, or on those of other data."""
    found = []
    for folder in folders:
        objective, recipe, layout, classes, *_ = load_run(folder)
        clips, _ = clips_of(folder, recipe, layout, classes, **clips_asked)
        logs = predict(objective.model, clips, recipe, mirror=mirror)
        found.append((logs, torch.tensor(clips.labels), list(clips.names)))
    return same_clips(folders, found)


def gather(
    folders: Sequence[str], given: argparse.Namespace, *, mirror: bool = False
) -> tuple[list[Tensor], Tensor, list[str]]:
    """Run the networks if the command line names clips or --mirror; else read their results."""
    asked = chosen_clips(given)
    if mirror or any(value not in (None, False) for value in asked.values()):
        return recognise(folders, mirror=mirror, **asked)
    return read_all(folders)


def fused(logs: Sequence[Tensor], weights: Sequence[float] | None, *, logits: bool) -> Tensor:
    """Fuse by averaging probabilities or, up to one number for each clip, by adding logits."""
    if logits:
        return fuse(logs, weights, kind="log_probabilities")
    return fuse([log.exp() for log in logs], weights)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="folders of finished runs on the same data")
    parser.add_argument("--weights", type=float, nargs="+", help="one for each run; default: equal")
    parser.add_argument(
        "--logits",
        action="store_true",
        help="add weighted logits, as most public code does, instead of averaging probabilities",
    )
    clip_options(parser)
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="run the networks again and average over each clip and its mirror image",
    )
    parser.add_argument(
        "--wrong", action="store_true", help="list the clips that the runs together get wrong"
    )
    given = parser.parse_args()
    logs, label, names = gather(given.runs, given, mirror=given.mirror)
    together = fused(logs, given.weights, logits=given.logits)
    width = max(map(len, [*given.runs, "together"]))
    for title, scores in [*zip(given.runs, logs, strict=True), ("together", together)]:
        found = accuracy(scores, label)
        print(f"{title:{width}}  top-1 {found['top1']:.2%}  top-5 {found['top5']:.2%}")
    if given.wrong:
        classes = facts_of(given.runs[0])["classes"]
        taken = together.argmax(1)
        for i in (taken != label).nonzero().flatten().tolist():
            print(f"{names[i]}: {classes[label[i]]}, classified as {classes[taken[i]]}")


if __name__ == "__main__":
    run(main)
