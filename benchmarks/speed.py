"""Measure the cost of all networks, and of STF-GCN and MS-G3D under both STF branches.

    python benchmarks/speed.py [--size paper|small] [--only stf_gcn] [--repeats 7] [--batch 8]
        [--frames 64]
    python benchmarks/speed.py --growth frames 32 64 128          # or batch, joints, persons
    python benchmarks/speed.py --profile                          # where the time goes
    python benchmarks/speed.py --bfloat16                         # training in mixed precision
    python benchmarks/speed.py --module model/ctrgcn.py:Model --options num_class=60 num_point=25
    python benchmarks/speed.py --against ../older_clone           # the same networks, of its code

The networks of examples/ have the papers' sizes or those of the presets for NW-UCLA. All rows are
interleaved; times are medians with quartiles after two warm-up rounds. FLOPs are those of the
forward pass of one clip; the share of the peak is FLOPs per second relative to a matrix product of
2048 x 2048 on the same machine. Peak memory in use is that of a training step in a separate
process, including the dry run of the first batch; see measure.py. Convolutions on a GPU stay in
float32.

With --module, a row of your own network joins: PATH:CLASS is called with the --options, and the
network with x (N, C, T, V, M), C = --channels; its loss is the cross-entropy. With --against, the
networks of another clone of this repository run in the same process, with the same weights; their
outputs and gradients are compared in float64. With --compile, this clone's networks infer in
torch.compile with constant weights.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from measure import (
    DEVICE,
    flops,
    in_own_process,
    interleave,
    matmul_peak,
    peak_memory,
    quartiles,
    ratio,
    setting,
)
from memory import keep_freed_memory
from other_code import OWN, commit, load_clone, load_network
from recipe import NETWORKS, PRESETS, Recipe, build_loss, build_network, explained

from skeleton_focus import NTU25, SkeletonLayout, STFObjective

ROWS = [(model, "plain") for model in NETWORKS if model != "stf_ms_g3d"]
ROWS += [
    (model, branch) for model in ("stf_gcn", "stf_ms_g3d") for branch in ("focus", "exploration")
]
SIZES = ("batch", "frames", "joints", "persons")
MODULE = ("module", "plain")  # the row of --module
KINDS = {  # of operations, by what their names contain; the first that fits
    "convolutions": ("convolution", "conv2d"),
    "products": ("mm", "einsum", "_MixAggregate"),
    "attention": ("scaled_dot_product", "softmax"),
    "LSTM": ("rnn", "lstm"),
    "BatchNorm": ("batch_norm",),
    "activations": ("relu", "clamp_min", "threshold", "sigmoid", "max_pool"),
    "copies": ("copy_", "cat", "index", "gather", "scatter", "fill_", "zero_"),
    "sums": ("add", "sum", "mul", "div", "mean"),
}


def recipe_of(model: str, branch: str, size: str) -> Recipe:
    """The network's sizes: the paper's, or those of its preset for NW-UCLA."""
    name = "nw_ucla" if model == "stf_gcn" else f"nw_ucla_{model.replace('stf_ms', 'ms')}"
    network = {} if size == "paper" else {**PRESETS[name]["network"], "dropout": 0.0}
    return Recipe(model=model, branch=branch, network=network, label_smoothing=0.1)


def chain(joints: int) -> SkeletonLayout:
    """NTU's skeleton, or a chain of so many joints in five parts."""
    if joints == NTU25.num_joints:
        return NTU25
    parts = {f"part {i}": tuple(range(i, joints, 5)) for i in range(5)}
    return SkeletonLayout.from_bones([(i, i + 1) for i in range(joints - 1)], parts=parts)


