"""What a trace takes from Python is noticed when it changes; what is not noticed yet is marked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from compile_checks import both
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


EDGES = (0, 1, -1, 2, 3, 1 << 31, -(1 << 31), 3037000499, 3037000500, (1 << 62) + 1)
EDGES += ((1 << 63) - 1, -(1 << 63), 1 - (1 << 63))

INTEGERS: dict[str, Any] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "negative": lambda a, b: -a,
}


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_those_of_python(name: str) -> None:
    fn = INTEGERS[name]
    step = ek.compile(fn, on_retrace="allow", max_traces=64)
    large = 0
    for a in EDGES:
        for b in EDGES:
            want = fn(a, b)
            large += not -(1 << 63) <= want < 1 << 63
            assert step(a, b) == want
    assert step.explain().made <= 1 + large


def test_integers_of_the_run_meet_tensors_and_shapes() -> None:
    w = ek.tensor(X, trainable=False)

    @ek.compile
    def step(n: int, m: int) -> Any:
        w.value = w + 1
        return w * (n + 1) - m * n * 2

    for n in range(1, 6):
        before = w.numpy().copy()
        assert_same_bits(step(n, 3).numpy(), (before + 1) * (n + 1) - 6 * n)
    assert len(step.explain().traces) == 1
    both(step, 1 << 40, 1 << 40, leaves=[w])  # a product that only Python's integers hold
    both(step, 5, 7, leaves=[w])
    assert len(step.explain().traces) == 2
    rows = ek.compile(lambda x, n: x.reshape(n * 2, -1), on_retrace="allow")
    assert rows(X, 1).shape == (2, 6)
    assert rows(X, 2).shape == (4, 3)
