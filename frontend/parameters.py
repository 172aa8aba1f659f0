"""What a function that is compiled says of itself: its parameters, and whether it can be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def labels_of(fn: Callable[..., Any]) -> list[str]:
    """What the arguments of a function are called: those of a Module as `forward` calls them.

    What takes any number of arguments has a star in front.
    """
    forward = getattr(fn, "forward", None)
    if not inspect.isroutine(fn) and callable(forward):
        fn = forward
    try:
        found = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return []
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [stars.get(x.kind, "") + x.name for x in found]


def parameters_of(fn: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, in order; none for one without a signature."""
    try:
        return list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return []


def is_suspended(fn: Any) -> bool:
    """Whether a call of a function runs nothing yet: a generator or a coroutine."""
    return (
        inspect.iscoroutinefunction(fn)
        or inspect.isgeneratorfunction(fn)
        or inspect.isasyncgenfunction(fn)
    )
