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
import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from runs import averaged, finish_all, go_on, keep_options, mean_and_spread
from skeleton_focus import (
    Augment,
    Batch,
    FeatureTap,
    SkeletonDataset,
    SkeletonLayout,
    STFAdjacency,
    STFObjective,
    area_under_curve,
    class_overlap,
    deletion_curve,
    divergence_loss,
    focus_coverage,
    focus_iou,
    focus_overlap,
    insertion_curve,
    layer_coherence,
    mask_by_focus,
    pointing_game,
)
from skeleton_focus._figure import BELOW, INK, MUTED, PANEL, SIDE, TRUTH, WIDTH, bare, inches, load_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from explain import clips_of
from recipe import Recipe, prepare
from train import load_run

PRINTED, TOGETHER = ["--norm", "l2"], ["--branch", "all"]
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
    "M2, printed norm": ["--branch", "coherence", *PRINTED],
    "M3, printed norm": ["--branch", "coherence+divergence", *PRINTED],
    "M4, printed norm": ["--branch", "focus", *PRINTED],
    "all, printed norm": [*TOGETHER, *PRINTED],
    "all, printed norm, detach": [*TOGETHER, *PRINTED, "--focus-gradient", "detach"],
    "all, printed norm, project": [*TOGETHER, *PRINTED, "--focus-gradient", "project"],
}
# Two halves of a row's epochs: the first goes on from the plain run, the second from the first.
STAGES = {"L_e, then M4, printed norm": (["--branch", "exploration"], ["--branch", "focus", *PRINTED])}
AVERAGES = {
    "M1 and M1 again": ("M1: plain", "M1 again"),
    "M5: M4 and L_e": ("M4: L_c, L_d, L_G", "L_e"),
    "M5, printed norm": ("M4, printed norm", "L_e"),
}
PLAIN = ("M1: plain", "M1 again", "M1 and M1 again")
DRAWN = ("top1", "coverage", "overlap", "coherence", "embedding", "masked", "precision", "found")
MEASURES = {  # name: title, digits
    "top1": ("top-1, %", 2),
    "coverage": ("coverage", 3),
    "overlap": ("overlap of two", 3),
    "coherence": ("coherence", 3),
    "embedding": ("embedding and Q", 3),
    "masked": ("p masked", 3),
    "opposed": ("L_e against L_d", 3),
    "deletion": ("deletion", 3),
    "insertion": ("insertion", 3),
    "precision": ("AP", 3),
    "iou": ("IoU", 3),
    "pointing": ("pointing", 3),
    "found": ("truth covered", 3),
    "training_loss": ("cross-entropy", 3),
}
CLAIMS = (  # what, measure, row, against, sign
    ("L_e widens the focus", "coverage", "L_e", "M1: plain", 1),
    ("L_e leaves less to see once Q is masked", "masked", "L_e", "M1: plain", -1),
    ("L_c joins the layers", "coherence", "M2: L_c", "M1: plain", 1),
    ("L_c joins the layers, printed norm", "coherence", "M2, printed norm", "M1: plain", 1),
    ("L_d separates the top two", "overlap", "M3: L_c, L_d", "M2: L_c", -1),
    ("L_d separates the top two, printed norm", "overlap", "M3, printed norm", "M2, printed norm", -1),
    ("L_d shrinks the focus, printed norm", "coverage", "M3, printed norm", "M2, printed norm", -1),
    ("L_G makes the embedding follow Q", "embedding", "M4: L_c, L_d, L_G", "M3: L_c, L_d", 1),
    ("L_G makes it follow, printed norm", "embedding", "M4, printed norm", "M3, printed norm", 1),
    ("M4 beats M1", "top1", "M4: L_c, L_d, L_G", "M1: plain", 1),
    ("M4 beats M1, printed norm", "top1", "M4, printed norm", "M1: plain", 1),
    ("M5 beats two plain networks", "top1", "M5: M4 and L_e", "M1 and M1 again", 1),
    ("M5 beats two plain networks, printed norm", "top1", "M5, printed norm", "M1 and M1 again", 1),
    ("all in one run is no worse than M5", "top1", "all", "M5: M4 and L_e", 1),
    ("all in one run is no worse than M5, printed norm", "top1", "all, printed norm", "M5, printed norm", 1),
    ("the same, detach", "top1", "all, printed norm, detach", "M5, printed norm", 1),
    ("the same, project", "top1", "all, printed norm, project", "M5, printed norm", 1),
    ("the same, L_e first", "top1", "L_e, then M4, printed norm", "M5, printed norm", 1),
)
OURS = ("--branch", "--seed", "--start-from", "--stf-after", "--threads", "--resume", "--quiet", "--validate-every",
        "--norm", "--focus-gradient", "--emphasis")  # fmt: skip


