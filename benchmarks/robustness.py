"""Accuracy of a network on incomplete test clips: RA-GCN's protocols.

    python benchmarks/robustness.py --out runs/generated            # generated actions
    python benchmarks/robustness.py --out runs/nw_ucla --data PATH  # options of examples/train.py

The runs are those of focus_quality.py in the same folder: for every seed one network is trained
with cross-entropy, and every row is fine-tuned from it. Finished runs are reused, unfinished ones
resumed. Each of these corruptions is applied to all test clips separately:

- a body part is hidden: left arm, right arm, two hands, two legs or trunk;
- the middle 10, 30 or 50 % of the frames are hidden;
- each joint of each frame is hidden with probability 10, 30 or 50 %;
- each joint of each frame is moved with probability 2 or 10 %, by Gaussian noise of 0.05 or 0.1
  body heights;
- only the first 50, 70 or 90 % of the frames are kept;
- each frame is dropped with probability 10, 30 or 50 %.

All networks get the same random numbers. Clips are centred and scaled by the body height first, so
that hiding a joint changes nothing else. Prints Markdown tables: mean and standard deviation of
top-1 over the seeds; and the mean over the body parts minus that of the plain row, for each seed.
All results of a run are saved as robustness.json in its folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import focus_quality
from robustness_measures import COLUMNS, columns, robustness
from trained import finish_all, mean_and_spread, place, run

# Those rows of focus_quality.py, whose runs these are, that change what the network relies on.
KEPT = (
    "plain",
    "joint dropout 0.3",
    "L_e 1",
    "L_c 1",
    "erasing 0.5",
    "L_e 0.3, L_c 1, erasing 0.5",
)
ROWS = {row: focus_quality.ROWS[row] for row in KEPT}
AGAINST = "plain"
COMPARED = "parts, mean"


def tables(found: Mapping[str, Sequence[Mapping[str, float]]], seeds: Sequence[int]) -> str:
    """Show every column, and what the body parts cost against the plain row, as Markdown."""
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row, of_seeds in found.items():
        cells = [mean_and_spread([one[title] for one in of_seeds], 2) for title in COLUMNS]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    listed = ", ".join(map(str, seeds))
    lines += [
        "",
        f"| {COMPARED}: difference from {AGAINST} | by seed {listed} | mean |",
        "|---|---|---|",
    ]
    for row, of_seeds in found.items():
        if row != AGAINST:
            pairs = zip(of_seeds, found[AGAINST], strict=True)
            moved = [one[COMPARED] - other[COMPARED] for one, other in pairs]
            by_seed = ", ".join(f"{difference:+.2f}" for difference in moved)
            lines.append(f"| {row} | {by_seed} | {mean_and_spread(moved, 2)} |")
    return "\n".join(lines)


def main() -> None:
    given, passed = focus_quality.options_of_base(__doc__).parse_known_args()
    rows = focus_quality.chosen_rows(given, ROWS)
    focus_quality.finish_base(given, passed)
    finish_all(focus_quality.from_base(given, passed, rows, given.seeds), given.jobs)
    runs = [(row, seed) for row in rows for seed in given.seeds]
    with ProcessPoolExecutor(given.jobs) as pool:
        values = pool.map(robustness, [place(given.out, *one) for one in runs])
        measured = dict(zip(runs, values, strict=True))
    found = {row: [columns(measured[row, seed]) for seed in given.seeds] for row in rows}
    print(tables(found, given.seeds))


if __name__ == "__main__":
    run(main)
