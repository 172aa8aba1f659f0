"""Numbers of events: Poisson, binomial and multinomial, computed in float64.

Small means by inversion, with one uniform number and the probabilities added up in order; large
ones by transformed rejection (Hormann, "The transformed rejection method for generating Poisson
random variables" and "The generation of binomial random variates", 1993).
"""

from __future__ import annotations

import math
from typing import Any

from einkorn.control import scan, while_loop
from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.manipulation import expand_dims, flip, moveaxis, spread_to
from einkorn.functions.statistical import any as any_of
from einkorn.functions.statistical import cumulative_sum
from einkorn.ir.dtypes import float64, uint64
from einkorn.ir.errors import ShapeError
from einkorn.ir.ops import Op
from einkorn.random.generator import Key, drawing, inner_words, joined
from einkorn.random.parameters import (
    NOT_NEGATIVE,
    PROBABILITY,
    Shape,
    integer_dtype,
    lanes,
    read,
    unit,
)
from einkorn.random.probabilities import log_binomial, log_poisson
from einkorn.random.rounds import APART, in_rounds
from einkorn.recording import apply, scalar
from einkorn.tensor import Tensor

EDGE = 10.0  # the mean from which on rejection is used
MOST = 128  # a mean below EDGE gives more with a probability below 1e-80

_not = ew.bitwise_invert


def _both(first: Tensor, *rest: Tensor) -> Tensor:
    for x in rest:
        first = ew.bitwise_and(first, x)
    return first


def poisson(
    rate: Any, shape: Any = None, *, dtype: Any = "int64", key: Key | None = None
) -> Tensor:
    """Numbers of events with mean `rate`.

    What does not fit the dtype is its largest number. A rate that only a compiled step knows, and
    that is negative or NaN, gives -1 (0 in unsigned dtypes).
    """
    kind = integer_dtype("poisson", dtype)
    sizes, (mean,) = read("poisson", float64, shape, {"rate": (rate, NOT_NEGATIVE)}, 4)
    with drawing("poisson", key) as pair:
        (word,) = inner_words(pair)
    mean = spread_to(mean, sizes)
    usable = ew.greater_equal(mean, 0.0)
    large = _both(ew.greater_equal(mean, EDGE), ew.isfinite(mean))
    small = ew.where(ew.less(mean, EDGE), ew.maximum(mean, 0.0), 0.0)
    few = _searched(_one(word, sizes), ew.exp(ew.negative(small)), lambda k: ew.divide(small, k))
    many = _rejected_poisson(ew.where(large, mean, EDGE), word, _not(large))
    count = ew.where(large, many, ew.where(ew.equal(mean, math.inf), mean, few))
    return ew.cast(ew.where(usable, count, -1.0), kind)


def binomial(
    n: Any, p: Any, shape: Any = None, *, dtype: Any = "int64", key: Key | None = None
) -> Tensor:
    """How many of `n` trials succeed, each with probability `p`; n is at most 2**53.

    Parameters that only a compiled step knows, and that are out of range, give -1 (0 in unsigned
    dtypes).
    """
    kind = integer_dtype("binomial", dtype)
    parameters = {"n": (n, NOT_NEGATIVE), "p": (p, PROBABILITY)}
    sizes, (trials, chance) = read("binomial", float64, shape, parameters, 4)
    with drawing("binomial", key) as pair:
        (word,) = inner_words(pair)
    trials, chance = spread_to(ew.floor(trials), sizes), spread_to(chance, sizes)
    return ew.cast(_binomial(trials, chance, word), kind)


