"""Test augmentation: each option against loops, what goes with the positions, what is drawn."""

from __future__ import annotations

import copy
import math
import pickle
from itertools import product
from typing import Any

import numpy as np
import pytest
import reference_preparation
import reference_views
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skeleton_focus import (
    COCO17,
    KINECT20,
    Augment,
    Batch,
    SkeletonDataset,
    SkeletonLayout,
    resample_frames,
    seeded_generator,
)
from skeleton_focus.augment import _keep_seen, drop_joints, flip, rotate, scale, shear
from skeleton_focus.preparation import normalize_box

ARMS = SkeletonLayout.from_bones(
    [(0, 1), (0, 2), (1, 3), (2, 4)], pairs=[(1, 2), (3, 4)], name="arms"
)
EVERYTHING: dict[str, Any] = {
    "rotation": (20, 60, 10),
    "scale": 0.2,
    "crop": 0.5,
    "shear": 0.3,
    "flip": 0.5,
    "joint_dropout": 0.3,
    "speed": 0.6,
    "axis_dropout": 0.7,
    "mask": 0.6,
}
IN_TIME = ("crop", "speed", "mask")  # options that need frames


def some_batch(
    lengths: tuple[int, ...] = (6, 4, 1), channels: int = 3, seed: int = 0, lost: float = 0.2
) -> Batch:
    """Make two persons of ARMS in float64, with confidences of 0.3 to 1, and zeros where unseen."""
    rng = np.random.default_rng(seed)
    n = len(lengths)
    t = max(lengths)
    seen = torch.from_numpy(rng.uniform(0.3, 1, (n, t, 5, 2)) * (rng.random((n, t, 5, 2)) >= lost))
    inside = torch.arange(t) < torch.tensor(lengths)[:, None]
    seen = seen * inside[:, :, None, None]
    x = draw(n, channels, t, 5, 2, seed=seed) * (seen > 0)[:, None]
    critical = torch.from_numpy(rng.random((n, 2, t, 5)) > 0.5) * (seen.permute(0, 3, 1, 2) > 0)
    return Batch(x, torch.tensor(lengths), torch.arange(n), seen, critical.double())


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(ours: Batch, expected: Batch, tolerance: float = 0.0) -> None:
    for name, one, two in zip(Batch._fields, ours, expected, strict=True):
        assert one.shape == two.shape, name
        assert not one.numel() or (one - two).abs().max() <= tolerance, name


# --------------------------------------------------------------------------------- option by option


@pytest.mark.parametrize("random", [None, 1])
def test_nothing_happens_by_default(random: int | None) -> None:
    batch = some_batch()
    augment = Augment(ARMS)
    same(augment(batch, random and generator(random)), batch)
    assert not list(augment.parameters()) and not augment.state_dict()


def test_without_a_generator_clips_are_only_brought_to_length() -> None:
    batch = some_batch()
    same(Augment(ARMS, frames=9, **EVERYTHING)(batch, None), Augment(ARMS, frames=9)(batch, None))
    same(Augment(ARMS, frames=9)(batch, generator()), Augment(ARMS, frames=9)(batch, None))


