"""Test the cues of the generated actions: what moves, how often, where, and what it tells."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from skeleton_focus.clips import Batch
from skeleton_focus.layouts import NTU25
from skeleton_focus.synthetic import SyntheticActions

CLEAN: dict[str, Any] = {"noise": 0.0, "missing": 0.0, "distraction": 0.0}
HEAD = ("head",)
ARM = ("elbow", "wrist", "hand", "hand_tip", "thumb")
LOWER_ARM = ("wrist", "hand", "hand_tip", "thumb")
LEG = ("knee", "ankle", "foot")
LOWER_LEG = ("ankle", "foot")
# Of each class in the order of its label: what its cue moves, on how many sides (0 for the head),
# and how often.
CUES = [
    (LOWER_LEG, 1, 6),
    (LEG, 1, 3),
    (ARM, 1, 3),
    (LOWER_ARM, 1, 6),
    (LEG, 1, 6),
    (LEG, 1, 3),
    (HEAD, 0, 6),
    (HEAD, 0, 3),
    (ARM, 2, 6),
    (ARM, 2, 3),
    (LOWER_ARM, 2, 6),
    (LOWER_LEG, 1, 3),
    (HEAD, 0, 3),
    (LEG, 1, 6),
    (HEAD, 0, 6),
    (HEAD, 0, 6),
    (LEG, 1, 6),
    (LEG, 1, 3),
]
TOUCH_NECK = 1
WALK = 6
RUN = 7
CLAP = 12
BOW = 13
JUMP = 14
SHAKE = 15
PUSH = 17
# Joints whose motion tells the cues apart, one a pair.
TOLD = (
    "head",
    *(
        f"{side}_{name}"
        for name in ("elbow", "wrist", "knee", "ankle")
        for side in ("left", "right")
    ),
)


def clips(
    labels: list[int], shortcut: float, seed: int = 0, shuffled: bool = False, **options: Any
) -> Batch:
    data = SyntheticActions(shortcut=shortcut, **{**CLEAN, **options})
    return data.generate(len(labels), seed=seed, labels=labels, shuffle_shortcut=shuffled)


def added(labels: list[int], shuffled: bool = False, **options: Any) -> tuple[Batch, Tensor]:
    """Clips without cues, and what their cues add to x (N, C, T, V, M)."""
    plain = clips(labels, 0.0, **options)
    cued = clips(labels, 1.0, shuffled=shuffled, **options)
    assert torch.equal(plain.critical, cued.critical) and torch.equal(
        plain.visibility, cued.visibility
    )
    return plain, cued.x - plain.x


def names(moved: Tensor) -> set[str]:
    """The joints of NTU25 that a mask (V) holds."""
    return {NTU25.joints[joint] for joint in moved.nonzero().flatten().tolist()}


def differ(one: Batch, other: Batch) -> Tensor:
    """(N,) which clips are not the same bits."""
    return (one.x != other.x).flatten(1).any(1)


def test_without_cues_the_clips_are_what_they_were() -> None:
    batch = SyntheticActions(frames=16).generate(300, seed=8)
    assert batch.label[:8].tolist() == [0, 2, 13, 7, 17, 6, 11, 5]
    assert batch.x[0, :, 5, 3, 0].tolist() == pytest.approx(
        [-0.136221, 1.742030, 0.751461], abs=1e-5
    )
    assert batch.x[299, :, 9, 11, 0].tolist() == pytest.approx(
        [-0.923181, 0.757151, 0.093608], abs=1e-5
    )
    assert batch.x.double().abs().sum().item() == pytest.approx(225356.92, rel=1e-6)
    assert batch.visibility.sum() == 138463 and batch.critical.sum() == 20535
    zero = SyntheticActions(frames=16, shortcut=0.0).generate(300, seed=8, shuffle_shortcut=True)
    assert all(torch.equal(a, b) for a, b in zip(batch, zero, strict=True))


def test_a_share_of_the_clips_shows_a_cue_and_the_others_keep_their_bits() -> None:
    labels = torch.arange(600) % 18
    plain, some, more, every = (
        SyntheticActions(frames=16, shortcut=p).generate(600, seed=2, labels=labels)
        for p in (0.0, 0.3, 0.7, 1.0)
    )
    shows = differ(plain, some)
    assert 0.22 < shows.float().mean() < 0.38
    assert 0.62 < differ(plain, more).float().mean() < 0.78
    assert not (shows & ~differ(plain, more)).any()
    assert differ(plain, every).all()
    for batch in (some, every):
        assert all(torch.equal(a, b) for a, b in zip(plain[1:], batch[1:], strict=True))
    assert not torch.equal(shows[:256], shows[256:512])  # the second block is not the first again


@pytest.mark.parametrize("shuffled", [False, True])
def test_who_shows_a_cue_does_not_depend_on_the_label(shuffled: bool) -> None:
    shows = [
        differ(clips(labels, 0.0, frames=16), clips(labels, 0.4, frames=16, shuffled=shuffled))
        for labels in ([WALK] * 300, [PUSH] * 300, [k % 18 for k in range(300)])
    ]
    assert torch.equal(shows[0], shows[1]) and torch.equal(shows[0], shows[2])


def test_cues_are_the_same_bits_for_the_same_seed() -> None:
    data = SyntheticActions(frames=16, shortcut=0.5)
    for shuffled in (False, True):
        one, two = (data.generate(40, seed=3, shuffle_shortcut=shuffled) for _ in range(2))
        assert torch.equal(one.x, two.x)


@pytest.mark.parametrize("label", range(18))
def test_the_cue_moves_a_limb_that_is_never_critical(label: int) -> None:
    parts, sides, _ = CUES[label]
    plain, motion = added([label] * 12)
    travel = motion.norm(dim=1).amax(1)  # (N, V, M)
    for clip in range(12):
        persons = (travel[clip] > 0.01).any(0).nonzero().flatten().tolist()
        assert len(persons) == 1  # of two persons, one
        moved = names(travel[clip, :, persons[0]] > 0.01)
        critical = names(plain.critical[clip, persons[0]].any(0))
        assert not moved & critical
        if label == PUSH:
            assert "left_wrist" in critical  # the one who pushes
        acting = {side for side in ("left", "right") if f"{side}_wrist" in critical}
        free = {"left", "right"} - acting
        shown = {side for side in ("left", "right") if any(name.startswith(side) for name in moved)}
        assert len(shown) == sides and moved == (
            {f"{s}_{p}" for s in shown for p in parts} if sides else set(parts)
        )
        if sides == 1 and len(free) == 1:
            assert shown == free  # mirrored with the performer
        # The rest of the body stays where it is.
        rest = [joint for joint, name in enumerate(NTU25.joints) if name not in moved]
        assert travel[clip, rest].max() < 0.003


def test_the_cue_moves_a_limb_that_is_critical_with_neither_hand() -> None:
    """So that a table of joints for each class can tell the two apart."""
    critical = SyntheticActions().critical_joints
    for label, name in enumerate(SyntheticActions().classes):
        _, motion = added([label] * 12)
        moved = names((motion.norm(dim=1).amax(1) > 0.01).any(2).any(0))
        assert moved and not moved & set(critical[name]), name


def course(motion: Tensor) -> NDArray[np.float64]:
    """(T,) how a joint's displacement (C, T) runs along the direction in which it varies most."""
    centred = (motion - motion.mean(1, keepdim=True)).double().numpy()
    direction = np.linalg.svd(centred, full_matrices=False)[0][:, 0]
    return np.asarray(direction @ centred)


