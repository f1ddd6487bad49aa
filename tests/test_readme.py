"""The README's code runs, its links lead somewhere, and its table names what exists."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import test_format_ntu as ntu

from skeleton_focus import open_dataset

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "weights" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.fixture
def ntu_folder(tmp_path: Path) -> Path:
    """Four clips of NTU."""
    folder = tmp_path / "nturgb+d_skeletons"
    folder.mkdir()
    for subject in (1, 2, 3, 4):
        frames = [{"1": ntu.walk(t), "2": ntu.walk(t, x=2.0)} for t in range(14)]
        ntu.write(folder, ntu.skeleton(frames), f"S001C002P00{subject}R001A050")
    return folder


def test_the_code_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    losses, explained, poses = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "load_pretrained" in poses  # tests/test_predict.py runs it
    assert len([line for line in losses.splitlines() if line]) <= 15
    scope: dict[str, Any] = {}
    exec(losses, scope)
    assert scope["out"].focus.shape == (4, 1, 32, 25)
    assert all(p.grad is not None for p in scope["net"].low.parameters())
    exec(explained, scope)
    assert scope["focus"].shape == (4, 1, 32, 25) and scope["logits"].shape == (4, 60)
    assert (tmp_path / "focus.png").stat().st_size > 5_000


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_the_blocks_of_the_page_on_data_run(
    ntu_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    assert len(blocks) == 7
    opened, loaded, arrays, numpy_alone, collected, converted, augmented = blocks
    scope: dict[str, object] = {"PATH": ntu_folder}
    exec(opened, scope)
    exec(loaded, scope)
    (ntu_folder / "S001C002P003R001A009.skeleton").write_text("x")
    monkeypatch.chdir(tmp_path)
    exec(numpy_alone, scope)
    for block in (arrays, collected, converted, augmented):
        exec(block, scope)
    mine = open_dataset("mine.npz")
    assert len(mine.train) == 2 and mine.test.classes == ("wave", "run")
    (problem,) = scope["problems"]  # type: ignore[misc]
    assert "line 1: expected numbers, got 'x'" in str(problem)
    assert scope["x"].shape == (2, 2, 8, 25, 1)  # type: ignore[attr-defined]
    assert scope["seen"].x.shape == (8, 3, 32, 25, 2) and len(scope["one_array"]) == 2  # type: ignore


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", there.read_text(), re.MULTILINE)
            names = [
                re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
            ]
            assert anchor in names, target


def test_the_table_names_what_exists() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    modules = {
        path.stem
        for path in (ROOT / "skeleton_focus").glob("*.py")
        if not path.stem.startswith("_")
    }
    assert named == modules


def test_the_import_line_of_the_package() -> None:
    line = "from skeleton_focus import STFLoss, STFObjective; import sys; "
    line += "print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_benchmark_is_listed() -> None:
    listed = set(re.findall(r"`(\w+\.py)", (ROOT / "benchmarks" / "README.md").read_text()))
    programs = {
        file.name for file in (ROOT / "benchmarks").glob("*.py") if "__main__" in file.read_text()
    }
    assert programs <= listed
    assert all((ROOT / "benchmarks" / name).exists() for name in listed - {"train.py"})
