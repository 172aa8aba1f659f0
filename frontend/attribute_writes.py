"""Attributes that each call of a trace writes, when the whole step succeeded."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.announcing import put
from einkorn.attribute_state import Kind, Write
from einkorn.epochs import modules_changed, structure_changed
from einkorn.ir.dtypes import int64
from einkorn.ir.errors import TraceError
from einkorn.ir.sizes import Size
from einkorn.ir.types import TensorType
from einkorn.leaf import Leaf
from einkorn.left_attributes import note_set
from einkorn.lengths import sized_number
from einkorn.python_writes import traced_in
from einkorn.recording import Record, Value, result
from einkorn.same import ABSENT, same
from einkorn.seen import CARRIED, is_constant_of, is_observed
from einkorn.tree import flatten, unflatten

Array = np.ndarray[Any, Any]

MSG_HIDDEN = (
    "{owner}.{name} was set while {trace} was being traced{where}, to an object of type {kind} "
    "that holds a traced tensor; keep tensors in the attribute itself, or in a tuple, list, dict "
    "or dataclass"
)


@dataclass(frozen=True, slots=True)
class Output:
    """Stands for an output of the step; `is_number` for one that is a number of Python."""

    position: int
    is_number: bool


class Written:
    """One attribute that is written: the object, the name, and what its value is made of.

    Attributes:
        name: of the attribute.
        label: for people.
        origin: the line that set it.
        structure: how the value is nested.
        ends: its ends, with an Output for each tensor.
    """

    def __init__(self, write: Write, structure: Any, ends: Sequence[Any]) -> None:
        self._held = weakref.ref(write.owner)
        self.name, self.origin = write.name, write.origin
        self.label = f"{type(write.owner).__name__}.{write.name}"
        self.structure, self.ends = structure, ends
        self._tracked = [False] * len(ends)

    @property
    def positions(self) -> list[int]:
        """Which outputs of the step it takes."""
        return [x.position for x in self.ends if isinstance(x, Output)]

    @property
    def where(self) -> str:
        """The line that set it, for messages."""
        return "" if self.origin is None else f", at {self.origin}"

    @property
    def owner(self) -> Any:
        """The object; None when it is gone."""
        return self._held()

    def rebuilt(self, tensors: Sequence[Any]) -> Any:
        """The value with these tensors; arrays that NumPy made are copied for each call."""
        return unflatten(self.structure, [_end(x, tensors) for x in self.ends])

    def commit(self, arrays: Sequence[Array], types: Sequence[TensorType]) -> None:
        """Set the attribute to what a call computed; once more does no harm."""
        owner = self._held()
        if owner is None:
            return
        new = unflatten(self.structure, [_concrete(x, arrays, types) for x in self.ends])
        state = vars(owner)
        old = state.get(self.name, ABSENT)
        put(state, self.name, new)
        state.setdefault(CARRIED, set()).add(self.name)
        note_set(owner, self.name)  # in a gradient around the call
        if is_constant_of(state, self.name):
            is_other = not (old is new or same(old, new))
        else:
            kind = Kind(new, self._tracked)
            is_other = is_observed(state, self.name) and not kind.is_same(Kind(old))
        if isinstance(new, (list, tuple, dict)) or isinstance(old, (list, tuple, dict)):
            modules_changed()
        if is_other:
            structure_changed()

    def track(self, tracked: Sequence[bool]) -> None:
        """Note which outputs are tracked."""
        self._tracked = [isinstance(x, Output) and tracked[x.position] for x in self.ends]

    def attach(self, records: Sequence[Record | None]) -> None:
        """Give the tensors that were set the records of the outputs that they are."""
        ends = flatten(vars(self._held()).get(self.name))[0] if self._held() is not None else ()
        for x, end in zip(self.ends, ends):
            if isinstance(x, Output) and not x.is_number and records[x.position] is not None:
                end._record = records[x.position]


def outputs_of(
    trace: Any, writes: Iterable[Write], outputs: list[Any]
) -> tuple[list[Written], list[Any]]:
    """How each written value is made of outputs, and the outputs with those that it needs.

    Args:
        trace: in which they were written.
        writes: what was.
        outputs: the tensors that the function returns.
    """
    found = list(outputs)
    places = {id(x): k for k, x in reversed(list(enumerate(found)))}
    written: list[Written] = []
    for write in writes:
        ends, structure = flatten(write.value)
        for k, end in enumerate(ends):
            if issubclass(type(end), Size):
                end = sized_number(end, int64, weak=True)
            if issubclass(type(end), Value) and not isinstance(end, Leaf):
                if trace.encloses(end._trace):  # what is around will write it
                    continue
                trace.node_of(end)
                if id(end) not in places:
                    places[id(end)] = len(found)
                    found.append(end)
                ends[k] = Output(places[id(end)], end._weak)
            elif traced_in(end, trace) is not None:
                raise _hidden(trace, write, end)
        written.append(Written(write, structure, ends))
    return written, found


def _hidden(trace: Any, write: Write, end: Any) -> TraceError:
    where = "" if write.origin is None else f", at {write.origin}"
    owner, kind = type(write.owner).__name__, type(end).__name__
    text = MSG_HIDDEN.format(owner=owner, name=write.name, trace=trace.name, where=where, kind=kind)
    return TraceError(text)


def _end(x: Any, tensors: Sequence[Any]) -> Any:
    if isinstance(x, Output):
        return tensors[x.position]
    return x.copy() if isinstance(x, np.ndarray) else x


def _concrete(x: Any, arrays: Sequence[Array], types: Sequence[TensorType]) -> Any:
    if isinstance(x, Output):
        array = arrays[x.position]
        return array.item() if x.is_number else result(types[x.position], array)
    return x.copy() if isinstance(x, np.ndarray) else x
