"""Test how people become bodies: followed, joined against plain loops, put into slots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skeleton_focus._bodies import Track, extents, follow, join_tracks, share_slots

STANDING = np.stack([np.linspace(-0.2, 0.2, 17), np.linspace(0, 1.7, 17)], 1)  # (V, C=2)


def crossing(t: int, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Two people who walk towards and past each other; their order alternates."""
    places = [np.array([0.1 * t, 0.0]), np.array([3.05 - 0.1 * t, 0.02])]
    poses = np.stack([STANDING + place for place in places]) * size
    scores = np.stack([np.full(17, 0.9), np.full(17, 0.6)])
    return (poses, scores) if t % 2 else (poses[::-1], scores[::-1])


def who(track: Track) -> set[float]:
    return set(np.unique(track.seen).round(3).tolist())


@pytest.mark.parametrize("size", [1.0, 400.0, 1e-3])
def test_people_who_cross_keep_their_tracks(size: float) -> None:
    tracks = follow([crossing(t, size) for t in range(31)])
    assert [name for name, _ in tracks] == [0, 1]
    assert [len(track.frames) for _, track in tracks] == [31, 31]
    assert sorted(map(who, (track for _, track in tracks)), key=min) == [{0.6}, {0.9}]


def test_a_small_person_beside_a_large_one() -> None:
    """Distances are relative to a body's own size."""
    people = []
    for t in range(20):
        large = STANDING * 400 + np.array([40.0 * t, 0])
        small = [STANDING * 30 + np.array([60.0 * i, 900]) for i in range(8)]
        people.append((np.stack([*small, large]), np.ones((9, 17))))
    assert [len(track.frames) for _, track in follow(people)] == [20] * 9


def test_joints_seen_in_both_frames_are_compared() -> None:
    half = np.ones((2, 17))
    half[0, 8:] = 0
    half[1, :6] = 0
    poses = np.stack([STANDING, STANDING])
    poses[half == 0] = 0
    tracks = follow([(poses[:1], half[:1]), (poses[1:], half[1:])])
    assert len(tracks) == 1
    half[1, :8] = 0  # no joint in common
    assert len(follow([(poses[:1], half[:1]), (poses[1:], half[1:])])) == 2


def test_who_was_not_seen_is_nobody() -> None:
    nobody = (np.zeros((0, 17, 2)), np.zeros((0, 17)))
    assert follow([]) == [] == follow([nobody, nobody])
    assert follow([(np.zeros((2, 17, 2)), np.zeros((2, 17)))]) == []
    one = (STANDING[None], np.ones((1, 17)))
    tracks = follow([one, nobody, one])
    assert [track.frames.tolist() for _, track in tracks] == [[0], [2]]
    (body,) = join_tracks(tracks, metres=False)
    assert body.frames.tolist() == [0, 2] and body.poses.shape == (2, 17, 2)


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_the_reach_without_metres_is_that_of_a_body(size: float) -> None:
    def count(x: float) -> int:
        poses = np.stack([STANDING, STANDING + np.array([x, 0])]) * size
        tracks = [
            (i, Track(np.array([5 * i]), poses[i : i + 1], np.ones((1, 17), bool)))
            for i in range(2)
        ]
        return len(join_tracks(tracks, metres=False))

    assert count(0.54) == 1 and count(0.56) == 2  # 0.3 and 0.05 for each of 5 frames


def test_a_track_takes_one_person_of_a_frame() -> None:
    """A second person appears within reach of the first."""
    both = np.stack([STANDING + np.array([0.2, 0]), STANDING])
    tracks = follow([(both[1:], np.ones((1, 17))), (both, np.ones((2, 17)))])
    assert [track.frames.tolist() for _, track in tracks] == [[0, 1], [1]]
    assert np.allclose(tracks[0][1].poses[1], STANDING)


@pytest.mark.parametrize("size", [1.0, 400.0])
def test_the_reach_of_a_step_is_that_of_a_body(size: float) -> None:
    def count(step: float) -> int:
        poses = np.stack([STANDING, STANDING + np.array([step, 0])]) * size
        return len(follow([(poses[:1], np.ones((1, 17))), (poses[1:], np.ones((1, 17)))]))

    assert count(0.34) == 1 and count(0.36) == 2  # 0.3 and 0.05 for a frame


def test_a_person_of_whom_one_joint_is_seen_has_the_reach_of_others() -> None:
    seen = np.zeros((2, 17))
    seen[0] = 1
    seen[1, 3] = 1
    people = []
    for t in range(3):
        alone = STANDING + np.array([5 + 0.02 * t, 0])  # a quarter of the median body is its unit
        people.append((np.stack([STANDING, alone]), seen))
    assert [len(track.frames) for _, track in follow(people)] == [3, 3]


def test_other_channels_are_carried_along() -> None:
    """Positions about the hips say nothing about where a person is; those in the picture do."""
    people = []
    for t in range(31):
        poses, scores = crossing(t)
        about_the_hips = np.full((2, 17, 3), float(t))
        people.append((np.concatenate([poses, about_the_hips], 2), scores))
    tracks = follow(people, channels=2)
    assert [len(track.frames) for _, track in tracks] == [31, 31]
    bodies = join_tracks([tracks[0], (7, tracks[1][1])], metres=False, channels=2)
    assert [body.poses.shape for body in bodies] == [(31, 17, 5)] * 2


