"""Ways to damage a file in its structure: JSON values, pickles, headers of arrays, members of archives."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import random
import re
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import fuzz_seeds as seeds
import numpy as np
from fuzz_mutations import (
    BYTES,
    NUMBER,
    TEXT,
    Mutation,
    change_bytes,
    cut,
    double,
    near_the_ends,
    nothing_left,
    ntu_bodies,
    ntu_counts,
    replace_number,
)
from fuzz_seeds import Seed

_VALUES: list[Any] = [
    None, True, False, 0, 1, 2, -1, 25, 99_999, 100_000, 2**31, 2**63, 10**400, 0.5, 2.0, 1e39, -1e39, 3.4e38,
    float("nan"), float("inf"), "", "x", "x" * 5000, "\ud800", "a\nb", "é", [], {}, [[]], [0.0] * 36, {"x": [1]},
]  # fmt: skip


# -------------------------------------------------------------------------------------------------- JSON and pickles


def altered(rng: random.Random, value: Any, odd: Callable[[random.Random, Any], Any]) -> Any:
    """The same nest of dicts and lists with one place in it changed."""
    nest = isinstance(value, (dict, list, tuple)) and len(value) > 0
    if nest and rng.random() < 0.7:
        items = value.copy() if isinstance(value, dict) else [*value]
        key = rng.choice([*items] if isinstance(value, dict) else range(len(items)))
        items[key] = altered(rng, items[key], odd)
        return tuple(items) if isinstance(value, tuple) else items
    if not nest or rng.random() < 0.3:
        return odd(rng, value)
    items = [*value.items()] if isinstance(value, dict) else [*value]
    i = rng.randrange(len(items))
    what = rng.randrange(4)
    if what == 0:
        del items[i]
    elif what == 1:
        items.insert(i, (rng.choice(("x", "y" * 900, "train", "z_val")), 0) if isinstance(value, dict) else items[i])
    elif what == 2:
        items.reverse()
    else:
        items = items[:i]
    return type(value)(items)


def odd_json(rng: random.Random, value: Any) -> Any:
    return rng.choice((*_VALUES, [value], {"x": value}, str(value)[:99]))


def json_values(rng: random.Random, data: bytes) -> bytes:
    """A key dropped, a value of another type, somewhere."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return replace_number(rng, data)
    style = rng.choice(({}, {}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}))
    return json.dumps(altered(rng, content, odd_json), **style).encode("utf-8", "surrogatepass")


def json_nested(rng: random.Random, data: bytes) -> bytes:
    """Something nested deep, as another value, as another key, or in place of all."""
    depth, left, right = rng.choice((5, 900, 990, 2000, 100_000)), *rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    deep = left * depth + b"1" + right * depth
    what = rng.randrange(3)
    if what == 0:
        return data.replace(b"{", b'{"deep": ' + deep + b", ", 1)
    found = NUMBER.search(data, rng.randrange(len(data) + 1))
    return data[: found.start()] + deep + data[found.end() :] if what == 1 and found else deep


def json_key_twice(rng: random.Random, data: bytes) -> bytes:
    key = rng.choice((b"skeletons", b"label", b"data", b"label_index", b"x"))
    return data.replace(b"{", b'{"%s": %s, ' % (key, rng.choice((b"[]", b"[[]]", b"7", b'"["', b"null"))), 1)


def _odd_array(rng: random.Random, value: np.ndarray[Any, Any]) -> Any:
    changed = [
        lambda: value.astype(rng.choice((np.float64, np.float16, np.int8, np.uint64, np.bool_, ">f4", "U3"))),
        lambda: value.astype(np.complex64),
        lambda: value.astype(object),
        lambda: np.full(value.shape, rng.choice((np.nan, np.inf, 1e39, -1e300, 0, -1, 1e-320))),
        lambda: value.reshape(-1),
        lambda: value[..., None],
        lambda: value[..., :1],
        lambda: value[:0],
        lambda: np.asfortranarray(value),
        lambda: value.T,
        lambda: value[..., ::-1],
        lambda: np.concatenate([value] * 3),
        lambda: value.tolist(),
    ]
    return rng.choice(changed)()


