"""Choose the joints that matter in each frame, and sum the joints up into body parts.

This is section 3.3 of FG-STFormer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._checks import check_choice, check_shape, message

__all__ = [
    "FocalJointSelection",
    "FocalJoints",
    "PartEncoding",
    "ScatterToJoints",
    "scatter_to_joints",
]


class FocalJoints(NamedTuple):
    """What :class:`FocalJointSelection` keeps.

    Attributes:
        features: (N, C, T, K), one slot for each kept joint.
        joints: (N, T, K) int64, the joint in each slot.
        scores: (N, T, V) in (0, 1), of all joints.
    """

    features: Tensor
    joints: Tensor
    scores: Tensor


class FocalJointSelection(nn.Module):
    r"""Keep the K joints of each frame that score highest.

    .. math:: S = \mathrm{sigmoid}\Big(\frac{X W_p}{\lVert W_p \rVert}\Big), \qquad
        \mathrm{idx} = \mathrm{sort}(S, K), \qquad X^J = X(\mathrm{idx})

    As printed, :math:`W_p` gets no gradient, because an index has none. By default the kept
    features are therefore multiplied by their scores, as in graph top-k pooling. Joints with equal
    scores keep their order.

    Shape:
        x (N, C, T, V) -> :class:`FocalJoints` with K slots, or V slots if V < K.

    Args:
        channels: C.
        num_focal: K; the paper's 15 of 25.
        gate: ``"score"``: features times score; ``"none"``: the features alone, as printed.
        order: ``"joint"``: slots in the order of the joints, so that a slot holds mostly the same
            joint from frame to frame, which temporal attention needs; ``"score"``: highest first,
            the literal sort.

    Raises:
        ValueError: fewer than one slot, an unknown option, or an x of another shape.

    Example:
        >>> select = FocalJointSelection(1, 2, gate="none")
        >>> _ = nn.init.ones_(select.weight)
        >>> kept = select(torch.tensor([3.0, 1.0, 2.0]).view(1, 1, 1, 3))
        >>> kept.joints.flatten(), kept.features.flatten()
        (tensor([0, 2]), tensor([3., 2.]))

    Reference:
        FG-STFormer (Gao et al., ACCV 2022), equations 2 and 3; the gate: Graph U-Nets (Gao and Ji,
        ICML 2019).
    """

    def __init__(
        self, channels: int, num_focal: int, *, gate: str = "score", order: str = "joint"
    ) -> None:
        super().__init__()
        who = "FocalJointSelection"
        if channels < 1 or num_focal < 1:
            raise ValueError(message(who, "at least 1 channel and 1 slot", (channels, num_focal)))
        check_choice(who, "gate", gate, ("score", "none"))
        check_choice(who, "order", order, ("joint", "score"))
        self.num_focal = num_focal
        self.gate = gate
        self.order = order
        self.weight = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw W_p from a normal distribution; its length does not matter."""
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor) -> FocalJoints:
        check_shape("FocalJointSelection", "x", x, f"N, C={len(self.weight)}, T>0, V")
        dtype = torch.promote_types(x.dtype, torch.float32)  # rounded scores would tie
        direction = F.normalize(self.weight.to(dtype), dim=0)
        projected = (x * direction[:, None, None]).sum(1)  # (N, T, V)
        # Before the sigmoid, which rounds large values to the same 1. No stable sort exports. This
        # one puts equal scores in any order, so they share a rank, and a second sort orders them by
        # joint.
        values, order = projected.sort(dim=2, descending=True)
        rank = F.pad((values[..., 1:] != values[..., :-1]).cumsum(2), (1, 0))
        rank_then_joint = rank * x.shape[3] + order  # one number for both
        joints = rank_then_joint.sort(dim=2).values[..., : self.num_focal] % x.shape[3]
        scores = projected.sigmoid().to(x.dtype)
        if self.order == "joint":
            joints = joints.sort(dim=2).values
        features = x.gather(3, joints[:, None].expand(-1, x.shape[1], -1, -1))
        if self.gate == "score":
            features = features * scores.gather(2, joints)[:, None]
        return FocalJoints(features, joints, scores)

    def extra_repr(self) -> str:
        options = f"gate={self.gate!r}, order={self.order!r}"
        return f"{len(self.weight)}, num_focal={self.num_focal}, {options}"


