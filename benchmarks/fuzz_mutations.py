"""Ways to damage a file: in its bytes, in its lines and numbers. Each takes a generator and the bytes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Mutation = Callable[[random.Random, bytes], bytes]

NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
NUMBERS = [
    b"nan", b"NaN", b"-inf", b"Infinity", b"1e39", b"-1e39", b"1e308", b"1e999", b"9" * 400, b"9" * 5000, b"0" * 400,
    b"0." + b"3" * 700, b"-1", b"0", b"-0", b"-0.0", b"+1", b"01", b"00", b"1.", b".5", b"1e5", b"1E-05", b"1e-400",
    b"2.0", b"1_0", b"0x10", b"", b"-", b"--1", b"1-2", b"1..2", b"1.2.3", b".", b"e", b"1e", b"3.4028235e38",
    b"3.4028236e38", b"1e-50", "٣".encode(), b"\xff", b"1,5", b"99999999", b"100000000", b"2000000000", b"true",
    b"null", b'"x"', b"[]", b"{}", b"1 2", b"x" * 3000, b"1\x002", b"0.1234567890123456789", b"12345678901234567",
]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- the bytes


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    """A random part, mostly a short one."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 1, 2, 4, 30, 300, len(data))))


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if data else 0):
        changed[rng.randrange(len(data))] = rng.choice((0, 0xFF, 0x20, 0x0A, 0x2D, rng.randrange(256)))
    return bytes(changed)


def flip_a_bit(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data)) if data else 0
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else data


def delete(rng: random.Random, data: bytes) -> bytes:
    start, stop = _span(rng, data)
    return data[:start] + data[stop:]


def double(rng: random.Random, data: bytes) -> bytes:
    start, stop = _span(rng, data)
    return data[:stop] + data[start:]


def insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((b"\0", b"\xff" * 8, b"\n", b" ", b",", rng.randbytes(5))) + data[at:]


def overwrite(rng: random.Random, data: bytes) -> bytes:
    start, stop = _span(rng, data)
    return data[:start] + rng.choice((b"\0", b"\xff", b"0", b" ", b"[")) * (stop - start) + data[stop:]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def swap_spans(rng: random.Random, data: bytes) -> bytes:
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def near_the_ends(rng: random.Random, data: bytes) -> bytes:
    """Where headers and directories of archives lie: a number of two to eight bytes."""
    size = rng.choice((2, 4, 8))
    at = rng.randrange(min(len(data), 300) + 1)
    at = at if rng.random() < 0.4 else max(len(data) - at, 0)
    number = rng.choice((b"\xff" * 8, b"\0" * 8, b"\1" + b"\0" * 7, b"\0" * 3 + b"\x7f" + b"\0" * 4, rng.randbytes(8)))
    return data[:at] + number[:size] + data[at + size :]


def nothing_left(rng: random.Random, data: bytes) -> bytes:
    return rng.choice(
        (b"", b"\n", b" " * 9, b"\0" * 1000, b"\0" * len(data), b"PK\3\4", b"\x80\4.", rng.randbytes(500))
    )


BYTES: list[Mutation] = [
    change_bytes, change_bytes, flip_a_bit, delete, double, insert, overwrite, cut, swap_spans, near_the_ends,
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ the text


def replace_number(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    found = NUMBER.search(data, start) or NUMBER.search(data)
    return data[: found.start()] + rng.choice(NUMBERS) + data[found.end() :] if found else data


def replace_numbers(rng: random.Random, data: bytes) -> bytes:
    """Many numbers by one."""
    share, number = rng.choice((0.01, 0.3, 1.0)), rng.choice(NUMBERS)
    number = number[:20]
    return NUMBER.sub(lambda found: number if rng.random() < share else found[0], data)


def line_ends(rng: random.Random, data: bytes) -> bytes:
    return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\v", b"\f\n", b"\x85", b"", b" \n", b"\x1c")))


def a_line_end_halved(rng: random.Random, data: bytes) -> bytes:
    r"""All lines end in \r\n, and one in \r or \n alone."""
    rows = data.replace(b"\r", b"").split(b"\n")
    at = rng.randrange(len(rows)) + 1
    return b"\r\n".join(rows[:at]) + rng.choice((b"\r", b"\n", b"\r\r\n")) + b"\r\n".join(rows[at:])


def spaces(rng: random.Random, data: bytes) -> bytes:
    return data.replace(b" ", rng.choice((b"\t", b"  ", b"\n", b"", b"\xc2\xa0", b"\x1f", b"\v", b"\r", b"\0")))


def encoding(rng: random.Random, data: bytes) -> bytes:
    text = data.decode("latin-1")
    name = rng.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-8-sig", "utf-7"))
    return text.encode(name)


def not_ascii(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(("é", "\uff11", "٣", "\u2028", "\u2212", "💃")).encode() + data[at:]


def lines(rng: random.Random, data: bytes) -> bytes:
    """Delete, double or swap lines."""
    rows = data.split(b"\n")
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
    what = rng.randrange(4)
    if what == 0:
        del rows[i]
    elif what == 1:
        rows.insert(i, rows[i])
    elif what == 2:
        rows[i], rows[j] = rows[j], rows[i]
    else:
        rows[i : i + 1] = rows[i].split(b" ", 1)
    return b"\n".join(rows)


TEXT: list[Mutation] = [
    replace_number, replace_number, replace_number, replace_numbers, line_ends, a_line_end_halved, spaces, encoding,
    not_ascii, lines,
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- NTU


def ntu_counts(rng: random.Random, data: bytes) -> bytes:
    """Another number of frames, bodies or joints."""
    rows = data.split(b"\n")
    alone = [i for i, row in enumerate(rows) if len(row.split()) == 1] or [0]
    i = rng.choice((alone[0], rng.choice(alone)))
    known = int(rows[i]) if rows[i].isdigit() and len(rows[i]) < 9 else 0
    rows[i] = rng.choice((b"%d" % (known + 1), b"%d" % (known - 1), b"0", b"%d " % known, rng.choice(NUMBERS)))
    return b"\n".join(rows)


def ntu_bodies(rng: random.Random, data: bytes) -> bytes:
    """A body left out or there twice, and the count that fits; or all its numbers made huge."""
    rows = data.split(b"\n")
    heads = [i for i, row in enumerate(rows) if len(row.split()) == 10]
    if not heads:
        return data
    i = rng.choice(heads)
    block, what = rows[i : i + 27], rng.randrange(4)
    count = max((k for k in range(i) if len(rows[k].split()) == 1 and k not in {h + 1 for h in heads}), default=0)
    bodies = int(rows[count]) if rows[count].isdigit() and len(rows[count]) < 9 else 1
    if what == 0:
        rows[i : i + 27], rows[count] = [], b"%d" % (bodies - 1)
    elif what == 1:
        again = [block[0].replace(b"7", b"8", rng.randrange(2)), *block[1:]]
        rows[i:i], rows[count] = again, b"%d" % (bodies + 1)
    else:
        scale = rng.choice((1e38, -3e38, 1e20, 1e-45, 0.0))
        for k in range(i + 2, min(i + 27, len(rows))):
            fields = rows[k].split()
            rows[k] = b" ".join([b"%r" % (scale * (1 + 0.01 * (k - i))) for _ in fields[:3]] + fields[3:])
    return b"\n".join(rows)
