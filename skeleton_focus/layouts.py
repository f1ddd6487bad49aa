"""Skeleton layouts: joints, the bones between them, and the centre joint.

Joints with the same meaning have the same name in every named layout.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._checks import message

__all__ = [
    "AZURE_KINECT32",
    "BODY25",
    "COCO17",
    "FLORENCE15",
    "H36M17",
    "HALPE26",
    "KINECT20",
    "LAYOUTS",
    "MEDIAPIPE33",
    "NTU25",
    "NTU25_PYSKL",
    "OPENPOSE18",
    "PENN13",
    "UTD20",
    "SkeletonLayout",
    "load_layout",
]


@dataclass(frozen=True)
class SkeletonLayout:
    """A skeleton: joints, bones, centre, left/right pairs and body parts. All indices are 0-based.

    Build one with :meth:`from_bones`, or take a named one from :data:`LAYOUTS`, such as ``NTU25``.

    The bones may form several unconnected components, as MediaPipe's face and body do. Each has a
    root: the centre, or the joint with the smallest index. A root is its own parent, so its entry
    of a bone stream is 0. No bones lead from one component to another, so a graph convolution over
    bones does not mix them.

    Attributes:
        name: the name in errors and pictures.
        joints: V joint names; a layout built without names calls them ``"joint_0"`` and so on.
        bones: ``(joint, parent)`` pairs in ascending order; the parent is the joint nearer to the
            root or, if both are equally near, the one with the smaller index.
        center: the centre joint, the origin of centred positions.
        pairs: ``(left, right)`` joints that mirroring swaps.
        parts: body parts, a mapping from name to joints.
        height: the two joints, head and foot, whose path along the bones measures a body's height.

    Example:
        >>> NTU25.num_joints, NTU25.joints[NTU25.center], len(NTU25.parts)
        (25, 'upper_spine', 10)
        >>> NTU25.parents[:4]
        (1, 20, 20, 2)
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    center: int
    pairs: tuple[tuple[int, int], ...] = ()
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    height: tuple[int, int] = (0, 0)

    @classmethod
    def from_bones(
        cls,
        bones: Iterable[Sequence[int]],
        *,
        name: str = "custom",
        joints: Sequence[str] | None = None,
        center: int = 0,
        pairs: Iterable[Sequence[int]] = (),
        parts: Mapping[str, Sequence[int]] | None = None,
        height: Sequence[int] | None = None,
    ) -> SkeletonLayout:
        """Build a layout from a list of bones, whose directions and order do not matter.

        Args:
            bones: 0-based joint pairs.
            name: the name in errors.
            joints: V joint names; by default one joint for every index up to the largest in
                ``bones``, each with a bone. With names, joints may have no bones.
            center: the centre joint.
            pairs: ``(left, right)`` joints.
            parts: body parts; by default one part that holds every joint.
            height: head and foot, with a path between them; by default the two ends of the longest
                path along the bones.

        Raises:
            ValueError: a bone out of range, from a joint to itself or repeated, unnamed joints
                without a bone, a repeated joint name, or invalid pairs, parts or height.

        Example:
            >>> chain = SkeletonLayout.from_bones([(0, 1), (1, 2)], center=1)
            >>> chain.bones, chain.height
            (((0, 1), (2, 1)), (0, 2))
            >>> SkeletonLayout.from_bones([(0, 1), (2, 3)]).parents
            (0, 0, 2, 2)
            >>> SkeletonLayout.from_bones([(1, 2), (2, 3)])
            Traceback (most recent call last):
                ...
            ValueError: SkeletonLayout 'custom': expected a bone at every joint, got none at [0]; \
bones are 0-based; joints= names joints without bones
        """
        who = f"SkeletonLayout {name!r}"
        edges = [tuple(int(j) for j in bone) for bone in bones]
        _check_bones(who, edges, joints)
        size = len(joints) if joints is not None else 1 + max(max(edge) for edge in edges)
        if not 0 <= center < size:
            raise ValueError(message(who, f"a centre in 0..{size - 1}", center))
        if height is not None and len(height) != 2:
            raise ValueError(message(who, "a height of two joints, head and foot", height))
        sides = tuple((int(left), int(right)) for left, right in _pairs(who, pairs))
        paired = [joint for pair in sides for joint in pair]
        if len(set(paired)) != len(paired):
            raise ValueError(message(who, "each joint in one pair at most", sides))
        groups = {
            "pair": sides,
            "part": [tuple(part) for part in (parts or {}).values()],
            "height": [] if height is None else [tuple(height)],
        }
        for what, kind in groups.items():
            for group in kind:
                if not all(0 <= j < size for j in group):
                    expected = f"each {what} to hold joints in 0..{size - 1}"
                    raise ValueError(message(who, expected, tuple(group)))
        ends = _longest_path(size, edges) if height is None else (height[0], height[1])
        if _hops_from(ends[0], size, edges)[ends[1]] < 0:
            raise ValueError(message(who, "a height whose two joints a path of bones joins", ends))
        depth = _depths(center, size, edges)
        names = tuple(joints) if joints is not None else tuple(f"joint_{j}" for j in range(size))
        if len(set(names)) != size:
            raise ValueError(message(who, "each joint name once", names))
        # A bone may join two joints equally near the centre, in a ring: then the index decides.
        directed = []
        for a, b in edges:
            b_is_parent = (depth[b], b) < (depth[a], a)
            directed.append((a, b) if b_is_parent else (b, a))
        return cls(
            name=name,
            joints=names,
            bones=tuple(sorted(directed)),
            center=center,
            pairs=sides,
            parts={key: tuple(value) for key, value in (parts or {"body": range(size)}).items()},
            height=ends,
        )

    def to_dict(self) -> dict[str, Any]:
        """Describe the layout by plain values that ``json.dump`` can write; joints by their names.

        >>> arm = SkeletonLayout.from_bones([(0, 1)], name="arm", joints=["elbow", "hand"])
        >>> for key, value in arm.to_dict().items():
        ...     print(key, value)
        name arm
        joints ['elbow', 'hand']
        bones [['hand', 'elbow']]
        center elbow
        pairs []
        parts {'body': ['elbow', 'hand']}
        height ['elbow', 'hand']
        """

        def names(joints: Iterable[int]) -> list[str]:
            return [self.joints[joint] for joint in joints]

        return {
            "name": self.name,
            "joints": list(self.joints),
            "bones": [names(bone) for bone in self.bones],
            "center": self.joints[self.center],
            "pairs": [names(pair) for pair in self.pairs],
            "parts": {part: names(joints) for part, joints in self.parts.items()},
            "height": names(self.height),
        }

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> SkeletonLayout:
        """Build a layout from what :meth:`to_dict` returns.

        Args:
            mapping: the keys ``joints`` (names) and ``bones`` (pairs of joints), optionally
                ``name``, ``center``, ``pairs``, ``parts`` and ``height``, as in
                :meth:`from_bones`. Joints are names or 0-based numbers.

        Raises:
            ValueError: a missing or unknown key, a value of the wrong type, an unknown joint, or
                what :meth:`from_bones` refuses.

        Example:
            >>> arm = {"joints": ["elbow", "wrist", "hand"], "bones": [["wrist", "elbow"], [2, 1]]}
            >>> SkeletonLayout.from_dict(arm).parents
            (0, 0, 1)
            >>> SkeletonLayout.from_dict(NTU25.to_dict()) == NTU25
            True
        """
        if not isinstance(mapping, Mapping):
            expected = "a mapping with the keys joints and bones"
            raise ValueError(message(_FROM_DICT, expected, type(mapping).__name__))
        unknown = [key for key in mapping if key not in _KEYS]
        if unknown:
            raise ValueError(message(_FROM_DICT, f"keys among {', '.join(_KEYS)}", unknown))
        missing = [key for key in ("joints", "bones") if key not in mapping]
        if missing:
            raise ValueError(message(_FROM_DICT, "the keys joints and bones", f"no {missing[0]}"))
        joints = _listed("joints", mapping["joints"])
        if not all(isinstance(joint, str) for joint in joints):
            raise ValueError(message(_FROM_DICT, "joints to be a list of names", joints))
        parts = mapping.get("parts")
        if parts is not None and not isinstance(parts, Mapping):
            raise ValueError(
                message(_FROM_DICT, "parts to map names to joints", type(parts).__name__)
            )
        name = mapping.get("name", "custom")
        if not isinstance(name, str):
            raise ValueError(message(_FROM_DICT, "name to be text", type(name).__name__))

        def numbers(key: str, value: object) -> list[int]:
            return [_number(key, joint, joints) for joint in _listed(key, value)]

        height = mapping.get("height")
        return cls.from_bones(
            [numbers("bones", bone) for bone in _listed("bones", mapping["bones"])],
            name=name,
            joints=joints,
            center=_number("center", mapping.get("center", 0), joints),
            pairs=[numbers("pairs", pair) for pair in _listed("pairs", mapping.get("pairs", []))],
            parts=None if parts is None else {key: numbers("parts", parts[key]) for key in parts},
            height=None if height is None else numbers("height", height),
        )

    @property
    def num_joints(self) -> int:
        """V, the number of joints."""
        return len(self.joints)

    @property
    def parents(self) -> tuple[int, ...]:
        """The parent of each joint, one step nearer to its root; a root is its own parent."""
        depths = self.depths
        parents = []
        for joint in range(self.num_joints):
            nearer = [j for j in self.neighbors(joint) if depths[j] < depths[joint]]
            parents.append(min(nearer, default=joint))
        return tuple(parents)

    @property
    def depths(self) -> tuple[int, ...]:
        """The number of bones between each joint and its root: the centre, in its component.

        >>> SkeletonLayout.from_bones([(0, 1), (1, 2), (3, 4)], center=2).depths
        (2, 1, 0, 0, 1)
        """
        return tuple(_depths(self.center, self.num_joints, self.bones))

    def hops(self, joint: int) -> tuple[int, ...]:
        """The number of bones between ``joint`` (0..V-1) and each joint; -1 without a path.

        >>> SkeletonLayout.from_bones([(0, 1), (1, 2), (3, 4)]).hops(0)
        (0, 1, 2, -1, -1)
        """
        return tuple(_hops_from(joint, self.num_joints, self.bones))

    def path(self, start: int, end: int) -> tuple[int, ...]:
        """The joints of a shortest path along the bones, both ends included.

        Raises:
            ValueError: no path joins them.

        >>> [KINECT20.joints[j] for j in KINECT20.path(3, 7)]
        ['head', 'neck', 'left_shoulder', 'left_elbow', 'left_wrist', 'left_hand']
        """
        left = self.hops(end)
        if left[start] < 0:
            raise ValueError(
                message(
                    f"SkeletonLayout {self.name!r}",
                    "two joints with a path along the bones",
                    f"{self.joints[start]} and {self.joints[end]}",
                )
            )
        joints = [start]
        while joints[-1] != end:
            rest = left[joints[-1]] - 1
            joints.append(next(j for j in self.neighbors(joints[-1]) if left[j] == rest))
        return tuple(joints)

    def neighbors(self, joint: int) -> tuple[int, ...]:
        """The joints one bone away, in ascending order.

        >>> COCO17.neighbors(0)
        (1, 2, 5, 6)
        """
        return tuple(sorted(b if a == joint else a for a, b in self.bones if joint in (a, b)))

    def index(self, joint: str) -> int:
        """The index of a joint by its name.

        >>> KINECT20.index("left_hand")
        7
        """
        if joint not in self.joints:
            raise ValueError(
                message(
                    f"SkeletonLayout {self.name!r}",
                    f"a joint among {list(self.joints)}",
                    repr(joint),
                )
            )
        return self.joints.index(joint)

    @property
    def mirror(self) -> tuple[int, ...]:
        """The joint that takes each joint's place in a mirror image.

        >>> COCO17.mirror[:5]
        (0, 2, 1, 4, 3)
        """
        other = list(range(self.num_joints))
        for left, right in self.pairs:
            other[left] = right
            other[right] = left
        return tuple(other)


