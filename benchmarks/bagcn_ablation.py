"""The rows of BAGCN's tables 3 and 4: every way to focus, every context; top-1 over several seeds.

    python benchmarks/bagcn_ablation.py --out runs/ablation [--seeds 1 2 3] [--jobs 2] [options of examples/train.py]

Each row and seed is a run of examples/train.py in a folder of its own, with one thread. A finished run is read and not
trained again, an unfinished one is resumed: an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
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
OURS = ("--model", "--focusing", "--context", "--seed", "--threads", "--resume", "--quiet")


def top1(out: Path, row: str, seed: int, options: list[str]) -> float:
    """Of a finished run; trained first where there is none."""
    folder = out / f"{row.replace(' ', '-')}-{seed}"
    report = folder / "report.json"
    if not report.exists():
        start = ["--model", "bagcn", *ROWS[row], "--seed", str(seed), *options]
        how = ["--resume"] if (folder / "last.ckpt").exists() else start
        command = [sys.executable, str(TRAIN), "--out", str(folder), "--threads", "1", "--quiet", *how]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{row}, seed {seed}: {done.stderr.strip().splitlines()[-1]}")
        print(f"{row}, seed {seed}: {json.loads(report.read_text())['top1']:.2%}", file=sys.stderr, flush=True)
    return float(json.loads(report.read_text())["top1"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, default 1")
    given, options = parser.parse_known_args()
    if taken := [option for option in options if option.split("=")[0] in OURS]:
        raise ValueError(f"expected options that all rows share, got {taken[0]}, which this benchmark sets")
    kept = given.out / "options.json"
    if any(given.out.glob("*/recipe.json")) and (before := json.loads(kept.read_text())) != options:
        raise ValueError(f"expected the options of the runs in {given.out}, {before}, or a new --out, got {options}")
    if given.jobs < 1:
        raise ValueError(f"expected --jobs of at least 1, got {given.jobs}")
    given.out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(options) + "\n")
    wanted = [(row, seed) for seed in given.seeds for row in ROWS]
    with ThreadPoolExecutor(given.jobs) as pool:
        found = dict(zip(wanted, pool.map(lambda run: top1(given.out, *run, options), wanted), strict=True))
    print(f"{'':>16} {'mean':>7} {'st. dev.':>9}  seeds {' '.join(map(str, given.seeds))}")
    for row in ROWS:
        accuracies = [100 * found[row, seed] for seed in given.seeds]
        spread = f"{statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else "-"
        listed = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
        print(f"{row:>16} {statistics.mean(accuracies):7.2f} {spread:>9}  {listed}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
