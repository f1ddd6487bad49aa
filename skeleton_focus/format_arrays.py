"""Arrays of CTR-GCN (one ``.npz``) and of ST-GCN and 2s-AGCN (a folder of ``.npy``), of any size.

CTR-GCN's file is streamed clip by clip; ST-GCN's files are memory-mapped in place.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset

from ._checks import message
from ._npy import HEAD, Npy, member_header, read_header, take, zip_errors
from ._packed import Index, Loaded, MappedClips, map_file
from ._unpickle import PickledArray, describe, label_of, load_pickle
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
from .layouts import KINECT20, NTU25, SkeletonLayout

_SIDES = ("train", "test")
_MEMBERS = [f"{what}_{side}.npy" for side in _SIDES for what in "xy"]
# The file says nothing about its skeleton; among these, the width M*V*C is unique to each.
_WIDTHS = {3 * m * layout.num_joints: (m, layout) for m in (1, 2) for layout in (NTU25, KINECT20)}
_MOST_FRAMES = 10_000


def open_ctr_gcn(path: str | Path, *, layout: SkeletonLayout | None = None) -> ClipSource:
    """Open CTR-GCN's ``.npz``: x_train, x_test (N, T, M*V*C), y_train, y_test (N, classes).

    The labels y are one-hot. The file is never loaded as a whole: clips are streamed from its
    members, stored or deflated. C is 3; M*V*C of 150 or 75 means two bodies or one of NTU25, 120 or
    60 of KINECT20. Frames of zeros at the end of a clip are padding and are removed; a body whose
    joints are all 0 in a frame is absent there, with visibility 0. Clips are named ``train_000012``
    and ``test_000003``; the only split is ``"given"``.

    Raises:
        FormatError: not a zip, other members, or headers that do not match; it names the member.
            The error of a single clip is yielded instead of the clip; ``read`` raises if a member
            is truncated or damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "NTU60_CS.npz"
        >>> x, y = np.ones((2, 300, 150), np.float32), np.eye(60)[:2]
        >>> np.savez(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
        >>> clips = [*open_ctr_gcn(path).read()]
        >>> [(clip.name, clip.x.shape, clip.label, clip.sides["given"]) for clip in clips[1:]]
        [('train_000001', (3, 300, 25, 2), 1, 'train'), ('test_000000', (3, 300, 25, 2), 0, 'test')]
    """
    path = Path(path)
    with open_plain_file(path) as file, zip_errors(str(path)), zipfile.ZipFile(file) as archive:
        names = sorted(archive.namelist())
        if names != sorted(_MEMBERS):
            got = ", ".join(map(short, names[:8]))[:200] or "none"
            expected = f"the members {', '.join(_MEMBERS)}, or x.npy and lengths.npy"
            raise FormatError(message(str(path), expected, got))
        heads = {}
        for name in _MEMBERS:
            axes, kinds = ("N, T, M*V*C", "f") if name[0] == "x" else ("N, classes", "fiub")
            info = archive.getinfo(name)
            heads[name] = member_header(f"{path}, {name}", archive, info, axes, kinds=kinds)
    _, frames, width = heads["x_train.npy"].shape
    if width not in _WIDTHS or frames > _MOST_FRAMES:
        widths = ", ".join(map(str, sorted(_WIDTHS)))
        expected = f"(N, T, M*V*C) with M*V*C of {widths}, T up to {_MOST_FRAMES}"
        raise FormatError(message(f"{path}, x_train.npy", expected, heads["x_train.npy"].shape))
    # N is that of x on either side; all other axes are those of the training side.
    for x, y in (_MEMBERS[:2], _MEMBERS[2:]):
        for name, axes, first in (
            (x, "N, T, M*V*C", "x_train.npy"),
            (y, "N, classes", "y_train.npy"),
        ):
            sizes = heads[x].shape[:1] + heads[first].shape[1:]
            if heads[name].shape != sizes or sizes[-1] > MOST_CLASSES:
                raise FormatError(
                    message(f"{path}, {name}", f"({axes}) of {sizes}", heads[name].shape)
                )
    persons, usual = _WIDTHS[width]
    skeleton = usual if layout is None else layout_of(str(path), usual.num_joints, layout)
    return ClipSource(
        format="CTR-GCN arrays",
        layout=skeleton,
        assumed=layout is None,
        files=[path],
        num_clips=heads["x_train.npy"].shape[0] + heads["x_test.npy"].shape[0],
        # One reader for all clips: a deflated member can only be read from its start.
        readers=[partial(_read_ctr_gcn, path, heads, (frames, persons, skeleton.num_joints, 3))],
        splits=("given",),
    )


def _read_ctr_gcn(
    path: Path, heads: Mapping[str, Npy], shape: tuple[int, int, int, int]
) -> Iterator[ClipFile | FormatError]:
    """Yield every clip, reading x and y in parallel; ``shape`` is (T, M, V, C).

    zipfile verifies the checksum.
    """
    with open_plain_file(path) as file, zip_errors(str(path)), zipfile.ZipFile(file) as archive:
        for side in _SIDES:
            x = heads[f"x_{side}.npy"]
            y = heads[f"y_{side}.npy"]
            with archive.open(f"x_{side}.npy") as points, archive.open(f"y_{side}.npy") as rows:
                take(f"{path}, x_{side}.npy", points, x.offset)
                take(f"{path}, y_{side}.npy", rows, y.offset)
                for i in range(x.shape[0]):
                    where = f"{path}, x_{side}.npy, clip {i}"
                    label_where = f"{path}, y_{side}.npy, clip {i}"
                    # The bytes of a clip are taken even if its label turns out to be wrong, so that
                    # the next clip starts at its own bytes.
                    numbers = np.frombuffer(
                        take(where, points, prod(shape) * x.dtype.itemsize), x.dtype
                    )
                    row = np.frombuffer(
                        take(label_where, rows, y.shape[1] * y.dtype.itemsize), y.dtype
                    )
                    try:
                        if np.count_nonzero(row) != 1 or row.max() != 1:
                            raise FormatError(
                                message(label_where, "a one-hot row", short(row[:8].tolist()))
                            )
                        poses, visibility = _poses(where, numbers.reshape(shape))
                        clip: ClipFile | FormatError = ClipFile(
                            f"{side}_{i:06d}",
                            poses,
                            int(row.argmax()),
                            visibility=visibility,
                            sides={"given": side},
                        )
                    except FormatError as error:
                        clip = error
                    yield clip


def _poses(
    where: str, numbers: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Convert a clip's numbers (T, M, V, C) to x (C, T, V, M) and visibility, without padding."""
    # What float32 cannot hold becomes infinite, which _length raises for.
    with np.errstate(over="ignore", invalid="ignore"):
        x = numbers.astype(np.float32).transpose(3, 0, 2, 1)
    x = x[:, : _length(where, x)]
    present = np.any(x != 0, axis=(0, 2))  # (T, M)
    visibility = (
        None if present.all() else np.repeat(present[:, None], x.shape[2], 1).astype(np.float32)
    )
    return np.ascontiguousarray(x), visibility


def trim(where: str, x: Tensor) -> Tensor:
    """Return a view of a clip x (C, T, V, M) without the frames of zeros at its end.

    Raises:
        FormatError: NaN or infinity, or only zeros; ``where`` names the clip.

    >>> import torch
    >>> x = torch.ones(3, 8, 25, 2)
    >>> x[:, [1, 4, 5, 6, 7]] = 0
    >>> trim("train_data.npy, clip 3", x).shape
    torch.Size([3, 4, 25, 2])
    """
    return x[:, : _length(where, x.numpy())]


def _length(where: str, x: NDArray[np.float32]) -> int:
    """The number of frames up to the last non-zero one."""
    if not np.isfinite(x).all():
        at = tuple(np.argwhere(~np.isfinite(x))[0].tolist())
        raise FormatError(message(where, "finite numbers", f"{x[at]} at {at} of (C, T, V, M)"))
    frames = np.flatnonzero(np.any(x != 0, axis=(0, 2, 3)))
    if not len(frames):
        raise FormatError(message(where, "a body in some frame", "none in any"))
    return int(frames[-1]) + 1


def open_st_gcn(path: str | Path, *, layout: SkeletonLayout | None = None) -> ClipSource | None:
    """Open a folder of ST-GCN or 2s-AGCN, memory-mapped; None if it holds none of its files.

    ``train_data_joint.npy`` or else ``train_data.npy``, (N, C, T, V, M), has its names and labels
    in ``train_label.pkl``; the test side's files begin with ``val``. A folder may hold only one
    side. A clip's length, its bodies and whether it is finite are determined when it is read:
    :func:`trim`. A third channel in 0..1 of a skeleton of pictures, such as OpenPose's 18 joints in
    ST-GCN's Kinetics, is the confidence: it becomes the visibility. Otherwise it is z.

    Raises:
        FormatError: data without labels or labels without data; a header, a size, names or labels
            that do not match.

    Example:
        >>> import pickle, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "val_data.npy", np.ones((2, 3, 300, 18, 2), np.float32))
        >>> _ = (folder / "val_label.pkl").write_bytes(pickle.dumps((["a", "b"], [0, 5])))
        >>> source = open_st_gcn(folder)
        >>> source.layout.name, source.mapped.index.labels, source.mapped.x[1].shape
        ('OPENPOSE18', [0, 5], torch.Size([2, 300, 18, 2]))
    """
    folder = Path(path)
    files = list[Path]()
    index = Index(sides={"given": []})
    arrays_of: dict[Path, tuple[Any, Sequence[str]]] = {}
    for side, prefix in zip(_SIDES, ("train", "val"), strict=True):
        arrays = [folder / f"{prefix}_data_joint.npy", folder / f"{prefix}_data.npy"]
        data = next((file for file in arrays if file.exists()), None)
        labels = folder / f"{prefix}_label.pkl"
        if data is None and not labels.exists():
            continue
        if data is None or not labels.exists():
            expected = f"{arrays[0].name} or {arrays[1].name} beside {labels.name}"
            raise FormatError(
                message(str(folder), expected, f"only {labels.name if data is None else data.name}")
            )
        header = _read_data_header(data)
        names, numbers = _read_labels(labels, header.shape[0])
        # Positions and visibility are two views of the same map, each computed when a clip is read.
        array = map_file(str(data), header.dtype, header.offset, header.shape)
        arrays_of[data] = (array, names)
        index.names += names
        index.labels += numbers
        # Of the padded arrays; the true lengths are only known once a clip is read.
        index.shapes += [[*header.shape[1:]]] * len(names)
        index.actions += [""] * len(names)
        index.subjects += [0] * len(names)
        index.sides["given"] += [side] * len(names)
        files += [data, labels]
    if not files:
        return None
    kinds = {(c, v, m) for c, _, v, m in index.shapes}
    if len(kinds) > 1:
        raise FormatError(
            message(str(folder), "the same (C, V, M) in train and val", sorted(kinds))
        )
    if len(set(index.names)) < len(index.names):
        raise FormatError(
            message(str(folder), "each clip on one side of the split", "names on both")
        )
    channels, _, joints, _ = index.shapes[0]
    scored = channels == 3 and all(_has_scores(array, layout) for array, _ in arrays_of.values())
    xs = list[Any]()
    seen = list[Any]()
    for data, (array, of_array) in arrays_of.items():
        xs.append(MappedClips(array, refine=partial(_read_positions, data, of_array, scored)))
        seen.append(MappedClips(array, refine=partial(_read_visibility, data, of_array, scored)))
    flat = scored or channels == 2
    return ClipSource(
        format="ST-GCN arrays",
        layout=layout_of(str(files[0]), joints, layout, flat=flat),
        assumed=layout is None,
        files=files,
        num_clips=len(index.names),
        readers=(),
        splits=("given",),
        mapped=Loaded(index, ConcatDataset(xs), ConcatDataset(seen)),
    )


def _has_scores(array: NDArray[Any], layout: SkeletonLayout | None) -> bool:
    """Whether the third channel is a score, as in ST-GCN's Kinetics, judged by some clips."""
    some = array[:: max(len(array) // 16, 1), 2]
    return holds_scores(some, array.shape[3], layout)


def _read_positions(
    path: Path, names: Sequence[str], scored: bool, x: Tensor, index: int
) -> Tensor:
    where = f"{path}, clip {names[index]}"
    x = trim(where, x.float())
    if not scored:
        return x
    if not (x[2] > 0).any():
        raise FormatError(message(where, "a joint with some confidence", "none in any frame"))
    # A joint without confidence was not seen, whatever position the file has for it.
    return x[:2] * (x[2:] > 0)


def _read_visibility(
    path: Path, names: Sequence[str], scored: bool, x: Tensor, index: int
) -> Tensor:
    """Return the visibility (T, V, M): the confidence, if there is one.

    Else it is 0 for a body whose joints are all 0 in a frame, and 1 for others.
    """
    x = trim(f"{path}, clip {names[index]}", x.float())
    if scored:
        return torch.from_numpy(clamp_scores(x[2].numpy()))
    present = (x != 0).any(2, keepdim=True).any(0)  # (T, 1, M)
    return present.to(x.dtype).expand(x.shape[1:])


def _read_data_header(data: Path) -> Npy:
    """Read the header of an array (N, C, T, V, M) and compare it with the file's size."""
    axes = "N, C, T, V, M"
    with open_plain_file(data) as file:
        header = read_header(str(data), file.read(HEAD), axes)
        size = os.fstat(file.fileno()).st_size
    n, channels, *_ = header.shape
    if n < 1 or channels not in (2, 3):
        raise FormatError(
            message(str(data), f"({axes}) with N of at least 1 and C of 2 or 3", header.shape)
        )
    if header.size != size:
        raise FormatError(
            message(str(data), f"{header.size} bytes for {header.shape} {header.dtype}", size)
        )
    return header


def _read_labels(path: Path, n: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Read the n names and labels of a label file."""
    content = load_pickle(path)
    if type(content) not in (tuple, list) or len(content) != 2:
        raise FormatError(message(str(path), "a pair (names, labels)", describe(content)))
    names, labels = content
    if type(labels) is PickledArray and labels.array.dtype.kind in "iu":
        labels = labels.array.tolist()
    for what, values in (("names", names), ("labels", labels)):
        if type(values) not in (tuple, list) or len(values) != n:
            raise FormatError(
                message(str(path), f"{n} {what}, one for each clip", describe(values))
            )
    seen: set[str] = set()
    for i, name in enumerate(names):
        if type(name) is not str or name in seen:
            raise FormatError(message(f"{path}, clip {i}", "a unique name", describe(name)))
        seen.add(name)
    checked = [label_of(f"{path}, clip {i}", label) for i, label in enumerate(labels)]
    return tuple(names), tuple(checked)
