"""Pictures: what is drawn, where, and what is refused."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402
from plot_tools import check_canvas, needs_new_text, texts  # noqa: E402

from skeleton_focus.layouts import COCO17, KINECT20, NTU25, OPENPOSE18, SkeletonLayout  # noqa: E402
from skeleton_focus.plot import (  # noqa: E402
    animate_focus,
    plot_adjacency,
    plot_film_strip,
    plot_focus_comparison,
    plot_focus_map,
    plot_joint_attention,
    plot_latent_edges,
    plot_skeleton,
)

T = 6
M = 2
CHAIN = SkeletonLayout.from_bones([(0, 1), (1, 2), (2, 3)])
BODY = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 2.0], [4.0, 2.0]])


def clip(
    layout: SkeletonLayout = KINECT20, *, c: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """x (C, T, V, M), focus and truth (M, T, V)."""
    random = torch.Generator().manual_seed(seed)
    x = 1 + torch.rand(c, T, layout.num_joints, M, generator=random)
    focus = torch.rand(M, T, layout.num_joints, generator=random)
    return x, focus, (focus > 0.7).float()


def bodies(ax: Axes) -> list[int]:
    """The number of joints of each body drawn."""
    return [
        np.shape(part.get_offsets())[0]
        for part in ax.collections
        if type(part).__name__ == "PathCollection"
    ]


def lines(ax: Axes) -> list[int]:
    """The number of lines of each set of bones, and of each outline."""
    return [
        len(part.get_paths()) for part in ax.collections if type(part).__name__ == "LineCollection"
    ]


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_aspect() == 1]


def test_skeleton_draws_every_joint_and_bone_once() -> None:
    ax = Figure().add_subplot()
    plot_skeleton(ax, BODY, CHAIN)
    assert bodies(ax) == [4] and lines(ax) == [3]
    assert sorted(map(tuple, np.asarray(ax.collections[1].get_offsets()).tolist())) == sorted(
        map(tuple, BODY.tolist())
    )


def test_skeleton_sizes_and_colours_follow_the_focus_and_the_most_lies_on_top() -> None:
    ax = Figure().add_subplot()
    plot_skeleton(ax, BODY, CHAIN, focus=torch.tensor([0.2, 1.0, 0.0, 0.5]), size=10)
    joints: Any = ax.collections[1]
    assert joints.get_offsets()[:, 0].tolist() == [3, 1, 4, 2]
    assert joints.get_array().tolist() == pytest.approx([0.0, 0.2, 0.5, 1.0])
    assert joints.get_clim() == (0, 1)
    assert (np.diff(joints.get_sizes()) > 0).all() and joints.get_sizes()[-1] == pytest.approx(100)
    grey = joints.to_rgba(np.linspace(0, 1, 50))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(grey[5:]) < 0).all() and grey[0] - grey[-1] > 0.6  # readable without colour


def test_a_body_of_one_joint() -> None:
    ax = Figure().add_subplot()
    body = torch.zeros(4, 3)
    body[2] = 1
    plot_skeleton(ax, body, CHAIN, truth=torch.ones(4))
    assert bodies(ax) == [1] and lines(ax) == [0, 1, 1]
    plot_skeleton(ax, torch.zeros(4, 3), CHAIN, truth=torch.ones(4))
    assert bodies(ax) == [1, 0]


def test_missing_joints_are_not_drawn_nor_their_bones() -> None:
    ax = Figure().add_subplot()
    body = BODY.clone()
    body[1] = 0
    plot_skeleton(ax, body, CHAIN, truth=torch.ones(4))
    assert bodies(ax) == [3]
    assert lines(ax) == [1, 4, 4]  # bone 2-3; its outline and those of joints 0, 2, 3
    body[1, 1] = 1e-9  # on the axis, not missing
    ax.clear()
    plot_skeleton(ax, body, CHAIN)
    assert bodies(ax) == [4] and lines(ax) == [3]


@pytest.mark.parametrize(
    "layout", [NTU25, KINECT20, OPENPOSE18, COCO17], ids=lambda layout: layout.name
)
@pytest.mark.parametrize("c", [2, 3])
def test_film_strip_on_every_layout(layout: SkeletonLayout, c: int) -> None:
    x, focus, truth = clip(layout, c=c)
    figure = plot_film_strip(x.numpy(), focus.numpy(), layout, frames=3, title="walk", truth=truth)
    assert len(panels(figure)) == 3
    assert all(bodies(ax) == [layout.num_joints] * M for ax in panels(figure))
    assert texts(figure)[0] == "walk" and texts(figure)[-4:] == ["0", "focus", "1", "truth"]
    check_canvas(figure)


def test_read_only_arrays_and_half_precision() -> None:
    x, focus, _ = clip()
    array = x.numpy()
    array.setflags(write=False)
    assert len(panels(plot_film_strip(array[:, ::-1], focus.bfloat16(), KINECT20, frames=2))) == 2


def test_film_strip_prints_the_numbers_of_the_frames() -> None:
    x, focus = np.random.rand(2, 5, 17, 1), np.random.rand(1, 5, 17)
    figure = plot_film_strip(x, focus, COCO17, frames=3, numbers=[10, 20, 30, 40, 50])
    printed = [label.get_text() for ax in figure.axes for label in ax.get_xticklabels()]
    assert printed == ["frame 10", "30", "50"]
    with pytest.raises(ValueError, match="plot_film_strip: expected T=5 numbers, got 4"):
        plot_film_strip(x, focus, COCO17, numbers=[1, 2, 3, 4])


def test_film_strip_draws_the_first_and_last_frame_in_common_limits() -> None:
    x, focus, _ = clip()
    x[:, -1] += 3
    first, second, third = panels(plot_film_strip(x, focus, KINECT20, frames=3))
    assert first.get_xlim() == second.get_xlim() == third.get_xlim()
    for ax, t in ((first, 0), (second, 2), (third, 5)):
        drawn = {
            round(float(value), 5) for value in np.asarray(ax.collections[1].get_offsets())[:, 0]
        }
        assert drawn == {round(value, 5) for value in x[0, t, :, 0].tolist()}
        (left, right) = ax.get_xlim()
        (low, high) = ax.get_ylim()
        assert left < x[0].min() and right > x[0].max() and low < x[1].min() and high > x[1].max()


def test_panels_have_equal_aspect() -> None:
    x, focus, _ = clip()
    figure = plot_film_strip(
        x * torch.tensor([3.0, 1.0, 1.0]).view(3, 1, 1, 1), focus, KINECT20, frames=3
    )
    for ax in panels(figure):
        box = ax.get_position()
        width = box.width * figure.get_figwidth()
        height = box.height * figure.get_figheight()
        (left, right) = ax.get_xlim()
        (low, high) = ax.get_ylim()
        assert (right - left) / width == pytest.approx((high - low) / height)


def test_absent_persons_and_lost_joints_in_a_clip() -> None:
    x, focus, _ = clip()
    x[..., 1] = 0
    x[:, 0, 3, 0] = 0
    first, last = panels(plot_film_strip(x, focus, KINECT20, frames=2))
    assert bodies(first) == [19] and bodies(last) == [20]
    assert first.get_xlim()[0] > 0  # what is missing does not stretch the limits to 0


def test_image_coordinates_are_flipped() -> None:
    x, focus, _ = clip(COCO17, c=2)
    up, down = (
        panels(plot_film_strip(x, focus, COCO17, frames=1, invert_y=flip))[0]
        for flip in (False, True)
    )
    assert np.allclose(
        up.collections[1].get_offsets() * np.array([1, -1]), down.collections[1].get_offsets()
    )


def standing(channels: int) -> tuple[Tensor, SkeletonLayout]:
    """A body (C, T=2, V=2) whose joint 1 has the larger y, and its layout."""
    x = torch.tensor([[1.0, 1.2], [2.0, 5.0], [3.0, 3.5]])[:channels, None]
    return x.repeat(1, 2, 1), SkeletonLayout.from_bones([(0, 1)])


FIGURES = {
    "film strip": lambda x, layout, **y: plot_film_strip(
        x[..., None], torch.tensor([0.2, 0.8]).expand(1, 2, 2), layout, frames=1, **y
    ),
    "comparison": lambda x, layout, **y: plot_focus_comparison(
        x[..., None], {"a": torch.tensor([0.2, 0.8]).expand(1, 2, 2)}, layout, frames=1, **y
    ),
    "joint attention": lambda x, layout, **y: plot_joint_attention(
        x,
        torch.tensor([[0, 1]] * 2),
        torch.tensor([[0.1, 0.2]] * 2),
        torch.ones(2, 2, 1),
        layout,
        frames=1,
        **y,
    ),
    "latent edges": lambda x, layout, **y: plot_latent_edges(
        x, torch.tensor([[0.2, 0.8]] * 2), layout, frames=1, **y
    ),
    "adjacency": lambda x, layout, **y: plot_adjacency(x[:, 0].T, {"A": torch.eye(2)}, layout, **y),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
@pytest.mark.parametrize(
    ("channels", "invert_y", "down"),
    [(2, None, True), (3, None, False), (2, False, False), (3, True, True)],
)
def test_y_of_a_picture_points_down(
    draw: Callable[..., Figure], channels: int, invert_y: bool | None, down: bool
) -> None:
    """Joint 1, drawn last because it has more focus, has the larger y: in a picture it is lower."""
    figure = draw(*standing(channels), invert_y=invert_y)
    figure.draw_without_rendering()
    ax = panels(figure)[0]
    first, last = ax.transData.transform(np.asarray(ax.collections[1].get_offsets()))[:, 1]
    bottom, top = ax.get_window_extent().get_points()[:, 1]  # in pixels, upwards
    assert bottom < min(first, last) and max(first, last) < top
    assert (last < first) == down


@needs_new_text
def test_pixels_of_a_picture_stand_upright(tmp_path: Path) -> None:
    """The joint with the larger y and all the focus, which is dark, is in the GIF's lower half."""
    x, layout = standing(2)
    focus = torch.tensor([0.0, 1.0]).expand(1, 2, 2)
    path = animate_focus(x[..., None], focus, layout, tmp_path / "focus.gif")
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"), float)
    body = grey[: int(0.8 * len(grey)), : int(0.8 * grey.shape[1])]  # without band and colour bar
    assert np.argwhere(body < 60)[:, 0].mean() > len(body) / 2


