"""Convert the axes of clips and feature maps to our order and back, by einops patterns."""

from __future__ import annotations

import re

from einops import EinopsError, rearrange
from torch import Tensor

from ._checks import check_shape, message

_PATTERN = re.compile(r"N( ([CTVM]|\([CTVM]( [CTVM])+\)))+")


class ClipAxes:
    """Describe the axes of clips, such as ``"N C T V M"``, ``"N M T V C"`` or ``"N T (V C)"``.

    Args:
        who: the name in error messages.
        pattern: N first, then C, T, V and, for several persons, M, each once; joined axes in
            parentheses.
        num_joints: V; needed if it is joined with another axis.

    Example:
        >>> import torch
        >>> axes = ClipAxes("STFObjective", "N T (V C)", 25)
        >>> clip = axes.to_clip(torch.zeros(4, 16, 75))
        >>> clip.shape, axes.from_clip(clip).shape
        (torch.Size([4, 3, 16, 25, 1]), torch.Size([4, 16, 75]))
    """

    def __init__(self, who: str, pattern: str, num_joints: int | None = None) -> None:
        if not isinstance(pattern, str):
            raise ValueError(
                message(who, "axes as text, such as 'N C T V M'", type(pattern).__name__)
            )
        letters = re.findall("[A-Z]", pattern)
        known = (
            _PATTERN.fullmatch(pattern)
            and len(set(letters)) == len(letters)
            and set("NCTV") <= set(letters)
        )
        if not known:
            hint = "such as 'N C T V M', 'N M T V C', 'N C T V' or, with num_joints, 'N T (V C)'"
            raise ValueError(
                message(
                    who, "axes of N, C, T, V and perhaps M, N first, each once", repr(pattern), hint
                )
            )
        self._groups: list[str] = re.findall(r"\(.*?\)|[A-Z]", pattern)
        # einops infers one size of each group; num_joints gives V.
        for group in self._groups:
            unknown = re.findall("[A-Z]", group)
            if num_joints and "V" in unknown:
                unknown.remove("V")
            if len(unknown) > 1:
                hint = "at most one axis may be joined with V"
                if num_joints is None:
                    hint = "pass num_joints"
                raise ValueError(
                    message(who, "axes whose sizes can be inferred", repr(pattern), hint)
                )
        if num_joints is not None and num_joints < 1:
            raise ValueError(message(who, "num_joints of at least 1", num_joints))
        self.who = who
        self.pattern = pattern
        self.num_joints = num_joints
        self._clip = "N C T V M" if "M" in letters else "N C T V 1"
        self._shape = ", ".join(self._named(group) for group in self._groups)

    def check(self, x: Tensor, name: str = "x") -> None:
        """Raise for a tensor of another shape, and for one without values."""
        check_shape(
            self.who,
            name,
            x,
            self._shape,
            "for another layout pass axes, such as 'N C T V M' or 'N C T V'",
        )
        if 0 in x.shape:
            raise ValueError(
                message(self.who, f"{name} ({self._shape}) without an empty axis", tuple(x.shape))
            )
        if x.is_meta:
            raise ValueError(
                message(self.who, f"{name} on a device that holds values", f"{name} on 'meta'")
            )
        # einops would refuse this, too, but its error names neither the function nor V.
        for group, size in zip(self._groups, x.shape, strict=True):
            if self.num_joints and len(group) > 1 and "V" in group and size % self.num_joints:
                expected = f"x ({self._shape}) with V={self.num_joints}"
                raise ValueError(message(self.who, expected, tuple(x.shape)))

    def are_alike(self, one: Tensor, other: Tensor) -> bool:
        """Whether two tensors have the same sizes, except for the channels."""
        if one.dim() != len(self._groups) or one.dim() != other.dim():
            return False
        sizes = zip(self._groups, one.shape, other.shape, strict=True)
        return all(a == b for group, a, b in sizes if group != "C")

    def to_clip(self, x: Tensor) -> Tensor:
        """Convert to (N, C, T, V, M)."""
        sizes = {} if self.num_joints is None else {"V": self.num_joints}
        return rearrange(x, f"{self.pattern} -> {self._clip}", **sizes)

    def from_clip(self, clip: Tensor) -> Tensor:
        """Convert back to the user's layout."""
        return rearrange(clip, f"{self._clip} -> {self.pattern}")

    def _named(self, group: str) -> str:
        size = f"={self.num_joints}" if group == "V" and self.num_joints else ""
        return "*".join(re.findall("[A-Z]", group)) + size


