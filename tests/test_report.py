"""The page of a run: what is written, what is refused, and what a real browser shows."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import numpy as np
import pytest
import torch
from explain import to_draw
from PIL import Image
from recipe import Recipe
from report import choose, spread
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from skeleton_focus import Batch
from skeleton_focus.layouts import COCO17, KINECT20, NTU25, SkeletonLayout
from skeleton_focus.plot import SHADES
from skeleton_focus.report import ReportClip, write_report

T = 6
HAND = KINECT20.index("left_hand")
FOOT = KINECT20.index("right_foot")
NASTY = "</script><b>@DATA@ & \u2028'\"</b>"
CLASSES = ["sit", "walk", NASTY, "wave"]


def random_clip(
    layout: SkeletonLayout = KINECT20,
    *,
    name: str = "a",
    c: int = 3,
    t: int = T,
    m: int = 2,
    seed: int = 0,
) -> ReportClip:
    random = np.random.default_rng(seed)
    v = layout.num_joints
    focus = {k: random.random((m, t, v)) for k in (0, 2)}
    p = random.dirichlet(np.ones(4))
    return ReportClip(
        name, random.normal(size=(c, t, v, m)), 1, p, focus, (focus[0] > 0.8).astype(np.float32)
    )


def embedded(page: Path) -> dict[str, Any]:
    """The data as a browser finds them: all up to the first end of a script."""
    found = re.search(
        r'<script id="data" type="application/json">(.*?)</script', page.read_text(), re.DOTALL
    )
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def decoded(clip: dict[str, Any]) -> tuple[np.ndarray, dict[int, np.ndarray], np.ndarray | None]:
    """Decode positions (M, T, V, C), NaN where missing, focus and truth (M, T, V)."""
    shape = clip["shape"]
    raw = np.frombuffer(base64.b64decode(clip["x"]), "<i2").reshape(shape).astype(float)
    x = np.where(raw == -32768, np.nan, np.array(clip["low"]) + (raw + 32767) * clip["step"])
    focus = {
        int(k): np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape[:3]) / 255
        for k, text in clip["focus"].items()
    }
    if clip["truth"] is None:
        return x, focus, None
    bits = np.unpackbits(np.frombuffer(base64.b64decode(clip["truth"]), np.uint8))
    assert len(bits) - np.prod(shape[:3]) in range(8)
    return x, focus, bits[: np.prod(shape[:3])].reshape(shape[:3])


@pytest.mark.parametrize("layout", [NTU25, COCO17], ids=lambda layout: layout.name)
@pytest.mark.parametrize("c", [2, 3])
def test_data_come_back_to_the_quantisation_error(
    layout: SkeletonLayout, c: int, tmp_path: Path
) -> None:
    clip = random_clip(layout, c=c)
    path = write_report(tmp_path / "r.html", [clip], layout, CLASSES, title="t", invert_y=False)
    assert path == tmp_path / "r.html" and list(tmp_path.iterdir()) == [path]
    data = embedded(path)
    (kept,) = data["clips"]
    x, focus, truth = decoded(kept)
    largest = np.ptp(np.asarray(clip.x).reshape(c, -1), axis=1).max()
    assert (
        np.abs(x - np.moveaxis(np.asarray(clip.x), (3, 1, 2, 0), (0, 1, 2, 3))).max()
        <= 1.001 * largest / 65534 / 2
    )
    assert focus.keys() == {0, 2}
    assert all(np.abs(heat - clip.focus[k]).max() <= 1 / 510 + 1e-9 for k, heat in focus.items())
    np.testing.assert_array_equal(truth, clip.truth)
    np.testing.assert_allclose(kept["p"], np.asarray(clip.probabilities), rtol=1e-5)
    assert data["bones"] == [list(bone) for bone in layout.bones] and data["classes"] == CLASSES
    assert sorted(j for _, members in data["rows"] for j in members) == list(
        range(layout.num_joints)
    )


def test_the_absent_are_left_out_and_what_is_missing_is_marked(tmp_path: Path) -> None:
    clip = random_clip(m=3)
    x = np.array(clip.x)
    x[..., 1] = 0
    x[:, 2, 4, 0] = 0
    data = embedded(
        write_report(tmp_path / "r.html", [clip._replace(x=x)], KINECT20, CLASSES, title="t")
    )
    kept, focus, truth = decoded(data["clips"][0])
    assert data["clips"][0]["persons"] == [1, 3] and kept.shape == (2, T, 20, 3)
    assert np.isnan(kept[0, 2, 4]).all() and np.isnan(kept).sum() == 3
    assert np.abs(focus[2][1] - clip.focus[2][2]).max() <= 1 / 510 + 1e-9
    np.testing.assert_array_equal(truth, np.asarray(clip.truth)[[0, 2]])


def test_a_body_that_never_moves_and_has_one_joint(tmp_path: Path) -> None:
    x = torch.zeros(2, 1, 17, 1)
    x[:, 0, 3, 0] = torch.tensor([5.0, 7.0])
    clip = ReportClip("a", x, None, torch.tensor([1.0, 0.0]), {1: torch.zeros(1, 1, 17)})
    # In 2D, as in a picture, y points down unless stated.
    for invert_y, y in ((False, 7), (True, -7), (None, -7)):
        path = write_report(
            tmp_path / "r.html", [clip], COCO17, ["0", "1"], title="t", invert_y=invert_y
        )
        kept, _, truth = decoded(embedded(path)["clips"][0])
        assert truth is None and kept[0, 0, 3].tolist() == [5, y] and np.isnan(kept).sum() == 32


def test_3d_positions_point_up(tmp_path: Path) -> None:
    clip = random_clip()
    data = embedded(write_report(tmp_path / "r.html", [clip], KINECT20, CLASSES, title="t"))
    kept, _, _ = decoded(data["clips"][0])
    assert np.abs(kept - np.asarray(clip.x).transpose(3, 1, 2, 0)).max() < 1e-3


def test_names_are_harmless_whatever_they_hold(tmp_path: Path) -> None:
    clip = random_clip(name=NASTY)
    path = write_report(
        tmp_path / "r.html",
        [clip],
        KINECT20,
        CLASSES,
        title=NASTY,
        facts={NASTY: NASTY, "top-1": 0.5},
    )
    page = path.read_text()
    assert "<b>" not in page and page.count("</script>") == 3
    assert page.count(html.escape(NASTY)) == 4  # title, heading, key and value of the fact
    assert "<dt>top-1</dt><dd>0.5</dd>" in page
    assert embedded(path)["classes"][2] == embedded(path)["clips"][0]["name"] == NASTY


def test_the_page_names_no_other_place(tmp_path: Path) -> None:
    path = write_report(tmp_path / "r.html", [random_clip()], KINECT20, CLASSES, title="t")
    page = path.read_text()
    assert "://" not in page and "src=" not in page and "default-src 'none'" in page
    assert not re.findall("@[A-Z]+@", page.replace("@DATA@", "", 1))  # the class of that name
    assert all(shade in page for shade in SHADES)


def test_the_size_is_bounded(tmp_path: Path) -> None:
    clips = [random_clip(NTU25, name=str(seed), t=300, seed=seed) for seed in range(4)]
    size = write_report(tmp_path / "r.html", clips, NTU25, CLASSES, title="t").stat().st_size
    places = 4 * 2 * 300 * 25  # of 3 positions, 2 classes' focus and a bit of truth
    assert size < 4 / 3 * places * (3 * 2 + 2 + 1 / 8) + 40_000


def test_half_a_page_is_never_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.html"
    path.write_text("the old one")
    write = Path.write_text

    def full(self: Path, text: str, *rest: Any) -> int:
        write(self, text[:100], *rest)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(path, [random_clip()], KINECT20, CLASSES, title="t")
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "the old one"
    written: list[Path] = []
    monkeypatch.setattr(
        Path, "write_text", lambda self, *rest: written.append(self) or write(self, *rest)
    )
    write_report(path, [random_clip()], KINECT20, CLASSES, title="the new one")
    assert (
        list(tmp_path.iterdir()) == [path]
        and "the new one</h1>" in path.read_text()
        and path not in written
    )


def test_classes_may_be_numpy_s_integers(tmp_path: Path) -> None:
    clip = random_clip()
    focus = {np.int64(key): values for key, values in clip.focus.items()}
    assert clip.label is not None
    numpys = clip._replace(label=np.int64(clip.label), focus=focus)
    pages = [
        write_report(tmp_path / "r.html", [one], KINECT20, CLASSES, title="t").read_text()
        for one in (clip, numpys)
    ]
    assert pages[0] == pages[1]


OF_CLIP = r"^write_report, clip 'a': expected "


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": np.ones((3, T, 25, 2))}, r"x \(C, T, V=20, M\), got \(3, 6, 25, 2\)"),
        ({"x": np.ones((4, T, 20, 2))}, r"x \(C, T, V, M\) with C of 2 or 3, got \(4, 6, 20, 2\)"),
        ({"x": np.zeros((3, T, 20, 2))}, "a clip with joints, got only zeros"),
        ({"x": np.full((3, T, 20, 2), np.nan)}, "x to be finite"),
        ({"label": 4}, r"a label in 0\.\.3 or None, got 4"),
        ({"label": True}, r"a label in 0\.\.3 or None, got True"),
        ({"label": "walk"}, r"a label in 0\.\.3 or None, got 'walk'"),
        ({"probabilities": np.ones(3)}, r"probabilities \(classes=4\), got \(3,\)"),
        ({"probabilities": np.array([2, 0, 0, 0])}, r"probabilities in \[0, 1\], got 0 to 2"),
        ({"focus": {}}, r"a focus for classes in 0\.\.3, got none"),
        ({"focus": {7: np.ones((2, T, 20))}}, r"a focus for classes in 0\.\.3, got \[7\]"),
        ({"focus": {1: np.ones((T, 20, 2))}}, r"focus \(M=2, T=6, V=20\), got \(6, 20, 2\)"),
        (
            {"focus": {1: 2 * np.ones((2, T, 20))}},
            r"a focus in \[0, 1\], got 0 to 2; see min_max_normalize",
        ),
        ({"truth": np.ones((2, T, 25))}, r"truth \(M=2, T=6, V=20\), got \(2, 6, 25\)"),
    ],
    ids=str,
)
def test_clips_that_do_not_fit_are_refused_by_name(
    change: dict[str, Any], error: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=OF_CLIP + error):
        write_report(
            tmp_path / "r.html", [random_clip()._replace(**change)], KINECT20, CLASSES, title="t"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"path": "r.htm"}, r"a path that ends in \.html, got r\.htm"),
        ({"path": "nowhere/r.html"}, r"a path in a folder that exists, got nowhere/r\.html"),
        ({"clips": []}, "at least 1 clips, got 0"),
        (
            {"clips": [random_clip(), random_clip()]},
            r"unique names of clips, got \['a'\] more than once",
        ),
        ({"clips": [random_clip()._replace(name=3)]}, r"names of clips to be strings, got \[3\]"),
        ({"classes": ["walk"]}, "at least 2 classes, got 1"),
        ({"classes": "walk"}, "a list of classes, got 'walk'"),
        ({"classes": ["a", "b", "a", "c"]}, r"unique names of classes, got \['a'\] more than once"),
        ({"layout": "KINECT20"}, "a SkeletonLayout, got str"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(
    change: dict[str, Any], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "path": "r.html",
        "clips": [random_clip()],
        "layout": KINECT20,
        "classes": CLASSES,
        **change,
    }
    with pytest.raises(ValueError, match=f"^write_report: expected {error}"):
        write_report(**given, title="t")
    assert not list(tmp_path.iterdir())


def test_the_clips_of_a_run_are_chosen_the_same_way_each_time() -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    wrong = {1, 2, 3, 9}
    predicted = [(label + (i in wrong)) % 3 for i, label in enumerate(labels)]
    # Half of them wrong, each class once among the rest.
    assert choose(predicted, labels, 6) == [1, 2, 9, 0, 4, 8]
    assert choose(predicted, labels, 10) == [1, 2, 3, 9, 0, 4, 5, 6, 8, 10]
    assert choose(predicted, labels, 100) == [1, 2, 3, 9, 0, 4, 5, 6, 7, 8, 10, 11]
    assert choose(labels, labels, 3) == [0, 4, 8] and choose(labels, labels, 1) == [0]
    assert choose([9] * 12, labels, 6) == [0, 1, 4, 5, 8, 9]  # where nothing is recognised
    assert spread(list(range(60)), list(range(60)), 4) == [0, 20, 39, 59]


def test_the_paper_s_preparation_repeats_what_is_drawn() -> None:
    x = torch.arange(1.0, 3 * 4 * 20 * 2 + 1).view(1, 3, 4, 20, 2)
    truth = torch.rand(1, 2, 4, 20).round()
    batch = Batch(x, torch.tensor([4]), torch.tensor([0]), torch.ones(1, 4, 20, 2), truth)
    for frames in (10, 3):
        drawn, true = to_draw(batch, KINECT20, Recipe(frames=frames, preparation="paper"))
        assert drawn.shape == (3, frames, 20, 2) and true.shape == (2, frames, 20)
        for t in range(frames):
            assert torch.equal(drawn[:, t], x[0, :, t % 4]) and torch.equal(
                true[:, t], truth[0, :, t % 4]
            )


# What follows reads the page in a browser.


def one_hot(*marks: tuple[int, int, int]) -> np.ndarray:
    """(M=2, T, V), 1 at these persons, frames and joints."""
    focus = np.zeros((2, T, 20))
    focus[tuple(np.transpose(marks))] = 1
    return focus


BODY = np.random.default_rng(5).uniform(0.5, 2, (3, T, 20, 2))
ALONE = BODY * [1, 0]
P = np.array([[0.1, 0.6, 0.25, 0.05], [0.5, 0.3, 0.15, 0.05], [0.1, 0.1, 0.2, 0.6]])
CLIPS = [
    # Right: walk at the hand in frame 2, the nasty class at the foot in frame 4.
    ReportClip(
        "first",
        ALONE,
        1,
        P[0],
        {1: one_hot((0, 2, HAND)), 2: one_hot((0, 4, FOOT))},
        one_hot((0, 2, HAND)),
    ),
    # Wrong: sit instead of the nasty class; two persons, the second with all the focus.
    ReportClip(
        "second " + NASTY,
        BODY,
        2,
        P[1],
        {0: one_hot((1, 5, FOOT)), 1: one_hot((0, 0, 3))},
        one_hot((0, 5, HAND)),
    ),
    # In the plane, of no known class, explained for one class alone.
    ReportClip("third", ALONE[:2], None, P[2], {3: one_hot((0, 1, HAND), (0, 3, FOOT))}),
]


class Page:
    """A browser that shows one report."""

    def __init__(self, driver: webdriver.Chrome, file: Path) -> None:
        self.driver = driver
        self.file = file

    def open(
        self, link: str = "", *, width: int = 1400, height: int = 900, scale: float = 1
    ) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        # Otherwise a new link to the same file would not load it anew.
        self.driver.get("about:blank")
        self.driver.get(f"file://{self.file}{link}")

    def press(self, *keys: str) -> None:
        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return [
            found
            for found in self.driver.find_elements(By.CSS_SELECTOR, selector)
            if found.is_displayed()
        ]

    def text(self, selector: str) -> str:
        (found,) = self.all(selector)
        return str(found.text)

    def frame(self) -> int:
        return int(self.text("#number").split()[1])

    def clip(self) -> str:
        return self.text("#clips [aria-current=true] b").split("\n")[0]

    def picture(self, selector: str, number: int = 0) -> np.ndarray:
        """The pixels of a canvas (height, width, 3), over white."""
        url = self.run("return arguments[0].toDataURL()", self.all(selector)[number])
        picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        white = Image.new("RGBA", picture.size, "white")
        return np.asarray(Image.alpha_composite(white, picture))[..., :3].astype(int)

    def darkest(self, selector: str, number: int = 0) -> tuple[float, float]:
        """The middle of the pixels that have the colour of focus 1."""
        full = [int(SHADES[-1][i : i + 2], 16) for i in (1, 3, 5)]
        y, x = np.nonzero((np.abs(self.picture(selector, number) - full) < 6).all(-1))
        assert len(x) > 20, "no joint and no cell of focus 1"
        return (x.min() + x.max()) / 2, (y.min() + y.max()) / 2

    def wait(self, holds: Any) -> None:
        end = time.monotonic() + 5
        while not holds():
            assert time.monotonic() < end, "it does not come true"
            time.sleep(0.02)

    def link(self) -> dict[str, str]:
        """What the address says once it has followed what is shown."""
        time.sleep(0.3)
        return {
            key: values[0]
            for key, values in parse_qs(self.driver.current_url.partition("#")[2]).items()
        }


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium = shutil.which("chromium")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        reason = "the page is read in Chromium: "
        reason += "expected the programs chromium and chromedriver, got none"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    folder = tmp_path_factory.mktemp("chromium")
    for option in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        f"user-data-dir={folder}",
    ):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts = {"accuracy": "50 %", "network": NASTY}
    path = tmp_path_factory.mktemp("report") / "r.html"
    return write_report(path, CLIPS, KINECT20, CLASSES, title="A run " + NASTY, facts=facts)


@pytest.fixture
def page(browser: webdriver.Chrome, written: Path) -> Iterator[Page]:
    """The report, just opened; at the end nothing may have gone wrong or left the file."""
    page = Page(browser, written)
    page.open()
    yield page
    assert page.driver.get_log("browser") == []  # type: ignore[no-untyped-call]
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    assert not page.all("h1 b, #clips li b b, .choice b, figcaption b"), "a name became an element"


def test_it_opens_at_the_most_focus_of_the_prediction(page: Page) -> None:
    plain = " ".join(NASTY.split())
    assert " ".join(page.text("h1").split()) == f"A run {plain}" and "50 %" in page.text("dl")
    rows = [row.text.split("\n") for row in page.all("#clips .row")]
    assert rows[0] == ["first", "✓ right", "walk, 60 %"]
    assert (
        rows[1][1] == "✗ wrong"
        and rows[1][2].endswith("→ sit, 50 %")
        and rows[2][1:] == ["predicted wave, 60 %"]
    )
    assert page.clip() == "first" and page.frame() == 2
    assert page.text("figcaption") == "Focus of walk, 60 %"
    said = "Clip first of class walk, predicted walk, rightly. Frame 2. "
    said += "Most focus of walk: left hand, 1.00, inside the truth. The truth: left hand."
    assert page.text("#says") == said
    assert [row.text.split("\n")[0] for row in page.all("#choices > button")] == ["1", "2"]
    assert len(page.all("#choices > *")) == 4 and "walk · predicted, true class" in page.text(
        "#choices"
    )
    assert page.all("#truth") and page.run("return document.title").startswith("A run </script>")


def test_the_keyboard_steps_through_frames_clips_and_classes(page: Page) -> None:
    page.press(Keys.ARROW_RIGHT)
    assert page.frame() == 3 and "Here nothing speaks for walk." in page.text("#says")
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert page.frame() == 1
    page.press(Keys.END, Keys.ARROW_RIGHT)
    assert page.frame() == T - 1
    page.press(Keys.HOME)
    assert page.frame() == 0
    page.press("2")
    assert page.text("figcaption").startswith("Focus of </script>") and page.frame() == 0
    page.press(Keys.ARROW_DOWN)
    assert page.clip().startswith("second") and page.frame() == 5
    said = page.text("#says")
    assert (
        "predicted sit, wrongly" in said
        and "right foot of person 2, 1.00, outside the truth" in said
    )
    assert said.endswith("The truth: left hand of person 1.")
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert (
        page.clip() == "third"
        and "of a class that is not known, predicted wave. Frame 1." in page.text("#says")
    )
    assert not page.all("#truth") and not page.all("#turning")
    page.press("2", Keys.ARROW_UP)  # the third has one class alone
    assert page.clip().startswith("second")


def test_clicks_do_the_same(page: Page) -> None:
    page.all("#clips .row")[1].click()
    assert (
        page.clip().startswith("second")
        and page.all("#clips [aria-current=true]")[0] == page.all("#clips .row")[1]
    )
    page.all("#choices > button")[1].click()
    assert page.text("figcaption").startswith("Focus of walk")
    assert [row.get_attribute("aria-pressed") for row in page.all("#choices > button")] == [
        "false",
        "true",
    ]
    (slider,) = page.all("#frame")
    slider.click()
    middle = page.frame()
    assert 0 < middle < T - 1 and slider.get_attribute("value") == str(middle)


def test_it_plays_and_pauses(page: Page) -> None:
    Select(page.all("#speed")[0]).select_by_value("30")
    (button,) = page.all("#play")
    button.click()
    assert "Pause" in button.text and page.all("#says")[0].get_attribute("aria-live") == "off"
    seen = set()
    page.wait(lambda: seen.add(page.frame()) or len(seen) == T)
    page.press(Keys.SPACE)  # of the button that has the keyboard
    assert "Play" in button.text and page.all("#says")[0].get_attribute("aria-live") == "polite"
    stopped = page.frame()
    time.sleep(0.15)
    assert page.frame() == stopped
    page.all("#clips .row")[0].click()
    page.press(Keys.SPACE)  # a clip already shown does not take it
    assert "Pause" in button.text


def expected_place(clip: ReportClip, frame: int, joint: int, width: int, height: int) -> np.ndarray:
    """Place the first person's joint: all frames fit, with a margin, y upwards."""
    at = np.asarray(clip.x)[:2, :, :, 0]
    low = at.min((1, 2))
    high = at.max((1, 2))
    half = (high - low) / 2 + 0.12 * (high - low).max() / 2
    x, y = (at[:, frame, joint] - (low + high) / 2) * (np.array([width, height]) / 2 / half).min()
    return np.array([width / 2 + x, height / 2 - y])


