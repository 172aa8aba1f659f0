"""How a gamma number moves with its shape parameter while its quantile stays.

With P the distribution function and p the density, dx/da = -(dP/da) / p (Figurnov, Mohamed & Mnih,
"Implicit reparameterization gradients", 2018). Three ways to it, each where it is accurate:

    x <= a      P = sum of t[n] with t[n] = x**(a+n) exp(-x) / gamma(a+n+1), differentiated by terms
    x > a       the tail as Legendre's continued fraction, differentiated along its recurrence
    a > 2000    the expansion of Cornish and Fisher (1938) of the quantile in powers of a**(-1/2)
"""

from __future__ import annotations

from typing import Any

from einkorn import special
from einkorn.control import while_loop
from einkorn.functions import elementwise as ew
from einkorn.functions.statistical import any as any_of
from einkorn.ir.dtypes import float64
from einkorn.recording import scalar
from einkorn.tensor import Tensor

LARGE = 2000.0
SERIES_TERMS, FRACTION_TERMS = 2000, 1000


def slope(a: Tensor, x: Tensor) -> Tensor:
    """dx/da for gamma numbers x of shape parameter a >= 1, to about 1e-6; computed in float64."""
    dtype = a.dtype
    a, x = ew.cast(a, float64), ew.cast(x, float64)
    large = ew.greater(a, LARGE)
    usable = ew.bitwise_and(ew.greater(a, 0.0), ew.bitwise_and(ew.greater(x, 0.0), ew.isfinite(x)))
    usable = ew.bitwise_and(usable, ew.bitwise_invert(large))
    below = ew.less_equal(x, a)
    low, high = ew.bitwise_and(usable, below), ew.bitwise_and(usable, ew.bitwise_invert(below))
    found = ew.where(
        low, _series(*_inside(low, a, x, 1.0), low), _fraction(*_inside(high, a, x, 2.0), high)
    )
    wide = _expansion(ew.where(large, a, LARGE), ew.where(large, x, LARGE))
    found = ew.where(large, wide, found)
    bad = ew.bitwise_invert(ew.bitwise_or(usable, large))
    return ew.cast(ew.where(bad, ew.subtract(x, x), found), dtype)


def _inside(where: Tensor, a: Tensor, x: Tensor, other: float) -> tuple[Tensor, Tensor]:
    """Arguments where a method is used, harmless ones elsewhere."""
    return ew.where(where, a, 1.0), ew.where(where, x, other)


def _series(a: Tensor, x: Tensor, active: Tensor) -> Tensor:
    """-sum of s[n] (log x - digamma(a+n+1)), s[0] = x / a, s[n] = s[n-1] x / (a+n)."""
    logs = ew.log(x)

    def goes_on(state: Any) -> Tensor:
        return ew.bitwise_and(any_of(state[-1]), ew.less(state[0], float(SERIES_TERMS)))

    def step(state: Any) -> Any:
        n, term, psi, total, active = state
        grown = ew.add(total, ew.multiply(term, ew.subtract(psi, logs)))
        total = ew.where(active, grown, total)
        n = ew.add(n, 1.0)
        divisor = ew.add(a, n)
        nxt = ew.multiply(term, ew.divide(x, divisor))
        psi = ew.add(psi, ew.reciprocal(divisor))
        # Terms fall from here on by at least x / divisor < 1.
        rest = ew.multiply(nxt, ew.abs(ew.subtract(psi, logs)))
        active = ew.bitwise_and(active, ew.greater(rest, ew.multiply(ew.abs(total), 1e-13)))
        return n, nxt, psi, total, active

    first = (scalar(float64, 0.0), ew.divide(x, a), special.digamma(ew.add(a, 1.0)))
    return while_loop(goes_on, step, (*first, ew.multiply(x, 0.0), active))[3]


