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
WEIGHTS = ROOT / "weights" / "nw_ucla"
PAGE = (ROOT / "weights" / "README.md").read_text()
# Logits of the first three classes, of noise: what these weights gave where they were trained.
OF_NOISE = {
    "stf_gcn/joint": (-1.01854, 0.53423, 1.61301),
    "stf_gcn/bone": (1.12221, 1.41512, -0.57408),
    "stf_gcn/joint_motion": (-0.79389, 0.83887, 0.41096),
    "stf_gcn/bone_motion": (-0.06591, 1.45437, 0.29554),
    "ms_g3d/joint": (-1.01066, 3.21200, 2.09650),
    "ms_g3d/bone": (-1.03716, 0.60358, 0.56117),
}
FUSION = {"joint": 0.6, "bone": 0.6, "joint_motion": 0.4, "bone_motion": 0.4}


@pytest.mark.parametrize("name", OF_NOISE)
def test_weights_load_and_recognise_as_ever(name: str) -> None:
    objective, recipe, layout, classes, *_ = results.load_run(WEIGHTS / name)
    assert f"{recipe.model}/{recipe.stream}" == name
    assert layout == KINECT20 and len(classes) == 10
    x = 0.2 * torch.randn(1, 4, 52, 20, 1, generator=torch.Generator().manual_seed(0))
    assert objective.model(x)[0, :3].tolist() == pytest.approx(OF_NOISE[name], rel=1e-3, abs=1e-3)
    focus, _ = objective.explain(x)
    assert focus.shape == (1, 1, 52, 20) and focus.max() > 0


def test_weights_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "nw_ucla/stf_gcn/bone"
    recipe = results.load_run(name).recipe
    assert (
        recipe == results.load_run(WEIGHTS / "stf_gcn" / "bone").recipe and recipe.stream == "bone"
    )
    for ours in (name, WEIGHTS / "stf_gcn" / "bone"):
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
    assert scope["trained"].classes[0] == "pick up with one hand"
    assert scope["x"].shape == (1, 4, 52, 20, 1)
    assert scope["focus"].shape == (1, 1, 52, 20) and scope["logits"].shape == (1, 10)


def test_weights_are_small_and_hold_nothing_else() -> None:
    files = sorted(WEIGHTS.rglob("*.pt"))
    assert {str(file.relative_to(WEIGHTS)) for file in files} == {
        f"{name}/model.pt" for name in OF_NOISE
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


@pytest.mark.parametrize("network", ["stf_gcn", "ms_g3d"])
def test_weights_recognise_what_their_page_says(network: str, shared_data: Path) -> None:
    numbers = r".* \| ([\d.]+)(?: \([\d.]+\))? \| ([\d.]+) \|$"
    told = re.findall(rf"^\| `nw_ucla/{network}/(\w+)` {numbers}", PAGE, re.M)
    told += re.findall(rf"^\| `{network}`, (fused) {numbers}", PAGE, re.M)
    table = {row: (float(plain), float(mirrored)) for row, plain, mirrored in told}
    streams = [name.split("/")[1] for name in OF_NOISE if name.startswith(network)]
    assert [*table] == [*streams, "fused"]
    for column, mirror in enumerate((False, True)):
        folders = [str(WEIGHTS / network / stream) for stream in streams]
        logs, label, _ = ensemble.recognise(folders, mirror=mirror, data=str(shared_data))
        together = fuse(logs, [FUSION[stream] for stream in streams], kind="log_probabilities")
        for row, p in [*zip(streams, logs, strict=True), ("fused", together)]:
            right = int((p.argmax(1) == label).sum())
            assert right == round(4.64 * table[row][column]), row  # of 464
