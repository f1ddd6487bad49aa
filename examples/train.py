"""Train a network of this folder, plain or with the STF losses, on a data set or on generated actions.

    python examples/train.py                                              # generated actions, STF focus branch
    python examples/train.py --data PATH --branch focus --out runs/focus  # your clips
    python examples/train.py --out runs/focus --resume                    # go on where an interrupted run stopped
    torchrun --nproc-per-node 4 examples/train.py ...                     # several GPUs; --nodes for several machines

A run writes into its folder: recipe.json at the start, last.ckpt after every epoch, and at the end model.pt (weights
and how to rebuild the network), probabilities.npz (of the test clips, for ensemble.py) and report.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import pickle
import sys
import warnings
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint, Timer, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from stf_gcn import STFGCN
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from torchmetrics.classification import MulticlassAccuracy

from skeleton_focus import (
    LAYOUTS,
    Batch,
    SkeletonDataset,
    SkeletonLayout,
    Split,
    STFLoss,
    STFObjective,
    SyntheticActions,
    add_visibility,
    body_height,
    center,
    make_stream,
    open_dataset,
    repeat_frames,
    resample_frames,
    rotate,
)

BRANCHES = {"focus": STFLoss.focus_branch, "exploration": STFLoss.exploration_branch, "plain": STFLoss.plain}


def setting(default: Any, meaning: str) -> Any:
    """A field of the recipe: its default and what --help says of it."""
    return field(default=default, metadata={"help": meaning})


@dataclass
class Recipe:
    """Everything a run needs besides its data; kept in its folder."""

    model: str = setting("stf_gcn", "network")
    branch: str = setting("focus", "loss terms: STF's focus or exploration branch, or plain cross-entropy")
    stream: str = setting("joint", "joint, bone, joint_motion or bone_motion; or several on the channels, joined by +")
    preparation: str = setting("view", "view: clips stretched to --frames; paper: frames centred, clips repeated")
    widths: tuple[int, ...] = setting((96, 96, 192, 192, 384, 384), "channels of the six modules")
    strides: tuple[int, ...] = setting((1, 1, 2, 1, 2, 1), "steps in time of the six modules")
    frames: int = setting(64, "T that every clip is brought to")
    epochs: int = setting(60, "passes over the training clips")
    batch: int = setting(32, "clips a step, on each device")
    lr: float = setting(0.1, "highest learning rate of the one-cycle schedule")
    cycle: float = setting(1.0, "share of that schedule that the epochs cover; below 1 the rate does not fall to 0")
    weight_decay: float = setting(5e-4, "on weights of two and more axes")
    label_smoothing: float = setting(0.0, "of the cross-entropy")
    ema: float = setting(0.0, "decay of the weights' running average, which is what is tested and kept; 0: none")
    turn: tuple[float, ...] = setting((0.0, 0.0, 0.0), "training views, up to these degrees about x, y and z")
    stretch: float = setting(0.0, "training sizes, 1 - stretch to 1 + stretch")
    crop: float = setting(1.0, "shortest share of a clip that training sees")
    clip_gradient: float = setting(5.0, "largest norm of the gradient")
    stf_after: float = setting(0.0, "share of the epochs that cross-entropy trains alone before the STF terms join")
    clips: int = setting(1200, "generated training clips, where no data are given")
    seed: int = setting(1, "of the weights, the order of the clips and their augmentation")

    @property
    def stf_start(self) -> int:
        """The first epoch with the STF terms; at least the last one has them."""
        return min(int(self.stf_after * self.epochs), self.epochs - 1)


# What a preset sets besides; an option on the command line comes before it.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"preparation": "paper", "frames": 300, "lr": 0.05},
    "nw_ucla": {
        "stream": "joint+bone+joint_motion",
        "widths": (48, 48, 96, 96, 192, 192),
        "strides": (2, 1, 2, 1, 1, 1),
        "frames": 32,
        "epochs": 40,
        "label_smoothing": 0.1,
        "ema": 0.99,
        "turn": (20.0, 60.0, 15.0),
        "stretch": 0.2,
        "crop": 0.5,
        "cycle": 0.8,
        "stf_after": 0.9,
    },
    "synthetic": {
        "stream": "joint+joint_motion",
        "widths": (24, 24, 48, 48, 64, 64),
        "strides": (2, 1, 2, 1, 1, 1),
        "frames": 32,
        "epochs": 10,
        "turn": (0.0, 30.0, 0.0),
        "crop": 0.9,
        "stf_after": 0.7,
    },
}

LAYERS = {"stf_gcn": (["block5", "block6"], "fc")}  # what STF explains, and the linear layer after pooling


def build_network(recipe: Recipe, num_classes: int, layout: SkeletonLayout) -> nn.Module:
    channels = 3 * len(recipe.stream.split("+")) + 1
    return STFGCN(num_classes, layout, in_channels=channels, widths=recipe.widths, strides=recipe.strides)


def prepare(batch: Batch, recipe: Recipe, layout: SkeletonLayout, random: torch.Generator | None = None) -> Tensor:
    """(N, C, T, V, M) as the network takes it: centred, in body heights, as streams with visibility.

    With ``random``, for training: seen from a random side, in a random size, a random span of the clip.
    """
    n, device, paper = len(batch.x), batch.x.device, recipe.preparation == "paper"
    x = center(batch.x, layout.center, each_frame=paper, visibility=batch.visibility)
    x = x / body_height(x, layout, visibility=batch.visibility)[:, None, None, None, None]
    start, stop = torch.zeros(n), torch.ones(n)
    if random is not None:
        angles = (2 * torch.rand(n, 3, generator=random) - 1) * torch.tensor(recipe.turn).deg2rad()
        size = 1 + recipe.stretch * (2 * torch.rand(n, 1, 1, 1, 1, generator=random) - 1)
        x = rotate(x * size.to(device), angles.to(device))
        share = recipe.crop + (1 - recipe.crop) * torch.rand(n, generator=random)
        start = (1 - share) * torch.rand(n, generator=random)
        stop = start + share
    both = torch.cat([x, batch.visibility[:, None]], dim=1)
    if paper:
        both = repeat_frames(both, batch.lengths, recipe.frames)
    else:
        both = resample_frames(both, batch.lengths, recipe.frames, start=start.to(device), stop=stop.to(device))
    x, seen = both[:, :-1], (both[:, -1] > 0.99).to(x.dtype)  # between a lost joint and a seen one lies no position
    streams = [make_stream(x, stream, layout, visibility=seen) for stream in recipe.stream.split("+")]
    return add_visibility(torch.cat(streams, dim=1), seen)


class Recogniser(L.LightningModule):
    """One network under one STF branch."""

    def __init__(self, recipe: Recipe, layout: SkeletonLayout, num_classes: int) -> None:
        super().__init__()
        self.recipe, self.layout = recipe, layout
        network = build_network(recipe, num_classes, layout)
        layers, head = LAYERS[recipe.model]
        loss = BRANCHES[recipe.branch](classification=nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing))
        self.objective = STFObjective(network, layers=layers, head=head, loss=loss)
        self.accuracy = nn.ModuleDict(
            {f"top{k}": MulticlassAccuracy(num_classes, top_k=min(k, num_classes), average="micro") for k in (1, 5)}
        )

    def training_step(self, batch: Batch, index: int) -> Tensor:
        # Drawn anew from what identifies the step, so that a resumed run sees what an uninterrupted one sees.
        (seed,) = np.random.SeedSequence([self.recipe.seed, self.global_step, self.global_rank]).generate_state(1)
        random = torch.Generator().manual_seed(int(seed))
        x = prepare(batch, self.recipe, self.layout, random)
        if self.current_epoch < self.recipe.stf_start:
            loss: Tensor = self.objective.loss.classification(self.objective.model(x), batch.label)
            terms = {"classification": loss}
        else:
            loss, _, terms, _ = self.objective(x, batch.label)
        self.log("loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": term for name, term in terms.items()}, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        logits = self.objective.model(prepare(batch, self.recipe, self.layout))
        for name, metric in self.accuracy.items():
            metric(logits, batch.label)
            self.log(f"test/{name}", metric, prog_bar=True, on_epoch=True)

    def configure_optimizers(self) -> Any:
        decayed = [p for p in self.parameters() if p.dim() > 1]
        rest = [p for p in self.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": self.recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups, lr=self.recipe.lr, momentum=0.9, nesterov=True)
        steps = round(self.trainer.estimated_stepping_batches / self.recipe.cycle)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.recipe.lr, total_steps=steps, pct_start=0.15)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Clips(L.LightningDataModule):
    """The training and test clips; the order of the training clips follows from the seed and the epoch."""

    def __init__(self, split: Split, recipe: Recipe, workers: int) -> None:
        super().__init__()
        self.split, self.recipe, self.workers = split, recipe, workers

    def train_dataloader(self) -> DataLoader[Any]:
        ranks, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        order = DistributedSampler(self.split.train, ranks, rank, seed=self.recipe.seed)  # Lightning tells it the epoch
        whole = len(order) > self.recipe.batch  # a last batch of one clip would upset BatchNorm
        return self._loader(self.split.train, sampler=order, drop_last=whole)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.split.test)

    def _loader(self, data: SkeletonDataset, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            data, batch_size=self.recipe.batch, collate_fn=SkeletonDataset.collate, num_workers=self.workers, **options
        )


def load_data(path: str | None, recipe: Recipe) -> Split:
    if path is not None:
        return open_dataset(path)
    actions = SyntheticActions(frames=recipe.frames)
    return Split(
        *(
            SkeletonDataset.from_batch(actions.generate(n, seed=seed), actions.layout, classes=actions.classes)
            for n, seed in ((recipe.clips, 1), (recipe.clips // 4, 2))
        )
    )


@torch.no_grad()
def predict(model: nn.Module, data: SkeletonDataset, recipe: Recipe) -> Tensor:
    """Class probabilities (clips, classes)."""
    device = next(model.parameters()).device
    loader = DataLoader(data, batch_size=recipe.batch, collate_fn=SkeletonDataset.collate)
    batches = (Batch(*(part.to(device) for part in batch)) for batch in loader)
    model.eval()
    return torch.cat([model(prepare(batch, recipe, data.layout)).float().softmax(1).cpu() for batch in batches])


def accuracy(probabilities: Tensor, label: Tensor) -> dict[str, float]:
    """Top-1 and top-5."""
    hits = probabilities.argsort(1, descending=True) == label[:, None]
    return {f"top{k}": round(hits[:, :k].any(1).float().mean().item(), 4) for k in (1, 5)}


def load_run(folder: str | Path) -> tuple[STFObjective, Recipe, SkeletonLayout, list[str]]:
    """The trained network of a run, how it was trained, its skeleton and its classes."""
    path = Path(folder) / "model.pt"
    if not path.is_file():
        raise ValueError(f"expected a finished run, got {folder}, which holds no model.pt")
    saved = load_file(path)
    try:
        recipe, layout = Recipe(**saved["recipe"]), LAYOUTS[saved["layout"]]
        module = Recogniser(recipe, layout, len(saved["classes"]))
        module.objective.load_state_dict(saved["weights"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"expected {path} from this version of the program, got another: {error}") from None
    return module.objective.eval(), recipe, layout, saved["classes"]


def load_file(path: Path) -> dict[str, Any]:
    """A file of tensors and plain values; nothing in it is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"expected a checkpoint of this program, got {path}, which cannot be read: {reason}") from None


