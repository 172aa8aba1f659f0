"""Logarithms of Poisson and binomial probabilities to full accuracy, in float64.

Loader, "Fast and accurate computation of binomial probabilities" (2000): what Stirling's formula
leaves of a factorial, and the deviance, neither of which cancels for large numbers.
"""

from __future__ import annotations

import math

import numpy as np

from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import int64
from einkorn.ir.ops import Op
from einkorn.recording import apply
from einkorn.tensor import Tensor


def _first_rest(k: int) -> float:
    """What Stirling's formula leaves of log k!, for small k."""
    return math.lgamma(k + 1) - (k * math.log(k) - k + math.log(2 * math.pi * k) / 2)


_FIRST = [0.0, *(_first_rest(k) for k in range(1, 16))]


def log_poisson(k: Tensor, mean: Tensor) -> Tensor:
    """log(mean**k exp(-mean) / k!) for whole k >= 0."""
    some = ew.maximum(k, 1.0)
    logs = ew.add(_rest(some), ew.add(_deviance(some, mean), _half_log(some)))
    return ew.negative(ew.where(ew.less(k, 1.0), mean, logs))


def log_binomial(k: Tensor, n: Tensor, p: Tensor) -> Tensor:
    """log(n! / (k! (n-k)!) p**k (1-p)**(n-k)) for whole 0 <= k <= n, n >= 1 and 0 < p < 1."""
    q = ew.subtract(1.0, p)
    inside = ew.bitwise_and(ew.greater(k, 0.0), ew.less(k, n))
    n = ew.maximum(n, 2.0)
    hits = ew.where(inside, k, 1.0)
    misses = ew.where(inside, ew.subtract(n, k), 1.0)
    rests = ew.subtract(ew.subtract(_rest(n), _rest(hits)), _rest(misses))
    far = ew.add(_deviance(hits, ew.multiply(n, p)), _deviance(misses, ew.multiply(n, q)))
    halves = ew.subtract(ew.subtract(_half_log(n), _half_log(hits)), _half_log(misses))
    edge = ew.where(ew.less(k, 1.0), ew.log1p(ew.negative(p)), ew.log(p))
    return ew.where(inside, ew.add(ew.subtract(rests, far), halves), ew.multiply(n, edge))


def _half_log(k: Tensor) -> Tensor:
    return ew.multiply(ew.log(ew.multiply(k, 2 * math.pi)), 0.5)


def _rest(k: Tensor) -> Tensor:
    """log k! - (k log k - k + log(2 pi k) / 2) for whole k >= 1."""
    table = as_tensor(np.array(_FIRST), "random")
    direct = apply(Op.GATHER, table, ew.cast(ew.minimum(k, len(_FIRST) - 1.0), int64), axis=0)
    inverse = ew.reciprocal(ew.maximum(k, 1.0))
    square = ew.multiply(inverse, inverse)
    series = ew.subtract(1 / 1260, ew.divide(square, 1680.0))
    series = ew.subtract(1 / 360, ew.multiply(square, series))
    series = ew.multiply(inverse, ew.subtract(1 / 12, ew.multiply(square, series)))
    return ew.where(ew.less(k, float(len(_FIRST))), direct, series)


def _deviance(k: Tensor, mean: Tensor) -> Tensor:
    """k log(k / mean) + mean - k for k >= 1."""
    away = ew.divide(ew.subtract(k, mean), mean)
    near = ew.subtract(ew.multiply(ew.add(away, 1.0), ew.log1p(away)), away)
    return ew.multiply(mean, near)
