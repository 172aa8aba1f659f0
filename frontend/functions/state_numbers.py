"""Arithmetic of the numbers in attributes that steps write, such as a counter.

They are other ones in each call, so what is decided by them must not be decided once: a comparison
is a branch of the trace, like one on a tensor. Integers stay int64 where the result is Python's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einkorn.convert import in_dtype
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import DType, float64, int64
from einkorn.ir.ops import Op
from einkorn.ir.sizes import Size
from einkorn.recording import Value, apply, apply_elementwise, as_number

Function = Callable[..., Any]

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
EXACT = 1 << 53  # up to here float64 has every integer

_COMPARISONS: dict[Function, Op] = {
    ew.equal: Op.EQ,
    ew.not_equal: Op.NE,
    ew.less: Op.LT,
    ew.less_equal: Op.LE,
    ew.greater: Op.GT,
    ew.greater_equal: Op.GE,
}
_DIVISIONS: dict[Function, Op] = {ew.floor_divide: Op.FLOOR_DIV, ew.remainder: Op.REMAINDER}


def home_of(numbers: tuple[Any, ...]) -> Any:
    """The trace that reads an attribute on which one of some numbers depends; None if none does."""
    for x in numbers:
        trace = x._trace if isinstance(x, Value) else None
        if trace is None or not trace.active or trace.branches is None:
            continue
        if trace.attributes.depends(x):
            return trace
    return None


def of_state(trace: Any, function: Function, what: str, numbers: tuple[Any, ...]) -> Any:
    """What an operator makes of two numbers, in the trace that reads them; None if it cannot."""
    if len(numbers) != 2 or not all(is_int64(x) or is_float(x) for x in numbers):
        return None
    both_int = all(map(is_int64, numbers))
    if function in _COMPARISONS:
        dtype = int64 if both_int else float64
        operands = _exact(trace, what, numbers, dtype)
        if operands is None:
            return None
        return trace.decide(apply_elementwise(_COMPARISONS[function], *operands))
    if (
        function in _DIVISIONS
        and both_int
        and type(numbers[1]) is int
        and numbers[1] not in (0, -1)
    ):
        operands = [in_dtype(what, x, int64) for x in numbers]
        return as_number(apply_elementwise(_DIVISIONS[function], *operands))
    if function is ew.divide and both_int:
        operands = _exact(trace, what, numbers, float64)
        return None if operands is None else as_number(apply_elementwise(Op.DIV, *operands))
    return None


def _exact(trace: Any, what: str, numbers: tuple[Any, ...], dtype: DType) -> list[Any] | None:
    """Numbers in one dtype; None when an integer would have to be rounded for that."""
    if dtype is float64 and any(_is_beyond(trace, x) for x in numbers if is_int64(x)):
        return None
    return [in_dtype(what, _plain(x), dtype) for x in numbers]


def _is_beyond(trace: Any, x: Any) -> bool:
    """Whether float64 may not have an integer; a call in which it is otherwise has a trace too."""
    if not isinstance(x, Value):
        return abs(int(x)) > EXACT
    low, high = in_dtype("", -EXACT, int64), in_dtype("", EXACT, int64)
    number = _plain(x)
    return trace.assume_not(apply(Op.OR, apply(Op.LT, number, low), apply(Op.GT, number, high)))


def _plain(x: Any) -> Any:
    """A number of the run as the scalar tensor that it is."""
    return in_dtype("", x, x._type.dtype) if isinstance(x, Value) else x


def is_int64(number: Any) -> bool:
    """Whether a number is an integer of the run, or one that fits."""
    if isinstance(number, Value):
        return number._type.dtype is int64
    return isinstance(number, Size) or (type(number) is int and INT_MIN <= number <= INT_MAX)


def is_float(number: Any) -> bool:
    """Whether a number is a float, of the run or of Python."""
    return number._type.dtype.is_float if isinstance(number, Value) else isinstance(number, float)