def scatter_to_joints(slots: Tensor, joints: Tensor, num_joints: int) -> Tensor:
    r"""Put slots back to their joints, with zeros elsewhere.

    .. math:: Y_{nctv} = \sum_k X_{nctk} [\mathrm{idx}_{ntk} = v]

    Shape:
        slots (N, C, T, K), joints (N, T, K) int64 -> (N, C, T, V).

    Args:
        slots: features of the kept joints.
        joints: the joint in each slot, 0..V-1.
        num_joints: V.

    Raises:
        ValueError: shapes that do not fit each other, or more slots than joints.

    Example:
        >>> slots = torch.tensor([3.0, 2.0]).view(1, 1, 1, 2)
        >>> scatter_to_joints(slots, torch.tensor([[[0, 2]]]), 3).flatten()
        tensor([3., 0., 2.])

    Reference:
        The inverse of FG-STFormer's equation 3, for maps over the body.
    """
    check_shape("scatter_to_joints", "slots", slots, "N, C, T, K")
    n, c, t, k = slots.shape
    check_shape("scatter_to_joints", "joints", joints, f"N, T, K={k}", N=n, T=t)
    if k > num_joints:
        raise ValueError(
            message("scatter_to_joints", f"at most {num_joints} slots, one for each joint", k)
        )
    return slots.new_zeros(n, c, t, num_joints).scatter_add(
        3, joints[:, None].expand(-1, c, -1, -1), slots
    )


class ScatterToJoints(nn.Module):
    """Put slots back to their joints by :func:`scatter_to_joints`, as a layer.

    :class:`~skeleton_focus.STFObjective` can then explain its output.

    Shape:
        slots (N, C, T, K), joints (N, T, K) -> (N, C, T, V).

    Args:
        num_joints: V.

    Raises:
        ValueError: as :func:`scatter_to_joints`.

    Example:
        >>> ScatterToJoints(25)(torch.randn(2, 16, 8, 15), torch.arange(15).expand(2, 8, 15)).shape
        torch.Size([2, 16, 8, 25])
    """

    def __init__(self, num_joints: int) -> None:
        super().__init__()
        self.num_joints = num_joints

    def forward(self, slots: Tensor, joints: Tensor) -> Tensor:
        return scatter_to_joints(slots, joints, self.num_joints)

    def extra_repr(self) -> str:
        return f"joints={self.num_joints}"


class PartEncoding(nn.Module):
    r"""Embed body parts: one linear layer for all, on the features of a part's joints side by side.

    .. math:: X^P_p = [X_{v_1}, \dots, X_{v_S}] W + b, \qquad v_1, \dots, v_S \in \text{part } p

    One layer needs parts of one size: smaller parts are filled up with zeros.

    Shape:
        x (N, C, T, V) -> (N, O, T, P).

    Args:
        in_channels: C.
        out_channels: O.
        parts: the joints of each part, such as ``layout.parts.values()``; the paper has 10 parts. A
            joint may be in several parts or in none.

    Raises:
        ValueError: no parts, an empty one, a joint that is no number from 0, or an x of another
            shape or with too few joints.

    Example:
        >>> from skeleton_focus import NTU25
        >>> PartEncoding(16, 32, NTU25.parts.values())(torch.randn(2, 16, 8, 25)).shape
        torch.Size([2, 32, 8, 10])

    Reference:
        FG-STFormer (Gao et al., ACCV 2022), section 3.3, global-level part partition encoding.
    """

    table: Tensor

    def __init__(self, in_channels: int, out_channels: int, parts: Iterable[Iterable[int]]) -> None:
        super().__init__()
        listed = [list(part) for part in parts]
        who = "PartEncoding"
        if not listed or not all(listed):
            raise ValueError(message(who, "at least one part, and joints in each", listed))
        if not all(isinstance(joint, int) and joint >= 0 for part in listed for joint in part):
            raise ValueError(
                message(who, "joints as numbers from 0", listed, "such as layout.parts.values()")
            )
        size = max(map(len, listed))
        self.least_joints = 1 + max(max(part) for part in listed)
        filled = [part + [-1] * (size - len(part)) for part in listed]
        self.register_buffer("table", torch.tensor(filled), persistent=False)
        # A stride as long as the kernel: each part is read once, without overlap, so this is one
        # linear layer for all parts.
        self.linear = nn.Conv2d(in_channels, out_channels, (1, size), (1, size))

    def forward(self, x: Tensor) -> Tensor:
        check_shape("PartEncoding", "x", x, f"N, C={self.linear.in_channels}, T>0, V")
        joints = x.shape[3]
        if joints < self.least_joints:
            raise ValueError(
                message("PartEncoding", f"x with at least {self.least_joints} joints", joints)
            )
        table = self.table.flatten() % (joints + 1)  # -1 becomes the joint of zeros behind the last
        y: Tensor = self.linear(F.pad(x, (0, 1))[..., table])  # (N, C, T, P S) -> (N, O, T, P)
        return y

    def extra_repr(self) -> str:
        return f"parts={len(self.table)}"
