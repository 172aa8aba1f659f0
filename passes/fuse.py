"""Pass `fuse`: group elementwise nodes into kernels. Changes no value, and no bit of one.

Cost rule: an elementwise node is computed inside its consumer's kernel when every use of it is in
that one kernel, element for element; then its value never goes through memory. A node with uses in
several kernels, or used through a movement op, is stored once. Groups have a single result, so
they can never depend on each other in a circle.
"""

from __future__ import annotations

from einkorn.ir.graph import Graph
from einkorn.ir.node import Node
from einkorn.ir.ops import OPS, Op
from einkorn.passes.launches import Groups


def is_pointwise(node: Node) -> bool:
    """Whether a loop nest computes the node from operands at the same index."""
    return OPS[node.op].elementwise and not OPS[node.op].view


def fuse(graph: Graph) -> Groups:
    """Choose the nodes that get a buffer and, for each, the elementwise nodes computed with it."""
    uses: dict[Node, list[Node]] = {node: [] for node in graph.nodes}
    for node in graph.nodes:
        for operand in node.inputs:
            uses[operand].append(node)
    results = set(graph.results)
    group: dict[Node, Node] = {}
    for node in reversed(graph.nodes):
        if is_pointwise(node):
            homes = {_home(node, use, group) for use in uses[node]}
            alone = node in results or len(homes) != 1 or None in homes
            group[node] = node if alone else next(home for home in homes if home is not None)
    members: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node in group:
            members.setdefault(group[node], []).append(node)
    roots = tuple(node for node in graph.nodes if _is_root(node, group))
    return Groups(graph, roots, {root: tuple(nodes) for root, nodes in members.items()})


def _home(node: Node, use: Node, group: dict[Node, Node]) -> Node | None:
    """The group in which `use` reads `node` element for element, if any."""
    return group[use] if use in group and use.shape == node.shape else None


def _is_root(node: Node, group: dict[Node, Node]) -> bool:
    if node in group:
        return group[node] is node
    return not OPS[node.op].view and node.op not in (Op.INPUT, Op.CONST)
