"""Test attention layers: loops from the paper, fused against plain, what changes no output."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import reference_attention as reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw, filled, joined, weights
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from skeleton_focus import (
    DilatedTemporalAttention,
    JointPartAttention,
    SpatialAttention,
    STFLoss,
    STFObjective,
    attention,
)
from skeleton_focus.attention import position_codes
from skeleton_focus.feature_tap import FeatureTap


def some_joints(n: int, t: int, kept: int, joints: int) -> Tensor:
    random = np.random.default_rng(0)
    return torch.tensor(
        [[sorted(random.choice(joints, kept, replace=False)) for _ in range(t)] for _ in range(n)]
    )


@pytest.mark.parametrize("channels", [1, 5, 8])
def test_position_codes_by_loops(channels: int) -> None:
    positions = torch.tensor([[0, 3], [7, 24]])
    expected = [[reference.position_codes(p, channels) for p in row] for row in positions.tolist()]
    np.testing.assert_allclose(
        position_codes(positions.double(), channels).numpy(), expected, atol=1e-12
    )
    np.testing.assert_allclose(position_codes(positions, channels).numpy(), expected, atol=1e-5)
    assert position_codes(positions, channels).dtype == torch.float32


MAPS = ("one", "per_head")


@pytest.mark.parametrize("shared_map", MAPS)
@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_equation_1_by_loops(heads: int, codes: bool, shared_map: str) -> None:
    layer = filled(SpatialAttention(7, 4, heads=heads, position_codes=codes, shared_map=shared_map))
    x = draw(2, 7, 3, 4)
    expected = reference.spatial_attention(x.numpy(), weights(layer), heads, codes=codes)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("shared_map", MAPS)
def test_equation_1_of_some_joints_by_loops(shared_map: str) -> None:
    layer = filled(SpatialAttention(7, 6, shared_map=shared_map))
    x = draw(2, 7, 3, 4)
    joints = some_joints(2, 3, 4, 6)
    expected = reference.spatial_attention(x.numpy(), weights(layer), 3, joints.numpy())
    np.testing.assert_allclose(layer(x, joints).detach().numpy(), expected, atol=1e-12)
    everyone = torch.arange(6).expand(2, 3, 6)
    torch.testing.assert_close(
        layer(draw(2, 7, 3, 6), everyone), layer(draw(2, 7, 3, 6)), rtol=0, atol=1e-12
    )


def test_a_map_for_each_head() -> None:
    """Equal maps are the one map; a different one changes the values of its own head alone."""
    one, per_head = (SpatialAttention(6, 4, heads=2, shared_map=name) for name in MAPS)
    assert one.state_dict().keys() == per_head.state_dict().keys()
    assert one.shared.shape == (4, 4) and per_head.shared.shape == (2, 4, 4)
    assert torch.equal(one.shared.expand(2, 4, 4), per_head.shared) and bool(
        (one.shared == 0.25).all()
    )
    one = filled(one)
    x = draw(2, 6, 3, 3)
    joints = some_joints(2, 3, 3, 4)
    state = one.state_dict()
    per_head.double().eval().load_state_dict({**state, "shared": state["shared"].expand(2, 4, 4)})
    torch.testing.assert_close(per_head(x, joints), one(x, joints), rtol=0, atol=1e-12)
    whole = draw(2, 6, 3, 4)
    torch.testing.assert_close(per_head(whole), one(whole), rtol=0, atol=1e-12)

    values: list[torch.Tensor] = []
    heads_of: list[torch.Tensor] = []
    per_head.project.register_forward_hook(lambda _, inputs, output: values.append(output[2]))
    per_head.update.register_forward_pre_hook(lambda _, inputs: heads_of.append(inputs[1]))
    per_head(whole)
    with torch.no_grad():
        per_head.shared[1] += 1
    per_head(whole)
    before, after = heads_of
    assert torch.equal(after[:, 0], before[:, 0])
    torch.testing.assert_close(
        after[:, 1] - before[:, 1], values[0][:, 1].sum(1, keepdim=True).expand(6, 4, 3)
    )


@pytest.mark.parametrize("heads", [1, 3])
def test_equation_4_by_loops(heads: int) -> None:
    layer = filled(JointPartAttention(7, heads=heads))
    joints = draw(2, 7, 3, 5)
    parts = draw(2, 7, 3, 2, seed=1)
    expected = reference.joint_part_attention(joints.numpy(), parts.numpy(), weights(layer), heads)
    for got, wanted in zip(layer(joints, parts), expected, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), wanted, atol=1e-12)


def test_the_maps_are_the_attention() -> None:
    layer = filled(JointPartAttention(6, heads=2))
    joints = draw(2, 6, 3, 5)
    parts = draw(2, 6, 3, 4, seed=1)
    to_parts, to_joints = layer.maps(joints, parts)
    assert to_parts.shape == (2, 2, 3, 5, 4) and to_joints.shape == (2, 2, 3, 4, 5)
    for n in range(2):
        for t in range(3):
            q_j, k_j, _ = reference.projections(
                joints[n, :, t].numpy().T, weights(layer), "project_joints", 2
            )
            q_p, k_p, _ = reference.projections(
                parts[n, :, t].numpy().T, weights(layer), "project_parts", 2
            )
            for h in range(2):
                seen = to_parts[n, h, t].detach().numpy(), to_joints[n, h, t].detach().numpy()
                np.testing.assert_allclose(
                    seen[0], reference.equation_1(q_j[h], k_p[h], np.eye(4)), atol=1e-12
                )
                np.testing.assert_allclose(
                    seen[1], reference.equation_1(q_p[h], k_j[h], np.eye(5)), atol=1e-12
                )


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize(("out", "stride"), [(6, 1), (9, 1), (6, 2), (9, 3)])
def test_equation_5_by_loops(frames: int, out: int, stride: int) -> None:
    layer = filled(DilatedTemporalAttention(6, out, kernel_size=5, stride=stride))
    x = draw(2, 6, frames, 3)
    expected = reference.equation_5(
        x.numpy(), weights(layer), (1, 2), stride, attention=True, convolution=True
    )
    assert expected.shape == (2, out, -(-frames // stride), 3)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("attention", "convolution"), [(True, False), (False, True)])
def test_the_rows_of_table_3_by_loops(attention: bool, convolution: bool) -> None:
    options = {"attention": attention, "convolution": convolution}
    layer = filled(DilatedTemporalAttention(4, 6, dilations=(1, 2, 4), stride=2, **options))
    x = draw(2, 4, 9, 2)
    expected = reference.equation_5(x.numpy(), weights(layer), (1, 2, 4), 2, **options)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)
    kernel = layer.values[0].kernel_size[0]
    assert kernel == (7 if convolution else 1)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "spatial": (lambda: SpatialAttention(6, 4), ((2, 6, 3, 4),)),
    "spatial, a map for each head": (
        lambda: SpatialAttention(6, 4, shared_map="per_head"),
        ((2, 6, 3, 4),),
    ),
    "joint-part": (lambda: JointPartAttention(6, heads=2), ((2, 6, 3, 4), (2, 6, 3, 2))),
    "temporal": (lambda: DilatedTemporalAttention(6, 6, kernel_size=3), ((2, 6, 5, 2),)),
    "temporal, strided": (
        lambda: DilatedTemporalAttention(6, 8, kernel_size=3, stride=2),
        ((2, 6, 5, 2),),
    ),
    "temporal, attention alone": (
        lambda: DilatedTemporalAttention(6, 6, convolution=False),
        ((2, 6, 5, 2),),
    ),
    "temporal, convolution alone": (
        lambda: DilatedTemporalAttention(6, 6, attention=False),
        ((2, 6, 5, 2),),
    ),
}


def built(name: str) -> tuple[nn.Module, list[Tensor]]:
    make, shapes = LAYERS[name]
    torch.manual_seed(0)
    return filled(make()), [draw(*shape, seed=seed) for seed, shape in enumerate(shapes)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_fused_and_plain_attention_agree(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "ATTEND_PLAINLY", 0)
    layer, inputs = built(name)
    found = []
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
        one = copy.deepcopy(layer).to(dtype)
        given_ = [x.to(dtype).requires_grad_() for x in inputs]
        with sdpa_kernel(backend):
            y = joined(one(*given_))
            y.square().sum().backward()
        of_weights = torch.cat([p.grad.flatten() for p in one.parameters() if p.grad is not None])
        found.append([y, *(x.grad for x in given_), of_weights])
    for plain, fused in zip(*found, strict=True):
        assert (plain - fused).norm() <= 1e-5 * plain.norm()
    assert "heads=" in repr(layer)


@given(order=st.permutations(range(5)), frames=st.integers(1, 4), shared_map=st.sampled_from(MAPS))
def test_relabelling_joints_permutes_the_output(
    order: list[int], frames: int, shared_map: str
) -> None:
    layer = filled(SpatialAttention(6, 5, position_codes=False, shared_map=shared_map))
    x = draw(2, 6, frames, 5)
    relabelled = copy.deepcopy(layer)
    with torch.no_grad():
        relabelled.shared.copy_(layer.shared[..., order, :][..., order])
    torch.testing.assert_close(relabelled(x[..., order]), layer(x)[..., order], rtol=0, atol=1e-12)
    joints = some_joints(2, frames, 3, 5)
    named = torch.tensor(order).argsort()
    some = x[..., :3]
    torch.testing.assert_close(
        relabelled(some, named[joints]), layer(some, joints), rtol=0, atol=1e-12
    )
    temporal = filled(DilatedTemporalAttention(6, 8, stride=2))
    torch.testing.assert_close(temporal(x[..., order]), temporal(x)[..., order], rtol=0, atol=1e-12)


def test_codes_tell_joints_and_frames_apart() -> None:
    with_codes, without = (
        filled(SpatialAttention(6, 5, position_codes=codes)) for codes in (True, False)
    )
    for layer in (with_codes, without):
        layer.shared.data.fill_(0.2)
    x = draw(1, 6, 1, 1).expand(1, 6, 4, 5)
    spread = [layer(x).std(3).max().item() for layer in (with_codes, without)]
    assert spread[0] > 1e-3 and spread[1] < 1e-12
    temporal = filled(DilatedTemporalAttention(6, 6, convolution=False))
    assert temporal(x).std(2).max() > 1e-3


def test_uniform_attention_is_the_mean() -> None:
    """Limits: queries of zero attend evenly; a shared map of 1 / V adds the same mean again."""
    layer = filled(SpatialAttention(6, 5, heads=2, position_codes=False))
    x = draw(2, 6, 3, 5)
    with torch.no_grad():
        layer.project.linear.weight[:6] = 0
        layer.project.linear.bias[:6] = 0
        layer.shared.fill_(0.2)
    values = nn.functional.linear(
        x.permute(0, 2, 3, 1), layer.project.linear.weight[12:], layer.project.linear.bias[12:]
    )
    mean = (2 * values.mean(2, keepdim=True)).expand(2, 3, 5, 6).permute(0, 3, 1, 2)
    z = layer.update.norm(x + layer.update.project(mean))
    expected = layer.update.linear_norm(z + nn.functional.leaky_relu(layer.update.linear(z)))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


class Net(nn.Module):
    """A low layer, attention over joints and frames behind it, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(3, 6, 1)
        self.fc = nn.Linear(6, 5)
        self.behind = nn.Sequential(
            SpatialAttention(6, 4), DilatedTemporalAttention(6, 6, kernel_size=3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.behind(self.low(x)).mean((2, 3)))


@pytest.mark.parametrize("training", [True, False])
def test_the_focus_below_attention_can_be_trained(training: bool) -> None:
    """A loss on the gradient below fused attention: FeatureTap takes the plain kernel."""
    torch.manual_seed(0)
    net = Net().double().train(training)
    x = draw(3, 3, 4, 4)
    plain = copy.deepcopy(net)
    with FeatureTap(net, ["low"], twice=["low"]) as tap:
        score = net(x)[:, 0]
    cheap = tap.channel_gradient("low", score, create_graph=True)
    cheap.square().sum().backward()
    with sdpa_kernel(SDPBackend.MATH):
        low = plain.low(x)
        direct = plain.fc(plain.behind(low).mean((2, 3)))[:, 0]
        whole = torch.autograd.grad(direct.sum(), low, create_graph=True)[0].sum((2, 3))
    whole.square().sum().backward()
    torch.testing.assert_close(cheap, whole)
    for (name, mine), theirs in zip(net.named_parameters(), plain.parameters(), strict=True):
        none = torch.zeros_like(mine)
        mine_, theirs_ = (none if p.grad is None else p.grad for p in (mine, theirs))
        torch.testing.assert_close(mine_, theirs_, rtol=1e-8, atol=1e-12, msg=name)


class Heads(nn.Module):
    """PyTorch's own attention as a layer of maps."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        if kind == "encoder":
            self.layer: nn.Module = nn.TransformerEncoderLayer(
                6, 2, 8, dropout=0.0, batch_first=True
            )
        else:
            self.layer = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v = x.shape
        tokens = x.permute(0, 2, 3, 1).reshape(n * t, v, c)
        if isinstance(self.layer, nn.MultiheadAttention):
            y = self.layer(tokens, tokens, tokens, need_weights=False)[0]
        else:
            y = self.layer(tokens)
        return y.view(n, t, v, c).permute(0, 3, 1, 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["attention", "encoder"])
def test_the_focus_below_attention_of_pytorch(kind: str, training: bool) -> None:
    net = Net()
    net.behind = nn.Sequential(Heads(kind), DilatedTemporalAttention(6, 6, kernel_size=3))
    net.double().train(training)
    with FeatureTap(net, ["low"], twice=["low"]) as tap:
        score = net(draw(3, 3, 4, 4))[:, 0]
    tap.channel_gradient("low", score, create_graph=True).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.low.parameters())
    assert (
        max(p.grad.abs().max().item() for p in net.behind[0].parameters() if p.grad is not None)
        > 1e-9
    )


@pytest.mark.parametrize("branch", [STFLoss.exploration_branch, lambda: STFLoss(coherence=0.0)])
@pytest.mark.parametrize("head", [None, "fc"])
def test_attention_above_the_only_layer(branch: Callable[[], STFLoss], head: str | None) -> None:
    """Below attention the focus has no closed form; a loss on it needs the plain kernel, too."""

    class Whole(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[..., 0])

    torch.manual_seed(0)
    net = Whole().double()
    x = draw(3, 3, 4, 4, 1)
    target = torch.tensor([0, 1, 2])
    fused, plain = (
        STFObjective(copy.deepcopy(net), layers=["low"], head=head, loss=branch()) for _ in range(2)
    )
    for _ in range(2):  # the first batch finds out that there is no closed form
        out = fused(x, target)
        out.loss.backward()
        with sdpa_kernel(SDPBackend.MATH):
            expected = plain(x, target)
            expected.loss.backward()
        torch.testing.assert_close(out.loss, expected.loss)
    for mine, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("maps", [(4, 4), (2, 4, 4), (6, 1, 4, 4)])
def test_plain_products_attend_as_the_fused_kernel_does(
    maps: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [draw(6, 2, 4, 3, seed=seed).requires_grad_() for seed in range(3)]
    inputs.append(draw(*maps, seed=4).requires_grad_())
    plain = attention.attend(*inputs)
    monkeypatch.setattr(attention, "ATTEND_PLAINLY", 3)
    fused = attention.attend(*inputs)
    g = draw(*fused.shape, seed=5)
    for mine, theirs in zip(
        [plain, *torch.autograd.grad(plain, inputs, g)],
        [fused, *torch.autograd.grad(fused, inputs, g)],
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [20, 150])  # at 150, float16 cannot hold the scores
@pytest.mark.parametrize("joints", [25, 70])  # in plain products and in the fused kernel
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_attends_in_float32(dtype: torch.dtype, joints: int, size: int) -> None:
    q, k, values = (size * draw(4, 3, joints, 21, seed=seed).to(dtype) for seed in range(3))
    maps = draw(joints, joints, seed=4).to(dtype)
    scores = q.double() @ k.double().transpose(-2, -1) / 21**0.5
    expected = (scores.softmax(-1) + maps.double()) @ values.double()
    low = attention.attend(q, k, values, maps)
    compiled = torch.compile(attention.attend, backend="eager")(q, k, values, maps)
    with torch.autocast("cpu", dtype):
        cast = attention.attend(q, k, values, maps.float())  # a map is a weight, not cast
    wide = attention.attend(q.float(), k.float(), values.float(), maps.float())
    for found in (low, compiled, cast):
        assert found.dtype == dtype and torch.equal(found, wide.to(dtype))
        # The result is rounded once; scores of thousands are exact to a thousandth in float32.
        torch.testing.assert_close(
            found.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-3 * size
        )


@pytest.mark.parametrize("name", ["queries", "keys", "project"])
def test_the_layers_of_temporal_attention_are_called(name: str) -> None:
    """By hooks, pruning and adapters they can be watched and changed."""
    layer = DilatedTemporalAttention(4, 6).double().eval()
    x = draw(2, 4, 5, 3)
    outputs: list[Tensor] = []
    layer.get_submodule(name).register_forward_hook(lambda *given: outputs.append(given[2]))
    inputs: list[Tensor] = []
    layer.norm.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    layer(x)
    if name == "project":
        torch.testing.assert_close(outputs, inputs)
    else:
        assert [tuple(output.shape) for output in outputs] == [(2, 5, 3, 6)]


def test_outside_the_tap_attention_stays_fused() -> None:
    """The kernel that the test above avoids runs elsewhere, and refuses a second derivative."""
    x = torch.randn(2, 6, 3, 70, requires_grad=True)  # fewer joints attend in plain products
    y = SpatialAttention(6, 70)(x)
    (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(
        RuntimeError,
        match=r"derivative for aten::_scaled_dot_product_flash_attention.* not implemented",
    ):
        g.sum().backward()


ERRORS: list[tuple[Callable[[], object], str]] = [
    (
        lambda: position_codes(torch.arange(3), 0),
        r"position_codes: expected at least 1 channel, got 0",
    ),
    (
        lambda: SpatialAttention(2, 5),
        r"SpatialAttention: expected 1 to 2 heads for 2 channels, got 3",
    ),
    (lambda: SpatialAttention(6, 0), r"SpatialAttention: expected at least 1 joint, got 0"),
    (
        lambda: SpatialAttention(6, 5, shared_map="each"),
        r"SpatialAttention: expected shared_map to be one of 'one', 'per_head', got 'each'",
    ),
    (
        lambda: SpatialAttention(6, 5)(torch.zeros(2, 6, 3, 4)),
        r"SpatialAttention: expected x \(N, C=6, T, V=5\), got \(2, 6, 3, 4\)",
    ),
    (
        lambda: SpatialAttention(6, 5)(
            torch.zeros(2, 6, 3, 4), torch.zeros(2, 3, 5, dtype=torch.long)
        ),
        r"SpatialAttention: expected joints \(N=2, T=3, V'=4\), got \(2, 3, 5\)",
    ),
    (
        lambda: JointPartAttention(6, heads=0),
        r"JointPartAttention: expected 1 to 6 heads for 6 channels, got 0",
    ),
    (
        lambda: JointPartAttention(6)(torch.zeros(2, 6, 3, 4), torch.zeros(2, 6, 2, 4)),
        r"JointPartAttention: expected parts \(N=2, C=6, T=3, P\), got \(2, 6, 2, 4\)",
    ),
    (
        lambda: JointPartAttention(6)(torch.zeros(2, 5, 3, 4), torch.zeros(2, 6, 3, 4)),
        r"JointPartAttention: expected joints \(N, C=6, T, K\), got \(2, 5, 3, 4\)",
    ),
    (
        lambda: DilatedTemporalAttention(6, 6, kernel_size=4),
        r"DilatedTemporalAttention: expected an odd kernel_size, got 4",
    ),
    (
        lambda: DilatedTemporalAttention(6, 6, dilations=()),
        r"DilatedTemporalAttention: expected 1 to 6 heads .*, got 0",
    ),
    (
        lambda: DilatedTemporalAttention(6, 6, dilations=(1, 0)),
        r"DilatedTemporalAttention: expected a stride and dilations of at least 1, got \(1, 1, 0\)",
    ),
    (
        lambda: DilatedTemporalAttention(6, 6, attention=False, convolution=False),
        r"DilatedTemporalAttention: expected attention, convolution or both, got neither",
    ),
    (
        lambda: DilatedTemporalAttention(6, 6)(torch.zeros(2, 5, 3, 4)),
        r"DilatedTemporalAttention: expected x \(N, C=6, T, V\), got \(2, 5, 3, 4\)",
    ),
]


@pytest.mark.parametrize(("wrong", "error"), ERRORS)
def test_errors(wrong: Callable[[], object], error: str) -> None:
    with pytest.raises(ValueError, match=f"^{error}$"):
        wrong()
