"""Test STFObjective on networks of other inputs, joints and heads, on frozen and on odd ones."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from einops.layers.torch import Rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_tools import gradients
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from skeleton_focus import STFLoss, STFObjective, grad_cam
from skeleton_focus.focus import SCORES, class_score, mask_by_focus

N = 3
C = 4
T = 6
V = 5
M = 2
CLASSES = 7
BRANCHES = {"focus": STFLoss.focus_branch, "exploration": STFLoss.exploration_branch}


class Backbone(nn.Module):
    """Clips (N, C, T, V, M) to logits, through two layers with a time stride between them."""

    def __init__(
        self,
        *,
        channels: int = C,
        classes: int = CLASSES,
        stride: int = 2,
        head: str = "linear",
        inplace: bool = False,
    ) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(channels, 8, 1), nn.BatchNorm2d(8))
        self.relu = nn.ReLU(inplace=inplace)
        self.high = nn.Conv2d(8, 9, (3, 1), (stride, 1), (1, 0))
        # Bare: closed form.
        self.last_relu = nn.Identity() if head == "bare" else nn.ReLU(inplace=inplace)
        self.dropout = nn.Dropout(0.5 if head == "dropout" else 0.0)
        self.hidden = nn.Sequential(nn.Linear(9, 9), nn.Tanh()) if head == "mlp" else nn.Identity()
        self.fc = nn.Linear(9, classes)
        self.pools_by_maximum = head == "maximum"

    def features(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        return self.high(self.relu(self.low(x.permute(0, 4, 1, 2, 3).reshape(n * m, c, t, v))))

    def forward(self, x: Tensor) -> Tensor:
        # (N, M, C, T' V)
        y = self.last_relu(self.features(x)).flatten(2).unflatten(0, (len(x), -1))
        pooled = y.amax((1, 3)) if self.pools_by_maximum else y.mean((1, 3))
        return self.fc(self.hidden(self.dropout(pooled)))


def draw(module: type[nn.Module] = Backbone, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return module(**options).double()


def clips(persons: int = M) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(N, C, T, V, persons, generator=random, dtype=torch.float64), torch.tensor(
        [0, 3, 6]
    )


def assert_same_step(
    one: STFObjective, x: Tensor, other: STFObjective, y: Tensor, target: Tensor
) -> None:
    """Both give the same loss, terms, focus and gradients, in the first batch and in the second."""
    for _ in range(2):
        results = []
        for objective, clip in ((one, x), (other, y)):
            objective.zero_grad()
            torch.manual_seed(5)
            results.append(objective(clip, target))
            results[-1].loss.backward()
        a, b = results
        assert a.terms.keys() == b.terms.keys()
        for name, term in a.terms.items():
            torch.testing.assert_close(term, b.terms[name], msg=name)
        torch.testing.assert_close(a.focus, b.focus)
        for (name, mine), theirs in zip(
            gradients(one).items(), gradients(other).values(), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12, msg=name)


class Turned(nn.Module):
    """The same network for another layout of its input."""

    def __init__(self, network: nn.Module, turn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.turn = turn

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.turn(x))


# axes: persons, from (N, C, T, V, M) to the layout, and back again
LAYOUTS: dict[str, tuple[int, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "N M T V C": (2, lambda x: x.permute(0, 4, 2, 3, 1), lambda y: y.permute(0, 4, 2, 3, 1)),
    "N C T V": (1, lambda x: x[..., 0], lambda y: y[..., None]),
    "N T (V C)": (
        1,
        lambda x: x[..., 0].permute(0, 2, 3, 1).flatten(2),
        lambda y: y.unflatten(2, (V, C)).permute(0, 3, 1, 2)[..., None],
    ),
    "N C T (M V)": (
        2,
        lambda x: x.transpose(3, 4).flatten(3),
        lambda y: y.unflatten(3, (2, V)).transpose(3, 4),
    ),
}


@pytest.mark.parametrize("axes", LAYOUTS)
@pytest.mark.parametrize("branch", BRANCHES)
def test_any_layout_of_the_input(axes: str, branch: str) -> None:
    persons, there, back = LAYOUTS[axes]
    x, target = clips(persons)
    plain = STFObjective(draw(), ["low", "high"], head="fc", loss=BRANCHES[branch]())
    joints = V if "(" in axes else None
    turned = Turned(draw(), back)
    other = STFObjective(
        turned,
        ["network.low", "network.high"],
        head="network.fc",
        loss=BRANCHES[branch](),
        axes=axes,
        num_joints=joints,
    )
    assert_same_step(plain, x, other, there(x), target)
    torch.testing.assert_close(plain.explain(x)[0], other.explain(there(x))[0])
    assert f"axes={axes!r}" in repr(other)


WRONG_AXES = [
    (
        "N C T V X",
        None,
        r"axes of N, C, T, V and perhaps M, N first, each once, got 'N C T V X'; such as",
    ),
    ("NCTVM", None, "got 'NCTVM'; such as 'N C T V M'"),
    ("T N C V", None, "N first"),
    ("N C T M", None, "each once, got 'N C T M'"),
    ("N C T V V", None, "each once"),
    ("N T (V C)", None, r"axes whose sizes can be inferred, got 'N T \(V C\)'; pass num_joints"),
    ("N T (M V C)", 5, "at most one axis may be joined with V"),
    ("N C T V", 0, "num_joints of at least 1, got 0"),
    (["N", "C", "T", "V"], None, "axes as text, such as 'N C T V M', got list"),
]


@pytest.mark.parametrize(
    ("axes", "joints", "text"), WRONG_AXES, ids=[str(w[0]) for w in WRONG_AXES]
)
def test_wrong_axes(axes: str, joints: int | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        STFObjective(draw(), ["low", "high"], axes=axes, num_joints=joints)


def test_clips_of_another_form() -> None:
    x, target = clips(1)
    flat = STFObjective(draw(), ["low", "high"], axes="N T (V C)", num_joints=V)
    with pytest.raises(
        ValueError, match=r"STFObjective: expected x \(N, T, V\*C\) with V=5, got \(3, 6, 19\)"
    ):
        flat(torch.zeros(N, T, 19), target)
    with pytest.raises(
        ValueError, match=r"STFObjective: expected x \(N, T, V\*C\), got \(3, 4, 6, 5, 1\)"
    ):
        flat.explain(x)
    counted = STFObjective(draw(), ["low", "high"], axes="N C T V", num_joints=V)
    with pytest.raises(ValueError, match=r"expected x \(N, C, T, V=5\), got \(3, 4, 6, 4\)"):
        counted(x[..., 0][..., :4], target)


def test_layers_and_head_as_modules() -> None:
    (x, target) = clips()
    net = draw()
    by_module = STFObjective(net, [net.low, net.high], head=net.fc)
    assert by_module.layers == ("low", "high") and by_module.head == "fc"
    assert_same_step(STFObjective(draw(), ["low", "high"], head="fc"), x, by_module, x, target)
    net.also = nn.ModuleList([net.low])  # under another name too
    assert_same_step(
        STFObjective(draw(), ["low", "high"]), x, STFObjective(net, ["also.0", "high"]), x, target
    )
    with pytest.raises(
        ValueError, match="a layer inside Backbone, by name or as a module, got Conv2d; take"
    ):
        STFObjective(net, [net.low, draw().high])


# --- joints, persons and outputs of other kinds ---


class Parts(Backbone):
    """Pools the joints to two parts after the first layer."""

    membership: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("membership", torch.tensor([[1.0, 1, 0.5, 0, 0], [0, 0, 1, 1, 1]]))

    def features(self, x: Tensor) -> Tensor:
        y = self.relu(self.low(x.permute(0, 4, 1, 2, 3).flatten(0, 1)))
        return self.high(torch.einsum("nctv,pv->nctp", y, self.membership))


@pytest.mark.parametrize("branch", BRANCHES)
def test_other_joints_by_project(branch: str) -> None:
    (x, target) = clips()
    net = draw(Parts).eval()
    criterion = BRANCHES[branch]()
    project = lambda focus: focus @ net.membership  # noqa: E731  # (N, M, T', 2) -> (N, M, T', V)
    out = STFObjective(
        net, ["low", "high"], head="fc", loss=criterion, project={"high": project}
    ).eval()(x, target)
    out.loss.backward()

    plain = draw(Parts).eval()

    def run(clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low = plain.low(clip.permute(0, 4, 1, 2, 3).flatten(0, 1))
        high = plain.high(torch.einsum("nctv,pv->nctp", plain.relu(low), plain.membership))
        return plain.fc(plain.last_relu(high).unflatten(0, (N, M)).mean((1, 3, 4))), low, high

    logits, low, high = run(x)
    first, second = logits.topk(2).indices.unbind(1)

    def focus(features: Tensor, classes: Tensor) -> Tensor:
        q = grad_cam(
            class_score(logits, classes),
            features,
            num_persons=M,
            normalize=False,
            create_graph=True,
        )
        q = q if features is low else q @ plain.membership
        lowest = q.amin((1, 2, 3), keepdim=True)
        highest = q.amax((1, 2, 3), keepdim=True)
        return (q - lowest) / (highest - lowest)

    q = focus(high, first)
    loss, terms = criterion(
        logits,
        target,
        masked_logits=run(mask_by_focus(x, q))[0],
        focus=q,
        rival_focus=focus(high, second),
        low_focus=focus(low, first),
    )
    loss.backward()
    assert out.terms.keys() == terms.keys() and out.focus.shape == (N, M, T, V)
    for name, term in terms.items():
        torch.testing.assert_close(out.terms[name], term, msg=name)
    for name, expected in gradients(plain).items():
        torch.testing.assert_close(gradients(net)[name], expected, rtol=1e-8, atol=1e-12, msg=name)


class PersonsBeside(Backbone):
    """Lays the persons side by side on the joint axis."""

    def features(self, x: Tensor) -> Tensor:
        return self.high(self.relu(self.low(x.transpose(3, 4).flatten(3))))  # (N, C, T, M V)


def test_persons_on_the_joint_axis_by_project() -> None:
    (x, target) = clips()
    net = draw(PersonsBeside)
    beside = STFObjective(
        net, ["low", "high"], project=lambda q: q.unflatten(3, (M, V)).squeeze(1).transpose(1, 2)
    )
    assert_same_step(STFObjective(draw(), ["low", "high"]), x, beside, x, target)


class Mixed(Backbone):
    """Add a layer on each frame and joint: a convolution, or on tokens that are rearranged."""

    def __init__(self, *, tokens: bool) -> None:
        super().__init__()
        self.mix = nn.Linear(9, 9)
        self.together = Rearrange("n c t v -> n (t v) c")
        self.apart = Rearrange("n (t v) c -> n c t v", v=V)
        self.plain = None if tokens else nn.Conv2d(9, 9, 1)

    def features(self, x: Tensor) -> Tensor:
        if self.plain is not None:
            return self.plain(super().features(x))
        return self.apart(self.mix(self.together(super().features(x))))


@pytest.mark.parametrize("branch", BRANCHES)
def test_tokens_by_rearranging(branch: str) -> None:
    (x, target) = clips()
    tokens = draw(Mixed, tokens=True)
    plain = draw(Mixed, tokens=False)
    with torch.no_grad():
        plain.plain.weight.copy_(tokens.mix.weight[:, :, None, None])
        plain.plain.bias.copy_(tokens.mix.bias)
    results = []
    for net, layer in ((tokens, "apart"), (plain, "plain")):
        out = STFObjective(net, ["low", layer], loss=BRANCHES[branch]())(x, target)
        out.loss.backward()
        results.append((out.loss, out.focus, net.low[0].weight.grad, net.fc.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_projection_to_another_form_is_refused() -> None:
    x, target = clips()
    with pytest.raises(
        ValueError,
        match=r"expected layer 'high' to give \(N\*M=6, C, T, V=5\), got \(6, 9, 3, 2\);",
    ):
        STFObjective(draw(Parts), ["high"], loss=STFLoss(coherence=0))(x, target)
    text = r"the focus that project returns for \(6, 9, 3, 2\) \(N=3, M=2, T', V=5\), "
    text += r"got \(3, 2, 3, 2\)"
    with pytest.raises(ValueError, match=text):
        STFObjective(draw(Parts), ["low", "high"], project={"high": lambda focus: focus})(x, target)
    with pytest.raises(ValueError, match="project to return values of at least 0, got others"):
        STFObjective(draw(), ["low", "high"], project={"high": lambda focus: -focus})(x, target)
    with pytest.raises(
        ValueError, match=r"project for layers among \['low', 'high'\], got \['hihg'\]"
    ):
        STFObjective(draw(), ["low", "high"], project={"hihg": lambda focus: focus})


class Shuffled(Backbone):
    """Has as many joints as the input, in another order, after the first layer."""

    order = [2, 0, 1, 4, 3]

    def features(self, x: Tensor) -> Tensor:
        return super().features(x)[..., self.order]


def test_project_is_called_where_the_sizes_are_the_same() -> None:
    """It is called for each layer: the map has the joints' own order, whatever the layer's."""
    (x, target) = clips()
    back = torch.tensor(Shuffled.order).argsort()

    class Renamed(Shuffled):
        def features(self, x: Tensor) -> Tensor:
            return self.named(super().features(x))

    torch.manual_seed(0)
    net = Renamed().double()
    net.named = nn.Identity()
    shuffled = STFObjective(
        net, ["low", "named"], project={"named": lambda focus: focus[..., back]}
    )
    plain = STFObjective(draw(), ["low", "high"])
    torch.testing.assert_close(shuffled(x, target).focus, plain(x, target).focus)


class Wide(Backbone):
    """Takes another input, and gives more than logits."""

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(x * scale), "scale": scale}


@pytest.mark.parametrize("branch", BRANCHES)
def test_other_inputs_and_several_outputs(branch: str) -> None:
    (x, target) = clips()
    scale = torch.tensor(1.5, dtype=torch.float64)
    criterion = BRANCHES[branch]()
    wide = STFObjective(
        draw(Wide), ["low", "high"], loss=criterion, select_logits=operator.itemgetter("logits")
    )
    plain = STFObjective(draw(), ["low", "high"], loss=criterion)
    expected = plain(x * scale, target)
    out = wide(x, target, (scale,))
    torch.testing.assert_close(out.focus, expected.focus)
    torch.testing.assert_close(out.logits, expected.logits)
    torch.testing.assert_close(wide.explain(x, inputs=(scale,))[0], plain.explain(x * scale)[0])
    if branch == "focus":
        torch.testing.assert_close(out.loss, expected.loss)
    with pytest.raises(
        ValueError, match=r"logits to be a tensor, got dict; pass select_logits, such as operator"
    ):
        STFObjective(draw(Wide), ["low", "high"])(x, target, (scale,))


# --- heads, ReLU in place, frozen parts ---


@pytest.mark.parametrize("head", ["bare", "linear", "dropout", "mlp", "maximum"])
@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("training", [True, False])
def test_relu_in_place_changes_nothing(head: str, branch: str, training: bool) -> None:
    (x, target) = clips()
    options = {"head": "fc", "loss": BRANCHES[branch]()}
    one, other = (
        STFObjective(draw(head=head, inplace=inplace), ["low", "high"], **options).train(training)
        for inplace in (False, True)
    )
    assert_same_step(one, x, other, x, target)


@pytest.mark.parametrize(("head", "named"), [("bare", "fc"), ("linear", "fc"), ("mlp", None)])
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_frozen_backbone_trains_its_head_alone(head: str, named: str | None, branch: str) -> None:
    (x, target) = clips()
    options = {"head": named, "loss": BRANCHES[branch]()}
    free, frozen = (
        STFObjective(draw(head=head), ["low", "high"], **options).eval() for _ in range(2)
    )
    frozen.model.requires_grad_(False).fc.requires_grad_(True)
    for objective in (free, frozen):
        objective(x, target).loss.backward()
    got = gradients(frozen)
    expected = gradients(free)
    assert set(got) == {"model.fc.weight", "model.fc.bias"}
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-12, msg=name)
    frozen.requires_grad_(False)
    torch.testing.assert_close(frozen.explain(x)[0], free.explain(x)[0])


class FoldedOtherwise(nn.Module):
    """Persons before clips: row m * N + n."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.low = nn.Conv2d(C, 8, 1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.low(x.permute(4, 0, 1, 2, 3).flatten(0, 1))
        return self.fc(self.dropout(y.unflatten(0, (M, len(x))).mean((0, 3, 4))))


