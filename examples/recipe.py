"""The recipe of a training: settings and presets, the network it builds, the input it prepares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
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
    body_height,
    center,
    make_stream,
)
from skeleton_focus.focus import SCORES
from skeleton_focus.losses import FORMS, NORMS
from skeleton_focus.preparation import align_body, repeat_frames

# Add your own network here: a class called as Net(num_classes, layout, in_channels=..., **options),
# with its blocks in ``blocks`` and its last layer in ``fc``; with other names, extend `explained`.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "stf_gcn": STFGCN,
    "ms_g3d": MSG3D,
    "stf_ms_g3d": partial(MSG3D, stf="modules"),
    "fg_stformer": FGSTFormer,
    "bagcn": BAGCN,
}
WITH_STF_ADJACENCY = ("stf_gcn", "stf_ms_g3d")  # whose embedding L_G compares with the focus


class Preparation(NamedTuple):
    """The preparation of every clip before augmentation and network."""

    origin: str | None = None  # joint that positions are measured from; None: the layout's centre
    each_frame: bool = False  # subtract the origin of each frame; False: once, which keeps travel
    person: int | None = None  # whose origin serves all persons; None: each person's own
    aligned: bool = False  # rotate the first person's spine to z and shoulders to x
    heights: bool = True  # divide by the body height
    repeats: bool = False  # repeat the clip to T frames; False: resample it
    test_crop: float = 1.0  # middle share of a clip that is used for testing
    box: bool = False  # scale each clip and each axis to [-1, 1], after the rotation
    sampling: str = "interpolate"  # or random: draw frames; evenly spaced ones for testing


PREPARATIONS = {
    "view": Preparation(),
    "paper": Preparation(each_frame=True, repeats=True),  # STF
    "ctrgcn": Preparation("spine", heights=False, test_crop=0.95),  # FG-STFormer
    "dgnn": Preparation(  # BAGCN
        "spine", each_frame=True, person=0, aligned=True, heights=False, repeats=True
    ),
    # CTR-GCN on NW-UCLA. The box removes origin and scale, so any skeleton's centre will do.
    "box": Preparation(heights=False, box=True, sampling="random"),
}
IN_TIME = ("crop", "speed", "mask", "mask_joints", "mask_frames", "sampling")  # need resampling


def setting(default: Any, meaning: str, **how: Any) -> Any:
    """A field of the recipe: default, what --help says, and its kind, choices or range."""
    return field(default=default, metadata={"help": meaning, **how})


@dataclass
class Recipe:
    """Everything a run needs besides its data."""

    model: str = setting("stf_gcn", "network", choices=NETWORKS)
    network: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "options of the network's class, such as widths=24,24,48 strides=1,2,1"},
    )
    stream: str = setting(
        "joint", "joint, bone, joint_motion or bone_motion; join several with + as channels"
    )
    preparation: str = setting(
        "view",
        "view: resample clips to --frames; paper: centre each frame, repeat clips; "
        "ctrgcn, dgnn: as in those papers; box: scale each axis of a clip to -1..1 and draw "
        "frames, as CTR-GCN's code does with NW-UCLA",
        choices=PREPARATIONS,
    )
    frames: int = setting(64, "number of frames T of every prepared clip", low=1)
    augment: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "options of Augment for training clips, such as rotation=15,60,0 crop=0.7"
        },
    )
    branch: str = setting(
        "plain",
        "plain, focus, exploration, all, recommended; or terms of STFLoss joined by +, with their "
        "weights if not the default, such as exploration=0.3+coherence",
    )
    stf_after: float = setting(
        0.0,
        "share of the epochs with cross-entropy alone, before STF terms and erasing are added; 0 "
        "with guidance in --branch, unless it is given",
        low=0,
        high=1,
    )
    layers: tuple[str, ...] = setting(
        (),
        "explained layers, from low to high, such as blocks.2 blocks.5: the losses act on the "
        "focus of the last one, L_c compares the last two; default: the last two blocks",
        kind=str,
    )
    score: str = setting("logit", "class score whose gradient gives the focus", choices=SCORES)
    norm: str = setting(
        "rms",
        "norm in L_d, L_c and L_G: rms, or l2 as in the paper, which grows with the map",
        choices=NORMS,
    )
    separation: str = setting(
        "distance", "L_d as the distance of two maps (the paper) or their overlap", choices=FORMS
    )
    erasing: float = setting(
        0.0,
        "probability of hiding joints of a training clip, preferably those of high focus of the "
        "labelled class",
        low=0,
        high=1,
    )
    guide: str = setting(
        "", "with guidance in --branch: JSON file of the joints or parts allowed for each class"
    )
    epochs: int = setting(60, "number of training epochs", low=1)
    batch: int = setting(32, "batch size per device", low=1)
    lr: float = setting(
        0.1,
        "highest learning rate of SGD with Nesterov momentum 0.9, in one cycle or, with --decay, "
        "from the start",
        low=1e-9,
        high=99,
    )
    cycle: float = setting(
        1.0,
        "share of the cycle to run; below 1 the learning rate does not reach 0",
        low=0.1,
        high=1,
    )
    decay: tuple[int, ...] = setting(
        (), "instead of one cycle: divide the learning rate by 10 after these epochs", kind=int
    )
    warmup: int = setting(0, "with --decay: epochs of linear learning-rate warm-up", low=0)
    weight_decay: float = setting(
        5e-4, "weight decay of weights with two or more axes", low=0, high=1
    )
    label_smoothing: float = setting(0.0, "label smoothing of the cross-entropy", low=0, high=1)
    ema: float = setting(
        0.0,
        "decay of the moving average of the weights, lowered in a short run; above 0, the averaged "
        "weights are tested",
        low=0,
        high=1,
    )
    start_from: str = setting("", "folder of a finished run to take the initial weights from")
    freeze: bool = setting(
        False,
        "with --start-from and --branch plain: freeze the network and train a new last layer, "
        "for any classes",
    )
    hold_out: tuple[str, ...] = setting(
        (),
        "hold out training clips with one of these texts in their name, such as _s05_, to choose "
        "the best epoch",
        kind=str,
    )
    share: float = setting(1.0, "random share of the training clips to use", low=1e-9, high=1)
    draw: int = setting(1, "random seed of --share", low=0)
    clips: int = setting(1200, "number of generated training clips, without --data", low=4)
    shortcut: float = setting(
        0.0,
        "share of the generated clips with a motion that reveals the class (in test clips, that "
        "of another class)",
        low=0,
        high=1,
    )
    seed: int = setting(1, "random seed of weights, order of clips and augmentation", low=0)

    def __post_init__(self) -> None:
        # A copy: a run adapts its recipe to its data, and a preset belongs to all runs.
        self.network, self.augment = dict(self.network), dict(self.augment)
        for option in fields(self):
            low = option.metadata.get("low", float("-inf"))
            high = option.metadata.get("high", float("inf"))
            value = getattr(self, option.name)
            if ("low" in option.metadata) and not low <= value <= high:
                wanted = f"in {low}..{high}" if "high" in option.metadata else f"of at least {low}"
                raise ValueError(f"expected {option.name} {wanted}, got {value}")

    @property
    def stf_start(self) -> int:
        """The first epoch with the STF terms; at least the last epoch has them."""
        return min(int(self.stf_after * self.epochs), self.epochs - 1)


def with_tuples(value: Any) -> Any:
    """Undo what JSON does to tuples."""
    if isinstance(value, dict):
        return {name: with_tuples(part) for name, part in value.items()}
    return tuple(value) if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------------
# Presets; options of the command line override them. `train.py --help` prints them merged.

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "model": "ms_g3d",
        "preparation": "paper",
        "frames": 300,
        "lr": 0.05,
        "epochs": 55,
        "decay": (20, 35, 45),
    },
    "nw_ucla": {
        "stream": "joint+bone+joint_motion",
        "network": {
            "widths": (48, 48, 96, 96, 192, 192),
            "strides": (2, 1, 2, 1, 1, 1),
            "dropout": 0.3,
        },
        "frames": 32,
        "epochs": 42,
        "batch": 16,
        "lr": 0.05,
        "label_smoothing": 0.1,
        "ema": 0.995,
        "augment": {"rotation": (30.0, 75.0, 15.0), "scale": 0.2, "crop": 0.5},
        "cycle": 0.7,
        "stf_after": 0.9,
    },
    "synthetic": {
        "stream": "joint+joint_motion",
        "network": {"widths": (24, 24, 48, 48, 64, 64), "strides": (2, 1, 2, 1, 1, 1)},
        "frames": 32,
        "epochs": 10,
        "augment": {"rotation": (0.0, 30.0, 0.0), "crop": 0.9},
        "stf_after": 0.7,
    },
}

for data, widths in (("nw_ucla", (32, 64, 128)), ("synthetic", (12, 24, 48))):
    PRESETS[f"{data}_ms_g3d"] = {
        **PRESETS[data],
        "model": "ms_g3d",
        "network": {"widths": widths, "strides": (2, 1, 2)},
    }

# STF from a trained MS-G3D, at a fiftieth of its rate as in the paper; needs start_from.
FROM_TRAINED: dict[str, Any] = {
    "model": "stf_ms_g3d",
    "branch": "focus",
    "lr": 0.001,
    "cycle": 1.0,
    "stf_after": 0.0,
}
PRESETS["paper_stf"] = {**PRESETS["paper"], **FROM_TRAINED}
PRESETS["nw_ucla_stf_ms_g3d"] = {**PRESETS["nw_ucla_ms_g3d"], **FROM_TRAINED, "epochs": 10}
PRESETS["synthetic_stf_ms_g3d"] = {**PRESETS["synthetic_ms_g3d"], **FROM_TRAINED, "epochs": 3}

# MS-G3D and STF on the papers' other data sets; as on NTU 60, ten epochs follow the last decay.
PRESETS["paper_ntu120"] = {**PRESETS["paper"], "decay": (20, 35, 50), "epochs": 60}
PRESETS["paper_stf_ntu120"] = {**PRESETS["paper_ntu120"], **FROM_TRAINED, "lr": 5e-4}
PRESETS["paper_kinetics"] = {
    **PRESETS["paper"],
    "decay": (25, 40, 55),
    "epochs": 65,
    "network": {"scales": 8, "window_scales": 8},
}
PRESETS["paper_stf_kinetics"] = {**PRESETS["paper_kinetics"], **FROM_TRAINED, "lr": 1e-4}

# Fine-tune a trained STF-GCN with weights large enough to have an effect, at half its rate
# (docs/focus_quality.md); needs start_from.
FOCUS: dict[str, Any] = {
    "branch": "recommended",
    "erasing": 0.5,
    "layers": ("blocks.2", "blocks.5"),
    "epochs": 10,
    "cycle": 1.0,
    "ema": 0.0,
    "stf_after": 0.0,
}
PRESETS["nw_ucla_focus"] = {**PRESETS["nw_ucla"], **FOCUS, "lr": 0.025}
PRESETS["synthetic_focus"] = {**PRESETS["synthetic"], **FOCUS, "lr": 0.05}

# Networks that learn more slowly: milder augmentation, and a longer schedule that ends at 0.
SLOW: dict[str, Any] = {
    "augment": {"rotation": (15.0, 60.0, 0.0), "scale": 0.2, "crop": 0.7},
    "lr": 0.1,
    "cycle": 1.0,
    "epochs": 60,
}

# Only paper_fg_stformer has the paper's widths.
FG_STFORMER: dict[str, Any] = {"model": "fg_stformer", "stream": "joint"}
PRESETS["paper_fg_stformer"] = {
    **FG_STFORMER,
    "preparation": "ctrgcn",
    "augment": {"rotation": (17.1887, 17.1887, 17.1887), "crop": 0.5},  # 0.3 radians
    "frames": 128,
    "lr": 0.01,
    "epochs": 80,
    "decay": (50, 70),
    "warmup": 5,
}
PRESETS["nw_ucla_fg_stformer"] = {
    **PRESETS["nw_ucla"],
    **FG_STFORMER,
    **SLOW,
    "network": {
        "widths": (32, 32, 64, 64, 128, 128, 128, 128),
        "strides": (2, 1, 2, 1, 1, 1, 1, 1),
    },
}
PRESETS["synthetic_fg_stformer"] = {
    **PRESETS["synthetic"],
    **FG_STFORMER,
    "network": {"widths": (24, 24, 48, 48), "strides": (1, 2, 1, 1), "stages": (3, 1)},
}

# BAGCN's spatial stream; its motion stream is joint_motion+bone_motion.
BAGCN_SPATIAL: dict[str, Any] = {"model": "bagcn", "stream": "joint+bone"}
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
    **SLOW,
    "network": {
        "widths": (32, 32, 32, 64, 64, 64, 128, 128, 128),
        "strides": (2, 1, 1, 2, 1, 1, 1, 1, 1),
    },
}
PRESETS["synthetic_bagcn"] = {
    **PRESETS["synthetic"],
    **BAGCN_SPATIAL,
    "network": {
        "widths": (16, 16, 16, 32, 32, 32, 64, 64, 64),
        "strides": (2, 1, 1, 2, 1, 1, 1, 1, 1),
    },
}

# The recipe and the budget of most public code for NW-UCLA: 65 epochs of five passes each over the
# training clips. --epochs counts passes. --stream names the other streams.
BUDGET: dict[str, Any] = {
    "stream": "joint",
    "preparation": "box",
    "frames": 52,
    "augment": {"rotation": (60.0, 60.0, 0.0), "rotation_order": "yxz"},
    "epochs": 325,
    "decay": (250,),
    "warmup": 25,
    "batch": 16,
    "lr": 0.1,
    "weight_decay": 1e-4,
}
# With SkateFormer's masks, label smoothing, a moving average of the weights and fewer passes.
REGULARISED: dict[str, Any] = {
    **BUDGET,
    "augment": {**BUDGET["augment"], "mask": 0.5, "axis_dropout": 0.5},
    "epochs": 150,
    "decay": (120,),
    "label_smoothing": 0.1,
    "ema": 0.999,
}
for model in ("stf_gcn", "ms_g3d", "fg_stformer", "bagcn"):
    ending = "" if model == "stf_gcn" else f"_{model}"
    network = PRESETS[f"nw_ucla{ending}"]["network"]
    for budget in (BUDGET, REGULARISED):
        name = f"nw_ucla_{budget['epochs']}{ending}"
        PRESETS[name] = {**budget, "model": model, "network": network}
        if model == "fg_stformer":  # at 0.1 its loss rises again after the warm-up
            PRESETS[name]["lr"] = 0.03
# Fine-tune a run of nw_ucla_150, as nw_ucla_focus does with one of nw_ucla.
PRESETS["nw_ucla_150_focus"] = {
    **PRESETS["nw_ucla_150"],
    **FOCUS,
    "lr": 0.05,
    "decay": (),
    "warmup": 0,
}

# ------------------------------------------------------------------------------------------------
# What a recipe builds.


def options_of(make: Callable[..., Any]) -> dict[str, Any]:
    """The options of a class that the command line may set, with their defaults."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("in_channels", "num_persons")
    }


