"""What the benchmarks share: interleaved timing, peak memory, FLOPs."""

from __future__ import annotations

import contextlib
import copy
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def interleave(steps: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Time each step in seconds, round by round (a, b, a, b, ...).

    A slow moment of the machine then meets all alike.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(-2, repeats):  # two rounds warm up
        print(f"\rround {max(round_ + 1, 0)} of {repeats} ", end="", file=sys.stderr, flush=True)
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            if round_ >= 0:
                times[name].append(time.perf_counter() - start)
    print("\r" + " " * 24, end="\r", file=sys.stderr, flush=True)
    return times


def train_step(
    network: nn.Module,
    x: torch.Tensor,
    within: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Callable[[], None]:
    """A forward pass, under a context where one is given, a backward pass and an update."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with within():
            loss = network(x).square().mean()
        loss.backward()
        optimizer.step()

    return step


class PlainAttention(TorchFunctionMode):
    """While active, scaled_dot_product_attention is what it says, step by step."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Any = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            q, k, v = args
            return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v
        return func(*args, **(kwargs or {}))


def flops(network: nn.Module, x: torch.Tensor) -> float:
    """Count the GFLOPs of a forward pass in evaluation, a multiplication and an addition as two.

    Counted where the counter sees all products: of a plain attention, and of an LSTM outside of
    oneDNN.
    """
    copied = copy.deepcopy(network).cpu().eval()
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        PlainAttention(),
        FlopCounterMode(display=False) as counter,
    ):
        warnings.simplefilter("ignore")  # of hardware that oneDNN's switch speaks of
        with torch.backends.mkldnn.flags(enabled=False):
            copied(x.cpu())
    return float(counter.get_total_flops()) / 1e9


def matmul_peak(repeats: int = 7, size: int = 2048) -> float:
    """GFLOPs a second of a large matrix product, the best of several."""
    a, b = (torch.randn(size, size, device=DEVICE) for _ in range(2))
    seconds = min(interleave({"product": lambda: a @ b}, repeats)["product"])
    return 2 * size**3 / seconds / 1e9


def ratio(one: list[float], other: list[float]) -> float:
    """The median over the rounds of one's seconds divided by the other's."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def quartiles(seconds: list[float]) -> str:
    """Median and quartiles in milliseconds."""
    low, middle, high = (
        1e3 * value for value in statistics.quantiles(seconds * 2 if len(seconds) == 1 else seconds)
    )
    return f"{middle:8.1f} ({low:7.1f} - {high:7.1f})"


def peak_memory(step: Callable[[], None]) -> float:
    """MiB above what was in use before, during three steps; meant for a process of its own."""
    if DEVICE == "cuda":
        before = float(torch.cuda.memory_allocated())
        torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    resident = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    for _ in range(3):
        step()
    return _resident("VmHWM") - resident


def in_own_process(*options: str, holes: bool = False) -> float:
    """Return the number that this program prints when it is run again with these options.

    It is meant for the peak memory. By default glibc gives every large tensor pages of its own
    there, so that the peak is what is in use. With ``holes`` it packs them as it always does, and
    what lies free between them counts too.
    """
    environment = os.environ if holes else {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18)}
    done = subprocess.run(
        [sys.executable, *sys.argv, *options],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return float(done.stdout)


def setting() -> str:
    """The machine, in words."""
    return f"{DEVICE}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _resident(field: str) -> float:
    """MiB that Linux counts for this process: VmRSS now, VmHWM at its peak."""
    (line,) = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(field)
    ]
    return int(line.split()[1]) / 1024
