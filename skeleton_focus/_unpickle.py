"""Read pickles as data: lists, tuples, dicts, numbers, strings and numpy arrays.

No code in a file is run. The unpickler is the standard library's, with three changes:

- A global in a file is looked up in a table of stand-ins and never imported. numpy's
  ``__setstate__`` is not among them, because it is not safe on hostile input. The stand-in for an
  array is a view of bytes in the file.
- Opcodes that make any other object raise an error.
- Bytes stay in the memory-mapped file: an array takes no memory until it is read.

It uses the Python implementation, ``pickle._Unpickler``. The C implementation allocates as many
memo slots as an index in the file claims, and its opcodes cannot be removed.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._checks import message
from .formats import MOST_CLASSES, FormatError, UnreadableFileError, open_plain_file, short

_HARMLESS = "lists, dicts, tuples, numbers, strings and numpy arrays alone"
_DTYPE = re.compile(r"f[248]|[iu][1248]|b1|U[1-9][0-9]{0,2}")
_LARGEST_KEY = (1 << 61) - 2  # larger integers hash to smaller ones: a file could make a dict slow
_REFUSED = (
    "PERSID BINPERSID EXT1 EXT2 EXT4 INST OBJ NEWOBJ NEWOBJ_EX "
    "EMPTY_SET ADDITEMS FROZENSET NEXT_BUFFER READONLY_BUFFER"
)


class RefusedError(Exception):
    """The expected and the found content; :func:`load_pickle` adds the file and the byte offset."""


class Dtype:
    """Stand-in for a numpy dtype of numbers or text."""

    def __init__(self, code: Any = None, *options: Any) -> None:
        if type(code) is not str or not _DTYPE.fullmatch(code):
            raise RefusedError("arrays of numbers", f"an array of dtype {describe(code)}")
        self.dtype: np.dtype[Any] = np.dtype(code)

    def build(self, state: Any) -> None:
        """Set the byte order from the state that ``dtype.__reduce__`` writes."""
        # Neither a subarray nor a record.
        plain = type(state) is tuple and state[2:5] == (None, None, None)
        if not plain or state[1] not in ("<", ">", "=", "|"):
            raise RefusedError("arrays of numbers", "an array of records")
        self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """Stand-in for an array of numbers or text; ``array`` is a view of the file.

    Read text by :meth:`texts` only: numpy would accept any four bytes as a character.
    """

    def __init__(
        self, raw: Any, dtype: Any, shape: Any, order: Any = "C", axes: Any = None
    ) -> None:
        kind = _dtype_of(dtype)
        if type(shape) is not tuple or min(shape, default=0) < 0:
            raise RefusedError(
                "the shape, dtype and bytes of an array", f"{kind} and {describe(shape)}"
            )
        # numpy checks the shape against the number of bytes. It writes axes with the order "K": the
        # bytes are then in C order, and the array is a transposed view of them.
        self.array: NDArray[Any] = np.frombuffer(raw, kind).reshape(
            shape, order="C" if axes is not None else order
        )
        if axes is not None:
            self.array = self.array.transpose(axes)

    def build(self, state: Any) -> None:
        """Set the state of ``ndarray.__reduce__``: version, shape, dtype, Fortran order, bytes."""
        if type(state) is not tuple or len(state) != 5:
            raise RefusedError("the state of an array", describe(state))
        _, shape, dtype, fortran, raw = state
        self.array = PickledArray(raw, dtype, shape, "F" if fortran else "C").array

    def texts(self) -> list[str]:
        """Decode an array of text; raise UnicodeDecodeError for bytes that are not characters."""
        raw = self.array.tobytes()
        size = self.array.dtype.itemsize
        return [_text(raw[at : at + size], self.array.dtype) for at in range(0, len(raw), size)]


def _text(raw: Any, kind: np.dtype[Any]) -> str:
    encoding = "utf-32-be" if kind.str.startswith(">") else "utf-32-le"
    return str(raw, encoding, "surrogatepass").rstrip("\0")


def _dtype_of(value: Any) -> np.dtype[Any]:
    if type(value) is not Dtype:
        raise RefusedError("a dtype", describe(value))
    return value.dtype


def _new_array(*_: Any) -> PickledArray:
    """Stand-in for numpy's ``_reconstruct``: an empty array, before its state is set."""
    return PickledArray(b"", Dtype("i1"), (0,))


