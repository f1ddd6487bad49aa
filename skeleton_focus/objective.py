"""STF training of any backbone: one module that runs the network, finds its focus and sums the losses."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from einops import reduce
from torch import Tensor, nn

from ._checks import check_choice, check_shape, require
from ._second_order import plain_kernels
from .focus import (
    SCORES,
    FeatureTap,
    class_score,
    find_layer,
    grad_cam,
    linear_head_focus,
    mask_by_focus,
    resize_focus,
    weigh_channels,
)
from .losses import STFLoss
from .stf import STFAdjacency


class STFOutput(NamedTuple):
    """What :class:`STFObjective` gives.

    Attributes:
        loss: () to call ``backward()`` on.
        logits: (N, classes) of the whole input.
        terms: one () for each loss term in use, before its weight.
        focus: (N, M, T, V) of the predicted class, detached, at the input's frames; None where no term needed it.
    """

    loss: Tensor
    logits: Tensor
    terms: dict[str, Tensor]
    focus: Tensor | None


class STFObjective(nn.Module):
    """Train any network with the STF losses.

    The network runs as it is; hooks, there only while it runs, catch its feature maps and the embeddings of every
    :class:`~skeleton_focus.STFAdjacency` in it. The last layer's focus has a closed form where the head is global
    average pooling and the linear layer ``head``, which the first batch decides by comparing the logits; elsewhere it
    is differentiated through the head alone. An earlier layer's, for L_c, takes a gradient through the layers after it.
    The masked pass of L_e works on copies of the buffers, so BatchNorm's running statistics see each clip once.

    Shape:
        x (N, C, T, V, M), target (N,) -> :class:`STFOutput`.

    Args:
        model: maps (N, C, T, V, M) to logits (N, classes).
        layers: names of layers whose (N * M, C', T', V) outputs are explained, from low to high; equation 5 compares
            the last two, the other terms use the last.
        head: name of the linear layer after global average pooling; None where there is no such layer.
        loss: terms and weights; by default the paper's focus branch.
        score: ``"log_odds"`` or ``"probability"`` of the class, see :func:`~skeleton_focus.class_score`.

    Raises:
        ValueError: a layer the model does not have or did not run once; layers named twice or not from low to high; a
            head that is not ``nn.Linear``; coherence with fewer than two layers; shapes that do not fit.

    Example:
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.low, self.high, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        ...     def forward(self, x):
        ...         n, c, t, v, m = x.shape
        ...         x = x.permute(0, 4, 1, 2, 3).reshape(n * m, c, t, v)
        ...         x = self.high(self.low(x).relu())
        ...         return self.fc(x.view(n, m, 8, t * v).mean((1, 3)))
        >>> objective = STFObjective(Net(), layers=["low", "high"], head="fc", loss=STFLoss.focus_branch())
        >>> out = objective(torch.randn(4, 3, 6, 25, 2), torch.tensor([0, 1, 2, 3]))
        >>> out.loss.backward()
        >>> out.logits.shape, out.focus.shape, sorted(out.terms)
        (torch.Size([4, 5]), torch.Size([4, 2, 6, 25]), ['classification', 'coherence', 'divergence'])

    Reference:
        STF (Ke et al., AAAI 2022), equations 2 to 6.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        *,
        head: str | None = None,
        loss: STFLoss | None = None,
        score: str = "log_odds",
    ) -> None:
        super().__init__()
        check_choice("STFObjective", "score", score, SCORES)
        require(not isinstance(layers, str) and len(layers) > 0, "STFObjective", "a list of layer names", repr(layers))
        kind, hint = type(loss).__name__, "STFLoss.focus_branch() is one"
        require(loss is None or isinstance(loss, STFLoss), "STFObjective", "loss to be an STFLoss", kind, hint)
        self.loss = loss if loss is not None else STFLoss.focus_branch()
        if self.loss.uses("coherence"):
            hint = "name the layer before the last one too, or set coherence=0"
            require(len(layers) >= 2, "STFObjective", "two layers for the coherence term", list(layers), hint)
        require(len(set(layers)) == len(layers), "STFObjective", "each layer once", list(layers))
        for layer in layers:
            find_layer(model, layer)
        if head is not None:
            kind = type(find_layer(model, head)).__name__
            hint = "name the linear layer that gives the logits, or pass head=None"
            require(isinstance(find_layer(model, head), nn.Linear), "STFObjective", f"head {head!r} to be nn.Linear",
                    kind, hint)  # fmt: skip
        self.model = model
        self.layers = tuple(layers)
        self.head = head
        self.score = score
        self.generators = tuple(name for name, module in model.named_modules() if isinstance(module, STFAdjacency))
        self._closed_form: dict[bool, bool] = {}  # by training mode: dropout may stand before the head

    def forward(self, x: Tensor, target: Tensor) -> STFOutput:
        check_shape("STFObjective", "x", x, "N, C, T, V, M")
        check_shape("STFObjective", "target", target, f"N={len(x)}")
        graph = torch.is_grad_enabled()
        with torch.set_grad_enabled(graph or self.loss.uses(*self.loss.weights)):
            # Until the first batch has told whether there is a closed form, every layer must be differentiable twice.
            told = self.head is None or self.training in self._closed_form or not self.loss.uses(*self.loss.weights)
            with contextlib.nullcontext() if told else plain_kernels():
                logits, tap = self._run(x, twice=self._below())
            maps, focus = self._maps(x, logits, tap, create_graph=graph)
            loss, terms = self.loss(logits, target, **maps)
        shown = None if focus is None else resize_focus(focus.detach(), x.shape[2])
        if not graph:
            loss, logits, terms = loss.detach(), logits.detach(), {name: term.detach() for name, term in terms.items()}
        return STFOutput(loss, logits, terms, shown)

    def explain(self, x: Tensor, classes: Tensor | None = None, *, layer: str | None = None) -> tuple[Tensor, Tensor]:
        """The focus of a class for each clip, without training anything.

        Shape:
            x (N, C, T, V, M), classes (N,) -> focus (N, M, T, V) at the input's frames, logits (N, classes).

        Args:
            x: clips as the model takes them.
            classes: what to explain; by default the predicted classes.
            layer: which of ``layers``; by default the last.
        """
        check_shape("STFObjective", "x", x, "N, C, T, V, M")
        layer = self.layers[-1] if layer is None else layer
        check_choice("STFObjective", "layer", layer, self.layers)
        with torch.enable_grad():
            logits, tap = self._run(x, twice=layer, apart=True)
            chosen = logits.argmax(1) if classes is None else classes
            focus = self._focus(x, logits, tap, layer, chosen, create_graph=False)
        return resize_focus(focus.detach(), x.shape[2]), logits.detach()

    def extra_repr(self) -> str:
        return f"layers={list(self.layers)}, head={self.head!r}, score={self.score!r}"

    def _below(self) -> str | None:
        """The lowest layer whose focus is a gradient through the layers after it, if any is."""
        if self.loss.uses("coherence"):
            return self.layers[-2]
        by_autograd = self.head is None or self._closed_form.get(self.training) is False
        return self.layers[-1] if by_autograd and self.loss.uses(*self.loss.weights) else None

    def _run(self, x: Tensor, *, twice: str | None = None, apart: bool = False) -> tuple[Tensor, FeatureTap]:
        """The logits and what the layers put out; ``apart``: on copies of the buffers."""
        with FeatureTap(self.model, [*self.layers, *self.generators], twice=twice) as tap:
            logits = self._apart(x) if apart else self.model(x)
        check_shape("STFObjective", "logits", logits, f"N={len(x)}, classes")
        require(logits.shape[1] >= 2, "STFObjective", "logits of at least 2 classes", logits.shape[1])
        ran = [layer for layer in tap.ran if layer in self.layers]
        in_order = ran == list(self.layers) or sorted(ran) != sorted(self.layers)  # tap[...] tells of a missing one
        require(in_order, "STFObjective", f"layers from low to high, {ran}", list(self.layers))
        return logits, tap

    def _apart(self, x: Tensor) -> Tensor:
        """Run the model on copies of its buffers: BatchNorm's running statistics stay as they are."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        logits: Tensor = torch.func.functional_call(self.model, buffers, (x,))
        return logits

    def _maps(
        self, x: Tensor, logits: Tensor, tap: FeatureTap, *, create_graph: bool
    ) -> tuple[dict[str, Tensor | list[Tensor]], Tensor | None]:
        """What the loss terms in use need, by their names in :class:`STFLoss`, and the predicted class's focus."""
        maps: dict[str, Tensor | list[Tensor]] = {}
        if not self.loss.uses(*self.loss.weights):
            return maps, None
        first, second = logits.detach().topk(2).indices.unbind(1)
        focus = maps["focus"] = self._focus(x, logits, tap, self.layers[-1], first, create_graph=create_graph)
        if self.loss.uses("exploration"):
            masked = mask_by_focus(x, focus.detach() if self.loss.detach_focus else focus)
            maps["masked_logits"] = self._apart(masked)
        if self.loss.uses("divergence"):
            maps["rival_focus"] = self._focus(x, logits, tap, self.layers[-1], second, create_graph=create_graph)
        if self.loss.uses("coherence"):
            maps["low_focus"] = self._focus(x, logits, tap, self.layers[-2], first, create_graph=create_graph)
        if self.loss.uses("adjacency"):
            maps["embeddings"] = [cast(tuple[Tensor, Tensor], tap.output(name))[1] for name in self.generators]
        return maps, focus

    def _focus(
        self, x: Tensor, logits: Tensor, tap: FeatureTap, layer: str, classes: Tensor, *, create_graph: bool
    ) -> Tensor:
        features = tap[layer]
        persons, rest = divmod(len(features), len(x))
        fits = rest == 0 and features.dim() == 4 and features.shape[3] == x.shape[3]
        require(fits, "STFObjective", f"layer {layer!r} to give (N*M, C, T, V={x.shape[3]})", tuple(features.shape),
                f"the batch has N={len(x)}; of selected joints, take ScatterToJoints after the layer")  # fmt: skip
        if layer == self.layers[-1] and self.head is not None and self._has_closed_form(features, logits, persons):
            weight = cast(nn.Linear, find_layer(self.model, self.head)).weight
            return linear_head_focus(features, weight, logits, classes, num_persons=persons, score=self.score)
        score = class_score(logits.float() if logits.dtype.itemsize < 4 else logits, classes, self.score)
        if layer != self.layers[-1]:
            gradient = tap.channel_gradient(score, create_graph=create_graph)
            return weigh_channels(gradient, features, num_persons=persons)
        return grad_cam(score, features, num_persons=persons, create_graph=create_graph)

    def _has_closed_form(self, features: Tensor, logits: Tensor, persons: int) -> bool:
        """Whether head(mean of the features) is the logits, found on the first batch of each mode."""
        if self.training not in self._closed_form:
            head, same = find_layer(self.model, cast(str, self.head)), False
            if isinstance(head, nn.Linear) and head.in_features == features.shape[1]:
                with torch.no_grad():
                    pooled = head(reduce(features, "(n m) c t v -> n c", "mean", m=persons))
                    scale = (logits if head.bias is None else logits - head.bias).abs().max()
                if scale == 0:  # a head that starts at zero tells nothing yet
                    return False
                tolerance = 1e-4 if logits.dtype.itemsize >= 4 else 2e-2
                same = bool((pooled - logits).abs().max() <= tolerance * scale)
            self._closed_form[self.training] = same
        return self._closed_form[self.training]
