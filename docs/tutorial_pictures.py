"""Save the figures of the tutorials when the site is built."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def save_figures(block: Any, variables: dict[str, Any], gallery: dict[str, Any]) -> str:
    """Save a cell's figures: those of pyplot, and the value of the last line, as in a notebook.

    The figures of ``skeleton_focus.plot`` are not registered with pyplot, so sphinx-gallery's own
    scraper does not find them.
    """
    figures = [plt.figure(number) for number in plt.get_fignums()]
    # sphinx-gallery stores the value of the last line here. It stays until another cell ends with
    # an expression, so it is reset lest those in between show the same figure.
    names = variables["example_globals"]
    last = names.get("___")
    if isinstance(last, Figure) and last not in figures:
        figures.append(last)
    names["___"] = None
    paths = []
    titles = []
    for figure, path in zip(figures, variables["image_path_iterator"], strict=False):
        figure.savefig(path, dpi=160)
        paths.append(path)
        for axes in figure.axes:
            titles += filter(None, (axes.get_title("left"), axes.get_title()))
    plt.close("all")
    return figure_rst(paths, gallery["src_dir"], ", ".join(titles))