def test_all_that_is_drawn_in_the_order_that_is_told() -> None:
    batch = some_batch(lost=0)
    random = generator()
    ours = Augment(ARMS, frames=7, **EVERYTHING)(batch, random)

    again = generator()
    angles, sizes, share, start = (
        torch.rand(*shape, generator=again) for shape in ((3, 3), (3,), (3,), (3,))
    )
    slants = torch.rand(3, 3, 2, generator=again)
    mirrored = torch.rand(3, generator=again) < 0.5
    lost = torch.rand(3, 5, 2, generator=again) < 0.3
    warp = torch.rand(3, generator=again)
    axis = (3 * torch.rand(3, generator=again)).long()
    flat = (torch.arange(3) == axis[:, None]) & (torch.rand(3, 1, generator=again) < 0.7)
    masked = torch.rand(3, generator=again) < 0.6
    hidden = []
    for size, low, high in ((5, 1, 3), (7, 2, 4)):  # 0.2 to 0.6 of the joints, 1/4 to 1/2 of 7
        count = low + ((high - low + 1) * torch.rand(3, generator=again)).long()
        scores = torch.rand(3, size, generator=again)
        smaller = (scores[:, None] < scores[:, :, None]).sum(2)  # its place in the order
        hidden.append(smaller < count[:, None])
    masked = masked[:, None, None] & hidden[1][:, :, None] & hidden[0][:, None]  # (N, T, V)
    assert (
        torch.equal(random.get_state(), again.get_state())
        and mirrored.unique().numel() == 2
        and lost.any()
    )

    turns = (2 * angles - 1) * torch.tensor([20.0, 60.0, 10.0]) * math.pi / 180
    x = rotate(scale(flip(batch.x, ARMS, mirrored), 1 + 0.2 * (2 * sizes - 1)), turns.double())
    x = drop_joints(shear(x, 0.3 * (2 * slants - 1)), lost)
    length = 0.5 + 0.5 * share
    begin = (1 - length) * start
    warps = 0.6 * (2 * warp - 1)
    x = resample_frames(x, batch.lengths, 7, start=begin, stop=begin + length, warp=warps)
    x = x.masked_fill(flat[:, :, None, None, None], 0)
    x = x.masked_fill(masked[:, None, ..., None], 0)
    assert flat.any() and not flat.all() and masked.any()
    torch.testing.assert_close(ours.x, x, rtol=0, atol=1e-6)
    assert ours.lengths.tolist() == [7, 7, 7] and torch.equal(ours.label, batch.label)
    shown = ~lost[:, None] & ~masked[..., None]  # (N, T, V, M)
    assert torch.equal(ours.visibility > 0, shown)
    assert (
        not ours.critical[lost.mT[:, :, None].expand(-1, -1, 7, -1)].any() and ours.critical.any()
    )


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_option_has_an_effect(name: str) -> None:
    batch = some_batch(lost=0)
    plain = Augment(ARMS, frames=8)
    alone = Augment(ARMS, frames=8, **{name: EVERYTHING[name]})
    assert not torch.equal(alone(batch, generator()).x, plain(batch, None).x)


@pytest.mark.parametrize("on", range(len(EVERYTHING)))
def test_an_option_leaves_the_numbers_of_those_before_it(on: int) -> None:
    first = dict(list(EVERYTHING.items())[: on + 1])
    few, all_of_them = (
        Augment(ARMS, frames=8, **o)._draw(some_batch().x, generator()) for o in (first, EVERYTHING)
    )
    kept = {"shear": "slants", "flip": "mirrored", "joint_dropout": "lost", "speed": "warp"}
    kept |= {"axis_dropout": "lost_axis", "mask": "masked"}
    assert all(
        torch.equal(few[kept[name]], all_of_them[kept[name]]) for name in first if name in kept
    )


def test_what_is_drawn_fills_its_range() -> None:
    x = torch.zeros(4000, 3, 1, 5, 2)
    drawn = Augment(ARMS, frames=8, **EVERYTHING)._draw(x, generator())
    ranges = {
        "sizes": (0.8, 1.2),
        "start": (0, 0.5),
        "stop": (0.5, 1),
        "slants": (-0.3, 0.3),
        "warp": (-0.6, 0.6),
    }
    for name, (low, high) in ranges.items():
        assert (
            low - 1e-6 <= drawn[name].min() < low + 0.02
            and high - 0.02 < drawn[name].max() <= high + 1e-6
        ), name
    most = drawn["angles"].rad2deg().abs().amax(0)
    assert (most <= torch.tensor([20.001, 60.001, 10.001])).all()
    assert (most > torch.tensor([19.0, 59.0, 9.0])).all()
    assert drawn["mirrored"].float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert drawn["lost"].float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert drawn["lost_axis"].sum(1).max() == 1
    share = drawn["lost_axis"].float().mean(0)
    torch.testing.assert_close(share, torch.full((3,), 0.7 / 3), rtol=0, atol=0.02)
    length = drawn["stop"] - drawn["start"]
    assert length.min() >= 0.5 - 1e-6 and length.mean().item() == pytest.approx(0.75, abs=0.01)


def test_masks_take_every_size_and_every_place() -> None:
    """4 to 12 of 20 joints in 16 to 32 of 64 frames of every second clip, as SkateFormer has it."""
    x = torch.zeros(4000, 3, 1, 20, 1)
    masked = Augment(KINECT20, mask=0.5, frames=64)._draw(x, generator())["masked"]
    some = masked.flatten(1).any(1)
    assert some.float().mean().item() == pytest.approx(0.5, abs=0.03)
    joints = masked.any(1)[some]
    frames = masked.any(2)[some]
    assert torch.equal(masked[some], frames[:, :, None] & joints[:, None])
    for places, low, high in ((joints, 4, 12), (frames, 16, 32)):
        sizes = places.sum(1).bincount(minlength=high + 1)
        expected = len(places) / (high - low + 1)
        assert len(sizes) == high + 1 and not sizes[:low].any()
        assert (sizes[low:] > 0.6 * expected).all() and (sizes[low:] < 1.5 * expected).all()
        each = places.float().mean(0)
        assert (each - (low + high) / 2 / places.shape[1]).abs().max() < 0.05


