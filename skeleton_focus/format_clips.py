"""The library's own file of clips: one ``.npz`` that numpy alone can write.

The frames of all clips lie one after another in ``x``; ``lengths`` cuts them. Every other member is
optional::

    x           (frames, V, C) or (frames, M, V, C), positions
    lengths     (clips,), frames of each clip
    layout      the name of a skeleton, or SkeletonLayout.to_dict() as JSON
    label       (clips,), class from 0, or -1 if it is unknown
    classes     (classes,), names
    name        (clips,), unique names
    subject     (clips,), the performer's number from 1, or 0 if it is unknown
    visibility  (frames, V) or (frames, M, V), 0 where a joint is missing, else 1 or a confidence
    train       (clips,), True for training clips of the split "given"
    split_NAME  (clips,), "train", "test" or "" in the split NAME
"""

from __future__ import annotations

import io
import json
import os
import sys
import uuid
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ._checks import message
from ._npy import Npy, member_header, take, zip_errors
from .formats import (
    MOST_CLASSES,
    ClipFile,
    ClipSource,
    FormatError,
    clamp_scores,
    holds_scores,
    layout_of,
    open_plain_file,
    short,
)
from .layouts import LAYOUTS, SkeletonLayout, load_layout

# Zeros deflate to a thousandth: without limits, a small file could fill the memory.
_MOST_CLIPS = 1 << 22
_MOST_NUMBERS = 1 << 27  # of x in one clip: three hours of two persons of 25 joints at 60 fps
_MOST_BYTES = 1 << 28  # of a member other than x and visibility, which are read clip by clip
_SIDES = ("train", "test", "")
_OPTIONAL = ("label", "classes", "name", "subject", "visibility", "layout", "train")
_KINDS = {
    "lengths": "iu",
    "label": "iu",
    "subject": "iu",
    "train": "biu",
    "name": "U",
    "classes": "U",
    "layout": "U",
}


def is_clips_file(path: Path) -> bool:
    """Whether a file is a zip with the members ``x.npy`` and ``lengths.npy``.

    >>> is_clips_file(Path(__file__))
    False
    """
    try:
        with open_plain_file(path) as file, zipfile.ZipFile(file) as archive:
            return {"x.npy", "lengths.npy"} <= {*archive.namelist()}
    except Exception:  # zipfile raises many exceptions for damaged files
        return False


