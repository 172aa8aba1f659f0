"""Reductions, scans and the softmax family.

Half types accumulate in float32 inside one op; functions of several ops (mean, var, std) convert
to float32 once and back once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod as product
from typing import TYPE_CHECKING, Any

from einkorn.autocast import single_precision
from einkorn.convert import (
    as_flag,
    as_int,
    as_number,
    as_tensor,
    check_dtype,
    normal_axes,
    normal_axis,
    snapshot,
)
from einkorn.functions.elementwise import cast, divide, multiply, negative, sqrt, subtract
from einkorn.functions.elementwise import where as select
from einkorn.functions.manipulation import common_shape, concat, cut, reorder, to_shape
from einkorn.ir.dtypes import DType, bool_, float32, int64, uint8, uint64
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.recording import apply, scalar

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Axis = int | Sequence[int] | None
Axes = tuple[int, ...]


def _reduce(op: Op, x: Tensor, axes: Axes, keepdims: bool) -> Tensor:
    """Apply a reduction over normal axes."""
    reduced = apply(op, x, axes=axes) if axes else snapshot(x)
    return _kept(reduced, x.shape, axes, keepdims)


def _kept(reduced: Tensor, shape: Axes, axes: Axes, keepdims: bool) -> Tensor:
    """A reduced tensor, with `keepdims` with axes of one element where the reduced ones were."""
    if not as_flag("reduction", "keepdims", keepdims):
        return reduced
    return to_shape(reduced, tuple(1 if k in axes else n for k, n in enumerate(shape)))


def _as_float(x: Tensor) -> Tensor:
    return x if x.dtype.is_inexact else cast(x, float32)


def _accumulating(x: Tensor) -> Tensor:
    """`x` in a float dtype that can hold sums of many elements."""
    return cast(x, float32) if not x.dtype.is_inexact or x.dtype.itemsize == 2 else x


# -- sums and products -----------------------------------------------------------------------------


def _sum_dtype(x: Tensor, dtype: Any) -> DType:
    """The dtype of a sum: integers are summed in 64 bits unless told otherwise."""
    if dtype is not None:
        return check_dtype(dtype)
    if x.dtype.is_inexact:
        return x.dtype
    return uint64 if x.dtype.kind == "u" else int64


def _total(op: Op, x: Any, axis: Axis, dtype: Any, keepdims: bool) -> Tensor:
    what = op.name.lower()
    tensor = as_tensor(x, what)
    wanted = _sum_dtype(tensor, dtype)
    if wanted is bool_:
        raise DTypeError(f"{what}: bool cannot hold a {what}; use any or all, or another dtype")
    axes = normal_axes(what, axis, tensor.ndim)
    return _reduce(op, cast(tensor, wanted), axes, keepdims)


@single_precision
def sum(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The sum over axes, over all by default; 0 over nothing. Integers are summed in 64 bits."""
    return _total(Op.SUM, x, axis, dtype, keepdims)