@pytest.mark.parametrize("label", range(18))
def test_the_cue_has_its_rate_and_lasts_the_whole_clip(label: int) -> None:
    _, motion = added([label] * 12, frames=256)
    for clip in range(12):
        spread = motion[clip].std(1).norm(dim=0)  # (V, M)
        joint, person = divmod(int(spread.argmax()), 2)
        line = course(motion[clip, :, :, joint, person])
        spectrum = np.abs(np.fft.rfft(line * np.hanning(256), 4096)) / np.hanning(256).sum()
        # 16 bins for one period a clip.
        assert spectrum.argmax() / 16 == pytest.approx(CUES[label][2], rel=0.1)
        quarters = np.ptp(line.reshape(4, 64), axis=1)
        assert quarters.min() > 0.5 * quarters.max()
        assert quarters.min() > 0.1  # idle motion moves a head by 2 cm, a hand by 10 cm


def statistics(seed: int, shuffled: bool) -> tuple[Tensor, Tensor]:
    """Measure how far and fast the cue moves the told joints, (N, 54); return the labels too.

    The numbers are along left, up and ahead.
    """
    labels = [k % 18 for k in range(180)]
    plain, motion = added(labels, shuffled, seed=seed)
    motion = motion.gather(
        4, motion.abs().sum((1, 2, 3)).argmax(1).view(-1, 1, 1, 1, 1).expand(-1, 3, 64, 25, 1)
    )
    rows = []
    for clip in range(180):
        body = plain.x[clip, :, 0, :, 0]
        left = body[:, NTU25.index("left_shoulder")] - body[:, NTU25.index("right_shoulder")]
        up = body[:, NTU25.index("spine")] - body[:, NTU25.index("spine_base")]
        axes = torch.nn.functional.normalize(
            torch.stack([left, up, torch.linalg.cross(left, up)]), dim=1
        )
        at = axes @ motion[clip, ..., 0].flatten(1)  # (3, T * V)
        at = at.view(3, 64, 25)[:, :, [NTU25.index(name) for name in TOLD]]
        amount = [value for part in (at.std(1), at.diff(dim=1).std(1)) for value in paired(part)]
        rows.append(torch.cat(amount))
    return torch.stack(rows), torch.tensor(labels)


