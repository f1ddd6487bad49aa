"""Test BAGCN's layers: loops from the paper, lengths, streaming, a block in another network."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference_focus_diffusion as reference
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw, filled, learn, weights
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.overrides import TorchFunctionMode

from skeleton_focus import (
    KINECT20,
    NTU25,
    FocusDiffusionBlock,
    GraphConv,
    STFLoss,
    STFObjective,
    TemporalContext,
    TemporalConv,
    directed_adjacency,
    mask_padding,
    spatial_partition,
)
from skeleton_focus._second_order import plain_kernels
from skeleton_focus.feature_tap import FeatureTap
from skeleton_focus.focus_diffusion import AttentiveDiffusion, AttentiveFocus

FOCUS = ("attention", "mean", "max", "none")
CONTEXT = ("bidirectional", "forward", "none")
GRAPHS = [directed_adjacency(KINECT20, direction)[:, :5, :5] for direction in ("outward", "inward")]


def small(**options: Any) -> FocusDiffusionBlock:
    torch.manual_seed(0)
    return filled(
        FocusDiffusionBlock(3, 8, *GRAPHS, **{"context_channels": 4, **options}), scale=0.8
    )


WAYS = [(focus, "sigmoid") for focus in ("attention", "mean", "max")] + [("attention", "softmax")]


@pytest.mark.parametrize(("focus", "normalize"), WAYS)
def test_equation_4_by_loops(focus: str, normalize: str) -> None:
    layer = filled(AttentiveFocus(4, focus=focus, normalize=normalize), scale=0.8)
    x = draw(2, 4, 3, 5)
    latent, shares = reference.equation_4(x.numpy(), weights(layer), focus, normalize)
    node = layer(x)
    assert node.features.shape == (2, 4, 3, 1) and node.weights.shape == (2, 3, 5)
    np.testing.assert_allclose(node.features[..., 0].detach().numpy(), latent, atol=1e-12)
    np.testing.assert_allclose(node.weights.detach().numpy(), shares, atol=1e-12)


@pytest.mark.parametrize("lengths", [None, [4, 1], [2, 3]])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("direction", ["bidirectional", "forward"])
def test_equations_5_and_6_by_loops(direction: str, layers: int, lengths: list[int] | None) -> None:
    layer = filled(TemporalContext(3, context_channels=4, direction=direction, layers=layers))
    x = draw(2, 3, 4, 2)
    y = layer(x, None if lengths is None else torch.tensor(lengths))
    expected = reference.context(
        x.numpy(), weights(layer), layers, direction == "bidirectional", lengths
    )
    assert y.shape == (2, 4, 4, 2)
    np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-12)


def test_equation_7_by_loops() -> None:
    layer = filled(AttentiveDiffusion(4, 6), scale=0.8)
    x = draw(2, 4, 3, 5)
    context = draw(2, 6, 3, 1, seed=1)
    shares = draw(2, 3, 5, seed=2)
    expected = reference.equation_7(
        x.numpy(), context[..., 0].numpy(), shares.numpy(), weights(layer)
    )
    np.testing.assert_allclose(layer(x, context, shares).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("context", CONTEXT)
@pytest.mark.parametrize("focus", FOCUS)
def test_the_block_by_loops(focus: str, context: str) -> None:
    """Equations 1 to 3, every row of tables 3 and 4."""
    layer = small(focus=focus, context=context)
    x = draw(2, 3, 3, 5)
    expected = reference.block(x.numpy(), weights(layer), focus, context)
    assert np.abs(expected).max() > 0.1 and expected.shape == (2, 8, 3, 5)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)


def test_the_block_by_loops_with_softmax_and_lengths() -> None:
    layer = small(normalize="softmax")
    x = draw(2, 3, 4, 5)
    expected = reference.block(
        x.numpy(), weights(layer), "attention", "bidirectional", "softmax", [2, 4]
    )
    expected[0, :, 2:] = 0
    np.testing.assert_allclose(
        layer(x, torch.tensor([2, 4])).detach().numpy(), expected, atol=1e-12
    )


def test_the_rows_of_the_tables_are_parts_left_out() -> None:
    assert small().context.lstm.num_layers == 2 and small().context.lstm.hidden_size == 2
    assert small(context="forward").context.lstm.hidden_size == 4  # the width of the context stays
    assert small(context="none").context is None
    without = small(focus="none")
    assert without.focus is None and without.context is None and without.diffusion is None
    assert {name.split(".")[0] for name, _ in without.named_parameters()} == {
        "outward",
        "outward_norm",
        "inward",
        "inward_norm",
    }
    paper = FocusDiffusionBlock(64, 128, *GRAPHS)
    assert paper.outward.weight.shape[1] == 32 and paper.context.context_channels == 128
    assert FocusDiffusionBlock(64, 128, *GRAPHS, hidden_channels=5).inward.weight.shape == (
        2,
        128,
        5,
    )


def test_edges_start_at_one_and_none_appears() -> None:
    block = FocusDiffusionBlock(3, 8, *GRAPHS)
    assert not torch.equal(*GRAPHS)
    block(torch.randn(2, 3, 4, 5)).square().sum().backward()
    for conv, graph in zip((block.outward, block.inward), GRAPHS, strict=True):
        assert torch.equal(conv.current_adjacency(torch.zeros(1)), graph)
        assert torch.equal(conv.importance.grad != 0, graph != 0)


def test_one_latent_node_by_hand() -> None:
    """Two joints of 1 and 3, weights sigmoid(0): the node is 2; half of it returns to each."""
    focus = AttentiveFocus(1)
    diffusion = AttentiveDiffusion(1, 1)
    with torch.no_grad():
        focus.embed.weight.fill_(1)
        focus.score.weight.zero_()
        focus.score.bias.zero_()
        diffusion.mix.weight.copy_(torch.tensor([10.0, 1.0]).view(1, 2, 1, 1))
        diffusion.mix.bias.zero_()
    x = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    node = focus(x)
    assert node.features.item() == 2 and node.weights.flatten().tolist() == [0.5, 0.5]
    assert diffusion(x, *node).flatten().tolist() == [11, 31]


def test_the_second_derivative_of_the_float32_lstm() -> None:
    """Another kernel than that of float64, which the check above sees."""
    layer = TemporalContext(3, context_channels=4)
    found = []
    for dtype in (torch.float32, torch.float64):
        one = copy.deepcopy(layer).to(dtype)
        x = draw(2, 3, 5, 1).to(dtype).requires_grad_()
        (g,) = torch.autograd.grad(one(x).square().sum(), x, create_graph=True)
        g.square().sum().backward()
        found.append([p.grad.double() for p in one.parameters()])
    for low, exact in zip(*found, strict=True):
        assert (low - exact).norm() <= 1e-5 * exact.norm()


@given(order=st.permutations(range(5)), focus=st.sampled_from(FOCUS))
def test_relabelling_joints_permutes_the_output(order: list[int], focus: str) -> None:
    layer = small(focus=focus)
    x = draw(2, 3, 3, 5)
    relabelled = copy.deepcopy(layer)
    for ours, theirs in ((relabelled.outward, layer.outward), (relabelled.inward, layer.inward)):
        ours.adjacency = theirs.adjacency[:, order][..., order]
        ours.importance.data = theirs.importance.data[:, order][..., order]
    torch.testing.assert_close(relabelled(x[..., order]), layer(x)[..., order], rtol=0, atol=1e-12)


@given(
    length=st.integers(1, 6),
    padding=st.integers(0, 5),
    context=st.sampled_from(CONTEXT),
    junk=st.booleans(),
)
def test_appending_padding_changes_nothing(
    length: int, padding: int, context: str, junk: bool
) -> None:
    layer = small(context=context)
    x = draw(3, 3, length, 5)
    beyond = (1e3 if junk else 0) * draw(3, 3, padding, 5, seed=1)
    padded = layer(torch.cat([x, beyond], 2), torch.full((3,), length))
    torch.testing.assert_close(padded[:, :, :length], layer(x), rtol=0, atol=1e-12)
    assert (padded[:, :, length:] == 0).all()


def test_gradients_do_not_reach_the_padding() -> None:
    layer = filled(TemporalContext(3, context_channels=4))
    x = draw(2, 3, 5, 1).requires_grad_()
    y = layer(x, torch.tensor([5, 3]))
    assert (y[1, :, 3:] == 0).all()
    y.square().sum().backward()
    assert (
        (x.grad[1, :, 3:] == 0).all() and (x.grad[1, :, :3] != 0).all() and (x.grad[0] != 0).all()
    )


def test_mask_padding() -> None:
    x = draw(2, 3, 4, 5)
    lengths = torch.tensor([4, 2])
    x[1, :, 2:] = float("nan")
    before = x.clone()
    masked = mask_padding(x, lengths)
    assert torch.equal(masked[0], x[0]) and torch.equal(masked[1, :, :2], x[1, :, :2])
    assert (masked[1, :, 2:] == 0).all() and torch.equal(x.nan_to_num(), before.nan_to_num())
    assert mask_padding(x, None) is x
    with pytest.raises(ValueError, match=r"^mask_padding: expected lengths in 1..4, got \[5, 2\]$"):
        mask_padding(x, torch.tensor([5, 2]))


def test_lengths_in_training() -> None:
    """BatchNorm counts the padding, the LSTM does not; the gradients of both orders are true."""
    layer = small().train()
    x = draw(2, 3, 4, 5).requires_grad_()
    lengths = torch.tensor([4, 2])
    assert gradcheck(lambda y: layer(y, lengths), x)
    assert gradgradcheck(lambda y: layer(y, lengths), x, fast_mode=True)
    with torch.autocast("cpu", torch.bfloat16):
        low = copy.deepcopy(layer).float()(x.float(), lengths.int())
    assert (low.double() - layer(x, lengths)).norm() < 0.05 * layer(x, lengths).norm()


@given(
    cuts=st.lists(st.integers(1, 8), max_size=4, unique=True),
    context=st.sampled_from(("forward", "none")),
)
def test_chunk_by_chunk_is_the_whole_clip(cuts: list[int], context: str) -> None:
    layer = small(context=context)
    x = draw(2, 3, 9, 5)
    state = None
    out = []
    edges = [0, *sorted(cuts), 9]
    for begin, end in itertools.pairwise(edges):
        y, state = layer.stream(x[:, :, begin:end], state)
        out.append(y)
    torch.testing.assert_close(torch.cat(out, 2), layer(x), rtol=0, atol=1e-12)
    assert (state is None) == (context == "none")


def test_a_stream_can_be_trained_and_leaves_its_state_alone() -> None:
    layer = filled(TemporalContext(3, context_channels=2, direction="forward"))
    x = draw(2, 3, 6, 1)
    first, state = layer.stream(x[:, :, :3])
    kept = [part.clone() for part in state]
    second, _ = layer.stream(x[:, :, 3:], [nn.Parameter(part) for part in state])
    assert torch.equal(second, layer.stream(x[:, :, 3:], state)[0])
    second, _ = layer.stream(x[:, :, 3:], state)
    torch.cat([first, second], 2).square().sum().backward()
    streamed = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    layer(x).square().sum().backward()
    for mine, p in zip(streamed, layer.parameters(), strict=True):
        torch.testing.assert_close(mine, p.grad, rtol=0, atol=1e-12)
    assert all(torch.equal(part, before) for part, before in zip(state, kept, strict=True))


class STGCN(nn.Module):
    """An ST-GCN as users write one. BAGCN's block goes in by two lines: its graphs, and itself."""

    def __init__(self, *, focus: bool) -> None:
        super().__init__()
        graphs = [directed_adjacency(NTU25, way) for way in ("outward", "inward")]

        def graph_conv(c: int, o: int) -> nn.Module:
            if focus:
                return FocusDiffusionBlock(c, o, *graphs)
            return GraphConv(c, o, spatial_partition(NTU25))

        widths = [3, 16, 16, 32]
        pairs = list(itertools.pairwise(widths))
        self.graphs = nn.ModuleList(graph_conv(c, o) for c, o in pairs)
        self.temporals = nn.ModuleList(TemporalConv(o, o, stride=1 + (o == 32)) for _, o in pairs)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 1, 2, 3).reshape(n * m, c, t, v)
        for graph, temporal in zip(self.graphs, self.temporals, strict=True):
            x = F.relu(temporal(F.relu(graph(x))))
        return self.fc(x.view(n, m, 32, -1).mean((1, 3)))


