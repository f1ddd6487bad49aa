"""Print the accuracy tables of the documentation from results/, or add a finished run to it.

    python benchmarks/published.py                  # the tables of docs/accuracy.md
    python benchmarks/published.py --commands       # how each run was trained
    python benchmarks/published.py --add runs/joint nw_ucla/stf_gcn/joint-1

results/DATA/NETWORK/STREAM-N holds what a published figure needs: report.json (the recipe, the
accuracy of the last epoch and the test accuracy while training) and log_probabilities.npz (of the
test clips). N is the seed, or the subject that was left out. The folders are runs for
examples/ensemble.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from trained import mean_and_spread, run

# isort: split
from command_line import as_text, with_tuples
from ensemble import fused, read_all
from recipe import PRESETS, Recipe
from results import accuracy, facts_of, finished, write_json

RESULTS = Path(__file__).parents[1] / "results"
# What CTR-GCN's code adds the logits of NW-UCLA's streams with; the last two are BAGCN's.
FUSION = {"joint": 0.6, "bone": 0.6, "joint_motion": 0.4, "bone_motion": 0.4}
FUSION |= {"joint+bone": 0.6, "joint_motion+bone_motion": 0.4}
DATA = {  # title, path in the commands, number of classes
    "nw_ucla": ("NW-UCLA", "PATH", 10),
    "utd_mhad": ("UTD-MHAD", "utd_mhad.npz", 27),
    "penn_action": ("Penn Action", "penn_action.npz", 15),
    "florence3d": ("Florence 3D", "florence3d.npz", 9),
}
NETWORKS = {
    "stf_gcn": "STF-GCN",
    "ms_g3d": "MS-G3D",
    "fg_stformer": "FG-STFormer",
    "bagcn": "BAGCN",
}


def add(folder: Path, name: str) -> None:
    """Copy a finished run's report and log-probabilities to results/."""
    data, network, last = (*name.split("/"), "", "")[:3]
    stream, _, number = last.rpartition("-")
    if name.count("/") != 2 or data not in DATA or network not in NETWORKS or not number.isdigit():
        raise ValueError(
            f"expected DATA/NETWORK/STREAM-N of {', '.join(DATA)} and {', '.join(NETWORKS)}, "
            f"got {name}"
        )
    scores = finished(folder, "log_probabilities.npz")
    report = json.loads(finished(folder, "report.json").read_text())
    recipe = report["recipe"]
    left_out = (report["split"] or "").removeprefix("test_subjects=")
    suited = (
        f"{recipe['model']}/{recipe['stream']}-{left_out if left_out.isdigit() else recipe['seed']}"
    )
    if f"{network}/{last}" != suited:
        raise ValueError(f"expected the name {data}/{suited} for this run, got {name}")
    _, report["data"], classes = DATA[data]
    if len(report["classes"]) != classes:
        raise ValueError(
            f"expected a run on {data}'s {classes} classes, got {len(report['classes'])}"
        )
    for other in runs_of(RESULTS / data / network).get(stream, {}).values():
        if facts_of(other)["recipe"] | {"seed": 0} != recipe | {"seed": 0}:
            raise ValueError(f"expected the recipe of {other} but for the seed, got another")
    if own := [value for value in strings(report) if Path(value).is_absolute()]:
        raise ValueError(
            f"expected a run without paths of this machine, got {folder} with {own[0]}"
        )
    place = RESULTS / name
    if place.exists():
        raise ValueError(f"expected a new name, got {name}; delete {place} to replace the run")
    place.mkdir(parents=True)
    write_json(place / "report.json", report)
    shutil.copyfile(scores, place / scores.name)


def strings(value: Any) -> Iterator[str]:
    """The texts in a report."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def command(report: dict[str, Any]) -> str:
    """The command that trains a run: its preset and the options that differ from it."""
    recipe = {name: with_tuples(value) for name, value in report["recipe"].items()}
    preset = vars(Recipe(**PRESETS[report["preset"]]))
    names = ("data", "preset", "layout", "split", "precision", "validate_every", "threads")
    options = {name: report[name] for name in names if report[name]}
    for name, value in recipe.items():
        usual = preset[name]
        if isinstance(value, dict):
            value = {key: part for key, part in value.items() if usual.get(key) != part}
            usual = {}
        if value != usual:
            options[name] = value
    if options["precision"] == "32-true":  # the default
        del options["precision"]
    shown = [f"--{name.replace('_', '-')} {as_text(value)}" for name, value in options.items()]
    if report["skip_bad_clips"]:
        shown.append("--skip-bad-clips")
    return f"python examples/train.py {' '.join(shown)}"


def runs_of(folder: Path) -> dict[str, dict[str, Path]]:
    """The runs in a folder by stream, in the order of ``FUSION``, and by number."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*/report.json")):
        stream, _, number = path.parent.name.rpartition("-")
        found.setdefault(stream, {})[number] = path.parent
    known = [stream for stream in FUSION if stream in found]
    return {stream: found[stream] for stream in [*known, *(s for s in found if s not in known)]}


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def percent(values: Iterable[float]) -> str:
    return mean_and_spread([100 * value for value in values], 2)


