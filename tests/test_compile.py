"""Test torch.compile around STFObjective and in its model: as eager, or an error with a way out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from layer_tools import gradients, needs_torch, needs_whole_graph
from test_backbones import Backbone
from test_backbones import clips as small_clips
from test_training import CLASSES, C, assert_same_gradients, clips, network
from torch import Tensor, nn

from skeleton_focus import STFLoss, STFObjective

# Terms that need the last layer alone.
LOSSES = {
    "exploration": STFLoss.exploration_branch,
    "divergence and adjacency": lambda: STFLoss(exploration=0, coherence=0),
    "cross-entropy": STFLoss.plain,
}


# torch.compile's own: it looks at .grad of what is not a leaf, and at deprecated parts of PyTorch.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.no_cover,  # a tracer doubles the time of torch's own tracing
]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_same_steps(
    eager: nn.Module, compiled: nn.Module, x: Tensor, target: Tensor, rtol: float = 1e-9
) -> None:
    for _ in range(2):
        results = []
        for trained in (eager, compiled):
            trained.zero_grad()
            results.append(trained(x, target))
            results[-1].loss.backward()
        one, other = results
        torch.testing.assert_close(other.loss, one.loss, rtol=rtol, atol=0)
        torch.testing.assert_close(other.focus, one.focus, rtol=rtol, atol=rtol)
        assert one.terms.keys() == other.terms.keys()
        found = {name.removeprefix("_orig_mod."): g for name, g in gradients(compiled).items()}
        assert_same_gradients(found, gradients(eager), rtol=rtol)


@needs_whole_graph
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("training", [True, False])
def test_no_graph_break_and_the_same_numbers(loss: str, training: bool) -> None:
    """STF-GCN with its generators, traced whole, run by PyTorch's own operations: only rounding."""
    x, target = clips()
    eager = STFObjective(network(depth=3), ["blocks.2"], head="fc", loss=LOSSES[loss]()).train(
        training
    )
    eager(x, target)  # tells whether there is a closed form
    whole = copy.deepcopy(eager)
    assert_same_steps(eager, torch.compile(whole, fullgraph=True, backend="aot_eager"), x, target)
    for (name, one), other in zip(eager.named_buffers(), whole.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    assert all("forward" not in vars(module) for module in whole.modules())


def bare(dtype: torch.dtype = torch.float64) -> Backbone:
    torch.manual_seed(0)
    return Backbone(head="bare").to(dtype)


def test_generated_code() -> None:
    """PyTorch's default compiler: the first batch runs outside, the next ones in one graph."""
    x, target = small_clips()
    eager = STFObjective(
        bare(torch.float32),
        ["high"],
        head="fc",
        loss=STFLoss.exploration_branch(),
        score="log_odds",
    )
    eager.model.low[0].bias = None  # before BatchNorm, its gradient is rounding alone
    compiled = torch.compile(copy.deepcopy(eager))
    assert_same_steps(eager, compiled, x.float(), target, rtol=2e-5)
    assert list(compiled._orig_mod._closed_form.values()) == [True]


@needs_whole_graph
def test_the_first_batch_of_a_whole_graph_says_what_to_do() -> None:
    x, target = small_clips()
    objective = STFObjective(bare(), ["high"], head="fc", loss=STFLoss.exploration_branch())
    with pytest.raises(torch._dynamo.exc.Unsupported, match="runs its first batch"):
        torch.compile(objective, fullgraph=True, backend="aot_eager")(x, target)


@needs_torch(2, 8, "torch.compile notices that terms begin")
def test_terms_that_come_and_go() -> None:
    x, target = small_clips()
    options = {"head": "fc", "loss": STFLoss.exploration_branch(), "every": 2, "warmup": 1}
    eager = STFObjective(bare(), ["high"], **options)
    compiled = torch.compile(copy.deepcopy(eager), backend="aot_eager")
    for _ in range(6):
        one = eager(x, target)
        other = compiled(x, target)
        assert one.terms.keys() == other.terms.keys()
        torch.testing.assert_close(other.loss, one.loss)


@pytest.mark.parametrize(
    ("options", "layer"),
    [
        ({"layers": ["low", "high"], "head": "fc"}, "low"),
        ({"layers": ["high"], "loss": STFLoss(coherence=0)}, "high"),
    ],
)
def test_a_gradient_of_a_gradient_is_refused(options: dict[str, object], layer: str) -> None:
    x, target = small_clips()
    objective = STFObjective(bare(), **options)
    text = f"focus in closed form under torch.compile, got layers .*{layer}"
    text += f".*compile the blocks below '{layer}' instead"
    with pytest.raises(ValueError, match=text):
        torch.compile(objective, backend="aot_eager")(x, target)
    out = objective(x, target)
    assert out.loss.isfinite()


GUIDED = {"guidance": 1.0, "allowed": torch.eye(7, 5) > 0}


@pytest.mark.parametrize(
    ("head", "loss"),
    [
        ("fc", lambda: STFLoss(divergence=0, coherence=0, adjacency=0, **GUIDED)),
        (None, STFLoss.plain),  # erasing itself takes a gradient, not a gradient of a gradient
    ],
    ids=["exploration and guidance", "cross-entropy"],
)
def test_erasing_stays_outside(
    head: str | None, loss: Callable[[], STFLoss], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost is found outside, and the step on what is left is the same as in eager mode."""
    x, target = small_clips()
    eager = STFObjective(bare(), ["high"], head=head, loss=loss(), erasing=1.0)
    compiled = torch.compile(copy.deepcopy(eager), backend="aot_eager")
    losses = []
    for seed in range(3):
        results = []
        for trained in (eager, compiled):
            trained.zero_grad()
            torch.manual_seed(seed)
            results.append(trained(x, target))
            results[-1].loss.backward()
        one, other = results
        torch.testing.assert_close(other.loss, one.loss, rtol=1e-9, atol=0)
        found = {name.removeprefix("_orig_mod."): g for name, g in gradients(compiled).items()}
        assert_same_gradients(found, gradients(eager), rtol=1e-9)
        losses.append(one.loss.item())
        monkeypatch.setattr(STFObjective, "_uncompiled", None)  # which runs the first batch alone
    assert len(set(losses)) == 3  # each seed takes other joints
    for (name, buffer), again in zip(eager.named_buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(again, buffer, msg=name)


@needs_whole_graph
def test_erasing_is_refused_in_a_whole_graph() -> None:
    x, target = small_clips()
    objective = STFObjective(bare(), ["high"], head="fc", loss=STFLoss.plain(), erasing=0.5)
    objective(x, target)
    with pytest.raises(
        torch._dynamo.exc.Unsupported, match="STFObjective computes the focus for erasing outside"
    ):
        torch.compile(objective, fullgraph=True, backend="aot_eager")(x, target)


class Blocks(nn.Module):
    """Three blocks, each a module that can be compiled in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (Block(a, 8) for a in (C, 8, 8))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.third(self.second(self.first(x.permute(0, 4, 1, 2, 3).flatten(0, 1))))
        return self.fc(y.unflatten(0, (len(x), -1)).mean((1, 3, 4)))


class Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


def blocks() -> Blocks:
    torch.manual_seed(0)
    return Blocks().double()


def test_compiled_blocks_that_generate_adjacencies() -> None:
    """STF-GCN: its blocks can be compiled where L_G does not read their generators."""
    x, target = clips()
    loss = STFLoss(exploration=0, adjacency=0)
    eager, partly = (
        STFObjective(network(depth=3), ["blocks.1", "blocks.2"], head="fc", loss=loss)
        for _ in range(2)
    )
    partly.model.blocks[0].compile(backend="aot_eager")
    assert_same_steps(eager, partly, x, target)
    partly.loss = STFLoss(exploration=0)
    with pytest.raises(
        ValueError, match=r"got the compiled 'blocks.0'; .* blocks without them \(L_G reads STFAdj"
    ):
        partly(x, target)


def test_compiled_blocks_below_the_layers() -> None:
    x, target = small_clips()
    eager, partly = (STFObjective(blocks(), ["second", "third"], head="fc") for _ in range(2))
    partly.model.first.compile(backend="aot_eager")
    assert_same_steps(eager, partly, x, target)


@pytest.mark.parametrize("in_place", [True, False])
def test_layers_inside_what_is_compiled_are_refused(in_place: bool) -> None:
    net = blocks()
    if in_place:
        net.compile(backend="aot_eager")
    compiled = net if in_place else torch.compile(net, backend="aot_eager")
    text = "outside of torch.compile, got the compiled .*; "
    text += "compile the STFObjective around the model instead, or"
    for layers in (["second", "third"], [net.third]):
        with pytest.raises(ValueError, match=text):
            STFObjective(compiled, layers, loss=STFLoss(coherence=0))
    partly = blocks()
    partly.third.compile(backend="aot_eager")
    with pytest.raises(ValueError, match=rf"layers \['third'\] {text}"):
        STFObjective(partly, ["second", "third"])
    later = STFObjective(blocks(), ["second", "third"])
    later.model.second.compile(backend="aot_eager")
    with pytest.raises(ValueError, match=r"layers \['second'\] outside"):
        later(*small_clips())


def test_a_compiled_block_after_an_intermediate_layer_is_told() -> None:
    x, target = small_clips()
    objective = STFObjective(blocks(), ["first", "second"])
    objective.model.third.compile(backend="aot_eager")
    text = "layers after 'second' that PyTorch differentiates twice, "
    text += "got 'torch.compile with aot_autograd does not"
    with pytest.raises(ValueError, match=text):
        objective(x, target)
