"""The recipes of docs/recipes.md run, and what they give equals plain automatic differentiation."""

from __future__ import annotations

import copy
import importlib
import itertools
import sys
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from layer_tools import gradients
from test_docs import blocks
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from skeleton_focus import STFLoss, STFObjective, grad_cam
from skeleton_focus.focus import class_score, mask_by_focus, resize_focus

N = 2
C = 3
T = 6
V = 25
M = 2
CLASSES = 4
BRANCHES = 3
BOTH = STFLoss(exploration=0.5, divergence=0.3, coherence=0.4, adjacency=0)


# --- networks with the interfaces of the code bases ---


class Backbone(nn.Module):
    """Keypoints (N, M, T, V, C) to features (N, M, C', T, V), by ten blocks."""

    def __init__(self) -> None:
        super().__init__()
        widths = [C] + 10 * [6]
        self.gcn = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, width, 1), nn.BatchNorm2d(width), nn.Tanh())
            for before, width in itertools.pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        n, m = x.shape[:2]
        x = x.flatten(0, 1).permute(0, 3, 1, 2).contiguous()  # (N*M, C, T, V)
        for block in self.gcn:
            x = block(x)
        return x.unflatten(0, (n, m))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        n, m, c, t, v = x.shape
        pooled = self.pool(x.reshape(n * m, c, t, v)).view(n, m, c)
        return self.fc(pooled.mean(dim=1))


class Recognizer(nn.Module):
    """What RecognizerGCN of mmaction2 has that the recipes use."""

    def __init__(self) -> None:
        super().__init__()
        self.data_preprocessor = nn.Identity()
        self.backbone = Backbone()
        self.cls_head = Head()
        self.initialized = False

    def init_weights(self) -> None:
        self.initialized = True

    def forward(
        self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor"
    ) -> tuple[str, torch.Size]:
        return mode, inputs.shape