class Built:
    """One row: the network, a batch, what it does with it."""

    def __init__(self, model: str, branch: str, given: argparse.Namespace) -> None:
        torch.manual_seed(0)
        recipe = recipe_of(model, branch, given.size)
        layout = chain(given.joints)
        if model == "fg_stformer":
            recipe.network["focal_joints"] = min(15, given.joints - 1)
        network = build_network(recipe, 60, given.persons, layout).to(DEVICE)
        layers, head = explained(recipe, network)
        self.network = network
        self.objective = STFObjective(network, layers=layers, head=head, loss=build_loss(recipe))
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
        self.x = torch.randn(
            given.batch, 4, given.frames, given.joints, given.persons, device=DEVICE
        )
        self.target = torch.arange(given.batch, device=DEVICE) % 60

    def train(self, mixed: bool = False) -> None:
        """A forward pass, a backward pass and an update; ``mixed``: with bfloat16."""
        self.objective.train()
        self.optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=mixed):
            loss = self.objective(self.x, self.target).loss
        loss.backward()
        self.optimizer.step()

    def use(self) -> Tensor:
        """A forward pass in evaluation."""
        self.objective.eval()
        with torch.no_grad():
            return self.objective.model(self.x)

    def compile(self) -> None:
        """From now on, :meth:`use` runs a compiled copy with constant weights."""
        torch._inductor.config.freezing = True
        torch._dynamo.config.allow_rnn = True  # BAGCN's LSTM in the same graph
        compiled = torch.compile(copy.deepcopy(self.network).eval())

        def use() -> Tensor:
            with torch.no_grad():
                logits: Tensor = compiled(self.x)
                return logits

        expected = self.use()
        start = time.perf_counter()
        logits = use()
        print(
            f"compiled in {time.perf_counter() - start:.0f} s, largest difference of the logits "
            f"{difference([logits], [expected]):.0e}",
            file=sys.stderr,
        )
        self.use = use  # type: ignore[method-assign]


class Yours:
    """The row of --module: a network, a batch, what it does with it."""

    def __init__(self, given: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.network = load_network(given.module, given.options).to(DEVICE)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9)
        size = (given.batch, given.channels, given.frames, given.joints, given.persons)
        self.x = torch.randn(size, device=DEVICE)
        wanted = f"{given.module} does not give logits (N, classes) of x (N, C, T, V, M) = {size}"
        try:
            logits = self.use()
        except (RuntimeError, ValueError, IndexError, AttributeError) as error:
            raise SystemExit(f"error: {wanted}: {error}") from None
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise SystemExit(f"error: {wanted}: got {got}")
        self.target = torch.arange(given.batch, device=DEVICE) % logits.shape[1]

    def train(self) -> None:
        """A forward pass, a backward pass and an update."""
        self.network.train()
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(self.x), self.target).backward()
        self.optimizer.step()

    def use(self) -> Tensor:
        """A forward pass in evaluation."""
        self.network.eval()
        with torch.no_grad():
            logits: Tensor = self.network(self.x)
            return logits


