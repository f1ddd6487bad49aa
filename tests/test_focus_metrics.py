"""Average precision of a focus against a plain loop over thresholds."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skeleton_focus import focus_overlap

LEVELS = [0.0, 0.25, 0.5, 0.75, 1.0]  # few, so that ties are common
maps = st.integers(1, 12).flatmap(
    lambda size: st.tuples(
        st.lists(st.sampled_from(LEVELS), min_size=size, max_size=size),
        st.lists(st.sampled_from([0.0, 1.0]), min_size=size, max_size=size).filter(any),
    )
)


def average_precision(focus: list[float], critical: list[float]) -> float:
    """Sum over thresholds, from the highest: (recall here - recall before) times precision here."""
    value, recall_before = 0.0, 0.0
    for threshold in sorted(set(focus), reverse=True):
        chosen = [truth for score, truth in zip(focus, critical, strict=True) if score >= threshold]
        recall = sum(chosen) / sum(critical)
        value += (recall - recall_before) * sum(chosen) / len(chosen)
        recall_before = recall
    return value


def overlap(focus: list[float], critical: list[float]) -> float:
    shape = (1, 1, 1, len(focus))
    return focus_overlap(torch.tensor(focus).double().view(shape), torch.tensor(critical).view(shape)).item()


@given(maps)
def test_equals_the_plain_loop(case: tuple[list[float], list[float]]) -> None:
    assert overlap(*case) == pytest.approx(average_precision(*case), abs=1e-12)


@given(maps, st.data())
def test_the_order_of_the_entries_does_not_matter(case: tuple[list[float], list[float]], data: st.DataObject) -> None:
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
    ours = focus_overlap(focus, critical)
    assert ours.shape == (4,) and ours.dtype == torch.float32
    assert ours.isnan().tolist() == [False, True, False, False]  # nothing critical: no answer
    for n in (0, 2, 3):
        expected = average_precision(focus[n].flatten().tolist(), critical[n].flatten().tolist())
        assert ours[n].item() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(focus_overlap(focus[n : n + 1], critical[n : n + 1]), ours[n : n + 1])


def test_inputs_unchanged_and_any_truth_type() -> None:
    focus, critical = torch.rand(1, 1, 3, 4), torch.eye(4)[:3].view(1, 1, 3, 4)
    kept = focus.clone(), critical.clone()
    expected = focus_overlap(focus, critical)
    assert torch.equal(focus, kept[0]) and torch.equal(critical, kept[1])
    assert torch.equal(focus_overlap(focus, critical.bool()), expected)
    assert torch.equal(focus_overlap(focus, critical.long()), expected)


def test_a_long_clip_of_two_persons_in_half_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    focus = torch.rand(1, 2, 300, 25, generator=generator).bfloat16()
    critical = torch.rand(1, 2, 300, 25, generator=generator) > 0.5
    ours, expected = focus_overlap(focus, critical).double(), focus_overlap(focus.double(), critical)
    torch.testing.assert_close(ours, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("focus", "critical", "error"),
    [
        ((1, 2, 3), (1, 2, 3), "focus (N, M, T, V), got (1, 2, 3)"),
        ((1, 2, 3, 4), (1, 2, 4, 3), "critical (N=1, M=2, T=3, V=4), got (1, 2, 4, 3)"),
        ((1, 2, 3, 4), (2, 2, 3, 4), "critical (N=1, M=2, T=3, V=4), got (2, 2, 3, 4)"),
    ],
)
def test_errors(focus: tuple[int, ...], critical: tuple[int, ...], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"focus_overlap: expected {error}")):
        focus_overlap(torch.zeros(focus), torch.zeros(critical))


def test_gives_a_tensor_without_a_gradient_of_its_own() -> None:
    result: Tensor = focus_overlap(torch.rand(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
    torch.testing.assert_close(result, torch.ones(2))
