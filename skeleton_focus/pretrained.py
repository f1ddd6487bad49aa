"""Trained networks in one line: the ones that come with the package, and runs of ``train.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from . import _shipped
from ._checks import message
from .clips import Batch, SkeletonDataset
from .datasets import open_clips
from .layouts import SkeletonLayout
from .objective import STFObjective

__all__ = ["Answer", "Pretrained", "load_pretrained", "pretrained_names", "weights_folder"]


class Answer(NamedTuple):
    """What a network says of a clip, or of a window of its frames.

    Attributes:
        clip: name of the clip.
        window: first and last frame that the network was given.
        label: name of the most probable class.
        probability: its probability, 0 to 1.
        ranked: all classes with their probabilities, the most probable first.
        truth: the clip's class, None if it is unknown.
        joints: names of the joints with the highest focus, the highest first; at most three.
        frames: first and last frame around the peak of the focus, down to half of it.
        focus: (M, T, V) at the frames of the network's input, 0 to 1.
        x: (C, T, V, M), the positions at these frames, to draw the focus on.
    """

    clip: str
    window: tuple[int, int]
    label: str
    probability: float
    ranked: list[tuple[str, float]]
    truth: str | None
    joints: list[str]
    frames: tuple[int, int]
    focus: Tensor
    x: Tensor


class Pretrained(NamedTuple):
    """A trained network, and what is needed to use it.

    To move it to another process, load it there: its classes are imported from the examples when it
    is loaded. To publish it, copy ``model.pt`` and ``model.json``.

    Attributes:
        objective: the network under its losses, in evaluation mode; ``objective.explain`` returns
            the focus and the logits.
        recipe: the settings of its training, such as ``recipe.stream`` and ``recipe.frames``.
        layout: skeleton of its input.
        classes: names of the classes, in the order of the logits.
        persons: M of its training clips.
        channels: C of its training clips, 2 or 3.
        clips_layout: skeleton of the files that it was trained on, which differs from ``layout`` if
            they were converted; files that do not name their skeleton are read as this one.

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
    clips_layout: SkeletonLayout

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
    ) -> list[Answer]:
        """Recognise clips of any skeleton and length, with or without labels.

        Args:
            clips: a folder or file in any format of :func:`skeleton_focus.open_clips`, or clips.
            layout: skeleton of files that do not name theirs; by default that of the files that
                the network was trained on, if the number of joints is equal.
            window: recognise windows of so many frames; 0 takes each clip as a whole.
            step: frames between the beginnings of two windows; 0 takes a quarter of a window.
            batch: clips or windows that the network takes at once.

        Returns:
            An answer for each clip or window. The network is in evaluation mode meanwhile.

        Raises:
            ValueError: clips with other coordinates than in training, or whose skeleton is unclear.
            FormatError, OSError: files that cannot be read.

        Example:
            >>> import torch
            >>> trained = load_pretrained("nw_ucla/stf_gcn/bone")
            >>> clips = SkeletonDataset([torch.randn(3, 40, 20, 1)], None, trained.layout)
            >>> answer = trained.recognise(clips)[0]
            >>> answer.label in trained.classes, len(answer.joints)
            (True, 3)
        """
        if not isinstance(clips, SkeletonDataset | str | Path):
            hint = "save an array with numpy.save and pass its path"
            got = type(clips).__name__
            raise ValueError(message("recognise", "a path or a SkeletonDataset", got, hint))
        if not isinstance(clips, SkeletonDataset):
            usual = self.clips_layout
            clips = open_clips(clips, layout=layout, usual=usual, persons=self.persons)
        answers = _shipped.import_example("predict").answers
        modes = {module: module.training for module in self.objective.modules()}
        self.objective.eval()
        try:
            return list(answers(self, clips, window=window, step=step, batch=batch))
        finally:
            for module, mode in modes.items():
                module.training = mode


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
    """Return the folder of the networks that come with the package.

    Example:
        >>> (weights_folder() / "nw_ucla" / "stf_gcn" / "joint" / "model.json").is_file()
        True
    """
    return _shipped.shipped_folder("weights")
