"""Generated actions: the right motion, the right truth, the same bits."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skeleton_focus.clips import Batch
from skeleton_focus.layouts import COCO17, KINECT20, NTU25, NTU25_PYSKL, OPENPOSE18, SkeletonLayout
from skeleton_focus.synthetic import SyntheticActions

LAYOUTS = [NTU25, NTU25_PYSKL, KINECT20, OPENPOSE18, COCO17]
CLEAN: dict[str, Any] = {"noise": 0.0, "missing": 0.0, "distraction": 0.0}
TOUCHES = (0, 1)
WALK = 6
RUN = 7
SIT = 8
STAND = 9
KICK = 10
JUMP = 14
ARM = ("elbow", "wrist", "hand", "hand_tip", "thumb")


def clips(name_or_label: int, count: int = 12, seed: int = 0, **options: Any) -> Batch:
    return SyntheticActions(**{**CLEAN, **options}).generate(
        count, seed=seed, labels=[name_or_label] * count
    )


def joint(batch: Batch, name: str, person: int = 0) -> Tensor:
    """(N, C, T) of one joint of NTU25."""
    return batch.x[:, :, :, NTU25.index(name), person]


def distance(batch: Batch, one: str, other: str) -> Tensor:
    """(N, T) between two joints of the first person."""
    gap: Tensor = torch.linalg.vector_norm(joint(batch, one) - joint(batch, other), dim=1)
    return gap


def acting_side(batch: Batch, clip: int) -> str:
    return next(
        s for s in ("left", "right") if batch.critical[clip, 0, :, NTU25.index(f"{s}_wrist")].any()
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("persons", [1, 2, 3])
def test_shapes_and_types_on_every_layout(layout: SkeletonLayout, persons: int) -> None:
    data = SyntheticActions(layout, frames=20, num_persons=persons)
    batch = data.generate(40, seed=3)
    joints = layout.num_joints
    assert batch.x.shape == (40, 3, 20, joints, persons) and batch.x.dtype == torch.float32
    assert (
        batch.visibility.shape == (40, 20, joints, persons)
        and batch.visibility.dtype == torch.float32
    )
    assert (
        batch.critical.shape == (40, persons, 20, joints) and batch.critical.dtype == torch.float32
    )
    assert batch.label.shape == (40,) and batch.label.dtype == torch.int64
    assert batch.lengths.tolist() == [20] * 40 and batch.lengths.dtype == torch.int64
    assert all(part.is_contiguous() for part in batch)
    # Metres, not degrees or millimetres.
    assert batch.x.isfinite().all() and batch.x.abs().max() < 4
    assert all(((part == 0) | (part == 1)).all() for part in (batch.critical, batch.visibility))
    assert (batch.x[:, 0][batch.visibility == 0] == 0).all()
    assert batch.critical.flatten(1).any(1).all()


def test_classes() -> None:
    one = SyntheticActions(num_persons=1)
    two = SyntheticActions()
    assert (
        one.num_classes == len(one.classes) == 15 and two.num_classes == len(set(two.classes)) == 18
    )
    assert two.classes[:15] == one.classes
    assert [two.classes[c] for c in (*TOUCHES, WALK, RUN, SIT, STAND, KICK, JUMP)] == [
        "touch head",
        "touch neck",
        "walk",
        "run",
        "sit down",
        "stand up",
        "kick",
        "jump",
    ]


def test_labels_are_balanced_and_shuffled() -> None:
    label = SyntheticActions(frames=16).generate(41, seed=5).label
    counts = label.bincount(minlength=18)
    assert counts.min() == 2 and counts.max() == 3
    assert label.tolist() != [k % 18 for k in range(41)]


@pytest.mark.parametrize(
    "labels", [[3, 1, 17], torch.tensor([3, 1, 17]), np.array([3, 1, 17])], ids=type
)
def test_labels_as_given(labels: Any) -> None:
    assert SyntheticActions(frames=16).generate(3, seed=0, labels=labels).label.tolist() == [
        3,
        1,
        17,
    ]


def test_the_same_seed_gives_the_same_bits_and_leaves_global_state_alone() -> None:
    data = SyntheticActions(frames=16)
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first = data.generate(300, seed=4)  # two blocks
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]
    torch.manual_seed(2)
    np.random.seed(2)
    second = SyntheticActions(frames=16).generate(300, seed=4)
    other = data.generate(300, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.x, other.x) and not torch.equal(first.label, other.label)
    same = clips(0, 512, frames=16)  # the second block is not the first again
    assert not torch.allclose(same.x[0], same.x[256], atol=0.01)


@settings(max_examples=10, deadline=None)
@given(label=st.integers(0, 17), seed=st.integers(0, 2**31))
def test_bones_are_rigid(label: int, seed: int) -> None:
    batch = clips(label, 4, seed, distraction=2.0)
    child, parent = torch.tensor(NTU25.bones).T
    bones = (batch.x[:, :, :, child] - batch.x[:, :, :, parent]).norm(dim=1)  # (N, T, bones, M)
    # The rig has no bone between thumb and hand tip of its own, but both are fixed to the hand.
    assert (bones.amax(1) - bones.amin(1)).max() < 1e-4
    assert bones[..., 0].min() > 0.01


@pytest.mark.parametrize(("label", "target", "other"), [(0, "head", "neck"), (1, "neck", "head")])
def test_the_hand_touches(label: int, target: str, other: str) -> None:
    batch = clips(label, 40)
    for clip in range(40):
        hand = f"{acting_side(batch, clip)}_hand"
        near = distance(batch, hand, target)[clip]
        far = distance(batch, hand, other)[clip]
        assert near.min() < 0.05 and far.min() > 0.08
        assert near[0] > 0.4  # it starts from the hanging arm


def test_the_touches_differ_in_the_arm_alone() -> None:
    head = clips(0)
    neck = clips(1)
    assert torch.equal(head.critical, neck.critical)
    moved = (head.x - neck.x).norm(dim=1)[..., 0].amax(1) > 1e-6  # (N, V)
    for clip in range(len(moved)):
        side = acting_side(head, clip)
        names = {NTU25.joints[j] for j in moved[clip].nonzero().flatten().tolist()}
        assert names == {f"{side}_{part}" for part in ARM}


def periods(batch: Batch) -> Tensor:
    """(N,) how often the distance between the ankles changes its course."""
    gap = distance(batch, "left_ankle", "right_ankle")
    step = gap.diff(dim=1)
    step = step * (step.abs() > 1e-4)
    return torch.tensor([(row[row != 0].sign().diff() != 0).sum().item() for row in step])


def test_walk_and_run_differ_in_cadence_and_not_in_amplitude() -> None:
    walk = clips(WALK, 40, frames=128)
    run = clips(RUN, 40, frames=128)
    assert periods(run).float().mean() > 1.5 * periods(walk).float().mean()
    width = [distance(batch, "left_ankle", "right_ankle").amax(1) for batch in (walk, run)]
    assert (width[0] / width[1] - 1).abs().mean() < 0.1
    assert torch.equal(walk.critical, run.critical)


def test_standing_up_is_sitting_down_in_reverse() -> None:
    sit = clips(SIT, 6, frames=256)
    stand = clips(STAND, 6, frames=256)
    bones = [joint(batch, "head") - joint(batch, "left_ankle") for batch in (sit, stand)]
    for clip in range(6):
        window = sit.critical[clip, 0].any(1).nonzero().flatten()
        down, up = (bone[clip][:, window] for bone in bones)
        assert (down - up.flip(1)).abs().max() < 0.03  # the window's ends fall between two frames
        assert down[1, 0] - down[1, -1] > 0.2
        assert (down - up).abs().max() > 0.2


def test_feet_stand_on_the_floor_but_for_the_jump() -> None:
    # The camera's pitch tilts the floor, so heights are measured along the first frame's spine.
    for label, leaves in ((WALK, False), (JUMP, True)):
        batch = clips(label, 20)
        up = (joint(batch, "spine") - joint(batch, "spine_base"))[:, :, 0]
        feet = torch.stack(
            [joint(batch, f"{s}_{name}") for s in ("left", "right") for name in ("ankle", "foot")]
        )
        # (N, T)
        height = torch.einsum("jnct,nc->jnt", feet, up / up.norm(dim=1, keepdim=True)).amin(0)
        rise = (height - height[:, :1]).abs().amax(1)
        assert rise.min() > 0.2 if leaves else rise.max() < 1e-4


@pytest.mark.parametrize(
    ("label", "feet"), [(SIT, ("left", "right")), (13, ("left", "right")), (KICK, ())]
)
def test_planted_feet_stay(label: int, feet: tuple[str, ...]) -> None:
    batch = clips(label, 20)
    ankle = {side: joint(batch, f"{side}_ankle") for side in ("left", "right")}
    slip = {side: (at - at[:, :, :1]).norm(dim=1) for side, at in ankle.items()}
    assert all(slip[side].max() < 0.02 for side in feet)
    if label == KICK:  # one foot stays, the other flies
        both = torch.stack([slip["left"].amax(1), slip["right"].amax(1)])
        assert both.amin(0).max() < 0.02 and both.amax(0).min() > 0.3


@pytest.mark.parametrize("label", range(18))
def test_critical_lies_in_one_window_on_named_joints(label: int) -> None:
    batch = clips(label)
    parts = {
        **dict.fromkeys((0, 1, 2, 3, 4, 5, 11, 12, 15, 16), ARM),
        **dict.fromkeys((6, 7), (*ARM, "knee", "ankle", "foot")),
        **dict.fromkeys((8, 9), ("hip", "knee", "spine_base")),
        **dict.fromkeys((10, 14), ("knee", "ankle", "foot")),
        13: ("shoulder", "upper_spine", "neck", "head"),
        17: (*ARM, "shoulder", "upper_spine", "neck", "head"),
    }
    allowed = {
        j
        for j, name in enumerate(NTU25.joints)
        if {name, name.split("_", 1)[-1]} & set(parts[label])
    }
    persons = 2 if label >= 15 else 1
    for clip in range(12):
        for person in range(persons):
            truth = batch.critical[clip, person]
            frames = truth.any(1).nonzero().flatten()
            joints = set(truth.any(0).nonzero().flatten().tolist())
            assert joints and joints <= allowed
            # Every critical joint, all through the window.
            assert truth.sum() == len(frames) * len(joints)
            assert frames[0] > 0 and frames[-1] < 63 and (frames.diff() == 1).all()
            still = torch.cat(
                [
                    batch.x[clip, :, : frames[0], :, person].diff(dim=1).flatten(),
                    batch.x[clip, :, frames[-1] + 1 :, :, person].diff(dim=1).flatten(),
                ]
            )
            assert still.abs().max() < 1e-5  # nothing happens outside the window
        assert not batch.critical[clip, persons:].any() and not batch.x[clip, ..., persons:].any()
        assert (
            not batch.visibility[clip, ..., persons:].any()
            and batch.visibility[clip, ..., :persons].all()
        )


@pytest.mark.parametrize("label", [0, 1, 2, 3, 4, 5, 12])
def test_what_an_arm_gesture_does_not_need_stays_still(label: int) -> None:
    batch = clips(label)
    travel = (batch.x - batch.x[:, :, :1]).norm(dim=1).amax(1)[..., 0]  # (N, V)
    critical = batch.critical[:, 0].any(1)
    assert travel[~critical].max() < 1e-5
    assert travel[critical].min() > 0.02


def test_raised_hands_are_left_and_right() -> None:
    left = clips(2, 30)
    right = clips(3, 30)
    assert {acting_side(left, clip) for clip in range(30)} == {"left"}
    assert {acting_side(right, clip) for clip in range(30)} == {"right"}
    assert {acting_side(clips(0, 30), clip) for clip in range(30)} == {"left", "right"}


@pytest.mark.parametrize("label", [0, 3, 6, 17])
def test_left_is_left(label: int) -> None:
    batch = clips(label, 30)
    for person in range(2 if label == 17 else 1):
        left = joint(batch, "left_shoulder", person) - joint(batch, "right_shoulder", person)
        up = joint(batch, "spine", person) - joint(batch, "spine_base", person)
        toes = joint(batch, "left_foot", person) - joint(batch, "left_ankle", person)
        ahead = torch.linalg.cross(left, up, dim=1)
        assert ((ahead * toes).sum(1)[:, 0] > 0).all()


def test_clapping_hands_meet_and_part() -> None:
    gap = distance(clips(12, 30), "left_hand", "right_hand")
    assert gap.amin(1).max() < 0.12
    middle = gap[:, 16:48]
    assert (middle.diff(dim=1).sign().diff(dim=1) != 0).sum(1).min() >= 2


def test_hands_meet_and_either_slot_pushes() -> None:
    shake = clips(15, 30)
    gaps = [shake.x[:, :, :, NTU25.index(f"{s}_hand")] for s in ("left", "right")]
    meet = torch.stack([(hand[..., 0] - hand[..., 1]).norm(dim=1).amin(1) for hand in gaps]).amin(0)
    assert meet.max() < 0.12
    push = clips(17, 30)
    pushes = push.critical[..., NTU25.index("left_wrist")].any(2)  # (N, M)
    assert (pushes.sum(1) == 1).all() and 5 < pushes[:, 0].sum() < 25
    # (N, M), the pusher stands on either side of the picture.
    pelvis = push.x[:, 0, 0, NTU25.index("spine_base")]
    assert 5 < (pelvis[pushes] > pelvis[~pushes]).sum() < 25


def test_distraction_moves_what_is_never_critical() -> None:
    calm = clips(0, 30)
    busy = clips(0, 30, distraction=1.0)
    assert torch.equal(calm.critical, busy.critical)
    for clip in range(30):
        hand = "left_hand" if acting_side(busy, clip) == "right" else "right_hand"
        idle = joint(busy, hand)[clip] - joint(calm, hand)[clip]
        assert idle.abs().max() > 0.005
        side = acting_side(busy, clip)  # the acting arm bends as it would without
        bend, same = (
            distance(batch, f"{side}_shoulder", f"{side}_hand")[clip] for batch in (calm, busy)
        )
        assert torch.allclose(bend, same, atol=1e-5)
    assert (joint(busy, "head") - joint(busy, "spine_base")).std(dim=2).mean() < 0.06


def test_missing_joints_are_runs_that_are_not_critical() -> None:
    data = SyntheticActions(missing=0.5, num_persons=1)
    batch = data.generate(60, seed=1)
    whole = SyntheticActions(missing=0.0, num_persons=1).generate(60, seed=1)
    seen = batch.visibility[..., 0]
    assert (batch.x[..., 0][(seen == 0)[:, None].expand(-1, 3, -1, -1)] == 0).all()
    assert torch.equal(batch.critical[:, 0], whole.critical[:, 0] * seen)
    assert not torch.equal(batch.critical, whole.critical)
    assert (seen.diff(dim=1) < 0).sum(1).max() == 1  # at most one run
    lost = (seen == 0).any(1).float().mean()
    assert 0.42 < lost < 0.58
    always = SyntheticActions(missing=1.0, num_persons=1).generate(4, seed=0)
    assert (always.visibility == 0).any(1).all() and (always.visibility.mean(1) > 0.4).all()


def test_noise_is_metres() -> None:
    clean = clips(13, 20)
    noisy = clips(13, 20, noise=0.02)
    assert (noisy.x - clean.x)[..., 0].std().item() == pytest.approx(0.02, rel=0.02)
    assert not noisy.x[..., 1].any()


def test_the_label_changes_nothing_but_the_class() -> None:
    bow = clips(13)
    kick = clips(10)
    window = [batch.critical[:, 0].any(2) for batch in (bow, kick)]
    assert torch.equal(*window)
    assert torch.allclose(joint(bow, "head")[:, :, 0], joint(kick, "head")[:, :, 0], atol=1e-6)


def test_layouts_agree() -> None:
    ntu = clips(4, 6)
    kinect = clips(4, 6, layout=KINECT20)
    assert torch.equal(ntu.x[:, :, :, :20], kinect.x) and torch.equal(
        ntu.critical[..., :20], kinect.critical
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("persons", [1, 2])
def test_critical_joints_are_those_of_the_clips(layout: SkeletonLayout, persons: int) -> None:
    data = SyntheticActions(layout, frames=16, num_persons=persons, missing=0.0)
    assert tuple(data.critical_joints) == data.classes
    for label, joints in enumerate(data.critical_joints.values()):
        batch = data.generate(24, seed=0, labels=[label] * 24)
        found = batch.critical.any(2).any(1).any(0)  # (V,)
        assert joints == tuple(layout.joints[joint] for joint in found.nonzero().flatten().tolist())


def test_critical_joints_of_one_hand_and_of_either() -> None:
    joints = SyntheticActions(KINECT20).critical_joints
    left = ("left_elbow", "left_wrist", "left_hand")
    right = ("right_elbow", "right_wrist", "right_hand")
    assert joints["raise left hand"] == left and joints["raise right hand"] == right
    assert joints["touch head"] == left + right
    assert set(joints["push"]) == {*left, *right, "neck", "head", "left_shoulder", "right_shoulder"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"layout": SkeletonLayout.from_bones([(0, 1)], name="odd", joints=["head", "tail"])},
            r"layout 'odd' .*tail",
        ),
        (
            {"layout": SkeletonLayout.from_bones([(0, 1)])},
            r"'left_thumb'.*got \['joint_0', 'joint_1'\]",
        ),
        ({"frames": 15}, "frames of at least 16, got 15"),
        ({"num_persons": 0}, "num_persons of at least 1, got 0"),
        ({"noise": -0.1}, "noise of at least 0 metres, got -0.1"),
        ({"noise": float("nan")}, "noise of at least 0 metres, got nan"),
        ({"missing": 1.5}, "missing in 0..1, got 1.5"),
        ({"distraction": -1.0}, "distraction of at least 0, got -1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SyntheticActions(**options)


@pytest.mark.parametrize(
    ("count", "seed", "labels", "words"),
    [
        (0, 0, None, "num_clips of at least 1, got 0"),
        (2, -1, None, "a seed of at least 0, got -1"),
        (2, 0, [1], re.escape("labels (N=2), got (1,)")),
        (2, 0, [1, 18], re.escape("labels in 0..17, got [18]")),
        (2, 0, [-1, 3], re.escape("labels in 0..17, got [-1]")),
        (2, 0, [0.5, 1.0], "integer labels, got float64"),
    ],
)
def test_bad_requests(count: int, seed: int, labels: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SyntheticActions().generate(count, seed=seed, labels=labels)