def test_sampled_frames_are_all_equally_likely() -> None:
    """Sorted, with repetition, of the clip and not of its padding; evenly spaced in tests."""
    clips, length = 3000, 7
    x = torch.zeros(clips, 1, 10, 5, 1)
    x[:, :, :length] = torch.arange(1.0, length + 1).view(-1, 1, 1)
    x[:, :, length:] = 99
    batch = Batch(
        x,
        torch.full((clips,), length),
        torch.zeros(clips),
        torch.ones(clips, 10, 5, 1),
        torch.zeros(clips, 1, 10, 5),
    )
    augment = Augment(ARMS, sampling="random", frames=4)
    shown = augment(batch, generator()).x[:, 0, :, 0, 0].long()
    assert (shown.diff(dim=1) >= 0).all() and (shown.diff(dim=1) == 0).any()
    counts = shown.flatten().bincount(minlength=length + 1)
    expected = 4 * clips / length
    assert len(counts) == length + 1 and counts[0] == 0
    assert (counts[1:] - expected).abs().max() < 4 * expected**0.5
    assert augment(batch, None).x[0, 0, :, 0, 0].tolist() == [1, 3, 5, 7]
    part = Augment(ARMS, sampling="random", frames=4, crop=0.3)(batch, generator())
    spread = part.x[:, 0, -1, 0, 0] - part.x[:, 0, 0, 0, 0]
    assert set(part.x.unique().tolist()) == set(range(1, 8)) and spread.mean() < 3
    same(Augment(ARMS, sampling="random", frames=4, test_crop=0.5)(batch, None), whole_middle(part))


def whole_middle(like: Batch) -> Batch:
    """The middle half of seven frames, 1.5 to 4.5 counted from 0, without interpolation."""
    x = torch.tensor([2.0, 3, 4, 5]).view(1, 1, 4, 1, 1).expand_as(like.x)
    return like._replace(x=x)


@given(st.integers(0, 10**6), st.sampled_from([None, 6]))
def test_a_box_lies_between_the_rotation_and_the_sampling(seed: int, frames: int | None) -> None:
    batch = some_batch(seed=seed)
    turned = Augment(ARMS, rotation=(40, 70, 0))(batch, generator(seed))
    expected = normalize_box(turned.x, lengths=batch.lengths, visibility=batch.visibility)
    boxed = Augment(ARMS, rotation=(40, 70, 0), scale=0.3, box=True, frames=frames)
    resampled = Augment(ARMS, frames=frames)(turned._replace(x=expected), None)
    same(boxed(batch, generator(seed)), resampled, 1e-12)
    in_test = boxed(batch, None).x
    plain = normalize_box(batch.x, lengths=batch.lengths, visibility=batch.visibility)
    expected = Augment(ARMS, frames=frames)(batch._replace(x=plain), None).x
    assert torch.equal(in_test, expected) and in_test.abs().max() <= 1


def test_a_dropped_axis_stays_visible() -> None:
    batch = some_batch(lost=0)
    ours = Augment(ARMS, axis_dropout=1.0)(batch, generator())
    assert ((ours.x == 0).flatten(2).all(2).sum(1) == 1).all()
    assert torch.equal(ours.visibility, batch.visibility)
    assert torch.equal(ours.critical, batch.critical)


def test_the_order_of_rotations_by_hand() -> None:
    """Quarter turns: about y, z goes to x; about x, y goes to z and z to -y."""
    quarter = torch.tensor([[math.pi / 2, math.pi / 2, 0.0]], dtype=torch.float64)
    x = torch.tensor([0.0, 0.0, 1.0]).double().view(1, 3, 1, 1, 1)
    for order, expected in (("xyz", [0, -1, 0]), ("yxz", [1, 0, 0])):
        turned = rotate(x, quarter, order=order).flatten()
        torch.testing.assert_close(turned, torch.tensor(expected).double(), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"^rotate: expected order to be one of 'xyz', .* got 'x'"):
        rotate(x, quarter, order="x")


