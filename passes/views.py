"""Views: how a node that moves data can be read out of another node's buffer, by strides alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from einkorn.ir.node import Node
from einkorn.ir.ops import OPS, Op

Ints = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """Element (i, j, ...) of a node is element offset + i*strides[0] + j*strides[1] + ... of base.

    `base` is a node whose elements are stored densely, in row-major order.
    """

    base: Node
    offset: int
    shape: Ints
    strides: Ints

    @property
    def is_dense(self) -> bool:
        """Whether the elements are adjacent, in row-major order."""
        return all(
            n == 1 or have == want
            for n, have, want in zip(self.shape, self.strides, dense_strides(self.shape))
        )

    @property
    def size(self) -> int:
        total = 1
        for n in self.shape:
            total *= n
        return total


def dense_strides(shape: Sequence[int]) -> Ints:
    """The strides of a row-major array."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def whole(base: Node) -> View:
    """The view of a stored node as it is."""
    return View(base, 0, base.shape, dense_strides(base.shape))


def through(node: Node, view: View) -> View | None:
    """The view of `node`, a movement op, given that of its operand; None when a copy is needed."""
    if node.op in (Op.ALIAS, Op.STOP_GRADIENT):
        return view
    if node.op is Op.BROADCAST:
        return _broadcast(view, node.attr("shape"))
    if node.op is Op.TRANSPOSE:
        axes: Ints = node.attr("axes")
        strides = tuple(view.strides[axis] for axis in axes)
        return View(view.base, view.offset, node.shape, strides)
    if node.op is Op.SLICE:
        return _slice(view, node)
    if node.op is Op.FLIP:
        return _flip(view, node.attr("axes"))
    assert node.op is Op.RESHAPE, node.op
    strides = reshaped_strides(view.shape, view.strides, node.shape)
    return None if strides is None else View(view.base, view.offset, node.shape, strides)


def _broadcast(view: View, shape: Ints) -> View:
    lead = len(shape) - len(view.shape)
    kept = zip(view.shape, view.strides, shape[lead:])
    strides = (*[0] * lead, *(0 if n == 1 and m != 1 else stride for n, stride, m in kept))
    return View(view.base, view.offset, shape, strides)


def _slice(view: View, node: Node) -> View:
    starts, steps = node.attr("starts"), node.attr("steps")
    offset = view.offset + sum(a * stride for a, stride in zip(starts, view.strides))
    strides = tuple(step * stride for step, stride in zip(steps, view.strides))
    return View(view.base, offset, node.shape, strides)


def _flip(view: View, axes: Ints) -> View:
    offset, strides = view.offset, list(view.strides)
    for axis in axes:
        offset += max(view.shape[axis] - 1, 0) * strides[axis]
        strides[axis] = -strides[axis]
    return View(view.base, offset, view.shape, tuple(strides))


def merge_axes(extents: Sequence[int], rows: Sequence[Sequence[int]]) -> tuple[Ints, list[Ints]]:
    """Drop axes of one element and join neighbours that every row of strides crosses evenly.

    Args:
        extents: the size of each axis.
        rows: for each access its stride along each axis.

    Returns:
        The remaining extents (at least one axis) and strides.
    """
    kept: list[int] = []
    columns: list[list[int]] = []
    for axis, n in enumerate(extents):
        if n == 1:
            continue
        column = [row[axis] for row in rows]
        if kept and all(a == b * n for a, b in zip(columns[-1], column)):
            kept[-1] *= n
            columns[-1] = column
        else:
            kept.append(n)
            columns.append(column)
    if not kept:
        return (1,), [(1,) for _ in rows]
    return tuple(kept), [tuple(column[k] for column in columns) for k in range(len(rows))]


def reshaped_strides(shape: Ints, strides: Ints, target: Ints) -> Ints | None:
    """The strides that show the same elements in another shape; None when there are none."""
    if 0 in shape:
        return dense_strides(target)
    extents, (joined,) = merge_axes(shape, [strides])
    result: list[int] = []
    groups = list(zip(extents, joined))
    size, stride = groups.pop() if groups else (1, 1)
    for n in reversed(target):
        if n == 1:
            result.append(1)
            continue
        if size == 1 and groups:
            size, stride = groups.pop()
        if size % n:
            return None
        result.append(stride)
        size, stride = size // n, stride * n
    return tuple(reversed(result))


@dataclass(frozen=True, slots=True)
class Reach:
    """What a node shows through movement ops, by flat index.

    Attributes:
        base: the node below the movement ops.
        repeat: element i of the node is element i // repeat of `base`; 0 when it is not so simple.
    """

    base: Node
    repeat: int


def reach(node: Node) -> Reach:
    """The base of a node, and how the movement ops in between repeat its elements."""
    repeat = 1
    while OPS[node.op].view:
        if node.op is Op.BROADCAST:
            repeat *= _repeats(node.inputs[0].shape, node.shape) if repeat == 1 else 0
        elif node.op not in (Op.RESHAPE, Op.ALIAS, Op.STOP_GRADIENT):
            repeat = 0
        node = node.inputs[0]
    return Reach(node, repeat)


def _repeats(source: Ints, target: Ints) -> int:
    """How often a broadcast repeats each element next to itself; 0 for any other broadcast."""
    padded = (1,) * (len(target) - len(source)) + source
    first = next((k for k, (n, m) in enumerate(zip(padded, target)) if n != m), len(target))
    if any(n != 1 for n in padded[first:]):
        return 0
    repeat = 1
    for n in target[first:]:
        repeat *= n
    return repeat


def scalar_constant(node: Node) -> Node | None:
    """The constant that fills `node`, seen through movement ops that repeat it."""
    while node.op in (Op.BROADCAST, Op.RESHAPE, Op.TRANSPOSE, Op.FLIP, Op.ALIAS, Op.STOP_GRADIENT):
        node = node.inputs[0]
    return node if node.op is Op.CONST else None