def open_clips_file(path: str | Path, *, layout: SkeletonLayout | None = None) -> ClipSource:
    """Open the library's own ``.npz``; the module's first lines list its members.

    ``x`` and ``visibility`` are read clip by clip and never loaded as a whole. Where no visibility
    is stored, a person whose joints are all 0 or NaN in a frame is absent there; and a third number
    in 0..1 of a skeleton of pictures, such as COCO17, is the score, which becomes the visibility.
    The first clip in which it is not 0 throughout decides whether it is a score or z.

    Args:
        path: the file.
        layout: the skeleton; by default the file's own, else the named layout with this number of
            joints.

    Raises:
        FormatError: a member is missing, has the wrong shape or dtype, or holds invalid values; it
            names the member. The error of a single clip is yielded instead of the clip.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "clips.npz"
        >>> x = np.random.rand(12, 17, 2)  # a clip of 5 frames and one of 7
        >>> np.savez(path, x=x, lengths=[5, 7], label=[0, 1], layout="COCO17")
        >>> [(clip.name, clip.x.shape, clip.label) for clip in open_clips_file(path).read()]
        [('0', (2, 5, 17, 1), 0), ('1', (2, 7, 17, 1), 1)]
    """
    path = Path(path)
    with open_plain_file(path) as file, zip_errors(str(path)), zipfile.ZipFile(file) as archive:
        arrays = [name for name in archive.namelist() if name.endswith(".npy")]
        members = {name.removesuffix(".npy"): archive.getinfo(name) for name in arrays}
        _check_names(path, members)

        def read(name: str, axes: str = "clips") -> NDArray[Any]:
            kinds = "U" if name.startswith("split_") else _KINDS[name]
            return _read_member(f"{path}, {name}", archive, members[name], axes, kinds)

        lengths = read("lengths")
        count = len(lengths)
        where = f"{path}, lengths"
        if count > _MOST_CLIPS:
            raise FormatError(message(where, f"at most {_MOST_CLIPS} clips", count))
        if not count or lengths.min() < 1:
            raise FormatError(
                message(
                    where, "at least one clip, each of at least one frame", short(lengths.tolist())
                )
            )
        heads = _large_headers(path, archive, members, lengths.tolist())
        shape = heads["x"].shape
        persons, joints, channels = (1, *shape[1:]) if len(shape) == 3 else shape[1:]
        columns = {
            name: read(name) for name in ("label", "name", "subject", "train") if name in members
        }
        splits = {
            name.removeprefix("split_"): read(name).tolist()
            for name in members
            if name.startswith("split_")
        }
        classes = read("classes", "classes").tolist() if "classes" in members else []
        stated = str(read("layout", "")) if "layout" in members and layout is None else None
    if "train" in columns:
        train = columns.pop("train")
        splits = {"given": ["train" if side else "test" for side in train.tolist()], **splits}
    for name, column in [*columns.items(), *splits.items()]:
        if len(column) != count:
            raise FormatError(
                message(f"{path}, {name}", f"{count} values, one for each clip", len(column))
            )
    _check_splits(path, splits)
    labels = _labels(path, columns.get("label"), count, classes)
    names = columns["name"].tolist() if "name" in columns else [str(i) for i in range(count)]
    subjects = columns["subject"].tolist() if "subject" in columns else [0] * count
    if stated is not None:
        layout = _stated_layout(path, stated)
    sides = [{split: column[i] for split, column in splits.items()} for i in range(count)]
    clips = [*zip(names, labels, subjects, sides, lengths.tolist(), strict=True)]
    sizes = (persons, joints, channels)
    scored = False
    if channels == 3 and "visibility" not in heads:
        scored = _has_scores(path, heads["x"], sizes, lengths.tolist(), layout)
    flat = scored or channels == 2
    return ClipSource(
        format="clips",
        layout=layout_of(f"{path}, x", joints, layout, flat=flat),
        assumed=layout is None,
        files=[path],
        num_clips=count,
        readers=[partial(_read_clips, path, heads, sizes, clips, scored)],
        splits=tuple(splits),
        classes=tuple(classes),
    )


def _has_scores(
    path: Path,
    head: Npy,
    sizes: tuple[int, int, int],
    lengths: Sequence[int],
    layout: SkeletonLayout | None,
) -> bool:
    """Whether the third number is a score, judged by the first clip with a third number above 0."""
    where = f"{path}, x"
    with open_plain_file(path) as file, zip_errors(where), zipfile.ZipFile(file) as archive:
        member = _at_first_number(path, archive, "x", head)
        for frames in lengths:
            third = np.nan_to_num(_numbers(where, member, head.dtype, (frames, *sizes))[..., 2])
            if third.any():
                return holds_scores(third, sizes[1], layout)
    return False


def _check_names(path: Path, members: Collection[str]) -> None:
    """Refuse a member such as ``labels``: it would be ignored, and the clips have no label."""
    for name in members:
        for known in _OPTIONAL:
            if name not in _KINDS and known not in members and _plain(name) == _plain(known):
                raise FormatError(message(str(path), f"the member {known}", short(name)))


def _plain(name: str) -> str:
    """Leave out what a typo may change: case and the plural.

    >>> _plain("Labels") == _plain("label")
    True
    """
    return name.lower().rstrip("es")


