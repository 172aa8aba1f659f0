"""A transposed product is the product of the transposed operands, in the other order.

The gradient of a weight that is used transposed (as in x @ w.T) is such a product. Turned, it is
computed in the layout in which it is wanted, so that the update reads it element for element. Each
result stays the same chain over k, and a product does not depend on the order of its factors.
"""

from __future__ import annotations

from einkorn.ir.graph import Graph
from einkorn.ir.host_calls import is_host_node
from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.ir.rewrite import Allow, rewrite


def turn_dots(graph: Graph, *, allow: Allow) -> Graph:
    """The graph with each dot turned that is used transposed and in no other way."""
    straight = {x for node in graph.nodes if not _transposes(node) for x in node.inputs}
    straight.update(graph.results)

    def turn_dot(node: Node) -> Node | None:
        """transpose(dot(a, b)) -> dot(b, a)"""
        (dot,) = node.inputs
        if dot.op is not Op.DOT or dot in straight or not _transposes(node) or is_host_node(dot):
            return None
        a, b = dot.inputs
        ca, cb = dot.attr("contract")
        return make(Op.DOT, b, a, contract=(cb, ca))

    return rewrite(graph, {Op.TRANSPOSE: (turn_dot,)}, allow=allow)


def _transposes(node: Node) -> bool:
    """Whether a node swaps the last two axes and keeps the others."""
    if node.op is not Op.TRANSPOSE:
        return False
    rank = len(node.shape)
    return node.attr("axes") == (*range(rank - 2), rank - 1, rank - 2)
