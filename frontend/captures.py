"""What a trace takes from outside, and what it holds for."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from einkorn.epochs import settings_changed
from einkorn.ir.graph import Origin
from einkorn.ir.node import Node
from einkorn.same import ABSENT, is_same
from einkorn.tree import flatten


class Attribute:
    """An attribute of an object that is kept alive by others.

    Attributes:
        name: of the attribute.
        position: of an end of the nest that the attribute is; None for a value that is no nest.
        key: equal for the same attribute, while the object lives.
        held: gives the object; None when it is gone.
    """

    __slots__ = ("held", "key", "name", "position")

    def __init__(
        self,
        owner: Any,
        name: str,
        position: int | None = None,
        gone: Callable[[Any], None] | None = None,
    ) -> None:
        """
        Args:
            gone: called when the object is gone.
        """
        self.held = weakref.ref(owner, gone)
        self.name, self.position = name, position
        self.key = (id(owner), name, position)

    @property
    def value(self) -> Any:
        """What the attribute is now; None when it is gone."""
        found = getattr(self.held(), "__dict__", {}).get(self.name)
        if self.position is None:
            return found
        ends = flatten(found)[0]
        return ends[self.position] if self.position < len(ends) else None


@dataclass(eq=False, slots=True)
class Capture:
    """One value taken from outside: its node and what to bind at each call.

    Attributes:
        node: the `input` node that stands for it.
        kind: "leaf", "setting" (a number that announces itself), "number" or "attribute" (a number
            or tensor in an attribute that steps write), "value" (a tensor) or "grad" (the gradient
            of a leaf).
        source: the leaf, the `Attribute`, or the tensor.
        origin: the user's line that used a tensor.
    """

    node: Node
    kind: str
    source: Any
    origin: Origin | None = None


@dataclass(eq=False, slots=True)
class Guard:
    """Something that must be as it was when the function was traced.

    Attributes:
        holds: whether it is.
        reason: what it is, for people.
        announced: whether `settings_changed` is called when it may have changed; it need not be
            looked at in between.
    """

    holds: Callable[[], bool]
    reason: str
    announced: bool = False


def attribute_guard(owner: Any, name: str, value: Any, announced: bool) -> Guard:
    """The condition that an attribute of an object, which lives by itself, has this value."""
    by_value = isinstance(value, (bool, int, float, str, type(None)))
    held = weakref.ref(owner, settings_gone)  # a trace keeps no model alive

    def holds() -> bool:
        now = getattr(held(), "__dict__", {}).get(name, ABSENT)
        return now is value or (by_value and is_same(now, value))

    return Guard(holds, f"{type(owner).__name__}.{name} was {value!r}", announced)


def settings_gone(_: Any) -> None:
    """An object whose settings are guarded is gone."""
    settings_changed()
