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
from recipe import PRESETS, Recipe
from results import load_log_probabilities

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
REPORTS = sorted(published.RESULTS.rglob("report.json"))


def by_hand(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "log_probabilities.npz") as file:
        return file["log_probabilities"].astype(float), file["label"]


def test_the_page_shows_what_the_program_prints() -> None:
    text = PAGE.read_text()
    for table in published.tables():
        start = text.index(table.splitlines()[0])
        shown = text[start : text.index("\n\n", start)]  # to the next empty line
        assert shown == table, "run benchmarks/published.py and copy its tables"


def test_the_classes_that_are_confused() -> None:
    """Counted from the files one clip after another."""
    logs = {}
    for path in (published.RESULTS / "nw_ucla" / "stf_gcn").iterdir():
        with np.load(path / "log_probabilities.npz") as file:
            raw = file["log_probabilities"].astype(np.float64)
            logs[path.name] = raw - np.log(np.exp(raw).sum(1, keepdims=True))
            label = file["label"]
    classes = json.loads((path / "report.json").read_text())["classes"]
    wrong = dict.fromkeys(classes, 0)
    pairs: dict[str, dict[str, int]] = {name: {} for name in classes}
    for i, true in enumerate(label):
        total = sum((0.4 if "motion" in name else 0.6) * log[i] for name, log in logs.items())
        taken = int(np.argmax(total))
        if taken != true:
            wrong[classes[true]] += 1
            pair = pairs[classes[true]]
            pair[classes[taken]] = pair.get(classes[taken], 0) + 1
    for line, name in zip(published.class_table().splitlines()[2:], classes, strict=True):
        title, clips, number, others = [cell.strip() for cell in line.split("|")[1:5]]
        assert title == name and int(clips) == int((label == classes.index(name)).sum())
        assert int(number) == wrong[name]
        told = dict(part.rsplit(" ", 1) for part in others.split(", ") if part)
        assert {other: int(count) for other, count in told.items()} == pairs[name]


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
    every = report["validate_every"]
    assert report["curve"]["epochs"] == [*range(every, report["recipe"]["epochs"] + 1, every)]
    assert path.with_name("log_probabilities.npz").stat().st_size < 60_000
    # The printed command trains this recipe.
    arguments = shlex.split(published.command(report))[2:]
    given, recipe = parse([*arguments, "--out", str(tmp_path / "run")])
    assert asdict(recipe) == {k: with_tuples(v) for k, v in report["recipe"].items()}
    kept = ("split", "layout", "skip_bad_clips", "validate_every", "threads", "preset", "precision")
    assert {name: getattr(given, name) for name in kept} == {name: report[name] for name in kept}


USUAL: dict[str, Any] = {
    "model": "stf_gcn",
    "stream": "joint",
    "augment": {"mask": 0.5, "scale": 0.2},
    "epochs": 7,
    "branch": "plain",
    "start_from": "",
    "seed": 1,
}


def written(folder: Path, scores: np.ndarray, label: np.ndarray, **facts: Any) -> None:
    folder.mkdir(parents=True)
    names = [f"clip{i}" for i in range(len(label))]
    np.savez(
        folder / "log_probabilities.npz",
        log_probabilities=scores.astype(np.float16),
        label=label,
        names=np.array(names),
    )
    report = {
        "top1": round(float((scores.argmax(1) == label).mean()), 4),
        "cpu_seconds": 1800.0,
        "recipe": USUAL,
        "precision": "32-true",
        "split": None,
        "curve": {"clips": "test", "epochs": [5], "top1": [0.9]},
        "classes": [str(c) for c in range(scores.shape[1])],
        **facts,
    }
    (folder / "report.json").write_text(json.dumps(report))


