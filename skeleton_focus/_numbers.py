"""The decimal numbers of a text, found and converted many at a time, each to exactly what ``float`` makes of it.

A few comparisons of the whole text with itself, shifted by a byte, find every number and everything that is none. Of a
number like -12.345 the digits before and after the point are taken as 8-byte words, and each word becomes an integer by
three multiplications (Lemire, "Number parsing at a gigabyte per second", 2021, section 7). Up to 15 digits that integer
is exact, so is the power of ten that divides it, and the quotient is correctly rounded (Clinger, "How to read floating
point numbers accurately", PLDI 1990). What has an exponent, more digits or an unusual spelling goes through ``float``.
"""

from __future__ import annotations

import re
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

_SPACE, _NEWLINE, _RETURN, _MINUS, _POINT, _ZERO = b" \n\r-.0"
_NUMBER = re.compile(rb"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.IGNORECASE)
_JSON = re.compile(rb"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_SIGNS = np.array([1.0, -1.0])
_POWERS = 10.0 ** np.arange(16)
_KEEP = np.array([((1 << 64) - 1) >> 8 * (8 - n) << 8 * (8 - n) for n in range(9)], np.uint64)  # a word's last n bytes
_MARGIN = 16
# Eight digits, the first in the lowest byte, become four of two digits, two of four and one number of eight.
_JOIN = (
    (0x0F0F0F0F0F0F0F0F, 10 * 2**8 + 1, 8),
    (0x00FF00FF00FF00FF, 100 * 2**16 + 1, 16),
    (0x0000FFFF0000FFFF, 10000 * 2**32 + 1, 32),
)


@cache
def _keep_freed_memory() -> None:
    """Once a block of this size was freed, glibc keeps what it frees later, up to twice as much, for the next arrays.

    Before, it hands the pages of every file's arrays back and takes them again, which costs more than the reading.
    """
    np.empty(1 << 24, np.uint8)


class Numbers:
    """The numbers of a text.

    Args:
        text: numbers, separated by white space, in lists also by brackets and commas.
        lists: whether the text is that of lists.

    Attributes:
        broken: the first number that is none, or None. ``nan`` and ``inf`` are numbers.

    Example:
        >>> numbers = Numbers(b"2\\n0.5 -1e-3\\n")
        >>> numbers.values(np.arange(3)).tolist(), numbers.lines.tolist()
        ([2.0, 0.5, -0.001], [0, 1, 3, 3])
    """

    def __init__(self, text: bytes, *, lists: bool = False) -> None:
        _keep_freed_memory()
        self._padded = b"".join((b" " * _MARGIN, text, b"\n", b" " * 8))
        self._text = np.frombuffer(self._padded, np.uint8)
        self._separators = b" \t\n\r\v\f" + (b"[]," if lists else b"")
        self._digit = digit = (self._text - _ZERO) < 10
        point, minus, space = self._text == _POINT, self._text == _MINUS, self._text <= _SPACE
        if lists:
            space |= (self._text == ord(",")) | (self._text == ord("[")) | (self._text == ord("]"))
        if self._text.min() < 9 or ((self._text - 14) < 18).any():  # control characters that are no white space
            space &= (self._text > 8) & ((self._text - 14) >= 18)
        strange = ~(digit | point | minus | space)
        strange[1:-1] |= point[1:-1] > (digit[:-2] & digit[2:])  # a point without a digit on either side
        strange[1:-1] |= minus[1:-1] > (space[:-2] & digit[2:])  # a minus within a number or without one
        slow = self._set_aside(np.flatnonzero(strange), point)
        while True:
            self._at = np.flatnonzero((space[1:] & digit[:-1]) | point[1:]) + 1  # after each number, and each point
            self._is_point = point.take(self._at)
            second = self._is_point[1:] & self._is_point[:-1]
            if not second.any():
                break
            slow += self._set_aside(self._at[1:][second], point)
        self._last = np.flatnonzero(~self._is_point)
        self._end = self._at.take(self._last)
        self._slow = np.zeros(len(self._end), np.bool_)
        self._slow[np.searchsorted(self._end, np.array(slow, np.int64))] = True
        unknown = np.flatnonzero(self._slow)
        spelled = zip(unknown.tolist(), self.tokens(unknown), strict=True)
        self.broken = next((i for i, token in spelled if not _NUMBER.fullmatch(token)), None)

    def _set_aside(self, at: NDArray[np.int64], point: NDArray[np.bool_]) -> list[int]:
        """Where numbers of an unusual spelling begin; from here on each counts as one digit, its last."""
        found: list[int] = []
        end = 0
        for position in at.tolist():
            if position >= end:
                start, end = position, position + 1
                while self._padded[start - 1] not in self._separators:
                    start -= 1
                while self._padded[end] not in self._separators:
                    end += 1
                found.append(start)
                self._digit[start:end], point[start:end] = False, False
                self._digit[end - 1] = True
        return found

    def __len__(self) -> int:
        return len(self._end)

    @cached_property
    def lines(self) -> NDArray[np.int64]:
        """(lines + 1,) the first number of each line, and their count; after a last newline a line is empty."""
        after = self._text.take(self._end)
        ends, returns = after == _NEWLINE, np.flatnonzero(after == _RETURN)
        ends[returns] = self._text.take(self._end.take(returns) + 1) == _NEWLINE  # a return alone is white space
        last = np.flatnonzero(ends) + 1
        blank = self._padded[-10:-9] == b"\n"  # after the text's own last newline
        if len(last) + blank != self._padded.count(b"\n"):  # spaces or nothing before some newlines
            last, blank = np.searchsorted(self._end, np.flatnonzero(self._text == _NEWLINE), "right"), False
        return np.concatenate(([0], last, np.full(int(blank), len(self))))

    def line(self, index: int) -> int:
        """The line, from 1, of a number."""
        return int(np.searchsorted(self.lines, index, "right"))

    def tokens(self, index: NDArray[np.int64]) -> list[bytes]:
        """How some numbers are written."""
        before = np.where(index > 0, self._end.take(index - 1), 0).tolist()
        spans = zip(before, self._end.take(index).tolist(), strict=True)
        return [self._padded[start:end].lstrip(self._separators) for start, end in spans]

    @property
    def json(self) -> bool:
        """Whether JSON spells all of them so: no plus or zero before a number, digits on both sides of a point."""
        point, whole, _ = self._parts
        unknown = self._slow | (whole > 8)
        if not all(map(_JSON.fullmatch, self.tokens(np.flatnonzero(unknown)))):
            return False
        return (
            whole.max(initial=0) <= 1 or not ((whole > 1) & (self._text.take(point - whole) == _ZERO) & ~unknown).any()
        )

    def integers(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """The values of some numbers that are written as one to eight digits and nothing else; -1 for others."""
        last = self._last.take(index)
        end = self._at.take(last)
        whole = self._whole(end)
        plain = ~self._is_point.take(last - 1) & (whole <= 8) & ~self._slow.take(index)
        plain &= self._text.take(end - whole - 1) != _MINUS
        return np.where(plain, self._integer(end, whole), -1)

    def digits(self, index: NDArray[np.int64]) -> NDArray[np.int8]:
        """The values of some numbers that are written as one digit; -1 for others."""
        end = self._end.take(index)
        alone = (self._text.take(end - 2) <= _SPACE) & ~self._slow.take(index)
        digit = self._text.take(end - 1) & 15
        return np.where(alone, digit.astype(np.int8), np.int8(-1))

    def values(self, index: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """The values of some numbers, by default of all, as ``float`` gives them."""
        if index is None:
            end, slow, (point, whole, decimals) = self._end, self._slow, self._parts
        else:
            end, slow = self._end.take(index), self._slow.take(index)
            point, whole, decimals = self._parts_of(self._last.take(index), end)
        value: NDArray[np.float64] = self._integer(point, whole).astype(np.float64)
        fraction = self._integer(end, decimals).astype(np.float64)
        if decimals.max(initial=0) > 8:
            long = np.flatnonzero(decimals > 8)
            fraction[long] += 1e8 * self._integer(end[long] - 8, decimals[long] - 8)
        power = _POWERS.take(decimals, mode="clip")
        value = (value * power + fraction) / power
        value *= _SIGNS.take(self._text.take(point - whole - 1) == _MINUS)
        others = np.flatnonzero(slow | (whole > 8) | (whole + decimals > 15))
        value[others] = list(map(float, self.tokens(others if index is None else index[others])))
        return value

    @cached_property
    def _parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        return self._parts_of(self._last, self._end)

    def _parts_of(
        self, last: NDArray[np.int64], end: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Where the points are, or would be, and the digits before and after them."""
        has_point = self._is_point.take(last - 1).view(np.int8)
        point = self._at.take(last - has_point)
        return point, self._whole(point), end - point - has_point

    def _whole(self, point: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many digits, up to 9, stand before these places."""
        count = np.ones_like(point)
        more = np.flatnonzero(self._digit.take(point - 2))
        while len(more):
            count[more] += 1
            more = more[(count[more] < 9) & self._digit.take(point[more] - count[more] - 1)]
        return count

    def _integer(self, end: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the last ``count``, up to 8, ASCII digits before these places spell.

        The words are unsigned, the result is signed: beside an unsigned array, numpy 2.5 refuses -1 and older versions
        wrap it.
        """
        if count.max(initial=0) <= 1:
            return (self._text.take(end - 1) & 15) * count
        word = np.ndarray(len(self._padded) - 7, "<u8", self._padded, strides=(1,))[end - 8]
        word &= _KEEP.take(count, mode="clip")
        for keep, left, right in _JOIN:
            word &= np.uint64(keep)
            word *= np.uint64(left)
            word >>= np.uint64(right)
        return word.view("<i8")  # below 2^28, whatever bytes they were: the same numbers
