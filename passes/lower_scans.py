"""Lowering of scans, arg-reductions and sorting: along one axis of a dense operand."""

from __future__ import annotations

from math import prod

from einkorn.ir.dtypes import uint32, uint64
from einkorn.ir.loops import ArgReduce, ArgSort, Scan, sort_key_bits
from einkorn.ir.node import Node
from einkorn.ir.ops import Op
from einkorn.passes.costs import LAUNCH_NS, grain_of
from einkorn.passes.launches import Launch
from einkorn.passes.lower import Lowering

# What each scan does from one element to the next.
SCANS = {Op.CUMSUM: Op.SUM, Op.CUMPROD: Op.PROD, Op.CUMMAX: Op.MAX, Op.CUMMIN: Op.MIN}

SORT_NS = 3.0  # of one element in one pass of a merge sort


def middle_axis(lowering: Lowering, node: Node) -> None:
    """Scans, ARGMAX, ARGMIN: dense [outer, n, inner] around the axis."""
    if node.tensor.size == 0:
        return
    source = node.inputs[0]
    axis: int = node.attr("axis")
    view = lowering.dense(source)
    n = source.shape[axis]
    outer, inner = prod(source.shape[:axis]), prod(source.shape[axis + 1 :])
    dtype = source.dtype
    scan = SCANS.get(node.op)
    kernel = ArgReduce(node.op, dtype) if scan is None else Scan(scan, dtype)
    buffer = lowering.result(node)
    work = outer * inner
    cost = LAUNCH_NS + work * n * 1.5
    lowering.launch(
        kernel,
        (lowering.operand(view),),
        buffer,
        (outer, n, inner),
        work,
        cost,
        node,
    )


def arg_sort(lowering: Lowering, node: Node) -> None:
    """ARGSORT: dense rows, with working space for the places and the keys of every element."""
    if node.tensor.size == 0:
        return
    source = node.inputs[0]
    n = source.shape[-1]
    rows = source.tensor.size // n
    reads = (lowering.operand(lowering.dense(source)),)
    key = source.tensor.with_dtype(uint64 if sort_key_bits(source.dtype) == 64 else uint32)
    space = (node.tensor, key, key)
    writes = (lowering.result(node), *(lowering.temporary(type, "sorting") for type in space))
    passes = (n - 1).bit_length()
    cost = LAUNCH_NS + rows * n * (passes + 1) * SORT_NS
    lowering.emit(
        Launch(
            ArgSort(source.dtype),
            reads,
            tuple((buffer, 0) for buffer in writes),
            (rows, n, passes),
            rows,
            grain_of(rows, cost),
            cost,
            lowering.label(node),
        )
    )
