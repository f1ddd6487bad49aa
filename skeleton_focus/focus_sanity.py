"""Check that a focus depends on the trained weights and is stable when the joints jitter.

Both checks take a function ``explain(x)`` that computes the focus and return one number for each
clip. The number is NaN if a clip has nothing to compare: average with ``nanmean``. Fix the
explained classes and call the model's ``eval()`` first, because a change of class or dropout would
count as a change of the explanation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn

from ._checks import check_shape, message
from ._isolated import isolated
from .focus import at_least_float32

__all__ = ["cascading_randomization", "max_sensitivity"]


def cascading_randomization(
    model: nn.Module,
    explain: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""Compare the focus before and after re-initialising layers one by one, from the output down.

    .. math:: \rho_l
        = \mathrm{corr}\big(\mathrm{rank}(E_{\theta}(x)), \mathrm{rank}(E_{\theta_l}(x))\big)

    This is Spearman's rank correlation over the present entries, those with any channel of x
    non-zero; ties have their average rank. :math:`\theta_l` are the weights after layer l and all
    layers before it in the result were redrawn. If the focus explains the network, the similarity
    falls towards 0. If it stays near 1, the focus depends on the input only, as an edge detector
    does. Absent joints are excluded because their zeros would agree in any two maps.

    A layer without submodules is re-initialised by its own ``reset_parameters()``. A parameter that
    this method always sets to the same values, such as BatchNorm's ones and zeros, would not
    change. It is drawn from a zero-mean normal distribution instead, and so is every parameter
    without such a method. The standard deviation is the root mean square of the trained values,
    which keeps the scale and removes sign and structure; for a parameter of zeros it is
    :math:`1 / \sqrt{\text{fan-in}}`.

    The model's parameters, buffers and attributes are restored afterwards, even if ``explain``
    raises. Its mode is not changed. PyTorch's global random states, of the CPU and of the model's
    CUDA devices, are restored.

    Shape:
        x (N, C, T, V, M), ``explain(x)`` (N, M, T, V) -> for each layer (N,) in [-1, 1]; NaN if one
        of a clip's two maps is constant or not finite.

    Args:
        model: the network whose weights are redrawn in place.
        explain: returns the focus of fixed classes, computed by this model and not by a copy, for
            example of the classes that the trained network predicts.
        x: the clips; absent joints are zero in every channel.
        layers: names from the output down, each re-initialised with all its submodules. By default
            every module that has parameters of its own, the last defined first. Pass names if the
            model runs its modules in another order than it defines them, or if one explanation for
            each block is enough.
        seed: seed of the new weights, 0 to 2^63 - 1.

    Returns:
        The similarity after each step, in the order of the steps.

    Raises:
        ValueError: names that the model does not have, repeated names, layers without parameters,
            or mismatched shapes.

    Example:
        >>> from skeleton_focus import STFObjective
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
        >>> net, x = Net().eval(), torch.randn(4, 3, 6, 25, 2)
        >>> objective = STFObjective(net, layers=["low", "high"], head="fc")
        >>> classes = net(x).argmax(1)
        >>> def explain(clips):
        ...     return objective.explain(clips, classes)[0]
        >>> similarity = cascading_randomization(net, explain, x)
        >>> {layer: of_clips.shape for layer, of_clips in similarity.items()}
        {'fc': torch.Size([4]), 'high': torch.Size([4]), 'low': torch.Size([4])}

    Reference:
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, section 3.1.
    """
    who = "cascading_randomization"
    _check_call(who, explain, x)
    steps = _steps(who, model, layers)
    numbers = torch.Generator().manual_seed(seed)
    cuda = list({parameter.device for parameter in model.parameters() if parameter.is_cuda})
    # Buffers are copied too: re-initialising BatchNorm also resets its running statistics.
    similarity: dict[str, Tensor] = {}
    with torch.random.fork_rng(cuda), isolated(model), _restored_parameters(model):
        original = _explained(who, explain, x, f"T={x.shape[2]}")
        present = rearrange((x != 0).any(1), "n t v m -> n (m t v)")
        for name, modules in steps:
            # One seed a step: random numbers drawn by ``explain`` must not affect the new weights.
            step = int(torch.randint(2**62, (), generator=numbers))
            torch.default_generator.manual_seed(step)
            for device in cuda:
                torch.cuda.default_generators[device.index].manual_seed(step)
            for module in modules:
                _randomize(module)
            focus = _explained(who, explain, x, f"T={x.shape[2]}")
            similarity[name] = _rank_correlation(original.flatten(1), focus.flatten(1), present)
    return similarity


