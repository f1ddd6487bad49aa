"""The example programs as a person runs them: trained, stopped, resumed, averaged, misused."""

import importlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import command_line
import demo
import ensemble
import explain
import loading
import numpy as np
import pytest
import results
import test_format_kinetics as kinetics
import test_format_ntu as ntu
import torch
import train
from bagcn import BAGCN
from fg_stformer import FGSTFormer
from ms_g3d import MSG3D
from recipe import Recipe, prepare
from run_tools import assert_kept
from stf_gcn import STFGCN
from torch import nn

from skeleton_focus import (
    NTU25,
    OPENPOSE18,
    SkeletonDataset,
    SyntheticActions,
    fuse,
    multi_scale_adjacency,
)

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = [
    "--clips",
    "80",
    "--batch",
    "16",
    "--frames",
    "16",
    "--network",
    "widths=6,6,6,6,6,6",
    "--ema",
    "0.5",
    "--quiet",
]
SMALL += ["--network", "dropout=0.1"]
SMALL += ["--threads", "1", "--branch", "focus", "--stf-after", "0.4"]  # from epoch 1 of 3


def start(
    program: str, *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / program), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
        check=False,
    )


def succeed(program: str, *arguments: str, cwd: Path, **environment: str) -> str:
    done = start(program, *arguments, cwd=cwd, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs of three epochs: straight, and bone."""
    folder = tmp_path_factory.mktemp("runs")
    succeed("train.py", *SMALL, "--epochs", "3", "--out", "straight", cwd=folder)
    succeed(
        "train.py",
        *SMALL,
        "--epochs",
        "3",
        "--out",
        "bone",
        "--stream",
        "bone",
        "--branch",
        "exploration",
        cwd=folder,
    )
    return folder


def test_a_run_leaves_what_it_says(finished: Path) -> None:
    run = finished / "straight"
    report = json.loads((run / "report.json").read_text())
    logged = "".join(path.read_text() for path in finished.glob("*/log/*/metrics.csv"))
    assert all(
        f"train/{term}" in logged
        for term in ("divergence", "coherence", "adjacency", "exploration")
    )
    assert report["recipe"]["branch"] == "focus"
    assert 0 <= report["top1"] <= report["top5"] <= 1
    assert report["curve"] == {"clips": "test", "epochs": [], "top1": []}  # every tenth epoch
    with np.load(run / "log_probabilities.npz", allow_pickle=False) as file:
        logs = file["log_probabilities"]
        np.testing.assert_allclose(np.exp(logs.astype(float)).sum(1), 1, rtol=1e-3)
        assert logs.shape == (20, 18) and logs.dtype == np.float16
        assert np.mean(logs.argmax(1) == file["label"]) == pytest.approx(report["top1"], abs=1e-4)
    facts = json.loads((run / "model.json").read_text())
    assert facts["layout"] == "NTU25"
    assert len(facts["classes"]) == 18


# Trains epoch by epoch and kills itself, as hard as can be, in the middle of the second.
KILLED = """
import os, signal, sys
sys.path.insert(0, {examples!r})
import train
step = train.Recogniser.training_step
def dying(self, batch, index):
    if self.current_epoch == 1 and index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, index)
