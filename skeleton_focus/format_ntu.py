"""NTU RGB+D and NTU RGB+D 120: one ``.skeleton`` text a clip."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ._bodies import Track, fill_gaps, join_tracks, main_bodies
from ._checks import check_choice, message, require
from ._ntu_actions import NTU_ACTIONS
from ._numbers import Numbers
from .formats import ClipFile, ClipSource, FormatError, grouped, read_bytes, read_each, short
from .layouts import NTU25

_NAME = re.compile(r"S(?P<setup>\d{3})C(?P<view>\d{3})P(?P<subject>\d{3})R(?P<take>\d{3})A(?P<action>\d{3})$")
_TRAINING_SUBJECTS = {
    1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38,  # of NTU 60's 40
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95,
    97, 98, 100, 103,
}  # fmt: skip
_HEADER, _JOINT = 10, 12  # fields of a body's first line, and of a joint's


def read_ntu(path: str | Path, *, persons: int = 2, missing: str = "mask") -> ClipFile:
    """Read one clip of NTU RGB+D.

    Tracks of one body whose id changed are joined, spurious bodies (short, or broader than high) dropped if another is
    left, and the bodies that move most kept, the one that moves most first. A joint counts as seen if the camera
    tracked or inferred it.

    Args:
        path: a file named ``SsssCcccPpppRrrrAaaa.skeleton``.
        persons: M, bodies kept; zeros stand for those that were not there.
        missing: ``"mask"``: where a body or joint was not seen, position and visibility are 0. ``"fill"``: between a
            body's first and last frame they are interpolated over time, and count as seen.

    Returns:
        x (C=3, T, V=25, M) in metres, visibility (T, V, M), the sides of ``"xsub"``, ``"xview"`` (NTU 60 alone) and
        ``"xset"`` (NTU 120 alone).

    Raises:
        FormatError: another name; a text that is cut short or goes on; a line with another number of fields, or with
            something that is no number; a position that is not finite; another number of joints; an id twice in a
            frame; no body at all. It names file and line.

    Example:
        >>> import tempfile
        >>> joint = "0.1 0.2 3.0 270 190 1030 510 0 0 0 1 2\\n"
        >>> path = Path(tempfile.mkdtemp()) / "S001C002P003R001A010.skeleton"
        >>> _ = path.write_text("1\\n1\\n72057594037931648 0 1 1 1 1 0 0.1 0.2 2\\n25\\n" + 25 * joint)
        >>> clip = read_ntu(path)
        >>> clip.x.shape, clip.label, clip.sides
        ((3, 1, 25, 2), 9, {'xsub': 'test', 'xview': 'train', 'xset': 'test'})

    Reference:
        Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2020 (the splits). The least length and the proportions of a body
        are those that the data set's publishers use.
    """
    path = Path(path)
    check_choice("read_ntu", "missing", missing, ("mask", "fill"))
    require(persons >= 1, "read_ntu", "persons of at least 1", persons)
    name = _NAME.match(path.stem)
    if name is None or path.suffix != ".skeleton" or not 1 <= int(name["action"]) <= len(NTU_ACTIONS):
        expected = f"a name SsssCcccPpppRrrrAaaa.skeleton with an action in 1..{len(NTU_ACTIONS)}"
        raise FormatError(message(str(path), expected, repr(path.name)))
    setup, view, subject, action = (int(name[part]) for part in ("setup", "view", "subject", "action"))
    frames, tracks = _tracks(path, read_bytes(path))
    bodies = main_bodies(join_tracks(tracks), frames, persons)
    x = np.zeros((3, frames, NTU25.num_joints, persons), np.float32)
    visibility = np.zeros(x.shape[1:], np.float32)
    for m, body in enumerate(map(fill_gaps, bodies) if missing == "fill" else bodies):
        x[..., m][:, body.frames] = np.where(body.seen[..., None], body.poses, 0).transpose(2, 0, 1)  # (C, t, V)
        visibility[..., m][body.frames] = body.seen
    sides = {"xsub": subject in _TRAINING_SUBJECTS, "xview": view in (2, 3), "xset": setup % 2 == 0}
    return ClipFile(
        path.stem, x, action - 1, subject, view, setup, None if visibility.all() else visibility,
        {split: "train" if train else "test" for split, train in sides.items()}, NTU_ACTIONS[action - 1],
    )  # fmt: skip


def open_ntu(folder: Path, *, persons: int = 2, missing: str = "mask") -> ClipSource | None:
    """A folder of ``.skeleton`` files, or None if it holds none.

    >>> open_ntu(Path(__file__).parent) is None
    True
    """
    files = sorted(folder.glob("*.skeleton"))
    if not files:
        return None
    names = [_NAME.match(file.stem) for file in files]
    larger = any(name is not None and (int(name["action"]) > 60 or int(name["setup"]) > 17) for name in names)
    return ClipSource(
        format="NTU RGB+D 120" if larger else "NTU RGB+D 60",
        layout=NTU25,
        files=files,
        num_clips=len(files),
        readers=[
            partial(read_each, group, partial(read_ntu, persons=persons, missing=missing)) for group in grouped(files)
        ],
        splits=("xsub", "xset") if larger else ("xsub", "xview"),
        classes=NTU_ACTIONS if larger else NTU_ACTIONS[:60],
    )


def _tracks(path: Path, text: bytes) -> tuple[int, list[Track]]:
    """The number of frames and what each tracking id saw."""
    numbers = Numbers(text)
    if numbers.broken is not None:
        (token,) = numbers.tokens(np.array([numbers.broken]))
        raise _error(path, numbers.line(numbers.broken), "numbers", token)
    frames, at, head = _find_bodies(path, numbers)
    lines = head[:, None] + 2 + np.arange(NTU25.num_joints)  # (bodies, V)
    first = numbers.lines[lines]
    with np.errstate(over="ignore"):
        poses = numbers.values((first[..., None] + np.arange(3)).ravel()).astype(np.float32).reshape(*first.shape, 3)
    states = numbers.integers(first.ravel() + _JOINT - 1).reshape(first.shape)
    for right, expected in (
        (np.isfinite(poses), "finite x, y and z"),
        ((states >= 0) & (states <= 2), "a tracking state 0, 1 or 2 at the end"),
    ):
        for b, v in [] if right.all() else np.argwhere(~right)[:1, :2]:
            raise _error(path, lines[b, v] + 1, expected, *numbers.tokens(first[b, v] + np.arange(_JOINT)))
    ids: dict[bytes, list[int]] = {}
    for b, body in enumerate(numbers.tokens(numbers.lines[head])):
        ids.setdefault(body, []).append(b)
    for body, mine in ids.items():
        for again in np.flatnonzero(np.diff(at[mine]) == 0)[:1]:
            raise _error(path, head[mine[again + 1]] + 1, "each body id once a frame", body, b"again")
    return frames, [Track(at[mine], poses[mine], states[mine] > 0) for mine in ids.values()]


def _find_bodies(path: Path, numbers: Numbers) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """The number of frames; of each body in them, the frame and the index of its first line."""
    joints, first = NTU25.num_joints, numbers.lines
    fields = np.diff(first)
    fields = fields[: np.flatnonzero(fields)[-1] + 1] if fields.any() else fields[:0]  # empty lines may follow
    alone = np.flatnonzero(fields == 1)
    counts = dict(zip(alone.tolist(), numbers.integers(first[alone]).tolist(), strict=True))
    each, body = fields.tolist(), [_HEADER, 1, *[_JOINT] * joints]
    frames, line = counts.get(0, -1), 1
    if frames < 0:
        raise _unexpected(path, numbers, 0, "the number of frames")
    found: list[tuple[int, int]] = []
    for frame in range(frames):
        bodies = counts.get(line, -1)
        if bodies < 0:
            raise _unexpected(path, numbers, line, f"the number of bodies in frame {frame + 1} of {frames}")
        line += 1
        for _ in range(bodies):
            if each[line : line + len(body)] != body or counts[line + 1] != joints:
                raise _unexpected_in_body(path, numbers, line)
            found.append((frame, line))
            line += len(body)
    if line < len(each):
        raise _unexpected(path, numbers, line, f"the end of the file after {frames} frames")
    if not found:
        raise FormatError(message(str(path), "at least one body in a frame", f"none in {frames} frames"))
    at, head = np.array(found).T
    return frames, at, head


def _unexpected_in_body(path: Path, numbers: Numbers, line: int) -> FormatError:
    """The first line of a body that is not as it should be."""
    joints = NTU25.num_joints
    told = [(_HEADER, f"the {_HEADER} fields of a body"), (1, f"{joints} joints")]
    told += [(_JOINT, f"the {_JOINT} fields of a joint")] * joints
    fields = np.diff(numbers.lines)[line:].tolist()
    wrong = next((i for i, (count, _) in enumerate(told) if fields[i : i + 1] != [count]), 1)
    return _unexpected(path, numbers, line + wrong, told[wrong][1])


def _unexpected(path: Path, numbers: Numbers, line: int, expected: str) -> FormatError:
    if line >= len(numbers.lines) - 1 or numbers.lines[line] == len(numbers):
        return _error(path, line + 1, expected, b"the end of the file")
    return _error(path, line + 1, expected, *numbers.tokens(np.arange(*numbers.lines[line : line + 2])))


def _error(path: Path, line: int, expected: str, *got: bytes) -> FormatError:
    return FormatError(
        message(f"{path}, line {line}", expected, short(b" ".join(got).decode("ascii", "backslashreplace")))
    )
