"""NTU RGB+D and NTU RGB+D 120: one ``.skeleton`` text a clip."""

from __future__ import annotations

import re
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ._bodies import Track, fill_gaps, join_tracks, main_bodies
from ._checks import check_choice, message
from ._ntu_actions import NTU_ACTIONS
from ._numbers import Numbers
from .formats import ClipFile, ClipSource, FormatError, files_in, folders_in, grouped, read_bytes, read_each, short
from .layouts import NTU25

_NAME = re.compile(r"S(?P<setup>\d{3})C(?P<view>\d{3})P(?P<subject>\d{3})R(?P<take>\d{3})A(?P<action>\d{3})$")
_TRAINING_SUBJECTS = {
    1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38,  # of NTU 60's 40
    45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95,
    97, 98, 100, 103,
}  # fmt: skip
_HEADER, _JOINT = 10, 12
_MOST_FRAMES = 10_000  # the longest clip has some 300; frames without a body would fill the memory at two bytes each
_BODY = [_HEADER, 1, *[_JOINT] * NTU25.num_joints]  # fields of the lines of a body; the second is the number of joints


def read_ntu(path: str | Path, *, persons: int = 2, missing: str = "mask") -> ClipFile:
    """Read one clip of NTU RGB+D.

    Tracks of one body are joined, also where its id changed, spurious bodies (short, or broader than high) dropped if
    another is left, and the bodies that move most kept, the one that moves most first. A joint counts as seen if the
    camera tracked or inferred it.

    Args:
        path: a file named ``SsssCcccPpppRrrrAaaa.skeleton``.
        persons: M, bodies kept; zeros stand for those that were not there.
        missing: ``"mask"``: where a body or joint was not seen, position and visibility are 0. ``"fill"``: between a
            body's first and last frame they are interpolated over time, and count as seen.

    Returns:
        x (C=3, T, V=25, M) in metres, visibility (T, V, M), the sides of ``"xsub"``, ``"xview"`` (which NTU 60 uses)
        and ``"xset"`` (which NTU 120 uses).

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
    if persons < 1:
        raise ValueError(message("read_ntu", "persons of at least 1", persons))
    name = _parse(path)
    if not name:
        expected = f"a name SsssCcccPpppRrrrAaaa.skeleton, numbers from 1, with an action in 1..{len(NTU_ACTIONS)}"
        raise FormatError(message(str(path), expected, short(path.name)))
    setup, view, subject, action = (name[part] for part in ("setup", "view", "subject", "action"))
    frames, tracks = _tracks(path, read_bytes(path))
    bodies = main_bodies(join_tracks(tracks.items()), frames, persons)
    x = np.zeros((3, frames, NTU25.num_joints, persons), np.float32)
    visibility = np.zeros(x.shape[1:], np.float32)
    for m, body in enumerate(map(fill_gaps, bodies) if missing == "fill" else bodies):
        x[..., m][:, body.frames] = np.where(body.seen[..., None], body.poses, 0).transpose(2, 0, 1)  # (C, t, V)
        visibility[..., m][body.frames] = body.seen
    if not x.any():
        raise FormatError(message(str(path), "a joint that was seen, at a position that is not 0", "none in any frame"))
    sides = {"xsub": subject in _TRAINING_SUBJECTS, "xview": view in (2, 3), "xset": setup % 2 == 0}
    return ClipFile(
        path.stem, x, action - 1, subject, view, setup, None if visibility.all() else visibility,
        {split: "train" if train else "test" for split, train in sides.items()}, NTU_ACTIONS[action - 1],
    )  # fmt: skip


def _parse(path: Path) -> dict[str, int]:
    """The numbers of a file's name; none of another name."""
    name = _NAME.match(path.stem) if path.suffix == ".skeleton" else None
    numbers = {part: int(number) for part, number in name.groupdict().items()} if name else {}
    return numbers if numbers and min(numbers.values()) >= 1 and numbers["action"] <= len(NTU_ACTIONS) else {}


