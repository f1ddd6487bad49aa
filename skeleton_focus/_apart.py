"""Run a model without a trace: its buffers and what it writes to itself stay as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def apart(model: nn.Module, inputs: Sequence[Any]) -> Any:
    """Run the model on copies of its buffers, and give its modules their attributes back afterwards.

    A buffer that several modules share is copied once, and a module under several names is visited once. Attributes
    that are tensors are copied, too; a list that the model appends to, or a value outside its modules, is not.

    Example:
        >>> norm = nn.BatchNorm1d(3)
        >>> norm.also = norm
        >>> apart(norm, [torch.randn(4, 3)]).shape, norm.num_batches_tracked
        (torch.Size([4, 3]), tensor(0))
    """
    copies: dict[int, Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        return copies.setdefault(id(tensor), tensor.clone())

    buffers: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            buffers[f"{prefix}.{name}" if prefix else name] = copy(buffer)
    if torch.compiler.is_compiling():  # which does not trace the attributes
        return torch.func.functional_call(model, buffers, tuple(inputs), tie_weights=False)
    before = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        for attributes, kept in before:
            attributes.update({name: copy(value) for name, value in kept.items() if isinstance(value, Tensor)})
        return torch.func.functional_call(model, buffers, tuple(inputs), tie_weights=False)
    finally:
        for attributes, kept in before:
            attributes.clear()
            attributes.update(kept)
