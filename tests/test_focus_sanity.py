"""Test the checks of a focus: by loops, by captum, and on explanations with and without weights."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference_metrics
import torch
from captum.metrics import sensitivity_max
from hypothesis import given
from hypothesis import strategies as st
from stf_gcn import STFGCN
from torch import Tensor, nn

from skeleton_focus import KINECT20, GraphConv, STFObjective, spatial_partition
from skeleton_focus.focus_sanity import cascading_randomization, max_sensitivity

LEVELS = [0.0, 0.25, 0.5, 1.0]  # few, so that ties are common
N = 6
C = 3
T = 8
V = 5
M = 2
CLASSES = 4


class Net(nn.Module):
    """Two convolutions with BatchNorm, mean and linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(C, 16, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.high = nn.Sequential(
            nn.Conv2d(16, 16, (3, 1), padding=(1, 0)), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = self.high(self.low(x.permute(0, 4, 1, 2, 3).reshape(n * m, c, t, v)))
        return self.fc(x.view(n, m, -1, t * v).mean((1, 3)))


NET_STEPS = ["fc", "high.1", "high.0", "low.1", "low.0"]


def toy_clips(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Make noise in which one joint takes its class's pose for four frames.

    The second person is absent in one half.
    """
    generator = torch.Generator().manual_seed(seed)
    x = 0.5 * torch.randn(n, C, T, V, M, generator=generator)
    target = torch.randint(CLASSES, (n,), generator=generator)
    poses = torch.tensor([[2.0, 0, 0], [-2, 0, 0], [0, 2, 0], [0, -2, 0]])
    for i in range(n):
        start, joint = (int(torch.randint(size, (), generator=generator)) for size in (T - 3, V))
        x[i, :, start : start + 4, joint, 0] += poses[target[i], :, None]
    x[::2, ..., 1] = 0
    return x, target


@pytest.fixture(scope="module")
def trained() -> Net:
    torch.manual_seed(0)
    net = Net()
    x, target = toy_clips(256, seed=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), target).backward()
        optimizer.step()
    net.zero_grad()
    test_x, test_target = toy_clips(64, seed=2)
    assert (net.eval()(test_x).argmax(1) == test_target).float().mean() > 0.9
    return net


def grad_cam_of(net: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    objective = STFObjective(net, layers=["low", "high"], head="fc")
    classes = net(x).argmax(1)
    return lambda clips: objective.explain(clips, classes)[0]


def magnitude(x: Tensor) -> Tensor:
    """Explain without any weight: the largest coordinate of each joint, (N, M, T, V)."""
    return x.abs().amax(1).permute(0, 3, 1, 2)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def unchanged(before: dict[str, Tensor], model: nn.Module) -> bool:
    now = model.state_dict()
    return before.keys() == now.keys() and all(
        torch.equal(value, now[name]) for name, value in before.items()
    )


class Watched:
    """An explanation that notes the model's state each time it is asked, and gives a fixed map."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.states = list[dict[str, Tensor]]()

    def __call__(self, x: Tensor) -> Tensor:
        self.states.append(state(self.model))
        return magnitude(x)


# -------------------------------------------------------------------------- cascading randomisation


@st.composite
def map_sequences(draw: st.DrawFn) -> tuple[Tensor, list[Tensor]]:
    """Clips with holes, and four maps of few levels, float64."""
    n, m, t, v = draw(
        st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 4), st.integers(1, 4))
    )
    count = n * m * t * v
    there = draw(st.lists(st.sampled_from([0.0, 1.0, 1.0]), min_size=count, max_size=count))
    maps = [
        draw(st.lists(st.sampled_from(LEVELS), min_size=count, max_size=count)) for _ in range(4)
    ]
    x = torch.tensor(there).double().view(n, 1, t, v, m) * torch.tensor([0.0, 1.0]).view(
        1, 2, 1, 1, 1
    )
    return x, [torch.tensor(values).double().view(n, m, t, v) for values in maps]


@given(map_sequences())
def test_similarity_equals_the_plain_loop(case: tuple[Tensor, list[Tensor]]) -> None:
    x, maps = case
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 3))
    waiting = iter(maps)
    similarity = cascading_randomization(net, lambda x: next(waiting), x)
    assert list(similarity) == ["3", "2", "0"]
    for ours, focus in zip(similarity.values(), maps[1:], strict=True):
        slow = [
            reference_metrics.spearman(a, b, clip)
            for a, b, clip in zip(maps[0].numpy(), focus.numpy(), x.numpy(), strict=True)
        ]
        expected = torch.tensor(
            [math.nan if value is None else value for value in slow], dtype=torch.float64
        )
        torch.testing.assert_close(
            ours, expected, rtol=0, atol=1e-9, equal_nan=True, check_dtype=False
        )