def odd_pickled(rng: random.Random, value: Any) -> Any:
    if isinstance(value, np.ndarray) and rng.random() < 0.8:
        with np.errstate(all="ignore"):
            return _odd_array(rng, value)
    return rng.choice(
        (*_VALUES, [value], {"x": value}, (value,), b"x", np.float64(1), np.int8(3), np.str_("é"), {1, 2})
    )


def pickled_values(rng: random.Random, data: bytes) -> bytes:
    """A key dropped, an array of another shape, a value of another type, somewhere; and another protocol."""
    try:  # only what is byte for byte one of the generated files is ever loaded
        content = pickle.loads(data) if data in _known_pickles() else None
    except Exception:
        content = None
    return pickle.dumps(altered(rng, content, odd_pickled), rng.randrange(6)) if content else opcodes(rng, data)


def _known_pickles() -> set[bytes]:
    if not _KNOWN:
        wanted = (seeds.PYSKL, seeds.ST_GCN_LABELS)
        _KNOWN.update(seed.content for seed in seeds.all_seeds() if seed.kind in wanted)
    return _KNOWN


_KNOWN: set[bytes] = set()
_SNIPPETS = [
    b"cos\nsystem\n", b"cbuiltins\neval\n(S'1'\ntR", b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R",
    b"\x8e" + b"\xff" * 8, b"B\xff\xff\xff\x7f", b"X\xff\xff\xff\xff", b"T\xff\xff\xff\xff", b"p99999999999999999\n",
    b"r\xff\xff\xff\x7f", b"p-1\n", b"]" + b"\x85" * 50_000, b"]" + b"2\x86" * 60, b"L" + b"9" * 10_000 + b"L\n",
    b"\x8a\xff" + b"\x7f" * 255, b"F1e999\n", b"Fnan\n", b"G\x7f\xf8" + b"\0" * 6, b"\x95" + b"\xff" * 8, b"V\\ud800\n",
    b"S'x'\n", b"I01\n", b"((((", b"t", b"}", b"\x8f", b"Pid\n", b"Q", b"\x82\1", b"\x97", b"cnumpy\nndarray\n", b"0",
    b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\2\0\0\0U1\x85RB\4\0\0\0\xff\xff\xff\x7f\x86R",
    b"cnumpy\ndtype\nX\2\0\0\0f4K\0K\1\x87R", b"X\x03\0\0\0\xed\xa0\x80", b"ccollections\nOrderedDict\n)R", b"b", b"R",
]  # fmt: skip


def opcodes(rng: random.Random, data: bytes) -> bytes:
    """An opcode left out, doubled, moved, made another, or its argument changed; or some more put in."""
    try:
        starts = [at for _, _, at in pickletools.genops(data)]
    except Exception:
        return change_bytes(rng, data)
    i = rng.randrange(len(starts))
    start, stop = starts[i], [*starts, len(data)][i + 1]
    what = rng.randrange(6)
    if what == 0:
        return data[:start] + data[stop:]
    if what == 1:
        return data[:stop] + data[start:]
    if what == 2:
        return data[:start] + rng.choice(pickletools.opcodes).code.encode("latin-1") + data[start + 1 :]
    if what == 3:
        return data[:start] + rng.choice(_SNIPPETS) + data[start:]
    if what == 4:
        end = [*starts, len(data), len(data)][i + 2]
        return data[:start] + data[stop:end] + data[start:stop] + data[end:]
    argument = rng.choice((b"\xff", b"\0", b"\x7f", rng.randbytes(1))) * min(stop - start - 1, rng.choice((1, 2, 4, 8)))
    return data[: start + 1] + argument + data[start + 1 + len(argument) :]


# ------------------------------------------------------------------------------------------------------- npy and npz

_SHAPE = re.compile(rb"'shape': \(([^)]*)\)")
_SIZES = [
    b"0",
    b"1",
    b"-1",
    b"2",
    b"17",
    b"25",
    b"99999999999",
    b"1" + b"0" * 30,
    b"True",
    b"None",
    b"1.5",
    b"'x'",
    b"3L",
]
_DTYPES = [
    "<f8", ">f4", "<f2", "<i4", "|b1", "|O", "<f16", "<U3", "<c8", "|V4", "<M8[s]",
    "f4,f4", "x" * 200, "<f", "|S4", "(2,)f4",
]  # fmt: skip


