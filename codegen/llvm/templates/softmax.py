"""softmax, log_softmax and logsumexp of rows.

    top = maximum of the row;  s = sum of exp(x - top) in the canonical row order
    softmax: exp(x - top) / s     log_softmax: (x - top) - log(s)     logsumexp: top + log(s)

As in PyTorch and JAX, a row that holds +inf or only -inf has softmax and log_softmax NaN (inf - inf
is what says so); logsumexp subtracts 0 there and gives +inf and -inf. NaN spreads over its row.
Half types compute in float and round once.
"""

from __future__ import annotations

from dataclasses import dataclass

from einkorn.codegen.llvm.mathlib import MATH
from einkorn.codegen.llvm.text import Value, Writer, vector
from einkorn.codegen.llvm.vectors import (
    HALVES,
    accumulator,
    combine,
    element,
    join,
    load_lanes,
    neutral,
    param,
    pointer,
    register,
    round_to,
    signature,
    smaller,
    store,
    store_lanes,
    sweep,
)
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import PARTIALS, ROW_BLOCK, RowSoftmax
from einkorn.ir.ops import Op


@dataclass(frozen=True, slots=True)
class _Row:
    """One row: its dtype, length and the addresses of its operand and result."""

    dtype: DType
    n: Value
    x: Value
    out: Value


def row_softmax(kernel: RowSoftmax, lanes: int) -> str:
    """LLVM text of RowSoftmax.

    for row in range(begin, end):
        top = max over x[row]
        s = blocked sum of exp(x[row] - top)     # softmax leaves the terms in out
        out[row] = the result of each element    # logsumexp: the one result
    """
    w = Writer()
    dtype = kernel.dtype
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        x, out = pointer(w, pointers, 0), pointer(w, pointers, 1)
        n, x_stride, out_stride = (param(w, params, i) for i in (1, 2, 3))
        with w.loop(begin, end) as loop:
            row = _Row(
                dtype,
                n,
                element(w, dtype, x, w.mul(loop.index, x_stride)),
                element(w, dtype, out, w.mul(loop.index, out_stride)),
            )
            _write_row(w, kernel.op, row)
    return w.module()


def _write_row(w: Writer, op: Op, row: _Row) -> None:
    top = _maximum(w, row)
    if op is Op.LOGSUMEXP:
        shift = _zero_unless_finite(w, top)
        total = _exp_sum(w, row, w.splat(shift, PARTIALS), keep=False)
        result = w.add(MATH["log"](w, total), shift)
        store(w, row.dtype, round_to(w, row.dtype, result), row.out)
        return
    shift = w.splat(top, PARTIALS)
    if op is Op.LOG_SOFTMAX:
        total = _exp_sum(w, row, shift, keep=False)
        _write_log(w, row, shift, w.splat(MATH["log"](w, total), PARTIALS))
        return
    # The terms fit in `out` only if they are not rounded there; half types compute them again.
    keep = row.dtype not in HALVES
    total = _exp_sum(w, row, shift, keep)
    _write_quotient(w, row, shift, w.splat(total, PARTIALS), keep)


def _maximum(w: Writer, row: _Row) -> Value:
    wide = accumulator(row.dtype)
    type = vector(PARTIALS, register(wide))
    low = w.const(type, neutral(Op.MAX, wide))

    def body(index: Value, mask: Value | None, carried: list[Value]) -> list[Value]:
        x = load_lanes(w, row.dtype, element(w, row.dtype, row.x, index), mask)
        return [combine(w, Op.MAX, wide, carried[0], x if mask is None else w.select(mask, x, low))]

    best = sweep(w, w.i64(0), row.n, [low], body)[0]
    return join(w, Op.MAX, wide, best)


def _zero_unless_finite(w: Writer, x: Value) -> Value:
    size = w.intrinsic("llvm.fabs", x.type, x)
    finite = w.fcmp("olt", size, w.const(x.type, float("inf")))
    return w.select(finite, x, w.const(x.type, 0.0))


def _exp_sum(w: Writer, row: _Row, shift: Value, keep: bool) -> Value:
    """The sum of exp(x - shift) in blocks of ROW_BLOCK, as a scalar; `keep` stores the terms."""
    wide = accumulator(row.dtype)
    none = w.const(shift.type, neutral(Op.SUM, wide))

    def body(index: Value, mask: Value | None, carried: list[Value]) -> list[Value]:
        term = _term(w, row, shift, index, mask)
        if keep:
            store_lanes(w, row.dtype, term, element(w, row.dtype, row.out, index), mask)
        return [w.add(carried[0], term if mask is None else w.select(mask, term, none))]

    start = w.const(register(wide), neutral(Op.SUM, wide))
    with w.loop(w.i64(0), row.n, ROW_BLOCK, [start]) as blocks:
        stop = smaller(w, row.n, w.add(blocks.index, w.i64(ROW_BLOCK)))
        partials = sweep(w, blocks.index, stop, [none], body)[0]
        blocks.next = [w.add(blocks.carried[0], join(w, Op.SUM, wide, partials))]
    return blocks.results[0]


def _term(w: Writer, row: _Row, shift: Value, index: Value, mask: Value | None) -> Value:
    x = load_lanes(w, row.dtype, element(w, row.dtype, row.x, index), mask)
    return MATH["exp"](w, w.sub(x, shift))


def _write_log(w: Writer, row: _Row, shift: Value, log_total: Value) -> None:
    """out[i] = (x[i] - shift) - log_total"""

    def body(index: Value, mask: Value | None, carried: list[Value]) -> list[Value]:
        x = load_lanes(w, row.dtype, element(w, row.dtype, row.x, index), mask)
        result = round_to(w, row.dtype, w.sub(w.sub(x, shift), log_total))
        store_lanes(w, row.dtype, result, element(w, row.dtype, row.out, index), mask)
        return []

    sweep(w, w.i64(0), row.n, [], body)


def _write_quotient(w: Writer, row: _Row, shift: Value, total: Value, kept: bool) -> None:
    """out[i] = term[i] / total"""

    def body(index: Value, mask: Value | None, carried: list[Value]) -> list[Value]:
        place = element(w, row.dtype, row.out, index)
        known = load_lanes(w, row.dtype, place, mask) if kept else None
        term = known if known is not None else _term(w, row, shift, index, mask)
        store_lanes(w, row.dtype, round_to(w, row.dtype, w.fdiv(term, total)), place, mask)
        return []

    sweep(w, w.i64(0), row.n, [], body)