def with_options(make: Callable[..., Any], flag: str, options: Mapping[str, Any]) -> Any:
    """Bind options of the command line to ``make``; an unknown one is a ValueError."""
    defaults = options_of(make)
    bound = dict(options)
    for name, value in options.items():
        if name not in defaults:
            raise ValueError(f"expected {flag} with some of {', '.join(defaults)}, got {name}")
        if isinstance(defaults[name], tuple) and not isinstance(value, tuple | list):
            bound[name] = (value,)  # widths=24, for a network with one block
    return partial(make, **bound)


def build_network(
    recipe: Recipe, num_classes: int, num_persons: int, layout: SkeletonLayout, *, channels: int = 3
) -> nn.Module:
    """Build the recipe's network, for positions of 2 or 3 channels."""
    make = with_options(NETWORKS[recipe.model], "--network", recipe.network)
    sizes = {"in_channels": channels * len(recipe.stream.split("+")) + 1}  # and the visibility
    if "num_persons" in inspect.signature(make).parameters:
        sizes["num_persons"] = num_persons
    try:
        network: nn.Module = make(num_classes, layout, **sizes)
    except TypeError as error:
        raise ValueError(
            f"expected --network with values that {recipe.model} takes: {error}"
        ) from None
    return network


def explained(recipe: Recipe, network: nn.Module) -> tuple[list[str], str | None]:
    """Return the layers that STF explains and, if the focus has a closed form there, the head."""
    if recipe.model == "fg_stformer":
        return list(recipe.layers) or ["stage1", "on_joints"], None
    names = [f"blocks.{i}" for i in range(len(network.get_submodule("blocks")))]  # type: ignore[arg-type]
    return list(recipe.layers) or names[-2:], "fc"


