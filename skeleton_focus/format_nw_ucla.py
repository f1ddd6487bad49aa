"""NW-UCLA as distributed by CTR-GCN: one JSON file for each clip."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import message
from .formats import (
    ClipFile,
    ClipSource,
    FormatError,
    files_in,
    grouped,
    parse_json,
    read_bytes,
    read_each,
    short,
)
from .layouts import KINECT20

__all__ = ["read_nw_ucla"]

NW_UCLA_ACTIONS = {
    "a01": "pick up with one hand",
    "a02": "pick up with two hands",
    "a03": "drop trash",
    "a04": "walk around",
    "a05": "sit down",
    "a06": "stand up",
    "a08": "donning",
    "a09": "doffing",
    "a11": "throw",
    "a12": "carry",
}
"""Maps the action codes in file names, in label order, to action names."""

_NUMBERS = {int, float}  # excludes bool, a subclass of int
_NW_UCLA_NAME = re.compile(r"(?P<action>a\d\d)_s(?P<subject>\d\d)_e(?P<take>\d\d)_v(?P<view>\d\d)$")


def read_nw_ucla(path: str | Path) -> ClipFile:
    """Read one clip of Northwestern-UCLA from CTR-GCN's JSON.

    The file holds T x 20 joints x 3 coordinates in metres.

    Args:
        path: a file named ``aAA_sSS_eEE_vVV.json``.

    Raises:
        FormatError: another file name, broken JSON, missing keys, frames that are not 20 x 3 finite
            numbers, no frames, or a label that does not match the file name.
        UnreadableFileError: a file that cannot be opened.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> frames = [[[0.0, 1.0, 2.0]] * 20]
        >>> text = '{"file_name": "a02_s01_e00_v03", "skeletons": %s, "label": 2}' % frames
        >>> _ = (folder / "a02_s01_e00_v03.json").write_text(text)
        >>> clip = read_nw_ucla(folder / "a02_s01_e00_v03.json")
        >>> clip.x.shape, clip.label, clip.sides
        ((3, 1, 20, 1), 1, {'xview': 'test'})
    """
    path = Path(path)
    name = _NW_UCLA_NAME.match(path.stem)
    if name is None or name["action"] not in NW_UCLA_ACTIONS or path.suffix != ".json":
        raise FormatError(
            message(
                path.name,
                f"a name aAA_sSS_eEE_vVV.json with an action among {list(NW_UCLA_ACTIONS)}",
                path.stem,
            )
        )
    content = parse_json(path, read_bytes(path))
    if not isinstance(content, dict) or not {"file_name", "skeletons", "label"} <= set(content):
        got = short(sorted(content)) if isinstance(content, dict) else type(content).__name__
        raise FormatError(message(str(path), "the keys file_name, skeletons and label", got))
    label = list(NW_UCLA_ACTIONS).index(name["action"])
    # The file name decides, and the label has to agree: it tells a renamed file from a good one.
    # The type is compared because True == 1.
    if type(content["label"]) is not int or content["label"] != label + 1:
        raise FormatError(
            message(
                str(path),
                f"label {label + 1}, which is action {name['action']}",
                short(content["label"]),
            )
        )
    view = int(name["view"])
    if view not in (1, 2, 3):
        raise FormatError(message(str(path), "a view in 1..3", view))
    frames = _frames(path, content["skeletons"])
    if content["file_name"] != path.stem:
        raise FormatError(
            message(str(path), f"file_name {path.stem!r}", short(content["file_name"]))
        )
    if not frames.any():
        raise FormatError(message(str(path), "a position that is not 0", "none in any frame"))
    x = np.ascontiguousarray(frames.transpose(2, 0, 1))[..., None]  # (T, V, C) -> (C, T, V, M=1)
    sides = {"xview": "test" if view == 3 else "train"}
    return ClipFile(
        path.stem,
        x,
        label,
        int(name["subject"]),
        view,
        sides=sides,
        action=NW_UCLA_ACTIONS[name["action"]],
    )


def open_nw_ucla(folder: Path) -> ClipSource | None:
    """Open a folder of NW-UCLA's files, or its subfolder ``all_sqe``; None if it holds none.

    >>> open_nw_ucla(Path(__file__).parent) is None
    True
    """
    inner = folder / "all_sqe"
    files = files_in(inner if inner.is_dir() else folder, ".json")
    if not any(_NW_UCLA_NAME.match(file.stem) for file in files):
        return None
    return ClipSource(
        format="NW-UCLA",
        layout=KINECT20,
        files=files,
        num_clips=len(files),
        readers=[partial(read_each, group, read_nw_ucla) for group in grouped(files)],
        splits=("xview",),
        classes=tuple(NW_UCLA_ACTIONS.values()),
    )


def _frames(path: Path, skeletons: Any) -> NDArray[np.float32]:
    """Convert skeletons to an array (T, V, C); raise an error that names the frame."""
    joints = KINECT20.num_joints
    if not isinstance(skeletons, list) or not skeletons:
        raise FormatError(message(str(path), "at least one frame", "none"))
    # np.array alone would not do: it accepts booleans and digits as text, and its error for a
    # ragged list does not name the frame.
    for t, frame in enumerate(skeletons):
        if not isinstance(frame, list) or len(frame) != joints:
            got = f"{len(frame)}" if isinstance(frame, list) else type(frame).__name__
            raise FormatError(message(f"{path}, frame {t}", f"{joints} joints", got))
        for v, point in enumerate(frame):
            if (
                not isinstance(point, list)
                or len(point) != 3
                or not _NUMBERS.issuperset(map(type, point))
            ):
                raise FormatError(
                    message(f"{path}, frame {t}, joint {v}", "three numbers x, y, z", short(point))
                )
    try:
        with np.errstate(over="ignore"):
            array = np.array(skeletons, dtype=np.float32)
    except OverflowError:
        raise FormatError(
            message(str(path), "finite coordinates", "a number beyond any float")
        ) from None
    if not np.isfinite(array).all():
        t, v, _ = np.argwhere(~np.isfinite(array))[0]
        raise FormatError(
            message(f"{path}, frame {t}, joint {v}", "finite coordinates", array[t, v].tolist())
        )
    return array
