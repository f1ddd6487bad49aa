"""The paper's table 4: top-1 of plain training and of STF on a share of the training clips.

    python benchmarks/scarce_data.py --out runs/scarce --data PATH [--seeds 1 2 3] [--jobs 2]
        [--shares 0.1 0.2 0.25 1]

For every share and seed one network is trained with cross-entropy and then fine-tuned for a few
epochs: twice with cross-entropy, on different orders of the clips, and on STF's two branches. The
two plain runs are averaged like the branches, to show the effect of averaging alone. A share s is
trained for s^(-1/2) times as many epochs, so that a tenth of the clips takes a third of the steps.
Any options of examples/train.py may follow. Finished runs are reused, unfinished ones resumed.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

from trained import (
    DOWN_TO_ZERO,
    OURS,
    averaged,
    command_line,
    finish_all,
    go_on,
    keep_options,
    mean_and_spread,
    place,
    run,
)

BRANCHES = {
    "plain": ["--branch", "plain"],
    "plain again": ["--branch", "plain"],
    "focus": ["--branch", "focus"],
    "exploration": ["--branch", "exploration"],
}
# Trained on another order of the clips, so that either average is of two.
OTHER_ORDER = ("plain again", "exploration")
ROWS = {
    "plain": ("plain",),
    "two plain, averaged": ("plain", "plain again"),
    "STF": ("focus", "exploration"),
}
SET_HERE = (
    *OURS,
    "--branch",
    "--share",
    "--draw",
    "--stf-after",
    "--validate-every",
    "--epochs",
    "--ema",
    "--cycle",
    "--decay",
    "--norm",
)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.1, 0.2, 0.25, 1.0],
        help="default 0.1 0.2 0.25 1",
    )
    parser.add_argument(
        "--base", type=int, default=42, help="epochs of the first training on all clips, default 42"
    )
    parser.add_argument(
        "--more", type=int, default=4, help="epochs of fine-tuning on all clips, default 4"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=0.01,
        help="highest learning rate of fine-tuning, default 0.01",
    )
    parser.add_argument(
        "--norm", choices=["rms", "l2"], default="rms", help="norm of the focus branch, default rms"
    )
    given, passed = parser.parse_known_args()
    settings = [f"{name}={getattr(given, name)}" for name in ("base", "more", "rate", "norm")]
    keep_options(given.out, [*passed, *settings], SET_HERE)
    first: dict[Path, list[str]] = {}
    then: dict[Path, list[str]] = {}
    for seed in given.seeds:
        for share in given.shares:
            base, more = (max(round(epochs / share**0.5), 1) for epochs in (given.base, given.more))
            part = [] if share == 1 else ["--share", str(share), "--draw", str(seed)]
            shared = [*passed, *part]
            start = place(given.out, f"base {share:g}", seed)
            of_run = ["--seed", str(seed), "--epochs", str(base)]
            first[start] = [*shared, "--branch", "plain", *DOWN_TO_ZERO, *of_run]
            for row, terms in BRANCHES.items():
                options = [*shared, "--norm", given.norm] if row == "focus" else shared
                order = seed + 100 if row in OTHER_ORDER else seed
                here = place(given.out, f"{row} {share:g}", seed)
                then[here] = [*options, *go_on(start, terms, order, more, given.rate)]
    finish_all(first, given.jobs)
    finish_all(then, given.jobs)
    shares = " | ".join(f"{share:.0%}" for share in given.shares)
    print(f"| | {shares} |\n|---{'|---' * len(given.shares)}|")
    found: dict[str, list[list[float]]] = {row: [] for row in ROWS}
    for (row, runs), share in product(ROWS.items(), given.shares):
        names = [f"{one} {share:g}" for one in runs]
        top1 = [averaged([place(given.out, one, seed) for one in names]) for seed in given.seeds]
        found[row].append(top1)
    for row, by_share in found.items():
        print(f"| {row} | {' | '.join(mean_and_spread(values, 2) for values in by_share)} |")
    for against in ("plain", "two plain, averaged"):
        pairs = zip(found["STF"], found[against], strict=True)
        cells = (", ".join(f"{a - b:+.2f}" for a, b in zip(*both, strict=True)) for both in pairs)
        print(f"| STF - {against}, by seed | {' | '.join(cells)} |")


if __name__ == "__main__":
    run(main)
