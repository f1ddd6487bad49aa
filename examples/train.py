"""Train a network of this folder, plain or with the STF losses, on a data set or on generated actions.

    python examples/train.py                                              # generated actions, STF focus branch
    python examples/train.py --data PATH --branch focus --out runs/focus  # your clips
    python examples/train.py --out runs/focus --resume                    # go on where an interrupted run stopped
    torchrun --nproc-per-node 4 examples/train.py ...                     # several GPUs; --nodes for several machines

A run writes into its folder: last.ckpt after every epoch, and at the end model.pt (weights and how to rebuild the network),
probabilities.npz (of the test clips, for ensemble.py) and report.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from stf_gcn import STFGCN
from torch import Tensor, nn
from torch.utils.data import DataLoader
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
    resample_frames,
    rotate,
)

BRANCHES = {"focus": STFLoss.focus_branch, "exploration": STFLoss.exploration_branch, "plain": STFLoss.plain}


@dataclass
class Recipe:
    """Everything a run needs besides its data; written into model.pt and report.json."""

    model: str = "stf_gcn"
    branch: str = "focus"
    stream: str = "joint"  # or several, joined on the channels: "joint+joint_motion"
    widths: tuple[int, ...] = (96, 96, 192, 192, 384, 384)
    strides: tuple[int, ...] = (1, 1, 2, 1, 2, 1)
    frames: int = 64
    epochs: int = 60
    batch: int = 32
    lr: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    ema: float = 0.0  # decay of the weights' running average; 0 is none
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)  # training views, degrees about x, y, z
    stretch: float = 0.0  # training sizes, 1 - stretch to 1 + stretch
    crop: float = 1.0  # shortest share of a clip that training sees
    clip_gradient: float = 5.0
    clips: int = 2000  # generated training clips, where no data are given
    seed: int = 1


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"frames": 300},
    "nw_ucla": {
        "stream": "joint+joint_motion",
        "widths": (48, 48, 96, 96, 192, 192),
        "frames": 32,
        "epochs": 50,
        "label_smoothing": 0.1,
        "ema": 0.995,
        "turn": (15.0, 60.0, 15.0),
        "stretch": 0.2,
        "crop": 0.6,
    },
    "synthetic": {
        "stream": "joint+joint_motion",
        "widths": (32, 32, 64, 64, 96, 96),
        "frames": 32,
        "epochs": 12,
        "turn": (0.0, 30.0, 0.0),
        "crop": 0.9,
    },
}


def build_network(recipe: Recipe, num_classes: int, layout: SkeletonLayout) -> nn.Module:
    channels = 3 * len(recipe.stream.split("+")) + 1
    return STFGCN(num_classes, layout, in_channels=channels, widths=recipe.widths, strides=recipe.strides)


LAYERS = {"stf_gcn": (["block5", "block6"], "fc")}  # what STF explains, and the linear layer after pooling


def prepare(batch: Batch, recipe: Recipe, layout: SkeletonLayout, random: torch.Generator | None = None) -> Tensor:
    """(N, C, T, V, M) as the network takes it: centred, in body heights, seen from a random side when training."""
    n, device = len(batch.x), batch.x.device
    x = center(batch.x, layout.center, frame=0, visibility=batch.visibility)
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
    both = resample_frames(both, batch.lengths, recipe.frames, start=start.to(device), stop=stop.to(device))
    x, seen = both[:, :-1], (both[:, -1] > 0.5).to(x.dtype)
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
        random = torch.Generator().manual_seed(hash((self.recipe.seed, self.global_step, self.global_rank)) % 2**63)
        out = self.objective(prepare(batch, self.recipe, self.layout, random), batch.label)
        self.log("loss", out.loss, prog_bar=True)
        self.log_dict({f"train/{name}": term for name, term in out.terms.items()}, on_step=False, on_epoch=True)
        return out.loss

    def validation_step(self, batch: Batch, index: int) -> None:
        logits = self.objective.model(prepare(batch, self.recipe, self.layout))
        for name, metric in self.accuracy.items():
            metric(logits, batch.label)
            self.log(f"test/{name}", metric, prog_bar=True, on_epoch=True)

    def predict_step(self, batch: Batch, index: int) -> Tensor:
        return self.objective.model(prepare(batch, self.recipe, self.layout)).softmax(1)

    def configure_optimizers(self) -> Any:
        decayed = [p for p in self.parameters() if p.dim() > 1]
        rest = [p for p in self.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": self.recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups, lr=self.recipe.lr, momentum=0.9, nesterov=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.recipe.lr, total_steps=int(self.trainer.estimated_stepping_batches), pct_start=0.15
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Clips(L.LightningDataModule):
    """The training and test clips; the order of the training clips follows from the seed and the epoch."""

    def __init__(self, split: Split, recipe: Recipe, workers: int) -> None:
        super().__init__()
        self.split, self.recipe, self.workers = split, recipe, workers

    def train_dataloader(self) -> DataLoader[Any]:
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        order = torch.Generator().manual_seed(self.recipe.seed * 100_003 + epoch)
        return self._loader(
            self.split.train, shuffle=True, generator=order, drop_last=len(self.split.train) > self.recipe.batch
        )

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.split.test)

    def predict_dataloader(self) -> DataLoader[Any]:
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


def load_run(folder: str | Path) -> tuple[STFObjective, Recipe, SkeletonLayout, list[str]]:
    """The trained network of a run, how it was trained, its skeleton and its classes."""
    path = Path(folder) / "model.pt"
    if not path.is_file():
        raise ValueError(
            f"expected a finished run, got {folder}, which holds no model.pt; train it with examples/train.py --out {folder}"
        )
    saved = torch.load(path, map_location="cpu", weights_only=True)
    recipe, layout = Recipe(**saved["recipe"]), LAYOUTS[saved["layout"]]
    module = Recogniser(recipe, layout, len(saved["classes"]))
    module.objective.load_state_dict(saved["weights"])
    return module.objective.eval(), recipe, layout, saved["classes"]


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, Recipe]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of clips; by default actions are generated")
    parser.add_argument(
        "--preset", choices=["auto", *PRESETS], default="auto", help="auto: the preset made for the data"
    )
    parser.add_argument("--out", default="runs/last", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the last epoch in --out")
    parser.add_argument("--precision", default="32-true", help="Lightning's: 32-true, bf16-mixed, 16-mixed")
    parser.add_argument("--devices", default="auto", help="devices a machine")
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--workers", type=int, default=0, help="processes that load clips")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument("--validate-every", type=int, default=10, help="epochs between two looks at the test clips")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    for option in fields(Recipe):
        kind = type(option.default)
        choices = {"model": list(LAYERS), "branch": list(BRANCHES)}.get(option.name)
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=(type(option.default[0]) if kind is tuple else kind),
            nargs="+" if kind is tuple else None,
            choices=choices,
            default=None,
            help=f"default {option.default}, or the preset's",
        )
    given = parser.parse_args(arguments)
    preset = given.preset if given.preset != "auto" else "synthetic" if given.data is None else "nw_ucla"
    chosen = {o.name: getattr(given, o.name) for o in fields(Recipe) if getattr(given, o.name) is not None}
    chosen = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}
    given.preset = preset
    return given, Recipe(**{**PRESETS[preset], **chosen})


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    given, recipe = parse(arguments)
    out = Path(given.out)
    if given.resume and not (out / "last.ckpt").is_file():
        raise ValueError(f"expected a run to resume, got {out}, which holds no last.ckpt; start it without --resume")
    if given.threads:
        torch.set_num_threads(given.threads)
    L.seed_everything(recipe.seed, verbose=False)
    data = load_data(given.data, recipe)
    classes, layout = data.train.classes, data.train.layout
    print(
        f"{len(data.train)} training clips, {len(data.test)} test clips, {len(classes)} classes, {layout.name}; preset {given.preset}"
    )
    module = Recogniser(recipe, layout, len(classes))
    callbacks: list[Any] = [
        ModelCheckpoint(out, save_last=True, save_top_k=0, every_n_epochs=1, enable_version_counter=False),
        LearningRateMonitor("epoch"),
    ]
    if recipe.ema:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema))
    if not given.quiet:
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    trainer = L.Trainer(
        max_epochs=recipe.epochs, precision=given.precision, accelerator="auto",
        devices=given.devices if given.devices == "auto" else int(given.devices), num_nodes=given.nodes,
        callbacks=callbacks, logger=CSVLogger(out, name="", version=""), default_root_dir=out,
        gradient_clip_val=recipe.clip_gradient, check_val_every_n_epoch=given.validate_every,
        reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0, enable_model_summary=False,
        enable_progress_bar=not given.quiet, log_every_n_steps=10,
    )  # fmt: skip
    clips = Clips(data, recipe, given.workers)
    start = time.perf_counter()
    trainer.fit(module, clips, ckpt_path=out / "last.ckpt" if given.resume else None)
    seconds = time.perf_counter() - start
    probabilities = torch.cat(trainer.predict(module, clips)).float().cpu()
    label = torch.tensor(data.test.labels)
    order = probabilities.argsort(1, descending=True)
    hits = order == label[:, None]
    report = {
        "top1": round(hits[:, 0].float().mean().item(), 4),
        "top5": round(hits[:, :5].any(1).float().mean().item(), 4),
        "seconds": round(seconds, 1), "parameters": sum(p.numel() for p in module.parameters()),
        "preset": given.preset, "data": given.data or "synthetic", "recipe": asdict(recipe), "torch": torch.__version__,
    }  # fmt: skip
    if trainer.is_global_zero:
        torch.save(
            {
                "weights": module.objective.state_dict(),
                "recipe": asdict(recipe),
                "layout": layout.name,
                "classes": list(classes),
            },
            out / "model.pt",
        )
        np.savez_compressed(
            out / "probabilities.npz",
            probabilities=probabilities.numpy(),
            label=label.numpy(),
            names=np.array(data.test.names),
        )
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        print(
            f"top-1 {report['top1']:.2%}, top-5 {report['top5']:.2%} on {len(label)} test clips after {seconds:.0f} s; {out}/report.json"
        )
    return report


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
