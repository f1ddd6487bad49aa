"""Clips that lie one after another in a file and are read from there, page by page, when they are asked for."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._checks import message


class PackedClips(Sequence[Tensor]):
    """Clips of different lengths in one memory-mapped file.

    The system keeps the pages that were read and shares them among processes; nothing else is held. What is pickled,
    for a worker of a DataLoader, is the path.

    Args:
        path: the file; the clips' numbers in C order.
        dtype: of the file's numbers.
        starts: (n,) where each clip begins, in bytes.
        shapes: (n, axes) the shape of each clip.
        refine: what becomes of each clip when it is read, given the clip and its index here.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x"
        >>> np.arange(6, dtype=np.float32).tofile(path)
        >>> clips = PackedClips(path, np.dtype("float32"), np.array([0, 8]), np.array([[1, 2], [2, 2]]))
        >>> clips[1].tolist()
        [[2.0, 3.0], [4.0, 5.0]]
    """

    def __init__(
        self,
        path: Path,
        dtype: np.dtype[Any],
        starts: NDArray[np.int64],
        shapes: NDArray[np.int64],
        refine: Callable[[Tensor, int], Tensor] | None = None,
    ) -> None:
        self.path, self.dtype, self.starts, self.shapes, self.refine = path.absolute(), dtype, starts, shapes, refine
        self.held: object = None  # what is kept open as long as the clips are in use
        self._bytes: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: Any) -> Any:
        if self._bytes is None:
            try:
                self._bytes = np.asarray(np.memmap(self.path, np.uint8, "r"))
            except OSError as error:
                got, hint = error.strerror or type(error).__name__, "open the data set again"
                raise OSError(message(str(self.path), "the file that the clips are read from", got, hint)) from None
        start, shape = int(self.starts[index]), tuple(self.shapes[index].tolist())
        stop = start + int(np.prod(shape)) * self.dtype.itemsize
        clip = self._bytes[start:stop].view(self.dtype).reshape(shape)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is for refine to refuse
            x = torch.from_numpy(clip.astype(np.float32))  # a copy: the file is mapped for reading alone
        return x if self.refine is None else self.refine(x, index)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None, "held": None}


class MappedClips(Sequence[Tensor]):
    """The clips of an array that ``np.load(..., mmap_mode="r")`` or ``np.memmap`` has mapped for reading.

    The array may be larger than the memory. Each clip is copied when it is read, so that nothing writes into the array.

    Args:
        array: (N, ...), one clip after the other.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.npy"
        >>> np.save(path, np.arange(6.0).reshape(3, 2))
        >>> MappedClips(np.load(path, mmap_mode="r"))[1].tolist()
        [2.0, 3.0]
    """

    def __init__(self, array: np.memmap[Any, Any]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> Any:
        return torch.from_numpy(np.array(self.array[index]))

    def __reduce__(self) -> Any:
        """Pickle a whole file by its name: numpy itself would write out all numbers for each worker of a DataLoader."""
        array = self.array
        if not isinstance(array.base, mmap.mmap):  # a part of a file, whose place in it numpy does not tell
            return MappedClips, (array,)
        order = "C" if array.flags.c_contiguous else "F"
        return _map_again, (array.filename, array.dtype, array.offset, array.shape, order)


def _map_again(path: str, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...], order: Any) -> MappedClips:
    return MappedClips(np.memmap(path, dtype, "r", offset, shape, order))


@dataclass
class Index:
    """What of the clips is no array: one entry a clip, in the files' order."""

    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    sides: dict[str, list[str]] = field(default_factory=dict)
    shapes: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Loaded:
    """All clips of a source: their index, x (C, T, V, M) and visibility (T, V, M) of each."""

    index: Index
    x: Any
    visibility: Any
