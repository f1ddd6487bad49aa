"""Test the reader of pickles: what it gives, and that a file runs, imports, allocates nothing."""

from __future__ import annotations

import collections
import json
import os
import pickle
import pickletools
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skeleton_focus._unpickle import (
    _REFUSED,
    _STAND_INS,
    _STEPS,
    PickledArray,
    describe,
    load_pickle,
)
from skeleton_focus.formats import FormatError, UnreadableFileError

PLAIN = {
    "numbers": [
        0,
        -1,
        255,
        256,
        65535,
        65536,
        -(2**31),
        2**40,
        -(10**30),
        1.5,
        -0.0,
        True,
        False,
        None,
    ],
    "texts": ["", "a", "ü\n\\'\"\x00\U0001f600", "x" * 300, "\ud800"],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), [()])],
    "dicts": [
        {},
        {1: 2, "b": {"c": []}},
        collections.OrderedDict(a=1, b=2),
        collections.defaultdict(list, k=[3]),
    ],
    7: ["again"] * 3,
}


def load(folder: Path, content: bytes) -> Any:
    path = folder / "x.pkl"
    path.write_bytes(content)
    return load_pickle(path)


def types(value: Any) -> Any:
    """The types in a value, for 1 == True == 1.0."""
    if isinstance(value, dict):
        return [(key, types(item)) for key, item in value.items()]
    return [types(item) for item in value] if isinstance(value, (list, tuple)) else type(value)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(tmp_path: Path, protocol: int) -> None:
    back = load(tmp_path, pickle.dumps(PLAIN, protocol))
    assert back == PLAIN and types(back) == types(PLAIN)
    bytes_back = load(tmp_path, pickle.dumps([b"", b"a\xff", bytearray(b"b\x00" * 200)], protocol))
    assert [bytes(item) for item in bytes_back] == [b"", b"a\xff", b"b\x00" * 200]


ORDERS = {
    "C": lambda a: a,
    "F": np.asfortranarray,
    "transposed": lambda a: a.transpose(1, 2, 0),
    "strided": lambda a: a[:, ::2],
    "empty": lambda a: a[:0],
    "one number": lambda a: np.array(a[0, 0, 0]),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">i2", "i8", "u1", "?"])
@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_back(tmp_path: Path, protocol: int, dtype: str, order: str) -> None:
    array = ORDERS[order]((np.random.default_rng(0).standard_normal((3, 4, 5)) * 50).astype(dtype))
    content = pickle.dumps([array, array], protocol)
    for one, older in (
        (content, False),
        (content.replace(b"numpy._core.", b"numpy.core."), protocol < 4),
    ):
        if one is not content and not older:
            continue
        first, second = load(tmp_path, one)
        assert first is second and isinstance(first, PickledArray)
        assert first.array.dtype == array.dtype and first.array.shape == array.shape
        np.testing.assert_array_equal(first.array, array)


@pytest.mark.parametrize("protocol", range(6))
def test_scalars_come_back(tmp_path: Path, protocol: int) -> None:
    values = [
        np.float16(0.5),
        np.float32(1.5),
        np.float64(-2.5),
        np.int64(7),
        np.uint8(255),
        np.bool_(True),
    ]
    back = load(
        tmp_path, pickle.dumps([*values, np.str_("héo"), np.array([3], ">i4")[0]], protocol)
    )
    assert back == [*(value.item() for value in values), "héo", 3]
    assert types(back) == [float, float, float, int, int, bool, str, int]


def test_what_numpy_1_wrote(tmp_path: Path) -> None:
    content = (
        b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x0c_reconstruct\x93\x8c\x05numpy\x8c\x07ndarray\x93K\x00\x85C\x01b"
        b"\x87R(K\x01K\x02\x85\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f4\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89C\x08\x00\x00\x80?\x00\x00\x00@tb."
    )
    assert load(tmp_path, content).array.tolist() == [1, 2] == pickle.loads(content).tolist()


def test_what_python_2_wrote(tmp_path: Path) -> None:
    assert load(tmp_path, b"((lp0\nS'S001C001'\np1\naS\"it's\"\na(lp2\nI3\naL4L\nat.") == (
        ["S001C001", "it's"],
        [3, 4],
    )
    assert load(tmp_path, b"\x80\x02]q\x00(U\x02a\xffT\x03\x00\x00\x00abce.") == ["a\xff", "abc"]


