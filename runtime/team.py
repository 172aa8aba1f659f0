"""The thread team: persistent native workers that take part in the native driver's jobs.

There is one team in a process. Its workers are native threads that never run Python; they and
their callers meet as `einkorn.codegen.llvm.driver` describes. Workers sleep when there is nothing
to do, are joined at exit before any code is freed, and are not inherited by a forked child, which
makes a team of its own when it needs one.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from einkorn.codegen.llvm import driver_phrases as words
from einkorn.codegen.llvm.driver import driver_text
from einkorn.codegen.llvm.objects import host_features, load_all

SPIN_SECONDS = 50e-6  # a sleeping worker takes about 42e-6 to wake, measured
_SYNCHRONOUS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP")

Run = Callable[[int], int]


@lru_cache(maxsize=1)
def _native() -> tuple[int, int, int]:
    """The addresses of the driver's `run`, `worker` and `pause`."""
    text = driver_text(host_features().triple)
    run, worker, pause = load_all(text, ("run", "worker", "pause"))
    return run, worker, pause


def run_address() -> int:
    """The address of the driver's `run(block)`, for kernels that run nested programs."""
    return _native()[0]


@lru_cache(maxsize=1)
def run_function() -> tuple[Run, Run]:
    """The driver's `run(block)`, releasing the GIL while it runs, and keeping it."""
    address = _native()[0]
    releasing = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)
    keeping = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)
    return releasing, keeping


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    pointer = ctypes.c_void_p
    libc.pthread_create.argtypes = [ctypes.POINTER(pointer), pointer, pointer, pointer]
    libc.pthread_join.argtypes = [pointer, pointer]
    for name in ("pthread_mutex_init", "pthread_cond_init"):
        getattr(libc, name).argtypes = [pointer, pointer]
    for name in ("pthread_mutex_lock", "pthread_mutex_unlock", "pthread_cond_broadcast"):
        getattr(libc, name).argtypes = [pointer]
    return libc


@lru_cache(maxsize=1)
def _spins() -> int:
    """How many pauses take `SPIN_SECONDS`: one takes 3 to 60 ns, depending on the CPU."""
    pause = ctypes.PYFUNCTYPE(None, ctypes.c_int64)(_native()[2])  # not interrupted by Python
    best, times = float("inf"), 1000
    for _ in range(5):
        start = time.perf_counter()
        pause(times)
        best = min(best, time.perf_counter() - start)
    return max(100, round(SPIN_SECONDS / best * times))


class Team:
    """Native workers and the struct that they share with their callers.

    Attributes:
        address: where the struct is; for `block[TEAM]`.
    """

    def __init__(self) -> None:
        self._memory = _immortal_words(words.TEAM_WORDS)
        self.address = int(self._memory.ctypes.data)
        self._threads: list[ctypes.c_void_p] = []
        self._refused = False
        libc = _libc()
        for word, name in enumerate(words.LIBC):
            function = ctypes.cast(getattr(libc, name), ctypes.c_void_p).value
            self._memory[word] = function or 0
        self._memory[words.SPINS] = _spins()
        libc.pthread_mutex_init(self._at(words.MUTEX), None)
        libc.pthread_cond_init(self._at(words.CONDITION), None)

    @property
    def threads(self) -> int:
        """How many threads can run a job: the workers and the caller."""
        return len(self._threads) + 1

    @property
    def sleeping(self) -> int:
        """How many workers sleep now: waking one takes longer than a short step."""
        return int(self._memory[words.SLEEPERS])

    def grow(self, threads: int) -> None:
        """Start workers until `threads` can run a job, or the system refuses one."""
        wanted = min(threads - 1, words.MAX_WORKERS)
        if self._refused or len(self._threads) >= wanted:
            return
        # Workers never run Python, so signals are for Python's threads. A fault of the worker's
        # own stays unblocked for the sake of faulthandler.
        own = {getattr(signal, name) for name in _SYNCHRONOUS if hasattr(signal, name)}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - own)
        try:
            while len(self._threads) < wanted and not self._refused:
                thread = ctypes.c_void_p()
                worker, handle = _native()[1], ctypes.byref(thread)
                if _libc().pthread_create(handle, None, worker, self.address):
                    self._refused = True
                else:
                    self._threads.append(thread)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def stop(self) -> None:
        """Let the workers return, and join them. A later job runs on its caller alone."""
        libc = _libc()
        libc.pthread_mutex_lock(self._at(words.MUTEX))
        self._memory[words.STOP] = 1
        libc.pthread_cond_broadcast(self._at(words.CONDITION))
        libc.pthread_mutex_unlock(self._at(words.MUTEX))
        for thread in self._threads:
            libc.pthread_join(thread, None)
        self._threads.clear()
        self._refused = True

    def abandon(self) -> None:
        """In a forked child, where no worker exists: make callers of this struct run alone."""
        self._memory[words.LOCK] = 1

    def _at(self, word: int) -> int:
        return self.address + 8 * word


def _immortal_words(count: int) -> NDArray[np.int64]:
    """Zeroed words on cache lines of their own, never freed.

    A daemon thread may still be in native code when the interpreter clears its modules.
    """
    raw = np.zeros(count + words.LINE, np.int64)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(raw))
    skip = -raw.ctypes.data // 8 % words.LINE
    return raw[skip : skip + count]


_lock = threading.RLock()
_team: Team | None = None
_stopped = False
_asked_at = 0  # when a short step was last about to run


def team_for(threads: int) -> int:
    """The address of a team in which `threads` threads can run, for `block[TEAM]`.

    0 when there is none and the step runs in the calling thread alone. Ask again for each step:
    the address is another one after a fork.
    """
    global _team
    if threads <= 1 or os.name == "nt":
        return 0
    team = _team
    if team is not None and team.threads >= threads:
        return team.address
    with _lock:
        if _stopped:
            return 0
        if _team is None:
            _team = Team()
        _team.grow(threads)
        return _team.address if _team.threads > 1 else 0


def sleeping_workers() -> int:
    """How many workers of the team sleep; 0 without a team."""
    team = _team
    return 0 if team is None else team.sleeping


def is_awake(step_ns: float) -> bool:
    """Whether workers are awake, or short steps follow each other so fast that they will stay so.

    Args:
        step_ns: how long the step takes that is about to run, and took the last time.
    """
    global _asked_at
    before, _asked_at = _asked_at, time.perf_counter_ns()
    team = _team
    if team is not None and team.threads > 1 and team.sleeping == 0:
        return True
    return _asked_at - before < 2 * step_ns + SPIN_SECONDS * 1e9


def _stop() -> None:
    global _team, _stopped
    with _lock:
        team, _team, _stopped = _team, None, True
    if team is not None:
        team.stop()


def _before_fork() -> None:
    _lock.acquire()


def _after_fork_in_parent() -> None:
    _lock.release()


def _after_fork_in_child() -> None:
    # The struct of the parent's team stays as it was at the fork, perhaps with its mutex locked
    # by a thread that does not exist here: nothing may touch it, so it is left where it is.
    global _team
    if _team is not None:
        _team.abandon()
        _team = None
    _lock.release()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