def max_sensitivity(
    explain: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    position_channels: int | slice,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
) -> Tensor:
    r"""Compute the largest relative change of the focus under small displacements of the joints.

    The displacements are random; a low value is good.

    .. math:: \max_{i = 1 \dots S} \frac{\lVert E(x + \delta_i) - E(x) \rVert_2}
        {\lVert E(x) \rVert_2}, \qquad \delta_i \sim U[-r, r]

    with the norm over all entries (m, t, v). Each coordinate of a present joint (any channel
    non-zero) is displaced independently; absent joints stay zero. The displacements are drawn once
    for all clips, on the CPU, so that a clip's number depends neither on its batch nor on the
    device.

    Shape:
        x (N, C, T, V, M), ``explain(x)`` (N, M, T', V) -> (N,), at least 0; NaN for a clip with an
        empty focus.

    Args:
        explain: returns the focus of fixed classes, those of the undisturbed clips. It is called
            S + 1 times, each time with all N clips in the same order.
        x: the clips; absent joints are zero in every channel.
        position_channels: number of leading channels that are positions, or a slice of the
            channels. Other channels, such as visibility, are not changed.
        radius: r, in the units of x: 0.02 is two centimetres if x is in metres.
        samples: S, at least 1.
        seed: seed of the displacements, 0 to 2^63 - 1.

    Raises:
        ValueError: mismatched shapes, channels that x does not have, or radius or samples out of
            range.

    Example:
        >>> x = torch.ones(2, 3, 4, 5, 1)
        >>> def heights(x):  # the focus is each joint's height
        ...     return x[:, 1].permute(0, 3, 1, 2)
        >>> max_sensitivity(heights, x, position_channels=3, radius=0.5) < 0.5
        tensor([True, True])
        >>> max_sensitivity(heights, x, position_channels=1)  # no height moves
        tensor([0., 0.])

    Reference:
        Max-sensitivity in Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS
        2019, divided by the norm of the focus as in captum's ``sensitivity_max``.
    """
    who = "max_sensitivity"
    _check_call(who, explain, x)
    if not 0 < radius < math.inf:
        raise ValueError(message(who, "a radius above 0", radius))
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(message(who, "samples as an integer of at least 1", samples))
    moving = _moving_channels(who, x, position_channels)
    numbers = torch.Generator().manual_seed(seed)
    present = (x != 0).any(1, keepdim=True)  # (N, 1, T, V, M)
    focus = _explained(who, explain, x, "T'").flatten(1)
    changes: list[Tensor] = []
    for _ in range(samples):
        # Drawn in float32 for any dtype of x, so that every dtype gets the same displacements.
        drawn = radius * (2 * torch.rand(x[:1, moving].shape, generator=numbers) - 1)
        moved = x.detach().clone()
        moved[:, moving] += drawn.to(moved) * present
        change = _explained(who, explain, moved, "T'").flatten(1) - focus
        changes.append(torch.linalg.vector_norm(change, dim=1))
    length = torch.linalg.vector_norm(focus, dim=1)
    return torch.where(length > 0, torch.stack(changes).amax(0) / length, torch.nan)


@contextmanager
def _restored_parameters(model: nn.Module) -> Iterator[None]:
    """Restore a model's parameters afterwards, both the tensor objects and their values."""
    before = [(module, dict(module._parameters)) for module in model.modules()]
    # Values as well as objects, because reset_parameters() may fill or replace a parameter.
    values = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, parameters in before:
            module._parameters.clear()
            module._parameters.update(parameters)
        with torch.no_grad():
            for parameter, value in values:
                parameter.copy_(value)


@torch.no_grad()
def _randomize(module: nn.Module) -> None:
    """Redraw the module's own parameters, by ``reset_parameters`` if that draws them at random."""
    trained = _copies(module)
    reset = getattr(module, "reset_parameters", None)
    # Two draws tell what is random: BatchNorm's ones and zeros are the same in both.
    drawn: set[str] = set()
    # A module's method may also reset its submodules, which have their own turn later.
    if trained and callable(reset) and not any(True for _ in module.children()):
        reset()
        first_draw = _copies(module)
        reset()
        drawn = {
            name
            for name, values in _copies(module).items()
            if not torch.equal(values, first_draw[name])
        }
    for name, values in trained.items():
        if name not in drawn:
            new = torch.randn(values.shape) * _scale(values)  # on the CPU: the same on every device
            module.get_parameter(name).copy_(new)


def _scale(values: Tensor) -> float:
    """Root mean square of a parameter's values; 1 / sqrt(fan-in) for a parameter of zeros."""
    length = float(torch.linalg.vector_norm(at_least_float32(values)))
    if length > 0:
        return length / math.sqrt(values.numel())
    fan_in = values[0].numel() if values.dim() > 1 else 1
    return 1 / math.sqrt(fan_in)


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    """The module's own non-empty floating-point parameters."""
    own = module.named_parameters(recurse=False)
    return {
        name: parameter
        for name, parameter in own
        if parameter.is_floating_point() and parameter.numel() > 0
    }