def _scalar(dtype: Any = None, raw: Any = b"") -> Any:
    """Stand-in for numpy's ``scalar``: the numpy scalar as a Python number or string."""
    kind = _dtype_of(dtype)
    raw = raw.encode("latin-1") if type(raw) is str else raw  # bytes that Python 2 wrote
    if len(raw) != kind.itemsize:
        raise RefusedError(f"a number of {kind.itemsize} bytes", describe(raw))
    if kind.kind == "U":
        return _text(raw, kind)
    return np.frombuffer(raw, kind)[0].item()


def _new_dict(factory: Any = None) -> dict[Any, Any]:
    """Stand-in for ``OrderedDict`` and ``defaultdict``: an empty dict, before its items are set."""
    if factory is not None and factory is not _TYPE:
        raise RefusedError(
            "a dict that is filled item by item", f"a dict made from {describe(factory)}"
        )
    return {}


# Types that a pickle of arrays or of a defaultdict passes as arguments. They stay arguments: this
# object cannot be called.
_TYPE = object()
_STAND_INS: dict[str, Any] = {
    "numpy.dtype": Dtype,
    "collections.OrderedDict": _new_dict,
    "collections.defaultdict": _new_dict,
    **dict.fromkeys(("numpy.ndarray", "builtins.list", "builtins.dict", "builtins.int"), _TYPE),
    **dict.fromkeys(("__builtin__.list", "__builtin__.dict", "__builtin__.int"), _TYPE),
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _STAND_INS[f"{_core}.multiarray._reconstruct"] = _new_array
    _STAND_INS[f"{_core}.multiarray.scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric._frombuffer"] = PickledArray
# Their stand-in is a method, because it counts the bytes of one file.
_BYTES = {
    "_codecs.encode",
    *(f"{part}.{name}" for part in ("builtins", "__builtin__") for name in ("bytes", "bytearray")),
}


class _Unpickler(pickle._Unpickler):
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    memo: dict[int, Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: mmap.mmap) -> None:
        # latin-1 keeps each byte of a Python 2 string as one character, so that it can be turned
        # back.
        super().__init__(data, encoding="latin-1")
        self.data = data
        self.view = memoryview(data)
        self.encoded = 0

    def find_class(self, module: str, name: str, /) -> Any:
        full = f"{module}.{name}"
        if full in _BYTES:
            return self.encode
        # The file chooses the name, so it is cut, and escaped before a terminal interprets it.
        if full not in _STAND_INS:
            full = full[:60]
            raise RefusedError(
                _HARMLESS, (full if full.isprintable() else repr(full)) + ", which could run code"
            )
        return _STAND_INS[full]

    def encode(self, text: Any = "", encoding: Any = "latin-1") -> Any:
        """Stand-in for bytes and ``bytearray``, which protocols 0 to 2 write as latin-1 text."""
        if type(text) in (memoryview, bytes):
            return text
        if type(text) is not str or encoding not in ("latin1", "latin-1"):
            raise RefusedError("bytes as latin-1 text", describe(text))
        self.encoded += len(text)
        if self.encoded > len(self.view):  # such as one text that is encoded a thousand times
            raise RefusedError(f"at most the file's {len(self.view)} bytes in arrays", "more")
        return text.encode("latin-1")

    def load_view(self, size: str) -> None:
        """Push a view of the next bytes; their count precedes them in the format ``size``."""
        (count,) = struct.unpack(size, self.read(struct.calcsize(size)))
        start = self.data.tell()
        if count > len(self.view) - start:
            raise RefusedError(
                f"{count} bytes", f"{len(self.view) - start}, then the end of the file"
            )
        # A view instead of read(), which would copy the array into memory.
        self.data.seek(start + count)
        self.append(self.view[start : start + count])

    def load_items(self, items: list[Any]) -> None:
        """Add alternating keys and values to the dict on top of the stack."""
        if type(self.stack[-1]) is not dict:
            raise RefusedError("a dict to add items to", describe(self.stack[-1]))
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a tuple that nests the same tuple twice on each level would take forever.
            number = type(key) in (int, float) and abs(key) <= _LARGEST_KEY  # NaN is not
            if type(key) is not str and not number:
                raise RefusedError("keys that are strings or numbers", describe(key))
            self.stack[-1][key] = value

    def load_setitem(self) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
        self.load_items(items)

    def load_setitems(self) -> None:
        self.load_items(self.pop_mark())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.load_items(items)

    def load_build(self) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) not in (PickledArray, Dtype):
            raise RefusedError(_HARMLESS, f"a state for {describe(self.stack[-1])}")
        # Python 2 wrote bytes as text.
        if type(state) is tuple and len(state) == 5 and type(state[4]) is str:
            state = (*state[:4], self.encode(state[4]))
        self.stack[-1].build(state)

    def load_put(self) -> None:
        index = int(self.readline())
        # Many indices with equal hashes would make the memo slow.
        if not 0 <= index < len(self.view):
            raise RefusedError("a memo index below the file's size", describe(index))
        self.memo[index] = self.stack[-1]

    def load_frame(self) -> None:
        self.read(8)  # skips the size: reading the frame would copy it

    def refuse(self, what: str) -> None:
        raise RefusedError(_HARMLESS, what)


