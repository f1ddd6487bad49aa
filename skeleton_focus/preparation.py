"""From raw joint positions to network inputs: preparation, streams, resampling, fusion.

All functions take batches x (N, C, T, V, M), run on x's device and do not modify their input. A
visibility (N, T, V, M) is 1 where a joint was seen; joints that were not seen stay at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._checks import can_read, check_choice, check_lengths, check_shape, message
from .layouts import SkeletonLayout

__all__ = [
    "add_visibility",
    "align_body",
    "body_height",
    "center",
    "convert_layout",
    "fuse",
    "make_stream",
    "normalize_box",
    "prepare_stf",
    "repeat_frames",
    "resample_frames",
]

KINDS = ("probabilities", "log_probabilities", "logits")  # of the outputs that are fused
STREAMS = ("joint", "bone", "joint_motion", "bone_motion")


def center(
    x: Tensor,
    joint: int,
    *,
    each_frame: bool = True,
    person: int | None = None,
    visibility: Tensor | None = None,
) -> Tensor:
    """Subtract the position of the centre joint.

    Shape:
        x (N, C, T, V, M) -> the same.

    Args:
        x: positions.
        joint: the centre, for example ``layout.center``.
        each_frame: if True, subtract the centre joint of each frame, as STF does; in frames that do
            not show it, its mean over the frames that do. If False, subtract one position from the
            whole clip, that of the centre joint when first seen, which keeps translation and the
            distance between persons.
        person: index of the person whose centre is subtracted from all persons, 0 in DGNN; by
            default each person's own, or with ``each_frame=False`` that of the first person seen.
        visibility: (N, T, V, M); joints that were not seen stay at 0.

    Raises:
        ValueError: mismatched shapes, a joint or a person that x does not have.

    Example:
        >>> x = torch.tensor([[1.0, 3.0], [5.0, 8.0]]).view(1, 1, 2, 2, 1)
        >>> center(x, 0).flatten().tolist(), center(x, 0, each_frame=False).flatten().tolist()
        ([0.0, 2.0, 0.0, 3.0], [0.0, 2.0, 4.0, 7.0])

    Reference:
        STF (Ke et al., AAAI 2022), "Data preparation"; DGNN (Shi et al., CVPR 2019).
    """
    _check("center", x, visibility=visibility)
    if person is not None and not 0 <= person < x.shape[4]:
        raise ValueError(message("center", f"a person in 0..{x.shape[4] - 1}, or None", person))
    if not 0 <= joint < x.shape[3]:
        raise ValueError(message("center", f"a joint in 0..{x.shape[3] - 1}", joint))
    centers = x[:, :, :, joint]  # (N, C, T, M)
    seen = torch.ones_like(x[:, 0, :, joint])  # (N, T, M)
    if visibility is not None:
        seen = (visibility[:, :, joint] > 0).to(x.dtype)
    if person is not None:
        centers = centers[..., person : person + 1]
        seen = seen[..., person : person + 1]
    if each_frame:
        count = seen.sum(1, keepdim=True).clamp(min=1)[:, None]  # (N, 1, 1, M)
        mean = (centers * seen[:, None]).sum(2, keepdim=True) / count
        origin = torch.where(seen[:, None] > 0, centers, mean).unsqueeze(3)  # (N, C, T, 1, M)
    else:
        # argmax gives the first of equal values: the first frame, and in it the first person.
        first = seen.flatten(1).argmax(1)[:, None, None]  # (N, 1, 1), of T * M
        first = first.expand(-1, x.shape[1], 1)  # (N, C, 1)
        origin = centers.flatten(2).gather(2, first)[..., None, None]  # (N, C, 1, 1, 1)
    return _mask_unseen(x - origin, visibility)


def body_height(x: Tensor, layout: SkeletonLayout, *, visibility: Tensor | None = None) -> Tensor:
    r"""Measure each clip's tallest body: the sum of its bone lengths from head to foot.

    .. math:: h = \max_m \frac{1}{|F_m|} \sum_{t \in F_m} \sum_{(v, w) \in path} \|x_{tv} - x_{tw}\|

    F_m are the frames in which all joints v of the path of person m were seen.

    If nobody has such a frame, the height is estimated from the person whose path is best known,
    the tallest of several: each bone of the path has its mean length over the frames in which both
    its joints were seen. For a bone that was never seen, the same bone of the other side stands in
    (``layout.pairs``), then the mean of the path's known bones, then that of all bones seen. If
    only single joints were seen, the height is the largest mean diagonal of their bounding box, and
    if nothing or only one joint was seen, it is 1, so that dividing by it is always safe.

    Shape:
        x (N, C, T, V, M) -> (N,), in the units of x.

    Example:
        >>> from skeleton_focus import SkeletonLayout
        >>> chain = SkeletonLayout.from_bones([(0, 1), (1, 2)])
        >>> x = torch.tensor([0.0, 1.0, 3.0]).view(1, 1, 1, 3, 1)
        >>> body_height(x, chain)
        tensor([3.])
        >>> body_height(x, chain, visibility=torch.tensor([1.0, 1, 0]).view(1, 1, 3, 1))
        tensor([2.])

    Reference:
        STF (Ke et al., AAAI 2022), "Data preparation".
    """
    _check("body_height", x, layout, visibility=visibility)
    path = list(layout.path(*layout.height))
    limbs = x[:, :, :, path]  # (N, C, T, path, M)
    length = (limbs[:, :, :, 1:] - limbs[:, :, :, :-1]).norm(dim=1).sum(2)  # (N, T, M)
    # An absent body is all zeros, of length 0.
    seen = length > 0
    if visibility is not None:
        seen = seen & (visibility[:, :, path] > 0).all(2)
    frames = seen.sum(1)  # (N, M)
    height: Tensor = ((length * seen).sum(1) / frames.clamp(min=1)).amax(1)
    # Most batches need no estimates, which take longer.
    if can_read(height) and (height > 0).all():
        return height
    for estimate in (_height_of_bones(x, layout, visibility), _extent(x, visibility)):
        height = torch.where(height > 0, height, estimate)
    return torch.where(height > 0, height, 1.0)


def _height_of_bones(x: Tensor, layout: SkeletonLayout, visibility: Tensor | None) -> Tensor:
    """Estimate heights (N,) by the bones that were seen at some time; 0 if there is none."""
    path = list(layout.path(*layout.height))
    mirror = [layout.mirror[joint] for joint in path]
    same_side, known = _bone_lengths(x, path[:-1], path[1:], visibility)  # (N, path - 1, M)
    other_side, known_there = _bone_lengths(x, mirror[:-1], mirror[1:], visibility)
    length = torch.where(known, same_side, other_side)
    known = known | known_there
    starts = [start for start, _ in layout.bones]
    ends = [end for _, end in layout.bones]
    every, known_anywhere = _bone_lengths(x, starts, ends, visibility)
    count = known.sum(1)  # (N, M)
    mean = torch.where(
        count > 0,
        (length * known).sum(1) / count.clamp(min=1),
        (every * known_anywhere).sum(1) / known_anywhere.sum(1).clamp(min=1),
    )
    height = torch.where(known, length, mean[:, None]).sum(1)  # (N, M)
    best = count == count.amax(1, keepdim=True)
    tallest: Tensor = (height * best).amax(1)
    return tallest


def _bone_lengths(
    x: Tensor, starts: list[int], ends: list[int], visibility: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mean lengths of bones (N, bones, M) over the frames that show them, and whether any does."""
    length = (x[:, :, :, ends] - x[:, :, :, starts]).norm(dim=1)  # (N, T, bones, M)
    seen = length > 0
    if visibility is not None:
        seen = seen & (visibility[:, :, starts] > 0) & (visibility[:, :, ends] > 0)
    frames = seen.sum(1)
    return (length * seen).sum(1) / frames.clamp(min=1), frames > 0


