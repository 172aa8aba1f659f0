"""Attributes of modules and optimizers that are set within a block, and what becomes of them.

What the function of a gradient leaves there has no history afterwards, as the value that
`ek.value_and_grad` returns: the gradient was taken, and what is kept for another one would only
cost memory, from step to step.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from einkorn.recording import Value, current_trace
from einkorn.tree import flatten, unflatten

Found = dict[tuple[int, str], Any]  # the object that has it, by its id and the attribute's name

_open: ContextVar[tuple[Found, ...]] = ContextVar("einkorn_left_attributes", default=())


def note_set(owner: Any, name: str) -> None:
    """Remember that an attribute of a module or optimizer is set, for the blocks around."""
    for found in _open.get():
        found[id(owner), name] = owner


@contextmanager
def sets_noted() -> Generator[Found]:
    """Gives what is set within the block."""
    found: Found = {}
    token = _open.set((*_open.get(), found))
    try:
        yield found
    finally:
        _open.reset(token)


def left_in(found: Found) -> Iterator[tuple[Any, str, Any]]:
    """The object, name and value of each attribute that was set, as it is now."""
    for (_, name), owner in found.items():
        trace = current_trace.get()
        write = None if trace is None else trace.attributes.written(owner, name)
        yield owner, name, vars(owner).get(name) if write is None else write.value


@contextmanager
def history_ends() -> Generator[None]:
    """What is set within the block loses its history at the end."""
    with sets_noted() as found:
        yield
    for owner, name, value in list(left_in(found)):
        ends, structure = flatten(value)
        if any(map(_has_history, ends)):
            new = [end.detach() if _has_history(end) else end for end in ends]
            setattr(owner, name, unflatten(structure, new))


def _has_history(value: Any) -> bool:
    if not issubclass(type(value), Value) or value._is_cell:
        return False
    return value._tracks if value._trace is not None else value._record is not None
