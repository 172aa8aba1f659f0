"""Where the names of one function lead: values, the places they come from, further functions."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.code_names import ITEM, PUTS, CodeReads, Read
from einkorn.container import Container
from einkorn.ir.graph import Origin
from einkorn.python_places import Place, content
from einkorn.recording import Value
from einkorn.same import ABSENT, MOST_ITEMS, NESTS, PLAIN, bare, contents, held, kept_contents
from einkorn.user_code import is_user_module, is_users
from einkorn.watched import Watched

if TYPE_CHECKING:
    from einkorn.python_reads import PythonReads

OPAQUE = (*PLAIN, *NESTS, Value, np.ndarray, np.generic, np.dtype, Container)
ENVIRONMENT: type[Any] = vars(os)["_Environ"]  # the class, not the environment
SMALL = 1 << 14  # bytes of an array whose numbers are compared

Pending = list[tuple[Any, dict[str, Any]]]  # functions to be entered, with known arguments


class Scope:
    """Where the names of one function are looked up."""

    def __init__(
        self,
        reads: PythonReads,
        names: dict[str, Any],
        cells: Mapping[str, Any],
        local: Mapping[str, Any],
        code: CodeType,
    ) -> None:
        self._reads = reads
        self._globals, self._cells, self._locals = names, cells, local
        self._label = code.co_qualname
        self._place = Origin(code.co_filename, code.co_firstlineno)
        self._used: Mapping[Read, bool] = {}
        self._values: dict[Read, list[Any]] = {}
        self._functions: Pending = []

    def follow(self, wanted: CodeReads, only: str | None = None) -> Pending:
        """Look up what is read; gives the functions that were found, with what they know.

        Args:
            wanted: what code reads.
            only: the local variable whose reads are followed; all reads by default.
        """
        self._used = wanted.used
        for read in sorted(wanted.used, key=lambda read: (len(read.path), str(read))):
            if only is None or read[:2] == ("local", only):
                self._values_of(read)
        for read in wanted.escaped:
            for value in self._values.get(read, ()):
                self._reads.escape(value, f"{read} in {self._label}")
        if only is None and "globals" in wanted.words:
            for name in wanted.words & self._globals.keys():
                self._values_of(Read("global", name))
        return self._functions

    def _values_of(self, read: Read) -> list[Any]:
        known = self._values.get(read)
        if known is None:
            if read.path:
                owners = self._values_of(read._replace(path=read.path[:-1]))
                found = [x for owner in owners for x in self._step(owner, read.path[-1], read)]
            else:
                found = list(self._root(read))
            known = self._values[read] = found
            for value in found:
                self._reached(value, read)
        return known

    def _root(self, read: Read) -> Iterator[Any]:
        if read.root == "local":
            if read.name in self._locals:
                yield self._locals[read.name]
        elif read.root == "module":
            package = self._globals.get("__package__")
            for name in (read.name, f"{package}.{read.name}"):
                if name in sys.modules:
                    yield sys.modules[name]
        elif read.root == "cell":
            cell = self._cells.get(read.name)
            if cell is not None:
                yield from self._note("cell", cell, read.name, read)
        elif read.name in self._globals:
            yield from self._note("global", self._globals, read.name, read)
        else:
            self._note_absent(self._globals, read.name, read)
            builtins = self._globals.get("__builtins__", {})
            space = builtins if isinstance(builtins, dict) else vars(builtins)
            if read.name in space:
                yield space[read.name]

    def _note(self, kind: str, owner: Any, name: str, read: Read) -> Iterator[Any]:
        """Make a place a condition; gives what is there."""
        label = f"{read} in {self._label}"
        kept = held(owner) if kind == "attribute" else owner
        value = Place(kind, kept, name, label, None).now()
        if value is not ABSENT:
            self._reads.note(Place(kind, kept, name, label, held(value)))
            yield value

    def _note_absent(self, owner: Any, name: str, read: Read) -> None:
        if name not in owner:
            self._reads.note(Place("absent", owner, name, f"{read} in {self._label}", None))

    def _step(self, owner: Any, name: str, read: Read) -> Iterator[Any]:
        if isinstance(owner, NESTS):
            if name == ITEM:
                yield from _values(owner)[:MOST_ITEMS]
            elif name not in PUTS:
                self._reads.escape(owner, f"{read} in {self._label}")
        elif isinstance(owner, np.ndarray):
            self._reads.note_content(owner, f"{read} in {self._label}")
        elif isinstance(owner, ModuleType):
            yield from self._of_module(owner, name, read)
        elif name == ITEM:
            self._reads.escape(owner, f"{read} in {self._label}")
        elif isinstance(owner, FunctionType):
            if name in vars(owner):
                yield from self._note("attribute", owner, name, read)
        elif not isinstance(owner, OPAQUE):
            if name == "__class__":
                self._reads.note_class(owner, f"{read} in {self._label}")
                yield type(owner)
            else:
                yield from self.attribute(owner, name, read)

    def _of_module(self, owner: ModuleType, name: str, read: Read) -> Iterator[Any]:
        found = vars(owner).get(name)
        if owner is np and name == "random":
            found = np.random  # NumPy loads it when it is first asked for, as the code will
        if is_user_module(owner):
            yield from self._note("attribute", owner, name, read)
        elif callable(found) or isinstance(found, (ModuleType, np.random.Generator, ENVIRONMENT)):
            yield found

    def attribute(self, owner: Any, name: str, read: Read) -> Iterator[Any]:
        """An attribute of an object or a class, without running code of the user."""
        kind = owner if isinstance(owner, type) else type(owner)
        hook = vars(kind).get("__getattribute__")
        if isinstance(hook, FunctionType) and is_users(kind):
            self._functions.append((MethodType(hook, owner), {}))
            return
        home = next((c for c in kind.__mro__ if name in vars(c)), object)
        defined = vars(home).get(name, ABSENT)
        if owner is not kind and is_users(kind):
            self._reads.note_class(owner, f"the class of {read} in {self._label}")
        inside: Any = bare(owner, "__dict__")
        has_dict = isinstance(inside, dict)
        is_own = has_dict and name in inside
        is_slot = type(defined).__name__ == "member_descriptor"
        code = function_of(defined)
        if isinstance(defined, functools.singledispatchmethod):
            table = defined.dispatcher.registry
            self._reads.escape(table, f"the registered functions of {read} in {self._label}")
            self._functions += [(MethodType(x, owner), {}) for x in table.values() if callable(x)]
        if code is not None and not is_own:
            yield from self._of_class(kind, home, name, read, MethodType(code, owner))
            if has_dict and not isinstance(owner, Watched) and is_users(kind):
                self._note_absent(inside, name, read)
        elif hasattr(defined, "__set__") and not is_slot:
            self._descriptor(defined, owner)  # a setting sees to itself
        elif isinstance(owner, Watched):
            yield from self._of_watched(owner, home, name, read)
        elif is_own or is_slot or (is_users(kind) and defined is not ABSENT):
            found = list(self._note("attribute", owner, name, read))
            yield from found
            if is_slot and not found:
                label = f"{read} in {self._label}"
                self._reads.note(Place("missing", held(owner), name, label, None))
        else:
            yield from self._elsewhere(owner, kind, name, read)

    def _of_watched(self, owner: Watched, home: type[Any], name: str, read: Read) -> Iterator[Any]:
        """An attribute of a module, which announces changes of those that it has itself."""
        kind, inside = type(owner), bare(owner, "__dict__")
        if name in inside:
            yield inside[name]
        elif name not in vars(home):
            self._computed(owner, kind, read)
        elif is_users(kind):
            yield from self._note("global", self._reads.space_of(home), name, read)

    def _elsewhere(self, owner: Any, kind: type[Any], name: str, read: Read) -> Iterator[Any]:
        """An attribute that is neither the object's own nor one of its class."""
        inside: Any = bare(owner, "__dict__")
        if isinstance(owner, type) and is_users(type(owner)) and hasattr(type(owner), name):
            for defined in self._note("attribute", type(owner), name, read):
                code = function_of(defined)
                if code is None:
                    yield defined
                else:
                    self._functions.append((MethodType(code, owner), {}))
        elif isinstance(inside, dict):
            self._note_absent(inside, name, read)
        self._computed(owner, kind, read)

    def _computed(self, owner: Any, kind: type[Any], read: Read) -> None:
        """An attribute that a `__getattr__` of the user gives."""
        special = getattr(kind, "__getattr__", None)
        if isinstance(special, FunctionType) and is_users(kind):
            self._functions.append((MethodType(special, owner), {}))
            self._reads.escape(owner, f"{read} in {self._label}")

    def _of_class(
        self, kind: type[Any], home: type[Any], name: str, read: Read, method: MethodType
    ) -> Iterator[Any]:
        """A function of a class, which is entered."""
        if is_users(kind):
            for base in kind.__mro__[: kind.__mro__.index(home)]:
                if is_users(base):
                    self._note_absent(self._reads.space_of(base), name, read)
            list(self._note("global", self._reads.space_of(home), name, read))
        self._functions.append((method, {}))
        setter = getattr(vars(home)[name], "fset", None)  # of a property
        if isinstance(setter, FunctionType):
            self._functions.append((MethodType(setter, method.__self__), {}))
        yield from ()

    def _descriptor(self, defined: Any, owner: Any) -> None:
        getter = getattr(type(defined), "__get__", None)
        if isinstance(getter, FunctionType) and is_users(type(defined)):
            names = getter.__code__.co_varnames
            self._functions.append((MethodType(getter, defined), {names[1]: owner}))

    def _reached(self, value: Any, read: Read) -> None:
        """Look into a value that was found: functions are entered, nests have to stay."""
        self._reads.saw(value)
        self._reads.keep(value, f"{read} in {self._label}")
        if isinstance(value, str):
            self._reads.note_text(value)
        where = f"{read} in {self._label}, {self._place}"
        if isinstance(value, Value) or self._reads.effects.see(value, where):
            return
        if isinstance(value, NESTS):
            if not isinstance(value, (tuple, frozenset)) and self._used.get(read, True):
                self.note_items(value, f"{read} in {self._label}")
            for item in list(contents(value))[:MOST_ITEMS]:
                self._reads.saw(item)
                if is_callable(item):
                    self._functions.append((item, {}))
        elif isinstance(value, ContextVar):
            list(self._note("context", value, value.name, read))
        elif is_callable(value):
            self._functions.append((value, {}))
        elif isinstance(value, type):
            if is_users(value):
                self._functions += functions_of_class(value)
        elif is_users(type(value)) and callable(value):
            self._functions.append((value, {}))

    def note_items(self, value: Any, label: str) -> None:
        """Make the items of a nest that can change a condition."""
        self._reads.note(Place("items", value, "", label, kept_contents(value)))


