"""Where the axes of a clip lie in a user's tensor: an einops pattern, and the way to (N, C, T, V, M) and back."""

from __future__ import annotations

import re

from einops import rearrange
from torch import Tensor

from ._checks import check_shape, message, require

_PATTERN = re.compile(r"N( ([CTVM]|\([CTVM]( [CTVM])+\)))+")


class ClipAxes:
    """A layout of clips, such as ``"N C T V M"``, ``"N M T V C"``, ``"N C T V"`` or ``"N T (V C)"``.

    Args:
        who: on whose behalf errors are raised.
        pattern: N first, then C, T, V and, of clips of several persons, M, each once; joined axes in parentheses.
        num_joints: V; needed where it is joined with another axis.

    Example:
        >>> import torch
        >>> axes = ClipAxes("STFObjective", "N T (V C)", 25)
        >>> clip = axes.to_clip(torch.zeros(4, 16, 75))
        >>> clip.shape, axes.from_clip(clip).shape
        (torch.Size([4, 3, 16, 25, 1]), torch.Size([4, 16, 75]))
    """

    def __init__(self, who: str, pattern: str, num_joints: int | None = None) -> None:
        require(isinstance(pattern, str), who, "axes as text, such as 'N C T V M'", type(pattern).__name__)
        letters = re.findall("[A-Z]", pattern)
        known = _PATTERN.fullmatch(pattern) and len(set(letters)) == len(letters) and set("NCTV") <= set(letters)
        hint = "such as 'N C T V M', 'N M T V C', 'N C T V' or, with num_joints, 'N T (V C)'"
        require(bool(known), who, "axes of N, C, T, V and perhaps M, N first, each once", repr(pattern), hint)
        self._groups: list[str] = re.findall(r"\(.*?\)|[A-Z]", pattern)
        unknown = [set(re.findall("[A-Z]", group)) - ({"V"} if num_joints else set()) for group in self._groups]
        hint = "pass num_joints" if num_joints is None else "at most one axis may be joined with V"
        require(all(len(axes) <= 1 for axes in unknown), who, "axes whose sizes can be told", repr(pattern), hint)
        require(num_joints is None or num_joints >= 1, who, "num_joints of at least 1", num_joints)
        self.who, self.pattern, self.num_joints = who, pattern, num_joints
        self._clip = "N C T V M" if "M" in letters else "N C T V 1"
        self._shape = ", ".join(self._named(group) for group in self._groups)

    def check(self, x: Tensor) -> None:
        """Refuse a tensor of another form."""
        check_shape(self.who, "x", x, self._shape, "axes, such as 'N C T V', says where they lie")
        for group, size in zip(self._groups, x.shape, strict=True):
            if self.num_joints and len(group) > 1 and "V" in group and size % self.num_joints:
                expected = f"x ({self._shape}) with V={self.num_joints}"
                raise ValueError(message(self.who, expected, tuple(x.shape)))

    def to_clip(self, x: Tensor) -> Tensor:
        """(N, C, T, V, M)."""
        sizes = {} if self.num_joints is None else {"V": self.num_joints}
        return rearrange(x, f"{self.pattern} -> {self._clip}", **sizes)

    def from_clip(self, clip: Tensor) -> Tensor:
        """The user's form again."""
        return rearrange(clip, f"{self._clip} -> {self.pattern}")

    def _named(self, group: str) -> str:
        size = f"={self.num_joints}" if group == "V" and self.num_joints else ""
        return "*".join(re.findall("[A-Z]", group)) + size
