"""Elegy's hooks and contexts: what is collected, whether modules train, and where keys come from.

They hold for the thread or the asyncio task.
"""

from __future__ import annotations

from collections.abc import Generator as Yields
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from einkorn import random
from einkorn.collector import Collector, current_collector, open_collector
from einkorn.convert import as_flag
from einkorn.ir.errors import EinkornError
from einkorn.nn.hooks import (
    add_loss,
    add_metric,
    add_summary,
    next_rng_key,
    training,
    training_context,
)
from einkorn.random.generator import Generator, Key, put_in_use
from einkorn.recording import current_trace
from einkorn.surroundings import surroundings
from einkorn.tunable import module_path

__all__ = [
    "RNG",
    "DynamicContext",
    "StaticContext",
    "add_loss",
    "add_metric",
    "add_summary",
    "can_update",
    "get_dynamic_context",
    "get_losses",
    "get_metrics",
    "get_rng",
    "get_static_context",
    "get_summaries",
    "hooks_context",
    "init_context",
    "is_initializing",
    "is_training",
    "name_context",
    "next_rng_key",
    "rng_context",
    "set_context",
    "set_rng",
    "set_static_context",
    "set_training",
    "training",
    "training_context",
]

is_training = training
# Whether this is a first call, and whether `update_parameter` writes.
_initializing: ContextVar[tuple[bool, bool]] = ContextVar("elegy_init", default=(False, True))

# -- what is collected -----------------------------------------------------------------------------


@contextmanager
def hooks_context(summaries: bool = False) -> Yields[None]:
    """Within the block hooks add to what `get_losses` and the like give.

    Args:
        summaries: whether `get_summaries` gives what modules return, too.
    """
    token = open_collector.set(Collector(outputs=as_flag("hooks_context", "summaries", summaries)))
    try:
        yield
    finally:
        open_collector.reset(token)


def get_losses() -> dict[str, Any] | None:
    """The losses that were added so far, by name; None outside of a `hooks_context`."""
    found = current_collector()
    return None if found is None else found.losses


def get_metrics() -> dict[str, Any] | None:
    """The metrics that were added so far, by name; None outside of a `hooks_context`."""
    found = current_collector()
    return None if found is None else found.metrics


def get_summaries() -> list[tuple[None, str, Any]] | None:
    """(None, name, value) for what modules returned and what was added; None without summaries."""
    found = current_collector()
    if found is None or found.wanted < 2:
        return None
    return [(None, name, x) for name, x in {**found.outputs, **found.summaries}.items()]


@contextmanager
def name_context(name: str) -> Yields[str]:
    """Within the block names of metrics and losses have this one in front."""
    if not isinstance(name, str) or not name:
        raise EinkornError(f"name_context: a name is text that is not empty, got {name!r}")
    token = module_path.set(f"{module_path.get() or 'context'}/{name}")
    try:
        yield name
    finally:
        module_path.reset(token)


# -- modes -----------------------------------------------------------------------------------------


def set_training(training: bool) -> None:
    """From here on all modules train, or none."""
    flag = as_flag("set_training", "training", training)
    surroundings.set(surroundings.get()._replace(training=flag))


@contextmanager
def init_context(can_update: bool = True) -> Yields[None]:
    """Within the block calls count as first ones, and may leave state as it is."""
    token = _initializing.set((True, as_flag("init_context", "can_update", can_update)))
    try:
        yield
    finally:
        _initializing.reset(token)


def is_initializing() -> bool:
    """Whether an `init_context` is around."""
    return _known()[0]


def can_update() -> bool:
    """Whether `update_parameter` writes."""
    return _known()[1]


def _known() -> tuple[bool, bool]:
    found, trace = _initializing.get(), current_trace.get()
    if trace is not None:
        reason = f"init_context: initializing was {found[0]}, can_update {found[1]}"
        trace.guard_call("init_context", lambda: _initializing.get() == found, reason)
    return found


# -- keys ------------------------------------------------------------------------------------------


class RNG(Generator):
    """A generator; calling it gives a key that it has never given before."""

    def __call__(self) -> Key:
        return self.next_key()


def rng_context(rng: Generator) -> AbstractContextManager[None]:
    """Within the block draws and keys come from this generator."""
    return random.use(rng)


def get_rng() -> Generator:
    """The generator that draws here."""
    return random.default_generator()


def set_rng(rng: Generator) -> None:
    """From here on draws and keys come from this generator."""
    put_in_use(rng)


# -- all of it -------------------------------------------------------------------------------------


class StaticContext(NamedTuple):
    """What decides about a trace."""

    training: bool
    initializing: bool
    can_update: bool


class DynamicContext(NamedTuple):
    """What a compiled call takes and gives back."""

    rng: Generator


def get_static_context() -> StaticContext:
    """The modes here."""
    return StaticContext(is_training(), is_initializing(), can_update())


def set_static_context(static: StaticContext) -> None:
    """From here on these modes hold."""
    set_training(static.training)
    _initializing.set((static.initializing, static.can_update))


def get_dynamic_context() -> DynamicContext:
    """The generator here."""
    return DynamicContext(get_rng())


def set_context(static: StaticContext, dynamic: DynamicContext) -> None:
    """From here on these modes and this generator hold."""
    set_static_context(static)
    set_rng(dynamic.rng)
