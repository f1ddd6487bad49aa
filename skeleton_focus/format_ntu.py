"""NTU RGB+D and NTU RGB+D 120: one ``.skeleton`` text file for each clip."""

from __future__ import annotations

import re
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from ._bodies import Track, clip_of, fill_gaps, join_tracks, main_bodies
from ._checks import check_choice, message
from .formats import (
    ClipFile,
    ClipSource,
    FormatError,
    files_in,
    folders_in,
    grouped,
    read_bytes,
    read_each,
    short,
)
from .layouts import NTU25

__all__ = ["read_ntu"]

_NAME = re.compile(
    r"S(?P<setup>\d{3})C(?P<view>\d{3})P(?P<subject>\d{3})R(?P<take>\d{3})A(?P<action>\d{3})$"
)
# The first row holds those of NTU 60's 40 subjects.
_TRAINING_SUBJECTS = (
    {1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38}
    | {45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85}
    | {86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103}
)
# The actions A001 to A120 of NTU RGB+D 120; NTU RGB+D has the first 60.
NTU_ACTIONS = tuple(
    name.strip()
    for name in """
    drink water, eat meal, brush teeth, brush hair, drop, pick up, throw, sit down, stand up,
    clapping, reading, writing, tear up paper, put on jacket, take off jacket, put on a shoe,
    take off a shoe, put on glasses, take off glasses, put on a hat, take off a hat, cheer up,
    hand waving, kicking something, reach into pocket, hopping, jump up, phone call,
    play with phone, type on a keyboard, point to something, taking a selfie, check time,
    rub two hands, nod head, shake head, wipe face, salute, put palms together,
    cross hands in front, sneeze or cough, staggering, falling down, headache, chest pain,
    back pain, neck pain, nausea or vomiting, fan self, punch or slap, kicking, pushing,
    pat on back, point finger, hugging, giving object, touch pocket, shaking hands, walking towards,
    walking apart,
    put on headphone, take off headphone, shoot at basket, bounce ball, tennis bat swing,
    juggle table tennis ball, hush, flick hair, thumb up, thumb down, make OK sign,
    make victory sign, staple book, counting money, cutting nails, cutting paper, snap fingers,
    open bottle, sniff or smell, squat down, toss a coin, fold paper, ball up paper,
    play magic cube, apply cream on face, apply cream on hand, put on bag, take off bag,
    put object into bag, take object out of bag, open a box, move heavy objects, shake fist,
    throw up cap or hat, capitulate, cross arms, arm circles, arm swings, run on the spot,
    butt kicks, cross toe touch, side kick, yawn, stretch oneself, blow nose, hit with object,
    wield knife, knock over, grab stuff, shoot with gun, step on foot, high-five, cheers and drink,
    carry object, take a photo, follow, whisper, exchange things, support somebody,
    rock-paper-scissors
    """.replace("\n", " ").split(",")
)
_HEADER = 10  # number of fields in a body's line
_JOINT = 12  # number of fields in a joint's line
# The longest clip has some 300; frames without bodies are short lines that would fill the memory.
_MOST_FRAMES = 10_000
_STATES = {b"0": 0, b"1": 1, b"2": 2}  # a joint's tracking state: not tracked, inferred, tracked
Lines = list[list[bytes]]  # the fields of each line


