"""Batching of indexing and contraction."""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.ir.dtypes import int64, uint64
from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.passes.batching.rule import Rule, in_front, move_axis, swap_last
from einkorn.passes.build import add, broadcast, filled, reshape, select, times

Shape = tuple[int, ...]


def _gather(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """Shared indices take along the moved axis; indices of each example take from one long axis."""
    x, indices = operands
    axis: int = node.attr("axis")
    if not batched[1]:
        return make(Op.GATHER, x, indices, axis=axis + 1)
    if not batched[0]:
        return move_axis(make(Op.GATHER, x, indices, axis=axis), axis, 0)
    places = _linear(indices, x.shape[axis + 1], size)
    found = make(Op.GATHER, _joined(x, axis), places, axis=0)
    return _indices_back(found, axis, len(indices.shape) - 1)


def _scatter(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """As `gather`: with indices of each example into one long axis, in the same order."""
    x, indices, updates = operands
    axis: int = node.attr("axis")
    x = x if batched[0] else in_front(x, size)
    updates = updates if batched[2] else in_front(updates, size)
    if not batched[1]:
        return make(node.op, x, indices, updates, axis=axis + 1)
    moved = _indices_front(updates, axis, len(indices.shape) - 1)
    places = _linear(indices, x.shape[axis + 1], size)
    joined = _joined(x, axis)
    changed = make(node.op, joined, places, moved, axis=0)
    split = reshape(changed, (size, x.shape[axis + 1], *joined.shape[1:]))
    return move_axis(split, 1, axis + 1)


def _joined(x: Node, axis: int) -> Node:
    """[B, pre.., n, post..] -> [B n, pre.., post..]"""
    front = move_axis(x, axis + 1, 1)
    return reshape(front, (front.shape[0] * front.shape[1], *front.shape[2:]))


def _indices_back(x: Node, axis: int, count: int) -> Node:
    """[B, idx.., pre.., post..] -> [B, pre.., idx.., post..]"""
    for _ in range(count):
        x = move_axis(x, 1, axis + count)
    return x


def _indices_front(x: Node, axis: int, count: int) -> Node:
    """[B, pre.., idx.., post..] -> [B, idx.., pre.., post..]"""
    for _ in range(axis):
        x = move_axis(x, 1, axis + count)
    return x


def _linear(indices: Node, n: int, size: int) -> Node:
    """Places on the axis of B n elements; what is out of range for its example is so there, too."""
    if indices.dtype is uint64:
        indices = make(Op.MINIMUM, indices, filled(indices.tensor, 2**63 - 1))
    at = indices if indices.dtype is int64 else make(Op.CAST, indices, dtype=int64)
    zero, length = filled(at.tensor, 0), filled(at.tensor, n)
    at = select(make(Op.LT, at, zero), add(at, length), at)
    outside = make(Op.OR, make(Op.LT, at, zero), make(Op.GE, at, length))
    starts = times(make(Op.IOTA, size=size, dtype=int64), n)
    rows = broadcast(reshape(starts, (size, *(1,) * (len(at.shape) - 1))), at.shape)
    return select(outside, filled(at.tensor, size * n), add(at, rows))


def _dot(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """One large product where the examples share an operand: their rows are rows of one matrix."""
    a, b = operands
    at_a, at_b = node.attr("contract")
    last = len(node.shape) - 1
    if all(batched):
        return make(Op.DOT, a, b, contract=(at_a + 1, at_b + 1))
    if batched[0]:
        rows = _rows(a if at_a == last else swap_last(a))
        return _unrows(make(Op.DOT, rows, b, contract=(last, at_b)), size)
    rows = _rows(b if at_b == last else swap_last(b))
    return swap_last(_unrows(make(Op.DOT, rows, a, contract=(last, at_a)), size))


def _rows(x: Node) -> Node:
    """[B, pre.., M, K] -> [pre.., B M, K]"""
    moved = move_axis(x, 0, len(x.shape) - 3)
    *rest, size, m, k = moved.shape
    return reshape(moved, (*rest, size * m, k))


def _unrows(x: Node, size: int) -> Node:
    """[pre.., B M, N] -> [B, pre.., M, N]"""
    *rest, rows, n = x.shape
    split = reshape(x, (*rest, size, rows // size if size else 0, n))
    return move_axis(split, len(rest), 0)


RULES: dict[Op, Rule] = {
    Op.GATHER: _gather,
    Op.SCATTER_ADD: _scatter,
    Op.SCATTER_SET: _scatter,
    Op.DOT: _dot,
}
