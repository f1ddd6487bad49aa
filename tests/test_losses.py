"""STF equations 3 to 6 against the slow reference, and what a weighted sum must keep."""

import copy
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from skeleton_focus import (
    STFLoss,
    adjacency_focus_loss,
    coherence_loss,
    divergence_loss,
    exploration_loss,
)

N = 3
M = 2
V = 4
CLASSES = 5


def maps(*frames: int, seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(N, M, t, V, generator=random, dtype=torch.float64) for t in frames]


def test_exploration() -> None:
    logits = torch.randn(N, CLASSES, dtype=torch.float64)
    classes = torch.tensor([0, 4, 2])
    expected = reference.exploration_loss(logits.numpy(), classes.tolist())
    assert exploration_loss(logits, classes).item() == pytest.approx(expected, abs=1e-12)


def test_divergence() -> None:
    a, b = maps(6, 6)
    assert divergence_loss(a, b).item() == pytest.approx(
        reference.divergence_loss(a.numpy(), b.numpy()), abs=1e-12
    )


def test_the_overlap_is_what_two_maps_share() -> None:
    a, b = maps(6, 6)
    expected = []
    for one, other in zip(a.numpy(), b.numpy(), strict=True):
        shared = both = 0.0
        for entry in np.ndindex(*one.shape):
            shared += min(one[entry], other[entry])
            both += one[entry] + other[entry]
        expected.append(2 * shared / both)
    found = divergence_loss(a, b, form="overlap", reduction="none")
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)
    assert divergence_loss(a, a, form="overlap").item() == pytest.approx(1)
    apart = torch.zeros(1, 1, 1, 4)
    apart[..., :2] = 1
    assert divergence_loss(apart, 1 - apart, form="overlap").item() == 0


def test_an_overlap_of_empty_maps_has_no_gradient() -> None:
    one = torch.zeros(2, M, 3, V, dtype=torch.float64)
    one[1] = torch.rand(M, 3, V)
    one.requires_grad_()
    divergence_loss(one, torch.zeros_like(one), form="overlap").backward()
    assert one.grad is not None
    assert one.grad.eq(0).all()


def test_a_lower_overlap_parts_two_maps() -> None:
    """Down its gradient, the smaller of two entries shrinks and the greater one grows."""
    a, b = maps(4, 4)
    a.requires_grad_()
    divergence_loss(a, b, form="overlap").backward()
    assert a.grad is not None
    assert (a.grad[a < b] > 0).all()
    assert (a.grad[a > b] < 0).all()


@pytest.mark.parametrize("frames", [(6, 6), (6, 3), (3, 6), (1, 5)])
def test_coherence(frames: tuple[int, int]) -> None:
    a, b = maps(*frames)
    assert coherence_loss(a, b).item() == pytest.approx(
        reference.coherence_loss(a.numpy(), b.numpy()), abs=1e-12
    )


@pytest.mark.parametrize("frames", [6, 3, 12, 1])
def test_adjacency(frames: int) -> None:
    (q,) = maps(6)
    embedding = torch.rand(N * M, frames, V, dtype=torch.float64)
    expected = reference.adjacency_focus_loss(q.numpy(), [embedding.numpy()])
    assert adjacency_focus_loss(q, embedding).item() == pytest.approx(expected, abs=1e-12)


def test_by_hand() -> None:
    """A 2 x 2 map: (3, 4) apart in two entries is 5 apart."""
    a = torch.zeros(1, 1, 2, 2)
    b = torch.tensor([[3.0, 0.0], [0.0, 4.0]]).view(1, 1, 2, 2)
    assert divergence_loss(a, b).item() == -5
    assert coherence_loss(a, b).item() == 5
    assert adjacency_focus_loss(b, a[:, 0]).item() == 5


