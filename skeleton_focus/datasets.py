"""Clips in memory as one data set, and the batch that a training step receives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ._checks import check_shape, message, require
from .formats import NW_UCLA_ACTIONS, read_nw_ucla
from .layouts import KINECT20, SkeletonLayout


class Clip(NamedTuple):
    """One clip.

    Attributes:
        x: (C, T, V, M) joint positions.
        label: class index.
        visibility: (T, V, M), 1 where a joint was seen.
        critical: (M, T, V), 1 where a joint and frame make the class; zeros where the truth is not known.
    """

    x: Tensor
    label: int
    visibility: Tensor
    critical: Tensor


class Batch(NamedTuple):
    """Clips padded with zeros to the longest of the batch.

    Attributes:
        x: (N, C, T, V, M) joint positions.
        lengths: (N,) true number of frames.
        label: (N,) class indices.
        visibility: (N, T, V, M), 1 where a joint was seen, 0 where it is missing or padding.
        critical: (N, M, T, V), 1 where a joint and frame make the class; zeros where the truth is not known.
    """

    x: Tensor
    lengths: Tensor
    label: Tensor
    visibility: Tensor
    critical: Tensor


class SkeletonDataset(Dataset[Clip]):
    """Clips of one skeleton in memory, each with its own number of frames.

    Args:
        clips: tensors (C, T, V, M); C, V and M are the same for all.
        labels: class indices, one for each clip.
        layout: the skeleton.
        classes: class names; by default ``"0"``, ``"1"``, ...
        names: clip names; by default their numbers.
        visibility: tensors (T, V, M), by default ones.
        critical: tensors (M, T, V), by default zeros.

    Raises:
        ValueError: no clip, or clips, labels and layout that do not fit each other.

    Example:
        >>> from skeleton_focus import KINECT20
        >>> data = SkeletonDataset([torch.randn(3, t, 20, 1) for t in (5, 8)], [0, 1], KINECT20)
        >>> batch = SkeletonDataset.collate([data[0], data[1]])
        >>> batch.x.shape, batch.lengths.tolist()
        (torch.Size([2, 3, 8, 20, 1]), [5, 8])
    """

    def __init__(
        self,
        clips: Sequence[Tensor],
        labels: Sequence[int] | Tensor,
        layout: SkeletonLayout,
        *,
        classes: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        visibility: Sequence[Tensor] | None = None,
        critical: Sequence[Tensor] | None = None,
    ) -> None:
        who = "SkeletonDataset"
        require(len(clips) > 0, who, "at least one clip", "none")
        numbers = [int(label) for label in labels]
        require(len(numbers) == len(clips), who, f"{len(clips)} labels, one a clip", len(numbers))
        self.classes = tuple(classes) if classes is not None else tuple(str(i) for i in range(max(numbers) + 1))
        self.names = tuple(names) if names is not None else tuple(str(i) for i in range(len(clips)))
        for what, values in (
            ("names", self.names),
            ("visibility", visibility),
            ("critical", critical),
        ):
            require(
                values is None or len(values) == len(clips), who, f"{len(clips)} {what}, one a clip", len(values or ())
            )
        outside = sorted({label for label in numbers if not 0 <= label < len(self.classes)})
        require(not outside, who, f"labels in 0..{len(self.classes) - 1}", outside)
        channels, persons = clips[0].shape[0], clips[0].shape[-1]
        for i, x in enumerate(clips):
            check_shape(who, f"clip {self.names[i]!r}", x, f"C={channels}, T, V={layout.num_joints}, M={persons}")
            require(x.shape[1] > 0, who, f"clip {self.names[i]!r} to hold frames", "none")
            require(bool(torch.isfinite(x).all()), who, f"clip {self.names[i]!r} to be finite", "NaN or infinity",
                    "set missing joints to 0 and their visibility to 0")  # fmt: skip
        self.clips, self.labels, self.layout = list(clips), numbers, layout
        self.visibility = [torch.ones_like(x[0]) for x in clips] if visibility is None else list(visibility)
        self.critical = [torch.zeros_like(x[0]).permute(2, 0, 1) for x in clips] if critical is None else list(critical)
        for name, x, seen, truth in zip(self.names, clips, self.visibility, self.critical, strict=True):
            _, t, v, m = x.shape
            check_shape(who, f"visibility of clip {name!r}", seen, f"T={t}, V={v}, M={m}")
            check_shape(who, f"critical of clip {name!r}", truth, f"M={m}, T={t}, V={v}")

    @classmethod
    def from_batch(
        cls, batch: Batch, layout: SkeletonLayout, *, classes: Sequence[str] | None = None
    ) -> SkeletonDataset:
        """A data set of a batch's clips, as :meth:`SyntheticActions.generate` returns them.

        >>> from skeleton_focus import NTU25, SyntheticActions
        >>> len(SkeletonDataset.from_batch(SyntheticActions(frames=16).generate(3, seed=0), NTU25))
        3
        """
        cut = [int(t) for t in batch.lengths]
        return cls(
            [x[:, :t] for x, t in zip(batch.x, cut, strict=True)],
            batch.label,
            layout,
            classes=classes,
            visibility=[seen[:t] for seen, t in zip(batch.visibility, cut, strict=True)],
            critical=[truth[:, :t] for truth, t in zip(batch.critical, cut, strict=True)],
        )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        return Clip(self.clips[index], self.labels[index], self.visibility[index], self.critical[index])

    @staticmethod
    def collate(clips: Sequence[Clip]) -> Batch:
        """Pad clips to one batch: the ``collate_fn`` of a DataLoader."""
        require(len(clips) > 0, "SkeletonDataset.collate", "at least one clip", "none")
        lengths = torch.tensor([clip.x.shape[1] for clip in clips])
        c, _, v, m = clips[0].x.shape
        x = clips[0].x.new_zeros(len(clips), c, int(lengths.max()), v, m)
        visibility, critical = x.new_zeros(x.shape[0], *x.shape[2:]), x.new_zeros(x.shape[0], m, x.shape[2], v)
        for i, (clip, t) in enumerate(zip(clips, lengths.tolist(), strict=True)):
            x[i, :, :t], visibility[i, :t], critical[i, :, :t] = clip.x, clip.visibility, clip.critical
        return Batch(x, lengths, torch.tensor([clip.label for clip in clips]), visibility, critical)


class Split(NamedTuple):
    """The two parts of a data set."""

    train: SkeletonDataset
    test: SkeletonDataset


def open_dataset(path: str | Path) -> Split:
    """Open a folder of clips with the split its publishers use.

    Known so far: Northwestern-UCLA as JSON files (``aAA_sSS_eEE_vVV.json``, in the folder itself or in its
    ``all_sqe``); views 1 and 2 train, view 3 tests.

    Raises:
        ValueError: no such folder, a folder that holds no known clips, or a split with an empty side.
        FormatError: a file that is not what its name says.

    Example:
        >>> open_dataset("no/such/folder")
        Traceback (most recent call last):
            ...
        ValueError: open_dataset: expected a folder of clips, got no/such/folder, which does not exist
    """
    folder = Path(path)
    if not folder.is_dir():
        got = f"{folder}, which " + ("is a file" if folder.exists() else "does not exist")
        raise ValueError(message("open_dataset", "a folder of clips", got))
    inner = folder / "all_sqe"
    files = sorted((inner if inner.is_dir() else folder).glob("*.json"))
    require(bool(files), "open_dataset", "NW-UCLA clips aAA_sSS_eEE_vVV.json", f"{folder}, which holds no .json file")
    clips = [read_nw_ucla(file) for file in files]
    strange = sorted({clip.view for clip in clips} - {1, 2, 3})
    require(not strange, "open_dataset", "NW-UCLA clips of views 1 to 3", f"views {strange} too")
    parts = []
    for what, views in (("training views 1 and 2", (1, 2)), ("test view 3", (3,))):
        chosen = [clip for clip in clips if clip.view in views]
        require(bool(chosen), "open_dataset", f"clips of {what}", f"none in {folder}")
        parts.append(
            SkeletonDataset(
                [torch.from_numpy(clip.x) for clip in chosen],
                [clip.label for clip in chosen],
                KINECT20,
                classes=list(NW_UCLA_ACTIONS.values()),
                names=[clip.name for clip in chosen],
            )
        )
    return Split(*parts)
