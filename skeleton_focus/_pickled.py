"""Stand-ins for what a pickle may name: numpy arrays, dtypes and scalars, bytes, and two kinds of dict.

None of them is numpy's own: a shape, a dtype and the bytes are held apart and checked before an array is made of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._checks import message
from .formats import MOST_CLASSES, FormatError, short

_NUMBERS = re.compile(r"f[248]|[iu][1248]|b1")
_TEXT = re.compile(r"U[1-9][0-9]{0,2}")
"""A label above is a mistake, and would make a list of so many class names."""


class RefusedError(Exception):
    """What was expected and what came; whoever knows the file and the byte adds them."""


class PickledArray:
    """An array's shape and dtype, and where its bytes lie.

    >>> array = from_buffer(memoryview(b"abc"), Dtype("u1"), (3,), "C")
    >>> array.shape, array.dtype.name, array.read("x.pkl").tolist()
    ((3,), 'uint8', [97, 98, 99])
    """

    __slots__ = ("_axes", "_order", "_raw", "_stored", "dtype", "shape")

    def __init__(self) -> None:
        self.fill((0,), np.dtype("i1"), "C", "", None)

    def fill(self, shape: Any, dtype: np.dtype[Any], order: Any, raw: Any, axes: Any) -> None:
        """Take the parts as a pickle gives them: the bytes as a view of the file, or as the text of their latin-1."""
        sizes = type(shape) is tuple and len(shape) <= 8 and all(type(s) is int and 0 <= s < 1 << 40 for s in shape)
        if not sizes or dtype.kind == "U" or type(raw) not in (memoryview, str) or order not in ("C", "F"):
            raise RefusedError("the shape, dtype and bytes of an array of numbers", "something else")
        if prod(shape) * dtype.itemsize != len(raw):
            raise RefusedError(f"{prod(shape) * dtype.itemsize} bytes for an array {shape}", len(raw))
        if axes is not None and not (
            type(axes) is tuple and all(type(axis) is int for axis in axes) and sorted(axes) == list(range(len(shape)))
        ):
            raise RefusedError(f"the order of {len(shape)} axes", told(axes))
        self._stored, self._order, self._raw, self._axes, self.dtype = shape, order, raw, axes, dtype
        self.shape: tuple[int, ...] = shape if axes is None else tuple(shape[axis] for axis in axes)

    def build(self, state: Any) -> None:
        """Take the state that ``ndarray.__reduce__`` writes: version, shape, dtype, whether in Fortran's order, bytes.

        >>> array = PickledArray()
        >>> array.build((1, (2,), Dtype("i1"), False, "ab"))
        >>> array.read("x.pkl").tolist()
        [97, 98]
        """
        if type(state) is not tuple or len(state) != 5:
            raise RefusedError("the state of an array", told(state))
        _, shape, dtype, fortran, raw = state
        self.fill(shape, dtype_of(dtype), "F" if fortran is True or fortran == 1 else "C", raw, None)

    def read(self, where: str) -> NDArray[Any]:
        """The array, a view of the file; ``where`` names it in an error."""
        raw = self._raw
        try:
            raw = raw.encode("latin-1") if type(raw) is str else raw
        except UnicodeEncodeError:
            raise FormatError(message(where, "the bytes of an array", "text")) from None
        array = np.frombuffer(raw, self.dtype).reshape(self._stored, order=self._order)
        return array if self._axes is None else array.transpose(self._axes)


class Dtype:
    """A numpy dtype: of numbers, or for a scalar also text.

    >>> Dtype("O8")
    Traceback (most recent call last):
        ...
    skeleton_focus._pickled.RefusedError: ('arrays of numbers', "an array of dtype 'O8'")
    """

    def __init__(self, code: Any = None, *options: Any) -> None:
        if type(code) is not str or not (_NUMBERS.fullmatch(code) or _TEXT.fullmatch(code)):
            raise RefusedError("arrays of numbers", f"an array of dtype {told(code)}")
        self.numpy: np.dtype[Any] = np.dtype(code)

    def build(self, state: Any) -> None:
        """Take the state that ``dtype.__reduce__`` writes: of all it holds, the byte order."""
        plain = type(state) is tuple and len(state) >= 5 and all(part is None for part in state[2:5])
        order = state[1] if plain and type(state[1]) is str else ""
        if order not in ("<", ">", "=", "|"):
            raise RefusedError("arrays of numbers", "an array of records")
        self.numpy = self.numpy.newbyteorder(order)  # type: ignore[arg-type]


def dtype_of(value: Any) -> np.dtype[Any]:
    """The dtype that a stand-in holds."""
    if type(value) is not Dtype:
        raise RefusedError("a dtype", told(value))
    return value.numpy


def from_buffer(raw: Any = None, dtype: Any = None, shape: Any = None, order: Any = "C", axes: Any = None) -> Any:
    """What numpy writes with protocol 5."""
    array = PickledArray()
    array.fill(shape, dtype_of(dtype), "C" if axes is not None else order, raw, axes)
    return array


def scalar(dtype: Any = None, raw: Any = None) -> Any:
    """The Python number, or text, of a numpy scalar.

    >>> scalar(Dtype("u1"), memoryview(b"a"))
    97
    """
    kind = dtype_of(dtype)
    if type(raw) not in (memoryview, str) or len(raw) != kind.itemsize:
        raise RefusedError(f"a number of {kind.itemsize} bytes", told(raw))
    raw = raw.encode("latin-1") if type(raw) is str else raw
    if kind.kind == "U":  # numpy would make characters of any four bytes
        return str(raw, "utf-32-be" if kind.str.startswith(">") else "utf-32-le", "surrogatepass").rstrip("\0")
    return np.frombuffer(raw, kind)[0].item()


def byte_string(text: Any = "", *encoding: Any) -> Any:
    """Bytes under protocols 0 to 2, where they are text that is to be encoded as latin-1: the text as it is."""
    if type(text) not in (str, memoryview):  # bytearray(10**10) would be ten gigabytes of zeros
        raise RefusedError("bytes", told(text))
    if encoding not in ((), ("latin1",), ("latin-1",)):
        raise RefusedError("bytes as latin-1 text", told(encoding[0]))
    return text


def empty_dict(factory: Any = None) -> dict[Any, Any]:
    """An OrderedDict or defaultdict before its items, which come one by one as those of a dict do."""
    if factory is not None and type(factory) is not Global:
        raise RefusedError("a dict that is filled item by item", f"a dict made of {told(factory)}")
    return {}


def told(value: object) -> str:
    """A value as an error shows it: a container by its size alone, for it may hold itself a thousand times over.

    >>> told("x"), told([[1], 2]), told(10**99)
    ("'x'", 'a list of 2', 'an integer of more than 60 digits')
    """
    if value is None or isinstance(value, (str, int, float)):
        return short(value)
    if isinstance(value, PickledArray):
        return f"an array {value.shape}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (list, tuple, dict)) else "")


def label_of(where: str, value: object) -> int:
    """A class index as a pickle holds it.

    >>> label_of("x.pkl, annotation 3", -1)
    Traceback (most recent call last):
        ...
    skeleton_focus.formats.FormatError: x.pkl, annotation 3: expected a label, a whole number in 0..99999, got -1
    """
    if type(value) is not int or not 0 <= value < MOST_CLASSES:
        raise FormatError(message(where, f"a label, a whole number in 0..{MOST_CLASSES - 1}", told(value)))
    return value


class Global(NamedTuple):
    """What stands in for a global: its name, and the function of ours that a call of it calls."""

    name: str
    call: Callable[..., Any] | None = None


_CORES, _BUILTINS = ("numpy.core", "numpy._core"), ("builtins", "__builtin__")
GLOBALS = {
    name: Global(name, call)
    for name, call in dict[str, Callable[..., Any] | None](
        {
            "numpy.dtype": Dtype,
            "numpy.ndarray": None,
            **{f"{core}.multiarray._reconstruct": lambda *_: PickledArray() for core in _CORES},
            **{f"{core}.multiarray.scalar": scalar for core in _CORES},
            **{f"{core}.numeric._frombuffer": from_buffer for core in _CORES},
            "_codecs.encode": byte_string,
            **{f"{builtins}.{kind}": byte_string for builtins in _BUILTINS for kind in ("bytes", "bytearray")},
            **{f"{builtins}.{kind}": None for builtins in _BUILTINS for kind in ("list", "dict", "int")},
            "collections.OrderedDict": empty_dict,
            "collections.defaultdict": empty_dict,
        }
    ).items()
}
"""Everything that a pickle may name."""