def _large_headers(
    path: Path,
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    lengths: Sequence[int],
) -> dict[str, Npy]:
    """Read the headers of x and, if there is one, of the visibility; check that they match."""
    x = _large_header(path, archive, members["x"], "frames, V, C or frames, M, V, C")
    if x.shape[-1] not in (2, 3):
        raise FormatError(message(f"{path}, x", "C of 2 or 3 as the last axis", x.shape))
    if max(lengths) * prod(x.shape[1:]) > _MOST_NUMBERS:
        expected = f"clips of at most {_MOST_NUMBERS} numbers"
        raise FormatError(message(f"{path}, x", expected, f"{max(lengths)} x {x.shape[1:]}"))
    total = sum(lengths)
    if x.shape[0] != total:
        raise FormatError(message(f"{path}, x", f"{total} frames, the sum of lengths", x.shape[0]))
    if "visibility" not in members:
        return {"x": x}
    info = members["visibility"]
    visibility = _large_header(path, archive, info, "frames, V or frames, M, V")
    if visibility.shape != x.shape[:-1]:
        where = f"{path}, visibility"
        raise FormatError(message(where, str(x.shape[:-1]), visibility.shape))
    return {"x": x, "visibility": visibility}


def _large_header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, axes: str) -> Npy:
    """The header of x or visibility."""
    where = f"{path}, {info.filename[:-4]}"
    header = member_header(where, archive, info, axes, kinds="fiub", any_order=True)
    # Fortran order keeps the frames of a clip apart, so such an array is read as a whole.
    if header.fortran and info.file_size > _MOST_BYTES:
        hint = "write it with numpy.ascontiguousarray"
        raise FormatError(message(where, "numbers in C order", "Fortran order", hint))
    return header


def _read_member(
    where: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, axes: str, kinds: str
) -> NDArray[Any]:
    """Read a small member as a whole."""
    if info.file_size > _MOST_BYTES:
        raise FormatError(message(where, f"at most {_MOST_BYTES} bytes", info.file_size))
    header = member_header(where, archive, info, axes, kinds=kinds)
    with zip_errors(where), archive.open(info) as member:
        content = member.read()
    if kinds == "U":
        order = header.dtype.str[0]
        points = np.frombuffer(content, f"{order}u4", offset=header.offset)
        if points.max(initial=0) > sys.maxunicode:
            raise FormatError(message(where, "text", "numbers that are no characters"))
    return np.frombuffer(content, header.dtype, offset=header.offset).reshape(header.shape)


def _stated_layout(path: Path, text: str) -> SkeletonLayout:
    where = f"{path}, layout"
    try:
        if text.lstrip().startswith("{"):
            return SkeletonLayout.from_dict(json.loads(text))
        if text.upper() in LAYOUTS:
            return load_layout(text)
        # Not load_layout, which would read any file that a downloaded file of clips names.
        raise ValueError(f"expected one of {', '.join(LAYOUTS)}, got {short(text)}")
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        expected = "the name of a layout, or one as JSON"
        raise FormatError(message(where, expected, short(text), reason)) from None


def _labels(
    path: Path, column: NDArray[Any] | None, count: int, classes: Sequence[str]
) -> list[int]:
    where = f"{path}, label"
    labels = [-1] * count if column is None else [int(label) for label in column]
    most = len(classes) or MOST_CLASSES
    outside = [label for label in labels if not -1 <= label < most]
    if outside:
        raise FormatError(message(where, f"classes in 0..{most - 1}, or -1 if unknown", outside[0]))
    if len({*classes}) != len(classes):
        raise FormatError(message(f"{path}, classes", "each name once", short([*classes])))
    return labels


def _check_splits(path: Path, splits: Mapping[str, Sequence[str]]) -> None:
    for name, column in splits.items():
        strange = {*column} - {*_SIDES}
        if strange:
            raise FormatError(
                message(
                    f"{path}, split_{name}", "train, test or an empty text", short(min(strange))
                )
            )