def _binomial(n: Tensor, p: Tensor, word: Tensor) -> Tensor:
    """Counts as float64 for n and p of one shape."""
    usable = _both(
        ew.greater_equal(n, 0.0), ew.isfinite(n), ew.greater_equal(p, 0.0), ew.less_equal(p, 1.0)
    )
    flips = ew.greater(p, 0.5)
    chance = ew.where(flips, ew.subtract(1.0, p), p)
    large = _both(usable, ew.greater_equal(ew.multiply(n, chance), EDGE))
    small = _both(usable, _not(large))
    trials, low = ew.where(small, n, 0.0), ew.where(small, chance, 0.0)
    odds = ew.divide(low, ew.subtract(1.0, low))
    first = ew.exp(ew.multiply(trials, ew.log1p(ew.negative(low))))

    def ratio(k: Tensor) -> Tensor:
        left = ew.maximum(ew.add(ew.subtract(trials, k), 1.0), 0.0)
        return ew.multiply(ew.divide(left, k), odds)

    few = ew.minimum(_searched(_one(word, n.shape), first, ratio), trials)
    many = _rejected_binomial(
        ew.where(large, n, 4 * EDGE), ew.where(large, chance, 0.5), word, _not(large)
    )
    count = ew.where(large, many, few)
    count = ew.where(flips, ew.subtract(n, count), count)
    return ew.where(usable, count, -1.0)


