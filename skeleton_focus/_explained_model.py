"""Run a model of any interface and find the focus of a class at its named layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._apart import call_apart
from ._axes import MAPS, ClipAxes, MapAxes, MapsOfOneBatch
from ._checks import check_choice, check_shape, message
from ._closed_form import is_pooled_linear, keeps_pooled_linear, refuse_another_order
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


class ExplainedModel(nn.Module):
    """A model, what is known about it, and the focus of a class in one run of it.

    The arguments are those of :class:`~skeleton_focus.STFObjective`, on whose behalf errors are raised.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str | nn.Module],
        *,
        head: str | nn.Module | None,
        score: str,
        axes: str | None,
        num_joints: int | None,
        maps: str | Mapping[str, str],
        project: Callable[[Tensor], Tensor] | Mapping[str, Callable[[Tensor], Tensor]] | None,
        select_logits: Callable[[Any], Tensor] | None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ValueError(message("STFObjective", "a model that is an nn.Module", type(model).__name__))
        check_choice("STFObjective", "score", score, SCORES)
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            hint = "wrap the objective instead: DistributedDataParallel(STFObjective(...))"
            raise ValueError(message("STFObjective", "a model that is not wrapped", type(model).__name__, hint))
        if isinstance(layers, str | nn.Module | None) or len(layers) == 0:
            raise ValueError(
                message("STFObjective", "a list of layers", repr(layers), "pass their names, or the modules")
            )
        self.layers = tuple(layer_name(model, layer) for layer in layers)
        modules = {find_layer(model, layer) for layer in self.layers}  # one may have several names
        if len(modules) != len(layers):
            raise ValueError(message("STFObjective", "each layer once", list(self.layers)))
        self.head = None if head is None else layer_name(model, head)
        if self.head is not None and not isinstance(find_layer(model, self.head), nn.Linear):
            kind = type(find_layer(model, self.head)).__name__
            hint = "name the linear layer that gives the logits, or pass head=None"
            raise ValueError(message("STFObjective", f"head {self.head!r} to be nn.Linear", kind, hint))
        self.model = model
        self.score = score
        self.axes = ClipAxes("STFObjective", "N C T V M" if axes is None else axes, num_joints)
        self._axes_given = axes is not None
        patterns = dict(maps) if isinstance(maps, Mapping) else dict.fromkeys(self.layers, maps)
        self._refuse_strange("maps", patterns)
        self.maps = {layer: MapAxes("STFObjective", pattern) for layer, pattern in patterns.items() if pattern != MAPS}
        self._maps_given = set(patterns) if isinstance(maps, Mapping) or maps != MAPS else set[str]()
        of_layers = list(project.values()) if isinstance(project, Mapping) else [project]
        for given in of_layers:
            if given is not None and not callable(given):
                raise ValueError(message("STFObjective", "project to be a function", type(given).__name__))
        if select_logits is not None and not callable(select_logits):
            raise ValueError(message("STFObjective", "select_logits to be a function", type(select_logits).__name__))
        if isinstance(project, Mapping):
            self._refuse_strange("project", project)
        self.project = project
        self.select_logits = select_logits
        self._lengths = _position_of_lengths(model)
        self._several_persons = False  # in the clips of this call
        self._closed_form: dict[tuple[Any, ...], bool] = {}  # by mode: dropout may stand before the head

    def _refuse_strange(self, name: str, given: Mapping[str, Any]) -> None:
        """Refuse a mapping with names that are none of the layers."""
        strange = sorted(set(given) - set(self.layers))
        if strange:
            raise ValueError(message("STFObjective", f"{name} for some of {list(self.layers)}", strange))

    def _check_clips(self, x: Tensor) -> None:
        self.axes.check(x)
        several = self.axes.to_clip(x).shape[4] > 1
        if several != self._several_persons:
            self._several_persons = several
        first = next(self.model.parameters(), x)
        if first.is_meta:
            hint = "model.to_empty(device=...) and load_state_dict() fill it"
            raise ValueError(message("STFObjective", "a model on a device that holds values", "one on 'meta'", hint))
        if not self._axes_given and x.shape[1] == x.shape[4] > 1:
            expected = "axes to be given where C and M have the same size"
            hint = "axes='N C T V M' is the default, axes='N M T V C' the order of pyskl"
            raise ValueError(message("STFObjective", expected, tuple(x.shape), hint))

    def _check_inputs(self, inputs: Sequence[Any], *, differentiates: bool) -> None:
        if not isinstance(inputs, list | tuple):
            raise ValueError(
                message("STFObjective", "inputs as a tuple, what the model takes besides x", type(inputs).__name__)
            )
        refused = differentiates and not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
        if refused:
            hint = "the focus is a gradient; torch.no_grad() will do"
            raise ValueError(message("STFObjective", "a call not under torch.inference_mode()", "one under it", hint))

    def _check_allowed(self, x: Tensor, allowed: Tensor | None) -> None:
        if allowed is not None:
            n, _, t, v, m = self.axes.to_clip(x).shape
            at_all_times = isinstance(allowed, Tensor) and allowed.dim() == 2
            axes = f"N={n}, V={v}" if at_all_times else f"N={n}, M={m}, T={t}, V={v}"
            check_shape("STFObjective", "allowed", allowed, axes)

    def _find_present(self, x: Tensor, inputs: Sequence[Any], present: Tensor | None) -> Tensor | None:
        """In which frames each person is there: (N, M, T), with M or T 1 where all are alike; None for everywhere."""
        clip = self.axes.to_clip(x)
        n, _, t, _, m = clip.shape
        if present is not None:
            check_shape("STFObjective", "present", present, f"N={n}, M={m}, T={t}")
            if present.dtype != torch.bool:
                raise ValueError(message("STFObjective", "present of torch.bool", present.dtype))
        elif m > 1:
            present = torch.count_nonzero(clip, (1, 2, 3))[..., None] > 0  # (N, M, 1)
        lengths = inputs[self._lengths] if self._lengths is not None and self._lengths < len(inputs) else None
        if isinstance(lengths, Tensor) and lengths.shape == (n,) and not lengths.is_floating_point():
            inside = (torch.arange(t, device=x.device) < lengths.to(x.device)[:, None])[:, None]  # (N, 1, T)
            present = inside if present is None else present & inside
        return present

    def _masked(
        self, x: Tensor, inputs: Sequence[Any], focus: Tensor, positions: Sequence[int]
    ) -> tuple[Tensor, list[Any]]:
        """The clip with the focus taken out, and the inputs, of which those at ``positions`` hold the clip, too."""
        masked = list(inputs)
        for i in positions:
            self.axes.check(masked[i], f"inputs[{i}]")
            masked[i] = self.axes.from_clip(mask_by_focus(self.axes.to_clip(masked[i]), focus))
        return self.axes.from_clip(mask_by_focus(self.axes.to_clip(x), focus)), masked

    def _masked_logits(self, x: Tensor, inputs: Sequence[Any]) -> Tensor:
        """The logits of another run, which leaves the model's buffers as they are."""
        with plain_sync_batch_norm(self.model):
            output = call_apart(self.model, x, *inputs)
        return self._logits(output, len(x))

    def _on_input(self, x: Tensor, focus: Tensor, present: Tensor | None) -> Tensor:
        """A focus (N, M, T', V) at the frames of x; interpolation does not reach beyond the frames that are there."""
        focus = resize_focus(focus, self.axes.to_clip(x).shape[2])
        return focus if present is None else focus.masked_fill(~present[..., None], 0)

    def _mode(self) -> tuple[Any, ...]:
        """What a verdict holds for: the training flag and dropout rate of every module, and one or several persons."""
        modules = self.model.modules()
        dropout = nn.modules.dropout._DropoutNd  # the one base of all dropout layers
        parts = tuple((m.training, m.p if isinstance(m, dropout) else None) for m in modules)
        return (self._several_persons, *parts)

    def _by_gradient(self, layers: Sequence[str]) -> list[str]:
        """Those of the layers whose focus is a gradient through what follows, so far as is known."""
        closed = self.head is not None and self._closed_form.get(self._mode(), False)
        return [layer for layer in layers if layer != self.layers[-1] or not closed]

    def _run(
        self,
        x: Tensor,
        inputs: Sequence[Any],
        explained: Sequence[str],
        also: Sequence[str] = (),
        *,
        fixed_statistics: bool = False,
    ) -> tuple[Tensor, FeatureTap, Any]:
        """The logits, what the layers (and ``also`` others) put out, and the model's output."""
        names = [*self.layers, *also] if explained else []
        axes = self._bound_maps(x) if explained else {}
        by_gradient = self._by_gradient(explained)
        closed = [] if torch.compiler.is_compiling() else [name for name in explained if name not in by_gradient]
        tap = FeatureTap(
            self.model,
            names,
            twice=by_gradient,
            axes=axes,
            with_graph=closed,
            fixed_statistics=fixed_statistics,
        )
        with tap, plain_sync_batch_norm(self.model, fixed_statistics=fixed_statistics):
            output = self.model(x, *inputs)
        logits = self._logits(output, len(x))
        ran = [layer for layer in tap.ran if layer in self.layers]
        in_order = ran == list(self.layers) or sorted(ran) != sorted(self.layers)  # tap[...] refuses a missing one
        if not in_order and names:
            raise ValueError(message("STFObjective", f"layers from low to high, {ran}", list(self.layers)))
        return logits, tap, output

    def _bound_maps(self, x: Tensor) -> dict[str, MapsOfOneBatch]:
        """The ways to our maps for a batch, for the layers that give others."""
        n, _, _, v, m = self.axes.to_clip(x).shape
        return {layer: axes.bind(layer, clips=n, persons=m, joints=v) for layer, axes in self.maps.items()}

    def _logits(self, output: Any, clips: int) -> Tensor:
        logits: Any = output if self.select_logits is None else self.select_logits(output)
        if not isinstance(logits, Tensor):
            hint = "pass select_logits, such as operator.itemgetter(0)"
            raise ValueError(message("STFObjective", "logits to be a tensor", type(logits).__name__, hint))
        check_shape("STFObjective", "logits", logits, f"N={clips}, classes")
        if logits.shape[1] < 2:
            raise ValueError(message("STFObjective", "logits of at least 2 classes", logits.shape[1]))
        return logits

    def _focus(
        self, x: Tensor, logits: Tensor, tap: FeatureTap, layer: str, classes: Tensor, present: Tensor | None, *,
        create_graph: bool, rehearsal: bool = False,
    ) -> Tensor:  # fmt: skip
        """The focus of a class at a layer (N, M, T', V), normalised."""
        n, _, _, v, m = self.axes.to_clip(x).shape
        project = self.project.get(layer) if isinstance(self.project, Mapping) else self.project
        features = self._features(x, tap, layer, any_joints=project is not None)
        persons = len(features) // n
        there = None if present is None or persons != m else present.any(2).expand(n, m)  # (N, M)
        score = class_score(logits.float() if logits.dtype.itemsize < 4 else logits, classes, self.score)
        if rehearsal and layer in tap.shifts and persons > 1:
            gradients = [tap.channel_gradient(layer, score[i : i + 1], create_graph=False) for i in range(min(n, 4))]
            refuse_another_order(gradients, n)
        if layer == self.layers[-1] and self._has_closed_form(logits, tap, persons):
            weight = cast(nn.Linear, find_layer(self.model, cast(str, self.head))).weight
            focus = linear_head_focus(features, weight, logits, classes, num_persons=persons, present=there,
                                      score=self.score, normalize=False)  # fmt: skip
        else:
            gradient = tap.channel_gradient(layer, score, create_graph=create_graph, prove=rehearsal and create_graph)
            focus = weigh_channels(gradient, features, num_persons=persons, present=there, normalize=False)
        if project is not None:
            focus = project(focus)
            check_shape("STFObjective", f"the focus that project gives of {tuple(features.shape)}", focus,
                        f"N={n}, M={m}, T', V={v}")  # fmt: skip
            if rehearsal and not bool((focus >= 0).all()):
                raise ValueError(message("STFObjective", "project to give numbers of at least 0", "others"))
        return min_max_normalize(focus, _at_frames(present, focus))

    def _features(self, x: Tensor, tap: FeatureTap, layer: str, *, any_joints: bool) -> Tensor:
        """What a layer gave, checked: (N * M, C, T', V), or of any joints and persons where a project follows."""
        features = tap[layer]
        shape = tuple(features.shape)
        n, _, t, v, m = self.axes.to_clip(x).shape
        expected = f"layer {layer!r} to give (N*M={n * m}, C, T, V={v})"
        if len(shape) != 4:
            hint = "name a layer before the pooling; of tokens, pass maps, such as maps='(N M) (T V) C'"
            raise ValueError(message("STFObjective", expected, shape, hint))
        if shape[0] % n or not (any_joints or (shape[0] == n * m and shape[3] == v)):
            hint = (
                "of other joints or persons, pass project; of selected joints, take ScatterToJoints after the layer; "
            )
            hint += "of axes in another order, pass maps"
            raise ValueError(message("STFObjective", expected, shape, hint))
        if any_joints and layer not in self._maps_given:
            _refuse_channels_last(layer, shape, frames=t, joints=v)
        return features

    def _has_closed_form(self, logits: Tensor, tap: FeatureTap, persons: int) -> bool:
        """Whether head(mean of the features) is the logits; found on the first batch of each mode, checked on all."""
        mode = self._mode()
        if self.head is None or self._closed_form.get(mode) is False:
            return False
        if torch.compiler.is_compiling():  # there is no graph to look at
            return self._closed_form[mode]
        layer = self.layers[-1]
        head = find_layer(self.model, self.head)
        verdict: bool | None
        if not isinstance(head, nn.Linear) or tap.written(layer):
            verdict = False
        elif mode not in self._closed_form:
            verdict = is_pooled_linear(head, tap[layer], tap.shifts[layer], logits, num_persons=persons)
        else:
            verdict = keeps_pooled_linear(head, cast(Tensor, tap.output(layer)), logits)
        if verdict is not None:
            self._closed_form[mode] = verdict
        return bool(verdict)