def test_comparison_has_a_row_a_focus() -> None:
    x, focus, truth = clip()
    figure = plot_focus_comparison(
        x, {"with": focus, "without": 1 - focus}, KINECT20, frames=4, truth=truth
    )
    assert len(panels(figure)) == 2 * 4
    assert [text for text in texts(figure) if text.startswith("with")] == ["with", "without"]
    check_canvas(figure)
    tops = [round(ax.get_position().y0, 6) for ax in panels(figure)]
    assert len(set(tops)) == 2 and tops[0] > tops[-1]
    with pytest.raises(
        ValueError, match=r"^plot_focus_comparison: expected at least one focus, got none$"
    ):
        plot_focus_comparison(x, {}, KINECT20)


@pytest.mark.parametrize("layout", [NTU25, OPENPOSE18, CHAIN], ids=lambda layout: layout.name)
def test_map_shows_each_joint_once_sorted_by_part(layout: SkeletonLayout) -> None:
    _, focus, truth = clip(layout)
    figure = plot_focus_map(focus, layout, truth=truth, title="walk")
    assert len(figure.axes) == M + 1
    for person, ax in enumerate(figure.axes[:M]):
        shown: Any = ax.images[0].get_array()
        names = [label.get_text().replace(" ", "_") for label in ax.get_yticklabels()]
        assert sorted(names) == sorted(layout.joints)
        order = [layout.index(name) for name in names]
        assert np.allclose(shown, focus[person][:, order].T)
    assert [ax.get_title("left") for ax in figure.axes[:M]] == ["walk, person 1", "walk, person 2"]
    check_canvas(figure)