def test_the_rows_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "RESULTS", tmp_path)
    random = np.random.default_rng(0)
    label = random.integers(5, size=400)
    place = tmp_path / "nw_ucla" / "stf_gcn"
    logs = {}
    for name in ("bone_motion-1", "bone_motion-3", "joint-1", "joint-2"):
        raw = random.normal(size=(400, 5)) * (3 if "motion" in name else 1)
        raw[np.arange(400), label] += 1
        logs[name] = (raw - np.log(np.exp(raw).sum(1, keepdims=True))).astype(np.float16)
        held = {"clips": "validation", "epochs": [1], "top1": [0.9]}
        facts = {"curve": held, "cpu_seconds": 360.0} if "motion" in name else {}
        written(place / name, logs[name], label, **facts)
    recipe = {**USUAL, "model": "bagcn", "epochs": 9}
    none = {"clips": "test", "epochs": [], "top1": []}
    written(
        tmp_path / "nw_ucla" / "bagcn" / "a+b-1", logs["joint-2"], label, recipe=recipe, curve=none
    )

    def top1(scores: np.ndarray) -> float:
        return 100 * float((scores.argmax(1) == label).mean())

    def both(one: str, two: str) -> str:
        values = [top1(logs[one]), top1(logs[two])]
        return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"

    exact = {name: log.astype(float) for name, log in logs.items()}
    fused = top1(0.6 * exact["joint-1"] + 0.4 * exact["bone_motion-1"])
    others = [
        top1(exact["joint-1"] + exact["bone_motion-1"]),
        top1(0.6 * np.exp(exact["joint-1"]) + 0.4 * np.exp(exact["bone_motion-1"])),
        top1(exact["joint-1"]),
        top1(exact["bone_motion-1"]),
    ]
    assert min(abs(fused - other) for other in others) > 0.1, "or the table would show no mistake"
    heading, _, *rows = published.network_table().splitlines()
    assert heading.startswith("| data | network | streams | passes ")
    motion = both("bone_motion-1", "bone_motion-3")
    assert rows == [
        f"| NW-UCLA | STF-GCN | joint | 7 | 1.00 | {both('joint-1', 'joint-2')} | 90.00 ± 0.00 |",
        f"| NW-UCLA | STF-GCN | bone motion | 7 | 0.20 | {motion} |  |",
        f"| NW-UCLA | STF-GCN | 2 streams, fused |  |  | {fused:.2f} |  |",
        f"| NW-UCLA | BAGCN | a + b | 9 | 0.50 | {top1(logs['joint-2']):.2f} |  |",
    ]


def test_the_rows_of_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "RESULTS", tmp_path)
    place = tmp_path / "utd_mhad" / "changes_joint"
    label = np.arange(200) % 2
    right = {"none-1": 100, "none-2": 120, "b-1": 110, "b-2": 134, "a-1": 90, "other-1": 100}
    base = asdict(Recipe(**PRESETS["nw_ucla_150"])) | {"epochs": 60}
    changed: dict[str, dict[str, Any]] = {
        "none": {},
        "b": {"augment": base["augment"] | {"mask": 0.0}},
        "a": {"epochs": 14, "decay": (3, 4)},
        "other": asdict(Recipe(**PRESETS["nw_ucla"])),
    }
    for name, count in right.items():
        scores = np.eye(2)[np.where(np.arange(200) < count, label, 1 - label)]
        change, _, seed = name.partition("-")
        written(
            place / name,
            scores,
            label,
            recipe=base | changed[change] | {"seed": int(seed)},
            curve={"clips": "test", "epochs": [3], "top1": [0.61]},
            preset="nw_ucla" if change == "other" else "nw_ucla_150",
            precision="bf16-mixed" if change == "a" else "32-true",
        )
    both = "--precision bf16-mixed --epochs 14 --decay 3 4"
    assert published.change_table().splitlines()[2:] == [
        "| UTD-MHAD | `--preset nw_ucla_150 --epochs 60` | 2 | 55.00 ± 7.07 | 61.00 ± 0.00 |  |",
        f"| UTD-MHAD | ... `{both}` | 1 | 45.00 | 61.00 | -5.00 |",
        "| UTD-MHAD | ... `--augment mask=0.0` | 2 | 61.00 ± 8.49 | 64.00 ± 4.24 | 6.00 ± 1.41 |",
        "| UTD-MHAD | ... `--preset nw_ucla` | 1 | 50.00 | 61.00 | 0.00 |",
    ]


def test_the_rows_of_fine_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "RESULTS", tmp_path)
    place = tmp_path / "nw_ucla"
    label = np.arange(100) % 2
    right = {
        "ms_g3d/bone-1": 50,
        "ms_g3d/bone-2": 60,
        "ms_g3d/bone-3": 99,  # not fine-tuned with both
        "ms_g3d_then_plain/bone-1": 51,
        "ms_g3d_then_plain/bone-2": 61,
        "ms_g3d_then_plain/bone-3": 61,
        "ms_g3d_then_recommended/bone-1": 70,
        "ms_g3d_then_recommended/bone-2": 70,
        "stf_gcn/joint-1": 80,
        "stf_gcn_then_plain/joint-1": 81,
    }
    for name, count in right.items():
        scores = np.eye(2)[np.where(np.arange(100) < count, label, 1 - label)]
        written(place / name, scores, label)
    assert published.fine_tuning_table().splitlines()[2:] == [
        "| NW-UCLA | MS-G3D | bone | 2 | 55.00 ± 7.07 | 56.00 ± 7.07 | 70.00 ± 0.00 |"
    ]
    # Fine-tuned runs are no rows of the networks' own table.
    assert len(published.network_table().splitlines()) == 2 + 2


