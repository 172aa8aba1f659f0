"""Batching of graphs, and of the graphs that they call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from einkorn.ir.dtypes import bool_
from einkorn.ir.graph import Graph, graphs_of
from einkorn.ir.node import Node, make_call, placeholder, project, remake, toposort
from einkorn.ir.ops import CONTROL, OPS, Op
from einkorn.ir.types import TensorType, TupleType
from einkorn.passes.autodiff import expand_grads, inline_plain_calls
from einkorn.passes.batching import BATCHING
from einkorn.passes.batching.control import (
    Batch,
    Batched,
    Operands,
    Results,
    batch_control,
    masked_operands,
    needs_mask,
)
from einkorn.passes.batching.rule import in_front
from einkorn.passes.build import sum_over

# The stand-ins of inputs, by size: a loop and its variants (passes/control_vjp.py) share theirs.
_wide: WeakKeyDictionary[Node, dict[object, Node]] = WeakKeyDictionary()


def batch_graph(graph: Graph, batched: Sequence[bool], size: int, masked: bool = False) -> Batched:
    """The graph of `size` examples.

    Args:
        graph: what is computed for one example, without updates.
        batched: which params have a value for each example; the others are shared.
        size: the number of examples.
        masked: whether the new graph takes, before its other inputs, a mask of the examples that
            count. The others refuse nothing and keep no loop going; their results mean nothing.
    """
    graph = inline_plain_calls(expand_grads(graph))
    mask = _mask(graph, size) if masked else None
    walk = _Walk(graph, batched, size, mask)
    for node in graph.nodes:
        if node not in walk.env:
            walk.visit(node)
    params = tuple(walk.env[node] for node in graph.params)
    split = len(graph.inputs)
    first = () if mask is None else (mask,)
    new = Graph(
        graph.name,
        (*first, *params[:split]),
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
        mask: the examples that count; None when all do.
        results: for each node with several results those, and which of them have the axis.
    """

    def __init__(self, graph: Graph, batched: Sequence[bool], size: int, mask: Node | None) -> None:
        self.size, self.mask = size, mask
        self.env: dict[Node, Node] = {}
        self.results: dict[Node, Sequence[tuple[Node, bool]]] = {}
        for node, many in zip(graph.params, batched):
            self.env[node] = _stand_in(node, size) if many else node
        self.batched = {node for node, many in zip(graph.params, batched) if many}
        self.origins = dict(graph.origins)
        self._known = set(self.env.values())

    def visit(self, node: Node) -> None:
        """Make the new node of one whose operands were visited."""
        if node.op is Op.PROJECT and node.inputs[0] in self.results:
            index: int = node.attr("index")
            self.env[node], many = self.results[node.inputs[0]][index]
            if many:
                self.batched.add(node)
            return
        operands = tuple(self.env[x] for x in node.inputs)
        flags = [x in self.batched for x in node.inputs]
        if self.mask is not None and OPS[node.op].refuses:
            operands = masked_operands(node, operands, flags, self.mask)
        if self._is_region(node, flags):
            given = Operands(operands, flags, self.size, self.mask)
            batch = batch_call if node.op is Op.CALL else batch_control
            self.results[node] = batch(node, given, batch_graph)
            made = [x for x, _ in self.results[node]]
        else:
            made = [self._one(node, operands, flags)]
            if isinstance(node.type, TupleType):
                parts = [project(made[0], k) for k in range(len(node.type.items))]
                self.results[node] = [(part, any(flags)) for part in parts]
            self.env[node] = made[0]
        self._follow(made, node)

    def _one(self, node: Node, operands: tuple[Node, ...], flags: Sequence[bool]) -> Node:
        """The new node of one with a single result."""
        if not any(flags):
            return remake(node, operands)
        self.batched.add(node)
        return BATCHING[node.op](node, operands, flags, self.size)

    def _is_region(self, node: Node, flags: Sequence[bool]) -> bool:
        """Whether graphs that a node applies have to be batched."""
        if node.op is not Op.CALL and node.op not in CONTROL:
            return False
        return any(flags) or (self.mask is not None and any(map(needs_mask, graphs_of(node))))

    def _follow(self, made: Sequence[Node], node: Node) -> None:
        """Give the new nodes the origin of the one they are made for."""
        for x in toposort(made, into=lambda x: x not in self._known):
            if x not in self._known and node in self.origins:
                self.origins.setdefault(x, self.origins[node])
            self._known.add(x)


def _stand_in(node: Node, size: int) -> Node:
    """The input of a whole batch that stands for one of an example."""
    wide = placeholder(TensorType(node.dtype, (size, *node.shape)))
    return _wide.setdefault(node, {}).setdefault(size, wide)


def _mask(graph: Graph, size: int) -> Node:
    """The input of the batch of a graph that says which examples count."""
    mask = placeholder(TensorType(bool_, (size,)))
    if not graph.params:
        return mask
    return _wide.setdefault(graph.params[0], {}).setdefault(("mask", size), mask)


def batch_call(node: Node, operands: Operands, batch: Batch) -> Results:
    """The call of a batched region, whose derivative is batched too."""
    flags, size = operands.batched, operands.size
    graph: Graph = node.attr("graph")
    masked = operands.mask is not None and needs_mask(graph)
    inside = batch(graph, flags, size, masked)
    attrs: dict[str, Any] = {k: x for k, x in node.attrs if k not in ("id", "graph")}
    if "backward" in attrs:
        count: int = attrs["outputs"]
        rule: Graph = attrs["backward"]
        given = (*inside.outputs[count : len(rule.inputs)], *inside.outputs[:count])
        wanted = [many for x, many in zip(graph.inputs, flags) if x.dtype.is_inexact]
        attrs["backward"] = _like_operands(batch(rule, given, size, False), wanted, size)
    extra: tuple[Node, ...] = ()
    if masked and operands.mask is not None:
        extra = (operands.mask,)
        if "recompute" in attrs:
            attrs["recompute"] = tuple(1 + k for k in attrs["recompute"])
    made = make_call(inside.graph, [*extra, *operands.nodes], **attrs)
    return [(project(made, k), many) for k, many in enumerate(inside.outputs)]


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