# Every byte has a step, by default a refusal; later entries of _STEPS replace earlier ones. The
# standard steps that remain build containers, numbers and text, and call stand-ins. Replaced are
# those that would copy bytes, add any key to a dict, or set the state of any object.
_UNKNOWN = {code: f"byte {code:#04x}, which is no opcode" for code in range(256)}
_NAMED = {ord(op.code): f"the opcode {op.name}" for op in pickletools.opcodes}
_ALLOWED = {ord(op.code) for op in pickletools.opcodes if op.name not in _REFUSED.split()}
_STEPS: dict[int, Any] = {
    **{
        code: partial(_Unpickler.refuse, what=what) for code, what in {**_UNKNOWN, **_NAMED}.items()
    },
    **{code: step for code, step in pickle._Unpickler.dispatch.items() if code in _ALLOWED},
    pickle.SHORT_BINBYTES[0]: partial(_Unpickler.load_view, size="<B"),
    pickle.BINBYTES[0]: partial(_Unpickler.load_view, size="<I"),
    pickle.BINBYTES8[0]: partial(_Unpickler.load_view, size="<Q"),
    pickle.BYTEARRAY8[0]: partial(_Unpickler.load_view, size="<Q"),
    pickle.SETITEM[0]: _Unpickler.load_setitem,
    pickle.SETITEMS[0]: _Unpickler.load_setitems,
    pickle.DICT[0]: _Unpickler.load_dict,
    pickle.BUILD[0]: _Unpickler.load_build,
    pickle.PUT[0]: _Unpickler.load_put,
    pickle.FRAME[0]: _Unpickler.load_frame,
}
_Unpickler.dispatch = _STEPS


def load_pickle(path: Path) -> Any:
    """Load a pickle of any protocol.

    Arrays become :class:`PickledArray`, and bytes become views of the file.

    Raises:
        FormatError: not a pickle, a damaged one, or one that holds other objects; its code is not
            run.

    Example:
        >>> import pickle, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "x.pkl"
        >>> _ = path.write_bytes(pickle.dumps({"label": 3, "names": ["a", "b"]}))
        >>> load_pickle(path)
        {'label': 3, 'names': ['a', 'b']}
    """
    with open_plain_file(path) as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise UnreadableFileError(
                message(str(path), "a file that can be mapped", error.strerror)
            ) from None
        except ValueError:
            raise FormatError(message(str(path), "a pickle", "an empty file")) from None
    try:
        content = _Unpickler(data).load()
        if data.tell() == len(data):
            return content
        expected = "one pickle"
        got = f"{len(data) - data.tell()} bytes after it"
    except RefusedError as refused:
        expected, got = refused.args
    except MemoryError:
        expected = "a pickle that fits into memory"
        got = "a larger one"
    except EOFError:
        expected = "a complete pickle"
        got = "a truncated file"
    except Exception as error:  # pickle does not document which exceptions damaged bytes raise
        reason = " ".join(str(error).split())[:100]
        expected = "a pickle"
        got = f"damaged bytes ({type(error).__name__}: {reason})"
    raise FormatError(message(f"{path}, byte {data.tell()}", expected, got))


def describe(value: object) -> str:
    """Describe a value for an error message; a container, which may be recursive, by its size only.

    >>> describe("x"), describe([[1], 2]), describe(10**99)
    ("'x'", 'a list of 2', 'an integer of more than 60 digits')
    """
    if value is None or isinstance(value, (str, int, float)):
        return short(value)
    if isinstance(value, PickledArray):
        return f"an array {value.array.shape}"
    size = f" of {len(value)}" if isinstance(value, (list, tuple, dict)) else ""
    return f"a {type(value).__name__}{size}"


def label_of(where: str, value: object) -> int:
    """Check a class index from a pickle.

    >>> label_of("x.pkl, annotation 3", -1)
    Traceback (most recent call last):
        ...
    skeleton_focus.formats.FormatError: x.pkl, annotation 3: expected an integer label in \
0..99999, got -1
    """
    if type(value) is not int or not 0 <= value < MOST_CLASSES:
        raise FormatError(
            message(where, f"an integer label in 0..{MOST_CLASSES - 1}", describe(value))
        )
    return value
