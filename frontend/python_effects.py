"""Calls that a trace must not make, because a compiled call would not repeat them.

Output, input, clocks and the random numbers of Python and NumPy. Code is looked at first: only when
it names one of these is Python asked to report calls while the function is traced. NumPy's random
functions are not reported by Python; their generators are compared before and after.
"""

from __future__ import annotations

import builtins
import random
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np

from einkorn.ir.errors import TraceError
from einkorn.ir.graph import Origin
from einkorn.same import bare
from einkorn.user_code import is_user_file, is_user_space

MSG_CALL = (
    "{what} was called while {trace} was being traced, {where}. A compiled call runs only the "
    "tensor operations that were recorded, so this would happen once, not at each call. {instead}"
)
_RANDOM = "Use ek.random, whose draws are part of the step, or pass the numbers as arguments."
_TIME = "Take the time around the call, or pass it as an argument."
_INPUT = "Read it before the call and pass it as an argument."
_PRINT = "Use ek.print(...), which prints at each call, or print what the function returns."

_CLOCKS = ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns")
_CLOCKS += ("process_time", "process_time_ns", "sleep")

_FUNCTIONS: dict[Any, str] = {
    builtins.print: _PRINT,
    builtins.input: _INPUT,
    builtins.open: _INPUT,
    **{getattr(time, name): _TIME for name in _CLOCKS},
}


def _advice(fn: Any) -> str | None:
    """What to write instead of a call that Python reports; None when it may be made."""
    try:
        found = _FUNCTIONS.get(fn)
    except TypeError:  # an object without a hash
        return None
    is_draw = found is None and isinstance(bare(fn, "__self__"), random.Random)
    return _RANDOM if is_draw else found


def _numpy_generator(value: Any) -> Any:
    """The generator of NumPy that `value` is, or draws from."""
    if "numpy.random" not in sys.modules:
        return None  # to import it here could leave a forked child with a locked import
    if isinstance(value, (np.random.Generator, np.random.RandomState)):
        return value
    module = bare(value, "__module__")
    is_function = callable(value) and not isinstance(value, type)
    if is_function and isinstance(module, str) and module.startswith("numpy.random"):
        return np.random.mtrand._rand  # that of the functions of numpy.random
    return None


def _restore(profiler: Any) -> None:
    """Let a profiler go on: a function, or one in C such as cProfile's, which is none."""
    if profiler is None or callable(profiler):
        sys.setprofile(profiler)
    else:
        profiler.enable()


class Effects:
    """What the code of one trace might do beside recording ops.

    Attributes:
        name: of the function that is traced.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._calls = False
        self._generators: list[tuple[Any, Any, str]] = []
        self._refuse: Callable[[], None] | None = None

    def see(self, value: Any, label: str) -> bool:
        """Note a value that code names; whether it is one of these functions or generators.

        Args:
            value: what was found.
            label: how the code reads it.
        """
        generator = _numpy_generator(value)
        if generator is not None:
            if all(known is not generator for known, *_ in self._generators):
                self._generators.append((generator, _state(generator), label))
            return True
        if isinstance(value, random.Random) or _advice(value) is not None:
            if not self._calls and self._refuse is not None:
                self._refuse()
            self._calls = True
            return True
        return False

    @contextmanager
    def refused(self) -> Generator[None]:
        """Within the block such calls raise a TraceError."""
        before = sys.getprofile()
        self._refuse = lambda: sys.setprofile(self._report)
        if self._calls:
            self._refuse()
        try:
            yield
        finally:
            self._refuse = None
            _restore(before)
        for generator, state, label in self._generators:
            if _state(generator) != state:
                _set_state(generator, state)
                raise self._error("np.random", f"by {label}", _RANDOM)

    def _report(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            advice, caller, called = _advice(argument), frame, argument
        elif event == "call" and frame.f_globals.get("__name__") == "random":
            advice, caller, called = _RANDOM, frame.f_back, frame.f_code
        else:
            return
        if advice is None or caller is None or not is_user_space(caller.f_globals):
            return
        if is_user_file(caller.f_code.co_filename):
            where = Origin(caller.f_code.co_filename, caller.f_lineno)
            raise self._error(_spoken(called), f"at {where}", advice)

    def _error(self, what: str, where: str, advice: str) -> TraceError:
        return TraceError(MSG_CALL.format(what=what, trace=self.name, where=where, instead=advice))


def _state(generator: Any) -> Any:
    """The state of a generator in a form that can be compared, and set again."""
    if isinstance(generator, np.random.RandomState):
        state = dict(generator.get_state(legacy=False))
    else:
        state = dict(generator.bit_generator.state)
    inner = state["state"]
    if isinstance(inner, dict):
        lists = {k: tuple(x.tolist()) for k, x in inner.items() if isinstance(x, np.ndarray)}
        state["state"] = {**inner, **lists}
    return state


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def _spoken(called: Any) -> str:
    """The name under which people know a function."""
    name = getattr(called, "__name__", None) or getattr(called, "co_name", "a function")
    if isinstance(getattr(called, "__self__", None), random.Random) or hasattr(called, "co_name"):
        return f"random.{name}"
    module = getattr(called, "__module__", None)
    return f"{module}.{name}" if module not in (None, "builtins", "_io", "io") else name
