"""Slow reference of what a camera misses: plain loops, one number at a time.

Axes: N batch, C channels, T frames, V joints, M persons; x (N, C, T, V, M), visibility (N, T, V, M)
and truth (N, M, T, V).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Clips = tuple[Array, list[int], Array, Array]  # x, lengths, visibility, truth

# RA-GCN's parts of the 25 joints of NTU, numbered from 1 as there.
NTU_PARTS = {
    "left_arm": {5, 6, 7, 8, 22, 23},
    "right_arm": {9, 10, 11, 12, 24, 25},
    "two_hands": {7, 8, 11, 12, 22, 23, 24, 25},
    "two_legs": {13, 14, 15, 16, 17, 18, 19, 20},
    "trunk": {1, 2, 3, 4, 21},
}
ARM = ("shoulder", "elbow", "wrist", "hand", "hand_tip", "thumb", "pinky", "index")
HAND = ("wrist", "hand", "hand_tip", "thumb", "pinky", "index")
LEG = ("hip", "knee", "ankle", "foot", "heel", "big_toe", "small_toe")


def parts_by_name(names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The five parts, told by the joints' names."""
    found: dict[str, list[int]] = {
        part: [] for part in ("left_arm", "right_arm", "two_hands", "two_legs", "trunk")
    }
    for joint, name in enumerate(names):
        side, _, what = name.partition("_")
        on_limb = side in ("left", "right") and what in ARM + LEG
        if not on_limb:
            found["trunk"].append(joint)
        elif what in LEG:
            found["two_legs"].append(joint)
        else:
            found[f"{side}_arm"].append(joint)
            if what in HAND:
                found["two_hands"].append(joint)
    return {part: tuple(joints) for part, joints in found.items()}


def hide(clips: Clips, lost: Callable[[int, int, int, int], bool]) -> Clips:
    """Zeros where ``lost(n, t, v, m)``."""
    x, lengths, seen, truth = clips
    x = x.copy()
    seen = seen.copy()
    truth = truth.copy()
    for n, t, v, m in np.ndindex(*seen.shape):
        if lost(n, t, v, m):
            for c in range(x.shape[1]):
                x[n, c, t, v, m] = 0.0
            seen[n, t, v, m] = 0.0
            truth[n, m, t, v] = 0.0
    return x, lengths, seen, truth


def middle(length: int, share: float) -> list[int]:
    """The frames of the block around a clip's middle."""
    count = math.floor(share * length + 0.5)
    before = (length - count) // 2
    return list(range(before, before + count))


def play(clips: Clips, frames: list[list[int]]) -> Clips:
    """Each clip's frames at these places one after the other; zeros up to the longest."""
    x, _, seen, truth = clips
    n, c, _, v, m = x.shape
    longest = max(len(places) for places in frames)
    new_x = np.zeros((n, c, longest, v, m))
    new_seen = np.zeros((n, longest, v, m))
    new_truth = np.zeros((n, m, longest, v))
    for i, places in enumerate(frames):
        for t, place in enumerate(places):
            for joint in range(v):
                for person in range(m):
                    for axis in range(c):
                        new_x[i, axis, t, joint, person] = x[i, axis, place, joint, person]
                    new_seen[i, t, joint, person] = seen[i, place, joint, person]
                    new_truth[i, person, t, joint] = truth[i, person, place, joint]
    return new_x, [len(places) for places in frames], new_seen, new_truth


def height(x: Array, seen: Array, path: tuple[int, ...]) -> float:
    """Measure the tallest person of a clip (C, T, V, M).

    It is the mean length of the path over the frames that show all of it.
    """
    tallest = 0.0
    for m in range(x.shape[3]):
        spans = []
        for t in range(x.shape[1]):
            if all(seen[t, v, m] > 0 for v in path):
                bones = itertools.pairwise(path)
                spans.append(sum(math.dist(x[:, t, a, m], x[:, t, b, m]) for a, b in bones))
        if spans:
            tallest = max(tallest, sum(spans) / len(spans))
    return tallest if tallest > 0 else 1.0


def jitter(
    clips: Clips, chosen: NDArray[np.bool_], noise: Array, sigma: float, path: tuple[int, ...]
) -> Array:
    """x + sigma h noise at the chosen joints that were seen."""
    x, _, seen, _ = clips
    out = x.copy()
    for n, t, v, m in np.ndindex(*seen.shape):
        if chosen[n, t, v, m] and seen[n, t, v, m] > 0:
            for c in range(x.shape[1]):
                out[n, c, t, v, m] += sigma * height(x[n], seen[n], path) * noise[n, c, t, v, m]
    return out