def paired(values: Tensor) -> list[Tensor]:
    """(3, joints told): the head, then of each pair the side that moves more and the other."""
    out = [values[:, 0]]
    for joint in range(1, values.shape[1], 2):
        sides = values[:, joint : joint + 2]
        out += list(sides[:, sides.norm(dim=0).argsort(descending=True)].T)
    return out


def nearest(train: tuple[Tensor, Tensor], test: Tensor) -> Tensor:
    scale = train[0].std(0) + 1e-3
    return train[1][torch.cdist(test / scale, train[0] / scale).argmin(1)]


def test_every_class_has_a_cue_of_its_own_and_shuffled_ones_are_of_other_classes() -> None:
    train = statistics(0, shuffled=False)
    own, labels = statistics(1, shuffled=False)
    assert (nearest(train, own) == labels).float().mean() > 0.97
    shown = nearest(train, statistics(1, shuffled=True)[0])
    assert (shown == labels).float().mean() < 0.02
    assert len(shown.unique()) == 18
    seen = {label: set(shown[labels == label].tolist()) for label in range(18)}
    assert seen[WALK] == {RUN, CLAP, JUMP, SHAKE}
    assert min(len(others) for others in seen.values()) >= 3


@pytest.mark.parametrize("persons", [1, 2])
def test_a_shuffled_cue_moves_nothing_that_is_critical(persons: int) -> None:
    data = SyntheticActions(num_persons=persons)
    for label in range(data.num_classes):
        plain, motion = added([label] * 30, True, num_persons=persons)
        moved = motion.norm(dim=1).amax(1) > 0.01  # (N, V, M)
        assert moved.any(1).sum(1).eq(1).all()  # one person
        assert not (moved & plain.critical.any(2).mT).any()


def test_a_limb_that_is_touched_or_stands_alone_shows_no_cue() -> None:
    for label in (0, TOUCH_NECK):
        _, motion = added([label] * 60, True)
        assert motion[:, :, :, NTU25.index("head")].abs().max() < 0.01
    _, motion = added([10] * 60, True)  # kick
    assert (
        motion[:, :, :, [NTU25.index(f"{s}_{p}") for s in ("left", "right") for p in LEG]]
        .abs()
        .max()
        < 0.01
    )
    _, motion = added([BOW] * 60, True)  # whose shoulders are critical
    assert (
        motion[:, :, :, [NTU25.index(f"{s}_{p}") for s in ("left", "right") for p in ARM]]
        .abs()
        .max()
        < 0.01
    )