def multinomial(
    n: Any, p: Any, shape: Any = None, *, dtype: Any = "int64", key: Key | None = None
) -> Tensor:
    """How many of `n` trials fall into each class, of probabilities p [..., classes].

    Class after class is binomial among what is left. Probabilities are scaled to a sum of 1.

    Args:
        shape: of the result without its last axis; those of n and p broadcast to it.
    """
    what = "multinomial"
    chances = as_tensor(p, what)
    if not chances.ndim or not chances.shape[-1]:
        raise ShapeError(f"{what}: p has a last axis of probabilities, got {chances._type}")
    kind, classes = integer_dtype(what, dtype), chances.shape[-1]
    trials = expand_dims(as_tensor(n, what), axis=-1)
    full = None if shape is None else (*_listed(shape), classes)
    parameters = {
        "n": (trials.reshape(*trials.shape, 1), NOT_NEGATIVE),
        "p": (chances, PROBABILITY),
    }
    sizes, (left, chances) = read(what, float64, full, parameters, 4)
    with drawing(what, key) as pair:
        (word,) = inner_words(pair)
    chances = moveaxis(spread_to(chances, sizes), -1, 0)
    rest = flip(cumulative_sum(flip(chances, axis=0), axis=0), axis=0)
    shares = ew.where(ew.greater(rest, 0.0), ew.minimum(ew.divide(chances, rest), 1.0), 0.0)
    words = joined(apply(Op.RANDOM_BITS, word, scalar(uint64, APART), shape=(classes, 2)))

    def step(left: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        count = _binomial(left, x[0], x[1])
        return ew.subtract(left, ew.maximum(count, 0.0)), count

    first = spread_to(ew.floor(left.reshape(left.shape[:-1])), sizes[:-1])
    _, counts = scan(step, first, (shares, words))
    return ew.cast(moveaxis(counts, 0, -1), kind)


def _listed(shape: Any) -> tuple[Any, ...]:
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


# -- inversion -------------------------------------------------------------------------------------


def _one(word: Tensor, sizes: Shape) -> Tensor:
    (lane,) = lanes((word, scalar(uint64, APART)), sizes, 1, float64)
    return unit(lane, float64)


def _searched(u: Tensor, first: Tensor, ratio: Any) -> Tensor:
    """The least k with u < p[0] + ... + p[k], where p[k] = p[k-1] * ratio(k)."""

    def goes_on(state: Any) -> Tensor:
        k, _, total, _ = state
        return ew.bitwise_and(any_of(ew.greater_equal(u, total)), ew.less(k, float(MOST)))

    def step(state: Any) -> Any:
        k, chance, total, found = state
        further = ew.greater_equal(u, total)
        k = ew.add(k, 1.0)
        chance = ew.multiply(chance, ratio(k))
        found = ew.where(further, k, found)
        return k, chance, ew.where(further, ew.add(total, chance), total), found

    state = (scalar(float64, 0.0), first, first, ew.multiply(u, 0.0))
    return while_loop(goes_on, step, state)[3]


# -- transformed rejection -------------------------------------------------------------------------


def _hat(pair: Key, sizes: Shape, a: Tensor, b: Tensor, centre: Tensor) -> list[Tensor]:
    """A proposal k, v, and the edge distance of u from which both come."""
    first, second = lanes(pair, sizes, 2, float64)
    u = ew.subtract(unit(first, float64), 0.5)
    edge = ew.subtract(0.5, ew.abs(u))
    steep = ew.add(ew.divide(ew.multiply(a, 2.0), edge), b)
    return [ew.floor(ew.add(ew.multiply(steep, u), centre)), unit(second, float64), edge]


def _accepts(v: Tensor, edge: Tensor, a: Tensor, b: Tensor, scale: Tensor, logs: Tensor) -> Tensor:
    """log(v * scale / (a / edge**2 + b)) <= logs."""
    below = ew.add(ew.divide(a, ew.multiply(edge, edge)), b)
    return ew.less_equal(ew.log(ew.divide(ew.multiply(v, scale), below)), logs)


def _rejected_poisson(mean: Tensor, word: Tensor, done: Tensor) -> Tensor:
    """Algorithm PTRS, for means of at least 10."""
    b = ew.add(ew.multiply(ew.sqrt(mean), 2.53), 0.931)
    a = ew.subtract(ew.multiply(b, 0.02483), 0.059)
    scale = ew.add(ew.divide(1.1328, ew.subtract(b, 3.4)), 1.1239)
    quick = ew.subtract(0.9277, ew.divide(3.6224, ew.subtract(b, 2.0)))
    centre = ew.add(mean, 0.43)

    def propose(pair: Key) -> tuple[Tensor, Tensor]:
        k, v, edge = _hat(pair, mean.shape, a, b, centre)
        inside = ew.bitwise_and(ew.greater_equal(edge, 0.07), ew.less_equal(v, quick))
        possible = ew.greater_equal(k, 0.0)
        logs = log_poisson(ew.maximum(k, 0.0), mean)
        slow = ew.bitwise_and(possible, _accepts(v, edge, a, b, scale, logs))
        return k, ew.bitwise_or(inside, slow)

    return in_rounds(propose, word, mean, done)


def _rejected_binomial(n: Tensor, p: Tensor, word: Tensor, done: Tensor) -> Tensor:
    """Algorithm BTRS, for p <= 1/2 and n * p >= 10."""
    mean = ew.multiply(n, p)
    deviation = ew.sqrt(ew.multiply(mean, ew.subtract(1.0, p)))
    b = ew.add(ew.multiply(deviation, 2.53), 1.15)
    a = ew.add(ew.subtract(ew.multiply(b, 0.0248), 0.0873), ew.multiply(p, 0.01))
    scale = ew.multiply(ew.add(ew.divide(5.1, b), 2.83), deviation)
    quick = ew.subtract(0.92, ew.divide(4.2, b))
    centre = ew.add(mean, 0.5)
    mode = ew.floor(ew.multiply(ew.add(n, 1.0), p))
    highest = log_binomial(mode, n, p)

    def propose(pair: Key) -> tuple[Tensor, Tensor]:
        k, v, edge = _hat(pair, n.shape, a, b, centre)
        inside = ew.bitwise_and(ew.greater_equal(edge, 0.07), ew.less_equal(v, quick))
        possible = ew.bitwise_and(ew.greater_equal(k, 0.0), ew.less_equal(k, n))
        logs = ew.subtract(log_binomial(ew.where(possible, k, mode), n, p), highest)
        slow = ew.bitwise_and(possible, _accepts(v, edge, a, b, scale, logs))
        return k, ew.bitwise_or(inside, slow)

    return in_rounds(propose, word, mean, done)