def given_as(value: Any) -> str:
    """A value as the command line takes it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, Recipe]:
    """The command line. A resumed run takes everything from its folder."""
    listed = "\n".join(
        f"  {name}: " + " ".join(f"--{key.replace('_', '-')} {given_as(value)}" for key, value in preset.items())
        for name, preset in PRESETS.items()
    )
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="presets; an option given beside one comes before it:\n" + listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", help="folder of clips; by default actions are generated")
    parser.add_argument("--preset", choices=PRESETS, help="by default the preset made for the data")
    parser.add_argument("--out", help="folder of the run; by default a new one in runs/")
    parser.add_argument("--resume", action="store_true", help="go on from the last epoch of --out")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed", "16-mixed"], help="default 32-true")
    parser.add_argument("--devices", type=int, default=-1, help="devices a machine; -1: all")
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--workers", type=int, default=0, help="processes that load clips")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument("--validate-every", type=int, default=10, help="epochs between two looks at the test clips")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    choices = {"model": LAYERS, "branch": BRANCHES, "preparation": ["view", "paper"]}
    for option in fields(Recipe):
        several = isinstance(option.default, tuple)
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=type(option.default[0] if several else option.default),
            nargs="+" if several else None,
            choices=choices.get(option.name),
            help=f"{option.metadata['help']} (default {given_as(option.default)})",
        )
    given = parser.parse_args(arguments)
    chosen = {o.name: getattr(given, o.name) for o in fields(Recipe) if getattr(given, o.name) is not None}
    chosen = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}
    if given.resume:
        path = Path(given.out or "") / "recipe.json"
        if given.out is None or not path.is_file() or not path.with_name("last.ckpt").is_file():
            raise ValueError(f"expected --out with a run to resume, got {given.out}, which holds no last.ckpt")
        if path.with_name("report.json").exists():
            raise ValueError(f"expected an unfinished run to resume, got {given.out}, which is finished")
        kept = json.loads(path.read_text())
        if chosen or given.preset or given.data or given.precision:
            raise ValueError("expected --resume with --out alone, got options that the run already has from its start")
        given.data, given.preset, given.precision = kept["data"], kept["preset"], kept["precision"]
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in kept["recipe"].items()}
        return given, Recipe(**values)
    for name in ("epochs", "batch", "frames", "clips"):
        if chosen.get(name, 1) < 1:
            raise ValueError(f"expected {name} of at least 1, got {chosen[name]}")
    for name, low, high in (
        ("label_smoothing", 0, 1),
        ("ema", 0, 1),
        ("crop", 0.01, 1),
        ("cycle", 0.1, 1),
        ("lr", 1e-9, 99),
    ):
        if not low <= chosen.get(name, 1) <= high:
            raise ValueError(f"expected {name} in {low}..{high}, got {chosen[name]}")
    if len(chosen.get("turn", (0, 0, 0))) != 3 or given.validate_every < 1 or given.devices == 0:
        raise ValueError("expected --turn with 3 angles, --validate-every of at least 1 and --devices other than 0")
    given.precision = given.precision or "32-true"
    given.preset = given.preset or ("synthetic" if given.data is None else "nw_ucla")
    recipe = Recipe(**{**PRESETS[given.preset], **chosen})
    if given.out is None:
        folders = (Path("runs") / f"{recipe.model}-{recipe.branch}-{i}" for i in itertools.count(1))
        given.out = str(next(folder for folder in folders if not folder.exists()))
    if rank_zero_only.rank == 0 and (Path(given.out) / "recipe.json").exists():
        raise ValueError(f"expected a new --out, got {given.out}, which holds a run; go on with it by --resume")
    return given, recipe


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    given, recipe = parse(arguments)
    out = Path(given.out)
    if given.threads:
        torch.set_num_threads(given.threads)
    L.seed_everything(recipe.seed, verbose=False)
    data = load_data(given.data, recipe)
    classes, layout = data.train.classes, data.train.layout
    module = Recogniser(recipe, layout, len(classes))
    prepare(SkeletonDataset.collate([data.train[0]]), recipe, layout)  # a mistake shows before a file is written
    checkpoint = out / "last.ckpt" if given.resume else None
    if checkpoint is not None:
        load_file(checkpoint)
    source = given.data and str(Path(given.data).resolve())  # a resumed run may start in another folder
    facts = {"preset": given.preset, "data": source, "precision": given.precision, "recipe": asdict(recipe)}
    if rank_zero_only.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.json").write_text(json.dumps(facts, indent=2) + "\n")
        terms = "" if recipe.branch == "plain" else f" from epoch {recipe.stf_start} of {recipe.epochs}"
        print(f"{len(data.train)} training and {len(data.test)} test clips of {len(classes)} classes, {layout.name}")
        print(f"preset {given.preset}, branch {recipe.branch}{terms}; writing to {out}")
    timer = Timer()  # over all parts of a run that was resumed
    callbacks: list[Any] = [
        timer,
        ModelCheckpoint(out, "last", save_on_train_epoch_end=True, enable_version_counter=False),
        LearningRateMonitor("epoch"),
    ]
    if recipe.ema:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema))
    if not given.quiet:
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    trainer = L.Trainer(
        max_epochs=recipe.epochs, precision=given.precision, devices="auto" if given.devices == -1 else given.devices,
        num_nodes=given.nodes, callbacks=callbacks, logger=CSVLogger(out, name="log"), default_root_dir=out,
        gradient_clip_val=recipe.clip_gradient, check_val_every_n_epoch=given.validate_every,
        num_sanity_val_steps=0, enable_model_summary=False,
        enable_progress_bar=not given.quiet, log_every_n_steps=10,
    )  # fmt: skip
    try:
        trainer.fit(module, Clips(data, recipe, given.workers), ckpt_path=checkpoint, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        if (out / "last.ckpt").exists():
            print(f"\nstopped; go on with: python examples/train.py --out {out} --resume")
        raise
    seconds = round(timer.time_elapsed(), 1)
    if not trainer.is_global_zero:
        return {}
    label = torch.tensor(data.test.labels)
    probabilities = predict(module.objective.model.to(trainer.strategy.root_device), data.test, recipe)
    parameters = sum(p.numel() for p in module.parameters())
    report = {**accuracy(probabilities, label), "seconds": seconds, "parameters": parameters, **facts}
    network = {"weights": module.objective.state_dict(), "recipe": asdict(recipe)}
    torch.save({**network, "layout": layout.name, "classes": list(classes)}, out / "model.pt")
    arrays = {"probabilities": probabilities.numpy(), "label": label.numpy(), "names": np.array(data.test.names)}
    np.savez_compressed(out / "probabilities.npz", **arrays)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"top-1 {report['top1']:.2%}, top-5 {report['top5']:.2%} on {len(label)} test clips, {seconds} s of training")
    return report


def run(program: Any) -> None:
    """Run a program of this folder; a user's mistake ends in one line."""
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        program()
    except (ValueError, OSError, ImportError, MisconfigurationException) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run(main)
