"""Kinetics-Skeleton: OpenPose's skeletons, one JSON file for each clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._bodies import MOST_PEOPLE, clip_of, follow, join_tracks, share_slots
from ._checks import message
from .formats import (
    MOST_CLASSES,
    ClipFile,
    ClipSource,
    FormatError,
    beginning,
    clamp_scores,
    files_in,
    grouped,
    parse_json,
    read_bytes,
    read_each,
    short,
)
from .layouts import OPENPOSE18

__all__ = ["read_kinetics"]

_POSITIONS = (-1, 2)  # OpenPose's estimates of positions may lie outside the image
_SIDES = {"train": ("kinetics_train", "train"), "test": ("kinetics_val", "val", "test")}


def read_kinetics(path: str | Path, *, persons: int = 2) -> ClipFile:
    """Read one clip of Kinetics-Skeleton.

    People are followed through the frames. Those with the largest sum of confidence over the clip
    are kept, the most confident first; people who are not there at the same time may share a place,
    so that a frame of at most ``persons`` people loses nobody.

    Args:
        path: a JSON file ``{"data": [...], "label", "label_index"}``, with a frame of the data as
            ``{"frame_index", "skeleton": [{"pose", "score"}]}``.
        persons: M, people kept; absent people are zeros.

    Returns:
        x (C=2, T, V=18, M), positions as in the file: fractions of the image's width and height, 0
        to 1 and slightly beyond at its edges; visibility (T, V, M), the confidence, clamped to
        0..1.

    Raises:
        FormatError: broken JSON or missing keys, a repeated or missing frame number, a pose that is
            not 36 numbers in [-1, 2] or a score that is not 18 finite numbers, a label that is not
            a class index, no person in any frame or scores of 0 only. It names the file, the frame
            and the person.

    Example:
        >>> import json, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "clip.json"
        >>> frame = {"frame_index": 1, "skeleton": [{"pose": [0.5] * 36, "score": [0.9] * 18}]}
        >>> content = {"data": [frame], "label": "abseiling", "label_index": 0}
        >>> _ = path.write_text(json.dumps(content))
        >>> clip = read_kinetics(path)
        >>> clip.x.shape, clip.label, clip.action
        ((2, 1, 18, 2), 0, 'abseiling')

    Reference:
        Yan et al., AAAI 2018 (ST-GCN), section 4.1.
    """
    path = Path(path)
    if persons < 1:
        raise ValueError(message("read_kinetics", "persons of at least 1", persons))
    content = parse_json(path, read_bytes(path))
    if not isinstance(content, dict) or not {"data", "label", "label_index"} <= set(content):
        got = short(sorted(content)) if isinstance(content, dict) else type(content).__name__
        raise FormatError(message(str(path), "the keys data, label and label_index", got))
    label = content["label_index"]
    action = content["label"]
    frames = content["data"]
    if type(label) is not int or not 0 <= label < MOST_CLASSES:
        raise FormatError(message(str(path), "a label_index from 0", short(label)))
    if not isinstance(action, str):
        raise FormatError(message(str(path), "label as text", short(action)))
    if not isinstance(frames, list) or not frames:
        raise FormatError(message(str(path), "at least one frame in data", "none"))
    joints = OPENPOSE18.num_joints
    people = []
    for t, of_frame in enumerate(_people(path, frames)):
        poses = np.zeros((len(of_frame), joints, 2), np.float32)
        scores = np.zeros((len(of_frame), joints), np.float32)
        for i, person in enumerate(of_frame):
            where = f"{path}, frame {t + 1}, person {i + 1}"
            poses[i], scores[i] = _person(where, person)
        people.append((poses, scores))
    slots = share_slots(join_tracks(follow(people), metres=False), persons)
    x, visibility = clip_of(slots, len(frames), joints, 2, persons)
    if not any(len(scores) for _, scores in people):
        raise FormatError(
            message(str(path), "a person in some frame", f"none in {len(frames)} frames")
        )
    if not visibility.any():
        hint = "joints with a score of 0 count as not seen"
        got = f"only scores of 0 in {len(frames)} frames"
        raise FormatError(message(str(path), "a joint with a score above 0", got, hint))
    return ClipFile(path.stem, x, label, visibility=visibility, action=action)


def _people(path: Path, frames: list[Any]) -> Iterator[list[Any]]:
    """Yield the people of each frame; frames are numbered consecutively."""
    first = None
    for t, frame in enumerate(frames):
        where = f"{path}, frame {t + 1}"
        if not isinstance(frame, dict) or not {"frame_index", "skeleton"} <= set(frame):
            got = short(sorted(frame)) if isinstance(frame, dict) else type(frame).__name__
            raise FormatError(message(where, "the keys frame_index and skeleton", got))
        index = frame["frame_index"]
        first = index if first is None else first
        # The types are compared because True == 1: true is a valid JSON value.
        if type(index) is not int or index != first + t or first not in (0, 1):
            expected = "frame_index 0 or 1"
            if first in (0, 1) and type(first) is int:
                expected = f"frame_index {first + t}"
            raise FormatError(message(where, expected, short(index), "each frame once, in order"))
        people = frame["skeleton"]
        if not isinstance(people, list):
            raise FormatError(message(where, "a list of people in skeleton", short(people)))
        if len(people) > MOST_PEOPLE:
            raise FormatError(message(where, f"at most {MOST_PEOPLE} people", len(people)))
        yield people


def _person(where: str, person: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The pose (V, 2) and the confidence (V,) of one person."""
    arrays = []
    for key, count in (("pose", 2 * OPENPOSE18.num_joints), ("score", OPENPOSE18.num_joints)):
        values = person.get(key) if isinstance(person, dict) else None
        if (
            not isinstance(values, list)
            or len(values) != count
            or not {*map(type, values)} <= {int, float}
        ):
            raise FormatError(message(where, f"{key} with {count} numbers", short(values)))
        # An integer of JSON may have any number of digits. What is too large for float32 becomes
        # infinite here and is out of range below.
        try:
            with np.errstate(over="ignore"):
                array = np.array(values, np.float64).astype(np.float32)
        except OverflowError:
            array = np.full(count, np.inf, np.float32)
        low, high = (-np.inf, np.inf) if key == "score" else _POSITIONS
        wrong = np.flatnonzero(~((array >= low) & (array <= high) & np.isfinite(array)))
        if len(wrong):
            at = int(wrong[0])
            limits = "" if key == "score" else f" in [{low}, {high}]"
            hint = ""
            if key == "pose" and high < array[at] < np.inf:
                hint = "these look like pixels: divide x by the picture's width, y by its height"
            got = f"{short(values[at])} at {at}"
            raise FormatError(message(where, f"{key} of finite numbers{limits}", got, hint))
        arrays.append(array)
    return arrays[0].reshape(-1, 2), clamp_scores(arrays[1])


def open_kinetics(folder: Path, *, persons: int = 2) -> ClipSource | None:
    """Open a folder with Kinetics-Skeleton's ``kinetics_train`` and ``kinetics_val``.

    The result is None if it holds no such clips.

    >>> open_kinetics(Path(__file__).parent) is None
    True
    """
    sides: dict[str, Sequence[Path]] = {}
    for side, names in _SIDES.items():
        candidates = (files_in(folder / name, ".json") for name in names)
        sides[side] = next((files for files in candidates if files), [])
    files = [*chain(*sides.values())]
    # A file without frames does not show the key, hence several files; a few are enough to tell
    # another data set's JSON.
    if not files or not any(b'"frame_index"' in beginning(file) for file in files[:20]):
        return None

    readers = []
    for side, of_side in sides.items():
        readers += [partial(_read_side, group, side, persons) for group in grouped(of_side)]
    return ClipSource("Kinetics-Skeleton", OPENPOSE18, files, len(files), readers, ("given",))


def _read_side(files: Sequence[Path], side: str, persons: int) -> Iterator[ClipFile | FormatError]:
    for clip in read_each(files, partial(read_kinetics, persons=persons)):
        yield clip if isinstance(clip, FormatError) else clip._replace(sides={"given": side})
