"""Measure how BatchNorm in training lets other clips' scores change an earlier layer's focus.

    python benchmarks/batch_norm_focus.py nw_ucla/stf_gcn/joint --data PATH

If no other clip's score reaches the layer, a clip's focus by the log-odds and its focus by the
probability differ only by a positive factor, which min-max removes. The difference of the two maps
therefore measures the influence of the other clips.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torch import Tensor, nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from loading import clips_of
from recipe import prepare
from results import load_run

from skeleton_focus import SkeletonDataset, STFObjective


def differences(objective: STFObjective, batches: list[Tensor], layer: str) -> tuple[float, float]:
    """Of the worst clip: the mean difference over its map, and the greatest."""
    objective.score = "log_odds"
    probability = STFObjective(
        objective.model, objective.layers, head=objective.head, score="probability"
    )
    mean = greatest = 0.0
    for x in batches:
        ours = objective.explain(x, layer=layer)[0]
        difference = (ours - probability.explain(x, layer=layer)[0]).abs()
        mean = max(mean, difference.mean((1, 2, 3)).max().item())
        greatest = max(greatest, difference.max().item())
    return mean, greatest


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument(
        "--data", help="folder or file of clips; by default what the run was trained on"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=10)
    given = parser.parse_args()
    objective, recipe, layout, classes, *_ = load_run(given.run)
    data, _ = clips_of(given.run, recipe, layout, classes, data=given.data)
    data = data.subset(range(min(given.batch * given.batches, len(data))))
    loader = DataLoader(data, given.batch, collate_fn=SkeletonDataset.collate, drop_last=True)
    batches = [prepare(batch, recipe, layout) for batch in loader]
    print(
        f"{len(batches)} batches of {given.batch} clips; "
        "difference of the worst clip, mean and greatest"
    )
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    kinds = {"training": nn.Dropout, "BatchNorm in evaluation": (nn.Dropout, *norms)}
    for title, frozen in kinds.items():
        objective.train()
        for module in objective.model.modules():
            if isinstance(module, frozen):
                module.eval()
        for layer in objective.layers:
            mean, greatest = differences(objective, batches, layer)
            print(f"{title}, {layer}: {mean:.1e}, {greatest:.1e}")


if __name__ == "__main__":
    main()
