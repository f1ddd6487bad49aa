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


def join_tracks(tracks: Iterable[tuple[object, Track]]) -> list[Track]:
    """Join what was seen of one body: by its tracking id, or, where that changed, to the nearest that ended before.

    Args:
        tracks: tracking ids and what they saw; a gap ends a track, and its id may come back.
    """
    tracks = list(tracks)
    if len(tracks) == 1:
        return [tracks[0][1]]
    runs = [(name, run) for name, track in tracks for run in _runs(track)]
    runs.sort(key=lambda run: int(run[1].frames[0]))
    owner: dict[object, int] = {}  # of each id, the body that it was seen on last
    bodies: list[list[Track]] = []
    ends = np.full(len(runs), np.iinfo(np.int64).max)  # of each body: its last frame, and where it stood
    centres = np.zeros((len(runs), 3))
    for name, run in runs:
        first, begin = int(run.frames[0]), _centre(run, 0)
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
        owner[name], ends[body], centres[body] = body, run.frames[-1], _centre(run, -1)
    return [Track(*map(np.concatenate, zip(*body, strict=True))) for body in bodies]


def _runs(track: Track) -> list[Track]:
    """A track in parts without gaps."""
    cuts = np.flatnonzero(np.diff(track.frames) > 1) + 1
    return [Track(*parts) for parts in zip(*(np.split(part, cuts) for part in track), strict=True)]


def _centre(track: Track, t: int) -> NDArray[np.float64]:
    """The mean of the joints that were seen, of all if none was; in float64, for positions may be any float32."""
    seen = track.seen[t] if track.seen[t].any() else slice(None)
    centre: NDArray[np.float64] = track.poses[t, seen].mean(0, np.float64)
    return centre


def main_bodies(bodies: list[Track], num_frames: int, persons: int) -> list[Track]:
    """The bodies that move most, spurious ones left out, in the order of their motion.

    Motion is the variance over time of the seen joints' positions, added up. If all look spurious, none does.
    """
    if len(bodies) == 1:
        return bodies

    def spurious(body: Track) -> bool:
        seen, poses = body.seen[..., None], body.poses.astype(np.float64)
        extent = np.where(seen, poses, -np.inf).max(1) - np.where(seen, poses, np.inf).min(1)  # (t, 3)
        broad = extent[:, 0] > BROAD * extent[:, 1]
        return len(body.frames) <= min(SHORT, num_frames // 2) or bool(broad.mean() > BROAD_FRAMES)

    def motion(body: Track) -> float:
        seen, poses = body.seen[..., None], body.poses.astype(np.float64)
        count = np.maximum(seen.sum(0), 1)  # (V, 1)
        mean = np.where(seen, poses, 0).sum(0) / count
        return float((np.where(seen, poses - mean, 0) ** 2 / count).sum())

    kept = [body for body in bodies if not spurious(body)] or bodies
    return sorted(kept, key=lambda body: -motion(body))[:persons]


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
