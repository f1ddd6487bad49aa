"""The examples and the weights that come with the package, installed or in a clone."""

from __future__ import annotations

import ast
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType

_PACKAGE = Path(__file__).parent
_IMPORTING = threading.RLock()


def shipped_folder(name: str) -> Path:
    """Find ``examples`` or ``weights``: inside an installed package, beside it in a clone."""
    inside = _PACKAGE / f"_{name}"
    return inside if inside.is_dir() else _PACKAGE.parent / name


def example_file(name: str) -> Path:
    return shipped_folder("examples") / f"{name}.py"


def example_names() -> list[str]:
    return sorted(path.stem for path in shipped_folder("examples").glob("*.py"))


def imported_examples(name: str) -> list[str]:
    """List the examples that an example imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(example_file(name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return sorted(found & {*example_names()})


def import_example(name: str) -> ModuleType:
    """Import an example as ``skeleton_focus._examples.NAME``.

    Examples import each other by bare names, as programs in one folder do. A user may have other
    modules of these names, so each bare name means ours only while an example is executed.
    """
    full = f"{__package__}._examples.{name}"
    with _IMPORTING:
        if full in sys.modules:
            return sys.modules[full]
        needed = {each: import_example(each) for each in imported_examples(name)}
        spec = importlib.util.spec_from_file_location(full, example_file(name))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        theirs = {each: sys.modules[each] for each in needed if each in sys.modules}
        sys.modules.update({full: module, **needed})
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[full]
            raise
        finally:
            for each in needed:
                del sys.modules[each]
            sys.modules.update(theirs)
        return module
