"""Views against plain loops, hand examples and their own inverses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference_views
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw
from torch import Tensor

from skeleton_focus import COCO17, KINECT20, SkeletonLayout
from skeleton_focus.augment import drop_joints, flip, rotate, scale, shear
from skeleton_focus.layouts import LAYOUTS

ARMS = SkeletonLayout.from_bones(
    [(0, 1), (0, 2), (1, 3), (2, 4)], pairs=[(1, 2), (3, 4)], name="arms"
)
TWO = 2.0**0.5

VIEWS: dict[str, Callable[[Tensor, slice], Tensor]] = {
    "rotate": lambda x, i: rotate(x, draw(2, 3 if x.shape[1] == 3 else 1, seed=1)[i]),
    "scale": lambda x, i: scale(x, draw(2, seed=2)[i].to(x.dtype)),
    "shear": lambda x, i: shear(x, draw(2, x.shape[1], x.shape[1] - 1, seed=3)[i]),
    "flip": lambda x, i: flip(x, ARMS, torch.tensor([True, False])[i]),
    "drop_joints": lambda x, i: drop_joints(x, draw(2, 5, 2, seed=4)[i] > 0.5),
}


# ----------------------------------------------------------------------------------------- rotation


@pytest.mark.parametrize(
    ("angles", "before", "after"),
    [
        ((90, 0, 0), (0, 1, 0), (0, 0, 1)),  # about x: y to z
        ((90, 0, 0), (0, 0, 1), (0, -1, 0)),
        ((0, 90, 0), (0, 0, 1), (1, 0, 0)),  # about y: z to x
        ((0, 90, 0), (1, 0, 0), (0, 0, -1)),
        ((0, 0, 90), (1, 0, 0), (0, 1, 0)),  # about z: x to y
        ((0, 0, 90), (0, 1, 0), (-1, 0, 0)),
        ((0, 0, 45), (1, 0, 0), (TWO / 2, TWO / 2, 0)),
        ((90, 90, 0), (0, 1, 0), (1, 0, 0)),  # x first, then y
        ((90, 0, 90), (0, 0, 1), (1, 0, 0)),  # x first, then z
        ((0, 90, 90), (0, 0, 1), (0, 1, 0)),  # y first, then z
    ],
)
def test_rotate_is_right_handed(angles: Any, before: Any, after: Any) -> None:
    turn = torch.tensor([angles], dtype=torch.float64) * math.pi / 180
    ours = rotate(torch.tensor(before, dtype=torch.float64).view(1, 3, 1, 1, 1), turn)
    torch.testing.assert_close(
        ours.flatten(), torch.tensor(after, dtype=torch.float64), rtol=0, atol=1e-12
    )


@given(st.lists(st.floats(-7, 7), min_size=3, max_size=3))
def test_rotate_keeps_lengths_and_has_an_inverse(angles: list[float]) -> None:
    x = draw(2, 3, 2, 4, 2)
    turn = torch.tensor([angles, [0.1, 0.2, 0.3]]).double()
    ours = rotate(x, turn)
    torch.testing.assert_close(ours.norm(dim=1), x.norm(dim=1))
    back = ours
    for axis in (2, 1, 0):  # the steps undone from the last to the first
        only = torch.zeros_like(turn)
        only[:, axis] = -turn[:, axis]
        back = rotate(back, only)
    torch.testing.assert_close(back, x)
    basis = torch.linalg.det(
        rotate(torch.eye(3).double().view(1, 3, 1, 3, 1), turn[:1])[0, :, 0, :, 0]
    )
    assert basis.item() == pytest.approx(1)
    torch.testing.assert_close(ours[:1], rotate(x[:1], turn[:1]))


def test_rotate_by_nothing_and_its_errors() -> None:
    x = draw(2, 3, 2, 4, 2)
    torch.testing.assert_close(rotate(x, torch.zeros(2, 3).double()), x)
    assert rotate(x.float(), torch.zeros(2, 3)).dtype == torch.float32
    with pytest.raises(
        ValueError, match=r"^rotate: expected x \(N, C=3, T, V, M\), got \(2, 2, 2, 4, 2\)$"
    ):
        rotate(x[:, :2], torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"^rotate: expected angles \(N=2, axes=3\), got \(3,\)$"):
        rotate(x, torch.zeros(3))


@given(st.lists(st.floats(-7, 7), min_size=2, max_size=2))
def test_in_the_plane_a_turn_is_one_about_z(angles: list[float]) -> None:
    x = draw(2, 2, 3, 4, 2)
    turn = torch.tensor(angles, dtype=torch.float64)
    deep = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
    about_z = torch.stack([torch.zeros_like(turn), torch.zeros_like(turn), turn], dim=1)
    ours = rotate(x, turn[:, None])
    torch.testing.assert_close(ours, rotate(deep, about_z)[:, :2])
    torch.testing.assert_close(rotate(ours, -turn[:, None]), x)


# ------------------------------------------------------------------------ size, slant, mirror, loss


def test_scale_by_hand() -> None:
    x = draw(3, 2, 4, 5, 2)
    ours = scale(x, torch.tensor([1.0, 0.5, -2.0]).double())
    assert (
        torch.equal(ours[0], x[0])
        and torch.equal(ours[1], x[1] / 2)
        and torch.equal(ours[2], -2 * x[2])
    )


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_shear_equals_the_slow_reference(channels: int) -> None:
    x = draw(3, channels, 2, 4, 2)
    factors = draw(3, channels, channels - 1, seed=1)
    expected = reference_views.shear(x.numpy(), factors.numpy())
    np.testing.assert_allclose(shear(x, factors), expected, rtol=0, atol=1e-12)
    assert torch.equal(shear(x, 0 * factors), x)


def test_shear_by_hand() -> None:
    """Each factor alone: s_xy moves x with y, and so on."""
    x = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1, 1)
    moved = {
        (0, 0): [6, 10, 100],
        (0, 1): [51, 10, 100],
        (1, 0): [1, 10.5, 100],
        (1, 1): [1, 60, 100],
        (2, 0): [1, 10, 100.5],
        (2, 1): [1, 10, 105],
    }
    for at, expected in moved.items():
        factors = torch.zeros(1, 3, 2)
        factors[0, at[0], at[1]] = 0.5
        assert shear(x, factors).flatten().tolist() == expected


@pytest.mark.parametrize("layout", list(LAYOUTS.values()), ids=lambda layout: layout.name)
@pytest.mark.parametrize("channels", [2, 3])
def test_flip_equals_the_slow_reference_and_undoes_itself(
    layout: SkeletonLayout, channels: int
) -> None:
    x = draw(3, channels, 2, layout.num_joints, 2)
    which = torch.tensor([True, False, True])
    ours = flip(x, layout, which)
    np.testing.assert_array_equal(
        ours, reference_views.flip(x.numpy(), layout.pairs, which.tolist())
    )
    assert torch.equal(flip(ours, layout, which), x)
    # Numbers will do for booleans.
    assert torch.equal(flip(x, layout, ~which)[1], flip(x, layout, torch.ones(3))[1])


def test_a_raised_left_hand_becomes_a_raised_right_hand() -> None:
    x = torch.zeros(1, 2, 1, 17, 1)
    x[0, :, 0, COCO17.index("left_wrist"), 0] = torch.tensor([-0.4, 0.9])
    mirrored = flip(x, COCO17, torch.tensor([True]))
    assert mirrored[0, :, 0, COCO17.index("right_wrist"), 0].tolist() == pytest.approx([0.4, 0.9])
    assert mirrored.count_nonzero() == 2


@given(st.permutations(range(5)))
def test_relabelling_joints_relabels_the_mirror_image(order: list[int]) -> None:
    """Joint v of the relabelled skeleton is joint order[v] of ARMS."""
    name = {old: new for new, old in enumerate(order)}
    bones, pairs = ([(name[a], name[b]) for a, b in group] for group in (ARMS.bones, ARMS.pairs))
    relabelled = SkeletonLayout.from_bones(bones, pairs=pairs, center=name[0])
    x = draw(2, 3, 2, 5, 2)
    which = torch.tensor([True, False])
    assert torch.equal(
        flip(x[:, :, :, order], relabelled, which), flip(x, ARMS, which)[:, :, :, order]
    )


def test_dropped_joints_are_lost_for_the_clip() -> None:
    x = draw(2, 3, 4, 5, 2)
    which = torch.zeros(2, 5, 2)
    which[0, 3, 1] = which[1, 0, 0] = 1
    ours = drop_joints(x, which)
    for n, t, v, m in np.ndindex(2, 4, 5, 2):
        lost = (n, v, m) in [(0, 3, 1), (1, 0, 0)]
        assert torch.equal(
            ours[n, :, t, v, m], torch.zeros(3).double() if lost else x[n, :, t, v, m]
        )
    seen = torch.ones(2, 4, 5, 2)
    assert drop_joints(seen[:, None], which)[:, 0].sum() == seen.sum() - 2 * 4


# ------------------------------------------------------------------------------------ common to all


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("view", VIEWS)
def test_a_clip_does_not_depend_on_its_batch(view: str, channels: int) -> None:
    x = draw(2, channels, 4, 5, 2)
    call = VIEWS[view]
    x[:, :, :, [0, 3]] = 0  # lost joints
    if view == "flip":
        x[:, :, :, 4] = 0
    before = x.clone()
    whole = call(x, slice(0, 2))
    assert torch.equal(x, before) and not torch.equal(whole, x)
    assert not whole[:, :, :, 0].any() and not whole[:, :, :, 3].any(), (
        "what was not seen stays at 0"
    )
    for n in range(2):
        torch.testing.assert_close(whole[n : n + 1], call(x[n : n + 1], slice(n, n + 1)))
    assert call(x[:0], slice(0, 0)).shape == (0, channels, 4, 5, 2)
    assert call(x.float(), slice(0, 2)).dtype == torch.float32
    torch.testing.assert_close(call(x.float(), slice(0, 2)), whole.float())


@pytest.mark.parametrize("view", VIEWS)
def test_gradients_reach_the_positions(view: str) -> None:
    x = draw(2, 3, 1, 5, 2, grad=True)
    assert torch.autograd.gradcheck(lambda x: VIEWS[view](x, slice(0, 2)), x)
    assert x.grad is None


X = torch.zeros(2, 3, 4, 5, 2)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            lambda: rotate(X[:, :2], torch.zeros(2, 3)),
            r"rotate: expected x \(N, C=3, T, V, M\), got \(2, 2, 4, 5, 2\)",
        ),
        (
            lambda: rotate(X, torch.zeros(2, 1)),
            r"rotate: expected x \(N, C=2, T, V, M\), got \(2, 3, 4, 5, 2\)",
        ),
        (
            lambda: rotate(X, torch.zeros(2, 2)),
            r"rotate: expected angles \(N=2, axes=3\), got \(2, 2\)",
        ),
        (
            lambda: rotate(X[:, :2], torch.zeros(3, 1)),
            r"rotate: expected angles \(N=2, axes=1\), got \(3, 1\)",
        ),
        (
            lambda: rotate(X, 0.5),
            r"rotate: expected angles \(N=2, axes=3\) to be a tensor, got float",
        ),
        (
            lambda: scale(X[0], torch.ones(2)),
            r"scale: expected x \(N, C, T, V, M\), got \(3, 4, 5, 2\)",
        ),
        (lambda: scale(X, torch.ones(3)), r"scale: expected factors \(N=2\), got \(3,\)"),
        (
            lambda: shear(X[0], torch.ones(2)),
            r"shear: expected x \(N, C, T, V, M\), got \(3, 4, 5, 2\)",
        ),
        (
            lambda: shear(X, torch.ones(2, 3, 3)),
            r"shear: expected factors \(N=2, C=3, others=2\), got \(2, 3, 3\)",
        ),
        (
            lambda: flip(X, KINECT20, torch.ones(2)),
            r"flip: expected x \(N, C, T, V=20, M\), got \(2, 3, 4, 5, 2\)",
        ),
        (lambda: flip(X, ARMS, torch.ones(2, 1)), r"flip: expected which \(N=2\), got \(2, 1\)"),
        (
            lambda: flip(
                X, SkeletonLayout.from_bones([(0, j) for j in range(1, 5)]), torch.ones(2)
            ),
            "flip: expected a layout with left and right pairs, got 'custom'; "
            "pass them to SkeletonLayout",
        ),
        (
            lambda: drop_joints(X, torch.ones(2, 5)),
            r"drop_joints: expected which \(N=2, V=5, M=2\), got \(2, 5\)",
        ),
        (
            lambda: drop_joints(X[0], torch.ones(2, 5, 2)),
            r"drop_joints: expected x \(N, C, T, V, M\), got \(3, 4,",
        ),
    ],
)
def test_what_views_refuse(call: Callable[[], Any], error: str) -> None:
    with pytest.raises(ValueError, match="^" + error):
        call()
