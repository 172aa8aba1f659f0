"""What objects of Python hold, read as entries and given back without code of the user."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import CellType, MemberDescriptorType, ModuleType
from typing import Any

from einkorn.same import ABSENT, bare
from einkorn.user_code import is_user_module, is_users

SEQUENCES = (list, set, deque)

Entries = Mapping[Any, Any] | tuple[Any, ...]


def entries_of(value: Any) -> Entries | None:
    """What a value holds, by name or in order; None for what nothing can be put into."""
    if isinstance(value, (*SEQUENCES, tuple)):
        return tuple(value)
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, CellType):
        return {"": value.cell_contents} if is_filled(value) else {}
    if isinstance(value, ContextVar):
        found = value.get(ABSENT)
        return {} if found is ABSENT else {"": found}
    if isinstance(value, type):
        return dict(vars(value)) if is_users(value) else None
    if isinstance(value, ModuleType):
        return dict(vars(value)) if is_user_module(value) else None
    return attributes(value)


def attributes(value: Any) -> dict[str, Any] | None:
    """The attributes that an object has itself, those in slots included."""
    inside: Any = bare(value, "__dict__")
    slots = {name: bare(value, name, ABSENT) for name in _slots(type(value))}
    if not isinstance(inside, dict) and not slots:
        return None
    filled = {name: x for name, x in slots.items() if x is not ABSENT}
    return {**(inside if isinstance(inside, dict) else {}), **filled}


def is_filled(cell: Any) -> bool:
    """Whether there is a value in a cell."""
    try:
        return cell.cell_contents is not ABSENT
    except ValueError:
        return False


def _slots(kind: type[Any]) -> Iterator[str]:
    """The names of the slots of classes of the user."""
    for base in kind.__mro__:
        if is_users(base):
            found = vars(base).items()
            yield from (name for name, x in found if isinstance(x, MemberDescriptorType))


def refill(nest: Any, items: tuple[Any, ...]) -> None:
    """Give a list or set back its items."""
    if isinstance(nest, list):
        nest[:] = items
    else:
        nest.clear()
        (nest.update if isinstance(nest, set) else nest.extend)(items)


def put(owner: Any, name: Any, value: Any) -> None:
    """Set an entry, or delete it when `value` is ABSENT, without code of the user."""
    if isinstance(owner, CellType):
        if value is ABSENT:
            del owner.cell_contents
        else:
            owner.cell_contents = value
    elif isinstance(owner, ContextVar):
        owner.set(None if value is ABSENT else value)
    elif isinstance(owner, type):
        _set_attribute(type, owner, name, value)
    elif isinstance(owner, (dict, ModuleType)) or name in bare(owner, "__dict__", ()):
        entries: Any = owner if isinstance(owner, dict) else vars(owner)
        if value is ABSENT:
            dict.pop(entries, name, None)
        else:
            dict.__setitem__(entries, name, value)
    else:
        _set_attribute(object, owner, name, value)


def _set_attribute(kind: Any, owner: Any, name: str, value: Any) -> None:
    """Set or delete an attribute as `kind`, object or type, does."""
    if value is ABSENT:
        kind.__delattr__(owner, name)
    else:
        kind.__setattr__(owner, name, value)
