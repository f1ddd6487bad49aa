"""From what a camera tracked to the main bodies of a clip: tracks joined, spurious ones dropped, gaps filled.

A track is what one tracking id saw: the frames, in ascending order, and in each the joints' positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A track goes on from another that ended, if its body stands where the other's can have gone meanwhile.
JOIN_WITHIN, JOIN_PER_FRAME, JOIN_AT_MOST = 0.3, 0.05, 1.0  # metres; metres a frame, 1.5 m/s at 30 frames a second
# A track is spurious if it is short, or if its "body" is a thing: broader than high in most of its frames.
SHORT, BROAD, BROAD_FRAMES = 11, 0.8, 0.7


class Track(NamedTuple):
    """A body as it was seen: frames (t,), poses (t, V, 3) in metres with y upward, seen (t, V)."""

    frames: NDArray[np.int64]
    poses: NDArray[np.float32]
    seen: NDArray[np.bool_]


def join_tracks(tracks: Iterable[Track]) -> list[Track]:
    """Join tracks of one body whose tracking id changed, each to the nearest that ended before it begins."""
    bodies: list[Track] = []
    for track in sorted(tracks, key=lambda track: int(track.frames[0])):
        near = []
        for i, body in enumerate(bodies):
            gap = int(track.frames[0] - body.frames[-1])
            distance = float(np.linalg.norm(_centre(track.poses[0]) - _centre(body.poses[-1])))
            if gap > 0 and distance <= min(JOIN_WITHIN + JOIN_PER_FRAME * gap, JOIN_AT_MOST):
                near.append((distance, i))
        if near:
            i = min(near)[1]
            bodies[i] = Track(*(np.concatenate(parts) for parts in zip(bodies[i], track, strict=True)))
        else:
            bodies.append(track)
    return bodies


def _centre(pose: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean of a pose (V, 3); in float64, as whatever is computed here of positions, which may be any float32."""
    centre: NDArray[np.float64] = pose.mean(0, np.float64)
    return centre


def main_bodies(bodies: list[Track], num_frames: int, persons: int) -> list[Track]:
    """The bodies that move most, spurious ones left out, in the order of their motion.

    Motion is the variance over time of the joints' positions, added up. If all look spurious, none does.
    """

    if len(bodies) == 1:
        return bodies

    def spurious(body: Track) -> bool:
        extent = np.ptp(body.poses.astype(np.float64), 1)  # (t, 3)
        broad = extent[:, 0] > BROAD * extent[:, 1]
        return len(body.frames) <= min(SHORT, num_frames // 2) or bool(broad.mean() > BROAD_FRAMES)

    kept = [body for body in bodies if not spurious(body)] or bodies
    return sorted(kept, key=lambda body: -float(body.poses.var(0, np.float64).sum()))[:persons]


def fill_gaps(body: Track) -> Track:
    """Interpolate a body linearly over time, from its first frame to its last, where it or a joint was not seen.

    A joint keeps its first or last position beyond the frames that saw it; one that no frame saw stays missing.
    """
    frames = np.arange(body.frames[0], body.frames[-1] + 1)
    poses = np.zeros((len(frames), *body.poses.shape[1:]), np.float32)
    for v in np.flatnonzero(body.seen.any(0)).tolist():
        at = body.seen[:, v]
        for axis in range(3):
            poses[:, v, axis] = np.interp(frames, body.frames[at], body.poses[at, v, axis])
    return Track(frames, poses, np.broadcast_to(body.seen.any(0), poses.shape[:2]))
