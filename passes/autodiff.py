"""Reverse-mode autodiff, graph -> graph. Runs before simplification; never changes a forward value.

`expand` replaces every `grad` by the nodes that compute it, and then every `call` by its body.

The order in which contributions to one cotangent are added is part of the semantics, because it
decides the bits. Let P be the depth-first postorder from the outputs, along the operands that can
carry a cotangent to a wrt node, stopping there: how an index or a mask was computed moves nothing.
First come the cotangents given for outputs, in their order; then the contributions of consumers in
ascending order of their position in P and, within one consumer, of operand position. They are added
from left to right, but slices that do not overlap are joined (passes/joins.py). A `call` is one
consumer: its body's own sums are grouped, by a backward graph that is itself called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from einkorn.ir.errors import IRError, SizeError
from einkorn.ir.graph import Graph, Origin, map_graphs
from einkorn.ir.node import Node, make, placeholder, project, remake, substitute, toposort
from einkorn.ir.ops import CONTROL, Op
from einkorn.ir.types import TupleType
from einkorn.passes.barrier import after
from einkorn.passes.build import add, zeros
from einkorn.passes.control_vjp import Backward, Tools, control_contributions
from einkorn.passes.forward import Forward
from einkorn.passes.gradients import gradient_rule
from einkorn.passes.gradients.host import host_contributions
from einkorn.passes.gradients.rule import Contributions
from einkorn.passes.joins import total
from einkorn.passes.scan_variants import share_scans

Origins = dict[Node, Origin]


# `None` marks a graph without `grad`: an entry must not keep its own key alive.
_expanded: WeakKeyDictionary[Graph, Graph | None] = WeakKeyDictionary()
_backward: WeakKeyDictionary[Graph, dict[tuple[tuple[bool, ...], ...], Backward]]
_backward = WeakKeyDictionary()


# -- one reverse walk ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Trail:
    """Passes the origin of a forward node on to the gradient nodes made from it.

    Attributes:
        origins: read and extended; None when nobody wants to know.
        known: nodes that were there before, or have been seen to.
    """

    origins: Origins | None
    known: set[Node]

    def follow(self, made: Iterable[Node], source: Node) -> None:
        """Give the new nodes below `made` the origin of `source`."""
        if self.origins is None:
            return
        origin = self.origins.get(source)
        for node in toposort(made, into=lambda node: node not in self.known):
            if node not in self.known:
                self.known.add(node)
                if origin is not None:
                    self.origins.setdefault(node, origin)


@dataclass(slots=True)
class _Sweep:
    """The cotangents collected so far by one reverse walk.

    Attributes:
        active: the nodes that depend on wrt and carry a cotangent.
        trail: where origins are kept.
        seeds: the cotangents given for outputs.
        inbox: contributions of consumers, the last consumer's last operand first.
        results: for each node with several results the cotangents of its results, by index.
    """

    active: set[Node]
    trail: _Trail
    seeds: dict[Node, list[Node]] = field(default_factory=dict[Node, list[Node]])
    inbox: dict[Node, list[Node]] = field(default_factory=dict[Node, list[Node]])
    results: dict[Node, dict[int, Node]] = field(default_factory=dict[Node, dict[int, Node]])

    def total(self, node: Node) -> Node | None:
        """The cotangent of a node whose consumers have all been visited."""
        parts = self.seeds.pop(node, []) + self.inbox.pop(node, [])[::-1]
        if not parts:
            return None
        result = total(parts)
        if len(parts) > 1:
            self.trail.follow([result], node)
        return result

    def visit(self, node: Node) -> None:
        """Send the contributions of a node to its operands."""
        if node.op is Op.CALL:
            parts = _call_contributions(node, self.results.pop(node, {}), self.active)
        elif node.op in CONTROL:
            results = self.results.pop(node, {})
            tools = Tools(call_vjp, _flatten)
            parts = control_contributions(node, results, self.active, tools)
        elif node.op is Op.HOST and isinstance(node.type, TupleType):
            parts = host_contributions(node, self.results.pop(node, {}))
        elif node.op is Op.GRAD:
            raise IRError("a grad inside a differentiated function must be expanded before it")
        elif (cotangent := self.total(node)) is None:
            return
        elif node.op is Op.PROJECT:
            self.results.setdefault(node.inputs[0], {})[node.attr("index")] = cotangent
            return
        else:
            parts = self._by_rule(node, cotangent)
        sent = [part if x in self.active else None for x, part in zip(node.inputs, parts)]
        self.trail.follow([part for part in sent if part is not None], node)
        for operand, part in zip(reversed(node.inputs), reversed(sent)):
            if part is not None:
                self.inbox.setdefault(operand, []).append(part)

    def _by_rule(self, node: Node, cotangent: Node) -> Contributions:
        """The contributions by the rule of an op; a rule may ask for what `buckets` leaves open."""
        try:
            return gradient_rule(node)(node, cotangent)
        except SizeError as error:
            origin = (self.trail.origins or {}).get(node)
            at = f" at {origin}" if origin else ""
            error.args = (f"the gradient of {node.op.name.lower()}{at}: {error}",)
            raise


def vjp(
    outputs: Sequence[Node],
    cotangents: Sequence[Node | None],
    wrt: Sequence[Node],
    origins: Origins | None = None,
) -> list[Node | None]:
    """The cotangents of `wrt` from those of `outputs`; None where an output does not depend on it.

    The wrt nodes are independent variables: nothing flows through one of them to another.
    `origins` is extended by the new nodes.
    """
    cut = set(wrt)
    order = toposort(outputs, into=lambda node: node not in cut)
    trail = _Trail(origins or None, {*order, *(ct for ct in cotangents if ct is not None)})
    active = _active(order, cut)
    sweep = _Sweep(active, trail)
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is None or output not in sweep.active:
            continue
        if cotangent.type != output.type:
            raise IRError(f"a cotangent of {output.type} must have its type, got {cotangent.type}")
        sweep.seeds.setdefault(output, []).append(cotangent)
    starts = [output for output in outputs if output in active]
    path = toposort(starts, into=lambda node: node in active and node not in cut)
    for node in reversed(path):
        if node in active and node not in cut:
            sweep.visit(node)
    found = {node: sweep.total(node) for node in dict.fromkeys(wrt)}
    return [found[node] for node in wrt]


def jvp(
    outputs: Sequence[Node],
    wrt: Sequence[Node],
    tangents: Sequence[Node],
    origins: Origins | None = None,
) -> list[Node | None]:
    """The tangents of `outputs` from those of `wrt`; None where an output does not depend on it."""
    return Forward(vjp, _prepared, origins).push(outputs, wrt, tangents)


def _prepared(graph: Graph) -> Graph:
    return inline_plain_calls(expand_grads(graph))


def _active(order: Iterable[Node], cut: set[Node]) -> set[Node]:
    """The nodes that carry a cotangent: floats or complex, in `cut` or computed from such nodes."""
    active: set[Node] = set()
    for node in order:
        carries = isinstance(node.type, TupleType) or node.type.dtype.is_inexact
        carries = carries and node.op is not Op.STOP_GRADIENT
        if carries and (node in cut or not active.isdisjoint(node.inputs)):
            active.add(node)
    return active


# -- regions ---------------------------------------------------------------------------------------


def call_vjp(graph: Graph, wanted: tuple[bool, ...], given: tuple[bool, ...]) -> Backward:
    """The backward graph of a region: cotangents of the wanted params from the given outputs.

    There is one for each graph and flags, so equal calls have equal (interned) backward calls.
    """
    known = _backward.setdefault(graph, {})
    if (wanted, given) not in known:
        known[wanted, given] = _build_backward(expand_grads(graph), wanted, given)
    return known[wanted, given]


def _build_backward(graph: Graph, wanted: tuple[bool, ...], given: tuple[bool, ...]) -> Backward:
    origins, names = dict(graph.origins), dict(graph.names)
    cotangents = [placeholder(x.tensor) if use else None for x, use in zip(graph.outputs, given)]
    seeds = tuple(ct for ct in cotangents if ct is not None)
    names.update((ct, f"ct{k}") for k, ct in enumerate(cotangents) if ct is not None)
    positions = [k for k, want in enumerate(wanted) if want]
    found = vjp(graph.outputs, cotangents, [graph.params[k] for k in positions], origins)
    rows = [(k, ct) for k, ct in zip(positions, found) if ct is not None]
    inputs, outputs = (*graph.params, *seeds), tuple(ct for _, ct in rows)
    name = f"{graph.name}_backward"
    backward = Graph(name, inputs, (), outputs, names=names, origins=origins)
    return Backward(backward, tuple(k for k, _ in rows))


def _call_contributions(
    node: Node, results: dict[int, Node], active: set[Node]
) -> Sequence[Node | None]:
    """call -> call of the region's backward graph, projected.

    With `recompute` the operands it names enter the backward behind a barrier, so that forward
    values are computed again. With `backward` that graph stands for the derivative of the first
    `outputs` results; it takes the others, and the cotangents of the first.
    """
    graph: Graph = node.attr("graph")
    attrs = dict(node.attrs)
    parts: list[Node | None] = [None] * len(node.inputs)
    count: int = attrs.get("outputs", 0)
    if "backward" in attrs:
        first = {k: ct for k, ct in results.items() if k < count}
        results = {k: ct for k, ct in results.items() if k >= count}
        parts = _custom_contributions(node, first) if first else parts
    wanted = tuple(x in active for x in node.inputs)
    given = tuple(k in results for k in range(len(graph.outputs)))
    backward = call_vjp(graph, wanted, given) if results else None
    if backward is None or not backward.params:
        return parts
    cotangents = [results[k] for k in sorted(results)]
    operands = list(node.inputs)
    again: tuple[int, ...] = attrs.get("recompute", ())
    for k in again:
        operands[k] = after(operands[k], cotangents[0])
    # The id says whose backward it is.
    call = make(Op.CALL, *operands, *cotangents, graph=backward.graph, id=attrs.get("id", 0))
    for index, position in enumerate(backward.params):
        new, old = project(call, index), parts[position]
        parts[position] = new if old is None else add(old, new)
    return parts


def _custom_contributions(node: Node, cotangents: dict[int, Node]) -> list[Node | None]:
    """What a rule of the user's own sends to the floating-point inputs of its region, in order."""
    graph: Graph = node.attr("graph")
    count: int = node.attr("outputs")
    backward = expand_grads(node.attr("backward"))
    # A residual that is also a result is that result: its derivative is the rule's.
    kept = (
        project(node, graph.outputs.index(graph.outputs[k]))
        for k in range(count, len(backward.inputs))
    )
    given = (cotangents.get(k) or zeros(x.tensor) for k, x in enumerate(graph.outputs[:count]))
    call = make(Op.CALL, *kept, *given, graph=backward, id=node.attr("id"))
    floats = [k for k, x in enumerate(graph.inputs) if x.dtype.is_inexact]
    parts: list[Node | None] = [None] * len(node.inputs)
    for index, position in enumerate(floats):
        parts[position] = project(call, index)
    return parts


