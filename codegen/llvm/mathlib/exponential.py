"""exp and what is built on it: expm1, sigmoid, silu and tanh.

All start from Cody and Waite's reduction (1980): x = n ln2 + r with |r| <= ln2/2, so that
exp(x) = 2^n (1 + s), s = exp(r) - 1. Where the result is a quotient, s is kept with its rounding
error and the quotient is corrected by its own remainder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.number import Number, fast_two_sum, horner, maximum, minimum


@dataclass(frozen=True, slots=True)
class Reduced:
    """exp(x) = 2^n (1 + high + low), with n in the low bits of `bits`."""

    bits: Number
    high: Number
    low: Number


def reduce_exp(f: Format, x: Number) -> tuple[Number, Number]:
    """Bits that end in n, and exp(r) - 1, for x within the range of two factors 2^(n/2)."""
    rounded = x.fma(1 / math.log(2), f.magic)
    n = rounded - f.magic
    r = n.fma(-f.ln2_low, n.fma(-f.ln2_high, x))
    return rounded.cast("bitcast", f.integer), (r * r).fma(horner(r, f.exp), r)


def reduce_exp_pair(f: Format, x: Number, low: Number | None = None) -> Reduced:
    """Reduce exp(x + low) and keep the rounding errors of r and of the last sum."""
    rounded = x.fma(1 / math.log(2), f.magic)
    n = rounded - f.magic
    exact = n.fma(-f.ln2_high, x)
    r = n.fma(-f.ln2_low, exact)
    lost = n.fma(-f.ln2_low, exact - r)
    if low is not None:
        r, lost = fast_two_sum(r, lost + low)
    high, rest = fast_two_sum(r, (r * r).fma(horner(r, f.exp), lost))
    return Reduced(rounded.cast("bitcast", f.integer), high, rest)


def one_scale(f: Format, bits: Number) -> Number:
    """2^n for n in the normal range."""
    return ((bits << f.mantissa) + f.one).cast("bitcast", f.element)


def two_scales(f: Format, bits: Number) -> tuple[Number, Number]:
    """2^n as two factors, for an n that may leave the normal range."""
    half = bits >> 1
    return one_scale(f, half), one_scale(f, bits - half)


def scale(f: Format, x: Number, bits: Number) -> Number:
    """x 2^n, rounded once: for x near 1 only the second of the factors rounds."""
    first, second = two_scales(f, bits)
    return x * first * second


def exp(f: Format, x: Number) -> Number:
    """exp(x)."""
    x = maximum(minimum(x, f.exp_most), f.exp_least)
    bits, s = reduce_exp(f, x)
    return scale(f, s + 1.0, bits)


def expm1(f: Format, x: Number) -> Number:
    """exp(x) - 1, formed as half of it because 2^n may overflow where the result does not."""
    bounded = maximum(minimum(x, f.exp_most), f.expm1_least)
    e = reduce_exp_pair(f, bounded)
    power = one_scale(f, e.bits - 1)
    whole = power - 0.5
    half = power.fma(e.high, whole)
    lost = power.fma(e.low, power.fma(e.high, whole - half))
    return abs(x).less(f.tiny).where(x, (half + lost) * 2.0)


def ratio(
    numerator: tuple[Number, Number], denominator: tuple[Number, Number]
) -> tuple[Number, Number]:
    """The quotient of two sums high + low, as such a sum."""
    inverse = 1.0 / denominator[0]
    quotient = numerator[0] * inverse
    remainder = (-quotient).fma(denominator[0], numerator[0])
    remainder = remainder + (-quotient).fma(denominator[1], numerator[1])
    return quotient, remainder * inverse


@dataclass(frozen=True, slots=True)
class _Logistic:
    """The logistic function as (high + low) * scales[0] * scales[1]."""

    high: Number
    low: Number
    scales: tuple[Number, Number]


def _logistic(f: Format, x: Number, least: float) -> _Logistic:
    """1 / (1 + e) or e / (1 + e) with e = exp(-|x|); the latter's power of two is left out."""
    bits, s = reduce_exp(f, maximum(-abs(x), least))
    one = s.constant(1.0)
    high, low = fast_two_sum(one, s)
    first, second = two_scales(f, bits)
    power = first * second
    sum_high, sum_low = fast_two_sum(one, power * high)
    negative = x.less(0.0)
    top = negative.where(high, 1.0), negative.where(low, 0.0)
    quotient, rest = ratio(top, (sum_high, power.fma(low, sum_low)))
    return _Logistic(quotient, rest, (negative.where(first, 1.0), negative.where(second, 1.0)))


def sigmoid(f: Format, x: Number) -> Number:
    """1 / (1 + exp(-x)), as exp(x) / (1 + exp(x)) for negative x."""
    result = _logistic(f, x, f.exp_least)
    return (result.high + result.low) * result.scales[0] * result.scales[1]


def silu(f: Format, x: Number) -> Number:
    """x * sigmoid(x); x is multiplied before the scaling, which alone may be subnormal."""
    result = _logistic(f, x, f.silu_least)
    bounded = maximum(x, f.silu_least)
    # The correction is zero where x is large, and must not meet an infinity.
    correction = minimum(bounded, -f.silu_least) * result.low
    product = bounded.fma(result.high, correction)
    return product * result.scales[0] * result.scales[1]


def tanh(f: Format, x: Number) -> Number:
    """-E / (2 + E), where E = exp(-2|x|) - 1."""
    e = reduce_exp_pair(f, minimum(abs(x), f.tanh_most) * -2.0)
    power = one_scale(f, e.bits)
    whole, whole_low = fast_two_sum(power.constant(-1.0), power)
    high = power.fma(e.high, whole)
    low = power.fma(e.low, power.fma(e.high, whole - high)) + whole_low
    sum_high, sum_low = fast_two_sum(high.constant(2.0), high)
    quotient, rest = ratio((-high, -low), (sum_high, sum_low + low))
    return (quotient + rest).copysign(x)
