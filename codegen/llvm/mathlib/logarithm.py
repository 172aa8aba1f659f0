"""log, log1p and softplus.

x = 2^e m with m in [sqrt(1/2), sqrt(2)), and log(x) = e ln2 + log(1 + f) for f = m - 1, by a
polynomial whose first terms f - f^2/2 are added last. Where the argument is itself a sum 1 + x,
f is formed from x and not from the rounded sum, so no division corrects it afterwards.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from einkorn.codegen.llvm.mathlib.exponential import reduce_exp, two_scales
from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.number import Number, fast_two_sum, horner, maximum


@dataclass(frozen=True, slots=True)
class Split:
    """x = 2^exponent * mantissa; `biased` holds exponent + bias as an integer."""

    exponent: Number
    biased: Number
    mantissa: Number


def _sqrt_half_bits(f: Format) -> int:
    code, integer = ("<f", "<I") if f.width == 32 else ("<d", "<Q")
    return struct.unpack(integer, struct.pack(code, math.sqrt(0.5)))[0]


def split(f: Format, x: Number, subnormal: bool = True) -> Split:
    """Split a positive finite x, with the mantissa in [sqrt(1/2), sqrt(2))."""
    # 2^mantissa with the exponent in its low bits is the number 2^mantissa + exponent.
    offset = x.constant(2.0**f.mantissa + f.bias)
    if subnormal:
        small = x.less(f.least_normal)
        x = small.where(x * 2.0 ** (f.mantissa + 2), x)
        offset = small.where(2.0**f.mantissa + f.bias + f.mantissa + 2, offset)
    start = _sqrt_half_bits(f)
    shifted = x.cast("bitcast", f.integer) + (f.one - start)
    biased = shifted >> f.mantissa
    mantissa = (shifted & ((1 << f.mantissa) - 1)) + start
    integer_base = (f.bias + f.mantissa) << f.mantissa
    exponent = (biased | integer_base).cast("bitcast", f.element) - offset
    return Split(exponent, biased, mantissa.cast("bitcast", f.element))


def log_sum(f: Format, exponent: Number, fraction: Number, low: Number | None = None) -> Number:
    """exponent * ln2 + log(1 + fraction), where the true fraction may be larger by `low`."""
    square = fraction * fraction
    tail = fraction.fma(horner(fraction, f.log), -0.5)
    tail = square.fma(tail, exponent * f.ln2_low)
    if low is not None:
        # d log(1 + f) = df / (1 + f), to first order.
        tail = tail + (-fraction).fma(low, low)
    high, rest = fast_two_sum(exponent * f.ln2_high, fraction)
    return high + (rest + tail)


def log(f: Format, x: Number) -> Number:
    """log(x)."""
    parts = split(f, x)
    return log_domain(x, log_sum(f, parts.exponent, parts.mantissa - 1.0))


def log_domain(x: Number, result: Number) -> Number:
    """A logarithm of x: `result` for positive finite numbers, else -inf, inf or NaN."""
    outside = x.equal(0.0).where(x.constant(-math.inf), math.nan)
    return x.less(math.inf).where(x.greater(0.0).where(result, outside), x)


def log1p(f: Format, x: Number) -> Number:
    """log(1 + x)."""
    parts = split(f, x + 1.0, subnormal=False)
    inverse = (2 * f.bias - parts.biased) << f.mantissa
    inverse = inverse.cast("bitcast", f.element)
    # Where 1 is lost beside x, the power of two may be too large to invert.
    large = x.greater(2.0 ** (f.mantissa + 4))
    offset = inverse - 1.0
    fraction = x.fma(inverse, offset)
    low = large.where(0.0, x.fma(inverse, offset - fraction))
    fraction = large.where(parts.mantissa - 1.0, fraction)
    result = log_sum(f, parts.exponent, fraction, low)
    outside = x.equal(-1.0).where(x.constant(-math.inf), math.nan)
    result = x.greater(-1.0).where(result, outside)
    unchanged = abs(x).less(f.tiny)
    return unchanged.where(x, x.less(math.inf).where(result, x))


def log1p_pair(f: Format, high: Number, low: Number, twice: Number | None = None) -> Number:
    """log(1 + high + low) for 0 <= high < 2^(mantissa + 5).

    Where `twice` is beyond 2^(mantissa + 4): log(2 twice).
    """
    large = None if twice is None else twice.greater(2.0 ** (f.mantissa + 4))
    total = high + 1.0
    if twice is not None and large is not None:
        total = large.where(twice, total)
    parts = split(f, total, subnormal=False)
    inverse = (2 * f.bias - parts.biased) << f.mantissa
    inverse = inverse.cast("bitcast", f.element)
    offset = inverse - 1.0
    fraction = high.fma(inverse, offset)
    rest = low.fma(inverse, high.fma(inverse, offset - fraction))
    if large is None:
        return log_sum(f, parts.exponent, fraction, rest)
    exponent = large.where(parts.exponent + 1.0, parts.exponent)
    fraction = large.where(parts.mantissa - 1.0, fraction)
    return log_sum(f, exponent, fraction, large.where(0.0, rest))


def softplus(f: Format, x: Number) -> Number:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    bits, s = reduce_exp(f, maximum(-abs(x), f.exp_least))
    high, low = fast_two_sum(s.constant(1.0), s)
    first, second = two_scales(f, bits)
    high = high * first * second
    power = first * second
    halved = high.greater(math.sqrt(2) - 1)
    factor = halved.where(high.constant(0.5), 1.0)
    exponent = halved.where(high.constant(1.0), 0.0)
    offset = factor - 1.0
    fraction = high.fma(factor, offset)
    lost = high.fma(factor, offset - fraction)
    result = log_sum(f, exponent, fraction, (low * power).fma(factor, lost))
    return x.less(0.0).where(0.0, x) + result
