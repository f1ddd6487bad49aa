"""Spatio-temporal focus: the joints and frames that a prediction relies on (STF, equation 2).

The focus of class y at a feature map X is

    Q = ReLU( sum_c w_c X_c ),   w_c = mean over (person, frame, joint) of  d score_y / d X_c,

min-max normalised to [0, 1] for each sample. ``score_y`` is the logit of y by default, as in
Grad-CAM. The gradient of the log-odds is the probability's divided by p (1 - p) > 0, a factor that
the normalisation removes, and it does not vanish as p -> 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ._checks import check_choice, check_classes, check_shape, message
from ._second_order import score_gradient

__all__ = [
    "class_score",
    "grad_cam",
    "linear_head_focus",
    "mask_by_focus",
    "min_max_normalize",
    "resize_focus",
]

SCORES = ("logit", "log_odds", "probability")


def class_score(logits: Tensor, classes: Tensor, score: str = "logit") -> Tensor:
    r"""Compute the score of one class for each sample.

    ``"logit"``: :math:`z_y`; ``"log_odds"``: :math:`z_y - \log \sum_{k \ne y} e^{z_k}`;
    ``"probability"``: :math:`\mathrm{softmax}(z)_y`. If all other logits are minus infinity, the
    log-odds are infinite and only :math:`z_y` has a gradient.

    Shape:
        logits (N, classes), classes (N,) int64 -> (N,).

    Raises:
        ValueError: mismatched shapes, fewer than two classes, classes that are not int64 or out of
            range, or an unknown score.

    Example:
        >>> class_score(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor([2.])
    """
    check_choice("class_score", "score", score, SCORES)
    _check_logits("class_score", logits)
    check_shape("class_score", "classes", classes, f"N={len(logits)}")
    check_classes("class_score", classes, logits.shape[1])
    if score == "probability":
        return logits.softmax(1).gather(1, classes[:, None]).squeeze(1)
    own = logits.gather(1, classes[:, None]).squeeze(1)
    if score == "logit":
        return own
    # logsumexp of nothing but minus infinities has a NaN gradient, so zeros stand in for them.
    rivals = _without(logits, classes)
    alone = rivals.isneginf().all(1)
    of_rivals = rivals.masked_fill(alone[:, None], 0).logsumexp(1)
    return own - of_rivals.masked_fill(alone, float("-inf"))


def top_two(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the predicted class and the most probable other class.

    The predicted class equals ``argmax`` even for tied classes.

    Shape:
        logits (N, classes) -> (N,) and (N,).

    Example:
        >>> top_two(torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0]]))[0]
        tensor([0, 1])
    """
    first = logits.argmax(1)
    # topk breaks ties in another order than argmax, with which accuracy is counted.
    one, other = logits.topk(2).indices.unbind(1)
    return first, torch.where(one == first, other, one)


def grad_cam(
    score: Tensor,
    features: Tensor,
    *,
    num_persons: int = 1,
    present: Tensor | None = None,
    normalize: bool = True,
    create_graph: bool = False,
) -> Tensor:
    r"""Compute the focus of a score at a feature map by automatic differentiation.

    .. math:: Q = \mathrm{ReLU}\Big(\sum_c w_c X_c\Big), \qquad
        w_c = \frac{1}{Z} \sum_{m,t,v} \frac{\partial s}{\partial X_{cmtv}}

    ``.grad`` is not modified.

    Shape:
        score (N,), features (N * M, C, T, V) with the persons of a sample next to each other
        -> (N, M, T, V).

    Args:
        score: the score to explain, one number for each sample, computed from ``features``.
        features: the feature map X.
        num_persons: M.
        present: (N, M) bool, which persons are present; absent persons have no focus and are
            excluded from the mean over persons. By default all are present.
        normalize: min-max normalise each sample to [0, 1]; if False, return Q as printed above.
        create_graph: allow a loss on the focus to be differentiated.

    Raises:
        ValueError: mismatched shapes, or a score that does not depend on ``features``.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2).requires_grad_()
        >>> grad_cam(x.mean((1, 2, 3)), x).squeeze()
        tensor([[0.0000, 0.3333],
                [0.6667, 1.0000]])

    Reference:
        Grad-CAM (Selvaraju et al., ICCV 2017); STF (Ke et al., AAAI 2022), equation 2.
    """
    check_shape("grad_cam", "score", score, "N")
    _check_features("grad_cam", features, len(score), num_persons)
    gradient = at_least_float32(score_gradient(score, features, create_graph))
    # The sum over a long clip would overflow in float16, so the conversion comes first.
    gradient = gradient.sum((2, 3))  # (N * M, C)
    # Without create_graph the weights are constants; the map's own graph is then of no use.
    weighted = features if create_graph else features.detach()
    return weigh_channels(
        gradient, weighted, num_persons=num_persons, present=present, normalize=normalize
    )


def weigh_channels(
    gradient: Tensor,
    features: Tensor,
    *,
    num_persons: int = 1,
    present: Tensor | None = None,
    normalize: bool = True,
) -> Tensor:
    """Compute equation 2 from the gradient's sums over frames and joints.

    With ``present``, absent persons have no focus, and w_c is the mean over the present persons.

    Shape:
        gradient (N * M, C), features (N * M, C, T, V), present (N, M) bool -> (N, M, T, V).

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
        >>> weigh_channels(torch.ones(1, 1), x, normalize=False).flatten()
        tensor([0.2500, 0.5000, 0.7500, 1.0000])
    """
    # Autocast would run the weighted sum of channels in half precision again.
    with torch.autocast(features.device.type, enabled=False):
        by_person = rearrange(at_least_float32(gradient), "(n m) c -> n m c", m=num_persons)
        if present is None:
            channel = by_person.mean(1)
        else:
            _check_present("weigh_channels", present, len(by_person), num_persons)
            mask = present[..., None].to(by_person.dtype)  # (N, M, 1)
            channel = (by_person * mask).sum(1) / mask.sum(1).clamp(min=1)
        # Z: the mean over persons is taken above, that over frames and joints here.
        channel = channel / (features.shape[2] * features.shape[3])
        return _focus(channel, features, num_persons, present, normalize)


def linear_head_focus(
    features: Tensor,
    weight: Tensor,
    logits: Tensor,
    classes: Tensor,
    *,
    num_persons: int = 1,
    present: Tensor | None = None,
    score: str = "logit",
    normalize: bool = True,
) -> Tensor:
    r"""Compute the focus at the last map before global average pooling and a linear layer.

    For this head, :func:`grad_cam` has a closed form that needs no gradient: with :math:`W` the
    head's weight,

    .. math:: w_c = \frac{1}{Z} W_{yc}

    for the logit of class y, which makes the focus its class activation map (CAM);

    .. math:: w_c = \frac{1}{Z} \sum_{k \ne y} \mathrm{softmax}_{k \ne y}(z)_k \, (W_{yc} - W_{kc})

    for its log-odds, and p (1 - p) times that for its probability. Z is the number of pooled
    entries.

    Shape:
        features (N * M, C, T, V), weight (classes, C), logits (N, classes), classes (N,)
        -> (N, M, T, V).

    Args:
        features: the map that the head pools over persons, frames and joints.
        weight: the linear layer's weight.
        logits: the network's output.
        classes: y, the class to explain for each sample.
        num_persons: M.
        present: (N, M) bool, which persons are present; absent persons have no focus. By default
            all are present.
        score: ``"logit"``, ``"log_odds"`` or ``"probability"``.
        normalize: min-max normalise each sample to [0, 1].

    Raises:
        ValueError: mismatched shapes, classes that are not int64 or out of range, or an unknown
            score.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
        >>> weight = torch.tensor([[1.0], [-1.0]])
        >>> linear_head_focus(x, weight, x.mean((2, 3)) @ weight.T, torch.tensor([0])).squeeze()
        tensor([[0.0000, 0.3333],
                [0.6667, 1.0000]])

    Reference:
        STF (Ke et al., AAAI 2022), equation 2, worked out for this head; CAM (Zhou et al., CVPR
        2016).
    """
    check_choice("linear_head_focus", "score", score, SCORES)
    _check_logits("linear_head_focus", logits)
    check_shape("linear_head_focus", "classes", classes, f"N={len(logits)}")
    check_classes("linear_head_focus", classes, logits.shape[1])
    _check_features("linear_head_focus", features, len(logits), num_persons)
    check_shape(
        "linear_head_focus", "weight", weight, f"classes={logits.shape[1]}, C={features.shape[1]}"
    )
    with torch.autocast(features.device.type, enabled=False):
        weight = at_least_float32(weight)
        logits = at_least_float32(logits)
        channel = weight[classes]
        if score != "logit":
            rivals = _without(logits, classes)
            alone = rivals.isneginf().all(1, keepdim=True)
            # If no rival is possible, the log-odds have the gradient of z_y alone, see class_score.
            rivals = rivals.masked_fill(alone, 0).softmax(1).masked_fill(alone, 0)  # zero at y
            channel = channel - rivals @ weight
        # The head pools absent persons too, so Z counts all; the normalisation removes the factor.
        channel = channel / (num_persons * features.shape[2] * features.shape[3])
        if score == "probability":
            own = class_score(logits, classes, "probability")
            channel = (own * (1 - own))[:, None] * channel
        if present is not None:
            _check_present("linear_head_focus", present, len(logits), num_persons)
        return _focus(channel, features, num_persons, present, normalize)


def min_max_normalize(focus: Tensor, present: Tensor | None = None) -> Tensor:
    """Normalise each sample to [0, 1] over its last three axes (M, T, V).

    A map that is constant up to rounding becomes zeros with a zero gradient, never NaN. Persons
    that are not ``present``, (N, M) or for each frame (N, M, T), become zeros and are excluded from
    the minimum and maximum.

    Shape:
        (N, M, T, V), of any number type; integers and booleans become float32 -> (N, M, T, V).

    Example:
        >>> min_max_normalize(torch.tensor([1.0, 2.0, 5.0]).view(1, 1, 1, 3)).flatten()
        tensor([0.0000, 0.2500, 1.0000])
        >>> min_max_normalize(torch.full((1, 1, 1, 3), 7.0)).flatten()
        tensor([0., 0., 0.])
    """
    check_shape("min_max_normalize", "focus", focus, "N, M, T, V")
    if 0 in focus.shape[1:]:
        raise ValueError(message("min_max_normalize", "a focus with values", tuple(focus.shape)))
    dtype = focus.dtype if focus.is_floating_point() else torch.float32
    focus = at_least_float32(focus)
    # Absent persons must neither be the minimum nor the maximum, so each side has its own filling.
    lowest = focus
    highest = focus
    if present is not None:
        if present.dim() == 2:
            _check_present("min_max_normalize", present, *focus.shape[:2])
            present = present[..., None]
        else:
            _check_present("min_max_normalize", present, *focus.shape[:3])
        absent = ~present[..., None]
        lowest = focus.masked_fill(absent, float("inf"))
        highest = focus.masked_fill(absent, float("-inf"))
        focus = focus.masked_fill(absent, 0)
    low = lowest.amin((1, 2, 3), keepdim=True)
    high = highest.amax((1, 2, 3), keepdim=True)
    span = high - low
    limits = torch.finfo(focus.dtype)
    # A constant map varies by the rounding of the precision it came in, not of float32.
    rounding = torch.finfo(dtype).eps
    # A span of subnormal numbers would make the gradient infinite or NaN; the last term stops it.
    varies = span > rounding * torch.maximum(low.abs(), high.abs()) + limits.tiny / limits.eps
    # The inner where keeps the unused 0 / 0 of a constant map from making the gradient NaN.
    normalized = torch.where(varies, (focus - low) / torch.where(varies, span, 1.0), 0.0)
    if present is not None:
        normalized = normalized.masked_fill(absent, 0)
    return normalized.to(dtype)


def resize_focus(focus: Tensor, frames: int) -> Tensor:
    """Interpolate a focus linearly along time, each joint separately.

    Shape:
        (N, M, T', V), of any number type; integers and booleans become float32
        -> (N, M, T=frames, V).

    Example:
        >>> resize_focus(torch.tensor([0.0, 1.0]).view(1, 1, 2, 1), 4).flatten()
        tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """
    check_shape("resize_focus", "focus", focus, "N, M, T', V")
    if frames < 1:
        raise ValueError(message("resize_focus", "at least 1 frame", frames))
    if focus.shape[2] < 1:
        raise ValueError(message("resize_focus", "a focus of at least 1 frame", tuple(focus.shape)))
    focus = focus if focus.is_floating_point() else focus.float()
    if focus.shape[2] == frames:
        return focus
    # Joints as channels, because joints with neighbouring indices need not be neighbours.
    series = rearrange(focus, "n m t v -> n (m v) t")
    resized = F.interpolate(series, frames, mode="linear", align_corners=False)
    return rearrange(resized, "n (m v) t -> n m t v", m=focus.shape[1])


def mask_by_focus(x: Tensor, focus: Tensor) -> Tensor:
    r"""Mask an input sequence by the focus, the same in every channel: :math:`X - Q \odot X`.

    Shape:
        x (N, C, T, V, M), focus (N, M, T', V), resized to T -> (N, C, T, V, M), with the dtype of x
        if that is floating-point.

    Example:
        >>> x = torch.ones(1, 2, 1, 3, 1)
        >>> mask_by_focus(x, torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)).flatten()
        tensor([1.0000, 0.5000, 0.0000, 1.0000, 0.5000, 0.0000])

    Reference:
        STF (Ke et al., AAAI 2022), equation 3.
    """
    check_shape("mask_by_focus", "x", x, "N, C, T, V, M")
    n, _, t, v, m = x.shape
    check_shape("mask_by_focus", "focus", focus, f"N={n}, M={m}, T', V={v}")
    # Visibility is masked too, so that a fully masked joint equals one that was never seen.
    masked = x * (1 - rearrange(resize_focus(focus, t), "n m t v -> n 1 t v m"))
    return masked.to(x.dtype) if x.is_floating_point() else masked


def draw_erased(focus: Tensor, probability: float) -> Tensor:
    r"""Draw the joints to erase from each clip, as ones among zeros, for :func:`mask_by_focus`.

    A clip is chosen with ``probability``. A chosen clip loses joint v of person m in all frames
    with probability :math:`u \bar Q_{mv} / \max \bar Q`, where Q-bar is the joint's mean focus and
    :math:`u \sim U(0, 1)` is drawn once for each clip.

    Shape:
        (N, M, T, V) -> (N, M, 1, V).

    Example:
        >>> focus = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
        >>> bool(draw_erased(focus, 1.0)[..., 1].any()), bool(draw_erased(focus, 0.0).any())
        (False, False)
    """
    mean = focus.mean(2, keepdim=True)
    highest = mean.amax((1, 2, 3), keepdim=True)
    chosen = torch.rand_like(highest) < probability
    strength = torch.rand_like(highest) * chosen  # u, and 0 for clips that stay whole
    # In an empty focus the highest is 0, and 0 / tiny erases nothing, where 0 / 0 would be NaN.
    chance = strength * mean / highest.clamp(min=torch.finfo(mean.dtype).tiny)
    return (torch.rand_like(mean) < chance).to(mean.dtype)


def _focus(
    channel: Tensor, features: Tensor, num_persons: int, present: Tensor | None, normalize: bool
) -> Tensor:
    """Sum the channels weighted by (N, C), in at least float32; ReLU; normalise on request."""
    # The persons of a clip share w_c, because equation 2 takes its mean over them.
    rows = channel.repeat_interleave(num_persons, 0)  # (N * M, C)
    focus = F.relu(torch.einsum("nc,nctv->ntv", rows, at_least_float32(features)))
    focus = rearrange(focus, "(n m) t v -> n m t v", m=num_persons)
    if normalize:
        return min_max_normalize(focus, present)
    return focus if present is None else focus.masked_fill(~present[..., None, None], 0)


def _without(logits: Tensor, classes: Tensor) -> Tensor:
    """The logits with each sample's own class set to -inf."""
    return logits.scatter(1, classes[:, None], float("-inf"))


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision, integers and booleans to float32; keep float32 and float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_present(who: str, present: Tensor, *sizes: int) -> None:
    """Check that ``present`` is bool, (N, M) or (N, M, T) by the number of sizes."""
    axes = ", ".join(f"{axis}={size}" for axis, size in zip("NMT", sizes, strict=False))
    check_shape(who, "present", present, axes)
    if present.dtype != torch.bool:
        raise ValueError(message(who, "present with dtype torch.bool", present.dtype))


def _check_logits(who: str, logits: Tensor) -> None:
    check_shape(who, "logits", logits, "N, classes")
    if logits.shape[1] < 2:
        raise ValueError(message(who, "logits of at least 2 classes", logits.shape[1]))


def _check_features(who: str, features: Tensor, batch: int, num_persons: int) -> None:
    check_shape(who, "features", features, f"N*M={batch * num_persons}, C, T, V")