REDUCED: list[Callable[[str], Tensor]] = [
    lambda how: exploration_loss(
        torch.arange(15.0).view(3, 5), torch.tensor([0, 1, 2]), reduction=how
    ),
    lambda how: divergence_loss(*maps(6, 6), reduction=how),
    lambda how: coherence_loss(*maps(6, 3), reduction=how),
    lambda how: adjacency_focus_loss(maps(6)[0], torch.zeros(N * M, 6, V), reduction=how),
]


@pytest.mark.parametrize("loss", REDUCED)
def test_reductions(loss: Callable[[str], Tensor]) -> None:
    each = loss("none")
    assert each.shape == (N,)
    torch.testing.assert_close(loss("sum"), each.sum())
    torch.testing.assert_close(loss("mean"), each.mean())
    with pytest.raises(
        ValueError, match="expected reduction to be one of 'none', 'mean', 'sum', got 'avg'"
    ):
        loss("avg")


def test_gradients() -> None:
    a, b = (q.requires_grad_() for q in maps(4, 2))
    logits = torch.randn(N, CLASSES, dtype=torch.float64, requires_grad=True)
    embedding = torch.rand(N * M, 4, V, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda z: exploration_loss(z, torch.tensor([0, 1, 2])), (logits,))
    assert gradcheck(coherence_loss, (a, b))
    assert gradcheck(
        lambda q: divergence_loss(q, a.detach()), (maps(4, seed=1)[0].requires_grad_(),)
    )
    assert gradcheck(lambda e: adjacency_focus_loss(a, e), (embedding,))


def test_equal_maps_have_a_zero_gradient_and_a_target_none() -> None:
    (q,) = maps(3)
    q.requires_grad_()
    divergence_loss(q, q.detach()).backward()
    assert q.grad is not None
    assert q.grad.eq(0).all()
    q.grad = None
    embedding = torch.rand(N * M, 3, V, dtype=torch.float64, requires_grad=True)
    adjacency_focus_loss(q, embedding).backward()
    assert q.grad is None
    assert embedding.grad is not None
    assert embedding.grad.abs().sum() > 0


def everything() -> dict[str, Tensor | list[Tensor]]:
    focus, rival, low = maps(4, 4, 8)
    random = torch.Generator().manual_seed(1)
    embeddings = [torch.rand(N * M, t, V, generator=random, dtype=torch.float64) for t in (8, 4)]
    masked = torch.randn(N, CLASSES, generator=random, dtype=torch.float64)
    return {
        "focus": focus,
        "rival_focus": rival,
        "low_focus": low,
        "embeddings": embeddings,
        "masked_logits": masked,
    }


@pytest.mark.parametrize("norm", ["l2", "rms"])
def test_the_sum_is_equation_6_with_the_papers_weights(norm: str) -> None:
    logits = torch.randn(N, CLASSES, dtype=torch.float64)
    target = torch.tensor([4, 0, 1])
    given = everything()
    loss, terms = STFLoss(norm=norm)(logits, target, **given)
    as_numpy = {}
    for name, value in given.items():
        many = isinstance(value, list)
        as_numpy[name] = [e.numpy() for e in value] if many else value.numpy()
    slow = {
        "exploration": reference.exploration_loss(
            as_numpy["masked_logits"], logits.argmax(1).tolist()
        ),
        "divergence": reference.divergence_loss(as_numpy["focus"], as_numpy["rival_focus"]),
        "coherence": reference.coherence_loss(as_numpy["low_focus"], as_numpy["focus"]),
        "adjacency": reference.adjacency_focus_loss(as_numpy["focus"], as_numpy["embeddings"]),
    }
    # A map holds M * T * V entries; coherence and one of the embeddings are compared at 8 frames.
    if norm == "rms":
        slow["divergence"] /= math.sqrt(M * 4 * V)
        slow["coherence"] /= math.sqrt(M * 8 * V)
        sizes = [math.sqrt(M * t * V) for t in (8, 4)]
        each = [
            reference.adjacency_focus_loss(as_numpy["focus"], [e]) for e in as_numpy["embeddings"]
        ]
        slow["adjacency"] = sum(loss / size for loss, size in zip(each, sizes, strict=True)) / 2
    weights = {"exploration": 0.01, "divergence": 0.1, "coherence": 0.1, "adjacency": 0.01}
    ce = reference.cross_entropy(logits.numpy(), target.tolist())
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"classification": ce, **slow}, abs=1e-12
    )
    assert loss.item() == pytest.approx(reference.total(ce, slow, weights), abs=1e-12)


