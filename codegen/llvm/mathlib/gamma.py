"""lgamma and polygamma, in float64.

Up to 3 a polynomial around the zero of the function, beyond it Stirling's series with minimax
coefficients; the logarithms are sums of two. Negative arguments are reflected, with the sine or
the cotangent of pi times the distance r to the nearest integer, which is exact.
"""

from __future__ import annotations

import math

from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.logarithm import split
from einkorn.codegen.llvm.mathlib.number import (
    Number,
    fast_two_sum,
    horner,
    two_product,
    two_sum,
)
from einkorn.codegen.llvm.mathlib.power import log_pair

Pair = tuple[Number, Number]

# lgamma(2 + z) / z on [-1/2, 1]; the first coefficient has a low part.
_LGAMMA = (
    0.42278433509846713,
    0.3224670334241132,
    -0.0673523010531979,
    0.02058080842778692,
    -0.0073855510286921075,
    0.0028905103306416406,
    -0.0011927539110562105,
    0.00050966952640637,
    -0.00022315477029293814,
    9.945750289729673e-05,
    -4.492611648258189e-05,
    2.0507176430156443e-05,
    -9.440162037872367e-06,
    4.375669729072744e-06,
    -2.037421403622905e-06,
    9.509597104611802e-07,
    -4.495866547869903e-07,
    2.2063364218157188e-07,
    -1.0849266711332769e-07,
    4.550886602000445e-08,
    -1.2878402952529437e-08,
    1.722142924940037e-09,
)
_LGAMMA_LOW = 4.942915152430645e-18
# x (lgamma(x) - (x - 1/2) log(x) + x - log(2 pi)/2) in powers of 1/x^2, for x >= 3.
_STIRLING = (
    0.08333333333333333,
    -0.0027777777777695783,
    0.000793650789889899,
    -0.0005952374154667925,
    0.0008416866336118128,
    -0.001913879726708732,
    0.006274751473709702,
    -0.026057818133234094,
    0.11380138759910671,
    -0.42306543008535885,
    1.074286843425413,
    -1.3208442475880455,
)
# log(2 pi)/2 - 1/2
_HALF_LOG = 0.4189385332046727, 1.6728209650585413e-17
# digamma(root + t) / t for root + t in [1, 2], and its root.
_DIGAMMA = (
    0.9676722454476212,
    -0.4427631689835921,
    0.2584997609556485,
    -0.16394270544240816,
    0.10782405069170337,
    -0.07219956125646843,
    0.048804288133852285,
    -0.0331611264622285,
    0.022597649298059155,
    -0.015424766653147775,
    0.01053876980607127,
    -0.0072045138418992336,
    0.004927057745108667,
    -0.0033701225404627225,
    0.0023029086812463395,
    -0.0015738790624475743,
    0.0010899297236045124,
    -0.0007561017430295764,
    0.00047273670699177423,
    -0.0002818988407286381,
    0.00027819260166631954,
    -0.0002806326575924667,
    0.00012117926762043163,
)
_ROOT = 1.4616321449683622, 9.549995429965697e-17
# x^2 (log(x) - 1/(2x) - digamma(x)) in powers of 1/x^2, for x >= 3.
_DIGAMMA_FAR = (
    0.08333333333333333,
    -0.008333333333303822,
    0.0039682539522856025,
    -0.0041666632520032795,
    0.007575374129291721,
    -0.02106672057518987,
    0.08216304152259508,
    -0.4064423169932747,
    2.1991086392894386,
    -10.932598580336606,
    42.2764454992878,
    -106.42089275569182,
    126.81783718543748,
)
# (sin(pi r)/(pi r) - 1) / r^2 and (pi r cot(pi r) - 1) / r^2 in powers of r^2, on [0, 1/2].
_SINE = (
    -1.6449340668482264,
    0.8117424252833418,
    -0.19075182412156025,
    0.02614784780641637,
    -0.002346080902069693,
    0.00014842787007254441,
    -6.972165514491833e-06,
    2.450916916318091e-07,
)
_COTANGENT = (
    -3.2898681336964533,
    -2.16464646742191,
    -2.034686124047694,
    -2.0081547052894395,
    -2.001989501405851,
    -2.0004813786196296,
    -2.000344173577601,
    -1.996857878276539,
    -2.0324278376356917,
    -1.76097404602426,
    -3.268794204386259,
    2.7673260103309896,
    -14.192142355171827,
    17.536982705819863,
    -17.952836084037102,
)
# B(2j) / (2j)! of the Euler-Maclaurin formula, j = 1, 2, ...
_BERNOULLI = (
    1 / 6,
    -1 / 30,
    1 / 42,
    -1 / 30,
    5 / 66,
    -691 / 2730,
    7 / 6,
    -3617 / 510,
    43867 / 798,
    -174611 / 330,
)
MAX_ORDER = 30


