"""Whether a focus can be trusted: does it depend on the trained weights, and does it stand still as the joints jitter?

Both checks take the function that explains, ``explain(x)``, and give one number for each clip. Where a clip has nothing
to compare, its number is NaN: average with ``nanmean``. Fix the classes that are explained, and call the model's
``eval()`` first: another class's focus, or dropout's, would count as a change of the explanation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn

from ._apart import apart
from ._checks import check_shape, message
from .focus import at_least_float32


def cascading_randomization(
    model: nn.Module,
    explain: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""Similarity of the focus to itself while the layers are re-initialised, one by one, from the output down.

    .. math:: \rho_l = \mathrm{corr}\big(\mathrm{rank}(E_{\theta}(x)), \mathrm{rank}(E_{\theta_l}(x))\big)

    Spearman's rank correlation over the entries that are present, any channel of x non-zero; ties have their average
    rank. :math:`\theta_l` are the weights with layer l and all before it in the result redrawn. The similarity of a
    focus that explains the network falls towards 0. One that stays near 1 shows the input and not what was learned, as
    an edge detector does. Absent joints are left out because their zeros would agree in any two maps.

    A layer without submodules is re-initialised by its own ``reset_parameters()``. A parameter that this sets to the
    same values each time, such as BatchNorm's ones and zeros, would show nothing. It is drawn from a normal
    distribution around 0 instead, and so is every parameter without such a method. The standard deviation is the root
    mean square of its trained values, so that the scale stays and sign and structure are lost; for a parameter of
    zeros it is :math:`1 / \sqrt{\text{fan-in}}`.

    Parameters, buffers and attributes of the model are as before afterwards, also where ``explain`` raises. Its
    mode is not touched. PyTorch's global random numbers, of the CPU and of the model's CUDA devices, are restored.

    Shape:
        x (N, C, T, V, M), ``explain(x)`` (N, M, T, V) -> for each layer (N,) in [-1, 1]; NaN for a clip where one of
        the two maps is constant or not finite.

    Args:
        model: the network whose weights are redrawn in place.
        explain: gives the focus of fixed classes by this very model, not by a copy: one of the classes that the trained
            network predicts, as in the example.
        x: the clips; what is not there is zero in every channel.
        layers: names from the output down, each re-initialised with all its submodules. By default every module that
            has parameters of its own, the last one defined first: name them where the model defines its modules in
            another order than it runs them, or where one explanation a block is enough.
        seed: of the new weights, 0 to 2^63 - 1.

    Returns:
        The similarity after each step, in the order of the steps.

    Raises:
        ValueError: names the model does not have, names twice, layers without parameters, or shapes that do not fit.

    Example:
        >>> from skeleton_focus import STFObjective
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.low, self.high, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)
        ...     def forward(self, x):
        ...         n, c, t, v, m = x.shape
        ...         x = x.permute(0, 4, 1, 2, 3).reshape(n * m, c, t, v)
        ...         x = self.high(self.low(x).relu())
        ...         return self.fc(x.view(n, m, 8, t * v).mean((1, 3)))
        >>> net, x = Net().eval(), torch.randn(4, 3, 6, 25, 2)
        >>> objective, classes = STFObjective(net, layers=["low", "high"], head="fc"), net(x).argmax(1)
        >>> similarity = cascading_randomization(net, lambda clips: objective.explain(clips, classes)[0], x)
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
    similarity: dict[str, Tensor] = {}
    with torch.random.fork_rng(cuda), apart(model), _parameters_kept(model):
        original = _explained(who, explain, x, f"T={x.shape[2]}")
        there = rearrange((x != 0).any(1), "n t v m -> n (m t v)")
        for name, modules in steps:
            # One number a step, so that what ``explain`` draws has no part in the new weights.
            step = int(torch.randint(2**62, (), generator=numbers))
            torch.default_generator.manual_seed(step)
            for device in cuda:
                torch.cuda.default_generators[device.index].manual_seed(step)
            for module in modules:
                _randomize(module)
            focus = _explained(who, explain, x, f"T={x.shape[2]}")
            similarity[name] = _rank_correlation(original.flatten(1), focus.flatten(1), there)
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
    r"""Largest relative change of the focus over random small displacements of the joints; low is good.

    .. math:: \max_{i = 1 \dots S} \frac{\lVert E(x + \delta_i) - E(x) \rVert_2}{\lVert E(x) \rVert_2}, \qquad
        \delta_i \sim U[-r, r]

    with the norm over all entries (m, t, v). Each coordinate of a joint that is present, any channel non-zero, moves
    for itself; absent ones stay zero. The displacements are drawn once for all clips, on the CPU, so that a clip's
    number depends neither on its batch nor on the device.

    Shape:
        x (N, C, T, V, M), ``explain(x)`` (N, M, T', V) -> (N,), at least 0; NaN for a clip with an empty focus.

    Args:
        explain: gives the focus of fixed classes, those of the clips as they are. Called S + 1 times, each time with
            all N clips in their order.
        x: the clips; what is not there is zero in every channel.
        position_channels: how many channels, from the first, are positions, or a slice of the channels. Others, such as
            visibility, stay.
        radius: r, in the units of x: 0.02 are two centimetres where x is in metres.
        samples: S, at least 1.
        seed: of the displacements, 0 to 2^63 - 1.

    Raises:
        ValueError: shapes that do not fit, channels that x does not have, a radius or samples out of range.

    Example:
        >>> x = torch.ones(2, 3, 4, 5, 1)
        >>> def heights(x):  # the focus is each joint's height
        ...     return x[:, 1].permute(0, 3, 1, 2)
        >>> max_sensitivity(heights, x, position_channels=3, radius=0.5) < 0.5
        tensor([True, True])
        >>> max_sensitivity(heights, x, position_channels=1)  # no height moves
        tensor([0., 0.])

    Reference:
        Max-sensitivity in Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, divided by
        the norm of the focus as in captum's ``sensitivity_max``.
    """
    who = "max_sensitivity"
    _check_call(who, explain, x)
    if not 0 < radius < math.inf:
        raise ValueError(message(who, "a radius above 0", radius))
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(message(who, "samples, a whole number from 1", samples))
    moving = _moving_channels(who, x, position_channels)
    numbers = torch.Generator().manual_seed(seed)
    there = (x != 0).any(1, keepdim=True)  # (N, 1, T, V, M)
    focus = _explained(who, explain, x, "T'").flatten(1)
    changes: list[Tensor] = []
    for _ in range(samples):
        # float32 whatever x holds, so that every type has the same displacements.
        drawn = radius * (2 * torch.rand(x[:1, moving].shape, generator=numbers) - 1)
        moved = x.detach().clone()
        moved[:, moving] += drawn.to(moved) * there
        change = _explained(who, explain, moved, "T'").flatten(1) - focus
        changes.append(torch.linalg.vector_norm(change, dim=1))
    length = torch.linalg.vector_norm(focus, dim=1)
    return torch.where(length > 0, torch.stack(changes).amax(0) / length, torch.nan)


@contextmanager
def _parameters_kept(model: nn.Module) -> Iterator[None]:
    """Give a model its parameters, the tensors and the values in them, back afterwards."""
    before = [(module, dict(module._parameters)) for module in model.modules()]
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
    """Redraw the parameters of the module itself, by ``reset_parameters`` where that draws them."""
    trained = _copies(module)
    reset = getattr(module, "reset_parameters", None)
    drawn: set[str] = set()
    # One that resets its submodules, too, would do so before their turn.
    if trained and callable(reset) and not any(True for _ in module.children()):
        reset()
        once = _copies(module)
        reset()
        drawn = {name for name, values in _copies(module).items() if not torch.equal(values, once[name])}
    for name, values in trained.items():
        if name not in drawn:
            new = torch.randn(values.shape) * _scale(values)  # on the CPU: the same on every device
            module.get_parameter(name).copy_(new)


def _scale(values: Tensor) -> float:
    """Root mean square of a parameter's values; for zeros that of PyTorch's linear layers, but for their factor."""
    length = float(torch.linalg.vector_norm(at_least_float32(values)))
    if length > 0:
        return length / math.sqrt(values.numel())
    fan_in = values[0].numel() if values.dim() > 1 else 1
    return 1 / math.sqrt(fan_in)


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    """The module's own parameters that hold numbers to draw."""
    own = module.named_parameters(recurse=False)
    return {name: parameter for name, parameter in own if parameter.is_floating_point() and parameter.numel() > 0}


def _copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in _own(module).items()}


