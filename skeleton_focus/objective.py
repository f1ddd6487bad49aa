"""STF training of any backbone: one module that runs the network, finds its focus and sums the losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ._axes import ClipAxes
from ._checks import check_choice, check_shape, require
from ._closed_form import is_pooled_linear, refuse_another_order
from ._sync_batch_norm import plain_sync_batch_norm
from .feature_tap import FeatureTap, find_layer, layer_name
from .focus import (
    SCORES,
    class_score,
    linear_head_focus,
    mask_by_focus,
    min_max_normalize,
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
    r"""Train any network with the STF losses.

    .. math:: L = L_{ce} + \lambda_e L_e + \lambda_d L_d + \lambda_c L_c + \lambda_G L_G, \qquad
        Q = \mathrm{ReLU}\Big(\sum_c w_c X_c\Big)

    The network runs as it is; its layers are tapped while it runs, and there only. The last layer's focus Q has a
    closed form where the head is global average pooling and the linear layer ``head``, which the first batch decides by
    the logits and the operations that lead to them; elsewhere it is differentiated through the head alone. An earlier
    layer's, for L_c, takes a gradient through the layers after it. The masked pass of L_e works on copies of the
    buffers, so BatchNorm's running statistics see each clip once. The first batch in each mode (training, evaluation)
    is rehearsed with all terms: that tells what cannot work; it runs on copies of the clips and buffers, and gives
    PyTorch's random numbers back.

    Shape:
        x (N, C, T, V, M), or as ``axes`` says, target (N,) -> :class:`STFOutput`.

    Args:
        model: maps x, and ``inputs`` if there are any, to logits (N, classes).
        layers: names of the layers that are explained, or the modules themselves, from low to high; equation 5 compares
            the last two, the other terms use the last. Each gives (N * M, C', T', V), persons next to each other.
        head: the linear layer after global average pooling, by name or as a module; None where there is no such layer.
        loss: terms and weights; by default the paper's focus branch.
        score: ``"log_odds"`` or ``"probability"`` of the class, see :func:`~skeleton_focus.class_score`.
        axes: where the axes of x lie: ``"N C T V M"``, ``"N M T V C"``, ``"N C T V"``, ``"N T (V C)"``, ...
        num_joints: V; needed where ``axes`` joins it with another axis.
        project: takes the focus (N, M', T', V') of layers whose joints or persons are others than the input's to
            (N, M, T', V), values of at least 0; for example ``lambda focus: focus @ membership`` of parts (V', V). A
            mapping from names of layers to such functions where it is not for all of them.
        select_logits: takes the logits out of a model's several outputs, such as ``operator.itemgetter(0)``.
        every: the STF terms are there in one training step of so many. Their weights stay as they are.
        warmup: training steps, before the first with STF terms, on the classification loss alone. A training step is a
            call with the model in training mode and gradients on.

    Raises:
        ValueError: a layer the model does not have, did not run once, or ran under ``torch.no_grad()``; layers named
            twice or not from low to high; a head that is not ``nn.Linear``; coherence with fewer than two layers, under
            torch.compile, or over layers that PyTorch does not differentiate twice; shapes that do not fit.

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

    steps: Tensor

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str | nn.Module],
        *,
        head: str | nn.Module | None = None,
        loss: STFLoss | None = None,
        score: str = "log_odds",
        axes: str = "N C T V M",
        num_joints: int | None = None,
        project: Callable[[Tensor], Tensor] | Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        select_logits: Callable[[Any], Tensor] | None = None,
        every: int = 1,
        warmup: int = 0,
    ) -> None:
        super().__init__()
        check_choice("STFObjective", "score", score, SCORES)
        wrapped = isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel)
        kind, hint = type(model).__name__, "wrap the objective instead: DistributedDataParallel(STFObjective(...))"
        require(not wrapped, "STFObjective", "a model that is not wrapped", kind, hint)
        hint = "pass their names, or the modules"
        listed = not isinstance(layers, str | nn.Module | None) and len(layers) > 0
        require(listed, "STFObjective", "a list of layers", repr(layers), hint)
        kind, hint = type(loss).__name__, "STFLoss.focus_branch() is one"
        require(loss is None or isinstance(loss, STFLoss), "STFObjective", "loss to be an STFLoss", kind, hint)
        require(isinstance(every, int) and every >= 1, "STFObjective", "a whole every of at least 1", every)
        require(isinstance(warmup, int) and warmup >= 0, "STFObjective", "whole warmup steps of at least 0", warmup)
        self.loss = loss if loss is not None else STFLoss.focus_branch()
        self.layers = tuple(layer_name(model, layer) for layer in layers)
        self._explained()  # refuses a loss that needs more layers
        require(len(set(self.layers)) == len(layers), "STFObjective", "each layer once", list(self.layers))
        self.head = None if head is None else layer_name(model, head)
        if self.head is not None:
            kind = type(find_layer(model, self.head)).__name__
            hint = "name the linear layer that gives the logits, or pass head=None"
            linear = isinstance(find_layer(model, self.head), nn.Linear)
            require(linear, "STFObjective", f"head {self.head!r} to be nn.Linear", kind, hint)
        self.model = model
        self.score = score
        self.axes = ClipAxes("STFObjective", axes, num_joints)
        self.project, self.select_logits = project, select_logits
        self.every, self.warmup = every, warmup
        self.generators = tuple(name for name, module in model.named_modules() if isinstance(module, STFAdjacency))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # counted where every or warmup need it
        of_layers = list(project.values()) if isinstance(project, Mapping) else [project]
        for name, given in (("select_logits", select_logits), *(("project", one) for one in of_layers)):
            kind = type(given).__name__
            require(given is None or callable(given), "STFObjective", f"{name} to be a function", kind)
        strange = set(project) - set(self.layers) if isinstance(project, Mapping) else set()
        require(not strange, "STFObjective", f"project for some of {list(self.layers)}", sorted(strange))
        self._rehearsed: set[tuple[Any, ...]] = set()
        self._closed_form: dict[tuple[Any, ...], bool] = {}  # by mode: dropout may stand before the head

    def forward(self, x: Tensor, target: Tensor, inputs: Sequence[Any] = ()) -> STFOutput:
        """The loss of a batch; ``inputs`` are what the model takes besides x, such as lengths."""
        self.axes.check(x)
        fits = isinstance(target, Tensor) and target.dim() > 0 and len(target) == len(x)
        require(fits, "STFObjective", f"target (N={len(x)}, ...)", tuple(getattr(target, "shape", (target,))))
        explained = self._explained()
        rehearsed = not explained or self._tried(x) in self._rehearsed
        if torch.compiler.is_compiling() and not (rehearsed and not self._by_gradient(explained)):
            return cast(STFOutput, self._uncompiled(x, target, inputs))
        self._check_inputs(inputs, differentiates=bool(explained))
        if not rehearsed:
            self._rehearse(x, target, inputs)
        return self._step(x, target, inputs, explained if self._due() else [])

    def explain(
        self,
        x: Tensor,
        classes: Tensor | None = None,
        *,
        layer: str | nn.Module | None = None,
        inputs: Sequence[Any] = (),
    ) -> tuple[Tensor, Tensor]:
        """The focus of a class for each clip, without training anything; call ``eval()`` first, or dropout takes part.

        Shape:
            x as in :meth:`forward`, classes (N,) -> focus (N, M, T, V) at the input's frames, logits (N, classes).

        Args:
            x: clips as the model takes them.
            classes: what to explain; by default the predicted classes.
            layer: which of ``layers``; by default the last.
            inputs: what the model takes besides x.

        Raises:
            ValueError: a layer that is not one of ``layers``, classes out of range, or what :meth:`forward` refuses.
        """
        self.axes.check(x)
        self._check_inputs(inputs, differentiates=True)
        name = self.layers[-1] if layer is None else layer_name(self.model, layer)
        check_choice("STFObjective", "layer", name, self.layers)
        with torch.enable_grad():
            logits, tap = self._run(x, inputs, [name], apart=True)
            chosen = logits.argmax(1) if classes is None else classes
            check_shape("STFObjective", "classes", chosen, f"N={len(x)}")
            fits = bool(((chosen >= 0) & (chosen < logits.shape[1])).all())
            got = f"{chosen.min():d} to {chosen.max():d}"
            require(fits, "STFObjective", f"classes in 0..{logits.shape[1] - 1}", got)
            focus = self._focus(x, logits, tap, name, chosen, create_graph=False, rehearsal=True)
        return resize_focus(focus.detach(), self.axes.to_clip(x).shape[2]), logits.detach()

    def extra_repr(self) -> str:
        return f"layers={list(self.layers)}, head={self.head!r}, score={self.score!r}, axes={self.axes.pattern!r}"

    def _check_inputs(self, inputs: Sequence[Any], *, differentiates: bool) -> None:
        require(isinstance(inputs, list | tuple), "STFObjective", "inputs as a tuple, what the model takes besides x",
                type(inputs).__name__)  # fmt: skip
        refused = differentiates and not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
        hint = "the focus is a gradient; torch.no_grad() will do"
        require(not refused, "STFObjective", "a call not under torch.inference_mode()", "one under it", hint)

    def _step(
        self, x: Tensor, target: Tensor, inputs: Sequence[Any], explained: Sequence[str], *, rehearsal: bool = False
    ) -> STFOutput:
        """One batch; with the STF terms where layers are explained."""
        graph = torch.is_grad_enabled()
        with torch.set_grad_enabled(graph or bool(explained)):
            logits, tap = self._run(x, inputs, explained, apart=rehearsal)
            if explained:
                maps = self._maps(x, inputs, logits, tap, create_graph=graph, rehearsal=rehearsal)
                loss, terms = self.loss(logits, target, **maps)
                focus = resize_focus(cast(Tensor, maps["focus"]).detach(), self.axes.to_clip(x).shape[2])
            else:
                loss, focus = self.loss.classification(logits, target), None
                terms = {"classification": loss}
        if not graph:
            loss, logits, terms = loss.detach(), logits.detach(), {name: term.detach() for name, term in terms.items()}
        return STFOutput(loss, logits, terms, focus)

    def _rehearse(self, x: Tensor, target: Tensor, inputs: Sequence[Any]) -> None:
        """Try a mode's first batch with all terms, on copies, with dropout's numbers given back."""
        copy = x.clone()
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            self._step(copy, target, inputs, self._explained(), rehearsal=True)
        written = self.loss.uses("exploration") and not copy.is_inference() and copy._version > 0
        hint = "let it work on a copy, since L_e masks the clip and runs it again"
        require(not written, "STFObjective", "a model that leaves its input as it is", "one that writes to it", hint)
        self._rehearsed.add(self._tried(x))

    def _tried(self, x: Tensor) -> tuple[Any, ...]:
        """What a rehearsal with this batch tells about: in one of one clip the order of persons does not show."""
        return self._mode(), torch.is_grad_enabled(), len(x) > 1

    def _mode(self) -> tuple[Any, ...]:
        """Which parts of the model train, whoever set that, and what share they drop."""
        modules = self.model.modules()
        return tuple((m.training, m.p if isinstance(m, nn.modules.dropout._DropoutNd) else None) for m in modules)

    def _due(self) -> bool:
        """Whether this batch is to have the STF terms; counts the training steps where that matters."""
        if not self._explained():
            return False
        if (self.every == 1 and self.warmup == 0) or not (self.model.training and torch.is_grad_enabled()):
            return True
        late = int(self.steps) - self.warmup
        self.steps += 1
        return late >= 0 and late % self.every == 0

    def _explained(self) -> list[str]:
        """The layers whose focus the loss needs."""
        if not self.loss.uses(*self.loss.weights):
            return []
        if not self.loss.uses("coherence"):
            return [self.layers[-1]]
        hint = "name the layer before the last one too, or set coherence=0"
        require(len(self.layers) >= 2, "STFObjective", "two layers for the coherence term", list(self.layers), hint)
        return list(self.layers[-2:])

    def _by_gradient(self, layers: Sequence[str]) -> list[str]:
        """Those of the layers whose focus is a gradient through what follows, so far as is known."""
        closed = self.head is not None and self._closed_form.get(self._mode(), False)
        return [layer for layer in layers if layer != self.layers[-1] or not closed]

    @torch.compiler.disable(  # type: ignore[no-untyped-call, untyped-decorator]
        reason="STFObjective runs its first batch, and focus by gradients, outside torch.compile"
    )
    def _uncompiled(self, x: Tensor, target: Tensor, inputs: Sequence[Any]) -> STFOutput:
        known = self.head is None or self._mode() in self._closed_form
        layers = self._by_gradient(self._explained()) if known else self._explained()[:-1]
        hint = f"compile the blocks below {layers[0]!r} instead, or take the term out" if layers else ""
        got = f"layers {layers}, whose focus needs a gradient of a gradient"
        require(not layers, "STFObjective", "focus in closed form under torch.compile", got, hint)
        return self(x, target, inputs)  # type: ignore[no-any-return]

    def _run(
        self, x: Tensor, inputs: Sequence[Any], explained: Sequence[str], *, apart: bool = False
    ) -> tuple[Tensor, FeatureTap]:
        """The logits and what the layers put out; ``apart``: on copies of the buffers."""
        generators = self.generators if self.loss.uses("adjacency") else ()
        names = [*self.layers, *generators] if explained else []
        with FeatureTap(self.model, names, twice=self._by_gradient(explained)) as tap:
            logits = self._logits(x, inputs, apart=apart)
        ran = [layer for layer in tap.ran if layer in self.layers]
        in_order = ran == list(self.layers) or sorted(ran) != sorted(self.layers)  # tap[...] tells of a missing one
        require(in_order or not names, "STFObjective", f"layers from low to high, {ran}", list(self.layers))
        return logits, tap

    def _logits(self, x: Tensor, inputs: Sequence[Any], *, apart: bool) -> Tensor:
        """``apart``: run the model on copies of its buffers, BatchNorm's running statistics stay as they are."""
        with plain_sync_batch_norm(self.model):
            if apart:
                buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
                output = torch.func.functional_call(self.model, buffers, (x, *inputs))
            else:
                output = self.model(x, *inputs)
        logits: Any = output if self.select_logits is None else self.select_logits(output)
        hint = "pass select_logits, such as operator.itemgetter(0)"
        require(isinstance(logits, Tensor), "STFObjective", "logits to be a tensor", type(logits).__name__, hint)
        check_shape("STFObjective", "logits", logits, f"N={len(x)}, classes")
        require(logits.shape[1] >= 2, "STFObjective", "logits of at least 2 classes", logits.shape[1])
        return cast(Tensor, logits)

    def _maps(
        self, x: Tensor, inputs: Sequence[Any], logits: Tensor, tap: FeatureTap, *, create_graph: bool, rehearsal: bool
    ) -> dict[str, Tensor | list[Tensor]]:
        """What the loss terms in use need, by their names in :class:`STFLoss`."""
        maps: dict[str, Tensor | list[Tensor]] = {}
        find = partial(self._focus, x, logits, tap, create_graph=create_graph, rehearsal=rehearsal)
        first, second = logits.detach().topk(2).indices.unbind(1)
        focus = maps["focus"] = find(self.layers[-1], first)
        if self.loss.uses("exploration"):
            masking, maps["focus"] = self.loss.separate(focus)
            clip = mask_by_focus(self.axes.to_clip(x), masking)
            maps["masked_logits"] = self._logits(self.axes.from_clip(clip), inputs, apart=True)
        if self.loss.uses("divergence"):
            maps["rival_focus"] = find(self.layers[-1], second)
        if self.loss.uses("coherence"):
            maps["low_focus"] = find(self.layers[-2], first)
        if self.loss.uses("adjacency"):
            maps["embeddings"] = [cast(tuple[Tensor, Tensor], tap.output(name))[1] for name in self.generators]
        return maps

    def _focus(
        self, x: Tensor, logits: Tensor, tap: FeatureTap, layer: str, classes: Tensor, *, create_graph: bool,
        rehearsal: bool = False,
    ) -> Tensor:  # fmt: skip
        """The focus of a class at a layer (N, M, T', V), normalised."""
        features, (n, _, _, v, m) = tap[layer], self.axes.to_clip(x).shape
        project = self.project.get(layer) if isinstance(self.project, Mapping) else self.project
        fits = features.dim() == 4 and len(features) % n == 0
        fits = fits and (project is not None or (len(features) == n * m and features.shape[3] == v))
        expected = f"layer {layer!r} to give (N*M={n * m}, C, T, V={v})"
        hint = "of other joints or persons, pass project; of selected joints, take ScatterToJoints after the layer"
        hint = hint if features.dim() == 4 else "name a layer before the pooling"
        require(fits, "STFObjective", expected, tuple(features.shape), hint)
        persons = len(features) // n
        score = class_score(logits.float() if logits.dtype.itemsize < 4 else logits, classes, self.score)
        if rehearsal and layer in tap.shifts:
            refuse_another_order(tap.channel_gradient(layer, score[:1], create_graph=False), n)
        if layer == self.layers[-1] and self._has_closed_form(logits, tap, persons):
            weight = cast(nn.Linear, find_layer(self.model, cast(str, self.head))).weight
            focus = linear_head_focus(features, weight, logits, classes, num_persons=persons, score=self.score,
                                      normalize=False)  # fmt: skip
        else:
            gradient = tap.channel_gradient(layer, score, create_graph=create_graph, prove=rehearsal and create_graph)
            focus = weigh_channels(gradient, features, num_persons=persons, normalize=False)
        if project is not None:
            focus = project(focus)
            check_shape("STFObjective", f"the focus that project gives of {tuple(features.shape)}", focus,
                        f"N={n}, M={m}, T', V={v}")  # fmt: skip
            require(not rehearsal or bool((focus >= 0).all()), "STFObjective", "project to give numbers of at least 0",
                    "others")  # fmt: skip
        return min_max_normalize(focus)

    def _has_closed_form(self, logits: Tensor, tap: FeatureTap, persons: int) -> bool:
        """Whether head(mean of the features) is the logits, found on the first batch of each mode."""
        mode = self._mode()
        if self.head is None or mode in self._closed_form:
            return self._closed_form.get(mode, False)
        layer, head = self.layers[-1], cast(nn.Linear, find_layer(self.model, self.head))
        told = is_pooled_linear(head, tap[layer], tap.shifts[layer], logits, num_persons=persons)
        if told is not None:
            self._closed_form[mode] = told
        return bool(told)
