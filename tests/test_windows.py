"""Test convolution over windows and the G3D pathway, by plain loops and the published block."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import ms_g3d
import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_tools import draw
from torch import Tensor, nn

from skeleton_focus import KINECT20, NTU25, MultiScaleG3D, _windows, window_adjacency
from skeleton_focus.graph_conv import convolve_graph, convolve_windows

# N, C, O, T, V, K, w, stride: C above, equal to, below O; windows longer than the clip; strides
# that do not divide T.
PROBLEMS = [
    (2, 3, 2, 4, 2, 2, 3, 1),
    (1, 2, 2, 5, 2, 3, 3, 2),
    (2, 2, 3, 7, 2, 1, 5, 2),
    (1, 1, 20, 5, 3, 2, 3, 2),  # few channels: aggregated first
    (1, 2, 1, 1, 2, 2, 5, 2),
    (1, 3, 2, 6, 2, 2, 1, 4),
    (1, 2, 2, 8, 2, 2, 3, 5),
]


def problem(
    n: int, c: int, o: int, t: int, v: int, k: int, w: int
) -> tuple[Tensor, Tensor, Tensor]:
    return draw(n, c, t, v, seed=1), draw(k, o, c, seed=2), draw(k, w * v, w * v, seed=3)


@pytest.mark.parametrize("sizes", PROBLEMS)
def test_equals_the_slow_reference(sizes: tuple[int, ...]) -> None:
    *size, stride = sizes
    tensors = problem(*size)
    expected = reference.window_conv(*(tensor.numpy() for tensor in tensors), stride)
    kept = convolve_windows(
        *(tensor.requires_grad_() for tensor in tensors), stride=stride
    ).detach()
    with torch.no_grad():
        plain = convolve_windows(*tensors, stride=stride)
    for ours in (kept, plain):
        assert ours.shape == expected.shape and np.abs(ours.numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("sizes", PROBLEMS[:4])
def test_gradients_equal_the_slow_reference_s(sizes: tuple[int, ...]) -> None:
    """The function is linear in each input, so a derivative is its value at a unit vector."""
    *size, stride = sizes
    tensors = problem(*size)
    g = draw(*reference.window_conv(*(tensor.numpy() for tensor in tensors), stride).shape, seed=4)
    inputs = tuple(tensor.clone().requires_grad_() for tensor in tensors)
    ours = torch.autograd.grad(convolve_windows(*inputs, stride=stride), inputs, g)
    for which, gradient in enumerate(ours):
        arrays = [tensor.numpy() for tensor in tensors]
        for at in list(itertools.product(*map(range, gradient.shape)))[
            :: max(1, gradient.numel() // 40)
        ]:
            arrays[which] = np.zeros(gradient.shape)
            arrays[which][at] = 1
            expected = (reference.window_conv(*arrays, stride) * g.numpy()).sum()
            assert gradient[at].item() == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("sizes", PROBLEMS)
@pytest.mark.parametrize(
    "wanted", [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
)
def test_gradients_of_first_and_second_order(
    sizes: tuple[int, ...], wanted: tuple[bool, ...]
) -> None:
    *size, stride = sizes
    inputs = tuple(
        tensor.requires_grad_(w) for tensor, w in zip(problem(*size), wanted, strict=True)
    )
    assert torch.autograd.gradcheck(lambda *given: convolve_windows(*given, stride=stride), inputs)
    assert torch.autograd.gradgradcheck(
        lambda *given: convolve_windows(*given, stride=stride), inputs, fast_mode=True
    )


@given(sizes=st.sampled_from(PROBLEMS), order=st.permutations(range(3)), seed=st.integers(0, 99))
def test_relabelling_joints_permutes_the_output(
    sizes: tuple[int, ...], order: list[int], seed: int
) -> None:
    n, c, o, t, _, k, w, stride = sizes
    x, weight, adjacency = problem(n, c, o, t, 3, k, w)
    x = x + draw(*x.shape, seed=seed)
    whole = [frame * 3 + joint for frame in range(w) for joint in order]
    relabelled = convolve_windows(
        x[..., order], weight, adjacency[:, whole][..., whole], stride=stride
    )
    expected = convolve_windows(x, weight, adjacency, stride=stride)[..., whole]
    torch.testing.assert_close(relabelled, expected, rtol=0, atol=1e-12)


def test_a_window_of_one_frame_is_the_graph_convolution() -> None:
    x, weight, adjacency = problem(2, 4, 3, 5, 4, 3, 1)
    torch.testing.assert_close(
        convolve_windows(x, weight, adjacency),
        convolve_graph(x, weight, adjacency),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("channels", [8, 1])  # mixed first, aggregated first
def test_bfloat16_autocast_is_close(channels: int) -> None:
    inputs = tuple(
        tensor.float().requires_grad_() for tensor in problem(2, channels, 6, 7, 5, 3, 3)
    )
    exact = convolve_windows(*inputs, stride=2)
    g = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        low = convolve_windows(*inputs, stride=2)
    assert low.dtype == torch.bfloat16
    gradients = zip(
        torch.autograd.grad(low, inputs, g.bfloat16()),
        torch.autograd.grad(exact, inputs, g),
        strict=True,
    )
    for ours, expected in [(low.float(), exact), *gradients]:
        assert ours.dtype == torch.float32
        assert ((ours - expected).norm() / expected.norm()).item() < 0.01


def test_samples_together_give_what_samples_alone_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of them, as many as the cache holds; and all, as on a GPU."""
    inputs = tuple(tensor.requires_grad_() for tensor in problem(5, 3, 2, 6, 2, 2, 3))
    monkeypatch.setitem(_windows.CACHED, "cpu", 1)
    alone = convolve_windows(*inputs, stride=2)
    g = draw(*alone.shape, seed=4)
    expected = [alone, *torch.autograd.grad(alone, inputs, g)]
    groups: list[int] = []
    build = _windows._Work.__init__

    def spy(work: _windows._Work, *arguments: Tensor) -> None:
        build(work, *arguments)
        groups.append(len(work.groups))

    monkeypatch.setattr(_windows._Work, "__init__", spy)
    for size, expected_groups in ((1023, 5), (1024, 3), (10**6, 1)):  # a sample takes 512 bytes
        monkeypatch.setitem(_windows.CACHED, "cpu", size)
        together = convolve_windows(*inputs, stride=2)
        assert groups.pop() == expected_groups
        for ours, theirs in zip(
            [together, *torch.autograd.grad(together, inputs, g)], expected, strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        groups.clear()


def test_no_channels_and_no_samples() -> None:
    x, _, adjacency = problem(2, 4, 1, 5, 3, 5, 1)
    assert convolve_windows(x, torch.zeros(5, 0, 4).double(), adjacency).shape == (2, 0, 5, 3)
    assert convolve_windows(x[:0], torch.ones(5, 2, 4).double(), adjacency).shape == (0, 2, 5, 3)


def test_the_mixed_channels_are_not_kept() -> None:
    inputs = tuple(tensor.requires_grad_() for tensor in problem(4, 8, 8, 16, 3, 6, 3))
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        convolve_windows(*inputs)
    x, weight, adjacency = (tensor.nbytes for tensor in inputs)
    # Two frames of padding; mixed, it would be 6 x.
    assert sum(kept.values()) <= 18 / 16 * x + weight + adjacency


def test_transforms_and_hooks() -> None:
    x, weight, adjacency = problem(2, 3, 2, 4, 2, 5, 1)
    expected = torch.autograd.grad(convolve_graph(x.requires_grad_(), weight, adjacency).sum(), x)[
        0
    ]
    ours = torch.func.grad(lambda x: convolve_graph(x, weight, adjacency).sum())(x.detach())
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    layer = MultiScaleG3D(3, 4, window_adjacency(KINECT20, 3, 2), 3)
    seen = []
    layer.norm.register_full_backward_hook(lambda *_: None)
    layer.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    layer.conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    layer(torch.randn(2, 3, 4, 20)).sum().backward()
    assert len(seen) == 2 and seen[1].min() < 0  # BatchNorm's own output, before the ReLU


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_built_on_a_device(device: str) -> None:
    with torch.device(device):
        layer = MultiScaleG3D(3, 4, window_adjacency(KINECT20, 3, 2), 3)
        assert layer(torch.zeros(2, 3, 4, 20)).shape == (2, 4, 4, 20)
    assert {tensor.device.type for tensor in layer.state_dict().values()} == {device}


def test_published_block(golden: Path, golden_weights: Callable[[str], dict[str, Tensor]]) -> None:
    name = "ms_g3d_block.out_seed3_N2_C12_T10_V25_K6_windows3_5_stride2_O24"
    expected = np.load(golden / "ms_g3d.npz")[name]
    old = golden_weights("ms_g3d_block")
    total = torch.zeros(())
    for i, window in enumerate((3, 5)):
        size = window * 25
        conv = f"gcn3d.{i}.gcn3d.1"
        out = f"gcn3d.{i}"
        layer = (
            MultiScaleG3D(12, 24, window_adjacency(NTU25, window, 6), window, stride=2)
            .double()
            .eval()
        )
        state = {
            "conv.correction": old[f"{conv}.A_res"].view(6, size, size).transpose(1, 2),
            "conv.weight": old[f"{conv}.mlp.layers.0.weight"].view(12, 6, 12).transpose(0, 1),
            "collapse.weight": old[f"{out}.out_conv.weight"].squeeze(2),
        }
        for ours, norm, bias in (
            ("norm", f"{conv}.mlp.layers.1", f"{conv}.mlp.layers.0.bias"),
            ("collapse_norm", f"{out}.out_bn", f"{out}.out_conv.bias"),
        ):
            state |= {
                f"{ours}.{part}": old[f"{norm}.{part}"]
                for part in ("weight", "bias", "running_var")
            }
            state[f"{ours}.running_mean"] = old[f"{norm}.running_mean"] - old[bias]
        left = layer.load_state_dict(state, strict=False)
        assert not left.unexpected_keys
        assert all(key.endswith(("num_batches_tracked", "adjacency")) for key in left.missing_keys)
        total = total + layer(draw(2, 12, 10, 25, seed=3)).detach()
    assert total.shape == expected.shape and np.abs(total.numpy() - expected).max() < 1e-9


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_any_number_of_frames(frames: int, stride: int) -> None:
    layer = MultiScaleG3D(
        4, 6, window_adjacency(KINECT20, 3, 2), 3, stride=stride, hidden_channels=5
    )
    y = layer(torch.randn(2, 4, frames, 20))
    assert y.shape == (2, 6, -(-frames // stride), 20) and y.is_contiguous()
    assert f"window=3, stride={stride}" in repr(layer)
    assert layer.eval()(torch.zeros(0, 4, frames, 20)).shape == (0, *y.shape[1:])


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: MultiScaleG3D(3, 4, window_adjacency(KINECT20, 2, 2), 2),
        "MultiScaleG3D: expected an odd window, got 2; an even window has no middle frame",
    ),
    (
        lambda: MultiScaleG3D(3, 4, window_adjacency(KINECT20, 5, 2), 3),
        "MultiScaleG3D: expected an adjacency of 3 * V joints, got (2, 100, 100); "
        "window_adjacency(layout, 3, K) gives",
    ),
    (
        lambda: MultiScaleG3D(3, 4, window_adjacency(KINECT20, 3, 2), 3, stride=0),
        "MultiScaleG3D: expected a stride of at least 1, got 0",
    ),
    (
        lambda: MultiScaleG3D(3, 4, window_adjacency(KINECT20, 3, 2), 3)(torch.zeros(2, 3, 4, 25)),
        "MultiScaleG3D: expected x, for 60 joints of the adjacency read as 3 frames of 20, "
        "(N, C=3, T, V=20)",
    ),
    (
        lambda: convolve_windows(
            torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 3), torch.zeros(2, 10, 10)
        ),
        "convolve_windows: expected an adjacency of w * V joints, V=5 and w odd, got (2, 10, 10)",
    ),
    (
        lambda: convolve_windows(
            torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 3), torch.zeros(3, 15, 15)
        ),
        "convolve_windows: expected adjacency (K=2, w*V=15, w*V=15), got (3, 15, 15)",
    ),
    (
        lambda: convolve_windows(
            torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 4), torch.zeros(2, 15, 15)
        ),
        "convolve_windows: expected x, for a weight (K, O, C), (N, C=4, T, V), got (2, 3, 4, 5)",
    ),
    (
        lambda: convolve_windows(
            torch.zeros(2, 3, 4, 0), torch.zeros(2, 6, 3), torch.zeros(2, 15, 15)
        ),
        "convolve_windows: expected at least 1 joint, got (2, 3, 4, 0)",
    ),
]


@pytest.mark.parametrize(("call", "text"), MISTAKES)
def test_errors(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(text)):
        call()


def test_the_network_on_another_skeleton() -> None:
    """Windows, strides and clips of odd length through examples/ms_g3d.py."""
    network: nn.Module = ms_g3d.MSG3D(
        4, KINECT20, num_persons=1, widths=(6, 12, 18), scales=5, window_scales=2
    )
    assert network(torch.randn(2, 3, 9, 20, 1)).shape == (2, 4)