def _extent(x: Tensor, visibility: Tensor | None) -> Tensor:
    """The largest of the persons' mean diagonals (N,) of the box around the joints seen; or 0."""
    seen = x.new_ones(x.shape[0], *x.shape[2:]) if visibility is None else visibility
    seen = (seen > 0)[:, None]  # (N, 1, T, V, M)
    low = x.masked_fill(~seen, torch.inf).amin(3)  # (N, C, T, M)
    high = x.masked_fill(~seen, -torch.inf).amax(3)
    here = seen.any(3)  # (N, 1, T, M)
    diagonal = (high - low).masked_fill(~here, 0).norm(dim=1)  # (N, T, M)
    extent: Tensor = (diagonal.sum(1) / here[:, 0].sum(1).clamp(min=1)).amax(1)
    return extent


BODY_AXES = ("spine_base", "spine", "left_shoulder", "right_shoulder")


def align_body(x: Tensor, layout: SkeletonLayout, *, visibility: Tensor | None = None) -> Tensor:
    r"""Rotate each clip so that its first person's spine lies along z and its shoulders along x.

    .. math:: e_z \propto p_{spine} - p_{base}, \qquad
        e_x \propto s - (s \cdot e_z) e_z, \quad s = p_{right} - p_{left}, \qquad
        e_y = e_z \times e_x

    The whole clip is rotated about the origin, by the first frame in which the first person's four
    joints were seen: the spine becomes parallel to z, the shoulders as parallel to x as the spine
    allows. A clip without such a frame, or with shoulders parallel to the spine in it, is not
    changed.

    Shape:
        x (N, C=3, T, V, M) -> the same.

    Args:
        x: positions, centred by :func:`center`.
        layout: a skeleton with the joints spine_base, spine, left_shoulder and right_shoulder:
            ``NTU25``, ``NTU25_PYSKL``, ``KINECT20``, or one of yours.
        visibility: (N, T, V, M); by default all joints were seen.

    Raises:
        ValueError: mismatched shapes, 2D positions, or a layout without those joints.

    Example:
        >>> from skeleton_focus import SkeletonLayout
        >>> torso = SkeletonLayout.from_bones([(0, 1), (1, 2), (1, 3)], joints=BODY_AXES)
        >>> lying = torch.tensor([[0.0, 0, 0], [0, 2, 0], [0, 2, 1], [0, 2, -1]])
        >>> align_body(lying.T.view(1, 3, 1, 4, 1), torso)[0, :, 0, :, 0].T
        tensor([[ 0.,  0.,  0.],
                [ 0.,  0.,  2.],
                [-1.,  0.,  2.],
                [ 1.,  0.,  2.]])

    Reference:
        NTU RGB+D (Shahroudy et al., CVPR 2016), section 4; DGNN (Shi et al., CVPR 2019).
    """
    who = "align_body"
    if not set(BODY_AXES) <= set(layout.joints):
        hint = "only center clips of other skeletons"
        raise ValueError(
            message(
                who, f"a layout with the joints {', '.join(BODY_AXES)}", repr(layout.name), hint
            )
        )
    check_shape(who, "x", x, f"N, C=3, T, V={layout.num_joints}, M")
    _check(who, x, layout, visibility=visibility)
    joints = [layout.index(name) for name in BODY_AXES]
    base, spine, left, right = x[:, :, :, joints, 0].permute(3, 0, 2, 1)  # each (N, T, C)
    up = spine - base
    shoulders = right - left
    length = up.norm(dim=2)
    # A frame without a torso has length 0. It is not used, but NaN would still reach the gradient.
    e_z = up / torch.where(length > 0, length, 1.0)[..., None]
    across = shoulders - (shoulders * e_z).sum(2, keepdim=True) * e_z
    width = across.norm(dim=2)
    e_x = across / torch.where(width > 0, width, 1.0)[..., None]
    # Where shoulders and spine are nearly parallel, e_x would be the direction of their rounding.
    usable = (length > 0) & (width > 1e-3 * shoulders.norm(dim=2))  # (N, T)
    if visibility is not None:
        usable = usable & (visibility[:, :, joints, 0] > 0).all(2)
    e_y = torch.linalg.cross(e_z, e_x)
    axes = torch.stack([e_x, e_y, e_z], dim=2)  # (N, T, 3, C): rows are the new axes
    # argmax takes no booleans.
    first = usable.to(torch.uint8).argmax(1)
    turn = axes[torch.arange(len(x), device=x.device), first]  # (N, 3, C)
    same = torch.eye(3, dtype=x.dtype, device=x.device)
    turn = torch.where(usable.any(1)[:, None, None], turn, same)
    # Autocast would round positions to half precision.
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum("nic,nctvm->nitvm", turn, x)


