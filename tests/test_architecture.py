"""How the package is built: who may import whom, what is public, what no file may hold."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import skeleton_focus

PACKAGE = Path(skeleton_focus.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file.stem: ast.parse(file.read_text(), str(file)) for file in FILES}
THIRD_PARTY = {"torch", "numpy", "einops"}


def siblings(module: str) -> set[str]:
    """Files of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= (
                {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
            )
        elif (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] == "skeleton_focus"
        ):
            found |= {*(node.module or "").split(".")[1:]} or {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            for a in node.names:
                if a.name.startswith("skeleton_focus"):
                    found.update(a.name.split(".")[1:])
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
            waiting += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)
            ]
    return found


def test_the_package_is_flat() -> None:
    assert all(file.parent == PACKAGE for file in FILES)


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
        assert not isinstance(node, ast.Assert), (
            f"line {node.lineno}: an assert is no answer to a user"
        )
        if isinstance(node, ast.Call):
            called = (
                node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            )
            assert called not in ("print", "cuda"), f"line {node.lineno}: {called}()"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_what_it_holds(file: Path) -> None:
    assert ast.get_docstring(TREES[file.stem]), "a file says what it holds"


def test_all_is_sorted_and_complete() -> None:
    names = skeleton_focus.__all__
    assert len(set(names)) == len(names)
    assert [n for n in names if n.isupper() or n[0].isupper()] + [
        n for n in names if n[0].islower()
    ] == names
    assert all(hasattr(skeleton_focus, name) for name in names)
    imported: set[str] = set()
    for node in TREES["__init__"].body:
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name for alias in node.names}
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


def test_import_is_light() -> None:
    """No compiler is loaded and no environment variable is set before something is compiled."""
    program = (
        "import os, sys, torch; before = dict(os.environ); import skeleton_focus; "
        "print('torch._dynamo' in sys.modules, dict(os.environ) == before)"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]
