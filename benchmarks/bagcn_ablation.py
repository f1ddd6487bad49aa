"""BAGCN's tables 3 and 4: top-1 of every focus and every context over several seeds.

    python benchmarks/bagcn_ablation.py --out runs/ablation [--seeds 1 2 3] [--jobs 2]

Any options of examples/train.py may follow. Each row and seed is one of its runs, with one thread
and in its own folder. Finished runs are reused, unfinished ones resumed, so an interrupted
benchmark continues where it stopped.
"""

from __future__ import annotations

from trained import OURS, command_line, finish_all, keep_options, mean_and_spread, place, run

ROWS = {
    "none": ["--network", "focus=none"],
    "mean": ["--network", "focus=mean"],
    "max": ["--network", "focus=max"],
    "attention": [],
    "no context": ["--network", "context=none"],
    "forward context": ["--network", "context=forward"],
}
SET_HERE = (*OURS, "--model", "--validate-every")


def main() -> None:
    given, passed = command_line(__doc__).parse_known_args()
    keep_options(given.out, passed, SET_HERE)
    wanted = {
        place(given.out, row, seed): ["--model", "bagcn", *ROWS[row], "--seed", str(seed), *passed]
        for seed in given.seeds
        for row in ROWS
    }
    top1 = [100 * report["top1"] for report in finish_all(wanted, given.jobs)]
    print(f"{'':>16} {'mean ± st. dev.':>15}  seeds {' '.join(map(str, given.seeds))}")
    for i, row in enumerate(ROWS):
        accuracies = top1[i :: len(ROWS)]
        by_seed = ", ".join(f"{one:.2f}" for one in accuracies)
        print(f"{row:>16} {mean_and_spread(accuracies, 2):>15}  {by_seed}")


if __name__ == "__main__":
    run(main)
