"""Contractions. Every one of them is a single `dot` between reshapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from einkorn.autocast import low_precision
from einkorn.convert import as_int, as_tensor, meet, normal_axis
from einkorn.functions.elementwise import add, multiply
from einkorn.functions.floating import conj
from einkorn.functions.manipulation import common_shape, moveaxis, reorder, spread_to, to_shape
from einkorn.ir.dtypes import bool_
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.ir.shape_rules import broadcast_shapes
from einkorn.recording import apply

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

MSG_MATMUL = (
    "matmul: {a} @ {b}: the last axis of the left operand has {k} elements, {where} of the right "
    "one {m}; they must be equal.{hint}"
)


def numbers(what: str, x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    """Two operands of one dtype that has arithmetic."""
    a, b = meet(what, x1, x2)
    if a.dtype is bool_:
        raise DTypeError(f"{what}: bool has no arithmetic; cast with .astype('float32')")
    return a, b


@low_precision
def matmul(x1: Any, x2: Any, /) -> Tensor:
    """The matrix product of the last two axes; the others broadcast.

    A one-dimensional operand is a row on the left and a column on the right; that axis is dropped
    from the result.
    """
    a, b = numbers("matmul", x1, x2)
    if not a.ndim or not b.ndim:
        raise ShapeError(
            f"matmul: needs at least one axis on both sides, got {a._type} and {b._type}; use *"
        )
    if a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ShapeError(_matmul_error(a, b))
    left = to_shape(a, (1, *a.shape)) if a.ndim == 1 else a
    right = to_shape(b, (*b.shape, 1)) if b.ndim == 1 else b
    product = _matrices(left, right)
    rows = () if a.ndim == 1 else product.shape[-2:-1]
    columns = () if b.ndim == 1 else product.shape[-1:]
    return to_shape(product, product.shape[:-2] + rows + columns)


def _matrices(a: Tensor, b: Tensor) -> Tensor:
    """The product of operands with at least two axes each."""
    m, k = a.shape[-2:]
    n = b.shape[-1]
    if b.ndim == 2:
        rows = to_shape(a, (prod(a.shape[:-1]), k))
        return to_shape(apply(Op.DOT, rows, b, contract=(1, 0)), (*a.shape[:-1], n))
    batch = _batch(a, b)
    left, right = spread_to(a, (*batch, m, k)), spread_to(b, (*batch, k, n))
    return apply(Op.DOT, left, right, contract=(len(batch) + 1, len(batch)))


def _batch(a: Tensor, b: Tensor) -> tuple[int, ...]:
    """The common shape of the axes before the last two."""
    try:
        return broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"matmul: the batch axes of {a._type} and {b._type} (all but the last two) do not "
            "broadcast: counted from the last, sizes must be equal or 1"
        ) from None


def _matmul_error(a: Tensor, b: Tensor) -> str:
    k, m = a.shape[-1], b.shape[max(b.ndim - 2, 0)]
    hint = ""
    if b.ndim > 1 and b.shape[-1] == k:
        hint = f" Transposing the right one fits: x1 @ x2.mT with x1 {a._type} and x2 {b._type}."
    elif a.ndim > 1 and a.shape[-2] == m:
        hint = f" Transposing the left one fits: x1.mT @ x2 with x1 {a._type} and x2 {b._type}."
    where = "the second to last axis" if b.ndim > 1 else "the only axis"
    return MSG_MATMUL.format(a=a._type, b=b._type, k=k, m=m, where=where, hint=hint)


@low_precision
def linear(x: Any, w: Any, /, b: Any = None) -> Tensor:
    """x @ w.T + b over the last axis of `x`, for weights `w` of shape (out, in)."""
    tensor, weights = as_tensor(x, "linear"), as_tensor(w, "linear")
    if weights.ndim != 2 or tensor.ndim == 0 or tensor.shape[-1] != weights.shape[1]:
        raise ShapeError(
            f"linear: the last axis of x, {tensor._type}, must have as many elements as the last "
            f"axis of the weights (out, in), {weights._type}"
        )
    if tensor.dtype is not weights.dtype:
        raise DTypeError(
            f"linear: x is {tensor._type} but the weights are {weights._type}; cast one of them, "
            f"for example x.astype({weights.dtype.name!r})"
        )
    rows = to_shape(tensor, (prod(tensor.shape[:-1]), tensor.shape[-1]))
    product = apply(Op.DOT, rows, weights, contract=(1, 1))
    product = to_shape(product, (*tensor.shape[:-1], weights.shape[0]))
    if b is None:
        return product
    bias = as_tensor(b, "linear")
    if bias.shape != weights.shape[:1] or bias.dtype is not weights.dtype:
        raise ShapeError(
            f"linear: the bias of weights {weights._type} cannot be {bias._type}; it has one "
            f"{weights.dtype} for each of the {weights.shape[0]} rows"
        )
    return add(product, bias)


@low_precision
def tensordot(
    x1: Any, x2: Any, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2
) -> Tensor:
    """The sum of products over pairs of axes.

    Args:
        axes: how many of the last axes of x1 meet the first of x2, or the axes of each, in pairs.
    """
    a, b = numbers("tensordot", x1, x2)
    over_a, over_b = _summed(a, b, axes)
    paired = len(over_a) == len(set(over_a)) == len(over_b) == len(set(over_b))
    if not paired or [a.shape[i] for i in over_a] != [b.shape[j] for j in over_b]:
        raise ShapeError(
            f"tensordot: axes {over_a} of {a._type} and {over_b} of {b._type} must be pairs of "
            "different axes of equal size"
        )
    kept_a = tuple(i for i in range(a.ndim) if i not in over_a)
    kept_b = tuple(j for j in range(b.ndim) if j not in over_b)
    left, right = (tuple(x.shape[k] for k in kept) for x, kept in ((a, kept_a), (b, kept_b)))
    size = prod(a.shape[i] for i in over_a)
    rows = to_shape(reorder(a, kept_a + over_a), (prod(left), size))
    columns = to_shape(reorder(b, over_b + kept_b), (size, prod(right)))
    return to_shape(apply(Op.DOT, rows, columns, contract=(1, 0)), left + right)


def _summed(a: Tensor, b: Tensor, axes: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of both operands that tensordot sums over."""
    if not isinstance(axes, (tuple, list)):
        count = as_int("tensordot", axes, "axes are a number of axes, or the axes of each operand")
        if not 0 <= count <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot: {a._type} and {b._type} have no {count} axes to sum over")
        return tuple(range(a.ndim - count, a.ndim)), tuple(range(count))
    if len(axes) != 2:
        raise ShapeError(f"tensordot: axes name the axes of two operands, got {axes!r}")
    over_a, over_b = (
        tuple(
            normal_axis("tensordot", axis, x.ndim)
            for axis in (listed if isinstance(listed, (tuple, list)) else (listed,))
        )
        for x, listed in zip((a, b), axes)
    )
    return over_a, over_b


