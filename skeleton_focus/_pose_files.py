"""Read what pose estimators write, one clip a file: the people of each frame, without an order.

OpenPose, AlphaPose, MMPose, MediaPipe and plain arrays. Nothing is tracked or scaled here.
"""

from __future__ import annotations

import csv
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ._bodies import MOST_PEOPLE
from ._checks import message
from ._npy import HEAD, Npy, member_header, read_header, take, zip_errors
from .formats import (
    PICTURE_LAYOUTS,
    FormatError,
    beginning,
    clamp_scores,
    files_in,
    open_plain_file,
    parse_json,
    read_bytes,
    short,
)
from .layouts import LAYOUTS, SkeletonLayout

OPENPOSE = "OpenPose JSON"
ALPHAPOSE = "AlphaPose JSON"
MMPOSE = "MMPose JSON"
MEDIAPIPE = "MediaPipe landmarks"
ARRAYS = "pose arrays"
SUFFIXES = (".json", ".csv", ".npy", ".npz")
FRAME = "_keypoints.json"  # the end of the names of OpenPose's files, one a frame
PICTURE = "shares of the picture or pixels"
METRES = "metres"
UNKNOWN = "an unknown unit"

MOST_FRAMES = 100_000
"""An hour at 27 frames per second. Frame numbers beyond it would fill the memory with gaps."""

_MOST_POSITION = 1e6
_MOST_NUMBERS = 1 << 26  # of an array: zeros deflate to a thousandth and would fill the memory
# The skeletons that each format writes, by the number of joints. Whole-body skeletons, with hands
# and face behind the body's joints, are cut.
_LAYOUTS: Mapping[str, Mapping[int, str]] = {
    OPENPOSE: {25: "BODY25", 18: "OPENPOSE18"},
    ALPHAPOSE: {17: "COCO17", 26: "HALPE26", 136: "HALPE26"},
    MMPOSE: {17: "COCO17", 26: "HALPE26", 133: "COCO17"},
    MEDIAPIPE: {33: "MEDIAPIPE33"},
    ARRAYS: {
        17: "COCO17",
        18: "OPENPOSE18",
        25: "BODY25",
        26: "HALPE26",
        33: "MEDIAPIPE33",
        133: "COCO17",
        136: "HALPE26",
    },
}
_LANDMARKS = 33
_HIPS = slice(23, 25)
_NUMBERS = {int, float}  # excludes bool, a subclass of int


@dataclass
class Detections:
    """The people of each frame of a clip, as the estimator lists them.

    Attributes:
        kind: the format's name.
        stated: the layout that the user states, or None.
        layout: the skeleton, known from the first person on.
        people: for each frame, (pose (V, C), scores (V,), id or -1) of each person.
        unit: ``PICTURE``, ``METRES`` or ``UNKNOWN``.
        places: the number of leading channels that only say where in the picture a person is.
    """

    kind: str
    stated: SkeletonLayout | None
    layout: SkeletonLayout | None = None
    people: list[list[tuple[NDArray[np.float32], NDArray[np.float32], int]]] = field(
        default_factory=list
    )
    unit: str = PICTURE
    places: int = 0
    joints: int = 0

    def expect(self, where: str, joints: int, place: str = "") -> None:
        """Check a person's number of joints, which decides the layout if none is stated.

        ``place`` follows the number in the error.
        """
        if self.layout is not None:
            if joints != self.joints:
                raise FormatError(message(where, f"{self.joints} joints", f"{joints}{place}"))
            return
        known = _LAYOUTS[self.kind]
        named = LAYOUTS[known[joints]] if joints in known else None
        layout = self.stated or named
        if layout is None or (layout.num_joints != joints and layout != named):
            expected = f"{', '.join(map(str, known))} joints"
            hint = "for others, pass layout (--layout)"
            if self.stated is not None:
                expected = f"{self.stated.num_joints} joints of {self.stated.name}"
                hint = ""
            raise FormatError(message(where, expected, f"{joints}{place}", hint))
        self.layout = layout
        self.joints = joints

    def add(self, where: str, pose: NDArray[Any], scores: NDArray[Any], track: int = -1) -> None:
        """Add a person (V, C) to the last frame; check the numbers."""
        if self.layout is None or len(pose) != self.joints:
            self.expect(where, len(pose))
        for what, array in (("positions", pose), ("scores", scores)):
            most = _MOST_POSITION if what == "positions" else np.finfo(np.float32).max
            good = np.asarray(np.abs(array) <= most)  # False for NaN
            if not good.all():
                value = float(array[tuple(np.argwhere(~good)[0])])
                expected = f"finite {what}" + (f" up to {most:.0f}" if most < 1e30 else "")
                raise FormatError(message(where, expected, f"{value:.6g}"))
        if len(self.people[-1]) == MOST_PEOPLE:
            raise FormatError(message(where, f"at most {MOST_PEOPLE} people in a frame", "more"))
        kept = self.layout.num_joints if self.layout else len(pose)
        clamped = clamp_scores(scores[:kept].astype(np.float32))
        self.people[-1].append((pose[:kept].astype(np.float32), clamped, track))


