"""Measure the cost of a training step under each STF branch, with one network and batch.

    python benchmarks/stf_cost.py [--repeats 15] [--batch 8] [--frames 64] [--keep-memory]

Steps are interleaved (plain, focus, exploration, plain, ...), so that background load affects all
equally. Times are medians with quartiles; a ratio is the median of the ratios within a round. Peak
memory is measured in a separate process, above the memory of the built network.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from measure import DEVICE, in_own_process, interleave, peak_memory, quartiles, ratio, setting
from memory import keep_freed_memory
from stf_gcn import STFGCN

from skeleton_focus import NTU25, STFLoss, STFObjective

BRANCHES = {  # loss, erasing
    "plain": (STFLoss.plain(), 0.0),
    "focus": (STFLoss.focus_branch(), 0.0),
    "exploration": (STFLoss.exploration_branch(), 0.0),
    "erasing": (STFLoss.plain(), 0.5),
    "recommended, erasing": (STFLoss.recommended(), 0.5),
}


class Setting:
    """One network and one batch; the three objectives share them."""

    def __init__(self, given: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.network = STFGCN(60, NTU25, widths=given.widths).to(DEVICE)
        self.x = torch.randn(given.batch, 4, given.frames, 25, given.persons, device=DEVICE)
        self.target = torch.randint(60, (given.batch,), device=DEVICE)
        layers = ["blocks.4", "blocks.5"]
        self.objectives = {
            name: STFObjective(self.network, layers=layers, head="fc", loss=loss, erasing=erasing)
            for name, (loss, erasing) in BRANCHES.items()
        }
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=1e-3, momentum=0.9, nesterov=True
        )

    def step(self, branch: str) -> None:
        """A forward, a backward and an update."""
        self.optimizer.zero_grad()
        self.objectives[branch](self.x, self.target).loss.backward()
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--persons", type=int, default=2)
    parser.add_argument("--widths", type=int, nargs=6, default=[96, 96, 192, 192, 384, 384])
    parser.add_argument(
        "--keep-memory", action="store_true", help="on a CPU, disable glibc memory trimming"
    )
    parser.add_argument("--peak", choices=BRANCHES, help="print one branch's peak memory and stop")
    given = parser.parse_args()
    built = Setting(given)
    if given.peak:
        print(peak_memory(partial(built.step, given.peak)))
        return
    print(
        f"STF-GCN {given.widths}, batch {given.batch}, T {given.frames}, V 25, M {given.persons}, "
        f"float32, {setting()}, {given.repeats} rounds"
        + (", freed memory kept" if given.keep_memory else "")
    )
    if given.keep_memory:
        keep_freed_memory()
    times = interleave({branch: partial(built.step, branch) for branch in BRANCHES}, given.repeats)
    memory = {branch: in_own_process("--peak", branch) for branch in BRANCHES}
    print(
        f"{'branch':20} {'ms a step (quartiles)':>28} {'x plain':>8} {'MiB used':>9} {'x plain':>8}"
    )
    for branch, seconds in times.items():
        print(
            f"{branch:20} {quartiles(seconds):>28} {ratio(seconds, times['plain']):8.3f} "
            f"{memory[branch]:9.0f} {memory[branch] / memory['plain']:8.2f}"
        )


if __name__ == "__main__":
    main()
