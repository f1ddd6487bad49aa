"""Copy a network or a program of the examples, with the files that it imports.

    python -m skeleton_focus.copy_example                       # list them
    python -m skeleton_focus.copy_example stf_gcn               # stf_gcn.py, into this folder
    python -m skeleton_focus.copy_example train predict --to my_project   # and what they import

The copies are yours to change. The programs need Lightning, matplotlib and pillow.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

from . import _shipped
from ._checks import message

__all__ = ["copy_example", "example_names"]


def example_names() -> list[str]:
    """List the examples by name, such as ``"stf_gcn"``.

    Example:
        >>> {"bagcn", "fg_stformer", "ms_g3d", "stf_gcn"} <= set(example_names())
        True
    """
    return _shipped.example_names()


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
        wanted += sorted({*_shipped.imported_examples(each)} - {*wanted})
    copies = {Path(to) / f"{each}.py": _text(each) for each in wanted}
    yours = [str(copy) for copy, text in copies.items() if copy.exists() and not _is(copy, text)]
    if yours:
        hint = "move them away or name another folder"
        got = f"{', '.join(yours)}, with other contents"
        raise FileExistsError(message("copy_example", "new files", got, hint))
    Path(to).mkdir(parents=True, exist_ok=True)
    for copy, text in copies.items():
        if not copy.exists():
            copy.write_bytes(text.encode())
    return [*copies]


def _text(name: str) -> str:
    """The text of an example. The commands in it lead to the copies: ``train.py``, in no folder."""
    text = _shipped.example_file(name).read_text(encoding="utf-8")
    return re.sub(r"\bexamples/(?=\w+\.py\b)", "", text)


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _first_line(name: str) -> str:
    text = ast.get_docstring(ast.parse(_text(name)))
    return (text or "").partition("\n")[0]


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m skeleton_focus.copy_example",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="the examples; without any, they are listed")
    parser.add_argument("--to", default=".", help="folder of the copies (default: this one)")
    given = parser.parse_args(arguments)
    if not given.names:
        sys.stdout.writelines(f"{name:18}{_first_line(name)}\n" for name in example_names())
        return 0
    try:
        named = [copy_example(name.removesuffix(".py"), given.to) for name in given.names]
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    # Programs share files.
    sys.stdout.writelines(f"copied: {copy}\n" for copy in dict.fromkeys(sum(named, [])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
