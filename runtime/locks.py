"""The process's locks, in one place so that a forked child can start with new ones.

A lock that another thread held at the moment of a fork would stay locked in the child for ever.
"""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class Locks:
    """All locks that einkorn's Python code holds; re-entrant, one set for each process.

    Attributes:
        state: held while a compiled step that reads or writes leaves runs, while a leaf is written
            and while a random number is drawn outside of a step, so that steps of several threads
            follow each other and never see half of one.
        tracing: held while a function is traced and compiled; taken by `tracing_turn`.
        programs: held while a table of programs or of compiled functions changes.
        hooks: held while what traces hook into is put in or taken out.

    Users' code may run under `state` (callbacks, signal handlers) and under `tracing`. Who has
    `tracing` may wait for `state`, never the other way round; the others are held by code that
    waits for nothing.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start with locks that nobody holds."""
        self.state = threading.RLock()
        self.tracing = threading.RLock()
        self.programs = threading.RLock()
        self.hooks = threading.RLock()

    def tracing_turn(self) -> AbstractContextManager[Any]:
        """What is held while a function is traced, so that no two threads make one trace.

        In the middle of a step a thread (a callback, a signal handler) has nothing to hold: another
        one may hold `tracing` and wait for the end of this step. It then traces beside that one.
        """
        # The lock itself is given, for no interrupt can come between its acquisition and the block.
        return nullcontext() if self.state._is_owned() else self.tracing  # type: ignore[attr-defined] # as threading.Condition does


LOCKS = Locks()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LOCKS.renew)
