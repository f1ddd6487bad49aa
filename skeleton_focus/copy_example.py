"""Copy a network or a program of the examples, with the files that it imports.

    python -m skeleton_focus.copy_example                       # list them
    python -m skeleton_focus.copy_example stf_gcn               # stf_gcn.py, into this folder
    python -m skeleton_focus.copy_example train --to my_project # a program needs several files

The copies are yours to change. The programs need Lightning, matplotlib and pillow.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import sys
from pathlib import Path

from ._checks import message

__all__ = ["copy_example", "example_names"]

# In an installed package; in a clone, the examples lie beside the package.
_FOLDERS = (Path(__file__).parent / "_examples", Path(__file__).parents[1] / "examples")


def example_names() -> list[str]:
    """List the examples by name, such as ``"stf_gcn"``.

    Example:
        >>> {"bagcn", "fg_stformer", "ms_g3d", "stf_gcn"} <= set(example_names())
        True
    """
    return sorted(path.stem for path in _folder().glob("*.py"))


def copy_example(name: str, to: str | Path = ".") -> list[Path]:
    """Copy an example and, if it imports other examples, those too.

    A file that is already there stays if it is the same; if one differs, nothing is copied.

    Args:
        name: one of :func:`example_names`.
        to: folder of the copies; it is created.

    Returns:
        The paths of the files, the named example first.

    Raises:
        ValueError: an unknown name.
        FileExistsError: another file of one of the names is already there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in copy_example("ms_g3d_published", folder)]
        ['ms_g3d_published.py', 'ms_g3d.py']
    """
    names = example_names()
    if name not in names:
        raise ValueError(message("copy_example", f"one of {', '.join(names)}", repr(name)))
    wanted = [name]
    for each in wanted:  # grows
        wanted += sorted(_imports(each) & set(names) - set(wanted))
    copies = [Path(to) / f"{each}.py" for each in wanted]
    sources = [_folder() / f"{each}.py" for each in wanted]
    pairs = list(zip(sources, copies, strict=True))
    yours = [str(copy) for source, copy in pairs if copy.exists() and not _same(source, copy)]
    if yours:
        hint = "move them away or name another folder"
        got = f"{', '.join(yours)}, with other contents"
        raise FileExistsError(message("copy_example", "new files", got, hint))
    Path(to).mkdir(parents=True, exist_ok=True)
    for source, copy in pairs:
        if not copy.exists():
            shutil.copyfile(source, copy)
    return copies


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _folder() -> Path:
    return next(folder for folder in _FOLDERS if folder.is_dir())


def _imports(name: str) -> set[str]:
    """The modules that an example imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse((_folder() / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def _first_line(name: str) -> str:
    text = ast.get_docstring(ast.parse((_folder() / f"{name}.py").read_text(encoding="utf-8")))
    return (text or "").partition("\n")[0]


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m skeleton_focus.copy_example",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="the example; without it, they are listed")
    parser.add_argument("--to", default=".", help="folder of the copies (default: this one)")
    given = parser.parse_args(arguments)
    if given.name is None:
        sys.stdout.writelines(f"{name:18}{_first_line(name)}\n" for name in example_names())
        return 0
    try:
        copies = copy_example(given.name.removesuffix(".py"), given.to)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.writelines(f"copied: {copy}\n" for copy in copies)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
