"""Pictures of a body: its focus, adjacency and attention, as film strips, maps and GIFs.

The functions need matplotlib, which ``pip install matplotlib pillow`` installs, and raise an
ImportError without it. They return figures that are not registered with pyplot: no window opens and
nothing has to be closed; ``figure.savefig("focus.png")`` saves one. Absent persons and missing
joints, whose coordinates are all exactly 0, are not drawn. 3D positions are drawn with x to the
right and y upwards. 2D positions, C = 2, are picture coordinates in all formats of the field: their
y points down and is drawn so; ``invert_y`` states another direction.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._checks import check_shape, message
from .layouts import SkeletonLayout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

__all__ = [
    "animate_focus",
    "plot_adjacency",
    "plot_film_strip",
    "plot_focus_comparison",
    "plot_focus_map",
    "plot_joint_attention",
    "plot_latent_edges",
    "plot_skeleton",
]

Array: TypeAlias = NDArray[Any]
Values: TypeAlias = Tensor | Array
Look: TypeAlias = dict[str, Any]  # arguments of an artist of matplotlib

INK = "#24292f"
MUTED = "#6e7781"
BONE = "#b0b8c1"
PANEL = "#f3f5f7"
TRUTH = "#0072b2"
BELOW = "#d55e00"  # values below 0, where those above 0 are drawn in TRUTH
SMALL: Look = {"fontsize": 8, "color": MUTED}
# Focus from 0 to 1: light grey, then matplotlib's magma down to dark purple. The lightness falls
# steadily, so that the order survives a print in grey.
_LIGHT = ("#d3d8df", "#dfdbdb", "#feb47b", "#fc9065", "#f66e5c", "#e75263")
_DARK = ("#cd4071", "#b0357b", "#912b81", "#752181", "#59157e", "#3b0f70")
SHADES = (*_LIGHT, *_DARK)
# Adjacency entries of either sign: they differ in dashes too, so that a print in grey shows them.
SIGNS = ((1, TRUTH, "solid"), (-1, BELOW, (0, (3.0, 1.5))))
COLUMNS = 7  # subsets of an adjacency side by side, at most


def plot_skeleton(
    ax: Axes,
    joints: Values,
    layout: SkeletonLayout,
    *,
    focus: Values | None = None,
    truth: Values | None = None,
    size: float = 11.0,
) -> None:
    """Draw one body; joints with more focus are larger and darker.

    Positions are drawn as they are: for picture coordinates, whose y points down, call
    ``ax.invert_yaxis()``.

    Shape:
        joints (V, C), focus and truth (V,).

    Args:
        ax: axes to draw on.
        joints: positions, C of at least 2.
        layout: the skeleton.
        focus: values in [0, 1]; default 0.
        truth: above 0 for the joints that truly matter, which are outlined.
        size: diameter of a joint with focus 1, in points.

    Raises:
        ValueError: a shape is wrong, or the focus is outside [0, 1].

    Example:
        >>> from matplotlib.figure import Figure
        >>> from skeleton_focus.layouts import KINECT20
        >>> ax = Figure().add_subplot()
        >>> plot_skeleton(ax, np.random.rand(20, 3), KINECT20, focus=np.random.rand(20))
        >>> len(ax.collections[0].get_paths())  # bones
        19
    """
    lines = load_matplotlib().collections.LineCollection
    who = "plot_skeleton"
    v = layout.num_joints
    body = array(who, "joints", joints, f"V={v}, C")
    if body.shape[1] < 2:
        raise ValueError(message(who, "joints (V, C) with C of at least 2", body.shape))
    heat = np.zeros(v) if focus is None else array(who, "focus", focus, f"V={v}")
    outlined = np.zeros(v) if truth is None else array(who, "truth", truth, f"V={v}")

    at = body[:, :2]
    seen = (body != 0).any(1)
    bones = [list(bone) for bone in layout.bones if seen[list(bone)].all()]
    wide = 0.3 * size
    ax.add_collection(lines(at[bones], colors=BONE, linewidths=wide, capstyle="round", zorder=2))

    # Sorted by focus, so that the joints with the most lie on top.
    order = np.flatnonzero(seen)[np.argsort(heat[seen], kind="stable")]
    hot = heat[order]
    dots: Any = ax.scatter(at[order, 0], at[order, 1], c=hot, cmap=focus_colours(), zorder=3)
    dots.set(sizes=(size * (0.38 + 0.62 * hot)) ** 2, clim=(0, 1), edgecolors="white")
    dots.set_linewidths((0.09 * size * hot).tolist())

    # Wide lines under narrower white ones leave visible the outline of their union.
    if truth is not None:
        true = seen & (outlined > 0)
        limbs = [bone for bone in bones if true[bone].all()]
        # A line of length 0 with round caps is a disc, for joints whose bones are not outlined.
        limbs += [[joint, joint] for joint in np.flatnonzero(true).tolist()]
        for colour, wide, above in ((TRUTH, 1.5 * size + 2.4, 1.0), ("white", 1.5 * size, 1.1)):
            look: Look = {"linewidths": wide, "capstyle": "round"}
            ax.add_collection(lines(at[limbs], colors=colour, zorder=above, **look))
    ax.set_aspect("equal")


def plot_film_strip(
    x: Values,
    focus: Values,
    layout: SkeletonLayout,
    *,
    frames: int = 8,
    title: str | None = None,
    truth: Values | None = None,
    invert_y: bool | None = None,
    numbers: Sequence[int] | None = None,
) -> Figure:
    """Draw evenly spaced frames of a clip with the focus on the joints.

    A band below shows the largest focus of each frame.

    Shape:
        x (C, T, V, M), focus and truth (M, T, V).

    Args:
        x: positions, C of at least 2.
        focus: values in [0, 1], for the frames of x.
        layout: the skeleton.
        frames: number of frames to draw, 1 to T.
        title: title of the figure.
        truth: above 0 for the joints and frames that truly matter, which are outlined.
        invert_y: True if y points down in x, False if it points up; by default, it points down in
            2D, C = 2, as in pictures, and up in 3D.
        numbers: T numbers to print below the frames, such as those of the original clip; by default
            0 to T - 1.

    Raises:
        ValueError: a shape is wrong, the focus is outside [0, 1], or the clip has no joints.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> x, focus = np.random.rand(3, 16, 20, 2), np.random.rand(2, 16, 20)
        >>> figure = plot_film_strip(x, focus, KINECT20, frames=4)
        >>> len(figure.axes)  # frames, band, colour bar
        6

    Reference:
        STF (Ke et al., AAAI 2022), figure 2.
    """
    clip = _check_clip("plot_film_strip", x, {title or "": focus}, layout, truth, invert_y)
    t = clip.x.shape[1]
    if numbers is not None and len(numbers) != t:
        raise ValueError(message("plot_film_strip", f"T={t} numbers", len(numbers)))
    return _film_strips(clip, _evenly_spaced("plot_film_strip", frames, t), numbers=numbers)


def plot_focus_comparison(
    x: Values,
    focuses: Mapping[str, Values],
    layout: SkeletonLayout,
    *,
    frames: int = 8,
    truth: Values | None = None,
    invert_y: bool | None = None,
) -> Figure:
    """Draw a film strip for each focus, titled by its key: of two classes, layers or networks.

    See :func:`plot_film_strip` for shapes, arguments and errors.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> x, focus = np.random.rand(3, 16, 20, 1), np.random.rand(1, 16, 20)
        >>> rows = {"touch head": focus, "touch neck": 1 - focus}
        >>> figure = plot_focus_comparison(x, rows, KINECT20, frames=4)
        >>> len(figure.axes)  # heading, frames and band of each row; colour bar
        13
    """
    who = "plot_focus_comparison"
    if len(focuses) == 0:
        raise ValueError(message(who, "at least one focus", "none"))
    clip = _check_clip(who, x, focuses, layout, truth, invert_y)
    return _film_strips(clip, _evenly_spaced(who, frames, clip.x.shape[1]))


def animate_focus(
    x: Values,
    focus: Values,
    layout: SkeletonLayout,
    path: str | Path,
    *,
    fps: float = 15,
    title: str | None = None,
    truth: Values | None = None,
    invert_y: bool | None = None,
) -> Path:
    """Write a clip with its focus as a GIF that repeats for ever, and return its path.

    See :func:`plot_film_strip` for shapes, arguments and errors. ``path`` ends in ``.gif``;
    ``fps``, frames per second, is at most 50.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> x, focus = np.random.rand(3, 2, 20, 1), np.random.rand(1, 2, 20)
        >>> animate_focus(x, focus, KINECT20, "focus.mp4")
        Traceback (most recent call last):
            ...
        ValueError: animate_focus: expected a path that ends in .gif, got focus.mp4
    """
    who = "animate_focus"
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(message(who, "a path that ends in .gif", path))
    if not 0 < fps <= 50:
        raise ValueError(message(who, "fps above 0 and at most 50", fps))
    clip = _check_clip(who, x, {title or "": focus}, layout, truth, invert_y)
    (heat,) = clip.heats.values()
    # All frames keep the layout of the first one, so that nothing but the body moves.
    figure = _film_strips(clip, [0], width=4.4, shortest=3.2, tallest=3.2)
    # The last is the colour bar; a heading, if there is a title, comes first.
    panel, band, _ = figure.axes[-3:]
    writer = load_matplotlib().animation.PillowWriter(fps=fps)
    with writer.saving(figure, str(path), dpi=110):
        for frame in range(len(heat[0])):
            # A copy of the list, because removing changes it.
            for drawn in list(panel.collections):
                drawn.remove()
            _draw_frame(panel, clip, heat, frame, size=12)
            band.set_xticks([frame], [f"frame {frame}"])
            writer.grab_frame()
    return path


def plot_focus_map(
    focus: Values, layout: SkeletonLayout, *, truth: Values | None = None, title: str | None = None
) -> Figure:
    """Draw the focus of each person as a heat map of joints x frames, with joints sorted by part.

    See :func:`plot_film_strip` for shapes, arguments and errors.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> len(plot_focus_map(np.random.rand(2, 16, 20), KINECT20).axes)  # persons, colour bar
        3
    """
    who = "plot_focus_map"
    v = layout.num_joints
    heat = array(who, "focus", focus, f"M, T, V={v}")
    m, t, _ = heat.shape
    outlined = None if truth is None else array(who, "truth", truth, f"M={m}, T={t}, V={v}") > 0
    parts = sort_by_part(layout.parts, v)
    order = [joint for group in parts.values() for joint in group]
    figure = new_figure(rows=m)
    grid = figure.add_gridspec(m, 3, width_ratios=[1, 0.012, 0.012])  # maps, a gap, colour bar
    for person in range(m):
        ax = figure.add_subplot(grid[person, 0])
        _draw_heat(ax, heat[person][:, order].T)
        ax.set_yticks(range(v), [layout.joints[joint].replace("_", " ") for joint in order])
        ax.set_xlabel("frame", loc="left", labelpad=1, **SMALL)
        bare(ax)
        start = 0
        for part, group in parts.items():
            ax.axhline(start - 0.5, color="white", linewidth=3)
            middle = start + len(group) / 2 - 0.5
            ax.text(t, middle, part.replace("_", " "), va="center", **SMALL)
            start += len(group)
        if outlined is not None:
            # Nine samples to a side of a cell let the contour turn corners at right angles.
            cells = outlined[person][:, order].T.repeat(9, 0).repeat(9, 1)
            edge = 0.5 + 1 / 9
            extent = (-edge, t - 1 + edge, -edge, v - 1 + edge)
            for colour, width in (("white", 3.5), (TRUTH, 1.5)):  # white shows it on dark colours
                fine = np.pad(cells, 1).astype(float)
                ax.contour(fine, [0.5], colors=colour, linewidths=width, extent=extent)
        names = [title] if title else []
        if m > 1:
            names.append(f"person {person + 1}")
        ax.set_title(", ".join(names), loc="left", fontsize=11, color=INK)
    _colour_bar(figure, grid[0, 2], outlined is not None)
    measure(figure, figure.axes[0])
    set_height(figure, figure.axes[0], 0.165 * v)
    return figure


def plot_joint_attention(
    x: Values,
    joints: Values,
    scores: Values,
    attention: Values,
    layout: SkeletonLayout,
    *,
    frames: int = 4,
    lines: int = 12,
    title: str | None = None,
    invert_y: bool | None = None,
) -> Figure:
    """Draw evenly spaced frames of one body with its focal joints and the parts they attend to.

    Focal joints with a higher score are darker. A part is a square at the mean of its joints. Lines
    join the pairs of a joint and a part with the strongest attention in that frame.

    Shape:
        x (C, T, V), joints (T, K), scores (T, V), attention (T, K, P) for the P ``layout.parts``.

    Args:
        joints: the joint in each slot, from :class:`~skeleton_focus.FocalJointSelection`.
        scores: scores of all joints, from the same.
        attention: from slots to parts, the mean over the heads of
            :meth:`~skeleton_focus.JointPartAttention.maps`.
        lines: largest number of pairs to draw in a frame.
        x, layout, frames, title, invert_y: see :func:`plot_film_strip`.

    Raises:
        ValueError: a shape is wrong, a joint or the number of frames is out of range, or attention
            or ``lines`` is below 0.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> x, joints = np.random.rand(3, 16, 20), np.tile(np.arange(15), (16, 1))
        >>> scores, attention = np.random.rand(16, 20), np.random.rand(16, 15, 10)
        >>> figure = plot_joint_attention(x, joints, scores, attention, KINECT20)
        >>> len(figure.axes)
        4

    Reference:
        FG-STFormer (Gao et al., ACCV 2022), figure 5.
    """
    who = "plot_joint_attention"
    v = layout.num_joints
    p = len(layout.parts)
    clip = _check_body(who, x, layout, invert_y)
    t = clip.shape[1]
    shown = _evenly_spaced(who, frames, t)
    slots = array(who, "joints", joints, f"T={t}, K").astype(int)
    k = slots.shape[1]
    score = array(who, "scores", scores, f"T={t}, V={v}")
    weight = array(who, "attention", attention, f"T={t}, K={k}, P={p}")
    if slots.min(initial=0) < 0 or slots.max(initial=0) >= v:
        got = f"{slots.min(initial=0)} to {slots.max(initial=0)}"
        raise ValueError(message(who, f"joints in 0..{v - 1}", got))
    if not weight.min(initial=0) >= 0:
        raise ValueError(message(who, "an attention of at least 0", f"{weight.min(initial=0):.3g}"))
    if lines < 0:
        raise ValueError(message(who, "lines of at least 0", lines))

    # Compare the scores of a frame's focal joints with each other, and keep the lowest visible.
    kept = np.take_along_axis(score, slots, 1)
    span = np.maximum(np.ptp(kept, axis=1, keepdims=True), 1e-12)
    shade = np.minimum(0.3 + 0.7 * (kept - kept.min(1, keepdims=True)) / span, 1)

    note = "dots: focal joints, darker with a higher score in that frame; squares: parts; "
    note += "lines: strongest attention"
    figure, size = _row_of_panels(clip, shown, title, note)
    for ax, frame in zip(figure.axes, shown, strict=True):
        heat = np.zeros(v)
        heat[slots[frame]] = shade[frame]
        plot_skeleton(ax, clip[:, frame].T, layout, focus=heat, size=size)
        at = clip[:2, frame].T  # (V, 2)
        seen = (clip[:, frame] != 0).any(0)  # (V,)
        centres: dict[int, Array] = {}  # of the parts with a joint in this frame
        for part, members in enumerate(layout.parts.values()):
            visible = [joint for joint in members if seen[joint]]
            if visible:
                centres[part] = at[visible].mean(0)
        for entry in np.argsort(-weight[frame], axis=None, kind="stable")[:lines].tolist():
            slot, part = divmod(entry, p)
            joint = slots[frame, slot]
            if seen[joint] and part in centres:
                alpha = weight[frame, slot, part] / max(weight.max(), 1e-12)
                _join(ax, at[joint], centres[part], alpha=alpha, linewidth=1.4)
        _mark(ax, np.array(list(centres.values())).reshape(-1, 2), marker="s", s=26, linewidths=1.2)
    return figure


def plot_latent_edges(
    x: Values,
    weights: Values,
    layout: SkeletonLayout,
    *,
    threshold: float = 0.8,
    frames: int = 4,
    title: str | None = None,
    invert_y: bool | None = None,
) -> Figure:
    """Draw evenly spaced frames of one body, its latent node joined to the joints of large weight.

    Shape:
        x (C, T, V), weights (T, V).

    Args:
        weights: values in [0, 1], from :class:`~skeleton_focus.focus_diffusion.AttentiveFocus`;
            joints with more weight are larger and darker.
        threshold: a line is drawn to joints with a larger weight; the paper uses 0.8.
        x, layout, frames, title, invert_y: see :func:`plot_film_strip`.

    Raises:
        ValueError: a shape is wrong, weights or threshold are outside [0, 1], or the number of
            frames is out of range.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> figure = plot_latent_edges(np.random.rand(3, 16, 20), np.random.rand(16, 20), KINECT20)
        >>> len(figure.axes)
        4

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), figure 5.
    """
    who = "plot_latent_edges"
    clip = _check_body(who, x, layout, invert_y)
    shown = _evenly_spaced(who, frames, clip.shape[1])
    weight = array(who, "weights", weights, f"T={clip.shape[1]}, V={layout.num_joints}")
    low = weight.min()
    high = weight.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(message(who, "weights in [0, 1]", f"{low:.9g} to {high:.9g}"))
    if not 0 <= threshold <= 1:
        raise ValueError(message(who, "a threshold in [0, 1]", threshold))

    note = f"diamond: latent node; lines: joints with a weight above {threshold:g}; "
    note += f"larger and darker: more weight ({low:.2f} to {high:.2f} in this clip)"
    figure, size = _row_of_panels(clip, shown, title, note)
    for ax, frame in zip(figure.axes, shown, strict=True):
        plot_skeleton(ax, clip[:, frame].T, layout, focus=weight[frame], size=size)
        at = clip[:2, frame].T  # (V, 2)
        seen = (clip[:, frame] != 0).any(0)  # (V,)
        # The node stands in the upper corner that is farther from the body.
        corners = ax.transLimits.inverted().transform([[0.1, 0.9], [0.9, 0.9]])
        room = [np.hypot(*(at[seen] - corner).T).min(initial=np.inf) for corner in corners]
        node = corners[int(np.argmax(room))]
        for joint in np.flatnonzero((weight[frame] > threshold) & seen):
            _join(ax, node, at[joint], alpha=0.8, linewidth=1.2)
        _mark(ax, node[None], marker="D", s=38, linewidths=1.4)
    return figure


def plot_adjacency(
    body: Values,
    rows: Mapping[str, Values],
    layout: SkeletonLayout,
    *,
    chords: int = 30,
    title: str | None = None,
    invert_y: bool | None = None,
) -> Figure:
    r"""Draw the strongest entries of adjacency matrices on a body, with a panel for each subset k.

    Entry (v, w) carries features from joint v to joint w, as in :math:`Y = X A_k`. It is drawn as a
    chord that bends to its left, with an arrow head halfway. If entry (w, v) is equal, one chord
    without a head stands for both. Entries (v, v) are rings, drawn if they are as strong as the
    weakest chord. Stronger entries are wider and darker, relative to the strongest entry of their
    row of panels; negative entries are dashed.

    Shape:
        body (V, C), each of rows (K, V, V), or (V, V) for one subset.

    Args:
        body: positions, C of at least 2, such as ``x[:, frame, :, person].T`` of a clip.
        rows: adjacencies by the title of their row, as in ``{"A": conv.adjacency, "G": maps[0]}``.
        layout: the skeleton.
        chords: largest number of chords in a panel.
        title, invert_y: see :func:`plot_film_strip`.

    Raises:
        ValueError: a shape is wrong, there are no rows, the body has no joints, or ``chords`` is
            below 0.

    Example:
        >>> from skeleton_focus import KINECT20, multi_scale_adjacency
        >>> rows = {"A": multi_scale_adjacency(KINECT20, 3), "G": np.random.randn(3, 20, 20)}
        >>> figure = plot_adjacency(np.random.rand(20, 3), rows, KINECT20)
        >>> len(figure.axes)  # panels, and a heading for each row
        8

    Reference:
        STF (Ke et al., AAAI 2022), equation 1.
    """
    who = "plot_adjacency"
    v = layout.num_joints
    pose = array(who, "body", body, f"V={v}, C")
    if pose.shape[1] < 2 or not pose.any():
        raise ValueError(message(who, "body (V, C), C of at least 2, with joints", pose.shape))
    if len(rows) == 0:
        raise ValueError(message(who, "at least one row", "none"))
    if chords < 0:
        raise ValueError(message(who, "chords of at least 0", chords))
    pose = _upright(pose.T, invert_y).T
    seen = pose.any(1)
    subsets: dict[str, Array] = {}
    for name, row in rows.items():
        row = row[None] if len(row.shape) == 2 else row
        matrices = array(who, f"row {name!r}", row, f"K, V={v}, V={v}")
        if len(matrices) == 0:
            expected = f"row {name!r} to hold at least one subset"
            raise ValueError(message(who, expected, matrices.shape))
        # Entries of missing joints cannot be drawn and do not count.
        subsets[name] = matrices * np.outer(seen, seen)

    note = "arrow: from joint to joint, without a head: both ways alike; ring: a joint to itself; "
    note += f"dashed: below 0; at most {chords} chords in a panel"
    # A row is a thin heading and as many lines of panels as its subsets fill.
    lines = [math.ceil(len(matrices) / COLUMNS) for matrices in subsets.values()]
    # Lines of a row are filled evenly: 8 subsets make two lines of 4, not 7 and 1.
    columns = max(math.ceil(len(m) / n) for m, n in zip(subsets.values(), lines, strict=True))
    # A heading needs no height of its own: constrained layout makes room for its text.
    heights = [height for count in lines for height in [0.001] + [1.0] * count]
    figure = new_figure(title, note, rows=len(heights))
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    panels: list[tuple[Axes, _Entries, float]] = []  # axes, entries, the row's strongest entry
    top = 0
    for count, (name, matrices) in zip(lines, subsets.items(), strict=True):
        strongest = np.abs(matrices).max()
        _draw_scale(_heading(figure, grid[top, :], name, fontsize=10), matrices, strongest)
        for k, matrix in enumerate(matrices):
            ax = _panel(figure, grid[top + 1 + k // columns, k % columns])
            found = _strongest(matrix, chords)
            panels.append((ax, found, strongest))
            entries = np.count_nonzero(matrix)
            share = f"{found.total} of {entries}"
            if found.total == entries:
                share = f"all {entries}"
            # In narrow panels one line would run into the next panel's.
            break_line = "\n" if columns > 5 else " "
            ax.set_xlabel(f"k = {k}:{break_line}{share} entries", labelpad=2, **SMALL)
        top += 1 + count
    axes = [ax for ax, _, _ in panels]
    height = _fit_panels(figure, axes, pose[seen, :2], shortest=1.4, tallest=3.4)
    for ax, found, strongest in panels:
        plot_skeleton(ax, pose, layout, size=np.clip(3.2 * height, 5, 9))
        # Dots where the chords end.
        ax.scatter(pose[seen, 0], pose[seen, 1], s=7, color=INK, linewidths=0, zorder=4)
        # Arrow heads are sized in inches but drawn in the data's units.
        inch = np.ptp(ax.get_ylim()) / height
        _draw_entries(ax, pose[:, :2], found, strongest, inch)
    return figure


class _Clip(NamedTuple):
    """A checked clip: x (C, T, V, M) with y upwards, heats by title and truth (M, T, V)."""

    x: Array
    heats: dict[str, Array]
    truth: Array | None
    layout: SkeletonLayout


def _check_clip(
    who: str,
    x: Values,
    focuses: Mapping[str, Values],
    layout: SkeletonLayout,
    truth: Values | None,
    invert_y: bool | None,
) -> _Clip:
    load_matplotlib()  # if it is missing, this is the first error to mend
    clip = array(who, "x", x, f"C, T, V={layout.num_joints}, M")
    c, t, v, m = clip.shape
    if c < 2:
        raise ValueError(message(who, "x (C, T, V, M) with C of at least 2", clip.shape))
    axes = f"M={m}, T={t}, V={v}"
    heats = {title: array(who, "focus", focus, axes) for title, focus in focuses.items()}
    outlined = None if truth is None else array(who, "truth", truth, axes)
    if not clip.any():
        raise ValueError(message(who, "a clip with joints", "zeros alone"))
    return _Clip(_upright(clip, invert_y), heats, outlined, layout)


def _check_body(who: str, x: Values, layout: SkeletonLayout, invert_y: bool | None) -> Array:
    """Check one body's positions and return them, (C, T, V) with y upwards."""
    clip = array(who, "x", x, f"C, T, V={layout.num_joints}")
    if len(clip) < 2 or not clip.any():
        expected = "x (C, T, V) with C of at least 2, and a clip with joints"
        raise ValueError(message(who, expected, clip.shape))
    return _upright(clip, invert_y)


