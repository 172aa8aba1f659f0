"""Control flow without results that nobody reads, and without operands that only those read.

A carry stays when a result that is read depends on it, in the same step or in a later one. Never
changes a value; what is not computed cannot refuse either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make, project, remake, toposort
from einkorn.ir.ops import CONTROL, Op

Numbers = Sequence[int]


@dataclass(frozen=True, slots=True)
class _Pruned:
    """What stays of a node, by position: operands and results; and how to make it anew."""

    operands: Numbers
    results: Numbers
    build: Callable[[Sequence[Node]], Node]


def prune(graph: Graph) -> Graph:
    """The graph with each `cond`, `while` and `scan` reduced to what its results need."""
    if not any(node.op in CONTROL for node in graph.nodes):
        return graph
    plans = _plans(graph)
    origins = dict(graph.origins)
    env: dict[Node, Node] = {}
    for node in graph.nodes:
        source = node.inputs[0] if node.op is Op.PROJECT else None
        if source in plans and source in env:
            results = plans[source].results
            index = node.attr("index")
            if index not in results:
                continue
            env[node] = project(env[source], list(results).index(index))
        elif node in plans:
            env[node] = plans[node].build([env[node.inputs[k]] for k in plans[node].operands])
        elif all(x in env for x in node.inputs):
            env[node] = remake(node, tuple(env[x] for x in node.inputs))
        if node in origins and node in env:
            origins.setdefault(env[node], origins[node])
    return graph.with_results((env[node] for node in graph.results), origins=origins)


def _plans(graph: Graph) -> dict[Node, _Pruned]:
    """What stays of each live node of control flow, found from the results backwards."""
    live = set(graph.results)
    used: dict[Node, set[int]] = {}
    plans: dict[Node, _Pruned] = {}
    for node in reversed(graph.nodes):
        if node not in live:
            continue
        inputs: Iterable[Node] = node.inputs
        if node.op is Op.PROJECT:
            used.setdefault(node.inputs[0], set()).add(node.attr("index"))
        elif node.op in CONTROL:
            plans[node] = _RULES[node.op](node, used[node])
            inputs = (node.inputs[k] for k in plans[node].operands)
        live.update(inputs)
    return plans


def _reads(graph: Graph, outputs: Iterable[int]) -> set[int]:
    """The inputs of a closed graph that these outputs depend on."""
    found = set(toposort([graph.outputs[k] for k in outputs]))
    return {k for k, node in enumerate(graph.inputs) if node in found}


def _part(graph: Graph, inputs: Iterable[int], outputs: Iterable[int]) -> Graph:
    """The closed graph from some of its inputs to some of its outputs."""
    kept, given = list(inputs), list(outputs)
    if len(kept) == len(graph.inputs) and len(given) == len(graph.outputs):
        return graph
    return replace(
        graph,
        inputs=tuple(graph.inputs[k] for k in kept),
        outputs=tuple(graph.outputs[k] for k in given),
    )


def _cond(node: Node, used: set[int]) -> _Pruned:
    branches: tuple[Graph, ...] = node.attr("branches")
    results = sorted(used)
    kept = sorted(set[int]().union(*(_reads(branch, results) for branch in branches)))
    parts = tuple(_part(branch, kept, results) for branch in branches)
    attrs = dict(node.attrs) | {"branches": parts}
    return _Pruned([0, *(1 + k for k in kept)], results, lambda x: make(Op.COND, *x, **attrs))


def _while(node: Node, used: set[int]) -> _Pruned:
    condition, body, first = (node.attr(name) for name in ("condition", "body", "consts"))
    asked = _reads(condition, [0])
    live = used | {k - first for k in asked if k >= first}
    read = _grown(body, live, first, len(body.outputs))
    carries = sorted(live)
    consts = sorted(k for k in read | asked if k < first)
    kept = [*consts, *(first + k for k in carries)]
    attrs = dict(node.attrs) | {
        "condition": _part(condition, kept, [0]),
        "body": _part(body, kept, carries),
        "consts": len(consts),
    }
    return _Pruned(kept, carries, lambda x: make(Op.WHILE, *x, **attrs))


def _scan(node: Node, used: set[int]) -> _Pruned:
    body, first, count = (node.attr(name) for name in ("body", "consts", "carries"))
    live = set(used)
    read = _grown(body, live, first, count)
    results = sorted(live)
    carries = [k for k in results if k < count]
    consts = sorted(k for k in read if k < first)
    columns = sorted(k for k in read if k >= first + count)
    kept = [*consts, *(first + k for k in carries), *columns]
    attrs = dict(node.attrs) | {
        "body": _part(body, kept, results),
        "consts": len(consts),
        "carries": len(carries),
    }
    return _Pruned(kept, results, lambda x: make(Op.SCAN, *x, **attrs))


def _grown(body: Graph, live: set[int], first: int, count: int) -> set[int]:
    """The inputs that live outputs read; carries among them make further outputs live."""
    while True:
        read = _reads(body, sorted(live))
        carries = {k - first for k in read if first <= k < first + count}
        if carries <= live:
            return read
        live |= carries


_RULES: dict[Op, Callable[[Node, set[int]], _Pruned]] = {
    Op.COND: _cond,
    Op.WHILE: _while,
    Op.SCAN: _scan,
}