# -- the pass --------------------------------------------------------------------------------------


def expand(graph: Graph) -> Graph:
    """Pass `expand-autodiff`: the graph without `grad` and `call`, in it or in regions it calls."""
    return share_scans(_flatten(graph))


def _flatten(graph: Graph) -> Graph:
    return inline_calls(expand_grads(graph))


def expand_grads(graph: Graph) -> Graph:
    """The graph with every `grad` replaced by its nodes, innermost first, in called regions too.

    The same object each time for one graph: equal calls stay equal.
    """
    if graph not in _expanded:
        result = _expand_grads(graph)
        _expanded[graph] = None if result is graph else result
    return _expanded[graph] or graph


def _expand_grads(graph: Graph) -> Graph:
    origins = dict(graph.origins)
    env: dict[Node, Node] = {}
    gradients: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        inputs = tuple(env.get(x, x) for x in node.inputs)
        if node.op is Op.GRAD:
            gradients[node] = _gradients(node, inputs, origins)
        elif node.op is Op.PROJECT and node.inputs[0] in gradients:
            env[node] = gradients[node.inputs[0]][node.attr("index")]
        elif node.op is Op.CALL or node.op in CONTROL:
            env[node] = make(node.op, *inputs, **map_graphs(node, expand_grads))
        else:
            env[node] = remake(node, inputs)
        if node in origins and node in env:
            origins.setdefault(env[node], origins[node])
    if all(env.get(node) is node for node in graph.nodes):
        return graph
    return graph.with_results((env[node] for node in graph.results), origins=origins)