def similarity_of(one: list[float], other: list[float], there: list[float]) -> float:
    """Of one frame and one person."""
    maps = iter(torch.tensor(values).view(1, 1, 1, -1) for values in (one, other))
    x = torch.tensor(there).float().view(1, 1, 1, -1, 1)
    return cascading_randomization(nn.Linear(2, 2), lambda x: next(maps), x)[""].item()


@pytest.mark.parametrize(
    ("one", "other", "there", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 70, 90], [1, 1, 1, 1], 1),
        ([1, 2, 3, 4], [4, 3, 2, 1], [1, 1, 1, 1], -1),
        ([1, 2, 3, 4], [1, 3, 2, 4], [1, 1, 1, 1], 0.8),  # 1 - 6 * 2 / (4 * 15)
        ([1, 2, 2, 3], [1, 2, 3, 4], [1, 1, 1, 1], 4.5 / math.sqrt(4.5 * 5)),  # ranks 1 2.5 2.5 4
        # The zeros of absent joints agree about nothing.
        ([1, 2, 0, 0], [2, 1, 0, 0], [1, 1, 0, 0], -1),
        ([1, 2, 9, 0], [1, 2, 0, 9], [1, 1, 0, 0], 1),
        ([1, 1, 1, 1], [1, 2, 3, 4], [1, 1, 1, 1], math.nan),
        # A focus that vanished is no other focus.
        ([1, 2, 3, 4], [0, 0, 0, 0], [1, 1, 1, 1], math.nan),
        ([1, 2, 3, 4], [1, 2, 3, math.nan], [1, 1, 1, 1], math.nan),
        ([1, 2, 3, 4], [1, 2, 3, math.inf], [1, 1, 1, 1], math.nan),
        ([1, 2, 3, 4], [1, 2, 3, math.nan], [1, 1, 1, 0], 1),
        ([1, 2, 3, 4], [1, 2, 3, 4], [0, 0, 0, 0], math.nan),
    ],
)
def test_similarity_by_hand(
    one: list[float], other: list[float], there: list[float], expected: float
) -> None:
    ours = similarity_of([float(value) for value in one], [float(value) for value in other], there)
    assert ours == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_an_edge_detector_passes_for_the_same_whatever_the_weights(trained: Net) -> None:
    x = toy_clips(16, seed=3)[0]
    similarity = cascading_randomization(trained, magnitude, x)
    assert list(similarity) == NET_STEPS
    for values in similarity.values():
        torch.testing.assert_close(values, torch.ones(16), rtol=0, atol=1e-5)


def test_grad_cam_of_a_trained_network_drops(trained: Net) -> None:
    x = toy_clips(16, seed=3)[0]
    drops = []
    for seed in range(5):
        similarity = cascading_randomization(trained, grad_cam_of(trained, x), x, seed=seed)
        assert list(similarity) == NET_STEPS
        assert all(values.shape == (16,) for values in similarity.values())
        drops.append(torch.stack(list(similarity.values())).nanmean(1))
    mean = torch.stack(drops).nanmean(0)
    assert (mean < 0.5).all() and mean[-1].abs() < 0.3


