"""The scalar expression of a loop nest, evaluated on vectors: one emitter for each elementwise op.

Values are registers as codegen/llvm/vectors.py describes them: half types are float values that
are already rounded, bool is i1. Every step rounds its result to its dtype: fusing changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from einkorn.codegen.llvm.mathlib import MATH, polygamma
from einkorn.codegen.llvm.text import Value, Writer, like
from einkorn.codegen.llvm.vectors import (
    HALVES,
    combine,
    register,
    round_to,
    to_register,
    to_storage,
)
from einkorn.ir.dtypes import DType, bool_, float32, float64, int64
from einkorn.ir.loops import Expr
from einkorn.ir.ops import Op

Emit = Callable[[Writer, DType, list[Value]], Value]

_ROUNDING = {Op.FLOOR: "floor", Op.CEIL: "ceil", Op.ROUND: "roundeven", Op.TRUNC: "trunc"}
_FLOAT_ORDER = {Op.EQ: "oeq", Op.NE: "une", Op.LT: "olt", Op.LE: "ole", Op.GT: "ogt", Op.GE: "oge"}
_ORDER = {Op.LT: "lt", Op.LE: "le", Op.GT: "gt", Op.GE: "ge"}


def evaluate(
    w: Writer,
    body: Sequence[Expr],
    loads: Sequence[tuple[DType, Value]],
    type_like: str,
    index: Value,
) -> list[Value]:
    """Emit every step of `body`; the values of the loads, then of the steps.

    Args:
        loads: dtype and register value of each load.
        type_like: a vector type with the lanes to compute on.
        index: the i64 lanes of the index along the last axis.
    """
    dtypes = [dtype for dtype, _ in loads]
    values = [value for _, value in loads]
    for step in body:
        args = [values[k] for k in step.inputs]
        kind = dtypes[step.inputs[0]] if step.inputs else step.dtype
        values.append(evaluate_step(w, step, kind, args, type_like, index))
        dtypes.append(step.dtype)
    return values


def evaluate_step(
    w: Writer, step: Expr, kind: DType, args: list[Value], type_like: str, index: Value
) -> Value:
    """Emit one step, given its operands and the dtype `kind` of the first of them."""
    if step.op is Op.CONST:
        type = like(type_like, register(step.dtype))
        return w.const(type, _number(step.dtype, dict(step.attrs)["bits"]))
    if step.op is Op.IOTA:
        return convert(w, int64, step.dtype, index)
    if step.op is Op.CAST:
        return convert(w, kind, step.dtype, args[0])
    if step.op is Op.INTEGER_POW:
        return round_to(w, step.dtype, _integer_pow(w, args[0], dict(step.attrs)["exponent"]))
    if step.op is Op.POLYGAMMA:
        return round_to(w, step.dtype, polygamma(w, args[0], dict(step.attrs)["order"]))
    if step.op in _FLOAT_ORDER:
        return _compare(w, step.op, kind, args)
    return round_to(w, step.dtype, EMITTERS[step.op](w, kind, args))


def _number(dtype: DType, bits: int) -> Any:
    return np.frombuffer(bits.to_bytes(dtype.itemsize, "little"), dtype.numpy)[0].item()


# -- conversions -----------------------------------------------------------------------------------


def convert(w: Writer, source: DType, target: DType, value: Value) -> Value:
    """Convert register values between dtypes as `cast` defines it."""
    if source is target:
        return value
    if target is bool_:
        return _nonzero(w, source, value)
    if source.is_float:
        return _from_float(w, target, value)
    if target.is_float:
        return _to_float(w, source, target, value)
    if target.bits == source.bits and source is not bool_:
        return value
    if source is not bool_ and target.bits < source.bits:
        return w.cast("trunc", value, register(target))
    return w.cast("sext" if source.kind == "i" else "zext", value, register(target))


def _nonzero(w: Writer, source: DType, value: Value) -> Value:
    zero = w.const(value.type, 0)
    return w.fcmp("une", value, zero) if source.is_float else w.icmp("ne", value, zero)


def _from_float(w: Writer, target: DType, value: Value) -> Value:
    double = "double" in value.type
    if target is float64:
        return value if double else w.cast("fpext", value, "double")
    if target is float32:
        return w.cast("fptrunc", value, "float") if double else value
    return round_to(w, target, value) if target in HALVES else _saturated(w, target, value)


def _saturated(w: Writer, target: DType, value: Value) -> Value:
    """Float to integer: rounded toward zero, kept inside the range, NaN to 0."""
    info = np.iinfo(target.numpy)
    low, high = int(info.min), int(info.max)
    exact = np.float64 if "double" in value.type else np.float32
    below = low - 1 if int(exact(low - 1)) == low - 1 else low
    above_low = w.fcmp("ogt" if below != low else "oge", value, w.const(value.type, below))
    below_high = w.fcmp("olt", value, w.const(value.type, high + 1))
    inside = w.and_(above_low, below_high)
    safe = w.select(inside, value, w.const(value.type, 0))
    number = _truncated(w, target, safe)
    edge = w.select(
        w.fcmp("oge", value, w.const(value.type, high + 1)),
        w.const(number.type, high),
        w.select(
            w.fcmp("olt", value, w.const(value.type, low)),
            w.const(number.type, low),
            w.const(number.type, 0),
        ),
    )
    return w.select(inside, number, edge)


def _truncated(w: Writer, target: DType, safe: Value) -> Value:
    """A float inside the target's range as an integer, by a width that converts in hardware."""
    if target.bits == 64:
        return w.cast("fptoui" if target.kind == "u" else "fptosi", safe, "i64")
    wide = "i64" if target.kind == "u" and target.bits == 32 else "i32"
    number = w.cast("fptosi", safe, wide)
    return number if wide == register(target) else w.cast("trunc", number, register(target))


