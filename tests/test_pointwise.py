"""1x1 convolutions and linear layers as matrix products, against sums written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw, needs_torch
from torch import Tensor, nn

from skeleton_focus import _pointwise
from skeleton_focus._pointwise import PointwiseConv, TokenLinear, mix_channels, mix_tokens

SIZES = st.integers(1, 5)


def strided(x: Tensor, memory: str) -> Tensor:
    """The same values in another order in memory: as a convolution, attention or a slice leaves."""
    if memory == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    if memory == "slice":
        return torch.cat([x, x, x], dim=1)[:, x.shape[1] : 2 * x.shape[1]]
    if memory == "joints first":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    return x


@given(
    SIZES,
    SIZES,
    SIZES,
    SIZES,
    SIZES,
    st.booleans(),
    st.sampled_from(["plain", "channels last", "slice", "joints first"]),
)
def test_channels_are_mixed_at_each_joint_and_frame(
    n: int, c: int, o: int, t: int, v: int, biased: bool, memory: str
) -> None:
    x = strided(draw(n, c, t, v), memory)
    weight = draw(o, c, seed=1)
    bias = draw(o, seed=2) if biased else None
    expected = np.einsum("oc,nctv->notv", weight.numpy(), x.numpy())
    if bias is not None:
        expected = expected + bias.numpy()[:, None, None]
    np.testing.assert_allclose(mix_channels(x, weight, bias).numpy(), expected, atol=1e-12)
    offset = draw(n, t, v, o, seed=3)
    for part in (offset, offset[0, 0], offset[0, 0, 0]):
        tokens = np.einsum("oc,nctv->ntvo", weight.numpy(), x.numpy()) + part.numpy()
        np.testing.assert_allclose(mix_tokens(x, weight, part).numpy(), tokens, atol=1e-12)


@given(SIZES, st.integers(1, 7), st.integers(1, 4), st.booleans())
def test_a_strided_convolution_with_its_gradients(
    c: int, t: int, stride: int, biased: bool
) -> None:
    """As torch.nn.Conv2d with the same weights, which it may replace in a saved network."""
    torch.manual_seed(0)
    ours = PointwiseConv(c, 3, stride=stride, bias=biased).double()
    theirs = nn.Conv2d(c, 3, 1, (stride, 1), bias=biased).double()
    theirs.load_state_dict(ours.state_dict())
    x = draw(2, c, t, 4)
    results = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        gradients = torch.autograd.grad(y, [leaf, *layer.parameters()], draw(*y.shape, seed=1))
        results.append([y, *gradients])
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


def test_second_derivatives() -> None:
    x = draw(2, 3, 2, 3).requires_grad_()
    weight = draw(2, 3, seed=1).requires_grad_()
    bias = draw(2, seed=2).requires_grad_()
    for function in (mix_channels, mix_tokens):
        assert torch.autograd.gradcheck(function, (x, weight, bias))
        assert torch.autograd.gradgradcheck(function, (x, weight, bias))


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixed = PointwiseConv(3, 4)
        self.strided = PointwiseConv(4, 4, stride=2)
        self.tokens = TokenLinear(4, 5)
        self.weight = nn.Parameter(draw(3, 3))
        self.register_buffer("codes", draw(5, 4, seed=7))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.mixed(mix_channels(x, self.weight))
        return self.strided(y).mean((2, 3)), self.tokens(y, self.codes)


@needs_torch(2, 8, "torch.export for any number of frames")
def test_an_exported_network_keeps_its_convolutions() -> None:
    """For any number of frames, and with the same values."""
    net = Layers().double()
    frames = torch.export.Dim("frames", min=4)
    program = torch.export.export(net, (draw(2, 3, 8, 5),), dynamic_shapes=({2: frames},))
    names = [str(node.target) for node in program.graph.nodes]
    assert sum("conv2d" in name for name in names) == 3
    assert sum("linear" in name for name in names) == 1
    assert not any("bmm" in name for name in names)
    for length in (4, 7):
        x = draw(2, 3, length, 5, seed=length)
        torch.testing.assert_close(program.module()(x), net(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("codes", [None, draw(5, 3)])
def test_tokens_keep_the_precision_of_autocast(
    codes: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are not a product of ours, as on a GPU."""
    layer = TokenLinear(3, 4)
    x = draw(2, 3, 4, 5).float()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x, None if codes is None else codes.float()).dtype == torch.bfloat16
        monkeypatch.setattr(_pointwise, "is_exporting", lambda: True)
