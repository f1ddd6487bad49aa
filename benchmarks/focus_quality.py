r"""Measure what the STF losses and erasing do to the focus: a sweep of weights over seeds.

    python benchmarks/focus_quality.py --out runs/generated          # generated actions
    python benchmarks/focus_quality.py --out runs/nw_ucla --data PATH --no-sweep
    python benchmarks/focus_quality.py --out runs/longer --rows "L_e 1, L_c 1, erasing 0.5" \
        --epochs 20 --more 10 --rate 0.05 --layers blocks.2 blocks.5

Other options are passed to examples/train.py. The third command trains longer, with L_c between the
third and the last block.

For each seed, one network is trained plainly (``base``). Each row goes on from it for ``--more``
epochs, at a rate that still moves the weights. ROWS are trained on every seed, SWEEP on the first
one alone. SCRATCH, on the first seed, too, is trained from new weights for as long as ``base``.
Each row's focus is that of the score it was trained with; the plain row is shown under each score.
Prints Markdown tables: accuracy and every measure, mean and standard deviation over the seeds
(docs/focus_quality.md says what they mean), and the paper's claims as differences seed by seed. A
finished run is read and not trained again, an unfinished one is resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

from focus_measures import MEASURES, measure, without_network
from trained import OURS, command_line, finish_all, go_on, keep_options, mean_and_spread, place, run

PLAIN = ["--branch", "plain"]
OVERLAP = ["--separation", "overlap"]
LOG_ODDS = ["--score", "log_odds"]
PRINTED = ["--norm", "l2"]


def terms(branch: str, *options: str) -> list[str]:
    return ["--branch", branch, *options]


ROWS: dict[str, list[str]] = {  # on every seed
    "plain": PLAIN,
    "joint dropout 0.3": [*PLAIN, "--augment", "joint_dropout=0.3"],
    "L_e 1": terms("exploration=1"),
    "L_c 1": terms("coherence=1"),
    "L_d 0.1": terms("divergence=0.1"),
    "L_d 1, overlap": terms("divergence=1", *OVERLAP),
    "L_G 1": terms("adjacency=1"),
    "erasing 0.5": [*PLAIN, "--erasing", "0.5"],
    "L_e 0.3, L_c 1, erasing 0.5": terms("recommended", "--erasing", "0.5"),
}
SWEEP: dict[str, list[str]] = {  # on the first seed
    "the paper's weights": terms("all"),
    **{f"L_e {weight}": terms(f"exploration={weight}") for weight in ("0.01", "0.1", "0.3", "3")},
    **{f"L_c {weight}": terms(f"coherence={weight}") for weight in ("0.01", "0.1")},
    **{f"L_d {weight}": terms(f"divergence={weight}") for weight in ("0.01", "1")},
    "L_d 0.1, overlap": terms("divergence=0.1", *OVERLAP),
    **{f"L_G {weight}": terms(f"adjacency={weight}") for weight in ("0.01", "0.1")},
    "L_c 0.1, l2": terms("coherence=0.1", *PRINTED),
    "L_d 0.1, l2": terms("divergence=0.1", *PRINTED),
    "L_e 1, log-odds": terms("exploration=1", *LOG_ODDS),
    "L_c 1, log-odds": terms("coherence=1", *LOG_ODDS),
    "L_d 0.1, log-odds": terms("divergence=0.1", *LOG_ODDS),
    "L_e 1, L_c 1": terms("exploration=1+coherence=1"),
    "L_e 1, L_c 1, erasing 0.5": terms("exploration=1+coherence=1", "--erasing", "0.5"),
}
# On the first seed, in place of a base run: the terms start after a third of its epochs.
SCRATCH: dict[str, list[str]] = {
    "L_e 1, from scratch": terms("exploration=1"),
    "L_c 1, from scratch": terms("coherence=1"),
    "L_d 0.1, from scratch": terms("divergence=0.1"),
    "L_e 0.3, L_c 1, erasing 0.5, from scratch": terms("recommended", "--erasing", "0.5"),
}
CLAIMS = (  # what the paper says, measure, row, its sign
    ("L_e widens the focus", "coverage", "L_e 1", ">"),
    ("L_e leaves less to see once Q is masked", "masked", "L_e 1", "<"),
    ("L_d makes the focus of the top two differ", "distance", "L_d 0.1", ">"),
    ("L_d lowers their overlap", "overlap", "L_d 0.1", "<"),
    ("L_d shrinks the focus", "coverage", "L_d 0.1", "<"),
    ("L_d as overlap makes them differ", "distance", "L_d 1, overlap", ">"),
    ("L_d as overlap lowers their overlap", "overlap", "L_d 1, overlap", "<"),
    ("L_d as overlap shrinks the focus", "coverage", "L_d 1, overlap", "<"),
    ("L_c joins the layers", "coherence", "L_c 1", ">"),
    ("L_G makes the embedding follow Q", "embedding", "L_G 1", ">"),
)
SET_HERE = (
    *OURS,
    "--branch",
    "--stf-after",
    "--validate-every",
    "--norm",
    "--separation",
    "--score",
    "--erasing",
    "--ema",
    "--cycle",
)


def options_of_base(about: str | None) -> argparse.ArgumentParser:
    """The command line of a benchmark whose rows go on from a base run of each seed."""
    parser = command_line(about)
    parser.add_argument(
        "--more", type=int, default=5, help="epochs that each row goes on, default 5"
    )
    parser.add_argument(
        "--rate", type=float, default=0.02, help="highest learning rate in them, default 0.02"
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW", help="plain and these rows alone, by their names"
    )
    return parser


def finish_base(given: argparse.Namespace, passed: list[str]) -> None:
    """Train the base run of each seed, unless it is finished."""
    keep_options(
        given.out, [*passed, "--more", str(given.more), "--rate", str(given.rate)], SET_HERE
    )
    base = {
        place(given.out, "base", seed): [*passed, *PLAIN, "--seed", str(seed)]
        for seed in given.seeds
    }
    finish_all(base, given.jobs)


def from_base(
    given: argparse.Namespace,
    passed: list[str],
    rows: Mapping[str, list[str]],
    seeds: Sequence[int],
) -> dict[Path, list[str]]:
    """Options of the runs of some rows, which go on from the base run of their seed."""
    found: dict[Path, list[str]] = {}
    for seed, (row, options) in product(seeds, rows.items()):
        start = place(given.out, "base", seed)
        found[place(given.out, row, seed)] = [
            *passed,
            *go_on(start, options, seed, given.more, given.rate),
        ]
    return found


def chosen_rows(
    given: argparse.Namespace, default: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """The rows of every seed: those that ``--rows`` names, or the default."""
    known = {**ROWS, **SWEEP}
    unknown = [row for row in given.rows or () if row not in known]
    if unknown:
        raise ValueError(f"expected --rows among {', '.join(map(repr, known))}, got {unknown[0]!r}")
    return {row: known[row] for row in ("plain", *(given.rows or default))}


def wanted_runs(given: argparse.Namespace, passed: list[str]) -> dict[Path, list[str]]:
    """Options of every run that starts from a base run or from new weights."""
    wanted = from_base(given, passed, chosen_rows(given, ROWS), given.seeds)
    if given.sweep:
        seed = given.seeds[0]
        wanted |= from_base(given, passed, SWEEP, [seed])
        for row, options in SCRATCH.items():
            wanted[place(given.out, row, seed)] = [
                *passed,
                *options,
                "--stf-after",
                "0.33",
                "--seed",
                str(seed),
            ]
    return wanted


def score_of(options: Sequence[str]) -> str:
    """The score that a row is trained and measured with."""
    return options[options.index("--score") + 1] if "--score" in options else "logit"


def tables(found: Mapping[str, list[dict[str, float]]], seeds: list[int]) -> str:
    """Every measure of every row, and every claim, as Markdown."""
    shown = {name: title for name, title in MEASURES.items() if name in found["plain"][0]}
    lines = [
        "| | " + " | ".join(title for title, _ in shown.values()) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for row, of_seeds in found.items():
        cells = []
        for name, (_, digits) in shown.items():
            cell = ""
            if name in of_seeds[0]:
                cell = mean_and_spread([one[name] for one in of_seeds], digits)
            cells.append(cell)
        lines.append(f"| {row} | {' | '.join(cells)} |")
    listed = ", ".join(map(str, seeds))
    lines += [
        "",
        f"| claim | measure | row minus plain, by seed {listed} | on all seeds |",
        "|---|---|---|---|",
    ]
    for claim, name, row, relation in CLAIMS:
        if name in shown and row in found:
            title, digits = MEASURES[name]
            pairs = zip(found[row], found["plain"], strict=True)
            moved = [round(one[name] - other[name], digits) for one, other in pairs]
            listed_moves = ", ".join(f"{difference:+.{digits}f}" for difference in moved)
            lines.append(f"| {claim} | {title} | {listed_moves} | {verdict(moved, relation)} |")
    return "\n".join(lines)


def verdict(differences: Sequence[float], relation: str) -> str:
    """Whether every seed says the same: of ``">"`` or ``"<"`` that it holds, or its opposite."""
    signs = {(difference > 0) - (difference < 0) for difference in differences}
    if signs == {0}:
        return "no difference"
    right = 1 if relation == ">" else -1
    return "holds" if signs == {right} else "the opposite" if signs == {-right} else "seeds differ"


def main() -> None:
    parser = options_of_base(__doc__)
    parser.add_argument(
        "--sweep", action=argparse.BooleanOptionalAction, default=True, help="also the sweep"
    )
    given, passed = parser.parse_known_args()
    given.sweep = given.sweep and not given.rows
    chosen = chosen_rows(given, ROWS)
    finish_base(given, passed)
    finish_all(wanted_runs(given, passed), given.jobs)
    # By title: run, score, seeds.
    rows = {row: (row, score_of(options), given.seeds) for row, options in chosen.items()}
    rows["plain, log-odds"] = ("plain", "log_odds", given.seeds)
    if given.sweep:
        for row, options in {**SWEEP, "plain, from scratch": PLAIN, **SCRATCH}.items():
            run_of = "base" if row == "plain, from scratch" else row
            rows[row] = (run_of, score_of(options), given.seeds[:1])
    titles = []
    folders = []
    scores = []
    for row, (run_of, score, seeds) in rows.items():
        titles += [row] * len(seeds)
        folders += [place(given.out, run_of, seed) for seed in seeds]
        scores += [score] * len(seeds)
    with ProcessPoolExecutor(given.jobs) as pool:
        values = pool.map(measure, folders, scores)
    found: dict[str, list[dict[str, float]]] = {}
    for row, value in zip(titles, values, strict=True):
        found.setdefault(row, []).append(value)
    references = without_network(place(given.out, "plain", given.seeds[0]))
    found |= {title: [measures] for title, measures in references.items()}
    print(tables(found, given.seeds))


if __name__ == "__main__":
    run(main)
