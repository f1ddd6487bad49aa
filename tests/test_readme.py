"""The README's code runs, its links lead somewhere, and its table names what exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_code_blocks_run() -> None:
    first, block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in first.splitlines() if line]) <= 15
    scope: dict[str, object] = {}
    exec(first, scope)
    exec(block, scope)
    y = scope["graph_conv"](torch.randn(2, 64, 8, 25), torch.tensor([8, 5]))  # type: ignore[operator]
    assert y.shape == (2, 128, 8, 25)
    out = scope["out"]
    assert out.focus.shape == (4, 1, 32, 25)  # type: ignore[attr-defined]
    assert any(p.grad is not None for p in scope["objective"].parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if not t.startswith("https://")]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_the_table_names_what_exists() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    modules = {path.stem for path in (ROOT / "skeleton_focus").glob("*.py") if not path.stem.startswith("_")}
    assert named == modules
    tests = {name for row in rows for name in re.findall(r"`(?:tests/)?(test_\w+\.py)`", row)}
    assert tests
    assert not [name for name in tests if not (ROOT / "tests" / name).exists()]


def test_the_import_line_of_the_package() -> None:
    line = "from skeleton_focus import STFLoss, STFObjective; import sys; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