def test_layers_change_from_the_output_down_and_stay_changed(trained: Net) -> None:
    explain = Watched(trained)
    before = state(trained)
    cascading_randomization(trained, explain, toy_clips(2, seed=3)[0])
    assert len(explain.states) == 1 + len(NET_STEPS)
    for step, now in enumerate(explain.states):
        for name, value in trained.named_parameters():
            layer = name.rpartition(".")[0]
            assert torch.equal(now[name], before[name]) == (layer not in NET_STEPS[:step]), (
                step,
                name,
            )
            assert now[name].shape == value.shape
    last = explain.states[-1]
    for name in before:  # an untrained BatchNorm's statistics, too
        if name.endswith("running_mean"):
            assert not last[name].any() and before[name].any()
    for step in range(1, len(NET_STEPS)):
        done = NET_STEPS[step - 1]
        for name in trained.get_submodule(done).state_dict():
            assert torch.equal(explain.states[step][f"{done}.{name}"], last[f"{done}.{name}"]), (
                "drawn once"
            )


class Constants(nn.Module):
    """What initialises to constants, or by no method: each must change all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.ones(3, 5, 5))
        self.scalar = nn.Parameter(torch.tensor(2.0))
        self.norm = nn.BatchNorm2d(4)
        self.layer_norm = nn.LayerNorm(4)
        self.zero = nn.Conv2d(4, 4, 1)
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)
        self.graph = GraphConv(
            4, 4, spatial_partition(KINECT20), edge_importance=True, learn_adjacency=True
        )
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.recurrent = nn.LSTM(4, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.half = nn.Linear(4, 4).bfloat16()
        self.zeros = nn.ParameterList([torch.zeros(5), torch.zeros(3, 16, 4), torch.zeros(0)])
        self.register_parameter("nothing", None)


def test_every_parameter_really_changes() -> None:
    torch.manual_seed(0)
    model = Constants()
    explain = Watched(model)
    before = state(model)
    cascading_randomization(model, explain, toy_clips(1, seed=0)[0])
    after = explain.states[-1]
    names = [name for name, parameter in model.named_parameters() if parameter.numel()]
    assert len(names) > 25
    for name in names:
        same = (after[name] == before[name]).float().mean()
        assert same < 0.3, name
        assert after[name].isfinite().all() and after[name].dtype == before[name].dtype, name
        assert after[name].numel() == 1 or after[name].unique().numel() > 1, name
    assert unchanged(before, model)


def test_a_network_of_the_package_changes_throughout() -> None:
    torch.manual_seed(0)
    net = STFGCN(3, KINECT20, in_channels=3, widths=(6, 6, 6, 6, 6, 6)).eval()
    before = state(net)
    x = torch.randn(2, 3, 8, 20, 2)
    explain = Watched(net)
    similarity = cascading_randomization(net, explain, x)
    # A layer does not reset those inside it before their turn.
    for step, name in enumerate(similarity, 1):
        for other, _ in net.named_parameters():
            done = other.rpartition(".")[0] in list(similarity)[:step]
            assert torch.equal(explain.states[step][other], before[other]) != done, (name, other)
    objective = STFObjective(net, layers=["blocks.4", "blocks.5"], head="fc")
    classes = net(x).argmax(1)
    blocks = ["fc", *(f"blocks.{i}" for i in range(5, -1, -1))]
    similarity = cascading_randomization(
        net, lambda x: objective.explain(x, classes)[0], x, layers=blocks
    )
    assert list(similarity) == blocks and unchanged(before, net)


def test_the_scale_of_what_is_redrawn() -> None:
    model = nn.Module()
    model.large = nn.Parameter(torch.full((20000,), -3.0))
    model.spread = nn.Parameter(5 + torch.randn(20000, generator=torch.Generator().manual_seed(0)))
    model.matrix = nn.Parameter(torch.zeros(200, 4, 25))
    model.norm = nn.BatchNorm1d(20000)
    explain = Watched(model)
    cascading_randomization(model, explain, toy_clips(1, seed=0)[0])
    expected = {
        "large": 3,
        "spread": math.sqrt(26),
        "matrix": 0.1,
        "norm.weight": 1,
        "norm.bias": 1,
    }
    for name, scale in expected.items():
        values = explain.states[-1][name]
        assert values.std().item() == pytest.approx(scale, rel=0.03), name
        assert values.mean().item() == pytest.approx(0, abs=0.05 * scale), name
    # Where reset_parameters draws, its values are kept: within the bound of nn.Linear, not normal.
    linear = nn.Linear(100, 100)
    watched = None
    nn.init.constant_(linear.weight, 7.0)
    watched = Watched(linear)
    cascading_randomization(linear, watched, toy_clips(1, seed=0)[0])
    assert 0.09 < watched.states[-1]["weight"].abs().max() <= 0.1


def tensors_of(model: nn.Module) -> dict[str, tuple[int, int, bool]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: (id(tensor), tensor.data_ptr(), tensor.requires_grad) for name, tensor in tensors}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_leaves_the_model_and_the_random_numbers(
    trained: Net, training: bool, error: type[BaseException] | None
) -> None:
    net = copy.deepcopy(trained).train(training)
    net.low.eval()
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    grad = net.fc.weight.grad
    x = toy_clips(4, seed=3)[0]
    before = state(net)
    kept = x.clone()
    tensors = {
        name: (id(p), p.data_ptr(), p.requires_grad)
        for name, p in [*net.named_parameters(), *net.named_buffers()]
    }
    modes = [module.training for module in net.modules()]
    numbers = torch.get_rng_state()
    calls = 0

    def explain(clips: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4 and error is not None:
            raise error("stop")
        net(clips)  # BatchNorm's statistics move in training
        torch.rand(3)
        return magnitude(clips.mul_(2))

    if error is None:
        cascading_randomization(net, explain, x)
    else:
        with pytest.raises(error, match="stop"):
            cascading_randomization(net, explain, x)
    assert calls == (6 if error is None else 4)
    assert unchanged(before, net) and torch.equal(x, kept)
    assert tensors_of(net) == tensors
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), numbers)
    assert net.fc.weight.grad is grad and (grad == 1).all()
    assert net.high[0].weight.grad is None


class Replaces(nn.Linear):
    """A layer that makes a new weight where others fill theirs, and leaves its bias as it is."""

    def __init__(self) -> None:
        super().__init__(2, 3)
        nn.init.ones_(self.bias)  # nn.Linear leaves that to reset_parameters

    def reset_parameters(self) -> None:
        self.weight = nn.Parameter(torch.randn(3, 2))


def test_a_layer_that_makes_new_parameters_gets_its_own_back() -> None:
    layer = Replaces()
    weight = layer.weight
    before = state(layer)
    explain = Watched(layer)
    cascading_randomization(layer, explain, toy_clips(1, seed=0)[0])
    assert layer.weight is weight and unchanged(before, layer)
    assert not torch.equal(explain.states[-1]["weight"], weight)
    assert not torch.equal(explain.states[-1]["bias"], before["bias"])


def test_the_seed_alone_decides(trained: Net) -> None:
    x = toy_clips(8, seed=3)[0]
    explain = grad_cam_of(trained, x)

    def last(seed: int, outside: int) -> dict[str, Tensor]:
        torch.manual_seed(outside)
        watched = Watched(trained)
        cascading_randomization(trained, watched, x, seed=seed)
        return watched.states[-1]

    one = last(0, 1)
    assert all(torch.equal(value, one[name]) for name, value in last(0, 2).items())
    other = last(1, 1)
    assert not any(torch.equal(other[name], one[name]) for name, _ in trained.named_parameters())
    first, again = (cascading_randomization(trained, explain, x, seed=4) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0, equal_nan=True)
    head = cascading_randomization(trained, explain, x, seed=4, layers=["fc"])
    torch.testing.assert_close(head, {"fc": first["fc"]}, rtol=0, atol=0, equal_nan=True)


def test_a_block_is_randomized_whole(trained: Net) -> None:
    explain = Watched(trained)
    before = state(trained)
    similarity = cascading_randomization(
        trained, explain, toy_clips(2, seed=3)[0], layers=["high", "fc"]
    )
    expected = {"high": [False, True, True], "fc": [False, False, True], "low": [False] * 3}
    assert list(similarity) == ["high", "fc"]
    for name, _ in trained.named_parameters():
        changed = [not torch.equal(now[name], before[name]) for now in explain.states]
        assert changed == expected[name.split(".")[0]], name


def test_layers_alike_get_weights_of_their_own() -> None:
    for layer in (nn.Linear(3, 3), nn.LayerNorm(3)):
        net = nn.ModuleList([copy.deepcopy(layer) for _ in range(2)])
        explain = Watched(net)
        cascading_randomization(net, explain, toy_clips(1, seed=0)[0])
        assert not torch.equal(explain.states[-1]["0.weight"], explain.states[-1]["1.weight"])


def test_no_clips() -> None:
    x = torch.zeros(0, C, T, V, M)
    similarity = cascading_randomization(Net(), magnitude, x)
    assert [values.shape for values in similarity.values()] == [(0,)] * len(NET_STEPS)
    assert max_sensitivity(magnitude, x, position_channels=3).shape == (0,)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "net"}, "a model that is an nn.Module, got str"),
        ({"model": nn.ReLU()}, "a model with parameters, got ReLU"),
        ({"layers": "fc"}, "layers as a list of names, got str"),
        ({"layers": ["fc", "top"]}, "names of layers in Net, got ['top']"),
        ({"layers": []}, "at least one layer, each named once, got []"),
        ({"layers": ["fc", "fc"]}, "at least one layer, each named once, got ['fc', 'fc']"),
        ({"layers": ["fc", "low.2"]}, "layers with parameters, got ['low.2']"),
        ({"explain": None}, "explain to be a function, got NoneType"),
        (
            {"explain": lambda x: (magnitude(x), x)},
            "explain to return a tensor, got tuple; return only the focus",
        ),
        (
            {"explain": lambda x: magnitude(x)[:, :, ::2]},
            "the focus that explain returns (N=2, M=2, T=8, V=5), got (2, 2, 4, 5)",
        ),
        ({"x": torch.zeros(2, 3, 8, 5)}, "x (N, C, T, V, M), got (2, 3, 8, 5)"),
        ({"x": torch.zeros(2, 3, 0, 5, 2)}, "x (N, C>0, T>0, V>0, M>0), got (2, 3, 0, 5, 2)"),
        (
            {"x": torch.zeros(2, 3, 8, 5, 2).long()},
            "x with a floating-point dtype, got torch.int64",
        ),
    ],
)
def test_randomization_errors(change: dict[str, Any], told: str) -> None:
    net = Net()
    before = state(net)
    arguments = {"model": net, "explain": magnitude, "x": toy_clips(2, seed=0)[0]} | change
    with pytest.raises(ValueError, match=re.escape(f"cascading_randomization: expected {told}")):
        cascading_randomization(**arguments)
    assert unchanged(before, net)


# ---------------------------------------------------------------------------------- max-sensitivity


class Recorder:
    """An explanation that keeps the clips it is asked about."""

    def __init__(self, explain: Callable[[Tensor], Tensor]) -> None:
        self.explain = explain
        self.clips = list[Tensor]()

    def __call__(self, x: Tensor) -> Tensor:
        self.clips.append(x.clone())
        return self.explain(x)


@pytest.mark.parametrize("samples", [1, 7])
def test_captum_and_the_plain_loop_agree(trained: Net, samples: int) -> None:
    x = toy_clips(N, seed=3)[0]
    explain = Recorder(grad_cam_of(trained, x))
    ours = max_sensitivity(explain, x, position_channels=3, radius=0.3, samples=samples, seed=5)
    whole, *moved = explain.clips
    assert torch.equal(whole, x) and len(moved) == samples

    # captum repeats each clip next to itself, and gives x as a tuple.
    def explain_repeated(clips: Any) -> Any:
        if isinstance(clips, tuple):
            return (explain.explain(clips[0]),)
        rounds = clips.unflatten(0, (N, -1)).unbind(1)
        return torch.stack([explain.explain(one) for one in rounds], 1).flatten(0, 1)

    given = torch.stack(moved, 1).flatten(0, 1)
    captum = sensitivity_max(
        explain_repeated, x, perturb_func=lambda _: given, n_perturb_samples=samples
    )
    torch.testing.assert_close(ours, captum, rtol=0, atol=1e-6)
    maps = [explain.explain(clips).double().numpy() for clips in (x, *moved)]
    slow = [
        reference_metrics.sensitivity(maps[0][n], [one[n] for one in maps[1:]]) for n in range(N)
    ]
    torch.testing.assert_close(ours, torch.tensor(slow), rtol=0, atol=1e-6)
    assert (ours > 0.01).all()


@pytest.mark.parametrize("channels", [3, 2, slice(1, 3), slice(None, None, 2), slice(-1, None)])
def test_what_moves_and_how_far(channels: int | slice) -> None:
    x = torch.cat([toy_clips(N, seed=3)[0], torch.ones(N, 1, T, V, M)], 1)
    x[:, :, 2, 3] = 0  # lost, though visibility would say otherwise
    x[0] = 0
    x[1, :3, 4, 0] = 0  # at the origin and seen
    explain = Recorder(lambda clips: clips.abs().amax(1).permute(0, 3, 1, 2))
    kept = x.clone()
    max_sensitivity(explain, x, position_channels=channels, radius=0.25, samples=20, seed=0)
    assert torch.equal(x, kept)
    moving = torch.zeros(4, dtype=torch.bool)
    moving[slice(channels) if isinstance(channels, int) else channels] = True
    expected = (x != 0).any(1, keepdim=True) & moving.view(1, 4, 1, 1, 1)
    shifts = torch.stack([clips - x for clips in explain.clips[1:]])
    assert torch.equal((shifts != 0).any(0), expected)
    assert shifts.abs().max() <= 0.25 + 1e-6
    there = shifts[:, expected]
    assert there.max() > 0.24 and there.min() < -0.24
    # Uniform.
    assert there.mean().abs() < 0.01 and there.std().item() == pytest.approx(
        0.25 / math.sqrt(3), rel=0.03
    )
    rows = there.flatten(1)
    assert len(rows.unique(dim=0)) == 20, "each sample is another one"
    one = shifts[0, 2, moving, 0, 0, 0]
    assert one.unique().numel() == one.numel(), "each coordinate moves for itself"


@st.composite
def reading(draw: st.DrawFn) -> tuple[Tensor, int]:
    n, c, t, v, m = draw(st.tuples(*[st.integers(1, 3)] * 5))
    x = torch.randn(
        n, c, t, v, m, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))
    ).double()
    return x * (x.abs() > 0.3), draw(st.integers(1, c))


@given(reading(), st.integers(1, 4), st.sampled_from([0.02, 1.5]))
def test_sensitivity_equals_the_plain_loop(
    case: tuple[Tensor, int], samples: int, radius: float
) -> None:
    x, channels = case
    explain = Recorder(lambda clips: (clips.square().sum(1) - 0.5).clamp(min=0).permute(0, 3, 1, 2))
    ours = max_sensitivity(explain, x, position_channels=channels, radius=radius, samples=samples)
    maps = [explain.explain(clips).numpy() for clips in explain.clips]
    slow = [
        reference_metrics.sensitivity(maps[0][n], [one[n] for one in maps[1:]])
        for n in range(len(x))
    ]
    expected = torch.tensor(
        [math.nan if value is None else value for value in slow], dtype=torch.float64
    )
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9, equal_nan=True, check_dtype=False)
    alone = [
        max_sensitivity(
            explain, x[n : n + 1], position_channels=channels, radius=radius, samples=samples
        )
        for n in range(len(x))
    ]
    torch.testing.assert_close(torch.cat(alone), ours, equal_nan=True)
    scaled = max_sensitivity(
        lambda x: 7 * explain.explain(x),
        x,
        position_channels=channels,
        radius=radius,
        samples=samples,
    )
    torch.testing.assert_close(scaled, ours, equal_nan=True)


def test_sensitivity_of_a_constant_or_an_empty_focus() -> None:
    x = toy_clips(2, seed=0)[0]

    def explain(clips: Tensor) -> Tensor:
        focus = torch.ones(2, M, 1, V)  # at one frame: any number will do
        focus[1] = 0 if torch.equal(clips, x) else 1
        return focus

    ours = max_sensitivity(explain, x, position_channels=3)
    assert ours[0] == 0 and ours[1].isnan()


def test_more_samples_find_more_and_the_seed_alone_decides(trained: Net) -> None:
    x = toy_clips(N, seed=3)[0]
    explain = grad_cam_of(trained, x)
    numbers = torch.get_rng_state()
    before = state(trained)
    few, more, other = (
        max_sensitivity(explain, x, position_channels=3, samples=samples, seed=seed)
        for samples, seed in ((2, 0), (6, 0), (2, 1))
    )
    assert (more >= few).all() and (more > few).any() and not torch.equal(few, other)
    assert torch.equal(torch.get_rng_state(), numbers) and unchanged(before, trained)
    torch.manual_seed(7)
    assert torch.equal(max_sensitivity(explain, x, position_channels=3, samples=2), few)
    value = max_sensitivity(lambda x: magnitude(x.requires_grad_()), x, position_channels=3)
    assert not value.requires_grad


def test_sensitivity_in_double_and_half_precision() -> None:
    x = toy_clips(N, seed=3)[0]
    full = max_sensitivity(magnitude, x, position_channels=3, radius=0.2)
    double = max_sensitivity(magnitude, x.double(), position_channels=3, radius=0.2)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), full, rtol=0, atol=1e-6)
    half = max_sensitivity(magnitude, x.bfloat16(), position_channels=3, radius=0.2)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"radius": 0}, "a radius above 0, got 0"),
        ({"radius": math.inf}, "a radius above 0, got inf"),
        ({"radius": math.nan}, "a radius above 0, got nan"),
        ({"samples": 0}, "samples as an integer of at least 1, got 0"),
        ({"samples": 1.5}, "samples as an integer of at least 1, got 1.5"),
        ({"position_channels": 0}, "position_channels in 1..C=3, got 0"),
        ({"position_channels": 4}, "position_channels in 1..C=3, got 4"),
        ({"position_channels": True}, "position_channels as a number or a slice, got bool"),
        ({"position_channels": [0, 1]}, "position_channels as a number or a slice, got list"),
        ({"position_channels": slice(3, 5)}, "position_channels within C=3, got slice(3, 5, None)"),
        ({"explain": 3}, "explain to be a function, got int"),
        (
            {"explain": lambda x: (magnitude(x), x)},
            "explain to return a tensor, got tuple; return only the focus",
        ),
        (
            {"explain": lambda x: magnitude(x)[:1]},
            "the focus that explain returns (N=2, M=2, T', V=5), got (1, 2, 8, 5)",
        ),
        ({"x": torch.zeros(2, 3, 8, 5)}, "x (N, C, T, V, M), got (2, 3, 8, 5)"),
        ({"x": np.zeros((2, 3, 8, 5, 2))}, "x (N, C, T, V, M) to be a tensor, got ndarray"),
    ],
)
def test_sensitivity_errors(change: dict[str, Any], told: str) -> None:
    arguments = {
        "explain": magnitude,
        "x": toy_clips(2, seed=0)[0],
        "position_channels": 3,
    } | change
    with pytest.raises(ValueError, match=re.escape(f"max_sensitivity: expected {told}")):
        max_sensitivity(**arguments)
