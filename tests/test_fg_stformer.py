"""examples/fg_stformer.py: the network, its ablations, and STF on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import explain
import numpy as np
import pytest
import reference_attention as reference
import torch
from fg_stformer import FGSTFormer
from layer_tools import filled, learn, weights
from recipe import PRESETS, Recipe, build_network, explained
from torch import Tensor

from skeleton_focus import KINECT20, NTU25, STFLoss, STFObjective
from skeleton_focus.feature_tap import FeatureTap

SMALL: dict[str, Any] = {
    "widths": (6, 6, 12, 12),
    "strides": (1, 2, 1, 1),
    "stages": (2, 2),
    "focal_joints": 7,
}
STF: dict[str, Any] = {"layers": ["stage1", "on_joints"], "head": None}


def small(**options: Any) -> FGSTFormer:
    torch.manual_seed(0)
    return FGSTFormer(5, KINECT20, **{**SMALL, **options})


def test_the_paper_s_sizes() -> None:
    network = FGSTFormer(60, NTU25)
    assert [block[1].out_channels for block in network.stage1] == [64, 64, 128, 128, 256, 256]
    assert [block[1].stride for block in network.stage1] == [1, 1, 2, 1, 2, 1]
    assert len(network.stage2) == 2 and network.select.num_focal == 15 and len(NTU25.parts) == 10
    layer = network.stage2[0]
    assert layer.joint_attention.heads == layer.cross.heads == 3
    values = layer.joint_temporal.values
    assert [conv.dilation[0] for conv in values] == [1, 2] and values[0].kernel_size == (7, 1)


ABLATIONS: dict[str, dict[str, Any]] = {
    "whole": {},
    "table 1, A": {"parts": False},
    "table 1, B": {"cross": False},
    "table 1, baseline": {"parts": False, "focal_joints": 0},
    "table 2": {"focal_joints": 3},
    "table 3, attention alone": {"convolution": False},
    "table 3, convolution alone": {"attention": False},
    "table 4": {"stages": (3, 1)},
    "table 4, strides in stage 2": {"stages": (1, 3)},
    "A_g for each head": {"shared_map": "per_head"},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_train(name: str) -> None:
    network = small(**ABLATIONS[name])
    x = torch.randn(3, 3, 9, 20, 2)
    logits = network.double()(x.double())
    assert logits.shape == (3, 5)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    still = {
        n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12
    }
    # A softmax does not feel a constant in its keys, nor BatchNorm one in what it normalises.
    dead = {
        n
        for n, _ in network.named_parameters()
        if n.endswith("keys.bias") or (".values." in n and "bias" in n)
    }
    assert still <= dead, still - dead
    kinds = {type(module).__name__ for module in network.modules()}
    assert ("JointPartAttention" in kinds) == (
        name not in ("table 1, A", "table 1, B", "table 1, baseline")
    )
    assert ("FocalJointSelection" in kinds) == (name != "table 1, baseline")
    assert ("PartEncoding" in kinds) == (name not in ("table 1, A", "table 1, baseline"))


def test_ablations_are_flags() -> None:
    """Every option of the network is an option of the recipe, and does there what it does here."""
    layout = KINECT20
    preset = Recipe(**PRESETS["synthetic_fg_stformer"])
    plain = build_network(preset, 5, 1, layout)
    for change in (
        {"focal_joints": 0},
        {"parts": False},
        {"cross": False},
        {"attention": False},
        {"convolution": False},
        {"stages": (2, 2)},
        {"shared_map": "per_head"},
    ):
        changed = replace(preset, network={**preset.network, **change})
        built = build_network(changed, 5, 1, layout)
        sizes = {"widths": (24, 24, 48, 48), "strides": (1, 2, 1, 1), "stages": (3, 1)}
        expected = FGSTFormer(5, layout, in_channels=4, **{**sizes, **change})
        assert repr(built) == repr(expected) != repr(plain)
    assert explained(preset, plain) == (STF["layers"], STF["head"])


@pytest.mark.parametrize(("frames", "persons"), [(1, 1), (2, 1), (7, 3)])
def test_any_length_and_any_number_of_bodies(frames: int, persons: int) -> None:
    network = small().eval()
    x = torch.randn(2, 3, frames, 20, persons)
    assert network(x).isfinite().all()


def test_missing_joints_and_an_absent_body_are_finite() -> None:
    network = small().eval()
    x = torch.randn(2, 3, 8, 20, 2)
    x[..., 5:9, :] = 0
    x[..., 1] = 0
    assert network(x).isfinite().all() and network(0 * x).isfinite().all()


def test_a_sample_does_not_depend_on_its_batch() -> None:
    network = small().eval().double()
    x = torch.randn(3, 3, 8, 20, 2).double()
    whole = network(x)
    for n in range(3):
        torch.testing.assert_close(network(x[n : n + 1]), whole[n : n + 1], rtol=0, atol=1e-12)


def test_pooling_over_the_body_is_pooling_over_the_slots() -> None:
    network = small(parts=False).eval()
    x = torch.randn(2, 3, 8, 20, 1)
    with FeatureTap(network, ["stage2.1", "on_joints", "hidden"]) as tap:
        network(x)
    slots, _, _ = tap.output("stage2.1")
    assert slots.shape[3] == 7 and tap["on_joints"].shape[3] == 20
    torch.testing.assert_close(network.hidden(slots.mean((2, 3))), tap["hidden"])


@pytest.mark.parametrize("branch", [STFLoss.focus_branch, STFLoss.exploration_branch])
def test_stf_trains_it(branch: Any) -> None:
    network = small()
    objective = STFObjective(network, **STF, loss=branch())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    torch.manual_seed(1)
    x = torch.randn(6, 3, 8, 20, 2)
    target = torch.tensor([0, 1, 2, 3, 4, 0])
    losses, out = learn(objective, optimizer, x, target, steps=40, all_move=False)
    assert losses[-1] < 0.5 * losses[0]
    assert out.focus.shape == (6, 2, 8, 20)


def test_the_stf_terms_move_what_they_should() -> None:
    """The gradient of coherence and divergence alone goes through the attention of stage 2."""
    network = small().double()
    loss = STFLoss(coherence=1.0, divergence=0.0, exploration=0.0, adjacency=0.0)
    objective = STFObjective(network, **STF, loss=loss)
    torch.manual_seed(1)
    out = objective(torch.randn(4, 3, 8, 20, 1).double(), torch.tensor([0, 1, 2, 3]))
    out.terms["coherence"].backward()
    for name in (
        "stage1.0.0.project.linear",
        "stage2.0.joint_attention.project.linear",
        "stage2.1.joint_temporal.keys",
    ):
        assert network.get_submodule(name).weight.grad.abs().max() > 0, name


def test_the_focus_lies_on_the_selected_joints() -> None:
    network = small(strides=(1, 1, 1, 1)).eval()
    x = torch.randn(3, 3, 6, 20, 2)
    # Untrained logits may speak for no class.
    focus, _ = STFObjective(network, **STF, score="log_odds").explain(x)
    with FeatureTap(network, ["select"]) as tap:
        network(x)
    joints: Tensor = tap.output("select").joints  # (N*M, T, K)
    kept = torch.zeros(6, 6, 20).scatter(2, joints, 1.0).view(3, 2, 6, 20)
    assert focus.amax((1, 2, 3)).tolist() == [1, 1, 1]
    assert (focus * (1 - kept)).max() == 0


@pytest.mark.parametrize(
    ("stages", "shared_map"), [((2, 2), "one"), ((1, 3), "one"), ((2, 2), "per_head")]
)
def test_the_whole_network_by_loops(stages: tuple[int, int], shared_map: str) -> None:
    """Stage by stage, by the slow reference: two bodies, selected joints, branches, strides."""
    network = filled(small(stages=stages, shared_map=shared_map, focal_joints=4), scale=0.55)
    x = torch.randn(1, 3, 4, 20, 2).double()
    norm = weights(network.norm)
    embed = weights(network.embed)
    pooled = []
    for m in range(2):
        clip = x[0, ..., m].numpy()  # (C, T, V)
        scale = norm["weight"] / np.sqrt(norm["running_var"] + 1e-5)
        y = np.zeros_like(clip)
        for c in range(3):
            for v in range(20):
                i = c * 20 + v
                y[c, :, v] = (clip[c, :, v] - norm["running_mean"][i]) * scale[i] + norm["bias"][i]
        y = np.einsum("oc,ctv->otv", embed["weight"][:, :, 0, 0], y) + embed["bias"][:, None, None]
        y = y[None]
        for spatial, temporal in network.stage1:
            y = reference.spatial_attention(y, weights(spatial), 3)
            y = reference.equation_5(
                y, weights(temporal), (1, 2), temporal.stride, attention=True, convolution=True
            )
        encoding = weights(network.part_encoding)
        parts = reference.part_encoding(
            y, encoding["linear.weight"], encoding["linear.bias"], KINECT20.parts.values()
        )
        y, which, _ = reference.focal_joints(
            y, network.select.weight.detach().numpy(), 4, "score", "joint"
        )
        for layer in network.stage2:
            y = reference.spatial_attention(y, weights(layer.joint_attention), 3, which)
            parts = reference.spatial_attention(parts, weights(layer.part_attention), 3)
            y, parts = reference.joint_part_attention(y, parts, weights(layer.cross), 3)
            stride = layer.joint_temporal.stride
            both = {"attention": True, "convolution": True}
            y = reference.equation_5(y, weights(layer.joint_temporal), (1, 2), stride, **both)
            parts = reference.equation_5(
                parts, weights(layer.part_temporal), (1, 2), stride, **both
            )
            which = which[:, ::stride]
        pooled.append(np.concatenate([y[0].mean((1, 2)), parts[0].mean((1, 2))]))
    hidden = weights(network.hidden)
    last = weights(network.fc)
    middle = reference.leaky_relu(hidden["weight"] @ ((pooled[0] + pooled[1]) / 2) + hidden["bias"])
    logits = last["weight"] @ middle + last["bias"]
    assert np.abs(pooled[0] - pooled[1]).max() > 0.01
    np.testing.assert_allclose(network(x)[0].detach().numpy(), logits, atol=1e-10)


def test_the_picture_shows_the_person_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small().eval()
    t = 9
    x = torch.randn(1, 3, t, 20, 2)
    drawn: list[Any] = []
    monkeypatch.setattr(
        explain, "plot_joint_attention", lambda *given, **options: drawn.extend(given)
    )
    explain.draw_joint_attention(network, x, x[0], 1, layout=KINECT20)
    with FeatureTap(
        network, ["select", "part_encoding", "stage2.0.joint_attention", "stage2.0.part_attention"]
    ) as tap:
        network(x)
    kept = tap.output("select")
    to_parts, _ = network.stage2[0].cross.maps(
        tap["stage2.0.joint_attention"], tap["stage2.0.part_attention"]
    )
    at = torch.arange(t) // 2  # stage 2 sees every second frame
    for got, wanted in zip(
        drawn[1:], (kept.joints[1], kept.scores[1], to_parts[1].mean(0)), strict=True
    ):
        torch.testing.assert_close(got, wanted[at])
    assert not torch.equal(kept.joints[0], kept.joints[1])
    torch.testing.assert_close(drawn[0], x[0, ..., 1])


def test_errors() -> None:
    for wrong in ((2, 3, 8, 25, 1), (2, 2, 8, 20, 1), (2, 3, 8, 20)):
        with pytest.raises(
            ValueError, match=r"^FGSTFormer: expected x \(N, C=3, T, V=20, M\), got"
        ):
            small()(torch.zeros(wrong))
    with pytest.raises(
        ValueError,
        match=r"expected layer 'stage2.1.joint_temporal' to give .*apply ScatterToJoints",
    ):
        STFObjective(small(), layers=["stage1", "stage2.1.joint_temporal"]).explain(
            torch.randn(2, 3, 8, 20, 1)
        )
    with pytest.raises(
        ValueError, match=r"for each layer, got stages \(6, 2\), 4 widths and 4 strides$"
    ):
        small(stages=(6, 2))
    with pytest.raises(
        ValueError,
        match=r"expected two stages, .*, got stages \(2, 1, 1\), 4 widths and 4 strides$",
    ):
        small(stages=(2, 1, 1))
