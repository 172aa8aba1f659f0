"""Pass: drop the names and origins of nodes that no result needs.

Such nodes are not part of a graph at all, so they need no pass themselves. Inputs, captures and
updates stay, needed or not: they are the signature by which the program is called.
"""

from __future__ import annotations

from dataclasses import replace

from einkorn.ir.graph import Graph


def dce(graph: Graph) -> Graph:
    """The graph without what does not matter to its results. Never changes a value."""
    live = {*graph.nodes, *graph.params}
    return replace(
        graph,
        names={node: name for node, name in graph.names.items() if node in live},
        origins={node: origin for node, origin in graph.origins.items() if node in live},
    )
