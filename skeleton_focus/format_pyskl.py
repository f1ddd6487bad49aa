"""Read pickles of pyskl and mmaction2: one file has all clips, 2D or 3D, and the splits."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ._checks import message
from ._unpickle import PickledArray, describe, label_of, load_pickle
from .formats import (
    ClipFile,
    ClipSource,
    FormatError,
    clamp_scores,
    holds_scores,
    layout_of,
    open_plain_file,
)
from .layouts import NTU25, NTU25_PYSKL, SkeletonLayout

# "xsub_train", "train" or "train1": what precedes the side, or the number behind it, names the
# split.
_SIDE = re.compile(r"(?:(?P<name>.+)_)?(?P<side>train|val|test)(?P<number>\d*)")
_NTU_NAME = re.compile(r"S(?P<setup>\d{3})C(?P<view>\d{3})P(?P<subject>\d{3})R\d{3}A\d{3}")


def open_pyskl(
    path: str | Path, *, persons: int = 2, layout: SkeletonLayout | None = None
) -> ClipSource:
    """Open a pickle of pyskl or mmaction2 without running its code; its arrays are read one by one.

    The file holds ``split``, {name: [frame_dir, ...]}, and ``annotations``, a list of {frame_dir,
    label, keypoint (M, T, V, C), keypoint_score (M, T, V), total_frames}, the last two not in every
    file; or it is that list alone, without a split. Numbers are arrays or nested lists, names are
    lists or arrays. ``xsub_train`` and ``xsub_val`` (or ``xsub_test``) make the split ``"xsub"``,
    ``train`` and ``val`` the split ``"given"``, ``train1`` and ``test1`` the split ``"split1"``; if
    a split has both a val and a test list, val is not used.

    Visibility is the score, clamped to 0..1 (peaks of a heat map may lie slightly outside); without
    scores, a body whose joints are all 0 in a frame is absent there. Where visibility is 0, x is 0.
    Units are metres or pixels.

    Args:
        path: the pickle, of any protocol.
        persons: M, bodies kept: those seen the most, in the file's order; absent bodies are zeros.
        layout: the skeleton; by default it follows from V: 25 joints NTU25_PYSKL, 20 KINECT20, 18
            OPENPOSE18, 17 COCO17.

    Raises:
        FormatError: another kind of file, no skeletons, or a split that does not match the clips.
            The error of a single annotation is yielded instead of its clip.

    Example:
        >>> import pickle, tempfile
        >>> clip = {"frame_dir": "a", "label": 3, "total_frames": 7}
        >>> clip["keypoint"] = np.ones((1, 7, 17, 2), np.float16)
        >>> path = Path(tempfile.mkdtemp()) / "data.pkl"
        >>> content = {"split": {"train": ["a"], "val": []}, "annotations": [clip]}
        >>> _ = path.write_bytes(pickle.dumps(content))
        >>> source = open_pyskl(path)
        >>> source.layout.name, source.splits
        ('COCO17', ('given',))
        >>> [(clip.x.shape, clip.sides) for clip in source.read()]
        [((2, 7, 17, 2), {'given': 'train'})]
    """
    path = Path(path)
    if persons < 1:
        raise ValueError(message("open_pyskl", "persons of at least 1", persons))
    content = load_pickle(path)
    if type(content) is list:
        content = {"annotations": content}
    if type(content) is not dict or "annotations" not in content:
        expected = "a dict with the keys split and annotations, or a list of annotations"
        raise FormatError(message(str(path), expected, _describe_keys(content)))
    split = content.get("split")
    annotations = content["annotations"]
    if type(split) not in (dict, type(None)) or type(annotations) is not list or not annotations:
        got = f"split {describe(split)}, annotations {describe(annotations)}"
        raise FormatError(
            message(str(path), "split as a dict, annotations as a non-empty list", got)
        )
    joints, channels = _common_shape(path, annotations)
    scored = channels == 3 and _has_scores(annotations, joints, layout)
    skeleton = layout_of(str(path), joints, layout, flat=scored or channels == 2)
    sides: dict[str, dict[str, str]] = {name: {} for name in map(_name, annotations) if name}
    splits = () if split is None else _read_splits(path, split, sides)
    return ClipSource(
        format="pyskl pickle",
        layout=NTU25_PYSKL if skeleton is NTU25 and layout is None else skeleton,
        assumed=layout is None,
        files=[path],
        num_clips=len(annotations),
        readers=[_Annotations(path, annotations, sides, joints, channels, persons, scored)],
        splits=splits,
    )


def _describe_keys(value: object) -> str:
    """Describe the keys of a dict for an error message."""
    if type(value) is not dict:
        return describe(value)
    names = [str(key)[:60] for key in list(value)[:12]]
    listed = ", ".join(name if name.isprintable() else repr(name) for name in names)
    return f"the keys {listed}"[:200]


def _name(annotation: Any) -> str:
    """An annotation's frame_dir, empty if it has none."""
    name = annotation.get("frame_dir") if type(annotation) is dict else None
    return name if type(name) is str else ""