@pytest.mark.parametrize("branch", ["none", "focus", "exploration"])
def test_the_block_in_a_user_s_own_network(branch: str) -> None:
    torch.manual_seed(0)
    network = STGCN(focus=True)
    x = torch.randn(8, 3, 8, 25, 2)
    target = torch.tensor([0, 1, 2, 3] * 2)
    loss = {
        "none": STFLoss.plain,
        "focus": STFLoss.focus_branch,
        "exploration": STFLoss.exploration_branch,
    }[branch]()
    objective = STFObjective(network, layers=["temporals.1", "temporals.2"], head="fc", loss=loss)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses, _ = learn(objective, optimizer, x, target, steps=30)
    assert losses[-1] < 0.5 * losses[0]
    assert STGCN(focus=False)(x).shape == network(x).shape == (8, 4)


def test_the_channel_gradient_through_the_lstm() -> None:
    """The gradient at a shift below a block, differentiated again, is that at the whole map."""
    torch.manual_seed(0)
    network = STGCN(focus=True).double()
    plain = copy.deepcopy(network)
    x = torch.randn(2, 3, 6, 25, 1).double()
    with FeatureTap(network, ["temporals.1"], twice=["temporals.1"]) as tap:
        score = network(x)[:, 0]
    cheap = tap.channel_gradient("temporals.1", score, create_graph=True)
    with FeatureTap(plain, ["temporals.1"]) as tap:
        score = plain(x)[:, 0]
    direct = torch.autograd.grad(score.sum(), tap["temporals.1"], create_graph=True)[0].sum((2, 3))
    torch.testing.assert_close(cheap, direct)
    for gradient in (cheap, direct):
        (gradient.square().sum() * 1e3).backward()
    recurrent = set()
    for (name, mine), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-8, atol=1e-12, msg=name)
            if "lstm" in name and theirs.grad.abs().max() > 1e-9:
                recurrent.add(name.split(".lstm")[0])
    assert recurrent == {f"graphs.{i}.context" for i in range(3)}