@pytest.mark.parametrize("order", ["xyz", "xzy", "yxz", "yzx", "zxy", "zyx"])
def test_every_order_of_rotations(order: str) -> None:
    batch = some_batch()
    angles = draw(3, 3, seed=4)
    ours = rotate(batch.x, angles, order=order)
    for n in range(3):
        turn = np.eye(3)
        for axis in order:
            which = "xyz".index(axis)
            turn = reference_preparation.about(which, angles[n, which].item()) @ turn
        expected = np.einsum("ij,jtvm->itvm", turn, batch.x[n].numpy())
        np.testing.assert_allclose(ours[n], expected, rtol=0, atol=1e-12)


@given(st.integers(0, 1000), st.tuples(*[st.floats(0, 180)] * 3))
def test_rotation_keeps_bones(seed: int, rotation: tuple[float, float, float]) -> None:
    batch = some_batch(seed=seed, lost=0)
    turned = Augment(ARMS, rotation=rotation)(batch, generator(seed)).x
    ends = [list(end) for end in zip(*ARMS.bones, strict=True)]
    lengths = [(x[:, :, :, ends[0]] - x[:, :, :, ends[1]]).norm(dim=1) for x in (turned, batch.x)]
    torch.testing.assert_close(*lengths)


# --------------------------------------------------------------------- what goes with the positions


def test_visibility_and_truth_are_mirrored_with_the_positions() -> None:
    """Each joint carries its own number, in all three."""
    name = torch.arange(1.0, 6).expand(2, 4, 2, 5).double() / 5  # (N, T, M, V)
    x = name.mT[:, None].repeat(1, 3, 1, 1, 1)
    batch = Batch(x, torch.tensor([4, 4]), torch.zeros(2), name.mT, name.transpose(1, 2))
    ours = Augment(ARMS, flip=1.0)(batch, generator())
    expected = torch.tensor([1.0, 3, 2, 5, 4]).double() / 5
    assert torch.equal(ours.x[:, 0], -expected[:, None].expand(2, 4, 5, 2))
    assert torch.equal(ours.x[:, 1], expected[:, None].expand(2, 4, 5, 2))
    assert torch.equal(ours.visibility, expected[:, None].expand(2, 4, 5, 2))
    assert torch.equal(ours.critical, expected.expand(2, 2, 4, 5))
    same(Augment(ARMS, flip=1.0)(ours, generator()), batch)


@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([2, 3]))
def test_time_equals_the_slow_reference(seed: int, frames: int, channels: int) -> None:
    batch = some_batch((5, 3, 1), channels, seed=seed)
    augment = Augment(ARMS, crop=0.4, speed=0.8, frames=frames)
    drawn = augment._draw(batch.x, generator(seed))
    ours = augment(batch, generator(seed))
    for n, length in enumerate(batch.lengths.tolist()):
        span = (float(drawn[name][n].double()) for name in ("start", "stop", "warp"))
        times = reference_views.frame_times(length, frames, *span)
        for c, v, m in np.ndindex(channels, 5, 2):
            clip = (
                batch.x[n, c, :length, v, m],
                batch.visibility[n, :length, v, m],
                batch.critical[n, m, :length, v],
            )
            expected = np.array(reference_views.play(*(part.tolist() for part in clip), times))
            told = torch.stack(
                [ours.x[n, c, :, v, m], ours.visibility[n, :, v, m], ours.critical[n, m, :, v]],
                dim=1,
            )
            np.testing.assert_allclose(told, expected, rtol=0, atol=1e-6)


def test_time_by_hand() -> None:
    """Frames 0, 1 and 3 are seen, 2 is lost; confidences of 0.4 and 0.8; the truth from frame 1."""
    x = torch.tensor([2.0, 4, 0, 8]).view(1, 1, 4, 1, 1).repeat(1, 1, 1, 5, 1)
    seen = torch.tensor([0.4, 0.8, 0, 1]).view(1, 4, 1, 1).repeat(1, 1, 5, 1)
    truth = torch.tensor([0.0, 1, 0, 1]).view(1, 1, 4, 1).repeat(1, 1, 1, 5)
    ours = Augment(ARMS, frames=13)(Batch(x, torch.tensor([4]), torch.zeros(1), seen, truth), None)
    torch.testing.assert_close(
        ours.x[0, 0, :, 0, 0], torch.tensor([2, 2.5, 3, 3.5, 4, 0, 0, 0, 0, 0, 0, 0, 8])
    )
    confidence = torch.tensor([0.4, 0.5, 0.6, 0.7, 0.8, 0, 0, 0, 0, 0, 0, 0, 1])
    torch.testing.assert_close(ours.visibility[0, :, 0, 0], confidence)
    assert ours.critical[0, 0, :, 0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]


