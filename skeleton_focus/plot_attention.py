"""Pictures of what a network attends to: focal joints and parts (FG-STFormer), joints of the latent node (BAGCN).

As in :mod:`skeleton_focus.plot`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._checks import message
from ._figure import INK, MUTED, PANEL, SIDE, TRUTH, WIDTH, Array, Values, array, bare, inches, load_matplotlib
from .layouts import SkeletonLayout
from .plot import plot_skeleton

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_joint_attention(
    x: Values, joints: Values, scores: Values, attention: Values, layout: SkeletonLayout, *, frames: int = 4,
    lines: int = 12, title: str | None = None, invert_y: bool = False,
) -> Figure:  # fmt: skip
    """Evenly spaced frames of one body: its focal joints, darker the higher they score, and the parts they attend to.

    A part is a square at the mean of its joints. The lines are the strongest pairs of a joint and a part in that frame.

    Shape:
        x (C, T, V), joints (T, K), scores (T, V), attention (T, K, P), P as many as ``layout.parts``.

    Args:
        x: positions, C of at least 2.
        joints: the joint in each slot, as :class:`~skeleton_focus.FocalJointSelection` gives them.
        scores: of all joints, likewise.
        attention: of slots to parts, the mean over the heads of :meth:`~skeleton_focus.JointPartAttention.maps`.
        layout: the skeleton.
        frames: how many to draw, 1..T.
        lines: pairs to draw in each frame, at most.
        title: stands above.
        invert_y: for image coordinates, whose y grows downwards.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: shapes that do not fit, joints out of range, an attention below 0, too many or too few frames, or
            lines below 0.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> x, joints, scores = np.random.rand(3, 16, 20), np.tile(np.arange(15), (16, 1)), np.random.rand(16, 20)
        >>> figure = plot_joint_attention(x, joints, scores, np.random.rand(16, 15, 10), KINECT20)
        >>> len(figure.axes)
        4

    Reference:
        FG-STFormer (Gao et al., ACCV 2022), figure 5.
    """
    who, v, p = "plot_joint_attention", layout.num_joints, len(layout.parts)
    clip = _one_body(who, x, layout, frames, invert_y)
    t = clip.shape[1]
    which = array(who, "joints", joints, f"T={t}, K").astype(int)
    k = which.shape[1]
    score = array(who, "scores", scores, f"T={t}, V={v}")
    weight = array(who, "attention", attention, f"T={t}, K={k}, P={p}")
    first, last = which.min(initial=0), which.max(initial=0)
    if first < 0 or last >= v:
        raise ValueError(message(who, f"joints in 0..{v - 1}", f"{first} to {last}"))
    if not weight.min(initial=0) >= 0:
        raise ValueError(message(who, "an attention of at least 0", f"{weight.min(initial=0):.3g}"))
    if lines < 0:
        raise ValueError(message(who, "lines of at least 0", lines))
    kept = np.take_along_axis(score, which, 1)
    low, span = kept.min(1, keepdims=True), np.ptp(kept, axis=1, keepdims=True)
    # Of each frame's focal joints among each other.
    shade = np.minimum(0.3 + 0.7 * (kept - low) / np.maximum(span, 1e-12), 1)
    told = "dots: focal joints, darker the higher they score in that frame; squares: parts; lines: strongest attention"
    figure, panels = _panels(clip, frames, title, told)
    for frame, ax, size in panels:
        heat = np.zeros(v)
        heat[which[frame]] = shade[frame]
        plot_skeleton(ax, clip[:, frame].T, layout, focus=heat, size=size)
        at, there = clip[:2, frame].T, (clip[:, frame] != 0).any(0)  # (V, 2), (V,)
        members = [[j for j in part if there[j]] for part in layout.parts.values()]
        middles = [at[part].mean(0) if part else None for part in members]
        strongest = np.argsort(-weight[frame], axis=None, kind="stable")[:lines]
        for slot, part in zip(*np.unravel_index(strongest, (k, p)), strict=True):
            joint, square = which[frame, slot], middles[part]
            if there[joint] and square is not None:
                strength = weight[frame, slot, part] / max(weight.max(), 1e-12)
                ax.plot(*np.stack([at[joint], square]).T, color=TRUTH, alpha=strength, linewidth=1.4, zorder=2.5)
        squares = np.array([square for square in middles if square is not None]).reshape(-1, 2)
        ax.scatter(squares[:, 0], squares[:, 1], marker="s", s=26, facecolors="white", edgecolors=TRUTH,
                   linewidths=1.2, zorder=4)  # fmt: skip
    return figure


def plot_latent_edges(
    x: Values, weights: Values, layout: SkeletonLayout, *, threshold: float = 0.8, frames: int = 4,
    title: str | None = None, invert_y: bool = False,
) -> Figure:  # fmt: skip
    """Evenly spaced frames of one body and its latent node, a diamond, joined to each joint of a large weight.

    Shape:
        x (C, T, V), weights (T, V).

    Args:
        x: positions, C of at least 2.
        weights: in [0, 1], as :class:`~skeleton_focus.AttentiveFocus` gives them; the larger and darker a joint.
        layout: the skeleton.
        threshold: a line is drawn to joints whose weight is larger; the paper's 0.8.
        frames: how many to draw, 1..T.
        title: stands above.
        invert_y: for image coordinates, whose y grows downwards.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: shapes that do not fit, weights or a threshold outside [0, 1], or too many or too few frames.

    Example:
        >>> from skeleton_focus.layouts import KINECT20
        >>> figure = plot_latent_edges(np.random.rand(3, 16, 20), np.random.rand(16, 20), KINECT20)
        >>> len(figure.axes)
        4

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), figure 5.
    """
    who, v = "plot_latent_edges", layout.num_joints
    clip = _one_body(who, x, layout, frames, invert_y)
    weight = array(who, "weights", weights, f"T={clip.shape[1]}, V={v}")
    low, high = weight.min(), weight.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(message(who, "weights in [0, 1]", f"{low:.9g} to {high:.9g}"))
    if not 0 <= threshold <= 1:
        raise ValueError(message(who, "a threshold in [0, 1]", threshold))
    told = (f"diamond: latent node; lines: joints whose weight is above {threshold:g}; larger and darker: more weight"
            f" ({low:.2f} to {high:.2f} in this clip)")  # fmt: skip
    figure, panels = _panels(clip, frames, title, told)
    for frame, ax, size in panels:
        at, there = clip[:2, frame].T, (clip[:, frame] != 0).any(0)  # (V, 2), (V,)
        plot_skeleton(ax, clip[:, frame].T, layout, focus=weight[frame], size=size)
        (left, right), (base, top) = ax.get_xlim(), ax.get_ylim()
        beside = 0.1 * (right - left)
        corners = np.array([[right - beside, top - 0.1 * (top - base)], [left + beside, top - 0.1 * (top - base)]])
        room = [np.hypot(*(at[there] - corner).T).min(initial=np.inf) for corner in corners]
        node = corners[int(np.argmax(room))]  # the upper corner farther from the body
        for joint in np.flatnonzero((weight[frame] > threshold) & there):
            ax.plot(*np.stack([node, at[joint]]).T, color=TRUTH, linewidth=1.2, alpha=0.8, zorder=2.5)
        ax.scatter(
            [node[0]], [node[1]], marker="D", s=38, facecolors="white", edgecolors=TRUTH, linewidths=1.4, zorder=4
        )
    return figure


def _one_body(who: str, x: Values, layout: SkeletonLayout, frames: int, invert_y: bool) -> Array:
    """Checked positions (C, T, V), upright."""
    clip = array(who, "x", x, f"C, T, V={layout.num_joints}")
    c, t, _ = clip.shape
    if c < 2 or not clip.any():
        raise ValueError(message(who, "x (C, T, V) with C of at least 2, and a clip with joints", clip.shape))
    if not 1 <= frames <= t:
        raise ValueError(message(who, f"frames in 1..{t}", frames))
    return clip * np.where((np.arange(c) == 1) & invert_y, -1, 1)[:, None, None]


def _panels(clip: Array, frames: int, title: str | None, told: str) -> tuple[Figure, list[tuple[int, Axes, float]]]:
    """A figure with an empty panel for each frame shown, all of one scale: (frame, axes, size of a joint)."""
    (mpl, _), t = load_matplotlib(), clip.shape[1]
    seen = clip[:2].transpose(1, 2, 0)[(clip != 0).any(0)]  # (joints seen, 2)
    middle, half = (seen.max(0) + seen.min(0)) / 2, 0.56 * np.ptp(seen, axis=0) + 1e-6
    wide = (WIDTH - 2 * SIDE) / frames
    tall = float(np.clip(wide * half[1] / half[0], 1.2, 3.6))
    figure: Figure = mpl.figure.Figure((WIDTH, tall + 0.75), dpi=200)
    (left, base), (right, top) = (middle + way * np.array([wide - 0.06, tall]) * max(half / (wide - 0.06, tall))
                                  for way in (-1, 1))  # fmt: skip
    panels = []
    for column, frame in enumerate(np.linspace(0, t - 1, frames).round().astype(int).tolist()):
        ax = figure.add_axes(inches(figure, SIDE + column * wide, 0.35, wide - 0.06, tall))
        ax.set(xlim=(left, right), ylim=(base, top), xticks=[], yticks=[], facecolor=PANEL)
        ax.set_xlabel(f"frame {frame}", fontsize=8, color=MUTED, labelpad=2)
        ax.set_autoscale_on(False)
        bare(ax)
        panels.append((frame, ax, min(max(4 * tall, 6), 13)))
    figure.text(*inches(figure, SIDE, tall + 0.45)[:2], title or "", fontsize=11, color=INK)
    figure.text(*inches(figure, SIDE, 0.06)[:2], told, fontsize=8, color=MUTED)
    return figure, panels
