"""What a trace takes from Python is noticed when it changes; what is not noticed yet is marked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
SCALE = 2.0
TENSOR = ek.asarray(np.ones(4, np.float32))


def test_an_array_in_a_closure_is_read_at_each_call() -> None:
    array = np.ones(4, np.float32)
    step = ek.compile(lambda x: x + array)
    assert_same_bits(step(X).numpy(), X + 1)
    array[:] = 10
    assert_same_bits(step(X).numpy(), X + 10)


def test_whether_a_leaf_is_trained_is_noticed() -> None:
    w = ek.Parameter(X)
    step = ek.compile(lambda: (w * w).sum())
    for trainable in (True, False, True):
        w.trainable = trainable
        assert step().requires_grad is trainable


def test_a_number_in_a_closure() -> None:
    number = 2.0
    step = ek.compile(lambda x: x * number)
    step(X)
    number = 5.0
    assert_same_bits(step(X).numpy(), X * 5)


def test_a_global_number(monkeypatch: pytest.MonkeyPatch) -> None:
    step = ek.compile(lambda x: x * SCALE)
    step(X)
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    assert_same_bits(step(X).numpy(), X * 5)


def test_a_global_tensor_that_is_bound_again(monkeypatch: pytest.MonkeyPatch) -> None:
    step = ek.compile(lambda x: x * TENSOR)
    step(X)
    monkeypatch.setitem(globals(), "TENSOR", TENSOR * 3)
    assert_same_bits(step(X).numpy(), X * 3)


def test_an_attribute_of_an_object() -> None:
    holder = SimpleNamespace(number=2.0)
    step = ek.compile(lambda x: x * holder.number)
    step(X)
    holder.number = 5.0
    assert_same_bits(step(X).numpy(), X * 5)


def test_a_default_of_a_function() -> None:
    def scale(x: Any, by: float = 2.0) -> Any:
        return x * by

    step = ek.compile(lambda x: scale(x))
    step(X)
    scale.__defaults__ = (5.0,)
    assert_same_bits(step(X).numpy(), X * 5)


def test_random_numbers_of_numpy_are_refused() -> None:
    step = ek.compile(lambda x: x + np.random.rand(4).astype(np.float32))
    with pytest.raises(ek.TraceError, match=r"np\.random"):
        step(X)


@pytest.mark.xfail(strict=True, reason="run-time integers have no overflow status yet")
def test_integer_overflow_is_an_error() -> None:
    step = ek.compile(lambda n: n * n)
    assert step(1 << 20) == 1 << 40
    with pytest.raises(ek.EinkornError, match="overflow"):
        step(1 << 40)
