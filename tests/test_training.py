"""STFObjective under the ways in which people train: what it computes must not depend on them."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable

import pytest
import torch
from layer_tools import gradients
from stf_gcn import STFGCN
from test_backbones import Backbone
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from skeleton_focus import KINECT20, STFAdjacency, STFLoss, STFObjective
from skeleton_focus.feature_tap import FeatureTap
from skeleton_focus.focus import linear_head_focus, resize_focus

N = 4
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
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def network(
    kind: type[STFGCN] = STFGCN, dtype: torch.dtype = torch.float64, *, depth: int = 6
) -> STFGCN:
    torch.manual_seed(0)
    sizes = {"widths": (6, 6, 12, 12, 18, 18)[:depth], "strides": (1, 1, 2, 1, 2, 1)[:depth]}
    net = kind(CLASSES, KINECT20, in_channels=C, **sizes).to(dtype)
    for module in net.modules():
        if isinstance(module, STFAdjacency):
            nn.init.normal_(module.emit.weight, std=0.05)
    return net


def objective(net: nn.Module, branch: str = "focus", **options: object) -> STFObjective:
    return STFObjective(
        net, ["blocks.4", "blocks.5"], head="fc", loss=BRANCHES[branch](), **options
    )


def clips(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(N, C, T, V, M, generator=random, dtype=dtype), torch.tensor([0, 3, 6, 1])


def assert_same_gradients(
    mine: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-8
) -> None:
    assert mine.keys() == expected.keys() and mine
    for name, gradient in expected.items():
        torch.testing.assert_close(mine[name], gradient, rtol=rtol, atol=1e-3 * rtol, msg=name)


@pytest.mark.parametrize("branch", BRANCHES)
def test_gradients_accumulate(branch: str) -> None:
    """Two half batches give the gradient of the whole one; evaluation, since BatchNorm ties a batch
    together.
    """
    x, target = clips()
    whole, halves = (objective(network(), branch).eval() for _ in range(2))
    whole(x, target).loss.backward()
    for part in (slice(0, 2), slice(2, 4)):
        (halves(x[part], target[part]).loss / 2).backward()
    assert_same_gradients(gradients(halves), gradients(whole))


class Checkpointed(STFGCN):
    """Keeps nothing of the blocks for the backward pass, but runs them again."""

    def block(self, i: int, x: Tensor) -> Tensor:
        return checkpoint(self.blocks[i], x, use_reentrant=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = (
            self.norm(x.permute(0, 4, 1, 3, 2).reshape(n * m, c * v, t))
            .view(n * m, c, v, t)
            .transpose(2, 3)
        )
        for i in range(len(self.blocks)):
            x = self.block(i, x)
        return self.fc(x.view(n, m, x.shape[1], -1).mean((1, 3)))


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("training", [True, False])
def test_checkpointed_blocks(branch: str, training: bool) -> None:
    x, target = clips()
    kept, again = (
        objective(network(kind), branch).train(training) for kind in (STFGCN, Checkpointed)
    )
    for _ in range(2):
        for trained in (kept, again):
            trained.zero_grad()
            trained(x, target).loss.backward()
        assert_same_gradients(gradients(again), gradients(kept))


class CheckpointedBelow(Checkpointed):
    """The older form of checkpoint, in the blocks below the layers that are explained."""

    def block(self, i: int, x: Tensor) -> Tensor:
        block = self.blocks[i]
        return checkpoint(block, x, use_reentrant=True) if i < 4 else block(x)


@pytest.mark.parametrize("loss", [STFLoss(adjacency=0), STFLoss.exploration_branch()])
def test_reentrant_checkpoints_below(loss: STFLoss) -> None:
    x, target = clips()
    trained = [
        STFObjective(network(kind), ["blocks.4", "blocks.5"], loss=loss)
        for kind in (STFGCN, CheckpointedBelow)
    ]
    for one in trained:
        one(x, target).loss.backward()
    assert_same_gradients(gradients(trained[1]), gradients(trained[0]))


def test_averaged_copies() -> None:
    """An exponential moving average of the objective explains with the averaged weights."""
    (x, target) = clips()
    trained = objective(network())
    averaged = AveragedModel(trained, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.01)
    expected = {name: p.detach().clone() for name, p in trained.named_parameters()}
    for step in range(3):
        optimizer.zero_grad()
        trained(x, target).loss.backward()
        optimizer.step()
        averaged.update_parameters(trained)
        for name, p in trained.named_parameters():
            expected[name] = p.detach().clone() if step == 0 else (expected[name] + p.detach()) / 2
    plain = objective(network())
    plain.load_state_dict(averaged.module.state_dict())
    with torch.no_grad():
        for name, p in plain.named_parameters():
            p.copy_(expected[name])
    torch.testing.assert_close(averaged.module.eval().explain(x)[0], plain.eval().explain(x)[0])
    torch.testing.assert_close(averaged(x, target).loss, plain(x, target).loss)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))]
)
@pytest.mark.parametrize("after", [0, 2])
def test_a_copy_trains_on_alone(
    duplicate: Callable[[STFObjective], STFObjective], after: int
) -> None:
    """A copy, also one of an objective that has run, takes the same step and shares nothing."""
    (x, target) = clips()
    trained = objective(network(), "all", every=2)
    for _ in range(after):
        trained(x, target).loss.backward()
    copied = duplicate(trained)
    for one in (trained, copied):
        one.zero_grad()
        one(x, target).loss.backward()
    assert_same_gradients(gradients(copied), gradients(trained))
    with torch.no_grad():
        for p in copied.parameters():
            p.zero_()
    assert all(p.abs().max() > 0 for p in trained.model.fc.parameters())
    assert int(copied.steps) == int(trained.steps) == after + 1


@pytest.mark.parametrize("branch", BRANCHES)
def test_channels_last(branch: str) -> None:
    x, target = clips()
    plain, turned = (objective(network(), branch) for _ in range(2))
    turned.to(memory_format=torch.channels_last)
    last = x.contiguous(memory_format=torch.channels_last_3d)
    assert not last.is_contiguous() and turned.model.blocks[4].temporal is not None
    for _ in range(2):
        for trained, clip in ((plain, x), (turned, last)):
            trained.zero_grad()
            trained(clip, target).loss.backward()
        assert_same_gradients(gradients(turned), gradients(plain))


# --- when the terms are there ---


def test_every_and_warmup() -> None:
    (x, target) = clips()
    trained = objective(network(), every=3, warmup=2)
    plain = copy.deepcopy(trained)
    plain.loss = STFLoss.plain()
    terms = []
    for _ in range(9):
        plain.model.load_state_dict(trained.model.state_dict())
        out = trained.train()(x, target)
        terms.append(len(out.terms) > 1)
        assert (out.focus is not None) == terms[-1]
        if not terms[-1]:  # then the step is one of cross-entropy, to the bit
            expected = plain.train()(x, target)
            for one, loss in ((trained, out.loss), (plain, expected.loss)):
                one.zero_grad()
                loss.backward()
            assert out.loss.item() == expected.loss.item()
            assert_same_gradients(gradients(trained), gradients(plain), rtol=0)
        assert len(trained.eval()(x, target).terms) == 4  # in evaluation always, and not counted
        with torch.no_grad():
            trained.train()(x, target)
    assert terms == [False, False, True, False, False, True, False, False, True]
    resumed = objective(network(), every=3, warmup=2)
    resumed.load_state_dict(trained.state_dict())
    assert [len(resumed(x, target).terms) > 1 for _ in range(3)] == [False, False, True]


# --- precisions ---


def assert_trains_finitely(device: str, dtype: torch.dtype, steps: int = 200) -> None:
    """And the focus is then float32's up to what the precision does to the features; its arithmetic
    adds nothing.
    """
    torch.manual_seed(0)
    x, target = (tensor.to(device) for tensor in clips(torch.float32))
    trained = objective(network(dtype=torch.float32), "all").to(device)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    for _ in range(steps):
        with torch.autocast(device, dtype):
            out = trained(x + 0.1 * torch.randn_like(x), target)
        assert out.loss.isfinite() and all(term.isfinite() for term in out.terms.values())
        optimizer.zero_grad()
        scaler.scale(out.loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert all(p.isfinite().all() for p in trained.parameters())
    trained.eval()
    exact, logits = trained.explain(x)
    classes = logits.argmax(1)
    (low, _) = trained.explain(x, logits.argmax(1), layer="blocks.4")
    # explain runs the layers up to the explained one under no_grad.
    tapped = FeatureTap(trained.model, ["blocks.5"])
    with torch.no_grad(), torch.autocast(device, dtype), tapped as tap:
        focus, low_precision = trained.explain(x, classes)
    with torch.autocast(device, dtype):
        low_layer, _ = trained.explain(x, classes, layer="blocks.4")
    assert focus.dtype == torch.float32 and tap["blocks.5"].dtype == dtype
    for one, other in ((focus, exact), (low_layer, low)):
        assert (one - other).abs().mean() < 2e-2 and (one - other).abs().max() < 0.1
    # By the gradient through the head instead; of a probability, whose own gradient all but
    # vanishes.
    trained.score = "log_odds"  # which the probability's is proportional to
    with torch.autocast(device, dtype):
        focus, _ = trained.explain(x, classes)
    by_gradient = STFObjective(
        trained.model, ["blocks.5"], loss=STFLoss(coherence=0), score="probability"
    ).eval()
    with torch.autocast(device, dtype):
        torch.testing.assert_close(by_gradient.explain(x, classes)[0], focus, rtol=0, atol=1e-2)
    features = tap["blocks.5"].double()
    weight = trained.model.fc.weight.double()
    same = linear_head_focus(
        features, weight, low_precision.double(), classes, num_persons=M, score="log_odds"
    )
    torch.testing.assert_close(focus.double(), resize_focus(same, T), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16(device: str) -> None:
    assert_trains_finitely(device, torch.bfloat16)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU: GradScaler and float16 are for those"
)
def test_float16_with_a_gradient_scaler() -> None:
    assert_trains_finitely("cuda", torch.float16)


# --- memory ---


def test_five_hundred_steps_leave_nothing_behind() -> None:
    resource = pytest.importorskip("resource")  # Unix has it
    net = Backbone()
    trained = STFObjective(net, ["low", "high"], head="fc", loss=STFLoss())
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    x = torch.randn(8, 4, 16, 5, 2)
    target = torch.arange(8) % 7
    seen = []
    for step in range(600):
        optimizer.zero_grad()
        trained(x, target).loss.backward()
        optimizer.step()
        if step in (99, 599):
            gc.collect()
            tensors = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
            seen.append((tensors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    (tensors, peak), (tensors_after, peak_after) = seen
    assert tensors_after <= tensors
    assert peak_after - peak < 4096, "KiB"
    assert all(
        "forward" not in vars(m) and not m._forward_hooks and not m._backward_hooks
        for m in trained.modules()
    )
    assert torch._C._len_torch_function_stack() == 0
