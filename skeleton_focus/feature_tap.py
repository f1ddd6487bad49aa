"""Catch what the layers of a model put out while it runs, and differentiate at it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from ._axes import MapsOfOneBatch
from ._checks import message
from ._forward import replace_forward
from ._second_order import SecondOrder, score_gradient


class FeatureTap:
    """Catch what named layers put out while a model runs; nothing is left on the model when the ``with`` block ends.

    Shape:
        ``tap[layer]`` is what the layer gives; :meth:`channel_gradient` needs (N * M, C, T, V) and gives (N * M, C).

    Args:
        model: the network.
        layers: names, as ``model.named_modules()`` gives them.
        twice: those of ``layers`` whose :meth:`channel_gradient` will be asked for; the model then runs so that a loss
            on it can be differentiated.
        axes: for layers that do not give (N * M, C, T, V), the way there and back; ``tap[layer]`` is then rearranged.
        with_graph: those of ``layers`` whose output gets a graph also where all that leads to it is frozen.
        fixed_statistics: after a ``twice`` layer, take BatchNorm's batch statistics as constants in the gradient.

    Attributes:
        ran: the layers in the order in which they ran.
        shifts: of each ``twice`` layer the zeros (N * M, C, 1, 1) that were added to its output, with gradients on.

    Raises:
        ValueError: a name the model does not have; a layer inside a compiled module; a layer that did not run once, ran
            under ``torch.no_grad()`` while gradients were on, or gave no tensor (when read).

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        >>> with FeatureTap(net, ["0"]) as tap:
        ...     out = net(torch.zeros(2, 3))
        >>> tap["0"].shape, "forward" in vars(net[0])
        (torch.Size([2, 4]), False)
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        *,
        twice: Collection[str] = (),
        axes: Mapping[str, MapsOfOneBatch] | None = None,
        with_graph: Collection[str] = (),
        fixed_statistics: bool = False,
    ) -> None:
        _refuse_compiled(model, layers)
        self._modules = {layer: find_layer(model, layer) for layer in layers}
        self._outputs: dict[str, list[Any]] = {layer: [] for layer in layers}
        self.ran: list[str] = []
        self._twice = twice
        self._axes = axes or {}
        self._with_graph = with_graph
        self._handed_on: dict[str, tuple[Tensor, int]] = {}
        self._fixed_statistics = fixed_statistics
        self.shifts: dict[str, Tensor] = {}
        self._graph = True
        self._without_gradient: set[str] = set()
        self._mode = ExitStack()
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> FeatureTap:
        self._graph = torch.is_grad_enabled()
        order = SecondOrder(fixed_statistics=self._fixed_statistics)
        mode = self._mode.enter_context(order) if self._twice else None
        for layer, module in self._modules.items():
            tapped = self._tapped(layer, module.forward, mode if layer in self._twice else None)
            self._undo.append(replace_forward(module, tapped))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._undo:
            self._undo.pop()()
        if self._twice:
            self._mode.close()

    def __getitem__(self, layer: str) -> Tensor:
        """The layer's output."""
        output = self.output(layer)
        if not isinstance(output, Tensor):
            hint = "name a module inside it that gives the feature map alone, such as its last ReLU"
            raise ValueError(message("FeatureTap", f"layer {layer!r} to give a tensor", type(output).__name__, hint))
        return self._axes[layer].to_map(output) if layer in self._axes else output

    def output(self, layer: str) -> object:
        """Whatever the layer put out, a tensor or not."""
        caught = self._outputs[layer]
        if len(caught) != 1:
            hint = "name the block around it" if caught else "take a layer that the model's forward calls"
            raise ValueError(message("FeatureTap", f"layer {layer!r} to run once", f"{len(caught)} runs", hint))
        if layer in self._without_gradient:
            hint = "freeze it by requires_grad_(False) instead, or checkpoint it with use_reentrant=False"
            got = "a run under torch.no_grad()"
            raise ValueError(message("FeatureTap", f"layer {layer!r} to run with gradients", got, hint))
        return caught[0]

    def channel_gradient(self, layer: str, score: Tensor, *, create_graph: bool, prove: bool = False) -> Tensor:
        """The gradient of ``score.sum()`` at a layer, summed over frames and joints: (N * M, C).

        Args:
            layer: one of ``twice``, or another whose gradient is wanted all the same, at the price of a whole map.
            score: what to differentiate, computed from the layer's output.
            create_graph: let a loss on the gradient be differentiated.
            prove: differentiate it once more, so that operations that PyTorch cannot differentiate twice, and those
                that lose the graph of their gradient without an error, are refused here.
        """
        features = self[layer]
        if features.dim() != 4:
            expected = f"layer {layer!r} to give (N * M, C, T, V)"
            raise ValueError(message("FeatureTap", expected, tuple(features.shape)))
        shift = self.shifts.get(layer)
        at = shift if shift is not None else self._outputs[layer][0]
        try:
            if prove:
                gradient = _prove(score, at, below=self._outputs[layer][0])
            else:
                gradient = score_gradient(score, at, create_graph)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            expected = f"layers after {layer!r} that PyTorch differentiates twice"
            hint = (
                "keep torch.compile, FSDP, reentrant checkpoints and others' kernels off them, name layers above them"
            )
            hint += ", or leave out the term that needs this focus, such as coherence"
            raise ValueError(message("FeatureTap", expected, f"{str(error).splitlines()[0]!r}", hint)) from error
        if shift is None:
            gradient = (self._axes[layer].to_map(gradient) if layer in self._axes else gradient).sum((2, 3))
        return gradient.flatten(1)

    def written(self, layer: str) -> bool:
        """Whether something after the layer wrote to its output in place."""
        if layer not in self._handed_on:
            return False
        handed_on, version = self._handed_on[layer]
        return handed_on._version != version

    def _hand_on(self, layer: str, output: object) -> object:
        if not torch.compiler.is_compiling() and isinstance(output, Tensor) and not output.is_inference():
            self._handed_on[layer] = (output, output._version)
        return output

    def _tapped(self, layer: str, forward: Callable[..., object], mode: SecondOrder | None) -> Callable[..., object]:
        def tapped(*inputs: object, **options: object) -> object:
            output = forward(*inputs, **options)
            if layer in self._with_graph and isinstance(output, Tensor) and not output.requires_grad:
                output = output.detach().requires_grad_(torch.is_grad_enabled())
            self._outputs[layer].append(output)
            self.ran.append(layer)
            if self._graph and not torch.is_grad_enabled():
                self._without_gradient.add(layer)
            axes = self._axes.get(layer)
            if mode is None or not isinstance(output, Tensor) or (axes is None and output.dim() != 4):
                return self._hand_on(layer, output)
            shifted, self.shifts[layer] = mode.shift(output, axes)
            return self._hand_on(layer, shifted)

        return tapped


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """A layer by its name, or an error that suggests the names nearest to it.

    >>> find_layer(nn.ModuleDict({"block5": nn.ReLU(), "fc": nn.ReLU()}), "block")
    Traceback (most recent call last):
        ...
    ValueError: FeatureTap: expected the name of a layer, got 'block'; ModuleDict has 'block5'
    """
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if layer not in modules or not layer:
        names = [name for name in modules if name]
        near = difflib.get_close_matches(layer, names, n=5) or [name for name, _ in model.named_children()]
        listed = ", ".join(map(repr, near)) or "no layers"
        hint = f"{type(model).__name__} has {listed}"
        raise ValueError(message("FeatureTap", "the name of a layer", repr(layer), hint))
    return modules[layer]