def _common_shape(path: Path, annotations: Sequence[Any]) -> tuple[int, int]:
    """The most common V and C of the clips."""
    keypoints = [a.get("keypoint") for a in annotations if type(a) is dict]
    found = [_shape_of(keypoint) for keypoint in keypoints]
    shapes = Counter(shape[2:] for shape, _ in found if len(shape) == 4)
    if not shapes:
        first = annotations[0]
        if type(first) is dict and "keypoint" in first:
            got = describe(first["keypoint"])
        else:
            got = _describe_keys(first)
        hint = "if it refers to raw_file or kp files, insert their skeletons with pyskl's tools"
        raise FormatError(
            message(str(path), "annotations that hold keypoint (M, T, V, C)", got, hint)
        )
    # The most common shape and not the first one: a damaged annotation is then reported in place of
    # its clip instead of making all other clips wrong.
    (joints, channels), _ = shapes.most_common(1)[0]
    if channels not in (2, 3):
        raise FormatError(
            message(str(path), "keypoint (M, T, V, C) with C of 2 or 3", f"C={channels}")
        )
    total = sum(prod(shape) * itemsize for shape, itemsize in found)
    with open_plain_file(path) as file:
        size = os.fstat(file.fileno()).st_size
    if total > size:  # a file that refers to one array ten thousand times would fill the disk
        raise FormatError(
            message(str(path), f"keypoint arrays of at most the file's {size} bytes", total)
        )
    return joints, channels


def _shape_of(value: Any) -> tuple[tuple[int, ...], int]:
    """The shape of an array or of nested lists, by their first entries; the bytes of a number.

    A number in a list takes at least one byte of the file.
    """
    shape: tuple[int, ...] = ()
    while type(value) in (list, tuple) and value and len(shape) < 4:
        shape += (len(value),)
        value = value[0]
    if type(value) is PickledArray:
        return shape + value.array.shape, value.array.itemsize
    return shape, 1


