"""Discrete distributions from a bounded number of words: booleans, integers, classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.convert import as_int, as_tensor, check_dtype, is_known, is_weak, normal_axis, shown
from einkorn.functions import elementwise as ew
from einkorn.functions.data_types import iinfo
from einkorn.functions.manipulation import common_shape, moveaxis
from einkorn.functions.statistical import argmax
from einkorn.ir.dtypes import DType, bool_, float64, int64, uint64
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.ir.ops import Op
from einkorn.random.continuous import gumbel_of
from einkorn.random.generator import Key, drawing
from einkorn.random.parameters import (
    CHANCE,
    PROBABILITY,
    check_spreads,
    exponential_of,
    integer_dtype,
    lanes,
    read,
    shape_of,
    wide,
)
from einkorn.recording import apply, current_trace
from einkorn.tensor import Tensor

MSG_SPAN = "randint needs low < high, got {low} and {high}"
HALF = (1 << 32) - 1


def bernoulli(p: Any = 0.5, shape: Any = None, *, key: Key | None = None) -> Tensor:
    """True with probability p, to within 2**-32.

    A probability that is known must lie in [0, 1]; one that a compiled step brings counts as the
    nearest that does, and NaN as 0.
    """
    sizes, (chance,) = read("bernoulli", float64, shape, {"p": (p, PROBABILITY)})
    limit = ew.cast(ew.multiply(chance, 2.0**32), uint64)
    with drawing("bernoulli", key) as pair:
        words = apply(Op.RANDOM_BITS, *pair, shape=sizes)
        return ew.less(ew.cast(words, uint64), limit)


def rademacher(shape: Any = (), *, dtype: Any = "int64", key: Key | None = None) -> Tensor:
    """-1 or 1, each with probability 1/2."""
    sizes, kind = shape_of("rademacher", shape), _signed("rademacher", dtype)
    with drawing("rademacher", key) as pair:
        words = apply(Op.RANDOM_BITS, *pair, shape=sizes)
        return ew.where(ew.less(words, 1 << 31), ew.cast(-1, kind), ew.cast(1, kind))


def _signed(what: str, dtype: Any) -> DType:
    """A dtype that has -1."""
    kind = check_dtype(dtype)
    if kind is bool_ or kind.kind == "u":
        raise DTypeError(f"{what}: {kind} has no -1; use a float or a signed integer dtype")
    return kind


# -- integers --------------------------------------------------------------------------------------


def randint(
    low: Any, high: Any, shape: Any = None, *, dtype: Any = "int64", key: Key | None = None
) -> Tensor:
    """Integers in [low, high), by multiplying 128 random bits with the span.

    No integer is more likely than another by more than 2**-64 of its probability.

    Args:
        low, high: integers, or tensors of them that broadcast to the shape. A range that only a
            compiled step knows, and that is empty, gives `low`.
    """
    kind = integer_dtype("randint", dtype)
    first, last = _bound("low", low, kind), _bound("high", high, kind)
    _check_range(low, high, first, last, kind)
    sizes = shape_of("randint", common_shape("randint", first, last) if shape is None else shape)
    for name, bound in (("low", first), ("high", last)):
        check_spreads("randint", name, bound, sizes)
    span = ew.subtract(last, first)
    order = uint64 if kind is uint64 else int64
    empty = ew.less(ew.cast(ew.subtract(last, 1), order), ew.cast(first, order))
    with drawing("randint", key) as pair:
        words = apply(Op.RANDOM_BITS, *pair, shape=(*sizes, 4))
        offset = _scaled([ew.cast(words[..., k], uint64) for k in range(4)], span)
        return ew.cast(ew.add(first, ew.where(empty, 0, offset)), kind)


def _bound(name: str, value: Any, kind: DType) -> Tensor:
    """A bound as uint64: int64 wraps around, and comes back by wrapping."""
    if is_weak(value) or not hasattr(value, "dtype"):
        number = as_int("randint", value, "low and high are integers")
        return as_tensor(np.uint64(number % (1 << 64)), "randint")
    tensor = as_tensor(value, "randint")
    if not tensor.dtype.is_integer:
        raise DTypeError(f"randint: low and high are integers, got {name} {tensor._type}")
    return ew.cast(tensor, uint64)


def _check_range(low: Any, high: Any, first: Tensor, last: Tensor, kind: DType) -> None:
    """EinkornError for a range known to be empty, DTypeError for one that does not fit."""
    info = iinfo(kind)
    known = [_known(x) for x in (low, high)]
    for name, value, room in zip(("low", "high"), known, (0, 1)):
        if value is None or not value.size:
            continue
        least, most = int(value.min()), int(value.max()) - room
        if least < info.min or most > info.max:
            raise DTypeError(
                f"randint: {name} {shown(most if most > info.max else least)} does not fit {kind} "
                f"({info.min} to {info.max})"
            )
    a, b = known
    if a is not None and b is not None and not np.all(a.astype(object) < b.astype(object)):
        raise EinkornError(MSG_SPAN.format(low=_shown(low), high=_shown(high)))


def _known(bound: Any) -> Any:
    """The values of a bound when they are known now, as Python integers."""
    if is_weak(bound) or not hasattr(bound, "dtype"):
        return np.asarray(as_int("randint", bound, "low and high are integers"), object)
    tensor = as_tensor(bound, "randint")
    if tensor._array is None or current_trace.get() is not None:
        return None
    return np.asarray(tensor._array)


def _shown(bound: Any) -> str:
    return shown(bound) if is_known(bound) else repr(bound)


def _scaled(words: list[Tensor], span: Tensor) -> Tensor:
    """floor(x * span / 2**128) for x of four words, the lowest first; a span of 0 is 2**64."""
    low, high = ew.bitwise_and(span, HALF), ew.bitwise_right_shift(span, 32)
    # One word of x after the other; what is carried on stays below the span.
    value: Any = as_tensor(np.uint64(0), "randint")
    for word in words:
        lower = ew.add(ew.multiply(word, low), ew.bitwise_and(value, HALF))
        upper = ew.add(ew.multiply(word, high), ew.bitwise_right_shift(lower, 32))
        value = ew.add(upper, ew.bitwise_right_shift(value, 32))
    whole = ew.bitwise_or(ew.bitwise_left_shift(words[3], 32), words[2])
    return ew.where(ew.equal(span, 0), whole, value)


def geometric(p: Any, shape: Any = None, *, dtype: Any = "int64", key: Key | None = None) -> Tensor:
    """The number of trials up to the first success, at least 1, each of probability p.

    What does not fit the dtype is its largest number.
    """
    kind = integer_dtype("geometric", dtype)
    sizes, (chance,) = read("geometric", float64, shape, {"p": (p, CHANCE)})
    with drawing("geometric", key) as pair:
        (lane,) = lanes(pair, sizes, 1, float64)
        failures = ew.divide(
            exponential_of(lane, float64), ew.negative(ew.log1p(ew.negative(chance)))
        )
        return ew.cast(ew.add(ew.floor(failures), 1.0), kind)


# -- classes ---------------------------------------------------------------------------------------


def categorical(
    logits: Any, shape: Any = None, *, axis: int = -1, key: Key | None = None
) -> Tensor:
    """Classes with probability softmax(logits) along an axis, by the Gumbel-max trick.

    Args:
        shape: of the result; that of the logits without the axis must broadcast to it, and is it
            by default.
    """
    what = "categorical"
    scores = as_tensor(logits, what)
    if not scores.dtype.is_float:
        raise DTypeError(f"{what}: logits are floats, got {scores._type}")
    place = normal_axis(what, axis, scores.ndim)
    if not scores.shape[place]:
        raise ShapeError(f"{what}: there are no classes along axis {axis} of {scores._type}")
    batch = scores.shape[:place] + scores.shape[place + 1 :]
    rows = ew.cast(moveaxis(scores, place, -1), wide(scores.dtype))
    sizes = shape_of(what, batch if shape is None else shape, 2 * scores.shape[place])
    check_spreads(what, "logits", rows[..., 0], sizes)
    with drawing(what, key) as pair:
        (lane,) = lanes(pair, (*sizes, rows.shape[-1]), 1, rows.dtype)
        return argmax(ew.add(rows, gumbel_of(lane, rows.dtype)), axis=-1)
