"""Shared by the tests of transforms: random arrays, and one function in three modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from same_bits import assert_same_bits

import einkorn as ek

RNG = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


def normal(*shape: int) -> Array:
    """Normal float64 numbers, others at each call."""
    return np.asarray(RNG.standard_normal(shape))


def ends(nest: Any) -> list[Array]:
    """The ends of a nest as arrays."""
    return [np.asarray(x) for x in ek.tree_leaves(nest)]


def same(fn: Callable[..., Any], *args: Any) -> list[Array]:
    """`fn` gives the same bits eagerly, compiled, and compiled under `ek.eager()`."""
    want = ends(fn(*args))
    compiled = ek.compile(fn)
    with ek.eager():
        found = [ends(compiled(*args))]
    found.append(ends(compiled(*args)))
    for got in found:
        for a, b in zip(got, want, strict=True):
            assert_same_bits(a, b)
    return want
