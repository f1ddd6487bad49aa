"""Print the accuracy tables of the documentation from results/, or add a finished run to it.

    python benchmarks/published.py                  # the tables of docs/accuracy.md
    python benchmarks/published.py --commands       # how each run was trained
    python benchmarks/published.py --add runs/joint nw_ucla/stf_gcn/joint-1

results/DATA/NETWORK/STREAM-N holds what a published figure needs: report.json (the recipe, the
accuracy of the last epoch and the test accuracy while training) and log_probabilities.npz (of the
test clips). N is the seed, or the subject that was left out. The folders are runs for
examples/ensemble.py. Two more tables need runs of other names:

    NETWORK_then_BRANCH/STREAM-N    fine-tuned from the run NETWORK/STREAM-N, or from weights/
    changes_GROUP/CHANGE-N          another recipe than that of changes_GROUP/none-N
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
from command_line import as_text
from ensemble import fused, read_all
from recipe import PRESETS, Recipe, with_tuples
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


# Branches that a trained network is fine-tuned with, in the order of their columns.
FINE_TUNING = {"plain": "fine-tuned with cross-entropy", "recommended": "with the STF losses"}


def add(folder: Path, name: str) -> None:
    """Copy a finished run's report and log-probabilities to results/."""
    data, network, last = (*name.split("/"), "", "")[:3]
    stream = last.rpartition("-")[0]
    scores = finished(folder, "log_probabilities.npz")
    report = json.loads(finished(folder, "report.json").read_text())
    recipe = report["recipe"]
    if network.startswith("changes_"):  # any name suits: the table shows what differs
        suited = f"{network}/{stream}"
    else:
        tuned = f"_then_{recipe['branch']}" if recipe["start_from"] else ""
        suited = f"{recipe['model']}{tuned}/{recipe['stream']}"
    left_out = (report["split"] or "").removeprefix("test_subjects=")
    number = left_out if left_out.isdigit() else str(recipe["seed"])
    suited += f"-{number}"
    if name.count("/") != 2 or data not in DATA or f"{network}/{last}" != suited:
        raise ValueError(
            f"expected the name DATA/{suited} for this run, DATA one of {', '.join(DATA)}, "
            f"got {name}"
        )
    first = RESULTS / data / network / f"none-{number}"
    if network.startswith("changes_") and stream != "none" and not first.exists():
        raise ValueError(f"expected {first} before a change of it; add that run first")
    shown_branches = FINE_TUNING if recipe["start_from"] else ["plain"]
    if recipe["model"] not in NETWORKS or recipe["branch"] not in shown_branches:
        raise ValueError(
            f"expected a network that the tables show, {', '.join(NETWORKS)} trained with "
            f"{' or '.join(shown_branches)}, got {recipe['model']} with {recipe['branch']}"
        )
    _, report["data"], classes = DATA[data]
    if len(report["classes"]) != classes:
        raise ValueError(
            f"expected a run on {data}'s {classes} classes, got {len(report['classes'])}"
        )
    for other in runs_of(RESULTS / data / network).get(stream, {}).values():
        if repeated(facts_of(other)) != repeated(report):
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


def repeated(report: dict[str, Any]) -> dict[str, Any]:
    """What runs with other seeds, or other subjects left out, have in common."""
    common = {"seed": 0, "start_from": bool(report["recipe"]["start_from"])}
    return report["recipe"] | common | {"precision": report["precision"]}


def strings(value: Any) -> Iterator[str]:
    """The texts in a report."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def differing(recipe: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """The options of a recipe that differ from the usual ones."""
    options = {}
    for name, value in recipe.items():
        if isinstance(value, dict):
            if lost := set(usual[name]) - set(value):
                raise ValueError(f"expected {name} with {', '.join(sorted(lost))}, got {value}")
            parts = {key: part for key, part in value.items() if usual[name].get(key) != part}
            if parts:
                options[name] = parts
        elif value != usual[name]:
            options[name] = value
    return options


def shown(options: dict[str, Any]) -> str:
    """Options as they are typed."""
    return " ".join(
        f"--{name.replace('_', '-')} {as_text(value)}" for name, value in options.items()
    )


def command(report: dict[str, Any]) -> str:
    """The command that trains a run: its preset and the options that differ from it."""
    names = ("data", "preset", "layout", "split", "precision", "validate_every", "threads")
    options = {name: report[name] for name in names if report[name]}
    options |= differing(settings(report), vars(Recipe(**PRESETS[report["preset"]])))
    if options["precision"] == "32-true":  # the default
        del options["precision"]
    flags = " --skip-bad-clips" if report["skip_bad_clips"] else ""
    return f"python examples/train.py {shown(options)}{flags}"


def settings(report: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a report, with tuples for JSON's lists."""
    return {name: with_tuples(value) for name, value in report["recipe"].items()}


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
    passes = "/".join(sorted({str(report["recipe"]["epochs"]) for report in reports}))
    hours = sum(report["cpu_seconds"] for report in reports) / 3600
    return row(title, name, spelt(stream), passes, f"{hours:.2f}", *last_and_best(reports))


