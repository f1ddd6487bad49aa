"""Measure FG-STFormer's cost with fused and with plain attention, for several clip lengths.

    python benchmarks/fg_stformer_cost.py [--repeats 9] [--batch 4] [--frames 64 128 300]
        [--keep-memory]

Both have the same weights. Plain attention computes the whole map, its softmax and its product with
the values. One training step is a forward and a backward pass and an update. Steps are interleaved;
a ratio is the median of the ratios within a round. Peak memory in use is measured in a separate
process; see measure.py. FLOPs are those of the forward pass of one clip with two bodies.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from fg_stformer import FGSTFormer
from measure import (
    DEVICE,
    PlainAttention,
    flops,
    in_own_process,
    interleave,
    peak_memory,
    quartiles,
    ratio,
    setting,
    train_step,
)
from memory import keep_freed_memory

from skeleton_focus import NTU25

ATTENTION: dict[str, Callable[[], Any]] = {"fused": contextlib.nullcontext, "plain": PlainAttention}


def build(batch: int, frames: int) -> tuple[FGSTFormer, Tensor]:
    torch.manual_seed(0)
    return FGSTFormer(60, NTU25).to(DEVICE), torch.randn(batch, 3, frames, 25, 2, device=DEVICE)


def check(network: FGSTFormer, x: Tensor) -> None:
    """Both kinds give the same."""
    with torch.no_grad():
        fused = network.eval()(x)
        with PlainAttention():
            plain = network(x)
    error = ((fused - plain).norm() / plain.norm()).item()
    assert error < 1e-4, f"fused and plain attention differ by {error}"
    network.train()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4, help="clips of two bodies")
    parser.add_argument("--frames", type=int, nargs="+", default=[64, 128, 300])
    parser.add_argument(
        "--keep-memory", action="store_true", help="on a CPU, disable glibc memory trimming"
    )
    parser.add_argument(
        "--peak", nargs=2, metavar=("FRAMES", "KIND"), help="print one peak memory and stop"
    )
    given = parser.parse_args()
    if given.peak:
        frames = int(given.peak[0])
        kind = given.peak[1]
        print(peak_memory(train_step(*build(given.batch, frames), ATTENTION[kind])))
        return
    network, _ = build(1, 1)
    print(
        f"FG-STFormer, {sum(p.numel() for p in network.parameters()):,} parameters with either"
        f" attention; batch {given.batch}, V 25, M 2, float32, {setting()}, {given.repeats} rounds"
        + (", freed memory kept" if given.keep_memory else "")
    )
    if given.keep_memory:
        keep_freed_memory()
    print(
        f"{'T':>4} {'GFLOPs a clip':>14} {'plain, ms (quartiles)':>30}"
        f" {'fused, ms (quartiles)':>30} {'x faster':>9}"
        f" {'MiB, plain':>11} {'fused':>7} {'x':>6}"
    )
    for frames in given.frames:
        network, x = build(given.batch, frames)
        check(network, x)
        times = interleave(
            {kind: train_step(network, x, ATTENTION[kind]) for kind in ATTENTION}, given.repeats
        )
        plain, fused = (in_own_process("--peak", str(frames), kind) for kind in ("plain", "fused"))
        work = flops(network, x[:1])
        print(
            f"{frames:4} {work:14.2f} {quartiles(times['plain']):>30}"
            f" {quartiles(times['fused']):>30} {ratio(times['plain'], times['fused']):9.2f}"
            f" {plain:11.0f} {fused:7.0f} {fused / plain:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
