"""Capture the outputs of a model's layers while it runs, and differentiate with respect to them."""

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
from ._second_order import SecondOrder, score_gradient

__all__ = ["FeatureTap"]


class FeatureTap:
    """Capture the outputs of named layers while a model runs.

    The model is restored when the ``with`` block ends.

    Shape:
        ``tap[layer]`` is the layer's output; :meth:`channel_gradient` maps (N * M, C, T, V) to
        (N * M, C).

    Args:
        model: the network.
        layers: names, as ``model.named_modules()`` gives them.
        twice: the ``layers`` whose :meth:`channel_gradient` is needed; the model then runs such
            that a loss on this gradient can be differentiated.
        axes: for layers that do not return (N * M, C, T, V), the conversion to it; it is applied to
            ``tap[layer]``.
        with_graph: the ``layers`` whose output requires a gradient even if everything before it is
            frozen.
        fixed_statistics: after a ``twice`` layer, treat BatchNorm's batch statistics as constants
            in the gradient.
        graph_above: under ``torch.no_grad()``, the layer from whose output on a graph is recorded.

    Attributes:
        ran: the layers in the order in which they ran.
        shifts: for each ``twice`` layer, the zeros (N * M, C, 1, 1) that were added to its output;
            they require grad.

    Raises:
        ValueError: a name that the model does not have; a layer inside a compiled module; when
            read, a layer that did not run exactly once, ran under ``torch.no_grad()`` while
            gradients were enabled, or returned no tensor.

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
        graph_above: str | None = None,
    ) -> None:
        _refuse_compiled(model, layers)
        self._modules = {layer: find_layer(model, layer) for layer in layers}
        self._outputs: dict[str, list[Any]] = {layer: [] for layer in layers}
        self.ran: list[str] = []
        self._twice = twice
        self._axes = axes or {}
        self._with_graph = with_graph
        self._versions: dict[str, tuple[Tensor, int]] = {}
        self._fixed_statistics = fixed_statistics
        self._graph_above = graph_above
        self.shifts: dict[str, Tensor] = {}
        self._grad_enabled = True
        self._without_gradient: set[str] = set()
        self._mode = ExitStack()
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> FeatureTap:
        self._grad_enabled = torch.is_grad_enabled()
        order = SecondOrder(fixed_statistics=self._fixed_statistics)
        mode = self._mode.enter_context(order) if self._twice else None
        for layer, module in self._modules.items():
            tapped = self._tapped(layer, module.forward, mode if layer in self._twice else None)
            self._undo.append(replace_forward(module, tapped))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # In reverse, because a module under two names is replaced twice.
        while self._undo:
            self._undo.pop()()
        if self._twice:
            self._mode.close()
        if self._graph_above is not None:
            torch.set_grad_enabled(self._grad_enabled)

    def __getitem__(self, layer: str) -> Tensor:
        """The layer's output."""
        output = self.output(layer)
        if not isinstance(output, Tensor):
            hint = (
                "name a module inside it that returns only the feature map, such as its last ReLU"
            )
            raise ValueError(
                message(
                    "FeatureTap", f"layer {layer!r} to give a tensor", type(output).__name__, hint
                )
            )
        return self._axes[layer].to_map(output) if layer in self._axes else output

    def output(self, layer: str) -> object:
        """The layer's output, a tensor or not."""
        outputs = self._outputs[layer]
        if len(outputs) != 1:
            hint = "name the block around it"
            if not outputs:
                hint = "name a layer that the model's forward calls"
            raise ValueError(
                message("FeatureTap", f"layer {layer!r} to run once", f"{len(outputs)} runs", hint)
            )
        if layer in self._without_gradient:
            hint = (
                "freeze it with requires_grad_(False) instead, "
                "or checkpoint it with use_reentrant=False"
            )
            got = "a run under torch.no_grad()"
            raise ValueError(
                message("FeatureTap", f"layer {layer!r} to run with gradients", got, hint)
            )
        return outputs[0]

    def channel_gradient(
        self, layer: str, score: Tensor, *, create_graph: bool, prove: bool = False
    ) -> Tensor:
        """The gradient of ``score.sum()`` at a layer, summed over frames and joints: (N * M, C).

        Args:
            layer: one of ``twice``, or any other layer at the cost of a gradient of the whole
                feature map.
            score: the tensor to differentiate, computed from the layer's output.
            create_graph: allow a loss on the gradient to be differentiated.
            prove: differentiate the gradient again, to raise here for operations that PyTorch
                cannot differentiate twice, and for those that lose the graph of their gradient
                without an error.
        """
        features = self[layer]
        if features.dim() != 4:
            expected = f"layer {layer!r} to give (N * M, C, T, V)"
            raise ValueError(message("FeatureTap", expected, tuple(features.shape)))
        shift = self.shifts.get(layer)
        # At the shift, autograd sums over frames and joints and keeps no map-sized gradient.
        variable = shift if shift is not None else self._outputs[layer][0]
        try:
            if prove:
                gradient = _checked_gradient(score, variable, below=self._outputs[layer][0])
            else:
                gradient = score_gradient(score, variable, create_graph)
        # It is a RuntimeError too, but no sign of a missing second derivative.
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            expected = f"layers after {layer!r} that PyTorch differentiates twice"
            hint = (
                "avoid torch.compile, FSDP, reentrant checkpoints and extension kernels there, "
                "name layers above them, or leave out the term that needs this focus, "
                "such as coherence"
            )
            raise ValueError(
                message("FeatureTap", expected, f"{str(error).splitlines()[0]!r}", hint)
            ) from error
        if shift is None:
            if layer in self._axes:
                gradient = self._axes[layer].to_map(gradient)
            gradient = gradient.sum((2, 3))
        return gradient.flatten(1)

    def written(self, layer: str) -> bool:
        """Whether the layer's output was modified in place afterwards."""
        # A layer that ran in compiled or inference mode has no version.
        if layer not in self._versions:
            return False
        output, version = self._versions[layer]
        return output._version != version

    def _remember_version(self, layer: str, output: object) -> object:
        if (
            not torch.compiler.is_compiling()
            and isinstance(output, Tensor)
            and not output.is_inference()
        ):
            self._versions[layer] = (output, output._version)
        return output

    def _tapped(
        self, layer: str, forward: Callable[..., object], mode: SecondOrder | None
    ) -> Callable[..., object]:
        def tapped(*inputs: object, **options: object) -> object:
            output = forward(*inputs, **options)
            if layer == self._graph_above:
                torch.set_grad_enabled(True)
            # A frozen network records no graph, by which the closed form is proved.
            if (
                layer in self._with_graph
                and isinstance(output, Tensor)
                and not output.requires_grad
            ):
                output = output.detach().requires_grad_(torch.is_grad_enabled())
            # A list, because a layer that runs twice is an error only if it is read.
            self._outputs[layer].append(output)
            self.ran.append(layer)
            # A reentrant checkpoint runs its blocks so: the focus would have no gradient.
            if self._grad_enabled and not torch.is_grad_enabled():
                self._without_gradient.add(layer)
            axes = self._axes.get(layer)
            if (
                mode is None
                or not isinstance(output, Tensor)
                or (axes is None and output.dim() != 4)
            ):
                return self._remember_version(layer, output)
            # The output is stored before the shift, so writes in place change only the shifted one.
            shifted, self.shifts[layer] = mode.shift(output, axes)
            return self._remember_version(layer, shifted)

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
        # With no similar name, the top level tells what the names look like.
        near = difflib.get_close_matches(layer, names, n=5)
        near = near or [name for name, _ in model.named_children()]
        listed = ", ".join(map(repr, near)) or "no layers"
        hint = f"{type(model).__name__} has {listed}"
        raise ValueError(message("FeatureTap", "the name of a layer", repr(layer), hint))
    return modules[layer]


