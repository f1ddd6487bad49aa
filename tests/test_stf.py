"""STF's adjacency: zero at the start, the sample's own afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw
from torch import nn

from skeleton_focus import (
    KINECT20,
    GraphConv,
    SkeletonLayout,
    STFAdjacency,
    STFGraphConv,
    multi_scale_adjacency,
)
from skeleton_focus.graph_conv import convolve_graph

A = multi_scale_adjacency(KINECT20, 3)
CHAIN = multi_scale_adjacency(
    SkeletonLayout.from_bones([(0, 1), (1, 2)], center=1), 2, dtype=torch.float64
)


def awake(module: nn.Module, seed: int = 0) -> nn.Module:
    """Put random numbers in every parameter that starts at zero, as alpha's last convolution."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize("training", [False, True])
def test_g_starts_at_exactly_zero(training: bool) -> None:
    torch.manual_seed(0)
    g, embedding = STFAdjacency(16, 3, 20).train(training)(torch.randn(4, 16, 10, 20))
    assert g.shape == (4, 3, 20, 20) and not g.any()
    assert embedding.shape == (4, 10, 20) and embedding.std() > 0


def test_reset_parameters_brings_zero_back() -> None:
    torch.manual_seed(0)
    generator = awake(STFAdjacency(4, 3, 20)).eval()
    conv = awake(STFGraphConv(4, 2, A)).eval()
    x = torch.randn(2, 4, 5, 20)
    assert generator(x)[0].any()
    generator.reset_parameters()
    assert not generator(x)[0].any()
    conv.reset_parameters()
    torch.testing.assert_close(conv(x), convolve_graph(x, conv.weight, A, conv.bias))


@pytest.mark.parametrize("channels_out", [2, 4, 8])
def test_equals_graph_conv_until_trained(channels_out: int) -> None:
    torch.manual_seed(0)
    plain = GraphConv(4, channels_out, A)
    stf = STFGraphConv(4, channels_out, A)
    x = torch.randn(3, 4, 6, 20)
    stf.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(stf(x), plain(x), rtol=0, atol=1e-5)
    awake(stf)
    assert (stf(x) - plain(x)).abs().max() > 1e-2