class Branched(nn.Module):
    """Input branches (N, I, C, T, V, M) that join, as in EfficientGCN; logits and a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(C, 4, 1) for _ in range(BRANCHES))
        self.main = nn.Sequential(
            nn.Conv2d(4 * BRANCHES, 8, 1), nn.Sequential(nn.Tanh(), nn.Conv2d(8, 8, 1))
        )
        self.classifier = nn.Conv3d(8, CLASSES, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n, i, c, t, v, m = x.shape
        assert (i, c) == (BRANCHES, C)
        folded = x.permute(1, 0, 5, 2, 3, 4).reshape(i, n * m, c, t, v)
        joined = torch.cat(
            [branch(part) for branch, part in zip(self.branches, folded, strict=True)], 1
        )
        feature = self.main(joined).unflatten(0, (n, m)).permute(0, 2, 3, 4, 1)  # (N, C, T, V, M)
        return self.classifier(F.adaptive_avg_pool3d(feature.flatten(3).unsqueeze(4), 1)).view(
            n, -1
        ), feature


class Several(nn.Module):
    """Logits and a loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Conv2d(C, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.high = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        folded = x.permute(0, 4, 1, 2, 3).flatten(0, 1)  # (N*M, C, T, V)
        features = self.high(self.norm(self.low(folded)).tanh())
        pooled = features.unflatten(0, (len(x), -1)).mean((1, 3, 4))
        return self.fc(pooled), pooled.square().mean()


class Registry:
    def register_module(self) -> Callable[[type], type]:
        return lambda kind: kind

    def build(self, config: dict[str, str]) -> Recognizer:
        assert config == {"type": "RecognizerGCN"}
        return Recognizer()


class BaseModel(nn.Module):
    def __init__(self, data_preprocessor: nn.Module) -> None:
        super().__init__()
        self.data_preprocessor = data_preprocessor


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's code leaves behind, with the networks above in place of those of
    others.
    """
    for name, content in (
        ("mmaction.registry", {"MODELS": Registry()}),
        ("mmengine.model", {"BaseModel": BaseModel}),
    ):
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name.split(".")[0], types.ModuleType(name.split(".")[0]))
        monkeypatch.setitem(sys.modules, name, module)
    torch.manual_seed(0)
    scope: dict[str, Any] = {
        "recognizer": Recognizer(),
        "keypoint": torch.randn(N, 1, M, T, V, C),
        "label": torch.tensor([[0], [3]]),
        "branched": Branched(),
        "x": torch.randn(N, BRANCHES, C, T, V, M),
        "several": Several(),
        "clips": torch.randn(N, C, T, V, M),
        "target": torch.tensor([0, 3]),
    }
    for block in blocks("recipes.md"):
        exec(block, scope)
    return scope


# --- what they give ---


Way = Callable[[Tensor], Tensor]


def same(x: Tensor) -> Tensor:
    return x


def assert_equals_autograd(
    objective: STFObjective,
    x: Tensor,
    *,
    there: Way = same,
    back: Way = same,
    spread: Way = same,
    clip: Way = same,
    unclip: Way = same,
    classes: int = CLASSES,
) -> None:
    """Terms, focus and every gradient against differentiation through whole maps, which ``there``
    makes.
    """
    target = torch.arange(len(x)) % classes
    net = copy.deepcopy(objective.model)
    out = objective(x, target)
    objective.zero_grad()
    out.loss.backward()
    kept: dict[str, Tensor] = {}

    def keep(layer: str) -> Callable[..., Tensor]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            kept[layer] = there(output)
            return back(kept[layer])

        return hook

    handles = [
        net.get_submodule(layer).register_forward_hook(keep(layer)) for layer in objective.layers
    ]
    select = objective.select_logits or same
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        logits = select(net(x))
    for handle in handles:
        handle.remove()
    best, second = logits.topk(2).indices.unbind(1)

    def focus(layer: str, chosen: Tensor) -> Tensor:
        persons = len(kept[layer]) // len(x)
        score = class_score(logits, chosen, objective.score)
        q = grad_cam(score, kept[layer], num_persons=persons, normalize=False, create_graph=True)
        q = spread(q)
        low = q.amin((1, 2, 3), keepdim=True)
        # A map without a peak is 0.
        return (q - low) / (q.amax((1, 2, 3), keepdim=True) - low).clamp(min=1e-300)

    low, high = objective.layers
    q = focus(high, best)
    masked = unclip(mask_by_focus(clip(x), q))
    weights = objective.loss.weights
    maps: dict[str, Any] = {"focus": q, "classes": best}
    if weights["exploration"]:
        maps["masked_logits"] = select(net(masked))
    if weights["divergence"]:
        maps["rival_focus"] = focus(high, second)
    if weights["coherence"]:
        maps["low_focus"] = focus(low, best)
    loss, terms = objective.loss(logits, target, **maps)
    loss.backward()
    assert terms.keys() == out.terms.keys()
    for name, term in terms.items():
        torch.testing.assert_close(out.terms[name], term, msg=name)
    assert out.focus is not None
    torch.testing.assert_close(out.focus, resize_focus(q, out.focus.shape[2]).detach())
    assert q.max() == 1 and len(gradients(net)) == len(list(net.parameters()))
    for name, expected in gradients(net).items():
        torch.testing.assert_close(
            gradients(objective.model)[name], expected, rtol=1e-7, atol=1e-11, msg=name
        )


def test_a_recogniser_of_mmaction2(page: dict[str, Any]) -> None:
    layers = ["recognizer.backbone.gcn.8", "recognizer.backbone.gcn.9"]
    net = page["Logits"](Recognizer().double())
    objective = STFObjective(
        net, layers, head="recognizer.cls_head.fc", axes="N M T V C", loss=BOTH
    )
    to_clip = {
        "clip": lambda x: x.permute(0, 4, 2, 3, 1),
        "unclip": lambda x: x.permute(0, 4, 2, 3, 1),
    }
    assert_equals_autograd(objective, torch.randn(N, M, T, V, C, dtype=torch.float64), **to_clip)
    assert list(objective._closed_form.values()) == [True]


def test_a_model_of_mmengine(page: dict[str, Any]) -> None:
    model = page["STFRecognizer"]({"type": "RecognizerGCN"})
    model.init_weights()
    assert model.objective.model.recognizer.initialized
    assert model(page["keypoint"], None, mode="predict") == ("predict", page["keypoint"].shape)
    samples = [types.SimpleNamespace(gt_label=label) for label in page["label"]]
    losses = model(page["keypoint"], samples, mode="loss")
    assert [name for name in losses if "loss" in name] == ["loss"]
    assert not any(value.requires_grad for name, value in losses.items() if name != "loss")
    expected = model.objective(page["keypoint"][:, 0], page["target"])
    assert losses.keys() == {"loss", *expected.terms}
    torch.testing.assert_close(losses["loss"], expected.loss)


def test_every_branch_is_masked(page: dict[str, Any]) -> None:
    seen = []

    class Watched(Branched):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(x)
            return super().forward(x)

    x = page["x"].double()
    layers = ["network.main.0", "network.main.1"]
    merged = page["Merged"](Watched().double(), branches=BRANCHES)
    objective = STFObjective(
        merged, layers, loss=BOTH, select_logits=page["objective"].select_logits
    )
    out = objective(x.flatten(1, 2), page["target"])
    whole, masked = seen[-2:]
    torch.testing.assert_close(whole, x)
    for branch in range(BRANCHES):
        torch.testing.assert_close(masked[:, branch], mask_by_focus(x[:, branch], out.focus))
    assert_equals_autograd(objective, x.flatten(1, 2))


TOKENS = [
    ("(N M) (T V) C", lambda y: y.flatten(1, 2)),
    ("(T V) (N M) C", lambda y: y.flatten(1, 2).transpose(0, 1)),
    ("N (M T V) C", lambda y: y.unflatten(0, (N, M)).flatten(1, 3)),
    ("(N M T) V C", lambda y: y.flatten(0, 1)),
    ("(N M) T V C", same),
]


@pytest.mark.parametrize(("maps", "give"), TOKENS, ids=[tokens[0] for tokens in TOKENS])
def test_the_layouts_of_tokens(maps: str, give: Way) -> None:
    def take(y: Tensor) -> Tensor:
        return (y.transpose(0, 1) if maps == "(T V) (N M) C" else y).reshape(N * M, T, V, -1)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(C, 8)
            self.low = nn.Identity()
            self.high = nn.Identity()
            self.norm = nn.LayerNorm(8)
            self.fc = nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = x.permute(0, 4, 2, 3, 1).flatten(0, 1)  # (N*M, T, V, C)
            low = take(self.low(give(self.embed(x)))).tanh()
            high = take(self.high(give(self.norm(low))))
            return self.fc(high.unflatten(0, (N, M)).mean((1, 2, 3)))

    torch.manual_seed(0)
    objective = STFObjective(Encoder().double(), ["low", "high"], head="fc", maps=maps, loss=BOTH)
    x = torch.randn(N, C, T, V, M, dtype=torch.float64)
    assert_equals_autograd(
        objective,
        x,
        there=lambda y: take(y).permute(0, 3, 1, 2),
        back=lambda y: give(y.permute(0, 2, 3, 1)),
    )


def test_a_token_for_each_frame() -> None:
    class Frames(nn.Module):
        """Joints joined with channels before the encoder."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(V * C, 8)
            self.encoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True), 2
            )
            self.fc = nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x.permute(0, 4, 2, 3, 1).flatten(0, 1).flatten(2))  # (N*M, T, C')
            return self.fc(self.encoder(x).mean(1).unflatten(0, (N, M)).mean(1))

    torch.manual_seed(0)

    def spread(focus: Tensor) -> Tensor:
        return focus.expand(-1, -1, -1, V)

    layers = ["encoder.layers.0", "encoder.layers.1"]
    objective = STFObjective(
        Frames().double(), layers, head="fc", maps="(N M) T C", project=spread, loss=BOTH
    )
    assert_equals_autograd(
        objective,
        torch.randn(N, C, T, V, M, dtype=torch.float64),
        spread=spread,
        there=lambda y: y.transpose(1, 2).unsqueeze(3),
        back=lambda y: y.squeeze(3).transpose(1, 2),
    )


