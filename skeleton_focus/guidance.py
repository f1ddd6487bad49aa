"""Guide the focus: a table of each class's allowed joints, and a loss on focus outside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ._checks import can_read, check_choice, check_shape, message
from .focus import at_least_float32, resize_focus
from .layouts import SkeletonLayout

__all__ = ["allowed_joints", "guidance_loss"]

REDUCTIONS = ("none", "mean", "sum")


def guidance_loss(focus: Tensor, allowed: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Compute the fraction of the focus that lies outside the allowed joints and frames.

    .. math:: L_g = \frac{\sum_{m,t,v} Q_{mtv} (1 - A_{mtv})}{\sum_{m,t,v} Q_{mtv}}

    It is 0 if all focus is inside and 1 if all is outside. An empty focus gives 0 and a zero
    gradient.

    Shape:
        focus (N, M, T', V), resized to T; allowed (N, M, T, V), or (N, V) for the same joints in
        all frames -> () or (N,), in [0, 1].

    Args:
        focus: Q of the labelled class.
        allowed: A, 1 or True where the focus may lie and 0 or False where it may not.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over the N samples.

    Raises:
        ValueError: mismatched shapes, ``allowed`` outside [0, 1], or an unknown reduction.

    Example:
        >>> focus = torch.tensor([1.0, 0.5, 0.5, 0.0]).view(1, 1, 1, 4)
        >>> guidance_loss(focus, torch.tensor([[True, True, False, False]]))
        tensor(0.2500)

    Reference:
        Right for the Right Reasons (Ross et al., IJCAI 2017), which uses the gradient at the input;
        GAIN (Li et al., CVPR 2018), which guides Grad-CAM by masks.
    """
    check_shape("guidance_loss", "focus", focus, "N, M, T', V")
    n, m, _, v = focus.shape
    if isinstance(allowed, Tensor) and allowed.dim() == 2:
        check_shape("guidance_loss", "allowed", allowed, f"N={n}, V={v}")
        inside = allowed[:, None, None]
    else:
        check_shape("guidance_loss", "allowed", allowed, f"N={n}, M={m}, T, V={v}")
        inside = allowed
        focus = resize_focus(focus, allowed.shape[2])
    # On a GPU, reading the values would wait for all its work.
    if can_read(allowed):
        check_allowed_range("guidance_loss", allowed)
    focus = at_least_float32(focus)
    total = focus.sum((1, 2, 3))
    outside = (focus * (1 - inside.to(focus.dtype))).sum((1, 2, 3))
    # The inner where keeps the unused 0 / 0 of an empty focus from making the gradient NaN.
    fraction = torch.where(total > 0, outside / total.where(total > 0, 1.0), 0.0)
    return reduce_samples("guidance_loss", fraction, reduction)


def reduce_samples(who: str, values: Tensor, reduction: str) -> Tensor:
    """Reduce per-sample losses (N,): none, mean or sum; the mean of an empty batch is 0.

    >>> reduce_samples("guidance_loss", torch.tensor([1.0, 3.0]), "mean")
    tensor(2.)
    """
    check_choice(who, "reduction", reduction, REDUCTIONS)
    if reduction == "none":
        return values
    # The mean of no values is NaN; their sum is a zero with a gradient.
    return values.mean() if reduction == "mean" and len(values) > 0 else values.sum()


