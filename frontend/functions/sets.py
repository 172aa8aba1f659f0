"""Distinct values. How many there are depends on the values, so these are for eager code only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from einkorn.convert import as_tensor
from einkorn.functions.indexing import take
from einkorn.functions.manipulation import flatten
from einkorn.ir.errors import TraceError
from einkorn.recording import current_trace

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

MSG_UNIQUE = (
    "{what}: the size of the result depends on the values, which only exist when {trace} "
    "(compiled) runs; use ek.sort(ek.flatten(x)) and compare neighbours to keep the shape, call "
    "{what} outside of the compiled function, or run it under `with ek.eager():`"
)


class UniqueAll(NamedTuple):
    """What `unique_all` gives.

    Attributes:
        values: the distinct values.
        indices: where each occurs first in the flattened tensor.
        inverse_indices: for each element of the tensor its place in `values`.
        counts: how often each value occurs.
    """

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """What `unique_counts` gives: the distinct values and how often each occurs."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """What `unique_inverse` gives: the distinct values and each element's place in them."""

    values: Tensor
    inverse_indices: Tensor


def unique_all(x: Any, /) -> UniqueAll:
    """The distinct values in ascending order, and where and how often they occur.

    Every NaN is a value of its own; -0.0 and 0.0 are one, shown as the first of them.
    """
    return _unique("unique_all", x)


def unique_counts(x: Any, /) -> UniqueCounts:
    """The distinct values in ascending order and how often each occurs."""
    found = _unique("unique_counts", x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Any, /) -> UniqueInverse:
    """The distinct values in ascending order and for each element its place among them."""
    found = _unique("unique_inverse", x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: Any, /) -> Tensor:
    """The distinct values in ascending order."""
    return _unique("unique_values", x).values


def _unique(what: str, x: Any) -> UniqueAll:
    tensor = as_tensor(x, what)
    if (trace := current_trace.get()) is not None:
        raise TraceError(MSG_UNIQUE.format(what=what, trace=trace.name))
    array = tensor._eager()
    # Types that NumPy does not know itself have an order of their own; float32 holds all of them.
    wide = array if array.dtype.isbuiltin == 1 else array.astype(np.float32)
    _, first, places, counts = np.unique(
        wide.reshape(-1), return_index=True, return_inverse=True, return_counts=True,
        equal_nan=False,
    )  # fmt: skip
    indices, inverse, counts = (
        as_tensor(found.astype(np.int64), what)
        for found in (first, places.reshape(tensor.shape), counts)
    )
    return UniqueAll(take(flatten(tensor), indices), indices, inverse, counts)
