"""pow and rsqrt."""

from __future__ import annotations

import math

from einkorn.codegen.llvm.mathlib.exponential import reduce_exp_pair, scale
from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.logarithm import Split, split
from einkorn.codegen.llvm.mathlib.number import (
    Number,
    fast_two_sum,
    horner,
    maximum,
    minimum,
    two_product,
)


def _log_pair(f: Format, parts: Split) -> tuple[Number, Number]:
    """log(x) as a sum high + low with some twelve bits to spare.

    log(m) = 2 atanh(s) with s = (m - 1)/(m + 1), as in Tang (1990); s, s^2 and the first two terms
    of the series are sums of two.
    """
    m = parts.mantissa
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
    log_low = s.fma(factor_low, s_low.fma(factor, log_low))
    high, low = fast_two_sum(parts.exponent * f.ln2_high, log)
    return fast_two_sum(high, parts.exponent.fma(f.ln2_low, low + log_low))


def pow(f: Format, x: Number, y: Number) -> Number:
    """x to the power y, with the special cases of C99 (F.9.4.4)."""
    size = abs(x)
    log, log_low = _log_pair(f, split(f, size))
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
