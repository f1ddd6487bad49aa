"""Pictures of adjacencies: the strongest entries as chords from joint to joint, on the body.

As in :mod:`skeleton_focus.plot`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._checks import message
from ._figure import BELOW, INK, MUTED, PANEL, SIDE, TRUTH, WIDTH, Array, Values, array, bare, inches, load_matplotlib
from .layouts import SkeletonLayout
from .plot import plot_skeleton

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEND, WIDEST, POINTS = 0.2, 2.6, 25  # sagitta of a chord as twice its share of the length; points; places along a chord
SIGNS = ((1, TRUTH, "solid"), (-1, BELOW, (0, (3.0, 1.5))))  # told apart in grey too


def plot_adjacency(
    body: Values, rows: Mapping[str, Values], layout: SkeletonLayout, *, chords: int = 30, title: str | None = None,
    invert_y: bool = False,
) -> Figure:  # fmt: skip
    r"""The strongest entries of adjacency matrices as chords on a body: a row a key, a panel a subset k.

    Entry (v, w) carries joint v to joint w, as in :math:`Y = X A_k`: a chord, with a head halfway, that bends to its
    left; where (w, v) equals it, one chord without a head stands for both. Entries (v, v) are rings, drawn where they
    are as strong as the weakest chord drawn. Wider and darker is stronger, of the row's strongest entry; negative
    entries are dashed.

    Shape:
        body (V, C), each of rows (K, V, V), or (V, V) for one subset.

    Args:
        body: positions, C of at least 2, as ``x[:, frame, :, person].T`` of a clip; joints at 0 are missing.
        rows: adjacencies by the title of their row, as ``{"A": conv.adjacency, "G": generated[0]}``.
        layout: the skeleton.
        chords: to draw in each panel, at most.
        title: stands above.
        invert_y: for image coordinates, whose y grows downwards.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: shapes that do not fit, no rows, a body without joints, or chords below 0.

    Example:
        >>> from skeleton_focus import KINECT20, multi_scale_adjacency
        >>> rows = {"A": multi_scale_adjacency(KINECT20, 3), "G": np.random.randn(3, 20, 20)}
        >>> len(plot_adjacency(np.random.rand(20, 3), rows, KINECT20).axes)  # panels and, of each row, its scale
        8

    Reference:
        STF (Ke et al., AAAI 2022), equation 1.
    """
    (mpl, _), who, v = load_matplotlib(), "plot_adjacency", layout.num_joints
    pose = array(who, "body", body, f"V={v}, C") * 1.0
    if pose.shape[1] < 2 or not pose.any():
        raise ValueError(message(who, "body (V, C), C of at least 2, with joints", pose.shape))
    if len(rows) == 0:
        raise ValueError(message(who, "at least one row", "none"))
    if chords < 0:
        raise ValueError(message(who, "chords of at least 0", chords))
    subsets = {name: _subsets(who, name, row, v) for name, row in rows.items()}
    pose[:, 1] *= -1 if invert_y else 1
    there, lines = pose.any(1), {name: math.ceil(len(row) / 7) for name, row in subsets.items()}
    columns = max(math.ceil(len(row) / lines[name]) for name, row in subsets.items())
    seen, wide = pose[there, :2], (WIDTH - 2 * SIDE) / columns
    middle, half = (seen.max(0) + seen.min(0)) / 2, np.ptp(seen, axis=0) / 2
    half += 0.16 * half.max() + 1e-6
    tall = float(np.clip(wide * half[1] / half[0], 1.4, 3.4))
    reach = np.array([wide - 0.06, tall]) * max(half / (wide - 0.06, tall))
    step, head = tall + 0.22, 0.42 if title else 0.1
    height = head + 0.25 + sum(0.36 + step * lines[name] for name in subsets)
    figure: Figure = mpl.figure.Figure((WIDTH, height), dpi=200)
    if title:
        figure.text(*inches(figure, SIDE, height - 0.3)[:2], title, fontsize=11, color=INK)
    top = height - head
    for name, matrices in subsets.items():
        visible = np.abs(matrices) * np.outer(there, there)
        strongest = visible.max()
        figure.text(*inches(figure, SIDE, top - 0.22)[:2], name, fontsize=10, color=INK)
        _scale(figure, top - 0.28, matrices * (visible > 0), strongest)
        for k, matrix in enumerate(matrices):
            line, column = divmod(k, columns)
            bottom = top - 0.36 - tall - line * step
            ax = figure.add_axes(inches(figure, SIDE + column * wide, bottom, wide - 0.06, tall))
            ax.set(xlim=middle[0] + reach[0] * np.array([-1, 1]), ylim=middle[1] + reach[1] * np.array([-1, 1]),
                   xticks=[], yticks=[], facecolor=PANEL, autoscale_on=False)  # fmt: skip
            plot_skeleton(ax, pose, layout, size=min(max(3.2 * tall, 5), 9))
            ax.scatter(seen[:, 0], seen[:, 1], s=7, color=INK, linewidths=0, zorder=4)  # where the chords end
            found = _strongest(matrix * np.outer(there, there), chords)
            _draw(ax, pose[:, :2], found, strongest, inch=2 * reach[1] / tall)
            entries = int((visible[k] > 0).sum())
            share = f"all {entries} entries" if found.entries == entries else f"{found.entries} of {entries} entries"
            ax.set_xlabel(f"k = {k}: {share}", fontsize=8, color=MUTED, labelpad=2)
            bare(ax)
        top -= 0.36 + step * lines[name]
    told = ("arrow: from joint to joint, without a head: both ways alike; ring: a joint to itself; dashed: below 0; "
            f"at most {chords} chords in a panel")  # fmt: skip
    figure.text(*inches(figure, SIDE, 0.08)[:2], told, fontsize=8, color=MUTED)
    return figure


class _Found(NamedTuple):
    """Entries to draw, the weakest first: (from, to, value, both ways) and (joint, value); the number of entries."""

    chords: list[tuple[int, int, float, bool]]
    rings: list[tuple[int, float]]
    entries: int


def _subsets(who: str, name: str, row: Values, v: int) -> Array:
    """Checked, (K, V, V)."""
    row = row[None] if len(row.shape) == 2 else row
    matrices = array(who, f"row {name!r}", row, f"K, V={v}, V={v}")
    if len(matrices) == 0:
        raise ValueError(message(who, f"row {name!r} to hold at least one subset", matrices.shape))
    return matrices


def _strongest(matrix: Array, limit: int) -> _Found:
    """The strongest entries, (V, V) -> chords and rings; two entries that are equal are one chord."""
    alike = np.isclose(matrix, matrix.T, rtol=1e-4, atol=1e-12)
    strength = np.abs(matrix) * ~(np.tril(alike, -1) | np.eye(len(matrix), dtype=bool))  # of two alike the upper one
    order = np.argsort(-strength, axis=None, kind="stable")[:limit]
    pairs = [(int(i // len(matrix)), int(i % len(matrix))) for i in order if strength.flat[i] > 0]
    chords = [(a, b, float(matrix[a, b]), bool(alike[a, b])) for a, b in reversed(pairs)]
    weakest = abs(chords[0][2]) if len(chords) == limit and chords else 0.0
    rings = [(j, float(value)) for j, value in enumerate(np.diag(matrix)) if value and abs(value) >= weakest]
    rings.sort(key=lambda ring: abs(ring[1]))
    return _Found(chords, rings, len(rings) + sum(1 + both for _, _, _, both in chords))


def _draw(ax: Axes, at: Array, found: _Found, strongest: float, inch: float) -> None:
    """Chords, their heads and rings of both signs; an ``inch`` is so long in the positions ``at`` (V, 2)."""
    (mpl, _), along = load_matplotlib(), np.linspace(0, 1, POINTS)[:, None]
    for sign, colour, dashes in SIGNS:
        curves, heads, looks, head_looks = [], [], [], []
        for a, b, value, both in found.chords:
            if value * sign <= 0:
                continue
            way = at[b] - at[a]
            left = np.array([-way[1], way[0]])
            bend = (at[a] + at[b]) / 2 + BEND * left  # where the tangents of the ends meet
            curves.append((1 - along) ** 2 * at[a] + 2 * along * (1 - along) * bend + along**2 * at[b])
            looks.append(abs(value) / strongest)
            length = math.hypot(*way)
            if not both and length > 0:
                size = min(inch * (0.045 + 0.035 * looks[-1]), 0.5 * length)
                ahead, aside = size * way / length, 0.45 * size * left / length
                tip = curves[-1][POINTS // 2] + ahead / 2
                heads.append([tip, tip - ahead + aside, tip - ahead - aside])
                head_looks.append(looks[-1])
        shades = _shades(colour, looks)
        ax.add_collection(mpl.collections.LineCollection(
            curves, colors=shades, linewidths=_widths(looks), linestyles=[dashes], zorder=3.5))  # fmt: skip
        ax.add_collection(mpl.collections.PolyCollection(
            heads, facecolors=_shades(colour, head_looks), edgecolors="none", zorder=3.6))  # fmt: skip
        loops = [(j, abs(value) / strongest) for j, value in found.rings if value * sign > 0]
        joints, looks = [j for j, _ in loops], [look for _, look in loops]
        ax.scatter(at[joints, 0], at[joints, 1], s=70, facecolors="none", edgecolors=_shades(colour, looks),
                   linewidths=_widths(looks), linestyles=[dashes], zorder=3.4)  # fmt: skip


def _shades(colour: str, looks: list[float]) -> list[tuple[float, float, float, float]]:
    """A colour for each strength in [0, 1], the fainter the weaker."""
    red, green, blue = load_matplotlib()[0].colors.to_rgb(colour)
    return [(red, green, blue, 0.3 + 0.7 * look) for look in looks]


def _widths(looks: list[float]) -> list[float]:
    return [0.5 + (WIDEST - 0.5) * look for look in looks]


def _scale(figure: Figure, bottom: float, matrices: Array, strongest: float) -> None:
    """What the widths mean in a row: a sample of its strongest and of half of that, of each sign it has."""
    signs = [look for look in SIGNS if (matrices * look[0] > 0).any()]
    ax = figure.add_axes(inches(figure, WIDTH - 5.3, bottom, 5.2, 0.26))
    ax.set(xlim=(0, 5.2), ylim=(-1, 1), xticks=[], yticks=[], facecolor="none")
    bare(ax)
    samples = [(sign, colour, dashes, share) for sign, colour, dashes in signs for share in (1.0, 0.5)]
    for number, (sign, colour, dashes, share) in enumerate(samples):
        right = 5.2 - 1.3 * (len(samples) - number)
        ax.plot([right + 0.1, right + 0.55], [0, 0], color=_shades(colour, [share])[0], linestyle=dashes,
                linewidth=_widths([share])[0], dash_capstyle="butt")  # fmt: skip
        ax.text(right + 0.63, 0, f"{sign * share * strongest:+.2g}", va="center", fontsize=8, color=MUTED)
    if not samples:
        ax.text(5.2, 0, "zero throughout", ha="right", va="center", fontsize=8, color=MUTED)