train.Recogniser.training_step = dying
train.main({arguments!r})
"""


def test_a_killed_run_resumes_to_the_same_weights(finished: Path) -> None:
    arguments = [*SMALL, "--epochs", "3", "--out", "killed"]
    program = KILLED.format(examples=str(EXAMPLES), arguments=arguments)
    died = subprocess.run(
        [sys.executable, "-c", program], cwd=finished, capture_output=True, timeout=300, check=False
    )
    assert died.returncode == -9, died.stderr
    assert not (finished / "killed" / "model.pt").exists()
    succeed("train.py", "--out", "killed", "--resume", "--quiet", "--threads", "1", cwd=finished)
    straight, resumed = (
        torch.load(finished / name / "model.pt", weights_only=True)
        for name in ("straight", "killed")
    )
    assert straight.keys() == resumed.keys()
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), name


def test_a_killed_run_remembers_its_best_epoch(tmp_path: Path) -> None:
    arguments = [*SMALL, "--epochs", "3", "--hold-out", "1", "7", "--seed", "2"]
    succeed("train.py", *arguments, "--out", "straight", cwd=tmp_path)
    program = KILLED.format(examples=str(EXAMPLES), arguments=[*arguments, "--out", "killed"])
    died = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, timeout=300, check=False
    )
    assert died.returncode == -9, died.stderr
    left = tmp_path / "killed" / "last.ckpt"
    torch.save({**torch.load(left, weights_only=True), "cpu_seconds": 1e6}, left)
    succeed("train.py", "--out", "killed", "--resume", "--quiet", "--threads", "1", cwd=tmp_path)
    straight, resumed = (
        json.loads((tmp_path / run / "report.json").read_text()) for run in ("straight", "killed")
    )
    assert straight["best"] == resumed["best"]
    curve = straight["curve"]
    assert 0 < straight["cpu_seconds"] < 1000 and 0 < resumed["cpu_seconds"] - 1e6 < 1000
    assert resumed["curve"] == curve and curve["clips"] == "validation"
    assert curve["epochs"] == [1, 2, 3]
    assert straight["best"]["validation_top1"] == pytest.approx(max(curve["top1"]), abs=1e-4)
    scores = torch.load(tmp_path / "killed" / "last.ckpt", weights_only=True)["callbacks"]
    (best,) = [
        state for state in scores.values() if isinstance(state, dict) and state.get("monitor")
    ]
    assert best["best_model_score"].item() == pytest.approx(
        straight["best"]["validation_top1"], abs=1e-4
    )


@pytest.mark.parametrize(
    ("epoch", "told"),
    [
        (0, "stopped in the first epoch; nothing was saved in interrupted0, start again"),
        (
            1,
            "stopped; resume: python examples/train.py --out interrupted1 --resume --threads 1",
        ),
    ],
)
def test_an_interruption_says_how_to_go_on(epoch: int, told: str, finished: Path) -> None:
    out = f"interrupted{epoch}"
    program = KILLED.format(
        examples=str(EXAMPLES), arguments=[*SMALL, "--epochs", "3", "--out", out]
    )
    # The handler is set here, because the tests themselves must not have it.
    listens = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = program.replace("import train\n", f"import train\n{listens}\n", 1)
    program = program.replace("SIGKILL", "SIGINT").replace(
        "self.current_epoch == 1", f"self.current_epoch == {epoch}"
    )
    stopped = subprocess.run(
        [sys.executable, "-c", program],
        cwd=finished,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert stopped.returncode == 1 and told in stopped.stderr
    assert "Traceback" not in stopped.stderr
    again = [
        "--out",
        out,
        *(["--resume", "--quiet", "--threads", "1"] if epoch else [*SMALL, "--epochs", "1"]),
    ]
    assert "top-1" in succeed("train.py", *again, cwd=finished)


@pytest.mark.parametrize("network", [STFGCN, MSG3D, FGSTFormer, BAGCN])
@pytest.mark.parametrize(
    "shape", [(2, 3, 8, 17, 2), (2, 2, 8, 18, 2), (2, 3, 8, 18), (0, 3, 8, 18, 2)]
)
def test_a_network_names_the_shape_it_expects(
    network: type[nn.Module], shape: tuple[int, ...]
) -> None:
    persons = "=2" if network is MSG3D else ""
    expected = f"{network.__name__}: expected x (N, C=3, T, V=18, M{persons}), got {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        network(4, OPENPOSE18, in_channels=3)(torch.zeros(shape))


def test_ms_g3d_names_its_number_of_persons() -> None:
    with pytest.raises(ValueError, match=r"V=18, M=1\), got \(2, 3, 8, 18, 2\)$"):
        MSG3D(4, OPENPOSE18, num_persons=1)(torch.zeros(2, 3, 8, 18, 2))


def test_stf_starts_from_a_trained_ms_g3d(finished: Path) -> None:
    small = [
        "--clips",
        "40",
        "--frames",
        "16",
        "--batch",
        "8",
        "--network",
        "widths=6,6,12",
        "--epochs",
        "1",
        "--quiet",
    ]
    succeed(
        "train.py",
        *small,
        "--model",
        "ms_g3d",
        "--branch",
        "plain",
        "--out",
        "ms_g3d",
        cwd=finished,
    )
    done = start("train.py", *small, "--model", "stf_ms_g3d", "--out", "x8", cwd=finished)
    assert (
        "error: expected --start-from with the preset synthetic_stf_ms_g3d, got none" in done.stderr
    )
    stf = [
        "--model",
        "stf_ms_g3d",
        "--start-from",
        "ms_g3d",
        "--lr",
        "1e-9",
        "--decay",
        "1",
        "--out",
        "stf",
    ]
    succeed("train.py", *small, *stf, cwd=finished)
    before, after = (
        torch.load(finished / run / "model.pt", weights_only=True) for run in ("ms_g3d", "stf")
    )
    assert any(".generator." in name for name in after.keys() - before.keys())
    moved = {
        name: (after[name] - weight).abs().max().item()
        for name, weight in before.items()
        if "conv.weight" in name
    }
    assert max(moved.values()) < 1e-6  # it began where the other had ended
    done = start(
        "train.py", *small, "--model", "ms_g3d", "--start-from", "stf", "--out", "x9", cwd=finished
    )
    assert (
        done.returncode == 1
        and "expected --start-from with a run of the same model, ms_g3d, got stf with stf_ms_g3d"
        in done.stderr
    )


def test_fg_stformer_is_trained_resumed_and_explained(finished: Path) -> None:
    small = [
        "--model",
        "fg_stformer",
        "--clips",
        "40",
        "--frames",
        "16",
        "--batch",
        "8",
        "--network",
        "widths=6,6,6,6",
    ]
    small += [
        "--epochs",
        "2",
        "--threads",
        "1",
        "--quiet",
        "--network",
        "attention=false",
        "--network",
        "focal_joints=9",
    ]
    small += ["--decay", "1", "--warmup", "1", "--out", "fg"]
    program = KILLED.format(examples=str(EXAMPLES), arguments=small)
    died = subprocess.run(
        [sys.executable, "-c", program], cwd=finished, capture_output=True, timeout=300, check=False
    )
    assert died.returncode == -9, died.stderr
    succeed("train.py", "--out", "fg", "--resume", "--quiet", "--threads", "1", cwd=finished)
    report = json.loads((finished / "fg" / "report.json").read_text())
    assert report["preset"] == "synthetic_fg_stformer" and report["recipe"]["branch"] == "plain"
    assert report["recipe"]["network"]["attention"] is False
    rows = [
        line.split(",")
        for line in (finished / "fg/log/version_1/metrics.csv").read_text().splitlines()
    ]
    rates = {float(row[rows[0].index("lr-SGD/pg1")] or 0) for row in rows[1:]} - {0.0}
    assert list(rates) == pytest.approx([0.1 * 0.1])  # full height after the warm-up, then a tenth
    succeed("explain.py", "fg", "--clip", "3", "--out", "fg_pictures", cwd=finished)
    assert (finished / "fg_pictures" / "joints.png").stat().st_size > 1000


def test_mixed_precision_trains_on_a_cpu(tmp_path: Path) -> None:
    """Lightning refuses to clip the gradients of a fused optimizer there."""
    tiny = ["--epochs", "2", "--precision", "bf16-mixed", "--out", "low"]
    succeed("train.py", *SMALL, *tiny, cwd=tmp_path)
    assert (tmp_path / "low" / "report.json").exists()


def test_bagcn_is_trained_resumed_and_explained(finished: Path) -> None:
    small = [
        "--model",
        "bagcn",
        "--clips",
        "40",
        "--frames",
        "16",
        "--batch",
        "8",
        "--network",
        "widths=6,6,6,6,6,6,6,6,6",
    ]
    small += [
        "--epochs",
        "2",
        "--threads",
        "1",
        "--quiet",
        "--network",
        "context=forward",
        "--branch",
        "focus",
        "--out",
        "bag",
    ]
    program = KILLED.format(examples=str(EXAMPLES), arguments=small)
    died = subprocess.run(
        [sys.executable, "-c", program], cwd=finished, capture_output=True, timeout=300, check=False
    )
    assert died.returncode == -9, died.stderr
    succeed("train.py", "--out", "bag", "--resume", "--quiet", "--threads", "1", cwd=finished)
    report = json.loads((finished / "bag" / "report.json").read_text())
    assert report["preset"] == "synthetic_bagcn" and report["recipe"]["stream"] == "joint+bone"
    assert report["recipe"]["network"]["context"] == "forward"
    told = succeed("explain.py", "bag", "--clip", "3", "--out", "bag_pictures", cwd=finished)
    assert (finished / "bag_pictures" / "latent.png").stat().st_size > 1000
    assert "no adjacency.png: this network has no STFAdjacency" in told
    assert not (finished / "bag_pictures" / "adjacency.png").exists()


@pytest.mark.parametrize("options", [[], ["--plain"]])
def test_your_backbone(options: list[str], tmp_path: Path) -> None:
    small = ["--epochs", "2", "--clips", "64", "--batch", "16"]
    first, last = succeed(
        "your_backbone.py", *small, *options, cwd=tmp_path, OMP_NUM_THREADS="1"
    ).splitlines()
    assert first.startswith("epoch 1/2: top-1") and "divergence" not in first
    assert ("divergence" in last) == ("coherence" in last) == (not options)
    assert (EXAMPLES / "your_backbone.py").read_text().count("# added, line") == 3


def test_two_processes_of_torchrun_share_a_run(finished: Path) -> None:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        str(EXAMPLES / "train.py"),
    ]
    done = subprocess.run(
        [*launcher, *SMALL, "--epochs", "2"],
        cwd=finished,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    out = done.stdout
    (run,) = (finished / "runs").iterdir()  # the default folder, the same for both
    assert out.count(f"writing to runs/{run.name}") == 1
    assert json.loads((run / "report.json").read_text())["seconds"] > 0
    steps = torch.load(run / "last.ckpt", weights_only=True)["global_step"]
    assert steps == 2 * (80 // 2 // 16)  # each device has its half of the clips


def test_ensemble(finished: Path) -> None:
    lines = succeed("ensemble.py", "straight", "bone", cwd=finished).splitlines()
    assert [line.split()[0] for line in lines] == ["straight", "bone", "together"]
    alone = succeed(
        "ensemble.py", "straight", "bone", "--weights", "0", "1", cwd=finished
    ).splitlines()
    assert alone[1].split()[1:] == alone[2].split()[1:]
    folders = [str(finished / name) for name in ("straight", "bone")]
    left = ensemble.read_all(folders)
    anew = ensemble.recognise(folders)
    for folder, logs in zip(folders, anew[0], strict=True):
        assert_kept(Path(folder), logs)
    assert torch.equal(anew[1], left[1])
    for logs in left[0]:
        torch.testing.assert_close(logs.exp().sum(1), torch.ones(20), rtol=1e-5, atol=0)
    logits = []
    of_mirrored = []
    for folder in folders:
        objective, recipe, layout, classes, *_ = results.load_run(folder)
        clips, _ = loading.clips_of(folder, recipe, layout, classes)
        batch = SkeletonDataset.collate([clips[i] for i in range(len(clips))])
        with torch.no_grad():
            logits.append(objective.model(prepare(batch, recipe, layout)))
            of_mirrored.append(objective.model(prepare(batch, recipe, layout, mirror=True)))
    summed = results.accuracy(0.6 * logits[0] + 0.4 * logits[1], left[1])
    weighted = ("--logits", "--weights", "0.6", "0.4")
    line = succeed("ensemble.py", "straight", "bone", *weighted, cwd=finished).splitlines()[2]
    assert line.split()[2::2] == [f"{summed['top1']:.2%}", f"{summed['top5']:.2%}"]
    logs, label, names = ensemble.recognise(folders, mirror=True)
    assert anew[2] == left[2] == names
    mirrored = [log.exp() for log in logs]
    for p, one, other in zip(mirrored, logits, of_mirrored, strict=True):
        torch.testing.assert_close(p, (one.softmax(1) + other.softmax(1)) / 2)
        assert not torch.allclose(one, other), "or the mirror image shows nothing"
    lines = succeed(
        "ensemble.py", "straight", "bone", "--mirror", "--wrong", cwd=finished
    ).splitlines()
    told = [f"{results.accuracy(p, label)['top1']:.2%}" for p in (*mirrored, fuse(mirrored))]
    assert [line.split()[2] for line in lines[:3]] == told
    classes = results.load_run(folders[0]).classes
    taken = fuse(mirrored).argmax(1)
    wrong = [i for i in range(len(names)) if taken[i] != label[i]]
    assert lines[3:] == [
        f"{names[i]}: {classes[label[i]]}, classified as {classes[taken[i]]}" for i in wrong
    ]


def test_explain(finished: Path) -> None:
    out = succeed(
        "explain.py", "straight", "--clip", "3", "--out", "pictures", "--curves", "40", cwd=finished
    )
    for name in ("focus.png", "top_two.png", "map.png", "focus.gif", "adjacency.png", "curves.png"):
        assert (finished / "pictures" / name).stat().st_size > 1000, out


def test_report(finished: Path) -> None:
    out = succeed("report.py", "straight", "--clips", "6", cwd=finished)
    assert out.startswith("written: straight/report.html, 6 of 20 test clips: ")
    page = (finished / "straight" / "report.html").read_text()
    assert page.count('"name":') == 6 and out.partition(", ")[2].strip() in page


def test_the_adjacency_drawn_is_that_of_the_last_convolution_and_the_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(1, 4, 8, 25, 2)
    network = STFGCN(3, NTU25, widths=[6, 6], strides=[1, 1]).eval()
    torch.nn.init.normal_(network.blocks[1].graph.generator.emit.weight)
    actions = SyntheticActions(frames=16)
    given = {}
    batch = actions.generate(1, seed=0, labels=[actions.classes.index("push")])  # by two persons
    monkeypatch.setattr(
        explain, "plot_adjacency", lambda *parts, **options: given.update(parts=parts, **options)
    )
    drawn, _ = explain.to_draw(batch, NTU25, Recipe(frames=8))
    explain.draw_adjacency(network, x, drawn, 1, layout=NTU25, frame=5, title="wave")
    body, rows, layout = given["parts"]
    expected = {}
    network.blocks[1].graph.generator.register_forward_hook(
        lambda module, x, out: expected.update(generated=out[0])
    )
    network(x)
    assert (
        torch.equal(rows["G_k, of this clip"], expected["generated"][1])
        and rows["G_k, of this clip"].any()
    )
    assert torch.equal(rows["A_k, fixed"], multi_scale_adjacency(NTU25, 3)) and layout is NTU25
    assert torch.equal(body, drawn[:, 5, :, 1].T) and given["title"] == "wave"


def saved(
    folder: Path, probabilities: np.ndarray, label: list[int], names: list[str] | None = None
) -> None:
    """A finished run, as far as compare.py reads it."""
    folder.mkdir(exist_ok=True)
    names = names or [f"clip{i}" for i in range(len(label))]
    np.savez(
        folder / "log_probabilities.npz",
        log_probabilities=np.log(np.maximum(probabilities, 1e-30)),
        label=np.array(label),
        names=np.array(names),
    )


def test_compare(finished: Path, tmp_path: Path) -> None:
    label = [0, 0, 0, 1, 1, 2, 3]
    one = [0, 1, 1, 1, 1, 3, 3]
    two = [0, 0, 1, 1, 0, 3, 3]
    for name, found in (("one", one), ("two", two)):
        saved(tmp_path / name, np.eye(18, dtype=np.float32)[found], label)
        for file in ("model.pt", "model.json"):
            (tmp_path / name / file).write_bytes((finished / "straight" / file).read_bytes())
    classes = json.loads((finished / "straight" / "model.json").read_text())["classes"]
    (tmp_path / "two" / "report.json").write_text('{"top1": 0.5}')  # as version 0.1 wrote it
    lines = succeed("compare.py", "one", "two", "--out", "both", cwd=tmp_path).splitlines()
    assert lines[:3] == [
        "one  top-1 57.14%",
        "two  top-1 57.14%",
        "+0.00 points on 7 clips: 1 right only by two, 1 only by one",
    ]
    assert lines[3:5] == [
        f"gain most: {classes[0]} +33.3 (3 clips)",
        f"lose most: {classes[1]} -50.0 (2 clips)",
    ]
    for name in ("class_difference.png", "confusion.png"):
        assert (tmp_path / "both" / name).stat().st_size > 1000
    anew = succeed(
        "compare.py",
        str(finished / "straight"),
        str(finished / "straight"),
        "--split",
        "none",
        "--out",
        "anew",
        cwd=tmp_path,
    )
    assert "+0.00 points on 20 clips" in anew
    told = succeed("compare.py", "two", "two", "--most", "2", cwd=tmp_path)
    assert (
        "gain most: none\nlose most: none" in told and (tmp_path / "two" / "confusion.png").exists()
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"names": ["a", "b", "z"]},
            "same clips, got one and other with 2 clips in one of them only, such as c",
        ),
        (
            {"names": ["a", "c", "b"]},
            "expected runs tested on the same clips in one order, got another in other",
        ),
        ({"label": [0, 1, 1]}, "expected the same class of every clip in both runs, got two of c"),
        (
            {"names": ["a", "b"], "label": [0, 1]},
            "same clips, got one and other with 1 clips in one of them only, such as c",
        ),
        ({}, "expected a finished run, got one, which holds no model.json"),
    ],
)
def test_compare_refuses_other_clips(change: dict[str, list], error: str, tmp_path: Path) -> None:
    own = {"label": [0, 1, 2], "names": ["a", "b", "c"]}
    saved(tmp_path / "one", np.eye(3), **own)
    other = {**own, **change}
    saved(tmp_path / "other", np.eye(3)[: len(other["label"])], **other)
    done = start("compare.py", "one", "other", cwd=tmp_path)
    assert (
        done.returncode == 1 and done.stderr.startswith("error: expected ") and error in done.stderr
    )
    assert "Traceback" not in done.stderr


DEMO = """
import sys, demo, train
small = sys.argv[1:]
demo.train = lambda arguments: train.main([*arguments, *small])
sys.argv = ["demo.py", "--out", "demo"]
demo.main()
"""


def test_the_demo_trains_measures_and_draws(tmp_path: Path) -> None:
    """As make demo, with small networks, one epoch each."""
    done = subprocess.run(
        [sys.executable, "-c", DEMO, *SMALL[:-2], "--epochs", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert {*report} == {"base", "plain", "focus", "chance"}
    assert all(0 <= value <= 1 for name, value in report["focus"].items() if name != "seconds")
    assert {"top1", "top1_part_hidden", "average_precision", "pointing"} < {*report["plain"]}
    recipes = {
        run: json.loads((tmp_path / "demo" / run / "recipe.json").read_text())["recipe"]
        for run in demo.RUNS
    }
    assert [recipes[run]["start_from"] for run in demo.RUNS] == ["", "demo/base", "demo/base"]
    assert [recipes[run]["erasing"] for run in demo.RUNS] == [0, 0, 0.5]
    assert recipes["plain"]["lr"] == recipes["focus"]["lr"] and recipes["plain"]["stf_after"] == 0.7
    assert (
        tmp_path / "demo" / "focus.png"
    ).stat().st_size > 1000 and "with the losses and erasing" in done.stdout
    page = (tmp_path / "demo" / "report.html").read_text()
    assert (
        page.count('"name":') == 20
        and "Where stf_gcn looks" in page
        and "demo/report.html to open" in done.stdout
    )


def test_an_interrupted_demo_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(demo, "train", lambda options: given.append(options) or {"top1": 0.5})
    demo.trained(tmp_path / "new", ["--branch", "plain"])
    for name, file in (("finished", "report.json"), ("stopped", "last.ckpt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"top1": 0.25}')
    assert demo.trained(tmp_path / "finished", ["--branch", "plain"]) == {"top1": 0.25}
    demo.trained(tmp_path / "stopped", ["--branch", "plain"])
    resumed = ["--out", str(tmp_path / "stopped"), "--resume", "--devices", "1"]
    assert given == [["--out", str(tmp_path / "new"), "--branch", "plain"], resumed]


def test_a_demo_names_its_own_way_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(options: list[str]) -> dict[str, float]:
        raise SystemExit(f"stopped; resume: python examples/train.py --out {options[1]} --resume")

    monkeypatch.setattr(demo, "train", stops)
    for said in ("stopped in the first epoch; start again", "stopped; resume"):
        with pytest.raises(SystemExit) as stopped:
            demo.trained(tmp_path / "plain", [])
        assert stopped.value.code == f"{said} with: python examples/demo.py --out {tmp_path}"
        (tmp_path / "plain").mkdir(exist_ok=True)
        (tmp_path / "plain" / "last.ckpt").touch()


@pytest.mark.parametrize("left", ["recipe.json", "model.pt"])
def test_a_demo_of_another_version_names_the_way_out(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was interrupted, and one whose first run was finished."""
    run = tmp_path / "demo" / "base"
    recipe = {"momentum": 0.9}
    run.mkdir(parents=True)
    (run / "last.ckpt").touch()
    if left == "recipe.json":
        facts = dict.fromkeys([*command_line.KEPT, "clips", "threads"], 0) | {"recipe": recipe}
        (run / left).write_text(json.dumps(facts))
    else:
        (run / "report.json").write_text('{"top1": 0.25}')
        facts = {
            "recipe": recipe,
            "layout": "NTU25",
            "clips_layout": "NTU25",
            "classes": ["a"],
            "persons": 1,
        }
        results.write_model(run, torch.nn.Identity(), facts)
    monkeypatch.setattr("sys.argv", ["demo.py", "--out", str(tmp_path / "demo")])
    with pytest.raises(ValueError, match=r"from this version|to describe a network") as refused:
        demo.main()
    assert "momentum" in str(refused.value)
    assert str(refused.value).endswith(
        f"; to start again, remove {tmp_path / 'demo'} or name another --out"
    )


