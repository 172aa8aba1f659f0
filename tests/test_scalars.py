"""Run-time scalars: numbers as arguments of compiled functions mean what they mean eagerly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einkorn as ek

X = np.array([1.0, 2.0, 3.0], np.float32)
BYTES = np.array([1, 2], np.uint8)
NUMBERS = (0.3, 2.5, -1.0, 300.0, 3, 300, -1, 2**62)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives or raises, to compare."""
    ek.random.seed(0)
    try:
        return described(call())
    except (ek.EinkornError, ArithmeticError, TypeError, ValueError) as error:
        return type(error)


def described(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [described(x) for x in value]
    if isinstance(value, ek.Tensor):
        array = np.asarray(value)
        return value.dtype.name, array.shape, array.tobytes()
    return type(value), repr(value)


def check(function: Callable[[Any], Any], number: Any) -> None:
    eager = outcome(lambda: function(number))
    assert outcome(lambda: ek.compile(function)(number)) == eager


@pytest.mark.parametrize(
    "function",
    [
        ek.reciprocal,
        ek.abs,
        ek.negative,
        ek.positive,
        ek.floor,
        ek.square,
        ek.exp,
        ek.sign,
        ek.isnan,
        ek.logical_not,
        ek.mean,
        ek.asarray,
        lambda a: ek.asarray(a, dtype="uint8"),
        lambda a: ek.astype(a, "int32"),
        lambda a: ek.asarray([a, 2]),
        lambda a: ek.stack([a, a]),
        lambda a: ek.add(a, 0.5),
        lambda a: ek.multiply(a, 4),
        lambda a: ek.divide(a, 2),
        lambda a: ek.maximum(a, 2),
        lambda a: ek.equal(a, 2.5),
        lambda a: ek.floor_divide(a, 2),
        lambda a: ek.remainder(a, 2),
        lambda a: ek.pow(a, 2),
        lambda a: ek.where(True, a, 2),
        lambda a: ek.clip(X, a, a),
        lambda a: ek.full((2,), a),
        lambda a: ek.full((2,), a, dtype="uint8"),
    ],
)
def test_functions_take_them_as_python_numbers(function: Callable[[Any], Any]) -> None:
    for number in NUMBERS:
        check(function, number)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: a * 2,
        lambda a: -a,
        lambda a: +a,
        lambda a: abs(a),
        lambda a: a + a,
        lambda a: a - 0.1,
        lambda a: a / 3,
        lambda a: 1 / a,
        lambda a: a // 2,
        lambda a: a % 2,
        lambda a: a**2,
        lambda a: a * 4 * 0.1,
        lambda a: a < 1,
        lambda a: a == 3,
        lambda a: 0.1 if a else 0.2,
        round,
        lambda a: round(a, 1),
        lambda a: float(a).is_integer(),
        lambda a: f"{a}",
        lambda a: f"{a:.2f}",
        lambda a: sum([a, a]),
    ],
)
def test_operators_are_python_arithmetic(function: Callable[[Any], Any]) -> None:
    for number in NUMBERS:
        check(function, number)


@pytest.mark.parametrize(
    "function",
    [
        lambda n: n & 1,
        lambda n: n >> 1,
        lambda n: ~n,
        lambda n: n * 4,
        lambda n: n * n,
        lambda n: ek.bitwise_and(n, 1),
        lambda n: ek.asarray(BYTES) + n,
        lambda n: n * ek.asarray(BYTES),
        lambda n: ek.asarray(BYTES) < n,
        lambda n: ek.asarray(BYTES) << n,
        lambda n: ek.asarray(BYTES) ** n,
        lambda n: ek.asarray(BYTES).at[0].set(n),
        lambda n: ek.asarray(X) ** n,
    ],
)
def test_integers_are_checked_as_in_eager_mode(function: Callable[[Any], Any]) -> None:
    for number in (1, 2, 255, 256, 300, -1, 2**62, -(2**63)):
        check(function, number)


def test_a_number_that_does_not_fit_is_refused_and_not_wrapped() -> None:
    add = ek.compile(lambda x, n: x + n)
    with pytest.raises(ek.DTypeError, match="300 does not fit uint8"):
        add(BYTES, 300)
    np.testing.assert_array_equal(np.asarray(add(BYTES, 3)), BYTES + np.uint8(3))
    with pytest.raises(ek.DTypeError, match="300 does not fit uint8"):
        add(BYTES, 300)


def test_products_of_integers_do_not_wrap() -> None:
    assert ek.compile(lambda a, b: a * b)(2**62, 4) == 2**64


@pytest.mark.parametrize(
    "function",
    [
        lambda n: ek.pad(X, n),
        lambda n: ek.pad(X, (n, 0)),
        lambda n: ek.repeat(X, n),
        lambda n: ek.repeat(X, [n, n, 1]),
        lambda n: ek.tile(X, n),
        lambda n: ek.roll(X, n),
        lambda n: ek.arange(n),
        lambda n: ek.arange(n / 2),
        lambda n: ek.linspace(0, n, 5),
        lambda n: ek.linspace(0, 1, n),
        lambda n: ek.eye(n),
        lambda n: ek.eye(3, k=n),
        lambda n: ek.sum(X, axis=n - 1),
        lambda n: ek.asarray(X) + [n, n, n],
        lambda n: ek.asarray(X) + [n / 2, n, 1],
        lambda n: ek.var(X, correction=n),
        lambda n: ek.asarray(X)[:n],
        lambda n: ek.random.uniform((2,), key=ek.random.key(n)),
        lambda n: ek.random.uniform((2,), key=ek.random.fold_in(ek.random.key(1), n)),
        lambda n: ek.random.uniform((2,), 0.0, n, key=ek.random.key(1)) if n > 0 else n,
        lambda n: ek.random.randint(0, n, (3,), key=ek.random.key(1)),
        lambda n: (ek.random.seed(n), ek.random.uniform((2,)))[1],
    ],
)
def test_where_a_python_number_is_needed(function: Callable[[Any], Any]) -> None:
    for number in (1, 2, 5, -1):
        check(function, number)


def test_float_arithmetic_does_not_retrace() -> None:
    traces = []

    def scaled(x: Any, a: Any, n: Any) -> Any:
        traces.append(type(a))
        return x * (a * 0.1 + n) / -a

    step = ek.compile(scaled)
    for a, n in ((0.3, 1), (0.7, 2), (1.9, 5)):
        want = scaled(ek.asarray(X), a, n)
        np.testing.assert_array_equal(np.asarray(step(X, a, n)), np.asarray(want))
    assert sum(kind is not float for kind in traces) == 1


def test_a_probability_of_the_run_is_clamped() -> None:
    drawn = ek.compile(lambda p: ek.random.bernoulli(p, (64,)))
    assert np.asarray(drawn(1.7)).all()
    assert not np.asarray(drawn(-0.5)).any()
