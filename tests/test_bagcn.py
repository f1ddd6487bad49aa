"""examples/bagcn.py: the network, its ablations, padded clips, and STF on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import explain
import numpy as np
import pytest
import reference
import reference_focus_diffusion
import torch
from bagcn import BAGCN
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import filled, learn
from recipe import PRESETS, Recipe, build_network, explained
from torch import Tensor

from skeleton_focus import KINECT20, NTU25, STFLoss, STFObjective
from skeleton_focus.feature_tap import FeatureTap

SMALL: dict[str, Any] = {"widths": (8, 8, 8), "strides": (1, 2, 1), "in_channels": 3}
STF: dict[str, Any] = {"layers": ["blocks.1", "blocks.2"], "head": "fc"}
ROWS = [
    ("attention", "bidirectional"),
    ("mean", "bidirectional"),
    ("max", "bidirectional"),
    ("none", "bidirectional"),
    ("attention", "forward"),
    ("attention", "none"),
]


def small(**options: Any) -> BAGCN:
    torch.manual_seed(0)
    return BAGCN(5, KINECT20, **{**SMALL, **options})


def test_the_paper_s_sizes() -> None:
    network = BAGCN(60, NTU25, dropout=0.3)
    assert network.dropout.p == 0.3
    blocks = list(network.blocks)
    assert len(blocks) == 9
    assert [block.spatial.inward.weight.shape[1] for block in blocks] == [64] * 3 + [128] * 3 + [
        256
    ] * 3
    assert [block.spatial.outward.weight.shape[1] for block in blocks] == [16] * 3 + [32] * 3 + [
        64
    ] * 3
    assert [block.temporal.conv.stride[0] for block in blocks] == [1, 1, 1, 2, 1, 1, 2, 1, 1]
    assert {block.spatial.context.lstm.hidden_size for block in blocks} == {64}
    for block in blocks:
        for conv, outward in ((block.spatial.outward, True), (block.spatial.inward, False)):
            expected = reference_focus_diffusion.directed_graph(
                25, NTU25.bones, NTU25.center, outward
            )
            np.testing.assert_allclose(conv.adjacency.numpy(), expected, atol=1e-7)
    assert network.norm.num_features == 6 * 25 and network.fc.in_features == 256
    paper = Recipe(**PRESETS["paper_bagcn"])
    assert (paper.lr, paper.epochs, paper.decay, paper.weight_decay) == (0.1, 50, (30, 40), 1e-4)
    assert paper.stream == "joint+bone" and paper.frames == 300


@pytest.mark.parametrize(("focus", "context"), ROWS)
def test_every_row_of_the_tables_trains_and_is_a_flag(focus: str, context: str) -> None:
    network = small(focus=focus, context=context).double()
    x = torch.randn(3, 3, 9, 20, 2).double()
    logits = network(x)
    assert logits.shape == (3, 5)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    still = {
        n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12
    }
    assert not still
    sizes = PRESETS["synthetic_bagcn"]["network"]
    ways = {"focus": focus, "context": context}
    recipe = Recipe(**{**PRESETS["synthetic_bagcn"], "network": {**sizes, **ways}})
    built = build_network(recipe, 5, 1, KINECT20)
    assert repr(built) == repr(BAGCN(5, KINECT20, in_channels=7, **ways, **sizes))
    assert explained(recipe, built) == (["blocks.7", "blocks.8"], "fc")
    shallow = replace(recipe, network={"widths": (8, 8, 8), "strides": (1, 1, 1), "dropout": 0.2})
    built = build_network(shallow, 5, 1, KINECT20)
    assert explained(shallow, built)[0] == ["blocks.1", "blocks.2"]
    assert built.dropout.p == 0.2


def test_the_whole_network_by_loops() -> None:
    """Block by block, by slow references: two bodies, a stride, both kinds of shortcut."""
    network = filled(small(widths=(4, 8, 8)), scale=0.5)
    x = torch.randn(1, 3, 5, 20, 2, generator=torch.Generator().manual_seed(1)).double()
    weights = {name: value.numpy() for name, value in network.state_dict().items()}

    def of(part: str) -> dict[str, np.ndarray]:
        return {
            name.removeprefix(f"{part}."): w
            for name, w in weights.items()
            if name.startswith(f"{part}.")
        }

    def normalised(y: np.ndarray, norm: dict[str, np.ndarray]) -> np.ndarray:
        scale = norm["weight"] / np.sqrt(norm["running_var"] + 1e-5)
        return (y - norm["running_mean"][:, None, None]) * scale[:, None, None] + norm["bias"][
            :, None, None
        ]

    def over_time(y: np.ndarray, part: str, stride: int) -> np.ndarray:
        convolved = reference.temporal_conv(y, of(part)["conv.weight"], stride=stride)
        return np.stack([normalised(row, of(f"{part}.norm")) for row in convolved])

    pooled = []
    for m in range(2):
        flat = x[0, ..., m].permute(0, 2, 1).reshape(60, 5).numpy()[:, :, None]  # (C * V, T, 1)
        y = normalised(flat, of("norm")).reshape(1, 3, 20, 5).transpose(0, 1, 3, 2)
        for i, stride in enumerate((1, 2, 1), start=1):
            block = reference_focus_diffusion.block(
                y, of(f"blocks.{i - 1}.spatial"), "attention", "bidirectional"
            )
            shortcut = over_time(y, f"blocks.{i - 1}.shortcut", stride) if i < 3 else y
            y = np.maximum(over_time(block, f"blocks.{i - 1}.temporal", stride) + shortcut, 0)
        pooled.append(y[0].mean((1, 2)))
    logits = weights["fc.weight"] @ ((pooled[0] + pooled[1]) / 2) + weights["fc.bias"]
    assert np.abs(pooled[0] - pooled[1]).max() > 0.01
    np.testing.assert_allclose(network(x)[0].detach().numpy(), logits, atol=1e-10)


@given(lengths=st.tuples(st.integers(1, 9), st.integers(1, 9)), padding=st.integers(0, 4))
def test_appending_padding_changes_nothing(lengths: tuple[int, int], padding: int) -> None:
    network = filled(small(strides=(2, 1, 2)), scale=0.5)
    x = torch.randn(
        2, 3, max(lengths) + padding, 20, 2, generator=torch.Generator().manual_seed(0)
    ).double()
    for n, length in enumerate(lengths):
        x[n, :, length:] = float("nan")
    with FeatureTap(network, ["blocks.1"]) as tap:
        together = network(x, torch.tensor(lengths))
    for n, length in enumerate(lengths):  # what STF would explain holds no padding
        assert (tap["blocks.1"][2 * n : 2 * n + 2, :, -(-length // 2) :] == 0).all()
    for n, length in enumerate(lengths):
        torch.testing.assert_close(
            network(x[n : n + 1, :, :length]), together[n : n + 1], rtol=0, atol=1e-10
        )


def test_a_sample_does_not_depend_on_its_batch_and_missing_joints_are_finite() -> None:
    network = small().eval().double()
    x = torch.randn(3, 3, 8, 20, 2).double()
    x[..., 5:9, :] = 0
    x[1, ..., 1] = 0
    whole = network(x)
    for n in range(3):
        torch.testing.assert_close(network(x[n : n + 1]), whole[n : n + 1], rtol=0, atol=1e-12)
    assert (
        whole.isfinite().all()
        and network(0 * x).isfinite().all()
        and network(x[:, :, :1]).isfinite().all()
    )


@pytest.mark.parametrize("branch", [STFLoss.focus_branch, STFLoss.exploration_branch])
def test_stf_trains_it(branch: Any) -> None:
    network = small()
    objective = STFObjective(network, **STF, loss=branch())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    torch.manual_seed(1)
    x = torch.randn(6, 3, 8, 20, 2)
    target = torch.tensor([0, 1, 2, 3, 4, 0])
    losses, out = learn(objective, optimizer, x, target, steps=30)
    assert losses[-1] < 0.5 * losses[0]
    assert out.focus.shape == (6, 2, 8, 20)


def test_in_training_batch_norm_counts_the_padding_as_zeros() -> None:
    network = small()
    x = torch.randn(3, 3, 6, 20, 1)
    lengths = torch.tensor([6, 4, 1])
    empty = x.clone()
    for n, length in enumerate(lengths):
        x[n, :, length:] = float("nan")
        empty[n, :, length:] = 0
    torch.testing.assert_close(network(x, lengths), network(empty, lengths))
    assert network.norm.running_var.isfinite().all()


def test_coherence_goes_through_the_lstm() -> None:
    network = small().double()
    loss = STFLoss(coherence=1.0, divergence=0.0, exploration=0.0, adjacency=0.0)
    torch.manual_seed(1)
    x = torch.randn(4, 3, 8, 20, 1).double()
    target = torch.tensor([0, 1, 2, 3])
    STFObjective(network, **STF, loss=loss)(x, target).terms["coherence"].backward()
    for name, weight in network.blocks[2].spatial.context.lstm.named_parameters():
        assert weight.grad.abs().max() > 0, name


def test_the_picture_shows_the_person_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small(strides=(2, 2, 2)).eval()
    t = 9
    x = torch.randn(1, 3, t, 20, 2)
    drawn: list[Any] = []
    monkeypatch.setattr(explain, "plot_latent_edges", lambda *given, **options: drawn.extend(given))
    explain.draw_latent_edges(network, x, x[0], 1, layout=KINECT20)
    with FeatureTap(network, ["blocks.2.spatial.focus"]) as tap:
        network(x)
    weights: Tensor = tap.output("blocks.2.spatial.focus").weights
    torch.testing.assert_close(
        drawn[1], weights[1, torch.arange(t) // 4]
    )  # two blocks stride before the last one's focus
    torch.testing.assert_close(drawn[0], x[0, ..., 1])
    assert not torch.equal(weights[0], weights[1])


def test_errors() -> None:
    with pytest.raises(
        ValueError,
        match=r"^BAGCN: expected a width and a stride for each block, got 3 widths and 2 strides$",
    ):
        small(strides=(1, 1))
    with pytest.raises(
        ValueError, match=r"^BAGCN: expected x \(N, C=3, T, V=20, M\), got \(2, 3, 8, 25, 1\)$"
    ):
        small()(torch.zeros(2, 3, 8, 25, 1))
    with pytest.raises(
        ValueError, match=r"^BAGCN: expected 2 lengths in 1\.\.8, one for each clip, got \[9, 8\]$"
    ):
        small()(torch.zeros(2, 3, 8, 20, 1), torch.tensor([9, 8]))
