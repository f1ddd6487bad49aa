"""Prepare as CTR-GCN and DGNN do, slowly and by their description: plain loops, clip by clip.

A clip is x (C, T, V, M) with seen (T, V, M). Joints are numbered as NTU's, 0-based: 0 base of the
spine, 1 spine, 4 left shoulder, 8 right shoulder.
"""

from __future__ import annotations

import numpy as np

BASE = 0
SPINE = 1
LEFT = 4
RIGHT = 8


def at_share(x, seen, length, share):
    """Interpolate positions (C, V, M) and visibility (V, M) at a share of a clip, linearly."""
    at = share * (length - 1)
    low = int(np.floor(at + 1e-9))
    high = min(low + 1, length - 1)
    weight = at - low
    places = np.zeros((x.shape[0], *x.shape[2:]))
    visible = np.zeros(x.shape[2:])
    for v, m in np.ndindex(x.shape[2:]):
        # No position beside a lost joint.
        if (1 - weight) * seen[low, v, m] + weight * seen[high, v, m] > 0.99:
            places[:, v, m] = (1 - weight) * x[:, low, v, m] + weight * x[:, high, v, m]
            visible[v, m] = 1
    return places, visible


def ctr_gcn(
    x, seen, length, frames, *, start=0.025, stop=0.975, turn=((1, 0, 0), (0, 1, 0), (0, 0, 1))
):
    """Measured from the spine as first seen, turned, and the span interpolated to that many frames.

    By default what tests see: the central 95 %, not turned.
    """
    origin = next(
        x[:, t, SPINE, m] for t in range(length) for m in range(x.shape[3]) if seen[t, SPINE, m]
    )
    moved = np.zeros(x.shape)
    for t, v, m in np.ndindex(x.shape[1:]):
        if seen[t, v, m]:
            moved[:, t, v, m] = np.array(turn) @ (x[:, t, v, m] - origin)
    out = np.zeros((x.shape[0], frames, *x.shape[2:]))
    visible = np.zeros((frames, *x.shape[2:]))
    for t in range(frames):
        share = start + (stop - start) * t / (frames - 1)
        out[:, t], visible[t] = at_share(moved, seen, length, share)
    return out, visible


def in_box(x, seen, length):
    """Scale each axis of a clip to -1..1 over all that was seen; 0 where there is no extent."""
    out = np.zeros(x.shape)
    for c in range(x.shape[0]):
        values = [
            x[c, t, v, m]
            for t in range(length)
            for v, m in np.ndindex(x.shape[2:])
            if seen[t, v, m] > 0
        ]
        if not values or min(values) == max(values):
            continue
        for t, v, m in np.ndindex(length, *x.shape[2:]):
            if seen[t, v, m] > 0:
                share = (x[c, t, v, m] - min(values)) / (max(values) - min(values))
                out[c, t, v, m] = share * 2 - 1
    return out


def ctr_gcn_nw_ucla(x, length, frames, *, chosen=None, angles=(0, 0)):
    """Turn about y, then about x, in the box over the clip; frames chosen or evenly spaced.

    All joints were seen.
    """
    moved = x[:, :length] - x[:, :1, SPINE : SPINE + 1, :1]
    turn = about(0, angles[0]) @ about(1, angles[1])
    turned = np.stack(
        [
            np.stack([turn @ moved[:, t, :, m] for m in range(x.shape[3])], axis=-1)
            for t in range(length)
        ],
        axis=1,
    )
    boxed = in_box(turned, np.ones(turned.shape[1:]), length)
    if chosen is None:
        chosen = np.linspace(0, length - 1, frames).astype(int)
    return boxed[:, chosen]


