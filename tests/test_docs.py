"""The site builds without a warning, its code runs, and the errors that it explains are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stf_gcn import STFGCN

from skeleton_focus import NTU25

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PROSE = sorted(DOCS.glob("*.md"))
SOURCE = "".join(file.read_text() for folder in ("skeleton_focus", "examples") for file in (ROOT / folder).glob("*.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(built / "trees"), str(DOCS)]
    done = subprocess.run([*command, str(built / "html")], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return built / "html"


def test_every_module_has_a_page_with_its_equations(site: Path) -> None:
    modules = {file.stem for file in (ROOT / "skeleton_focus").glob("*.py") if not file.stem.startswith("_")}
    assert {page.stem.removeprefix("skeleton_focus.") for page in (site / "api").glob("*.html")} == modules
    losses = (site / "api" / "skeleton_focus.losses.html").read_text()
    assert 'class="math notranslate' in losses and "coherence_loss" in losses and "Reference" in losses
    assert "at_least_float32" not in (site / "api" / "skeleton_focus.focus.html").read_text(), "not public"
    assert "plot_film_strip" in (site / "api" / "skeleton_focus.plot.html").read_text()


def test_the_site_needs_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="((?:https?:)?//[^"]*)"', page.read_text())
        assert not loaded, page


def test_links_between_pages_lead_somewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        targets = re.findall(r'href="([^":]+?\.html)?(?:#([^"]*))?"', text)
        for file, anchor in targets:
            there = (page.parent / file).resolve() if file else page
            assert there.is_file(), f"{page}: {file}"
            if anchor:
                found = text if there == page else there.read_text()
                assert f'id="{anchor}"' in found, f"{page}: {file}#{anchor}"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["getting_started.md", "objective.md", "skeletons.md", "layers.md"])
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope: dict[str, object] = {}
    if page == "objective.md":  # which speaks of a network that its reader has
        model = STFGCN(4, NTU25, in_channels=3, widths=(6,) * 6)
        scope = {"model": model, "x": torch.randn(2, 3, 16, 25, 1), "target": torch.tensor([0, 1])}
    assert blocks(page)
    for block in blocks(page):
        exec(block, scope)
    if page == "getting_started.md":
        assert (tmp_path / "focus.png").stat().st_size > 5_000
        assert scope["out"].focus.shape == (4, 1, 32, 25)  # type: ignore[attr-defined]


def test_other_pages_with_code_are_run_by_other_tests() -> None:
    here = {"getting_started.md", "objective.md", "skeletons.md", "layers.md"}
    assert {page.name for page in PROSE if blocks(page.name)} == here | {"data.md", "export.md"}


def words(text: str) -> list[str]:
    """The runs of words of an error that do not depend on the case."""
    plain = re.sub(r"'[^']*'|\"[^\"]*\"|\([^)]*\)|\[[^]]*\]|\{[^}]*\}|\S*[\d/*_=]\S*", "\0", text)
    return [run.strip(" ,.:;%-") for run in plain.split("\0") if len(run.strip(" ,.:;%-")) > 7]


ERRORS = [
    text
    for line in (DOCS / "troubleshooting.md").read_text().splitlines()
    for text in re.findall(r"^\| `([^`]+)` \|", line)
    if "Python" not in text
]


@pytest.mark.parametrize("error", ERRORS)
def test_the_errors_that_are_explained_exist(error: str) -> None:
    source = re.sub(r'"\s*f?"|\\\n', "", SOURCE)  # texts written over several lines
    told = re.split(r",? got ", error)[0]
    assert words(told), error
    for run in words(told):
        filled_in = run.removeprefix("expected "), run.removeprefix("expected split ")  # by the form, by the caller
        assert any(part in source for part in (run, *filled_in)), run
