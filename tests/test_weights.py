"""The weights of the repository: they load, and recognise what the README says they do."""

from __future__ import annotations

import re
from pathlib import Path

import ensemble
import pytest
import results
import torch

from skeleton_focus import KINECT20, fuse

WEIGHTS = Path(__file__).parents[1] / "weights" / "nw_ucla"
STREAMS = ("joint", "bone", "joint_motion", "bone_motion")


@pytest.mark.parametrize("stream", STREAMS)
def test_weights_load(stream: str) -> None:
    objective, recipe, layout, classes = results.load_run(WEIGHTS / stream)
    assert (recipe.model, recipe.stream, layout, len(classes)) == ("stf_gcn", stream, KINECT20, 10)
    x = torch.randn(2, 4, 32, 20, 1)
    assert objective.model(x).shape == (2, 10)
    objective.explain(x)


def test_weights_are_few_and_hold_nothing_else() -> None:
    files = [path for path in WEIGHTS.parent.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"model.pt", "README.md"} and len(files) == len(STREAMS) + 1
    assert sum(path.stat().st_size for path in files) < 10_000_000
    for stream in STREAMS:
        held = results.load_file(WEIGHTS / stream / "model.pt")
        assert {*held} == {"weights", "recipe", "layout", "classes", "persons", "channels"}


def test_weights_recognise_what_their_table_says(shared_data: Path) -> None:
    told = re.findall(r"^\| ([a-z ]+) \| ([\d.]+) \| ([\d.]+) \|$", (WEIGHTS.parent / "README.md").read_text(), re.M)
    table = {row: (float(plain), float(mirrored)) for row, plain, mirrored in told}
    assert {*table} == {*(stream.replace("_", " ") for stream in STREAMS), "fused"}
    for column, mirror in enumerate((False, True)):
        folders = [str(WEIGHTS / stream) for stream in STREAMS]
        probabilities, label = ensemble.recognise(folders, str(shared_data), mirror=mirror)
        for row, p in zip(table, [*probabilities, fuse(probabilities)], strict=True):
            top1 = 100 * results.accuracy(p, label)["top1"]
            assert top1 == pytest.approx(table[row][column], abs=0.44), row  # two clips: another processor's rounding
