"""When a value is for a trace the one that it saw, and how it is kept in mind."""

from __future__ import annotations

import operator
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any

import numpy as np

PLAIN = (bool, int, float, complex, str, bytes, type(None))
NESTS = (list, tuple, dict, set, frozenset, deque, MappingProxyType)
ABSENT = object()
MOST_ITEMS = 4096  # items of a list or dict that are looked into
MOST_NESTED = 8  # levels of nests in an object that are looked into


def is_same(a: Any, b: Any) -> bool:
    """Whether a trace that read `a` would read the same from `b`."""
    return a is b or (type(a) is type(b) and isinstance(a, PLAIN) and repr(a) == repr(b))


def same(now: Any, then: Any) -> bool:
    """Whether two values that are not one object are equal for a trace: type and bits."""
    if type(now) is not type(then):
        return False
    if type(now) is tuple and len(now) == len(then):
        return all(a is b or same(a, b) for a, b in zip(now, then))
    if isinstance(now, np.generic):
        return now.dtype == then.dtype and now.tobytes() == then.tobytes()
    return is_same(now, then)


def bare(value: Any, name: str, default: Any = None) -> Any:
    """An attribute of an object of any class, without a `__getattr__` of the user."""
    find: Any = type(value).__getattribute__
    try:
        return (object.__getattribute__ if isinstance(find, FunctionType) else find)(value, name)
    except AttributeError:
        return default


def held(value: Any) -> Any:
    """A weak reference to an object, or itself where it has none or belongs to the program."""
    if isinstance(value, (*PLAIN, *NESTS, np.ndarray, ModuleType, type, ContextVar)):
        return value  # (an array that has weak references cannot be resized)
    try:
        return weakref.ref(value)
    except TypeError:
        return value


def target(value: Any) -> Any:
    """What is held."""
    return value() if type(value) is weakref.ref else value


def shown(value: Any) -> str:
    """A value, for people."""
    if isinstance(value, (*PLAIN, np.generic, tuple)):
        return repr(value)
    name = bare(value, "__qualname__") or bare(value, "__name__")
    return name if isinstance(name, str) else f"a {type(value).__name__}"


def contents(nest: Any) -> tuple[Any, ...]:
    """The items of a list or tuple, the keys and values of a dict."""
    if isinstance(nest, (dict, MappingProxyType)):
        return (*nest, *nest.values())
    return tuple(nest)


class Distinct(tuple[Any, ...]):
    """Items that are equal to themselves alone, or texts: tuples of them compare in C."""

    __slots__ = ()


def kept_contents(nest: Any) -> tuple[Any, ...]:
    """The contents of a nest, for `unchanged`."""
    items = contents(nest)
    return Distinct(items) if all(map(_is_distinct, items)) else items


def _is_distinct(x: Any) -> bool:
    kind: Any = type(x)
    return kind in (str, type(None)) or kind.__eq__ is object.__eq__


def unchanged(nest: Any, items: tuple[Any, ...]) -> bool:
    """Whether a nest holds these items still."""
    now = contents(nest)
    if type(items) is Distinct:
        try:
            return now == items
        except Exception:  # what is there now compares in its own way
            return False
    if len(now) != len(items):
        return False
    return all(map(operator.is_, now, items)) or all(map(is_same, now, items))


def holds_items(nests: Sequence[tuple[Any, tuple[Any, ...]]]) -> Callable[[], bool]:
    """Whether nests hold what they held, as a function.

    Args:
        nests: each with its `kept_contents`.
    """
    lists = [(nest, [*items]) for nest, items in nests if _compares_in_c(nest, items)]
    others = [(nest, items) for nest, items in nests if not _compares_in_c(nest, items)]

    def holds() -> bool:
        try:
            for nest, kept in lists:
                if nest != kept:
                    return False
        except Exception:  # what is there now compares in its own way
            return False
        for nest, items in others:
            if not unchanged(nest, items):
                return False
        return True

    return holds


def _compares_in_c(nest: Any, items: tuple[Any, ...]) -> bool:
    return type(nest) is list and type(items) is Distinct
