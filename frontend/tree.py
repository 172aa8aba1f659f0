"""Nested structures: tuples, lists, dicts, dataclasses and Containers with anything at the ends."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from einkorn.container import Container
from einkorn.ir.dtypes import DType
from einkorn.ir.errors import EinkornError
from einkorn.ir.types import TensorType
from einkorn.recording import Value

# The hashable shape of a structure: a kind, its class, its keys, what else rebuilds it, and the
# shapes inside.
Structure = tuple[Any, ...]
END: Structure = ("end",)

MSG_DEEP = (
    "a nested {kind} contains itself, or is nested too deeply; arguments, results and trees are "
    "finite nests of tuples, lists, dicts and dataclasses"
)


def flatten(nest: Any) -> tuple[list[Any], Structure]:
    """The ends of a nest, in order, and the structure that `unflatten` rebuilds it from."""
    ends: list[Any] = []
    try:
        return ends, _flatten(nest, ends)
    except RecursionError:
        raise EinkornError(MSG_DEEP.format(kind=type(nest).__name__)) from None


def _flatten(nest: Any, ends: list[Any]) -> Structure:
    kind = type(nest)
    if kind in (list, tuple):
        return (kind.__name__, kind, None, None, *[_flatten(item, ends) for item in nest])
    if isinstance(nest, dict):
        keys = tuple(nest)
        more = _dict_attributes(nest)
        inside = [_flatten(x, ends) for x in (*dict.values(nest), *more.values())]
        factory = nest.default_factory if isinstance(nest, defaultdict) else None
        return ("dict", kind, (*keys, *more), (len(keys), factory), *inside)
    if isinstance(nest, tuple) and hasattr(kind, "_fields"):
        return ("named", kind, None, None, *[_flatten(item, ends) for item in nest])
    if is_plain_dataclass(nest):
        attributes = _attributes(nest)
        inside = [_flatten(x, ends) for x in attributes.values()]
        return ("dataclass", kind, tuple(attributes), None, *inside)
    ends.append(nest)
    return END


def is_plain_dataclass(x: Any) -> bool:
    """Whether `x` is a dataclass that is nothing but data: no Module, no tensor, no dtype."""
    return (
        dataclasses.is_dataclass(x)
        and not isinstance(x, (type, Value, DType, TensorType))
        and not hasattr(x, "_gradient_targets")
    )


def _attributes(nest: Any) -> dict[str, Any]:
    """All that a dataclass holds: its fields, then what was set besides."""
    names = [field.name for field in dataclasses.fields(nest)]
    found = {name: getattr(nest, name) for name in names if hasattr(nest, name)}
    return {**found, **getattr(nest, "__dict__", {})}


def _dict_attributes(nest: dict[Any, Any]) -> dict[str, Any]:
    """What an object of a dict's subclass holds besides its items."""
    return {} if isinstance(nest, Container) else getattr(nest, "__dict__", {})


def unflatten(structure: Structure, ends: Iterable[Any]) -> Any:
    """The nest of a structure with new ends."""
    return _unflatten(structure, iter(ends))


def _unflatten(structure: Structure, ends: Any) -> Any:
    if structure == END:
        return next(ends)
    name, kind, keys, more, *inside = structure
    items = [_unflatten(part, ends) for part in inside]
    if name == "dict":
        return _dict(kind, keys, items, *more)
    if name == "dataclass":
        return _with_attributes(object.__new__(kind), keys, items)
    return tuple.__new__(kind, items) if name == "named" else kind(items)


def _dict(kind: Any, keys: Sequence[Any], items: Sequence[Any], count: int, factory: Any) -> Any:
    """A dict of `count` items; keys and items after those are attributes."""
    if kind is dict or issubclass(kind, Container):
        return kind(zip(keys, items))
    rebuilt = _with_attributes(kind.__new__(kind), keys[count:], items[count:])
    if factory is not None:
        rebuilt.default_factory = factory
    for key, item in zip(keys[:count], items):
        rebuilt[key] = item
    return rebuilt


