"""Augment clips at random: rotation, scale, shear, mirroring, hidden joints, sampled frames.

``Augment`` draws the parameters for each clip. The functions take batches x (N, C, T, V, M) and
parameters for each clip, run on x's device and return a new tensor. Positions must be centred, for
example by :func:`~skeleton_focus.preparation.center`; joints that were not seen stay at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from ._checks import check_choice, check_shape, message
from .clips import Batch
from .layouts import SkeletonLayout
from .preparation import normalize_box, resample_frames

__all__ = ["Augment", "drop_joints", "flip", "rotate", "scale", "seeded_generator", "shear"]

ORDERS = ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx")  # of rotations about the axes
SAMPLINGS = ("interpolate", "random")
MASKED = {"mask_joints": (0.2, 0.6), "mask_frames": (0.25, 0.5)}  # SkateFormer's shares


def seeded_generator(seed: int, *, epoch: int, step: int, rank: int = 0) -> torch.Generator:
    """Make a random generator seeded by the state of training: epoch, step, process and worker.

    The same arguments give the same numbers, so that a resumed run draws the same numbers as an
    uninterrupted one. In a DataLoader worker, the worker's id is also used. A persistent worker
    keeps its copy of the ``collate_fn``: pass it the epoch by a tensor in shared memory.

    ``step`` has no default: without it, all batches of an epoch, or all clips if it is called in a
    data set's ``__getitem__``, would be augmented alike.

    Args:
        seed: seed of the run, at least 0.
        epoch: at least 0.
        step: the batch's number within the epoch, or, in ``__getitem__``, the clip's index; at
            least 0. 0 for a generator that is kept for the whole epoch.
        rank: rank of the process in distributed training, at least 0.

    Raises:
        ValueError: a negative number.

    Example:
        >>> def numbers(epoch):
        ...     random = seeded_generator(1, epoch=epoch, step=17)
        ...     return torch.randint(100, (3,), generator=random).tolist()
        >>> numbers(0) == numbers(0), numbers(0) == numbers(1)
        (True, False)
    """
    numbers = {"seed": seed, "epoch": epoch, "step": step, "rank": rank}
    if min(numbers.values()) < 0:
        raise ValueError(message("seeded_generator", "numbers of at least 0", numbers))
    worker = get_worker_info()
    # 0 is the main process, so that it draws other numbers than worker 0. SeedSequence mixes the
    # parts; a sum of them would repeat across epochs and ranks.
    sequence = np.random.SeedSequence([*numbers.values(), 0 if worker is None else worker.id + 1])
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


def rotate(x: Tensor, angles: Tensor, *, order: str = "xyz") -> Tensor:
    """Rotate each clip about the origin, about one axis after another; in 2D, about z only.

    Shape:
        x (N, C=3, T, V, M), angles (N, 3) in radians -> (N, 3, T, V, M); or
        x (N, C=2, T, V, M), angles (N, 1) in radians -> (N, 2, T, V, M).

    Args:
        x: positions.
        angles: angles about x, y and z, in this order.
        order: the axes in the order in which the rotations act. The axes do not turn with the
            clip.

    Raises:
        ValueError: mismatched shapes, or an order that does not name each axis once.

    Example:
        >>> quarter = torch.tensor([[0.0, 0.0, torch.pi / 2]])
        >>> x = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1, 1)
        >>> rotate(x, quarter).flatten().round().abs()
        tensor([0., 1., 0.])
    """
    check_choice("rotate", "order", order, ORDERS)
    flat = isinstance(angles, Tensor) and angles.dim() == 2 and angles.shape[1] == 1
    size = 2 if flat else 3
    check_shape("rotate", "x", x, f"N, C={size}, T, V, M")
    check_shape("rotate", "angles", angles, f"N={len(x)}, axes={1 if flat else 3}")
    turn = torch.eye(size, dtype=x.dtype, device=x.device).expand(len(x), size, size)
    for axis in [2] if flat else ["xyz".index(name) for name in order]:
        angle = angles[:, 0 if flat else axis]
        i, j = [k for k in range(3) if k != axis]
        # (i, j) of axis y is (x, z), which runs against the cycle x, y, z.
        sign = -1 if axis == 1 else 1
        cos = angle.cos()
        sin = sign * angle.sin()
        about = torch.eye(size, dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
        about[:, i, i] = cos
        about[:, i, j] = -sin
        about[:, j, i] = sin
        about[:, j, j] = cos
        # From the left, so that the rotation about the first axis acts first.
        turn = about @ turn
    return torch.einsum("nij,njtvm->nitvm", turn, x)


def scale(x: Tensor, factors: Tensor) -> Tensor:
    """Scale each clip about the origin by the same factor along all axes.

    Shape:
        x (N, C, T, V, M), factors (N,) -> the same as x.

    Example:
        >>> scale(torch.ones(2, 3, 1, 1, 1), torch.tensor([0.5, 2.0]))[:, :, 0, 0, 0].tolist()
        [[0.5, 0.5, 0.5], [2.0, 2.0, 2.0]]
    """
    check_shape("scale", "x", x, "N, C, T, V, M")
    check_shape("scale", "factors", factors, f"N={len(x)}")
    return x * factors[:, None, None, None, None]


def shear(x: Tensor, factors: Tensor) -> Tensor:
    r"""Shear each clip: :math:`x'_i = x_i + \sum_{j \ne i} s_{ij} x_j`.

    Shape:
        x (N, C, T, V, M), factors (N, C, C - 1) -> the same as x.

    Args:
        x: positions.
        factors: s; row i holds the factors of the other axes, in order, for axis i. For C = 3 the
            rows are (s_xy, s_xz), (s_yx, s_yz), (s_zx, s_zy).

    Example:
        >>> leaning = torch.tensor([[0.5], [0.0]])[None]  # x grows with y: s_xy
        >>> shear(torch.tensor([0.0, 2.0]).view(1, 2, 1, 1, 1), leaning).flatten()
        tensor([1., 2.])

    Reference:
        AS-CAL (Rao et al., Information Sciences 2021), "Shear"; CrosSCLR (Li et al., CVPR 2021).
    """
    check_shape("shear", "x", x, "N, C, T, V, M")
    n, c = x.shape[:2]
    check_shape("shear", "factors", factors, f"N={n}, C={c}, others={c - 1}")
    # Ones on the diagonal; row i takes its factors in the order of the other axes.
    slant = torch.eye(c, dtype=x.dtype, device=x.device).repeat(n, 1, 1)
    for i in range(c):
        slant[:, i, [j for j in range(c) if j != i]] = factors[:, i].to(x.dtype)
    return torch.einsum("nij,njtvm->nitvm", slant, x)


def flip(x: Tensor, layout: SkeletonLayout, which: Tensor) -> Tensor:
    """Mirror clips: negate the first channel, the left-right axis, and swap left and right joints.

    Shape:
        x (N, C, T, V, M), which (N,) -> the same as x.

    Args:
        x: positions.
        layout: the skeleton; the joints of its pairs are swapped.
        which: True for the clips to mirror.

    Raises:
        ValueError: mismatched shapes, or a layout without pairs.

    Example:
        >>> from skeleton_focus import SkeletonLayout
        >>> arms = SkeletonLayout.from_bones([(0, 1), (0, 2)], pairs=[(1, 2)])
        >>> x = torch.tensor([0.0, 1.0, -3.0]).view(1, 1, 1, 3, 1)
        >>> flip(x, arms, torch.tensor([True])).flatten()
        tensor([-0.,  3., -1.])
    """
    check_shape("flip", "x", x, f"N, C, T, V={layout.num_joints}, M")
    check_shape("flip", "which", which, f"N={len(x)}")
    if not layout.pairs:
        hint = "pass them to SkeletonLayout.from_bones as pairs"
        raise ValueError(
            message("flip", "a layout with left and right pairs", repr(layout.name), hint)
        )
    mirrored = x[:, :, :, list(layout.mirror)]
    mirrored = torch.cat([-mirrored[:, :1], mirrored[:, 1:]], dim=1)
    return torch.where(which.bool()[:, None, None, None, None], mirrored, x)


def drop_joints(x: Tensor, which: Tensor) -> Tensor:
    """Set joints to 0 in the whole clip.

    For a visibility (N, T, V, M), add a channel axis: ``drop_joints(visibility[:, None], which)[:,
    0]``.

    Shape:
        x (N, C, T, V, M), which (N, V, M), True for the joints to drop -> the same as x.

    Example:
        >>> middle = torch.tensor([[[False], [True], [False]]])
        >>> drop_joints(torch.ones(1, 1, 2, 3, 1), middle).flatten()
        tensor([1., 0., 1., 1., 0., 1.])
    """
    check_shape("drop_joints", "x", x, "N, C, T, V, M")
    n, _, _, v, m = x.shape
    check_shape("drop_joints", "which", which, f"N={n}, V={v}, M={m}")
    return x.masked_fill(which.bool()[:, None, None], 0)


class Augment(nn.Module):
    """Augment each clip of a batch at random; by default, nothing is changed.

    The order is :func:`flip`, :func:`scale`, :func:`rotate`, :func:`shear`, :func:`drop_joints`,
    :func:`~skeleton_focus.preparation.normalize_box`, then resampling of a span of the clip with
    varying speed by :func:`~skeleton_focus.preparation.resample_frames`, then axis dropout and
    masking. Visibility and ground truth are transformed with the positions. Positions are not
    interpolated between a missing and a seen frame of a joint: there the joint is missing. Where it
    was seen, the visibility is interpolated, so it stays a confidence; the ground truth is that of
    the nearest frame.

    Parameters are drawn on the CPU, so that they do not depend on the device: first those of
    rotation, scale and span, always, then those of the other options in use, in the order of the
    arguments. Computation runs on the batch's device in float32, even under autocast, or in float64
    if x is float64.

    Shape:
        a :class:`~skeleton_focus.clips.Batch` with x (N, C, T, V, M) and a CPU generator -> a batch
        with x (N, C, frames, V, M) and all lengths ``frames``. Without a generator, as for testing,
        clips or their middle parts (``test_crop``) are only normalised (``box``) and resampled to
        ``frames``.

    Args:
        layout: the skeleton.
        rotation: largest angles about x, y and z, 0 to 180 degrees; for C = 2, those about x and y
            must be 0.
        rotation_order: order in which they act; CTR-GCN's code for NW-UCLA, where y points up, has
            ``"yxz"``: the body turns about the vertical, then the view tilts.
        scale: factors lie in 1 - scale to 1 + scale, 0 <= scale < 1.
        crop: smallest fraction of a clip that is kept, 0 < crop <= 1. Frames before the first and
            after the last in which anybody was seen are part of a clip, but of the frames between
            these two the same fraction is kept, too: a span with fewer of them is moved, and a span
            in which nobody was seen is replaced by the whole clip.
        shear: largest factor, 0 <= shear <= 1.
        flip: probability of mirroring, 0 to 1.
        joint_dropout: probability that a joint of a person is dropped, 0 <= p < 1.
        speed: largest warp, 0 <= speed < 1: a clip starts at (1 + w) times its speed and ends at
            (1 - w) times, w in [-speed, speed].
        axis_dropout: probability that all positions of one axis, drawn at random, become 0.
            Visibility stays, because the joints are still seen, in a projection.
        mask: probability that joints are masked in some of the frames of a clip, the same joints of
            all persons in the same frames. Like a dropped joint, a masked one has position and
            visibility 0, so that a network which gets the visibility can tell it from a joint at
            the origin.
        mask_joints: smallest and largest share of the joints that are masked; SkateFormer's 4 to 12
            of 20.
        mask_frames: smallest and largest share of the frames that are masked; SkateFormer's 16 to
            32 of 64.
        box: if True, scale each clip and each axis to [-1, 1], in testing, too.
        sampling: ``"interpolate"``, or ``"random"``: draw the frames of the result from the span
            with repetition and sort them; in testing, take evenly spaced frames without
            interpolation.
        test_crop: fraction of a clip, its middle, that is kept without a generator,
            0 < test_crop <= 1; CTR-GCN's 0.95.
        frames: T of the result; None keeps the frames.

    Raises:
        ValueError: an option out of range, ``flip`` with a layout without pairs, ``crop``,
            ``speed``, ``mask``, ``sampling`` or ``test_crop`` without ``frames``; a batch with
            mismatched shapes, a generator that is not on the CPU.

    Example:
        >>> from skeleton_focus import NTU25, SyntheticActions
        >>> batch = SyntheticActions(frames=40).generate(8, seed=0)
        >>> augment = Augment(NTU25, rotation=(15, 60, 0), crop=0.7, flip=0.5, frames=32)
        >>> augment(batch, seeded_generator(1, epoch=0, step=0)).x.shape
        torch.Size([8, 3, 32, 25, 2])

    Reference:
        CTR-GCN (Chen et al., ICCV 2021) and SkateFormer (Do and Kim, ECCV 2024), their public code.
    """

    def __init__(
        self,
        layout: SkeletonLayout,
        *,
        rotation: Sequence[float] = (0.0, 0.0, 0.0),
        rotation_order: str = "xyz",
        scale: float = 0.0,
        crop: float = 1.0,
        shear: float = 0.0,
        flip: float = 0.0,
        joint_dropout: float = 0.0,
        speed: float = 0.0,
        axis_dropout: float = 0.0,
        mask: float = 0.0,
        mask_joints: tuple[float, float] = MASKED["mask_joints"],
        mask_frames: tuple[float, float] = MASKED["mask_frames"],
        box: bool = False,
        sampling: str = "interpolate",
        test_crop: float = 1.0,
        frames: int | None = None,
    ) -> None:
        super().__init__()
        who = "Augment"
        if not isinstance(rotation, Sequence):
            raise ValueError(message(who, "rotation of three angles in 0..180 degrees", rotation))
        angles = tuple(float(angle) for angle in rotation)
        if len(angles) != 3 or not all(0 <= angle <= 180 for angle in angles):
            raise ValueError(message(who, "rotation of three angles in 0..180 degrees", angles))
        for name, value in (("scale", scale), ("joint_dropout", joint_dropout), ("speed", speed)):
            if not 0 <= value < 1:
                raise ValueError(message(who, f"{name} of at least 0 and below 1", value))
        shares = {"shear": shear, "flip": flip, "axis_dropout": axis_dropout, "mask": mask}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(message(who, f"{name} in 0..1", value))
        for name, span in (("mask_joints", mask_joints), ("mask_frames", mask_frames)):
            if not (isinstance(span, Sequence) and len(span) == 2 and 0 <= span[0] <= span[1] <= 1):
                raise ValueError(message(who, f"{name} of two ascending shares in 0..1", span))
            if tuple(span) != MASKED[name] and not mask:
                raise ValueError(message(who, f"mask above 0 with {name}", mask))
        check_choice(who, "rotation_order", rotation_order, ORDERS)
        check_choice(who, "sampling", sampling, SAMPLINGS)
        for name, value in (("crop", crop), ("test_crop", test_crop)):
            if not 0 < value <= 1:
                raise ValueError(message(who, f"{name} above 0 and at most 1", value))
        if frames is not None and (type(frames) is not int or frames < 1):
            raise ValueError(message(who, "frames of at least 1", frames))
        whole = crop == test_crop == 1 and speed == mask == 0 and sampling == "interpolate"
        if frames is None and not whole:
            expected = "frames with crop, speed, mask, sampling or test_crop"
            raise ValueError(message(who, expected, "None"))
        if flip and not layout.pairs:
            raise ValueError(
                message(who, "a layout with left and right pairs for flip", repr(layout.name))
            )
        self.layout = layout
        self.rotation = angles
        self.rotation_order = rotation_order
        self.scale = scale
        self.crop = crop
        self.shear = shear
        self.flip = flip
        self.joint_dropout = joint_dropout
        self.speed = speed
        self.axis_dropout = axis_dropout
        self.mask = mask
        self.mask_joints = mask_joints
        self.mask_frames = mask_frames
        self.box = box
        self.sampling = sampling
        self.frames = frames
        self.test_crop = test_crop

    def forward(self, batch: Batch, random: torch.Generator | None) -> Batch:
        if not isinstance(batch, Batch):
            raise ValueError(
                message(
                    "Augment",
                    "a Batch, such as SkeletonDataset.collate returns",
                    type(batch).__name__,
                )
            )
        if random is not None and not isinstance(random, torch.Generator):
            raise ValueError(
                message(
                    "Augment",
                    "a torch.Generator, such as seeded_generator returns, or None",
                    type(random).__name__,
                )
            )
        self._check(batch)
        exact = torch.promote_types(batch.x.dtype, torch.float32)
        x = batch.x.to(exact)
        truth = batch.critical.permute(0, 2, 3, 1)  # (N, M, T, V) -> (N, T, V, M)
        extra = torch.stack([batch.visibility.to(exact), truth.to(exact)], dim=1)  # (N, 2, T, V, M)
        lengths = batch.lengths
        drawn = self._middle(x) if random is None else self._draw(x, random)
        if random is not None and self.crop < 1:
            seen = (batch.visibility > 0).flatten(2).any(2)  # (N, T)
            drawn |= _keep_seen(seen, lengths, self.crop, drawn["start"], drawn["stop"])
        with torch.autocast(x.device.type, enabled=False):
            if random is not None:
                x, extra = self._transform(x, extra, drawn)
            if self.box:
                x = normalize_box(x, lengths=lengths, visibility=extra[:, 0])
            if self.frames is not None:
                x, extra = _resample(
                    x,
                    extra,
                    lengths,
                    self.frames,
                    start=drawn.get("start"),
                    stop=drawn.get("stop"),
                    warp=drawn.get("warp"),
                    times=_on_frames(drawn["times"], lengths) if "times" in drawn else None,
                    interpolate=self.sampling == "interpolate",
                )
                lengths = torch.full_like(lengths, self.frames)
            if random is not None:
                x, extra = _hide(x, extra, drawn)
        visibility, truth = extra.unbind(1)
        critical = truth.permute(0, 3, 1, 2)  # (N, T, V, M) -> (N, M, T, V)
        return Batch(x, lengths, batch.label, visibility, critical)

    def _middle(self, x: Tensor) -> dict[str, Tensor]:
        """The middle span of each clip for testing; empty for the whole clip."""
        if self.test_crop == 1:
            return {}
        start = x.new_full((len(x),), (1 - self.test_crop) / 2)
        return {"start": start, "stop": 1 - start}

    def _draw(self, x: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Draw the parameters of each clip, on x's device."""
        n, c, _, v, m = x.shape
        device = random.device.type
        if device != "cpu":
            raise ValueError(
                message(
                    "Augment", "a generator on the CPU, so that every device draws the same", device
                )
            )

        def uniform(*sizes: int) -> Tensor:
            return torch.rand(n, *sizes, generator=random, device="cpu", dtype=torch.float32)

        # Drawn whether used or not: these numbers do not depend on which options are on.
        largest = torch.tensor(self.rotation, dtype=torch.float32).deg2rad()
        drawn = {"angles": (2 * uniform(3) - 1) * largest}
        drawn["sizes"] = 1 + self.scale * (2 * uniform() - 1)
        length = self.crop + (1 - self.crop) * uniform()
        drawn["start"] = (1 - length) * uniform()
        drawn["stop"] = drawn["start"] + length
        if self.shear:
            drawn["slants"] = self.shear * (2 * uniform(c, c - 1) - 1)
        if self.flip:
            drawn["mirrored"] = uniform() < self.flip
        if self.joint_dropout:
            drawn["lost"] = uniform(v, m) < self.joint_dropout
        if self.speed:
            drawn["warp"] = self.speed * (2 * uniform() - 1)
        if self.axis_dropout:
            axis = (c * uniform()).long().clamp(max=c - 1)[:, None]
            drawn["lost_axis"] = (axis == torch.arange(c)) & (uniform(1) < self.axis_dropout)
        if self.mask and self.frames is not None:
            chosen = uniform(1) < self.mask
            joints = _random_subset(uniform(1), uniform(v), self.mask_joints)
            frames = _random_subset(uniform(1), uniform(self.frames), self.mask_frames)
            drawn["masked"] = (chosen & frames)[:, :, None] & joints[:, None]  # (N, frames, V)
        if self.sampling == "random" and self.frames is not None:
            drawn["times"] = uniform(self.frames).sort(1).values
        return {name: value.to(x.device) for name, value in drawn.items()}

    def _transform(
        self, x: Tensor, extra: Tensor, drawn: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Transform x (N, C, T, V, M) and, if joints change, ``extra`` (N, 2, T, V, M).

        ``extra`` holds visibility and truth.
        """
        if self.flip:
            # Channel 0, the one that changes its sign, is left-right.
            both = flip(torch.cat([x, extra], dim=1), self.layout, drawn["mirrored"])
            x = both[:, :-2]
            extra = both[:, -2:]
        if self.scale:
            x = scale(x, drawn["sizes"].to(x.dtype))
        if any(self.rotation):
            angles = drawn["angles"].to(x.dtype)
            if x.shape[1] == 2:
                angles = angles[:, 2:]  # about z only
            x = rotate(x, angles, order=self.rotation_order)
        if self.shear:
            x = shear(x, drawn["slants"])
        if self.joint_dropout:
            x = drop_joints(x, drawn["lost"])
            extra = drop_joints(extra, drawn["lost"])
        return x, extra

    def _check(self, batch: Batch) -> None:
        check_shape("Augment", "x", batch.x, f"N, C, T, V={self.layout.num_joints}, M")
        n, c, t, v, m = batch.x.shape
        check_shape("Augment", "lengths", batch.lengths, f"N={n}")
        check_shape("Augment", "visibility", batch.visibility, f"N={n}, T={t}, V={v}, M={m}")
        check_shape("Augment", "critical", batch.critical, f"N={n}, M={m}, T={t}, V={v}")
        if any(self.rotation) and c != 3 and (c != 2 or any(self.rotation[:2])):
            needed = "rotation about z alone" if c == 2 else "no rotation"
            raise ValueError(
                message("Augment", f"{needed} with x (N, C={c}, T, V, M)", self.rotation)
            )

    def extra_repr(self) -> str:
        names = (
            "rotation",
            "rotation_order",
            "scale",
            "crop",
            "shear",
            "flip",
            "joint_dropout",
            "speed",
            "axis_dropout",
            "mask",
            "mask_joints",
            "mask_frames",
            "box",
            "sampling",
            "test_crop",
            "frames",
        )
        return f"{self.layout.name}, " + ", ".join(
            f"{name}={getattr(self, name)}" for name in names
        )


def _random_subset(size: Tensor, scores: Tensor, shares: tuple[float, float]) -> Tensor:
    """Choose a random subset of K entries, by scores (N, K); all sizes between the shares of K.

    ``size`` (N, 1) in [0, 1) draws the size. Returns a mask (N, K).
    """
    k = scores.shape[1]
    low = round(shares[0] * k)
    high = round(shares[1] * k)
    count = (low + size * (high - low + 1)).floor().clamp(max=high)
    rank = scores.argsort(1).argsort(1)
    return rank < count


def _hide(x: Tensor, extra: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Set what was dropped or masked to 0 in x (N, C, T, V, M) and ``extra`` (N, 2, T, V, M)."""
    if "lost_axis" in drawn:
        x = x.masked_fill(drawn["lost_axis"][:, :, None, None, None], 0)
    if "masked" in drawn:
        masked = drawn["masked"][:, None, :, :, None]
        x = x.masked_fill(masked, 0)
        extra = extra.masked_fill(masked, 0)
    return x, extra


def _keep_seen(
    seen: Tensor, lengths: Tensor, crop: float, start: Tensor, stop: Tensor
) -> dict[str, Tensor]:
    """Move spans, fractions (N,) of clips, that keep less than ``crop`` of what was seen (N, T)."""
    frame = torch.arange(seen.shape[1], device=seen.device)
    last = lengths.to(seen.device)[:, None] - 1
    seen = seen & (frame <= last)
    time = frame / last.clamp(min=1)  # (N, T), 0 to 1
    begin = torch.where(seen, time, 1.0).amin(1)
    end = torch.where(seen, time, 0.0).amax(1)
    kept = crop * (end - begin)
    length = stop - start
    moved = torch.minimum(torch.maximum(start, begin + kept - length), end - kept)
    # Differences smaller than this are due to rounding: spans of whole clips must not move at all.
    margin = 1e-6
    enough = torch.minimum(stop, end) - torch.maximum(start, begin) >= kept - margin
    start = torch.where(enough, start, moved)
    stop = torch.where(enough, stop, moved + length)
    inside = (time >= start[:, None] - margin) & (time <= stop[:, None] + margin)
    # A span of less than a frame may lie between two.
    both = seen[:, :-1] & seen[:, 1:]
    between = both & (time[:, :-1] <= start[:, None]) & (time[:, 1:] >= stop[:, None])
    # The span may lie in a gap in which nobody was seen.
    empty = ~((seen & inside).any(1) | between.any(1))
    return {"start": start.masked_fill(empty, 0.0), "stop": stop.masked_fill(empty, 1.0)}


def _on_frames(times: Tensor, lengths: Tensor) -> Tensor:
    """Move uniform times (N, frames) in [0, 1) to times of frames, each of them equally likely."""
    last = lengths.to(times.device)[:, None] - 1
    frame = torch.minimum((times * (last + 1)).floor(), last)
    return frame / last.clamp(min=1)


def _resample(
    x: Tensor,
    extra: Tensor,
    lengths: Tensor,
    frames: int,
    *,
    start: Tensor | None,
    stop: Tensor | None,
    warp: Tensor | None,
    times: Tensor | None,
    interpolate: bool,
) -> tuple[Tensor, Tensor]:
    """Resample positions x and ``extra``, visibility and ground truth, in time."""
    # Seen or not is interpolated like a position: it stays 1 only between two seen frames.
    seen = (extra[:, :1] > 0).to(x.dtype)
    both = torch.cat([x, seen, extra], dim=1)
    both = resample_frames(
        both,
        lengths,
        frames,
        start=start,
        stop=stop,
        warp=warp,
        times=times,
        interpolate=interpolate,
    )
    x, weight, visibility, truth = torch.split(both, [x.shape[1], 1, 1, 1], dim=1)
    # No position lies between a missing and a seen frame. 0.99 and not 1, because a frame that lies
    # on a seen one may get a rounding's share of its missing neighbour.
    seen = (weight > 0.99).to(x.dtype)
    extra = torch.cat([visibility / weight.clamp(min=0.99), (truth > 0.5).to(x.dtype)], dim=1)
    return x * seen, extra * seen
