"""Decide whether a head is global average pooling and a linear layer, and which rows it pools.

The closed form itself is :func:`skeleton_focus.focus.linear_head_focus`.
"""

from __future__ import annotations

import re

import torch
from einops import reduce
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge

from ._checks import message

# Operations that average or keep every value, by the names of their gradients.
_POOLING = {"AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AvgPool2D", "AvgPool3D", "Mean", "Sum"}
_RESHAPING = {
    "Alias",
    "AsStrided",
    "Clone",
    "Expand",
    "Permute",
    "ReshapeAlias",
    "Squeeze",
    "T",
    "ToCopy",
    "Transpose",
    "UnsafeView",
    "Unsqueeze",
    "View",
}
# Which operand the features are; the weight is the next one.
_PRODUCTS = {"Addmm": 1, "Linear": 0, "Mm": 0}


def is_pooled_linear(
    head: nn.Linear, features: Tensor, shift: Tensor, logits: Tensor, *, num_persons: int
) -> bool | None:
    """Decide whether logits = head(mean of the features) for every batch.

    The result is None if this batch cannot decide it. The values must agree, and
    :func:`keeps_pooled_linear` must hold: with a layer that starts at zero, a mask of ones or an
    inactive clamp, the values could agree now but not later.

    Shape:
        features (N * M, C, T, V), to which a zero ``shift`` (N * M, C, 1, 1) was added, logits
        (N, K).

    Example:
        >>> head, x = nn.Linear(3, 4), torch.randn(2, 3, 5, 6)
        >>> shift = torch.zeros(2, 3, 1, 1, requires_grad=True)
        >>> one, other = (x + shift).mean((2, 3)), (x + shift).amax((2, 3))
        >>> [is_pooled_linear(head, x, shift, head(y), num_persons=1) for y in (one, other)]
        [True, False]
    """
    if (head.out_features, head.in_features) != (logits.shape[1], features.shape[1]):
        return False
    # One clip cannot reveal which rows belong together.
    if len(logits) == 1 and num_persons > 1:
        return None
    with torch.no_grad():
        # Without the bias, because a large bias would hide that the rest disagrees.
        scale = (logits if head.bias is None else logits - head.bias).abs().max()
        # A head that starts at zero agrees with every kind of pooling.
        if scale == 0:
            return None
        pooled = head(reduce(features, "(n m) c t v -> n c", "mean", m=num_persons))
        # Rounding differs with the order of a sum; half precision keeps two to three digits.
        tolerance = 1e-4 if min(logits.dtype.itemsize, features.dtype.itemsize) >= 4 else 2e-2
        agrees = bool((pooled - logits).abs().max() <= tolerance * scale)
    return agrees and keeps_pooled_linear(head, shift, logits)


def keeps_pooled_linear(head: nn.Linear, start: Tensor, logits: Tensor) -> bool:
    """Decide whether a single chain of operations leads from start to logits.

    The chain consists of pooling, reshaping and one product with the head's weight. Tensor factors
    are not accepted, because they may change, nor is a second path around the head, which may grow
    from zero. Positive Python numbers are accepted, because the normalisation of the focus removes
    them. No tensor values are read except Python numbers, which are on the CPU.

    Example:
        >>> head, x = nn.Linear(3, 4), torch.randn(2, 3, 5, 6, requires_grad=True)
        >>> pooled = x.mean((2, 3))
        >>> others = (pooled * torch.ones(3), pooled / 1.0)
        >>> [keeps_pooled_linear(head, x, head(p)) for p in (pooled, *others)]
        [True, False, True]
    """
    # Autograd links an operation to its operands; the walk from start needs its users.
    users = _users(logits, start)
    node = _node(start)
    products = 0
    # A chain: each operation has one user, the only way a path around the head is ruled out.
    while node is not logits.grad_fn:
        if node is None or len(users.get(node, [])) != 1:  # no path, or several
            return False
        node, operand = users[node][0]
        name = _name(node)
        if name in _PRODUCTS:
            products += 1
            if operand != _PRODUCTS[name] or not _is_weight(node, operand + 1, head.weight):
                return False
        elif not _keeps_the_mean(node, name, operand):
            return False
    return products == 1


