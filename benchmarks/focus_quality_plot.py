"""The picture of benchmarks/focus_quality.py."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from focus_measures import MEASURES

from skeleton_focus._figure import BELOW, INK, MUTED, PANEL, SIDE, TRUTH, WIDTH, bare, inches, load_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = ("top1", "coverage", "distance", "coherence", "embedding", "masked", "precision", "found")
ROW, HEAD, FOOT = 0.16, 0.3, 0.3  # inches of a row, above and below a panel


def draw(found: Mapping[str, list[dict[str, float]]], plain: Collection[str], joint: Collection[str]) -> Figure:
    """Each measure in a panel of its own: a dot for every seed of every row, a line at their mean."""
    mpl, _ = load_matplotlib()
    names = [name for name in DRAWN if name in found["base"][0]]
    tall, left = ROW * len(found), 1.9
    down = 2
    across = math.ceil(len(names) / down)
    wide = (WIDTH - left - SIDE) / across
    figure: Figure = mpl.figure.Figure((WIDTH, down * (tall + HEAD + FOOT) + 0.25), dpi=200)
    for panel, name in enumerate(names):
        column, bottom = panel % across, (down - 1 - panel // across) * (tall + HEAD + FOOT) + 0.25 + FOOT
        ax = figure.add_axes(inches(figure, left + column * wide, bottom, wide - 0.15, tall))
        for y, (row, of_seeds) in enumerate(found.items()):
            values = [one[name] for one in of_seeds if name in one]
            colour = INK if row in plain else BELOW if row in joint else TRUTH
            ax.plot(values, [y] * len(values), "o", color=colour, markersize=3.5, alpha=0.55, markeredgewidth=0)
            if values:
                ax.plot([sum(values) / len(values)] * 2, [y - 0.4, y + 0.4], color=colour, linewidth=1.6)
        ax.set(ylim=(len(found) - 0.5, -0.5), facecolor=PANEL)
        ax.set_yticks(range(len(found)), found if column == 0 else [""] * len(found))
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3, prune="both"))
        ax.grid(color="white", linewidth=1)
        ax.set_axisbelow(True)
        bare(ax)
        ax.tick_params(axis="y", labelcolor=INK, labelsize=7.5)
        ax.set_title(MEASURES[name][0], fontsize=9, color=INK, loc="left", pad=4)
    seeds = len(found["base"])
    what = "dark: plain; blue: some of the terms, or M5; orange: all terms in one run"
    told = f"a dot: one of {seeds} seeds; line: their mean; {what}"
    figure.text(*inches(figure, SIDE, 0.08)[:2], told, fontsize=8, color=MUTED)
    return figure
