"""Normalisation: by layer, root mean square, group, instance and batch.

The variance is taken in two passes, and half types compute in float32 throughout.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from einkorn.autocast import single_precision
from einkorn.convert import as_flag, as_int, as_number, as_tensor, normal_axes, normal_axis
from einkorn.functions.elementwise import (
    add,
    cast,
    multiply,
    reciprocal,
    sqrt,
    stop_gradient,
    subtract,
)
from einkorn.functions.manipulation import spread_to, to_shape
from einkorn.functions.statistical import mean as mean_over
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import DTypeError, ShapeError

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Ints = tuple[int, ...]


def _wide(what: str, x: Any) -> tuple[Tensor, Tensor]:
    """The operand, and the operand in the dtype that it is normalised in."""
    tensor = as_tensor(x, what)
    if not tensor.dtype.is_float:
        raise DTypeError(f"{what}: needs floats, got {tensor._type}; use .astype('float32') first")
    return tensor, cast(tensor, float32) if tensor.dtype.itemsize == 2 else tensor


def _eps(what: str, eps: Any) -> Any:
    number = as_number(what, eps, "eps is a number")
    if not number >= 0:
        raise ShapeError(f"{what}: eps must not be negative, got {number}")
    return number


def _centred(x: Tensor, axes: Ints) -> tuple[Tensor, Tensor, Tensor]:
    """The mean over axes, x less the mean, and the biased variance; all keep the axes."""
    centre = mean_over(x, axis=axes, keepdims=True)
    centred = subtract(x, centre)
    return centre, centred, mean_over(multiply(centred, centred), axis=axes, keepdims=True)


def _normalised(x: Tensor, axes: Ints, eps: float) -> Tensor:
    _, centred, variance = _centred(x, axes)
    return multiply(centred, reciprocal(sqrt(add(variance, eps))))


def _parameter(what: str, name: str, given: Any, like: Tensor, shape: Ints, wide: Ints) -> Tensor:
    """A weight or bias of `shape`, placed along its axes, in the dtype of `like`."""
    tensor = as_tensor(given, what)
    if tensor.shape != shape or not tensor.dtype.is_float:
        raise ShapeError(
            f"{what}: {name} needs floats of shape {shape} for {like._type}, got {tensor._type}"
        )
    return cast(to_shape(tensor, wide), like.dtype)


def _scaled(what: str, y: Tensor, w: Any, b: Any, shape: Ints, wide: Ints) -> Tensor:
    """y * w + b, each where given."""
    if w is not None:
        y = multiply(y, _parameter(what, "w", w, y, shape, wide))
    return y if b is None else add(y, _parameter(what, "b", b, y, shape, wide))


def _placed(shape: Ints, axes: Ints) -> tuple[Ints, Ints]:
    """The sizes of some axes, and the shape that has them in their places."""
    sizes = tuple(shape[axis] for axis in axes)
    return sizes, tuple(n if k in axes else 1 for k, n in enumerate(shape))


@single_precision
def layer_norm(
    x: Any, w: Any = None, b: Any = None, /, *, axes: Any = -1, eps: Any = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * w + b over axes (Ba et al., 2016).

    Args:
        w, b: in the shape of those axes; None for 1 and 0.
        axes: one axis, or several.
    """
    what = "layer_norm"
    tensor, wide = _wide(what, x)
    over = normal_axes(what, axes, tensor.ndim)
    y = _normalised(wide, over, _eps(what, eps))
    return cast(_scaled(what, y, w, b, *_placed(tensor.shape, over)), tensor.dtype)


@single_precision
def rms_norm(x: Any, w: Any = None, /, *, axes: Any = -1, eps: Any = 1e-5) -> Tensor:
    """x / sqrt(mean(x**2) + eps) * w over axes (Zhang & Sennrich, 2019).

    Args:
        w: in the shape of those axes; None for 1.
    """
    what = "rms_norm"
    tensor, wide = _wide(what, x)
    over = normal_axes(what, axes, tensor.ndim)
    square = mean_over(multiply(wide, wide), axis=over, keepdims=True)
    y = multiply(wide, reciprocal(sqrt(add(square, _eps(what, eps)))))
    return cast(_scaled(what, y, w, None, *_placed(tensor.shape, over)), tensor.dtype)


def _channel_axis(what: str, x: Tensor, axis: Any) -> int:
    found = normal_axis(what, axis, x.ndim)
    if x.ndim < 2 or found == 0:
        raise ShapeError(
            f"{what}: needs examples along axis 0 and channels along another, got {x._type} and "
            f"axis {axis}"
        )
    return found


@single_precision
def group_norm(
    x: Any, groups: int, w: Any = None, b: Any = None, /, *, axis: int = -1, eps: Any = 1e-5
) -> Tensor:
    """Each example normalised over groups of adjacent channels (Wu & He, 2018).

    Args:
        x: examples along axis 0, channels along `axis`.
        groups: into how many the channels are divided.
        w, b: one number for each channel; None for 1 and 0.
    """
    return _grouped("group_norm", x, groups, w, b, axis, eps)


@single_precision
def instance_norm(
    x: Any, w: Any = None, b: Any = None, /, *, axis: int = -1, eps: Any = 1e-5
) -> Tensor:
    """Each channel of each example normalised by itself (Ulyanov et al., 2016).

    Args:
        x: examples along axis 0, channels along `axis`.
        w, b: one number for each channel; None for 1 and 0.
    """
    return _grouped("instance_norm", x, None, w, b, axis, eps)