def _fraction(a: Tensor, x: Tensor, active: Tensor) -> Tensor:
    """The same from the tail: Q / p is x times a continued fraction f, so

    dx/da = (dQ/da) / p = x (f (log x - digamma(a)) + df/da),
    f = 1 / (x+1-a - 1(1-a) / (x+3-a - 2(2-a) / (x+5-a - ...))), by the method of Lentz (1976).
    """
    logs = ew.subtract(ew.log(x), special.digamma(a))
    b = ew.subtract(ew.add(x, 1.0), a)
    zero = ew.multiply(x, 0.0)

    def goes_on(state: Any) -> Tensor:
        return ew.bitwise_and(any_of(state[-1]), ew.less(state[0], float(FRACTION_TERMS)))

    def step(state: Any) -> Any:
        n, b, c, dc, d, dd, f, df, active = state
        n = ew.add(n, 1.0)
        b = ew.add(b, 2.0)
        numerator = ew.multiply(n, ew.subtract(a, n))  # its derivative by a is n, that of b is -1
        # d = 1 / (numerator d + b) and c = b + numerator / c, with their derivatives by a.
        below = ew.add(ew.multiply(numerator, d), b)
        dbelow = ew.subtract(ew.add(ew.multiply(n, d), ew.multiply(numerator, dd)), 1.0)
        d = ew.reciprocal(below)
        dd = ew.negative(ew.multiply(dbelow, ew.multiply(d, d)))
        ratio = ew.divide(numerator, c)
        dc = ew.subtract(ew.divide(ew.subtract(n, ew.multiply(ratio, dc)), c), 1.0)
        c = ew.add(b, ratio)
        factor = ew.multiply(c, d)
        dfactor = ew.add(ew.multiply(dc, d), ew.multiply(c, dd))
        dnext = ew.add(ew.multiply(df, factor), ew.multiply(f, dfactor))
        change = ew.abs(ew.subtract(dnext, df))
        df = ew.where(active, dnext, df)
        f = ew.where(active, ew.multiply(f, factor), f)
        moves = ew.greater(change, ew.multiply(ew.abs(df), 1e-13))
        moves = ew.bitwise_or(moves, ew.greater(ew.abs(ew.subtract(factor, 1.0)), 1e-14))
        return n, b, c, dc, d, dd, f, df, ew.bitwise_and(active, moves)

    # f = d[0] = 1 / b[0]; Lentz starts from a c that stands for infinity.
    d = ew.reciprocal(b)
    dd = ew.multiply(d, d)
    c = ew.add(zero, 1e300)
    state = (scalar(float64, 0.0), b, c, zero, d, dd, d, dd, active)
    found = while_loop(goes_on, step, state)
    f, df = found[6], found[7]
    return ew.multiply(x, ew.add(ew.multiply(f, logs), df))


def _expansion(a: Tensor, x: Tensor) -> Tensor:
    """1 + z / (2 r) - (z**3 - 7z) / (72 r**3) + (3z**4 + 7z**2 - 16) / (810 r**4), r = sqrt(a)."""
    r = ew.sqrt(a)
    # The normal quantile z of x: the approximation of Wilson and Hilferty (1931), then Newton.
    root = ew.exp(ew.multiply(ew.log(ew.divide(x, a)), 1 / 3))
    ninth = ew.divide(1.0, ew.multiply(a, 9.0))
    z = ew.divide(ew.subtract(ew.add(root, ninth), 1.0), ew.sqrt(ninth))
    for _ in range(3):
        z2 = ew.multiply(z, z)
        cubic = ew.divide(ew.multiply(z, ew.subtract(z2, 7.0)), ew.multiply(r, 36.0))
        quartic = ew.divide(_quartic(z2), ew.multiply(a, 810.0))
        value = ew.add(ew.multiply(ew.subtract(z2, 1.0), 1 / 3), ew.subtract(cubic, quartic))
        value = ew.add(ew.add(a, ew.multiply(z, r)), value)
        by_z = ew.add(r, ew.multiply(z, 2 / 3))
        z = ew.subtract(z, ew.divide(ew.subtract(value, x), by_z))
    z2 = ew.multiply(z, z)
    cubic = ew.divide(ew.multiply(z, ew.subtract(z2, 7.0)), ew.multiply(ew.multiply(a, r), 72.0))
    quartic = ew.divide(_quartic(z2), ew.multiply(ew.multiply(a, a), 810.0))
    first = ew.add(ew.divide(ew.multiply(z, 0.5), r), 1.0)
    return ew.add(ew.subtract(first, cubic), quartic)


def _quartic(z2: Tensor) -> Tensor:
    """3z**4 + 7z**2 - 16."""
    return ew.subtract(ew.multiply(z2, ew.add(ew.multiply(z2, 3.0), 7.0)), 16.0)
