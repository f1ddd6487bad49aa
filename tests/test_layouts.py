"""Layouts: the field's tables as literals, and every refusal."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from typing import Any

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from strategies import Bones, graphs, shuffled, trees

from skeleton_focus import COCO17, KINECT20, NTU25, OPENPOSE18, SkeletonLayout
from skeleton_focus.layouts import LAYOUTS, NTU25_PYSKL

# The tables of shared/FORMATS.md, (joint, parent), the first three counted from 1.
NTU = """(1,2) (2,21) (3,21) (4,3) (5,21) (6,5) (7,6) (8,7) (9,21) (10,9) (11,10) (12,11) (13,1)
(14,13) (15,14) (16,15) (17,1) (18,17) (19,18) (20,19) (22,23) (23,8) (24,25) (25,12)"""
PYSKL = """(1,2) (2,21) (3,21) (4,3) (5,21) (6,5) (7,6) (8,7) (9,21) (10,9) (11,10) (12,11) (13,1)
(14,13) (15,14) (16,15) (17,1) (18,17) (19,18) (20,19) (22,8) (23,8) (24,12) (25,12)"""
KINECT = """(1,2) (2,3) (4,3) (5,3) (6,5) (7,6) (8,7) (9,3) (10,9) (11,10) (12,11) (13,1) (14,13)
(15,14) (16,15) (17,1) (18,17) (19,18) (20,19)"""
OPENPOSE = """(4,3) (3,2) (7,6) (6,5) (13,12) (12,11) (10,9) (9,8) (11,5) (8,2) (5,1) (2,1) (0,1)
(15,0) (14,0) (17,15) (16,14)"""
COCO = """(15,13) (13,11) (16,14) (14,12) (11,5) (12,6) (9,7) (7,5) (10,8) (8,6) (5,0) (6,0) (1,0)
(3,1) (2,0) (4,2)"""
TABLES = [
    (NTU25, NTU, 1, 25, 21),
    (NTU25_PYSKL, PYSKL, 1, 25, 21),
    (KINECT20, KINECT, 1, 20, 3),
    (OPENPOSE18, OPENPOSE, 0, 18, 1),
    (COCO17, COCO, 0, 17, 0),
]
ALL = [layout for layout, *_ in TABLES]
CHAIN = [(0, 1), (1, 2), (2, 3)]


def by_name(layout: SkeletonLayout) -> str:
    return layout.name


@pytest.mark.parametrize(
    ("layout", "table", "first", "size", "center"), TABLES, ids=[x.name for x in ALL]
)
def test_bones_are_those_of_the_field(
    layout: SkeletonLayout, table: str, first: int, size: int, center: int
) -> None:
    pairs = [pair.strip("()").split(",") for pair in table.split()]
    expected = {(int(a) - first, int(b) - first) for a, b in pairs}
    assert set(layout.bones) == expected and len(layout.bones) == len(expected) == size - 1
    assert layout.num_joints == size and layout.center == center - first
    assert all(layout.parents[joint] == parent for joint, parent in expected)
    assert layout.parents[layout.center] == layout.center


def test_hand_tips_are_where_ntu_and_pyskl_differ() -> None:
    assert set(NTU25.bones) - set(NTU25_PYSKL.bones) == {(21, 22), (23, 24)}
    assert set(NTU25_PYSKL.bones) - set(NTU25.bones) == {(21, 7), (23, 11)}
    named = {NTU25.joints[j]: NTU25.joints[NTU25.parents[j]] for j in (21, 23)}
    assert named == {"left_hand_tip": "left_thumb", "right_hand_tip": "right_thumb"}
    named = {NTU25_PYSKL.joints[j]: NTU25_PYSKL.joints[NTU25_PYSKL.parents[j]] for j in (21, 23)}
    assert named == {"left_hand_tip": "left_hand", "right_hand_tip": "right_hand"}
    assert NTU25.joints == NTU25_PYSKL.joints and NTU25.parts == NTU25_PYSKL.parts


def test_the_named_layouts() -> None:
    assert list(LAYOUTS) == ["NTU25", "NTU25_PYSKL", "KINECT20", "OPENPOSE18", "COCO17"]
    assert list(LAYOUTS.values()) == ALL
    assert [NTU25.joints[j] for j in (0, 3, 4, 7, 8, 12, 16, 20)] == [
        "spine_base",
        "head",
        "left_shoulder",
        "left_hand",
        "right_shoulder",
        "left_hip",
        "right_hip",
        "upper_spine",
    ]
    assert NTU25.joints[:20] == KINECT20.joints
    assert [OPENPOSE18.joints[j] for j in (0, 1, 2, 7, 8, 13, 14, 17)] == [
        "nose",
        "neck",
        "right_shoulder",
        "left_wrist",
        "right_hip",
        "left_ankle",
        "right_eye",
        "left_ear",
    ]
    assert [COCO17.joints[j] for j in (0, 1, 4, 5, 10, 15)] == [
        "nose",
        "left_eye",
        "right_ear",
        "left_shoulder",
        "right_wrist",
        "left_ankle",
    ]


@pytest.mark.parametrize("layout", ALL, ids=by_name)
def test_pairs_are_the_joints_named_left_and_right(layout: SkeletonLayout) -> None:
    names = {(layout.joints[left], layout.joints[right]) for left, right in layout.pairs}
    assert names == {(j, j.replace("left", "right")) for j in layout.joints if j.startswith("left")}
    assert {j for pair in names for j in pair} == {
        j for j in layout.joints if "left" in j or "right" in j
    }
    assert len(set(layout.joints)) == layout.num_joints


@pytest.mark.parametrize("layout", ALL, ids=by_name)
def test_a_mirror_image_is_the_same_skeleton(layout: SkeletonLayout) -> None:
    mirror = layout.mirror
    assert [mirror[mirror[j]] for j in range(layout.num_joints)] == list(range(layout.num_joints))
    assert {frozenset((mirror[a], mirror[b])) for a, b in layout.bones} == {
        frozenset(b) for b in layout.bones
    }
    assert mirror[layout.center] == layout.center


@pytest.mark.parametrize("layout", ALL, ids=by_name)
def test_parts_take_every_joint_once(layout: SkeletonLayout) -> None:
    assert sorted(j for part in layout.parts.values() for j in part) == list(
        range(layout.num_joints)
    )
    for name, part in layout.parts.items():
        if name.startswith("left_"):
            right = layout.parts[name.replace("left", "right")]
            assert [layout.mirror[j] for j in part] == list(right)
            assert all(layout.joints[j].startswith("left_") for j in part)


def test_ten_parts() -> None:
    names = ["torso", "head"] + [
        f"{s}_{limb}" for limb in ("upper_arm", "hand", "thigh", "foot") for s in ("left", "right")
    ]
    assert list(NTU25.parts) == list(NTU25_PYSKL.parts) == list(KINECT20.parts) == names
    assert [NTU25.joints[j] for j in NTU25.parts["right_hand"]] == [
        "right_wrist",
        "right_hand",
        "right_hand_tip",
        "right_thumb",
    ]


@pytest.mark.parametrize("layout", ALL, ids=by_name)
def test_height_runs_from_the_head_to_a_foot(layout: SkeletonLayout) -> None:
    top, bottom = (layout.joints[j] for j in layout.height)
    assert top in ("head", "nose") and bottom in ("left_foot", "left_ankle")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"bones": []}, "at least one bone, got none"),
        ({"bones": [(0, 1, 2)]}, r"bones of two joints each, got \[\(0, 1, 2\)\]"),
        (
            {"bones": [(0, 1), (1, -1)]},
            r"each bone to join two different joints in 0\.\.1, got \(1, -1\)",
        ),
        (
            {"bones": [(0, 1), (1, 2)], "joints": "ab"},
            r"two different joints in 0\.\.1, got \(1, 2\)",
        ),
        ({"bones": [(0, 1), (1, 1)]}, r"two different joints in 0\.\.1, got \(1, 1\)"),
        ({"bones": [(0, 1), (0, 1)]}, r"each bone once, got \[\(0, 1\), \(0, 1\)\]"),
        ({"bones": [(0, 1), (1, 0)]}, r"each bone once, got \[\(0, 1\), \(1, 0\)\]"),
        ({"center": 4}, r"a centre in 0\.\.3, got 4"),
        ({"center": -1}, r"a centre in 0\.\.3, got -1"),
        (
            {"bones": [(0, 1), (2, 3)], "center": 3},
            r"to the centre 3, got none that reach joints \[0, 1\]",
        ),
        ({"joints": "abcde"}, r"to the centre 0, got none that reach joints \[4\]"),
        ({"pairs": [(0, 1), (2, 4)]}, r"each pair to hold joints in 0\.\.3, got \(2, 4\)"),
        ({"pairs": [(-1, 1)]}, r"each pair to hold joints in 0\.\.3, got \(-1, 1\)"),
        ({"parts": {"arm": [1, 7]}}, r"each part to hold joints in 0\.\.3, got \(1, 7\)"),
    ],
)
def test_what_from_bones_refuses(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match="^SkeletonLayout 'mine': expected .*" + error):
        SkeletonLayout.from_bones(**{"bones": CHAIN, "name": "mine", **options})


@pytest.mark.parametrize(
    "options",
    [{"pairs": [(1, 2, 3)]}, {"pairs": [(1,)]}, {"height": (0, 9)}, {"height": (-1, 2)}],
    ids=["a pair of three", "a pair of one", "a height beyond the joints", "a negative height"],
)
def test_pairs_are_two_joints_and_the_height_lies_on_the_body(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^SkeletonLayout 'custom': expected .*got"):
        SkeletonLayout.from_bones(CHAIN, **options)


def test_every_argument_may_be_an_iterator() -> None:
    layout = SkeletonLayout.from_bones(iter([(0, 1), (0, 2)]), pairs=iter([(1, 2)]))
    assert layout.pairs == ((1, 2),) and layout.mirror == (0, 2, 1)


def test_a_chain_by_hand() -> None:
    chain = SkeletonLayout.from_bones([(3, 2), (0, 1), (2, 1)], center=1, pairs=[(0, 2)])
    assert chain.joints == ("joint_0", "joint_1", "joint_2", "joint_3") and chain.num_joints == 4
    assert chain.bones == ((0, 1), (2, 1), (3, 2)) and chain.parents == (1, 1, 1, 2)
    assert chain.hops(0) == (0, 1, 2, 3) and chain.hops(2) == (2, 1, 0, 1)
    assert chain.path(3, 0) == (3, 2, 1, 0) and chain.path(2, 2) == (2,)
    assert chain.neighbors(1) == (0, 2) and chain.neighbors(3) == (2,)
    assert chain.mirror == (2, 1, 0, 3)
    assert chain.height == (0, 3) and chain.parts == {"body": (0, 1, 2, 3)}
    assert chain.index("joint_2") == 2
    with pytest.raises(
        ValueError, match=r"^SkeletonLayout 'custom': expected a joint among .*, got 'nose'$"
    ):
        chain.index("nose")


def test_names_parts_and_height_as_given() -> None:
    layout = SkeletonLayout.from_bones(
        CHAIN, name="x", joints="abcd", parts={"p": [3, 1]}, height=(1, 2)
    )
    assert (layout.joints, layout.parts, layout.height) == (
        ("a", "b", "c", "d"),
        {"p": (3, 1)},
        (1, 2),
    )
    assert layout.index("c") == 2


@given(st.data(), trees())
def test_order_and_direction_of_the_bones_do_not_matter(data: st.DataObject, bones: Bones) -> None:
    center = data.draw(st.integers(0, len(bones)))
    one = SkeletonLayout.from_bones(bones, center=center)
    other = SkeletonLayout.from_bones(data.draw(shuffled(bones)), center=center)
    assert set(one.bones) == set(other.bones)
    assert (one.parents, one.height, one.joints, one.parts) == (
        other.parents,
        other.height,
        other.joints,
        other.parts,
    )
    for j in range(one.num_joints):
        assert one.hops(j) == other.hops(j) and one.neighbors(j) == other.neighbors(j)


@given(st.data(), graphs())
def test_hops_and_paths_on_any_graph(data: st.DataObject, bones: Bones) -> None:
    layout = SkeletonLayout.from_bones(bones)
    expected = reference.hop_distance(layout.num_joints, bones)
    assert [layout.hops(j) for j in range(layout.num_joints)] == [
        tuple(row) for row in expected.tolist()
    ]
    start = data.draw(st.integers(0, layout.num_joints - 1))
    end = data.draw(st.integers(0, layout.num_joints - 1))
    path = layout.path(start, end)
    assert path[0] == start and path[-1] == end and len(path) == expected[start, end] + 1
    assert all(b in layout.neighbors(a) for a, b in pairwise(path))
    assert expected[layout.height] == expected.max()


@given(st.data(), graphs())
def test_a_parent_is_one_bone_nearer_to_the_centre_on_any_graph(
    data: st.DataObject, bones: Bones
) -> None:
    center = data.draw(st.integers(0, max(max(bone) for bone in bones)))
    layout = SkeletonLayout.from_bones(bones, center=center)
    hops = layout.hops(center)
    assert [hops[j] - hops[p] for j, p in enumerate(layout.parents)] == [
        int(j != center) for j in range(len(hops))
    ]
    assert (
        SkeletonLayout.from_bones(data.draw(shuffled(bones)), center=center).parents
        == layout.parents
    )


@pytest.mark.parametrize("layout", ALL, ids=by_name)
def test_layouts_survive_copies_and_refuse_changes(layout: SkeletonLayout) -> None:
    assert pickle.loads(pickle.dumps(layout)) == layout == copy.deepcopy(layout)
    with pytest.raises(AttributeError, match="center"):
        layout.center = 0  # type: ignore[misc]
