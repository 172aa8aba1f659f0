"""Traced tensors that a function leaves behind in Python: found when it has run, and taken back.

The places that code may write to are known before it runs: cells, the globals of functions, and
the objects, lists and dicts that its names lead to. What they hold is noted first. A place that
holds a tensor of the trace afterwards would keep it for ever: later calls run only what was
recorded, and read a value that nobody computes again. So it gets back what it held, and the line
that wrote to it is named.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import CellType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from einkorn.code_names import Store
from einkorn.ir.dtypes import int64
from einkorn.ir.errors import TraceError
from einkorn.ir.sizes import Size
from einkorn.lengths import sized_number
from einkorn.python_entries import (
    SEQUENCES,
    Entries,
    attributes,
    entries_of,
    is_filled,
    put,
    refill,
)
from einkorn.recording import Value
from einkorn.same import ABSENT, MOST_ITEMS, MOST_NESTED, NESTS, PLAIN, contents
from einkorn.user_code import is_users
from einkorn.watched import Watched

MSG_LEFT = (
    "{trace} puts a traced {kind} into {place}{where}. A compiled call runs only the tensor "
    "operations that were recorded, so this would happen once, not at each call. Return the {kind} "
    "and store it outside; or keep it in a leaf, made once with ek.tensor(..., trainable=False) "
    "and written with leaf.value = ..., or in an attribute of an ek.nn.Module"
)
MSG_LEAF = (
    "{trace} makes a leaf, writes its value and puts it into {place}{where}. Each compiled call "
    "would make another one, and what is kept would never be written again. Make the leaf outside "
    "of {trace}"
)

_LEAVES = (*PLAIN, np.ndarray, np.generic)


@dataclass(slots=True)
class _Owner:
    """Something that code may write to.

    Attributes:
        value: the cell, dict, list, object, class or module.
        label: how code reads it, such as "self.cache in Net.forward".
        before: its entries by name, or the items of a list or set.
        is_space: whether it has names of the whole program, of which only some are looked at.
    """

    value: Any
    label: str
    before: Entries
    is_space: bool


@dataclass(frozen=True, slots=True)
class Left:
    """A traced tensor that was left behind: where, under which name, and the tensor."""

    owner: _Owner
    name: Any
    tensor: Value


class PythonWrites:
    """What the places that code may write to held before it ran."""

    def __init__(self) -> None:
        self._owners: dict[int, _Owner] = {}
        self._stores: list[Store] = []

    def expect(self, stores: Iterable[Store]) -> None:
        """Note what code writes to, for the lines in messages."""
        self._stores.extend(stores)

    def sets_attribute(self, name: str) -> bool:
        """Whether code sets attributes of this name, other than when it makes objects."""
        return any(x.name == name and x.owner and not _makes(x.function) for x in self._stores)

    def keep(self, value: Any, label: str, depth: int = 0) -> None:
        """Note what a value holds, if code may write to it, and what the lists and dicts in it do.

        Args:
            value: any value that code reads.
            label: how it does.
            depth: how far inside of another value it is.
        """
        if isinstance(value, _LEAVES) or id(value) in self._owners or isinstance(value, Value):
            return
        before = entries_of(value)
        if before is None:
            return
        is_space = isinstance(value, (type, ModuleType))
        if not isinstance(value, (tuple, Watched)):  # a module sees to its attributes itself
            self._owners[id(value)] = _Owner(value, label, before, is_space)
        if is_space or depth >= MOST_NESTED or len(before) > MOST_ITEMS:
            return
        for name, part in _named(before):
            if isinstance(part, (dict, *SEQUENCES, tuple)):
                self.keep(part, _inside(label, value, name), depth + 1)

    def keep_globals(self, names: dict[str, Any]) -> None:
        """Note what the globals of a function hold."""
        if id(names) not in self._owners:
            self._owners[id(names)] = _Owner(names, "", dict(names), True)

    def left(self, trace: Any) -> list[Left]:
        """The tensors of a trace, and of those inside it, that were put somewhere since."""
        found: list[Left] = []
        for owner in self._owners.values():
            for name, value in _changed(owner):
                tensor = traced_in(value, trace)
                if tensor is not None:
                    found.append(Left(owner, name, tensor))
        return found

    def take_back(self, left: Iterable[Left]) -> None:
        """Give places back what they held."""
        for one in left:
            owner = one.owner
            if isinstance(owner.before, tuple):
                refill(owner.value, owner.before)
            elif owner.is_space:
                put(owner.value, one.name, owner.before.get(one.name, ABSENT))
            else:
                for name, _ in list(_changed(owner)):
                    put(owner.value, name, owner.before.get(name, ABSENT))

    def error(self, trace: Any, left: Left) -> TraceError:
        """The error of a tensor that was left behind."""
        owner, name = left.owner, left.name
        is_global = isinstance(owner.value, dict) and owner.is_space
        is_row = isinstance(owner.before, tuple)
        inside = owner.label if is_row else _inside(owner.label, owner.value, name)
        place = str(name) if is_global else inside
        store = self._store_of(owner, name)
        tensor = left.tensor
        known = {} if tensor._trace is None else tensor._trace.origins
        origin = known.get(tensor._node) if store is None else store.origin
        if is_global and store is not None:
            place = f"{place} in {store.function}"
        where = "" if origin is None else f", at {origin}"
        if tensor._trace is None:
            return TraceError(MSG_LEAF.format(trace=trace.name, place=place, where=where))
        kind = "number" if tensor._weak else "tensor"
        return TraceError(MSG_LEFT.format(trace=trace.name, kind=kind, place=place, where=where))

    def _store_of(self, owner: _Owner, name: Any) -> Store | None:
        """The line of code that wrote to a place; None when no line shows that it does."""
        is_nest = isinstance(owner.value, (dict, *SEQUENCES)) and not owner.is_space
        for store in self._stores:
            if is_nest and store.name is None and store.owner == owner.label:
                return store
            if isinstance(owner.value, CellType) and store.owner == owner.label:
                return store
        named = [] if is_nest else [x for x in self._stores if x.name == name and name]
        return next((x for x in named if x.owner == owner.label), next(iter(named), None))

    def clear(self) -> None:
        """Forget all of it."""
        self._owners.clear()
        self._stores.clear()


def _makes(function: str) -> bool:
    """Whether a function, given by its name, sets up new objects."""
    return function.rpartition(".")[2] in ("__init__", "__new__", "__setstate__", "build")


def _changed(owner: _Owner) -> Iterator[tuple[Any, Any]]:
    """The names and values of the entries that are others now; ABSENT for those that are gone."""
    now, before = entries_of(owner.value), owner.before
    if isinstance(now, tuple) and isinstance(before, tuple):
        rows = enumerate(now)
        yield from ((k, x) for k, x in rows if k >= len(before) or before[k] is not x)
    elif isinstance(now, Mapping) and isinstance(before, Mapping):
        yield from ((k, x) for k, x in now.items() if before.get(k, ABSENT) is not x)
        yield from ((k, ABSENT) for k in before if k not in now)


def _named(entries: Entries) -> Iterable[tuple[Any, Any]]:
    return enumerate(entries) if isinstance(entries, tuple) else list(entries.items())


def traced_in(value: Any, trace: Any) -> Value | None:
    """A tensor of a trace, or of one inside it, that a value is or holds."""
    seen: set[int] = set()
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        part, depth = stack.pop()
        if issubclass(type(part), Value):  # (a number of the run passes for an int)
            if _is_of(part, trace):
                return part
        elif issubclass(type(part), Size):  # (and so does a size of the run)
            return sized_number(part, int64, weak=True)
        elif id(part) not in seen and depth < MOST_NESTED and not isinstance(part, _LEAVES):
            seen.add(id(part))
            stack.extend((x, depth + 1) for x in _parts(part))
    return None


def _is_of(value: Value, trace: Any) -> bool:
    if id(value) in trace.seen.renewed:
        return True
    found = value._trace
    while found is not None and found is not trace:
        found = found.outer
    return found is not None


def _parts(value: Any) -> Iterable[Any]:
    """What a value may hold tensors in."""
    if isinstance(value, NESTS):
        return contents(value)[:MOST_ITEMS]
    if isinstance(value, FunctionType):
        return [x.cell_contents for x in value.__closure__ or () if is_filled(x)]
    if isinstance(value, functools.partial):
        return (*value.args, *value.keywords.values())
    if isinstance(value, MethodType):
        return (value.__self__,)
    if isinstance(value, SimpleNamespace) or is_users(type(value)):
        return (attributes(value) or {}).values()
    return ()


def _inside(label: str, owner: Any, name: Any) -> str:
    """How code reads an entry of what it reads as `label`, a text like "cache in Net.forward"."""
    read, _, function = label.partition(" in ")
    if isinstance(owner, (dict, list, tuple)):
        read = f"{read}[{name!r}]"
    elif not isinstance(owner, (set, deque, CellType, ContextVar)):
        read = f"{read}.{name}"
    return f"{read} in {function}" if function else read
