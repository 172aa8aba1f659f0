"""gather and scatter. Whatever an index is, only the axis is read and written."""

from __future__ import annotations

from collections.abc import Callable

from einkorn.codegen.llvm.text import Value, Writer, vector
from einkorn.codegen.llvm.vectors import (
    ceil_div,
    divmod_,
    larger,
    param,
    pointer,
    round_down,
    signature,
    smaller,
    storage,
)
from einkorn.ir.dtypes import DType, uint64
from einkorn.ir.loops import COLUMN_CHUNK, PARTIALS, Gather, Scatter
from einkorn.ir.ops import Op
from einkorn.ir.program import STATUS_INDEX


def gather(kernel: Gather, lanes: int) -> str:
    """LLVM text of Gather.

    for item in range(begin, end):
        o, i = divmod(item, count)
        out[item, :] = x[o, clamp(indices[i]), :]
    """
    w = Writer()
    type = f"i{8 * kernel.itemsize}"
    with w.function("kernel", signature()) as (pointers, params, begin, end, status):
        x, indices, out = (pointer(w, pointers, i) for i in range(3))
        size, count, inner = (param(w, params, i) for i in (1, 2, 3))
        with w.loop(begin, end) as loop:
            o, i = divmod_(w, loop.index, count)
            row = _resolve(w, kernel.index, indices, i, size, status)
            source = w.gep(type, x, w.mul(w.add(w.mul(o, size), row), inner))
            target = w.gep(type, out, w.mul(loop.index, inner))
            _for_elements(w, inner, _update(w, Op.SCATTER_SET, type, source, target))
    return w.module()


def scatter(kernel: Scatter, lanes: int) -> str:
    """LLVM text of Scatter.

    for item in range(begin, end):
        o, chunk = divmod(item, ceil(inner / 64))
        for i in range(count):                       # in order: the last of equal indices wins
            out[o, clamp(indices[i]), columns of chunk] op= updates[o, i, columns of chunk]
    """
    w = Writer()
    type = storage(kernel.dtype)
    with w.function("kernel", signature()) as (pointers, params, begin, end, status):
        indices, updates, out = (pointer(w, pointers, i) for i in range(3))
        size, count, inner = (param(w, params, i) for i in (1, 2, 3))
        chunks = ceil_div(w, inner, COLUMN_CHUNK)
        with w.loop(begin, end) as loop:
            o, chunk = divmod_(w, loop.index, chunks)
            column = w.mul(chunk, w.i64(COLUMN_CHUNK))
            span = smaller(w, w.sub(inner, column), w.i64(COLUMN_CHUNK))
            with w.loop(w.i64(0), count) as each:
                row = _resolve(w, kernel.index, indices, each.index, size, status)
                given = w.mul(w.add(w.mul(o, count), each.index), inner)
                source = w.gep(type, updates, w.add(given, column))
                held = w.mul(w.add(w.mul(o, size), row), inner)
                target = w.gep(type, out, w.add(held, column))
                _for_elements(w, span, _update(w, kernel.op, type, source, target))
    return w.module()


def _update(
    w: Writer, op: Op, type: str, source: Value, target: Value
) -> Callable[[int, Value], None]:
    """target[at] = source[at], or target[at] += source[at]"""

    def body(width: int, at: Value) -> None:
        value = w.load(vector(width, type), w.gep(type, source, at))
        place = w.gep(type, target, at)
        if op is Op.SCATTER_ADD:
            value = w.add(w.load(value.type, place), value)
        w.store(value, place)

    return body


def _resolve(
    w: Writer, dtype: DType, indices: Value, i: Value, size: Value, status: Value
) -> Value:
    """indices[i] counted from the start and clamped to [0, size); reports one that was outside."""
    stored = w.load(storage(dtype), w.gep(storage(dtype), indices, i))
    last = w.sub(size, w.i64(1))
    if dtype is uint64:
        wrapped = stored
        clamped = w.intrinsic("llvm.umin", "i64", wrapped, last)
    else:
        extend = "sext" if dtype.kind == "i" else "zext"
        index = stored if stored.type == "i64" else w.cast(extend, stored, "i64")
        negative = w.icmp("slt", index, w.i64(0))
        wrapped = w.select(negative, w.add(index, size), index)
        clamped = larger(w, smaller(w, wrapped, last), w.i64(0))
    with w.if_(w.icmp("ne", wrapped, clamped)):
        w.emit("i64", f"atomicrmw or {status}, i64 {STATUS_INDEX} monotonic, align 8")
    return clamped


def _for_elements(w: Writer, count: Value, body: Callable[[int, Value], None]) -> None:
    """Write `body(width, at)` over [0, count): whole vectors of 16, then single elements."""
    full = round_down(w, count, PARTIALS)
    with w.loop(w.i64(0), full, PARTIALS) as loop:
        body(PARTIALS, loop.index)
    with w.loop(full, count) as loop:
        body(1, loop.index)
