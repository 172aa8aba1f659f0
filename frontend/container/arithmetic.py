"""Arithmetic of Containers: every operator applies to the ends and gives plain tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Self

from einkorn.container.base import Nest
from einkorn.convert import as_operand, as_tensor
from einkorn.recording import Value


class Arithmetic(Nest):
    """Operators with numbers, arrays, tensors, and Containers of the same keys."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment] # == is elementwise, as it is for tensors
    __array_ufunc__ = None  # so that NumPy leaves `array + container` to __radd__

    def _with(self, op: Callable[[Any, Any], Any], other: Any) -> Self:
        if isinstance(other, dict):
            return self.map(lambda a, b: _applied(op, a, b), other)
        if not as_operand(other):
            return NotImplemented
        return self.map(lambda a: _applied(op, a, other))

    def _under(self, op: Callable[[Any, Any], Any], other: Any) -> Self:
        return self._with(lambda a, b: op(b, a), other)

    def _each(self, op: Callable[[Any], Any]) -> Self:
        return self.map(lambda a: as_tensor(op(_operand(a)), "Container"))

    def __neg__(self) -> Self:
        return self._each(operator.neg)

    def __pos__(self) -> Self:
        return self._each(operator.pos)

    def __abs__(self) -> Self:
        return self._each(operator.abs)

    def __invert__(self) -> Self:
        return self._each(operator.invert)

    def __add__(self, other: Any) -> Self:
        return self._with(operator.add, other)

    def __radd__(self, other: Any) -> Self:
        return self._under(operator.add, other)

    def __sub__(self, other: Any) -> Self:
        return self._with(operator.sub, other)

    def __rsub__(self, other: Any) -> Self:
        return self._under(operator.sub, other)

    def __mul__(self, other: Any) -> Self:
        return self._with(operator.mul, other)

    def __rmul__(self, other: Any) -> Self:
        return self._under(operator.mul, other)

    def __truediv__(self, other: Any) -> Self:
        return self._with(operator.truediv, other)

    def __rtruediv__(self, other: Any) -> Self:
        return self._under(operator.truediv, other)

    def __floordiv__(self, other: Any) -> Self:
        return self._with(operator.floordiv, other)

    def __rfloordiv__(self, other: Any) -> Self:
        return self._under(operator.floordiv, other)

    def __mod__(self, other: Any) -> Self:
        return self._with(operator.mod, other)

    def __rmod__(self, other: Any) -> Self:
        return self._under(operator.mod, other)

    def __pow__(self, other: Any) -> Self:
        return self._with(operator.pow, other)

    def __rpow__(self, other: Any) -> Self:
        return self._under(operator.pow, other)

    def __matmul__(self, other: Any) -> Self:
        return self._with(operator.matmul, other)

    def __rmatmul__(self, other: Any) -> Self:
        return self._under(operator.matmul, other)

    def __and__(self, other: Any) -> Self:
        return self._with(operator.and_, other)

    def __rand__(self, other: Any) -> Self:
        return self._under(operator.and_, other)

    def __or__(self, other: Any) -> Self:  # type: ignore[override] # dict's would merge
        return self._with(operator.or_, other)

    def __ror__(self, other: Any) -> Self:  # type: ignore[override]
        return self._under(operator.or_, other)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]
        return self._with(operator.or_, other)

    def __xor__(self, other: Any) -> Self:
        return self._with(operator.xor, other)

    def __rxor__(self, other: Any) -> Self:
        return self._under(operator.xor, other)

    def __lshift__(self, other: Any) -> Self:
        return self._with(operator.lshift, other)

    def __rlshift__(self, other: Any) -> Self:
        return self._under(operator.lshift, other)

    def __rshift__(self, other: Any) -> Self:
        return self._with(operator.rshift, other)

    def __rrshift__(self, other: Any) -> Self:
        return self._under(operator.rshift, other)

    def __lt__(self, other: Any) -> Self:
        return self._with(operator.lt, other)

    def __le__(self, other: Any) -> Self:
        return self._with(operator.le, other)

    def __gt__(self, other: Any) -> Self:
        return self._with(operator.gt, other)

    def __ge__(self, other: Any) -> Self:
        return self._with(operator.ge, other)

    def __eq__(self, other: object) -> Any:
        return self._with(operator.eq, other)

    def __ne__(self, other: object) -> Any:
        return self._with(operator.ne, other)


def _operand(x: Any) -> Any:
    """What an operator takes: tensors, and Python numbers, which stay weak."""
    return x if isinstance(x, Value) or type(x) in (bool, int, float) else as_tensor(x, "Container")


def _applied(op: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    return as_tensor(op(_operand(a), _operand(b)), "Container")
