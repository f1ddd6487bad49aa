"""Clips in a memory-mapped file, each copied when it is read."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._checks import message


class MappedClips(Sequence[Tensor]):
    """The clips of an array that is mapped read-only and may be larger than memory.

    The operating system caches the pages that were read and shares them among processes. Each clip
    is a copy, so that the array is never modified. Pickling, for a DataLoader worker, stores the
    file's name and not its content.

    Args:
        array: (N, ...), one clip after the other, or (n,), the numbers of clips of different sizes.
        shapes: (N, axes), the shape of each clip of an array (n,).
        refine: a function of a clip and its index that returns the clip to use.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.arange(6.0))
        >>> clips = MappedClips(np.load(path, mmap_mode="r"), np.array([[1, 2], [2, 2]]))
        >>> clips[1].tolist()
        [[2.0, 3.0], [4.0, 5.0]]
    """

    def __init__(
        self,
        array: np.memmap[Any, Any],
        shapes: NDArray[np.int64] | None = None,
        refine: Callable[[Tensor, int], Tensor] | None = None,
    ) -> None:
        self.array = array
        self.shapes = shapes
        self.refine = refine
        self._ends = None if shapes is None else np.cumsum(shapes.prod(1))

    def __len__(self) -> int:
        return len(self.array if self.shapes is None else self.shapes)

    def __getitem__(self, index: Any) -> Any:
        if self.shapes is None or self._ends is None:
            clip = self.array[index]
        else:
            shape = self.shapes[index]
            end = int(self._ends[index])
            clip = self.array[end - int(shape.prod()) : end].reshape(shape)
        # A copy, so that a write into a clip stays out of the map; in native byte order, because
        # torch has no other.
        x = torch.from_numpy(np.array(clip, clip.dtype.newbyteorder("=")))
        return x if self.refine is None else self.refine(x, index)

    def __reduce__(self) -> Any:
        # Without this, pickle would store the numbers themselves, a copy for each worker.
        array = self.array
        # A slice, whose offset in the file numpy does not expose.
        if not isinstance(array.base, mmap.mmap):
            return MappedClips, (array, self.shapes, self.refine)
        order = "C" if array.flags.c_contiguous else "F"
        arguments = (str(array.filename), array.dtype, array.offset, array.shape, order)
        return _map_again, (arguments, self.shapes, self.refine)


def map_file(
    path: str, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...], order: Any = "C"
) -> Any:
    """Map a file's numbers read-only. The file keeps a shared lock while the map is in use."""
    try:
        with open(path, "rb") as file:
            # The map duplicates the file's descriptor, so the lock outlives this block: a cache in
            # use is not removed.
            lock(file, shared=True)
            return np.memmap(file, dtype, "r", offset, shape, order)
    except OSError as error:
        got = error.strerror or type(error).__name__
        hint = "open the data set again"
        raise OSError(message(path, "the file of the clips", got, hint)) from None


def _map_again(arguments: Any, shapes: Any, refine: Any) -> MappedClips:
    return MappedClips(map_file(*arguments), shapes, refine)


def lock(file: IO[bytes], *, shared: bool = False, at_once: bool = False) -> bool:
    """Lock a file until it and every map of it are closed; return False if it cannot be locked."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind | (fcntl.LOCK_NB if at_once else 0))
    except OSError:  # in use; or a network file system without locks
        return False
    return True


@dataclass
class Index:
    """The clips' metadata: one entry for each clip, in the files' order."""

    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    subjects: list[int] = field(default_factory=list)
    sides: dict[str, list[str]] = field(default_factory=dict)
    shapes: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Loaded:
    """Hold a source's index, and for each clip x (C, T, V, M) and visibility (T, V, M)."""

    index: Index
    x: Any
    visibility: Any
