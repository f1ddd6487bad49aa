"""Print the accuracy table of the documentation from results/, or add a finished run to it.

    python benchmarks/published.py                  # the table of docs/accuracy.md
    python benchmarks/published.py --commands       # how each run was trained
    python benchmarks/published.py --add runs/joint nw_ucla/stf_gcn/joint-1

results/DATA/NETWORK/STREAM-N holds what a published figure needs: report.json (the recipe, the
accuracy of the last epoch and the test accuracy while training) and log_probabilities.npz (of the
test clips). N is the seed, or the subject that was left out. The folders are runs for
examples/ensemble.py.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trained import mean_and_spread, run

# isort: split
from command_line import as_text, with_tuples
from ensemble import fused, read_all
from recipe import PRESETS, Recipe
from results import facts_of, finished, write_json

RESULTS = Path(__file__).parents[1] / "results"
# What CTR-GCN's code adds the logits of NW-UCLA's streams with.
WEIGHTS = {"joint": 0.6, "bone": 0.6, "joint_motion": 0.4, "bone_motion": 0.4}
DATA = {  # and where their files are, in the commands
    "nw_ucla": ("NW-UCLA", "PATH"),
    "utd_mhad": ("UTD-MHAD", "utd_mhad.npz"),
    "penn_action": ("Penn Action", "penn_action.npz"),
    "florence3d": ("Florence 3D", "florence3d.npz"),
}
NETWORKS = {
    "stf_gcn": "STF-GCN",
    "stf_gcn_recommended": "STF-GCN with the recommended STF losses",
    "ms_g3d": "MS-G3D",
    "fg_stformer": "FG-STFormer",
    "bagcn": "BAGCN",
}


def add(folder: Path, name: str) -> None:
    """Copy a run's report and log-probabilities to results/, without paths of this machine."""
    parts = name.split("/")
    data, network = (*parts, "")[:2]
    if len(parts) != 3 or data not in DATA or network not in NETWORKS:
        raise ValueError(
            f"expected DATA/NETWORK/STREAM-N of {', '.join(DATA)} and {', '.join(NETWORKS)}, "
            f"got {name}"
        )
    scores = finished(folder, "log_probabilities.npz")
    report = {**facts_of(folder), "data": DATA[data][1]}
    place = RESULTS / name
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "report.json", report)
    shutil.copyfile(scores, place / scores.name)


def command(report: dict[str, Any]) -> str:
    """The command that trains a run: its preset and the options that differ from it."""
    recipe = {name: with_tuples(value) for name, value in report["recipe"].items()}
    preset = vars(Recipe(**PRESETS[report["preset"]]))
    options = {"data": report["data"], "preset": report["preset"]}
    options |= {name: report[name] for name in ("layout", "split") if report[name]}
    for name, value in recipe.items():
        usual = preset[name]
        if isinstance(value, dict):
            value = {key: part for key, part in value.items() if usual.get(key) != part}
            usual = {}
        if value != usual:
            options[name] = value
    shown = [f"--{name.replace('_', '-')} {as_text(value)}" for name, value in options.items()]
    shown += ["--skip-bad-clips"] * report["skip_bad_clips"]
    every = f"--validate-every {report['validate_every']}"
    return f"python examples/train.py {' '.join(shown)} {every} --threads 1"


def runs_of(folder: Path) -> dict[str, list[Path]]:
    """The runs in a folder, by stream: those that differ in their number alone are one row."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*/report.json")):
        found.setdefault(path.parent.name.rpartition("-")[0], []).append(path.parent)
    return dict(sorted(found.items(), key=lambda pair: order(pair[0])))


def order(stream: str) -> tuple[int, str]:
    return (list(WEIGHTS).index(stream) if stream in WEIGHTS else len(WEIGHTS), stream)


def best(report: dict[str, Any]) -> float:
    """The best top-1 on the test clips after any epoch that was evaluated."""
    curve = report["curve"]
    return max(report["top1"], *(curve["top1"] if curve["clips"] == "test" else []), 0.0)


def percent(values: Sequence[float]) -> str:
    return mean_and_spread([100 * value for value in values], 2)


def fused_top1(folder: Path, streams: Sequence[str], number: str) -> float:
    """Top-1 of the weighted sum of the streams' logits."""
    logs, label, _ = read_all([str(folder / f"{stream}-{number}") for stream in streams])
    weights = [WEIGHTS.get(stream, 1.0) for stream in streams]
    return (fused(logs, weights, logits=True).argmax(1) == label).double().mean().item()


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def network_rows(folder: Path, title: str, name: str) -> list[str]:
    """A row for each stream of a network, over several runs their mean, and one for the fusion."""
    rows = []
    streams = runs_of(folder)
    for stream, runs in streams.items():
        reports = [facts_of(run) for run in runs]
        hours = statistics.mean(report["cpu_seconds"] for report in reports) / 3600
        passes = "/".join(sorted({str(report["recipe"]["epochs"]) for report in reports}))
        shown = stream.replace("_", " ").replace("+", " + ")
        last = percent([report["top1"] for report in reports])
        cells = (
            title,
            name,
            shown,
            passes,
            f"{hours:.2f}",
            last,
            percent(list(map(best, reports))),
        )
        rows.append(row(*cells))
    if len(streams) > 1:
        numbers = [{run.name.rpartition("-")[2] for run in runs} for runs in streams.values()]
        top1 = [fused_top1(folder, list(streams), n) for n in sorted(set.intersection(*numbers))]
        rows.append(row(title, name, f"{len(streams)} fused", "", "", percent(top1), ""))
    return rows


def network_table() -> str:
    """Every network and stream on every data set."""
    columns = ("data", "network", "streams", "passes", "core-hours", "last epoch", "best epoch")
    lines = [row(*columns), "|---" * len(columns) + "|"]
    for data, (title, _) in DATA.items():
        for network, name in NETWORKS.items():
            lines += network_rows(RESULTS / data / network, title, name)
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
        print(network_table())


if __name__ == "__main__":
    run(main)
