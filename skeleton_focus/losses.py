"""Compute STF's losses (equations 3 to 6) from logits and maps, and their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from ._checks import check_choice, check_classes, check_shape, message
from .focus import at_least_float32, resize_focus
from .guidance import check_allowed, guidance_loss, reduce_samples

__all__ = [
    "STFLoss",
    "adjacency_focus_loss",
    "coherence_loss",
    "divergence_loss",
    "exploration_loss",
]

NORMS = ("l2", "rms")
FORMS = ("distance", "overlap")


def exploration_loss(masked_logits: Tensor, classes: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Compute the probability of the predicted class after its focus is masked in the input.

    .. math:: L_e = g^y(X - Q \odot X)

    Shape:
        masked_logits (N, classes), classes (N,) -> () or, with ``reduction="none"``, (N,), in
        [0, 1].

    Args:
        masked_logits: the network's output for the input masked by
            :func:`~skeleton_focus.focus.mask_by_focus`.
        classes: y, the class predicted for the unmasked input.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over the N samples.

    Raises:
        ValueError: mismatched shapes, classes that are not int64 or out of range, or an unknown
            reduction.

    Example:
        >>> exploration_loss(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(0.2500)

    Reference:
        STF (Ke et al., AAAI 2022), equation 3.
    """
    check_shape("exploration_loss", "masked_logits", masked_logits, "N, classes")
    check_shape("exploration_loss", "classes", classes, f"N={len(masked_logits)}")
    check_classes("exploration_loss", classes, masked_logits.shape[1])
    probabilities = at_least_float32(masked_logits).softmax(1)
    kept = probabilities.gather(1, classes[:, None]).squeeze(1)
    return reduce_samples("exploration_loss", kept, reduction)


def divergence_loss(
    focus: Tensor,
    rival_focus: Tensor,
    *,
    form: str = "distance",
    norm: str = "l2",
    reduction: str = "mean",
) -> Tensor:
    r"""Separate the focus of the two most probable classes, so that they rely on different joints.

    ``form="distance"``, as printed, is minus the distance of the two maps; ``form="overlap"`` is
    their overlap:

    .. math:: L_d = -\lVert Q^{y_i} - Q^{y_j} \rVert_2, \qquad
        L_d = \frac{2 \sum_{m,t,v} \min(Q^{y_i}, Q^{y_j})}{\sum_{m,t,v} (Q^{y_i} + Q^{y_j})}

    A map of ones and a map of zeros have the largest distance, so the distance also grows if one
    map inflates and the other vanishes. The norm is Euclidean over a sample's (M, T, V);
    ``norm="rms"`` divides it by the square root of the number of entries. For two equal maps the
    gradient of the distance is zero; two empty maps have an overlap of 0.

    Shape:
        two maps (N, M, T, V) -> () or (N,), at most 0 for a distance, in [0, 1] for an overlap.

    Args:
        focus: Q of the most probable class.
        rival_focus: Q of the second most probable class.
        form: ``"distance"`` or ``"overlap"``.
        norm: the distance's norm, ``"l2"``, as printed, or ``"rms"``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over the N samples.

    Raises:
        ValueError: maps of different shapes, or an unknown form, norm or reduction.

    Example:
        >>> divergence_loss(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
        tensor(-2.)
        >>> divergence_loss(torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5), form="overlap")
        tensor(0.6667)

    Reference:
        STF (Ke et al., AAAI 2022), equation 4; the overlap is the attention separability of Wang et
        al., Sharpen Focus, ICCV 2019, without its mask of the object region.
    """
    check_choice("divergence_loss", "form", form, FORMS)
    check_choice("divergence_loss", "norm", norm, NORMS)
    if form == "distance":
        return -_distance("divergence_loss", focus, rival_focus, norm, reduction)
    focus, rival_focus = _pair("divergence_loss", focus, rival_focus)
    both = (focus + rival_focus).sum((1, 2, 3))
    shared = 2 * torch.minimum(focus, rival_focus).sum((1, 2, 3))
    # The inner where keeps the unused 0 / 0 of an empty map from making the gradient NaN.
    overlap = torch.where(both > 0, shared / both.where(both > 0, 1.0), 0.0)
    return reduce_samples("divergence_loss", overlap, reduction)