def layer_name(model: nn.Module, layer: str | nn.Module) -> str:
    """The name of a layer that is given by name or as the module itself.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    >>> layer_name(net, net[1]), layer_name(net, "0")
    ('1', '0')
    """
    names = [name for name, module in model.named_modules() if module is layer and name]
    if not isinstance(layer, str) and not names:
        hint = "take it from the model itself, not from a copy"
        expected = f"a layer inside {type(model).__name__}, by name or as a module"
        raise ValueError(message("FeatureTap", expected, type(layer).__name__, hint))
    name: str = layer if isinstance(layer, str) else names[0]
    _refuse_compiled(model, [name])
    find_layer(model, name)
    return name


def _prove(score: Tensor, at: Tensor, *, below: Tensor) -> Tensor:
    """The gradient of ``score.sum()``, differentiated once more to see that each operation takes part in that.

    A factor of one makes every incoming gradient depend on a leaf. An operation whose outgoing gradient does not has
    lost the graph, as a ``torch.autograd.Function`` does that computes its backward under ``torch.no_grad()``.
    """
    lost: list[str] = []

    def watch(node: Node) -> Callable[[tuple[Tensor | None, ...], tuple[Tensor | None, ...]], None]:
        def look(outgoing: tuple[Tensor | None, ...], incoming: tuple[Tensor | None, ...]) -> None:
            comes = any(g is not None and g.requires_grad for g in incoming)
            # A gradient of zeros, as that of sign() or round(), depends on nothing.
            if comes and any(g is not None and not g.requires_grad and bool((g != 0).any()) for g in outgoing):
                lost.append(node.name().removesuffix("Backward"))

        return look

    one = torch.ones_like(score, requires_grad=True)
    nodes = _nodes(score, below=below)
    handles = [node.register_hook(watch(node)) for node in nodes if not hasattr(node, "variable")]
    try:
        gradient = score_gradient(score * one, at, True)
    finally:
        for handle in handles:
            handle.remove()
    if lost:
        raise RuntimeError(f"{lost[0]}, whose backward loses the graph of its gradient")
    leaves = [node.variable for node in _nodes(gradient, below=below) if hasattr(node, "variable")]
    torch.autograd.grad(gradient.sum(), leaves, retain_graph=True, allow_unused=True)
    return gradient


def _nodes(x: Tensor, *, below: Tensor) -> list[Node]:
    """All operations and leaves that x was computed from, above another tensor."""
    found: list[Node] = []
    seen = {below.grad_fn}
    waiting = [x.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found.append(node)
        waiting += [following for following, _ in node.next_functions]
    return found


def _refuse_compiled(model: nn.Module, layers: Sequence[str]) -> None:
    """What runs inside a compiled module cannot be caught from outside."""
    for name, module in model.named_modules(remove_duplicate=False):
        if not hasattr(module, "_orig_mod") and getattr(module, "_compiled_call_impl", None) is None:
            continue
        inside = [layer for layer in layers if not name or f"{layer}.".startswith(f"{name}.")]
        if inside:
            got = f"the compiled {name or type(module).__name__!r}"
            hint = "compile the STFObjective around the model instead, or blocks without them (L_G reads STFAdjacency)"
            raise ValueError(message("FeatureTap", f"layers {inside} outside of torch.compile", got, hint))