SHORT = [
    "--preset",
    "synthetic",
    "--network",
    "widths=6,6,6,6,6,6",
    "--frames",
    "8",
    "--threads",
    "1",
    "--branch",
    "plain",
]
SHORT += ["--epochs", "1", "--batch", "2", "--quiet"]


def test_ntu_files_are_trained_on_and_explained(tmp_path: Path) -> None:
    """Two bodies, one of them absent; a bad file left out; the split kept."""
    for view, subject, action in ((1, 1, 1), (2, 1, 2), (2, 3, 1), (3, 3, 2), (1, 3, 2)):
        who = {"1": ntu.walk, "2": ntu.walk} if action == 2 else {"1": ntu.walk}
        frames = [
            {name: walk(t, x=2.0 * int(name)) for name, walk in who.items()} for t in range(14)
        ]
        ntu.write(tmp_path, ntu.skeleton(frames), f"S001C00{view}P00{subject}R001A00{action}")
    ntu.write(tmp_path, "x", "S001C002P001R002A001")
    options = ["--split", "xview", "--skip-bad-clips", "--workers", "1", "--out", "run"]
    said = succeed("train.py", "--data", str(tmp_path), *SHORT, *options, cwd=tmp_path)
    assert "NTU RGB+D 60: 3 training and 2 test clips of 60 classes, NTU25" in said
    assert json.loads((tmp_path / "run" / "report.json").read_text())["split"] == "xview"
    said = succeed(
        "explain.py", "run", "--clip", "S001C001P003R001A002", "--frames", "2", cwd=tmp_path
    )
    assert "clip S001C001P003R001A002 of class 'eat meal'" in said
    (tmp_path / "run" / "log_probabilities.npz").unlink()
    for option in (
        ["--skip-bad-clips"],
        ["--split", "xsub"],
    ):  # either alone has the clips recognised anew
        assert "together  top-1 " in succeed("ensemble.py", "run", *option, "--wrong", cwd=tmp_path)
    refused = start("train.py", "--data", str(tmp_path), *SHORT, "--out", "other", cwd=tmp_path)
    assert refused.returncode == 1
    assert (
        refused.stderr.splitlines()[-1].startswith("error: ")
        and "A001.skeleton, line 1: expected" in refused.stderr
    )


