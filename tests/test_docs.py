"""Test that the site builds without warnings, its code runs, and its errors are the code's."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch._dynamo.config
import torch._inductor.config
from stf_gcn import STFGCN

from skeleton_focus import NTU25

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIALS = ROOT / "tutorials"
PROSE = sorted(DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    # It writes pages of its own there.
    own = shutil.ignore_patterns("api", "tutorials", "__pycache__")
    shutil.copytree(DOCS, built / "docs", ignore=own)
    shutil.copytree(TUTORIALS, built / "tutorials", ignore=own)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(built / "docs")]
    done = subprocess.run(
        [*command, str(built / "html")], capture_output=True, text=True, timeout=900, check=False
    )
    assert not done.returncode, done.stderr
    return built / "html"


def test_every_module_has_a_page_with_its_equations(site: Path) -> None:
    modules = {
        file.stem
        for file in (ROOT / "skeleton_focus").glob("*.py")
        if not file.stem.startswith("_")
    }
    assert {
        page.stem.removeprefix("skeleton_focus.") for page in (site / "api").glob("*.html")
    } == modules
    losses = (site / "api" / "skeleton_focus.losses.html").read_text()
    assert (
        'class="math notranslate' in losses and "coherence_loss" in losses and "Reference" in losses
    )
    assert "at_least_float32" not in (site / "api" / "skeleton_focus.focus.html").read_text(), (
        "not public"
    )
    assert "plot_film_strip" in (site / "api" / "skeleton_focus.plot.html").read_text()


def test_the_site_needs_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link)[^>]*(?:src|href)="((?:https?:)?//[^"]*)"', page.read_text()
        )
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


PICTURES = {
    "plot_1_find_focus": 2,
    "plot_2_train_with_stf": 2,
    "plot_3_your_poses": 1,
    "plot_4_new_layer": 2,
}


def test_every_tutorial_is_run_and_listed(site: Path) -> None:
    assert {file.stem for file in TUTORIALS.glob("*.py")} == set(PICTURES)
    listed = (site / "tutorials" / "index.html").read_text()
    first_page = (site / "index.html").read_text()
    for name in PICTURES:
        assert f'href="{name}.html"' in listed
        assert f'href="tutorials/{name}.html"' in first_page


@pytest.mark.parametrize(("name", "count"), PICTURES.items())
def test_a_tutorial_shows_its_output_and_pictures(site: Path, name: str, count: int) -> None:
    page = site / "tutorials" / f"{name}.html"
    text = page.read_text()
    pictures = re.findall(r'<img[^>]*src="([^"]*)"[^>]*sphx-glr-single-img', text)
    assert len(pictures) == count
    assert all((page.parent / picture).stat().st_size > 5_000 for picture in pictures)
    outputs = re.findall(r"sphx-glr-script-out.*?<pre>(.*?)</pre>", text, re.DOTALL)
    assert outputs
    for output in outputs:
        # A warning or a path would be that of the machine that builds the site.
        for unwanted in ("Traceback", "Warning", "/tmp", str(ROOT)):
            assert unwanted not in output


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


RUN_HERE = ("getting_started.md", "objective.md", "explanations.md", "skeletons.md", "layers.md")
RUN_HERE += ("speed.md", "training.md")


@pytest.mark.parametrize("page", RUN_HERE)
def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    scope: dict[str, object] = {}
    if page == "speed.md":  # whose code compiles, which takes long
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    if page in ("objective.md", "speed.md"):  # which speak of a network that their reader has
        model = STFGCN(4, NTU25, in_channels=3, widths=(6,) * 6)
        scope = {"model": model, "x": torch.randn(2, 3, 16, 25, 1), "target": torch.tensor([0, 1])}
    assert blocks(page)
    # Patched as they are, so that they are put back afterwards.
    with torch._inductor.config.patch(freezing=False), torch._dynamo.config.patch(allow_rnn=False):
        for block in blocks(page):
            exec(block, scope)
    if page == "speed.md":
        torch.testing.assert_close(scope["logits"], model(scope["x"]))  # type: ignore[arg-type]
    if page == "getting_started.md":
        assert (tmp_path / "focus.png").stat().st_size > 5_000
        assert scope["out"].focus.shape == (4, 2, 32, 25)  # type: ignore[attr-defined]


IN_A_GROUP = """
import torch
from stf_gcn import STFGCN
from skeleton_focus import NTU25
store = torch.distributed.HashStore()
torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
model = STFGCN(4, NTU25, in_channels=3, widths=(6,) * 6)
x, target = torch.randn(2, 3, 16, 25, 1), torch.tensor([0, 1])
"""


def test_the_code_for_several_machines_runs() -> None:
    """In a process of its own, which is a group of one."""
    program = "\n".join(
        [IN_A_GROUP, *blocks("machines.md"), "print(model.fc.weight.grad.norm() > 0)"]
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "examples",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and done.stdout == "tensor(True)\n", done.stderr


def test_other_pages_with_code_are_run_by_other_tests() -> None:
    elsewhere = ("machines.md", "data.md", "export.md", "recipes.md")
    assert {page.name for page in PROSE if blocks(page.name)} == {*RUN_HERE, *elsewhere}
    unmarked = [
        page.name
        for page in PROSE
        if re.search(r"^```\n(?:import|from) ", page.read_text(), re.MULTILINE)
    ]
    assert not unmarked


def strings(node: ast.expr) -> str:
    """The text of a literal, with a mark where a value is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(strings(part) for part in node.values)
    return "\0"


