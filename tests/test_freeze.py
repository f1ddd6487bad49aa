"""STF's data shift: a frozen network under a new last layer, trained on clips of other classes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import command_line
import ensemble
import explain
import numpy as np
import pytest
import results
import torch
import train
from recipe import NETWORKS, Recipe
from run_tools import assert_kept

from skeleton_focus import KINECT20, NTU25, SkeletonDataset, SyntheticActions

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's

SIZES = {
    "stf_gcn": ["--preset", "synthetic", "--network", "widths=6,6,6,6,6,6"],
    "ms_g3d": [
        "--preset",
        "synthetic_ms_g3d",
        "--network",
        "widths=6,6,12",
    ],
    "stf_ms_g3d": [
        "--preset",
        "synthetic_ms_g3d",
        "--network",
        "widths=6,6,12",
    ],
    "fg_stformer": ["--preset", "synthetic_fg_stformer", "--network", "widths=6,6,6,6"],
    "bagcn": ["--preset", "synthetic_bagcn", "--network", "widths=6,6,6,6,6,6,6,6,6"],
}
SMALL = [
    "--frames",
    "16",
    "--batch",
    "8",
    "--threads",
    "1",
    "--quiet",
    "--stream",
    "joint",
    "--branch",
    "plain",
]


@pytest.fixture(autouse=True)
def _seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # Lightning leaves them behind
        monkeypatch.setenv(name, "0")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Write generated actions to files, by number of classes: the first 3 classes, the last 5."""
    folder = tmp_path_factory.mktemp("clips")
    actions = SyntheticActions(frames=16)
    found = {}
    for classes, first in ((3, 0), (5, len(actions.classes) - 5)):
        arrays: dict[str, Any] = {}
        for side, n in (("train", 20), ("test", 10)):
            label = np.arange(n) % classes
            batch = actions.generate(n, seed=n, labels=(first + label).tolist())
            x = batch.x.permute(0, 2, 4, 3, 1).flatten(2)  # (N, C, T, V, M) -> (N, T, M V C)
            arrays |= {f"x_{side}": x.numpy(), f"y_{side}": np.eye(classes)[label]}
        found[classes] = str(folder / f"{classes}.npz")
        np.savez(found[classes], **arrays)
    return found


def trained(model: str, data: str, out: Path, *more: str, epochs: int = 1) -> dict[str, Any]:
    given = [
        "--model",
        model,
        *SIZES[model],
        *SMALL,
        "--epochs",
        str(epochs),
        "--data",
        data,
        "--out",
        str(out),
    ]
    return train.main([*given, *more])


