"""How good a focus is: against the joints and frames known to make the class, another class's focus, another layer's.

Every measure gives one number for each clip, computed in at least float32 and without a gradient. Where a clip has
nothing to measure against, its number is NaN: average with ``nanmean``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import check_shape, message
from .focus import at_least_float32, min_max_normalize, resize_focus


def focus_average_precision(focus: Tensor, critical: Tensor) -> Tensor:
    r"""Area under the precision-recall curve of a focus against the truth, for each clip.

    With the entries (m, t, v) ranked by focus, :math:`AP = \sum_i (R_i - R_{i-1}) P_i`; entries of equal focus count
    as one step. 1 when every critical entry ranks above every other; a focus that knows nothing reaches the share of
    critical entries.

    Shape:
        focus (N, M, T, V), critical (N, M, T, V) in {0, 1} -> (N,) in [0, 1]; NaN for a clip without critical entries.

    Raises:
        ValueError: shapes that differ, or no entries.

    Example:
        >>> truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> focus_average_precision(torch.tensor([0.9, 0.1, 0.8, 0.7]).view(1, 1, 2, 2), truth)
        tensor([1.])
        >>> focus_average_precision(torch.zeros(1, 1, 2, 2), truth)
        tensor([0.5000])

    Reference:
        Average precision, as in Everingham et al., The PASCAL VOC Challenge, IJCV 2010, without interpolation.
    """
    _check_pair("focus_average_precision", focus, "critical", critical)
    score, order = _full(focus).flatten(1).sort(1, descending=True)  # (N, M * T * V)
    hit = (critical.flatten(1).gather(1, order) > 0).to(score.dtype)
    hits = hit.cumsum(1)
    precision = hits / torch.arange(1, hit.shape[1] + 1, device=focus.device)
    # A step ends where the next focus is lower; its precision counts for all of its hits.
    ends = torch.cat([score[:, 1:] < score[:, :-1], torch.ones_like(hit[:, :1], dtype=torch.bool)], dim=1)
    before = torch.where(ends, hits, 0.0).cummax(1).values.roll(1, 1)
    before[:, 0] = 0
    return (torch.where(ends, hits - before, 0.0) * precision).sum(1) / hits[:, -1]


def focus_iou(focus: Tensor, critical: Tensor, *, threshold: float = 0.5) -> Tensor:
    r"""Intersection over union of where the focus is high and what is critical, for each clip.

    .. math:: IoU = \frac{|F \cap C|}{|F \cup C|}, \qquad F = \{Q \ge \theta\}, \quad C = \{critical > 0\}

    over the entries (m, t, v). A focus that is high nowhere reaches 0, one that is high everywhere the share of
    critical entries.

    Shape:
        focus (N, M, T, V), critical (N, M, T, V) in {0, 1} -> (N,) in [0, 1]; NaN for a clip without critical entries.

    Args:
        focus: Q, in [0, 1].
        critical: the truth.
        threshold: from which focus on an entry is chosen, in [0, 1].

    Raises:
        ValueError: shapes that differ, no entries, or a threshold outside [0, 1].

    Example:
        >>> truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> focus = torch.tensor([0.9, 0.1, 0.8, 0.7]).view(1, 1, 2, 2)
        >>> focus_iou(focus, truth), focus_iou(focus, truth, threshold=0.75)
        (tensor([0.6667]), tensor([1.]))

    Reference:
        Everingham et al., The PASCAL VOC Challenge, IJCV 2010, section 4.2, as for its segmentations.
    """
    _check_pair("focus_iou", focus, "critical", critical)
    _check_threshold("focus_iou", threshold)
    chosen, truth = focus.flatten(1) >= threshold, critical.flatten(1) > 0  # (N, M * T * V)
    share = _count(chosen & truth, focus) / _count(chosen | truth, focus)
    return torch.where(truth.any(1), share, torch.nan)


def pointing_game(focus: Tensor, critical: Tensor) -> Tensor:
    r"""Whether the highest focus lies on a critical entry: hit or miss, for each clip.

    :math:`|A \cap C| / |A|` with :math:`A = \arg\max_{m,t,v} Q` and :math:`C = \{critical > 0\}`: 1 for a hit and 0 for
    a miss; of several entries that tie for the highest focus, the share that hits. The mean over clips is the game's
    accuracy. There is no margin around the truth: a joint has no neighbouring pixels.

    Shape:
        focus (N, M, T, V), critical (N, M, T, V) in {0, 1} -> (N,) in [0, 1]; NaN for a clip without critical entries.

    Raises:
        ValueError: shapes that differ, or no entries.

    Example:
        >>> truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> pointing_game(torch.tensor([0.9, 0.1, 0.8, 0.7]).view(1, 1, 2, 2), truth)
        tensor([1.])
        >>> pointing_game(torch.tensor([0.9, 0.9, 0.8, 0.7]).view(1, 1, 2, 2), truth)
        tensor([0.5000])

    Reference:
        Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016, section 4.1; IJCV 2018.
    """
    _check_pair("pointing_game", focus, "critical", critical)
    score, truth = focus.flatten(1), critical.flatten(1) > 0  # (N, M * T * V)
    highest = score == score.amax(1, keepdim=True)
    share = _count(highest & truth, focus) / _count(highest, focus)
    return torch.where(truth.any(1), share, torch.nan)


def relevance_mass(focus: Tensor, critical: Tensor) -> Tensor:
    r"""The share of the focus that lies on critical entries, for each clip.

    .. math:: \frac{\sum_{(m,t,v) \in C} Q_{mtv}}{\sum_{m,t,v} Q_{mtv}}, \qquad C = \{critical > 0\}

    1 for a focus that is zero outside the truth. A constant focus reaches the share of critical entries. In contrast to
    :func:`focus_iou` and :func:`pointing_game`, a faint focus over many entries counts by its sum.

    Shape:
        focus (N, M, T, V), critical (N, M, T, V) in {0, 1} -> (N,) in [0, 1]; NaN for a clip without critical entries
        or with a focus that is zero everywhere.

    Args:
        focus: Q, at least 0; its scale does not matter.
        critical: the truth.

    Raises:
        ValueError: shapes that differ, or no entries.

    Example:
        >>> truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> relevance_mass(torch.tensor([0.9, 0.1, 0.8, 0.2]).view(1, 1, 2, 2), truth)
        tensor([0.8500])
        >>> relevance_mass(torch.zeros(1, 1, 2, 2), truth)
        tensor([nan])

    Reference:
        Relevance mass accuracy in Arras et al., CLEVR-XAI, Information Fusion 2022; the energy-based pointing game of
        Wang et al., Score-CAM, CVPR Workshops 2020.
    """
    _check_pair("relevance_mass", focus, "critical", critical)
    score, truth = _full(focus).flatten(1), critical.flatten(1) > 0  # (N, M * T * V)
    share = torch.where(truth, score, 0.0).sum(1) / score.sum(1)
    return torch.where(truth.any(1), share, torch.nan)


def class_overlap(focus: Tensor, rival_focus: Tensor) -> Tensor:
    r"""How much the focus of two classes has in common, for each clip: low where each class has entries of its own.

    .. math:: O = \frac{\sum_{m,t,v} \min(Q_1, Q_2)}{\sum_{m,t,v} \max(Q_1, Q_2)}

    1 for equal maps, 0 for maps without a common entry; of maps of zeros and ones, their intersection over union. Where
    one of them is empty there is nothing to tell apart, and the overlap is NaN: a 0 would praise a focus that has
    vanished.

    Of two classes that share all the probability, the focus of the one is where that of the other is not, whatever the
    training: equation 2 weighs the channels by W_1 - W_2 for the one and by W_2 - W_1 for the other.

    Shape:
        focus (N, M, T, V), rival_focus (N, M, T, V) -> (N,) in [0, 1]; NaN for a clip where one is zero everywhere.

    Args:
        focus: Q of one class, in [0, 1].
        rival_focus: Q of another class at the same layer, in [0, 1].

    Raises:
        ValueError: shapes that differ, or no entries.

    Example:
        >>> first = torch.tensor([1.0, 0.5, 0.0, 0.0]).view(1, 1, 2, 2)
        >>> second = torch.tensor([0.5, 0.5, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> class_overlap(first, second)
        tensor([0.4000])

    Reference:
        Ruzicka's similarity, the soft form of intersection over union. It is what STF's divergence loss (Ke et al.,
        AAAI 2022, equation 4) is to lower.
    """
    _check_pair("class_overlap", focus, "rival_focus", rival_focus)
    one, other = _full(focus).flatten(1), _full(rival_focus).flatten(1)  # (N, M * T * V)
    share = torch.minimum(one, other).sum(1) / torch.maximum(one, other).sum(1)
    return torch.where(one.any(1) & other.any(1), share, torch.nan)


def layer_coherence(low_focus: Tensor, focus: Tensor) -> Tensor:
    r"""Pearson's correlation of the focus at two layers, for each clip.

    .. math:: CC = \frac{\sum (P - \bar P)(Q - \bar Q)}{\sqrt{\sum (P - \bar P)^2 \sum (Q - \bar Q)^2}}

    over the entries (m, t, v), the map of fewer frames first brought to the other's by :func:`resize_focus`. Scaling or
    shifting a map changes nothing. A map that is constant up to rounding agrees with nothing: 0, never NaN.

    It also tells whether the embedding of :class:`STFAdjacency` follows Q, its rows (N * M, T, V) as (N, M, T, V).

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
        >>> layer_coherence(low, high), layer_coherence(low, 1 - high), layer_coherence(low, torch.ones(1, 1, 2, 2))
        (tensor([1.]), tensor([-1.]), tensor([0.]))

    Reference:
        CC in Bylinskii et al., What do different evaluation metrics tell us about saliency models?, TPAMI 2019. It is
        what STF's coherence loss (Ke et al., AAAI 2022, equation 5) is to raise.
    """
    _check_map("layer_coherence", "focus", focus)
    n, m, t, v = focus.shape
    check_shape("layer_coherence", "low_focus", low_focus, f"N={n}, M={m}, T', V={v}")
    _check_map("layer_coherence", "low_focus", low_focus)
    frames = max(t, low_focus.shape[2])
    one, other = _centered(low_focus, frames), _centered(focus, frames)
    lengths = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    return torch.where(lengths > 0, (one * other).sum(1) / lengths.where(lengths > 0, 1.0), 0.0).clamp(-1, 1)


def focus_coverage(focus: Tensor, within: Tensor | None = None, *, threshold: float = 0.5) -> Tensor:
    r"""The share of the entries on which the focus is high, for each clip.

    .. math:: \frac{|\{Q \ge \theta\} \cap W|}{|W|}

    over the entries (m, t, v). W may be the joints that are present (how wide is the focus?) or the critical ones (how
    much of the action does it find?).

    Shape:
        focus (N, M, T, V), within (N, M, T, V) -> (N,) in [0, 1]; NaN for a clip where ``within`` is positive nowhere.

    Args:
        focus: Q, in [0, 1].
        within: W, the entries that count, where it is positive; all of them by default.
        threshold: from which focus on an entry is covered, in [0, 1].

    Raises:
        ValueError: shapes that differ, no entries, or a threshold outside [0, 1].

    Example:
        >>> focus = torch.tensor([0.9, 0.1, 0.8, 0.7]).view(1, 1, 2, 2)
        >>> focus_coverage(focus), focus_coverage(focus, torch.tensor([1, 1, 0, 0]).view(1, 1, 2, 2))
        (tensor([0.7500]), tensor([0.5000]))
    """
    _check_pair("focus_coverage", focus, "within", focus if within is None else within)
    _check_threshold("focus_coverage", threshold)
    covered = focus.flatten(1) >= threshold  # (N, M * T * V)
    counted = torch.ones_like(covered) if within is None else within.flatten(1) > 0
    return _count(covered & counted, focus) / _count(counted, focus)


def _full(x: Tensor) -> Tensor:
    """At least float32, and no part of a graph."""
    return at_least_float32(x.detach())


def _count(entries: Tensor, like: Tensor) -> Tensor:
    """How many of (N, entries) hold, in the type that a measure of ``like`` has."""
    return entries.sum(1).to(torch.promote_types(like.dtype, torch.float32))


def _centered(focus: Tensor, frames: int) -> Tensor:
    """The map at that many frames less its mean, (N, M * T * V); zeros where it was constant before it was resized."""
    stretched = resize_focus(min_max_normalize(_full(focus)), frames).flatten(1)
    return stretched - stretched.mean(1, keepdim=True)


def _check_map(who: str, name: str, focus: Tensor) -> None:
    check_shape(who, name, focus, "N, M, T, V")
    if 0 in focus.shape[1:]:
        raise ValueError(message(who, f"{name} (N, M, T, V) of at least one entry a clip", tuple(focus.shape)))


def _check_pair(who: str, focus: Tensor, name: str, other: Tensor) -> None:
    _check_map(who, "focus", focus)
    n, m, t, v = focus.shape
    check_shape(who, name, other, f"N={n}, M={m}, T={t}, V={v}")


def _check_threshold(who: str, threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(message(who, "a threshold in [0, 1]", threshold))