def refuse_another_order(gradients: list[Tensor], batch: int) -> None:
    """Raise if a clip's persons are not in adjacent rows, for example folded as m * N + n.

    In that case, the gradient of a clip's score lies in the wrong rows: mostly in every N-th one,
    or in at most M rows of which some belong to another clip. The first also shows if the model
    mixes the clips of a batch a little.

    Shape:
        the gradient (N * M, C) of one clip's score alone, for each of the first clips of
        N = ``batch``.

    >>> refuse_another_order([torch.tensor([[1.0], [1.0], [0.0], [0.0]])], batch=2)
    >>> refuse_another_order([torch.tensor([[1.0], [0.0], [1.0], [0.0]])], batch=2)
    Traceback (most recent call last):
        ...
    ValueError: STFObjective: expected each clip's persons in adjacent rows, got the first persons \
of all clips, then the second ones; fold persons into the batch as (N, M, ...) -> (N * M, ...), \
or pass maps='(M N) C T V'
    """
    # Summed over several clips, because the first clip's first row is its own in both orders.
    persons = len(gradients[0]) // batch
    own = 0.0
    in_turn = 0.0
    elsewhere = False
    for clip, gradient in enumerate(gradients):
        strength = gradient.abs().sum(1)
        own += strength[clip * persons : (clip + 1) * persons].sum().item()
        in_turn += strength[clip::batch].sum().item()
        rows = strength.nonzero().flatten().tolist()
        # A model that does not mix clips: as few rows as persons, but another clip's.
        elsewhere |= len(rows) <= persons and any(row // persons != clip for row in rows)
    # A margin, because BatchNorm, which mixes the clips, puts some of the gradient in every row.
    if in_turn > 1.5 * own:
        got = "the first persons of all clips, then the second ones"
        hint = (
            "fold persons into the batch as (N, M, ...) -> (N * M, ...), or pass maps='(M N) C T V'"
        )
    else:
        got = "rows of other clips"
        hint = "pass maps, such as '(N M) C T V', to say how persons and clips are folded"
    if elsewhere or not in_turn <= 1.5 * own:
        raise ValueError(message("STFObjective", "each clip's persons in adjacent rows", got, hint))


def _users(logits: Tensor, start: Tensor) -> dict[Node, list[tuple[Node, int]]]:
    """Return the users of each operation between start and logits, and their operand's index."""
    users: dict[Node, list[tuple[Node, int]]] = {}
    waiting = [logits.grad_fn]
    seen = {start.grad_fn, None}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for operand, (needed, _) in enumerate(node.next_functions):
            if needed is not None:
                users.setdefault(needed, []).append((node, operand))
                waiting.append(needed)
    return users


def _node(x: Tensor) -> Node | None:
    return get_gradient_edge(x).node if x.requires_grad else None


def _name(node: Node) -> str:
    """Return the name of a built-in PyTorch operation, empty for other operations.

    Only nodes of built-in operations are numbered, unlike those of autograd.Function.
    """
    # A function of a user's own could bear the name Mean and scale the channels.
    own = re.fullmatch(r"(\w+?)Backward\d+", node.name())
    return own[1] if own else ""


def _keeps_the_mean(node: Node, name: str, operand: int) -> bool:
    """Whether an operation keeps the mean of the features up to a constant factor, for any data.

    Autograd exposes the operands only in ``_saved_...``, the values saved for the gradient.
    """
    if name == "Select":  # from an axis of size 1
        return node._saved_self_sym_sizes[node._saved_dim] == 1  # type: ignore[attr-defined, no-any-return]
    if name in ("Mul", "Div"):
        # A negative factor would turn the focus around, and number / features is not linear.
        return operand == 0 and _is_positive_number(node._saved_other)  # type: ignore[attr-defined]
    # What is added or subtracted is not from the features, as there is no second path from them.
    return name in _POOLING or name in _RESHAPING or name in ("Add", "Sub")


def _is_positive_number(other: Tensor | None) -> bool:
    """Check for a positive Python number, which does not affect the dtype of a result."""
    if other is None or other.dim() > 0 or other.dtype not in (torch.int64, torch.float64):
        return False
    # Type promotion tells a Python number from a 0-dim tensor, which may change later.
    probe = torch.int8 if other.dtype == torch.int64 else torch.float16
    return torch.result_type(other, torch.zeros((), dtype=probe)) == probe and other.item() > 0


def _is_weight(product: Node, operand: int, weight: Tensor) -> bool:
    """Check whether a product's operand is this weight, perhaps transposed or converted."""
    node = product.next_functions[operand][0]
    # A frozen weight has no node in the graph, but the product saved it for the gradient.
    if node is None:
        frozen = getattr(product, "_saved_mat2", None)
        return (
            frozen is not None
            and not weight.requires_grad
            and frozen.data_ptr() == weight.data_ptr()
        )
    own = _node(weight)
    while node is not None and node is not own and _name(node) in _RESHAPING:
        node = node.next_functions[0][0]
    return node is own
