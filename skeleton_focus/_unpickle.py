"""Pickles as data: a small machine that knows lists, dicts, numbers, strings and numpy arrays, and runs nothing.

The machine is ours and not the module ``pickle``: what a file names is looked up in a table of stand-ins and never
imported. It reads the file where it lies, memory-mapped: an array is a view of its bytes until somebody reads it.
"""

from __future__ import annotations

import mmap
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ._checks import message
from ._pickle_machine import HARMLESS, Machine, pairs
from ._pickled import RefusedError, told
from .formats import FormatError, UnreadableFileError, open_plain_file

_MOST_STEPS = 1 << 25  # a step costs 100 bytes or so; NTU-120 needs 10 million of them
_STOP = ord(".")


def load_pickle(path: Path) -> Any:
    """What a pickle of any protocol holds; arrays as :class:`PickledArray`, bytes as views of the file.

    Under protocols 0 to 2 bytes come as the text of their latin-1, as the file holds them.

    Raises:
        FormatError: no pickle, a damaged one, or one that holds anything else; nothing that it names is run.

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
            raise UnreadableFileError(message(str(path), "a file that can be mapped", error.strerror)) from None
        except ValueError:
            raise FormatError(message(str(path), "a pickle", "an empty file")) from None
    machine = Machine(data)
    try:
        return _run(machine)
    except MemoryError:
        machine.stack.clear()  # first, or there would be no memory to say so
        machine.memo.clear()
        expected, got = "a pickle that fits into memory", "a larger one"
    except RefusedError as refused:
        expected, got = refused.args
    except (IndexError, struct.error):
        expected, got = "a whole pickle", "a file that is cut short or damaged"
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        expected, got = "a pickle", f"damaged bytes ({type(error).__name__})"
    raise FormatError(message(f"{path}, byte {machine.at}", expected, got))


def _run(machine: Machine) -> Any:
    """One opcode after the other, until the one that stops."""
    view, steps = machine.view, _STEPS
    for _ in range(_MOST_STEPS):
        machine.at = machine.pos
        code = view[machine.at]
        machine.pos += 1
        if code == _STOP:
            break
        if code not in steps:
            raise RefusedError(HARMLESS, _opcode(code))
        steps[code](machine)
    else:
        raise RefusedError(f"at most {_MOST_STEPS} steps", "more")
    if machine.pos != len(view):
        raise RefusedError("one pickle", f"{len(view) - machine.pos} bytes behind it")
    return machine.stack.pop()


def _opcode(code: int) -> str:
    name = next((known.name for known in pickletools.opcodes if known.code == chr(code)), "")
    return f"the opcode {name}" if name else f"byte {code:#04x}, which is no opcode"


def _put(machine: Machine, value: Any) -> None:
    machine.stack.append(value)


def _keep(machine: Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _numbered(kind: str, use: Callable[[Machine, Any], None]) -> Callable[[Machine], None]:
    """The step of an opcode with a number behind it."""
    size = struct.Struct(kind)
    return lambda machine: use(machine, machine.number(size))


def _sized(kind: str, make: Callable[[memoryview], Any]) -> Callable[[Machine], None]:
    """The step of an opcode with so many bytes behind it."""
    return _numbered(kind, lambda machine, count: machine.stack.append(make(machine.take(count))))


def _lined(use: Callable[[Machine, Any], None], make: Callable[[bytes], Any] = int) -> Callable[[Machine], None]:
    """The step of an opcode with a line of text behind it."""
    return lambda machine: use(machine, make(machine.line()))


def _made(make: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    """The step that puts one value on the stack."""
    return lambda machine: machine.stack.append(make(machine))


def _protocol(machine: Machine, number: int) -> None:
    if number > 5:
        raise RefusedError("a protocol in 0..5", number)


def _decimal(line: bytes) -> int:
    return line == b"01" if line in (b"00", b"01") else int(line)


def _quoted(line: bytes) -> str:
    """A string of Python 2, protocol 0."""
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1] or b"\\" in line:
        raise RefusedError("a quoted string without escapes", told(line))
    return str(line[1:-1], "latin-1")


def _utf8(view: memoryview | bytes) -> str:
    return str(view, "utf-8", "surrogatepass")


def _latin1(view: memoryview) -> str:
    return str(view, "latin-1")


def _inst(machine: Machine) -> None:
    machine.find(_utf8(machine.line()), _utf8(machine.line()))
    raise RefusedError(HARMLESS, "the opcode INST")


_TABLE: dict[str, Callable[[Machine], None]] = {
    "\x80": _numbered("<B", _protocol),
    "\x95": _numbered("<Q", lambda machine, frame: None),
    "N": _made(lambda machine: None),
    "\x88": _made(lambda machine: True),
    "\x89": _made(lambda machine: False),
    "K": _numbered("<B", _put),
    "M": _numbered("<H", _put),
    "J": _numbered("<i", _put),
    "G": _numbered(">d", _put),
    "I": _lined(_put, _decimal),
    "L": _lined(_put, lambda line: int(line.removesuffix(b"L"))),
    "F": _lined(_put, float),
    "\x8a": _sized("<B", lambda view: int.from_bytes(view, "little", signed=True)),
    "V": _lined(_put, lambda line: str(line, "raw-unicode-escape")),
    "S": _lined(_put, _quoted),
    "\x8c": _sized("<B", _utf8),
    "X": _sized("<I", _utf8),
    "\x8d": _sized("<Q", _utf8),
    "U": _sized("<B", _latin1),
    "T": _sized("<i", _latin1),
    "C": _sized("<B", lambda view: view),
    "B": _sized("<I", lambda view: view),
    "\x8e": _sized("<Q", lambda view: view),
    "\x96": _sized("<Q", lambda view: view),
    "(": lambda machine: machine.marks.append(len(machine.stack)),
    "0": Machine.pop,
    "1": Machine.drop,
    "2": _made(lambda machine: machine.stack[-1]),
    ")": _made(lambda machine: ()),
    "\x85": _made(lambda machine: tuple(machine.last(1))),
    "\x86": _made(lambda machine: tuple(machine.last(2))),
    "\x87": _made(lambda machine: tuple(machine.last(3))),
    "t": _made(lambda machine: tuple(machine.items())),
    "]": _made(lambda machine: []),
    "l": _made(Machine.items),
    "a": lambda machine: machine.extend(machine.last(1)),
    "e": lambda machine: machine.extend(machine.items()),
    "}": _made(lambda machine: {}),
    "d": _made(lambda machine: pairs(machine.items())),
    "s": lambda machine: machine.update(machine.last(2)),
    "u": lambda machine: machine.update(machine.items()),
    "p": _lined(_keep),
    "q": _numbered("<B", _keep),
    "r": _numbered("<I", _keep),
    "\x94": lambda machine: _keep(machine, len(machine.memo)),
    "g": _lined(lambda machine, index: machine.stack.append(machine.memo[index])),
    "h": _numbered("<B", lambda machine, index: machine.stack.append(machine.memo[index])),
    "j": _numbered("<I", lambda machine, index: machine.stack.append(machine.memo[index])),
    "c": lambda machine: machine.find(_utf8(machine.line()), _utf8(machine.line())),
    "i": _inst,
    "\x93": lambda machine: machine.find(*machine.last(2)),
    "R": Machine.reduce,
    "b": Machine.build,
}
_STEPS = {ord(code): step for code, step in _TABLE.items()}
