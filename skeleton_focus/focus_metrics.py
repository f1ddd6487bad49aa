"""How well a focus finds the joints and frames that are known to make the class."""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import check_shape


def focus_overlap(focus: Tensor, critical: Tensor) -> Tensor:
    r"""Area under the precision-recall curve of a focus against the truth, for each clip.

    With the entries (m, t, v) ranked by focus, :math:`AP = \sum_i (R_i - R_{i-1}) P_i`; entries of equal focus count
    as one step. 1 when every critical entry ranks above every other; a focus that knows nothing reaches the share of
    critical entries.

    Shape:
        focus (N, M, T, V), critical (N, M, T, V) in {0, 1} -> (N,) in [0, 1]; NaN for a clip without critical entries.

    Raises:
        ValueError: shapes that differ.

    Example:
        >>> truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)
        >>> focus_overlap(torch.tensor([0.9, 0.1, 0.8, 0.7]).view(1, 1, 2, 2), truth)
        tensor([1.])
        >>> focus_overlap(torch.zeros(1, 1, 2, 2), truth)
        tensor([0.5000])

    Reference:
        Average precision, as in Everingham et al., The PASCAL VOC Challenge, IJCV 2010, without interpolation.
    """
    check_shape("focus_overlap", "focus", focus, "N, M, T, V")
    n, m, t, v = focus.shape
    check_shape("focus_overlap", "critical", critical, f"N={n}, M={m}, T={t}, V={v}")
    score, order = focus.flatten(1).sort(1, descending=True)
    hit = (critical.flatten(1).gather(1, order) > 0).to(score.dtype)
    hits = hit.cumsum(1)
    precision = hits / torch.arange(1, hit.shape[1] + 1, device=focus.device)
    # A step ends where the next focus is lower; its precision counts for all of its hits.
    ends = torch.cat([score[:, 1:] < score[:, :-1], torch.ones_like(hit[:, :1], dtype=torch.bool)], dim=1)
    before = torch.where(ends, hits, 0.0).cummax(1).values.roll(1, 1)
    before[:, 0] = 0
    return (torch.where(ends, hits - before, 0.0) * precision).sum(1) / hits[:, -1]
