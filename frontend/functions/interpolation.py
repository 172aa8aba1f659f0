"""Resizing of spatial axes: nearest, linear and cubic interpolation, and means of areas."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.convert import as_choice, as_flag, as_number
from einkorn.functions.elementwise import add, astype, cast, clip, floor, multiply, subtract
from einkorn.functions.manipulation import repeat, to_shape
from einkorn.functions.pooling import adaptive_avg_pool
from einkorn.functions.spatial import channels_last, in_format, per_axis
from einkorn.ir.dtypes import DType, float32, int64
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.recording import apply

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

RANKS = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}
MODES = ("nearest", "nearest-exact", "linear", "bilinear", "trilinear", "cubic", "bicubic", "area")
CUBIC = -0.75  # the parameter of the kernel, as in PyTorch and OpenCV


def interpolate(
    x: Any,
    /,
    size: Any = None,
    scale: Any = None,
    *,
    mode: str = "nearest",
    align_corners: bool = False,
    data_format: str = "NHWC",
) -> Tensor:
    """The spatial axes resized, one after the other.

    Element i of a resized axis stands at (i + 0.5) * s - 0.5 of the old one, where s is the old
    size by the new one, or 1 / scale; nearest takes the element at floor(i * s), nearest-exact at
    floor((i + 0.5) * s). Positions are computed in float32, and in float64 for float64.

    Args:
        x: [N, s..., C] with one to three spatial axes, or [N, C, s...] with data_format "NCHW".
        size: the new sizes: a number for all spatial axes, or one for each.
        scale: instead of the sizes, a factor for all axes, or one for each.
        mode: "nearest", "nearest-exact", "linear" (also "bilinear", "trilinear" for two and three
            axes), "cubic" (also "bicubic"; Keys, 1981, with a = -0.75), "area" (the mean of what
            an element covers).
        align_corners: for linear and cubic: the first and last elements stay where they are.
    """
    what = "interpolate"
    as_choice(what, "mode", mode, MODES)
    tensor = channels_last(what, x, data_format)
    count = tensor.ndim - 2
    if RANKS.get(mode, count) != count and mode != "linear":
        raise ShapeError(f"{what}: mode {mode!r} is for {RANKS[mode]} spatial axes, got {count}")
    if not tensor.dtype.is_float and not mode.startswith("nearest"):
        raise DTypeError(f"{what}: mode {mode!r} needs floats, got {tensor._type}")
    corners = as_flag(what, "align_corners", align_corners)
    if corners and (mode.startswith("nearest") or mode == "area"):
        raise ShapeError(f"{what}: align_corners has no meaning for mode {mode!r}")
    if any(n == 0 for n in tensor.shape[1:-1]):
        raise ShapeError(f"{what}: {tensor._type} has no elements along a spatial axis")
    sizes, steps = _sizes(tensor, size, scale)
    if mode == "area":
        return in_format(adaptive_avg_pool(tensor, sizes), data_format)
    return in_format(_resized(tensor, sizes, steps, mode, corners), data_format)


def _sizes(x: Tensor, size: Any, scale: Any) -> tuple[tuple[int, ...], list[float]]:
    """The new size of every spatial axis, and the distance of its elements on the old axis."""
    old = x.shape[1:-1]
    if (size is None) == (scale is None):
        raise ShapeError("interpolate: give either size or scale")
    if size is not None:
        sizes = per_axis("interpolate", "size", size, len(old))
        return sizes, [n / m for n, m in zip(old, sizes)]
    listed = tuple(scale) if isinstance(scale, (tuple, list)) else (scale,) * len(old)
    factors = [float(as_number("interpolate", f, "scale is made of numbers")) for f in listed]
    if len(factors) != len(old) or any(not 0 < f < math.inf for f in factors):
        raise ShapeError(
            f"interpolate: scale needs a positive number for each of the {len(old)} spatial axes, "
            f"or one for all, got {scale!r}"
        )
    sizes = tuple(math.floor(n * f) for n, f in zip(old, factors))
    return per_axis("interpolate", "size", sizes, len(old)), [1 / f for f in factors]


def _resized(
    x: Tensor, sizes: tuple[int, ...], steps: list[float], mode: str, corners: bool
) -> Tensor:
    nearest = mode.startswith("nearest")
    half = x.dtype.is_float and x.dtype.itemsize == 2
    y = cast(x, float32) if half and not nearest else x
    for axis in reversed(range(1, x.ndim - 1)):
        old, new, step = x.shape[axis], sizes[axis - 1], steps[axis - 1]
        if nearest:
            y = _nearest(y, axis, new, step, 0.5 if mode == "nearest-exact" else 0.0)
            continue
        if corners:
            step = (old - 1) / (new - 1) if new > 1 else 0.0
        taps = _cubic if mode in ("cubic", "bicubic") else _linear
        y = taps(y, axis, _positions(new, step, y.dtype, corners))
    return cast(y, x.dtype)


def _positions(count: int, step: float, dtype: DType, corners: bool) -> Tensor:
    """Where each element stands on the old axis."""
    index = apply(Op.IOTA, size=count, dtype=dtype)
    if corners:
        return multiply(index, step)
    return subtract(multiply(add(index, 0.5), step), 0.5)


def _take(x: Tensor, axis: int, places: Tensor) -> Tensor:
    return apply(Op.GATHER, x, places, axis=axis)


def _along(x: Tensor, axis: int, rank: int) -> Tensor:
    return to_shape(x, tuple(x.size if k == axis else 1 for k in range(rank)))


def _nearest(x: Tensor, axis: int, count: int, step: float, shift: float) -> Tensor:
    """A whole factor repeats elements; any other takes them by index."""
    n = x.shape[axis]
    known = np.arange(count, dtype=np.float32) + np.float32(shift)
    places = np.minimum(np.floor(known * np.float32(step)).astype(int), n - 1)
    if count % n == 0 and np.array_equal(places, np.arange(count) // (count // n)):
        return repeat(x, count // n, axis=axis)
    index = add(apply(Op.IOTA, size=count, dtype=float32), shift)
    return _take(x, axis, clip(astype(floor(multiply(index, step)), int64), 0, n - 1))


def _linear(x: Tensor, axis: int, places: Tensor) -> Tensor:
    """(1 - t) * x[i] + t * x[i + 1]"""
    last = x.shape[axis] - 1
    at = clip(places, 0.0, None)
    first = clip(astype(floor(at), int64), 0, last)
    t = _along(clip(subtract(at, astype(first, at.dtype)), 0.0, 1.0), axis, x.ndim)
    below, above = _take(x, axis, first), _take(x, axis, clip(first + 1, 0, last))
    return add(multiply(below, subtract(1.0, t)), multiply(above, t))


def _cubic(x: Tensor, axis: int, places: Tensor) -> Tensor:
    """Four neighbours, those outside being the nearest inside."""
    last = x.shape[axis] - 1
    below = floor(places)
    t = subtract(places, below)
    first = astype(below, int64)
    total = None
    for k, weight in enumerate(_cubic_weights(t), -1):
        term = multiply(_take(x, axis, clip(first + k, 0, last)), _along(weight, axis, x.ndim))
        total = term if total is None else add(total, term)
    assert total is not None
    return total


def _cubic_weights(t: Tensor) -> list[Tensor]:
    """The kernel at the distances t + 1, t, 1 - t and 2 - t."""

    def near(d: Tensor) -> Tensor:
        return add(multiply(multiply(subtract(multiply(d, CUBIC + 2), CUBIC + 3), d), d), 1.0)

    def far(d: Tensor) -> Tensor:
        inner = add(multiply(subtract(multiply(d, CUBIC), 5 * CUBIC), d), 8 * CUBIC)
        return subtract(multiply(inner, d), 4 * CUBIC)

    rest = subtract(1.0, t)
    return [far(add(t, 1.0)), near(t), near(rest), far(add(rest, 1.0))]
