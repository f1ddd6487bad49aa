"""Compare the focus by logit, log-odds and probability with the truth.

The networks are trained plainly.

    python benchmarks/focus_scores.py --out runs/scores
    python benchmarks/focus_scores.py --out runs/scores_nw_ucla --data PATH

The first command takes generated actions, whose truth is known. Any options of examples/train.py
may follow.

The same trained networks are explained under each score; nothing but the score differs between the
rows of a network. Besides the measures of focus_quality.py: "stable", the largest relative change
of the focus while every joint moves by up to 0.02 body heights, and bones and motion with it
(smaller is better), and "random weights", the rank correlation with the focus of the network whose
weights have all been redrawn (near 0 is good: the focus then depends on what was learned). Mean
and standard deviation over the seeds. A finished run is read and not trained again, an unfinished
one is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from focus_measures import MEASURES, measure
from loading import clips_of
from recipe import network_input, prepare
from results import load_run
from trained import OURS, command_line, finish_all, keep_options, mean_and_spread, place, run

from skeleton_focus import SkeletonDataset
from skeleton_focus.focus import SCORES
from skeleton_focus.focus_sanity import cascading_randomization, max_sensitivity

NETWORKS = ("stf_gcn", "ms_g3d", "fg_stformer", "bagcn")
SHOWN = (
    "precision",
    "iou",
    "pointing",
    "mass",
    "coverage",
    "distance",
    "overlap",
    "deletion",
    "insertion",
)
CHECKED = {"stable": ("stable", 3), "random weights": ("random weights", 3)}


def check(folder: Path, score: str) -> dict[str, float]:
    """Compute max-sensitivity and the rank correlation with random weights.

    Both are of 16 test clips, and are kept beside the run.
    """
    kept = folder / f"checks_{score}.json"
    if kept.exists() and (found := json.loads(kept.read_text()))["measures"] == list(CHECKED):
        values: dict[str, float] = found["values"]
        return values
    torch.set_num_threads(1)
    objective, recipe, layout, classes, *_ = load_run(folder)
    objective.score = score
    data, _ = clips_of(str(folder), recipe, layout, classes)
    chosen = range(0, len(data), max(len(data) // 16, 1))
    batch = SkeletonDataset.collate([data[i] for i in chosen][:16])
    joints = prepare(batch, replace(recipe, stream="joint"), layout)
    x = network_input(joints[:, :-1], joints[:, -1], recipe, layout)
    label = objective.explain(x)[1].argmax(1)

    def explain(clips: torch.Tensor) -> torch.Tensor:
        # Bones and motion follow the joints.
        x = network_input(clips[:, :-1], clips[:, -1], recipe, layout)
        return objective.explain(x, label)[0]

    moved = max_sensitivity(explain, joints, position_channels=joints.shape[1] - 1)
    (*_, redrawn) = cascading_randomization(objective.model, explain, joints).values()
    values = {"stable": moved.nanmean().item(), "random weights": redrawn.nanmean().item()}
    kept.write_text(json.dumps({"measures": list(CHECKED), "values": values}) + "\n")
    return values


def measure_both(folder: Path, score: str) -> dict[str, float]:
    return {**measure(folder, score), **check(folder, score)}


def table(found: Mapping[tuple[str, str], list[Mapping[str, float]]]) -> str:
    """A row for each network and score, as Markdown."""
    titles = {name: MEASURES[name] for name in SHOWN} | CHECKED
    known = [name for name in titles if name in next(iter(found.values()))[0]]
    lines = ["| network | score | " + " | ".join(titles[name][0] for name in known) + " |"]
    lines.append("|---" * (len(known) + 2) + "|")
    for (network, score), of_seeds in found.items():
        cells = []
        for name in known:
            cells.append(mean_and_spread([one[name] for one in of_seeds], titles[name][1]))
        lines.append(f"| {network} | {score} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=NETWORKS, help="by default all"
    )
    given, passed = parser.parse_known_args()
    keep_options(given.out, passed, (*OURS, "--model", "--branch", "--score"))
    runs = {
        (network, seed): place(given.out / network, "base", seed)
        for network, seed in product(given.networks, given.seeds)
    }
    finish_all(
        {
            folder: [*passed, "--model", network, "--branch", "plain", "--seed", str(seed)]
            for (network, seed), folder in runs.items()
        },
        given.jobs,
    )
    wanted = list(product(runs, SCORES))
    with ProcessPoolExecutor(given.jobs) as pool:
        measured: Iterable[dict[str, float]] = pool.map(
            measure_both, [runs[one] for one, _ in wanted], [score for _, score in wanted]
        )
    values = dict(zip(wanted, measured, strict=True))
    rows = product(given.networks, SCORES)
    print(table({row: [values[(row[0], seed), row[1]] for seed in given.seeds] for row in rows}))


if __name__ == "__main__":
    run(main)
