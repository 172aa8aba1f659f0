"""Batching of convolutions: examples become images, or channels of the groups they belong to."""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.passes.batching.rule import Rule, move_axis
from einkorn.passes.build import reshape, transpose, zeros


def _conv(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """Images of all examples with one filter, one input with all filters, or groups of both."""
    x, w = operands
    if size == 0:
        return _nothing(node)
    attrs, groups = dict(node.attrs), node.attr("groups")
    if not batched[1]:
        flat = make(Op.CONV, _joined(x), w, **attrs)
        return reshape(flat, (size, *node.shape))
    if not batched[0]:
        found = make(Op.CONV, x, _to_group(w, 1, groups), **attrs)
        return _from_group(found, len(found.shape) - 1, groups, size)
    attrs["groups"] = size * groups
    found = make(Op.CONV, _to_channels(x), _joined(w), **attrs)
    return _from_channels(found, size)


def _conv_filter(node: Node, operands: Sequence[Node], batched: Sequence[bool], size: int) -> Node:
    """Examples as channels of the operand that has them, within each group; groups of both."""
    x, g = operands
    if size == 0:
        return _nothing(node)
    attrs, groups = dict(node.attrs), node.attr("groups")
    last = len(node.shape) - 1
    if not batched[1]:
        found = make(Op.CONV_FILTER, _to_group(x, last + 1, groups), g, **attrs)
        return _from_group(found, last, 1, size)
    if not batched[0]:
        found = make(Op.CONV_FILTER, x, _to_group(g, last + 1, groups), **attrs)
        return _from_group(found, 0, groups, size)
    attrs["groups"] = size * groups
    found = make(Op.CONV_FILTER, _to_channels(x), _to_channels(g), **attrs)
    return reshape(found, (size, *node.shape))


def _nothing(node: Node) -> Node:
    """The result for no examples."""
    return zeros(node.tensor.with_shape((0, *node.shape)))


def _joined(x: Node) -> Node:
    """[B, n, ...] -> [B n, ...]"""
    return reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))


def _to_channels(x: Node) -> Node:
    """[B, ..., c] -> [..., B c]"""
    return _to_group(x, len(x.shape) - 1, 1)


def _from_channels(x: Node, size: int) -> Node:
    """[..., B c] -> [B, ..., c]"""
    return _from_group(x, len(x.shape) - 1, 1, size)


def _to_group(x: Node, axis: int, groups: int) -> Node:
    """The axis of `groups` times c elements: [B, ..., g c, ...] -> [..., g B c, ...]"""
    size, *shape = x.shape
    each = shape[axis - 1] // groups
    split = reshape(x, (size, *shape[: axis - 1], groups, each, *shape[axis:]))
    moved = move_axis(split, 0, axis)
    return reshape(moved, (*shape[: axis - 1], groups * size * each, *shape[axis:]))


def _from_group(x: Node, axis: int, groups: int, size: int) -> Node:
    """[..., g B c, ...] -> [B, ..., g c, ...]"""
    shape = x.shape
    each = shape[axis] // (groups * size)
    split = reshape(x, (*shape[:axis], groups, size, each, *shape[axis + 1 :]))
    rank = len(split.shape)
    order = (axis + 1, *(k for k in range(rank) if k != axis + 1))
    return reshape(
        transpose(split, order), (size, *shape[:axis], groups * each, *shape[axis + 1 :])
    )


RULES: dict[Op, Rule] = {Op.CONV: _conv, Op.CONV_FILTER: _conv_filter}