def _to_float(w: Writer, source: DType, target: DType, value: Value) -> Value:
    opcode = "sitofp" if source.kind == "i" else "uitofp"
    if target in HALVES:  # through double, which holds 32-bit integers: one rounding
        return round_to(w, target, w.cast(opcode, value, "double"))
    return w.cast(opcode, value, register(target))


# -- arithmetic ------------------------------------------------------------------------------------


def _neg(w: Writer, kind: DType, args: list[Value]) -> Value:
    (x,) = args
    return w.fneg(x) if kind.is_float else w.sub(w.const(x.type, 0), x)


def _abs(w: Writer, kind: DType, args: list[Value]) -> Value:
    (x,) = args
    if kind.is_float:
        return w.intrinsic("llvm.fabs", x.type, x)
    if kind.kind == "u":
        return x
    negative = w.icmp("slt", x, w.const(x.type, 0))
    return w.select(negative, _neg(w, kind, args), x)


def _sign(w: Writer, kind: DType, args: list[Value]) -> Value:
    (x,) = args
    zero, one, minus = (w.const(x.type, number) for number in (0, 1, -1))
    if not kind.is_float:
        above = w.select(w.icmp("ne", x, zero), one, zero)
        return above if kind.kind == "u" else w.select(w.icmp("slt", x, zero), minus, above)
    at_zero = w.select(w.fcmp("oeq", x, zero), zero, x)  # NaN stays
    below = w.select(w.fcmp("olt", x, zero), minus, at_zero)
    return w.select(w.fcmp("ogt", x, zero), one, below)


def _sqrt(w: Writer, kind: DType, args: list[Value]) -> Value:
    return w.intrinsic("llvm.sqrt", args[0].type, args[0])


def _rounding(name: str) -> Emit:
    def emit(w: Writer, kind: DType, args: list[Value]) -> Value:
        return w.intrinsic(f"llvm.{name}", args[0].type, args[0])

    return emit


def _math(name: str) -> Emit:
    def emit(w: Writer, kind: DType, args: list[Value]) -> Value:
        return MATH[name](w, *args)

    return emit


def _not(w: Writer, kind: DType, args: list[Value]) -> Value:
    return w.not_(args[0])


def _isfinite(w: Writer, kind: DType, args: list[Value]) -> Value:
    (x,) = args
    if not kind.is_float:
        return w.const(like(x.type, "i1"), True)
    return w.fcmp("olt", w.intrinsic("llvm.fabs", x.type, x), w.const(x.type, float("inf")))


