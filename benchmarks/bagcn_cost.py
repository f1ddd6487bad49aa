"""Cost of BAGCN's focus, context and diffusion: the network with and without them.

    python benchmarks/bagcn_cost.py [--repeats 9] [--batch 4] [--frames 64 300] [--keep-memory]

One training step is a forward and a backward pass and an update. Steps are interleaved; a ratio is
the median of the ratios within a round. Peak memory in use is measured in a separate process; see
measure.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from bagcn import BAGCN
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

from skeleton_focus import NTU25

KINDS = {
    "neither": ("none", "none"),
    "focus, diffusion": ("attention", "none"),
    "+ context, forward": ("attention", "forward"),
    "+ context, both ways": ("attention", "bidirectional"),
}


def build(kind: str) -> BAGCN:
    torch.manual_seed(0)
    focus, context = KINDS[kind]
    return BAGCN(60, NTU25, focus=focus, context=context).to(DEVICE)


def step(kind: str, batch: int, frames: int) -> Callable[[], None]:
    return train_step(build(kind), torch.randn(batch, 6, frames, 25, 2, device=DEVICE))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4, help="clips of two bodies")
    parser.add_argument("--frames", type=int, nargs="+", default=[64, 300])
    parser.add_argument(
        "--keep-memory", action="store_true", help="on a CPU, disable glibc memory trimming"
    )
    parser.add_argument(
        "--peak", nargs=2, metavar=("FRAMES", "KIND"), help="print one peak memory and stop"
    )
    given = parser.parse_args()
    if given.peak:
        print(peak_memory(step(given.peak[1], given.batch, int(given.peak[0]))))
        return
    print(
        f"BAGCN, batch {given.batch}, V 25, M 2, float32, {setting()}, {given.repeats} rounds"
        + (", freed memory kept" if given.keep_memory else "")
    )
    if given.keep_memory:
        keep_freed_memory()
    print(
        f"{'T':>4} {'network':>22} {'parameters':>11} {'step, ms (quartiles)':>30} {'x':>5}"
        f" {'MiB':>6} {'x':>5}"
    )
    for frames in given.frames:
        times = interleave({kind: step(kind, given.batch, frames) for kind in KINDS}, given.repeats)
        peaks = {kind: in_own_process("--peak", str(frames), kind) for kind in KINDS}
        for kind in KINDS:
            parameters = sum(p.numel() for p in build(kind).parameters())
            print(
                f"{frames:4} {kind:>22} {parameters:11,} {quartiles(times[kind]):>30}"
                f" {ratio(times[kind], times['neither']):5.2f} {peaks[kind]:6.0f}"
                f" {peaks[kind] / peaks['neither']:5.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
