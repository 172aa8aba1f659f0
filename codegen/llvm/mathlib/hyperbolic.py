"""sinh, cosh and the inverse hyperbolic functions."""

from __future__ import annotations

import math

from einkorn.codegen.llvm.mathlib.exponential import ratio, reduce_exp_pair, scale, two_scales
from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.logarithm import log1p_pair
from einkorn.codegen.llvm.mathlib.number import Number, fast_two_sum, horner, minimum

Pair = tuple[Number, Number]


def _exponentials(f: Format, x: Number) -> tuple[Pair, Pair, Number]:
    """exp(|x|) and exp(-|x|), both divided by 2^n, and bits that end in n - 1.

    |x| is bounded just beyond the point where the halved exponential overflows.
    """
    e = reduce_exp_pair(f, minimum(abs(x), f.exp_most + 1.0))
    high, rest = fast_two_sum(e.high.constant(1.0), e.high)
    low = rest + e.low
    inverse = 1.0 / high
    inverse_low = inverse * ((-inverse).fma(high, 1.0) - inverse * low)
    first, second = two_scales(f, -e.bits)
    power = first * second
    small = inverse * power * power, inverse_low * power * power
    return (high, low), small, e.bits - 1


def cosh(f: Format, x: Number) -> Number:
    """(exp(|x|) + exp(-|x|)) / 2."""
    (large, low), (small, _), bits = _exponentials(f, x)
    return scale(f, large + (low + small), bits)


def sinh(f: Format, x: Number) -> Number:
    """A polynomial up to 1, then (exp(|x|) - exp(-|x|)) / 2."""
    (large, low), (small, small_low), bits = _exponentials(f, x)
    high, rest = fast_two_sum(large, -small)
    far = scale(f, high + (rest + (low - small_low)), bits).copysign(x)
    square = x * x
    near = (x * square).fma(horner(square, f.sinh), x)
    return abs(x).less(1.0).where(near, far)


def asinh(f: Format, x: Number) -> Number:
    """log(a + sqrt(a^2 + 1)) = log1p(a + a^2 / (1 + sqrt(a^2 + 1))), a = |x|; or log(2a)."""
    size = abs(x)
    # Where the square might overflow, log1p_pair reads `size` itself.
    bounded = minimum(size, 2.0 ** (f.mantissa + 5))
    square = bounded * bounded
    share = square / (bounded.fma(bounded, 1.0).root() + 1.0)
    high, low = fast_two_sum(bounded, share)
    result = log1p_pair(f, high, low, size).copysign(x)
    usual = size.less(math.inf) & size.greater(f.tiny)
    return usual.where(result, x)


def acosh(f: Format, x: Number) -> Number:
    """log1p(t + sqrt(t^2 + 2t)) with t = x - 1; or log(2x)."""
    t = minimum(x, 2.0 ** (f.mantissa + 5)) - 1.0
    double = t + t
    square = t.fma(t, double)
    root = square.root()
    lost = (-root).fma(root, square) + t.fma(t, double - square)
    lost = root.greater(0.0).where(lost / (root + root), 0.0)
    high, low = fast_two_sum(root, t)
    result = log1p_pair(f, high, low + lost, x)
    result = x.less(1.0).where(math.nan, result)
    return x.less(math.inf).where(result, x)


def atanh(f: Format, x: Number) -> Number:
    """log1p(2a / (1 - a)) / 2, a = |x|."""
    size = abs(x)
    below, below_low = fast_two_sum(size.constant(1.0), -size)
    high, low = ratio((size + size, size.constant(0.0)), (below, below_low))
    result = log1p_pair(f, high, low) * 0.5
    result = size.equal(1.0).where(math.inf, result)
    result = size.greater(1.0).where(math.nan, result).copysign(x)
    return size.less(f.tiny).where(x, result)
