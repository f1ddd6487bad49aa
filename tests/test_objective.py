"""STFObjective on the STF network and on others: what it computes, and what it leaves alone."""

import copy
import pickle
from functools import partial

import pytest
import torch
from layer_tools import gradients
from stf_gcn import STFGCN
from torch import Tensor, nn

from skeleton_focus import KINECT20, STFAdjacency, STFLoss, STFObjective, grad_cam
from skeleton_focus.focus import SCORES, class_score, mask_by_focus, resize_focus

N = 3
C = 4
T = 16
V = 20
M = 2
CLASSES = 7
BRANCHES = {
    "focus": STFLoss.focus_branch,
    "exploration": STFLoss.exploration_branch,
    "all": STFLoss,
}


def network(dtype: torch.dtype = torch.float64, *, trained: bool = True) -> STFGCN:
    torch.manual_seed(0)
    net = STFGCN(CLASSES, KINECT20, in_channels=C, widths=(6, 6, 12, 12, 18, 18)).to(dtype)
    for module in net.modules():
        if trained and isinstance(module, STFAdjacency):
            nn.init.normal_(module.emit.weight, std=0.05)
    return net


def clips(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(N, C, T, V, M, generator=random, dtype=dtype), torch.tensor([0, 3, 6])


def objective(net: nn.Module, loss: STFLoss | None = None) -> STFObjective:
    return STFObjective(net, layers=["blocks.4", "blocks.5"], head="fc", loss=loss)


class Stepwise(nn.Module):
    """Hand features on by hand, so that no hook is needed to explain them: the network cut open."""

    def __init__(self, net: STFGCN) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        net = self.net
        embeddings = []
        n, c, t, v, m = x.shape
        x = (
            net.norm(x.permute(0, 4, 1, 3, 2).reshape(n * m, c * v, t))
            .view(n * m, c, v, t)
            .transpose(2, 3)
        )
        outputs = []
        for block in net.blocks:
            embeddings.append(torch.sigmoid(block.graph.generator.beta(x)).squeeze(1))
            x = block(x)
            outputs.append(x)
        return net.fc(x.view(n, m, x.shape[1], -1).mean((1, 3))), outputs[4], outputs[5], embeddings


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_gradient_is_the_plain_way_s(branch: str) -> None:
    """By autograd.grad through whole maps, PyTorch's BatchNorm and a second forward in full."""
    (x, target) = clips()
    net = network().eval()  # in evaluation beta runs twice by hand without moving BatchNorm
    criterion = BRANCHES[branch]()
    mine = objective(net, criterion).eval()
    out = mine(x, target)
    out.loss.backward()

    plain = copy.deepcopy(net)
    plain.zero_grad()
    logits, low, high, embeddings = Stepwise(plain)(x)
    first, second = logits.topk(2).indices.unbind(1)

    def focus(features: Tensor, classes: Tensor) -> Tensor:
        return grad_cam(class_score(logits, classes), features, num_persons=M, create_graph=True)

    q = focus(high, first)
    masked, *_ = Stepwise(plain)(mask_by_focus(x, q))
    loss, terms = criterion(
        logits,
        target,
        masked_logits=masked,
        focus=q,
        rival_focus=focus(high, second),
        low_focus=focus(low, first),
        embeddings=embeddings,
    )
    loss.backward()
    assert out.terms.keys() == terms.keys()
    for name, term in terms.items():
        torch.testing.assert_close(out.terms[name], term.detach(), msg=name, check_dtype=False)
    torch.testing.assert_close(out.focus, resize_focus(q.detach(), T))
    expected = gradients(plain)
    got = gradients(net)
    assert expected.keys() == got.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-7, atol=1e-11, msg=name)


