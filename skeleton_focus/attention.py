"""Attend between joints, between joints and body parts, and between frames.

These are equations 1, 4 and 5 of FG-STFormer. The softmax runs in
``torch.nn.functional.scaled_dot_product_attention``, fused where PyTorch can. PyTorch does not
differentiate the fused kernels twice; :class:`~skeleton_focus.STFObjective` takes the plain one
where it has to. On a CPU, :class:`SpatialAttention` of up to 64 joints uses plain products, which
are faster, and half precision attends in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ._checks import check_choice, check_shape, message
from ._pointwise import PointwiseConv, TokenLinear
from ._versions import is_exporting

__all__ = ["DilatedTemporalAttention", "JointPartAttention", "SpatialAttention", "position_codes"]


def position_codes(positions: Tensor, channels: int) -> Tensor:
    r"""Sine and cosine codes of positions: joint numbers or frame numbers.

    .. math:: e_{p, 2i} = \sin(p / 10000^{2i/C}), \qquad e_{p, 2i+1} = \cos(p / 10000^{2i/C})

    Shape:
        positions (...) -> (..., C), float64 for float64 positions and float32 for all others.

    Args:
        positions: numbers from 0.
        channels: C.

    Raises:
        ValueError: fewer than one channel.

    Example:
        >>> position_codes(torch.tensor([0, 1]), 2)
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]])

    Reference:
        Vaswani et al., NeurIPS 2017, section 3.5; FG-STFormer (Gao et al., ACCV 2022), sections 3.3
        and 3.4.
    """
    if channels < 1:
        raise ValueError(message("position_codes", "at least 1 channel", channels))
    dtype = positions.dtype if positions.dtype == torch.float64 else torch.float32
    channel = torch.arange(channels, device=positions.device, dtype=dtype)
    # The channels of a pair, 2i and 2i + 1, share one frequency.
    even = channel - channel % 2
    angle = positions[..., None].to(dtype) * torch.pow(10000.0, -even / channels)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


class SpatialAttention(nn.Module):
    r"""Apply multi-head self-attention between the joints of a frame, then a linear layer.

    This is the Basic-SFormer block.

    .. math:: H_h = \mathrm{softmax}\Big(\frac{Q_h K_h^\top}{\sqrt d}\Big) V_h + A_g V_h, \qquad
        Z = \mathrm{BN}(X + [H_1, \dots, H_H] W_O), \qquad Y = \mathrm{BN}(Z + \sigma(Z W))

    Q, K and V are linear in X plus the codes of its joints; :math:`A_g` (V x V) is learned and
    shared by all clips, frames and heads, or each head has its own; :math:`\sigma` is a leaky ReLU.
    If ``joints`` is given, :math:`A_g` and the codes are indexed by it. The V axis may also hold
    parts.

    Shape:
        x (N, C, T, V') -> (N, C, T, V'). joints (N, T, V') int64, by default all V joints in order,
        V' = V.

    Args:
        channels: C.
        num_joints: V.
        heads: H; the paper's 3. A head has C // H channels.
        position_codes: add the codes.
        shared_map: ``"one"``, the same :math:`A_g` for all heads, or ``"per_head"``, a map for
            each, as in the code of DSTA-Net, which the paper follows. Both start at 1 / V.

    Raises:
        ValueError: no joints, no heads or more than channels, another ``shared_map``, or an x or
            joints of another shape.

    Example:
        >>> attention, x = SpatialAttention(16, 25), torch.randn(2, 16, 8, 25)
        >>> attention(x).shape
        torch.Size([2, 16, 8, 25])
        >>> attention(x[..., :4], torch.arange(4).expand(2, 8, 4)).shape  # four joints of the 25
        torch.Size([2, 16, 8, 4])

    Reference:
        FG-STFormer (Gao et al., ACCV 2022), equation 1 and figure 3(a); DSTA-Net (Shi et al., ACCV
        2020), its spatial global regularization.
    """

    def __init__(
        self,
        channels: int,
        num_joints: int,
        *,
        heads: int = 3,
        position_codes: bool = True,
        shared_map: str = "one",
    ) -> None:
        super().__init__()
        _check_heads("SpatialAttention", channels, heads)
        if num_joints < 1:
            raise ValueError(message("SpatialAttention", "at least 1 joint", num_joints))
        check_choice("SpatialAttention", "shared_map", shared_map, ("one", "per_head"))
        self.channels = channels
        self.num_joints = num_joints
        self.heads = heads
        self.position_codes = position_codes
        self.shared_map = shared_map
        self.project = _Projections(channels, heads)
        size = (num_joints, num_joints) if shared_map == "one" else (heads, num_joints, num_joints)
        self.shared = nn.Parameter(torch.full(size, 1 / num_joints))
        self.update = _Update(self.project.width, channels)

    def forward(self, x: Tensor, joints: Tensor | None = None) -> Tensor:
        kept = f"V={self.num_joints}" if joints is None else "V'"
        check_shape("SpatialAttention", "x", x, f"N, C={self.channels}, T>0, {kept}")
        n, _, t, v = x.shape
        if joints is not None:
            check_shape("SpatialAttention", "joints", joints, f"N, T, V'={v}", N=n, T=t)
        codes = None
        if self.position_codes:
            codes = _codes_like(x, torch.arange(self.num_joints, device=x.device))  # (V, C)
        q, k, values = self.project(x, codes, joints)  # (N*T, H, V', d)
        updated: Tensor = self.update(x, attend(q, k, values, self._maps(joints)))
        return updated

    def _maps(self, joints: Tensor | None) -> Tensor:
        """A_g of each head and frame, which broadcasts to (N*T, H, V', V')."""
        if joints is None:
            return self.shared
        maps = self.shared.view(-1, self.num_joints, self.num_joints)  # (1 or H, V, V)
        kept = maps[:, joints[..., :, None], joints[..., None, :]]  # (1 or H, N, T, V', V')
        return rearrange(kept, "h n t i j -> (n t) h i j")

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, joints={self.num_joints}, heads={self.heads}, "
            f"position_codes={self.position_codes}, shared_map={self.shared_map}"
        )


class JointPartAttention(nn.Module):
    r"""Cross-attend between the focal joints and the body parts of each frame, in both directions.

    .. math:: H_J = \mathrm{softmax}\Big(\frac{Q_J K_P^\top}{\sqrt d}\Big) V_P, \qquad
        H_P = \mathrm{softmax}\Big(\frac{Q_P K_J^\top}{\sqrt d}\Big) V_J

    for each head; then each branch goes on as in :class:`SpatialAttention`.

    Shape:
        joints (N, C, T, K), parts (N, C, T, P) -> the same two, updated from each other.

    Args:
        channels: C.
        heads: H; the paper's 3. A head has C // H channels.

    Raises:
        ValueError: no heads or more than channels, or inputs of other shapes.

    Example:
        >>> joints, parts = torch.randn(2, 16, 8, 15), torch.randn(2, 16, 8, 10)
        >>> joints, parts = JointPartAttention(16)(joints, parts)
        >>> joints.shape, parts.shape
        (torch.Size([2, 16, 8, 15]), torch.Size([2, 16, 8, 10]))

    Reference:
        FG-STFormer (Gao et al., ACCV 2022), equation 4 and figure 3(b).
    """

    def __init__(self, channels: int, *, heads: int = 3) -> None:
        super().__init__()
        _check_heads("JointPartAttention", channels, heads)
        self.channels = channels
        self.heads = heads
        self.project_joints = _Projections(channels, heads)
        self.project_parts = _Projections(channels, heads)
        width = self.project_joints.width
        self.update_joints = _Update(width, channels)
        self.update_parts = _Update(width, channels)

    def forward(self, joints: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
        (q_j, k_j, v_j), (q_p, k_p, v_p) = self._project(joints, parts)
        from_parts = attend(q_j, k_p, v_p)  # (N*T, H, K, d)
        from_joints = attend(q_p, k_j, v_j)  # (N*T, H, P, d)
        return self.update_joints(joints, from_parts), self.update_parts(parts, from_joints)

    def maps(self, joints: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention itself, for pictures.

        It is that of joints to parts (N, H, T, K, P) and of parts to joints (N, H, T, P, K). Each
        row sums to 1.
        """
        (q_j, k_j, _), (q_p, k_p, _) = self._project(joints, parts)
        # By hand, because the fused kernels do not return their weights.
        both = (q_j @ k_p.transpose(-2, -1), q_p @ k_j.transpose(-2, -1))
        scaled = ((score / q_j.shape[-1] ** 0.5).softmax(-1) for score in both)
        to_parts, to_joints = (
            rearrange(a, "(n t) h q k -> n h t q k", n=len(joints)) for a in scaled
        )
        return to_parts, to_joints

    def _project(self, joints: Tensor, parts: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        check_shape("JointPartAttention", "joints", joints, f"N, C={self.channels}, T>0, K")
        n, _, t, _ = joints.shape
        check_shape("JointPartAttention", "parts", parts, f"N, C={self.channels}, T, P", N=n, T=t)
        return self.project_joints(joints), self.project_parts(parts)

    def extra_repr(self) -> str:
        return f"{self.channels}, heads={self.heads}"


class DilatedTemporalAttention(nn.Module):
    r"""Attend over all frames of a joint, with dilated temporal convolutions as values.

    This is the FG-TFormer block.

    .. math:: Y = \sigma(\mathrm{BN}([H_1, \dots, H_H] W_O)) + X, \qquad
        H_h = \mathrm{softmax}\Big(\frac{Q_h K_h^\top}{\sqrt d}\Big) V_h W_h + V_h, \qquad
        V_h = \mathrm{TCN}_{d_h}(X)

    Q, K and V are made from X plus the codes of its frames; one head for each dilation :math:`d_h`.
    With a stride, the convolutions, the queries and the keys take every stride-th frame. Where the
    shape changes, X goes through a strided 1x1 and BatchNorm.

    Shape:
        x (N, C, T, V) -> (N, O, ceil(T / stride), V).

    Args:
        in_channels: C.
        out_channels: O; a head has O // H channels.
        kernel_size: frames under each kernel, odd; the paper's 7.
        dilations: one head for each; the paper's 1 and 2.
        stride: keep every stride-th frame.
        attention: False leaves the convolutions alone: H_h = V_h.
        convolution: False takes linear values and no local term: H_h = softmax(...) V_h, the
            paper's Basic-TFormer.

    Raises:
        ValueError: an even kernel, no dilations or more than channels, a stride or a dilation below
            1, neither attention nor convolution, or an x of another shape.

    Example:
        >>> DilatedTemporalAttention(16, 32, stride=2)(torch.randn(2, 16, 9, 25)).shape
        torch.Size([2, 32, 5, 25])

    Reference:
        FG-STFormer (Gao et al., ACCV 2022), equation 5 and figure 4; the two options: its table 3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 7,
        dilations: Sequence[int] = (1, 2),
        stride: int = 1,
        attention: bool = True,
        convolution: bool = True,
    ) -> None:
        super().__init__()
        who = "DilatedTemporalAttention"
        heads = len(dilations)
        _check_heads(who, out_channels, heads)
        if kernel_size % 2 != 1 or kernel_size <= 0:
            raise ValueError(message(who, "an odd kernel_size", kernel_size))
        if stride < 1 or min(dilations) < 1:
            raise ValueError(
                message(who, "a stride and dilations of at least 1", (stride, *dilations))
            )
        if not attention and not convolution:
            raise ValueError(message(who, "attention, convolution or both", "neither"))
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.attention = attention
        self.convolution = convolution
        self.head_width = out_channels // heads
        # Linear values see single frames, and their stride is taken before: see forward.
        kernel, step = (kernel_size, stride) if convolution else (1, 1)
        self.values = nn.ModuleList(
            nn.Conv2d(
                in_channels,
                self.head_width,
                (kernel, 1),
                (step, 1),
                (d * (kernel - 1) // 2, 0),
                (d, 1),
            )
            for d in dilations
        )
        width = heads * self.head_width
        if attention:
            self.queries = TokenLinear(in_channels, width)
            self.keys = TokenLinear(in_channels, width)
        if attention and convolution:
            self.mix = nn.Parameter(torch.empty(heads, self.head_width, self.head_width))
            # The bounds of nn.Linear, for each head.
            nn.init.uniform_(self.mix, -(self.head_width**-0.5), self.head_width**-0.5)
        self.project = PointwiseConv(width, out_channels, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Sequential(
                PointwiseConv(in_channels, out_channels, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        check_shape("DilatedTemporalAttention", "x", x, f"N, C={self.in_channels}, T>0, V")
        codes = _codes_like(x, torch.arange(x.shape[2], device=x.device))
        coded = x + codes.t()[:, :, None]  # (N, C, T, V)
        kept = coded
        if self.stride != 1:
            # Copies: a view with a step exports for odd or for even T alone, and the gradient of a
            # 1x1 convolution with a step overruns its memory in oneDNN (torch 2.13, AVX2, fewer
            # than 8 channels, channels last).
            frames = torch.arange(0, x.shape[2], self.stride, device=x.device)
            x = x.index_select(2, frames)
            kept = coded.index_select(2, frames)
        sources = coded if self.convolution else kept
        values = torch.cat([conv(sources) for conv in self.values], dim=1)  # (N, H d, T', V)
        y = self.project(self._attended(kept, values) if self.attention else values)
        z: Tensor = F.leaky_relu(self.norm(y)) + self.shortcut(x)
        return z

    def _attended(self, x: Tensor, values: Tensor) -> Tensor:
        """Attend over all frames, each joint and head by itself.

        x (N, C, T', V), values (N, H d, T', V) -> (N, H d, T', V).
        """
        n, _, t, v = values.shape
        heads = len(self.values)
        d = self.head_width
        q, k = (
            layer(x).view(n, t, v * heads, d).transpose(1, 2) for layer in (self.queries, self.keys)
        )  # each (N, V H, T', d)
        by_head = rearrange(values, "n (h d) t v -> n (v h) t d", h=heads)
        fused = attend(q, k, by_head)
        fused = rearrange(fused, "n (v h) t d -> n t v h d", h=heads)
        if self.convolution:
            fused = torch.einsum("ntvhd,hde->ntvhe", fused, self.mix)
        attended = fused.flatten(3).permute(0, 3, 1, 2)
        return attended + values if self.convolution else attended

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, heads={len(self.values)}, "
            f"stride={self.stride}, attention={self.attention}, convolution={self.convolution}"
        )


class _Projections(nn.Module):
    """Queries, keys and values of x (N, C, T, V), each (N * T, H, V, d)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # The paper's 3 heads do not divide its 64, 128 and 256 channels; W_O restores C.
        self.width = channels // heads * heads
        self.linear = TokenLinear(channels, 3 * self.width)

    def forward(
        self, x: Tensor, codes: Tensor | None = None, joints: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, _, t, v = x.shape
        projected = self.linear(x, codes, joints)
        projected = projected.view(n * t, v, 3, self.heads, self.width // self.heads)
        q, k, values = (part.transpose(1, 2) for part in projected.unbind(2))
        return q, k, values


class _Update(nn.Module):
    """Update the input by the heads.

    W_O, the input added, BatchNorm; then a linear layer, leaky ReLU, added, BatchNorm.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.project = PointwiseConv(width, channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.linear = PointwiseConv(channels, channels, bias=False)
        self.linear_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, heads: Tensor) -> Tensor:
        # The channels are next to each other in memory, and the product reads them there.
        tokens = rearrange(heads, "(n t) h v d -> n t v (h d)", t=x.shape[2])
        joined = tokens.permute(0, 3, 1, 2)  # (N, H d, T, V)
        # Normalised after each addition, as in the vanilla transformer: without it, queries and
        # keys of deep layers grow until the softmax picks one joint.
        z: Tensor = self.norm(x + self.project(joined))
        y: Tensor = self.linear_norm(z + F.leaky_relu(self.linear(z)))
        return y


ATTEND_PLAINLY = 64  # at most so many keys, on a CPU


def attend(q: Tensor, k: Tensor, values: Tensor, maps: Tensor | None = None) -> Tensor:
    r"""Compute softmax(q k^T / sqrt(d)) values + maps values, over (..., L, d).

    The maps broadcast to (..., L, L). On a CPU, half precision is computed in float32: PyTorch's
    fused kernels take three to seven times as long in bfloat16 where the CPU has no AMX.
    """
    if not q.is_cpu or is_exporting():
        return _fused(q, k, values, maps)
    with torch.autocast("cpu", enabled=False):
        exact = torch.promote_types(q.dtype, torch.float32)
        a, b, c = (part.to(exact) for part in (q, k, values))
        if maps is None:
            return _fused(a, b, c, None).to(q.dtype)
        short = k.shape[-2] <= ATTEND_PLAINLY
        return (_plain if short else _fused)(a, b, c, maps.to(exact)).to(q.dtype)


def _fused(q: Tensor, k: Tensor, values: Tensor, maps: Tensor | None) -> Tensor:
    y = F.scaled_dot_product_attention(q, k, values)
    if maps is None:
        return y
    if maps.dim() == 3:  # one product a head, where matmul would copy the maps for each frame
        return y + torch.einsum("hij,nhjd->nhid", maps, values)
    return y + maps @ values


def _plain(q: Tensor, k: Tensor, values: Tensor, maps: Tensor) -> Tensor:
    # Keys by queries: PyTorch's softmax over short columns is faster than over short rows.
    weights = ((k * k.shape[-1] ** -0.5) @ q.transpose(-2, -1)).softmax(-2)
    # Flat, because a broadcast sum runs along its last axis, and V is short.
    added = weights.flatten(-2) + maps.transpose(-2, -1).flatten(-2)
    attended: Tensor = added.view_as(weights).transpose(-2, -1) @ values
    return attended


def _codes_like(x: Tensor, positions: Tensor) -> Tensor:
    """Codes (..., C) of x (N, C, T, V), in its dtype, made in float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return position_codes(positions.to(dtype), x.shape[1]).to(x.dtype)


def _check_heads(who: str, channels: int, heads: int) -> None:
    if not 1 <= heads <= channels:
        raise ValueError(message(who, f"1 to {channels} heads for {channels} channels", heads))
