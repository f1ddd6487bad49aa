"""The guidance loss against plain loops, and the tables of joints that users write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import gradcheck

from skeleton_focus import NTU25, SkeletonLayout, allowed_joints, guidance_loss

N = 3
M = 2
T = 6
V = 5


def in_time(series: list[float], frames: int) -> list[float]:
    """Interpolate linearly between the middles of frames; the outermost values are kept beyond."""
    found = []
    for t in range(frames):
        place = min(max((t + 0.5) * len(series) / frames - 0.5, 0.0), len(series) - 1.0)
        before = int(place)
        after = min(before + 1, len(series) - 1)
        found.append(series[before] + (place - before) * (series[after] - series[before]))
    return found


def outside(focus: NDArray[Any], allowed: NDArray[Any]) -> list[float]:
    """The share of each clip's focus that lies where it may not, entry by entry."""
    shares = []
    for n in range(len(focus)):
        _, persons, _, joints = focus.shape
        frames = allowed.shape[2] if allowed.ndim == 4 else focus.shape[2]
        whole = wrong = 0.0
        for m in range(persons):
            for v in range(joints):
                series = [float(value) for value in focus[n, m, :, v]]
                for t, value in enumerate(in_time(series, frames)):
                    inside = float(allowed[n, m, t, v] if allowed.ndim == 4 else allowed[n, v])
                    whole += value
                    wrong += value * (1 - inside)
        shares.append(wrong / whole if whole > 0 else 0.0)
    return shares


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize(
    "frames", [None, T, 2 * T, 4, 1, 9], ids=lambda t: "all times" if t is None else f"T={t}"
)
def test_against_loops(frames: int | None, kind: torch.dtype) -> None:
    focus = draw(N, M, T, V)
    drawn = draw(N, V, seed=1) if frames is None else draw(N, M, frames, V, seed=1)
    allowed = drawn.to(kind) if kind.is_floating_point else (drawn > 0.5).to(kind)
    found = guidance_loss(focus, allowed, reduction="none")
    assert found.dtype == torch.float64
    np.testing.assert_allclose(
        found.numpy(), outside(focus.numpy(), allowed.numpy()), rtol=0, atol=1e-12
    )


def test_by_hand() -> None:
    """Of three joints in two frames, 3 of 8 lie outside; in one frame, 1 of 8."""
    focus = torch.tensor([[1.0, 2.0, 1.0], [2.0, 1.0, 1.0]]).view(1, 1, 2, 3)
    assert guidance_loss(focus, torch.tensor([[False, True, True]])).item() == 3 / 8
    in_first_frame = torch.ones(1, 1, 2, 3)
    in_first_frame[:, :, 0, 0] = 0
    assert guidance_loss(focus, in_first_frame).item() == 1 / 8
    assert guidance_loss(focus, torch.tensor([[0.5, 1.0, 1.0]])).item() == 1.5 / 8


@pytest.mark.parametrize("kind", [torch.int64, torch.bool])
def test_a_focus_of_whole_numbers(kind: torch.dtype) -> None:
    focus = torch.tensor([1, 1, 1, 0]).view(1, 1, 1, 4).to(kind)
    assert guidance_loss(focus, torch.tensor([[0.5, 0.5, 1.0, 1.0]])).item() == pytest.approx(1 / 3)
    assert guidance_loss(focus, torch.tensor([[False, True, True, True]])).item() == pytest.approx(
        1 / 3
    )


@pytest.mark.parametrize("shape", [(N, V), (N, M, 4, V)])
def test_an_empty_focus_gives_zero_and_no_gradient(shape: tuple[int, ...]) -> None:
    """Of one clip of the batch; the others keep theirs."""
    focus = draw(N, M, T, V)
    focus[1] = 0
    focus.requires_grad_()
    each = guidance_loss(focus, draw(*shape, seed=1), reduction="none")
    each.sum().backward()
    assert each[1].item() == 0
    assert focus.grad is not None
    assert focus.grad[1].eq(0).all()
    assert all(focus.grad[n].abs().sum() > 0 for n in (0, 2))


@pytest.mark.parametrize("shape", [(N, V), (N, M, 2 * T, V), (N, M, 4, V)])
def test_gradients(shape: tuple[int, ...]) -> None:
    focus = draw(N, M, T, V).add(0.1).requires_grad_()
    allowed = draw(*shape, seed=1).requires_grad_()
    assert gradcheck(lambda q, a: guidance_loss(q, a, reduction="none"), (focus, allowed))
    assert gradcheck(lambda q: guidance_loss(q, allowed.detach() > 0.5), (focus,))


