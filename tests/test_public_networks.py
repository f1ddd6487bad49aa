"""Test STFObjective on what only published networks do; most cases were silent wrong values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bagcn import BAGCN
from fg_stformer import FGSTFormer
from layer_tools import gradients
from ms_g3d import MSG3D
from stf_gcn import STFGCN
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from skeleton_focus import (
    NTU25,
    DilatedTemporalAttention,
    GraphConv,
    MultiScaleG3D,
    MultiScaleTemporalConv,
    SpatialAttention,
    STFGraphConv,
    STFLoss,
    STFObjective,
    TemporalConv,
    exploration_loss,
    grad_cam,
    min_max_normalize,
    multi_scale_adjacency,
    window_adjacency,
)
from skeleton_focus.focus import (
    class_score,
    linear_head_focus,
    mask_by_focus,
    resize_focus,
    top_two,
    weigh_channels,
)
from skeleton_focus.focus_diffusion import AttentiveFocus

N = 4
C = 3
T = 6
V = 25
M = 2
CLASSES = 5
COHERENCE = STFLoss(exploration=0, divergence=0, adjacency=0)


class Base(nn.Module):
    """Fold persons; two layers with BatchNorm between, global average pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(C, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.high = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, CLASSES)

    def features(self, x: Tensor, f: Callable[[Tensor], Tensor] = F.relu) -> Tensor:
        folded = x.permute(0, 4, 1, 2, 3).flatten(0, 1)  # (N*M, C, T, V)
        return self.high(f(self.norm(self.low(folded))))

    def pool(self, features: Tensor, clips: int) -> Tensor:
        return features.view(clips, -1, 8, T * V).mean((1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.features(x), len(x)))


def draw(kind: type[Base] = Base, **options: Any) -> Base:
    torch.manual_seed(0)
    return kind(**options).double()


def clips(persons: int = M) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(N, C, T, V, persons, generator=random, dtype=torch.float64), torch.tensor(
        [0, 3, 2, 4]
    )


def plain_focus(logits: Tensor, features: Tensor, classes: Tensor) -> Tensor:
    """Equation 2 by automatic differentiation through whole maps."""
    return grad_cam(class_score(logits, classes), features, num_persons=M, create_graph=True)


# --- 1. a module under two names ---


@pytest.mark.parametrize("branch", [STFLoss.exploration_branch, STFLoss.focus_branch, STFLoss])
def test_a_module_under_two_names_counts_each_batch_once(branch: Callable[[], STFLoss]) -> None:
    """HD-GCN binds the same module to a second name in a loop."""
    (x, target) = clips()
    net = draw()
    plain = draw()
    net.same = net.norm
    objective = STFObjective(net, ["low", "high"], head="fc", loss=branch())
    for _ in range(2):
        objective(x, target)
        plain(x)
    assert net.norm.num_batches_tracked == 2
    assert torch.equal(net.norm.running_mean, plain.norm.running_mean)
    buffers = {name: id(buffer) for name, buffer in net.named_buffers(remove_duplicate=False)}
    objective.eval().explain(x)
    assert buffers == {
        name: id(buffer) for name, buffer in net.named_buffers(remove_duplicate=False)
    }


def test_a_buffer_of_two_modules_is_copied_once() -> None:
    """What a module writes to a shared buffer, the other reads, in the masked pass too."""
    (x, target) = clips()
    seen = []

    class Shares(Base):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.fc.register_buffer("count", self.count)

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            seen.append(self.fc.count.item())
            return super().forward(x)

    net = draw(Shares)
    net.fc.count = net.count  # .double() took them apart
    objective = STFObjective(net, ["low", "high"], loss=STFLoss.exploration_branch())
    objective(x, target)
    assert seen == [1, 2, 1, 2]  # the dry run's two passes, the first pass, the masked one
    assert net.count is net.fc.count and net.count == 1


def test_one_layer_under_two_names_is_refused() -> None:
    net = draw()
    net.same = net.high
    with pytest.raises(ValueError, match=r"each layer once, got \['high', 'same'\]"):
        STFObjective(net, ["high", "same"])


# --- 2. kernels whose backward loses the graph ---


class GraphlessTanh(torch.autograd.Function):
    """Compute tanh as an extension's kernel: its backward is right, but a constant to autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        with torch.no_grad():
            return g * (1 - ctx.saved_tensors[0].square())


class Kernel(Base):
    """The base network with another function between its layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.features(x, self.function), len(x)))


@pytest.mark.parametrize("score", ["log_odds", "probability"])
def test_a_backward_that_loses_the_graph_is_refused(score: str) -> None:
    (x, target) = clips()
    net = draw(Kernel, function=GraphlessTanh.apply)
    objective = STFObjective(net, ["low", "high"], head="fc", loss=COHERENCE, score=score)
    text = "layers after 'low' that PyTorch differentiates twice, "
    text += "got 'GraphlessTanh, whose backward loses the graph"
    for _ in range(2):
        with pytest.raises(ValueError, match=text):
            objective(x, target)
    assert net.norm.num_batches_tracked == 0


def test_a_zero_gradient_is_no_lost_graph() -> None:
    """sign() has a gradient of zeros, which depends on nothing: the loss is right."""
    (x, target) = clips()
    criterion = COHERENCE
    net, plain = (draw(Kernel, function=lambda y: y.tanh() + y.sign()) for _ in range(2))
    STFObjective(net, ["low", "high"], head="fc", loss=criterion)(x, target).loss.backward()
    low = plain.low(x.permute(0, 4, 1, 2, 3).flatten(0, 1))
    high = plain.high(plain.function(plain.norm(low)))
    logits = plain.fc(plain.pool(high, N))
    maps = [plain_focus(logits, features, logits.argmax(1)) for features in (low, high)]
    criterion(logits, target, low_focus=maps[0], focus=maps[1]).loss.backward()
    for name, expected in gradients(plain).items():
        torch.testing.assert_close(gradients(net)[name], expected, rtol=1e-7, atol=1e-11, msg=name)


# --- 3. a closed form that ends ---


