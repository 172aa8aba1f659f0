"""Gradients of reductions, scans and the softmax family."""

from __future__ import annotations

from math import prod

from einkorn.ir.node import Node, constant, make
from einkorn.ir.ops import Op
from einkorn.passes.build import (
    broadcast,
    div,
    filled,
    keep_where,
    mul,
    reshape,
    slice_axis,
    spread,
    sub,
    sum_over,
    transpose,
)
from einkorn.passes.gradients.rule import Contributions, Rule


def _sum(node: Node, g: Node) -> Contributions:
    return (spread(g, node.inputs[0].shape, node.attr("axes")),)


def _prod(node: Node, g: Node) -> Contributions:
    """g times the product of the other elements, exact with any number of zeros, to any order.

    Dividing the product by each element fails at zeros, and counting the zeros gives values whose
    own derivatives are wrong there. So the product is taken again as a tree of pairwise products,
    and g goes back down that tree: O(n) multiplications in O(log n) nodes, no division.
    """
    x = node.inputs[0]
    axes: tuple[int, ...] = node.attr("axes")
    if x.tensor.size == 0:
        return (filled(x.tensor, 0),)
    kept = tuple(k for k in range(len(x.shape)) if k not in axes)
    order = (*kept, *axes)
    moved = transpose(x, order)
    rows = reshape(moved, (prod(node.shape), prod(x.shape[k] for k in axes)))
    others = reshape(_times_others(rows, reshape(g, (rows.shape[0], 1))), moved.shape)
    return (transpose(others, tuple(sorted(range(len(order)), key=order.__getitem__))),)


def _times_others(rows: Node, g: Node) -> Node:
    """For each element of a row g [m, 1] times the product of the row's other elements."""
    pairs: list[tuple[Node, Node, int]] = []
    while (width := rows.shape[1]) > 1:
        if width % 2:
            one = constant(rows.dtype, 1)
            rows = make(Op.PAD, rows, one, low=(0, 0), high=(0, 1), interior=(0, 0))
        even = slice_axis(rows, 1, 0, rows.shape[1], 2)
        odd = slice_axis(rows, 1, 1, rows.shape[1], 2)
        pairs.append((even, odd, width))
        rows = mul(even, odd)
    for even, odd, width in reversed(pairs):
        m, half = even.shape
        parts = (reshape(mul(g, sibling), (m, half, 1)) for sibling in (odd, even))
        g = reshape(make(Op.CONCAT, *parts, axis=2), (m, 2 * half))
        g = g if width == 2 * half else slice_axis(g, 1, 0, width)
    return g


def _extremum(node: Node, g: Node) -> Contributions:
    """g shared evenly among the elements equal to the result; NaNs equal each other here."""
    x, axes = node.inputs[0], node.attr("axes")
    equal = make(Op.EQ, x, spread(node, x.shape, axes))
    chosen = make(Op.OR, equal, make(Op.NE, x, x))
    count = sum_over(keep_where(chosen, filled(x.tensor, 1)), axes)
    return (keep_where(chosen, spread(div(g, count), x.shape, axes)),)


def _cumsum(node: Node, g: Node) -> Contributions:
    """The sum of the cotangents from each position on."""
    axis: int = node.attr("axis")
    backwards = make(Op.CUMSUM, make(Op.FLIP, g, axes=(axis,)), axis=axis)
    return (make(Op.FLIP, backwards, axes=(axis,)),)


def _row_sum(x: Node) -> Node:
    """The sum over the last axis, repeated along it."""
    last = len(x.shape) - 1
    return spread(sum_over(x, (last,)), x.shape, (last,))


def _softmax(node: Node, g: Node) -> Contributions:
    """y * (g - sum(g y))"""
    return (mul(node, sub(g, _row_sum(mul(g, node)))),)


def _log_softmax(node: Node, g: Node) -> Contributions:
    """g - exp(y) * sum(g)"""
    return (sub(g, mul(make(Op.EXP, node), _row_sum(g))),)


def _logsumexp(node: Node, g: Node) -> Contributions:
    """g * softmax(x)"""
    x = node.inputs[0]
    repeated = broadcast(reshape(g, (*g.shape, 1)), x.shape)
    return (mul(repeated, make(Op.SOFTMAX, x)),)


RULES: dict[Op, Rule] = {
    Op.SUM: _sum,
    Op.PROD: _prod,
    Op.MAX: _extremum,
    Op.MIN: _extremum,
    Op.CUMSUM: _cumsum,
    Op.SOFTMAX: _softmax,
    Op.LOG_SOFTMAX: _log_softmax,
    Op.LOGSUMEXP: _logsumexp,
}
