"""Windows over the spatial axes of [N, s..., C]: their rules, references and kernels.

Window o of an axis has the taps o * stride + w * dilation - low, w = 0, 1, ... Taps outside the
axis are padding. With `interior` gaps between the elements of an axis (`window_sum` only), element
i lies at i * (interior + 1), and what lies between is padding, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from einkorn.ir.dtypes import DType
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.shape_rules import sized
from einkorn.ir.types import TensorType

Array = np.ndarray[Any, Any]
Ints = tuple[int, ...]

WINDOW_CHUNK = 64  # windows along the last spatial axis in one work item
MAX_SPATIAL = 3
LANES = 16  # channels side by side


def reach(window: int, dilation: int) -> int:
    """The distance from the first tap of a window to behind its last one."""
    return (window - 1) * dilation + 1


def window_counts(
    sizes: Ints, window: Ints, strides: Ints, low: Ints, high: Ints, dilation: Ints, interior: Ints
) -> Ints:
    """How many windows each axis has."""
    rows = zip(sizes, window, strides, low, high, dilation, interior)
    return tuple(
        (a + max(n - 1, 0) * (gap + 1) + min(n, 1) + b - reach(w, d)) // s + 1
        for n, w, s, a, b, d, gap in rows
    )


# -- shape rules -----------------------------------------------------------------------------------


def _windows(
    x: TensorType,
    window: Ints,
    strides: Ints,
    low: Ints,
    high: Ints,
    dilation: Ints,
    interior: Ints | None = None,
) -> TensorType:
    rank = x.rank - 2
    rows = (window, strides, low, high, dilation, *((interior,) if interior else ()))
    if not 1 <= rank <= MAX_SPATIAL or any(len(row) != rank for row in rows):
        raise ShapeError(
            f"needs [N, 1 to {MAX_SPATIAL} spatial axes, C] and one entry for each spatial axis in "
            f"window, strides, low, high and dilation, got {x}, {', '.join(map(str, rows))}"
        )
    if x.dtype.kind not in "fiu":
        raise DTypeError(f"needs numbers, got {x}; cast bool first")
    if any(n < 1 for n in (*window, *strides, *dilation)) or any(n < 0 for n in interior or ()):
        raise ShapeError(
            f"windows, strides and dilation are at least 1, got {window}, {strides}, {dilation}"
        )
    gaps = interior or (0,) * rank
    counts = window_counts(x.shape[1:-1], window, strides, low, high, dilation, gaps)
    if any(n < 1 for n in counts):
        raise ShapeError(
            f"a window of {window} with dilation {dilation} is larger than the spatial axes "
            f"{x.shape[1:-1]} with padding {tuple(zip(low, high))}"
        )
    return sized(x.with_shape((x.shape[0], *counts, x.shape[-1])))


def window_pick(
    keys: TensorType,
    values: TensorType,
    window: Ints,
    strides: Ints,
    low: Ints,
    high: Ints,
    dilation: Ints,
) -> TensorType:
    """The type of one value for each window; ShapeError for windows of padding alone."""
    if keys != values:
        raise ShapeError(f"keys and values must agree in shape and dtype: {keys} and {values}")
    result = _windows(keys, window, strides, low, high, dilation)
    for axis, row in enumerate(zip(window, strides, low, dilation), 1):
        if not _all_reach(keys.shape[axis], result.shape[axis], *row):
            raise ShapeError(
                f"a window along axis {axis} of {keys} has only padding, where nothing is largest; "
                f"pad less than {tuple(zip(low, high))}"
            )
    return result


def _all_reach(size: int, count: int, window: int, stride: int, low: int, dilation: int) -> bool:
    """Whether every window of an axis has a tap that is no padding."""
    start = np.arange(count) * stride - low
    first = np.maximum(-(start // dilation), 0)  # the first tap at 0 or behind it
    return bool(((first < window) & (start + first * dilation < size)).all())


def window_place(keys: TensorType, updates: TensorType, **attrs: Any) -> TensorType:
    """The type of the keys, when the updates have that of what is picked."""
    wanted = window_pick(keys, keys, **attrs)
    if updates != wanted:
        raise ShapeError(f"the updates for keys {keys} must be {wanted}, got {updates}")
    return keys


def window_sum(
    x: TensorType,
    window: Ints,
    strides: Ints,
    low: Ints,
    high: Ints,
    dilation: Ints,
    interior: Ints,
) -> TensorType:
    """The type of the sums of windows; `low` and `high` may leave elements out."""
    return _windows(x, window, strides, low, high, dilation, interior)


# -- references ------------------------------------------------------------------------------------


def _taps(counts: Ints, window: Ints, strides: Ints, low: Ints, dilation: Ints) -> Iterator[Array]:
    """For each spatial axis the place of every tap of every window: [windows, taps]."""
    for count, w, stride, a, d in zip(counts, window, strides, low, dilation):
        yield np.arange(count)[:, None] * stride + np.arange(w) * d - a


def _read(x: Array, places: list[Array], tap: Ints) -> tuple[Array, Array, tuple[Array, ...]]:
    """One tap of every window: what it reads, whether that is inside, and where."""
    rows = [place[:, w] for place, w in zip(places, tap)]
    inside = np.ones((), bool)
    for row, n in zip(rows, x.shape[1:-1]):
        inside = inside[..., None] & (row >= 0) & (row < n)
    where = np.ix_(*(np.clip(row, 0, n - 1) for row, n in zip(rows, x.shape[1:-1])))
    return x[(slice(None), *where)], inside[None, ..., None], where


def _winners(
    keys: Array, window: Ints, strides: Ints, low: Ints, high: Ints, dilation: Ints
) -> tuple[Array, Array]:
    """The flat place, among the spatial axes, of the first largest key of each window."""
    sizes = keys.shape[1:-1]
    gaps = (0,) * len(sizes)
    counts = window_counts(sizes, window, strides, low, high, dilation, gaps)
    shape = (keys.shape[0], *counts, keys.shape[-1])
    places = list(_taps(counts, window, strides, low, dilation))
    best, found, winner = np.zeros(shape, keys.dtype), np.zeros(shape, bool), np.zeros(shape, int)
    for tap in product(*map(range, window)):
        key, inside, where = _read(keys, places, tap)
        better = ~found | ((key > best) | ((key != key) & (best == best)))
        better = better & inside
        flat = np.ravel_multi_index(where, sizes)[None, ..., None]
        best, winner = np.where(better, key, best), np.where(better, flat, winner)
        found = found | inside
    return winner, np.asarray(best)


def _flat(x: Array) -> Array:
    return x.reshape(x.shape[0], prod(x.shape[1:-1]), x.shape[-1])


def pick(keys: Array, values: Array, **attrs: Ints) -> Array:
    """The value at the first largest key of each window; NaN counts as the largest."""
    winner, _ = _winners(keys, **attrs)
    return np.take_along_axis(_flat(values), _flat(winner), 1).reshape(winner.shape)


def place(keys: Array, updates: Array, **attrs: Ints) -> Array:
    """Each update added at the first largest key of its window, windows in order."""
    winner, _ = _winners(keys, **attrs)
    wide: Array = np.zeros(_flat(keys).shape, _accumulator(keys))
    n = np.arange(len(keys)).reshape(-1, 1, 1)
    c = np.arange(int(keys.shape[-1]))
    np.add.at(wide, (n, _flat(winner), c), _flat(updates).astype(wide.dtype))
    return wide.reshape(keys.shape).astype(keys.dtype)


def total(
    x: Array,
    window: Ints,
    strides: Ints,
    low: Ints,
    high: Ints,
    dilation: Ints,
    interior: Ints,
) -> Array:
    """The sum of each window, taps in order, from +0."""
    sizes = tuple(max(n - 1, 0) * (gap + 1) + min(n, 1) for n, gap in zip(x.shape[1:-1], interior))
    apart = np.zeros((x.shape[0], *sizes, x.shape[-1]), _accumulator(x))
    apart[(slice(None), *(slice(None, None, gap + 1) for gap in interior))] = x
    counts = window_counts(x.shape[1:-1], window, strides, low, high, dilation, interior)
    result = np.zeros((x.shape[0], *counts, x.shape[-1]), apart.dtype)
    places = list(_taps(counts, window, strides, low, dilation))
    for tap in product(*map(range, window)) if apart.size else ():
        value, inside, _ = _read(apart, places, tap)
        result = result + np.where(inside, value, 0).astype(result.dtype)
    return result.astype(x.dtype)


def _accumulator(x: Array) -> Any:
    return np.float32 if x.dtype.itemsize == 2 and x.dtype.kind not in "iu" else x.dtype


def channel_kind(channels: int) -> int:
    """What a kernel knows of the number of channels: all below 16, else 16 + channels % 16."""
    return channels if channels < LANES else LANES + channels % LANES


# -- kernels ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WindowPick:
    """out[n, o..., c] = values at the first largest key of each window; all dense.

    pointers: keys, values (only if not `same`), out. params: for each spatial axis its size, its
    number of windows, its stride and its low padding; channels; chunks; examples. Work items: n,
    then the spatial axes of `out` but the last, then chunks of WINDOW_CHUNK of that (fastest).
    Every window has a tap that is no padding.

    Attributes:
        dtype: of keys and values.
        window, dilation: for each spatial axis.
        channels: `channel_kind` of their number.
        padded: whether some windows have taps outside.
        same: whether the keys are the values.
    """

    dtype: DType
    window: Ints
    dilation: Ints
    channels: int
    padded: bool
    same: bool


@dataclass(frozen=True, slots=True)
class WindowPlace:
    """out = 0, then out[n, place of the first largest key of window o, c] += updates[n, o..., c].

    pointers: keys, updates, out (of the accumulator's dtype: float32 for half types). params: as
    WindowPick up to the channels; then how many windows along the first spatial axis one work item
    has, how many such blocks there are, and examples. Work items: n * blocks. Windows of different
    blocks have no element in common.
    """

    dtype: DType
    window: Ints
    dilation: Ints
    channels: int
    padded: bool


@dataclass(frozen=True, slots=True)
class WindowSum:
    """out[n, o..., c] = the sum of the window in the order of its taps, from +0.

    pointers: x, out. params and work items: as WindowPick.

    Attributes:
        base: for each spatial axis the distance of two elements, interior + 1.
    """

    dtype: DType
    window: Ints
    dilation: Ints
    channels: int
    padded: bool
    base: Ints


WindowKernel = WindowPick | WindowPlace | WindowSum