def test_down_its_gradient_the_focus_moves_inside() -> None:
    focus = draw(N, M, T, V).add(0.1).requires_grad_()
    allowed = torch.zeros(N, V, dtype=torch.bool)
    allowed[:, :2] = True
    guidance_loss(focus, allowed).backward()
    assert focus.grad is not None
    assert (focus.grad[..., :2] < 0).all()
    assert (focus.grad[..., 2:] > 0).all()


def test_reductions() -> None:
    focus = draw(N, M, T, V)
    allowed = draw(N, V, seed=1)
    each = guidance_loss(focus, allowed, reduction="none")
    assert each.shape == (N,)
    torch.testing.assert_close(guidance_loss(focus, allowed, reduction="sum"), each.sum())
    torch.testing.assert_close(guidance_loss(focus, allowed), each.mean())


@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(1, 8),
    at_all_times=st.booleans(),
    scale=st.floats(1e-6, 1e6),
)
def test_a_share_of_the_focus(seed: int, frames: int, at_all_times: bool, scale: float) -> None:
    focus = draw(N, M, frames, V, seed=seed)
    allowed = draw(*((N, V) if at_all_times else (N, M, T, V)), seed=seed + 1) > 0.5
    share = guidance_loss(focus, allowed, reduction="none")
    assert ((share >= 0) & (share <= 1 + 1e-12)).all()
    torch.testing.assert_close(guidance_loss(scale * focus, allowed, reduction="none"), share)
    torch.testing.assert_close(guidance_loss(focus, ~allowed, reduction="none"), 1 - share)
    assert guidance_loss(focus, torch.ones_like(allowed), reduction="none").eq(0).all()
    torch.testing.assert_close(
        guidance_loss(focus, torch.zeros_like(allowed), reduction="none"),
        torch.ones(N, dtype=torch.float64),
    )


