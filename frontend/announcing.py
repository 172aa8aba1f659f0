"""The `__dict__` of objects whose attributes traces read.

`vars(model)["layer"] = other` and `model.__dict__.update(...)` pass by `__setattr__`; this dict
tells compiled functions of them. Attribute access itself uses the dict from C, at no cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einkorn.epochs import modules_changed, settings_changed, structure_changed

OWN = "_ek_"  # how the names of einkorn's bookkeeping begin


class Announcing(dict[str, Any]):
    """A dict whose methods announce that attributes change."""

    __slots__ = ()

    def __setitem__(self, name: str, value: Any) -> None:
        dict.__setitem__(self, name, value)
        _announce(name)

    def __delitem__(self, name: str) -> None:
        dict.__delitem__(self, name)
        _announce(name)

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def update(self, *args: Any, **named: Any) -> None:
        found = dict(*args, **named)
        dict.update(self, found)
        for name in found:
            _announce(name)

    def __ior__(self, other: Any) -> Announcing:
        self.update(other)
        return self

    def pop(self, name: str, *default: Any) -> Any:
        found = dict.pop(self, name, *default)
        _announce(name)
        return found

    def popitem(self) -> tuple[str, Any]:
        found = dict.popitem(self)
        _announce(found[0])
        return found

    def clear(self) -> None:
        dict.clear(self)
        _announce("")


class Shown(dict[str, Any]):
    """A copy of such a dict for the code of a trace, which cannot change it.

    Args:
        found: the attributes, as the trace sees them.
        refuse: raises the error of a change.
    """

    def __init__(self, found: dict[str, Any], refuse: Callable[[], None]) -> None:
        super().__init__(found)
        self._refuse = refuse

    def _change(self, *_args: Any, **_named: Any) -> Any:
        self._refuse()

    __setitem__ = __delitem__ = __ior__ = pop = popitem = clear = _change
    setdefault: Any = _change
    update: Any = _change


def put(state: dict[str, Any], name: str, value: Any) -> None:
    """Set an attribute for one that announces the change itself."""
    dict.__setitem__(state, name, value)


def _announce(name: str) -> None:
    if not name.startswith(OWN):
        modules_changed()
        structure_changed()
        settings_changed()