def normalize_box(
    x: Tensor, *, lengths: Tensor | None = None, visibility: Tensor | None = None
) -> Tensor:
    r"""Scale each clip and each axis to [-1, 1] over all frames, joints and persons that were seen.

    .. math:: x'_{ctvm} = 2 \, \frac{x_{ctvm} - \min_{t, v, m} x_{ctvm}}
        {\max_{t, v, m} x_{ctvm} - \min_{t, v, m} x_{ctvm}} - 1

    The box around the whole clip becomes a cube, so proportions between the axes are lost. Along an
    axis without extent, all positions become 0.

    Shape:
        x (N, C, T, V, M) -> the same.

    Args:
        x: positions, in any units and from any origin.
        lengths: (N,) true number of frames of each clip; frames beyond it are ignored and become 0.
            By default all T frames.
        visibility: (N, T, V, M); joints that were not seen are ignored and become 0. By default all
            joints were seen.

    Raises:
        ValueError: mismatched shapes, lengths out of range.

    Example:
        >>> x = torch.tensor([[[1.0, 2.0, 5.0]], [[7.0, 7.0, 7.0]]]).view(1, 2, 1, 3, 1)
        >>> normalize_box(x)[0, :, 0, :, 0]
        tensor([[-1.0000, -0.5000,  1.0000],
                [ 0.0000,  0.0000,  0.0000]])

    Reference:
        CTR-GCN (Chen et al., ICCV 2021), its public code for NW-UCLA.
    """
    _check("normalize_box", x, visibility=visibility)
    seen = torch.ones_like(x[:, :1], dtype=torch.bool)  # (N, 1, T, V, M)
    if visibility is not None:
        seen = (visibility > 0)[:, None]
    if lengths is not None:
        check_lengths("normalize_box", lengths, x)
        inside = torch.arange(x.shape[2], device=x.device) < lengths.to(x.device)[:, None]
        seen = seen & inside[:, None, :, None, None]
    # Filled first, since NaN of unseen joints would reach the gradient. In float32, since float16
    # does not hold the extent of large positions.
    exact = x.masked_fill(~seen, 0).to(torch.promote_types(x.dtype, torch.float32))
    low = exact.masked_fill(~seen, torch.inf).amin((2, 3, 4), keepdim=True)  # (N, C, 1, 1, 1)
    high = exact.masked_fill(~seen, -torch.inf).amax((2, 3, 4), keepdim=True)
    wide = high > low
    extent = torch.where(wide, high - low, 1.0)
    scaled = (2 * ((exact - low) / extent) - 1).masked_fill(~(seen & wide), 0)
    return scaled.to(x.dtype)


