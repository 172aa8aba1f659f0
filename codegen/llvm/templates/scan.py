"""Scans, argmax and argmin along an axis: in order along it, sixteen lines side by side."""

from __future__ import annotations

from collections.abc import Callable

from einkorn.codegen.llvm.expressions import convert
from einkorn.codegen.llvm.text import Value, Writer, vector
from einkorn.codegen.llvm.vectors import (
    accumulator,
    combine,
    divmod_,
    element,
    load,
    neutral,
    param,
    pointer,
    register,
    round_to,
    signature,
    smaller,
    store,
)
from einkorn.ir.dtypes import DType, float32, float64
from einkorn.ir.loops import PARTIALS, ArgReduce, Scan
from einkorn.ir.ops import Op

LineBody = Callable[[int, Value, Value], None]


def scan(kernel: Scan, lanes: int) -> str:
    """LLVM text of Scan.

    for o, j in lines(begin, end):                  # 16 adjacent j at once, else one
        total = neutral                             # -0.0 for sums: -0.0 + x is x
        for i in range(n):
            total = total op x[o, i, j];  y[o, i, j] = total
    """
    w = Writer()
    dtype, wide = kernel.dtype, _running(kernel)
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        x, out = pointer(w, pointers, 0), pointer(w, pointers, 1)
        n, inner = param(w, params, 1), param(w, params, 2)

        def body(width: int, o: Value, j: Value) -> None:
            start = w.const(vector(width, register(wide)), neutral(kernel.op, wide))
            first = w.add(w.mul(w.mul(o, n), inner), j)
            with w.loop(w.i64(0), n, 1, [start]) as loop:
                at = w.add(first, w.mul(loop.index, inner))
                term = load(w, dtype, element(w, dtype, x, at), width)
                if wide is float64:
                    term = convert(w, dtype, wide, term)
                total = combine(w, kernel.op, wide, loop.carried[0], term)
                if wide is float64:
                    result = convert(w, wide, dtype, total)
                else:
                    result = round_to(w, dtype, total)
                store(w, dtype, result, element(w, dtype, out, at))
                loop.next = [total]

        _for_lines(w, begin, end, inner, body)
    return w.module()


def _running(kernel: Scan) -> DType:
    """The dtype of the running value."""
    if kernel.dtype is float32 and kernel.op in (Op.SUM, Op.PROD):
        return float64
    return accumulator(kernel.dtype)


def arg_reduce(kernel: ArgReduce, lanes: int) -> str:
    """LLVM text of ArgReduce.

    for o, j in lines(begin, end):                  # 16 adjacent j at once, else one
        best, where = x[o, 0, j], 0
        for i in range(1, n):
            if better(x[o, i, j], best): best, where = x[o, i, j], i
        out[o, j] = where
    """
    w = Writer()
    dtype = kernel.dtype
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        x, out = pointer(w, pointers, 0), pointer(w, pointers, 1)
        n, inner = param(w, params, 1), param(w, params, 2)

        def body(width: int, o: Value, j: Value) -> None:
            first = w.add(w.mul(w.mul(o, n), inner), j)
            best = load(w, dtype, element(w, dtype, x, first), width)
            zero = w.const(vector(width, "i64"), 0)
            with w.loop(w.i64(1), n, 1, [best, zero]) as loop:
                at = w.add(first, w.mul(loop.index, inner))
                found = load(w, dtype, element(w, dtype, x, at), width)
                better = _better(w, kernel.op, dtype, found, loop.carried[0])
                here = w.splat(loop.index, width)
                loop.next = [
                    w.select(better, found, loop.carried[0]),
                    w.select(better, here, loop.carried[1]),
                ]
            w.store(loop.results[1], w.gep("i64", out, w.add(w.mul(o, inner), j)))

        _for_lines(w, begin, end, inner, body)
    return w.module()


def _better(w: Writer, op: Op, dtype: DType, found: Value, best: Value) -> Value:
    """Whether `found` replaces `best`: strictly better, or the first NaN."""
    way = "gt" if op is Op.ARGMAX else "lt"
    if dtype.is_float:
        return w.and_(w.fcmp(f"u{way}", found, best), w.fcmp("ord", best, best))
    return w.icmp(f"{'s' if dtype.kind == 'i' else 'u'}{way}", found, best)


def _for_lines(w: Writer, begin: Value, end: Value, inner: Value, body: LineBody) -> None:
    """Write `body(width, o, j)` for the lines o * inner + j in [begin, end).

    while item < end:
        o, j = divmod(item, inner)
        if 16 more lines with this o are left: body(16, o, j); item += 16
        else: body(1, o, j); item += 1
    """
    cell = w.alloca("i64")
    w.store(begin, cell)
    with w.while_() as loop:
        item = w.load("i64", cell)
        loop.leave_unless(w.icmp("slt", item, end))
        o, j = divmod_(w, item, inner)
        left = smaller(w, w.sub(inner, j), w.sub(end, item))
        wide = w.icmp("sge", left, w.i64(PARTIALS))
        w.store(w.add(item, w.select(wide, w.i64(PARTIALS), w.i64(1))), cell)
        with w.if_else(wide) as branches:
            body(PARTIALS, o, j)
            branches.otherwise()
            body(1, o, j)
