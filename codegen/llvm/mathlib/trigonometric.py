"""sin, cos and tan.

|x| = n pi/2 + r by Cody and Waite's reduction (1980) with pi/2 in three parts; lanes too large for
it go through `payne_hanek`, in a branch taken when a vector holds such a lane. r is a sum
high + low, and both sin(r) and cos(r) are odd and even polynomials corrected for `low`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.number import Number, fast_two_sum, horner
from einkorn.codegen.llvm.mathlib.payne_hanek import reduce_large


@dataclass(frozen=True, slots=True)
class Circle:
    """sin(r) and cos(r), each as a sum of two, and the quadrant in the low bits of `quadrant`."""

    quadrant: Number
    sine: tuple[Number, Number]
    cosine: tuple[Number, Number]


def _circle(f: Format, x: Number) -> Circle:
    shifted = x.fma(2 / math.pi, f.magic)
    n = shifted - f.magic
    first, second, third = f.half_pi
    product = n * second
    error = n.fma(second, -product)
    # The subtraction below it is exact: both are multiples of one unit and the result is small.
    high, low = fast_two_sum(n.fma(-first, x), -product)
    low = n.fma(-third, low - error)
    quadrant = shifted.cast("bitcast", f.integer)
    high, low, quadrant = reduce_large(f, x, (high, low, quadrant))
    square = high * high
    half = square * 0.5
    one_less, rest = fast_two_sum(half.constant(1.0), -half)
    sine_rest = (high * square).fma(horner(square, f.sine), low * one_less)
    cosine_rest = (square * square).fma(horner(square, f.cosine), (-high).fma(low, rest))
    return Circle(quadrant, (high, sine_rest), (one_less, cosine_rest))


def _signed(f: Format, x: Number, quadrant: Number) -> Number:
    """x, negated where bit 1 of the quadrant is set."""
    flip = (quadrant & 2) << (f.width - 2)
    return (x.cast("bitcast", f.integer) ^ flip).cast("bitcast", f.element)


def _odd(quadrant: Number) -> Number:
    return (quadrant & 1).differs(0)


def sin(f: Format, x: Number) -> Number:
    """sin(x)."""
    circle = _circle(f, x)
    sine, cosine = (a + b for a, b in (circle.sine, circle.cosine))
    result = _signed(f, _odd(circle.quadrant).where(cosine, sine), circle.quadrant)
    return x.equal(0.0).where(x, result)


def cos(f: Format, x: Number) -> Number:
    """cos(x)."""
    circle = _circle(f, x)
    sine, cosine = (a + b for a, b in (circle.sine, circle.cosine))
    result = _odd(circle.quadrant).where(sine, cosine)
    return _signed(f, result, circle.quadrant + 1)


def tan(f: Format, x: Number) -> Number:
    """tan(x) = sin(r) / cos(r), or -cos(r) / sin(r) in the odd quadrants."""
    circle = _circle(f, x)
    odd = _odd(circle.quadrant)
    sine, cosine = fast_two_sum(*circle.sine), fast_two_sum(*circle.cosine)
    over = [odd.where(c, s) for s, c in zip(sine, cosine)]
    under = [odd.where(s, c) for s, c in zip(sine, cosine)]
    quotient = over[0] / under[0]
    remainder = (-quotient).fma(under[0], over[0]) + (-quotient).fma(under[1], over[1])
    result = (remainder / under[0]) + quotient
    result = _signed(f, result, circle.quadrant << 1)
    return x.equal(0.0).where(x, result)
