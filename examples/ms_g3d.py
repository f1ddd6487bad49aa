"""MS-G3D (Liu et al., CVPR 2020), the published network, and STF (Ke et al., AAAI 2022) on it. One
file to copy.

from ms_g3d import MSG3D
network = MSG3D(num_classes=60, layout=NTU25, stf=True).load_published("ntu60-xsub-joint.pt")
logits = network(x)                                       # x (N, C, T, V, M)
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
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
    """STF's equation 1 with K = 3 and its own W_k, added to its input; starts as the identity of
    what a ReLU gave.
    """

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
    """G3D pathways over two windows beside a spatial and temporal one; their sum; a temporal
    convolution.
    """

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
    """The whole network: ``layers=["block2", "block3"], head="fc"`` for STFObjective.

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
        self.norm = nn.BatchNorm1d(num_persons * layout.num_joints * in_channels)
        same: dict[str, Any] = {
            "layout": layout,
            "scales": scales,
            "window_scales": window_scales,
            "stf": arrangement,
        }
        self.block1 = MSG3DBlock(in_channels, widths[0], first=True, stride=strides[0], **same)
        self.block2 = MSG3DBlock(widths[0], widths[1], stride=strides[1], **same)
        self.block3 = MSG3DBlock(widths[1], widths[2], stride=strides[2], **same)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 5 or not x.numel():
            raise ValueError(f"MSG3D: expected x (N, C, T, V, M) with values, got {tuple(x.shape)}")
        n, c, t, v, m = x.shape
        x = self.norm(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
        x = x.view(n * m, v, c, t).permute(0, 2, 3, 1).contiguous()  # (N*M, C, T, V)
        x = self.block3(self.block2(self.block1(x)))
        return self.fc(
            self.dropout(x.view(n, m, x.shape[1], -1).mean((1, 3)))
        )  # pooled over persons, frames, joints

    def load_published(self, path: str | Path, *, replace_head: bool = False) -> MSG3D:
        """Take the weights of a checkpoint of the published code, also one saved from DataParallel.

        ``replace_head``: keep the own last layer, for another number of classes. STF's own weights
        stay as they are.
        """
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            old = _Published({key.removeprefix("module."): value for key, value in saved.items()})
        except (RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0].split(". ")[0]
            hint = "save the network's state_dict() alone, a dictionary of names and tensors"
            raise ValueError(
                f"expected a published checkpoint, got {path}: {reason}; {hint}"
            ) from None
        new = {
            f"norm.{name}": value
            for name, value in old.norm(["data_bn"], [None], len(self.norm.weight)).items()
        }
        for i, block in enumerate((self.block1, self.block2, self.block3), start=1):
            new |= _prefixed(f"block{i}", _block(old, str(i), block))
        if replace_head:
            old.used |= {"fc.weight", "fc.bias"}
        else:
            new |= {
                f"fc.{name}": old.take(f"fc.{name}", value.shape)
                for name, value in self.fc.named_parameters()
            }
        old.check(path)
        self.load_state_dict(new, strict=False)
        return self


class _Published:
    """A published state dict, and what of it was asked for in vain."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.used = set[str]()
        self.problems = list[str]()

    def take(self, key: str, shape: Sequence[int]) -> Tensor:
        """A tensor of this name and shape; zeros, and a note for :meth:`check`, where there is
        none.
        """
        self.used.add(key)
        got = self.tensors.get(key)
        if not isinstance(got, Tensor):
            self.problems.append(f"missing: {key} {tuple(shape)}")
        elif got.shape != torch.Size(shape):
            self.problems.append(
                f"of another shape: {key}, expected {tuple(shape)}, got {tuple(got.shape)}"
            )
        else:
            return got
        return torch.zeros(tuple(shape))

    def norm(self, norms: list[str], convs: list[str | None], *sizes: int) -> dict[str, Tensor]:
        """Several BatchNorms as one; each takes over the bias of the convolution before it."""
        found = {}
        for part in ("weight", "bias", "running_mean", "running_var"):
            each = [self.take(f"{n}.{part}", (size,)) for n, size in zip(norms, sizes, strict=True)]
            if part == "running_mean":
                biases = [
                    0 if c is None else self.take(f"{c}.bias", (s,))
                    for c, s in zip(convs, sizes, strict=True)
                ]
                each = [mean - bias for mean, bias in zip(each, biases, strict=True)]
            found[part] = torch.cat(each)
        return found

    def check(self, path: str | Path) -> None:
        """Raise an error that lists everything that did not fit."""
        left = [
            key
            for key in self.tensors
            if key not in self.used and not key.endswith("num_batches_tracked")
        ]
        problems = self.problems + [f"unexpected: {key}" for key in left]
        if problems:
            hint = "other widths, scales, persons or skeleton, or no state_dict() of the published network"
            if all("fc." in problem for problem in problems):
                hint = "replace_head=True keeps the own fc"
            more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
            listed = "\n  ".join(problems[:20] + more)
            raise ValueError(
                f"expected a checkpoint of this network, got {path}; {hint}:\n  {listed}"
            )


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value for key, value in tensors.items()}


def _block(old: _Published, number: str, block: MSG3DBlock) -> dict[str, Tensor]:
    new = _graph(old, f"sgcn{number}.0", "graph", block.graph)
    for ours, theirs in (
        ("temporal1", f"sgcn{number}.1"),
        ("temporal2", f"sgcn{number}.2"),
        ("temporal3", f"tcn{number}"),
    ):
        new |= _prefixed(ours, _temporal(old, theirs, getattr(block, ours)))
    for i, pathway in enumerate(block.windows):
        theirs = f"gcn3d{number}.gcn3d.{i}"
        new |= _graph(old, f"{theirs}.gcn3d.1", f"windows.{i}", pathway)
        o, c, w, _ = pathway.collapse.weight.shape
        new[f"windows.{i}.collapse.weight"] = old.take(
            f"{theirs}.out_conv.weight", (o, c, 1, w, 1)
        ).squeeze(2)
        norm = old.norm([f"{theirs}.out_bn"], [f"{theirs}.out_conv"], o)
        new |= _prefixed(f"windows.{i}.collapse_norm", norm)
    return new


def _graph(old: _Published, theirs: str, ours: str, layer: Any) -> dict[str, Tensor]:
    """Published rows of A_res are (scale, target), its columns sources; columns of the weight are
    (scale, channel).
    """
    (k, o, c) = layer.conv.weight.shape
    size = layer.conv.adjacency.shape[-1]
    conv = f"{theirs}.mlp.layers.0"
    return {
        f"{ours}.conv.correction": old.take(f"{theirs}.A_res", (k * size, size))
        .view(k, size, size)
        .transpose(1, 2),
        f"{ours}.conv.weight": old.take(f"{conv}.weight", (o, k * c, 1, 1))
        .view(o, k, c)
        .transpose(0, 1),
        **_prefixed(f"{ours}.norm", old.norm([f"{theirs}.mlp.layers.1"], [conv], o)),
    }


def _temporal(old: _Published, theirs: str, layer: MultiScaleTemporalConv) -> dict[str, Tensor]:
    """The published branches narrow and normalise one by one; ours together."""
    branches = len(layer.widths)
    width = layer.widths[0]
    last = layer.pointwise.weight.shape[0]
    narrow = [f"{theirs}.branches.{i}.0" for i in range(branches)]
    dilated = [f"{theirs}.branches.{i}.3" for i in range(branches - 1)]
    pooled = f"{theirs}.branches.{branches - 1}.4"
    pointwise = f"{theirs}.branches.{branches}"
    c = layer.narrow.weight.shape[1]
    new = {
        "narrow.weight": torch.cat(
            [old.take(f"{name}.weight", (width, c, 1, 1)) for name in narrow]
        ),
        "pointwise.weight": old.take(f"{pointwise}.0.weight", (last, c, 1, 1)),
        **_prefixed(
            "narrow_norm", old.norm([f"{n[:-1]}1" for n in narrow], narrow, *[width] * branches)
        ),
        **_prefixed(
            "norm",
            old.norm(
                [*(f"{name}.bn" for name in dilated), pooled, f"{pointwise}.1"],
                [*(f"{name}.conv" for name in dilated), None, f"{pointwise}.0"],
                *[width] * branches,
                last,
            ),
        ),
    }
    for i, conv in enumerate(layer.dilated):
        new[f"dilated.{i}.weight"] = old.take(f"{dilated[i]}.conv.weight", conv.weight.shape)
    if layer.shortcut is not None and not isinstance(layer.shortcut, nn.Identity):
        o = layer.norm.num_features
        new["shortcut.conv.weight"] = old.take(f"{theirs}.residual.conv.weight", (o, c, 1, 1))
        new |= _prefixed(
            "shortcut.norm", old.norm([f"{theirs}.residual.bn"], [f"{theirs}.residual.conv"], o)
        )
    return new


if __name__ == "__main__":
    from skeleton_focus import NTU25

    for stf in (False, "modules", "scales"):
        model = MSG3D(60, NTU25, stf=stf)
        print(
            f"stf={stf}: {sum(p.numel() for p in model.parameters()):,} parameters, logits",
            tuple(model(torch.randn(2, 3, 32, 25, 2)).shape),
        )
