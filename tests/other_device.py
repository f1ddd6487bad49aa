"""A stand-in for a GPU: tensors that are not on the CPU, and a list of all that makes a GPU wait.

A read of a value, and an operation whose output's size depends on values, wait until the GPU has
done all its work.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

aten = torch.ops.aten
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
# Take a tensor of the CPU, too.
MIXES = (*INDEXED, aten.copy_.default, aten._pack_padded_sequence.default)
ELSEWHERE = (__file__, str(Path(torch.__file__).parent))
DEVICE = torch.device("meta")  # the one device besides the CPU that needs no driver


class Remote(Tensor):
    """Stand for a tensor on another device; only this file looks at its values, on the CPU."""

    values: Tensor
    is_meta = False

    @staticmethod
    def __new__(cls, values: Tensor) -> Remote:
        self = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        self.values = values
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of OtherDevice")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Remote({tuple(self.shape)}, {self.dtype})"


class OtherDevice(TorchDispatchMode):
    """Compute with remote tensors while active; list in ``waits`` what would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.uploads: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        remote = any(isinstance(value, Remote) for value in given)
        if remote:
            own = [value for value in given if not isinstance(value, Remote) and value.dim() > 0]
            if own and func not in MIXES:
                raise RuntimeError(f"{func}: expected all tensors on the same device")
            if _waits(func, args, kwargs):
                self.waits.append(f"{func} in {_place()}")
        to = kwargs.get("device")
        if given and not remote and to == DEVICE:
            self.uploads.append(f"{func} in {_place()}")
        there = remote if to is None else torch.device(to) == DEVICE
        plain_args, plain_kwargs = tree_map_only(
            Remote, lambda tensor: tensor.values, (args, kwargs)
        )
        if to is not None:
            plain_kwargs["device"] = torch.device("cpu")
        output = func(*plain_args, **plain_kwargs)
        if not there:
            return output
        if func is aten._pack_padded_sequence.default:
            # How many sequences each frame has is known on the CPU.
            return Remote(output[0]), output[1]
        output = tree_map_only(Tensor, Remote, output)
        return return_and_correct_aliasing(func, args, kwargs, output) if remote else output


def _waits(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a GPU's answer is needed before the program goes on."""
    if func is aten._to_copy.default:
        return kwargs.get("device") is not None and torch.device(kwargs["device"]) != DEVICE
    if func is aten.copy_.default:
        return not isinstance(args[0], Remote)
    if func in INDEXED:  # a mask is turned into indices, whose number is a value
        return any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))


def _place() -> str:
    """The line outside of torch that the operation comes from."""
    own = [frame for frame in traceback.extract_stack() if not frame.filename.startswith(ELSEWHERE)]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"


def remote(value: Any) -> Any:
    """The same with every tensor on the other device; a module is moved itself."""
    if not isinstance(value, nn.Module):
        return tree_map_only(Tensor, lambda tensor: Remote(tensor.detach().clone()), value)
    with OtherDevice():
        for module in value.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(
                    module, name, nn.Parameter(Remote(parameter.detach()), parameter.requires_grad)
                )
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, Remote(buffer))
    return value


@contextmanager
def no_waiting(*, uploads: bool = False) -> Iterator[None]:
    """Refuse a block that waits for a GPU or, unless ``uploads``, copies a CPU's tensor to it."""
    with OtherDevice() as device:
        yield
    if device.waits:
        raise AssertionError("a GPU is waited for: " + "; ".join(device.waits))
    if device.uploads and not uploads:
        raise AssertionError("a tensor is copied to the GPU: " + "; ".join(device.uploads))
