"""What the pictures share: colours, sizes in inches, checked arrays, and matplotlib, imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._checks import check_shape, message

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array: TypeAlias = NDArray[Any]
Values: TypeAlias = Tensor | Array
Box: TypeAlias = tuple[float, float, float, float]

INK, MUTED, BONE, TRUTH, PANEL = "#24292f", "#6e7781", "#b0b8c1", "#0072b2", "#f3f5f7"
BELOW = "#d55e00"  # of values below 0, whose opposite is drawn in the blue of TRUTH
# A focus from 0 to 1: light grey, then matplotlib's magma down to dark purple; lightness falls, as grey prints need.
SHADES = (
    "#d3d8df", "#dfdbdb", "#feb47b", "#fc9065", "#f66e5c", "#e75263", "#cd4071", "#b0357b", "#912b81", "#752181",
    "#59157e", "#3b0f70",
)  # fmt: skip
WIDTH, SIDE, BAR = 9.0, 0.1, 0.66  # inches: a figure, its left margin, its colour bar with labels


def inches(figure: Figure, left: float, bottom: float, width: float = 0.0, height: float = 0.0) -> Box:
    """A place on a figure, from inches to the shares of it that matplotlib wants."""
    across, up = figure.get_size_inches()
    return left / across, bottom / up, width / across, height / up


def bare(ax: Axes) -> None:
    """No frame; small grey tick labels."""
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=8, labelcolor=MUTED)


def load_matplotlib() -> tuple[Any, Any]:
    """The library, and the colour map of :data:`SHADES`."""
    try:
        import matplotlib
        import matplotlib.animation
        import matplotlib.figure
    except ImportError as error:
        raise ImportError(message("plot", "matplotlib", "none", "pip install matplotlib pillow")) from error
    return matplotlib, matplotlib.colors.LinearSegmentedColormap.from_list("focus", SHADES)


def sort_by_part(parts: Mapping[str, Sequence[int]], num_joints: int) -> dict[str, list[int]]:
    """The rows of a joint x frame map: each joint once, in the first part that holds it, or in the last, "other"."""
    groups: dict[str, list[int]] = {}
    for part, members in {**parts, "other": range(num_joints)}.items():
        groups[part] = [j for j in members if j not in sum(groups.values(), [])]
    return {part: group for part, group in groups.items() if group}


def array(who: str, name: str, values: Values, axes: str) -> Array:
    """Checked, and as float64; a focus is in [0, 1]."""
    array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.array(values, np.float64)
    check_shape(who, name, torch.from_numpy(array), axes)
    if not np.isfinite(array).all():
        raise ValueError(message(who, f"{name} to be finite", "NaN or infinity"))
    low, high = array.min(initial=0), array.max(initial=0)
    if name == "focus" and (not (low >= 0 and high <= 1)):
        raise ValueError(message(who, "a focus in [0, 1]", f"{low:.3g} to {high:.3g}", "see min_max_normalize"))
    return array
