"""Run a model so that a gradient through its gradient is cheap: same function, fewer passes over the feature maps.

The coherence loss differentiates a Grad-CAM weight, which is itself a gradient. Two things make that dear, and neither
needs to be: the gradient is wanted only as a sum over frames and joints, and PyTorch differentiates BatchNorm's
gradient in some thirty element-wise passes where six do.
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
from .graph_conv import convolve_graph

_RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)


class _PlainRecurrence(TorchFunctionMode):
    """While active, recurrent layers on a GPU run without cuDNN, whose gradient has no gradient."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _RECURRENT:
            with torch.backends.cudnn.flags(enabled=False):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def plain_kernels() -> Iterator[None]:
    """While active, attention and recurrent layers run in kernels that PyTorch differentiates twice.

    Example:
        >>> with plain_kernels():
        ...     y, _ = torch.nn.LSTM(3, 4)(torch.randn(5, 2, 3))
    """
    with sdpa_kernel(SDPBackend.MATH), _PlainRecurrence():
        yield


class SecondOrder(TorchFunctionMode):
    """While active, BatchNorm in training and the layer after a shifted map are differentiated the cheap way.

    From the first shift on, attention and recurrent layers run in :func:`plain_kernels`.

    Args:
        fixed_statistics: in training, take BatchNorm's batch statistics as constants: the values stay, and the gradient
            of one clip's score reaches that clip alone.

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
        self._shifted: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self._open = ExitStack()

    def __exit__(self, *error: Any) -> None:
        self._open.close()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def shift(self, x: Tensor, axes: MapsOfOneBatch | None = None) -> tuple[Tensor, Tensor]:
        """x plus a shift of zero for each channel, and the shift; ``axes`` where x is not (N * M, C, T, V).

        The gradient at the shift is the gradient at x summed over frames and joints. Where the layer that takes the sum
        is linear and treats every frame alike, the two are carried apart: the shift's part is one frame long.
        """
        if not self._shifted:
            self._open.enter_context(plain_kernels())
        features = x if axes is None else axes.to_map(x)
        shift = features.new_zeros(*features.shape[:2], 1, 1).requires_grad_()
        added = shift if axes is None else axes.from_map(shift.expand_as(features))
        shifted = x + added
        # Only a map in our layout is followed by a layer that can carry the shift apart.
        self._shifted.append((shifted, x, shift if axes is None else None))
        return shifted, shift

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # Nothing before the shift is differentiated twice; compiled parts are refused when they are.
        if torch.compiler.is_compiling() or not self._shifted or _is_checkpointed():
            return func(*args, **kwargs)
        if self._fixed_statistics and func in (F.batch_norm, torch.batch_norm):
            return _with_fixed_statistics(func, args, kwargs)
        affine = func is F.batch_norm and kwargs["weight"] is not None and kwargs["bias"] is not None
        if affine and kwargs["training"]:
            x, mean, var = args
            F._verify_batch_size(x.size())  # type: ignore[attr-defined]  # one value a channel, as F.batch_norm says it
            return _BatchNorm.apply(  # type: ignore[no-untyped-call]
                x, kwargs["weight"], kwargs["bias"], mean, var, kwargs["momentum"], kwargs["eps"]
            )
        if func is torch.cat and len(args) == 1 and set(kwargs) == {"dim"} and len({x.dim() for x in args[0]}) == 1:
            return _Join.apply(kwargs["dim"], *args[0])  # type: ignore[no-untyped-call]
        if not kwargs and (func is convolve_graph or (func is F.conv2d and _is_pointwise(*args))):
            for whole, x, shift in self._shifted:
                unchanged = args[0] is whole and not whole.is_inference() and whole._version == 0
                if unchanged and shift is not None:
                    one_frame = shift.expand(-1, -1, 1, x.shape[3])
                    return func(x, *args[1:]) + func(one_frame, *_without_bias(func, args))
        return func(*args, **kwargs)


def _with_fixed_statistics(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """BatchNorm whose gradient takes the batch's mean and variance as constants."""
    names = ["x", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"]
    if func is torch.batch_norm:
        names = ["x", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"]
    given = dict(zip(names, args, strict=False)) | {"x" if name == "input" else name: v for name, v in kwargs.items()}
    if not given.get("training", False):
        result: Tensor = func(*args, **kwargs)
        return result
    x = given["x"]
    weight = given.get("weight")
    F._verify_batch_size(x.size())  # type: ignore[attr-defined]  # one value a channel, as F.batch_norm says it
    rest = [axis for axis in range(x.dim()) if axis != 1]
    values = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    dtype = x.dtype if weight is None else weight.dtype  # under autocast x has less precision
    mean = values.mean(rest).to(dtype)
    variance = values.var(rest, correction=0).to(dtype)
    return F.batch_norm(x, mean, variance, weight, given.get("bias"), training=False, eps=given.get("eps", 1e-5))


def score_gradient(score: Tensor, at: Tensor, create_graph: bool) -> Tensor:
    """The gradient of ``score.sum()``, or an error that says why there is none."""
    if not (score.requires_grad and at.requires_grad):
        got = f"requires_grad {score.requires_grad} and {at.requires_grad}"
        hint = "run the model under torch.enable_grad(), not under torch.inference_mode(), with parameters that train"
        raise ValueError(message("grad_cam", "a score and features with gradients on", got, hint))
    try:
        return torch.autograd.grad(score.sum(), at, create_graph=create_graph, retain_graph=True)[0]
    except RuntimeError as error:
        if "not have been used" not in str(error):
            raise
        expected = "a score that depends on the features"
        raise ValueError(
            message("grad_cam", expected, "one that does not", "take a layer that feeds the head")
        ) from None


def _is_checkpointed() -> bool:
    """Inside torch.utils.checkpoint what runs here runs again later, outside this mode, and must save the same."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def _is_pointwise(x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, *rest: Any) -> bool:
    """A 1x1 convolution that keeps every frame and joint."""
    return weight.shape[1:] == (x.shape[1], 1, 1) and stride in (1, (1, 1)) and padding in (0, (0, 0))


def _without_bias(func: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args[1:3] if func is convolve_graph else args[1:2]


class _Join(torch.autograd.Function):
    """Concatenation whose gradient is one split, and whose second is one concatenation: no sum of padded parts."""

    @staticmethod
    def forward(ctx: Any, dim: int, *parts: Tensor) -> Tensor:
        ctx.dim, ctx.sizes = dim, [part.shape[dim] for part in parts]
        return torch.cat(parts, dim=dim)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return (None, *torch.split(g, ctx.sizes, dim=ctx.dim))


class _BatchNorm(torch.autograd.Function):
    """BatchNorm in training whose gradient knows its own gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Any, var: Any, momentum: float, eps: float
    ) -> Tensor:
        y, center, scale = torch.native_batch_norm(x, weight, bias, mean, var, True, momentum, eps)
        ctx.save_for_backward(x, weight, center, scale)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return (
            *_BatchNormGradient.apply(  # type: ignore[no-untyped-call]
                g, *ctx.saved_tensors, ctx.eps
            ),
            None,
            None,
            None,
            None,
        )


class _BatchNormGradient(torch.autograd.Function):
    r"""(g, x, weight) -> gradients at x, weight and bias.

    With :math:`\hat x = (x - \mu) r` and means over everything but the channels:
    :math:`g_x = \gamma r (g - \bar g - \hat x \, \overline{g \hat x})`. That is linear and symmetric in g, so its
    gradient at g is itself, applied to what arrives (v). Its gradient at x is a v + b g + e x + f, where a, b, e and f
    are one number a channel.
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, center: Tensor, scale: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        gx, gweight, gbias = _native_gradient(g, x, weight, center, scale, eps)
        ctx.save_for_backward(g, x, weight, center, scale, gweight, gbias)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return gx, gweight, gbias

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, v_weight: Tensor | None, v_bias: Tensor | None) -> tuple[Any, ...]:
        g, x, weight, center, scale, gweight, gbias = ctx.saved_tensors
        count = x.numel() // x.shape[1]

        def wide(channel: Tensor) -> Tensor:
            return channel.to(x.dtype).view(-1, *[1] * (x.dim() - 2))

        at_g = at_x = at_weight = None
        if v is not None:
            at_g, vx_sum, v_sum = _native_gradient(v, x, weight, center, scale, ctx.eps)
            g_mean, gx_mean, v_mean, vx_mean = (s / count for s in (gbias, gweight, v_sum, vx_sum))
            vg_sum = _native_gradient(v, g, weight, torch.zeros_like(center), torch.ones_like(scale), ctx.eps, only=1)[
                1
            ]
            inner = vg_sum - g_mean * v_sum - gx_mean * vx_sum
            at_weight = scale * inner
            k = weight * scale.square()
            on_x = k * scale * (2 * gx_mean * vx_mean - inner / count)
            rest = k * (gx_mean * v_mean + vx_mean * g_mean) - on_x * center
            at_x = torch.addcmul(wide(rest), v, wide(-k * gx_mean))
            at_x = at_x.addcmul_(g, wide(-k * vx_mean)).addcmul_(x, wide(on_x))
        if v_weight is not None:  # the gradient at weight is sum(g x_hat)
            extra_g = (x - wide(center)) * wide(v_weight * scale)
            extra_x, _, _ = _native_gradient(g, x, v_weight.to(weight.dtype), center, scale, ctx.eps)
            at_g = extra_g if at_g is None else at_g + extra_g
            at_x = extra_x if at_x is None else at_x + extra_x
        if v_bias is not None:  # the gradient at bias is sum(g)
            extra_g = wide(v_bias).expand_as(g)
            at_g = extra_g if at_g is None else at_g + extra_g
        return at_g, at_x, at_weight, None, None, None


def _native_gradient(
    g: Tensor, x: Tensor, weight: Tensor, center: Tensor, scale: Tensor, eps: float, only: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients at x, weight and bias: g_x as above, sum(g x_hat), sum(g); or one of them alone."""
    wanted = [only in (None, i) for i in range(3)]
    return torch.ops.aten.native_batch_norm_backward(  # type: ignore[no-any-return]
        g, x, weight, None, None, center, scale, True, eps, wanted
    )
