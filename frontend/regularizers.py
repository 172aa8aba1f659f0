"""Regularizers: numbers to add to a loss, computed from parameters.

Each is called with a Module, a Container or any nest of tensors. A Module stands for its trainable
parameters; other ends that are no floats count nowhere.
"""

from __future__ import annotations

from typing import Any, Self

from einkorn.convert import as_tensor
from einkorn.functions.elementwise import abs as absolute
from einkorn.functions.elementwise import add, multiply
from einkorn.functions.statistical import sum as sum_over
from einkorn.ir.errors import EinkornError
from einkorn.tensor import Tensor
from einkorn.tree import tree_leaves
from einkorn.tunable import Tunable, is_number
from einkorn.watched import note_birth

__all__ = ["L1", "L1L2", "L2"]


class Strength(Tunable):
    """A number that is not negative; a new one takes effect in compiled steps at once."""

    def __set__(self, instance: Any, value: Any) -> None:
        if not is_number(value) or not value >= 0:
            name = type(instance).__name__
            raise EinkornError(
                f"{name}: {self.name} is a number that is not negative, got {value!r}"
            )
        super().__set__(instance, float(value))


class L1L2:
    """l1 * sum(|w|) + l2 * sum(w**2) over all parameters (Zou & Hastie, 2005)."""

    l1, l2 = Strength(), Strength()

    def __new__(cls, *_: Any, **__: Any) -> Self:
        made = super().__new__(cls)
        note_birth(made)
        return made

    def __init__(self, l1: float = 0.01, l2: float = 0.01) -> None:
        self.l1, self.l2 = l1, l2

    def __call__(self, parameters: Any) -> Tensor:
        return add(_total(self, parameters, "l1"), _total(self, parameters, "l2"))

    def __repr__(self) -> str:
        strengths = ", ".join(f"{k}={v}" for k, v in vars(self).items() if k in ("l1", "l2"))
        return f"{type(self).__name__}({strengths})"


class L1(L1L2):
    """l * sum(|w|) over all parameters (Tibshirani, 1996)."""

    def __init__(self, l: float = 0.01) -> None:  # noqa: E741 # the name of the literature
        self.l1 = l

    def __call__(self, parameters: Any) -> Tensor:
        return _total(self, parameters, "l1")


class L2(L1L2):
    """l * sum(w**2) over all parameters (Hoerl & Kennard, 1970)."""

    def __init__(self, l: float = 0.01) -> None:  # noqa: E741 # the name of the literature
        self.l2 = l

    def __call__(self, parameters: Any) -> Tensor:
        return _total(self, parameters, "l2")


def _total(owner: L1L2, parameters: Any, kind: str) -> Tensor:
    trained = getattr(parameters, "get_parameters", None)  # of a Module
    ends = tree_leaves(parameters if trained is None else trained(trainable=True))
    floats = [x for x in (as_tensor(end, "a regularizer") for end in ends) if x.dtype.is_float]
    if not floats:
        raise EinkornError(
            f"{type(owner).__name__}: there are no float parameters to regularize in "
            f"{type(parameters).__name__}"
        )
    total: Any = None
    for x in floats:
        part = sum_over(absolute(x) if kind == "l1" else multiply(x, x))
        total = part if total is None else add(total, part)
    return multiply(total, getattr(owner, kind))


def __dir__() -> list[str]:
    return __all__
