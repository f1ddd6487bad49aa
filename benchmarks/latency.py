"""Measure the latency of a clip and the skipped frames of a camera, at the sizes for NW-UCLA.

    python benchmarks/latency.py [--frames 32] [--seconds 10] [--rate 30] [--threads 2]

Latency is the time to prepare and classify one clip of one body: median and 95th percentile of 200.
In the loop, a frame arrives every 1 / RATE seconds. The last FRAMES frames are prepared (centred,
scaled to body heights, turned into streams) and classified, then the loop continues with the newest
frame and skips those that arrived in between. The frames are generated.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from measure import DEVICE, setting
from recipe import PRESETS, Recipe, build_network, prepare

from skeleton_focus import NTU25, Batch, SyntheticActions

NETWORKS = {
    "STF-GCN": "nw_ucla",
    "MS-G3D": "nw_ucla_ms_g3d",
    "FG-STFormer": "nw_ucla_fg_stformer",
    "BAGCN": "nw_ucla_bagcn",
}


def window(frames: Tensor) -> Batch:
    """The latest frames (C, T, V, M) as a batch of one clip."""
    x = frames[None]
    seen = (x != 0).any(1).float()  # (1, T, V, M)
    label = torch.zeros(1, dtype=torch.int64)
    lengths = torch.tensor([x.shape[2]])
    return Batch(x, lengths, label, seen, torch.zeros(1, x.shape[4], *x.shape[2:4]))


@torch.no_grad()
def recognise(network: nn.Module, frames: Tensor, recipe: Recipe) -> int:
    """The class of the latest frames."""
    return int(network(prepare(window(frames), recipe, NTU25).to(DEVICE)).argmax(1))


def skipped(
    network: nn.Module, film: Tensor, recipe: Recipe, rate: float, seconds: float
) -> tuple[int, int]:
    """Count the frames of a camera that passed during the work on earlier ones, and all frames."""
    count = round(rate * seconds)
    done = 0
    i = 0
    begin = time.perf_counter()
    while i < count:
        time.sleep(max(begin + i / rate - time.perf_counter(), 0))  # until the frame is there
        at = i % (film.shape[1] - recipe.frames)
        recognise(network, film[:, at : at + recipe.frames], recipe)
        done += 1
        i = max(i + 1, int((time.perf_counter() - begin) * rate))  # the newest
    return count - done, count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, default=30, help="frames per second")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clips = SyntheticActions(frames=64).generate(8, seed=1).x[..., :1]  # (N, C, T, V, 1)
    film = torch.cat(list(clips), 1)
    print(f"{given.frames} frames, V 25, one body, float32, {setting()}\n")
    print(
        f"| network | latency, ms: median | 95 % | skipped at {given.rate:g} frames a second |\n"
        "|---|---|---|---|"
    )
    for name, preset in NETWORKS.items():
        torch.manual_seed(0)
        recipe = replace(Recipe(**PRESETS[preset]), frames=given.frames)
        network = build_network(recipe, 60, 1, NTU25).to(DEVICE).eval()
        times = []
        for i in range(-10, 200):
            start = time.perf_counter()
            recognise(network, film[:, i + 10 : i + 10 + given.frames], recipe)
            times += [1e3 * (time.perf_counter() - start)] if i >= 0 else []
        missed, count = skipped(network, film, recipe, given.rate, given.seconds)
        tail = statistics.quantiles(times, n=20)[-1]
        print(
            f"| {name} | {statistics.median(times):.1f} | {tail:.1f} | {missed} of {count} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
