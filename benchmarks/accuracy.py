"""Measure every network's top-1: four streams and their fusion, STF's branches and average.

    python benchmarks/accuracy.py --out runs/accuracy --data PATH [--seeds 1 2 3] [--jobs 2]
        [--only "STF-GCN, focus"]
    python benchmarks/accuracy.py --out runs/held-out --data PATH --hold-out _s05_

The first command trains on all training clips and tests the last epoch. The second holds out one
subject's training clips; its tables show the test accuracy of the last epoch and of the epoch that
is best on that subject. STF from MS-G3D always starts from MS-G3D's last epoch. Any options of
examples/train.py may follow. Finished runs are reused, unfinished ones resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from trained import (
    OURS,
    averaged,
    command_line,
    finish_all,
    keep_options,
    mean_and_spread,
    place,
    run,
)

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
NETWORKS = {
    "STF-GCN, plain": ["--model", "stf_gcn", "--branch", "plain"],
    "STF-GCN, focus": ["--model", "stf_gcn", "--branch", "focus"],
    "STF-GCN, exploration": ["--model", "stf_gcn", "--branch", "exploration"],
    "MS-G3D": ["--model", "ms_g3d", "--branch", "plain"],
    "STF from MS-G3D, focus": ["--model", "stf_ms_g3d", "--branch", "focus"],
    "STF from MS-G3D, exploration": ["--model", "stf_ms_g3d", "--branch", "exploration"],
    "FG-STFormer": ["--model", "fg_stformer"],
    "BAGCN": ["--model", "bagcn"],
}
AVERAGES = {
    "STF-GCN": ("STF-GCN, focus", "STF-GCN, exploration"),
    "STF from MS-G3D": ("STF from MS-G3D, focus", "STF from MS-G3D, exploration"),
}
BASELINE = "MS-G3D"
SET_HERE = (*OURS, "--model", "--branch", "--stream")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument(
        "--streams", nargs="+", default=STREAMS, help=f"default {' '.join(STREAMS)}"
    )
    parser.add_argument(
        "--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="only these networks"
    )
    given, passed = parser.parse_known_args()
    keep_options(given.out, passed, SET_HERE)
    first: dict[Path, list[str]] = {}
    then: dict[Path, list[str]] = {}  # goes on from one of the first
    for seed in given.seeds:
        for name in given.only:
            for stream in given.streams:
                options = [*passed, *NETWORKS[name], "--stream", stream, "--seed", str(seed)]
                if "stf_ms_g3d" in options:
                    start = place(given.out, f"{BASELINE} {stream}", seed)
                    of_run = ["--stream", stream, "--seed", str(seed)]
                    first[start] = [*passed, *NETWORKS[BASELINE], *of_run]
                    here = place(given.out, f"{name} {stream}", seed)
                    then[here] = [*options, "--start-from", str(start)]
                else:
                    first[place(given.out, f"{name} {stream}", seed)] = options
    finish_all(first, given.jobs)
    finish_all(then, given.jobs)
    rows = {name: (name,) for name in given.only}
    rows |= {name: both for name, both in AVERAGES.items() if {*both} <= {*given.only}}
    print("last epoch\n")
    print(table(given.out, rows, given.streams, given.seeds, "."))
    if any(option.startswith("--hold-out") for option in passed):
        print("\nthe epoch that was best on the clips held out\n")
        print(table(given.out, rows, given.streams, given.seeds, "best"))


def table(
    out: Path,
    rows: dict[str, tuple[str, ...]],
    streams: Sequence[str],
    seeds: Sequence[int],
    within: str,
) -> str:
    """Make a table of each row's streams and, of averaged probabilities, the fusion of all.

    ``within`` is the folder of each run whose files are read.
    """
    columns = [[stream] for stream in streams]
    names = [stream.replace("_", " ") for stream in streams]
    if len(streams) > 1:
        columns.append([*streams])
        names.append("fused")
    lines = [f"| | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    for row, parts in rows.items():
        cells = []
        for column in columns:
            top1 = []
            for seed in seeds:
                runs = [f"{part} {stream}" for part, stream in product(parts, column)]
                top1.append(averaged([place(out, one, seed) / within for one in runs]))
            cells.append(mean_and_spread(top1, 2))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
