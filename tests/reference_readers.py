"""Read NTU's text and NW-UCLA's JSON plainly, number by number, to compare with the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TOO_LARGE = 3.4028235677973366e38  # what float32 rounds to infinity
Body = list[tuple[int, list[list[float]]]]


def number(token: bytes) -> float:
    """A decimal number; Python's underscores are none."""
    if b"_" in token:
        raise ValueError(f"not a number: {token!r}")
    return float(token)


def whole(line: bytes) -> int:
    """A line that holds one whole number."""
    (token,) = line.split()
    if not token.isdigit() or len(token) > 8:
        raise ValueError(f"not a whole number: {token!r}")
    return int(token)


def read_ntu(path: Path) -> tuple[int, dict[bytes, Body]]:
    """Read the number of frames and, by body id, its frames, with 25 rows of 12 numbers each."""
    bodies: dict[bytes, Body] = {}
    with path.open("rb") as file:
        frames = whole(file.readline())
        if frames > 10_000:
            raise ValueError("more frames than any clip has")
        for frame in range(frames):
            for _ in range(whole(file.readline())):
                head = file.readline().split()
                if len(head) != 10 or not [number(field) for field in head]:
                    raise ValueError(f"not a body: {head!r}")
                if whole(file.readline()) != 25:
                    raise ValueError("not 25 joints")
                rows = []
                for _ in range(25):
                    fields = file.readline().split()
                    row = [number(field) for field in fields]
                    if len(row) != 12 or whole(fields[11]) not in (0, 1, 2) or len(fields[11]) > 1:
                        raise ValueError(f"not a joint: {row!r}")
                    if not all(abs(value) < TOO_LARGE for value in row[:3]):
                        raise ValueError(f"not finite: {row!r}")
                    rows.append(row)
                body = bodies.setdefault(head[0], [])
                if body and body[-1][0] == frame:
                    raise ValueError(f"twice in a frame: {head[0]!r}")
                body.append((frame, rows))
        if file.read().split():
            raise ValueError("more after the last frame")
    rows = [row for body in bodies.values() for _, joints in body for row in joints]
    if not any(row[11] > 0 and any(np.float32(value) for value in row[:3]) for row in rows):
        raise ValueError("nobody")
    return frames, bodies


def read_nw_ucla(path: Path) -> NDArray[np.float32]:
    """Positions (T, 20, 3)."""
    content = json.loads(path.read_bytes())
    points = []
    for frame in content["skeletons"]:
        points.append([[coordinate(value) for value in point] for point in frame])
    x = np.array(points, np.float32)
    actions = ["a01", "a02", "a03", "a04", "a05", "a06", "a08", "a09", "a11", "a12"]
    label = actions.index(path.stem[:3]) + 1
    named = (
        content["file_name"] == path.stem
        and type(content["label"]) is int
        and content["label"] == label
    )
    if (
        x.ndim != 3
        or x.shape[1:] != (20, 3)
        or not np.isfinite(x).all()
        or not x.any()
        or not named
    ):
        raise ValueError("no clip")
    return x


def coordinate(value: object) -> np.float32:
    """A number of JSON."""
    if type(value) not in (int, float):
        raise TypeError(f"not a number: {value!r}")
    return np.float32(float(value))  # type: ignore[arg-type]