def test_the_strongest_joint_is_the_darkest_and_where_it_should_be(page: Page) -> None:
    canvas = page.picture(".body")
    height, width = canvas.shape[:2]
    first = page.darkest(".body")
    np.testing.assert_allclose(first, expected_place(CLIPS[0], 2, HAND, width, height), atol=1.5)
    blue = (np.abs(canvas - [0, 0x72, 0xB2]) < 3).all(-1)
    y, x = np.nonzero(blue)  # a ring about the hand, alone
    np.testing.assert_allclose([(x.min() + x.max()) / 2, (y.min() + y.max()) / 2], first, atol=1.5)
    page.press("2")
    other = page.picture(".body")
    assert (other != canvas).any() and (np.abs(other - [0x3B, 0x0F, 0x70]).max(-1) > 6).all()
    page.all(".map")[0].click()  # anywhere
    page.press(Keys.HOME, *[Keys.ARROW_RIGHT] * 4)
    np.testing.assert_allclose(
        page.darkest(".body"), expected_place(CLIPS[0], 4, FOOT, width, height), atol=1.5
    )
    assert (page.picture(".body") != other).any()


def test_a_click_on_the_darkest_cell_goes_to_its_frame(page: Page) -> None:
    page.press(Keys.HOME)
    (cells,) = page.all(".map")
    x, y = page.darkest(".map")
    size = cells.size
    aside = (round(x - size["width"] / 2), round(y - size["height"] / 2))
    ActionChains(page.driver, duration=0).move_to_element_with_offset(cells, *aside).perform()
    assert cells.get_attribute("title") == "left hand, frame 2: 1.00" and page.frame() == 0
    ActionChains(page.driver, duration=0).click().perform()
    assert page.frame() == 2
    before = page.picture(".map")
    page.press(Keys.ARROW_RIGHT)
    assert (page.picture(".map") != before).any()  # the cursor went on


