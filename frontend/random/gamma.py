"""The gamma distribution and those made of it, with implicit gradients.

Marsaglia & Tsang, "A simple method for generating gamma variables" (2000). Words are drawn in
rounds until every element has accepted; an element that has does not change any more. In logarithms
where small shape parameters would underflow.
"""

from __future__ import annotations

from typing import Any

from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.manipulation import spread_to
from einkorn.functions.statistical import softmax
from einkorn.ir.dtypes import DType, uint64
from einkorn.ir.errors import ShapeError
from einkorn.random.gamma_slope import slope
from einkorn.random.generator import Key, drawing, inner_words
from einkorn.random.parameters import (
    ANY,
    POSITIVE,
    Shape,
    exponential_of,
    lanes,
    normal_of,
    own_dtype,
    read,
    unit,
    wide,
)
from einkorn.random.rounds import APART, in_rounds
from einkorn.recording import scalar
from einkorn.tensor import Tensor
from einkorn.transforms.custom import custom_vjp


def _marsaglia(a: Tensor, word: Tensor) -> Tensor:
    """Gamma numbers for a >= 1; NaN where a is not positive."""
    d = ew.subtract(a, 1 / 3)
    c = ew.divide(1.0, ew.sqrt(ew.multiply(d, 9.0)))

    def propose(pair: Key) -> tuple[Tensor, Tensor]:
        radius, angle, lane = lanes(pair, a.shape, 4, a.dtype)[:3]
        x = normal_of(radius, angle, a.dtype)
        t = ew.multiply(c, x)
        positive = ew.greater(t, -1.0)
        t = ew.where(positive, t, 0.0)
        # v = (1 + t)**3, as v - 1, so that log v - (v - 1) does not cancel for large a.
        less_one = ew.multiply(t, ew.add(ew.multiply(t, ew.add(t, 3.0)), 3.0))
        logs = ew.subtract(ew.multiply(ew.log1p(t), 3.0), less_one)
        bound = ew.add(ew.multiply(ew.multiply(x, x), 0.5), ew.multiply(d, logs))
        accepted = ew.less(ew.log(unit(lane, a.dtype)), bound)
        value = ew.add(d, ew.multiply(d, less_one))
        return value, ew.bitwise_and(positive, accepted)

    usable = ew.bitwise_and(ew.greater(a, 0.0), ew.isfinite(a))
    nan = ew.subtract(a, a)
    first = ew.where(ew.greater(a, 0.0), a, ew.divide(nan, nan))
    return in_rounds(propose, word, first, ew.bitwise_invert(usable))


@custom_vjp
def standard_gamma(a: Tensor, word: Tensor) -> Tensor:
    """Gamma numbers for a >= 1 from the key `word`, with the gradient of their quantile by a."""
    return _marsaglia(a, word)


def _forward(a: Tensor, word: Tensor) -> Any:
    value = _marsaglia(a, word)
    return value, (a, value)


def _backward(kept: Any, cotangent: Tensor) -> Any:
    return ew.multiply(cotangent, slope(*kept)), None


standard_gamma.defvjp(_forward, _backward)


def log_gamma_of(word: Tensor, a: Tensor, sizes: Shape, dtype: DType) -> tuple[Tensor, Tensor]:
    """Gamma numbers and their logarithms: for a < 1, gamma(a + 1) * u ** (1 / a)."""
    a = spread_to(a, sizes)
    small = ew.less(a, 1.0)
    value = standard_gamma(ew.where(small, ew.add(a, 1.0), a), word)
    (lane,) = lanes((word, scalar(uint64, APART)), sizes, 1, dtype)
    # Where a is not small the quotient is unused; it must not make a gradient infinite.
    power = ew.divide(exponential_of(lane, dtype), ew.where(small, a, 1.0))
    logs = ew.subtract(ew.log(value), ew.where(small, power, 0.0))
    bad = ew.less_equal(a, 0.0)
    logs = ew.where(bad, ew.divide(0.0, ew.where(bad, 0.0, 1.0)), logs)
    return ew.where(small, ew.exp(logs), value), logs


def gamma(
    a: Any, shape: Any = None, scale: Any = 1.0, *, dtype: Any = None, key: Key | None = None
) -> Tensor:
    """Gamma numbers of shape parameter `a` and mean a * scale (Marsaglia & Tsang, 2000).

    The gradient by `a` is implicit: that of the quantile function (Figurnov et al., 2018).
    """
    kind = own_dtype("gamma", dtype, a, scale)
    parameters = {"a": (a, POSITIVE), "scale": (scale, POSITIVE)}
    sizes, (power, factor) = read("gamma", wide(kind), shape, parameters, 4)
    with drawing("gamma", key) as pair:
        (word,) = inner_words(pair)
    value, _ = log_gamma_of(word, power, sizes, wide(kind))
    return ew.cast(ew.multiply(value, factor), kind)