def stream_row(title: str, name: str, stream: str, runs: Iterable[Path]) -> str:
    """The mean over the runs of one network on one stream."""
    reports = [facts_of(run) for run in runs]
    curves = [report["curve"] for report in reports]
    best = ""
    if all(curve["clips"] == "test" and curve["top1"] for curve in curves):
        best = percent(
            max(report["top1"], *curve["top1"])
            for report, curve in zip(reports, curves, strict=True)
        )
    passes = "/".join(sorted({str(report["recipe"]["epochs"]) for report in reports}))
    hours = sum(report["cpu_seconds"] for report in reports) / 3600
    shown = stream.replace("_", " ").replace("+", " + ")
    last = percent(report["top1"] for report in reports)
    return row(title, name, shown, passes, f"{hours:.2f}", last, best)


def fuse_streams(streams: dict[str, dict[str, Path]], number: str) -> tuple[Tensor, Tensor]:
    """The weighted sum of the streams' logits and the labels."""
    logs, label, _ = read_all([str(runs[number]) for runs in streams.values()])
    return fused(logs, [FUSION[stream] for stream in streams], logits=True), label


def fused_row(title: str, name: str, streams: dict[str, dict[str, Path]]) -> str:
    """The fusion of a network's streams, for each number that all streams have."""
    shared = set.intersection(*(set(runs) for runs in streams.values()))
    top1 = [accuracy(*fuse_streams(streams, number))["top1"] for number in sorted(shared)]
    shown = f"{len(streams)} streams, fused"
    return row(title, name, shown, "", "", percent(top1), "")


def network_table() -> str:
    """Every network and stream on every data set."""
    columns = ("data", "network", "streams", "passes", "core-hours", "last epoch", "best epoch")
    lines = [row(*columns), "|---" * len(columns) + "|"]
    for data, (title, *_) in DATA.items():
        for network, name in NETWORKS.items():
            streams = runs_of(RESULTS / data / network)
            for stream, runs in streams.items():
                lines.append(stream_row(title, name, stream, runs.values()))
            streams = {stream: runs for stream, runs in streams.items() if stream in FUSION}
            if len(streams) > 1 and set.intersection(*map(set, streams.values())):
                lines.append(fused_row(title, name, streams))
    return "\n".join(lines)


def class_table() -> str:
    """What the fusion of STF-GCN's streams on NW-UCLA gets wrong, seed 1."""
    streams = runs_of(RESULTS / "nw_ucla" / "stf_gcn")
    scores, label = fuse_streams(streams, "1")
    classes = facts_of(streams["joint"]["1"])["classes"]
    lines = [row("class", "clips", "wrong", "classified as"), "|---" * 4 + "|"]
    for c, name in enumerate(classes):
        taken = scores[label == c].argmax(1).tolist()
        others = Counter(classes[other] for other in taken if other != c).most_common()
        shown = ", ".join(f"{other} {count}" for other, count in others)
        wrong = str(sum(count for _, count in others))
        lines.append(row(name, str(len(taken)), wrong, shown))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", action="store_true", help="print how each run was trained")
    parser.add_argument(
        "--add", nargs=2, metavar=("RUN", "NAME"), help="add a finished run, DATA/NETWORK/STREAM-N"
    )
    given = parser.parse_args()
    if given.add:
        add(Path(given.add[0]), given.add[1])
    elif given.commands:
        for path in sorted(RESULTS.rglob("report.json")):
            print(f"{path.parent.relative_to(RESULTS)}: {command(facts_of(path.parent))}")
    else:
        print(f"{network_table()}\n\n{class_table()}")


if __name__ == "__main__":
    run(main)
