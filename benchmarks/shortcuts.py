"""What a shortcut in the training clips costs, and what each loss wins back: above all, guidance by the user.

    python benchmarks/shortcuts.py --out runs/shortcuts [--seeds 1 2 3] [--jobs 2] [--share 0.9]

Generated actions of which a share of the training clips also shows a motion of another limb that betrays the class
(``SyntheticActions(shortcut=...)``); in the test clips it belongs to another class. One network a row and seed, trained
from scratch. The row "no shortcut" is trained without that motion and tested with it. Guidance is given the joints
that make each class, as a table that a user could write (TABLE): it allows every joint that is critical and none that a
shortcut moves. Guidance acts from the first step on. Prints top-1 and the focus on the truth, on the same test clips
for all rows; "recovered" is the share of what the shortcut costs plain training that a row wins back, nan where it
costs nothing. A finished run is read and not trained again, an unfinished one is resumed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import torch
from focus_measures import MEASURES, measure
from loading import generated
from results import load_run, predict
from trained import OURS, command_line, finish_all, keep_options, mean_and_spread, place, run

ARMS = ["left_elbow", "left hand", "right_elbow", "right hand"]
LEGS = ["left_knee", "left foot", "right_knee", "right foot"]
LIMBS, HIPS = [*ARMS, *LEGS], ["spine_base", "left thigh", "right thigh"]
TABLE = {  # where each class may be looked for, by the parts and joints of NTU25
    **dict.fromkeys(("touch head", "touch neck", "wave slowly", "wave fast", "throw", "clap"), ARMS),
    **dict.fromkeys(("shake hands", "hand over"), ARMS),
    "raise left hand": ["left_elbow", "left hand"],
    "raise right hand": ["right_elbow", "right hand"],
    **dict.fromkeys(("walk", "run"), LIMBS),
    **dict.fromkeys(("sit down", "stand up"), HIPS),
    **dict.fromkeys(("kick", "jump"), LEGS),
    "bow": ["head", "upper_spine", "left_shoulder", "right_shoulder"],
    "push": [*ARMS, "head", "upper_spine", "left_shoulder", "right_shoulder"],
}
PLAIN, WITHOUT = "plain", "no shortcut"
FROM_THE_START = ["--stf-after", "0"]
ROWS: dict[str, list[str]] = {
    WITHOUT: ["--branch", "plain"],
    PLAIN: ["--branch", "plain"],
    "guidance 0.3": ["--branch", "guidance=0.3", *FROM_THE_START],
}
SHOWN = ("precision", "mass", "pointing")
SET_HERE = (*OURS, "--branch", "--stf-after", "--shortcut", "--guide", "--erasing", "--data")


def tested(folder: Path, share: float) -> dict[str, float]:
    """Top-1 with the shortcuts of other classes, with none, and the focus on the truth, of the run's own score."""
    torch.set_num_threads(1)
    objective, recipe, _, _ = load_run(folder)
    found = dict(measure(folder, recipe.score, None if recipe.shortcut == share else share))
    for title, of_clips in (("shuffled", share), ("none", 0.0)):
        recipe.shortcut = of_clips
        data = generated(recipe).test
        label = torch.tensor(data.labels)
        found[title] = 100 * (predict(objective.model, data, recipe).argmax(1) == label).double().mean().item()
    return found


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Markdown: accuracy, focus, and what of the shortcut's cost is recovered, seed by seed and on average."""
    titles = [MEASURES[name][0] for name in SHOWN]
    lines = [f"| | top-1, shortcuts of other classes | recovered | top-1, no shortcuts | {' | '.join(titles)} |"]
    lines.append("|---" * (4 + len(SHOWN)) + "|")
    for row, of_seeds in found.items():
        won = []
        for one, plain, without in zip(of_seeds, found[PLAIN], found[WITHOUT], strict=True):
            cost = without["shuffled"] - plain["shuffled"]
            won.append(100 * (one["shuffled"] - plain["shuffled"]) / cost if cost else math.nan)
        cells = [mean_and_spread([one["shuffled"] for one in of_seeds], 2), mean_and_spread(won, 0) + " %"]
        cells += [mean_and_spread([one["none"] for one in of_seeds], 2)]
        cells += [mean_and_spread([one[name] for one in of_seeds], MEASURES[name][1]) for name in SHOWN]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--share", type=float, default=0.9, help="of the clips that show a shortcut, default 0.9")
    given, passed = parser.parse_known_args()
    keep_options(given.out, [*passed, "--share", str(given.share)], SET_HERE)
    guide = given.out / "guide.json"
    guide.write_text(json.dumps(TABLE, indent=2) + "\n")
    wanted: dict[Path, list[str]] = {}
    for (row, terms), seed in product(ROWS.items(), given.seeds):
        of_row = [] if row == WITHOUT else ["--shortcut", str(given.share)]
        of_row += ["--guide", str(guide)] if "guidance" in row else []
        wanted[place(given.out, row, seed)] = [*passed, *terms, *of_row, "--seed", str(seed)]
    finish_all(wanted, given.jobs)
    runs = [(row, seed) for row in ROWS for seed in given.seeds]
    with ProcessPoolExecutor(given.jobs) as pool:
        values = pool.map(tested, [place(given.out, *one) for one in runs], [given.share] * len(runs))
        measured = dict(zip(runs, values, strict=True))
    print(table({row: [measured[row, seed] for seed in given.seeds] for row in ROWS}))


if __name__ == "__main__":
    run(main)
