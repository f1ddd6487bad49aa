"""What a pickle's opcodes work on: the bytes, the stack, the marks and the memo."""

from __future__ import annotations

import mmap
import struct
from typing import Any

from ._pickled import GLOBALS, Dtype, Global, PickledArray, RefusedError, told

HARMLESS = "lists, dicts, tuples, numbers, strings and numpy arrays alone"
_MOST_HASHED = (1 << 61) - 1  # whole numbers above hash to those below: a dict could be made slow


class Machine:
    """The stack, the marks and the memo of a pickle that is being read."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.view = data, memoryview(data)
        self.at = self.pos = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def number(self, size: struct.Struct) -> Any:
        """The number that lies here."""
        (value,) = size.unpack_from(self.view, self.pos)
        self.pos += size.size
        return value

    def take(self, count: int) -> memoryview:
        """So many bytes from here, not copied."""
        start, self.pos = self.pos, self.pos + count
        if count < 0 or self.pos > len(self.view):
            raise RefusedError(f"{count} bytes", f"{len(self.view) - start}, then the end of the file")
        return self.view[start : self.pos]

    def line(self) -> bytes:
        """The text from here to the end of its line."""
        start, end = self.pos, self.data.find(b"\n", self.pos)
        if end < 0:
            raise IndexError
        self.pos = end + 1
        return self.data[start:end]

    def items(self) -> list[Any]:
        """What lies on the stack above the last mark."""
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def drop(self) -> None:
        """Drop what lies above the last mark."""
        self.items()

    def last(self, count: int) -> list[Any]:
        """The so many values on top of the stack."""
        if count > len(self.stack):
            raise IndexError
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def pop(self) -> None:
        """Drop a mark or a value, whichever lies on top."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def extend(self, values: list[Any]) -> None:
        """Put values into the list on top of the stack."""
        if type(self.stack[-1]) is not list:
            raise RefusedError("a list to append to", told(self.stack[-1]))
        self.stack[-1].extend(values)

    def update(self, values: list[Any]) -> None:
        """Put keys and values into the dict on top of the stack."""
        if type(self.stack[-1]) is not dict:
            raise RefusedError("a dict to put into", told(self.stack[-1]))
        self.stack[-1].update(pairs(values))

    def find(self, module: object, name: object) -> None:
        """Put the stand-in for a global on the stack; refuse what has none."""
        known = GLOBALS.get(f"{module}.{name}")
        if known is None:
            full = f"{module}.{name}"[:60] if type(module) is type(name) is str else "a global without a name"
            raise RefusedError(HARMLESS, (full if full.isprintable() else repr(full)) + ", which could run code")
        self.stack.append(known)

    def reduce(self) -> None:
        """Call a stand-in."""
        what, arguments = self.last(2)
        if type(what) is not Global or what.call is None or type(arguments) is not tuple:
            got = f"a call of {what.name}" if type(what) is Global else f"a call of {told(what)}"
            raise RefusedError(HARMLESS, got)
        self.stack.append(what.call(*arguments))

    def build(self) -> None:
        """Give a stand-in its state."""
        target, state = self.last(2)
        if type(target) is not PickledArray and type(target) is not Dtype:
            raise RefusedError(HARMLESS, f"a state for {told(target)}")
        target.build(state)
        self.stack.append(target)


def pairs(values: list[Any]) -> dict[Any, Any]:
    """The dict of keys and values that lie in turn.

    >>> pairs(["label", 3])
    {'label': 3}
    """
    for key in values[::2]:
        if type(key) is not str and not (type(key) is int and abs(key) < _MOST_HASHED):
            raise RefusedError("keys that are strings or whole numbers", told(key))
    return dict(zip(values[::2], values[1::2], strict=True))
