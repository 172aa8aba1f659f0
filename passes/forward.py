"""Forward-mode derivatives of nodes: from tangents of some nodes to those of others.

Between regions the transpose of the transpose: u -> J^T u is linear in u, and its own reverse is
t -> J t, so there is one table of gradient rules. Control flow has rules of its own: a loop that
also carries tangents, a branch that also computes them. So they pass through a `while` too, which
has no reverse, and nothing of a first transpose is built for loops. A `call` that contains control
flow is one of the tangents; a derivative of the user's own is transposed like an op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, alias, make, placeholder, project, substitute, toposort
from einkorn.ir.ops import CONTROL, Op
from einkorn.ir.types import TupleType
from einkorn.passes.build import zeros

Origins = dict[Node, Any]
Vjp = Callable[
    [Sequence[Node], Sequence[Node | None], Sequence[Node], "Origins | None"], list[Node | None]
]


class Forward(NamedTuple):
    """What forward mode needs of autodiff.

    Attributes:
        vjp: (outputs, cotangents, wrt, origins) -> the cotangents of wrt.
        prepared: a region with its derivatives expanded and its plain calls pasted in.
        origins: extended by the new nodes, when given.
    """

    vjp: Vjp
    prepared: Callable[[Graph], Graph]
    origins: Origins | None = None

    def push(
        self, outputs: Sequence[Node], wrt: Sequence[Node], tangents: Sequence[Node]
    ) -> list[Node | None]:
        """The tangents of `outputs` from those of `wrt`; None where nothing flows."""
        known: dict[Node, Node | None] = dict(zip(wrt, tangents))
        order = toposort(outputs, into=lambda node: node not in known)
        reached = _reached(order, set(known))
        for node in order:
            if node in reached and node not in known and _is_region(node):
                moving = self._linear(node.inputs, known)
                for k, tangent in enumerate(self._through(node, moving)):
                    part = project(node, k)
                    if part.dtype.is_inexact:
                        known[part] = tangent
        return self._linear(outputs, known)

    def _linear(self, outputs: Sequence[Node], known: dict[Node, Node | None]) -> list[Node | None]:
        """Tangents through the ops between known nodes and outputs."""
        unknown = {
            x: alias(zeros(x.tensor))  # to be linear in: the derivative is wanted, not the value
            for x in dict.fromkeys(outputs)
            if not isinstance(x.type, TupleType) and x.dtype.is_inexact
        }
        ends, given = list(unknown), list(unknown.values())
        back = self.vjp(ends, given, list(known), self.origins)
        rows = [(g, t) for g, t in zip(back, known.values()) if g is not None and t is not None]
        found = self.vjp([g for g, _ in rows], [t for _, t in rows], given, self.origins)
        at = dict(zip(ends, found))
        return [at.get(x) for x in outputs]

    def _through(self, node: Node, moving: Sequence[Node | None]) -> list[Node | None]:
        """The tangents of the results of a region, from those of its operands."""
        assert isinstance(node.type, TupleType)
        if all(x is None for x in moving):
            return [None] * len(node.type.items)
        if node.op is Op.CALL:
            return self._call(node, moving)
        if node.op is Op.COND:
            return self._cond(node, moving)
        return self._loop(node, moving)

    # -- regions -------------------------------------------------------------------------------

    def _inside(self, graph: Graph, active: Sequence[bool]) -> tuple[Graph, list[Node | None]]:
        """A region that also takes tangents of its active inputs, and the tangents of its outputs.

        Its inputs are the region's own, under other names, then the tangents. Variants of one
        region have the same.
        """
        fresh, along = _stand_ins(graph, active)
        prepared = self.prepared(graph)
        wrt = [x for x, moves in zip(graph.params, active) if moves]
        found = self._replace(origins=None).push(prepared.outputs, wrt, along)
        roots = [*prepared.outputs, *(x for x in found if x is not None)]
        renamed = substitute(roots, dict(zip(graph.params, fresh)))
        rest = iter(renamed[len(prepared.outputs) :])
        tangents = [None if x is None else next(rest) for x in found]
        names = {new: graph.name_of(old) for old, new in zip(graph.params, fresh)}
        outputs = tuple(renamed[: len(prepared.outputs)])
        region = Graph(f"{graph.name}_forward", (*fresh, *along), (), outputs, names=names)
        return region, tangents

    def _call(self, node: Node, moving: Sequence[Node | None]) -> list[Node | None]:
        region, tangents = self._inside(node.attr("graph"), [x is not None for x in moving])
        outputs = tuple(x for x in tangents if x is not None)
        given = [*node.inputs, *(x for x in moving if x is not None)]
        graph = replace(region, outputs=outputs)
        made = make(Op.CALL, *given, graph=graph, id=dict(node.attrs).get("id", 0))
        return _placed(tangents, [project(made, k) for k in range(len(outputs))])

    def _cond(self, node: Node, moving: Sequence[Node | None]) -> list[Node | None]:
        branches: tuple[Graph, ...] = node.attr("branches")
        active = [x is not None for x in moving[1:]]
        parts = [self._inside(branch, active) for branch in branches]
        flows = [any(x is not None for x in column) for column in zip(*(t for _, t in parts))]
        graphs = tuple(
            replace(
                region,
                outputs=tuple(
                    zeros(y.tensor) if x is None else x
                    for x, y, flow in zip(tangents, region.outputs, flows)
                    if flow
                ),
            )
            for region, tangents in parts
        )
        given = [x for x in moving if x is not None]
        made = make(Op.COND, *node.inputs, *given, **(dict(node.attrs) | {"branches": graphs}))
        results = iter(project(made, k) for k in range(sum(flows)))
        return [next(results) if flow else None for flow in flows]

    def _loop(self, node: Node, moving: Sequence[Node | None]) -> list[Node | None]:
        """A `while` or `scan` that carries tangents beside what it carries."""
        body: Graph = node.attr("body")
        first: int = node.attr("consts")
        count: int = node.attr("carries") if node.op is Op.SCAN else len(node.inputs) - first
        split, active = first + count, [x is not None for x in moving]
        while True:
            region, tangents = self._inside(body, active)
            grown = [k for k in range(count) if tangents[k] is not None and not active[first + k]]
            if not grown:
                break
            for k in grown:
                active[first + k] = True
        along = dict(zip([k for k, x in enumerate(active) if x], region.inputs[len(active) :]))
        parts = [
            [k for k in along if low <= k < high] for low, high in _ranges(first, split, active)
        ]
        rows = [x for x in tangents[count:] if x is not None]
        carried = [tangents[k - first] or zeros(along[k].tensor) for k in parts[1]]
        inputs = (
            *region.inputs[:first],
            *(along[k] for k in parts[0]),
            *region.inputs[first:split],
            *(along[k] for k in parts[1]),
            *region.inputs[split : len(active)],
            *(along[k] for k in parts[2]),
        )
        outputs = (*region.outputs[:count], *carried, *rows)
        attrs = dict(node.attrs) | {
            "body": replace(region, inputs=inputs, outputs=outputs),
            "consts": first + len(parts[0]),
        }
        if node.op is Op.SCAN:
            attrs["carries"] = count + len(parts[1])
        else:
            condition: Graph = node.attr("condition")
            env = dict(zip(condition.inputs, region.inputs))
            outputs = tuple(substitute(condition.outputs, env))
            attrs["condition"] = replace(condition, inputs=inputs, outputs=outputs)
        given = [x or zeros(old.tensor) for x, old in zip(moving, node.inputs)]
        made = make(
            node.op,
            *node.inputs[:first],
            *(given[k] for k in parts[0]),
            *node.inputs[first:split],
            *(given[k] for k in parts[1]),
            *node.inputs[split:],
            *(given[k] for k in parts[2]),
            **attrs,
        )
        at = {k - first: project(made, count + n) for n, k in enumerate(parts[1])}
        start = count + len(parts[1])
        behind = [project(made, start + n) for n in range(len(rows))]
        return [*(at.get(k) for k in range(count)), *_placed(tangents[count:], behind)]


def _ranges(first: int, split: int, active: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    return (0, first), (first, split), (split, len(active))


def _placed(like: Sequence[Node | None], values: Sequence[Node]) -> list[Node | None]:
    """The values in the places where `like` has one."""
    found = iter(values)
    return [None if x is None else next(found) for x in like]


def _is_region(node: Node) -> bool:
    """Whether a node has a forward rule of its own."""
    if node.op is not Op.CALL:
        return node.op in CONTROL
    graph: Graph = node.attr("graph")
    inside = any(x.op in CONTROL for region in graph.regions for x in region.nodes)
    return inside and "backward" not in dict(node.attrs)


def _reached(order: Iterable[Node], wrt: set[Node]) -> set[Node]:
    """The nodes that depend on `wrt` in a way that carries a tangent."""
    found: set[Node] = set()
    for node in order:
        carries = isinstance(node.type, TupleType) or node.type.dtype.is_inexact
        carries = carries and node.op is not Op.STOP_GRADIENT
        if carries and (node in wrt or not found.isdisjoint(node.inputs)):
            found.add(node)
    return found


_Inputs = tuple[tuple[Node, ...], tuple[Node, ...]]

_known: WeakKeyDictionary[Node, dict[Any, _Inputs]] = WeakKeyDictionary()


def _stand_ins(graph: Graph, active: Sequence[bool]) -> _Inputs:
    """Inputs for a region that also takes tangents: for its params, and for their tangents."""
    key = (graph.params[1:], tuple(active))
    fresh = tuple(placeholder(x.tensor) for x in graph.params)
    along = tuple(placeholder(x.tensor) for x, moves in zip(graph.params, active) if moves)
    return _known.setdefault(graph.params[0], {}).setdefault(key, (fresh, along))
