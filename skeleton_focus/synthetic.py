"""Generate actions with known critical joints and frames, to train and evaluate on.

They need no download. The class table ``ACTIONS`` animates a rig of named points by forward
kinematics. The positions are

    p_child = p_parent + R_parent o_child,    R_joint = R_parent exp(w_joint(t)),

where ``o`` is a bone's rest offset (metres), ``R`` a joint's orientation and ``w`` its rotation
vector (radians) at time t, as defined by the class's moves. The body's axes: x to its left, y up, z
forward. Classes are defined for the right hand; a left-handed performer is the mirror image. P is
the number of the rig's points, J the number of joints that rotate, k the number of clips of one
class.

A clip may also show its class's cue from the table ``CUES``: a motion that predicts the class but
is not part of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._actions import (
    ACTIONS,
    CUES,
    FEET,
    JOINT,
    LIMBS,
    PARTS,
    POINT,
    RIG,
    SIDES,
    TURNS,
    Action,
    Cue,
    Reach,
    Turn,
)
from ._checks import message
from ._kinematics import Array, arm_turns, forward, rest_points, rotation
from .clips import Batch
from .layouts import NTU25, SkeletonLayout

__all__ = ["SyntheticActions"]

# Mirrors a position; for a rotation vector, the other two signs change.
_MIRROR = np.array([-1, 1, 1], np.float32)
_BLOCK = 256  # clips animated together: few enough for the CPU cache, and memory is bounded


class SyntheticActions:
    """Generate clips of an articulated body, with the joints and frames that determine the class.

    Some classes differ only in the joints (touch head / neck), some only in the timing (walk / run,
    wave slowly / fast, shake hands / hand over, sit down / its reverse). Drawn for each clip,
    independently of the class: body, view (yaw within 60 degrees, pitch within 8), place, onset,
    duration, amplitude, hand, idle motion, noise, missing data.

    ``shortcut`` makes a benchmark of shortcut learning. A clip with a cue shows a periodic motion
    in all frames: the head, an arm, both arms or a leg turns by 30 to 40 degrees either way, 3 or 6
    times in a clip. Each class has its own cue, performed by a limb that does not act in the class
    and has no critical joint. A left-handed performer shows the mirror image. In a class for two
    persons, only the performer of the first role, who hands over or pushes, shows it. A network
    that learned the cues loses accuracy on test clips with ``shuffle_shortcut``.

    Shape:
        ``generate`` returns a :class:`~skeleton_focus.clips.Batch` with x (N, C=3, T, V, M) in
        metres (y up), all ``lengths`` T, visibility (N, T, V, M), critical (N, M, T, V). Where
        visibility is 0, x and critical are 0.

    Args:
        layout: a layout whose joint names exist in the rig, such as ``NTU25`` or ``COCO17``.
        frames: T, at least 16; an action fills half to three quarters of a clip, so T sets the
            sampling rate.
        num_persons: M; the second person acts in classes for two, others are absent; 1 leaves out
            classes for two.
        noise: standard deviation of the sensor noise, metres.
        missing: probability, 0 to 1, that a joint is missing in up to half the frames in a row.
        distraction: strength of idle motion of the limbs that do not act; 0 is none, 1 about 10
            degrees.
        shortcut: probability, 0 to 1, that a clip shows a cue; ``critical`` does not depend on it.

    Raises:
        ValueError: an option out of range, or a layout with a joint that the rig does not have.

    Example:
        >>> data = SyntheticActions(frames=32)
        >>> clips = data.generate(4, seed=0, labels=[0, 6, 8, 15])
        >>> [data.classes[label] for label in clips.label]
        ['touch head', 'walk', 'sit down', 'shake hands']
        >>> clips.x.shape, clips.critical.shape
        (torch.Size([4, 3, 32, 25, 2]), torch.Size([4, 2, 32, 25]))
    """

    def __init__(
        self,
        layout: SkeletonLayout = NTU25,
        *,
        frames: int = 64,
        num_persons: int = 2,
        noise: float = 0.01,
        missing: float = 0.02,
        distraction: float = 1.0,
        shortcut: float = 0.0,
    ) -> None:
        who = "SyntheticActions"
        unknown = [joint for joint in layout.joints if joint not in POINT]
        if unknown:
            raise ValueError(
                message(who, f"layout {layout.name!r} with joints among {list(POINT)}", unknown)
            )
        if frames < 16:
            raise ValueError(message(who, "frames of at least 16", frames))
        if num_persons < 1:
            raise ValueError(message(who, "num_persons of at least 1", num_persons))
        if not 0 <= noise < math.inf:
            raise ValueError(message(who, "noise of at least 0 metres", noise))
        if not 0 <= missing <= 1:
            raise ValueError(message(who, "missing in 0..1", missing))
        if not 0 <= distraction < math.inf:
            raise ValueError(message(who, "distraction of at least 0", distraction))
        if not 0 <= shortcut <= 1:
            raise ValueError(message(who, "shortcut in 0..1", shortcut))
        self.layout = layout
        self.frames = frames
        self.num_persons = num_persons
        self.noise = noise
        self.missing = missing
        self.distraction = distraction
        self.shortcut = shortcut
        self._actions = tuple(action for action in ACTIONS if len(action.roles) <= num_persons)
        # For each class, the other classes whose cue it can show.
        self._others = [self._other_cues(action) for action in self._actions]
        # The layout's joints on a right-handed performer, and on the mirror image.
        picked = []
        mirrored = []
        for joint in layout.joints:
            side, _, name = joint.partition("_")
            opposite = joint
            if side in SIDES:
                opposite = f"{SIDES[1 - SIDES.index(side)]}_{name}"
            picked.append(POINT[joint])
            mirrored.append(POINT[opposite])
        self._pick = np.array([picked, mirrored])

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their labels."""
        return tuple(action.name for action in self._actions)

    @property
    def num_classes(self) -> int:
        """The number of classes: 18, or 15 for one person."""
        return len(self._actions)

    @property
    def critical_joints(self) -> dict[str, tuple[str, ...]]:
        """The names of the joints that can be critical in each class, in the layout's order.

        This is the union over roles and hands: a clip of ``"touch head"`` has the critical joints
        of one arm, this table those of both arms.

        >>> joints = SyntheticActions().critical_joints
        >>> joints["sit down"]
        ('spine_base', 'left_hip', 'left_knee', 'right_hip', 'right_knee')
        """
        table = {}
        for action in self._actions:
            picks = self._pick
            if action.side != "either":
                picks = picks[[SIDES.index(action.side)]]
            points = [_critical_points(role.critical) for role in action.roles]
            roles = np.stack(points)  # (roles, P)
            joints = np.flatnonzero(roles[:, picks].any((0, 1)))  # (roles, hands, V) -> (V,)
            table[action.name] = tuple(self.layout.joints[joint] for joint in joints)
        return table

    def generate(
        self,
        num_clips: int,
        *,
        seed: int,
        labels: Sequence[int] | Tensor | None = None,
        shuffle_shortcut: bool = False,
    ) -> Batch:
        """Generate clips; the same arguments give the same bits.

        No global random state is read or written. With the same seed, the i-th clip has the same
        performers, view and timing for any label and ``shortcut``. Whether it shows a cue does not
        depend on its label either.

        Args:
            num_clips: N, at least 1.
            seed: an integer of at least 0.
            labels: N classes; by default every class equally often, shuffled.
            shuffle_shortcut: a clip with a cue shows the cue of another class instead of its own,
                drawn from the cues whose limb does not act in the clip's class and has no critical
                joint.

        Raises:
            ValueError: ``num_clips``, ``seed`` or ``labels`` out of range, or not one label per
                clip.
        """
        who = "SyntheticActions.generate"
        if num_clips < 1:
            raise ValueError(message(who, "num_clips of at least 1", num_clips))
        if seed < 0:
            raise ValueError(message(who, "a seed of at least 0", seed))
        # Each class equally often, up to one clip.
        label = np.random.default_rng(seed).permutation(num_clips) % self.num_classes
        if labels is not None:
            label = np.asarray(labels)
            if label.shape != (num_clips,):
                raise ValueError(message(who, f"labels (N={num_clips})", label.shape))
            if label.dtype.kind not in "iu":
                raise ValueError(message(who, "integer labels", label.dtype))
            outside = label[(label < 0) | (label >= self.num_classes)]
            if outside.size != 0:
                raise ValueError(
                    message(who, f"labels in 0..{self.num_classes - 1}", outside.tolist())
                )
        blocks = []
        for start in range(0, num_clips, _BLOCK):
            rng = np.random.default_rng([seed, start])
            # Cues have a generator of their own: with another shortcut, all else keeps its bits.
            cue_rng = np.random.default_rng([seed, start, 1])
            blocks.append(
                self._block(rng, cue_rng, label[start : start + _BLOCK], shuffle_shortcut)
            )
        x, visibility, critical = (torch.cat(part) for part in zip(*blocks, strict=True))
        lengths = torch.full((num_clips,), self.frames)
        return Batch(x, lengths, torch.from_numpy(label.astype(np.int64)), visibility, critical)

    def _other_cues(self, action: Action) -> list[int]:
        """List the other classes whose cue a clip of this class can show."""
        others = []
        for k, other in enumerate(self._actions):
            if other is not action and _is_free(CUES[other.name], action):
                others.append(k)
        return others

    def _cues(self, rng: np.random.Generator, label: Array, shuffled: bool) -> Array:
        """The class (n) whose cue each clip shows, or -1 for none."""
        # Both are always drawn, so that the same clips show a cue whether or not cues are shuffled.
        shows, choice = rng.random((2, len(label)))
        shown = label
        if shuffled:
            others = [self._others[k] for k in label]
            shown = np.array(
                [some[int(u * len(some))] for some, u in zip(others, choice, strict=True)]
            )
        return np.where(shows < self.shortcut, shown, -1)

    def _block(
        self, rng: np.random.Generator, cue_rng: np.random.Generator, label: Array, shuffled: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Animate one block of clips.

        The result is x (n, C, T, V, M), visibility (n, T, V, M) and critical (n, M, T, V).
        """
        sizes = (len(label), self.num_persons, self.layout.num_joints, self.frames)
        # Always drawn: later draws must not depend on labels.
        hand, first, flip = rng.integers(0, 2, (3, len(label)))
        cast = _draw(rng, len(label), self.frames)
        if self.shortcut > 0:
            shown = self._cues(cue_rng, label, shuffled)
            cast = _add_cues(cast, cue_rng, shown, [CUES[action.name] for action in self._actions])
        x = np.zeros((*sizes, 3), np.float32)
        visible = np.zeros(sizes, bool)
        critical = np.zeros(sizes, bool)
        for index in np.unique(label):
            action = self._actions[index]
            rows = np.flatnonzero(label == index)
            lefty = hand[rows]
            if action.side != "either":
                lefty = np.full(len(rows), SIDES.index(action.side))
            for number, role in enumerate(action.roles):
                points = _perform(action, number, cast, rows, self.distraction)
                # A left-handed performer is a right-handed one in the mirror: left joints are taken
                # for right ones, and x changes its sign. (k, P, T, 3) -> (k, V, T, 3)
                points = points[np.arange(len(rows))[:, None], self._pick[lefty]]
                points[lefty == 1] *= _MIRROR
                view = cast.view[rows]
                slot = np.zeros_like(rows)
                # Face to face, seen from the side; place and slot do not reveal the role.
                if len(action.roles) == 2:
                    # Each moves back by half the gap, and the second turns to face the first.
                    points[..., 2] -= cast.meet[rows, number, 2][:, None, None]
                    points *= np.array([[1, 1, 1], [-1, 1, -1]], np.float32)[number]
                    turn = np.array([[0, np.pi / 2, 0]], np.float32) * (2 * flip[rows, None] - 1)
                    view = view @ rotation(turn)
                    slot = (number + first[rows]) % 2
                points = (points.reshape(len(rows), -1, 3) @ view.swapaxes(1, 2)).reshape(
                    points.shape
                )
                x[rows, slot] = points + cast.place[rows, None, None]
                visible[rows, slot] = True
                active = (cast.act[rows] > 0) & (cast.act[rows] < 1)
                decisive = _critical_points(role.critical)[self._pick[lefty]]  # (k, V)
                critical[rows, slot] = decisive[:, :, None] & active[:, None]
        # A lost joint is missing in one run of frames, from begin for span of the clip.
        begin = rng.uniform(0, 0.8, sizes[:3])
        span = rng.uniform(0.05, 0.5, sizes[:3])
        since = np.arange(self.frames) / self.frames - begin[..., None]
        lost = rng.random(sizes[:3]) < self.missing
        visible &= ~((since >= 0) & (since < span[..., None]) & lost[..., None])
        # Noise before the mask: where a joint is missing or a person absent, x must be 0.
        x += np.float32(self.noise) * rng.standard_normal(x.shape, np.float32)
        x *= visible[..., None]
        person_last = torch.from_numpy(visible).permute(0, 3, 2, 1).float()
        return (
            torch.from_numpy(x).permute(0, 4, 3, 2, 1),
            person_last,
            torch.from_numpy(critical & visible).mT.float(),
        )


class _Cast(NamedTuple):
    """The random parameters of n clips of two persons, independent of the labels."""

    offset: Array  # (n, 2, P, 3) bones, metres
    meet: Array  # (n, 2, 3) midpoint between the partners, relative to each root, metres
    act: Array  # (n, T) progress of the action, 0 to 1
    since: Array  # (n, T) time since the onset in clip lengths, times the pace
    phase: Array  # (n, 1) phase of periodic motion, cycles
    amplitude: Array  # (n, 1, 1) factor on every turn
    view: Array  # (n, 3, 3) rotation from the scene to the camera
    place: Array  # (n, 3) position of the scene, metres
    base: Array  # (n, 2, 1, J, 3) resting pose, radians; (n, 2, T, J, 3) with cues
    idle: Array  # (n, 2, T, J, 3) irrelevant motion, radians
    stance: Array  # (n, 2, 2) whether the right and the left foot may bear weight, 0 or 1


def _draw(rng: np.random.Generator, n: int, frames: int) -> _Cast:
    """Draw all random parameters except the class."""

    def uniform(low: float, high: float, *shape: int) -> Array:
        return rng.uniform(low, high, (n, *shape)).astype(np.float32)

    time = np.linspace(0, 1, frames, dtype=np.float32)
    joints = len(JOINT)
    # Of the whole body, then of trunk, arms and legs.
    scale = uniform(0.85, 1.12, 2, 1) * uniform(0.93, 1.07, 2, 3)
    bones = np.array([bone for _, bone, _ in RIG.values()], np.float32)
    groups = [group for _, _, group in RIG.values()]  # trunk, arm or leg
    offset = bones * scale[..., groups, None]
    rest = rest_points(offset)
    shoulder = rest[:, :, POINT["right_shoulder"]]
    hand = rest[:, :, POINT["right_hand"]]
    floor = rest[:, :, FEET].min(2)
    # Both persons share its height and half the gap, so that their hands meet.
    meet = np.zeros_like(floor)
    # 27 cm below the mean of the shoulders, above the floor that both stand on; each at 0.7 of an
    # arm's length from it, so that arms reach it bent.
    meet[..., 1] = (shoulder - floor)[..., 1].mean(1, keepdims=True) - 0.27 + floor[..., 1]
    meet[..., 2] = 0.7 * (shoulder - hand)[..., 1].mean(1, keepdims=True)
    span = uniform(0.5, 0.72, 1)
    # The action starts and ends within the clip, 3 % from its ends at least.
    since = time - 0.03 - uniform(0, 1, 1) * (0.94 - span)
    yaw, pitch = np.zeros((2, n, 3), np.float32)
    yaw[:, 1] = np.radians(uniform(-60, 60))
    pitch[:, 0] = np.radians(uniform(-8, 8))
    base = np.zeros((n, 2, 1, joints, 3), np.float32)
    for name, low, high in (("shoulder spread", 3, 12), ("elbow", 5, 25)):  # relaxed arms
        for joint, degree in _turn_axes(f"both_{name}"):
            base[..., joint, :] = uniform(low, high, 2, 1, 1) * degree
    rate = uniform(0.4, 2, 2, 1, joints)
    phase = uniform(0, 1, 2, 1, joints)
    burst = uniform(0, 1, 2, 1, joints)
    # Idle motion swells to 2.5 times its size once in a clip.
    swell = 1 + 1.5 * np.exp(-(((time[:, None] - burst) / 0.2) ** 2))
    swing = np.sin(2 * np.pi * (rate * time[:, None] + phase)) * swell
    reach = rng.standard_normal((n, 2, 1, joints, 3))
    reach *= np.radians([idle for _, idle in TURNS.values()])[:, None]
    hinges = [joint for name, joint in JOINT.items() if name.endswith(("elbow", "knee"))]
    reach[..., hinges, 1:] = 0  # they bend about x alone
    return _Cast(
        offset=offset,
        meet=meet,
        act=np.clip(since / span, 0, 1),
        since=since * uniform(0.88, 1.12, 1),
        phase=uniform(0, 1, 1),
        amplitude=uniform(0.85, 1.15, 1, 1),
        view=rotation(pitch) @ rotation(yaw),
        place=uniform(-1, 1, 3) * np.array([0.7, 0.1, 0.7], np.float32),
        base=base,
        idle=swing[..., None] * reach.astype(np.float32),
        stance=np.ones((n, 2, 2), np.float32),
    )


def _add_cues(cast: _Cast, rng: np.random.Generator, shown: Array, cues: Sequence[Cue]) -> _Cast:
    """Add the cue ``shown[i]`` (-1 for none) to the first person's resting pose in clip i."""
    n, frames = cast.act.shape
    pace = rng.uniform(0.92, 1.08, (n, 1))
    phase = rng.uniform(0, 1, (n, 1))
    time = np.linspace(0, 1, frames)
    base = np.repeat(cast.base, frames, 2)
    stance = cast.stance.copy()
    for index in np.unique(shown[shown >= 0]):
        cue = cues[index]
        rows = np.flatnonzero(shown == index)
        cycle = cue.periods * pace[rows] * time + phase[rows]  # (k, T)
        for turn in cue.turns:
            share = _wave(turn.curve, cycle)[..., None]
            for joint, degree in _turn_axes(turn.joint):
                base[rows, 0, :, joint] += turn.amount * degree * cast.amplitude[rows] * share
        moved = _moved_points(_moved_joints(cue.turns))
        # A leg that the cue moves bears no weight; otherwise the body would move with it.
        stance[rows, 0] = [f"{side}_ankle" not in moved for side in SIDES]
    return cast._replace(base=base, stance=stance)


def _pair(name: str) -> list[str]:
    """Expand ``both_knee`` to the names of both knees; return other names unchanged."""
    return [name.replace("both", side) for side in SIDES] if name.startswith("both_") else [name]


def _moved_joints(moves: Sequence[Turn | Reach]) -> set[str]:
    """The joints that the moves turn."""
    return {name for move in moves for name in _pair(move.joint.partition(" ")[0])}


def _whole_limbs(joints: set[str]) -> set[str]:
    """The joints and all other joints of their limbs."""
    return joints.union(*(limb for limb in LIMBS if limb & joints))


def _moved_points(joints: set[str]) -> set[str]:
    """The joints and the points that move with them."""
    points = set(joints)
    for name, (parent, _, _) in RIG.items():  # parents come first
        if parent in points:
            points.add(name)
    return points


def _is_free(cue: Cue, action: Action) -> bool:
    """Check that the cue's limb is free in the first role.

    It neither acts, nor is it touched, critical or the only support.
    """
    role = action.roles[0]
    # Whole limbs, since a turned shoulder would also carry an elbow that acts.
    limb = _moved_points(_whole_limbs(_moved_joints(cue.turns)))
    acting = _whole_limbs(_moved_joints(role.moves))
    touched = {move.target for move in role.moves if isinstance(move, Reach)}
    critical = {
        name
        for name, is_critical in zip(RIG, _critical_points(role.critical), strict=True)
        if is_critical
    }
    lifted = {side for side in SIDES if f"{side}_ankle" in limb}
    stands = not lifted or not lifted.issuperset(action.planted)
    return stands and not limb & (acting | touched | critical)


def _critical_points(critical: str) -> Array:
    """A mask (P) of the points that are critical in a role."""
    names: set[str] = set()
    for part in critical.split():
        side, _, kind = part.rpartition("_")
        for word in PARTS[kind]:
            names.update((word, *_pair(f"{side or 'both'}_{word}")))
    return np.array([name in names for name in RIG])


def _turn_axes(spec: str) -> list[tuple[int, Array]]:
    """Return the joints that a text such as ``"both_shoulder spread"`` turns, and their axes.

    An axis is the rotation vector (3) of one degree.
    """
    joint, _, axis = spec.partition(" ")
    if joint == "root":  # the root moves up, in metres
        return [(JOINT[joint], np.array([0, 1, 0], np.float32))]
    turns = []
    for name in _pair(joint):
        out = 1 if name.startswith("left") else -1
        vector = {"": (TURNS[name][0], 0, 0), "twist": (0, -out, 0), "spread": (0, 0, out)}[axis]
        turns.append((JOINT[name], np.radians(np.array(vector, np.float32))))
    return turns


def _smooth(part: Array) -> Array:
    part = np.clip(part, 0, 1)
    return np.asarray(part * part * (3 - 2 * part))


def _wave(curve: str, cycle: Array) -> Array:
    """The periodic curve ``sway``, -1 to 1, or ``beat``, 0 to 1, at a number of cycles."""
    angle = 2 * np.pi * cycle
    return np.asarray(np.sin(angle) if curve == "sway" else (1 - np.cos(angle)) / 2)


def _curve(act: Array, move: Turn | Reach, cycle: Array) -> Array:
    """The progress of a move, (k, T, 1)."""
    # A move takes up its span of the act: it rises in 0.3 of it, holds, and falls in 0.3.
    part = (act - move.when[0]) / (move.when[1] - move.when[0])
    progress = _smooth(np.minimum(part, 1 - part) / 0.3)
    if isinstance(move, Turn) and move.curve != "hold":
        if move.curve == "ramp":
            progress = _smooth(part)
        else:
            progress = progress * _wave(move.curve, cycle + move.phase)
    return progress[..., None]


def _perform(action: Action, number: int, cast: _Cast, rows: Array, distraction: float) -> Array:
    """Compute the points (k, P, T, 3) of one role: resting pose, idle motion and moves.

    Only the limbs that do not act move idly.
    """
    moves = action.roles[number].moves
    offset = cast.offset[rows, number]
    idle = cast.idle[rows, number]
    act = 1 - cast.act[rows] if action.backwards else cast.act[rows]
    cycle = action.cadence * cast.since[rows] + cast.phase[rows]
    rest = rest_points(offset)
    # In place: indexing by rows has copied idle, so that the cast stays as drawn.
    moved = _moved_joints(moves)
    acting = [name for limb in LIMBS if limb & moved for name in limb]
    idle[:, :, [JOINT[name] for name in acting]] = 0
    pose = cast.base[rows, number] + np.float32(distraction) * idle
    for move in moves:
        share = _curve(act, move, cycle)
        if isinstance(move, Turn):
            for joint, degree in _turn_axes(move.joint):
                pose[:, :, joint] += move.amount * degree * cast.amplitude[rows] * share
            continue
        start = cast.meet[rows, number] if move.target == "partner" else rest[:, POINT[move.target]]
        for name, turn in arm_turns(rest, start + np.array(move.offset), move.elbow).items():
            for side in SIDES if move.both else SIDES[:1]:
                # The left arm mirrors the right one's turns: of a rotation vector, y and z change
                # their signs.
                goal = turn if side == "right" else -turn * _MIRROR
                joint = JOINT[f"{side}_{name}"]
                # From whatever the pose is so far; at a share of 1 the turn is exactly the goal.
                pose[:, :, joint] += share * (goal[:, None] - pose[:, :, joint])
    planted = np.array([side in action.planted for side in SIDES])
    return forward(pose, offset, planted * cast.stance[rows, number])