@settings(max_examples=10, deadline=None)
@given(label=st.integers(0, 17), seed=st.integers(0, 2**31), shuffled=st.booleans())
def test_bones_stay_rigid(label: int, seed: int, shuffled: bool) -> None:
    batch = clips([label] * 4, 1.0, seed, shuffled, distraction=1.0)
    child, parent = torch.tensor(NTU25.bones).T
    bones = (batch.x[:, :, :, child] - batch.x[:, :, :, parent]).norm(dim=1)  # (N, T, bones, M)
    assert (bones.amax(1) - bones.amin(1)).max() < 1e-4


FREE = list(range(6))  # classes of one acting arm, in which the other limbs only idle


def probe_input(
    seed: int, shortcut: float, shuffled: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Make clips with noise and idle motion; return the power of limbs' distances at either rate.

    The limbs are those that do not act.
    """
    labels = [FREE[k % 6] for k in range(240)]
    batch = SyntheticActions(shortcut=shortcut, missing=0.0).generate(
        240, seed=seed, labels=labels, shuffle_shortcut=shuffled
    )
    at = batch.x[..., 0].double().numpy()  # (N, C, T, V)
    rows = []
    for clip in range(240):
        acts = "left" if batch.critical[clip, 0, :, NTU25.index("left_wrist")].any() else "right"
        free = "right" if acts == "left" else "left"
        pairs = [
            (f"{free}_hand", "spine_base"),
            (f"{free}_hand", f"{free}_shoulder"),
            (f"{free}_hand", f"{acts}_hip"),
        ]
        pairs += [
            (f"{free}_ankle", f"{free}_hip"),
            (f"{free}_ankle", f"{acts}_ankle"),
            ("head", f"{free}_shoulder"),
        ]
        gaps = [
            np.linalg.norm(at[clip, :, :, NTU25.index(a)] - at[clip, :, :, NTU25.index(b)], axis=0)
            for a, b in pairs
        ]
        # (6, T / 2 + 1)
        power = np.abs(np.fft.rfft(np.stack([gap - gap.mean() for gap in gaps]))) ** 2
        rows.append(np.log(np.concatenate([power[:, 2:5].sum(1), power[:, 5:8].sum(1)]) + 1e-4))
    return np.stack(rows), np.array(labels)


def test_a_linear_probe_of_the_limbs_that_do_not_act_learns_the_cues() -> None:
    def fit(shortcut: float) -> NDArray[np.float64]:
        values, labels = probe_input(0, shortcut, False)
        design = np.c_[values, np.ones(len(values))]
        return np.asarray(np.linalg.lstsq(design, np.eye(6)[labels], rcond=None)[0])

    def accuracy(weights: NDArray[np.float64], shortcut: float, shuffled: bool = False) -> float:
        values, labels = probe_input(1, shortcut, shuffled)
        return float((np.argmax(np.c_[values, np.ones(len(values))] @ weights, 1) == labels).mean())

    chance = 1 / 6
    cued = fit(1.0)
    # Without cues nothing is to be learned there.
    assert accuracy(fit(0.0), 0.0) == pytest.approx(chance, abs=0.1)
    assert accuracy(cued, 1.0) > 0.85
    assert accuracy(cued, 0.0) == pytest.approx(chance, abs=0.1)
    assert accuracy(cued, 1.0, shuffled=True) < chance + 0.1


@pytest.mark.parametrize("shortcut", [-0.1, 1.1, float("nan")])
def test_a_probability_outside_of_0_to_1(shortcut: float) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"SyntheticActions: expected shortcut in 0..1, got {shortcut}")
    ):
        SyntheticActions(shortcut=shortcut)
