"""Test a network's robustness by corrupted clips: hidden joints and frames, jitter, short clips.

All functions take a :class:`~skeleton_focus.clips.Batch` of positions, before the streams are
computed, run on its device and do not modify it. Centring and scaling use the visible joints: do
both first if hiding a joint should not move the others. Position, visibility and ground truth of a
hidden joint are 0, as for a joint that was never seen. The protocols follow RA-GCN. Random numbers
are drawn on the CPU from the generator that is passed, so that they do not depend on the device.
With the same state of the generator, a larger p hides every joint, or drops every frame, that a
smaller p does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ._checks import check_lengths, check_shape, message
from .clips import Batch
from .layouts import SkeletonLayout
from .preparation import body_height

__all__ = [
    "body_parts",
    "drop_frames",
    "hide_frames",
    "hide_joints",
    "hide_random_joints",
    "jitter_joints",
    "keep_beginning",
]

_LIMBS = tuple(
    f"{side}_{limb}"
    for side in ("left", "right")
    for limb in ("upper_arm", "hand", "thigh", "foot")
)


def body_parts(layout: SkeletonLayout) -> dict[str, tuple[int, ...]]:
    """The five body parts whose joints RA-GCN hides, from the layout's own parts.

    An arm consists of ``upper_arm`` and ``hand`` of one side, ``two_hands`` of both ``hand``,
    ``two_legs`` of both ``thigh`` and ``foot``; ``trunk`` holds the joints of no limb. For
    ``NTU25`` these are spine, neck and head; for ``COCO17``, which has no spine, the head.

    Args:
        layout: a skeleton with the parts left and right ``upper_arm``, ``hand``, ``thigh`` and
            ``foot``, such as the named layouts.

    Returns:
        ``left_arm``, ``right_arm``, ``two_hands``, ``two_legs`` and ``trunk``, each with its joints
        in ascending order.

    Raises:
        ValueError: a layout without these parts, or without a joint outside them.

    Example:
        >>> from skeleton_focus import NTU25
        >>> parts = body_parts(NTU25)
        >>> parts["left_arm"], parts["trunk"]
        ((4, 5, 6, 7, 21, 22), (0, 1, 2, 3, 20))

    Reference:
        RA-GCN (Song et al., ICIP 2019).
    """
    missing = [name for name in _LIMBS if not layout.parts.get(name)]
    if missing:
        expected = f"a layout with the parts {', '.join(_LIMBS)}"
        got = f"{layout.name!r} without {', '.join(missing)}"
        raise ValueError(
            message("body_parts", expected, got, "pass them to SkeletonLayout.from_bones as parts")
        )
    of_limbs = {joint for name in _LIMBS for joint in layout.parts[name]}
    trunk = tuple(joint for joint in range(layout.num_joints) if joint not in of_limbs)
    if not trunk:
        raise ValueError(
            message("body_parts", "a layout with joints outside its limbs", repr(layout.name))
        )

    def joints(*names: str) -> tuple[int, ...]:
        return tuple(sorted({joint for name in names for joint in layout.parts[name]}))

    return {
        "left_arm": joints("left_upper_arm", "left_hand"),
        "right_arm": joints("right_upper_arm", "right_hand"),
        "two_hands": joints("left_hand", "right_hand"),
        "two_legs": joints("left_thigh", "left_foot", "right_thigh", "right_foot"),
        "trunk": trunk,
    }


def hide_joints(batch: Batch, joints: Sequence[int]) -> Batch:
    """Hide joints of all persons in all frames.

    Shape:
        a batch with x (N, C, T, V, M) -> the same.

    Args:
        batch: clips.
        joints: their indices, 0..V-1, for example one of :func:`body_parts`, or a mask (V,) of
            bool.

    Raises:
        ValueError: a batch with mismatched shapes, names or fractions instead of indices, a joint
            out of range, or a mask of another length.

    Example:
        >>> from skeleton_focus import NTU25, SyntheticActions
        >>> batch = SyntheticActions(frames=16, missing=0.0).generate(2, seed=0)
        >>> hidden = hide_joints(batch, body_parts(NTU25)["two_legs"])
        >>> round((hidden.visibility.sum() / batch.visibility.sum()).item(), 2)
        0.68

    Reference:
        RA-GCN (Song et al., ICIP 2019).
    """
    _check("hide_joints", batch)
    n, _, t, v, m = batch.x.shape
    numbers = not isinstance(joints, str | Mapping) and isinstance(joints, Iterable)
    if not numbers or any(isinstance(joint, str) for joint in joints):
        hint = 'body_parts(layout)["left_arm"] is one'
        raise ValueError(
            message("hide_joints", "joints as a sequence of indices", repr(joints), hint)
        )
    listed = list(joints)
    chosen = torch.as_tensor(listed) if listed else torch.zeros(0, dtype=torch.int64)
    if chosen.is_floating_point():
        raise ValueError(message("hide_joints", "integer joints, or a mask (V,)", listed))
    # allowed_joints returns masks; read as indices, True and False would hide joints 1 and 0.
    which = chosen
    if chosen.dtype == torch.bool:
        check_shape("hide_joints", "the mask", chosen, f"V={v}")
    else:
        if not ((chosen >= 0) & (chosen < v)).all():
            raise ValueError(message("hide_joints", f"joints in 0..{v - 1}", chosen.tolist()))
        which = torch.zeros(v, dtype=torch.bool)
        which[chosen] = True
    which = which.to(batch.x.device)
    return _hide(batch, which[:, None].expand(n, t, v, m))


def hide_frames(batch: Batch, share: float) -> Batch:
    r"""Hide all joints in a block of frames around the middle of each clip.

    In a clip of length L, :math:`n = \lfloor share \cdot L + 1/2 \rfloor` frames are hidden,
    starting with frame :math:`\lfloor (L - n) / 2 \rfloor`. Lengths do not change.

    Shape:
        a batch with x (N, C, T, V, M) -> the same.

    Args:
        batch: clips.
        share: fraction of each clip's length, 0 to 1, for example 0.1 to 0.5.

    Raises:
        ValueError: a batch with mismatched shapes, or a share out of range.

    Example:
        >>> from skeleton_focus import SyntheticActions
        >>> batch = hide_frames(SyntheticActions(frames=16).generate(1, seed=0), 0.25)
        >>> batch.visibility.flatten(2).any(2).int().tolist()
        [[1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]]

    Reference:
        RA-GCN (Song et al., ICIP 2019).
    """
    _check("hide_frames", batch)
    if not 0 <= share <= 1:
        raise ValueError(message("hide_frames", "a share in 0..1", share))
    n, _, t, v, m = batch.x.shape
    count = _frame_counts(batch.lengths, share)
    first = ((batch.lengths - count) // 2)[:, None]
    frames = torch.arange(t, device=batch.x.device)
    inside = (frames >= first) & (frames < first + count[:, None])  # (N, T)
    return _hide(batch, inside[:, :, None, None].expand(n, t, v, m))


def hide_random_joints(batch: Batch, p: float, generator: torch.Generator) -> Batch:
    """Hide each joint of each person in each frame with probability p.

    In contrast, ``joint_dropout`` of :class:`~skeleton_focus.augment.Augment` hides a joint in the
    whole clip.

    Shape:
        a batch with x (N, C, T, V, M) -> the same.

    Args:
        batch: clips.
        p: 0 to 1, for example 0.1 to 0.5.
        generator: on the CPU.

    Raises:
        ValueError: a batch with mismatched shapes, a probability out of range, no CPU generator.

    Example:
        >>> from skeleton_focus import SyntheticActions
        >>> batch = SyntheticActions(frames=64, missing=0.0).generate(8, seed=0)
        >>> hidden = hide_random_joints(batch, 0.5, torch.Generator().manual_seed(0))
        >>> round((hidden.visibility.sum() / batch.visibility.sum()).item(), 2)
        0.5

    Reference:
        RA-GCN (Song et al., IEEE TCSVT 2020).
    """
    _check("hide_random_joints", batch)
    _check_random("hide_random_joints", p, generator)
    n, _, t, v, m = batch.x.shape
    return _hide(batch, _draw(batch, n, t, v, m, generator=generator) < p)


def jitter_joints(
    batch: Batch, layout: SkeletonLayout, *, p: float, sigma: float, generator: torch.Generator
) -> Batch:
    r"""Add Gaussian noise to each joint of each person in each frame with probability p.

    :math:`x' = x + \sigma h \epsilon`, with the clip's
    :func:`~skeleton_focus.preparation.body_height` h and a standard normal number :math:`\epsilon`
    for each coordinate. Only visible joints are moved. Their visibility does not change, as if a
    pose estimator were wrong but confident.

    Shape:
        a batch with x (N, C, T, V, M) -> the same.

    Args:
        batch: clips.
        layout: the skeleton.
        p: 0 to 1; the paper's 0.02 to 0.1.
        sigma: standard deviation in body heights, at least 0, for example 0.05 or 0.1.
        generator: on the CPU.

    Raises:
        ValueError: a batch with mismatched shapes, another layout, an option out of range, no CPU
            generator.

    Example:
        >>> from skeleton_focus import NTU25, SyntheticActions
        >>> batch = SyntheticActions(frames=64, missing=0.0).generate(8, seed=0)
        >>> random = torch.Generator().manual_seed(0)
        >>> shaken = jitter_joints(batch, NTU25, p=0.1, sigma=0.05, generator=random)
        >>> moved = (shaken.x != batch.x).any(1)
        >>> round((moved.sum() / (batch.visibility > 0).sum()).item(), 2)
        0.1

    Reference:
        RA-GCN (Song et al., IEEE TCSVT 2020).
    """
    who = "jitter_joints"
    _check(who, batch)
    check_shape(who, "x", batch.x, f"N, C, T, V={layout.num_joints}, M")
    _check_random(who, p, generator)
    if not 0 <= sigma < float("inf"):
        raise ValueError(message(who, "sigma of at least 0", sigma))
    n, c, t, v, m = batch.x.shape
    chosen = (_draw(batch, n, t, v, m, generator=generator) < p) & (batch.visibility > 0)
    # Drawn for unchosen joints too, so that a larger p adds joints and keeps the others' noise.
    noise = torch.randn(n, c, t, v, m, generator=generator, device="cpu", dtype=torch.float32)
    noise = noise.to(batch.x)
    height = body_height(batch.x, layout, visibility=batch.visibility)[:, None, None, None, None]
    return batch._replace(x=torch.where(chosen[:, None], batch.x + sigma * height * noise, batch.x))


def keep_beginning(batch: Batch, share: float) -> Batch:
    r"""Keep only the first part of each clip.

    In a clip of length L, the first :math:`\lfloor share \cdot L + 1/2 \rfloor` frames are kept, at
    least one.

    Shape:
        a batch with x (N, C, T, V, M) -> (N, C, T', V, M), T' being the longest clip's new length.

    Args:
        batch: clips.
        share: fraction of each clip's length, above 0 and at most 1.

    Raises:
        ValueError: a batch with mismatched shapes, or a share out of range.

    Example:
        >>> from skeleton_focus import SyntheticActions
        >>> batch = keep_beginning(SyntheticActions(frames=16).generate(2, seed=0), 0.5)
        >>> batch.x.shape, batch.lengths
        (torch.Size([2, 3, 8, 25, 2]), tensor([8, 8]))
    """
    _check("keep_beginning", batch)
    if not 0 < share <= 1:
        raise ValueError(message("keep_beginning", "a share above 0 and at most 1", share))
    lengths = _frame_counts(batch.lengths, share).clamp(min=1)
    frames = torch.arange(batch.x.shape[2], device=batch.x.device)
    return _keep_frames(batch, frames < lengths[:, None])


def drop_frames(batch: Batch, p: float, generator: torch.Generator) -> Batch:
    """Remove each frame with probability p and join the rest; at least one frame is kept.

    Shape:
        a batch with x (N, C, T, V, M) -> (N, C, T', V, M), T' being the longest clip's new length.

    Args:
        batch: clips.
        p: 0 to 1.
        generator: on the CPU.

    Raises:
        ValueError: a batch with mismatched shapes, a probability out of range, no CPU generator.

    Example:
        >>> from skeleton_focus import SyntheticActions
        >>> batch = SyntheticActions(frames=64).generate(2, seed=0)
        >>> drop_frames(batch, 0.5, torch.Generator().manual_seed(0)).lengths
        tensor([29, 33])
    """
    _check("drop_frames", batch)
    _check_random("drop_frames", p, generator)
    n, _, t, _, _ = batch.x.shape
    inside = torch.arange(t, device=batch.x.device) < batch.lengths[:, None]  # (N, T)
    # Padding gets -1, below every drawn number, so it is never the last frame left.
    drawn = _draw(batch, n, t, generator=generator).masked_fill(~inside, -1)
    highest = drawn == drawn.amax(1, keepdim=True)
    # The frame that a growing p drops last stays; of equal numbers, the first one does.
    last = highest & (highest.cumsum(1) == 1)
    return _keep_frames(batch, ((drawn >= p) | last) & inside)


def _frame_counts(lengths: Tensor, share: float) -> Tensor:
    """The number of frames in a fraction of each clip, rounded."""
    # In float64, as Python's floats: float32 may round a product up to the next half.
    return (share * lengths.double() + 0.5).floor().to(lengths.dtype)


def _hide(batch: Batch, hidden: Tensor) -> Batch:
    """Set positions, visibility and ground truth to zero where ``hidden`` (N, T, V, M) is True."""
    person_first = hidden.permute(0, 3, 1, 2)  # (N, T, V, M) -> (N, M, T, V)
    return batch._replace(
        x=batch.x.masked_fill(hidden[:, None], 0),
        visibility=batch.visibility.masked_fill(hidden, 0),
        critical=batch.critical.masked_fill(person_first, 0),
    )


def _keep_frames(batch: Batch, kept: Tensor) -> Batch:
    """Keep the frames where ``kept`` (N, T) is True, in order; pad with zeros to the longest."""
    lengths = kept.sum(1)
    # The one read from the device, because T' of the result depends on it.
    longest = max(lengths.tolist(), default=0)
    # A stable sort by kept or not puts kept frames first and leaves them in order.
    order = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    order = order[:, :longest]  # (N, T')
    rows = torch.arange(len(kept), device=kept.device)[:, None]
    shorter = Batch(
        x=batch.x.transpose(1, 2)[rows, order].transpose(1, 2),  # (N, C, T', V, M)
        lengths=lengths.to(batch.lengths.dtype),
        label=batch.label,
        visibility=batch.visibility[rows, order],  # (N, T', V, M)
        critical=batch.critical.transpose(1, 2)[rows, order].transpose(1, 2),  # (N, M, T', V)
    )
    # In shorter clips, dropped frames fill the rest of the order; as padding they must be zero.
    padding = torch.arange(longest, device=kept.device) >= lengths[:, None]
    return _hide(shorter, padding[:, :, None, None].expand_as(shorter.visibility))


def _draw(batch: Batch, *sizes: int, generator: torch.Generator) -> Tensor:
    """Numbers in [0, 1), on the batch's device."""
    # Always for every joint or frame, whatever p is, so that clips of two p are comparable.
    drawn = torch.rand(*sizes, generator=generator, device="cpu", dtype=torch.float32)
    return drawn.to(batch.x.device)


def _check(who: str, batch: Batch) -> None:
    if not isinstance(batch, Batch):
        raise ValueError(
            message(who, "a Batch, such as SkeletonDataset.collate returns", type(batch).__name__)
        )
    check_shape(who, "x", batch.x, "N, C, T, V, M")
    n, _, t, v, m = batch.x.shape
    check_lengths(who, batch.lengths, batch.x)
    check_shape(who, "visibility", batch.visibility, f"N={n}, T={t}, V={v}, M={m}")
    check_shape(who, "critical", batch.critical, f"N={n}, M={m}, T={t}, V={v}")


def _check_random(who: str, p: float, generator: torch.Generator) -> None:
    if not 0 <= p <= 1:
        raise ValueError(message(who, "a probability p in 0..1", p))
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            message(
                who, "a torch.Generator, such as seeded_generator returns", type(generator).__name__
            )
        )
    device = generator.device.type
    if device != "cpu":
        raise ValueError(
            message(who, "a generator on the CPU, so that every device draws the same", device)
        )
