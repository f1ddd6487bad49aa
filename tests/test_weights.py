"""The weights of the repository: they load, and recognise what their page says they do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ensemble
import pytest
import results
import torch

from skeleton_focus import KINECT20, fuse

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "weights" / "nw_ucla" / "stf_gcn"
PAGE = (ROOT / "weights" / "README.md").read_text()
# Logits of the first three classes, of noise: what these weights gave where they were trained.
OF_NOISE = {
    "joint": (-1.01854, 0.53423, 1.61301),
    "bone": (1.12221, 1.41512, -0.57408),
    "joint_motion": (-0.79389, 0.83887, 0.41096),
    "bone_motion": (-0.06591, 1.45437, 0.29554),
}


@pytest.mark.parametrize("stream", OF_NOISE)
def test_weights_load_and_recognise_as_ever(stream: str) -> None:
    objective, recipe, layout, classes, *_ = results.load_run(WEIGHTS / stream)
    assert (recipe.model, recipe.stream, layout, len(classes)) == ("stf_gcn", stream, KINECT20, 10)
    x = 0.2 * torch.randn(1, 4, 52, 20, 1, generator=torch.Generator().manual_seed(0))
    assert objective.model(x)[0, :3].tolist() == pytest.approx(OF_NOISE[stream], rel=1e-3, abs=1e-3)
    focus, _ = objective.explain(x)
    assert focus.shape == (1, 1, 52, 20) and focus.max() > 0


def test_weights_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "nw_ucla/stf_gcn/bone"
    recipe = results.load_run(name).recipe
    assert recipe == results.load_run(WEIGHTS / "bone").recipe and recipe.stream == "bone"
    for ours in (name, WEIGHTS / "bone"):
        assert results.output_folder(ours) == Path()  # the clone is not written into
    with pytest.raises(
        ValueError, match=r"no model\.pt; benchmarks/published\.py --commands tells"
    ):
        results.load_run(ROOT / "results/nw_ucla/stf_gcn/joint-1")
    (tmp_path / name).mkdir(parents=True)
    assert results.output_folder(name) == Path(name)
    with pytest.raises(ValueError, match=f"expected a finished run, got {name}, which holds"):
        results.load_run(name)  # a folder of one's own goes first


def test_the_code_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    scope: dict[str, Any] = {}
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(block, scope)
    assert scope["answer"].label in scope["trained"].classes
    assert scope["x"].shape == (1, 4, 52, 20, 1)
    assert scope["focus"].shape == (1, 1, 52, 20) and scope["logits"].shape == (1, 10)


def test_weights_are_small_and_hold_nothing_else() -> None:
    files = sorted(WEIGHTS.rglob("*.pt"))
    assert {str(file.relative_to(WEIGHTS)) for file in files} == {
        f"{stream}/model.pt" for stream in OF_NOISE
    }
    assert sum(file.stat().st_size for file in files) < 10_000_000
    for file in files:
        assert all(isinstance(value, torch.Tensor) for value in results.load_file(file).values())
        assert {*results.load_json(file.with_name("model.json"))} == {
            "recipe",
            "layout",
            "clips_layout",
            "classes",
            "persons",
            "channels",
            "version",
            "split",
        }


def test_weights_recognise_what_their_page_says(shared_data: Path) -> None:
    told = re.findall(
        r"^\| `nw_ucla/stf_gcn/(\w+)` .* \| ([\d.]+) \(.*\) \| ([\d.]+) \|$", PAGE, re.M
    )
    told += re.findall(r"^\| all four (fused) .* \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.M)
    table = {row: (float(plain), float(mirrored)) for row, plain, mirrored in told}
    assert {*table} == {*OF_NOISE, "fused"}
    for column, mirror in enumerate((False, True)):
        folders = [str(WEIGHTS / stream) for stream in OF_NOISE]
        logs, label, _ = ensemble.recognise(folders, mirror=mirror, data=str(shared_data))
        together = fuse(logs, [0.6, 0.6, 0.4, 0.4], kind="log_probabilities")
        for row, p in [*zip(OF_NOISE, logs, strict=True), ("fused", together)]:
            right = int((p.argmax(1) == label).sum())
            assert right == round(4.64 * table[row][column]), row  # of 464
