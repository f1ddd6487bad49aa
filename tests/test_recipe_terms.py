"""The options of the example programs that act on the focus: terms, score, erasing, guidance,
shortcuts, occlusion.
"""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import command_line
import loading
import pytest
import results
import torch
import train
from recipe import (
    PREPARATIONS,
    Recipe,
    build_loss,
    build_objective,
    prepare,
    term_weights,
)
from test_recipe import some_data, whole

from skeleton_focus import NTU25, Batch, Split, STFLoss, SyntheticActions, body_height

PAPER = {"exploration": 0.01, "divergence": 0.1, "coherence": 0.1, "adjacency": 0.01}
TINY = {"network": {"widths": (6,) * 6, "strides": (1,) * 6}, "frames": 16}


@pytest.mark.parametrize(
    ("branch", "expected"),
    [
        ("plain", {}),
        ("exploration", {"exploration": 0.01}),
        ("focus", {"divergence": 0.1, "coherence": 0.1, "adjacency": 0.01}),
        ("all", PAPER),
        ("exploration=0.3+coherence", {"exploration": 0.3, "coherence": 0.1}),
        ("coherence+exploration=0.3", {"exploration": 0.3, "coherence": 0.1}),
        ("guidance=2", {"guidance": 2.0}),
        ("guidance=1e-2+divergence", {"guidance": 0.01, "divergence": 0.1}),
        ("coherence=0+divergence", {"divergence": 0.1}),
    ],
)
def test_the_weights_of_a_branch(branch: str, expected: dict[str, float]) -> None:
    weights = term_weights(branch)
    assert weights == {**dict.fromkeys(STFLoss().weights, 0.0), **expected}
    assert build_loss(Recipe(branch=branch)).weights == weights


@pytest.mark.parametrize(
    ("branch", "text"),
    [
        (
            "cosine",
            "--branch to be plain, .* joined by .*, got 'cosine'; a branch's name stands alone",
        ),
        ("focus+exploration", "got 'focus'; a branch's name stands alone"),
        ("exploration+all", "got 'all'; "),
        ("plain=1", "got 'plain'; "),
        ("", "got ''; "),
        ("coherence+", "got ''; "),
        ("exploration=much", "with a weight such as exploration=0.3, got 'exploration=much'"),
        ("exploration=0.3=1", "with a weight such as exploration=0.3, got 'exploration=0.3=1'"),
        ("guidance", "with a weight of guidance, such as guidance=0.3, got 'guidance'"),
        ("coherence+guidance=", "with a weight of guidance, such as guidance=0.3, got 'guidance='"),
        ("coherence=-1", "STFLoss: expected a weight coherence of at least 0, got -1.0"),
        ("coherence=nan", "STFLoss: expected a weight coherence of at least 0, got nan"),
    ],
)
def test_a_branch_that_is_none(branch: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=text):
        command_line.parse(["--branch", branch, "--out", str(tmp_path / "run")])


def test_the_options_reach_the_objective(tmp_path: Path) -> None:
    given = [
        "--branch",
        "focus",
        "--score",
        "probability",
        "--erasing",
        "0.25",
        "--separation",
        "overlap",
        "--out",
        str(tmp_path / "run"),
    ]
    _, recipe = command_line.parse(given)
    assert (recipe.score, recipe.erasing, recipe.separation) == ("probability", 0.25, "overlap")
    objective = build_objective(Recipe(**{**vars(recipe), **TINY}), 3, 1, NTU25)
    assert (objective.score, objective.erasing, objective.loss.separation) == (
        "probability",
        0.25,
        "overlap",
    )
    default = build_objective(Recipe(**TINY), 3, 1, NTU25)
    assert (default.score, default.erasing, default.loss.separation) == ("logit", 0.0, "distance")
    assert not any(default.loss.weights.values())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--erasing", "1.5"], "expected erasing in 0..1, got 1.5"),
        (["--shortcut", "-0.1"], "expected shortcut in 0..1, got -0.1"),
        (
            ["--branch", "plain", "--freeze", "--start-from", "run", "--erasing", "0.5"],
            "got --erasing with --freeze",
        ),
        (["--data", "somewhere", "--shortcut", "0.5"], "got --shortcut with --data"),
        (
            ["--branch", "coherence", "--separation", "overlap"],
            "got --separation with --branch coherence",
        ),
        (["--branch", "guidance=1"], "expected --guide with --branch guidance=1, got none"),
        (["--branch", "guidance=0", "--guide", "a.json"], "got --guide with --branch guidance=0"),
        (
            ["--branch", "guidance=1", "--guide", "a.json", "--norm", "l2"],
            "got --norm with --branch guidance=1",
        ),
    ],
)
def test_options_without_effect_or_out_of_range(
    arguments: list[str], text: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=text):
        command_line.parse([*arguments, "--out", str(tmp_path / "run")])


