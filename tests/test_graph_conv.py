"""Graph convolutions against plain loops, limiting cases and the published MS-GCN."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw
from torch import Tensor, nn

from skeleton_focus import (
    KINECT20,
    NTU25,
    GraphConv,
    MultiScaleGraphConv,
    multi_scale_adjacency,
    spatial_partition,
)
from skeleton_focus.graph_conv import convolve_graph

SIZES = [(4, 2), (3, 3), (2, 5)]  # C > O, C = O, C < O: both orders of mixing and aggregating
A = spatial_partition(KINECT20)


def problem(
    channels: int, outputs: int, *, per_sample: bool, n: int = 2, t: int = 3, v: int = 4, k: int = 3
):
    adjacency = draw(n, k, v, v, seed=3) if per_sample else draw(k, v, v, seed=3)
    return (
        draw(n, channels, t, v, seed=1),
        draw(k, outputs, channels, seed=2),
        adjacency,
        draw(outputs, seed=4),
    )


@pytest.mark.parametrize(("channels", "outputs"), SIZES)
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("subsets", [1, 3, 6])  # with many, the mixed channels are not kept
def test_equals_the_slow_reference(
    channels: int, outputs: int, per_sample: bool, with_bias: bool, subsets: int
) -> None:
    x, weight, adjacency, bias = problem(channels, outputs, per_sample=per_sample, k=subsets)
    given_bias = bias if with_bias else None
    expected = reference.graph_conv(
        *(t.numpy() for t in (x, weight, adjacency)), bias.numpy() if with_bias else None
    )
    ours = convolve_graph(x, weight, adjacency, given_bias)
    assert ours.shape == expected.shape and np.abs(ours.numpy() - expected).max() < 1e-12


def test_a_chain_of_three_by_hand() -> None:
    carry = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 0, 0]])  # A[v, w]: joint 0 to 1, joint 1 to 2
    x = torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 1, 3)
    assert convolve_graph(x, torch.ones(1, 1, 1), carry[None]).flatten().tolist() == [0, 1, 10]
    two = convolve_graph(
        x,
        torch.ones(1, 2, 1) * torch.tensor([[[2.0], [3.0]]]),
        carry[None],
        torch.tensor([0.0, 7.0]),
    )
    assert two.flatten().tolist() == [0, 2, 20, 7, 10, 37]


@pytest.mark.parametrize(("channels", "outputs"), SIZES)
def test_module_equals_function(channels: int, outputs: int) -> None:
    x, weight, adjacency, _ = problem(channels, outputs, per_sample=False)
    conv = GraphConv(channels, outputs, adjacency, learn_adjacency=True).double()
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.correction.normal_()
    expected = convolve_graph(x, weight, adjacency + conv.correction, conv.bias)
    assert torch.equal(conv(x), expected)
    plain = GraphConv(channels, outputs, adjacency, bias=False).double()
    assert plain.bias is None and plain.correction is None
    assert torch.equal(plain(x), convolve_graph(x, plain.weight, adjacency))


def test_edge_importance_weights_the_edges_and_adds_none() -> None:
    x, _, adjacency, _ = problem(3, 4, per_sample=False)
    adjacency[:, 0] = 0  # nothing comes from joint 0
    conv = GraphConv(3, 4, adjacency, edge_importance=True, learn_adjacency=True).double()
    assert torch.equal(conv.importance, torch.ones_like(adjacency))
    with torch.no_grad():
        conv.importance.normal_()
        conv.correction.normal_()
    expected = convolve_graph(
        x, conv.weight, conv.importance * adjacency + conv.correction, conv.bias
    )
    assert torch.equal(conv(x), expected)
    conv(x).square().sum().backward()
    assert torch.equal(conv.importance.grad != 0, adjacency != 0)


def test_multi_scale_is_conv_norm_relu() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 20)
    layer = MultiScaleGraphConv(3, 6, A)
    expected = F.relu(nn.BatchNorm2d(6)(layer.conv(x)))
    torch.testing.assert_close(layer(x), expected)
    assert layer.conv.bias is None and layer.conv.correction is not None
    assert MultiScaleGraphConv(3, 6, A, learn_adjacency=False).conv.correction is None


@pytest.mark.parametrize(("channels", "outputs"), [(2, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize(("per_sample", "subsets"), [(False, 2), (True, 2), (False, 5)])
def test_gradients_of_first_and_second_order(
    channels: int, outputs: int, per_sample: bool, subsets: int
) -> None:
    tensors = problem(channels, outputs, per_sample=per_sample, t=2, v=3, k=subsets)
    inputs = tuple(tensor.requires_grad_() for tensor in tensors)
    assert torch.autograd.gradcheck(convolve_graph, inputs)
    assert torch.autograd.gradgradcheck(convolve_graph, inputs, fast_mode=True)


@given(order=st.permutations(range(5)), sizes=st.sampled_from(SIZES), per_sample=st.booleans())
def test_relabelling_joints_permutes_the_output(
    order: list[int], sizes: tuple[int, int], per_sample: bool
) -> None:
    x, weight, adjacency, bias = problem(*sizes, per_sample=per_sample, v=5)
    relabelled = convolve_graph(x[..., order], weight, adjacency[..., order, :][..., order], bias)
    torch.testing.assert_close(
        relabelled, convolve_graph(x, weight, adjacency, bias)[..., order], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(("channels", "outputs"), SIZES)
def test_identity_adjacency_is_a_pointwise_convolution(channels: int, outputs: int) -> None:
    x, weight, _, bias = problem(channels, outputs, per_sample=False, k=1)
    expected = F.conv2d(x, weight[0, :, :, None, None], bias)
    torch.testing.assert_close(
        convolve_graph(x, weight, torch.eye(4).double()[None], bias), expected, rtol=0, atol=1e-12
    )


def test_published_ms_gcn(golden: Path, golden_weights: Callable[[str], dict[str, Tensor]]) -> None:
    expected = np.load(golden / "ms_g3d.npz")["ms_gcn.out_seed1_N2_C5_T6_V25_K13_O12"]
    state = golden_weights("ms_gcn")
    layer = MultiScaleGraphConv(5, 12, multi_scale_adjacency(NTU25, 13)).double().eval()
    norm = {
        name: state[f"mlp.layers.1.{name}"]
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    # Ours has no bias before BatchNorm.
    norm["running_mean"] = norm["running_mean"] - state["mlp.layers.0.bias"]
    missing = layer.load_state_dict(
        {
            # Published rows are (k, target) and columns sources; ours is A[k, source, target]
            "conv.correction": state["A_res"].view(13, 25, 25).transpose(1, 2),
            "conv.weight": state["mlp.layers.0.weight"]
            .view(12, 13, 5)
            .transpose(0, 1),  # columns k * C + c
            **{f"norm.{name}": value for name, value in norm.items()},
        },
        strict=False,
    )
    assert (
        set(missing.missing_keys) <= {"conv.adjacency", "norm.num_batches_tracked"}
        and not missing.unexpected_keys
    )
    ours = layer(draw(2, 5, 6, 25, seed=1)).detach().numpy()
    assert ours.shape == expected.shape and np.abs(ours - expected).max() < 1e-9


@pytest.mark.parametrize(
    ("shapes", "error"),
    [
        (((2, 3, 4, 5), (3, 6), (2, 5, 5)), "weight (K, O, C), got (3, 6)"),
        (((2, 3, 4), (2, 6, 3), (2, 5, 5)), "x (N, C=3, T, V=5), got (2, 3, 4)"),
        (((2, 4, 4, 5), (2, 6, 3), (2, 5, 5)), "x (N, C=3, T, V=5), got (2, 4, 4, 5)"),
        (((2, 3, 4, 6), (2, 6, 3), (2, 5, 5)), "x (N, C=3, T, V=5), got (2, 3, 4, 6)"),
        (((2, 3, 4, 5), (2, 6, 3), (3, 5, 5)), "adjacency (K=2, V=5, V=5), got (3, 5, 5)"),
        (((2, 3, 4, 5), (2, 6, 3), (2, 4, 5)), "adjacency (K=2, V=5, V=5), got (2, 4, 5)"),
        (
            ((2, 3, 4, 5), (2, 6, 3), (3, 2, 5, 5)),
            "adjacency (N=2, K=2, V=5, V=5), got (3, 2, 5, 5)",
        ),
        (((2, 3, 4, 5), (2, 6, 3), (5, 5)), "adjacency (N=2, K=2, V=5, V=5), got (5, 5)"),
    ],
)
def test_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape("convolve_graph: expected " + error)):
        convolve_graph(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(("channels", "outputs"), SIZES)
@pytest.mark.parametrize("wrong", [(1,), (7,), (1, 1)])
def test_a_bias_that_does_not_fit(channels: int, outputs: int, wrong: tuple[int, ...]) -> None:
    x, weight, adjacency, _ = problem(channels, outputs, per_sample=False)
    with pytest.raises(ValueError, match=rf"^convolve_graph: expected bias \(O={outputs}\), got "):
        convolve_graph(x, weight, adjacency, torch.zeros(wrong).double())


@pytest.mark.parametrize("layer", [GraphConv, MultiScaleGraphConv])
def test_layers_refuse_when_built_and_at_the_door(layer: type[nn.Module]) -> None:
    who = layer.__name__
    for shape in [(20, 20), (0, 20, 20), (3, 20, 25)]:
        error = re.escape(f"{who}: expected an adjacency (K, V, V), got {shape}")
        with pytest.raises(ValueError, match=f"^{error}$"):
            layer(3, 8, torch.zeros(shape))
    with pytest.raises(
        ValueError, match=rf"^{who}: expected x \(N, C=3, T, V=20\), got \(2, 3, 8, 25\)$"
    ):
        layer(3, 8, A)(torch.zeros(2, 3, 8, 25))


def test_the_adjacency_is_a_buffer_of_its_own() -> None:
    source = A.clone()
    conv = GraphConv(3, 8, source, learn_adjacency=True)
    assert [name for name, _ in conv.named_buffers()] == ["adjacency"]
    assert sorted(name for name, _ in conv.named_parameters()) == ["bias", "correction", "weight"]
    source.zero_()
    assert torch.equal(conv.adjacency, A)
    assert conv.double().adjacency.dtype == torch.float64


def test_weights_at_the_start() -> None:
    torch.manual_seed(0)
    conv = GraphConv(64, 96, A, learn_adjacency=True)
    bound = (3 * 64) ** -0.5
    assert conv.weight.abs().max() <= 3**0.5 * bound and conv.bias.abs().max() <= bound
    assert conv.weight.std().item() == pytest.approx(bound, rel=0.02)
    assert 0 < conv.correction.abs().max() <= 1e-6
    before = conv.weight.clone()
    conv.reset_parameters()
    assert not torch.equal(conv.weight, before)


def test_repr_shows_the_sizes() -> None:
    learned = "learn_adjacency=False, edge_importance=False"
    assert repr(GraphConv(3, 8, A)) == f"GraphConv(3, 8, subsets=3, joints=20, {learned})"
    assert "subsets=3, joints=20, learn_adjacency=True, edge_importance=False)" in repr(
        MultiScaleGraphConv(3, 8, A)
    )
