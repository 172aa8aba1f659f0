"""Variants of one scan: its step with further results, which a derivative reads.

Variants have the `id`, the operands and the inputs of the step in common, which no other scan has.
In the end they become one scan with the results of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make, project, remake
from einkorn.ir.ops import Op

_Key = tuple[object, ...]

_extended: WeakKeyDictionary[Graph, dict[tuple[Node, ...], Graph]] = WeakKeyDictionary()


def with_rows(node: Node, step: Graph, rows: Sequence[Node]) -> dict[Node, Node]:
    """Values of each step of a scan, stacked, from a variant that gives them.

    Args:
        node: the scan.
        step: its body with every call pasted in.
        rows: nodes of `step`, inputs among them.
    """
    count: int = node.attr("carries")
    known = list(step.outputs[count:])
    missing = tuple(row for row in dict.fromkeys(rows) if row not in known)
    longer = replace(step, outputs=(*step.outputs, *missing))
    body = _extended.setdefault(step, {}).setdefault(missing, longer)
    variant = make(Op.SCAN, *node.inputs, **(dict(node.attrs) | {"body": body}))
    places = (*known, *missing)
    return {row: project(variant, count + places.index(row)) for row in rows}


def variants_key(node: Node) -> _Key:
    """What a scan and its variants have in common."""
    return (dict(node.attrs).get("id"), *node.inputs, *node.attr("body").inputs)


def with_variants(forward: Iterable[Node], backward: Iterable[Node]) -> set[Node]:
    """The forward nodes, with what a backward reads of variants of scans among them."""
    found = set(forward)
    scans = {variants_key(node) for node in found if node.op is Op.SCAN}
    for node in backward:
        if node.op is Op.SCAN and variants_key(node) in scans:
            found.add(node)
        elif node.op is Op.PROJECT and node.inputs[0] in found:
            found.add(node)
    return found


def share_scans(graph: Graph) -> Graph:
    """The graph with one scan for each and its variants, which gives the results of all."""
    variants: dict[_Key, list[Node]] = {}
    for node in graph.nodes:
        if node.op is Op.SCAN:
            variants.setdefault(variants_key(node), []).append(node)
    merged = {key: _union(nodes) for key, nodes in variants.items() if len(nodes) > 1}
    if not merged:
        return graph
    origins = dict(graph.origins)
    env: dict[Node, Node] = {}
    for node in graph.nodes:
        body = merged.get(variants_key(node)) if node.op is Op.SCAN else None
        inputs = tuple(env[x] for x in node.inputs)
        if body is not None:
            env[node] = make(Op.SCAN, *inputs, **(dict(node.attrs) | {"body": body}))
        elif node.op is Op.PROJECT and inputs[0] is not node.inputs[0]:
            env[node] = project(inputs[0], _place(node, inputs[0]))
        else:
            env[node] = remake(node, inputs)
        if node in origins:
            origins.setdefault(env[node], origins[node])
    return graph.with_results((env[node] for node in graph.results), origins=origins)


def _union(nodes: Sequence[Node]) -> Graph:
    """The body that gives the results of all variants."""
    body: Graph = nodes[0].attr("body")
    count: int = nodes[0].attr("carries")
    rows = (row for node in nodes for row in node.attr("body").outputs[count:])
    return replace(body, outputs=(*body.outputs[:count], *dict.fromkeys(rows)))


def _place(node: Node, source: Node) -> int:
    """Which result of a remade node the result of the old one is."""
    index: int = node.attr("index")
    old = node.inputs[0]
    if old.op is not Op.SCAN or index < old.attr("carries"):
        return index
    row = old.attr("body").outputs[index]
    rows = source.attr("body").outputs[source.attr("carries") :]
    return source.attr("carries") + rows.index(row)
