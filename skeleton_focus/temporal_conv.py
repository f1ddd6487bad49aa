"""Convolutions over the frames: one kernel, or several dilations side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._checks import check_shape, message
from ._pointwise import PointwiseConv

__all__ = ["MultiScaleTemporalConv", "TemporalConv"]


class TemporalConv(nn.Module):
    """Convolve each joint over time, then apply BatchNorm; ``stride=1`` keeps T.

    Shape:
        x (N, C, T, V) -> (N, O, ceil(T / stride), V).

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: frames under the kernel, odd; ST-GCN uses 9, MS-G3D 3.
        stride: keep every stride-th frame.
        dilation: frames between two taps of the kernel.

    Raises:
        ValueError: an even kernel, which cannot keep T, or an x of another shape.

    Example:
        >>> TemporalConv(8, 16, stride=2)(torch.randn(2, 8, 9, 25)).shape
        torch.Size([2, 16, 5, 25])

    Reference:
        ST-GCN (Yan et al., AAAI 2018), section 3.4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 9,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        _check_options("TemporalConv", kernel_size, stride, [dilation])
        self.conv = _conv_over_time(in_channels, out_channels, kernel_size, stride, dilation)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        check_shape("TemporalConv", "x", x, f"N, C={self.conv.in_channels}, T>0, V")
        y: Tensor = self.norm(self.conv(x))
        return y


class MultiScaleTemporalConv(nn.Module):
    """Concatenate dilated convolutions, a max pool and a 1x1; add a residual; apply ReLU.

    Each branch but the last first narrows to O // branches channels (1x1, BatchNorm, ReLU); the
    last, a strided 1x1, takes what remains of O. The narrowing of all branches is one convolution
    and each BatchNorm after it is one over their joined channels: BatchNorm treats every channel by
    itself, so this is the published function in fewer steps.

    Shape:
        x (N, C, T, V) -> (N, O, ceil(T / stride), V).

    Args:
        in_channels: C.
        out_channels: O, at least ``len(dilations) + 2``.
        kernel_size: frames under each dilated kernel, odd (the max pool has 3).
        stride: keep every stride-th frame.
        dilations: one branch for each.
        residual: add x, through a strided 1x1 and BatchNorm where the shape changes.
        activation: end with a ReLU; MS-G3D leaves it out where it adds pathways and applies ReLU to
            their sum.

    Raises:
        ValueError: an even kernel, too few channels, or an x of another shape.

    Example:
        >>> MultiScaleTemporalConv(12, 24, stride=2)(torch.randn(2, 12, 10, 25)).shape
        torch.Size([2, 24, 5, 25])

    Reference:
        MS-G3D (Liu et al., CVPR 2020), section 4.1, figure 3(b).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilations: Sequence[int] = (1, 2, 3, 4),
        residual: bool = True,
        activation: bool = True,
    ) -> None:
        super().__init__()
        who = "MultiScaleTemporalConv"
        branches = len(dilations) + 2
        width = out_channels // branches
        _check_options(who, kernel_size, stride, dilations)
        if width < 1:
            raise ValueError(
                message(
                    who, f"out_channels of at least {branches}, one for each branch", out_channels
                )
            )
        self.stride = stride
        self.activation = activation
        # One width for each dilation and the pool; the pointwise branch takes the rest of O.
        self.widths = [width] * (branches - 1)
        self.narrow = PointwiseConv(in_channels, width * (branches - 1), bias=False)
        self.narrow_norm = nn.BatchNorm2d(width * (branches - 1))
        self.dilated = nn.ModuleList(
            _conv_over_time(width, width, kernel_size, stride, d) for d in dilations
        )
        self.pointwise = PointwiseConv(
            in_channels, out_channels - width * (branches - 1), stride=stride, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module | None = None
        if residual:
            same = in_channels == out_channels and stride == 1
            self.shortcut = nn.Identity()
            if not same:
                self.shortcut = TemporalConv(
                    in_channels, out_channels, kernel_size=1, stride=stride
                )

    def forward(self, x: Tensor) -> Tensor:
        check_shape("MultiScaleTemporalConv", "x", x, f"N, C={self.narrow.in_channels}, T>0, V")
        # All branches are narrowed in one convolution, in the order dilations, then pool.
        *parts, pooled = torch.split(F.relu(self.narrow_norm(self.narrow(x))), self.widths, dim=1)
        branches = [conv(part) for conv, part in zip(self.dilated, parts, strict=True)]
        branches.append(F.max_pool2d(pooled, (3, 1), (self.stride, 1), (1, 0)))
        branches.append(self.pointwise(x))
        y = self.norm(torch.cat(branches, dim=1))
        y = y if self.shortcut is None else y + self.shortcut(x)
        return F.relu(y) if self.activation else y


def _check_options(who: str, kernel_size: int, stride: int, dilations: Sequence[int]) -> None:
    if kernel_size % 2 != 1 or kernel_size <= 0:
        raise ValueError(message(who, "an odd kernel_size", kernel_size))
    if stride < 1:
        raise ValueError(message(who, "a stride of at least 1", stride))
    if not all(d >= 1 for d in dilations):
        raise ValueError(message(who, "dilations of at least 1", list(dilations)))


def _conv_over_time(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, dilation: int
) -> nn.Conv2d:
    """Convolve over time, keeping ceil(T / stride) frames.

    There is no bias, because the BatchNorm that follows removes it.
    """
    if kernel_size == 1:
        return PointwiseConv(in_channels, out_channels, stride=stride, bias=False)
    # Half the kernel's extent on each side keeps T at stride 1; it needs an odd kernel.
    padding = dilation * (kernel_size - 1) // 2
    return nn.Conv2d(
        in_channels,
        out_channels,
        (kernel_size, 1),
        (stride, 1),
        (padding, 0),
        (dilation, 1),
        bias=False,
    )