@given(st.integers(0, 10**6))
def test_what_was_seen_or_not_stays_zero_or_one(seed: int) -> None:
    batch = some_batch((7, 5, 2), seed=seed)
    batch = batch._replace(visibility=(batch.visibility > 0).double())
    ours = Augment(ARMS, frames=11, **EVERYTHING)(batch, generator(seed))
    for part in (ours.visibility, ours.critical):
        assert ((part == 0) | (part == 1)).all()
    assert not ours.x[(ours.visibility == 0)[:, None].expand_as(ours.x)].any()
    assert not (ours.critical * (ours.visibility == 0).permute(0, 3, 1, 2)).any()


def seen_in(frames: int, *parts: tuple[int, int], clips: int = 512) -> Batch:
    """Many times the same clip, in which all joints were seen in some parts and none elsewhere.

    Its position is the frame's number, from 1.
    """
    seen = torch.zeros(clips, frames, 5, 2)
    for first, last in parts:
        seen[:, first : last + 1] = 1
    x = torch.arange(1.0, frames + 1).view(1, 1, -1, 1, 1) * seen[:, None]
    lengths = torch.full((clips,), frames)
    return Batch(x, lengths, torch.zeros(clips).long(), seen, torch.zeros(clips, 2, frames, 5))


@pytest.mark.parametrize("crop", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("first", "last"), [(80, 102), (0, 22), (40, 45), (102, 102), (0, 0), (0, 102)]
)
def test_a_crop_keeps_its_share_of_what_was_seen(first: int, last: int, crop: float) -> None:
    """A clip with 80 empty frames of 103: a fifth of its views at a crop of 0.5 held nobody."""
    views = Augment(ARMS, crop=crop, frames=400)(seen_in(103, (first, last)), generator())
    shown = views.x[:, 0, :, 0, 0]  # (N, T)
    assert (shown > 0).any(1).all()
    begin = torch.where(shown > 0, shown, 1e9).amin(1)
    # Half a frame at each end lies between the views' 400 times.
    assert (shown.amax(1) - begin >= crop * (last - first) - 1).all()
    assert shown.unique(dim=0).shape[0] > 1 or first == last


def test_a_crop_in_a_gap_is_the_whole_clip() -> None:
    views = Augment(ARMS, crop=0.5, frames=100)(seen_in(100, (0, 4), (95, 99)), generator())
    shown = views.x[:, 0, :, 0, 0]
    whole = (shown[:, 0] == 1) & (shown[:, -1] == 100)
    assert (shown > 0).any(1).all() and whole.any() and not whole.all()


def test_crops_of_clips_in_which_nobody_was_seen() -> None:
    assert not Augment(ARMS, crop=0.5, frames=9)(seen_in(12), generator()).x.any()


@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.3, 0.5, 0.7, 0.99]))
def test_crops_of_clips_seen_throughout_do_not_move(seed: int, crop: float) -> None:
    augment = Augment(ARMS, crop=crop, frames=8)
    lengths = torch.arange(1, 513)
    seen = torch.arange(512) < lengths[:, None]
    drawn = augment._draw(torch.zeros(512, 3, 1, 5, 2), generator(seed))
    moved = _keep_seen(seen, lengths, crop, drawn["start"], drawn["stop"])
    for name, value in moved.items():
        assert torch.equal(value[1:], drawn[name][1:]), name  # one frame is the same anyway


# --------------------------------------------------------------------------- what a clip depends on


@given(st.integers(0, 10**6), st.sampled_from([None, 6]))
def test_padding_and_the_other_clips_are_not_read(seed: int, frames: int | None) -> None:
    options = {name: EVERYTHING[name] for name in EVERYTHING if frames or name not in IN_TIME}
    options |= {"box": True, "sampling": "random" if frames else "interpolate"}
    batch = some_batch(seed=seed)
    augment = Augment(ARMS, frames=frames, **options)
    ours = augment(batch, generator(seed))
    length = frames or 4
    wild = [part.clone() for part in batch]
    for clip, first in ((0, 0), (1, 4), (2, 1)):  # all of clip 0, the padding of the others
        wild[0][clip, :, first:] = 1e3
        wild[3][clip, first:] = 0.7
        wild[4][clip, :, first:] = 1
    longer = Batch(
        *(
            torch.cat([part, part], dim=axis) if axis else part
            for part, axis in zip(wild, (2, 0, 0, 1, 2), strict=True)
        )
    )
    theirs = augment(longer, generator(seed))
    assert torch.equal(ours.x[1, :, :length], theirs.x[1, :, :length])
    assert torch.equal(ours.visibility[1, :length], theirs.visibility[1, :length])
    assert torch.equal(ours.critical[1, :, :length], theirs.critical[1, :, :length])


