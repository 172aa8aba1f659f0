"""Norms of vectors and matrices."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from einkorn.autocast import single_precision
from einkorn.convert import as_flag, as_number, normal_axes
from einkorn.functions.elementwise import (
    abs,
    cast,
    divide,
    equal,
    multiply,
    not_equal,
    pow,
    sqrt,
    square,
    where,
)
from einkorn.functions.factors import matrices, svdvals
from einkorn.functions.floating import floats, imag, real
from einkorn.functions.manipulation import to_shape
from einkorn.functions.statistical import max, min, sum
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import ShapeError

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Axis = int | Sequence[int] | None

MSG_ORD = "matrix_norm: ord must be 1, -1, 2, -2, inf, -inf, 'fro' or 'nuc', got {ord!r}"


@single_precision
def vector_norm(
    x: Any, /, *, axis: Axis = None, keepdims: bool = False, ord: int | float = 2
) -> Tensor:
    """The norm over axes, over all elements by default.

    Args:
        ord: inf and -inf give the largest and the smallest absolute value, 0 the number of
            elements that are not 0, any other p the sum of |x|**p to the power 1/p.

    The gradient at 0 is 0.
    """
    (tensor,) = floats("vector_norm", x)
    keepdims = as_flag("vector_norm", "keepdims", keepdims)
    order = float(as_number("vector_norm", ord, "ord is a number"))
    axes = normal_axes("vector_norm", axis, tensor.ndim)
    if not axes:
        return cast(abs(tensor), tensor.dtype.real)
    if tensor.dtype.itemsize > 2:
        return _vector_norm(tensor, axes, keepdims, order)
    return cast(_vector_norm(cast(tensor, float32), axes, keepdims, order), tensor.dtype)


def _vector_norm(x: Tensor, axes: tuple[int, ...], keepdims: bool, order: float) -> Tensor:
    if order in (inf, -inf):
        return (max if order > 0 else min)(abs(x), axis=axes, keepdims=keepdims)
    if order == 0:
        return sum(cast(not_equal(x, 0), x.dtype.real), axis=axes, keepdims=keepdims)
    if order == 1:
        return sum(abs(x), axis=axes, keepdims=keepdims)
    if order == 2:
        return _root(sum(_squares(x), axis=axes, keepdims=keepdims), sqrt)
    total = sum(pow(abs(x), order), axis=axes, keepdims=keepdims)
    return _root(total, lambda y: pow(y, divide(1.0, cast(order, y.dtype))))


def _squares(x: Tensor) -> Tensor:
    if x.dtype.is_complex:
        return square(real(x)) + square(imag(x))
    return multiply(x, x)


def _root(total: Tensor, root: Any) -> Tensor:
    """A root whose derivative at 0 is 0."""
    nothing = equal(total, 0)
    return where(nothing, total, root(where(nothing, 1, total)))


@single_precision
def matrix_norm(
    x: Any, /, *, keepdims: bool = False, ord: int | float | str | None = "fro"
) -> Tensor:
    """The norm of matrices.

    Args:
        ord: "fro" is the root of the sum of squares, "nuc" the sum of the singular values; 2 and -2
            are the largest and the smallest of these, 1 and -1 of the sums of columns, inf and
            -inf of the sums of rows.
    """
    tensor = matrices("matrix_norm", x)
    keepdims = as_flag("matrix_norm", "keepdims", keepdims)
    found = _matrix_norm(tensor, "fro" if ord is None else ord)
    return to_shape(found, (*found.shape, 1, 1)) if keepdims else found


def _matrix_norm(x: Tensor, ord: Any) -> Tensor:
    if isinstance(ord, str):
        if ord == "fro":
            return _vector_norm(x, (x.ndim - 2, x.ndim - 1), False, 2)
        if ord == "nuc":
            return sum(svdvals(x), axis=-1)
        raise ShapeError(MSG_ORD.format(ord=ord))
    order = float(as_number("matrix_norm", ord, "ord is a number or a word"))
    if order not in (1, -1, 2, -2, inf, -inf):
        raise ShapeError(MSG_ORD.format(ord=ord))
    extreme = max if order > 0 else min
    if order in (2, -2):
        return extreme(svdvals(x), axis=-1)
    return extreme(sum(abs(x), axis=-2 if order in (1, -1) else -1), axis=-1)
