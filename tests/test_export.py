"""Test each layer and network as an ExportedProgram and in onnxruntime, at other sizes.

The batches and lengths are not those that it was exported with.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from bagcn import BAGCN
from fg_stformer import FGSTFormer
from layer_tools import filled
from ms_g3d import MSG3D
from stf_gcn import STFGCN
from torch import Tensor, nn
from torch.export import Dim
from torch.export._patches import register_lstm_while_loop_decomposition

import skeleton_focus
from skeleton_focus import (
    DilatedTemporalAttention,
    FocalJointSelection,
    FocusDiffusionBlock,
    GraphConv,
    JointPartAttention,
    MultiScaleG3D,
    MultiScaleGraphConv,
    MultiScaleTemporalConv,
    PartEncoding,
    ScatterToJoints,
    SkeletonLayout,
    SpatialAttention,
    STFAdjacency,
    STFGraphConv,
    TemporalContext,
    TemporalConv,
    directed_adjacency,
    multi_scale_adjacency,
    window_adjacency,
)
from skeleton_focus.focus_diffusion import AttentiveDiffusion, AttentiveFocus

TORCH_ITSELF = [  # what it warns of while it exports, most of it about its own code
    ".isinstance.treespec, LeafSpec.. is deprecated:FutureWarning",
    "_check_is_size will be removed:FutureWarning",
    "The tensor attributes? .*_flat_weights:UserWarning",
    "The .grad attribute of a Tensor that is not a leaf:UserWarning",
]
pytestmark = [pytest.mark.filterwarnings(f"ignore:{warning}") for warning in TORCH_ITSELF]
pytestmark.append(pytest.mark.no_cover)  # a tracer doubles the time of torch's own tracing

BODY = SkeletonLayout.from_bones(
    [(0, 1), (1, 2), (1, 3), (3, 4)], center=1, parts={"arm": [0, 1], "leg": [2, 3, 4]}
)
V = BODY.num_joints
A = multi_scale_adjacency(BODY, 3)
WINDOWS = window_adjacency(BODY, 3, 2)
OUT_AND_IN = [directed_adjacency(BODY, direction) for direction in ("outward", "inward")]
EXPORTED = (3, 9)  # clips and frames
OTHERS = [(2, 5), (5, 16), (1, 12), (4, 7)]  # fewer and more of both, odd and even

Inputs = Callable[[int, int], tuple[Tensor, ...]]


def maps(*sizes: tuple[int, int]) -> Inputs:
    """Feature maps (N, C, T, V) of these C and V."""
    return lambda n, t: tuple(torch.randn(n, c, t, v) for c, v in sizes)


def kept(n: int, t: int) -> tuple[Tensor, Tensor]:
    """Three slots of each frame, and their joints."""
    return torch.randn(n, 6, t, 3), torch.randint(V, (n, t, 3))


X2, X3, X4, X6 = (maps((channels, V)) for channels in (2, 3, 4, 6))
LAYERS: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "graph, aggregated first": (
        lambda: GraphConv(2, 4, A, learn_adjacency=True, edge_importance=True),
        X2,
    ),
    "graph, mixed first": (lambda: GraphConv(4, 2, A), X4),
    "graph, many subsets": (lambda: GraphConv(4, 2, A.repeat(2, 1, 1)), X4),
    "multi-scale graph": (lambda: MultiScaleGraphConv(2, 4, A), X2),
    "windows, aggregated first": (lambda: MultiScaleG3D(2, 4, WINDOWS, 3, hidden_channels=8), X2),
    "windows, mixed first, stride": (
        lambda: MultiScaleG3D(6, 4, WINDOWS, 3, stride=2, hidden_channels=2),
        X6,
    ),
    "stf adjacency": (lambda: STFAdjacency(4, 2, V), X4),
    "stf graph, aggregated first": (lambda: STFGraphConv(2, 4, A), X2),
    "stf graph, mixed first": (lambda: STFGraphConv(4, 2, A), X4),
    "temporal": (lambda: TemporalConv(2, 4, stride=2), X2),
    "multi-scale temporal": (lambda: MultiScaleTemporalConv(2, 8, stride=2), X2),
    "spatial attention": (lambda: SpatialAttention(6, V), X6),
    "spatial attention of some joints": (lambda: SpatialAttention(6, V), kept),
    "spatial attention, a map for each head": (
        lambda: SpatialAttention(6, V, shared_map="per_head"),
        X6,
    ),
    "spatial attention of some joints, a map for each head": (
        lambda: SpatialAttention(6, V, shared_map="per_head"),
        kept,
    ),
    "joints and parts": (lambda: JointPartAttention(6), maps((6, 4), (6, 3))),
    "temporal attention": (lambda: DilatedTemporalAttention(4, 4), X4),
    "temporal attention, stride": (lambda: DilatedTemporalAttention(4, 6, stride=2), X4),
    "focal joints": (lambda: FocalJointSelection(4, 3), X4),
    "focal joints by score": (lambda: FocalJointSelection(4, 3, gate="none", order="score"), X4),
    "scatter": (lambda: ScatterToJoints(V), kept),
    "parts": (lambda: PartEncoding(4, 6, BODY.parts.values()), X4),
    "focus": (lambda: AttentiveFocus(4), X4),
    "focus, softmax": (lambda: AttentiveFocus(4, normalize="softmax"), X4),
    "focus, mean": (lambda: AttentiveFocus(4, focus="mean"), X4),
    "focus, max": (lambda: AttentiveFocus(4, focus="max"), X4),
    "context": (lambda: TemporalContext(4, context_channels=6), X4),
    "context, forward": (lambda: TemporalContext(4, context_channels=6, direction="forward"), X4),
    "diffusion": (
        lambda: AttentiveDiffusion(4, 6),
        lambda n, t: (*maps((4, V), (6, 1))(n, t), torch.rand(n, t, V)),
    ),
    "block": (lambda: FocusDiffusionBlock(3, 8, *OUT_AND_IN, context_channels=6), X3),
}
NO_LAYERS = {"STFLoss", "STFObjective", "Augment"}  # they train a network and do not run in it
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "STFGCN": lambda: STFGCN(4, BODY, in_channels=3, widths=(6, 8, 12), strides=(1, 2, 2)),
    "FGSTFormer": lambda: FGSTFormer(
        4, BODY, widths=(6, 8), strides=(2, 2), stages=(1, 1), focal_joints=3
    ),
    "BAGCN": lambda: BAGCN(4, BODY, in_channels=3, widths=(8, 12), strides=(1, 2)),
    "MSG3D": lambda: MSG3D(4, BODY, widths=(6, 6, 6), scales=3, window_scales=2, stf=True),
}
PAGE = (Path(__file__).parents[1] / "docs" / "export.md").read_text()


def parts(output: Any) -> list[Tensor]:
    """The tensors that a layer puts out."""
    return [output] if isinstance(output, Tensor) else list(output)


def check(
    layer: nn.Module, inputs: Inputs, program: torch.export.ExportedProgram, session: Any
) -> None:
    """Torch, the exported program and onnxruntime agree where they were not exported."""
    names = [entry.name for entry in session.get_inputs()]
    exported = program.module()
    for n, t in OTHERS:
        given = inputs(n, t)
        with torch.no_grad():
            expected = parts(layer(*given))
            got = parts(exported(*given))
        ran = session.run(None, dict(zip(names, (x.numpy() for x in given), strict=True)))
        assert max(part.abs().max() for part in expected) > 0.01
        for one, two, three in zip(expected, got, ran, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(three, one, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name: str) -> None:
    torch.manual_seed(0)
    build, inputs = LAYERS[name]
    layer = filled(build()).float()
    given = inputs(*EXPORTED)
    changing = []
    for x, y in zip(given, inputs(*OTHERS[0]), strict=True):
        sizes = enumerate(zip(x.shape, y.shape, strict=True))
        changing.append({axis: Dim.DYNAMIC for axis, (size, other) in sizes if size != other})
    with register_lstm_while_loop_decomposition():
        program = torch.export.export(layer, given, dynamic_shapes=tuple(changing))
        model = torch.onnx.export(program, dynamo=True).model_proto
    check(layer, inputs, program, onnxruntime.InferenceSession(model.SerializeToString()))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_by_the_code_of_the_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    network = filled(NETWORKS[name](), scale=0.3).float()
    scope: dict[str, Any] = {
        "network": network,
        "x": torch.randn(EXPORTED[0], 3, EXPORTED[1], V, 2),
    }
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, scope)
    assert scope["logits"].shape == (1, 4)
    check(network, lambda n, t: (torch.randn(n, 3, t, V, 2),), scope["program"], scope["session"])


def test_the_table_holds_every_layer() -> None:
    public = {name: getattr(skeleton_focus, name) for name in skeleton_focus.__all__}
    modules = {
        name
        for name, thing in public.items()
        if inspect.isclass(thing) and issubclass(thing, nn.Module)
    }
    assert modules == NO_LAYERS | {type(build()).__name__ for build, _ in LAYERS.values()}
