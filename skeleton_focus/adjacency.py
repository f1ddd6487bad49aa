"""Adjacency matrices (K, V, V) from a layout.

Convention: ``A[k, v, w]`` carries joint v (source) to joint w (target), so a graph convolution is
``X @ A[k]``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._checks import check_choice, message
from .layouts import SkeletonLayout

__all__ = [
    "directed_adjacency",
    "hop_distance",
    "multi_scale_adjacency",
    "normalize_adjacency",
    "spatial_partition",
    "window_adjacency",
]


def hop_distance(layout: SkeletonLayout) -> Tensor:
    """Number of bones between every two joints, -1 where there is no path.

    Breadth-first search, since powers of an adjacency matrix overflow small integers silently.

    Shape:
        returns (V, V), int64.

    Example:
        >>> chain = SkeletonLayout.from_bones([(0, 1), (1, 2)])
        >>> hop_distance(chain).tolist()
        [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    """
    return torch.from_numpy(_hops(layout))


def normalize_adjacency(adjacency: Tensor, how: str = "symmetric") -> Tensor:
    """Divide an adjacency by its degrees.

    ``"symmetric"``: D_out^-1/2 A D_in^-1/2 with D_out the row sums (of sources) and D_in the column
    sums (of targets), one and the same where A is symmetric; ``"column"``: A D_in^-1, so that each
    target joint takes an average. A joint of degree zero keeps zeros.

    Shape:
        adjacency (..., V, V) -> (..., V, V).

    Args:
        adjacency: of a floating type, not below 0; ``A[v, w]`` carries v to w.
        how: ``"symmetric"`` or ``"column"``.

    Raises:
        ValueError: another way, or an adjacency that is not square or not of a floating type.

    Example:
        >>> normalize_adjacency(torch.ones(2, 2), "column")
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])

    Reference:
        Kipf and Welling, ICLR 2017, equation 2; ``"column"``: the published ST-GCN and 2s-AGCN.
    """
    check_choice("normalize_adjacency", "how", how, ("symmetric", "column"))
    shape = tuple(adjacency.shape)
    if len(shape) < 2 or shape[-1] != shape[-2] or not adjacency.is_floating_point():
        got = f"{shape} of {adjacency.dtype}"
        raise ValueError(
            message("normalize_adjacency", "an adjacency (..., V, V) of a floating type", got)
        )
    tiny = torch.finfo(adjacency.dtype).tiny
    out = adjacency.sum(-1, keepdim=True)
    into = adjacency.sum(-2, keepdim=True)
    if how == "column":
        return torch.where(into > 0, adjacency / into.clamp(min=tiny), 0.0)
    from_source, to_target = (
        torch.where(d > 0, d.clamp(min=tiny) ** -0.5, 0.0) for d in (out, into)
    )
    return from_source * adjacency * to_target


def multi_scale_adjacency(
    layout: SkeletonLayout, num_scales: int, *, first: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    r"""Compute the disentangled multi-scale adjacency.

    Scale k joins the joints exactly k bones apart, and each to itself.

    .. math:: A_k[v, w] = 1 \text{ where } d(v, w) = k \text{ or } v = w,
        \quad \text{then } D^{-1/2} A_k D^{-1/2}

    A scale beyond the longest path is the identity (NTU25 from scale 13 on, NTU25_PYSKL from 12).
    Joints without a path between them are joined at no scale.

    Shape:
        returns (K=num_scales, V, V).

    Args:
        layout: the skeleton.
        num_scales: K >= 1; MS-G3D uses 13, STF's equation 1 uses 3.
        first: k of the first scale; the scales are first .. first+K-1. MS-G3D begins with 0, the
            identity; 1 gives A_1, A_2 and A_3 of STF's equation 1 as joints 1, 2 and 3 bones apart.
        dtype: floating type of the result.

    Raises:
        ValueError: ``num_scales`` below 1 or ``first`` below 0.

    Example:
        >>> chain = SkeletonLayout.from_bones([(0, 1), (1, 2)])
        >>> multi_scale_adjacency(chain, 3)[2]
        tensor([[0.5000, 0.0000, 0.5000],
                [0.0000, 1.0000, 0.0000],
                [0.5000, 0.0000, 0.5000]])
        >>> later = multi_scale_adjacency(chain, 2, first=1)
        >>> torch.equal(later, multi_scale_adjacency(chain, 3)[1:])
        True

    Reference:
        MS-G3D (Liu et al., CVPR 2020), section 3.2; STF (Ke et al., AAAI 2022), equation 1.
    """
    if first < 0:
        raise ValueError(message("multi_scale_adjacency", "first of at least 0", first))
    return _scales("multi_scale_adjacency", _hops(layout) - first, num_scales, dtype)


def window_adjacency(
    layout: SkeletonLayout, window: int, num_scales: int, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Compute the multi-scale adjacency of a window of frames.

    Every frame is joined to every frame as a joint is to itself. Joint v of one frame and joint w
    of another are ``max(d(v, w), 1)`` apart, and a joint is 0 from itself. Joints without a path
    between them are not joined.

    Shape:
        returns (K=num_scales, window * V, window * V), frame-major: index t * V + v.

    Example:
        >>> chain = SkeletonLayout.from_bones([(0, 1), (1, 2)])
        >>> window_adjacency(chain, 3, 2).shape
        torch.Size([2, 9, 9])

    Reference:
        MS-G3D (Liu et al., CVPR 2020), section 3.3.
    """
    if window < 1:
        raise ValueError(message("window_adjacency", "a window of at least 1 frame", window))
    hops = _hops(layout)
    hops[hops == 0] = 1  # the same joint in another frame; -1 stays
    hops = np.tile(hops, (window, window))
    np.fill_diagonal(hops, 0)
    return _scales("window_adjacency", hops, num_scales, dtype)


