"""Run a model of any interface and compute the focus of a class at its named layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._axes import MAPS, ClipAxes, MapAxes, MapsOfOneBatch
from ._checks import check_choice, check_shape, message
from ._closed_form import is_pooled_linear, keeps_pooled_linear, refuse_another_order
from ._isolated import call_isolated
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
    """A model, its verified properties, and the focus of a class in one run.

    The arguments are those of :class:`~skeleton_focus.STFObjective`, which error messages name.
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
            raise ValueError(
                message("STFObjective", "a model that is an nn.Module", type(model).__name__)
            )
        check_choice("STFObjective", "score", score, SCORES)
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            hint = "wrap the objective instead: DistributedDataParallel(STFObjective(...))"
            raise ValueError(
                message("STFObjective", "a model that is not wrapped", type(model).__name__, hint)
            )
        if isinstance(layers, str | nn.Module | None) or len(layers) == 0:
            raise ValueError(
                message(
                    "STFObjective",
                    "a list of layers",
                    repr(layers),
                    "pass their names, or the modules",
                )
            )
        self.layers = tuple(layer_name(model, layer) for layer in layers)
        # Modules are compared, because one module may have several names.
        modules = {find_layer(model, layer) for layer in self.layers}
        if len(modules) != len(layers):
            raise ValueError(message("STFObjective", "each layer once", list(self.layers)))
        self.head = None if head is None else layer_name(model, head)
        if self.head is not None and not isinstance(find_layer(model, self.head), nn.Linear):
            kind = type(find_layer(model, self.head)).__name__
            hint = "name the linear layer that gives the logits, or pass head=None"
            raise ValueError(
                message("STFObjective", f"head {self.head!r} to be nn.Linear", kind, hint)
            )
        self.model = model
        self.score = score
        self.axes = ClipAxes("STFObjective", "N C T V M" if axes is None else axes, num_joints)
        self._axes_given = axes is not None
        patterns = dict(maps) if isinstance(maps, Mapping) else dict.fromkeys(self.layers, maps)
        self._check_layer_names("maps", patterns)
        self.maps = {
            layer: MapAxes("STFObjective", pattern)
            for layer, pattern in patterns.items()
            if pattern != MAPS
        }
        # Only a layout that the user states spares a map the check for channels last.
        self._maps_given = (
            set(patterns) if isinstance(maps, Mapping) or maps != MAPS else set[str]()
        )
        projects = list(project.values()) if isinstance(project, Mapping) else [project]
        for given in projects:
            if given is not None and not callable(given):
                raise ValueError(
                    message("STFObjective", "project to be a function", type(given).__name__)
                )
        if select_logits is not None and not callable(select_logits):
            raise ValueError(
                message(
                    "STFObjective", "select_logits to be a function", type(select_logits).__name__
                )
            )
        if isinstance(project, Mapping):
            self._check_layer_names("project", project)
        self.project = project
        self.select_logits = select_logits
        self._lengths = _position_of_lengths(model)
        # Whether this call's clips have several persons; part of the mode, see _mode.
        self._several_persons = False
        # By mode, because dropout may precede the head.
        self._closed_form: dict[tuple[Any, ...], bool] = {}

    def _check_layer_names(self, name: str, given: Mapping[str, Any]) -> None:
        """Raise for a mapping with names that are not among the layers."""
        unknown = sorted(set(given) - set(self.layers))
        if unknown:
            raise ValueError(
                message("STFObjective", f"{name} for layers among {list(self.layers)}", unknown)
            )

    def _check_clips(self, x: Tensor) -> None:
        self.axes.check(x)
        several = self.axes.to_clip(x).shape[4] > 1
        if several != self._several_persons:
            self._several_persons = several
        first, *_ = *self.model.parameters(), x  # PyTorch 2.4 compiles no next() with a default
        if first.is_meta:
            hint = "model.to_empty(device=...) and load_state_dict() fill it"
            raise ValueError(
                message(
                    "STFObjective", "a model on a device that holds values", "one on 'meta'", hint
                )
            )
        # Equal sizes would let a clip in pyskl's order pass every check and be masked along C.
        if not self._axes_given and x.shape[1] == x.shape[4] > 1:
            expected = "axes, because C and M have the same size"
            hint = "axes='N C T V M' is the default, axes='N M T V C' the order of pyskl"
            raise ValueError(message("STFObjective", expected, tuple(x.shape), hint))

    def _check_inputs(self, inputs: Sequence[Any], *, differentiates: bool) -> None:
        if not isinstance(inputs, list | tuple):
            raise ValueError(
                message(
                    "STFObjective",
                    "inputs as a tuple of the model's inputs besides x",
                    type(inputs).__name__,
                )
            )
        # torch.compile cannot trace the question, and its graph break is fundamental (torch 2.13).
        in_inference_mode = not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()
        if differentiates and in_inference_mode:
            hint = "the focus is a gradient; use torch.no_grad() instead"
            raise ValueError(
                message(
                    "STFObjective", "a call outside torch.inference_mode()", "one inside it", hint
                )
            )

    def _check_allowed(self, x: Tensor, allowed: Tensor | None) -> None:
        if allowed is not None:
            n, _, t, v, m = self.axes.to_clip(x).shape
            same_in_all_frames = isinstance(allowed, Tensor) and allowed.dim() == 2
            axes = f"N={n}, V={v}" if same_in_all_frames else f"N={n}, M={m}, T={t}, V={v}"
            check_shape("STFObjective", "allowed", allowed, axes)

    def _find_present(
        self, x: Tensor, inputs: Sequence[Any], present: Tensor | None
    ) -> Tensor | None:
        """Find the frames in which each person is present, (N, M, T); None: all in all frames.

        M or T may be 1, to broadcast.
        """
        clip = self.axes.to_clip(x)
        n, _, t, _, m = clip.shape
        if present is not None:
            check_shape("STFObjective", "present", present, f"N={n}, M={m}, T={t}")
            if present.dtype != torch.bool:
                raise ValueError(
                    message("STFObjective", "present with dtype torch.bool", present.dtype)
                )
        elif m > 1:
            present = torch.count_nonzero(clip, (1, 2, 3))[..., None] > 0  # (N, M, 1)
        lengths: Any = None
        if self._lengths is not None and self._lengths < len(inputs):
            lengths = inputs[self._lengths]
        # Floating-point lengths are fractions of T in some networks, and no counts of frames.
        counted = isinstance(lengths, Tensor) and not lengths.is_floating_point()
        if counted and lengths.shape == (n,):
            ends = lengths.to(x.device)[:, None, None]
            inside = torch.arange(t, device=x.device) < ends  # (N, 1, T)
            present = inside if present is None else present & inside
        return present

    def _masked(
        self, x: Tensor, inputs: Sequence[Any], focus: Tensor, positions: Sequence[int]
    ) -> tuple[Tensor, list[Any]]:
        """Mask the clip by the focus, and also the inputs at ``positions``, which hold it too."""
        masked = list(inputs)
        for i in positions:
            self.axes.check(masked[i], f"inputs[{i}]")
            masked[i] = self.axes.from_clip(mask_by_focus(self.axes.to_clip(masked[i]), focus))
        return self.axes.from_clip(mask_by_focus(self.axes.to_clip(x), focus)), masked

    def _masked_logits(self, x: Tensor, inputs: Sequence[Any]) -> Tensor:
        """The logits of another run, which does not change the model's buffers."""
        # As in the first pass: PyTorch's own SyncBatchNorm would not run on a CPU.
        with plain_sync_batch_norm(self.model):
            output = call_isolated(self.model, x, *inputs)
        return self._logits(output, len(x))

    def _on_input(self, x: Tensor, focus: Tensor, present: Tensor | None) -> Tensor:
        """Resize a focus (N, M, T', V) to the frames of x, with zeros where a person is absent."""
        # Interpolation reaches beyond the last true frame, so the mask comes after it.
        focus = resize_focus(focus, self.axes.to_clip(x).shape[2])
        return focus if present is None else focus.masked_fill(~present[..., None], 0)

    def _mode(self) -> tuple[Any, ...]:
        """Return the key of cached checks: training flags, dropout rates, and whether M > 1."""
        modules = self.model.modules()
        dropout = nn.modules.dropout._DropoutNd  # the one base of all dropout layers
        # The rate counts, because dropout leaves the closed form valid only at p = 0.
        flags = tuple((m.training, m.p if isinstance(m, dropout) else None) for m in modules)
        return (self._several_persons, *flags)

    def _by_gradient(self, layers: Sequence[str]) -> list[str]:
        """List the layers whose focus is a gradient through later layers, as far as known yet."""
        # Before a verdict, the last layer counts as one, so that the first batch has a gradient.
        closed = self.head is not None and self._closed_form.get(self._mode(), False)
        if not closed:
            return list(layers)
        return [layer for layer in layers if layer != self.layers[-1]]

    def _run(
        self,
        x: Tensor,
        inputs: Sequence[Any],
        explained: Sequence[str],
        also: Sequence[str] = (),
        *,
        fixed_statistics: bool = False,
        graph_above: str | None = None,
    ) -> tuple[Tensor, FeatureTap, Any]:
        """Run the model; return the logits, the layers' outputs and the model's output.

        The layers' outputs include those of ``also``. ``graph_above`` enables gradients from that
        layer's output on.
        """
        names = [*self.layers, *also] if explained else []
        axes = self._bound_maps(x) if explained else {}
        by_gradient = self._by_gradient(explained)
        # The closed form is proved from the graph after the layer, which a frozen network would not
        # record; compiled code takes the verdict of the first batch.
        closed: list[str] = []
        if not torch.compiler.is_compiling():
            closed = [name for name in explained if name not in by_gradient]
        tap = FeatureTap(
            self.model,
            names,
            twice=by_gradient,
            axes=axes,
            with_graph=closed,
            fixed_statistics=fixed_statistics,
            graph_above=graph_above,
        )
        with tap, plain_sync_batch_norm(self.model, fixed_statistics=fixed_statistics):
            output = self.model(x, *inputs)
            logits = self._logits(output, len(x))
        ran = [layer for layer in tap.ran if layer in self.layers]
        # A missing layer passes here, because tap[...] raises for it.
        in_order = ran == list(self.layers) or sorted(ran) != sorted(self.layers)
        if not in_order and names:
            raise ValueError(
                message("STFObjective", f"layers from low to high, {ran}", list(self.layers))
            )
        return logits, tap, output

    def _bound_maps(self, x: Tensor) -> dict[str, MapsOfOneBatch]:
        """The conversions to (N * M, C, T, V) for one batch, for the layers in other layouts."""
        n, _, _, v, m = self.axes.to_clip(x).shape
        return {
            layer: axes.bind(layer, clips=n, persons=m, joints=v)
            for layer, axes in self.maps.items()
        }

    def _logits(self, output: Any, clips: int) -> Tensor:
        logits: Any = output if self.select_logits is None else self.select_logits(output)
        if not isinstance(logits, Tensor):
            hint = "pass select_logits, such as operator.itemgetter(0)"
            raise ValueError(
                message("STFObjective", "logits to be a tensor", type(logits).__name__, hint)
            )
        check_shape("STFObjective", "logits", logits, f"N={clips}, classes")
        if logits.shape[1] < 2:
            raise ValueError(
                message("STFObjective", "logits of at least 2 classes", logits.shape[1])
            )
        return logits

    def _focus(
        self,
        x: Tensor,
        logits: Tensor,
        tap: FeatureTap,
        layer: str,
        classes: Tensor,
        present: Tensor | None,
        *,
        create_graph: bool,
        rehearsal: bool = False,
    ) -> Tensor:
        """The normalised focus of a class at a layer, (N, M, T', V)."""
        n, _, _, v, m = self.axes.to_clip(x).shape
        project = self.project.get(layer) if isinstance(self.project, Mapping) else self.project
        features = self._features(x, tap, layer, any_joints=project is not None)
        persons = len(features) // n
        present_persons = None
        # A layer whose persons differ, for which project must be given, has no person to leave out.
        if present is not None and persons == m:
            present_persons = present.any(2).expand(n, m)  # (N, M)
        # Under autocast the head returns half precision, in which softmax would lose digits.
        full = logits.float() if logits.dtype.itemsize < 4 else logits
        score = class_score(full, classes, self.score)
        # One gradient for each clip; four clips show the order of the rows as well as all would.
        if rehearsal and layer in tap.shifts and persons > 1:
            gradients = [
                tap.channel_gradient(layer, score[i : i + 1], create_graph=False)
                for i in range(min(n, 4))
            ]
            refuse_another_order(gradients, n)
        # Both ways leave the normalisation out, because project may change the range of the focus.
        if layer == self.layers[-1] and self._has_closed_form(logits, tap, persons):
            weight = cast(nn.Linear, find_layer(self.model, cast(str, self.head))).weight
            focus = linear_head_focus(
                features,
                weight,
                logits,
                classes,
                num_persons=persons,
                present=present_persons,
                score=self.score,
                normalize=False,
            )
        else:
            gradient = tap.channel_gradient(
                layer, score, create_graph=create_graph, prove=rehearsal and create_graph
            )
            focus = weigh_channels(
                gradient, features, num_persons=persons, present=present_persons, normalize=False
            )
        if project is not None:
            focus = project(focus)
            name = f"the focus that project returns for {tuple(features.shape)}"
            check_shape("STFObjective", name, focus, f"N={n}, M={m}, T', V={v}")
            if rehearsal and not bool((focus >= 0).all()):
                raise ValueError(
                    message("STFObjective", "project to return values of at least 0", "others")
                )
        return min_max_normalize(focus, _present_at_frames(present, focus))

    def _features(self, x: Tensor, tap: FeatureTap, layer: str, *, any_joints: bool) -> Tensor:
        """Return a layer's checked output, (N * M, C, T', V).

        If a project follows, it may have any joints and persons.
        """
        features = tap[layer]
        shape = tuple(features.shape)
        n, _, t, v, m = self.axes.to_clip(x).shape
        expected = f"layer {layer!r} to give (N*M={n * m}, C, T, V={v})"
        if len(shape) != 4:
            hint = (
                "name a layer before the pooling; "
                "for tokens, pass maps, such as maps='(N M) (T V) C'"
            )
            raise ValueError(message("STFObjective", expected, shape, hint))
        as_input = shape[0] == n * m and shape[3] == v
        if shape[0] % n or not (any_joints or as_input):
            hint = (
                "for other joints or persons, pass project; for selected joints, apply "
                "ScatterToJoints after the layer; for axes in another order, pass maps"
            )
            raise ValueError(message("STFObjective", expected, shape, hint))
        if any_joints and layer not in self._maps_given:
            _refuse_channels_last(layer, shape, frames=t, joints=v)
        return features

    def _has_closed_form(self, logits: Tensor, tap: FeatureTap, persons: int) -> bool:
        """Decide whether logits = head(mean of the features).

        The first batch of each mode decides, and every batch is checked.
        """
        mode = self._mode()
        if self.head is None or self._closed_form.get(mode) is False:
            return False
        # Compiled code has no graph to look at; STFObjective runs the first batch outside of it.
        if torch.compiler.is_compiling():
            return self._closed_form[mode]
        layer = self.layers[-1]
        head = find_layer(self.model, self.head)
        verdict: bool | None
        # After a write in place, the captured tensor no longer holds the output that is explained.
        if not isinstance(head, nn.Linear) or tap.written(layer):
            verdict = False
        elif mode not in self._closed_form:
            verdict = is_pooled_linear(
                head, tap[layer], tap.shifts[layer], logits, num_persons=persons
            )
        else:
            verdict = keeps_pooled_linear(head, cast(Tensor, tap.output(layer)), logits)
        if verdict is not None:
            self._closed_form[mode] = verdict
        return bool(verdict)


