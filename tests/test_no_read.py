"""Test that good calls after the first batch read no value, for which a GPU would be waited for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from other_device import OtherDevice, no_waiting, remote
from test_contract import CASES, cast
from torch import Tensor, nn

from skeleton_focus import (
    Augment,
    FocusDiffusionBlock,
    SkeletonLayout,
    STFGraphConv,
    STFLoss,
    STFObjective,
    SyntheticActions,
    add_visibility,
    adjacency_focus_loss,
    body_height,
    center,
    coherence_loss,
    convert_layout,
    directed_adjacency,
    divergence_loss,
    exploration_loss,
    fuse,
    grad_cam,
    guidance_loss,
    make_stream,
    mask_padding,
    min_max_normalize,
    multi_scale_adjacency,
    prepare_stf,
    resample_frames,
    seeded_generator,
)
from skeleton_focus.adjacency import normalize_adjacency
from skeleton_focus.augment import drop_joints, flip, rotate, scale, shear
from skeleton_focus.focus import (
    class_score,
    linear_head_focus,
    mask_by_focus,
    resize_focus,
    top_two,
)
from skeleton_focus.focus_metrics import (
    area_under_curve,
    class_overlap,
    deletion_curve,
    focus_average_precision,
    focus_coverage,
    focus_iou,
    insertion_curve,
    layer_coherence,
    pointing_game,
    relevance_mass,
)
from skeleton_focus.layouts import COCO17, NTU25
from skeleton_focus.occlusion import (
    body_parts,
    drop_frames,
    hide_frames,
    hide_joints,
    hide_random_joints,
    jitter_joints,
    keep_beginning,
)
from skeleton_focus.preparation import align_body, normalize_box, repeat_frames

N = 3
T = 8
V = 25
M = 2
CLASSES = 5
OUT_AND_IN = [directed_adjacency(NTU25, direction) for direction in ("outward", "inward")]
LENGTHS = torch.tensor([8, 5, 3])  # of a layer: on the CPU, as PackedSequence wants them


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in has no autocast to switch off."""
    monkeypatch.setattr(torch, "autocast", lambda device, **options: nullcontext())


# What counts as waiting


READS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).all()),
    "if": lambda x: 1 if (x > 0).any() else 0,
    "int": lambda x: int(x.sum()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "copy": lambda x: torch.zeros(3, 4).copy_(x),
    "mask": lambda x: x[x > 0],
    "mask to write": lambda x: x.clone().index_put_((x > 0,), torch.zeros((), device=x.device)),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "min": lambda x: f"{x.min():d}" if x.dtype == torch.int64 else f"{x.min().item():g}",
}
NO_READS: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda x: (2 * x + 1).relu_().sum(),
    "shape": lambda x: x.new_zeros(len(x), x.shape[1]),
    "index": lambda x: x[torch.arange(2, device=x.device)],
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "masked_fill": lambda x: x.masked_fill(x > 0, 1),
    "topk": lambda x: x.topk(2).indices,
}


@pytest.mark.parametrize("name", READS)
def test_a_read_is_seen(name: str) -> None:
    x = remote(torch.randn(3, 4))
    with OtherDevice() as device:
        READS[name](x)
    assert device.waits
    with pytest.raises(AssertionError, match=r"test_no_read\.py"), no_waiting():
        READS[name](x)


@pytest.mark.parametrize("name", NO_READS)
def test_other_operations_are_not_reads(name: str) -> None:
    x = torch.randn(3, 4)
    expected = NO_READS[name](x)
    there = remote(x)
    with no_waiting():
        found = NO_READS[name](there)
    torch.testing.assert_close(found.values, expected)


def test_a_copy_to_the_device_is_seen() -> None:
    with pytest.raises(AssertionError), no_waiting():
        torch.zeros(3).to("meta")
    with no_waiting(uploads=True):
        assert type(torch.zeros(3).to("meta")).__name__ == "Remote"


def test_tensors_on_two_devices_do_not_mix() -> None:
    x = remote(torch.randn(3))
    with pytest.raises(RuntimeError, match="same device"), no_waiting():
        x + torch.randn(3)


# Layers


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_a_layer(name: str, training: bool) -> None:
    case = CASES[name]
    layer = case.build().train(training)
    padded = name in ("context", "block")
    given = [remote(x) for x in cast(case.draw(N, T), torch.float32)]
    if padded:
        given.append(LENGTHS)
    layer = remote(layer.float())
    # Lengths are copied to the device to mask the padding.
    with no_waiting(uploads=padded):
        output = layer(*given)
        parts = [output]
        if not isinstance(output, Tensor):
            parts = [part for part in output if part.requires_grad]
        if parts[0].requires_grad:
            torch.stack([part.square().mean() for part in parts]).sum().backward()


