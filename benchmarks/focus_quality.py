"""What the STF losses do to the focus: the rows of the paper's table 5, and all terms in one run, each measured.

    python benchmarks/focus_quality.py --out runs/generated                         # generated actions, with the truth
    python benchmarks/focus_quality.py --out runs/nw_ucla --data PATH --plot q.png  # options of examples/train.py

Of every seed one network is trained plainly; all rows go on from it for a few epochs (the paper's training scheme). A
finished run is read and not trained again, an unfinished one is resumed: an interrupted benchmark goes on where it
stopped. Prints Markdown tables: accuracy and every measure, mean and standard deviation over the seeds (what they mean
stands in docs/focus_quality.md), and the paper's claims as differences seed by seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from focus_measures import MEASURES, measure
from focus_quality_plot import draw
from trained import OURS, averaged, command_line, finish_all, go_on, keep_options, mean_and_spread, place, run

PRINTED, TOGETHER = ["--norm", "l2"], ["--branch", "all"]
# A rate that stays high, so that the weights move about, and their running average in place of two networks'.
AVERAGED = ["--cycle", "0.5", "--ema", "0.99"]
BASE = ["--branch", "plain"]
# Each goes on from the plain run of its seed, or from another row.
ROWS: dict[str, list[str]] = {
    "M1: plain": ["--branch", "plain"],
    "M1 again": ["--branch", "plain"],  # another order of the clips: what averaging alone is worth
    "L_e": ["--branch", "exploration"],
    "M2: L_c": ["--branch", "coherence"],
    "M3: L_c, L_d": ["--branch", "coherence+divergence"],
    "M4: L_c, L_d, L_G": ["--branch", "focus"],
    "all": TOGETHER,
    "L_e again": ["--branch", "exploration"],
    "M4 again": ["--branch", "focus"],
    "all again": TOGETHER,
    "all, averaged weights": [*TOGETHER, *AVERAGED],
    "all, averaged weights, again": [*TOGETHER, *AVERAGED],
    "M1, averaged weights": ["--branch", "plain", *AVERAGED],
    "M2, printed norm": ["--branch", "coherence", *PRINTED],
    "M3, printed norm": ["--branch", "coherence+divergence", *PRINTED],
    "M4, printed norm": ["--branch", "focus", *PRINTED],
    "all, printed norm": [*TOGETHER, *PRINTED],
    "all, printed norm, project": [*TOGETHER, *PRINTED, "--focus-gradient", "project"],
}
# Trained on another order of the clips: an average of two runs, of whichever rows, then has as much to average.
OTHER_ORDER = ("M1 again", "L_e", "M4 again", "all again", "all, averaged weights, again")
# Two halves of a row's epochs: the first goes on from the plain run, the second from the first.
STAGES = {"L_e, then M4, printed norm": (["--branch", "exploration"], ["--branch", "focus", *PRINTED])}
AVERAGES = {
    "M1 and M1 again": ("M1: plain", "M1 again"),
    "M5: M4 and L_e": ("M4: L_c, L_d, L_G", "L_e"),
    "M5 again": ("M4 again", "L_e again"),
    "M5, printed norm": ("M4, printed norm", "L_e"),
}
PLAIN = ("base", "M1: plain", "M1 again", "M1, averaged weights", "M1 and M1 again")
JOINT = (*(row for row in ROWS if row.startswith("all")), *STAGES)
CLAIMS = (  # what, measure, row, against, what its difference should be
    ("L_e widens the focus", "coverage", "L_e", "M1 again", ">"),
    ("L_e leaves less to see once Q is masked", "masked", "L_e", "M1 again", "<"),
    ("L_c joins the layers", "coherence", "M2: L_c", "M1: plain", ">"),
    ("L_c joins the layers, printed norm", "coherence", "M2, printed norm", "M1: plain", ">"),
    ("L_d makes the top two differ", "distance", "M3: L_c, L_d", "M2: L_c", ">"),
    ("L_d makes the top two differ, printed norm", "distance", "M3, printed norm", "M2, printed norm", ">"),
    ("L_d lowers their overlap", "overlap", "M3: L_c, L_d", "M2: L_c", "<"),
    ("L_d lowers their overlap, printed norm", "overlap", "M3, printed norm", "M2, printed norm", "<"),
    ("L_d lowers the overlap of the logits' maps, printed norm", "logit_overlap", "M3, printed norm",
     "M2, printed norm", "<"),
    ("L_d shrinks the focus", "coverage", "M3: L_c, L_d", "M2: L_c", "<"),
    ("L_d shrinks the focus, printed norm", "coverage", "M3, printed norm", "M2, printed norm", "<"),
    ("L_G makes the embedding follow Q", "embedding", "M4: L_c, L_d, L_G", "M3: L_c, L_d", ">"),
    ("L_G makes it follow, printed norm", "embedding", "M4, printed norm", "M3, printed norm", ">"),
    ("M4 beats M1", "top1", "M4: L_c, L_d, L_G", "M1: plain", ">"),
    ("M4 beats M1, printed norm", "top1", "M4, printed norm", "M1: plain", ">"),
    ("M5 beats two plain networks", "top1", "M5: M4 and L_e", "M1 and M1 again", ">"),
    ("the same, the orders exchanged", "top1", "M5 again", "M1 and M1 again", ">"),
    ("M5 beats two plain networks, printed norm", "top1", "M5, printed norm", "M1 and M1 again", ">"),
    ("all in one run is no worse than M5", "top1", "all", "M5: M4 and L_e", ">="),
    ("the same, the orders exchanged", "top1", "all again", "M5 again", ">="),
    ("averaged weights of one run are no worse than M5", "top1", "all, averaged weights", "M5: M4 and L_e", ">="),
    ("the same, the orders exchanged", "top1", "all, averaged weights, again", "M5 again", ">="),
    ("all in one run is no worse than M5, printed norm", "top1", "all, printed norm", "M5, printed norm", ">="),
    ("the same, project", "top1", "all, printed norm, project", "M5, printed norm", ">="),
    ("the same, L_e first", "top1", "L_e, then M4, printed norm", "M5, printed norm", ">="),
)  # fmt: skip
SET_HERE = (
    *OURS, "--branch", "--stf-after", "--validate-every", "--norm", "--focus-gradient", "--emphasis",
    "--ema", "--cycle",
)  # fmt: skip


def train(given: argparse.Namespace, passed: list[str]) -> None:
    """Every run of every row and seed."""
    base = {place(given.out, "base", seed): [*passed, *BASE, "--seed", str(seed)] for seed in given.seeds}
    finish_all(base, given.jobs)
    after: dict[Path, list[str]] = {}
    wanted: dict[Path, list[str]] = {}
    for seed in given.seeds:
        half, start = given.more // 2, place(given.out, "base", seed)
        for row, terms in ROWS.items():
            apart = seed + 100 if row in OTHER_ORDER else seed
            wanted[place(given.out, row, seed)] = [*passed, *go_on(start, terms, apart, given.more, given.rate)]
        for row, (first, second) in STAGES.items():
            middle = place(given.out, f"{row}, first half", seed)
            wanted[middle] = [*passed, *go_on(start, first, seed, half, given.rate)]
            after[place(given.out, row, seed)] = [*passed, *go_on(middle, second, seed, given.more - half, given.rate)]
    finish_all(wanted, given.jobs)
    finish_all(after, given.jobs)


def tables(found: Mapping[str, list[dict[str, float]]], seeds: list[int]) -> str:
    """Every measure of every row, and every claim, as Markdown."""
    shown = {name: told for name, told in MEASURES.items() if name in found["base"][0]}
    lines = ["| | " + " | ".join(title for title, _ in shown.values()) + " |", "|---" * (len(shown) + 1) + "|"]
    for row, of_seeds in found.items():
        cells = [mean_and_spread([one[name] for one in of_seeds], digits) if name in of_seeds[0] else ""
                 for name, (_, digits) in shown.items()]  # fmt: skip
        lines.append(f"| {row} | {' | '.join(cells)} |")
    listed = ", ".join(map(str, seeds))
    lines += ["", f"| claim | measure | difference of | by seed {listed} | on all seeds |", "|---|---|---|---|---|"]
    for claim, name, row, against, relation in CLAIMS:
        if name in shown:
            title, digits = MEASURES[name]
            pairs = zip(found[row], found[against], strict=True)
            moved = [round(one[name] - other[name], digits) for one, other in pairs]
            told = ", ".join(f"{difference:+.{digits}f}" for difference in moved)
            lines.append(f"| {claim} | {title} | {row} - {against} | {told} | {verdict(moved, relation)} |")
    return "\n".join(lines)


def verdict(differences: Sequence[float], relation: str) -> str:
    """Whether every seed says the same: of ``">"``, ``"<"`` or ``">="`` that it holds, or its opposite."""
    signs = {(difference > 0) - (difference < 0) for difference in differences}
    if signs == {0} and relation != ">=":
        return "no difference"
    right = {">": {1}, "<": {-1}, ">=": {0, 1}}[relation]
    return "holds" if signs <= right else "the opposite" if signs == {1 if relation == "<" else -1} else "seeds differ"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--more", type=int, default=4, help="epochs that each row goes on, default 4")
    parser.add_argument("--rate", type=float, default=0.01, help="highest learning rate in them, default 0.01")
    parser.add_argument("--plot", type=Path, help="also draw the measures into this file")
    given, passed = parser.parse_known_args()
    if given.more < 2:
        raise ValueError(f"expected --more of at least 2 epochs, half of them for each stage, got {given.more}")
    keep_options(given.out, [*passed, "--more", str(given.more), "--rate", str(given.rate)], SET_HERE)
    train(given, passed)
    wanted = [(row, seed) for row in ["base", *ROWS, *STAGES] for seed in given.seeds]
    with ProcessPoolExecutor(given.jobs) as pool:
        measured = dict(zip(wanted, pool.map(measure, [place(given.out, *run) for run in wanted]), strict=True))
    found = {row: [measured[row, seed] for seed in given.seeds] for row in ["base", *ROWS, *STAGES]}
    found |= {
        row: [{"top1": averaged([place(given.out, one, seed) for one in both])} for seed in given.seeds]
        for row, both in AVERAGES.items()
    }
    print(tables(found, given.seeds))
    if given.plot:
        draw(found, PLAIN, JOINT).savefig(given.plot)


if __name__ == "__main__":
    run(main)
