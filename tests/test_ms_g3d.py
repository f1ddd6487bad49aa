"""examples/ms_g3d.py against the published network, through its own checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ms_g3d import MSG3D
from ms_g3d_published import load_published
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from skeleton_focus import KINECT20, NTU25, STFAdjacency, STFLoss, STFObjective

SEED = 7
ARRAY = "ms_g3d.logits_seed7_N2_C3_T32_V25_M2"


@pytest.fixture(scope="module")
def published(
    golden_weights: Callable[[str], dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint of the published network, filled by the golden rule, saved from DataParallel."""
    path = tmp_path_factory.mktemp("published") / "ms_g3d.pt"
    torch.save({f"module.{key}": value for key, value in golden_weights("ms_g3d").items()}, path)
    return path


@pytest.mark.parametrize("stf", [False, True, "scales"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_the_published_logits(
    golden: Path, published: Path, stf: bool | str, dtype: torch.dtype, tolerance: float
) -> None:
    expected = np.load(golden / "ms_g3d.npz")[ARRAY]
    network = load_published(MSG3D(60, NTU25, stf=stf).to(dtype), published).eval()
    # Published tables hold numpy's single-precision d ** -0.5, whose last bit depends on the
    # processor: the golden ones are of a machine where 6 ** -0.5 is not rounded to the nearest
    # number.
    if np.power(np.full(64, 6, np.float32), np.float32(-0.5))[0] == np.float32(6.0**-0.5):
        tolerance = max(tolerance, 1e-8)
    x = torch.from_numpy(np.random.default_rng(SEED).standard_normal((2, 3, 32, 25, 2))).to(dtype)
    logits = network(x).detach().double().numpy()
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() < tolerance * np.linalg.norm(expected)
    with torch.no_grad():  # the path without gradients
        np.testing.assert_allclose(network(x).double().numpy(), logits, rtol=0, atol=tolerance)


SMALL = {"num_persons": 1, "widths": (6, 12, 18), "scales": 5, "window_scales": 2}
ARRANGEMENTS = pytest.mark.parametrize("stf", ["modules", "scales"])


@ARRANGEMENTS
@pytest.mark.parametrize("training", [False, True])
def test_stf_begins_as_the_network_without_it(stf: str, training: bool) -> None:
    torch.manual_seed(0)
    plain = MSG3D(5, KINECT20, **SMALL).double().train(training)
    focused = MSG3D(5, KINECT20, **SMALL, stf=stf).double().train(training)
    left = focused.load_state_dict(plain.state_dict(), strict=False)
    assert not left.unexpected_keys and all(
        ".generator." in key or ".stf." in key for key in left.missing_keys
    )
    x = torch.randn(3, 3, 8, 20, 1, dtype=torch.float64)
    torch.testing.assert_close(focused(x), plain(x), rtol=0, atol=1e-12)
    with torch.no_grad():
        for name in left.missing_keys:
            value = focused.state_dict()[name]
            if value.is_floating_point() and not value.any():
                value.normal_()
    assert (focused(x) - plain(x)).abs().max() > 1e-2


def test_six_modules_of_three_scales_or_three_of_all() -> None:
    generated = {
        stf: [
            m.num_subsets
            for m in MSG3D(5, KINECT20, **SMALL, stf=stf).modules()
            if isinstance(m, STFAdjacency)
        ]
        for stf in (False, True, "modules", "scales")
    }
    assert generated == {False: [], True: [3] * 6, "modules": [3] * 6, "scales": [5] * 3}
    network = MSG3D(5, KINECT20, **SMALL, stf=True)
    objective = STFObjective(
        network, layers=["blocks.1", "blocks.2"], head="fc", loss=STFLoss.focus_branch()
    )
    assert len(objective.generators) == 6


@pytest.mark.parametrize("stf", ["both", 1, "True"])
def test_another_arrangement_is_refused(stf: object) -> None:
    with pytest.raises(
        ValueError, match=r"^MSG3D: expected stf to be True, False, 'modules' or 'scales', got "
    ):
        MSG3D(5, KINECT20, **SMALL, stf=stf)


def test_the_flops_of_stf() -> None:
    """In % of MS-G3D's, for a clip of two bodies; the share barely depends on T (8.6 and 0.7 at T =
    300).
    """
    counted = {}
    for stf in (False, "modules", "scales"):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            MSG3D(60, NTU25, stf=stf).eval()(torch.randn(1, 3, 32, 25, 2))
        counted[stf] = counter.get_total_flops()
    more = {stf: 100 * (flops / counted[False] - 1) for stf, flops in counted.items()}
    assert more == pytest.approx({False: 0.0, "modules": 8.5, "scales": 0.7}, abs=0.1)


def test_gradients_reach_every_weight_of_the_six_modules() -> None:
    torch.manual_seed(0)
    network = MSG3D(5, KINECT20, **SMALL, stf=True)
    new = network.state_dict().keys() - MSG3D(5, KINECT20, **SMALL).state_dict().keys()
    objective = STFObjective(
        network, layers=["blocks.1", "blocks.2"], head="fc", loss=STFLoss.focus_branch()
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x = torch.randn(3, 3, 8, 20, 1)
    target = torch.tensor([0, 3, 4])
    for _ in range(
        3
    ):  # BatchNorm's weight first, then W_k and alpha's last convolution, then the rest of alpha
        optimizer.zero_grad()
        objective(x, target).loss.backward()
        optimizer.step()
    gradients = {name: p.grad for name, p in network.named_parameters() if name in new}
    assert len(gradients) == 6 * 12 + 3 * 3
    assert all(grad is not None and grad.any() for grad in gradients.values())


@ARRANGEMENTS
@pytest.mark.parametrize("branch", [STFLoss.focus_branch, STFLoss.exploration_branch])
def test_stf_trains_it(branch: type[STFLoss], stf: str) -> None:
    torch.manual_seed(0)
    network = MSG3D(5, KINECT20, **SMALL, stf=stf)
    objective = STFObjective(network, layers=["blocks.1", "blocks.2"], head="fc", loss=branch())
    out = objective(torch.randn(3, 3, 8, 20, 1), torch.tensor([0, 3, 4]))
    out.loss.backward()
    assert out.focus.shape == (3, 1, 8, 20)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_another_number_of_classes_needs_its_own_head(published: Path) -> None:
    torch.manual_seed(0)
    network = MSG3D(7, NTU25)
    with pytest.raises(
        ValueError,
        match=r"replace_head=True keeps the own fc:\n  of another shape: fc.weight, expected",
    ):
        load_published(network, published)
    fc = network.fc.weight.clone()
    load_published(network, published, replace_head=True)
    assert torch.equal(network.fc.weight, fc)
    assert torch.equal(
        network.blocks[2].graph.norm.weight,
        torch.load(published, weights_only=True)["module.sgcn3.0.mlp.layers.1.weight"].float(),
    )


def test_everything_that_does_not_fit_is_listed(published: Path, tmp_path: Path) -> None:
    saved = torch.load(published, weights_only=True)
    del saved["module.sgcn2.0.A_res"]
    saved["module.extra.weight"] = torch.zeros(3)
    saved["module.data_bn.weight"] = torch.zeros(90)
    torch.save(saved, tmp_path / "other.pt")
    network = MSG3D(60, NTU25)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"expected a checkpoint of this network, got .*; other widths"
    ) as caught:
        load_published(network, tmp_path / "other.pt")
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
def test_what_is_no_checkpoint(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.pt"
    if content == "half":
        path.write_bytes(b"PK\x03\x04 half a file")
    else:
        torch.save({"fc.weight": Trap()} if content == "code" else [1, 2], path)
    with pytest.raises(
        ValueError,
        match=r"expected a published checkpoint, got .*bad\.pt: .*; save the network's state_d",
    ):
        load_published(MSG3D(5, KINECT20, **SMALL), path)
    assert "ran" not in capsys.readouterr().out
