"""`Watched`: objects whose attributes traces read, so that a later change leads to a new trace.

While something is traced, an attribute that is read becomes a condition of the trace, and so do the
items of a list, tuple or dict: they have to be the same at each call. A call with other
values lets attributes show stand-ins, in its own context only. At other times a read costs nothing
more, because the hook exists only while a trace or such a call is open.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from einkorn.announcing import Announcing, Shown
from einkorn.container import Container
from einkorn.epochs import modules_changed, structure_changed
from einkorn.ir.errors import TraceError
from einkorn.left_attributes import note_set
from einkorn.recording import current_trace, user_origin
from einkorn.runtime.locks import LOCKS
from einkorn.same import ABSENT, contents, holds_items, is_same, kept_contents
from einkorn.seen import CARRIED, OBSERVED, is_observed
from einkorn.user_code import is_user_space

# The entry of an object's `__dict__` with the trace it was made in.
BIRTH = "_ek_birth"

MSG_GONE = (
    "{owner}.{name} was {what} while {trace} was being traced, at {where}; a compiled call would "
    "not repeat this. Set an attribute to None to say that it has no value, and delete it outside"
)

MSG_DICT = (
    "{owner}.__dict__ was changed while {trace} was being traced, at {where}; a compiled call "
    "would not repeat this. Set the attribute itself: self.name = ..., or setattr(self, name, ...)"
)

# Values that attributes show in place of their own: by the id of the object, then by name.
_stand_ins: ContextVar[Mapping[int, Mapping[str, Any]] | None] = ContextVar(
    "einkorn_stand_ins", default=None
)
_open_reads = [0]  # blocks that need the hook


class Watched:
    """The base of Module and Optimizer."""

    if TYPE_CHECKING:
        __dict__: dict[str, Any]

    else:

        def __new__(cls, *args: Any, **named: Any) -> Any:
            new = object.__new__(cls)
            object.__setattr__(new, "__dict__", Announcing())
            return new

    def __setattr__(self, name: str, value: Any) -> None:
        state = self.__dict__
        if name == "__dict__":
            _refuse_in_trace(self, name, "exchanged")
            object.__setattr__(self, name, Announcing(value))
            modules_changed()
            structure_changed()
        elif _decides_itself(type(self), name):
            object.__setattr__(self, name, value)
        elif not is_carried(self, name, value) and (
            name not in state or not is_same(state[name], value)
        ):
            object.__setattr__(self, name, value)
            if is_observed(state, name):
                structure_changed()

    def __delattr__(self, name: str) -> None:
        _refuse_in_trace(self, name, "deleted")
        object.__delattr__(self, name)
        if is_observed(self.__dict__, name):
            structure_changed()


def note_birth(new: Any) -> None:
    """Remember the trace in which an object is made: that trace may set its attributes."""
    trace = current_trace.get()
    if trace is not None:
        new.__dict__[BIRTH] = weakref.ref(trace)


def made_in(state: dict[str, Any], trace: Any) -> bool:
    """Whether an object, given by its `__dict__`, was made in a trace or in one around it."""
    birth = state[BIRTH]() if BIRTH in state else None
    while trace is not None and trace is not birth:
        trace = trace.outer
    return trace is not None


def _decides_itself(owner: type, name: str) -> bool:
    """Whether an attribute is a property or a setting, which sees to its writes."""
    return hasattr(getattr(owner, name, None), "__set__")


def is_carried(owner: Any, name: str, value: Any) -> bool:
    """Whether a trace takes the write of an attribute, to let each call do it."""
    note_set(owner, name)
    trace = current_trace.get()
    if trace is None or made_in(owner.__dict__, trace) or _decides_itself(type(owner), name):
        return False
    trace.attributes.write(owner, name, value)
    return True


def _refuse_in_trace(owner: Any, name: str, what: str) -> None:
    """TraceError for a change that only the trace would do, not the calls after it."""
    trace = current_trace.get()
    if trace is None or made_in(owner.__dict__, trace):
        return
    if not _decides_itself(type(owner), name):
        kind, where = type(owner).__name__, user_origin() or "an unknown place"
        raise TraceError(
            MSG_GONE.format(owner=kind, name=name, what=what, trace=trace.name, where=where)
        )


def _read(self: Any, name: str) -> Any:
    """`__getattribute__` of watched objects while their reads are seen somewhere."""
    trace = current_trace.get()
    if name.startswith("__") and name.endswith("__"):
        found = object.__getattribute__(self, name)
        if trace is None or name != "__dict__" or not _asked_by_user():
            return found
        trace.seen.whole(self)
        return found if made_in(found, trace) else _shown(self, found, trace)
    if trace is not None:
        value = _read_in_trace(self, name, trace)
        if value is not ABSENT:
            return value
    found = _stand_ins.get()
    if found is not None and id(self) in found and name in found[id(self)]:
        return found[id(self)][name]
    return object.__getattribute__(self, name)


def _asked_by_user() -> bool:
    """Whether code of the user asks for an attribute, other than in its own `__getattribute__`."""
    frame = sys._getframe(2)
    while frame.f_code.co_name == "__getattribute__" and frame.f_back is not None:
        frame = frame.f_back
    return is_user_space(frame.f_globals)


def _shown(owner: Any, state: dict[str, Any], trace: Any) -> Shown:
    """The attributes of an object as a trace sees them, which refuse changes."""

    def refuse() -> None:
        kind, where = type(owner).__name__, user_origin() or "an unknown place"
        raise TraceError(MSG_DICT.format(owner=kind, trace=trace.name, where=where))

    own = {name: x for name, x in state.items() if name not in (OBSERVED, CARRIED)}
    return Shown(own | trace.attributes.written_of(owner), refuse)


def _read_in_trace(owner: Any, name: str, trace: Any) -> Any:
    """What an attribute is in a trace; ABSENT when it is what the object holds."""
    state = object.__getattribute__(owner, "__dict__")
    if made_in(state, trace) or _decides_itself(type(owner), name):
        return ABSENT
    value = state.get(name, ABSENT)
    shown = trace.attributes.read(owner, name, value)
    if shown is not ABSENT:
        return shown
    trace.seen.attribute(owner, name)
    if isinstance(value, (list, tuple, dict)):
        guard_items(trace, f"{type(owner).__name__}.{name}", value)
    elif trace.reads is not None:
        trace.reads.saw(value)
    return ABSENT


@contextmanager
def reads_watched() -> Generator[None]:
    """Within the block reads of watched objects are seen."""
    with LOCKS.hooks:
        _open_reads[0] += 1
        if _open_reads[0] == 1:
            Watched.__getattribute__ = _read  # type: ignore[method-assign] # the hook
    try:
        yield
    finally:
        with LOCKS.hooks:
            _open_reads[0] -= 1
            if _open_reads[0] == 0:
                del Watched.__getattribute__


@contextmanager
def showing(stand_ins: Mapping[int, Mapping[str, Any]]) -> Generator[None]:
    """Within the block, in this context, attributes of objects show other values.

    Args:
        stand_ins: by the id of the object, then by the attribute's name.
    """
    outer = _stand_ins.get() or {}
    inner = {key: {**outer.get(key, {}), **found} for key, found in stand_ins.items()}
    token = _stand_ins.set({**outer, **inner})
    try:
        with reads_watched():
            yield
    finally:
        _stand_ins.reset(token)


def guard_items(trace: Any, label: str, nest: Any) -> None:
    """Make the items of a list, tuple or dict, and of those inside, a condition of the trace."""
    nests = [(inner, kept_contents(inner)) for inner in _nests(nest, set())]
    if trace.reads is not None:
        for item in (*contents(nest), *(x for _, items in nests for x in items)):
            trace.reads.saw(item)
    if nests:
        trace.guard_call(("items", id(nest)), holds_items(nests), f"the items of {label}")


def _nests(nest: Any, seen: set[int]) -> Iterator[Any]:
    """The lists and dicts of a nest; Containers that show live leaves keep their keys."""
    if id(nest) in seen or (isinstance(nest, Container) and nest._live):
        return
    seen.add(id(nest))
    if not isinstance(nest, tuple):
        yield nest
    for item in nest.values() if isinstance(nest, dict) else nest:
        if isinstance(item, (list, tuple, dict)):
            yield from _nests(item, seen)
