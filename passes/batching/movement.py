"""Batching of elementwise ops, data movement, reductions and scans: axes move up by one."""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.ir.dtypes import bool_
from einkorn.ir.node import Node, constant, make
from einkorn.ir.ops import OPS, Op
from einkorn.passes.batching.rule import Rule, everywhere, in_front
from einkorn.passes.build import broadcast, filled, reshape, select


def elementwise(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """The same op on whole batches."""
    return make(node.op, *everywhere(operands, batched, size), **dict(node.attrs))


def last_axis(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """An op along the last axis of its one operand, which stays the last."""
    return make(node.op, *operands, **dict(node.attrs))


def _reshape(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    return reshape(operands[0], (size, *node.shape))


def _broadcast(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """New axes of an example come behind the batch axis."""
    (x,) = operands
    new = len(node.shape) - len(x.shape) + 1
    return broadcast(reshape(x, (size, *(1,) * new, *x.shape[1:])), (size, *node.shape))


def _transpose(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    return make(Op.TRANSPOSE, *operands, axes=(0, *(axis + 1 for axis in node.attr("axes"))))


def _slice(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    return make(
        Op.SLICE,
        *operands,
        starts=(0, *node.attr("starts")),
        stops=(size, *node.attr("stops")),
        steps=(1, *node.attr("steps")),
    )


def _pad(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """With a value for each example: padded with zeros, then filled in through a mask."""
    value, around = operands[1], dict(node.attrs)
    x = operands[0] if batched[0] else in_front(operands[0], size)
    ahead = {name: (0, *widths) for name, widths in around.items()}
    if not batched[1]:
        return make(Op.PAD, x, value, **ahead)
    inside = make(Op.PAD, x, constant(x.dtype, 0), **ahead)
    untouched = filled(node.inputs[0].tensor.with_dtype(bool_), False)
    mask = make(Op.PAD, untouched, constant(bool_, True), **around)
    wide = broadcast(reshape(value, (size, *(1,) * len(node.shape))), inside.shape)
    return select(in_front(mask, size), wide, inside)


def _one_axis(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """An op with the attribute `axis`."""
    return make(node.op, *everywhere(operands, batched, size), axis=node.attr("axis") + 1)


def _axes(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """An op with the attribute `axes`. The order of a sum is that of the sum of one example."""
    return make(node.op, *operands, axes=tuple(axis + 1 for axis in node.attr("axes")))


RULES: dict[Op, Rule] = {
    **{op: elementwise for op, row in OPS.items() if row.elementwise},
    Op.RESHAPE: _reshape,
    Op.BROADCAST: _broadcast,
    Op.TRANSPOSE: _transpose,
    Op.SLICE: _slice,
    Op.FLIP: _axes,
    Op.PAD: _pad,
    Op.CONCAT: _one_axis,
    Op.SUM: _axes,
    Op.PROD: _axes,
    Op.MAX: _axes,
    Op.MIN: _axes,
    Op.ARGMAX: _one_axis,
    Op.ARGMIN: _one_axis,
    Op.CUMSUM: _one_axis,
    Op.CUMPROD: _one_axis,
    Op.CUMMAX: _one_axis,
    Op.CUMMIN: _one_axis,
    Op.ARGSORT: last_axis,
    Op.SOFTMAX: last_axis,
    Op.LOG_SOFTMAX: last_axis,
    Op.LOGSUMEXP: last_axis,
    Op.HOST: elementwise,  # whose axes count from the last one
}