def _gradients(node: Node, inputs: tuple[Node, ...], origins: Origins) -> list[Node]:
    """The results of a `grad`, zeros where no output depends on an operand."""
    count: int = dict(node.attrs).get("outputs", 1)
    if dict(node.attrs).get("forward", 0):
        outputs, rest = inputs[:count], inputs[count:]
        half = len(rest) // 2
        found = jvp(outputs, rest[:half], rest[half:], origins)
        return [zeros(x.tensor) if t is None else t for x, t in zip(outputs, found)]
    outputs, cotangents, wrt = inputs[:count], inputs[count : 2 * count], inputs[2 * count :]
    found = vjp(outputs, cotangents, wrt, origins)
    return [zeros(x.tensor) if ct is None else ct for x, ct in zip(wrt, found)]


def inline_calls(graph: Graph) -> Graph:
    """The graph with every `call` replaced by the called region's nodes, at any depth."""
    return _inline(graph, {}, lambda node: True)


def inline_plain_calls(graph: Graph) -> Graph:
    """The same, without the calls that have a derivative of their own."""
    return _inline(graph, {}, lambda node: {"recompute", "backward"}.isdisjoint(dict(node.attrs)))


def _inline(graph: Graph, done: dict[Graph, Graph], wanted: Callable[[Node], bool]) -> Graph:
    if graph in done:
        return done[graph]
    origins = dict(graph.origins)
    env: dict[Node, Node] = {}
    results: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node.op is Op.PROJECT and node.inputs[0] in results:
            env[node] = results[node.inputs[0]][node.attr("index")]
            continue
        inputs = tuple(env[x] for x in node.inputs)
        if node.op is Op.CALL and wanted(node):
            body = _inline(node.attr("graph"), done, wanted)
            results[node] = _paste(body, inputs, origins, origins.get(node))
            continue
        if node.op in CONTROL:
            attrs = map_graphs(node, lambda graph: _inline(graph, done, wanted))
            env[node] = make(node.op, *inputs, **attrs)
        else:
            env[node] = remake(node, inputs)
        if node in origins:
            origins.setdefault(env[node], origins[node])
    done[graph] = graph
    if any(env.get(node) is not node for node in graph.nodes):
        new = (env[node] for node in graph.results)
        done[graph] = graph.with_results(new, origins=origins)
    return done[graph]


def _paste(
    body: Graph, operands: tuple[Node, ...], origins: Origins, place: Origin | None
) -> list[Node]:
    """The outputs of `body` for these operands. Nodes keep their origin, else get the caller's."""
    env = dict(zip(body.params, operands))
    outputs = substitute(body.outputs, env)
    params = set(body.params)
    for old, new in env.items():
        origin = body.origins.get(old, place)
        if origin is not None and old not in params:
            origins.setdefault(new, origin)
    return outputs
