"""asin, acos and atan2.

Near 1, asin(x) = pi/2 - 2 asin(s) with s = sqrt((1 - x)/2), where the root's rounding error is
kept. atan2 reduces to atan of a quotient below tan(pi/8) and a multiple of pi/4, both in two parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from einkorn.codegen.llvm.mathlib.exponential import ratio
from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.number import Number, fast_two_sum, horner


@dataclass(frozen=True, slots=True)
class _Sine:
    """Up to 1/2: asin(x) = x + `correction`; beyond: asin(sqrt((1 - |x|)/2)) = root + rest."""

    far: Number
    correction: Number
    root: Number
    rest: Number


def _sine(f: Format, x: Number) -> _Sine:
    size = abs(x)
    far = size.greater(0.5)
    square = far.where((1.0 - size) * 0.5, size * size)
    series = square * horner(square, f.asin)
    root = square.root()
    lost = (-root).fma(root, square) / (root + root)
    lost = root.greater(0.0).where(lost, 0.0)
    return _Sine(far, x * series, root, root.fma(series, lost))


def asin(f: Format, x: Number) -> Number:
    """asin(x): NaN outside of [-1, 1]."""
    sine = _sine(f, x)
    half_pi, half_pi_low, _ = f.half_pi
    high, low = fast_two_sum(x.constant(half_pi), sine.root * -2.0)
    far = high + (low + sine.rest.fma(-2.0, half_pi_low))
    return sine.far.where(far.copysign(x), x + sine.correction)


def acos(f: Format, x: Number) -> Number:
    """acos(x): NaN outside of [-1, 1]."""
    sine = _sine(f, x)
    half_pi, half_pi_low, _ = f.half_pi
    # pi/2 - x, or pi - 2 root for x < -1/2: a constant less something smaller.
    turns = sine.far.where(x.constant(2.0), 1.0)
    taken = sine.far.where(sine.root * 2.0, x)
    rest = sine.far.where(sine.rest * 2.0, sine.correction)
    high, low = fast_two_sum(turns * half_pi, -taken)
    usual = high + (low + turns.fma(half_pi_low, -rest))
    return x.greater(0.5).where((sine.root + sine.rest) * 2.0, usual)


def atan2(f: Format, y: Number, x: Number) -> Number:
    """The angle of the point (x, y), with the special cases of C99 (F.9.1.4)."""
    swapped = abs(y).greater(abs(x))
    small, large = _scaled(f, swapped.where(abs(x), abs(y)), swapped.where(abs(y), abs(x)))
    # Beyond pi/8 the angle is pi/4 - atan((large - small) / (large + small)).
    far = small.greater(large * math.tan(math.pi / 8))
    difference, difference_low = fast_two_sum(large, -small)
    total, total_low = fast_two_sum(large, small)
    over = far.where(-difference, small), far.where(-difference_low, 0.0)
    under = far.where(total, large), far.where(total_low, 0.0)
    t, rest = ratio(over, under)
    square = t * t
    rest = (t * square).fma(horner(square, f.atan), rest)
    # The angle is `turns` pi/4 plus or minus t + rest.
    left = x.constant(1.0).copysign(x).less(0.0)
    turns = far.where(x.constant(1.0), 0.0)
    turns = swapped.where(2.0 - turns, turns)
    turns = left.where(4.0 - turns, turns)
    backwards = swapped ^ left
    t, rest = backwards.where(-t, t), backwards.where(-rest, rest)
    quarter, quarter_low = f.half_pi[0] / 2, f.half_pi[1] / 2
    base = turns * quarter
    base_low = turns.fma(quarter, -base) + turns * quarter_low
    high, low = fast_two_sum(base, t)
    result = (high + (low + (base_low + rest))).copysign(y)
    return (x.differs(x) | y.differs(y)).where(math.nan, result)


def _scaled(f: Format, small: Number, large: Number) -> tuple[Number, Number]:
    """Two sides of the same quotient, away from overflow and underflow; 0 <= small <= large."""
    infinite = large.equal(math.inf)
    small = infinite.where(small.equal(math.inf).where(small.constant(1.0), 0.0), small)
    large = (infinite | large.equal(0.0)).where(1.0, large)
    half = f.bias // 2
    down = large.greater(2.0 ** (f.bias * 3 // 4)).where(large.constant(2.0**-half), 1.0)
    factor = large.less(2.0**-half).where(2.0 ** (half + 1), down)
    return small * factor, large * factor
