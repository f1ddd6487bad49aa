"""Composable PyTorch layers and losses for skeleton-based action recognition."""

from .adjacency import (
    directed_adjacency,
    hop_distance,
    multi_scale_adjacency,
    normalize_adjacency,
    spatial_partition,
    window_adjacency,
)
from .attention import (
    DilatedTemporalAttention,
    JointPartAttention,
    SpatialAttention,
    position_codes,
)
from .augment import Augment, drop_joints, flip, rotate, scale, seeded_generator, shear
from .clips import Batch, Clip, SkeletonDataset, Split
from .datasets import open_dataset
from .feature_tap import FeatureTap
from .focal_joints import (
    FocalJoints,
    FocalJointSelection,
    PartEncoding,
    ScatterToJoints,
    scatter_to_joints,
)
from .focus import (
    class_score,
    grad_cam,
    linear_head_focus,
    mask_by_focus,
    min_max_normalize,
    resize_focus,
)
from .focus_diffusion import (
    AttentiveDiffusion,
    AttentiveFocus,
    FocusDiffusionBlock,
    LatentNode,
)
from .focus_metrics import (
    area_under_curve,
    class_overlap,
    deletion_curve,
    focus_average_precision,
    focus_coverage,
    focus_iou,
    insertion_curve,
    layer_coherence,
    pointing_game,
    relevance_mass,
)
from .focus_sanity import cascading_randomization, max_sensitivity
from .format_kinetics import read_kinetics
from .format_ntu import read_ntu
from .format_nw_ucla import read_nw_ucla
from .formats import ClipFile, FormatError, UnreadableFileError
from .graph_conv import (
    GraphConv,
    MultiScaleG3D,
    MultiScaleGraphConv,
    convolve_graph,
    convolve_windows,
)
from .guidance import allowed_joints, guidance_loss
from .layouts import COCO17, KINECT20, LAYOUTS, NTU25, NTU25_PYSKL, OPENPOSE18, SkeletonLayout
from .losses import STFLoss, adjacency_focus_loss, coherence_loss, divergence_loss, exploration_loss
from .objective import STFObjective, STFOutput
from .occlusion import (
    body_parts,
    drop_frames,
    hide_frames,
    hide_joints,
    hide_random_joints,
    jitter_joints,
    keep_beginning,
)
from .preparation import (
    add_visibility,
    align_body,
    body_height,
    center,
    fuse,
    make_stream,
    prepare_stf,
    repeat_frames,
    resample_frames,
)
from .stf import STFAdjacency, STFGraphConv
from .synthetic import SyntheticActions
from .temporal_context import TemporalContext, mask_padding
from .temporal_conv import MultiScaleTemporalConv, TemporalConv

__version__ = "0.1.0"

__all__ = [
    "COCO17",
    "KINECT20",
    "LAYOUTS",
    "NTU25",
    "NTU25_PYSKL",
    "OPENPOSE18",
    "AttentiveDiffusion",
    "AttentiveFocus",
    "Augment",
    "Batch",
    "Clip",
    "ClipFile",
    "DilatedTemporalAttention",
    "FeatureTap",
    "FocalJointSelection",
    "FocalJoints",
    "FocusDiffusionBlock",
    "FormatError",
    "GraphConv",
    "JointPartAttention",
    "LatentNode",
    "MultiScaleG3D",
    "MultiScaleGraphConv",
    "MultiScaleTemporalConv",
    "PartEncoding",
    "STFAdjacency",
    "STFGraphConv",
    "STFLoss",
    "STFObjective",
    "STFOutput",
    "ScatterToJoints",
    "SkeletonDataset",
    "SkeletonLayout",
    "SpatialAttention",
    "Split",
    "SyntheticActions",
    "TemporalContext",
    "TemporalConv",
    "UnreadableFileError",
    "add_visibility",
    "adjacency_focus_loss",
    "align_body",
    "allowed_joints",
    "area_under_curve",
    "body_height",
    "body_parts",
    "cascading_randomization",
    "center",
    "class_overlap",
    "class_score",
    "coherence_loss",
    "convolve_graph",
    "convolve_windows",
    "deletion_curve",
    "directed_adjacency",
    "divergence_loss",
    "drop_frames",
    "drop_joints",
    "exploration_loss",
    "flip",
    "focus_average_precision",
    "focus_coverage",
    "focus_iou",
    "fuse",
    "grad_cam",
    "guidance_loss",
    "hide_frames",
    "hide_joints",
    "hide_random_joints",
    "hop_distance",
    "insertion_curve",
    "jitter_joints",
    "keep_beginning",
    "layer_coherence",
    "linear_head_focus",
    "make_stream",
    "mask_by_focus",
    "mask_padding",
    "max_sensitivity",
    "min_max_normalize",
    "multi_scale_adjacency",
    "normalize_adjacency",
    "open_dataset",
    "pointing_game",
    "position_codes",
    "prepare_stf",
    "read_kinetics",
    "read_ntu",
    "read_nw_ucla",
    "relevance_mass",
    "repeat_frames",
    "resample_frames",
    "resize_focus",
    "rotate",
    "scale",
    "scatter_to_joints",
    "seeded_generator",
    "shear",
    "spatial_partition",
    "window_adjacency",
]
