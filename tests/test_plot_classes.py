"""Pictures of runs, class by class: what is drawn, in what order, and what is refused."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from plot_tools import check_canvas, needs_new_text, texts  # noqa: E402

from skeleton_focus.plot import BELOW, TRUTH  # noqa: E402
from skeleton_focus.plot_runs import plot_class_difference, plot_confusion  # noqa: E402

NAMES = ["wave", "clap", "kick", "sit", "never"]
LABELS = np.array([0] * 4 + [1] * 2 + [2] * 5 + [3])
FIRST = np.array([0, 0, 0, 1] + [1, 0] + [0, 0, 0, 2, 2] + [3])
SECOND = np.array([0, 0, 1, 1] + [1, 4] + [2, 2, 0, 2, 2] + [3])  # wave 75 to 50 %, kick 40 to 80 %


def rows(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def bars(ax: Axes, which: int = 1) -> list[Any]:
    """0: what one clip is worth, 1: the differences."""
    return list(ax.containers[which])


def difference(**options: Any) -> Figure:
    return plot_class_difference(LABELS, {"plain": FIRST, "focus": SECOND}, NAMES, **options)


def test_bars_are_sorted_and_in_points() -> None:
    figure = difference(title="NTU")
    (ax,) = figure.axes
    # Equal ones in their own order; without clips: left out.
    assert rows(ax) == ["kick", "clap", "sit", "wave"]
    assert [bar.get_width() for bar in bars(ax)] == pytest.approx([40, 0, 0, -25])
    assert [bar.get_y() + bar.get_height() / 2 for bar in bars(ax)] == pytest.approx([0, 1, 2, 3])
    low, high = ax.get_ylim()
    assert low > high  # the first on top
    assert to_rgb(bars(ax)[0].get_facecolor()) == to_rgb(TRUTH) and to_rgb(
        bars(ax)[3].get_facecolor()
    ) == to_rgb(BELOW)
    assert [text.get_text() for text in ax.texts] == [
        "+40.0",
        "0",
        "0",
        "-25.0",
        "5",
        "2",
        "1",
        "4",
        "clips",
    ]
    left, right = (
        next(text for text in ax.texts if text.get_text() == value) for value in ("-25.0", "+40.0")
    )
    check_canvas(figure)
    first, *_, last = bars(ax)
    assert left.get_window_extent().x1 < last.get_window_extent().x0
    assert right.get_window_extent().x0 > first.get_window_extent().x1
    assert ax.get_title("left") == "focus 66.7%, plain 58.3%: +8.3 points"
    assert [text.get_text() for text in figure.texts] == [
        "NTU",
        "of 12 clips 2 right only by focus, 1 only by plain; grey: one clip; "
        "classes without clips: 1",
    ]


def test_the_band_is_what_one_clip_is_worth() -> None:
    (ax,) = difference().axes
    assert [bar.get_width() / 2 for bar in bars(ax, 0)] == pytest.approx([20, 50, 100, 25])
    assert [bar.get_x() for bar in bars(ax, 0)] == pytest.approx([-20, -50, -100, -25])
    low, high = ax.get_xlim()
    assert -100 < low < -25 and 40 < high < 100  # a class of one clip does not stretch the axis


def test_most_shows_the_largest_to_either_side() -> None:
    figure = difference(most=2)
    assert rows(figure.axes[0]) == ["kick", "wave"]
    note = figure.texts[-1].get_text().replace("\n", " ")
    assert "; 2 classes of smaller differences not shown; classes without clips: 1" in note
    assert rows(difference(most=99).axes[0]) == ["kick", "clap", "sit", "wave"]


def test_probabilities_and_classes_draw_the_same() -> None:
    scores = torch.from_numpy(np.eye(5)[SECOND]).float()
    both = {"plain": torch.from_numpy(FIRST), "focus": 0.2 + scores}
    (ax,) = plot_class_difference(torch.from_numpy(LABELS), both, NAMES).axes
    assert [bar.get_width() for bar in bars(ax)] == [
        bar.get_width() for bar in bars(difference().axes[0])
    ]


@needs_new_text
@pytest.mark.parametrize("draws", ["difference", "confusion"])
@pytest.mark.parametrize("c", [1, 10, 18, 60, 120])
def test_names_fit_and_do_not_overlap(c: int, draws: str) -> None:
    random = np.random.default_rng(c)
    labels = np.concatenate([np.arange(c), random.integers(0, c, 9 * c)])
    first, second = (
        np.where(random.random(len(labels)) < 0.8, labels, random.integers(0, c, len(labels)))
        for _ in range(2)
    )
    names = [
        f"{'take something long out of a very large bag'[: 5 + 3 * (i % 14)]} {i}" for i in range(c)
    ]
    if draws == "difference":
        figure = plot_class_difference(labels, {"a": first, "b": second}, names)
    else:
        figure = plot_confusion(labels, second, names)
    assert figure.get_figwidth() == 9
    ax = figure.axes[0]
    page = figure.bbox
    check_canvas(figure)
    for ticks, low, high in (
        (ax.get_yticklabels(), "y0", "y1"),
        (ax.get_xticklabels(), "x0", "x1"),
    ):
        if draws == "difference" and low == "x0":
            continue
        boxes = sorted(
            (label.get_window_extent() for label in ticks), key=lambda box: getattr(box, low)
        )
        pitch = [
            getattr(b, low) + getattr(b, high) - getattr(a, low) - getattr(a, high)
            for a, b in pairwise(boxes)
        ]
        # The height of letters of 8 points.
        assert all(step / 2 > 0.1 * figure.dpi for step in pitch)
    assert all(
        label.get_fontsize() >= 8
        for label in [*ax.get_yticklabels(), *ax.get_xticklabels(), *ax.texts]
    )
    widest = 2.6 if draws == "difference" else 1.85  # inches
    assert all(
        label.get_window_extent().width < (widest + 0.02) * figure.dpi
        for label in ax.get_yticklabels()
    )
    assert (
        ax.get_window_extent().width
        > (0.5 if c > 12 or draws == "difference" else 0.03) * page.width
    )
    assert any("…" in name for name in rows(ax)) or c < 18
    assert len(rows(ax)) == min(c, 120 if draws == "difference" else 60)


def test_names_are_no_formulas(tmp_path: Path) -> None:
    names = ["$x", "a $\\bad$ _c^", " ", "", "e_f"]
    runs = {"$1": FIRST, "$\\bad$": SECOND}
    plot_class_difference(LABELS, runs, names).savefig(tmp_path / "difference.png")
    figure = plot_confusion(LABELS, SECOND, names)
    figure.savefig(tmp_path / "confusion.png")
    assert rows(figure.axes[0]) == names


def test_all_equal_and_one_class(tmp_path: Path) -> None:
    same = plot_class_difference(LABELS, {"a": FIRST, "b": FIRST.copy()}, NAMES)
    assert [bar.get_width() for bar in bars(same.axes[0])] == [0, 0, 0, 0]
    low, high = same.axes[0].get_xlim()
    assert -20 < low < 0 < high < 20  # half of the classes' clips are worth less than 37.5 points
    same.savefig(tmp_path / "same.png")
    one = plot_class_difference(np.zeros(1), {"a": np.zeros(1), "b": np.zeros((1, 1))}, ["wave"])
    assert rows(one.axes[0]) == ["wave"]
    one.savefig(tmp_path / "one.png")


def shown(figure: Figure) -> np.ndarray[Any, Any]:
    """The diagonal and the errors drawn, zero elsewhere."""
    diagonal, errors = (image.get_array().filled(0) for image in figure.axes[0].images)
    assert not (diagonal * errors).any()
    return diagonal + errors


def test_confusion_is_the_share_of_each_row() -> None:
    figure = plot_confusion(LABELS, SECOND, NAMES, title="STF")
    expected = np.zeros((5, 5))
    for label, found in zip(LABELS, SECOND, strict=True):
        expected[label, found] += 1 / (label == LABELS).sum()
    np.testing.assert_allclose(shown(figure), expected)
    ax = figure.axes[0]
    assert rows(ax) == NAMES == [label.get_text() for label in ax.get_xticklabels()]
    cells = {text.get_position(): text.get_text() for text in ax.texts[:7]}
    assert cells == {
        (0, 0): "50",
        (1, 0): "50",
        (1, 1): "50",
        (4, 1): "50",
        (0, 2): "20",
        (2, 2): "80",
        (3, 3): "100",
    }
    assert [text.get_text() for text in ax.texts[7:]] == ["4", "2", "5", "1", "0", "clips"]
    assert [text.get_text() for text in figure.texts] == [
        "STF",
        "row: true class; column: what its clips are taken for, in per cent",
    ]
    assert "errors, up to 50% of a class" in texts(figure)


def test_the_diagonal_is_pale_and_errors_are_dark() -> None:
    figure = plot_confusion(LABELS, SECOND, NAMES)
    diagonal, errors = figure.axes[0].images
    grey = [0.2126, 0.7152, 0.0722]
    lightness = {
        image: image.cmap(np.linspace(0, 1, 50))[:, :3] @ grey for image in (diagonal, errors)
    }
    assert lightness[diagonal].min() > 0.8 and lightness[errors].max() < lightness[diagonal].min()
    assert (np.diff(lightness[errors]) < 0).all() and lightness[errors][-1] < 0.2
    assert diagonal.get_clim() == (0, 1) and errors.get_clim() == (0, 0.5)
    for text in figure.axes[0].texts[:7]:
        column, row = text.get_position()
        image = diagonal if row == column else errors
        cell = np.array(image.to_rgba(float(image.get_array()[row, column]))[:3])
        ink, light = (
            (np.array(to_rgb(colour)) ** 2.2 @ grey) + 0.05 for colour in (text.get_color(), cell)
        )
        assert max(ink, light) / min(ink, light) > 3  # large enough a contrast to read by


def test_the_most_confused_classes_and_the_rest_in_a_column() -> None:
    # Kick for wave 3 times is the most frequent error.
    figure = plot_confusion(LABELS, FIRST, NAMES, most=2)
    ax = figure.axes[0]
    assert rows(ax) == ["wave", "kick"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["wave", "kick", "other classes"]
    np.testing.assert_allclose(shown(figure), [[0.75, 0, 0.25], [0.6, 0.4, 0]])
    assert [text.get_text() for text in ax.texts[-3:]] == ["4", "5", "clips"]
    assert "the 2 of 5 classes with the most frequent errors" in figure.texts[-1].get_text()
    np.testing.assert_allclose(shown(plot_confusion(LABELS, FIRST, NAMES, most=1)).sum(1), 1)
    assert rows(
        plot_confusion(np.array([0, 1, 3, 4, 4]), np.array([0, 3, 3, 3, 3]), NAMES, most=2).axes[0]
    ) == [
        "sit",
        "never",
    ]


def test_confusion_without_errors_and_without_numbers(tmp_path: Path) -> None:
    for c in (1, 21):
        figure = plot_confusion(np.arange(c), np.eye(c), [str(i) for i in range(c)])
        assert "no errors" in texts(figure)
        assert [text.get_text() for text in figure.axes[0].texts].count("100") == (c == 1)
        assert len(figure.axes[0].get_lines()) == (c == 21) and figure.axes[0].get_xlim() == (
            -0.5,
            c - 0.5,
        )
        figure.savefig(tmp_path / "right.png")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"labels": LABELS - 1}, r"expected labels in 0\.\.4, got -1 to 2"),
        ({"labels": LABELS + 0.5}, r"expected labels in 0\.\.4, got 0\.5 to 3\.5"),
        ({"labels": np.zeros(0)}, r"expected labels of at least one clip, got \(0,\)"),
        ({"labels": np.eye(5)[LABELS]}, r"expected labels \(N\), got \(12, 5\)"),
        ({"found": SECOND[:5]}, r"expected {} \(N=12\), got \(5,\)"),
        ({"found": np.zeros((12, 4))}, r"expected {} \(N=12, classes=5\), got \(12, 4\)"),
        ({"found": np.full(12, 5)}, r"expected {} in 0\.\.4, got 5 to 5"),
        ({"found": np.full((12, 5), np.nan)}, "expected {} to be finite, got NaN or infinity"),
        ({"most": 0}, "expected most of at least 1, got 0"),
    ],
)
def test_refusals(change: dict[str, Any], error: str) -> None:
    given = {"labels": LABELS, "found": SECOND, **change}
    labels = given.pop("labels")
    found = given.pop("found")
    with pytest.raises(ValueError, match=f"^plot_confusion: {error.format('predictions')}$"):
        plot_confusion(labels, found, NAMES, **given)
    with pytest.raises(
        ValueError, match="^plot_class_difference: " + error.format("run 'focus'") + "$"
    ):
        plot_class_difference(labels, {"focus": found, "plain": found}, NAMES, **given)


def test_runs_are_two() -> None:
    with pytest.raises(ValueError, match=r"^plot_class_difference: expected two runs, got 3$"):
        plot_class_difference(LABELS, dict.fromkeys("abc", FIRST), NAMES)


def test_no_global_state_and_no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(matplotlib.rcParams)
    difference()
    plot_confusion(LABELS, SECOND, NAMES)
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (difference, lambda: plot_confusion(LABELS, SECOND, NAMES)):
        with pytest.raises(
            ImportError,
            match=r"^plot: expected matplotlib, got none; pip install matplotlib pillow$",
        ):
            call()