def test_the_gradients_of_exploration_and_the_others_add_up_at_the_focus() -> None:
    """Against two backward passes down to Q, whose gradients are added and handed on by hand."""
    (x, target) = clips()
    net = network().eval()
    criterion = STFLoss(exploration=1)
    plain = copy.deepcopy(net)
    objective(net, criterion).eval()(x, target).loss.backward()

    logits, low, high, embeddings = Stepwise(plain)(x)
    first, second = logits.topk(2).indices.unbind(1)
    find = partial(grad_cam, num_persons=M, create_graph=True)
    q, rival = (find(class_score(logits, classes), high) for classes in (first, second))
    low_focus = find(class_score(logits, first), low)
    here = q.detach().requires_grad_()
    masked, *_ = Stepwise(plain)(mask_by_focus(x, here))
    maps = {
        "masked_logits": masked,
        "rival_focus": rival,
        "low_focus": low_focus,
        "embeddings": embeddings,
    }
    loss, terms = criterion(logits, target, focus=here, **maps)
    others = (
        criterion.weights["divergence"] * terms["divergence"]
        + criterion.weights["coherence"] * terms["coherence"]
    )
    of_e, of_others = (
        torch.autograd.grad(part, here, retain_graph=True)[0].flatten(1)
        for part in (criterion.weights["exploration"] * terms["exploration"], others)
    )
    loss.backward(retain_graph=True)  # down to Q, and through everything besides it
    assert ((of_e * of_others).sum(1) < 0).any()  # they pull against each other
    q.backward((of_e + of_others).view_as(q))
    for name, expected in gradients(plain).items():
        torch.testing.assert_close(gradients(net)[name], expected, rtol=1e-7, atol=1e-11, msg=name)


def test_in_training_too() -> None:
    """With batch statistics: the coherence term's gradient at a shift and at the whole map."""
    (x, target) = clips()
    net = network()
    plain = copy.deepcopy(net)
    only = STFLoss(exploration=0, divergence=0, adjacency=0)
    objective(net, only)(x, target).loss.backward()
    logits, low, high, _ = Stepwise(plain)(x)
    maps = [
        grad_cam(class_score(logits, logits.argmax(1)), f, num_persons=M, create_graph=True)
        for f in (low, high)
    ]
    only(logits, target, low_focus=maps[0], focus=maps[1]).loss.backward()
    for name, expected in gradients(plain).items():
        torch.testing.assert_close(gradients(net)[name], expected, rtol=1e-7, atol=1e-11, msg=name)


