"""Numbers of the run: they pass for the ints and floats that they are in eager code."""

import math
import numbers
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek

X = np.ones(3, "float32")
NUMBERS = (2, 3, 2.5, 3.5, -0.0, True)


def kind_of(n: Any) -> int:
    match n:
        case bool():
            return 1
        case int():
            return 2
        case float():
            return 3
    return 4


WAYS = {
    "isinstance of int": lambda x, n: x * n if isinstance(n, int) else x + n,
    "isinstance of float": lambda x, n: x * n if isinstance(n, float) else x + n,
    "numbers.Real": lambda x, n: x * n if isinstance(n, numbers.Real) else x,
    "Tensor": lambda x, n: x if isinstance(n, ek.Tensor) else x * n,
    "match": lambda x, n: x * kind_of(n),
    "of a sum": lambda x, n: x * 2 if isinstance(n + 1, int) else x,
    "class": lambda x, n: x * 2 if n.__class__ is float else x,
    "dict": lambda x, n: x * {2: 5.0, 2.5: 7.0}.get(n, 1.0),
    "set": lambda x, n: x * (2 if n in {3, 3.5} else 1),
    "text": lambda x, n: x * len(str(n)),
    "format": lambda x, n: x * len(f"{n}"),
    "repr": lambda x, n: x * len(repr(n)),
    "list times": lambda x, n: x * len([0] * n) if n.__class__ is int else x,
    "times tuple": lambda x, n: x * len(n * (1, 2)) if n.__class__ is int else x,
    "divmod": lambda x, n: x * divmod(n, 2)[1] + divmod(7, n + 1)[0],
    "trunc": lambda x, n: x * math.trunc(n) + math.floor(n + 0.5) - math.ceil(n),
    "real": lambda x, n: x * n.real + n.imag,
    "ratio": lambda x, n: x * n.as_integer_ratio()[1],
    "hasattr": lambda x, n: x * 2 if hasattr(n, "hex") else x,
    "np.full": lambda x, n: x * np.full(3, n),
    "np.array": lambda x, n: x * np.array([n, 2, n]),
    "np.sqrt": lambda x, n: x * np.sqrt(abs(n)),
    "np.exp": lambda x, n: x * np.exp(n),
    "np.maximum": lambda x, n: x * np.maximum(n, 1),
    "np.clip": lambda x, n: x * np.clip(n, 0, 2.5),
    "np.where": lambda x, n: x * np.where(np.arange(3) > 1, n, 1),
    "floats times": lambda x, n: x * (np.ones(3, "float16") * n),
    "ints times": lambda x, n: x * (np.arange(3) * n),
    "ints by": lambda x, n: x * (np.arange(3) / (n + 1)),
    "floats above": lambda x, n: x * (np.ones(3) > n),
    "np.float32": lambda x, n: x * np.float32(n),
}


# Functions in which a number that was computed from one of the run decides something.
INNER = {
    "vmap": lambda x, n: ek.vmap(lambda x: x * 2 if n - 1 > 1 else x)(x),
    "scan": lambda x, n: ek.scan(lambda c, v: (c * int(n + 1), v * n), ek.asarray(0.5), x)[0],
    "cond": lambda x, n: ek.cond(x.sum() > 3, lambda: x * (n if n * 2 > 4 else 5), lambda: x),
    "checkpoint": lambda x, n: ek.checkpoint(lambda x: x if n - 1 > 1 else x * 2)(x),
    "compile": lambda x, n: ek.compile(lambda x, m: x if m - 1 > 1 else x * 2)(x, n + 1),
    "twice": lambda x, n: ek.vmap(lambda x: ek.checkpoint(lambda x: x * len(str(n * 2)))(x))(x),
}


@pytest.mark.parametrize("way", INNER)
def test_a_computed_number_decides_in_functions_inside(way: str) -> None:
    fn = INNER[way]
    step = ek.compile(fn, on_retrace="allow")
    for number in NUMBERS:
        with ek.eager():
            want = fn(ek.asarray(X), number)
        assert_same_bits(np.asarray(step(X, number)), np.asarray(want))


def test_a_compiled_function_hands_its_number_to_another() -> None:
    inner = ek.compile(lambda x, rate: x * rate)
    step = ek.compile(lambda x, rate: inner(inner(x, rate), rate * 2), on_retrace="error")
    for rate in (0.5, 1.5, 2.5):
        assert_same_bits(np.asarray(step(X, rate)), X * np.float32(rate) * np.float32(2 * rate))


@pytest.mark.parametrize("way", WAYS)
def test_what_python_makes_of_a_number(way: str) -> None:
    fn = WAYS[way]
    step = ek.compile(fn, on_retrace="allow")
    for number in NUMBERS:
        with ek.eager():
            want = fn(ek.asarray(X), number)
        assert_same_bits(np.asarray(step(X, number)), np.asarray(want))


def test_looking_at_the_kind_needs_no_value() -> None:
    step = ek.compile(lambda x, n: x * n if isinstance(n, float) else x)
    for number in (0.5, 1.5, 2.5):
        step(X, number)
    assert len(step.explain().traces) == 1


def test_arrays_of_floats_times_a_number_need_no_value() -> None:
    step = ek.compile(lambda x, n: x * (np.arange(3.0) * n) * np.size(n))
    for number in (0.5, 1.5, 2.5):
        step(X, number)
    assert len(step.explain().traces) == 1


def test_floors_of_large_ints_are_exact() -> None:
    large = 2**60 + 1
    step = ek.compile(lambda x, n: (x * 0, math.floor(n) - large, math.ceil(n) - large))
    assert step(X, large)[1:] == (0, 0)


def test_asking_for_what_a_number_has_not_needs_no_value() -> None:
    step = ek.compile(lambda x, n: x * n if not hasattr(n, "shaped") else x)
    for number in (1, 2, 3):
        step(X, number)
    assert len(step.explain().traces) == 1
    with pytest.raises(AttributeError, match="'float' object has no attribute 'shaped'"):
        ek.compile(lambda x, n: n.shaped)(X, 2.0)


def test_a_key_that_is_missing_is_named() -> None:
    table = {2: 1.0}
    with pytest.raises(KeyError, match=r"7"):
        ek.compile(lambda x, n: x * table[n])(X, 7)


def test_type_of_a_number_is_not_its_class() -> None:
    seen: list[Any] = []
    ek.compile(lambda x, n: seen.append(type(n)) or x * n)(X, 2.0)
    assert seen[0].__name__ == "Number"
