"""What a trace took from Python by name, and whether it is still the same.

Before a function is traced, the names that its code reads are looked up: globals, cells, defaults,
and the attributes and items on the way (`einkorn.code_names`). Python functions found there are
read in turn. Each place becomes a condition of the trace, compared by identity, then by value for
numbers and strings. Functions that are entered on other ways are noticed when they record an op.

All conditions of a trace become one expression, so that a call looks at a place in about 25 ns.
Objects are referred to weakly: a trace keeps no model alive.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from einkorn.code_names import ITEM, Read, reads_of
from einkorn.container import Container
from einkorn.ir.graph import Origin
from einkorn.python_effects import Effects
from einkorn.recording import Value
from einkorn.user_code import (
    is_user_file,
    is_user_function,
    is_user_module,
    is_user_space,
    is_users,
)
from einkorn.watched import Watched, contents, is_same, unchanged

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_NESTS = (list, tuple, dict, set, frozenset)
_OPAQUE = (*_PLAIN, *_NESTS, Value, np.ndarray, np.generic, np.dtype, Container)
_MOST_ITEMS = 64  # items of a list or dict that are looked into
_ABSENT = object()
_DEFAULTS = ("__code__", "__defaults__", "__kwdefaults__")


@dataclass(frozen=True, slots=True)
class Place:
    """One place of Python that a trace read.

    Attributes:
        kind: "cell", "global" (an entry of a dict), "attribute", or "items" (of a list or dict).
        owner: the cell, the dict, the object, or the nest.
        name: of the entry or attribute.
        label: for people.
        value: what was there; of a nest its contents.
        through: an object that was met while the function ran and on which this depends.
    """

    kind: str
    owner: Any
    name: str
    label: str
    value: Any
    through: weakref.ref[Any] | None = None

    @property
    def is_number(self) -> bool:
        return isinstance(self.value, (int, float)) and not isinstance(self.value, bool)

    @property
    def is_gone(self) -> bool:
        """Whether what was there, or what it was in, is no more."""
        return any(type(x) is weakref.ref and x() is None for x in (self.owner, self.value))

    def describe(self) -> str:
        """The condition, for people."""
        if self.kind == "items":
            return f"the items of {self.label}"
        if self.name == "__code__":
            return f"the code of {self.label}"
        return f"{self.label} was {_shown(_target(self.value))}"

    def why_not(self) -> str:
        """What is different now, for people."""
        if self.kind == "items":
            return f"{self.describe()} changed"
        now = self.now()
        shown = "is gone" if now is _ABSENT else f"is {_shown(now)} now"
        return f"{self.describe()} and {shown}"

    def now(self) -> Any:
        """What is there now; a value of its own when nothing is."""
        owner = _target(self.owner)
        try:
            if self.kind == "cell":
                return owner.cell_contents
            if self.kind == "global":
                return owner[self.name]
            return contents(owner) if self.kind == "items" else getattr(owner, self.name)
        except (AttributeError, KeyError, ValueError):
            return _ABSENT

    def holds(self) -> bool:
        """Whether it is as it was."""
        if self.kind == "items":
            return unchanged(self.owner, self.value)
        now = self.now()
        return now is not _ABSENT and (now is _target(self.value) or same(now, self.value))


def same(now: Any, then: Any) -> bool:
    """Whether two values that are not one object are equal for a trace: type and bits."""
    if type(now) is tuple and type(then) is tuple and len(now) == len(then):
        return all(a is b or same(a, b) for a, b in zip(now, then))
    return is_same(now, then)


def _held(value: Any) -> Any:
    """A weak reference to an object, or itself where it has none or belongs to the program."""
    if isinstance(value, (*_PLAIN, *_NESTS, np.ndarray, ModuleType, type)):
        return value  # (an array that has weak references cannot be resized)
    try:
        return weakref.ref(value)
    except TypeError:
        return value


def _target(held: Any) -> Any:
    return held() if type(held) is weakref.ref else held


def _shown(value: Any) -> str:
    if isinstance(value, (*_PLAIN, tuple)):
        return repr(value)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    return name if isinstance(name, str) else f"a {type(value).__name__}"


class PythonReads:
    """The places that one trace read, those of the traces inside it included.

    Attributes:
        places: what has to be as it was, when the function has run.
        effects: what the code might do beside recording ops.
    """

    def __init__(self, root: FrameType, name: str) -> None:
        """
        Args:
            root: the frame that runs the function; what called it does not count.
            name: of the function.
        """
        self.places: list[Place] = []
        self.effects = Effects(name)
        self._root: FrameType | None = root
        self._known: dict[Any, Place] = {}
        self._through: weakref.ref[Any] | None = None
        self._spaces: dict[type[Any], Any] = {}
        self._arrays: dict[int, Any] = {}
        self._entered: set[Any] = set()
        self._frames: set[CodeType] = set()

    # -- functions -----------------------------------------------------------------------------

    def enter(self, fn: Any, local: Mapping[str, Any] | None = None) -> None:
        """Read the names of a function that is about to be traced, and of those it names.

        Args:
            fn: a function, method, partial, Module or other callable.
            local: arguments that are known, by name.
        """
        pending = [(fn, dict(local or {}))]
        while pending:
            found, known = pending.pop()
            pending.extend(self._enter_one(found, known))

    def running(self, frame: FrameType) -> None:
        """The same for functions that are running: this one, and those that called it."""
        found: FrameType | None = frame
        while found is not None and found is not self._root and found.f_code not in self._frames:
            self._frames.add(found.f_code)
            if is_user_space(found.f_globals) and is_user_file(found.f_code.co_filename):
                self._enter_frame(found)
            found = found.f_back

    def _enter_frame(self, frame: FrameType) -> None:
        code, wanted = frame.f_code, reads_of(frame.f_code)
        scope = _Scope(self, frame.f_globals, {}, {}, code)
        pending: list[tuple[Any, Any]] = [(None, scope.follow(wanted))]
        for name, value in frame.f_locals.items():
            if isinstance(value, (*_OPAQUE, type, ModuleType)):
                continue
            held = _held(value)
            if type(held) is not weakref.ref:
                continue
            self._through = held  # it may have been made while the function ran
            its = {x: used for x, used in wanted.items() if x[:2] == ("local", name)}
            pending.append((held, _Scope(self, {}, {}, {name: value}, code).follow(its)))
        for held, functions in pending:
            self._through = held
            for fn, local in functions:
                self.enter(fn, local)
            functions.clear()
        self._through = None

    def _enter_one(self, fn: Any, local: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
        receiver: Any = None
        if not isinstance(fn, type) and _wrapped(fn) is not None:
            inner, bare = _wrapped(fn), isinstance(fn, FunctionType) and is_user_function(fn)
            rest = self._enter_function(fn, None, local) if bare else []
            return [(inner, local), *rest]
        if isinstance(fn, functools.partial):
            values = (*fn.args, *fn.keywords.values())
            inner = [(x, {}) for x in values if _is_callable(x)]
            return [(fn.func, dict(fn.keywords)), *inner]
        if isinstance(fn, MethodType):
            receiver, fn = fn.__self__, fn.__func__
            if _wrapped(fn) is not None:
                fn = _wrapped(fn)
        elif isinstance(fn, Watched) or (not isinstance(fn, FunctionType) and is_users(type(fn))):
            name = "forward" if hasattr(type(fn), "forward") else "__call__"
            receiver, fn = fn, getattr(type(fn), name, None)
        return self._enter_function(fn, receiver, local)

    def _enter_function(
        self, fn: Any, receiver: Any, local: dict[str, Any]
    ) -> list[tuple[Any, dict[str, Any]]]:
        if not isinstance(fn, FunctionType) or not is_user_function(fn):
            return []
        key = (fn, id(receiver)) if receiver is not None else fn
        if key in self._entered:
            return []
        self._entered.add(key)
        return self._read_function(fn, receiver, local)

    def _read_function(
        self, fn: FunctionType, receiver: Any, local: dict[str, Any]
    ) -> list[tuple[Any, dict[str, Any]]]:
        code, label = fn.__code__, fn.__qualname__
        for name in _DEFAULTS:
            value = getattr(fn, name)
            if value is not None:
                called = label if name == "__code__" else f"{label}.{name}"
                self.note(Place("attribute", _held(fn), name, called, _held(value)))
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        defaults = fn.__defaults__ or ()
        first = code.co_argcount - len(defaults)
        known = {**dict(zip(names[first:], defaults)), **(fn.__kwdefaults__ or {}), **local}
        if receiver is not None and names:
            known[names[0]] = receiver
        cells = dict(zip(code.co_freevars, fn.__closure__ or ()))
        return _Scope(self, fn.__globals__, cells, known, code).follow(reads_of(code))

    def space_of(self, kind: type[Any]) -> Any:
        """The names of a class, each time by the same object."""
        return self._spaces.setdefault(kind, vars(kind))

    # -- arrays --------------------------------------------------------------------------------

    def saw(self, value: Any) -> None:
        """Note an array or tensor that is read by name, or as an attribute that is watched."""
        value = _memory(value)
        if value is not None:
            self._arrays[id(value)] = value

    def unseen(self, values: Iterable[Any]) -> list[Any]:
        """Those of the captured tensors that came on no way that is looked at again."""
        return [x for x in values if id(_memory(x)) not in self._arrays]

    # -- places --------------------------------------------------------------------------------

    def note(self, place: Place) -> None:
        """Make a place a condition, once."""
        key = (place.kind, id(_target(place.owner)), place.name)
        known = self._known.get(key)
        if known is None or (known.through is not None and self._through is None):
            self._known[key] = replace(place, through=self._through)

    def finish(self) -> None:
        """Forget what belongs to objects that were made while the function ran, and are gone."""
        self._root = self._through = None
        self._entered.clear()
        self._frames.clear()
        found = self._known.values()
        self.places = [x for x in found if x.through is None or x.through() is not None]
        self._known, self._arrays = {}, {}

    def check(self) -> Callable[[], bool]:
        """One function that says whether every place is as it was."""
        terms: list[str] = []
        space: dict[str, Any] = {"same": same, "unchanged": unchanged}
        for k, place in enumerate(self.places):
            terms.append(_term(k, place, space))
        text = " and ".join(terms) or "True"
        errors = "(AttributeError, KeyError, ValueError)"
        source = f"def check():\n try: return {text}\n except {errors}: return False\n"
        exec(source, space)
        return space["check"]


def _term(k: int, place: Place, space: dict[str, Any]) -> str:
    """The condition of a place as an expression over names in `space`."""
    space[f"o{k}"], space[f"v{k}"] = place.owner, place.value
    owner = f"o{k}()" if type(place.owner) is weakref.ref else f"o{k}"
    if place.kind == "items":
        return f"unchanged({owner}, v{k})"
    if place.kind == "cell":
        read = f"{owner}.cell_contents"
    elif place.kind == "global":
        read = f"{owner}[{place.name!r}]"
    else:
        read = f"{owner}.{place.name}"
    if type(place.value) is weakref.ref:  # gone and absent are different things
        return f"{read} is v{k}() is not None"
    if isinstance(place.value, (*_PLAIN, tuple)):
        return f"((x := {read}) is v{k} or same(x, v{k}))"
    return f"{read} is v{k}"


def _is_callable(x: Any) -> bool:
    kinds = (FunctionType, MethodType, functools.partial, Watched)
    return isinstance(x, kinds) or _wrapped(x) is not None


def _wrapped(x: Any) -> Any:
    """The function that a decorator's result stands for, if it says so."""
    inside = getattr(x, "__dict__", None)
    return inside.get("__wrapped__") if isinstance(inside, dict) else None