def train(given: argparse.Namespace, options: list[str]) -> None:
    """Every run of every row and seed."""
    base = {place(given.out, "base", seed): [*options, *BASE, "--seed", str(seed)] for seed in given.seeds}
    finish_all(base, given.jobs)
    after: dict[Path, list[str]] = {}
    wanted: dict[Path, list[str]] = {}
    for seed in given.seeds:
        half, start = given.more // 2, place(given.out, "base", seed)
        for row, terms in ROWS.items():
            apart = seed + 100 if row == "M1 again" else seed
            wanted[place(given.out, row, seed)] = [*options, *go_on(start, terms, apart, given.more, given.rate)]
        for row, (first, second) in STAGES.items():
            middle = place(given.out, f"{row}, first half", seed)
            wanted[middle] = [*options, *go_on(start, first, seed, half, given.rate)]
            after[place(given.out, row, seed)] = [*options, *go_on(middle, second, seed, given.more - half, given.rate)]
    finish_all(wanted, given.jobs)
    finish_all(after, given.jobs)


def place(out: Path, row: str, seed: int) -> Path:
    """The folder of a run."""
    return out / f"{row.replace(':', '').replace(',', '').replace(' ', '-')}-{seed}"


def measure(folder: Path) -> dict[str, float]:
    """Every measure of a run, a mean over its test clips; kept beside it."""
    kept = folder / "focus_quality.json"
    if kept.exists():
        found: dict[str, float] = json.loads(kept.read_text())
        return found
    torch.set_num_threads(1)
    objective, recipe, layout, classes = load_run(folder)
    data, _ = clips_of(str(folder), recipe, layout, classes)
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(data), 32):
        batch = SkeletonDataset.collate([data[i] for i in range(start, min(start + 32, len(data)))])
        for name, values in measure_batch(objective, batch, layout, recipe).items():
            parts.setdefault(name, []).append(values)
    found = {name: torch.cat(values).double().nanmean().item() for name, values in parts.items()}
    found["top1"] = 100 * json.loads((folder / "report.json").read_text())["top1"]
    found["training_loss"] = training_loss(folder)
    kept.write_text(json.dumps(found, indent=2) + "\n")
    return found


def measure_batch(objective: STFObjective, batch: Batch, layout: SkeletonLayout, recipe: Recipe) -> dict[str, Tensor]:
    """Each measure, a number for each clip."""
    model = objective.model
    x = prepare(batch, recipe, layout)
    names = [name for name, module in model.named_modules() if isinstance(module, STFAdjacency)]
    with torch.no_grad(), FeatureTap(model, names) as tap:
        logits = model(x)
    first, second = logits.topk(2).indices.unbind(1)
    focus, rival = (objective.explain(x, classes)[0] for classes in (first, second))
    low = objective.explain(x, first, layer=objective.layers[-2])[0]
    present = rearrange(x != 0, "n c t v m -> n m t v c").any(-1)
    found = {
        "coverage": focus_coverage(focus, present),
        "overlap": class_overlap(focus, rival),
        "coherence": layer_coherence(low, focus),
    }
    embeddings = [rearrange(tap.output(name)[1], "(n m) t v -> n m t v", n=len(x)) for name in names]
    found["embedding"] = torch.stack([layer_coherence(embedding, focus) for embedding in embeddings]).mean(0)
    found |= at_focus(model, x, first, focus, rival)
    few = slice(None, None, 4)  # of the clips: a curve runs the network six times
    for name, curve in (("deletion", deletion_curve), ("insertion", insertion_curve)):
        found[name] = area_under_curve(curve(model, x[few], focus[few], first[few], steps=5))
    critical = Augment(layout, frames=recipe.frames)(batch, None).critical
    if critical.any():
        found |= {"precision": focus_overlap(focus, critical), "iou": focus_iou(focus, critical)}
        found |= {"pointing": pointing_game(focus, critical), "found": focus_coverage(focus, critical)}
    return found


def at_focus(model: nn.Module, x: Tensor, classes: Tensor, focus: Tensor, rival: Tensor) -> dict[str, Tensor]:
    """p of the class once Q is masked, and whether L_e and L_d pull Q against each other: 1 or 0."""
    q = focus.requires_grad_()
    p = model(mask_by_focus(x, q)).softmax(1).gather(1, classes[:, None]).squeeze(1)
    (of_e,) = torch.autograd.grad(p.sum(), q)
    (of_d,) = torch.autograd.grad(divergence_loss(q, rival, reduction="sum"), q)
    return {"masked": p.detach(), "opposed": ((of_e * of_d).flatten(1).sum(1) < 0).float()}


