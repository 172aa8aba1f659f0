"""Pass: a graph with sizes that calls bring becomes one of padded arrays, with the same bits.

Its inputs are as long as the padding of their axes, and one int64 for each length follows them.
Results hold in front, along each axis, what the graph would give for arrays of that length; what is
behind is anything. The pass goes first to expand-autodiff, so that derivatives are padded like any
other node, and must come before every stage that looks at sizes. Never changes a true element: an
op for which that cannot be shown is refused, with the user's line.

`RULES` and `REFUSED` together list every op.
"""

from __future__ import annotations

from einkorn.ir.graph import Graph
from einkorn.ir.host import complex_numbers
from einkorn.ir.host_calls import is_host_node
from einkorn.ir.node import Node
from einkorn.ir.ops import OPS, Op
from einkorn.passes.padding import control, indexing, movement, reductions
from einkorn.passes.padding.context import Padding, Rule, padded, same, sizes_in

_HOST = (
    "a function on the host, or one of complex numbers, sees the padding, and NumPy's order of "
    "operations may depend on the shape"
)

REFUSED: dict[Op, str] = {
    Op.CALLBACK: "a Python function would see the padding",
    Op.GRAD: "expand-autodiff comes before",
    Op.CALL: "expand-autodiff comes before",
    Op.INPUT: "an input is padded where the graph is called",
    Op.CONST: "a constant has no axes",
    Op.CHECK: "a condition has no axes",
}


def _on_host(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """Each element of the functions of complex numbers comes from one; no other is padded."""
    if node.attr("function") not in complex_numbers.FUNCTIONS:
        raise pad.refused(node, f"{node.attr('function')}: {_HOST}")
    return same(pad, node, operands)


def _alone(rule: Rule) -> Rule:
    """A rule for the ops of kernels; what NumPy computes may have an order of its own."""

    def checked(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
        if is_host_node(node):
            raise pad.refused(node, _HOST)
        return rule(pad, node, operands)

    return checked


RULES: dict[Op, Rule] = {
    **{op: same for op, row in OPS.items() if row.elementwise},
    **movement.RULES,
    **{op: _alone(rule) for op, rule in (reductions.RULES | indexing.RULES).items()},
    **control.RULES,
    Op.HOST: _on_host,
}


def pad(graph: Graph) -> Graph:
    """The padded graph of one whose inputs have sizes; SizeError for what cannot be padded.

    Its inputs are those of `graph`, then the lengths of these, sorted.

    Args:
        graph: a traced graph; `grad` and `call` in it are expanded first.
    """
    found = {x for node in graph.inputs for size in sizes_in(node.type) for x in size.lengths}
    padding = Padding(graph, sorted(found), RULES, REFUSED)
    return padding.graph(len(graph.inputs))


__all__ = ["REFUSED", "RULES", "pad", "padded"]
