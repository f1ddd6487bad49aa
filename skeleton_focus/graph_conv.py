"""Convolve graphs of joints: one subset, several scales, windows; fixed or learned adjacency."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ._checks import check_adjacency, check_shape, message
from ._pointwise import mix_channels
from ._windows import convolve

__all__ = [
    "GraphConv",
    "MultiScaleG3D",
    "MultiScaleGraphConv",
    "convolve_graph",
    "convolve_windows",
]


def convolve_graph(
    x: Tensor, weight: Tensor, adjacency: Tensor, bias: Tensor | None = None
) -> Tensor:
    r"""Aggregate each joint's neighbours and mix the channels, summed over adjacency subsets.

    .. math:: Y = \sum_{k=1}^{K} W_k X A_k + b

    The channels are mixed before the aggregation if O <= C, and after it otherwise, so that the
    fewer channels are aggregated. The sum is the same.

    Shape:
        x (N, C, T, V), weight (K, O, C), adjacency (K, V, V) or one for each sample (N, K, V, V),
        bias (O,) -> (N, O, T, V).

    Raises:
        ValueError: shapes that do not fit each other.

    Example:
        >>> x = torch.arange(3.0).view(1, 1, 1, 3)
        >>> convolve_graph(x, torch.ones(1, 1, 1), torch.eye(3)[None].roll(1, -1)).flatten()
        tensor([2., 0., 1.])

    Reference:
        STF (Ke et al., AAAI 2022), equation 1; ST-GCN (Yan et al., AAAI 2018).
    """
    check_shape("convolve_graph", "weight", weight, "K, O, C")
    subsets, out_channels, in_channels = weight.shape
    check_shape("convolve_graph", "x", x, f"N, C={in_channels}, T, V={adjacency.shape[-1]}")
    n, _, t, v = x.shape
    lead = "" if adjacency.dim() == 3 else "N, "
    check_shape("convolve_graph", "adjacency", adjacency, f"{lead}K={subsets}, V={v}, V={v}", N=n)
    if bias is not None:
        check_shape("convolve_graph", "bias", bias, f"O={out_channels}")
    # With fewer subsets, the transposed layout of ``convolve`` costs more than it saves.
    if out_channels <= in_channels and adjacency.dim() == 3 and subsets > 4:
        y = convolve(x, weight, adjacency, 1).contiguous()
        return y if bias is None else y + bias.view(-1, 1, 1)
    # Mixed first: O channels are aggregated for each subset, in one product for all K.
    if out_channels <= in_channels:
        mixed = mix_channels(x, weight.flatten(0, 1))  # (N, K*O, T, V)
        carried = mixed.reshape(n, subsets, out_channels * t, v) @ adjacency  # (N, K, O*T, V)
        y = carried.sum(1).view(n, out_channels, t, v)
        return y if bias is None else y + bias.view(-1, 1, 1)
    # Aggregated first: the C channels are fewer, and one product mixes and sums all K.
    carried = x.reshape(n, 1, in_channels * t, v) @ adjacency  # (N, K, C*T, V)
    mixer = weight.transpose(0, 1).reshape(out_channels, subsets * in_channels)
    return mix_channels(carried.view(n, subsets * in_channels, t, v), mixer, bias)


def convolve_windows(x: Tensor, weight: Tensor, adjacency: Tensor, *, stride: int = 1) -> Tensor:
    r"""Convolve over windows of w frames; the adjacency joins the joints of all their frames.

    .. math:: Y_{o t' j} = \sum_{k, c, i, v} W_{k o c} \, X_{c, s t' + i - \lfloor w / 2 \rfloor, v}
        \, A_{k, (i, v), j}

    with zeros beyond the clip's ends. The windows are not copied. The channels are mixed before or
    after the aggregation, whichever needs fewer multiplications. The backward pass recomputes
    mixed channels instead of keeping them.

    Shape:
        x (N, C, T, V), weight (K, O, C), adjacency (K, w * V, w * V), frame-major as
        :func:`~skeleton_focus.window_adjacency` gives it -> (N, O, ceil(T / stride), w * V).

    Args:
        x: feature map.
        weight: W.
        adjacency: A; w is odd.
        stride: keep every stride-th window, s.

    Raises:
        ValueError: shapes that do not fit each other, an even window, or a stride below 1.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1)
        >>> convolve_windows(x, torch.ones(1, 1, 1), torch.ones(1, 3, 3))[0, 0]
        tensor([[3., 3., 3.],
                [6., 6., 6.],
                [5., 5., 5.]])

    Reference:
        MS-G3D (Liu et al., CVPR 2020), section 3.3.
    """
    who = "convolve_windows"
    check_shape(who, "weight", weight, "K, O, C")
    check_shape(who, "x, for a weight (K, O, C),", x, f"N, C={weight.shape[2]}, T, V")
    check_adjacency(who, adjacency)
    if x.shape[3] == 0:
        raise ValueError(message(who, "at least 1 joint", tuple(x.shape)))
    # The window is read from the sizes, because the adjacency alone does not tell w from V.
    window, rest = divmod(adjacency.shape[-1], x.shape[3])
    if rest != 0 or window % 2 != 1:
        expected = f"an adjacency of w * V joints, V={x.shape[3]} and w odd"
        hint = "window_adjacency(layout, w, K) gives one"
        raise ValueError(message(who, expected, tuple(adjacency.shape), hint))
    size = window * x.shape[3]
    check_shape(who, "adjacency", adjacency, f"K={len(weight)}, w*V={size}, w*V={size}")
    if stride < 1:
        raise ValueError(message(who, "a stride of at least 1", stride))
    return convolve(x, weight, adjacency, stride)


class GraphConv(nn.Module):
    r"""Apply a graph convolution with K fixed adjacency subsets.

    Learned tensors can weight the subsets (M_k) or correct them (R_k).

    .. math:: Y = \sum_{k=1}^{K} W_k X (M_k \otimes A_k + R_k) + b

    Shape:
        x (N, C, T, V) -> (N, O, T, V).

    Args:
        in_channels: C.
        out_channels: O.
        adjacency: (K, V, V), from :mod:`skeleton_focus.adjacency` or your own; ``A[k, v, w]``
            carries v to w.
        learn_adjacency: add the learned R_k, of the adjacency's shape and near zero at the start.
        edge_importance: weight each edge by the learned M_k, ones at the start; where A is 0 no
            edge appears.
        bias: add b.

    Raises:
        ValueError: an adjacency that is not (K, V, V), or an x of another shape.

    Example:
        >>> from skeleton_focus import KINECT20, spatial_partition
        >>> conv = GraphConv(3, 16, spatial_partition(KINECT20))
        >>> conv(torch.randn(2, 3, 8, 20)).shape
        torch.Size([2, 16, 8, 20])

    Reference:
        ST-GCN (Yan et al., AAAI 2018), equation 10 and "learnable edge importance weighting"; the
        correction: MS-G3D (Liu et al., CVPR 2020), section 4.2.
    """

    adjacency: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        adjacency: Tensor,
        *,
        learn_adjacency: bool = False,
        edge_importance: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_adjacency(type(self).__name__, adjacency)
        self.register_buffer("adjacency", adjacency.detach().clone())
        self.weight = nn.Parameter(torch.empty(len(adjacency), out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.correction = (
            nn.Parameter(torch.empty_like(self.adjacency)) if learn_adjacency else None
        )
        self.importance = (
            nn.Parameter(torch.empty_like(self.adjacency)) if edge_importance else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as the published MS-G3D does, by the fan-in of all K subsets."""
        bound = 1 / math.sqrt(self.weight.shape[0] * self.weight.shape[2])
        # Uniform on [-sqrt(3) b, sqrt(3) b] has the standard deviation b.
        nn.init.uniform_(self.weight, -math.sqrt(3) * bound, math.sqrt(3) * bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)
        if self.correction is not None:
            # MS-G3D's residual mask starts near zero, so that training begins at the given graph.
            nn.init.uniform_(self.correction, -1e-6, 1e-6)
        if self.importance is not None:
            nn.init.ones_(self.importance)

    def forward(self, x: Tensor) -> Tensor:
        axes = f"N, C={self.weight.shape[2]}, T>0, V={self.adjacency.shape[-1]}"
        check_shape(type(self).__name__, "x", x, axes)
        return convolve_graph(x, self.weight, self.current_adjacency(x), self.bias)

    def current_adjacency(self, x: Tensor) -> Tensor:
        """Return the adjacency used for x (N, C, T, V): (K, V, V).

        A subclass that computes it from x returns (N, K, V, V).
        """
        # M_k multiplies, so no edge appears where A is 0; R_k adds and may make new ones.
        weighted = self.adjacency if self.importance is None else self.importance * self.adjacency
        return weighted if self.correction is None else weighted + self.correction

    def extra_repr(self) -> str:
        subsets, out_channels, in_channels = self.weight.shape
        return (
            f"{in_channels}, {out_channels}, subsets={subsets}, joints={self.adjacency.shape[-1]}, "
            f"learn_adjacency={self.correction is not None}, "
            f"edge_importance={self.importance is not None}"
        )


