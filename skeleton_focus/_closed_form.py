"""What one batch tells of a network's head: whether it is pooling and a linear layer, whose rows it takes together."""

from __future__ import annotations

import re

import torch
from einops import reduce
from torch import Tensor, nn
from torch.autograd.graph import Node

from ._checks import require

# Operations that are linear in what passes through them, whatever the data, as their gradients are called.
_LINEAR = {
    "AccumulateGrad", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "Add", "Addmm", "Alias", "AvgPool2D", "AvgPool3D",
    "Bmm", "Clone", "Div", "Expand", "Linear", "Mean", "Mm", "Mul", "Permute", "ReshapeAlias", "Select", "Slice",
    "Squeeze", "Sub", "Sum", "T", "ToCopy", "Transpose", "UnsafeView", "Unsqueeze", "View",
}  # fmt: skip


def is_pooled_linear(
    head: nn.Linear, features: Tensor, shift: Tensor, logits: Tensor, *, num_persons: int
) -> bool | None:
    """Whether logits = head(mean of the features) for every batch; None where this one cannot tell.

    The values must agree, and nothing but linear operations may lie between: a layer that starts at zero, a clamp that
    does not yet act or dropout could agree now and not later.

    Shape:
        features (N * M, C, T, V) with ``shift`` (N * M, C, 1, 1) of zero added to them on their way to logits (N, K).

    Example:
        >>> head, x, shift = nn.Linear(3, 4), torch.randn(2, 3, 5, 6), torch.zeros(2, 3, 1, 1, requires_grad=True)
        >>> one, other = (x + shift).mean((2, 3)), (x + shift).amax((2, 3))
        >>> [is_pooled_linear(head, x, shift, head(pooled), num_persons=1) for pooled in (one, other)]
        [True, False]
    """
    if (head.out_features, head.in_features) != (logits.shape[1], features.shape[1]):
        return False
    if len(logits) == 1 and num_persons > 1:  # whose rows they are shows in several clips
        return None
    with torch.no_grad():
        scale = (logits if head.bias is None else logits - head.bias).abs().max()
        if scale == 0:  # a head that starts at zero
            return None
        pooled = head(reduce(features, "(n m) c t v -> n c", "mean", m=num_persons))
        tolerance = 1e-4 if min(logits.dtype.itemsize, features.dtype.itemsize) >= 4 else 2e-2
        agrees = bool((pooled - logits).abs().max() <= tolerance * scale)
    return agrees and _operations(logits, shift, below=features) <= _LINEAR


def refuse_another_order(gradient: Tensor, batch: int) -> None:
    """Refuse persons folded as m * N + n: with them the first clip's gradient lies in one row of every N.

    Shape:
        gradient (N * M, C) of the first clip's score alone, of N = ``batch`` clips.

    >>> refuse_another_order(torch.tensor([[1.0], [1.0], [0.0], [0.0]]), batch=2)
    >>> refuse_another_order(torch.tensor([[1.0], [0.0], [1.0], [0.0]]), batch=2)
    Traceback (most recent call last):
        ...
    ValueError: STFObjective: expected features of a clip's persons in a row, got the first persons of all clips, \
then the second ones; fold persons into the batch as (N, M, ...) -> (N * M, ...)
    """
    rows = gradient.abs().amax(1).nonzero().flatten().tolist()
    persons = len(gradient) // batch
    apart = all(row % batch == 0 for row in rows) and any(row >= persons for row in rows)
    got = "the first persons of all clips, then the second ones"
    hint = "fold persons into the batch as (N, M, ...) -> (N * M, ...)"
    require(not apart, "STFObjective", "features of a clip's persons in a row", got, hint)


def _operations(logits: Tensor, shift: Tensor, *, below: Tensor) -> set[str]:
    """The operations on the ways from a shift to the logits."""
    users: dict[Node, list[Node]] = {}
    start, waiting, seen = None, [logits.grad_fn], {below.grad_fn, None}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", None) is shift:
            start = node
        for needed, _ in node.next_functions:
            if needed is not None:
                users.setdefault(needed, []).append(node)
                waiting.append(needed)
    found: set[Node] = set()
    ways = [] if start is None else [start]
    while ways:
        node = ways.pop()
        if node not in found:
            found.add(node)
            ways += users.get(node, [])
    return {re.sub(r"Backward\d*$", "", node.name()).rsplit("::", 1)[-1] for node in found}