class Watch(TorchFunctionMode):
    """Notes whether cuDNN is on when a recurrent layer runs, and when a convolution does."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bool]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu, F.conv2d):
            self.seen.append((func.__name__, torch.backends.cudnn.enabled))
        return func(*args, **(kwargs or {}))


def test_cudnn_is_off_for_what_is_differentiated_twice_alone() -> None:
    network = STGCN(focus=True)
    x = torch.randn(2, 3, 4, 25, 1)
    with Watch() as watch, FeatureTap(network, ["temporals.1"], twice=["temporals.1"]):
        network(x)
    assert [on for name, on in watch.seen if name == "lstm"] == [True, True, False]
    assert all(on for name, on in watch.seen if name == "conv2d") and torch.backends.cudnn.enabled
    for kind in (nn.LSTM, nn.GRU, nn.RNN, lambda *sizes: nn.RNN(*sizes, nonlinearity="relu")):
        with Watch() as watch, plain_kernels():
            kind(3, 4)(torch.zeros(2, 1, 3))
        assert [on for _, on in watch.seen] == [False]


def test_cudnn_is_off_below_every_gradient() -> None:
    """In evaluation too, where cuDNN's LSTM has no gradient at all."""
    names = ["temporals.1", "temporals.2"]
    objective = STFObjective(STGCN(focus=True), names, head="fc")
    x = torch.randn(2, 3, 4, 25, 1)
    target = torch.tensor([0, 1])

    def lstms(run: Callable[[], object]) -> list[bool]:
        with Watch() as watch:
            run()
        assert all(on for name, on in watch.seen if name == "conv2d")
        return [on for name, on in watch.seen if name == "lstm"]

    for runs in (2, 1):  # the first batch is rehearsed
        assert lstms(lambda: objective(x, target)) == [True, True, False] * runs
    objective.eval()
    with torch.no_grad():
        assert lstms(lambda: objective(x, target)) == [True, True, False] * 2
    assert lstms(lambda: objective.explain(x, layer="temporals.1")) == [True, True, False]
    plain = STFObjective(objective.model, names, head="fc", loss=STFLoss.plain())
    assert lstms(lambda: plain(x, target)) == [True] * 3


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: cuDNN's LSTM is there alone"
)
def test_stf_through_cudnn_s_lstm() -> None:
    torch.manual_seed(0)
    network = STGCN(focus=True)
    exact = STFObjective(copy.deepcopy(network).double(), ["temporals.1", "temporals.2"], head="fc")
    ours = STFObjective(network.cuda(), ["temporals.1", "temporals.2"], head="fc")
    x = torch.randn(4, 3, 8, 25, 1)
    target = torch.tensor([0, 1, 2, 3])
    ours(x.cuda(), target.cuda()).loss.backward()
    exact(x.double(), target).loss.backward()
    for (name, mine), theirs in zip(ours.named_parameters(), exact.parameters(), strict=True):
        assert (mine.grad.cpu().double() - theirs.grad).norm() < 1e-2 * theirs.grad.norm() + 1e-6, (
            name
        )


