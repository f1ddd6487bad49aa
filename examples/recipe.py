"""The recipe of a training: its settings and presets, the network it builds, the input it
prepares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from bagcn import BAGCN
from fg_stformer import FGSTFormer
from ms_g3d import MSG3D
from stf_gcn import STFGCN
from torch import Tensor, nn

from skeleton_focus import (
    Augment,
    Batch,
    SkeletonLayout,
    STFLoss,
    STFObjective,
    add_visibility,
    align_body,
    body_height,
    center,
    make_stream,
    repeat_frames,
)


def setting(default: Any, meaning: str) -> Any:
    """A field of the recipe: its default and what --help says of it."""
    return field(default=default, metadata={"help": meaning})


@dataclass
class Recipe:
    """Everything a run needs besides its data; kept in its folder."""

    model: str = setting("stf_gcn", "network")
    branch: str = setting(
        "focus",
        "plain, focus, exploration, all, recommended; or terms of STFLoss joined by +, with their weights if not the "
        "default, such as exploration=0.3+coherence",
    )
    stream: str = setting(
        "joint", "joint, bone, joint_motion or bone_motion; join several by + as channels"
    )
    preparation: str = setting(
        "view",
        "view: resample clips to --frames; paper: centre each frame, repeat clips; ctrgcn, dgnn: as in those papers",
    )
    widths: tuple[int, ...] = setting(
        (0,), "channels of each module of the network; 0: the paper's"
    )
    strides: tuple[int, ...] = setting(
        (0,), "temporal stride of each module of the network; 0: the paper's"
    )
    frames: int = setting(64, "number of frames T of every prepared clip")
    epochs: int = setting(60, "number of training epochs")
    batch: int = setting(32, "batch size per device")
    lr: float = setting(
        0.1, "highest learning rate of SGD with Nesterov momentum 0.9, in a one-cycle schedule"
    )
    decay: tuple[int, ...] = setting(
        (0,), "instead of one cycle: divide the learning rate by 10 after these epochs"
    )
    cycle: float = setting(
        1.0, "share of the one-cycle schedule to run; below 1 the learning rate does not reach 0"
    )
    weight_decay: float = setting(5e-4, "weight decay of weights with two or more axes")
    label_smoothing: float = setting(0.0, "label smoothing of the cross-entropy")
    ema: float = setting(
        0.0, "decay of the moving average of the weights, which is tested and saved; 0: none"
    )
    turn: tuple[float, ...] = setting(
        (0.0, 0.0, 0.0), "rotate training clips by up to these degrees about x, y and z"
    )
    stretch: float = setting(0.0, "scale training clips by a factor in 1 - stretch to 1 + stretch")
    crop: float = setting(
        1.0, "smallest share of a training clip to crop; with --preparation view or ctrgcn"
    )
    speed: float = setting(
        0.0,
        "warp training clips in time, by up to this share of their speed; with --preparation view or ctrgcn",
    )
    shear: float = setting(0.0, "shear training clips by up to this share of another axis")
    flip: float = setting(0.0, "probability of mirroring a training clip")
    joint_dropout: float = setting(0.0, "probability of dropping each joint of a training clip")
    dropout: float = setting(0.0, "dropout of the pooled features before the last layer")
    clip_gradient: float = setting(5.0, "largest norm of the gradient")
    stf_after: float = setting(
        0.0,
        "share of the epochs with cross-entropy alone, before STF terms, guidance and erasing are added",
    )
    layers: tuple[str, ...] = setting(
        ("",),
        "explained layers, from low to high, such as block3 block6: the losses act on the focus of the last one, L_c "
        "compares the last two; default: the last two blocks",
    )
    score: str = setting("logit", "class score whose gradient gives the focus")
    norm: str = setting(
        "rms", "norm in L_d, L_c and L_G: rms, or l2 as in the paper, which grows with the map"
    )
    erasing: float = setting(
        0.0, "probability of hiding joints of a training clip, preferably those of high focus"
    )
    separation: str = setting(
        "distance", "L_d as the distance of two maps, as in the paper, or as their overlap"
    )
    guide: str = setting(
        "", "with guidance in --branch: JSON file of the joints or parts allowed for each class"
    )
    start_from: str = setting("", "folder of a finished run to take the initial weights from")
    freeze: bool = setting(
        False,
        "with --start-from and --branch plain: freeze the network and train a new last layer, for any classes",
    )
    warmup: int = setting(0, "with --decay: epochs of linear learning-rate warm-up")
    scales: int = setting(13, "ms_g3d and stf_ms_g3d: number of scales of a graph convolution")
    window_scales: int = setting(6, "ms_g3d and stf_ms_g3d: number of scales in the G3D pathways")
    stages: tuple[int, ...] = setting(
        (6, 2), "fg_stformer: number of layers of stage 1 and stage 2"
    )
    focal_joints: int = setting(15, "fg_stformer: joints per frame that stage 2 keeps; 0: all")
    parts: bool = setting(True, "fg_stformer: use the branch of body parts")
    joint_part_attention: bool = setting(
        True, "fg_stformer: use cross-attention between joints and parts"
    )
    global_attention: bool = setting(True, "fg_stformer: use attention over the frames")
    dilated_convolution: bool = setting(
        True, "fg_stformer: use dilated convolutions as values of that attention"
    )
    shared_map: str = setting(
        "one", "fg_stformer: one learned map A_g for all heads, or one per_head"
    )
    focusing: str = setting(
        "attention", "bagcn: how joints are pooled into a latent node: attention, mean, max or none"
    )
    context: str = setting(
        "bidirectional", "bagcn: temporal context of that node: bidirectional, forward or none"
    )
    stf_arrangement: str = setting(
        "modules",
        "stf_ms_g3d: modules: six modules of three scales; scales: G_k at all 13 scales of three layers",
    )
    clips: int = setting(1200, "number of generated training clips, without --data")
    shortcut: float = setting(
        0.0,
        "share of the generated clips with a motion that reveals the class (in test clips, that of another class)",
    )
    share: float = setting(1.0, "random share of the training clips to use")
    draw: int = setting(1, "random seed of --share")
    hold_out: tuple[str, ...] = setting(
        ("",),
        "hold out training clips with one of these texts in their name, such as _s05_, to choose the best epoch",
    )
    seed: int = setting(
        1, "random seed of the weights, the order of the clips and their augmentation"
    )

    @property
    def stf_start(self) -> int:
        """The first epoch with the STF terms; at least the last one has them."""
        return min(int(self.stf_after * self.epochs), self.epochs - 1)


def kept_recipe(values: dict[str, Any]) -> Recipe:
    """The recipe that a run kept; before there was a choice, the focus was that of the log-odds,
    for example.
    """
    earlier = {} if values.get("branch") == "plain" else {"score": "log_odds"}
    if values.get("model") == "stf_ms_g3d":
        earlier["stf_arrangement"] = "scales"
    gone = (
        "emphasis",
        "focus_gradient",
    )  # of how an earlier version trained; the network is the same
    return Recipe(
        **{**earlier, **{name: value for name, value in values.items() if name not in gone}}
    )


class Preparation(NamedTuple):
    """What happens to clips before a network sees them; ``--crop``, ``--turn`` and so on come on
    top in training.
    """

    origin: str | None = (
        None  # the joint that positions are measured from; None: the layout's centre
    )
    each_frame: bool = False  # measured in each frame; else once, so that travel is kept
    person: int | None = (
        None  # whose origin it is for all; None: each person's own, or the first seen
    )
    aligned: bool = False  # the first person's spine along z, its shoulders along x
    heights: bool = True  # in body heights, else as they come
    repeats: bool = False  # brought to T frames by repeating, else stretched
    test_crop: float = 1.0  # the middle share of a clip that tests see


PREPARATIONS = {
    "view": Preparation(),
    "paper": Preparation(each_frame=True, repeats=True),  # STF's
    "ctrgcn": Preparation("spine", heights=False, test_crop=0.95),  # FG-STFormer's
    "dgnn": Preparation(
        "spine", each_frame=True, person=0, aligned=True, heights=False, repeats=True
    ),  # BAGCN's
}

# Settings of one network alone, or of MS-G3D and STF on it.
OF_ONE_NETWORK: dict[str, tuple[str, ...]] = {
    "ms_g3d": ("scales", "window_scales"),
    "stf_ms_g3d": ("scales", "window_scales", "stf_arrangement"),
    "fg_stformer": (
        "stages",
        "focal_joints",
        "parts",
        "joint_part_attention",
        "global_attention",
        "dilated_convolution",
        "shared_map",
    ),
    "bagcn": ("focusing", "context"),
}

# What a preset sets besides; an option on the command line comes before it.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "preparation": "paper",
        "frames": 300,
        "lr": 0.05,
        "epochs": 55,
        "decay": (20, 35, 45),
    },
    "nw_ucla": {
        "stream": "joint+bone+joint_motion",
        "widths": (48, 48, 96, 96, 192, 192),
        "strides": (2, 1, 2, 1, 1, 1),
        "frames": 32,
        "epochs": 42,
        "batch": 16,
        "lr": 0.05,
        "label_smoothing": 0.1,
        "ema": 0.995,
        "turn": (30.0, 75.0, 15.0),
        "stretch": 0.2,
        "crop": 0.5,
        "dropout": 0.3,
        "cycle": 0.7,
        "stf_after": 0.9,
    },
    "synthetic": {
        "stream": "joint+joint_motion",
        "widths": (24, 24, 48, 48, 64, 64),
        "strides": (2, 1, 2, 1, 1, 1),
        "frames": 32,
        "epochs": 10,
        "turn": (0.0, 30.0, 0.0),
        "crop": 0.9,
        "stf_after": 0.7,
    },
}

MS_G3D: dict[str, Any] = {"model": "ms_g3d", "strides": (2, 1, 2), "dropout": 0.0}
PRESETS["nw_ucla_ms_g3d"] = {**PRESETS["nw_ucla"], **MS_G3D, "widths": (32, 64, 128)}
PRESETS["synthetic_ms_g3d"] = {**PRESETS["synthetic"], **MS_G3D, "widths": (12, 24, 48)}

# STF from a trained MS-G3D, at a fiftieth of its rate as in the paper; needs start_from.
FROM_TRAINED: dict[str, Any] = {"model": "stf_ms_g3d", "lr": 0.001, "cycle": 1.0, "stf_after": 0.0}
PRESETS["paper_stf"] = {**PRESETS["paper"], **FROM_TRAINED}

# MS-G3D and STF on the papers' other data sets; as on NTU 60, ten epochs follow the last decay.
PRESETS["paper_ntu120"] = {**PRESETS["paper"], "decay": (20, 35, 50), "epochs": 60}
PRESETS["paper_kinetics"] = {
    **PRESETS["paper"],
    "decay": (25, 40, 55),
    "epochs": 65,
    "scales": 8,
    "window_scales": 8,
}
PRESETS["paper_stf_ntu120"] = {**PRESETS["paper_ntu120"], **FROM_TRAINED, "lr": 5e-4}
PRESETS["paper_stf_kinetics"] = {**PRESETS["paper_kinetics"], **FROM_TRAINED, "lr": 1e-4}

PRESETS["nw_ucla_stf_ms_g3d"] = {**PRESETS["nw_ucla_ms_g3d"], **FROM_TRAINED, "epochs": 10}
PRESETS["synthetic_stf_ms_g3d"] = {**PRESETS["synthetic_ms_g3d"], **FROM_TRAINED, "epochs": 3}

# Fine-tunes a trained STF-GCN with terms that act, at half its learning rate
# (docs/focus_quality.md). Needs start_from.
FOCUS: dict[str, Any] = {
    "branch": "recommended",
    "erasing": 0.5,
    "layers": ("block3", "block6"),
    "epochs": 10,
    "cycle": 1.0,
    "ema": 0.0,
    "stf_after": 0.0,
}
PRESETS["nw_ucla_focus"] = {**PRESETS["nw_ucla"], **FOCUS, "lr": 0.025}
PRESETS["synthetic_focus"] = {**PRESETS["synthetic"], **FOCUS, "lr": 0.05}

# For networks that learn more slowly: milder views, and a longer schedule whose rate falls to 0.
SLOW: dict[str, Any] = {
    "turn": (15.0, 60.0, 0.0),
    "crop": 0.7,
    "dropout": 0.0,
    "lr": 0.1,
    "cycle": 1.0,
    "epochs": 60,
}

# FG-STFormer is trained without STF; narrower here than in the paper, whose sizes are those of
# paper_fg_stformer.
FG_STFORMER: dict[str, Any] = {"model": "fg_stformer", "branch": "plain", "stream": "joint"}
PRESETS["paper_fg_stformer"] = {
    **FG_STFORMER,
    "preparation": "ctrgcn",
    "crop": 0.5,
    "turn": (17.1887, 17.1887, 17.1887),  # 0.3 radians
    "frames": 128,
    "lr": 0.01,
    "epochs": 80,
    "decay": (50, 70),
    "warmup": 5,
}
PRESETS["nw_ucla_fg_stformer"] = {
    **PRESETS["nw_ucla"],
    **FG_STFORMER,
    "widths": (32, 32, 64, 64, 128, 128, 128, 128),
    "strides": (2, 1, 2, 1, 1, 1, 1, 1),
    **SLOW,
}
PRESETS["synthetic_fg_stformer"] = {
    **PRESETS["synthetic"],
    **FG_STFORMER,
    "widths": (24, 24, 48, 48),
    "strides": (1, 2, 1, 1),
    "stages": (3, 1),
}

# BAGCN's spatial stream; its motion stream is joint_motion+bone_motion.
BAGCN_SPATIAL: dict[str, Any] = {"model": "bagcn", "branch": "plain", "stream": "joint+bone"}
PRESETS["paper_bagcn"] = {
    **PRESETS["paper"],
    **BAGCN_SPATIAL,
    "preparation": "dgnn",
    "lr": 0.1,
    "epochs": 50,
    "decay": (30, 40),
    "weight_decay": 1e-4,
}
PRESETS["paper_bagcn_kinetics"] = {
    **PRESETS["paper_bagcn"],
    "preparation": "paper",
    "decay": (20, 40, 55),
    "epochs": 65,
}
PRESETS["nw_ucla_bagcn"] = {
    **PRESETS["nw_ucla"],
    **BAGCN_SPATIAL,
    "widths": (32, 32, 32, 64, 64, 64, 128, 128, 128),
    "strides": (2, 1, 1, 2, 1, 1, 1, 1, 1),
    **SLOW,
}
PRESETS["synthetic_bagcn"] = {
    **PRESETS["synthetic"],
    **BAGCN_SPATIAL,
    "widths": (16, 16, 16, 32, 32, 32, 64, 64, 64),
    "strides": (2, 1, 1, 2, 1, 1, 1, 1, 1),
}

# What STF explains, and the linear layer after pooling.
LAYERS: dict[str, tuple[list[str], str | None]] = {
    "stf_gcn": (["block5", "block6"], "fc"),
    "ms_g3d": (["block2", "block3"], "fc"),
    "stf_ms_g3d": (["block2", "block3"], "fc"),
    "fg_stformer": (["stage1", "on_joints"], None),
    "bagcn": (["block8", "block9"], "fc"),
}

# The last layer of every network, which gives the classes; of FG-STFormer's two linear layers the
# second.
OUTPUT_LAYER = "fc"

# The networks with an STFAdjacency, whose embedding L_G compares with the focus.
WITH_STF_ADJACENCY = ("stf_gcn", "stf_ms_g3d")


def watched(recipe: Recipe) -> str:
    """The clips that are looked at during training: the test clips, or those held out of the
    training clips.
    """
    return "validation" if any(recipe.hold_out) else "test"


def explained(recipe: Recipe) -> tuple[list[str], str | None]:
    """The layers that STF explains and the head, of a network with any number of blocks."""
    layers, head = LAYERS[recipe.model]
    if any(recipe.layers):
        return list(recipe.layers), head
    if recipe.model in ("stf_gcn", "bagcn") and recipe.widths != (0,):
        layers = [f"block{len(recipe.widths) - before}" for before in (1, 0)]
    return layers, head


def build_network(
    recipe: Recipe, num_classes: int, num_persons: int, layout: SkeletonLayout, *, channels: int = 3
) -> nn.Module:
    """The network that a recipe names, for positions of 2 or 3 channels."""
    options: dict[str, Any] = {"in_channels": channels * len(recipe.stream.split("+")) + 1}
    options |= {
        name: sizes for name in ("widths", "strides") if (sizes := getattr(recipe, name)) != (0,)
    }
    if recipe.model == "stf_gcn":
        return STFGCN(num_classes, layout, dropout=recipe.dropout, **options)
    if recipe.model == "fg_stformer":
        return FGSTFormer(
            num_classes,
            layout,
            stages=recipe.stages,
            focal_joints=recipe.focal_joints,
            parts=recipe.parts,
            cross=recipe.joint_part_attention,
            attention=recipe.global_attention,
            convolution=recipe.dilated_convolution,
            shared_map=recipe.shared_map,
            dropout=recipe.dropout,
            **options,
        )
    if recipe.model == "bagcn":
        ways = {"focus": recipe.focusing, "context": recipe.context}
        return BAGCN(num_classes, layout, dropout=recipe.dropout, **ways, **options)
    stf = recipe.stf_arrangement if recipe.model == "stf_ms_g3d" else False
    return MSG3D(
        num_classes,
        layout,
        num_persons=num_persons,
        stf=stf,
        scales=recipe.scales,
        window_scales=recipe.window_scales,
        dropout=recipe.dropout,
        **options,
    )


TERMS = STFLoss().weights  # the paper's, where it has the term
BRANCHES = {
    "plain": (),
    "exploration": ("exploration",),
    "focus": ("divergence", "coherence", "adjacency"),
    "all": ("exploration", "divergence", "coherence", "adjacency"),
    "recommended": tuple(
        f"{term}={weight}" for term, weight in STFLoss.recommended().weights.items() if weight
    ),
}


def term_weights(branch: str) -> dict[str, float]:
    """The weight of every term of STFLoss in a branch: ``"exploration=0.3+coherence"`` sets one and
    keeps one.
    """
    weights = dict.fromkeys(TERMS, 0.0)
    for given in BRANCHES.get(branch, tuple(branch.split("+"))):
        term, _, weight = given.partition("=")
        if term not in TERMS:
            ways = f"{', '.join(BRANCHES)}, or some of {', '.join(TERMS)}, joined by +"
            hint = f"the names of branches stand alone; recommended is {'+'.join(BRANCHES['recommended'])}"
            raise ValueError(f"expected --branch to be {ways}, got {term!r}; {hint}")
        if not (weight or TERMS[term]):
            raise ValueError(
                f"expected --branch with a weight of {term}, such as {term}=0.3, got {given!r}"
            )
        try:
            weights[term] = float(weight) if weight else TERMS[term]
        except ValueError:
            raise ValueError(
                f"expected --branch with a weight such as {term}=0.3, got {given!r}"
            ) from None
    return weights


def build_loss(recipe: Recipe) -> STFLoss:
    """Cross-entropy and the terms of the recipe's branch."""
    classification = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    ways = {"norm": recipe.norm, "separation": recipe.separation}
    return STFLoss(**term_weights(recipe.branch), **ways, classification=classification)