def about(axis, angle):
    """The rotation about axis 0, 1 or 2."""
    c = np.cos(angle)
    s = np.sin(angle)
    return np.array(
        [
            [[1, 0, 0], [0, c, -s], [0, s, c]],
            [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        ][axis]
    )


def upright(base, spine, left, right):
    """Return the rotation of the spine to z and then, about z, of the shoulders to near x.

    By angles, not by a basis: lean the spine over to z about the axis across both, then turn about
    z.
    """
    up = (spine - base) / np.linalg.norm(spine - base)
    angle = np.arccos(np.clip(up[2], -1, 1))
    axis = np.cross(up, [0, 0, 1])
    if np.linalg.norm(axis) < 1e-12:
        lean = np.diag([1.0, -1.0, -1.0]) if up[2] < 0 else np.eye(3)
    else:  # Rodrigues
        k = axis / np.linalg.norm(axis)
        cross = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
        lean = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    across = lean @ (right - left)
    return about(2, -np.arctan2(across[1], across[0])) @ lean


def dgnn(x, seen, length, frames):
    """Prepare from the first person's spine in each frame, upright by its first whole frame.

    The clip is played again to the end.
    """
    turn = np.eye(3)
    for t in range(length):
        if all(seen[t, v, 0] for v in (BASE, SPINE, LEFT, RIGHT)):
            turn = upright(*(x[:, t, v, 0] for v in (BASE, SPINE, LEFT, RIGHT)))
            break
    known = [x[:, t, SPINE, 0] for t in range(length) if seen[t, SPINE, 0]]
    out = np.zeros((x.shape[0], frames, *x.shape[2:]))
    visible = np.zeros((frames, *x.shape[2:]))
    for t in range(frames):
        source = t % length
        origin = np.zeros(3)
        if known:
            origin = x[:, source, SPINE, 0] if seen[source, SPINE, 0] else np.mean(known, axis=0)
        for v, m in np.ndindex(x.shape[2:]):
            if seen[source, v, m]:
                out[:, t, v, m] = turn @ (x[:, source, v, m] - origin)
                visible[t, v, m] = 1
    return out, visible


# Joint: what it is the mean of, in the order of preference; side_ stands for left_ and right_.
MEANS = {
    "neck": ["left_shoulder right_shoulder"],
    "upper_spine": ["left_shoulder right_shoulder"],
    "spine_base": ["left_hip right_hip"],
    "spine": ["spine_base neck"],
    "chest": ["spine neck"],
    "head": ["left_ear right_ear", "left_eye right_eye", "nose"],
    "nose": ["head"],
    "side_hand": ["side_index side_pinky"],
    "side_foot": ["side_big_toe side_small_toe"],
}


def joint_of(name, names, position, visible, asked=()):
    """The position and confidence of a joint among named ones, or None: it cannot be made."""
    if name in names:
        return position[:, names.index(name)], visible[names.index(name)]
    side = name.split("_")[0] if name.startswith(("left_", "right_")) else ""
    general = name.replace(f"{side}_", "side_", 1) if side else name
    for choice in MEANS.get(name, MEANS.get(general, [])):
        members = [member.replace("side", side or "side") for member in choice.split()]
        if set(members) & set(asked):  # the nose is made of the head, and the head of the nose
            continue
        made = [joint_of(one, names, position, visible, (*asked, name)) for one in members]
        if any(one is None for one in made):
            continue
        if any(confidence == 0 for _, confidence in made):
            return np.zeros(len(position)), 0.0
        return sum(place for place, _ in made) / len(made), sum(c for _, c in made) / len(made)
    return None


def convert(x, seen, source, target):
    """One clip x (C, T, V, M) of the joints named in source, as those named in target."""
    out = np.zeros((*x.shape[:2], len(target), x.shape[3]))
    visible = np.zeros((x.shape[1], len(target), x.shape[3]))
    for t, v, m in np.ndindex(visible.shape):
        made = joint_of(target[v], list(source), x[:, t, :, m], seen[t, :, m])
        if made is not None and made[1] > 0:
            out[:, t, v, m], visible[t, v, m] = made
    return out, visible
