"""What a file says, in other words than the package's: json, numpy and pickle themselves, and loops.

Each raises for a file that is not what its format says. A clip is x (C, T, V, M) and its label.
"""

from __future__ import annotations

import codecs
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import plain_readers
from fuzz_seeds import CTR_GCN, PYSKL
from numpy.typing import NDArray

from skeleton_focus.format_ntu import _tracks
from skeleton_focus.format_nw_ucla import NW_UCLA_ACTIONS

Said = tuple[NDArray[np.float32], int]


class Refused(Exception):
    """A file that is not what its format says."""


def fits(condition: bool) -> None:
    """Refuse unless ``condition`` holds."""
    if not condition:
        raise Refused


# ---------------------------------------------------------------------------------------------------------------- NTU


def ntu_difference(path: Path, clip: Any) -> str:
    """How the numbers of an NTU file differ from those of a plain reader, before and after bodies are chosen.

    The tracks, which come before any is joined or dropped, must be the plain reader's to the last number. Of the clip,
    every body in a frame must be one that the plain reader found there, or where none is seen, zeros.
    """
    with np.errstate(over="ignore"):
        frames, bodies = plain_readers.read_ntu(path)
    found, tracks = _tracks(path, path.read_bytes())
    if found != frames or len(tracks) != len(bodies) or clip.x.shape[1] != frames:
        return f"{found} frames and {len(tracks)} tracks, plainly {frames} and {len(bodies)}"
    there: dict[int, list[NDArray[np.float32]]] = {}
    for track, (body, seen) in zip(tracks.values(), bodies.items(), strict=True):
        with np.errstate(over="ignore"):
            rows = np.array([row for _, row in seen]).astype(np.float32)  # (t, V, 12)
        if track.frames.tolist() != [t for t, _ in seen] or not np.array_equal(track.poses, rows[..., :3]):
            return f"other frames or positions of body {body!r}"
        if not np.array_equal(track.seen, rows[..., 11] > 0):
            return f"other states of body {body!r}"
        for (t, _), row in zip(seen, rows, strict=True):
            there.setdefault(t, []).append(np.where(row[:, 11:] > 0, row[:, :3], 0))
    for t in range(frames):
        for m in range(clip.x.shape[3]):
            pose = clip.x[:, t, :, m].T
            if pose.any() and not any(np.array_equal(pose, told) for told in there.get(t, ())):
                return f"a body in frame {t} that the file does not hold"
    return ""


# --------------------------------------------------------------------------------------------------------------- JSON


def _numbers(values: Any, count: int) -> list[np.float32]:
    fits(type(values) is list and len(values) == count)
    fits(all(type(value) in (int, float) for value in values))
    try:
        with np.errstate(over="ignore"):
            numbers = [np.float32(float(value)) for value in values]
    except OverflowError:
        raise Refused from None
    fits(all(np.isfinite(number) for number in numbers))
    return numbers


