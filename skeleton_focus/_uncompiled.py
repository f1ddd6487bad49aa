"""Call methods of STFObjective outside torch.compile.

This module is imported while something is compiled and never before: ``torch.compiler.disable``
imports torch._dynamo, which takes as long as importing torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._versions import uncompiled


@uncompiled(
    "STFObjective runs its first batch, and computes focus by autograd, outside torch.compile"
)
def run_first_batch(method: Callable[..., Any], *arguments: Any) -> Any:
    return method(*arguments)


@uncompiled("STFObjective computes the focus for erasing outside torch.compile")
def erase(method: Callable[..., Any], *arguments: Any) -> Any:
    return method(*arguments)


@uncompiled("STFObjective counts its steps outside torch.compile")
def count_step(method: Callable[..., Any]) -> Any:
    return method()
