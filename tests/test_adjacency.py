"""Adjacencies against the published tables, the slow reference and a chain of three joints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reference
import reference_focus_diffusion
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import Bones, forests, graphs, trees
from torch import Tensor

from skeleton_focus import (
    KINECT20,
    NTU25,
    SkeletonLayout,
    directed_adjacency,
    multi_scale_adjacency,
    spatial_partition,
    window_adjacency,
)
from skeleton_focus.adjacency import hop_distance, normalize_adjacency
from skeleton_focus.layouts import LAYOUTS

CHAIN = SkeletonLayout.from_bones([(0, 1), (1, 2)], center=1)
HALF_ROOT = 6**-0.5  # degrees 2 and 3, self-loops included


def test_a_published_table_to_the_bit(golden: Path) -> None:
    published = np.load(golden / "adjacency.npz")["k_adjacency_normalized_ntu25_K13"]
    assert published.dtype == np.float32 and np.array_equal(
        multi_scale_adjacency(NTU25, 13).numpy(), published
    )


def test_published_tables(golden: Path) -> None:
    tables = np.load(golden / "adjacency.npz")
    ours = {
        "k_adjacency_normalized_ntu25_K13": (
            multi_scale_adjacency(NTU25, 13, dtype=torch.float64),
            1e-6,
        ),
        "g3d_adjacency_normalized_ntu25_window3_K6": (
            window_adjacency(NTU25, 3, 6, dtype=torch.float64),
            1e-6,
        ),
        "g3d_adjacency_normalized_ntu25_window5_K6": (
            window_adjacency(NTU25, 5, 6, dtype=torch.float64),
            1e-6,
        ),
        "spatial_partition_ntu25": (spatial_partition(NTU25, dtype=torch.float64), 0),
        "spatial_partition_ucla20": (spatial_partition(KINECT20, dtype=torch.float64), 0),
    }
    assert sorted(tables) == sorted(ours)
    # float32 files to 1e-6, the partitions exactly.
    for name, (adjacency, tolerance) in ours.items():
        assert adjacency.shape == tables[name].shape, name
        assert np.abs(adjacency.numpy() - tables[name]).max() <= tolerance, name


@given(graphs(), st.integers(1, 6))
def test_multi_scale_equals_the_slow_reference(bones: Bones, num_scales: int) -> None:
    layout = SkeletonLayout.from_bones(bones)
    hops = reference.hop_distance(layout.num_joints, bones)
    assert np.array_equal(hop_distance(layout).numpy(), hops)
    expected = reference.multi_scale_adjacency(layout.num_joints, bones, num_scales + 2)
    for first in range(3):
        ours = multi_scale_adjacency(layout, num_scales, first=first, dtype=torch.float64)
        assert np.abs(ours.numpy() - expected[first : first + num_scales]).max() < 1e-14


@given(st.data(), trees())
def test_partition_equals_the_slow_reference(data: st.DataObject, bones: Bones) -> None:
    layout = SkeletonLayout.from_bones(bones, center=data.draw(st.integers(0, len(bones))))
    children = [(j, p) for j, p in enumerate(layout.parents) if j != p]
    expected = reference.spatial_partition(layout.num_joints, children)
    assert np.abs(spatial_partition(layout, dtype=torch.float64).numpy() - expected).max() < 1e-15


@given(st.data(), graphs(), st.sampled_from(("outward", "inward")))
def test_directed_equals_the_slow_reference(
    data: st.DataObject, bones: Bones, direction: str
) -> None:
    center = data.draw(st.integers(0, max(max(bone) for bone in bones)))
    layout = SkeletonLayout.from_bones(bones, center=center)
    expected = reference_focus_diffusion.directed_graph(
        layout.num_joints, bones, center, direction == "outward"
    )
    assert (
        np.abs(directed_adjacency(layout, direction, dtype=torch.float64).numpy() - expected).max()
        < 1e-15
    )


@pytest.mark.parametrize("layout", list(LAYOUTS.values()), ids=lambda layout: layout.name)
def test_the_diffusion_graph_is_the_focus_graph_reversed(layout: SkeletonLayout) -> None:
    outward, inward = (directed_adjacency(layout, direction) for direction in ("outward", "inward"))
    torch.testing.assert_close(outward, inward.transpose(1, 2))
    assert set(outward[1].nonzero().flatten().tolist()) == set(range(layout.num_joints))
    reach = torch.linalg.matrix_power((outward > 0).any(0).float(), layout.num_joints) > 0
    assert reach[layout.center].all()  # along the bones from the centre to every joint
    assert reach[:, layout.center].sum() == 1  # and none back


@given(trees(5), st.integers(1, 4), st.integers(1, 5))
def test_a_window_is_a_graph_of_its_own(bones: Bones, window: int, num_scales: int) -> None:
    layout = SkeletonLayout.from_bones(bones)
    size = layout.num_joints
    links = []
    for t, u, v, w in np.ndindex(window, window, size, size):
        if (v == w and t < u) or (v, w) in bones:
            links.append((t * size + v, u * size + w))
    expected = reference.multi_scale_adjacency(window * size, links, num_scales)
    ours = window_adjacency(layout, window, num_scales, dtype=torch.float64)
    assert ours.shape == expected.shape and np.abs(ours.numpy() - expected).max() < 1e-14


def tables(layout: SkeletonLayout) -> Tensor:
    """All adjacencies of a layout: (..., V, V)."""
    window = window_adjacency(layout, 2, 9).unflatten(1, (2, -1)).unflatten(3, (2, -1))
    return torch.cat(
        [
            multi_scale_adjacency(layout, 9),
            multi_scale_adjacency(layout, 9, first=1),
            window.permute(0, 1, 3, 2, 4).flatten(0, 2),
            spatial_partition(layout),
            directed_adjacency(layout, "outward"),
            directed_adjacency(layout, "inward"),
        ]
    )


@given(st.data(), forests())
def test_components_of_a_forest_do_not_mix(data: st.DataObject, drawn: tuple[Bones, int]) -> None:
    """Their adjacencies are those of each component by itself, and 0 between two of them."""
    bones, size = drawn
    center = data.draw(st.integers(0, size - 1))
    layout = SkeletonLayout.from_bones(bones, center=center, joints="abcdefgh"[:size])
    hops = reference.hop_distance(size, bones)
    assert np.array_equal(hop_distance(layout).numpy(), hops)
    expected = torch.zeros_like(tables(layout))
    for first in range(size):
        component = np.flatnonzero(hops[first] >= 0).tolist()
        if component[0] != first:
            continue
        alone = SkeletonLayout.from_bones(
            [(component.index(a), component.index(b)) for a, b in bones if a in component],
            center=component.index(center) if center in component else 0,
            joints="abcdefgh"[: len(component)],
        )
        expected[:, torch.tensor(component)[:, None], torch.tensor(component)] = tables(alone)
    assert torch.equal(tables(layout), expected)


def test_a_chain_of_three_by_hand() -> None:
    assert hop_distance(CHAIN).tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    assert hop_distance(CHAIN).dtype == torch.int64
    expected = torch.tensor(
        [
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            [[0.5, HALF_ROOT, 0], [HALF_ROOT, 1 / 3, HALF_ROOT], [0, HALF_ROOT, 0.5]],
            [[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]],
        ]
    )
    torch.testing.assert_close(multi_scale_adjacency(CHAIN, 3), expected)
    # 1, 2 and 3 bones apart: the chain has no path of 3
    torch.testing.assert_close(multi_scale_adjacency(CHAIN, 3, first=1), expected[[1, 2, 0]])
    partition = [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 0], [1, 0, 1], [0, 0, 0]],  # joints 0 and 2 take from their parent 1
        [[0, 0.5, 0], [0, 0, 0], [0, 0.5, 0]],  # joint 1 takes the mean of its children
    ]
    assert spatial_partition(CHAIN).tolist() == partition


@pytest.mark.parametrize("layout", list(LAYOUTS.values()), ids=lambda layout: layout.name)
def test_a_scale_beyond_the_longest_path_is_the_identity(layout: SkeletonLayout) -> None:
    longest = int(hop_distance(layout).max())
    scales = multi_scale_adjacency(layout, longest + 3)
    eye = torch.eye(layout.num_joints)
    assert torch.equal(scales[0], eye)
    assert all(torch.equal(scale, eye) for scale in scales[longest + 1 :])
    assert not any(torch.equal(scale, eye) for scale in scales[1 : longest + 1])


def test_the_last_scale_of_ntu_joins_hand_tips_and_feet() -> None:
    ends = [
        NTU25.index(name) for name in ("left_foot", "right_foot", "left_hand_tip", "right_hand_tip")
    ]
    apart = (hop_distance(NTU25) == 12).nonzero().tolist()
    assert apart == sorted([a, b] for a in ends for b in ends if a != b and {a, b} != set(ends[:2]))
    assert int(hop_distance(NTU25).max()) == 12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_as_asked(dtype: torch.dtype) -> None:
    assert multi_scale_adjacency(CHAIN, 2, dtype=dtype).dtype == dtype
    assert window_adjacency(CHAIN, 2, 2, dtype=dtype).dtype == dtype
    assert spatial_partition(CHAIN, dtype=dtype).dtype == dtype
    assert normalize_adjacency(torch.ones(2, 2, dtype=dtype)).dtype == dtype


def test_normalize_by_hand() -> None:
    linked = torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    root = 0.5**0.5
    symmetric = torch.tensor([[0, root, root, 0], [root, 0, 0, 0], [root, 0, 0, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(normalize_adjacency(linked), symmetric)
    torch.testing.assert_close(normalize_adjacency(linked, "symmetric"), symmetric)
    column = torch.tensor([[0, 1, 1, 0], [0.5, 0, 0, 0], [0.5, 0, 0, 0], [0, 0, 0, 0]])
    assert torch.equal(normalize_adjacency(linked, "column"), column)
    # The joint where no edge starts takes all the same.
    directed = torch.tensor([[0.0, 1, 1], [0, 0, 1], [0, 0, 0]])
    expected = torch.tensor([[0, root, 0.5], [0, 0, root], [0, 0, 0]])
    torch.testing.assert_close(normalize_adjacency(directed), expected)
    before = linked.clone()
    both = normalize_adjacency(torch.stack([linked, torch.eye(4)]), "column")
    assert torch.equal(both, torch.stack([column, torch.eye(4)])) and torch.equal(linked, before)


def test_columns_of_the_partition_add_up_to_one_or_nothing() -> None:
    for layout in LAYOUTS.values():
        sums = spatial_partition(layout, dtype=torch.float64).sum(1)
        assert ((sums - 1).abs().lt(1e-12) | (sums == 0)).all()
        # The centre alone has no parent.
        assert (sums[1] == 0).sum() == 1 and sums[1, layout.center] == 0


def test_errors() -> None:
    with pytest.raises(
        ValueError, match=r"^multi_scale_adjacency: expected num_scales of at least 1, got 0$"
    ):
        multi_scale_adjacency(NTU25, 0)
    with pytest.raises(
        ValueError, match=r"^multi_scale_adjacency: expected first of at least 0, got -1$"
    ):
        multi_scale_adjacency(NTU25, 3, first=-1)
    with pytest.raises(
        ValueError, match=r"^window_adjacency: expected a window of at least 1 frame, got 0$"
    ):
        window_adjacency(NTU25, 0, 2)
    with pytest.raises(
        ValueError, match=r"^normalize_adjacency: expected how to be one of .*'column', got 'row'$"
    ):
        normalize_adjacency(torch.eye(2), "row")
    with pytest.raises(
        ValueError,
        match=r"^normalize_adjacency: expected an adjacency \(\.\.\., V, V\) of a floating",
    ):
        normalize_adjacency(torch.ones(2, 2, dtype=torch.long))
    with pytest.raises(
        ValueError, match=r"^directed_adjacency: expected direction to be one of .*, got 'focus'$"
    ):
        directed_adjacency(NTU25, "focus")


def test_the_window_error_names_its_own_function() -> None:
    with pytest.raises(
        ValueError, match=r"^window_adjacency: expected num_scales of at least 1, got 0$"
    ):
        window_adjacency(NTU25, 3, 0)
