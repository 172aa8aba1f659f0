"""One map kernel on many tensors: what an optimizer does to all parameters, as one launch."""

from __future__ import annotations

from einkorn.codegen.llvm.loop_values import Nest
from einkorn.codegen.llvm.loops import write_all
from einkorn.codegen.llvm.text import Value, Writer
from einkorn.codegen.llvm.vectors import larger, param, signature, smaller
from einkorn.ir.loops import BATCH_CHUNK, Batched


def batched(kernel: Batched, lanes: int) -> str:
    """LLVM text of Batched.

    for tensor in range(count):
        low, high = the work items of [begin, end) that are chunks of this tensor
        the map kernel on its elements [low * BATCH_CHUNK, min(high * BATCH_CHUNK, n))
    """
    w = Writer()
    inner = kernel.kernel
    loads, stores = len(inner.loads), len(inner.stores)
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        count = param(w, params, 0)
        rows = w.gep("i64", params, w.add(count, w.i64(2)))
        outputs = w.gep("ptr", pointers, w.mul(count, w.i64(loads)))
        with w.loop(w.i64(0), count) as tensors:
            number = tensors.index
            starts = w.gep("i64", params, w.add(number, w.i64(1)))
            first, following = param(w, starts, 0), param(w, starts, 1)
            low, high = larger(w, begin, first), smaller(w, end, following)
            with w.if_(w.icmp("slt", low, high)):
                row = w.gep("i64", rows, w.mul(number, w.i64(1 + loads + stores)))
                nest = Nest(
                    w,
                    inner,
                    row,
                    [
                        *_addresses(w, pointers, number, loads),
                        *_addresses(w, outputs, number, stores),
                    ],
                )
                start = w.mul(w.sub(low, first), w.i64(BATCH_CHUNK))
                stop = w.mul(w.sub(high, first), w.i64(BATCH_CHUNK))
                write_all(nest, nest.bases, start, smaller(w, stop, nest.extents[0]))
    return w.module()


def _addresses(w: Writer, table: Value, number: Value, width: int) -> list[Value]:
    """Row `number` of a table of addresses."""
    row = w.gep("ptr", table, w.mul(number, w.i64(width)))
    return [w.load("ptr", w.gep("ptr", row, w.i64(k))) for k in range(width)]
