"""Short names for building nodes: what gradient rules and rewrites are written with.

Every function runs the shape rule of its op. Those that would build an identity (a broadcast to the
same shape, a sum over no axes) give back their operand.
"""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.ir.node import Node, constant, make
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType, same_shape


def filled(type: TensorType, value: float) -> Node:
    """`value` at every element of a tensor of that type."""
    return broadcast(constant(type.dtype, value), type.shape)


def zeros(type: TensorType) -> Node:
    return filled(type, 0)


def add(a: Node, b: Node) -> Node:
    return make(Op.ADD, a, b)


def sub(a: Node, b: Node) -> Node:
    return make(Op.SUB, a, b)


def mul(a: Node, b: Node) -> Node:
    return make(Op.MUL, a, b)


def div(a: Node, b: Node) -> Node:
    return make(Op.DIV, a, b)


def neg(x: Node) -> Node:
    return make(Op.NEG, x)


def plus(x: Node, value: float) -> Node:
    """x + value, the number broadcast to x."""
    return add(x, filled(x.tensor, value))


def times(x: Node, value: float) -> Node:
    """x * value, the number broadcast to x."""
    return mul(x, filled(x.tensor, value))


def one_minus(x: Node) -> Node:
    return sub(filled(x.tensor, 1), x)


def select(condition: Node, yes: Node, no: Node) -> Node:
    return make(Op.SELECT, condition, yes, no)


def keep_where(condition: Node, x: Node) -> Node:
    """x where the condition holds, else 0."""
    return select(condition, x, zeros(x.tensor))


def zero_where(condition: Node, x: Node) -> Node:
    """0 where the condition holds, else x."""
    return select(condition, zeros(x.tensor), x)


def reshape(x: Node, shape: tuple[int, ...]) -> Node:
    return x if same_shape(x.shape, shape) else make(Op.RESHAPE, x, shape=shape)


def broadcast(x: Node, shape: tuple[int, ...]) -> Node:
    return x if same_shape(x.shape, shape) else make(Op.BROADCAST, x, shape=shape)


def transpose(x: Node, axes: tuple[int, ...]) -> Node:
    return x if axes == tuple(range(len(axes))) else make(Op.TRANSPOSE, x, axes=axes)


def sum_over(x: Node, axes: tuple[int, ...]) -> Node:
    return make(Op.SUM, x, axes=axes) if axes else x


def spread(x: Node, shape: tuple[int, ...], axes: Sequence[int]) -> Node:
    """The reverse of a reduction of `shape` over `axes`: x repeated along them."""
    first = next((k for k in range(len(shape)) if k not in axes), len(shape))
    kept = tuple(1 if k in axes else n for k, n in enumerate(shape) if k >= first)
    return broadcast(reshape(x, kept), shape)


def slice_axis(x: Node, axis: int, start: int, stop: int, step: int = 1) -> Node:
    """x[..., start:stop:step, ...] along one axis."""
    rank = len(x.shape)
    starts = tuple(start if k == axis else 0 for k in range(rank))
    stops = tuple(stop if k == axis else n for k, n in enumerate(x.shape))
    steps = tuple(step if k == axis else 1 for k in range(rank))
    return make(Op.SLICE, x, starts=starts, stops=stops, steps=steps)
