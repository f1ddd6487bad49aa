"""Graph convolution over windows of frames, without a copy of the windows and without keeping the mixed channels.

The sum over k, source joint v and frame offset i is one matrix product for each offset: rows are the target (frame,
joint) pairs, the inner axis the (k, v) pairs, columns the (frame, channel) pairs of a sample, which lie side by side in
memory once the frames are sorted by their phase modulo the stride. The mixed channels, K times the input, are made for
one sample at a time on a CPU, where they stay in cache, and made again in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def convolve(x: Tensor, weight: Tensor, adjacency: Tensor, stride: int) -> Tensor:
    """x (N, C, T, V), weight (K, O, C), adjacency (K, wV, wV), w odd -> (N, O, ceil(T / stride), wV).

    Channels are mixed before or after the aggregation, whichever multiplies less; autograd differentiates either twice.
    """
    if torch.is_autocast_enabled(x.device.type):  # which does not reach into a function of ours
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, adjacency = x.to(dtype), weight.to(dtype), adjacency.to(dtype)
    _, channels, t, v = x.shape
    subsets, out_channels, _ = weight.shape
    window = adjacency.shape[-1] // v
    frames = -(-t // stride)
    pad = window // 2
    by_joint = F.pad(x.permute(0, 3, 2, 1), (0, 0, pad, -(-(t + 2 * pad) // stride) * stride - t - pad))
    phases = rearrange(by_joint, "n v (t s) c -> n s v t c", s=stride).contiguous()
    mixed_first = stride * channels * out_channels + out_channels * window * window * v
    aggregated_first = window * channels * out_channels + channels * window * window * v
    if mixed_first <= aggregated_first:
        tables = rearrange(adjacency, "k (i v) j -> i j (k v)", v=v).contiguous()
        by_hand = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        mix_aggregate: Any = _MixAggregate.apply if by_hand else _mix_aggregate
        y: Tensor = mix_aggregate(phases, weight, tables, frames)
    else:
        tables = rearrange(adjacency, "k (i v) j -> i (k j) v", v=v)
        carried = rearrange(_aggregate(phases, tables, frames), "n (k j) t c -> n j t (k c)", k=subsets)
        y = F.linear(carried, rearrange(weight, "k o c -> o (k c)"))
    return y.permute(0, 3, 2, 1)  # of y (N, wV, T', O)


def _frames_of(mixed: Tensor, offset: int, frames: int) -> Tensor:
    """The frames at an offset in every window: (N, S, P, T / S, F) -> (N, P, frames * F), a view."""
    stride = mixed.shape[1]
    start = offset // stride
    return mixed[:, offset % stride, :, start : start + frames].flatten(2)


def _aggregate(mixed: Tensor, tables: Tensor, frames: int) -> Tensor:
    """mixed (N, S, P, T / S, F), tables (w, R, P) -> (N, R, frames, F)."""
    y = torch.bmm(_each(tables[0], mixed), _frames_of(mixed, 0, frames))
    for offset in range(1, len(tables)):
        y = torch.baddbmm(y, _each(tables[offset], mixed), _frames_of(mixed, offset, frames))
    return rearrange(y, "n r (t f) -> n r t f", t=frames)


def _mix(phases: Tensor, weight: Tensor) -> Tensor:
    """(N, S, V, T / S, C) -> (N, S, K V, T / S, O)."""
    return rearrange(F.linear(phases, weight.flatten(0, 1)), "n s v t (k o) -> n s (k v) t o", k=len(weight))


def _mix_aggregate(phases: Tensor, weight: Tensor, tables: Tensor, frames: int) -> Tensor:
    """The same as :class:`_MixAggregate`, for all samples at once, in operations that autograd knows."""
    return _aggregate(_mix(phases, weight), tables, frames)


class _MixAggregate(torch.autograd.Function):
    """(phases, weight, tables, frames) -> (N, R, frames, O), some samples at a time."""

    @staticmethod
    def forward(ctx: Any, phases: Tensor, weight: Tensor, tables: Tensor, frames: int) -> Tensor:
        ctx.save_for_backward(phases, weight, tables)
        ctx.frames = frames
        y = phases.new_empty(len(phases), tables.shape[1], frames, weight.shape[1])
        work = _Work(phases, weight)
        for samples in work.groups:
            mixed = work.mix(phases[samples], weight)
            total = y[samples].flatten(2)
            for offset, table in enumerate(tables):
                total.baddbmm_(_each(table, total), _frames_of(mixed, offset, frames), beta=float(offset > 0))
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        inputs: tuple[Tensor, Tensor, Tensor] = ctx.saved_tensors
        frames: int = ctx.frames
        if torch.is_grad_enabled():  # to be differentiated again
            wanted = [tensor for tensor, needed in zip(inputs, ctx.needs_input_grad, strict=False) if needed]
            found = iter(torch.autograd.grad(_mix_aggregate(*inputs, frames), wanted, g, create_graph=True))
            return (*(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None)
        phases, weight, tables = inputs
        g = g.flatten(2)
        at_phases = torch.empty_like(phases)
        at_weight, at_tables = (
            torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in inputs[1:]
        )
        work = _Work(phases, weight)
        at_mixed = torch.empty_like(work.mixed)
        for samples in work.groups:
            x, part = phases[samples].flatten(2, 3).flatten(0, 1), g[samples]  # (n S, V T / S, C), (n, R, frames O)
            mixed = work.mix(phases[samples], weight)
            at = at_mixed[: len(part)].zero_()
            for offset, table in enumerate(tables):
                at_tables[offset] += torch.bmm(part, _frames_of(mixed, offset, frames).transpose(1, 2)).sum(0)
                _frames_of(at, offset, frames).baddbmm_(_each(table.T, part), part)
            by_subset = at.view(len(x), len(weight), x.shape[1], -1)  # (n S, K, V T / S, O)
            out = at_phases[samples].view_as(x)
            for k, w in enumerate(weight):
                at_weight[k] += torch.bmm(by_subset[:, k].transpose(1, 2), x).sum(0)
                out.baddbmm_(by_subset[:, k], _each(w, x), beta=float(k > 0))
        return at_phases, at_weight.to(weight.dtype), at_tables.to(tables.dtype), None


class _Work:
    """The memory that every group of samples uses in turn."""

    def __init__(self, phases: Tensor, weight: Tensor) -> None:
        n, stride, v, t, _ = phases.shape
        subsets, out_channels, _ = weight.shape
        size = 1 if phases.device.type == "cpu" else max(n, 1)
        self.groups = [slice(start, start + size) for start in range(0, n, size)]
        self.mixed = phases.new_empty(size, stride, subsets * v, t, out_channels)

    def mix(self, phases: Tensor, weight: Tensor) -> Tensor:
        """:func:`_mix` into this memory."""
        n, stride, v, t, channels = phases.shape
        mixed = self.mixed[:n]
        x = phases.reshape(n * stride, 1, v * t, channels).expand(-1, len(weight), -1, -1)
        for out, one in zip(mixed.view(n * stride, len(weight), v * t, -1), x, strict=True):
            torch.bmm(one, weight.transpose(1, 2), out=out)
        return mixed


def _each(table: Tensor, like: Tensor) -> Tensor:
    """One matrix for every sample of a batch, not copied."""
    return table.expand(len(like), -1, -1)
