"""Gradients of reductions, scans and the softmax family."""

from __future__ import annotations

from math import prod

from einkorn.ir.dtypes import int64
from einkorn.ir.node import Node, constant, make
from einkorn.ir.ops import Op
from einkorn.passes.build import (
    add,
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
    times,
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


def _cumprod(node: Node, g: Node) -> Contributions:
    """(product of the elements before k) * s[k] with s[k] = g[k] + x[k + 1] * s[k + 1].

    No division, so zeros do no harm, to any order. The recurrence is solved for all k at once by
    doubling: after each round s[k] has taken in twice as many elements, and factor[k] is the
    product of as many. O(n log n) multiplications in O(log n) nodes.
    """
    x = node.inputs[0]
    axis: int = node.attr("axis")
    total, factor = g, _moved(x, axis, -1, 1)
    distance = 1
    while distance < x.shape[axis]:
        total = add(total, mul(factor, _moved(total, axis, -distance, 0)))
        factor = mul(factor, _moved(factor, axis, -distance, 1))
        distance *= 2
    return (mul(_moved(node, axis, 1, 1), total),)


def _moved(x: Node, axis: int, places: int, value: float) -> Node:
    """x moved on along an axis, with `value` where nothing comes in."""
    n = x.shape[axis]
    kept = slice_axis(x, axis, max(-places, 0), n - max(places, 0)) if abs(places) < n else None
    if kept is None:
        return filled(x.tensor, value)
    low = tuple(max(places, 0) if k == axis else 0 for k in range(len(x.shape)))
    high = tuple(max(-places, 0) if k == axis else 0 for k in range(len(x.shape)))
    gaps = (0,) * len(x.shape)
    return make(Op.PAD, kept, constant(x.dtype, value), low=low, high=high, interior=gaps)


def _running_extremum(node: Node, g: Node) -> Contributions:
    """g added to the last element so far that equals the running extreme; NaNs equal each other."""
    x = node.inputs[0]
    axis: int = node.attr("axis")
    n = x.shape[axis]
    if x.tensor.size == 0:
        return (filled(x.tensor, 0),)
    order = (*(k for k in range(len(x.shape)) if k != axis), axis)
    extreme = make(Op.OR, make(Op.EQ, x, node), make(Op.NE, x, x))
    rows = x.tensor.size // n
    is_extreme, cotangent = (reshape(transpose(y, order), (rows, n)) for y in (extreme, g))
    place = broadcast(make(Op.IOTA, size=n, dtype=int64), (rows, n))
    owner = make(Op.CUMMAX, keep_where(is_extreme, place), axis=1)
    first = spread(times(make(Op.IOTA, size=rows, dtype=int64), n), (rows, n), (1,))
    flat = reshape(add(first, owner), (rows * n,))
    nothing = filled(x.tensor.with_shape((rows * n,)), 0)
    found = make(Op.SCATTER_ADD, nothing, flat, reshape(cotangent, (rows * n,)), axis=0)
    moved = reshape(found, tuple(x.shape[k] for k in order))
    return (transpose(moved, tuple(sorted(range(len(order)), key=order.__getitem__))),)


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
    Op.CUMPROD: _cumprod,
    Op.CUMMAX: _running_extremum,
    Op.CUMMIN: _running_extremum,
    Op.SOFTMAX: _softmax,
    Op.LOG_SOFTMAX: _log_softmax,
    Op.LOGSUMEXP: _logsumexp,
}
