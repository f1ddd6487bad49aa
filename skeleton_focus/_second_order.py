"""Run a model so that the gradient at a layer can be differentiated again.

The coherence loss differentiates a Grad-CAM weight, which is itself a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ._axes import MapsOfOneBatch
from ._checks import message

_RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)


class _PlainRecurrence(TorchFunctionMode):
    """Run recurrent layers without cuDNN, which cannot be differentiated twice, while active."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Any = None,
    ) -> Any:
        # Switched off for these calls only, because convolutions keep cuDNN's speed.
        if func in _RECURRENT:
            with torch.backends.cudnn.flags(enabled=False):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Use attention and recurrent kernels that PyTorch can differentiate twice, while active.

    Example:
        >>> with plain_kernels():
        ...     y, _ = torch.nn.LSTM(3, 4)(torch.randn(5, 2, 3))
    """
    # Fused attention kernels have no second derivative either.
    with sdpa_kernel(SDPBackend.MATH), _PlainRecurrence():
        yield


class SecondOrder(TorchFunctionMode):
    """Let a score's gradient at a feature map be differentiated again, while active.

    :meth:`shift` adds zeros to the map; the gradient is taken at them. After the first shift,
    attention and recurrent layers use :func:`plain_kernels`.

    Args:
        fixed_statistics: in training, treat BatchNorm's batch statistics as constants: outputs do
            not change, and the gradient of one clip's score reaches only that clip.

    Example:
        >>> x, conv = torch.randn(2, 3, 4, 5), torch.nn.Conv2d(3, 6, 1)
        >>> with SecondOrder() as mode:
        ...     shifted, shift = mode.shift(x)
        ...     y = conv(shifted)
        >>> torch.autograd.grad(y.sum(), shift)[0].shape
        torch.Size([2, 3, 1, 1])
    """

    def __init__(self, *, fixed_statistics: bool = False) -> None:
        super().__init__()
        self._fixed_statistics = fixed_statistics
        self._shifted = False
        self._open = ExitStack()

    def __exit__(self, *error: Any) -> None:
        self._open.close()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def shift(self, x: Tensor, axes: MapsOfOneBatch | None = None) -> tuple[Tensor, Tensor]:
        """Return x plus a zero shift for each channel, and the shift.

        Pass ``axes`` if x is not (N * M, C, T, V). The gradient at the shift is the gradient at x
        summed over frames and joints.
        """
        # From the first shift on: below it nothing is differentiated twice, so fast kernels stay.
        if not self._shifted:
            self._shifted = True
            self._open.enter_context(plain_kernels())
        # The gradient at a broadcast zero is the sum over frames and joints, as equation 2 needs.
        features = x if axes is None else axes.to_map(x)
        shift = features.new_zeros(*features.shape[:2], 1, 1).requires_grad_()
        return x + (shift if axes is None else axes.from_map(shift.expand_as(features))), shift

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Any = None,
    ) -> Any:
        if (
            self._fixed_statistics
            and self._shifted
            and func in (F.batch_norm, torch.batch_norm)
            and not torch.compiler.is_compiling()
            and not _is_checkpointed()
        ):
            return _with_fixed_statistics(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _with_fixed_statistics(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """BatchNorm whose gradient treats the batch's mean and variance as constants."""
    # The two functions differ in the order of their arguments.
    statistics = ["running_mean", "running_var"]
    affine = ["weight", "bias"]
    both = affine + statistics if func is torch.batch_norm else statistics + affine
    names = ["x", *both, "training", "momentum", "eps"]
    given = dict(zip(names, args, strict=False)) | {
        "x" if name == "input" else name: v for name, v in kwargs.items()
    }
    # Running statistics are constants already.
    if not given.get("training", False):
        result: Tensor = func(*args, **kwargs)
        return result
    x = given["x"]
    weight = given.get("weight")
    F._verify_batch_size(x.size())  # type: ignore[attr-defined]  # raises F.batch_norm's error
    rest = [axis for axis in range(x.dim()) if axis != 1]
    # As F.batch_norm: statistics of half precision are computed in float32, of the biased variance.
    values = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    dtype = x.dtype if weight is None else weight.dtype  # under autocast x has less precision
    mean = values.mean(rest).to(dtype)
    variance = values.var(rest, correction=0).to(dtype)
    # In evaluation, BatchNorm takes given statistics for constants. Running ones are not updated:
    # only the dry run, on copies, comes here.
    return F.batch_norm(
        x, mean, variance, weight, given.get("bias"), training=False, eps=given.get("eps", 1e-5)
    )


def score_gradient(score: Tensor, at: Tensor, create_graph: bool) -> Tensor:
    """The gradient of ``score.sum()``; raise an error that explains a missing gradient."""
    if not (score.requires_grad and at.requires_grad):
        got = f"requires_grad {score.requires_grad} and {at.requires_grad}"
        hint = (
            "run the model under torch.enable_grad(), not torch.inference_mode(), "
            "with trainable parameters"
        )
        raise ValueError(
            message("grad_cam", "a score and features that require gradients", got, hint)
        )
    try:
        return torch.autograd.grad(score.sum(), at, create_graph=create_graph, retain_graph=True)[0]
    except RuntimeError as error:
        # PyTorch's words for a score whose graph does not hold the tensor.
        if "not have been used" not in str(error):
            raise
        expected = "a score that depends on the features"
        raise ValueError(
            message("grad_cam", expected, "one that does not", "use a layer that feeds the head")
        ) from None


def _is_checkpointed() -> bool:
    """Return whether torch.utils.checkpoint is active.

    It recomputes outside this mode and must save the same tensors.
    """
    try:  # PyTorch refuses to disable the hooks where one is active
        with torch.autograd.graph.disable_saved_tensors_hooks("asks for active hooks"):
            return False
    except RuntimeError:
        return True
