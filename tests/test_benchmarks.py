"""The benchmarks that train: what is read, what is trained, and what is made of the figures."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import accuracy
import command_line
import cost
import focus_measures
import focus_quality
import focus_scores
import latency
import measure
import numpy as np
import other_code
import pytest
import robustness
import robustness_measures
import scarce_data
import shortcuts
import speed
import torch
import train
import trained
from recipe import Recipe

from skeleton_focus import NTU25, SyntheticActions, allowed_joints
from skeleton_focus.occlusion import body_parts


def test_a_finished_run_is_read_and_what_cannot_be_trained_says_why(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "report.json").write_text('{"top1": 0.5}')
    assert trained.finish(tmp_path / "a", ["--no-such-option"]) == {"top1": 0.5}
    with pytest.raises(ValueError, match=r"b: error: expected epochs of at least 1, got 0"):
        trained.finish(tmp_path / "b", ["--epochs", "0"])


def test_a_run_is_trained_alone_resumed_or_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []

    def ran(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        said.append(command[1:])
        folder = Path(command[command.index("--out") + 1])
        folder.mkdir(exist_ok=True)
        (folder / "report.json").write_text('{"top1": 0.5}')
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(trained.subprocess, "run", ran)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "last.ckpt").touch()
    wanted = {"new": ["--lr", "1"], "cut": ["--lr", "1"], "apart": ["--hold-out", "x"]}
    found = trained.finish_all(
        {tmp_path / name: options for name, options in wanted.items()}, jobs=1
    )
    assert found == [{"top1": 0.5}] * 3
    alone = ["--threads", "1", "--devices", "1", "--quiet"]
    assert said == [
        [
            str(trained.TRAIN),
            "--out",
            str(tmp_path / "new"),
            *alone,
            "--validate-every",
            "1000",
            "--lr",
            "1",
        ],
        [str(trained.TRAIN), "--out", str(tmp_path / "cut"), *alone, "--resume"],
        [str(trained.TRAIN), "--out", str(tmp_path / "apart"), *alone, "--hold-out", "x"],
    ]
    assert trained.TRAIN.is_file()


def test_options_are_those_of_the_runs_that_are_there(tmp_path: Path) -> None:
    trained.keep_options(tmp_path, ["--epochs", "2"], ["--seed"])
    trained.keep_options(tmp_path, ["--epochs", "3"], ["--seed"])  # nothing was trained yet
    (tmp_path / "base-1").mkdir()
    (tmp_path / "base-1" / "recipe.json").write_text("{}")
    trained.keep_options(tmp_path, ["--epochs", "3"], ["--seed"])
    with pytest.raises(ValueError, match=r"the options of the runs in .*'3'.*got .*'4'"):
        trained.keep_options(tmp_path, ["--epochs", "4"], ["--seed"])
    with pytest.raises(ValueError, match="got --seed=1, which this benchmark sets"):
        trained.keep_options(tmp_path, ["--seed=1"], ["--seed"])
    (tmp_path / "base-1").rename(tmp_path / "stf_gcn")  # focus_scores.py: a folder deeper
    (tmp_path / "stf_gcn" / "base-1").mkdir()
    (tmp_path / "stf_gcn" / "recipe.json").rename(tmp_path / "stf_gcn" / "base-1" / "recipe.json")
    with pytest.raises(ValueError, match=r"the options of the runs in .*'3'.*got .*'4'"):
        trained.keep_options(tmp_path, ["--epochs", "4"], ["--seed"])
    (tmp_path / "options.json").unlink()
    with pytest.raises(ValueError, match="or a new --out"):
        trained.keep_options(tmp_path, ["--epochs", "3"], ["--seed"])


def test_probabilities_are_averaged(tmp_path: Path) -> None:
    label = np.array([0, 1, 1])
    names = np.array(["a", "b", "c"])
    for name, first in (("x", [0.9, 0.6, 0.3]), ("y", [0.2, 0.1, 0.9])):  # averages 0.55, 0.35, 0.6
        (tmp_path / name).mkdir()
        probabilities = np.stack([first, 1 - np.array(first)], 1)
        np.savez(
            tmp_path / name / "log_probabilities.npz",
            log_probabilities=np.log(probabilities),
            label=label,
            names=names,
        )
    assert trained.averaged([tmp_path / "x", tmp_path / "y"]) == pytest.approx(200 / 3)


def test_a_claim_holds_where_every_seed_says_so() -> None:
    verdict = focus_quality.verdict
    assert [verdict([0.1, 0.2], relation) for relation in (">", "<")] == ["holds", "the opposite"]
    assert [verdict([0.1, 0.0], relation) for relation in (">", "<")] == ["seeds differ"] * 2
    assert [verdict([-0.1, -1.0], relation) for relation in (">", "<")] == ["the opposite", "holds"]
    assert verdict([0.1, -0.1], ">") == "seeds differ"
    assert [verdict([0.0, 0.0], relation) for relation in (">", "<")] == ["no difference"] * 2
    assert trained.mean_and_spread([1, 2, 3], 2) == "2.00 ± 1.00"


def test_a_difference_that_is_printed_as_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focus_quality, "CLAIMS", (("wider", "coverage", "a", ">"),))
    found = {"plain": [0.1, 0.1], "a": [0.1004, 0.1002]}
    rows = {row: [{"coverage": value} for value in values] for row, values in found.items()}
    assert focus_quality.tables(rows, [1, 2]).endswith(
        "| wider | coverage | +0.000, +0.000 | no difference |"
    )


def test_claims_are_of_rows_that_every_seed_has() -> None:
    for _, name, row, relation in focus_quality.CLAIMS:
        assert (
            row in focus_quality.ROWS and name in focus_measures.MEASURES and relation in (">", "<")
        )
    assert not set(focus_quality.ROWS) & set(focus_quality.SWEEP)
    every = [*focus_quality.ROWS.values(), *focus_quality.SWEEP.values()]
    for options in every:  # a typing error would show after hours
        command_line.parse([*options, "--out", "none"])
    assert {focus_quality.score_of(options) for options in every} == {"logit", "log_odds"}


def test_measures_see_what_the_focus_does() -> None:
    """A focus on what the model reads: masking it lowers p, and deletion beats a random order."""

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            share = x[:, 0, :, 0].mean((1, 2))
            return torch.stack([share, 1 - share], 1) * 8

    model = Model()
    x = torch.ones(8, 2, 4, 5, 1)
    focus = torch.zeros(8, 1, 4, 5)
    classes = torch.zeros(8, dtype=torch.int64)
    focus[..., 0] = 1
    p = focus_measures.masked_probability(model, x, classes, focus)
    assert p.tolist() == pytest.approx([1 / (1 + math.exp(8))] * 8)
    gains = focus_measures.against_chance(model, x, classes, focus)
    assert gains["deletion"].item() > 0.1 and gains["insertion"].item() > 0.1


own_warnings = pytest.mark.filterwarnings("ignore")  # Lightning's, which the programs silence too
TINY = ["--clips", "40", "--batch", "8", "--frames", "16", "--network", "widths=6,6,6,6,6,6"]


Printed = Callable[[ModuleType, list[str]], list[str]]


@pytest.fixture
def printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Printed:
    """Return the table that a program prints; its runs are trained in this process, each once."""
    folders: list[Path] = []

    def finish(folder: Path, options: list[str]) -> dict[str, float]:
        assert folder not in folders
        folders.append(folder)
        return train.main([*options, "--out", str(folder), "--threads", "1", "--quiet"])

    def run(program: ModuleType, options: list[str]) -> list[str]:
        monkeypatch.setattr(sys, "argv", [program.__name__, "--out", str(tmp_path), *options])
        program.main()
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]

    monkeypatch.setattr(trained, "finish", finish)
    return run


def few(rows: dict[str, list[str]], *names: str) -> dict[str, list[str]]:
    return {name: rows[name] for name in names}


def recipes_in(folder: Path) -> dict[str, dict[str, object]]:
    return {
        run.parent.name: json.loads(run.read_text())["recipe"]
        for run in folder.glob("*/recipe.json")
    }


@own_warnings
def test_focus_quality(tmp_path: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        focus_quality, "ROWS", few(focus_quality.ROWS, "plain", "L_e 1", "erasing 0.5")
    )
    monkeypatch.setattr(focus_quality, "SWEEP", few(focus_quality.SWEEP, "L_e 1, log-odds"))
    monkeypatch.setattr(focus_quality, "SCRATCH", few(focus_quality.SCRATCH, "L_c 1, from scratch"))
    monkeypatch.setattr(focus_quality, "ProcessPoolExecutor", ThreadPoolExecutor)
    start = ["--seeds", "4", "--more", "1", *TINY, "--epochs", "1"]
    table = [line.split(" | ") for line in printed(focus_quality, start)]
    titles = ["plain", "L_e 1", "erasing 0.5", "plain, log-odds", "L_e 1, log-odds"]
    titles += ["plain, from scratch", "L_c 1, from scratch"]
    titles += ["constant map", "speed of the joints"]
    assert [row[0] for row in table[2:11]] == [f"| {title}" for title in titles]
    constant, speed = table[9], table[10]
    assert float(constant[2]) < 0.2 and float(speed[2]) > 0.5  # average precision
    assert [row[0] for row in table[-2:]] == [f"| {claim[0]}" for claim in focus_quality.CLAIMS[:2]]
    recipes = recipes_in(tmp_path)
    new = {name for name, recipe in recipes.items() if not recipe["start_from"]}
    assert new == {"base-4", "L_c-1-from-scratch-4"}
    assert recipes["L_c-1-from-scratch-4"]["stf_after"] == 0.33
    assert recipes["L_e-1-4"]["branch"] == "exploration=1" and recipes["L_e-1-4"]["stf_after"] == 0
    assert recipes["erasing-0.5-4"]["erasing"] == 0.5 and recipes["erasing-0.5-4"]["stf_after"] == 0
    assert recipes["L_e-1-log-odds-4"]["score"] == "log_odds"

    plain = tmp_path / "plain-4"
    # As kept.
    by_score = {score: focus_measures.measure(plain, score) for score in ("logit", "log_odds")}
    with np.load(plain / "log_probabilities.npz") as file:
        top1 = 100 * (file["log_probabilities"].argmax(1) == file["label"]).mean()
    assert table[2][1] == table[5][1] == f"{top1:.2f}"
    assert table[2][2] == f"{by_score['logit']['precision']:.3f}"
    assert table[5][2] == f"{by_score['log_odds']['precision']:.3f}"
    assert by_score["logit"]["precision"] != by_score["log_odds"]["precision"]
    assert all(
        0 <= by_score["logit"][name] <= 1 for name in ("coverage", "masked", "precision", "mass")
    )


@own_warnings
def test_rows_by_their_names(
    tmp_path: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(focus_quality, "ProcessPoolExecutor", ThreadPoolExecutor)
    options = [
        "--seeds",
        "4",
        "--more",
        "1",
        *TINY,
        "--epochs",
        "1",
        "--layers",
        "blocks.0",
        "blocks.1",
        "--rows",
    ]
    table = [line.split(" | ")[0] for line in printed(focus_quality, [*options, "L_c 0.1"])]
    assert table[2:5] == ["| plain", "| L_c 0.1", "| plain, log-odds"]
    recipes = recipes_in(tmp_path)
    assert set(recipes) == {"base-4", "plain-4", "L_c-0.1-4"}
    assert all(recipe["layers"] == ["blocks.0", "blocks.1"] for recipe in recipes.values())
    with pytest.raises(ValueError, match=r"^expected --rows among 'plain', .*, got 'L_x'$"):
        printed(focus_quality, [*options, "L_x"])


@own_warnings
def test_focus_scores(tmp_path: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focus_scores, "ProcessPoolExecutor", ThreadPoolExecutor)
    options = ["--networks", "stf_gcn", "--seeds", "4", *TINY, "--epochs", "1"]
    table = [line.strip("| ").split(" | ") for line in printed(focus_scores, options)]
    assert [row[:2] for row in table[2:]] == [
        ["stf_gcn", score] for score in ("logit", "log_odds", "probability")
    ]
    values = focus_scores.measure_both(tmp_path / "stf_gcn" / "base-4", "logit")  # as kept
    assert (
        table[2][2] == f"{values['precision']:.3f}"
        and table[2][-1] == f"{values['random weights']:.3f}"
    )
    # Two scores whose last focus is the same up to rounding.
    assert table[3][2:-2] == table[4][2:-2]


@own_warnings
def test_shortcuts(tmp_path: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = few(shortcuts.ROWS, "no shortcut", "plain", "guidance 0.3")
    monkeypatch.setattr(shortcuts, "ROWS", wanted)
    monkeypatch.setattr(shortcuts, "ProcessPoolExecutor", ThreadPoolExecutor)
    options = ["--seeds", "4", "--test-clips", "18", *TINY, "--epochs", "1"]
    table = [line.strip("| ").split(" | ") for line in printed(shortcuts, options)]
    assert [row[0] for row in table[2:]] == list(wanted)
    recipes = recipes_in(tmp_path)
    assert {name: recipe["shortcut"] for name, recipe in recipes.items()} == {
        "no-shortcut-4": 0,
        "plain-4": 0.9,
        "guidance-0.3-4": 0.9,
    }
    assert json.loads(Path(str(recipes["guidance-0.3-4"]["guide"])).read_text()) == shortcuts.TABLE
    # The focus of all rows is that on the same clips, with shortcuts of other classes.
    without = focus_measures.measure(tmp_path / "no-shortcut-4", "logit", 0.9)
    assert table[2][4] == f"{without['precision']:.3f}"
    assert (
        without["masked"] != focus_measures.measure(tmp_path / "no-shortcut-4", "logit")["masked"]
    )


def test_what_guidance_recovers_is_a_share_of_what_the_shortcut_costs() -> None:
    def row(shuffled: float) -> list[dict[str, float]]:
        return [
            {"shuffled": shuffled, "none": 90.0, "precision": 0.5, "mass": 0.5, "pointing": 0.5}
        ]

    found = {"no shortcut": row(80), "plain": row(60), "guidance 0.3": row(75)}
    lines = shortcuts.table(found).splitlines()
    assert [line.split(" | ")[2] for line in lines[2:]] == ["100 %", "0 %", "75 %"]
    of_two = {
        "no shortcut": row(60) + row(80),
        "plain": row(60) + row(60),
        "guidance 0.3": row(62) + row(68),
    }
    shares = [line.split(" | ")[2] for line in shortcuts.table(of_two).splitlines()[2:]]
    assert shares == ["100 % (nan, 100)", "0 % (nan, 0)", "50 % (nan, 40)"]


def test_the_table_of_guidance_allows_what_is_critical_and_no_cue() -> None:
    actions = SyntheticActions(shortcut=1.0)
    allowed = allowed_joints(shortcuts.TABLE, actions.classes, NTU25)
    for label, joints in enumerate(actions.critical_joints.values()):
        assert allowed[label, [NTU25.index(joint) for joint in joints]].all()
    labels = list(range(18))
    clean = {"noise": 0.0, "missing": 0.0, "distraction": 0.0}
    cued, plain = (
        SyntheticActions(shortcut=share, **clean).generate(18, seed=3, labels=labels)
        for share in (1.0, 0.0)
    )
    moved = ((cued.x - plain.x).norm(dim=1).amax(1) > 0.01).any(2)  # (N, V)
    assert not (moved & allowed).any()


@own_warnings
def test_robustness(tmp_path: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = few(robustness.ROWS, "plain", "joint dropout 0.3")
    monkeypatch.setattr(robustness, "ROWS", wanted)
    monkeypatch.setattr(robustness, "ProcessPoolExecutor", ThreadPoolExecutor)
    table = [
        line.strip("| ").split(" | ")
        for line in printed(robustness, ["--seeds", "4", *TINY, "--epochs", "1"])
    ]
    assert [row[0] for row in table[2:4]] == list(wanted)
    assert table[0] == list(robustness_measures.COLUMNS)
    assert [row[0] for row in table[-1:]] == ["joint dropout 0.3"]
    recipes = recipes_in(tmp_path)
    dropouts = {name: recipe["augment"].get("joint_dropout", 0) for name, recipe in recipes.items()}
    assert dropouts == {"base-4": 0, "plain-4": 0, "joint-dropout-0.3-4": 0.3}
    assert [name for name, recipe in recipes.items() if not recipe["start_from"]] == ["base-4"]

    values = robustness_measures.robustness(tmp_path / "plain-4")  # as kept
    assert values["clean"] == pytest.approx(trained.averaged([tmp_path / "plain-4"]))
    means = robustness_measures.columns(values)
    assert table[2][1:] == [f"{value:.2f}" for value in means.values()]
    assert means["parts, mean"] == pytest.approx(
        sum(values[part] for part in body_parts(NTU25)) / 5
    )
    (tmp_path / "plain-4" / "robustness.json").unlink()
    assert robustness_measures.robustness(tmp_path / "plain-4") == values, "the same random numbers"


def test_robustness_settings_are_what_they_are_called() -> None:
    batch = SyntheticActions(frames=20, num_persons=1, missing=0.0).generate(40, seed=0)
    changed = {
        name: change(batch, torch.Generator().manual_seed(1))
        for name, change in robustness_measures.changes(NTU25).items()
    }
    assert list(changed) == list(robustness_measures.SETTINGS)
    assert {name for settings in robustness_measures.COLUMNS.values() for name in settings} == set(
        changed
    )
    assert changed["clean"] is batch
    seen = {name: one.visibility.mean().item() for name, one in changed.items()}
    assert seen["left_arm"] == pytest.approx(19 / 25) and seen["trunk"] == pytest.approx(20 / 25)
    assert seen["frames 30%"] == pytest.approx(0.7) and seen["joints 30%"] == pytest.approx(
        0.7, abs=0.02
    )
    assert changed["first 70%"].lengths.unique().tolist() == [14]
    assert changed["dropped 30%"].lengths.double().mean().item() == pytest.approx(14, abs=0.8)
    moved = {name: changed[name].x - batch.x for name in changed if name.startswith("jitter")}
    assert (moved["jitter 10%, 0.1"] != 0).double().mean().item() == pytest.approx(0.1, abs=0.01)
    torch.testing.assert_close(
        moved["jitter 10%, 0.1"], 2 * moved["jitter 10%, 0.05"], rtol=0, atol=1e-5
    )


def test_robustness_differences_are_from_the_plain_row_of_the_same_seed() -> None:
    plain, other = (
        [dict.fromkeys(robustness_measures.COLUMNS, value) for value in two]
        for two in ((50, 60), (51, 63))
    )
    lines = robustness.tables({"plain": plain, "other": other}, [1, 2]).splitlines()
    assert lines[2].startswith("| plain | 55.00 ± 7.07 | ") and len(lines[2].split(" | ")) == len(
        lines[0].split(" | ")
    )
    assert lines[-2:] == ["|---|---|---|", "| other | +1.00, +3.00 | 2.00 ± 1.41 |"]


@own_warnings
def test_scarce_data(tmp_path: Path, printed: Printed) -> None:
    lines = printed(
        scarce_data, ["--seeds", "2", "--shares", "0.25", "--base", "2", "--more", "2", *TINY]
    )
    assert lines[0] == "| | 25% |"
    stf = trained.averaged([tmp_path / f"{branch}-0.25-2" for branch in ("focus", "exploration")])
    assert f"| STF | {stf:.2f} |" in lines
    recipes = recipes_in(tmp_path)
    assert len(recipes) == 5
    assert all(
        (recipe["share"], recipe["draw"], recipe["epochs"]) == (0.25, 2, 4)
        for recipe in recipes.values()
    )


@own_warnings
def test_accuracy(tmp_path: Path, printed: Printed) -> None:
    start = ["--seeds", "2", "--streams", "joint", "bone", "--hold-out", "1", "2", *TINY[:-2]]
    start += ["--epochs", "1", "--network", "widths=8,8,8", "strides=2,1,1", "--only"]
    lines = printed(accuracy, [*start, "STF-GCN, plain", "STF from MS-G3D, focus"])
    assert [line for line in lines if line.startswith("| |")] == ["| | joint | bone | fused |"] * 2
    cells = {
        line.split(" | ")[0]: line.strip(" |").split(" | ")[1:]
        for line in lines
        if line.startswith("| S")
    }
    assert cells.keys() == {"| STF-GCN, plain", "| STF from MS-G3D, focus"}
    recipes = recipes_in(tmp_path)
    assert set(recipes) == {
        f"{name}-{stream}-2"
        for stream in ("joint", "bone")
        for name in ("STF-GCN-plain", "MS-G3D", "STF-from-MS-G3D-focus")
    }
    assert recipes["STF-from-MS-G3D-focus-bone-2"]["start_from"] == str(tmp_path / "MS-G3D-bone-2")
    fused = trained.averaged(
        [tmp_path / f"STF-GCN-plain-{stream}-2" for stream in ("joint", "bone")]
    )
    last = next(line for line in lines if line.startswith("| STF-GCN, plain"))
    assert last.endswith(f"| {fused:.2f} |")
    report = json.loads((tmp_path / "STF-GCN-plain-bone-2" / "report.json").read_text())
    # The second table is the later.
    assert cells["| STF-GCN, plain"][1] == f"{100 * report['best']['top1']:.2f}"


def test_flops_are_counted_in_attention_recurrent_layers_and_convolutions() -> None:
    class Read(torch.nn.Module):
        def __init__(self, layer: torch.nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)[0]

    class Attention(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    lstm = Read(torch.nn.LSTM(4, 5, batch_first=True))
    assert measure.flops(lstm, torch.randn(2, 7, 4)) == pytest.approx(
        2 * 7 * 2 * 4 * 5 * (4 + 5) / 1e9
    )
    assert measure.flops(Attention(), torch.randn(2, 3, 7, 4)) == pytest.approx(
        2 * 2 * 3 * 2 * 7 * 7 * 4 / 1e9
    )
    convolution = torch.nn.Conv2d(3, 8, (5, 1), padding=(2, 0))
    assert measure.flops(convolution, torch.randn(2, 3, 7, 4)) == pytest.approx(
        2 * 2 * 8 * 3 * 5 * 7 * 4 / 1e9
    )
    assert measure.matmul_peak(repeats=1, size=64) > 0


SIZES = ["--size", "small", "--only", "stf_gcn", "--batch", "3", "--frames", "16"]
SIZES += ["--persons", "1", "--repeats", "1"]


@pytest.mark.parametrize(
    "options", [[], ["--growth", "frames", "16", "32"]], ids=["table", "growth"]
)
def test_speed(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "in_own_process", lambda *_: 12.0)
    monkeypatch.setattr(speed, "matmul_peak", lambda: 100.0)
    work: list[float] = []
    count = speed.flops
    monkeypatch.setattr(speed, "flops", lambda *network: work.append(count(*network)) or work[-1])
    monkeypatch.setattr(sys, "argv", ["speed.py", *SIZES, *options])
    speed.main()
    rows = [
        line.strip("| ").split(" | ")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| stf")
    ]
    assert [row[0] for row in rows] == [
        f"stf_gcn, {branch}" for branch in ("plain", "focus", "exploration")
    ]
    if options:
        assert (
            all(float(milliseconds) > 0 for row in rows for milliseconds in row[1:])
            and len(rows[0]) == 3
        )
    else:
        plain = rows[0]
        milliseconds = float(plain[3].split("(")[0])
        rate = float(plain[4])
        assert rate == pytest.approx(3 * 1000 / milliseconds, rel=0.02)
        assert (
            float(plain[7]) == pytest.approx(3 * 1000 / float(plain[6].split("(")[0]), rel=0.02)
            and plain[8] == "12"
        )
        # The share of a fast processor would show the rounding.
        assert plain[2] == f"{work[0]:.2f}"
        # Of 100 GFLOPs a second.
        assert float(plain[5]) == pytest.approx(100 * rate * work[0] / 100, abs=1)


def run_speed(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(speed, "in_own_process", lambda *_: 12.0)
    monkeypatch.setattr(speed, "peak_in", lambda *_: 24.0)
    monkeypatch.setattr(speed, "matmul_peak", lambda: 100.0)
    monkeypatch.setattr(sys, "argv", ["speed.py", *SIZES, *options])
    speed.main()


def test_speed_against_another_clone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Beside itself, but for the weights of the last layer, which are loaded."""

    class Theirs(speed.Built):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            torch.nn.init.normal_(
                self.network.fc.weight, generator=torch.Generator().manual_seed(1)
            )

    monkeypatch.setattr(speed, "load_clone", lambda _: SimpleNamespace(Built=Theirs))
    run_speed(monkeypatch, "--against", str(tmp_path))
    out = capsys.readouterr().out
    assert f"{tmp_path} is at no commit, this clone at " in out
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| stf")]
    assert [row[0] for row in rows] == [
        f"stf_gcn, {branch}" for branch in ("plain", "focus", "exploration")
    ]
    for row in rows:
        times = [float(row[i].split("(")[0]) for i in (1, 2)]
        assert float(row[3]) == pytest.approx(times[0] / times[1], abs=0.02)
        assert row[7:9] == ["24", "12"] and float(row[9]) < 1e-12 and float(row[10]) < 1e-12
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 4.0])
    assert speed.difference([one], [other]) == 0.5
    assert math.isnan(speed.difference([one, one], [other, one * math.nan]))


