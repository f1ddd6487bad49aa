"""Speed of the readers against plain readers, and how long training waits for the loader.

    python benchmarks/readers.py [--data ../shared/data] [--repeats 15] [--only ntu|nw_ucla|loader]

NTU: the two sample files, against a reader as the field's loaders have it, with a dict of named
fields per joint. NW-UCLA: all 1,484 files, against json and numpy. Neither of the two checks
anything. Cold: the files are not in the page cache, as the bytes read from the disk confirm. The
readers are interleaved; a ratio is the median of the ratios within a round. Loader: the time for a
batch against a training step of the smallest network.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measure import interleave, quartiles, ratio, setting
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from recipe import PRESETS, Recipe, build_network, prepare

from skeleton_focus import SkeletonDataset, open_dataset, seeded_generator
from skeleton_focus.format_ntu import read_ntu
from skeleton_focus.format_nw_ucla import open_nw_ucla

SHARED = Path(__file__).parents[2] / "shared" / "data"
FIELDS = (
    "x y z depth_x depth_y color_x color_y "
    "rotation_w rotation_x rotation_y rotation_z tracking_state"
)


def read_ntu_by_name(path: Path) -> NDArray[np.float32]:
    """Read as the field's loaders do: dicts of named fields, then x (3, T, 25, M) by joints."""
    frames = []
    with path.open() as file:
        for _ in range(int(file.readline())):
            bodies = []
            for _ in range(int(file.readline())):
                file.readline()
                joints = []
                for _ in range(int(file.readline())):
                    fields = map(float, file.readline().split())
                    joints.append(dict(zip(FIELDS.split(), fields, strict=True)))
                bodies.append(joints)
            frames.append(bodies)
    x = np.zeros((3, len(frames), 25, max(map(len, frames))), np.float32)
    for t, bodies in enumerate(frames):
        for m, joints in enumerate(bodies):
            for v, joint in enumerate(joints):
                x[:, t, v, m] = joint["x"], joint["y"], joint["z"]
    return x


def read_nw_ucla_by_json(path: Path) -> NDArray[np.float32]:
    """json and numpy: positions (T, 20, 3)."""
    with path.open("rb") as file:
        return np.array(json.load(file)["skeletons"], np.float32)


def each(read: Callable[[Path], object], files: Sequence[Path]) -> None:
    for file in files:
        read(file)


def forget(files: Sequence[Path]) -> None:
    """Ask the system to drop files from its page cache."""
    for file in files:
        opened = os.open(file, os.O_RDONLY)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(opened)


def from_disk() -> int:
    """Bytes that this process has made the system read from a disk."""
    (line,) = [
        line
        for line in Path("/proc/self/io").read_text().splitlines()
        if line.startswith("read_bytes")
    ]
    return int(line.split()[1])


