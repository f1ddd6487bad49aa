"""The site: `make docs` builds it into build/docs."""

from __future__ import annotations

import re
from typing import Any

import skeleton_focus

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
]
templates_path = ["_templates"]
add_module_names = False
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

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


def setup(app: Any) -> None:
    app.connect("autodoc-skip-member", without_fields)
    app.connect("autodoc-process-docstring", escape_letters, priority=400)  # before napoleon
    app.connect("missing-reference", from_its_module)
