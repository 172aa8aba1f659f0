"""`RunTimeSize`: what a padded axis of a traced tensor says when it is asked how long it is.

It computes with integers as a size does, and with floats as the Python number that it is in eager
mode. Where Python would need the number itself it refuses, so that nothing of one call stays in a
trace that serves many: see `ir/sizes.py`.
"""

from __future__ import annotations

import sys
from typing import Any

from einkorn.ir.dtypes import DType, float64
from einkorn.ir.node import constant
from einkorn.ir.sizes import Size
from einkorn.recording import current_trace, result, traced
from einkorn.user_code import is_user_space

_BETWEEN = (__name__, "functools", "contextlib")  # on the way to who asks
_TABLES = "weakref"  # which keeps the table of all nodes


def sized_number(size: Size, dtype: DType, weak: bool = False) -> Any:
    """A size as a scalar of the step; `weak` when it stands for a number of Python."""
    node, trace = constant(dtype, size), current_trace.get()
    if trace is None:
        raise size.unknown("code outside of a trace")
    return traced(node, trace, weak=True) if weak else result(node.tensor, node=node)


def _asked_by_einkorn() -> bool:
    """Whether einkorn's own code, which looks at types and keeps tables of them, asks a size."""
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    if frame is None:
        return False
    return frame.f_globals.get("__name__") == _TABLES or not is_user_space(frame.f_globals)


class RunTimeSize(Size):
    """The size of an axis in the hands of the user."""

    __slots__ = ()

    @property
    def __class__(self) -> Any:  # pyright: ignore
        return int

    def _float(self) -> Any:
        """The float that it is, of the step."""
        return sized_number(self, float64, weak=True)

    __eq__ = Size.__eq__  # a class that has a hash of its own has to name it

    def __hash__(self) -> int:
        if not _asked_by_einkorn():
            raise self.unknown("the hash of a number")
        return super().__hash__()

    def __repr__(self) -> str:
        return self.__format__("")

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        if spec or not _asked_by_einkorn():
            raise self.unknown("the text of a number")
        return self.text()

    def __truediv__(self, other: Any) -> Any:
        return self._float() / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self._float()

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        if type(other) is int and other >= 0 and modulus is None:
            found: Any = 1
            for _ in range(other):
                found = found * self
            return found
        raise self.unknown(f"n ** {other}")

    def __rpow__(self, other: Any, modulus: Any = None) -> Any:
        raise self.unknown(f"{other} ** n")

    def __add__(self, other: Any) -> Any:
        return self._float() + other if type(other) is float else super().__add__(other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._float() - other if type(other) is float else super().__sub__(other)

    def __rsub__(self, other: Any) -> Any:
        return other - self._float() if type(other) is float else super().__rsub__(other)

    def __mul__(self, other: Any) -> Any:
        return self._float() * other if type(other) is float else super().__mul__(other)

    __rmul__ = __mul__
