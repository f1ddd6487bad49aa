"""The context of a clip's frames by an LSTM that ignores padding (BAGCN, equations 5 and 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ._checks import check_choice, check_lengths, check_shape, message
from ._pointwise import PointwiseConv

__all__ = ["TemporalContext", "mask_padding"]


class TemporalContext(nn.Module):
    r"""Give each frame of a node the context of the others: a projection, then stacked LSTM layers.

    .. math:: i_t, f_t, o_t, g_t = W [X_t W_2, H_{t-1}] + b, \qquad
        c_t = \sigma(f_t) \odot c_{t-1} + \sigma(i_t) \odot \tanh(g_t), \qquad
        H_t = \sigma(o_t) \odot \tanh(c_t)

    In both directions, the output is :math:`[\overrightarrow H, \overleftarrow H]`. Each joint is a
    separate sequence. Frames beyond a clip's length are not read, and their output is zero.

    Keep ``lengths`` on the CPU, because PyTorch packs sequences there: copying them from a GPU
    would stall it.

    Shape:
        x (N, C, T, V), lengths (N,) int64 -> (N, O, T, V).

    Args:
        channels: C.
        context_channels: O; the paper's 128, half of them for each direction.
        direction: ``"bidirectional"`` or ``"forward"``, which can also :meth:`stream`.
        layers: LSTM layers, one on top of the other.

    Raises:
        ValueError: an unknown direction, an odd number of channels for two directions, no layers,
            an x of another shape or without frames, or lengths that do not fit it.

    Example:
        >>> context = TemporalContext(16)
        >>> context(torch.randn(2, 16, 8, 1), torch.tensor([8, 5])).shape
        torch.Size([2, 128, 8, 1])

    Reference:
        BAGCN (Gao et al., 2019, arXiv:1912.11521), equations 5 and 6; LSTM: Hochreiter and
        Schmidhuber, 1997.
    """

    def __init__(
        self,
        channels: int,
        *,
        context_channels: int = 128,
        direction: str = "bidirectional",
        layers: int = 2,
    ) -> None:
        super().__init__()
        who = "TemporalContext"
        check_choice(who, "direction", direction, ("bidirectional", "forward"))
        # Half of the channels each way, so that both settings return context_channels.
        both = direction == "bidirectional"
        if channels < 1 or layers < 1:
            raise ValueError(message(who, "at least 1 channel and 1 layer", (channels, layers)))
        if context_channels < 1 or (both and context_channels % 2):
            raise ValueError(
                message(
                    who,
                    "at least 1 context channel, an even number for two directions",
                    context_channels,
                )
            )
        self.direction = direction
        self.context_channels = context_channels
        self.project = PointwiseConv(channels, channels, bias=False)
        width = context_channels // 2 if both else context_channels
        self.lstm = nn.LSTM(channels, width, layers, batch_first=True, bidirectional=both)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        sequences = self._sequences(x)
        if lengths is None:
            return self._back(self.lstm(sequences)[0], x)
        check_lengths("TemporalContext", lengths, x)
        # Joints are sequences of their own, next to each other, with the length of their clip.
        each = lengths.cpu().repeat_interleave(x.shape[3])
        # Sorted on the CPU, because pad_packed_sequence would fetch the order back from a GPU.
        order = each.argsort(descending=True)
        packed = pack_padded_sequence(sequences[order.to(x.device)], each[order], batch_first=True)
        # Without total_length, T would shrink to the longest clip of the batch.
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[2])
        # The argsort of a permutation is its inverse: back to the order of the batch.
        return self._back(y[order.argsort().to(x.device)], x)

    def stream(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the context of the next frames of a clip, and the state for the frames after them.

        The outputs of consecutive chunks are those of the whole clip. Detach the state to train on
        one chunk.

        Shape:
            x (N, C, T, V), state as returned: twice (layers, N * V, O) -> (N, O, T, V), state.

        Args:
            x: the next frames, at least one.
            state: the state returned for the previous frames; None for the first frames.

        Raises:
            ValueError: two directions, of which one starts at the clip's end, or a state of another
                batch or dtype.

        Example:
            >>> context, state = TemporalContext(16, direction="forward"), None
            >>> for frame in torch.randn(2, 16, 8, 1).split(1, dim=2):
            ...     y, state = context.stream(frame, state)
            >>> y.shape
            torch.Size([2, 128, 1, 1])
        """
        who = "TemporalContext.stream"
        if self.direction != "forward":
            raise ValueError(
                message(who, "direction='forward', which needs no later frame", self.direction)
            )
        sequences = self._sequences(x)
        if state is not None:
            parts = [isinstance(part, Tensor) for part in state]
            if not isinstance(state, tuple | list) or parts != [True, True]:
                raise ValueError(
                    message(who, "the returned state, a pair of tensors", type(state).__name__)
                )
            size = f"layers={self.lstm.num_layers}, N*V={len(sequences)}, O={self.context_channels}"
            for part in state:
                check_shape(who, "a state", part, size)
                if part.dtype != sequences.dtype:
                    raise ValueError(message(who, f"a state of {sequences.dtype}", part.dtype))
        y, state = self.lstm(sequences, None if state is None else tuple(state))
        return self._back(y, x), state

    def _sequences(self, x: Tensor) -> Tensor:
        check_shape("TemporalContext", "x", x, f"N, C={self.project.in_channels}, T, V")
        if x.numel() == 0:
            raise ValueError(
                message(
                    "TemporalContext", "x with at least 1 clip, frame and joint", tuple(x.shape)
                )
            )
        projected: Tensor = self.project(x)
        return projected.permute(0, 3, 2, 1).flatten(0, 1)  # (N*V, T, C)

    def _back(self, y: Tensor, x: Tensor) -> Tensor:
        return y.view(x.shape[0], x.shape[3], *y.shape[1:]).permute(0, 3, 2, 1)  # (N, O, T, V)

    def extra_repr(self) -> str:
        return f"direction={self.direction!r}"


def mask_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Set frames beyond each clip's true length to zero, even if they are NaN.

    Apply it between two layers, so that the second sees zeros as padding and not the first one's
    output there.

    Shape:
        x (N, C, T, V), lengths (N,) int64 -> (N, C, T, V).

    Args:
        x: feature map.
        lengths: true frames of each clip, 1..T; None: all T.

    Raises:
        ValueError: an x of another shape, or lengths that do not fit it.

    Example:
        >>> mask_padding(torch.ones(2, 1, 3, 1), torch.tensor([3, 1])).flatten()
        tensor([1., 1., 1., 1., 0., 0.])
    """
    if lengths is None:
        return x
    check_shape("mask_padding", "x", x, "N, C, T, V")
    check_lengths("mask_padding", lengths, x)
    # Filled and not multiplied by a mask, because 0 * NaN is NaN.
    beyond = torch.arange(x.shape[2], device=x.device) >= lengths.to(x.device)[:, None]  # (N, T)
    return x.masked_fill(beyond[:, None, :, None], 0)