def npy_header(rng: random.Random, data: bytes) -> bytes:
    """Another shape, dtype, order, version or length of the header."""
    if data[:6] != b"\x93NUMPY" or len(data) < 10:
        return change_bytes(rng, data)
    (length,) = struct.unpack("<H", data[8:10])
    head, rest = data[10 : 10 + length], data[10 + length :]
    what = rng.randrange(7)
    shape = _SHAPE.search(head)
    if what < 3 and shape:
        sizes = shape[1].split(b",")
        i = rng.randrange(len(sizes))
        sizes[i : i + 1] = rng.choice(([rng.choice(_SIZES)], [], [sizes[i]] * 2, [rng.choice(_SIZES), b"1"]))
        rng.shuffle(sizes) if rng.random() < 0.3 else None
        head = head[: shape.start(1)] + b", ".join(sizes) + head[shape.end(1) :]
    elif what == 3:
        head = re.sub(rb"'[<>|][a-z]\d+'", repr(rng.choice(_DTYPES)).encode(), head)
    elif what == 4:
        head = rng.choice(
            (head.replace(b"False", b"True"), head.replace(b"False", b"0"), head[:-9] + b"\n", b"\\" + head)
        )
    elif what == 5:
        head = head.rstrip() + b" " * rng.randrange(90) + b"\n"  # the numbers begin at any byte
    else:
        head = rng.choice(
            (b"(" * 9000, b"{" * 9000, b"-" * 9000 + b"1", b"9" * 9000, b"'\\z'", b"__import__('os')", b"")
        )
    version = rng.choice((b"\1\0", b"\2\0", b"\3\0", b"\0\0", b"\xff\xff")) if rng.random() < 0.1 else data[6:8]
    return data[:6] + version + struct.pack("<H" if version != b"\2\0" else "<I", len(head)) + head + rest


def npz_members(rng: random.Random, data: bytes) -> bytes:
    """A member left out, called something else, changed within, packed otherwise; the archive is whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:
        return near_the_ends(rng, data)
    members = members or [("x.npy", b"")]
    i = rng.randrange(len(members))
    name, content = members[i]
    within = rng.choice((npy_header, npy_header, change_bytes, cut, double))
    members[i : i + 1] = rng.choice(
        (
            [(name, within(rng, content))], [(name, within(rng, content))], [(name, within(rng, content))], [],
            [(rng.choice(("x" * 900, "é", "../x.npy", "x/", "X_train.npy")), content)], [(name, content)] * 2,
            [(name, content), *((f"{k}" + "n" * 200, b"") for k in range(rng.choice((1, 9, 300))))],
            [(name, rng.choice(members)[1])], [(name, np.random.default_rng(i).bytes(300))],
        )
    )  # fmt: skip
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return seeds.npz(members, rng.choice((*methods * 4, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))


# ---------------------------------------------------------------------------------------------------------- all of it

_JSON: list[Mutation] = [json_values, json_values, json_values, json_nested, json_key_twice]
_PICKLE: list[Mutation] = [pickled_values, pickled_values, pickled_values, opcodes, opcodes]
_OWN: dict[str, list[Mutation]] = {
    seeds.NTU: [*TEXT, ntu_counts, ntu_counts, ntu_bodies, ntu_bodies],
    seeds.NW_UCLA: [*TEXT, *_JSON],
    seeds.KINETICS: [*TEXT, *_JSON],
    seeds.PYSKL: _PICKLE,
    seeds.ST_GCN_LABELS: _PICKLE,
    seeds.ST_GCN_DATA: [npy_header],
    seeds.CTR_GCN: [npz_members],
}


def mutant(rng: random.Random, seed: Seed) -> bytes:
    """A seed's file, damaged once or a few times."""
    data = seed.content
    if rng.random() < 0.02:
        return nothing_left(rng, data)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        data = rng.choice(_OWN[seed.kind] if rng.random() < 0.6 else BYTES)(rng, data)
    return data
