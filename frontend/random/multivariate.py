"""Vectors and matrices: the multivariate normal distribution, and random rotations."""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.autocast import autocast
from einkorn.control import scan
from einkorn.convert import as_int, as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.creation import arange, eye
from einkorn.functions.linear_algebra import matmul
from einkorn.functions.manipulation import moveaxis, spread_to
from einkorn.functions.statistical import max as largest
from einkorn.functions.statistical import sum as total
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import ShapeError
from einkorn.ir.shape_rules import broadcast_shapes
from einkorn.random.generator import Key, drawing
from einkorn.random.parameters import (
    check_spreads,
    float_dtype,
    lanes,
    normal_of,
    own_dtype,
    shape_of,
    wide,
)
from einkorn.tensor import Tensor


@autocast(enabled=False)
def multivariate_normal(
    mean: Any, cov: Any, shape: Any = None, *, dtype: Any = None, key: Key | None = None
) -> Tensor:
    """Normal vectors with mean [..., n] and covariance [..., n, n], along a new last axis.

    The covariance is symmetric and positive semi-definite; only its lower triangle is read, and one
    that has a negative direction gives NaN. Gradients flow to both through Cholesky's factor.

    Args:
        shape: of the result without its last axis; what broadcasts from mean and cov by default.
    """
    what = "multivariate_normal"
    centre, matrix = as_tensor(mean, what), as_tensor(cov, what)
    if not centre.ndim or matrix.ndim < 2 or matrix.shape[-2:] != centre.shape[-1:] * 2:
        raise ShapeError(
            f"{what}: mean is [..., n] and cov [..., n, n], got {centre._type} and {matrix._type}"
        )
    kind = own_dtype(what, dtype, centre, matrix)
    compute = wide(kind)
    centre, matrix = ew.cast(centre, compute), ew.cast(matrix, compute)
    batches = centre.shape[:-1], matrix.shape[:-2]
    batch = _joint(what, *batches) if shape is None else shape_of(what, shape)
    n = centre.shape[-1]
    sizes = shape_of(what, (*batch, n))
    check_spreads(what, "mean", centre, sizes)
    check_spreads(what, "cov", matrix, (*batch, n, n))
    with drawing(what, key) as pair:
        radius, angle = lanes(pair, sizes, 2, compute)
        z = normal_of(radius, angle, compute)
    if not n:
        return ew.cast(spread_to(centre, sizes), kind)
    moved = matmul(_cholesky(matrix), z.reshape(*sizes, 1)).reshape(sizes)
    return ew.cast(ew.add(moved, centre), kind)


def _joint(what: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            f"{what}: the first axes of mean and cov, {shapes[0]} and {shapes[1]}, do not broadcast"
        ) from None


def _cholesky(matrix: Tensor) -> Tensor:
    """The lower triangular L with L @ L.T = matrix, column by column.

    A column whose pivot is 0 up to rounding is 0: then the distribution is flat in its direction.
    """
    n = matrix.shape[-1]
    places = arange(n)
    diagonal = total(ew.where(ew.equal(places.reshape(n, 1), places), matrix, 0.0), axis=-1)
    least = ew.multiply(largest(diagonal, axis=-1, keepdims=True), n * _spacing(matrix))

    def column(lower: Tensor, j: Tensor) -> tuple[Tensor, None]:
        is_j = ew.equal(places, j)
        row = total(ew.where(is_j.reshape(n, 1), lower, 0.0), axis=-2)
        known = matmul(lower, row.reshape(*row.shape, 1)).reshape(row.shape)
        given = total(ew.where(is_j, matrix, 0.0), axis=-1)
        rest = ew.subtract(given, known)
        pivot = total(ew.where(is_j, rest, 0.0), axis=-1, keepdims=True)
        flat = ew.less_equal(ew.abs(pivot), least)
        root = ew.sqrt(ew.where(flat, 1.0, pivot))
        entries = ew.where(ew.greater_equal(places, j), ew.divide(rest, root), 0.0)
        entries = ew.where(flat, 0.0, entries)
        entries = entries.reshape(*entries.shape, 1)
        return ew.where(is_j, entries, lower), None

    return scan(column, ew.multiply(matrix, 0.0), places)[0]


def _spacing(x: Tensor) -> float:
    return float(np.finfo(x.dtype.numpy).eps)


@autocast(enabled=False)
def orthogonal(
    n: int,
    shape: Any = (),
    m: int | None = None,
    *,
    dtype: Any = float32,
    key: Key | None = None,
) -> Tensor:
    """Uniformly distributed orthogonal matrices [..., n, n], or their first `m` columns.

    A product of Householder reflections of normal vectors (Stewart, 1980; Mezzadri, 2007). With
    m > n the rows are orthonormal instead.
    """
    what = "orthogonal"
    rows = as_int(what, n, "n is an integer")
    columns = rows if m is None else as_int(what, m, "m is an integer")
    if rows < 0 or columns < 0:
        raise ShapeError(f"{what}: n and m must not be negative, got {rows} and {columns}")
    kind, batch = float_dtype(what, dtype), shape_of(what, shape)
    size, steps = max(rows, columns), min(rows, columns)
    sizes = shape_of(what, (*batch, size, steps))[-2:]
    with drawing(what, key) as pair:
        radius, angle = lanes(pair, (*batch, *reversed(sizes)), 2, wide(kind))
        z = normal_of(radius, angle, wide(kind))
    if not size or not steps:
        tall = ew.where(True, z, z).reshape(*batch, size, steps)
        return ew.cast(tall if rows >= columns else tall.mT, kind)
    tall = _reflected(z, size, steps)
    return ew.cast(tall if rows >= columns else tall.mT, kind)


def _reflected(z: Tensor, size: int, steps: int) -> Tensor:
    """H[0] H[1] ... H[steps-1] D, its first columns, for normal vectors z [..., steps, size]."""
    places = arange(size)
    first = spread_to(eye(size, steps, dtype=z.dtype), (*z.shape[:-2], size, steps))

    def reflect(q: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        vector, k = x
        v = ew.where(ew.greater_equal(places, k), vector, 0.0)
        at_k = ew.equal(places, k)
        head = total(ew.where(at_k, v, 0.0), axis=-1, keepdims=True)
        sign = ew.where(ew.less(head, 0.0), -1.0, ew.cast(1.0, z.dtype))
        length = ew.sqrt(total(ew.multiply(v, v), axis=-1, keepdims=True))
        u = ew.where(at_k, ew.add(v, ew.multiply(sign, length)), v)
        # Column k of D: the sign that makes the diagonal of R positive.
        d = ew.where(ew.equal(arange(steps), k), ew.negative(sign), 1.0)
        q = ew.multiply(q, d.reshape(*d.shape[:-1], 1, steps))
        across = u.reshape(*u.shape, 1)
        along = matmul(across.mT, q)
        share = ew.divide(2.0, total(ew.multiply(u, u), axis=-1, keepdims=True))
        return ew.subtract(
            q, ew.multiply(ew.multiply(across, along), share.reshape(*share.shape, 1))
        ), None

    xs = (moveaxis(z, -2, 0), arange(steps))
    return scan(reflect, first, xs, reverse=True)[0]