@pytest.mark.parametrize(
    ("kind", "layers", "head"),
    [
        ("Tokens", ["encoder.layers.0", "encoder.layers.1"], "fc"),
        ("ClassToken", ["joints.1", "joints.2"], None),
    ],
)
def test_the_transformers_of_the_page(
    page: dict[str, Any], kind: str, layers: list[str], head: str | None
) -> None:
    torch.manual_seed(0)
    net = page[kind](classes=CLASSES).double()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    objective = STFObjective(net, layers, head=head, maps="(N M) (T V) C", loss=BOTH)
    assert_equals_autograd(
        objective,
        page["clips"].double(),
        there=lambda y: y.unflatten(1, (T, V)).permute(0, 3, 1, 2),
        back=lambda y: y.permute(0, 2, 3, 1).flatten(1, 2),
    )
    assert head is None or list(objective._closed_form.values()) == [True]


def test_a_loss_of_the_model_s_own(page: dict[str, Any]) -> None:
    assert page["several"].low.weight.grad.norm() > 0
    assert torch.equal(page["out"].output[0], page["out"].logits)


# --- rows of the table in docs/objective.md ---


def test_joints_before_frames_and_maximum_pooling() -> None:
    """SGN takes (N, T, V * C), its layers give (N, C, V, T), and its head follows a convolution and
    a maximum.
    """

    class JointsFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low = nn.Conv2d(C, 8, 1)
            self.high = nn.Conv2d(8, 8, 1)
            self.after = nn.Conv1d(8, 8, 3, padding=1)
            self.fc = nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = x.unflatten(2, (V, C)).permute(0, 3, 2, 1)  # (N, C, V, T)
            x = self.high(self.low(x).tanh())
            return self.fc(self.after(x.amax(2)).amax(2))

    torch.manual_seed(0)
    options: dict[str, Any] = {
        "axes": "N T (V C)",
        "num_joints": V,
        "maps": "N C V T",
        "loss": BOTH,
    }
    options["score"] = (
        # the logit of some second class has an empty map, and the reference divides by zero
        "log_odds"
    )
    objective = STFObjective(JointsFirst().double(), ["low", "high"], **options)
    assert_equals_autograd(
        objective,
        torch.randn(N, T, V * C, dtype=torch.float64),
        there=lambda y: y.transpose(2, 3),
        back=lambda y: y.transpose(2, 3),
        clip=lambda x: x.unflatten(2, (V, C)).permute(0, 3, 1, 2).unsqueeze(4),
        unclip=lambda x: x.squeeze(4).permute(0, 2, 3, 1).flatten(2),
    )


