"""A graph with sizes as it is for one call: what is recorded without padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from einkorn.ir.graph import Graph, map_graphs
from einkorn.ir.node import Node, constant, make, placeholder, remake, toposort
from einkorn.ir.ops import Op
from einkorn.ir.sizes import Length, plain
from einkorn.passes.padding.context import touches


class Fixed:
    """Nodes with sizes, and the same with the numbers that the sizes are in one call.

    Attributes:
        env: the node of the call for each node that was asked for.
    """

    def __init__(self, lengths: Mapping[Length, int]) -> None:
        self.env: dict[Node, Node] = {}
        self._lengths = lengths
        self._graphs: dict[Graph, Graph] = {}

    def nodes(self, roots: Iterable[Node]) -> list[Node]:
        """The nodes of the call."""
        listed = list(roots)
        for node in toposort(listed, into=lambda node: node not in self.env):
            if node not in self.env:
                self.env[node] = self._made(node)
        return [self.env[root] for root in listed]

    def graph(self, graph: Graph) -> Graph:
        """A graph of the call, the graphs that it applies among it."""
        if graph not in self._graphs:
            inputs, captures = self.nodes(graph.inputs), self.nodes(graph.captures)
            outputs = self.nodes(graph.outputs)
            leaves = self.nodes(leaf for leaf, _ in graph.updates)
            values = self.nodes(value for _, value in graph.updates)
            names = {self.env[x]: name for x, name in graph.names.items() if x in self.env}
            origins = {self.env[x]: place for x, place in graph.origins.items() if x in self.env}
            self._graphs[graph] = Graph(
                graph.name,
                tuple(inputs),
                tuple(captures),
                tuple(outputs),
                tuple(zip(leaves, values)),
                names,
                origins,
            )
        return self._graphs[graph]

    def _made(self, node: Node) -> Node:
        operands = tuple([self.env[x] for x in node.inputs])
        if not touches(node):
            return remake(node, operands)
        if node.op is Op.SIZE:
            return constant(node.dtype, node.attr("size").at(self._lengths))
        if node.op is Op.INPUT:
            shape = plain(node.shape, lambda size: size.at(self._lengths))
            return placeholder(node.tensor.with_shape(shape))
        attrs = {
            name: plain(value, lambda size: size.at(self._lengths))
            for name, value in map_graphs(node, self.graph).items()
        }
        return make(node.op, *operands, **attrs)