@pytest.mark.parametrize("name", ["score", "separation"])
def test_choices(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.parse([f"--{name}", "cosine", "--out", str(tmp_path / "run")])
    assert f"argument --{name}: invalid choice: 'cosine'" in capsys.readouterr().err


def test_erasing_alone_starts_late_too(tmp_path: Path) -> None:
    given = [
        "--branch",
        "plain",
        "--erasing",
        "0.5",
        "--stf-after",
        "0.5",
        "--out",
        str(tmp_path / "run"),
    ]
    assert command_line.parse(given)[1].stf_after == 0.5


# ------------------------------------------------------------------------------------------------
# guidance

SMALL = [
    "--network",
    "widths=6,6,6,6,6,6",
    "--frames",
    "16",
    "--clips",
    "40",
    "--batch",
    "8",
    "--quiet",
    "--threads",
    "1",
]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            "drink: head",
            "--guide with a JSON file of classes and their joints, got .*guide.json: Expecting",
        ),
        (
            b"\xff\xfe\x00",
            "--guide with a JSON file of classes and their joints, got .*guide.json: 'utf-8'",
        ),
        (
            '["drink"]',
            "expected --guide with a JSON object of classes and their joints, got .*guide.json$",
        ),
        ("3", "expected --guide with a JSON object of classes and their joints, got"),
        (
            '{"drnk": ["head"]}',
            r"allowed_joints: expected a table of classes among \[.*\], got \['drnk'\]",
        ),
        (
            '{"CLASS": ["tail"]}',
            r"allowed_joints: expected joints or parts of layout 'NTU25' for .*, got \['tail'\]; j",
        ),
        (
            '{"CLASS": "head"}',
            "allowed_joints: expected a list of joints or parts for .*, got 'head'",
        ),
        ('{"CLASS": 3}', "allowed_joints: expected a list of joints or parts for .*, got 3"),
        ('{"CLASS": [3]}', r"allowed_joints: expected a list of joints or parts for .*, got \[3\]"),
        (None, r"No such file or directory: .*guide\.json"),
    ],
)
def test_a_guide_that_does_not_fit_ends_in_one_line(
    content: str | bytes | None, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(content, str):
        content = content.replace("CLASS", SyntheticActions().classes[0]).encode()
    if content is not None:
        (tmp_path / "guide.json").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    given = [*SMALL, "--branch", "guidance=1", "--guide", "guide.json", "--out", "run"]
    with pytest.raises(SystemExit, match="^error: .*" + text) as stopped:
        train.run(lambda: train.main(given))
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")  # Lightning's
def test_a_guided_run_resumes_in_another_folder_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its second epoch; with erasing, so that the random numbers count, and with
    averaged weights.
    """
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # Lightning leaves them behind
        monkeypatch.setenv(name, "0")
    actions = SyntheticActions()
    label = 2
    table = {actions.classes[label]: ["right hand", "head"], actions.classes[5]: ["torso"]}
    (tmp_path / "guide.json").write_text(json.dumps(table))
    monkeypatch.chdir(tmp_path)
    given = [
        *SMALL,
        "--branch",
        "guidance=0.5+coherence=0.2",
        "--guide",
        "guide.json",
        "--score",
        "log_odds",
    ]
    given += [
        "--erasing",
        "0.5",
        "--stf-after",
        "0",
        "--epochs",
        "2",
        "--ema",
        "0.5",
        "--devices",
        "1",
    ]
    train.main([*given, "--out", "straight"])

    step = train.Recogniser.training_step
    known = []

    def interrupted(self: train.Recogniser, batch: Batch, index: int) -> torch.Tensor:
        if self.current_epoch == 1 and index == 2:
            raise KeyboardInterrupt
        return step(self, batch, index)

    def watched(self: train.Recogniser, batch: Batch, index: int) -> torch.Tensor:
        known.append(
            (self.objective.loss.allowed, self.objective.loss.weights, self.objective.score)
        )
        return step(self, batch, index)

    monkeypatch.setattr(train.Recogniser, "training_step", interrupted)
    with pytest.raises(SystemExit, match="stopped; resume"):
        train.main([*given, "--out", "stopped"])
    monkeypatch.setattr(train.Recogniser, "training_step", watched)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    report = train.main(
        ["--out", "../stopped", "--resume", "--quiet", "--threads", "1", "--devices", "1"]
    )

    allowed, weights, score = known[-1]
    assert allowed.shape == (18, 25)
    assert allowed[label].nonzero().flatten().tolist() == sorted(
        {*NTU25.parts["right_hand"], *NTU25.parts["head"]}
    )
    assert allowed[[0, 1, 3]].all()
    assert (weights["guidance"], weights["coherence"], score) == (0.5, 0.2, "log_odds")
    assert report["recipe"]["guide"] == str(tmp_path / "guide.json")
    straight, resumed = (
        torch.load(tmp_path / run / "model.pt", weights_only=True)
        for run in ("straight", "stopped")
    )
    assert not any("allowed" in name for name in straight)
    assert straight.keys() == resumed.keys()
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), name
    for run in ("straight/log/version_0", "stopped/log/version_1"):
        with (tmp_path / run / "metrics.csv").open(newline="") as file:
            values = [
                float(row["train/guidance"])
                for row in csv.DictReader(file)
                if row.get("train/guidance")
            ]
        assert values and all(0 < value < 1 for value in values)
    objective, *_ = results.load_run(tmp_path / "stopped")  # the guide is not needed to look at it
    assert (
        objective.explain(torch.randn(1, objective.model.norm.num_features // 25, 16, 25, 1))[0]
        .isfinite()
        .all()
    )


# ------------------------------------------------------------------------------------------
# shortcuts and occlusion


def test_shortcuts_of_the_test_clips_are_of_other_classes() -> None:
    recipe = Recipe(clips=72, frames=16, shortcut=1.0)
    train_clips, test_clips = loading.generated(recipe)
    actions = SyntheticActions(frames=16, shortcut=1.0)
    for data, count, seed, shuffled in ((train_clips, 72, 1, False), (test_clips, 18, 2, True)):
        expected, other = (
            actions.generate(count, seed=seed, shuffle_shortcut=way)
            for way in (shuffled, not shuffled)
        )
        found = torch.stack([clip.x for clip in data])
        assert torch.equal(found, expected.x)
        assert not torch.equal(found, other.x)
        assert list(data.labels) == expected.label.tolist()
    without = loading.generated(Recipe(clips=72, frames=16))
    assert isinstance(without, Split)
    plain = SyntheticActions(frames=16).generate(18, seed=2)
    assert torch.equal(torch.stack([clip.x for clip in without.test]), plain.x)


HIDDEN = [NTU25.center, 3, 15, 20]  # what clips are centred and scaled by, among them


def hide(batch: Batch) -> Batch:
    x = batch.x.clone()
    seen = batch.visibility.clone()
    x[:, :, :, HIDDEN] = 0
    seen[:, :, HIDDEN] = 0
    return batch._replace(x=x, visibility=seen)


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("preparation", [name for name, how in PREPARATIONS.items() if not how.box])
def test_occlusion_comes_after_clips_are_centred_and_scaled(
    preparation: str, seed: int | None
) -> None:
    """What is not hidden keeps its numbers, whatever is."""
    batch = whole(some_data(NTU25, persons=2))
    before = copy.deepcopy(batch)
    given = []
    recipe = Recipe(preparation=preparation, frames=9, augment={"rotation": (0.0, 30.0, 0.0)})
    whole_clips, occluded = (
        prepare(
            batch,
            recipe,
            NTU25,
            None if seed is None else torch.Generator().manual_seed(seed),
            occlude=occlude,
        )
        for occlude in (None, lambda clips: given.append(clips) or hide(clips))
    )
    rest = [joint for joint in range(25) if joint not in HIDDEN]
    assert torch.equal(occluded[:, :, :, rest], whole_clips[:, :, :, rest])
    assert occluded[:, :, :, HIDDEN].eq(0).all()
    assert whole_clips[:, :, :, HIDDEN].any()
    assert all(torch.equal(one, other) for one, other in zip(batch, before, strict=True))
    assert not torch.equal(given[0].x, batch.x)
    if PREPARATIONS[preparation].heights:
        height = body_height(given[0].x, NTU25, visibility=given[0].visibility)
        torch.testing.assert_close(height, torch.ones(8), rtol=1e-4, atol=1e-4)


def test_occlusion_comes_before_the_box() -> None:
    """The box is that of the joints that are left, as if the others had never been seen."""
    batch = whole(some_data(NTU25, persons=2))
    recipe = Recipe(preparation="box", frames=9)
    occluded = prepare(batch, recipe, NTU25, occlude=hide)
    assert occluded[:, :, :, HIDDEN].eq(0).all()
    torch.testing.assert_close(occluded, prepare(hide(batch), recipe, NTU25))
    assert not torch.equal(occluded, prepare(batch, recipe, NTU25))


def test_occlusion_comes_before_the_mirror() -> None:
    batch = whole(some_data(NTU25))
    recipe = Recipe(frames=9)
    left, right = NTU25.pairs[0]

    def lose_left(clips: Batch) -> Batch:
        seen = clips.visibility.clone()
        seen[:, :, left] = 0
        return clips._replace(visibility=seen)

    assert prepare(batch, recipe, NTU25, occlude=lose_left)[:, -1, :, left].eq(0).all()
    mirrored = prepare(batch, recipe, NTU25, mirror=True, occlude=lose_left)
    assert mirrored[:, -1, :, right].eq(0).all()
    assert mirrored[:, -1, :, left].any()