def join_plainly(tracks: list[tuple[Any, Track]]) -> list[list[tuple[int, int]]]:
    """The (track, row) of each body, by plain loops."""
    runs: list[list[tuple[int, int]]] = []
    for i, (_, track) in enumerate(tracks):
        for row, frame in enumerate(track.frames.tolist()):
            if row and frame == track.frames[row - 1] + 1:
                runs[-1].append((i, row))
            else:
                runs.append([(i, row)])

    def frame(at: tuple[int, int]) -> int:
        return int(tracks[at[0]][1].frames[at[1]])

    def centre(at: tuple[int, int]) -> np.ndarray:
        track = tracks[at[0]][1]
        joints = [v for v in range(track.poses.shape[1]) if track.seen[at[1], v]]
        joints = joints or list(range(track.poses.shape[1]))
        return track.poses[at[1], joints].mean(0, np.float64)

    runs.sort(key=lambda run: frame(run[0]))
    bodies: list[list[tuple[int, int]]] = []
    owner: dict[int, int] = {}
    for run in runs:
        begin = frame(run[0])
        body = owner.get(run[0][0])
        if body is None or frame(bodies[body][-1]) >= begin:
            near = []
            for b, other in enumerate(bodies):
                gap = begin - frame(other[-1])
                distance = float(np.linalg.norm(centre(other[-1]) - centre(run[0])))
                if gap > 0 and distance <= min(0.3 + 0.05 * gap, 1.0):
                    near.append((distance, b))
            body = min(near)[1] if near else len(bodies)
            if body == len(bodies):
                bodies.append([])
        bodies[body] += run
        owner[run[0][0]] = body
    return bodies


@given(st.integers(0, 10**6), st.integers(1, 30), st.sampled_from([2, 3]))
def test_joining_in_metres_follows_the_plain_loops(seed: int, frames: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    tracks = []
    for i in range(int(rng.integers(1, 7))):
        at = np.flatnonzero(rng.random(frames) < rng.choice([0.3, 0.9]))
        if len(at):
            poses = 0.4 * rng.integers(0, 3) + 0.1 * rng.standard_normal((len(at), 25, channels))
            tracks.append((i, Track(at, poses.astype(np.float32), rng.random((len(at), 25)) < 0.7)))
    bodies = join_tracks(tracks)
    truth = join_plainly(tracks)
    assert len(bodies) == len(truth)
    for body, rows in zip(bodies, truth, strict=True):
        assert body.frames.tolist() == [int(tracks[i][1].frames[row]) for i, row in rows]
        assert np.array_equal(body.poses, np.stack([tracks[i][1].poses[row] for i, row in rows]))
        assert np.array_equal(body.seen, np.stack([tracks[i][1].seen[row] for i, row in rows]))


def body(frames: list[int], score: float) -> Track:
    poses = np.full((len(frames), 17, 2), score, np.float32)
    return Track(np.array(frames), poses, np.full((len(frames), 17), score, np.float32))


def placed(bodies: list[Track], persons: int = 2) -> list[list[tuple[int, float]]]:
    """The frames of each slot, with the score of who is there."""
    slots = []
    for slot in share_slots(bodies, persons):
        scores = slot.seen[:, 0].astype(np.float64).round(3)
        slots.append(list(zip(slot.frames.tolist(), scores.tolist(), strict=True)))
    return slots


def test_the_largest_sum_of_confidence_comes_first() -> None:
    weak = body([*range(10)], 0.3)
    brief = body([3, 4], 0.9)
    strong = body([*range(10)], 0.8)
    slots = placed([weak, brief, strong])
    assert [{score for _, score in slot} for slot in slots] == [{0.8}, {0.3}]
    assert len(placed([weak, brief, strong], 1)) == 1 and placed([]) == []


def test_a_broken_track_shares_a_slot() -> None:
    whole = body([*range(20)], 0.9)
    slots = placed([body([*range(8)], 0.5), whole, body([*range(9, 20)], 0.6)])
    assert [len(slot) for slot in slots] == [20, 19]
    assert slots[1][0] == (0, 0.5) and slots[1][8] == (9, 0.6)


@given(st.lists(st.sets(st.integers(0, 15), min_size=1), max_size=8), st.integers(1, 4))
def test_a_frame_loses_nobody_while_a_slot_is_free(present: list[set[int]], persons: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(len(present)).round(3)
    bodies = [body(sorted(at), score) for at, score in zip(present, scores, strict=True)]
    slots = placed(bodies, persons)
    for frame in range(16):
        there = [s for at, s in zip(present, scores, strict=True) if frame in at]
        kept = [score for slot in slots for t, score in slot if t == frame]
        assert len(kept) == min(len(there), persons)
        assert not {*kept} - {*np.float32(there).astype(np.float64).round(3).tolist()}
    for slot in slots:
        frames = [t for t, _ in slot]
        assert frames == sorted({*frames})


def test_the_extent_of_a_body() -> None:
    seen = np.ones((4, 17))
    seen[1, 9:] = 0
    seen[2, 1:] = 0
    seen[3] = 0
    sizes = extents(np.stack([STANDING] * 4), seen)
    np.testing.assert_allclose(sizes, [1.7, 0.85, 0, 0])
