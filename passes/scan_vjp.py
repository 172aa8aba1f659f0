"""The reverse of a scan: a scan in the other direction, and products over all steps behind it.

What a step of the reverse reads of the forward step is stacked by a variant of the forward scan, or
computed again where that is cheap and takes no more memory.

The cotangent of a const has terms that are added up. Where a term is a product of two matrices
(moved about, perhaps), the factors of all steps are stacked and multiplied once: with k the axis
that the step contracts, one contraction over (row, k), rows ascending. This holds when the factors
of a step are no larger than reading and writing the sum would be: K (M + N) <= 2 M N. A term that
is a sum over axes of something that is stacked anyway is one sum over the rows and these axes.
Everything else adds up from step to step, in the order of the reverse, from zero. Then the terms
are added: what went from step to step first, then the others in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

from einkorn.ir.graph import Graph
from einkorn.ir.host_calls import is_host_node
from einkorn.ir.node import Node, is_const, make, placeholder, project, remake, substitute, toposort
from einkorn.ir.ops import OPS, Op
from einkorn.passes.build import add, reshape, transpose, zeros
from einkorn.passes.costs import op_cost
from einkorn.passes.scan_variants import with_rows, with_variants

_MOVES = (Op.TRANSPOSE, Op.RESHAPE, Op.PAD)
_CHEAP_NS = 0.3  # an elementwise op below this is computed again rather than stored
_SEVERAL = 8  # values that are stored instead of one


class Term(NamedTuple):
    """A part of a cotangent that is computed behind the loop.

    Attributes:
        moves: the movement ops applied to it, the last first.
        node: a `dot` or `sum` of one step.
    """

    moves: tuple[Node, ...]
    node: Node


@dataclass(frozen=True, slots=True)
class Split:
    """The cotangents of a step's operands, by when they are computed.

    Attributes:
        terms: for each const what is computed behind the loop.
        rest: for each const what adds up from step to step, where there is anything.
        factors: the values that terms read, stacked.
    """

    terms: Mapping[int, list[Term]]
    rest: Mapping[int, Node]
    factors: tuple[Node, ...]


# -- products behind the loop ----------------------------------------------------------------------


def split_terms(
    cotangents: Mapping[int, Node], stacked: Iterable[Node], invariant: set[Node]
) -> Split:
    """Which terms of the cotangents of consts are computed behind the loop.

    Args:
        cotangents: of each const, in terms of the step.
        stacked: what the reverse stacks anyway.
        invariant: the nodes that do not change from step to step.
    """
    parts = {k: [_peeled(x) for x in _added(node)] for k, node in cotangents.items()}
    products = [
        term.node for terms in parts.values() for term in terms if _is_product(term.node, invariant)
    ]
    found = set(products)
    factors = dict.fromkeys(x for node in products for x in node.inputs)
    sums = {*factors, *stacked}
    terms: dict[int, list[Term]] = {}
    rest: dict[int, Node] = {}
    for k, row in parts.items():
        late = [
            t for t in row if t.node in found or (t.node.op is Op.SUM and t.node.inputs[0] in sums)
        ]
        terms[k] = late
        factors.update(dict.fromkeys(x for t in late for x in t.node.inputs))
        others = [x for x, t in zip(_added(cotangents[k]), row) if t not in late]
        if others:
            rest[k] = reduce(add, others)
    return Split(terms, rest, tuple(factors))


def _added(node: Node) -> list[Node]:
    """The terms of a sum, from left to right."""
    found: list[Node] = []
    stack = [node]
    while stack:
        x = stack.pop()
        if x.op is Op.ADD:
            stack.extend(reversed(x.inputs))
        else:
            found.append(x)
    return found


def _peeled(node: Node) -> Term:
    moves: list[Node] = []
    while node.op in _MOVES and (node.op is not Op.PAD or is_const(node.inputs[1], 0)):
        moves.append(node)
        node = node.inputs[0]
    return Term(tuple(moves), node)


def _is_product(node: Node, invariant: set[Node]) -> bool:
    if node.op is not Op.DOT or len(node.shape) != 2 or not invariant.isdisjoint(node.inputs):
        return False
    m, n = node.shape
    contract: tuple[int, int] = node.attr("contract")
    k = node.inputs[0].shape[contract[0]]
    return k * (m + n) <= 2 * m * n


def late_total(terms: Sequence[Term], stacks: Mapping[Node, Node]) -> Node:
    """The sum over all steps of the terms of one const, from the stacked factors."""
    return reduce(add, (_over_steps(term, stacks) for term in terms))


def _over_steps(term: Term, stacks: Mapping[Node, Node]) -> Node:
    node = term.node
    if node.op is Op.SUM:
        axes = (0, *(axis + 1 for axis in node.attr("axes")))
        found = make(Op.SUM, stacks[node.inputs[0]], axes=axes)
    else:
        contract: tuple[int, int] = node.attr("contract")
        rows = (_long(stacks[x], axis) for x, axis in zip(node.inputs, contract))
        found = make(Op.DOT, *rows, contract=contract)
    for move in reversed(term.moves):
        found = remake(move, (found, *move.inputs[1:]))
    return found


def _long(stack: Node, axis: int) -> Node:
    """[T, K, M] -> [T K, M] or [T, M, K] -> [M, T K]: the steps' parts of an axis one by one."""
    steps, *shape = stack.shape
    if axis == 0:
        return reshape(stack, (steps * shape[0], shape[1]))
    return reshape(transpose(stack, (1, 0, 2)), (shape[0], steps * shape[1]))


