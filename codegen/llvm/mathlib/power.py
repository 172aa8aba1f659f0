"""pow, rsqrt, and the logarithms of other bases."""

from __future__ import annotations

import math

from einkorn.codegen.llvm.mathlib.exponential import reduce_exp_pair, scale
from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.logarithm import Split, log_domain, split
from einkorn.codegen.llvm.mathlib.number import (
    Number,
    fast_two_sum,
    horner,
    maximum,
    minimum,
    two_product,
)


def _log_mantissa(f: Format, m: Number) -> tuple[Number, Number]:
    """log(m) as a sum high + low with some twelve bits to spare, for m in [sqrt(1/2), sqrt(2)).

    log(m) = 2 atanh(s) with s = (m - 1)/(m + 1), as in Tang (1990); s, s^2 and the first two terms
    of the series are sums of two.
    """
    numerator = m - 1.0
    denominator = m + 1.0
    denominator_low = m - (denominator - 1.0)
    inverse = 1.0 / denominator
    s = numerator * inverse
    remainder = (-s).fma(denominator, numerator) - s * denominator_low
    s_low = remainder * inverse
    square, square_low = two_product(s, s)
    square_low = (s + s).fma(s_low, square_low)
    two_thirds, two_thirds_low = f.two_thirds
    rest = square * horner(square, f.power)
    slope, slope_low = fast_two_sum(rest.constant(two_thirds), rest + two_thirds_low)
    cubic, cubic_low = two_product(square, slope)
    cubic_low = square.fma(slope_low, square_low.fma(slope, cubic_low))
    factor, factor_low = fast_two_sum(cubic.constant(2.0), cubic)
    factor_low = factor_low + cubic_low
    log, log_low = two_product(s, factor)
    return log, s.fma(factor_low, s_low.fma(factor, log_low))


def log_pair(f: Format, parts: Split) -> tuple[Number, Number]:
    """log(x) as a sum high + low with some twelve bits to spare."""
    log, log_low = _log_mantissa(f, parts.mantissa)
    high, low = fast_two_sum(parts.exponent * f.ln2_high, log)
    return fast_two_sum(high, parts.exponent.fma(f.ln2_low, low + log_low))


def log2(f: Format, x: Number) -> Number:
    """log(x) / log(2): exact for powers of two."""
    parts = split(f, x)
    part, part_low = _times_pair(_log_mantissa(f, parts.mantissa), f.inverse_ln2)
    high, low = fast_two_sum(parts.exponent, part)
    return log_domain(x, high + (low + part_low))


def log10(f: Format, x: Number) -> Number:
    """log(x) / log(10)."""
    parts = split(f, x)
    part, part_low = _times_pair(_log_mantissa(f, parts.mantissa), f.inverse_ln10)
    high, low = fast_two_sum(parts.exponent * f.log10_2[0], part)
    return log_domain(x, high + (low + parts.exponent.fma(f.log10_2[1], part_low)))


def _times_pair(a: tuple[Number, Number], b: tuple[float, float]) -> tuple[Number, Number]:
    """The product of a sum high + low and a constant in two parts."""
    product, error = two_product(a[0], a[0].constant(b[0]))
    return product, a[0].fma(b[1], a[1].fma(b[0], error))


def pow(f: Format, x: Number, y: Number) -> Number:
    """x to the power y, with the special cases of C99 (F.9.4.4)."""
    size = abs(x)
    log, log_low = log_pair(f, split(f, size))
    log = size.equal(0.0).where(-math.inf, log)
    log = size.less(math.inf).where(log, size)
    product = log * y
    inside = abs(product).less(-f.exp_least)
    bounded = maximum(minimum(product, f.exp_most), f.exp_least)
    low = y.fma(log_low, y.fma(log, -product))
    low = inside.where(low, 0.0)
    e = reduce_exp_pair(f, bounded, low)
    result = scale(f, (e.high + e.low) + 1.0, e.bits)
    return _special_powers(f, x, y, result)


def _special_powers(f: Format, x: Number, y: Number, result: Number) -> Number:
    """Signs and special cases, given |x|^y where it follows from y * log|x|."""
    size = abs(x)
    half = y * 0.5
    whole = y.truncated().equal(y)
    odd = whole & half.truncated().differs(half)
    result = odd.where(result.copysign(x), result)
    imaginary = x.less(0.0) & x.greater(-math.inf) & ~whole
    result = imaginary.where(math.nan, result)
    one = x.equal(1.0) | y.equal(0.0) | (size.equal(1.0) & abs(y).equal(math.inf))
    return one.where(1.0, result)


def rsqrt(f: Format, x: Number) -> Number:
    """1 / sqrt(x) by Householder's third-order iteration from an estimate in the exponent."""
    small = x.less(f.least_normal)
    # An even power of two, whose root is exact.
    shift = f.mantissa + 2 - f.mantissa % 2
    scaled = small.where(x * 2.0**shift, x)
    bits = scaled.cast("bitcast", f.integer)
    # Halving and negating the bits halves and negates the logarithm, up to 0.045 (Blinn 1997).
    start = round(1.5 * (f.bias - 0.045) * 2.0**f.mantissa)
    y = (start - (bits >> 1)).cast("bitcast", f.element)
    for _ in range(1 if f.width == 32 else 2):
        error = (-(scaled * y)).fma(y, 1.0)
        y = (y * error).fma(error.fma(0.375, 0.5), y)
    product, product_low = two_product(scaled, y)
    error = (-product).fma(y, 1.0) - product_low * y
    y = (y * error).fma(error.fma(0.375, 0.5), y)
    y = small.where(y * 2.0 ** (shift // 2), y)
    y = x.equal(math.inf).where(0.0, x.less(0.0).where(math.nan, y))
    return x.equal(0.0).where(x.constant(math.inf).copysign(x), y)
