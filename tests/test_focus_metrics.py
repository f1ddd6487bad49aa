"""Every measure of a focus against plain loops, by hand, and against torchmetrics."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import reference
import reference_metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skeleton_focus import min_max_normalize
from skeleton_focus.focus import resize_focus
from skeleton_focus.focus_metrics import (
    class_overlap,
    focus_average_precision,
    focus_coverage,
    focus_iou,
    layer_coherence,
    pointing_game,
    relevance_mass,
)

LEVELS = [0.0, 0.25, 0.5, 0.75, 1.0]  # few, so that ties are common
maps = st.integers(1, 12).flatmap(
    lambda size: st.tuples(
        st.lists(st.sampled_from(LEVELS), min_size=size, max_size=size),
        st.lists(st.sampled_from([0.0, 1.0]), min_size=size, max_size=size).filter(any),
    )
)


def average_precision(focus: list[float], critical: list[float]) -> float:
    """Sum over thresholds, from the highest: (recall here - recall before) times precision here."""
    value = 0.0
    recall_before = 0.0
    for threshold in sorted(set(focus), reverse=True):
        chosen = [truth for score, truth in zip(focus, critical, strict=True) if score >= threshold]
        recall = sum(chosen) / sum(critical)
        value += (recall - recall_before) * sum(chosen) / len(chosen)
        recall_before = recall
    return value


def overlap(focus: list[float], critical: list[float]) -> float:
    shape = (1, 1, 1, len(focus))
    values = torch.tensor(focus).double().view(shape)
    return focus_average_precision(values, torch.tensor(critical).view(shape)).item()


@given(maps)
def test_equals_the_plain_loop(case: tuple[list[float], list[float]]) -> None:
    assert overlap(*case) == pytest.approx(average_precision(*case), abs=1e-12)


@given(maps, st.data())
def test_the_order_of_the_entries_does_not_matter(
    case: tuple[list[float], list[float]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(case[0]))))
    moved = tuple([values[i] for i in order] for values in case)
    assert overlap(*moved) == pytest.approx(overlap(*case), abs=1e-12)


@given(maps)
def test_only_the_ranks_matter(case: tuple[list[float], list[float]]) -> None:
    focus, critical = case
    assert overlap([score**3 * 7 - 2 for score in focus], critical) == pytest.approx(
        overlap(focus, critical), abs=1e-12
    )


@pytest.mark.parametrize(
    ("focus", "critical", "expected"),
    [
        ([0.9, 0.8, 0.1, 0.0], [1, 1, 0, 0], 1),  # perfect
        ([0.9, 0.9, 0.1, 0.1], [1, 1, 0, 0], 1),  # perfect, tied
        ([0.0, 0.1, 0.8, 0.9], [1, 1, 0, 0], (1 / 3 + 2 / 4) / 2),  # the worst
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 1 / 4),  # constant: the share of critical entries
        ([0.0, 0.0, 0.0], [1, 1, 0], 2 / 3),
        ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], (1 + 2 / 3) / 2),  # a tie across the border
        ([0.9, 0.5, 0.5, 0.1], [0, 0, 1, 1], (1 / 3 + 2 / 4) / 2),
        ([0.3], [1], 1),
        ([0.9, 0.1], [1, 1], 1),
    ],
)
def test_by_hand(focus: list[float], critical: list[float], expected: float) -> None:
    assert overlap(focus, critical) == pytest.approx(expected, abs=1e-12)


def test_each_clip_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    focus = torch.rand(4, 2, 5, 3, generator=generator)
    critical = (torch.rand(4, 2, 5, 3, generator=generator) > 0.6).float()
    critical[1] = 0
    ours = focus_average_precision(focus, critical)
    assert ours.shape == (4,) and ours.dtype == torch.float32
    assert ours.isnan().tolist() == [False, True, False, False]  # nothing critical: no answer
    for n in (0, 2, 3):
        expected = average_precision(focus[n].flatten().tolist(), critical[n].flatten().tolist())
        assert ours[n].item() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(
            focus_average_precision(focus[n : n + 1], critical[n : n + 1]), ours[n : n + 1]
        )


def test_inputs_unchanged_and_any_truth_type() -> None:
    focus = torch.rand(1, 1, 3, 4)
    critical = torch.eye(4)[:3].view(1, 1, 3, 4)
    kept = focus.clone(), critical.clone()
    expected = focus_average_precision(focus, critical)
    assert torch.equal(focus, kept[0]) and torch.equal(critical, kept[1])
    assert torch.equal(focus_average_precision(focus, critical.bool()), expected)
    assert torch.equal(focus_average_precision(focus, critical.long()), expected)


def test_a_long_clip_of_two_persons_in_half_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    focus = torch.rand(1, 2, 300, 25, generator=generator).bfloat16()
    critical = torch.rand(1, 2, 300, 25, generator=generator) > 0.5
    ours = focus_average_precision(focus, critical).double()
    expected = focus_average_precision(focus.double(), critical)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("focus", "critical", "error"),
    [
        ((1, 2, 3), (1, 2, 3), "focus (N, M, T, V), got (1, 2, 3)"),
        ((1, 2, 3, 4), (1, 2, 4, 3), "critical (N=1, M=2, T=3, V=4), got (1, 2, 4, 3)"),
        ((1, 2, 3, 4), (2, 2, 3, 4), "critical (N=1, M=2, T=3, V=4), got (2, 2, 3, 4)"),
        (
            (1, 2, 0, 4),
            (1, 2, 0, 4),
            "focus (N, M, T, V) with at least one entry, got (1, 2, 0, 4)",
        ),
    ],
)
def test_errors(focus: tuple[int, ...], critical: tuple[int, ...], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"focus_average_precision: expected {error}")):
        focus_average_precision(torch.zeros(focus), torch.zeros(critical))


# ------------------------------------------------------------------------------- the other measures

Measure = Callable[[Tensor, Tensor], Tensor]
MEASURES: dict[str, tuple[Measure, str]] = {
    "focus_average_precision": (focus_average_precision, "critical"),
    "focus_iou": (focus_iou, "critical"),
    "pointing_game": (pointing_game, "critical"),
    "relevance_mass": (relevance_mass, "critical"),
    "focus_coverage": (focus_coverage, "within"),
    "class_overlap": (class_overlap, "rival_focus"),
    "layer_coherence": (lambda focus, low: layer_coherence(low, focus), "low_focus"),
}
every_measure = pytest.mark.parametrize("name", MEASURES)


@st.composite
def two_maps(draw: st.DrawFn, truth: bool = False) -> tuple[Tensor, Tensor]:
    """Draw two maps (N, M, T, V), float64, of few levels; a truth has zeros and ones."""
    size = draw(
        st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 4), st.integers(1, 4))
    )
    count = math.prod(size)
    maps = [
        draw(st.lists(st.sampled_from(levels), min_size=count, max_size=count))
        for levels in (LEVELS, [0.0, 1.0] if truth else LEVELS)
    ]
    return torch.tensor(maps[0]).double().view(size), torch.tensor(maps[1]).double().view(size)


def random_maps(*size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    focus = torch.rand(size, generator=generator)
    return focus, (torch.rand(size, generator=generator) > 0.5).float()


def quad(*values: float) -> Tensor:
    """A 2 x 2 map: two frames of two joints."""
    return torch.tensor(values).view(1, 1, 2, 2)


def agree(ours: Tensor, slow: list[float | None]) -> None:
    expected = torch.tensor(
        [math.nan if value is None else value for value in slow], dtype=ours.dtype
    )
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9, equal_nan=True)


@given(two_maps(truth=True), st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]))
def test_measures_against_the_truth_equal_the_plain_loops(
    maps: tuple[Tensor, Tensor], threshold: float
) -> None:
    focus, truth = maps
    clips = list(zip(focus.numpy(), truth.numpy(), strict=True))
    agree(
        focus_iou(focus, truth, threshold=threshold),
        [reference_metrics.iou(*clip, threshold) for clip in clips],
    )
    agree(pointing_game(focus, truth), [reference_metrics.pointing(*clip) for clip in clips])
    agree(relevance_mass(focus, truth), [reference_metrics.mass(*clip) for clip in clips])
    covered = focus_coverage(focus, truth, threshold=threshold)
    agree(covered, [reference_metrics.coverage(*clip, threshold) for clip in clips])
    everywhere = [reference_metrics.coverage(q, np.ones_like(q), threshold) for q, _ in clips]
    agree(focus_coverage(focus, threshold=threshold), everywhere)


@given(two_maps())
def test_measures_of_two_maps_equal_the_plain_loops(maps: tuple[Tensor, Tensor]) -> None:
    clips = list(zip(maps[0].numpy(), maps[1].numpy(), strict=True))
    agree(class_overlap(*maps), [reference_metrics.ruzicka(*clip) for clip in clips])
    agree(layer_coherence(*maps), [reference_metrics.pearson(*clip) for clip in clips])


@pytest.mark.parametrize(("low_frames", "frames"), [(8, 4), (4, 8), (7, 3), (1, 5), (5, 5)])
def test_coherence_resizes_the_shorter_map(low_frames: int, frames: int) -> None:
    low = random_maps(3, 2, low_frames, 4)[0].double()
    high = random_maps(3, 2, frames, 4, seed=1)[0].double()
    longest = max(low_frames, frames)
    stretched = [reference.resize_frames(one.numpy(), longest) for one in (low, high)]
    agree(
        layer_coherence(low, high),
        [reference_metrics.pearson(*pair) for pair in zip(*stretched, strict=True)],
    )
    assert torch.equal(layer_coherence(low, high), layer_coherence(high, low))


@given(two_maps(), st.integers(0, 6))
def test_a_resized_map_agrees_with_itself(maps: tuple[Tensor, Tensor], more: int) -> None:
    focus = maps[0]
    longer = resize_focus(focus, focus.shape[2] + more)
    constant = focus.flatten(1).amax(1) == focus.flatten(1).amin(1)
    torch.testing.assert_close(
        layer_coherence(focus, longer), 1 - constant.double(), rtol=0, atol=1e-9
    )


@given(two_maps(), st.sampled_from([0.1, 3.0]), st.sampled_from([-2.0, 0.7]))
def test_scaling_and_shifting_a_map_do_not_change_its_coherence(
    maps: tuple[Tensor, Tensor], factor: float, shift: float
) -> None:
    low, focus = maps
    expected = layer_coherence(low, focus)
    torch.testing.assert_close(
        layer_coherence(factor * low + shift, focus), expected, rtol=0, atol=1e-9
    )
    torch.testing.assert_close(layer_coherence(-factor * low, focus), -expected, rtol=0, atol=1e-9)


@every_measure
@given(maps=two_maps(truth=True), data=st.data())
def test_joints_persons_frames_and_clips_have_no_order(
    name: str, maps: tuple[Tensor, Tensor], data: st.DataObject
) -> None:
    measure = MEASURES[name][0]
    expected = measure(*maps)
    for axis in range(4):
        order = data.draw(st.permutations(range(maps[0].shape[axis])))
        moved = measure(*(one.index_select(axis, torch.tensor(order)) for one in maps))
        still = expected[order] if axis == 0 else expected
        torch.testing.assert_close(moved, still, rtol=0, atol=1e-9, equal_nan=True)


@every_measure
@given(maps=two_maps(truth=True))
def test_bounds(name: str, maps: tuple[Tensor, Tensor]) -> None:
    values = MEASURES[name][0](*maps)
    low = -1 if name == "layer_coherence" else 0
    assert values.shape == (len(maps[0]),)
    assert ((values >= low) & (values <= 1) | values.isnan()).all()


@given(two_maps(truth=True))
def test_only_the_ranks_matter_to_the_pointing_game(maps: tuple[Tensor, Tensor]) -> None:
    focus, truth = maps
    torch.testing.assert_close(
        pointing_game(focus.exp() * 7 - 2, truth), pointing_game(focus, truth), equal_nan=True
    )


@given(two_maps(truth=True), st.sampled_from([1e-3, 7.0]))
def test_the_mass_on_and_off_the_truth_is_all_of_it(
    maps: tuple[Tensor, Tensor], factor: float
) -> None:
    focus, truth = maps
    inside = relevance_mass(focus, truth)
    outside = relevance_mass(focus, 1 - truth)
    known = ~inside.isnan() & ~outside.isnan()
    torch.testing.assert_close((inside + outside)[known], torch.ones(len(focus)).double()[known])
    torch.testing.assert_close(relevance_mass(factor * focus, truth), inside, equal_nan=True)
    share = truth.flatten(1).mean(1).where(truth.flatten(1).any(1), math.nan)
    torch.testing.assert_close(
        relevance_mass(torch.full_like(focus, 0.3), truth), share, equal_nan=True
    )


@given(two_maps(truth=True))
def test_the_overlap_is_symmetric_and_of_sets_it_is_the_iou(maps: tuple[Tensor, Tensor]) -> None:
    focus, truth = maps
    assert torch.equal(
        class_overlap(focus, truth).nan_to_num(), class_overlap(truth, focus).nan_to_num()
    )
    sets = (focus >= 0.5).double()
    known = truth.flatten(1).any(1) & sets.flatten(1).any(1)
    assert torch.equal(class_overlap(sets, truth)[known], focus_iou(focus, truth)[known])


@pytest.mark.parametrize(
    ("focus", "critical", "iou", "pointing", "coverage"),
    [
        (quad(0.9, 0.1, 0.8, 0.7), quad(1, 0, 1, 0), 2 / 3, 1, 1),
        (quad(0.9, 0.9, 0.8, 0.2), quad(1, 0, 1, 0), 2 / 3, 1 / 2, 1),  # two entries tie, one hits
        # The threshold itself is reached.
        (quad(0.1, 0.9, 0.5, 0.7), quad(1, 0, 1, 0), 1 / 4, 0, 1 / 2),
        (quad(1, 1, 0, 0), quad(1, 1, 0, 0), 1, 1, 1),
        (quad(0, 0, 1, 1), quad(1, 1, 0, 0), 0, 0, 0),
        (quad(0, 0, 0, 0), quad(1, 0, 0, 0), 0, 1 / 4, 0),  # an empty focus points everywhere
        (quad(1, 1, 1, 1), quad(1, 0, 0, 0), 1 / 4, 1 / 4, 1),
        (quad(0, 0, 0, 0), quad(0, 0, 0, 0), math.nan, math.nan, math.nan),
        # A miss of nothing is no miss.
        (quad(1, 1, 0, 0), quad(0, 0, 0, 0), math.nan, math.nan, math.nan),
    ],
)
def test_against_the_truth_by_hand(
    focus: Tensor, critical: Tensor, iou: float, pointing: float, coverage: float
) -> None:
    ours = [
        measure(focus, critical).item() for measure in (focus_iou, pointing_game, focus_coverage)
    ]
    assert ours == pytest.approx([iou, pointing, coverage], abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    ("one", "other", "overlap", "coherence"),
    [
        # Deviations .625 .125 -.375 -.375 and 0 0 .5 -.5.
        (quad(1, 0.5, 0, 0), quad(0.5, 0.5, 1, 0), 1 / 2.5, 0),
        # .75 -.25 -.25 -.25 and .5 .5 -.5 -.5.
        (quad(1, 0, 0, 0), quad(1, 1, 0, 0), 1 / 2, 1 / 3**0.5),
        (quad(1, 0.5, 0, 0), quad(1, 0.5, 0, 0), 1, 1),
        (quad(1, 0, 0, 1), quad(0, 1, 1, 0), 0, -1),
        (quad(1, 0, 1, 0), quad(1, 1, 0, 0), 1 / 3, 0),
        (quad(1, 0, 0, 0), quad(0.5, 0, 0, 0), 1 / 2, 1),  # half as strong at the same place
        (quad(0, 0, 0, 0), quad(1, 0, 0, 0), math.nan, 0),
        (quad(1, 0, 0, 0), quad(0, 0, 0, 0), math.nan, 0),
        (quad(1, 1, 1, 1), quad(1, 0, 0, 0), 1 / 4, 0),
        (quad(0, 0, 0, 0), quad(0, 0, 0, 0), math.nan, 0),
        (quad(1, 1, 1, 1), quad(1, 1, 1, 1), 1, 0),
    ],
)
def test_two_maps_by_hand(one: Tensor, other: Tensor, overlap: float, coherence: float) -> None:
    assert class_overlap(one, other).item() == pytest.approx(overlap, abs=1e-6, nan_ok=True)
    assert layer_coherence(one, other).item() == pytest.approx(coherence, abs=1e-6)


@pytest.mark.parametrize(
    ("focus", "critical", "mass"),
    [
        (quad(0.9, 0.1, 0.8, 0.2), quad(1, 0, 1, 0), 0.85),
        (quad(0.5, 0, 0, 0), quad(1, 0, 1, 0), 1),
        (quad(0, 0.5, 0, 0), quad(1, 0, 1, 0), 0),
        (quad(0.3, 0.3, 0.3, 0.3), quad(1, 0, 0, 0), 1 / 4),
        (quad(0, 0, 0, 0), quad(1, 0, 0, 0), math.nan),
        (quad(1, 1, 0, 0), quad(0, 0, 0, 0), math.nan),
    ],
)
def test_the_mass_by_hand(focus: Tensor, critical: Tensor, mass: float) -> None:
    assert relevance_mass(focus, critical).item() == pytest.approx(mass, abs=1e-6, nan_ok=True)


def test_coverage_of_all_by_default() -> None:
    focus = quad(0.9, 0.1, 0.5, 0.7)
    assert focus_coverage(focus).item() == 0.75
    assert focus_coverage(focus, threshold=0).item() == 1
    assert focus_coverage(focus, threshold=1).item() == 0
    assert focus_coverage(focus, threshold=0.8).item() == 0.25
    assert torch.equal(focus_coverage(focus), focus_coverage(focus, torch.ones(1, 1, 2, 2)))


@pytest.mark.parametrize("level", [0.1, 0.3, 1.0, 7.7])
@pytest.mark.parametrize("frames", [3, 5, 64])
def test_a_constant_map_stays_constant_when_it_is_resized(level: float, frames: int) -> None:
    """Interpolated 0.1 is not everywhere the same float32; no correlation may come of that."""
    constant = torch.full((1, 2, 3, 4), level)
    focus = random_maps(1, 2, frames, 4)[0]
    assert layer_coherence(constant, focus).item() == layer_coherence(focus, constant).item() == 0


def test_coherence_of_a_faint_or_shifted_map() -> None:
    focus = random_maps(2, 1, 6, 5)[0]
    # Its squares are zero in float32.
    torch.testing.assert_close(layer_coherence(focus * 1e-25, focus), torch.ones(2))
    torch.testing.assert_close(
        layer_coherence(focus + 1000, focus), torch.ones(2), rtol=0, atol=1e-4
    )
    high = random_maps(1, 1, 6, 5)[0].double()
    low = random_maps(1, 1, 6, 5, seed=1)[0].double()
    torch.testing.assert_close(
        layer_coherence(low, high), layer_coherence(min_max_normalize(low), high)
    )


@every_measure
def test_each_clip_stands_alone_and_none_at_all(name: str) -> None:
    measure = MEASURES[name][0]
    (focus, other) = random_maps(4, 2, 5, 3)
    other[1] = 0
    alone = torch.cat([measure(focus[n : n + 1], other[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(measure(focus, other), alone, rtol=0, atol=1e-6, equal_nan=True)
    assert measure(focus[:0], other[:0]).shape == (0,)


@every_measure
def test_types(name: str) -> None:
    """Half precision is computed in float32: bfloat16 cannot count these 15,000 entries."""
    measure = MEASURES[name][0]
    (focus, other) = random_maps(2, 2, 300, 25)
    for dtype in (torch.bfloat16, torch.float16):
        ours = measure(focus.to(dtype), other.to(dtype))
        full = measure(focus.to(dtype).double(), other.double())
        assert ours.dtype == torch.float32 and full.dtype == torch.float64
        torch.testing.assert_close(ours.double(), full, rtol=0, atol=1e-5)
    if MEASURES[name][1] in ("critical", "within"):
        for kind in (torch.bool, torch.int64):
            assert torch.equal(measure(focus, other.to(kind)), measure(focus, other))


@every_measure
def test_leaves_no_gradient_and_its_inputs_alone(name: str) -> None:
    measure = MEASURES[name][0]
    (focus, other) = random_maps(2, 1, 3, 4)
    kept = focus.clone(), other.clone()
    values = measure(focus.requires_grad_(), other.requires_grad_())
    assert not values.requires_grad and focus.grad is None and other.grad is None
    assert torch.equal(focus, kept[0]) and torch.equal(other, kept[1])


@every_measure
def test_refuses_maps_that_differ(name: str) -> None:
    measure, other = MEASURES[name]
    focus = torch.zeros(1, 2, 3, 4)
    frames = "T'" if name == "layer_coherence" else "T=3"
    with pytest.raises(
        ValueError, match=re.escape(f"{name}: expected focus (N, M, T, V), got (2, 3, 4)")
    ):
        measure(focus[0], focus[0])
    with pytest.raises(
        ValueError, match=re.escape(f"{name}: expected focus (N, M, T, V) to be a tensor, got list")
    ):
        measure([0.0], focus)  # type: ignore[arg-type]
    for wrong in [(2, 2, 3, 4), (1, 1, 3, 4), (1, 2, 3, 3), (1, 2, 3)]:
        told = f"{name}: expected {other} (N=1, M=2, {frames}, V=4), got {wrong}"
        with pytest.raises(ValueError, match=re.escape(told)):
            measure(focus, torch.zeros(wrong))
    for empty in [(1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)]:
        told = f"{name}: expected focus (N, M, T, V) with at least one entry, got {empty}"
        with pytest.raises(ValueError, match=re.escape(told)):
            measure(torch.zeros(empty), torch.zeros(empty))
    if name != "layer_coherence":
        with pytest.raises(
            ValueError, match=re.escape(f"{other} (N=1, M=2, T=3, V=4), got (1, 2, 2, 4)")
        ):
            measure(focus, torch.zeros(1, 2, 2, 4))


def test_coherence_refuses_a_low_map_without_frames() -> None:
    told = (
        "layer_coherence: expected low_focus (N, M, T, V) with at least one entry, got (1, 2, 0, 4)"
    )
    with pytest.raises(ValueError, match=re.escape(told)):
        layer_coherence(torch.zeros(1, 2, 0, 4), torch.zeros(1, 2, 3, 4))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("measure", [focus_iou, focus_coverage])
def test_refuses_a_threshold_outside_the_range(
    measure: Callable[..., Tensor], threshold: float
) -> None:
    told = f"{measure.__name__}: expected a threshold in [0, 1], got {threshold}"
    with pytest.raises(ValueError, match=re.escape(told)):
        measure(quad(0, 0, 0, 1), quad(0, 0, 0, 1), threshold=threshold)


def test_torchmetrics_agrees() -> None:
    torchmetrics = pytest.importorskip("torchmetrics.functional")
    (focus, truth) = random_maps(3, 2, 6, 5)
    rival = random_maps(3, 2, 6, 5, seed=1)[0]
    focus = (focus * 8).round() / 8  # with ties
    whole = truth.flatten(1).long()
    pairs = list(zip(focus.flatten(1), whole, strict=True))
    precision = torch.stack(
        [torchmetrics.classification.binary_average_precision(*pair) for pair in pairs]
    )
    torch.testing.assert_close(focus_average_precision(focus, truth), precision, rtol=0, atol=1e-6)
    jaccard = torch.stack(
        [torchmetrics.classification.binary_jaccard_index(q >= 0.5, c) for q, c in pairs]
    )
    torch.testing.assert_close(focus_iou(focus, truth), jaccard, rtol=0, atol=1e-6)
    recall = torch.stack([torchmetrics.classification.binary_recall(q >= 0.5, c) for q, c in pairs])
    torch.testing.assert_close(focus_coverage(focus, truth), recall, rtol=0, atol=1e-6)
    correlation = torchmetrics.pearson_corrcoef(rival.flatten(1).T, focus.flatten(1).T)
    torch.testing.assert_close(layer_coherence(rival, focus), correlation, rtol=0, atol=1e-6)


def test_a_map_of_nan_has_no_measure() -> None:
    focus = torch.rand(3, 1, 4, 5)
    focus[1, 0, 2, 2] = torch.nan
    truth = (torch.rand(3, 1, 4, 5) > 0.5).float()
    truth[:, :, 0, 0] = 1
    measures = [
        focus_average_precision(focus, truth),
        focus_iou(focus, truth),
        pointing_game(focus, truth),
        relevance_mass(focus, truth),
        class_overlap(focus, truth),
        layer_coherence(focus, truth),
        layer_coherence(truth, focus),
        focus_coverage(focus),
    ]
    assert [measure.isnan().tolist() for measure in measures] == [[False, True, False]] * 8
