"""Export the network of a finished run to ONNX, which runs without PyTorch.

    python examples/export.py RUN network.onnx

The file takes clips that are prepared as in training, (N, C, T, V, M) with any N and T, and returns
logits (N, classes). It holds the classes' names and the recipe as metadata. With onnxruntime
installed, the program compares both networks on random input. Needs: pip install '.[export]'
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from errors import run
from results import load_run
from torch.export import Dim

from skeleton_focus import Pretrained

try:
    from torch.export._patches import register_lstm_while_loop_decomposition
except ImportError:
    sys.exit(f"error: expected PyTorch 2.13 or later for the export, got {torch.__version__}")


def export(trained: Pretrained, path: Path) -> torch.Tensor:
    """Write the file; return the random clips that it was traced with."""
    streams = len(trained.recipe.stream.split("+"))
    channels = trained.channels * streams + 1  # and the visibility
    v = trained.layout.num_joints
    x = torch.randn(2, channels, trained.recipe.frames, v, trained.persons)
    network = trained.objective.model
    changing: Any = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC},)  # N and T
    with register_lstm_while_loop_decomposition():  # for BAGCN, whose LSTM would fix T otherwise
        program = torch.export.export(network, (x,), dynamic_shapes=changing)
        exported = torch.onnx.export(program, dynamo=True, verbose=False)
    facts = {
        "classes": trained.classes,
        "layout": trained.layout.to_dict(),
        "recipe": asdict(trained.recipe),
    }
    exported.model.metadata_props.update({key: json.dumps(fact) for key, fact in facts.items()})
    exported.save(path)
    return x


def compare(trained: Pretrained, path: Path, x: torch.Tensor) -> tuple[float, float]:
    """Return the largest difference between onnxruntime's and PyTorch's logits, and the largest."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = trained.objective.model(x)
    return float((torch.from_numpy(got) - expected).abs().max()), float(expected.abs().max())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a run of train.py, or network of weights")
    parser.add_argument("file", type=Path, help="the .onnx file to write")
    given = parser.parse_args(arguments)
    if given.file.suffix != ".onnx":
        raise ValueError(f"expected a file that ends in .onnx, got {given.file}")
    trained = load_run(given.run)
    x = export(trained, given.file)
    print(f"written: {given.file}, input (N, C={x.shape[1]}, T, V={x.shape[3]}, M={x.shape[4]})")
    try:
        difference, largest = compare(trained, given.file, x)
        print(
            f"onnxruntime and PyTorch differ by {difference:.1e} in logits of up to {largest:.1f}"
        )
    except ImportError:
        print("not compared: onnxruntime is not installed")


if __name__ == "__main__":
    run(main)
