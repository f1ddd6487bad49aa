"""The one form of error: who refuses, what was expected, what came."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from skeleton_focus import (
    KINECT20,
    FocalJointSelection,
    GraphConv,
    SpatialAttention,
    TemporalConv,
    spatial_partition,
)
from skeleton_focus._checks import check_adjacency, check_choice, check_shape, message


def test_message_is_spelled_in_one_form() -> None:
    assert message("who", "a b", 3) == "who: expected a b, got 3"
    assert message("who", "a b", (1, 2), "do c") == "who: expected a b, got (1, 2); do c"


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("N, C=3, T, V=25", (8, 3, 64, 25)),
        ("N, C=3, T, V=25", (0, 3, 0, 25)),
        ("N", (5,)),
        ("N*M, T', V", (4, 2, 1)),
    ],
)
def test_a_shape_that_fits(axes: str, shape: tuple[int, ...]) -> None:
    check_shape("who", "x", torch.empty(shape), axes)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("N, C=3, T, V=25", (8, 3, 64, 17)),
        ("N, C=3, T, V=25", (8, 4, 64, 25)),
        ("N, C=3, T, V=25", (3, 64, 25)),
        ("N, C=3, T, V=25", (8, 3, 64, 25, 1)),
        ("N", ()),
        ("N=2", (3,)),
        ("V=2", (20,)),
    ],
)
def test_a_shape_that_does_not_fit(axes: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"who: expected x ({axes}), got {shape}") + "$"):
        check_shape("who", "x", torch.empty(shape), axes)


def test_sizes_by_name() -> None:
    check_shape("who", "x", torch.empty(8, 3, 64), "N, C=3, T", N=8, T=64)
    for shape in [(7, 3, 64), (8, 4, 64), (8, 3, 63), (8, 3)]:
        with pytest.raises(
            ValueError, match=re.escape(f"who: expected x (N=8, C=3, T=64), got {shape}") + "$"
        ):
            check_shape("who", "x", torch.empty(shape), "N, C=3, T", N=8, T=64)


def test_choice() -> None:
    check_choice("who", "score", "b", ("a", "b"))
    with pytest.raises(ValueError, match=r"^who: expected score to be one of 'a', 'b', got 'c'$"):
        check_choice("who", "score", "c", ("a", "b"))


def test_adjacency() -> None:
    check_adjacency("who", torch.zeros(1, 4, 4))
    for shape in [(4, 4), (0, 4, 4), (3, 4, 5), (2, 3, 4, 4), ()]:
        with pytest.raises(
            ValueError, match=re.escape(f"who: expected an adjacency (K, V, V), got {shape}")
        ):
            check_adjacency("who", torch.zeros(shape))


def test_what_is_no_tensor_is_named() -> None:
    x = np.zeros((2, 3, 4, 20))
    for layer in (
        GraphConv(3, 4, spatial_partition(KINECT20)),
        TemporalConv(3, 4),
        SpatialAttention(3, 20),
    ):
        with pytest.raises(
            ValueError, match=r"expected x \(N, C=3, T, V.*\) to be a tensor, got ndarray$"
        ):
            layer(x)
    selected = FocalJointSelection(3, 5)(torch.from_numpy(x).float())
    with pytest.raises(
        ValueError, match=r"expected x \(N, C=3, T, V=20\) to be a tensor, got FocalJoints$"
    ):
        SpatialAttention(3, 20)(selected)
    with pytest.raises(
        ValueError, match=r"^GraphConv: expected an adjacency \(K, V, V\), got SkeletonLayout; skel"
    ):
        GraphConv(3, 4, KINECT20)


def test_an_axis_that_may_not_be_empty() -> None:
    axes = "N, C=3, T>0, V=25"
    with pytest.raises(
        ValueError, match=r"^GraphConv: expected x \(N, C=3, T>0, V=25\), got \(2, 3, 0, 25\)$"
    ):
        check_shape("GraphConv", "x", torch.zeros(2, 3, 0, 25), axes)
    with pytest.raises(
        ValueError, match=r"^GraphConv: expected x \(N, C=3, T, V=25\), got \(2, 4, 0, 25\)$"
    ):
        check_shape("GraphConv", "x", torch.zeros(2, 4, 0, 25), axes)
    check_shape("GraphConv", "x", torch.zeros(0, 3, 4, 25), axes)  # no clips: nothing is computed