def _steps(who: str, model: nn.Module, layers: Sequence[str] | None) -> list[tuple[str, list[nn.Module]]]:
    """What is re-initialised in each step, by its name, from the output down."""
    if not isinstance(model, nn.Module):
        raise ValueError(message(who, "a model that is an nn.Module", type(model).__name__))
    if layers is None:
        steps = [(name, [module]) for name, module in model.named_modules() if _own(module)][::-1]
        if not steps:
            raise ValueError(message(who, "a model with parameters", type(model).__name__))
        return steps
    if not isinstance(layers, list | tuple):
        raise ValueError(message(who, "layers as a list of names", type(layers).__name__))
    modules = dict(model.named_modules(remove_duplicate=False))
    strange = [name for name in layers if name not in modules]
    if strange:
        hint = "model.named_modules() lists them"
        raise ValueError(message(who, f"names of layers in {type(model).__name__}", strange, hint))
    if len(layers) == 0 or len(set(layers)) != len(layers):
        raise ValueError(message(who, "at least one layer, and none twice", list(layers)))
    steps = [(name, list(modules[name].modules())[::-1]) for name in layers]
    empty = [name for name, inside in steps if not any(_own(module) for module in inside)]
    if empty:
        raise ValueError(message(who, "layers with parameters", empty))
    return steps


