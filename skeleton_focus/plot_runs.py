"""Pictures of runs: accuracy by class, confusion matrices, deletion and insertion curves.

See :mod:`skeleton_focus.plot` for what the functions need and return.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._checks import check_choice, message
from .plot import (
    BELOW,
    INK,
    MUTED,
    PANEL,
    SMALL,
    TRUTH,
    Array,
    Look,
    Values,
    array,
    bare,
    focus_colours,
    load_matplotlib,
    measure,
    new_figure,
    set_height,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_class_difference", "plot_confusion", "plot_curves"]

NUMBERED = 20  # largest confusion matrix with numbers in its cells

# Curves differ in lightness, dashes and colour.
STYLES: dict[str, Any] = {
    TRUTH: "solid",
    BELOW: (0, (5, 1.5)),
    INK: (0, (1, 1.2)),
    "#009e73": (0, (5, 1.5, 1, 1.5)),
    "#cc79a7": (0, (9, 2)),
    "#8c6d00": (0, (3, 1.5, 1, 1.5, 1, 1.5)),
}


def plot_class_difference(
    labels: Values,
    runs: Mapping[str, Values],
    classes: Sequence[str],
    *,
    most: int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the gain in accuracy of a second run over a first one for each class.

    The gain is in percentage points, and classes are sorted by it. The grey band behind a bar shows
    what one test clip is worth, 100 / n points to either side; n stands at the right. Classes
    without clips are left out and counted below.

    Shape:
        labels (N,), each of runs (N,) or (N, classes).

    Args:
        labels: true classes, 0 to len(classes) - 1.
        runs: two runs by name: predicted classes (N,), or probabilities or logits (N, classes).
        classes: names of the classes.
        most: number of classes to show, those with the largest differences; default all.
        title: title of the figure.

    Raises:
        ValueError: a shape is wrong, there are no clips, the number of runs is not two, a class is
            out of range, or ``most`` is below 1.

    Example:
        >>> runs = {"plain": np.array([0, 0, 0, 1]), "focus": np.array([0, 1, 1, 1])}
        >>> figure = plot_class_difference(np.array([0, 0, 1, 1]), runs, ["wave", "clap"])
        >>> [float(bar.get_width()) for bar in figure.axes[0].containers[1]]
        [50.0, -50.0]

    Reference:
        STF (Ke et al., AAAI 2022), figure 3.
    """
    who = "plot_class_difference"
    c = len(classes)
    truth = _check_classes(who, "labels", labels, c)
    if len(runs) != 2:
        raise ValueError(message(who, "two runs", len(runs)))
    if most is not None and most < 1:
        raise ValueError(message(who, "most of at least 1", most))
    first, second = runs
    before = _check_classes(who, f"run {first!r}", runs[first], c, n=len(truth)) == truth
    after = _check_classes(who, f"run {second!r}", runs[second], c, n=len(truth)) == truth

    clips = np.bincount(truth, minlength=c)
    # Weighted counts: the clips of each class that a run gets right.
    gained = np.bincount(truth, after, c) - np.bincount(truth, before, c)
    points = 100 * gained / np.maximum(clips, 1)
    tested = np.flatnonzero(clips)
    # The largest differences, in the order of the classes, and then by their gain.
    largest = np.sort(tested[np.argsort(-abs(points[tested]), kind="stable")[:most]])
    shown = largest[np.argsort(-points[largest], kind="stable")]
    clips = clips[shown]
    points = points[shown]
    one_clip = 100 / clips

    right_after = int((after & ~before).sum())
    right_before = int((before & ~after).sum())
    note = f"of {len(truth)} clips {right_after} right only by {second}, "
    note += f"{right_before} only by {first}; grey: one clip"
    if len(shown) < len(tested):
        note += f"; {len(tested) - len(shown)} classes of smaller differences not shown"
    if len(tested) < c:
        note += f"; classes without clips: {c - len(tested)}"
    accuracy = f"{second} {after.mean():.1%}, {first} {before.mean():.1%}"
    gain = f"{100 * (after.mean() - before.mean()):+.1f} points"

    n = len(shown)
    figure = new_figure(title, note)
    ax = figure.add_subplot()
    summary = textwrap.fill(f"{accuracy}: {gain}", 70)
    ax.set_title(summary, loc="left", fontsize=10, color=INK, parse_math=False)
    ax.barh(range(n), 2 * one_clip, left=-one_clip, height=1, color="#e8ebef", linewidth=0)
    colours = [TRUTH if point > 0 else BELOW for point in points]
    bars = ax.barh(range(n), points, height=0.62, color=colours)
    values = ["0" if point == 0 else f"{point:+.1f}" for point in points]
    ax.bar_label(bars, values, padding=2, fontsize=8, color=INK)
    ax.axvline(0, color=MUTED, linewidth=0.8)
    _write_clips(ax, clips)

    # A class of one clip does not stretch the axis; a tenth to either side holds the numbers.
    bound = max(abs(points).max(), float(np.median(one_clip)))
    low = min(points.min(), -0.35 * bound)
    high = max(points.max(), 0.35 * bound)
    margin = 0.1 * (high - low)
    ax.set(xlim=(low - margin, high + margin), ylim=(n - 0.5, -0.5))
    ax.set_yticks(range(n), [_shorten(classes[label], 40) for label in shown], parse_math=False)
    ax.set_xlabel("percentage points", labelpad=2, **SMALL)
    bare(ax)
    ax.tick_params(axis="y", labelcolor=INK)
    measure(figure, ax)
    set_height(figure, ax, 0.165 * n)
    return figure


