"""The gradient at a shift, differentiated again, is that at the whole map."""

import copy

import pytest
import torch
from torch import Tensor, nn

from skeleton_focus._second_order import SecondOrder
from skeleton_focus.feature_tap import FeatureTap
from skeleton_focus.focus import class_score
from skeleton_focus.graph_conv import convolve_graph


class Net(nn.Module):
    """A low layer, then whatever a test puts behind it, then a head."""

    def __init__(self, *behind: nn.Module, channels: int = 6) -> None:
        super().__init__()
        self.low = nn.Conv2d(3, 4, 1)
        self.behind = nn.Sequential(*behind)
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.behind(self.low(x)).mean((2, 3)))


class Graph(nn.Module):
    """A graph convolution with a bias and an adjacency made from its own input."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, out_channels, 4))
        self.bias = nn.Parameter(torch.randn(out_channels))
        self.make = nn.Conv2d(4, 2 * 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        made = self.make(x).mean(2).unflatten(1, (2, 5)).tanh()  # (N, K, V, V)
        return convolve_graph(x, self.weight, made, self.bias)


class Twice(nn.Module):
    """Takes its input along two ways, one of them in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x.relu_()
        return torch.cat([self.conv(x) + x, x], dim=1)


class Keywords(nn.Module):
    """Calls with keywords, and joins in every way torch.cat is called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.conv2d(x, weight=self.weight)
        z = nn.functional.conv2d(input=x, weight=self.weight)
        return torch.cat(
            [torch.cat((y, z), 1), torch.cat(tensors=[y, z], dim=1), torch.cat([y, z], dim=1)],
            dim=1,
        )


BEHIND = {
    "keywords": lambda: (Keywords(), nn.BatchNorm2d(18), nn.Tanh(), nn.Conv2d(18, 6, 1)),
    "pointwise": lambda: (
        nn.Conv2d(4, 6, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, (3, 1), padding=(1, 0)),
    ),
    "pointwise, strided": lambda: (nn.Conv2d(4, 6, 1, (2, 1)), nn.BatchNorm2d(6), nn.Tanh()),
    "pointwise, padded": lambda: (nn.Conv2d(4, 6, 1, padding=1), nn.BatchNorm2d(6), nn.Tanh()),
    "pointwise, grouped": lambda: (nn.Conv2d(4, 6, 1, groups=2), nn.BatchNorm2d(6), nn.Tanh()),
    "pointwise, no bias": lambda: (
        nn.Conv2d(4, 6, 1, bias=False),
        nn.BatchNorm2d(6, affine=False),
        nn.Tanh(),
    ),
    "over time": lambda: (nn.Conv2d(4, 6, (3, 1)), nn.BatchNorm2d(6), nn.Tanh()),
    "graph, mixing first": lambda: (Graph(4), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1)),
    "graph, aggregating first": lambda: (Graph(6), nn.BatchNorm2d(6), nn.Tanh()),
    "two ways": lambda: (Twice(), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 6, 1)),
    "normalisation first": lambda: (nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 6, 1)),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("behind", BEHIND)
def test_channel_gradient_and_its_gradient(behind: str, training: bool) -> None:
    """A loss on the channel gradient moves every parameter as it does without the shift."""
    torch.manual_seed(1)
    net = Net(*BEHIND[behind]()).double().train(training)
    plain = copy.deepcopy(net)
    x = torch.randn(3, 3, 4, 5, dtype=torch.float64)
    classes = torch.tensor([0, 2, 4])
    with FeatureTap(net, ["low"], twice=["low"]) as tap:
        score = class_score(net(x), classes)
    cheap = tap.channel_gradient("low", score, create_graph=True)

    low = plain.low(x)
    features = low.clone()  # a layer behind may work in place
    direct = class_score(plain.fc(plain.behind(features.clone()).mean((2, 3))), classes)
    whole = torch.autograd.grad(direct.sum(), features, create_graph=True)[0].sum((2, 3))

    assert whole.abs().max() > 1e-6
    torch.testing.assert_close(cheap, whole)
    torch.testing.assert_close(score, direct)
    for loss in (cheap, whole):
        (loss.square().sum() * 10).backward()
    for (name, mine), theirs in zip(net.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is None:
            assert mine.grad is None or mine.grad.abs().max() == 0, name
        else:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12, msg=name)
    for (name, mine), theirs in zip(net.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12, msg=name)


def test_the_mode_ends_with_the_block() -> None:
    x = torch.randn(2, 3, 4, 5)
    with SecondOrder() as mode:
        shifted, shift = mode.shift(x)
    assert torch.equal(shifted, x)
    assert type(nn.Conv2d(3, 2, 1)(shifted).grad_fn).__name__ == "ConvolutionBackward0"
    assert shift.shape == (2, 3, 1, 1)


def test_reading_before_running() -> None:
    net = Net(nn.Conv2d(4, 6, 1))
    tap = FeatureTap(net, ["low"], twice=["low"])
    with pytest.raises(
        ValueError, match="FeatureTap: expected layer 'low' to run once, got 0 runs"
    ):
        tap.channel_gradient("low", torch.zeros(1), create_graph=False)
