"""Padding of indexing, contraction, convolution and windows."""

from __future__ import annotations

from math import prod

from einkorn.ir.dtypes import int64, uint64
from einkorn.ir.node import Node, constant, make
from einkorn.ir.ops import Op
from einkorn.ir.sizes import Size
from einkorn.passes.build import add, broadcast, filled, reshape, select, sub
from einkorn.passes.padding.context import Padding, Rule, padded, same
from einkorn.passes.padding.movement import counted, taken

SMALL = 4  # min(M, N) of a contraction up to which its order of additions is another one


def _indices(pad: Padding, node: Node, indices: Node) -> Node:
    """The indices with 0 in the padding, checked against the true size of the axis."""
    source = node.inputs[1]
    clean = pad.cleared(indices, source.shape, range(len(source.shape)), 0)
    axis: int = node.attr("axis")
    size = node.inputs[0].shape[axis]
    if not isinstance(size, Size):
        return clean
    if clean.dtype is uint64:
        clean = make(Op.MINIMUM, clean, filled(clean.tensor, (1 << 63) - 1))
    index = clean if clean.dtype is int64 else make(Op.CAST, clean, dtype=int64)
    zero, n = filled(index.tensor, 0), broadcast(pad.number(size), index.shape)
    index = select(make(Op.LT, index, zero), add(index, n), index)
    outside = make(Op.OR, make(Op.LT, index, zero), make(Op.GE, index, n))
    return select(outside, filled(index.tensor, size.padded), index)


def gathered(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A gather; an index that lies in the padding is out of range."""
    x, indices = operands
    return make(Op.GATHER, x, _indices(pad, node, indices), axis=node.attr("axis"))


def _index_axes(node: Node) -> range:
    """The axes of the updates of a scatter that the indices have."""
    axis: int = node.attr("axis")
    return range(axis, axis + len(node.inputs[1].shape))


def scattered_sum(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A scatter that adds; updates in the padding of the indices add what changes nothing."""
    x, indices, updates = operands
    nothing = -0.0 if x.dtype.is_float else 0
    updates = pad.cleared(updates, node.inputs[2].shape, _index_axes(node), nothing)
    return make(node.op, x, _indices(pad, node, indices), updates, axis=node.attr("axis"))


def scattered(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A scatter that writes; in the padding of the indices the last update is made again."""
    source, indices, updates = node.inputs
    axis: int = node.attr("axis")
    shape = indices.shape
    if not any(isinstance(n, Size) for n in shape):
        return make(node.op, operands[0], _indices(pad, node, operands[1]), operands[2], axis=axis)
    if len(shape) != 1:  # in the order of the flattened indices
        count = prod(shape)
        flat = (*updates.shape[:axis], count, *updates.shape[axis + len(shape) :])
        rows = reshape(updates, flat)
        return pad(make(node.op, source, reshape(indices, (count,)), rows, axis=axis))
    n = shape[0]
    if n < 1:
        raise pad.refused(node, "there may be no index at all")
    last = sub(pad.number(n), constant(int64, 1))
    index = counted(constant(int64, 0), padded(shape)[0])
    places = make(Op.MINIMUM, index, broadcast(last, index.shape))
    again = _indices(pad, node, operands[1])
    rows = taken(operands[2], axis, places)
    return make(node.op, operands[0], taken(again, 0, places), rows, axis=axis)


# -- contraction -----------------------------------------------------------------------------------


def contracted(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A dot; along a padded contraction all products behind are -0.0, which changes no sum."""
    at: tuple[int, int] = node.attr("contract")
    _adds_in_chains(*node.shape[-2:])
    a, b = _products(pad, node, operands, at)
    return make(Op.DOT, a, b, contract=at)


def _adds_in_chains(m: int, n: int) -> bool:
    """Which order m x n results are added up in; an open question where lengths differ in it."""
    return any(k <= SMALL for k in sorted((m, n), key=lambda k: isinstance(k, Size)))


def _products(
    pad: Padding, node: Node, operands: tuple[Node, ...], axes: tuple[int, int]
) -> list[Node]:
    """Two operands whose products are -0.0 in the padding of an axis of each."""
    fills = (-0.0, 0.0) if node.dtype.is_float else (0, 0)
    rows = zip(operands, node.inputs, axes, fills)
    return [pad.cleared(x, source.shape, (axis,), fill) for x, source, axis, fill in rows]


def _in_batch(pad: Padding, node: Node, axes: tuple[int, ...]) -> None:
    """Refuse a node whose operands are padded along other axes than these."""
    for x in node.inputs:
        for axis, n in enumerate(x.shape):
            if isinstance(n, Size) and axis not in (k % len(x.shape) for k in axes):
                raise pad.refused(
                    node, f"axis {axis} of {x.type} is one along which elements meet", remedy=BATCH
                )


BATCH = "Put only the axis of the examples into buckets"


def convolved(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A convolution of a padded batch: each image has its own results."""
    _in_batch(pad, node, (0,))
    if isinstance(node.inputs[1].shape[0], Size):
        raise pad.refused(node, "the number of filters is padded", remedy=BATCH)
    return same(pad, node, operands)


def filtered(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """The derivative by the filter: the chain goes through the images, those behind last."""
    _in_batch(pad, node, (0,))
    x, g = operands
    fills = (0.0, -0.0) if node.dtype.is_float else (0, 0)
    images = [
        pad.cleared(y, source.shape, (0,), fill)
        for y, source, fill in zip((x, g), node.inputs, fills)
    ]
    attrs = {name: padded(value) for name, value in node.attrs}
    return make(node.op, *images, **attrs)


def windowed(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """Windows over spatial axes: each image and channel has its own results."""
    _in_batch(pad, node, (0, -1))
    return same(pad, node, operands)


RULES: dict[Op, Rule] = {
    Op.GATHER: gathered,
    Op.SCATTER_ADD: scattered_sum,
    Op.SCATTER_SET: scattered,
    Op.DOT: contracted,
    Op.CONV: convolved,
    Op.CONV_FILTER: filtered,
    **dict.fromkeys((Op.WINDOW_PICK, Op.WINDOW_PLACE, Op.WINDOW_SUM), windowed),
}
