"""Train a network of this folder, with or without the STF losses, on a data set or on generated
actions.

    python examples/train.py                                              # generated actions, STF \
        focus branch
    python examples/train.py --data PATH --branch focus --out runs/focus  # your clips, in any \
        format of the field
    python examples/train.py --out runs/focus --resume                    # resume an interrupted \
        run
    torchrun --nproc-per-node 4 examples/train.py ...                     # several GPUs or machines

A run writes these files into its folder: recipe.json at the start, last.ckpt after every epoch, and
at the end model.pt (weights and how to rebuild the network), probabilities.npz (of the test clips,
for ensemble.py) and report.json. With --hold-out it also writes best.ckpt, from the epoch with the
best accuracy on the hold-out clips, and a folder best with that epoch's model.pt, probabilities.npz
and report.json, which the other programs accept as a run.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loading import (
    Clips,
    held_out,
    load_data,
)  # first: it says what to install where Lightning is missing

# isort: split
import lightning as L
from command_line import given_as, parse
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    Timer,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from memory import keep_freed_memory
from ms_g3d import STFModule
from recipe import (
    OF_ONE_NETWORK,
    OUTPUT_LAYER,
    WITH_STF_ADJACENCY,
    Recipe,
    build_loss,
    build_objective,
    prepare,
    watched,
)
from results import batches, load_file, load_run, write_reports
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torchmetrics.classification import MulticlassAccuracy

from skeleton_focus import (
    Batch,
    SkeletonDataset,
    SkeletonLayout,
    Split,
    STFAdjacency,
    allowed_joints,
)


class Recogniser(L.LightningModule):
    """One network under one STF branch; a frozen one with a last layer of its own."""

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
            self.objective.model.get_submodule(OUTPUT_LAYER).requires_grad_(True)
            self.train()
        self.accuracy = nn.ModuleDict(
            {
                f"top{k}": MulticlassAccuracy(
                    num_classes, top_k=min(k, num_classes), average="micro"
                )
                for k in (1, 5)
            }
        )

    def train(self, mode: bool = True) -> Recogniser:
        """A frozen network stays in evaluation mode: BatchNorm's statistics are kept, and nothing
        is dropped.
        """
        super().train(mode)
        if self.recipe.freeze:
            self.objective.model.eval()
        return self

    def on_train_start(self) -> None:
        self.objective.warmup = self.recipe.stf_start * int(self.trainer.num_training_batches)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        # Drawn anew from what identifies the step, so that a resumed run sees what an uninterrupted
        # one sees.
        (seed,) = np.random.SeedSequence(
            [self.recipe.seed, self.global_step, self.global_rank]
        ).generate_state(1)
        random = torch.Generator().manual_seed(int(seed))
        torch.manual_seed(int(seed))  # for dropout
        x = prepare(batch, self.recipe, self.layout, random)
        out = self.objective(x, batch.label)
        self.log("loss", out.loss, prog_bar=True)
        self.log_dict(
            {f"train/{name}": term for name, term in out.terms.items()},
            on_step=False,
            on_epoch=True,
        )
        return out.loss

    def validation_step(self, batch: Batch, index: int) -> None:
        logits = self.objective.model(prepare(batch, self.recipe, self.layout))
        for name, metric in self.accuracy.items():
            metric(logits, batch.label)
            self.log(f"{watched(self.recipe)}/{name}", metric, prog_bar=True, on_epoch=True)

    def on_validation_epoch_start(self) -> None:
        if self.recipe.ema:  # by now the averaged weights have taken their place
            renew_statistics(self.objective.model, self.trainer.datamodule.split.train, self.recipe)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        decayed = [p for p in trained if p.dim() > 1]
        rest = [p for p in trained if p.dim() <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.recipe.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.SGD(groups, lr=self.recipe.lr, momentum=0.9, nesterov=True)
        if self.recipe.decay != (0,):
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, self._share_of_rate)]
        steps = round(self.trainer.estimated_stepping_batches / self.recipe.cycle)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.recipe.lr, total_steps=steps, pct_start=0.15
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share_of_rate(self, epoch: int) -> float:
        """Of the full learning rate: growing during the warm-up, then a tenth from each decay
        on.
        """
        return 0.1 ** sum(epoch >= last for last in self.recipe.decay) * min(
            1, (epoch + 1) / (self.recipe.warmup + 1)
        )


def renew_statistics(model: nn.Module, data: SkeletonDataset, recipe: Recipe) -> None:
    """Recompute BatchNorm's statistics over the training clips: averaged weights need statistics of
    their own.

    A frozen network's weights are those of its statistics, which stay.
    """
    if recipe.freeze:
        return
    random = torch.Generator().manual_seed(recipe.seed)
    whole = len(data) > recipe.batch
    clips = batches(model, data, recipe, shuffle=True, drop_last=whole, generator=random)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)  # for dropout
        update_bn((prepare(batch, recipe, data.layout, random) for batch in clips), model)


def start_from(module: Recogniser, classes: list[str], folder: str) -> None:
    """Take over the weights of a finished run; STF's own weights, which it need not have, keep
    their start.

    With --freeze the last layer keeps its start, too, of which the classes may be others.
    """
    objective, theirs, layout, known = load_run(folder)
    ours = module.recipe
    freeze = ours.freeze
    same = [
        ("layout", module.layout.name, layout.name),
        ("stream", ours.stream, theirs.stream),
        ("preparation", ours.preparation, theirs.preparation),
    ]
    if ours.model == theirs.model:
        same.append(("stf-arrangement", ours.stf_arrangement, theirs.stf_arrangement))
    elif {ours.model, theirs.model} != {"ms_g3d", "stf_ms_g3d"}:  # STF starts from its backbone
        same.insert(0, ("network", ours.model, theirs.model))
    if freeze:  # what no weight shows
        names = ("strides", *OF_ONE_NETWORK.get(ours.model, ()))
        same += [
            (name.replace("_", "-"), getattr(ours, name), getattr(theirs, name)) for name in names
        ]
    if classes == known:  # the same data set, of which no clip may change sides
        same += [
            ("hold-out", ours.hold_out, theirs.hold_out),
            ("share", ours.share, theirs.share),
            ("draw", ours.draw, theirs.draw),
        ]
    for name, own, other in same:
        if own != other:
            wanted = given_as(own) or "none"
            got = given_as(other) or "none"
            raise ValueError(
                f"expected --start-from with a run of the same {name}, {wanted}, got {folder} with {got}"
            )
    if classes != known and not freeze:
        raise ValueError(
            f"expected --start-from with a run of the same classes, {listed(classes)}, got {folder} with "
            f"{listed(known)}; with --freeze a new last layer is trained on its network"
        )
    network = module.objective.model
    trained = objective.model.state_dict()
    kept = network.state_dict()
    added: list[str] = []
    if freeze:
        for name in [name for name in kept if name.startswith(f"{OUTPUT_LAYER}.")]:
            del trained[name], kept[name]
    else:
        added = [
            f"{name}."
            for name, part in network.named_modules()
            if isinstance(part, STFAdjacency | STFModule)
        ]
    strange = [
        name
        for name, weight in trained.items()
        if name not in kept or kept[name].shape != weight.shape
    ]
    strange += [name for name in kept.keys() - trained.keys() if not name.startswith(tuple(added))]
    if strange:
        sizes = {
            name: (given_as(getattr(theirs, name)), given_as(getattr(ours, name)))
            for name in ("widths", *OF_ONE_NETWORK.get(theirs.model, ()))
        }
        unlike = [
            f"{name} {other} against {own}" for name, (other, own) in sizes.items() if own != other
        ]
        hint = ", ".join(sorted(strange)[:5]) + (f" ({', '.join(unlike)})" if unlike else "")
        raise ValueError(
            f"expected --start-from with a run of the same network and sizes, got {folder}: {hint}"
        )
    network.load_state_dict(trained, strict=False)


def listed(classes: list[str]) -> str:
    """A data set's classes in short."""
    return f"{len(classes)} from {classes[0]!r} to {classes[-1]!r}"


