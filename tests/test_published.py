"""The published results: what the pages say is what results/ holds."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
from command_line import parse, with_tuples
from results import load_log_probabilities

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
REPORTS = sorted(published.RESULTS.rglob("report.json"))


def by_hand(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "log_probabilities.npz") as file:
        return file["log_probabilities"].astype(float), file["label"]


def test_the_page_shows_what_the_program_prints() -> None:
    table = published.network_table()
    assert table in PAGE.read_text(), "run benchmarks/published.py and copy its table"


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: str(path.parent)[-40:])
def test_a_published_run(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    report = json.loads(text)
    assert '"/' not in text, "no path of the machine it was trained on"
    scores, label = by_hand(path.parent)
    assert len(label) == report["clips"][1] and scores.shape[1] == len(report["classes"])
    # The rank of the true class: how many are above it, or as high and listed before it.
    own = scores[np.arange(len(label)), label][:, None]
    listed_before = np.arange(scores.shape[1]) < label[:, None]
    rank = ((scores > own) | ((scores == own) & listed_before)).sum(1)
    for k in (1, 5):
        assert report[f"top{k}"] == pytest.approx((rank < k).mean(), abs=5e-5)  # four digits
    assert path.with_name("log_probabilities.npz").stat().st_size < 60_000
    # The printed command trains this recipe.
    arguments = shlex.split(published.command(report))[2:]
    given, recipe = parse([*arguments, "--out", str(tmp_path / "run")])
    assert asdict(recipe) == {k: with_tuples(v) for k, v in report["recipe"].items()}
    kept = ("split", "layout", "skip_bad_clips", "validate_every", "threads", "preset")
    assert {name: getattr(given, name) for name in kept} == {name: report[name] for name in kept}


def written(folder: Path, scores: np.ndarray, label: list[int], **facts: Any) -> None:
    folder.mkdir(parents=True)
    names = [f"clip{i}" for i in range(len(label))]
    np.savez(
        folder / "log_probabilities.npz",
        log_probabilities=scores.astype(np.float16),
        label=np.array(label),
        names=np.array(names),
    )
    known = scores.argmax(1) == label
    report = {
        "top1": float(known.mean()),
        "cpu_seconds": 1800.0,
        "recipe": {"epochs": 7},
        "curve": {"clips": "test", "epochs": [5], "top1": [0.9]},
        "classes": ["a", "b", "c"],
        **facts,
    }
    (folder / "report.json").write_text(json.dumps(report))


def test_the_rows_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "RESULTS", tmp_path)
    label = [0, 1, 2, 0]
    random = np.random.default_rng(0)
    place = tmp_path / "nw_ucla" / "stf_gcn"
    logs = {}
    for name in ("bone_motion-1", "joint-1", "joint-2"):
        raw = random.normal(size=(4, 3))
        logs[name] = raw - np.log(np.exp(raw).sum(1, keepdims=True))
        written(place / name, logs[name], label)
    heading, _, *rows = published.network_table().splitlines()
    assert heading.startswith("| data | network | streams | passes ")
    right = {name: 100 * (log.argmax(1) == label).mean() for name, log in logs.items()}
    both = [right["joint-1"], right["joint-2"]]
    mean = f"{np.mean(both):.2f} ± {np.std(both, ddof=1):.2f}"
    fused = 0.6 * logs["joint-1"] + 0.4 * logs["bone_motion-1"]
    top = 100 * (fused.argmax(1) == label).mean()
    assert rows == [
        f"| NW-UCLA | STF-GCN | joint | 7 | 0.50 | {mean} | 90.00 ± 0.00 |",
        f"| NW-UCLA | STF-GCN | bone motion | 7 | 0.50 | {right['bone_motion-1']:.2f} | 90.00 |",
        f"| NW-UCLA | STF-GCN | 2 fused |  |  | {top:.2f} |  |",
    ]


def test_a_curve_on_held_out_clips_is_no_test_accuracy() -> None:
    report = {"top1": 0.5, "curve": {"clips": "validation", "epochs": [1], "top1": [0.8]}}
    assert published.best(report) == 0.5
    assert published.best({**report, "curve": {**report["curve"], "clips": "test"}}) == 0.8


def test_a_run_is_added_without_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "RESULTS", tmp_path / "results")
    scores = np.log(np.full((2, 3), 1 / 3))
    written(tmp_path / "run", scores, [0, 1], data="/home/me/nw_ucla")
    published.add(tmp_path / "run", "nw_ucla/stf_gcn/joint-1")
    place = tmp_path / "results" / "nw_ucla" / "stf_gcn" / "joint-1"
    assert json.loads((place / "report.json").read_text())["data"] == "PATH"
    np.testing.assert_allclose(load_log_probabilities(place)[0], scores, rtol=1e-3)
    for name in ("elsewhere/stf_gcn/joint-1", "nw_ucla/joint-1", "nw_ucla/stf_gcn/a/joint-1"):
        with pytest.raises(ValueError, match="expected DATA/NETWORK/STREAM-N"):
            published.add(tmp_path / "run", name)
    with pytest.raises(ValueError, match="holds no log_probabilities"):
        published.add(tmp_path / "results" / "nw_ucla", "nw_ucla/stf_gcn/bone-1")
