"""Temporarily replace a module's forward in a way that torch.compile can trace."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def replace_forward(module: nn.Module, forward: Callable[..., object]) -> Callable[[], None]:
    """Replace the module's ``forward``; return a function that restores it.

    It is written to the instance's dictionary: unlike a forward hook, this causes no graph break in
    torch.compile.

    >>> relu = nn.ReLU()
    >>> restore = replace_forward(relu, lambda x: "replaced")
    >>> relu(None)
    'replaced'
    >>> restore()
    >>> "forward" in vars(relu)
    False
    """
    attributes = vars(module)
    before = attributes.get("forward")
    attributes["forward"] = forward

    def restore() -> None:
        if before is None:
            attributes.pop("forward")
        else:
            attributes["forward"] = before

    return restore