@needs_new_text
@pytest.mark.parametrize("frames", [1, 16, 32])
@pytest.mark.parametrize("stretch", [0.2, 5.0])
def test_panels_bands_and_labels_do_not_overlap(frames: int, stretch: float) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(2, 32, 20, 1, generator=random)
    focus = torch.rand(1, 32, 20, generator=random)
    x[0] *= stretch
    rows = {"a long title above narrow panels, 99%": focus, "another": 1 - focus}
    figure = plot_focus_comparison(x, rows, KINECT20, frames=frames, truth=focus)
    check_canvas(figure)
    first, *_ = panels(figure)
    assert 1.2 - 0.05 < first.get_window_extent().height / figure.dpi < 3.0 + 0.05  # inches


def test_map_puts_joints_without_a_part_last() -> None:
    layout = SkeletonLayout.from_bones([(0, 1), (1, 2)], parts={"end": [2], "both ends": [0, 2]})
    ax = plot_focus_map(torch.rand(1, T, 3), layout, truth=torch.zeros(1, T, 3)).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["joint 2", "joint 0", "joint 1"]
    assert [text.get_text() for text in ax.texts][-3:] == ["end", "both ends", "other"]


def test_gif_holds_every_frame(tmp_path: Path) -> None:
    x, focus, truth = clip()
    x[:] = x[:, :1].clone()  # even a body that stands still gives T frames
    path = animate_focus(
        x, focus, KINECT20, tmp_path / "focus.gif", fps=10, title="walk", truth=truth
    )
    with Image.open(path) as picture:
        assert (
            getattr(picture, "n_frames", 1) == T
            and picture.info["duration"] == 100
            and picture.info["loop"] == 0
        )
        assert min(picture.size) >= 300


