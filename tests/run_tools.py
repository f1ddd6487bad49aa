"""What tests of finished runs share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def assert_kept(folder: Path, logs: Tensor) -> None:
    """A run keeps these log-probabilities, but for their rounding to half precision."""
    with np.load(folder / "log_probabilities.npz", allow_pickle=False) as file:
        kept = file["log_probabilities"]
    assert kept.dtype == np.float16
    # Of a relative error, half precision makes at most 2 to the power of -11.
    torch.testing.assert_close(
        torch.from_numpy(kept).float()[: len(logs)], logs, rtol=2**-11 + 1e-4, atol=1e-5
    )
