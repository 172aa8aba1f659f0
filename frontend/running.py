"""Which module's `forward` is running, and how many modules it has made so far."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any


class Call:
    """One run of a module's `forward`.

    Attributes:
        module: whose it is.
        made: how many modules it has made.
        asked: the names of the parameters and buffers that it has asked for.
        turn: what the first one that makes modules holds to keep other threads out.
        compiled: whether it is inside of a compiled function that `forward` calls, whose Python
            code does not run each time.
    """

    __slots__ = ("asked", "compiled", "made", "module", "turn")

    def __init__(self, module: Any, compiled: bool = False) -> None:
        self.module, self.compiled = module, compiled
        self.made = 0
        self.asked: tuple[str, ...] = ()
        self.turn: Any = None


current_call: ContextVar[Call | None] = ContextVar("einkorn_call", default=None)