def test_the_input_and_the_global_random_state_stay() -> None:
    batch = some_batch()
    state = torch.get_rng_state()
    before = [part.clone() for part in batch]
    x = batch.x.clone().requires_grad_()
    ours = Augment(ARMS, frames=5, **EVERYTHING)(batch._replace(x=x), generator())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(old, new) for old, new in zip(before, batch, strict=True))
    (gradient,) = torch.autograd.grad(ours.x.sum(), x)
    assert gradient.isfinite().all() and gradient.any() and x.grad is None


@pytest.mark.parametrize(
    ("dtype", "result", "tolerance"),
    [
        (torch.float64, torch.float64, 0),
        (torch.float32, torch.float32, 1e-5),
        (torch.float16, torch.float32, 1e-2),
    ],
)
def test_the_arithmetic_has_float32_at_least(
    dtype: torch.dtype, result: torch.dtype, tolerance: float
) -> None:
    batch = some_batch((6, 5))
    augment = Augment(ARMS, frames=5, **EVERYTHING)
    exact = augment(batch, generator())
    kinds = batch._replace(
        x=batch.x.to(dtype), visibility=batch.visibility.to(dtype), critical=batch.critical > 0
    )
    ours = augment(kinds, generator())
    same(ours, exact, tolerance)
    assert {part.dtype for part in (ours.x, ours.visibility, ours.critical)} == {result}
    with torch.autocast("cpu", torch.bfloat16):
        same(augment(kinds, generator()), ours)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_shows_the_same_clips() -> None:
    batch = Batch(*(part.float() for part in some_batch()))
    augment = Augment(ARMS, frames=5, **EVERYTHING)
    batch = batch._replace(lengths=batch.lengths.long())
    ours = augment(Batch(*(part.to("cuda") for part in batch)), generator())
    assert all(part.is_cuda for part in ours)
    same(Batch(*(part.cpu() for part in ours)), augment(batch, generator()), 1e-5)


def test_an_empty_batch_and_copies() -> None:
    batch = some_batch()
    augment = Augment(ARMS, frames=5, **EVERYTHING)
    none = augment(Batch(*(part[:0] for part in batch)), generator())
    assert [tuple(part.shape) for part in none] == [
        (0, 3, 5, 5, 2),
        (0,),
        (0,),
        (0, 5, 5, 2),
        (0, 2, 5, 5),
    ]
    for other in (copy.deepcopy(augment), pickle.loads(pickle.dumps(augment)), augment.eval()):
        same(other(batch, generator()), augment(batch, generator()))
    assert repr(Augment(ARMS, rotation=(0, 30, 0), frames=9)) == (
        "Augment(arms, rotation=(0.0, 30.0, 0.0), rotation_order=xyz, scale=0.0, crop=1.0, "
        "shear=0.0, flip=0.0, joint_dropout=0.0, speed=0.0, axis_dropout=0.0, mask=0.0, "
        "mask_joints=(0.2, 0.6), mask_frames=(0.25, 0.5), box=False, sampling=interpolate, "
        "test_crop=1.0, frames=9)"
    )


# ------------------------------------------------------------------------------------- in the plane


def test_in_the_plane() -> None:
    batch = some_batch(channels=2)
    ours = Augment(ARMS, frames=6, **{**EVERYTHING, "rotation": (0, 0, 90)})(batch, generator())
    assert ours.x.shape == (3, 2, 6, 5, 2) and ours.x.isfinite().all()
    drawn = Augment(ARMS, rotation=(0, 0, 90))._draw(batch.x, generator())
    turned = Augment(ARMS, rotation=(0, 0, 90))(batch, generator()).x
    torch.testing.assert_close(turned, rotate(batch.x, drawn["angles"][:, 2:].double()))


# ----------------------------------------------------------------------------------- random numbers


def test_every_place_in_training_has_its_own_numbers() -> None:
    places = [*product((0, 1, 7), range(3), range(3), (0, 1))]  # seed, epoch, step, rank
    numbers = {}
    for seed, epoch, step, rank in places:
        a, b = (
            torch.rand(8, generator=seeded_generator(seed, epoch=epoch, step=step, rank=rank))
            for _ in range(2)
        )
        assert torch.equal(a, b)
        numbers[tuple(a.tolist())] = (seed, epoch, step, rank)
    assert len(numbers) == len(places)


