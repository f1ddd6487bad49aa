"""How much accuracy a network loses where the camera misses something: RA-GCN's protocols, on test clips alone.

    python benchmarks/robustness.py --out runs/robust                            # generated actions
    python benchmarks/robustness.py --out runs/robust_nw_ucla --data PATH        # options of examples/train.py

Of every seed one network is trained plainly; all rows go on from it for a few epochs. A finished run is read and not
trained again, an unfinished one is resumed. Each of these happens to all test clips, one at a time:

- a body part is hidden: left arm, right arm, two hands, two legs or trunk;
- the middle 10 to 50 % of the frames are hidden;
- each joint of each frame is hidden with probability 10 to 50 %;
- each is moved with probability 2 to 10 %, by Gaussian noise of 0.05 or 0.1 body heights;
- the first 50 to 90 % of the frames are left;
- each frame is dropped with probability 10 to 50 %.

All networks see the same random numbers. Clips are centred and divided by the body's height first, so that a hidden
joint is missing evidence and nothing else. Prints Markdown tables: top-1, mean and standard deviation
over the seeds; and the mean over the body parts as a difference from the plain row, seed by seed. Each run's folder
keeps all settings in robustness.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from robustness_measures import COLUMNS, columns, robustness
from trained import OURS, command_line, finish_all, go_on, keep_options, mean_and_spread, place, run

BASE = ["--branch", "plain"]
# Each goes on from the plain run of its seed.
ROWS: dict[str, list[str]] = {
    "plain": ["--branch", "plain"],
    "joint dropout 0.1": ["--branch", "plain", "--joint-dropout", "0.1"],
    "joint dropout 0.3": ["--branch", "plain", "--joint-dropout", "0.3"],
    "L_e": ["--branch", "exploration"],
    "L_c": ["--branch", "coherence"],
    "L_c, L_d": ["--branch", "coherence+divergence"],
    "L_c, L_d, L_G": ["--branch", "focus"],
    "all": ["--branch", "all"],
}
AGAINST, COMPARED = "plain", "parts, mean"
SET_HERE = (*OURS, "--branch", "--stf-after", "--validate-every", "--joint-dropout", "--ema", "--cycle")


def tables(found: Mapping[str, Sequence[Mapping[str, float]]], seeds: Sequence[int]) -> str:
    """Every column of every row, and what the body parts cost against the plain row, as Markdown."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row, of_seeds in found.items():
        cells = [mean_and_spread([one[title] for one in of_seeds], 2) for title in COLUMNS]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    listed = ", ".join(map(str, seeds))
    lines += ["", f"| {COMPARED}: difference from {AGAINST} | by seed {listed} | mean |", "|---|---|---|"]
    for row, of_seeds in found.items():
        if row != AGAINST:
            pairs = zip(of_seeds, found[AGAINST], strict=True)
            moved = [one[COMPARED] - other[COMPARED] for one, other in pairs]
            told = ", ".join(f"{difference:+.2f}" for difference in moved)
            lines.append(f"| {row} | {told} | {mean_and_spread(moved, 2)} |")
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--more", type=int, default=4, help="epochs that each row goes on, default 4")
    parser.add_argument("--rate", type=float, default=0.01, help="highest learning rate in them, default 0.01")
    given, passed = parser.parse_known_args()
    keep_options(given.out, [*passed, "--more", str(given.more), "--rate", str(given.rate)], SET_HERE)
    base = {place(given.out, "base", seed): [*passed, *BASE, "--seed", str(seed)] for seed in given.seeds}
    finish_all(base, given.jobs)
    wanted: dict[Path, list[str]] = {}
    for seed in given.seeds:
        start = place(given.out, "base", seed)
        for row, terms in ROWS.items():
            wanted[place(given.out, row, seed)] = [*passed, *go_on(start, terms, seed, given.more, given.rate)]
    finish_all(wanted, given.jobs)
    runs = [(row, seed) for row in ["base", *ROWS] for seed in given.seeds]
    with ProcessPoolExecutor(given.jobs) as pool:
        measured = dict(zip(runs, pool.map(robustness, [place(given.out, *one) for one in runs]), strict=True))
    found = {row: [columns(measured[row, seed]) for seed in given.seeds] for row in ["base", *ROWS]}
    print(tables(found, given.seeds))


if __name__ == "__main__":
    run(main)
