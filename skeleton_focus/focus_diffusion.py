"""Gather a frame's joints in a latent node, give it the context of all frames, hand it back to the joints (BAGCN)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ._checks import check_choice, check_shape, require
from .graph_conv import GraphConv


class LatentNode(NamedTuple):
    """What :class:`AttentiveFocus` gives.

    Attributes:
        features: (N, C, T, 1), a node of each frame.
        weights: (N, T, V), how strongly each joint is joined to it.
    """

    features: Tensor
    weights: Tensor


class AttentiveFocus(nn.Module):
    r"""Gather the joints of each frame in one latent node.

    .. math:: G_S^t = \sum_v w_{tv} X_{tv} W_1, \qquad w = \sigma(X W_f + b)

    Each joint has a weight of its own in (0, 1). The paper's other two ways have none, that is 1 for each joint:
    ``"mean"`` takes the mean of the embedded joints, ``"max"`` the greatest value of each of their channels.

    Shape:
        x (N, C, T, V) -> :class:`LatentNode`.

    Args:
        channels: C.
        focus: ``"attention"``, ``"mean"`` or ``"max"``.
        normalize: of the attention: ``"sigmoid"``, or ``"softmax"`` over the joints, whose weights add up to 1.

    Raises:
        ValueError: an unknown option, softmax without attention, or an x of another shape or without joints.

    Example:
        >>> node = AttentiveFocus(16)(torch.randn(2, 16, 8, 25))
        >>> node.features.shape, node.weights.shape
        (torch.Size([2, 16, 8, 1]), torch.Size([2, 8, 25]))

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), equation 4; the other ways: its table 3.
    """

    def __init__(self, channels: int, *, focus: str = "attention", normalize: str = "sigmoid") -> None:
        super().__init__()
        who = "AttentiveFocus"
        require(channels >= 1, who, "at least 1 channel", channels)
        check_choice(who, "focus", focus, ("attention", "mean", "max"))
        check_choice(who, "normalize", normalize, ("sigmoid", "softmax"))
        alone = focus != "attention" and normalize != "sigmoid"
        require(not alone, who, "normalize='softmax' with focus='attention'", f"focus={focus!r}")
        self.focus, self.normalize = focus, normalize
        self.embed = nn.Conv2d(channels, channels, 1, bias=False)
        self.score = nn.Conv2d(channels, 1, 1) if focus == "attention" else None

    def forward(self, x: Tensor) -> LatentNode:
        check_shape("AttentiveFocus", "x", x, f"N, C={self.embed.in_channels}, T, V")
        n, _, t, v = x.shape
        require(v >= 1, "AttentiveFocus", "x with at least 1 joint", tuple(x.shape))
        if self.score is None:
            ones = x.new_ones(1, 1, 1).expand(n, t, v)
            if self.focus == "max":
                return LatentNode(self.embed(x).amax(3, keepdim=True), ones)
            return LatentNode(self.embed(x.mean(3, keepdim=True)), ones)
        score = self.score(x)  # (N, 1, T, V)
        weights = score.sigmoid() if self.normalize == "sigmoid" else score.softmax(3)
        gathered = (x * weights).sum(3, keepdim=True)  # (N, C, T, 1)
        return LatentNode(self.embed(gathered), weights.squeeze(1))

    def extra_repr(self) -> str:
        return f"focus={self.focus!r}, normalize={self.normalize!r}"


class TemporalContext(nn.Module):
    r"""Give each frame of a node the context of the others: a projection, then stacked LSTM layers.

    .. math:: i_t, f_t, o_t, g_t = W [X_t W_2, H_{t-1}] + b, \qquad
        c_t = \sigma(f_t) \odot c_{t-1} + \sigma(i_t) \odot \tanh(g_t), \qquad H_t = \sigma(o_t) \odot \tanh(c_t)

    Both ways through the clip, the output is :math:`[\overrightarrow H, \overleftarrow H]`. Several joints are as many
    sequences. Only true frames are read: those beyond a clip's length give zeros.

    Shape:
        x (N, C, T, V), lengths (N,) int64 -> (N, O, T, V).

    Args:
        channels: C.
        context_channels: O; the paper's 128, half of them for each direction.
        direction: ``"bidirectional"`` or ``"forward"``, which can also :meth:`stream`.
        layers: LSTM layers, one on top of the other.

    Raises:
        ValueError: an unknown direction, an odd number of channels for two directions, no layers, an x of another shape
            or without frames, or lengths that do not fit it.

    Example:
        >>> context = TemporalContext(16)
        >>> context(torch.randn(2, 16, 8, 1), torch.tensor([8, 5])).shape
        torch.Size([2, 128, 8, 1])

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), equations 5 and 6; LSTM: Hochreiter and Schmidhuber, 1997.
    """

    def __init__(
        self, channels: int, *, context_channels: int = 128, direction: str = "bidirectional", layers: int = 2
    ) -> None:
        super().__init__()
        who = "TemporalContext"
        check_choice(who, "direction", direction, ("bidirectional", "forward"))
        both = direction == "bidirectional"
        require(channels >= 1 and layers >= 1, who, "at least 1 channel and 1 layer", (channels, layers))
        halves = context_channels >= 1 and not (both and context_channels % 2)
        require(halves, who, "at least 1 context channel, an even number for two directions", context_channels)
        self.direction, self.context_channels = direction, context_channels
        self.project = nn.Conv2d(channels, channels, 1, bias=False)
        width = context_channels // 2 if both else context_channels
        self.lstm = nn.LSTM(channels, width, layers, batch_first=True, bidirectional=both)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        sequences = self._sequences(x)
        if lengths is None:
            return self._back(self.lstm(sequences)[0], x)
        each = _checked("TemporalContext", lengths, x).repeat_interleave(x.shape[3])
        packed = pack_padded_sequence(sequences, each, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[2])
        return self._back(y, x)

    def stream(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The next frames of a clip: their context, and what to hand in with the frames after them.

        Chunk by chunk the output is that of the whole clip. Detach the state to train on a chunk alone.

        Shape:
            x (N, C, T, V), state as returned: twice (layers, N * V, O) -> (N, O, T, V), state.

        Args:
            x: the next frames, at least one.
            state: what the frames before them returned; None before the first.

        Raises:
            ValueError: the other direction, which needs the clip's end first, or a state of another batch or dtype.

        Example:
            >>> context, state = TemporalContext(16, direction="forward"), None
            >>> for frame in torch.randn(2, 16, 8, 1).split(1, dim=2):
            ...     y, state = context.stream(frame, state)
            >>> y.shape
            torch.Size([2, 128, 1, 1])
        """
        who = "TemporalContext.stream"
        require(self.direction == "forward", who, "direction='forward', which needs no later frame", self.direction)
        sequences = self._sequences(x)
        if state is not None:
            parts = [isinstance(part, Tensor) for part in state]
            pair = isinstance(state, tuple | list) and parts == [True, True]
            require(pair, who, "a state as it was returned, a pair of tensors", type(state).__name__)
            size = f"layers={self.lstm.num_layers}, N*V={len(sequences)}, O={self.context_channels}"
            for part in state:
                check_shape(who, "a state", part, size)
                require(part.dtype == sequences.dtype, who, f"a state of {sequences.dtype}", part.dtype)
        y, state = self.lstm(sequences, None if state is None else tuple(state))
        return self._back(y, x), state

    def _sequences(self, x: Tensor) -> Tensor:
        check_shape("TemporalContext", "x", x, f"N, C={self.project.in_channels}, T, V")
        require(x.numel() > 0, "TemporalContext", "x with at least 1 clip, frame and joint", tuple(x.shape))
        projected: Tensor = self.project(x)
        return projected.permute(0, 3, 2, 1).flatten(0, 1)  # (N*V, T, C)

    def _back(self, y: Tensor, x: Tensor) -> Tensor:
        return y.view(len(x), x.shape[3], *y.shape[1:]).permute(0, 3, 2, 1)  # (N, O, T, V)

    def extra_repr(self) -> str:
        return f"direction={self.direction!r}"