_KEYS = ("name", "joints", "bones", "center", "pairs", "parts", "height")
_FROM_DICT = "SkeletonLayout.from_dict"


def _listed(key: str, value: object) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(message(_FROM_DICT, f"{key} to hold lists", repr(value)))
    return list(value)


def _number(key: str, joint: object, joints: Sequence[str]) -> int:
    """The number of a joint that is given by its name or its number."""
    if isinstance(joint, str) and joint in joints:
        return joints.index(joint)
    # True is an int.
    if isinstance(joint, int) and not isinstance(joint, bool):
        return joint
    expected = f"{key} of joints in {list(joints)}, or their 0-based numbers"
    raise ValueError(message(_FROM_DICT, expected, repr(joint)))


def _check_bones(who: str, edges: Sequence[tuple[int, ...]], joints: Sequence[str] | None) -> None:
    """Check that bones join two different joints each, and that unnamed joints all have a bone."""
    if not edges and not joints:
        raise ValueError(message(who, "at least one bone, or the names of joints", "none"))
    if not all(len(edge) == 2 for edge in edges):
        raise ValueError(message(who, "bones of two joints each", edges))
    size = len(joints) if joints is not None else 1 + max(max(edge) for edge in edges)
    for edge in edges:
        if not all(0 <= j < size for j in edge) or edge[0] == edge[1]:
            raise ValueError(
                message(who, f"each bone to join two different joints in 0..{size - 1}", edge)
            )
    # A set, because (0, 1) and (1, 0) are one bone.
    if len({frozenset(edge) for edge in edges}) != len(edges):
        raise ValueError(message(who, "each bone once", edges))
    # Without names, an index that no bone mentions most likely means bones counted from 1.
    unused = sorted(set(range(size)) - {j for edge in edges for j in edge})
    if unused and joints is None:
        hint = "bones are 0-based; joints= names joints without bones"
        raise ValueError(message(who, "a bone at every joint", f"none at {unused}", hint))