class Changing(Base):
    """Pool and apply a linear layer for as long as something in the head keeps its first value."""

    mask: Tensor

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.register_buffer("mask", torch.ones(8))
        self.scale = nn.Parameter(torch.ones(8))
        self.down = nn.Linear(8, 2, bias=False)
        self.up = nn.Linear(2, CLASSES, bias=False)
        nn.init.zeros_(self.up.weight)
        self.late: Tensor | None = None
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features = self.last(self.features(x))
        pooled = self.pool(
            features * self.mask[:, None, None] if self.way == "mask" else features, len(x)
        )
        if self.way == "channel scale":
            pooled = pooled * self.scale
        if self.way == "scalar tensor":
            pooled = torch.cat([pooled[:, :4] * self.mask[0], pooled[:, 4:]], 1)
        if self.way == "masked weight":
            return F.linear(pooled, self.fc.weight * self.mask, self.fc.bias)
        if self.way == "late factor" and self.late is not None:
            pooled = pooled * self.late
        logits = self.fc(pooled)
        return logits + self.up(self.down(pooled)) if self.way == "low rank" else logits

    def change(self) -> None:
        with torch.no_grad():
            self.mask.copy_(torch.tensor([0.0, 1, 1, 0, 1, 1, 0, 1]))
            self.scale.copy_(torch.linspace(-1, 1, 8))
            self.up.weight.copy_(torch.linspace(-1, 1, 10).view(CLASSES, 2))
            self.late = torch.linspace(-1, 1, 8)


CHANGING = ["mask", "channel scale", "scalar tensor", "masked weight", "late factor", "low rank"]


@pytest.mark.parametrize("way", CHANGING)
def test_a_closed_form_that_ends(way: str) -> None:
    (x, target) = clips()
    net = draw(Changing, way=way)
    plain = draw(Changing, way=way)
    objective = STFObjective(net, ["low", "last"], head="fc", loss=STFLoss())
    objective(x, target)  # the verdict falls here
    plain(x)
    for one in (net, plain):
        one.change()
    net.zero_grad()
    out = objective(x, target)
    out.loss.backward()
    by_gradient = STFObjective(plain, ["low", "last"], loss=STFLoss())
    expected = by_gradient(x, target)
    expected.loss.backward()
    torch.testing.assert_close(out.focus, expected.focus)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(net)[name], gradient, rtol=1e-7, atol=1e-11, msg=name)
    for trained in (objective, by_gradient):  # once more, now that the verdict has changed
        trained(x, target)
    assert list(objective._closed_form.values()) == [False]
    torch.testing.assert_close(objective.eval().explain(x)[0], by_gradient.eval().explain(x)[0])


class Frozen(Base):
    """Everything below the head is frozen, and the head too where asked."""

    def __init__(self, *, head: bool) -> None:
        super().__init__()
        self.requires_grad_(False)
        self.fc.requires_grad_(not head)


def test_adaptive_pooling_of_channels_last_memory_is_pooling() -> None:
    """PyTorch strides the pooled map otherwise there."""

    class Pooled(Base):
        def __init__(self) -> None:
            super().__init__()
            self.average = nn.AdaptiveAvgPool2d(1)

        def pool(self, features: Tensor, clips: int) -> Tensor:
            return self.average(features).flatten(1).unflatten(0, (clips, -1)).mean(1)

    (x, target) = clips()
    net = draw(Pooled).to(memory_format=torch.channels_last)
    objective = STFObjective(net, ["low", "high"], head="fc")
    objective(x, target)
    assert list(objective._closed_form.values()) == [True]


@pytest.mark.parametrize("head", [True, False])
def test_a_frozen_network_keeps_the_closed_form(head: bool) -> None:
    (x, _) = clips()
    net = draw(Frozen, head=head).eval()
    objective = STFObjective(net, ["high"], head="fc", loss=STFLoss(coherence=0))
    by_gradient = STFObjective(net, ["high"], loss=STFLoss(coherence=0))
    for _ in range(2):
        torch.testing.assert_close(objective.explain(x)[0], by_gradient.explain(x)[0])
    assert list(objective._closed_form.values()) == [True]


# --- 4. persons in another order ---


class FoldedOtherwise(Base):
    """Persons before clips, and BatchNorm, which mixes all rows in training, before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.BatchNorm1d(8)

    def features(self, x: Tensor, f: Callable[[Tensor], Tensor] = F.relu) -> Tensor:
        folded = x.permute(4, 0, 1, 2, 3).flatten(0, 1)  # (M*N, C, T, V)
        return self.high(f(self.norm(self.low(folded))))

    def pool(self, features: Tensor, clips: int) -> Tensor:
        return self.last(features.view(-1, clips, 8, T * V).mean((0, 3)))


class Folded(FoldedOtherwise):
    """The same network with clips before persons."""

    features = Base.features

    def pool(self, features: Tensor, clips: int) -> Tensor:
        return self.last(Base.pool(self, features, clips))


@pytest.mark.parametrize("head", ["fc", None])
@pytest.mark.parametrize("absent", [False, True])
def test_persons_before_clips_with_batch_norm_are_refused(head: str | None, absent: bool) -> None:
    x, target = clips()
    if absent:
        x[0, ..., 1] = 0
    objective = STFObjective(draw(FoldedOtherwise), ["low", "high"], head=head)
    with pytest.raises(
        ValueError, match="each clip's persons in adjacent rows, got the first persons of all clips"
    ):
        objective(x, target)


@pytest.mark.parametrize("branch", [STFLoss.exploration_branch, STFLoss.focus_branch])
@pytest.mark.parametrize("head", ["fc", None])
def test_persons_before_clips_by_maps(branch: Callable[[], STFLoss], head: str | None) -> None:
    assert_same_steps(
        STFObjective(
            draw(FoldedOtherwise), ["low", "high"], head=head, loss=branch(), maps="(M N) C T V"
        ),
        STFObjective(draw(Folded), ["low", "high"], head=head, loss=branch()),
    )


def assert_same_steps(one: STFObjective, other: STFObjective) -> None:
    """Both give the same terms, focus and gradients, in the first batch and in the second."""
    x, target = clips()
    for _ in range(2):
        results = []
        for objective in (one, other):
            objective.zero_grad()
            results.append(objective(x, target))
            results[-1].loss.backward()
        assert results[0].terms.keys() == results[1].terms.keys()
        for name, term in results[0].terms.items():
            torch.testing.assert_close(term, results[1].terms[name], msg=name)
        torch.testing.assert_close(results[0].focus, results[1].focus)
        for name, expected in gradients(other.model).items():
            torch.testing.assert_close(
                gradients(one.model)[name], expected, rtol=1e-7, atol=1e-11, msg=name
            )
    torch.testing.assert_close(one.eval().explain(x)[0], other.eval().explain(x)[0])
    torch.testing.assert_close(
        one.explain(x, layer=one.layers[0])[0], other.explain(x, layer=other.layers[0])[0]
    )


# --- 5. ties ---


class Tied(Base):
    """Logits rounded to halves, so that the first two are often the same number."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits + ((2 * logits).round() / 2 - logits).detach()


