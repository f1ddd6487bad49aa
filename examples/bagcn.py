"""BAGCN (Gao et al., 2019): nine blocks of focus, context and diffusion. One file to copy.

from bagcn import BAGCN
logits = BAGCN(num_classes=60, layout=NTU25)(x)           # x (N, C, T, V, M)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skeleton_focus import (
    FocusDiffusionBlock,
    SkeletonLayout,
    TemporalConv,
    directed_adjacency,
    mask_padding,
)


class BAGCNBlock(nn.Module):
    """Spatial focus, context and diffusion; temporal convolution; a residual."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layout: SkeletonLayout,
        *,
        stride: int = 1,
        focus: str,
        context: str,
    ) -> None:
        super().__init__()
        self.stride = stride
        graphs = [directed_adjacency(layout, direction) for direction in ("outward", "inward")]
        self.spatial = FocusDiffusionBlock(
            in_channels, out_channels, *graphs, focus=focus, context=context
        )
        self.temporal = TemporalConv(out_channels, out_channels, stride=stride)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.shortcut = TemporalConv(in_channels, out_channels, kernel_size=1, stride=stride)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        y = F.relu(self.temporal(self.spatial(x, lengths)) + self.shortcut(x))
        return mask_padding(y, shortened(lengths, self.stride))  # (N, O, T / stride, V)


class BAGCN(nn.Module):
    """The network of the paper: ``layers=["blocks.7", "blocks.8"], head="fc"`` for STFObjective.

    ``focus`` and ``context`` are the rows of tables 3 and 4. Of clips that are padded at their end,
    ``lengths`` (N,) gives the true number of frames; what lies beyond changes nothing in
    ``eval()``. In training BatchNorm counts it, as zeros.

    Shape: x (N, C, T, V, M) -> logits (N, num_classes).
    """

    def __init__(
        self,
        num_classes: int,
        layout: SkeletonLayout,
        *,
        in_channels: int = 6,
        widths: Sequence[int] = (64, 64, 64, 128, 128, 128, 256, 256, 256),
        strides: Sequence[int] = (1, 1, 1, 2, 1, 1, 2, 1, 1),
        focus: str = "attention",
        context: str = "bidirectional",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not widths or len(widths) != len(strides):
            got = f"{len(widths)} widths and {len(strides)} strides"
            raise ValueError(f"BAGCN: expected a width and a stride for each block, got {got}")
        self.in_channels = in_channels
        self.norm = nn.BatchNorm1d(in_channels * layout.num_joints)
        sizes = zip([in_channels, *widths[:-1]], widths, strides, strict=True)
        self.blocks = nn.ModuleList(
            BAGCNBlock(before, width, layout, stride=stride, focus=focus, context=context)
            for before, width, stride in sizes
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        expected = (self.in_channels, self.norm.num_features // self.in_channels)
        if x.dim() != 5 or (x.shape[1], x.shape[3]) != expected or not x.numel():
            channels, joints = expected
            raise ValueError(
                f"BAGCN: expected x (N, C={channels}, T, V={joints}, M), got {tuple(x.shape)}"
            )
        n, c, t, v, m = x.shape
        if lengths is not None:
            lengths = torch.as_tensor(lengths).cpu()  # read there, once
            if lengths.shape != (n,) or lengths.min() < 1 or lengths.max() > t:
                raise ValueError(
                    f"BAGCN: expected {n} lengths in 1..{t}, one for each clip, got "
                    f"{lengths.tolist()}"
                )
            lengths = lengths.repeat_interleave(m)
        x = mask_padding(x.permute(0, 4, 1, 2, 3).flatten(0, 1), lengths)  # (N*M, C, T, V)
        x = self.norm(x.transpose(2, 3).reshape(n * m, c * v, t)).view(n * m, c, v, t)
        x = mask_padding(x.transpose(2, 3), lengths)
        for block in self.blocks:
            x = block(x, lengths)
            lengths = shortened(lengths, block.stride)
        pooled = x.mean(3).sum(2)  # over joints
        pooled = (
            pooled / x.shape[2] if lengths is None else pooled / lengths[:, None].to(x.device)
        )  # over frames
        return self.fc(self.dropout(pooled.view(n, m, -1).mean(1)))  # over persons


def shortened(lengths: Tensor | None, stride: int) -> Tensor | None:
    """Divide lengths (N,) by the stride, rounding up."""
    return None if lengths is None else -(-lengths // stride)


if __name__ == "__main__":
    from skeleton_focus import NTU25

    model = BAGCN(60, NTU25)
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, logits",
        tuple(model(torch.randn(2, 6, 32, 25, 2)).shape),
    )
