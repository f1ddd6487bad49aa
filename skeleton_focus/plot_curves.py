"""Pictures of curves over the share of a clip's entries, as deletion and insertion give them.

As in :mod:`skeleton_focus.plot`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ._checks import check_choice, message
from ._figure import BELOW, INK, MUTED, PANEL, SIDE, TRUTH, WIDTH, Values, array, bare, inches, load_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Lightness, dashes and colour all differ.
STYLES = (
    (TRUTH, "solid"), (BELOW, (0, (5, 1.5))), (INK, (0, (1, 1.2))), ("#009e73", (0, (5, 1.5, 1, 1.5))),
    ("#cc79a7", (0, (9, 2))), ("#8c6d00", (0, (3, 1.5, 1, 1.5, 1, 1.5))),
)  # fmt: skip


def plot_curves(
    curves: Mapping[str, Values], *, spread: str = "standard error", xlabel: str = "share of entries",
    ylabel: str = "probability of the class", title: str | None = None,
) -> Figure:  # fmt: skip
    """The mean of each set of curves over the clips, with its spread, and the area under the mean.

    Shape:
        each of curves (N, S + 1), at shares 0, 1/S, ..., 1.

    Args:
        curves: by name, six at most.
        spread: the band: ``"standard error"`` of the mean, to both sides, or ``"quartiles"``, the middle half of the
            clips; of one clip there is none.
        xlabel: what the share is of.
        ylabel: what the curves tell.
        title: stands above.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: shapes that do not fit, no curves or more than six, or another spread.

    Example:
        >>> figure = plot_curves({"focus": np.array([[1.0, 0.2, 0.0], [0.8, 0.2, 0.0]])})
        >>> figure.axes[0].get_lines()[0].get_ydata()
        array([0.9, 0.2, 0. ])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['focus, area 0.325']

    Reference:
        RISE (Petsiuk et al., BMVC 2018), section 4.1.
    """
    (mpl, _), who = load_matplotlib(), "plot_curves"
    if not 1 <= len(curves) <= len(STYLES):
        raise ValueError(message(who, f"1 to {len(STYLES)} sets of curves", len(curves)))
    check_choice(who, "spread", spread, ["standard error", "quartiles"])
    head = 0.42 if title else 0.15
    figure: Figure = mpl.figure.Figure((WIDTH, 3.6 + head), dpi=200)
    ax = figure.add_axes(inches(figure, SIDE + 0.55, 0.72, 5.6, 2.88))
    clips, lines = [], []
    for (name, values), (colour, dashes) in zip(curves.items(), STYLES, strict=False):
        y = array(who, f"curves {name!r}", values, "N, S")
        if y.shape[0] < 1 or y.shape[1] < 2:
            raise ValueError(message(who, f"curves {name!r} (N, S + 1), N and S of at least 1", y.shape))
        x, mean = np.linspace(0, 1, y.shape[1]), y.mean(0)
        clips.append(len(y))
        if len(y) > 1:
            error = y.std(0, ddof=1) / np.sqrt(len(y))
            low, high = np.quantile(y, [0.25, 0.75], axis=0) if spread == "quartiles" else (mean - error, mean + error)
            ax.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        area = ((mean[1:] + mean[:-1]) / 2).mean()
        told = textwrap.fill(f"{name}, area {area:.3f}", 30)
        lines += ax.plot(x, mean, color=colour, linestyle=dashes, linewidth=1.8, label=told)
    ax.set(xlim=(0, 1), facecolor=PANEL)
    ax.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, symbol=" %"))
    ax.set_xlabel(xlabel, fontsize=9, color=MUTED)
    ax.set_ylabel(ylabel, fontsize=9, color=MUTED)
    ax.grid(color="white", linewidth=1)
    ax.set_axisbelow(True)
    bare(ax)
    figure.legend(handles=lines, loc="upper left", bbox_to_anchor=inches(figure, 6.4, 3.65)[:2], frameon=False,
                  fontsize=9, labelcolor=INK, handlelength=3.2, borderpad=0)  # fmt: skip
    if title:
        figure.text(*inches(figure, SIDE, 3.78)[:2], title, fontsize=11, color=INK)
    of = f"{clips[0]} clips" if len(set(clips)) == 1 else f"{', '.join(map(str, clips))} clips"
    band = {"quartiles": "the middle half of the clips", "standard error": "standard error of the mean"}[spread]
    told = f"line: mean of {of}; band: {band}" if max(clips) > 1 else "line: one clip"
    figure.text(*inches(figure, SIDE, 0.08)[:2], told, fontsize=8, color=MUTED)
    return figure