def _present_at_frames(present: Tensor | None, focus: Tensor) -> Tensor | None:
    """Return presence in the frames of a focus (N, M, T', V).

    A frame counts if any input frame that it covers does.
    """
    if present is None:
        return None
    n, m, frames, _ = focus.shape
    # A frame of the map that covers true and padded frames still describes the true ones.
    expanded = present.expand(n, m, present.shape[2])
    if present.shape[2] == 1:
        return expanded.expand(n, m, frames)
    return F.adaptive_max_pool1d(expanded.float(), frames) > 0


def _position_of_lengths(model: nn.Module) -> int | None:
    """The position of the argument ``lengths`` in the model's forward, not counting the clip."""
    try:
        # Counted without the clip, as the objective's ``inputs`` are.
        names = list(inspect.signature(model.forward).parameters)[1:]
    except (TypeError, ValueError):  # a forward that is not written in Python
        return None
    return names.index("lengths") if "lengths" in names else None


def _refuse_channels_last(layer: str, shape: tuple[int, ...], *, frames: int, joints: int) -> None:
    """Raise for maps that look like (N * M, T, V, C), which a project could hide."""
    # Channels first would have T' = V by chance, and a number of channels that divides T.
    if shape[2] == joints and shape[3] != joints and frames % shape[1] == 0:
        expected = (
            f"maps to say where the axes of layer {layer!r} lie, "
            f"which could be (N*M, T, V={joints}, C)"
        )
        hint = f"pass maps='(N M) T V C', or {{{layer!r}: {MAPS!r}}} if channels do come first"
        raise ValueError(message("STFObjective", expected, shape, hint))
