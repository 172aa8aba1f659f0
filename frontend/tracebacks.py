"""Tracebacks with the frames of einkorn folded away, where they are shown.

Exceptions keep their frames, so a debugger sees all of them; what shows an uncaught exception gets
the shorter chain: Python itself, threads, IPython and notebooks, and pytest. Nothing is done before
something is raised. Frames of the user's stay, also those of callbacks, between frames of einkorn.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from einkorn.ir.errors import EinkornError
from einkorn.runtime import settings

_OURS = "einkorn"
_REFUSED = re.compile(r"([\w.<>]+)\(\) (got|takes|missing) .*argument")
_HELPERS = ("contextlib", "functools")  # between a frame of einkorn and another one


def fold(error: BaseException) -> TracebackType | None:
    """The traceback of an exception without the frames of einkorn.

    Complete when the setting `traceback` is "full", when there are no others, and when einkorn
    itself is at fault: the exception is none of its own, comes from its code, and is not about
    arguments that einkorn only passed on.
    """
    chain: list[TracebackType] = []
    entry = error.__traceback__
    while entry is not None:
        chain.append(entry)
        entry = entry.tb_next
    if not chain or not may_fold(error, chain[-1].tb_frame):
        return error.__traceback__
    ours = _folded([_module(entry.tb_frame) for entry in chain])
    folded: TracebackType | None = None
    for entry, hidden in zip(reversed(chain), reversed(ours)):
        if not hidden:
            folded = TracebackType(folded, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return folded or error.__traceback__


def may_fold(error: BaseException, innermost: FrameType) -> bool:
    """Whether frames may be left out of the traceback of an exception."""
    if settings.current().traceback == "full":
        return False
    if isinstance(error, (EinkornError, KeyboardInterrupt)) or _module(innermost) != _OURS:
        return True
    return isinstance(error, TypeError) and _is_of_passed_on_arguments(str(error))


def _is_of_passed_on_arguments(message: str) -> bool:
    """Whether a call was refused for its arguments by a function that is not private.

    Such a function is the user's or exported, and einkorn called it with what it was given.
    """
    found = _REFUSED.match(message)
    names = [] if found is None else found[1].split(".")
    private = any(name.startswith("_") and not name.endswith("__") for name in names)
    return bool(names) and not private


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _folded(modules: list[str]) -> list[bool]:
    """For each frame whether it is left out, from the modules of all of them."""
    ours = [name == _OURS for name in modules]
    hidden = list(ours)
    for k, name in enumerate(modules):
        if name in _HELPERS:
            hidden[k] = (k > 0 and hidden[k - 1]) or ours[k + 1 : k + 2] == [True]
    return hidden


def _behind(error: BaseException) -> list[BaseException]:
    """An exception and all that is shown with it."""
    found: list[BaseException] = []
    stack: list[BaseException | None] = [error]
    while stack:
        x = stack.pop()
        if x is None or any(x is known for known in found):
            continue
        found.append(x)
        stack += [x.__cause__, x.__context__]
        if isinstance(x, BaseExceptionGroup):
            stack += x.exceptions
    return found


@contextmanager
def _shown_folded(error: BaseException) -> Generator[TracebackType | None]:
    """Within the block an exception and those behind it have folded tracebacks."""
    complete = [(x, x.__traceback__) for x in _behind(error)]
    try:
        for x, _ in complete:
            x.__traceback__ = fold(x)
        yield error.__traceback__
    finally:
        for x, traceback in complete:
            x.__traceback__ = traceback


def _hidden_in_pytest(info: Any) -> bool:
    """Whether pytest leaves out the frames of a module that has this as `__tracebackhide__`."""
    error = info.value
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    return entry is not None and may_fold(error, entry.tb_frame)


def _hook_python() -> None:
    before = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        with _shown_folded(error) as folded:
            before(kind, error, folded)

    sys.excepthook = excepthook


def _hook_threads() -> None:
    before = threading.excepthook

    def excepthook(args: Any) -> None:
        if args.exc_value is None:
            before(args)
            return
        with _shown_folded(args.exc_value) as folded:
            before(threading.ExceptHookArgs((args.exc_type, args.exc_value, folded, args.thread)))

    threading.excepthook = excepthook


def _hook_ipython() -> None:
    """In IPython and notebooks; another handler of exceptions there stays."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    if shell is None or shell.custom_exceptions:
        return

    def show(shell: Any, kind: Any, error: Any, traceback: Any, tb_offset: Any = None) -> None:
        with _shown_folded(error) as folded:
            shell.showtraceback((kind, error, folded), tb_offset=tb_offset)
        sys.last_traceback = traceback  # for a debugger, which starts from it

    shell.set_custom_exc((Exception,), show)


def install() -> None:
    """Fold tracebacks wherever Python, IPython and pytest show them."""
    _hook_python()
    _hook_threads()
    _hook_ipython()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == _OURS:
            module.__dict__["__tracebackhide__"] = _hidden_in_pytest