def test_speed_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Autocast is on in the forward pass alone, as in training."""
    steps: list[tuple[bool, list[bool], list[bool]]] = []
    train = speed.Built.train

    def watched(row: speed.Built, mixed: bool = False) -> None:
        forward: list[bool] = []
        backward: list[bool] = []

        def note(where: list[bool]) -> None:
            where.append(torch.is_autocast_enabled("cpu"))

        handles = [
            row.network.register_forward_hook(lambda *_: note(forward)),
            row.network.fc.weight.register_hook(lambda _: note(backward)),
        ]
        train(row, mixed)
        for handle in handles:
            handle.remove()
        steps.append((mixed, forward, backward))

    monkeypatch.setattr(speed.Built, "train", watched)
    run_speed(monkeypatch, "--bfloat16")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| stf"))
    name, exact, half, faster = line.strip("| ").split(" | ")
    assert name == "stf_gcn"
    assert {mixed for mixed, _, _ in steps} == {False, True}
    for mixed, forward, backward in steps:
        assert {*forward} == {mixed} and {*backward} == {False}
    medians = [float(cell.split(" (")[0]) for cell in (exact, half)]
    assert min(medians) > 0 and float(faster) > 0
    with pytest.raises(SystemExit, match="2"):
        run_speed(monkeypatch, "--bfloat16", "--profile")


def test_speed_profile(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_speed(monkeypatch, "--profile")
    rows = [
        line.strip("| ").split(" | ")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| stf")
    ]
    assert [row[:2] for row in rows] == [["stf_gcn", "training"], ["stf_gcn", "inference"]]
    for row in rows:
        shares = dict(zip([*speed.KINDS, "other"], map(int, row[2:-1]), strict=True))
        assert sum(shares.values()) == pytest.approx(100, abs=5)
        assert min(shares["convolutions"], shares["products"], shares["BatchNorm"]) > 0
        assert shares["LSTM"] == 0
    kinds = {
        "aten::mkldnn_convolution": "convolutions",
        "aten::baddbmm": "products",
        "aten::_softmax": "attention",
        "aten::leaky_relu_backward": "activations",
        "aten::add_": "sums",
        "aten::view": "other",
    }
    assert {name: speed.kind_of(name) for name in kinds} == kinds


NETWORK = """
import torch
from layers import WIDTH
class Net(torch.nn.Module):
    def __init__(self, num_class, mode="mean"):
        super().__init__()
        self.mode, self.fc = mode, torch.nn.Linear(3 * WIDTH, num_class)
    def forward(self, x):
        return self.fc(getattr(x, self.mode)((2, 3, 4)).repeat(1, WIDTH))
