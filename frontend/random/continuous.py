"""Continuous distributions by a transformation of uniform numbers, which is also their gradient."""

from __future__ import annotations

import math
from typing import Any

from einkorn import special
from einkorn.convert import is_known, shown
from einkorn.functions import elementwise as ew
from einkorn.functions.data_types import finfo
from einkorn.ir.dtypes import DType, float32, float64
from einkorn.ir.errors import EinkornError
from einkorn.ir.ops import Op
from einkorn.random.generator import Key, drawing
from einkorn.random.parameters import (
    ANY,
    NOT_NEGATIVE,
    POSITIVE,
    exponential_of,
    float_dtype,
    halves,
    lanes,
    normal_of,
    own_dtype,
    read,
    shape_of,
    unit,
    wide,
)
from einkorn.recording import apply
from einkorn.tensor import Tensor


def bits(shape: Any = (), *, key: Key | None = None) -> Tensor:
    """Uniform 32-bit words."""
    sizes = shape_of("bits", shape)
    with drawing("bits", key) as pair:
        return apply(Op.RANDOM_BITS, *pair, shape=sizes)


def uniform(
    shape: Any = None,
    low: Any = 0.0,
    high: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Uniform numbers in [low, high), from as many bits of a word as the dtype has digits.

    What would round to `high` is `low`.
    """
    what = "uniform"
    kind = float_dtype(what, dtype)
    _check_bounds(low, high, kind)
    compute = wide(kind)
    sizes, (first, last) = read(what, compute, shape, {"low": (low, ANY), "high": (high, ANY)})
    with drawing(what, key) as pair:
        (lane,) = lanes(pair, sizes, 1, kind)
        number = unit(lane, kind)
        if type(low) is float and type(high) is float and (low, high) == (0.0, 1.0):
            return number
        span = ew.subtract(high, low) if _are_numbers(low, high) else ew.subtract(last, first)
        value = ew.cast(ew.add(ew.multiply(ew.cast(number, compute), span), first), kind)
        return ew.where(ew.less(value, ew.cast(last, kind)), value, ew.cast(first, kind))


def _are_numbers(low: Any, high: Any) -> bool:
    return is_known(low) and is_known(high)


def _check_bounds(low: Any, high: Any, dtype: DType) -> None:
    """Numbers must be finite and in order; tensors are not looked at."""
    if not _are_numbers(low, high):
        return
    if not (low <= high and math.isfinite(low) and math.isfinite(high)):
        raise EinkornError(
            f"uniform: low and high are finite and low <= high, got {shown(low)} and {shown(high)}"
        )
    if high - low > finfo(dtype).max:
        raise EinkornError(
            f"uniform: the span from {shown(low)} to {shown(high)} is larger than every {dtype}"
        )


def normal(
    shape: Any = None,
    mean: Any = 0.0,
    std: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Normal numbers by the Box-Muller transform (1958) of two uniform ones."""
    parameters = {"mean": (mean, ANY), "std": (std, NOT_NEGATIVE)}
    return _located("normal", shape, parameters, dtype, key, 2, normal_of)


def lognormal(
    shape: Any = None,
    mean: Any = 0.0,
    std: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Numbers whose logarithm is normal, with this mean and standard deviation."""
    parameters = {"mean": (mean, ANY), "std": (std, NOT_NEGATIVE)}
    return _located("lognormal", shape, parameters, dtype, key, 2, normal_of, ew.exp)


def exponential(
    shape: Any = None, scale: Any = 1.0, *, dtype: Any = float32, key: Key | None = None
) -> Tensor:
    """Exponential numbers with mean `scale`."""
    parameters = {"scale": (scale, NOT_NEGATIVE)}
    return _located("exponential", shape, parameters, dtype, key, 1, exponential_of)


def gumbel(
    shape: Any = None,
    loc: Any = 0.0,
    scale: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Gumbel numbers, loc - scale * log(exponential): the distribution of maxima."""
    parameters = {"loc": (loc, ANY), "scale": (scale, NOT_NEGATIVE)}
    return _located("gumbel", shape, parameters, dtype, key, 1, gumbel_of)


def gumbel_of(lane: Tensor, dtype: DType) -> Tensor:
    """A standard Gumbel number, finite, from a word."""
    return ew.negative(ew.log(exponential_of(lane, dtype)))


def laplace(
    shape: Any = None,
    loc: Any = 0.0,
    scale: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Laplace numbers, of density exp(-|x - loc| / scale) / (2 scale)."""
    parameters = {"loc": (loc, ANY), "scale": (scale, NOT_NEGATIVE)}
    return _located("laplace", shape, parameters, dtype, key, 2, _laplace_of)


def _laplace_of(lane: Tensor, side: Tensor, dtype: DType) -> Tensor:
    size = exponential_of(lane, dtype)
    return ew.where(halves(side, dtype)[1], size, ew.negative(size))


def logistic(
    shape: Any = None,
    loc: Any = 0.0,
    scale: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Logistic numbers, log(u / (1 - u)) for uniform u."""
    parameters = {"loc": (loc, ANY), "scale": (scale, NOT_NEGATIVE)}
    return _located("logistic", shape, parameters, dtype, key, 1, _logistic_of)


def _logistic_of(lane: Tensor, dtype: DType) -> Tensor:
    u, upper = halves(lane, dtype)
    value = ew.subtract(ew.log(u), ew.log1p(ew.negative(u)))
    return ew.where(upper, ew.negative(value), value)


def cauchy(
    shape: Any = None,
    loc: Any = 0.0,
    scale: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Cauchy numbers, of density 1 / (pi scale (1 + ((x - loc) / scale)**2))."""
    parameters = {"loc": (loc, ANY), "scale": (scale, NOT_NEGATIVE)}
    return _located("cauchy", shape, parameters, dtype, key, 1, _cauchy_of)


def _cauchy_of(lane: Tensor, dtype: DType) -> Tensor:
    u, upper = halves(lane, dtype)
    value = ew.reciprocal(ew.tan(ew.multiply(u, math.pi)))
    return ew.where(upper, value, ew.negative(value))


def _located(
    what: str,
    shape: Any,
    parameters: dict[str, tuple[Any, Any]],
    dtype: Any,
    key: Key | None,
    count: int,
    standard: Any,
    then: Any = None,
) -> Tensor:
    """standard(words) * scale + loc for the last and, if there are two, the first parameter."""
    kind = float_dtype(what, dtype)
    compute = wide(kind)
    sizes, found = read(what, compute, shape, parameters, words=count)
    with drawing(what, key) as pair:
        value = standard(*lanes(pair, sizes, count, compute), compute)
        value = ew.multiply(value, found[-1])
        if len(found) == 2:
            value = ew.add(value, found[0])
        return ew.cast(value if then is None else then(value), kind)


def pareto(b: Any, shape: Any = None, *, dtype: Any = None, key: Key | None = None) -> Tensor:
    """Pareto numbers x >= 1 of density b / x**(b + 1)."""
    return _of_exponential(
        "pareto", {"b": (b, POSITIVE)}, shape, dtype, key, lambda e, b: ew.exp(ew.divide(e, b))
    )


def weibull_min(
    scale: Any,
    concentration: Any,
    shape: Any = None,
    *,
    dtype: Any = None,
    key: Key | None = None,
) -> Tensor:
    """Weibull numbers, scale * exponential ** (1 / concentration)."""

    def transformed(e: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
        return ew.multiply(scale, ew.exp(ew.divide(ew.log(e), concentration)))

    parameters = {"scale": (scale, POSITIVE), "concentration": (concentration, POSITIVE)}
    return _of_exponential("weibull_min", parameters, shape, dtype, key, transformed)


def _of_exponential(
    what: str,
    parameters: dict[str, tuple[Any, Any]],
    shape: Any,
    dtype: Any,
    key: Key | None,
    transformed: Any,
) -> Tensor:
    kind = own_dtype(what, dtype, *(value for value, _ in parameters.values()))
    compute = wide(kind)
    sizes, found = read(what, compute, shape, parameters)
    with drawing(what, key) as pair:
        (lane,) = lanes(pair, sizes, 1, compute)
        return ew.cast(transformed(exponential_of(lane, compute), *found), kind)


def truncated_normal(
    shape: Any = None,
    low: Any = -2.0,
    high: Any = 2.0,
    mean: Any = 0.0,
    std: Any = 1.0,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Normal numbers in [mean + low * std, mean + high * std], by the inverse distribution.

    Args:
        low, high: in standard deviations from the mean. Computed in float64, so a window that lies
            beyond 7 of them is sampled at a few points only.
    """
    what = "truncated_normal"
    kind = float_dtype(what, dtype)
    if _are_numbers(low, high) and not low < high:
        raise EinkornError(f"{what}: low is less than high, got {shown(low)} and {shown(high)}")
    parameters = {
        "low": (low, ANY),
        "high": (high, ANY),
        "mean": (mean, ANY),
        "std": (std, NOT_NEGATIVE),
    }
    sizes, (first, last, centre, spread) = read(what, float64, shape, parameters)
    with drawing(what, key) as pair:
        (lane,) = lanes(pair, sizes, 1, float64)
        value = _between(unit(lane, float64), first, last)
        return ew.cast(ew.add(ew.multiply(value, spread), centre), kind)


def _between(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The inverse of the normal distribution on [low, high], on the side where it is resolved."""
    flips = ew.greater(low, 0.0)
    first = ew.where(flips, ew.negative(high), low)
    last = ew.where(flips, ew.negative(low), high)
    start = special.ndtr(first)
    chance = ew.add(start, ew.multiply(u, ew.subtract(special.ndtr(last), start)))
    value = ew.multiply(special.erfinv(ew.subtract(ew.multiply(chance, 2.0), 1.0)), math.sqrt(2.0))
    value = ew.minimum(ew.maximum(value, first), last)
    return ew.where(flips, ew.negative(value), value)
