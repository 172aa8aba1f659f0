"""What a batching rule is, and what rules are written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from einkorn.ir.node import Node
from einkorn.passes.build import broadcast, reshape, transpose

Rule = Callable[[Node, Sequence[Node], Sequence[bool], int], Node]
"""(node of one example, operands, which of them have the batch axis, its size) -> the whole batch.

The batch axis is the first of an operand that has it, and of the result. At least one has it.
"""


def in_front(x: Node, size: int) -> Node:
    """A value that all examples share, repeated for each of them."""
    return broadcast(x, (size, *x.shape))


def everywhere(operands: Sequence[Node], batched: Sequence[bool], size: int) -> list[Node]:
    """The operands, all of them with the batch axis."""
    return [x if known else in_front(x, size) for x, known in zip(operands, batched)]


def move_axis(x: Node, source: int, target: int) -> Node:
    """The axis `source` moved to the place `target`, the others in their order."""
    order = [k for k in range(len(x.shape)) if k != source]
    order.insert(target, source)
    return transpose(x, tuple(order))


def swap_last(x: Node) -> Node:
    """The last two axes exchanged; a reshape where one of them has one element."""
    *rest, rows, columns = x.shape
    if 1 in (rows, columns):
        return reshape(x, (*rest, columns, rows))
    rank = len(x.shape)
    return transpose(x, (*range(rank - 2), rank - 1, rank - 2))
