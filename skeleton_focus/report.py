"""Write one offline HTML file that shows a run's focus on each clip, by frame and by class.

The page is ``_report.html`` with style, scripts and clips embedded; it needs only a browser. As in
:mod:`skeleton_focus.plot`, absent persons and missing joints, which are exactly 0 in every
coordinate, are not drawn.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._checks import message
from .layouts import SkeletonLayout
from .plot import (
    BONE,
    INK,
    MUTED,
    PANEL,
    SHADES,
    TRUTH,
    Array,
    Values,
    array,
    points_down,
    sort_by_part,
)

# The one int16 that no position takes: these lie in -32767..32767.
_MISSING = -32768


class ReportClip(NamedTuple):
    """One clip of a report.

    Attributes:
        name: its name on the page; names must be unique.
        x: (C, T, V, M) positions, C of 2 or 3.
        label: index of its class, or None if it is unknown.
        probabilities: (classes,) in [0, 1]; the largest is the prediction.
        focus: (M, T, V) in [0, 1] for some classes, by their index.
        truth: (M, T, V), above 0 at the critical joints and frames, or None if they are unknown.
    """

    name: str
    x: Values
    label: int | None
    probabilities: Values
    focus: Mapping[int, Values]
    truth: Values | None = None


def write_report(
    path: str | Path,
    clips: Sequence[ReportClip],
    layout: SkeletonLayout,
    classes: Sequence[str],
    *,
    title: str,
    facts: Mapping[str, object] | None = None,
    invert_y: bool | None = None,
) -> Path:
    """Write a page that shows clips with focus, ground truth and prediction; return its path.

    Positions are stored with a resolution of 1/65534 of the clip's largest extent, a focus within
    1/510. An existing file is replaced when the new one is complete.

    Args:
        path: a path that ends in ``.html``, in an existing folder.
        clips: the clips, in the order of the page's list.
        layout: the skeleton.
        classes: unique names, at least two.
        title: the page's heading.
        facts: a small table below it, such as ``{"accuracy": "93.5 %"}``.
        invert_y: True if y points down in the clips, False if it points up; by default it points
            down in 2D, C = 2, as in pictures, and up in 3D.

    Raises:
        ValueError: an invalid path, clip or list of classes; the error names the clip.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from skeleton_focus.layouts import KINECT20
        >>> focus = {0: np.random.rand(1, 16, 20), 1: np.random.rand(1, 16, 20)}
        >>> clip = ReportClip("a01", np.random.rand(3, 16, 20, 1), 1, np.array([0.2, 0.8]), focus)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/report.html"
        ...     page = write_report(path, [clip], KINECT20, ["sit", "walk"], title="Two classes")
        ...     page.name, "Two classes</h1>" in page.read_text()
        ('report.html', True)
    """
    who = "write_report"
    path = Path(path)
    names = [clip.name for clip in clips]
    if path.suffix.lower() != ".html":
        raise ValueError(message(who, "a path that ends in .html", path))
    if not path.parent.is_dir():
        raise ValueError(message(who, "a path in a folder that exists", path))
    if not isinstance(layout, SkeletonLayout):
        raise ValueError(message(who, "a SkeletonLayout", type(layout).__name__))
    if isinstance(classes, str):
        raise ValueError(message(who, "a list of classes", repr(classes)))
    for what, least, given in (("clips", 1, names), ("classes", 2, list(classes))):
        if not all(isinstance(name, str) for name in given):
            raise ValueError(message(who, f"names of {what} to be strings", given))
        if len(given) < least:
            raise ValueError(message(who, f"at least {least} {what}", len(given)))
        repeated = sorted({name for name in given if given.count(name) > 1})
        if repeated:
            raise ValueError(message(who, f"unique names of {what}", f"{repeated} more than once"))
    groups = sort_by_part(layout.parts, layout.num_joints)
    shown = {
        "joints": [joint.replace("_", " ") for joint in layout.joints],
        "bones": layout.bones,
        "rows": [[part.replace("_", " "), members] for part, members in groups.items()],
        "classes": list(classes),
        "colours": {
            "ink": INK,
            "muted": MUTED,
            "bone": BONE,
            "truth": TRUTH,
            "panel": PANEL,
            "shades": SHADES,
        },
        "clips": [_encode(clip, layout, len(classes), invert_y) for clip in clips],
    }
    table = (
        (html.escape(str(key)), html.escape(str(value))) for key, value in (facts or {}).items()
    )
    parts = {
        "TITLE": html.escape(title),
        "FACTS": "".join(f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in table),
        # Escaped, so that a name such as "</script>" does not end the script that holds the data.
        "DATA": re.sub(
            "[<>&]", lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(shown, separators=(",", ":"))
        ),
        "INK": INK,
        "MUTED": MUTED,
        "BONE": BONE,
        "TRUTH": TRUTH,
        "PANEL": PANEL,
        "WRONG": SHADES[7],
        "SHADES": ", ".join(SHADES),
    }
    for key, file in (
        ("STYLE", "_report.css"),
        ("DRAW", "_report_draw.js"),
        ("PAGE", "_report_page.js"),
    ):
        parts[key] = _read(file)
    # In one pass, because a title may contain @DATA@.
    page = re.sub("@([A-Z]+)@", lambda place: parts[place[1]], _read("_report.html"))
    # A rename is atomic within a folder: nobody opens half a page.
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        draft.write_text(page, "utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _encode(
    clip: ReportClip, layout: SkeletonLayout, classes: int, invert_y: bool | None
) -> dict[str, Any]:
    """Check and encode a clip.

    Positions (M, T, V, C) become little-endian int16, the focus uint8, the ground truth bits.
    """
    who = f"write_report, clip {clip.name!r}"
    v = layout.num_joints
    x = array(who, "x", clip.x, f"C, T, V={v}, M")
    if x.shape[0] not in (2, 3):
        raise ValueError(message(who, "x (C, T, V, M) with C of 2 or 3", x.shape))
    c, t, _, m = x.shape
    seen = (x != 0).any(0)  # (T, V, M)
    if not seen.any():
        raise ValueError(message(who, "a clip with joints", "only zeros"))
    label = clip.label
    if label is not None and not _is_class(label, classes):
        raise ValueError(message(who, f"a label in 0..{classes - 1} or None", repr(label)))
    p = array(who, "probabilities", clip.probabilities, f"classes={classes}")
    if not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(message(who, "probabilities in [0, 1]", f"{p.min():.3g} to {p.max():.3g}"))
    unknown = [key for key in clip.focus if not _is_class(key, classes)]
    if not clip.focus or unknown:
        raise ValueError(
            message(who, f"a focus for classes in 0..{classes - 1}", unknown or "none")
        )
    heats = {
        key: array(who, "focus", focus, f"M={m}, T={t}, V={v}") for key, focus in clip.focus.items()
    }
    truth = (
        None if clip.truth is None else array(who, "truth", clip.truth, f"M={m}, T={t}, V={v}") > 0
    )
    if points_down(c, invert_y):
        x[1] = -x[1]  # x is a copy
    # One step for all axes, so that a body keeps its proportions; 1 for a clip that is one point.
    low = x[:, seen].min(1)
    high = x[:, seen].max(1)
    step = float((high - low).max() / 65534) or 1.0
    steps = np.rint((x - low[:, None, None, None]) / step) - 32767
    steps = np.where(seen, steps, _MISSING).astype("<i2").transpose(3, 1, 2, 0)  # (M, T, V, C)
    present = np.flatnonzero(seen.any((0, 1)))
    return {
        "name": clip.name,
        "label": None if label is None else int(label),
        "p": [float(f"{value:.6g}") for value in p],
        "shape": [len(present), t, v, c],
        "persons": (present + 1).tolist(),
        "low": low.tolist(),
        "step": step,
        "x": _base64(steps[present]),
        "focus": {
            int(key): _base64(np.rint(255 * heat[present]).astype(np.uint8))
            for key, heat in heats.items()
        },
        "truth": None if truth is None else _base64(np.packbits(truth[present])),
    }


def _is_class(label: object, classes: int) -> bool:
    """Whether a label is a Python or numpy integer, not a bool, in 0..classes - 1."""
    return isinstance(label, Integral) and not isinstance(label, bool) and 0 <= int(label) < classes


def _read(file: str) -> str:
    return files(__package__).joinpath(file).read_text("utf-8")


def _base64(values: Array) -> str:
    return base64.b64encode(values.tobytes()).decode()
