"""Compute the measures of a focus slowly: float64 loops, clip by clip, by the papers alone.

Axes: M persons, T frames, V joints, C channels. A focus of one clip is (M, T, V), a clip is
(C, T, V, M).
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np


def iou(focus, critical, threshold):
    """Compute |F and C| / |F or C|, F at or above the threshold; None without critical entries."""
    both = either = truths = 0
    for i in np.ndindex(focus.shape):
        high = float(focus[i]) >= threshold
        true = float(critical[i]) > 0
        both = both + (high and true)
        either = either + (high or true)
        truths = truths + true
    return both / either if truths else None


def pointing(focus, critical):
    """Compute the critical share of the entries of highest focus; None without critical entries."""
    highest = -math.inf
    where = []
    truths = 0
    for i in np.ndindex(focus.shape):
        truths += float(critical[i]) > 0
        if float(focus[i]) > highest:
            highest = float(focus[i])
            where = []
        if float(focus[i]) == highest:
            where.append(float(critical[i]) > 0)
    return sum(where) / len(where) if truths else None


def ruzicka(one, other):
    """Sum of the smaller over sum of the larger; None where one of them is zero everywhere."""
    if not (one > 0).any() or not (other > 0).any():
        return None
    small = large = 0.0
    for i in np.ndindex(one.shape):
        a = float(one[i])
        b = float(other[i])
        small = small + (a if a < b else b)
        large = large + (b if a < b else a)
    return small / large


def pearson(one, other):
    """Divide the covariance by the deviations' product; 0 if a map is constant; equal frames."""
    pairs = [(float(one[i]), float(other[i])) for i in np.ndindex(one.shape)]
    if len({a for a, _ in pairs}) == 1 or len({b for _, b in pairs}) == 1:
        return 0.0
    a_mean, b_mean = (math.fsum(pair[k] for pair in pairs) / len(pairs) for k in (0, 1))
    covariance = math.fsum((a - a_mean) * (b - b_mean) for a, b in pairs)
    a_square = math.fsum((a - a_mean) ** 2 for a, _ in pairs)
    b_square = math.fsum((b - b_mean) ** 2 for _, b in pairs)
    return covariance / math.sqrt(a_square * b_square)


def coverage(focus, within, threshold):
    """The share of the entries within that reach the threshold; None where there are none."""
    counted = [
        float(focus[i]) >= threshold for i in np.ndindex(focus.shape) if float(within[i]) > 0
    ]
    return sum(counted) / len(counted) if counted else None


def mass(focus, critical):
    """Divide the focus over the critical entries by all of it; None where either is nothing."""
    inside = outside = truths = 0.0
    for i in np.ndindex(focus.shape):
        true = float(critical[i]) > 0
        inside = inside + true * focus[i]
        outside = outside + (not true) * focus[i]
        truths = truths + true
    return inside / (inside + outside) if truths and inside + outside else None


def average_ranks(values):
    """From 1; equal values share the mean of the places that they take."""
    places = {}
    for place, value in enumerate(sorted(values), 1):
        places.setdefault(value, []).append(place)
    return [sum(places[value]) / len(places[value]) for value in values]


def spearman(one, other, x):
    """Compute Pearson's correlation of the ranks over the present entries; None if constant.

    An entry is present if one of its channels is not zero.

    The maps are (M, T, V), the clip is (C, T, V, M).
    """
    there = []
    for m, t, v in np.ndindex(one.shape):
        if any(x[c, t, v, m] != 0 for c in range(x.shape[0])):
            there.append((m, t, v))
    a = [float(one[i]) for i in there]
    b = [float(other[i]) for i in there]
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return pearson(np.array(average_ranks(a)), np.array(average_ranks(b)))


def sensitivity(focus, moved):
    """Divide the largest distance of the moved clips' focus by the focus; None if that is zero."""
    length = math.sqrt(math.fsum(float(q) ** 2 for q in focus.ravel()))
    if length == 0:
        return None
    distances = []
    for other in moved:
        squares = [(float(other[i]) - float(focus[i])) ** 2 for i in np.ndindex(focus.shape)]
        distances.append(math.sqrt(math.fsum(squares)))
    return max(distances) / length


def units_in_order(x, focus, by):
    """List the present units, the highest focus first, each by its present entries (m, t, v)."""
    persons, frames, joints = focus.shape
    units = {}  # in the order of their indices
    for m, t, v in itertools.product(range(persons), range(frames), range(joints)):
        if any(x[c, t, v, m] != 0 for c in range(x.shape[0])):
            key = {"entries": (m, t, v), "joints": (m, v), "frames": (t,)}[by]
            units.setdefault(key, []).append((m, t, v))
    mean = {
        key: sum(float(focus[entry]) for entry in entries) / len(entries)
        for key, entries in units.items()
    }
    return [units[key] for key in sorted(units, key=lambda key: (-mean[key], key))]


def curve(probability, x, focus, steps, by, insert):
    """Compute RISE's curve of one clip, by probability(clip).

    The first round(i / steps * present) units are out, or they are in alone.
    """
    units = units_in_order(x, focus, by)
    values = []
    for i in range(steps + 1):
        first = math.floor(Fraction(i, steps) * len(units) + Fraction(1, 2))
        clip = np.zeros(x.shape) if insert else np.array(x, dtype=float)
        for m, t, v in [entry for unit in units[:first] for entry in unit]:
            for c in range(x.shape[0]):
                clip[c, t, v, m] = x[c, t, v, m] if insert else 0.0
        values.append(probability(clip))
    return values


def area(values):
    """Trapezoids over [0, 1]."""
    width = 1 / (len(values) - 1)
    return sum(width * (before + after) / 2 for before, after in itertools.pairwise(values))