def test_presets() -> None:
    assert STFLoss.exploration_branch().weights == {
        "exploration": 0.01,
        "divergence": 0,
        "coherence": 0,
        "adjacency": 0,
        "guidance": 0,
    }
    focus = {name: weight for name, weight in STFLoss.focus_branch().weights.items() if weight}
    assert focus == {"divergence": 0.1, "coherence": 0.1, "adjacency": 0.01}
    recommended = {name: weight for name, weight in STFLoss.recommended().weights.items() if weight}
    assert recommended == {"exploration": 0.3, "coherence": 1}
    assert not STFLoss.plain().uses(*STFLoss().weights)
    assert "divergence=0.1" in repr(STFLoss.focus_branch())


def test_without_weights_it_is_cross_entropy_to_the_bit() -> None:
    logits = torch.randn(N, CLASSES, requires_grad=True)
    target = torch.tensor([4, 0, 1])
    loss, terms = STFLoss.plain()(logits, target)
    plain = nn.functional.cross_entropy(logits, target)
    assert loss.item() == plain.item()
    assert list(terms) == ["classification"]
    assert torch.equal(*(torch.autograd.grad(value, logits)[0] for value in (loss, plain)))


def test_rms_does_not_grow_with_the_map() -> None:
    a = torch.zeros(1, 1, 2, 2)
    b = torch.full((1, 1, 2, 2), 0.5)
    for size in (1, 3):
        big_a = a.repeat(1, 1, size, size)
        big_b = b.repeat(1, 1, size, size)
        assert coherence_loss(big_a, big_b, norm="rms").item() == pytest.approx(0.5)
        assert coherence_loss(big_a, big_b).item() == pytest.approx(size)
        assert divergence_loss(big_a, big_b, norm="rms").item() == pytest.approx(-0.5)
        assert adjacency_focus_loss(big_a, big_b[:, 0], norm="rms").item() == pytest.approx(0.5)
    with pytest.raises(
        ValueError, match="divergence_loss: expected norm to be one of 'l2', 'rms', got 'l1'"
    ):
        divergence_loss(a, b, norm="l1")


# ----------------------------------------------------------------------------- guidance, separation

TABLE = torch.rand(CLASSES, V, generator=torch.Generator().manual_seed(3)) > 0.5


def guided(**options: object) -> STFLoss:
    options = {"allowed": TABLE, "guidance": 0.7, **options}
    return STFLoss(exploration=0, divergence=0, coherence=0, adjacency=0, **options)


def share_outside(focus: np.ndarray, inside: np.ndarray) -> float:
    """The mean over clips of the focus outside, by plain sums; inside (N, M, T, V)."""
    shares = []
    for one, mask in zip(focus, inside, strict=True):
        entries = list(np.ndindex(*one.shape))
        shares.append(sum(one[e] * (1 - mask[e]) for e in entries) / sum(one[e] for e in entries))
    return sum(shares) / len(shares)


def test_guidance_by_the_table_of_the_labels() -> None:
    (focus,) = maps(4)
    logits = torch.randn(N, CLASSES, dtype=torch.float64)
    target = torch.tensor([4, 0, 4])
    loss, terms = guided()(logits, target, label_focus=focus)
    inside = np.stack(
        [np.broadcast_to(TABLE[label].numpy(), (M, 4, V)) for label in target.tolist()]
    )
    expected = share_outside(focus.numpy(), inside)
    assert list(terms) == ["classification", "guidance"]
    assert terms["guidance"].item() == pytest.approx(expected, abs=1e-12)
    ce = reference.cross_entropy(logits.numpy(), target.tolist())
    assert loss.item() == pytest.approx(ce + 0.7 * expected, abs=1e-12)