def test_joints_of_several_frames_on_one_axis() -> None:
    """As STTFormer's layers give them."""
    n = 2

    class Tuples(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low = nn.Conv2d(C, 8, 1)
            self.high = nn.Conv2d(8, 8, 1)
            self.fc = nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = x.permute(0, 4, 1, 2, 3).reshape(N * M, C, T // n, n * V)
            return self.fc(self.high(self.low(x).tanh()).unflatten(0, (N, M)).mean((1, 3, 4)))

    def project(q: Tensor) -> Tensor:
        return q.unflatten(3, (n, V)).flatten(2, 3)

    torch.manual_seed(0)
    objective = STFObjective(
        Tuples().double(), ["low", "high"], head="fc", project=project, loss=BOTH
    )
    x = torch.randn(N, C, T, V, M, dtype=torch.float64)
    assert_equals_autograd(objective, x, spread=project)
    x[:, :, 2:] = 0  # the first two frames alone move
    focus, _ = objective.eval().explain(x)
    torch.testing.assert_close(focus[:, :, 2:], focus[:, :, 2:, :1].expand(-1, -1, -1, V))
    assert focus[:, :, :2].std() > 0


# --- DataParallel ---


@pytest.mark.parametrize("branch", [STFLoss.exploration_branch, STFLoss.focus_branch])
@pytest.mark.parametrize("head", ["fc", None])
def test_replicas_of_the_objective(
    branch: Callable[[], STFLoss], head: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's replicate needs GPUs, so its two private functions that reach for them are replaced
    by copies.
    """
    replicate = importlib.import_module("torch.nn.parallel.replicate")

    def broadcast(
        tensors: list[Tensor], devices: list[int], detach: bool = False
    ) -> list[list[Tensor]]:
        kept = [
            t.clone() if t.requires_grad else t for t in tensors
        ]  # the first device's buffers are the module's
        return [kept, [t.clone() for t in tensors]]

    monkeypatch.setattr(replicate, "_broadcast_coalesced_reshape", broadcast)
    monkeypatch.setattr(replicate, "_get_device_index", lambda device, *_: device)
    torch.manual_seed(0)
    net = Several().double()
    x = torch.randn(4, C, T, V, M, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 3])
    halves = [slice(0, 2), slice(2, 4)]

    def objective(model: nn.Module) -> STFObjective:
        return STFObjective(
            model, ["low", "high"], head=head, loss=branch(), select_logits=lambda output: output[0]
        )

    separate = [objective(copy.deepcopy(net)) for _ in halves]
    expected = [one(x[half], target[half]) for one, half in zip(separate, halves, strict=True)]
    (sum(out.loss for out in expected) / 2).backward()
    parallel = objective(net)
    parallel.every = 2
    for steps, applied in ((1, True), (2, False), (3, True)):
        parallel.zero_grad()
        replicas = replicate.replicate(parallel, [0, 1])
        with ThreadPoolExecutor(2) as pool:
            waiting = [
                pool.submit(one, x[half], target[half])
                for one, half in zip(replicas, halves, strict=True)
            ]
            outs = [one.result() for one in waiting]
        torch.stack([out.loss for out in outs]).mean().backward()
        assert parallel.steps == steps and net.norm.num_batches_tracked == steps
        assert all((out.focus is not None) == applied for out in outs)
    for out, other in zip(outs, expected, strict=True):
        torch.testing.assert_close(out.loss, other.loss)
    of_separate = [gradients(one.model) for one in separate]
    for name, gradient in gradients(net).items():
        torch.testing.assert_close(gradient, of_separate[0][name] + of_separate[1][name], msg=name)