@given(seed=st.integers(0, 10**6))
def test_clips_and_joints_may_stand_in_any_order(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    clips = torch.randperm(N, generator=random)
    joints = torch.randperm(V, generator=random)
    focus = draw(N, M, T, V, seed=seed)
    allowed = draw(N, V, seed=seed + 1)
    each = guidance_loss(focus, allowed, reduction="none")
    again = guidance_loss(focus[clips][..., joints], allowed[clips][:, joints], reduction="none")
    torch.testing.assert_close(again, each[clips])


@pytest.mark.parametrize(
    ("focus", "allowed", "text"),
    [
        ((N, T, V), (N, V), r"expected focus \(N, M, T', V\), got \(3, 6, 5\)"),
        ((N, M, T, V), (N, V + 1), r"expected allowed \(N=3, V=5\), got \(3, 6\)"),
        ((N, M, T, V), (V, N), r"expected allowed \(N=3, V=5\), got \(5, 3\)"),
        ((N, M, T, V), (V,), r"expected allowed \(N=3, M=2, T, V=5\), got \(5,\)"),
        ((N, M, T, V), (N, T, V), r"expected allowed \(N=3, M=2, T, V=5\), got \(3, 6, 5\)"),
        ((N, M, T, V), (N, 1, T, V), r"expected allowed \(N=3, M=2, T, V=5\), got \(3, 1, 6, 5\)"),
    ],
)
def test_shapes_that_do_not_fit(
    focus: tuple[int, ...], allowed: tuple[int, ...], text: str
) -> None:
    with pytest.raises(ValueError, match="^guidance_loss: " + text):
        guidance_loss(torch.ones(focus), torch.ones(allowed))


def test_an_unknown_reduction() -> None:
    with pytest.raises(
        ValueError,
        match=r"^guidance_loss: expected reduction to be one of 'none', 'mean', 'sum', got",
    ):
        guidance_loss(torch.ones(N, M, T, V), torch.ones(N, V), reduction="avg")


# --------------------------------------------------------------------------------- tables of joints

CLASSES = ["drink", "walk", "kick"]


def body() -> SkeletonLayout:
    """Four joints; "hand" is a joint and a part of two, and one joint's name holds a space."""
    return SkeletonLayout.from_bones(
        [(0, 1), (1, 2), (2, 3)],
        name="arm",
        joints=["chest", "upper arm", "hand", "finger"],
        parts={"hand": [2, 3], "whole arm": [1, 2, 3], "trunk": [0]},
    )


def listed(row: Tensor) -> list[int]:
    return row.nonzero().flatten().tolist()


def test_a_table_of_joints_and_parts() -> None:
    allowed = allowed_joints(
        {"kick": ["right foot", "left_knee"], "drink": ["head", "right hand"]}, CLASSES, NTU25
    )
    assert allowed.shape == (3, 25)
    assert allowed.dtype == torch.bool
    assert listed(allowed[0]) == sorted({*NTU25.parts["head"], *NTU25.parts["right_hand"]})
    assert allowed[1].all()  # no entry
    assert listed(allowed[2]) == sorted({*NTU25.parts["right_foot"], NTU25.index("left_knee")})


def test_a_part_comes_before_a_joint_of_its_name() -> None:
    allowed = allowed_joints({"drink": ["hand"], "walk": ["finger"]}, CLASSES, body())
    assert listed(allowed[0]) == [2, 3]
    assert listed(allowed[1]) == [3]


@pytest.mark.parametrize("space", [" ", "_"])
def test_a_space_and_an_underscore_are_the_same(space: str) -> None:
    """In the table and in the layout, which may have either."""
    for layout, part, joints in (
        (NTU25, "right hand", NTU25.parts["right_hand"]),
        (body(), "whole arm", (1, 2, 3)),
    ):
        allowed = allowed_joints({"drink": [part.replace(" ", space)]}, CLASSES, layout)
        assert listed(allowed[0]) == sorted(joints)
    assert listed(allowed_joints({"walk": [f"upper{space}arm"]}, CLASSES, body())[1]) == [1]


def test_an_empty_table_allows_everything() -> None:
    assert allowed_joints({}, CLASSES, NTU25).all()
    assert allowed_joints({"walk": list(NTU25.joints)}, CLASSES, NTU25).all()


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (
            {"run": ["head"], "walk": ["head"]},
            r"a table of classes among \['drink', 'walk', 'kick'\], got \['run'\]$",
        ),
        ({"walk": "head"}, "a list of joints or parts for 'walk', got 'head'$"),
        ({"walk": []}, r"a list of joints or parts for 'walk', got \[\]$"),
        ({"walk": 3}, "a list of joints or parts for 'walk', got 3$"),
        ({"walk": None}, "a list of joints or parts for 'walk', got None$"),
        ({"walk": ["head", 3]}, r"a list of joints or parts for 'walk', got \['head', 3\]$"),
        ({"walk": {"head": 1}}, "a list of joints or parts for 'walk', got {'head': 1}$"),
        (
            {"walk": ["head", "third hand", "tail"]},
            r"joints or parts of layout 'NTU25' for 'walk', got \['third hand', 'tail'\]; "
            r"joints: spine_base, .*; parts: .*right_hand",
        ),
    ],
)
def test_a_table_that_does_not_fit(table: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="^allowed_joints: expected " + text):
        allowed_joints(table, CLASSES, NTU25)


@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        (torch.full((2, 25), 255, dtype=torch.uint8), r"allowed in \[0, 1\], .*, got 255.0 to 255"),
        (torch.full((2, 25), -1.0), r"allowed in \[0, 1\], .*, got -1.0 to -1.0"),
        (torch.full((2, 1, 4, 25), float("nan")), r"allowed in \[0, 1\], .*, got nan to nan"),
        ([[1] * 25] * 2, r"expected allowed \(N=2, M=1, T, V=25\) to be a tensor, got list"),
    ],
)
def test_masks_that_are_none(allowed: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        guidance_loss(torch.rand(2, 1, 4, 25), allowed)


def test_half_precision_is_summed_in_single() -> None:
    """75,000 ones are more than float16 can count to."""
    ones = torch.ones(1, 2, 1500, 25, dtype=torch.float16)
    assert guidance_loss(ones, torch.zeros(1, 25)).item() == 1


def test_no_clips_have_no_loss() -> None:
    none = torch.zeros(0, 1, 4, 25, requires_grad=True)
    loss = guidance_loss(none, torch.ones(0, 25))
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("table", [None, ["drink"]])
def test_a_table_that_is_none(table: Any) -> None:
    with pytest.raises(ValueError, match="allowed_joints: expected a table such as"):
        allowed_joints(table, ["drink"], NTU25)
