"""From nothing to a focus: train with and without the STF losses on generated actions, measure the focus, draw it.

    python examples/demo.py [--out runs/demo]

Writes OUT/focus.png (the film strip of a clip: the truth, the focus with the STF losses and without), OUT/report.html
(24 test clips to click through, as the run with the STF losses sees them), the two runs with their checkpoints in
OUT/focus and OUT/plain, and OUT/report.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from explain import pick, to_draw
from loading import load_data
from recipe import Recipe, prepare
from report import build_report
from results import load_run
from torch import Tensor
from torch.utils.data import DataLoader
from train import main as train
from train import run

from skeleton_focus import SkeletonDataset, Split, STFObjective, focus_average_precision
from skeleton_focus.plot import plot_focus_comparison


def average_precision(objective: STFObjective, recipe: Recipe, data: SkeletonDataset) -> Tensor:
    """Average precision of the predicted class's focus against the truth, for each test clip."""
    found = []
    for batch in DataLoader(data, batch_size=64, collate_fn=SkeletonDataset.collate):
        focus, _ = objective.explain(prepare(batch, recipe, data.layout))
        found.append(focus_average_precision(focus, batch.critical))
    return torch.cat(found)


def trained(folder: Path, options: list[str]) -> dict[str, Any]:
    """The report of a run, which goes on where an interrupted demo stopped."""
    if (folder / "report.json").exists():
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        return report
    if (folder / "last.ckpt").exists():
        options = ["--resume", "--devices", "1"]
    try:
        return train(["--out", str(folder), *options])
    except SystemExit:  # interrupted, with a hint that names train.py
        kept = "stopped; go on" if (folder / "last.ckpt").exists() else "stopped in the first epoch; start again"
        raise SystemExit(f"{kept} with: python examples/demo.py --out {folder.parent}") from None


@contextmanager
def going_on(out: Path) -> Iterator[None]:
    """What another version left there may not fit."""
    goes_on = out.exists()
    try:
        yield
    except ValueError as error:
        if not goes_on:
            raise
        raise ValueError(f"{error}; to start anew remove {out} or name another --out") from None


def measured(out: Path) -> tuple[dict[str, Any], SkeletonDataset]:
    """Both runs, how well they recognise and look, and the test clips."""
    report: dict[str, Any] = {}
    for branch in ("plain", "focus"):
        print(f"\ntraining: {'cross-entropy alone' if branch == 'plain' else 'with the STF losses (focus branch)'}")
        run_of = trained(out / branch, ["--branch", branch, "--validate-every", "100", "--devices", "1"])
        objective, recipe, _, _ = load_run(out / branch)
        data: Split = load_data(None, recipe)
        values = average_precision(objective, recipe, data.test)
        report[branch] = {
            "top1": run_of["top1"],
            "seconds": run_of["seconds"],
            "average_precision": round(values.mean().item(), 4),
        }
    return report, data.test


def draw(out: Path, test: SkeletonDataset) -> None:
    """A clip's film strip: the truth, the focus with the STF losses and without."""
    objective, recipe, layout, classes = load_run(out / "focus")
    batch = SkeletonDataset.collate([test[pick(None, test, objective, recipe)]])
    x, critical = to_draw(batch, layout, recipe)
    bodies = x.flatten(0, 2).any(0)
    rows = {f"{classes[int(batch.label)]}: the truth": critical[bodies]}
    for branch, title in (("focus", "focus, trained with STF"), ("plain", "focus, trained without")):
        objective, recipe, _, _ = load_run(out / branch)
        rows[title] = objective.explain(prepare(batch, recipe, layout), batch.label)[0][0][bodies]
    plot_focus_comparison(x[..., bodies], rows, layout, truth=critical[bodies]).savefig(out / "focus.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", default="runs/demo", help="folder to write; goes on with an interrupted demo, replaces an earlier one"
    )
    given = parser.parse_args()
    out = Path(given.out)
    if out.exists():
        if {path.name for path in out.iterdir()} - {"plain", "focus", "focus.png", "report.html", "report.json"}:
            raise ValueError(f"expected a new folder or an earlier demo's, got {out}, which holds something else")
        if (out / "report.json").exists():
            shutil.rmtree(out)
    with going_on(out):
        report, test = measured(out)
    truth = SkeletonDataset.collate([test[i] for i in range(len(test))]).critical
    report["chance"] = round(focus_average_precision(torch.zeros_like(truth), truth).mean().item(), 4)
    draw(out, test)
    build_report(out / "focus", out / "report.html")
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")

    print(f"\n{'':24}{'top-1':>8}{'average precision of the focus':>38}")
    for branch, title in (("plain", "without the STF losses"), ("focus", "with the STF losses")):
        print(f"{title:24}{report[branch]['top1']:8.2%}{report[branch]['average_precision']:38.3f}")
    print(f"{'a focus that knows nothing':26}{'':6}{report['chance']:38.3f}")
    written = ("focus.png", "report.json", "focus/model.pt", "focus/last.ckpt")
    print(f"\nwritten: {out}/report.html to open in a browser,", ", ".join(f"{out}/{name}" for name in written))


if __name__ == "__main__":
    run(main)