@pytest.mark.parametrize("table", [TABLE, None])
@pytest.mark.parametrize("at_all_times", [True, False])
def test_masks_of_each_clip_come_before_the_table(table: Tensor | None, at_all_times: bool) -> None:
    (focus,) = maps(4)
    target = torch.tensor([4, 0, 1])
    masks = torch.rand(N, M, 4, V, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    given = masks[:, 0, 0] if at_all_times else masks
    inside = masks[:, :1, :1].expand(N, M, 4, V) if at_all_times else masks
    _, terms = guided(allowed=table)(
        torch.zeros(N, CLASSES), target, label_focus=focus, allowed=given
    )
    assert terms["guidance"].item() == pytest.approx(
        share_outside(focus.numpy(), inside.numpy()), abs=1e-12
    )


def test_labels_of_probabilities_and_of_bytes() -> None:
    """A row of probabilities means its greatest entry; bytes, as an index, would mean a mask."""
    (focus,) = maps(4)
    logits = torch.randn(N, CLASSES)
    target = torch.tensor([4, 0, 1])
    rows = nn.functional.one_hot(target, CLASSES) * 0.6 + 0.4 / CLASSES
    expected = guided()(logits, target, label_focus=focus).terms["guidance"]
    for labels in (rows, target.to(torch.uint8)):
        assert guided().labels(labels)[0].equal(target)
        assert guided()(logits, labels, label_focus=focus).terms["guidance"].equal(expected)


@pytest.mark.parametrize("ignored", [-100, -1, 9])
def test_guidance_leaves_out_clips_without_a_label(ignored: int) -> None:
    """As the cross-entropy does; -1 would silently take the last row of the table."""
    (focus,) = maps(4)
    logits = torch.randn(N, CLASSES)
    criterion = guided(classification=nn.CrossEntropyLoss(ignore_index=ignored))
    found = criterion(logits, torch.tensor([4, ignored, 1]), label_focus=focus).terms
    expected = criterion(logits[[0, 2]], torch.tensor([4, 1]), label_focus=focus[[0, 2]]).terms
    torch.testing.assert_close(found, expected)
    nothing = criterion(logits, torch.full((N,), ignored), label_focus=focus).terms
    assert nothing["guidance"].item() == 0


def test_a_table_that_is_missing_or_of_other_classes() -> None:
    (focus,) = maps(4)
    logits = torch.zeros(N, CLASSES)
    target = torch.tensor([0, 1, 2])
    with pytest.raises(
        ValueError, match=r"^STFLoss: expected allowed, got None; a term in use needs it"
    ):
        guided(allowed=None)(logits, target, label_focus=focus)
    with pytest.raises(
        ValueError, match=r"^STFLoss: expected label_focus, got None; a term in use needs it"
    ):
        guided()(logits, target)
    with pytest.raises(
        ValueError, match=r"^STFLoss: expected allowed \(classes=5, V=4\), got \(4, 4\)"
    ):
        guided(allowed=TABLE[:4])(logits, target, label_focus=focus)
    with pytest.raises(ValueError, match=r"^STFLoss: expected allowed \(classes, V\), got \(5,\)"):
        guided(allowed=TABLE[:, 0])
    with pytest.raises(
        ValueError, match=r"^STFLoss: expected allowed \(classes=5, V=4\), got \(5, 3\)"
    ):
        guided(allowed=TABLE[:, :3])(logits, target, label_focus=focus)
    with pytest.raises(
        ValueError, match=r"^STFLoss: expected a weight guidance of at least 0, got -0.1"
    ):
        guided(guidance=-0.1)


def test_guidance_without_a_weight_needs_nothing() -> None:
    logits = torch.zeros(N, CLASSES)
    target = torch.tensor([0, 1, 2])
    for table in (None, TABLE):
        assert list(guided(guidance=0, allowed=table)(logits, target).terms) == ["classification"]
        assert not guided(guidance=0, allowed=table).uses("guidance")


def test_the_table_is_copied_and_moved_but_is_no_weight() -> None:
    criterion = guided()
    assert list(criterion.state_dict()) == []
    assert list(criterion.parameters()) == []
    criterion.load_state_dict(STFLoss().state_dict())
    for copied in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert torch.equal(copied.allowed, TABLE)
    assert copy.deepcopy(criterion).to("meta").allowed.is_meta
    assert criterion.double().allowed.dtype == torch.bool
    later = guided(allowed=None)
    later.allowed = TABLE
    assert later.to("meta").allowed.is_meta
    assert list(later.state_dict()) == []


def test_the_separation_in_the_sum() -> None:
    logits = torch.zeros(N, CLASSES)
    target = torch.tensor([0, 1, 2])
    given = everything()
    overlap = divergence_loss(given["focus"], given["rival_focus"], form="overlap")
    terms = STFLoss(separation="overlap", norm="l2")(logits, target, **given).terms
    assert torch.equal(terms["divergence"], overlap)
    for norm in ("l2", "rms"):
        distance = divergence_loss(given["focus"], given["rival_focus"], norm=norm)
        assert torch.equal(
            STFLoss(norm=norm)(logits, target, **given).terms["divergence"], distance
        )


def test_what_it_shows() -> None:
    shown = "exploration=0, divergence=0, coherence=0, adjacency=0, guidance=0.7, "
    shown += "norm=rms, separation=overlap"
    assert shown in repr(guided(separation="overlap"))


def test_errors() -> None:
    (a, b) = maps(4, 5)
    logits = torch.zeros(N, CLASSES)
    target = torch.tensor([0, 1, 2])
    with pytest.raises(
        ValueError, match=r"STFLoss: expected a weight divergence of at least 0, got -1"
    ):
        STFLoss(divergence=-1)
    with pytest.raises(
        ValueError, match=r"STFLoss: expected separation .*'distance', 'overlap', got 'cosine'"
    ):
        STFLoss(separation="cosine")
    with pytest.raises(
        ValueError, match="STFLoss: expected focus, got None; a term in use needs it"
    ):
        STFLoss.focus_branch()(logits, target)
    with pytest.raises(ValueError, match="STFLoss: expected masked_logits, got None"):
        STFLoss.exploration_branch()(logits, target)
    with pytest.raises(
        ValueError,
        match=r"divergence_loss: expected the other focus \(N=3, M=2, T=4, V=4\), got \(3, 2, 5",
    ):
        divergence_loss(a, b)
    with pytest.raises(ValueError, match=r"expected embedding \(N\*M=6, T, V=4\), got \(3, 4, 4\)"):
        adjacency_focus_loss(a, torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"exploration_loss: expected classes \(N=3\), got \(2,\)"):
        exploration_loss(logits, target[:2])


# ------------------------------------------------------------------------------------------------
# labels, dtypes and sizes at the edge


def test_the_overlap_s_gradients() -> None:
    a, b = (x.requires_grad_() for x in maps(3, 3, seed=5))
    assert gradcheck(lambda a, b: divergence_loss(a, b, form="overlap"), (a, b))


def test_class_numbers_of_shape_n_1_are_the_labels() -> None:
    """A loss of one's own may take (N, 1); these are numbers and not rows of probabilities."""

    class OneColumn(nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(logits, target[:, 0])

    loss = STFLoss.plain(classification=OneColumn())
    labels, known = loss.labels(torch.tensor([[2], [0], [3]]))
    assert labels.tolist() == [2, 0, 3] and known.all()
    with pytest.raises(ValueError, match=r"expected one labelled class for each clip, \(N,\), for"):
        loss.labels(torch.ones(3, 4, dtype=torch.int64))


def test_a_negative_label_is_none() -> None:
    """A loss that ignores -1 by itself has no attribute that says so."""

    class IgnoresMinusOne(nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(logits, target, ignore_index=-1)

    table = torch.eye(3, V)
    loss = STFLoss.plain(guidance=1.0, allowed=table, classification=IgnoresMinusOne())
    focus = torch.rand(2, M, 5, V)
    terms = loss(torch.zeros(2, 3), torch.tensor([1, -1]), label_focus=focus).terms
    alone = loss(torch.zeros(1, 3), torch.tensor([1]), label_focus=focus[:1]).terms
    torch.testing.assert_close(terms["guidance"], alone["guidance"])


def test_the_classes_that_l_e_takes() -> None:
    logits = torch.zeros(2, CLASSES)
    masked = torch.randn(2, CLASSES)
    loss = STFLoss(divergence=0, coherence=0, adjacency=0)
    others = torch.tensor([3, 1])  # not the argmax
    terms = loss(logits, torch.tensor([0, 0]), masked_logits=masked, classes=others).terms
    assert terms["exploration"].item() == exploration_loss(masked, others).item()
    assert exploration_loss(masked, others).item() != exploration_loss(masked, others * 0).item()


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        (torch.tensor([-1, 0]), r"exploration_loss: expected classes in 0\.\.4, got -1 to 0"),
        (torch.tensor([0.0, 1.0]), "exploration_loss: expected classes of dtype torch.int64, got"),
    ],
)
def test_classes_that_are_none(classes: Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        exploration_loss(torch.zeros(2, CLASSES), classes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    """Twice 37,500 ones are more than float16 can count to."""
    ones = torch.ones(1, 2, 750, 25, dtype=dtype)
    assert divergence_loss(ones, ones, form="overlap").item() == 1
    assert divergence_loss(ones, 0 * ones).item() == pytest.approx(-math.sqrt(37500), rel=1e-6)
    logits = torch.randn(4, CLASSES).to(dtype)
    classes = torch.tensor([0, 1, 2, 3])
    expected = exploration_loss(logits.float(), classes)
    assert exploration_loss(logits, classes).item() == expected.item()


@pytest.mark.parametrize("norm", ["rms", "l2"])
def test_no_clips_have_a_zero_loss_with_a_gradient(norm: str) -> None:
    none = torch.zeros(0, M, 3, V, requires_grad=True)
    losses = [
        divergence_loss(none, none, norm=norm),
        divergence_loss(none, none, form="overlap"),
        coherence_loss(none, none, norm=norm),
        adjacency_focus_loss(none, torch.zeros(0, 3, V, requires_grad=True), norm=norm),
        exploration_loss(torch.zeros(0, CLASSES, requires_grad=True), torch.zeros(0).long()),
    ]
    assert [loss.item() for loss in losses] == [0] * 5, losses
    torch.stack(losses).sum().backward()


def test_masks_are_maps_too() -> None:
    a, _ = maps(3, 3)
    high = a > 0.5
    expected = divergence_loss(a, high.double()).item()
    assert divergence_loss(a, high).item() == divergence_loss(high, a).item() == expected


def test_presets_with_guidance() -> None:
    table = torch.ones(CLASSES, V)
    for make in (STFLoss.plain, STFLoss.recommended):
        guided = make(guidance=0.3, allowed=table)
        assert guided.weights == {**make().weights, "guidance": 0.3} and guided.allowed is table


def test_an_infinite_weight_and_a_norm_of_the_overlap() -> None:
    with pytest.raises(ValueError, match="a weight guidance of at least 0, got inf"):
        STFLoss(guidance=math.inf)
    a, b = maps(3, 3)
    with pytest.raises(ValueError, match="divergence_loss: expected norm to be one of"):
        divergence_loss(a, b, form="overlap", norm="l1")