def _upright(x: Array, invert_y: bool | None) -> Array:
    """Turn y of positions (C, ...) upwards, in a copy."""
    x = x.copy()
    if points_down(len(x), invert_y):
        x[1] = -x[1]
    return x


def points_down(channels: int, invert_y: bool | None) -> bool:
    """Whether y of positions with this many channels points down; in pictures, C = 2, it does."""
    return channels == 2 if invert_y is None else invert_y


def _evenly_spaced(who: str, frames: int, t: int) -> list[int]:
    if not 1 <= frames <= t:
        raise ValueError(message(who, f"frames in 1..{t}", frames))
    return [int(frame) for frame in np.linspace(0, t - 1, frames).round()]


def _film_strips(
    clip: _Clip,
    frames: list[int],
    *,
    numbers: Sequence[int] | None = None,
    width: float = 9.0,
    shortest: float = 1.2,
    tallest: float = 3.0,
) -> Figure:
    """Draw a row of frames and a band for each focus; limits of a panel's height are in inches."""
    rows = len(clip.heats)
    columns = len(frames)
    figure = new_figure(rows=rows, width=width)
    # A row is a heading, panels and a band; the last column holds the colour bar.
    widths = [1.0] * columns + [0.1 * columns / width]
    heights = [0.001, 1, 0.04] * rows
    grid = figure.add_gridspec(3 * rows, columns + 1, width_ratios=widths, height_ratios=heights)
    strips: list[list[Axes]] = []
    for row, (title, heat) in enumerate(clip.heats.items()):
        if title:
            _heading(figure, grid[3 * row, :], title, fontsize=11)
        strips.append([_panel(figure, grid[3 * row + 1, column]) for column in range(columns)])
        band = figure.add_subplot(grid[3 * row + 2, :columns])
        shown = range(clip.x.shape[1]) if numbers is None else numbers
        _draw_band(band, heat.max((0, 2)), frames, shown if row == rows - 1 else None)
    _colour_bar(figure, grid[1, columns], clip.truth is not None)

    panels = [ax for strip in strips for ax in strip]
    seen = (clip.x != 0).any(0)  # (T, V, M)
    height = _fit_panels(figure, panels, clip.x[:2, seen].T, shortest, tallest)
    for strip, heat in zip(strips, clip.heats.values(), strict=True):
        for ax, frame in zip(strip, frames, strict=True):
            _draw_frame(ax, clip, heat, frame, size=np.clip(4 * height, 5, 12))
    return figure


