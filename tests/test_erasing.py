"""Test erasing: which joints a clip loses; all else is an ordinary step on what is left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from layer_tools import gradients
from test_backbones import Backbone, C, M, N, T, V, clips
from torch import Tensor, nn

from skeleton_focus import STFLoss, STFObjective
from skeleton_focus import objective as module

# In closed form, not so, and not looked for.
HEADS = [("bare", "fc"), ("linear", "fc"), ("linear", None)]


class Watched(Backbone):
    """Keeps what it is given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return super().forward(x)


class TwoStreams(Watched):
    """Takes a second tensor, which may hold the clip."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        logits = super().forward(x)
        self.seen.append(other.detach().clone())
        return logits + other.flatten(1).mean(1)[:, None]


def build(
    kind: type[Watched] = Watched, head: str = "bare", fc: str | None = "fc", **options: Any
) -> STFObjective:
    torch.manual_seed(0)
    net = kind(head=head).double()
    options = {"loss": STFLoss.plain(), "erasing": 1.0, **options}
    return STFObjective(net, ["low", "high"], head=fc, **options)


def lost_joints(x: Tensor, erased: Tensor) -> Tensor:
    """(N, M, V), where whole joints are zero; everything else is as it was."""
    gone = erased.eq(0).all(1).all(1).transpose(1, 2)
    expected = x.clone()
    for n, m, v in gone.nonzero().tolist():
        expected[n, :, :, v, m] = 0
    assert torch.equal(erased, expected)
    return gone


def third_joint(focus: Tensor, probability: float) -> Tensor:
    """In place of draw_erased: the third joint of the second person in every clip."""
    lost = torch.zeros_like(focus[:, :, :1])
    lost[:, 1, :, 2] = 1
    return lost


# ---------------------------------------------------------------------------- what the network sees


@pytest.mark.parametrize(("head", "fc"), HEADS)
def test_whole_joints_are_gone_and_only_those_of_the_labels_focus(
    head: str, fc: str | None
) -> None:
    x, target = clips()
    trained = build(head=head, fc=fc)
    per_joint = copy.deepcopy(trained).explain(x, target)[0].mean(2)
    assert per_joint.eq(0).any()
    lost = torch.zeros(N, M, V)
    for seed in range(80):
        torch.manual_seed(seed)
        trained(x, target)
        lost += lost_joints(x, trained.model.seen[-1])
    assert not lost[per_joint == 0].any()
    assert lost[per_joint == 1].eq(0).sum() == 0
    for focus, count in zip(per_joint.flatten(1), lost.flatten(1), strict=True):
        high = focus > 0.6 * focus.max()
        low = focus < 0.4 * focus.max()
        assert count[high].mean() > count[low].mean()


@pytest.mark.parametrize(("head", "fc"), HEADS)
def test_the_focus_of_the_labels_decides(
    head: str, fc: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (x, target) = clips()
    given = []
    monkeypatch.setattr(
        module, "draw_erased", lambda *known: given.append(known) or third_joint(*known)
    )
    trained = build(head=head, fc=fc, erasing=0.25)
    expected = copy.deepcopy(trained).explain(x, target)[0]
    rows = nn.functional.one_hot(target, 7).double()
    for labels in (target, rows):
        trained(x, labels)
        focus, probability = given[-1]
        torch.testing.assert_close(focus, expected)
        assert probability == 0.25


LOSSES = {
    "plain": STFLoss.plain,
    "focus": STFLoss.focus_branch,
    "exploration": STFLoss.exploration_branch,
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("head", "fc"), HEADS)
def test_it_is_an_ordinary_step_on_what_is_left(
    loss: str, head: str, fc: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss, terms, gradients and running statistics; a person without joints stays present."""
    monkeypatch.setattr(
        module, "draw_erased", lambda q, p: third_joint(q, p).index_fill(0, torch.tensor([1]), 1)
    )
    x, target = clips()
    trained, plain = (build(head=head, fc=fc, loss=LOSSES[loss](), erasing=p) for p in (1.0, 0.0))
    left = x.clone()
    left[..., 2, 1] = 0
    left[1] = 0
    there = torch.ones(N, M, T, dtype=torch.bool)
    for _ in range(2):
        results = []
        for objective, clip, present in ((trained, x, None), (plain, left, there)):
            objective.zero_grad()
            results.append(objective(clip, target, present=present))
            results[-1].loss.backward()
        one, other = results
        torch.testing.assert_close(one.loss, other.loss)
        assert one.terms.keys() == other.terms.keys()
        torch.testing.assert_close(one.logits, other.logits)
        if loss == "plain":
            assert one.focus is None
        else:
            torch.testing.assert_close(one.focus, other.focus)
        for name, gradient in gradients(plain).items():
            torch.testing.assert_close(
                gradients(trained)[name], gradient, rtol=1e-9, atol=1e-12, msg=name
            )
    for (name, buffer), again in zip(trained.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, again, rtol=1e-12, atol=0, msg=name)
    assert trained.model.low[1].num_batches_tracked == 2
    assert torch.equal(x, clips()[0])


