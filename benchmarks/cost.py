"""Measure time and memory of a step of one network in several variants.

    python benchmarks/cost.py stf            # STF-GCN under each loss, with and without erasing
    python benchmarks/cost.py bagcn          # BAGCN with and without focus, diffusion and context
    python benchmarks/cost.py fg_stformer    # FG-STFormer with fused and with plain attention
    python benchmarks/cost.py explanation    # STF-GCN's focus of a batch, found in several ways

A training step is a forward and a backward pass and an update; a step of an explanation computes
the focus of the predicted classes of a batch. The variants' steps are interleaved; a ratio is the
median of the ratios within a round. Peak memory in use is measured in a separate process; see
measure.py.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from bagcn import BAGCN
from fg_stformer import FGSTFormer
from measure import (
    DEVICE,
    PlainAttention,
    in_own_process,
    interleave,
    peak_memory,
    quartiles,
    ratio,
    setting,
    train_step,
)
from memory import keep_freed_memory
from stf_gcn import STFGCN

from skeleton_focus import NTU25, STFLoss, STFObjective
from skeleton_focus.focus import resize_focus

LOSSES = {  # the loss, and erasing
    "plain": (STFLoss.plain, 0.0),
    "focus": (STFLoss.focus_branch, 0.0),
    "exploration": (STFLoss.exploration_branch, 0.0),
    "erasing": (STFLoss.plain, 0.5),
    "recommended, erasing": (STFLoss.recommended, 0.5),
}
BAGCN_PARTS = {  # focus and context
    "neither": ("none", "none"),
    "focus, diffusion": ("attention", "none"),
    "+ context, forward": ("attention", "forward"),
    "+ context, both ways": ("attention", "bidirectional"),
}
ATTENTION = {"plain": PlainAttention, "fused": contextlib.nullcontext}
EXPLANATIONS = ("logits alone", "captum", "hook and autograd", "explain, gradient", "explain")
VARIANTS = {
    "stf": tuple(LOSSES),
    "bagcn": tuple(BAGCN_PARTS),
    "fg_stformer": tuple(ATTENTION),
    "explanation": EXPLANATIONS,
}


def stf_step(variant: str, batch: int, frames: int) -> tuple[int, Callable[[], None]]:
    network = STFGCN(60, NTU25).to(DEVICE)
    loss, erasing = LOSSES[variant]
    layers = ["blocks.4", "blocks.5"]
    objective = STFObjective(network, layers=layers, head="fc", loss=loss(), erasing=erasing)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    x = torch.randn(batch, 4, frames, 25, 2, device=DEVICE)
    target = torch.randint(60, (batch,), device=DEVICE)

    def step() -> None:
        optimizer.zero_grad()
        objective(x, target).loss.backward()
        optimizer.step()

    return count(network), step


def bagcn_step(variant: str, batch: int, frames: int) -> tuple[int, Callable[[], None]]:
    focus, context = BAGCN_PARTS[variant]
    network = BAGCN(60, NTU25, focus=focus, context=context).to(DEVICE)
    x = torch.randn(batch, 6, frames, 25, 2, device=DEVICE)
    return count(network), train_step(network, x)


def fg_stformer_step(variant: str, batch: int, frames: int) -> tuple[int, Callable[[], None]]:
    network = FGSTFormer(60, NTU25).to(DEVICE)
    x = torch.randn(batch, 3, frames, 25, 2, device=DEVICE)
    with torch.no_grad():  # both kinds of attention give the same logits
        fused = network.eval()(x[:1])
        with PlainAttention():
            torch.testing.assert_close(network(x[:1]), fused, rtol=1e-3, atol=1e-4)
    return count(network), train_step(network.train(), x, ATTENTION[variant])


def explanation_step(variant: str, batch: int, frames: int) -> tuple[int, Callable[[], None]]:
    network = STFGCN(60, NTU25).to(DEVICE).eval()
    x = torch.randn(batch, 4, frames, 25, 1, device=DEVICE)  # captum knows no second person
    head = "fc" if variant == "explain" else None
    objective = STFObjective(network, layers=["blocks.5"], head=head, loss=STFLoss.plain())
    ways: dict[str, Callable[[], Tensor]] = {
        "logits alone": lambda: logits_alone(network, x),
        "captum": lambda: by_captum(network, x),
        "hook and autograd": lambda: by_hook(network, x),
        "explain": lambda: objective.explain(x)[0][:, 0],
        "explain, gradient": lambda: objective.explain(x)[0][:, 0],
    }
    ways[variant]()  # the first call makes checks
    if variant != "logits alone":
        expected = resize_focus(by_hook(network, x)[:, None], frames)[:, 0]
        found = ways[variant]()
        if found.shape[1] != frames:  # explain resizes the focus to the input's frames
            found = resize_focus(found[:, None], frames)[:, 0]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

    def step() -> None:
        ways[variant]()

    return count(network), step


def logits_alone(network: torch.nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network(x)
        return logits


def by_captum(network: torch.nn.Module, x: Tensor) -> Tensor:
    """Grad-CAM of the predicted classes at the last block, scaled to [0, 1]: (N, T, V)."""
    from captum.attr import LayerGradCam  # only here: it is not among the package's requirements

    classes = logits_alone(network, x).argmax(1)
    cam = LayerGradCam(network, network.get_submodule("blocks.5"))
    found = cam.attribute(x, target=classes, relu_attributions=True)
    return scaled(found.detach()[:, 0])


def by_hook(network: torch.nn.Module, x: Tensor) -> Tensor:
    """The same, as written by hand."""
    kept: list[Tensor] = []
    block = network.get_submodule("blocks.5")
    hook = block.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = network(x)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), kept)
    weights = gradient.mean((2, 3), keepdim=True)
    return scaled((weights * kept[0]).sum(1).relu().detach())


def scaled(focus: Tensor) -> Tensor:
    low = focus.amin((1, 2), keepdim=True)
    return (focus - low) / (focus.amax((1, 2), keepdim=True) - low).clamp(min=1e-12)


STEPS = {
    "stf": stf_step,
    "bagcn": bagcn_step,
    "fg_stformer": fg_stformer_step,
    "explanation": explanation_step,
}


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=STEPS)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--batch", type=int, default=4, help="clips of two bodies; explanation: of one"
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[64])
    parser.add_argument(
        "--keep-memory", action="store_true", help="on a CPU, disable glibc memory trimming"
    )
    parser.add_argument("--peak", nargs=2, metavar=("FRAMES", "VARIANT"), help="print one peak")
    given = parser.parse_args()

    def build(variant: str, frames: int) -> tuple[int, Callable[[], None]]:
        torch.manual_seed(0)
        return STEPS[given.network](variant, given.batch, frames)

    if given.peak:
        print(peak_memory(build(given.peak[1], int(given.peak[0]))[1]))
        return
    memory = ", freed memory kept" if given.keep_memory else ""
    print(
        f"{given.network}, paper's size, batch {given.batch}, V 25, "
        f"M {1 if given.network == 'explanation' else 2}, float32, {setting()}, "
        f"{given.repeats} rounds{memory}"
    )
    if given.keep_memory:
        keep_freed_memory()
    print(
        f"{'T':>4} {'variant':>22} {'parameters':>11} {'ms a step (quartiles)':>30} {'x':>6}"
        f" {'MiB':>6} {'x':>5}"
    )
    variants = VARIANTS[given.network]
    for frames in given.frames:
        built = {variant: build(variant, frames) for variant in variants}
        times = interleave({name: step for name, (_, step) in built.items()}, given.repeats)
        peaks = {name: in_own_process("--peak", str(frames), name) for name in variants}
        for name, (parameters, _) in built.items():
            print(
                f"{frames:4} {name:>22} {parameters:11,} {quartiles(times[name]):>30}"
                f" {ratio(times[name], times[variants[0]]):6.2f} {peaks[name]:6.0f}"
                f" {peaks[name] / peaks[variants[0]]:5.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
