"""Lowering of scans and arg-reductions: along one axis of a dense operand."""

from __future__ import annotations

from math import prod

from einkorn.ir.loops import ArgReduce, Scan
from einkorn.ir.node import Node
from einkorn.ir.ops import Op
from einkorn.passes.costs import LAUNCH_NS
from einkorn.passes.lower import Lowering


def middle_axis(lowering: Lowering, node: Node) -> None:
    """CUMSUM, ARGMAX, ARGMIN: dense [outer, n, inner] around the axis."""
    if node.tensor.size == 0:
        return
    source = node.inputs[0]
    axis: int = node.attr("axis")
    view = lowering.dense(source)
    n = source.shape[axis]
    outer, inner = prod(source.shape[:axis]), prod(source.shape[axis + 1 :])
    dtype = source.dtype
    kernel = Scan(dtype) if node.op is Op.CUMSUM else ArgReduce(node.op, dtype)
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