MAPS = "(N M) C T V"
_MAP_PATTERN = re.compile(r"([NCTVM]|\([NCTVM]( [NCTVM])+\))( ([NCTVM]|\([NCTVM]( [NCTVM])+\)))*")


class MapAxes:
    """Describe the axes of feature maps, such as ``"(N M) C T V"`` or ``"(N M) T V C"``.

    For tokens, they are ``"(N M) (T V) C"``.

    Args:
        who: the name in error messages.
        pattern: N, C and those of M, T and V that the map has, each once; joined axes in
            parentheses. Missing axes have size 1.

    Example:
        >>> import torch
        >>> axes = MapAxes("STFObjective", "(N M) (T V) C")
        >>> tokens = axes.bind("encoder", clips=4, persons=2, joints=25)
        >>> features = tokens.to_map(torch.zeros(8, 150, 64))
        >>> features.shape, tokens.from_map(features).shape
        (torch.Size([8, 64, 6, 25]), torch.Size([8, 150, 64]))
    """

    def __init__(self, who: str, pattern: str) -> None:
        if not isinstance(pattern, str):
            raise ValueError(
                message(who, f"maps as text, such as {MAPS!r}", type(pattern).__name__)
            )
        letters = re.findall("[A-Z]", pattern)
        known = (
            _MAP_PATTERN.fullmatch(pattern)
            and len(set(letters)) == len(letters)
            and {"N", "C"} <= set(letters)
        )
        if not known:
            hint = f"such as {MAPS!r}, '(N M) T V C', 'N M T V C' or, for tokens, '(N M) (T V) C'"
            raise ValueError(
                message(who, "maps of N, C and some of M, T, V, each once", repr(pattern), hint)
            )
        self.who = who
        self.pattern = pattern
        self.persons_first = "M" in letters and letters.index("M") < letters.index("N")
        persons = "M" in letters
        frames = "T" in letters
        joints = "V" in letters
        rows = "(N M)" if persons else "N"
        self._ours = f"{rows} C {'T' if frames else '1'} {'V' if joints else '1'}"
        self._given = {"N"}  # axes whose size comes from the clip, where einops cannot infer it
        # einops infers one size of each group, and N is known. Where more are unknown, V and then M
        # are taken from the clip; elsewhere a layer may have its own number of joints.
        for group in re.findall(r"\(.*?\)", pattern):
            unknown = [axis for axis in re.findall("[A-Z]", group) if axis != "N"]
            for axis in ("V", "M"):
                if len(unknown) > 1 and axis in unknown:
                    unknown.remove(axis)
                    self._given.add(axis)
            if len(unknown) >= 2:
                raise ValueError(
                    message(
                        who, "maps whose sizes can be inferred", repr(pattern), "keep C and T apart"
                    )
                )

    def bind(self, layer: str, *, clips: int, persons: int, joints: int) -> MapsOfOneBatch:
        """The conversions for a batch of ``clips`` clips."""
        sizes = {"N": clips, "M": persons, "V": joints}
        return MapsOfOneBatch(self, layer, clips, {axis: sizes[axis] for axis in self._given})


class MapsOfOneBatch:
    """Convert a layer's output to (N * M, C, T, V) and back, for one batch."""

    def __init__(self, axes: MapAxes, layer: str, clips: int, sizes: dict[str, int]) -> None:
        self._axes = axes
        self._layer = layer
        self._clips = clips
        self._sizes = sizes

    def to_map(self, output: Tensor) -> Tensor:
        """Convert to (N * M, C, T, V), with the persons of a clip next to each other."""
        try:
            return rearrange(output, f"{self._axes.pattern} -> {self._axes._ours}", **self._sizes)
        except EinopsError:
            sizes = ", ".join(f"{axis}={size}" for axis, size in sorted(self._sizes.items()))
            expected = f"layer {self._layer!r} to give {self._axes.pattern} with {sizes}"
            raise ValueError(message(self._axes.who, expected, tuple(output.shape))) from None

    def to_rows(self, rows: Tensor) -> Tensor:
        """Reorder rows for each person of each clip from the layer's order to (N * M, ...)."""
        # Rows are joined in the order of the layer's batch axis, (M N) or (N M); ours is (N M).
        if self._axes.persons_first:
            return rearrange(rows, "(m n) ... -> (n m) ...", n=self._clips)
        return rows

    def from_map(self, features: Tensor) -> Tensor:
        """Convert back to the layer's layout."""
        sizes = {"N": self._clips}
        if "M" in self._axes._ours:
            sizes["M"] = len(features) // self._clips
        return rearrange(features, f"{self._axes._ours} -> {self._axes.pattern}", **sizes)
