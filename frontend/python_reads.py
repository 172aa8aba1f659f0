"""What a trace took from Python by name, and whether it is still the same.

Before a function is traced, the names that its code reads are looked up: globals, cells, defaults,
and the attributes and items on the way (`einkorn.code_names`, `einkorn.python_scope`). Python
functions found there are read in turn. Where a value goes on a way that names do not show, into a
call or out of a function, all that any of this code may read of it counts: each of its attributes
whose name stands anywhere in the code. Functions that are entered on other ways are noticed when
they record an op.

Each place becomes a condition of the trace (`einkorn.python_places`), compared by identity, then by
value for numbers and strings. Objects are referred to weakly: a trace keeps no model alive.
"""

from __future__ import annotations

import functools
import operator
import weakref
from array import array
from collections import ChainMap, UserDict, UserList
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import is_dataclass, replace
from types import (
    CodeType,
    FrameType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import numpy as np

from einkorn.code_names import CodeReads, Read, reads_of
from einkorn.python_effects import Effects
from einkorn.python_entries import is_filled
from einkorn.python_places import Place, checker, content
from einkorn.python_scope import (
    ENVIRONMENT,
    OPAQUE,
    SMALL,
    Pending,
    Scope,
    functions_of_class,
    is_callable,
    memory,
    wrapped,
)
from einkorn.python_writes import Left, PythonWrites
from einkorn.recording import current_trace
from einkorn.same import MOST_ITEMS, MOST_NESTED, NESTS, bare, contents, held, kept_contents, target
from einkorn.user_code import (
    is_user_file,
    is_user_function,
    is_user_module,
    is_user_space,
    is_users,
)
from einkorn.watched import Watched, made_in

_DEFAULTS = ("__code__", "__defaults__", "__kwdefaults__")
_WHOLE = frozenset({"vars", "__dict__", "asdict", "astuple", "replace", "copy", "deepcopy", "dir"})
"""Words of code that may look at every attribute of an object."""
_TESTS = frozenset({"getattr", "hasattr", "AttributeError"})
_COLLECTIONS = (UserDict, UserList, ChainMap, ENVIRONMENT)


class PythonReads:
    """The places that one trace read, those of the traces inside it included.

    Attributes:
        places: what has to be as it was, when the function has run.
        effects: what the code might do beside recording ops.
        writes: what the places held that the code may write to.
    """

    def __init__(self, root: FrameType, name: str) -> None:
        """
        Args:
            root: the frame that runs the function; what called it does not count.
            name: of the function.
        """
        self.places: list[Place] = []
        self.effects, self.writes = Effects(name), PythonWrites()
        self._root: FrameType | None = root
        self._known: dict[Any, Place] = {}
        self._through: weakref.ref[Any] | None = None
        self._spaces: dict[type[Any], Any] = {}
        self._arrays: dict[int, Any] = {}
        self._entered: set[Any] = set()
        self._frames: set[CodeType] = set()
        self._words: set[str] = set()
        self._texts: set[str] = set()
        self._escaped: dict[int, tuple[Any, str, Any]] = {}
        self._seen: dict[int, int] = {}  # how many words there were when an object was looked at

    @contextmanager
    def followed(self, trace: Any) -> Generator[None]:
        """Within the block the code runs: a TraceError for what a compiled call would not repeat.

        Args:
            trace: the tensors of which nothing may keep when the block is left.
        """
        left: list[Left] = []
        try:
            with self.effects.refused():
                yield
        finally:
            left = self.writes.left(trace)
            self.writes.take_back(left)
        if left:
            raise self.writes.error(trace, left[0])

    def keep(self, value: Any, label: str) -> None:
        """Note what a value holds that the code may write to; not one that it may have made."""
        if self._through is None:
            self.writes.keep(value, label)

    # -- functions -----------------------------------------------------------------------------

    def enter(self, fn: Any, local: Mapping[str, Any] | None = None) -> None:
        """Read the names of a function that is about to be traced, and of those it names.

        Args:
            fn: a function, method, partial, Module or other callable.
            local: arguments that are known, by name.
        """
        self._enter_all([(fn, dict(local or {}))])
        self._settle()

    def _enter_all(self, pending: Pending) -> None:
        while pending:
            found, known = pending.pop()
            pending.extend(self._enter_one(found, known))

    def running(self, frame: FrameType) -> None:
        """The same for functions that are running: this one, and those that called it."""
        found: FrameType | None = frame
        new = False
        while found is not None and found is not self._root and found.f_code not in self._frames:
            self._frames.add(found.f_code)
            if is_user_space(found.f_globals) and is_user_file(found.f_code.co_filename):
                self._enter_frame(found)
                new = True
            found = found.f_back
        if new:
            self._settle()

    def _enter_frame(self, frame: FrameType) -> None:
        code, wanted = frame.f_code, reads_of(frame.f_code)
        self._take(wanted, frame.f_globals)
        scope = Scope(self, frame.f_globals, {}, {}, code)
        pending: list[tuple[Any, Pending]] = [(None, scope.follow(wanted))]
        for name, value in frame.f_locals.items():
            if isinstance(value, (*OPAQUE, type, ModuleType)):
                continue
            kept = held(value)
            if type(kept) is not weakref.ref:
                continue
            self._through = kept  # it may have been made while the function ran
            part = Scope(self, {}, {}, {name: value}, code)
            pending.append((kept, part.follow(wanted, only=name)))
        for kept, functions in pending:
            self._through = kept
            self._enter_all(functions)
            functions.clear()
        self._through = None

    def _enter_one(self, fn: Any, local: dict[str, Any]) -> Pending:
        receiver: Any = None
        if not isinstance(fn, type) and wrapped(fn) is not None:
            return [(wrapped(fn), local), *self._enter_wrapper(fn, local)]
        if isinstance(fn, functools.partial):
            values = (*fn.args, *fn.keywords.values())
            for value in values:
                self.escape(value, "an argument of a partial")
            return [(fn.func, dict(fn.keywords)), *((x, {}) for x in values if is_callable(x))]
        if isinstance(fn, MethodType):
            receiver, fn = fn.__self__, fn.__func__
            if wrapped(fn) is not None:
                fn = wrapped(fn)
        elif isinstance(fn, Watched) or (not isinstance(fn, FunctionType) and is_users(type(fn))):
            name = "forward" if hasattr(type(fn), "forward") else "__call__"
            self._note_method(type(fn), "__call__")
            receiver, fn = fn, getattr(type(fn), name, None)
            if isinstance(receiver, Watched):
                self.escape(receiver, type(receiver).__name__)
        return self._enter_function(fn, receiver, local)

    def _note_method(self, kind: type[Any], name: str) -> None:
        """Note which class of the user defines a method that Python calls by itself."""
        for base in filter(is_users, kind.__mro__):
            space, label = self.space_of(base), f"{base.__qualname__}.{name}"
            if name in space:
                self.note(Place("global", space, name, label, held(space[name])))
                return
            self.note(Place("absent", space, name, label, None))

    def _enter_wrapper(self, fn: Any, local: dict[str, Any]) -> Pending:
        """A function around another: the user's own, or a library's with functions in it."""
        if not isinstance(fn, FunctionType):
            return []
        if is_user_function(fn):
            return self._enter_function(fn, None, local)
        inside = [cell.cell_contents for cell in fn.__closure__ or () if is_filled(cell)]
        table = vars(fn).get("registry")  # of functools.singledispatch
        if isinstance(table, MappingProxyType):
            self.escape(table, f"the registered functions of {fn.__qualname__}")
        nested = [x for nest in inside if isinstance(nest, dict) for x in nest.values()]
        return [(x, {}) for x in (*inside, *nested) if isinstance(x, FunctionType)]

    def _enter_function(self, fn: Any, receiver: Any, local: dict[str, Any]) -> Pending:
        if not isinstance(fn, FunctionType) or not is_user_function(fn):
            return []
        key = (fn, id(receiver)) if receiver is not None else fn
        if key in self._entered:
            return []
        self._entered.add(key)
        return self._read_function(fn, receiver, local)

    def _read_function(self, fn: FunctionType, receiver: Any, local: dict[str, Any]) -> Pending:
        code, label = fn.__code__, fn.__qualname__
        for name in _DEFAULTS:
            value = getattr(fn, name)
            if value is not None:
                called = label if name == "__code__" else f"{label}.{name}"
                self.note(Place("attribute", held(fn), name, called, held(value)))
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        defaults = fn.__defaults__ or ()
        first = code.co_argcount - len(defaults)
        known = {**dict(zip(names[first:], defaults)), **(fn.__kwdefaults__ or {}), **local}
        if receiver is not None and names:
            known[names[0]] = receiver
        cells = dict(zip(code.co_freevars, fn.__closure__ or ()))
        for name, cell in cells.items():
            self.keep(cell, f"{name} in {label}")
        wanted = reads_of(code)
        self._take(wanted, fn.__globals__)
        return Scope(self, fn.__globals__, cells, known, code).follow(wanted)

    def _take(self, wanted: CodeReads, names: dict[str, Any]) -> None:
        """Note the words of code, and what it may write to."""
        self._words |= wanted.words
        self._texts |= wanted.texts
        self.writes.expect(wanted.stores)
        self.writes.keep_globals(names)

    def space_of(self, kind: type[Any]) -> Any:
        """The names of a class, each time by the same object."""
        return self._spaces.setdefault(kind, vars(kind))

    # -- values that go where names do not lead --------------------------------------------------

    def escape(self, value: Any, label: str) -> None:
        """Note a value of which any code may read something."""
        self.keep(value, label)
        if isinstance(value, (*NESTS, np.ndarray)) or not isinstance(value, OPAQUE):
            self._escaped.setdefault(id(value), (value, label, self._through))

    def _settle(self) -> None:
        """Look into all that escaped, for every word that code has by now."""
        while True:
            words = len(self._words)
            stale = [x for key, x in self._escaped.items() if self._seen.get(key) != words]
            if not stale:
                return
            for value, label, through in stale:
                self._seen[id(value)] = words
                self._through = through
                self._enter_all(self._look_into(value, label))
            self._through = None

    def _look_into(self, value: Any, label: str) -> Pending:
        """Make conditions of what code may read of a value; gives the functions in it."""
        self.saw(value)
        if isinstance(value, NESTS):
            return self._look_into_nest(value, label)
        if isinstance(value, (np.ndarray, ModuleType)):
            return []  # an array is captured, or looked at when the trace is done
        if isinstance(value, type):
            meta = functions_of_class(type(value), value) if is_users(type(value)) else []
            return meta + functions_of_class(value) if is_users(value) else meta
        if isinstance(value, Watched):
            return self._look_into_watched(value, label)
        if is_callable(value):
            return [(value, {})]
        if is_users(type(value)) or isinstance(value, SimpleNamespace):
            return self._look_into_object(value, label)
        self._look_into_others(value, label)
        return []

    def _look_into_others(self, value: Any, label: str) -> None:
        """Objects of Python's own library that hold values."""
        if isinstance(value, _COLLECTIONS):
            for part in vars(value).values():
                self.escape(part, label)
        elif isinstance(value, (array, bytearray)):
            self.note(Place("content", value, "", label, content(value)))
        elif isinstance(value, (operator.attrgetter, operator.methodcaller)):
            self._words.update(x for x in value.__reduce__()[1] if isinstance(x, str))
        elif isinstance(value, ContextVar):
            self.note(Place("context", value, value.name, label, held(value.get(None))))
        elif isinstance(value, Iterator):
            self.note(Place("iterator", held(value), "", label, None))

    def _look_into_nest(self, value: Any, label: str) -> Pending:
        if (
            not isinstance(value, (tuple, frozenset))
            and ("items", id(value), "") not in self._known
        ):
            self.note(Place("items", value, "", label, kept_contents(value)))
        items = contents(value)[:MOST_ITEMS]
        for item in items:
            self.saw(item)
            self.escape(item, f"an item of {label}")
        return [(x, {}) for x in items if is_callable(x)]

    def _look_into_watched(self, value: Any, label: str) -> Pending:
        """A module sees to its attributes itself, but not to the objects that they are."""
        for name, part in list(vars(value).items()):
            if name.startswith("_ek_"):
                continue
            self.saw(part)
            for x in _objects_in(part):
                self.escape(x, f"{label}.{name}")
        return [(value, {})]

    def _look_into_object(self, value: Any, label: str) -> Pending:
        kind = type(value)
        scope = Scope(self, {}, {}, {}, _look_label.__code__)
        everything = is_dataclass(value) or bool(_WHOLE & self._words)
        known = set(_attributes(value))
        names = {x for x in known if everything or x in self._words}
        if _TESTS & self._words:
            names |= {x for x in self._texts - known if x.isidentifier()}
        found: list[Any] = []
        for name in sorted(names):
            found += scope.attribute(value, name, Read("local", label, (name,)))
        for part in found:
            self.saw(part)
            self.escape(part, label)
        functions = scope.follow(CodeReads({}, frozenset(), frozenset(), frozenset()))
        if is_users(kind):
            special = {x for base in kind.__mro__ if is_users(base) for x in vars(base)}
            for name in special:
                code = getattr(kind, name, None)
                if name.startswith("__") and isinstance(code, FunctionType):
                    functions.append((MethodType(code, value), {}))
        return [*functions, *((x, {}) for x in found if is_callable(x))]

    # -- arrays --------------------------------------------------------------------------------

    def saw(self, value: Any) -> None:
        """Note an array or tensor that is read by name, or as an attribute that is watched."""
        value = memory(value)
        if value is not None:
            self._arrays[id(value)] = value

    def unseen(self, values: Iterable[Any]) -> list[Any]:
        """Those of the captured tensors that came on no way that is looked at again."""
        return [x for x in values if id(memory(x)) not in self._arrays]

    def note_text(self, text: str) -> None:
        """A text that code reads may be the name of an attribute."""
        self._words.add(text)
        self._texts.add(text)

    def note_class(self, value: Any, label: str) -> None:
        """Make the class of an object a condition: it says where methods are found."""
        self.note(Place("attribute", held(value), "__class__", label, type(value)))

    def note_content(self, array: np.ndarray[Any, Any], label: str) -> None:
        """Make the numbers of a small array a condition: code looks at single ones."""
        if array.nbytes <= SMALL and not array.dtype.hasobject:
            self.note(Place("content", array, "", label, content(array)))

    # -- places --------------------------------------------------------------------------------

    def note(self, place: Place) -> None:
        """Make a place a condition, once; not one of a module that the trace makes itself."""
        if any(_is_made_here(target(x)) for x in (place.owner, self._through)):
            return
        key = (place.kind, id(target(place.owner)), place.name)
        known = self._known.get(key)
        if known is None or (known.through is not None and self._through is None):
            self._known[key] = replace(place, through=self._through)

    def release(self) -> None:
        """Let go of objects that were made while the function ran."""
        found = self._escaped.items()
        self._escaped = {k: x for k, x in found if x[2] is None or isinstance(x[0], np.ndarray)}

    def finish(self, captured: Iterable[Any] = ()) -> None:
        """The places, without those of objects made while the function ran that are gone.

        Args:
            captured: the tensors that the trace captured. Other arrays that went into calls were
                looked at by code that is not einkorn's: their numbers count.
        """
        self._note_contents({id(memory(x)) for x in captured})
        self._root = self._through = None
        for kept in (self._entered, self._frames, self._escaped, self._seen, self.writes):
            kept.clear()
        found = self._known.values()
        self.places = [x for x in found if x.through is None or x.through() is not None]
        self.places += [
            Place("changed", None, "", place.label, None)
            for place in self.places
            if place.kind != "iterator" and not place.is_gone and not place.holds()
        ]
        self._known, self._arrays = {}, {}

    def _note_contents(self, captured: set[int]) -> None:
        for value, label, _ in self._escaped.values():
            if isinstance(value, np.ndarray) and id(memory(value)) not in captured:
                self.note_content(value, label)

    def check(self) -> Callable[[], bool]:
        """One function that says whether every place is as it was."""
        return checker(self.places)


def _is_made_here(value: Any) -> bool:
    """Whether a module was made in the trace: it is gone when only the collector has seen to it."""
    return isinstance(value, Watched) and made_in(vars(value), current_trace.get())


def _look_label() -> None:
    """Gives its code as the place of what is looked into."""


def _objects_in(value: Any, depth: int = 0) -> Iterator[Any]:
    """The objects in a nest of lists, tuples and dicts, which is watched itself."""
    if isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            if depth < MOST_NESTED:
                yield from _objects_in(item, depth + 1)
    elif not isinstance(value, OPAQUE):
        yield value


def _attributes(value: Any) -> Iterator[str]:
    """The names of an object's attributes, and of those its classes define."""
    inside = bare(value, "__dict__")
    if isinstance(inside, dict):
        yield from inside
    for base in type(value).__mro__:
        if is_users(base):
            yield from (x for x in vars(base) if not x.startswith("__"))


__all__ = ["Place", "PythonReads", "is_user_module"]
