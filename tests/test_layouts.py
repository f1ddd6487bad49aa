"""Layouts: the field's tables as literals, and every refusal."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from stf_gcn import STFGCN
from strategies import Bones, forests, graphs, shuffled, trees

from skeleton_focus import (
    COCO17,
    KINECT20,
    NTU25,
    OPENPOSE18,
    GraphConv,
    SkeletonLayout,
    STFObjective,
    body_height,
    directed_adjacency,
    make_stream,
    multi_scale_adjacency,
    spatial_partition,
    window_adjacency,
)
from skeleton_focus.layouts import (
    AZURE_KINECT32,
    BODY25,
    FLORENCE15,
    H36M17,
    HALPE26,
    LAYOUTS,
    MEDIAPIPE33,
    NTU25_PYSKL,
    PENN13,
    UTD20,
    load_layout,
)
from skeleton_focus.plot import plot_adjacency, plot_film_strip, plot_focus_map

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
# OpenPose's rendered pairs of BODY_25, from the neck outwards.
BODY = """(8,1) (2,1) (5,1) (3,2) (4,3) (6,5) (7,6) (9,8) (10,9) (11,10) (12,8) (13,12) (14,13)
(0,1) (15,0) (17,15) (16,0) (18,16) (19,14) (20,19) (21,14) (22,11) (23,22) (24,11)"""
# AlphaPose's l_pair of Halpe's 26 key points, and (0,18), which joins its two parts.
HALPE = """(1,0) (2,0) (3,1) (4,2) (5,18) (6,18) (7,5) (9,7) (8,6) (10,8) (17,18) (19,18) (11,19)
(12,19) (13,11) (14,12) (15,13) (16,14) (20,24) (21,25) (23,25) (22,24) (24,15) (25,16) (0,18)"""
# MediaPipe's POSE_CONNECTIONS without (11,12), (23,24), (17,19), (18,20), (27,31), (28,32), which
# close a cycle, and (9,10); mouth and shoulders hang on the nose.
MEDIAPIPE = """(1,0) (2,1) (3,2) (7,3) (4,0) (5,4) (6,5) (8,6) (13,11) (15,13) (17,15) (19,15)
(21,15) (14,12) (16,14) (18,16) (20,16) (22,16) (23,11) (24,12) (25,23) (26,24) (27,25) (28,26)
(29,27) (30,28) (31,29) (32,30) (9,0) (10,0) (11,0) (12,0)"""
# VideoPose3D's parents of joints 1 to 16, from the hip, which is not our centre.
H36M = [0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15]
# The parents in the documentation of the Azure Kinect, joints 1 to 31, from the pelvis.
AZURE = [0, 1, 2, 2, 4, 5, 6, 7, 8, 7, 2, 11, 12, 13, 14, 15, 14, 0, 18, 19, 20, 0, 22, 23, 24, 3]
AZURE += [26, 26, 26, 26, 26]
PENN = """(1,0) (2,0) (3,1) (5,3) (4,2) (6,4) (7,1) (9,7) (11,9) (8,2) (10,8) (12,10)"""
FLORENCE = """(1,2) (3,2) (4,2) (5,4) (6,5) (7,2) (8,7) (9,8) (10,3) (11,10) (12,11) (13,3) (14,13)
(15,14)"""
UTD = """(1,2) (3,2) (4,3) (5,2) (6,5) (7,6) (8,7) (9,2) (10,9) (11,10) (12,11) (13,4) (14,13)
(15,14) (16,15) (17,4) (18,17) (19,18) (20,19)"""


def by_parent(parents: list[int], *turned: int) -> str:
    """The bones of joints 1, 2, ... and their parents; those of ``turned`` joints point to them."""
    bones = []
    for joint, parent in enumerate(parents, 1):
        bones.append(f"({parent},{joint})" if joint in turned else f"({joint},{parent})")
    return " ".join(bones)


TABLES = [
    (NTU25, NTU, 1, 25, 21),
    (NTU25_PYSKL, PYSKL, 1, 25, 21),
    (KINECT20, KINECT, 1, 20, 3),
    (OPENPOSE18, OPENPOSE, 0, 18, 1),
    (COCO17, COCO, 0, 17, 0),
    (BODY25, BODY, 0, 25, 1),
    (HALPE26, HALPE, 0, 26, 18),
    (MEDIAPIPE33, MEDIAPIPE, 0, 33, 0),
    (H36M17, by_parent(H36M, 7, 8), 0, 17, 8),
    (AZURE_KINECT32, by_parent(AZURE, 1, 2), 0, 32, 2),
    (PENN13, PENN, 0, 13, 0),
    (FLORENCE15, FLORENCE, 1, 15, 2),
    (UTD20, UTD, 1, 20, 2),
]
# The joints by the names that each source gives them, in its order.
NAMES = {
    "BODY25": """Nose Neck RShoulder RElbow RWrist LShoulder LElbow LWrist MidHip RHip RKnee RAnkle
        LHip LKnee LAnkle REye LEye REar LEar LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel""",
    "HALPE26": """Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip
        LKnee RKnee LAnkle RAnkle Head Neck Hip LBigToe RBigToe LSmallToe RSmallToe LHeel RHeel""",
    "MEDIAPIPE33": """NOSE LEFT_EYE_INNER LEFT_EYE LEFT_EYE_OUTER RIGHT_EYE_INNER RIGHT_EYE
        RIGHT_EYE_OUTER LEFT_EAR RIGHT_EAR MOUTH_LEFT MOUTH_RIGHT LEFT_SHOULDER RIGHT_SHOULDER
        LEFT_ELBOW RIGHT_ELBOW LEFT_WRIST RIGHT_WRIST LEFT_PINKY RIGHT_PINKY LEFT_INDEX RIGHT_INDEX
        LEFT_THUMB RIGHT_THUMB LEFT_HIP RIGHT_HIP LEFT_KNEE RIGHT_KNEE LEFT_ANKLE RIGHT_ANKLE
        LEFT_HEEL RIGHT_HEEL LEFT_FOOT_INDEX RIGHT_FOOT_INDEX""",
    "H36M17": """Hip RHip RKnee RFoot LHip LKnee LFoot Spine Thorax Nose Head LShoulder LElbow
        LWrist RShoulder RElbow RWrist""",
    "AZURE_KINECT32": """PELVIS SPINE_NAVEL SPINE_CHEST NECK CLAVICLE_LEFT SHOULDER_LEFT ELBOW_LEFT
        WRIST_LEFT HAND_LEFT HANDTIP_LEFT THUMB_LEFT CLAVICLE_RIGHT SHOULDER_RIGHT ELBOW_RIGHT
        WRIST_RIGHT HAND_RIGHT HANDTIP_RIGHT THUMB_RIGHT HIP_LEFT KNEE_LEFT ANKLE_LEFT FOOT_LEFT
        HIP_RIGHT KNEE_RIGHT ANKLE_RIGHT FOOT_RIGHT HEAD NOSE EYE_LEFT EAR_LEFT EYE_RIGHT
        EAR_RIGHT""",
    "PENN13": """Head RShoulder LShoulder RElbow LElbow RWrist LWrist RHip LHip RKnee LKnee RAnkle
        LAnkle""",
    "FLORENCE15": """Head Neck Spine LShoulder LElbow LWrist RShoulder RElbow RWrist LHip LKnee
        LAnkle RHip RKnee RAnkle""",
    "UTD20": """Head SHOULDER_CENTER Spine HIP_CENTER LShoulder LElbow LWrist LHand RShoulder RElbow
        RWrist RHand LHip LKnee LAnkle LFoot RHip RKnee RAnkle RFoot""",
}
OURS = {
    ("BODY25", "MidHip"): "spine_base",
    ("HALPE26", "Hip"): "spine_base",
    ("MEDIAPIPE33", "LEFT_FOOT_INDEX"): "left_foot",
    ("MEDIAPIPE33", "RIGHT_FOOT_INDEX"): "right_foot",
    ("H36M17", "Hip"): "spine_base",
    ("H36M17", "Thorax"): "neck",  # between the shoulders
    ("H36M17", "LFoot"): "left_ankle",  # VideoPose3D's name for the ankle
    ("H36M17", "RFoot"): "right_ankle",
    ("AZURE_KINECT32", "PELVIS"): "spine_base",
    ("AZURE_KINECT32", "SPINE_NAVEL"): "spine",
    ("AZURE_KINECT32", "SPINE_CHEST"): "chest",
    ("AZURE_KINECT32", "HANDTIP_LEFT"): "left_hand_tip",
    ("AZURE_KINECT32", "HANDTIP_RIGHT"): "right_hand_tip",
    ("UTD20", "SHOULDER_CENTER"): "neck",
    ("UTD20", "HIP_CENTER"): "spine_base",
}
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


@pytest.mark.parametrize("name", NAMES)
def test_joints_are_in_the_order_of_their_source(name: str) -> None:
    expected = []
    for theirs in NAMES[name].split():
        # LBigToe and WRIST_LEFT become left_big_toe and left_wrist.
        sided = re.sub(r"^([LR])(?=[A-Z][a-z])", r"\1_", theirs)
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", sided).lower().split("_")
        side = {"l": "left", "left": "left", "r": "right", "right": "right"}
        sides = [side[word] for word in words if word in side]
        plain = "_".join(sides + [word for word in words if word not in side])
        expected.append(OURS.get((name, theirs), plain))
    assert list(LAYOUTS[name].joints) == expected


@pytest.mark.parametrize(
    ("layout", "file"), [(UTD20, "utd_mhad"), (FLORENCE15, "florence3d")], ids=lambda one: str(one)
)
def test_bones_of_real_bodies_keep_their_lengths(
    layout: SkeletonLayout, file: str, real_clips: Callable[[str], Any]
) -> None:
    x = real_clips(file)["x"]
    lengths = {}
    for joint, parent in layout.bones:
        length = np.linalg.norm(x[:, joint] - x[:, parent], axis=1)
        # Hands and knees move most against their neighbours: 29 % and 10 % of the length.
        assert np.median(abs(length - np.median(length))) < 0.3 * np.median(length)
        lengths[layout.joints[joint]] = length.mean()
    for left in lengths:
        if left.startswith("left"):
            right = lengths[left.replace("left", "right")]
            assert lengths[left] == pytest.approx(right, rel=0.05)
    heights = dict(zip(layout.joints, x[..., 1].mean(0), strict=True))
    order = ["head", "neck", "spine", "left_hip", "left_knee", "left_ankle"]
    assert sorted(order, key=lambda joint: -heights[joint]) == order
    # Kinect's x grows towards the right of a person who faces it.
    assert x[:, layout.index("left_hip"), 0].mean() < x[:, layout.index("right_hip"), 0].mean()


def test_sides_of_penn_action_are_the_persons_own(real_clips: Callable[[str], Any]) -> None:
    """Strummers face the camera, bowlers turn their back to it, and most use the right hand."""
    data = real_clips("penn_action")
    first = np.cumsum(data["lengths"]) - data["lengths"]
    classes = list(data["classes"])
    left, right = (PENN13.index(f"{side}_shoulder") for side in ("left", "right"))
    hands = [PENN13.index(f"{side}_wrist") for side in ("left", "right")]
    for action, faces_us in (("strum_guitar", True), ("bowl", False)):
        on_our_right = []
        right_handed = []
        for clip in np.flatnonzero(data["label"] == classes.index(action)):
            frames = slice(first[clip], first[clip] + data["lengths"][clip])
            x = data["x"][frames].astype(float)
            seen = data["visibility"][frames] > 0
            both = seen[:, left] & seen[:, right]
            on_our_right += (x[both, left, 0] > x[both, right, 0]).tolist()
            moves = []
            for hand in hands:
                tracked = seen[1:, hand] & seen[:-1, hand]
                step = np.linalg.norm(np.diff(x[:, hand], axis=0), axis=1)
                moves.append(step[tracked].mean() if tracked.any() else 0)
            right_handed.append(moves[1] > moves[0])
        assert (np.mean(on_our_right) > 0.9) == faces_us
        assert np.mean(right_handed) > 0.7


def test_hand_tips_are_where_ntu_and_pyskl_differ() -> None:
    assert set(NTU25.bones) - set(NTU25_PYSKL.bones) == {(21, 22), (23, 24)}
    assert set(NTU25_PYSKL.bones) - set(NTU25.bones) == {(21, 7), (23, 11)}
    named = {NTU25.joints[j]: NTU25.joints[NTU25.parents[j]] for j in (21, 23)}
    assert named == {"left_hand_tip": "left_thumb", "right_hand_tip": "right_thumb"}
    named = {NTU25_PYSKL.joints[j]: NTU25_PYSKL.joints[NTU25_PYSKL.parents[j]] for j in (21, 23)}
    assert named == {"left_hand_tip": "left_hand", "right_hand_tip": "right_hand"}
    assert NTU25.joints == NTU25_PYSKL.joints and NTU25.parts == NTU25_PYSKL.parts


def test_the_named_layouts() -> None:
    assert list(LAYOUTS) == [
        *("NTU25", "NTU25_PYSKL", "KINECT20", "OPENPOSE18", "COCO17", "BODY25", "HALPE26"),
        *("MEDIAPIPE33", "H36M17", "AZURE_KINECT32", "PENN13", "FLORENCE15", "UTD20"),
    ]
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
    for layout in ALL:
        assert set(layout.parts) <= {*names, "neck"} and set(names[2:]) < set(layout.parts)
    without = {layout.name for layout in ALL if len(layout.parts) == 9}
    assert without == {"COCO17", "MEDIAPIPE33", "PENN13"}, "these have no joint on the torso"
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
        ({"bones": []}, "at least one bone, or the names of joints, got none"),
        ({"bones": [], "joints": ""}, "at least one bone, or the names of joints, got none"),
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
            {"bones": [(1, 2), (2, 3), (5, 6)]},  # counted from 1, and one is missing
            r"a bone at every joint, got none at \[0, 4\]; bones are 0-based",
        ),
        (
            {"bones": [(0, 1), (2, 3)], "height": (0, 3)},
            r"a height whose two joints a path of bones joins, got \(0, 3\)",
        ),
        ({"height": (0, 1, 2)}, r"a height of two joints, head and foot, got \(0, 1, 2\)"),
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


def test_two_components_by_hand() -> None:
    layout = SkeletonLayout.from_bones([(1, 0), (3, 2), (4, 3)], center=1, joints="abcdef")
    assert layout.parents == (1, 1, 2, 2, 3, 5) and layout.depths == (1, 0, 0, 1, 2, 0)
    assert layout.bones == ((0, 1), (3, 2), (4, 3)), "from the centre, or the smallest index"
    assert layout.hops(3) == (-1, -1, 1, 0, 1, -1) and layout.hops(5) == (-1,) * 5 + (0,)
    assert layout.height == (2, 4), "the longest path within a component"
    assert layout.path(4, 2) == (4, 3, 2) and layout.path(5, 5) == (5,)
    with pytest.raises(
        ValueError,
        match=r"^SkeletonLayout 'custom': expected two joints with a path along the bones, "
        "got a and d$",
    ):
        layout.path(0, 3)


def test_mediapipes_own_bones_have_a_face_a_mouth_and_a_body() -> None:
    """Its POSE_CONNECTIONS."""
    face = [(0, 1), (1, 2), (2, 3), (3, 7), (0, 4), (4, 5), (5, 6), (6, 8)]
    body = [(11, 12), (11, 23), (12, 24), (23, 24)]
    for j in (0, 1):
        body += [(11 + j, 13 + j), (13 + j, 15 + j), (15 + j, 17 + j), (15 + j, 19 + j)]
        body += [(15 + j, 21 + j), (17 + j, 19 + j), (23 + j, 25 + j), (25 + j, 27 + j)]
        body += [(27 + j, 29 + j), (29 + j, 31 + j), (27 + j, 31 + j)]
    layout = SkeletonLayout.from_bones(face + [(9, 10)] + body)
    roots = [joint for joint, parent in enumerate(layout.parents) if joint == parent]
    assert roots == [0, 9, 11] and layout.num_joints == 33 and len(layout.bones) == 35
    assert all(layout.hops(0)[joint] == -1 for joint in range(9, 33))
    assert layout.hops(20)[31] == 8


@given(st.data(), forests())
def test_hops_paths_and_parents_of_any_forest(
    data: st.DataObject, drawn: tuple[Bones, int]
) -> None:
    bones, size = drawn
    center = data.draw(st.integers(0, size - 1))
    layout = SkeletonLayout.from_bones(bones, center=center, joints="abcdefgh"[:size])
    hops = reference.hop_distance(size, bones)
    assert [layout.hops(j) for j in range(size)] == [tuple(row) for row in hops.tolist()]
    assert hops[layout.height] == hops.max()
    for joint, parent in enumerate(layout.parents):
        component = [j for j in range(size) if hops[joint, j] >= 0]
        root = center if center in component else component[0]
        assert layout.depths[joint] == hops[joint, root]
        assert hops[parent, root] == max(hops[joint, root] - 1, 0)
        assert hops[joint, parent] == int(joint != root)
        for other in range(size):
            if other in component:
                assert len(layout.path(joint, other)) == hops[joint, other] + 1
            else:
                with pytest.raises(ValueError, match="two joints with a path"):
                    layout.path(joint, other)


def test_a_skeleton_of_one_joint() -> None:
    """A network, its focus, the streams and the pictures work for it."""
    layout = SkeletonLayout.from_bones([], joints=["head"])
    assert layout.bones == () and layout.parents == layout.depths == layout.hops(0) == (0,)
    assert layout.height == (0, 0) and layout.path(0, 0) == (0,) and layout.mirror == (0,)
    for adjacency in (spatial_partition(layout), directed_adjacency(layout, "outward")):
        assert adjacency[:, 0, 0].tolist() == [1.0] + [0.0] * (len(adjacency) - 1)
    assert multi_scale_adjacency(layout, 3).tolist() == [[[1.0]]] * 3
    assert window_adjacency(layout, 2, 2)[0].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    torch.testing.assert_close(window_adjacency(layout, 2, 2)[1], torch.full((2, 2), 0.5))
    x = torch.randn(2, 3, 8, 1, 1)
    assert body_height(x, layout).tolist() == [1.0, 1.0]
    assert not make_stream(x, "bone", layout).any()
    assert GraphConv(3, 4, spatial_partition(layout))(x[..., 0]).shape == (2, 4, 8, 1)
    network = STFGCN(2, layout, in_channels=3, widths=(6,) * 6)
    objective = STFObjective(network, ["blocks.4", "blocks.5"], head="fc")
    loss, *_, focus = objective(x, torch.tensor([0, 1]))[:4]
    loss.backward()
    assert network(x).shape == (2, 2) and focus.shape == (2, 1, 8, 1)
    pytest.importorskip("matplotlib")
    figure = plot_film_strip(x[0], focus[0].detach(), layout, frames=2)
    assert len(figure.axes[0].collections[0].get_paths()) == 0
    assert plot_focus_map(focus[0].detach(), layout).axes
    assert plot_adjacency(x[0, :, 0, :, 0].T, {"A": multi_scale_adjacency(layout, 2)}, layout).axes


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


@given(st.data(), forests())
def test_a_layout_comes_back_from_its_description(
    data: st.DataObject, drawn: tuple[Bones, int]
) -> None:
    bones, size = drawn
    joint = st.integers(0, size - 1)
    names = data.draw(st.lists(st.text(), min_size=size, max_size=size, unique=True))
    order = data.draw(st.permutations(range(size)))
    layout = SkeletonLayout.from_bones(
        bones,
        name=data.draw(st.text()),
        joints=names,
        center=data.draw(joint),
        pairs=list(zip(order[::2], order[1::2], strict=False)),
        parts=data.draw(st.none() | st.dictionaries(st.text(), st.lists(joint))),
        height=data.draw(st.none() | joint.map(lambda at: (at, at))),
    )
    text = json.dumps(layout.to_dict())
    again = SkeletonLayout.from_dict(json.loads(text))
    assert again == layout and list(again.parts) == list(layout.parts)
    assert json.dumps(again.to_dict()) == text


def test_a_description_by_hand() -> None:
    arm = SkeletonLayout.from_bones(
        [(1, 0), (1, 2)],
        name="arms",
        joints=["left", "neck", "right"],
        center=1,
        pairs=[(0, 2)],
        parts={"hands": (2, 0)},
        height=(1, 2),
    )
    assert arm.to_dict() == {
        "name": "arms",
        "joints": ["left", "neck", "right"],
        "bones": [["left", "neck"], ["right", "neck"]],
        "center": "neck",
        "pairs": [["left", "right"]],
        "parts": {"hands": ["right", "left"]},
        "height": ["neck", "right"],
    }
    numbers = {"joints": ["left", "neck", "right"], "bones": [[0, 1], ["right", 1]]}
    assert SkeletonLayout.from_dict(numbers) == SkeletonLayout.from_bones(
        [(0, 1), (1, 2)], joints=["left", "neck", "right"]
    )


@pytest.mark.parametrize("layout", ALL, ids=by_name)
def test_a_layout_is_loaded_by_name_or_file(layout: SkeletonLayout, tmp_path: Path) -> None:
    assert load_layout(layout) is layout
    assert load_layout(layout.name) is load_layout(layout.name.lower()) is layout
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(layout.to_dict()))
    assert load_layout(path) == load_layout(str(path)) == layout


FINE = {"joints": ["a", "b", "c"], "bones": [["a", "b"], ["b", "c"]]}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (None, r"a mapping with the keys joints and bones, got NoneType"),
        ([], r"a mapping with the keys joints and bones, got list"),
        ({"centre": "a"}, r"keys among name, joints, bones, .*, height, got \['centre'\]"),
        ({"joints": ...}, r"the keys joints and bones, got no joints"),
        ({"bones": ...}, r"the keys joints and bones, got no bones"),
        ({"joints": "abc"}, r"joints to hold lists, got 'abc'"),
        ({"joints": ["a", "b", 3]}, r"joints to be a list of names, got \['a', 'b', 3\]"),
        ({"joints": ["a", "b", "b", "c"]}, r"each joint name once"),
        ({"bones": {"a": "b"}}, r"bones to hold lists, got {'a': 'b'}"),
        ({"bones": ["ab"]}, r"bones to hold lists, got 'ab'"),
        ({"bones": [["a", "d"]]}, r"bones of joints in \['a', .*numbers, got 'd'"),
        ({"bones": [["a", 1.0]]}, r"bones of joints in \['a', .*numbers, got 1\.0"),
        ({"bones": [["a", True]]}, r"bones of joints in \['a', .*numbers, got True"),
        ({"bones": [["a", "b", "c"]]}, r"bones of two joints each"),
        ({"bones": [["a", 7]]}, r"two different joints in 0\.\.2, got \(0, 7\)"),
        ({"center": "d"}, r"center of joints in \['a', .*, got 'd'"),
        ({"center": None}, r"center of joints in \['a', .*, got None"),
        ({"center": 3}, r"a centre in 0\.\.2, got 3"),
        ({"pairs": [["a"]]}, r"pairs of a left and a right joint"),
        ({"pairs": 3}, r"pairs to hold lists, got 3"),
        ({"parts": ["a"]}, r"parts to map names to joints, got list"),
        ({"parts": {"arm": "a"}}, r"parts to hold lists, got 'a'"),
        ({"parts": {"arm": ["d"]}}, r"parts of joints in \['a', .*, got 'd'"),
        ({"height": "ab"}, r"height to hold lists, got 'ab'"),
        ({"height": ["a"]}, r"a height of two joints, head and foot"),
        ({"name": 3}, r"name to be text, got int"),
    ],
)
def test_what_a_description_must_hold(change: Any, error: str, tmp_path: Path) -> None:
    described = change
    if isinstance(change, dict):
        described = {key: value for key, value in {**FINE, **change}.items() if value is not ...}
    with pytest.raises(ValueError, match=f"^SkeletonLayout.* expected .*{error}"):
        SkeletonLayout.from_dict(described)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{error}"):
        load_layout(path)


def test_what_load_layout_refuses(tmp_path: Path) -> None:
    names = "NTU25, NTU25_PYSKL, KINECT20, .*, UTD20"
    for wrong in ("body_25", "none.json", tmp_path, "", "x" * 5000, "\0"):
        with pytest.raises(
            ValueError, match=f"^load_layout: expected a JSON file or one of {names}, got '"
        ):
            load_layout(wrong)
    with pytest.raises(ValueError, match=r"^load_layout: expected a SkeletonLayout.*, got int$"):
        load_layout(25)  # type: ignore[arg-type]
    path = tmp_path / "mine.json"
    for content, error in (
        (b'{"joints":\n [1,}', r", line 2, column 5: expected JSON, got "),
        (b"", r", line 1, column 1: expected JSON, got "),
        (b"\xff\xfe", r": expected a file of JSON text, got .*utf-8"),
        (b"[" * 100_000, r": expected a file of JSON text, got "),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="^" + re.escape(str(path)) + error):
            load_layout(path)


@pytest.mark.parametrize("layout", ALL, ids=by_name)
def test_layouts_survive_copies_and_refuse_changes(layout: SkeletonLayout) -> None:
    assert pickle.loads(pickle.dumps(layout)) == layout == copy.deepcopy(layout)
    with pytest.raises(AttributeError, match="center"):
        layout.center = 0  # type: ignore[misc]