def test_poses_with_confidences_in_the_plane(tmp_path: Path) -> None:
    for side, n in (("kinetics_train", 4), ("kinetics_val", 2)):
        (tmp_path / side).mkdir()
        for i in range(n):
            frames = [
                [kinetics.person(10 * i + t + m, 0.6) for m in range(1 + i % 2)] for t in range(9)
            ]
            kinetics.write(
                tmp_path / side,
                kinetics.clip(*frames, label=str(i % 2), label_index=i % 2),
                f"{side}{i}",
            )
    # Rotated in the plane alone.
    said = succeed("train.py", "--data", str(tmp_path), *SHORT, "--out", "run", cwd=tmp_path)
    assert "Kinetics-Skeleton: 4 training and 2 test clips of 2 classes, OPENPOSE18" in said
    succeed("explain.py", "run", "--clip", "kinetics_val1", "--frames", "2", cwd=tmp_path)
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"]
    assert recipe["augment"]["rotation"] == [0.0, 0.0, 0.0]
    turned = start(
        "train.py",
        "--data",
        str(tmp_path),
        *SHORT,
        "--augment",
        "rotation=9,0,0",
        "--out",
        "other",
        cwd=tmp_path,
    )
    assert turned.returncode == 1 and "expected rotation about z alone" in turned.stderr