Call = Callable[..., Any]
STRIPS: list[Call] = [
    plot_film_strip,
    lambda x, focus, layout, **options: plot_focus_comparison(x, {"a": focus}, layout, **options),
    lambda x, focus, layout, **options: animate_focus(x, focus, layout, "never.gif", **options),
]
NAMES = ["plot_film_strip", "plot_focus_comparison", "animate_focus"]


@pytest.mark.parametrize(("draw", "name"), list(zip(STRIPS, NAMES, strict=True)), ids=NAMES)
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"x": torch.rand(3, T, 25, M)}, "expected x (C, T, V=20, M), got (3, 6, 25, 2)"),
        ({"x": torch.rand(3, T, 20)}, "expected x (C, T, V"),
        (
            {"x": torch.rand(1, T, 20, M)},
            "expected x (C, T, V, M) with C of at least 2, got (1, 6, 20, 2)",
        ),
        ({"x": torch.zeros(3, T, 20, M)}, "expected a clip with joints, got zeros alone"),
        (
            {"x": torch.full((3, T, 20, M), torch.nan)},
            "expected x to be finite, got NaN or infinity",
        ),
        ({"focus": torch.rand(T, 20, M)}, "expected focus (M=2, T=6, V=20), got (6, 20, 2)"),
        (
            {"focus": 2 * torch.ones(M, T, 20)},
            "expected a focus in [0, 1], got 0 to 2; see min_max_normalize",
        ),
        (
            {"focus": -torch.ones(M, T, 20)},
            "expected a focus in [0, 1], got -1 to 0; see min_max_normalize",
        ),
        ({"truth": torch.rand(M, T, 25)}, "expected truth (M=2, T=6, V=20), got (2, 6, 25)"),
    ],
    ids=[
        "joints",
        "axes",
        "one coordinate",
        "empty",
        "NaN",
        "order",
        "above 1",
        "below 0",
        "truth",
    ],
)
def test_refusals(draw: Call, name: str, change: dict[str, Tensor], error: str) -> None:
    x, focus, truth = clip()
    given = {"x": x, "focus": focus, "layout": KINECT20, "truth": truth, **change}
    with pytest.raises(ValueError, match=f"^{name}: {re.escape(error)}"):
        draw(given.pop("x"), given.pop("focus"), given.pop("layout"), **given)
    assert not Path("never.gif").exists()


@pytest.mark.parametrize("frames", [0, T + 1])
def test_number_of_frames_is_checked(frames: int) -> None:
    x, focus, _ = clip()
    with pytest.raises(
        ValueError, match=rf"^plot_film_strip: expected frames in 1\.\.6, got {frames}$"
    ):
        plot_film_strip(x, focus, KINECT20, frames=frames)


