"""What a network of the examples is fed: to the last bit what the published accuracies were
measured with, and more.
"""

from __future__ import annotations

import copy
import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import command_line
import ensemble
import loading
import numpy as np
import pytest
import results
import torch
import train
from recipe import (
    NETWORKS,
    PRESETS,
    WITH_STF_ADJACENCY,
    Recipe,
    build_loss,
    build_network,
    build_objective,
    prepare,
)
from run_tools import assert_kept
from torch import Tensor, nn

from skeleton_focus import (
    COCO17,
    KINECT20,
    NTU25,
    OPENPOSE18,
    Batch,
    SkeletonDataset,
    SkeletonLayout,
    Split,
    STFAdjacency,
    STFLoss,
    add_visibility,
    body_height,
    center,
    make_stream,
    resample_frames,
)
from skeleton_focus.augment import rotate
from skeleton_focus.preparation import repeat_frames

RUN = {"split": None, "clips_layout": "NTU25"}  # what a run knows besides its recipe


def as_published(
    batch: Batch, recipe: Recipe, layout: SkeletonLayout, random: torch.Generator | None
) -> Tensor:
    """What the accuracies in docs/trials.md were measured with, as it was written then;
    visibility in {0, 1}.
    """
    n = len(batch.x)
    paper = recipe.preparation == "paper"
    x = center(batch.x, layout.center, each_frame=paper, visibility=batch.visibility)
    x = x / body_height(x, layout, visibility=batch.visibility)[:, None, None, None, None]
    start = torch.zeros(n)
    stop = torch.ones(n)
    if random is not None:
        most = torch.tensor(recipe.augment.get("rotation", (0.0, 0.0, 0.0))).deg2rad()
        angles = (2 * torch.rand(n, 3, generator=random) - 1) * most
        factor = recipe.augment.get("scale", 0.0)
        size = 1 + factor * (2 * torch.rand(n, 1, 1, 1, 1, generator=random) - 1)
        x = rotate(x * size, angles)
        crop = recipe.augment.get("crop", 1.0)
        share = crop + (1 - crop) * torch.rand(n, generator=random)
        start = (1 - share) * torch.rand(n, generator=random)
        stop = start + share
    both = torch.cat([x, batch.visibility[:, None]], dim=1)
    if paper:
        both = repeat_frames(both, batch.lengths, recipe.frames)
    else:
        both = resample_frames(both, batch.lengths, recipe.frames, start=start, stop=stop)
    x, seen = both[:, :-1], (both[:, -1] > 0.99).to(x.dtype)
    streams = [
        make_stream(x, stream, layout, visibility=seen) for stream in recipe.stream.split("+")
    ]
    return add_visibility(torch.cat(streams, dim=1), seen)


def some_data(
    layout: SkeletonLayout, channels: int = 3, persons: int = 1, clips: int = 8, least: float = 1.0
) -> SkeletonDataset:
    """Random clips; every tenth joint is lost, and the others are seen with a confidence from
    ``least`` to 1.
    """
    rng = np.random.default_rng(0)
    shapes = [(int(rng.integers(1, 12)), layout.num_joints, persons) for _ in range(clips)]
    visibility = [
        torch.from_numpy(rng.uniform(least, 1, s) * (rng.random(s) > 0.1)).float() for s in shapes
    ]
    x = [torch.from_numpy(rng.standard_normal((channels, *s))).float() for s in shapes]
    x = [clip * (v > 0) for clip, v in zip(x, visibility, strict=True)]
    return SkeletonDataset(x, [i % 2 for i in range(clips)], layout, visibility=visibility)


def whole(data: SkeletonDataset) -> Batch:
    return SkeletonDataset.collate([data[i] for i in range(len(data))])


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("preparation", ["view", "paper"])
@pytest.mark.parametrize(
    "preset", [name for name in PRESETS if PRESETS[name].get("preparation") != "box"]
)
@pytest.mark.parametrize(
    ("layout", "persons"), [(NTU25, 2), (KINECT20, 1)], ids=["NTU25", "KINECT20"]
)
def test_presets_are_fed_to_the_last_bit_as_before(
    layout: SkeletonLayout, persons: int, preset: str, preparation: str, seed: int | None
) -> None:
    recipe = replace(Recipe(**PRESETS[preset]), preparation=preparation, frames=13)
    batch = whole(some_data(layout, persons=persons))
    randoms = [None if seed is None else torch.Generator().manual_seed(seed) for _ in range(2)]
    ours, before = (
        feed(batch, recipe, layout, r)
        for feed, r in zip((prepare, as_published), randoms, strict=True)
    )
    assert torch.equal(ours, before) and ours.dtype == torch.float32
    assert seed is None or torch.equal(randoms[0].get_state(), randoms[1].get_state())


