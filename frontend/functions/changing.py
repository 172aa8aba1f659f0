"""Changing parts of tensors: x.at[index].set(v), .add(v), .multiply(v), .min(v), .max(v).

A basic index is laid out in the shape of x, a mask becomes a choice, and index arrays a scatter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.convert import as_tensor, meet, snapshot
from einkorn.functions.elementwise import (
    add,
    cast,
    equal,
    less,
    maximum,
    minimum,
    multiply,
    where,
)
from einkorn.functions.indexing import combine, getitem, select
from einkorn.functions.manipulation import concat, cut, flatten, spread_to, to_shape
from einkorn.functions.selection import Selection, resolve
from einkorn.ir.dtypes import bool_, int64, uint64
from einkorn.ir.errors import BoundsError, DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.recording import Value, apply, scalar

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Change:
    """What becomes of an element and the value for it.

    Attributes:
        what: the name of it in messages.
        function: the new element, from the old one and the value.
        op: the op that does it at index arrays; None when there is none.
        of_numbers: whether it is arithmetic, which bool has not.
    """

    what: str
    function: Callable[[Tensor, Tensor], Tensor]
    op: Op | None = None
    of_numbers: bool = False


_SET = _Change("at[...].set", lambda old, value: value, Op.SCATTER_SET)
_ADD = _Change("at[...].add", add, Op.SCATTER_ADD, of_numbers=True)
_MULTIPLY = _Change("at[...].multiply", multiply, of_numbers=True)
_MIN = _Change("at[...].min", minimum)
_MAX = _Change("at[...].max", maximum)


class Indexer:
    """What `x.at` gives: `x.at[index]` names a part of x."""

    __slots__ = ("_x",)

    def __init__(self, x: Tensor) -> None:
        self._x = x

    def __getitem__(self, index: Any) -> Part:
        return Part(self._x, index)


class Part:
    """A part of a tensor; all methods but `get` give a tensor in which it is changed.

    Where an index repeats, `multiply`, `min` and `max` first join the values for one place, in an
    order that depends on nothing but the number of values and where the repeats are.
    """

    __slots__ = ("_index", "_x")

    def __init__(self, x: Tensor, index: Any) -> None:
        self._x, self._index = x, index

    def get(self) -> Tensor:
        """The part itself, x[index]."""
        return getitem(self._x, self._index)

    def set(self, value: Any) -> Tensor:
        """x with the part replaced; where an index repeats, the last value stays."""
        return _change(_SET, self._x, self._index, value)

    def add(self, value: Any) -> Tensor:
        """x with values added to the part; where an index repeats, all are added, in order."""
        return _change(_ADD, self._x, self._index, value)

    def multiply(self, value: Any) -> Tensor:
        """x with the part multiplied by values, by all of them where an index repeats."""
        return _change(_MULTIPLY, self._x, self._index, value)

    def min(self, value: Any) -> Tensor:
        """x with the smaller of each element of the part and the values for it."""
        return _change(_MIN, self._x, self._index, value)

    def max(self, value: Any) -> Tensor:
        """x with the larger of each element of the part and the values for it."""
        return _change(_MAX, self._x, self._index, value)


def _change(change: _Change, x: Tensor, index: Any, value: Any) -> Tensor:
    what = change.what
    if change.of_numbers and x.dtype is bool_:
        raise DTypeError(f"{what}: bool has no arithmetic; use set, or cast first")
    _, update = meet(what, x, value)
    if update.dtype is not x.dtype:
        raise DTypeError(
            f"{what}: a value of {update.dtype} does not fit into {x._type}; cast the tensor or "
            "the value"
        )
    if _is_mask(index) and update.ndim <= x.ndim - index.ndim:
        return _change_masked(change, x, as_tensor(index, what), update)
    selection = resolve(x._type, index)
    if not selection.arrays:
        return _change_slices(change, x, selection, update)
    if selection.is_one_axis(x.shape):
        axis = selection.arrays[0][0]
        places, target = combine(what, x, selection.arrays, reads=x.size > 0), snapshot(x)
    else:
        # Any other mixture: pick the linear positions of the elements with the same index.
        numbers = apply(Op.IOTA, size=x.size, dtype=int64)
        places, target, axis = select(to_shape(numbers, x.shape), selection), flatten(x), 0
    shape = target.shape[:axis] + places.shape + target.shape[axis + 1 :]
    update = _fitted(what, update, shape)
    if change.op is None:
        changed = _joined(change, target, places, update, axis)
    else:
        changed = apply(change.op, target, places, update, axis=axis)
    return to_shape(changed, x.shape)


def _joined(change: _Change, x: Tensor, places: Tensor, update: Tensor, axis: int) -> Tensor:
    """The values for one place joined, then with its element; the result is set there.

    Sorted by place, the values of one place stand together. In rounds, each takes in the one 1, 2,
    4, ... before it when that is for the same place, so the last of them has all, and the last one
    that is set stays.
    """
    count = places.size
    where_to = _from_start(flatten(places), x.shape[axis])
    rows = to_shape(update, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    if count > 1:
        order = apply(Op.ARGSORT, where_to)
        where_to = apply(Op.GATHER, where_to, order, axis=0)
        rows = apply(Op.GATHER, rows, order, axis=axis)
    distance = 1
    while distance < count:
        before, later = (cut(rows, axis, a, a + count - distance) for a in (0, distance))
        same = equal(cut(where_to, 0, distance, count), cut(where_to, 0, 0, count - distance))
        same = to_shape(same, (count - distance, *(1 for _ in x.shape[axis + 1 :])))
        later = where(same, change.function(before, later), later)
        rows = concat([cut(rows, axis, 0, distance), later], axis=axis)
        distance *= 2
    held = apply(Op.GATHER, x, where_to, axis=axis)
    return apply(Op.SCATTER_SET, x, where_to, change.function(held, rows), axis=axis)


def _from_start(places: Tensor, size: int) -> Tensor:
    """Indices counted from the start, so that equal places are equal numbers."""
    wide = cast(minimum(places, 2**63 - 1) if places.dtype is uint64 else places, int64)
    counted = where(less(wide, 0), add(wide, size), wide)
    return where(less(counted, 0), size, counted)  # further out stays out of range


def _fitted(what: str, update: Tensor, shape: Shape) -> Tensor:
    """The update broadcast to the shape of the part."""
    tail = shape[len(shape) - update.ndim :] if update.ndim else ()
    if update.ndim > len(shape) or any(a not in (1, b) for a, b in zip(update.shape, tail)):
        raise ShapeError(f"{what}: {update._type} does not broadcast to the part's shape {shape}")
    return spread_to(update, shape)


def _is_mask(index: Any) -> bool:
    if isinstance(index, Value):
        return index._type.dtype is bool_ and index._type.rank > 0
    return isinstance(index, np.ndarray) and index.dtype == bool and index.ndim > 0


def _change_masked(change: _Change, x: Tensor, mask: Tensor, update: Tensor) -> Tensor:
    """A choice by the mask, which needs no count of its elements and so works in a trace too."""
    what = change.what
    if mask.shape != x.shape[: mask.ndim]:
        raise BoundsError(f"{what}: the mask {mask._type} must have the first axes of {x._type}")
    _fitted(what, update, x.shape[mask.ndim :])
    wide = to_shape(mask, mask.shape + (1,) * (x.ndim - mask.ndim))
    return where(wide, change.function(x, update), x)


_NOTHING = {"f": -0.0, "c": complex(-0.0, -0.0)}  # what adding does not change


def _change_slices(change: _Change, x: Tensor, selection: Selection, update: Tensor) -> Tensor:
    """The update laid out in the shape of x; around it a mask, or what adding does not change."""
    what = change.what
    shape = selection.shape_with(())
    if not prod(shape):
        _fitted(what, update, shape)
        return snapshot(x)
    update = _fitted(what, update, shape)
    if change.op is None:
        update = change.function(select(x, selection), update)
    laid = to_shape(update, selection.sizes)
    if selection.flips:
        laid = apply(Op.FLIP, laid, axes=selection.flips)
    spans = [(n - 1) * step + 1 for n, step in zip(selection.sizes, selection.steps)]
    high = (n - a - span for n, a, span in zip(x.shape, selection.starts, spans))
    gaps = tuple(step - 1 for step in selection.steps)
    around = dict(low=selection.starts, high=tuple(high), interior=gaps)
    if change is _ADD:
        # x + -0.0 is x for every x, and x + 0.0 is not for -0.0.
        nothing = scalar(x.dtype, _NOTHING.get(x.dtype.kind, 0))
        return add(x, apply(Op.PAD, laid, nothing, **around))
    inside = apply(Op.BROADCAST, scalar(bool_, True), shape=selection.sizes)
    mask = apply(Op.PAD, inside, scalar(bool_, False), **around)
    return where(mask, apply(Op.PAD, laid, scalar(x.dtype, 0), **around), x)
