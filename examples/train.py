"""Train a network of this folder, with or without the STF losses.

    python examples/train.py                                  # generated actions
    python examples/train.py --data PATH --out runs/mine      # your clips, any format of the field
    python examples/train.py --out runs/mine --resume         # resume an interrupted run
    torchrun --nproc-per-node 4 examples/train.py ...         # several GPUs or machines

A run writes these files into its folder: recipe.json at the start, last.ckpt after every epoch, and
at the end model.pt (the weights), model.json (how to rebuild the network), log_probabilities.npz
(of the test clips, for ensemble.py) and report.json. With --hold-out it also writes best.ckpt, from
the epoch with the best accuracy on the hold-out clips, and a folder best with that epoch's results,
which the other programs accept as a run.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from loading import Clips, held_out, load_data  # first: it says what to install without Lightning

# isort: split
import errors
import lightning as L
from command_line import as_text, parse
from lightning.pytorch.callbacks import (
    LearningRateMonitor,
    ModelCheckpoint,
    Timer,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from memory import keep_freed_memory
from ms_g3d import STFModule
from recipe import WITH_STF_ADJACENCY, Recipe, build_loss, build_objective, prepare
from results import (
    batches,
    facts_of,
    load_file,
    load_run,
    read_layout,
    stored_layout,
    write_reports,
)
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.optim.swa_utils import update_bn
from torchmetrics.classification import MulticlassAccuracy

from skeleton_focus import (
    Batch,
    SkeletonDataset,
    SkeletonLayout,
    Split,
    STFAdjacency,
    allowed_joints,
    seeded_generator,
)
from skeleton_focus.formats import FormatError

_TAKEN_OVER = ("model", "stream", "preparation", "share", "draw")  # options with one value
LARGEST_GRADIENT = 5.0  # norm; larger gradients are scaled down


class Recogniser(L.LightningModule):
    """A network under the STF objective; with ``freeze``, only its last layer is trained."""

    precision = "32-true"  # the trainer's

    def __init__(
        self,
        recipe: Recipe,
        layout: SkeletonLayout,
        num_classes: int,
        num_persons: int,
        *,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.layout = layout
        self.objective = build_objective(
            recipe, num_classes, num_persons, layout, channels=channels
        )
        if recipe.freeze:
            self.objective.model.requires_grad_(False)
            self.objective.model.fc.requires_grad_(True)
            self.train()
        # After which epochs the network was evaluated, and its top-1 then, for the report.
        self.curve: dict[str, list[Any]] = {"epochs": [], "top1": []}
        self.cpu_seconds_before = 0.0  # of a resumed run
        self.cpu_at_start = 0.0
        self.accuracy = nn.ModuleDict()
        for k in (1, 5):
            self.accuracy[f"top{k}"] = MulticlassAccuracy(
                num_classes, top_k=min(k, num_classes), average="micro"
            )

    def train(self, mode: bool = True) -> Recogniser:
        """Keep a frozen network in evaluation mode, with fixed BatchNorm statistics."""
        super().train(mode)
        if self.recipe.freeze:
            self.objective.model.eval()
        return self

    def on_fit_start(self) -> None:
        self.cpu_at_start = time.process_time()

    def on_train_start(self) -> None:
        self.objective.warmup = self.recipe.stf_start * int(self.trainer.num_training_batches)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        # Seeded by the step, so that a resumed run draws the same as an uninterrupted one.
        random = seeded_generator(
            self.recipe.seed, epoch=self.current_epoch, step=index, rank=self.global_rank
        )
        torch.manual_seed(random.initial_seed())  # for dropout
        x = prepare(batch, self.recipe, self.layout, random)
        out = self.objective(x, batch.label)
        self.log("loss", out.loss, prog_bar=True)
        terms = {f"train/{name}": term for name, term in out.terms.items()}
        self.log_dict(terms, on_step=False, on_epoch=True)
        return out.loss

    def validation_step(self, batch: Batch, index: int) -> None:
        logits = self.objective.model(prepare(batch, self.recipe, self.layout))
        clips = "validation" if self.recipe.hold_out else "test"
        for name, metric in self.accuracy.items():
            metric(logits, batch.label)
            self.log(f"{clips}/{name}", metric, prog_bar=True, on_epoch=True)

    def on_validation_epoch_start(self) -> None:
        if self.recipe.ema:  # by now the averaged weights have taken their place
            renew_statistics(self.objective.model, self.trainer.datamodule.split.train, self.recipe)

    def on_validation_epoch_end(self) -> None:
        self.curve["epochs"].append(self.current_epoch + 1)
        self.curve["top1"].append(round(self.accuracy["top1"].compute().item(), 4))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["curve"] = self.curve
        checkpoint["cpu_seconds"] = self.cpu_seconds()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.curve = checkpoint["curve"]
        self.cpu_seconds_before = checkpoint["cpu_seconds"]

    def cpu_seconds(self) -> float:
        """Compute the processor time of training and evaluation so far, without loader workers."""
        return round(self.cpu_seconds_before + time.process_time() - self.cpu_at_start, 1)

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
        # Fused, an update takes a third of the time. In half precision, Lightning refuses to clip
        # the gradients of a fused optimizer.
        fused = self.device.type == "cpu" and self.precision == "32-true"
        optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True, fused=fused)
        if recipe.decay:
            return [optimizer], [LambdaLR(optimizer, self._share_of_rate)]
        steps = round(self.trainer.estimated_stepping_batches / recipe.cycle)
        schedule = OneCycleLR(optimizer, recipe.lr, total_steps=steps, pct_start=0.15)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share_of_rate(self, epoch: int) -> float:
        """Compute the share of the full rate: linear warm-up, divided by 10 after each decay."""
        decays = sum(epoch >= last for last in self.recipe.decay)
        return 0.1**decays * min(1, (epoch + 1) / (self.recipe.warmup + 1))


def renew_statistics(model: nn.Module, data: SkeletonDataset, recipe: Recipe) -> None:
    """Recompute BatchNorm's statistics over the training clips, because averaged weights need it.

    A frozen network keeps its statistics.
    """
    if recipe.freeze:
        return
    random = torch.Generator().manual_seed(recipe.seed)
    whole = len(data) > recipe.batch
    clips = batches(model, data, recipe, shuffle=True, drop_last=whole, generator=random)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)  # for dropout
        update_bn((prepare(batch, recipe, data.layout, random) for batch in clips), model)


def start_from(
    module: Recogniser,
    classes: list[str],
    folder: str,
    split: str | None = None,
    channels: int | None = None,
) -> None:
    """Load the weights of a finished run, except STF's own where that run has none.

    The last layer keeps its initial weights with --freeze, or if the run has other classes.
    """
    trained = load_run(folder)
    objective, theirs, known = trained.objective, trained.recipe, trained.classes
    ours = module.recipe
    same = {
        "number of coordinates": (channels or trained.channels, trained.channels),
        "stream": (ours.stream, theirs.stream),
        "preparation": (ours.preparation, theirs.preparation),
    }
    from_backbone = (theirs.model, ours.model) == ("ms_g3d", "stf_ms_g3d")
    if not from_backbone:
        same = {"model": (ours.model, theirs.model), **same}
        arrangements = [recipe.network.get("stf", "modules") for recipe in (ours, theirs)]
        same["stf of --network"] = (arrangements[0], arrangements[1])
    if ours.freeze:  # strides, for example, show in no weight
        same["network"] = (without_dropout(ours), without_dropout(theirs))
    if classes == known:  # the same data set, of which no clip may change sides
        before = facts_of(folder).get("split")
        if split and before:
            same["split"] = (split, before)
        same["hold-out"] = (ours.hold_out, theirs.hold_out)
        same["share"] = (ours.share, theirs.share)
        same["draw"] = (ours.draw, theirs.draw)
    for name, (own, other) in same.items():
        if own != other:
            wanted = as_text(own) or "none"
            got = as_text(other) or "none"
            # The others cannot be written as one option.
            hint = f"; --{name} {got} trains as it does" if name in _TAKEN_OVER else ""
            raise ValueError(
                f"expected --start-from with a run of the same {name}, {wanted}, got {folder} "
                f"with {got}{hint}"
            )

    network = module.objective.model
    weights = objective.model.state_dict()
    initial = network.state_dict()
    optional = [] if ours.freeze else stf_weights(network)
    if ours.freeze or classes != known:
        last = [name for name in initial if name.startswith("fc.")]
        weights = {name: value for name, value in weights.items() if name not in last}
        optional += last
        if rank_zero_only.rank == 0:
            print(f"note: a new last layer for {len(classes)} classes")
    strange = [
        name
        for name, weight in weights.items()
        if name not in initial or initial[name].shape != weight.shape
    ]
    strange += [name for name in initial if name not in weights and name not in optional]
    if strange:
        sizes = f"{as_text(theirs.network) or 'default'} against {as_text(ours.network)}"
        raise ValueError(
            f"expected --start-from with a run of the same network and sizes, got {folder}: "
            f"{', '.join(sorted(strange)[:5])} ({sizes})"
        )
    network.load_state_dict(weights, strict=False)


def without_dropout(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in recipe.network.items() if name != "dropout"}


def stf_weights(network: nn.Module) -> list[str]:
    """List the weights of STF's own parts, which initially change nothing."""
    return [
        f"{part}.{name}"
        for part, module in network.named_modules()
        if isinstance(module, STFAdjacency | STFModule)
        for name in module.state_dict()
    ]


