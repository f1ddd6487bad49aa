"""Train any backbone with STF: run the network, compute its focus and sum the losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ._axes import MAPS
from ._checks import check_choice, check_classes, check_shape, message
from ._explained_model import ExplainedModel
from ._isolated import each_tensor, isolated
from .feature_tap import FeatureTap, layer_name
from .focus import draw_erased, top_two
from .losses import STFLoss
from .stf import STFAdjacency

__all__ = ["STFObjective", "STFOutput"]


class STFOutput(NamedTuple):
    """The output of :class:`STFObjective`.

    Attributes:
        loss: () to call ``backward()`` on.
        logits: (N, classes) for the input, after erasing if it is used.
        terms: one () for each loss term in use, before its weight.
        focus: (N, M, T, V) of the predicted class, detached, at the input's frames; None if no term
            needed it.
        output: the model's return value before ``select_logits``, for the model's own losses.
    """

    loss: Tensor
    logits: Tensor
    terms: dict[str, Tensor]
    focus: Tensor | None
    output: Any


class STFObjective(ExplainedModel):
    r"""Train any network with the STF losses.

    .. math:: L = L_{ce} + \lambda_e L_e + \lambda_d L_d + \lambda_c L_c + \lambda_G L_G
        + \lambda_g L_g, \qquad Q = \mathrm{ReLU}\Big(\sum_c w_c X_c\Big)

    The network is not modified; its layers are tapped only while it runs. The last layer's focus Q
    has a closed form if the head is global average pooling followed by the linear layer ``head``.
    The objective compares values on the first batch and checks on every batch which operations lead
    to the logits. If the head has another form, the focus is the gradient through the part of the
    network after the layer. The focus of an earlier layer, for L_c, is a gradient through the
    layers after it. The masked pass of L_e uses copies of the buffers and of the modules'
    attributes, so BatchNorm's running statistics see each clip once. The first batch in each mode
    (training, evaluation) runs once more with all terms, so that errors surface early (dry run).
    The dry run also uses copies and restores PyTorch's random state.

    Absent persons, whose values in x are all zero, have no focus and are excluded from the mean
    over persons. If the model's ``forward`` has an argument ``lengths`` and ``inputs`` holds it,
    frames beyond a clip's length have no focus either.

    With ``erasing``, a training step first computes the focus of the labelled classes, without
    training anything. Each labelled clip is chosen with that probability, and a chosen clip loses
    joint v of person m in all its frames with the probability

    .. math:: u \, \bar Q_{mv} / \max_{m'v'} \bar Q_{m'v'},
        \qquad \bar Q_{mv} = \frac{1}{T} \sum_t Q_{mtv}, \quad u \sim U(0, 1),

    so that the network learns to recognise the class from other evidence. The loss is computed on
    the batch that contains the erased clips, so BatchNorm's statistics cover whole and erased
    clips.

    Shape:
        x (N, C, T, V, M), or as ``axes`` says, target (N,) -> :class:`STFOutput`.

    Args:
        model: maps x, and ``inputs`` if there are any, to logits (N, classes).
        layers: the layers to explain, by name or as modules, from low to high; equation 5 compares
            the last two, the other terms use the last. Each returns (N * M, C', T', V), persons
            next to each other, or as ``maps`` says.
        head: the linear layer after global average pooling, by name or as a module; None if there
            is no such layer.
        loss: terms and weights; by default the paper's focus branch.
        score: ``"logit"``, ``"log_odds"`` or ``"probability"`` of the class, see
            :func:`~skeleton_focus.focus.class_score`.
        axes: order of the axes of x: ``"N C T V M"`` (default), ``"N M T V C"``, ``"N C T V"``,
            ``"N T (V C)"``, ... Required if x has as many channels as persons, two or more, because
            its layout is then ambiguous.
        num_joints: V; needed if ``axes`` joins it with another axis.
        maps: order of the axes of the layers' outputs: ``"(N M) C T V"`` (default),
            ``"(N M) T V C"``, ``"(M N) C T V"``, ``"(N M) (T V) C"`` for tokens, ... If the layers
            differ, a mapping from layer names to such patterns.
        project: maps the focus (N, M', T', V') of layers whose joints or persons differ from the
            input's to (N, M, T', V), with values of at least 0; for example
            ``lambda focus: focus @ membership`` for parts (V', V). If it applies to some layers
            only, a mapping from layer names to such functions.
        select_logits: selects the logits from a model's several outputs, such as
            ``operator.itemgetter(0)``.
        mask_inputs: positions in ``inputs`` of further tensors that hold the clip, in the layout of
            ``axes``; L_e and erasing mask them like x. Required if an input has the clip's shape;
            ``()`` masks none.
        erasing: probability, 0 to 1, that a training clip loses joints before the step, most often
            those of high focus; see above.
        every: apply the STF terms, and erasing, every ``every`` training steps. The terms' weights
            do not change.
        warmup: number of training steps with the classification loss alone, before STF terms and
            erasing start. A training step is a call with the model in training mode and gradients
            enabled.

    Raises:
        ValueError: a layer that the model does not have, that did not run exactly once, or that ran
            under ``torch.no_grad()``; layers named twice or not from low to high; a head that is
            not ``nn.Linear``; coherence with fewer than two layers, under torch.compile, or over
            layers that PyTorch cannot differentiate twice; persons folded as (M, N); an ambiguous
            layout; an input of the clip's shape without ``mask_inputs``; mismatched shapes.

    Example:
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.low, self.high = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        ...         self.fc = nn.Linear(8, 5)
        ...     def forward(self, x):
        ...         n, c, t, v, m = x.shape
        ...         x = x.permute(0, 4, 1, 2, 3).reshape(n * m, c, t, v)
        ...         x = self.high(self.low(x).relu())
        ...         return self.fc(x.view(n, m, 8, t * v).mean((1, 3)))
        >>> loss = STFLoss.focus_branch()
        >>> objective = STFObjective(Net(), layers=["low", "high"], head="fc", loss=loss)
        >>> out = objective(torch.randn(4, 3, 6, 25, 2), torch.tensor([0, 1, 2, 3]))
        >>> out.loss.backward()
        >>> out.logits.shape, out.focus.shape
        (torch.Size([4, 5]), torch.Size([4, 2, 6, 25]))
        >>> sorted(out.terms)
        ['classification', 'coherence', 'divergence']

    Reference:
        STF (Ke et al., AAAI 2022), equations 2 to 6; erasing after Wei et al. (CVPR 2017), who
        erase image regions.
    """

    steps: Tensor

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str | nn.Module],
        *,
        head: str | nn.Module | None = None,
        loss: STFLoss | None = None,
        score: str = "logit",
        axes: str | None = None,
        num_joints: int | None = None,
        maps: str | Mapping[str, str] = MAPS,
        project: Callable[[Tensor], Tensor]
        | Mapping[str, Callable[[Tensor], Tensor]]
        | None = None,
        select_logits: Callable[[Any], Tensor] | None = None,
        mask_inputs: Sequence[int] | None = None,
        erasing: float = 0.0,
        every: int = 1,
        warmup: int = 0,
    ) -> None:
        super().__init__(
            model,
            layers,
            head=head,
            score=score,
            axes=axes,
            num_joints=num_joints,
            maps=maps,
            project=project,
            select_logits=select_logits,
        )
        if loss is not None and not isinstance(loss, STFLoss):
            hint = "STFLoss.focus_branch() is one"
            raise ValueError(
                message("STFObjective", "loss to be an STFLoss", type(loss).__name__, hint)
            )
        if not 0 <= erasing <= 1:
            raise ValueError(message("STFObjective", "erasing in 0..1", erasing))
        if not isinstance(every, int) or every < 1:
            raise ValueError(message("STFObjective", "every as an integer of at least 1", every))
        if not isinstance(warmup, int) or warmup < 0:
            raise ValueError(message("STFObjective", "warmup as an integer of at least 0", warmup))
        listed = mask_inputs is None or isinstance(mask_inputs, list | tuple)
        if not listed or not all(isinstance(i, int) and i >= 0 for i in mask_inputs or ()):
            raise ValueError(
                message("STFObjective", "mask_inputs as positions in inputs, from 0", mask_inputs)
            )
        self.loss = loss if loss is not None else STFLoss.focus_branch()
        self.erasing = erasing
        self._explained_layers()  # raises if the loss needs more layers
        self.mask_inputs = None if mask_inputs is None else tuple(mask_inputs)
        self.every = every
        self.warmup = warmup
        # L_G compares the focus with the embeddings of every STFAdjacency, wherever it lies.
        self.generators = tuple(
            name for name, module in model.named_modules() if isinstance(module, STFAdjacency)
        )
        # Counted if every or warmup need it. ``_counted`` is the buffer's value, read only once
        # because reading it stalls a GPU.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._counted: int | None = None
        self._rehearsed: set[tuple[Any, ...]] = set()

    def forward(
        self,
        x: Tensor,
        target: Tensor,
        inputs: Sequence[Any] = (),
        *,
        present: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> STFOutput:
        """Compute the loss of a batch.

        Args:
            x: clips in the layout that the model takes.
            target: labels (N,), or what ``loss.classification`` takes.
            inputs: the model's other inputs, such as lengths.
            present: (N, M, T) bool, in which frames each person is present; by default, persons
                with all values zero are absent, and so are frames beyond ``lengths``.
            allowed: (N, M, T, V), or (N, V) for the same joints in all frames, where the guidance
                term allows focus in each clip; by default the loss's table.
        """
        self._check_clips(x)
        self.loss.check_target(target, len(x))
        explained = self._explained_layers()
        rehearsed = not explained or self._dry_run_key(x) in self._rehearsed
        # The dry run reads values, and the other focus calls autograd: neither can be traced.
        if torch.compiler.is_compiling():
            traceable = rehearsed and not self._by_gradient(self._layers_in_terms())
            if not traceable:
                from ._uncompiled import run_first_batch

                arguments = (x, target, inputs, present, allowed)
                return cast(STFOutput, run_first_batch(self._uncompiled, *arguments))
        self._check_inputs(inputs, differentiates=bool(explained))
        self._check_masked(x, inputs)
        self._check_allowed(x, allowed)
        # Found before erasing: a person who loses all joints is still present.
        presence = self._find_present(x, inputs, present) if explained else None
        # Before ``warmup`` is looked at, so that errors of later terms surface in the first batch.
        if not rehearsed:
            self._dry_run(x, target, inputs, presence, allowed)
        apply_terms = self._terms_apply()
        if apply_terms and self.erasing and self.model.training and torch.is_grad_enabled():
            if torch.compiler.is_compiling():
                from ._uncompiled import erase

                x, inputs = erase(self._erase, x, target, inputs, present)
            else:
                x, inputs = self._erase(x, target, inputs, present)
        return self._step(
            x, target, inputs, self._layers_in_terms() if apply_terms else [], presence, allowed
        )

    def explain(
        self,
        x: Tensor,
        classes: Tensor | None = None,
        *,
        layer: str | nn.Module | None = None,
        inputs: Sequence[Any] = (),
        present: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the focus of a class for each clip, without training.

        Call ``eval()`` first to disable dropout. The layers up to the explained one run under
        ``torch.no_grad()``.

        Shape:
            x as in :meth:`forward`, classes (N,) -> focus (N, M, T, V) at the input's frames,
            logits (N, classes).

        Args:
            x: clips in the layout that the model takes.
            classes: the classes to explain; by default the predicted ones.
            layer: one of ``layers``; by default the last.
            inputs: the model's other inputs.
            present: as in :meth:`forward`.

        Raises:
            ValueError: a layer that is not one of ``layers``, classes out of range, or as in
                :meth:`forward`.
        """
        self._check_clips(x)
        self._check_inputs(inputs, differentiates=True)
        name = self.layers[-1] if layer is None else layer_name(self.model, layer)
        check_choice("STFObjective", "layer", name, self.layers)
        present = self._find_present(x, inputs, present)
        # In training mode, explaining must not move BatchNorm's running statistics.
        with isolated(self.model):
            with torch.no_grad():  # below the layer, a graph would only take memory
                logits, tap, _ = self._run(x, inputs, [name], graph_above=name)
            with torch.enable_grad():
                if not logits.requires_grad:  # the model switches gradients off and on itself
                    logits, tap, _ = self._run(x, inputs, [name])
                chosen = logits.argmax(1) if classes is None else classes
                check_shape("STFObjective", "classes", chosen, f"N={len(x)}")
                check_classes("STFObjective", chosen, logits.shape[1])
                # Only the first call reads values back, for its checks: reading stalls a GPU.
                first = (name, *self._dry_run_key(x)) not in self._rehearsed
                focus = self._focus(
                    x, logits, tap, name, chosen, present, create_graph=False, rehearsal=first
                )
                self._rehearsed.add((name, *self._dry_run_key(x)))
        return self._on_input(x, focus.detach(), present), logits.detach()

    def extra_repr(self) -> str:
        names = f"layers={list(self.layers)}, head={self.head!r}"
        return f"{names}, score={self.score!r}, axes={self.axes.pattern!r}"

    def _step(
        self,
        x: Tensor,
        target: Tensor,
        inputs: Sequence[Any],
        explained: Sequence[str],
        present: Tensor | None,
        allowed: Tensor | None,
        *,
        rehearsal: bool = False,
    ) -> STFOutput:
        """Run one batch, with the STF terms if layers are explained."""
        graph = torch.is_grad_enabled()
        # The focus is a gradient, so validation under no_grad needs the graph too; it is cut below.
        with torch.set_grad_enabled(graph or bool(explained)):
            also = self.generators if self.loss.uses("adjacency") else ()
            logits, tap, output = self._run(x, inputs, explained, also, fixed_statistics=rehearsal)
            if explained:
                maps = self._maps(
                    x, target, inputs, logits, tap, present, create_graph=graph, rehearsal=rehearsal
                )
                loss, terms = self.loss(logits, target, allowed=allowed, **maps)
                focus = self._on_input(x, cast(Tensor, maps["focus"]).detach(), present)
            else:
                focus = None
                loss = self.loss.classification(logits, target)
                terms = {"classification": loss}
        result = STFOutput(loss, logits, terms, focus, output)
        return result if graph else each_tensor(result, torch.detach)

    def _dry_run(
        self,
        x: Tensor,
        target: Tensor,
        inputs: Sequence[Any],
        present: Tensor | None,
        allowed: Tensor | None,
    ) -> None:
        """Run a mode's first batch with all terms, on copies, and restore the random state."""
        # Clones start at version 0, which shows whether the model writes to its inputs.
        copies = each_tensor((x, *inputs), torch.clone)
        with torch.random.fork_rng([x.device] if x.is_cuda else []), isolated(self.model):
            self._step(
                copies[0],
                target,
                copies[1:],
                self._explained_layers(),
                present,
                allowed,
                rehearsal=True,
            )
        masked = [copies[0], *(copies[1 + i] for i in self.mask_inputs or ())]
        # Tensors made in inference mode count no versions.
        written = any(not clip.is_inference() and clip._version > 0 for clip in masked)
        if written and (self.erasing or self.loss.uses("exploration")):
            hint = (
                "clone the input in the model, "
                "because L_e or erasing masks the clip and runs it again"
            )
            expected = "a model that does not modify its input"
            raise ValueError(message("STFObjective", expected, "one that writes to it", hint))
        self._rehearsed.add(self._dry_run_key(x))

    def _dry_run_key(self, x: Tensor) -> tuple[Any, ...]:
        """Return the mode that a dry run of this batch covers.

        A batch of one clip cannot reveal the order of persons.
        """
        return self._mode(), torch.is_grad_enabled(), len(x) > 1

    def _terms_apply(self) -> bool:
        """Decide whether this batch uses the STF terms; count training steps if that needs it."""
        if not self._explained_layers():
            return False
        always = self.every == 1 and self.warmup == 0
        if always or not (self.model.training and torch.is_grad_enabled()):
            return True
        if torch.compiler.is_compiling():
            from ._uncompiled import count_step

            step = count_step(self._count_step)
        else:
            step = self._count_step()
        since_warmup: int = step - self.warmup
        return since_warmup >= 0 and since_warmup % self.every == 0

    def _count_step(self) -> int:
        """Count this training step and return the number of steps before it."""
        if self._counted is None:
            self._counted = int(self.steps)
        self._counted += 1
        self.steps += 1
        return self._counted - 1

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        # The loaded number of steps replaces the copy.
        self._counted = None
        super()._load_from_state_dict(*arguments, **options)

    def _explained_layers(self) -> list[str]:
        """The layers whose focus the loss or erasing needs."""
        if not (self.erasing or self.loss.uses(*self.loss.weights)):
            return []
        if not self.loss.uses("coherence"):
            return [self.layers[-1]]
        if len(self.layers) < 2:
            hint = (
                "name the layer before the last one too, or pass loss=STFLoss(coherence=0); "
                "only to explain, loss=STFLoss.plain()"
            )
            raise ValueError(
                message(
                    "STFObjective", "two layers for the coherence term", list(self.layers), hint
                )
            )
        return list(self.layers[-2:])

    def _layers_in_terms(self) -> list[str]:
        """List the layers whose focus enters the loss.

        Focus for erasing alone needs no second derivative.
        """
        return self._explained_layers() if self.loss.uses(*self.loss.weights) else []

    def _uncompiled(
        self,
        x: Tensor,
        target: Tensor,
        inputs: Sequence[Any],
        present: Tensor | None,
        allowed: Tensor | None,
    ) -> STFOutput:
        # Until the first batch decides, the last layer may still turn out to have a closed form.
        decided = self.head is None or self._mode() in self._closed_form
        layers = self._layers_in_terms()
        layers = self._by_gradient(layers) if decided else layers[:-1]
        if layers:
            hint = f"compile the blocks below {layers[0]!r} instead, or leave out the term"
            got = f"layers {layers}, whose focus needs second derivatives"
            raise ValueError(
                message("STFObjective", "focus in closed form under torch.compile", got, hint)
            )
        return self(x, target, inputs, present=present, allowed=allowed)  # type: ignore[no-any-return]

    def _erase(
        self, x: Tensor, target: Tensor, inputs: Sequence[Any], present: Tensor | None
    ) -> tuple[Tensor, Sequence[Any]]:
        """Erase joints of some clips, with probabilities proportional to their mean focus."""
        label, known = self.loss.labels(target)
        focus, _ = self.explain(x, label, inputs=inputs, present=present)
        focus = focus * known[:, None, None, None]  # clips without a label are not erased
        return self._masked(x, inputs, draw_erased(focus, self.erasing), self.mask_inputs or ())

    def _check_masked(self, x: Tensor, inputs: Sequence[Any]) -> None:
        """Raise for positions beyond the inputs, and for an input that may hold the clip.

        Such an input has the clip's shape while ``mask_inputs`` is None.
        """
        for i in self.mask_inputs or ():
            if i >= len(inputs):
                raise ValueError(
                    message("STFObjective", f"mask_inputs within the {len(inputs)} inputs", i)
                )
        if self.mask_inputs is not None or not (self.erasing or self.loss.uses("exploration")):
            return
        # An unmasked copy of the clip would let the network see what L_e and erasing hide.
        for i, value in enumerate(inputs):
            if isinstance(value, Tensor) and self.axes.are_alike(value, x):
                hint = f"pass mask_inputs=({i},), or () if it does not hold the clip"
                expected = (
                    f"mask_inputs to say whether to mask inputs[{i}], which has the shape of a clip"
                )
                raise ValueError(message("STFObjective", expected, tuple(value.shape), hint))

    def _maps(
        self,
        x: Tensor,
        target: Tensor,
        inputs: Sequence[Any],
        logits: Tensor,
        tap: FeatureTap,
        present: Tensor | None,
        *,
        create_graph: bool,
        rehearsal: bool,
    ) -> dict[str, Tensor | list[Tensor]]:
        """The arguments that the loss terms in use need, by their names in :class:`STFLoss`."""
        maps: dict[str, Tensor | list[Tensor]] = {}
        focus_at = partial(
            self._focus, x, logits, tap, create_graph=create_graph, rehearsal=rehearsal
        )
        # The loss gets the class with its map: with tied scores, another argmax could differ.
        first, second = top_two(logits.detach())
        maps["classes"] = first
        focus = maps["focus"] = focus_at(self.layers[-1], first, present)
        if self.loss.uses("exploration"):
            # Masked by the focus as it is returned, without absent persons and padded frames.
            covered = self._on_input(x, focus, present)
            maps["masked_logits"] = self._masked_logits(
                *self._masked(x, inputs, covered, self.mask_inputs or ())
            )
        if self.loss.uses("divergence"):
            maps["rival_focus"] = focus_at(self.layers[-1], second, present)
        if self.loss.uses("coherence"):
            maps["low_focus"] = focus_at(self.layers[-2], first, present)
        if self.loss.uses("guidance"):
            labels, _ = self.loss.labels(target)
            maps["label_focus"] = focus_at(self.layers[-1], labels, present)
        if self.loss.uses("adjacency"):
            embeddings = [
                cast(tuple[Tensor, Tensor], tap.output(name))[1] for name in self.generators
            ]
            # If the layer folds persons as (M, N), so do the embeddings; the focus has clips first.
            axes = self._bound_maps(x).get(self.layers[-1])
            maps["embeddings"] = (
                embeddings if axes is None else [axes.to_rows(rows) for rows in embeddings]
            )
        return maps
