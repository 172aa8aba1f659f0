"""Models that Python's operators say, whatever framework the arrays are from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def add_all(params: Sequence[Any], x: Any, y: Any) -> Any:
    """x + y and every parameter."""
    total = x + y
    for param in params:
        total = total + param
    return total


OPERATORS: dict[str, Any] = {
    "add_all": add_all,
    "product": lambda params, a, b: a @ b,
    "add": lambda params, x, y: x + y,
    "none": None,
}