ERRORS: list[tuple[Callable[[], object], str]] = [
    (lambda: AttentiveFocus(0), r"AttentiveFocus: expected at least 1 channel, got 0"),
    (
        lambda: AttentiveFocus(4, focus="none"),
        r"AttentiveFocus: expected focus to be one of 'attention', 'mean', 'max', got 'none'",
    ),
    (
        lambda: AttentiveFocus(4, focus="mean", normalize="softmax"),
        r"AttentiveFocus: expected normalize='softmax' with focus='attention', got focus='mean'",
    ),
    (
        lambda: AttentiveFocus(4)(torch.zeros(2, 3, 5, 6)),
        r"AttentiveFocus: expected x \(N, C=4, T, V\), got \(2, 3, 5, 6\)",
    ),
    (
        lambda: AttentiveFocus(4)(torch.zeros(2, 4, 5, 0)),
        r"AttentiveFocus: expected x with at least 1 joint, got \(2, 4, 5, 0\)",
    ),
    (
        lambda: TemporalContext(4, direction="backward"),
        "TemporalContext: expected direction to be one of 'bidirectional', 'forward', "
        "got 'backward'",
    ),
    (
        lambda: TemporalContext(4, context_channels=5),
        "TemporalContext: expected at least 1 context channel, "
        "an even number for two directions, got 5",
    ),
    (
        lambda: TemporalContext(4, layers=0),
        r"TemporalContext: expected at least 1 channel and 1 layer, got \(4, 0\)",
    ),
    (
        lambda: TemporalContext(4)(torch.zeros(2, 4, 0, 1)),
        r"TemporalContext: expected x with at least 1 clip, frame and joint, got \(2, 4, 0, 1\)",
    ),
    (
        lambda: TemporalContext(4)(torch.zeros(2, 4, 3, 1), torch.tensor([3])),
        r"TemporalContext: expected lengths \(N=2\), got \(1,\)",
    ),
    (
        lambda: TemporalContext(4)(torch.zeros(2, 4, 3, 1), torch.tensor([3, 0])),
        r"TemporalContext: expected lengths in 1..3, got \[3, 0\]",
    ),
    (
        lambda: TemporalContext(4)(torch.zeros(2, 4, 3, 1), torch.tensor([3, 4])),
        r"TemporalContext: expected lengths in 1..3, got \[3, 4\]",
    ),
    (
        lambda: TemporalContext(4)(torch.zeros(2, 4, 3, 1), torch.tensor([3.0, 2.5])),
        r"TemporalContext: expected integer lengths, got torch.float32",
    ),
    (
        lambda: TemporalContext(4, direction="forward").stream(
            torch.zeros(2, 4, 3, 1), (torch.zeros(2, 2, 128),)
        ),
        r"TemporalContext.stream: expected the returned state, a pair of tensors, got tuple",
    ),
    (
        lambda: TemporalContext(4, direction="forward").stream(
            torch.zeros(2, 4, 3, 1), torch.tensor([3, 2])
        ),
        r"TemporalContext.stream: expected the returned state, a pair of tensors, got Tensor",
    ),
    (
        lambda: FocusDiffusionBlock(4, 8, *GRAPHS).stream(torch.zeros(2, 4, 3, 5)),
        "FocusDiffusionBlock.stream: expected context='forward', which needs no later frame, "
        "got 'bidirectional'",
    ),
    (
        lambda: FocusDiffusionBlock(4, 8, *GRAPHS)(torch.zeros(2, 4, 0, 5)),
        r"FocusDiffusionBlock: expected x with at least 1 clip and frame, got \(2, 4, 0, 5\)",
    ),
    (
        lambda: TemporalContext(4, direction="forward").stream(
            torch.zeros(2, 4, 3, 1), (torch.zeros(2, 2, 128), torch.zeros(2, 2, 128).double())
        ),
        r"TemporalContext.stream: expected a state of torch.float32, got torch.float64",
    ),
    (
        lambda: FocusDiffusionBlock(4, 8, *GRAPHS, context="none")(
            torch.zeros(2, 4, 3, 5), torch.tensor([1, 9])
        ),
        r"FocusDiffusionBlock: expected lengths in 1..3, got \[1, 9\]",
    ),
    (
        lambda: FocusDiffusionBlock(4, 8, *GRAPHS, context="none").stream(
            torch.zeros(2, 4, 3, 5), (torch.zeros(1),) * 2
        ),
        r"FocusDiffusionBlock.stream: expected no state, got one; this block has no context",
    ),
    (
        lambda: FocusDiffusionBlock(4, 8, *GRAPHS, focus="none", normalize="softmax"),
        "FocusDiffusionBlock: expected normalize='softmax' with focus='attention', "
        "got focus='none'",
    ),
    (
        lambda: FocusDiffusionBlock(4, 8, *GRAPHS, normalize="none"),
        r"FocusDiffusionBlock: expected normalize to be one of .*, got 'none'",
    ),
    (
        lambda: TemporalContext(4).stream(torch.zeros(2, 4, 3, 1)),
        "TemporalContext.stream: expected direction='forward', which needs no later frame, "
        "got bidirectional",
    ),
    (
        lambda: TemporalContext(4, direction="forward").stream(
            torch.zeros(2, 4, 3, 1), (torch.zeros(2, 3, 128),) * 2
        ),
        r"TemporalContext.stream: expected a state \(layers=2, N\*V=2, O=128\), got \(2, 3, 128\)",
    ),
    (
        lambda: AttentiveDiffusion(4, 0),
        r"AttentiveDiffusion: expected at least 1 channel of each, got \(4, 0\)",
    ),
    (
        lambda: AttentiveDiffusion(4, 6)(
            torch.zeros(2, 4, 3, 5), torch.zeros(2, 6, 3, 5), torch.zeros(2, 3, 5)
        ),
        r"AttentiveDiffusion: expected context \(N=2, D=6, T=3, V=1\), got \(2, 6, 3, 5\)",
    ),
    (
        lambda: FocusDiffusionBlock(4, 8, *GRAPHS, context="both"),
        r"FocusDiffusionBlock: expected context to be one of .*'none', got 'both'",
    ),
    (
        lambda: FocusDiffusionBlock(4, 8, GRAPHS[0], torch.zeros(2, 6, 6)),
        r"FocusDiffusionBlock: expected two adjacencies of the same joints, got \(5, 6\)",
    ),
    (
        lambda: FocusDiffusionBlock(4, 0, *GRAPHS),
        r"FocusDiffusionBlock: expected at least 1 channel, got \(4, 1, 0, 128\)",
    ),
    (
        lambda: FocusDiffusionBlock(4, 8, *GRAPHS)(torch.zeros(2, 4, 3, 6)),
        r"FocusDiffusionBlock: expected x \(N, C=4, T, V=5\), got \(2, 4, 3, 6\)",
    ),
]


@pytest.mark.parametrize(("wrong", "error"), ERRORS)
def test_errors(wrong: Callable[[], object], error: str) -> None:
    with pytest.raises(ValueError, match=f"^{error}$"):
        wrong()