def _checked(who: str, lengths: Tensor, x: Tensor) -> Tensor:
    """The true lengths of clips x (N, C, T, V), on the CPU: moved there once and read there."""
    check_shape(who, "lengths", lengths, f"N={len(x)}")
    require(lengths.dtype in (torch.int64, torch.int32), who, "lengths of integers", lengths.dtype)
    here = lengths.cpu()
    fits = not len(here) or (int(here.min()) >= 1 and int(here.max()) <= x.shape[2])
    require(fits, who, f"lengths in 1..{x.shape[2]}", here.tolist())
    return here


class AttentiveDiffusion(nn.Module):
    r"""Hand a node's context back to the joints, to each as much as its weight says, and mix it with their features.

    .. math:: Y_{tv} = [X_{tv}, w_{tv} G_t] W_3 + b

    The weights are those of the focus, which the paper shares. No map of the context over the joints is made:
    :math:`w_{tv} G_t W_3` is :math:`w_{tv}` times a frame's :math:`G_t W_3`.

    Shape:
        x (N, C, T, V), context (N, D, T, 1), weights (N, T, V) -> (N, C, T, V).

    Args:
        channels: C.
        context_channels: D.

    Raises:
        ValueError: inputs of other shapes.

    Example:
        >>> x, context, weights = torch.randn(2, 16, 8, 25), torch.randn(2, 128, 8, 1), torch.rand(2, 8, 25)
        >>> AttentiveDiffusion(16, 128)(x, context, weights).shape
        torch.Size([2, 16, 8, 25])

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), equation 7.
    """

    def __init__(self, channels: int, context_channels: int) -> None:
        super().__init__()
        sizes = (channels, context_channels)
        require(min(sizes) >= 1, "AttentiveDiffusion", "at least 1 channel of each", sizes)
        self.sizes = sizes
        self.mix = nn.Conv2d(sum(sizes), channels, 1)

    def forward(self, x: Tensor, context: Tensor, weights: Tensor) -> Tensor:
        who, (channels, context_channels) = "AttentiveDiffusion", self.sizes
        check_shape(who, "x", x, f"N, C={channels}, T, V")
        n, _, t, v = x.shape
        check_shape(who, "context", context, f"N={n}, D={context_channels}, T={t}, V=1")
        check_shape(who, "weights", weights, f"N={n}, T={t}, V={v}")
        of_joints, of_context = torch.split(self.mix.weight, list(self.sizes), dim=1)
        return F.conv2d(x, of_joints, self.mix.bias) + F.conv2d(context, of_context) * weights[:, None]

    def extra_repr(self) -> str:
        return "channels={}, context_channels={}".format(*self.sizes)


