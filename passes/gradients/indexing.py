"""Gradients of indexing and contraction."""

from __future__ import annotations

from einkorn.ir.dtypes import int64
from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.passes.build import broadcast, keep_where, reshape, zeros
from einkorn.passes.gradients.rule import Contributions, Rule


def _gather(node: Node, g: Node) -> Contributions:
    """The cotangent added at the places it was read from."""
    x, indices = node.inputs
    return make(Op.SCATTER_ADD, zeros(x.tensor), indices, g, axis=node.attr("axis")), None


def _scatter_add(node: Node, g: Node) -> Contributions:
    return g, None, make(Op.GATHER, g, node.inputs[1], axis=node.attr("axis"))


def _scatter_set(node: Node, g: Node) -> Contributions:
    """g with zeros where updates went; g at those places for the updates that were kept.

    Repeated indices apply in order, so only the last update of each place has a derivative.
    """
    _, indices, updates = node.inputs
    axis: int = node.attr("axis")
    rest = make(Op.SCATTER_SET, g, indices, zeros(updates.tensor), axis=axis)
    taken = make(Op.GATHER, g, indices, axis=axis)
    if indices.tensor.size > 1 and updates.tensor.size:
        shape = (*indices.shape, *(1,) * (len(updates.shape) - axis - len(indices.shape)))
        kept = reshape(_is_last(indices, node.shape[axis]), shape)
        taken = keep_where(broadcast(kept, updates.shape), taken)
    return rest, None, taken


def _is_last(indices: Node, size: int) -> Node:
    """Whether no later index names the same place on an axis of `size`: bool like the indices."""
    count = indices.tensor.size
    flat = reshape(indices, (count,))
    turn = make(Op.IOTA, size=count, dtype=int64)
    writer = make(Op.SCATTER_SET, zeros(TensorType(int64, (size,))), flat, turn, axis=0)
    last = make(Op.EQ, make(Op.GATHER, writer, flat, axis=0), turn)
    return reshape(last, indices.shape)


def _dot(node: Node, g: Node) -> Contributions:
    """Each operand's cotangent, in its layout, is a dot of g [.., M, N] and the other operand."""
    a, b = node.inputs
    at_a, at_b = node.attr("contract")
    row, column = len(a.shape) - 2, len(a.shape) - 1
    free_a, free_b = row + column - at_a, row + column - at_b
    if at_a == column:
        to_a = make(Op.DOT, g, b, contract=(column, free_b))
    else:
        to_a = make(Op.DOT, b, g, contract=(free_b, column))
    if at_b == row:
        to_b = make(Op.DOT, a, g, contract=(free_a, row))
    else:
        to_b = make(Op.DOT, g, a, contract=(row, free_a))
    return to_a, to_b


RULES: dict[Op, Rule] = {
    Op.GATHER: _gather,
    Op.SCATTER_ADD: _scatter_add,
    Op.SCATTER_SET: _scatter_set,
    Op.DOT: _dot,
}
