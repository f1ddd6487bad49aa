"""Preparation and streams against plain loops, hand examples and their own inverses."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import ensemble
import numpy as np
import pytest
import reference
import reference_preparation
import reference_views
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw
from torch import Tensor

from skeleton_focus import (
    KINECT20,
    NTU25,
    OPENPOSE18,
    SkeletonLayout,
    SyntheticActions,
    add_visibility,
    body_height,
    center,
    fuse,
    make_stream,
    prepare_stf,
    resample_frames,
)
from skeleton_focus.format_nw_ucla import read_nw_ucla
from skeleton_focus.layouts import LAYOUTS
from skeleton_focus.preparation import STREAMS, normalize_box, repeat_frames

CHAIN = SkeletonLayout.from_bones([(0, 1), (1, 2), (2, 3)], center=1)


def some_seen(*shape: int, seed: int = 5) -> Tensor:
    return torch.from_numpy((np.random.default_rng(seed).random(shape) > 0.3).astype(float))


def clip(frames: int = 4, visible: bool = False) -> tuple[Tensor, Tensor]:
    """x (N=2, C=3, T, V=4, M=2) and its visibility; what was not seen is 0."""
    seen = some_seen(2, frames, 4, 2) if visible else torch.ones(2, frames, 4, 2).double()
    return draw(2, 3, frames, 4, 2) * seen[:, None], seen


def close(ours: Tensor, expected: Any, tolerance: float = 1e-12) -> None:
    assert ours.shape == expected.shape
    assert np.abs(ours.numpy() - np.asarray(expected)).max(initial=0) <= tolerance


# -------------------------------------------------------------------------------------- preparation


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("joint", [0, 3])
def test_center_equals_the_slow_reference(frames: int, joint: int) -> None:
    x, seen = clip(frames)
    close(center(x, joint), reference.center(x.numpy(), joint))
    close(center(x, joint, visibility=seen), reference.center(x.numpy(), joint))


def test_one_origin_keeps_travel_and_distance() -> None:
    """The centre joint as first seen: here in frame 2, of the first person."""
    x, seen = clip()
    seen[:, :2, 1] = 0
    seen[:, 2, 1, 1] = 0
    torch.testing.assert_close(
        center(x, 1, each_frame=False)[0], x[0] - x[0, :, 0, 1, 0][:, None, None, None]
    )
    ours = center(x, 1, each_frame=False, visibility=seen)
    for n in range(2):
        origin = x[n, :, 2, 1, 0]
        torch.testing.assert_close(ours[n], (x[n] - origin[:, None, None, None]) * seen[n])
    assert not ours[:, :, 2, 1, 0].any()


def test_a_centre_that_is_lost_for_a_while_is_taken_at_its_mean() -> None:
    x, seen = clip()
    seen[:, 1:3, 1, 0] = 0
    ours = center(x, 1, visibility=seen)
    frames = [0, 3]
    mean = x[:, :, frames, 1, 0].mean(2)
    torch.testing.assert_close(ours[:, :, 1, 2, 0], x[:, :, 1, 2, 0] - mean)
    torch.testing.assert_close(ours[:, :, 0], center(x, 1)[:, :, 0])
    torch.testing.assert_close(ours[..., 1], center(x, 1)[..., 1])


def test_missing_joints_stay_at_zero() -> None:
    x, seen = clip(visible=True)
    unseen = (seen == 0)[:, None].expand(-1, 3, -1, -1, -1)
    assert unseen.any()
    seen[:, :, 1] = 1  # the centre itself
    unseen = (seen == 0)[:, None].expand(-1, 3, -1, -1, -1)
    for each_frame in (True, False):
        ours = center(x, 1, each_frame=each_frame, visibility=seen)
        assert not ours[unseen].any()
        torch.testing.assert_close(ours[~unseen], center(x, 1, each_frame=each_frame)[~unseen])
    assert not center(x, 1, visibility=0.3 * seen)[unseen].any()  # a confidence, not only 0 and 1
    torch.testing.assert_close(center(x, 1, visibility=0.3 * seen), center(x, 1, visibility=seen))
    torch.testing.assert_close(center(x, 1, visibility=seen > 0), center(x, 1, visibility=seen))


@pytest.mark.parametrize("joint", [-1, 4])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4, 2), (1, 3, 1, 1, 1)])
def test_center_refuses_joints_that_are_not_there(joint: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=rf"^center: expected a joint in 0..{shape[3] - 1}, got {joint}$"
    ):
        center(torch.ones(shape), joint)


@given(st.integers(0, 10**6), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_a_box_equals_the_slow_reference(seed: int, lengths: list[int]) -> None:
    n = len(lengths)
    seen = some_seen(n, 5, 4, 2, seed=seed)
    seen[0, :, :, 1] = 0
    x = draw(n, 3, 5, 4, 2, seed=seed)
    x[0, 1] = 0.3  # no extent along y
    given_ = torch.tensor(lengths)
    ours = normalize_box(x, lengths=given_, visibility=0.4 * seen)
    for i, length in enumerate(lengths):
        close(ours[i], reference_preparation.in_box(x[i].numpy(), seen[i].numpy(), length))
    assert ours.abs().amax() <= 1
    wild = torch.where(seen[:, None] > 0, x, torch.nan)
    assert torch.equal(normalize_box(wild, lengths=given_, visibility=seen), ours)


@given(
    st.integers(0, 10**6),
    st.lists(st.floats(0.1, 10), min_size=3, max_size=3),
    st.lists(st.floats(-5, 5), min_size=3, max_size=3),
)
def test_a_box_sees_neither_origin_nor_unit(seed: int, unit: list[float], at: list[float]) -> None:
    x, seen = draw(2, 3, 4, 5, 1, seed=seed), some_seen(2, 4, 5, 1, seed=seed)
    ours = normalize_box(x, visibility=seen)
    moved = x * torch.tensor(unit).double()[:, None, None, None]
    moved = moved + torch.tensor(at).double()[:, None, None, None]
    torch.testing.assert_close(normalize_box(moved, visibility=seen), ours, rtol=0, atol=1e-9)
    torch.testing.assert_close(normalize_box(ours, visibility=seen), ours, rtol=0, atol=1e-9)
    mirrored = normalize_box(-x, visibility=seen)
    torch.testing.assert_close(mirrored, -ours, rtol=0, atol=1e-12)


def test_a_box_spans_all_frames_joints_and_persons() -> None:
    """Each axis of every clip reaches -1 and 1, and no axis knows another."""
    x = draw(3, 3, 6, 4, 2)
    ours = normalize_box(x).flatten(2)
    assert (ours.amin(2) == -1).all() and (ours.amax(2) == 1).all()
    other = x.clone()
    other[:, 0] = 7
    changed = normalize_box(other)
    assert torch.equal(changed[:, 1:], normalize_box(x)[:, 1:]) and not changed[:, 0].any()


def test_a_box_of_nothing_and_its_gradient() -> None:
    x = draw(2, 3, 4, 4, 1, grad=True)
    seen = some_seen(2, 4, 4, 1)
    assert not normalize_box(x, visibility=torch.zeros_like(seen)).any()
    assert torch.autograd.gradcheck(lambda x: normalize_box(x, visibility=seen), x)
    flat = torch.ones(1, 3, 2, 2, 1, requires_grad=True)
    normalize_box(flat).sum().backward()
    assert flat.grad.isfinite().all()
    # Of a joint that was not seen, not even NaN reaches the gradient of the others.
    lost = torch.tensor([1.0, 2.0, 5.0, math.nan]).view(1, 1, 1, 4, 1).requires_grad_()
    boxed = normalize_box(lost, visibility=torch.tensor([1.0, 1, 1, 0]).view(1, 1, 4, 1))
    boxed.square().sum().backward()
    assert boxed.flatten().tolist() == [-1, -0.5, 1, 0] and lost.grad.isfinite().all()
    wide = torch.tensor([60000.0, -60000.0, 0.0], dtype=torch.float16).view(1, 1, 1, 3, 1)
    assert normalize_box(wide).flatten().tolist() == [1, -1, 0]
    with pytest.raises(
        ValueError, match=r"^normalize_box: expected lengths in 1..4, got \[5, 1\]$"
    ):
        normalize_box(x, lengths=torch.tensor([5, 1]))


@pytest.mark.parametrize("frames", [1, 5])
def test_body_height_equals_the_slow_reference(frames: int) -> None:
    x, seen = clip(frames, visible=True)
    path = CHAIN.path(*CHAIN.height)
    assert path == (0, 1, 2, 3)
    close(body_height(x, CHAIN, visibility=seen), reference.body_height(x, seen, path, CHAIN.bones))
    ones = torch.ones_like(seen)
    close(
        body_height(draw(2, 3, frames, 4, 2), CHAIN),
        reference.body_height(draw(2, 3, frames, 4, 2), ones, path),
    )
    ntu = draw(2, 3, 3, 25, 2)
    close(
        body_height(ntu, NTU25),
        reference.body_height(ntu, torch.ones(2, 3, 25, 2), NTU25.path(*NTU25.height)),
    )


def test_body_height_by_hand() -> None:
    straight = torch.tensor([0.0, 1.0, 3.0, 7.0]).view(1, 1, 1, 4, 1)
    bodies = torch.cat([straight, 2 * straight, 0 * straight], dim=4)  # the third person is absent
    assert body_height(bodies, CHAIN).tolist() == [14]
    clip = torch.cat([straight, 3 * straight, 0 * straight], dim=2)
    assert body_height(clip, CHAIN).tolist() == [14]
    assert body_height(0 * straight, CHAIN).tolist() == [1]  # nobody: dividing by it is safe


def shown(*joints: int) -> Tensor:
    """A visibility (N=1, T=1, V=4, M=1) of these joints."""
    return torch.zeros(1, 1, 4, 1).index_fill(2, torch.tensor(joints, dtype=torch.int64), 1.0)


@pytest.mark.parametrize(
    ("joints", "height"),
    [
        ((0, 1, 2, 3), 7),
        ((0, 1, 3), 3),  # one bone of length 1, for three
        ((1, 2, 3), 9),  # 2 + 4, and their mean for the third
        ((0, 2), 3),  # no bone: the extent
        ((0, 3), 7),
        ((2,), 1),
        ((), 1),
    ],
)
def test_the_height_of_what_was_seen_of_a_body(joints: tuple[int, ...], height: float) -> None:
    straight = torch.tensor([0.0, 1.0, 3.0, 7.0]).view(1, 1, 1, 4, 1)
    seen = shown(*joints)
    assert body_height(straight * seen[:, None], CHAIN, visibility=seen).tolist() == [height]


def test_the_other_side_stands_in_for_a_bone() -> None:
    """Arms of bones 1 and 5 (left), and 1.1 and 5.5 (right), never seen together."""
    arms = SkeletonLayout.from_bones(
        [(0, 1), (1, 2), (0, 3), (3, 4)], pairs=[(1, 3), (2, 4)], height=(0, 2)
    )
    x = torch.tensor([0.0, 1.0, 6.0, -1.1, -6.6]).view(1, 1, 1, 5, 1)
    seen = torch.tensor([1.0, 1, 0, 1, 1]).view(1, 1, 5, 1)
    torch.testing.assert_close(body_height(x, arms, visibility=seen), torch.tensor([6.5]))
    # Bones that are seen in different frames are added, and so are those of the better known body.
    x = x.repeat(1, 1, 2, 1, 2)
    seen = torch.tensor([[1.0, 1, 0, 0, 0], [0, 1, 1, 0, 0]]).view(1, 2, 5, 1).repeat(1, 1, 1, 2)
    x[..., 1] *= 10
    seen[:, 1, :, 1] = 0  # the taller is known less
    torch.testing.assert_close(body_height(x, arms, visibility=seen), torch.tensor([6.0]))
    # Without any bone of the path, the mean of the others: an arm and a head of length 3.
    head = SkeletonLayout.from_bones([(0, 1), (1, 2), (0, 3)], height=(0, 2))
    x = torch.tensor([0.0, 1.0, 6.0, 3.0]).view(1, 1, 1, 4, 1)
    seen = torch.tensor([1.0, 0, 0, 1]).view(1, 1, 4, 1)
    assert body_height(x, head, visibility=seen).tolist() == [6]


@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.6, 0.9]))
def test_heights_of_hidden_bodies_equal_the_slow_reference(seed: int, hidden: float) -> None:
    random = np.random.default_rng(seed)
    layout = SkeletonLayout.from_bones(
        [(0, 1), (1, 2), (2, 3), (1, 4), (4, 5)], pairs=[(2, 4), (3, 5)], height=(0, 3)
    )
    seen = torch.from_numpy((random.random((3, 2, 6, 2)) > hidden).astype(float))
    x = torch.from_numpy(random.normal(size=(3, 2, 2, 6, 2)))
    expected = reference.body_height(x, seen, (0, 1, 2, 3), layout.bones, layout.mirror)
    close(body_height(x, layout, visibility=seen), expected)
    # On a device whose values are not read, all estimates are computed; the result is the same.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skeleton_focus.preparation.can_read", lambda x: False)
        close(body_height(x, layout, visibility=seen), expected)


def test_one_ankle_that_is_never_seen_hardly_changes_the_height() -> None:
    """The value from a real clip of OpenPose: the height was 1, and pixels entered the network."""
    x = torch.rand(2, 2, 30, 18, 1, generator=torch.Generator().manual_seed(0)) * 400
    seen = torch.ones(2, 30, 18, 1)
    whole = body_height(x, OPENPOSE18, visibility=seen)
    seen[1, :, OPENPOSE18.index("left_ankle")] = 0
    ours = body_height(x, OPENPOSE18, visibility=seen)
    assert whole.min() > 400 and torch.equal(ours[:1], whole[:1])
    assert (ours[1] / whole[1] - 1).abs() < 0.1


LOST = pytest.mark.parametrize(
    ("lost", "tolerance"),
    [
        (["left_ankle"], 0.2),
        (["left_ankle", "right_ankle", "left_foot", "right_foot"], 0.2),
        (["head"], 0.2),
        ([f"{s}_{j}" for s in ("left", "right") for j in ("knee", "ankle", "foot")], 0.4),
    ],
)


@LOST
def test_heights_of_generated_bodies_seen_in_part(lost: list[str], tolerance: float) -> None:
    batch = SyntheticActions(frames=16).generate(32, seed=0)
    seen = batch.visibility.clone()
    whole = body_height(batch.x, NTU25, visibility=seen)
    seen[:, :, [NTU25.index(joint) for joint in lost]] = 0
    ours = body_height(batch.x * seen[:, None], NTU25, visibility=seen)
    assert ((ours / whole - 1).abs() < tolerance).all()


@LOST
def test_heights_of_real_clips_seen_in_part(
    shared_data: Path, lost: list[str], tolerance: float
) -> None:
    for file in sorted((shared_data / "all_sqe").glob("*.json"))[::20]:
        x = torch.from_numpy(read_nw_ucla(file).x)[None]
        seen = torch.ones_like(x[:, 0])
        whole = body_height(x, KINECT20, visibility=seen)
        seen[:, :, [KINECT20.index(joint) for joint in lost]] = 0
        ours = body_height(x * seen[:, None], KINECT20, visibility=seen)
        assert (ours / whole - 1).abs() < tolerance


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 12))
def test_repeat_equals_the_slow_reference(lengths: list[int], frames: int) -> None:
    x = draw(len(lengths), 2, 5, 3, 1)
    close(
        repeat_frames(x, torch.tensor(lengths), frames),
        reference.repeat_frames(x.numpy(), lengths, frames),
        0,
    )


@pytest.mark.parametrize("length", [1, 2, 7, 200])
@pytest.mark.parametrize("frames", [1, 2, 13, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resample_equals_numpy(length: int, frames: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(length)
    x = rng.standard_normal((1, 2, length + 3, 2, 1))
    start = np.float32(0.25)
    stop = np.float32(0.875)
    for options, low, high in [
        ({}, 0.0, 1.0),
        ({"start": torch.tensor([start]), "stop": torch.tensor([stop])}, start, stop),
        ({"start": torch.tensor([start])}, start, 1.0),
    ]:
        ours = resample_frames(
            torch.from_numpy(x).to(dtype), torch.tensor([length]), frames, **options
        )
        assert ours.dtype == dtype and ours.shape == (1, 2, frames, 2, 1)
        share = np.linspace(0, 1, frames) if frames > 1 else np.array([0.5])
        at = (low + (high - low) * share) * (length - 1)
        for c, v in np.ndindex(2, 2):
            expected = np.interp(at, np.arange(length), x[0, c, :length, v, 0])
            error = np.abs(ours[0, c, :, v, 0].numpy() - expected).max()
            assert error < (1e-12 if dtype == torch.float64 else 1e-4), (c, v, options)


@given(
    st.lists(st.tuples(st.integers(1, 6), st.floats(-0.99, 0.99)), min_size=1, max_size=4),
    st.integers(1, 9),
)
def test_a_warp_equals_the_slow_reference(clips: list[tuple[int, float]], frames: int) -> None:
    x = draw(len(clips), 2, 6, 3, 1)
    lengths = torch.tensor([length for length, _ in clips])
    warp = torch.tensor([a for _, a in clips], dtype=torch.float64)
    start = 0.125
    stop = 0.75
    span = {"start": torch.full_like(warp, start), "stop": torch.full_like(warp, stop)}
    for options, low, high in (({}, 0.0, 1.0), (span, start, stop)):
        ours = resample_frames(x, lengths, frames, warp=warp, **options)
        for n, (length, a) in enumerate(clips):
            times = reference_views.frame_times(length, frames, low, high, a)
            for c, v in np.ndindex(2, 3):
                expected = np.interp(times, np.arange(length), x[n, c, :length, v, 0])
                np.testing.assert_allclose(ours[n, c, :, v, 0], expected, rtol=0, atol=1e-12)
    even = resample_frames(x, lengths, frames, **span)
    assert torch.equal(resample_frames(x, lengths, frames, warp=torch.zeros(len(x)), **span), even)


def test_a_warp_by_hand() -> None:
    """At first 1.5 times the speed, at last half of it; never backwards."""
    clock = torch.arange(1001.0).double().view(1, 1, 1001, 1, 1)
    ours = resample_frames(clock, torch.tensor([1001]), 1001, warp=torch.tensor([0.5])).flatten()
    assert [ours[0].item(), ours[500].item(), ours[1000].item()] == pytest.approx([0, 625, 1000])
    assert [(ours[1] - ours[0]).item(), (ours[-1] - ours[-2]).item()] == pytest.approx(
        [1.5, 0.5], abs=1e-3
    )
    for warp in (-0.999, 0.999):
        slowing = torch.tensor([warp])
        times = resample_frames(clock, torch.tensor([1001]), 100, warp=slowing).flatten()
        assert (times.diff() > 0).all()


@pytest.mark.parametrize(
    ("warp", "error"),
    [
        ([1.0, 0.0], r"a warp within \(-1, 1\), got \[1.0, 0.0\]"),
        ([0.0, -1.5], r"a warp within \(-1, 1\), got \[0.0, -1.5\]"),
        ([math.nan, 0.0], r"a warp within \(-1, 1\), got \[nan, 0.0\]"),
        ([0.5], r"warp \(N=2\), got \(1,\)"),
    ],
)
def test_a_warp_that_does_not_fit(warp: list[float], error: str) -> None:
    with pytest.raises(ValueError, match=rf"^resample_frames: expected {error}$"):
        resample_frames(
            torch.zeros(2, 3, 5, 4, 1), torch.tensor([3, 3]), 4, warp=torch.tensor(warp)
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("frames", [2, 16, 52, 64])
def test_frames_that_are_not_interpolated(dtype: torch.dtype, frames: int) -> None:
    """The last one not after the time, at all lengths; of a time on a frame, that frame."""
    lengths = torch.arange(1, 302)
    clock = torch.arange(301).to(dtype).view(1, 1, -1, 1, 1).expand(301, -1, -1, 1, 1)
    ours = resample_frames(clock, lengths, frames, interpolate=False)[:, 0, :, 0, 0]
    expected = (lengths[:, None] - 1) * torch.arange(frames) // (frames - 1)  # exact integers
    assert torch.equal(ours, expected.to(dtype))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 9), st.booleans())
def test_times_equal_the_slow_reference(lengths: list[int], frames: int, even: bool) -> None:
    n = len(lengths)
    x = draw(n, 2, 6, 3, 1)
    count = torch.tensor(lengths)
    times = torch.from_numpy(np.random.default_rng(frames).random((n, frames))).sort(1).values
    span = {"start": torch.full((n,), 0.125), "stop": torch.full((n,), 0.75)}
    for options, low, high in (({}, 0.0, 1.0), (span, 0.125, 0.75)):
        ours = resample_frames(x, count, frames, times=times, interpolate=even, **options)
        for i, length in enumerate(lengths):
            at = (low + (high - low) * times[i].numpy()) * (length - 1)
            for c, v in np.ndindex(2, 3):
                clip = x[i, c, :length, v, 0].numpy()
                held = clip[np.floor(at + 1e-3).astype(int)]
                expected = np.interp(at, np.arange(length), clip) if even else held
                np.testing.assert_allclose(ours[i, c, :, v, 0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("times", "error"),
    [
        ([[0.0, 1.5]], "times in 0..1, got 0 to 1.5"),
        ([[-0.5, 1.0]], "times in 0..1, got -0.5 to 1"),
        ([[0.0, math.nan]], "times in 0..1, got nan to nan"),
        ([[0.5]], r"times \(N=1, frames=2\), got \(1, 1\)"),
    ],
)
def test_times_that_do_not_fit(times: list[list[float]], error: str) -> None:
    with pytest.raises(ValueError, match=rf"^resample_frames: expected {error}$"):
        resample_frames(torch.zeros(1, 3, 5, 4, 1), torch.tensor([3]), 2, times=torch.tensor(times))


def test_resample_to_its_own_length_changes_nothing() -> None:
    x = draw(2, 3, 6, 4, 1).float()
    ours = resample_frames(x, torch.tensor([6, 6]), 6)
    torch.testing.assert_close(ours, x)
    assert torch.equal(ours[:, :, [0, -1]], x[:, :, [0, -1]])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 9), st.booleans())
def test_padding_is_not_read(lengths: list[int], frames: int, span: bool) -> None:
    x = draw(len(lengths), 2, 6, 3, 1)
    dirty = draw(len(lengths), 2, 6, 3, 1)
    count = torch.tensor(lengths)
    for n, length in enumerate(lengths):
        dirty[n, :, length:] = 1e9
    options = {"start": torch.full((len(lengths),), 0.3)} if span else {}
    assert torch.equal(repeat_frames(x, count, frames), repeat_frames(dirty, count, frames))
    assert torch.equal(
        resample_frames(x, count, frames, **options),
        resample_frames(dirty, count, frames, **options),
    )


@pytest.mark.parametrize("function", [repeat_frames, resample_frames])
def test_lengths_and_frames_that_do_not_fit(function: Any) -> None:
    x = torch.zeros(2, 3, 5, 4, 1)
    who = function.__name__
    for lengths in ([0, 5], [5, 6], [-1, 2]):
        with pytest.raises(
            ValueError, match=re.escape(f"{who}: expected lengths in 1..5, got {lengths}")
        ):
            function(x, torch.tensor(lengths), 8)
    with pytest.raises(ValueError, match=rf"^{who}: expected lengths \(N=2\), got \(3,\)$"):
        function(x, torch.tensor([1, 2, 3]), 8)
    with pytest.raises(ValueError, match=rf"^{who}: expected frames of at least 1, got 0$"):
        function(x, torch.tensor([5, 5]), 0)
    with pytest.raises(
        ValueError, match=rf"^{who}: expected x \(N, C, T, V, M\), got \(2, 3, 5, 4\)$"
    ):
        function(x[..., 0], torch.tensor([5, 5]), 8)


@pytest.mark.parametrize(
    "options",
    [{"stop": [2.0, 1.0]}, {"start": [-0.5, 0.0]}, {"start": [0.5]}, {"stop": [[1.0], [1.0]]}],
    ids=["beyond the end", "before the beginning", "one for two clips", "two axes"],
)
def test_a_span_that_does_not_fit(options: dict[str, list[float]]) -> None:
    spans = {name: torch.tensor(value) for name, value in options.items()}
    with pytest.raises(ValueError, match=r"^resample_frames: expected (spans|start|stop).*, got"):
        resample_frames(torch.zeros(2, 3, 5, 4, 1), torch.tensor([3, 3]), 4, **spans)


def test_add_visibility() -> None:
    x, seen = clip(visible=True)
    ours = add_visibility(x, seen)
    assert torch.equal(ours[:, :3], x) and torch.equal(ours[:, 3], seen)
    assert torch.equal(add_visibility(x)[:, 3], torch.ones_like(seen))
    assert add_visibility(x.float(), seen > 0).dtype == torch.float32
    with pytest.raises(
        ValueError, match=r"^add_visibility: expected x \(N, C, T, V, M\), got \(2, 3, 4, 4\)$"
    ):
        add_visibility(x[..., 0])


@pytest.mark.parametrize("visible", [False, True])
@pytest.mark.parametrize("lengths", [[4, 4], [2, 3], [1, 1]])
def test_prepare_stf_is_its_steps(visible: bool, lengths: list[int]) -> None:
    x, seen = clip(visible=visible)
    for n, length in enumerate(lengths):
        seen[n, :length, 1] = 1  # the centre: a lost one has a test of its own
        x[n, :, length:] = 0
        seen[n, length:] = 0
    path = CHAIN.path(*CHAIN.height)
    lone = seen[:, None].numpy()
    height = reference.body_height(x, seen, path, CHAIN.bones)[:, None, None, None, None]
    steps = np.concatenate([reference.center(x.numpy(), 1) * lone / height, lone], axis=1)
    ours = prepare_stf(x, torch.tensor(lengths), CHAIN, visibility=seen, frames=7)
    close(ours, reference.repeat_frames(steps, lengths, 7))
    assert prepare_stf(x, torch.tensor(lengths), CHAIN).shape == (2, 4, 300, 4, 2)


# ------------------------------------------------------------------------------------------ streams


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("layout", list(LAYOUTS.values()), ids=lambda layout: layout.name)
def test_streams_equal_the_slow_reference(layout: SkeletonLayout, frames: int) -> None:
    x = draw(2, 3, frames, layout.num_joints, 2)
    bones = reference.bone(x.numpy(), layout.parents)
    close(make_stream(x, "joint", layout), x, 0)
    close(make_stream(x, "bone", layout), bones)
    close(make_stream(x, "joint_motion", layout), reference.motion(x.numpy()))
    close(make_stream(x, "bone_motion", layout), reference.motion(bones))
    assert not make_stream(x, "bone", layout)[:, :, :, layout.center].any()
    assert not make_stream(x, "bone_motion", layout)[:, :, -1].any()


def test_streams_and_height_of_two_components() -> None:
    layout = SkeletonLayout.from_bones([(1, 0), (2, 3), (4, 3)], center=1)
    x = torch.tensor([1.0, 3, 8, 9, 13]).view(1, 1, 1, 5, 1)
    assert make_stream(x, "bone", layout).flatten().tolist() == [-2, 0, 0, 1, 4]
    assert body_height(x, layout).tolist() == [5.0], "from joint 2 to joint 4"


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("confidence", [1.0, 0.2])
def test_what_counts_as_seen(stream: str, confidence: float) -> None:
    x, seen = clip(5, visible=True)
    x = draw(2, 3, 5, 4, 2)  # what was not seen is not even 0
    ours = make_stream(x, stream, CHAIN, visibility=confidence * seen)
    whole = make_stream(x, stream, CHAIN)
    for n, t, v, m in np.ndindex(2, 5, 4, 2):
        frames = (t, t + 1) if stream.endswith("motion") and t < 4 else (t,)
        ends = (v, CHAIN.parents[v]) if stream.startswith("bone") else (v,)
        visible = all(seen[n, f, e, m] > 0 for f in frames for e in ends)
        expected = whole[n, :, t, v, m] if visible else torch.zeros(3).double()
        assert torch.equal(ours[n, :, t, v, m], expected), (n, t, v, m)


def test_a_stream_by_hand() -> None:
    x = torch.tensor([[1.0, 3, 8, 9], [2, 5, 7, 7]]).view(1, 1, 2, 4, 1)
    table = {
        "joint": [1, 3, 8, 9, 2, 5, 7, 7],
        "bone": [-2, 0, 5, 1, -3, 0, 2, 0],
        "joint_motion": [1, 2, -1, -2, 0, 0, 0, 0],
        "bone_motion": [-1, 0, -3, -1, 0, 0, 0, 0],
    }
    assert {stream: make_stream(x, stream, CHAIN).flatten().tolist() for stream in STREAMS} == table


def test_stream_errors() -> None:
    x = torch.zeros(2, 3, 5, 20, 1)
    with pytest.raises(
        ValueError, match=r"^make_stream: expected stream to be one of 'joint', .*, got 'velocity'$"
    ):
        make_stream(x, "velocity", KINECT20)
    with pytest.raises(
        ValueError, match=r"^make_stream: expected x \(N, C, T, V=25, M\), got \(2, 3, 5, 20, 1\)$"
    ):
        make_stream(x, "bone", NTU25)
    with pytest.raises(
        ValueError, match=r"^prepare_stf: expected x \(N, C, T, V=25, M\), got \(2, 3, 5, 20, 1\)$"
    ):
        prepare_stf(x, torch.tensor([5, 5]), NTU25)
    with pytest.raises(
        ValueError, match=r"^body_height: expected x \(N, C, T, V=25, M\), got \(2, 3, 5, 20, 1\)$"
    ):
        body_height(x, NTU25)
    with pytest.raises(
        ValueError, match=r"^center: expected x \(N, C, T, V, M\), got \(3, 5, 20, 1\)$"
    ):
        center(x[0], 0)


@pytest.mark.parametrize("shape", [(1, 4, 4, 2), (2, 4, 4, 1), (2, 1, 4, 2), (2, 4, 4)])
def test_a_visibility_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    x = draw(2, 3, 4, 4, 2)
    seen = torch.ones(shape)
    lengths = torch.tensor([4, 4])
    calls = [
        lambda: center(x, 1, visibility=seen),
        lambda: body_height(x, CHAIN, visibility=seen),
        lambda: make_stream(x, "bone_motion", CHAIN, visibility=seen),
        lambda: normalize_box(x, visibility=seen),
        lambda: add_visibility(x, seen),
        lambda: prepare_stf(x, lengths, CHAIN, visibility=seen),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^\w+: expected visibility \(.*\), got \("):
            call()


# ------------------------------------------------------------------------------------------- fusion


def test_fuse_averages() -> None:
    one = torch.tensor([[1.0, 0.0], [0.2, 0.8]])
    two = torch.tensor([[0.5, 0.5], [0.6, 0.4]])
    torch.testing.assert_close(fuse([one]), one)
    torch.testing.assert_close(fuse([one, two]), torch.tensor([[0.75, 0.25], [0.4, 0.6]]))
    torch.testing.assert_close(fuse([one, two], [3, 1]), torch.tensor([[0.875, 0.125], [0.3, 0.7]]))
    torch.testing.assert_close(fuse([one, two], [0.2, 0.2]), fuse([two, one]))
    torch.testing.assert_close(fuse([one, two], [0, 5]), two)


@given(st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_fused_logits_are_their_weighted_sum(streams: int, seed: int, weighted: bool) -> None:
    logits = [3 * draw(6, 5, seed=seed + s) for s in range(streams)]
    weights = [0.6, 0.6, 0.4, 0.4][:streams] if weighted else None
    ours = fuse(logits, weights, kind="logits")
    for n, c in np.ndindex(6, 5):
        total = 0.0
        for s in range(streams):
            total += (weights[s] if weights else 1.0) * logits[s][n, c].item()
        assert ours[n, c].item() == pytest.approx(total, abs=1e-12)
    logs = [z.log_softmax(1) for z in logits]
    by_logs = fuse(logs, weights, kind="log_probabilities")
    apart = ours - by_logs  # one number for each clip
    torch.testing.assert_close(apart, apart[:, :1].expand(-1, 5))


def test_fused_logits_and_probabilities_may_disagree() -> None:
    sure = torch.tensor([[0.98, 0.01, 0.01]])
    other = torch.tensor([[1e-6, 0.6, 0.399999]])
    assert fuse([sure, other]).argmax() == 0
    assert fuse([sure.log(), other.log()], kind="log_probabilities").argmax() == 1
    logs = [sure.log(), other.log()]
    assert ensemble.fused(logs, None, logits=False).argmax() == 0
    assert ensemble.fused(logs, None, logits=True).argmax() == 1
    none = torch.tensor([[0.0, 1.0, 0.0]]).log()
    assert ensemble.fused([none, sure.log()], [0.0, 1.0], logits=True).argmax() == 0
    both = ensemble.fused([none, none], None, logits=True)
    assert both.argmax() == 1 and not both.isnan().any()


@pytest.mark.parametrize(
    ("output", "kind", "error"),
    [
        ([[0.5, 0.5]], "scores", "kind to be one of 'probabilities', 'log_probabilities', 'log"),
        ([[0.5, math.nan]], "logits", "finite logits, got NaN or infinity"),
        ([[-math.inf, 0.0]], "logits", "finite logits, got NaN or infinity"),
        ([[0.5, 0.5]], "log_probabilities", "log_probabilities, each row whose exponentials add"),
        ([0.5, 0.5], "logits", r"logits \(N, classes\), got \(2,\)"),
    ],
)
def test_outputs_of_another_kind(output: Any, kind: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^fuse: expected {error}"):
        fuse([torch.tensor(output)], kind=kind)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fuse_takes_probabilities_in_half_precision(dtype: torch.dtype) -> None:
    logits = 3 * torch.randn(64, 60, generator=torch.Generator().manual_seed(0))
    half = logits.softmax(1).to(dtype)
    torch.testing.assert_close(fuse([half, half]), half, rtol=0, atol=1e-6)


def test_fuse_an_empty_batch() -> None:
    assert fuse([torch.zeros(0, 3), torch.zeros(0, 3)]).shape == (0, 3)


@pytest.mark.parametrize(
    ("probabilities", "weights", "error"),
    [
        ([], None, "one tensor of probabilities, got none"),
        (
            [[[2.0, -1.0]]],
            None,
            "probabilities, each row adding up to 1, .*; apply softmax to logits first",
        ),
        ([[[2.0, 1.0]]], None, r"each row adding up to 1, got \[3.0\]; apply softmax"),
        ([[[math.nan, 1.0]]], None, "probabilities, each row adding up to 1"),
        (
            [[[0.5, 0.5]], [[0.2, 0.3, 0.5]]],
            None,
            r"probabilities \(N=1, classes=2\), got \(1, 3\)",
        ),
        ([[[0.5, 0.5]], [[0.5, 0.5]] * 2], None, r"probabilities \(N=1, classes=2\), got \(2, 2\)"),
        ([[[0.5, 0.5]]], [1, 2], r"1 weights of at least 0, not all 0, got \[1, 2\]"),
        ([[[0.5, 0.5]]], [], r"1 weights of at least 0, not all 0, got \[\]"),
        ([[[0.5, 0.5]]], [-1], r"1 weights of at least 0, not all 0, got \[-1\]"),
        ([[[0.5, 0.5]]], [0], r"1 weights of at least 0, not all 0, got \[0\]"),
        ([[0.5, 0.5]], None, r"probabilities \(N, classes\), got \(2,\)"),
    ],
)
def test_what_fuse_refuses(probabilities: list[Any], weights: Any, error: str) -> None:
    with pytest.raises(ValueError, match="^fuse: expected .*" + error):
        fuse([torch.tensor(p) for p in probabilities], weights)


# ------------------------------------------------------------------------------------ common to all


def test_a_sample_does_not_depend_on_its_batch_and_no_input_changes() -> None:
    x, seen = clip(5, visible=True)
    lengths = torch.tensor([5, 3])
    warp = torch.tensor([0.5, -0.9])
    calls = [
        lambda i: center(x[i], 1, visibility=seen[i]),
        lambda i: center(x[i], 1, each_frame=False, visibility=seen[i]),
        lambda i: body_height(x[i], CHAIN, visibility=seen[i]),
        lambda i: repeat_frames(x[i], lengths[i], 9),
        lambda i: resample_frames(x[i], lengths[i], 9),
        lambda i: resample_frames(x[i], lengths[i], 9, warp=warp[i]),
        lambda i: resample_frames(x[i], lengths[i], 9, interpolate=False),
        lambda i: normalize_box(x[i], lengths=lengths[i], visibility=seen[i]),
        lambda i: add_visibility(x[i], seen[i]),
        lambda i: prepare_stf(x[i], lengths[i], CHAIN, visibility=seen[i]),
        *(
            lambda i, s=stream: make_stream(x[i], s, CHAIN, visibility=seen[i])
            for stream in STREAMS
        ),
    ]
    kept = [tensor.clone() for tensor in (x, seen, lengths, warp)]
    for call in calls:
        whole = call(slice(0, 2))
        assert whole.isfinite().all()
        for n in range(2):
            torch.testing.assert_close(whole[n : n + 1], call(slice(n, n + 1)))
    for before, after in zip(kept, (x, seen, lengths, warp), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_frame_everywhere_and_the_dtype_of_the_input(dtype: torch.dtype) -> None:
    x = draw(2, 3, 1, 4, 2).to(dtype)
    one = torch.tensor([1, 1])
    results = [
        center(x, 1),
        center(x, 1, each_frame=False),
        repeat_frames(x, one, 4),
        resample_frames(x, one, 4),
        resample_frames(x, one, 4, interpolate=False),
        normalize_box(x, lengths=one),
        prepare_stf(x, one, CHAIN, frames=4),
        add_visibility(x),
        body_height(x, CHAIN),
        *(make_stream(x, stream, CHAIN) for stream in STREAMS),
    ]
    assert all(result.dtype == dtype and result.isfinite().all() for result in results)
    assert torch.equal(resample_frames(x, one, 4), x.expand(-1, -1, 4, -1, -1))
    assert torch.equal(repeat_frames(x, one, 4), x.expand(-1, -1, 4, -1, -1))