class Later(nn.Module):
    """Put between the explained layer and the head something that the first batch does not show."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.low = nn.Conv2d(C, 8, 1)
        self.high = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, CLASSES)
        self.residual = nn.Conv2d(8, 8, 1)
        self.limit = 1e3
        self.dropout = nn.Dropout(0.0)
        if kind == "zero start":
            nn.init.zeros_(self.residual.weight)
            nn.init.zeros_(self.residual.bias)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        y = self.high(self.low(x.permute(0, 4, 1, 2, 3).flatten(0, 1)).relu())
        if self.kind == "zero start":
            y = y + self.residual(y).relu()
        if self.kind == "clamp":
            y = y.clamp(-self.limit, self.limit)
        return self.fc(self.dropout(y.unflatten(0, (len(x), -1)).mean((1, 3, 4))))

    def change(self) -> None:
        nn.init.normal_(self.residual.weight)
        nn.init.normal_(self.residual.bias)
        self.limit = 0.1
        if self.kind == "dropout":
            self.dropout.p = 0.5


@pytest.mark.parametrize("kind", ["zero start", "clamp", "dropout"])
def test_a_closed_form_that_ends_later(kind: str) -> None:
    """The first batch agrees with pooling and a linear layer; batches after a change do not."""
    (x, target) = clips()
    net = draw(Later, kind=kind)
    trained = STFObjective(net, ["low", "high"], head="fc")
    trained(x, target)
    net.change()
    by_gradient = STFObjective(net, ["low", "high"])
    for objective in (trained, by_gradient):
        objective(x, target)
    results = []
    for objective in (trained, by_gradient):
        torch.manual_seed(5)
        results.append(objective(x, target))
    torch.testing.assert_close(results[0].focus, results[1].focus)
    torch.testing.assert_close(results[0].loss, results[1].loss)


# --- what cannot work says so ---


class OnceDifferentiable(torch.autograd.Function):
    """A kernel of somebody else's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g * ctx.saved_tensors[0]