def test_every_other_opcode_is_refused(tmp_path: Path) -> None:
    names = {ord(op.code): op.name for op in pickletools.opcodes}
    assert {*_REFUSED.split()} < {*names.values()} and {*_STEPS} == {*range(256)}
    for code in range(256):
        if names.get(code, "none") in ("none", *_REFUSED.split()):
            got = f"byte {code:#04x}, which is no opcode"
            if code in names:
                got = f"the opcode {names[code]}"
            with pytest.raises(
                FormatError, match=f"expected lists, dicts, tuples, .* alone, got {got}$"
            ):
                load(tmp_path, bytes([code]) + b"\0\0\0\0\0.")


def test_no_stand_in_is_what_it_stands_for() -> None:
    for stand_in in _STAND_INS.values():
        assert type(stand_in) is object or stand_in.__module__ == "skeleton_focus._unpickle"


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any, more: tuple[Any, ...] = ()) -> None:
        self.parts = (function, arguments, *more)

    def __reduce__(self) -> Any:
        return self.parts


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def harms(marker: Path) -> dict[str, bytes]:
    """Pickles that write the marker when the module pickle reads them."""
    shell = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w').close()"
    system = b"cposix\nsystem\n"
    run = b"cbuiltins\neval\n"
    found = {f"os.system, protocol {p}": pickle.dumps(Calls(os.system, shell), p) for p in range(6)}
    found |= {
        "eval": pickle.dumps(Calls(eval, code)),
        "exec in a list in a dict": pickle.dumps({"split": [{}, [Calls(exec, code)]]}),
        "in the state of an array": pickle.dumps(
            [Calls(np.dtype, "f4", more=(Calls(os.system, shell),))]
        ),
        "subprocess": pickle.dumps(Calls(subprocess.call, ["touch", str(marker)])),
        "as an argument of _reconstruct": pickle.dumps(
            Calls(np.zeros(1).__reduce__()[0], Calls(exec, code))
        ),
        "REDUCE": system + text(shell) + b"\x85R.",
        "INST": b"(" + text(shell) + b"iposix\nsystem\n.",
        "OBJ": b"(" + system + text(shell) + b"o.",
        "NEWOBJ": b"\x80\x02" + run + text(code) + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04"
        + text("posix")
        + text("system")
        + b"\x93"
        + text(shell)
        + b"\x85R.",
        "python 2": b"c__builtin__\neval\n" + text(code) + b"\x85R.",
        "attribute of numpy": b"\x80\x04"
        + text("numpy")
        + text("f2py.os.system")
        + b"\x93"
        + text(shell)
        + b"\x85R.",
        "through getattr": b"cbuiltins\ngetattr\n(cos\npath\n" + text("os") + b"tR.",
    }
    return found


