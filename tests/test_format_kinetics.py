"""Kinetics-Skeleton: a good file, people through the frames, and every way a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skeleton_focus import OPENPOSE18, open_dataset
from skeleton_focus.format_kinetics import open_kinetics, read_kinetics
from skeleton_focus.formats import FormatError


def person(seed: int, confidence: float = 0.9) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    return {
        "pose": rng.random(36).round(3).tolist(),
        "score": (confidence * rng.uniform(0.9, 1, 18)).round(3).tolist(),
    }


def clip(*people: list[dict[str, list[float]]], **changes: Any) -> dict[str, Any]:
    frames = [{"frame_index": t + 1, "skeleton": found} for t, found in enumerate(people)]
    return {"data": frames, "label": "abseiling", "label_index": 0, **changes}


def write(folder: Path, content: Any, name: str = "-0EjYWnzVLA") -> Path:
    path = folder / f"{name}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_good_file(tmp_path: Path) -> None:
    weak = person(1, 0.45)
    strong = person(2, 0.8)
    other = person(3, 0.5)
    read = read_kinetics(write(tmp_path, clip([weak, strong, other], [], [weak])))
    assert read.x.shape == (2, 3, 18, 2) and read.x.dtype == np.float32
    assert (read.name, read.label, read.action) == ("-0EjYWnzVLA", 0, "abseiling")
    assert read.visibility is not None and read.visibility.shape == (3, 18, 2)
    # The weak person's sum is larger than the other's.
    for t, m, who in ((0, 0, weak), (0, 1, strong), (2, 0, weak)):
        assert read.x[:, t, :, m].T.flatten().tolist() == np.float32(who["pose"]).tolist()
        assert read.visibility[t, :, m].tolist() == np.float32(who["score"]).tolist()
    assert not read.x[:, 1].any() and not read.visibility[1].any() and not read.x[:, 2, :, 1].any()
    alone = read_kinetics(write(tmp_path, clip([weak, strong, other], [], [weak])), persons=1)
    assert alone.x.shape == (2, 3, 18, 1) and np.array_equal(alone.x, read.x[..., :1])


def walker(x: float, confidence: float) -> dict[str, list[float]]:
    pose = np.stack([x + np.linspace(-0.03, 0.03, 18), np.linspace(0.2, 0.8, 18)], 1)
    return {"pose": pose.flatten().round(4).tolist(), "score": [round(confidence, 3)] * 18}


def test_people_keep_their_places_while_their_confidences_cross(tmp_path: Path) -> None:
    frames = []
    for t in range(30):
        left = walker(0.2 + 0.005 * t, 0.5 + 0.01 * t)
        right = walker(0.8 - 0.005 * t, 0.78 - 0.01 * t)
        frames.append([left, right] if t % 3 else [right, left])
    read = read_kinetics(write(tmp_path, clip(*frames)))
    x = read.x[0, :, 9]  # (T, M)
    expected = np.linspace(-0.03, 0.03, 18)[9] + 0.005 * np.arange(30)
    np.testing.assert_allclose(x[:, 0] - 0.2, expected, atol=1e-3)
    np.testing.assert_allclose(0.8 - x[:, 1], 0.005 * np.arange(30), atol=3e-3)
    assert read.visibility is not None
    assert (np.diff(read.visibility[:, 0, 0]) > 0).all()


@pytest.mark.parametrize("persons", [1, 2, 3])
def test_clips_of_few_people_keep_every_observation(tmp_path: Path, persons: int) -> None:
    rng = np.random.default_rng(persons)
    frames = []
    for t in range(40):  # people jump about and come and go
        count = int(rng.integers(0, persons + 1))
        frames.append([person(1000 * t + i, rng.uniform(0.2, 1)) for i in range(count)])
    read = read_kinetics(write(tmp_path, clip(*frames)), persons=persons)
    assert read.visibility is not None
    for t, of_frame in enumerate(frames):
        kept = [
            read.x[:, t, :, m].T.flatten().tolist()
            for m in range(persons)
            if read.visibility[t, :, m].any()
        ]
        assert sorted(kept) == sorted(np.float32(one["pose"]).tolist() for one in of_frame)


def test_the_mean_confidence_counts_and_not_the_best_joint(tmp_path: Path) -> None:
    steady = person(1, 0.5)
    spot = person(2, 0.3)
    spot["score"][7] = 1.0
    read = read_kinetics(write(tmp_path, clip([spot, steady])), persons=1)
    assert (
        read.visibility is not None
        and read.visibility[0, :, 0].tolist() == np.float32(steady["score"]).tolist()
    )


def test_a_joint_without_confidence_is_missing(tmp_path: Path) -> None:
    one = person(1)
    one["score"][4] = 0
    read = read_kinetics(write(tmp_path, clip([one])))
    assert (
        read.visibility is not None
        and not read.x[:, 0, 4].any()
        and not read.visibility[0, 4].any()
    )
    assert read.x[:, 0, 5, 0].all()


@pytest.mark.parametrize("first", [0, 1])
def test_frames_are_numbered_from_0_or_1(tmp_path: Path, first: int) -> None:
    content = clip([person(1)], [person(2)])
    for t, frame in enumerate(content["data"]):
        frame["frame_index"] = first + t
    assert read_kinetics(write(tmp_path, content)).x.shape[1] == 2


def changed(frame: int, **changes: Any) -> dict[str, Any]:
    content = clip([person(1), person(2)], [person(3)], [person(4)])
    content["data"][frame] |= changes
    return content


def with_person(**changes: Any) -> dict[str, Any]:
    return changed(1, skeleton=[person(3), {**person(5), **changes}])


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", r", line 1, column 1: expected JSON, got Expecting value"),
        ("{", r", line 1, column 2: expected JSON"),
        ("[1]", r": expected the keys data, label and label_index, got list"),
        (
            {"data": [], "label": "x"},
            r": expected the keys data, label and label_index, got \['data', 'label'\]",
        ),
        (clip(), r": expected at least one frame in data, got none"),
        (clip([], []), r": expected a person in some frame, got none in 2 frames"),
        (clip([person(1)], label_index=-1), r": expected a label_index from 0, got -1"),
        (clip([person(1)], label_index="3"), r": expected a label_index from 0, got '3'"),
        (clip([person(1)], label_index=True), r": expected a label_index from 0, got True"),
        (clip([person(1)], label_index=10**9), r": expected a label_index from 0, got 1000000000"),
        (clip([person(1)], label=3), r": expected label as text, got 3"),
        (clip([person(1)], data={"a": 1}), r": expected at least one frame in data, got none"),
        (
            changed(1, frame_index=1),
            r", frame 2: expected frame_index 2, got 1; each frame once, in order",
        ),
        (
            changed(1, frame_index=3),
            r", frame 2: expected frame_index 2, got 3; each frame once, in order",
        ),
        (changed(0, frame_index=2), r", frame 1: expected frame_index 0 or 1, got 2"),
        (changed(0, frame_index=10**9), r", frame 1: expected frame_index 0 or 1, got 1000000000"),
        (changed(0, frame_index="1"), r", frame 1: expected frame_index 0 or 1, got '1'"),
        (changed(0, frame_index=[1]), r", frame 1: expected frame_index 0 or 1, got \[1\]"),
        (changed(0, frame_index=True), r", frame 1: expected frame_index 0 or 1, got True"),
        (changed(2, skeleton=None), r", frame 3: expected a list of people in skeleton, got None"),
        (
            {**clip([person(1)]), "data": [7]},
            r", frame 1: expected the keys frame_index and skeleton, got int",
        ),
        (
            {**clip([person(1)]), "data": [{"a": 1}]},
            r", frame 1: expected the keys frame_index and skeleton, got",
        ),
        (changed(1, skeleton=[{}] * 201), r", frame 2: expected at most 200 people, got 201"),
        (changed(1, skeleton=[7]), r", frame 2, person 1: expected pose with 36 numbers, got None"),
        (
            with_person(pose=[0.5] * 35),
            r", frame 2, person 2: expected pose with 36 numbers, got a list of 35",
        ),
        (
            with_person(score=[0.5] * 17),
            r", frame 2, person 2: expected score with 18 numbers, got \[",
        ),
        (with_person(score="x"), r", frame 2, person 2: expected score with 18 numbers, got 'x'"),
        (
            with_person(pose=["0.5"] * 36),
            r", frame 2, person 2: expected pose with 36 numbers, got a list of 36",
        ),
        (with_person(pose=[True] * 36), r", frame 2, person 2: expected pose with 36 numbers"),
        (
            with_person(pose=[0.5] * 35 + [[0.5]]),
            r", frame 2, person 2: expected pose with 36 numbers",
        ),
        (
            with_person(pose=[float("nan")] + [0.5] * 35),
            r", frame 2, person 2: expected pose of finite numbers in \[-1, 2\], got nan at 0$",
        ),
        (
            with_person(pose=[10**400] + [0.5] * 35),
            r", frame 2, person 2: expected pose of finite numbers in \[-1, 2\], got an integer of",
        ),
        (
            with_person(pose=[1e60] + [0.5] * 35),
            r", frame 2, person 2: expected pose of finite numbers in \[-1, 2\], got 1e\+60 at 0",
        ),
        (
            with_person(pose=[0.5] * 3 + [320.5] + [0.5] * 32),
            r", frame 2, person 2: expected pose of finite numbers in \[-1, 2\], got 320.5 at 3; "
            r"these look like pixels: divide x by the picture's width, y by its height$",
        ),
        (
            with_person(score=[float("inf")] + [0.5] * 17),
            r", frame 2, person 2: expected score of finite numbers, got inf at 0$",
        ),
        (
            clip([{"pose": [0.5] * 36, "score": [0.0] * 18}], []),
            r": expected a joint with a score above 0, got only scores of 0 in 2 frames; "
            r"joints with a score of 0 count as not seen$",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, content: Any, error: str) -> None:
    with pytest.raises(FormatError, match=rf"-0EjYWnzVLA\.json{error}") as caught:
        read_kinetics(write(tmp_path, content))
    assert len(str(caught.value)) < len(str(tmp_path)) + 250


def test_scores_are_clamped(tmp_path: Path) -> None:
    scores = [1.0004, 1.5, -0.1] + [0.5] * 15
    read = read_kinetics(write(tmp_path, clip([{"pose": [0.5] * 36, "score": scores}])))
    assert read.visibility is not None
    assert read.visibility[0, :4, 0].tolist() == [1, 1, 0, 0.5]
    assert read.x[0, 0, :4, 0].tolist() == [0.5, 0.5, 0, 0.5]


def test_an_option_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^read_kinetics: expected persons of at least 1, got 0"):
        read_kinetics(write(tmp_path, clip([person(1)])), persons=0)


def test_the_folder(tmp_path: Path) -> None:
    for side, names in (("kinetics_train", ("a", "b")), ("kinetics_val", ("c",))):
        (tmp_path / side).mkdir()
        for i, name in enumerate(names):
            write(
                tmp_path / side, clip([person(i)], label=f"action {2 * i}", label_index=2 * i), name
            )
    (tmp_path / "kinetics_val_label.json").write_text("{}")
    source = open_kinetics(tmp_path)
    assert source is not None and source.format == "Kinetics-Skeleton" and source.num_clips == 3
    for _ in range(2):
        split = open_dataset(tmp_path)
        assert split.train.names == ("a", "b") and split.test.names == ("c",)
        assert split.train.labels == [0, 2] and split.train.classes == ("action 0", "1", "action 2")
        assert split.train.layout is OPENPOSE18 and split.train[0].x.shape == (2, 1, 18, 2)
        # A confidence survives the cache.
        assert np.allclose(split.train[0].visibility[0, :, 0], person(0)["score"])
    write(tmp_path / "kinetics_val", clip([person(9)], label="action 0", label_index=7), "d")
    with pytest.raises(
        FormatError, match=r"expected a unique name for each class, got 'action 0' for several"
    ):
        open_dataset(tmp_path)
    write(tmp_path / "kinetics_val", clip([person(9)], label="another", label_index=0), "d")
    with pytest.raises(
        FormatError,
        match=r"expected one name for class 0, got 'action 0' and, in clip 'd', 'another'",
    ):
        open_dataset(tmp_path)
    write(tmp_path / "kinetics_val", clip([person(9)], label="x" * 10_000, label_index=0), "d")
    with pytest.raises(FormatError, match="expected one name for class 0") as caught:
        open_dataset(tmp_path)
    assert str(tmp_path) in str(caught.value) and len(str(caught.value)) < len(str(tmp_path)) + 250


def test_persons_reach_the_reader(tmp_path: Path) -> None:
    for side in ("train", "val"):
        (tmp_path / side).mkdir()
        write(tmp_path / side, clip([person(1), person(2), person(3)]), side)
    assert open_dataset(tmp_path, persons=3).train[0].x.shape == (2, 1, 18, 3)
    assert open_dataset(tmp_path).train[0].x.shape == (2, 1, 18, 2)
    with pytest.raises(ValueError, match="options for Kinetics-Skeleton, got missing"):
        open_dataset(tmp_path, missing="fill")