def test_tied_classes_have_one_index() -> None:
    """The class that is masked is the class whose probability falls."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(42, C, T, V, M, generator=random, dtype=torch.float64)
    target = torch.zeros(42, dtype=torch.long)
    net = draw(Tied).eval()
    objective = STFObjective(net, ["low", "high"], loss=STFLoss.exploration_branch()).eval()
    out = objective(x, target)
    first = out.logits.argmax(1)
    tied = (out.logits == out.logits.amax(1, keepdim=True)).sum(1) > 1
    # Or the clips show nothing.
    assert tied.sum() > 10 and (out.logits.topk(2).indices[:, 0] != first).any()
    torch.testing.assert_close(out.focus, objective.explain(x)[0])
    torch.testing.assert_close(out.focus, objective.explain(x, first)[0])
    masked = net(mask_by_focus(x, out.focus))
    torch.testing.assert_close(out.terms["exploration"], exploration_loss(masked, first))


def test_the_rival_of_a_tied_class_is_another() -> None:
    logits = torch.tensor([[1.0, 1, 1, 0], [0, 2, 2, 2], [3, 0, 1, 2]]).repeat(16, 1)
    first, second = top_two(logits)
    assert first.view(16, 3).tolist() == [[0, 1, 0]] * 16
    assert (second != first).all() and (second.view(16, 3)[:, 2] == 3).all()
    assert (logits.gather(1, second[:, None]) == logits.topk(2).values[:, 1:]).all()


# --- 6. a second input that holds the clip ---


class TwoInputs(Base):
    """BlockGCN takes the joints once more, beside x."""

    def forward(self, x: Tensor, joint: Tensor) -> Tensor:
        joint = joint if joint.dim() == 5 else joint[..., None]
        return super().forward(x + joint[:, :C].tanh())


def test_a_second_clip_needs_a_decision() -> None:
    x, target = clips()
    other = x.roll(1, 0)
    wider = torch.cat([other, other[:, :1]], 1)  # with one channel more

    def objective(mask_inputs: Any) -> STFObjective:
        branch = STFLoss.exploration_branch()
        return STFObjective(
            draw(TwoInputs), ["high"], head="fc", loss=branch, mask_inputs=mask_inputs
        ).eval()

    for second in (other, wider):
        with pytest.raises(
            ValueError, match=r"mask_inputs to say whether to mask inputs\[0\], which has the shape"
        ):
            objective(None)(x, target, (second,))
        for mask_inputs in ((), (0,)):
            out = objective(mask_inputs)(x, target, (second,))
            masked = mask_by_focus(second, out.focus) if mask_inputs else second
            logits = draw(TwoInputs).eval()(mask_by_focus(x, out.focus), masked)
            torch.testing.assert_close(
                out.terms["exploration"], exploration_loss(logits, out.logits.argmax(1))
            )
    objective(None).explain(x, inputs=(other,))  # nothing is masked there
    with pytest.raises(ValueError, match="mask_inputs within the 1 inputs, got 3"):
        objective((3,))(x, target, (other,))
    for wrong in ((-1,), ("joint",), 0):
        with pytest.raises(ValueError, match=r"mask_inputs as positions in inputs, from 0, got"):
            objective(wrong)


class Stateful(Base):
    """Keep running means that are no buffers, as FR-Head does, count steps, or store losses."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(8, dtype=torch.float64)
        self.written = torch.zeros(8, dtype=torch.float64)
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        pooled = self.pool(features, len(x))
        self.mean = 0.9 * self.mean + 0.1 * pooled.detach().mean(0)
        self.written.mul_(0.9).add_(0.1 * pooled.detach().mean(0))
        self.steps += 1
        self.own_loss = pooled.square().mean()
        return self.fc(pooled)


def test_state_that_is_no_buffer_moves_once_a_step() -> None:
    (x, target) = clips()
    net = draw(Stateful)
    plain = draw(Stateful)
    objective = STFObjective(net, ["low", "high"], loss=STFLoss())
    for _ in range(2):
        objective(x, target)
        plain(x)
    assert net.steps == 2
    torch.testing.assert_close(net.mean, plain.mean)
    torch.testing.assert_close(net.written, plain.written)
    # Of the whole clip, not of the masked one.
    torch.testing.assert_close(net.own_loss, plain.own_loss)
    objective.explain(x)
    assert net.steps == 2


# --- 7. other outputs ---