@pytest.mark.parametrize("preparation", ["view", "paper"])
@pytest.mark.parametrize("stream", ["joint", "joint+bone_motion"])
def test_a_confidence_is_a_channel_and_loses_no_joint(preparation: str, stream: str) -> None:
    """Of the same clips, seen surely or not, all channels but the last are the same."""
    data = some_data(OPENPOSE18, channels=2, persons=2, least=0.05)
    batch = whole(data)
    recipe = Recipe(preparation=preparation, stream=stream, frames=9)
    recipe.augment = {"rotation": (0, 0, 30), "crop": 0.6}
    sure = batch._replace(visibility=(batch.visibility > 0).float())
    for seed in (None, 1):
        one, two = (
            prepare(
                b, recipe, OPENPOSE18, None if seed is None else torch.Generator().manual_seed(seed)
            )
            for b in (batch, sure)
        )
        assert one.shape == (8, 2 * len(stream.split("+")) + 1, 9, 18, 2)
        assert torch.equal(one[:, :-1], two[:, :-1]) and one[:, :-1].any()
        assert torch.equal(one[:, -1] > 0, two[:, -1] > 0) and set(
            two[:, -1].unique().tolist()
        ) == {0, 1}
        assert 0.05 <= one[:, -1][one[:, -1] > 0].min() < 0.5
    first = prepare(batch, replace(recipe, preparation="paper"), OPENPOSE18)
    assert torch.equal(first[0, -1, 0], batch.visibility[0, 0]), (
        "as it came, where no frame is between two"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"flip": 1.0},
        {"shear": 0.5},
        {"joint_dropout": 0.5},
        {"speed": 0.9},
        {"mask": 1.0},
        {"axis_dropout": 1.0},
        {"rotation": (0.0, 30.0, 20.0), "rotation_order": "yxz"},
    ],
)
def test_new_settings_change_training_alone(change: dict[str, Any]) -> None:
    batch = whole(some_data(KINECT20))
    turned = {"rotation": (0.0, 30.0, 0.0)}
    recipe = Recipe(frames=9, augment=turned)
    changed = Recipe(frames=9, augment={**turned, **change})
    seen = [
        prepare(batch, r, KINECT20, torch.Generator().manual_seed(1)) for r in (recipe, changed)
    ]
    assert not torch.equal(*seen)
    assert torch.equal(prepare(batch, recipe, KINECT20), prepare(batch, changed, KINECT20))


def test_turns_out_of_the_plane_are_refused_before_training() -> None:
    recipe = Recipe(augment={"rotation": (0.0, 30.0, 0.0)})
    with pytest.raises(
        ValueError,
        match=r"^Augment: expected rotation about z alone with x \(N, C=2, T, V, M\), got",
    ):
        prepare(whole(some_data(COCO17, channels=2)), recipe, COCO17)


@pytest.mark.parametrize("model", ["stf_gcn", "ms_g3d", "stf_ms_g3d", "bagcn"])
@pytest.mark.parametrize("stream", ["joint", "joint+bone"])
def test_networks_take_positions_in_the_plane(model: str, stream: str) -> None:
    preset = PRESETS["synthetic" if model == "stf_gcn" else f"synthetic_{model}"]
    turned = {"rotation": (0.0, 0.0, 30.0)}
    recipe = Recipe(**{**preset, "stream": stream, "augment": turned, "frames": 16})
    batch = whole(some_data(COCO17, channels=2, persons=2))
    network = build_network(recipe, 5, 2, COCO17, channels=2)
    assert network(prepare(batch, recipe, COCO17, torch.Generator().manual_seed(0))).shape == (8, 5)
    assert repr(build_network(recipe, 5, 2, COCO17)) == repr(
        build_network(recipe, 5, 2, COCO17, channels=3)
    )


# ------------------------------------------------------------------------------------------------
# the training program

SMALL = [
    "--network",
    "widths=6,6,6,6,6,6",
    "--frames",
    "16",
    "--batch",
    "4",
    "--epochs",
    "1",
    "--quiet",
    "--threads",
    "1",
]


@pytest.mark.filterwarnings("ignore")
def test_a_run_in_the_plane_is_kept_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = some_data(COCO17, channels=2, persons=2)
    monkeypatch.setattr(train, "load_data", lambda *_, **options: Split(data, data))
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # Lightning leaves them behind
        monkeypatch.setenv(name, "0")
    changes = [
        "--branch",
        "focus",
        "--augment",
        "flip=0.5",
        "--augment",
        "shear=0.2",
        "--augment",
        "joint_dropout=0.1",
        "--augment",
        "speed=0.3",
        "--augment",
        "rotation=0,0,15",
    ]
    train.main([*SMALL, *changes, "--out", str(tmp_path / "run"), "--devices", "1"])
    objective, recipe, layout, *_ = results.load_run(tmp_path / "run")
    assert layout is COCO17
    changed = {name: recipe.augment[name] for name in ("flip", "shear", "joint_dropout", "speed")}
    assert changed == {"flip": 0.5, "shear": 0.2, "joint_dropout": 0.1, "speed": 0.3}
    batch = whole(data)
    with torch.no_grad():
        logits = objective.model(prepare(batch, recipe, layout))
    assert_kept(tmp_path / "run", logits.log_softmax(1)[:4])
    assert recipe.augment["rotation"] == (0.0, 0.0, 15.0)


