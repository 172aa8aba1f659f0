"""Pooling over spatial axes, and the primitives below it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from einkorn.convert import as_flag, as_tensor, meet
from einkorn.functions.creation import ones
from einkorn.functions.elementwise import astype, cast, divide, floor_divide, less, minimum, where
from einkorn.functions.manipulation import to_shape
from einkorn.functions.spatial import (
    Ints,
    Pairs,
    as_padding,
    channels_last,
    in_format,
    per_axis,
)
from einkorn.ir.dtypes import float32, int64
from einkorn.ir.errors import ShapeError
from einkorn.ir.ops import Op
from einkorn.ir.windows import reach, window_counts
from einkorn.recording import apply

if TYPE_CHECKING:
    from einkorn.tensor import Tensor


# -- primitives ------------------------------------------------------------------------------------


def window_pick(
    keys: Any, values: Any, /, *, window: Any, strides: Any, low: Any, high: Any, dilation: Any
) -> Tensor:
    """For each window of [N, s..., C] the value at its first largest key, in row-major order.

    The gradient goes to the values, where they were picked. NaN counts as the largest key, padding
    is never picked.

    Args:
        keys, values: of one shape and dtype.
        window, strides, low, high, dilation: integers for each spatial axis.

    Raises:
        ShapeError: a window has only padding, or does not fit.
    """
    a, b = meet("window_pick", keys, values)
    attrs = _attributes("window_pick", a, window, strides, low, high, dilation)
    return apply(Op.WINDOW_PICK, a, b, **attrs)


def window_place(
    keys: Any, updates: Any, /, *, window: Any, strides: Any, low: Any, high: Any, dilation: Any
) -> Tensor:
    """Zeros in the shape of the keys, with each update added where `window_pick` would pick."""
    a, b = meet("window_place", keys, updates)
    attrs = _attributes("window_place", a, window, strides, low, high, dilation)
    return apply(Op.WINDOW_PLACE, a, b, **attrs)


def window_sum(
    x: Any, /, *, window: Any, strides: Any, low: Any, high: Any, dilation: Any, interior: Any = 0
) -> Tensor:
    """The sum of each window of [N, s..., C], padding being zero.

    Args:
        window, strides, low, high, dilation: integers for each spatial axis; `low` and `high` may
            be negative, which leaves elements out.
        interior: how many zeros stand between the elements of each axis.
    """
    tensor = as_tensor(x, "window_sum")
    attrs = _attributes("window_sum", tensor, window, strides, low, high, dilation)
    attrs["interior"] = per_axis("window_sum", "interior", interior, tensor.ndim - 2, 0)
    return apply(Op.WINDOW_SUM, tensor, **attrs)


def _attributes(
    what: str, x: Tensor, window: Any, strides: Any, low: Any, high: Any, dilation: Any
) -> dict[str, Ints]:
    count = channels_last(what, x, "NHWC").ndim - 2
    least = {"low": -(2**31), "high": -(2**31)}
    given = {
        "window": window, "strides": strides, "low": low, "high": high, "dilation": dilation,
    }  # fmt: skip
    return {
        name: per_axis(what, name, row, count, least.get(name, 1)) for name, row in given.items()
    }


# -- pooling ---------------------------------------------------------------------------------------


def _options(
    what: str, x: Tensor, window: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any
) -> dict[str, Ints]:
    """The attributes of the windows, with padding behind for the windows that stand out."""
    sizes = x.shape[1:-1]
    sides = per_axis(what, "window", window, len(sizes))
    strides = sides if stride is None else per_axis(what, "stride", stride, len(sizes))
    gaps = per_axis(what, "dilation", dilation, len(sizes))
    pairs = as_padding(what, padding, sizes, sides, strides, gaps)
    if as_flag(what, "ceil_mode", ceil_mode):
        pairs = _ceiled(sizes, sides, strides, gaps, pairs)
    low, high = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
    none = (0,) * len(sizes)
    if any(n < 1 for n in window_counts(sizes, sides, strides, low, high, gaps, none)):
        raise ShapeError(
            f"{what}: a window of {sides} with dilation {gaps} is larger than the spatial axes "
            f"{sizes} of {x._type} with padding {pairs}"
        )
    return {"window": sides, "strides": strides, "low": low, "high": high, "dilation": gaps}


def _ceiled(sizes: Ints, window: Ints, strides: Ints, dilation: Ints, pairs: Pairs) -> Pairs:
    """Room for a last window that stands out, if it starts inside or in the padding before."""
    found: list[tuple[int, int]] = []
    for n, w, s, d, (a, b) in zip(sizes, window, strides, dilation, pairs):
        left = n + a + b - reach(w, d)
        count = -(-left // s) + 1
        if (count - 1) * s >= n + a:
            count -= 1
        found.append((a, b + max((count - 1) * s - left, 0)))
    return tuple(found)


def max_pool(
    x: Any,
    window: Any,
    /,
    *,
    stride: Any = None,
    padding: Any = "valid",
    dilation: Any = 1,
    ceil_mode: bool = False,
    data_format: str = "NHWC",
) -> Tensor:
    """The largest element of each window; NaN if there is one. Padding is never the largest.

    The gradient goes to the first largest element of a window.

    Args:
        x: [N, s..., C] with one to three spatial axes, or [N, C, s...] with data_format "NCHW".
        window: a size for all spatial axes, or one for each; `stride`, `dilation` as well.
        stride: from window to window; the window's size by default.
        padding: "valid" (none), "same" (ceil(size / stride) windows), a number for all sides, one
            for each axis, or (before, after) for each axis.
        ceil_mode: whether a last window may stand out behind.
        data_format: "NHWC" for channels in the last axis, "NCHW" for the second, for any rank;
            "NWC", "NDHWC", "NCW" and "NCDHW" say the same.
    """
    tensor = channels_last("max_pool", x, data_format)
    attrs = _options("max_pool", tensor, window, stride, padding, dilation, ceil_mode)
    return in_format(apply(Op.WINDOW_PICK, tensor, tensor, **attrs), data_format)


def avg_pool(
    x: Any,
    window: Any,
    /,
    *,
    stride: Any = None,
    padding: Any = "valid",
    dilation: Any = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    data_format: str = "NHWC",
) -> Tensor:
    """The mean of each window. Integers give float32. See `max_pool` for the arguments.

    Args:
        count_include_pad: whether padding counts as elements that are zero; what stands out behind
            in ceil_mode never counts.
    """
    tensor = channels_last("avg_pool", x, data_format)
    included = as_flag("avg_pool", "count_include_pad", count_include_pad)
    attrs = _options("avg_pool", tensor, window, stride, padding, dilation, False)
    wide = _options("avg_pool", tensor, window, stride, padding, dilation, ceil_mode)
    counted = tuple(zip(attrs["low"], attrs["high"])) if included else None
    return in_format(_mean_of_windows(tensor, wide, counted), data_format)


def _mean_of_windows(x: Tensor, attrs: dict[str, Ints], counted: Pairs | None) -> Tensor:
    """Sums of windows by how many elements count: those inside, and padding up to `counted`."""
    floats = x if x.dtype.is_float else cast(x, float32)
    wide = cast(floats, float32) if floats.dtype.itemsize == 2 else floats
    none = (0,) * len(attrs["window"])
    total = apply(Op.WINDOW_SUM, wide, interior=none, **attrs)
    low, high = attrs["low"], attrs["high"]
    before, after = zip(*counted) if counted else (none, none)
    if before == low and after == high:
        mean = divide(total, prod(attrs["window"]))
    else:
        sizes = tuple(n + a + b for n, a, b in zip(x.shape[1:-1], before, after))
        around = {
            "low": tuple(a - b for a, b in zip(low, before)),
            "high": tuple(a - b for a, b in zip(high, after)),
        }
        each = ones((1, *sizes, 1), dtype=wide.dtype)
        mean = divide(total, apply(Op.WINDOW_SUM, each, interior=none, **{**attrs, **around}))
    return cast(mean, floats.dtype)


# -- adaptive --------------------------------------------------------------------------------------


def _adaptive(what: str, x: Tensor, size: Any) -> Ints:
    """The sizes of the result; None keeps that of the operand."""
    sizes = x.shape[1:-1]
    listed = tuple(size) if isinstance(size, (tuple, list)) else (size,) * len(sizes)
    if len(listed) == len(sizes):
        listed = tuple(n if given is None else given for n, given in zip(sizes, listed))
    wanted = per_axis(what, "size", listed, len(sizes))
    if any(n == 0 for n in sizes):
        raise ShapeError(f"{what}: {x._type} has no elements along a spatial axis")
    return wanted


def _even(sizes: Ints, counts: Ints) -> dict[str, Ints] | None:
    """The attributes of windows that all have one size and do not overlap, if they do."""
    if any(n % count for n, count in zip(sizes, counts)):
        return None
    window = tuple(n // count for n, count in zip(sizes, counts))
    none = (0,) * len(sizes)
    apart = (1,) * len(sizes)
    return {"window": window, "strides": window, "low": none, "high": none, "dilation": apart}


def _laid_out(x: Tensor, axis: int, count: int) -> tuple[Tensor, Tensor, int]:
    """Windows floor(i n / count) up to ceil((i + 1) n / count) of an axis, side by side.

    All get the length of the longest; shorter ones repeat their last element. Beside it the length
    of each window, and that of the longest.
    """
    n = x.shape[axis]
    longest = max(-(-(i + 1) * n // count) - i * n // count for i in range(count))
    index = apply(Op.IOTA, size=count, dtype=int64)
    start = floor_divide(index * n, count)
    stop = floor_divide((index + 1) * n + (count - 1), count)
    taps = apply(Op.IOTA, size=longest, dtype=int64)
    places = minimum(to_shape(start, (count, 1)) + taps, to_shape(stop - 1, (count, 1)))
    found = apply(Op.GATHER, x, to_shape(places, (count * longest,)), axis=axis)
    return found, stop - start, longest


def adaptive_max_pool(x: Any, size: Any, /, *, data_format: str = "NHWC") -> Tensor:
    """The largest element of each of `size` windows that cover every spatial axis.

    Window i of n elements goes from floor(i n / size) up to ceil((i + 1) n / size).

    Args:
        x: as for `max_pool`.
        size: how many windows: a number for all spatial axes, or one for each; None for as many
            as there are elements.
    """
    what = "adaptive_max_pool"
    tensor = channels_last(what, x, data_format)
    counts = _adaptive(what, tensor, size)
    attrs = _even(tensor.shape[1:-1], counts)
    if attrs is None:
        for axis, count in enumerate(counts, 1):
            tensor, _, _ = _laid_out(tensor, axis, count)
        attrs = _even(tensor.shape[1:-1], counts)
        assert attrs is not None
    return in_format(apply(Op.WINDOW_PICK, tensor, tensor, **attrs), data_format)


def adaptive_avg_pool(x: Any, size: Any, /, *, data_format: str = "NHWC") -> Tensor:
    """The mean of each of `size` windows that cover every spatial axis; see `adaptive_max_pool`."""
    what = "adaptive_avg_pool"
    tensor = channels_last(what, x, data_format)
    counts = _adaptive(what, tensor, size)
    attrs = _even(tensor.shape[1:-1], counts)
    none = ((0, 0),) * len(counts)
    if attrs is not None:
        return in_format(_mean_of_windows(tensor, attrs, none), data_format)
    floats = tensor if tensor.dtype.is_float else cast(tensor, float32)
    wide = cast(floats, float32) if floats.dtype.itemsize == 2 else floats
    elements = None
    for axis, count in enumerate(counts, 1):
        wide, lengths, longest = _laid_out(wide, axis, count)
        wide = where(_along(_inside(lengths, longest), axis, wide.ndim), wide, 0)
        along = _along(lengths, axis, wide.ndim)
        elements = along if elements is None else elements * along
    attrs = _even(wide.shape[1:-1], counts)
    assert attrs is not None
    total = apply(Op.WINDOW_SUM, wide, interior=(0,) * len(counts), **attrs)
    mean = divide(total, astype(elements, total.dtype))
    return in_format(cast(mean, floats.dtype), data_format)


def _inside(lengths: Tensor, longest: int) -> Tensor:
    """Which of the elements that were laid out belong to their window."""
    taps = apply(Op.IOTA, size=longest, dtype=int64)
    inside = less(taps, to_shape(lengths, (lengths.size, 1)))
    return to_shape(inside, (lengths.size * longest,))


def _along(x: Tensor, axis: int, rank: int) -> Tensor:
    """A vector along one axis of a tensor of some rank."""
    return to_shape(x, tuple(x.size if k == axis else 1 for k in range(rank)))
