"""What blocks around a call decide about it: a compiled function has a trace for each.

They belong to the thread or the asyncio task.
"""

from __future__ import annotations

from collections.abc import Generator as Yields
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Surroundings(NamedTuple):
    """What was decided.

    Attributes:
        training: whether every module trains; None leaves it to each.
        generator: the id of the key of the generator that draws; 0 for the global one.
    """

    training: bool | None = None
    generator: int = 0


NONE = Surroundings()
surroundings: ContextVar[Surroundings] = ContextVar("einkorn_surroundings", default=NONE)


@contextmanager
def surrounded(new: Surroundings) -> Yields[None]:
    """Within the block this is decided."""
    token = surroundings.set(new)
    try:
        yield
    finally:
        surroundings.reset(token)