class Bad(Net):
    def forward(self, x):
        return x
"""


def test_speed_of_a_network_from_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "layers.py").write_text("WIDTH = 5")
    file = tmp_path / "model" / "net.py"
    file.write_text(NETWORK)
    options = ["--module", f"{file}:Net", "--options", "num_class=4", "mode=amax"]
    run_speed(monkeypatch, *options)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| net.py")]
    assert row.split(" | ")[:2] == ["| net.py:Net", f"{15 * 4 + 4}"]
    cases = {
        f"{file}:Net": r"Net cannot be built: .*num_class.*; see --options",
        f"{file}:None": r"expected --module with a class of .*net\.py, got None",
        f"{file}": r"expected --module PATH:CLASS, got .*net\.py$",
        "nowhere.py:Net": r"expected --module PATH:CLASS, got nowhere\.py:Net; there is no file",
        f"{file}:WIDTH": r"WIDTH cannot be built: 'int' object is not callable",
    }
    for name, told in cases.items():
        with pytest.raises(SystemExit, match=told):
            other_code.load_network(name, [])
    with pytest.raises(SystemExit, match=r"expected --options as NAME=VALUE, got 4"):
        other_code.load_network(f"{file}:Net", ["4"])
    with pytest.raises(SystemExit, match="2"):
        run_speed(monkeypatch, *options, "--profile")
    with pytest.raises(SystemExit, match="2"):
        run_speed(monkeypatch, *options[2:])
    assert "expected --options with --module" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"Bad does not give logits \(N, classes\) of x"):
        run_speed(monkeypatch, "--module", f"{file}:Bad", "--options", "num_class=4")


def test_another_clone_runs_on_its_own_package(tmp_path: Path) -> None:
    for folder in ("benchmarks", "examples", "skeleton_focus"):
        (tmp_path / folder).mkdir()
    (tmp_path / "skeleton_focus" / "__init__.py").write_text("NTU25 = 'theirs'")
    (tmp_path / "examples" / "recipe.py").write_text("from skeleton_focus import NTU25")
    (tmp_path / "benchmarks" / "speed.py").write_text("import recipe\nfound = recipe.NTU25")
    path = list(sys.path)
    assert other_code.load_clone(str(tmp_path)).found == "theirs"
    assert sys.path == path
    assert sys.modules["speed"] is speed
    assert sys.modules["skeleton_focus"].NTU25 is NTU25
    with pytest.raises(SystemExit, match=r"expected --against with a clone of this repository"):
        other_code.load_clone(str(tmp_path / "benchmarks"))


@pytest.mark.parametrize("variant", ["captum", "explain, gradient", "explain"])
def test_ways_to_explain_are_compared_with_one_written_by_hand(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the step is built: a focus that is mirrored in time is refused."""
    by_hook = cost.by_hook
    torch.manual_seed(0)
    cost.explanation_step(variant, 2, 16)[1]()
    monkeypatch.setattr(cost, "by_hook", lambda *given: by_hook(*given).flip(1))
    with pytest.raises(AssertionError, match="not close"):
        cost.explanation_step(variant, 2, 16)


def test_latency_skips_the_frames_that_come_while_one_is_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(latency.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def skipped(cost: float) -> tuple[int, int]:
        now[0] = 0.0
        monkeypatch.setattr(latency, "recognise", lambda *_: now.__setitem__(0, now[0] + cost))
        return latency.skipped(
            torch.nn.Identity(), torch.zeros(3, 64, 25, 1), Recipe(frames=32), rate=10, seconds=4
        )

    assert skipped(0.02) == skipped(0.09) == (0, 40)
    assert skipped(0.15) == (40 - 27, 40)  # in 4 seconds
    assert skipped(0.35) == (40 - 12, 40)
