"""Embedding, and reductions of rows that share a segment."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.associative import associative_scan
from einkorn.convert import as_int, as_tensor
from einkorn.functions.creation import ones
from einkorn.functions.elementwise import (
    add,
    astype,
    bitwise_and,
    cast,
    divide,
    equal,
    greater_equal,
    isfinite,
    less,
    maximum,
    minimum,
    multiply,
    stop_gradient,
    subtract,
    where,
)
from einkorn.functions.indexing import take
from einkorn.functions.manipulation import as_sizes, cut, spread_to, to_shape
from einkorn.functions.sorting import argsort
from einkorn.ir.dtypes import DType, bool_, float32, int64, uint64
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.recording import apply, scalar

if TYPE_CHECKING:
    from einkorn.tensor import Tensor


def embedding(indices: Any, w: Any, /, *, padding_idx: int | None = None) -> Tensor:
    """Rows of a table: w[indices], of shape [..., features].

    Args:
        indices: integers; a negative one counts from the end.
        w: the table [rows, features].
        padding_idx: a row that gets no gradient.

    Raises:
        BoundsError: an index is out of range.
    """
    what = "embedding"
    places, table = as_tensor(indices, what), as_tensor(w, what)
    if not places.dtype.is_integer:
        raise DTypeError(f"{what}: indices must be integers, got {places._type}")
    if table.ndim != 2:
        raise ShapeError(f"{what}: the table has rows and features, got {table._type}")
    rows = take(table, places, axis=0)
    if padding_idx is None:
        return rows
    count = table.shape[0]
    number = as_int(what, padding_idx, "padding_idx is an integer")
    if not -count <= number < count:
        raise ShapeError(f"{what}: padding_idx {number} is no row of {table._type}")
    wide = places if places.dtype is uint64 else astype(places, int64)
    known = number % count
    wrapped = wide if wide.dtype is uint64 else where(less(wide, 0), add(wide, count), wide)
    padding = to_shape(equal(wrapped, known), (*places.shape, 1))
    return where(padding, stop_gradient(rows), rows)


# -- segments --------------------------------------------------------------------------------------


def _segments(what: str, values: Any, ids: Any, count: Any) -> tuple[Tensor, Tensor, int]:
    """The values, for each row its segment (`count` for none), and how many segments there are."""
    tensor, places = as_tensor(values, what), as_tensor(ids, what)
    if tensor.dtype is bool_:
        raise DTypeError(f"{what}: needs numbers, got {tensor._type}; cast bool first")
    if not places.dtype.is_integer or places.ndim != 1 or tensor.shape[:1] != places.shape:
        raise ShapeError(
            f"{what}: segment_ids are integers, one for each row of the values, got values "
            f"{tensor._type} and segment_ids {places._type}"
        )
    (segments,) = as_sizes(what, count, int64)
    wide = minimum(places, segments) if places.dtype is uint64 else places
    wide = astype(wide, int64)
    inside = bitwise_and(greater_equal(wide, 0), less(wide, segments))
    return tensor, where(inside, wide, segments), segments


def _into(op: Op, start: Any, rows: Tensor, ids: Tensor, count: int) -> Tensor:
    """Rows added or set at their segments; those of no segment go into a row that is left out."""
    shape = (count + 1, *rows.shape[1:])
    first = apply(Op.BROADCAST, scalar(rows.dtype, start), shape=shape)
    return cut(apply(op, first, ids, rows, axis=0), 0, 0, count)


def segment_sum(values: Any, segment_ids: Any, num_segments: int, /) -> Tensor:
    """The sum of the rows of each segment, in their order; 0 for an empty segment.

    Args:
        values: [n, ...].
        segment_ids: integers [n], in any order; rows with ids outside [0, num_segments) count
            nowhere.
        num_segments: the size of the first axis of the result.
    """
    rows, ids, count = _segments("segment_sum", values, segment_ids, num_segments)
    return _into(Op.SCATTER_ADD, 0, rows, ids, count)


def _along(x: Tensor, rank: int) -> Tensor:
    """A vector along the first of `rank` axes."""
    return to_shape(x, (x.size, *(1,) * (rank - 1)))


def segment_mean(values: Any, segment_ids: Any, num_segments: int, /) -> Tensor:
    """The mean of the rows of each segment; 0 for an empty one. Integers give float32."""
    rows, ids, count = _segments("segment_mean", values, segment_ids, num_segments)
    floats = rows if rows.dtype.is_float else cast(rows, float32)
    wide = cast(floats, float32) if floats.dtype.itemsize == 2 else floats
    total = _into(Op.SCATTER_ADD, 0, wide, ids, count)
    sizes = _into(Op.SCATTER_ADD, 0, ones(ids.shape, dtype=wide.dtype), ids, count)
    return cast(divide(total, _along(maximum(sizes, 1), wide.ndim)), floats.dtype)


def segment_max(values: Any, segment_ids: Any, num_segments: int, /) -> Tensor:
    """The largest row element of each segment; -inf, or the least integer, for an empty one.

    Equal largest elements share the gradient evenly; it is 0 where they are not finite.
    """
    return _extreme("segment_max", maximum, values, segment_ids, num_segments)


def segment_min(values: Any, segment_ids: Any, num_segments: int, /) -> Tensor:
    """The smallest row element of each segment; inf, or the largest integer, for an empty one.

    Equal smallest elements share the gradient evenly; it is 0 where they are not finite.
    """
    return _extreme("segment_min", minimum, values, segment_ids, num_segments)


def segment_prod(values: Any, segment_ids: Any, num_segments: int, /) -> Tensor:
    """The product of the rows of each segment; 1 for an empty one."""
    rows, ids, count = _segments("segment_prod", values, segment_ids, num_segments)
    return _folded(multiply, 1, rows, ids, count)


def _folded(
    combine: Callable[[Tensor, Tensor], Tensor], start: Any, rows: Tensor, ids: Tensor, count: int
) -> Tensor:
    """Rows of each segment combined: sorted by segment, then running results, then the last."""
    if rows.size == 0:
        return _into(Op.SCATTER_SET, start, rows, ids, count)
    order = argsort(ids)
    sorted_ids = apply(Op.GATHER, ids, order, axis=0)
    ordered = apply(Op.GATHER, rows, order, axis=0)

    def running(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        same = spread_to(_along(equal(a[0], b[0]), rows.ndim), b[1].shape)
        return b[0], where(same, combine(a[1], b[1]), b[1])

    _, found = associative_scan(running, (sorted_ids, ordered))
    return _into(Op.SCATTER_SET, start, found, sorted_ids, count)


def _least(dtype: DType, largest: bool) -> Any:
    """What is smaller, or larger, than every number."""
    if dtype.is_float:
        return np.inf if largest else -np.inf
    info = np.iinfo(dtype.numpy)
    return int(info.max if largest else info.min)


def _extreme(
    what: str, combine: Callable[[Any, Any], Tensor], values: Any, ids: Any, count: Any
) -> Tensor:
    rows, places, segments = _segments(what, values, ids, count)
    if rows.dtype.kind not in "fiu":
        raise DTypeError(f"{what}: needs numbers with an order, got {rows._type}")
    start = _least(rows.dtype, largest=combine is minimum)
    best = _folded(combine, start, stop_gradient(rows), places, segments)
    if not rows.dtype.is_float or rows.size == 0:
        return best
    # What is added is 0 and has the gradient: the mean of the equal elements less itself.
    padded = apply(Op.PAD, best, scalar(best.dtype, 0), **_one_row_behind(best))
    there = equal(rows, apply(Op.GATHER, padded, places, axis=0))
    chosen = bitwise_and(there, isfinite(rows))
    zero = where(chosen, subtract(rows, stop_gradient(rows)), 0)
    many = _into(Op.SCATTER_ADD, 0, astype(chosen, rows.dtype), places, segments)
    shared = divide(_into(Op.SCATTER_ADD, 0, zero, places, segments), maximum(many, 1))
    return add(stop_gradient(best), shared)


def _one_row_behind(x: Tensor) -> dict[str, tuple[int, ...]]:
    none = (0,) * x.ndim
    return {"low": none, "high": (1, *none[1:]), "interior": none}
