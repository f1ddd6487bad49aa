"""Composable PyTorch layers and losses for skeleton-based action recognition."""

from .adjacency import (
    directed_adjacency,
    multi_scale_adjacency,
    spatial_partition,
    window_adjacency,
)
from .attention import DilatedTemporalAttention, JointPartAttention, SpatialAttention
from .augment import Augment, seeded_generator
from .clips import Batch, SkeletonDataset, Split
from .datasets import open_clips, open_dataset
from .focal_joints import FocalJointSelection, PartEncoding, ScatterToJoints
from .focus import grad_cam, min_max_normalize
from .focus_diffusion import FocusDiffusionBlock
from .graph_conv import GraphConv, MultiScaleG3D, MultiScaleGraphConv
from .guidance import allowed_joints, guidance_loss
from .layouts import (
    COCO17,
    KINECT20,
    LAYOUTS,
    NTU25,
    OPENPOSE18,
    SkeletonLayout,
    load_layout,
)
from .losses import STFLoss, adjacency_focus_loss, coherence_loss, divergence_loss, exploration_loss
from .objective import STFObjective
from .preparation import (
    add_visibility,
    body_height,
    center,
    convert_layout,
    fuse,
    make_stream,
    prepare_stf,
    resample_frames,
)
from .pretrained import Pretrained, load_pretrained, pretrained_names
from .stf import STFAdjacency, STFGraphConv
from .synthetic import SyntheticActions
from .temporal_context import TemporalContext, mask_padding
from .temporal_conv import MultiScaleTemporalConv, TemporalConv

__version__ = "0.2.0"

__all__ = [
    "COCO17",
    "KINECT20",
    "LAYOUTS",
    "NTU25",
    "OPENPOSE18",
    "Augment",
    "Batch",
    "DilatedTemporalAttention",
    "FocalJointSelection",
    "FocusDiffusionBlock",
    "GraphConv",
    "JointPartAttention",
    "MultiScaleG3D",
    "MultiScaleGraphConv",
    "MultiScaleTemporalConv",
    "PartEncoding",
    "Pretrained",
    "STFAdjacency",
    "STFGraphConv",
    "STFLoss",
    "STFObjective",
    "ScatterToJoints",
    "SkeletonDataset",
    "SkeletonLayout",
    "SpatialAttention",
    "Split",
    "SyntheticActions",
    "TemporalContext",
    "TemporalConv",
    "add_visibility",
    "adjacency_focus_loss",
    "allowed_joints",
    "body_height",
    "center",
    "coherence_loss",
    "convert_layout",
    "directed_adjacency",
    "divergence_loss",
    "exploration_loss",
    "fuse",
    "grad_cam",
    "guidance_loss",
    "load_layout",
    "load_pretrained",
    "make_stream",
    "mask_padding",
    "min_max_normalize",
    "multi_scale_adjacency",
    "open_clips",
    "open_dataset",
    "prepare_stf",
    "pretrained_names",
    "resample_frames",
    "seeded_generator",
    "spatial_partition",
    "window_adjacency",
]
