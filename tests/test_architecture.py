"""How the package is built: who may import whom, what is public, what no file may hold."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path

import pytest

import skeleton_focus

PACKAGE = Path(skeleton_focus.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file.stem: ast.parse(file.read_text(), str(file)) for file in FILES}
THIRD_PARTY = {"torch", "numpy", "einops"}

# file -> files it may import; everything may import _checks, __init__ may import everything.
ARROWS: dict[str, set[str]] = {
    "_actions": set(),
    "_apart": set(),
    "_axes": set(),
    "_bodies": set(),
    "_cache": {"_packed", "formats"},
    "_checks": set(),
    "_closed_form": set(),
    "_explained_model": {"_apart", "_axes", "_closed_form", "_sync_batch_norm", "feature_tap", "focus"},
    "_figure": set(),
    "_forward": set(),
    "_kinematics": {"_actions"},
    "_npy": {"formats"},
    "_ntu_actions": set(),
    "_numbers": set(),
    "_packed": set(),
    "_pickle_machine": {"_pickled"},
    "_pickled": {"formats"},
    "_second_order": {"_axes", "graph_conv"},
    "_sync_batch_norm": {"_forward"},
    "_unpickle": {"_pickle_machine", "_pickled", "formats"},
    "_windows": set(),
    "adjacency": {"layouts"},
    "attention": set(),
    "augment": {"clips", "layouts", "streams", "views"},
    "clips": {"_packed", "formats", "layouts"},
    "datasets": {
        "_cache",
        "_packed",
        "clips",
        "format_arrays",
        "format_kinetics",
        "format_ntu",
        "format_nw_ucla",
        "format_pyskl",
        "formats",
    },
    "feature_tap": {"_axes", "_forward", "_second_order"},
    "focal_joints": set(),
    "focus": {"_second_order"},
    "focus_curves": {"focus"},
    "focus_diffusion": {"graph_conv", "temporal_context"},
    "focus_metrics": {"focus"},
    "focus_sanity": {"_apart", "focus"},
    "format_arrays": {"_npy", "_packed", "_pickled", "_unpickle", "formats", "layouts"},
    "format_kinetics": {"formats", "layouts"},
    "format_ntu": {"_bodies", "_ntu_actions", "_numbers", "formats", "layouts"},
    "format_nw_ucla": {"_numbers", "formats", "layouts"},
    "format_pyskl": {"_pickled", "_unpickle", "formats", "layouts"},
    "formats": {"_packed", "layouts"},
    "graph_conv": {"_windows"},
    "guidance": {"focus", "layouts"},
    "layouts": set(),
    "losses": {"focus", "guidance"},
    "objective": {"_apart", "_axes", "_explained_model", "feature_tap", "focus", "losses", "stf"},
    "occlusion": {"clips", "layouts", "streams"},
    "plot": {"_figure", "layouts"},
    "plot_adjacency": {"_figure", "layouts", "plot"},
    "plot_attention": {"_figure", "layouts", "plot"},
    "plot_classes": {"_figure"},
    "plot_curves": {"_figure"},
    "report": {"_figure", "layouts"},
    "stf": {"graph_conv"},
    "streams": {"layouts"},
    "synthetic": {"_actions", "_kinematics", "clips", "layouts"},
    "temporal_context": set(),
    "temporal_conv": set(),
    "views": {"layouts"},
}


def siblings(module: str) -> set[str]:
    """Files of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "skeleton_focus":
            found |= {*(node.module or "").split(".")[1:]} or {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {part for a in node.names if a.name.startswith("skeleton_focus") for part in a.name.split(".")[1:]}
    return found


def imported_at_the_top(module: str) -> set[str]:
    """Names of the packages that importing a file imports."""
    found = set()
    waiting = list(TREES[module].body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


def test_every_file_has_its_place() -> None:
    assert set(TREES) - {"__init__"} == set(ARROWS)
    assert all(file.parent == PACKAGE for file in FILES)


@pytest.mark.parametrize("module", sorted(set(TREES) - {"__init__"}))
def test_imports_follow_the_arrows(module: str) -> None:
    assert siblings(module) - {"_checks"} == ARROWS[module]


def test_no_import_comes_back_to_where_it_started() -> None:
    graph = {module: siblings(module) for module in TREES if module != "__init__"}
    while graph:
        free = [module for module, needs in graph.items() if not needs & set(graph)]
        assert free, f"a cycle among {sorted(graph)}"
        for module in free:
            del graph[module]


@pytest.mark.parametrize("module", sorted(TREES))
def test_importing_needs_torch_numpy_and_einops_alone(module: str) -> None:
    assert imported_at_the_top(module) - set(sys.stdlib_module_names) <= THIRD_PARTY


@pytest.mark.parametrize("module", sorted(TREES))
def test_no_print_no_assert_no_cuda(module: str) -> None:
    for node in ast.walk(TREES[module]):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: an assert is no answer to a user"
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert called not in ("print", "cuda"), f"line {node.lineno}: {called}()"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_what_it_holds(file: Path) -> None:
    assert ast.get_docstring(TREES[file.stem]), "a file says what it holds"


def test_all_is_sorted_and_complete() -> None:
    names = skeleton_focus.__all__
    assert len(set(names)) == len(names)
    assert [n for n in names if n.isupper() or n[0].isupper()] + [n for n in names if n[0].islower()] == names
    assert all(hasattr(skeleton_focus, name) for name in names)
    imported = {alias.asname or alias.name for node in TREES["__init__"].body if isinstance(node, ast.ImportFrom)
                for alias in node.names}  # fmt: skip
    assert imported == set(names)


@pytest.mark.parametrize("name", skeleton_focus.__all__)
def test_what_is_public_has_an_example_that_runs(name: str) -> None:
    thing = getattr(skeleton_focus, name)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        assert name.isupper(), "what is neither class nor function is a constant"
        return
    assert thing.__module__.startswith("skeleton_focus.")
    assert hasattr(importlib.import_module(thing.__module__), name)
    doc = inspect.getdoc(thing) or ""
    assert doc.splitlines()[0].rstrip().endswith((".", ":")), "one line of purpose"
    if not hasattr(thing, "_fields"):  # a NamedTuple holds what others return
        assert ">>>" in doc


@pytest.mark.parametrize("module", sorted(set(TREES) - {"__init__"}))
def test_what_is_not_underscored_has_a_docstring(module: str) -> None:
    if module.startswith("_"):
        return
    for node in TREES[module].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name}, line {node.lineno}"