def raised() -> list[str]:
    """What the package and the programs say when they refuse something."""
    found = []
    for file in (*(ROOT / "skeleton_focus").glob("*.py"), *(ROOT / "examples").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "expected":
                found.append(f"expected {strings(node.value)}")
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", "")
                if isinstance(node.func, ast.Attribute):
                    name = node.func.attr
                told = "\0".join(strings(argument) for argument in node.args)
                if name in ("message", "check_shape"):
                    # Any of them may be what is expected.
                    found.append(f"expected {told}".replace("\0", "\0expected "))
                elif name == "check_choice":
                    found.append(f"expected {strings(node.args[1])} to be one of")
                elif name in ("ValueError", "RuntimeError", "FormatError", "exit", "print"):
                    found.append(told)
    return found


def runs(text: str) -> list[str]:
    """The runs of words of an error that do not depend on the case."""
    told = re.split(r",? got ", text)[0]
    plain = re.sub(r"\([^)]*\)|\[[^]]*\]|'[^']*'|\S*\d\S*|/\S*", "\0", told)
    return [run.strip(" ,.:;%-") for run in plain.split("\0") if run.strip(" ,.:;%-")]


RAISED = [*raised(), (DOCS.parent / "Makefile").read_text()]  # it checks Python's version
# Not ours.
FOREIGN = (
    "a different Python",
    "nvidia",
    "IndexError",
    "device-side",
    "target dtype",
    "values to unpack",
)
ERRORS = []
for _line in (DOCS / "troubleshooting.md").read_text().splitlines():
    for _text in re.findall(r"`([^`]+)`", _line.split(" | ")[0]):
        if not any(foreign in _text for foreign in FOREIGN):
            ERRORS.append(_text)


@pytest.mark.parametrize("error", ERRORS)
def test_the_errors_that_are_explained_exist(error: str) -> None:
    wanted = [run for run in runs(error) if run != "line"]  # of a file, by another function
    assert wanted
    assert any(all(run in text for run in wanted) for text in RAISED), wanted


def test_an_error_that_does_not_exist_is_seen() -> None:
    for error in (
        "expected a network, got 4",
        "expected layers of at least 3",
        "plot: expected numpy",
    ):
        assert not any(all(run in text for run in runs(error)) for text in RAISED)
