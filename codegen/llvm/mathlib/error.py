"""erf, erfc, the inverse of erf, the normal distribution function ndtr, and gelu.

The upper tail of the normal distribution is Q(a) = exp(-a^2/2) v G(v) with v = 1/(a + shift):
G is smooth on the whole half line, so one polynomial gives the tail to full relative precision
(the idea of Shepherd and Laframboise 1981). It is taken in
v - centre, which is exact wherever its rounding would matter (Sterbenz 1974).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from einkorn.codegen.llvm.mathlib.exponential import (
    one_scale,
    reduce_exp,
    reduce_exp_pair,
    scale,
)
from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.logarithm import log
from einkorn.codegen.llvm.mathlib.number import (
    Number,
    fast_two_sum,
    horner,
    minimum,
    two_product,
)

# erfinv(x)/x in powers of x^2, on [0, 1/2]; the first coefficient has a low part.
_ERFINV_NEAR = (
    0.886226925452758,
    0.23201366653465966,
    0.1275561753042775,
    0.08655212937428322,
    0.06495961079400064,
    0.051731499552550055,
    0.042832323341616046,
    0.03652598022183404,
    0.03112124340261063,
    0.03172538150425856,
    0.007955691138333392,
    0.07462404756484649,
    -0.07770954291714213,
    0.11414996874631073,
)
_ERFINV_LOW = -3.8332932499128993e-17
# erfinv(x)/s in powers of 1/(s + 1) - centre, for |x| from 1/2 to 1 - 2^-53.
_ERFINV_CENTRE = 0.344
_ERFINV_FAR = (
    0.8235912609713824,
    -0.9996806574885564,
    -1.404724534155806,
    0.4662199409940889,
    2.261531949433858,
    2.2565398622478403,
    -2.81713835588136,
    -6.955506965835057,
    -6.211316616987934,
    14.63622115869811,
    27.190761298359256,
    23.8005966621606,
    -128.8011695924762,
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
    q = _upper(f, size, None, two_product(size, size * 0.5))
    lost = scale(f, q.high.fma(size, q.low * size), q.bits)
    return x.less(0.0).where(-0.0, x) - lost


def ndtr(f: Format, x: Number) -> Number:
    """The normal distribution function: Q(|x|), or 1 - Q(|x|) for positive x."""
    size = minimum(abs(x), f.gelu_most)
    q = _upper(f, size, None, two_product(size, size * 0.5))
    tail = scale(f, q.high + q.low, q.bits)
    return x.greater(0.0).where(1.0 - tail, tail)


def erfc(f: Format, x: Number) -> Number:
    """1 - erf(x) = 2 Q(sqrt(2) x), or 2 - 2 Q(-sqrt(2) x) for negative x."""
    q = _half_erfc(f, minimum(abs(x), f.gelu_most / math.sqrt(2)))
    tail = scale(f, q.high + q.low, q.bits + 1)
    return x.less(0.0).where(2.0 - tail, tail)


def erfinv(f: Format, x: Number, refine: bool = True) -> Number:
    """The inverse of erf, in float64.

    Up to 1/2 a polynomial; beyond, an estimate to 2^-34 in s = sqrt(-log(1 - |x|)), and one step
    of Newton's method if `refine`.
    """
    size = abs(x)
    square = x * x
    near = x.fma(_ERFINV_NEAR[0], x * square.fma(horner(square, _ERFINV_NEAR[1:]), _ERFINV_LOW))
    wanted = 1.0 - size
    s = (-log(f, wanted)).root()
    far = s * horner(1.0 / (s + 1.0) - _ERFINV_CENTRE, _ERFINV_FAR)
    if refine:
        q = _half_erfc(f, far)
        power = one_scale(f, q.bits + 1)
        residual = (q.high * power - wanted) + q.low * power
        slope = q.power * power * (1 / math.sqrt(math.pi))
        far = far + residual / slope
    far = size.less(1.0).where(far, size.equal(1.0).where(size.constant(math.inf), math.nan))
    return size.greater(0.5).where(far, near).copysign(x)


@dataclass(frozen=True, slots=True)
class _Upper:
    """Q(a) = (high + low) 2^n, with n in the low bits of `bits`, and exp(-a^2/2) = power 2^n."""

    high: Number
    low: Number
    bits: Number
    power: Number


def _half_erfc(f: Format, x: Number) -> _Upper:
    """erfc(x) / 2 for x >= 0."""
    root, root_low = f.sqrt_two
    a = x * root
    a_low = x.fma(root_low, x.fma(root, -a))
    return _upper(f, a, a_low, two_product(x, x))


def _upper(
    f: Format, a: Number, a_low: Number | None, half_square: tuple[Number, Number]
) -> _Upper:
    """Q(a + a_low), given a^2/2 as a sum of two."""
    square, square_low = half_square
    tail, tail_low, correction = _tail(f, a, a_low)
    e = reduce_exp_pair(f, -square, correction - square_low)
    power, power_low = fast_two_sum(e.high.constant(1.0), e.high)
    product, product_low = two_product(tail, power)
    product_low = product_low + tail.fma(power_low + e.low, tail_low * power)
    return _Upper(product, product_low, e.bits, power)


def _tail(f: Format, a: Number, a_low: Number | None) -> tuple[Number, Number, Number]:
    """exp(a^2/2) Q(a) as (high + low) exp(correction)."""
    base = a + f.tail_shift
    base_low = a - (base - f.tail_shift)
    if a_low is not None:
        base_low = base_low + a_low
    v = 1.0 / base
    t = v - f.tail_centre
    first, second, *others = f.tail
    inner = horner(t, others)
    rest = t.fma(inner, second)
    high = t.fma(rest, first)
    low = t.fma(rest, first - high) + t.fma(t.fma(inner, second - rest), f.tail_first_low)
    # v is off by a relative `error`, and v G by d log(v G) / d log v times that.
    error = (-v).fma(base, 1.0) - v * base_low
    correction = error * v.fma(horner(v, f.tail_slope), 1.0)
    product, product_low = two_product(v, high)
    return product, v.fma(low, product_low), correction