def kind_of(path: Path, layout: SkeletonLayout | None = None) -> str:
    """Detect the format of a clip from a file's first bytes, or from the files of a folder.

    The result is empty for other formats.
    """
    if path.is_dir():
        frames = files_in(path, FRAME)
        return OPENPOSE if any(b'"people"' in beginning(file) for file in frames[:3]) else ""
    if path.suffix == ".npy":
        return ARRAYS if _is_array(beginning(path, HEAD), layout) else ""
    if path.suffix == ".npz":
        return ARRAYS if is_pose_archive(path, layout) else ""
    # The keys may stand behind a description of the data set or a person's positions.
    return _kind_of_text(path, beginning(path)) or _kind_of_text(path, beginning(path, 1 << 16))


def _kind_of_text(path: Path, text: bytes) -> str:
    """Detect the format of a JSON or CSV file from its beginning."""
    if path.suffix == ".csv":
        try:
            names = _header(next(csv.reader([text.split(b"\n")[0].decode("utf-8-sig")]), []))
        except (UnicodeDecodeError, csv.Error):
            return ""
        return MEDIAPIPE if _columns(names) else ""
    if path.suffix != ".json" or text.lstrip()[:1] not in (b"[", b"{"):
        return ""
    keys = {key for key in _KEYS if b'"%s"' % key in text}
    if keys & {b"instance_info", b"keypoint_scores"}:
        return MMPOSE
    if {b"image_id", b"keypoints"} <= keys:
        return ALPHAPOSE
    if keys & _MEDIAPIPE_KEYS or {b"x", b"y", b"visibility"} <= keys:
        return MEDIAPIPE
    return ""


_MEDIAPIPE_NAMES = {"pose_landmarks", "world_landmarks", "pose_world_landmarks"}
_MEDIAPIPE_KEYS = {name.encode() for name in _MEDIAPIPE_NAMES}
_KEYS = (
    *(b"instance_info", b"keypoint_scores", b"image_id", b"keypoints"),
    *(b"x", b"y", b"visibility"),
    *_MEDIAPIPE_KEYS,
)


def read_people(path: Path, kind: str, layout: SkeletonLayout | None) -> Detections:
    """Read the people of a clip of a known format.

    Raises:
        FormatError: it names the file, the frame and the person.
    """
    read: Mapping[str, Callable[[Path, Detections], None]] = {
        OPENPOSE: _read_openpose,
        ALPHAPOSE: _read_alphapose,
        MMPOSE: _read_mmpose,
        MEDIAPIPE: _read_mediapipe,
        ARRAYS: _read_array,
    }
    if kind not in read:
        raise FormatError(message(str(path), "poses of a known format", "another file"))
    found = Detections(kind, layout)
    read[kind](path, found)
    frames = len(found.people)
    if not any(found.people):
        raise FormatError(message(str(path), "a person in some frame", f"none in {frames} frames"))
    return found


# ------------------------------------------------------------------------------------ OpenPose


def _read_openpose(path: Path, found: Detections) -> None:
    files = files_in(path, FRAME)
    numbered = _by_number(path, [(file.name.removesuffix(FRAME), file) for file in files])
    for file in numbered:
        found.people.append([])
        if file is None:
            continue
        content = parse_json(file, read_bytes(file))
        people = content.get("people") if isinstance(content, dict) else None
        if not isinstance(people, list):
            raise FormatError(message(str(file), "a list people", short(people)))
        for i, person in enumerate(people):
            where = f"{file}, person {i + 1}"
            if not isinstance(person, dict):
                raise FormatError(message(where, "a dict", short(person)))
            key = "pose_keypoints_2d"
            if key not in person:
                key = "pose_keypoints"  # before version 1.2
            if person.get(key) == []:  # hands or a face alone
                continue
            points = _triples(where, key, person.get(key))
            found.add(where, points[:, :2], points[:, 2], _id(person.get("person_id")))


