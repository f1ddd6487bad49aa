"""FG-STFormer (Gao et al., ACCV 2022): focal joints, body parts, temporal attention. One file.

from fg_stformer import FGSTFormer
logits = FGSTFormer(num_classes=60, layout=NTU25)(x)      # x (N, C, T, V, M)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skeleton_focus import (
    DilatedTemporalAttention,
    FocalJointSelection,
    JointPartAttention,
    PartEncoding,
    ScatterToJoints,
    SkeletonLayout,
    SpatialAttention,
)


class FocalGlobalLayer(nn.Module):
    """A layer of stage 2: joints and parts, each by itself, from each other, then over time."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layout: SkeletonLayout,
        *,
        parts: bool,
        cross: bool,
        shared_map: str,
        **temporal: Any,
    ) -> None:
        super().__init__()
        self.joint_attention = SpatialAttention(
            in_channels, layout.num_joints, shared_map=shared_map
        )
        self.joint_temporal = DilatedTemporalAttention(in_channels, out_channels, **temporal)
        if parts:
            self.part_attention = SpatialAttention(
                in_channels, len(layout.parts), shared_map=shared_map
            )
            self.part_temporal = DilatedTemporalAttention(in_channels, out_channels, **temporal)
        self.cross = JointPartAttention(in_channels) if parts and cross else None

    def forward(
        self, x: Tensor, which: Tensor, parts: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        x = self.joint_attention(x, which)
        if parts is not None:
            parts = self.part_attention(parts)
            if self.cross is not None:
                x, parts = self.cross(x, parts)
            parts = self.part_temporal(parts)  # (N, O, T / stride, P)
        x = self.joint_temporal(x)  # (N, O, T / stride, K)
        return x, which[:, :: self.joint_temporal.stride], parts


class FGSTFormer(nn.Module):
    """The network of the paper: ``layers=["stage1", "on_joints"], head=None`` for STFObjective.

    ``focal_joints`` is the paper's K; 0 keeps all joints. ``stages`` are L1 and L2. ``parts``,
    ``cross``, ``attention`` and ``convolution`` switch off what tables 1 and 3 switch off.
    ``shared_map="per_head"`` gives each head a map A_g.

    Shape: x (N, C, T, V, M) -> logits (N, num_classes).
    """

    def __init__(
        self,
        num_classes: int,
        layout: SkeletonLayout,
        *,
        in_channels: int = 3,
        widths: Sequence[int] = (64, 64, 128, 128, 256, 256, 256, 256),
        strides: Sequence[int] = (1, 1, 2, 1, 2, 1, 1, 1),
        stages: Sequence[int] = (6, 2),
        focal_joints: int = 15,
        parts: bool = True,
        cross: bool = True,
        attention: bool = True,
        convolution: bool = True,
        shared_map: str = "one",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        first = stages[0]
        depth = sum(stages)
        if len(stages) != 2 or min(stages) < 1 or not len(widths) == len(strides) == depth:
            got = f"stages {tuple(stages)}, {len(widths)} widths and {len(strides)} strides"
            raise ValueError(
                "FGSTFormer: expected two stages, and a width and a stride for each layer, got "
                f"{got}"
            )
        temporal = {"attention": attention, "convolution": convolution}
        before = [widths[0], *widths]
        self.norm = nn.BatchNorm1d(in_channels * layout.num_joints)
        self.embed = nn.Conv2d(in_channels, widths[0], 1)
        self.stage1 = nn.Sequential(
            *(
                nn.Sequential(
                    SpatialAttention(before[i], layout.num_joints, shared_map=shared_map),
                    DilatedTemporalAttention(before[i], widths[i], stride=strides[i], **temporal),
                )
                for i in range(first)
            )
        )
        self.select = FocalJointSelection(before[first], focal_joints) if focal_joints else None
        self.part_encoding = (
            PartEncoding(before[first], before[first], layout.parts.values()) if parts else None
        )
        self.stage2 = nn.ModuleList(
            FocalGlobalLayer(
                before[i],
                widths[i],
                layout,
                parts=parts,
                cross=cross,
                shared_map=shared_map,
                stride=strides[i],
                **temporal,
            )
            for i in range(first, depth)
        )
        self.on_joints = ScatterToJoints(layout.num_joints)
        width = widths[-1] * (2 if parts else 1)
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        expected = (self.embed.in_channels, self.on_joints.num_joints)
        if x.dim() != 5 or (x.shape[1], x.shape[3]) != expected or not x.numel():
            channels, joints = expected
            raise ValueError(
                f"FGSTFormer: expected x (N, C={channels}, T, V={joints}, M), got {tuple(x.shape)}"
            )
        n, c, t, v, m = x.shape
        x = self.norm(x.permute(0, 4, 1, 3, 2).reshape(n * m, c * v, t)).view(n * m, c, v, t)
        x = self.stage1(self.embed(x.transpose(2, 3)))  # (N*M, C, T, V)
        parts = None if self.part_encoding is None else self.part_encoding(x)  # (N*M, C, T, P)
        if self.select is None:
            which = torch.arange(v, device=x.device).expand(x.shape[0], x.shape[2], v)
        else:
            x, which, _ = self.select(x)  # (N*M, C, T, K)
        for layer in self.stage2:
            x, which, parts = layer(x, which, parts)
        slots = x.shape[3]
        pooled = self.on_joints(x, which).sum(3).mean(2) / slots  # the mean over frames and slots
        if parts is not None:
            pooled = torch.cat([pooled, parts.mean((2, 3))], 1)
        pooled = pooled.view(n, m, pooled.shape[1]).mean(1)  # over persons
        return self.fc(self.dropout(F.leaky_relu(self.hidden(pooled))))


if __name__ == "__main__":
    from skeleton_focus import NTU25

    model = FGSTFormer(60, NTU25)
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, logits",
        tuple(model(torch.randn(2, 3, 32, 25, 2)).shape),
    )
