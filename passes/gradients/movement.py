"""Gradients of data movement: the cotangent moves back, and adds up where values were repeated."""

from __future__ import annotations

from einkorn.ir.dtypes import bool_
from einkorn.ir.node import Node, constant, make
from einkorn.ir.ops import Op
from einkorn.passes.build import (
    filled,
    keep_where,
    reshape,
    slice_axis,
    sum_over,
    transpose,
)
from einkorn.passes.gradients.rule import Contributions, Rule


def _reshape(node: Node, g: Node) -> Contributions:
    return (reshape(g, node.inputs[0].shape),)


def _broadcast(node: Node, g: Node) -> Contributions:
    """The sum over the axes along which the operand was repeated."""
    shape = node.inputs[0].shape
    new = len(node.shape) - len(shape)
    repeated = (k for k, (n, m) in enumerate(zip(shape, node.shape[new:]), new) if n != m)
    return (reshape(sum_over(g, (*range(new), *repeated)), shape),)


def _transpose(node: Node, g: Node) -> Contributions:
    axes: tuple[int, ...] = node.attr("axes")
    return (transpose(g, tuple(sorted(range(len(axes)), key=axes.__getitem__))),)


def _slice(node: Node, g: Node) -> Contributions:
    """The cotangent put back between zeros."""
    starts, steps = node.attr("starts"), node.attr("steps")
    rows = zip(node.inputs[0].shape, g.shape, starts, steps)
    high = tuple(n - start - _span(m, step) for n, m, start, step in rows)
    interior = tuple(step - 1 for step in steps)
    zero = constant(g.dtype, 0)
    return (make(Op.PAD, g, zero, low=starts, high=high, interior=interior),)


def _span(count: int, step: int) -> int:
    """The positions from the first to the last of `count` elements that are `step` apart."""
    return (count - 1) * step + 1 if count else 0


def _flip(node: Node, g: Node) -> Contributions:
    return (make(Op.FLIP, g, axes=node.attr("axes")),)


def _pad(node: Node, g: Node) -> Contributions:
    """The elements that came from x; the sum of all others for the padding value."""
    x, value = node.inputs
    low, high, interior = (node.attr(name) for name in ("low", "high", "interior"))
    steps = tuple(gap + 1 for gap in interior)
    stops = tuple(a + _span(n, step) for a, n, step in zip(low, x.shape, steps))
    inside = make(Op.SLICE, g, starts=low, stops=stops, steps=steps)
    if value.op is Op.CONST:
        return inside, None
    # A mask, not sum(g) - sum(inside), which would cancel.
    untouched = filled(x.tensor.with_dtype(bool_), False)
    outside = make(Op.PAD, untouched, constant(bool_, True), low=low, high=high, interior=interior)
    return inside, sum_over(keep_where(outside, g), tuple(range(len(g.shape))))


def _concat(node: Node, g: Node) -> Contributions:
    axis: int = node.attr("axis")
    parts: list[Node] = []
    start = 0
    for part in node.inputs:
        stop = start + part.shape[axis]
        parts.append(slice_axis(g, axis, start, stop))
        start = stop
    return parts


RULES: dict[Op, Rule] = {
    Op.RESHAPE: _reshape,
    Op.BROADCAST: _broadcast,
    Op.TRANSPOSE: _transpose,
    Op.SLICE: _slice,
    Op.FLIP: _flip,
    Op.PAD: _pad,
    Op.CONCAT: _concat,
}
