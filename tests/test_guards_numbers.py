"""Numbers of the run: they pass for the ints and floats that they are in eager code."""

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
}


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


def test_a_key_that_is_missing_is_named() -> None:
    table = {2: 1.0}
    with pytest.raises(KeyError, match=r"7"):
        ek.compile(lambda x, n: x * table[n])(X, 7)


def test_type_of_a_number_is_not_its_class() -> None:
    seen: list[Any] = []
    ek.compile(lambda x, n: seen.append(type(n)) or x * n)(X, 2.0)
    assert seen[0].__name__ == "Number"
