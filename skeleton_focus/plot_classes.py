"""Pictures of what networks get right, class by class: the gain of one run over another, and what is taken for what.

As in :mod:`skeleton_focus.plot`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._checks import message
from ._figure import BELOW, INK, MUTED, PANEL, SIDE, TRUTH, WIDTH, Array, Values, array, bare, inches, load_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW, NUMBERS = 0.165, 20  # inches of a bar; classes up to which the cells of a confusion matrix hold numbers


def plot_class_difference(
    labels: Values, runs: Mapping[str, Values], classes: Sequence[str], *, most: int | None = None,
    title: str | None = None,
) -> Figure:  # fmt: skip
    """Accuracy of the second run minus that of the first, class by class, in percentage points, the largest gain first.

    The grey band behind a bar is what one test clip is worth, 100 / n points to either side, and n stands at the right.
    Classes without clips are left out, and counted below.

    Shape:
        labels (N,), each of runs (N,) or (N, classes).

    Args:
        labels: the true classes, 0 to len(classes) - 1.
        runs: two, by name: predicted classes (N,), or probabilities or logits (N, classes).
        classes: names.
        most: show so many classes, those of the largest differences; by default all.
        title: stands above.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: shapes that do not fit, no clips, other than two runs, classes out of range, or most below 1.

    Example:
        >>> labels, runs = np.array([0, 0, 1, 1]), {"plain": np.array([0, 0, 0, 1]), "focus": np.array([0, 1, 1, 1])}
        >>> figure = plot_class_difference(labels, runs, ["wave", "clap"])
        >>> [float(bar.get_width()) for bar in figure.axes[0].containers[1]]
        [50.0, -50.0]

    Reference:
        STF (Ke et al., AAAI 2022), figure 3.
    """
    (mpl, _), who, c = load_matplotlib(), "plot_class_difference", len(classes)
    truth = _classes(who, "labels", labels, c)
    if len(runs) != 2:
        raise ValueError(message(who, "two runs", len(runs)))
    if most is not None and most < 1:
        raise ValueError(message(who, "most of at least 1", most))
    before, after = (_classes(who, f"run {name!r}", run, c, n=len(truth)) == truth for name, run in runs.items())
    clips = np.bincount(truth, minlength=c)
    gained = np.bincount(truth, after, c) - np.bincount(truth, before, c)  # clips
    there = np.flatnonzero(clips)
    points = 100 * gained[there] / clips[there]
    kept = np.sort(np.argsort(-abs(points), kind="stable")[:most])
    order = kept[np.argsort(-points[kept], kind="stable")]
    there, points = there[order], points[order]
    one = 100 / clips[there]

    names, left = _names([classes[label] for label in there.tolist()], 2.6)
    tall, head = ROW * len(there), 0.78 if title else 0.5
    figure: Figure = mpl.figure.Figure((WIDTH, tall + head + 0.62), dpi=200)
    ax = figure.add_axes(inches(figure, SIDE + left + 0.1, 0.62, WIDTH - 2 * SIDE - left - 0.65, tall))
    bound = max(abs(points).max(), float(np.median(one)))
    low, high = min(points.min(), -0.35 * bound), max(points.max(), 0.35 * bound)
    margin = 0.1 * (high - low)  # for the figures at the ends of the bars
    y = np.arange(len(there))
    ax.barh(y, 2 * one, left=-one, height=1, color="#e8ebef", linewidth=0)
    ax.barh(y, points, height=0.62, color=[TRUTH if point > 0 else BELOW for point in points])
    ax.axvline(0, color=MUTED, linewidth=0.8)
    for row, point in enumerate(points):
        side = -1 if point < 0 else 1
        told, near = "0" if point == 0 else f"{point:+.1f}", {-1: "right", 1: "left"}[side]
        ax.text(point + side * 0.08 * margin, row, told, ha=near, va="center_baseline", fontsize=8, color=INK)
        ax.text(1.06, row, str(clips[there[row]]), transform=ax.get_yaxis_transform(), ha="right",
                va="center_baseline", fontsize=8, color=MUTED)  # fmt: skip
    ax.text(1.06, -0.8, "clips", transform=ax.get_yaxis_transform(), ha="right", fontsize=8, color=MUTED)
    ax.set_yticks(y, names, parse_math=False)
    ax.set(xlim=(low - margin, high + margin), ylim=(len(there) - 0.5, -0.5))
    ax.set_xlabel("percentage points", fontsize=8, color=MUTED, labelpad=2)
    bare(ax)
    ax.tick_params(axis="y", labelcolor=INK)

    height, (first, second) = figure.get_figheight(), runs
    if title:
        figure.text(*inches(figure, SIDE, height - 0.24)[:2], title, fontsize=11, color=INK)
    told = (
        f"{second} {after.mean():.1%}, {first} {before.mean():.1%}: {100 * (after.mean() - before.mean()):+.1f} points"
    )
    figure.text(*inches(figure, SIDE, height - head + 0.22)[:2], told, fontsize=10, color=INK, parse_math=False)
    only_after, only_before = int((after & ~before).sum()), int((before & ~after).sum())
    told = f"of {len(truth)} clips {only_after} right only by {second}, {only_before} only by {first}; grey: one clip"
    empty, others = int((clips == 0).sum()), int((clips > 0).sum()) - len(there)
    told += f"; {others} classes of smaller differences not shown" * (others > 0)
    told += f"; classes without clips: {empty}" * (empty > 0)
    figure.text(*inches(figure, SIDE, 0.08)[:2], told, fontsize=8, color=MUTED, parse_math=False)
    return figure


def plot_confusion(
    labels: Values, predictions: Values, classes: Sequence[str], *, most: int = 60, title: str | None = None
) -> Figure:
    """The share of each class's clips, a row, that is taken for each class, a column; errors loud, the diagonal pale.

    Up to 20 classes the cells hold the share in per cent. Of more classes than ``most`` those of the most frequent
    errors are drawn; what they are taken for besides is summed in a last column.

    Shape:
        labels (N,), predictions (N,) or (N, classes).

    Args:
        labels: the true classes, 0 to len(classes) - 1.
        predictions: predicted classes (N,), or probabilities or logits (N, classes).
        classes: names.
        most: classes to draw, at most; more than 60 do not stay readable.
        title: stands above.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: shapes that do not fit, no clips, classes out of range, or most below 1.

    Example:
        >>> figure = plot_confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), ["wave", "clap"])
        >>> [text.get_text() for text in figure.axes[0].texts[:3]]
        ['50', '50', '100']
    """
    (mpl, colours), who, c = load_matplotlib(), "plot_confusion", len(classes)
    truth = _classes(who, "labels", labels, c)
    found = _classes(who, "predictions", predictions, c, n=len(truth))
    if most < 1:
        raise ValueError(message(who, "most of at least 1", most))
    counts = np.bincount(truth * c + found, minlength=c * c).reshape(c, c)
    shown = _confused(counts, most)
    share = counts[shown] / np.maximum(counts[shown].sum(1, keepdims=True), 1)
    rest = np.delete(share, shown, 1).sum(1)
    share = share[:, shown]
    if len(shown) < c:
        share = np.column_stack([share, rest])
    n, across = share.shape

    names, left = _names([classes[label] for label in shown], 1.85)
    cell = min((WIDTH - 2 * SIDE - left - 0.6) / across, 0.5)
    row, foot, head = min(max(cell, 0.125), 0.3), left + 0.5, 0.7 if title else 0.42
    figure: Figure = mpl.figure.Figure((WIDTH, n * row + foot + head), dpi=200)
    ax = figure.add_axes(inches(figure, SIDE + left + 0.1, foot, across * cell, n * row))
    right = np.eye(n, across, dtype=bool)
    top = max(share[~right].max(initial=0), 0.01)
    heat = mpl.colors.LinearSegmentedColormap.from_list("errors", colours(np.linspace(0.12, 1, 64)))
    pale = mpl.colors.LinearSegmentedColormap.from_list("right", ["white", colours(0.0)])
    for cells, shades, highest in ((right, pale, 1.0), (~right & (share > 0), heat, top)):
        image = ax.imshow(np.ma.masked_array(share, ~cells), cmap=shades, vmin=0, vmax=highest, aspect="auto",
                          interpolation="nearest")  # fmt: skip
    if across <= NUMBERS:
        for i, j in zip(*np.nonzero(share), strict=True):
            dark = not right[i, j] and np.dot(heat(share[i, j] / top)[:3], (0.2126, 0.7152, 0.0722)) < 0.45
            ax.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center_baseline", fontsize=8,
                    color="white" if dark else INK)  # fmt: skip
        ax.set_xticks(np.arange(across + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1)
    else:  # a grey print would not tell the pale diagonal from rare errors
        ax.plot([-0.5, n - 0.5], [-0.5, n - 0.5], color=MUTED, linewidth=0.8)
    ax.set_xticks(range(across), names + ["other classes"] * (across - n), rotation=90, parse_math=False)
    ax.set_yticks(range(n), names, parse_math=False)
    ax.set_facecolor(PANEL)
    bare(ax)
    ax.tick_params(which="both", length=0, labelcolor=INK)
    for place, told in [*enumerate(str(counts[label].sum()) for label in shown), (-1, "clips")]:
        ax.text(1 + 0.5 / (across * cell), place, told, transform=ax.get_yaxis_transform(), ha="right",
                va="center_baseline", fontsize=8, color=MUTED)  # fmt: skip

    height = figure.get_figheight()
    if title:
        figure.text(*inches(figure, SIDE, height - 0.24)[:2], title, fontsize=11, color=INK)
    bar = figure.add_axes(inches(figure, SIDE + left + 0.1, height - head + 0.2, 1.2, 0.1))
    figure.colorbar(image, cax=bar, orientation="horizontal", ticks=[]).outline.set_visible(False)
    told = f"errors, up to {top:.0%} of a class" if (share[~right] > 0).any() else "no errors"
    figure.text(*inches(figure, SIDE + left + 1.4, height - head + 0.21)[:2], told, fontsize=8, color=MUTED)
    told = "row: true class; column: what its clips are taken for" + ", in per cent" * (across <= NUMBERS)
    told += f"; the {n} of {c} classes with the most frequent errors" * (n < c)
    figure.text(*inches(figure, SIDE, 0.08)[:2], told, fontsize=8, color=MUTED)
    return figure


def _confused(counts: Array, most: int) -> list[int]:
    """The classes of the most frequent errors, in their own order: ``most`` of them."""
    c, errors = len(counts), counts * ~np.eye(len(counts), dtype=bool)
    by_errors = [int(k) for cell in np.argsort(-errors, axis=None, kind="stable") for k in divmod(int(cell), c)]
    return sorted(list(dict.fromkeys(by_errors))[:most])


def _classes(who: str, name: str, values: Values, c: int, n: int | None = None) -> Array:
    """Checked classes (N,), of classes or of scores (N, classes)."""
    size = "N" if n is None else f"N={n}"
    scores = n is not None and len(values.shape) == 2
    given = array(who, name, values, f"{size}, classes={c}" if scores else size)
    if len(given) == 0:
        raise ValueError(message(who, f"{name} of at least one clip", given.shape))
    found = given.argmax(1) if scores else given.astype(int)
    low, high = found.min(), found.max()
    if not low >= 0 or not high < c or (not scores and not (found == given).all()):
        raise ValueError(message(who, f"{name} in 0..{c - 1}", f"{given.min():g} to {given.max():g}"))
    return found


def _names(names: Sequence[str], widest: float) -> tuple[list[str], float]:
    """Names cut to ``widest`` inches, at 8 points, and the width of the widest of them."""
    (mpl, _), fitting, width = load_matplotlib(), [], 0.0
    font, measure = mpl.font_manager.FontProperties(size=8), mpl.textpath.text_to_path.get_text_width_height_descent

    def inches_of(name: str) -> float:
        return float(measure(name, font, ismath=False)[0]) / 72

    for name in names:
        cut = name
        if inches_of(name) > widest:
            fits = bisect_right(range(len(name)), widest, key=lambda end: inches_of(name[:end].rstrip() + "…"))
            cut = name[: fits - 1].rstrip() + "…"
        fitting.append(cut)
        width = max(width, inches_of(cut))
    return fitting, width