def repeat_frames(x: Tensor, lengths: Tensor, frames: int) -> Tensor:
    """Fill every clip to the same number of frames by repeating it from its first frame.

    Shape:
        x (N, C, T, V, M), lengths (N,) -> (N, C, frames, V, M).

    Args:
        x: clips; frames beyond a clip's length are ignored.
        lengths: true number of frames of each clip, 1..T.
        frames: T of the result; the paper's 300. Longer clips are cut.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 0.0]).view(1, 1, 3, 1, 1)
        >>> repeat_frames(x, torch.tensor([2]), 5).flatten()
        tensor([1., 2., 1., 2., 1.])

    Reference:
        STF (Ke et al., AAAI 2022), "Data preparation".
    """
    _check_lengths("repeat_frames", x, lengths, frames)
    index = torch.arange(frames, device=x.device) % lengths[:, None]  # (N, frames)
    return _take_frames(x, index)


def resample_frames(
    x: Tensor,
    lengths: Tensor,
    frames: int,
    *,
    start: Tensor | None = None,
    stop: Tensor | None = None,
    warp: Tensor | None = None,
    times: Tensor | None = None,
    interpolate: bool = True,
) -> Tensor:
    r"""Resample every clip, or a span of it, to the same number of frames.

    Without ``times``, the first and the last frame of the result are those of the span; with
    ``frames=1`` the result is its middle. With a warp a, relative time u of the result shows
    relative time :math:`u + a u (1 - u)` of the span.

    Shape:
        x (N, C, T, V, M), lengths (N,) -> (N, C, frames, V, M).

    Args:
        x: clips; frames beyond a clip's length are ignored.
        lengths: true number of frames of each clip, 1..T.
        frames: T of the result.
        start: (N,) begin of the span, as a fraction of the clip in [0, 1]; by default 0.
        stop: (N,) end of the span, as a fraction of the clip in [0, 1]; by default 1.
        warp: (N,) a, within (-1, 1): the span runs at 1 + a times its speed at its begin and at 1 -
            a times at its end; by default at constant speed.
        times: (N, frames) relative time u of each frame of the result, in [0, 1]; by default evenly
            spaced.
        interpolate: if True, interpolate linearly between the frames before and after a time. If
            False, take the frame before it, or the one that is at most a thousandth of a frame
            after it, since a time on a frame may be rounded.

    Raises:
        ValueError: mismatched shapes; lengths, spans, warps or times out of range.

    Example:
        >>> x = torch.tensor([0.0, 2.0, 9.0]).view(1, 1, 3, 1, 1)
        >>> resample_frames(x, torch.tensor([2]), 5).flatten()
        tensor([0.0000, 0.5000, 1.0000, 1.5000, 2.0000])
        >>> resample_frames(x, torch.tensor([3]), 5, interpolate=False).flatten()
        tensor([0., 0., 2., 2., 9.])
    """
    _check_lengths("resample_frames", x, lengths, frames)
    exact = torch.promote_types(x.dtype, torch.float32)
    begin = x.new_zeros(len(x), dtype=exact) if start is None else start.to(x.device, exact)
    end = x.new_ones(len(x), dtype=exact) if stop is None else stop.to(x.device, exact)
    for name, edge in (("start", begin), ("stop", end)):
        check_shape("resample_frames", name, edge, f"N={len(x)}")
    # A sum of fractions may round past 1.
    inside = (begin > -1e-6) & (begin <= end) & (end < 1 + 1e-6)
    if can_read(inside) and not inside.all():
        raise ValueError(
            message(
                "resample_frames", "spans 0 <= start <= stop <= 1", (begin.tolist(), end.tolist())
            )
        )
    steps = torch.linspace(0, 1, frames, device=x.device, dtype=exact)
    if frames == 1:
        steps = begin.new_full((1,), 0.5)
    if times is not None:
        check_shape("resample_frames", "times", times, f"N={len(x)}, frames={frames}")
        if can_read(times) and not ((times >= 0) & (times <= 1)).all():
            got = f"{times.min():g} to {times.max():g}"
            raise ValueError(message("resample_frames", "times in 0..1", got))
        steps = times.to(x.device, exact)
    if warp is not None:
        check_shape("resample_frames", "warp", warp, f"N={len(x)}")
        if can_read(warp) and not (warp.abs() < 1).all():
            raise ValueError(message("resample_frames", "a warp within (-1, 1)", warp.tolist()))
        steps = steps + warp.to(x.device, exact)[:, None] * steps * (1 - steps)  # (N, frames)
    relative_time = (begin[:, None] + (end - begin)[:, None] * steps).clamp(0, 1)
    time = relative_time * (lengths[:, None] - 1)  # (N, frames)
    if not interpolate:
        # A time on a frame may be rounded to just below it.
        return _take_frames(x, (time + 1e-3).floor().long())
    low = time.floor().long()
    high = torch.minimum(low + 1, lengths[:, None] - 1)
    weight = (time - low).to(x.dtype)[:, None, :, None, None]
    return _take_frames(x, low).lerp(_take_frames(x, high), weight)


