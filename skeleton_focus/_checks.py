"""The common form of errors: the function, what it expected, what it got.

GraphConv: expected x (N, C=3, T, V=25), got (8, 3, 64, 17)
"""

from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch import Tensor

_AXIS = re.compile(r"(?P<name>[A-Za-z'*]+)(?P<positive>>0)?(?:=(?P<size>\d+))?$")


def message(who: str, expected: str, got: object, hint: str = "") -> str:
    """Format an error message.

    >>> message("open", "a folder", "'x.txt'", "pass the folder that holds the clips")
    "open: expected a folder, got 'x.txt'; pass the folder that holds the clips"
    """
    return f"{who}: expected {expected}, got {got}" + (f"; {hint}" if hint else "")


def check_shape(who: str, name: str, x: Tensor, axes: str, hint: str = "", **sizes: int) -> None:
    """Check a tensor against named axes such as ``"N, C=3, T, V=25"``.

    An axis without ``=`` may have any size, or the one in ``sizes``, which is a number and not text
    so that traced sizes stay symbolic. ``T>0`` does not allow size 0. ``hint`` suggests a fix for
    other shapes. The check reads only type and shape, so it never waits for a device.

    >>> import torch
    >>> check_shape("GraphConv", "x", torch.zeros(8, 3, 64, 17), "N, C=3, T, V=25")
    Traceback (most recent call last):
        ...
    ValueError: GraphConv: expected x (N, C=3, T, V=25), got (8, 3, 64, 17)
    """
    shown = axes.replace(">0", "")
    if not isinstance(x, Tensor):
        raise ValueError(message(who, f"{name} ({shown}) to be a tensor", type(x).__name__))
    shape = tuple(x.shape)
    named = [_AXIS.match(axis.strip()) for axis in axes.split(",")]
    fits = len(shape) == len(named) and all(
        axis is not None
        and size == (sizes.get(axis["name"], size) if axis["size"] is None else int(axis["size"]))
        for axis, size in zip(named, shape, strict=True)
    )
    if not fits:
        listed = ", ".join(
            f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in shown.split(", ")
        )
        raise ValueError(message(who, f"{name} ({listed})", shape, hint))
    positive = [axis is not None and axis["positive"] for axis in named]
    if any(axis and size == 0 for axis, size in zip(positive, shape, strict=True)):
        raise ValueError(message(who, f"{name} ({axes})", shape))


def can_read(x: Tensor) -> bool:
    """Whether checks may read the values of x.

    Reading a value from a GPU waits for all its work, and under torch.compile it breaks the graph,
    so values are not checked there.

    >>> can_read(torch.zeros(3)), can_read(torch.zeros(3, device="meta"))
    (True, False)
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def check_classes(who: str, classes: Tensor, num_classes: int) -> None:
    """Check that class numbers are int64 and, on a CPU, that they lie in 0..num_classes - 1.

    >>> check_classes("deletion_curve", torch.tensor([0, 3]), 3)
    Traceback (most recent call last):
        ...
    ValueError: deletion_curve: expected classes in 0..2, got 0 to 3
    """
    if classes.dtype != torch.int64:
        hint = "classes.long() converts them"
        raise ValueError(message(who, "classes of dtype torch.int64", classes.dtype, hint))
    if can_read(classes) and not ((classes >= 0) & (classes < num_classes)).all():
        raise ValueError(
            message(
                who, f"classes in 0..{num_classes - 1}", f"{classes.min():d} to {classes.max():d}"
            )
        )


def check_lengths(who: str, lengths: Tensor, x: Tensor) -> None:
    """Check the shape of the true lengths of clips x (N, C, T, V, ...) and, on a CPU, their values.

    >>> check_lengths("TemporalContext", torch.tensor([4, 2]), torch.zeros(2, 3, 3, 25))
    Traceback (most recent call last):
        ...
    ValueError: TemporalContext: expected lengths in 1..3, got [4, 2]
    """
    check_shape(who, "lengths", lengths, f"N={len(x)}")
    if lengths.dtype not in (torch.int64, torch.int32):
        raise ValueError(message(who, "integer lengths", lengths.dtype))
    if can_read(lengths) and not ((lengths >= 1) & (lengths <= x.shape[2])).all():
        raise ValueError(message(who, f"lengths in 1..{x.shape[2]}", lengths.tolist()))


def check_choice(who: str, name: str, value: str, choices: Collection[str]) -> None:
    """Check that an option is one of the choices.

    >>> check_choice("STFLoss", "score", "logit", ["log_odds", "probability"])
    Traceback (most recent call last):
        ...
    ValueError: STFLoss: expected score to be one of 'log_odds', 'probability', got 'logit'
    """
    if value not in choices:
        raise ValueError(
            message(who, f"{name} to be one of " + ", ".join(map(repr, choices)), repr(value))
        )


def check_adjacency(who: str, adjacency: Tensor) -> None:
    """Check that an adjacency is (K, V, V).

    >>> import torch
    >>> check_adjacency("GraphConv", torch.zeros(3, 25, 20))
    Traceback (most recent call last):
        ...
    ValueError: GraphConv: expected an adjacency (K, V, V), got (3, 25, 20)
    """
    if not isinstance(adjacency, Tensor):
        hint = "skeleton_focus.adjacency makes such tensors from a layout"
        raise ValueError(message(who, "an adjacency (K, V, V)", type(adjacency).__name__, hint))
    shape = tuple(adjacency.shape)
    if len(shape) != 3 or shape[0] == 0 or shape[1] != shape[2]:
        raise ValueError(message(who, "an adjacency (K, V, V)", shape))
