"""Pass: drop updates that change nothing, and captures and side tables that nothing needs.

Nodes that no result needs are not part of a graph at all, so they need no pass. Inputs stay: they
are the signature.
"""

from __future__ import annotations

from dataclasses import replace

from einkorn.ir.graph import Graph


def dce(graph: Graph) -> Graph:
    """The graph without what does not matter to its results. Never changes a value."""
    updates = tuple((leaf, value) for leaf, value in graph.updates if value is not leaf)
    live = {*graph.outputs, *(node for pair in updates for node in pair)}
    trimmed = replace(graph, updates=updates)
    live.update(trimmed.nodes)
    captures = tuple(node for node in graph.captures if node in live)
    live.update(graph.inputs)
    return replace(
        trimmed,
        captures=captures,
        names={node: name for node, name in graph.names.items() if node in live},
        origins={node: origin for node, origin in graph.origins.items() if node in live},
    )
