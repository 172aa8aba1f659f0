"""Attributes of modules and optimizers that a compiled function writes: state like that of leaves.

A write stays in the trace, where reads see it, and becomes an output that every call writes when
the whole step succeeded. What such an attribute held before, a number or tensors, is an input that
is read at each call: a counter that goes up never leads to a new trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from einkorn.captures import Attribute
from einkorn.ir.errors import TraceError
from einkorn.ir.graph import Origin
from einkorn.ir.node import Node, toposort
from einkorn.leaf import Leaf
from einkorn.recording import Value, user_origin
from einkorn.same import ABSENT, MOST_NESTED, held, same, shown, target
from einkorn.seen import CARRIED
from einkorn.tree import END, flatten, unflatten
from einkorn.watched import Watched

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1

MSG_STRUCTURE = (
    "{owner}.{name} was set while {trace} was being traced{where}; modules and leaves are not "
    "exchanged by a compiled call. Make self.{name} in __init__, and write what changes in it: "
    "self.{name} = ek.tensor(..., trainable=False) there, self.{name}.value = ... here"
)
MSG_INSIDE = (
    "{owner}.{name} was set{where}, in a function that a transform or control flow records once "
    "({trace}); a call would not repeat the write. Return the value, and set it outside of that "
    "function; or write it to a leaf, self.{name}.value = ..."
)

Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Write:
    """An attribute that was written, its last value and the line that did."""

    owner: Any
    name: str
    value: Any
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a trace shows in place of an attribute: an input, or a nest with inputs in it."""

    owner: Any
    name: str
    value: Any
    ends: Sequence[Any] = ()
    structure: Any = None


class AttributeState:
    """The attributes that were read as state, or written, while one function is traced."""

    def __init__(self, trace: Any) -> None:
        self._trace = trace
        self._written: dict[Key, Write] = {}
        self._shown: dict[Key, Shown] = {}
        self._nodes: set[Node] = set()  # the inputs that stand for numbers

    # -- reading -------------------------------------------------------------------------------

    def read(self, owner: Any, name: str, there: Any) -> Any:
        """What reading an attribute gives; ABSENT when that is what the object holds.

        Args:
            owner: the object.
            name: of the attribute.
            there: what the object holds.
        """
        write = self.written(owner, name)
        if write is not None:
            return write.value
        home = self._trace
        while home.outer is not None:
            home = home.outer
        return home.attributes._as_state(owner, name, there) if home.carries else ABSENT

    def written(self, owner: Any, name: str) -> Write | None:
        """The write of an attribute, in this trace or one around it; None when there was none."""
        inside = self._trace
        while inside is not None:
            write = inside.attributes._written.get((id(owner), name))
            if write is not None:
                return write
            inside = inside.outer
        return None

    def written_of(self, owner: Any) -> dict[str, Any]:
        """What was written to the attributes of an object, in this trace or those around it."""
        outer = self._trace.outer
        found: dict[str, Any] = {} if outer is None else outer.attributes.written_of(owner)
        writes = self._written.values()
        return found | {x.name: x.value for x in writes if x.owner is owner}

    def _as_state(self, owner: Any, name: str, there: Any) -> Any:
        """The input that stands for an attribute; ABSENT when it is part of the trace."""
        shown = self._shown.get((id(owner), name))
        if shown is None and self._is_carried(owner, name):
            shown = self._stand_in(owner, name, there)
            if shown is not None:
                self._shown[id(owner), name] = shown
                self._trace.seen.state(owner, name, Kind(there))
        return ABSENT if shown is None else shown.value

    def _is_carried(self, owner: Any, name: str) -> bool:
        """Whether steps write an attribute: one has, or the code that is traced says so."""
        reads = self._trace.reads
        if name in object.__getattribute__(owner, "__dict__").get(CARRIED, ()):
            return True
        return reads is not None and reads.writes.sets_attribute(name)

    def _stand_in(self, owner: Any, name: str, there: Any) -> Shown | None:
        if is_number(there):
            number = self._trace.number("number", Attribute(owner, name), there)
            self._nodes.add(number._node)
            return Shown(owner, name, number)
        if is_tensor(there):
            return Shown(owner, name, self._trace.tensor(Attribute(owner, name), there))
        if not isinstance(there, (list, tuple, dict)) or holds_structure(there):
            return None
        ends, structure = flatten(there)
        if not any(map(is_tensor, ends)):
            return None
        new = [
            self._trace.tensor(Attribute(owner, name, k), end) if is_tensor(end) else end
            for k, end in enumerate(ends)
        ]
        return Shown(owner, name, unflatten(structure, new), new, structure)

    def depends(self, value: Value) -> bool:
        """Whether a number of this trace was computed from one in an attribute."""
        nodes, node = self._nodes, value._node
        return bool(nodes) and node is not None and not nodes.isdisjoint(toposort([node]))

    # -- writing -------------------------------------------------------------------------------

    def write(self, owner: Any, name: str, value: Any, origin: Origin | None = None) -> None:
        """Set an attribute for the rest of the trace, and at each call.

        Args:
            owner: the object.
            name: of the attribute.
            value: anything but leaves, modules and nests of them.
            origin: the line that did; by default it is running.
        """
        trace, known = self._trace, {"owner": type(owner).__name__, "name": name}
        old = object.__getattribute__(owner, "__dict__").get(name, ABSENT)
        if holds_structure(value) or holds_structure(old):
            if value is old:
                trace.seen.attribute(owner, name)
                return
            text = MSG_STRUCTURE.format(trace=trace.name, where=_at(user_origin()), **known)
            raise TraceError(text)
        inside = trace.recorded_once
        if inside is not None:
            where = _at(user_origin())
            raise TraceError(MSG_INSIDE.format(trace=inside.name, where=where, **known))
        self._written[id(owner), name] = Write(owner, name, value, origin or user_origin())

    def leave(self) -> list[Write]:
        """What was written, when the function has run; also nests that it changed in place."""
        for key, one in self._shown.items():
            if one.ends and key not in self._written and _is_changed(one):
                self._written[key] = Write(one.owner, one.name, one.value, None)
        for write in self._written.values():
            if holds_structure(write.value):  # put in later
                known = {"owner": type(write.owner).__name__, "name": write.name}
                where = _at(write.origin)
                raise TraceError(MSG_STRUCTURE.format(trace=self._trace.name, where=where, **known))
        return list(self._written.values())