# -- what is stored --------------------------------------------------------------------------------


def stored(needed: Iterable[Node], free: set[Node]) -> list[Node]:
    """What the forward scan stacks so that `needed`, values of its steps, are known.

    Args:
        needed: nodes of the forward step.
        free: inputs of the step that the reverse has anyway.
    """
    wanted = list(dict.fromkeys(needed))
    frontiers: dict[Node, tuple[Node, ...]] = {}
    for node in toposort(wanted, into=lambda node: _is_cheap(node)):
        frontiers[node] = _frontier(node, frontiers, free)
    return list(dict.fromkeys(x for node in wanted for x in frontiers[node]))


def _frontier(
    node: Node, frontiers: Mapping[Node, tuple[Node, ...]], free: set[Node]
) -> tuple[Node, ...]:
    """What is stored to know one value: itself, or what it is computed from again."""
    if node in free or (not node.inputs and node.op is not Op.INPUT):
        return ()
    if not _is_cheap(node):
        return (node,)
    below = tuple(dict.fromkeys(x for operand in node.inputs for x in frontiers[operand]))
    size = sum(x.tensor.nbytes for x in below)
    return (node,) if len(below) > _SEVERAL or size > node.tensor.nbytes else below


def _is_cheap(node: Node) -> bool:
    """Whether computing a value again costs no more than storing it."""
    row = OPS[node.op]
    if is_host_node(node):
        return False
    if row.elementwise:
        return op_cost(node.op) <= _CHEAP_NS
    return row.view or node.op in (Op.PAD, Op.CONCAT)


# -- the reverse -----------------------------------------------------------------------------------


class Carried(NamedTuple):
    """Which values of a scan take part in its reverse, by position.

    Attributes:
        carries: carries that have a cotangent.
        results: the stacked results whose cotangents are given.
        cotangents: the cotangents of operands, by position, for the step.
        seeds: the cotangents of the step's results that they are computed from, by position.
    """

    carries: tuple[int, ...]
    results: tuple[int, ...]
    cotangents: Mapping[int, Node]
    seeds: Mapping[int, Node]


@dataclass(frozen=True, slots=True)
class Reverse:
    """The reverse of a scan, without its operands.

    Attributes:
        body: its step.
        split: the cotangents of consts.
        sums: the consts whose cotangents add up from step to step.
        columns: the scanned operands that have a cotangent.
        kept: values of the forward step that are stacked: those that a step reads come first.
        reads: how many of them a step reads.
        given: values that the reverse stacks behind the cotangents of columns.
    """

    body: Graph
    split: Split
    sums: tuple[int, ...]
    columns: tuple[int, ...]
    kept: tuple[Node, ...]
    reads: int
    given: tuple[Node, ...]


def build_reverse(step: Graph, first: int, count: int, plan: Carried) -> Reverse:
    """The reverse of a scan whose step, with every call pasted in, is `step`."""
    split = first + count
    consts, columns = step.inputs[:first], step.inputs[split:]
    forward = with_variants(step.nodes, toposort(plan.cotangents.values()))
    forward.update(step.inputs)
    by_column = {k: x for k, x in plan.cotangents.items() if k >= split}
    invariant = _invariant(toposort(plan.cotangents.values()), set(consts))
    found = split_terms(
        {k: x for k, x in plan.cotangents.items() if k < first}, by_column.values(), invariant
    )
    by_carry = [plan.cotangents.get(first + k) for k in plan.carries]
    late = [x for x in found.factors if x not in forward]
    given = tuple(x for x in late if x not in by_column.values())
    roots = [
        *(x for x in by_carry if x is not None),
        *found.rest.values(),
        *by_column.values(),
        *given,
    ]
    outside = toposort(roots, into=lambda node: node not in forward)
    free = {*consts, *columns}
    reads = stored((node for node in outside if node in forward), free)
    ahead = [x for x in found.factors if x in forward and x not in columns]
    kept = tuple(dict.fromkeys((*reads, *ahead)))
    sums = tuple(found.rest)
    body = _reverse_body(step, (first, split), plan, (by_carry, found, by_column, given), reads)
    return Reverse(body, found, sums, tuple(by_column), kept, len(reads), given)


