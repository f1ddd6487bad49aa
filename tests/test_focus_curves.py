"""Test deletion and insertion curves: by loops, by hand, and by captum's ablation of a unit."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import reference
import reference_metrics
import torch
from captum.attr import FeatureAblation
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from skeleton_focus.focus import mask_by_focus
from skeleton_focus.focus_metrics import area_under_curve, deletion_curve, insertion_curve

UNITS = ["entries", "joints", "frames"]
LEVELS = [0.0, 0.25, 0.5, 0.75, 1.0]  # few, so that ties are common
Curve = Callable[..., Tensor]
both_curves = pytest.mark.parametrize(
    "curve", [deletion_curve, insertion_curve], ids=["deletion", "insertion"]
)
every_unit = pytest.mark.parametrize("by", UNITS)


class Readout(nn.Module):
    """Logits that weigh every number of the clip, so that no two clips look the same."""

    def __init__(self, c: int, t: int, v: int, m: int, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(classes, c, t, v, m, generator=generator, dtype=torch.float64)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (
            torch.einsum("nctvm,kctvm->nk", x.double(), self.weight)
            + torch.arange(len(self.weight)).double() / 3
        )

    def probability(self, y: int) -> Callable[[np.ndarray], float]:
        weight = self.weight.numpy()

        def of_clip(clip: np.ndarray) -> float:
            logits = [float((clip * weight[k]).sum()) + k / 3 for k in range(len(weight))]
            return math.exp(logits[y]) / math.fsum(map(math.exp, logits))

        return of_clip


def share(x: Tensor) -> Tensor:
    """Logits that make the probability of class 0 the share of 10 that the clip sums to."""
    part = x.sum((1, 2, 3, 4)) / 10
    return torch.stack([part, 1 - part], 1).log()


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Clips (N, C, T, V, M) with holes and their focus (N, M, T, V), float64."""
    n, c, t, v, m = draw(
        st.tuples(st.integers(1, 3), *[st.integers(1, size) for size in (2, 4, 3, 2)])
    )
    count = n * t * v * m
    focus = draw(st.lists(st.sampled_from(LEVELS), min_size=count, max_size=count))
    there = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    x = torch.randn(
        n, c, t, v, m, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))
    ).double()
    return x * torch.tensor(there).view(n, 1, t, v, m), torch.tensor(focus).double().view(
        n, m, t, v
    )