def plot_confusion(
    labels: Values,
    predictions: Values,
    classes: Sequence[str],
    *,
    most: int = 60,
    title: str | None = None,
) -> Figure:
    """Draw the share of each true class's clips, a row, that is predicted as each class, a column.

    Errors have strong colours, the diagonal is pale. Matrices of up to 20 classes hold the shares
    in per cent. If there are more classes than ``most``, those with the most frequent errors are
    drawn, and their remaining predictions are summed in a last column.

    Shape:
        labels (N,), predictions (N,) or (N, classes).

    Args:
        labels: true classes, 0 to len(classes) - 1.
        predictions: predicted classes (N,), or probabilities or logits (N, classes).
        classes: names of the classes.
        most: largest number of classes to draw; names overlap beyond 60.
        title: title of the figure.

    Raises:
        ValueError: a shape is wrong, there are no clips, a class is out of range, or ``most`` is
            below 1.

    Example:
        >>> figure = plot_confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), ["wave", "clap"])
        >>> [text.get_text() for text in figure.axes[0].texts[:3]]
        ['50', '50', '100']
    """
    mpl = load_matplotlib()
    who = "plot_confusion"
    c = len(classes)
    truth = _check_classes(who, "labels", labels, c)
    predicted = _check_classes(who, "predictions", predictions, c, n=len(truth))
    if most < 1:
        raise ValueError(message(who, "most of at least 1", most))
    counts = np.bincount(truth * c + predicted, minlength=c * c).reshape(c, c)
    shown = _most_confused(counts, most)
    clips = counts[shown].sum(1)
    share = counts[shown] / np.maximum(clips[:, None], 1)
    rest = np.delete(share, shown, 1).sum(1)
    share = share[:, shown]
    rows = [_shorten(classes[label], 32) for label in shown]
    columns = list(rows)
    if len(shown) < c:
        share = np.column_stack([share, rest])
        columns.append("other classes")
    n, across = share.shape
    numbered = across <= NUMBERED

    note = "row: true class; column: what its clips are taken for"
    if numbered:
        note += ", in per cent"
    if n < c:
        note += f"; the {n} of {c} classes with the most frequent errors"
    figure = new_figure(title, note, rows=3)
    # About six inches in all, with rows of 0.125 inches at least, for a name, and of 0.3 at most.
    height = n * min(max(6 / n, 0.125), 0.3)
    # Columns of a small matrix are not wider than a thirteenth of the figure.
    width_ratios = [0.4 * across, 0.6 * across, max(13 - across, 0.001)]
    grid = figure.add_gridspec(2, 3, width_ratios=width_ratios, height_ratios=[0.1, height])
    ax = figure.add_subplot(grid[1, :2])
    right = np.eye(n, across, dtype=bool)
    wrong = ~right & (share > 0)
    top = max(share[~right].max(initial=0), 0.01)
    pale = mpl.colors.LinearSegmentedColormap.from_list("right", ["white", focus_colours()(0.0)])
    shades = focus_colours()(np.linspace(0.12, 1, 64))
    strong = mpl.colors.LinearSegmentedColormap.from_list("errors", shades)
    shading: Look = {"aspect": "auto", "interpolation": "nearest", "vmin": 0}
    # Two pictures, because correct predictions would leave no shades for rare errors.
    ax.imshow(np.ma.masked_array(share, ~right), cmap=pale, vmax=1, **shading)
    errors = ax.imshow(np.ma.masked_array(share, ~wrong), cmap=strong, vmax=top, **shading)
    if numbered:
        for i, j in np.argwhere(share):
            red, green, blue, _ = strong(share[i, j] / top)
            # The relative luminance of sRGB primaries: black numbers could not be read on dark
            # cells.
            dark = wrong[i, j] and 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
            ink = "white" if dark else INK
            place: Look = {"ha": "center", "va": "center_baseline"}
            ax.text(j, i, f"{100 * share[i, j]:.0f}", fontsize=8, color=ink, **place)
        # White lines between the cells, by a grid at minor ticks: major ticks lie in the middle of
        # cells.
        ax.set_xticks(np.arange(across + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1)
    else:
        # A print in grey would not tell the pale diagonal from rare errors.
        ax.plot([-0.5, n - 0.5], [-0.5, n - 0.5], color=MUTED, linewidth=0.8)
    ax.set_xticks(range(across), columns, rotation=90, parse_math=False)
    ax.set_yticks(range(n), rows, parse_math=False)
    ax.set_facecolor(PANEL)
    bare(ax)
    ax.tick_params(which="both", length=0, labelcolor=INK)
    _write_clips(ax, clips)

    above = figure.add_subplot(grid[0, 0])
    bar: Any = figure.colorbar(errors, cax=above, orientation="horizontal", ticks=[])
    bar.outline.set_visible(False)
    heading = f"errors, up to {top:.0%} of a class" if wrong.any() else "no errors"
    above.set_title(heading, loc="left", **SMALL)
    measure(figure, ax)
    set_height(figure, ax, height)
    return figure


def plot_curves(
    curves: Mapping[str, Values],
    *,
    spread: str = "standard error",
    xlabel: str = "share of entries",
    ylabel: str = "probability of the class",
    title: str | None = None,
) -> Figure:
    """Draw the mean of each set of curves over the clips, its spread and the area under the mean.

    The curves depend on the share of a clip's entries, such as those of deletion and insertion.

    Shape:
        each of curves (N, S + 1), at shares 0, 1/S, ..., 1.

    Args:
        curves: one to six sets by name.
        spread: what the band shows: ``"standard error"``, one standard error of the mean to either
            side, or ``"quartiles"``, the middle half of the clips; a single clip has no band.
        xlabel: name of the share.
        ylabel: name of the values.
        title: title of the figure.

    Raises:
        ValueError: a shape is wrong, there are no curves or more than six sets, or ``spread`` is
            unknown.

    Example:
        >>> figure = plot_curves({"focus": np.array([[1.0, 0.2, 0.0], [0.8, 0.2, 0.0]])})
        >>> figure.axes[0].get_lines()[0].get_ydata()
        array([0.9, 0.2, 0. ])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['focus, area 0.325']

    Reference:
        RISE (Petsiuk et al., BMVC 2018), section 4.1.
    """
    mpl = load_matplotlib()
    who = "plot_curves"
    if not 1 <= len(curves) <= len(STYLES):
        raise ValueError(message(who, f"1 to {len(STYLES)} sets of curves", len(curves)))
    check_choice(who, "spread", spread, ["standard error", "quartiles"])
    checked: dict[str, Array] = {}
    for name, values in curves.items():
        checked[name] = array(who, f"curves {name!r}", values, "N, S")
        n, points = checked[name].shape
        if n < 1 or points < 2:
            expected = f"curves {name!r} (N, S + 1), N and S of at least 1"
            raise ValueError(message(who, expected, (n, points)))

    clips = [len(values) for values in checked.values()]
    note = "line: one clip"
    if max(clips) > 1:
        numbers = str(clips[0]) if len(set(clips)) == 1 else ", ".join(map(str, clips))
        band = "standard error of the mean"
        if spread == "quartiles":
            band = "the middle half of the clips"
        note = f"line: mean of {numbers} clips; band: {band}"
    figure = new_figure(title, note)
    ax = figure.add_subplot()
    for (name, values), (colour, dashes) in zip(checked.items(), STYLES.items(), strict=False):
        n, points = values.shape
        share = np.linspace(0, 1, points)
        mean = values.mean(0)
        if n > 1:
            if spread == "quartiles":
                low, high = np.quantile(values, [0.25, 0.75], axis=0)
            else:
                error = values.std(0, ddof=1) / np.sqrt(n)
                low = mean - error
                high = mean + error
            ax.fill_between(share, low, high, color=colour, alpha=0.16, linewidth=0)
        # The trapezoidal rule for steps of equal width, over the whole axis.
        area = ((mean[1:] + mean[:-1]) / 2).mean()
        label = textwrap.fill(f"{name}, area {area:.3f}", 30)
        ax.plot(share, mean, color=colour, linestyle=dashes, linewidth=1.8, label=label)
    ax.set(xlim=(0, 1), facecolor=PANEL)
    ax.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, symbol=" %"))
    ax.set_xlabel(xlabel, fontsize=9, color=MUTED)
    ax.set_ylabel(ylabel, fontsize=9, color=MUTED)
    ax.grid(color="white", linewidth=1)
    bare(ax)
    look: Look = {"frameon": False, "fontsize": 9, "labelcolor": INK, "borderpad": 0}
    figure.legend(loc="outside right upper", handlelength=3.2, **look)
    measure(figure, ax)
    set_height(figure, ax, 2.9)
    return figure


