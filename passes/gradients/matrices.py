"""Stacks of matrices: short names that the gradients of linear algebra are written with."""

from __future__ import annotations

from einkorn.ir.dtypes import int64
from einkorn.ir.node import Node, make, project
from einkorn.ir.ops import Op
from einkorn.passes.build import (
    add,
    broadcast,
    keep_where,
    neg,
    reshape,
    slice_axis,
    sum_over,
    times,
    transpose,
)


def host(function: str, *operands: Node, params: tuple[int, ...] = ()) -> Node:
    """A call of a host function."""
    return make(Op.HOST, *operands, function=function, params=params)


def host_parts(function: str, x: Node, params: tuple[int, ...] = ()) -> tuple[Node, ...]:
    """The results of a host function that has several."""
    node = host(function, x, params=params)
    return tuple(project(node, k) for k in range(len(node.type.items)))  # type: ignore[union-attr]


def conj(x: Node) -> Node:
    """The complex conjugate; x itself when it is real."""
    return host("conj", x) if x.dtype.is_complex else x


def real(x: Node) -> Node:
    """The real part; x itself when it is real."""
    return host("real", x) if x.dtype.is_complex else x


def like(x: Node, dtype_of: Node) -> Node:
    """A cotangent as that of an operand of a dtype: the real part of a complex one, or a cast."""
    if x.dtype is dtype_of.dtype:
        return x
    x = x if dtype_of.dtype.is_complex else real(x)
    return x if x.dtype is dtype_of.dtype else make(Op.CAST, x, dtype=dtype_of.dtype)


def swap(x: Node) -> Node:
    """The matrices transposed."""
    rank = len(x.shape)
    return transpose(x, (*range(rank - 2), rank - 1, rank - 2))


def adjoint(x: Node) -> Node:
    """The matrices transposed and conjugated."""
    return conj(swap(x))


def product(*factors: Node) -> Node:
    """The product of matrices, from left to right."""
    first, *rest = factors
    for factor in rest:
        rank = len(first.shape)
        first = make(Op.DOT, first, factor, contract=(rank - 1, rank - 2))
    return first


def columns(x: Node, rows: int) -> Node:
    """[..., n] -> [..., rows, n]: one number for each column."""
    *batch, n = x.shape
    return broadcast(reshape(x, (*batch, 1, n)), (*batch, rows, n))


def rows(x: Node, count: int) -> Node:
    """[..., n] -> [..., n, count]: one number for each row."""
    return broadcast(reshape(x, (*x.shape, 1)), (*x.shape, count))


def _index(x: Node) -> tuple[Node, Node]:
    """The numbers of the row and of the column of every element."""
    *_, m, n = x.shape
    down = broadcast(reshape(make(Op.IOTA, size=m, dtype=int64), (m, 1)), (m, n))
    across = broadcast(make(Op.IOTA, size=n, dtype=int64), (m, n))
    return broadcast(down, x.shape), broadcast(across, x.shape)


def where(compare: Op, x: Node) -> Node:
    """x where its row compares so with its column, else 0."""
    return keep_where(make(compare, *_index(x)), x)


def lower(x: Node) -> Node:
    """The lower triangle with the diagonal."""
    return where(Op.GE, x)


def upper(x: Node) -> Node:
    """The upper triangle with the diagonal."""
    return where(Op.LE, x)


def off_diagonal(x: Node) -> Node:
    return where(Op.NE, x)


def diagonal(x: Node) -> Node:
    """The diagonals of square matrices."""
    return sum_over(where(Op.EQ, x), (len(x.shape) - 1,))


def diagonal_matrix(x: Node) -> Node:
    """Matrices with x on the diagonal."""
    return where(Op.EQ, rows(x, x.shape[-1]))


def hermitian(x: Node) -> Node:
    """(x + x^H) / 2"""
    return times(add(x, adjoint(x)), 0.5)


def antihermitian(x: Node) -> Node:
    """x - x^H"""
    return add(x, neg(adjoint(x)))


def first_columns(x: Node, count: int) -> Node:
    return slice_axis(x, len(x.shape) - 1, 0, count)


def last_columns(x: Node, start: int) -> Node:
    return slice_axis(x, len(x.shape) - 1, start, x.shape[-1])


def first_rows(x: Node, count: int) -> Node:
    return slice_axis(x, len(x.shape) - 2, 0, count)
