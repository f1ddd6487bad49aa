"""STF-GCN: our own network of six stacked STF modules (Ke et al., AAAI 2022). One file to copy.

from stf_gcn import STFGCN
logits = STFGCN(num_classes=60, layout=NTU25)(x)          # x (N, C, T, V, M)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skeleton_focus import (
    MultiScaleTemporalConv,
    SkeletonLayout,
    STFGraphConv,
    multi_scale_adjacency,
)


class STFBlock(nn.Module):
    """STF graph convolution over K = 3 scales, then multi-scale temporal convolution."""

    def __init__(
        self, in_channels: int, out_channels: int, adjacency: Tensor, *, stride: int = 1
    ) -> None:
        super().__init__()
        self.graph = STFGraphConv(in_channels, out_channels, adjacency, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.temporal = MultiScaleTemporalConv(out_channels, out_channels, stride=stride)
        self.same = in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.graph(x))
        return self.temporal(F.relu(y + x if self.same else y))  # (N, O, T / stride, V)


class STFGCN(nn.Module):
    """A network of our own from the paper's modules.

    For STFObjective: ``layers=["blocks.4", "blocks.5"], head="fc"``.

    The paper's network is MS-G3D with STF modules: ms_g3d.py. ``first_scale=1`` takes the joints 1,
    2 and 3 bones apart as A_1, A_2 and A_3 in place of 0, 1 and 2.

    Shape: x (N, C, T, V, M) -> logits (N, num_classes).
    """

    def __init__(
        self,
        num_classes: int,
        layout: SkeletonLayout,
        *,
        in_channels: int = 4,
        widths: Sequence[int] = (96, 96, 192, 192, 384, 384),
        strides: Sequence[int] = (1, 1, 2, 1, 2, 1),
        first_scale: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(widths) != len(strides):
            raise ValueError(
                f"STFGCN: expected as many widths as strides, got {len(widths)} and {len(strides)}"
            )
        adjacency = multi_scale_adjacency(layout, 3, first=first_scale)
        self.in_channels = in_channels
        self.norm = nn.BatchNorm1d(in_channels * layout.num_joints)
        sizes = zip([in_channels, *widths[:-1]], widths, strides, strict=True)
        self.blocks = nn.ModuleList(
            STFBlock(before, width, adjacency, stride=stride) for before, width, stride in sizes
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        expected = (self.in_channels, self.norm.num_features // self.in_channels)
        if x.dim() != 5 or (x.shape[1], x.shape[3]) != expected or not x.numel():
            channels, joints = expected
            raise ValueError(
                f"STFGCN: expected x (N, C={channels}, T, V={joints}, M), got {tuple(x.shape)}"
            )
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 1, 3, 2).reshape(n * m, c * v, t)  # (N*M, C*V, T)
        x = self.norm(x).view(n * m, c, v, t).transpose(2, 3)  # (N*M, C, T, V)
        for block in self.blocks:
            x = block(x)
        return self.fc(
            self.dropout(x.view(n, m, x.shape[1], -1).mean((1, 3)))
        )  # pooled over persons, frames, joints


if __name__ == "__main__":
    from skeleton_focus import NTU25

    model = STFGCN(60, NTU25)
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, logits",
        tuple(model(torch.randn(2, 4, 64, 25, 2)).shape),
    )