@pytest.mark.parametrize("kind", harms(Path("m")))
def test_nothing_is_run(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(
        FormatError,
        match=r"x\.pkl, byte \d+: expected lists, dicts, .*, "
        r"got ([\w.]+, which could|the opcode INST)",
    ):
        load(tmp_path, harms(marker)[kind])
    assert not marker.exists()


def test_the_harm_is_real(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for kind in ("os.system, protocol 4", "eval", "INST", "OBJ", "STACK_GLOBAL"):
        pickle.loads(harms(marker)[kind])
        assert marker.exists(), kind
        marker.unlink()


def test_a_refused_global_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FormatError, match=r"x\.pkl, byte 11: expected .*, got os\.system, which could run code$"
    ):
        load(tmp_path, b"cos\nsystem\n.")
    with pytest.raises(FormatError, match=r"got 'os\.\\x1b\[31m', which could run code$"):
        load(tmp_path, b"cos\n\x1b[31m\n.")


DTYPE = b"cnumpy\ndtype\n" + text("f4") + b"\x85R"
BLANK = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
BUFFER = b"cnumpy.core.numeric\n_frombuffer\n(C\x04abcd"


@pytest.mark.parametrize("order", [b"<", b">"])
def test_a_text_scalar_of_what_are_no_characters(tmp_path: Path, order: bytes) -> None:
    """numpy would make characters of any four bytes, and Python break over it."""
    dtype = b"cnumpy\ndtype\nX\x02\0\0\0U1\x85R(K\3X\1\0\0\0" + order + b"NNNK\4K\4K\0tb"
    head = b"\x80\3cnumpy.core.multiarray\nscalar\n" + dtype + b"C\4"
    with pytest.raises(FormatError, match=r"byte .*: expected a pickle, got damaged bytes"):
        load(tmp_path, head + b"\xff\xff\xff\x7f\x86R.")
    assert load(tmp_path, head + (b"a\0\0\0" if order == b"<" else b"\0\0\0a") + b"\x86R.") == "a"


NUMBER = b"cnumpy.core.multiarray\nscalar\n"
# The state of an array of two numbers, without its bytes.
SHAPE = b"(K\x01K\x02\x85" + DTYPE + b"\x89"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "expected a pickle, got an empty file"),
        (
            b"version https://git-lfs",
            "byte 1: expected lists, .*, got byte 0x76, which is no opcode",
        ),
        (b"PK\x03\x04", r"byte 1: expected lists, dicts, tuples, .* alone, got the opcode PERSID"),
        (
            b"\x80\x06].",
            "byte 2: expected a pickle, got damaged bytes .*unsupported pickle protocol: 6",
        ),
        (b"]", "byte 1: expected a complete pickle, got a truncated file"),
        (b"I12", "a truncated file"),
        (b".", r"damaged bytes \(IndexError: pop from"),
        (b"a.", "IndexError"),
        (b"]\x86.", "IndexError"),
        (b"e.", "IndexError"),
        (b"q\x00.", "IndexError"),
        (b"K\x01s.", "IndexError"),
        (b"K\x02K\x01s.", "IndexError"),
        (b"M\x01", "damaged bytes .*unpack requires"),
        (b"(K\x01d.", r"damaged bytes \(ValueError: zip\("),
        (
            b"h\x07.",
            r"expected a pickle, got damaged bytes "
            r"\(UnpicklingError: Memo value not found at index 7\)",
        ),
        (b"Ix\n.", r"damaged bytes \(ValueError: invalid literal"),
        (b"Fx\n.", "ValueError"),
        (b"X\x01\x00\x00\x00\xff.", "UnicodeDecodeError"),
        (b"I" + b"9" * 5000 + b"\n.", "ValueError"),
        (b"L" + b"9" * 10**6 + b"L\n.", "ValueError"),
        (b"].]", "expected one pickle, got 1 bytes after it"),
        (b"X\x05\x00\x00\x00abc.", "byte 9: expected a complete pickle, got a truncated file"),
        (b"B\x05\x00\x00\x00abc.", "byte 5: expected 5 bytes, got 4, then the end of the file"),
        (b"T\xff\xff\xff\xffabc.", "BINSTRING pickle has negative byte count"),
        (b"]p-1\n.", "expected a memo index below the file's size, got -1"),
        (b"\x8f.", "got the opcode EMPTY_SET"),
        (b"Pid\n.", "the opcode PERSID"),
        (b"NQ.", "the opcode BINPERSID"),
        (b"\x82\x01.", "EXT1"),
        (b"\x84\x01\x00\x00\x00.", "EXT4"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"cnumpy\ndtype\n)\x81.", "the opcode NEWOBJ"),
        (b"cnumpy\ndtype\n)}\x92.", "the opcode NEWOBJ_EX"),
        (b"(cnumpy\ndtype\no.", "the opcode OBJ"),
        (b"(inumpy\ndtype\n.", "the opcode INST"),
        (b"K\x01K\x02\x93.", "STACK_GLOBAL requires str"),
        (b"S'\n.", "argument must be quoted"),
        (b"K\x01)R.", "'int' object is not callable"),
        (b"cnumpy\nndarray\n)R.", "object is not callable"),
        (b"cnumpy\ndtype\n]R.", "got an array of dtype None"),
        (b"}Nb.", "got a state for a dict of 0"),
        (b"cnumpy\ndtype\nNb.", "got a state for a type"),
        (
            b"cnumpy.core.multiarray\nscalar\n}X\x0c\x00\x00\x00__defaults__Nsb.",
            "got a state for a function",
        ),
        (b"}(K\x01e.", "'dict' object has no attribute 'append'"),
        (b"](K\x01K\x02u.", "expected a dict to add items to, got a list of 0"),
        (b"})K\x01s.", r"expected keys that are strings or numbers, got a tuple of 0"),
        (
            b"}\x8a\x09" + b"\xff" * 8 + b"\x7fK\x01s.",
            "expected keys .*, got 2361183241434822606847",
        ),
        (b"}NK\x01s.", "expected keys that are strings or numbers, got None"),
        (b"ccollections\nOrderedDict\n]\x85R.", "expected a dict that is filled item by item"),
        (
            b"cnumpy\ndtype\n" + text("O8") + b"\x85R.",
            "expected arrays of numbers, got an array of dtype 'O8'",
        ),
        (b"cnumpy\ndtype\n" + text("V8") + b"\x85R.", "got an array of dtype 'V8'"),
        (b"cnumpy\ndtype\n" + text("f4,f4") + b"\x85R.", "got an array of dtype 'f4,f4'"),
        (
            b"cnumpy\ndtype\n" + text("U9999999999") + b"\x85R.",
            "got an array of dtype 'U9999999999'",
        ),
        (b"cnumpy\ndtype\n]\x85R.", "got an array of dtype a list of 0"),
        (b"cnumpy\ndtype\n)R.", "dtype None"),
        (
            DTYPE + b"(K\x03" + text("<") + b"N)}K\x08K\x01K\x10tb.",
            "of numbers, got an array of records",
        ),
        (DTYPE + b"(K\x03" + text("?") + b"NNNtb.", "an array of records"),
        (DTYPE + b"Nb.", "an array of records"),
        (BLANK + b"Nb.", "expected the state of an array, got None"),
        (BLANK + b"(K\x01K\x02\x85K\x07\x89C\x00tb.", "expected a dtype, got 7"),
        (
            BLANK + SHAPE + b"C\x04abcdtb.",
            r"ValueError: cannot reshape array of size 1 into shape \(2,\)",
        ),
        (BLANK + SHAPE + b"]tb.", "a bytes-like object is required"),
        (
            BLANK + b"(K\x01J\xff\xff\xff\xff\x85" + DTYPE + b"\x89C\x04abcdtb.",
            "expected the shape, dtype and bytes",
        ),
        (
            BLANK + b"(K\x01\x8a\x08" + b"\xff" * 7 + b"\x7f\x85" + DTYPE + b"\x89C\x00tb.",
            "cannot reshape",
        ),
        (BUFFER + DTYPE + b"K\x01\x85" + text("K") + b"K\x01\x85tR.", "AxisError"),
        (BUFFER + DTYPE + b"K\x01\x85" + text("X") + b"tR.", "ValueError: order must be"),
        (NUMBER + DTYPE + b"C\x03abc\x86R.", "expected a number of 4 bytes, got a memoryview"),
        (NUMBER + b"K\x01C\x03abc\x86R.", "expected a dtype, got 1"),
        (NUMBER + b"(tR.", "expected a dtype, got None"),
        (NUMBER + b"NNN\x87R.", r"damaged bytes \(TypeError"),
        (
            b"cbuiltins\nbytearray\n\x8a\x05\x00\xe4\x0bT\x02\x85R.",
            "expected bytes as latin-1 text, got 10000000000",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, content: bytes, error: str) -> None:
    with pytest.raises(
        FormatError, match=rf"^{tmp_path}/x\.pkl(, byte \d+)?: expected .*, got "
    ) as refused:
        load(tmp_path, content)
    assert refused.match(error)
    assert len(str(refused.value)) < len(str(tmp_path)) + 250


