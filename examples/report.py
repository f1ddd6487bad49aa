"""Write an interactive HTML report of what a trained network looks at: one file that a browser
opens offline.

    python examples/report.py runs/mine                                    # writes \
        runs/mine/report.html
    python examples/report.py runs/mine --data PATH --clips 60 --out report.html

For each clip it shows the skeleton, the focus of the two most probable classes and of the true
class, and the ground truth if it is known.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from explain import to_draw
from loading import chosen_clips, clip_options, clips_of
from recipe import prepare
from results import load_run, output_folder, predict
from tqdm import tqdm
from train import run

from skeleton_focus import Batch, SkeletonDataset
from skeleton_focus.focus import SCORES, top_two
from skeleton_focus.report import ReportClip, write_report


def choose(predicted: list[int], labels: list[int], count: int) -> list[int]:
    """Choose the clips to show: at most half misclassified ones, both kinds evenly over classes."""
    right = [i for i, label in enumerate(labels) if predicted[i] == label]
    wrong = [i for i, label in enumerate(labels) if predicted[i] != label]
    missed = spread(wrong, labels, max(min(len(wrong), count // 2), count - len(right)))
    return missed + spread(right, labels, count - len(missed))


def spread(numbers: list[int], labels: list[int], count: int) -> list[int]:
    """Choose ``count`` clips: the first of each class, then the second, and so on."""
    rounds: dict[int, list[int]] = {}
    seen: dict[int, int] = {}
    for i in numbers:
        seen[labels[i]] = seen.get(labels[i], -1) + 1
        rounds.setdefault(seen[labels[i]], []).append(i)
    chosen: list[int] = []
    for of_round in rounds.values():
        ordered = sorted(of_round, key=lambda i: labels[i])
        left = count - len(chosen)
        picked = np.linspace(0, len(ordered) - 1, min(left, len(ordered))).round().astype(int)
        chosen += [ordered[k] for k in picked]
    return sorted(chosen, key=lambda i: (labels[i], i))


def build_report(
    folder: str | Path,
    path: str | Path,
    *,
    clips: int = 24,
    score: str | None = None,
    **clips_asked: Any,
) -> str:
    """Write the page of a run; return a sentence about what it shows."""
    objective, recipe, layout, classes, *_ = load_run(folder)
    objective.score = score or objective.score
    test, source = clips_of(folder, recipe, layout, classes, **clips_asked)

    parts = [range(start, min(start + 256, len(test))) for start in range(0, len(test), 256)]
    shown_parts = tqdm(parts, desc="predicting", leave=False, delay=1)
    logs = [predict(objective.model, test.subset(part), recipe) for part in shown_parts]
    probabilities = torch.cat(logs).exp()
    predicted = probabilities.argmax(1).tolist()
    chosen = choose(predicted, test.labels, clips)
    shown = []
    for start in tqdm(range(0, len(chosen), recipe.batch), desc="explaining", leave=False, delay=1):
        numbers = chosen[start : start + recipe.batch]
        batch = SkeletonDataset.collate([test[i] for i in numbers])
        inputs = prepare(batch, recipe, layout)
        p = probabilities[numbers]
        wanted = torch.stack([*top_two(p), batch.label])  # (3, N)
        focus = [objective.explain(inputs, of_class)[0] for of_class in wanted]
        for n, i in enumerate(numbers):
            x, truth = to_draw(cut(batch, n), layout, recipe)
            heats = {
                int(of_class[n]): heat[n] for of_class, heat in zip(wanted, focus, strict=True)
            }
            known = truth if truth.any() else None
            shown.append(ReportClip(test.names[i], x, test.labels[i], p[n], heats, known))

    wrong = sum(predicted[i] != test.labels[i] for i in chosen)
    hits = sum(guess == label for guess, label in zip(predicted, test.labels, strict=True))
    summary = (
        f"{len(shown)} of {len(test)} test clips: {wrong} of the {len(test) - hits} that are "
        f"misclassified and {len(shown) - wrong} that are recognised, each spread evenly over "
        "the classes"
    )
    table = {
        "accuracy": f"{100 * hits / len(test):.1f} % of {len(test)} test clips",
        "network": recipe.model,
        "loss terms": recipe.branch,
        "focus of": f"the {objective.score.replace('_', '-')}",
        "stream": recipe.stream,
        "clips": "generated" if source is None else f"{test.origin}, {Path(source).name}",
        "skeleton": layout.name,
        "shown": summary,
    }
    title = f"Where {recipe.model} looks: {Path(folder).resolve().name}"
    write_report(path, shown, layout, classes, title=title, facts=table)
    return summary


def cut(batch: Batch, n: int) -> Batch:
    """Take one clip of a batch, without padding."""
    x, lengths, label, visibility, critical = (part[n : n + 1] for part in batch)
    t = int(lengths)
    return Batch(x[:, :, :t], lengths, label, visibility[:, :t], critical[:, :, :t])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a run of train.py, or network of weights")
    clip_options(parser)
    parser.add_argument(
        "--clips", type=int, default=24, help="number of test clips to show, default 24"
    )
    parser.add_argument(
        "--score",
        choices=SCORES,
        help="class score whose gradient gives the focus; default: the run's",
    )
    parser.add_argument(
        "--out",
        help="HTML file to write; default: report.html in the run's folder, or in this one for a "
        "network of weights",
    )
    given = parser.parse_args(arguments)
    if given.clips < 1:
        raise ValueError(f"expected --clips of at least 1, got {given.clips}")
    path = Path(given.out if given.out is not None else output_folder(given.run) / "report.html")
    if path.suffix.lower() != ".html" or not path.parent.is_dir():  # before anything is computed
        raise ValueError(f"expected --out to end in .html, in a folder that exists, got {path}")
    options = {"clips": given.clips, "score": given.score, **chosen_clips(given)}
    print(f"written: {path}, {build_report(given.run, path, **options)}")


if __name__ == "__main__":
    run(main)
