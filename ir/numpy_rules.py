"""The NumPy reference of each op: the oracle that every target is tested against.

Written for clarity; it agrees with the targets to a tolerance, and to the bit for ops that are
marked `exact`. Half types compute in float32 and round once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from einkorn.ir.dtypes import DType
from einkorn.ir.special_rules import normal_cdf

Array = np.ndarray[Any, Any]
Axes = tuple[int, ...]

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)


def const(dtype: DType, bits: int) -> Array:
    return np.frombuffer(bits.to_bytes(dtype.itemsize, "little"), dtype.numpy).reshape(())


def iota(size: int, dtype: DType) -> Array:
    return np.arange(size).astype(dtype.numpy)


def identity(x: Array) -> Array:
    return x


def check(x: Array, expected: bool) -> Array:
    return x


def alias(x: Array, id: int) -> Array:
    return x


def random_bits(key: Array, counter: Array, shape: Axes) -> Array:
    """Philox4x32-10, one block for every four elements."""
    size = int(np.prod(shape, dtype=np.int64))
    block = np.arange(-(-size // 4), dtype=np.uint64)
    low32 = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    draw = np.full_like(block, int(counter))
    c = [block & low32, block >> half, draw & low32, draw >> half]
    k0, k1 = np.uint32(int(key) & 0xFFFFFFFF), np.uint32(int(key) >> 32)
    with np.errstate(over="ignore"):
        for _ in range(10):
            p0, p1 = _M0 * c[0], _M1 * c[2]
            c = [
                (p1 >> half) ^ c[1] ^ np.uint64(k0),
                p1 & low32,
                (p0 >> half) ^ c[3] ^ np.uint64(k1),
                p0 & low32,
            ]
            k0, k1 = k0 + _W0, k1 + _W1
    words = np.stack(c, axis=1).astype(np.uint32).reshape(-1)
    return words[:size].reshape(shape)


def rsqrt(x: Array) -> Array:
    return (1 / np.sqrt(x.astype(_accumulator(x)))).astype(x.dtype)


def _wide(x: Array) -> Array:
    return x.astype(np.float64)


def sigmoid(x: Array) -> Array:
    return (1 / (1 + np.exp(-_wide(x)))).astype(x.dtype)


def silu(x: Array) -> Array:
    wide = _wide(x)
    return np.where(wide == -np.inf, -0.0, wide / (1 + np.exp(-wide))).astype(x.dtype)


def gelu(x: Array) -> Array:
    wide = _wide(x)
    return np.where(wide == -np.inf, -0.0, wide * normal_cdf(wide)).astype(x.dtype)


def softplus(x: Array) -> Array:
    return np.logaddexp(_wide(x), 0.0).astype(x.dtype)


def integer_pow(x: Array, exponent: int) -> Array:
    wide = x.astype(_accumulator(x))
    result = np.ones_like(wide)
    for bit in f"{exponent:b}".removeprefix("-"):
        result = result * result
        if bit == "1":
            result = result * wide
    return (1 / result if exponent < 0 else result).astype(x.dtype)


def cast(x: Array, dtype: DType) -> Array:
    """Saturating from float to integer, NaN to 0; two's complement between integers."""
    if dtype.kind not in "iu" or x.dtype.kind in "iub":
        return x.astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    wide = np.trunc(x.astype(np.float64))
    inside = (wide >= info.min) & (wide < float(info.max) + 1)
    clipped = np.where(inside, wide, 0).astype(dtype.numpy)
    edge = np.where(wide < 0, info.min, info.max).astype(dtype.numpy)
    return np.where(inside, clipped, np.where(np.isnan(wide), dtype.numpy.type(0), edge))


def maximum(a: Array, b: Array) -> Array:
    """IEEE 754-2019 maximum: NaN wins, -0.0 < +0.0."""
    larger = np.maximum(a, b)
    if a.dtype.kind in "iub":
        return larger
    return np.where(a == b, np.where(np.signbit(a), b, a), larger)