class AugmentingClips(Dataset[Tensor]):
    """Augment each clip in ``__getitem__``: eight times the same one."""

    def __init__(self, seed: int, epoch: int) -> None:
        self.seed = seed
        self.epoch = epoch
        self.augment = Augment(ARMS, rotation=(0, 90, 0), crop=0.5, frames=4)
        self.clips = SkeletonDataset([draw(3, 6, 5, 2).float()] * 8, [0] * 8, ARMS)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Tensor:
        random = seeded_generator(self.seed, epoch=self.epoch, step=index)
        return self.augment(SkeletonDataset.collate([self.clips[index]]), random).x[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_augmented_one_by_one_all_differ(workers: int) -> None:
    shown = [
        x for epoch in (0, 1) for x in DataLoader(AugmentingClips(1, epoch), 1, num_workers=workers)
    ]
    assert len({tuple(x.flatten().tolist()) for x in shown}) == 16


def test_a_generator_needs_the_step() -> None:
    """In ``__getitem__``, the seed and the epoch alone give every clip the same view."""
    with pytest.raises(TypeError, match="required keyword-only argument: 'step'"):
        seeded_generator(1, epoch=3)  # type: ignore[call-arg]


class AugmentingCollate:
    """Serve as ``collate_fn`` whose epoch, in shared memory, a persistent worker sees change."""

    def __init__(self, seed: int, known_bug: bool = False) -> None:
        self.seed = seed
        self.augment = Augment(ARMS, rotation=(0, 90, 0), crop=0.5, frames=4)
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        # Copied into every worker, in every epoch.
        self.random = generator(seed) if known_bug else None
        self.drawn_for = -1

    def __call__(self, clips: Any) -> Tensor:
        if self.epoch >= 0 and self.drawn_for != int(self.epoch):
            self.random = seeded_generator(self.seed, epoch=int(self.epoch), step=0)
            self.drawn_for = int(self.epoch)
        return self.augment(SkeletonDataset.collate(clips), self.random).x


def epochs(
    workers: int, collate: AugmentingCollate, persistent: bool = False, known_bug: bool = False
) -> Tensor:
    """Two epochs of eight times the same clip, one a batch: (16, ...)."""
    clip = draw(3, 6, 5, 2).float()
    data = SkeletonDataset([clip] * 8, [0] * 8, ARMS)
    shown = []
    loader = DataLoader(
        data, collate_fn=collate, num_workers=workers, persistent_workers=persistent
    )
    for epoch in range(2):
        collate.epoch.fill_(-1 if known_bug else epoch)
        shown += list(loader)
    return torch.cat(shown)


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_no_augmentation_comes_twice(workers: int, persistent: bool) -> None:
    shown, again, other = (
        epochs(workers, AugmentingCollate(seed), persistent) for seed in (1, 1, 2)
    )
    assert len(shown) == 16 and len(shown.unique(dim=0)) == 16
    assert torch.equal(shown, again), "the same seed, the same clips"
    assert not torch.equal(shown, other)


def test_the_known_bug_would_be_seen() -> None:
    """A generator made once: both workers show the same, and the second epoch repeats the first."""
    shown = epochs(2, AugmentingCollate(1, known_bug=True), known_bug=True)
    assert len(shown.unique(dim=0)) == 4
    assert torch.equal(shown[0::2], shown[1::2]) and torch.equal(shown[:8], shown[8:])


# -------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rotation": (10, 10)}, r"rotation of three angles in 0..180 degrees, got \(10.0, 10.0\)"),
        (
            {"rotation": (0, 0, -1)},
            r"rotation of three angles in 0..180 degrees, got \(0.0, 0.0, -1.0\)",
        ),
        ({"rotation": (0, math.nan, 0)}, "rotation of three angles in 0..180 degrees, got"),
        ({"scale": 1.0}, "scale of at least 0 and below 1, got 1.0"),
        ({"joint_dropout": -0.1}, "joint_dropout of at least 0 and below 1, got -0.1"),
        ({"speed": 1, "frames": 8}, "speed of at least 0 and below 1, got 1"),
        ({"shear": 1.5}, "shear in 0..1, got 1.5"),
        ({"flip": math.nan}, "flip in 0..1, got nan"),
        ({"crop": 0.0, "frames": 8}, "crop above 0 and at most 1, got 0.0"),
        ({"frames": 0}, "frames of at least 1, got 0"),
        ({"crop": 0.5}, "frames with crop, speed, mask, sampling or test_crop, got None"),
        ({"speed": 0.5}, "frames with crop, speed, mask, sampling or test_crop, got None"),
        ({"mask": 0.5}, "frames with crop, speed, mask, sampling or test_crop, got None"),
        ({"sampling": "random"}, "frames with crop, speed, mask, sampling or test_crop, got None"),
        ({"sampling": "even"}, "sampling to be one of 'interpolate', 'random', got 'even'"),
        ({"rotation_order": "xy"}, "rotation_order to be one of 'xyz', .*, got 'xy'"),
        ({"axis_dropout": 1.5}, "axis_dropout in 0..1, got 1.5"),
        ({"mask": -1, "frames": 8}, "mask in 0..1, got -1"),
        ({"mask_joints": (0.1, 0.2)}, r"mask above 0 with mask_joints, got 0.0"),
        ({"mask_frames": (0.1, 0.2)}, r"mask above 0 with mask_frames, got 0.0"),
        ({"mask_joints": (0.6, 0.2)}, r"mask_joints of two ascending shares in 0..1, got \(0.6, "),
        ({"mask_frames": 0.5}, "mask_frames of two ascending shares in 0..1, got 0.5"),
        ({"mask_frames": (0.5, math.nan)}, "mask_frames of two ascending shares in 0..1, got"),
    ],
)
def test_options_out_of_their_range(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=rf"^Augment: expected {error}"):
        Augment(ARMS, **options)


