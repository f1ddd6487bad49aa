"""The numbers of a text: each to the bit what float makes of it, and no other text taken for one."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skeleton_focus._numbers import _JOIN, _KEEP, Numbers

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)

DECIMALS = st.builds(lambda value, digits: f"{value:.{digits}f}", st.floats(-1e6, 1e6), st.integers(0, 17))
SPELLED = (
    DECIMALS
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.integers(-(10**25), 10**25).map(str)
    | st.from_regex(NUMBER, fullmatch=True).filter(lambda text: len(text) < 40)
)
ANY = (
    SPELLED
    | st.text("0123456789.-+eE", min_size=1, max_size=12)
    | st.text("0123456789x[,\0\x1c_é", min_size=1, max_size=4)
)


def bits(values: np.ndarray) -> list[int]:
    return values.astype(np.float64).view(np.int64).tolist()


@given(st.lists(SPELLED, min_size=1, max_size=30), st.sampled_from([" ", "\n", "\r\n", " \t ", "\v\f"]))
@settings(max_examples=150)
def test_values_are_those_of_float(tokens: list[str], separator: str) -> None:
    numbers = Numbers(separator.join(tokens).encode())
    assert len(numbers) == len(tokens) and numbers.broken is None
    expected = np.array([float(token) for token in tokens])
    assert bits(numbers.values()) == bits(expected)
    some = np.arange(len(tokens))[::-2]
    assert bits(numbers.values(some)) == bits(expected[some])
    assert numbers.tokens(some) == [tokens[i].encode() for i in some]


@given(st.lists(ANY, min_size=1, max_size=12))
@settings(max_examples=200)
def test_the_first_that_is_no_number(tokens: list[str]) -> None:
    numbers = Numbers(" ".join(tokens).encode())
    assert len(numbers) == len(tokens)
    assert numbers.broken == next((i for i, token in enumerate(tokens) if not NUMBER.fullmatch(token)), None)


@given(st.lists(st.integers(0, 10**10).map(str) | st.integers(-9, 9).map(str) | ANY, min_size=1, max_size=12))
@settings(max_examples=150)
def test_integers(tokens: list[str]) -> None:
    numbers = Numbers(" ".join(tokens).encode())
    expected = [int(t) if t.isascii() and t.isdigit() and len(t) <= 8 else -1 for t in tokens]
    assert numbers.integers(np.arange(len(tokens))).tolist() == expected
    assert numbers.digits(np.arange(len(tokens))).tolist() == [
        e if len(t) == 1 else -1 for e, t in zip(expected, tokens, strict=True)
    ]


@pytest.mark.parametrize("count", range(1, 9))
def test_the_word_of_each_length(count: int) -> None:
    """A number of every length, also where shorter and longer ones stand beside it: signed, so that -1 can join it."""
    for digits in ("12345678", "90000009", "99999999", "00000000"):
        token = digits[:count]
        numbers = Numbers(f"7 {token} 1234.5678 {token[::-1]}".encode())
        words = numbers._integer(numbers._end[[1, 3]], np.array([count, count]))
        assert words.dtype == np.int64 and words.tolist() == [int(token), int(token[::-1])]
        assert numbers.integers(np.arange(4)).tolist() == [7, int(token), -1, int(token[::-1])]


def test_the_constants_of_a_word_are_exact() -> None:
    """Every mask and factor is a 64-bit number as it is written, and the three steps join the digits of a word."""
    for count in range(9):
        assert int(_KEEP[count]).to_bytes(8, "little") == bytes(8 - count) + b"\xff" * count
    for digits in (b"12345678", b"00000000", b"99999999"):
        word = int.from_bytes(digits, "little")
        for keep, factor, shift in _JOIN:
            assert int(np.uint64(keep)) == keep and int(np.uint64(factor)) == factor and 0 < shift < 64
            word = (word & keep) * factor % 2**64 >> shift
        assert word == int(digits)


def test_no_integer_beside_an_array_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """From numpy 2.5, ``where`` refuses a Python integer that the array's type cannot hold; older ones wrap it."""
    older = np.where

    def where(condition: object, chosen: np.ndarray, other: object) -> np.ndarray:
        return older(condition, chosen, chosen.dtype.type(other) if type(other) is int else other)

    with pytest.raises(OverflowError, match="-1 out of bounds for uint64"):
        where(True, np.ones(1, np.uint64), -1)
    monkeypatch.setattr(np, "where", where)
    numbers = Numbers(b"3 12345678 1.5 x -4 0\n12")
    every = np.arange(7)
    assert numbers.integers(every).tolist() == [3, 12345678, -1, -1, -1, 0, 12]
    assert numbers.digits(every).tolist() == [3, -1, -1, -1, -1, 0, -1]


@given(st.lists(SPELLED, min_size=1, max_size=12))
@settings(max_examples=150)
def test_what_json_spells_so(tokens: list[str]) -> None:
    text = f"[{','.join(tokens)}]".encode()
    numbers = Numbers(text, lists=True)
    assert len(numbers) == len(tokens) and bits(numbers.values()) == bits(np.array([float(t) for t in tokens]))
    try:
        json.loads(text)
        valid = True
    except ValueError:
        valid = False
    assert numbers.json == valid


@given(st.lists(st.lists(SPELLED, max_size=4), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_lines(lines: list[list[str]], newline: str, ends: bool) -> None:
    text = newline.join(" ".join(line) for line in lines) + newline * ends
    numbers = Numbers(text.encode())
    counts = np.diff(numbers.lines).tolist()
    assert counts == [len(line) for line in lines] + [0] * ends
    owner = [i + 1 for i, line in enumerate(lines) for _ in line]
    assert [numbers.line(i) for i in range(len(numbers))] == owner


@pytest.mark.parametrize("text", [b"", b" ", b"\n\n", b"\r"])
def test_no_number(text: bytes) -> None:
    numbers = Numbers(text)
    assert len(numbers) == 0 and numbers.broken is None and not numbers.values().size


@pytest.mark.parametrize("token", ["nan", "-inf", "Infinity", "+NaN"])
def test_what_is_not_finite_is_a_number(token: str) -> None:
    numbers = Numbers(f"1.5 {token} 2".encode())
    assert numbers.broken is None and bits(numbers.values()[1:2]) == bits(np.array([float(token)]))
    assert not Numbers(token.encode(), lists=True).json


@pytest.mark.parametrize(
    ("text", "broken"), [("1.2.3", 0), ("1 2-3", 1), ("1 -", 1), ("1 2 e5", 2), ("5 1.5e", 1), ("1e5.5", 0)]
)
def test_broken_by_hand(text: str, broken: int) -> None:
    numbers = Numbers(text.encode())
    assert numbers.broken == broken and len(numbers) == len(text.split())


def test_by_hand() -> None:
    values = Numbers(b"12 -0.0042 1234567.125 123456789.25 0.1234567890123456 -1.5E-3").values().tolist()
    assert values == [12, -0.0042, 1234567.125, 123456789.25, 0.1234567890123456, -0.0015]
