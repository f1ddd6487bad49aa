"""Trained networks in one line: the ones that come with the package, and runs of ``train.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from . import _shipped
from .clips import Batch, SkeletonDataset
from .layouts import SkeletonLayout
from .objective import STFObjective

__all__ = ["Pretrained", "load_pretrained", "pretrained_names", "weights_folder"]


class Pretrained(NamedTuple):
    """A trained network, and what is needed to use it.

    Attributes:
        objective: the network under its losses, in evaluation mode; ``objective.explain`` returns
            the focus and the logits.
        recipe: the settings of its training, such as ``recipe.stream`` and ``recipe.frames``.
        layout: skeleton of its input.
        classes: names of the classes, in the order of the logits.
        persons: M of its training clips.
        channels: C of its training clips, 2 or 3.

    Example:
        >>> import torch
        >>> trained = load_pretrained("nw_ucla/stf_gcn/bone")
        >>> trained.layout.name, len(trained.classes)
        ('KINECT20', 10)
        >>> clips = SkeletonDataset([torch.randn(3, 40, 20, 1)], None, trained.layout)
        >>> x = trained.prepare(SkeletonDataset.collate([clips[0]]))
        >>> trained.model(x).shape
        torch.Size([1, 10])
    """

    objective: STFObjective
    recipe: Any
    layout: SkeletonLayout
    classes: list[str]
    persons: int
    channels: int

    @property
    def model(self) -> nn.Module:
        """The network alone; it maps prepared clips to logits."""
        return self.objective.model

    def prepare(self, batch: Batch) -> Tensor:
        """Prepare clips as in training: centre, scale and resample them, and compute the stream.

        Args:
            batch: N clips of the network's skeleton, with C coordinates and M persons as in
                training; ``SkeletonDataset.collate`` makes it.

        Returns:
            The network's input, (N, channels of the stream, frames, V, M).
        """
        x: Tensor = _shipped.import_example("recipe").prepare(batch, self.recipe, self.layout)
        return x

    def recognise(
        self,
        clips: str | Path | SkeletonDataset,
        *,
        layout: str | Path | SkeletonLayout | None = None,
        window: int = 0,
        step: int = 0,
        batch: int = 32,
    ) -> list[Any]:
        """Recognise clips of any skeleton and length, with or without labels.

        Args:
            clips: a folder or file in any format of :func:`skeleton_focus.open_clips`, or clips.
            layout: skeleton of the files, if they do not name it. By default, files that do not
                have the network's skeleton if they have as many joints.
            window: recognise windows of so many frames; 0 takes each clip as a whole.
            step: frames between the beginnings of two windows; 0 takes a quarter of a window.
            batch: clips or windows that the network takes at once.

        Returns:
            For each clip or window an answer with ``label``, ``probability``, ``ranked`` (all
            classes with their probabilities), ``joints`` and ``frames`` (where the focus is
            highest), ``focus`` (M, T, V), ``clip`` (its name), ``window`` and ``truth``.

        Raises:
            ValueError: clips with other coordinates than in training.
            FormatError, OSError: files that cannot be read.

        Example:
            >>> import torch
            >>> trained = load_pretrained("nw_ucla/stf_gcn/bone")
            >>> clips = SkeletonDataset([torch.randn(3, 40, 20, 1)], None, trained.layout)
            >>> answer = trained.recognise(clips)[0]
            >>> answer.label in trained.classes, len(answer.joints)
            (True, 3)
        """
        if not isinstance(clips, SkeletonDataset):
            open_as = _shipped.import_example("results").open_as
            clips = open_as(self.layout, clips, named=layout, persons=self.persons)
        answers = _shipped.import_example("predict").answers
        return list(answers(self, clips, window=window, step=step, batch=batch))


def load_pretrained(name: str | Path) -> Pretrained:
    """Load a trained network: one that comes with the package, or a run of ``train.py``.

    The folder holds ``model.pt``, a state_dict, and ``model.json``, the rest. Loading them runs no
    code of theirs.

    Args:
        name: one of :func:`pretrained_names`, or the folder of a run. A folder goes first.

    Raises:
        ValueError: no such network, or one that cannot be read.

    Example:
        >>> load_pretrained("nw_ucla/stf_gcn/joint").classes[:2]
        ['pick up with one hand', 'pick up with two hands']
    """
    trained: Pretrained = _shipped.import_example("results").load_run(name)
    return trained


def pretrained_names() -> list[str]:
    """List the networks that come with the package.

    Example:
        >>> "nw_ucla/stf_gcn/joint" in pretrained_names()
        True
    """
    top = weights_folder()
    return sorted(file.parent.relative_to(top).as_posix() for file in top.rglob("model.pt"))


def weights_folder() -> Path:
    """The folder of the networks that come with the package."""
    return _shipped.shipped_folder("weights")