class SeveralOutputs(Base):
    """Return losses or features beside logits: FR-Head, InfoGCN, LAGCN, ProtoGCN and DeGCN."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        pooled = self.pool(self.features(x), len(x))
        return {"logits": self.fc(pooled), "pooled": (pooled, [pooled.square().mean()])}


def test_the_output_of_the_whole_clip_is_there_for_losses_of_the_model_s_own() -> None:
    (x, target) = clips()
    net = draw(SeveralOutputs)
    plain = draw(SeveralOutputs)
    objective = STFObjective(
        net,
        ["low", "high"],
        loss=STFLoss.exploration_branch(),
        select_logits=lambda output: output["logits"],
    )
    out = objective(x, target)
    expected = plain(x)
    torch.testing.assert_close(out.output["pooled"][1][0], expected["pooled"][1][0])
    assert out.output["logits"] is out.logits
    before = torch.autograd.grad(out.loss, net.low.weight, retain_graph=True)[0]
    own = torch.autograd.grad(expected["pooled"][1][0], plain.low.weight)[0]
    (out.loss + 0.5 * out.output["pooled"][1][0]).backward()
    torch.testing.assert_close(net.low.weight.grad, before + 0.5 * own)
    with torch.no_grad():
        out = objective(x, target)
    assert not out.output["logits"].requires_grad and not out.output["pooled"][1][0].requires_grad
    assert isinstance(out.output["pooled"], tuple)


# --- 8. channels last, tokens ---


class ChannelsLast(Base):
    """Return (N*M, T, V, C), as MotionBERT, or tokens (N*M, T*V, C), as a plain transformer."""

    def __init__(self, *, tokens: bool) -> None:
        super().__init__()
        self.give_low = nn.Identity()
        self.give_high = nn.Identity()
        self.tokens = tokens

    def there(self, y: Tensor) -> Tensor:
        y = y.permute(0, 2, 3, 1)
        return y.flatten(1, 2) if self.tokens else y

    def back(self, y: Tensor) -> Tensor:
        y = y.unflatten(1, (T, V)) if self.tokens else y
        return y.permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        low = self.back(self.give_low(self.there(self.low(x.permute(0, 4, 1, 2, 3).flatten(0, 1)))))
        high = self.give_high(self.there(self.high(self.norm(low).relu())))
        pooled = high.mean(1) if self.tokens else high.mean((1, 2))
        return self.fc(pooled.unflatten(0, (-1, M)).mean(1))


@pytest.mark.parametrize("branch", [STFLoss.exploration_branch, STFLoss.focus_branch])
@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("head", ["fc", None])
def test_channels_last_by_maps(
    branch: Callable[[], STFLoss], tokens: bool, head: str | None
) -> None:
    maps = "(N M) (T V) C" if tokens else "(N M) T V C"
    last = STFObjective(
        draw(ChannelsLast, tokens=tokens),
        ["give_low", "give_high"],
        head=head,
        loss=branch(),
        maps=maps,
    )
    first = STFObjective(draw(), ["low", "high"], head=head, loss=branch())
    assert_same_steps(last, first)
    assert head is None or list(last._closed_form.values()) == [True, True]


def test_channels_last_where_project_makes_it_fit_is_refused() -> None:
    (x, target) = clips()
    net = draw(ChannelsLast, tokens=False)
    project = lambda focus: focus.mean(3, keepdim=True).expand(-1, -1, -1, V)  # noqa: E731
    with pytest.raises(
        ValueError,
        match=r"maps to say where the axes of layer 'give_high' lie, .*maps='\(N M\) T V C'",
    ):
        STFObjective(net, ["give_high"], loss=STFLoss(coherence=0), project=project)(x, target)
    given = {"give_high": "(N M) C T V"}  # said to be channels first, it is taken at its word
    STFObjective(net, ["give_high"], loss=STFLoss(coherence=0), project=project, maps=given)(
        x, target
    )


MAPS = [
    ("N C T V M", lambda y: y.unflatten(0, (N, M)).permute(0, 2, 3, 4, 1)),
    ("N M T V C", lambda y: y.unflatten(0, (N, M)).permute(0, 1, 3, 4, 2)),
    ("N (M T V) C", lambda y: y.unflatten(0, (N, M)).permute(0, 1, 3, 4, 2).flatten(1, 3)),
    ("N C T (M V)", lambda y: y.unflatten(0, (N, M)).permute(0, 2, 3, 1, 4).flatten(3)),
    ("T V (N M) C", lambda y: y.permute(2, 3, 0, 1)),
]


@pytest.mark.parametrize(("maps", "there"), MAPS, ids=[m[0] for m in MAPS])
def test_maps_of_any_layout(maps: str, there: Callable[[Tensor], Tensor]) -> None:
    class Otherwise(Base):
        """Its last map in another layout, pooled there."""

        def __init__(self) -> None:
            super().__init__()
            self.give = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y = self.give(there(self.features(x)))
            back = STFObjective(Base(), ["high"], loss=STFLoss(coherence=0), maps={"high": maps})
            features = back.maps["high"].bind("high", clips=len(x), persons=M, joints=V).to_map(y)
            return self.fc(self.pool(features, len(x)))

    assert_same_steps(
        STFObjective(draw(Otherwise), ["low", "give"], head="fc", maps={"give": maps}),
        STFObjective(draw(), ["low", "high"], head="fc"),
    )


WRONG_MAPS = [
    ("(N M) T V", r"maps of N, C and some of M, T, V, each once, got '\(N M\) T V'; such as"),
    ("(N M) C T V V", "each once, got"),
    ("N M (T C) V", r"maps whose sizes can be inferred, got 'N M \(T C\) V'; keep C and T apart"),
    ("NMCTV", "each once, got 'NMCTV'"),
    (5, "maps as text, such as .* got int"),
    ({"hihg": "(N M) C T V"}, r"maps for layers among \['low', 'high'\], got \['hihg'\]"),
]


@pytest.mark.parametrize(("maps", "text"), WRONG_MAPS, ids=[str(w[0]) for w in WRONG_MAPS])
def test_wrong_maps(maps: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        STFObjective(draw(), ["low", "high"], maps=maps)


def test_maps_that_do_not_fit() -> None:
    x, target = clips()
    objective = STFObjective(draw(), ["low", "high"], maps={"high": "(N M) (T V) C"})
    with pytest.raises(
        ValueError,
        match=r"layer 'high' to give \(N M\) \(T V\) C with N=4, V=25, got \(8, 8, 6, 25\)",
    ):
        objective(x, target)


# --- 9. persons ---


def test_an_ambiguous_layout_is_refused() -> None:
    x = torch.randn(4, 2, 6, 25, 2)
    target = torch.zeros(4, dtype=torch.long)
    objective = STFObjective(draw(), ["low", "high"])
    with pytest.raises(
        ValueError, match=r"axes, because C and M have the same size, got .*'N M T V C'"
    ):
        objective(x, target)
    with pytest.raises(ValueError, match="axes, because C and M have the same size"):
        objective.explain(x)
    STFObjective(draw(TwoChannels).float(), ["low", "high"], axes="N C T V M")(x, target)


class TwoChannels(Base):
    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(2, 8, 1)


@pytest.mark.parametrize("head", ["fc", None])
@pytest.mark.parametrize("layer", ["low", "high"])
def test_an_absent_person_has_no_focus(head: str | None, layer: str) -> None:
    (x, _) = clips()
    net = draw().eval()
    x[1:, ..., 1] = 0
    x[3] = 0  # nobody there: both count
    objective = STFObjective(net, ["low", "high"], head=head).eval()
    focus, logits = objective.explain(x, layer=layer)
    assert focus[1:3, 1].abs().max() == 0 and focus[0].amin((1, 2)).shape == (2,)
    low = net.low(x.permute(0, 4, 1, 2, 3).flatten(0, 1))
    high = net.high(net.norm(low).relu())
    score = class_score(net.fc(net.pool(high, N)), logits.argmax(1))
    features = low if layer == "low" else high
    gradient = torch.autograd.grad(score.sum(), features)[0].unflatten(0, (N, M))
    for n in range(N):
        persons = [0, 1] if n in (0, 3) else [0]
        weight = torch.stack([gradient[n, m].mean((1, 2)) for m in persons]).mean(0)
        maps = [
            torch.relu(torch.einsum("c,ctv->tv", weight, features.unflatten(0, (N, M))[n, m]))
            for m in persons
        ]
        q = torch.stack(maps)
        expected = (q - q.min()) / (q.max() - q.min()) if q.max() > q.min() else torch.zeros_like(q)
        torch.testing.assert_close(focus[n, persons], expected.detach())


def test_present_says_who_is_there() -> None:
    (x, target) = clips()
    net = draw()
    present = torch.ones(N, M, T, dtype=torch.bool)
    present[0, 1] = False
    present[1, :, 4:] = False
    objective = STFObjective(net, ["low", "high"], head="fc")
    focus = objective(x, target, present=present).focus
    assert focus[0, 1].max() == 0 and focus[1, :, 4:].max() == 0 and focus[1, :, :4].max() > 0
    torch.testing.assert_close(focus, objective(x, target, present=present).focus)
    with pytest.raises(ValueError, match=r"present \(N=4, M=2, T=6\), got \(4, 2\)"):
        objective(x, target, present=present[..., 0])
    with pytest.raises(ValueError, match=r"present with dtype torch.bool, got torch.float32"):
        objective.explain(x, present=present.float())


@pytest.mark.parametrize("layer", ["blocks.2", "blocks.3"])
def test_no_focus_beyond_the_lengths(layer: str) -> None:
    """Interpolation from frames of a stride of 4 used to reach beyond the last true frame."""
    torch.manual_seed(0)
    net = BAGCN(5, NTU25, widths=(8, 8, 16, 16), strides=(1, 2, 2, 1))
    objective = STFObjective(
        net, ["blocks.2", "blocks.3"], head="fc", loss=STFLoss(adjacency=0)
    ).eval()
    lengths = torch.tensor([16, 9, 5])
    x = torch.randn(3, 6, 16, 25, 2)
    explained = objective.explain(x, layer=layer, inputs=(lengths,))[0]
    trained = objective(x, torch.tensor([0, 1, 2]), (lengths,)).focus
    for focus in (explained, trained):
        for n, length in enumerate(lengths):
            assert focus[n, :, :length].max() > 0
            assert focus[n, :, length:].numel() == 0 or focus[n, :, length:].max() == 0


# --- 10. numbers and sentences ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_narrow_map_in_half_precision_keeps_its_focus(dtype: torch.dtype) -> None:
    focus = torch.tensor([0.0, 0.01, 0.02, 0.05]).view(1, 1, 1, 4).to(dtype)
    stretched = min_max_normalize(focus)
    assert stretched.dtype == dtype
    torch.testing.assert_close(
        stretched.float().flatten(), torch.tensor([0.0, 0.2, 0.4, 1.0]), rtol=0, atol=4e-3
    )
    constant = torch.full((1, 1, 1, 3), 7.0, dtype=dtype)
    assert min_max_normalize(constant).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_maps_of_integers(dtype: torch.dtype) -> None:
    focus = torch.tensor([0, 1, 1, 0]).view(1, 1, 2, 2).to(dtype)
    assert min_max_normalize(focus).tolist() == [[[[0.0, 1.0], [1.0, 0.0]]]]
    assert resize_focus(focus, 4)[0, 0, :, 0].tolist() == [0.0, 0.25, 0.75, 1.0]
    clip = torch.tensor([3, 5]).view(1, 1, 1, 2, 1)
    half = torch.full((1, 1, 1, 2), 0.5)
    assert mask_by_focus(clip, half).flatten().tolist() == [1.5, 2.5]  # and not 1 and 2


def test_the_only_possible_class() -> None:
    logits = torch.tensor([[1.0, -np.inf, -np.inf], [0.5, 1.0, -np.inf]], requires_grad=True)
    classes = torch.tensor([0, 1])
    score = class_score(logits, classes, "log_odds")
    assert score.tolist() == [np.inf, 0.5]
    gradient = torch.autograd.grad(score.sum(), logits)[0]
    assert gradient.tolist() == [[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0]]
    features = torch.randn(2, 4, 3, 5)
    weight = torch.randn(3, 4)
    closed = linear_head_focus(
        features, weight, logits.detach(), classes, score="log_odds", normalize=False
    )
    by_gradient = weigh_channels((gradient @ weight), features, normalize=False)
    torch.testing.assert_close(closed, by_gradient)


def target_of(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.zeros(*shape, dtype=dtype)


SENTENCES: list[tuple[Any, Any, str]] = [
    (
        torch.zeros(0, 3, 6, 25, 2),
        target_of(0),
        r"\(N, C, T, V, M\) without an empty axis, got \(0,",
    ),
    (torch.zeros(4, 3, 0, 25, 2), target_of(4), r"without an empty axis, got \(4, 3, 0, 25, 2\)"),
    (
        torch.zeros(4, 3, 6, 25, 2, device="meta"),
        target_of(4),
        "x on a device that holds values, got x on 'meta'",
    ),
    (
        torch.zeros(4, 3, 6, 25, 2),
        np.zeros(4),
        r"target \(N=4\) to be a tensor, got ndarray; torch.as_tensor",
    ),
    (
        torch.zeros(4, 3, 6, 25, 2),
        target_of(4, dtype=torch.int32),
        r"numbers, int64, got torch.int32; target.long",
    ),
    (
        torch.zeros(4, 3, 6, 25, 2),
        target_of(4, dtype=torch.float32),
        "class numbers, int64, got torch.float32",
    ),
    (
        torch.zeros(4, 3, 6, 25, 2),
        target_of(4, 1),
        r"target \(N=4\), got \(4, 1\); target.squeeze\(1\)",
    ),
    (
        torch.zeros(4, 3, 6, 25, 2),
        target_of(4, 5),
        r"target \(N, classes\) of probabilities, got torch.int64",
    ),
    (torch.zeros(4, 3, 6, 25, 2), target_of(3), r"target \(N=4, ...\), got \(3,\)"),
]


@pytest.mark.parametrize(("x", "target", "text"), SENTENCES, ids=[s[2][:40] for s in SENTENCES])
def test_a_sentence_in_place_of_a_crash(x: Tensor, target: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        STFObjective(draw().float(), ["low", "high"])(x, target)


NETWORKS = {
    "STFGCN": STFGCN(CLASSES, NTU25, in_channels=C, widths=(6, 6), strides=(1, 1)),
    "MSG3D": MSG3D(CLASSES, NTU25, widths=(12, 12, 12)),
    "FGSTFormer": FGSTFormer(CLASSES, NTU25, widths=(6,) * 8),
    "BAGCN": BAGCN(CLASSES, NTU25, in_channels=C, widths=(8,), strides=(1,)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(0, C, T, V, M), (N, C, 0, V, M), (N, C, T, V, 0)])
def test_networks_without_clips_frames_or_persons(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError,
        match=rf"{name}: expected x \(N, C.*, M.*\).*, got \({shape[0]}, {shape[1]}, {shape[2]},",
    ):
        NETWORKS[name](torch.zeros(shape))


LAYERS = [
    GraphConv(C, 6, multi_scale_adjacency(NTU25, 3)),
    STFGraphConv(C, 6, multi_scale_adjacency(NTU25, 3)),
    MultiScaleG3D(C, 6, window_adjacency(NTU25, 3, 3), 3),
    MultiScaleTemporalConv(C, 12),
    TemporalConv(C, 6),
    SpatialAttention(C, V),
    DilatedTemporalAttention(C, 6),
    AttentiveFocus(C),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers_without_frames(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"expected x \(N, C=3, T>0, V.*\), got \(4, 3, 0, 25\)"):
        layer(torch.zeros(N, C, 0, V))


def test_a_layer_that_gives_a_tuple() -> None:
    class Pair(Base):
        def __init__(self) -> None:
            super().__init__()
            self.pair = PairLayer()

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.pool(self.pair(self.features(x))[0], len(x)))

    class PairLayer(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    text = "layer 'pair' to give a tensor, got tuple; "
    text += "name a module inside it that returns only the feature map, such"
    with pytest.raises(ValueError, match=text):
        STFObjective(draw(Pair), ["low", "pair"])(*clips())


# --- what a review of the above found ---


class Residual(Base):
    """Fold persons as asked; blocks begin with a 1x1 convolution and have shortcuts around."""

    def __init__(self, *, persons_first: bool) -> None:
        super().__init__()
        self.persons_first = persons_first
        self.middle = nn.Conv2d(8, 8, 1)
        self.top = nn.Conv2d(8, 8, 1)
        self.give_low = nn.Identity()
        self.give_high = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        order = (4, 0, 1, 2, 3) if self.persons_first else (0, 4, 1, 2, 3)
        low = self.give_low(self.low(x.permute(order).flatten(0, 1)))
        high = self.give_high(F.relu(self.norm(self.middle(low)) + low))
        top = F.relu(self.top(high) + high).mean((2, 3))
        if self.persons_first:
            return self.fc(top.unflatten(0, (-1, len(x))).mean(0))
        return self.fc(top.unflatten(0, (len(x), -1)).mean(1))


@pytest.mark.parametrize("branch", [STFLoss.exploration_branch, STFLoss.focus_branch])
def test_a_1x1_convolution_after_a_map_in_another_layout(branch: Callable[[], STFLoss]) -> None:
    """A map in another layout is shifted as one in ours is."""
    first = draw(Residual, persons_first=True)
    last = draw(Residual, persons_first=False)
    layers = ["give_low", "give_high"]
    one = STFObjective(first, layers, loss=branch(), maps="(M N) C T V")
    assert_same_steps(one, STFObjective(last, layers, loss=branch()))


def test_maps_of_the_other_order_are_refused() -> None:
    x, target = clips()
    objective = STFObjective(draw(), ["low", "high"], head="fc", maps="(M N) C T V")
    with pytest.raises(ValueError, match=r"each clip's persons in adjacent rows, got .*maps"):
        objective(x, target)


class Mixing(FoldedOtherwise):
    """Mixes the clips of a batch before the head, in a way that is no plain BatchNorm layer."""

    def __init__(self, way: str, *, folded: bool) -> None:
        super().__init__()
        self.way = way
        self.folded = folded

    def features(self, x: Tensor, f: Callable[[Tensor], Tensor] = F.relu) -> Tensor:
        return Base.features(self, x, f) if self.folded else super().features(x, f)

    def pool(self, features: Tensor, clips: int) -> Tensor:
        if self.folded:
            pooled = features.unflatten(0, (clips, -1)).mean((1, 3, 4))
        else:
            pooled = features.unflatten(0, (-1, clips)).mean((0, 3, 4))
        if self.way == "checkpoint":
            return checkpoint(self.last, pooled, use_reentrant=False)
        if self.way == "function":
            return torch.batch_norm(pooled, None, None, None, None, True, 0.1, 1e-5, False)
        return (pooled - pooled.mean(0)) / pooled.std(0)


@pytest.mark.parametrize("way", ["checkpoint", "function", "by hand"])
def test_persons_before_clips_under_any_mixing(way: str) -> None:
    x, target = clips()
    divergence = STFLoss(exploration=0, coherence=0)
    with pytest.raises(ValueError, match="each clip's persons in adjacent rows"):
        STFObjective(draw(Mixing, way=way, folded=False), ["high"], loss=divergence)(x, target)
    out = STFObjective(draw(Mixing, way=way, folded=True), ["high"], loss=divergence)(x, target)
    assert out.loss.isfinite()


def test_the_order_of_persons_is_looked_at_when_there_are_several() -> None:
    """A first batch of one person says nothing about the order of two."""
    alone, target = clips(1)
    for head in ("fc", None):
        objective = STFObjective(
            draw(FoldedOtherwise), ["high"], head=head, loss=STFLoss(coherence=0)
        )
        objective(alone, target)
        with pytest.raises(ValueError, match="each clip's persons in adjacent rows"):
            objective(clips()[0], target)


class WithGenerator(Base):
    """An STF module between the layers, for L_G."""

    def __init__(self, *, persons_first: bool) -> None:
        super().__init__()
        self.persons_first = persons_first
        self.graph = STFGraphConv(8, 8, multi_scale_adjacency(NTU25, 3))
        nn.init.normal_(self.graph.generator.emit.weight, std=0.05)

    def forward(self, x: Tensor) -> Tensor:
        order = (4, 0, 1, 2, 3) if self.persons_first else (0, 4, 1, 2, 3)
        y = self.high(self.graph(self.norm(self.low(x.permute(order).flatten(0, 1)))).relu()).mean(
            (2, 3)
        )
        if self.persons_first:
            return self.fc(y.unflatten(0, (-1, len(x))).mean(0))
        return self.fc(y.unflatten(0, (len(x), -1)).mean(1))


def test_embeddings_of_persons_before_clips() -> None:
    first = draw(WithGenerator, persons_first=True)
    last = draw(WithGenerator, persons_first=False)
    one = STFObjective(first, ["low", "high"], head="fc", maps="(M N) C T V")
    other = STFObjective(last, ["low", "high"], head="fc")
    assert "adjacency" in other(*clips()).terms
    first.load_state_dict(last.state_dict())
    assert_same_steps(one, other)


@pytest.mark.parametrize("way", ["late factor", "masked weight"])
@pytest.mark.parametrize("frozen", ["all", "body"])
def test_a_closed_form_that_ends_above_frozen_parts(frozen: str, way: str) -> None:
    (x, target) = clips()
    net = draw(Changing, way=way).eval()
    net.requires_grad_(False)
    net.fc.requires_grad_(frozen == "body")
    objective = STFObjective(net, ["last"], head="fc", loss=STFLoss(coherence=0)).eval()
    by_gradient = STFObjective(net, ["last"], loss=STFLoss(coherence=0)).eval()
    objective.explain(x)
    objective(x, target)
    net.change()
    for _ in range(2):
        torch.testing.assert_close(objective.explain(x)[0], by_gradient.explain(x)[0])
        torch.testing.assert_close(objective(x, target).loss, by_gradient(x, target).loss)


class Odd(Base):
    """One more oddity at a time between the last layer and the logits."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.down = nn.Linear(8, 2, bias=False)
        self.up = nn.Linear(2, CLASSES, bias=False)
        nn.init.zeros_(self.up.weight)
        self.factor = 1.0
        self.scale = nn.Parameter(torch.ones(8))
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.features(x))
        if self.way == "in place":
            y += (self.scale - 1)[:, None, None]  # nothing at first
        pooled = self.pool(y, len(x))
        if self.way in ("number", "in place"):
            return self.fc(pooled * self.factor)
        if self.way == "function":
            return self.fc(Mean.apply(pooled, self.scale))
        return self.up(self.down(pooled)) + self.fc(pooled)  # the second way first


