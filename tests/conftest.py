"""Share threads, hypothesis' profile, and the folders of real data and golden values."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

torch.set_num_threads(1)
settings.register_profile(
    "repository",
    deadline=None,
    derandomize=True,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repository")

SHARED = Path(
    os.environ.get("SKELETON_FOCUS_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared"
)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List by name the tests that were skipped because they need a GPU; -ra counts them."""
    skipped = terminalreporter.stats.get("skipped", [])
    names = sorted(report.nodeid for report in skipped if "needs a GPU" in str(report.longrepr))
    if names:
        terminalreporter.section(f"{len(names)} tests need a GPU")
        terminalreporter.write_line("\n".join(names))


def _folder(name: str, holds: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder} (SKELETON_FOCUS_TEST_DATA names another): {holds}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Caches of data sets go where the tests end."""
    os.environ["SKELETON_FOCUS_CACHE"] = str(tmp_path_factory.mktemp("caches"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real NW-UCLA clips."""
    return _folder(
        "data/nw_ucla", "it holds NW-UCLA under its owners' terms and is no part of the repository"
    )


@pytest.fixture(scope="session")
def real_clips() -> Callable[[str], dict[str, np.ndarray]]:
    """Read one of the real data sets in ``.npz`` files by its name."""

    def read(name: str) -> dict[str, np.ndarray]:
        file = SHARED / "data" / f"{name}.npz"
        if not file.is_file():
            pytest.skip(f"no file {file} (SKELETON_FOCUS_TEST_DATA names another folder)")
        with np.load(file) as arrays:
            return dict(arrays)

    return read


@pytest.fixture(scope="session")
def ntu_files() -> list[Path]:
    """The two real NTU files."""
    folder = _folder("data/ntu_samples", "it holds NTU RGB+D files under their owners' terms")
    return sorted(folder.glob("*.skeleton"))


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of float64 outputs of the published code."""
    return _folder("golden", "it holds the golden values and is no part of the repository")


@pytest.fixture(scope="session")
def golden_weights(golden: Path) -> Callable[[str], dict[str, Tensor]]:
    """Load a published layer's state dict by name, filled by the rule of golden/README.md."""

    def fill(layer: str) -> dict[str, Tensor]:
        state = {}
        for line in (golden / f"{layer}_state_dict.tsv").read_text().splitlines():
            key, sizes = line.split("\t")
            if key.endswith("num_batches_tracked"):
                continue
            shape = tuple(int(size) for size in sizes.split(","))
            a = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
            if key.endswith("running_var"):
                a = 1 + 0.1 * abs(a)
            elif key.endswith(("running_mean", "bias")):
                a = 0.1 * a
            elif key.endswith("weight") and len(shape) == 1:
                a = 1 + 0.1 * a
            elif key.endswith("A_res"):
                a = 0.01 * a
            else:
                a = a / np.sqrt(np.prod(shape[1:]))
            state[key] = torch.from_numpy(a)
        return state

    return fill
