"""What older versions of PyTorch lack, each with the version and the reason."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


NEW_COMPILER = hasattr(torch.compiler, "is_exporting")  # not in 2.4, in 2.8


def is_exporting() -> bool:
    """Whether torch.export traces a network; older versions do not tell it from compilation."""
    return NEW_COMPILER and torch.compiler.is_exporting()


def has_autocast(device: str) -> bool:
    """Whether autocast knows a type of device."""
    # The compiler of PyTorch 2.4 cannot trace the question; it runs where autocast is known.
    if not NEW_COMPILER and torch.compiler.is_compiling():
        return True
    return torch.amp.is_autocast_available(device)


def uncompiled(reason: str) -> Callable[[F], F]:
    """Run a function outside torch.compile; this imports torch._dynamo.

    PyTorch prints the reason when a compiled graph breaks there.
    """
    known = inspect.signature(torch.compiler.disable).parameters
    options = {"reason": reason} if "reason" in known else {}  # not in 2.4, in 2.8

    def disabled(function: F) -> F:
        alone: F = torch.compiler.disable(function, **options)  # type: ignore[no-untyped-call]
        return alone

    return disabled