@pytest.mark.parametrize(("head", "fc"), HEADS)
def test_plain_training_on_what_is_left(head: str, fc: str | None) -> None:
    """Against the network by itself, with whatever was drawn; running statistics hold one batch."""
    (x, target) = clips()
    trained = build(head=head, fc=fc)
    alone = copy.deepcopy(trained.model)
    torch.manual_seed(4)
    out = trained(x, target)
    left = trained.model.seen[-1]
    assert lost_joints(x, left).any()
    assert out.focus is None
    assert list(out.terms) == ["classification"]
    loss = nn.functional.cross_entropy(alone(left), target)
    assert torch.equal(out.loss, loss)
    out.loss.backward()
    loss.backward()
    for name, gradient in gradients(alone).items():
        assert torch.equal(gradients(trained.model)[name], gradient), name
    for (name, buffer), other in zip(trained.model.named_buffers(), alone.buffers(), strict=True):
        assert torch.equal(buffer, other), name


# ------------------------------------------------------------------------------- when, and when not


@pytest.mark.parametrize("loss", LOSSES)
def test_without_erasing_nothing_changes_and_nothing_is_drawn(loss: str) -> None:
    x, target = clips()
    with_option = build(loss=LOSSES[loss](), erasing=0.0)
    without = STFObjective(
        copy.deepcopy(with_option.model), ["low", "high"], head="fc", loss=LOSSES[loss]()
    )
    torch.manual_seed(7)
    state = torch.get_rng_state()
    for _ in range(2):
        one = with_option(x, target)
        other = without(x, target)
        assert torch.equal(one.loss, other.loss)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(clip, x) for clip in with_option.model.seen if loss != "exploration")
    assert loss != "plain" or len(with_option.model.seen) == 2


def test_a_seed_repeats_it() -> None:
    (x, target) = clips()
    trained = build()
    seen = []
    for seed in (1, 1, 2, 3):
        torch.manual_seed(seed)
        trained(x, target)
        seen.append(trained.model.seen[-1])
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[2], seen[3])


def test_not_in_evaluation_nor_without_gradients() -> None:
    (x, target) = clips()
    trained = build()
    state = torch.get_rng_state()
    trained.eval()(x, target)
    with torch.no_grad():
        trained(x, target)
        trained.train()(x, target)
    trained.explain(x, target)
    trained.model.eval()  # a network that is frozen in a part of training
    trained(x, target)
    assert all(torch.equal(clip, x) for clip in trained.model.seen)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("loss", ["plain", "exploration"])
def test_every_and_warmup(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "draw_erased", third_joint)
    (x, target) = clips()
    trained = build(loss=LOSSES[loss](), every=2, warmup=3)
    erased = []
    for _ in range(8):
        out = trained(x, target)
        shown = [clip for clip in trained.model.seen if len(clip)]
        logits = copy.deepcopy(trained.model)(
            shown[-1 if loss == "plain" or len(out.terms) == 1 else -2]
        )
        torch.testing.assert_close(logits, out.logits)
        erased.append(any(clip[..., 2, 1].eq(0).all() for clip in shown[-2:]))
        trained.model.seen.clear()
    assert erased == [False, False, False, True, False, True, False, True]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_dry_run_leaves_no_trace(loss: str) -> None:
    """The first batch is as if rehearsed before, with dropout and erasing drawing numbers."""
    x, target = clips()
    fresh, rehearsed = (build(head="dropout", loss=LOSSES[loss]()) for _ in range(2))
    rehearsed(x, target)
    known = rehearsed._rehearsed, rehearsed._closed_form
    rehearsed = build(head="dropout", loss=LOSSES[loss]())
    rehearsed._rehearsed, rehearsed._closed_form = known
    found = []
    for trained in (fresh, rehearsed):
        torch.manual_seed(9)
        out = trained(x, target)
        out.loss.backward()
        found.append(
            (out.loss, gradients(trained), dict(trained.named_buffers()), torch.get_rng_state())
        )
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert len(fresh.model.seen) == len(rehearsed.model.seen) + 1 + (loss == "exploration")


# ----------------------------------------------------------------- persons, layouts, further inputs


def test_persons_who_are_not_there() -> None:
    """Absent by present, in clip 0, or by zeros, in clip 1: none is lost; the others decide."""
    (x, target) = clips()
    trained = build()
    x[1, ..., 0] = 0
    present = torch.ones(N, M, T, dtype=torch.bool)
    present[0, 1] = False
    present[1, 0] = False
    lost = torch.zeros(N, M, V)
    for seed in range(40):
        torch.manual_seed(seed)
        trained(x, target, present=present)
        changed = (trained.model.seen[-1] != x).any(1).any(1).transpose(1, 2)
        lost += changed
    assert not lost[0, 1].any()
    assert not lost[1, 0].any()
    assert lost[0, 0].any() and lost[1, 1].any()
    torch.manual_seed(3)
    trained(x[1:], target[1:])
    by_zeros = trained.model.seen[-1]
    torch.manual_seed(3)
    trained(x[1:], target[1:], present=present[1:])
    assert torch.equal(trained.model.seen[-1], by_zeros)


