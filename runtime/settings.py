"""The settings: read from the environment once, in this file only, and overridden in a scope.

EINKORN_COMPILE=0          run compiled functions eagerly
EINKORN_THREADS=n          threads for one step; default: the CPUs this process may use
EINKORN_DUMP=folder        write every stage of every compilation there, its kernels and reports
EINKORN_DUMP_AFTER=stage   write only that stage, or print it to stderr without a folder
EINKORN_VERIFY=1           verify the graph after every pass
EINKORN_FUEL=n             allow only the first n rewrites of a compilation
EINKORN_TRACEBACK=full     show einkorn's own frames in tracebacks; default: folded
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from einkorn.ir.errors import EinkornError

TRACEBACKS = ("folded", "full")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; the environment variables are named after the fields."""

    compile: bool = True
    threads: int = 1
    dump: str = ""
    dump_after: str = ""
    verify: bool = False
    fuel: int | None = None
    traceback: str = "folded"


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("use 0 or 1")
    return text == "1"


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _traceback(text: str) -> str:
    if text not in TRACEBACKS:
        raise ValueError(f"use {' or '.join(TRACEBACKS)}")
    return text


_READERS = {
    "compile": _flag,
    "threads": lambda text: max(1, _count(text)),
    "dump": str,
    "dump_after": str,
    "verify": _flag,
    "fuel": _count,
    "traceback": _traceback,
}


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings that environment variables ask for; EinkornError names a bad one."""
    found: dict[str, Any] = {"threads": available_cpus()}
    for field, read in _READERS.items():
        name = f"EINKORN_{field.upper()}"
        text = environment.get(name)
        if text is None:
            continue
        try:
            found[field] = read(text)
        except ValueError as error:
            raise EinkornError(f"{name}={text!r} is not understood: {error}") from None
    return Settings(**found)


def available_cpus() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_default = from_environment(os.environ)
_current: ContextVar[Settings | None] = ContextVar("einkorn_settings", default=None)


def current() -> Settings:
    """The settings in force here."""
    return _current.get() or _default


def check_threads(threads: object) -> None:
    """EinkornError unless `threads` is an integer of at least 1."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise EinkornError(f"threads is an integer of at least 1, got {threads!r}")


@contextmanager
def override(**changes: Any) -> Generator[Settings]:
    """Change settings within a `with` block: `with ek.settings(threads=1): ...`."""
    unknown = set(changes) - set(_READERS)
    if unknown:
        known = ", ".join(_READERS)
        raise EinkornError(f"no setting named {', '.join(sorted(unknown))}; there are {known}")
    if "threads" in changes:
        check_threads(changes["threads"])
    if changes.get("traceback", "full") not in TRACEBACKS:
        raise EinkornError(f"traceback is 'folded' or 'full', got {changes['traceback']!r}")
    token = _current.set(replace(current(), **changes))
    try:
        yield current()
    finally:
        _current.reset(token)