def coherence_loss(
    low_focus: Tensor, focus: Tensor, *, norm: str = "l2", reduction: str = "mean"
) -> Tensor:
    r"""Compute the distance between the focus at two layers.

    The shorter map is resized to the longer one's frames.

    .. math:: L_c = \lVert Q_i - Q_j \rVert_2

    Shape:
        (N, M, T', V) and (N, M, T'', V) -> () or (N,), at least 0.

    Args:
        low_focus: Q at the earlier layer.
        focus: Q at the later layer.
        norm: ``"l2"``, as printed, or ``"rms"``; see :func:`divergence_loss`.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over the N samples.

    Raises:
        ValueError: maps whose N, M or V differ, or an unknown reduction.

    Example:
        >>> coherence_loss(torch.ones(1, 1, 4, 2), torch.ones(1, 1, 2, 2))
        tensor(0.)

    Reference:
        STF (Ke et al., AAAI 2022), equation 5.
    """
    check_shape("coherence_loss", "low_focus", low_focus, "N, M, T', V")
    check_shape("coherence_loss", "focus", focus, "N, M, T', V")
    frames = max(low_focus.shape[2], focus.shape[2])
    high = resize_focus(focus, frames)
    return _distance("coherence_loss", resize_focus(low_focus, frames), high, norm, reduction)


def adjacency_focus_loss(
    focus: Tensor, embedding: Tensor, *, norm: str = "l2", reduction: str = "mean"
) -> Tensor:
    r"""Compute the distance between an STF module's embedding and the focus.

    The focus is a target that receives no gradient.

    .. math:: L_G = \lVert Q - \beta(X^l) \rVert_2

    Shape:
        focus (N, M, T', V), embedding (N * M, T, V) -> () or (N,), at least 0.

    Args:
        focus: Q of the last layer; resized to the embedding's frames.
        embedding: beta(X^l), the second output of :class:`~skeleton_focus.STFAdjacency`.
        norm: ``"l2"``, as printed, or ``"rms"``; see :func:`divergence_loss`.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over the N samples.

    Raises:
        ValueError: mismatched shapes, or an unknown reduction.

    Example:
        >>> adjacency_focus_loss(torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2))
        tensor(2.)

    Reference:
        STF (Ke et al., AAAI 2022), below equation 2.
    """
    check_shape("adjacency_focus_loss", "focus", focus, "N, M, T', V")
    n, m, _, v = focus.shape
    check_shape("adjacency_focus_loss", "embedding", embedding, f"N*M={n * m}, T, V={v}")
    # L_G moves the embedding towards Q (STF, below equation 2) and not Q towards the embedding.
    target = resize_focus(focus.detach(), embedding.shape[1])
    embedded = rearrange(embedding, "(n m) t v -> n m t v", m=m).to(target.dtype)
    return _distance("adjacency_focus_loss", target, embedded, norm, reduction)


class STFTerms(NamedTuple):
    """Hold :class:`STFLoss`'s weighted sum and, for logging, each term before its weight."""

    loss: Tensor
    terms: dict[str, Tensor]