def table(built: dict[tuple[str, str], Any], given: argparse.Namespace) -> None:
    """Every row's figures."""
    peak = matmul_peak()
    steps: dict[str, Callable[[], object]] = {}
    for (model, branch), row in built.items():
        steps[f"{model} {branch} train"] = row.train
        # In inference a branch is its network, so one row of each network will do.
        if branch == "plain" or (model == "stf_ms_g3d" and branch == "focus"):
            steps[f"{model} {branch} use"] = row.use
    times = interleave(steps, given.repeats)
    print(f"matrix product: {peak:.0f} GFLOPs a second\n")
    print(
        "| network | weights | GFLOPs per clip | inference, ms | clips per second "
        "| of the peak, % | training, ms | clips per second | MiB |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for (model, branch), row in built.items():
        weights = sum(p.numel() for p in row.network.parameters())
        work = flops(row.network, row.x[:1])
        used = times.get(f"{model} {branch} use")
        cells = ["", "", ""]
        if used:
            cells = [quartiles(used).strip(), *rates(used, work, given.batch, peak)]
        trained = times[f"{model} {branch} train"]
        memory = in_own_process("--peak", model, branch)
        cells += [
            quartiles(trained).strip(),
            rates(trained, work, given.batch, peak)[0],
            f"{memory:.0f}",
        ]
        name = Path(given.module).name if (model, branch) == MODULE else f"{model}, {branch}"
        print(f"| {name} | {weights:,} | {work:.2f} | {' | '.join(cells)} |", flush=True)


def rates(seconds: list[float], work: float, batch: int, peak: float) -> list[str]:
    """Clips a second, and the share of the peak that a forward pass reaches, %."""
    rate = batch / statistics.median(seconds)
    return [f"{rate:.1f}", f"{100 * rate * work / peak:.0f}"]


def against(given: argparse.Namespace) -> None:
    """Every row beside the same row of another clone: time, memory, outputs and gradients."""
    theirs = load_clone(given.against)
    root = Path(given.against).resolve()
    print(f"{root} is at {commit(root)}, this clone at {commit(OWN)}\n")
    print(
        "| network | training, ms: theirs | ours | x faster | inference, ms: theirs | ours "
        "| x faster | MiB: theirs | ours | float64: difference of outputs | of gradients |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for model, branch in given.rows:
        old = theirs.Built(model, branch, given)
        new = Built(model, branch, given)
        new.objective.load_state_dict(old.objective.state_dict())
        new.x = old.x
        if given.compile and branch == "plain":
            new.compile()
        outputs, gradients = (
            difference(ours, expected)
            for ours, expected in zip(results(new), results(old), strict=True)
        )
        steps = {"old train": old.train, "new train": new.train}
        if branch == "plain":
            steps |= {"old use": old.use, "new use": new.use}
        times = interleave(steps, given.repeats)
        cells = []
        for kind in ("train", "use"):
            if f"old {kind}" in times:
                pair = (times[f"old {kind}"], times[f"new {kind}"])
                cells += [quartiles(seconds).strip() for seconds in pair]
                cells.append(f"{ratio(*pair):.2f}")
            else:
                cells += ["", "", ""]
        cells += [
            f"{peak_in(root, model, branch, given):.0f}",
            f"{in_own_process('--peak', model, branch):.0f}",
            f"{outputs:.0e}",
            f"{gradients:.0e}",
        ]
        print(f"| {model}, {branch} | {' | '.join(cells)} |", flush=True)


def results(row: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Logits and gradients of a training step in float64, without an update.

    In float32, the gradients of some networks at their start deviate by more than a thousandth.
    """
    row.objective.double().train()
    row.objective.zero_grad()
    torch.manual_seed(1)
    out = row.objective(row.x.double(), row.target)
    out.loss.backward()
    gradients = [p.grad for p in row.objective.parameters() if p.grad is not None]
    row.objective.float()
    return [out.logits.detach()], gradients


def difference(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    """The largest difference, relative to the largest value of all."""
    pairs = list(zip(ours, theirs, strict=True))
    # Not Python's max, which passes over NaN.
    largest = torch.stack([b.abs().max() for _, b in pairs]).max()
    apart = torch.stack([(a - b).abs().max() for a, b in pairs]).max()
    return float(apart / largest.clamp(min=1e-30))


def peak_in(root: Path, model: str, branch: str, given: argparse.Namespace) -> float:
    """Another clone's peak memory: its program runs on its own package."""
    sizes = [text for size in SIZES for text in (f"--{size}", str(getattr(given, size)))]
    program = [sys.executable, str(root / "benchmarks" / "speed.py"), "--size", given.size]
    done = subprocess.run(
        [*program, *sizes, "--peak", model, branch],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18), "PYTHONPATH": str(root)},
    )
    return float(done.stdout)


def profile(given: argparse.Namespace) -> None:
    """The share of each kind of operation in a step of the networks, %."""
    print(f"| network | step | {' | '.join(KINDS)} | other | operations |")
    print("|---|---|" + "---|" * (len(KINDS) + 2))
    for model, branch in given.rows:
        if branch != "plain":
            continue
        row = Built(model, branch, given)
        for kind, step in (("training", row.train), ("inference", row.use)):
            for _ in range(3):
                step()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
                for _ in range(given.repeats):
                    step()
            spent = dict.fromkeys([*KINDS, "other"], 0.0)
            calls = 0
            for event in found.key_averages():
                spent[kind_of(event.key)] += event.self_cpu_time_total
                calls += event.count if event.key.startswith("aten::") else 0
            total = sum(spent.values())
            cells = [f"{100 * time / total:.0f}" for time in spent.values()]
            print(f"| {model} | {kind} | {' | '.join(cells)} | {calls // given.repeats:,} |")


def mixed(given: argparse.Namespace) -> None:
    """A training step of the networks in float32 and in mixed precision with bfloat16."""
    print("| network | training, ms: float32 | bfloat16 | x faster |\n|---|---|---|---|")
    for model, branch in given.rows:
        if branch != "plain":
            continue
        row = Built(model, branch, given)
        half = partial(row.train, mixed=True)
        times = interleave({"float32": row.train, "bfloat16": half}, given.repeats)
        cells = [quartiles(seconds).strip() for seconds in times.values()]
        print(f"| {model} | {' | '.join(cells)} | {ratio(*times.values()):.2f} |", flush=True)


def kind_of(operation: str) -> str:
    """The kind of an operation by its name in the profile, such as aten::bmm."""
    fitting = (kind for kind, parts in KINDS.items() if any(part in operation for part in parts))
    return next(fitting, "other")


def growth(given: argparse.Namespace) -> None:
    """A training step by one size; all sizes of all rows interleaved."""
    axis = given.growth[0]
    sizes = [int(size) for size in given.growth[1:]]
    if axis not in SIZES or not sizes:
        raise SystemExit(
            f"error: expected --growth with one of {', '.join(SIZES)} and its sizes, "
            f"got {given.growth}"
        )
    steps = {}
    for (model, branch), size in product(given.rows, sizes):
        sized = argparse.Namespace(**{**vars(given), axis: size})
        steps[f"{model}, {branch} {size}"] = Built(model, branch, sized).train
    times = interleave(steps, given.repeats)
    print(
        f"\n| training, ms, by {axis} | {' | '.join(map(str, sizes))} |\n|---{'|---' * len(sizes)}|"
    )
    for model, branch in given.rows:
        medians = [1e3 * statistics.median(times[f"{model}, {branch} {size}"]) for size in sizes]
        print(f"| {model}, {branch} | {' | '.join(f'{ms:.0f}' for ms in medians)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=["paper", "small"], default="paper")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=7)
    for size, default in zip(SIZES, (8, 64, 25, 2), strict=True):
        parser.add_argument(f"--{size}", type=int, default=default)
    parser.add_argument(
        "--growth", nargs="+", help="a size (frames, batch, joints or persons) and its values"
    )
    parser.add_argument(
        "--keep-memory", action="store_true", help="on a CPU, disable glibc memory trimming"
    )
    parser.add_argument("--module", metavar="PATH:CLASS", help="also time a network of your own")
    parser.add_argument(
        "--options", nargs="+", default=[], metavar="NAME=VALUE", help="arguments of its CLASS"
    )
    parser.add_argument("--channels", type=int, default=3, help="C of its input")
    parser.add_argument("--against", metavar="CLONE", help="compare with another clone's code")
    parser.add_argument(
        "--compile", action="store_true", help="compile the networks of this clone for inference"
    )
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument(
        "--bfloat16", action="store_true", help="compare float32 with mixed precision"
    )
    parser.add_argument("--peak", nargs=2, help="print one row's peak memory and stop")
    given = parser.parse_args()
    if given.module and (given.profile or given.growth or given.against or given.bfloat16):
        parser.error("expected --module without --profile, --growth, --against and --bfloat16")
    if given.bfloat16 and (given.profile or given.growth or given.against or given.compile):
        parser.error("expected --bfloat16 without --profile, --growth, --against and --compile")
    if given.options and not given.module:
        parser.error("expected --options with --module")
    given.rows = [row for row in ROWS if row[0] in given.only]
    torch.backends.cudnn.allow_tf32 = False
    if given.peak:
        row = Yours(given) if tuple(given.peak) == MODULE else Built(*given.peak, given)
        print(peak_memory(row.train))
        return
    shown = ", ".join(f"{size} {getattr(given, size)}" for size in SIZES)
    print(
        f"{given.size} sizes, {shown}, float32, {setting()}, {given.repeats} rounds, "
        f"commit {commit(OWN)}"
    )
    if given.keep_memory:
        keep_freed_memory()
    if given.growth:
        growth(given)
    elif given.profile:
        profile(given)
    elif given.bfloat16:
        mixed(given)
    elif given.against:
        against(given)
    else:
        built: dict[tuple[str, str], Any] = {row: Built(*row, given) for row in given.rows}
        for (_, branch), row in built.items():
            if given.compile and branch == "plain":
                row.compile()
        if given.module:
            built[MODULE] = Yours(given)
            at = commit(Path(given.module.rpartition(":")[0]).parent)
            print(f"{given.module}: {at}")
        table(built, given)


if __name__ == "__main__":
    main()
