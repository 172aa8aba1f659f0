"""Tensors that the function of a gradient leaves in attributes have no history afterwards.

That is as with the value that `ek.value_and_grad` returns: the gradient was taken, and what is kept
for another one would only cost memory, from step to step.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from einkorn.recording import Value, current_trace
from einkorn.tree import flatten, unflatten

_open: ContextVar[dict[tuple[int, str], Any] | None] = ContextVar(
    "einkorn_left_attributes", default=None
)


def note_set(owner: Any, name: str) -> None:
    """Remember that an attribute of a module or optimizer was set, if a gradient is being taken."""
    found = _open.get()
    if found is not None:
        found[id(owner), name] = owner


@contextmanager
def history_ends() -> Generator[None]:
    """What is set within the block loses its history at the end; blocks inside do nothing more."""
    if _open.get() is not None:
        yield
        return
    found: dict[tuple[int, str], Any] = {}
    token = _open.set(found)
    try:
        yield
    finally:
        _open.reset(token)
    for (_, name), owner in found.items():
        value = _current(owner, name)
        ends, structure = flatten(value)
        if any(map(_has_history, ends)):
            new = [end.detach() if _has_history(end) else end for end in ends]
            setattr(owner, name, unflatten(structure, new))


def _current(owner: Any, name: str) -> Any:
    """What an attribute is, without the notice that it is read."""
    trace = current_trace.get()
    if trace is not None and (write := trace.attributes.written(owner, name)) is not None:
        return write.value
    return vars(owner).get(name)


def _has_history(value: Any) -> bool:
    if not issubclass(type(value), Value) or value._is_cell:
        return False
    return value._tracks if value._trace is not None else value._record is not None
