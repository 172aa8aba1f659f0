"""What a trace took from outside: values to bind at each call, and conditions for a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from einkorn.ir.graph import Origin
from einkorn.ir.node import Node


@dataclass(eq=False, slots=True)
class Capture:
    """One value taken from outside: its node and what to bind at each call.

    Attributes:
        node: the `input` node that stands for it.
        kind: "leaf", "setting" (an object and the name of its attribute), "value" (a tensor) or
            "grad" (the gradient of a leaf).
        source: the leaf, the (object, name) pair, or the tensor.
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