def lgamma(f: Format, x: Number) -> Number:
    """log|gamma(x)|; inf at 0 and at the negative integers."""
    size = abs(x)
    negative = x.less(0.0)
    near_zero = negative & size.less(0.5)
    high, low = _lgamma_positive(f, near_zero.where(size + 1.0, size))
    # gamma(-a) gamma(1 + a) = -pi / sin(pi a); below 1/2 the one above is gamma(1 + a).
    distance = size - size.rounded()
    sine = abs(distance)
    square = distance * distance
    sine = sine.fma(square * horner(square, _SINE), sine)
    log, log_low = log_pair(f, split(f, near_zero.where(sine, sine * size)))
    total, rest = two_sum(high, log)
    reflected = -(total + (rest + (low + log_low)))
    result = negative.where(reflected, high + low)
    # Where the result overflows, `low` is NaN.
    result = negative.where(result, high.less(math.inf).where(result, high))
    pole = distance.equal(0.0) & (negative | size.equal(0.0))
    return (pole | size.equal(math.inf)).where(math.inf, result)


def _lgamma_positive(f: Format, x: Number) -> Pair:
    """lgamma(x) for x > 0 as factor * log(argument) + rest."""
    small, below, far = x.less(0.5), x.less(1.5), ~x.less(3.0)
    # gamma(x) = gamma(x + 2) / (x + x^2) = gamma(x + 1) / x
    shifted = x.fma(x, x)
    argument = small.where(shifted, x)
    lost = small.where(x.fma(x, x - shifted), 0.0) / argument
    log, log_low = log_pair(f, split(f, argument))
    log, rest = two_sum(log, far.where(log.constant(-1.0), 0.0))
    log_low = log_low + (rest + lost)
    factor = far.where(x - 0.5, below.where(x.constant(-1.0), 0.0))
    product, product_low = two_product(factor, log)
    product_low = factor.fma(log_low, product_low)
    near, near_low = _near_zero(x - small.where(x.constant(0.0), below.where(x.constant(1.0), 2.0)))
    inverse = 1.0 / x
    series = inverse * horner(inverse * inverse, _STIRLING)
    other = far.where(_HALF_LOG[0], near)
    other_low = far.where(series + _HALF_LOG[1], near_low)
    high, rest = two_sum(product, other)
    return high, rest + (product_low + other_low)


def _near_zero(z: Number) -> Pair:
    """lgamma(2 + z)."""
    slope, slope_low = fast_two_sum(z.constant(_LGAMMA[0]), z * horner(z, _LGAMMA[1:]))
    product, product_low = two_product(z, slope)
    return product, z.fma(slope_low + _LGAMMA_LOW, product_low)


def digamma(f: Format, x: Number) -> Number:
    """The derivative of lgamma; NaN at the negative integers, an infinity at 0."""
    negative = x.less(0.0)
    size = abs(x)
    # digamma(-a) = digamma(1 + a) + pi cot(pi a)
    high, low = _digamma_positive(f, negative.where(size + 1.0, size))
    distance = size - size.rounded()
    high, rest = two_sum(high, negative.where(_cotangent(distance), 0.0))
    result = high + (low + rest)
    result = abs(high).less(math.inf).where(result, high)
    result = (negative & distance.equal(0.0)).where(math.nan, result)
    result = size.equal(0.0).where(size.constant(math.inf).copysign(-x), result)
    return size.equal(math.inf).where(x.greater(0.0).where(x, math.nan), result)