def _with_attributes(rebuilt: Any, names: Iterable[str], values: Iterable[Any]) -> Any:
    """The object with its attributes, set without a call of the class's own code."""
    for name, value in zip(names, values):
        object.__setattr__(rebuilt, name, value)
    return rebuilt


def paths(structure: Structure) -> list[tuple[Any, ...]]:
    """For each end of a structure the keys and positions that lead to it."""
    if structure == END:
        return [()]
    keys = structure[2] or range(len(structure) - 4)
    return [(key, *rest) for key, part in zip(keys, structure[4:]) for rest in paths(part)]


def tree_leaves(nest: Any) -> list[Any]:
    """The ends of a nest, in order."""
    return flatten(nest)[0]


def tree_map(fn: Callable[..., Any], nest: Any, *rest: Any) -> Any:
    """Apply `fn` to the ends of one nest, or to the ends of several of one structure.

    Raises:
        EinkornError: the structures differ.
    """
    if not callable(fn):
        raise EinkornError(
            f"tree_map takes a function and then the nests, got {type(fn).__name__} as the function"
        )
    ends, structure = flatten(nest)
    columns: list[Sequence[Any]] = [ends]
    for other in rest:
        other_ends, other_structure = flatten(other)
        if not alike(structure, other_structure):
            raise EinkornError(
                f"tree_map: the structures differ at {difference(structure, other_structure)}: "
                f"{describe(structure)} and {describe(other_structure)}"
            )
        columns.append(other_ends)
    return unflatten(structure, [fn(*row) for row in zip(*columns)])


def tree_map_with_path(fn: Callable[..., Any], nest: Any, *rest: Any) -> Any:
    """Apply `fn(path, end, ...)` to the ends; a path is text such as "layers/0/w"."""
    if not callable(fn):
        raise EinkornError(f"tree_map_with_path takes a function first, got {type(fn).__name__}")
    named = iter(["/".join(map(str, path)) for path in paths(flatten(nest)[1])])
    return tree_map(lambda *ends: fn(next(named), *ends), nest, *rest)


def tree_reduce(fn: Callable[[Any, Any], Any], nest: Any, *initial: Any) -> Any:
    """Combine the ends from the first to the last: `fn(fn(a, b), c)`.

    Args:
        initial: what stands before the first end; needed when there are no ends.
    """
    ends = tree_leaves(nest)
    if not ends and not initial:
        raise EinkornError("tree_reduce: there are no ends and no initial value")
    return functools.reduce(fn, ends, *initial)


def alike(a: Structure, b: Structure) -> bool:
    """Whether two structures have the same nesting and keys, whatever their dict classes."""
    if a[0] != b[0] or len(a) != len(b):
        return False
    if a == END:
        return True
    return a[2] == b[2] and all(map(alike, a[4:], b[4:]))


def difference(a: Structure, b: Structure, path: str = "") -> str:
    """The path at which two structures that are not alike differ first, and how."""
    where = repr(path) if path else "the top"
    if a[0] != b[0]:
        kinds = ["an end" if part == END else f"a {part[1].__name__}" for part in (a, b)]
        return f"{where} ({kinds[0]} and {kinds[1]})"
    first, second = [part[2] or range(len(part) - 4) for part in (a, b)]
    for key, part in zip(first, a[4:]):
        if key not in second:
            return f"{_join(path, key)!r} (the second has none)"
        other = b[4 + list(second).index(key)]
        if not alike(part, other):
            return difference(part, other, _join(path, key))
    extra = [key for key in second if key not in first]
    return f"{_join(path, extra[0])!r} (the first has none)" if extra else f"{where} (key order)"


def _join(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)


def describe(structure: Structure) -> str:
    """A structure for people: (*, {a: *, b: [*]})."""
    if structure == END:
        return "*"
    name, kind, keys, _, *inside = structure
    parts = [describe(part) for part in inside]
    if name == "dict":
        return "{" + ", ".join(f"{key}: {part}" for key, part in zip(keys, parts)) + "}"
    if name == "list":
        return f"[{', '.join(parts)}]"
    joined = ", ".join(parts)
    return f"({joined})" if name == "tuple" else f"{kind.__name__}({joined})"