# ----------------------------------------------------------------------------------- AlphaPose


def _read_alphapose(path: Path, found: Detections) -> None:
    content = parse_json(path, read_bytes(path))
    if not isinstance(content, list):
        raise FormatError(message(str(path), "a list of people", type(content).__name__))
    frames: dict[str, list[tuple[int, Any]]] = {}
    for i, person in enumerate(content):
        if not isinstance(person, dict) or not {"image_id", "keypoints"} <= set(person):
            got = short(sorted(person)) if isinstance(person, dict) else short(person)
            where = f"{path}, entry {i + 1}"
            raise FormatError(message(where, "the keys image_id and keypoints", got))
        name = person["image_id"]
        if type(name) not in (str, int):
            where = f"{path}, entry {i + 1}"
            raise FormatError(message(where, "image_id as text or a number", short(name)))
        frames.setdefault(Path(str(name)).stem, []).append((i, person))
    for people in _by_number(path, list(frames.items())):
        found.people.append([])
        for i, person in people or []:
            where = f"{path}, image_id {short(person['image_id'])}, entry {i + 1}"
            points = _triples(where, "keypoints", person["keypoints"])
            found.add(where, points[:, :2], points[:, 2], _id(person.get("idx")))


# -------------------------------------------------------------------------------------- MMPose


def _read_mmpose(path: Path, found: Detections) -> None:
    content = parse_json(path, read_bytes(path))
    frames = content.get("instance_info") if isinstance(content, dict) else content
    if not isinstance(frames, list):
        raise FormatError(message(str(path), "instance_info or a list of frames", short(frames)))
    if frames and all(isinstance(frame, dict) and "keypoints" in frame for frame in frames):
        frames = [frames]  # the people of one picture
    for t, frame in enumerate(frames):
        people = frame.get("instances") if isinstance(frame, dict) else frame
        if not isinstance(people, list):
            where = f"{path}, frame {t + 1}"
            raise FormatError(message(where, "a list of instances", short(people)))
        _check_frames(path, t + 1)
        found.people.append([])
        for i, person in enumerate(people):
            where = f"{path}, frame {t + 1}, person {i + 1}"
            if not isinstance(person, dict) or not {"keypoints", "keypoint_scores"} <= set(person):
                got = short(sorted(person)) if isinstance(person, dict) else short(person)
                raise FormatError(message(where, "the keys keypoints and keypoint_scores", got))
            points = _points(where, "keypoints", person["keypoints"], 2)
            scores = _numbers(where, "keypoint_scores", person["keypoint_scores"], len(points))
            track = person.get("track_id", person.get("instance_id"))
            found.add(where, points, scores, _id(track))


# ----------------------------------------------------------------------------------- MediaPipe


def _read_mediapipe(path: Path, found: Detections) -> None:
    if path.suffix == ".csv":
        _read_landmark_table(path, found)
        return
    content = parse_json(path, read_bytes(path))
    if isinstance(content, dict):
        content = _frames_of_keys(path, content)
    if not isinstance(content, list):
        raise FormatError(message(str(path), "a list of frames", short(content)))
    kinds: tuple[bool, bool] | None = None
    for t, frame in enumerate(content):
        where = f"{path}, frame {t + 1}"
        _check_frames(path, t + 1)
        found.people.append([])
        pictured = _people_of_landmarks(where, frame)
        worldly: list[Any] = []
        if isinstance(frame, dict) and not {"landmark", "landmarks"} & set(frame):
            if frame and not _MEDIAPIPE_NAMES & set(frame):
                expected = "pose_landmarks or pose_world_landmarks"
                raise FormatError(message(where, expected, short(sorted(frame))))
            pictured = _people_of_landmarks(where, frame.get("pose_landmarks"))
            world = frame.get("pose_world_landmarks", frame.get("world_landmarks"))
            worldly = _people_of_landmarks(where, world)
        if not pictured and not worldly:
            continue
        kinds = kinds or (bool(pictured), bool(worldly))
        if (bool(pictured), bool(worldly)) != kinds or (
            all(kinds) and len(pictured) != len(worldly)
        ):
            expected = "the same kinds of landmarks for all people of all frames"
            raise FormatError(message(where, expected, f"{len(pictured)} and {len(worldly)}"))
        for i in range(max(len(pictured), len(worldly))):
            called = f"{where}, person {i + 1}"
            points = _landmarks(called, (worldly or pictured)[i])
            pose = points[:, :3] * _UPWARD
            track = -1
            if all(kinds):
                beside = _landmarks(called, pictured[i])
                pose = np.concatenate([beside[:, :2], pose], 1)
            elif worldly:
                track = i
            found.add(called, pose, points[:, 3], track)
    if kinds and kinds[1]:
        found.unit = METRES
        found.places = 2 if kinds[0] else 0
    elif kinds:
        _tell_metres(found)