def make_stream(
    x: Tensor, stream: str, layout: SkeletonLayout, *, visibility: Tensor | None = None
) -> Tensor:
    r"""Compute one of the field's four input streams.

    ``"joint"``: positions; ``"bone"``: :math:`x_v - x_{parent(v)}`, zero at the centre and at the
    root of each other component of the bones; ``"joint_motion"`` and ``"bone_motion"``: their
    differences :math:`x_{t+1} - x_t`, zero in the last frame. A bone counts as seen if both its
    joints were seen, a motion if it was seen in both frames.

    Shape:
        x (N, C, T, V, M) -> the same.

    Raises:
        ValueError: an unknown stream, or a number of joints that differs from the layout's.

    Example:
        >>> from skeleton_focus import SkeletonLayout
        >>> chain = SkeletonLayout.from_bones([(0, 1), (1, 2)])
        >>> make_stream(torch.tensor([1.0, 3.0, 8.0]).view(1, 1, 1, 3, 1), "bone", chain).flatten()
        tensor([0., 2., 5.])

    Reference:
        2s-AGCN (Shi et al., CVPR 2019), section 3.3; STF, "Experimental protocol".
    """
    check_choice("make_stream", "stream", stream, STREAMS)
    _check("make_stream", x, layout, visibility=visibility)
    if stream.startswith("bone"):
        parents = list(layout.parents)
        x = x - x[:, :, :, parents]
        visibility = None if visibility is None else visibility * visibility[:, :, parents]
    if stream.endswith("motion"):
        x = torch.cat([x[:, :, 1:] - x[:, :, :-1], torch.zeros_like(x[:, :, :1])], dim=2)
        if visibility is not None:
            visibility = torch.cat(
                [visibility[:, 1:] * visibility[:, :-1], visibility[:, -1:]], dim=1
            )
    return _mask_unseen(x, visibility)


