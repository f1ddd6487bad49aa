"""Average the class probabilities of finished runs: the two STF branches, or several streams.

python examples/ensemble.py runs/exploration runs/focus
python examples/ensemble.py runs/joint runs/bone --weights 0.6 0.4
python examples/ensemble.py weights/nw_ucla/* --data PATH --mirror   # recognised anew, each clip and its mirror image
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from loading import clips_of
from results import accuracy, load_run, predict
from torch import Tensor
from train import run

from skeleton_focus import fuse


def read(folder: str) -> tuple[Tensor, Tensor, list[str]]:
    """Probabilities, labels and clip names of a run's test clips."""
    path = Path(folder) / "probabilities.npz"
    if not path.is_file():
        way_out = (
            "--data PATH recognises clips anew" if path.with_name("model.pt").is_file() else "--resume finishes one"
        )
        raise ValueError(f"expected a finished run, got {folder}, which holds no probabilities.npz; {way_out}")
    with np.load(path, allow_pickle=False) as file:
        return torch.from_numpy(file["probabilities"]), torch.from_numpy(file["label"]), file["names"].tolist()


def read_all(folders: Sequence[str]) -> tuple[list[Tensor], Tensor]:
    """Each run's probabilities, and the labels."""
    return same_clips(folders, [read(folder) for folder in folders])


def same_clips(
    folders: Sequence[str], found: Sequence[tuple[Tensor, Tensor, list[str]]]
) -> tuple[list[Tensor], Tensor]:
    """Each run's probabilities, and the labels, which must be those of the same clips."""
    probabilities, labels, names = zip(*found, strict=True)
    first, clips, label = folders[0], names[0], labels[0]
    for folder, others, theirs in zip(folders, names, labels, strict=True):
        if strange := set(clips) ^ set(others):
            told = f"{len(strange)} clips in one alone, as {min(strange)}"
            raise ValueError(f"expected runs tested on the same clips, got {first} and {folder} with {told}")
        if clips != others:
            raise ValueError(f"expected runs tested on the same clips in one order, got another in {folder}")
        if not torch.equal(label, theirs):
            name = clips[int((label != theirs).nonzero()[0])]
            raise ValueError(f"expected the same class of every clip in both runs, got two of {name}")
    return list(probabilities), label


def recognise(folders: Sequence[str], source: str | None, *, mirror: bool) -> tuple[list[Tensor], Tensor]:
    """Each run's probabilities, computed anew from its model.pt, of its test clips or a source's, and the labels."""
    found = []
    for folder in folders:
        objective, recipe, layout, classes = load_run(folder)
        clips, _ = clips_of(folder, recipe, layout, classes, source=source)
        found.append(
            (predict(objective.model, clips, recipe, mirror=mirror), torch.tensor(clips.labels), list(clips.names))
        )
    return same_clips(folders, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="folders of finished runs on the same data")
    parser.add_argument("--weights", type=float, nargs="+", help="one for each run; by default equal")
    parser.add_argument("--data", help="recognise the test clips of this folder or file, with each run's model.pt")
    parser.add_argument(
        "--mirror", action="store_true", help="average over each clip and its mirror image, recognised anew"
    )
    given = parser.parse_args()
    anew = given.data or given.mirror
    probabilities, label = recognise(given.runs, given.data, mirror=given.mirror) if anew else read_all(given.runs)
    width = max(map(len, [*given.runs, "together"]))
    for title, p in [*zip(given.runs, probabilities, strict=True), ("together", fuse(probabilities, given.weights))]:
        found = accuracy(p, label)
        print(f"{title:{width}}  top-1 {found['top1']:.2%}  top-5 {found['top5']:.2%}")


if __name__ == "__main__":
    run(main)