def spatial_partition(layout: SkeletonLayout, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Compute the three subsets {root, inward, outward} of a layout.

    A joint takes from itself, from its parent, and from its children. "Inward" and "outward" name
    the bones as the published code does. As tables, a joint takes from its parent (the bone's end
    nearer to the centre) in ``A[1]`` and the mean of its children in ``A[2]``; columns are
    normalised.

    Shape:
        returns (K=3, V, V).

    Example:
        >>> from skeleton_focus import KINECT20
        >>> A = spatial_partition(KINECT20)
        >>> A.shape, A[1, 6, 7].item()  # the hand (7) takes from the wrist (6)
        (torch.Size([3, 20, 20]), 1.0)

    Reference:
        ST-GCN (Yan et al., AAAI 2018), section 3.3; 2s-AGCN (Shi et al., CVPR 2019), equation 2.
    """
    size = layout.num_joints
    from_parent = torch.zeros(size, size, dtype=dtype)
    for joint, parent in layout.bones:
        from_parent[parent, joint] = 1
    subsets = (torch.eye(size, dtype=dtype), from_parent, from_parent.T)
    return torch.stack([normalize_adjacency(subset, "column") for subset in subsets])


def directed_adjacency(
    layout: SkeletonLayout, direction: str, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The subsets {root, closer} of BAGCN's focus graph, or {root, far} of its diffusion graph.

    In the focus graph, ``"outward"``, bones lead from the centre outward: a joint takes from itself
    (root) and from the joint next to it that is closer to the centre. The diffusion graph,
    ``"inward"``, is the reverse: it takes from itself and from the joints next to it that are
    farther away. In a graph of one direction the third of the paper's subsets {root, closer, far}
    is empty, so it is left out. A bone between two joints equally near the centre belongs to the
    root subset of both graphs, as in ST-GCN. Each subset is divided by its degrees, D_out^-1/2 A
    D_in^-1/2. In a component without the centre, its root takes the centre's place.

    Shape:
        returns (K=2, V, V).

    Args:
        layout: the skeleton.
        direction: ``"outward"`` (focus) or ``"inward"`` (diffusion).
        dtype: floating type of the result.

    Raises:
        ValueError: another direction.

    Example:
        >>> chain = SkeletonLayout.from_bones([(0, 1), (1, 2)])
        >>> directed_adjacency(chain, "outward")[1]
        tensor([[0., 1., 0.],
                [0., 0., 1.],
                [0., 0., 0.]])

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), section 3.1 and equations 1 and 3.
    """
    check_choice("directed_adjacency", "direction", direction, ("outward", "inward"))
    outwards = torch.zeros(layout.num_joints, layout.num_joints, dtype=dtype)
    root = torch.eye(layout.num_joints, dtype=dtype)
    distance = layout.depths
    for joint, parent in layout.bones:
        if distance[joint] == distance[parent]:
            root[joint, parent] = root[parent, joint] = 1
        else:
            outwards[parent, joint] = 1
    return normalize_adjacency(
        torch.stack([root, outwards if direction == "outward" else outwards.T])
    )


def _hops(layout: SkeletonLayout) -> NDArray[np.int64]:
    return np.array([layout.hops(joint) for joint in range(layout.num_joints)], dtype=np.int64)


def _scales(who: str, hops: NDArray[np.int64], num_scales: int, dtype: torch.dtype) -> Tensor:
    if num_scales < 1:
        raise ValueError(message(who, "num_scales of at least 1", num_scales))
    joined = (hops == np.arange(num_scales)[:, None, None]) | np.eye(len(hops), dtype=bool)
    # In single precision to the last bit as the published code computed it, for checkpoints were
    # trained on these very tables. Its numpy.power rounds by processor; a root and a quotient do
    # not, and give what the published outputs hold but for 21 neighbours (windows of 5 frames),
    # whose root is one unit above. float64 is exact.
    degree = joined.sum(-1, dtype=np.float64 if dtype == torch.float64 else np.float32)
    scale = 1 / np.sqrt(degree)
    if dtype != torch.float64:
        scale[degree == 21] = np.nextafter(scale[degree == 21], np.float32(1))
    return torch.tensor(scale[:, :, None] * joined * scale[:, None, :]).to(dtype)