def _grouped(what: str, x: Any, groups: Any, w: Any, b: Any, axis: Any, eps: Any) -> Tensor:
    tensor, wide = _wide(what, x)
    at = _channel_axis(what, tensor, axis)
    channels = tensor.shape[at]
    count = channels if groups is None else as_int(what, groups, "groups is an integer")
    if count < 1 or channels % count:
        raise ShapeError(f"{what}: {channels} channels of {tensor._type} are no {count} groups")
    shape = tensor.shape
    if at == tensor.ndim - 1 and prod(shape[1:at]) > 1:
        y = _in_columns(wide, count, _eps(what, eps))
    else:
        split = (*shape[:at], count, channels // count, *shape[at + 1 :])
        over = tuple(k for k in range(1, len(split)) if k != at)
        y = to_shape(_normalised(to_shape(wide, split), over, _eps(what, eps)), shape)
    return cast(_scaled(what, y, w, b, *_placed(shape, (at,))), tensor.dtype)


def _in_columns(x: Tensor, groups: int, eps: float) -> Tensor:
    """[N, s..., C] normalised over groups: means of channels first, which read x as it lies."""
    over = tuple(range(1, x.ndim - 1))
    channels = x.shape[-1]
    split = (x.shape[0], *(1,) * len(over), groups, channels // groups)

    def mean_of_groups(values: Tensor) -> Tensor:
        means = to_shape(mean_over(values, axis=over, keepdims=True), split)
        of_groups = mean_over(means, axis=-1, keepdims=True)
        return to_shape(spread_to(of_groups, split), (*split[:-2], channels))

    centred = subtract(x, mean_of_groups(x))
    variance = mean_of_groups(multiply(centred, centred))
    return multiply(centred, reciprocal(sqrt(add(variance, eps))))


# -- batch -----------------------------------------------------------------------------------------


@single_precision
def batch_statistics(x: Any, /, *, axis: int = -1) -> tuple[Tensor, Tensor]:
    """The mean and the biased variance of each channel, over all other axes.

    Args:
        axis: that of the channels.
    """
    what = "batch_statistics"
    tensor, wide = _wide(what, x)
    at = normal_axis(what, axis, tensor.ndim)
    over = tuple(k for k in range(tensor.ndim) if k != at)
    size = (tensor.shape[at],)
    centre, _, variance = _centred(wide, over)
    return to_shape(centre, size), to_shape(variance, size)


@single_precision
def batch_norm(
    x: Any,
    mean: Any,
    var: Any,
    w: Any = None,
    b: Any = None,
    /,
    *,
    training: bool,
    momentum: Any = 0.1,
    eps: Any = 1e-5,
    axis: int = -1,
) -> tuple[Tensor, Any, Any]:
    """Each channel normalised over all other axes (Ioffe & Szegedy, 2015); y, new mean, new var.

    While training, the batch's own mean and biased variance normalise it, and the running ones
    become (1 - momentum) * old + momentum * batch, with the unbiased variance; no gradient goes
    through them. Otherwise the running ones normalise, and are given back as they are.

    Args:
        mean, var: the running statistics, one number for each channel; None for none, and then
            the batch's own are used always.
        w, b: one number for each channel; None for 1 and 0.
        axis: that of the channels.

    Raises:
        ShapeError: training with one value for each channel, which has no variance.
    """
    what = "batch_norm"
    tensor, wide = _wide(what, x)
    at = normal_axis(what, axis, tensor.ndim)
    size, place = _placed(tensor.shape, (at,))
    if (mean is None) != (var is None):
        raise ShapeError(f"{what}: give both running statistics, or None for both")
    own = as_flag(what, "training", training)
    if not own and mean is not None:
        centre = _parameter(what, "mean", mean, wide, size, place)
        spread = _parameter(what, "var", var, wide, size, place)
        y = multiply(subtract(wide, centre), reciprocal(sqrt(add(spread, _eps(what, eps)))))
        return cast(_scaled(what, y, w, b, size, place), tensor.dtype), mean, var
    over = tuple(k for k in range(tensor.ndim) if k != at)
    count = prod(tensor.shape[k] for k in over)
    if count < 2:
        raise ShapeError(
            f"{what}: training needs more than one value for each channel, got {tensor._type} with "
            f"channels along axis {at}"
        )
    centre, centred, variance = _centred(wide, over)
    y = multiply(centred, reciprocal(sqrt(add(variance, _eps(what, eps)))))
    found = cast(_scaled(what, y, w, b, size, place), tensor.dtype)
    if mean is None:
        return found, None, None
    unbiased = multiply(variance, count / (count - 1))
    new_mean = _moved(what, "mean", mean, centre, momentum, size)
    return found, new_mean, _moved(what, "var", var, unbiased, momentum, size)


def _moved(what: str, name: str, old: Any, new: Tensor, momentum: Any, size: Ints) -> Tensor:
    """(1 - momentum) * old + momentum * new, in the dtype of the old."""
    known = as_tensor(old, what)
    running = _parameter(what, name, known, new, size, size)
    batch = stop_gradient(to_shape(new, size))
    kept = subtract(running, multiply(running, momentum))
    return cast(add(kept, multiply(batch, momentum)), known.dtype)
