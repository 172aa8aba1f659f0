"""Partial results of the blocks of a reduction, combined in order."""

from __future__ import annotations

from einkorn.codegen.llvm.text import Value, Writer, vector
from einkorn.codegen.llvm.vectors import (
    ceil_div,
    combine,
    divmod_,
    element,
    load_lanes,
    neutral,
    param,
    pointer,
    register,
    signature,
    smaller,
    store_lanes,
    sweep,
)
from einkorn.ir.loops import COLUMN_CHUNK, PARTIALS, Sequence


def sequence(kernel: Sequence, lanes: int) -> str:
    """LLVM text of Sequence.

    for o, chunk in range(begin, end):
        for i in chunk step 16:
            total = neutral
            for j in range(count): total = total op x[o, j, i : i + 16]
            out[o, i : i + 16] = total
    """
    w = Writer()
    op, dtype = kernel.op, kernel.dtype
    none = w.const(vector(PARTIALS, register(dtype)), neutral(op, dtype))
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        x, out = pointer(w, pointers, 0), pointer(w, pointers, 1)
        count, inner = param(w, params, 1), param(w, params, 2)
        chunks = ceil_div(w, inner, COLUMN_CHUNK)
        with w.loop(begin, end) as items:
            outer, chunk = divmod_(w, items.index, chunks)
            start = w.mul(chunk, w.i64(COLUMN_CHUNK))
            stop = smaller(w, w.add(start, w.i64(COLUMN_CHUNK)), inner)
            first = element(w, dtype, x, w.mul(outer, w.mul(count, inner)))
            result = element(w, dtype, out, w.mul(outer, inner))

            def body(index: Value, mask: Value | None, _: list[Value]) -> list[Value]:
                with w.loop(w.i64(0), count, 1, [none]) as parts:
                    at = w.add(w.mul(parts.index, inner), index)
                    part = load_lanes(w, dtype, element(w, dtype, first, at), mask)
                    parts.next = [combine(w, op, dtype, parts.carried[0], part)]
                store_lanes(w, dtype, parts.results[0], element(w, dtype, result, index), mask)
                return []

            sweep(w, start, stop, [], body)
    return w.module()
