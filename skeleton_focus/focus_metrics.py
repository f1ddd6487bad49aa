"""Measure a focus against the ground truth, another class or layer, or the prediction.

Every measure returns one number for each clip, computed in at least float32 and without a gradient.
The number is NaN if it is undefined for a clip, also if the focus holds NaN: average with
``nanmean``. ``min_max_normalize`` brings any map to [0, 1], as the measures with a threshold need.

Deletion and insertion curves test whether a focus is faithful to the network: they show the
prediction while the units of highest focus are removed from the clip, or inserted. A unit is an
entry (m, t, v), a joint (m, v) of a person, or a frame t. Only units with a non-zero channel are
ranked and counted, by decreasing focus; ties are ordered by index.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from ._checks import check_choice, check_classes, check_shape, message
from .focus import at_least_float32, min_max_normalize, resize_focus

__all__ = [
    "area_under_curve",
    "class_overlap",
    "deletion_curve",
    "focus_average_precision",
    "focus_coverage",
    "focus_iou",
    "insertion_curve",
    "layer_coherence",
    "pointing_game",
    "relevance_mass",
]

UNITS = ("entries", "joints", "frames")


def focus_average_precision(focus: Tensor, critical: Tensor) -> Tensor:
    r"""Compute the average precision of a focus against the ground truth, for each clip.

    With the entries (m, t, v) ranked by focus, :math:`AP = \sum_i (R_i - R_{i-1}) P_i`; entries of
    equal focus count as one step. It is 1 if every critical entry ranks above all others; for an
    uninformative focus, it is the fraction of critical entries.

    Shape:
        focus (N, M, T, V), critical (N, M, T, V) in {0, 1} -> (N,) in [0, 1]; NaN for a clip
        without critical entries.

    Raises:
        ValueError: mismatched shapes, or no entries.

    Example:
        >>> truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> focus_average_precision(torch.tensor([0.9, 0.1, 0.8, 0.7]).view(1, 1, 2, 2), truth)
        tensor([1.])
        >>> focus_average_precision(torch.zeros(1, 1, 2, 2), truth)
        tensor([0.5000])

    Reference:
        Average precision, as in Everingham et al., The PASCAL VOC Challenge, IJCV 2010, without
        interpolation.
    """
    _check_pair("focus_average_precision", focus, "critical", critical)
    score, order = _full(focus).flatten(1).sort(1, descending=True)  # (N, M * T * V)
    hit = (critical.flatten(1).gather(1, order) > 0).to(score.dtype)
    hits = hit.cumsum(1)
    precision = hits / torch.arange(1, hit.shape[1] + 1, device=focus.device)
    # A step ends where the next focus is lower; all hits of a step get the precision at its end.
    last = torch.ones_like(hit[:, :1], dtype=torch.bool)
    ends = torch.cat([score[:, 1:] < score[:, :-1], last], dim=1)
    before = torch.where(ends, hits, 0.0).cummax(1).values.roll(1, 1)
    before[:, 0] = 0
    area = (torch.where(ends, hits - before, 0.0) * precision).sum(1) / hits[:, -1]
    return area.where(~_has_nan(focus), torch.nan)


def focus_iou(focus: Tensor, critical: Tensor, *, threshold: float = 0.5) -> Tensor:
    r"""Compute the intersection over union of high focus and critical entries, for each clip.

    .. math:: IoU = \frac{|F \cap C|}{|F \cup C|},
        \qquad F = \{Q \ge \theta\}, \quad C = \{critical > 0\}

    over the entries (m, t, v). It is 0 if the focus is high nowhere, and the fraction of critical
    entries if it is high everywhere.

    Shape:
        focus (N, M, T, V), critical (N, M, T, V) in {0, 1} -> (N,) in [0, 1]; NaN for a clip
        without critical entries.

    Args:
        focus: Q, in [0, 1].
        critical: the ground truth.
        threshold: smallest focus of a chosen entry, in [0, 1].

    Raises:
        ValueError: mismatched shapes, no entries, or a threshold outside [0, 1].

    Example:
        >>> truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> focus = torch.tensor([0.9, 0.1, 0.8, 0.7]).view(1, 1, 2, 2)
        >>> focus_iou(focus, truth), focus_iou(focus, truth, threshold=0.75)
        (tensor([0.6667]), tensor([1.]))

    Reference:
        Everingham et al., The PASCAL VOC Challenge, IJCV 2010, section 4.2, as for its
        segmentations.
    """
    _check_pair("focus_iou", focus, "critical", critical)
    _check_threshold("focus_iou", threshold)
    chosen = focus.flatten(1) >= threshold
    truth = critical.flatten(1) > 0  # (N, M * T * V)
    share = _count(chosen & truth, focus) / _count(chosen | truth, focus)
    return torch.where(truth.any(1) & ~_has_nan(focus), share, torch.nan)


def pointing_game(focus: Tensor, critical: Tensor) -> Tensor:
    r"""Determine whether the highest focus lies on a critical entry, for each clip.

    :math:`|A \cap C| / |A|` with :math:`A = \arg\max_{m,t,v} Q` and :math:`C = \{critical > 0\}`: 1
    for a hit and 0 for a miss; if several entries tie for the highest focus, the fraction of hits.
    The mean over clips is the game's accuracy. There is no margin around the ground truth, because
    joints have no neighbouring pixels.

    Shape:
        focus (N, M, T, V), critical (N, M, T, V) in {0, 1} -> (N,) in [0, 1]; NaN for a clip
        without critical entries.

    Raises:
        ValueError: mismatched shapes, or no entries.

    Example:
        >>> truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> pointing_game(torch.tensor([0.9, 0.1, 0.8, 0.7]).view(1, 1, 2, 2), truth)
        tensor([1.])
        >>> pointing_game(torch.tensor([0.9, 0.9, 0.8, 0.7]).view(1, 1, 2, 2), truth)
        tensor([0.5000])

    Reference:
        Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016, section 4.1; IJCV
        2018.
    """
    _check_pair("pointing_game", focus, "critical", critical)
    score = focus.flatten(1)
    truth = critical.flatten(1) > 0  # (N, M * T * V)
    # A map with NaN gives 0 / 0, because nothing equals its maximum, NaN.
    highest = score == score.amax(1, keepdim=True)
    share = _count(highest & truth, focus) / _count(highest, focus)
    return torch.where(truth.any(1), share, torch.nan)


def relevance_mass(focus: Tensor, critical: Tensor) -> Tensor:
    r"""Compute the fraction of the focus that lies on critical entries, for each clip.

    .. math:: \frac{\sum_{(m,t,v) \in C} Q_{mtv}}{\sum_{m,t,v} Q_{mtv}}, \qquad C = \{critical > 0\}

    It is 1 if the focus is zero outside the ground truth, and the fraction of critical entries if
    it is constant. Unlike in :func:`focus_iou` and :func:`pointing_game`, a low focus over many
    entries counts by its sum.

    Shape:
        focus (N, M, T, V), critical (N, M, T, V) in {0, 1} -> (N,) in [0, 1]; NaN for a clip
        without critical entries or with a focus that is zero everywhere.

    Args:
        focus: Q, at least 0; its scale does not matter.
        critical: the ground truth.

    Raises:
        ValueError: mismatched shapes, or no entries.

    Example:
        >>> truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> relevance_mass(torch.tensor([0.9, 0.1, 0.8, 0.2]).view(1, 1, 2, 2), truth)
        tensor([0.8500])
        >>> relevance_mass(torch.zeros(1, 1, 2, 2), truth)
        tensor([nan])

    Reference:
        Relevance mass accuracy in Arras et al., CLEVR-XAI, Information Fusion 2022; the
        energy-based pointing game of Wang et al., Score-CAM, CVPR Workshops 2020.
    """
    _check_pair("relevance_mass", focus, "critical", critical)
    score = _full(focus).flatten(1)
    truth = critical.flatten(1) > 0  # (N, M * T * V)
    # NaN in the focus and an empty focus need no check: the sums give NaN.
    share = torch.where(truth, score, 0.0).sum(1) / score.sum(1)
    return torch.where(truth.any(1), share, torch.nan)


def class_overlap(focus: Tensor, rival_focus: Tensor) -> Tensor:
    r"""Compute the overlap of the focus of two classes, for each clip.

    It is low if the classes use different entries.

    .. math:: O = \frac{\sum_{m,t,v} \min(Q_1, Q_2)}{\sum_{m,t,v} \max(Q_1, Q_2)}

    It is 1 for equal maps and 0 for maps without a common entry; for binary maps, it is the
    intersection over union. If one map is empty, the overlap is NaN, because 0 would reward a focus
    that has vanished.

    Under the log-odds or the probability, the focus of two classes that share all the probability
    is disjoint for any weights: equation 2 weights the channels by W_1 - W_2 for one class and by
    W_2 - W_1 for the other. Under the logit it is not.

    Shape:
        focus (N, M, T, V), rival_focus (N, M, T, V) -> (N,) in [0, 1]; NaN for a clip where one is
        zero everywhere.

    Args:
        focus: Q of one class, in [0, 1].
        rival_focus: Q of another class at the same layer, in [0, 1].

    Raises:
        ValueError: mismatched shapes, or no entries.

    Example:
        >>> first = torch.tensor([1.0, 0.5, 0.0, 0.0]).view(1, 1, 2, 2)
        >>> second = torch.tensor([0.5, 0.5, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> class_overlap(first, second)
        tensor([0.4000])

    Reference:
        Ruzicka similarity, the soft form of intersection over union. STF's divergence loss (Ke et
        al., AAAI 2022, equation 4) aims to lower it.
    """
    _check_pair("class_overlap", focus, "rival_focus", rival_focus)
    one = _full(focus).flatten(1)
    other = _full(rival_focus).flatten(1)  # (N, M * T * V)
    # NaN in a map needs no check: it passes through the sums.
    share = torch.minimum(one, other).sum(1) / torch.maximum(one, other).sum(1)
    return torch.where(one.any(1) & other.any(1), share, torch.nan)


def layer_coherence(low_focus: Tensor, focus: Tensor) -> Tensor:
    r"""Compute Pearson's correlation of the focus at two layers, for each clip.

    .. math:: CC = \frac{\sum (P - \bar P)(Q - \bar Q)}
        {\sqrt{\sum (P - \bar P)^2 \sum (Q - \bar Q)^2}}

    over the entries (m, t, v); the map with fewer frames is first resized by :func:`resize_focus`.
    The correlation is invariant to scaling and shifting. It is 0, never NaN, if a map is constant
    up to rounding.

    It also measures whether the embedding of :class:`STFAdjacency`, reshaped to (N, M, T, V),
    follows Q.

    Shape:
        low_focus (N, M, T', V), focus (N, M, T, V) -> (N,) in [-1, 1].

    Args:
        low_focus: P, the focus at one layer.
        focus: Q, the focus at the other.

    Raises:
        ValueError: batches, persons or joints that differ, or no entries.

    Example:
        >>> low = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]).view(1, 1, 4, 2)
        >>> high = torch.tensor([[0.2, 0.6], [0.2, 0.6]]).view(1, 1, 2, 2)
        >>> layer_coherence(low, high), layer_coherence(low, 1 - high)
        (tensor([1.]), tensor([-1.]))
        >>> layer_coherence(low, torch.ones(1, 1, 2, 2))
        tensor([0.])

    Reference:
        CC in Bylinskii et al., What do different evaluation metrics tell us about saliency models?,
        TPAMI 2019. STF's coherence loss (Ke et al., AAAI 2022, equation 5) aims to raise it.
    """
    _check_map("layer_coherence", "focus", focus)
    n, m, t, v = focus.shape
    check_shape("layer_coherence", "low_focus", low_focus, f"N={n}, M={m}, T', V={v}")
    _check_map("layer_coherence", "low_focus", low_focus)
    # To the longer map: shortening by interpolation would skip frames of it.
    frames = max(t, low_focus.shape[2])
    one = _centered(low_focus, frames)
    other = _centered(focus, frames)
    lengths = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    # Pearson's correlation is the cosine of the two maps less their means.
    cosine = (one * other).sum(1) / lengths.where(lengths > 0, 1.0)
    correlation = torch.where(lengths > 0, cosine, 0.0).clamp(-1, 1)
    return correlation.where(~(_has_nan(low_focus) | _has_nan(focus)), torch.nan)


def focus_coverage(
    focus: Tensor, within: Tensor | None = None, *, threshold: float = 0.5
) -> Tensor:
    r"""Compute the fraction of entries with high focus, for each clip.

    .. math:: \frac{|\{Q \ge \theta\} \cap W|}{|W|}

    over the entries (m, t, v). W may be the joints that are present (how wide is the focus?) or the
    critical ones (how much of the action does it cover?).

    Shape:
        focus (N, M, T, V), within (N, M, T, V) -> (N,) in [0, 1]; NaN for a clip where ``within``
        is positive nowhere.

    Args:
        focus: Q, in [0, 1].
        within: W, positive at the entries that count; by default all.
        threshold: smallest focus of a covered entry, in [0, 1].

    Raises:
        ValueError: mismatched shapes, no entries, or a threshold outside [0, 1].

    Example:
        >>> focus = torch.tensor([0.9, 0.1, 0.8, 0.7]).view(1, 1, 2, 2)
        >>> first = torch.tensor([1, 1, 0, 0]).view(1, 1, 2, 2)
        >>> focus_coverage(focus), focus_coverage(focus, first)
        (tensor([0.7500]), tensor([0.5000]))
    """
    _check_pair("focus_coverage", focus, "within", focus if within is None else within)
    _check_threshold("focus_coverage", threshold)
    covered = focus.flatten(1) >= threshold  # (N, M * T * V)
    counted = torch.ones_like(covered) if within is None else within.flatten(1) > 0
    share = _count(covered & counted, focus) / _count(counted, focus)
    return share.where(~_has_nan(focus), torch.nan)


def deletion_curve(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    focus: Tensor,
    classes: Tensor | None = None,
    *,
    steps: int = 10,
    by: str = "entries",
) -> Tensor:
    r"""Compute the probability of a class while the units of highest focus are removed.

    A steep fall is good.

    .. math:: d_i = \mathrm{softmax}\big(f(x \odot [\mathrm{rank} \ge k_i])\big)_y, \qquad
        k_i = \Big\lfloor \frac{i}{S} K + \frac{1}{2} \Big\rfloor, \quad i = 0 \dots S

    with the rank of a unit, from 0, in its clip's focus (ties: lower index (m, t, v) first), K the
    number of units present in that clip (any channel non-zero), and S the number of steps. Every
    channel of removed units is set to 0, as in :func:`mask_by_focus`. An empty clip has a constant
    curve.

    The model is called S + 1 times without gradients, and its mode is not changed: call ``eval()``
    first, or dropout distorts the curve and BatchNorm's running statistics include masked clips.

    Shape:
        x (N, C, T, V, M), focus (N, M, T', V), resized to T, classes (N,) int64 -> (N, S + 1),
        nothing to all removed.

    Args:
        model: a function that returns the logits (N, classes) of x.
        x: the clips; absent joints are zero in every channel.
        focus: Q; only its order matters.
        classes: y of each clip; by default the class predicted for the whole clip.
        steps: S, at least 1.
        by: ``"entries"``; ``"joints"``, the joints of each person by their mean focus over time;
            ``"frames"``, by their mean focus over persons and joints. Means are over the entries
            that are present.

    Raises:
        ValueError: mismatched shapes, classes out of range, or an unknown option.

    Example:
        >>> x = torch.tensor([[4.0, 3.0], [2.0, 1.0]]).view(1, 1, 2, 2, 1)
        >>> def model(x):  # the probability of class 0 is the fraction of the total that is left
        ...     share = x.sum((1, 2, 3, 4)) / 10
        ...     return torch.stack([share, 1 - share], 1).log()
        >>> focus = torch.tensor([[1.0, 0.8], [0.1, 0.0]]).view(1, 1, 2, 2)
        >>> deletion_curve(model, x, focus, steps=4)
        tensor([[1.0000, 0.6000, 0.3000, 0.1000, 0.0000]])
        >>> deletion_curve(model, x, focus, steps=2, by="joints")
        tensor([[1.0000, 0.4000, 0.0000]])

    Reference:
        RISE (Petsiuk et al., BMVC 2018), section 4.1, algorithm 1.
    """
    return _curve("deletion_curve", model, x, focus, classes, steps, by)


def insertion_curve(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    focus: Tensor,
    classes: Tensor | None = None,
    *,
    steps: int = 10,
    by: str = "entries",
) -> Tensor:
    r"""Compute the probability of a class while the units of highest focus are inserted.

    A steep rise is good.

    .. math:: e_i = \mathrm{softmax}\big(f(x \odot [\mathrm{rank} < k_i])\big)_y

    with ranks, k_i and model calls as in :func:`deletion_curve`. Its last value is that curve's
    first.

    Shape:
        x (N, C, T, V, M), focus (N, M, T', V), resized to T, classes (N,) int64 -> (N, S + 1),
        nothing to all inserted.

    Args:
        model: a function that returns the logits (N, classes) of x.
        x: the clips; absent joints are zero in every channel.
        focus: Q; only its order matters.
        classes: y of each clip; by default the class predicted for the whole clip.
        steps: S, at least 1.
        by: the units, ``"entries"``, ``"joints"`` or ``"frames"``.

    Raises:
        ValueError: mismatched shapes, classes out of range, or an unknown option.

    Example:
        >>> x = torch.tensor([[4.0, 3.0], [2.0, 1.0]]).view(1, 1, 2, 2, 1)
        >>> def model(x):  # the probability of class 0 is the fraction of the total that is present
        ...     share = x.sum((1, 2, 3, 4)) / 10
        ...     return torch.stack([share, 1 - share], 1).log()
        >>> focus = torch.tensor([[1.0, 0.8], [0.1, 0.0]]).view(1, 1, 2, 2)
        >>> insertion_curve(model, x, focus, steps=4)
        tensor([[0.0000, 0.4000, 0.7000, 0.9000, 1.0000]])

    Reference:
        RISE (Petsiuk et al., BMVC 2018), section 4.1, starting from an empty clip instead of a
        blurred image.
    """
    return _curve("insertion_curve", model, x, focus, classes, steps, by, insert=True)


def area_under_curve(curve: Tensor) -> Tensor:
    r"""Compute the area under a deletion or insertion curve by the trapezoidal rule over [0, 1].

    .. math:: \frac{1}{S} \sum_{i=1}^{S} \frac{d_{i-1} + d_i}{2}

    Low is good for deletion, high for insertion.

    Shape:
        (N, S + 1) -> (N,), in [0, 1] for a curve of probabilities.

    Raises:
        ValueError: another shape, or a curve of fewer than two points.

    Example:
        >>> area_under_curve(torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.0, 0.0]]))
        tensor([0.5000, 0.2500])

    Reference:
        RISE (Petsiuk et al., BMVC 2018), section 4.1.
    """
    check_shape("area_under_curve", "curve", curve, "N, points")
    if curve.shape[1] < 2:
        raise ValueError(
            message("area_under_curve", "a curve of at least 2 points", curve.shape[1])
        )
    return torch.trapezoid(at_least_float32(curve), dim=1) / (curve.shape[1] - 1)


def _curve(
    who: str,
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    focus: Tensor,
    classes: Tensor | None,
    steps: int,
    by: str,
    insert: bool = False,
) -> Tensor:
    _check_curve(who, model, x, focus, classes, steps, by)
    with torch.no_grad():
        rank, present = _ranks(x, focus, by)
        curve: list[Tensor] = []
        # The whole clip comes first, because its prediction is the default class.
        for step in range(steps, -1, -1) if insert else range(steps + 1):
            # The share step / steps of what is present, rounded in integers.
            border = (2 * step * present + steps) // (2 * steps)
            before = rank < border.view(-1, 1, 1, 1, 1)
            removed = ~before if insert else before
            # masked_fill makes a new tensor in each step, so a model may write to its input.
            logits = model(x.masked_fill(removed, 0))
            check_shape(who, "logits", logits, f"N={len(x)}, classes")
            if not curve:
                chosen = logits.argmax(1) if classes is None else classes.long()
                check_classes(who, chosen, logits.shape[1])
            curve.append(at_least_float32(logits).softmax(1).gather(1, chosen[:, None]))
        return torch.cat(curve[::-1] if insert else curve, 1)


def _ranks(x: Tensor, focus: Tensor, by: str) -> tuple[Tensor, Tensor]:
    """Return each unit's rank from 0, absent ones last, and the number of present units, (N,).

    The ranks are broadcastable against x.
    """
    present_entries = rearrange((x != 0).any(1), "n t v m -> n m t v")
    axes = {"entries": (), "joints": (2,), "frames": (1, 3)}[by]
    # Means of a half-precision focus would tie where the entries differ.
    score = resize_focus(at_least_float32(focus), x.shape[2])
    if axes:
        count = present_entries.sum(axes, keepdim=True)
        # The focus of absent entries must not dilute or raise the mean of a joint or frame.
        total = torch.where(present_entries, score, 0.0).sum(axes, keepdim=True)
        score = total / count.clamp(min=1)
        present_entries = count > 0
    present = present_entries.flatten(1)
    # Absent units rank last, beyond every border, so they are neither removed nor counted.
    known = torch.where(present, score.flatten(1), -torch.inf)
    order = known.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(1).view(score.shape)  # the inverse permutation
    return rearrange(rank, "n m t v -> n 1 t v m"), present.sum(1)


def _check_curve(
    who: str,
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    focus: Tensor,
    classes: Tensor | None,
    steps: int,
    by: str,
) -> None:
    if not callable(model):
        raise ValueError(message(who, "model to be a function", type(model).__name__))
    check_choice(who, "by", by, UNITS)
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(message(who, "steps as an integer of at least 1", steps))
    check_shape(who, "x", x, "N, C, T, V, M")
    n, _, t, v, m = x.shape
    if min(t, v, m) == 0:
        raise ValueError(message(who, "x (N, C, T, V, M) with at least one entry", tuple(x.shape)))
    check_shape(who, "focus", focus, f"N={n}, M={m}, T', V={v}")
    if focus.shape[2] == 0:
        raise ValueError(message(who, "a focus of at least one frame", tuple(focus.shape)))
    if classes is not None:
        check_shape(who, "classes", classes, f"N={n}")
        if classes.is_floating_point():
            raise ValueError(message(who, "integer classes", classes.dtype))


def _full(x: Tensor) -> Tensor:
    """Detach and convert to at least float32."""
    return at_least_float32(x.detach())


def _has_nan(focus: Tensor) -> Tensor:
    """Whether each clip's map holds NaN, (N,) bool."""
    return focus.isnan().flatten(1).any(1)


def _count(entries: Tensor, like: Tensor) -> Tensor:
    """The number of True entries in (N, entries), in the dtype of a measure of ``like``."""
    return entries.sum(1).to(torch.promote_types(like.dtype, torch.float32))


def _centered(focus: Tensor, frames: int) -> Tensor:
    """Resize a map and subtract its mean: (N, M * T * V), zeros if the original is constant."""
    # Interpolation rounds a constant map to one that varies, so it becomes zeros before.
    resized = resize_focus(min_max_normalize(_full(focus)), frames).flatten(1)
    return resized - resized.mean(1, keepdim=True)


def _check_map(who: str, name: str, focus: Tensor) -> None:
    check_shape(who, name, focus, "N, M, T, V")
    if 0 in focus.shape[1:]:
        raise ValueError(
            message(who, f"{name} (N, M, T, V) with at least one entry", tuple(focus.shape))
        )


def _check_pair(who: str, focus: Tensor, name: str, other: Tensor) -> None:
    _check_map(who, "focus", focus)
    n, m, t, v = focus.shape
    check_shape(who, name, other, f"N={n}, M={m}, T={t}, V={v}")


def _check_threshold(who: str, threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(message(who, "a threshold in [0, 1]", threshold))
