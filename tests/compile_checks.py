"""Shared by the tests of `compile`: eager against compiled, traces counted, state compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from same_bits import assert_same_bits, bits

import einkorn as ek


def traces(fn: Any) -> int:
    """How many traces a compiled function has."""
    return len(fn.explain().traces)


def state(*leaves: Any) -> list[Any]:
    """The bits of leaves, to compare with later ones."""
    return [bits(leaf.numpy()) for leaf in leaves]


def assert_same_nest(got: Any, want: Any) -> None:
    """The same structure, and the same bits at its ends."""
    a, b = ek.tree_leaves(got), ek.tree_leaves(want)
    assert len(a) == len(b)
    for x, y in zip(a, b):
        if isinstance(x, (ek.Tensor, np.ndarray)) or isinstance(y, ek.Tensor):
            assert_same_bits(np.asarray(x), np.asarray(y))
        else:
            assert type(x) is type(y)
            assert x == y


def both(fn: Callable[..., Any], *args: Any, leaves: Iterable[Any] = (), **kwargs: Any) -> Any:
    """What the compiled function gives; eager gives the same, and leaves the same in `leaves`."""
    compiled = fn if isinstance(fn, ek.Compiled) else ek.compile(fn)
    held = [leaf.numpy().copy() for leaf in leaves]
    with ek.eager():
        want = compiled(*args, **kwargs)
    after = state(*leaves)
    for leaf, value in zip(leaves, held):
        leaf.value = value
    got = compiled(*args, **kwargs)
    assert state(*leaves) == after
    assert_same_nest(got, want)
    return got