def add_visibility(x: Tensor, visibility: Tensor | None = None) -> Tensor:
    """Append the visibility as another channel, ones if it is None.

    For Kinetics, it is the confidence.

    Shape:
        x (N, C, T, V, M), visibility (N, T, V, M) -> (N, C + 1, T, V, M).

    Example:
        >>> add_visibility(torch.zeros(2, 3, 8, 25, 1)).shape
        torch.Size([2, 4, 8, 25, 1])

    Reference:
        STF (Ke et al., AAAI 2022), "Data preparation".
    """
    _check("add_visibility", x, visibility=visibility)
    seen = torch.ones_like(x[:, 0]) if visibility is None else visibility.to(x.dtype)
    return torch.cat([x, seen[:, None]], dim=1)


# What a joint that the source does not have is the mean of: the first entry whose joints it has, or
# whose joints were made by the rows above.
_SHOULDERS = ("left_shoulder", "right_shoulder")
_MEANS: dict[str, tuple[tuple[str, ...], ...]] = {
    "neck": (_SHOULDERS,),
    "upper_spine": (_SHOULDERS,),
    "spine_base": (("left_hip", "right_hip"),),
    "spine": (("spine_base", "neck"),),
    "chest": (("spine", "neck"),),
    "head": (("left_ear", "right_ear"), ("left_eye", "right_eye"), ("nose",)),
    "nose": (("head",),),
    "left_hand": (("left_index", "left_pinky"),),
    "right_hand": (("right_index", "right_pinky"),),
    "left_foot": (("left_big_toe", "left_small_toe"),),
    "right_foot": (("right_big_toe", "right_small_toe"),),
}