@pytest.mark.filterwarnings("ignore")
def test_a_run_leaves_the_presets_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run in the plane turns its clips about z alone; later runs must not."""
    before = copy.deepcopy(PRESETS)
    data = some_data(COCO17, channels=2)
    monkeypatch.setattr(train, "load_data", lambda *_, **options: Split(data, data))
    (tmp_path / "clips").mkdir()
    options = ["--data", str(tmp_path / "clips"), "--devices", "1", "--threads", "1", "--quiet"]
    options += ["--network", "widths=6,6", "strides=1,1", "--epochs", "1", "--ema", "0"]
    train.main([*options, "--out", str(tmp_path / "run")])
    recipe = json.loads((tmp_path / "run" / "report.json").read_text())["recipe"]
    assert recipe["augment"]["rotation"] == [0.0, 0.0, 15.0]
    assert before == PRESETS


def facts_of_three(recipe: Recipe, channels: int = 3) -> dict[str, object]:
    """The model.json of a network of three classes."""
    layouts = {"layout": "NTU25", "clips_layout": "NTU25"}
    sizes = {"classes": list("abc"), "persons": 1, "channels": channels}
    return {"recipe": asdict(recipe), **layouts, **sizes}


def test_a_file_of_other_sizes_is_refused(tmp_path: Path) -> None:
    recipe = Recipe(network={"widths": (6,) * 6, "strides": (1,) * 6}, frames=16)
    objective = build_objective(recipe, 3, 1, NTU25)
    results.write_model(tmp_path, objective.model, facts_of_three(recipe))
    loaded, kept, *_ = results.load_run(tmp_path)
    assert kept == recipe and loaded.model(torch.zeros(1, 4, 16, 25, 1)).shape == (1, 3)
    results.write_model(tmp_path, objective.model, facts_of_three(recipe, channels=2))
    with pytest.raises(ValueError, match="size mismatch"):
        results.load_run(tmp_path)


def test_the_arrangement_of_stf_is_kept(tmp_path: Path) -> None:
    network = {"widths": (6,) * 3, "strides": (1,) * 3}
    recipe = Recipe(model="stf_ms_g3d", network={**network, "stf": "scales"}, frames=16)
    trained = train.Recogniser(recipe, NTU25, 3, 1).objective
    results.write_model(tmp_path, trained.model, facts_of_three(recipe))
    objective, loaded, *_ = results.load_run(tmp_path)
    assert loaded == recipe and repr(objective.model) == repr(trained.model)
    other = Recipe(model="stf_ms_g3d", network=network, frames=16)
    six = train.Recogniser(other, NTU25, 3, 1)
    with pytest.raises(
        ValueError, match=r"a run of the same stf of --network, modules, got .* with scales$"
    ):
        train.start_from(six, list("abc"), str(tmp_path))


def test_stf_starts_from_ms_g3d_with_its_own_weights_alone_left_out(tmp_path: Path) -> None:
    sizes = {"widths": (6,) * 3, "strides": (1,) * 3}
    recipe = Recipe(model="ms_g3d", branch="plain", network=sizes, frames=16)
    plain = train.Recogniser(recipe, NTU25, 3, 1)
    results.write_model(tmp_path, plain.objective.model, facts_of_three(recipe))
    x = torch.randn(2, 4, 16, 25, 1)
    for arrangement in ("modules", "scales"):
        recipe = Recipe(model="stf_ms_g3d", network={**sizes, "stf": arrangement}, frames=16)
        focused = train.Recogniser(recipe, NTU25, 3, 1)
        train.start_from(focused, list("abc"), str(tmp_path))
        with torch.no_grad():
            ours, theirs = (module.objective.model.eval()(x) for module in (focused, plain))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        focused.objective.model.extra = nn.Linear(2, 2)
        with pytest.raises(
            ValueError,
            match=r"of the same network and sizes, got .*: extra\.bias, extra\.weight \(",
        ):
            train.start_from(focused, list("abc"), str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["--network", "stf=scales"],
            "expected --network with some of widths, strides, first_scale, dropout, got stf",
        ),
        (["--augment", "flip=1.5"], "Augment: expected flip in 0..1, got 1.5"),
        (["--augment", "shear=-0.1"], "Augment: expected shear in 0..1, got -0.1"),
        (
            ["--augment", "joint_dropout=1"],
            "Augment: expected joint_dropout of at least 0 and below 1, got 1",
        ),
        (["--augment", "speed=nan"], "Augment: expected speed of at least 0 and below 1, got nan"),
        (["--augment", "scale=1"], "Augment: expected scale of at least 0 and below 1, got 1"),
        (
            ["--preparation", "paper", "--augment", "crop=0.5"],
            "got --augment crop with --preparation paper",
        ),
        (
            ["--preset", "paper_bagcn", "--augment", "crop=0.5"],
            "got --augment crop with --preparation dgnn",
        ),
        (
            ["--preset", "paper", "--augment", "speed=0.5"],
            "got --augment speed with --preparation paper",
        ),
        (
            ["--preset", "paper", "--augment", "mask=0.5"],
            "got --augment mask with --preparation paper",
        ),
        (
            ["--preparation", "dgnn", "--augment", "sampling=random"],
            "got --augment sampling with --preparation dgnn",
        ),
        (
            ["--augment", "mask_joints=0.6,0.2"],
            r"expected mask_joints of two ascending shares in 0..1, got \(0.6, 0.2\)",
        ),
        (["--branch", "exploration", "--norm", "l2"], "got --norm with --branch exploration"),
        (["--data", "somewhere", "--clips", "50"], "got --clips with --data"),
        (["--split", "xsub"], "got --split without --data"),
        (["--skip-bad-clips"], "got --skip-bad-clips without --data"),
        (["--stf-after", "1.5"], "expected stf_after in 0..1, got 1.5"),
        (["--weight-decay", "-1"], "expected weight_decay in 0..1, got -1.0"),
        (
            ["--branch", "adjacency", "--model", "ms_g3d"],
            "without adjacency with --model ms_g3d, which has no STFAdjacency for L_G to act on, "
            "got adjacency; leave",
        ),
        (
            ["--branch", "coherence+adjacency", "--model", "bagcn"],
            "with --model bagcn, which has no STFAdjacency for",
        ),
        (
            ["--branch", "adjacency", "--model", "fg_stformer"],
            "or take --model stf_gcn or stf_ms_g3d",
        ),
        (
            ["--model", "bagcn", "--network", "scales=8"],
            "expected --network with some of widths, strides, focus, context, dropout, got scales",
        ),
        (["--network", "window_scales=8"], "--network with some of widths, .*, got window_scales"),
        (
            ["--augment", "turn=3"],
            "expected --augment with some of rotation, rotation_order, .*, got turn",
        ),
        (["--epochs", "0"], "expected epochs of at least 1, got 0"),
        (["--lr", "nan"], "expected lr in 1e-09..99, got nan"),
        (
            ["--preset", "paper_stf_kinetics"],
            "expected --start-from with the preset paper_stf_kinetics, got none",
        ),
        (
            ["--preset", "paper_stf_ntu120"],
            "expected --start-from with the preset paper_stf_ntu120, got none",
        ),
    ],
)
def test_settings_out_of_their_range(arguments: list[Any], error: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=error):
        command_line.parse([*arguments, "--out", str(tmp_path / "run")])


def test_a_network_of_one_s_own_takes_a_preset_without_the_other_s_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(nn.Module):
        def __init__(
            self, num_classes: int, layout: SkeletonLayout, *, in_channels: int, dropout: float = 0
        ) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Conv2d(in_channels, 4, 1), nn.Dropout(dropout)])
            self.fc = nn.Linear(4, num_classes)

    monkeypatch.setitem(NETWORKS, "own", Own)
    out = ["--out", str(tmp_path / "run")]
    given, recipe = command_line.parse(["--model", "own", "--data", "somewhere", *out])
    assert given.preset == "nw_ucla" and recipe.network == {"dropout": 0.3}
    network = build_network(recipe, 3, 1, KINECT20)
    assert network.blocks[0].in_channels == 10 and network.blocks[1].p == 0.3
    _, recipe = command_line.parse(["--model", "own", "--network", "dropout=0.1", *out])
    assert recipe.network == {"dropout": 0.1}


def test_a_branch_is_its_terms() -> None:
    def weights(**options: Any) -> dict[str, float]:
        return {
            name: weight for name, weight in build_loss(Recipe(**options)).weights.items() if weight
        }

    assert weights(branch="plain") == {}
    assert weights(branch="focus") == {"divergence": 0.1, "coherence": 0.1, "adjacency": 0.01}
    assert weights(branch="exploration") == {"exploration": 0.01}
    assert weights(branch="all") == {
        name: weight for name, weight in STFLoss().weights.items() if weight
    }
    assert weights(branch="coherence+divergence=0.3") == {"coherence": 0.1, "divergence": 0.3}
    assert build_loss(Recipe(norm="l2")).norm == "l2"


@pytest.mark.parametrize("model", NETWORKS)
def test_the_networks_with_an_adjacency_for_the_focus(model: str, tmp_path: Path) -> None:
    network = build_network(Recipe(model=model), 3, 1, KINECT20)
    assert any(isinstance(m, STFAdjacency) for m in network.modules()) == (
        model in WITH_STF_ADJACENCY
    )
    for branch in ("focus", "all"):  # L_d and L_c act on every network
        start = ["--start-from", "run"] if model == "stf_ms_g3d" else []
        given = ["--model", model, "--branch", branch, *start, "--out", str(tmp_path / "run")]
        assert command_line.parse(given)[1].branch == branch


@pytest.mark.filterwarnings("ignore")  # Lightning's
def test_table_5_goes_on_from_ms_g3d_without_an_adjacency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """M2 and M3 are MS-G3D with L_c, and with L_d, at STF's rates."""
    data = some_data(KINECT20)
    monkeypatch.setattr(train, "load_data", lambda *_, **options: Split(data, data))
    small = [
        "--model",
        "ms_g3d",
        "--network",
        "widths=6,6,12",
        "--frames",
        "16",
        "--batch",
        "4",
        "--quiet",
    ]
    small += ["--epochs", "1", "--threads", "1"]
    base = str(tmp_path / "base")
    train.main(["--preset", "paper", "--branch", "plain", *small, "--out", base])
    for branch in ("coherence", "coherence+divergence", "focus"):
        out = tmp_path / branch
        start = [
            "--preset",
            "paper_stf",
            "--start-from",
            base,
            "--branch",
            branch,
            "--out",
            str(out),
        ]
        report = train.main([*start, *small])
        assert (report["recipe"]["lr"], report["recipe"]["decay"]) == (1e-3, (20, 35, 45))
        logged = (out / "log" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
        terms = {name.removeprefix("train/") for name in logged if name.startswith("train/")} - {
            "classification"
        }
        assert terms == (
            {"coherence", "divergence"} if branch == "focus" else set(branch.split("+"))
        )
        told = "note: ms_g3d has no STFAdjacency for L_G to act on; the branch focus is trained "
        told += "without"
        assert (told in capsys.readouterr().out) == (branch == "focus")


def test_a_share_is_drawn_and_holds_the_smaller_ones() -> None:
    def names(share: float, **options: int) -> set[str]:
        split = loading.load_data(None, Recipe(clips=40, frames=16, share=share, **options))
        assert len(split.test) == 10
        return set(split.train.names)

    assert len(names(1.0)) == 40 and len(names(0.5)) == 20 and len(names(0.01)) == 1
    assert names(0.1) < names(0.5) < names(1.0)
    assert names(0.5, draw=2) != names(0.5)
    assert names(0.5, seed=2) == names(0.5)


@pytest.mark.filterwarnings("ignore")  # Lightning's
def test_clips_held_out_choose_the_epoch_and_are_not_trained_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [
        "--clips",
        "60",
        "--batch",
        "8",
        "--frames",
        "16",
        "--network",
        "widths=6,6,6,6,6,6",
        "--branch",
        "plain",
        "--quiet",
    ]
    options += ["--threads", "1", "--epochs", "4", "--ema", "0.5", "--hold-out", "1", "7"]
    report = train.main([*options, "--out", str(out)])
    apart = [name for name in map(str, range(60)) if "1" in name or "7" in name]
    assert report["clips"] == [60 - len(apart), 15]

    with (out / "log" / "version_0" / "metrics.csv").open(newline="") as file:
        watched = [
            float(row["validation/top1"]) for row in csv.DictReader(file) if row["validation/top1"]
        ]
    assert len(watched) == 4
    best = report["best"]
    assert best["epoch"] == watched.index(max(watched)) + 1
    assert best["validation_top1"] == pytest.approx(
        max(watched), abs=1e-4
    )  # of the averaged weights, too

    data, validation = loading.held_out(
        loading.load_data(None, Recipe(**report["recipe"])), Recipe(**report["recipe"])
    )
    assert set(validation.names) == set(apart) and not set(data.train.names) & set(apart)
    module = train.Recogniser(Recipe(**report["recipe"]), data.train.layout, 18, 2)
    assert results.write_best(out, module.objective, module.recipe, data, validation, RUN) == best
    (probabilities,), label, _ = ensemble.read_all([str(out / "best")])
    assert results.accuracy(probabilities, label)["top1"] == best["top1"]
    objective, recipe, *_ = results.load_run(out / "best")
    again = results.accuracy(
        results.predict(objective.model, data.test, recipe), torch.tensor(data.test.labels)
    )
    assert again["top1"] == best["top1"] and recipe == Recipe(**report["recipe"])
    clips, source = loading.clips_of(
        out / "best", recipe, data.train.layout, list(data.train.classes)
    )
    assert source is None and clips.names == data.test.names


@pytest.mark.filterwarnings("ignore")  # Lightning's
@pytest.mark.parametrize(("decay", "kept"), [(0.999, 0.05), (0.5, 0.5**14)])
def test_a_short_run_does_not_average_its_initial_weights(
    decay: float, kept: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = set()

    def recorded(self: Any, averaged: Tensor, current: Tensor, count: Any) -> Tensor:
        used.add(self.decay)
        return average(self, averaged, current, count)

    average = train.MovingAverage.average
    monkeypatch.setattr(train.MovingAverage, "average", recorded)
    options = ["--clips", "60", "--batch", "8", "--frames", "16", "--ema", str(decay), "--quiet"]
    options += ["--network", "widths=6,6,6,6,6,6", "--threads", "1", "--epochs", "2"]
    train.main([*options, "--out", str(tmp_path / "run")])
    (decay,) = used
    assert decay**14 == pytest.approx(kept)  # two epochs of seven steps
    one, other = torch.randn(5), torch.randn(5)
    averaged = train.MovingAverage(0.9).average(one, other, 3)
    torch.testing.assert_close(averaged, 0.9 * one + 0.1 * other)


@pytest.mark.filterwarnings("ignore")  # Lightning's
def test_averaged_weights_have_statistics_of_their_own(tmp_path: Path) -> None:
    options = [
        "--clips",
        "60",
        "--batch",
        "8",
        "--frames",
        "16",
        "--network",
        "widths=6,6,6,6,6,6",
        "--branch",
        "plain",
        "--quiet",
    ]
    train.main(
        [
            *options,
            "--threads",
            "1",
            "--epochs",
            "3",
            "--ema",
            "0.9",
            "--out",
            str(tmp_path / "run"),
        ]
    )
    objective, recipe, layout, *_ = results.load_run(tmp_path / "run")
    averaged = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    kept = {name: value.clone() for name, value in objective.state_dict().items()}
    moved = [
        name
        for name, value in kept.items()
        if not torch.equal(value, averaged[f"objective.{name}"])
    ]
    assert moved and all(
        name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in moved
    )

    def renewed(recipe: Recipe) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """All statistics; those of the deepest BatchNorm, and what they should be of."""
        model = copy.deepcopy(objective.model)
        seen = []
        deep = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)][-1]
        deep.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean((0, 2, 3))))
        train.renew_statistics(model, loading.load_data(None, recipe).train, recipe)
        return model.state_dict(), deep.running_mean, torch.stack(seen).mean(0)

    statistics, deep, wanted = renewed(recipe)  # of the weights that are kept
    torch.testing.assert_close(deep, wanted)
    torch.testing.assert_close(statistics, {name: kept[f"model.{name}"] for name in statistics})
    _, whole, _ = renewed(replace(recipe, augment={}))  # and of clips as they are augmented
    assert ((whole - deep).abs() > 0.01 * deep.abs()).any()

    # Pooled over the training clips as they are augmented, the input of the first BatchNorm has
    # these moments.
    torch.manual_seed(0)
    clips = loading.load_data(None, recipe).train
    batch = SkeletonDataset.collate([clips[i] for i in range(len(clips))] * 20)
    x = prepare(batch, recipe, layout, torch.Generator().manual_seed(3))
    rows = x.permute(0, 4, 1, 3, 2).reshape(
        len(x) * x.shape[4], -1, x.shape[2]
    )  # (N * M, C * V, T)
    mean = kept["model.norm.running_mean"]
    spread = kept["model.norm.running_var"].sqrt()
    assert (rows.mean((0, 2)) - mean).abs().max() < 0.2 * spread.max()
    torch.testing.assert_close(rows.std((0, 2)), spread, rtol=0.3, atol=0.05)