def compare(
    title: str, readers: dict[str, Callable[[], None]], files: Sequence[Path], repeats: int
) -> None:
    """The last reader, ours, against the others, warm and cold."""
    size = sum(file.stat().st_size for file in files)
    print(f"\n{title}: {len(files)} files, {size / 1e6:.1f} MB")
    print(
        f"{'':44} {'ms a file, warm (quartiles)':>28} {'ours x faster':>14}   "
        f"{'cold, ms':>9} {'x':>6}"
    )
    warm = interleave(readers, repeats)
    cold: dict[str, list[float]] = {name: [] for name in readers}
    before = from_disk()
    for _ in range(max(repeats // 3, 3)):
        for name, read in readers.items():
            forget(files)
            start = time.perf_counter()
            read()
            cold[name].append(time.perf_counter() - start)
    read_again = (from_disk() - before) / (size * len(cold[name]) * len(readers))
    *_, ours = readers
    for name in readers:
        a_file = [[seconds / len(files) for seconds in times[name]] for times in (warm, cold)]
        gains = [ratio(times[name], times[ours]) for times in (warm, cold)]
        cold_ms = sorted(a_file[1])[len(a_file[1]) // 2] * 1e3
        print(
            f"{name:44} {quartiles(a_file[0]):>28} {gains[0]:14.2f}   "
            f"{cold_ms:9.2f} {gains[1]:6.2f}"
        )
    print(f"(cold: {read_again:.0%} of the bytes came from the disk)")


def ntu(data: Path, repeats: int) -> None:
    files = sorted((data / "ntu_samples").glob("*.skeleton")) * 16
    readers = {
        "plain, a dict of names for each joint": read_ntu_by_name,
        "skeleton_focus.read_ntu": read_ntu,
    }
    compare(
        "NTU RGB+D text",
        {name: partial(each, read, files) for name, read in readers.items()},
        files,
        repeats,
    )


def nw_ucla(data: Path, repeats: int) -> None:
    folder = data / "nw_ucla"
    source = open_nw_ucla(folder)
    if source is None:
        sys.exit(f"error: expected NW-UCLA in {folder}, got no such files")
    readers = {
        "json and numpy": partial(each, read_nw_ucla_by_json, source.files),
        "skeleton_focus, checked": lambda: None if source is None else [*source.read()] and None,
    }
    compare("NW-UCLA JSON", readers, source.files, max(repeats // 3, 3))
    with tempfile.TemporaryDirectory() as cache:
        for what in ("open_dataset, cache not written yet", "open_dataset, cache written"):
            start = time.perf_counter()
            split = open_dataset(folder, cache=cache)
            total = 0
            for part in split:
                total += sum(part[i].x.shape[1] for i in range(len(part)))
            seconds = time.perf_counter() - start
            print(f"{what + ', and every clip read':60} {seconds:8.3f} s ({total} frames)")
        print(split.describe())


def loader(data: Path, repeats: int) -> None:
    """What a batch costs, and how long a training loop waits for it."""
    recipe = Recipe(**PRESETS["synthetic"])
    with tempfile.TemporaryDirectory() as cache:
        train = open_dataset(data / "nw_ucla", cache=cache).train
        network = build_network(recipe, len(train.classes), 1, train.layout)
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
        print(
            f"\nLoader: NW-UCLA from the cache, batch {recipe.batch}, the smallest network "
            f"({sum(p.numel() for p in network.parameters())} parameters, T {recipe.frames})"
        )
        print(
            f"{'':24} {'ms a batch, waiting':>20} {'ms a step':>12} {'waiting':>9}"
            f" {'clips a second, loader alone':>30}"
        )
        for workers in (0, 1, 2):
            batches = DataLoader(
                train,
                recipe.batch,
                shuffle=True,
                drop_last=True,
                collate_fn=SkeletonDataset.collate,
                num_workers=workers,
                persistent_workers=workers > 0,
            )
            waits = []
            steps = []
            for epoch in range(2):
                mark = time.perf_counter()
                for i, batch in enumerate(batches):
                    got = time.perf_counter()
                    random = seeded_generator(0, epoch=epoch, step=i)
                    loss = nn.functional.cross_entropy(
                        network(prepare(batch, recipe, train.layout, random)), batch.label
                    )
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    now = time.perf_counter()
                    if epoch and i:  # the first batches wait for the workers to start
                        waits.append(got - mark)
                        steps.append(now - got)
                    mark = now
            start = time.perf_counter()
            clips = sum(len(batch.label) for _ in range(max(repeats // 5, 1)) for batch in batches)
            rate = clips / (time.perf_counter() - start)
            wait, step = (1e3 * sorted(times)[len(times) // 2] for times in (waits, steps))
            share = sum(waits) / (sum(waits) + sum(steps))
            print(
                f"{workers} loading processes{'':5} {wait:24.2f} {step:10.1f} "
                f"{share:9.2%} {rate:23.0f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=SHARED, help="folder with ntu_samples and nw_ucla"
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parts = {"ntu": ntu, "nw_ucla": nw_ucla, "loader": loader}
    parser.add_argument("--only", choices=parts)
    given = parser.parse_args()
    if not given.data.is_dir():
        sys.exit(
            f"error: expected --data with a folder of ntu_samples and nw_ucla, got {given.data}"
        )
    torch.set_num_threads(given.threads)
    print(f"{setting()}, {given.repeats} rounds")
    for name, part in parts.items():
        if given.only in (None, name):
            part(given.data, given.repeats)


if __name__ == "__main__":
    main()