def layer_name(model: nn.Module, layer: str | nn.Module) -> str:
    """The name of a layer given by name or as a module.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    >>> layer_name(net, net[1]), layer_name(net, "0")
    ('1', '0')
    """
    names = [name for name, module in model.named_modules() if module is layer and name]
    if not isinstance(layer, str) and not names:
        hint = "take the module from the model itself, not from a copy"
        expected = f"a layer inside {type(model).__name__}, by name or as a module"
        raise ValueError(message("FeatureTap", expected, type(layer).__name__, hint))
    name: str = layer if isinstance(layer, str) else names[0]
    _refuse_compiled(model, [name])
    find_layer(model, name)
    return name


def _checked_gradient(score: Tensor, at: Tensor, *, below: Tensor) -> Tensor:
    """The gradient of ``score.sum()``, checked by differentiating it again.

    A factor of one makes every incoming gradient depend on a leaf. If an outgoing gradient does
    not, the operation has lost the graph, for example a ``torch.autograd.Function`` that computes
    its backward under ``torch.no_grad()``.
    """
    lost: list[str] = []

    def watch(node: Node) -> Callable[[tuple[Tensor | None, ...], tuple[Tensor | None, ...]], None]:
        def look(outgoing: tuple[Tensor | None, ...], incoming: tuple[Tensor | None, ...]) -> None:
            if not any(g is not None and g.requires_grad for g in incoming):
                return
            cut = [g for g in outgoing if g is not None and not g.requires_grad]
            # A gradient of zeros, such as that of sign() or round(), depends on nothing.
            if any(bool((g != 0).any()) for g in cut):
                lost.append(node.name().removesuffix("Backward"))

        return look

    one = torch.ones_like(score, requires_grad=True)
    nodes = _nodes(score, below=below)
    # Leaves have no backward that could lose the graph.
    handles = [node.register_hook(watch(node)) for node in nodes if not hasattr(node, "variable")]
    try:
        gradient = score_gradient(score * one, at, True)
    finally:
        for handle in handles:
            handle.remove()
    if lost:
        raise RuntimeError(f"{lost[0]}, whose backward loses the graph of its gradient")
    # Operations without a second derivative raise here, and not in the user's backward().
    leaves = [node.variable for node in _nodes(gradient, below=below) if hasattr(node, "variable")]
    torch.autograd.grad(gradient.sum(), leaves, retain_graph=True, allow_unused=True)
    return gradient


