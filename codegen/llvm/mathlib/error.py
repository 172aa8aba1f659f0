"""erf and gelu.

The upper tail of the normal distribution is Q(a) = exp(-a^2/2) v G(v) with v = 1/(a + shift):
G is smooth on the whole half line, so one polynomial gives the tail to full relative precision
(the idea of Shepherd and Laframboise 1981). It is taken in
v - centre, which is exact wherever its rounding would matter (Sterbenz 1974).
"""

from __future__ import annotations

import math

from einkorn.codegen.llvm.mathlib.exponential import (
    one_scale,
    reduce_exp,
    reduce_exp_pair,
    scale,
)
from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.number import (
    Number,
    fast_two_sum,
    horner,
    minimum,
    two_product,
)


def erf(f: Format, x: Number) -> Number:
    """erf(x): a polynomial up to 1, then 1 - 2 Q(sqrt(2) x)."""
    size = abs(x)
    near = x.fma(horner(x * x, f.erf), x)
    bounded = minimum(size, f.erf_most)
    bits, s = reduce_exp(f, -(bounded * bounded))
    v = 1.0 / bounded.fma(math.sqrt(2), f.tail_shift)
    tail = v * horner(v - f.tail_centre, f.tail)
    tail = tail * one_scale(f, bits) * -2.0
    far = tail.fma(1.0 + s, 1.0).copysign(x)
    return size.less(1.0).where(near, far)


def gelu(f: Format, x: Number) -> Number:
    """x * P(x), P the normal distribution: x - |x| Q(|x|), or -|x| Q(|x|) for negative x."""
    size = minimum(abs(x), f.gelu_most)
    square, square_low = two_product(size, size * 0.5)
    tail, tail_low, correction = _tail(f, size)
    e = reduce_exp_pair(f, -square, correction - square_low)
    power, power_low = fast_two_sum(e.high.constant(1.0), e.high)
    product, product_low = two_product(tail, power)
    product_low = product_low + tail.fma(power_low + e.low, tail_low * power)
    lost = scale(f, product.fma(size, product_low * size), e.bits)
    return x.less(0.0).where(-0.0, x) - lost


def _tail(f: Format, a: Number) -> tuple[Number, Number, Number]:
    """exp(a^2/2) Q(a) as (high + low) exp(correction)."""
    base = a + f.tail_shift
    base_low = a - (base - f.tail_shift)
    v = 1.0 / base
    t = v - f.tail_centre
    first, second, *others = f.tail
    inner = horner(t, others)
    rest = t.fma(inner, second)
    high = t.fma(rest, first)
    low = t.fma(rest, first - high) + t.fma(t.fma(inner, second - rest), f.tail_first_low)
    # v is off by a relative `error`; d log(v G) / d log v goes from 1 at a = infinity to
    # shift * sqrt(2/pi) at a = 0, nearly linearly in v.
    error = (-v).fma(base, 1.0) - v * base_low
    at_zero = f.tail_shift * math.sqrt(2 / math.pi)
    correction = error * v.fma((at_zero - 1.0) * f.tail_shift, 1.0)
    product, product_low = two_product(v, high)
    return product, v.fma(low, product_low), correction