def _invariant(nodes: Iterable[Node], consts: set[Node]) -> set[Node]:
    """The nodes that depend on consts alone."""
    found = set(consts)
    for node in nodes:
        if node.op is not Op.INPUT and all(x in found for x in node.inputs):
            found.add(node)
    return found


def _reverse_body(
    step: Graph,
    bounds: tuple[int, int],
    plan: Carried,
    cotangents: tuple[Sequence[Node | None], Split, Mapping[int, Node], Sequence[Node]],
    reads: Sequence[Node],
) -> Graph:
    """One step: the cotangents that leave it, the sums so far, those of its row, what it stacks."""
    first, split = bounds
    by_carry, found, by_column, given = cotangents
    names: dict[Node, str] = {}

    def fresh(node: Node, name: str) -> Node:
        made = placeholder(node.tensor)
        names[made] = name
        return made

    consts = {x: fresh(x, step.name_of(x)) for x in step.inputs[:first]}
    leaving = {k: fresh(step.outputs[k], f"ct{k}") for k in plan.carries}
    sums = {k: fresh(step.inputs[k], f"sum{k}") for k in found.rest}
    columns = {x: fresh(x, step.name_of(x)) for x in step.inputs[split:]}
    kept = {x: fresh(x, step.name_of(x) or f"kept{k}") for k, x in enumerate(reads)}
    rows = {k: fresh(step.outputs[k], f"ct_y{k}") for k in plan.results}
    env = {**consts, **columns, **kept}
    env.update((plan.seeds[k], x) for k, x in (leaving | rows).items())
    zero = [
        zeros(step.outputs[k].tensor) if x is None else x for k, x in zip(plan.carries, by_carry)
    ]
    roots = substitute([*zero, *found.rest.values(), *by_column.values(), *given], env)
    start, stop = len(zero), len(zero) + len(sums)
    outputs = (
        *roots[:start],
        *(add(old, new) for old, new in zip(sums.values(), roots[start:stop])),
        *roots[stop:],
    )
    parts = (consts, leaving, sums, columns, kept, rows)
    inputs = tuple(x for part in parts for x in part.values())
    return Graph(f"{step.name}_backward", inputs, (), outputs, names=names)


def apply_reverse(
    node: Node, step: Graph, plan: Carried, reverse: Reverse, results: Mapping[int, Node]
) -> list[Node | None]:
    """The cotangents of the operands of a scan, from those of its results."""
    first, count = node.attr("consts"), node.attr("carries")
    split = first + count
    stacks = with_rows(node, step, reverse.kept) if reverse.kept else {}
    last = [results.get(k) or zeros(step.outputs[k].tensor) for k in plan.carries]
    sums = [zeros(step.inputs[k].tensor) for k in reverse.sums]
    columns = [
        *node.inputs[split:],
        *(stacks[x] for x in reverse.kept[: reverse.reads]),
        *(results[k] for k in plan.results),
    ]
    attrs = dict(node.attrs) | {
        "body": reverse.body,
        "carries": len(last) + len(sums),
        "reverse": 1 - node.attr("reverse"),
    }
    made = make(Op.SCAN, *node.inputs[:first], *last, *sums, *columns, **attrs)
    places = (*(first + k for k in plan.carries), *reverse.sums, *reverse.columns)
    found: list[Node | None] = [None] * len(node.inputs)
    for index, position in enumerate(places):
        found[position] = project(made, index)
    stacks.update(zip(step.inputs[split:], node.inputs[split:]))
    stacks.update((x, project(made, len(places) + k)) for k, x in enumerate(reverse.given))
    stacks.update((plan.cotangents[k], _known(found[k])) for k in reverse.columns)
    for k, terms in reverse.split.terms.items():
        if terms:
            total, before = late_total(terms, stacks), found[k]
            found[k] = total if before is None else add(total, before)
    return found


def _known(node: Node | None) -> Node:
    assert node is not None
    return node


Flatten = Callable[[Graph], Graph]
"""A graph with every derivative expanded and every call pasted in."""