class MultiScaleGraphConv(nn.Module):
    """Apply MS-G3D's multi-scale graph convolution: :class:`GraphConv` over hops, BatchNorm, ReLU.

    Shape:
        x (N, C, T, V) -> (N, O, T, V).

    Args:
        in_channels: C.
        out_channels: O.
        adjacency: (K, V, V), as :func:`~skeleton_focus.multi_scale_adjacency` gives it; the paper's
            K is 13 (NTU25).
        learn_adjacency: learn a correction of the adjacency (the paper's residual mask).

    Raises:
        ValueError: an adjacency that is not (K, V, V), or an x of another shape.

    Example:
        >>> from skeleton_focus import NTU25, multi_scale_adjacency
        >>> conv = MultiScaleGraphConv(3, 16, multi_scale_adjacency(NTU25, 13))
        >>> conv(torch.randn(2, 3, 8, 25)).shape
        torch.Size([2, 16, 8, 25])

    Reference:
        MS-G3D (Liu et al., CVPR 2020), equations 5 and 6.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        adjacency: Tensor,
        *,
        learn_adjacency: bool = True,
    ) -> None:
        super().__init__()
        check_adjacency("MultiScaleGraphConv", adjacency)
        self.conv = GraphConv(
            in_channels, out_channels, adjacency, learn_adjacency=learn_adjacency, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        axes = f"N, C={self.conv.weight.shape[2]}, T>0, V={self.conv.adjacency.shape[-1]}"
        check_shape("MultiScaleGraphConv", "x", x, axes)
        return F.relu(self.norm(self.conv(x)))


class _WindowConv(GraphConv):
    """The graph convolution of a G3D pathway."""

    stride: int

    def forward(self, x: Tensor) -> Tensor:
        return convolve_windows(x, self.weight, self.current_adjacency(x), stride=self.stride)


class MultiScaleG3D(nn.Module):
    """Convolve over windows of frames, then turn each window into a frame: a pathway of MS-G3D.

    BatchNorm and ReLU follow the graph convolution, only BatchNorm the convolution over the
    window's w frames; the published block adds the pathways of several windows to a spatial one
    before its ReLU.

    Shape:
        x (N, C, T, V) -> (N, O, ceil(T / stride), V).

    Args:
        in_channels: C.
        out_channels: O.
        adjacency: (K, w * V, w * V), as :func:`~skeleton_focus.window_adjacency` gives it; the
            paper's K is 6.
        window: w, odd; the paper's 3 and 5.
        stride: keep every stride-th window.
        hidden_channels: channels between the two convolutions; by default C, as in the paper's
            later blocks. Its first block has O.
        learn_adjacency: learn a correction of the adjacency (the paper's residual mask).

    Raises:
        ValueError: an even window, an adjacency that does not fit it, or an x of another shape.

    Example:
        >>> from skeleton_focus import NTU25, window_adjacency
        >>> pathway = MultiScaleG3D(16, 32, window_adjacency(NTU25, 3, 6), 3, stride=2)
        >>> pathway(torch.randn(2, 16, 8, 25)).shape
        torch.Size([2, 32, 4, 25])

    Reference:
        MS-G3D (Liu et al., CVPR 2020), sections 3.3 and 4.1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        adjacency: Tensor,
        window: int,
        *,
        stride: int = 1,
        hidden_channels: int | None = None,
        learn_adjacency: bool = True,
    ) -> None:
        super().__init__()
        who = "MultiScaleG3D"
        if window < 1 or window % 2 != 1:
            hint = "an even window has no middle frame"
            raise ValueError(message(who, "an odd window", window, hint))
        if stride < 1:
            raise ValueError(message(who, "a stride of at least 1", stride))
        check_adjacency(who, adjacency)
        if adjacency.shape[-1] % window != 0:
            hint = f"window_adjacency(layout, {window}, K) gives one"
            raise ValueError(
                message(who, f"an adjacency of {window} * V joints", tuple(adjacency.shape), hint)
            )
        hidden = in_channels if hidden_channels is None else hidden_channels
        if min(in_channels, hidden, out_channels) < 1:
            raise ValueError(
                message(who, "at least 1 channel", (in_channels, hidden, out_channels))
            )
        self.window = window
        self.stride = stride
        self.conv = _WindowConv(
            in_channels, hidden, adjacency, learn_adjacency=learn_adjacency, bias=False
        )
        self.conv.stride = stride
        self.norm = nn.BatchNorm2d(hidden)
        self.collapse = nn.Conv2d(hidden, out_channels, (window, 1), bias=False)
        self.collapse_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        total = self.conv.adjacency.shape[-1]
        joints = total // self.window
        # A wrong window gives a wrong V, so the message tells how V was found.
        name = "x"
        if x.dim() != 4 or x.shape[3] != joints:
            name += (
                f", for {total} joints of the adjacency read as {self.window} frames of {joints},"
            )
        axes = f"N, C={self.conv.weight.shape[2]}, T>0, V={joints}"
        check_shape("MultiScaleG3D", name, x, axes)
        # A window's joints are frame-major, so that w can be split off for the kernel (w, 1).
        y = self.conv(x)  # (N, hidden, T', w V)
        y = F.relu(self.norm(y.transpose(2, 3)))  # (N, hidden, w V, T'), in memory channels last
        y = self.collapse(rearrange(y, "n c (w v) t -> n c w (v t)", w=self.window))
        y = rearrange(y, "n c 1 (v t) -> n c t v", v=joints).contiguous()
        z: Tensor = self.collapse_norm(y)
        return z

    def extra_repr(self) -> str:
        return f"window={self.window}, stride={self.stride}"
