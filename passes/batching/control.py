"""Batching of `cond`, `while` and `scan`.

A loop over a batch carries the batch: a carry has a value for each example when what enters it or
what a step makes of it has one. A choice that differs between examples runs every branch and
selects; a while loop goes on while it does for any example, and the others keep their values.

What runs for an example that it is not meant for refuses nothing and keeps no loop going: a graph
is batched with a mask of the examples that count (see `batch_graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from einkorn.ir.dtypes import bool_, int64
from einkorn.ir.graph import Graph
from einkorn.ir.host import host_function
from einkorn.ir.node import Node, constant, make, placeholder, project, substitute
from einkorn.ir.ops import OPS, Op
from einkorn.ir.types import TensorType
from einkorn.passes.batching.rule import in_front, move_axis
from einkorn.passes.build import broadcast, filled, reshape, select, zeros


class Batched(NamedTuple):
    """A graph for a whole batch.

    Attributes:
        graph: its params and outputs are those of the graph of one example, some with the batch
            axis in front; before them the mask, when it takes one.
        outputs: which outputs have it.
    """

    graph: Graph
    outputs: tuple[bool, ...]


Batch = Callable[[Graph, Sequence[bool], int, bool], Batched]
"""(graph, which params are batched, size, whether it takes a mask) -> the graph of the batch."""

Results = list[tuple[Node, bool]]
"""The results of a node, and which of them have the batch axis."""


@dataclass(frozen=True, slots=True)
class Operands:
    """The operands of a node that is batched.

    Attributes:
        nodes: one for each operand.
        batched: which of them have the batch axis.
        size: the number of examples.
        mask: the examples that count; None when all do.
    """

    nodes: tuple[Node, ...]
    batched: list[bool]
    size: int
    mask: Node | None


def batch_control(node: Node, operands: Operands, batch: Batch) -> Results:
    """The results of a `cond`, `while` or `scan` for a whole batch."""
    if node.op is Op.SCAN:
        return _scan(node, operands, batch)
    return (_cond if node.op is Op.COND else _while)(node, operands, batch)


# -- masks -----------------------------------------------------------------------------------------


def needs_mask(graph: Graph) -> bool:
    """Whether something in it can refuse or go on without end."""
    return any(
        OPS[node.op].refuses or node.op is Op.WHILE
        for region in graph.regions
        for node in region.nodes
    )


def any_of(mask: Node) -> Node:
    """Whether an element of a mask holds."""
    return make(Op.MAX, mask, axes=(0,)) if mask.shape[0] else constant(bool_, False)


def spread_mask(mask: Node, shape: tuple[int, ...]) -> Node:
    """The mask beside the elements of each example."""
    return broadcast(reshape(mask, (*mask.shape, *(1,) * (len(shape) - 1))), shape)


def masked_operands(
    node: Node, operands: tuple[Node, ...], batched: Sequence[bool], mask: Node
) -> tuple[Node, ...]:
    """The operands of a node that can refuse, such that the examples that do not count do not."""
    first, *rest = operands
    if node.op is Op.HOST:
        if not host_function(node.attr("function")).refuses:
            return operands
        return _masked_matrices(first, batched[0], mask), *rest
    return first, _masked_indices(rest[0], batched[1], mask), *rest[1:]


def _masked_matrices(x: Node, batched: bool, mask: Node) -> Node:
    """Matrices that are the identity for the examples that do not count."""
    *_, m, n = x.shape
    down = broadcast(reshape(make(Op.IOTA, size=m, dtype=int64), (m, 1)), (m, n))
    across = broadcast(make(Op.IOTA, size=n, dtype=int64), (m, n))
    identity = make(Op.CAST, make(Op.EQ, down, across), dtype=x.dtype)
    counts = spread_mask(mask, x.shape) if batched else broadcast(any_of(mask), x.shape)
    return select(counts, x, broadcast(identity, x.shape))


def _masked_indices(indices: Node, batched: bool, mask: Node) -> Node:
    """Indices that are 0 for the examples that do not count."""
    if batched:
        return select(spread_mask(mask, indices.shape), indices, zeros(indices.tensor))
    return select(broadcast(any_of(mask), indices.shape), indices, zeros(indices.tensor))


def _wide(x: Node, batched: bool, size: int) -> Node:
    return x if batched else in_front(x, size)


# -- branches --------------------------------------------------------------------------------------


def _cond(node: Node, operands: Operands, batch: Batch) -> Results:
    """A `cond` whose index all examples share, or every branch and a choice."""
    branches: tuple[Graph, ...] = node.attr("branches")
    size, mask = operands.size, operands.mask
    index, *given = operands.nodes
    if operands.batched[0]:
        return _choice(branches, index, given, operands, batch)
    masked = mask is not None and any(map(needs_mask, branches))
    parts = [batch(branch, operands.batched[1:], size, masked) for branch in branches]
    many = [any(column) for column in zip(*(part.outputs for part in parts))]
    wide = [
        replace(
            part.graph,
            outputs=tuple(
                _wide(x, has or not want, size)
                for x, has, want in zip(part.graph.outputs, part.outputs, many)
            ),
        )
        for part in parts
    ]
    extra = (mask,) if masked and mask is not None else ()
    attrs = dict(node.attrs) | {"branches": tuple(wide)}
    made = make(Op.COND, index, *extra, *given, **attrs)
    return [(project(made, k), has) for k, has in enumerate(many)]


def _choice(
    branches: Sequence[Graph],
    index: Node,
    given: Sequence[Node],
    operands: Operands,
    batch: Batch,
) -> Results:
    """The results of all branches, of which each example takes those of its own."""
    size, mask = operands.size, operands.mask
    last = filled(index.tensor, len(branches) - 1)
    chosen = make(Op.MAXIMUM, make(Op.MINIMUM, index, last), zeros(index.tensor))
    taken = [make(Op.EQ, chosen, filled(index.tensor, k)) for k in range(len(branches))]
    rows: list[Results] = []
    for branch, holds in zip(branches, taken):
        masked = needs_mask(branch)
        part = batch(branch, operands.batched[1:], size, masked)
        counts = holds if mask is None else make(Op.AND, holds, mask)
        values = (counts, *given) if masked else given
        outputs = substitute(part.graph.outputs, dict(zip(part.graph.params, values)))
        rows.append(list(zip(outputs, part.outputs)))
    return [_chosen(column, taken, size) for column in zip(*rows)]


def _chosen(
    column: Sequence[tuple[Node, bool]], taken: Sequence[Node], size: int
) -> tuple[Node, bool]:
    """One result; what is the same whatever is chosen stays as it is."""
    (first, many), *rest = column
    if all(x is first for x, _ in rest):
        return first, many
    *values, found = (_wide(x, has, size) for x, has in column)
    for value, holds in zip(reversed(values), reversed(taken[:-1])):
        found = select(spread_mask(holds, found.shape), value, found)
    return found, True


# -- loops -----------------------------------------------------------------------------------------


def _scan(node: Node, operands: Operands, batch: Batch) -> Results:
    """A `scan` of steps of the whole batch; the rows of its columns are batches."""
    body, first, count = (node.attr(name) for name in ("body", "consts", "carries"))
    size, mask = operands.size, operands.mask
    split, known = first + count, list(operands.batched)
    masked = mask is not None and needs_mask(body)
    while True:
        step = batch(body, known, size, masked)
        grown = [first + k for k in range(count) if step.outputs[k] and not known[first + k]]
        if not grown:
            break
        for k in grown:
            known[k] = True
    many = [*known[first:split], *step.outputs[count:]]
    outputs = (
        _wide(x, has or not want, size)
        for x, has, want in zip(step.graph.outputs, step.outputs, many)
    )
    given = [
        _wide(x, has or not want, size)
        for x, has, want in zip(operands.nodes[:split], operands.batched, known)
    ]
    columns = [
        move_axis(x, 0, 1) if has else x
        for x, has in zip(operands.nodes[split:], operands.batched[split:])
    ]
    extra = (mask,) if masked and mask is not None else ()
    attrs = dict(node.attrs) | {
        "body": replace(step.graph, outputs=tuple(outputs)),
        "consts": first + len(extra),
    }
    made = make(Op.SCAN, *extra, *given, *columns, **attrs)
    found = [project(made, k) for k in range(len(many))]
    return [
        (move_axis(x, 1, 0) if has and k >= count else x, has)
        for k, (x, has) in enumerate(zip(found, many))
    ]


def _while(node: Node, operands: Operands, batch: Batch) -> Results:
    """A `while` that goes on for all examples at once, or for as long as it does for any."""
    condition, body, first = (node.attr(name) for name in ("condition", "body", "consts"))
    size = operands.size
    known = list(operands.batched)
    changes = [x is not y for x, y in zip(body.outputs, body.inputs[first:])]
    masked = needs_mask(condition), needs_mask(body)
    while True:
        test = batch(condition, known, size, False)
        apart = test.outputs[0] or operands.mask is not None
        step = batch(body, known, size, False)
        grown = [
            first + k
            for k, has in enumerate(step.outputs)
            if not known[first + k] and (has or (apart and changes[k]))
        ]
        if not grown:
            break
        for k in grown:
            known[k] = True
    given = tuple(
        _wide(x, has or not want, size)
        for x, has, want in zip(operands.nodes, operands.batched, known)
    )
    many = known[first:]
    if apart:
        test, step = (
            batch(graph, known, size, wants) for graph, wants in zip((condition, body), masked)
        )
        made = _apart(node, _Step(test, step, masked, many, first, size), given, operands.mask)
        return [(project(made, 1 + k), has) for k, has in enumerate(many)]
    outputs = tuple(
        _wide(x, has or not want, size)
        for x, has, want in zip(step.graph.outputs, step.outputs, many)
    )
    attrs = dict(node.attrs) | {
        "condition": test.graph,
        "body": replace(step.graph, outputs=outputs),
    }
    made = make(Op.WHILE, *given, **attrs)
    return [(project(made, k), has) for k, has in enumerate(many)]


@dataclass(frozen=True, slots=True)
class _Step:
    """A while loop whose examples end apart.

    Attributes:
        test: the batched condition.
        step: the batched body.
        masked: which of the two take a mask.
        many: which carries are batched.
        first: how many consts there are.
        size: the number of examples.
    """

    test: Batched
    step: Batched
    masked: tuple[bool, bool]
    many: Sequence[bool]
    first: int
    size: int

    def holds(self, values: Sequence[Node], mask: Node | None) -> Node:
        """For which examples the loop goes on from these consts and carries."""
        counts = filled(TensorType(bool_, (self.size,)), True) if mask is None else mask
        given = (counts, *values) if self.masked[0] else values
        graph = self.test.graph
        (found,) = substitute(graph.outputs, dict(zip(graph.params, given)))
        wide = _wide(found, self.test.outputs[0], self.size)
        return wide if mask is None else make(Op.AND, mask, wide)

    def after(self, values: Sequence[Node], going: Node) -> list[Node]:
        """The carries after a step; those of examples that have ended stay."""
        given = (going, *values) if self.masked[1] else values
        graph = self.step.graph
        found = substitute(graph.outputs, dict(zip(graph.params, given)))
        rows = zip(found, self.step.outputs, self.many, values[self.first :])
        return [self._kept(going, new, has, old) if want else old for new, has, want, old in rows]

    def _kept(self, going: Node, new: Node, has: bool, old: Node) -> Node:
        if new is old:
            return old
        return select(spread_mask(going, old.shape), _wide(new, has, self.size), old)


def _apart(node: Node, loop: _Step, given: Sequence[Node], mask: Node | None) -> Node:
    """A while loop that also carries for which examples it goes on, as its first carry."""
    first = loop.first
    consts = tuple(placeholder(x.tensor) for x in given[:first])
    carries = tuple(placeholder(x.tensor) for x in given[first:])
    going = placeholder(TensorType(bool_, (loop.size,)))
    inputs = (*consts, going, *carries)
    after = loop.after((*consts, *carries), going)
    outputs = (loop.holds((*consts, *after), going), *after)
    names = [node.attr(name).name for name in ("condition", "body")]
    attrs = dict(node.attrs) | {
        "condition": Graph(names[0], inputs, (), (any_of(going),)),
        "body": Graph(names[1], inputs, (), outputs),
    }
    start = loop.holds(given, mask)
    return make(Op.WHILE, *given[:first], start, *given[first:], **attrs)
