"""What sphinx-gallery calls when it runs the tutorials: save figures, restore the process."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

# The temporary files of the tutorials go when the build ends.
tempfile.tempdir = tempfile.mkdtemp()
atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
_FOLDER = os.getcwd()
_PATH = [*sys.path]


def restore(gallery: dict[str, Any], file: str, when: str) -> None:
    """Undo what a tutorial changes: its folder and, in the search path, copied programs."""
    os.chdir(_FOLDER)
    copied = {*sys.path} - {*_PATH}
    sys.path[:] = _PATH
    for name, module in [*sys.modules.items()]:
        if os.path.dirname(getattr(module, "__file__", None) or "") in copied:
            del sys.modules[name]
    os.environ.pop("SKELETON_FOCUS_CACHE", None)


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