def test_two_classes_side_by_side(page: Page) -> None:
    page.press("c")
    assert page.all("figcaption")[0].text == "Focus of walk, 60 %"
    assert len(page.all(".body")) == len(page.all(".map")) == len(page.all("figcaption")) == 2
    (a, b), (c, d) = ([page.all(kind)[i].rect for i in (0, 1)] for kind in (".body", ".map"))
    assert (
        a["y"] == b["y"]
        and a["x"] + a["width"] < b["x"]
        and c["y"] == d["y"]
        and a["width"] == b["width"]
    )
    assert (page.picture(".body", 0) != page.picture(".body", 1)).any()
    page.all("#clips .row")[2].click()  # explained for one class alone
    assert len(page.all(".body")) == 1 and not page.all("#two")[0].is_enabled()
    page.press("c")
    assert len(page.all(".body")) == 1


def test_a_body_is_turned_and_put_back(page: Page) -> None:
    before = page.picture(".body")
    hold = ActionChains(page.driver, duration=0).click_and_hold(page.all(".body")[0])
    hold.move_by_offset(80, 20).release().perform()
    turned = page.picture(".body")
    assert (turned != before).any()
    ActionChains(page.driver, duration=0).double_click(page.all(".body")[0]).perform()
    np.testing.assert_array_equal(page.picture(".body"), before)
    shifted = ActionChains(page.driver, duration=0).key_down(Keys.SHIFT)
    shifted.send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    assert (page.picture(".body") != before).any() and page.frame() == 2
    page.press("0")
    np.testing.assert_array_equal(page.picture(".body"), before)


