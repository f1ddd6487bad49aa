"""Simple readers, line by line and number by number, as a baseline for ours."""

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
    """The number of frames; of each body id the frames that show it and, of each, 25 rows of 12 numbers."""
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
                    if len(row) != 12 or whole(fields[11]) not in (0, 1, 2):
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


FIELDS = [
    "x",
    "y",
    "z",
    "depth_x",
    "depth_y",
    "color_x",
    "color_y",
    "rotation_w",
    "rotation_x",
    "rotation_y",
    "rotation_z",
    "tracking_state",
]


def read_ntu_by_name(path: Path) -> NDArray[np.float32]:
    """As the field's loaders read it: a dict of named fields for each joint, then x (3, T, 25, M) joint by joint."""
    frames = []
    with path.open() as file:
        for _ in range(int(file.readline())):
            bodies = []
            for _ in range(int(file.readline())):
                file.readline()
                joints = [
                    {name: float(field) for name, field in zip(FIELDS, file.readline().split(), strict=True)}
                    for _ in range(int(file.readline()))
                ]
                bodies.append(joints)
            frames.append(bodies)
    x = np.zeros((3, len(frames), 25, max(map(len, frames))), np.float32)
    for t, bodies in enumerate(frames):
        for m, joints in enumerate(bodies):
            for v, joint in enumerate(joints):
                x[:, t, v, m] = joint["x"], joint["y"], joint["z"]
    return x


def read_ntu_by_column(path: Path) -> NDArray[np.float32]:
    """The least that a line-by-line reader can do: split, convert, keep three columns, no body told from another."""
    poses = []
    with path.open("rb") as file:
        for _ in range(int(file.readline())):
            for _ in range(int(file.readline())):
                file.readline()
                poses.append([[*map(float, file.readline().split())][:3] for _ in range(int(file.readline()))])
    return np.array(poses, np.float32)


def read_nw_ucla(path: Path) -> NDArray[np.float32]:
    """json and numpy: positions (T, 20, 3)."""
    with path.open("rb") as file:
        return np.array(json.load(file)["skeletons"], np.float32)
