"""Batching of graphs, and of the graphs that they call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from einkorn.ir.errors import EinkornError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make_call, placeholder, project, remake, toposort
from einkorn.ir.ops import CONTROL, Op
from einkorn.ir.types import TensorType, TupleType
from einkorn.passes.autodiff import expand_grads, inline_plain_calls
from einkorn.passes.batching import BATCHING
from einkorn.passes.batching.rule import in_front
from einkorn.passes.build import sum_over

MSG_CONTROL = (
    "vmap cannot batch a {op} that depends on what is batched yet; put the loop or branch around "
    "vmap, write ek.where for a choice, or a Python loop for a few steps"
)


class Batched(NamedTuple):
    """A graph for a whole batch.

    Attributes:
        graph: its params and outputs are those of the graph of one example, some with the batch
            axis in front.
        outputs: which outputs have it.
    """

    graph: Graph
    outputs: tuple[bool, ...]


def batch_graph(graph: Graph, batched: Sequence[bool], size: int) -> Batched:
    """The graph of `size` examples.

    Args:
        graph: what is computed for one example, without updates.
        batched: which params have a value for each example; the others are shared.
        size: the number of examples.
    """
    graph = inline_plain_calls(expand_grads(graph))
    walk = _Walk(graph, batched, size)
    for node in graph.nodes:
        if node not in walk.env:
            walk.visit(node)
    params = tuple(walk.env[node] for node in graph.params)
    split = len(graph.inputs)
    new = Graph(
        graph.name,
        params[:split],
        params[split:],
        tuple(walk.env[node] for node in graph.outputs),
        names={walk.env[node]: name for node, name in graph.names.items() if node in walk.env},
        origins=walk.origins,
    )
    return Batched(new, tuple(node in walk.batched for node in graph.outputs))


class _Walk:
    """One walk over a graph.

    Attributes:
        env: the new node of each node visited.
        batched: the nodes that have the batch axis.
        calls: for each `call` which results have it.
    """

    def __init__(self, graph: Graph, batched: Sequence[bool], size: int) -> None:
        self.size = size
        self.env: dict[Node, Node] = {}
        self.calls: dict[Node, tuple[bool, ...]] = {}
        for node, many in zip(graph.params, batched):
            type = node.tensor
            wide = TensorType(type.dtype, (size, *type.shape))
            self.env[node] = placeholder(wide) if many else node
        self.batched = {node for node, many in zip(graph.params, batched) if many}
        self.origins = dict(graph.origins)
        self._known = set(self.env.values())

    def visit(self, node: Node) -> None:
        """Make the new node of one whose operands were visited."""
        operands = tuple(self.env[x] for x in node.inputs)
        flags = [x in self.batched for x in node.inputs]
        if node.op is Op.PROJECT and node.inputs[0] in self.calls:
            index: int = node.attr("index")
            self.env[node] = project(operands[0], index)
            if self.calls[node.inputs[0]][index]:
                self.batched.add(node)
        elif not any(flags):
            self.env[node] = remake(node, operands)
        elif node.op is Op.CALL:
            self.env[node], self.calls[node] = batch_call(node, operands, flags, self.size)
        elif node.op in CONTROL:
            raise EinkornError(MSG_CONTROL.format(op=node.op.name.lower()))
        else:
            if isinstance(node.type, TupleType):
                self.calls[node] = (True,) * len(node.type.items)
            self.batched.add(node)
            self.env[node] = BATCHING[node.op](node, operands, flags, self.size)
        for made in toposort([self.env[node]], into=lambda x: x not in self._known):
            if made not in self._known and node in self.origins:
                self.origins.setdefault(made, self.origins[node])
            self._known.add(made)


def batch_call(
    node: Node, operands: Sequence[Node], flags: Sequence[bool], size: int
) -> tuple[Node, tuple[bool, ...]]:
    """The call of a batched region, whose derivative is batched too; which results are batched."""
    inside = batch_graph(node.attr("graph"), flags, size)
    attrs: dict[str, Any] = {k: x for k, x in node.attrs if k not in ("id", "graph")}
    if "backward" in attrs:
        count: int = attrs["outputs"]
        rule: Graph = attrs["backward"]
        given = (*inside.outputs[count : len(rule.inputs)], *inside.outputs[:count])
        inputs = zip(node.attr("graph").inputs, flags)
        wanted = [many for x, many in inputs if x.dtype.is_inexact]
        attrs["backward"] = _like_operands(batch_graph(rule, given, size), wanted, size)
    return make_call(inside.graph, operands, **attrs), inside.outputs


def _like_operands(backward: Batched, wanted: Sequence[bool], size: int) -> Graph:
    """Cotangents as their operands are: for each example, or added up where they share it."""
    graph = backward.graph
    outputs: list[Node] = []
    for x, many, want in zip(graph.outputs, backward.outputs, wanted):
        if many and not want:
            x = sum_over(x, (0,))
        elif want and not many:
            x = in_front(x, size)
        outputs.append(x)
    return replace(graph, outputs=tuple(outputs))
