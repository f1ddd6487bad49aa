"""Clips in memory as one data set, and the batch that a training step receives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Clips padded with zeros to the longest of the batch.

    Attributes:
        x: (N, C, T, V, M) joint positions.
        lengths: (N,) true number of frames.
        label: (N,) class indices.
        visibility: (N, T, V, M), 1 where a joint was seen, 0 where it is missing or padding.
        critical: (N, M, T, V), 1 where a joint and frame make the class; zeros where the truth is not known.
    """

    x: Tensor
    lengths: Tensor
    label: Tensor
    visibility: Tensor
    critical: Tensor
