"""STF's instance-dependent adjacency and the graph convolution that uses it (STF, equation 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._checks import check_shape, message
from ._pointwise import PointwiseConv
from .graph_conv import GraphConv, convolve_graph

__all__ = ["STFAdjacency", "STFGraphConv"]


class _CoveringConv(nn.Conv2d):
    """A convolution whose kernel covers its input, x (N, C, T, V) -> (N, O, 1, 1).

    As a linear layer it is faster; saved networks have the weight of a convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


class STFAdjacency(nn.Module):
    r"""Generate an adjacency for each sample from its features.

    .. math:: e = \beta(X) \in [0, 1]^{T \times V}, \qquad
        G = \alpha(e) \in \mathbb{R}^{K \times V \times V}

    beta: 1x1 convolution C -> C/4, 3x1 over time, 1x1 -> 1, BatchNorm and ReLU between, a sigmoid
    last, because L_G compares e with a focus in [0, 1]. alpha: time pooled to ``bins``, a
    convolution that covers the whole bins x V embedding, ReLU, a 1x1 convolution to K V V channels.
    That last convolution starts at zero, so a network to which G is added begins exactly as the
    network without it.

    Shape:
        x (N, C, T, V) -> (G (N, K, V, V), e (N, T, V)). Nothing is stored on the module.

    Args:
        in_channels: C.
        num_subsets: K; the paper's 3.
        num_joints: V.
        bins: frames that time is pooled to, so that any T works.
        hidden: channels between alpha's two convolutions.

    Raises:
        ValueError: an x of another shape.

    Example:
        >>> G, embedding = STFAdjacency(16, 3, 25)(torch.randn(2, 16, 10, 25))
        >>> G.shape, embedding.shape, G.abs().max().item()
        (torch.Size([2, 3, 25, 25]), torch.Size([2, 10, 25]), 0.0)

    Reference:
        STF (Ke et al., AAAI 2022), equation 1 and figure 2(d).
    """

    def __init__(
        self,
        in_channels: int,
        num_subsets: int,
        num_joints: int,
        *,
        bins: int = 8,
        hidden: int = 16,
    ) -> None:
        super().__init__()
        if bins < 1 or hidden < 1:
            raise ValueError(
                message("STFAdjacency", "bins and hidden of at least 1", (bins, hidden))
            )
        # C // 4 is 0 for the first layer's three coordinates.
        width = max(in_channels // 4, 1)
        self.in_channels = in_channels
        self.num_subsets = num_subsets
        self.num_joints = num_joints
        self.bins = bins
        self.beta = nn.Sequential(
            PointwiseConv(in_channels, width, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, (3, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            PointwiseConv(width, 1),
        )
        self.cover = _CoveringConv(1, hidden, (bins, num_joints))  # alpha: these two
        self.emit = PointwiseConv(hidden, num_subsets * num_joints * num_joints)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Re-initialise all weights; alpha's last convolution starts at zero, so that G = 0."""
        # ``cover`` must not start at zero as ``emit`` does: neither weight would get a gradient.
        for module in (*self.beta, self.cover):
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.reset_parameters()
        for parameter in self.emit.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        check_shape("STFAdjacency", "x", x, f"N, C={self.in_channels}, T>0, V={self.num_joints}")
        n, _, _, v = x.shape
        embedding = torch.sigmoid(self.beta(x))  # (N, 1, T, V)
        adjacency = self.emit(F.relu(self.cover(self._pooled(embedding))))
        return adjacency.view(n, self.num_subsets, v, v), embedding.squeeze(1)

    def _pooled(self, embedding: Tensor) -> Tensor:
        """Pool over time, (N, 1, T, V) -> (N, 1, bins, V), by a matrix product.

        The result is that of F.adaptive_avg_pool2d, and the product exports for any T.
        """
        t = embedding.shape[2]
        bins = self.bins
        place, frame = (torch.arange(size, device=embedding.device) for size in (bins, t))
        # (bins, T), the start of a frame after that of a bin.
        after = frame * bins - place[:, None] * t
        # Frame f overlaps bin p if f * bins < (p + 1) * T and p * T < (f + 1) * bins.
        inside = (after > -bins) & (after < t)
        return inside.to(embedding.dtype) @ embedding / inside.sum(1, keepdim=True)

    def extra_repr(self) -> str:
        return f"subsets={self.num_subsets}, joints={self.num_joints}, bins={self.bins}"


class STFGraphConv(GraphConv):
    r"""Graph convolution over a fixed adjacency and the sample's own.

    .. math:: X^{l+1} = \sum_{k=1}^{K} W_k X^l (A_k + G_k), \qquad G = \alpha(\beta(X^l))

    Before training, it computes the same as :class:`~skeleton_focus.GraphConv` with the same
    weights. With ``generated`` below K, G_k is zero for the subsets after the first ``generated``
    ones.

    Shape:
        x (N, C, T, V) -> (N, O, T, V).

    Args:
        in_channels: C.
        out_channels: O.
        adjacency: (K, V, V); the paper takes K = 3 scales of
            :func:`~skeleton_focus.multi_scale_adjacency`.
        learn_adjacency: see :class:`~skeleton_focus.GraphConv`.
        bias: add one number to each output channel.
        generated: generate G_k for the first ``generated`` subsets, 1 to K; by default for all K.
        bins: see :class:`STFAdjacency`.
        hidden: see :class:`STFAdjacency`.

    Raises:
        ValueError: an adjacency that is not (K, V, V), ``generated`` outside 1..K, or an x of
            another shape.

    Example:
        >>> from skeleton_focus import NTU25, multi_scale_adjacency
        >>> conv = STFGraphConv(3, 16, multi_scale_adjacency(NTU25, 3))
        >>> conv(torch.randn(2, 3, 8, 25)).shape
        torch.Size([2, 16, 8, 25])

    Reference:
        STF (Ke et al., AAAI 2022), equation 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        adjacency: Tensor,
        *,
        learn_adjacency: bool = False,
        bias: bool = True,
        generated: int | None = None,
        bins: int = 8,
        hidden: int = 16,
    ) -> None:
        super().__init__(
            in_channels, out_channels, adjacency, learn_adjacency=learn_adjacency, bias=bias
        )
        subsets, joints, _ = adjacency.shape
        generated = subsets if generated is None else generated
        if not 1 <= generated <= subsets:
            raise ValueError(message("STFGraphConv", f"generated in 1..K={subsets}", generated))
        self.generator = STFAdjacency(in_channels, generated, joints, bins=bins, hidden=hidden)

    def reset_parameters(self) -> None:
        """Re-initialise W_k and start G at zero."""
        super().reset_parameters()
        if hasattr(self, "generator"):  # not yet while GraphConv is built
            self.generator.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        subsets = len(self.weight)
        generated = self.generator.num_subsets
        if generated == subsets:
            return super().forward(x)
        axes = f"N, C={self.weight.shape[2]}, T>0, V={self.adjacency.shape[-1]}"
        check_shape("STFGraphConv", "x", x, axes)
        # Subsets without G_k are equal for all samples; apart, they take much less memory.
        own = self.current_adjacency(x)[:, :generated]
        shared = super().current_adjacency(x)[generated:]
        # The bias belongs to the sum and is added in one of the two only.
        y = convolve_graph(x, self.weight[:generated], own, self.bias)
        return y + convolve_graph(x, self.weight[generated:], shared)

    def current_adjacency(self, x: Tensor) -> Tensor:
        """A + R + G (N, K, V, V) for each sample; G is zero for subsets without a generated one."""
        generated: Tensor = self.generator(x)[0]
        rest = len(self.weight) - self.generator.num_subsets
        if rest:
            generated = F.pad(generated, (0, 0, 0, 0, 0, rest))
        return super().current_adjacency(x) + generated
