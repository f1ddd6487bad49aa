"""STF equation 2: closed form, automatic differentiation, the slow reference and captum agree."""

import numpy as np
import pytest
import reference
import torch
from captum.attr import LayerGradCam
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from skeleton_focus import grad_cam, min_max_normalize
from skeleton_focus.feature_tap import FeatureTap
from skeleton_focus.focus import (
    SCORES,
    class_score,
    draw_erased,
    linear_head_focus,
    mask_by_focus,
    resize_focus,
    weigh_channels,
)

SIZES = [(1, 2, 3, 4, 5), (3, 4, 5, 6, 2), (2, 3, 1, 2, 1)]  # N, C, T, V, M


def draw(
    n: int, c: int, t: int, v: int, m: int, classes: int = 6, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N*M, C, T, V), a head's weight, and classes to explain; float64."""
    random = torch.Generator().manual_seed(seed)
    features = torch.rand(n * m, c, t, v, generator=random, dtype=torch.float64) - 0.2
    weight = torch.randn(classes, c, generator=random, dtype=torch.float64)
    return features, weight, torch.randint(classes, (n,), generator=random)


def head(features: Tensor, weight: Tensor, persons: int) -> Tensor:
    rows, c, t, v = features.shape
    return features.view(rows // persons, persons, c, t, v).mean((1, 3, 4)) @ weight.T


@pytest.mark.parametrize("score", ["logit", "log_odds", "probability"])
@pytest.mark.parametrize("size", SIZES)
def test_closed_form_is_autograd_is_the_reference(size: tuple[int, ...], score: str) -> None:
    features, weight, classes = draw(*size)
    persons = size[-1]
    features.requires_grad_()
    logits = head(features, weight, persons)
    by_autograd = grad_cam(class_score(logits, classes, score), features, num_persons=persons)
    closed = linear_head_focus(features, weight, logits, classes, num_persons=persons, score=score)
    slow = reference.focus_linear_head(
        features.detach().numpy(),
        weight.numpy(),
        np.zeros(len(weight)),
        classes.tolist(),
        persons,
        score=score,
    )
    assert by_autograd.shape == (size[0], persons, size[2], size[3])
    torch.testing.assert_close(by_autograd, closed.detach(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(closed.detach().numpy(), slow, rtol=0, atol=1e-12)
    assert closed.max() == 1  # the draw leaves something positive, so this compares more than zeros


def test_unnormalized_scales_differ_by_p_times_one_minus_p() -> None:
    features, weight, classes = draw(3, 4, 5, 6, 2)
    logits = head(features, weight, 2)
    odds, probability = (
        linear_head_focus(
            features, weight, logits, classes, num_persons=2, score=score, normalize=False
        )
        for score in ("log_odds", "probability")
    )
    p = logits.softmax(1).gather(1, classes[:, None])[:, :, None, None]
    torch.testing.assert_close(probability, odds * p * (1 - p))
    assert odds.max() > 0


# One clip of two persons, two channels, one frame, two joints: rows are persons, (N * M, C, T, V).
BY_HAND = torch.tensor(
    [[[[1.0, 2.0]], [[3.0, 0.0]]], [[[4.0, 0.0]], [[0.0, 2.0]]]], dtype=torch.float64
)


def test_weighted_channels_by_hand() -> None:
    """Z counts persons, frames, joints: w = (4 + 8) / 4, -(2 + 6) / 4, Q = ReLU(3 X_0 - 2 X_1)."""
    gradient = torch.tensor([[4.0, -2.0], [8.0, -6.0]], dtype=torch.float64)
    focus = weigh_channels(gradient, BY_HAND, num_persons=2, normalize=False)
    assert focus.tolist() == [[[[0.0, 6.0]], [[12.0, 0.0]]]]
    # As two clips: w = (2, -1), then (4, -3)
    alone = weigh_channels(gradient, BY_HAND, normalize=False)
    assert alone.tolist() == [[[[0.0, 4.0]]], [[[16.0, 0.0]]]]


@pytest.mark.parametrize(("score", "factor"), [("log_odds", 1.0), ("probability", 0.25)])
def test_a_linear_head_by_hand(score: str, factor: float) -> None:
    """Two equal rivals, p = 1/2: w = (W_y - their mean) / Z = (16, -8) / 4, times p (1 - p)."""
    weight = torch.tensor([[8.0, 1.0], [-4.0, 5.0], [-12.0, 13.0]], dtype=torch.float64)
    logits = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64).log()
    focus = linear_head_focus(
        BY_HAND, weight, logits, torch.tensor([0]), num_persons=2, score=score, normalize=False
    )
    expected = factor * torch.tensor([[[[0.0, 8.0]], [[16.0, 0.0]]]], dtype=torch.float64)
    torch.testing.assert_close(focus, expected, rtol=0, atol=1e-13)


def test_the_focus_of_a_logit_by_hand() -> None:
    """w = W_y / Z = (8, 1) / 4, whatever the rivals are: the sum of both channels so weighted."""
    weight = torch.tensor([[8.0, 1.0], [-4.0, 5.0], [-12.0, 13.0]], dtype=torch.float64)
    for logits in ([2.0, 1.0, 1.0], [-1.0, 5.0, 3.0]):
        z = torch.tensor([logits], dtype=torch.float64)
        focus = linear_head_focus(
            BY_HAND, weight, z, torch.tensor([0]), num_persons=2, score="logit", normalize=False
        )
        expected = (8 * BY_HAND[:, 0] + BY_HAND[:, 1]).view(1, 2, 1, 2) / 4
        torch.testing.assert_close(focus, expected, rtol=0, atol=1e-13)


def test_an_earlier_layer_against_central_differences() -> None:
    random = torch.Generator().manual_seed(3)
    features = torch.randn(2, 3, 2, 3, generator=random, dtype=torch.float64, requires_grad=True)
    mix = torch.randn(4, 3, generator=random, dtype=torch.float64)

    def score(x: Tensor) -> Tensor:
        return class_score(
            (torch.einsum("kc,nctv->nk", mix, (x * 1.3).tanh() ** 2)).view(1, 2, 4).sum(1),
            torch.tensor([2]),
        )

    focus = grad_cam(score(features), features, num_persons=2)
    slow = reference.focus_by_differences(
        lambda x: score(torch.from_numpy(np.asarray(x))).detach().numpy(),
        features.detach().numpy(),
        2,
    )
    np.testing.assert_allclose(focus.numpy(), slow, rtol=0, atol=1e-7)
    assert focus.max() == 1


class Convolutions(nn.Module):
    """Two convolutions, pooled, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 7, 1))
        self.fc = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3)))


@pytest.mark.parametrize("score", SCORES)
def test_captum_agrees(score: str) -> None:
    torch.manual_seed(0)
    net = Convolutions().double()
    x = torch.randn(4, 3, 6, 7, dtype=torch.float64)
    classes = torch.tensor([0, 1, 2, 4])
    if score == "logit":  # Grad-CAM as published: captum's own choice of an output
        found = LayerGradCam(net, net.body).attribute(x, target=classes, relu_attributions=True)
    else:
        cam = LayerGradCam(lambda x: class_score(net(x), classes, score)[:, None], net.body)
        found = cam.attribute(x, target=0, relu_attributions=True)
    with FeatureTap(net, ["body"]) as tap:
        logits = net(x)
    mine = linear_head_focus(tap["body"], net.fc.weight, logits, classes, score=score)
    torch.testing.assert_close(mine, min_max_normalize(found), rtol=0, atol=1e-12)
    by_autograd = grad_cam(class_score(logits, classes, score), tap["body"])
    torch.testing.assert_close(by_autograd, mine.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", ["closed", "autograd"])
def test_a_confident_prediction_keeps_its_focus(how: str) -> None:
    """Logit margin 60: the probability is 1 in float32 and its own gradient is gone."""
    features, weight, _ = draw(4, 6, 5, 7, 1, seed=5)
    logits = head(features, weight, 1)
    classes = logits.argmax(1)
    margin = (logits.topk(2).values @ torch.tensor([1.0, -1.0], dtype=torch.float64)).min()
    weight = weight * (60 / margin)

    def focus(dtype: torch.dtype, score: str) -> Tensor:
        x = features.to(dtype).requires_grad_()
        z = head(x, weight.to(dtype), 1)
        if how == "closed":
            return linear_head_focus(x, weight.to(dtype), z, classes, score=score).detach()
        return grad_cam(class_score(z, classes, score), x)

    for score in ("logit", "log_odds"):
        exact = focus(torch.float64, score)
        single = focus(torch.float32, score)
        assert exact.amax((1, 2, 3)).eq(1).all()
        assert (single.double() - exact).abs().max() < 1e-4
    vanished = focus(torch.float32, "probability")
    assert vanished.isfinite().all()
    assert (vanished.double() - exact).abs().max() > 1e-2  # what the log-odds are for


def test_second_derivatives() -> None:
    features, weight, classes = draw(2, 3, 2, 3, 2)

    def closed(x: Tensor, w: Tensor) -> Tensor:
        return linear_head_focus(x, w, head(x, w, 2), classes, num_persons=2, normalize=False)

    def twice(x: Tensor, w: Tensor) -> Tensor:
        score = class_score(head(x.tanh(), w, 2), classes)
        return grad_cam(score, x, num_persons=2, normalize=False, create_graph=True)

    inputs = (features.requires_grad_(), weight.requires_grad_())
    assert gradcheck(closed, inputs)
    assert gradgradcheck(closed, inputs)
    assert gradcheck(twice, inputs)


def test_grad_is_left_untouched() -> None:
    features, weight, classes = draw(2, 3, 2, 3, 1)
    features.requires_grad_()
    weight.requires_grad_()
    grad_cam(class_score(head(features, weight, 1), classes), features)
    assert features.grad is None
    assert weight.grad is None


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=6, max_size=6),
    scale=st.floats(0.5, 8.0),
)
def test_min_max_is_bounded_and_ignores_scale(values: list[float], scale: float) -> None:
    q = torch.tensor(values, dtype=torch.float64).view(1, 1, 2, 3)
    out = min_max_normalize(q)
    assert out.isfinite().all()
    assert out.min() >= 0
    assert out.max() <= 1
    np.testing.assert_allclose(out[0].numpy(), reference.min_max(q[0].numpy()), atol=1e-9)
    torch.testing.assert_close(min_max_normalize(scale * q), out, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 7.0, -1e30, 1e-40])
def test_a_constant_map_gives_zeros_and_a_zero_gradient(value: float) -> None:
    q = torch.full((2, 1, 3, 4), value, requires_grad=True)
    out = min_max_normalize(q)
    assert out.eq(0).all()
    (out**2).sum().backward()
    assert q.grad is not None
    assert q.grad.eq(0).all()


def test_constant_features_give_a_zero_focus_and_a_zero_gradient() -> None:
    x = torch.ones(2, 3, 4, 5, requires_grad=True)
    weight = torch.randn(4, 3, requires_grad=True)
    focus = linear_head_focus(x, weight, head(x, weight, 1), torch.tensor([0, 1]))
    focus.sum().backward()
    assert focus.eq(0).all()
    assert x.grad is not None
    assert x.grad.eq(0).all()


@pytest.mark.parametrize(("short", "frames"), [(1, 5), (3, 3), (3, 7), (8, 3), (4, 1)])
def test_resize(short: int, frames: int) -> None:
    q = torch.rand(2, 2, short, 3, dtype=torch.float64)
    np.testing.assert_allclose(
        resize_focus(q, frames).numpy(), reference.resize_frames(q.numpy(), frames), atol=1e-12
    )


def test_mask() -> None:
    x = torch.randn(2, 4, 5, 3, 2, dtype=torch.float64)
    q = torch.rand(2, 2, 5, 3, dtype=torch.float64)
    np.testing.assert_allclose(
        mask_by_focus(x, q).numpy(), reference.mask_by_focus(x.numpy(), q.numpy()), atol=1e-14
    )
    assert torch.equal(mask_by_focus(x, torch.zeros_like(q)), x)
    assert mask_by_focus(x, torch.ones_like(q)).eq(0).all()


def test_relabelling_joints_permutes_the_focus_and_batches_do_not_mix() -> None:
    features, weight, classes = draw(3, 4, 5, 6, 2)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    logits = head(features, weight, 2)
    focus = linear_head_focus(features, weight, logits, classes, num_persons=2)
    permuted = linear_head_focus(features[..., order], weight, logits, classes, num_persons=2)
    torch.testing.assert_close(permuted, focus[..., order])
    alone = linear_head_focus(features[2:4], weight, logits[1:2], classes[1:2], num_persons=2)
    torch.testing.assert_close(alone, focus[1:2])


def test_half_precision_features_give_a_float32_focus() -> None:
    features, weight, classes = draw(2, 3, 4, 5, 1)
    half = features.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        focus = linear_head_focus(
            half, weight.bfloat16(), head(half, weight.bfloat16(), 1), classes
        )
    assert focus.dtype == torch.float32
    exact = linear_head_focus(
        half.float(), weight.bfloat16().float(), head(half, weight.bfloat16(), 1).float(), classes
    )
    torch.testing.assert_close(focus, exact)


ERRORS = [
    (
        lambda f, w, y: class_score(torch.zeros(2, 3), y[:1]),
        r"class_score: expected classes \(N=2\), got \(1,\)",
    ),
    (
        lambda f, w, y: class_score(torch.zeros(2, 1), y),
        "class_score: expected logits of at least 2 classes, got 1",
    ),
    (
        lambda f, w, y: class_score(torch.zeros(2, 3), y, "margin"),
        "expected score to be one of 'logit', 'log_odds', 'probability', got 'margin'",
    ),
    (
        lambda f, w, y: linear_head_focus(f, w[:, :1], head(f, w, 1), y),
        r"expected weight \(classes=6, C=3\), got \(6, 1\)",
    ),
    (
        lambda f, w, y: linear_head_focus(f, w, head(f, w, 1), y, num_persons=2),
        r"features \(N\*M=4, C, T, V\), got \(2",
    ),
    (
        lambda f, w, y: grad_cam(head(f, w, 1)[:, 0], f),
        "expected a score and features that require gradients",
    ),
    (
        lambda f, w, y: grad_cam(w.requires_grad_()[:2, 0], f.requires_grad_()),
        "expected a score that depends on the feat",
    ),
    (
        lambda f, w, y: resize_focus(torch.zeros(1, 1, 2, 2), 0),
        "resize_focus: expected at least 1 frame, got 0",
    ),
    (
        lambda f, w, y: resize_focus(torch.zeros(1, 2, 2), 3),
        r"expected focus \(N, M, T', V\), got \(1, 2, 2\)",
    ),
    (
        lambda f, w, y: min_max_normalize(torch.zeros(3)),
        r"expected focus \(N, M, T, V\), got \(3,\)",
    ),
    (
        lambda f, w, y: mask_by_focus(torch.zeros(1, 3, 4, 5, 2), torch.zeros(1, 1, 4, 5)),
        r"expected focus \(N=1, M=2, T', V=5\), got \(1, 1, 4, 5\)",
    ),
]


@pytest.mark.parametrize(("call", "text"), ERRORS)
def test_errors(call: object, text: str) -> None:
    features, weight, classes = draw(2, 3, 4, 5, 1)
    with pytest.raises(ValueError, match=text):
        call(features, weight, classes)  # type: ignore[operator]


class TestFeatureTap:
    net = nn.ModuleDict({"used": nn.Linear(2, 3), "unused": nn.Linear(2, 2), "pair": nn.LSTM(2, 2)})

    def test_hooks_go_even_after_an_exception(self) -> None:
        with pytest.raises(RuntimeError, match="boom"), FeatureTap(self.net, ["used"]):
            raise RuntimeError("boom")
        assert "forward" not in vars(self.net["used"])

    def test_one_tap_inside_another(self) -> None:
        """The inner one gives back the outer one's place, and a forward of the user's own stays."""
        net = nn.Linear(2, 3)
        own = nn.Linear(2, 3)
        vars(net)["forward"] = own.forward
        whole = nn.Sequential(net)
        with FeatureTap(whole, ["0"]) as outer:
            with FeatureTap(whole, ["0"]) as inner:
                pass
            out = whole(torch.ones(1, 2))
        assert torch.equal(outer["0"], out) and not inner.ran
        assert torch.equal(whole(torch.ones(1, 2)), own(torch.ones(1, 2)))

    def test_a_layer_that_did_not_run_or_ran_twice(self) -> None:
        with FeatureTap(self.net, ["used", "unused"]) as tap:
            self.net["used"](torch.zeros(1, 2))
            self.net["used"](torch.zeros(1, 2))
        with pytest.raises(
            ValueError,
            match="expected layer 'unused' to run once, got 0 runs; name a layer that the mod",
        ):
            tap["unused"]
        with pytest.raises(ValueError, match="expected layer 'used' to run once, got 2 runs"):
            tap["used"]

    def test_a_layer_without_a_tensor(self) -> None:
        with FeatureTap(self.net, ["pair"]) as tap:
            self.net["pair"](torch.zeros(1, 1, 2))
        with pytest.raises(ValueError, match="expected layer 'pair' to give a tensor, got tuple"):
            tap["pair"]

    def test_an_unknown_name_names_its_neighbours(self) -> None:
        with pytest.raises(
            ValueError,
            match="expected the name of a layer, got 'use'; ModuleDict has 'used', 'unused'",
        ):
            FeatureTap(self.net, ["use"])
        with pytest.raises(ValueError, match="got 'zzz'; ModuleDict has 'used', 'unused', 'pair'"):
            FeatureTap(self.net, ["zzz"])


@pytest.mark.parametrize("probability", [1.0, 0.3])
def test_a_joint_is_lost_as_often_as_its_focus_says(probability: float) -> None:
    """By its mean over time, relative to the greatest: erasing * q / max / 2, as u is uniform."""
    clip = torch.tensor(
        [[[0.8, 0.2, 0.0, 0.4], [0.4, 0.2, 0.0, 0.8]], [[0.0, 0.3, 0.6, 0.4], [0.0, 0.3, 0.0, 0.5]]]
    )
    count = 40_000
    torch.manual_seed(0)
    lost = draw_erased(clip.expand(count, 2, 2, 4), probability)
    assert lost.shape == (count, 2, 1, 4)
    assert set(lost.unique().tolist()) == {0, 1}
    share = lost.double().mean(0)[:, 0]
    wanted = probability * torch.tensor([[1, 1 / 3, 0, 1], [0, 1 / 2, 1 / 2, 3 / 4]]) / 2
    spread = (wanted * (1 - wanted) / count).sqrt()
    assert ((share - wanted).abs() <= 4 * spread).all(), share


def test_one_u_for_all_joints_of_a_clip() -> None:
    """Two joints of full focus go together with E[u^2] = 1/3, not 1/4, in a chosen clip."""
    count = 40_000
    torch.manual_seed(1)
    for probability in (1.0, 0.5):
        lost = draw_erased(torch.ones(count, 1, 1, 2), probability)[:, 0, 0]
        both = lost.prod(1).double().mean().item()
        assert both == pytest.approx(probability / 3, abs=4 * (2 / 9 / count) ** 0.5)


@given(
    seed=st.integers(0, 10**6),
    probability=st.floats(0, 1),
    frames=st.integers(1, 4),
    dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_never_a_joint_without_focus(
    seed: int, probability: float, frames: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    focus = torch.rand(8, 2, frames, 5).to(dtype)
    focus[torch.rand(8, 2, 1, 5).expand_as(focus) > 0.5] = 0
    focus[0] = 0
    lost = draw_erased(focus, probability)
    assert lost.shape == (8, 2, 1, 5)
    assert lost.dtype == dtype
    assert not lost[focus.sum(2, keepdim=True) == 0].any()
    assert not draw_erased(focus, 0.0).any()
    torch.manual_seed(seed)
    one = draw_erased(focus.double(), probability)
    torch.manual_seed(seed)
    assert torch.equal(draw_erased(4 * focus.double(), probability), one)


# ------------------------------------------------------------------------------------------------
# classes, presence and sizes at the edge


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ([-1, -100], r"expected classes in 0\.\.119, got -100 to -1"),
        ([0, 120], r"expected classes in 0\.\.119, got 0 to 120"),
        (torch.tensor([1, 0], dtype=torch.uint8), "expected classes of dtype torch.int64, got"),
        ([True, False], "expected classes of dtype torch.int64, got torch.bool"),
    ],
)
def test_classes_that_are_none(classes: object, text: str, score: str) -> None:
    """-100 is what cross-entropy ignores; as an index it would be class 20 of 120."""
    features, weight, _ = draw(2, 3, 4, 5, 1, classes=120)
    chosen = torch.as_tensor(classes)
    logits = head(features, weight, 1)
    with pytest.raises(ValueError, match=text):
        linear_head_focus(features, weight, logits, chosen, score=score)
    with pytest.raises(ValueError, match=text):
        class_score(logits, chosen, score)


def test_a_map_constant_up_to_rounding_is_zeros() -> None:
    almost = torch.full((1, 1, 2, 3), 0.1)
    almost[0, 0, 1, 2] = torch.nextafter(torch.tensor(0.1), torch.tensor(1.0))
    assert min_max_normalize(almost).eq(0).all()
    almost[0, 0, 1, 2] = 0.1001
    assert min_max_normalize(almost).max() == 1


def test_absent_persons_are_left_out_of_the_mean() -> None:
    gradient = torch.tensor([[1.0], [5.0]])  # of two persons
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 1, 1, 2)
    found = weigh_channels(
        gradient, features, num_persons=2, present=torch.tensor([[True, False]]), normalize=False
    )
    assert found.flatten().tolist() == [0.5, 1.0, 0.0, 0.0]


def test_presence_in_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected present with dtype torch\.bool, got"):
        min_max_normalize(torch.rand(1, 2, 3, 4), torch.ones(1, 2, 3))


def test_no_clips_have_no_focus() -> None:
    features = torch.zeros(0, 3, 4, 5, requires_grad=True)
    weight = torch.ones(6, 3)
    none = torch.zeros(0, dtype=torch.int64)
    logits = head(features, weight, 1)
    assert linear_head_focus(features, weight, logits, none, num_persons=1).shape == (0, 1, 4, 5)
    assert grad_cam(class_score(logits, none), features).shape == (0, 1, 4, 5)
