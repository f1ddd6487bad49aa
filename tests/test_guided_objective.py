"""Test guidance in STFObjective: loss and gradients by plain autograd, and the focus' scores."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from layer_tools import gradients
from test_guidance import in_time
from test_objective import CLASSES, M, N, Stepwise, T, V, clips, network
from torch import Tensor, nn

from skeleton_focus import STFLoss, STFObjective

TABLE = torch.rand(CLASSES, V, generator=torch.Generator().manual_seed(2)) > 0.6
MASKS = torch.rand(N, M, T, V, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
LABELS = torch.tensor([6, 2, 3])  # none is what the network predicts, and each has a focus


def guided(**options: Any) -> STFLoss:
    return STFLoss(
        exploration=0,
        divergence=0,
        coherence=0,
        adjacency=0,
        guidance=0.7,
        **{"allowed": TABLE, **options},
    )


def trained_with(net: nn.Module, loss: STFLoss, **options: Any) -> STFObjective:
    return STFObjective(net, layers=["blocks.4", "blocks.5"], loss=loss, **options)


def plain_score(logits: Tensor, classes: Tensor, score: str) -> Tensor:
    """Of one clip after another, as the equations have it."""
    scores = []
    for row, label in zip(logits, classes.tolist(), strict=True):
        if score == "probability":
            scores.append(row.exp()[label] / row.exp().sum())
        else:
            others = torch.cat([row[:label], row[label + 1 :]])
            scores.append(row[label] - (others.exp().sum().log() if score == "log_odds" else 0))
    return torch.stack(scores)


def plain_focus(logits: Tensor, features: Tensor, classes: Tensor, score: str) -> Tensor:
    """Compute eq. 2 by autograd through the whole map, stretched to [0, 1]: (N, M, T', V)."""
    (whole,) = torch.autograd.grad(
        plain_score(logits, classes, score).sum(), features, create_graph=True
    )
    focus = []
    for n in range(N):
        rows = slice(M * n, M * (n + 1))
        weight = whole[rows].mean((0, 2, 3))
        q = (weight[:, None, None] * features[rows]).sum(1).clamp(min=0)  # (M, T', V)
        focus.append((q - q.min()) / (q.max() - q.min()))
    return torch.stack(focus)


def share_outside(focus: Tensor, allowed: Tensor) -> Tensor:
    """The mean over clips; allowed (N, V), or (N, M, T, V) at whose frames the focus is read."""
    if allowed.dim() == 4:
        frames = focus.shape[2]
        # (T', T)
        at = torch.tensor(
            [in_time(row, T) for row in torch.eye(frames).tolist()], dtype=focus.dtype
        )
        focus = torch.einsum("nmsv,st->nmtv", focus, at)
    inside = (
        allowed.double() if allowed.dim() == 4 else allowed.double()[:, None, None].expand_as(focus)
    )
    each = [(q * (1 - a)).sum() / q.sum() for q, a in zip(focus, inside, strict=True)]
    return torch.stack(each).mean()


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("allowed", [None, MASKS], ids=["table", "masks"])
@pytest.mark.parametrize("score", ["logit", "log_odds", "probability"])
@pytest.mark.parametrize("head", ["fc", None])
def test_every_gradient_is_the_plain_way_s(
    head: str | None, score: str, allowed: Tensor | None, training: bool
) -> None:
    (x, _) = clips()
    net = network().train(training)
    plain = copy.deepcopy(net)
    trained = trained_with(net, guided(), head=head, score=score).train(training)
    out = trained(x, LABELS, allowed=allowed)
    out.loss.backward()
    assert list(trained._closed_form.values()) == ([True] if head else [])

    logits, _, high, _ = Stepwise(plain)(x)
    term = share_outside(
        plain_focus(logits, high, LABELS, score), TABLE[LABELS] if allowed is None else allowed
    )
    loss = nn.functional.cross_entropy(logits, LABELS) + 0.7 * term
    loss.backward()
    assert 0.1 < term < 0.9
    torch.testing.assert_close(out.terms["guidance"], term)
    torch.testing.assert_close(out.loss, loss)
    expected = gradients(plain)
    got = gradients(net)
    assert expected.keys() == got.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-7, atol=1e-11, msg=name)
    for (name, one), other in zip(net.named_buffers(), plain.buffers(), strict=True):
        if "generator" not in name:  # which Stepwise runs twice
            torch.testing.assert_close(one, other, msg=name)


@pytest.mark.parametrize("head", ["fc", None])
def test_the_map_is_that_of_the_label(head: str | None) -> None:
    """And not of the prediction, whose focus is what comes back."""
    (x, _) = clips()
    net = network().eval()
    trained = trained_with(net, guided(), head=head).eval()
    predicted = net(x).argmax(1)
    assert (predicted != LABELS).all()
    out = trained(x, LABELS, allowed=MASKS)
    torch.testing.assert_close(out.focus, trained.explain(x, predicted)[0])
    of_labels, of_predicted = (
        share_outside(trained.explain(x, classes)[0], MASKS) for classes in (LABELS, predicted)
    )
    torch.testing.assert_close(out.terms["guidance"].detach(), of_labels)
    assert (of_labels - of_predicted).abs() > 1e-3


