"""Sorting along an axis. All of it is one op, `argsort`, and a gather, which has a gradient."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from einkorn.convert import as_flag, as_int, as_tensor, normal_axis
from einkorn.functions.elementwise import add, cast, multiply, subtract
from einkorn.functions.manipulation import cut, flatten, flip, moveaxis, to_shape
from einkorn.ir.dtypes import bool_, int64, uint8
from einkorn.ir.errors import ShapeError
from einkorn.ir.ops import Op
from einkorn.recording import apply

if TYPE_CHECKING:
    from einkorn.tensor import Tensor


class TopK(NamedTuple):
    """What `topk` gives.

    Attributes:
        values: the chosen elements.
        indices: where they were.
    """

    values: Tensor
    indices: Tensor


def argsort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The positions along an axis that put its elements in order.

    NaN counts as the largest number, and -0.0 equals 0.0.

    Args:
        stable: equal elements keep their order; they always do.
    """
    _, order, axis = _sorted_rows("argsort", x, axis, descending, stable)
    return moveaxis(order, -1, axis)


def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements in order along an axis, NaN as the largest.

    Args:
        stable: equal elements keep their order; they always do.
    """
    rows, order, axis = _sorted_rows("sort", x, axis, descending, stable)
    return moveaxis(_taken(rows, order), -1, axis)


def topk(x: Any, k: int, /, *, axis: int = -1, largest: bool = True) -> TopK:
    """The `k` largest elements along an axis in descending order, and their positions.

    Of equal elements the first ones are chosen; NaN counts as the largest number.

    Args:
        largest: otherwise the smallest elements, in ascending order.
    """
    largest = as_flag("topk", "largest", largest)
    rows, order, axis = _sorted_rows("topk", x, axis, largest, True)
    k = as_int("topk", k, "k is an integer")
    if not 0 <= k <= rows.shape[-1]:
        raise ShapeError(
            f"topk: k={k} must be between 0 and the {rows.shape[-1]} elements of axis {axis}"
        )
    order = cut(order, order.ndim - 1, 0, k)
    return TopK(moveaxis(_taken(rows, order), -1, axis), moveaxis(order, -1, axis))


def _sorted_rows(
    what: str, x: Any, axis: int, descending: bool, stable: bool
) -> tuple[Tensor, Tensor, int]:
    """`x` with the axis moved to the end, the order of each row, and the axis."""
    tensor = as_tensor(x, what)
    axis = normal_axis(what, axis, tensor.ndim)
    descending = as_flag(what, "descending", descending)
    as_flag(what, "stable", stable)
    rows = moveaxis(tensor, axis, -1)
    keys = cast(rows, uint8) if rows.dtype is bool_ else rows
    if not descending:
        return rows, apply(Op.ARGSORT, keys), axis
    # Reversed before and after: so equal elements keep their order.
    backwards = apply(Op.ARGSORT, flip(keys, axis=-1))
    return rows, flip(subtract(rows.shape[-1] - 1, backwards), axis=-1), axis


def _taken(rows: Tensor, order: Tensor) -> Tensor:
    """rows [..., n] at the places `order` [..., k] of each row, which lie inside it."""
    count, n = prod(rows.shape[:-1]), rows.shape[-1]
    places = to_shape(order, (count, order.shape[-1]))
    if count > 1:
        first = multiply(apply(Op.IOTA, size=count, dtype=int64), n)
        places = add(to_shape(first, (count, 1)), places)
    return to_shape(apply(Op.GATHER, flatten(rows), flatten(places), axis=0), order.shape)
