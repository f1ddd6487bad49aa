"""Train or resume the runs of examples/train.py that a benchmark compares; reuse finished ones."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from skeleton_focus import fuse

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from ensemble import read_all

# Set for every run.
OURS = ("--seed", "--start-from", "--threads", "--devices", "--nodes", "--resume", "--quiet")
# The rate ends at zero; few steps need no average.
DOWN_TO_ZERO = ["--cycle", "1", "--ema", "0"]
TRAIN = Path(__file__).parents[1] / "examples" / "train.py"


def command_line(about: str | None) -> argparse.ArgumentParser:
    """Make the command line of these benchmarks; unknown options are for examples/train.py."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    folder = Path("runs") / Path(sys.argv[0]).stem
    parser.add_argument(
        "--out", type=Path, default=folder, help=f"folder of the runs, default {folder}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, default 1")
    return parser


def run(program: Callable[[], None]) -> None:
    """Run a benchmark; a mistake or an interruption ends in one line."""
    try:
        program()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")


def finish(folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """Return the report of a run; if it is unfinished, train it with one thread or resume it."""
    report = folder / "report.json"
    if not report.exists():
        seldom = ["--validate-every", "1000"]
        if any(option.startswith("--hold-out") for option in options):
            seldom = []
        how = ["--resume"] if (folder / "last.ckpt").exists() else [*seldom, *options]
        alone = ["--threads", "1", "--devices", "1", "--quiet"]
        command = [sys.executable, str(TRAIN), "--out", str(folder), *alone, *how]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{folder}: {(done.stderr.strip() or 'stopped').splitlines()[-1]}")
        print(
            f"{folder}: {json.loads(report.read_text())['top1']:.2%}", file=sys.stderr, flush=True
        )
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def finish_all(wanted: Mapping[Path, Sequence[str]], jobs: int) -> list[dict[str, Any]]:
    """The reports of several runs, so many at a time."""
    if jobs < 1:
        raise ValueError(f"expected --jobs of at least 1, got {jobs}")
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(finish, wanted.keys(), wanted.values()))


def go_on(start: Path, terms: Sequence[str], seed: int, epochs: int, rate: float) -> list[str]:
    """Return the options to go on from another run, with STF terms from the first step.

    Erasing, if the run has it, also starts there.
    """
    schedule = ["--epochs", str(epochs), "--lr", str(rate), *DOWN_TO_ZERO]
    schedule += [] if "plain" in terms and "--erasing" not in terms else ["--stf-after", "0"]
    # The terms come last, because they may change the schedule.
    return [*schedule, "--start-from", str(start), "--seed", str(seed), *terms]


def averaged(folders: Sequence[Path]) -> float:
    """Top-1 of the averaged probabilities of finished runs, %."""
    logs, labels, _ = read_all([str(folder) for folder in folders])
    return 100 * (fuse([log.exp() for log in logs]).argmax(1) == labels).double().mean().item()


def keep_options(out: Path, options: list[str], ours: Sequence[str]) -> None:
    """Refuse options that the benchmark sets itself, and others than those of earlier runs."""
    if taken := [option for option in options if option.split("=")[0] in ours]:
        raise ValueError(
            f"expected options that all runs share, got {taken[0]}, which this benchmark sets"
        )
    kept = out / "options.json"
    before = json.loads(kept.read_text()) if kept.is_file() else None
    if any(out.rglob("recipe.json")) and before != options:
        raise ValueError(
            f"expected the options of the runs in {out}, {before}, or a new --out, got {options}"
        )
    out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(options) + "\n")


def place(out: Path, run: str, seed: int) -> Path:
    """The folder of a run."""
    return out / f"{run.replace(':', '').replace(',', '').replace(' ', '-')}-{seed}"


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation; nan where a value is."""
    known = len(values) > 1 and all(math.isfinite(value) for value in values)
    spread = f" ± {statistics.stdev(values):.{digits}f}" if known else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"