def _integer_pow(w: Writer, x: Value, exponent: int) -> Value:
    """Repeated squaring, most significant bit first; 1 / x**n for a negative exponent."""
    if exponent == 0:
        return w.const(x.type, 1)
    power = x
    for bit in bin(abs(exponent))[3:]:
        power = w.mul(power, power)
        if bit == "1":
            power = w.mul(power, x)
    return power if exponent > 0 else w.fdiv(w.const(x.type, 1), power)


def _nextafter(w: Writer, kind: DType, args: list[Value]) -> Value:
    """The stored bits of the first operand, plus or minus one: away from 0 or towards it."""
    x, goal = args
    stored = to_storage(w, kind, x)
    bits = w.bitcast(stored, like(x.type, f"i{kind.bits}"))
    one = w.const(bits.type, 1)
    zero = w.const(x.type, 0)
    outwards = w.icmp("eq", w.fcmp("ogt", goal, x), w.fcmp("ogt", x, zero))
    moved = w.select(outwards, w.add(bits, one), w.sub(bits, one))
    moved = to_register(w, kind, w.bitcast(moved, stored.type))
    least = to_register(w, kind, w.bitcast(one, stored.type))
    from_zero = w.intrinsic("llvm.copysign", x.type, least, goal)
    moved = w.select(w.fcmp("oeq", x, zero), from_zero, moved)
    moved = w.select(w.fcmp("oeq", x, goal), goal, moved)
    return w.select(w.fcmp("uno", x, goal), w.add(x, goal), moved)


def _binary(integer: str, floating: str | None = None) -> Emit:
    def emit(w: Writer, kind: DType, args: list[Value]) -> Value:
        opcode = floating if kind.is_float and floating else integer
        return w.binary(opcode, *args)

    return emit


def _combine(op: Op) -> Emit:
    def emit(w: Writer, kind: DType, args: list[Value]) -> Value:
        return combine(w, op, kind, *args)

    return emit


def _compare(w: Writer, op: Op, kind: DType, args: list[Value]) -> Value:
    if kind.is_float:
        return w.fcmp(_FLOAT_ORDER[op], *args)
    if op in (Op.EQ, Op.NE):
        return w.icmp(op.name.lower(), *args)
    return w.icmp(("s" if kind.kind == "i" else "u") + _ORDER[op], *args)


def _select(w: Writer, kind: DType, args: list[Value]) -> Value:
    return w.select(*args)


# -- division, remainder and shifts ----------------------------------------------------------------


def _divide(w: Writer, kind: DType, a: Value, b: Value) -> tuple[Value, Value]:
    """Integer floor quotient and remainder; both 0 for a zero divisor, and nothing traps."""
    zero, one = w.const(a.type, 0), w.const(a.type, 1)
    by_zero = w.icmp("eq", b, zero)
    if kind.kind == "u":
        safe = w.select(by_zero, one, b)
        quotient = w.binary("udiv", a, safe)
        remainder = w.sub(a, w.mul(quotient, safe))
        return w.select(by_zero, zero, quotient), w.select(by_zero, zero, remainder)
    minus = w.icmp("eq", b, w.const(a.type, -1))  # the smallest number / -1 would trap
    safe = w.select(w.or_(by_zero, minus), one, b)
    toward_zero = w.binary("sdiv", a, safe)
    rest = w.sub(a, w.mul(toward_zero, safe))
    signs = w.icmp("slt", w.xor(rest, safe), zero)
    lower = w.and_(w.icmp("ne", rest, zero), signs)
    quotient = w.select(lower, w.sub(toward_zero, one), toward_zero)
    remainder = w.select(lower, w.add(rest, safe), rest)
    quotient = w.select(minus, w.sub(zero, a), quotient)
    return w.select(by_zero, zero, quotient), w.select(by_zero, zero, remainder)


def _floor_div(w: Writer, kind: DType, args: list[Value]) -> Value:
    a, b = args
    if not kind.is_float:
        return _divide(w, kind, a, b)[0]
    quotient = round_to(w, kind, w.fdiv(a, b))
    return w.intrinsic("llvm.floor", a.type, quotient)