def test_a_clip_of_nothing_loses_nothing() -> None:
    (x, target) = clips()
    trained = build()
    out = trained(x * 0, target)
    out.loss.backward()
    assert trained.model.seen[-1].eq(0).all()
    assert all(gradient.isfinite().all() for gradient in gradients(trained).values())


def test_inputs_that_hold_the_clip_lose_the_same_joints() -> None:
    x, target = clips()
    for mask_inputs in ((0,), ()):
        trained = build(TwoStreams, mask_inputs=mask_inputs)
        torch.manual_seed(2)
        trained(x, target, (3 * x,))
        clip, other = trained.model.seen[-2:]
        assert lost_joints(x, clip).any()
        assert torch.equal(other, 3 * clip if mask_inputs else 3 * x)
    channels = torch.ones(N, C + 2, T, V, M, dtype=torch.float64)  # of another number
    trained = build(TwoStreams, mask_inputs=(0,))
    torch.manual_seed(2)
    trained(x, target, (channels,))
    clip, other = trained.model.seen[-2:]
    assert torch.equal(lost_joints(channels, other), lost_joints(x, clip))


@pytest.mark.parametrize("warmup", [0, 100])
def test_an_undecided_input_is_refused_in_the_first_batch(warmup: int) -> None:
    (x, target) = clips()
    trained = build(TwoStreams, warmup=warmup)
    text = r"^STFObjective: expected mask_inputs to say whether to mask inputs\[0\], "
    text += "which has the shape of a clip, got"
    with pytest.raises(ValueError, match=text):
        trained(x, target, (x,))
    assert trained.model.seen == []
    trained(x, target, (x[..., 0],))
    build(TwoStreams, erasing=0.0)(x, target, (x,))


def test_inputs_to_mask_that_are_no_clips() -> None:
    (x, target) = clips()
    trained = build(TwoStreams, mask_inputs=(0,))
    with pytest.raises(
        ValueError,
        match=r"^STFObjective: expected inputs\[0\] \(N, C, T, V, M\), got \(3, 4, 6, 5\)",
    ):
        trained(x, target, (x[..., 0],))
    with pytest.raises(
        ValueError, match=r"^STFObjective: expected mask_inputs within the 0 inputs, got 0"
    ):
        trained(x, target)


class PersonsFirst(Watched):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 4, 2, 3, 1))


class Flat(Watched):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unflatten(2, (V, -1)).permute(0, 3, 1, 2)[..., None])


@pytest.mark.parametrize(
    ("kind", "options", "persons", "order"),
    [
        (PersonsFirst, {"axes": "N M T V C"}, 2, (0, 4, 2, 3, 1)),
        (Flat, {"axes": "N T (V C)", "num_joints": V}, 1, None),
    ],
)
def test_clips_in_another_layout(
    kind: type[Watched], options: dict[str, Any], persons: int, order: tuple[int, ...] | None
) -> None:
    x, target = clips(persons)
    given = x.permute(order) if order else x[..., 0].permute(0, 2, 3, 1).flatten(2)
    results = []
    for trained, clip in ((build(), x), (build(kind, **options), given)):
        torch.manual_seed(2)
        results.append((trained(clip, target).loss, trained.model.seen[-1]))
    (loss, ours), (other_loss, other) = results
    assert lost_joints(x, ours).any()
    torch.testing.assert_close(other_loss, loss)
    assert torch.equal(other, ours)


# ------------------------------------------------------------------------------------------ refused


class Writes(Watched):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


def test_a_network_that_writes_to_the_clip_is_refused() -> None:
    """It would find the focus of one clip, and lose joints of another."""
    (x, target) = clips()
    trained = build(Writes)
    with pytest.raises(
        ValueError, match="a model that does not modify its input, got one that writes to it; clone"
    ):
        trained(x, target)
    assert torch.equal(x, clips()[0])
    build(Writes, erasing=0.0)(x, target)


@pytest.mark.parametrize("erasing", [-0.1, 1.5, float("nan")])
def test_a_probability_out_of_range(erasing: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^STFObjective: expected erasing in 0..1, got {erasing}"
    ):
        build(erasing=erasing)


def test_labels_out_of_range() -> None:
    (x, _) = clips()
    trained = build()
    with pytest.raises(ValueError, match=r"^STFObjective: expected classes in 0..6, got 0 to 9"):
        trained._erase(x, torch.tensor([0, 9, 2]), (), None)


def test_a_clip_without_a_label_stays_whole() -> None:
    (x, _) = clips()
    trained = build()
    trained.loss.classification.ignore_index = 9
    lost = torch.zeros(N, dtype=torch.bool)
    for seed in range(20):
        torch.manual_seed(seed)
        trained(x, torch.tensor([0, 9, 2]))
        lost |= lost_joints(x, trained.model.seen[-1]).flatten(1).any(1)
    assert lost.tolist() == [True, False, True]