def _read_clips(
    path: Path,
    heads: Mapping[str, Npy],
    sizes: tuple[int, int, int],
    clips: Sequence[tuple[str, int, int, Mapping[str, str], int]],
    scored: bool,
) -> Iterator[ClipFile | FormatError]:
    """Yield every clip, reading x and the visibility in parallel; ``sizes`` is (M, V, C)."""
    persons, joints, channels = sizes
    with open_plain_file(path) as file, zip_errors(str(path)), zipfile.ZipFile(file) as archive:
        members = {
            name: _at_first_number(path, archive, name, head) for name, head in heads.items()
        }
        for name, label, subject, sides, frames in clips:
            where = f"{path}, clip {short(name)}"
            shape = (frames, persons, joints)
            x = _numbers(where, members["x"], heads["x"].dtype, (*shape, channels))
            seen = None
            if "visibility" in heads:
                seen = _numbers(where, members["visibility"], heads["visibility"].dtype, shape)
            try:
                if scored:
                    x, seen = _with_scores(where, x)
                x, seen = _checked(where, x, seen)
            except FormatError as error:
                yield error
                continue
            yield ClipFile(name, x, label, subject, visibility=seen, sides=sides)


def _at_first_number(path: Path, archive: zipfile.ZipFile, name: str, head: Npy) -> IO[bytes]:
    """Open a member after its header, with its numbers in C order."""
    where = f"{path}, {name}"
    member = archive.open(f"{name}.npy")
    take(where, member, head.offset)
    if not head.fortran:
        return member
    content = take(where, member, head.size - head.offset)
    numbers = np.frombuffer(content, head.dtype).reshape(head.shape, order="F")
    return io.BytesIO(numbers.tobytes())


def _numbers(
    where: str, member: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    content = take(where, member, prod(shape) * dtype.itemsize)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values raise in `_checked`
        return np.frombuffer(content, dtype).reshape(shape).astype(np.float32)


def _with_scores(
    where: str, x: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Divide x, y, score into positions and visibility."""
    scores = np.nan_to_num(x[..., 2])
    strange = scores[(scores <= -0.1) | (scores >= 1.1)]
    if strange.size:
        hint = "if the third number is z, store a visibility"
        raise FormatError(message(where, "a score in 0..1 as third number", strange[0], hint))
    return x[..., :2], clamp_scores(scores)


def _checked(
    where: str, x: NDArray[np.float32], seen: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Convert x (T, M, V, C) and visibility (T, M, V) to a clip's (C, T, V, M) and (T, V, M)."""
    if seen is None:
        present = (np.nan_to_num(x) != 0).any((2, 3), keepdims=True)[..., 0]  # (T, M, 1)
        seen = np.broadcast_to(present, x.shape[:3]).astype(np.float32)
    if not ((seen >= 0) & (seen <= 1)).all():
        got = f"values from {seen.min():g} to {seen.max():g}"
        raise FormatError(message(where, "visibility in [0, 1]", got))
    if not seen.any():
        raise FormatError(message(where, "a joint that was seen", "none in any frame"))
    x = np.where(seen[..., None] > 0, x, 0)
    if not np.isfinite(x).all():
        t, m, v, _ = np.argwhere(~np.isfinite(x))[0].tolist()
        hint = "set its visibility to 0"
        got = f"joint {v} of person {m} in frame {t}"
        raise FormatError(message(where, "finite numbers", f"NaN or infinity, {got}", hint))
    visibility = None if (seen == 1).all() else np.ascontiguousarray(seen.transpose(0, 2, 1))
    return np.ascontiguousarray(x.transpose(3, 0, 2, 1)), visibility


def write_clips(
    path: Path,
    members: Mapping[str, NDArray[Any]],
    large: Mapping[str, tuple[tuple[int, ...], Callable[[], Iterator[NDArray[Any]]]]],
) -> None:
    """Write an ``.npz`` under another name and rename it when it is complete.

    Args:
        path: the file.
        members: arrays by name.
        large: for each large array its shape and a function that yields it part by part, so that it
            is never in memory as a whole.
    """
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, (shape, parts) in large.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    for part in parts():
                        member.write(np.ascontiguousarray(part, "<f4").data)
            for name, value in members.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