class Kind:
    """What has to stay the same of an attribute that is read at each call.

    The type of a number; dtype and shape of a tensor, and whether it is tracked; in a nest that of
    each tensor, and everything else.
    """

    __slots__ = ("_ends", "_structure")

    def __init__(self, value: Any, tracked: Sequence[bool] | None = None) -> None:
        """
        Args:
            value: what is of this kind.
            tracked: for each end whether it is going to be tracked; by default whether it is.
        """
        ends, self._structure = flatten(value)
        is_whole = self._structure is END
        flags = [False] * len(ends) if tracked is None else tracked
        self._ends = [
            _kind(end, is_whole, end_is_tracked) for end, end_is_tracked in zip(ends, flags)
        ]

    def fits(self, now: Any) -> bool:
        """Whether a value is of this kind."""
        return self.is_same(Kind(now))

    def is_same(self, other: Kind) -> bool:
        """Whether values of two kinds lead to the same trace."""
        is_alike = self._structure == other._structure
        return is_alike and all(map(_is_same_kind, self._ends, other._ends))

    def __str__(self) -> str:
        what, *more = self._ends[0] if self._structure is END else ("nest",)
        if what == "nest":
            return f"a {self._structure[0]}"
        if what == "tensor":
            return f"{more[0]}{' with a history' if more[1] else ''}"
        return f"of type {more[0].__name__}" if what == "number" else shown(target(more[0]))


def _kind(value: Any, is_whole: bool, tracked: bool) -> tuple[Any, ...]:
    if is_whole and is_number(value):
        return "number", type(value)
    if is_tensor(value):
        return "tensor", value._type, tracked or value._tracked() is not None
    return "value", held(value)


def _is_same_kind(now: tuple[Any, ...], then: tuple[Any, ...]) -> bool:
    if now[0] != "value" or then[0] != "value":
        return now == then
    return target(now[1]) is target(then[1]) or same(now[1], then[1])


def _is_changed(shown: Shown) -> bool:
    """Whether code changed a nest in place that it read."""
    ends, structure = flatten(shown.value)
    before, was = shown.ends, shown.structure
    return structure != was or not all(a is b or same(a, b) for a, b in zip(ends, before))


def holds_structure(value: Any, depth: int = 0) -> bool:
    """Whether a value is part of what a module consists of: a leaf, a module, a nest of them."""
    if isinstance(value, (list, tuple, dict)) and depth < MOST_NESTED:
        items = value.values() if isinstance(value, dict) else value
        return any([holds_structure(item, depth + 1) for item in items])
    return isinstance(value, (Leaf, Watched))


def _at(origin: Origin | None) -> str:
    return "" if origin is None else f", at {origin}"


def is_number(value: Any) -> bool:
    """Whether a value can be a number of the run."""
    return type(value) is float or (type(value) is int and INT_MIN <= value <= INT_MAX)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor that has its value, and no leaf."""
    kind = type(value)
    is_value = issubclass(kind, Value) and not issubclass(kind, Leaf)
    return is_value and value._trace is None and not value._weak
