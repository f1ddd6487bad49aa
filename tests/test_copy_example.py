"""Examples are copied with what they import, and nothing of the user's is overwritten."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skeleton_focus.copy_example import copy_example, example_names, main

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_every_example_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert example_names() == sorted(path.stem for path in EXAMPLES.glob("*.py"))
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == example_names()
    assert all(len(line.split()) > 3 for line in lines), "each says what it is"


@pytest.mark.parametrize("name", ["bagcn", "fg_stformer", "ms_g3d", "stf_gcn"])
def test_a_network_is_one_file(name: str, tmp_path: Path) -> None:
    assert copy_example(name, tmp_path / "mine") == [tmp_path / "mine" / f"{name}.py"]
    copied = (tmp_path / "mine" / f"{name}.py").read_text()
    assert copied == (EXAMPLES / f"{name}.py").read_text()


NETWORKS = {"bagcn", "fg_stformer", "ms_g3d", "stf_gcn"}
FOR_TRAINING = {*NETWORKS, "command_line", "errors", "loading", "memory", "recipe", "results"}


@pytest.mark.parametrize(
    ("name", "needs"),
    {
        "train": FOR_TRAINING,
        "ensemble": {*FOR_TRAINING, "train"},
        "your_backbone": set(),
    }.items(),
)
def test_the_copies_import_without_the_clone(name: str, needs: set[str], tmp_path: Path) -> None:
    """No file is left out and none copied needlessly."""
    copies = copy_example(name, tmp_path)
    assert copies[0].stem == name and len({*copies}) == len(copies)
    assert {path.stem for path in copies} == {name} | needs
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {name}\n"
        f"print(*(m.__name__ for m in [*sys.modules.values()]\n"
        f"    if str(getattr(m, '__file__', '')).startswith({str(tmp_path)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert not done.returncode, done.stderr
    # Some are imported when a program runs.
    assert {name} <= {*done.stdout.split()} <= {path.stem for path in copies}


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.py").write_text("mine")
    with pytest.raises(
        FileExistsError, match=r"^copy_example: expected new files, got .*recipe.py"
    ):
        copy_example("train", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.py"], "nor half copied"
    assert (tmp_path / "recipe.py").read_text() == "mine"
    assert main(["train", "--to", str(tmp_path)]) == 1
    assert main(["trian", "--to", str(tmp_path)]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: copy_example: expected new files") and "--" not in first
    assert second.startswith("error: copy_example: expected one of bagcn, ")
    new = tmp_path / "new"
    assert main(["stf_gcn.py", "--to", str(new)]) == 0
    assert capsys.readouterr().out == f"copied: {new / 'stf_gcn.py'}\n"
    # What is already there and the same stays, so that programs share a folder.
    before = (new / "stf_gcn.py").stat().st_mtime_ns
    assert main(["train", "export", "--to", str(new)]) == 0
    copied = [Path(line.split(": ")[1]).name for line in capsys.readouterr().out.splitlines()]
    assert {"train.py", "export.py", "recipe.py"} < {*copied} and len({*copied}) == len(copied)
    assert "examples/" not in (new / "train.py").read_text(), "its commands lead to the copies"
    assert "python train.py --out" in (new / "train.py").read_text()
    assert (new / "stf_gcn.py").stat().st_mtime_ns == before