def attend(x: Tensor) -> Tensor:
    """Attention between joints, in whatever kernel is chosen."""
    y = x.permute(0, 2, 3, 1).contiguous()  # (N, T, V, C)
    return nn.functional.scaled_dot_product_attention(y, y, y).permute(0, 3, 1, 2)


class Odd(Backbone):
    """A network with one fault at a time."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.unused = nn.ReLU()
        self.shared = nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        y = self.shared(self.low(x.permute(0, 4, 1, 2, 3).flatten(0, 1)))
        if self.fault == "no_grad":
            with torch.no_grad():
                return self.high(y)
        if self.fault == "reentrant":
            return checkpoint(self.high, y, use_reentrant=True)
        if self.fault == "another's kernel":
            y = OnceDifferentiable.apply(y)
        if self.fault == "fused attention":
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                y = attend(y)
        if self.fault == "checkpointed attention":
            y = checkpoint(attend, y, use_reentrant=False)
        return self.high(self.shared(y))


TWICE = "layers after 'low' that PyTorch differentiates twice, got "
ODD = [
    (
        "",
        ["low", "unused"],
        "layer 'unused' to run once, got 0 runs; name a layer that the model's forward calls",
    ),
    ("", ["low", "shared"], "layer 'shared' to run once, got 2 runs; name the block around it"),
    (
        "no_grad",
        ["low", "high"],
        "layer 'high' to run with gradients, got a run under torch.no_grad.*requires_grad_",
    ),
    ("reentrant", ["low", "high"], "or checkpoint it with use_reentrant=False"),
    ("reentrant", ["low", "last_relu"], f"{TWICE}.*reentrant=True"),
    ("another's kernel", ["low", "high"], f"{TWICE}.*once_differentiable"),
    ("fused attention", ["low", "high"], f"{TWICE}.*flash_attention"),
    ("checkpointed attention", ["low", "high"], f"{TWICE}.*checkpoint"),
]


@pytest.mark.parametrize(("fault", "layers", "text"), ODD, ids=[f"{o[0]}-{o[1][1]}" for o in ODD])
@pytest.mark.parametrize("warmup", [0, 100])
def test_the_first_batch_tells_and_leaves_nothing(
    fault: str, layers: list[str], text: str, warmup: int
) -> None:
    """Also where the STF terms are not yet due: not after hours of warm-up."""
    torch.manual_seed(0)
    (x, target) = clips()
    net = Odd(fault).double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    objective = STFObjective(net, layers, warmup=warmup)
    for _ in range(2):
        with pytest.raises(ValueError, match=text):
            objective(x, target)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all("forward" not in vars(m) and not m._forward_hooks for m in net.modules())
    assert all(p.grad is None for p in net.parameters())
    assert torch.is_grad_enabled() and torch.backends.cudnn.enabled
    assert torch._C._len_torch_function_stack() == 0


def test_the_rehearsal_leaves_no_trace() -> None:
    """The first step is, to the bit, that of an objective that has rehearsed before.

    This holds for dropout, buffers and gradients.
    """
    x, target = clips()
    options = {"head": "fc", "loss": STFLoss()}
    fresh, rehearsed = (
        STFObjective(draw(head="dropout"), ["low", "high"], **options) for _ in range(2)
    )
    start = {name: value.clone() for name, value in rehearsed.model.state_dict().items()}
    rehearsed(x, target)
    rehearsed.model.load_state_dict(start)
    for objective in (fresh, rehearsed):
        torch.manual_seed(5)
        objective(x, target).loss.backward()
    for (name, one), other in zip(
        fresh.state_dict().items(), rehearsed.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    for name, gradient in gradients(fresh).items():
        assert torch.equal(gradient, gradients(rehearsed)[name]), name


class Habits(Backbone):
    """Reassigns a buffer, counts its batches, and may write to its input."""

    mean: Tensor

    def __init__(self, *, writes: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.writes = writes

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.5 * self.mean + x.detach().mean()
        return super().forward(x.mul_(0.5) if self.writes else x)


def test_the_rehearsal_runs_on_copies() -> None:
    (x, target) = clips()
    plain = draw(Habits, writes=True)
    net = draw(Habits, writes=True)
    expected = nn.functional.cross_entropy(plain(x.clone()), target)
    out = STFObjective(net, ["low", "high"])(x, target)
    torch.testing.assert_close(out.terms["classification"], expected)
    torch.testing.assert_close(net.mean, plain.mean)
    torch.testing.assert_close(x, clips()[0] / 2)
    with pytest.raises(
        ValueError, match="a model that does not modify its input, got one that writes to it; clone"
    ):
        STFObjective(draw(Habits, writes=True), ["high"], loss=STFLoss.exploration_branch())(
            x, target
        )


def test_beside_another_loss_of_the_same_model() -> None:
    """In the first batch too: nothing that an earlier forward saved is written to."""
    (x, target) = clips()
    net = draw()
    objective = STFObjective(net, ["low", "high"], head="fc", loss=STFLoss())
    (nn.functional.cross_entropy(net(x), target) + objective(x, target).loss).backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(("head", "dropout"), [("fc", 0.0), ("fc", 0.5), (None, 0.0)])
def test_persons_in_another_order_are_told(head: str | None, dropout: float) -> None:
    (x, target) = clips()
    net = draw(FoldedOtherwise, dropout=dropout)
    text = "each clip's persons in adjacent rows, got the first persons of all clips, "
    text += "then the second ones; fold"
    with pytest.raises(ValueError, match=text):
        STFObjective(net, ["low"], head=head, loss=STFLoss(coherence=0))(x, target)


def test_what_is_tried_without_gradients_is_tried_again_with_them() -> None:
    torch.manual_seed(0)
    (x, target) = clips()
    net = Odd("another's kernel").double()
    objective = STFObjective(net, ["low", "high"])
    with torch.no_grad():
        objective(x, target)
    with pytest.raises(ValueError, match=TWICE):
        objective(x, target)


def test_one_clip_first() -> None:
    """One clip does not show the persons' order, so it settles neither the form nor the order."""
    (x, target) = clips()
    net = draw(FoldedOtherwise)
    text = "each clip's persons in adjacent rows"
    one = STFObjective(net, ["low"], head="fc", loss=STFLoss(coherence=0)).eval()
    one(x[:1], target[:1])
    one.explain(x[:1])
    with pytest.raises(ValueError, match=text):
        one(x, target)
    with pytest.raises(ValueError, match=text):
        one.explain(x)