def test_labels_as_probabilities_and_without_gradients() -> None:
    (x, _) = clips()
    trained = trained_with(network(), guided(), head="fc").eval()
    expected = trained(x, LABELS).terms["guidance"]
    rows = nn.functional.one_hot(LABELS, CLASSES) * 0.6 + 0.4 / CLASSES
    torch.testing.assert_close(trained(x, rows.double()).terms["guidance"], expected)
    torch.testing.assert_close(trained(x, LABELS.to(torch.uint8)).terms["guidance"], expected)
    with torch.no_grad():
        out = trained(x, LABELS)
    assert not out.loss.requires_grad
    torch.testing.assert_close(out.terms["guidance"], expected.detach())


def test_it_adds_to_the_other_terms() -> None:
    (x, _) = clips()
    net = network().eval()
    found = []
    for loss in (STFLoss(guidance=0.7, allowed=TABLE), STFLoss(), guided(), STFLoss.plain()):
        net.zero_grad()
        out = trained_with(net, loss, head="fc").eval()(x, LABELS)
        out.loss.backward()
        found.append(({"loss": out.loss.detach(), **gradients(net)}, out.terms))
    (together, terms), (others, _), (guidance, _), (plain, _) = found
    assert list(terms) == [
        "classification",
        "exploration",
        "divergence",
        "coherence",
        "adjacency",
        "guidance",
    ]
    for name, value in together.items():
        expected = others.get(name, 0) + guidance.get(name, 0) - plain.get(name, 0)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12, msg=name)


def test_steps_take_the_focus_inside() -> None:
    x, _ = clips(torch.float32)
    net = network(torch.float32)
    trained = trained_with(net, guided(), head="fc", score="logit")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    values = []
    for _ in range(12):
        out = trained(x, LABELS)
        values.append(out.terms["guidance"].item())
        optimizer.zero_grad()
        (out.loss - out.terms["classification"]).backward()
        optimizer.step()
    assert values[-1] < 0.9 * values[0], values


def test_a_person_who_is_absent_has_no_part_in_it() -> None:
    (x, _) = clips()
    trained = trained_with(network(), guided(), head="fc").eval()
    x[..., 1] = 0
    outside = torch.ones(N, M, T, V, dtype=torch.bool)
    outside[:, 1] = False  # where no focus is
    assert trained(x, LABELS, allowed=outside).terms["guidance"].item() == 0
    assert trained(x, LABELS, allowed=~outside).terms["guidance"].item() == pytest.approx(1)


def test_masks_that_do_not_fit_the_clips() -> None:
    (x, _) = clips()
    trained = trained_with(network(), guided(allowed=None), head="fc")
    for shape in (
        (N + 1, M, T, V),
        (N, 1, T, V),
        (N, M, 1, V),
        (N, M, T // 2, V),
        (N, M, T, V + 1),
        (N, T, V),
    ):
        listed = ", ".join(map(str, shape))
        text = rf"^STFObjective: expected allowed \(N=3, M=2, T=16, V=20\), got \({listed}\)"
        with pytest.raises(ValueError, match=text):
            trained(x, LABELS, allowed=torch.ones(shape))
    with pytest.raises(
        ValueError, match=r"^STFObjective: expected allowed \(N=3, V=20\), got \(7, 20\)"
    ):
        trained(x, LABELS, allowed=TABLE)
    with pytest.raises(
        ValueError, match=r"^STFObjective: expected allowed \(N=3, .*\) to be a tensor, got list"
    ):
        trained(x, LABELS, allowed=TABLE.tolist())
    with pytest.raises(
        ValueError, match=r"^STFLoss: expected allowed, got None; a term in use needs it"
    ):
        trained(x, LABELS)
    with pytest.raises(
        ValueError, match=r"^STFLoss: expected allowed \(classes=7, V=20\), got \(6, 20\)"
    ):
        trained_with(network(), guided(allowed=TABLE[:6]), head="fc")(x, LABELS)
    with pytest.raises(
        ValueError, match=r"^STFLoss: expected allowed \(classes=7, V=20\), got \(7, 19\)"
    ):
        trained_with(network(), guided(allowed=TABLE[:, :19]), head="fc")(x, LABELS)
    with pytest.raises(
        ValueError, match=r"^STFLoss: expected allowed in \[0, 1\], .*, got 0.0 to 2.0"
    ):
        guided(allowed=TABLE * 2.0)
    with pytest.raises(ValueError, match=r"got dict; allowed_joints makes one from a table$"):
        guided(allowed={"drink": ["head"]})  # type: ignore[arg-type]
    assert trained(x, LABELS, allowed=TABLE[LABELS]).loss.isfinite()
    assert trained(x, LABELS, allowed=MASKS).loss.isfinite()


def test_clips_in_another_layout() -> None:
    """The masks keep the order (N, M, T, V)."""
    (x, _) = clips()
    net = network().eval()
    expected = trained_with(net, guided(), head="fc").eval()(x, LABELS, allowed=MASKS)

    class PersonsFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.permute(0, 4, 2, 3, 1))

    layers = ["net.blocks.4", "net.blocks.5"]
    other = STFObjective(
        PersonsFirst(), layers, head="net.fc", loss=guided(), axes="N M T V C"
    ).eval()
    out = other(x.permute(0, 4, 2, 3, 1).contiguous(), LABELS, allowed=MASKS)
    torch.testing.assert_close(out.terms["guidance"], expected.terms["guidance"])