def _copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in _own(module).items()}


def _steps(
    who: str, model: nn.Module, layers: Sequence[str] | None
) -> list[tuple[str, list[nn.Module]]]:
    """The name and the modules to re-initialise in each step, from the output down."""
    if not isinstance(model, nn.Module):
        raise ValueError(message(who, "a model that is an nn.Module", type(model).__name__))
    if layers is None:
        # The output is defined last in most networks, so the reverse order goes down from it.
        steps = [(name, [module]) for name, module in model.named_modules() if _own(module)][::-1]
        if not steps:
            raise ValueError(message(who, "a model with parameters", type(model).__name__))
        return steps
    if not isinstance(layers, list | tuple):
        raise ValueError(message(who, "layers as a list of names", type(layers).__name__))
    modules = dict(model.named_modules(remove_duplicate=False))
    unknown = [name for name in layers if name not in modules]
    if unknown:
        hint = "model.named_modules() lists them"
        raise ValueError(message(who, f"names of layers in {type(model).__name__}", unknown, hint))
    if len(layers) == 0 or len(set(layers)) != len(layers):
        raise ValueError(message(who, "at least one layer, each named once", list(layers)))
    steps = [(name, list(modules[name].modules())[::-1]) for name in layers]
    empty = [name for name, inside in steps if not any(_own(module) for module in inside)]
    if empty:
        raise ValueError(message(who, "layers with parameters", empty))
    return steps


def _rank_correlation(one: Tensor, other: Tensor, counted: Tensor) -> Tensor:
    """Compute Spearman's correlation (N,) of (N, entries) over the counted entries.

    It is NaN if a map is constant or not finite.
    """
    a = _ranks(one, counted)
    b = _ranks(other, counted)
    lengths = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    # Absent entries are not ranked, so what they hold does not matter.
    finite = ((one.isfinite() & other.isfinite()) | ~counted).all(1)
    known = finite & (lengths > 0)
    return torch.where(known, (a * b).sum(1) / lengths.where(known, 1.0), torch.nan).clamp(-1, 1)


def _ranks(score: Tensor, counted: Tensor) -> Tensor:
    """Return average ranks (N, entries) less their mean, -1 to 1, and 0 where not counted."""
    known = score.masked_fill(~counted, torch.inf)  # sorts after all others
    in_order = known.sort(dim=1).values
    # Of tied entries, below counts those before the tie and up_to those to its end: their mean.
    below = torch.searchsorted(in_order, known)
    up_to = torch.searchsorted(in_order, known, right=True)
    count = counted.sum(1, keepdim=True)
    # The mean of below + up_to is the count even with ties; integers make a constant map exactly 0.
    return torch.where(counted, below + up_to - count, 0).to(score.dtype) / count.clamp(min=1)


def _explained(who: str, explain: Callable[[Tensor], Tensor], x: Tensor, frames: str) -> Tensor:
    """The focus of a copy of the clips, itself a copy in at least float32."""
    # An explanation may write to its input or return a tensor that it writes to again.
    focus = explain(x.detach().clone())
    n, _, _, v, m = x.shape
    if not isinstance(focus, Tensor):
        hint = "return only the focus, as in lambda x: objective.explain(x, classes)[0]"
        raise ValueError(message(who, "explain to return a tensor", type(focus).__name__, hint))
    check_shape(who, "the focus that explain returns", focus, f"N={n}, M={m}, {frames}, V={v}")
    return at_least_float32(focus.detach()).clone()


def _moving_channels(who: str, x: Tensor, position_channels: int | slice) -> slice:
    whole = isinstance(position_channels, int) and not isinstance(position_channels, bool)
    if not whole and not isinstance(position_channels, slice):
        raise ValueError(
            message(
                who, "position_channels as a number or a slice", type(position_channels).__name__
            )
        )
    channels = x.shape[1]
    if isinstance(position_channels, slice):
        if len(range(channels)[position_channels]) == 0:
            raise ValueError(
                message(who, f"position_channels within C={channels}", position_channels)
            )
        return position_channels
    if not 1 <= position_channels <= channels:
        raise ValueError(message(who, f"position_channels in 1..C={channels}", position_channels))
    return slice(position_channels)


def _check_call(who: str, explain: Callable[[Tensor], Tensor], x: Tensor) -> None:
    if not callable(explain):
        raise ValueError(message(who, "explain to be a function", type(explain).__name__))
    check_shape(who, "x", x, "N, C>0, T>0, V>0, M>0")
    if not x.is_floating_point():
        raise ValueError(message(who, "x with a floating-point dtype", x.dtype))