def machines(given: argparse.Namespace) -> tuple[int | str, int]:
    """Return the devices per machine and the number of machines, from torchrun or the options."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    return "auto" if given.devices == -1 else given.devices, given.nodes


def read_clips(
    given: argparse.Namespace, recipe: Recipe
) -> tuple[Split, SkeletonDataset, list[Exception]]:
    """Read the training and test clips, the hold-out clips, and the errors of skipped clips."""
    skipped: list[Exception] = []
    on_error = skipped.append if given.skip_bad_clips else "raise"
    options = {"on_error": on_error, "workers": given.workers}
    if given.data is not None:
        options |= {"split": given.split, "layout": given.layout}
    try:
        data = load_data(given.data, recipe, **options)
    except FormatError as error:
        if not error.of_clip:
            raise
        raise ValueError(f"{error}; --skip-bad-clips leaves out such clips") from None
    given.clips_layout = stored_layout(data.train.layout)
    if recipe.start_from:
        data = converted(data, recipe, given.skeleton)
    data, validation = held_out(data, recipe)
    clips = [len(data.train), len(data.test)]
    if given.clip_counts not in (None, clips):
        raise ValueError(
            f"expected the data as they were when the run started, {given.clip_counts} training "
            f"and test clips, got {clips}; start again with another --out"
        )
    planar = data.train[0].x.shape[0] == 2
    if planar and "rotation" in recipe.augment and not given.resume and not given.own_rotation:
        recipe.augment["rotation"] = (0.0, 0.0, recipe.augment["rotation"][2])  # of the preset
    return data, validation, skipped


def converted(data: Split, recipe: Recipe, resumed: dict[str, Any] | None = None) -> Split:
    """Convert clips to the skeleton of the run that they start from, and add absent bodies.

    ``resumed`` holds both for a run that is resumed: where it started may be gone.
    """
    if resumed is None:
        trained = load_run(recipe.start_from)
        layout = trained.layout
        persons = max(trained.persons, data.train[0].x.shape[3])
    else:
        layout = read_layout(resumed["layout"])
        persons = resumed["persons"]
    own = data.train.layout
    if own != layout and rank_zero_only.rank == 0:
        print(f"note: clips of {own.name} are converted to {layout.name}")
    return Split(*(part.with_layout(layout).with_persons(persons) for part in data))


def build_module(given: argparse.Namespace, recipe: Recipe, train: SkeletonDataset) -> Recogniser:
    """Build the network and try one clip, so that mistakes show before a file is written."""
    channels, _, _, persons = train[0].x.shape
    module = Recogniser(recipe, train.layout, len(train.classes), persons, channels=channels)
    module.precision = given.precision
    if recipe.guide:
        module.objective.loss.allowed = read_guide(recipe.guide, train)
    if recipe.start_from and not given.resume:
        start_from(module, list(train.classes), recipe.start_from, given.split, channels)
    prepare(SkeletonDataset.collate([train[0]]), recipe, train.layout)
    return module


def read_guide(path: str, clips: SkeletonDataset) -> Tensor:
    """Read where the focus of each class may lie (classes, V), from a JSON file."""
    try:
        table = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"expected --guide with a JSON file of classes and their joints, got {path}: {error}"
        ) from None
    if not isinstance(table, dict):
        raise ValueError(
            f"expected --guide with a JSON object of classes and their joints, got {path}"
        )
    return allowed_joints(table, clips.classes, clips.layout)


def announce(
    given: argparse.Namespace, recipe: Recipe, data: Split, skipped: list[Exception]
) -> dict[str, Any]:
    """Write recipe.json and print what is trained; returns the facts that go into the reports."""
    train = data.train
    kept = ("preset", "split", "layout", "skip_bad_clips", "precision", "validate_every", "threads")
    facts = {
        "clips": [len(train), len(data.test)],
        "classes": list(train.classes),
        "clips_layout": given.clips_layout,
        "skeleton": {"layout": stored_layout(train.layout), "persons": train[0].x.shape[3]},
        "data": given.data and str(Path(given.data).resolve()),  # to resume from another folder
        **{name: getattr(given, name) for name in kept},
        "recipe": asdict(recipe),
    }
    if rank_zero_only.rank:
        return facts
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(facts, indent=2) + "\n")
    origin = "" if given.data is None else f"{train.origin}: "
    print(
        f"{origin}{len(train)} training and {len(data.test)} test clips of {len(train.classes)} "
        f"classes, {train.layout.name}"
    )
    if skipped:
        print(f"note: skipped {len(skipped)} clips that cannot be read; the first: {skipped[0]}")
    if build_loss(recipe).uses("adjacency") and recipe.model not in WITH_STF_ADJACENCY:
        print(
            f"note: {recipe.model} has no STFAdjacency for L_G to act on; the branch "
            f"{recipe.branch} is trained without"
        )
    terms = ""
    if recipe.branch != "plain" or recipe.erasing:
        erasing = " with erasing" if recipe.erasing else ""
        terms = f"{erasing} from epoch {recipe.stf_start} of {recipe.epochs}"
    print(f"preset {given.preset}: {recipe.model}, branch {recipe.branch}{terms}; writing to {out}")
    return facts


class MovingAverage(WeightAveraging):
    """Average the weights exponentially; lower the decay in a run that is too short for it.

    The initial weights keep a share of at most 5 % in the last average.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=self.average)
        self.decay = decay

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.decay = min(self.decay, 0.05 ** (1 / trainer.estimated_stepping_batches))

    def average(self, averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not averaged.is_floating_point():  # a count or a mask
            return current
        return averaged + (1 - self.decay) * (current - averaged)  # frozen weights stay equal


def build_trainer(given: argparse.Namespace, recipe: Recipe, timer: Timer) -> L.Trainer:
    """Build Lightning's loop, with the files that a run writes while it trains."""
    out = Path(given.out)
    callbacks: list[Any] = [timer, LearningRateMonitor("epoch")]
    if recipe.ema:
        callbacks.append(MovingAverage(recipe.ema))
    if recipe.hold_out:  # before "last", which keeps the state of this one for resuming
        best = {"monitor": "validation/top1", "mode": "max"}
        callbacks.append(ModelCheckpoint(out, "best", **best, enable_version_counter=False))
    callbacks.append(
        ModelCheckpoint(out, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    )
    if not given.quiet:
        callbacks.append(TQDMProgressBar())
    devices, nodes = machines(given)
    return L.Trainer(
        max_epochs=recipe.epochs,
        precision=given.precision,
        devices=devices,
        num_nodes=nodes,
        callbacks=callbacks,
        logger=CSVLogger(out, name="log"),
        default_root_dir=out,
        gradient_clip_val=LARGEST_GRADIENT,
        check_val_every_n_epoch=given.validate_every,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=not given.quiet,
        log_every_n_steps=10,
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    given, recipe = parse(arguments, description=__doc__)
    out = Path(given.out)
    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    L.seed_everything(recipe.seed, verbose=False)
    data, validation, skipped = read_clips(given, recipe)
    module = build_module(given, recipe, data.train)
    checkpoint = out / "last.ckpt" if given.resume else None
    if checkpoint is not None:
        try:
            saved = load_file(checkpoint)
            module.load_state_dict(saved["state_dict"])
            module.on_load_checkpoint(saved)
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"expected {checkpoint} from this version of the program, got another: {reason}"
            ) from None
    facts = announce(given, recipe, data, skipped)
    timer = Timer()  # counts on when a run is resumed
    trainer = build_trainer(given, recipe, timer)
    clips = Clips(data, validation, recipe, given.workers)
    try:
        trainer.fit(module, clips, ckpt_path=checkpoint, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        if not (out / "last.ckpt").exists():
            sys.exit(f"stopped in the first epoch; nothing was saved in {out}, start again")
        options = f" --threads {given.threads}" if given.threads else ""
        options += f" --devices {given.devices}" if given.devices != -1 else ""
        sys.exit(f"stopped; resume: python examples/train.py --out {out} --resume{options}")
    if not trainer.is_global_zero:
        return {}
    module.to(trainer.strategy.root_device)
    if recipe.ema:
        renew_statistics(module.objective.model, data.train, recipe)
    facts |= {
        "seconds": round(timer.time_elapsed(), 1),
        "cpu_seconds": module.cpu_seconds(),
        "curve": {"clips": "validation" if recipe.hold_out else "test", **module.curve},
        "parameters": sum(p.numel() for p in module.parameters()),
        "frozen": sum(p.numel() for p in module.parameters() if not p.requires_grad),
    }
    return write_reports(out, module.objective, recipe, data, validation, facts)


def run(program: Any) -> None:
    """Run a program that trains; a user's mistake ends in one line."""
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    errors.run(program, MisconfigurationException)


if __name__ == "__main__":
    run(main)
