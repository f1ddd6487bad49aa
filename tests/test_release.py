"""Test the release: the archives hold the package alone, and the wheel works by itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
import yaml

import skeleton_focus

ROOT = Path(__file__).parents[1]
PACKAGE = {
    f"skeleton_focus/{file.name}" for file in (ROOT / "skeleton_focus").iterdir() if file.is_file()
}
WEIGHTS = {
    str(file.relative_to(ROOT))
    for kind in ("pt", "json")
    for file in (ROOT / "weights").rglob(f"model.{kind}")
}
EPOCH = 1_700_000_000  # SOURCE_DATE_EPOCH
EXAMPLES = {file.name for file in (ROOT / "examples").glob("*.py")}


def build(folder: Path, copy: Callable[[str, str], Any] = shutil.copy2) -> tuple[Path, Path]:
    """Build both archives of a copy in ``folder``, so that the clone stays as it is."""
    ignored = shutil.ignore_patterns(
        ".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "api"
    )
    shutil.copytree(ROOT, folder / "clone", ignore=ignored, copy_function=copy)
    done = subprocess.run(
        ["make", "dist", f"BIN={Path(sys.executable).parent}"],
        env=os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH)},
        cwd=folder / "clone",
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stdout + done.stderr
    (sdist,), (wheel,) = (
        list((folder / "clone" / "dist").glob(f"*.{kind}")) for kind in ("tar.gz", "whl")
    )
    return sdist, wheel


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("release"))


def test_two_builds_give_identical_archives(archives: tuple[Path, Path], tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        again = build(tmp_path, copy=shutil.copyfile)  # which keeps neither times nor modes
    finally:
        os.umask(previous)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in archives]
    with tarfile.open(archives[0]) as file:
        members = file.getmembers()
    paths = [member.name.split("/") for member in members]
    assert paths == sorted(paths)
    assert {(one.uid, one.gid, one.uname, one.mtime) for one in members} == {(0, 0, "", EPOCH)}


def test_a_release_is_a_commit(tmp_path: Path) -> None:
    """A file that git does not know would go into the archives."""
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    errors = {
        str(EPOCH): "a clone without changes or new files",
        "": "a git clone, or SOURCE_DATE_EPOCH",
    }
    for epoch, expected in errors.items():
        done = subprocess.run(
            ["make", "dist"],
            env=os.environ | {"SOURCE_DATE_EPOCH": epoch},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode and f"error: expected {expected}" in done.stdout
        assert not (tmp_path / "dist").exists()


def test_the_archives_hold_the_package_and_nothing_else(archives: tuple[Path, Path]) -> None:
    sdist, wheel = archives
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    copied = {f"skeleton_focus/_examples/{name}" for name in EXAMPLES}
    assert {name for name in names if ".dist-info/" not in name} == PACKAGE | copied | {
        f"skeleton_focus/_{name}" for name in WEIGHTS
    }
    assert "skeleton_focus/py.typed" in names
    with tarfile.open(sdist) as file:
        members = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    made = {name for name in members if ".egg-info/" in name} | {"PKG-INFO"}
    told = {
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "LICENSE",
        "MANIFEST.in",
        "setup.cfg",
        "pyproject.toml",
    }
    assert members - made == PACKAGE | told | {f"examples/{name}" for name in EXAMPLES} | WEIGHTS


def test_the_package_itself_needs_three_others(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as file:
        (name,) = (name for name in file.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(file.read(name).decode())
    needs = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert {re.split(r"[<>=]", need)[0] for need in needs} == {"torch", "numpy", "einops"}
    assert set(metadata.get_all("Provides-Extra", [])) == {"examples", "export", "docs", "test"}
    assert metadata["Version"] == skeleton_focus.__version__ and metadata["License"] == "MIT"


def test_the_wheel_works_in_a_clean_environment(
    archives: tuple[Path, Path], tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    # What it needs is taken from here: path files of a folder that a path file names, the clone's,
    # are not read.
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(archives[1])]
    subprocess.run(pip, check=True, cwd=tmp_path)
    (Path(where) / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (block, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    block += "import skeleton_focus\nprint(skeleton_focus.__file__, tuple(out.focus.shape))\n"
    done = subprocess.run(
        [python, "-c", block], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert not done.returncode, done.stderr
    assert done.stdout == f"{where}/skeleton_focus/__init__.py (4, 1, 32, 25)\n"
    # A file is read by the numpy that is there.
    frame = (
        "1\n7 0 1 1 1 1 0 0.1 -0.2 2\n25\n" + "0.25 -1.5 3 270.5 190 1030 510.25 0 0 0 1 2\n" * 25
    )
    path = tmp_path / "S001C002P003R002A051.skeleton"
    path.write_text("2\n" + 2 * frame)
    code = "from skeleton_focus.format_ntu import read_ntu\n"
    code += f"print(read_ntu({str(path)!r}).x[:, 1, 24, 0].tolist())"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert not done.returncode, done.stderr
    assert done.stdout == "[0.25, -1.5, 3.0]\n"
    command = [python, "-m", "skeleton_focus.datasets", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "expected a folder or file of clips" in done.stdout
    command = [python, "-m", "skeleton_focus.copy_example", "stf_gcn", "--to", str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path)
    code = "from stf_gcn import STFGCN; import stf_gcn; print(stf_gcn.__file__)"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout == f"{tmp_path}/stf_gcn.py\n", done.stderr
    code = "from skeleton_focus import load_pretrained, pretrained_names\n"
    code += "print(*(len(load_pretrained(name).classes) for name in pretrained_names()))"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout == "10 10 10 10 10 10\n", done.stderr


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0" and cited["version"] == skeleton_focus.__version__
    assert {paper["year"] for paper in cited["references"]} == {2019, 2020, 2022}
    (newest, *_) = re.findall(
        r"^## \[?([^]\s]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert newest in (skeleton_focus.__version__, "Unreleased")
