"""Run nodes eagerly, op by op, from values that are known; used for recorded gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from einkorn.ir.control import run_control
from einkorn.ir.errors import IRError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, constant_value, placeholder, substitute, toposort
from einkorn.ir.ops import CONTROL, Op
from einkorn.ir.types import TupleType
from einkorn.passes.autodiff import expand
from einkorn.runtime.compiler import compile_graph
from einkorn.runtime.eager import run_arrays, run_cast, run_host, run_op
from einkorn.runtime.executable import Executable

Array = np.ndarray[Any, Any]
# Values of nodes, and under the id of a `call` those of the nodes inside it.
Known = dict[Any, Any]


def evaluate(
    nodes: Sequence[Node], known: Mapping[Any, Any], kept: Known | None = None
) -> list[Array]:
    """The values of `nodes`.

    Args:
        nodes: what to compute.
        known: values of inputs and of anything already computed; values inside a `call`, in a dict
            under its id.
        kept: receives the values computed on the way, when given.
    """
    env: Known = dict(known)
    calls: dict[Node, list[Array]] = {}
    for node in toposort(nodes, into=lambda node: node not in known):
        if node in env:
            continue
        if node.op is Op.CALL:
            inside = known.get(dict(node.attrs).get("id"), {})
            calls[node] = call(node.attr("graph"), [env[x] for x in node.inputs], inside)
        elif node.op in CONTROL:
            calls[node] = control(node, [env[x] for x in node.inputs])
        elif node.op is Op.PROJECT:
            env[node] = calls[node.inputs[0]][node.attr("index")]
        elif isinstance(node.type, TupleType):
            calls[node] = _several(node, env)
        else:
            env[node] = _one(node, env)
        if kept is not None and node in env:
            kept[node] = env[node]
    return [env[node] for node in nodes]


def _several(node: Node, env: Mapping[Node, Array]) -> list[Array]:
    """The results of an op that has several."""
    arrays = [env[x] for x in node.inputs]
    return run_host(node.op, [x.tensor for x in node.inputs], arrays, dict(node.attrs))


def _one(node: Node, env: Mapping[Node, Array]) -> Array:
    if node.op is Op.CONST:
        return np.asarray(constant_value(node))
    if node.op is Op.INPUT:
        raise IRError(f"the value of {node!r} is not known")
    arrays = [env[x] for x in node.inputs]
    types = [x.tensor for x in node.inputs]
    if node.op is Op.CAST:
        return run_cast(arrays[0], types[0], node.dtype)
    return run_op(node.op, types, arrays, dict(node.attrs))


_expanded: WeakKeyDictionary[Graph, Graph] = WeakKeyDictionary()


def _without_regions(graph: Graph) -> Graph:
    """The graph with the nodes of called graphs in place of the calls."""
    if graph not in _expanded:
        # An entry must not keep its own key alive.
        expanded = expand(graph)
        _expanded[graph] = replace(graph) if expanded is graph else expanded
    return _expanded[graph]


def control(node: Node, arrays: Sequence[Array]) -> list[Array]:
    """The results of a `cond`, `while` or `scan`, each step op by op."""
    return run_control(node, arrays, _closed)


def _closed(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """The outputs of a closed graph, op by op."""
    graph = _without_regions(graph)
    env: Known = dict(zip(graph.inputs, arrays))
    for node in graph.nodes:
        if node.op in CONTROL:
            env[node] = control(node, [env[x] for x in node.inputs])
        elif node.op is Op.PROJECT:
            env[node] = env[node.inputs[0]][node.attr("index")]
        elif isinstance(node.type, TupleType):
            env[node] = _several(node, env)
        elif node.op is not Op.INPUT:
            env[node] = _one(node, env)
    return [env[node] for node in graph.outputs]


_parts: WeakKeyDictionary[Graph, dict[tuple[Node, ...], tuple[Executable, tuple[Node, ...]]]]
_parts = WeakKeyDictionary()


def call(graph: Graph, arrays: Sequence[Array], known: Mapping[Node, Array]) -> list[Array]:
    """The outputs of a region as one compiled program, starting from known inner values.

    Those of regions inside it count, too: what a callback gave is not asked for again.
    """
    graph = _without_regions(graph)
    available = tuple(node for node in graph.nodes if node in known)
    cuts = _parts.setdefault(graph, {})
    if available not in cuts:
        cuts[available] = _cut(graph, available)
    executable, used = cuts[available]
    values = [known[node] for node in used]
    return run_arrays(
        executable, [*arrays, *values], [node.tensor for node in graph.outputs], graph.name
    )


def _cut(graph: Graph, available: tuple[Node, ...]) -> tuple[Executable, tuple[Node, ...]]:
    """The program of a region whose `available` nodes are given, and those it uses."""
    params = set(graph.params)
    inner = {node: placeholder(node.tensor) for node in available if node not in params}
    env: dict[Node, Node] = dict(inner)
    outputs = substitute(graph.outputs, env)
    needed = set(toposort(outputs))
    used = tuple(node for node, stand_in in inner.items() if stand_in in needed)
    inputs = (*graph.params, *(inner[node] for node in used))
    part = Graph(graph.name, inputs, (), tuple(outputs), names=graph.names, origins=graph.origins)
    return compile_graph(part), used
