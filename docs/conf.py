"""The site: `make docs` builds it into build/docs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import torch

import skeleton_focus

sys.path.insert(0, str(Path(__file__).parent))  # for tutorials_built
torch.set_num_threads(1)  # the tutorials' sums, and so their figures, do not depend on the cores

project = "skeleton_focus"
author = "The skeleton_focus authors"
copyright = author
version = release = skeleton_focus.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
add_module_names = False
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

sphinx_gallery_conf = {
    "examples_dirs": "../tutorials",
    "gallery_dirs": "tutorials",
    "within_subsection_order": "FileNameSortKey",
    "run_stale_examples": True,  # a tutorial also depends on the package, not on its text alone
    "abort_on_example_error": True,
    "capture_repr": (),  # cells show what they print, and figures
    "image_scrapers": ("tutorials_built.save_figures",),
    "reset_modules": ("matplotlib", "tutorials_built.restore"),
    "reset_modules_order": "both",
    "remove_config_comments": True,
    "download_all_examples": False,
    "write_computation_times": False,
    "min_reported_time": 3600,  # times differ between machines
    "show_signature": False,
}

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "forward, extra_repr",
}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shape", "Shape"), ("Reference", "Reference")]
napoleon_use_rtype = False
napoleon_use_ivar = True


def without_fields(
    app: Any, what: str, name: str, thing: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out a NamedTuple's fields, which its docstring lists."""
    return True if type(thing).__name__ == "_tuplegetter" else None


def escape_letters(
    app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Escape an argument's axis, as in `channels: C.`, which would start a list."""
    lines[:] = [re.sub(r"^(\s*\w+: )([A-Z]\.)", r"\1\\\2", line) for line in lines]


def from_its_module(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Link `skeleton_focus.STFLoss`, as docstrings name it, to the page of its module."""
    name = node.get("reftarget", "").removeprefix(f"{project}.")
    if name not in skeleton_focus.__all__:
        return None
    there = f"{getattr(skeleton_focus, name).__module__}.{name}"
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], there, node, shown
    )


def to_tutorials(app: Any, page: str, source: list[str]) -> None:
    """Lead links to a tutorial's source, which work in the repository, to its page."""
    source[0] = re.sub(r"\]\(\.\./tutorials/(\w+)\.py\)", r"](tutorials/\1.rst)", source[0])


def setup(app: Any) -> None:
    app.connect("autodoc-skip-member", without_fields)
    app.connect("autodoc-process-docstring", escape_letters, priority=400)  # before napoleon
    app.connect("source-read", to_tutorials)
    app.connect("missing-reference", from_its_module)
