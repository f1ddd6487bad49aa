"""The one form of error: who refuses, what was expected, what came.

GraphConv: expected x (N, C=3, T, V=25), got (8, 3, 64, 17)
"""

from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch import Tensor

_AXIS = re.compile(r"(?P<name>[A-Za-z'*]+)(?P<positive>>0)?(?:=(?P<size>\d+))?$")


def require(condition: bool, who: str, expected: str, got: object, hint: str = "") -> None:
    """Raise ``ValueError("who: expected ..., got ...; hint")`` unless ``condition`` holds.

    >>> require(3 > 4, "GraphConv", "a stride of at least 4", 3)
    Traceback (most recent call last):
        ...
    ValueError: GraphConv: expected a stride of at least 4, got 3
    """
    if not condition:
        raise ValueError(message(who, expected, got, hint))


def message(who: str, expected: str, got: object, hint: str = "") -> str:
    """Spell an error in the one form.

    >>> message("open", "a folder", "'x.txt'", "pass the folder that holds the clips")
    "open: expected a folder, got 'x.txt'; pass the folder that holds the clips"
    """
    return f"{who}: expected {expected}, got {got}" + (f"; {hint}" if hint else "")


def check_shape(who: str, name: str, x: Tensor, axes: str, hint: str = "", **sizes: int) -> None:
    """Check a tensor against named axes such as ``"N, C=3, T, V=25"``.

    An axis without ``=`` may have any size, or the one in ``sizes``: as a number and not as text, so that a traced size
    stays one. ``T>0`` refuses a size of 0. ``hint`` is the way out of another shape. The check reads type and shape
    alone, so it costs nothing on a device.

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
        axis is not None and size == (sizes.get(axis["name"], size) if axis["size"] is None else int(axis["size"]))
        for axis, size in zip(named, shape, strict=True)
    )
    if not fits:
        listed = ", ".join(f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in shown.split(", "))
        raise ValueError(message(who, f"{name} ({listed})", shape, hint))
    if any(axis is not None and axis["positive"] and size == 0 for axis, size in zip(named, shape, strict=True)):
        raise ValueError(message(who, f"{name} ({axes})", shape))


def check_lengths(who: str, lengths: Tensor, x: Tensor) -> Tensor:
    """Check the true lengths of clips x (N, C, T, V); returns them on the CPU, moved there once and read there.

    >>> import torch
    >>> check_lengths("TemporalContext", torch.tensor([4, 2]), torch.zeros(2, 3, 3, 25))
    Traceback (most recent call last):
        ...
    ValueError: TemporalContext: expected lengths in 1..3, got [4, 2]
    """
    check_shape(who, "lengths", lengths, f"N={len(x)}")
    require(lengths.dtype in (torch.int64, torch.int32), who, "lengths of integers", lengths.dtype)
    here = lengths.cpu()
    fits = not len(here) or (int(here.min()) >= 1 and int(here.max()) <= x.shape[2])
    require(fits, who, f"lengths in 1..{x.shape[2]}", here.tolist())
    return here


def check_choice(who: str, name: str, value: str, choices: Collection[str]) -> None:
    """Refuse an option that is not on the list.

    >>> check_choice("STFLoss", "score", "logit", ["log_odds", "probability"])
    Traceback (most recent call last):
        ...
    ValueError: STFLoss: expected score to be one of 'log_odds', 'probability', got 'logit'
    """
    require(value in choices, who, f"{name} to be one of " + ", ".join(map(repr, choices)), repr(value))


def check_adjacency(who: str, adjacency: Tensor) -> None:
    """Refuse what is not (K, V, V).

    >>> import torch
    >>> check_adjacency("GraphConv", torch.zeros(3, 25, 20))
    Traceback (most recent call last):
        ...
    ValueError: GraphConv: expected an adjacency (K, V, V), got (3, 25, 20)
    """
    hint = "skeleton_focus.adjacency makes such tensors from a layout"
    require(isinstance(adjacency, Tensor), who, "an adjacency (K, V, V)", type(adjacency).__name__, hint)
    shape = tuple(adjacency.shape)
    require(len(shape) == 3 and shape[0] > 0 and shape[1] == shape[2], who, "an adjacency (K, V, V)", shape)
