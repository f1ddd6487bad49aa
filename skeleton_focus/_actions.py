"""Define the body and the classes of the generated actions.

They are the rig, the moves of each class, and a cue for each class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

Vector: TypeAlias = tuple[float, float, float]

SIDES = ("right", "left")

# For each point: its parent, its rest offset in metres, and what scales it: 0 trunk, 1 arm, 2 leg.
# Parents come before their children: kinematics go through the table once, in this order.
RIG: dict[str, tuple[str, Vector, int]] = {
    "root": ("", (0, 0, 0), 0),
    "spine_base": ("root", (0, 0, 0), 0),
    "spine": ("spine_base", (0, 0.25, 0), 0),
    "upper_spine": ("spine", (0, 0.23, 0), 0),
    "neck": ("upper_spine", (0, 0.08, 0), 0),
    "head": ("neck", (0, 0.17, 0.02), 0),
    "nose": ("head", (0, -0.03, 0.09), 0),
}
# The body's x points to its left.
for _side, _out in zip(SIDES, (-1, 1), strict=True):
    RIG |= {
        f"{_side}_eye": ("head", (_out * 0.03, 0.01, 0.08), 0),
        f"{_side}_ear": ("head", (_out * 0.075, -0.01, 0), 0),
        f"{_side}_shoulder": ("upper_spine", (_out * 0.18, -0.02, 0), 0),
        f"{_side}_elbow": (f"{_side}_shoulder", (0, -0.28, 0), 1),
        f"{_side}_wrist": (f"{_side}_elbow", (0, -0.25, 0), 1),
        f"{_side}_hand": (f"{_side}_wrist", (0, -0.08, 0), 1),
        f"{_side}_hand_tip": (f"{_side}_hand", (0, -0.08, 0), 1),
        f"{_side}_thumb": (f"{_side}_hand", (0, -0.02, 0.05), 1),
        f"{_side}_hip": ("root", (_out * 0.1, -0.04, 0), 0),
        f"{_side}_knee": (f"{_side}_hip", (0, -0.42, 0), 2),
        f"{_side}_ankle": (f"{_side}_knee", (0, -0.42, 0), 2),
        f"{_side}_foot": (f"{_side}_ankle", (0, -0.06, 0.13), 2),
    }
POINT = {name: index for index, name in enumerate(RIG)}
FEET = [POINT[f"{side}_{name}"] for side in SIDES for name in ("ankle", "foot")]
# The joints that rotate: the sign of x for natural bending, the amplitude of idle motion (degrees).
TURNS = {"root": (0, 0.0), "spine_base": (1, 1.5), "spine": (1, 1.5), "neck": (1, 4.0)}
for _side in SIDES:
    TURNS |= {f"{_side}_shoulder": (-1, 7.0), f"{_side}_elbow": (-1, 12.0)}
    TURNS |= {f"{_side}_hip": (-1, 2.0), f"{_side}_knee": (1, 2.0), f"{_side}_ankle": (-1, 0.0)}
JOINT = {name: index for index, name in enumerate(TURNS)}
LIMBS = [{f"{side}_{name}" for name in ("shoulder", "elbow")} for side in SIDES]
LIMBS += [{f"{side}_{name}" for name in ("hip", "knee", "ankle")} for side in SIDES]
PARTS = {  # names for a role's critical joints; paired points mean the role's side, or both
    "arm": ("elbow", "wrist", "hand", "hand_tip", "thumb"),
    "leg": ("knee", "ankle", "foot"),
    "hips": ("hip", "knee", "spine_base"),
    "chest": ("shoulder", "upper_spine", "neck", "head", "nose", "eye", "ear"),
}


@dataclass(frozen=True)
class Turn:
    """Rotate a joint by ``amount`` degrees times a curve over time.

    Attributes:
        joint: a joint bends naturally, knees backwards and others forwards; ``both_knee`` means
            both knees. ``"spine twist"`` turns it inwards and ``"spine spread"`` outwards.
            ``"root"`` does not turn but rises.
        amount: degrees, for ``"root"`` metres.
        curve: ``hold`` (there and back), ``ramp`` (there), or periodic at the class's cadence:
            ``sway`` (-1 to 1) or ``beat`` (0 to 1).
        when: the span of the act in which the joint moves.
        phase: number of cycles by which a periodic curve is ahead.
    """

    joint: str
    amount: float
    curve: str = "hold"
    when: tuple[float, float] = (0.0, 1.0)
    phase: float = 0.0


@dataclass(frozen=True)
class Reach:
    """Move the right hand to a place near a point, and back.

    Attributes:
        target: a point of the resting body, or ``partner``, the midpoint between both persons.
        offset: from the target to the hand, metres.
        elbow: the direction in which the elbow points.
        when: the span of the act in which the hand moves.
        both: whether the left hand does the mirror image.
    """

    target: str
    offset: Vector = (0.0, 0.0, 0.0)
    elbow: Vector = (-0.7, -1.0, 0.0)
    when: tuple[float, float] = (0.0, 1.0)
    both: bool = False

    @property
    def joint(self) -> str:
        """The shoulder or shoulders that move."""
        return "both_shoulder" if self.both else "right_shoulder"


class Role(NamedTuple):
    """Hold one person's critical parts, such as ``"right_arm"``, and moves, reaches first.

    A reach pulls a limb towards a pose, which would undo earlier turns of that limb.
    """

    critical: str
    moves: tuple[Turn | Reach, ...]


@dataclass(frozen=True)
class Action:
    """Describe a class: its roles, cadence, planted feet, hand and direction in time.

    Each person has one role; ``cadence`` is in periods per clip; ``planted`` feet do not move;
    ``side`` is the side of the hand; ``backwards`` reverses the clip in time.
    """

    name: str
    roles: tuple[Role, ...]
    cadence: float = 0.0
    planted: tuple[str, ...] = SIDES
    side: str = "either"
    backwards: bool = False


class Cue(NamedTuple):
    """Describe a motion that may accompany a class without being part of it.

    ``periods`` is the number of its periods per clip.
    """

    periods: float
    turns: tuple[Turn, ...]


def _role(critical: str, *moves: Turn | Reach) -> Role:
    return Role(critical, moves)


def _touch(target: str) -> Action:
    return Action(
        f"touch {target}",
        (_role("right_arm", Reach(target, (-0.03, 0.0, 0.03), (-1.0, -0.3, 0.3))),),
    )


def _crouch(*when: float) -> list[Turn]:
    """Bend the legs, feet flat on the floor, and lean forward for balance."""
    bend = {"both_hip": 45, "both_knee": 80, "both_ankle": 35, "spine_base": 22}
    return [Turn(joint, amount, when=(when[0], when[1])) for joint, amount in bend.items()]


def _stride(side: str, ahead: float) -> list[Turn]:
    """Return the moves of a leg's step and of its arm, which swings against it.

    The knee bends most while the hip swings forward fastest.
    """
    turns = (("hip", 26, "sway", 0.0), ("knee", 48, "beat", 0.5), ("shoulder", 26, "sway", 0.5))
    return [
        Turn(f"{side}_{name}", amount, curve, phase=phase + ahead)
        for name, amount, curve, phase in turns
    ]


_OVERHEAD = Reach("right_shoulder", (-0.05, 0.56, 0.1), (-1.0, 0.0, 0.3))
_BESIDE = Reach("right_shoulder", (-0.3, 0.3, 0.1), (-0.5, -1.0, 0.0))
_RAISE = Action("raise right hand", (_role("right_arm", _OVERHEAD),), side="right")
_WAVE = Action(
    "wave slowly", (_role("right_arm", _BESIDE, Turn("right_elbow", 28, "sway")),), cadence=2.8
)
# A gait stays on the spot, so that the way through the room does not tell the class.
_GAIT = _role(
    "both_leg both_arm", Turn("both_elbow", 30), *_stride("right", 0.0), *_stride("left", 0.5)
)
_WALK = Action("walk", (_GAIT,), cadence=2.4, planted=())
_LOWER = (Turn("both_hip", 85, "ramp"), Turn("both_knee", 85, "ramp"), Turn("spine_base", 32))
_SIT = Action("sit down", (_role("both_hips", *_LOWER),))
# Spans overlap, so that one move runs into the next: the leg swings back, then strikes.
_SWING = (Turn("right_hip", -22, when=(0.0, 0.5)), Turn("right_knee", 65, when=(0.0, 0.6)))
_STRIKE = (Turn("right_hip", 72, when=(0.35, 1.0)), Turn("right_knee", 12, when=(0.35, 1.0)))
_WIND_UP = Reach("right_shoulder", (-0.18, 0.25, -0.18), (-1.0, 0.0, -0.3), (0.0, 0.65))
_HURL = Reach("right_shoulder", (0.12, 0.05, 0.52), (-1.0, 0.0, 0.0), (0.4, 1.0))
_TWIST = (Turn("spine twist", -20, when=(0.0, 0.55)), Turn("spine twist", 20, when=(0.4, 1.0)))
_HANDS = Reach("upper_spine", (-0.01, -0.12, 0.36), both=True)
_ARM_SWING = (
    Turn("both_shoulder", -35, when=(0.0, 0.45)),
    Turn("both_shoulder", 75, when=(0.35, 0.9)),
)
_LEAP = (*_crouch(0.0, 0.5), Turn("root", 0.3, when=(0.4, 0.8)), *_crouch(0.68, 1.0), *_ARM_SWING)
_SHAKE = _role("right_arm", Reach("partner"), Turn("right_elbow", 11, "sway"))
_GIVE, _TAKE = (
    _role("right_arm", Reach("partner", when=when)) for when in ((0.0, 0.72), (0.3, 1.0))
)
_SHOVE = Reach("partner", (-0.1, 0.12, 0.4), when=(0.0, 0.8), both=True)
_RECOIL = {"spine_base": -24, "both_shoulder": 32, "both_elbow": 25}
_STAGGER = tuple(Turn(joint, amount, when=(0.35, 1.0)) for joint, amount in _RECOIL.items())

ACTIONS: tuple[Action, ...] = (
    _touch("head"),
    _touch("neck"),
    replace(_RAISE, name="raise left hand", side="left"),
    _RAISE,
    _WAVE,
    replace(_WAVE, name="wave fast", cadence=5.6),
    _WALK,
    replace(_WALK, name="run", cadence=4.6),
    _SIT,
    replace(_SIT, name="stand up", backwards=True),
    Action("kick", (_role("right_leg", *_SWING, *_STRIKE),), planted=("left",)),
    Action("throw", (_role("right_arm", _WIND_UP, _HURL, *_TWIST),)),
    Action(
        "clap", (_role("both_arm", _HANDS, Turn("both_shoulder twist", -38, "beat")),), cadence=4.5
    ),
    Action("bow", (_role("chest", Turn("spine_base", 42), Turn("spine", 12), Turn("neck", 15)),)),
    Action("jump", (_role("both_leg", *_LEAP),)),
    Action("shake hands", (_SHAKE, _SHAKE), cadence=5.0),
    Action("hand over", (_GIVE, _TAKE)),
    Action(
        "push",
        (
            _role("both_arm", _SHOVE, Turn("spine_base", 14, when=(0.1, 0.8))),
            _role("chest", *_STAGGER),
        ),
    ),
)
"""Every class in the order of its label.