def test_probabilities_of_a_clip_and_its_mirror_image() -> None:
    """The mean; the image is what the network would take, mirrored by hand, so that it keeps the
    clip's height.
    """
    recipe = Recipe(stream="joint+bone", frames=8, batch=5)
    recipe.network = {"widths": (6, 6), "strides": (2, 1)}
    torch.manual_seed(0)
    places = torch.randn(5, 3, 12, 20, 1)
    seen = (torch.rand(5, 12, 20, 1) > 0.1).float()
    data = SkeletonDataset(list(places), [0, 1, 2, 0, 1], KINECT20, visibility=list(seen))
    x = prepare(SkeletonDataset.collate([data[i] for i in range(5)]), recipe, KINECT20)
    image = x.clone()
    for left, right in KINECT20.pairs:
        image[:, :, :, [left, right]] = x[:, :, :, [right, left]]
    image[:, [0, 3]] *= -1  # x of the joints and of the bones
    model = build_network(recipe, 3, 1, KINECT20).eval()
    nn.init.normal_(model.fc.weight, std=10)  # so that the two sides differ by much
    with torch.no_grad():
        one, other = (model(side).softmax(1) for side in (x, image))
    assert (one - other).abs().max() > 0.01
    found = results.predict(model, data, recipe, mirror=True)
    torch.testing.assert_close(found.exp(), (one + other) / 2)


