"""Vectors of einkorn's dtypes in LLVM text: how they are stored, held in registers and reduced.

The storage type is what lies in memory; the register type is what kernels compute with. Half types
are held as float values that are already rounded to the half type (bfloat16 is stored as the upper
16 bits of a float, spelled i16, because few machines convert it), bool is held as i1 and stored as
one byte. Nothing here becomes a library call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from einkorn.codegen.llvm.text import Value, Writer, element_of, lanes_of, like, vector
from einkorn.ir.dtypes import DType, bfloat16, bool_, float16, float32, float64
from einkorn.ir.loops import PARTIALS
from einkorn.ir.ops import Op

_STORAGE = {float16: "half", bfloat16: "i16", float32: "float", float64: "double", bool_: "i8"}
_REGISTER = {float16: "float", bfloat16: "float", float32: "float", float64: "double", bool_: "i1"}
HALVES = (float16, bfloat16)


def storage(dtype: DType) -> str:
    """The LLVM type of one stored element: "half", "i16" for bfloat16, "i8" for bool, "i32"..."""
    return _STORAGE.get(dtype) or f"i{dtype.bits}"


def register(dtype: DType) -> str:
    """The LLVM type of one element in a register: "float" for half types, "i1" for bool."""
    return _REGISTER.get(dtype) or f"i{dtype.bits}"


def accumulator(dtype: DType) -> DType:
    """The dtype in which one op accumulates: float32 for half types, else its own."""
    return float32 if dtype in HALVES else dtype


# -- conversions -----------------------------------------------------------------------------------


def to_register(w: Writer, dtype: DType, value: Value) -> Value:
    """Widen stored elements of `dtype` to the register type."""
    if dtype is float16:
        return w.cast("fpext", value, "float")
    if dtype is bfloat16:
        wide = w.cast("zext", value, "i32")
        bits = w.shl(wide, w.const(wide.type, 16))
        return w.bitcast(bits, like(value.type, "float"))
    if dtype is bool_:
        return w.icmp("ne", value, w.const(value.type, 0))
    return value


def to_storage(w: Writer, dtype: DType, value: Value) -> Value:
    """Narrow register values of `dtype` to the storage type; half values are already rounded."""
    if dtype is float16:
        return w.cast("fptrunc", value, "half")
    if dtype is bfloat16:
        bits = w.bitcast(value, like(value.type, "i32"))
        return w.cast("trunc", w.lshr(bits, w.const(bits.type, 16)), "i16")
    if dtype is bool_:
        return w.cast("zext", value, "i8")
    return value


def round_to(w: Writer, dtype: DType, value: Value) -> Value:
    """Round float values once, to nearest even, to a half type; other dtypes pass through.

    The result is the register value of `dtype`. Doubles may be given for half types: they go
    through a float rounded to odd, which makes the two roundings one.
    """
    if dtype not in HALVES:
        return value
    if element_of(value.type) == "double":
        value = _float_rounded_to_odd(w, value)
    if dtype is float16:
        return w.cast("fpext", w.cast("fptrunc", value, "half"), "float")
    return _round_bfloat16(w, value)


def _round_bfloat16(w: Writer, value: Value) -> Value:
    """bits + 0x7fff + (bit 16), lower half cleared; NaN stays NaN (made quiet)."""
    bits = w.bitcast(value, like(value.type, "i32"))
    last = w.and_(w.lshr(bits, w.const(bits.type, 16)), w.const(bits.type, 1))
    bumped = w.add(w.add(bits, w.const(bits.type, 0x7FFF)), last)
    quiet = w.or_(bits, w.const(bits.type, 0x400000))
    chosen = w.select(w.fcmp("uno", value, value), quiet, bumped)
    kept = w.and_(chosen, w.const(bits.type, 0xFFFF0000))
    return w.bitcast(kept, value.type)


def _float_rounded_to_odd(w: Writer, value: Value) -> Value:
    """The float neighbour of an inexact double whose last bit is 1 (Boldo, Melquiond 2008).

    near = fptrunc x; if near != x and near is even: one step towards x, else near
    """
    near = w.cast("fptrunc", value, "float")
    back = w.cast("fpext", near, "double")
    bits = w.bitcast(near, like(value.type, "i32"))
    one = w.const(bits.type, 1)
    # `one` differs from the given value and both are numbers.
    inexact = w.fcmp("one", back, value)
    even = w.icmp("eq", w.and_(bits, one), w.const(bits.type, 0))
    sizes = [w.intrinsic("llvm.fabs", x.type, x) for x in (back, value)]
    beyond = w.fcmp("ogt", *sizes)
    step = w.select(beyond, w.const(bits.type, -1), one)
    moved = w.select(w.and_(inexact, even), w.add(bits, step), bits)
    return w.bitcast(moved, near.type)


# -- memory ----------------------------------------------------------------------------------------


def load(w: Writer, dtype: DType, pointer: Value, lanes: int = 1) -> Value:
    """Load `lanes` adjacent elements into a register value."""
    return to_register(w, dtype, w.load(vector(lanes, storage(dtype)), pointer))


def store(w: Writer, dtype: DType, value: Value, pointer: Value) -> None:
    """Store a register value (scalar or vector) to adjacent elements."""
    w.store(to_storage(w, dtype, value), pointer)


def masked_load(w: Writer, dtype: DType, pointer: Value, mask: Value) -> Value:
    """Load the lanes of `mask`, zero in the others, whose memory is not touched."""
    type = like(mask.type, storage(dtype))
    return to_register(w, dtype, w.masked_load(type, pointer, mask))


def masked_store(w: Writer, dtype: DType, value: Value, pointer: Value, mask: Value) -> None:
    """Store the lanes of `mask`; the memory of the others is not touched."""
    w.masked_store(to_storage(w, dtype, value), pointer, mask)


def element(w: Writer, dtype: DType, pointer: Value, index: Value) -> Value:
    """The address of stored element `index` (an i64)."""
    return w.gep(storage(dtype), pointer, index)


def param(w: Writer, params: Value, index: int) -> Value:
    """The i64 parameter `index` of a kernel."""
    return w.load("i64", w.gep("i64", params, w.i64(index)))


def pointer(w: Writer, pointers: Value, index: int) -> Value:
    """The address of buffer `index` of a kernel."""
    return w.load("ptr", w.gep("ptr", pointers, w.i64(index)))


# -- index arithmetic ------------------------------------------------------------------------------


def divmod_(w: Writer, a: Value, b: Value) -> tuple[Value, Value]:
    """Quotient and remainder of non-negative i64 values, b > 0."""
    quotient = w.binary("udiv", a, b)
    return quotient, w.sub(a, w.mul(quotient, b))


def ceil_div(w: Writer, a: Value, b: int) -> Value:
    """ceil(a / b) of a non-negative i64."""
    return w.binary("udiv", w.add(a, w.i64(b - 1)), w.i64(b))


def round_down(w: Writer, a: Value, b: int) -> Value:
    """The multiple of b, a power of two, at or below a non-negative i64."""
    return w.and_(a, w.i64(-b))


def smaller(w: Writer, a: Value, b: Value) -> Value:
    """min(a, b) of signed integers."""
    return w.intrinsic("llvm.smin", a.type, a, b)


def larger(w: Writer, a: Value, b: Value) -> Value:
    """max(a, b) of signed integers."""
    return w.intrinsic("llvm.smax", a.type, a, b)


# -- reductions ------------------------------------------------------------------------------------


def combine(w: Writer, op: Op, dtype: DType, a: Value, b: Value) -> Value:
    """`a op b` in registers for SUM, PROD, MAX, MIN; IEEE maximum and minimum; no rounding to half.

    Give the accumulator dtype's values for half types.
    """
    if op in (Op.SUM, Op.PROD):
        return w.add(a, b) if op is Op.SUM else w.mul(a, b)
    if dtype is bool_:
        return w.or_(a, b) if op is Op.MAX else w.and_(a, b)
    end = "max" if op is Op.MAX else "min"
    if dtype.is_float:
        return w.intrinsic(f"llvm.{end}imum", a.type, a, b)
    return w.intrinsic(f"llvm.{'s' if dtype.kind == 'i' else 'u'}{end}", a.type, a, b)


def neutral(op: Op, dtype: DType) -> float | int:
    """The number that changes nothing under `combine`: -0.0 for float sums, -inf for MAX, ..."""
    if op is Op.SUM:
        return -0.0 if dtype.is_float else 0
    if op is Op.PROD:
        return 1
    if dtype.is_float:
        return -np.inf if op is Op.MAX else np.inf
    if dtype is bool_:
        return 0 if op is Op.MAX else 1
    info = np.iinfo(dtype.numpy)
    return int(info.min if op is Op.MAX else info.max)


def join(w: Writer, op: Op, dtype: DType, partials: Value) -> Value:
    """Join PARTIALS lanes into a scalar: lane j gets j + 8 (j < 8), then j + 4, j + 2, j + 1."""
    width = lanes_of(partials.type)
    if width != PARTIALS:
        raise ValueError(f"join: expected {PARTIALS} lanes, got {partials.type}")
    while width > 2:
        width //= 2
        low = w.shuffle(partials, None, range(width))
        high = w.shuffle(partials, None, range(width, 2 * width))
        partials = combine(w, op, dtype, low, high)
    return combine(w, op, dtype, w.extract(partials, 0), w.extract(partials, 1))


# -- control flow ----------------------------------------------------------------------------------

Body = Callable[[Value, Value | None, list[Value]], list[Value]]


def sweep(
    w: Writer,
    start: Value,
    stop: Value,
    carried: Sequence[Value],
    body: Body,
    lanes: int = PARTIALS,
) -> list[Value]:
    """Write `body(index, mask, carried)` over [start, stop) in steps of `lanes`.

    for index in range(start, full, lanes): body without a mask     # full = last whole vector
    for index in range(full, stop, lanes):  body with the mask of the tail, at most once
    """
    full = w.add(start, round_down(w, w.sub(stop, start), lanes))
    with w.loop(start, full, lanes, carried) as whole:
        whole.next = body(whole.index, None, whole.carried)
    with w.loop(full, stop, lanes, whole.results) as tail:
        mask = w.tail_mask(w.sub(stop, tail.index), lanes)
        tail.next = body(tail.index, mask, tail.carried)
    return tail.results


def load_lanes(
    w: Writer, dtype: DType, pointer: Value, mask: Value | None, lanes: int = PARTIALS
) -> Value:
    """`lanes` adjacent elements, or those of `mask`."""
    if mask is None:
        return load(w, dtype, pointer, lanes)
    return masked_load(w, dtype, pointer, mask)


def store_lanes(w: Writer, dtype: DType, value: Value, pointer: Value, mask: Value | None) -> None:
    """Store a vector to adjacent elements, or the lanes of `mask`."""
    if mask is None:
        store(w, dtype, value, pointer)
    else:
        masked_store(w, dtype, value, pointer, mask)


def signature() -> list[tuple[str, str]]:
    """The parameters of every kernel (ir/loops.py)."""
    return [
        ("ptr", "pointers"),
        ("ptr", "params"),
        ("i64", "begin"),
        ("i64", "end"),
        ("ptr", "status"),
    ]