def _at_frames(present: Tensor | None, focus: Tensor) -> Tensor | None:
    """Who is there in the frames of a focus (N, M, T', V): wherever one of the input's frames that it covers counts."""
    if present is None:
        return None
    n, m, frames, _ = focus.shape
    everywhere = present.expand(n, m, present.shape[2])
    if present.shape[2] == 1:
        return everywhere.expand(n, m, frames)
    return F.adaptive_max_pool1d(everywhere.float(), frames) > 0


def _position_of_lengths(model: nn.Module) -> int | None:
    """Which of the inputs besides the clip the model's forward calls ``lengths``."""
    try:
        taken = list(inspect.signature(model.forward).parameters)[1:]
    except (TypeError, ValueError):  # a forward that is not written in Python
        return None
    return taken.index("lengths") if "lengths" in taken else None


def _refuse_channels_last(layer: str, shape: tuple[int, ...], *, frames: int, joints: int) -> None:
    """Refuse maps that look like (N * M, T, V, C) where a project could make any shape fit."""
    if shape[2] == joints and shape[3] != joints and frames % shape[1] == 0:
        expected = f"maps to say where the axes of layer {layer!r} lie, which could be (N*M, T, V={joints}, C)"
        hint = f"pass maps='(N M) T V C', or {{{layer!r}: {MAPS!r}}} where channels do come first"
        raise ValueError(message("STFObjective", expected, shape, hint))
