"""Padding of loops and branches: their closed graphs are padded, and get the lengths of the call.

A scan over a padded axis makes only the steps in front of the padding: behind it, its carries stay
as they are. So nothing of what lies there is computed, and no index of it can be out of range.
"""

from __future__ import annotations

from einkorn.ir.dtypes import int64
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make, make_region, placeholder, project
from einkorn.ir.ops import Op
from einkorn.ir.sizes import Size
from einkorn.ir.types import TensorType
from einkorn.passes.build import zeros
from einkorn.passes.padding.context import Padding, Rule, number_of, padded


def projected(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """One of several results."""
    return make(Op.PROJECT, *operands, index=node.attr("index"))


def branched(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A choice among padded branches."""
    index, *rest = operands
    branches = tuple([pad.closed(graph, 0) for graph in node.attr("branches")])
    return make_region(Op.COND, [index, *pad.scalars, *rest], branches=branches)


def repeated(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A loop whose condition and body are padded."""
    first: int = node.attr("consts")
    return make_region(
        Op.WHILE,
        [*operands[:first], *pad.scalars, *operands[first:]],
        condition=pad.closed(node.attr("condition"), first),
        body=pad.closed(node.attr("body"), first),
        consts=first + len(pad.scalars),
    )


def scanned(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A scan with a padded body, perhaps over a padded axis."""
    first: int = node.attr("consts")
    length: int = node.attr("length")
    given = [*operands[:first], *pad.scalars, *operands[first:]]
    body = pad.closed(node.attr("body"), first)
    count = padded((length,))[0]
    if isinstance(length, Size):
        body = _as_long_as(pad, body, first, node.attr("carries"), length)
        given.append(make(Op.IOTA, size=count, dtype=int64))
    return make_region(
        Op.SCAN,
        given,
        body=body,
        consts=first + len(pad.scalars),
        carries=node.attr("carries"),
        length=count,
        reverse=node.attr("reverse"),
    )


def _as_long_as(pad: Padding, body: Graph, first: int, carries: int, length: Size) -> Graph:
    """A body that also takes the number of its row, and does nothing from row `length` on."""
    split = first + len(pad.scalars)
    inputs = [placeholder(x.tensor) for x in body.inputs]
    row = placeholder(TensorType(int64, ()))
    scalars = dict(zip(pad.lengths, inputs[first:split]))
    is_true = make(Op.LT, row, number_of(length, scalars))
    chosen = make_region(
        Op.COND,
        [make(Op.CAST, is_true, dtype=int64), *inputs],
        branches=(_stopped(body, split, carries), body),
    )
    outputs = tuple([project(chosen, k) for k in range(len(body.outputs))])
    names = dict(zip(inputs, map(body.name_of, body.inputs))) | {row: "row"}
    return Graph(body.name, (*inputs, row), (), outputs, names=names)


def _stopped(body: Graph, split: int, carries: int) -> Graph:
    """What takes the place of a body behind the last row: the carries it got, and zeros."""
    inputs = tuple([placeholder(x.tensor) for x in body.inputs])
    rows = [zeros(x.tensor) for x in body.outputs[carries:]]
    outputs = (*inputs[split : split + carries], *rows)
    return Graph(f"{body.name}_stopped", inputs, (), outputs)


RULES: dict[Op, Rule] = {
    Op.PROJECT: projected,
    Op.COND: branched,
    Op.WHILE: repeated,
    Op.SCAN: scanned,
}