def test_a_head_inside_an_mlp_is_none() -> None:
    """Named by mistake: the first of two linear layers. The gradient is what is right then."""
    (x, target) = clips()
    net = draw(head="mlp")
    named, unnamed = (STFObjective(net, ["low", "high"], head=head) for head in ("hidden.0", None))
    assert_same_step(named, x, unnamed, x, target)


def test_wrong_calls() -> None:
    (x, target) = clips()
    objective = STFObjective(draw(), ["low", "high"])
    for inputs in (torch.zeros(3), "lengths"):
        with pytest.raises(
            ValueError, match="inputs as a tuple of the model's inputs besides x, got"
        ):
            objective(x, target, inputs)
    with pytest.raises(ValueError, match=r"classes in 0..6, got 0 to 7"):
        objective.explain(x, torch.tensor([0, 7, 1]))
    with pytest.raises(ValueError, match=r"classes \(N=3\) to be a tensor, got int"):
        objective.explain(x, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"classes \(N=3\), got \(2,\)"):
        objective.explain(x, torch.tensor([0, 1]))
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=r"outside torch.inference_mode\(\), got one inside"),
    ):
        objective(x, target)
    low = objective.model.low
    torch.testing.assert_close(
        objective.eval().explain(x, layer=low)[0], objective.explain(x, layer="low")[0]
    )


