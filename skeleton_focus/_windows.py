"""Convolve over windows of frames without copying them or keeping the mixed channels.

The sum over k, source joint v and frame offset i is one matrix product for each offset: its rows
are the target (frame, joint) pairs of a window, its inner axis the (k, v) pairs, its columns the
(frame, channel) pairs of a sample. To make these columns a view, frames are first sorted by their
phase, the frame's number modulo the stride. On a CPU the mixed channels, K times the input, are
computed for a few samples at a time, so that they stay in cache. They are not kept, but computed
again in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ._versions import has_autocast

CACHED = {"cpu": 4 * 2**20}  # bytes of mixed channels at a time; elsewhere all at once


def convolve(x: Tensor, weight: Tensor, adjacency: Tensor, stride: int) -> Tensor:
    """Convolve x (N, C, T, V) over windows of w frames, to (N, O, ceil(T / stride), wV).

    ``weight`` is (K, O, C), ``adjacency`` (K, wV, wV) with w odd. Channels are mixed before or
    after the aggregation, whichever multiplies less; autograd differentiates either twice.
    """
    device = x.device.type
    casts = has_autocast(device) and torch.is_autocast_enabled(device)
    if casts and x.dtype != torch.float64:
        # Autocast does not reach into an autograd Function of ours.
        dtype = torch.get_autocast_dtype(device)
        x = x.to(dtype)
        weight = weight.to(dtype)
        adjacency = adjacency.to(dtype)
    _, channels, t, v = x.shape
    subsets, out_channels, _ = weight.shape
    window = adjacency.shape[-1] // v
    # Not -(-t // stride): ONNX rounds the division of negative numbers the other way.
    frames = (t + stride - 1) // stride
    pad = window // 2
    # Padded so that windows at both ends are whole, then on to a multiple of the stride, so that
    # the frames divide into phases.
    after = (t + 2 * pad + stride - 1) // stride * stride - t - pad
    by_joint = F.pad(x.permute(0, 3, 2, 1), (0, 0, pad, after))
    phases = rearrange(by_joint, "n v (t s) c -> n s v t c", s=stride).contiguous()
    # Multiplications for each output frame, source joint and subset: one product per source frame,
    # then one per row of the window table; or the other way round.
    mixed_first = stride * channels * out_channels + out_channels * window * window * v
    aggregated_first = window * channels * out_channels + channels * window * window * v
    if mixed_first <= aggregated_first:
        tables = rearrange(adjacency, "k (i v) j -> i j (k v)", v=v).contiguous()
        # torch.func refuses an autograd Function that has no setup_context; the plain operations
        # compute the same. The compiler traces them, too.
        transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        mix_aggregate: Any = _mix_aggregate if transformed else _MixAggregate.apply
        y: Tensor = mix_aggregate(phases, weight, tables, frames)
    else:
        tables = rearrange(adjacency, "k (i v) j -> i (k j) v", v=v)
        carried = rearrange(
            _aggregate(phases, tables, frames), "n (k j) t c -> n j t (k c)", k=subsets
        )
        y = F.linear(carried, rearrange(weight, "k o c -> o (k c)"))
    return y.permute(0, 3, 2, 1)  # of y (N, wV, T', O)


def _frames_of(mixed: Tensor, offset: int, frames: int) -> Tensor:
    """View the frames at an offset in all windows: (N, S, P, T / S, F) -> (N, P, frames * F)."""
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
    return rearrange(
        F.linear(phases, weight.flatten(0, 1)), "n s v t (k o) -> n s (k v) t o", k=len(weight)
    )


def _mix_aggregate(phases: Tensor, weight: Tensor, tables: Tensor, frames: int) -> Tensor:
    """Compute :class:`_MixAggregate` for all samples at once, in operations known to autograd."""
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
                _add_bmm(
                    total, _each(table, total), _frames_of(mixed, offset, frames), onto=offset > 0
                )
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        inputs: tuple[Tensor, Tensor, Tensor] = ctx.saved_tensors
        frames: int = ctx.frames
        if torch.is_grad_enabled():  # to be differentiated again
            # Second derivatives come from autograd: the graph is built again from plain operations.
            needed = [i for i in range(3) if ctx.needs_input_grad[i]]
            y = _mix_aggregate(*inputs, frames)
            found = torch.autograd.grad(y, [inputs[i] for i in needed], g, create_graph=True)
            gradients: list[Tensor | None] = [None] * 4
            for i, gradient in zip(needed, found, strict=True):
                gradients[i] = gradient
            return tuple(gradients)
        phases, weight, tables = inputs
        to_phases, to_weight, to_tables = ctx.needs_input_grad[:3]
        g = g.flatten(2)
        at_phases = torch.empty_like(phases)
        # Sums over all samples: in half precision their small terms would be lost.
        at_weight, at_tables = (
            torch.zeros_like(tensor, dtype=torch.promote_types(tensor.dtype, torch.float32))
            for tensor in inputs[1:]
        )
        work = _Work(phases, weight)
        at_mixed = torch.empty_like(work.mixed)
        for samples in work.groups:
            part = g[samples]
            # Windows overlap, so that gradients add up in a frame; frames that no window reads stay
            # 0.
            at = at_mixed[: len(phases[samples])].zero_()
            if to_tables:
                mixed = work.mix(phases[samples], weight)
            for offset, table in enumerate(tables):
                if to_tables:
                    carried = _frames_of(mixed, offset, frames).transpose(1, 2)
                    at_tables[offset] += torch.bmm(part, carried).sum(0)
                if to_phases or to_weight:
                    _add_bmm(_frames_of(at, offset, frames), _each(table.T, part), part, onto=True)
            x = phases[samples].flatten(2, 3).flatten(0, 1)  # (n S, V T / S, C)
            by_subset = at.view(len(x), len(weight), x.shape[1], weight.shape[1])
            for k, w in enumerate(weight):
                if to_weight:
                    at_weight[k] += torch.bmm(by_subset[:, k].transpose(1, 2), x).sum(0)
                if to_phases:
                    _add_bmm(
                        at_phases[samples].view_as(x), by_subset[:, k], _each(w, x), onto=k > 0
                    )
        return (
            at_phases if to_phases else None,
            at_weight.to(weight.dtype) if to_weight else None,
            at_tables.to(tables.dtype) if to_tables else None,
            None,
        )


class _Work:
    """The memory that every group of samples uses in turn."""

    def __init__(self, phases: Tensor, weight: Tensor) -> None:
        n, stride, v, t, _ = phases.shape
        subsets, out_channels, _ = weight.shape
        per_sample = stride * subsets * v * t * out_channels * phases.element_size() or 1
        size = max(n, 1)
        if phases.device.type in CACHED:
            size = min(max(CACHED[phases.device.type] // per_sample, 1), size)
        self.groups = [slice(start, start + size) for start in range(0, n, size)]
        self.mixed = phases.new_empty(size, stride, subsets * v, t, out_channels)

    def mix(self, phases: Tensor, weight: Tensor) -> Tensor:
        """:func:`_mix` into this memory."""
        n, stride, v, t, channels = phases.shape
        x = phases.reshape(n * stride, v * t, channels)
        mixed = self.mixed[:n]
        by_subset = mixed.view(n * stride, len(weight), v * t, -1)
        for k, w in enumerate(weight):
            _add_bmm(by_subset[:, k], x, _each(w.T, x), onto=False)
        return mixed


def _add_bmm(out: Tensor, one: Tensor, other: Tensor, *, onto: bool) -> None:
    """Write out + one @ other (``onto``) or one @ other to out."""
    # With beta=0, out is not read: it may be memory that was never written.
    torch.baddbmm(out, one, other, beta=float(onto), out=out)


def _each(table: Tensor, like: Tensor) -> Tensor:
    """One matrix for every sample of a batch, not copied."""
    return table.expand(like.shape[0], -1, -1)