# MediaPipe's y points down and its z away from the camera.
_UPWARD = np.array([1, -1, -1])


def _frames_of_keys(path: Path, content: dict[str, Any]) -> Any:
    """The frames of a dict with a list of frames under each key."""
    lists = {
        key: content[key]
        for key in ("pose_landmarks", "pose_world_landmarks", "world_landmarks")
        if content.get(key) is not None
    }
    if not lists:
        return content.get("frames")
    if not all(isinstance(frames, list) for frames in lists.values()):
        raise FormatError(message(str(path), "a list of frames under each key", short(lists)))
    if len({len(frames) for frames in lists.values()}) > 1:
        got = ", ".join(f"{len(frames)} of {key}" for key, frames in lists.items())
        raise FormatError(message(str(path), "as many frames of each kind", got))
    return [dict(zip(lists, frames, strict=True)) for frames in zip(*lists.values(), strict=True)]


def _people_of_landmarks(where: str, value: Any) -> list[Any]:
    """The landmark lists of a frame: none, one person's, or one list for each person."""
    if isinstance(value, dict):  # a protocol buffer as a dict
        value = value.get("landmark", value.get("landmarks"))
    if value is None or value == []:
        return []
    if not isinstance(value, list):
        raise FormatError(message(where, f"a list of {_LANDMARKS} landmarks or null", short(value)))
    several = isinstance(value[0], list) and value[0] and type(value[0][0]) not in _NUMBERS
    return value if several else [value]


def _landmarks(where: str, value: Any) -> NDArray[np.float64]:
    """Convert a person's landmarks to (33, 4): x, y, z, visibility, which is 1 if not given."""
    if not isinstance(value, list) or len(value) != _LANDMARKS:
        got = len(value) if isinstance(value, list) else short(value)
        raise FormatError(message(where, f"{_LANDMARKS} landmarks", got))
    rows = []
    for v, point in enumerate(value):
        row = point
        if isinstance(point, dict):
            row = [point.get("x"), point.get("y"), point.get("z"), point.get("visibility", 1.0)]
        if isinstance(row, list) and len(row) == 3:
            row = [*row, 1.0]
        if not isinstance(row, list) or len(row) != 4 or not _NUMBERS.issuperset(map(type, row)):
            expected = "x, y, z and visibility as numbers"
            raise FormatError(message(f"{where}, landmark {v}", expected, short(point)))
        rows += row
    return _floats(rows).reshape(_LANDMARKS, 4)


def _tell_metres(found: Detections) -> None:
    """Decide the unit of landmarks: those in metres have their origin between the hips."""
    hips = np.stack([pose[_HIPS] for people in found.people for pose, _, _ in people])
    hips = hips[np.abs(hips).max(2).min(1) > 0]  # of the people whose hips were seen
    middle = np.abs(hips.mean(1))
    if not middle.size or middle.max() >= 0.01:
        return
    found.unit = METRES
    # Measured from each one's hips, positions do not tell people apart; their order may.
    for people in found.people:
        people[:] = [(pose, scores, i) for i, (pose, scores, _) in enumerate(people)]


_WIDE = re.compile(r"(?P<channel>x|y|z|v|visibility)_?(?P<joint>\d{1,2})")
_WIDE_LAST = re.compile(r"(?:landmark_?)?(?P<joint>\d{1,2})_(?P<channel>x|y|z|v|visibility)")


def _header(row: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in row]