class Mean(torch.autograd.Function):
    """A channel scale under the name of one of PyTorch's own operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return x * scale

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        return g * scale, (g * x).sum(0)


@pytest.mark.parametrize("way", ["in place", "number", "function", "second way first"])
def test_odd_heads(way: str) -> None:
    (x, target) = clips()
    net = draw(Odd, way=way)
    plain = draw(Odd, way=way)
    objective = STFObjective(net, ["last"], head="fc", loss=STFLoss(coherence=0))
    by_gradient = STFObjective(plain, ["last"], loss=STFLoss(coherence=0))
    for step in range(3):
        out = objective(x, target)
        expected = by_gradient(x, target)
        torch.testing.assert_close(out.focus, expected.focus)
        torch.testing.assert_close(out.loss, expected.loss)
        for one in (net, plain) if step == 0 else ():
            with torch.no_grad():
                one.up.weight.copy_(torch.linspace(-1, 1, 10).view(CLASSES, 2))
                one.scale.copy_(torch.linspace(-1, 1, 8))
            one.factor = -1.0 if way == "number" else 1.0


def test_a_head_that_is_replaced_is_none() -> None:
    (x, target) = clips()
    net = draw()
    objective = STFObjective(net, ["high"], head="fc", loss=STFLoss(coherence=0))
    objective(x, target)
    net.fc = nn.Sequential(net.fc, nn.Tanh())
    by_gradient = STFObjective(net, ["high"], loss=STFLoss(coherence=0))
    torch.testing.assert_close(objective.eval().explain(x)[0], by_gradient.eval().explain(x)[0])


def test_one_person_taken_out_of_several() -> None:
    """A select of the only person is nothing, of one of two it is not the mean."""

    class First(Base):
        def pool(self, features: Tensor, clips: int) -> Tensor:
            return features.unflatten(0, (clips, -1)).mean((3, 4))[:, 0]

    net = draw(First)
    objective = STFObjective(net, ["high"], head="fc", loss=STFLoss(coherence=0)).eval()
    by_gradient = STFObjective(net, ["high"], loss=STFLoss(coherence=0)).eval()
    for persons in (1, 2):
        x = clips(persons)[0]
        torch.testing.assert_close(objective.explain(x)[0], by_gradient.explain(x)[0])
        torch.testing.assert_close(objective.explain(x[:1])[0], by_gradient.explain(x[:1])[0])


class WritesInputs(Base):
    """Writes to its second input."""

    def forward(self, x: Tensor, weight: dict[str, Tensor]) -> Tensor:
        return super().forward(x * weight["w"].mul_(0.5).mean())


def test_inputs_are_written_to_once_a_step() -> None:
    (x, target) = clips()
    weight = {"w": torch.ones(3, dtype=torch.float64)}
    objective = STFObjective(draw(WritesInputs), ["low", "high"])
    for step in (1, 2):
        objective(x, target, (weight,))
        assert weight["w"].tolist() == [0.5**step] * 3
    second = x.clone()

    class WritesClip(TwoInputs):
        def forward(self, x: Tensor, joint: Tensor) -> Tensor:
            return super().forward(x, joint.mul_(0.5))

    masked = STFObjective(
        draw(WritesClip), ["high"], loss=STFLoss.exploration_branch(), mask_inputs=(0,)
    )
    with pytest.raises(
        ValueError, match="a model that does not modify its input, got one that writes to it"
    ):
        masked(x, target, (second,))
    assert torch.equal(second, x)


def test_a_checkpointed_batch_norm_counts_as_without_the_dry_run() -> None:
    """What runs again in a backward pass of the dry run works on copies, too."""

    class Checkpointed(Base):
        def features(self, x: Tensor, f: Callable[[Tensor], Tensor] = F.relu) -> Tensor:
            folded = x.permute(0, 4, 1, 2, 3).flatten(0, 1)
            y = checkpoint(lambda y: self.norm(y).relu(), self.low(folded), use_reentrant=False)
            return self.high(y)

    counts = []
    for rehearsed in (False, True):
        net = draw(Checkpointed)
        objective = STFObjective(net, ["low", "high"])
        if rehearsed:
            objective(*clips())
            net.norm.num_batches_tracked.zero_()
        objective(*clips())
        counts.append(net.norm.num_batches_tracked.item())
    assert counts[0] == counts[1]


def test_batch_norm_without_a_bias() -> None:
    (x, target) = clips()
    nets = (draw(), draw())
    for net in nets:
        net.norm.bias = None
    one, other = (STFObjective(net, ["low", "high"], loss=COHERENCE) for net in nets)
    one(x, target).loss.backward()
    plain = nets[1]
    low = plain.low(x.permute(0, 4, 1, 2, 3).flatten(0, 1))
    high = plain.high(plain.norm(low).relu())
    logits = plain.fc(plain.pool(high, N))
    maps = [plain_focus(logits, features, logits.argmax(1)) for features in (low, high)]
    COHERENCE(logits, target, low_focus=maps[0], focus=maps[1]).loss.backward()
    for name, expected in gradients(plain).items():
        torch.testing.assert_close(
            gradients(one.model)[name], expected, rtol=1e-7, atol=1e-11, msg=name
        )
    assert other.head is None


def test_frames_that_are_absent_take_no_part() -> None:
    """In the map, in its normalisation and in what L_e masks."""
    (x, target) = clips()
    net = draw().eval()
    present = torch.ones(N, M, T, dtype=torch.bool)
    present[:, :, 3:] = False
    loss = STFLoss.exploration_branch()
    objective = STFObjective(net, ["low", "high"], head="fc", loss=loss).eval()
    out = objective(x, target, present=present)
    assert out.focus[:, :, 3:].max() == 0
    assert (out.focus.amax((1, 2, 3)) == 1).all()
    masked = net(mask_by_focus(x, out.focus))
    torch.testing.assert_close(
        out.terms["exploration"], exploration_loss(masked, out.logits.argmax(1))
    )


def test_what_is_masked_is_the_focus_that_is_returned() -> None:
    """This holds where a layer has fewer frames, one of which covers present and absent ones."""

    class Strided(Base):
        def features(self, x: Tensor, f: Callable[[Tensor], Tensor] = F.relu) -> Tensor:
            return super().features(F.avg_pool3d(x, (3, 1, 1)), f)

        def pool(self, features: Tensor, clips: int) -> Tensor:
            return features.unflatten(0, (clips, -1)).mean((1, 3, 4))

    (x, target) = clips()
    net = draw(Strided).eval()
    present = torch.ones(N, M, T, dtype=torch.bool)
    present[:, :, 4:] = False
    loss = STFLoss.exploration_branch()
    objective = STFObjective(net, ["low", "high"], head="fc", loss=loss).eval()
    out = objective(x, target, present=present)
    assert out.focus[:, :, 4:].max() == 0 and out.focus[:, :, 3].max() > 0
    masked = net(mask_by_focus(x, out.focus))
    torch.testing.assert_close(
        out.terms["exploration"], exploration_loss(masked, out.logits.argmax(1))
    )


def test_nobody_there_has_no_focus() -> None:
    (x, target) = clips()
    net = draw()
    present = torch.ones(N, M, T, dtype=torch.bool)
    present[2] = False
    objective = STFObjective(net, ["low", "high"], head="fc", loss=STFLoss())
    out = objective(x, target, present=present)
    out.loss.backward()
    assert out.focus[2].max() == 0 and out.focus[1].max() == 1
    assert all(gradient.isfinite().all() for gradient in gradients(net).values())
    x[2] = 0
    assert objective.eval().explain(x)[0][2].max() == 0


def test_relative_lengths_are_no_frame_counts() -> None:
    class Relative(Base):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            return super().forward(x) * lengths[:, None].to(x.dtype)

    x, _ = clips()
    objective = STFObjective(draw(Relative), ["low", "high"]).eval()
    whole = objective.explain(x, inputs=(torch.ones(N),))[0]
    assert (whole.amax((1, 3)) > 0).all()


def test_the_smallest_value_is_that_of_a_present_person() -> None:
    focus = torch.tensor([[[2.0, 4.0]], [[1.0, 9.0]]]).view(1, 2, 1, 2)
    there = torch.tensor([[True, False]])
    assert min_max_normalize(focus, there).flatten().tolist() == [0, 1, 0, 0]
    assert min_max_normalize(focus, there[..., None]).flatten().tolist() == [0, 1, 0, 0]
    assert min_max_normalize(focus, ~there).flatten().tolist() == [0, 0, 0, 1]
    assert min_max_normalize(focus, there & ~there).abs().max() == 0


def test_the_mean_over_persons_that_are_there_by_hand() -> None:
    """Two persons, one channel, two frames: gradients of 6 and 2 give w = 3 by one, 2 by both."""
    features = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(2, 1, 2, 1)
    sums = torch.tensor([[6.0], [2.0]])
    both = weigh_channels(sums, features, num_persons=2, normalize=False)
    one = weigh_channels(
        sums, features, num_persons=2, present=torch.tensor([[True, False]]), normalize=False
    )
    assert both.flatten().tolist() == [2, 4, 8, 16] and one.flatten().tolist() == [3, 6, 0, 0]
    x = features.clone().requires_grad_()
    score = (x * torch.tensor([4.0, 2.0, 1.0, 1.0]).view(2, 1, 2, 1)).sum()[None]
    found = grad_cam(
        score, x, num_persons=2, present=torch.tensor([[True, False]]), normalize=False
    )
    assert found.flatten().tolist() == [3, 6, 0, 0]


def test_channels_first_maps_of_parts_are_not_refused() -> None:
    """As many frames as joints, but channels that do not divide the frames."""
    (x, target) = clips()
    net = draw()
    halves = torch.zeros(V, 2, dtype=torch.float64)
    halves[:12, 0] = 1
    halves[12:, 1] = 1

    class Halves(Base):
        def __init__(self) -> None:
            super().__init__()
            self.give = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(
                self.give(self.features(x) @ halves).unflatten(0, (len(x), -1)).mean((1, 3, 4))
            )

    project = lambda focus: focus @ halves.T  # noqa: E731
    out = STFObjective(draw(Halves), ["give"], loss=STFLoss(coherence=0), project=project)(
        x, target
    )
    assert out.focus.shape == (N, M, T, V) and net.training


def test_targets_of_another_number_of_classes() -> None:
    x, _ = clips()
    with pytest.raises(
        ValueError, match=r"STFLoss: expected target \(N=4, classes=5\), got \(4, 6\)"
    ):
        STFObjective(draw(), ["low", "high"])(x, torch.ones(N, 6, dtype=torch.float64) / 6)
    with pytest.raises(
        ValueError, match="a model on a device that holds values, got one on 'meta'"
    ):
        STFObjective(draw().to("meta"), ["low", "high"])(x, torch.zeros(N, dtype=torch.long))
    with pytest.raises(ValueError, match="target on a device that holds values, got one on 'meta'"):
        STFObjective(draw(), ["low", "high"])(x, torch.zeros(N, dtype=torch.long, device="meta"))
    with pytest.raises(ValueError, match=r"a model that is an nn.Module, got function"):
        STFObjective(lambda x: x, ["low", "high"])  # type: ignore[arg-type]
    objective = STFObjective(
        draw(TwoInputs), ["high"], loss=STFLoss.exploration_branch(), mask_inputs=(0,)
    )
    with pytest.raises(
        ValueError, match=r"expected inputs\[0\] \(N, C, T, V, M\), got \(4, 3, 6, 25\)"
    ):
        objective(x, torch.zeros(N, dtype=torch.long), (x[..., 0],))
    with pytest.raises(ValueError, match="mask_inputs within the 0 inputs, got 0"):
        objective(x, torch.zeros(N, dtype=torch.long))
