"""Mix the channels of a feature map: a 1x1 convolution, computed as a matrix product on a CPU.

oneDNN reorders a channels-first map before a 1x1 convolution and back after it. A matrix product
reads the map where it lies and took 0.4 to 0.6 times as long at these networks' sizes, with its
gradients (docs/speed.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mix_channels(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a 1x1 convolution: x (N, C, T, V), weight (O, C), bias (O,) -> (N, O, T, V)."""
    if not x.is_cpu or torch.compiler.is_exporting():  # exported files keep their convolutions
        return F.conv2d(x, weight[:, :, None, None], bias)
    n, c, t, v = x.shape
    columns = x.reshape(n, c, t * v)
    each = weight.expand(n, -1, -1)
    y = torch.bmm(each, columns) if bias is None else torch.baddbmm(bias[:, None], each, columns)
    return y.view(n, len(weight), t, v)


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution with a stride over time, x (N, C, T, V) -> (N, O, ceil(T / stride), V).

    It has the parameters of :class:`torch.nn.Conv2d`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, 1, (stride, 1), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        # Exported, a view with a step would hold for odd or for even T alone.
        if not x.is_cpu or torch.compiler.is_exporting():
            return super().forward(x)
        stride = self.stride[0]
        kept = x if stride == 1 else x[:, :, ::stride]
        return mix_channels(kept, self.weight.flatten(1), self.bias)


def mix_tokens(x: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """Apply a linear layer to channels: x (N, C, T, V), weight (O, C) -> (N, T, V, O).

    ``offset`` is added; it broadcasts to the result, like a bias (O,).
    """
    if not x.is_cpu or torch.compiler.is_exporting():
        return F.linear(x.permute(0, 2, 3, 1), weight) + offset
    n, c, t, v = x.shape
    o = len(weight)
    if offset.dim() < 4:
        offset = offset.expand(1, t, v, o)
    tokens = x.reshape(n, c, t * v).transpose(1, 2)
    each = weight.t().expand(n, -1, -1)
    return torch.baddbmm(offset.reshape(-1, t * v, o), tokens, each).view(n, t, v, o)
