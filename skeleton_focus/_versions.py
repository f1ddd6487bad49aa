"""What differs between versions of PyTorch, each with the version and the reason."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


def is_exporting() -> bool:
    """Whether a network is traced for torch.export or ONNX."""
    if hasattr(torch.compiler, "is_exporting"):  # PyTorch 2.7
        return torch.compiler.is_exporting()
    # Older versions do not tell export from compilation, in which the slower form is also right.
    return torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def uncompiled(reason: str) -> Callable[[F], F]:
    """Run a function outside torch.compile; this imports torch._dynamo.

    PyTorch prints the reason when a compiled graph breaks there.
    """
    known = inspect.signature(torch.compiler.disable).parameters
    options = {"reason": reason} if "reason" in known else {}  # PyTorch 2.7

    def disabled(function: F) -> F:
        alone: F = torch.compiler.disable(function, **options)  # type: ignore[no-untyped-call]
        return alone

    return disabled