def _has_scores(annotations: Sequence[Any], joints: int, layout: SkeletonLayout | None) -> bool:
    """Whether the third channel is a score, judged by some clips."""
    thirds = []
    for annotation in annotations[:: max(len(annotations) // 16, 1)]:
        keypoint = annotation.get("keypoint") if type(annotation) is dict else None
        with contextlib.suppress(FormatError):  # reported when the clip is read
            points = _numbers("", keypoint, "", (0, 0, joints, 3))
            thirds.append(points[..., 2].ravel())
    return bool(thirds) and holds_scores(np.concatenate(thirds), joints, layout)


def _read_splits(
    path: Path, split: dict[Any, Any], sides: dict[str, dict[str, str]]
) -> tuple[str, ...]:
    """Write each clip's side in each split into ``sides``; return the splits in file order."""
    splits: dict[str, dict[str, Any]] = {}
    if not split:
        raise FormatError(
            message(f"{path}, split", "a train list and a val or test list", "no list")
        )
    # First gather the lists of each split, as train and val may come in any order.
    for key in split:
        parts = _SIDE.fullmatch(key) if type(key) is str else None
        if parts is None:
            expected = "names of splits that end in train, val or test"
            raise FormatError(message(f"{path}, split", expected, describe(key)))
        name = parts["name"] + parts["number"] if parts["name"] else f"split{parts['number']}"
        lists = splits.setdefault("given" if name == "split" else name, {})
        if parts["side"] in lists:
            got = f"{describe(lists[parts['side']])} and {describe(key)}"
            raise FormatError(message(f"{path}, split", "each split once", got))
        lists[parts["side"]] = key
    for name, lists in splits.items():
        test = lists.get("test", lists.get("val"))
        if test is None or "train" not in lists:
            expected = "a train list and a val or test list of each split"
            raise FormatError(
                message(f"{path}, split", expected, ", ".join(map(describe, lists.values())))
            )
        for side, key in (("train", lists["train"]), ("test", test)):
            where = f"{path}, split {describe(key)}"
            for clip in _names_of(where, split[key]):
                if type(clip) is not str or clip not in sides:
                    raise FormatError(
                        message(where, "the frame_dir of an annotation", describe(clip))
                    )
                # A clip on both sides would be tested after it was trained on. Twice on one side is
                # harmless.
                if sides[clip].setdefault(name, side) != side:
                    expected = f"clips that are not in {describe(lists['train'])}"
                    raise FormatError(message(where, expected, describe(clip)))
    return tuple(splits)


def _names_of(where: str, value: Any) -> Sequence[Any]:
    """The names in a list or in an array of text."""
    if type(value) is PickledArray and value.array.dtype.kind == "U" and value.array.ndim == 1:
        try:
            return value.texts()
        except UnicodeDecodeError:
            raise FormatError(message(where, "names as text", "bytes that are none")) from None
    if type(value) not in (list, tuple):
        raise FormatError(message(where, "a list of frame_dir", describe(value)))
    return cast(Sequence[Any], value)


@dataclass(frozen=True)
class _Annotations:
    """Reads one annotation after the other when called."""

    path: Path
    annotations: Sequence[Any]
    sides: dict[str, dict[str, str]]
    joints: int
    channels: int
    persons: int
    scored: bool  # whether the last channel is the score

    def __call__(self) -> Iterator[ClipFile | FormatError]:
        seen: set[str] = set()
        for index, annotation in enumerate(self.annotations):
            name = _name(annotation)
            where = f"{self.path}, annotation {index}" + (f" ({describe(name)})" if name else "")
            try:
                if not name:
                    given = annotation
                    if type(annotation) is dict:
                        given = annotation.get("frame_dir")
                    got = describe(given)
                    raise FormatError(message(where, "a dict with a frame_dir", got))
                if name in seen:
                    raise FormatError(
                        message(where, "each frame_dir once", "one of an earlier annotation")
                    )
                seen.add(name)
                clip: ClipFile | FormatError = self._clip(where, name, annotation)
            except FormatError as error:
                clip = error
            yield clip

    def _clip(self, where: str, name: str, annotation: dict[Any, Any]) -> ClipFile:
        if not {"label", "keypoint"} <= set(annotation):
            raise FormatError(
                message(where, "the keys frame_dir, label and keypoint", _describe_keys(annotation))
            )
        label = label_of(f"{where}, label", annotation["label"])
        axes = f"M, T, V={self.joints}, C={self.channels}"
        points = _numbers(
            f"{where}, keypoint", annotation["keypoint"], axes, (0, 0, self.joints, self.channels)
        )
        bodies, frames = points.shape[:2]
        total = annotation.get("total_frames", frames)
        # The type is compared because True == 1.
        if total != frames or type(total) is not int:
            expected = f"total_frames {frames}, the length of keypoint"
            raise FormatError(message(where, expected, describe(total)))
        # Without scores a body counts as seen in the frames in which it is not all zeros.
        present = np.any(points != 0, axis=(2, 3))
        seen = np.repeat(present[..., None], self.joints, 2).astype(np.float32)  # (M, T, V)
        if annotation.get("keypoint_score") is not None:
            axes = f"M={bodies}, T={frames}, V={self.joints}"
            scores = _numbers(
                f"{where}, keypoint_score", annotation["keypoint_score"], axes, seen.shape
            )
            seen = clamp_scores(scores)
        elif self.scored:
            seen = clamp_scores(points[..., 2])
        if self.scored:
            points = points[..., :2]
        if not seen.any():
            raise FormatError(message(where, "a body in some frame", "none in any"))
        # The stable argsort prefers the earlier of bodies that are seen equally much; np.sort puts
        # those kept back into the file's order.
        kept = np.sort(np.argsort(-seen.sum((1, 2)), kind="stable")[: self.persons])
        points = np.where(seen[kept, ..., None] > 0, points[kept], 0)
        x = np.zeros((points.shape[3], frames, self.joints, self.persons), np.float32)
        visibility = np.zeros(x.shape[1:], np.float32)
        x[..., : len(kept)] = points.transpose(3, 1, 2, 0)
        visibility[..., : len(kept)] = seen[kept].transpose(1, 2, 0)
        # Annotations of NTU keep the clip's file name as frame_dir.
        ntu = _NTU_NAME.fullmatch(name)
        subject, view, setup = (
            int(ntu[part]) if ntu else 0 for part in ("subject", "view", "setup")
        )
        partial_visibility = None if (visibility == 1).all() else visibility
        return ClipFile(name, x, label, subject, view, setup, partial_visibility, self.sides[name])


def _numbers(where: str, value: Any, axes: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Convert numbers of this shape (0: any size but 0) to float32; check that they are finite."""
    found, _ = _shape_of(value)
    array = _from_lists(value, found)
    if array is None:
        raise FormatError(message(where, f"numbers ({axes})", describe(value)))
    fits = array.dtype.kind in "fiu" and array.ndim == len(shape)
    if fits:
        for got, size in zip(array.shape, shape, strict=True):
            fits = fits and (got == size if size else got >= 1)
    if not fits:
        raise FormatError(
            message(where, f"numbers ({axes})", f"{describe(value)} of {array.dtype}")
        )
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values raise below
        numbers: NDArray[np.float32] = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        at = tuple(np.argwhere(~np.isfinite(numbers))[0].tolist())
        raise FormatError(message(where, "finite numbers", f"{numbers[at]} at {at} of ({axes})"))
    return numbers


def _from_lists(value: Any, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Convert nested lists of numbers or arrays to one array; None if their sizes differ.

    The sizes are compared first: lists that share entries may claim more numbers than fit into
    memory.
    """
    if type(value) is PickledArray:
        return value.array if value.array.shape == shape else None
    if type(value) not in (list, tuple) or not shape or len(value) != shape[0]:
        return None
    if len(shape) == 1:
        try:
            return np.array(value, np.float64) if {*map(type, value)} <= {int, float} else None
        except OverflowError:  # an integer of thousands of digits
            return None
    parts = [_from_lists(part, shape[1:]) for part in value]
    return None if any(part is None for part in parts) else np.stack(cast(list[Any], parts))
