"""The clips of a run: for training, for validation and for testing."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

try:
    import lightning as L
except ImportError:
    sys.exit("error: these programs need more: pip install lightning matplotlib pillow")
import numpy as np
from recipe import Recipe
from results import facts_of, finished, load_json, read_layout
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from tqdm import tqdm

from skeleton_focus import (
    SkeletonDataset,
    SkeletonLayout,
    Split,
    SyntheticActions,
    open_clips,
    open_dataset,
)
from skeleton_focus.clips import UNKNOWN


class Clips(L.LightningDataModule):
    """Training clips, in an order drawn from the seed and the epoch, and validation clips."""

    def __init__(
        self, split: Split, validation: SkeletonDataset, recipe: Recipe, workers: int
    ) -> None:
        super().__init__()
        self.split = split
        self.validation = validation
        self.recipe = recipe
        self.workers = workers

    def train_dataloader(self) -> DataLoader[Any]:
        ranks = 1 if self.trainer is None else self.trainer.world_size
        rank = 0 if self.trainer is None else self.trainer.global_rank
        # Lightning sets the sampler's epoch.
        order = DistributedSampler(self.split.train, ranks, rank, seed=self.recipe.seed)
        whole = len(order) > self.recipe.batch  # a last batch of one clip would upset BatchNorm
        return self._loader(self.split.train, sampler=order, drop_last=whole)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.validation)

    def _loader(self, data: SkeletonDataset, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            data,
            batch_size=self.recipe.batch,
            collate_fn=SkeletonDataset.collate,
            num_workers=self.workers,
            **options,
        )


reading = partial(tqdm, desc="reading", leave=False, delay=1)


def load_data(path: str | None, recipe: Recipe, **options: Any) -> Split:
    """Read clips, or generate them; take the recipe's share of the training clips."""
    if path is not None:
        split = open_dataset(path, progress=reading, **options)
    else:
        split = generated(recipe)
    if recipe.share == 1:
        return split
    # A larger share contains the smaller ones.
    order = np.random.default_rng(recipe.draw).permutation(len(split.train))
    count = max(round(recipe.share * len(order)), 1)
    return split._replace(train=split.train.subset(sorted(order[:count].tolist())))


def generated(recipe: Recipe) -> Split:
    """Generate actions; with shortcuts, a test clip shows that of another class."""
    actions = SyntheticActions(frames=recipe.frames, shortcut=recipe.shortcut)
    train = actions.generate(recipe.clips, seed=1)
    test = actions.generate(recipe.clips // 4, seed=2, shuffle_shortcut=True)
    return Split(
        *(
            SkeletonDataset.from_batch(batch, actions.layout, classes=actions.classes)
            for batch in (train, test)
        )
    )


def held_out(split: Split, recipe: Recipe) -> tuple[Split, SkeletonDataset]:
    """Take the hold-out clips from the training clips; without any, validate on the test clips."""
    if not recipe.hold_out:
        return split, split.test
    names = split.train.names
    held = [i for i, name in enumerate(names) if any(text in name for text in recipe.hold_out)]
    if not 0 < len(held) < len(names):
        texts = " ".join(recipe.hold_out)
        listed = f"{len(held)} of {len(names)} with {texts}, among them {names[0]}"
        raise ValueError(f"expected --hold-out to name some of the training clips, got {listed}")
    rest = sorted({*range(len(names))} - {*held})
    return split._replace(train=split.train.subset(rest)), split.train.subset(held)


def clip_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the programs that evaluate finished runs."""
    parser.add_argument("--data", help="folder or file of clips; default: the data of the run")
    parser.add_argument("--split", help="split of the data, such as xsub; default: the run's")
    parser.add_argument(
        "--layout",
        dest="data_layout",
        help="skeleton of the data, a name or a JSON file; without --data: the run's",
    )
    parser.add_argument(
        "--skip-bad-clips", action="store_true", help="skip clips that cannot be read"
    )


def chosen_clips(given: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`clip_options`, as arguments of :func:`clips_of`."""
    names = ("data", "split", "data_layout", "skip_bad_clips")
    return {name: getattr(given, name) for name in names}


def clips_of(
    folder: str | Path,
    recipe: Recipe,
    layout: SkeletonLayout,
    classes: list[str],
    *,
    data: str | None = None,
    split: str | None = None,
    data_layout: str | None = None,
    skip_bad_clips: bool = False,
) -> tuple[SkeletonDataset, str | None]:
    """Return the test clips of a run, or other clips, and their source (None if generated).

    Clips of another skeleton, such as ``data_layout``, are converted to ``layout``.
    """
    facts = facts_of(folder)
    source = facts["data"] if data is None else data
    if data is None and source is not None and not Path(source).exists():
        raise ValueError(
            f"expected the clips that {folder} was trained on, got no {source}; --data names others"
        )
    if source is None:
        clips = generated(recipe).test
    else:
        skip = skip_bad_clips or facts.get("skip_bad_clips")
        stated = facts.get("layout") if data is None and data_layout is None else data_layout
        # Not open_dataset: there may be no training clips.
        clips = open_clips(
            source,
            split=split or facts.get("split"),
            side="test",
            layout=stated,
            usual=read_layout(load_json(finished(folder, "model.json"))["clips_layout"]),
            on_error="skip" if skip else "raise",
            progress=reading,
        )
    if list(clips.classes) != classes:
        got = f"{len(clips.classes)} classes of {clips.layout.name}"
        raise ValueError(
            f"expected clips in the {len(classes)} classes of {folder}, got "
            f"{got} from {source or 'generated actions'}; --data names others"
        )
    if UNKNOWN in clips.labels:
        name = clips.names[clips.labels.index(UNKNOWN)]
        raise ValueError(
            f"expected clips with labels, got none for {name!r} in {source}; predict.py recognises "
            "clips without"
        )
    if clips.layout != layout:
        note = f"note: clips of {clips.layout.name} are converted to {layout.name}, as in {folder}"
        print(note, file=sys.stderr)
    persons = load_json(finished(folder, "model.json"))["persons"]
    bodies = clips[0].x.shape[3]
    if bodies > persons:
        raise ValueError(
            f"expected clips of at most {persons} bodies, as {folder} was trained on, got {bodies} "
            f"from {source or 'generated actions'}"
        )
    return clips.with_layout(layout).with_persons(persons), source