def _columns(names: Sequence[str]) -> list[int]:
    """The columns of x, y, z, visibility of each landmark, -1 for a visibility that is not there.

    The result is [frame, landmark, x, y, z, visibility] for one row a landmark, and empty for
    another table.
    """
    place = {name: i for i, name in enumerate(names)}
    if {"frame", "landmark", "x", "y", "z"} <= set(place):
        return [place.get(name, -1) for name in ("frame", "landmark", "x", "y", "z", "visibility")]
    at: dict[tuple[int, str], int] = {}
    for i, name in enumerate(names):
        matched = _WIDE.fullmatch(name) or _WIDE_LAST.fullmatch(name)
        if matched:
            at[int(matched["joint"]), matched["channel"][0]] = i
    first = min((joint for joint, _ in at), default=0)  # landmarks count from 0 or from 1
    columns = [at.get((first + v, c), -1) for v in range(_LANDMARKS) for c in "xyzv"]
    complete = all(column >= 0 for i, column in enumerate(columns) if i % 4 < 3)
    extra = len(at) - sum(column >= 0 for column in columns)
    return columns if complete and not extra and first in (0, 1) else []


def _read_landmark_table(path: Path, found: Detections) -> None:
    frames = _frames_of_table(path)
    first = min(frames, default=0)
    last = max(frames, default=-1)
    _check_frames(path, last - first + 1)
    for t in range(first, last + 1):
        found.people.append([])
        if t not in frames:
            continue
        points = frames[t]
        unseen = np.asarray(np.isnan(points).any(1))
        if unseen.all():
            continue
        points = np.where(unseen[:, None], 0, points)
        found.add(f"{path}, frame {t}", points[:, :3] * _UPWARD, points[:, 3])
    if any(found.people):
        _tell_metres(found)


def _frames_of_table(path: Path) -> dict[int, NDArray[np.float64]]:
    """The landmarks (33, 4) of each frame number: x, y, z, visibility; NaN where not found."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
        rows = [*csv.reader(io.StringIO(text, newline=""))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(message(str(path), "CSV", type(error).__name__)) from None
    names = _header(rows[0] if rows else [])
    columns = _columns(names)
    if not columns:
        expected = "columns x0, y0, z0, v0 to v32, or frame, landmark, x, y, z, visibility"
        raise FormatError(message(f"{path}, line 1", expected, short(names[:6])))
    long = len(columns) == 6
    numbers = columns[2:] if long else columns
    frames: dict[int, NDArray[np.float64]] = {}
    for line, row in enumerate(rows[1:], 2):
        where = f"{path}, line {line}"
        if not row:
            continue
        if len(row) != len(names):
            raise FormatError(message(where, f"{len(names)} fields", len(row)))
        t = len(frames)
        if "frame" in names:
            t = _whole(where, "frame", row[names.index("frame")], 10**9)
        values = [_cell(where, row[column]) if column >= 0 else 1.0 for column in numbers]
        if long:
            joint = _whole(where, "landmark", row[columns[1]], _LANDMARKS - 1)
            frame = frames.setdefault(t, np.full((_LANDMARKS, 4), np.nan))
            if np.isfinite(frame[joint]).any():
                got = f"landmark {joint} again"
                raise FormatError(message(where, "each landmark once", got))
            frame[joint] = values
        elif t in frames:
            raise FormatError(message(where, "each frame once", f"frame {t} again"))
        else:
            frames[t] = np.array(values).reshape(_LANDMARKS, 4)
    return frames


def _cell(where: str, text: str) -> float:
    """A number; NaN for an empty cell, a landmark that was not found."""
    try:
        if "_" in text:  # float() would accept 1_0
            raise ValueError
        return float(text) if text.strip() else np.nan
    except ValueError:
        raise FormatError(message(where, "numbers", short(text))) from None


def _whole(where: str, what: str, text: str, most: int) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) <= most):
        raise FormatError(message(where, f"{what} as an integer in 0..{most}", short(text)))
    return int(digits)


# -------------------------------------------------------------------------------------- arrays

_AXES = "T, V, C or T, M, V, C"
_KINDS = "fiu"


def _is_array(head: bytes, layout: SkeletonLayout | None) -> bool:
    """Whether an .npy file's first bytes are those of poses."""
    try:
        shape = read_header("", head, _AXES, kinds=_KINDS).shape
    except FormatError:
        return False
    joints = [layout.num_joints] if layout else list(_LAYOUTS[ARRAYS])
    # A skeleton of another size is refused with a hint, an image (height, width, 3) is not ours.
    return shape[-1] in (2, 3) and (shape[-2] in joints or 5 <= shape[-2] <= 50)


