"""Searching: positions and numbers of elements, and places in a sorted vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.convert import as_choice, as_tensor, meet
from einkorn.functions.elementwise import (
    add,
    bitwise_and,
    bitwise_or,
    cast,
    less,
    less_equal,
    minimum,
    not_equal,
    subtract,
    where,
)
from einkorn.functions.indexing import take
from einkorn.functions.statistical import Axis
from einkorn.functions.statistical import sum as total
from einkorn.ir.dtypes import bool_, int64, uint8
from einkorn.ir.errors import ShapeError, TraceError
from einkorn.ir.ops import Op
from einkorn.recording import apply, current_trace, scalar

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

MSG_NONZERO = (
    "nonzero: the size of the result depends on the values, which only exist when {trace} "
    "(compiled) runs; use ek.where(mask, a, b), or ek.count_nonzero(x) for their number"
)


def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """The positions of the elements that are not zero, one index tensor for each axis."""
    tensor = as_tensor(x, "nonzero")
    if (trace := current_trace.get()) is not None:
        raise TraceError(MSG_NONZERO.format(trace=trace.name))
    if not tensor.ndim:
        raise ShapeError(f"nonzero: needs at least one axis, got {tensor._type}")
    places = np.nonzero(tensor._eager())
    return tuple(as_tensor(place.astype(np.int64), "nonzero") for place in places)


def count_nonzero(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The number of elements over axes that are not zero, over all by default."""
    truth = cast(as_tensor(x, "count_nonzero"), bool_)
    return total(cast(truth, int64), axis=axis, keepdims=keepdims)


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Tensor:
    """For each value of `x2` the place in the sorted vector `x1` where it keeps the order.

    NaN counts as the largest number. It is a binary search, so about log2(n) gathers.

    Args:
        side: "left" puts a value before those equal to it, "right" behind them.
        sorter: the indices that sort `x1`, when it is not sorted itself.
    """
    what = "searchsorted"
    side = as_choice(what, "side", side, ("left", "right"))
    vector, values = meet(what, x1, x2)
    if vector.ndim != 1:
        raise ShapeError(f"{what}: x1 must be one sorted vector, got {vector._type}")
    if sorter is not None:
        order = as_tensor(sorter, what)
        if order.shape != vector.shape:
            raise ShapeError(
                f"{what}: the sorter {order._type} must have x1's shape, {vector._type}"
            )
        vector = take(vector, order)
    if vector.dtype is bool_:
        vector, values = cast(vector, uint8), cast(values, uint8)
    n = vector.size
    place = apply(Op.BROADCAST, scalar(int64, 0), shape=values.shape)
    step = 1 << n.bit_length() >> 1
    while step:
        further = add(place, step)
        there = apply(Op.GATHER, vector, subtract(minimum(further, n), 1), axis=0)
        moves = bitwise_and(_precedes(there, values, side), less_equal(further, n))
        place = where(moves, further, place)
        step //= 2
    return place


def _precedes(there: Tensor, values: Tensor, side: str) -> Tensor:
    """Whether an element stands before a value that is put in; NaN is the largest."""
    found = less(there, values) if side == "left" else less_equal(there, values)
    if not values.dtype.is_float:
        return found
    is_last = not_equal(values, values)
    if side == "left":
        is_last = bitwise_and(is_last, less_equal(there, there))
    return bitwise_or(found, is_last)
