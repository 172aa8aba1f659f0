"""Random orders and samples of what is there: permutation, shuffle, choice."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from einkorn.convert import as_flag, as_int, as_tensor, normal_axis
from einkorn.functions import elementwise as ew
from einkorn.functions.creation import arange
from einkorn.functions.indexing import take, take_along_axis
from einkorn.functions.manipulation import as_sizes, moveaxis
from einkorn.functions.searching import searchsorted
from einkorn.functions.sorting import argsort, topk
from einkorn.functions.statistical import cumulative_sum
from einkorn.ir.dtypes import float64, uint64
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.ir.ops import Op
from einkorn.random.continuous import gumbel_of
from einkorn.random.discrete import randint
from einkorn.random.generator import Key, drawing, joined
from einkorn.random.parameters import PROBABILITY, Shape, lanes, shape_of, unit
from einkorn.recording import apply, current_trace
from einkorn.tensor import Tensor

MSG_MANY = (
    "choice: {count} of {n} cannot be drawn without replacement; draw fewer, or give replace=True"
)
MSG_FEW = (
    "choice: {count} cannot be drawn without replacement where {n} of the probabilities are not 0"
)


def permutation(
    x: Any, axis: int = 0, *, independent: bool = False, key: Key | None = None
) -> Tensor:
    """The numbers 0 to x - 1 in random order, or the parts of `x` along an axis.

    All orders are equally likely, up to equal words among those of 64 bits that are sorted.

    Args:
        x: an int, or a tensor.
        independent: whether each row along the axis gets an order of its own.
    """
    return _permuted("permutation", x, axis, independent, key)


def shuffle(x: Any, axis: int = 0, *, independent: bool = False, key: Key | None = None) -> Tensor:
    """The parts of a tensor along an axis in random order: `permutation` for tensors only.

    Tensors do not change, so it gives a new one.
    """
    if not hasattr(x, "shape") and not isinstance(x, (list, tuple)):
        raise DTypeError(f"shuffle: needs a tensor, got {x!r}; use permutation for 0, 1, ..., n-1")
    return _permuted("shuffle", as_tensor(x, "shuffle"), axis, independent, key)


def _permuted(what: str, x: Any, axis: int, independent: bool, key: Key | None) -> Tensor:
    as_flag(what, "independent", independent)
    if isinstance(x, int) and not isinstance(x, bool):
        as_sizes(what, (x, 2), uint64)
        with drawing(what, key) as pair:
            return _orders(pair, (x,))
    tensor = as_tensor(x, what)
    if not tensor.ndim:
        raise ShapeError(f"{what}: needs an int or a tensor with an axis, got {tensor._type}")
    place = normal_axis(what, axis, tensor.ndim)
    with drawing(what, key) as pair:
        if not independent:
            return take(tensor, _orders(pair, (tensor.shape[place],)), axis=place)
        rows = (*(n for k, n in enumerate(tensor.shape) if k != place), tensor.shape[place])
        orders = moveaxis(_orders(pair, shape_of(what, rows)), -1, place)
        return take_along_axis(tensor, orders, axis=place)


def _orders(pair: Key, shape: Shape) -> Tensor:
    """Random orders of the last axis."""
    return argsort(joined(apply(Op.RANDOM_BITS, *pair, shape=(*shape, 2))), axis=-1)


def choice(
    a: Any,
    shape: Any = (),
    replace: bool = True,
    p: Any = None,
    axis: int = 0,
    *,
    key: Key | None = None,
) -> Tensor:
    """Parts of `a` along an axis, drawn at random.

    Args:
        a: a tensor, or an int for the numbers 0 to a - 1.
        shape: takes the place of the axis.
        replace: whether a part may be drawn more than once.
        p: the probability of each part, scaled to a sum of 1; equal ones by default. Without
            replacement each is drawn among what is left (Efraimidis & Spirakis, 2006).
    """
    what = "choice"
    parts = arange(as_int(what, a)) if _is_number(a) else as_tensor(a, what)
    if not parts.ndim:
        raise ShapeError(f"{what}: needs an int or a tensor with an axis, got {parts._type}")
    place = normal_axis(what, axis, parts.ndim)
    n, sizes = parts.shape[place], shape_of(what, shape)
    count = prod(sizes)
    chances = None if p is None else _chances(p, n, count, replace)
    if not as_flag(what, "replace", replace) and count > n:
        raise EinkornError(MSG_MANY.format(count=count, n=n))
    if replace and not n:
        raise EinkornError(f"{what}: there is nothing to choose from in {parts._type}")
    return take(parts, _chosen(n, sizes, count, replace, chances, key), axis=place)


def _is_number(a: Any) -> bool:
    return not hasattr(a, "shape") and not isinstance(a, (list, tuple))


def _chances(p: Any, n: int, count: int, replace: bool) -> Tensor:
    """The probabilities, checked where they are known."""
    chances = as_tensor(p, "choice")
    if chances.shape != (n,):
        raise ShapeError(
            f"choice: p has one probability for each of {n} parts, got {chances._type}"
        )
    PROBABILITY.check("choice", "p", chances)
    known = chances._array
    if known is not None and current_trace.get() is None and count:
        positive = int(np.count_nonzero(known))
        if not positive:
            raise EinkornError("choice: one of the probabilities must be above 0")
        if not replace and positive < count:
            raise EinkornError(MSG_FEW.format(count=count, n=positive))
    return ew.cast(chances, float64)


def _chosen(
    n: int, sizes: Shape, count: int, replace: bool, p: Tensor | None, key: Key | None
) -> Tensor:
    """The positions that are drawn."""
    if replace and p is None:
        return randint(0, n, sizes, key=key)
    with drawing("choice", key) as pair:
        if p is None:
            return _orders(pair, (n,))[:count].reshape(sizes)
        if not replace:
            (lane,) = lanes(pair, (n,), 1, float64)
            return topk(ew.add(ew.log(p), gumbel_of(lane, float64)), count).indices.reshape(sizes)
        totals = cumulative_sum(p)
        (lane,) = lanes(pair, sizes, 1, float64)
        # Rounding must not reach the total: beyond it there is no part.
        point = ew.multiply(unit(lane, float64), totals[-1])
        last = ew.minimum(searchsorted(totals, totals[-1:])[0], n - 1)
        return ew.minimum(searchsorted(totals, point, side="right"), last)