def test_more_refusals(tmp_path: Path) -> None:
    x, focus, _ = clip()
    with pytest.raises(
        ValueError, match=r"^animate_focus: expected a path that ends in \.gif, got .*focus\.mp4$"
    ):
        animate_focus(x, focus, KINECT20, tmp_path / "focus.mp4")
    with pytest.raises(
        ValueError, match=r"^animate_focus: expected fps above 0 and at most 50, got 0$"
    ):
        animate_focus(x, focus, KINECT20, tmp_path / "focus.gif", fps=0)
    with pytest.raises(
        ValueError, match=r"^plot_focus_map: expected focus \(M, T, V=25\), got \(2, 6, 20\)$"
    ):
        plot_focus_map(focus, NTU25)
    ax = Figure().add_subplot()
    with pytest.raises(
        ValueError, match=r"^plot_skeleton: expected joints \(V=4, C\), got \(3, 2\)$"
    ):
        plot_skeleton(ax, BODY[:3], CHAIN)
    with pytest.raises(
        ValueError,
        match=r"^plot_skeleton: expected joints \(V, C\) with C of at least 2, got \(4, 1\)$",
    ):
        plot_skeleton(ax, BODY[:, :1], CHAIN)
    with pytest.raises(ValueError, match=r"^plot_skeleton: expected focus \(V=4\), got \(5,\)$"):
        plot_skeleton(ax, BODY, CHAIN, focus=torch.zeros(5))
    assert not ax.collections and not list(tmp_path.iterdir())


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ax = Figure().add_subplot()
    (x, focus, _) = clip()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    wanted = re.escape("plot: expected matplotlib, got none; pip install matplotlib pillow")
    calls: list[Call] = [
        lambda: plot_skeleton(ax, BODY, CHAIN),
        lambda: plot_film_strip(x, focus, KINECT20),
        lambda: plot_focus_comparison(x, {"a": focus}, KINECT20),
        lambda: plot_focus_map(focus, KINECT20),
        lambda: animate_focus(x, focus, KINECT20, tmp_path / "focus.gif"),
    ]
    for call in calls:
        with pytest.raises(ImportError, match=f"^{wanted}$"):
            call()


def test_no_global_state() -> None:
    x, focus, truth = clip(c=2)
    before = x.clone(), dict(matplotlib.rcParams)
    plot_film_strip(x.requires_grad_(), focus, KINECT20, frames=2, truth=truth, invert_y=True)
    assert torch.equal(x, before[0]) and dict(matplotlib.rcParams) == before[1]
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def attended(layout: SkeletonLayout = KINECT20, k: int = 7) -> dict[str, Any]:
    """Positions (C, T, V), focal joints (T, K), scores (T, V), attention (T, K, P)."""
    random = torch.Generator().manual_seed(0)
    scores = torch.rand(T, layout.num_joints, generator=random)
    return {
        "x": clip(layout)[0][..., 0],
        "joints": scores.argsort(1, descending=True)[:, :k].sort(1).values,
        "scores": scores,
        "attention": torch.rand(T, k, len(layout.parts), generator=random),
        "layout": layout,
    }


