"""What the pictures share: colours, sizes in inches, checked arrays, and matplotlib, imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._checks import check_shape, message, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array: TypeAlias = NDArray[Any]
Values: TypeAlias = Tensor | Array
Box: TypeAlias = tuple[float, float, float, float]

INK, MUTED, BONE, TRUTH, PANEL = "#24292f", "#6e7781", "#b0b8c1", "#0072b2", "#f3f5f7"
BELOW = "#d55e00"  # of values below 0, whose opposite is drawn in the blue of TRUTH
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
    """The library, and light grey to magma's dark purple: lightness falls with the focus, as grey prints need."""
    try:
        import matplotlib
        import matplotlib.animation
        import matplotlib.figure
    except ImportError as error:
        raise ImportError(message("plot", "matplotlib", "none", "pip install 'skeleton_focus[examples]'")) from error
    shades = ["#d3d8df", "#dfdbdb", *matplotlib.colormaps["magma"](np.linspace(0.84, 0.2, 10))]
    return matplotlib, matplotlib.colors.LinearSegmentedColormap.from_list("focus", shades)


def array(who: str, name: str, values: Values, axes: str) -> Array:
    """Checked, and as float64; a focus is in [0, 1]."""
    array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.array(values, np.float64)
    check_shape(who, name, torch.from_numpy(array), axes)
    require(bool(np.isfinite(array).all()), who, f"{name} to be finite", "NaN or infinity")
    low, high = array.min(initial=0), array.max(initial=0)
    fits = name != "focus" or (low >= 0 and high <= 1)
    require(fits, who, "a focus in [0, 1]", f"{low:.3g} to {high:.3g}", "see min_max_normalize")
    return array
