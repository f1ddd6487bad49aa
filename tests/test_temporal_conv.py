"""Convolutions over time against plain loops and the published MS-TCN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw
from torch import Tensor, nn

from skeleton_focus import MultiScaleTemporalConv, TemporalConv


def trained(layer: nn.Module, seed: int = 0) -> Any:
    """Draw all parameters and running statistics at random, in float64 and evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double().eval()
    for name, value in layer.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.5 * noise)
    return layer


def norm_by_loops(y: np.ndarray, norm: nn.BatchNorm2d, first: int = 0) -> np.ndarray:
    """BatchNorm in evaluation mode of channels first, first + 1, ..."""
    out = np.empty_like(y)
    for c in range(y.shape[1]):
        mean, var, gain, shift = (
            float(p.detach()[first + c])
            for p in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        out[:, c] = (y[:, c] - mean) / (var + norm.eps) ** 0.5 * gain + shift
    return out


def temporal_by_loops(layer: TemporalConv, x: Tensor) -> np.ndarray:
    conv = layer.conv
    y = reference.temporal_conv(
        x.numpy(), conv.weight.detach().numpy(), stride=conv.stride[0], dilation=conv.dilation[0]
    )
    return norm_by_loops(y, layer.norm)


def multi_scale_by_loops(
    layer: MultiScaleTemporalConv, x: Tensor, dilations: tuple[int, ...]
) -> np.ndarray:
    """Figure 3(b) of MS-G3D, branch after branch, each with its own part of the joined weights."""
    width = layer.widths[0]
    stride = layer.stride
    out = []
    narrow = layer.narrow.weight.detach().numpy()
    dilated = [conv.weight.detach().numpy() for conv in layer.dilated]
    pointwise = layer.pointwise.weight.detach().numpy()
    for i in range(len(dilations) + 1):
        part = slice(i * width, (i + 1) * width)
        y = reference.temporal_conv(x.numpy(), narrow[part])
        y = np.maximum(norm_by_loops(y, layer.narrow_norm, i * width), 0)
        if i < len(dilations):
            y = reference.temporal_conv(y, dilated[i], stride=stride, dilation=dilations[i])
        else:
            frames = range(0, y.shape[2], stride)
            y = np.stack([y[:, :, max(t - 1, 0) : t + 2].max(axis=2) for t in frames], axis=2)
        out.append(norm_by_loops(y, layer.norm, i * width))
    y = reference.temporal_conv(x.numpy(), pointwise, stride=stride)
    out.append(norm_by_loops(y, layer.norm, (len(dilations) + 1) * width))
    total = np.concatenate(out, axis=1)
    if isinstance(layer.shortcut, TemporalConv):
        total = total + temporal_by_loops(layer.shortcut, x)
    elif layer.shortcut is not None:
        total = total + x.numpy()
    return np.maximum(total, 0)


@pytest.mark.parametrize("frames", [1, 2, 7, 10])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(9, 1, 1), (9, 2, 1), (3, 1, 3), (3, 3, 2), (1, 2, 1)]
)
def test_equals_the_slow_reference(frames: int, kernel: int, stride: int, dilation: int) -> None:
    layer = trained(TemporalConv(3, 4, kernel_size=kernel, stride=stride, dilation=dilation))
    x = draw(2, 3, frames, 3)
    ours = layer(x)
    assert ours.shape == (2, 4, -(-frames // stride), 3)
    assert np.abs(ours.detach().numpy() - temporal_by_loops(layer, x)).max() < 1e-12


@pytest.mark.parametrize("frames", [1, 2, 7, 10])
@pytest.mark.parametrize(
    ("channels", "outputs", "stride", "residual"),
    [
        (12, 12, 1, True),
        (4, 8, 1, True),
        (6, 6, 2, True),
        (5, 9, 3, True),
        (6, 11, 2, False),
        (6, 6, 1, False),
    ],
)
def test_multi_scale_equals_the_branches_one_by_one(
    channels: int, outputs: int, stride: int, residual: bool, frames: int
) -> None:
    layer = trained(MultiScaleTemporalConv(channels, outputs, stride=stride, residual=residual))
    x = draw(2, channels, frames, 2)
    ours = layer(x)
    assert ours.shape == (2, outputs, -(-frames // stride), 2)
    assert (
        np.abs(ours.detach().numpy() - multi_scale_by_loops(layer, x, (1, 2, 3, 4))).max() < 1e-12
    )


def test_without_the_last_activation() -> None:
    layer = trained(MultiScaleTemporalConv(6, 6, activation=False))
    x = draw(2, 6, 5, 2)
    before = layer(x)
    layer.activation = True
    assert before.min() < 0
    assert torch.equal(layer(x), before.relu())


def test_other_kernels_and_dilations() -> None:
    layer = trained(MultiScaleTemporalConv(4, 8, kernel_size=5, dilations=(1, 3)))
    x = draw(2, 4, 9, 2)
    assert np.abs(layer(x).detach().numpy() - multi_scale_by_loops(layer, x, (1, 3))).max() < 1e-12


def test_published_ms_tcn(golden: Path, golden_weights: Callable[[str], dict[str, Tensor]]) -> None:
    expected = np.load(golden / "ms_g3d.npz")["ms_tcn.out_seed2_N2_C12_T10_V25_stride2_O24"]
    old = golden_weights("ms_tcn")

    def joined(names: list[str], part: str) -> Tensor:
        return torch.cat([old[f"{name}.{part}"] for name in names])

    def norm(ours: str, norms: list[str], convs: list[str | None]) -> dict[str, Tensor]:
        # The published convolutions have a bias, which the running mean takes over.
        means = [
            old[f"{n}.running_mean"] - (old[f"{c}.bias"] if c else 0)
            for n, c in zip(norms, convs, strict=True)
        ]
        parts = {
            f"{ours}.{part}": joined(norms, part) for part in ("weight", "bias", "running_var")
        }
        return {**parts, f"{ours}.running_mean": torch.cat(means)}

    first = [f"branches.{i}" for i in range(5)]
    dilated = [f"branches.{i}.3" for i in range(4)]
    state = {
        "narrow.weight": joined([f"{b}.0" for b in first], "weight"),
        **norm("narrow_norm", [f"{b}.1" for b in first], [f"{b}.0" for b in first]),
        **{f"dilated.{i}.weight": old[f"{b}.conv.weight"] for i, b in enumerate(dilated)},
        "pointwise.weight": old["branches.5.0.weight"],
        **norm(
            "norm",
            [f"{b}.bn" for b in dilated] + ["branches.4.4", "branches.5.1"],
            [f"{b}.conv" for b in dilated] + [None, "branches.5.0"],
        ),
        "shortcut.conv.weight": old["residual.conv.weight"],
        **norm("shortcut.norm", ["residual.bn"], ["residual.conv"]),
    }
    layer = MultiScaleTemporalConv(12, 24, stride=2).double().eval()
    left = layer.load_state_dict(state, strict=False)
    assert not left.unexpected_keys and all(
        key.endswith("num_batches_tracked") for key in left.missing_keys
    )
    ours = layer(draw(2, 12, 10, 25, seed=2)).detach().numpy()
    assert ours.shape == expected.shape and np.abs(ours - expected).max() < 1e-9


@pytest.mark.parametrize(("outputs", "last"), [(6, 1), (7, 2), (11, 6), (24, 4), (29, 9)])
def test_the_pointwise_branch_takes_the_channels_that_remain(outputs: int, last: int) -> None:
    layer = MultiScaleTemporalConv(4, outputs)
    assert layer.pointwise.out_channels == last
    assert layer(torch.randn(2, 4, 5, 3)).shape == (2, outputs, 5, 3)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"^TemporalConv: expected an odd kernel_size, got 4$"):
        TemporalConv(3, 4, kernel_size=4)
    with pytest.raises(
        ValueError, match=r"^MultiScaleTemporalConv: expected an odd kernel_size, got 2$"
    ):
        MultiScaleTemporalConv(3, 12, kernel_size=2)
    with pytest.raises(
        ValueError,
        match=r"^MultiScaleTemporalConv: expected out_channels of at least 6, .*, got 5$",
    ):
        MultiScaleTemporalConv(3, 5)
    with pytest.raises(
        ValueError,
        match=r"^MultiScaleTemporalConv: expected out_channels of at least 3, .*, got 2$",
    ):
        MultiScaleTemporalConv(3, 2, dilations=(1,))
    with pytest.raises(
        ValueError, match=r"^TemporalConv: expected x \(N, C=3, T, V\), got \(2, 4, 5, 6\)$"
    ):
        TemporalConv(3, 4)(torch.zeros(2, 4, 5, 6))
    with pytest.raises(
        ValueError, match=r"^MultiScaleTemporalConv: expected x \(N, C=3, T, V\), got \(3, 5, 6\)$"
    ):
        MultiScaleTemporalConv(3, 12)(torch.zeros(3, 5, 6))


@given(shift=st.integers(1, 6), residual=st.booleans())
def test_a_shift_in_time_shifts_the_output(shift: int, residual: bool) -> None:
    layer = trained(MultiScaleTemporalConv(3, 7, residual=residual))
    reach = 4
    x = draw(1, 3, 24, 2)
    y = layer(x)
    later = layer(x.roll(shift, dims=2))
    inside = slice(reach + shift, 24 - reach)
    before = slice(reach, 24 - reach - shift)
    torch.testing.assert_close(later[:, :, inside], y[:, :, before], rtol=0, atol=1e-12)


@given(order=st.permutations(range(4)))
def test_joints_and_samples_do_not_meet(order: list[int]) -> None:
    layer = trained(MultiScaleTemporalConv(3, 7, stride=2))
    x = draw(4, 3, 6, 4)
    torch.testing.assert_close(layer(x[..., order]), layer(x)[..., order], rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(x[order]), layer(x)[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(x[:1]), layer(x)[:1], rtol=0, atol=1e-12)


def test_the_shortcut() -> None:
    assert isinstance(MultiScaleTemporalConv(8, 8).shortcut, nn.Identity)
    assert isinstance(MultiScaleTemporalConv(8, 8, stride=2).shortcut, TemporalConv)
    assert isinstance(MultiScaleTemporalConv(6, 8).shortcut, TemporalConv)
    assert MultiScaleTemporalConv(8, 8, residual=False).shortcut is None