def slow(
    model: Readout, x: Tensor, focus: Tensor, classes: Tensor, steps: int, by: str, insert: bool
) -> Tensor:
    rows = [
        reference_metrics.curve(model.probability(int(y)), clip, q, steps, by, insert)
        for clip, q, y in zip(x.numpy(), focus.numpy(), classes, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def draw_clips(
    n: int = 2, c: int = 3, t: int = 6, v: int = 5, m: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Clips with a joint lost here and there, and a focus without ties."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, c, t, v, m, generator=generator) * (
        torch.rand(n, 1, t, v, m, generator=generator) > 0.2
    )
    return x, torch.rand(n, m, t, v, generator=generator)


@both_curves
@every_unit
@given(case=cases(), steps=st.integers(1, 7), data=st.data())
def test_equals_the_plain_loop(
    curve: Curve, by: str, case: tuple[Tensor, Tensor], steps: int, data: st.DataObject
) -> None:
    x, focus = case
    model = Readout(*x.shape[1:])
    classes = torch.tensor([data.draw(st.integers(0, 2)) for _ in x])
    expected = slow(model, x, focus, classes, steps, by, curve is insertion_curve)
    ours = curve(model, x, focus, classes, steps=steps, by=by)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    assert model.calls == steps + 1
    predicted = Readout(*x.shape[1:])
    by_default = curve(predicted, x, focus, steps=steps, by=by)
    assert predicted.calls == steps + 1, "the whole clip is one of the steps: no call of its own"
    assert torch.equal(by_default, curve(model, x, focus, model(x).argmax(1), steps=steps, by=by))


@both_curves
@every_unit
@pytest.mark.parametrize("frames", [3, 4, 12])
def test_a_focus_of_fewer_or_more_frames(curve: Curve, by: str, frames: int) -> None:
    x = draw_clips()[0].double()
    focus = draw_clips(t=frames, seed=1)[1].double()
    model = Readout(*x.shape[1:])
    classes = torch.tensor([2, 0])
    resized = torch.from_numpy(reference.resize_frames(focus.numpy(), x.shape[2]))
    expected = slow(model, x, resized, classes, 5, by, curve is insertion_curve)
    torch.testing.assert_close(
        curve(model, x, focus, classes, steps=5, by=by), expected, rtol=0, atol=1e-12
    )


# Two frames of two joints that hold 4 3 / 2 1; what is left, or there, of the 10 is the
# probability.
FULL = torch.tensor([[4.0, 3.0], [2.0, 1.0]]).view(1, 1, 2, 2, 1)


@pytest.mark.parametrize(
    ("focus", "by", "steps", "deleted"),
    [
        ([1.0, 0.8, 0.1, 0.0], "entries", 4, [10, 6, 3, 1, 0]),
        ([0.0, 0.1, 0.8, 1.0], "entries", 4, [10, 9, 7, 4, 0]),
        ([0.5, 0.5, 0.5, 0.5], "entries", 4, [10, 6, 3, 1, 0]),  # a tie: the lower index first
        ([0.0, 0.5, 0.5, 1.0], "entries", 4, [10, 9, 6, 4, 0]),
        ([1.0, 0.8, 0.1, 0.0], "entries", 1, [10, 0]),
        ([1.0, 0.8, 0.1, 0.0], "entries", 3, [10, 6, 1, 0]),  # 4/3 and 8/3 rounded: 1 and 3 entries
        ([1.0, 0.8, 0.1, 0.0], "entries", 8, [10, 6, 6, 3, 3, 1, 1, 0, 0]),  # halves are rounded up
        ([1.0, 0.8, 0.1, 0.0], "joints", 2, [10, 4, 0]),
        ([0.2, 0.8, 0.1, 0.0], "joints", 2, [10, 6, 0]),  # means 0.15 and 0.4
        ([0.5, 0.5, 0.5, 0.5], "joints", 2, [10, 4, 0]),
        ([1.0, 0.8, 0.1, 0.0], "frames", 2, [10, 3, 0]),
        ([0.6, 0.2, 0.1, 0.9], "frames", 2, [10, 7, 0]),  # means 0.4 and 0.5
        ([0.5, 0.5, 0.5, 0.5], "frames", 2, [10, 3, 0]),
    ],
)
def test_by_hand(focus: list[float], by: str, steps: int, deleted: list[int]) -> None:
    q = torch.tensor(focus).view(1, 1, 2, 2)
    expected = torch.tensor([deleted]) / 10
    torch.testing.assert_close(
        deletion_curve(share, FULL, q, torch.tensor([0]), steps=steps, by=by), expected
    )
    inserted = insertion_curve(share, FULL, q, torch.tensor([0]), steps=steps, by=by)
    # Here what is there and what is left make the whole.
    torch.testing.assert_close(inserted, 1 - expected)
    other = deletion_curve(share, FULL, q, torch.tensor([1]), steps=steps, by=by)
    torch.testing.assert_close(other, 1 - expected)


def test_what_is_absent_is_neither_ranked_nor_counted() -> None:
    x = torch.tensor([[4.0, 0.0], [6.0, 0.0]]).view(1, 1, 2, 2, 1)
    focus = torch.tensor([[0.1, 1.0], [0.3, 0.9]]).view(1, 1, 2, 2)  # highest where nothing is
    classes = torch.tensor([0])
    assert deletion_curve(share, x, focus, classes, steps=2).tolist() == [
        [1.0, pytest.approx(0.4), 0.0]
    ]
    # The means are over what is present: 0.1 and 0.3, not 0.55 and 0.6; unseen joints are none.
    assert deletion_curve(share, x, focus, classes, steps=1, by="joints").tolist() == [[1.0, 0.0]]
    frames = torch.tensor([[0.1, 1.0], [0.3, 0.0]]).view(1, 1, 2, 2)
    assert deletion_curve(share, x, frames, classes, steps=2, by="frames").tolist() == [
        [1.0, pytest.approx(0.4), 0.0]
    ]


def test_a_joint_is_present_if_any_channel_is() -> None:
    x = torch.tensor([[0.0, 10.0]]).view(1, 2, 1, 1, 1)  # on the axis of x, away from it in y
    curve = deletion_curve(share, x, torch.ones(1, 1, 1, 1), torch.tensor([0]), steps=1)
    assert curve.tolist() == [[1.0, 0.0]]


def test_clips_of_few_and_of_no_entries() -> None:
    """Each clip counts its own: four entries, two, one, none, over ten steps."""
    x = FULL.repeat(4, 1, 1, 1, 1)
    x[1, 0, 1] = 0
    x[2, 0, 0, 1:] = 0
    x[2, 0, 1] = 0
    x[3] = 0
    focus = torch.tensor([1.0, 0.8, 0.1, 0.0]).view(1, 1, 2, 2).expand(4, -1, -1, -1)
    ours = deletion_curve(share, x, focus, torch.zeros(4, dtype=torch.int64), steps=10)
    left = [
        [10, 10, 6, 6, 3, 3, 3, 1, 1, 0, 0],  # 4 i / 10 rounded: 0 0 1 1 2 2 2 3 3 4 4
        [7, 7, 7, 3, 3, 3, 3, 3, 0, 0, 0],  # 2 i / 10: 0 0 0 1 1 1 1 1 2 2 2
        [4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0],
        [0] * 11,
    ]
    torch.testing.assert_close(ours, torch.tensor(left) / 10)
    assert torch.equal(
        insertion_curve(share, x, focus, torch.zeros(4, dtype=torch.int64))[3], torch.zeros(11)
    )


@every_unit
def test_the_curves_meet_at_the_whole_and_at_the_empty_clip(by: str) -> None:
    x, focus = draw_clips()
    model = Readout(*x.shape[1:])
    deletion, insertion = (
        curve(model, x, focus, by=by) for curve in (deletion_curve, insertion_curve)
    )
    assert deletion.shape == insertion.shape == (2, 11)
    top = model(x).softmax(1).max(1)
    empty = model(torch.zeros_like(x)).softmax(1)
    for ours, whole, nothing in ((deletion, 0, -1), (insertion, -1, 0)):
        torch.testing.assert_close(ours[:, whole], top.values)
        torch.testing.assert_close(ours[:, nothing], empty.gather(1, top.indices[:, None])[:, 0])
    assert ((deletion >= 0) & (deletion <= 1)).all()


def test_what_is_taken_out_is_what_a_focus_of_ones_masks() -> None:
    x, focus = draw_clips(n=1)
    seen: list[Tensor] = []

    def model(clip: Tensor) -> Tensor:
        seen.append(clip)
        return clip.sum((2, 3, 4))

    deletion_curve(model, x, focus, steps=4)
    for before, after in itertools.pairwise(seen):
        gone = ((before != 0) & (after == 0)).any(1)  # (N, T, V, M)
        assert gone.any()
        assert torch.equal(after, mask_by_focus(before, gone.permute(0, 3, 1, 2).float()) + 0.0)
    assert torch.equal(seen[0], x) and not seen[-1].any()
    insertion_curve(model, x, focus, steps=4)
    whole, *_, nothing = seen[5:]
    assert torch.equal(whole, x) and not nothing.any()
    for taken, kept in zip(seen[:5], reversed(seen[5:]), strict=True):
        assert torch.equal(taken + kept, x), (
            "what deletion takes at a step is what insertion brings"
        )


@both_curves
@every_unit
@given(case=cases())
def test_only_the_order_of_the_focus_matters(
    curve: Curve, by: str, case: tuple[Tensor, Tensor]
) -> None:
    """Of entries any rising function keeps it; of means, an affine one."""
    x, focus = case
    model = Readout(*x.shape[1:])
    moved = focus**3 * 7 - 2 if by == "entries" else focus * 8 - 2
    assert torch.equal(
        curve(model, x, moved, by=by, steps=4), curve(model, x, focus, by=by, steps=4)
    )


@both_curves
@every_unit
@given(data=st.data())
def test_joints_persons_and_clips_have_no_order(curve: Curve, by: str, data: st.DataObject) -> None:
    x, focus = draw_clips(n=3)  # no ties, whose order is that of the joints
    model = Readout(*x.shape[1:])
    expected = curve(model, x, focus, by=by, steps=6)
    clips = data.draw(st.permutations(range(3)))
    torch.testing.assert_close(
        curve(model, x[clips], focus[clips], by=by, steps=6), expected[clips]
    )
    joints = data.draw(st.permutations(range(5)))
    persons = data.draw(st.permutations(range(2)))
    model.weight = model.weight[:, :, :, joints][..., persons]
    moved = curve(
        model, x[:, :, :, joints][..., persons], focus[:, persons][..., joints], by=by, steps=6
    )
    torch.testing.assert_close(moved, expected)


@both_curves
@every_unit
def test_padding_with_empty_frames_and_persons_changes_nothing(curve: Curve, by: str) -> None:
    x, focus = draw_clips()
    longer = x.new_zeros(2, 3, 9, 5, 3)
    wider = torch.ones(2, 3, 9, 5)
    longer[:, :, :6, :, :2] = x
    wider[:, :2, :6] = focus
    model = Readout(3, 9, 5, 3)
    expected = curve(
        lambda clip: model(nn.functional.pad(clip, (0, 1, 0, 0, 0, 3))), x, focus, by=by
    )
    torch.testing.assert_close(curve(model, longer, wider, by=by), expected)


def test_a_faithful_focus_is_better_than_its_opposite() -> None:
    x, _ = draw_clips(c=1)
    x = x.abs()
    faithful = x[:, 0].permute(0, 3, 1, 2) / x.amax()

    def model(clip: Tensor) -> Tensor:
        return torch.stack([clip.sum((1, 2, 3, 4)), torch.zeros(len(clip))], 1) / 20

    for by in UNITS:
        good, bad = (
            area_under_curve(deletion_curve(model, x, q, by=by)) for q in (faithful, 1 - faithful)
        )
        assert (good < bad).all()
        good, bad = (
            area_under_curve(insertion_curve(model, x, q, by=by)) for q in (faithful, 1 - faithful)
        )
        assert (good > bad).all()


@every_unit
def test_captum_agrees_on_the_first_unit(by: str) -> None:
    """The first step's loss of probability is captum's ablation of the unit of highest focus."""
    n, c, t, v, m = sizes = (1, 3, 4, 3, 2)
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(sizes, generator=generator).double()
    focus = torch.rand(n, m, t, v, generator=generator).double()
    numbers = {
        "entries": torch.arange(t * v * m).view(1, 1, t, v, m),
        "joints": torch.arange(v * m).view(1, 1, 1, v, m),
        "frames": torch.arange(t).view(1, 1, t, 1, 1),
    }[by].expand(1, c, t, v, m)
    units = int(numbers.max()) + 1
    model = Readout(c, t, v, m)
    y = 1
    ablation = FeatureAblation(lambda clip: model(clip).softmax(1))
    attributed = ablation.attribute(x, target=y, feature_mask=numbers)[0, 0]  # (T, V, M)
    mean = (
        torch.zeros(units)
        .double()
        .index_add(0, numbers[0, 0].flatten(), focus[0].permute(1, 2, 0).flatten())
    )
    top = attributed[numbers[0, 0] == mean.argmax()]
    ours = deletion_curve(model, x, focus, torch.tensor([y]), steps=units, by=by)
    torch.testing.assert_close(ours[:, 0] - ours[:, 1], top[:1], rtol=0, atol=1e-12)


@both_curves
@every_unit
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types(curve: Curve, by: str, dtype: torch.dtype) -> None:
    x, focus = draw_clips()
    x = x.to(dtype)
    focus = focus.to(dtype)
    model = Readout(*x.shape[1:])

    def in_type(clip: Tensor) -> Tensor:
        assert clip.dtype == dtype
        return model(clip).to(dtype)

    ours = curve(in_type, x, focus, by=by)
    assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    full = curve(lambda clip: model(clip).to(dtype).double(), x.double(), focus.double(), by=by)
    torch.testing.assert_close(ours.double(), full, rtol=0, atol=1e-5)
    assert torch.equal(
        curve(in_type, x, focus, torch.tensor([1, 1]).int(), by=by),
        curve(in_type, x, focus, torch.tensor([1, 1]), by=by),
    )


@both_curves
def test_the_model_is_called_as_it_is_and_nothing_is_left_behind(curve: Curve) -> None:
    x, focus = draw_clips()
    kept = x.clone(), focus.clone()
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(180), nn.Linear(180, 4))
    grads: list[bool] = []
    model.register_forward_hook(
        lambda module, args, out: grads.append(torch.is_grad_enabled() or out.requires_grad)
    )
    model.eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    draws = torch.get_rng_state()
    ours = curve(model, x.requires_grad_(), focus.requires_grad_(), steps=3)
    assert not ours.requires_grad and torch.is_grad_enabled()
    assert grads == [False] * 4
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and x.grad is None and focus.grad is None
    assert torch.equal(x, kept[0]) and torch.equal(focus, kept[1])
    assert torch.equal(torch.get_rng_state(), draws)
    for training in (False, True):
        model.train(training)
        curve(model, x, focus, steps=2)
        assert all(part.training is training for part in model.modules())


def test_a_model_that_writes_into_its_input() -> None:
    x, focus = draw_clips()
    model = Readout(*x.shape[1:])
    expected = deletion_curve(model, x, focus, torch.tensor([0, 1]))
    spoiled = deletion_curve(lambda clip: model(clip.mul_(2) / 2), x, focus, torch.tensor([0, 1]))
    torch.testing.assert_close(spoiled, expected)


@both_curves
def test_an_empty_batch(curve: Curve) -> None:
    x, focus = draw_clips()
    assert curve(Readout(*x.shape[1:]), x[:0], focus[:0], steps=4).shape == (0, 5)


@given(st.lists(st.lists(st.sampled_from(LEVELS), min_size=5, max_size=5), min_size=1, max_size=3))
def test_area_equals_the_plain_loop(rows: list[list[float]]) -> None:
    ours = area_under_curve(torch.tensor(rows).double())
    assert ours.tolist() == pytest.approx([reference_metrics.area(row) for row in rows], abs=1e-12)
    assert ((ours >= min(map(min, rows))) & (ours <= max(map(max, rows)))).all()


@pytest.mark.parametrize(
    ("curve", "area"),
    [
        ([1.0, 0.0], 1 / 2),
        ([1.0, 0.0, 0.0], 1 / 4),
        ([0.3] * 11, 0.3),
        ([1.0, 0.6, 0.3, 0.1, 0.0], 1.5 / 4),
    ],
)
def test_area_by_hand(curve: list[float], area: float) -> None:
    assert area_under_curve(torch.tensor([curve])).item() == pytest.approx(area)
    half = area_under_curve(torch.tensor([curve]).bfloat16())
    assert half.dtype == torch.float32 and half.item() == pytest.approx(area, abs=2e-3)
    assert area_under_curve(torch.tensor([curve]).double()).dtype == torch.float64


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_area_refuses_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"area_under_curve: expected curve (N, points), got {shape}")
    ):
        area_under_curve(torch.zeros(shape))


