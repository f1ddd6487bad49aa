"""Run a model on copies of its buffers and attributes.

A dry run or a masked pass therefore does not change them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def isolated(model: nn.Module) -> Iterator[None]:
    """Use copies of the model's buffers while active; restore its modules' attributes afterwards.

    A buffer that several modules share is copied once, and a module with several names is visited
    once. Tensor attributes are also copied; a list that the model appends to, or a value outside
    its modules, is not.

    Example:
        >>> norm = nn.BatchNorm1d(3)
        >>> with isolated(norm):
        ...     y = norm(torch.randn(4, 3))
        >>> norm.num_batches_tracked
        tensor(0)
    """
    copies: dict[int, Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.clone()
        return copies[id(tensor)]

    before = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    try:
        for module, attributes, buffers in before:
            tensors = {name: x for name, x in attributes.items() if isinstance(x, Tensor)}
            vars(module).update({name: copy(x) for name, x in tensors.items()})
            module._buffers.update(
                {name: copy(buffer) for name, buffer in buffers.items() if buffer is not None}
            )
        yield
    finally:
        for module, attributes, buffers in before:
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)


def call_isolated(model: nn.Module, *inputs: object) -> object:
    """Call the model on copies of its buffers; torch.compile can trace this call.

    A traced call does not restore attributes.

    Example:
        >>> norm = nn.BatchNorm1d(3)
        >>> call_isolated(norm, torch.randn(4, 3)).shape, norm.num_batches_tracked
        (torch.Size([4, 3]), tensor(0))
    """
    if not torch.compiler.is_compiling():
        with isolated(model):
            return model(*inputs)
    copies: dict[int, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            copied = copies.setdefault(id(buffer), buffer.clone())
            buffers[f"{prefix}.{name}" if prefix else name] = copied
    return torch.func.functional_call(model, buffers, inputs, tie_weights=False)


def each_tensor(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to each tensor in nested tuples, lists and dictionaries, which are kept."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        changed = copy.copy(value)
        for name, entry in value.items():
            changed[name] = each_tensor(entry, function)
        return changed
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(each_tensor(entry, function) for entry in value))
    if isinstance(value, tuple | list):
        return type(value)(each_tensor(entry, function) for entry in value)
    return value
