"""The process's locks, in one place so that a forked child can start with new ones.

A lock that another thread held at the moment of a fork would stay locked in the child for ever.
"""

from __future__ import annotations

import os
import threading


class Locks:
    """All locks that einkorn's Python code holds; re-entrant, one set for each process.

    Attributes:
        state: held while a compiled step that reads or writes leaves runs, and while a leaf is
            written, so that steps of several threads follow each other and never see half of one.
        tracing: held while a function is traced and compiled.
        programs: held while the table of compiled programs changes.
        draws: held while a random draw is made, so that two threads never take the same one.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start with locks that nobody holds."""
        self.state = threading.RLock()
        self.tracing = threading.RLock()
        self.programs = threading.RLock()
        self.draws = threading.RLock()


LOCKS = Locks()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LOCKS.renew)
