"""The same clips seen otherwise: turned, resized, slanted, mirrored, with joints lost.

All functions take batches x (N, C, T, V, M) and numbers for each clip, run on x's device and leave their input as it
was. Positions are measured from the centre, as :func:`~skeleton_focus.streams.center` gives them; a joint that was not
seen is at 0 and stays there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import check_shape, message
from .layouts import SkeletonLayout


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each clip about the origin: about x first, then y, then z; in the plane about z alone.

    Shape:
        x (N, C=3, T, V, M), angles (N, 3) in radians -> (N, 3, T, V, M); or
        x (N, C=2, T, V, M), angles (N, 1) in radians -> (N, 2, T, V, M).

    Example:
        >>> quarter = torch.tensor([[0.0, 0.0, torch.pi / 2]])
        >>> rotate(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1, 1), quarter).flatten().round().abs()
        tensor([0., 1., 0.])
    """
    flat = isinstance(angles, Tensor) and angles.dim() == 2 and angles.shape[1] == 1
    axes, size = ((2,), 2) if flat else ((0, 1, 2), 3)
    check_shape("rotate", "x", x, f"N, C={size}, T, V, M")
    check_shape("rotate", "angles", angles, f"N={len(x)}, axes={len(axes)}")
    turn = torch.eye(size, dtype=x.dtype, device=x.device).expand(len(x), size, size)
    for axis, angle in zip(axes, angles.unbind(1), strict=True):
        i, j = [k for k in range(3) if k != axis]
        sign = -1 if axis == 1 else 1
        cos, sin = angle.cos(), sign * angle.sin()
        about = torch.eye(size, dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
        about[:, i, i], about[:, i, j], about[:, j, i], about[:, j, j] = cos, -sin, sin, cos
        turn = about @ turn
    return torch.einsum("nij,njtvm->nitvm", turn, x)


def scale(x: Tensor, factors: Tensor) -> Tensor:
    """Resize each clip about the origin, alike along all axes.

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
    r"""Slant each clip: :math:`x'_i = x_i + \sum_{j \ne i} s_{ij} x_j`.

    Shape:
        x (N, C, T, V, M), factors (N, C, C - 1) -> the same as x.

    Args:
        x: positions.
        factors: s; row i holds what the other axes, in their order, add to axis i. So for C = 3 the rows are
            (s_xy, s_xz), (s_yx, s_yz), (s_zx, s_zy).

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
    slant = torch.eye(c, dtype=x.dtype, device=x.device).repeat(n, 1, 1)
    for i in range(c):
        slant[:, i, [j for j in range(c) if j != i]] = factors[:, i].to(x.dtype)
    return torch.einsum("nij,njtvm->nitvm", slant, x)


def flip(x: Tensor, layout: SkeletonLayout, which: Tensor) -> Tensor:
    """Mirror clips: the first channel, from left to right, changes its sign, and left and right joints change places.

    Shape:
        x (N, C, T, V, M), which (N,) -> the same as x.

    Args:
        x: positions.
        layout: the skeleton; its pairs change places.
        which: true for the clips to mirror.

    Raises:
        ValueError: shapes that do not fit, or a layout that names no pairs.

    Example:
        >>> from skeleton_focus import SkeletonLayout
        >>> arms = SkeletonLayout.from_bones([(0, 1), (0, 2)], pairs=[(1, 2)])
        >>> flip(torch.tensor([0.0, 1.0, -3.0]).view(1, 1, 1, 3, 1), arms, torch.tensor([True])).flatten()
        tensor([-0.,  3., -1.])
    """
    check_shape("flip", "x", x, f"N, C, T, V={layout.num_joints}, M")
    check_shape("flip", "which", which, f"N={len(x)}")
    if not layout.pairs:
        hint = "SkeletonLayout.from_bones takes them as pairs"
        raise ValueError(message("flip", "a layout with left and right pairs", f"{layout.name!r} without", hint))
    mirrored = x[:, :, :, list(layout.mirror)]
    mirrored = torch.cat([-mirrored[:, :1], mirrored[:, 1:]], dim=1)
    return torch.where(which.bool()[:, None, None, None, None], mirrored, x)


def drop_joints(x: Tensor, which: Tensor) -> Tensor:
    """Lose joints for the whole clip: they stay at 0.

    A visibility (N, T, V, M) goes the same way as one channel, ``drop_joints(visibility[:, None], which)[:, 0]``.

    Shape:
        x (N, C, T, V, M), which (N, V, M), true for the joints to lose -> the same as x.

    Example:
        >>> drop_joints(torch.ones(1, 1, 2, 3, 1), torch.tensor([[[False], [True], [False]]])).flatten()
        tensor([1., 0., 1., 1., 0., 1.])
    """
    check_shape("drop_joints", "x", x, "N, C, T, V, M")
    n, _, _, v, m = x.shape
    check_shape("drop_joints", "which", which, f"N={n}, V={v}, M={m}")
    return x.masked_fill(which.bool()[:, None, None], 0)
