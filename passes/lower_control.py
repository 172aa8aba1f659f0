"""Lowering of control flow: one launch, which runs the programs of the closed graphs.

The nested programs' arena, and the second buffer of each carry, are temporaries of the graph around
them, so the memory plan gives them places like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from einkorn.ir.graph import Graph
from einkorn.ir.loops import Branch, Nesting, ScanLoop, WhileLoop
from einkorn.ir.node import Node, project
from einkorn.ir.ops import Op
from einkorn.ir.program import NESTED_WORDS, Program
from einkorn.ir.types import TupleType
from einkorn.passes.costs import LAUNCH_NS, NESTED_NS, WHILE_STEPS
from einkorn.passes.hoist import in_front, invariant, without
from einkorn.passes.launches import Buffer, Launch
from einkorn.passes.lower import Lowering, Nested

Operand = tuple[Buffer, int]


def cond(lowering: Lowering, node: Node) -> None:
    """COND: the program of each branch, and the choice."""
    nested = _nested(lowering)
    inner = [nested.program(nested.launches(graph)) for graph in node.attr("branches")]
    reads = _operands(lowering, node.inputs)
    results = _results(lowering, node)
    cost = max(program.cost for program in inner)
    kernel = Branch(len(inner))
    count = len(reads) - 1 + len(results)
    _emit(lowering, node, kernel, inner, (reads, results), (count,), cost)


def while_loop(lowering: Lowering, node: Node) -> None:
    """WHILE: the programs of condition and body; nobody knows how often they run."""
    consts: int = node.attr("consts")
    carries = node.inputs[consts:]
    graphs = [node.attr(name) for name in ("condition", "body")]
    inner, reads = _loop(lowering, graphs, consts, node)
    consts += len(reads) - len(node.inputs)
    flag = Buffer("condition", 1)
    writes = [*_results(lowering, node), *_spare(carries), (flag, 0)]
    sizes = (x.tensor.nbytes for x in carries)
    cost = WHILE_STEPS * sum(program.cost for program in inner)
    params = (consts, len(carries), *sizes)
    _emit(lowering, node, WhileLoop(), inner, (reads, writes), params, cost)


def scan(lowering: Lowering, node: Node) -> None:
    """SCAN: the program of a step; without steps the carries stay as they are."""
    consts, count, length = (node.attr(name) for name in ("consts", "carries", "length"))
    carries, columns = node.inputs[consts : consts + count], node.inputs[consts + count :]
    if length == 0:
        for k, (_, buffer) in enumerate(zip(carries, _results(lowering, node))):
            target = lowering.views[project(node, k)]
            lowering.copy(lowering.view(carries[k]), buffer[0], target, node)
        return
    inner, reads = _loop(lowering, [node.attr("body")], consts, node)
    consts += len(reads) - len(node.inputs)
    results = _results(lowering, node)
    assert isinstance(node.type, TupleType)
    types = (*(x.tensor for x in columns), *node.type.items[count:])
    rows = (type.nbytes // length for type in types)
    counts = (consts, count, len(columns), len(results) - count)
    params = (length, node.attr("reverse"), *counts, *rows)
    cost = length * (inner[0].cost + NESTED_NS)
    operands = (reads, [*results, *_spare(carries)])
    _emit(lowering, node, ScanLoop(), inner, operands, params, cost)


def _nested(lowering: Lowering) -> Nested:
    assert lowering.nested is not None, "control flow needs a pipeline for its closed graphs"
    return lowering.nested


def _loop(
    lowering: Lowering, graphs: Sequence[Graph], consts: int, node: Node
) -> tuple[list[Program], list[Operand]]:
    """The programs of a loop's graphs, and their operands: consts that were computed behind others.

    What does the same in each step is emitted in front of the loop (passes/hoist.py).
    """
    nested = _nested(lowering)
    steps = [nested.launches(graph) for graph in graphs]
    moved = [invariant(launches, consts) for launches in steps]
    operands = _operands(lowering, node.inputs)
    computed: list[Operand] = []
    for part in moved:
        launches, made = in_front(part, operands)
        for launch in launches:
            lowering.emit(launch)
        computed.extend((made[buffer], 0) for buffer in part.results)
    inner: list[Program] = []
    before = 0
    for launches, part in zip(steps, moved):
        inner.append(nested.program(without(launches, part, consts, before, len(computed))))
        before += len(part.results)
    return inner, [*operands[:consts], *computed, *operands[consts:]]


def _operands(lowering: Lowering, nodes: Sequence[Node]) -> list[Operand]:
    """The operands, each with its elements adjacent."""
    return [lowering.operand(view) for view in [lowering.dense(x) for x in nodes]]


def _results(lowering: Lowering, node: Node) -> list[Operand]:
    """A buffer for each result, read or not."""
    assert isinstance(node.type, TupleType)
    return [(lowering.result(project(node, k)), 0) for k in range(len(node.type.items))]


def _spare(carries: Sequence[Node]) -> list[Operand]:
    """Second buffers: a step never writes where it reads."""
    return [(Buffer(f"carry {x.type}", x.tensor.nbytes), 0) for x in carries]


def _emit(
    lowering: Lowering,
    node: Node,
    kernel: Nesting,
    inner: Sequence[Program],
    operands: tuple[Sequence[Operand], Sequence[Operand]],
    params: Sequence[int],
    cost: float,
) -> None:
    """Emit the launch; the runtime fills in the params that are zero here."""
    reads, writes = operands
    arena = Buffer(f"arena of {inner[-1].name}", max(part.arena_bytes for part in inner))
    blank = (0,) * (1 + NESTED_WORDS * len(inner))
    lowering.emit(
        Launch(
            kernel,
            tuple(reads),
            (*writes, (arena, 0)),
            (*blank, *params),
            1,
            1,
            LAUNCH_NS + cost,
            lowering.label(node),
            any(part.refuses for part in inner),
            inner=tuple(inner),
        )
    )


LOWER: dict[Op, Callable[[Lowering, Node], None]] = {
    Op.COND: cond,
    Op.WHILE: while_loop,
    Op.SCAN: scan,
}