@pytest.fixture(scope="module")
def started(clips: dict[int, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of every network on three classes."""
    folder = tmp_path_factory.mktemp("started")
    for model in NETWORKS:
        trained(model, clips[3], folder / model)
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "model.pt", weights_only=True)


def of_fc(names: Any) -> set[str]:
    return {name for name in names if name.startswith("fc.")}


@pytest.mark.parametrize("ema", ["0", "0.5"])
@pytest.mark.parametrize("model", NETWORKS)
def test_all_but_the_last_layer_stay_as_they_are(
    model: str,
    ema: str,
    started: Path,
    clips: dict[int, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Weights and BatchNorm's statistics, to the bit; programs read the run as any other."""
    run = tmp_path / "shifted"
    report = trained(
        model, clips[5], run, "--start-from", str(started / model), "--freeze", "--ema", ema
    )
    before = weights(started / model)
    after = weights(run)
    assert before.keys() == after.keys() and of_fc(after) == {"fc.weight", "fc.bias"}
    for name in before.keys() - of_fc(before):
        assert torch.equal(before[name], after[name]), name
    assert after["fc.bias"].shape == (5,)

    new = sum(after[name].numel() for name in of_fc(after))
    width = after["fc.weight"].shape[1]
    assert new == 5 * width + 5 and report["parameters"] - report["frozen"] == new
    told = f"{new:,} parameters trained and {report['frozen']:,} frozen"
    assert told in capsys.readouterr().out.splitlines()[-1]

    _, recipe, layout, classes, *_ = results.load_run(run)
    assert recipe.freeze and layout is NTU25 and len(classes) == 5
    assert_kept(run, ensemble.recognise([str(run)])[0][0])


def test_the_last_layer_is_trained_by_cross_entropy_alone(
    started: Path, clips: dict[int, str], tmp_path: Path
) -> None:
    """One step of the program is one of a linear layer on the frozen network's features."""
    lr = 0.5
    more = [
        "--batch",
        "20",
        "--decay",
        "9",
        "--weight-decay",
        "0",
        "--augment",
        "rotation=0,0,0",
        "crop=1",
    ]
    more += [
        "--lr",
        str(lr),
        "--start-from",
        str(started / "stf_gcn"),
        "--freeze",
    ]
    kept: dict[str, Any] = {}

    class Watched(train.Recogniser):
        def on_train_start(self) -> None:
            super().on_train_start()
            kept["module"] = copy.deepcopy(self.objective.model)
            kept["modes"] = {module.training for module in self.objective.model.modules()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Recogniser", Watched)
        patch.setattr(train, "LARGEST_GRADIENT", 1e9)
        trained("stf_gcn", clips[5], tmp_path / "run", *more)
    assert kept["modes"] == {False}
    data = results.facts_of(tmp_path / "run")
    recipe = results.load_run(tmp_path / "run").recipe
    split = train.load_data(data["data"], recipe)
    batch = SkeletonDataset.collate([split.train[i] for i in range(20)])
    network = kept["module"].eval()
    features = []
    network.fc.register_forward_hook(lambda module, inputs, logits: features.append(inputs[0]))
    with torch.no_grad():
        logits = network(train.prepare(batch, recipe, NTU25))
    # Nesterov's first step is (1 + momentum) times the gradient, here of softmax and label.
    wrong = (logits.softmax(1) - torch.eye(5)[batch.label]) / 20
    expected = network.fc.weight - lr * 1.9 * wrong.T @ features[0]
    moved = weights(tmp_path / "run")["fc.weight"]
    assert (moved - network.fc.weight).abs().max() > 1e-3
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)


def test_an_interrupted_run_goes_on_to_the_same_weights(
    started: Path, clips: dict[int, str], tmp_path: Path
) -> None:
    more = ["--start-from", str(started / "stf_gcn"), "--freeze", "--ema", "0.5"]
    trained("stf_gcn", clips[5], tmp_path / "straight", *more, epochs=3)

    class Stopped(train.Recogniser):
        def training_step(self, batch: Any, index: int) -> Any:
            if self.current_epoch == 1:
                raise KeyboardInterrupt
            return super().training_step(batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Recogniser", Stopped)
        with pytest.raises(SystemExit, match="--resume"):
            trained("stf_gcn", clips[5], tmp_path / "stopped", *more, epochs=3)
    train.main(["--out", str(tmp_path / "stopped"), "--resume", "--quiet", "--threads", "1"])
    straight, resumed, before = (
        weights(run) for run in (tmp_path / "straight", tmp_path / "stopped", started / "stf_gcn")
    )
    for name, weight in straight.items():
        assert torch.equal(weight, resumed[name]), name
        assert name in of_fc(before) or torch.equal(weight, before[name]), name


def test_a_shifted_run_is_explained(started: Path, clips: dict[int, str], tmp_path: Path) -> None:
    trained(
        "stf_gcn", clips[5], tmp_path / "run", "--start-from", str(started / "stf_gcn"), "--freeze"
    )
    explain.main([str(tmp_path / "run"), "--clip", "1", "--frames", "2", "--out", str(tmp_path)])
    assert (tmp_path / "focus.png").stat().st_size > 1000


def test_it_may_be_trained_further_as_a_whole(
    started: Path, clips: dict[int, str], tmp_path: Path
) -> None:
    trained(
        "stf_gcn", clips[5], tmp_path / "run", "--start-from", str(started / "stf_gcn"), "--freeze"
    )
    report = trained("stf_gcn", clips[5], tmp_path / "whole", "--start-from", str(tmp_path / "run"))
    assert report["frozen"] == 0
    before = weights(tmp_path / "run")
    after = weights(tmp_path / "whole")
    assert not torch.equal(before["blocks.0.graph.weight"], after["blocks.0.graph.weight"])


def test_other_clips_may_be_fewer_and_the_same_classes_may_not(
    started: Path, clips: dict[int, str], tmp_path: Path
) -> None:
    more = ["--start-from", str(started / "stf_gcn"), "--freeze", "--share", "0.5"]
    assert trained("stf_gcn", clips[5], tmp_path / "shifted", *more)["clips"] == [10, 10]
    with pytest.raises(
        ValueError,
        match=r"expected --start-from with a run of the same share, 0.5, got .* with 1.0",
    ):
        trained("stf_gcn", clips[3], tmp_path / "same", *more)


@pytest.mark.parametrize(
    ("model", "change", "error"),
    [
        (
            "stf_gcn",
            ["--freeze", "--stream", "bone"],
            "of the same stream, bone, got .* with joint; --stream joint trains as it does",
        ),
        (
            "stf_gcn",
            ["--freeze", "--preparation", "paper"],
            "of the same preparation, paper, got .* with view",
        ),
        (
            "stf_gcn",
            ["--freeze", "--network", "strides=1,1,1,1,1,1"],
            "of the same network, .* strides=1,1,1,1,1,1, got .* strides=2,1,2,1,1,1",
        ),
        (
            "stf_gcn",
            ["--freeze", "--network", "widths=6,6,6,6,6,7"],
            "of the same network, widths=6,6,6,6,6,7 .*, got .* widths=6,6,6,6,6,6",
        ),
        (
            "fg_stformer",
            ["--freeze", "--network", "focal_joints=9"],
            "of the same network, .* focal_joints=9, got .* stages=3,1$",
        ),
        (
            "bagcn",
            ["--freeze", "--network", "focus=max"],
            "of the same network, .* focus=max, got .* strides=2,1,1,2,1,1,1,1,1$",
        ),
        (
            "stf_ms_g3d",
            ["--freeze", "--start-from", "ms_g3d"],
            "same network and sizes, got .*ms_g3d: blocks.0.graph.co",
        ),
        (
            "ms_g3d",
            ["--freeze", "--start-from", "bagcn"],
            "of the same model, ms_g3d, got .* with bagcn",
        ),
    ],
)
def test_what_cannot_be_taken_over(
    model: str, change: list[str], error: str, started: Path, clips: dict[int, str], tmp_path: Path
) -> None:
    base = [str(started / change[-1])] if "--start-from" in change else [str(started / model)]
    more = [option for option in change if option not in ("--start-from", "ms_g3d", "bagcn")]
    with pytest.raises(ValueError, match=error):
        trained(model, clips[5], tmp_path / "run", "--start-from", *base, *more)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["--freeze"], "got --freeze without --start-from"),
        (
            ["--freeze", "--start-from", "x", "--branch", "focus"],
            "expected --freeze with --branch plain, got focus; the STF terms act on",
        ),
        (
            ["--freeze", "--start-from", "x", "--branch", "coherence"],
            "expected --freeze with --branch plain, got coh",
        ),
        (
            ["--freeze", "--start-from", "x", "--branch", "plain", "--network", "dropout=0.1"],
            "got --network dropout with --freeze",
        ),
    ],
)
def test_options_that_do_not_go_with_it(given: list[str], error: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=error):
        command_line.parse([*given, "--out", str(tmp_path / "run")])


def test_only_a_frozen_network_stays_in_evaluation_mode() -> None:
    for freeze in (False, True):
        recipe = Recipe(
            network={"widths": (6, 6), "strides": (1, 1)}, branch="plain", freeze=freeze
        )
        module = train.Recogniser(recipe, KINECT20, 3, 1)
        for _ in range(2):
            assert (
                module.objective.model.norm.training
                == module.objective.model.dropout.training
                == (not freeze)
            )
            module.train()
        learns = {name for name, p in module.objective.named_parameters() if p.requires_grad}
        assert (learns == {"model.fc.weight", "model.fc.bias"}) == freeze
