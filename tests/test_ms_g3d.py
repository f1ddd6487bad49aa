"""examples/ms_g3d.py against the published network, through its own checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ms_g3d import MSG3D
from torch import Tensor

from skeleton_focus import KINECT20, NTU25, STFLoss, STFObjective

SEED = 7
ARRAY = "ms_g3d.logits_seed7_N2_C3_T32_V25_M2"


@pytest.fixture(scope="module")
def published(golden_weights: Callable[[str], dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the published network, filled by the golden rule, saved from DataParallel."""
    path = tmp_path_factory.mktemp("published") / "ms_g3d.pt"
    torch.save({f"module.{key}": value for key, value in golden_weights("ms_g3d").items()}, path)
    return path


@pytest.mark.parametrize("stf", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_the_published_logits(golden: Path, published: Path, stf: bool, dtype: torch.dtype, tolerance: float) -> None:
    expected = np.load(golden / "ms_g3d.npz")[ARRAY]
    network = MSG3D(60, NTU25, stf=stf).to(dtype).load_published(published).eval()
    x = torch.from_numpy(np.random.default_rng(SEED).standard_normal((2, 3, 32, 25, 2))).to(dtype)
    logits = network(x).detach().double().numpy()
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() < tolerance * np.linalg.norm(expected)
    with torch.no_grad():  # the path without gradients
        np.testing.assert_allclose(network(x).double().numpy(), logits, rtol=0, atol=tolerance)
