"""Programs that read something, and what changes it: compiled as eager, before and after."""

from collections.abc import Callable
from typing import Any

import numpy as np
from same_bits import assert_same_bits

import einkorn as ek

Case = tuple[Callable[[Any], Any], Callable[[], Any]]  # a function, and what changes what it reads

X = np.ones(3, "float32")


def setting(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """What sets an attribute when it is called."""
    return lambda: setattr(owner, name, value)


def check(case: Callable[[], Case]) -> None:
    """A compiled function gives what it gives eagerly, also after the change."""
    fn, change = case()
    step = ek.compile(fn, on_retrace="allow")
    step(X)
    change()
    got = step(X)
    with ek.eager():
        want = fn(X)
    assert_same_bits(np.asarray(got), np.asarray(want))
