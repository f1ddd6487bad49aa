"""Read and check headers of ``.npy`` files and ``.npz`` members before their numbers are read."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import IO, Any, NamedTuple

import numpy as np

from ._checks import message
from .formats import FormatError, short

HEAD = 12 + 10_000  # bytes of magic, version and header; numpy reads no longer headers
_MOST = 1 << 40  # the largest axis
_MOST_DEFLATED = 1032  # deflate expands by at most this factor


_DTYPES = {
    "f": "float32, float64 or float16",
    "U": "text",
    "iu": "whole numbers",
    "biu": "booleans",
}


class Npy(NamedTuple):
    """A header; the numbers start at byte ``offset``, in C order or else in Fortran's."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    fortran: bool = False

    @property
    def size(self) -> int:
        """The size of the whole file in bytes."""
        return self.offset + prod(self.shape) * self.dtype.itemsize


def read_header(
    where: str, head: bytes, axes: str, *, kinds: str = "f", any_order: bool = False
) -> Npy:
    """Read the header in the first ``HEAD`` bytes of an array of numbers.

    Args:
        where: the array's name in errors.
        head: the bytes.
        axes: the array's axes, such as ``"N, C, T, V, M"`` or ``"T, V or T, M, V"``; only the first
            may be empty. ``""`` is a single value.
        kinds: numpy's letters of the allowed dtypes.
        any_order: whether Fortran order is allowed.

    >>> file = io.BytesIO()
    >>> np.save(file, np.zeros((2, 3)))
    >>> read_header("x.npy", file.getvalue()[:HEAD], "N, C")
    Npy(shape=(2, 3), dtype=dtype('float64'), offset=128, fortran=False)
    """
    text = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(text)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read = np.lib.format.read_array_header_2_0
        if version == (1, 0):
            read = np.lib.format.read_array_header_1_0
        with warnings.catch_warnings():
            # numpy warns about headers written by Python 2, such as ST-GCN's.
            warnings.simplefilter("ignore")
            shape, fortran, dtype = read(text)
    # numpy parses the header as Python source, which may raise many exceptions.
    except Exception as error:
        raise FormatError(message(where, "an .npy header", _reason(error))) from None
    if dtype.kind not in kinds or dtype.hasobject:
        allowed = _DTYPES.get(kinds, "numbers")
        raise FormatError(message(where, f"a dtype of {allowed}", short(str(dtype))))
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise FormatError(message(where, "a dtype of float32, float64 or float16", dtype))
    if fortran and not any_order:
        raise FormatError(message(where, "numbers in C order", "Fortran order"))
    counts = [len(names.split(", ")) if names else 0 for names in axes.split(" or ")]
    # The first axis may be empty, such as a test side without clips.
    possible = min(shape[:1], default=0) >= 0 and min(shape[1:], default=1) >= 1
    if len(shape) not in counts or not possible or max(shape, default=0) >= _MOST:
        shown = axes.replace(" or ", ") or (")
        raise FormatError(message(where, f"({shown})", short(shape)))
    return Npy(shape, dtype, text.tell(), fortran)


def _reason(error: Exception) -> str:
    """A library's error as one short line."""
    text = re.sub(r" at 0x\w+", "", " ".join(str(error).split()))  # the same in every process
    return text[:100] or type(error).__name__


@contextmanager
def zip_errors(where: str) -> Iterator[None]:
    """Convert the exceptions of zipfile and zlib for damaged files to FormatError."""
    try:
        yield
    except FormatError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,  # encrypted, or NotImplementedError
        TypeError,
        ValueError,
    ) as error:
        raise FormatError(message(where, "an intact .npz", _reason(error))) from None


def member_header(
    where: str,
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    axes: str,
    *,
    kinds: str = "f",
    any_order: bool = False,
) -> Npy:
    """Read the header of a member and check it against the member's size."""
    # A zip's directory may state any size. One that the member's bytes cannot expand to is refused
    # here, before it is trusted.
    least = info.file_size
    if info.compress_type != zipfile.ZIP_STORED:
        least //= _MOST_DEFLATED
    known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not known or info.compress_size < least:
        got = f"method {info.compress_type}, {info.file_size} bytes out of {info.compress_size}"
        raise FormatError(message(where, "a member that is stored or deflated", got))
    with zip_errors(where), archive.open(info) as member:
        head = member.read(HEAD)
    header = read_header(where, head, axes, kinds=kinds, any_order=any_order)
    if header.size != info.file_size:
        raise FormatError(
            message(where, f"{header.size} bytes for {header.shape} {header.dtype}", info.file_size)
        )
    return header


def take(where: str, member: IO[bytes], count: int) -> bytes:
    """Read exactly ``count`` bytes of a member."""
    with zip_errors(where):
        taken = member.read(count)
    if len(taken) != count:
        raise FormatError(
            message(where, f"{count} bytes", f"{len(taken)}, then the end of the member")
        )
    return taken
