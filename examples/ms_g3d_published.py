"""Load a checkpoint of the published MS-G3D code into MSG3D of ms_g3d.py.

from ms_g3d_published import load_published
network = load_published(MSG3D(60, NTU25, stf=True), "ntu60-xsub-joint.pt")
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ms_g3d import MSG3D, MSG3DBlock
from torch import Tensor, nn

from skeleton_focus import MultiScaleTemporalConv


def load_published(network: MSG3D, path: str | Path, *, replace_head: bool = False) -> MSG3D:
    """Load the weights of a checkpoint, also of one that was saved from DataParallel.

    ``replace_head=True`` keeps the network's own last layer, for another number of classes. STF's
    own weights are not in a checkpoint and stay as they are.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        old = _Published({key.removeprefix("module."): value for key, value in saved.items()})
    except (RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        hint = "save the network's state_dict() alone, a dictionary of names and tensors"
        raise ValueError(f"expected a published checkpoint, got {path}: {reason}; {hint}") from None
    new = _prefixed("norm", old.norm(["data_bn"], [None], len(network.norm.weight)))
    for i, block in enumerate(network.blocks):
        new |= _prefixed(f"blocks.{i}", _block(old, str(i + 1), block))
    if replace_head:
        old.used |= {"fc.weight", "fc.bias"}
    else:
        for name, value in network.fc.named_parameters():
            new[f"fc.{name}"] = old.take(f"fc.{name}", value.shape)
    old.check(path)
    network.load_state_dict(new, strict=False)
    return network


class _Published:
    """A published state dict, and what was missing in it."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.used = set[str]()
        self.problems = list[str]()

    def take(self, key: str, shape: Sequence[int]) -> Tensor:
        """Take a tensor by name and shape; if there is none, zeros and a note for :meth:`check`."""
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
        """Join several BatchNorms; each takes over the bias of the convolution before it."""
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
            hint = "other widths, scales, persons or skeleton, or not a published state_dict()"
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
    """Convert a graph convolution: A_res is (scale, target) x source."""
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
    """Convert a temporal convolution, whose published branches are separate."""
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
