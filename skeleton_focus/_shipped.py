"""The examples and the weights that come with the package, installed or in a clone."""

from __future__ import annotations

import ast
import importlib.util
import sys
import threading
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

_HERE = Path(__file__).parent
_EXAMPLES = f"{__package__}._examples"
_IMPORTING = threading.RLock()


def shipped_folder(name: str) -> Path:
    """Find ``examples`` or ``weights``: inside an installed package, beside it in a clone."""
    inside, beside = _HERE / f"_{name}", _HERE.parent / name
    if inside.is_dir():
        return inside
    # A folder of this name beside an installed package is somebody else's.
    if beside.is_dir() and (_HERE.parent / "setup.cfg").is_file():
        return beside
    raise FileNotFoundError(f"expected {inside} of the installed package; install it again")


def example_file(name: str) -> Path:
    return shipped_folder("examples") / f"{name}.py"


def example_names() -> list[str]:
    return sorted(path.stem for path in shipped_folder("examples").glob("*.py"))


def imported_examples(name: str) -> list[str]:
    """List the examples that an example imports anywhere."""
    tree = ast.parse(example_file(name).read_text(encoding="utf-8"))
    return sorted({name for _, name in _sibling_imports(tree)})


def import_example(name: str) -> ModuleType:
    """Import an example as ``skeleton_focus._examples.NAME``, whatever modules the user has."""
    full = f"{_EXAMPLES}.{name}"
    with _IMPORTING:
        if full in sys.modules:
            return sys.modules[full]
        parent = sys.modules.setdefault(_EXAMPLES, ModuleType(_EXAMPLES))
        for each in imported_examples(name):
            import_example(each)
        file = str(example_file(name))
        loader = _ExampleLoader(full, file)
        spec = ModuleSpec(full, loader, origin=file)
        spec.has_location = True
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[full]
            raise
        setattr(parent, name, module)
        return module


class _ExampleLoader(SourceFileLoader):
    """Load an example whose imports of other examples lead to those of the package.

    Examples import each other by bare names, such as ``recipe``, as programs in one folder do.
    """

    def path_stats(self, path: str) -> Any:
        # Without it, no bytecode is read or written: that of the same file as a program differs.
        raise OSError

    def source_to_code(  # type: ignore[override]
        self, data: Any, path: Any, *, _optimize: int = -1
    ) -> CodeType:
        tree = ast.parse(data)
        for node, name in _sibling_imports(tree):
            if isinstance(node, ast.alias):
                node.name, node.asname = f"{_EXAMPLES}.{name}", node.asname or name
            else:
                node.module = f"{_EXAMPLES}.{name}"
        code: CodeType = compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)
        return code


def _sibling_imports(tree: ast.AST) -> list[tuple[ast.ImportFrom | ast.alias, str]]:
    """List the nodes that import an example, and its name."""
    found: list[tuple[ast.ImportFrom | ast.alias, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            found.append((node, str(node.module)))
        elif isinstance(node, ast.Import):
            found += [(alias, alias.name) for alias in node.names]
    names = {*example_names()}
    return [(node, name) for node, name in found if name in names]