@low_precision
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """The sum of products along one axis, x1 conjugated; the others broadcast."""
    a, b = numbers("vecdot", x1, x2)
    a = conj(a)
    rank = min(a.ndim, b.ndim)
    axis = as_int("vecdot", axis, "an axis is an integer")
    if not -rank <= axis < 0:
        raise ShapeError(
            f"vecdot: axis {axis} of {a._type} and {b._type} must be counted from the end, "
            f"from {-rank} to -1"
        )
    if a.shape[axis] != b.shape[axis]:
        raise ShapeError(
            f"vecdot: axis {axis} of {a._type} and {b._type} must have equally many elements"
        )
    a, b = (x if axis == -1 else moveaxis(x, axis, -1) for x in (a, b))
    shape = common_shape("vecdot", a, b)
    rows, columns = spread_to(a, shape), spread_to(b, shape)
    product = apply(
        Op.DOT,
        to_shape(rows, (*shape[:-1], 1, shape[-1])),
        to_shape(columns, (*shape[:-1], 1, shape[-1])),
        contract=(len(shape), len(shape)),
    )
    return to_shape(product, shape[:-1])


def outer(x1: Any, x2: Any, /) -> Tensor:
    """The products of every element of one vector with every element of another."""
    a, b = numbers("outer", x1, x2)
    if a.ndim != 1 or b.ndim != 1:
        raise ShapeError(f"outer: needs two vectors, got {a._type} and {b._type}")
    return multiply(to_shape(a, (a.size, 1)), b)