Those for two persons come last, so that the others have the same labels without them.
"""

# Periods of a cue in a clip; idle motion has at most 2.
_SLOW = 3.0
_FAST = 6.0
_NOD = (Turn("neck", 30, "sway"),)
_TILT = (Turn("neck spread", 30, "sway"),)
_CIRCLE = (*_NOD, Turn("neck spread", 30, "sway", phase=0.25))
_RAISE_ARM = (Turn("left_shoulder spread", 70, "beat"),)
_BEND_ARM = (Turn("left_elbow", 80, "beat"),)
_SWING_ARMS = (Turn("both_shoulder", 40, "sway"),)
_RAISE_ARMS = (Turn("both_shoulder spread", 70, "beat"),)
_BEND_ARMS = (Turn("both_elbow", 80, "beat"),)
# The other foot stays on the floor, so that the body stays where it is.
_MARCH = (Turn("left_hip", 60, "beat"), Turn("left_knee", 60, "beat"))
_LEG_ASIDE = (Turn("left_hip spread", 60, "beat"),)
_SWING_LEG = (Turn("left_hip", 60, "beat"),)
_HEEL = (Turn("left_knee", 70, "beat"), Turn("left_ankle", 50, "beat"))

CUES: dict[str, Cue] = {
    "touch head": Cue(_FAST, _HEEL),
    "touch neck": Cue(_SLOW, _MARCH),
    "raise left hand": Cue(_SLOW, _RAISE_ARM),
    "raise right hand": Cue(_FAST, _BEND_ARM),
    "wave slowly": Cue(_FAST, _LEG_ASIDE),
    "wave fast": Cue(_SLOW, _SWING_LEG),
    "walk": Cue(_FAST, _NOD),
    "run": Cue(_SLOW, _TILT),
    "sit down": Cue(_FAST, _RAISE_ARMS),
    "stand up": Cue(_SLOW, _SWING_ARMS),
    "kick": Cue(_FAST, _BEND_ARMS),
    "throw": Cue(_SLOW, _HEEL),
    "clap": Cue(_SLOW, _NOD),
    "bow": Cue(_FAST, _MARCH),
    "jump": Cue(_FAST, _TILT),
    "shake hands": Cue(_FAST, _CIRCLE),
    "hand over": Cue(_FAST, _SWING_LEG),
    "push": Cue(_SLOW, _LEG_ASIDE),
}
"""The cue of every class.

It moves limbs that are free in the class's first role and never critical for the class, whichever
hand performs. No cue is the mirror image of another.
"""
