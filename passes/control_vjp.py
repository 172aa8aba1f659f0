"""Reverse-mode rules of control flow, for passes/autodiff.py.

A `scan` is differentiated by a scan in the other direction. Each of its steps computes the forward
step again, from the carries that enter it, which a variant of the forward scan stacks. Cotangents
of consts add up from the last step to the first, starting from zero.

A `cond` is differentiated by a `cond` whose branches compute the forward branch again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

from einkorn.ir.errors import StateError
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make, make_call, placeholder, project, remake
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType, TupleType
from einkorn.passes.build import add, zeros

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

Results = Mapping[int, Node]
"""The cotangents of the results of a node, by index."""

_Key = tuple[object, ...]

_stacking: WeakKeyDictionary[Graph, Graph] = WeakKeyDictionary()
_made: WeakKeyDictionary[Graph, dict[_Key, Graph]] = WeakKeyDictionary()


def control_contributions(
    node: Node, results: Results, active: set[Node], region_vjp: RegionVjp
) -> Sequence[Node | None]:
    """What a `cond`, `while` or `scan` adds to the cotangents of its operands."""
    if not results:
        return [None] * len(node.inputs)
    wanted = tuple(x in active for x in node.inputs)
    if node.op is Op.WHILE:
        return _while(node, results, wanted)
    rule = _cond if node.op is Op.COND else _scan
    return rule(node, results, wanted, region_vjp)


def _while(node: Node, results: Results, wanted: Flags) -> Sequence[Node | None]:
    """while -> nothing, where nothing flows; StateError elsewhere"""
    consts: int = node.attr("consts")
    moving = _active_carries(node.attr("body"), wanted, consts, len(node.inputs) - consts)
    if not moving.isdisjoint(results):
        raise StateError(MSG_WHILE)
    return [None] * len(node.inputs)


# -- cond ------------------------------------------------------------------------------------------


def _cond(
    node: Node, results: Results, wanted: Flags, region_vjp: RegionVjp
) -> Sequence[Node | None]:
    """cond -> cond of the branches' backwards"""
    branches: tuple[Graph, ...] = node.attr("branches")
    given = tuple(k in results for k in range(len(branches[0].outputs)))
    parts = [region_vjp(branch, wanted[1:], given) for branch in branches]
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


def stacking(node: Node) -> Node:
    """The scan that also stacks the carries entering each step, behind its other results."""
    body: Graph = node.attr("body")
    if body not in _stacking:
        first = node.attr("consts")
        carries = body.inputs[first : first + node.attr("carries")]
        outputs = (*body.outputs, *carries)
        _stacking[body] = replace(body, outputs=outputs)
    return _with_body(node, _stacking[body])


def _with_body(node: Node, body: Graph) -> Node:
    attrs = dict(node.attrs) | {"body": body}
    return make(Op.SCAN, *node.inputs, **attrs)


def variants_key(node: Node) -> tuple[object, ...]:
    """What a scan and the one that also stacks its carries have in common.

    Their bodies have the same inputs, which no other body has.
    """
    return (dict(node.attrs).get("id"), *node.inputs, *node.attr("body").inputs)


def share_scans(graph: Graph) -> Graph:
    """The graph with one scan for each and its variants: the one with the most results."""
    best: dict[tuple[object, ...], Node] = {}
    scans = [node for node in graph.nodes if node.op is Op.SCAN]
    for node in scans:
        known = best.setdefault(variants_key(node), node)
        if len(node.attr("body").outputs) > len(known.attr("body").outputs):
            best[variants_key(node)] = node
    if len(best) == len(scans):
        return graph
    origins = dict(graph.origins)
    env: dict[Node, Node] = {}
    for node in graph.nodes:
        chosen = best[variants_key(node)] if node.op is Op.SCAN else node
        env[node] = remake(chosen, tuple(env[x] for x in node.inputs))
        if node in origins:
            origins.setdefault(env[node], origins[node])
    return graph.with_results((env[node] for node in graph.results), origins=origins)