@pytest.mark.parametrize("branch", BRANCHES)
def test_batch_norm_sees_each_clip_once(branch: str) -> None:
    (x, target) = clips()
    net = network()
    once = copy.deepcopy(net)
    once(x)
    objective(net, BRANCHES[branch]())(x, target)
    before = dict(network().named_buffers())
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, dict(once.named_buffers())[name]), name
    assert any(not torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


def test_without_weights_it_is_cross_entropy_to_the_bit() -> None:
    (x, target) = clips(torch.float32)
    net = network(torch.float32)
    plain = copy.deepcopy(net)
    out = objective(net, STFLoss.plain())(x, target)
    loss = nn.functional.cross_entropy(plain(x), target)
    assert out.loss.item() == loss.item()
    assert out.focus is None
    out.loss.backward()
    loss.backward()
    for name, expected in gradients(plain).items():
        assert torch.equal(gradients(net)[name], expected), name


def test_an_untrained_generator_changes_nothing() -> None:
    """G_k starts at zero: the network is the one without it."""
    (x, _) = clips()
    net = network(trained=False).eval()
    with_generator = net(x)
    for module in net.modules():
        if isinstance(module, STFAdjacency):
            module.forward = lambda x, k=module.num_subsets: (x.new_zeros(len(x), k, V, V), None)  # type: ignore[method-assign]
    assert torch.equal(net(x), with_generator)


def test_a_step_lowers_each_term_it_trains() -> None:
    x, target = clips(torch.float32)
    for term in ("exploration", "divergence", "coherence", "adjacency"):
        weights = dict.fromkeys(("exploration", "divergence", "coherence", "adjacency"), 0.0) | {
            term: 1.0
        }
        net = network(torch.float32)
        trained = objective(net, STFLoss(**weights))
        optimizer = torch.optim.SGD(net.parameters(), lr=3e-3)
        values = []
        for _ in range(12):
            out = trained(x, target)
            values.append(out.terms[term].item())
            optimizer.zero_grad()
            (out.loss - out.terms["classification"]).backward()
            optimizer.step()
        assert values[-1] < values[0], (term, values)


class Other(nn.Module):
    """A network whose head is not pooling and a linear layer alone."""

    def __init__(self, dropout: float = 0.0, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(C, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(8, 9, 1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(9, CLASSES)
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        y = self.last(self.body(x.permute(0, 4, 1, 2, 3).reshape(n * m, c, t, v)))
        return self.fc(self.dropout(y.view(n, m, 9, -1).mean((1, 3)))) * self.temperature


@pytest.mark.parametrize(
    ("net", "closed"), [(Other(), True), (Other(0.5), False), (Other(temperature=2.0), False)]
)
@pytest.mark.parametrize("branch", BRANCHES)
def test_any_head(net: nn.Module, closed: bool, branch: str) -> None:
    (x, target) = clips()
    net = copy.deepcopy(net).double()
    trained = STFObjective(net, layers=["body", "last"], head="fc", loss=BRANCHES[branch]())
    torch.manual_seed(5)
    out = trained(x, target)
    out.loss.backward()
    assert list(trained._closed_form.values()) == [closed]
    by_autograd = STFObjective(copy.deepcopy(net), layers=["body", "last"], loss=BRANCHES[branch]())
    by_autograd.zero_grad()
    torch.manual_seed(5)
    again = by_autograd(x, target)
    again.loss.backward()
    torch.testing.assert_close(out.loss, again.loss)
    for name, expected in gradients(by_autograd).items():
        torch.testing.assert_close(
            gradients(trained)[name], expected, rtol=1e-7, atol=1e-11, msg=name
        )


def test_dropout_before_the_head_decides_by_mode() -> None:
    net = Other(0.5).double()
    trained = STFObjective(net, layers=["last"], head="fc", loss=STFLoss.exploration_branch())
    for mode in (trained.train, trained.eval):
        mode()(*clips())
    assert list(trained._closed_form.values()) == [False, True]
    again = STFObjective(net, layers=["last"], head="fc", loss=STFLoss.exploration_branch())
    for mode in (net.eval, net.train):  # of the model alone, as plain loops do it
        mode()
        again(*clips())
    assert list(again._closed_form.values()) == [True, False]


def test_without_gradients_the_terms_are_the_same() -> None:
    (x, target) = clips()
    trained = objective(network()).eval()
    with_gradients = trained(x, target)
    with torch.no_grad():
        out = trained(x, target)
    assert not out.loss.requires_grad
    torch.testing.assert_close(out.loss, with_gradients.loss.detach())
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=r"outside torch.inference_mode\(\)"),
    ):
        trained(x, target)


@pytest.mark.parametrize("head", ["fc", None])
@pytest.mark.parametrize("branch", BRANCHES)
def test_validation_without_gradients_for_any_head(head: str | None, branch: str) -> None:
    (x, target) = clips()
    net = Other().double().eval()
    trained = STFObjective(net, layers=["body", "last"], head=head, loss=BRANCHES[branch]()).eval()
    with torch.no_grad():
        out = trained(x, target)
    torch.testing.assert_close(out.loss, trained(x, target).loss.detach())
    assert not out.loss.requires_grad


def test_a_head_that_starts_at_zero_decides_nothing() -> None:
    (x, target) = clips()
    net = Other(0.5).double()
    nn.init.zeros_(net.fc.weight)
    nn.init.zeros_(net.fc.bias)
    trained = STFObjective(net, layers=["last"], head="fc", loss=STFLoss.exploration_branch())
    trained(x, target)
    assert trained._closed_form == {}
    nn.init.normal_(net.fc.weight)
    trained(x, target)
    assert list(trained._closed_form.values()) == [False]


def test_explaining_leaves_batch_norm_alone() -> None:
    (x, _) = clips()
    trained = objective(network()).train()
    before = {name: buffer.clone() for name, buffer in trained.named_buffers()}
    trained.explain(x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in trained.named_buffers())


def test_explain() -> None:
    (x, _) = clips()
    trained = objective(network()).eval()
    with torch.no_grad():
        focus, logits = trained.explain(x)
        other, _ = trained.explain(x, torch.tensor([1, 1, 1]))
        low, _ = trained.explain(x, layer="blocks.4")
    assert focus.shape == (N, M, T, V)
    torch.testing.assert_close(logits, trained.model(x))
    torch.testing.assert_close(focus, trained(x, logits.argmax(1)).focus)
    assert not torch.equal(focus, other)
    assert not torch.equal(focus, low)
    assert all(p.grad is None for p in trained.parameters())
    with pytest.raises(
        ValueError, match=r"expected layer to be one of 'blocks\.4', 'blocks\.5', got 'fc'"
    ):
        trained.explain(x, layer="fc")


def test_explaining_records_a_graph_above_the_layer_alone() -> None:
    (x, _) = clips()
    net = network().eval()
    enabled: dict[str, bool] = {}
    for name in ("blocks.3", "blocks.4", "blocks.5", "fc"):
        net.get_submodule(name).register_forward_pre_hook(
            lambda *_, name=name: enabled.__setitem__(name, torch.is_grad_enabled())
        )
    for head in ("fc", None):
        trained = STFObjective(net, layers=["blocks.4", "blocks.5"], head=head)
        for grad_enabled in (True, False):
            with torch.set_grad_enabled(grad_enabled):
                trained.explain(x, layer="blocks.4")
                assert torch.is_grad_enabled() == grad_enabled
            assert list(enabled.values()) == [False, False, True, True]


class Switching(nn.Module):
    """Its layer runs with gradients, what follows without, unless they are enabled outside."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = self.low(x[..., 0])
        return self.fc(y.square().mean((2, 3)))


def test_explaining_a_model_that_switches_gradients_itself() -> None:
    torch.manual_seed(0)
    net = Switching().double()
    x = torch.randn(2, 3, 4, 5, 1, dtype=torch.float64)
    trained = STFObjective(net, layers=["low"], head=None, loss=STFLoss.plain())
    focus, logits = trained.explain(x)
    features = net.low(x[..., 0]).detach().requires_grad_()
    score = net.fc(features.square().mean((2, 3))).max(1).values
    torch.testing.assert_close(focus, grad_cam(score, features))
    torch.testing.assert_close(logits, net(x))


def test_nothing_is_left_behind() -> None:
    (x, target) = clips()
    trained = objective(network(), STFLoss())
    for _ in range(3):
        trained(x, target)
    assert all("forward" not in vars(m) and not m._forward_hooks for m in trained.modules())
    with pytest.raises(ValueError, match="expected x"):
        trained.model.blocks[5].forward(torch.zeros(1, 1, 1, 1))
    with pytest.raises(ValueError, match="STFGCN: expected x"):
        trained(torch.randn(N, C + 1, T, V, M, dtype=torch.float64), target)
    assert all("forward" not in vars(m) for m in trained.modules())


def test_bfloat16_autocast_is_finite_and_close() -> None:
    (x, target) = clips(torch.float32)
    net = network(torch.float32).eval()
    trained = objective(net, STFLoss()).eval()
    exact = trained.explain(x)[0]
    classes = trained.explain(x)[1].argmax(1)
    with torch.autocast("cpu", torch.bfloat16):
        out = trained(x, target)
        focus, _ = trained.explain(x, classes)
    out.loss.backward()
    assert all(g.isfinite().all() for g in gradients(net).values())
    assert out.focus is not None
    assert focus.dtype == torch.float32
    assert (focus - exact).abs().mean() < 2e-2


def test_copies() -> None:
    (x, target) = clips()
    trained = objective(network(), STFLoss()).eval()
    expected = trained(x, target).loss
    for copied in (copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
        torch.testing.assert_close(copied(x, target).loss, expected)
    fresh = objective(network(trained=False), STFLoss()).eval()
    fresh.load_state_dict(trained.state_dict())
    torch.testing.assert_close(fresh(x, target).loss, expected)
    assert "layers=['blocks.4', 'blocks.5'], head='fc'" in repr(trained)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_short_clips_and_clips_of_nothing(frames: int) -> None:
    _, target = clips()
    net = network(torch.float32)
    for x in (torch.randn(N, C, frames, V, M), torch.zeros(N, C, frames, V, M)):
        out = objective(net, STFLoss())(x, target)
        out.loss.backward()
        assert out.loss.isfinite()
        assert all(g.isfinite().all() for g in gradients(net).values())


def test_errors() -> None:
    (x, target) = clips()
    net = network()
    with pytest.raises(
        ValueError, match=r"expected the name of a layer, got 'blocks\.6'; STFGCN has 'blocks\.5'"
    ):
        STFObjective(net, layers=["blocks.4", "blocks.6"])
    with pytest.raises(ValueError, match=r"expected a list of layers, got 'blocks\.5'"):
        STFObjective(net, layers="blocks.5")
    with pytest.raises(
        ValueError,
        match=r"two layers for the coherence term, got \['blocks.5'\]; name the layer before",
    ):
        STFObjective(net, layers=["blocks.5"])
    with pytest.raises(
        ValueError, match=r"expected score to be one of 'logit', 'log_odds', .*, got 'margin'"
    ):
        STFObjective(net, layers=["blocks.4", "blocks.5"], score="margin")
    with pytest.raises(
        ValueError,
        match=r"^STFObjective: expected loss to be an STFLoss, got str; STFLoss.focus_branch",
    ):
        STFObjective(net, layers=["blocks.4", "blocks.5"], loss="focus")
    with pytest.raises(ValueError, match=r"expected x \(N, C, T, V, M\), got \(3, 4, 16, 20\)"):
        objective(net)(x[..., 0], target)
    with pytest.raises(ValueError, match=r"expected target \(N=3, ...\), got \(2,\)"):
        objective(net)(x, target[:2])
    with pytest.raises(
        ValueError, match="STFObjective: expected logits of at least 2 classes, got 1"
    ):
        objective(STFGCN(1, KINECT20, in_channels=C, widths=(6,) * 6).double())(x, target * 0)
    with pytest.raises(
        ValueError,
        match=r"expected layer 'fc' to give \(N\*M=6, C, T, V=20\), got \(3, 7\); "
        "name a layer before",
    ):
        STFObjective(net, layers=["blocks.5", "fc"])(x, target)
    with pytest.raises(
        ValueError,
        match=r"expected layers from low to high, \['blocks.4', 'blocks.5'\], got \['blocks.5',",
    ):
        STFObjective(net, layers=["blocks.5", "blocks.4"], head="fc")(x, target)
    with pytest.raises(
        ValueError, match=r"STFObjective: expected each layer once, got \['blocks.5', 'blocks.5'\]"
    ):
        STFObjective(net, layers=["blocks.5", "blocks.5"])
    with pytest.raises(
        ValueError, match=r"expected head 'norm' to be nn.Linear, got BatchNorm1d; name the"
    ):
        STFObjective(net, layers=["blocks.4", "blocks.5"], head="norm")


def test_a_lower_layer_in_training_holds_other_clips_scores() -> None:
    """BatchNorm above mixes the batch: the scores' maps differ in training, and only there."""
    (x, _) = clips()
    net = network()
    torch.manual_seed(0)
    x = x * torch.linspace(0.5, 2, N).view(N, 1, 1, 1, 1)

    def apart(layer: str) -> float:
        log_odds, probability = (
            STFObjective(net, ["blocks.4", "blocks.5"], score=score) for score in SCORES[1:]
        )
        return (
            (log_odds.explain(x, layer=layer)[0] - probability.explain(x, layer=layer)[0])
            .abs()
            .max()
            .item()
        )

    assert apart("blocks.4") > 1e-4 and apart("blocks.5") < 1e-9
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    assert apart("blocks.4") < 1e-9