def read_ntu(path: str | Path, *, persons: int = 2, missing: str = "mask") -> ClipFile:
    """Read one clip of NTU RGB+D.

    Tracks of one body are joined even if its id changed, spurious bodies (short tracks, or broader
    than high) are dropped if another body remains, and the bodies that move most are kept, in order
    of decreasing motion. A joint counts as seen if the camera tracked or inferred it.

    Args:
        path: a file named ``SsssCcccPpppRrrrAaaa.skeleton``.
        persons: M, bodies kept; absent bodies are zeros.
        missing: ``"mask"``: where a body or joint was not seen, position and visibility are 0.
            ``"fill"``: between a body's first and last frame they are interpolated over time and
            count as seen.

    Returns:
        x (C=3, T, V=25, M) in metres, visibility (T, V, M), the sides of ``"xsub"``, ``"xview"``
        (which NTU 60 uses) and ``"xset"`` (which NTU 120 uses).

    Raises:
        FormatError: another file name; truncated or surplus text; a line with a wrong number of
            fields, or with a field that is not a number; a position that is not finite; another
            number of joints; a repeated id in a frame; no body at all. It names the file and the
            line.

    Example:
        >>> import tempfile
        >>> joint = "0.1 0.2 3.0 270 190 1030 510 0 0 0 1 2\\n"
        >>> path = Path(tempfile.mkdtemp()) / "S001C002P003R001A010.skeleton"
        >>> head = "1\\n1\\n72057594037931648 0 1 1 1 1 0 0.1 0.2 2\\n25\\n"
        >>> _ = path.write_text(head + 25 * joint)
        >>> clip = read_ntu(path)
        >>> clip.x.shape, clip.label, clip.sides
        ((3, 1, 25, 2), 9, {'xsub': 'test', 'xview': 'train', 'xset': 'test'})

    Reference:
        Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2020 (the splits). The minimum length and the
        proportions of a body are those of the data set's publishers.
    """
    path = Path(path)
    check_choice("read_ntu", "missing", missing, ("mask", "fill"))
    if persons < 1:
        raise ValueError(message("read_ntu", "persons of at least 1", persons))
    name = _parse(path)
    if not name:
        expected = (
            "a name SsssCcccPpppRrrrAaaa.skeleton, numbers from 1, "
            f"with an action in 1..{len(NTU_ACTIONS)}"
        )
        raise FormatError(message(str(path), expected, short(path.name)))
    setup, view, subject, action = (name[part] for part in ("setup", "view", "subject", "action"))
    frames, tracks = _tracks(path, read_bytes(path))
    bodies = main_bodies(join_tracks(tracks.items()), frames, persons)
    if missing == "fill":
        bodies = [*map(fill_gaps, bodies)]
    x, visibility = clip_of(bodies, frames, NTU25.num_joints, 3, persons)
    # A clip whose only tracked joints lie at the origin has no body, since zeros mean absence.
    if not x.any():
        raise FormatError(
            message(
                str(path), "a joint that was seen, at a position that is not 0", "none in any frame"
            )
        )
    return ClipFile(
        path.stem,
        x,
        action - 1,
        subject,
        view,
        setup,
        None if visibility.all() else visibility,
        published_splits(setup, view, subject),
        NTU_ACTIONS[action - 1],
    )


def published_splits(setup: int, view: int, subject: int) -> dict[str, str]:
    """Return the side of a clip in every published split: ``"train"`` or ``"test"``.

    xsub trains on half of the subjects, xview (NTU 60) on views 2 and 3, xset (NTU 120) on even
    setups.

    >>> published_splits(setup=1, view=1, subject=1)
    {'xsub': 'train', 'xview': 'test', 'xset': 'test'}
    """
    training = {
        "xsub": subject in _TRAINING_SUBJECTS,
        "xview": view in (2, 3),
        "xset": setup % 2 == 0,
    }
    return {split: "train" if train else "test" for split, train in training.items()}


def _parse(path: Path) -> dict[str, int]:
    """Parse the numbers in a file's name; empty for other names."""
    name = _NAME.match(path.stem) if path.suffix == ".skeleton" else None
    numbers = {part: int(number) for part, number in name.groupdict().items()} if name else {}
    if numbers and min(numbers.values()) >= 1 and numbers["action"] <= len(NTU_ACTIONS):
        return numbers
    return {}


def open_ntu(folder: Path, *, persons: int = 2, missing: str = "mask") -> ClipSource | None:
    """Open a folder with ``.skeleton`` files in it or in its subfolders; None without any.

    NTU 120 is unpacked into subfolders.

    >>> open_ntu(Path(__file__).parent) is None
    True
    """
    inside = [files_in(inner, ".skeleton") for inner in folders_in(folder)]
    files = [*files_in(folder, ".skeleton"), *chain.from_iterable(inside)]
    # If some subfolders hold other files, it is not an NTU data set.
    if not files or (files[0].parent != folder and not all(inside)):
        return None
    names = list(map(_parse, files))
    # NTU 60 has the actions 1 to 60 in the setups 1 to 17, so that anything beyond is NTU 120.
    larger = any(name and (name["action"] > 60 or name["setup"] > 17) for name in names)
    return ClipSource(
        format="NTU RGB+D 120" if larger else "NTU RGB+D 60",
        layout=NTU25,
        files=files,
        num_clips=len(files),
        readers=[
            partial(read_each, group, partial(read_ntu, persons=persons, missing=missing))
            for group in grouped(files)
        ],
        splits=("xsub", "xset") if larger else ("xsub", "xview"),
        classes=NTU_ACTIONS if larger else NTU_ACTIONS[:60],
    )