def test_a_layer_streams() -> None:
    block = remote(FocusDiffusionBlock(3, 8, *OUT_AND_IN, context="forward").eval())
    state = None
    with no_waiting():
        for frame in remote(torch.randn(2, 3, 4, V)).split(1, dim=2):
            _, state = block.stream(frame, state)


# Functions: losses, focus, measures, preparation


def prepared() -> dict[str, Any]:
    """What the functions are called with, on the other device."""
    torch.manual_seed(0)
    return remote(
        {
            "x": torch.randn(N, 3, T, V, M),
            "visibility": (torch.rand(N, T, V, M) > 0.2).float(),
            "lengths": LENGTHS.clone(),
            "focus": torch.rand(N, M, T, V),
            "rival": torch.rand(N, M, T, V),
            "low": torch.rand(N, M, 2 * T, V),
            "critical": torch.randint(2, (N, M, T, V)).float(),
            "there": torch.tensor([[True, False], [True, True], [True, True]]),
            "embedding": torch.rand(N * M, T, V),
            "features": torch.randn(N * M, 4, T, V),
            "weight": torch.randn(CLASSES, 4),
            "logits": torch.randn(N, CLASSES),
            "classes": torch.tensor([0, 4, 2]),
            "shares": torch.tensor([0.1, 0.3, 0.0]),
            "factors": torch.randn(N, 3, 2),
            "which": torch.rand(N, V, M) > 0.5,
            "mirrored": torch.tensor([True, False, True]),
        }
    )


def cam(d: dict[str, Any], **options: Any) -> Tensor:
    features = d["features"].requires_grad_()
    return grad_cam(
        features.unflatten(0, (N, M)).square().mean((1, 2, 3, 4)),
        features,
        num_persons=M,
        **options,
    )


def network(x: Tensor) -> Tensor:
    """Logits of five classes, of any clips."""
    return x.flatten(1)[:, :CLASSES]


FUNCTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "exploration": lambda d: exploration_loss(d["logits"], d["classes"]),
    "divergence": lambda d: divergence_loss(d["focus"], d["rival"], norm="rms"),
    "overlap": lambda d: divergence_loss(d["focus"], d["rival"], form="overlap"),
    "coherence": lambda d: coherence_loss(d["low"], d["focus"]),
    "adjacency": lambda d: adjacency_focus_loss(d["focus"], d["embedding"]),
    "guidance, a table": lambda d: guidance_loss(d["focus"], d["critical"][:, 0, 0] > 0),
    "guidance, masks": lambda d: guidance_loss(d["focus"], d["critical"], reduction="none"),
    "logit": lambda d: class_score(d["logits"], d["classes"]),
    "log-odds": lambda d: class_score(d["logits"], d["classes"], "log_odds"),
    "probability": lambda d: class_score(d["logits"], d["classes"], "probability"),
    "two classes": lambda d: top_two(d["logits"])[0],
    "grad-cam": lambda d: cam(d),
    "grad-cam, persons": lambda d: cam(d, present=d["there"], create_graph=True),
    "closed form": lambda d: linear_head_focus(
        d["features"],
        d["weight"],
        d["logits"],
        d["classes"],
        num_persons=M,
        present=d["there"],
        score="log_odds",
    ),
    "min-max": lambda d: min_max_normalize(d["focus"], d["there"]),
    "resize": lambda d: resize_focus(d["low"], T),
    "mask": lambda d: mask_by_focus(d["x"], d["low"]),
    "precision": lambda d: focus_average_precision(d["focus"], d["critical"]),
    "iou": lambda d: focus_iou(d["focus"], d["critical"]),
    "pointing": lambda d: pointing_game(d["focus"], d["critical"]),
    "mass": lambda d: relevance_mass(d["focus"], d["critical"]),
    "class overlap": lambda d: class_overlap(d["focus"], d["rival"]),
    "layers": lambda d: layer_coherence(d["low"], d["focus"]),
    "coverage": lambda d: focus_coverage(d["focus"]),
    "deletion": lambda d: area_under_curve(
        deletion_curve(network, d["x"], d["focus"], d["classes"], steps=2)
    ),
    "insertion": lambda d: insertion_curve(network, d["x"], d["focus"], steps=2, by="joints"),
    "padding": lambda d: mask_padding(d["x"].flatten(3), d["lengths"]),
    "normalized": lambda d: normalize_adjacency(d["critical"][0] @ d["critical"][0].mT),
    "center": lambda d: center(d["x"], 1, visibility=d["visibility"]),
    "center, one origin": lambda d: center(d["x"], 1, each_frame=False, person=0),
    "streams": lambda d: make_stream(d["x"], "joint_motion", NTU25, visibility=d["visibility"]),
    "visibility": lambda d: add_visibility(d["x"], d["visibility"]),
    "repeat": lambda d: repeat_frames(d["x"], d["lengths"], 12),
    "resample": lambda d: resample_frames(d["x"], d["lengths"], 12),
    "span": lambda d: resample_frames(
        d["x"], d["lengths"], 5, start=d["shares"], stop=1 - d["shares"], warp=-d["shares"]
    ),
    "times": lambda d: resample_frames(
        d["x"], d["lengths"], 3, times=d["factors"][:, :, 0].sigmoid(), interpolate=False
    ),
    "box": lambda d: normalize_box(d["x"], lengths=d["lengths"], visibility=d["visibility"]),
    "fuse": lambda d: fuse([d["logits"].softmax(1), d["logits"].softmax(1)], [1, 2]),
    "fuse logits": lambda d: fuse([d["logits"], d["logits"]], [0.6, 0.4], kind="logits"),
    "rotate": lambda d: rotate(d["x"], d["factors"][:, :, 0]),
    "scale": lambda d: scale(d["x"], d["shares"]),
    "drop joints": lambda d: drop_joints(d["x"], d["which"]),
}
# A list of joints is copied to the device as an index; nothing is read back.
WITH_A_LIST: dict[str, Callable[[dict[str, Any]], Any]] = {
    "height": lambda d: body_height(d["x"], NTU25, visibility=d["visibility"]),
    "align": lambda d: align_body(d["x"], NTU25, visibility=d["visibility"]),
    "bones": lambda d: make_stream(d["x"], "bone_motion", NTU25, visibility=d["visibility"]),
    "stf": lambda d: prepare_stf(
        d["x"], d["lengths"], NTU25, visibility=d["visibility"], frames=12
    ),
    "shear": lambda d: shear(d["x"], d["factors"]),
    "convert": lambda d: convert_layout(d["x"], NTU25, COCO17, visibility=d["visibility"]),
    "flip": lambda d: flip(d["x"], NTU25, d["mirrored"]),
}


