"""Move the generated bodies: rest positions, forward kinematics, inverse kinematics of an arm.

k is the number of clips, P of the rig's points, J of the joints that rotate. Positions are in
metres, turns are rotation vectors in radians.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._actions import FEET, JOINT, POINT, RIG, SIDES, Vector

Array: TypeAlias = NDArray[Any]


def arm_turns(rest: Array, goal: Array, hint: Vector) -> dict[str, Array]:
    """Return turns (k, 3) of the right shoulder and elbow that put the hand at ``goal`` (k, 3).

    The law of cosines places the elbow, on the side of ``hint``.
    """
    shoulder, elbow, hand = (
        rest[:, POINT[f"right_{name}"]] for name in ("shoulder", "elbow", "hand")
    )
    upper, lower = (
        np.linalg.norm(bone, axis=-1, keepdims=True) for bone in (elbow - shoulder, hand - elbow)
    )
    distance = np.linalg.norm(goal - shoulder, axis=-1, keepdims=True)
    direction = (goal - shoulder) / distance
    # The arm is neither quite straight nor folded up: the triangle must exist, and a straight arm
    # has no bending direction (sin = 0 below). Goals out of reach are approached.
    distance = np.clip(distance, 1.1 * np.abs(upper - lower) + 0.02, 0.99 * (upper + lower))
    along = (upper**2 + distance**2 - lower**2) / (2 * distance)
    # The part of the hint that is perpendicular to the line from shoulder to hand.
    normal = hint - (direction @ np.array(hint))[:, None] * direction
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    # The directions of the upper arm and of the forearm.
    arm = (along * direction + np.sqrt(upper**2 - along**2) * normal) / upper
    fore = (distance * direction - upper * arm) / lower
    cos = (arm * fore).sum(-1, keepdims=True)
    # The elbow's bending direction is the upper arm's z; its y is -arm.
    bend = (fore - cos * arm) / np.sqrt(1 - cos**2)
    frame = np.stack([np.cross(-arm, bend), -arm, bend], -1)
    # The rotation vector of this frame, by the inverse of Rodrigues' formula.
    angle = np.arccos(np.clip((np.trace(frame, axis1=1, axis2=2) - 1) / 2, -1, 1))[:, None]
    skew = np.stack([frame[:, i, j] - frame[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], -1)
    return {
        "shoulder": skew * angle / (2 * np.sin(angle) + 1e-6),
        "elbow": np.arccos(cos) * np.array([-1, 0, 0]),
    }


def rotation(turn: Array) -> Array:
    """Rodrigues' formula: rotation vectors (..., 3) to matrices (..., 3, 3)."""
    x, y, z = np.moveaxis(turn, -1, 0)
    # 1e-9 spares a division of 0 by 0 at rest. b is (1 - cos) / angle^2 by half the angle, which
    # loses no digits at small angles in float32.
    angle = np.sqrt(x * x + y * y + z * z) + np.float32(1e-9)
    a = np.sin(angle) / angle
    b = 2 * (np.sin(angle / 2) / angle) ** 2
    c = np.cos(angle)
    row_x = c + b * x * x, b * x * y - a * z, b * x * z + a * y
    row_y = b * x * y + a * z, c + b * y * y, b * y * z - a * x
    row_z = b * x * z - a * y, b * y * z + a * x, c + b * z * z
    return np.stack([*row_x, *row_y, *row_z], -1).reshape(*turn.shape, 3)


def rest_points(offset: Array) -> Array:
    """The points (..., P, 3) of the body at rest, relative to its root."""
    points = np.zeros_like(offset)
    # RIG lists parents before children.
    for name, (parent, _, _) in list(RIG.items())[1:]:
        points[..., POINT[name], :] = points[..., POINT[parent], :] + offset[..., POINT[name], :]
    return points


def forward(pose: Array, offset: Array, stance: Array) -> Array:
    """Compute the points (k, P, T, 3) of a body on the floor by forward kinematics.

    ``pose`` (k, T, J, 3) are turns, ``offset`` (k, P, 3) the bones. ``stance`` (k, 2): 1 for a
    foot, right or left, that does not move.
    """
    turns = rotation(pose)
    frames = {"root": np.eye(3, dtype=np.float32)}
    points = np.zeros((len(pose), len(RIG), pose.shape[1], 3), np.float32)
    for name, (parent, _, _) in list(RIG.items())[1:]:
        bone = (frames[parent] @ offset[:, None, POINT[name], :, None])[..., 0]
        points[:, POINT[name]] = points[:, POINT[parent]] + bone
        frames[name] = (
            frames[parent] @ turns[:, :, JOINT[name]] if name in JOINT else frames[parent]
        )
    # The root is the origin so far. Planted feet must not slip, so the body is moved back by the
    # mean way of their ankles along the floor, x and z. The sum of a row is not 0 here: a cue never
    # lifts the only support, and an action without planted feet has zeros in all rows.
    if stance.any():
        ankles = [POINT[f"{side}_ankle"] for side in SIDES]
        weight = (stance / stance.sum(1, keepdims=True))[:, :, None, None]
        start = rest_points(offset)[:, ankles, None]  # (k, 2, 1, 3)
        slip = (weight * points[:, ankles]).sum(1) - (weight * start).sum(1)
        points[..., ::2] -= slip[:, None, :, ::2]
    # Then the lowest foot stands on the floor, raised by the root's y in a jump.
    points[..., 1] += (pose[:, :, JOINT["root"], 1] - points[:, FEET][..., 1].min(1))[:, None]
    return points
