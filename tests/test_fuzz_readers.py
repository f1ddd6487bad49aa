"""Test damaged files of all formats: refused by one clear error, or read as they say.

hypothesis draws the mutants.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_readers import read_ntu, read_nw_ucla

from skeleton_focus.datasets import recognize
from skeleton_focus.format_ntu import _tracks
from skeleton_focus.formats import FormatError

RNG = np.random.default_rng(0)
NTU = "S001C002P003R002A051.skeleton"
NW_UCLA = "a05_s99_e98_v02.json"


def ntu() -> bytes:
    lines = ["3"]
    for bodies in ((7, 9), (), (7,)):
        lines.append(str(len(bodies)))
        for body in bodies:
            lines += [f"{body} 0 1 1 1 1 0 -0.1159187 0.14 2", "25"]
            lines += [" ".join([*map(str, RNG.normal(size=11).round(5)), "2"]) for _ in range(25)]
    return "\n".join(lines).encode() + b"\n"


def nw_ucla() -> bytes:
    points = RNG.normal(size=(2, 20, 3)).round(6).tolist()
    return json.dumps({"file_name": Path(NW_UCLA).stem, "skeletons": points, "label": 5}).encode()


def kinetics() -> bytes:
    person = {"pose": RNG.random(36).round(3).tolist(), "score": RNG.random(18).round(3).tolist()}
    frames = [{"frame_index": t + 1, "skeleton": [person] * n} for t, n in enumerate((1, 0, 3))]
    return json.dumps({"data": frames, "label": "abseiling", "label_index": 0}).encode()


def pyskl(protocol: int) -> bytes:
    keypoint = RNG.uniform(1, 900, (2, 3, 17, 2)).astype(np.float16)
    clips = [
        {
            "frame_dir": np.str_(name),
            "label": np.int64(3),
            "keypoint": keypoint + i,
            "keypoint_score": keypoint[..., 0] / 999,
        }
        for i, name in enumerate("ab")
    ]
    return pickle.dumps({"split": {"train": ["a"], "val": ["b"]}, "annotations": clips}, protocol)


def ctr_gcn(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for side in ("train", "test"):
            for name, array in (
                ("x", RNG.normal(size=(2, 3, 60)).astype("f4")),
                ("y", np.eye(4)[:2]),
            ):
                archive.writestr(zipfile.ZipInfo(f"{name}_{side}.npy"), npy(array), method)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def poses(joints: int) -> Any:
    """Two people in two of three frames: x, y, score (3, 2, V, 3)."""
    points = RNG.uniform(10, 900, (3, 2, joints, 3)).round(3)
    points[..., 2] /= 1000
    points[1] = 0
    return points


def openpose() -> bytes:
    people = [{"person_id": [-1], "pose_keypoints_2d": p.flatten().tolist()} for p in poses(25)[0]]
    return json.dumps({"version": 1.3, "people": people}).encode()


def alphapose() -> bytes:
    people = [
        {"image_id": f"{t}.jpg", "keypoints": p.flatten().tolist(), "score": 2.5, "idx": m}
        for t, frame in enumerate(poses(26))
        for m, p in enumerate(frame)
        if t != 1
    ]
    return json.dumps(people).encode()


def mmpose() -> bytes:
    frames = []
    for t, frame in enumerate(poses(17)):
        people = [
            {"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist()} for p in frame
        ]
        frames.append({"frame_id": t + 1, "instances": people if t != 1 else []})
    return json.dumps({"meta_info": {}, "instance_info": frames}).encode()


def mediapipe() -> bytes:
    points = RNG.random((2, 33, 4)).round(4).tolist()
    frames = [[dict(zip(("x", "y", "z", "visibility"), p, strict=True)) for p in f] for f in points]
    return json.dumps([frames[0], None, {"pose_landmarks": frames[1]}]).encode()


def mediapipe_table(long: bool) -> bytes:
    points = RNG.random((2, 33, 4)).round(4).tolist()
    if long:
        lines = ["frame,landmark,x,y,z,visibility"]
        for t, frame in enumerate(points):
            lines += [",".join(map(str, (2 * t, v, *point))) for v, point in enumerate(frame)]
    else:
        lines = [",".join(f"{c}{v}" for v in range(33) for c in "xyzv")]
        lines += [",".join(str(n) for point in frame for n in point) for frame in points]
    return "\n".join(lines).encode() + b"\n"


def archive() -> bytes:
    file = io.BytesIO()
    points = poses(17)
    np.savez_compressed(file, keypoints=points[..., :2], scores=points[..., 2])
    return file.getvalue()


# Of each kind: the file that is changed, its content, and the files beside it.
X = npy(RNG.normal(size=(2, 3, 4, 18, 2)).astype("f4"))
LABELS = pickle.dumps((["a", "b"], np.arange(2)), 2)
FILES: dict[str, tuple[str, bytes, dict[str, bytes]]] = {
    "NTU": (NTU, ntu(), {}),
    "NW-UCLA": (NW_UCLA, nw_ucla(), {}),
    "Kinetics": ("kinetics_train/x.json", kinetics(), {}),
    "pyskl, protocol 2": ("x.pkl", pyskl(2), {}),
    "pyskl, protocol 5": ("x.pkl", pyskl(5), {}),
    "CTR-GCN, stored": ("x.npz", ctr_gcn(zipfile.ZIP_STORED), {}),
    "CTR-GCN, deflated": ("x.npz", ctr_gcn(zipfile.ZIP_DEFLATED), {}),
    "ST-GCN": ("train_data.npy", X, {"train_label.pkl": LABELS}),
    "ST-GCN, labels": ("train_label.pkl", LABELS, {"train_data.npy": X}),
    "OpenPose": ("a/v_1_keypoints.json", openpose(), {"a/v_2_keypoints.json": openpose()}),
    "AlphaPose": ("a.json", alphapose(), {}),
    "MMPose": ("a.json", mmpose(), {"b.json": mmpose()}),
    "MediaPipe, JSON": ("a.json", mediapipe(), {}),
    "MediaPipe, a row a frame": ("a.csv", mediapipe_table(False), {}),
    "MediaPipe, a row a landmark": ("a.csv", mediapipe_table(True), {}),
    "pose array": ("a.npy", npy(poses(18)), {}),
    "pose archive": ("a.npz", archive(), {}),
}
PIECES = [
    *(
        b"",
        b"0",
        b"-1",
        b"1e39",
        b"nan",
        b"9" * 30,
        b"1_0",
        b"1.5.5",
        b" ",
        b"\n",
        b"\r\n",
        b"[",
        b"]",
        b"null",
        b'"x"',
    ),
    *(
        b"\xff",
        b"\0" * 4,
        b"\xff" * 4,
        b"\x80\x05",
        b".",
        b"R",
        b"b",
        b"}",
        b"cos\nsystem\n",
        b"\x8a\x08" + b"\x7f" * 8,
    ),
]
NUMBER = re.compile(rb"-?\d+(\.\d+)?(e[-+]?\d+)?")


@st.composite
def mutants(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw one to four changes: bytes replaced, removed, doubled, cut off, or another number."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        end = at + draw(st.integers(0, 40))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        number = NUMBER.search(content, at)
        kind = draw(
            st.sampled_from(["replace", "overwrite", "remove", "double", "cut", "number", "number"])
        )
        if kind == "number" and number:
            content = content[: number.start()] + piece + content[number.end() :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "double":
            content = content[:end] + content[at:]
        else:
            content = (
                content[:at]
                + piece * (kind != "remove")
                + content[at + len(piece) if kind == "overwrite" else end :]
            )
    return content


def read(folder: Path, name: str, content: bytes, beside: dict[str, bytes]) -> list[Any]:
    """What a file gives: clips, and errors, all of them checked."""
    for other, more in {**beside, name: content}.items():
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(more)
    path = folder / name if name.endswith((".npz", "x.pkl")) else folder
    answers: list[Any] = []
    try:
        source = recognize(path)
        if source.mapped is None:
            answers += source.read()
        for i in range(len(source.mapped.x) if source.mapped else 0):
            try:
                answers.append((source.mapped.x[i].numpy(), source.mapped.visibility[i].numpy()))
            except FormatError as error:
                answers.append(error)
    except ValueError as error:  # FormatError, or no data set any more
        answers.append(error)
    for answer in answers:
        if isinstance(answer, ValueError):
            text = str(answer).replace(str(folder), "", 1)
            assert text != str(answer) and ": expected " in text and ", got " in text
            assert len(text) < 600 and text.isprintable()
            continue
        x, seen = answer if type(answer) is tuple else (answer.x, answer.visibility)
        seen = np.ones(x.shape[1:], np.float32) if seen is None else seen
        assert (
            x.dtype == seen.dtype == np.float32
            and x.ndim == 4
            and x.shape[1] > 0
            and np.isfinite(x).all()
        )
        assert (
            seen.shape == x.shape[1:]
            and ((seen >= 0) & (seen <= 1)).all()
            and not x[:, seen == 0].any()
        )
    return answers


@pytest.mark.parametrize("kind", FILES)
def test_a_good_file_gives_clips(tmp_path: Path, kind: str) -> None:
    answers = read(tmp_path, *FILES[kind])
    assert answers and not any(isinstance(answer, ValueError) for answer in answers)


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / kind
    name, content, beside = FILES[kind]
    answers = read(folder, name, data.draw(mutants(content)), beside)
    if kind in ("NTU", "NW-UCLA"):
        compare(folder / name, answers)


def test_damaged_real_files(tmp_path: Path, ntu_files: list[Path], shared_data: Path) -> None:
    """The first frames of the real NTU files, and the shortest clips of NW-UCLA."""

    @settings(max_examples=60)
    @given(data=st.data())
    def damage(name: str, content: bytes, data: st.DataObject) -> None:
        folder = tmp_path / name
        compare(folder / name, read(folder, name, data.draw(mutants(content)), {}))

    for path in ntu_files:
        frames = path.read_bytes().split(b"\n")[1 : 1 + 28 * 4]  # four frames of one body
        damage(path.name, b"\n".join([b"4", *frames]) + b"\n")
    files = (shared_data / "all_sqe").glob("*.json")
    for path in sorted(files, key=lambda path: path.stat().st_size)[10:12]:
        damage(path.name, path.read_bytes())


def compare(path: Path, answers: list[Any]) -> None:
    """A file is accepted if a plain reader accepts it, with the same numbers."""
    (answer,) = answers
    try:
        with np.errstate(over="ignore"):
            truth = (read_ntu if path.suffix == ".skeleton" else read_nw_ucla)(path)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        assert isinstance(answer, ValueError)
        return
    assert not isinstance(answer, ValueError), answer
    if isinstance(truth, np.ndarray):
        assert np.array_equal(answer.x[..., 0].transpose(1, 2, 0), truth)
        return
    frames, bodies = truth
    found, tracks = _tracks(path, path.read_bytes())
    assert found == frames == answer.x.shape[1] and [*tracks] == [*bodies]
    for body, track in tracks.items():
        rows = np.array([rows for _, rows in bodies[body]])  # (t, V, 12)
        assert track.frames.tolist() == [t for t, _ in bodies[body]]
        assert np.array_equal(track.poses, rows[..., :3].astype(np.float32))
        assert np.array_equal(track.seen, rows[..., 11] > 0)