def test_a_link_shows_the_same_thing(page: Page) -> None:
    assert page.link() == {"clip": "first", "frame": "2", "class": "walk"}
    page.press(Keys.ARROW_DOWN, "2", Keys.HOME, Keys.ARROW_RIGHT, "c")
    kept = page.link()
    assert kept == {"clip": CLIPS[1].name, "frame": "1", "class": "walk", "two": "1"}
    shown = page.picture(".body")
    link = "#" + page.driver.current_url.partition("#")[2]
    page.open()
    assert page.clip() == "first"
    page.open(link)
    assert page.clip().startswith("second") and page.frame() == 1 and len(page.all(".body")) == 2
    np.testing.assert_array_equal(page.picture(".body"), shown)
    page.run("location.hash = 'clip=third&frame=3'")
    page.wait(lambda: page.clip() == "third" and page.frame() == 3)
    page.open(f"#clip={quote('no such clip')}&frame=99&class=none")
    assert page.clip() == "first" and page.frame() == 2
    page.open("#clip=first&frame=99")
    assert page.frame() == T - 1


def test_the_clip_shown_is_in_sight_in_the_list(page: Page) -> None:
    place = """const box = query => document.querySelector(query).getBoundingClientRect();
        const [list, row] = [box('#clips'), box('[aria-current=true]')];
        return [row.top - list.top, list.bottom - row.bottom]"""
    page.open("#clip=third", width=360, height=740)
    page.run(
        "document.querySelector('#clips').style.maxHeight = '120px'; "
        "dispatchEvent(new Event('hashchange'))"
    )
    assert min(page.run(place)) >= 0
    page.press(Keys.ARROW_UP, Keys.ARROW_UP)
    assert page.clip() == "first" and min(page.run(place)) >= 0 and page.run("return scrollY") == 0


