"""SyncBatchNorm that can be differentiated twice, on any device.

PyTorch's own runs only on GPUs and cannot be differentiated twice, as the coherence loss needs.
This one computes the same function from sums over the processes, which can be differentiated any
number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from .feature_tap import replace_forward


@contextmanager
def plain_sync_batch_norm(model: nn.Module, *, fixed_statistics: bool = False) -> Iterator[None]:
    """Run each SyncBatchNorm that trains in a process group by plain operations, while active.

    Args:
        model: the network.
        fixed_statistics: treat the batch's mean and variance as constants in the gradient.

    Example:
        >>> with plain_sync_batch_norm(nn.SyncBatchNorm(4)):
        ...     pass
    """
    undo: list[Callable[[], None]] = []
    if dist.is_available() and dist.is_initialized():
        layers = [
            layer
            for layer in model.modules()
            if isinstance(layer, nn.SyncBatchNorm) and layer.training
        ]
        in_training = partial(_in_training, fixed_statistics=fixed_statistics)
        undo += [replace_forward(layer, partial(in_training, layer)) for layer in layers]
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _in_training(layer: nn.SyncBatchNorm, x: Tensor, *, fixed_statistics: bool) -> Tensor:
    def over_processes(values: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(values, layer.process_group)  # type: ignore[no-untyped-call]
        return total

    if dist.get_world_size(layer.process_group) == 1:
        F._verify_batch_size(x.size())  # type: ignore[attr-defined]  # raises F.batch_norm's error
    channel = (1, -1, *[1] * (x.dim() - 2))
    rest = [axis for axis in range(x.dim()) if axis != 1]
    full = x.float() if x.dtype.itemsize < 4 else x
    count = over_processes(full.new_tensor([x.numel() // x.shape[1]]))
    mean = over_processes(full.sum(rest)) / count
    centred = full - mean.view(channel)
    variance = over_processes(centred.square().sum(rest)) / count
    if fixed_statistics:
        centred = full - mean.detach().view(channel)
        variance = variance.detach()
    _track(layer, mean.detach(), (variance * count / (count - 1)).detach())
    y = centred * (variance + layer.eps).rsqrt().view(channel)
    if layer.affine:
        y = torch.addcmul(layer.bias.view(channel), y, layer.weight.view(channel))
    return y.to(x.dtype)


@torch.no_grad()
def _track(layer: nn.SyncBatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Update the running statistics with this batch's."""
    if layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    # As in torch.nn.BatchNorm2d: a number of double precision, not a float32 tensor.
    momentum = layer.momentum
    if momentum is None:
        momentum = 1 / float(layer.num_batches_tracked)
    for running, current in ((layer.running_mean, mean), (layer.running_var, variance)):
        if running is not None:
            running.lerp_(current.to(running.dtype), momentum)


class _Sum(torch.autograd.Function):
    """Sum a tensor over the processes; its gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return _Sum.apply(g, ctx.group), None  # type: ignore[no-untyped-call]
