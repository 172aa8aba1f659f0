"""Host functions of linear algebra: NumPy's, which calls LAPACK, on stacks of matrices."""

from __future__ import annotations

from math import ceil, log2, prod
from typing import Any

import numpy as np

from einkorn.ir.errors import ShapeError
from einkorn.ir.host.rule import HostFunction, inexact, matrix, square
from einkorn.ir.types import TensorType, TupleType

Array = np.ndarray[Any, Any]


def _real(x: TensorType) -> TensorType:
    return x.with_dtype(x.dtype.real)


def _complex(x: TensorType) -> TensorType:
    return x.with_dtype(x.dtype.complex)


# -- types -----------------------------------------------------------------------------------------


def _solve(a: TensorType, b: TensorType) -> TensorType:
    inexact(a, b)
    if matrix(b).shape[:-1] != square(a).shape[:-1]:
        raise ShapeError(f"{a} and {b} must have the same rows and the same axes before them")
    return b


def _det(x: TensorType) -> TensorType:
    return square(x).with_shape(x.shape[:-2])


def _slogdet(x: TensorType) -> TupleType:
    return TupleType((_det(x), _real(_det(x))))


def _eigvalsh(x: TensorType) -> TensorType:
    return _real(square(x).with_shape(x.shape[:-1]))


def _eigh(x: TensorType) -> TupleType:
    return TupleType((_eigvalsh(x), x))


def _eigvals(x: TensorType) -> TensorType:
    return _complex(square(x).with_shape(x.shape[:-1]))


def _eig(x: TensorType) -> TupleType:
    return TupleType((_eigvals(x), _complex(x)))


def _svdvals(x: TensorType) -> TensorType:
    *batch, m, n = matrix(x).shape
    return _real(x.with_shape((*batch, min(m, n))))


def _svd(x: TensorType, full: int) -> TupleType:
    *batch, m, n = matrix(x).shape
    k = min(m, n)
    u, v = ((m, m), (n, n)) if full else ((m, k), (k, n))
    return TupleType((x.with_shape((*batch, *u)), _svdvals(x), x.with_shape((*batch, *v))))


def _qr(x: TensorType, complete: int) -> TupleType:
    *batch, m, n = matrix(x).shape
    k = m if complete else min(m, n)
    return TupleType((x.with_shape((*batch, m, k)), x.with_shape((*batch, k, n))))


def _pinv(x: TensorType, rtol: TensorType) -> TensorType:
    *batch, m, n = matrix(x).shape
    if rtol != _real(x).with_shape(tuple(batch)):
        raise ShapeError(f"rtol must be {_real(x).with_shape(tuple(batch))}, got {rtol}")
    return x.with_shape((*batch, n, m))


# -- functions -------------------------------------------------------------------------------------


def _run_qr(x: Array, complete: int) -> Any:
    return np.linalg.qr(x, "complete" if complete else "reduced")


def _run_svd(x: Array, full: int) -> Any:
    return np.linalg.svd(x, full_matrices=bool(full))


def _run_pinv(x: Array, rtol: Array) -> Array:
    """NumPy's pinv, which refuses empty matrices in a batch of its own way."""
    if x.size == 0:
        return np.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    return np.linalg.pinv(x, rtol=rtol)


def _run_eig(x: Array) -> tuple[Array, Array]:
    """NumPy gives real results when all are real; here the dtype depends on the operand alone."""
    values, vectors = np.linalg.eig(x)
    dtype = np.result_type(x.dtype, np.complex64)
    return values.astype(dtype), vectors.astype(dtype)


def _run_eigvals(x: Array) -> Array:
    return np.linalg.eigvals(x).astype(np.result_type(x.dtype, np.complex64))


_PADE = (
    64764752532480000, 32382376266240000, 7771770303897600, 1187353796428800, 129060195264000,
    10559470521600, 670442572800, 33522128640, 1323241920, 40840800, 960960, 16380, 182, 1,
)  # fmt: skip
_THETA = 5.371920351148152  # up to this norm the approximant of order 13 is exact in float64


def _run_expm(x: Array) -> Array:
    """Scaling and squaring with the Pade approximant of order 13.

    N. Higham, "The scaling and squaring method for the matrix exponential revisited", 2005. Each
    matrix is scaled by its own norm. Computed in float64 whatever the dtype is.
    """
    wide = x.astype(np.result_type(x.dtype, np.float64))
    found = np.empty_like(wide)
    for index in np.ndindex(x.shape[:-2]):
        found[index] = _expm(wide[index])
    return found.astype(x.dtype)


def _expm(a: Array) -> Array:
    norm = float(np.abs(a).sum(0).max()) if a.size else 0.0
    if not np.isfinite(norm):
        return np.full_like(a, np.nan)
    squarings = max(0, ceil(log2(norm / _THETA))) if norm > 0 else 0
    a = a / 2.0**squarings
    eye = np.eye(len(a), dtype=a.dtype)
    a2 = a @ a
    a4 = a2 @ a2
    a6 = a4 @ a2
    b = _PADE
    odd = (
        a6 @ (b[13] * a6 + b[11] * a4 + b[9] * a2) + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * eye
    )
    even = a6 @ (b[12] * a6 + b[10] * a4 + b[8] * a2) + b[6] * a6 + b[4] * a4 + b[2] * a2
    even = even + b[0] * eye
    odd = a @ odd
    found = np.linalg.solve(even - odd, even + odd)
    for _ in range(squarings):
        found = found @ found
    return found


# -- costs -----------------------------------------------------------------------------------------


def _cubic(factor: float) -> Any:
    """About factor * m n min(m, n) operations for each matrix."""

    def flops(x: TensorType, *_: TensorType) -> float:
        return factor * x.size * min(x.shape[-2:])

    return flops


def _solve_flops(a: TensorType, b: TensorType) -> float:
    return a.size * a.shape[-1] * 2 / 3 + 2.0 * a.shape[-1] * prod(b.shape)


FUNCTIONS: dict[str, HostFunction] = {
    "cholesky": HostFunction(square, np.linalg.cholesky, _cubic(1 / 3), refuses=True),
    "det": HostFunction(_det, np.linalg.det, _cubic(2 / 3)),
    "eig": HostFunction(_eig, _run_eig, _cubic(25), refuses=True),
    "eigh": HostFunction(_eigh, np.linalg.eigh, _cubic(9), refuses=True),
    "eigvals": HostFunction(_eigvals, _run_eigvals, _cubic(10), refuses=True),
    "eigvalsh": HostFunction(_eigvalsh, np.linalg.eigvalsh, _cubic(4 / 3), refuses=True),
    "expm": HostFunction(square, _run_expm, _cubic(30)),
    "inv": HostFunction(square, np.linalg.inv, _cubic(2), refuses=True),
    "pinv": HostFunction(_pinv, _run_pinv, _cubic(26), refuses=True),
    "qr": HostFunction(_qr, _run_qr, _cubic(4)),
    "slogdet": HostFunction(_slogdet, np.linalg.slogdet, _cubic(2 / 3)),
    "solve": HostFunction(_solve, np.linalg.solve, _solve_flops, refuses=True),
    "svd": HostFunction(_svd, _run_svd, _cubic(22), refuses=True),
    "svdvals": HostFunction(_svdvals, np.linalg.svdvals, _cubic(8), refuses=True),
}