def functions_of_class(kind: type[Any], owner: Any = None) -> Pending:
    """The user's functions of a class: methods of `owner`, or without an object."""
    return [
        (code if owner is None else MethodType(code, owner), {})
        for base in kind.__mro__
        if is_users(base)
        for defined in vars(base).values()
        if (code := function_of(defined)) is not None
    ]


def _values(nest: Any) -> list[Any]:
    return list(nest.values() if isinstance(nest, (dict, MappingProxyType)) else nest)


def is_callable(x: Any) -> bool:
    """Whether there may be code of the user behind a value."""
    kinds = (FunctionType, MethodType, functools.partial, Watched)
    return isinstance(x, kinds) or wrapped(x) is not None


def wrapped(x: Any) -> Any:
    """The function that a decorator's result stands for, if it says so."""
    inside = bare(x, "__dict__")
    return inside.get("__wrapped__") if isinstance(inside, dict) else None


def function_of(defined: Any) -> FunctionType | None:
    """The Python function behind an attribute of a class: a method's, a property's."""
    for name in ("fget", "func", "__func__", "__wrapped__"):
        inner = bare(defined, name)
        defined = inner if inner is not None else defined
    return defined if isinstance(defined, FunctionType) else None


def memory(value: Any) -> Any:
    """The array that owns what an array or tensor shows; None for anything else."""
    array = value._array if isinstance(value, Value) else value
    while isinstance(array, np.ndarray) and isinstance(array.base, np.ndarray):
        array = array.base
    return array if isinstance(array, np.ndarray) else None


__all__ = [
    "ABSENT",
    "OPAQUE",
    "SMALL",
    "Pending",
    "Scope",
    "content",
    "function_of",
    "functions_of_class",
    "is_callable",
    "memory",
    "wrapped",
]
