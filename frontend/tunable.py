"""Settings of einkorn's own objects, as compiled functions see them.

A `Tunable` number (a learning rate, a dropout rate) is read at every call of a compiled step, so a
new value takes effect at once and never retraces. A `Mode` (training or not) is a guard: another
value leads to another trace. Of an object that is made while something is traced, they are
constants of that trace.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.announcing import put
from einkorn.epochs import settings_changed
from einkorn.ir.errors import EinkornError
from einkorn.ir.errors import module_path as module_path
from einkorn.recording import current_trace
from einkorn.surroundings import surroundings
from einkorn.watched import made_in


def is_number(x: object) -> bool:
    """Whether `x` is a real number of Python or NumPy, and no bool."""
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)


class Tunable:
    """A data descriptor for a numeric setting; the value lives in the object's `__dict__`.

    A float is a run-time input of a compiled step. Anything else (None, an int, a callable, a
    tensor) is guarded by identity, or by value for ints.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        try:
            value = instance.__dict__[self.name]
        except KeyError:
            if (trace := current_trace.get()) is not None:
                trace.seen.attribute(instance, self.name)  # a group of an optimizer has it later
            raise AttributeError(f"{type(instance).__name__} has no {self.name} yet") from None
        trace = current_trace.get()
        if trace is None or made_in(instance.__dict__, trace):
            return value
        return trace.setting(instance, self.name, value)

    def __set__(self, instance: Any, value: Any) -> None:
        state, trace = instance.__dict__, current_trace.get()
        if trace is not None and not made_in(state, trace):
            trace.refuse_write(instance, self.name)
        is_new, old = self.name not in state, state.get(self.name)
        put(state, self.name, value)
        if not is_new and not type(old) is type(value) is float:
            settings_changed()


def is_tunable(owner: Any, name: str) -> bool:
    """Whether an attribute of an object is a setting."""
    return isinstance(getattr(type(owner), name, None), Tunable)


class Mode(Tunable):
    """A data descriptor for a flag that chooses what is traced."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.name not in instance.__dict__:
            raise AttributeError(f"{type(instance).__name__} has no {self.name} yet")
        value = instance.__dict__[self.name]
        trace = current_trace.get()
        if trace is not None and not made_in(instance.__dict__, trace):
            trace.guard(instance, self.name, value)
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        if not isinstance(value, bool):
            owner = type(instance).__name__
            raise EinkornError(f"{owner}: {self.name} is True or False, got {value!r}")
        super().__set__(instance, value)


class Training(Mode):
    """The mode of a module, which a block around may decide; see `training_context`."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        decided = surroundings.get().training
        return super().__get__(instance, owner) if instance is None or decided is None else decided
