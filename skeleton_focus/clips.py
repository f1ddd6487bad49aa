"""Hold clips, in memory or mapped from a file, and batch them for a training step."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from ._checks import check_shape, message
from ._packed import MappedClips
from .format_clips import write_clips
from .formats import MOST_CLASSES, short
from .layouts import SkeletonLayout
from .preparation import convert_layout

__all__ = ["Batch", "Clip", "SkeletonDataset", "Split"]

UNKNOWN = -1
"""The label of a clip whose class is unknown."""

_PER_CLIP = ("clips", "visibility", "critical")  # attributes that hold one entry per clip


class Clip(NamedTuple):
    """One clip.

    Attributes:
        x: (C, T, V, M) joint positions, float32.
        label: class index, -1 if it is unknown.
        visibility: (T, V, M), 0 where a joint is missing, otherwise 1 or a confidence.
        critical: (M, T, V), ground truth: 1 where a joint and frame determine the class; zeros if
            it is unknown.
    """

    x: Tensor
    label: int
    visibility: Tensor
    critical: Tensor


class Batch(NamedTuple):
    """Clips padded with zeros to the longest clip of the batch.

    Attributes:
        x: (N, C, T, V, M) joint positions.
        lengths: (N,) true number of frames.
        label: (N,) class indices, -1 where unknown.
        visibility: (N, T, V, M), 0 where a joint is missing or padding, otherwise 1 or a
            confidence.
        critical: (N, M, T, V), ground truth: 1 where a joint and frame determine the class; zeros
            if it is unknown.
    """

    x: Tensor
    lengths: Tensor
    label: Tensor
    visibility: Tensor
    critical: Tensor


class SkeletonDataset(Dataset[Clip]):
    """A data set of clips of one skeleton, each with its own number of frames.

    Args:
        clips: arrays or tensors (C, T, V, M), or one (N, C, T, V, M); C, V and M are the same for
            all. An array mapped read-only, ``np.load(..., mmap_mode="r")``, is not loaded: each
            clip is copied and checked when it is read. Other floating-point types, such as float64
            and float16, are converted to float32, mapped arrays when a clip is read.
        labels: class indices, one for each clip, -1 where the class is unknown; None: all unknown.
        layout: the skeleton.
        classes: class names; by default ``"0"``, ``"1"``, ...
        names: clip names; by default their numbers.
        subjects: the number of each clip's performer; by default 0, unknown.
        visibility: (T, V, M) for each clip: 0 where a joint is missing, otherwise 1 or a
            confidence; by default ones.
        critical: (M, T, V) for each clip, by default zeros.
        origin: a name of the data, for :meth:`heading`.
        layout_assumed: whether the layout was guessed from the number of joints.

    Raises:
        ValueError: no clips, or clips, labels and layout that do not match. If the axes seem to be
            in another order, such as (M, T, V, C), the error gives the call that reorders them.

    Example:
        >>> from skeleton_focus import KINECT20
        >>> data = SkeletonDataset([torch.randn(3, t, 20, 1) for t in (5, 8)], [0, 1], KINECT20)
        >>> batch = SkeletonDataset.collate([data[0], data[1]])
        >>> batch.x.shape, batch.lengths.tolist()
        (torch.Size([2, 3, 8, 20, 1]), [5, 8])
    """

    def __init__(
        self,
        clips: Sequence[Tensor | NDArray[Any]] | Tensor | NDArray[Any],
        labels: Sequence[int] | Tensor | NDArray[Any] | None,
        layout: SkeletonLayout,
        *,
        classes: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        subjects: Sequence[int] | None = None,
        visibility: Sequence[Tensor | NDArray[Any]] | None = None,
        critical: Sequence[Tensor | NDArray[Any]] | None = None,
        origin: str = "clips",
        layout_assumed: bool = False,
    ) -> None:
        who = "SkeletonDataset"
        if not isinstance(layout, SkeletonLayout):
            raise ValueError(message(who, "a SkeletonLayout", type(layout).__name__))
        if len(clips) == 0:
            raise ValueError(message(who, "at least one clip", "none"))
        if labels is None:
            labels = [UNKNOWN] * len(clips)
        if len(labels) != len(clips):
            raise ValueError(message(who, f"{len(clips)} labels, one for each clip", len(labels)))
        numbers = [_label(label) for label in labels]
        for what, given in (("classes", classes), ("names", names)):
            if given is not None and (isinstance(given, str) or len({*given}) != len(given)):
                raise ValueError(message(who, f"{what} without duplicates", short(given)))
        if classes is None:
            classes = [str(i) for i in range(max(numbers) + 1)]
        self.classes = tuple(classes)
        self.names = tuple(names) if names is not None else tuple(str(i) for i in range(len(clips)))
        self.subjects = tuple(subjects) if subjects is not None else (0,) * len(clips)
        for what, values in (
            ("names", self.names),
            ("subjects", self.subjects),
            ("visibility", visibility),
            ("critical", critical),
        ):
            count = len(clips) if values is None else len(values)
            if count != len(clips):
                raise ValueError(message(who, f"{len(clips)} {what}, one for each clip", count))
        known = {*range(len(self.classes)), UNKNOWN}
        outside = sorted({*numbers} - known)
        if outside:
            expected = f"labels in 0..{len(self.classes) - 1}, or -1"
            raise ValueError(message(who, expected, outside))
        self.clips = _tensors(clips)
        self.visibility = _tensors(visibility)
        self.critical = _tensors(critical)
        self.labels = numbers
        self.layout = layout
        self.origin = origin
        self.layout_assumed = layout_assumed
        self._stored_layout = layout
        self._added_persons = 0
        self._one_array = isinstance(clips, Tensor | np.ndarray)
        # The readers check clips that open_dataset opens. The user's own mapped array may be larger
        # than memory, so its clips are checked when they are read; all others are checked now.
        self._check_when_read = isinstance(clips, np.memmap) and isinstance(self.clips, MappedClips)
        if self._check_when_read:
            self._check(0, _single(self.clips[0]))
        elif isinstance(self.clips, list):
            for i, x in enumerate(self.clips):
                self._check(i, x)

    def _check(self, index: int, x: Tensor) -> None:
        """Raise for a stored clip that is not finite, or misfits the layout or the first clip."""
        who = "SkeletonDataset"
        name = self.names[index]
        # C and M are those of the first clip. All clips of a mapped array have the same shape, so
        # its first clip is not read again for each check.
        first = x if self._check_when_read else self.clips[0]
        channels = "C"
        persons = "M"
        # If the first clip is no (C, T, V, M) itself, its own check below says so.
        if isinstance(first, Tensor) and first.ndim == 4:
            channels = f"C={first.shape[0]}"
            persons = f"M={first.shape[3]}"
        joints = self._stored_layout.num_joints
        axes = f"{channels}, T, V={joints}, {persons}"
        order = _order(x, joints)
        hint = "" if order is None else _reordering(order, joints, self._one_array)
        check_shape(who, f"clip {name!r}", x, axes, hint)
        if order is not None:
            got = f"{tuple(x.shape)}, which seems to be ({', '.join(order.upper().split())})"
            raise ValueError(message(who, f"clip {name!r} ({axes})", got, hint))
        _, t, v, m = x.shape
        if t == 0:
            raise ValueError(message(who, f"clip {name!r} to have frames", "none"))
        if not x.is_floating_point():
            raise ValueError(message(who, f"clip {name!r} of floating-point numbers", x.dtype))
        if not torch.isfinite(x).all():
            hint = "set missing joints to 0 and their visibility to 0"
            raise ValueError(message(who, f"clip {name!r} to be finite", "NaN or infinity", hint))
        if self.visibility is not None:
            seen = self.visibility[index]
            check_shape(who, f"visibility of clip {name!r}", seen, f"T={t}, V={v}, M={m}")
            if not ((seen >= 0) & (seen <= 1)).all():
                raise ValueError(
                    message(who, f"visibility of clip {name!r} in 0..1", "other values")
                )
        if self.critical is not None:
            check_shape(
                who, f"critical of clip {name!r}", self.critical[index], f"M={m}, T={t}, V={v}"
            )

    def subset(self, index: Sequence[int]) -> SkeletonDataset:
        """Select the clips at these indices.

        >>> from skeleton_focus import KINECT20
        >>> data = SkeletonDataset(torch.ones(3, 3, 5, 20, 1), [0, 1, 0], KINECT20)
        >>> data.subset([2, 0]).names
        ('2', '0')
        """
        if len(index) == 0:
            raise ValueError(message("SkeletonDataset", "at least one index", "none"))
        # A shallow copy: the clips were checked when self was built, and are shared.
        part = copy.copy(self)
        part.labels = [self.labels[i] for i in index]
        part.names = tuple(self.names[i] for i in index)
        part.subjects = tuple(self.subjects[i] for i in index)
        part.clips = _select(self.clips, index)
        part.visibility = _select(self.visibility, index)
        part.critical = _select(self.critical, index)
        return part

    def with_persons(self, persons: int) -> SkeletonDataset:
        """Return the same clips with M = ``persons``.

        Added persons are absent: zeros with visibility 0. A network that was trained on clips of
        two persons takes the mean over both, so it needs M = 2 even if only one person is present.
        With fewer persons than before, the first ones are kept, which the readers of detected
        people sort by their importance; a later call with more persons brings the others back.

        >>> from skeleton_focus import KINECT20
        >>> alone = SkeletonDataset(torch.ones(3, 3, 5, 20, 1), [0, 1, 0], KINECT20)
        >>> clip = alone.with_persons(2)[0]
        >>> clip.x.shape, clip.visibility[0, 0].tolist()
        (torch.Size([3, 5, 20, 2]), [1.0, 0.0])
        """
        if persons < 1:
            raise ValueError(
                message("SkeletonDataset.with_persons", "at least one person", persons)
            )
        changed = copy.copy(self)
        changed._added_persons = self._added_persons + persons - self[0].x.shape[3]
        return changed

    def with_layout(self, layout: SkeletonLayout) -> SkeletonDataset:
        """Return the same clips with the joints of another skeleton, by :func:`convert_layout`.

        Joints that the clips do not have are missing: zeros with visibility 0.

        >>> from skeleton_focus import COCO17, KINECT20
        >>> data = SkeletonDataset(torch.rand(1, 2, 5, 17, 1), [0], COCO17).with_layout(KINECT20)
        >>> clip = data[0]
        >>> clip.x.shape, int(clip.visibility[0].sum())
        (torch.Size([2, 5, 20, 1]), 16)
        """
        if layout == self.layout:
            return self
        changed = copy.copy(self)
        changed.layout = layout
        changed.layout_assumed = False
        changed[0]  # raises now for skeletons without a common joint
        return changed

    @classmethod
    def from_batch(
        cls, batch: Batch, layout: SkeletonLayout, *, classes: Sequence[str] | None = None
    ) -> SkeletonDataset:
        """Make a data set from a batch, such as one of :meth:`SyntheticActions.generate`.

        >>> from skeleton_focus import NTU25, SyntheticActions
        >>> len(SkeletonDataset.from_batch(SyntheticActions(frames=16).generate(3, seed=0), NTU25))
        3
        """
        # Without the padding: T of a clip is its true length.
        cut = [int(t) for t in batch.lengths]
        return cls(
            [x[:, :t] for x, t in zip(batch.x, cut, strict=True)],
            batch.label,
            layout,
            classes=classes,
            visibility=[seen[:t] for seen, t in zip(batch.visibility, cut, strict=True)],
            critical=[truth[:, :t] for truth, t in zip(batch.critical, cut, strict=True)],
        )

    def save(self, path: str | Path, *, splits: Mapping[str, Sequence[str]] | None = None) -> None:
        """Write the clips to one ``.npz`` that :func:`open_dataset` reads.

        It holds the joints of all frames, labels, names, subjects, visibility, layout and classes,
        but no ground truth. The clips are written one by one. The file replaces an older one when
        it is complete.

        Args:
            path: the file; its folder is created.
            splits: for each split its name, and "train", "test" or "" for each clip.

        Raises:
            ValueError: a path that does not end in .npz, or a split that does not match the clips.
            OSError: a file that cannot be written.

        Example:
            >>> import tempfile
            >>> from skeleton_focus import COCO17, open_dataset
            >>> path = Path(tempfile.mkdtemp()) / "mine.npz"
            >>> clips = [torch.rand(2, t, 17, 1) for t in (5, 8)]
            >>> data = SkeletonDataset(clips, [0, 1], COCO17, classes=["run", "wave"])
            >>> data.save(path, splits={"mine": ["train", "test"]})
            >>> open_dataset(path, cache=False).test
            SkeletonDataset(clips, 1 clips, 2 classes, COCO17)
        """
        for name, sides in (splits or {}).items():
            if len(sides) != len(self) or not {*sides} <= {"train", "test", ""}:
                expected = f"'train', 'test' or '' for each of {len(self)} clips in split {name!r}"
                raise ValueError(message("SkeletonDataset.save", expected, short([*sides])))
        _save(path, [self], self.names, splits or {})

    def __iter__(self) -> Iterator[Clip]:
        return (self[i] for i in range(len(self)))

    def __copy__(self) -> SkeletonDataset:
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        return new

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes that are not forked get a list of clips as arrays, a copy for each
        # worker: PyTorch passes each tensor by a file descriptor of its own, of which a process
        # may have a few hundred.
        state = dict(vars(self))
        for name in _PER_CLIP:
            if isinstance(state[name], list):
                state[name] = [
                    x.numpy() if x.is_cpu and not x.requires_grad else x for x in state[name]
                ]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for name in _PER_CLIP:
            if isinstance(state[name], list):
                setattr(self, name, _tensors(state[name]))

    def __repr__(self) -> str:
        sizes = f"{len(self)} clips, {len(self.classes)} classes"
        return f"SkeletonDataset({self.origin}, {sizes}, {self.layout.name})"

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        x = _single(self.clips[index])
        if self._check_when_read:
            self._check(index, x)
        if self.visibility is None:
            visibility = torch.ones_like(x[0])
        else:
            visibility = _single(self.visibility[index])
        if self.critical is None:
            critical = x.new_zeros(x.shape[3], *x.shape[1:3])  # (M, T, V)
        else:
            critical = _single(self.critical[index])
        if self.layout != self._stored_layout:
            x, visibility, critical = self._converted(x, visibility, critical)
        if self._added_persons:  # below 0 to leave out the last persons
            x = F.pad(x, (0, self._added_persons))
            visibility = F.pad(visibility, (0, self._added_persons))
            # F.pad lists the last axis first; the persons of critical (M, T, V) are the first axis.
            critical = F.pad(critical, (0, 0, 0, 0, 0, self._added_persons))
        return Clip(x, self.labels[index], visibility, critical)

    def _converted(
        self, x: Tensor, visibility: Tensor, critical: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Convert one clip from the stored skeleton to the layout."""

        def convert(positions: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
            both = convert_layout(
                positions[None], self._stored_layout, self.layout, visibility=seen[None]
            )
            return both[0][0], both[1][0]

        # A joint is critical if one of those that it is made of is.
        truth, _ = convert(critical.permute(1, 2, 0)[None], torch.ones_like(visibility))
        x, visibility = convert(x, visibility)
        return x, visibility, (truth[0] > 0).to(x.dtype).permute(2, 0, 1)

    def heading(self) -> str:
        """Describe what is common to all clips: origin, skeleton, channels, persons.

        >>> from skeleton_focus import KINECT20
        >>> x = torch.ones(3, 3, 5, 20, 1)
        >>> SkeletonDataset(x, [0, 1, 0], KINECT20, origin="my own").heading()
        'my own: KINECT20, 20 joints, C=3 channels, M=1 body'
        """
        channels, _, joints, persons = self[0].x.shape
        bodies = "body" if persons == 1 else "bodies"
        return (
            f"{self.origin}: {self.layout.name}, {joints} joints, "
            f"C={channels} channels, M={persons} {bodies}"
        )

    def describe(self) -> str:
        """Describe the clips: their number, classes, lengths, bodies and missing joints.

        This reads every clip.

        >>> from skeleton_focus import KINECT20
        >>> clips = [torch.ones(3, t, 20, 1) for t in (5, 8, 5)]
        >>> data = SkeletonDataset(clips, [0, 1, 0], KINECT20)
        >>> print(data.describe())
        3 clips of 2 classes, 1 to 2 a class
        frames: 5 to 8, median 5
        bodies: 1 in 100.0 % of the clips
        missing joints of present bodies: 0.0 %
        """
        of_label = Counter(self.labels)
        counts = [of_label[label] for label in range(len(self.classes))]
        frames = []
        bodies = []
        missing = 0
        expected = 0
        for clip in self:  # with the layout and the persons of __getitem__
            seen = clip.visibility.numpy()  # (T, V, M)
            joints = np.count_nonzero(seen > 0, axis=1)  # (T, M)
            frames.append(len(joints))
            bodies.append(np.count_nonzero(joints.any(0)))
            # A body without any joint in a frame is absent there; its joints are not missing.
            joints_of_present = np.count_nonzero(joints) * seen.shape[1]
            expected += joints_of_present
            missing += joints_of_present - int(joints.sum())
        shares = ", ".join(
            f"{m} in {100 * bodies.count(m) / len(bodies):.1f} %" for m in sorted({*bodies})
        )
        clips = "clip" if len(self) == 1 else "clips"
        classes = (
            f" of {len(counts)} classes, {min(counts)} to {max(counts)} a class" if counts else ""
        )
        empty = [name for name, n in zip(self.classes, counts, strict=True) if not n]
        if empty and any(counts):
            classes += f", none of {', '.join(map(repr, empty[:3]))}"
            classes += " ..." if len(empty) > 3 else ""
        if of_label[UNKNOWN]:
            classes += f", {of_label[UNKNOWN]} without a label"
        return (
            f"{len(self)} {clips}{classes}\n"
            f"frames: {min(frames)} to {max(frames)}, median {median(frames):g}\n"
            f"bodies: {shares} of the clips\n"
            f"missing joints of present bodies: {100 * missing / max(expected, 1):.1f} %"
        )

    @staticmethod
    def collate(clips: Sequence[Clip]) -> Batch:
        """Pad clips to one batch; use it as the ``collate_fn`` of a DataLoader."""
        if len(clips) == 0:
            raise ValueError(message("SkeletonDataset.collate", "at least one clip", "none"))
        lengths = torch.tensor([clip.x.shape[1] for clip in clips])
        c, _, v, m = clips[0].x.shape
        x = clips[0].x.new_zeros(len(clips), c, int(lengths.max()), v, m)
        visibility = x.new_zeros(x.shape[0], *x.shape[2:])
        critical = x.new_zeros(x.shape[0], m, x.shape[2], v)
        for i, (clip, t) in enumerate(zip(clips, lengths.tolist(), strict=True)):
            x[i, :, :t] = clip.x
            visibility[i, :t] = clip.visibility
            critical[i, :, :t] = clip.critical
        return Batch(x, lengths, torch.tensor([clip.label for clip in clips]), visibility, critical)


class Split(NamedTuple):
    """The two parts of a data set."""

    train: SkeletonDataset
    test: SkeletonDataset

    def save(self, path: str | Path) -> None:
        """Write both parts to one file by :meth:`SkeletonDataset.save`, as the split "given".

        Raises:
            ValueError: parts of other classes, layouts, channels or numbers of persons.
        """
        names = [*self.train.names, *self.test.names]
        if len({*names}) < len(names):  # as in parts that number their clips from 0
            names = [f"train_{name}" for name in self.train.names]
            names += [f"test_{name}" for name in self.test.names]
        sides = ["train"] * len(self.train) + ["test"] * len(self.test)
        _save(path, [self.train, self.test], names, {"given": sides})

    def describe(self) -> str:
        """Describe both parts: one heading, then :meth:`SkeletonDataset.describe` of each.

        >>> from skeleton_focus import KINECT20
        >>> data = SkeletonDataset([torch.ones(3, 5, 20, 1)], [0], KINECT20, origin="two clips")
        >>> print(Split(data, data).describe().splitlines()[0])
        two clips: KINECT20, 20 joints, C=3 channels, M=1 body
        """
        lines = [self.train.heading()]
        for side, part in (("training", self.train), ("test", self.test)):
            first, *rest = part.describe().splitlines()
            lines += [f"{side}: {first}", *(f"  {line}" for line in rest)]
        return "\n".join(lines)


def _save(
    path: str | Path,
    parts: Sequence[SkeletonDataset],
    names: Sequence[str],
    splits: Mapping[str, Sequence[str]],
) -> None:
    """Write the clips of data sets with the same layout, classes, channels and persons."""
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(message("save", "a path that ends in .npz", path))
    channels, _, joints, persons = parts[0][0].x.shape
    for part in parts[1:]:
        c, _, _, m = part[0].x.shape
        if part.classes != parts[0].classes:
            expected = f"parts of the same classes {short(parts[0].classes)}"
            raise ValueError(message("save", expected, short(part.classes)))
        if part.layout != parts[0].layout:
            expected = f"parts of the same layout {parts[0].layout.name}"
            raise ValueError(message("save", expected, part.layout.name))
        if (c, m) != (channels, persons):
            expected = f"parts of C={channels} channels and M={persons} persons"
            raise ValueError(message("save", expected, f"C={c} and M={m}"))
    lengths = [clip.x.shape[1] for part in parts for clip in part]
    shape = (sum(lengths), persons, joints)

    def positions() -> Iterator[NDArray[Any]]:
        return (clip.x.permute(1, 3, 2, 0).numpy() for part in parts for clip in part)

    def visibility() -> Iterator[NDArray[Any]]:
        return (clip.visibility.transpose(1, 2).numpy() for part in parts for clip in part)

    path.parent.mkdir(parents=True, exist_ok=True)
    members = {
        "lengths": np.array(lengths),
        "label": np.array([label for part in parts for label in part.labels]),
        "name": np.array(names, np.str_),
        "subject": np.array([subject for part in parts for subject in part.subjects]),
        "layout": np.array(json.dumps(parts[0].layout.to_dict())),
        **{f"split_{name}": np.array(sides, np.str_) for name, sides in splits.items()},
    }
    if parts[0].classes:
        members["classes"] = np.array(parts[0].classes, np.str_)
    large = {"x": ((*shape, channels), positions), "visibility": (shape, visibility)}
    write_clips(path, members, large)


def _label(label: Any) -> int:
    """Convert a class index to a Python integer."""
    value = label
    if isinstance(label, np.generic | np.ndarray | Tensor) and label.ndim == 0:
        value = label.item()
    # Negative labels pass here: all labels outside the classes are reported together.
    if type(value) is not int or value >= MOST_CLASSES:
        raise ValueError(
            message("SkeletonDataset", f"integer labels in 0..{MOST_CLASSES - 1}", short(value))
        )
    return int(value)


def _order(x: Any, joints: int) -> str | None:
    """The axes of a clip in another order than "c t v m", such as "m t v c"; None if unknown.

    A clip that could be (C, T, V, M) is only taken for another one if its C cannot be: 1, with M of
    2 or 3; more than 16, the channels of five streams; or 2, with M = 3 and a channel of zeros,
    which is an absent person.
    """
    shape = tuple(x.shape) if isinstance(x, Tensor) else ()
    if len(shape) == 4 and shape[2] == joints:
        channels, _, _, persons = shape
        if persons not in (2, 3):
            return None
        if channels > 16:
            return "t m v c"
        if channels == 1 or (shape[0::3] == (2, 3) and not x.flatten(1).any(1).all()):
            return "m t v c"
        return None
    for order in _ORDERS:
        axes = order.split()
        if len(axes) == len(shape):
            sizes = dict(zip(axes, shape, strict=True))
            if sizes["v"] == joints and sizes["c"] in (2, 3):
                return order
    flat = len(shape) == 2 and shape[1] in (2 * joints, 3 * joints)
    return "t (v c)" if flat else None


_ORDERS = ("t v c m", "t v m c", "c t m v", "m c t v", "t v c", "c t v")


def _reordering(order: str, joints: int, one_array: bool) -> str:
    """The call that brings a clip, or an array of clips, from this order to (C, T, V, M)."""
    target = "c t v m" if "m" in order else "c t v 1"
    sizes = f", v={joints}" if "(" in order else ""
    if one_array:
        return f"x = einops.rearrange(x, 'n {order} -> n {target}'{sizes}) permutes the axes"
    return f"clip = einops.rearrange(clip, '{order} -> {target}'{sizes}) permutes its axes"


def _tensors(values: Any) -> Any:
    """Convert clips to a list of tensors; return None and mapped clips unchanged."""
    if values is None or isinstance(values, MappedClips | Subset | ConcatDataset):
        return values
    if isinstance(values, np.memmap) and not values.flags.writeable:
        return MappedClips(values)
    tensors = []
    for value in values:
        if isinstance(value, np.ndarray):
            # torch warns about arrays that are not writeable, because a tensor cannot be read-only.
            native = value.dtype.newbyteorder("=")
            value = torch.from_numpy(value.astype(native, copy=not value.flags.writeable))
        tensors.append(_single(value))
    return tensors


def _single(value: Any) -> Any:
    """Convert floating-point numbers to float32, the type of a network's weights."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.float()
    return value


def _select(values: Any, index: Sequence[int]) -> Any:
    """Select clips from what :func:`_tensors` returned; mapped clips are not read."""
    if isinstance(values, list):
        return [values[i] for i in index]
    if values is None:
        return None
    return Subset(values, index)