@single_precision
def prod(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The product over axes, over all by default; 1 over nothing."""
    return _total(Op.PROD, x, axis, dtype, keepdims)


@single_precision
def cumulative_sum(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """The sums of the elements up to each position of an axis.

    Args:
        axis: may be left out for one-dimensional tensors.
        include_initial: start with the 0 before the first element.
    """
    return _running(Op.CUMSUM, "cumulative_sum", x, axis, dtype, include_initial)


@single_precision
def cumulative_prod(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """The products of the elements up to each position of an axis.

    Args:
        axis: may be left out for one-dimensional tensors.
        include_initial: start with the 1 before the first element.
    """
    return _running(Op.CUMPROD, "cumulative_prod", x, axis, dtype, include_initial)


def cumulative_max(x: Any, /, *, axis: int | None = None) -> Tensor:
    """The largest of the elements up to each position of an axis; NaN from the first NaN on.

    Args:
        axis: may be left out for one-dimensional tensors.
    """
    tensor, axis = _one_axis("cumulative_max", x, axis)
    return _running_extreme(Op.CUMMAX, tensor, axis)


def cumulative_min(x: Any, /, *, axis: int | None = None) -> Tensor:
    """The smallest of the elements up to each position of an axis; NaN from the first NaN on.

    Args:
        axis: may be left out for one-dimensional tensors.
    """
    tensor, axis = _one_axis("cumulative_min", x, axis)
    return _running_extreme(Op.CUMMIN, tensor, axis)


def _running_extreme(op: Op, x: Tensor, axis: int) -> Tensor:
    """A running maximum or minimum; False counts as 0, True as 1."""
    numbers = cast(x, uint8) if x.dtype is bool_ else x
    return cast(apply(op, numbers, axis=axis), x.dtype)


def _one_axis(what: str, x: Any, axis: int | None) -> tuple[Tensor, int]:
    """A tensor and the axis along which it is scanned, its only one by default."""
    tensor = as_tensor(x, what)
    if axis is None and tensor.ndim != 1:
        raise ShapeError(f"{what}: {tensor._type} does not have one axis; give axis=")
    return tensor, normal_axis(what, 0 if axis is None else axis, tensor.ndim)


def _running(
    op: Op, what: str, x: Any, axis: int | None, dtype: Any, include_initial: bool
) -> Tensor:
    """A running total, after the total of nothing when that is included."""
    tensor, axis = _one_axis(what, x, axis)
    wanted = _sum_dtype(tensor, dtype)
    totals = apply(op, cast(tensor, wanted), axis=axis)
    if not as_flag(what, "include_initial", include_initial):
        return totals
    shape = tuple(1 if k == axis else n for k, n in enumerate(tensor.shape))
    nothing = scalar(wanted, 0 if op is Op.CUMSUM else 1)
    return concat([apply(Op.BROADCAST, nothing, shape=shape), totals], axis=axis)


def diff(
    x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None
) -> Tensor:
    """The differences of neighbours along an axis, taken `n` times.

    Args:
        prepend, append: tensors that are joined to `x` along the axis first.
    """
    tensor = as_tensor(x, "diff")
    axis = normal_axis("diff", axis, tensor.ndim)
    count = as_int("diff", n, "n is an integer")
    if count < 0:
        raise ShapeError(f"diff: n must not be negative, got {count}")
    parts = [part for part in (prepend, tensor, append) if part is not None]
    tensor = concat(parts, axis=axis) if len(parts) > 1 else snapshot(tensor)
    for _ in range(count):
        size = tensor.shape[axis]
        if not size:
            break
        tensor = subtract(cut(tensor, axis, 1, size), cut(tensor, axis, 0, size - 1))
    return tensor


# -- mean and variance -----------------------------------------------------------------------------


@single_precision
def mean(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The arithmetic mean over axes; NaN over nothing. Integers give float32."""
    tensor = _as_float(as_tensor(x, "mean"))
    axes = normal_axes("mean", axis, tensor.ndim)
    return cast(_mean(_accumulating(tensor), axes, keepdims), tensor.dtype)


def _mean(x: Tensor, axes: Axes, keepdims: bool) -> Tensor:
    return divide(_reduce(Op.SUM, x, axes, keepdims), _count(x, axes))


def _count(x: Tensor, axes: Axes) -> int:
    return product(x.shape[axis] for axis in axes)


@single_precision
def var(
    x: Any, /, *, axis: Axis = None, correction: int | float = 0.0, keepdims: bool = False
) -> Tensor:
    """The variance over axes: the mean of the squared differences from the mean.

    Args:
        correction: subtracted from the number of elements; 1 for the unbiased estimate.
    """
    tensor = _as_float(as_tensor(x, "var"))
    return cast(_variance("var", tensor, axis, correction, keepdims), tensor.dtype)


@single_precision
def std(
    x: Any, /, *, axis: Axis = None, correction: int | float = 0.0, keepdims: bool = False
) -> Tensor:
    """The standard deviation over axes: the square root of `var`."""
    tensor = _as_float(as_tensor(x, "std"))
    return cast(sqrt(_variance("std", tensor, axis, correction, keepdims)), tensor.dtype)


def _variance(what: str, x: Tensor, axis: Axis, correction: float, keepdims: bool) -> Tensor:
    """Two passes: sums of squares minus squares of sums would cancel."""
    if x.dtype.is_complex:
        raise DTypeError(f"{what}: needs real numbers, got {x._type}; take it of real and imag")
    axes = normal_axes(what, axis, x.ndim)
    correction = as_number(what, correction, "correction is a number")
    wide = _accumulating(x)
    centred = subtract(wide, _mean(wide, axes, keepdims=True))
    squares = _reduce(Op.SUM, multiply(centred, centred), axes, keepdims)
    count = _count(x, axes)
    whole = int(correction) if float(correction).is_integer() else correction
    return divide(squares, count - whole if count > correction else 0)


# -- largest and smallest --------------------------------------------------------------------------


def _extreme(op: Op, x: Any, axis: Axis, keepdims: bool) -> Tensor:
    what = op.name.lower()
    tensor = as_tensor(x, what)
    axes = normal_axes(what, axis, tensor.ndim)
    _check_not_empty(what, tensor, axes)
    return _reduce(op, tensor, axes, keepdims)


def _check_not_empty(what: str, x: Tensor, axes: Axes) -> None:
    if _count(x, axes) == 0:
        raise ShapeError(
            f"{what}: {x._type} has no elements along axes {axes} to choose from; look at x.size "
            "first, or concat a value that is there in any case"
        )


def max(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over axes; NaN if there is one."""
    return _extreme(Op.MAX, x, axis, keepdims)


def min(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over axes; NaN if there is one."""
    return _extreme(Op.MIN, x, axis, keepdims)


def _which(op: Op, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    what = op.name.lower()
    tensor = as_tensor(x, what)
    shape = tensor.shape
    axes = normal_axes(what, None, tensor.ndim)
    if axis is not None:
        axes = (normal_axis(what, axis, tensor.ndim),)
    _check_not_empty(what, tensor, axes)
    if axis is None:
        tensor = to_shape(tensor, (tensor.size,))
    if tensor.dtype is bool_:
        tensor = cast(tensor, uint8)
    found = apply(op, tensor, axis=0 if axis is None else axes[0])
    return _kept(found, shape, axes, keepdims)


def argmax(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position of the first largest element along an axis; of all, flattened, by default."""
    return _which(Op.ARGMAX, x, axis, keepdims)


def argmin(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position of the first smallest element along an axis; of all, flattened, by default."""
    return _which(Op.ARGMIN, x, axis, keepdims)


def _decide(op: Op, what: str, x: Any, axis: Axis, keepdims: bool) -> Tensor:
    """Whether any (MAX) or every (MIN) element is not zero."""
    tensor = as_tensor(x, what)
    axes = normal_axes(what, axis, tensor.ndim)
    truth = cast(tensor, bool_)
    if _count(tensor, axes):
        return _reduce(op, truth, axes, keepdims)
    shape = tuple(n for k, n in enumerate(tensor.shape) if k not in axes)
    nothing = apply(Op.BROADCAST, scalar(bool_, op is Op.MIN), shape=shape)
    return _kept(nothing, tensor.shape, axes, keepdims)


def any(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether an element over the axes is not zero; False over nothing."""
    return _decide(Op.MAX, "any", x, axis, keepdims)


def all(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether every element over the axes is not zero; True over nothing."""
    return _decide(Op.MIN, "all", x, axis, keepdims)


# -- softmax ---------------------------------------------------------------------------------------


def _along(op: Op, x: Any, axis: int) -> Tensor:
    """Apply an op of the last axis along another one."""
    what = op.name.lower()
    tensor = _as_float(as_tensor(x, what))
    axis = normal_axis(what, axis, tensor.ndim)
    last = tensor.ndim - 1
    if axis == last:
        return apply(op, tensor)
    order = list(range(tensor.ndim))
    order[axis], order[last] = last, axis
    return reorder(apply(op, reorder(tensor, tuple(order))), tuple(order))


@single_precision
def softmax(x: Any, /, *, axis: int = -1, where: Any = None) -> Tensor:
    """exp(x) divided by its sum along an axis.

    Args:
        where: bool, broadcasts to x; what is False counts as -inf and gives 0. Rows without any
            True give zeros, and a gradient of zero.
    """
    if where is None:
        return _along(Op.SOFTMAX, x, axis)
    tensor, kept = _masked("softmax", x, where)
    return select(kept, _along(Op.SOFTMAX, tensor, axis), 0)


@single_precision
def softmin(x: Any, /, *, axis: int = -1) -> Tensor:
    """softmax(-x)."""
    return softmax(negative(_as_float(as_tensor(x, "softmin"))), axis=axis)


@single_precision
def log_softmax(x: Any, /, *, axis: int = -1) -> Tensor:
    """The logarithm of softmax, without its loss of accuracy."""
    return _along(Op.LOG_SOFTMAX, x, axis)


def _masked(what: str, x: Any, mask: Any) -> tuple[Tensor, Tensor]:
    """x with -inf where the mask does not hold, and the mask."""
    tensor, kept = _as_float(as_tensor(x, what)), as_tensor(mask, what)
    if kept.dtype is not bool_ or common_shape(what, tensor, kept) != tensor.shape:
        raise ShapeError(
            f"{what}: where is bool and broadcasts to {tensor.shape}, got {kept._type}"
        )
    return select(kept, tensor, -math.inf), kept


@single_precision
def logsumexp(x: Any, /, *, axis: Axis = None, keepdims: bool = False, where: Any = None) -> Tensor:
    """The logarithm of the sum of exp(x) over axes, without overflow; -inf over nothing.

    Args:
        where: bool, broadcasts to x; what is False counts as -inf.
    """
    given = x if where is None else _masked("logsumexp", x, where)[0]
    tensor = _as_float(as_tensor(given, "logsumexp"))
    axes = normal_axes("logsumexp", axis, tensor.ndim)
    kept = tuple(k for k in range(tensor.ndim) if k not in axes)
    shape = tuple(tensor.shape[k] for k in kept)
    rows = to_shape(reorder(tensor, (*kept, *axes)), (*shape, _count(tensor, axes)))
    return _kept(apply(Op.LOGSUMEXP, rows), tensor.shape, axes, keepdims)
