"""When a head is average pooling and a linear layer for every batch, and not for this one alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from skeleton_focus._closed_form import is_pooled_linear, keeps_pooled_linear

N = 3
M = 2
C = 4
CLASSES = 5


class Zeros(nn.Module):
    """A branch beside the head that adds nothing yet."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(CLASSES, C, dtype=torch.float64))

    def forward(self, pooled: Tensor) -> Tensor:
        return pooled @ self.weight.T


def pool(x: Tensor) -> Tensor:
    return x.view(N, M, C, 6, 7).mean((1, 3, 4))


ZEROS = Zeros()
ONES = torch.ones(C, dtype=torch.float64)
HEADS: dict[str, tuple[Callable[[nn.Linear, Tensor], Tensor], bool]] = {
    "mean": (lambda head, x: head(pool(x)), True),
    "adaptive pooling": (
        lambda head, x: head(nn.functional.adaptive_avg_pool2d(x, 1).view(N, M, C).mean(1)),
        True,
    ),
    "sum divided by its size": (
        lambda head, x: head(x.view(N, M, C, 6, 7).sum((1, 3, 4)) / (M * 42)),
        True,
    ),
    "a mask of ones": (lambda head, x: head(pool(x * ONES[:, None, None])), False),
    "a scale of ones after pooling": (lambda head, x: head(pool(x) * ONES), False),
    "a second path of zeros": (lambda head, x: head(pool(x)) + ZEROS(pool(x)), False),
    "a limit out of reach": (lambda head, x: head(pool(x).clamp(min=-1e9)), False),
    "a product with another weight of the same values": (
        lambda head, x: nn.functional.linear(pool(x), head.weight.detach().clone(), head.bias),
        False,
    ),
    "max pooling": (lambda head, x: head(x.view(N, M, C, 6, 7).amax((1, 3, 4))), False),
    "persons of all clips in turn": (
        lambda head, x: head(x.view(M, N, C, 6, 7).mean((0, 3, 4))),
        False,
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_structure_counts_and_not_the_values_alone(name: str) -> None:
    """All but the last two agree with the closed form on this batch; a later one may not."""
    make, expected = HEADS[name]
    torch.manual_seed(0)
    head = nn.Linear(C, CLASSES).double()
    x = torch.randn(N * M, C, 6, 7, dtype=torch.float64)
    shift = torch.zeros(N * M, C, 1, 1, dtype=torch.float64, requires_grad=True)
    logits = make(head, x + shift)
    closed = head(pool(x))
    agrees = torch.allclose(logits, closed)
    assert agrees == (name not in ("max pooling", "persons of all clips in turn"))
    assert is_pooled_linear(head, x, shift, logits, num_persons=M) is expected
    if agrees:
        assert keeps_pooled_linear(head, shift, logits) is expected


def test_batches_that_cannot_decide() -> None:
    head = nn.Linear(C, CLASSES)
    x = torch.randn(M, C, 6, 7)
    shift = torch.zeros(M, C, 1, 1, requires_grad=True)
    one_clip = head((x + shift).mean((0, 2, 3)))[None]
    assert is_pooled_linear(head, x, shift, one_clip, num_persons=M) is None
    nn.init.zeros_(head.weight)
    of_zeros = head((x + shift).mean((2, 3)))
    assert is_pooled_linear(head, x, shift, of_zeros, num_persons=1) is None


def test_a_head_of_other_sizes() -> None:
    x = torch.randn(N, C, 6, 7)
    shift = torch.zeros(N, C, 1, 1, requires_grad=True)
    logits = nn.Linear(C, CLASSES)((x + shift).mean((2, 3)))
    assert is_pooled_linear(nn.Linear(C, 3), x, shift, logits, num_persons=1) is False
    assert is_pooled_linear(nn.Linear(8, CLASSES), x, shift, logits, num_persons=1) is False
