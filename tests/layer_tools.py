"""What tests of layers share: random inputs, random weights, weights as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skeleton_focus import STFObjective
from skeleton_focus.objective import STFOutput

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


def needs_torch(major: int, minor: int, why: str) -> pytest.MarkDecorator:
    """Skip a test on older versions of PyTorch, as docs/versions.md tells."""
    return pytest.mark.skipif((major, minor) > TORCH, reason=f"PyTorch {major}.{minor}: {why}")


needs_whole_graph = needs_torch(2, 13, "torch.compile traces STFObjective as one graph")


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).requires_grad_(grad)


def filled(module, seed: int = 0, scale: float = 0.4):
    """Fill a module with random numbers, BatchNorm's statistics too, in float64 and evaluation."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value = scale * torch.randn(value.shape, generator=random).double()
        state[name] = value.abs() + 0.5 if name.endswith("running_var") else value
    module = module.double().eval()
    module.load_state_dict(state)
    return module


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    """A layer's parameters and buffers as arrays, for the slow references."""
    return {name: value.numpy() for name, value in module.state_dict().items()}


def parts(output: Any) -> list[Tensor]:
    """The tensors that a layer puts out."""
    return [output] if isinstance(output, Tensor) else list(output)


def joined(output: Any) -> Tensor:
    """All real numbers that a layer puts out."""
    return torch.cat([part.flatten() for part in parts(output) if part.is_floating_point()])


def learn(
    objective: STFObjective,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    target: Tensor,
    *,
    steps: int,
    all_move: bool = True,
) -> tuple[list[float], STFOutput]:
    """Train steps on one batch, with finite gradients; return the losses and the last output."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        out = objective(x, target)
        out.loss.backward()
        gradients = [p.grad for p in objective.model.parameters()]
        assert not all_move or all(g is not None for g in gradients)
        assert all(g.isfinite().all() for g in gradients if g is not None)
        losses.append(out.terms["classification"].item())
        optimizer.step()
    return losses, out


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Of every parameter that has one, by name."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
