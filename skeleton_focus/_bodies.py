"""From tracked bodies to the main bodies of a clip: join tracks, drop spurious ones, fill gaps.

A track holds the observations of one tracking id: frames in ascending order and the joints'
positions in each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A track continues one that ended before if their bodies are within reach in that time.
JOIN_WITHIN = 0.3  # metres
JOIN_PER_FRAME = 0.05  # metres per frame, 1.5 m/s at 30 fps
JOIN_AT_MOST = 1.0  # metres
# A track is spurious if it is short, or if its "body" is an object: mostly broader than high.
SHORT = 11
BROAD = 0.8
BROAD_FRAMES = 0.7


class Track(NamedTuple):
    """Hold the observations of a body.

    These are ``frames`` (t,), ``poses`` (t, V, 3) in metres with y upward, and ``seen`` (t, V).
    """

    frames: NDArray[np.int64]
    poses: NDArray[np.float32]
    seen: NDArray[np.bool_]


def join_tracks(tracks: Iterable[tuple[object, Track]]) -> list[Track]:
    """Join the tracks of one body, by tracking id or by distance.

    If the id changed, a track is joined to the nearest track that ended before.

    Args:
        tracks: tracking ids and their tracks; a gap ends a track, and its id may return.
    """
    tracks = list(tracks)
    if len(tracks) == 1:
        return [tracks[0][1]]
    runs = [(name, run) for name, track in tracks for run in _runs(track)]
    runs.sort(key=lambda run: int(run[1].frames[0]))
    owner: dict[object, int] = {}  # the latest body of each id
    bodies: list[list[Track]] = []
    # The last frame of each body, and its centre there.
    ends = np.full(len(runs), np.iinfo(np.int64).max)
    centres = np.zeros((len(runs), 3))
    for name, run in runs:
        first = int(run.frames[0])
        begin = _centre(run, 0)
        gap = first - ends
        distance = np.linalg.norm(centres - begin, axis=1)
        reach = np.minimum(JOIN_WITHIN + JOIN_PER_FRAME * gap, JOIN_AT_MOST)
        distance[(gap <= 0) | (distance > reach)] = np.inf
        body = owner.get(name, -1)
        if body < 0 or ends[body] >= first:
            body = int(distance.argmin())
            if not np.isfinite(distance[body]):
                body = len(bodies)
                bodies.append([])
        bodies[body].append(run)
        owner[name] = body
        ends[body] = run.frames[-1]
        centres[body] = _centre(run, -1)
    return [Track(*map(np.concatenate, zip(*body, strict=True))) for body in bodies]


def _runs(track: Track) -> list[Track]:
    """Split a track into parts without gaps."""
    cuts = np.flatnonzero(np.diff(track.frames) > 1) + 1
    return [Track(*parts) for parts in zip(*(np.split(part, cuts) for part in track), strict=True)]


def _centre(track: Track, t: int) -> NDArray[np.float64]:
    """Return the mean of the seen joints, or of all if none was, in float64 to avoid overflow."""
    seen = track.seen[t] if track.seen[t].any() else slice(None)
    centre: NDArray[np.float64] = track.poses[t, seen].mean(0, np.float64)
    return centre


def main_bodies(bodies: list[Track], num_frames: int, persons: int) -> list[Track]:
    """The bodies that move most, without spurious ones, in order of decreasing motion.

    Motion is the sum of the seen joints' position variances over time. If all bodies look spurious,
    all are kept.
    """
    if len(bodies) == 1:
        return bodies

    def spurious(body: Track) -> bool:
        seen = body.seen[..., None]
        poses = body.poses.astype(np.float64)
        highest = np.where(seen, poses, -np.inf).max(1)  # (t, 3)
        extent = highest - np.where(seen, poses, np.inf).min(1)
        broad = extent[:, 0] > BROAD * extent[:, 1]
        return len(body.frames) <= min(SHORT, num_frames // 2) or bool(broad.mean() > BROAD_FRAMES)

    def motion(body: Track) -> float:
        seen = body.seen[..., None]
        poses = body.poses.astype(np.float64)
        count = np.maximum(seen.sum(0), 1)  # (V, 1)
        mean = np.where(seen, poses, 0).sum(0) / count
        return float((np.where(seen, poses - mean, 0) ** 2 / count).sum())

    kept = [body for body in bodies if not spurious(body)] or bodies
    return sorted(kept, key=lambda body: -motion(body))[:persons]


def fill_gaps(body: Track) -> Track:
    """Interpolate a body linearly over time where it or a joint was not seen.

    The result spans the body's first to last frame. Before its first and after its last
    observation, a joint keeps that position; a joint never seen stays missing.
    """
    frames = np.arange(body.frames[0], body.frames[-1] + 1)
    poses = np.zeros((len(frames), *body.poses.shape[1:]), np.float32)
    for v in np.flatnonzero(body.seen.any(0)).tolist():
        at = body.seen[:, v]
        for axis in range(3):
            poses[:, v, axis] = np.interp(frames, body.frames[at], body.poses[at, v, axis])
    return Track(frames, poses, np.broadcast_to(body.seen.any(0), poses.shape[:2]))