def convert_layout(
    x: Tensor,
    source: SkeletonLayout,
    target: SkeletonLayout,
    *,
    visibility: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Convert clips of one skeleton to another, so that a network of the latter takes them.

    .. math:: x'_v = \sum_{w \in S_v} W_{vw} \, x_w, \qquad c'_v = \sum_{w \in S_v} W_{vw} \, c_w

    W is (V', V) and its rows add up to 1; c is the visibility. A joint of the same name is copied:
    W = 1. For some of the others a mean has the same meaning:

    ===========  ===================================  ==============================================
    joint        is the mean of                       reason
    ===========  ===================================  ==============================================
    neck         shoulders                            OpenPose defines its neck so
    upper_spine  shoulders                            3 cm off in NTU RGB+D; the neck, 6 cm
    spine_base   hips                                 3 cm off in NTU RGB+D
    spine        spine_base, neck                     1 cm off in NTU RGB+D; 5 cm without its neck
    chest        spine, neck                          Azure Kinect's chest lies between them
    head         ears, or else eyes, or else nose     the ears are level with the head's centre
    nose         head                                 the nearest joint; a head's radius off
    hand         index and pinky                      MediaPipe's knuckles on both sides of the hand
    foot         big and small toe                    Kinect's foot is the front of the foot
    ===========  ===================================  ==============================================

    The distances are means over two clips. The joints of a mean may be means themselves. A joint
    that has no row is missing, since a wrist is not a hand, nor an ankle a foot, and so is each
    joint for which not all of S_v were seen. Missing joints have position and visibility 0. S_v is
    the same in all frames, so that no joint jumps.

    Shape:
        x (N, C, T, V, M), visibility (N, T, V, M) -> (N, C, T, V', M), (N, T, V', M).

    Args:
        x: positions, in any units.
        source: the skeleton of x, with V joints.
        target: the skeleton of the result, with V' joints.
        visibility: by default all joints were seen.

    Returns:
        The positions and their visibility, which :func:`make_stream`, :func:`body_height` and
        others take.

    Raises:
        ValueError: mismatched shapes, or no joint of ``target`` can be made from ``source``.

    Example:
        >>> from skeleton_focus import COCO17, NTU25
        >>> x, seen = convert_layout(torch.randn(2, 2, 8, 17, 1), COCO17, NTU25)
        >>> x.shape, int(seen[0, 0].sum())  # without hands and feet
        (torch.Size([2, 2, 8, 25, 1]), 17)
    """
    who = "convert_layout"
    _check(who, x, source, visibility=visibility)
    known = _joint_means(source)
    wanted = [known.get(joint, {}) for joint in target.joints]
    if not any(wanted):
        expected = "layouts with joints in common"
        raise ValueError(message(who, expected, f"{source.name!r} and {target.name!r}"))
    seen = torch.ones_like(x[:, 0]) if visibility is None else visibility.to(x.dtype)
    # Sums over gathered joints: a product with W would spread NaN and, on GPUs, round in TF32.
    slots = max(len(joints) for joints in wanted)
    index = torch.zeros(len(wanted), slots, dtype=torch.int64)
    weight = torch.zeros(len(wanted), slots, dtype=x.dtype)
    for row, joints in enumerate(wanted):
        if joints:
            index[row] = next(iter(joints))  # with weight 0 in the slots that are left
            index[row, : len(joints)] = torch.tensor(list(joints))
            weight[row, : len(joints)] = torch.tensor(list(joints.values()), dtype=x.dtype)
    index = index.to(x.device)
    weight = weight.to(x.device)
    made = (weight > 0).any(1)[:, None]  # (V', 1)
    places = torch.zeros_like(x[:, :, :, index[:, 0]])  # (N, C, T, V', M)
    confidence = torch.zeros_like(seen[:, :, index[:, 0]])  # (N, T, V', M)
    for slot in range(slots):
        joints_at = index[:, slot]
        share = weight[:, slot, None]  # (V', 1)
        places = places + share * x[:, :, :, joints_at]
        confidence = confidence + share * seen[:, :, joints_at]
        made = made & (seen[:, :, joints_at] > 0)  # (N, T, V', M)
    confidence = torch.where(made, confidence, 0)
    return torch.where(made[:, None], places, 0), confidence


def _joint_means(source: SkeletonLayout) -> dict[str, dict[int, float]]:
    """The joints that can be made from a layout, each as the weights of the layout's joints."""
    known = {joint: {index: 1.0} for index, joint in enumerate(source.joints)}
    for joint, choices in _MEANS.items():
        usable = [choice for choice in choices if all(one in known for one in choice)]
        if joint in known or not usable:
            continue
        weights: dict[int, float] = {}
        for one in usable[0]:
            for index, share in known[one].items():
                weights[index] = weights.get(index, 0.0) + share / len(usable[0])
        known[joint] = weights
    return known


def prepare_stf(
    x: Tensor,
    lengths: Tensor,
    layout: SkeletonLayout,
    *,
    visibility: Tensor | None = None,
    frames: int = 300,
) -> Tensor:
    """Centre, divide by body height, append visibility, repeat to ``frames``, as the paper does.

    Shape:
        x (N, C, T, V, M), lengths (N,), visibility (N, T, V, M) -> (N, C + 1, frames, V, M).

    Example:
        >>> from skeleton_focus import NTU25
        >>> prepare_stf(torch.randn(2, 3, 40, 25, 2), torch.tensor([40, 30]), NTU25).shape
        torch.Size([2, 4, 300, 25, 2])

    Reference:
        STF (Ke et al., AAAI 2022), "Data preparation".
    """
    _check("prepare_stf", x, layout, visibility=visibility)
    height = body_height(x, layout, visibility=visibility)[:, None, None, None, None]
    x = center(x, layout.center, visibility=visibility) / height
    x = add_visibility(x, visibility)
    return repeat_frames(x, lengths, frames)


def fuse(
    outputs: Sequence[Tensor],
    weights: Sequence[float] | None = None,
    *,
    kind: str = "probabilities",
) -> Tensor:
    r"""Fuse the outputs of several networks: streams, or the two STF branches.

    .. math:: \frac{\sum_s w_s \, p_s}{\sum_s w_s} \quad\text{or}\quad \sum_s w_s \, z_s

    Probabilities p are averaged, as STF does; logits z are added, as CTR-GCN's code does.
    Log-probabilities are added, too. They differ from logits by one number for each clip, so both
    rank the classes of a clip alike.

    Choose the weights before you see the test clips, or the accuracy is too high.

    Shape:
        each (N, classes) -> (N, classes).

    Args:
        outputs: one tensor for each network.
        weights: one for each network, by default 1; CTR-GCN's code for NW-UCLA has 0.6 for the
            joint and the bone stream, 0.4 for their motions. Those of probabilities are divided by
            their sum.
        kind: what the outputs are: ``"probabilities"``, ``"log_probabilities"`` or ``"logits"``.

    Raises:
        ValueError: no tensors, different shapes, rows that are not of that kind, or invalid
            weights.

    Example:
        >>> fuse([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])])
        tensor([[0.7500, 0.2500]])
        >>> fuse([torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]])], [1, 2], kind="logits")
        tensor([[ 2., 10.]])

    Reference:
        STF (Ke et al., AAAI 2022), "Joint-bone stream fusion"; CTR-GCN (Chen et al., ICCV 2021).
    """
    check_choice("fuse", "kind", kind, KINDS)
    if len(outputs) == 0:
        raise ValueError(message("fuse", f"at least one tensor of {kind}", "none"))
    check_shape("fuse", kind, outputs[0], "N, classes")
    n, classes = outputs[0].shape
    for output in outputs:
        check_shape("fuse", kind, output, f"N={n}, classes={classes}")
        if can_read(output):
            _check_kind(output, kind)
    factors = [1.0] * len(outputs) if weights is None else list(weights)
    if len(factors) != len(outputs) or not min(factors) >= 0 or not sum(factors) > 0:
        raise ValueError(
            message("fuse", f"{len(outputs)} weights of at least 0, not all 0", factors)
        )
    total = sum(factors) if kind == "probabilities" else 1.0
    # Without those of weight 0: 0 times a logarithm of -inf is NaN.
    pairs = [pair for pair in zip(outputs, factors, strict=True) if pair[1]]
    weighted = [output * (factor / total) for output, factor in pairs]
    return torch.stack(weighted).sum(0)


def _check_kind(output: Tensor, kind: str) -> None:
    """Check that the rows (N, classes) are probabilities, log-probabilities or finite logits."""
    if kind == "logits":
        if not output.isfinite().all():
            raise ValueError(message("fuse", "finite logits", "NaN or infinity"))
        return
    p = output.double()
    if kind == "log_probabilities":
        p = p.exp()
    sums = p.sum(1)
    # bfloat16 rows deviate by a few thousandths, their logarithms by more; NaN fails.
    valid = ((sums - 1).abs() < (1e-2 if kind == "probabilities" else 5e-2)) & (p >= 0).all(1)
    if not valid.all():
        what = "adding up to 1" if kind == "probabilities" else "whose exponentials add up to 1"
        function = "softmax" if kind == "probabilities" else "log_softmax"
        hint = f'apply {function} to logits first, or pass kind="logits"'
        raise ValueError(
            message("fuse", f"{kind}, each row {what}", sums[~valid][:1].tolist(), hint)
        )


def _take_frames(x: Tensor, index: Tensor) -> Tensor:
    """Select frames ``index`` (N, frames) of x (N, C, T, V, M)."""
    rows = torch.arange(len(x), device=x.device)[:, None]
    taken = x.transpose(1, 2)[rows, index]  # (N, frames, C, V, M)
    return taken.transpose(1, 2)


def _mask_unseen(x: Tensor, visibility: Tensor | None) -> Tensor:
    """Set joints that were not seen to zero."""
    # Visibility may be a confidence, which must not scale positions.
    return x if visibility is None else x * (visibility > 0).to(x.dtype)[:, None]


def _check(
    who: str, x: Tensor, layout: SkeletonLayout | None = None, *, visibility: Tensor | None = None
) -> None:
    check_shape(
        who, "x", x, "N, C, T, V, M" if layout is None else f"N, C, T, V={layout.num_joints}, M"
    )
    if visibility is not None:
        n, _, t, v, m = x.shape
        check_shape(who, "visibility", visibility, f"N={n}, T={t}, V={v}, M={m}")


def _check_lengths(who: str, x: Tensor, lengths: Tensor, frames: int) -> None:
    _check(who, x)
    check_lengths(who, lengths, x)
    if frames < 1:
        raise ValueError(message(who, "frames of at least 1", frames))