def test_area_refuses_a_point() -> None:
    with pytest.raises(
        ValueError, match="area_under_curve: expected a curve of at least 2 points, got 1"
    ):
        area_under_curve(torch.zeros(3, 1))


@both_curves
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": None}, "model to be a function, got NoneType"),
        ({"by": "persons"}, "by to be one of 'entries', 'joints', 'frames', got 'persons'"),
        ({"steps": 0}, "steps as an integer of at least 1, got 0"),
        ({"steps": 2.5}, "steps as an integer of at least 1, got 2.5"),
        ({"x": torch.zeros(2, 3, 6, 5)}, "x (N, C, T, V, M), got (2, 3, 6, 5)"),
        (
            {"x": torch.zeros(2, 3, 0, 5, 2)},
            "x (N, C, T, V, M) with at least one entry, got (2, 3, 0, 5, 2)",
        ),
        ({"focus": torch.zeros(2, 6, 5)}, "focus (N=2, M=2, T', V=5), got (2, 6, 5)"),
        ({"focus": torch.zeros(1, 2, 6, 5)}, "focus (N=2, M=2, T', V=5), got (1, 2, 6, 5)"),
        ({"focus": torch.zeros(2, 1, 6, 5)}, "focus (N=2, M=2, T', V=5), got (2, 1, 6, 5)"),
        ({"focus": torch.zeros(2, 2, 6, 4)}, "focus (N=2, M=2, T', V=5), got (2, 2, 6, 4)"),
        ({"focus": torch.zeros(2, 2, 0, 5)}, "a focus of at least one frame, got (2, 2, 0, 5)"),
        ({"classes": torch.tensor([1])}, "classes (N=2), got (1,)"),
        ({"classes": torch.tensor([0.0, 1.0])}, "integer classes, got torch.float32"),
        ({"classes": torch.tensor([0, 3])}, "classes in 0..2, got 0 to 3"),
        ({"classes": torch.tensor([-1, 0])}, "classes in 0..2, got -1 to 0"),
        ({"model": lambda x: x}, "logits (N=2, classes), got (2, 3, 6, 5, 2)"),
        ({"model": lambda x: (x, x)}, "logits (N=2, classes) to be a tensor, got tuple"),
        ({"model": lambda x: torch.zeros(1, 3)}, "logits (N=2, classes), got (1, 3)"),
    ],
)
def test_errors(curve: Curve, change: dict[str, object], error: str) -> None:
    x, focus = draw_clips()
    arguments = {"model": Readout(*x.shape[1:]), "x": x, "focus": focus, **change}
    with pytest.raises(
        ValueError, match="^" + re.escape(f"{curve.__name__}: expected {error}") + "$"
    ):
        curve(**arguments)