class STFLoss(nn.Module):
    r"""Weighted sum of the classification loss and the loss terms on the focus.

    .. math:: L = L_{ce} + \lambda_e L_e + \lambda_d L_d + \lambda_c L_c + \lambda_G L_G
        + \lambda_g L_g

    The first four terms are STF's. The paper trains L_e separately from the others and averages the
    two networks' probabilities: :meth:`exploration_branch`, :meth:`focus_branch`. L_g guides the
    focus of the labelled class to the joints that the user allows,
    :func:`~skeleton_focus.guidance_loss`.

    A term of weight 0 is not computed and needs no maps.

    Shape:
        logits (N, classes), target (N,), maps (N, M, T', V), embeddings (N * M, T, V), classes
        (N,), the predicted classes that the maps explain, by default ``logits.argmax(1)``
        -> ``STFTerms``: ``loss`` () and ``terms``, one () for each term in use. All are means over
        the N samples; L_G is also the mean over modules. Guidance takes ``label_focus``, the map of
        the labelled class, and ``allowed`` (N, M, T, V) or (N, V) instead of the table.

    Args:
        exploration: lambda_e, >= 0; the paper's 0.01.
        divergence: lambda_d, >= 0; the paper's 0.1.
        coherence: lambda_c, >= 0; the paper's 0.1.
        adjacency: lambda_G, >= 0; the paper's 0.01.
        guidance: lambda_g, >= 0.
        allowed: (classes, V) in [0, 1], where the focus of each class may lie, from
            :func:`~skeleton_focus.allowed_joints`. Used only if ``guidance`` is above 0 and
            :meth:`forward` gets no ``allowed``.
        norm: the norm in L_d, L_c and L_G. ``"l2"``, as printed, grows with the square root of the
            map's size; ``"rms"`` divides by that, so that the paper's weights give "comparable
            absolute ranges" for any map size.
        separation: form of L_d, ``"distance"``, as printed, or ``"overlap"``; see
            :func:`divergence_loss`.
        classification: L_ce; any module of (logits, target), by default ``nn.CrossEntropyLoss()``.

    Raises:
        ValueError: a negative weight, an unknown norm or separation, ``allowed`` of another shape
            or outside [0, 1], or missing maps for a term in use (except L_G, which is left out if
            there are no embeddings).

    Example:
        >>> criterion = STFLoss.focus_branch()
        >>> maps = {"focus": torch.ones(1, 1, 2, 2), "rival_focus": torch.zeros(1, 1, 2, 2)}
        >>> maps |= {"low_focus": torch.ones(1, 1, 2, 2), "embeddings": [torch.ones(1, 2, 2)]}
        >>> out = criterion(torch.zeros(1, 2), torch.tensor([0]), **maps)
        >>> {name: round(term.item(), 3) for name, term in out.terms.items()}
        {'classification': 0.693, 'divergence': -1.0, 'coherence': 0.0, 'adjacency': 0.0}

    Reference:
        STF (Ke et al., AAAI 2022), equation 6 and "Training scheme".
    """

    allowed: Tensor | None

    def __init__(
        self,
        *,
        exploration: float = 0.01,
        divergence: float = 0.1,
        coherence: float = 0.1,
        adjacency: float = 0.01,
        guidance: float = 0.0,
        allowed: Tensor | None = None,
        norm: str = "rms",
        separation: str = "distance",
        classification: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.weights = {
            "exploration": exploration,
            "divergence": divergence,
            "coherence": coherence,
            "adjacency": adjacency,
            "guidance": guidance,
        }
        for name, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise ValueError(message("STFLoss", f"a weight {name} of at least 0", weight))
        check_choice("STFLoss", "norm", norm, NORMS)
        check_choice("STFLoss", "separation", separation, FORMS)
        if allowed is not None:
            check_allowed("STFLoss", allowed)
        # A buffer, to move with the model; set by the user and not learned, so not saved.
        self.register_buffer("allowed", allowed, persistent=False)
        self.norm = norm
        self.separation = separation
        self.classification = (
            classification if classification is not None else nn.CrossEntropyLoss()
        )

    @classmethod
    def exploration_branch(cls, *, classification: nn.Module | None = None) -> STFLoss:
        """L_ce and L_e, with the paper's weight."""
        return cls(divergence=0, coherence=0, adjacency=0, classification=classification)

    @classmethod
    def focus_branch(cls, *, norm: str = "rms", classification: nn.Module | None = None) -> STFLoss:
        """Use L_ce, L_d, L_c and L_G with the paper's weights; ``norm`` scales their distances."""
        return cls(exploration=0, norm=norm, classification=classification)

    @classmethod
    def recommended(
        cls,
        *,
        guidance: float = 0.0,
        allowed: Tensor | None = None,
        classification: nn.Module | None = None,
    ) -> STFLoss:
        """L_ce, L_e and L_c, with weights large enough to have an effect, for a trained network.

        ``guidance`` and ``allowed`` add L_g.
        """
        return cls(
            exploration=0.3,
            divergence=0,
            coherence=1,
            adjacency=0,
            guidance=guidance,
            allowed=allowed,
            classification=classification,
        )

    @classmethod
    def plain(
        cls,
        *,
        guidance: float = 0.0,
        allowed: Tensor | None = None,
        classification: nn.Module | None = None,
    ) -> STFLoss:
        """L_ce without STF's terms: a baseline or, with ``guidance`` and ``allowed``, L_ce and L_g.

        >>> STFLoss.plain(guidance=0.3, allowed=torch.ones(60, 25)).uses("guidance", "coherence")
        True
        """
        return cls(
            exploration=0,
            divergence=0,
            coherence=0,
            adjacency=0,
            guidance=guidance,
            allowed=allowed,
            classification=classification,
        )

    def uses(self, *terms: str) -> bool:
        """Whether any of these terms has a non-zero weight.

        >>> loss = STFLoss.focus_branch()
        >>> loss.uses("exploration"), loss.uses("divergence", "coherence")
        (False, True)
        """
        return any(self.weights[term] > 0 for term in terms)

    def check_target(self, target: Tensor, clips: int) -> None:
        """Check the target of ``clips`` clips.

        Losses other than cross-entropy may use any shape after N.

        >>> STFLoss.plain().check_target(torch.zeros(4, 1, dtype=torch.int64), 4)
        Traceback (most recent call last):
            ...
        ValueError: STFLoss: expected target (N=4), got (4, 1); target.squeeze(1) removes the axis
        """
        if not isinstance(target, Tensor):
            hint = "torch.as_tensor(target) makes one"
            raise ValueError(
                message(
                    "STFLoss", f"target (N={clips}) to be a tensor", type(target).__name__, hint
                )
            )
        if target.is_meta:
            raise ValueError(
                message("STFLoss", "target on a device that holds values", "one on 'meta'")
            )
        if target.dim() == 0 or len(target) != clips:
            raise ValueError(message("STFLoss", f"target (N={clips}, ...)", tuple(target.shape)))
        # A loss of the user's own may take any target, such as (N, 1) or one number for each class.
        if not isinstance(self.classification, nn.CrossEntropyLoss):
            return
        if target.dim() == 2 and target.shape[1] == 1:
            hint = "target.squeeze(1) removes the axis"
            raise ValueError(message("STFLoss", f"target (N={clips})", tuple(target.shape), hint))
        if target.dim() == 1 and target.dtype not in (torch.int64, torch.uint8):
            hint = "target.long() converts it"
            raise ValueError(
                message("STFLoss", "target of class numbers, int64", target.dtype, hint)
            )
        if target.dim() > 1 and not target.is_floating_point():
            hint = "class numbers (N,) are int64; for one-hot rows, target.float()"
            raise ValueError(
                message("STFLoss", "target (N, classes) of probabilities", target.dtype, hint)
            )

    def labels(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """The labelled class of each clip, (N,) int64, and whether it has a label, (N,) bool.

        For rows of probabilities, the class is the largest entry. A clip whose target is negative
        or the cross-entropy's ``ignore_index`` has no label: its class is returned as 0.

        >>> STFLoss.plain().labels(torch.tensor([2, -100]))
        (tensor([2, 0]), tensor([ True, False]))
        """
        if target.dim() == 2 and target.shape[1] > 1 and target.is_floating_point():
            return target.argmax(1), torch.ones_like(target[:, 0], dtype=torch.bool)
        if target.dim() == 2 and target.shape[1] == 1:
            target = target[:, 0]
        if target.dim() != 1:
            expected = "one labelled class for each clip, (N,), for guidance and erasing"
            raise ValueError(message("STFLoss", expected, tuple(target.shape)))
        # As an index, -1 would silently mean the last class.
        known = target >= 0
        ignored = getattr(self.classification, "ignore_index", None)
        if ignored is not None:
            known = known & (target != ignored)
        return target.long().where(known, 0), known

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        masked_logits: Tensor | None = None,
        focus: Tensor | None = None,
        rival_focus: Tensor | None = None,
        low_focus: Tensor | None = None,
        label_focus: Tensor | None = None,
        allowed: Tensor | None = None,
        embeddings: Sequence[Tensor] = (),
        classes: Tensor | None = None,
    ) -> STFTerms:
        self.check_target(target, len(logits))
        if isinstance(self.classification, nn.CrossEntropyLoss) and target.dim() > 1:
            check_shape("STFLoss", "target", target, f"N={len(logits)}, classes={logits.shape[1]}")
        # Terms of weight 0 are skipped, so that without weights this is cross-entropy to the bit.
        terms = {"classification": self.classification(logits, target)}
        if self.uses("exploration"):
            # The class whose focus was masked, which need not be argmax where scores are tied.
            predicted = logits.argmax(1) if classes is None else classes
            terms["exploration"] = exploration_loss(
                _required("masked_logits", masked_logits), predicted
            )
        if self.uses("divergence"):
            terms["divergence"] = divergence_loss(
                _required("focus", focus),
                _required("rival_focus", rival_focus),
                form=self.separation,
                norm=self.norm,
            )
        if self.uses("coherence"):
            low = _required("low_focus", low_focus)
            terms["coherence"] = coherence_loss(low, _required("focus", focus), norm=self.norm)
        # A network without STF modules has no embeddings, and the default weights include L_G.
        if self.uses("adjacency") and embeddings:
            target_map = _required("focus", focus)
            losses = [adjacency_focus_loss(target_map, e, norm=self.norm) for e in embeddings]
            terms["adjacency"] = torch.stack(losses).mean()
        if self.uses("guidance"):
            labels, known = self.labels(target)
            if allowed is None:
                hint = ": a table from allowed_joints, or a mask for each clip"
                table = _required("allowed", self.allowed, hint)
                v = _required("label_focus", label_focus).shape[-1]
                check_shape("STFLoss", "allowed", table, f"classes={logits.shape[1]}, V={v}")
                allowed = table[labels]
            outside = guidance_loss(
                _required("label_focus", label_focus), allowed, reduction="none"
            )
            # Cross-entropy too takes its mean over the labelled clips only.
            terms["guidance"] = (outside * known).sum() / known.sum().clamp(min=1)
        loss = terms["classification"]
        for name, weight in self.weights.items():
            if name in terms:
                loss = loss + weight * terms[name]
        return STFTerms(loss, terms)

    def extra_repr(self) -> str:
        options = {**self.weights, "norm": self.norm, "separation": self.separation}
        return ", ".join(f"{name}={value}" for name, value in options.items())


def _required(name: str, value: Tensor | None, hint: str = "") -> Tensor:
    if value is None:
        raise ValueError(message("STFLoss", name, None, f"a term in use needs it{hint}"))
    return value


def _distance(who: str, a: Tensor, b: Tensor, norm: str, reduction: str) -> Tensor:
    """Distance of two maps (N, M, T, V), one number for each sample."""
    check_choice(who, "norm", norm, NORMS)
    a, b = _pair(who, a, b)
    # Its gradient is zero for equal maps; that of sqrt(sum of squares) would be NaN.
    distance = torch.linalg.vector_norm(a - b, dim=(1, 2, 3))
    if norm == "rms":
        distance = distance / math.sqrt(math.prod(a.shape[1:]))
    return reduce_samples(who, distance, reduction)


def _pair(who: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Check that two maps have the same shape (N, M, T, V); convert them to at least float32."""
    check_shape(who, "focus", a, "N, M, T, V")
    sizes = ", ".join(f"{axis}={size}" for axis, size in zip("NMTV", a.shape, strict=True))
    check_shape(who, "the other focus", b, sizes)
    return at_least_float32(a), at_least_float32(b)