def last_and_best(reports: list[dict[str, Any]]) -> tuple[str, str]:
    """The accuracy of the last epoch and of the best one; no best one without test clips."""
    last = percent(report["top1"] for report in reports)
    curves = [report["curve"] for report in reports]
    if not all(curve["clips"] == "test" and curve["top1"] for curve in curves):
        return last, ""
    best = (max(report["top1"], *report["curve"]["top1"]) for report in reports)
    return last, percent(best)


def spelt(stream: str) -> str:
    return stream.replace("_", " ").replace("+", " + ")


def fuse_streams(streams: dict[str, dict[str, Path]], number: str) -> tuple[Tensor, Tensor]:
    """The weighted sum of the streams' logits and the labels."""
    logs, label, _ = read_all([str(runs[number]) for runs in streams.values()])
    return fused(logs, [FUSION[stream] for stream in streams], logits=True), label


def fused_row(title: str, name: str, streams: dict[str, dict[str, Path]]) -> str:
    """The fusion of a network's streams, for each number that all streams have."""
    shared = set.intersection(*(set(runs) for runs in streams.values()))
    top1 = [accuracy(*fuse_streams(streams, number))["top1"] for number in sorted(shared)]
    return row(title, name, f"{len(streams)} streams, fused", "", "", percent(top1), "")


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


def change_table() -> str:
    """What other recipes bring: for each group, its first recipe and what differs from it."""
    columns = (
        "data",
        "recipe, and what is changed",
        "runs",
        "last epoch",
        "best epoch",
        "gain, same seeds",
    )
    lines = [row(*columns), "|---" * len(columns) + "|"]
    for data, (title, *_) in DATA.items():
        for group in sorted((RESULTS / data).glob("changes_*")):
            changes = runs_of(group)
            first = changes.pop("none")
            for runs in (first, *changes.values()):
                pairs = [(facts_of(runs[n]), facts_of(first[n])) for n in runs]
                gains = [one["top1"] - other["top1"] for one, other in pairs]
                report, base = pairs[0]
                if runs is first:
                    cells = [f"`{shown(recipe_of(report))}`", ""]
                else:
                    cells = [f"... `{shown(recipe_of(report, base))}`", percent(gains)]
                last, best = last_and_best([report for report, _ in pairs])
                lines.append(row(title, cells[0], str(len(runs)), last, best, cells[1]))
    return "\n".join(lines)


def recipe_of(report: dict[str, Any], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """The options that differ from a run of the same preset or else from the run's own preset."""
    if base and base["preset"] == report["preset"]:
        options, usual = {}, {"precision": base["precision"], **settings(base)}
    else:
        options = {"preset": report["preset"]}
        usual = {"precision": "32-true", **vars(Recipe(**PRESETS[report["preset"]]))}
    own = {"precision": report["precision"], **settings(report)}
    return options | differing(own | {"seed": usual["seed"]}, usual)


def fine_tuning_table() -> str:
    """What fine-tuning a trained network brings, by branch, for the runs that have all branches."""
    columns = ("data", "network", "streams", "runs", "trained", *FINE_TUNING.values())
    lines = [row(*columns), "|---" * len(columns) + "|"]
    for data, (title, *_) in DATA.items():
        for network, name in NETWORKS.items():
            folders = [network, *(f"{network}_then_{branch}" for branch in FINE_TUNING)]
            groups = [runs_of(RESULTS / data / folder) for folder in folders]
            for stream in groups[-1]:
                numbers = set.intersection(*(set(group.get(stream, {})) for group in groups))
                top1 = [
                    percent(facts_of(group[stream][n])["top1"] for n in sorted(numbers))
                    for group in groups
                    if numbers
                ]
                if top1:
                    lines.append(row(title, name, spelt(stream), str(len(numbers)), *top1))
    return "\n".join(lines)


def tables() -> list[str]:
    """All tables of docs/accuracy.md that have a row."""
    made = [network_table(), change_table(), fine_tuning_table(), class_table()]
    return [table for table in made if table.count("\n") > 1]


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
        print("\n\n".join(tables()))


if __name__ == "__main__":
    run(main)
