"""Load code to compare with: another clone of this repository, or a network from a file."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

OWN = Path(__file__).resolve().parents[1]
FOLDERS = ("", "examples", "benchmarks")


@contextmanager
def _apart(folders: Sequence[Path]) -> Iterator[None]:
    """Import from these folders first; modules of this clone are hidden, and back afterwards."""
    packages = [Path(path) for path in importlib.import_module("skeleton_focus").__path__]
    own = [OWN, *(package.parent for package in packages)]
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if not name.startswith("__") and _lies_in(module, own)
    }
    names = {name.partition(".")[0] for name in hidden}
    path = list(sys.path)
    for name in hidden:
        del sys.modules[name]
    sys.path[:0] = [str(folder) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update(hidden)
        sys.path[:] = path


def _lies_in(module: ModuleType, folders: Sequence[Path]) -> bool:
    file = getattr(module, "__file__", None)
    # torch.ops names a file that does not exist; an environment may lie in the clone.
    if file is None or not Path(file).is_absolute() or "site-packages" in file:
        return False
    return any(Path(file).resolve().is_relative_to(folder) for folder in folders)


def load_clone(root: str) -> ModuleType:
    """Return ``benchmarks/speed.py`` of another clone, running on that clone's own package."""
    folder = Path(root).resolve()
    if not (folder / "benchmarks" / "speed.py").is_file():
        raise SystemExit(f"error: expected --against with a clone of this repository, got {root}")
    with _apart([folder / name for name in FOLDERS]):
        theirs = importlib.import_module("speed")
        package = importlib.import_module("skeleton_focus")
        found = Path(str(package.__file__)).resolve()
    if not found.is_relative_to(folder):
        raise SystemExit(f"error: expected the package of {folder}, got {found}")
    return theirs


def load_network(name: str, options: Sequence[str]) -> nn.Module:
    """Build the network of ``PATH:CLASS`` with options such as ``num_class=60``.

    The file's folder and the folder above it are searched for what it imports.
    """
    path, colon, attribute = name.rpartition(":")
    file = Path(path).resolve()
    if not attribute or not file.is_file():
        hint = f"; there is no file {path}" if colon and attribute else ""
        raise SystemExit(f"error: expected --module PATH:CLASS, got {name}{hint}")
    keywords = {}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise SystemExit(f"error: expected --options as NAME=VALUE, got {option}")
        try:
            keywords[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            keywords[key] = text
    with _apart([file.parent, file.parent.parent]):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        if spec is None or spec.loader is None:
            raise SystemExit(f"error: expected --module with a Python file, got {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        if not hasattr(module, attribute):
            raise SystemExit(f"error: expected --module with a class of {path}, got {attribute}")
        try:
            network = getattr(module, attribute)(**keywords)
        except (AttributeError, TypeError) as error:
            raise SystemExit(f"error: {name} cannot be built: {error}; see --options") from None
    if not isinstance(network, nn.Module):
        raise SystemExit(f"error: expected {name} to build a torch.nn.Module, got {network!r}")
    return network


def commit(folder: Path) -> str:
    """The short name of a folder's commit, with + if files were changed; or "no commit"."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
