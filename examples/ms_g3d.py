"""MS-G3D (Liu et al., CVPR 2020), and STF (Ke et al., AAAI 2022) on it. One file to copy.

from ms_g3d import MSG3D
logits = MSG3D(num_classes=60, layout=NTU25, stf=True)(x)  # x (N, C, T, V, M)

ms_g3d_published.py loads checkpoints of the published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skeleton_focus import (
    MultiScaleG3D,
    MultiScaleGraphConv,
    MultiScaleTemporalConv,
    SkeletonLayout,
    STFGraphConv,
    multi_scale_adjacency,
    window_adjacency,
)

WINDOWS = (3, 5)
STF_SCALES = 3  # K of STF's equation 1


class STFModule(nn.Module):
    """STF's equation 1 with K = 3 and own W_k, added to its input; the identity at the start."""

    def __init__(self, channels: int, layout: SkeletonLayout) -> None:
        super().__init__()
        self.graph = STFGraphConv(
            channels, channels, multi_scale_adjacency(layout, STF_SCALES), bias=False
        )
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.graph(x)))  # (N, C, T, V)


class MSG3DBlock(nn.Module):
    """Add G3D pathways over two windows to a spatial one; then a temporal convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        layout: SkeletonLayout,
        scales: int,
        window_scales: int,
        stf: str,
        first: bool = False,
        stride: int = 1,
    ) -> None:
        super().__init__()
        middle = out_channels if first else in_channels
        adjacency = multi_scale_adjacency(layout, scales)
        self.windows = nn.ModuleList(
            MultiScaleG3D(
                in_channels,
                out_channels,
                window_adjacency(layout, window, window_scales),
                window,
                stride=stride,
                hidden_channels=middle,
            )
            for window in WINDOWS
        )
        self.graph = MultiScaleGraphConv(in_channels, middle, adjacency)
        if stf:  # A_k + G_k in place of A_k; G starts at zero
            generated = scales if stf == "scales" else min(STF_SCALES, scales)
            self.graph.conv = STFGraphConv(
                in_channels,
                middle,
                adjacency,
                learn_adjacency=True,
                bias=False,
                generated=generated,
            )
        self.stf = STFModule(middle, layout) if stf == "modules" else nn.Identity()
        self.temporal1 = MultiScaleTemporalConv(middle, out_channels, stride=stride)
        self.temporal2 = MultiScaleTemporalConv(out_channels, out_channels, activation=False)
        self.temporal3 = MultiScaleTemporalConv(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.temporal2(self.temporal1(self.stf(self.graph(x))))
        for pathway in self.windows:
            y = y + pathway(x)
        return self.temporal3(F.relu(y))  # (N, O, T / stride, V)


class MSG3D(nn.Module):
    """The whole network: ``layers=["blocks.1", "blocks.2"], head="fc"`` for STFObjective.

    ``stf``: True or "modules" puts two STF modules of K = 3 in a row into each block's spatial
    pathway, six in all: the block's graph convolution with G_k on its first three scales, then an
    :class:`STFModule`. "scales" adds G_k to all scales of the three graph convolutions and no
    further module. Either starts as MS-G3D with the same weights.

    Shape: x (N, C, T, V, M) -> logits (N, num_classes).
    """

    def __init__(
        self,
        num_classes: int,
        layout: SkeletonLayout,
        *,
        in_channels: int = 3,
        num_persons: int = 2,
        widths: Sequence[int] = (96, 192, 384),
        strides: Sequence[int] = (1, 2, 2),
        scales: int = 13,
        window_scales: int = 6,
        dropout: float = 0.0,
        stf: bool | str = False,
    ) -> None:
        super().__init__()
        arrangement = "modules" if stf is True else stf or ""
        if arrangement not in ("", "modules", "scales"):
            raise ValueError(
                f"MSG3D: expected stf to be True, False, 'modules' or 'scales', got {stf!r}"
            )
        if not len(widths) == len(strides) == 3:
            raise ValueError(
                f"MSG3D: expected 3 widths and 3 strides, got {len(widths)} and {len(strides)}"
            )
        self.expected = (in_channels, layout.num_joints, num_persons)
        self.norm = nn.BatchNorm1d(num_persons * layout.num_joints * in_channels)
        same: dict[str, Any] = {
            "layout": layout,
            "scales": scales,
            "window_scales": window_scales,
            "stf": arrangement,
        }
        before = [in_channels, *widths[:-1]]
        self.blocks = nn.ModuleList(
            MSG3DBlock(before[i], widths[i], first=i == 0, stride=strides[i], **same)
            for i in range(3)
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5 or (x.shape[1], *x.shape[3:]) != self.expected or not x.numel():
            channels, joints, persons = self.expected
            raise ValueError(
                f"MSG3D: expected x (N, C={channels}, T, V={joints}, M={persons}), got "
                f"{tuple(x.shape)}"
            )
        n, c, t, v, m = x.shape
        x = self.norm(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
        x = x.view(n * m, v, c, t).permute(0, 2, 3, 1).contiguous()  # (N*M, C, T, V)
        for block in self.blocks:
            x = block(x)
        return self.fc(
            self.dropout(x.view(n, m, x.shape[1], -1).mean((1, 3)))
        )  # pooled over persons, frames, joints


if __name__ == "__main__":
    from skeleton_focus import NTU25

    for stf in (False, "modules", "scales"):
        model = MSG3D(60, NTU25, stf=stf)
        print(
            f"stf={stf}: {sum(p.numel() for p in model.parameters()):,} parameters, logits",
            tuple(model(torch.randn(2, 3, 32, 25, 2)).shape),
        )