TERMS = STFLoss().weights  # the paper's weights of the paper's terms
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
    """Parse a branch, such as ``"exploration=0.3+coherence"``, to the weight of every term."""
    weights = dict.fromkeys(TERMS, 0.0)
    for given in BRANCHES.get(branch, tuple(branch.split("+"))):
        term, _, weight = given.partition("=")
        if term not in TERMS:
            ways = f"{', '.join(BRANCHES)}, or some of {', '.join(TERMS)}, joined by +"
            hint = (
                f"a branch's name stands alone; recommended is {'+'.join(BRANCHES['recommended'])}"
            )
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
    """Build cross-entropy and the terms of the recipe's branch."""
    return STFLoss(
        **term_weights(recipe.branch),
        norm=recipe.norm,
        separation=recipe.separation,
        classification=nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing),
    )


def build_objective(
    recipe: Recipe, num_classes: int, num_persons: int, layout: SkeletonLayout, *, channels: int = 3
) -> STFObjective:
    """Build the network under the losses of the recipe's branch."""
    network = build_network(recipe, num_classes, num_persons, layout, channels=channels)
    layers, head = explained(recipe, network)
    return STFObjective(
        network,
        layers=layers,
        head=head,
        loss=build_loss(recipe),
        score=recipe.score,
        erasing=recipe.erasing,
    )