def test_runs_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "RESULTS", tmp_path / "results")
    scores = np.log(np.full((2, 10), 0.1))
    label = np.array([0, 1])
    written(tmp_path / "run", scores, label, data="/home/me/nw_ucla")
    published.add(tmp_path / "run", "nw_ucla/stf_gcn/joint-1")
    place = tmp_path / "results" / "nw_ucla" / "stf_gcn" / "joint-1"
    assert json.loads((place / "report.json").read_text())["data"] == "PATH"
    np.testing.assert_allclose(load_log_probabilities(place)[0], scores, rtol=1e-3)
    written(tmp_path / "second", scores, label, recipe={**USUAL, "seed": 2})
    published.add(tmp_path / "second", "nw_ucla/stf_gcn/joint-2")
    nine = {"classes": list("abcdefghi"), "split": "test_subjects=4"}
    written(tmp_path / "fourth", scores[:, :9], label, **nine)
    published.add(tmp_path / "fourth", "florence3d/stf_gcn/joint-4")

    tuned = {**USUAL, "start_from": "runs/a"}
    for name in ("plain", "recommended"):
        written(tmp_path / name, scores, label, recipe={**tuned, "branch": name})
        published.add(tmp_path / name, f"nw_ucla/stf_gcn_then_{name}/joint-1")
    published.add(tmp_path / "run", "nw_ucla/changes_joint/none-1")
    written(tmp_path / "half", scores, label, recipe={**USUAL, "epochs": 3})
    published.add(tmp_path / "half", "nw_ucla/changes_joint/fewer-1")

    written(
        tmp_path / "away", scores, label, recipe={**USUAL, "stream": "bone", "start_from": "/a"}
    )
    written(tmp_path / "longer", scores, label, recipe={**USUAL, "seed": 3, "epochs": 8})
    written(tmp_path / "coarse", scores, label, recipe={**USUAL, "seed": 3}, precision="bf16-mixed")
    written(tmp_path / "focus", scores, label, recipe={**USUAL, "branch": "focus"})
    written(tmp_path / "wrapped", scores, label, recipe={**USUAL, "model": "stf_ms_g3d"})
    (tmp_path / "empty").mkdir()
    for run, name, said in (
        ("run", "elsewhere/stf_gcn/joint-1", "DATA one of nw_ucla, .* got elsewhere/"),
        ("run", "nw_ucla/joint-1", "the name DATA/stf_gcn/joint-1 for this run"),
        ("run", "nw_ucla/stf_gcn/a/joint-1", "the name DATA/stf_gcn/joint-1 for this run"),
        ("run", "nw_ucla/stf_gcn/..", "the name DATA/stf_gcn/joint-1 for this run"),
        ("run", "nw_ucla/stf_gcn/joint", "the name DATA/stf_gcn/joint-1 for this run"),
        ("run", "nw_ucla/stf_gcn/bone-1", "the name DATA/stf_gcn/joint-1 for this run"),
        ("run", "nw_ucla/bagcn/joint-1", "the name DATA/stf_gcn/joint-1 for this run"),
        ("second", "nw_ucla/stf_gcn/joint-3", "the name DATA/stf_gcn/joint-2 for this run"),
        ("half", "nw_ucla/changes_joint/fewer-2", "DATA/changes_joint/fewer-1 for this run"),
        ("half", "nw_ucla/changes_bone/fewer-1", "changes_bone/none-1 before a change of it"),
        ("plain", "nw_ucla/stf_gcn/joint-1", "the name DATA/stf_gcn_then_plain/joint-1"),
        ("focus", "nw_ucla/stf_gcn/joint-1", "stf_gcn, .* trained with plain, got stf_gcn with"),
        ("wrapped", "nw_ucla/stf_ms_g3d/joint-1", "a network that the tables show, .*got stf_ms"),
        ("run", "nw_ucla/stf_gcn/joint-1", "a new name, got"),
        ("run", "utd_mhad/stf_gcn/joint-1", "a run on utd_mhad's 27 classes, got 10"),
        ("longer", "nw_ucla/stf_gcn/joint-3", "the recipe of .* but for the seed, got another"),
        ("coarse", "nw_ucla/stf_gcn/joint-3", "the recipe of .* but for the seed, got another"),
        ("away", "nw_ucla/stf_gcn_then_plain/bone-1", "got .*/away with /a"),
        ("empty", "nw_ucla/stf_gcn/joint-2", "holds no log_probabilities"),
    ):
        with pytest.raises(ValueError, match=f"expected .*{said}"):
            published.add(tmp_path / run, name)
    assert len(list((tmp_path / "results").rglob("*.json"))) == 7
