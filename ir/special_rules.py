"""The NumPy reference of the error and gamma functions, which NumPy does not have.

Scalar functions of `math` where they exist; else series in extended precision, and Newton's method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Bernoulli numbers B(2), B(4), ...
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def _scalar(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of Python floats over arrays, in float64."""
    each = np.frompyfunc(function, 1, 1)
    return lambda x: np.asarray(each(x.astype(np.float64)), dtype=np.float64)


def _lgamma_scalar(x: float) -> float:
    if abs(x) == math.inf or (x <= 0 and x.is_integer()):
        return math.inf
    return math.lgamma(x) if x < 2.5e305 else x * (math.log(x) - 1)  # math raises at overflow


erf_wide = _scalar(math.erf)
erfc_wide = _scalar(math.erfc)
lgamma_wide = _scalar(_lgamma_scalar)


def erf(x: Array) -> Array:
    """The error function."""
    return erf_wide(x).astype(x.dtype)


def erfc(x: Array) -> Array:
    """1 - erf(x)."""
    return erfc_wide(x).astype(x.dtype)


def lgamma(x: Array) -> Array:
    """log|gamma(x)|."""
    return lgamma_wide(x).astype(x.dtype)


def normal_cdf(wide: Array) -> Array:
    """erfc(a) / 2 with a = -x / sqrt(2), in float64.

    Far out erfc changes fast: what rounding the argument did is undone to first order.
    """
    where = -wide / np.sqrt(2)
    lost = np.longdouble(-wide) / np.sqrt(np.longdouble(2)) - where
    lost = np.where(np.isfinite(wide), lost, 0).astype(np.float64)
    return 0.5 * (erfc_wide(where) - 2 / np.sqrt(np.pi) * np.exp(-where * where) * lost)


def ndtr(x: Array) -> Array:
    """The distribution function of the standard normal distribution."""
    return normal_cdf(x.astype(np.float64)).astype(x.dtype)


def nextafter(x: Array, goal: Array) -> Array:
    """The next number after x towards `goal`; `goal` where they are equal, as C99 has it."""
    return np.where(x == goal, goal, np.nextafter(x, goal))


def erfinv(x: Array) -> Array:
    """Two steps of Halley's method from the estimate of Winitzki (2008)."""
    wide = x.astype(np.float64)
    size = np.abs(wide)
    inside = np.where(size < 1, size, 0.25)
    rest = np.log1p(-inside * inside)
    half = 2 / (np.pi * 0.147) + rest / 2
    y = np.sqrt(np.maximum(np.sqrt(half * half - rest / 0.147) - half, 0))
    y = np.where(inside < 0.01, inside * (np.sqrt(np.pi) / 2), y)
    for _ in range(2):
        error = np.where(inside < 0.5, inside - erf_wide(y), erfc_wide(y) - (1 - inside))
        step = error / (2 / np.sqrt(np.pi) * np.exp(-y * y))
        y = y + step / (1 - y * step)
    y = np.where(size < 1, y, np.where(size == 1, np.inf, np.nan))
    return np.copysign(np.where(size < 1e-9, size * (np.sqrt(np.pi) / 2), y), wide).astype(x.dtype)


def digamma(x: Array) -> Array:
    """The derivative of lgamma."""
    return polygamma(x, 0)


def polygamma(x: Array, order: int) -> Array:
    """The derivative of digamma of that order; reflected for negative arguments."""
    wide = x.astype(np.longdouble)
    negative, sign = wide < 0, 1.0 if order % 2 else -1.0
    result = _polygamma_positive(np.where(negative, 1 - wide, wide), order)
    distance = wide - np.rint(wide)
    cotangent = _PI / np.tan(_PI * distance)
    mirrored = -sign * result - _cotangent_derivative(cotangent, order)
    pole = (distance == 0) & (wide <= 0)
    result = np.where(negative, mirrored, result)
    at_pole = (
        np.where(wide == 0, -np.copysign(np.inf, wide), np.nan) if not order else sign * np.inf
    )
    result = np.where(pole, at_pole, result)
    return np.where(wide == -np.inf, np.nan, result).astype(x.dtype)


_PI = np.longdouble("3.14159265358979323846264338327950288")


def _polygamma_positive(x: Array, order: int) -> Array:
    """The series of Euler and Maclaurin at x + count, and the terms before it."""
    count = 16 + order
    far = -1 / (x + count)
    power = np.prod([far] * order, axis=0)
    total = np.log(x + count) if order == 0 else -math.factorial(order - 1) * power
    total = total + math.factorial(order) / 2 * (far * power)
    for j, b in enumerate(_BERNOULLI, 1):
        scale = b * math.factorial(2 * j + order - 1) / math.factorial(2 * j)
        power = power * (far * far)
        total = total - scale * power
    for k in reversed(range(count)):
        term = np.prod([-1 / (x + k)] * (order + 1), axis=0)
        total = total + math.factorial(order) * term
    return np.where(x == np.inf, np.inf if order == 0 else 0.0, total)


def _cotangent_derivative(y: Array, order: int) -> Array:
    """The derivative of that order of y = pi cot(pi x), a polynomial in y: y' = -(pi^2 + y^2)."""
    polynomial = np.polynomial.Polynomial([0, 1])
    slope = np.polynomial.Polynomial([-(np.pi**2), 0, -1])
    for _ in range(order):
        polynomial = polynomial.deriv() * slope
    return polynomial(y)