def minimum(a: Array, b: Array) -> Array:
    """IEEE 754-2019 minimum: NaN wins, -0.0 < +0.0."""
    smaller = np.minimum(a, b)
    if a.dtype.kind in "iub":
        return smaller
    return np.where(a == b, np.where(np.signbit(a), a, b), smaller)


def floor_div(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":
        return np.where(b == 0, a.dtype.type(0), np.floor_divide(a, np.where(b == 0, 1, b)))
    wide = _accumulator(a)
    return np.floor(a.astype(wide) / b.astype(wide)).astype(a.dtype)


def remainder(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":
        return np.where(b == 0, a.dtype.type(0), np.remainder(a, np.where(b == 0, 1, b)))
    return np.remainder(a, b)


def shift_left(a: Array, b: Array) -> Array:
    inside = (b >= 0) & (b < 8 * a.dtype.itemsize)
    return np.where(inside, np.left_shift(a, np.where(inside, b, 0)), a.dtype.type(0))


def shift_right(a: Array, b: Array) -> Array:
    inside = (b >= 0) & (b < 8 * a.dtype.itemsize)
    outside = np.where(a < 0, -1, 0).astype(a.dtype) if a.dtype.kind == "i" else a.dtype.type(0)
    return np.where(inside, np.right_shift(a, np.where(inside, b, 0)), outside)


def slice_(x: Array, starts: Axes, stops: Axes, steps: Axes) -> Array:
    return x[tuple(slice(*row) for row in zip(starts, stops, steps))]


def flip(x: Array, axes: Axes) -> Array:
    return np.flip(x, axes) if axes else x


def pad(x: Array, value: Array, low: Axes, high: Axes, interior: Axes) -> Array:
    spans = [n + gap * (n - 1) if n else 0 for n, gap in zip(x.shape, interior)]
    out = np.full([a + n + b for n, a, b in zip(spans, low, high)], value, x.dtype)
    out[tuple(slice(a, a + n, gap + 1) for n, a, gap in zip(spans, low, interior))] = x
    return out


def concat(*parts: Array, axis: int) -> Array:
    return np.concatenate(parts, axis)


def _accumulator(x: Array) -> Any:
    """The dtype in which one op accumulates: float32 for the half types, else its own."""
    return np.float32 if x.dtype.itemsize == 2 and x.dtype.kind not in "iu" else x.dtype


def sum(x: Array, axes: Axes) -> Array:
    wide = x.astype(_accumulator(x))
    empty = any(x.shape[axis] == 0 for axis in axes)
    start = 0 if empty or x.dtype.kind in "iuc" else -0.0
    # NumPy starts from +0.0 unless told otherwise, and a sum of -0.0 alone is -0.0.
    return np.asarray(np.sum(wide, axes, initial=start)).astype(x.dtype)


def prod(x: Array, axes: Axes) -> Array:
    return np.asarray(np.prod(x, axes, dtype=_accumulator(x))).astype(x.dtype)


def max(x: Array, axes: Axes) -> Array:
    """IEEE maximum: NaN wins, -0.0 < +0.0."""
    return _ordered_zeros(x, np.asarray(np.max(x, axes)), axes, negative=False)


def min(x: Array, axes: Axes) -> Array:
    """IEEE minimum: NaN wins, -0.0 < +0.0."""
    return _ordered_zeros(x, np.asarray(np.min(x, axes)), axes, negative=True)


def _ordered_zeros(x: Array, extreme: Array, axes: Axes, negative: bool) -> Array:
    """`extreme`, where a zero has the sign `negative` if any zero of its row has."""
    if x.dtype.kind in "iub":
        return extreme
    found = np.any((x == 0) & (np.signbit(x) == negative), axes)
    zero = np.where(found == negative, -0.0, 0.0).astype(x.dtype)
    return np.where(extreme == 0, zero, extreme)


def cumsum(x: Array, axis: int) -> Array:
    return np.cumsum(x.astype(_running_value(x)), axis).astype(x.dtype)


def cumprod(x: Array, axis: int) -> Array:
    return np.cumprod(x.astype(_running_value(x)), axis).astype(x.dtype)


def _running_value(x: Array) -> Any:
    """The dtype of a running sum or product: float64 for float32, as in PyTorch."""
    return np.float64 if x.dtype == np.float32 else _accumulator(x)


def cummax(x: Array, axis: int) -> Array:
    return _running(maximum, x, axis)


def cummin(x: Array, axis: int) -> Array:
    return _running(minimum, x, axis)


def _running(extreme: Callable[[Array, Array], Array], x: Array, axis: int) -> Array:
    """The extreme of the elements up to each position of an axis."""
    out = np.moveaxis(x.copy(), axis, 0)
    for k in range(1, len(out)):
        out[k] = extreme(out[k - 1], out[k])
    return np.ascontiguousarray(np.moveaxis(out, 0, axis)).reshape(x.shape)


def argsort(x: Array) -> Array:
    # Types that NumPy does not know itself order NaN in their own way; float32 holds all of them.
    wide = x if x.dtype.isbuiltin == 1 else x.astype(np.float32)
    return np.argsort(wide, -1, kind="stable").astype(np.int64)


def softmax(x: Array) -> Array:
    return np.exp(_log_softmax(x)).astype(x.dtype)


def log_softmax(x: Array) -> Array:
    return _log_softmax(x).astype(x.dtype)


def _log_softmax(x: Array) -> Array:
    wide = _wide(x)
    return wide - _logsumexp(wide)[..., None]


def logsumexp(x: Array) -> Array:
    return np.asarray(_logsumexp(_wide(x))).astype(x.dtype)


def _logsumexp(wide: Array) -> Array:
    if wide.shape[-1] == 0:
        return np.full(wide.shape[:-1], -np.inf)
    top = np.max(wide, -1)
    shift = np.where(np.isfinite(top), top, 0)
    return np.log(np.sum(np.exp(wide - shift[..., None]), -1)) + shift


def _wrap(indices: Array, size: int) -> Array:
    wide = indices.astype(np.int64) if indices.dtype != np.uint64 else indices
    wrapped = np.where(wide < 0, wide + size, wide) if wide.dtype.kind == "i" else wide
    return np.clip(wrapped, 0, np.maximum(size - 1, 0)).astype(np.int64)


def gather(x: Array, indices: Array, axis: int) -> Array:
    if indices.size == 0 or x.size == 0:
        return np.zeros((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
    return np.take(x, _wrap(indices, x.shape[axis]), axis)


def _rows(x: Array, indices: Array, updates: Array, axis: int) -> tuple[Array, Array, Array]:
    out = np.moveaxis(x.copy(), axis, 0)
    span = tuple(range(axis, axis + indices.ndim))
    moved = np.moveaxis(updates, span, tuple(range(indices.ndim)))
    rows = moved.reshape(indices.size, *out.shape[1:])
    return out, _wrap(indices, x.shape[axis]).reshape(-1), rows


def scatter_add(x: Array, indices: Array, updates: Array, axis: int) -> Array:
    if updates.size == 0:
        return x.copy()
    out, where, rows = _rows(x, indices, updates, axis)
    wide = out.astype(_accumulator(x))
    np.add.at(wide, where, rows.astype(wide.dtype))
    return np.ascontiguousarray(np.moveaxis(wide, 0, axis)).astype(x.dtype)


def scatter_set(x: Array, indices: Array, updates: Array, axis: int) -> Array:
    if updates.size == 0:
        return x.copy()
    out, where, rows = _rows(x, indices, updates, axis)
    for position, row in zip(where, rows):
        out[position] = row
    return np.ascontiguousarray(np.moveaxis(out, 0, axis))


def dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    left = a if contract[0] == a.ndim - 1 else np.swapaxes(a, -1, -2)
    right = b if contract[1] == b.ndim - 2 else np.swapaxes(b, -1, -2)
    wide = _accumulator(a)
    return np.matmul(left.astype(wide), right.astype(wide)).astype(a.dtype)
