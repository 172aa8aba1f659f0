"""Lowering of what is computed on the host: one launch that calls the function."""

from __future__ import annotations

from einkorn.ir.host_calls import result_types
from einkorn.ir.loops import HostCall
from einkorn.ir.node import Node, project
from einkorn.ir.types import TupleType
from einkorn.passes.costs import host_cost
from einkorn.passes.launches import Launch
from einkorn.passes.lower import Lowering

BLANK = (0, 0, 0)  # filled in by the runtime


def host(lowering: Lowering, node: Node) -> None:
    """HOST, and any op on complex numbers: its operands dense, every result in a buffer."""
    views = [lowering.dense(x) for x in node.inputs]
    results = result_types(node.type)
    parts = [node]
    if isinstance(node.type, TupleType):
        parts = [project(node, k) for k in range(len(results))]
    kernel = HostCall(node.op, node.attrs, tuple(x.tensor for x in node.inputs), results)
    lowering.emit(
        Launch(
            kernel,
            tuple(lowering.operand(view) for view in views),
            tuple((lowering.result(part), 0) for part in parts),
            BLANK,
            1,
            1,
            host_cost(kernel),
            lowering.label(node),
            refuses=True,
        )
    )
