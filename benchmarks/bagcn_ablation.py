"""The rows of BAGCN's tables 3 and 4: every way to focus, every context; top-1 over several seeds.

    python benchmarks/bagcn_ablation.py --out runs/ablation [--seeds 1 2 3] [--jobs 2] [options of examples/train.py]

Each row and seed is a run of examples/train.py in a folder of its own, with one thread. A run that is there is read and
not trained again, so an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TRAIN = Path(__file__).parents[1] / "examples" / "train.py"
ROWS = {
    "none": ["--focusing", "none"],
    "mean": ["--focusing", "mean"],
    "max": ["--focusing", "max"],
    "attention": [],
    "no context": ["--context", "none"],
    "forward context": ["--context", "forward"],
}


def top1(out: Path, row: str, seed: int, options: list[str]) -> float:
    """Of a finished run; trained first where there is none."""
    folder = out / f"{row.replace(' ', '-')}-{seed}"
    report = folder / "report.json"
    if not report.exists():
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, str(TRAIN), "--model", "bagcn", *ROWS[row], "--seed", str(seed), "--threads", "1"]
        subprocess.run([*command, "--quiet", "--out", str(folder), *options], check=True, stdout=subprocess.DEVNULL)
        print(f"{row}, seed {seed}: {json.loads(report.read_text())['top1']:.2%}", file=sys.stderr, flush=True)
    return float(json.loads(report.read_text())["top1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    given, options = parser.parse_known_args()
    wanted = [(row, seed) for seed in given.seeds for row in ROWS]
    with ThreadPoolExecutor(given.jobs) as pool:
        found = dict(zip(wanted, pool.map(lambda run: top1(given.out, *run, options), wanted), strict=True))
    print(f"{'':>16} {'mean':>7} {'st. dev.':>9}  seeds {' '.join(map(str, given.seeds))}")
    for row in ROWS:
        accuracies = [100 * found[row, seed] for seed in given.seeds]
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        listed = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
        print(f"{row:>16} {statistics.mean(accuracies):7.2f} {spread:9.2f}  {listed}")


if __name__ == "__main__":
    main()