class FocusDiffusionBlock(nn.Module):
    r"""The spatial half of a BAGCN block: outward over the bones, focus, context, diffusion, and back inward.

    .. math:: X_{mid} = \mathrm{ReLU}(\mathrm{BN}(\sum_s W_s X (M_s \otimes \hat A^f_s))), \qquad
        \hat X_{mid} = [X_{mid}, w \cdot \mathrm{CAM}(G_S)] W_3, \qquad
        Y = \mathrm{ReLU}(\mathrm{BN}(\sum_s W'_s \hat X_{mid} (M'_s \otimes \hat A^d_s)))

    Takes the place of the graph convolution of any ST-GCN. Between its own two there are O // 4 channels. Frames beyond
    a clip's length give zeros and change nothing at its true frames, except that BatchNorm counts them in training.

    Shape:
        x (N, C, T, V), lengths (N,) int64, by default all T -> (N, O, T, V).

    Args:
        in_channels: C.
        out_channels: O.
        outward: A^f (K, V, V), such as ``directed_adjacency(layout, "outward")``.
        inward: A^d (K, V, V), such as ``directed_adjacency(layout, "inward")``.
        hidden_channels: channels between the graph convolutions; by default O // 4, as in the paper, or 1.
        context_channels: see :class:`TemporalContext`; the paper's 128. Without context there are none.
        focus: see :class:`AttentiveFocus`; ``"none"`` leaves out focus, context and diffusion.
        context: ``"bidirectional"``, ``"forward"``, or ``"none"``, which hands the latent node back as it is.
        normalize: see :class:`AttentiveFocus`.

    Raises:
        ValueError: an unknown option, adjacencies that are not (K, V, V) of one V, or inputs of other shapes.

    Example:
        >>> from skeleton_focus import NTU25, directed_adjacency
        >>> graphs = [directed_adjacency(NTU25, direction) for direction in ("outward", "inward")]
        >>> block = FocusDiffusionBlock(64, 128, *graphs)
        >>> block(torch.randn(2, 64, 8, 25)).shape
        torch.Size([2, 128, 8, 25])

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), equations 1 to 3; ``focus`` and ``context``: its tables 3 and 4.
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
        alone = focus != "attention" and normalize != "sigmoid"
        require(not alone, who, "normalize='softmax' with focus='attention'", f"focus={focus!r}")
        hidden = max(out_channels // 4, 1) if hidden_channels is None else hidden_channels
        sizes = (in_channels, hidden, out_channels, context_channels)
        require(min(sizes) >= 1, who, "at least 1 channel", sizes)
        self.outward = GraphConv(in_channels, hidden, outward, edge_importance=True, bias=False)
        self.inward = GraphConv(hidden, out_channels, inward, edge_importance=True, bias=False)
        joints = (outward.shape[-1], inward.shape[-1])
        require(joints[0] == joints[1], who, "two adjacencies of the same joints", joints)
        self.outward_norm, self.inward_norm = nn.BatchNorm2d(hidden), nn.BatchNorm2d(out_channels)
        self.focus: AttentiveFocus | None = None
        self.context: TemporalContext | None = None
        self.diffusion: AttentiveDiffusion | None = None
        if focus != "none":
            self.focus = AttentiveFocus(hidden, focus=focus, normalize=normalize)
            if context != "none":
                self.context = TemporalContext(hidden, context_channels=context_channels, direction=context)
            self.diffusion = AttentiveDiffusion(hidden, hidden if context == "none" else context_channels)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        self._check(x)
        lengths = None if lengths is None else _checked("FocusDiffusionBlock", lengths, x)
        x, node = self._focused(x)
        if node is not None and self.context is not None:
            node = LatentNode(self.context(node.features, lengths), node.weights)
        y = self._diffused(x, node)
        if lengths is None:
            return y
        beyond = torch.arange(x.shape[2]) >= lengths[:, None]  # (N, T)
        return y.masked_fill(beyond[:, None, :, None].to(y.device), 0)

    def stream(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The next frames of a clip, as :meth:`TemporalContext.stream`; as the whole clip's in ``eval()`` mode.

        Of a network, what follows may need later frames: a convolution of 9 frames looks 4 ahead.

        Shape:
            x (N, C, T, V), state as returned -> (N, O, T, V), state, None without context.

        Args:
            x: the next frames, at least one.
            state: what the frames before them returned; None before the first, and without context.

        Raises:
            ValueError: a bidirectional context, or a state of another batch or dtype.

        Example:
            >>> from skeleton_focus import NTU25, directed_adjacency
            >>> graphs = [directed_adjacency(NTU25, direction) for direction in ("outward", "inward")]
            >>> block, state = FocusDiffusionBlock(3, 8, *graphs, context="forward").eval(), None
            >>> for frame in torch.randn(2, 3, 4, 25).split(1, dim=2):
            ...     y, state = block.stream(frame, state)
            >>> y.shape
            torch.Size([2, 8, 1, 25])
        """
        who, hint = "FocusDiffusionBlock.stream", "this block has no context"
        self._check(x)
        require(self.context is not None or state is None, who, "no state", "one", hint)
        fits = self.context is None or self.context.direction == "forward"
        require(fits, who, "context='forward', which needs no later frame", "'bidirectional'")
        x, node = self._focused(x)
        if node is not None and self.context is not None:
            context, state = self.context.stream(node.features, state)
            node = LatentNode(context, node.weights)
        return self._diffused(x, node), state

    def _check(self, x: Tensor) -> None:
        channels, joints = self.outward.weight.shape[2], self.outward.adjacency.shape[-1]
        check_shape("FocusDiffusionBlock", "x", x, f"N, C={channels}, T, V={joints}")
        require(x.numel() > 0, "FocusDiffusionBlock", "x with at least 1 clip and frame", tuple(x.shape))

    def _focused(self, x: Tensor) -> tuple[Tensor, LatentNode | None]:
        """Equation 1, and the latent node of equation 4."""
        x = F.relu(self.outward_norm(self.outward(x)))
        return x, None if self.focus is None else self.focus(x)

    def _diffused(self, x: Tensor, node: LatentNode | None) -> Tensor:
        """Equation 7, and equation 3."""
        if node is not None and self.diffusion is not None:
            x = self.diffusion(x, *node)
        return F.relu(self.inward_norm(self.inward(x)))