def test_joint_attention_draws_the_strongest_pairs() -> None:
    given_ = attended()
    figure = plot_joint_attention(**given_, frames=3, lines=4, title="wave")
    assert len(figure.axes) == 3 and figure.texts[0].get_text() == "wave"
    check_canvas(figure)
    for ax, frame in zip(figure.axes, (0, 2, 5), strict=True):
        assert bodies(ax) == [20, len(KINECT20.parts)] and lines(ax) == [19]
        shade = ax.collections[1].get_array()
        joints = given_["joints"][frame]
        assert (np.asarray(shade) > 0).sum() == 7 and np.asarray(shade).max() == pytest.approx(1)
        weight = given_["attention"][frame]
        at = given_["x"][:2, frame].T.numpy()
        centre = [at[list(part)].mean(0) for part in KINECT20.parts.values()]
        expected = []
        for flat in weight.flatten().argsort(descending=True)[:4].tolist():  # the strongest first
            slot, part = divmod(flat, weight.shape[1])
            expected.append([at[joints[slot]], centre[part]])
        drawn = [line.get_xydata() for line in ax.get_lines()]
        np.testing.assert_allclose(drawn, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"joints": torch.full((T, 7), 20)},
            r"plot_joint_attention: expected joints in 0\.\.19, got 0 to 20",
        ),
        ({"frames": 0}, r"plot_joint_attention: expected frames in 1\.\.6, got 0"),
        (
            {"attention": torch.full((T, 7, 10), -0.5)},
            "plot_joint_attention: expected an attention of at least 0, got -0.5",
        ),
        ({"lines": -1}, "plot_joint_attention: expected lines of at least 0, got -1"),
        ({"x": torch.zeros(3, T, 20)}, r"plot_joint_attention: expected x .* a clip with joints"),
        (
            {"attention": torch.rand(T, 7, 3)},
            r"plot_joint_attention: expected attention \(T=6, K=7, P=10\), got \(6, 7, 3\)",
        ),
        (
            {"scores": torch.rand(T, 19)},
            r"plot_joint_attention: expected scores \(T=6, V=20\), got \(6, 19\)",
        ),
    ],
)
def test_joint_attention_refuses(change: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        plot_joint_attention(**{**attended(), **change})


def test_joint_attention_of_image_coordinates_stands_upright() -> None:
    given_ = attended(COCO17)
    up, down = (
        plot_joint_attention(**given_, frames=1, invert_y=flip).axes[0] for flip in (True, False)
    )
    np.testing.assert_allclose(
        up.collections[1].get_offsets()[:, 1], -np.asarray(down.collections[1].get_offsets()[:, 1])
    )


def test_joint_attention_leaves_out_what_is_missing(tmp_path: Path) -> None:
    given_ = attended()
    given_["x"][:, :, :12] = 0  # the arms, the spine and the head
    given_["x"][:, 5] = 0  # and in the last frame everything
    figure = plot_joint_attention(**given_, frames=2, lines=1000)
    first, last = figure.axes
    parts = [part for part in KINECT20.parts.values() if max(part) >= 12]
    here = sum(j >= 12 for j in given_["joints"][0].tolist())
    assert bodies(first) == [8, len(parts)] and len(first.get_lines()) == here * len(parts)
    assert (
        np.isfinite(first.collections[-1].get_offsets()).all()
        and not (first.collections[-1].get_offsets() == 0).any()
    )
    assert bodies(last) == [0, 0] and not last.get_lines()
    figure.savefig(tmp_path / "missing.png")
    plot_joint_attention(**given_, lines=0).savefig(tmp_path / "none.png")
    plot_joint_attention(**{**given_, "attention": 0 * given_["attention"]}).savefig(
        tmp_path / "zero.png"
    )


def test_latent_edges_join_the_joints_above_the_threshold(tmp_path: Path) -> None:
    x = clip()[0][..., 0]
    x[:, 5, :4] = 0  # missing in the last frame
    weights = torch.rand(T, 20, generator=torch.Generator().manual_seed(1))
    weights[:, :2] = torch.tensor([0.75, 1.0])
    figure = plot_latent_edges(x, weights, KINECT20, frames=3, title="read")
    assert len(figure.axes) == 3 and figure.texts[0].get_text() == "read"
    check_canvas(figure)
    for ax, frame in zip(figure.axes, (0, 2, 5), strict=True):
        node = np.asarray(ax.collections[-1].get_offsets())[0]
        joined = [j for j in range(20) if weights[frame, j] > 0.8 and (frame < 5 or j >= 4)]
        expected = [[node, x[:2, frame, j].numpy()] for j in joined]
        assert (joined and 1 not in joined) or frame < 5
        np.testing.assert_allclose(
            [line.get_xydata() for line in ax.get_lines()], expected, rtol=1e-5
        )
        (left, right) = ax.get_xlim()
        (base, top) = ax.get_ylim()
        assert left < node[0] < right and base < node[1] < top
        there = x[:2, frame, 4 * (frame == 5) :].T.numpy()
        mirrored = np.array([left + right - node[0], node[1]])
        assert np.hypot(*(there - node).T).min() >= np.hypot(*(there - mirrored).T).min()
        assert bodies(ax) == [16 if frame == 5 else 20, 1]
        shades = sorted(weights[frame, 4 * (frame == 5) :].tolist())
        np.testing.assert_allclose(ax.collections[1].get_array(), shades, rtol=1e-6)
    figure.savefig(tmp_path / "latent.png")
    assert all(
        not ax.get_lines() for ax in plot_latent_edges(x, weights, KINECT20, threshold=1).axes
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"weights": torch.full((T, 20), 1.5)},
            r"plot_latent_edges: expected weights in \[0, 1\], got 1.5 to 1.5",
        ),
        (
            {"weights": torch.rand(T, 19)},
            r"plot_latent_edges: expected weights \(T=6, V=20\), got \(6, 19\)",
        ),
        (
            {"threshold": float("nan")},
            r"plot_latent_edges: expected a threshold in \[0, 1\], got nan",
        ),
        ({"frames": 7}, r"plot_latent_edges: expected frames in 1\.\.6, got 7"),
        (
            {"x": torch.rand(1, T, 20)},
            r"plot_latent_edges: expected x \(C, T, V\) with C of at least 2",
        ),
    ],
)
def test_latent_edges_refuse(change: dict[str, Any], error: str) -> None:
    given_ = {"x": clip()[0][..., 0], "weights": torch.rand(T, 20), "layout": KINECT20}
    with pytest.raises(ValueError, match=error):
        plot_latent_edges(**{**given_, **change})
