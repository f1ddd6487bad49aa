"""Train on generated actions with and without the losses; compare accuracy and focus; draw both.

    python examples/demo.py [--out runs/demo]

Trains a network with cross-entropy, then fine-tunes it twice: with cross-entropy, and with the
recommended losses and erasing (the preset ``synthetic_focus``). Prints the accuracy, the accuracy
with a body part hidden, and the quality of the focus of both. Writes OUT/focus.png (the film strip
of a clip: the ground truth and both focuses), OUT/report.html (an interactive page of 24 test clips
for the second network), the runs with their checkpoints in OUT/base, OUT/plain and OUT/focus, and
OUT/report.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from explain import pick, to_draw
from loading import load_data
from recipe import PRESETS, Recipe, prepare
from report import build_report
from results import load_run
from torch.utils.data import DataLoader
from train import main as train
from train import run

from skeleton_focus import SkeletonDataset, Split, STFObjective
from skeleton_focus.focus_metrics import focus_average_precision, pointing_game
from skeleton_focus.occlusion import body_parts, hide_joints
from skeleton_focus.plot import plot_focus_comparison

EPOCHS = ["--epochs", "5"]  # half of the preset's, to end within minutes
RATE = ["--lr", str(PRESETS["synthetic_focus"]["lr"])]
RUNS = {  # in this order; the others go on from the first
    "base": ("with cross-entropy", ["--branch", "plain"]),
    "plain": ("further, with cross-entropy", ["--branch", "plain", *RATE, *EPOCHS]),
    "focus": ("further, with the losses and erasing", ["--preset", "synthetic_focus", *EPOCHS]),
}


@torch.no_grad()
def measure(objective: STFObjective, recipe: Recipe, data: SkeletonDataset) -> dict[str, float]:
    """Measure the accuracy with a body part hidden, and how well the focus finds the truth."""
    parts = list(body_parts(data.layout).values())
    hits = []
    precision = []
    pointing = []
    for batch in DataLoader(data, batch_size=64, collate_fn=SkeletonDataset.collate):
        for joints in parts:
            x = prepare(batch, recipe, data.layout, occlude=partial(hide_joints, joints=joints))
            hits.append(objective.model(x).argmax(1) == batch.label)
        focus, _ = objective.explain(prepare(batch, recipe, data.layout))
        precision.append(focus_average_precision(focus, batch.critical))
        pointing.append(pointing_game(focus, batch.critical))
    return {
        "top1_part_hidden": round(torch.cat(hits).float().mean().item(), 4),
        "average_precision": round(torch.cat(precision).nanmean().item(), 4),
        "pointing": round(torch.cat(pointing).nanmean().item(), 4),
    }


def trained(folder: Path, options: list[str]) -> dict[str, Any]:
    """Train a run, or resume it where an interrupted demo stopped; returns its report."""
    if (folder / "report.json").exists():
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        return report
    if (folder / "last.ckpt").exists():
        options = ["--resume", "--devices", "1"]
    try:
        return train(["--out", str(folder), *options])
    except SystemExit:  # interrupted, with a hint that names train.py
        saved = (folder / "last.ckpt").exists()
        reason = "stopped; resume" if saved else "stopped in the first epoch; start again"
        raise SystemExit(f"{reason} with: python examples/demo.py --out {folder.parent}") from None


@contextmanager
def resuming(out: Path) -> Iterator[None]:
    """Say how to start again if the runs in ``out`` are of another version."""
    resumes = out.exists()
    try:
        yield
    except ValueError as error:
        if not resumes:
            raise
        raise ValueError(f"{error}; to start again, remove {out} or name another --out") from None


def measured(out: Path) -> tuple[dict[str, Any], SkeletonDataset]:
    """Train and measure all runs; returns the measures and the test clips."""
    report: dict[str, Any] = {}
    for name, (description, options) in RUNS.items():
        print(f"\ntraining {description}")
        start = [] if name == "base" else ["--start-from", str(out / "base")]
        run_of = trained(
            out / name, [*options, *start, "--validate-every", "100", "--devices", "1"]
        )
        objective, recipe, *_ = load_run(out / name)
        data: Split = load_data(None, recipe)
        report[name] = {"top1": run_of["top1"], "seconds": run_of["seconds"]}
        if name != "base":
            report[name] |= measure(objective, recipe, data.test)
    return report, data.test


def draw(out: Path, test: SkeletonDataset) -> None:
    """Draw a clip's film strip, with the focus of the plain network and of that with the losses."""
    objective, recipe, layout, classes, *_ = load_run(out / "focus")
    batch = SkeletonDataset.collate([test[pick(None, test, objective, recipe)]])
    x, critical = to_draw(batch, layout, recipe)
    bodies = x.flatten(0, 2).any(0)
    rows = {}
    action = classes[int(batch.label)]
    for branch, title in (
        ("plain", f"Where a plainly trained network looks to recognise “{action}”"),
        ("focus", "Where it looks after training with the losses and erasing"),
    ):
        objective, recipe, *_ = load_run(out / branch)
        rows[title] = objective.explain(prepare(batch, recipe, layout), batch.label)[0][0][bodies]
    plot_focus_comparison(x[..., bodies], rows, layout, truth=critical[bodies]).savefig(
        out / "focus.png"
    )


def table(report: dict[str, Any]) -> str:
    """Format what the losses changed, one row per network."""
    lines = [f"{'':28}{'top-1':>8}{'part hidden':>16}{'average precision':>20}{'pointing':>11}"]
    for name, title in (("plain", "plain training"), ("focus", "with the losses and erasing")):
        of = report[name]
        accuracies = f"{of['top1']:8.1%}{of['top1_part_hidden']:16.1%}"
        lines.append(f"{title:28}{accuracies}{of['average_precision']:20.3f}{of['pointing']:11.3f}")
    lines.append(f"{'constant focus (baseline)':52}{report['chance']:20.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        default="runs/demo",
        help="output folder; an interrupted demo there is resumed, a finished one replaced",
    )
    given = parser.parse_args()
    out = Path(given.out)
    if out.exists():
        known = {*RUNS, "focus.png", "report.html", "report.json"}
        if {path.name for path in out.iterdir()} - known:
            raise ValueError(
                f"expected a new folder or an earlier demo's, got {out}, which holds something else"
            )
        if (out / "report.json").exists():
            shutil.rmtree(out)
    with resuming(out):
        report, test = measured(out)
    truth = SkeletonDataset.collate([test[i] for i in range(len(test))]).critical
    report["chance"] = round(
        focus_average_precision(torch.zeros_like(truth), truth).nanmean().item(), 4
    )
    draw(out, test)
    build_report(out / "focus", out / "report.html")
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")

    print(f"\n{table(report)}")
    written = ("focus.png", "report.json", "focus/model.pt", "focus/last.ckpt")
    print(
        f"\nwritten: {out}/report.html to open in a browser,",
        ", ".join(f"{out}/{name}" for name in written),
    )


if __name__ == "__main__":
    run(main)
