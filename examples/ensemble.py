"""Average the class probabilities of finished runs: the two STF branches, or several streams.

python examples/ensemble.py runs/exploration runs/focus
python examples/ensemble.py runs/joint runs/bone --weights 0.6 0.4
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from train import accuracy, run

from skeleton_focus import fuse


def read(folder: str) -> tuple[Tensor, Tensor, list[str]]:
    """Probabilities, labels and clip names of a run's test clips."""
    path = Path(folder) / "probabilities.npz"
    if not path.is_file():
        raise ValueError(f"expected a finished run, got {folder}, which holds no probabilities.npz")
    with np.load(path, allow_pickle=False) as file:
        return torch.from_numpy(file["probabilities"]), torch.from_numpy(file["label"]), file["names"].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="folders of finished runs on the same data")
    parser.add_argument("--weights", type=float, nargs="+", help="one for each run; by default equal")
    given = parser.parse_args()
    probabilities, labels, names = zip(*map(read, given.runs), strict=True)
    for folder, label, name in zip(given.runs, labels, names, strict=True):
        if name != names[0] or not torch.equal(label, labels[0]):
            raise ValueError(f"expected runs on the same test clips, got others in {folder} than in {given.runs[0]}")
    width = max(map(len, [*given.runs, "together"]))
    for title, p in [*zip(given.runs, probabilities, strict=True), ("together", fuse(probabilities, given.weights))]:
        found = accuracy(p, labels[0])
        print(f"{title:{width}}  top-1 {found['top1']:.2%}  top-5 {found['top5']:.2%}")


if __name__ == "__main__":
    run(main)