@pytest.mark.parametrize("name", [*FUNCTIONS, *WITH_A_LIST])
def test_a_function(name: str) -> None:
    given = prepared()
    with no_waiting(uploads=name in WITH_A_LIST):
        {**FUNCTIONS, **WITH_A_LIST}[name](given)


BATCHES: dict[str, Callable[[Any], Any]] = {
    "augment": lambda b: Augment(
        NTU25,
        rotation=(9, 9, 9),
        scale=0.1,
        crop=0.8,
        shear=0.1,
        flip=0.5,
        joint_dropout=0.1,
        speed=0.2,
        axis_dropout=0.5,
        mask=0.5,
        box=True,
        sampling="random",
        frames=12,
    )(b, seeded_generator(1, epoch=0, step=0)),
    "augment, in tests": lambda b: Augment(
        NTU25, box=True, sampling="random", test_crop=0.9, frames=12
    )(b, None),
    "hide joints": lambda b: hide_joints(b, body_parts(NTU25)["left_arm"]),
    "hide frames": lambda b: hide_frames(b, 0.5),
    "hide random joints": lambda b: hide_random_joints(
        b, 0.5, seeded_generator(1, epoch=0, step=0)
    ),
    "jitter": lambda b: jitter_joints(
        b, NTU25, p=0.1, sigma=0.1, generator=seeded_generator(1, epoch=0, step=0)
    ),
}
# T' is the longest clip's new length, which is a value.
SHORTER: dict[str, Callable[[Any], Any]] = {
    "beginning": lambda b: keep_beginning(b, 0.5),
    "drop frames": lambda b: drop_frames(b, 0.5, seeded_generator(1, epoch=0, step=0)),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch(name: str) -> None:
    batch = remote(SyntheticActions(frames=16).generate(2, seed=0))
    # Numbers are drawn on the CPU, so that every device draws the same.
    with no_waiting(uploads=True):
        BATCHES[name](batch)


@pytest.mark.parametrize("name", SHORTER)
def test_shorter_clips_read_their_lengths_once(name: str) -> None:
    batch = remote(SyntheticActions(frames=16).generate(2, seed=0))
    with OtherDevice() as device:
        SHORTER[name](batch)
    assert len(device.waits) == 1 and "occlusion.py" in device.waits[0]


# STFLoss and STFObjective


TERMS = ("exploration", "divergence", "coherence", "adjacency", "guidance")
TABLE = torch.randint(2, (CLASSES, V)).float()


def only(*terms: str, **options: Any) -> STFLoss:
    """The loss of these terms alone."""
    weights = {name: 0.1 if name in terms else 0.0 for name in TERMS}
    return STFLoss(**weights, allowed=TABLE if "guidance" in terms else None, **options)


@pytest.mark.parametrize("terms", [(), *((term,) for term in TERMS), TERMS])
@pytest.mark.parametrize("rows", [False, True], ids=["classes", "probabilities"])
def test_the_loss(terms: tuple[str, ...], rows: bool) -> None:
    criterion = remote(only(*terms, separation="overlap" if rows else "distance"))
    given = prepared()
    target = given["logits"].values.softmax(1) if rows else given["classes"].values
    target = remote(target)
    focus = given["focus"].requires_grad_()
    logits = given["logits"].requires_grad_()
    with no_waiting():
        out = criterion(
            logits,
            target,
            masked_logits=logits.detach(),
            focus=focus,
            rival_focus=given["rival"],
            low_focus=given["low"],
            label_focus=focus,
            embeddings=[given["embedding"]],
        )
        out.loss.backward()


class Net(nn.Module):
    """Two graph convolutions with G_k and a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.low = STFGraphConv(3, 4, SCALES, hidden=2)
        self.norm = nn.BatchNorm2d(4)
        self.high = STFGraphConv(4, 6, SCALES, hidden=2)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 1, 2, 3).reshape(n * m, c, t, v)
        x = self.high(self.norm(self.low(x)).relu())
        return self.fc(x.view(n, m, 6, t * v).mean((1, 3)))


SMALL = SkeletonLayout.from_bones([(0, 1), (1, 2), (1, 3), (3, 4)], center=1)
SCALES = multi_scale_adjacency(SMALL, 2)
OBJECTIVES: dict[str, dict[str, Any]] = {
    "plain": {"loss": STFLoss.plain()},
    "focus branch": {"loss": STFLoss.focus_branch()},
    "exploration branch": {"loss": STFLoss.exploration_branch()},
    "recommended": {"loss": STFLoss.recommended()},
    "overlap": {"loss": only("divergence", separation="overlap")},
    "guidance": {"loss": only("guidance")},
    "all terms": {"loss": only(*TERMS)},
    "all terms, log-odds": {"loss": only(*TERMS), "score": "log_odds"},
    "all terms, probability": {"loss": only(*TERMS), "score": "probability"},
    "all terms, by gradients": {"loss": only(*TERMS), "head": None},
    "erasing": {"loss": STFLoss.plain(), "erasing": 1.0},
    "erasing, log-odds, all terms": {"loss": only(*TERMS), "score": "log_odds", "erasing": 0.5},
    "erasing, by gradients": {"loss": STFLoss.plain(), "erasing": 0.5, "head": None},
    "every": {"loss": STFLoss.focus_branch(), "every": 2},
    "warmup": {"loss": STFLoss.focus_branch(), "warmup": 2, "every": 3},
}


def objective_of(name: str) -> tuple[STFObjective, Tensor, Tensor]:
    """An objective and a batch of it; a person of the first clip is absent."""
    torch.manual_seed(0)
    options = {"head": "fc", **OBJECTIVES[name]}
    if options["loss"].allowed is not None:
        options["loss"] = only(*(term for term in TERMS if options["loss"].uses(term)))
        options["loss"].allowed = TABLE[:, :5]
    objective = STFObjective(Net(), ["low", "high"], **options)
    x = torch.randn(4, 3, T, 5, 2)
    x[0, ..., 1] = 0
    return remote(objective), remote(x), remote(torch.tensor([0, 1, 2, 3]))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objective_after_the_first_batch(name: str) -> None:
    objective, x, target = objective_of(name)
    with OtherDevice():
        objective(x, target).loss.backward()
    for _ in range(4 if "every" in OBJECTIVES[name] else 1):
        with no_waiting():
            out = objective(x, target)
            out.loss.backward()
    assert out.loss.device.type == "meta"


@pytest.mark.parametrize("name", ["focus branch", "all terms", "all terms, by gradients"])
def test_the_objective_in_evaluation(name: str) -> None:
    objective, x, target = objective_of(name)
    objective.eval()
    with torch.no_grad():
        with OtherDevice():
            objective(x, target)
        with no_waiting():
            objective(x, target)


def test_an_explanation() -> None:
    objective, x, target = objective_of("focus branch")
    objective.eval()
    for layer in ("low", "high"):
        with OtherDevice():
            objective.explain(x, target, layer=layer)
        with no_waiting():
            objective.explain(x, target, layer=layer)
