"""Test each layer and network as an ExportedProgram and in onnxruntime, at other sizes.

The batches and lengths are not those that it was exported with.
"""

from __future__ import annotations

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
from layer_tools import filled, parts
from ms_g3d import MSG3D
from stf_gcn import STFGCN
from test_contract import BODY, CASES, cast
from torch import Tensor, nn
from torch.export import Dim
from torch.export._patches import register_lstm_while_loop_decomposition

TORCH_ITSELF = [  # what it warns of while it exports, most of it about its own code
    ".isinstance.treespec, LeafSpec.. is deprecated:FutureWarning",
    "_check_is_size will be removed:FutureWarning",
    "The tensor attributes? .*_flat_weights:UserWarning",
    "The .grad attribute of a Tensor that is not a leaf:UserWarning",
]
pytestmark = [pytest.mark.filterwarnings(f"ignore:{warning}") for warning in TORCH_ITSELF]
pytestmark.append(pytest.mark.no_cover)  # a tracer doubles the time of torch's own tracing

V = BODY.num_joints
EXPORTED = (3, 9)  # clips and frames
OTHERS = [(2, 5), (5, 16), (1, 12), (4, 7)]  # fewer and more of both, odd and even

Inputs = Callable[[int, int], tuple[Tensor, ...]]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "STFGCN": lambda: STFGCN(4, BODY, in_channels=3, widths=(6, 8, 12), strides=(1, 2, 2)),
    "FGSTFormer": lambda: FGSTFormer(
        4, BODY, widths=(6, 8), strides=(2, 2), stages=(1, 1), focal_joints=3
    ),
    "BAGCN": lambda: BAGCN(4, BODY, in_channels=3, widths=(8, 12), strides=(1, 2)),
    "MSG3D": lambda: MSG3D(4, BODY, widths=(6, 6, 6), scales=3, window_scales=2, stf=True),
}
PAGE = (Path(__file__).parents[1] / "docs" / "export.md").read_text()


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


@pytest.mark.parametrize("name", CASES)
def test_a_layer(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    layer = filled(case.build()).float()

    def inputs(n: int, t: int) -> tuple[Tensor, ...]:
        return tuple(cast(case.draw(n, t), torch.float32))

    given = inputs(*EXPORTED)
    changing = tuple(
        {axis: Dim.DYNAMIC for axis, size in enumerate(axes) if size in ("N", "T")}
        for axes in case.inputs.values()
    )
    with register_lstm_while_loop_decomposition():
        program = torch.export.export(layer, given, dynamic_shapes=changing)
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
    networks, _ = PAGE.split("## A run of the programs")  # that code runs in test_predict.py
    for block in re.findall(r"```python\n(.*?)```", networks, re.DOTALL):
        exec(block, scope)
    assert scope["logits"].shape == (1, 4)
    check(network, lambda n, t: (torch.randn(n, 3, t, V, 2),), scope["program"], scope["session"])