def _remainder(w: Writer, kind: DType, args: list[Value]) -> Value:
    a, b = args
    if not kind.is_float:
        return _divide(w, kind, a, b)[1]
    zero = w.const(a.type, 0)
    quotient = w.intrinsic("llvm.floor", a.type, w.fdiv(a, b))
    rest = w.fma(w.fneg(quotient), b, a)
    rest = _toward_divisor(w, rest, b)
    too_far = w.fcmp(
        "oge", w.intrinsic("llvm.fabs", a.type, rest), w.intrinsic("llvm.fabs", a.type, b)
    )
    rest = w.select(too_far, w.sub(rest, b), rest)
    # An infinite divisor leaves a finite number as it is, or moves it to the divisor's side.
    size = w.intrinsic("llvm.fabs", a.type, b)
    infinite = w.fcmp("oeq", size, w.const(a.type, float("inf")))
    finite = _isfinite(w, kind, [a])
    rest = w.select(w.and_(infinite, finite), _toward_divisor(w, a, b), rest)
    signed_zero = w.intrinsic("llvm.copysign", a.type, zero, b)
    return w.select(w.fcmp("oeq", rest, zero), signed_zero, rest)


def _toward_divisor(w: Writer, rest: Value, b: Value) -> Value:
    """rest + b where rest has the other sign than b."""
    zero = w.const(rest.type, 0)
    up = w.and_(w.fcmp("olt", rest, zero), w.fcmp("ogt", b, zero))
    down = w.and_(w.fcmp("ogt", rest, zero), w.fcmp("olt", b, zero))
    return w.select(w.or_(up, down), w.add(rest, b), rest)


def _shift_left(w: Writer, kind: DType, args: list[Value]) -> Value:
    a, count = args
    inside = w.icmp("ult", count, w.const(a.type, kind.bits))
    zero = w.const(a.type, 0)
    return w.select(inside, w.shl(a, w.select(inside, count, zero)), zero)


def _shift_right(w: Writer, kind: DType, args: list[Value]) -> Value:
    a, count = args
    inside = w.icmp("ult", count, w.const(a.type, kind.bits))
    if kind.kind == "i":
        return w.ashr(a, w.select(inside, count, w.const(a.type, kind.bits - 1)))
    zero = w.const(a.type, 0)
    return w.select(inside, w.lshr(a, w.select(inside, count, zero)), zero)


EMITTERS: dict[Op, Emit] = {
    Op.NEG: _neg,
    Op.ABS: _abs,
    Op.SIGN: _sign,
    Op.SQRT: _sqrt,
    Op.NOT: _not,
    Op.ISFINITE: _isfinite,
    Op.ADD: _binary("add", "fadd"),
    Op.SUB: _binary("sub", "fsub"),
    Op.MUL: _binary("mul", "fmul"),
    Op.DIV: _binary("fdiv"),
    Op.FLOOR_DIV: _floor_div,
    Op.REMAINDER: _remainder,
    Op.NEXTAFTER: _nextafter,
    Op.MAXIMUM: _combine(Op.MAX),
    Op.MINIMUM: _combine(Op.MIN),
    Op.AND: _binary("and"),
    Op.OR: _binary("or"),
    Op.XOR: _binary("xor"),
    Op.SHIFT_LEFT: _shift_left,
    Op.SHIFT_RIGHT: _shift_right,
    Op.SELECT: _select,
}
EMITTERS.update({op: _rounding(name) for op, name in _ROUNDING.items()})
EMITTERS.update(
    {
        op: _math(op.name.lower())
        for op in (
            Op.RSQRT,
            Op.EXP,
            Op.EXPM1,
            Op.LOG,
            Op.LOG1P,
            Op.LOG2,
            Op.LOG10,
            Op.SIN,
            Op.COS,
            Op.TAN,
            Op.ASIN,
            Op.ACOS,
            Op.SINH,
            Op.COSH,
            Op.TANH,
            Op.ASINH,
            Op.ACOSH,
            Op.ATANH,
            Op.ERF,
            Op.ERFC,
            Op.ERFINV,
            Op.NDTR,
            Op.LGAMMA,
            Op.SIGMOID,
            Op.SILU,
            Op.GELU,
            Op.SOFTPLUS,
            Op.POW,
            Op.ATAN2,
        )
    }
)