MISTAKES = [
    (
        "train.py",
        ["--data", "nowhere"],
        "error: open_dataset: expected a folder or file of clips, got nowhere, which does not "
        "exist",
    ),
    (
        "train.py",
        ["--data", "corrupt"],
        "a file of such poses, got corrupt, which is none of these; pass your own arrays to "
        "SkeletonDataset",
    ),
    (
        "train.py",
        ["--out", "straight"],
        "error: expected a new --out, got straight, which holds a run",
    ),
    (
        "train.py",
        ["--out", "missing", "--resume"],
        "error: expected --out with a run to resume, got missing",
    ),
    (
        "train.py",
        ["--resume"],
        "error: expected --resume with --out and the folder of the run, got no --out",
    ),
    (
        "train.py",
        ["--out", "corrupt", "--resume", "--lr", "1"],
        "error: expected --resume with --out alone",
    ),
    (
        "train.py",
        [*SMALL, "--out", "x1", "--stream", "joints"],
        "error: make_stream: expected stream to be one of 'joint',",
    ),
    (
        "train.py",
        [*SMALL, "--out", "x2", "--frames", "3"],
        "error: SyntheticActions: expected frames of at least 16, got 3",
    ),
    (
        "train.py",
        [
            *SMALL,
            "--out",
            "x3",
            "--network",
            "widths=4",
        ],
        "error: STFGCN: expected as many widths as strides, got 1 and 6",
    ),
    (
        "train.py",
        [*SMALL, "--out", "x4", "--epochs", "0"],
        "error: expected epochs of at least 1, got 0",
    ),
    (
        "train.py",
        ["--out", "corrupt", "--resume"],
        "error: expected a checkpoint of this program, got corrupt/last.ckpt",
    ),
    (
        "ensemble.py",
        ["straight", "nowhere"],
        "error: expected a finished run, got nowhere, which is no folder",
    ),
    (
        "compare.py",
        ["straight", "unfinished"],
        "holds no log_probabilities.npz; python examples/train.py --out unfinished --resume "
        "finishes it",
    ),
    (
        "ensemble.py",
        ["torn"],
        "error: expected the log-probabilities of a run, got torn/log_probabilities.npz, "
        "which cannot",
    ),
    (
        "ensemble.py",
        ["foreign"],
        "foreign/log_probabilities.npz, which cannot be read: it is no .npz of arrays",
    ),
    (
        "ensemble.py",
        ["empty"],
        "error: expected the log-probabilities of a run, got empty/log_probabilities.npz, "
        "which cannot",
    ),
    (
        "report.py",
        ["torn"],
        "error: expected the report of a run, got torn/report.json, which cannot be read: ",
    ),
    (
        "explain.py",
        ["foreign"],
        "error: expected the report of a run, got foreign/report.json, which cannot be read",
    ),
    (
        "explain.py",
        ["empty"],
        "that empty was trained on, got no /elsewhere/clips; --data names others",
    ),
    ("ensemble.py", ["straight", "--data", ""], "got ., which is none of these"),
    (
        "train.py",
        ["--out", "older", "--resume"],
        "error: expected older/last.ckpt from this version of the program",
    ),
    ("ensemble.py", ["straight", "bone", "--weights", "1"], "error: fuse: expected 2 weights"),
    (
        "train.py",
        ["--out", "old", "--resume"],
        "error: expected old/last.ckpt from this version of the program, got another: 'curve'",
    ),
    (
        "ensemble.py",
        [str(EXAMPLES.parent / "weights" / "nw_ucla" / "stf_gcn" / "bone"), "--mirror"],
        "error: expected clips in the 10 classes of",
    ),
    (
        "ensemble.py",
        [str(EXAMPLES.parent / "weights" / "nw_ucla" / "stf_gcn" / "bone")],
        "which holds no log_probabilities.npz; --data PATH runs the network on the clips",
    ),
    (
        "train.py",
        ["--out", "straight/report.json"],
        "error: expected --out to be a folder, got the file straight/report",
    ),
    (
        "train.py",
        [*SMALL, "--out", "x7", "--threads", "-3"],
        "error: expected --threads and --workers of at least 0",
    ),
    (
        "train.py",
        [*SMALL, "--start-from", "bone", "--stream", "joint", "--out", "y1"],
        "error: expected --start-from with a run of the same stream, joint, got bone with bone",
    ),
    (
        "train.py",
        [*SMALL, "--start-from", "straight", "--network", "widths=6,6,6,6,6,7", "--out", "y2"],
        "(widths=6,6,6,6,6,6 strides=2,1,2,1,1,1 dropout=0.1 against widths=6,6,6,6,6,7 strides=",
    ),
    (
        "train.py",
        ["--out", "straight", "--resume"],
        "error: expected an unfinished run to resume, got straight, which is finished; "
        "--start-from with another --out",
    ),
    (
        "train.py",
        ["--model", "fg_stformer", "--out", "x10", "--network", "stages=4,"],
        "error: FGSTFormer: expected two stages, and a width and a stride for each layer, got "
        "stages (4,), 4 widths",
    ),
    (
        "train.py",
        [*SMALL, "--out", "x11", "--network", "parts=false"],
        "error: expected --network with some of widths, strides, first_scale, dropout, got parts",
    ),
    ("train.py", [*SMALL, "--out", "x12", "--warmup", "2"], "got --warmup without --decay"),
    (
        "train.py",
        [*SMALL, "--out", "x13", "--warmup", "-1"],
        "expected warmup of at least 0, got -1",
    ),
    (
        "train.py",
        [*SMALL, "--out", "x5", "--augment", "rotation=1,2"],
        "error: Augment: expected rotation of three angles in 0..180 degrees, got (1.0, 2.0)",
    ),
    (
        "train.py",
        [*SMALL, "--out", "x6", "--label-smoothing", "2"],
        "error: expected label_smoothing in 0..1, got 2",
    ),
    (
        "train.py",
        ["--network", "widths=6", "--out", "x14"],
        "error: STFGCN: expected as many widths as strides, got 1 and 6",
    ),
    (
        "train.py",
        ["--branch", "coherence+focus"],
        "some of exploration, divergence, coherence, adjacency, guidance, joined by +, got 'f",
    ),
    (
        "train.py",
        ["--branch", "exploration", "--separation", "overlap"],
        "got --separation with --branch exploration",
    ),
    (
        "train.py",
        ["--branch", "divergence", "--separation", "overlap", "--norm", "l2"],
        "got --norm with --branch div",
    ),
    (
        "train.py",
        ["--branch", "exploration=much"],
        "expected --branch with a weight such as exploration=0.3, got",
    ),
    ("train.py", ["--branch", "guidance=1"], "expected --guide with --branch guidance=1, got none"),
    ("train.py", ["--branch", "plain", "--guide", "table.json"], "got --guide with --branch plain"),
    (
        "train.py",
        [*SMALL, "--hold-out", "x"],
        "to name some of the training clips, got 0 of 80 with x, among them 0",
    ),
    (
        "train.py",
        [*SMALL, "--epochs", "2", "--hold-out", "1", "--validate-every", "3"],
        "expected --validate-every in 1..2, got 3",
    ),
    ("train.py", ["--draw", "2"], "got --draw without --share"),
    ("train.py", ["--share", "0"], "expected share in 1e-09..1, got 0.0"),
    (
        "train.py",
        ["--branch", "plain", "--stf-after", "0.5"],
        "got --stf-after with --branch plain",
    ),
    ("train.py", ["--decay", "3", "--cycle", "0.5"], "got --cycle with --decay"),
    ("explain.py", ["nowhere"], "error: expected a finished run, got nowhere, which is no folder"),
    ("report.py", ["straight", "--clips", "0"], "error: expected --clips of at least 1, got 0"),
    (
        "report.py",
        ["straight", "--out", "r.txt"],
        "error: expected --out to end in .html, in a folder that exists",
    ),
    (
        "explain.py",
        ["straight", "--curves", "-1"],
        "error: expected --curves of at least 0 clips, got -1",
    ),
    ("explain.py", ["straight", "--clip", "1000"], "error: expected --clip to be a test clip"),
]


