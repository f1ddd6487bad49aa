"""Own poses, from COCO-17 arrays to a trained network, its answers, pictures and a new data set."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ensemble
import numpy as np
import predict
import pytest
import results
import torch
import train
from layer_tools import needs_torch
from recipe import Recipe

from skeleton_focus import (
    COCO17,
    KINECT20,
    NTU25,
    SkeletonDataset,
    Split,
    datasets,
    load_pretrained,
    open_clips,
)
from skeleton_focus.layouts import H36M17
from skeleton_focus.preparation import convert_layout, resample_frames

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's

CLASSES = ["raise left", "raise right", "squat"]
ROOT = Path(__file__).parents[1]
SMALL = ["--preset", "synthetic", "--frames", "16", "--batch", "8", "--threads", "1", "--quiet"]
SMALL += ["--network", "widths=8,8,8", "strides=2,1,1"]


def moving(label: int, frames: int, random: np.random.Generator) -> Any:
    """A person (T, 17, 2) in pixels that raises an arm or bends the knees."""
    body = np.array(
        [[0, 20], [-3, 17], [3, 17], [-6, 19], [6, 19], [-15, 40], [15, 40], [-18, 65], [18, 65]]
        + [[-20, 90], [20, 90], [-10, 95], [10, 95], [-11, 140], [11, 140], [-11, 185], [11, 185]]
    )
    x = np.repeat(body[None].astype(np.float32), frames, 0)
    lifted = 60 * np.sin(np.linspace(0, np.pi, frames))
    if label < 2:
        x[:, 7 + label, 1] -= 0.5 * lifted
        x[:, 9 + label, 1] -= 1.5 * lifted
    else:
        x[:, :13, 1] += 0.8 * lifted[:, None]
    return x + random.normal(0, 1, x.shape) + random.uniform(100, 500, 2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of COCO-17 arrays with one or two persons and lengths of their own."""
    random = np.random.default_rng(0)
    made = []
    labels = []
    for i in range(45):
        frames = int(random.integers(20, 40))
        people = np.zeros((2, frames, 17, 2), np.float32)
        people[0] = moving(i % 3, frames, random)
        if i % 5 == 0:
            people[1] = moving(i % 3, frames, random)
        made.append(torch.from_numpy(people).permute(3, 1, 2, 0))
        labels.append(i % 3)
    seen = [(x != 0).any(0).float() for x in made]
    names = [f"clip {i}" for i in range(45)]
    path = tmp_path_factory.mktemp("clips") / "mine.npz"
    data = SkeletonDataset(made, labels, COCO17, classes=CLASSES, names=names, visibility=seen)
    data.save(path)
    return path


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    report = train.main(
        [*SMALL, "--data", str(clips), "--epochs", "40", "--branch", "plain", "--out", str(out)]
    )
    assert report["top1"] > 0.8 and report["clips"] == [36, 9]
    return out


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    capsys.readouterr()
    predict.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_a_line_for_each_clip(
    trained: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = said(capsys, trained, clips)
    *lines, top1 = out.splitlines()
    assert len(lines) == 45 and err == ""
    right = [line for line in lines if "(right)" in line]
    assert top1 == f"top-1 {len(right) / 45:.2%} of 45 labelled clips" and len(right) > 40
    name, rest = lines[1].split(": ", 1)
    assert name == "clip 1" and rest.startswith("raise right ") and "; joints: " in rest


def test_the_answer_is_the_networks(trained: Path, clips: Path) -> None:
    run = results.load_run(trained)
    data = open_clips(clips, cache=False)
    expected = results.predict(run.objective.model, data, run.recipe).exp()
    got = load_pretrained(trained).recognise(clips)
    for answer, p, name, clip in zip(got, expected, data.names, data, strict=True):
        assert answer.clip == name and answer.label == CLASSES[int(p.argmax())]
        assert dict(answer.ranked) == pytest.approx(
            dict(zip(CLASSES, p.tolist(), strict=True)), abs=1e-5
        )
        assert answer.window == (0, clip.x.shape[1] - 1)
        first, last = answer.frames
        assert 0 <= first <= last < clip.x.shape[1]
        lengths = torch.tensor([clip.x.shape[1]])
        shown = resample_frames(clip.x[None], lengths, run.recipe.frames)[0]
        assert torch.allclose(answer.x, shown, rtol=1e-5)


def test_json_for_programs(trained: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = said(capsys, trained, clips, "--json", "--top", 3)
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 45
    assert found[0].keys() == {
        "clip",
        "window",
        "label",
        "probability",
        "ranked",
        "truth",
        "joints",
        "frames",
    }
    assert found[0]["truth"] == "raise left" and len(found[0]["ranked"]) == 3
    assert sum(p for _, p in found[0]["ranked"]) == pytest.approx(1, abs=1e-4)


def test_one_array_without_a_label(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = moving(2, 31, np.random.default_rng(5))
    np.savez(tmp_path / "new.npz", x=x, lengths=[31])
    given = [trained, tmp_path / "new.npz", tmp_path / "other.npz"]
    np.savez(tmp_path / "other.npz", x=x[5:], lengths=[26], name=["other"])
    out, err = said(capsys, *given, "--picture", tmp_path / "pictures")
    assert out.count("squat") == 2 and "\nother: " in out
    assert out.startswith("0: squat ") and "(right)" not in out and "labelled" not in out
    assert err == f"written: 2 pictures in {tmp_path / 'pictures'}\n"
    assert (tmp_path / "pictures" / "0.png").stat().st_size > 1000


@pytest.mark.parametrize("window", [[], ["--window", "10"]])
def test_clips_of_one_name_have_a_picture_each(
    window: list[str], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for i, path in enumerate(paths):
        np.savez(path, x=moving(i, 31, np.random.default_rng(i)), lengths=[31])
    said(capsys, trained, *paths, *window, "--picture", tmp_path / "pictures")
    written = sorted(file.name for file in (tmp_path / "pictures").iterdir())
    assert written == ["0-2.png", "0.png"]


def test_the_pictures_show_positions_whatever_the_stream(clips: Path, tmp_path: Path) -> None:
    given = [*SMALL, "--data", str(clips), "--epochs", "1", "--branch", "plain"]
    train.main([*given, "--stream", "bone", "--out", str(tmp_path / "run")])
    answer = load_pretrained(tmp_path / "run").recognise(clips)[3]
    clip = open_clips(clips, cache=False)[3]
    assert torch.allclose(answer.x[:, [0, -1]], clip.x[:, [0, -1]])  # the ends of the clip


def test_windows_over_a_long_recording(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(6)
    x = np.concatenate([moving(label, 30, random) for label in (0, 2, 1)])
    np.savez(tmp_path / "long.npz", x=x, lengths=[90], name=["day/one"])
    given = [trained, tmp_path / "long.npz", "--window", 30, "--step", 15]
    out, _ = said(capsys, *given, "--picture", tmp_path)
    lines = out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        f"day/one frames {start}-{start + 29}" for start in (0, 15, 30, 45, 60)
    ]
    assert "raise left" in lines[0] and "squat" in lines[2] and "raise right" in lines[4]
    first, last = lines[2].rsplit(" ", 1)[1].split("-")
    assert 30 <= int(first) <= int(last) <= 59  # of the recording, not of the window
    assert (tmp_path / "day-one.png").exists()
    found = load_pretrained(trained).recognise(tmp_path / "long.npz", window=40, batch=4)
    assert [answer.window[0] for answer in found] == [0, 10, 20, 30, 40, 50]
    assert all(last - first == 39 for first, last in (answer.window for answer in found))


def test_windows_end_with_the_clip() -> None:
    clip = SkeletonDataset(torch.rand(1, 2, 50, 17, 1), None, COCO17)[0]
    parts = predict.windows(clip, "a", 20, 12)
    assert [part.start for part in parts] == [0, 12, 24, 30]
    assert all(part.clip.x.shape[1] == 20 for part in parts)
    assert torch.equal(parts[3].clip.x, clip.x[:, 30:])
    assert [part.clip.x.shape[1] for part in predict.windows(clip, "a", 60, 12)] == [50]


@pytest.mark.parametrize("preparation", ["view", "paper"])
@pytest.mark.parametrize("length", [1, 5, 16, 47])
def test_frames_are_those_of_the_clip(preparation: str, length: int) -> None:
    """A focus on one frame of the clip is found there, whatever the preparation does to time."""
    recipe = Recipe(preparation=preparation, frames=16)
    for frame in range(min(length, 16)):
        focus = torch.zeros(1, 16, 3)
        if preparation == "paper":
            focus[:, frame::length] = 1
            expected = (frame, frame)
        else:
            at = frame if length == 1 else round(frame / (length - 1) * 15)
            focus[:, at] = 1
            near = [t for t in range(length) if round(t / max(length - 1, 1) * 15) == at]
            expected = (near[0], near[-1])
        assert predict.frames_of(focus, recipe, length) == expected


@pytest.mark.parametrize("preparation", ["view", "paper", "ctrgcn", "box"])
@pytest.mark.parametrize("length", [9, 40, 75])
def test_frames_are_those_that_the_network_was_shown(preparation: str, length: int) -> None:
    """A hand at t, measured in the distance of two joints, tells which time a frame shows."""
    recipe = Recipe(preparation=preparation, frames=32)
    names = ("head", "right_hand", "left_hand")
    zero, one, hand = (KINECT20.joints.index(name) for name in names)
    x = torch.zeros(3, length, 20, 1)
    x[1] = torch.arange(20.0)[:, None]
    x[0, :, one] = 1
    x[0, :, hand] = torch.arange(float(length))[:, None]
    batch = SkeletonDataset.collate([*SkeletonDataset([x], None, KINECT20)])
    inputs = predict.prepare(batch, recipe, KINECT20)[0, 0, ..., 0]  # (T, V)
    time = (inputs[:, hand] - inputs[:, zero]) / (inputs[:, one] - inputs[:, zero])
    apart = (time[:, None] - torch.arange(length)).abs()  # (T, frames)
    shows = apart <= apart.amin(0) + 1e-3
    for frame in range(min(length, 32) if preparation == "paper" else length):
        focus = shows[:, frame].float()[None, :, None].expand(1, 32, 20)
        together = (shows & shows[:, frame, None]).any(0).nonzero().flatten()
        first, last = predict.frames_of(focus, recipe, length)
        assert together[0] <= first <= frame <= last <= together[-1]


def test_joints_are_named_with_their_person() -> None:
    focus = torch.zeros(2, 4, 17)
    focus[0, 1, COCO17.joints.index("left_wrist")] = 1
    focus[0, :, COCO17.joints.index("nose")] = 0.5
    assert predict.joints_of(focus, COCO17) == ["nose", "left_wrist"]
    focus[1, :3, COCO17.joints.index("left_knee")] = 1
    assert predict.joints_of(focus, COCO17, 2) == ["left_knee of person 2", "nose of person 1"]


def test_frames_around_the_peak() -> None:
    focus = torch.tensor([0.0, 4, 1, 2, 3, 4.5, 3, 1, 2, 0]).view(1, 10, 1).repeat(2, 1, 3)
    focus[1] = 0
    assert predict.frames_of(focus, Recipe(preparation="paper", frames=10), 10) == (4, 6)
    assert predict.frames_of(0 * focus, Recipe(preparation="paper", frames=10), 7) == (0, 6)


def test_pictures_number_the_frames_of_the_clip() -> None:
    recipe = Recipe(preparation="view", frames=16)
    assert predict.frames_shown(recipe, 46) == list(range(0, 46, 3))
    assert predict.frames_shown(recipe, 1) == [0] * 16
    recipe = Recipe(preparation="box", frames=4)
    assert predict.frames_shown(recipe, 9) == [0, 2, 5, 8]
    recipe = Recipe(preparation="paper", frames=16)
    assert predict.frames_shown(recipe, 10) == [*range(10), *range(6)]
    focus = torch.zeros(1, 16, 3)
    for preparation in ("view", "paper"):
        recipe = Recipe(preparation=preparation, frames=16)
        focus[:] = torch.arange(16)[:, None] == 5
        first, last = predict.frames_of(focus, recipe, 47)
        assert first <= predict.frames_shown(recipe, 47)[5] <= last


def test_a_folder_of_runs_is_no_run() -> None:
    with pytest.raises(ValueError, match=r"holds no model\.pt; its folder ms_g3d/bone does$"):
        results.load_run(ROOT / "weights" / "nw_ucla")


def test_training_on_a_bad_clip_names_the_option(tmp_path: Path) -> None:
    x = np.random.default_rng(9).random((80, 17, 2))
    x[12:18] = 0
    lengths = [6, 6, 6, 62]
    np.savez(tmp_path / "x.npz", x=x, lengths=lengths, label=[0, 1, 0, 1], layout="COCO17")
    options = ["--data", str(tmp_path / "x.npz"), "--out", str(tmp_path / "run"), *SMALL]
    with pytest.raises(ValueError, match=r"clip '2': .*, got none in any frame; --skip-bad-clips"):
        train.main(options)
    np.savez(tmp_path / "x.npz", x=x, lengths=[3])
    with pytest.raises(ValueError, match=r"expected 3 frames, the sum of lengths, got 80$"):
        train.main(options)


def test_clips_of_another_skeleton(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Human3.6M's joints hold those that move here, so the classes stay the same."""
    random = np.random.default_rng(7)
    x = torch.from_numpy(np.stack([moving(i % 3, 30, random) for i in range(9)])).float()
    x = x.permute(0, 3, 1, 2)[..., None]
    converted, seen = convert_layout(x, COCO17, H36M17)
    data = SkeletonDataset(
        converted, [i % 3 for i in range(9)], H36M17, classes=CLASSES, visibility=list(seen)
    )
    data.save(tmp_path / "h36m.npz")
    out, err = said(capsys, trained, tmp_path / "h36m.npz")
    path = tmp_path / "h36m.npz"
    assert err == f"note: the clips of {path} in H36M17 are converted to COCO17\n"
    assert out.count("(right)") >= 7


def test_other_coordinates_are_refused(trained: Path, tmp_path: Path) -> None:
    SkeletonDataset(torch.rand(1, 3, 20, 17, 1), None, COCO17).save(tmp_path / "x.npz")
    with pytest.raises(
        ValueError, match="clips of 2 coordinates, as in training, got 3; joints in pictures"
    ):
        predict.main([str(trained), str(tmp_path / "x.npz")])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--window", "-1"], "of at least 0 frames"),
        (["--top", "0"], "--top of at least 1"),
        (["--step", "3"], "a step with a window"),
    ],
)
def test_options_are_checked(trained: Path, clips: Path, options: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        predict.main([str(trained), str(clips), *options])


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "predict.py"), str(tmp_path), "none"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and ran.stderr.startswith("error: expected a finished run")
    assert len(ran.stderr.splitlines()) == 1


def test_predicting_imports_no_trainer() -> None:
    """An answer should come at once; Lightning and matplotlib take seconds to import."""
    program = "import sys, predict; print({'lightning', 'matplotlib', 'pandas'} & {*sys.modules})"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT / "examples",
    )
    assert ran.stdout == "set()\n"


def test_the_test_side_alone_is_evaluated(
    trained: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_clips(clips, cache=False).subset(range(6))
    data.save(tmp_path / "test.npz", splits={"mine": ["test"] * 6})
    probabilities, label, names = ensemble.recognise(
        [str(trained)], data=str(tmp_path / "test.npz"), split="mine"
    )
    assert probabilities[0].shape == (6, 3) and label.tolist() == data.labels
    assert names == list(data.names)


def test_clips_without_labels_are_not_evaluated(trained: Path, clips: Path, tmp_path: Path) -> None:
    """The label -1 would be an error of the network, and the name of the last class."""
    members = dict(np.load(clips))
    members["label"][3] = -1
    np.savez(tmp_path / "x.npz", **members, split_mine=["test"] * 45)
    with pytest.raises(ValueError, match=r"clips with labels, got none for 'clip 3' in"):
        ensemble.recognise([str(trained)], data=str(tmp_path / "x.npz"), split="mine")


def test_clips_of_unknown_classes_have_no_accuracy(
    trained: Path, other_classes: Path, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = said(capsys, trained, other_classes)
    assert "(labelled L)" in out and "top-1" not in out
    assert f"note: 20 clips are of classes that {trained} does not know, such as 'L'" in err


@pytest.fixture(scope="module")
def other_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the movements, in the joints of Human3.6M and one person."""
    random = np.random.default_rng(8)
    x = torch.from_numpy(np.stack([moving(i % 2, 24, random) for i in range(20)])).float()
    converted, seen = convert_layout(x.permute(0, 3, 1, 2)[..., None], COCO17, H36M17)
    path = tmp_path_factory.mktemp("other") / "other.npz"
    SkeletonDataset(
        converted, [i % 2 for i in range(20)], H36M17, classes=["L", "R"], visibility=list(seen)
    ).save(path)
    return path


def test_resuming_needs_no_run_that_was_started_from(
    trained: Path, other_classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    shutil.copytree(trained, first)
    given = [*SMALL, "--data", str(other_classes), "--epochs", "2", "--branch", "plain"]
    with monkeypatch.context() as patched:
        patched.setattr(train, "write_reports", lambda *given: {})
        train.main([*given, "--start-from", str(first), "--out", str(tmp_path / "run")])
    shutil.rmtree(first)
    train.main(["--resume", "--out", str(tmp_path / "run"), "--quiet"])
    run = results.load_run(tmp_path / "run")
    assert (run.layout, run.persons) == (COCO17, 2)


def test_no_test_clip_of_one_split_is_trained_in_another(
    trained: Path, clips: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    shutil.copytree(trained, first)
    report = json.loads((first / "report.json").read_text())
    (first / "report.json").write_text(json.dumps({**report, "split": "xsub"}))
    given = [*SMALL, "--data", str(clips), "--split", "random", "--branch", "plain"]
    with pytest.raises(ValueError, match=r"the same split, random, got .*first with xsub"):
        train.main([*given, "--start-from", str(first), "--out", str(tmp_path / "run")])


@pytest.mark.parametrize("freeze", [False, True])
def test_start_from_a_run_of_other_classes_and_joints(
    freeze: bool,
    trained: Path,
    other_classes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [*SMALL, "--data", str(other_classes), "--epochs", "3", "--branch", "plain"]
    given += ["--start-from", str(trained), "--out", str(tmp_path / "run")]
    report = train.main([*given, *(["--freeze"] if freeze else [])])
    out = capsys.readouterr().out
    assert "note: clips of H36M17 are converted to COCO17" in out
    assert "note: a new last layer for 2 classes" in out
    assert report["top1"] >= 0.75
    run = results.load_run(tmp_path / "run")
    assert (run.layout, run.classes, run.persons) == (COCO17, ["L", "R"], 2)
    old = results.load_run(trained).objective.model.state_dict()
    new = run.objective.model.state_dict()
    same = [
        name for name in old if not name.startswith("fc.") and torch.equal(old[name], new[name])
    ]
    assert (len(same) == len(old) - 2) is freeze
    answers = load_pretrained(tmp_path / "run").recognise(other_classes)
    assert sum(answer.label == answer.truth for answer in answers) >= 15


def test_as_many_other_classes_get_a_new_last_layer(trained: Path) -> None:
    run = results.load_run(trained)
    for classes, kept in ((CLASSES, True), (CLASSES[::-1], False)):
        torch.manual_seed(0)
        module = train.Recogniser(run.recipe, run.layout, 3, run.persons, channels=run.channels)
        train.start_from(module, classes, str(trained))
        old = run.objective.model.state_dict()
        new = module.objective.model.state_dict()
        taken = {name for name in old if torch.equal(old[name], new[name])}
        assert {name for name in old if not name.startswith("fc.")} <= taken
        assert ("fc.weight" in taken) is kept


def test_no_person_is_lost_where_a_run_starts(trained: Path) -> None:
    recipe = Recipe(start_from=str(trained))
    for persons, expected in ((1, 2), (2, 2), (3, 3)):
        part = SkeletonDataset(torch.rand(2, 2, 5, 17, persons) + 1, [0, 1], COCO17)
        for side in train.converted(Split(part, part), recipe):
            assert side[0].x.shape[3] == expected
            assert torch.equal(side[1].x[..., :persons], part[1].x)


def test_a_model_carries_a_skeleton_of_ones_own(clips: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({**COCO17.to_dict(), "name": "my seventeen"}))
    np_file = dict(np.load(clips))
    del np_file["layout"]
    np.savez(tmp_path / "x.npz", **np_file)
    out = tmp_path / "run"
    given = [*SMALL, "--data", str(tmp_path / "x.npz"), "--layout", str(mine), "--epochs", "1"]
    train.main([*given, "--out", str(out)])
    saved = results.load_json(out / "model.json")
    assert (
        saved["version"]
        and saved["classes"] == CLASSES
        and saved["layout"]["name"] == "my seventeen"
    )
    run = results.load_run(out)
    assert run.layout.name == "my seventeen" and run.layout.bones == COCO17.bones
    mine.unlink()  # nothing but the model is needed
    assert len(load_pretrained(out).recognise(tmp_path / "x.npz", layout=run.layout)) == 45


def opened(path: Path, **options: Any) -> SkeletonDataset:
    return open_clips(path, cache=False, **options)


def test_arrays_without_a_skeleton_have_the_usual_one(tmp_path: Path) -> None:
    """Not COCO's, whose joints are as many in another order."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", random.random((8, 17, 2)).astype(np.float32))
    found = opened(tmp_path / "x.npy", usual=H36M17)
    assert found.layout == H36M17 and not found.layout_assumed
    torch.testing.assert_close(found[0].x, opened(tmp_path / "x.npy", layout=H36M17)[0].x)
    other = opened(tmp_path / "x.npy", usual=KINECT20)
    assert other.layout == COCO17 and other.layout_assumed
    assert not other.with_layout(H36M17).layout_assumed
    assert opened(tmp_path / "x.npy", usual=H36M17, layout="COCO17").layout == COCO17
    SkeletonDataset([torch.rand(2, 8, 17, 1)], None, COCO17).save(tmp_path / "named.npz")
    assert opened(tmp_path / "named.npz", usual=H36M17).layout == COCO17
    # 20 joints are no pose estimator's.
    np.save(tmp_path / "kinect.npy", random.random((8, 20, 3)).astype(np.float32))
    assert opened(tmp_path / "kinect.npy", usual=KINECT20)[0].x.shape == (3, 8, 20, 2)
    (answer,) = load_pretrained("nw_ucla/stf_gcn/joint").recognise(tmp_path / "kinect.npy")
    assert answer.window == (0, 7)
    # The third number is the score of BODY25 and z of NTU25.
    np.save(tmp_path / "either.npy", random.random((8, 25, 3)).astype(np.float32))
    with pytest.raises(ValueError, match="expected the layout, 'BODY25' or 'NTU25', got 25 joints"):
        opened(tmp_path / "either.npy", usual=NTU25)
    assert opened(tmp_path / "either.npy", usual=NTU25, layout="NTU25")[0].x.shape[0] == 3
    with pytest.raises(ValueError, match="which does not exist"):
        opened(tmp_path / "nothing", usual=NTU25)


def test_a_network_trained_on_converted_clips_reads_arrays_as_they_were(tmp_path: Path) -> None:
    """Training, testing and recognising see the same joints."""
    random = np.random.default_rng(0)
    for i in range(12):
        folder = tmp_path / "poses" / CLASSES[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{i}.npy", moving(i % 3, 30, random).astype(np.float32))
    given = [*SMALL, "--data", str(tmp_path / "poses"), "--epochs", "1"]
    train.main([*given, "--layout", "H36M17", "--out", str(tmp_path / "first")])
    more = ["--start-from", str(tmp_path / "first"), "--out", str(tmp_path / "run")]
    train.main([*given, "--layout", "COCO17", *more])
    trained = load_pretrained(tmp_path / "run")
    assert (trained.layout, trained.clips_layout) == (H36M17, COCO17)
    logs, _, names = results.load_log_probabilities(tmp_path / "run")
    answers = {a.clip: a for a in trained.recognise(tmp_path / "poses")}
    for log, name in zip(logs, names, strict=True):
        ranked = dict(answers[name].ranked)
        found = torch.tensor([ranked[label] for label in trained.classes])
        torch.testing.assert_close(found, log.exp(), atol=2e-3, rtol=0)
    # Clips that were opened without the network are not converted from a guess.
    guessed = open_clips(tmp_path / "poses", cache=False)
    assert trained.recognise(guessed)[0].ranked == answers[guessed.names[0]].ranked
    with pytest.raises(ValueError, match="skeleton is known, got COCO17, guessed from 17 joints"):
        load_pretrained(tmp_path / "first").recognise(guessed)


def test_poses_that_cannot_be_trained_on(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i in range(10):
        folder = tmp_path / "classes" / CLASSES[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{i}.npy", moving(i % 2, 30, random))
        np.save(tmp_path / f"{i}.npy", moving(i % 2, 30, random))
    (tmp_path / "loose").mkdir()
    for i in range(10):
        (tmp_path / f"{i}.npy").rename(tmp_path / "loose" / f"{i}.npy")
    given = [*SMALL, "--layout", "COCO17", "--out", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=r"a label for each clip, got none .* one folder for each"):
        train.main([*given, "--data", str(tmp_path / "loose")])
    ours = ["--start-from", "nw_ucla/stf_gcn/joint", "--stream", "joint", "--preparation", "box"]
    with pytest.raises(ValueError, match=r"same number of coordinates, 2, got .* with 3"):
        train.main([*given, "--data", str(tmp_path / "classes"), *ours])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"window": -5}, "window and step of at least 0"),
        ({"window": 10, "step": -3}, "window and step of at least 0"),
        ({"step": 5}, "a step with a window"),
        ({"batch": 0}, "a batch of at least 1"),
    ],
)
def test_numbers_that_recognise_refuses(options: dict[str, int], error: str) -> None:
    trained = load_pretrained("nw_ucla/stf_gcn/joint")
    clips = SkeletonDataset([torch.randn(3, 40, 20, 1)], None, KINECT20)
    with pytest.raises(ValueError, match=error):
        trained.recognise(clips, **options)


def test_recognising_follows_the_network_and_leaves_it_as_it_is() -> None:
    trained = load_pretrained("nw_ucla/stf_gcn/joint")
    clips = SkeletonDataset([torch.randn(3, 40, 20, 1)], None, KINECT20)
    (first,) = trained.recognise(clips)
    trained.objective.train()
    trained.model.norm.eval()
    (second,) = trained.recognise(clips)
    assert first.ranked == second.ranked, "dropout is off"
    assert trained.objective.training and not trained.model.norm.training
    trained.model.double()
    (third,) = trained.recognise(clips)
    assert third.probability == pytest.approx(first.probability, abs=1e-4)


README = (ROOT / "README.md").read_text()
SECTION = README.split("## Your own poses")[1].split("\n## ")[0]


COMMANDS = re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)[0].splitlines()


@pytest.fixture(scope="module")
def own_poses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with COCO-17 arrays, on which the README's first two commands ran."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(1)
    for i in range(45):
        of_class = folder / "poses" / CLASSES[i % 3]
        of_class.mkdir(parents=True, exist_ok=True)
        x = moving(i % 3, int(random.integers(20, 40)), random)
        if i % 5 == 0:  # two persons
            x = np.stack([x, moving(i % 3, len(x), random) + [300, 0]], 1)
        elif i % 5 == 1:  # a score as the third number
            x = np.concatenate([x, random.uniform(0.3, 1, (*x.shape[:2], 1))], 2)
        np.save(of_class / f"{i:03d}.npy", x.astype(np.float32))
    np.save(folder / "new.npy", moving(0, 33, random))
    long = np.concatenate([moving(label, 60, random) for label in (0, 2, 1)])
    np.save(folder / "long.npy", long)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("SKELETON_FOCUS_CACHE", str(folder / "cache"))
        python, module, name, *arguments = shlex.split(COMMANDS[0], comments=True)
        assert (python, module, name) == ("python", "-m", "skeleton_focus.datasets")
        with contextlib.redirect_stdout(io.StringIO()) as told:
            assert datasets.main([*arguments, "--no-cache"]) == 0
        assert "45 clips of 3 classes, 15 to 15 a class" in told.getvalue()
        program, *arguments = shlex.split(COMMANDS[1], comments=True)[1:]
        assert program == "examples/train.py"
        with contextlib.redirect_stdout(io.StringIO()) as told:
            train.main([*arguments, *SMALL[2:], "--epochs", "40"])  # with the preset that it takes
        assert "36 training and 9 test clips of 3 classes, COCO17" in told.getvalue()
    return folder


@pytest.fixture
def in_own_poses(own_poses: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(own_poses)
    monkeypatch.setenv("SKELETON_FOCUS_CACHE", str(own_poses / "cache"))
    return own_poses


def test_the_commands_of_the_readme(in_own_poses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a folder of COCO-17 arrays to a network, answers, pictures and the losses."""
    ran = []
    for line in COMMANDS[2:]:
        _, program, *arguments = shlex.split(line, comments=True)
        ran.append(Path(program).stem)
        if ran[-1] == "train":  # the network has three blocks here, not six
            arguments += [*SMALL[2:], "--epochs", "2", "--layers", "blocks.1", "blocks.2"]
        importlib.import_module(ran[-1]).main(arguments)
    assert ran == ["predict", "predict", "train"]
    importlib.import_module("explain").main(["runs/mine"])
    out = capsys.readouterr().out
    assert re.search(r"^new: raise left \d", out, re.MULTILINE)
    assert "long frames 0-59: raise left" in out and "long frames 120-179: raise right" in out
    assert "branch recommended with erasing from epoch 0 of 2" in out
    assert (in_own_poses / "pictures" / "new.png").exists()
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out.startswith("raise left 0.")


@needs_torch(2, 13, "examples/export.py")
def test_the_export_of_a_run(
    in_own_poses: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for extra in ("onnxruntime", "onnxscript"):
        pytest.importorskip(extra)
    importlib.import_module("export").main(["runs/mine", "mine.onnx"])
    out = capsys.readouterr().out
    ((difference, largest),) = re.findall("differ by (.*) in logits of up to (.*)", out)
    assert float(difference) < 1e-5 * float(largest)
    monkeypatch.setattr(sys, "path", [*sys.path])
    page = (ROOT / "docs" / "export.md").read_text().split("## A run of the programs")[1]
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out == "raise left\n"


def test_weights_of_the_repository(tmp_path: Path) -> None:
    x = 0.3 * torch.rand(2, 3, 20, 20, 1)
    SkeletonDataset(x, None, KINECT20).save(tmp_path / "x.npz")
    found = load_pretrained("nw_ucla/stf_gcn/joint").recognise(tmp_path / "x.npz")
    assert [answer.clip for answer in found] == ["0", "1"] and found[0].truth is None