def allowed_joints(
    table: Mapping[str, Sequence[str]], classes: Sequence[str], layout: SkeletonLayout
) -> Tensor:
    """Make the mask of joints allowed for each class from a table of names.

    Names are parts or joints of the layout; spaces and underscores are equivalent, and a name that
    is both, such as ``"right_hand"``, means the part. A class that is not in the table may use
    every joint.

    Shape:
        -> (classes, V) of torch.bool, for ``STFLoss(guidance=..., allowed=...)``.

    Args:
        table: maps class names to names of joints or parts.
        classes: the names of the classes, in the order of their labels.
        layout: the skeleton.

    Raises:
        ValueError: a class that is not among ``classes``, a name that the layout does not have, a
            class with no names, ``classes`` that are not a list of names, or a ``layout`` of
            another type.

    Example:
        >>> from skeleton_focus import NTU25
        >>> allowed = allowed_joints({"drink": ["right hand", "head"]}, ["drink", "walk"], NTU25)
        >>> [NTU25.joints[joint] for joint in allowed[0].nonzero().flatten()], int(allowed[1].sum())
        (['neck', 'head', 'right_wrist', 'right_hand', 'right_hand_tip', 'right_thumb'], 25)
    """
    who = "allowed_joints"
    if not isinstance(layout, SkeletonLayout):
        raise ValueError(message(who, "a SkeletonLayout, such as NTU25", type(layout).__name__))
    if not isinstance(table, Mapping):
        expected = 'a table such as {"drink": ["right hand"]}'
        raise ValueError(message(who, expected, type(table).__name__))
    if not isinstance(classes, list | tuple):
        raise ValueError(
            message(
                who,
                "classes as a list of names, in the order of the labels",
                type(classes).__name__,
            )
        )
    unknown_classes = [name for name in table if name not in classes]
    if unknown_classes:
        raise ValueError(message(who, f"a table of classes among {list(classes)}", unknown_classes))
    known: dict[str, tuple[int, ...]] = {
        _key(joint): (index,) for index, joint in enumerate(layout.joints)
    }
    # Parts after joints, so that a part replaces a joint of the same name.
    known |= {_key(part): tuple(joints) for part, joints in layout.parts.items()}
    allowed = torch.ones(len(classes), layout.num_joints, dtype=torch.bool)
    for label, name in enumerate(classes):
        if name not in table:
            continue
        given = table[name]
        listed = isinstance(given, list | tuple) and len(given) > 0
        if not listed or not all(isinstance(one, str) for one in given):
            raise ValueError(message(who, f"a list of joints or parts for {name!r}", repr(given)))
        chosen = [_key(one) for one in given]
        unknown = [one for one, key in zip(given, chosen, strict=True) if key not in known]
        if unknown:
            hint = f"joints: {', '.join(layout.joints)}; parts: {', '.join(layout.parts)}"
            raise ValueError(
                message(
                    who, f"joints or parts of layout {layout.name!r} for {name!r}", unknown, hint
                )
            )
        allowed[label] = False
        for key in chosen:
            allowed[label, list(known[key])] = True
    return allowed


def check_allowed(who: str, allowed: Tensor) -> None:
    """Check that ``allowed`` is a table (classes, V) of values in [0, 1].

    >>> check_allowed("STFLoss", {"drink": ["head"]})
    Traceback (most recent call last):
        ...
    ValueError: STFLoss: expected allowed (classes, V) to be a tensor, got dict; allowed_joints \
makes one from a table
    """
    if not isinstance(allowed, Tensor):
        hint = "allowed_joints makes one from a table"
        raise ValueError(
            message(who, "allowed (classes, V) to be a tensor", type(allowed).__name__, hint)
        )
    check_shape(who, "allowed", allowed, "classes, V")
    if not allowed.is_meta:
        check_allowed_range(who, allowed)


def check_allowed_range(who: str, allowed: Tensor) -> None:
    """Check that every value of ``allowed`` lies in [0, 1], which reads the values.

    >>> check_allowed_range("guidance_loss", torch.tensor([[0.0, 255.0]]))
    Traceback (most recent call last):
        ...
    ValueError: guidance_loss: expected allowed in [0, 1], 1 where the focus may lie, got 0.0 to \
255.0
    """
    if allowed.dtype == torch.bool or allowed.numel() == 0:
        return
    low = float(allowed.detach().min())
    high = float(allowed.detach().max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            message(who, "allowed in [0, 1], 1 where the focus may lie", f"{low} to {high}")
        )


def _key(name: str) -> str:
    return name.replace(" ", "_")