def training_loss(folder: Path) -> float:
    """The mean cross-entropy of the last epoch's training clips."""
    with (folder / "log" / "version_0" / "metrics.csv").open(newline="") as file:
        logged = [row["train/classification"] for row in csv.DictReader(file)]
    return float([value for value in logged if value][-1])


def tables(found: Mapping[str, list[dict[str, float]]], seeds: list[int]) -> str:
    """Every measure of every row, and every claim, as Markdown."""
    shown = {name: told for name, told in MEASURES.items() if name in found["base"][0]}
    lines = ["| | " + " | ".join(title for title, _ in shown.values()) + " |", "|---" * (len(shown) + 1) + "|"]
    for row, of_seeds in found.items():
        cells = [mean_and_spread([one[name] for one in of_seeds], digits) if name in of_seeds[0] else ""
                 for name, (_, digits) in shown.items()]  # fmt: skip
        lines.append(f"| {row} | {' | '.join(cells)} |")
    listed = ", ".join(map(str, seeds))
    lines += ["", f"| claim | measure | difference of | by seed {listed} | |", "|---|---|---|---|---|"]
    for claim, name, row, against, sign in CLAIMS:
        moved = [one[name] - other[name] for one, other in zip(found[row], found[against], strict=True)]
        told = ", ".join(f"{difference:+.{MEASURES[name][1]}f}" for difference in moved)
        lines.append(f"| {claim} | {MEASURES[name][0]} | {row} - {against} | {told} | {verdict(moved, sign)} |")
    return "\n".join(lines)


def draw(found: Mapping[str, list[dict[str, float]]]) -> Figure:
    """Each measure in a panel of its own: a dot for every seed of every row, a line at their mean."""
    mpl, _ = load_matplotlib()
    names = [name for name in DRAWN if name in found["base"][0]]
    across, head = 4, 0.3
    down = math.ceil(len(names) / across)
    tall, left = 0.17 * len(found), 1.9
    wide = (WIDTH - left - SIDE) / across
    figure: Figure = mpl.figure.Figure((WIDTH, down * (tall + head + 0.3) + 0.2), dpi=200)
    for panel, name in enumerate(names):
        column, bottom = panel % across, (down - 1 - panel // across) * (tall + head + 0.3) + 0.45
        ax = figure.add_axes(inches(figure, left + column * wide, bottom, wide - 0.15, tall))
        for y, (row, of_seeds) in enumerate(found.items()):
            values = [one[name] for one in of_seeds if name in one]
            colour = INK if row in ("base", *PLAIN) else BELOW if row.startswith(("all", *STAGES)) else TRUTH
            ax.plot(values, [y] * len(values), "o", color=colour, markersize=3.5, alpha=0.55, markeredgewidth=0)
            if values:
                ax.plot([sum(values) / len(values)] * 2, [y - 0.4, y + 0.4], color=colour, linewidth=1.6)
        ax.set(ylim=(len(found) - 0.5, -0.5), facecolor=PANEL)
        ax.set_yticks(range(len(found)), found if column == 0 else [""] * len(found))
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        ax.grid(color="white", linewidth=1)
        ax.set_axisbelow(True)
        bare(ax)
        ax.tick_params(axis="y", labelcolor=INK, labelsize=7.5)
        ax.set_title(MEASURES[name][0], fontsize=9, color=INK, loc="left", pad=4)
    seeds = len(found["base"])
    told = (
        f"a dot: one of {seeds} seeds; line: their mean; dark: plain training, blue: STF, orange: all terms in one run"
    )
    figure.text(*inches(figure, SIDE, 0.08)[:2], told, fontsize=8, color=MUTED)
    return figure


def verdict(differences: Sequence[float], sign: int) -> str:
    """Whether every seed says the same."""
    signs = {math.copysign(1, difference) * sign if difference else 0.0 for difference in differences}
    return "holds" if signs == {1.0} else "the opposite" if signs == {-1.0} else "seeds differ"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, default 1")
    parser.add_argument("--more", type=int, default=4, help="epochs that each row goes on, default 4")
    parser.add_argument("--rate", type=float, default=0.01, help="highest learning rate in them, default 0.01")
    parser.add_argument("--plot", type=Path, help="also draw the measures into this file")
    given, options = parser.parse_known_args()
    if given.more < 2:
        raise ValueError(f"expected --more of at least 2 epochs, half of them for each stage, got {given.more}")
    keep_options(given.out, [*options, "--more", str(given.more), "--rate", str(given.rate)], OURS)
    train(given, options)
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
        draw(found).savefig(given.plot)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
