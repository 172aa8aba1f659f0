"""Pass: drop what no result needs: results and operands of control flow, names and origins.

Other nodes that no result needs are not part of a graph at all. Inputs, captures and updates stay,
needed or not: they are the signature by which the program is called.
"""

from __future__ import annotations

from dataclasses import replace

from einkorn.ir.graph import Graph
from einkorn.passes.prune import prune


def dce(graph: Graph) -> Graph:
    """The graph without what does not matter to its results. Never changes a value."""
    graph = prune(graph)
    live = {*graph.nodes, *graph.params}
    return replace(
        graph,
        names={node: name for node, name in graph.names.items() if node in live},
        origins={node: origin for node, origin in graph.origins.items() if node in live},
    )
