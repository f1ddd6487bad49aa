"""Mix the channels of a feature map: a 1x1 convolution, computed as a matrix product on a CPU.

oneDNN reorders a channels-first map before a 1x1 convolution and back after it. A matrix product
reads the map where it lies and took 0.4 to 0.6 times as long at these networks' sizes, with its
gradients (docs/speed.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._versions import is_exporting


def mix_channels(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 1x1 convolution: x (N, C, T, V), weight (O, C), bias (O,) -> (N, O, T, V)."""
    if not x.is_cpu or is_exporting():  # exported files keep their convolutions
        return F.conv2d(x, weight[:, :, None, None], bias)
    n, c, t, v = x.shape
    columns = x.reshape(n, c, t * v)
    each = weight.expand(n, -1, -1)
    y = torch.bmm(each, columns) if bias is None else torch.baddbmm(bias[:, None], each, columns)
    return y.view(n, len(weight), t, v)


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution with a stride over time, x (N, C, T, V) -> (N, O, ceil(T / stride), V).

    Its weight and bias have the names and shapes of :class:`torch.nn.Conv2d`'s. On a CPU, the
    result is channels first in memory, whatever x is.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, 1, (stride, 1), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        # An exported slice with a step would accept only odd or only even numbers of frames.
        if not x.is_cpu or is_exporting():
            return super().forward(x)
        stride = self.stride[0]
        kept = x if stride == 1 else x[:, :, ::stride]
        return mix_channels(kept, self.weight.flatten(1), self.bias)


def mix_tokens(x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """Apply a linear layer to channels on a CPU: x (N, C, T, V), weight (O, C) -> (N, T, V, O).

    ``offset``, (O,) or (V, O) or (N, T, V, O), is added.
    """
    n, c, t, v = x.shape
    o = len(weight)
    if offset.dim() < 4:
        offset = offset.expand(1, t, v, o)
    tokens = x.reshape(n, c, t * v).transpose(1, 2)
    each = weight.t().expand(n, -1, -1)
    return torch.baddbmm(offset.reshape(-1, t * v, o), tokens, each).view(n, t, v, o)


class TokenLinear(nn.Linear):
    """A linear layer of each joint's and frame's channels, x (N, C, T, V) -> (N, T, V, O)."""

    def forward(
        self, x: Tensor, codes: Tensor | None = None, joints: Tensor | None = None
    ) -> Tensor:
        """Add ``codes`` (V, C) of the joints (N, T, V'), by default all V in order, to x first."""
        if not x.is_cpu or is_exporting():
            tokens = x.permute(0, 2, 3, 1)
            if codes is not None:
                tokens = tokens + (codes if joints is None else codes[joints])
            return super().forward(tokens)
        offset: Tensor = self.bias
        if codes is not None:
            # (x + e) W = x W + e W, and the codes are fewer than the tokens.
            offset = F.linear(codes, self.weight, offset)
            offset = offset if joints is None else offset[joints]
        return mix_tokens(x, self.weight, offset)
