"""What the operators of Tensor compute: Python arithmetic for numbers, else the namespace.

A run-time scalar stands for a Python number. With other numbers alone it follows Python: floats are
float64, and division by zero gives infinity or NaN, since a compiled step raises nothing. Sums,
differences and products of integers are int64; the step checks that they fit. What does not fit,
and what `//`, `%`, `**`, a quotient of integers or a comparison decide, is computed now, for the
number at hand.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from einkorn.convert import as_operand, concrete, in_dtype, is_weak
from einkorn.functions import elementwise as ew
from einkorn.functions import linear_algebra as la
from einkorn.functions.state_numbers import INT_MIN, home_of, is_float, is_int64, of_state
from einkorn.ir.dtypes import float64, int64
from einkorn.ir.ops import Op
from einkorn.recording import apply, apply_elementwise, as_number, current_trace, entered

Function = Callable[..., Any]

# What stays a number of the run when one operand is a float.
_FLOAT_OPS: dict[Function, Op] = {
    ew.add: Op.ADD,
    ew.subtract: Op.SUB,
    ew.multiply: Op.MUL,
    ew.divide: Op.DIV,
    ew.negative: Op.NEG,
    ew.abs: Op.ABS,
}

# The same when all operands are integers.
_INT_OPS = (Op.ADD, Op.SUB, Op.MUL, Op.NEG)

# Each function that is an operator, and what it does with Python numbers.
OPERATORS: dict[Function, Function] = {
    ew.add: operator.add,
    ew.subtract: operator.sub,
    ew.multiply: operator.mul,
    ew.divide: operator.truediv,
    ew.floor_divide: operator.floordiv,
    ew.remainder: operator.mod,
    ew.pow: operator.pow,
    la.matmul: operator.matmul,
    ew.negative: operator.neg,
    ew.abs: operator.abs,
    ew.bitwise_invert: operator.invert,
    ew.bitwise_and: operator.and_,
    ew.bitwise_or: operator.or_,
    ew.bitwise_xor: operator.xor,
    ew.bitwise_left_shift: operator.lshift,
    ew.bitwise_right_shift: operator.rshift,
    ew.equal: operator.eq,
    ew.not_equal: operator.ne,
    ew.less: operator.lt,
    ew.less_equal: operator.le,
    ew.greater: operator.gt,
    ew.greater_equal: operator.ge,
}


def unary(function: Function, x: Any) -> Any:
    """The result of an operator with one operand."""
    return _of_numbers(function, x) if x._weak else function(x)


def binary(function: Function, x: Any, y: Any) -> Any:
    """The result of an operator with two operands, one of them a Tensor."""
    if not (as_operand(x) and as_operand(y)):
        return NotImplemented
    if is_weak(x) and is_weak(y):
        return _of_numbers(function, x, y)
    return function(x, y)


def _of_numbers(function: Function, *numbers: Any) -> Any:
    """Python arithmetic of numbers, at least one of them known when the step runs."""
    what = function.__name__
    op = _FLOAT_OPS.get(function)
    trace, home = current_trace.get(), home_of(numbers)
    if home is not None and home is not trace:
        with entered(home):
            return _of_numbers(function, *numbers)
    if home is not None:
        value = of_state(home, function, what, numbers)
        if value is not None:
            return value
    if op in _INT_OPS and trace is not None and trace.branches is not None:
        if all(map(is_int64, numbers)):
            value = _of_integers(trace, op, what, numbers)
            if value is not None:
                return value
    complex_too = any(isinstance(x, complex) for x in numbers)
    if op is None or complex_too or not any(map(is_float, numbers)):
        return OPERATORS[function](*(concrete(x, what) for x in numbers))
    operands = [in_dtype(what, x, float64) for x in numbers]
    value = apply(op, *operands) if len(operands) == 1 else apply_elementwise(op, *operands)
    return as_number(value)


def _of_integers(trace: Any, op: Op, what: str, numbers: tuple[Any, ...]) -> Any:
    """Arithmetic of int64 numbers; the step checks that the result fits. None when it does not."""
    operands = [in_dtype(what, x, int64) for x in numbers]
    value = apply(op, *operands) if len(operands) == 1 else apply_elementwise(op, *operands)
    overflows = _overflows(op, operands, value)
    return None if trace.assume_not(overflows) else as_number(value)


def _overflows(op: Op, operands: list[Any], value: Any) -> Any:
    """Whether int64 arithmetic has wrapped around, as a bool scalar."""
    if op is Op.NEG:
        (x,) = operands
        return apply(Op.AND, _below_zero(x), _below_zero(value))
    x, y = operands
    if op is not Op.MUL:
        other = apply(Op.XOR, y, value) if op is Op.ADD else apply(Op.XOR, x, y)
        return _below_zero(apply(Op.AND, apply(Op.XOR, x, value), other))
    again = apply(Op.NE, apply(Op.FLOOR_DIV, value, y), x)
    zero, least = in_dtype("", 0, int64), in_dtype("", INT_MIN, int64)
    smallest = apply(Op.AND, apply(Op.EQ, x, least), apply(Op.EQ, y, in_dtype("", -1, int64)))
    return apply(Op.OR, apply(Op.AND, apply(Op.NE, y, zero), again), smallest)


def _below_zero(x: Any) -> Any:
    return apply(Op.LT, x, in_dtype("", 0, int64))