def _nodes(x: Tensor, *, below: Tensor) -> list[Node]:
    """All operations and leaves that x was computed from, down to the tensor ``below``."""
    nodes: list[Node] = []
    # What leads to the layer's output is differentiated only once and may be of any kind.
    seen = {below.grad_fn}
    waiting = [x.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes.append(node)
        waiting += [following for following, _ in node.next_functions]
    return nodes


def _refuse_compiled(model: nn.Module, layers: Sequence[str]) -> None:
    """Raise for layers inside a compiled module, whose outputs cannot be captured."""
    for name, module in model.named_modules(remove_duplicate=False):
        # torch.compile(module) wraps the module, module.compile() only marks it.
        if (
            not hasattr(module, "_orig_mod")
            and getattr(module, "_compiled_call_impl", None) is None
        ):
            continue
        inside = [layer for layer in layers if not name or f"{layer}.".startswith(f"{name}.")]
        if inside:
            got = f"the compiled {name or type(module).__name__!r}"
            hint = (
                "compile the STFObjective around the model instead, "
                "or blocks without them (L_G reads STFAdjacency)"
            )
            raise ValueError(
                message("FeatureTap", f"layers {inside} outside of torch.compile", got, hint)
            )


def replace_forward(module: nn.Module, forward: Callable[..., object]) -> Callable[[], None]:
    """Replace the module's ``forward``; return a function that restores it.

    It is written to the instance's dictionary: a forward hook that is registered inside a compiled
    call breaks the graph (torch 2.13).

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