def _rank_correlation(one: Tensor, other: Tensor, counted: Tensor) -> Tensor:
    """Spearman's correlation of (N, entries) over those that count, (N,); NaN where a map is constant or not finite."""
    a, b = _ranks(one, counted), _ranks(other, counted)
    lengths = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    finite = ((one.isfinite() & other.isfinite()) | ~counted).all(1)
    known = finite & (lengths > 0)
    return torch.where(known, (a * b).sum(1) / lengths.where(known, 1.0), torch.nan).clamp(-1, 1)


def _ranks(score: Tensor, counted: Tensor) -> Tensor:
    """Average ranks (N, entries) less their mean, from -1 to 1, and 0 for what does not count."""
    known = score.masked_fill(~counted, torch.inf)  # sorted behind all others
    in_order = known.sort(dim=1).values
    below = torch.searchsorted(in_order, known)
    up_to = torch.searchsorted(in_order, known, right=True)
    count = counted.sum(1, keepdim=True)
    # The mean of below + up_to is the count, whatever the ties: integers, so a constant map is exactly 0.
    return torch.where(counted, below + up_to - count, 0).to(score.dtype) / count.clamp(min=1)


def _explained(who: str, explain: Callable[[Tensor], Tensor], x: Tensor, frames: str) -> Tensor:
    """The focus of the clips, a copy in at least float32; what ``explain`` does to its clips stays there."""
    focus = explain(x.detach().clone())
    n, _, _, v, m = x.shape
    if not isinstance(focus, Tensor):
        hint = "return the focus alone, as in lambda x: objective.explain(x, classes)[0]"
        raise ValueError(message(who, "explain to return a tensor", type(focus).__name__, hint))
    check_shape(who, "the focus that explain returns", focus, f"N={n}, M={m}, {frames}, V={v}")
    return at_least_float32(focus.detach()).clone()


def _moving_channels(who: str, x: Tensor, position_channels: int | slice) -> slice:
    whole = isinstance(position_channels, int) and not isinstance(position_channels, bool)
    if not whole and not isinstance(position_channels, slice):
        raise ValueError(message(who, "position_channels as a number or a slice", type(position_channels).__name__))
    channels = x.shape[1]
    if isinstance(position_channels, slice):
        if len(range(channels)[position_channels]) == 0:
            raise ValueError(message(who, f"position_channels with some of C={channels}", position_channels))
        return position_channels
    if not 1 <= position_channels <= channels:
        raise ValueError(message(who, f"position_channels in 1..C={channels}", position_channels))
    return slice(position_channels)


def _check_call(who: str, explain: Callable[[Tensor], Tensor], x: Tensor) -> None:
    if not callable(explain):
        raise ValueError(message(who, "explain to be a function", type(explain).__name__))
    check_shape(who, "x", x, "N, C>0, T>0, V>0, M>0")
    if not x.is_floating_point():
        raise ValueError(message(who, "x of floating point", x.dtype))
