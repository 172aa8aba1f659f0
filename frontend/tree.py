"""Nested structures: tuples, lists, dicts, dataclasses and Containers with anything at the ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from einkorn.ir.errors import EinkornError

# The hashable shape of a structure: a kind, what rebuilds it, and the shapes inside.
Structure = tuple[Any, ...]
END: Structure = ("end",)


def flatten(nest: Any) -> tuple[list[Any], Structure]:
    """The ends of a nest, in order, and the structure that `unflatten` rebuilds it from."""
    ends: list[Any] = []
    return ends, _flatten(nest, ends)


def _flatten(nest: Any, ends: list[Any]) -> Structure:
    kind = type(nest)
    if isinstance(nest, dict):
        keys = tuple(nest)
        return ("dict", kind, keys, *(_flatten(nest[key], ends) for key in keys))
    if kind in (list, tuple):
        return (kind.__name__, kind, None, *(_flatten(item, ends) for item in nest))
    if isinstance(nest, tuple) and hasattr(kind, "_fields"):
        return ("named", kind, None, *(_flatten(item, ends) for item in nest))
    if dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        names = tuple(field.name for field in dataclasses.fields(nest) if field.init)
        inside = (_flatten(getattr(nest, name), ends) for name in names)
        return ("dataclass", kind, names, *inside)
    ends.append(nest)
    return END


def unflatten(structure: Structure, ends: Iterable[Any]) -> Any:
    """The nest of a structure with new ends."""
    return _unflatten(structure, iter(ends))


def _unflatten(structure: Structure, ends: Any) -> Any:
    if structure == END:
        return next(ends)
    name, kind, keys, *inside = structure
    items = [_unflatten(part, ends) for part in inside]
    if name == "dict":
        return kind(zip(keys, items))
    if name == "dataclass":
        return kind(**dict(zip(keys, items)))
    return kind(*items) if name == "named" else kind(items)


def paths(structure: Structure) -> list[tuple[Any, ...]]:
    """For each end of a structure the keys and positions that lead to it."""
    if structure == END:
        return [()]
    keys = structure[2] or range(len(structure) - 3)
    return [(key, *rest) for key, part in zip(keys, structure[3:]) for rest in paths(part)]


def tree_leaves(nest: Any) -> list[Any]:
    """The ends of a nest, in order."""
    return flatten(nest)[0]


def tree_map(fn: Callable[..., Any], nest: Any, *rest: Any) -> Any:
    """Apply `fn` to the ends of one nest, or to the ends of several of one structure.

    Raises:
        EinkornError: the structures differ.
    """
    ends, structure = flatten(nest)
    columns: list[Sequence[Any]] = [ends]
    for other in rest:
        other_ends, other_structure = flatten(other)
        if not _alike(structure, other_structure):
            raise EinkornError(
                "tree_map: the structures differ: "
                f"{describe(structure)} and {describe(other_structure)}"
            )
        columns.append(other_ends)
    return unflatten(structure, [fn(*row) for row in zip(*columns)])


def _alike(a: Structure, b: Structure) -> bool:
    """Whether two structures have the same nesting and keys, whatever their dict classes."""
    if a[0] != b[0] or len(a) != len(b):
        return False
    if a == END:
        return True
    return a[2] == b[2] and all(map(_alike, a[3:], b[3:]))


def describe(structure: Structure) -> str:
    """A structure for people: (*, {a: *, b: [*]})."""
    if structure == END:
        return "*"
    name, kind, keys, *inside = structure
    parts = [describe(part) for part in inside]
    if name == "dict":
        return "{" + ", ".join(f"{key}: {part}" for key, part in zip(keys, parts)) + "}"
    if name == "list":
        return f"[{', '.join(parts)}]"
    joined = ", ".join(parts)
    return f"({joined})" if name == "tuple" else f"{kind.__name__}({joined})"
