"""How faithful a focus is to the network: what a prediction becomes while what the focus names is taken out, or put in.

A unit is an entry (m, t, v), a joint (m, v) of a person, or a frame t. Only units with something in them, a channel
that is not zero, are ranked and counted. The highest focus comes first; equal ones in the order of their indices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from ._checks import check_choice, check_classes, check_shape, message
from .focus import at_least_float32, resize_focus

UNITS = ("entries", "joints", "frames")


def deletion_curve(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    focus: Tensor,
    classes: Tensor | None = None,
    *,
    steps: int = 10,
    by: str = "entries",
) -> Tensor:
    r"""Probability of a class while the units of highest focus are taken out of the clip; a steep fall is good.

    .. math:: d_i = \mathrm{softmax}\big(f(x \odot [\mathrm{rank} \ge k_i])\big)_y, \qquad
        k_i = \Big\lfloor \frac{i}{S} K + \frac{1}{2} \Big\rfloor, \quad i = 0 \dots S

    with the rank of a unit, from 0, in its clip's focus (equal focus: the lower index (m, t, v) first), K the units
    present in that clip, any channel non-zero, and S the steps. Every channel of what is taken out is 0, as in
    :func:`mask_by_focus`. A clip with nothing in it has a constant curve.

    The model is called S + 1 times, once a step and without gradients, and otherwise as it is: call its ``eval()``
    first, or dropout blurs the curve and batch normalisation learns from clips with holes. No mode is touched here.

    Shape:
        x (N, C, T, V, M), focus (N, M, T', V), resized to T, classes (N,) int64 -> (N, S + 1), from nothing to all.

    Args:
        model: what gives the logits (N, classes) of x.
        x: the clips; what is not there is zero in every channel.
        focus: Q, of which only the order counts.
        classes: y of each clip; the class predicted for the whole clip by default.
        steps: S, at least 1.
        by: ``"entries"``; ``"joints"``, the joints of each person by their mean focus over time; ``"frames"``, by their
            mean focus over persons and joints. Means are over the entries that are present.

    Raises:
        ValueError: shapes that do not fit each other, classes that the model does not know, or an unknown option.

    Example:
        >>> x = torch.tensor([[4.0, 3.0], [2.0, 1.0]]).view(1, 1, 2, 2, 1)
        >>> def model(x):  # the probability of class 0 is the share of the whole that is left
        ...     share = x.sum((1, 2, 3, 4)) / 10
        ...     return torch.stack([share, 1 - share], 1).log()
        >>> focus = torch.tensor([[1.0, 0.8], [0.1, 0.0]]).view(1, 1, 2, 2)
        >>> deletion_curve(model, x, focus, steps=4)
        tensor([[1.0000, 0.6000, 0.3000, 0.1000, 0.0000]])
        >>> deletion_curve(model, x, focus, steps=2, by="joints")
        tensor([[1.0000, 0.4000, 0.0000]])

    Reference:
        RISE (Petsiuk et al., BMVC 2018), section 4.1, algorithm 1.
    """
    return _curve("deletion_curve", model, x, focus, classes, steps, by)


def insertion_curve(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    focus: Tensor,
    classes: Tensor | None = None,
    *,
    steps: int = 10,
    by: str = "entries",
) -> Tensor:
    r"""Probability of a class while the units of highest focus are brought into an empty clip; a steep rise is good.

    .. math:: e_i = \mathrm{softmax}\big(f(x \odot [\mathrm{rank} < k_i])\big)_y

    with the ranks, the k_i and the model's calls of :func:`deletion_curve`. It ends where that one begins.

    Shape:
        x (N, C, T, V, M), focus (N, M, T', V), resized to T, classes (N,) int64 -> (N, S + 1), from nothing to all.

    Args:
        model: what gives the logits (N, classes) of x.
        x: the clips; what is not there is zero in every channel.
        focus: Q, of which only the order counts.
        classes: y of each clip; the class predicted for the whole clip by default.
        steps: S, at least 1.
        by: the units, ``"entries"``, ``"joints"`` or ``"frames"``.

    Raises:
        ValueError: shapes that do not fit each other, classes that the model does not know, or an unknown option.

    Example:
        >>> x = torch.tensor([[4.0, 3.0], [2.0, 1.0]]).view(1, 1, 2, 2, 1)
        >>> def model(x):  # the probability of class 0 is the share of the whole that is there
        ...     share = x.sum((1, 2, 3, 4)) / 10
        ...     return torch.stack([share, 1 - share], 1).log()
        >>> focus = torch.tensor([[1.0, 0.8], [0.1, 0.0]]).view(1, 1, 2, 2)
        >>> insertion_curve(model, x, focus, steps=4)
        tensor([[0.0000, 0.4000, 0.7000, 0.9000, 1.0000]])

    Reference:
        RISE (Petsiuk et al., BMVC 2018), section 4.1, from an empty clip where images start blurred.
    """
    return _curve("insertion_curve", model, x, focus, classes, steps, by, insert=True)


def area_under_curve(curve: Tensor) -> Tensor:
    r"""Area under a deletion or insertion curve, by the trapezoidal rule over [0, 1].

    .. math:: \frac{1}{S} \sum_{i=1}^{S} \frac{d_{i-1} + d_i}{2}

    Low is good for deletion, high for insertion.

    Shape:
        (N, S + 1) -> (N,), in [0, 1] for a curve of probabilities.

    Raises:
        ValueError: another shape, or a curve of fewer than two points.

    Example:
        >>> area_under_curve(torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.0, 0.0]]))
        tensor([0.5000, 0.2500])

    Reference:
        RISE (Petsiuk et al., BMVC 2018), section 4.1.
    """
    check_shape("area_under_curve", "curve", curve, "N, points")
    if curve.shape[1] < 2:
        raise ValueError(message("area_under_curve", "a curve of at least 2 points", curve.shape[1]))
    return torch.trapezoid(at_least_float32(curve), dim=1) / (curve.shape[1] - 1)


def _curve(
    who: str,
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    focus: Tensor,
    classes: Tensor | None,
    steps: int,
    by: str,
    insert: bool = False,
) -> Tensor:
    _check(who, model, x, focus, classes, steps, by)
    with torch.no_grad():
        rank, present = _ranks(x, focus, by)
        curve: list[Tensor] = []
        # The whole clip comes first, as it says which class is meant.
        for step in range(steps, -1, -1) if insert else range(steps + 1):
            border = (2 * step * present + steps) // (2 * steps)  # step / steps of what is present, rounded in integers
            before = rank < border.view(-1, 1, 1, 1, 1)
            logits = model(x.masked_fill(~before if insert else before, 0))
            check_shape(who, "logits", logits, f"N={len(x)}, classes")
            if not curve:
                chosen = logits.argmax(1) if classes is None else classes.long()
                check_classes(who, chosen, logits.shape[1])
            curve.append(at_least_float32(logits).softmax(1).gather(1, chosen[:, None]))
        return torch.cat(curve[::-1] if insert else curve, 1)


def _ranks(x: Tensor, focus: Tensor, by: str) -> tuple[Tensor, Tensor]:
    """Each unit's rank from 0, to be broadcast against x, those not present last; and how many are present, (N,)."""
    there = rearrange((x != 0).any(1), "n t v m -> n m t v")
    axes = {"entries": (), "joints": (2,), "frames": (1, 3)}[by]
    score = resize_focus(at_least_float32(focus), x.shape[2])
    if axes:
        count = there.sum(axes, keepdim=True)
        score = torch.where(there, score, 0.0).sum(axes, keepdim=True) / count.clamp(min=1)
        there = count > 0
    present = there.flatten(1)
    order = torch.where(present, score.flatten(1), -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(1).view(score.shape)  # the inverse permutation
    return rearrange(rank, "n m t v -> n 1 t v m"), present.sum(1)


def _check(
    who: str,
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    focus: Tensor,
    classes: Tensor | None,
    steps: int,
    by: str,
) -> None:
    if not callable(model):
        raise ValueError(message(who, "a model to call", type(model).__name__))
    check_choice(who, "by", by, UNITS)
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(message(who, "steps, a whole number from 1", steps))
    check_shape(who, "x", x, "N, C, T, V, M")
    n, _, t, v, m = x.shape
    if min(t, v, m) == 0:
        raise ValueError(message(who, "x (N, C, T, V, M) of at least one entry a clip", tuple(x.shape)))
    check_shape(who, "focus", focus, f"N={n}, M={m}, T', V={v}")
    if focus.shape[2] == 0:
        raise ValueError(message(who, "a focus of at least one frame", tuple(focus.shape)))
    if classes is not None:
        check_shape(who, "classes", classes, f"N={n}")
        if classes.is_floating_point():
            raise ValueError(message(who, "classes of integers", classes.dtype))