def _memory(value: Any) -> Any:
    """The array that owns what an array or tensor shows; None for anything else."""
    array = value._array if isinstance(value, Value) else value
    while isinstance(array, np.ndarray) and isinstance(array.base, np.ndarray):
        array = array.base
    return array if isinstance(array, np.ndarray) else None


def _function_of(defined: Any) -> FunctionType | None:
    """The Python function behind an attribute of a class: a method's, a property's."""
    for name in ("fget", "func", "__func__", "__wrapped__"):
        inner = getattr(defined, name, None)
        defined = inner if inner is not None else defined
    return defined if isinstance(defined, FunctionType) else None


class _Scope:
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
        self._functions: list[tuple[Any, dict[str, Any]]] = []

    def follow(self, wanted: Mapping[Read, bool]) -> list[tuple[Any, dict[str, Any]]]:
        """Look up what is read; gives the functions that were found, with what they know.

        Args:
            wanted: what code reads, and whether more is done with it than to put something in.
        """
        self._used = wanted
        for read in sorted(wanted, key=lambda read: (len(read.path), str(read))):
            self._values_of(read)
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
        elif read.root == "cell":
            cell = self._cells.get(read.name)
            if cell is not None:
                yield from self._note("cell", cell, read.name, read)
        elif read.name in self._globals:
            yield from self._note("global", self._globals, read.name, read)
        else:
            builtins = self._globals.get("__builtins__", {})
            space = builtins if isinstance(builtins, dict) else vars(builtins)
            if read.name in space:
                yield space[read.name]

    def _note(self, kind: str, owner: Any, name: str, read: Read) -> Iterator[Any]:
        """Make a place a condition; gives what is there."""
        label = f"{read} in {self._label}"
        held = _held(owner) if kind == "attribute" else owner
        value = Place(kind, held, name, label, None).now()
        if value is not _ABSENT:
            self._reads.note(Place(kind, held, name, label, _held(value)))
            yield value

    def _step(self, owner: Any, name: str, read: Read) -> Iterator[Any]:
        if name == ITEM:
            if isinstance(owner, _NESTS):
                yield from list(owner.values() if isinstance(owner, dict) else owner)[:_MOST_ITEMS]
        elif isinstance(owner, ModuleType):
            if is_user_module(owner):
                yield from self._note("attribute", owner, name, read)
            elif name in vars(owner):
                yield vars(owner)[name]
        elif not isinstance(owner, (*_OPAQUE, FunctionType)):
            yield from self._attribute(owner, name, read)

    def _attribute(self, owner: Any, name: str, read: Read) -> Iterator[Any]:
        """An attribute of an object or a class, without running code of the user."""
        kind = owner if isinstance(owner, type) else type(owner)
        home = next((c for c in kind.__mro__ if name in vars(c)), object)
        defined = vars(home).get(name, _ABSENT)
        inside: Any = getattr(owner, "__dict__", None)
        is_own = isinstance(inside, dict) and name in inside and not isinstance(owner, type)
        is_slot = type(defined).__name__ == "member_descriptor"
        code = _function_of(defined)
        if code is not None and not is_own:
            if is_users(kind):
                list(self._note("global", self._reads.space_of(home), name, read))
            self._functions.append((MethodType(code, owner), {}))
        elif hasattr(defined, "__set__") and not is_slot:
            return  # a setting, which sees to it itself
        elif isinstance(owner, Watched) and is_own:  # announces changes of its attributes
            yield inside[name]
        elif isinstance(owner, Watched):
            if defined is not _ABSENT and is_users(kind):
                yield from self._note("global", self._reads.space_of(home), name, read)
        elif is_own or is_slot or (is_users(kind) and defined is not _ABSENT):
            yield from self._note("attribute", owner, name, read)

    def _reached(self, value: Any, read: Read) -> None:
        """Look into a value that was found: functions are entered, nests have to stay."""
        self._reads.saw(value)
        if self._reads.effects.see(value, f"{read} in {self._label}, {self._place}"):
            return
        if isinstance(value, _NESTS):
            if not isinstance(value, (tuple, frozenset)) and self._used.get(read, True):
                label = f"{read} in {self._label}"
                place = Place("items", value, "", label, contents(value))
                self._reads.note(place)
            items = list(value.values() if isinstance(value, dict) else value)[:_MOST_ITEMS]
            for item in items:
                self._reads.saw(item)
            self._functions += [(x, {}) for x in items if _is_callable(x)]
        elif _is_callable(value):
            self._functions.append((value, {}))
        elif isinstance(value, type):
            if is_users(value) and isinstance(value.__init__, FunctionType):
                self._functions.append((value.__init__, {}))
        elif is_users(type(value)) and callable(value):
            self._functions.append((value, {}))