def _digamma_positive(f: Format, x: Number) -> Pair:
    """digamma(x) for x > 0, from digamma(x + 1) = digamma(x) + 1/x and the polynomial on [1, 2]."""
    below, near, above = x.less(1.0), x.less(2.0), x.less(3.0)
    divisor = (above & ~near).where(x - 1.0, x)
    inverse = 1.0 / divisor
    inverse_low = inverse * (-inverse).fma(divisor, 1.0)
    share = near.where(below.where(x.constant(-1.0), 0.0), 1.0)
    share = above.where(share, -0.5)
    root, root_low = _ROOT
    exact = divisor - below.where(x.constant(root - 1.0), root)
    t = exact - root_low
    t_low = (exact - t) - root_low
    slope, slope_low = fast_two_sum(t.constant(_DIGAMMA[0]), t * horner(t, _DIGAMMA[1:]))
    product, product_low = two_product(t, slope)
    product_low = t.fma(slope_low, t_low.fma(slope, product_low))
    log, log_low = log_pair(f, split(f, x))
    square = inverse * inverse
    log_low = log_low - square * horner(square, _DIGAMMA_FAR)
    high, rest = two_sum(above.where(product, log), share * inverse)
    return high, above.where(product_low, log_low) + share.fma(inverse_low, rest)


def _cotangent(r: Number) -> Number:
    """pi cot(pi r) for |r| <= 1/2."""
    square = r * r
    return square.fma(horner(square, _COTANGENT), 1.0) / r


def polygamma(f: Format, x: Number, order: int) -> Number:
    """The derivative of digamma of that order, which is at most MAX_ORDER; 0 is digamma."""
    if order == 0:
        return digamma(f, x)
    negative = x.less(0.0)
    sign = 1.0 if order % 2 else -1.0
    result = _hurwitz(negative.where(1.0 - x, x), order) * sign
    # (-1)^n polygamma(n, 1 - x) - polygamma(n, x) is the n-th derivative of pi cot(pi x).
    distance = x - x.rounded()
    reflected = -sign * result - _cotangent_derivative(_cotangent(distance), order)
    result = negative.where(reflected, result)
    pole = distance.equal(0.0) & ~x.greater(0.0)
    result = pole.where(sign * math.inf, result)
    return x.equal(-math.inf).where(math.nan, result)


def _hurwitz(x: Number, order: int) -> Number:
    """n! (x^-s + (x + 1)^-s + ...) with s = n + 1 for x >= 0, by the Euler-Maclaurin formula."""
    count = 10 + order
    factorial = float(math.factorial(order))
    inverse = 1.0 / (x + float(count))
    square = inverse * inverse
    terms = [
        b * math.factorial(2 * j + order - 1) / math.factorial(2 * j)
        for j, b in enumerate(_BERNOULLI, 1)
    ]
    head = inverse.fma(factorial / 2, factorial / order)
    total = (square * horner(square, terms) + head) * _power(inverse, order)
    for k in reversed(range(count)):
        total = _power(1.0 / (x + float(k)), order + 1).fma(factorial, total)
    return total


def _power(x: Number, exponent: int) -> Number:
    power = x
    for bit in f"{exponent:b}"[1:]:
        power = power * power
        if bit == "1":
            power = power * x
    return power


def _cotangent_derivative(y: Number, order: int) -> Number:
    """The derivative of that order of y = pi cot(pi x), a polynomial in y: y' = -(pi^2 + y^2)."""
    coefficients = [0.0, 1.0]
    for _ in range(order):
        slope = [k * c for k, c in enumerate(coefficients)][1:]
        coefficients = [0.0] * (len(slope) + 2)
        for k, c in enumerate(slope):
            coefficients[k] -= math.pi**2 * c
            coefficients[k + 2] -= c
    even = horner(y * y, coefficients[(order + 1) % 2 :: 2])
    return even if order % 2 else y * even
