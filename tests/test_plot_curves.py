"""Pictures of curves: the mean, its spread, the area, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.figure import Figure  # noqa: E402
from plot_tools import check_canvas  # noqa: E402

from skeleton_focus.plot_runs import plot_curves  # noqa: E402

CURVES = np.array([[1.0, 0.5, 0.0], [0.8, 0.3, 0.0], [0.9, 0.1, 0.0], [0.9, 0.1, 0.4]])


def band(figure: Figure, which: int = 0) -> np.ndarray[Any, Any]:
    """The lower and the upper edge of a band at each share, (S + 1, 2)."""
    corners = figure.axes[0].collections[which].get_paths()[0].vertices
    return np.array(
        [
            [corners[corners[:, 0] == x, 1].min(), corners[corners[:, 0] == x, 1].max()]
            for x in (0, 0.5, 1)
        ]
    )


def test_mean_area_and_standard_error() -> None:
    figure = plot_curves(
        {"focus": CURVES, "chance": torch.ones(2, 5)}, title="Deletion", xlabel="share deleted"
    )
    (ax,) = figure.axes
    focus, chance = ax.get_lines()
    np.testing.assert_allclose(focus.get_xydata(), [[0, 0.9], [0.5, 0.25], [1, 0.1]])
    np.testing.assert_allclose(
        chance.get_xydata(), [[0, 1], [0.25, 1], [0.5, 1], [0.75, 1], [1, 1]]
    )
    mean = CURVES.mean(0)
    error = np.sqrt(((CURVES - mean) ** 2).sum(0) / 3) / 2
    np.testing.assert_allclose(band(figure), np.stack([mean - error, mean + error], 1), atol=1e-12)
    np.testing.assert_allclose(band(figure, 1), 1)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "focus, area 0.375",
        "chance, area 1.000",
    ]
    assert ax.get_xlabel() == "share deleted" and ax.get_ylabel() == "probability of the class"
    assert [text.get_text() for text in figure.texts] == [
        "Deletion",
        "line: mean of 4, 2 clips; band: standard error of the mean",
    ]


def test_quartiles_are_the_middle_half() -> None:
    figure = plot_curves({"focus": CURVES}, spread="quartiles")
    np.testing.assert_allclose(band(figure), [[0.875, 0.925], [0.1, 0.35], [0, 0.1]])
    assert (
        figure.texts[-1].get_text() == "line: mean of 4 clips; band: the middle half of the clips"
    )


def test_styles_differ_in_more_than_colour(tmp_path: Path) -> None:
    figure = plot_curves({f"a rather long name of curve number {i}": CURVES + i for i in range(6)})
    lines = figure.axes[0].get_lines()
    assert len({line.get_color() for line in lines}) == 6
    assert len({str(line._dash_pattern) for line in lines}) == 6
    figure.savefig(tmp_path / "curves.png")
    check_canvas(figure)
    legend = figure.legends[0].get_window_extent()
    axes = figure.axes[0].get_window_extent()
    assert legend.x0 > axes.x1 and legend.x1 <= figure.bbox.x1
    assert figure.get_figwidth() == 9


def test_one_clip_has_no_band() -> None:
    figure = plot_curves({"focus": CURVES[:1]})
    assert not figure.axes[0].collections and figure.texts[-1].get_text() == "line: one clip"


@pytest.mark.parametrize(
    ("curves", "options", "error"),
    [
        ({}, {}, "expected 1 to 6 sets of curves, got 0"),
        (dict.fromkeys("abcdefg", CURVES), {}, "expected 1 to 6 sets of curves, got 7"),
        ({"a": CURVES[0]}, {}, r"expected curves 'a' \(N, S\), got \(3,\)"),
        (
            {"a": CURVES[:0]},
            {},
            r"expected curves 'a' \(N, S \+ 1\), N and S of at least 1, got \(0, 3\)",
        ),
        (
            {"a": CURVES[:, :1]},
            {},
            r"expected curves 'a' \(N, S \+ 1\), N and S of at least 1, got \(4, 1\)",
        ),
        ({"a": CURVES * np.nan}, {}, "expected curves 'a' to be finite, got NaN or infinity"),
        (
            {"a": CURVES},
            {"spread": "range"},
            "expected spread to be one of 'standard error', 'quartiles', got 'range'",
        ),
    ],
)
def test_refusals(curves: Any, options: dict[str, str], error: str) -> None:
    with pytest.raises(ValueError, match=f"^plot_curves: {error}$"):
        plot_curves(curves, **options)


def test_no_global_state_and_no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(matplotlib.rcParams)
    plot_curves({"a": CURVES})
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ImportError, match=r"^plot: expected matplotlib, got none; pip install matplotlib pillow$"
    ):
        plot_curves({"a": CURVES})