@pytest.mark.parametrize("channels_out", [2, 8, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_equation_one_by_loops(channels_out: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = awake(STFGraphConv(8, channels_out, CHAIN, bias=bias)).double().eval()
    x = draw(2, 8, 4, 3)
    g, _ = layer.generator(x)
    assert g.abs().max() > 0.1 and not torch.allclose(g[0], g[1])
    graph = (CHAIN + g).detach().numpy()
    shift = None if layer.bias is None else layer.bias.detach().numpy()
    expected = reference.graph_conv(x.numpy(), layer.weight.detach().numpy(), graph, shift)
    assert np.abs(layer(x).detach().numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("channels_out", [2, 8, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_g_for_the_first_subsets_alone(channels_out: int, bias: bool) -> None:
    torch.manual_seed(0)
    fixed = multi_scale_adjacency(KINECT20, 5, dtype=torch.float64)
    layer = STFGraphConv(8, channels_out, fixed, learn_adjacency=True, bias=bias, generated=2)
    layer = awake(layer).double().eval()
    x = draw(2, 8, 4, 20)
    g, _ = layer.generator(x)
    assert g.shape == (2, 2, 20, 20) and g.abs().max() > 0.1
    graph = (fixed + layer.correction).detach().repeat(2, 1, 1, 1)
    graph[:, :2] += g.detach()
    assert torch.equal(layer.current_adjacency(x), graph)
    shift = None if layer.bias is None else layer.bias.detach().numpy()
    expected = reference.graph_conv(x.numpy(), layer.weight.detach().numpy(), graph.numpy(), shift)
    assert np.abs(layer(x).detach().numpy() - expected).max() < 1e-12


@given(frames=st.integers(1, 20), bins=st.integers(1, 12), scale=st.sampled_from([0.0, 1.0, 1e4]))
def test_any_number_of_frames_and_an_embedding_in_0_1(frames: int, bins: int, scale: float) -> None:
    torch.manual_seed(0)
    generator = awake(STFAdjacency(4, 2, 3, bins=bins, hidden=2)).eval()
    g, embedding = generator(scale * torch.randn(2, 4, frames, 3))
    assert g.shape == (2, 2, 3, 3) and embedding.shape == (2, frames, 3)
    assert g.isfinite().all() and embedding.min() >= 0 and embedding.max() <= 1


@pytest.mark.parametrize("bins", [1, 3, 8])
def test_the_bins_are_those_of_adaptive_pooling(bins: int) -> None:
    generator = STFAdjacency(4, 2, 3, bins=bins)
    for frames in [*range(1, 34), 300]:
        embedding = draw(2, 1, frames, 3)
        expected = F.adaptive_avg_pool2d(embedding, (bins, 3))
        torch.testing.assert_close(generator._pooled(embedding), expected, rtol=0, atol=1e-14)


def test_the_embedding_is_beta_by_hand() -> None:
    torch.manual_seed(0)
    generator = awake(STFAdjacency(8, 2, 3)).double().eval()
    narrow, norm_1, _, over_time, norm_2, _, last = generator.beta
    x = draw(2, 8, 5, 3)
    y = reference.temporal_conv(x.numpy(), narrow.weight.detach().numpy())
    assert y.shape[1] == 2  # C / 4
    y = np.maximum(norm_1(torch.from_numpy(y)).detach().numpy(), 0)
    y = reference.temporal_conv(y, over_time.weight.detach().numpy())
    y = np.maximum(norm_2(torch.from_numpy(y)).detach().numpy(), 0)
    y = reference.temporal_conv(y, last.weight.detach().numpy(), last.bias.detach().numpy())
    _, embedding = generator(x)
    assert np.abs(embedding.detach().numpy() - 1 / (1 + np.exp(-y[:, 0]))).max() < 1e-12


def test_gradients_reach_beta_and_alpha() -> None:
    torch.manual_seed(0)
    layer = STFGraphConv(8, 4, A)
    x = torch.randn(3, 8, 6, 20)
    target = torch.randn(3, 4, 6, 20)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        (layer(x) - target).square().mean().backward()
        moved = {
            name for name, p in layer.named_parameters() if p.grad is not None and p.grad.any()
        }
        generator = {name for name in moved if name.startswith("generator.")}
        assert "weight" in moved
        if step == 0:  # G = 0: only alpha's last convolution, which starts at zero, feels the loss
            assert len(generator) == 2 and all(
                not p.any() for n, p in layer.named_parameters() if n in generator
            )
            optimizer.step()
    assert generator == {n for n, _ in layer.named_parameters() if n.startswith("generator.")}


def test_errors() -> None:
    with pytest.raises(
        ValueError, match=r"^STFAdjacency: expected bins and hidden of at least 1, got \(0, 16\)$"
    ):
        STFAdjacency(3, 2, 4, bins=0)
    with pytest.raises(
        ValueError, match=r"^STFAdjacency: expected bins and hidden of at least 1, got \(8, 0\)$"
    ):
        STFGraphConv(3, 2, A, hidden=0)
    with pytest.raises(
        ValueError, match=r"^STFGraphConv: expected an adjacency \(K, V, V\), got \(20, 20\)$"
    ):
        STFGraphConv(3, 2, A[0])
    for generated in (0, 4):
        with pytest.raises(
            ValueError, match=rf"^STFGraphConv: expected generated in 1\.\.K=3, got {generated}$"
        ):
            STFGraphConv(3, 2, A, generated=generated)
    with pytest.raises(
        ValueError, match=r"^STFGraphConv: expected x \(N, C=3, T, V=20\), got \(2, 3, 8, 25\)$"
    ):
        STFGraphConv(3, 2, A, generated=1)(torch.zeros(2, 3, 8, 25))
    with pytest.raises(
        ValueError, match=r"^STFGraphConv: expected x \(N, C=3, T, V=20\), got \(2, 3, 8, 25\)$"
    ):
        STFGraphConv(3, 2, A)(torch.zeros(2, 3, 8, 25))
    with pytest.raises(
        ValueError, match=r"^STFGraphConv: expected x \(N, C=3, T, V=20\), got \(3, 8, 20\)$"
    ):
        STFGraphConv(3, 2, A)(torch.zeros(3, 8, 20))


def test_repr_and_buffer() -> None:
    layer = STFGraphConv(3, 4, A, bins=5)
    learned = "learn_adjacency=False, edge_importance=False"
    assert repr(layer).startswith(f"STFGraphConv(\n  3, 4, subsets=3, joints=20, {learned}\n")
    assert "(generator): STFAdjacency(\n    subsets=3, joints=20, bins=5\n" in repr(layer)
    assert "adjacency" in dict(layer.named_buffers()) and "adjacency" not in dict(
        layer.named_parameters()
    )
    assert STFGraphConv(3, 4, A, bias=False).bias is None