def test_a_run_of_two_bodies_takes_clips_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network takes a mean over both places, so the same clip has the same probabilities
    without its empty one.
    """
    recipe = Recipe(network={"widths": (6,) * 6}, frames=16, clips=40)
    both = loading.load_data(None, recipe)
    alone = [clip.x[..., :1] for clip in both.test]  # the second body taken out
    seen = [clip.visibility[..., :1] for clip in both.test]
    options = {"classes": both.test.classes, "names": both.test.names}
    one = SkeletonDataset(alone, both.test.labels, both.test.layout, visibility=seen, **options)
    empty = one.with_persons(2)
    torch.manual_seed(0)
    objective = build_objective(recipe, len(one.classes), 2, one.layout)
    results.write_results(tmp_path, objective, recipe, empty, RUN)
    monkeypatch.setattr(loading, "generated", lambda recipe: Split(one, one))
    found, _ = loading.clips_of(tmp_path, recipe, one.layout, list(one.classes))
    assert found[0].x.shape[3] == 2
    again = results.predict(objective.model, found, recipe)
    assert_kept(tmp_path, again)
    narrow = results.predict(objective.model, one, recipe)
    assert (narrow - again).abs().max() > 1e-4  # or the clips show nothing
    assert results.write_results(tmp_path, objective, recipe, one, RUN)
    monkeypatch.setattr(loading, "generated", lambda recipe: both)
    with pytest.raises(ValueError, match=r"of at most 1 bodies, .* got 2 from generated"):
        loading.clips_of(tmp_path, recipe, one.layout, list(one.classes))


# --------------------------------------------------------------------------------------------- the
# papers' numbers

# Every number that a paper's preset sets, as printed: STF, "Training scheme" and "Data
# preparation"; FG-STFormer, section 4.2; BAGCN, section 4.1; of Kinetics, the scales of MS-G3D's
# published settings. What a preset does not set, here neither, is the default of all.
PRINTED: dict[str, dict[str, Any]] = {
    "paper": {
        "model": "ms_g3d",
        "branch": "plain",
        "preparation": "paper",
        "frames": 300,
        "lr": 0.05,
        "decay": (20, 35, 45),
        "epochs": 55,
    },
    "paper_stf": {
        "branch": "focus",
        "preparation": "paper",
        "frames": 300,
        "lr": 1e-3,
        "decay": (20, 35, 45),
        "epochs": 55,
        "model": "stf_ms_g3d",
    },
    "paper_ntu120": {
        "model": "ms_g3d",
        "branch": "plain",
        "preparation": "paper",
        "frames": 300,
        "lr": 0.05,
        "decay": (20, 35, 50),
        "epochs": 60,
    },
    "paper_stf_ntu120": {
        "branch": "focus",
        "preparation": "paper",
        "frames": 300,
        "lr": 5e-4,
        "decay": (20, 35, 50),
        "epochs": 60,
        "model": "stf_ms_g3d",
    },
    "paper_kinetics": {
        "model": "ms_g3d",
        "branch": "plain",
        "preparation": "paper",
        "frames": 300,
        "lr": 0.05,
        "decay": (25, 40, 55),
        "epochs": 65,
        "network": {"scales": 8, "window_scales": 8},
    },
    "paper_stf_kinetics": {
        "branch": "focus",
        "preparation": "paper",
        "frames": 300,
        "lr": 1e-4,
        "decay": (25, 40, 55),
        "epochs": 65,
        "network": {"scales": 8, "window_scales": 8},
        "model": "stf_ms_g3d",
    },
    "paper_bagcn_kinetics": {
        "preparation": "paper",
        "frames": 300,
        "lr": 0.1,
        "decay": (20, 40, 55),
        "epochs": 65,
        "weight_decay": 1e-4,
        "model": "bagcn",
        "branch": "plain",
        "stream": "joint+bone",
    },
    "paper_fg_stformer": {
        "preparation": "ctrgcn",
        "augment": {"crop": 0.5, "rotation": (17.1887, 17.1887, 17.1887)},
        "frames": 128,
        "lr": 0.01,
        "decay": (50, 70),
        "epochs": 80,
        "warmup": 5,
        "model": "fg_stformer",
        "branch": "plain",
    },
    "paper_bagcn": {
        "preparation": "dgnn",
        "frames": 300,
        "lr": 0.1,
        "decay": (30, 40),
        "epochs": 50,
        "weight_decay": 1e-4,
        "model": "bagcn",
        "branch": "plain",
        "stream": "joint+bone",
    },
}
# The recipe that public code for NW-UCLA shares, at its budget: 65 epochs of five passes.
OF_THE_FIELD: dict[str, Any] = {
    "branch": "plain",
    "stream": "joint",
    "preparation": "box",
    "frames": 52,
    "augment": {"rotation": (60.0, 60.0, 0.0), "rotation_order": "yxz"},
    "epochs": 5 * 65,
    "decay": (5 * 50,),
    "warmup": 5 * 5,
    "batch": 16,
    "lr": 0.1,
    "weight_decay": 1e-4,
    "label_smoothing": 0.0,
    "ema": 0.0,
    "erasing": 0.0,
    "stf_after": 0.0,
    "cycle": 1.0,
}


@pytest.mark.parametrize("model", ["stf_gcn", "ms_g3d", "fg_stformer", "bagcn"])
def test_the_recipe_of_the_field(model: str) -> None:
    ending = "" if model == "stf_gcn" else f"_{model}"
    recipe = Recipe(**PRESETS[f"nw_ucla_325{ending}"])
    shorter = Recipe(**PRESETS[f"nw_ucla_150{ending}"])
    expected = OF_THE_FIELD | ({"lr": 0.03} if model == "fg_stformer" else {})
    assert {name: getattr(recipe, name) for name in expected} == expected
    changed = {"epochs": 150, "decay": (120,), "label_smoothing": 0.1, "ema": 0.999}
    augment = {**recipe.augment, "mask": 0.5, "axis_dropout": 0.5}
    assert shorter == replace(recipe, augment=augment, **changed)
    assert recipe.model == model
    assert recipe.network == PRESETS[f"nw_ucla{ending}"]["network"]
    assert sum("325" in name or "150" in name for name in PRESETS) == 9  # and the fine-tuning
    x = prepare(whole(some_data(KINECT20)), recipe, KINECT20, torch.Generator().manual_seed(0))
    assert x.shape == (8, 4, 52, 20, 1)
    assert build_network(recipe, 10, 1, KINECT20)(x).shape == (8, 10)


@pytest.mark.parametrize("data", ["nw_ucla", "nw_ucla_150", "synthetic"])
def test_fine_tuning_changes_the_schedule_and_the_losses_only(data: str) -> None:
    trained = Recipe(**PRESETS[data])
    schedule = {"epochs": 10, "lr": trained.lr / 2, "cycle": 1.0, "decay": (), "warmup": 0}
    losses = {"branch": "recommended", "erasing": 0.5, "layers": ("blocks.2", "blocks.5")}
    tuned = replace(trained, **schedule, **losses, ema=0.0, stf_after=0.0)
    assert Recipe(**PRESETS[f"{data}_focus"]) == tuned


# What all of them share: batch, weight decay (but BAGCN's), FG-STFormer's layers and joints, no
# augmentation.
SHARED = {
    "batch": 32,
    "weight_decay": 5e-4,
    "network": {},  # the classes' own sizes are the papers' (tests of each network)
    "augment": {},
    "label_smoothing": 0.0,
    "ema": 0.0,
    "stf_after": 0.0,
    "erasing": 0.0,
    "warmup": 0,
    "stream": "joint",
}


def test_every_preset_of_a_paper_is_pinned() -> None:
    assert {name for name in PRESETS if name.startswith("paper")} == set(PRINTED)


@pytest.mark.parametrize("preset", PRINTED)
def test_presets_hold_the_printed_numbers(preset: str) -> None:
    recipe = Recipe(**PRESETS[preset])
    printed = {**SHARED, **PRINTED[preset]}
    assert {name: getattr(recipe, name) for name in printed} == printed


def test_the_rotation_of_ctr_gcn_is_that_of_its_code() -> None:
    assert PRESETS["paper_fg_stformer"]["augment"]["rotation"] == pytest.approx(
        [math.degrees(0.3)] * 3, abs=1e-4
    )


def test_losses_are_added_by_name_alone(tmp_path: Path) -> None:
    """The presets that fine-tune name them; without --branch, others have cross-entropy alone."""
    with_losses = {name for name, preset in PRESETS.items() if Recipe(**preset).branch != "plain"}
    assert with_losses == {
        name for name in PRESETS if name.endswith("_focus") or "_stf" in name.replace("_fg_stf", "")
    }
    _, recipe = command_line.parse(["--out", str(tmp_path / "run")])
    assert recipe.branch == "plain" and not any(build_loss(recipe).weights.values())


def rates(recipe: Recipe) -> list[float]:
    """The learning rate of each epoch as the program sets it."""
    small = replace(recipe, model="stf_gcn", network={"widths": (6, 6), "strides": (1, 1)})
    (optimizer,), (schedule,) = train.Recogniser(small, KINECT20, 3, 1).configure_optimizers()
    found = []
    for _ in range(recipe.epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert optimizer.defaults["momentum"] == 0.9 and optimizer.defaults["nesterov"] is True
    return found


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("paper", [5e-2] * 20 + [5e-3] * 15 + [5e-4] * 10 + [5e-5] * 10),
        ("paper_stf", [1e-3] * 20 + [1e-4] * 15 + [1e-5] * 10 + [1e-6] * 10),
        ("paper_ntu120", [5e-2] * 20 + [5e-3] * 15 + [5e-4] * 15 + [5e-5] * 10),
        ("paper_stf_ntu120", [5e-4] * 20 + [5e-5] * 15 + [5e-6] * 15 + [5e-7] * 10),
        ("paper_kinetics", [5e-2] * 25 + [5e-3] * 15 + [5e-4] * 15 + [5e-5] * 10),
        ("paper_stf_kinetics", [1e-4] * 25 + [1e-5] * 15 + [1e-6] * 15 + [1e-7] * 10),
        ("paper_bagcn_kinetics", [1e-1] * 20 + [1e-2] * 20 + [1e-3] * 15 + [1e-4] * 10),
        ("paper_bagcn", [1e-1] * 30 + [1e-2] * 10 + [1e-3] * 10),
        (
            "paper_fg_stformer",
            [1e-2 / 6, 2e-2 / 6, 3e-2 / 6, 4e-2 / 6, 5e-2 / 6]
            + [1e-2] * 45
            + [1e-3] * 20
            + [1e-4] * 10,
        ),
        (
            "nw_ucla_325",
            [0.1 * epoch / 26 for epoch in range(1, 26)] + [0.1] * 225 + [0.01] * 75,
        ),
    ],
)
def test_the_rate_of_every_epoch(preset: str, expected: list[float]) -> None:
    assert rates(Recipe(**PRESETS[preset])) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("preset", ["paper_kinetics", "paper_stf_kinetics"])
def test_the_scales_of_kinetics(preset: str) -> None:
    """Of 18 joints, as many neighbourhoods in the windows as in the frames."""
    recipe = Recipe(**PRESETS[preset])
    assert recipe.model == ("ms_g3d" if preset == "paper_kinetics" else "stf_ms_g3d")
    recipe.network = {**recipe.network, "widths": (6, 6, 12)}
    block = build_network(recipe, 400, 2, OPENPOSE18, channels=2).blocks[0]
    assert block.graph.conv.adjacency.shape == (8, 18, 18)
    assert [pathway.conv.adjacency.shape[0] for pathway in block.windows] == [8, 8]
    default = build_network(
        replace(recipe, network={"widths": (6, 6, 12)}), 400, 2, OPENPOSE18, channels=2
    ).blocks[0]
    assert default.graph.conv.adjacency.shape[0] == 13
    assert [pathway.conv.adjacency.shape[0] for pathway in default.windows] == [6, 6]
