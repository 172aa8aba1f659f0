"""Reading parts of tensors: x[index], take, take_along_axis.

An index is resolved once into a `Selection`. Its basic part (integers, slices, new axes) is a
slice, a flip and a reshape. Its arrays become one `gather` on one axis: several arrays are combined
into one linear index over the axes they name, where an entry out of range in any of them is sent
out of range of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.convert import as_tensor, normal_axis
from einkorn.functions.elementwise import (
    add,
    bitwise_or,
    cast,
    greater_equal,
    less,
    minimum,
    multiply,
    where,
)
from einkorn.functions.manipulation import (
    common_shape,
    flatten,
    moveaxis,
    reorder,
    spread_to,
    to_shape,
)
from einkorn.functions.selection import Selection, resolve
from einkorn.ir.dtypes import int64, uint64
from einkorn.ir.errors import BoundsError, DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.ir.shape_rules import broadcast_shapes
from einkorn.recording import Value, apply, current_trace

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Array = np.ndarray[Any, Any]
Index = Any  # an index array: a Tensor whose values the step brings, or a NumPy array known now
Shape = tuple[int, ...]

MSG_BOUNDS = (
    "{what}: index {index} is out of range for axis {axis} of {type}, which has {size} elements"
)


def getitem(x: Tensor, index: Any) -> Tensor:
    """x[index] with the meaning that NumPy gives it."""
    return select(x, resolve(x._type, index))


def select(x: Tensor, selection: Selection) -> Tensor:
    """The part of x that a resolved index chooses."""
    part = _basic(x, selection)
    if not selection.arrays:
        return to_shape(part, selection.shape_with(()))
    linear = combine("index", x, selection.arrays, reads=part.size > 0)
    taken = apply(Op.GATHER, _merged(part, selection), linear, axis=selection.place)
    return to_shape(taken, selection.shape_with(linear.shape))


def _basic(x: Tensor, selection: Selection) -> Tensor:
    """The slices of a selection, with every axis still there."""
    part = x
    if selection.cuts(x.shape):
        rows = dict(starts=selection.starts, stops=selection.stops, steps=selection.steps)
        part = apply(Op.SLICE, x, **rows)
    return apply(Op.FLIP, part, axes=selection.flips) if selection.flips else part


def _merged(part: Tensor, selection: Selection) -> Tensor:
    """The axes that arrays index as one axis at `place`, and no axes that integers removed."""
    named = tuple(axis for axis, _ in selection.arrays)
    before, after = selection.kept[: selection.place], selection.kept[selection.place :]
    removed = tuple(k for k in range(part.ndim) if k not in (*named, *selection.kept))
    order = (*before, *named, *after)
    if order != tuple(sorted(order)):
        part = reorder(part, order + removed)
        sizes = part.shape[: len(order)]
    else:
        sizes = tuple(part.shape[k] for k in order)
    middle = prod(sizes[len(before) : len(before) + len(named)])
    return to_shape(part, (*sizes[: len(before)], middle, *sizes[len(before) + len(named) :]))


# -- index arrays ----------------------------------------------------------------------------------


def _known(index: Index) -> Array | None:
    """The values of an index when they cannot change between now and the run."""
    if not isinstance(index, Value):
        return index
    return index._eager() if current_trace.get() is None else None


def combine(
    what: str,
    x: Tensor,
    arrays: Sequence[tuple[int, Index]],
    *,
    negative: bool = True,
    reads: bool = True,
) -> Tensor:
    """One index over several axes of `x`, flattened: the linear index of broadcast arrays.

    Args:
        arrays: pairs of an axis and the index array for it.
        negative: whether negative indices count from the end; otherwise they are out of range.
        reads: whether anything is read; if not, indices are not checked, as in a compiled step.
    """
    tensors = [as_tensor(index, what) for _, index in arrays]
    known = [_known(index) for _, index in arrays]
    if prod(common_shape(what, *tensors)) and reads:
        for (axis, _), values in zip(arrays, known):
            if values is not None:
                _check_bounds(what, x, axis, values, negative)
    if len(arrays) == 1 and negative:
        return tensors[0]
    sizes = [x.shape[axis] for axis, _ in arrays]
    certain = [values for values in known if values is not None]
    if len(certain) == len(arrays):
        return as_tensor(_linear_now(certain, sizes), what)
    return _linear_later(tensors, sizes, negative)


def _check_bounds(what: str, x: Tensor, axis: int, values: Array, negative: bool) -> None:
    size = x.shape[axis]
    low, high = int(values.min()), int(values.max())
    if high >= size or low < (-size if negative else 0):
        bad = high if high >= size else low
        raise BoundsError(
            MSG_BOUNDS.format(what=what, index=bad, axis=axis, type=x._type, size=size)
        )


def _linear_now(values: Sequence[Array], sizes: Sequence[int]) -> Array:
    linear = np.zeros((), np.int64)
    for index, size in zip(values, sizes):
        wide = index.astype(np.int64)
        linear = np.asarray(linear * size + np.where(wide < 0, wide + size, wide))
    return linear


def _linear_later(tensors: Sequence[Tensor], sizes: Sequence[int], negative: bool) -> Tensor:
    linear: Any = None
    outside: Any = None
    for tensor, size in zip(tensors, sizes):
        if tensor.dtype is uint64:
            tensor = minimum(tensor, 2**63 - 1)
        place = cast(tensor, int64)
        if negative:
            place = where(less(place, 0), add(place, size), place)
        bad = bitwise_or(less(place, 0), greater_equal(place, size))
        linear = place if linear is None else add(multiply(linear, size), place)
        outside = bad if outside is None else bitwise_or(outside, bad)
    return where(outside, prod(sizes), linear)


# -- functions -------------------------------------------------------------------------------------


def _indices(what: str, indices: Any) -> Tensor:
    empty = isinstance(indices, (list, tuple)) and not len(indices)
    tensor = as_tensor(np.zeros(0, np.int64) if empty else indices, what)
    if not tensor.dtype.is_integer:
        raise DTypeError(f"{what}: indices must be integers, got {tensor._type}")
    return tensor


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Tensor:
    """The elements at `indices` along an axis, which may be left out for a vector."""
    tensor, places = as_tensor(x, "take"), _indices("take", indices)
    if axis is None and tensor.ndim != 1:
        raise ShapeError(f"take: {tensor._type} does not have one axis; give axis=")
    axis = normal_axis("take", 0 if axis is None else axis, tensor.ndim)
    linear = combine("take", tensor, [(axis, places)], reads=tensor.size > 0)
    return apply(Op.GATHER, tensor, linear, axis=axis)


def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Tensor:
    """Elements along an axis, with an index of its own for each position of the other axes."""
    what = "take_along_axis"
    tensor, places = as_tensor(x, what), _indices(what, indices)
    axis = normal_axis(what, axis, tensor.ndim)
    if places.ndim != tensor.ndim:
        raise ShapeError(f"{what}: {places._type} must have as many axes as {tensor._type}")
    rows, columns = (moveaxis(t, axis, -1) for t in (tensor, places))
    try:
        outer = broadcast_shapes(rows.shape[:-1], columns.shape[:-1])
    except ValueError:
        raise ShapeError(
            f"{what}: {places._type} must agree with {tensor._type} in every axis but {axis}, or "
            "have one element there"
        ) from None
    rows, columns = (spread_to(t, (*outer, t.shape[-1])) for t in (rows, columns))
    return moveaxis(pick(what, rows, columns), -1, axis)


def pick(what: str, x: Tensor, places: Tensor, negative: bool = True) -> Tensor:
    """x [..., n] at places [..., m] of the last axis, row by row."""
    count, size = prod(x.shape[:-1]), x.shape[-1]
    table = to_shape(x, (count, size))
    columns = to_shape(places, (count, places.shape[-1]))
    if current_trace.get() is None:
        row: Index = np.arange(count).reshape(count, 1)
    else:
        row = apply(Op.RESHAPE, apply(Op.IOTA, size=count, dtype=int64), shape=(count, 1))
    linear = combine(what, table, [(0, row), (1, columns)], negative=negative, reads=table.size > 0)
    return to_shape(apply(Op.GATHER, flatten(table), linear, axis=0), places.shape)