def is_pose_archive(path: Path, layout: SkeletonLayout | None = None) -> bool:
    """Whether an .npz file holds ``keypoints``, with or without ``scores``, or one array of poses.

    >>> is_pose_archive(Path(__file__))
    False
    """
    try:
        with open_plain_file(path) as file, zip_errors(""), zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if "keypoints.npy" in names:
                return set(names) <= {"keypoints.npy", "scores.npy"}
            if len(names) != 1 or not names[0].endswith(".npy"):
                return False
            with archive.open(names[0]) as member:
                return _is_array(member.read(HEAD), layout)
    except (FormatError, OSError):
        return False


def _read_array(path: Path, found: Detections) -> None:
    scores = None
    if path.suffix == ".npz":
        with open_plain_file(path) as file, zip_errors(str(path)), zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            main = "keypoints.npy" if "keypoints.npy" in names else next(iter(names), "")
            if not main.endswith(".npy") or not set(names) <= {main, "scores.npy"}:
                got = ", ".join(map(short, names[:8])) or "none"
                raise FormatError(message(str(path), "one array, or keypoints and scores", got))
            points = _member(path, archive, main, _AXES)
            if "scores.npy" in names:
                scores = _member(path, archive, "scores.npy", "T, V or T, M, V", points.shape[:-1])
    else:
        with open_plain_file(path) as file:
            header = read_header(str(path), file.read(HEAD), _AXES, kinds=_KINDS)
            _check_shape(str(path), header.shape)
            size = os.fstat(file.fileno()).st_size
            if header.size != size:
                expected = f"{header.size} bytes for {header.shape} {header.dtype}"
                raise FormatError(message(str(path), expected, size))
            file.seek(header.offset)
            points = _numbers_of(str(path), file, header)
    axes = "(T, V, C)" if points.ndim == 3 else "(T, M, V, C)"
    found.expect(str(path), points.shape[-2], f" in the shape {points.shape} of {axes}")
    if points.ndim == 3:
        points = points[:, None]  # (T, M=1, V, C)
    _add_array(path, found, points.astype(np.float64), scores)


def _add_array(
    path: Path, found: Detections, points: NDArray[np.float64], scores: NDArray[Any] | None
) -> None:
    """Add the people of (T, M, V, C); NaN and (0, 0) are not seen."""
    name = found.layout.name if found.layout else ""
    flat = points.shape[3] == 2 or name in PICTURE_LAYOUTS
    placed = points[..., :2] if flat else points
    known = np.asarray(placed.any(3) & ~np.isnan(points).any(3))
    seen = np.ones(points.shape[:3])
    if scores is not None:
        seen = scores.reshape(points.shape[:3]).astype(np.float64)
    elif flat and points.shape[3] == 3:
        seen = points[..., 2]
        outside = np.asarray(known & ~((seen > -0.1) & (seen < 1.1)))
        if outside.any():
            t, m, v = np.argwhere(outside)[0].tolist()
            where = f"{path}, frame {t + 1}, person {m + 1}, joint {v}"
            hint = f"{name} is a skeleton of pictures; for x, y, z of another, pass layout"
            expected = "a score in 0..1 as third number"
            raise FormatError(message(where, expected, f"{seen[t, m, v]:.6g}", hint))
    if flat:
        points = points[..., :2]
    turned = not flat and name == "MEDIAPIPE33"
    if turned:
        points = points * _UPWARD
    points = np.where(known[..., None], points, 0)
    seen = np.where(known, seen, 0)
    for t in range(len(points)):
        found.people.append([])
        for m in np.flatnonzero(known[t].any(1)).tolist():
            found.add(f"{path}, frame {t + 1}, person {m + 1}", points[t, m], seen[t, m])
    if turned and known.any():
        _tell_metres(found)
    elif not flat:
        found.unit = UNKNOWN