# ------------------------------------------------------------------------------------------------
# Input of the network.


def sampling_in_time(recipe: Recipe) -> dict[str, Any]:
    """The options of Augment that place a test clip's frames in time, unless it is repeated."""
    how = PREPARATIONS[recipe.preparation]
    sampling = recipe.augment.get("sampling", how.sampling)
    return {"frames": recipe.frames, "test_crop": how.test_crop, "sampling": sampling}


def augmentation(recipe: Recipe, layout: SkeletonLayout) -> Augment:
    """Build the augmentation, which also resamples every clip to the recipe's frames.

    A preparation that repeats clips keeps them whole.
    """
    how = PREPARATIONS[recipe.preparation]
    options = {"box": how.box, **recipe.augment}
    if how.repeats:
        options = {name: options[name] for name in options if name not in IN_TIME}
    else:
        options |= sampling_in_time(recipe)
    augment: Augment = with_options(Augment, "--augment", options)(layout)
    return augment


def prepare(
    batch: Batch,
    recipe: Recipe,
    layout: SkeletonLayout,
    random: torch.Generator | None = None,
    *,
    mirror: bool = False,
    occlude: Callable[[Batch], Batch] | None = None,
) -> Tensor:
    """Prepare clips for the network: (N, C, T, V, M), the recipe's streams and the visibility.

    With ``random``, for training, the clips are augmented by :func:`augmentation`. ``mirror`` takes
    the clips' mirror images. ``occlude`` changes the clips after they are centred and scaled; the
    box of ``--preparation box`` is found afterwards.
    """
    how = PREPARATIONS[recipe.preparation]
    if how.origin is not None and how.origin not in layout.joints:
        raise ValueError(
            f"expected a skeleton with the joint {how.origin!r} for --preparation "
            f"{recipe.preparation}, got {layout.name}; take view or paper"
        )
    seen = batch.visibility
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
        x, seen = both[:, :-1], both[:, -1]
    return network_input(x, seen, recipe, layout)


def network_input(
    positions: Tensor, visibility: Tensor, recipe: Recipe, layout: SkeletonLayout
) -> Tensor:
    """Make the recipe's streams of prepared positions, with the visibility as the last channel."""
    streams = [
        make_stream(positions, name, layout, visibility=visibility)
        for name in recipe.stream.split("+")
    ]
    return add_visibility(torch.cat(streams, dim=1), visibility)
