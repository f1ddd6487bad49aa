"""Test adjacencies on the body: which entries are drawn, where, how, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from plot_tools import check_canvas, texts  # noqa: E402

from skeleton_focus import multi_scale_adjacency  # noqa: E402
from skeleton_focus.layouts import LAYOUTS, SkeletonLayout  # noqa: E402
from skeleton_focus.plot import BELOW, TRUTH, plot_adjacency  # noqa: E402

CHAIN = SkeletonLayout.from_bones([(0, 1), (1, 2), (2, 3)])
BODY = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 2.0], [4.0, 3.0]])


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_aspect() == 1]


def chords(ax: Axes) -> dict[str, list[Any]]:
    """Return the chords' places (25, 2) by sign, the weakest first.

    Their collections come after the skeleton's and the dots.
    """
    above = ax.collections[3]
    below = ax.collections[6]
    return {"above": list(above.get_segments()), "below": list(below.get_segments())}


def heads(ax: Axes) -> list[int]:
    return [len(ax.collections[i].get_paths()) for i in (4, 7)]


def rings(ax: Axes) -> list[list[list[float]]]:
    return [np.asarray(ax.collections[i].get_offsets()).tolist() for i in (5, 8)]


def entries(*given: tuple[int, int, float]) -> Tensor:
    matrix = torch.zeros(1, 4, 4)
    for a, b, value in given:
        matrix[0, a, b] = value
    return matrix


def draw(matrix: Tensor, body: Tensor = BODY, **options: Any) -> Axes:
    """The panel of one adjacency; y of the body points up unless stated."""
    options = {"invert_y": False, **options}
    return panels(plot_adjacency(body, {"A": matrix}, CHAIN, **options))[0]


def test_a_chord_leads_from_joint_to_joint_and_bends_to_its_left() -> None:
    ax = draw(entries((0, 1, 0.5), (3, 1, -1.0)))
    (above,), (below,) = chords(ax).values()
    assert above[0].tolist() == [1, 1] and above[-1].tolist() == [2, 1]
    assert below[0].tolist() == [4, 3] and below[-1].tolist() == [2, 1]
    assert above[12] == pytest.approx([1.5, 1.1])  # of a way to the right, left is up
    # Half of 0.2 of the way (-2, -2) turned left: (2, -2)
    assert below[12] == pytest.approx([3 + 0.2, 2 - 0.2])
    assert heads(ax) == [1, 1] and rings(ax) == [[], []]
    head = ax.collections[4].get_paths()[0].vertices[:3]
    assert head[0, 0] > head[1, 0] == pytest.approx(head[2, 0])  # its tip ahead


def test_signs_differ_in_colour_and_dashes_and_strength_in_width_and_darkness() -> None:
    ax = draw(entries((0, 1, 0.5), (1, 2, 0.25), (3, 0, -1.0)))
    above = ax.collections[3]
    below = ax.collections[6]
    # The stronger lies on top.
    assert [path[0].tolist() for path in above.get_segments()] == [[2, 1], [1, 1]]
    assert (np.diff(above.get_linewidths()) > 0).all()
    assert (np.diff(above.get_edgecolors()[:, 3]) > 0).all()
    assert (
        below.get_linewidths()[0] > above.get_linewidths()[-1] and below.get_edgecolors()[0, 3] == 1
    )
    assert tuple(above.get_edgecolors()[0, :3]) == to_rgb(TRUTH)
    assert tuple(below.get_edgecolors()[0, :3]) == to_rgb(BELOW)
    (_, solid) = above.get_linestyles()[0]
    (_, dashed) = below.get_linestyles()[0]
    assert solid is None and dashed is not None


def test_equal_entries_both_ways_are_one_chord_without_a_head() -> None:
    ax = draw(
        entries((0, 1, 0.5), (1, 0, 0.5), (1, 2, 0.4), (2, 1, 0.3), (2, 3, 0.2), (3, 2, -0.2))
    )
    assert [len(found) for found in chords(ax).values()] == [1 + 2 + 1, 1]
    assert heads(ax) == [3, 1]
    assert ax.get_xlabel() == "k = 0: all 6 entries"
    there = chords(ax)["above"][2]
    back = chords(ax)["above"][1]
    assert not np.allclose(there[12], back[12])  # 1 to 2 and 2 to 1 do not cover each other


def test_the_strongest_are_drawn_and_rings_as_strong_as_these() -> None:
    matrix = entries(
        (0, 1, 4.0), (0, 2, 3.0), (0, 3, -2.0), (1, 3, 1.0), (1, 1, 2.5), (2, 2, -5.0), (3, 3, 1.5)
    )
    ax = draw(matrix, chords=3)
    assert [len(found) for found in chords(ax).values()] == [2, 1]
    assert rings(ax) == [[[2, 1]], [[3, 2]]]
    assert ax.get_xlabel() == "k = 0: 5 of 7 entries"
    ax = draw(matrix, chords=4)
    assert ax.get_xlabel() == "k = 0: all 7 entries"  # the weakest chord is weaker than every ring
    ax = draw(matrix, chords=0)
    assert [len(found) for found in chords(ax).values()] == [0, 0] and [
        len(found) for found in rings(ax)
    ] == [2, 1]


def test_missing_joints_take_no_chords_and_do_not_count() -> None:
    body = BODY.clone()
    body[1] = 0
    ax = draw(entries((0, 1, 9.0), (1, 1, 9.0), (0, 2, 1.0), (3, 3, 1.0)), body, chords=1)
    assert [len(found) for found in chords(ax).values()] == [1, 0] and rings(ax) == [[[4, 3]], []]
    # The strongest of what can be drawn.
    assert ax.collections[3].get_linewidths()[0] == pytest.approx(2.6)
    assert ax.get_xlabel() == "k = 0: all 2 entries"


def test_rows_have_a_title_and_a_scale_of_their_own() -> None:
    rows = {
        "fixed": entries((0, 1, 0.5)),
        "learned": torch.cat([entries((0, 1, -0.02)), entries((2, 1, 0.01))]),
    }
    figure = plot_adjacency(BODY, rows, CHAIN, title="wave")
    headings = [ax for ax in figure.axes if ax not in panels(figure)]
    assert figure.texts[0].get_text() == "wave"
    assert [ax.get_title("left") for ax in headings] == ["fixed", "learned"]
    scales = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in headings]
    check_canvas(figure)
    assert scales == [["+0.5", "+0.25"], ["+0.02", "+0.01", "-0.02", "-0.01"]]
    first, second, third = panels(figure)
    assert (
        first.collections[3].get_linewidths()[0] == second.collections[6].get_linewidths()[0] == 2.6
    )
    assert third.collections[3].get_linewidths()[0] == pytest.approx(0.5 + 2.1 / 2)
    row = second.get_position().y0
    # matplotlib rounds.
    assert first.get_position().y0 > row == pytest.approx(third.get_position().y0, rel=0, abs=1e-15)
    assert second.get_position().x0 < third.get_position().x0
    assert first.get_xlim() == second.get_xlim() == third.get_xlim()


@pytest.mark.parametrize("layout", list(LAYOUTS.values()), ids=lambda layout: layout.name)
@pytest.mark.parametrize("k", [1, 3, 13])
def test_every_layout_and_number_of_subsets(layout: SkeletonLayout, k: int) -> None:
    v = layout.num_joints
    random = np.random.default_rng(0)
    rows = {
        "A": multi_scale_adjacency(layout, k),
        "G": random.standard_normal((k, v, v)).astype(np.float32),
    }
    figure = plot_adjacency(random.random((v, 3)), rows, layout)
    drawn = panels(figure)
    assert len(drawn) == 2 * k and figure.get_figwidth() == 9
    assert {sum(len(found) for found in chords(ax).values()) for ax in drawn[k:]} == {30}
    bones = {bone for pair in layout.bones for bone in (pair, pair[::-1])}
    if k > 1:  # the subset of the neighbours: the bones, and a ring a joint
        whole = panels(plot_adjacency(random.random((v, 3)), rows, layout, chords=40))[1]
        assert sum(len(found) for found in chords(whole).values()) == len(bones) / 2
        assert len(rings(whole)[0]) == v
    tops = sorted({round(ax.get_position().y0, 6) for ax in drawn})
    assert len(tops) == (4 if k == 13 else 2)
    check_canvas(figure)


def test_zero_equal_and_one_subset(tmp_path: Path) -> None:
    rows = {"zero": torch.zeros(2, 4, 4), "equal": torch.ones(4, 4)}
    figure = plot_adjacency(BODY, rows, CHAIN, invert_y=True)
    assert [ax.get_xlabel() for ax in panels(figure)] == [
        "k = 0: all 0 entries",
        "k = 1: all 0 entries",
        "k = 0: all 16 entries",
    ]
    assert "zero throughout" in texts(figure)
    check_canvas(figure)
    assert [len(found) for found in chords(panels(figure)[2]).values()] == [6, 0]
    figure.savefig(tmp_path / "edges.png")
    body = torch.ones(4, 3)  # all joints at one place
    plot_adjacency(body, {"A": torch.rand(1, 4, 4)}, CHAIN).savefig(tmp_path / "point.png")


def test_image_coordinates_stand_upright_and_inputs_stay() -> None:
    body = BODY.double()
    before = dict(matplotlib.rcParams)
    up, down = (draw(entries((0, 3, 1.0)), body, invert_y=flip) for flip in (False, True))
    assert chords(up)["above"][0][-1].tolist() == [4, 3]
    assert chords(down)["above"][0][-1].tolist() == [4, -3]
    assert torch.equal(body, BODY.double()) and dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"body": torch.rand(5, 2)}, r"expected body \(V=4, C\), got \(5, 2\)"),
        (
            {"body": torch.rand(4, 1)},
            r"expected body \(V, C\), C of at least 2, with joints, got \(4, 1\)",
        ),
        (
            {"body": torch.zeros(4, 3)},
            r"expected body \(V, C\), C of at least 2, with joints, got \(4, 3\)",
        ),
        ({"rows": {}}, "expected at least one row, got none"),
        (
            {"rows": {"A": torch.rand(3, 4, 5)}},
            r"expected row 'A' \(K, V=4, V=4\), got \(3, 4, 5\)",
        ),
        (
            {"rows": {"A": torch.rand(2, 3, 4, 4)}},
            r"expected row 'A' \(K, V=4, V=4\), got \(2, 3, 4, 4\)",
        ),
        (
            {"rows": {"A": torch.rand(0, 4, 4)}},
            r"expected row 'A' to hold at least one subset, got \(0, 4, 4\)",
        ),
        (
            {"rows": {"A": torch.full((1, 4, 4), torch.nan)}},
            "expected row 'A' to be finite, got NaN or infinity",
        ),
        ({"chords": -1}, "expected chords of at least 0, got -1"),
    ],
)
def test_refusals(change: dict[str, Any], error: str) -> None:
    given = {"body": BODY, "rows": {"A": torch.rand(3, 4, 4)}, "layout": CHAIN, **change}
    with pytest.raises(ValueError, match=f"^plot_adjacency: {error}$"):
        plot_adjacency(**given)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ImportError, match=r"^plot: expected matplotlib, got none; pip install matplotlib pillow$"
    ):
        draw(entries((0, 1, 1.0)))
