"""Reverse-mode rules of control flow, for passes/autodiff.py.

A `scan` is differentiated by a scan in the other direction (passes/scan_vjp.py).

A `cond` is differentiated by a `cond` whose branches compute the forward branch again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from einkorn.ir.errors import StateError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make, project
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType, TupleType
from einkorn.passes.build import zeros
from einkorn.passes.scan_vjp import Carried, Reverse, apply_reverse, build_reverse

T = TypeVar("T")
Flags = tuple[bool, ...]

MSG_WHILE = (
    "a while_loop has no gradient backwards, because nobody knows how many steps it will take; "
    "write ek.fori_loop with Python ints as bounds, or ek.scan, with a bound on the number of "
    "steps and ek.where for those that are not to count; or ek.stop_gradient its result"
)


class Backward(NamedTuple):
    """The reverse of a region.

    Attributes:
        graph: from the region's params and the cotangents of its given outputs to cotangents of
            params. It uses the region's own placeholders and forward nodes.
        params: which param each output of `graph` belongs to; one left out has a zero cotangent.
    """

    graph: Graph
    params: tuple[int, ...]


RegionVjp = Callable[[Graph, Flags, Flags], Backward]
"""(region, wanted params, outputs with a cotangent) -> its backward, the same each time."""


class Tools(NamedTuple):
    """What rules need of autodiff.

    Attributes:
        vjp: the backward of a region.
        flatten: a graph with every derivative expanded and every call pasted in.
    """

    vjp: RegionVjp
    flatten: Callable[[Graph], Graph]


Results = Mapping[int, Node]
"""The cotangents of the results of a node, by index."""

_Key = tuple[object, ...]

_made: WeakKeyDictionary[Graph, dict[_Key, Any]] = WeakKeyDictionary()


def control_contributions(
    node: Node, results: Results, active: set[Node], tools: Tools
) -> Sequence[Node | None]:
    """What a `cond`, `while` or `scan` adds to the cotangents of its operands."""
    if not results:
        return [None] * len(node.inputs)
    wanted = tuple(x in active for x in node.inputs)
    if node.op is Op.WHILE:
        return _while(node, results, wanted)
    rule = _cond if node.op is Op.COND else _scan
    return rule(node, results, wanted, tools)


def _while(node: Node, results: Results, wanted: Flags) -> Sequence[Node | None]:
    """while -> nothing, where nothing flows; StateError elsewhere"""
    consts: int = node.attr("consts")
    moving = _active_carries(node.attr("body"), wanted, consts, len(node.inputs) - consts)
    if not moving.isdisjoint(results):
        raise StateError(MSG_WHILE)
    return [None] * len(node.inputs)


# -- cond ------------------------------------------------------------------------------------------


def _cond(node: Node, results: Results, wanted: Flags, tools: Tools) -> Sequence[Node | None]:
    """cond -> cond of the branches' backwards"""
    branches: tuple[Graph, ...] = node.attr("branches")
    given = tuple(k in results for k in range(len(branches[0].outputs)))
    parts = [tools.vjp(branch, wanted[1:], given) for branch in branches]
    positions = sorted({position for part in parts for position in part.params})
    found: list[Node | None] = [None] * len(node.inputs)
    if not positions:
        return found
    key = ("cond", wanted, given, tuple(positions))
    types = [node.inputs[1 + position].tensor for position in positions]
    backwards = tuple(
        _remembered(part.graph, key, lambda part=part: _padded(part, positions, types))
        for part in parts
    )
    cotangents = [results[k] for k in sorted(results)]
    attrs = dict(node.attrs) | {"branches": backwards}
    backward = make(Op.COND, *node.inputs, *cotangents, **attrs)
    for index, position in enumerate(positions):
        found[1 + position] = project(backward, index)
    return found


def _padded(part: Backward, positions: Sequence[int], types: Sequence[TensorType]) -> Graph:
    """The backward of one branch with an output for each position, zero where it has none."""
    at = dict(zip(part.params, part.graph.outputs))
    outputs = tuple(at.get(k) or zeros(type) for k, type in zip(positions, types))
    return replace(part.graph, outputs=outputs)


# -- scan ------------------------------------------------------------------------------------------


def _scan(node: Node, results: Results, wanted: Flags, tools: Tools) -> Sequence[Node | None]:
    """scan -> scan of the step's backward, in the other direction, and products behind it"""
    body: Graph = node.attr("body")
    first, count = node.attr("consts"), node.attr("carries")
    part, carries, rows = _plan(node, results, wanted, tools.vjp)
    if not part.params:
        return [None] * len(node.inputs)
    step = _remembered(body, ("flat",), lambda: replace(tools.flatten(body)))

    def build() -> tuple[Carried, Reverse]:
        flat = tools.flatten(part.graph)
        given = sorted((*carries, *rows))
        seeds = dict(zip(given, flat.inputs[len(body.inputs) :]))
        plan = Carried(carries, rows, dict(zip(part.params, flat.outputs)), seeds)
        return plan, build_reverse(step, first, count, plan)

    plan, reverse = _remembered(body, ("scan", wanted, carries, rows, first, count), build)
    return apply_reverse(node, step, plan, reverse, results)


def _plan(
    node: Node, results: Results, wanted: Flags, vjp: RegionVjp
) -> tuple[Backward, tuple[int, ...], tuple[int, ...]]:
    """What the reverse of a scan carries: grown until no further carry has a cotangent.

    Returns:
        The backward of a step, the carries that have a cotangent, and the stacked results whose
        cotangents are given.
    """
    body: Graph = node.attr("body")
    first, count = node.attr("consts"), node.attr("carries")
    split = first + count
    moving = _active_carries(body, wanted, first, count)
    rows = tuple(k for k in range(count, len(body.outputs)) if k in results)
    live = {k for k in moving if k in results}
    flags = tuple(
        k - first in moving if first <= k < split else want for k, want in enumerate(wanted)
    )
    while True:
        given = tuple(k in live or k in rows for k in range(len(body.outputs)))
        part = vjp(body, flags, given)
        reached = {k - first for k in part.params if first <= k < split}
        if reached <= live:
            return part, tuple(sorted(live)), rows
        live |= reached


def _active_carries(body: Graph, wanted: Flags, first: int, count: int) -> set[int]:
    """The carries that depend on a wanted operand, directly or through earlier steps."""
    active = {body.inputs[k] for k, want in enumerate(wanted) if want}
    while True:
        reached = set(active)
        for node in body.nodes:
            if node not in reached and _carries(node) and not reached.isdisjoint(node.inputs):
                reached.add(node)
        inputs = body.inputs[first : first + count]
        found = {k for k in range(count) if body.outputs[k] in reached or inputs[k] in active}
        if all(inputs[k] in active for k in found):
            return found
        active.update(inputs[k] for k in found)


def _carries(node: Node) -> bool:
    """Whether a cotangent can flow through a node."""
    is_float = isinstance(node.type, TupleType) or node.type.dtype.is_inexact
    return is_float and node.op is not Op.STOP_GRADIENT


def _remembered(graph: Graph, key: _Key, build: Callable[[], T]) -> T:
    """What `build` made for the graph and key: equal regions have equal backwards."""
    known = _made.setdefault(graph, {})
    if key not in known:
        known[key] = build()
    return known[key]