def machines(given: argparse.Namespace) -> tuple[int | str, int]:
    """Devices of a machine, and machines: those that torchrun started, or those of the command
    line.
    """
    if "LOCAL_WORLD_SIZE" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    return "auto" if given.devices == -1 else given.devices, given.nodes


def read_clips(
    given: argparse.Namespace, recipe: Recipe
) -> tuple[Split, SkeletonDataset, list[Exception]]:
    """The clips to train on and to test, those to look at during training, and why others are left
    out.
    """
    left_out: list[Exception] = []
    on_error = left_out.append if given.skip_bad_clips else "raise"
    data = load_data(
        given.data, recipe, split=given.split, on_error=on_error, workers=given.workers
    )
    data, validation = held_out(data, recipe)
    clips = [len(data.train), len(data.test)]
    if given.clip_counts not in (None, clips):
        raise ValueError(
            f"expected the data as they were when the run started, {given.clip_counts} training and test "
            f"clips, got {clips}; start again with another --out"
        )
    in_the_plane = data.train[0].x.shape[0] == 2 and not given.resume
    if (
        in_the_plane and any(recipe.turn[:2]) and given.turn is None
    ):  # a preset's views; of a plane there is one
        recipe.turn = (0.0, 0.0, recipe.turn[2])
    return data, validation, left_out


def build_module(given: argparse.Namespace, recipe: Recipe, train: SkeletonDataset) -> Recogniser:
    """The network at its start; a mistake shows before a file is written."""
    channels, _, _, persons = train[0].x.shape
    module = Recogniser(recipe, train.layout, len(train.classes), persons, channels=channels)
    if recipe.guide:
        module.objective.loss.allowed = read_guide(recipe.guide, train)
    if recipe.start_from and not given.resume:
        start_from(module, list(train.classes), recipe.start_from)
    prepare(SkeletonDataset.collate([train[0]]), recipe, train.layout)
    return module


