"""Pictures of the focus on the body: film strips, comparisons, joint x frame maps, GIFs.

Needs matplotlib, which ``pip install matplotlib pillow`` brings. No figure is registered with pyplot: nothing
to close, no window; ``figure.savefig("focus.png")`` saves one. Absent persons and missing joints, those at exactly 0 in
every coordinate, are not drawn; of 3D positions x runs to the right and y upwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ._checks import message
from ._figure import (
    BAR,
    BONE,
    INK,
    MUTED,
    PANEL,
    SIDE,
    TRUTH,
    WIDTH,
    Values,
    array,
    bare,
    inches,
    load_matplotlib,
    sort_by_part,
)
from .layouts import SkeletonLayout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_skeleton(
    ax: Axes, joints: Values, layout: SkeletonLayout, *, focus: Values | None = None, truth: Values | None = None,
    size: float = 11.0,
) -> None:  # fmt: skip
    """Draw one body: the more focus on a joint, the larger and the darker it is.

    Shape:
        joints (V, C), focus and truth (V,).

    Args:
        ax: where to draw.
        joints: positions, C of at least 2.
        layout: the skeleton.
        focus: in [0, 1]; by default 0.
        truth: above 0 where a joint truly matters; a line is drawn around these.
        size: diameter of a joint of focus 1, points.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: shapes that do not fit, or a focus outside [0, 1].

    Example:
        >>> from matplotlib.figure import Figure
        >>> from skeleton_focus.layouts import KINECT20
        >>> ax = Figure().add_subplot()
        >>> plot_skeleton(ax, np.random.rand(20, 3), KINECT20, focus=np.random.rand(20))
        >>> len(ax.collections[0].get_paths())  # bones
        19
    """
    (mpl, colours), who, v = load_matplotlib(), "plot_skeleton", layout.num_joints
    lines = mpl.collections.LineCollection
    body = array(who, "joints", joints, f"V={v}, C")
    if body.shape[1] < 2:
        raise ValueError(message(who, "joints (V, C) with C of at least 2", body.shape))
    heat = np.zeros(v) if focus is None else array(who, "focus", focus, f"V={v}")
    seen = (body != 0).any(1)
    at, bones = body[:, :2], [list(bone) for bone in layout.bones if seen[list(bone)].all()]
    ax.add_collection(lines(at[bones], colors=BONE, linewidths=0.3 * size, capstyle="round", zorder=2))
    order = np.flatnonzero(seen)[np.argsort(heat[seen], kind="stable")]  # the joints that matter lie on top
    ax.scatter(at[order, 0], at[order, 1], s=(size * (0.38 + 0.62 * heat[order])) ** 2, c=heat[order], vmin=0, vmax=1,
               cmap=colours, linewidths=(0.09 * size * heat[order]).tolist(), edgecolors="white", zorder=3)  # fmt: skip
    if truth is not None:  # wide lines, and narrower white ones on top: what shows is the outline of their union
        true = (array(who, "truth", truth, f"V={v}") > 0) & seen
        limbs = at[[bone for bone in bones if true[bone].all()] + [[j, j] for j in np.flatnonzero(true)]]
        for wide, colour, above in ((1.5 * size + 2.4, TRUTH, 1.0), (1.5 * size, "white", 1.1)):
            ax.add_collection(lines(limbs, colors=colour, linewidths=wide, capstyle="round", zorder=above))
    ax.set_aspect("equal")


def plot_film_strip(
    x: Values, focus: Values, layout: SkeletonLayout, *, frames: int = 8, title: str | None = None,
    truth: Values | None = None, invert_y: bool = False,
) -> Figure:  # fmt: skip
    """Evenly spaced frames of a clip with the focus on the joints; the band below shows each frame's largest focus.

    Shape:
        x (C, T, V, M), focus and truth (M, T, V).

    Args:
        x: positions, C of at least 2.
        focus: in [0, 1], at the frames of x.
        layout: the skeleton.
        frames: how many to draw, 1..T.
        title: stands above.
        truth: above 0 at the joints and frames that truly matter; a line is drawn around these.
        invert_y: for image coordinates, whose y grows downwards.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: shapes that do not fit, a focus outside [0, 1], or a clip without any joint.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> figure = plot_film_strip(np.random.rand(3, 16, 20, 2), np.random.rand(2, 16, 20), KINECT20, frames=4)
        >>> len(figure.axes)  # frames, band, colour bar
        6

    Reference:
        STF (Ke et al., AAAI 2022), figure 2.
    """
    return _strips("plot_film_strip", x, {title or "": focus}, layout, frames, truth, invert_y)


def plot_focus_comparison(
    x: Values, focuses: Mapping[str, Values], layout: SkeletonLayout, *, frames: int = 8,
    truth: Values | None = None, invert_y: bool = False,
) -> Figure:  # fmt: skip
    """One film strip a focus, titled by its key: two classes, two layers, or networks with and without STF.

    Shape, Args and Raises as for :func:`plot_film_strip`.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> rows = {"touch head": np.random.rand(1, 16, 20), "touch neck": np.random.rand(1, 16, 20)}
        >>> len(plot_focus_comparison(np.random.rand(3, 16, 20, 1), rows, KINECT20, frames=4).axes)
        11
    """
    if len(focuses) == 0:
        raise ValueError(message("plot_focus_comparison", "at least one focus", "none"))
    return _strips("plot_focus_comparison", x, focuses, layout, frames, truth, invert_y)


def plot_focus_map(
    focus: Values, layout: SkeletonLayout, *, truth: Values | None = None, title: str | None = None
) -> Figure:
    """The focus as a joint x frame heat map, joints sorted by the layout's parts, one map a person.

    Shape, Args and Raises as for :func:`plot_film_strip`.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> len(plot_focus_map(np.random.rand(2, 16, 20), KINECT20).axes)  # persons, colour bar
        3
    """
    (mpl, colours), who, v = load_matplotlib(), "plot_focus_map", layout.num_joints
    heat = array(who, "focus", focus, f"M, T, V={v}")
    m, t, _ = heat.shape
    true = None if truth is None else array(who, "truth", truth, f"M={m}, T={t}, V={v}") > 0
    groups = sort_by_part(layout.parts, v)
    order, tall = sum(groups.values(), []), 0.165 * v
    figure: Figure = mpl.figure.Figure((WIDTH, m * (tall + 0.55)), dpi=200)
    for person in range(m):
        bottom = (m - 1 - person) * (tall + 0.55) + 0.22
        ax = figure.add_axes(inches(figure, 1.35, bottom, WIDTH - BAR - 2.5, tall))
        ax.imshow(heat[person][:, order].T, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        ax.set_yticks(range(v), [layout.joints[j].replace("_", " ") for j in order])
        ax.text(-1, v - 0.15, "frame", ha="right", va="top", fontsize=8, color=MUTED)
        bare(ax)
        start = 0
        for part, group in groups.items():
            ax.axhline(start - 0.5, color="white", linewidth=3)
            ax.text(t, start + len(group) / 2 - 0.5, part.replace("_", " "), va="center", fontsize=8, color=MUTED)
            start += len(group)
        if true is not None:  # nine cells for each, so that the outline has square corners; white to show it on dark
            fine, edge = np.pad(true[person][:, order].T.repeat(9, 0).repeat(9, 1), 1).astype(float), 0.5 + 1 / 9
            for wide, colour in ((3.5, "white"), (1.5, TRUTH)):
                ax.contour(
                    fine, [0.5], colors=colour, linewidths=wide, extent=(-edge, t + edge - 1, -edge, v + edge - 1)
                )
        names = ([title] if title else []) + ([f"person {person + 1}"] if m > 1 else [])
        figure.text(*inches(figure, SIDE, bottom + tall + 0.12)[:2], ", ".join(names), fontsize=11, color=INK)
    _legend(figure, min(2.0, tall), true is not None)
    return figure


def animate_focus(
    x: Values, focus: Values, layout: SkeletonLayout, path: str | Path, *, fps: float = 15, title: str | None = None,
    truth: Values | None = None, invert_y: bool = False,
) -> Path:  # fmt: skip
    """Write a clip with its focus as a GIF that plays for ever, ``fps`` frames a second, and return its path.

    Shape, Args and Raises as for :func:`plot_film_strip`; ``path`` ends in ``.gif``, ``fps`` is at most 50.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> animate_focus(np.random.rand(3, 2, 20, 1), np.random.rand(1, 2, 20), KINECT20, "focus.mp4")
        Traceback (most recent call last):
            ...
        ValueError: animate_focus: expected a path that ends in .gif, got focus.mp4
    """
    (mpl, _), who, path = load_matplotlib(), "animate_focus", Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(message(who, "a path that ends in .gif", path))
    if not 0 < fps <= 50:
        raise ValueError(message(who, "fps above 0 and at most 50", fps))
    figure, writer = mpl.figure.Figure((4.4, 4.0)), mpl.animation.PillowWriter(fps=fps)
    _strips(who, x, {title or "": focus}, layout, [0], truth, invert_y, figure)  # refuses before a file is opened
    with writer.saving(figure, str(path), dpi=110):
        for t in range(x.shape[1]):
            _strips(who, x, {title or "": focus}, layout, [t], truth, invert_y, figure)
            writer.grab_frame()
    return path


def _strips(
    who: str, x: Values, focuses: Mapping[str, Values], layout: SkeletonLayout, frames: int | list[int],
    truth: Values | None, invert_y: bool, figure: Figure | None = None,
) -> Figure:  # fmt: skip
    """A row of frames and a band for each focus; on a new figure of the height they need, or on the one given."""
    (mpl, colours), clip = load_matplotlib(), array(who, "x", x, f"C, T, V={layout.num_joints}, M")
    c, t, v, m = clip.shape
    if c < 2:
        raise ValueError(message(who, "x (C, T, V, M) with C of at least 2", clip.shape))
    heats = {title: array(who, "focus", focus, f"M={m}, T={t}, V={v}") for title, focus in focuses.items()}
    true = None if truth is None else array(who, "truth", truth, f"M={m}, T={t}, V={v}")
    clip = clip * np.where((np.arange(c) == 1) & invert_y, -1, 1)[:, None, None, None]
    seen = clip[:2].transpose(1, 2, 3, 0)[(clip != 0).any(0)]  # (joints seen, 2)
    if len(seen) == 0:
        raise ValueError(message(who, "a clip with joints", "zeros alone"))
    if isinstance(frames, int) and not 1 <= frames <= t:
        raise ValueError(message(who, f"frames in 1..{t}", frames))
    shown = np.linspace(0, t - 1, frames).round().astype(int).tolist() if isinstance(frames, int) else frames
    middle, half = (seen.max(0) + seen.min(0)) / 2, np.ptp(seen, axis=0) / 2
    half += 0.12 * half.max() + 1e-6
    wide = ((WIDTH if figure is None else figure.get_figwidth()) - SIDE - BAR) / len(shown)
    if figure is None:
        tall = float(np.clip(wide * half[1] / half[0], 1.2, 3.0))
        figure = mpl.figure.Figure((WIDTH, len(heats) * (tall + 0.42) + 0.2), dpi=200)
    figure.clear()
    row, gap = (figure.get_figheight() - 0.2) / len(heats), min(0.06, 0.1 * wide)
    tall = row - 0.42
    reach = np.array([wide - gap, tall]) * max(half / (wide - gap, tall))
    for number, (title, heat) in enumerate(heats.items()):
        last, bottom = number == len(heats) - 1, 0.32 + (len(heats) - 1 - number) * row
        figure.text(*inches(figure, SIDE, bottom + tall + 0.1)[:2], title, fontsize=11, color=INK)
        for i, frame in enumerate(shown):
            ax = figure.add_axes(inches(figure, SIDE + i * wide, bottom, wide - gap, tall))
            for person in np.flatnonzero(clip.any((0, 1, 2))):
                mark, body = None if true is None else true[person, frame], clip[:, frame, :, person].T
                plot_skeleton(ax, body, layout, focus=heat[person, frame], truth=mark, size=min(max(4 * tall, 5), 12))
            (left, base), (right, top) = middle - reach, middle + reach
            ax.set(xlim=(left, right), ylim=(base, top), xticks=[], yticks=[], facecolor=PANEL)
            bare(ax)
        # As wide as puts each tick under its frame.
        inset = (wide - wide / (t - 1) * (len(shown) - 1)) / 2 if len(shown) > 1 else 0.1
        band = figure.add_axes(inches(figure, SIDE + inset, bottom - 0.11, wide * len(shown) - 2 * inset, 0.08))
        band.imshow(heat.max((0, 2))[None], cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        band.set_xticks(shown, [f"frame {shown[0]}", *map(str, shown[1:])] if last else [""] * len(shown))
        band.set_yticks([])
        bare(band)
    _legend(figure, tall, true is not None)
    return figure


def _legend(figure: Figure, tall: float, truth: bool) -> None:
    """The colour bar, ``tall`` inches, in the upper right corner, and above it what the outline means."""
    (mpl, colours), (width, height) = load_matplotlib(), figure.get_size_inches()
    ax = figure.add_axes(inches(figure, width - 0.5, height - 0.3 - tall, 0.1, tall))
    bar = figure.colorbar(mpl.cm.ScalarMappable(cmap=colours), cax=ax, ticks=[0, 0.5, 1])
    ax.set_yticklabels(["0", "focus", "1"])
    bare(ax)
    bar.outline.set_visible(False)
    if truth:
        ring = mpl.lines.Line2D([], [], color="white", marker="o", markersize=8, markeredgecolor=TRUTH)
        corner = inches(figure, width - 0.05, height - 0.02)[:2]
        figure.legend([ring], ["truth"], loc="upper right", bbox_to_anchor=corner, frameon=False, fontsize=9,
                      labelcolor=INK, borderpad=0.2, handletextpad=0)  # fmt: skip
