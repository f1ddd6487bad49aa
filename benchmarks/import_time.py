"""Measure what importing the package costs beyond importing torch.

    python benchmarks/import_time.py [--repeats 9]

Each import runs in a new process, alternately torch alone and the package; the first round is not
counted. The table shows the median CPU time and the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys


def cpu_seconds(module: str) -> float:
    """CPU time of a process that imports a module and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9, help="number of rounds, default 9")
    repeats = parser.parse_args().repeats
    modules = ("torch", "skeleton_focus")
    rounds = [[cpu_seconds(module) for module in modules] for _ in range(repeats + 1)][1:]
    print("| import | CPU time, s | relative to torch |\n|---|---|---|")
    for i, module in enumerate(modules):
        times = statistics.median(times[i] for times in rounds)
        ratio = statistics.median(times[i] / times[0] for times in rounds)
        print(f"| {module} | {times:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