def _draw_frame(ax: Axes, clip: _Clip, heat: Array, frame: int, size: float) -> None:
    """Draw all persons that are present in the clip."""
    for person in np.flatnonzero(clip.x.any((0, 1, 2))):
        truth = None if clip.truth is None else clip.truth[person, frame]
        look: Look = {"focus": heat[person, frame], "truth": truth}
        plot_skeleton(ax, clip.x[:, frame, :, person].T, clip.layout, size=size, **look)


def _draw_heat(ax: Axes, heat: Array) -> None:
    """Draw values in [0, 1], (rows, T)."""
    look: Look = {"cmap": focus_colours(), "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    ax.imshow(heat, aspect="auto", **look)


def _draw_band(ax: Axes, heat: Array, frames: list[int], numbers: Sequence[int] | None) -> None:
    """Draw the focus of each frame, (T,), so that the frames shown lie below their panels."""
    _draw_heat(ax, heat[None])
    # The first and the last frame belong half a panel away from the edges.
    t = len(heat)
    edge = 0.5 * (t - 1) / (len(frames) - 1) if len(frames) > 1 else 0.5
    ticks = frames[:: 1 + (len(frames) - 1) // 16]  # more labels would overlap
    ax.set(xlim=(-edge, t - 1 + edge), yticks=[], xticks=[], facecolor="none")
    if numbers is not None:
        labels = [str(numbers[tick]) for tick in ticks]
        ax.set_xticks(ticks, [f"frame {labels[0]}", *labels[1:]])
    bare(ax)


def _colour_bar(figure: Figure, place: SubplotSpec, truth: bool) -> None:
    """Add the colour bar of a focus, and explain the outline of the truth above it."""
    mpl = load_matplotlib()
    ax = figure.add_subplot(place)
    bar: Any = figure.colorbar(mpl.cm.ScalarMappable(cmap=focus_colours()), cax=ax)
    bar.set_ticks([0, 0.5, 1], labels=["0", "focus", "1"])
    bar.outline.set_visible(False)
    bare(ax)
    if truth:
        ring = mpl.lines.Line2D([], [], color="white", marker="o", markeredgecolor=TRUTH)
        ring.set(markersize=8, label="truth")
        look: Look = {"frameon": False, "fontsize": 9, "labelcolor": INK, "borderpad": 0}
        above: Look = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
        ax.legend(handles=[ring], handlelength=1, handletextpad=0.3, **above, **look)


class _Row(NamedTuple):
    figure: Figure
    size: float  # of a joint, points


def _row_of_panels(clip: Array, frames: list[int], title: str | None, note: str) -> _Row:
    """Draw an empty panel for each frame of a body (C, T, V)."""
    figure = new_figure(title, note)
    grid = figure.add_gridspec(1, len(frames))
    for column, frame in enumerate(frames):
        _panel(figure, grid[0, column]).set_xlabel(f"frame {frame}", labelpad=2, **SMALL)
    seen = (clip != 0).any(0)  # (T, V)
    height = _fit_panels(figure, figure.axes, clip[:2, seen].T, shortest=1.2, tallest=3.6)
    return _Row(figure, float(np.clip(4 * height, 6, 13)))


def _join(ax: Axes, start: Array, end: Array, **look: Any) -> None:
    """Draw a line below the joints and above the bones."""
    ax.plot([start[0], end[0]], [start[1], end[1]], color=TRUTH, zorder=2.5, **look)


def _mark(ax: Axes, at: Array, **look: Any) -> None:
    """Draw hollow marks (n, 2) above everything."""
    ax.scatter(at[:, 0], at[:, 1], facecolors="white", edgecolors=TRUTH, zorder=4, **look)


class _Chord(NamedTuple):
    source: int
    target: int
    value: float
    both_ways: bool


class _Entries(NamedTuple):
    """Chords and rings (joint, value) to draw, the weakest first; the entries they stand for."""

    chords: list[_Chord]
    rings: list[tuple[int, float]]
    total: int


def _strongest(matrix: Array, limit: int) -> _Entries:
    """Find the strongest entries of (V, V); two equal entries (v, w) and (w, v) are one chord."""
    v = len(matrix)
    # With a tolerance: a normalised matrix is symmetric up to rounding.
    alike = np.isclose(matrix, matrix.T, rtol=1e-4, atol=1e-12)
    # The upper of two equal entries stands for both; the diagonal becomes rings.
    strength = np.abs(matrix) * ~np.tril(alike, -1) * ~np.eye(v, dtype=bool)
    chords = []
    for entry in np.argsort(-strength, axis=None, kind="stable")[:limit].tolist():
        place = divmod(entry, v)
        if strength[place] > 0:
            value = float(matrix[place])
            chords.append(_Chord(place[0], place[1], value, bool(alike[place])))
    # With fewer chords than the limit there is room for every ring.
    weakest = abs(chords[-1].value) if chords and len(chords) == limit else 0.0
    diagonal = [(joint, float(value)) for joint, value in enumerate(np.diag(matrix)) if value]
    rings = [(joint, value) for joint, value in diagonal if abs(value) >= weakest]
    rings.sort(key=lambda ring: abs(ring[1]))
    total = len(rings) + sum(2 if chord.both_ways else 1 for chord in chords)
    # Later entries are drawn over earlier ones, so the strongest come last.
    return _Entries(chords[::-1], rings, total)


def _draw_entries(ax: Axes, at: Array, found: _Entries, strongest: float, inch: float) -> None:
    """Draw chords, their heads and rings on joints ``at`` (V, 2).

    ``strongest`` is the value of full strength; ``inch`` is an inch in the units of ``at``.
    """
    mpl = load_matplotlib()
    # A collection has one style of dashes, hence one for each sign.
    for sign, colour, dashes in SIGNS:
        curves = []
        strengths = []
        heads = []
        headed = []  # strengths of the chords with a head
        for chord in found.chords:
            if chord.value * sign > 0:
                strength = abs(chord.value) / strongest
                curve = _curve(at[chord.source], at[chord.target])
                curves.append(curve)
                strengths.append(strength)
                if not chord.both_ways and (curve[0] != curve[-1]).any():
                    heads.append(_head(curve, inch * (0.045 + 0.035 * strength)))
                    headed.append(strength)
        look: Look = {"linestyles": [dashes], **_look(colour, strengths)}
        ax.add_collection(mpl.collections.LineCollection(curves, zorder=3.5, **look))
        look = {"facecolors": _look(colour, headed)["edgecolors"], "edgecolors": "none"}
        ax.add_collection(mpl.collections.PolyCollection(heads, zorder=3.6, **look))
        rings = [(joint, value) for joint, value in found.rings if value * sign > 0]
        places = at[[joint for joint, _ in rings]]
        look = _look(colour, [abs(value) / strongest for _, value in rings])
        look |= {"linestyles": [dashes], "facecolors": "none"}
        ax.scatter(places[:, 0], places[:, 1], s=70, zorder=3.4, **look)


def _curve(start: Array, end: Array) -> Array:
    """Return 25 points of a quadratic Bezier curve; it bends to its left."""
    along = np.linspace(0, 1, 25)[:, None]
    way = end - start
    # Both directions between two joints bend apart, each to its own left.
    control = (start + end) / 2 + 0.2 * np.array([-way[1], way[0]])
    return (1 - along) ** 2 * start + 2 * along * (1 - along) * control + along**2 * end


def _head(curve: Array, size: float) -> list[Array]:
    """Return the triangle of an arrow head in the middle of a curve."""
    way = curve[-1] - curve[0]  # parallel to the curve's middle
    length = math.hypot(*way)
    ahead = min(size, 0.5 * length) * way / length
    aside = 0.45 * np.array([-ahead[1], ahead[0]])
    tip = curve[len(curve) // 2] + ahead / 2
    return [tip, tip - ahead + aside, tip - ahead - aside]


def _look(colour: str, strengths: list[float]) -> Look:
    """Return colours and widths of lines: fainter and thinner for weaker strengths in [0, 1]."""
    to_rgba = load_matplotlib().colors.to_rgba
    shades = [to_rgba(colour, 0.3 + 0.7 * strength) for strength in strengths]
    return {"edgecolors": shades, "linewidths": [0.5 + 2.1 * strength for strength in strengths]}


def _draw_scale(ax: Axes, matrices: Array, strongest: float) -> None:
    """Add a legend, right above the axes, of a row's strongest entry and of half of it."""
    line = load_matplotlib().lines.Line2D
    samples = []
    for sign, colour, dashes in SIGNS:
        for share in (1.0, 0.5):
            if (matrices * sign > 0).any():
                (shade,), (width,) = _look(colour, [share]).values()
                sample = line([], [], color=shade, linewidth=width, linestyle=dashes)
                sample.set(label=f"{sign * share * strongest:+.2g}", dash_capstyle="butt")
                samples.append(sample)
    if not samples:
        samples = [line([], [], label="zero throughout", linestyle="none")]
    look: Look = {"frameon": False, "fontsize": 8, "labelcolor": MUTED, "borderpad": 0}
    place: Look = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": len(samples)}
    ax.legend(handles=samples, handlelength=4, **place, **look)


def new_figure(title: str | None = None, note: str = "", rows: int = 1, width: float = 9) -> Figure:
    """Return an empty figure with constrained layout, a title above and a note below.

    Its height has room for ``rows`` of axes and is preliminary: see :func:`set_height`.
    """
    mpl = load_matplotlib()
    engine = mpl.layout_engine.ConstrainedLayoutEngine(rect=(0.012, 0, 0.976, 1))
    engine.set(w_pad=0.03, h_pad=0.05, wspace=0, hspace=0)
    figure: Figure = mpl.figure.Figure((width, 3.0 + 2.0 * rows), dpi=200, layout=engine)
    left: Look = {"x": 0.015, "ha": "left"}
    if title:
        figure.suptitle(textwrap.fill(title, 100), fontsize=11, color=INK, **left)
    if note:
        figure.supxlabel(textwrap.fill(note, 140), parse_math=False, **left, **SMALL)
    return figure


def measure(figure: Figure, ax: Axes) -> tuple[float, float]:
    """Lay out a figure and return the width and height of one of its axes, in inches."""
    # Constrained layout places axes only when the figure is drawn.
    figure.draw_without_rendering()
    box = ax.get_window_extent()
    return box.width / figure.dpi, box.height / figure.dpi


def set_height(figure: Figure, ax: Axes, height: float) -> None:
    """Make the figure so tall that ``ax`` gets ``height`` inches; call :func:`measure` before."""
    place: Any = ax.get_subplotspec()
    ratios = np.array(place.get_gridspec().get_height_ratios())
    missing = height - ax.get_window_extent().height / figure.dpi
    # The rows of the grid keep their ratios, so that the others grow too.
    missing *= ratios.sum() / ratios[place.rowspan.start]
    figure.set_figheight(figure.get_figheight() + missing)
    # Keep this layout: constrained layout converges slowly around axes of equal aspect.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _heading(figure: Figure, place: SubplotSpec, title: str, fontsize: int) -> Axes:
    """Write a title above axes as wide as a row of panels; above a panel it would stretch it."""
    ax = figure.add_subplot(place)
    ax.set_axis_off()
    ax.set_title(title, loc="left", fontsize=fontsize, color=INK, pad=2)
    return ax


def _panel(figure: Figure, place: SubplotSpec) -> Axes:
    """Return empty axes for a body; :func:`_fit_panels` sets their limits."""
    ax = figure.add_subplot(place, xticks=[], yticks=[], facecolor=PANEL)
    bare(ax)
    return ax


def _fit_panels(
    figure: Figure,
    panels: Sequence[Axes],
    points: Array,
    shortest: float,
    tallest: float,
) -> float:
    """Fit panels to the points of bodies, (n, 2), and return their height in inches.

    All panels get the same limits of x and y. Call this before drawing in them, once titles, labels
    and legends are in place: these decide how wide the panels are.
    """
    width, _ = measure(figure, panels[0])
    middle = (points.max(0) + points.min(0)) / 2
    half = np.ptp(points, axis=0) / 2
    half += 0.14 * half.max() + 1e-6  # a margin for the size of the joints
    height = float(np.clip(width * half[1] / half[0], shortest, tallest))
    set_height(figure, panels[0], height)
    box = np.array([width, height])
    # The same scale for x and y: the axis that fills the panel more decides.
    left, base = middle - box * max(half / box)
    right, top = middle + box * max(half / box)
    for ax in panels:
        ax.set(xlim=(left, right), ylim=(base, top), autoscale_on=False)
    return height


def bare(ax: Axes) -> None:
    """Remove frame and tick marks; make tick labels small and grey."""
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=8, labelcolor=MUTED)


def load_matplotlib() -> Any:
    """Import matplotlib, which the package does not require."""
    try:
        import matplotlib
        import matplotlib.animation
        import matplotlib.figure
    except ImportError as error:
        hint = "pip install matplotlib pillow"
        raise ImportError(message("plot", "matplotlib", "none", hint)) from error
    return matplotlib


def focus_colours() -> Any:
    """Return the colour map of :data:`SHADES`."""
    return load_matplotlib().colors.LinearSegmentedColormap.from_list("focus", SHADES)


def sort_by_part(parts: Mapping[str, Sequence[int]], num_joints: int) -> dict[str, list[int]]:
    """Group joints: each in the first part that contains it, or in the last group, "other"."""
    groups: dict[str, list[int]] = {}
    placed: set[int] = set()
    for part, members in {**parts, "other": range(num_joints)}.items():
        group = [joint for joint in members if joint not in placed]
        placed.update(group)
        if group:
            groups[part] = group
    return groups


def array(who: str, name: str, values: Values, axes: str) -> Array:
    """Check that values have a shape, are finite and, if a focus, in [0, 1]; return float64."""
    if isinstance(values, Tensor):
        # numpy has no bfloat16.
        values = values.detach().cpu().double().numpy()
    array = np.array(values, np.float64)
    check_shape(who, name, torch.from_numpy(array), axes)
    if not np.isfinite(array).all():
        raise ValueError(message(who, f"{name} to be finite", "NaN or infinity"))
    low = array.min(initial=0)
    high = array.max(initial=0)
    if name == "focus" and not (low >= 0 and high <= 1):
        got = f"{low:.3g} to {high:.3g}"
        raise ValueError(message(who, "a focus in [0, 1]", got, "see min_max_normalize"))
    return array
