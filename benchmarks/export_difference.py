"""Compare onnxruntime with torch for each published network.

The networks are exported with dynamic batch size and T.

    python benchmarks/export_difference.py

The weights are random and nonzero; the test clips differ from the exported clip in batch size and
T.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import onnxruntime
import torch
from torch import nn
from torch.export import Dim
from torch.export._patches import register_lstm_while_loop_decomposition

from skeleton_focus import NTU25

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from bagcn import BAGCN
from fg_stformer import FGSTFormer
from ms_g3d import MSG3D
from stf_gcn import STFGCN

NETWORKS = {
    "STF-GCN": lambda: STFGCN(60, NTU25, in_channels=3),
    "FG-STFormer": lambda: FGSTFormer(60, NTU25),
    "BAGCN": lambda: BAGCN(60, NTU25, in_channels=3),
    "MS-G3D with STF": lambda: MSG3D(60, NTU25, stf=True),
}
SIZES = [(1, 64), (3, 51), (2, 128)]


def awake(network: nn.Module) -> nn.Module:
    """Put small random numbers in every parameter that starts at zero; switch to evaluation."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return network.eval()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print("| network | largest logit | largest difference |\n|---|---|---|")
    for name, build in NETWORKS.items():
        torch.manual_seed(0)
        network = awake(build())
        x = torch.randn(2, 3, 32, 25, 2)
        with register_lstm_while_loop_decomposition(), tempfile.TemporaryDirectory() as folder:
            program = torch.export.export(
                network, (x,), dynamic_shapes=({0: Dim.DYNAMIC, 2: Dim.DYNAMIC},)
            )
            torch.onnx.export(program, dynamo=True, verbose=False).save(f"{folder}/network.onnx")
            session = onnxruntime.InferenceSession(f"{folder}/network.onnx")
        largest = difference = 0.0
        for n, t in SIZES:
            clip = torch.randn(n, 3, t, 25, 2)
            with torch.no_grad():
                logits = network(clip)
            (got,) = session.run(None, {"x": clip.numpy()})
            largest = max(largest, logits.abs().max().item())
            difference = max(difference, (logits - torch.from_numpy(got)).abs().max().item())
        print(f"| {name} | {largest:.2f} | {difference:.1e} |", flush=True)