def build_objective(
    recipe: Recipe, num_classes: int, num_persons: int, layout: SkeletonLayout, *, channels: int = 3
) -> STFObjective:
    """The network under the losses of the recipe's branch."""
    network = build_network(recipe, num_classes, num_persons, layout, channels=channels)
    layers, head = explained(recipe)
    return STFObjective(
        network,
        layers=layers,
        head=head,
        loss=build_loss(recipe),
        score=recipe.score,
        erasing=recipe.erasing,
    )


def augmentation(recipe: Recipe, layout: SkeletonLayout) -> Augment:
    """What training does to its clips; those that are repeated stay whole."""
    how = PREPARATIONS[recipe.preparation]
    in_time = {
        "crop": recipe.crop,
        "speed": recipe.speed,
        "test_crop": how.test_crop,
        "frames": recipe.frames,
    }
    return Augment(
        layout,
        rotation=recipe.turn,
        scale=recipe.stretch,
        shear=recipe.shear,
        flip=recipe.flip,
        joint_dropout=recipe.joint_dropout,
        **({} if how.repeats else in_time),
    )


def prepare(
    batch: Batch,
    recipe: Recipe,
    layout: SkeletonLayout,
    random: torch.Generator | None = None,
    *,
    mirror: bool = False,
    occlude: Callable[[Batch], Batch] | None = None,
) -> Tensor:
    """(N, C, T, V, M) as the network takes it: as the recipe's preparation has it, as streams with
    visibility.

    With ``random``, for training: as :func:`augmentation` shows it. With ``mirror`` the clips'
    mirror images, of the clips' own height, as training sees them. ``occlude`` changes the clips
    once they are centred and scaled.
    """
    how = PREPARATIONS[recipe.preparation]
    seen = batch.visibility
    if how.origin is not None and how.origin not in layout.joints:
        raise ValueError(
            f"expected a skeleton with the joint {how.origin!r} for --preparation {recipe.preparation}, "
            f"got {layout.name}; take view or paper"
        )
    joint = layout.center if how.origin is None else layout.index(how.origin)
    x = center(batch.x, joint, each_frame=how.each_frame, person=how.person, visibility=seen)
    if how.aligned:
        x = align_body(x, layout, visibility=seen)
    if how.heights:
        x = x / body_height(x, layout, visibility=seen)[:, None, None, None, None]
    batch = batch._replace(x=x)
    if occlude is not None:
        batch = occlude(batch)
    if mirror:
        batch = Augment(layout, flip=1.0)(batch, torch.Generator())
    x, lengths, _, seen, _ = augmentation(recipe, layout)(batch, random)
    if how.repeats:
        both = repeat_frames(add_visibility(x, seen), lengths, recipe.frames)
        x = both[:, :-1]
        seen = both[:, -1]
    return network_input(x, seen, recipe, layout)


def network_input(
    positions: Tensor, visibility: Tensor, recipe: Recipe, layout: SkeletonLayout
) -> Tensor:
    """The recipe's streams of prepared positions, with the visibility as the last channel."""
    streams = [
        make_stream(positions, name, layout, visibility=visibility)
        for name in recipe.stream.split("+")
    ]
    return add_visibility(torch.cat(streams, dim=1), visibility)