def test_bytes_that_python_2_wrote(tmp_path: Path) -> None:
    array = load(tmp_path, BLANK + SHAPE + b"U\x08\x00\x00\x80?\x00\x00\x00@tb.").array
    assert (
        array.tolist() == [1, 2]
        and load(tmp_path, NUMBER + DTYPE + b"U\x04\x00\x00\x80?\x86R.") == 1
    )
    with pytest.raises(FormatError, match="UnicodeEncodeError"):
        load(tmp_path, BLANK + SHAPE + text("\u20ac" * 8) + b"tb.")


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")  # Windows opens no folder

    for _ in ("Linux", "Windows"):
        with pytest.raises(UnreadableFileError, match=r"expected a plain file, got a folder"):
            load_pickle(tmp_path)
        monkeypatch.setattr(os, "open", refused)
    monkeypatch.undo()
    with pytest.raises(
        UnreadableFileError, match=r"expected a file that can be read, got No such file"
    ):
        load_pickle(tmp_path / "absent.pkl")


BYTE = b"cnumpy\ndtype\n" + text("u1") + b"\x85R"
BOMBS = {
    "memo index": b"]r\xff\xff\xff\xff.",
    "memo index as text": b"]p99999999999999\n.",
    "frame": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f].",
    "bytes": b"\x8e" + b"\xff" * 7 + b"\x7fabc.",
    "bytearray": b"\x96\x00\x00\x00\x00\x10\x00\x00\x00abc.",
    "text": b"\x8d" + b"\xff" * 7 + b"\x7fabc.",
    "blank array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
    b"\x8a\x05\x00\xe4\x0bT\x02\x85C\x01btR.",
    "array of nothing": BLANK
    + b"(K\x01\x8a\x05\x00\xe4\x0bT\x02K\x00\x86"
    + DTYPE
    + b"\x89C\x00tb.",
    "array without bytes": BLANK + b"(K\x01\x8a\x05\x00\xe4\x0bT\x02\x85" + DTYPE + b"\x89C\x00tb.",
    "deep": b"]" * 300_000 + b"a" * (300_000 - 1) + b".",
    "deep tuples": b")" + b"\x85" * 300_000 + b".",
    "shared": b")" + b"2\x86" * 1000 + b".",
    "shared as a key": b"})" + b"2\x86" * 1000 + b"K\x01s.",
    "shared as a dtype": b"cnumpy\ndtype\n)" + b"2\x86" * 1000 + b"\x85R.",
    "shared as a shape": BLANK + b"(K\x01)" + b"2\x86" * 1000 + DTYPE + b"\x89C\x00tb.",
    "many lists": b"(" + b"]" * 8_000_000 + b"l.",
    "many encoded": text("x" * 10**6)
    + b"q\x000("
    + b"c_codecs\nencode\nh\x00\x85R" * 100_000
    + b"l.",
    "many as python 2 wrote": text("x" * 10**6)
    + b"q\x000("
    + (BLANK + b"(K\x01\x8a\x03@B\x0f\x85" + BYTE + b"\x89h\x00tb") * 10**4
    + b"l.",
    "many arrays": b"(" + (BLANK + b"0") * 1000 + b"l.",
}
IN_A_SMALL_ROOM = """
import json, resource, sys, time
from pathlib import Path
from skeleton_focus._unpickle import load_pickle, describe
from skeleton_focus.format_pyskl import open_pyskl
from skeleton_focus.formats import FormatError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
answers = {}
for file in sys.argv[1:]:
    start, answers[file] = time.monotonic(), []
    for read in (load_pickle, open_pyskl):
        try:
            answers[file].append(describe(read(Path(file))))
        except FormatError as error:
            answers[file].append(str(error))
    answers[file].append(time.monotonic() - start)
print(json.dumps(answers))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how much memory the process has")
def test_no_bomb_takes_memory_or_time(tmp_path: Path) -> None:
    for name, content in BOMBS.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", IN_A_SMALL_ROOM, *(str(tmp_path / name) for name in BOMBS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    harmless = {
        "memo index",
        "frame",
        "blank array",
        "array of nothing",
        "deep",
        "deep tuples",
        "shared",
        "many arrays",
    }
    for file, (loaded, opened, seconds) in json.loads(done.stdout).items():
        name = Path(file).name
        assert seconds < 60, name
        assert (": expected " in loaded) == (name not in harmless), (name, loaded)
        assert ": expected " in opened and len(opened) < len(file) + 250
    assert (
        "a pickle that fits into memory" in json.loads(done.stdout)[str(tmp_path / "many lists")][0]
    )


def test_an_error_never_shows_a_whole_container() -> None:
    value: Any = ()
    for _ in range(1000):
        value = (value, value)
    assert describe(value) == "a tuple of 2" and describe([value]) == "a list of 1"


@given(seed=st.integers(0, 10**9), protocol=st.integers(0, 5), edits=st.integers(1, 6))
def test_a_damaged_pickle_is_refused_or_read(
    tmp_path_factory: Any, seed: int, protocol: int, edits: int
) -> None:
    rng = random.Random(seed)
    content = bytearray(pickle.dumps([PLAIN, np.ones((2, 3), np.float16), np.float32(1)], protocol))
    for _ in range(edits):
        at = rng.randrange(len(content))
        kind = rng.random()
        if kind < 0.5:
            content[at] = rng.choice([rng.randrange(256), rng.choice(list(_STEPS))])
        elif kind < 0.7:
            del content[at : at + rng.randrange(1, 20)]
        else:
            content[at:at] = rng.choice(
                [bytes([rng.choice(list(_STEPS))]), content[at : at + rng.randrange(1, 40)]]
            )
    try:
        load(tmp_path_factory.getbasetemp(), bytes(content))
    except FormatError as error:
        assert ": expected " in str(error)  # noqa: PT017