def open_ntu(folder: Path, *, persons: int = 2, missing: str = "mask") -> ClipSource | None:
    """A folder with ``.skeleton`` files in it or in its folders, as NTU 120 is unpacked; None if there are none.

    >>> open_ntu(Path(__file__).parent) is None
    True
    """
    inside = [files_in(inner, ".skeleton") for inner in folders_in(folder)]
    files = [*files_in(folder, ".skeleton"), *chain.from_iterable(inside)]
    if not files or (files[0].parent != folder and not all(inside)):  # among folders of another kind: no NTU data set
        return None
    names = list(map(_parse, files))
    larger = any(name and (name["action"] > 60 or name["setup"] > 17) for name in names)
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


def _tracks(path: Path, text: bytes) -> tuple[int, dict[bytes, Track]]:
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
    states = numbers.digits(first.ravel() + _JOINT - 1).reshape(first.shape)
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
    return frames, {body: Track(at[mine], poses[mine], states[mine] > 0) for body, mine in ids.items()}


def _find_bodies(path: Path, numbers: Numbers) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """The number of frames; of each body in them, the frame and the index of its first line."""
    fields, body = np.diff(numbers.lines), np.array(_BODY)
    fields = fields[: np.flatnonzero(fields)[-1] + 1] if fields.any() else fields[:0]  # empty lines may follow
    head = np.flatnonzero(fields == _HEADER)
    lines = head[:, None] + np.arange(len(body))
    if not lines.size or lines[-1, -1] >= len(fields) or (fields[lines] != body).any():
        raise _explain(path, numbers, fields.tolist())
    others = np.ones(len(fields), np.bool_)
    others[lines] = False
    between = np.flatnonzero(others)  # the number of frames, then each frame's of bodies
    counts, joints = np.split(numbers.integers(numbers.lines[np.append(between, head + 1)]), [len(between)])
    counts = np.where(fields[between] == 1, counts, -1)
    frames, expected = len(between) - 1, np.diff(np.searchsorted(head, np.append(between[1:], len(fields))))
    if (
        frames > _MOST_FRAMES
        or counts[0] != frames
        or (counts[1:] != expected).any()
        or (joints != NTU25.num_joints).any()
    ):
        raise _explain(path, numbers, fields.tolist())
    return frames, np.repeat(np.arange(frames), expected), head


def _explain(path: Path, numbers: Numbers, fields: list[int]) -> FormatError:
    """What is wrong with a file, line by line."""
    first = numbers.lines

    def whole(line: int) -> int:
        return int(numbers.integers(first[line : line + 1])[0]) if fields[line : line + 1] == [1] else -1

    frames, found, line = whole(0), 0, 1
    if not 0 <= frames <= _MOST_FRAMES:
        return _unexpected(path, numbers, 0, f"the number of frames, up to {_MOST_FRAMES}")
    for frame in range(frames):
        bodies = whole(line)
        if bodies < 0:
            return _unexpected(path, numbers, line, f"the number of bodies in frame {frame + 1} of {frames}")
        line += 1
        for _ in range(bodies):
            wrong = next((i for i, count in enumerate(_BODY) if fields[line + i : line + i + 1] != [count]), None)
            if wrong is not None and wrong != 1:
                what = "a body" if wrong == 0 else "a joint"
                return _unexpected(path, numbers, line + wrong, f"the {_BODY[wrong]} fields of {what}")
            if whole(line + 1) != NTU25.num_joints:
                return _unexpected(path, numbers, line + 1, f"{NTU25.num_joints} joints")
            line, found = line + len(_BODY), found + 1
    if line < len(fields):
        return _unexpected(path, numbers, line, f"the end of the file after {frames} frames")
    return FormatError(message(str(path), "at least one body in a frame", f"{found} in {frames} frames"))


def _unexpected(path: Path, numbers: Numbers, line: int, expected: str) -> FormatError:
    if line >= len(numbers.lines) - 1 or numbers.lines[line] == len(numbers):
        return _error(path, line + 1, expected, b"the end of the file")
    return _error(path, line + 1, expected, *numbers.tokens(np.arange(*numbers.lines[line : line + 2])))


def _error(path: Path, line: int, expected: str, *got: bytes) -> FormatError:
    return FormatError(
        message(f"{path}, line {line}", expected, short(b" ".join(got).decode("ascii", "backslashreplace")))
    )