class _Plan(NamedTuple):
    """Which values of a scan take part in its reverse, by position.

    Attributes:
        part: the backward of one step.
        carries: carries that have a cotangent.
        consts: consts whose cotangents add up.
        columns: scanned operands that get a cotangent.
        results: the stacked results whose cotangents are given.
    """

    part: Backward
    carries: tuple[int, ...]
    consts: tuple[int, ...]
    columns: tuple[int, ...]
    results: tuple[int, ...]


def _scan(
    node: Node, results: Results, wanted: Flags, region_vjp: RegionVjp
) -> Sequence[Node | None]:
    """scan -> scan of the step's backward, in the other direction"""
    body: Graph = node.attr("body")
    first, count = node.attr("consts"), node.attr("carries")
    plan = _plan(node, results, wanted, region_vjp)
    found: list[Node | None] = [None] * len(node.inputs)
    if not (plan.carries or plan.consts or plan.columns):
        return found
    key = ("scan", wanted, plan.carries, plan.results)
    backward = _remembered(body, key, lambda: _backward_body(node, plan))
    ahead = stacking(node)
    outputs = len(body.outputs)
    entering = [project(ahead, outputs + k) for k in range(count)]
    last = [results.get(k) or zeros(body.outputs[k].tensor) for k in plan.carries]
    sums = [zeros(node.inputs[k].tensor) for k in plan.consts]
    columns = (*node.inputs[first + count :], *entering, *(results[k] for k in plan.results))
    attrs = dict(node.attrs) | {
        "body": backward,
        "carries": len(last) + len(sums),
        "reverse": 1 - node.attr("reverse"),
    }
    made = make(Op.SCAN, *node.inputs[:first], *last, *sums, *columns, **attrs)
    places = (*(first + k for k in plan.carries), *plan.consts)
    for index, position in enumerate((*places, *(first + count + k for k in plan.columns))):
        found[position] = project(made, index)
    return found


def _plan(node: Node, results: Results, wanted: Flags, region_vjp: RegionVjp) -> _Plan:
    """What the reverse of a scan carries: grown until no further carry has a cotangent."""
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
        part = region_vjp(body, flags, given)
        reached = {k - first for k in part.params if first <= k < split}
        if reached <= live:
            break
        live |= reached
    consts = tuple(k for k in part.params if k < first)
    columns = tuple(k - split for k in part.params if k >= split)
    return _Plan(part, tuple(sorted(live)), consts, columns, rows)


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


def _backward_body(node: Node, plan: _Plan) -> Graph:
    """One step of the reverse: the cotangents that leave it, the sums so far, those of its row."""
    body: Graph = node.attr("body")
    first, count = node.attr("consts"), node.attr("carries")
    split = first + count
    fresh = {x: placeholder(x.tensor) for x in body.inputs}
    names = {new: body.name_of(x) for x, new in fresh.items()}
    consts, carries, columns = (
        tuple(fresh[x] for x in part)
        for part in (body.inputs[:first], body.inputs[first:split], body.inputs[split:])
    )
    leaving = {k: placeholder(body.outputs[k].tensor) for k in plan.carries}
    sums = {k: placeholder(body.inputs[k].tensor) for k in plan.consts}
    rows = {k: placeholder(body.outputs[k].tensor) for k in plan.results}
    seeds = [(leaving | rows)[k] for k in sorted((*leaving, *rows))]
    part = plan.part
    step = make_call(part.graph, [*consts, *carries, *columns, *seeds])
    found = {position: project(step, k) for k, position in enumerate(part.params)}
    outputs = (
        *(found.get(first + k) or zeros(body.outputs[k].tensor) for k in plan.carries),
        *(add(sums[k], found[k]) for k in plan.consts),
        *(found[split + k] for k in plan.columns),
    )
    inputs = (*consts, *leaving.values(), *sums.values(), *columns, *carries, *rows.values())
    for role, made in (("ct", leaving), ("sum", sums), ("ct_y", rows)):
        names.update((x, f"{role}{k}") for k, x in made.items())
    return Graph(f"{body.name}_backward", inputs, (), outputs, names=names)


def _remembered(graph: Graph, key: _Key, build: Callable[[], Graph]) -> Graph:
    """What `build` made for the graph and key: equal regions have equal backwards."""
    known = _made.setdefault(graph, {})
    if key not in known:
        known[key] = build()
    return known[key]
