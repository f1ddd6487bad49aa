"""From detected people to the main bodies of a clip.

People without ids are followed from frame to frame, tracks of one body are joined, spurious bodies
are dropped, gaps are filled. A track holds the observations of one id: frames in ascending order
and the joints' positions in each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

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
# Without metres, the larger side of the box around a body counts as a standing person's height.
STANDING = 1.7  # metres
MOST_PEOPLE = 200
"""The end of the people in a frame: comparing more with each other would fill the memory."""


class Track(NamedTuple):
    """Hold the observations of a body.

    These are ``frames`` (t,), ``poses`` (t, V, C), and ``seen`` (t, V): 0 where a joint was not
    seen, otherwise True or a confidence.
    """

    frames: NDArray[np.int64]
    poses: NDArray[np.float32]
    seen: NDArray[Any]


def extents(poses: NDArray[Any], seen: NDArray[Any]) -> NDArray[np.float64]:
    """Measure bodies: the larger side of the box around the seen joints, 0 without any.

    Shape:
        poses (n, V, C), seen (n, V) -> (n,), in the units of ``poses``.
    """
    known = (seen > 0)[..., None]
    points = poses.astype(np.float64)
    highest = np.where(known, points, -np.inf).max(1)  # (n, C)
    lowest = np.where(known, points, np.inf).min(1)
    size: NDArray[np.float64] = np.where(known.any(1), highest - lowest, 0).max(1, initial=0)
    return size


def _units(poses: NDArray[Any], seen: NDArray[Any]) -> NDArray[np.float64]:
    """Estimate what a metre is at each body (n,), in the units of ``poses``.

    A body of which little is seen counts as a quarter of the median body at least.
    """
    sizes = extents(poses, seen)
    known = sizes[sizes > 0]
    least = np.median(known) / 4 if len(known) else 0.0
    units: NDArray[np.float64] = np.maximum(sizes, least) / STANDING
    return units


def follow(
    people: Sequence[tuple[NDArray[Any], NDArray[Any]]], *, channels: int | None = None
) -> list[tuple[int, Track]]:
    """Follow people without ids through the frames; return numbered tracks.

    A person continues the track that is nearest, if it was there in the frame before and is within
    reach. The distance is the mean over the joints seen in both, from where the track's motion
    would have led, so that people who cross keep their tracks. It is relative to the body's size.
    Nearest pairs are chosen first.

    Args:
        people: poses (n, V, C) and seen (n, V) of the n people of each frame; those of whom no
            joint was seen are left out.
        channels: the number of channels that are compared, the first ones; by default all.
    """
    counts = [len(seen) for _, seen in people]
    if not sum(counts):
        return []
    poses = np.concatenate([poses for poses, _ in people])
    seen = np.concatenate([seen for _, seen in people])
    frame_of = np.repeat(np.arange(len(people)), counts)
    places = poses[..., :channels].astype(np.float64)
    known = seen > 0
    units = _units(places, known)
    tracks: list[list[int]] = []  # the rows of each track
    latest: dict[int, NDArray[Any]] = {}  # how each track of the frame before moves
    present = np.flatnonzero(known.any(1))
    ends = np.searchsorted(present, np.cumsum([0, *counts]))
    for frame in range(len(people)):
        rows = present[ends[frame] : ends[frame + 1]]
        before = [*latest]
        last = np.array([tracks[track][-1] for track in before], np.int64)
        free = set(range(len(rows)))
        moved: dict[int, NDArray[Any]] = {}
        if len(last) and len(rows):
            steps = np.stack([latest[track] for track in before])  # (K, C)
            both = known[last][:, None] & known[rows]  # (K, n, V)
            apart = places[rows] - places[last][:, None]  # (K, n, V, C)
            joints = np.maximum(both.sum(2), 1)
            beside = np.linalg.norm(apart - steps[:, None, None], axis=3)
            distance = np.where(both, beside, 0).sum(2) / joints
            reach = (JOIN_WITHIN + JOIN_PER_FRAME) * np.maximum(units[last][:, None], units[rows])
            distance[~both.any(2) | (distance > reach)] = np.inf
            waiting = set(range(len(last)))
            for pair in np.argsort(distance, axis=None, kind="stable").tolist():
                k, n = divmod(pair, len(rows))
                if not np.isfinite(distance[k, n]):
                    break
                if k in waiting and n in free:
                    waiting.remove(k)
                    free.remove(n)
                    tracks[before[k]].append(int(rows[n]))
                    step = apart[k, n][both[k, n]].mean(0)
                    # Half of the newest step: detections tremble.
                    moved[before[k]] = (steps[k] + step) / 2
        for n in sorted(free):
            moved[len(tracks)] = np.zeros(places.shape[2])
            tracks.append([int(rows[n])])
        latest = moved
    return [(i, Track(frame_of[rows], poses[rows], seen[rows])) for i, rows in enumerate(tracks)]


def join_tracks(
    tracks: Iterable[tuple[object, Track]], *, metres: bool = True, channels: int | None = None
) -> list[Track]:
    """Join the tracks of one body, by tracking id or by distance.

    If the id changed, a track is joined to the nearest track that ended before.

    Args:
        tracks: tracking ids and their tracks; a gap ends a track, and its id may return.
        metres: whether positions are in metres; otherwise distances are relative to the bodies'
            size.
        channels: the number of channels that are compared, the first ones; by default all.
    """
    tracks = list(tracks)
    if len(tracks) <= 1:
        return [track for _, track in tracks]
    runs = [(name, run) for name, track in tracks for run in _runs(track)]
    runs.sort(key=lambda run: int(run[1].frames[0]))
    units = np.ones(len(runs))
    if not metres:
        of_runs = [extents(run.poses[..., :channels], run.seen) for _, run in runs]
        least = float(np.median(np.concatenate(of_runs))) / 4
        units = np.array([max(float(np.median(sizes)), least) for sizes in of_runs]) / STANDING
    owner: dict[object, int] = {}  # the latest body of each id
    bodies: list[list[Track]] = []
    # The last frame of each body, and its centre and unit there.
    ends = np.full(len(runs), np.iinfo(np.int64).max)
    centres = np.zeros((len(runs), *runs[0][1].poses[0, 0, :channels].shape))
    unit_of = np.ones(len(runs))
    for (name, run), unit in zip(runs, units.tolist(), strict=True):
        first = int(run.frames[0])
        begin = _centre(run, 0)[:channels]
        gap = first - ends
        distance = np.linalg.norm(centres - begin, axis=1)
        reach = np.minimum(JOIN_WITHIN + JOIN_PER_FRAME * gap, JOIN_AT_MOST)
        distance[(gap <= 0) | (distance > reach * np.maximum(unit_of, unit))] = np.inf
        body = owner.get(name, -1)
        if body < 0 or ends[body] >= first:
            body = int(distance.argmin())
            if not np.isfinite(distance[body]):
                body = len(bodies)
                bodies.append([])
        bodies[body].append(run)
        owner[name] = body
        ends[body] = run.frames[-1]
        centres[body] = _centre(run, -1)[:channels]
        unit_of[body] = unit
    return [Track(*map(np.concatenate, zip(*body, strict=True))) for body in bodies]


def share_slots(bodies: list[Track], persons: int) -> list[Track]:
    """Distribute bodies over ``persons`` slots, those with the largest sum of confidence first.

    Bodies that are not there at the same time may share a slot, so that nothing seen is lost when a
    track breaks. A body that fits in no slot as a whole takes what is free in each frame: a frame
    of at most ``persons`` people loses nobody.
    """
    if not bodies:
        return []
    free = np.ones((persons, 1 + max(int(body.frames[-1]) for body in bodies)), bool)
    parts: list[list[Track]] = [[] for _ in range(persons)]
    for body in sorted(bodies, key=lambda body: -float(body.seen.sum(dtype=np.float64))):
        start = 0
        while start < len(body.frames):
            open_to = free[:, body.frames[start:]]  # (persons, rest)
            # How many frames of the rest each slot takes in a row.
            row = np.where(open_to.all(1), open_to.shape[1], open_to.argmin(1))
            slot = int(row.argmax())
            stop = start + max(int(row[slot]), 1)
            if row[slot]:
                parts[slot].append(_take(body, slice(start, stop)))
                free[slot, body.frames[start:stop]] = False
            start = stop
    slots = []
    for pieces in parts:
        if pieces:
            track = Track(*map(np.concatenate, zip(*pieces, strict=True)))
            slots.append(_take(track, np.argsort(track.frames)))
    return slots


def clip_of(
    slots: Sequence[Track], num_frames: int, joints: int, channels: int, persons: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lay the bodies of a clip out as x (C, T, V, M) and visibility (T, V, M).

    Where nothing was seen, both are 0.
    """
    x = np.zeros((channels, num_frames, joints, persons), np.float32)
    visibility = np.zeros(x.shape[1:], np.float32)
    for m, body in enumerate(slots):
        poses = np.where(body.seen[..., None] > 0, body.poses, 0)
        x[..., m][:, body.frames] = poses.transpose(2, 0, 1)  # (C, t, V)
        visibility[..., m][body.frames] = body.seen
    return x, visibility


def _take(track: Track, rows: Any) -> Track:
    return Track(track.frames[rows], track.poses[rows], track.seen[rows])


def _runs(track: Track) -> list[Track]:
    """Split a track into parts without gaps."""
    cuts = np.flatnonzero(np.diff(track.frames) > 1) + 1
    return [Track(*parts) for parts in zip(*(np.split(part, cuts) for part in track), strict=True)]


def _centre(track: Track, t: int) -> NDArray[np.float64]:
    """Return the mean of the seen joints, or of all if none was, in float64 to avoid overflow."""
    seen = track.seen[t] > 0 if track.seen[t].any() else slice(None)
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
        at = body.seen[:, v] > 0
        for axis in range(poses.shape[2]):
            poses[:, v, axis] = np.interp(frames, body.frames[at], body.poses[at, v, axis])
    return Track(frames, poses, np.broadcast_to(body.seen.any(0), poses.shape[:2]))
