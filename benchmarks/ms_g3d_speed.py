"""Time MS-G3D and its layers against the published order of operations, with equal weights.

    python benchmarks/ms_g3d_speed.py [--repeats 9] [--batch 8] [--frames 64] [--keep-memory]
        [--only layers network growth flops]

The published order, reimplemented here for comparison: windows are unfolded into a copy, all scales
are aggregated, then mixed; temporal branches run one by one. One training step is a forward and a
backward pass and an update. Steps are interleaved; a ratio is the median of the ratios within a
round. Peak memory is measured in a separate process: memory in use, and resident memory, which
includes the holes that glibc leaves between tensors.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from measure import (
    DEVICE,
    in_own_process,
    interleave,
    peak_memory,
    quartiles,
    ratio,
    setting,
    train_step,
)
from memory import keep_freed_memory
from ms_g3d import MSG3D, STFModule

from skeleton_focus import (
    NTU25,
    MultiScaleG3D,
    MultiScaleGraphConv,
    MultiScaleTemporalConv,
    window_adjacency,
)


def aggregate_and_mix(x: Tensor, layer: MultiScaleG3D | MultiScaleGraphConv) -> Tensor:
    """All scales of every joint side by side, then one 1x1 convolution, BatchNorm and ReLU."""
    n, c, t, v = x.shape
    weight = layer.conv.weight
    adjacency = layer.conv.current_adjacency(x)
    k, o, _ = weight.shape
    # (scale, target) by source, one or N of them.
    rows = adjacency.transpose(-1, -2).reshape(-1, k * v, v)
    carried = torch.einsum("nvu,nctu->nctv", rows.expand(n, -1, -1), x).view(n, c, t, k, v)
    carried = carried.permute(0, 3, 1, 2, 4).contiguous().view(n, k * c, t, v)
    mixed = F.conv2d(carried, weight.transpose(0, 1).reshape(o, k * c, 1, 1))
    return F.relu(layer.norm(mixed))


class PublishedG3D(nn.Module):
    """Our pathway's weights in the published order."""

    def __init__(self, layer: MultiScaleG3D) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        n, c, _, v = x.shape
        w = layer.window
        s = layer.stride
        windows = F.unfold(x, (w, 1), stride=(s, 1), padding=(w // 2, 0)).view(n, c, w, -1, v)
        windows = windows.permute(0, 1, 3, 2, 4).contiguous()
        y = aggregate_and_mix(windows.view(n, c, -1, w * v), layer)
        y = y.view(n, y.shape[1], -1, w, v)
        return layer.collapse_norm(F.conv3d(y, layer.collapse.weight.unsqueeze(2)).squeeze(3))


class PublishedGraph(nn.Module):
    """Our multi-scale graph convolution's weights in the published order."""

    def __init__(self, layer: MultiScaleGraphConv) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return aggregate_and_mix(x, self.layer)


class PublishedTemporal(nn.Module):
    """Our multi-scale temporal convolution's weights, branch by branch."""

    def __init__(self, layer: MultiScaleTemporalConv) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        outputs = []
        width = layer.widths[0]
        branches = len(layer.widths)
        for i in range(branches):
            part = slice(i * width, (i + 1) * width)
            y = F.relu(_norm(F.conv2d(x, layer.narrow.weight[part]), layer.narrow_norm, part))
            if i < branches - 1:
                y = layer.dilated[i](y)
            else:
                y = F.max_pool2d(y, (3, 1), (layer.stride, 1), (1, 0))
            outputs.append(_norm(y, layer.norm, part))
        outputs.append(_norm(layer.pointwise(x), layer.norm, slice(branches * width, None)))
        y = torch.cat(outputs, 1)
        y = y if layer.shortcut is None else y + layer.shortcut(x)
        return F.relu(y) if layer.activation else y


PUBLISHED = {
    MultiScaleG3D: PublishedG3D,
    MultiScaleGraphConv: PublishedGraph,
    MultiScaleTemporalConv: PublishedTemporal,
}


def _norm(y: Tensor, norm: nn.BatchNorm2d, part: slice) -> Tensor:
    mean = norm.running_mean
    var = norm.running_var
    assert mean is not None and var is not None
    return F.batch_norm(
        y, mean[part], var[part], norm.weight[part], norm.bias[part], norm.training, 0.1, norm.eps
    )


def published(network: nn.Module) -> nn.Module:
    """A copy of the network that works in the published order."""
    if type(network) in PUBLISHED:
        return PUBLISHED[type(network)](copy.deepcopy(network))  # type: ignore[arg-type]
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if type(module) in PUBLISHED:
            network.set_submodule(name, PUBLISHED[type(module)](module))  # type: ignore[arg-type]
    return network


def pair(network: nn.Module, x: Tensor) -> dict[str, Callable[[], None]]:
    """Both orders, after a check that they give the same."""
    other = published(network)
    with torch.no_grad():
        ours = network.eval()(x)
        theirs = other.eval()(x)
    error = ((ours - theirs).norm() / theirs.norm()).item()
    assert error < 1e-4, f"the two orders differ by {error}"
    return {"published": train_step(other.train(), x), "ours": train_step(network.train(), x)}


LAYERS = {
    f"G3D {c}->{o}, window {w}, stride {s}, T {t}": (c, o, w, s, t)
    for c, o, s, t in ((3, 96, 1, 64), (96, 192, 2, 64), (192, 384, 2, 32))
    for w in (3, 5)
}
HEADER = (
    f"{'':36}{'published, ms (quartiles)':>30}{'ours, ms (quartiles)':>30}{'x faster':>10}"
    f"{'MiB in use':>20}{'MiB resident':>20}"
)


def layer_and_input(name: str, given: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    c, o, w, s, t = LAYERS[name]
    layer = MultiScaleG3D(
        c, o, window_adjacency(NTU25, w, 6), w, stride=s, hidden_channels=o if c == 3 else c
    )
    x = torch.randn(2 * given.batch, c, t * given.frames // 64, 25, device=DEVICE)
    return layer.to(DEVICE), x.requires_grad_(c != 3)  # the first layer's input needs no gradient


def network_and_input(given: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    network = MSG3D(60, NTU25).to(DEVICE)
    return network, torch.randn(given.batch, 3, given.frames, 25, 2, device=DEVICE)


def row(name: str, network: nn.Module, x: Tensor, given: argparse.Namespace) -> None:
    """One line: times interleaved, memory from processes of their own."""
    times = interleave(pair(network, x), given.repeats)
    print(
        f"{name:36}{quartiles(times['published']):>30}{quartiles(times['ours']):>30}"
        f"{ratio(times['published'], times['ours']):10.2f}",
        end="",
        flush=True,
    )
    for holes in (False, True):
        theirs, ours = (
            in_own_process("--peak", name, order, holes=holes) for order in ("published", "ours")
        )
        print(f"{theirs:7.0f}{ours:7.0f}{ours / theirs:6.2f}", end="", flush=True)
    print()


def growth(given: argparse.Namespace) -> None:
    """One pathway (96 -> 192) with one quantity doubled at a time."""
    print("\nG3D 96->192, stride 2, one training step: how it grows")
    base = {"N": 8, "T": 32, "V": 25, "window": 3}
    tried = {"N": (4, 8, 16), "T": (16, 32, 64), "V": (10, 20, 40), "window": (3, 5, 7)}
    for quantity, values in tried.items():
        for value in values:
            size = {**base, quantity: value}
            torch.manual_seed(0)
            joints = size["window"] * size["V"]
            adjacency = torch.rand(6, joints, joints) / joints
            layer = MultiScaleG3D(96, 192, adjacency, size["window"], stride=2).to(DEVICE)
            x = torch.randn(size["N"], 96, size["T"], size["V"], device=DEVICE)
            times = interleave(pair(layer, x), given.repeats)
            print(
                f"  {quantity:7}{value:4}  published {quartiles(times['published'])}"
                f"  ours {quartiles(times['ours'])}"
                f"  {ratio(times['published'], times['ours']):6.2f} x faster",
                flush=True,
            )


def six_of_their_own() -> MSG3D:
    """Arrange STF in another way: six modules K = 3 with weights of their own.

    They follow the three graph convolutions.
    """
    network = MSG3D(60, NTU25)
    for block in network.blocks:
        channels = block.graph.norm.num_features
        block.stf = nn.Sequential(STFModule(channels, NTU25), STFModule(channels, NTU25))
    return network


def at_the_output() -> MSG3D:
    """Arrange STF as by default, but the second module of each block at the block's output."""
    network = MSG3D(60, NTU25, stf=True)
    for block in network.blocks:
        block.stf = nn.Identity()
        block.temporal3 = nn.Sequential(
            block.temporal3, STFModule(block.temporal3.norm.num_features, NTU25)
        )
    return network


def count(network: nn.Module, x: Tensor) -> tuple[float, float]:
    """Count the GFLOPs of a forward pass: of all products, and of the convolutions alone.

    Some counters see only the latter.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(x)
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    return counter.get_total_flops() / 1e9, convolutions / 1e9


def flops(given: argparse.Namespace) -> None:
    """Print the GFLOPs of one clip of the paper's size, in our order and in the published one."""
    x = torch.randn(1, 3, 300, 25, 2)
    print("GFLOPs a clip of 300 frames and two bodies, and in % more than MS-G3D")
    print(
        f"{'':40}{'ours':>8}{'%':>7}{'published order':>18}{'%':>7}{'its convolutions':>18}{'%':>7}"
    )
    base: list[float] = []
    networks = {
        "MS-G3D": MSG3D(60, NTU25),
        "stf=True: six modules, K = 3": MSG3D(60, NTU25, stf=True),
        'stf="scales": three modules, K = 13': MSG3D(60, NTU25, stf="scales"),
        "six, the second of a block at its output": at_the_output(),
        "six with weights of their own": six_of_their_own(),
    }
    for name, network in networks.items():
        counted = [count(network, x)[0], *count(published(network), x)]
        base = base or counted
        ours, theirs, mixing = (
            100 * (flops / plain - 1) for flops, plain in zip(counted, base, strict=True)
        )
        print(
            f"{name:40}{counted[0]:8.2f}{ours:7.2f}{counted[1]:18.2f}{theirs:7.2f}"
            f"{counted[2]:18.2f}{mixing:7.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8, help="clips of two bodies")
    parser.add_argument("--frames", type=int, default=64)
    parts = ["layers", "network", "growth", "flops"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument(
        "--keep-memory", action="store_true", help="on a CPU, disable glibc memory trimming"
    )
    parser.add_argument(
        "--peak", nargs=2, help="print the peak memory of a row in one order and stop"
    )
    given = parser.parse_args()
    if given.peak:
        name, order = given.peak
        network, x = (
            network_and_input(given) if name == "whole network" else layer_and_input(name, given)
        )
        network = published(network) if order == "published" else network
        print(peak_memory(train_step(network.train(), x)))
        return
    print(
        f"batch {given.batch}, T {given.frames}, V 25, M 2, float32, {setting()}, "
        f"{given.repeats} rounds" + (", freed memory kept" if given.keep_memory else "")
    )
    if given.keep_memory:
        keep_freed_memory()
    if {"layers", "network"} & set(given.only):
        print(HEADER)
    if "layers" in given.only:
        for name in LAYERS:
            row(name, *layer_and_input(name, given), given)
    if "network" in given.only:
        row("whole network", *network_and_input(given), given)
    if "growth" in given.only:
        growth(given)
    if "flops" in given.only:
        print()
        flops(given)


if __name__ == "__main__":
    main()
