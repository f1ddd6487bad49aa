"""Gather a frame's joints in a latent node; hand it back with all frames' context (BAGCN)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._checks import check_choice, check_lengths, check_shape, message
from ._pointwise import PointwiseConv, mix_channels
from .graph_conv import GraphConv
from .temporal_context import TemporalContext, mask_padding

__all__ = ["AttentiveDiffusion", "AttentiveFocus", "FocusDiffusionBlock", "LatentNode"]


class LatentNode(NamedTuple):
    """The output of :class:`AttentiveFocus`.

    Attributes:
        features: (N, C, T, 1), a node of each frame.
        weights: (N, T, V), how strongly each joint is joined to it.
    """

    features: Tensor
    weights: Tensor


class AttentiveFocus(nn.Module):
    r"""Gather the joints of each frame in one latent node.

    .. math:: G_S^t = \sum_v w_{tv} X_{tv} W_1, \qquad w = \sigma(X W_f + b)

    Each joint has a weight of its own in (0, 1). The paper's two other variants learn no weights,
    and return 1 for each joint: ``"mean"`` takes the mean of the embedded joints, ``"max"`` the
    largest value of each of their channels.

    Shape:
        x (N, C, T, V) -> :class:`LatentNode`.

    Args:
        channels: C.
        focus: ``"attention"``, ``"mean"`` or ``"max"``.
        normalize: how attention is normalised: ``"sigmoid"``, or ``"softmax"`` over the joints,
            whose weights then add up to 1.

    Raises:
        ValueError: an unknown option, softmax without attention, or an x of another shape or
            without joints.

    Example:
        >>> node = AttentiveFocus(16)(torch.randn(2, 16, 8, 25))
        >>> node.features.shape, node.weights.shape
        (torch.Size([2, 16, 8, 1]), torch.Size([2, 8, 25]))

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), equation 4; the variants: its table 3.
    """

    def __init__(
        self, channels: int, *, focus: str = "attention", normalize: str = "sigmoid"
    ) -> None:
        super().__init__()
        who = "AttentiveFocus"
        if channels < 1:
            raise ValueError(message(who, "at least 1 channel", channels))
        check_choice(who, "focus", focus, ("attention", "mean", "max"))
        check_choice(who, "normalize", normalize, ("sigmoid", "softmax"))
        if focus != "attention" and normalize != "sigmoid":
            raise ValueError(
                message(who, "normalize='softmax' with focus='attention'", f"focus={focus!r}")
            )
        self.focus = focus
        self.normalize = normalize
        self.embed = PointwiseConv(channels, channels, bias=False)
        self.score = PointwiseConv(channels, 1) if focus == "attention" else None

    def forward(self, x: Tensor) -> LatentNode:
        check_shape("AttentiveFocus", "x", x, f"N, C={self.embed.in_channels}, T>0, V")
        n, _, t, v = x.shape
        if v < 1:
            raise ValueError(message("AttentiveFocus", "x with at least 1 joint", tuple(x.shape)))
        if self.score is None:
            ones = x.new_ones(1, 1, 1).expand(n, t, v)
            # The mean commutes with W_1, which then sees one node and not V; the max does not.
            if self.focus == "max":
                return LatentNode(self.embed(x).amax(3, keepdim=True), ones)
            return LatentNode(self.embed(x.mean(3, keepdim=True)), ones)
        score = self.score(x)  # (N, 1, T, V)
        weights = score.sigmoid() if self.normalize == "sigmoid" else score.softmax(3)
        # Equation 4 with the sum before W_1: linear maps commute, and W_1 sees one node and not V.
        gathered = (x * weights).sum(3, keepdim=True)  # (N, C, T, 1)
        return LatentNode(self.embed(gathered), weights.squeeze(1))

    def extra_repr(self) -> str:
        return f"focus={self.focus!r}, normalize={self.normalize!r}"


class AttentiveDiffusion(nn.Module):
    r"""Distribute a node's context to the joints by their weights, and mix it with their features.

    .. math:: Y_{tv} = [X_{tv}, w_{tv} G_t] W_3 + b

    The weights are shared with the focus, as in the paper. The context is not expanded over the
    joints, because :math:`w_{tv} G_t W_3` is :math:`w_{tv}` times a frame's :math:`G_t W_3`.

    Shape:
        x (N, C, T, V), context (N, D, T, 1), weights (N, T, V) -> (N, C, T, V).

    Args:
        channels: C.
        context_channels: D.

    Raises:
        ValueError: inputs of other shapes.

    Example:
        >>> x, context = torch.randn(2, 16, 8, 25), torch.randn(2, 128, 8, 1)
        >>> weights = torch.rand(2, 8, 25)
        >>> AttentiveDiffusion(16, 128)(x, context, weights).shape
        torch.Size([2, 16, 8, 25])

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), equation 7.
    """

    def __init__(self, channels: int, context_channels: int) -> None:
        super().__init__()
        sizes = (channels, context_channels)
        if min(sizes) < 1:
            raise ValueError(message("AttentiveDiffusion", "at least 1 channel of each", sizes))
        self.sizes = sizes
        self.mix = PointwiseConv(sum(sizes), channels)

    def forward(self, x: Tensor, context: Tensor, weights: Tensor) -> Tensor:
        who = "AttentiveDiffusion"
        channels, context_channels = self.sizes
        check_shape(who, "x", x, f"N, C={channels}, T>0, V")
        n, _, t, v = x.shape
        check_shape(who, "context", context, f"N, D={context_channels}, T, V=1", N=n, T=t)
        check_shape(who, "weights", weights, f"N, T, V={v}", N=n, T=t)
        # [X, w G] W_3 = X W_3' + w (G W_3''): the product with G is made once for all joints.
        of_joints, of_context = torch.split(self.mix.weight.flatten(1), list(self.sizes), 1)
        added = mix_channels(context, of_context) * weights[:, None]  # (N, C, T, V)
        return mix_channels(x, of_joints, self.mix.bias) + added

    def extra_repr(self) -> str:
        return "channels={}, context_channels={}".format(*self.sizes)


class FocusDiffusionBlock(nn.Module):
    r"""Convolve outward over the bones, focus, add context, diffuse, and convolve back inward.

    This is the spatial half of a BAGCN block.

    .. math::
        X_{mid} &= \mathrm{ReLU}(\mathrm{BN}(\sum_s W_s X (M_s \otimes \hat A^f_s))) \\
        \hat X_{mid} &= [X_{mid}, w \cdot \mathrm{CAM}(G_S)] W_3 \\
        Y &= \mathrm{ReLU}(\mathrm{BN}(\sum_s W'_s \hat X_{mid} (M'_s \otimes \hat A^d_s)))

    The block replaces the graph convolution of any ST-GCN. It has O // 4 channels between its own
    two graph convolutions. Frames beyond a clip's length give zeros and do not affect its true
    frames, except that BatchNorm counts them in training. Keep ``lengths`` on the CPU, see
    :class:`TemporalContext`.

    Shape:
        x (N, C, T, V), lengths (N,) int64, by default all T -> (N, O, T, V).

    Args:
        in_channels: C.
        out_channels: O.
        outward: A^f (K, V, V), such as ``directed_adjacency(layout, "outward")``.
        inward: A^d (K, V, V), such as ``directed_adjacency(layout, "inward")``.
        hidden_channels: channels between the graph convolutions; by default O // 4, as in the
            paper, or 1.
        context_channels: see :class:`TemporalContext`; the paper's 128. Without context there are
            none.
        focus: see :class:`AttentiveFocus`; ``"none"`` leaves out focus, context and diffusion.
        context: ``"bidirectional"``, ``"forward"``, or ``"none"``, which uses the latent node
            without context.
        normalize: see :class:`AttentiveFocus`.

    Raises:
        ValueError: an unknown option, adjacencies that are not (K, V, V) of one V, or inputs of
            other shapes.

    Example:
        >>> from skeleton_focus import NTU25, directed_adjacency
        >>> graphs = [directed_adjacency(NTU25, direction) for direction in ("outward", "inward")]
        >>> block = FocusDiffusionBlock(64, 128, *graphs)
        >>> block(torch.randn(2, 64, 8, 25)).shape
        torch.Size([2, 128, 8, 25])

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), equations 1 to 3; ``focus`` and ``context``: its
        tables 3 and 4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        outward: Tensor,
        inward: Tensor,
        *,
        hidden_channels: int | None = None,
        context_channels: int = 128,
        focus: str = "attention",
        context: str = "bidirectional",
        normalize: str = "sigmoid",
    ) -> None:
        super().__init__()
        who = "FocusDiffusionBlock"
        check_choice(who, "focus", focus, ("attention", "mean", "max", "none"))
        check_choice(who, "context", context, ("bidirectional", "forward", "none"))
        check_choice(who, "normalize", normalize, ("sigmoid", "softmax"))
        if focus != "attention" and normalize != "sigmoid":
            raise ValueError(
                message(who, "normalize='softmax' with focus='attention'", f"focus={focus!r}")
            )
        # O // 4 is 0 for fewer than 4 output channels.
        hidden = max(out_channels // 4, 1) if hidden_channels is None else hidden_channels
        sizes = (in_channels, hidden, out_channels, context_channels)
        if min(sizes) < 1:
            raise ValueError(message(who, "at least 1 channel", sizes))
        self.outward = GraphConv(in_channels, hidden, outward, edge_importance=True, bias=False)
        self.inward = GraphConv(hidden, out_channels, inward, edge_importance=True, bias=False)
        joints = (outward.shape[-1], inward.shape[-1])
        if joints[0] != joints[1]:
            raise ValueError(message(who, "two adjacencies of the same joints", joints))
        self.outward_norm = nn.BatchNorm2d(hidden)
        self.inward_norm = nn.BatchNorm2d(out_channels)
        self.focus: AttentiveFocus | None = None
        self.context: TemporalContext | None = None
        self.diffusion: AttentiveDiffusion | None = None
        if focus != "none":
            self.focus = AttentiveFocus(hidden, focus=focus, normalize=normalize)
            if context != "none":
                self.context = TemporalContext(
                    hidden, context_channels=context_channels, direction=context
                )
            # Without context, the latent node itself is handed back (table 4, wo/Ca).
            self.diffusion = AttentiveDiffusion(
                hidden, hidden if context == "none" else context_channels
            )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        self._check(x)
        if lengths is not None:
            check_lengths("FocusDiffusionBlock", lengths, x)
        x, node = self._focused(x)
        if node is not None and self.context is not None:
            # The weights of the focus go on unchanged: the diffusion shares them (equation 7).
            node = LatentNode(self.context(node.features, lengths), node.weights)
        # BatchNorm and biases give the padding values, which a convolution over time would read.
        return mask_padding(self._diffused(x, node), lengths)

    def stream(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Process the next frames of a clip, see :meth:`TemporalContext.stream`.

        In ``eval()``, the outputs are those for the whole clip. Later layers of a network may need
        later frames: a convolution over 9 frames looks 4 ahead.

        Shape:
            x (N, C, T, V), state as returned -> (N, O, T, V), state, None without context.

        Args:
            x: the next frames, at least one.
            state: the state returned for the previous frames; None for the first frames, and
                without context.

        Raises:
            ValueError: a bidirectional context, or a state of another batch or dtype.

        Example:
            >>> from skeleton_focus import NTU25, directed_adjacency
            >>> graphs = [directed_adjacency(NTU25, way) for way in ("outward", "inward")]
            >>> block, state = FocusDiffusionBlock(3, 8, *graphs, context="forward").eval(), None
            >>> for frame in torch.randn(2, 3, 4, 25).split(1, dim=2):
            ...     y, state = block.stream(frame, state)
            >>> y.shape
            torch.Size([2, 8, 1, 25])
        """
        who = "FocusDiffusionBlock.stream"
        hint = "this block has no context"
        self._check(x)
        if self.context is None and state is not None:
            raise ValueError(message(who, "no state", "one", hint))
        if self.context is not None and self.context.direction != "forward":
            raise ValueError(
                message(who, "context='forward', which needs no later frame", "'bidirectional'")
            )
        x, node = self._focused(x)
        if node is not None and self.context is not None:
            context, state = self.context.stream(node.features, state)
            node = LatentNode(context, node.weights)
        return self._diffused(x, node), state

    def _check(self, x: Tensor) -> None:
        channels = self.outward.weight.shape[2]
        joints = self.outward.adjacency.shape[-1]
        check_shape("FocusDiffusionBlock", "x", x, f"N, C={channels}, T, V={joints}")
        if x.numel() == 0:
            raise ValueError(
                message("FocusDiffusionBlock", "x with at least 1 clip and frame", tuple(x.shape))
            )

    def _focused(self, x: Tensor) -> tuple[Tensor, LatentNode | None]:
        """Equation 1, and the latent node of equation 4."""
        x = F.relu(self.outward_norm(self.outward(x)))
        return x, None if self.focus is None else self.focus(x)

    def _diffused(self, x: Tensor, node: LatentNode | None) -> Tensor:
        """Equation 7, and equation 3."""
        if node is not None and self.diffusion is not None:
            x = self.diffusion(x, *node)
        return F.relu(self.inward_norm(self.inward(x)))