def _pairs(who: str, pairs: Iterable[Sequence[int]]) -> list[Sequence[int]]:
    listed = list(pairs)
    if not all(len(pair) == 2 for pair in listed):
        raise ValueError(message(who, "pairs of a left and a right joint", listed))
    return listed


def _hops_from(start: int, size: int, edges: Iterable[Sequence[int]]) -> list[int]:
    """Breadth-first hop distances; -1 without a path."""
    near: list[list[int]] = [[] for _ in range(size)]
    for a, b in edges:
        near[a].append(b)
        near[b].append(a)
    hops = [-1] * size
    hops[start] = 0
    queue = deque([start])
    while queue:
        joint = queue.popleft()
        for other in near[joint]:
            if hops[other] < 0:
                hops[other] = hops[joint] + 1
                queue.append(other)
    return hops


def _depths(center: int, size: int, edges: Sequence[Sequence[int]]) -> list[int]:
    """Hop distances from the centre and, outside its component, from the smallest index."""
    depths = _hops_from(center, size, edges)
    for root in range(size):
        if depths[root] < 0:
            for joint, hops in enumerate(_hops_from(root, size, edges)):
                if hops >= 0:
                    depths[joint] = hops
    return depths


def _longest_path(size: int, edges: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The two joints with the longest shortest path; the first such pair in joint order."""
    longest = -1
    ends = (0, 0)
    for a in range(size):
        hops = _hops_from(a, size, edges)
        for b in range(a, size):
            if hops[b] > longest:
                longest = hops[b]
                ends = (a, b)
    return ends


def _one_based(*bones: tuple[int, int]) -> list[tuple[int, int]]:
    return [(a - 1, b - 1) for a, b in bones]


def _sides(
    *pairs: tuple[int, int], spine: dict[str, tuple[int, ...]], **limbs: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """Make body parts: the spine's as given, each limb's as given (left) and mirrored (right)."""
    mirror = dict(pairs)
    parts = dict(spine)
    for limb, left in limbs.items():
        parts[f"left_{limb}"] = tuple(left)
        parts[f"right_{limb}"] = tuple(mirror[j] for j in left)
    return parts


_KINECT_ARMS = _one_based((6, 5), (7, 6), (8, 7), (10, 9), (11, 10), (12, 11))
_KINECT_LEGS = _one_based(
    (13, 1), (14, 13), (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19)
)
_KINECT_LIMBS = _KINECT_ARMS + _KINECT_LEGS
# Four joints of a left limb, then the four of the right one.
_KINECT_PAIRS = [(j, j + 4) for j in (4, 5, 6, 7, 12, 13, 14, 15)]
# In the order of Kinect's joint numbers: an arm or leg from the body outwards, left before right.
_KINECT_JOINTS = ["spine_base", "spine", "neck", "head"] + [
    f"{side}_{joint}"
    for limb in (("shoulder", "elbow", "wrist", "hand"), ("hip", "knee", "ankle", "foot"))
    for side in ("left", "right")
    for joint in limb
]
# Kinect v2 adds five joints behind the 20 of Kinect v1.
_NTU_JOINTS = [
    *_KINECT_JOINTS,
    "upper_spine",
    "left_hand_tip",
    "left_thumb",
    "right_hand_tip",
    "right_thumb",
]
_NTU_PAIRS = [*_KINECT_PAIRS, (21, 23), (22, 24)]
_NTU_PARTS = _sides(
    *_NTU_PAIRS,
    spine={"torso": (0, 1, 20), "head": (2, 3)},
    upper_arm=(4, 5),
    hand=(6, 7, 21, 22),
    thigh=(12, 13),
    foot=(14, 15),
)
_NTU_SPINE = _one_based((1, 2), (2, 21), (3, 21), (4, 3), (5, 21), (9, 21))

NTU25 = SkeletonLayout.from_bones(
    _NTU_SPINE + _KINECT_LIMBS + _one_based((22, 23), (23, 8), (24, 25), (25, 12)),
    name="NTU25",
    joints=_NTU_JOINTS,
    center=20,
    pairs=_NTU_PAIRS,
    parts=_NTU_PARTS,
    height=(3, 15),
)
"""Kinect v2 with NTU RGB+D's joints; the hand tips hang on the thumbs, as in ST-GCN and MS-G3D."""

NTU25_PYSKL = SkeletonLayout.from_bones(
    _NTU_SPINE + _KINECT_LIMBS + _one_based((22, 8), (23, 8), (24, 12), (25, 12)),
    name="NTU25_PYSKL",
    joints=_NTU_JOINTS,
    center=20,
    pairs=_NTU_PAIRS,
    parts=_NTU_PARTS,
    height=(3, 15),
)
"""NTU25 with the hand tips hanging on the hands, as in pyskl."""

KINECT20 = SkeletonLayout.from_bones(
    _one_based((1, 2), (2, 3), (4, 3), (5, 3), (9, 3)) + _KINECT_LIMBS,
    name="KINECT20",
    joints=_KINECT_JOINTS,
    center=2,
    pairs=_KINECT_PAIRS,
    parts=_sides(
        *_KINECT_PAIRS,
        spine={"torso": (0, 1), "head": (2, 3)},
        upper_arm=(4, 5),
        hand=(6, 7),
        thigh=(12, 13),
        foot=(14, 15),
    ),
    height=(3, 15),
)
"""Kinect v1, the skeleton of NW-UCLA."""

# (left, right), as everywhere; OpenPose numbers the right side first.
_OPENPOSE_PAIRS = [(5, 2), (6, 3), (7, 4), (11, 8), (12, 9), (13, 10), (15, 14), (17, 16)]
OPENPOSE18 = SkeletonLayout.from_bones(
    [(4, 3), (3, 2), (7, 6), (6, 5), (13, 12), (12, 11), (10, 9), (9, 8), (11, 5), (8, 2)]
    + [(5, 1), (2, 1), (0, 1), (15, 0), (14, 0), (17, 15), (16, 14)],
    name="OPENPOSE18",
    joints=["nose", "neck"]
    + [f"{side}_{joint}" for side in ("right", "left") for joint in ("shoulder", "elbow", "wrist")]
    + [f"{side}_{joint}" for side in ("right", "left") for joint in ("hip", "knee", "ankle")]
    + ["right_eye", "left_eye", "right_ear", "left_ear"],
    center=1,
    pairs=_OPENPOSE_PAIRS,
    parts=_sides(
        *_OPENPOSE_PAIRS,
        spine={"head": (0, 14, 15, 16, 17), "neck": (1,)},
        upper_arm=(5, 6),
        hand=(7,),
        thigh=(11, 12),
        foot=(13,),
    ),
    # It has neither the top of the head nor a foot: from the nose to the left ankle.
    height=(0, 13),
)
"""OpenPose's 18 joints, the skeleton of Kinetics-Skeleton."""

_COCO_PAIRS = [(j, j + 1) for j in range(1, 17, 2)]
COCO17 = SkeletonLayout.from_bones(
    [(15, 13), (13, 11), (16, 14), (14, 12), (11, 5), (12, 6), (9, 7), (7, 5), (10, 8), (8, 6)]
    + [(5, 0), (6, 0), (1, 0), (3, 1), (2, 0), (4, 2)],
    name="COCO17",
    joints=["nose"]
    + [
        f"{s}_{j}"
        for j in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for s in ("left", "right")
    ],
    center=0,
    pairs=_COCO_PAIRS,
    parts=_sides(
        *_COCO_PAIRS,
        spine={"head": (0, 1, 2, 3, 4)},
        upper_arm=(5, 7),
        hand=(9,),
        thigh=(11, 13),
        foot=(15,),
    ),
    # From the nose to the left ankle, as for OPENPOSE18.
    height=(0, 15),
)
"""COCO's 17 key points, the skeleton of most 2D pose estimators."""

_TOES = ("big_toe", "small_toe", "heel")
_BODY25_PAIRS = [(5, 2), (6, 3), (7, 4), (12, 9), (13, 10), (14, 11), (16, 15), (18, 17)]
_BODY25_PAIRS += [(19, 22), (20, 23), (21, 24)]
BODY25 = SkeletonLayout.from_bones(
    [(8, 1), (2, 1), (5, 1), (3, 2), (4, 3), (6, 5), (7, 6), (9, 8), (10, 9), (11, 10), (12, 8)]
    + [(13, 12), (14, 13), (0, 1), (15, 0), (17, 15), (16, 0), (18, 16)]
    + [(19, 14), (20, 19), (21, 14), (22, 11), (23, 22), (24, 11)],
    name="BODY25",
    joints=["nose", "neck"]
    + [f"{side}_{joint}" for side in ("right", "left") for joint in ("shoulder", "elbow", "wrist")]
    + ["spine_base"]
    + [f"{side}_{joint}" for side in ("right", "left") for joint in ("hip", "knee", "ankle")]
    + ["right_eye", "left_eye", "right_ear", "left_ear"]
    + [f"{side}_{joint}" for side in ("left", "right") for joint in _TOES],
    center=1,
    pairs=_BODY25_PAIRS,
    parts=_sides(
        *_BODY25_PAIRS,
        spine={"torso": (8,), "head": (0, 1, 15, 16, 17, 18)},
        upper_arm=(5, 6),
        hand=(7,),
        thigh=(12, 13),
        foot=(14, 19, 20, 21),
    ),
    height=(0, 14),
)
"""OpenPose's BODY_25; its MidHip is ``spine_base``."""

_HALPE_PAIRS = [*_COCO_PAIRS, (20, 21), (22, 23), (24, 25)]
HALPE26 = SkeletonLayout.from_bones(
    [(1, 0), (2, 0), (3, 1), (4, 2), (5, 18), (6, 18), (7, 5), (9, 7), (8, 6), (10, 8)]
    + [(17, 18), (19, 18), (11, 19), (12, 19), (13, 11), (14, 12), (15, 13), (16, 14)]
    + [(24, 15), (25, 16), (20, 24), (21, 25), (22, 24), (23, 25), (0, 18)],
    name="HALPE26",
    joints=[*COCO17.joints, "head", "neck", "spine_base"]
    + [f"{side}_{joint}" for joint in _TOES for side in ("left", "right")],
    center=18,
    pairs=_HALPE_PAIRS,
    parts=_sides(
        *_HALPE_PAIRS,
        spine={"torso": (19,), "head": (0, 1, 2, 3, 4, 17, 18)},
        upper_arm=(5, 7),
        hand=(9,),
        thigh=(11, 13),
        foot=(15, 20, 22, 24),
    ),
    height=(17, 15),
)
"""Halpe's 26 key points, with AlphaPose's bones and one from nose to neck, which joins the face to
the body; the hip is ``spine_base``, the head its top.
"""

_MEDIAPIPE_PAIRS = [(1, 4), (2, 5), (3, 6)] + [(j, j + 1) for j in range(7, 33, 2)]
MEDIAPIPE33 = SkeletonLayout.from_bones(
    [(1, 0), (2, 1), (3, 2), (7, 3), (4, 0), (5, 4), (6, 5), (8, 6), (9, 0), (10, 0)]
    + [(11, 0), (13, 11), (15, 13), (17, 15), (19, 15), (21, 15)]
    + [(12, 0), (14, 12), (16, 14), (18, 16), (20, 16), (22, 16)]
    + [(23, 11), (25, 23), (27, 25), (29, 27), (31, 29)]
    + [(24, 12), (26, 24), (28, 26), (30, 28), (32, 30)],
    name="MEDIAPIPE33",
    joints=["nose"]
    + [f"{side}_eye{at}" for side in ("left", "right") for at in ("_inner", "", "_outer")]
    + [
        f"{side}_{joint}"
        for joint in ("ear", "mouth", "shoulder", "elbow", "wrist", "pinky", "index", "thumb")
        + ("hip", "knee", "ankle", "heel", "foot")
        for side in ("left", "right")
    ],
    center=0,
    pairs=_MEDIAPIPE_PAIRS,
    parts=_sides(
        *_MEDIAPIPE_PAIRS,
        spine={"head": tuple(range(11))},
        upper_arm=(11, 13),
        hand=(15, 17, 19, 21),
        thigh=(23, 25),
        foot=(27, 29, 31),
    ),
    height=(0, 27),
)
"""MediaPipe Pose's 33 landmarks; the foot index is ``foot``. The bones are MediaPipe's,
without those that close a cycle, and with mouth and shoulders joined to the nose, as in ``COCO17``.
"""

_H36M_PAIRS = [(4, 1), (5, 2), (6, 3), (11, 14), (12, 15), (13, 16)]
H36M17 = SkeletonLayout.from_bones(
    [(1, 0), (2, 1), (3, 2), (4, 0), (5, 4), (6, 5), (7, 0), (8, 7), (9, 8), (10, 9)]
    + [(11, 8), (12, 11), (13, 12), (14, 8), (15, 14), (16, 15)],
    name="H36M17",
    joints=["spine_base"]
    + [f"{side}_{joint}" for side in ("right", "left") for joint in ("hip", "knee", "ankle")]
    + ["spine", "neck", "nose", "head"]
    + [f"{side}_{joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "wrist")],
    center=8,
    pairs=_H36M_PAIRS,
    parts=_sides(
        *_H36M_PAIRS,
        spine={"torso": (0, 7), "head": (8, 9, 10)},
        upper_arm=(11, 12),
        hand=(13,),
        thigh=(4, 5),
        foot=(6,),
    ),
    height=(10, 6),
)
"""Human3.6M's 17 joints in VideoPose3D's order; the thorax, between the shoulders, is ``neck``."""

_AZURE_PAIRS = [(j, j + 7) for j in range(4, 11)] + [(j, j + 4) for j in range(18, 22)]
_AZURE_PAIRS += [(28, 30), (29, 31)]
AZURE_KINECT32 = SkeletonLayout.from_bones(
    [(1, 0), (2, 1), (3, 2), (4, 2), (5, 4), (6, 5), (7, 6), (8, 7), (9, 8), (10, 7)]
    + [(11, 2), (12, 11), (13, 12), (14, 13), (15, 14), (16, 15), (17, 14)]
    + [(18, 0), (19, 18), (20, 19), (21, 20), (22, 0), (23, 22), (24, 23), (25, 24)]
    + [(26, 3), (27, 26), (28, 26), (29, 26), (30, 26), (31, 26)],
    name="AZURE_KINECT32",
    joints=["spine_base", "spine", "chest", "neck"]
    + [
        f"{side}_{joint}"
        for side in ("left", "right")
        for joint in ("clavicle", "shoulder", "elbow", "wrist", "hand", "hand_tip", "thumb")
    ]
    + [f"{s}_{joint}" for s in ("left", "right") for joint in ("hip", "knee", "ankle", "foot")]
    + ["head", "nose", "left_eye", "left_ear", "right_eye", "right_ear"],
    center=2,
    pairs=_AZURE_PAIRS,
    parts=_sides(
        *_AZURE_PAIRS,
        spine={"torso": (0, 1, 2, 4, 11), "head": (3, 26, 27, 28, 29, 30, 31)},
        upper_arm=(5, 6),
        hand=(7, 8, 9, 10),
        thigh=(18, 19),
        foot=(20, 21),
    ),
    height=(26, 21),
)
"""Azure Kinect's 32 joints; the pelvis is ``spine_base``, the navel ``spine``."""

_PENN_PAIRS = [(j + 1, j) for j in range(1, 13, 2)]
PENN13 = SkeletonLayout.from_bones(
    [(1, 0), (2, 0), (3, 1), (4, 2), (5, 3), (6, 4), (7, 1), (8, 2)]
    + [(9, 7), (10, 8), (11, 9), (12, 10)],
    name="PENN13",
    joints=["head"]
    + [
        f"{side}_{joint}"
        for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("right", "left")
    ],
    center=0,
    pairs=_PENN_PAIRS,
    parts=_sides(
        *_PENN_PAIRS,
        spine={"head": (0,)},
        upper_arm=(2, 4),
        hand=(6,),
        thigh=(8, 10),
        foot=(12,),
    ),
    height=(0, 12),
)
"""Penn Action's 13 joints. The sides are the person's own: what the files call left is the right of
the body, which is on the left of the picture where a person faces the camera.
"""

_FLORENCE_PAIRS = [(j, j + 3) for j in (3, 4, 5, 9, 10, 11)]
FLORENCE15 = SkeletonLayout.from_bones(
    [(0, 1), (2, 1), (3, 1), (4, 3), (5, 4), (6, 1), (7, 6), (8, 7)]
    + [(9, 2), (10, 9), (11, 10), (12, 2), (13, 12), (14, 13)],
    name="FLORENCE15",
    joints=["head", "neck", "spine"]
    + [f"{side}_{joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "wrist")]
    + [f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle")],
    center=1,
    pairs=_FLORENCE_PAIRS,
    parts=_sides(
        *_FLORENCE_PAIRS,
        spine={"torso": (2,), "head": (0, 1)},
        upper_arm=(3, 4),
        hand=(5,),
        thigh=(9, 10),
        foot=(11,),
    ),
    height=(0, 11),
)
"""The 15 joints of Florence 3D Actions."""

UTD20 = SkeletonLayout.from_bones(
    [(0, 1), (2, 1), (3, 2), (4, 1), (5, 4), (6, 5), (7, 6), (8, 1), (9, 8), (10, 9), (11, 10)]
    + [(12, 3), (13, 12), (14, 13), (15, 14), (16, 3), (17, 16), (18, 17), (19, 18)],
    name="UTD20",
    joints=["head", "neck", "spine", "spine_base", *KINECT20.joints[4:]],
    center=1,
    pairs=_KINECT_PAIRS,
    parts=_sides(
        *_KINECT_PAIRS,
        spine={"torso": (2, 3), "head": (0, 1)},
        upper_arm=(4, 5),
        hand=(6, 7),
        thigh=(12, 13),
        foot=(14, 15),
    ),
    height=(0, 15),
)
"""Kinect v1 in the order of UTD-MHAD, where the spine runs downwards."""

LAYOUTS: Mapping[str, SkeletonLayout] = {
    layout.name: layout
    for layout in (
        *(NTU25, NTU25_PYSKL, KINECT20, OPENPOSE18, COCO17, BODY25, HALPE26, MEDIAPIPE33, H36M17),
        *(AZURE_KINECT32, PENN13, FLORENCE15, UTD20),
    )
}
"""The named layouts, by name."""


def load_layout(source: str | Path | SkeletonLayout) -> SkeletonLayout:
    """Return a layout by its name, or from a JSON file of :meth:`SkeletonLayout.to_dict`.

    Args:
        source: a layout, which is returned; a name in :data:`LAYOUTS`, in any case; or the path of
            a JSON file, whose stem is the layout's name if it holds none. A name is preferred to a
            file of that name: write ``./ntu25``.

    Raises:
        ValueError: neither a name nor a file; or a file that cannot be read, is not JSON or does
            not describe a layout, with its path.

    Example:
        >>> load_layout("coco17").num_joints
        17
        >>> load_layout("body_25")
        Traceback (most recent call last):
            ...
        ValueError: load_layout: expected a JSON file or one of NTU25, NTU25_PYSKL, KINECT20, \
OPENPOSE18, COCO17, BODY25, HALPE26, MEDIAPIPE33, H36M17, AZURE_KINECT32, PENN13, FLORENCE15, \
UTD20, got 'body_25'
    """
    if isinstance(source, SkeletonLayout):
        return source
    if not isinstance(source, str | Path):
        expected = "a SkeletonLayout, the name of one or the path of a JSON file"
        raise ValueError(message("load_layout", expected, type(source).__name__))
    if isinstance(source, str) and source.upper() in LAYOUTS:
        return LAYOUTS[source.upper()]
    path = Path(source)
    try:
        found = path.is_file()
    except (OSError, ValueError):  # no possible name of a file
        found = False
    if not found:
        expected = f"a JSON file or one of {', '.join(LAYOUTS)}"
        raise ValueError(message("load_layout", expected, repr(str(source))))
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise ValueError(message(where, "JSON", error.msg)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(message(str(path), "a file of JSON text", error)) from None
    try:
        if isinstance(mapping, dict):
            mapping = {"name": path.stem, **mapping}
        return SkeletonLayout.from_dict(mapping)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