def read_guide(path: str, clips: SkeletonDataset) -> Tensor:
    """Where the focus of each class may lie (classes, V), from a JSON file of joints or parts."""
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
    given: argparse.Namespace, recipe: Recipe, data: Split, left_out: list[Exception]
) -> dict[str, Any]:
    """Write recipe.json and tell what is trained on what; returns what the run's reports say of
    it.
    """
    source = given.data and str(
        Path(given.data).resolve()
    )  # a resumed run may start in another folder
    facts = {
        "clips": [len(data.train), len(data.test)],
        "preset": given.preset,
        "data": source,
        "split": given.split,
        "skip_bad_clips": given.skip_bad_clips,
        "precision": given.precision,
        "validate_every": given.validate_every,
        "threads": given.threads,
        "recipe": asdict(recipe),
    }
    if rank_zero_only.rank:
        return facts
    out = Path(given.out)
    train = data.train
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(facts, indent=2) + "\n")
    found = f"{len(train)} training and {len(data.test)} test clips of {len(train.classes)} classes, {train.layout.name}"
    print(found if given.data is None else f"{train.origin}: {found}")
    if left_out:
        print(f"note: skipped {len(left_out)} clips that cannot be read; the first: {left_out[0]}")
    steps = recipe.epochs * max(len(train) // recipe.batch, 1)
    if recipe.ema**steps > 0.05:
        share = f"{recipe.ema**steps:.0%} of the initial ones"
        print(
            f"note: after {steps} steps the moving average of the weights, which is tested, still holds {share}; "
            "--ema 0 disables it"
        )
    if build_loss(recipe).uses("adjacency") and recipe.model not in WITH_STF_ADJACENCY:
        print(
            f"note: {recipe.model} has no STFAdjacency for L_G to act on; the branch {recipe.branch} is trained without"
        )
    with_erasing = " with erasing" if recipe.erasing else ""
    alone = recipe.branch == "plain" and not recipe.erasing
    terms = "" if alone else f"{with_erasing} from epoch {recipe.stf_start} of {recipe.epochs}"
    print(f"preset {given.preset}, branch {recipe.branch}{terms}; writing to {out}")
    return facts


def build_trainer(given: argparse.Namespace, recipe: Recipe, timer: Timer) -> L.Trainer:
    """Lightning's loop, with the files that a run leaves while it goes."""
    out = Path(given.out)
    callbacks = [timer, LearningRateMonitor("epoch")]
    if recipe.ema:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema))
    if (
        watched(recipe) == "validation"
    ):  # before the last one, which keeps what this one knows for a run that goes on
        score = {"monitor": "validation/top1", "mode": "max"}
        callbacks.append(ModelCheckpoint(out, "best", **score, enable_version_counter=False))
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
        gradient_clip_val=recipe.clip_gradient,
        check_val_every_n_epoch=given.validate_every,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=not given.quiet,
        log_every_n_steps=10,
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    given, recipe = parse(arguments, says=__doc__)
    out = Path(given.out)
    keep_freed_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    L.seed_everything(recipe.seed, verbose=False)
    data, validation, left_out = read_clips(given, recipe)
    module = build_module(given, recipe, data.train)
    checkpoint = out / "last.ckpt" if given.resume else None
    if checkpoint is not None:
        try:
            module.load_state_dict(load_file(checkpoint)["state_dict"])
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"expected {checkpoint} from this version of the program, got another: {reason}"
            ) from None
    facts = announce(given, recipe, data, left_out)
    timer = Timer()  # over all parts of a run that was resumed
    trainer = build_trainer(given, recipe, timer)
    try:
        trainer.fit(
            module,
            Clips(data, validation, recipe, given.workers),
            ckpt_path=checkpoint,
            weights_only=True,
        )
    except (KeyboardInterrupt, SystemExit):
        if not (out / "last.ckpt").exists():
            sys.exit(f"stopped in the first epoch; nothing was saved in {out}, start again")
        also = f" --threads {given.threads}" if given.threads else ""
        also += f" --devices {given.devices}" if given.devices != -1 else ""
        sys.exit(f"stopped; go on with: python examples/train.py --out {out} --resume{also}")
    if not trainer.is_global_zero:
        return {}
    module.to(trainer.strategy.root_device)
    if recipe.ema:
        renew_statistics(module.objective.model, data.train, recipe)
    measured = {
        "seconds": round(timer.time_elapsed(), 1),
        "parameters": sum(p.numel() for p in module.parameters()),
        "frozen": sum(p.numel() for p in module.parameters() if not p.requires_grad),
    }
    return write_reports(out, module.objective, recipe, data, validation, {**measured, **facts})


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