def _tracks(path: Path, text: bytes) -> tuple[int, dict[bytes, Track]]:
    """The number of frames and the track of each tracking id."""
    # All numbers are converted at once, not line by line: a file has thousands of lines. Only if
    # that fails, _find_bad_number looks for the line to name.
    lines = [line.split() for line in text.split(b"\n")]
    while lines and not lines[-1]:  # empty lines may follow
        lines.pop()
    try:
        frames, frame_of, heads = _find_bodies(path, lines)
        joints: Lines = []
        for head in heads:
            joints += lines[head + 2 : head + 2 + NTU25.num_joints]
        # Fields of the bodies' lines are converted only to check that they are numbers; the slice
        # drops them. Body ids stay bytes, because float64 does not tell ids of 17 digits apart.
        fields = [*chain.from_iterable(joints), *chain.from_iterable(lines[head] for head in heads)]
        if b"_" in text:  # float() would accept 1_0
            raise ValueError
        numbers = np.array(list(map(float, fields)))[: _JOINT * len(joints)]
        states = [_STATES.get(joint[-1], -1) for joint in joints]
    except ValueError as error:
        raise _find_bad_number(path, lines) or error from None
    with np.errstate(over="ignore"):
        points = numbers.reshape(-1, NTU25.num_joints, _JOINT)[..., :3]
        poses = points.astype(np.float32)  # (bodies, V, 3)
    seen = np.array(states).reshape(poses.shape[:2])
    for right, expected in (
        (np.isfinite(poses).all(-1), "finite x, y and z"),
        (seen >= 0, "a tracking state 0, 1 or 2 at the end"),
    ):
        if not right.all():
            b, v = np.argwhere(~right)[0]
            raise _error(path, lines, heads[b] + 2 + v, expected)
    ids: dict[bytes, list[int]] = {}
    for b, head in enumerate(heads):
        # Each track is the rows of one id; frames ascend, because the file was read in order.
        rows = ids.setdefault(lines[head][0], [])
        if rows and frame_of[rows[-1]] == frame_of[b]:
            got = short(lines[head][0].decode("ascii", "backslashreplace") + " again")
            raise FormatError(
                message(f"{path}, line {head + 1}", "each body id once in a frame", got)
            )
        rows.append(b)
    return frames, {
        body: Track(np.array(frame_of)[rows], poses[rows], seen[rows] > 0)
        for body, rows in ids.items()
    }


def _find_bodies(path: Path, lines: Lines) -> tuple[int, list[int], list[int]]:
    """Find the number of frames, and the bodies in each frame.

    For each body in each frame, return the frame's index and the index of the body's first line.
    """
    frames = _whole(lines, 0)
    if not 0 <= frames <= _MOST_FRAMES:
        raise _error(path, lines, 0, f"the number of frames, up to {_MOST_FRAMES}")
    frame_of: list[int] = []
    heads: list[int] = []
    line = 1
    for frame in range(frames):
        bodies = _whole(lines, line)
        if bodies < 0:
            raise _error(
                path, lines, line, f"the number of bodies in frame {frame + 1} of {frames}"
            )
        line += 1
        for _ in range(bodies):
            if line >= len(lines) or len(lines[line]) != _HEADER:
                raise _error(path, lines, line, f"the {_HEADER} fields of a body")
            if _whole(lines, line + 1) != NTU25.num_joints:
                raise _error(path, lines, line + 1, f"{NTU25.num_joints} joints")
            for joint in range(line + 2, line + 2 + NTU25.num_joints):
                if joint >= len(lines) or len(lines[joint]) != _JOINT:
                    raise _error(path, lines, joint, f"the {_JOINT} fields of a joint")
            frame_of.append(frame)
            heads.append(line)
            line += 2 + NTU25.num_joints
    if line < len(lines):
        raise _error(path, lines, line, f"the end of the file after {frames} frames")
    if not heads:
        raise FormatError(
            message(str(path), "at least one body in a frame", f"0 in {frames} frames")
        )
    return frames, frame_of, heads


def _whole(lines: Lines, line: int) -> int:
    """The integer that is the only field of a line, or -1."""
    fields = lines[line] if line < len(lines) else []
    # Of at most 8 digits: int() takes long, or raises, for thousands of them.
    if len(fields) == 1 and fields[0].isdigit() and len(fields[0]) <= 8:
        return int(fields[0])
    return -1


def _find_bad_number(path: Path, lines: Lines) -> FormatError | None:
    """Return an error for the first field that is not a number, if there is one."""
    for i, fields in enumerate(lines):
        for field in fields:
            try:
                if b"_" not in field:
                    float(field)
                    continue
            except ValueError:
                pass
            return FormatError(message(f"{path}, line {i + 1}", "numbers", _text(field)))
    return None


def _error(path: Path, lines: Lines, line: int, expected: str) -> FormatError:
    got = _text(*lines[line]) if line < len(lines) else short("the end of the file")
    return FormatError(message(f"{path}, line {line + 1}", expected, got))


def _text(*fields: bytes) -> str:
    return short(b" ".join(fields).decode("ascii", "backslashreplace"))
