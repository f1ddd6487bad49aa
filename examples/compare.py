"""Compare two runs: top-1 of both, the classes that gain and lose most, and the confusion matrix.

    python examples/compare.py runs/plain runs/more
    python examples/compare.py runs/plain runs/more --out pictures --most 20
    python examples/compare.py nw_ucla/stf_gcn/joint runs/mine --data PATH  # runs the networks

Writes class_difference.png (each class's accuracy in the second run minus that in the first) and
confusion.png (the second run's confusion matrix) into --out, by default the second run's folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from ensemble import gather
from loading import clip_options
from results import facts_of, output_folder
from train import run

from skeleton_focus.plot_runs import plot_class_difference, plot_confusion


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs=2, metavar="RUN", help="folders of two finished runs on the same data"
    )
    clip_options(parser)
    parser.add_argument(
        "--out",
        help="folder for the pictures; default: that of the second run, or this one for runs in "
        "weights and results",
    )
    parser.add_argument(
        "--most", type=int, help="draw only this many classes, those with the largest differences"
    )
    given = parser.parse_args(arguments)
    first, second = given.runs
    logs, label, _ = gather(given.runs, given)
    probabilities = [log.exp() for log in logs]
    classes, others = (facts_of(folder)["classes"] for folder in given.runs)
    if classes != others:
        raise ValueError(
            f"expected runs on the same {len(classes)} classes, got {second} on {len(others)} "
            "others"
        )

    n = len(label)
    right = [p.argmax(1) == label for p in probabilities]
    top = [hits.double().mean().item() for hits in right]
    width = max(map(len, given.runs))
    for folder, share in zip(given.runs, top, strict=True):
        print(f"{folder:{width}}  top-1 {share:.2%}")
    only = [int((one & ~other).sum()) for one, other in (right, right[::-1])]
    print(
        f"{100 * (top[1] - top[0]):+.2f} points on {n} clips: {only[1]} right only by {second}, "
        f"{only[0]} only by {first}"
    )
    clips = torch.bincount(label, minlength=len(classes))
    gain = torch.bincount(label, right[1].double() - right[0].double(), len(classes)) / clips.clamp(
        min=1
    )
    for word, order in (("gain", gain.argsort(descending=True)), ("lose", gain.argsort())):
        moved = [c for c in order.tolist() if (gain[c] > 0 if word == "gain" else gain[c] < 0)][:5]
        shown = [f"{classes[c]} {100 * gain[c]:+.1f} ({clips[c]} clips)" for c in moved]
        print(f"{word} most: {', '.join(shown) or 'none'}")

    out = Path(given.out if given.out is not None else output_folder(second))
    out.mkdir(parents=True, exist_ok=True)
    runs = dict(
        zip(given.runs if first != second else ("first", "second"), probabilities, strict=True)
    )
    plot_class_difference(label, runs, classes, most=given.most).savefig(
        out / "class_difference.png"
    )
    most = given.most if given.most is not None else 60
    plot_confusion(label, probabilities[1], classes, most=most, title=second).savefig(
        out / "confusion.png"
    )
    print(
        "written:", ", ".join(str(out / name) for name in ("class_difference.png", "confusion.png"))
    )


if __name__ == "__main__":
    run(main)