def _content(text: bytes, *keys: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused from None
    fits(type(content) is dict and all(key in content for key in keys))
    return dict(content)


def nw_ucla(path: Path) -> Said:
    """T x 20 x 3 finite numbers, and the label of the file's name."""
    content = _content(path.read_bytes(), "file_name", "skeletons", "label")
    label = list(NW_UCLA_ACTIONS).index(path.stem[:3])
    fits(type(content["label"]) is int and content["label"] == label + 1)
    frames = content["skeletons"]
    fits(type(frames) is list and len(frames) > 0)
    fits(all(type(frame) is list and len(frame) == 20 for frame in frames))
    poses = np.array([[_numbers(joint, 3) for joint in frame] for frame in frames], np.float32)
    fits(bool(poses.any()) and content["file_name"] == path.stem)
    return poses.transpose(2, 0, 1)[..., None], label


def kinetics(path: Path) -> Said:
    """Of each frame the two people with the highest mean confidence; joints without any are zeros."""
    content = _content(path.read_bytes(), "data", "label", "label_index")
    label, frames = content["label_index"], content["data"]
    fits(type(label) is int and 0 <= label < 100_000 and type(content["label"]) is str)
    fits(type(frames) is list and len(frames) > 0)
    x = np.zeros((2, len(frames), 18, 2), np.float32)
    anybody = False
    for t, frame in enumerate(frames):
        fits(type(frame) is dict and {"frame_index", "skeleton"} <= {*frame})
        fits(type(frame["frame_index"]) is int and type(frame["skeleton"]) is list)
        fits(frame["frame_index"] == frames[0]["frame_index"] + t and frames[0]["frame_index"] in (0, 1))
        people = []
        for person in frame["skeleton"]:
            fits(type(person) is dict)
            pose, score = _numbers(person.get("pose"), 36), _numbers(person.get("score"), 18)
            fits(all(0 <= value <= 1 for value in score) and all(-1 <= value <= 2 for value in pose))
            people.append((float(np.mean(score)), pose, score))
        people.sort(key=lambda person: -person[0])
        for m, (_, pose, score) in enumerate(people[:2]):
            for v in range(18):
                if score[v] > 0:
                    x[:, t, v, m], anybody = pose[2 * v : 2 * v + 2], True
    fits(anybody)
    return x, label


# ------------------------------------------------------------------------------------------------------------- arrays


def _until_the_last(x: NDArray[Any]) -> NDArray[Any]:
    """A clip (C, T, V, M) up to its last frame that is not all zeros."""
    last = max(t for t in range(x.shape[1]) if x[:, t].any())
    return x[:, : last + 1]


def _ctr_gcn(path: Path) -> Mapping[str, Said]:
    clips = {}
    with np.load(path) as arrays:
        for side in ("train", "test"):
            x, y = arrays[f"x_{side}"], arrays[f"y_{side}"]
            persons, joints = {150: (2, 25), 75: (1, 25), 120: (2, 20), 60: (1, 20)}[x.shape[2]]
            for i in range(len(x)):
                poses = x[i].astype(np.float32).reshape(-1, persons, joints, 3).transpose(3, 0, 2, 1)
                if np.isfinite(poses).all() and poses.any():
                    clips[f"{side}_{i:06d}"] = _until_the_last(poses), int(y[i].argmax())
    return clips


def _st_gcn(folder: Path) -> Mapping[str, Said]:
    clips = {}
    for side in ("train", "val"):
        x = np.load(folder / f"{side}_data_joint.npy")
        names, labels = _unpickled(folder / f"{side}_label.pkl")
        labels = labels.numpy if isinstance(labels, _Array) else labels
        for i, name in enumerate(names):
            poses = x[i].astype(np.float32)
            if np.isfinite(poses).all() and poses.any():
                poses = _until_the_last(poses)
                if poses.shape[0] == 3 and poses.shape[2] == 18:  # Kinetics: x, y and the confidence
                    poses = np.where(poses[2] > 0, poses[:2], 0)
                clips[name] = poses, int(labels[i])
    return clips


def _pyskl(path: Path) -> Mapping[str, Said]:
    clips = {}
    for clip in _unpickled(path)["annotations"]:
        try:
            points, score = clip["keypoint"].numpy.astype(np.float32), clip.get("keypoint_score")  # (M, T, V, C)
            seen = points.any((2, 3))[..., None] if score is None else score.numpy.astype(np.float32) > 0
            if len(points) <= 2:  # of more, which ones are kept is for the tests to say
                x = np.zeros((points.shape[3], *points.shape[1:3], 2), np.float32)
                x[..., : len(points)] = np.where(seen[..., None], points, 0).transpose(3, 1, 2, 0)
                clips[str(clip["frame_dir"])] = x, int(clip["label"])
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            continue  # a clip that the reader has told of as damaged
    return clips


class _Dtype:
    """Of a dtype's state the byte order alone: numpy itself breaks over some of the rest."""

    def __init__(self, code: str, *_: object) -> None:
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array:
    """An array of the bytes of a pickle."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.numpy = np.ndarray(shape, dtype.numpy, raw, order="F" if fortran else "C")


def _from_buffer(raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str, axes: Any = None) -> _Array:
    array = _Array()
    array.numpy = np.frombuffer(raw, dtype.numpy).reshape(shape, order="C" if axes is not None else order)
    array.numpy = array.numpy if axes is None else array.numpy.transpose(axes)
    return array


class _Unpickler(pickle.Unpickler):
    """Python's own, where all that a pickle names is one of these."""

    def find_class(self, module: str, name: str) -> Any:
        return {
            "numpy.dtype": _Dtype, "numpy.ndarray": _Array, "_codecs.encode": codecs.encode,
            f"{module}._reconstruct": lambda *_: _Array(), f"{module}._frombuffer": _from_buffer,
            f"{module}.scalar": lambda dtype, raw: np.frombuffer(raw, dtype.numpy)[0],
        }[f"{module}.{name}"]  # fmt: skip


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        return _Unpickler(file).load()


def arrays(kind: str, path: Path) -> Mapping[str, Said]:
    """The clips of files that the package's readers accepted, as numpy and pickle read them; none if those cannot."""
    read = {PYSKL: _pyskl, CTR_GCN: _ctr_gcn}.get(kind, _st_gcn)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return read(path)
    except Exception:  # numpy and pickle are less patient with spellings that mean the same
        return {}
