"""Measure what a shortcut in the training clips costs, and what each loss wins back.

It tests, above all, guidance by the user.

    python benchmarks/shortcuts.py --out runs/shortcuts [--seeds 1 2 3] [--jobs 2] [--share 0.9]
        [--test-clips 1200]

Generated actions of which a share of the training clips also shows a motion of another limb that
betrays the class (``SyntheticActions(shortcut=...)``); in the test clips it belongs to another
class. One network a row and seed, trained from scratch. The row "no shortcut" is trained without
that motion and tested with it. Guidance is given the joints that make each class, as a table that a
user could write (TABLE): it allows every joint that is critical and none that a shortcut moves.
Guidance acts from the first step on, the other terms after a third of the epochs. Prints top-1 on
``--test-clips`` test clips and the focus on the truth, on the same clips for all rows; "recovered"
is the share of what the shortcut costs plain training on average that a row wins back, and the same
for each seed, nan where it costs nothing. A finished run is read and not trained again, an
unfinished one is resumed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import torch
from focus_measures import MEASURES, measure
from results import load_run, predict
from trained import OURS, command_line, finish_all, keep_options, mean_and_spread, place, run

from skeleton_focus import SkeletonDataset, SyntheticActions

ARMS = ["left_elbow", "left hand", "right_elbow", "right hand"]
LEGS = ["left_knee", "left foot", "right_knee", "right foot"]
LIMBS = [*ARMS, *LEGS]
HIPS = ["spine_base", "left thigh", "right thigh"]
TABLE = {  # where each class may be looked for, by the parts and joints of NTU25
    **dict.fromkeys(
        ("touch head", "touch neck", "wave slowly", "wave fast", "throw", "clap"), ARMS
    ),
    **dict.fromkeys(("shake hands", "hand over"), ARMS),
    "raise left hand": ["left_elbow", "left hand"],
    "raise right hand": ["right_elbow", "right hand"],
    **dict.fromkeys(("walk", "run"), LIMBS),
    **dict.fromkeys(("sit down", "stand up"), HIPS),
    **dict.fromkeys(("kick", "jump"), LEGS),
    "bow": ["head", "upper_spine", "left_shoulder", "right_shoulder"],
    "push": [*ARMS, "head", "upper_spine", "left_shoulder", "right_shoulder"],
}
PLAIN = "plain"
WITHOUT = "no shortcut"
LATER = ["--stf-after", "0.33"]  # a focus has to be there first
ROWS: dict[str, list[str]] = {
    WITHOUT: ["--branch", "plain"],
    PLAIN: ["--branch", "plain"],
    "L_e 1": ["--branch", "exploration=1", *LATER],
    "L_c 1": ["--branch", "coherence=1", *LATER],
    "L_d 0.1": ["--branch", "divergence=0.1", *LATER],
    "L_e 0.3, L_c 1, erasing 0.5": ["--branch", "recommended", "--erasing", "0.5", *LATER],
    "guidance 0.3": ["--branch", "guidance=0.3", "--stf-after", "0"],
}
SHOWN = ("precision", "mass", "pointing")
SET_HERE = (*OURS, "--branch", "--stf-after", "--shortcut", "--guide", "--erasing", "--data")


def tested(folder: Path, share: float, number: int) -> dict[str, float]:
    """Measure top-1 with the shortcuts of other classes and with none, and the focus.

    The focus on the truth is that of the run's own score.
    """
    torch.set_num_threads(1)
    objective, recipe, *_ = load_run(folder)
    found = dict(measure(folder, recipe.score, None if recipe.shortcut == share else share))
    for title, of_clips in (("shuffled", share), ("none", 0.0)):
        actions = SyntheticActions(frames=recipe.frames, shortcut=of_clips)
        # The seed of a run's own test clips.
        batch = actions.generate(number, seed=2, shuffle_shortcut=True)
        data = SkeletonDataset.from_batch(batch, actions.layout, classes=actions.classes)
        right = predict(objective.model, data, recipe).argmax(1) == batch.label
        found[title] = 100 * right.double().mean().item()
    return found


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Show accuracy, focus, and how much of the shortcut's cost is recovered, as Markdown."""
    titles = [MEASURES[name][0] for name in SHOWN]
    accuracies = "top-1, shortcuts of other classes | recovered | top-1, no shortcuts"
    lines = [f"| | {accuracies} | {' | '.join(titles)} |"]
    lines.append("|---" * (4 + len(SHOWN)) + "|")
    gains = {}
    for row, of_seeds in found.items():
        pairs = zip(of_seeds, found[PLAIN], strict=True)
        gains[row] = [one["shuffled"] - plain["shuffled"] for one, plain in pairs]
    for row, of_seeds in found.items():
        cells = [
            mean_and_spread([one["shuffled"] for one in of_seeds], 2),
            recovered(gains[row], gains[WITHOUT]),
        ]
        cells += [mean_and_spread([one["none"] for one in of_seeds], 2)]
        for name in SHOWN:
            cells.append(mean_and_spread([one[name] for one in of_seeds], MEASURES[name][1]))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def recovered(won: Sequence[float], costs: Sequence[float]) -> str:
    """Return the share of the mean cost that is won back and, of several seeds, that of each."""

    def share(part: float, whole: float) -> str:
        return f"{100 * part / whole if whole else math.nan:.0f}"

    by_seed = ", ".join(share(part, whole) for part, whole in zip(won, costs, strict=True))
    return f"{share(sum(won), sum(costs))} %" + (f" ({by_seed})" if len(won) > 1 else "")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument(
        "--share", type=float, default=0.9, help="of the clips that show a shortcut, default 0.9"
    )
    others = [row for row in ROWS if row not in (WITHOUT, PLAIN)]
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=others,
        default=others,
        help="besides the first two; default all",
    )
    parser.add_argument(
        "--test-clips", type=int, default=1200, help="for the accuracy, default 1200"
    )
    given, passed = parser.parse_known_args()
    keep_options(given.out, [*passed, "--share", str(given.share)], SET_HERE)
    guide = given.out / "guide.json"
    guide.write_text(json.dumps(TABLE, indent=2) + "\n")
    wanted: dict[Path, list[str]] = {}
    rows = {row: ROWS[row] for row in (WITHOUT, PLAIN, *given.rows)}
    for (row, terms), seed in product(rows.items(), given.seeds):
        of_row = [] if row == WITHOUT else ["--shortcut", str(given.share)]
        of_row += ["--guide", str(guide)] if "guidance" in row else []
        wanted[place(given.out, row, seed)] = [*passed, *terms, *of_row, "--seed", str(seed)]
    finish_all(wanted, given.jobs)
    runs = [(row, seed) for row in rows for seed in given.seeds]
    folders = [place(given.out, *one) for one in runs]
    with ProcessPoolExecutor(given.jobs) as pool:
        values = pool.map(partial(tested, share=given.share, number=given.test_clips), folders)
        measured = dict(zip(runs, values, strict=True))
    print(table({row: [measured[row, seed] for seed in given.seeds] for row in rows}))


if __name__ == "__main__":
    run(main)
