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
    # Published tables hold numpy's single-precision d ** -0.5, whose last bit depends on the processor: the golden ones
    # are of a machine where 6 ** -0.5 is not rounded to the nearest number.
    if np.power(np.full(64, 6, np.float32), np.float32(-0.5))[0] == np.float32(6.0**-0.5):
        tolerance = max(tolerance, 1e-8)
    x = torch.from_numpy(np.random.default_rng(SEED).standard_normal((2, 3, 32, 25, 2))).to(dtype)
    logits = network(x).detach().double().numpy()
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() < tolerance * np.linalg.norm(expected)
    with torch.no_grad():  # the path without gradients
        np.testing.assert_allclose(network(x).double().numpy(), logits, rtol=0, atol=tolerance)


SMALL = {"num_persons": 1, "widths": (6, 12, 18), "scales": 3, "window_scales": 2}


def test_stf_begins_as_the_network_without_it() -> None:
    torch.manual_seed(0)
    plain, focused = MSG3D(5, KINECT20, **SMALL).eval(), MSG3D(5, KINECT20, **SMALL, stf=True).eval()
    left = focused.load_state_dict(plain.state_dict(), strict=False)
    assert not left.unexpected_keys and all(".generator." in key for key in left.missing_keys)
    x = torch.randn(2, 3, 8, 20, 1)
    torch.testing.assert_close(focused(x), plain(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("branch", [STFLoss.focus_branch, STFLoss.exploration_branch])
def test_stf_trains_it(branch: type[STFLoss]) -> None:
    torch.manual_seed(0)
    network = MSG3D(5, KINECT20, **SMALL, stf=True)
    objective = STFObjective(network, layers=["block2", "block3"], head="fc", loss=branch())
    out = objective(torch.randn(3, 3, 8, 20, 1), torch.tensor([0, 3, 4]))
    out.loss.backward()
    assert out.focus.shape == (3, 1, 8, 20)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_another_number_of_classes_needs_its_own_head(published: Path) -> None:
    torch.manual_seed(0)
    network = MSG3D(7, NTU25)
    with pytest.raises(
        ValueError, match=r"replace_head=True keeps the own fc:\n  of another shape: fc.weight, expected"
    ):
        network.load_published(published)
    fc = network.fc.weight.clone()
    network.load_published(published, replace_head=True)
    assert torch.equal(network.fc.weight, fc)
    assert torch.equal(
        network.block3.graph.norm.weight, torch.load(published)["module.sgcn3.0.mlp.layers.1.weight"].float()
    )


def test_everything_that_does_not_fit_is_listed(published: Path, tmp_path: Path) -> None:
    saved = torch.load(published, weights_only=True)
    del saved["module.sgcn2.0.A_res"]
    saved["module.extra.weight"] = torch.zeros(3)
    saved["module.data_bn.weight"] = torch.zeros(90)
    torch.save(saved, tmp_path / "other.pt")
    network = MSG3D(60, NTU25)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"expected a checkpoint of this network, got .*; other widths") as caught:
        network.load_published(tmp_path / "other.pt")
    assert str(caught.value).splitlines()[1:] == [
        "  of another shape: data_bn.weight, expected (150,), got (90,)",
        "  missing: sgcn2.0.A_res (325, 25)",
        "  unexpected: extra.weight",
    ]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Trap:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("ran",)


@pytest.mark.parametrize("content", ["half", "code", "list"])
def test_what_is_no_checkpoint(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.pt"
    if content == "half":
        path.write_bytes(b"PK\x03\x04 half a file")
    else:
        torch.save({"fc.weight": Trap()} if content == "code" else [1, 2], path)
    with pytest.raises(
        ValueError, match=r"expected a published checkpoint, got .*bad\.pt: .*; save the network's state_d"
    ):
        MSG3D(5, KINECT20, **SMALL).load_published(path)
    assert "ran" not in capsys.readouterr().out
