"""`Hyper`: the hyper-parameters of optimizers and schedules."""

from __future__ import annotations

import math
from typing import Any

from einkorn.epochs import structure_changed
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.recording import Value
from einkorn.seen import is_observed
from einkorn.tunable import Tunable, is_number


class Hyper(Tunable):
    """A hyper-parameter: a float, read at each call of a compiled step.

    Args:
        low: the least value allowed.
        below: what the value must be less than.
        positive: whether the value must be above `low`.
        optional: whether None is allowed, which turns off what the number is for.
        schedule: whether a callable of the step count or a tensor is allowed too.
    """

    def __init__(
        self,
        low: float = 0.0,
        below: float = math.inf,
        *,
        positive: bool = False,
        optional: bool = False,
        schedule: bool = False,
    ) -> None:
        self.low, self.below, self.positive = low, below, positive
        self.optional, self.schedule = optional, schedule

    def __set__(self, instance: Any, value: Any) -> None:
        new = self.checked(instance, value)
        old = instance.__dict__.get(self.name)
        super().__set__(instance, new)
        # A group of an optimizer that had none of its own read that of the whole.
        if old is None and is_observed(instance.__dict__, self.name):
            structure_changed()

    def checked(self, instance: Any, value: Any) -> Any:
        """What is stored for `value`; EinkornError when it is not allowed."""
        owner = f"{type(instance).__name__}: {self.name}"
        if value is None and self.optional:
            return None
        if self.schedule and isinstance(value, Value):
            if value._type.shape != () or not value._type.dtype.is_float:
                raise ShapeError(f"{owner} as a tensor is a float scalar, got {value._type}")
            return value
        if self.schedule and callable(value):
            return value
        if value is None or not is_number(value):
            more = ", a schedule or a tensor" if self.schedule else ""
            more = " or None" if self.optional else more
            raise EinkornError(f"{owner} is a number{more}, got {value!r}")
        number = float(value)  # type: ignore[arg-type] # a number, as is_number says
        enough = number > self.low if self.positive else number >= self.low
        if not (enough and number < self.below):
            limit = f" and below {self.below:g}" if self.below < math.inf else ""
            least = "above" if self.positive else "at least"
            raise EinkornError(f"{owner} is {least} {self.low:g}{limit}, got {value!r}")
        return number