def _check_shape(where: str, shape: tuple[int, ...]) -> None:
    """Check an array's size before its numbers are read."""
    people = shape[1] if len(shape) == 4 else 1
    if not 1 <= shape[0] <= MOST_FRAMES or people > MOST_PEOPLE or shape[-1] not in (2, 3):
        limits = f"T in 1..{MOST_FRAMES}, M up to {MOST_PEOPLE}, C of 2 or 3"
        raise FormatError(message(where, f"(T, V, C) or (T, M, V, C) with {limits}", shape))
    if prod(shape) > _MOST_NUMBERS:
        raise FormatError(message(where, f"an array of at most {_MOST_NUMBERS} numbers", shape))


def _member(
    path: Path,
    archive: zipfile.ZipFile,
    name: str,
    axes: str,
    shape: tuple[int, ...] | None = None,
) -> NDArray[Any]:
    """Read a member, which must have the given shape or be poses."""
    where = f"{path}, {name}"
    info = archive.getinfo(name)
    header = member_header(where, archive, info, axes, kinds=_KINDS)
    if shape is None:
        _check_shape(where, header.shape)
    elif header.shape != shape:
        shown = axes.replace(" or ", ") or (")
        raise FormatError(message(where, f"({shown}) of {shape}", header.shape))
    with archive.open(info) as member:
        take(where, member, header.offset)
        return _numbers_of(where, member, header)


def _numbers_of(where: str, file: IO[bytes], header: Npy) -> NDArray[Any]:
    count = prod(header.shape) * header.dtype.itemsize
    return np.frombuffer(take(where, file, count), header.dtype).reshape(header.shape)


# ----------------------------------------------------------------------------- numbers and ids


def _check_frames(path: Path, frames: int) -> None:
    if frames > MOST_FRAMES:
        raise FormatError(message(str(path), f"up to {MOST_FRAMES} frames", frames))
    if frames < 1:
        raise FormatError(message(str(path), "at least one frame", "none"))


def _by_number(path: Path, named: Sequence[tuple[str, Any]]) -> Iterator[Any]:
    """Order frames by the last number in their names; None where a frame is missing."""
    numbered: dict[int, Any] = {}
    around: tuple[str, str] | None = None
    for name, value in named:
        found = re.fullmatch(r"(.*?)([0-9]{1,15})([^0-9]*)", name, re.DOTALL)
        if found is None or found[1][-1:].isdecimal():
            raise FormatError(message(str(path), "a number in each frame's name", short(name)))
        # The frames of two videos, or seconds with a fraction, would be in a wrong order.
        if around not in (None, (found[1], found[3])):
            expected = f"names of frames that differ by their last number, as {short(named[0][0])}"
            raise FormatError(message(str(path), expected, short(name)))
        around = (found[1], found[3])
        number = int(found[2])
        if number in numbered:
            expected = "each frame number once"
            raise FormatError(message(str(path), expected, f"{short(name)}, again {number}"))
        numbered[number] = value
    first = min(numbered, default=0)
    last = max(numbered, default=-1)
    _check_frames(path, last - first + 1)
    return (numbered.get(number) for number in range(first, last + 1))


def _numbers(where: str, what: str, values: Any, count: int) -> NDArray[np.float64]:
    if (
        not isinstance(values, list)
        or len(values) != count
        or not _NUMBERS.issuperset(map(type, values))
    ):
        raise FormatError(message(where, f"{what} with {count} numbers", short(values)))
    return _floats(values)


def _floats(values: list[Any]) -> NDArray[np.float64]:
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return np.array([float("inf") if abs(value) > 1e300 else value for value in values])


def _triples(where: str, what: str, values: Any) -> NDArray[np.float64]:
    """Convert x, y, score side by side to (V, 3)."""
    count = len(values) if isinstance(values, list) else 0
    if not count or count % 3:
        expected = f"{what} with x, y, score for each joint"
        raise FormatError(message(where, expected, short(values)))
    return _numbers(where, what, values, count).reshape(-1, 3)


def _points(where: str, what: str, values: Any, channels: int) -> NDArray[np.float64]:
    """Convert a list of points to (V, channels)."""
    rows: list[Any] = []
    for point in values if isinstance(values, list) else [None]:
        if not isinstance(point, list) or len(point) != channels:
            raise FormatError(message(where, f"{what} of {channels} numbers each", short(point)))
        rows += point
    return _numbers(where, what, rows, len(rows)).reshape(-1, channels)


def _id(value: Any) -> int:
    """A tracking id, -1 if there is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < 1 << 60 else -1
