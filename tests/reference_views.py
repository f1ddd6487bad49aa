"""Slow reference of views and of the time in them: plain loops over float64, one number at a time.

Axes: N batch, C channels, T frames, V joints, M persons. Clips are (N, C, T, V, M).
"""

from __future__ import annotations

import numpy as np


def shear(x, factors):
    """Compute x'_i = x_i + sum_{j != i} s_ij x_j, a row's factors in the other axes' order.

    The factors are (N, C, C - 1).
    """
    out = np.zeros(x.shape)
    for n, i, t, v, m in np.ndindex(x.shape):
        total = float(x[n, i, t, v, m])
        others = [j for j in range(x.shape[1]) if j != i]
        for place, j in enumerate(others):
            total += float(factors[n, i, place]) * float(x[n, j, t, v, m])
        out[n, i, t, v, m] = total
    return out


def flip(x, pairs, which):
    """Mirror the chosen clips: -x in channel 0, the right joint's numbers in the left's place."""
    out = np.array(x, dtype=float)
    for n, c, t, m in np.ndindex(x.shape[0], x.shape[1], x.shape[2], x.shape[4]):
        if not which[n]:
            continue
        for left, right in pairs:
            out[n, c, t, left, m] = x[n, c, t, right, m]
            out[n, c, t, right, m] = x[n, c, t, left, m]
        if c == 0:
            out[n, c, t, :, m] = [-value for value in out[n, c, t, :, m]]
    return out


def frame_times(length, frames, start, stop, warp):
    """Place the result's frames on the clip: start + (stop - start)(u + a u (1 - u)), in frames."""
    times = []
    for i in range(frames):
        u = i / (frames - 1) if frames > 1 else 0.5
        times.append((start + (stop - start) * (u + warp * u * (1 - u))) * (length - 1))
    return times


def play(x, seen, truth, times):
    """Play one joint of one person at those times: positions, confidence and truth.

    They are zeros where it was lost. x, seen and truth have one number a frame. Between frames k
    and k + 1 a joint lost in the one that weighs more than a hundredth is lost; else positions are
    interpolated, confidences averaged over what was seen, truths rounded.
    """
    out = []
    for at in times:
        k = min(int(np.floor(at)), len(x) - 1)
        weights = {k: 1 - (at - k), min(k + 1, len(x) - 1): at - k} if k < len(x) - 1 else {k: 1.0}
        share = sum(w for frame, w in weights.items() if seen[frame] > 0)
        if share <= 0.99:
            out.append((0.0, 0.0, 0.0))
            continue
        confidence = sum(w * seen[frame] for frame, w in weights.items()) / share
        true = 1.0 if sum(w * truth[frame] for frame, w in weights.items()) > 0.5 else 0.0
        out.append((sum(w * x[frame] for frame, w in weights.items()), confidence, true))
    return out