def test_flip_needs_pairs() -> None:
    chain = SkeletonLayout.from_bones([(0, 1)], name="chain")
    with pytest.raises(
        ValueError,
        match=r"^Augment: expected a layout with left and right pairs for flip, got 'chain'",
    ):
        Augment(chain, flip=0.5)
    Augment(chain, rotation=(0, 90, 0))


@pytest.mark.parametrize(
    ("layout", "options", "change", "error"),
    [
        (KINECT20, {}, {}, r"x \(N, C, T, V=20, M\), got \(3, 3, 6, 5, 2\)"),
        (ARMS, {}, {"x": torch.zeros(3, 6, 5, 2)}, r"x \(N, C, T, V=5, M\), got \(3, 6, 5, 2\)"),
        (ARMS, {}, {"lengths": torch.ones(2)}, r"lengths \(N=3\), got \(2,\)"),
        (
            ARMS,
            {},
            {"visibility": torch.ones(3, 6, 5, 1)},
            r"visibility \(N=3, T=6, V=5, M=2\), got \(3, 6, 5, 1\)",
        ),
        (
            ARMS,
            {},
            {"critical": torch.ones(3, 6, 5, 2)},
            r"critical \(N=3, M=2, T=6, V=5\), got \(3, 6, 5, 2\)",
        ),
        (
            COCO17,
            {"rotation": (0, 30, 0)},
            {
                "x": torch.zeros(3, 2, 6, 17, 2),
                "visibility": torch.ones(3, 6, 17, 2),
                "critical": torch.zeros(3, 2, 6, 17),
            },
            r"rotation about z alone with x \(N, C=2, T, V, M\), got \(0.0, 30.0, 0.0\)",
        ),
        (
            ARMS,
            {"rotation": (0, 0, 30)},
            {"x": torch.zeros(3, 4, 6, 5, 2)},
            r"no rotation with x \(N, C=4, T, V, M\)",
        ),
    ],
)
def test_batches_that_do_not_fit(
    layout: SkeletonLayout, options: dict[str, Any], change: dict[str, Tensor], error: str
) -> None:
    batch = some_batch()._replace(**change)
    for random in (None, generator()):
        with pytest.raises(ValueError, match=f"^Augment: expected {error}"):
            Augment(layout, **options)(batch, random)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_numbers_are_drawn_on_the_cpu() -> None:
    with pytest.raises(
        ValueError, match=r"^Augment: expected a generator on the CPU, so that every .*, got cuda$"
    ):
        Augment(ARMS)(some_batch(), torch.Generator("cuda"))


@pytest.mark.parametrize(
    "place", [{"epoch": -1}, {"epoch": 0, "step": -1}, {"epoch": 0, "rank": -2}]
)
def test_seeds_are_not_negative(place: dict[str, int]) -> None:
    with pytest.raises(
        ValueError, match=r"^seeded_generator: expected numbers of at least 0, got \{'seed': 1, "
    ):
        seeded_generator(1, **{"epoch": 0, "step": 0, **place})
    with pytest.raises(
        ValueError, match=r"^seeded_generator: expected numbers of at least 0, got \{'seed': -1, "
    ):
        seeded_generator(-1, epoch=0, step=0)