def loggamma(a: Any, shape: Any = None, *, dtype: Any = None, key: Key | None = None) -> Tensor:
    """Logarithms of gamma numbers, finite where those of a small `a` would underflow."""
    kind = own_dtype("loggamma", dtype, a)
    sizes, (power,) = read("loggamma", wide(kind), shape, {"a": (a, POSITIVE)}, 4)
    with drawing("loggamma", key) as pair:
        (word,) = inner_words(pair)
    return ew.cast(log_gamma_of(word, power, sizes, wide(kind))[1], kind)


def chisquare(df: Any, shape: Any = None, *, dtype: Any = None, key: Key | None = None) -> Tensor:
    """Sums of `df` squared normal numbers."""
    kind = own_dtype("chisquare", dtype, df)
    sizes, (degrees,) = read("chisquare", wide(kind), shape, {"df": (df, POSITIVE)}, 4)
    with drawing("chisquare", key) as pair:
        (word,) = inner_words(pair)
    value, _ = log_gamma_of(word, ew.multiply(degrees, 0.5), sizes, wide(kind))
    return ew.cast(ew.multiply(value, 2.0), kind)


def beta(a: Any, b: Any, shape: Any = None, *, dtype: Any = None, key: Key | None = None) -> Tensor:
    """Beta numbers, g / (g + h) for gamma numbers g of shape parameter `a` and h of `b`."""
    kind = own_dtype("beta", dtype, a, b)
    parameters = {"a": (a, POSITIVE), "b": (b, POSITIVE)}
    sizes, (first, second) = read("beta", wide(kind), shape, parameters, 4)
    with drawing("beta", key) as pair:
        one, two = inner_words(pair, 2)
    _, g = log_gamma_of(one, first, sizes, wide(kind))
    _, h = log_gamma_of(two, second, sizes, wide(kind))
    return ew.cast(ew.sigmoid(ew.subtract(g, h)), kind)


def dirichlet(
    alpha: Any, shape: Any = None, *, dtype: Any = None, key: Key | None = None
) -> Tensor:
    """Vectors of probabilities along a new last axis, with concentrations alpha [..., n].

    Args:
        shape: of the result without its last axis; the axes of alpha before the last by default.
    """
    what = "dirichlet"
    tensor = as_tensor(alpha, what)
    if not tensor.ndim or not tensor.shape[-1]:
        raise ShapeError(f"{what}: alpha has a last axis of concentrations, got {tensor._type}")
    kind = own_dtype(what, dtype, tensor)
    full = None if shape is None else (*_listed(shape), tensor.shape[-1])
    sizes, (power,) = read(what, wide(kind), full, {"alpha": (tensor, POSITIVE)}, 4)
    with drawing(what, key) as pair:
        (word,) = inner_words(pair)
    return ew.cast(softmax(log_gamma_of(word, power, sizes, wide(kind))[1], axis=-1), kind)


def _listed(shape: Any) -> tuple[Any, ...]:
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


def student_t(
    df: Any,
    shape: Any = None,
    loc: Any = 0.0,
    scale: Any = 1.0,
    *,
    dtype: Any = None,
    key: Key | None = None,
) -> Tensor:
    """Student's t numbers: normal ones over the root of chi-square ones over `df`."""
    what = "student_t"
    kind = own_dtype(what, dtype, df, loc, scale)
    compute = wide(kind)
    parameters = {"df": (df, POSITIVE), "loc": (loc, ANY), "scale": (scale, POSITIVE)}
    sizes, (degrees, centre, spread) = read(what, compute, shape, parameters, 4)
    with drawing(what, key) as pair:
        (word,) = inner_words(pair)
    half = ew.multiply(degrees, 0.5)
    _, logs = log_gamma_of(word, half, sizes, compute)
    radius, angle = lanes((word, scalar(uint64, APART + 1)), sizes, 2, compute)
    normal = normal_of(radius, angle, compute)
    root = ew.exp(ew.multiply(ew.subtract(ew.log(half), logs), 0.5))
    return ew.cast(ew.add(ew.multiply(ew.multiply(normal, root), spread), centre), kind)