def test_a_mistake_is_told_on_stderr(tmp_path: Path) -> None:
    done = start("train.py", "--epochs", "0", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: expected epochs of at least 1, got 0\n"


def damaged(finished: Path) -> None:
    """Folders of runs that something went wrong with, beside the finished ones."""
    if (finished / "corrupt").exists():
        return
    kept = {
        name: (finished / "straight" / name).read_bytes()
        for name in ("recipe.json", "model.json", "model.pt", "last.ckpt")
    }
    model = {name: kept[name] for name in ("model.json", "model.pt")}
    half = (finished / "straight" / "log_probabilities.npz").read_bytes()[:-100]
    moved = json.dumps({"data": "/elsewhere/clips"}).encode()
    older = io.BytesIO()
    torch.save({"state_dict": {"objective.fc.weight": torch.zeros(2)}}, older)
    without_curve = io.BytesIO()
    checkpoint = torch.load(io.BytesIO(kept["last.ckpt"]), weights_only=True)
    torch.save({name: part for name, part in checkpoint.items() if name != "curve"}, without_curve)
    for folder, files in {
        "corrupt": {"recipe.json": kept["recipe.json"], "last.ckpt": b"PK\x03\x04 half a file"},
        "older": {"recipe.json": kept["recipe.json"], "last.ckpt": older.getvalue()},
        "old": {"recipe.json": kept["recipe.json"], "last.ckpt": without_curve.getvalue()},
        "unfinished": {"last.ckpt": kept["last.ckpt"]},
        "torn": {
            "log_probabilities.npz": half,
            **model,
            "report.json": b'{"data": "',
        },
        "foreign": {
            "log_probabilities.npz": pickle.dumps([1]),
            **model,
            "report.json": b"[]",
        },
        "empty": {"log_probabilities.npz": b"", **model, "report.json": moved},
    }.items():
        (finished / folder).mkdir()
        for name, content in files.items():
            (finished / folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("program", "arguments", "text"), MISTAKES, ids=[" ".join(m[1][-2:]) for m in MISTAKES]
)
def test_a_mistake_ends_in_one_line(
    program: str, arguments: list[str], text: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged(finished)
    monkeypatch.chdir(finished)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    with pytest.raises(
        SystemExit
    ) as stopped:  # what it holds is written to stderr, and 1 is the exit status
        train.run(importlib.import_module(Path(program).stem).main)
    assert text in str(stopped.value)
    assert "\n" not in str(stopped.value)
