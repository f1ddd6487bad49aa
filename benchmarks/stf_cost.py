"""What one training step costs under each STF branch, on the same network, batch and process.

    python benchmarks/stf_cost.py [--repeats 15] [--batch 8] [--frames 64] [--widths 96 96 192 192 384 384]

Steps are interleaved (plain, focus, exploration, plain, ...), so that a slow moment of the machine meets all alike.
Times are medians with the quartiles beside them, ratios are medians of the ratio within a round. Peak memory is what a
process of its own takes above the built network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from stf_gcn import STFGCN

from skeleton_focus import NTU25, STFLoss, STFObjective

BRANCHES = {"plain": STFLoss.plain, "focus": STFLoss.focus_branch, "exploration": STFLoss.exploration_branch}


class Setting:
    """One network and one batch; the three objectives share them."""

    def __init__(self, given: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = STFGCN(60, NTU25, widths=given.widths).to(self.device)
        self.x = torch.randn(given.batch, 4, given.frames, 25, given.persons, device=self.device)
        self.target = torch.randint(60, (given.batch,), device=self.device)
        layers = ["block5", "block6"]
        self.objectives = {
            name: STFObjective(self.network, layers=layers, head="fc", loss=make()) for name, make in BRANCHES.items()
        }
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def step(self, branch: str) -> float:
        """Seconds of a forward, a backward and an update."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.objectives[branch](self.x, self.target).loss.backward()
        self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def resident(field: str) -> float:
    """MiB that Linux counts for this process: VmRSS now, VmHWM at its peak."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def peak_memory(branch: str, given: argparse.Namespace) -> float:
    """MiB above the built network during three steps; meant for a process of its own."""
    setting = Setting(given)
    if setting.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(3):
        setting.step(branch)
    return (
        (torch.cuda.max_memory_allocated() - before) / 2**20 if setting.device == "cuda" else resident("VmHWM") - before
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--persons", type=int, default=2)
    parser.add_argument("--widths", type=int, nargs=6, default=[96, 96, 192, 192, 384, 384])
    parser.add_argument("--peak", choices=BRANCHES, help="print one branch's peak memory and stop")
    given = parser.parse_args()
    if given.peak:
        print(json.dumps(peak_memory(given.peak, given)))
        return
    setting = Setting(given)
    print(
        f"STF-GCN {given.widths}, batch {given.batch}, T {given.frames}, V 25, M {given.persons}, float32, "
        f"{setting.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {given.repeats} rounds"
    )
    for branch in [*BRANCHES, *BRANCHES]:  # warm-up
        setting.step(branch)
    times: dict[str, list[float]] = {branch: [] for branch in BRANCHES}
    for round_ in range(given.repeats):
        print(f"\rround {round_ + 1} of {given.repeats}", end="", file=sys.stderr, flush=True)
        for branch in BRANCHES:
            times[branch].append(setting.step(branch))
    print(file=sys.stderr)
    print(f"{'branch':12} {'ms a step':>10} {'quartiles':>14} {'x plain':>8} {'peak MiB':>9} {'x plain':>8}")
    memory = {
        branch: float(
            subprocess.run([sys.executable, *sys.argv, "--peak", branch], check=True, capture_output=True).stdout
        )
        for branch in BRANCHES
    }
    for branch, seconds in times.items():
        low, middle, high = statistics.quantiles(seconds, n=4)
        ratio = statistics.median(mine / plain for mine, plain in zip(seconds, times["plain"], strict=True))
        print(
            f"{branch:12} {middle * 1e3:10.0f} {low * 1e3:6.0f} - {high * 1e3:5.0f} {ratio:8.3f} "
            f"{memory[branch]:9.0f} {memory[branch] / memory['plain']:8.2f}"
        )


if __name__ == "__main__":
    main()
