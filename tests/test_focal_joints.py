"""Focal joints and body parts against loops from the paper."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import reference_attention as reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw
from torch import nn
from torch.autograd import gradcheck

from skeleton_focus import (
    KINECT20,
    NTU25,
    FocalJointSelection,
    PartEncoding,
    ScatterToJoints,
)
from skeleton_focus.focal_joints import scatter_to_joints
from skeleton_focus.layouts import LAYOUTS


def selection(channels: int, kept: int, **options: str) -> FocalJointSelection:
    torch.manual_seed(0)
    return FocalJointSelection(channels, kept, **options).double()


@pytest.mark.parametrize("kept", [1, 3, 5, 9])
@pytest.mark.parametrize("gate", ["score", "none"])
@pytest.mark.parametrize("order", ["joint", "score"])
def test_equations_2_and_3_by_loops(kept: int, gate: str, order: str) -> None:
    layer = selection(4, kept, gate=gate, order=order)
    x = draw(2, 4, 3, 5)
    features, joints, scores = reference.focal_joints(
        x.numpy(), layer.weight.detach().numpy(), kept, gate, order
    )
    got = layer(x)
    np.testing.assert_array_equal(got.joints.numpy(), joints)
    np.testing.assert_allclose(got.features.detach().numpy(), features, atol=1e-12)
    np.testing.assert_allclose(got.scores.detach().numpy(), scores, atol=1e-12)


def test_the_projection_is_trained_by_default_and_would_not_be_as_printed() -> None:
    for gate, trained in (("score", True), ("none", False)):
        layer = selection(4, 3, gate=gate)
        x = draw(2, 4, 3, 5).requires_grad_()
        layer(x).features.square().sum().backward()
        assert x.grad is not None and x.grad.any()
        assert (layer.weight.grad is not None and bool(layer.weight.grad.any())) == trained


@pytest.mark.parametrize("kept", [5, 7])
def test_as_many_slots_as_joints_selects_nothing(kept: int) -> None:
    x = draw(2, 4, 3, 5)
    for gate in ("none", "score"):
        features, joints, scores = selection(4, kept, gate=gate)(x)
        assert torch.equal(joints, torch.arange(5).expand(2, 3, 5))
        torch.testing.assert_close(features, x if gate == "none" else x * scores[:, None])


def test_ties_go_to_the_first_joints() -> None:
    for order in ("joint", "score"):
        joints = selection(4, 3, order=order)(torch.ones(1, 4, 2, 300).double()).joints
        assert torch.equal(joints, torch.arange(3).expand(1, 2, 3))
    x = torch.tensor([0.0, 5, 1, 5, 1, 0]).double().view(1, 1, 1, 6)
    layer = FocalJointSelection(1, 3, order="score").double()
    nn.init.ones_(layer.weight)
    assert layer(x).joints.flatten().tolist() == [1, 3, 2]
    x = draw(4, 1, 8, 25).round()
    assert torch.equal(
        layer(x).joints, x[:, 0].argsort(dim=2, descending=True, stable=True)[..., :3]
    )


def test_saturated_and_rounded_scores_do_not_tie() -> None:
    layer = FocalJointSelection(1, 2, order="score")
    nn.init.ones_(layer.weight)
    kept = layer(torch.tensor([20.0, 18, 40, 30]).view(1, 1, 1, 4))
    assert (
        kept.joints.flatten().tolist() == [2, 3] and kept.scores[..., 2] == kept.scores[..., 3] == 1
    )
    kept = layer.bfloat16()(torch.tensor([6.5, 7, 9, 8]).bfloat16().view(1, 1, 1, 4))
    assert (
        kept.joints.flatten().tolist() == [2, 3]
        and kept.features.dtype == kept.scores.dtype == torch.bfloat16
    )


def test_autocast_selects_the_same_joints() -> None:
    layer = selection(64, 5).float()
    x = draw(4, 64, 16, 12).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x).joints, layer.double()(x.double()).joints)


def test_slots_of_the_same_joint_add_up() -> None:
    slots = torch.tensor([3.0, 2.0]).view(1, 1, 1, 2)
    first = torch.zeros(1, 1, 2, dtype=torch.long)
    assert scatter_to_joints(slots, first, 3).flatten().tolist() == [5, 0, 0]


def test_the_length_of_the_projection_does_not_matter() -> None:
    layer = selection(4, 3)
    x = draw(2, 4, 3, 5)
    longer = copy.deepcopy(layer)
    with torch.no_grad():
        longer.weight.mul_(7)
    torch.testing.assert_close(longer(x).features, layer(x).features)


@given(order=st.permutations(range(6)), kept=st.integers(1, 6))
def test_relabelling_joints_keeps_the_same_joints(order: list[int], kept: int) -> None:
    layer = selection(4, kept, order="score")
    x = draw(2, 4, 3, 6)
    whole = layer(x)
    relabelled = layer(x[..., order])
    torch.testing.assert_close(relabelled.features, whole.features)
    torch.testing.assert_close(torch.tensor(order)[relabelled.joints], whole.joints)


@given(kept=st.integers(1, 6), frames=st.integers(1, 4))
def test_scatter_brings_slots_back(kept: int, frames: int) -> None:
    x = draw(2, 4, frames, 6)
    features, joints, _ = selection(4, kept, gate="none")(x)
    back = scatter_to_joints(features, joints, 6)
    here = torch.zeros(2, frames, 6, dtype=torch.bool)
    for n in range(2):
        for t in range(frames):
            for j in joints[n, t].tolist():
                here[n, t, j] = True
    assert here.sum() == 2 * frames * kept
    assert torch.equal(back, x * here[:, None])
    assert torch.equal(ScatterToJoints(6)(features, joints), back)


@pytest.mark.parametrize("parts", [[[0, 1], [2]], [[4, 0, 2], [1, 1], [3]], [[2]]])
def test_part_encoding_by_loops(parts: list[list[int]]) -> None:
    torch.manual_seed(0)
    layer = PartEncoding(3, 4, parts).double()
    x = draw(2, 3, 2, 5)
    weight = layer.linear.weight.detach().numpy()
    bias = layer.linear.bias.detach().numpy()
    expected = reference.part_encoding(x.numpy(), weight, bias, parts)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)
    assert gradcheck(layer, x.requires_grad_())


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_parts_of_every_layout(name: str) -> None:
    layout = LAYOUTS[name]
    joints = [joint for part in layout.parts.values() for joint in part]
    assert sorted(joints) == list(range(layout.num_joints)), "each joint in one part"
    trunkless = layout.name in ("COCO17", "MEDIAPIPE33", "PENN13")
    assert len(layout.parts) == (9 if trunkless else 10)
    y = PartEncoding(3, 4, layout.parts.values())(torch.zeros(2, 3, 4, layout.num_joints))
    assert y.shape == (2, 4, 4, len(layout.parts))


def test_parts_by_hand() -> None:
    assert NTU25.parts["left_hand"] == (6, 7, 21, 22) and KINECT20.parts["left_hand"] == (6, 7)
    layer = PartEncoding(1, 1, [[0, 1, 2], [3]])
    nn.init.ones_(layer.linear.weight)
    nn.init.zeros_(layer.linear.bias)
    assert layer(torch.tensor([1.0, 10, 100, 1000]).view(1, 1, 1, 4)).flatten().tolist() == [
        111,
        1000,
    ]
    assert "parts=2" in repr(layer) and not [name for name in layer.state_dict() if "table" in name]


def test_errors() -> None:
    with pytest.raises(
        ValueError,
        match=r"^FocalJointSelection: expected at least 1 channel and 1 slot, got \(4, 0\)$",
    ):
        FocalJointSelection(4, 0)
    with pytest.raises(
        ValueError, match=r"expected gate to be one of 'score', 'none', got 'sigmoid'$"
    ):
        FocalJointSelection(4, 3, gate="sigmoid")
    with pytest.raises(
        ValueError, match=r"expected order to be one of 'joint', 'score', got 'time'$"
    ):
        FocalJointSelection(4, 3, order="time")
    with pytest.raises(
        ValueError, match=r"^FocalJointSelection: expected x \(N, C=4, T, V\), got \(2, 3, 5, 6\)$"
    ):
        FocalJointSelection(4, 3)(torch.zeros(2, 3, 5, 6))
    with pytest.raises(
        ValueError, match=r"^scatter_to_joints: expected joints \(N=2, T=5, K=3\), got \(2, 5, 4\)$"
    ):
        scatter_to_joints(torch.zeros(2, 4, 5, 3), torch.zeros(2, 5, 4, dtype=torch.long), 6)
    with pytest.raises(
        ValueError,
        match=r"^scatter_to_joints: expected at most 2 slots, one for each joint, got 3$",
    ):
        ScatterToJoints(2)(torch.zeros(2, 4, 5, 3), torch.zeros(2, 5, 3, dtype=torch.long))
    with pytest.raises(
        ValueError,
        match=r"^PartEncoding: expected at least one part, and joints in each, "
        r"got \[\[0\], \[\]\]$",
    ):
        PartEncoding(4, 3, [[0], []])
    for wrong in ([[-1]], [[0.5, 1]], {"hand": (1, 2)}):
        with pytest.raises(
            ValueError,
            match=r"^PartEncoding: expected joints as numbers from 0, got .*parts.values",
        ):
            PartEncoding(4, 3, wrong)
    with pytest.raises(
        ValueError, match=r"^PartEncoding: expected x with at least 20 joints, got 17$"
    ):
        PartEncoding(4, 3, KINECT20.parts.values())(torch.zeros(2, 4, 5, 17))
    with pytest.raises(
        ValueError, match=r"^PartEncoding: expected x \(N, C=4, T, V\), got \(2, 3, 5, 20\)$"
    ):
        PartEncoding(4, 3, KINECT20.parts.values())(torch.zeros(2, 3, 5, 20))
