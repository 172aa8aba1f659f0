"""Reduction of large angles modulo pi/2 (Payne and Hanek, 1983).

x = M 2^p with an integer M, so x 2/pi mod 4 needs only the bits of 2/pi from weight 2^(1-p) down:
192 of them give 128 bits of M * (2/pi), of which two are the quadrant. It is done lane by lane in
64-bit integers, for float32 too; a vector without a large lane skips it.
"""

from __future__ import annotations

from itertools import pairwise

from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.number import Number, fast_two_sum, two_product
from einkorn.codegen.llvm.text import Value, Writer, lanes_of

# 2/pi in words of 64 bits below the point, after one word of zeros.
_TWO_OVER_PI = (
    0x0000000000000000,
    0xA2F9836E4E441529,
    0xFC2757D1F534DDC0,
    0xDB6295993C439041,
    0xFE5163ABDEBBC561,
    0xB7246E3A424DD2E0,
    0x06492EEA09D1921C,
    0xFE1DEB1CB129A73E,
    0xE88235F52EBB4484,
    0xE99C7026B45F7E41,
    0x3991D639835339F4,
    0x9C845F8BBDF9283B,
    0x1FF897FFDE05980F,
    0xEF2F118B5A0A6D1F,
    0x6D367ECF27CB09B7,
    0x4F463F669E5FEA2D,
    0x7527BAC7EBE5F17B,
    0x3D0739F78A5292EA,
    0x6BFB5FB11F8D5D08,
    0x56033046FC7B6BAB,
    0xF0CFBC209AF4361D,
)
_HALF_PI_HIGH = 1.5707963267948966
_HALF_PI_LOW = 6.123233995736766e-17
# p = exponent field - 1075; the window begins at bit p - 1 of 2/pi, 63 zero bits before bit 1.
_WINDOW = 1075 - 62
_SIGN = 1 << 63
_HALF = (1 << 32) - 1

Reduction = tuple[Number, Number, Number]


def reduce_large(f: Format, x: Number, usual: Reduction) -> Reduction:
    """`usual` (high, low, quadrant), replaced in the lanes where |x| is too large for it."""
    w = x.w
    large = abs(x).greater(f.reduce_most)
    some = w.cast("zext", large.any_lane(), "i64")
    table = w.table("i64", _TWO_OVER_PI)
    # A loop that runs once or not at all: its carried values need no memory.
    with w.loop(w.i64(0), some, carried=[part.value for part in usual]) as branch:
        with w.loop(w.i64(0), w.i64(lanes_of(x.type)), carried=branch.carried) as lanes:
            found = _reduce_scalar(f, Number(w, _lane(w, x.value, lanes.index)), table)
            chosen = _lane(w, large.value, lanes.index)
            for old, new in zip(lanes.carried, found):
                kept = w.select(chosen, new.value, _lane(w, old, lanes.index))
                lanes.next.append(_replace(w, old, kept, lanes.index))
        branch.next = list(lanes.results)
    high, low, quadrant = (Number(w, value) for value in branch.results)
    return high, low, quadrant


def _lane(w: Writer, x: Value, index: Value) -> Value:
    return x if lanes_of(x.type) == 1 else w.extract(x, index)


def _replace(w: Writer, x: Value, lane: Value, index: Value) -> Value:
    return lane if lanes_of(x.type) == 1 else w.insert(x, lane, index)


def _reduce_scalar(f: Format, narrow: Number, table: Value) -> Reduction:
    """x = quadrant * pi/2 + high + low for one x of `f`; NaN for an infinity."""
    wide = narrow.cast("fpext", "double") if f.element == "float" else narrow
    bits = wide.cast("bitcast", "i64")
    quadrant, top, bottom = _quarter_turns(bits & (_SIGN - 1), table)
    negative = -(top >> 63)
    # The complement is the negated number less one unit of 2^-126, which is beyond every bit used.
    high, low = _to_radians(top ^ negative, bottom ^ negative)
    flip = (negative ^ bits) & _SIGN
    # x - x is NaN for an infinity and 0 for the rest.
    high = _flipped(high, flip) + (wide - wide)
    low = _flipped(low, flip)
    quadrant = wide.less(0.0).where(-quadrant, quadrant)
    if f.element == "double":
        return high, low, quadrant
    short = high.cast("fptrunc", "float")
    low = (high - short.cast("fpext", "double")) + low
    return short, low.cast("fptrunc", "float"), quadrant.cast("trunc", "i32")


def _flipped(x: Number, sign: Number) -> Number:
    return (x.cast("bitcast", "i64") ^ sign).cast("bitcast", "double")


def _quarter_turns(bits: Number, table: Value) -> Reduction:
    """M 2^p * 2/pi as the nearest integer mod 4 and a signed rest in units of 2^-126.

    The rest has 128 bits, in two words: arithmetic on i128 takes longer to compile.
    """
    w = bits.w
    start = (bits >> 52) - _WINDOW
    start = (start >> 63).differs(0).where(0, start)
    first, shift = start >> 6, start & 63
    words = [Number(w, w.load("i64", w.gep("i64", table, (first + k).value))) for k in range(4)]
    window = [
        Number(w, w.intrinsic("llvm.fshl", "i64", a.value, b.value, shift.value))
        for a, b in pairwise(words)
    ]
    mantissa = (bits & ((1 << 52) - 1)) | (1 << 52)
    middle_high, middle = _wide_product(window[1], mantissa)
    bottom = middle + _wide_product(window[2], mantissa)[0]
    carry = bottom.less(middle).cast("zext", "i64")
    top = window[0] * mantissa + middle_high + carry
    quadrant = (top + (1 << 61)) >> 62
    return quadrant, top - (quadrant << 62), bottom


def _wide_product(a: Number, b: Number) -> tuple[Number, Number]:
    """The high and the low word of the product of two words."""
    product = a.cast("zext", "i128") * b.cast("zext", "i128")
    return (product >> 64).cast("trunc", "i64"), a * b


def _to_radians(top: Number, bottom: Number) -> tuple[Number, Number]:
    """(top 2^64 + bottom) 2^-126 * pi/2 as a sum of two doubles."""
    halves = [top >> 32, top & _HALF, bottom >> 32, bottom & _HALF]
    a, b, c, d = (
        half.cast("sitofp", "double") * 2.0**-weight
        for half, weight in zip(halves, (30, 62, 94, 126))
    )
    high, low = fast_two_sum(a, b)
    high, low = fast_two_sum(high, low + c + d)
    product, error = two_product(high, high.constant(_HALF_PI_HIGH))
    return fast_two_sum(product, high.fma(_HALF_PI_LOW, low.fma(_HALF_PI_HIGH, error)))