def test_the_filter(page: Page) -> None:
    which, of = (Select(page.all(name)[0]) for name in ("#which", "#of"))
    assert [option.text for option in which.options] == [
        "all clips (3)",
        "wrong only (1)",
        "right only (1)",
    ]
    which.select_by_value("wrong")
    assert len(page.all("#clips .row")) == 1 and page.clip().startswith("second")
    of.select_by_visible_text("walk (1)")
    assert not page.all("#clips .row") and page.text("#none") == "No clip is both."
    which.select_by_value("all")
    assert page.clip() == "first" and not page.all("#none")


@pytest.mark.parametrize(("width", "height"), [(360, 740), (800, 1000), (1400, 900)])
def test_it_fits_every_width(width: int, height: int, page: Page) -> None:
    for link in ("#clip=first", "#clip=second%20" + quote(NASTY) + "&two=1"):
        page.open(link, width=width, height=height, scale=2)
        assert (
            page.run(
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            == 0
        )
        for canvas in page.all("canvas"):  # one pixel of the canvas to one of the screen
            ratio = page.run(
                "return [arguments[0].width / arguments[0].clientWidth, devicePixelRatio]", canvas
            )
            assert ratio[0] == pytest.approx(2, rel=0.01) and ratio[1] == 2
        outside = """return [...document.querySelectorAll('main *')].filter(e => {
            const box = e.getBoundingClientRect();
            return box.width && (box.left < 0 || box.right > innerWidth + 0.5);
        }).map(e => e.outerHTML.slice(0, 80))"""
        assert page.run(outside) == []


def test_everything_that_acts_has_a_name(page: Page) -> None:
    for control in page.all("button, select, input, canvas"):
        assert control.accessible_name, control.get_attribute("outerHTML")
    small = [e.text for e in page.all("button, select") if e.rect["height"] < 30]
    assert not small