def _write_clips(ax: Axes, clips: Array) -> None:
    """Write the number of clips at the right of each row, in a column with a heading."""
    look: Look = {"ha": "right", "textcoords": "offset points"}
    rows = ax.get_yaxis_transform()
    for row, number in enumerate(clips):
        ax.annotate(number, (1, row), (34, 0), xycoords=rows, va="center_baseline", **look, **SMALL)
    ax.annotate("clips", (1, 1), (34, 4), xycoords="axes fraction", **look, **SMALL)


def _most_confused(counts: Array, most: int) -> list[int]:
    """Return the classes of the most frequent errors, in their own order."""
    c = len(counts)
    errors = counts * ~np.eye(c, dtype=bool)
    chosen: list[int] = []
    for cell in np.argsort(-errors, axis=None, kind="stable").tolist():
        # The true class and the one it is taken for.
        for label in divmod(cell, c):
            if label not in chosen and len(chosen) < most:
                chosen.append(label)
        if len(chosen) == most:
            break
    return sorted(chosen)


def _check_classes(who: str, name: str, values: Values, c: int, n: int | None = None) -> Array:
    """Check classes (N,), or scores (N, classes) if ``n`` is given, and return classes (N,)."""
    size = "N" if n is None else f"N={n}"
    scores = n is not None and len(values.shape) == 2
    given = array(who, name, values, f"{size}, classes={c}" if scores else size)
    if len(given) == 0:
        raise ValueError(message(who, f"{name} of at least one clip", given.shape))
    classes = given.argmax(1) if scores else given.astype(int)
    # array() returns float64, so that 1.5 would pass for class 1.
    whole = scores or (classes == given).all()
    if classes.min() < 0 or classes.max() >= c or not whole:
        got = f"{given.min():g} to {given.max():g}"
        raise ValueError(message(who, f"{name} in 0..{c - 1}", got))
    return classes


def _shorten(name: str, most: int) -> str:
    """Cut a name to a number of characters."""
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"
