"""What the cheap second derivatives of ``skeleton_focus/_second_order.py`` save in a training step of the focus branch.

    OMP_NUM_THREADS=1 python benchmarks/second_order_cost.py [--repeats 25] [--batch 16] [--frames 32]

The same network, batch and process, in turn: as it is; with the shift alone (the gradient at a map comes out summed
over frames and joints, but BatchNorm, concatenation and the next layer are differentiated as PyTorch does); and without
either, the gradient at the whole map. Figures are medians of the ratio within a round, so that other programs on the
machine meet all alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from measure import DEVICE, interleave, quartiles, ratio, setting
from stf_gcn import STFGCN

from skeleton_focus import KINECT20, FeatureTap, STFLoss, STFObjective
from skeleton_focus._second_order import SecondOrder, plain_kernels

OWN_OPERATIONS = SecondOrder.__torch_function__
TAPPED = FeatureTap._tapped


@contextmanager
def as_it_is() -> Iterator[None]:
    yield


@contextmanager
def shift_alone() -> Iterator[None]:
    """PyTorch's own derivatives behind the shifted map."""

    def plain(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))

    SecondOrder.__torch_function__ = plain  # type: ignore[method-assign]
    try:
        yield
    finally:
        SecondOrder.__torch_function__ = OWN_OPERATIONS  # type: ignore[method-assign]


@contextmanager
def neither() -> Iterator[None]:
    """The gradient at the whole map, by PyTorch alone."""
    FeatureTap._tapped = lambda self, layer, forward, mode: TAPPED(self, layer, forward, None)  # type: ignore
    try:
        with plain_kernels():
            yield
    finally:
        FeatureTap._tapped = TAPPED  # type: ignore[method-assign]


WAYS = {"as it is": as_it_is, "shift alone": shift_alone, "neither": neither}


def steps(given: argparse.Namespace, memory_format: torch.memory_format) -> dict[str, Callable[[], None]]:
    """A training step of each way, and of plain training."""
    torch.manual_seed(0)
    network = STFGCN(10, KINECT20, in_channels=3, widths=given.widths).to(DEVICE, memory_format=memory_format)
    x = torch.randn(given.batch, 3, given.frames, 20, given.persons, device=DEVICE)
    target = torch.randint(10, (given.batch,), device=DEVICE)
    layers = ["block5", "block6"]
    focus = STFObjective(network, layers, head="fc", loss=STFLoss.focus_branch())
    plain = STFObjective(network, layers, head="fc", loss=STFLoss.plain())
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step(objective: STFObjective, way: Callable[[], Any]) -> None:
        optimizer.zero_grad()
        with way():
            objective(x, target).loss.backward()
        optimizer.step()

    step(focus, as_it_is)  # the dry run
    return {
        "plain training": lambda: step(plain, as_it_is),
        **{name: lambda way=way: step(focus, way) for name, way in WAYS.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--persons", type=int, default=1)
    parser.add_argument("--widths", type=int, nargs=6, default=[48, 48, 96, 96, 192, 192])
    given = parser.parse_args()
    print(f"STF-GCN {given.widths}, batch {given.batch}, T {given.frames}, V 20, M {given.persons}, {setting()}")
    for memory_format in (torch.contiguous_format, torch.channels_last):
        times = interleave(steps(given, memory_format), given.repeats)
        print(f"{str(memory_format).removeprefix('torch.'):22} {'ms a step (quartiles)':>28} {'x as it is':>10}")
        for name, seconds in times.items():
            print(f"{name:22} {quartiles(seconds):>28} {ratio(seconds, times['as it is']):10.3f}", flush=True)


if __name__ == "__main__":
    main()