def test_soft_targets() -> None:
    x, target = clips()
    hard, soft = (STFObjective(draw(), ["low", "high"]) for _ in range(2))
    one_hot = nn.functional.one_hot(target, CLASSES).double()
    torch.testing.assert_close(soft(x, one_hot).loss, hard(x, target).loss)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("head", ["bare", "mlp"])
def test_half_precision_weights(branch: str, head: str) -> None:
    (x, target) = clips()
    net = draw(head=head).bfloat16()
    objective = STFObjective(net, ["low", "high"], head="fc", loss=BRANCHES[branch]())
    out = objective(x.bfloat16(), target)
    out.loss.backward()
    assert out.focus.dtype == torch.float32 and out.loss.isfinite()
    assert {p.grad.dtype for p in net.parameters() if p.grad is not None} == {torch.bfloat16}


def test_wrong_options() -> None:
    net = draw()
    for options, text in (
        ({"every": 0}, "every as an integer of at least 1, got 0"),
        ({"every": 1.5}, "every as an integer of at least 1, got 1.5"),
        ({"warmup": -1}, "warmup as an integer of at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=text):
            STFObjective(net, ["low", "high"], **options)
    for options, text in (
        ({"select_logits": 0}, "select_logits to be a function, got int"),
        ({"project": torch.eye(V)}, "project to be a function, got Tensor"),
        ({"project": {"high": 1}}, "project to be a function, got int"),
    ):
        with pytest.raises(ValueError, match=text):
            STFObjective(net, ["low", "high"], **options)
    one = STFObjective(net, ["high"], loss=STFLoss.plain())
    one.loss = STFLoss()
    with pytest.raises(ValueError, match="two layers for the coherence term, got"):
        one(*clips())
    with pytest.raises(
        ValueError,
        match="a model that is not wrapped, got DataParallel; wrap the objective instead",
    ):
        STFObjective(nn.DataParallel(net), ["low", "high"])


# --- random networks ---


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_small_network(data: st.DataObject) -> None:
    """Never a NaN, never a silent wrong shape."""
    size = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    n = size(1, 3)
    c = size(1, 4)
    t = size(1, 9)
    v = size(1, 6)
    classes = size(2, 5)
    axes = data.draw(st.sampled_from(["N C T V M", *LAYOUTS]))
    m = size(1, 3) if "M" in axes else 1
    net = Turned(
        Backbone(
            channels=c,
            classes=classes,
            stride=size(1, 3),
            inplace=data.draw(st.booleans()),
            head=data.draw(st.sampled_from(["bare", "linear", "dropout", "mlp", "maximum"])),
        ),
        {
            "N C T V M": lambda x: x,
            "N T (V C)": lambda y: y.unflatten(2, (v, c)).permute(0, 3, 1, 2)[..., None],
            "N C T (M V)": lambda y: y.unflatten(3, (m, v)).transpose(3, 4),
        }.get(axes)
        or LAYOUTS[axes][2],
    )
    # BatchNorm trains on more than one value.
    training = data.draw(st.booleans()) and n * m * t * v > 1
    weights = {name: data.draw(st.sampled_from([0.0, 0.1, 10.0])) for name in STFLoss().weights}
    objective = STFObjective(
        net,
        ["network.low", "network.high"],
        head=data.draw(st.sampled_from(["network.fc", None])),
        loss=STFLoss(
            **weights,
            norm=data.draw(st.sampled_from(["l2", "rms"])),
            allowed=torch.rand(classes, v) > 0.5,
            separation=data.draw(st.sampled_from(["distance", "overlap"])),
        ),
        axes=axes,
        num_joints=v,
        score=data.draw(st.sampled_from(SCORES)),
        erasing=data.draw(st.sampled_from([0.0, 0.5, 1.0])),
    ).train(training)
    shape = {
        "N C T V M": (n, c, t, v, m),
        "N M T V C": (n, m, t, v, c),
        "N C T V": (n, c, t, v),
        "N T (V C)": (n, t, v * c),
        "N C T (M V)": (n, c, t, m * v),
    }[axes]
    scale = data.draw(st.sampled_from([0.0, 1e-6, 1.0, 1e4]))
    x = torch.randn(*shape) * scale
    target = torch.randint(classes, (n,))
    for _ in range(2):
        out = objective(x, target)
        out.loss.backward()
        assert out.logits.shape == (n, classes) and out.loss.isfinite()
        used = {name: weight for name, weight in weights.items() if weight and name != "adjacency"}
        assert set(out.terms) == {"classification", *used}
        total = out.terms["classification"] + sum(
            weight * out.terms[name] for name, weight in used.items()
        )
        torch.testing.assert_close(out.loss, total)
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
        if any(weights.values()):
            assert out.focus.shape == (n, m, t, v) and out.focus.min() >= 0 and out.focus.max() <= 1
    focus, _ = objective.explain(x)
    assert focus.shape == (n, m, t, v) and focus.isfinite().all()
    if v > 1 and "(" not in axes and objective.loss.uses(*weights):
        with pytest.raises(ValueError, match=r"STFObjective: expected x \(N, "):
            objective(
                x.transpose(-1, -2) if axes.startswith("N C T V M") and m != v else x[:, :, None],
                target,
            )
