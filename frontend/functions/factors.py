"""Factors of matrices: cholesky, qr, eigenvalues, singular values; and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from einkorn.autocast import single_precision
from einkorn.convert import as_choice, as_flag, as_tensor
from einkorn.functions.elementwise import cast, greater, multiply
from einkorn.functions.floating import conj, floats
from einkorn.functions.manipulation import matrix_transpose, spread_to, to_shape
from einkorn.functions.statistical import max, sum
from einkorn.host import host_op, host_ops
from einkorn.ir.dtypes import int64
from einkorn.ir.errors import DTypeError, ShapeError

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

_EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


class EighResult(NamedTuple):
    """Eigenvalues in ascending order, and the eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class EigResult(NamedTuple):
    """Eigenvalues in no order, and the eigenvectors as columns; complex."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    """Orthonormal columns, and an upper triangle: x = Q @ R."""

    Q: Tensor
    R: Tensor


class SlogdetResult(NamedTuple):
    """The sign of a determinant, or its phase, and the logarithm of its absolute value."""

    sign: Tensor
    logabsdet: Tensor


class SVDResult(NamedTuple):
    """x = (U * S) @ Vh, the singular values in descending order."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def matrices(what: str, x: Any) -> Tensor:
    """An operand of floating-point matrices; integers become float32."""
    (tensor,) = floats(what, x)
    if tensor.ndim < 2:
        raise ShapeError(f"{what}: needs at least 2 axes, got {tensor._type}")
    if tensor.dtype.itemsize == 2:
        raise DTypeError(
            f"{what}: needs float32, float64 or a complex dtype, got {tensor._type}; cast with "
            ".astype('float32')"
        )
    return tensor


@single_precision
def cholesky(x: Any, /, *, upper: bool = False) -> Tensor:
    """The lower triangle L of positive definite matrices x = L @ L^H; only x's lower half is read.

    Args:
        upper: give U = L^H instead, with x = U^H @ U.

    Raises:
        LinAlgError: a matrix is not positive definite.
    """
    upper = as_flag("cholesky", "upper", upper)
    tensor = matrices("cholesky", x)
    found = host_op("cholesky", adjoint(tensor) if upper else tensor)
    return adjoint(found) if upper else found


def adjoint(x: Tensor) -> Tensor:
    """The matrices transposed and conjugated."""
    return conj(matrix_transpose(x)) if x.ndim > 1 else x


@single_precision
def qr(x: Any, /, *, mode: str = "reduced") -> QRResult:
    """Factors x = Q @ R, Q with orthonormal columns and R an upper triangle.

    Args:
        mode: "reduced" gives min(M, N) columns of Q, "complete" M.
    """
    mode = as_choice("qr", "mode", mode, ("reduced", "complete"))
    return QRResult(*host_ops("qr", matrices("qr", x), params=(int(mode == "complete"),)))


@single_precision
def eigh(x: Any, /) -> EighResult:
    """Eigenvalues and eigenvectors of symmetric or Hermitian matrices; x's lower half is read.

    Where eigenvalues repeat, the gradient of the vectors is infinite or NaN.
    """
    return EighResult(*host_ops("eigh", matrices("eigh", x)))


@single_precision
def eigvalsh(x: Any, /) -> Tensor:
    """The eigenvalues of symmetric or Hermitian matrices, ascending; x's lower half is read."""
    return host_op("eigvalsh", matrices("eigvalsh", x))


@single_precision
def eig(x: Any, /) -> EigResult:
    """Eigenvalues and eigenvectors of square matrices, complex also where all are real.

    Where eigenvalues repeat, the gradient of the vectors is infinite or NaN.
    """
    return EigResult(*host_ops("eig", matrices("eig", x)))


@single_precision
def eigvals(x: Any, /) -> Tensor:
    """The eigenvalues of square matrices, complex also where all are real."""
    return host_op("eigvals", matrices("eigvals", x))


@single_precision
def svd(x: Any, /, *, full_matrices: bool = True) -> SVDResult:
    """Singular values and vectors: x = (U * S) @ Vh.

    Args:
        full_matrices: whether U and Vh are square; columns of U and rows of Vh beyond min(M, N)
            have no gradient.

    Where singular values repeat or are zero, the gradient of the vectors is infinite or NaN.
    """
    full = as_flag("svd", "full_matrices", full_matrices)
    return SVDResult(*host_ops("svd", matrices("svd", x), params=(int(full),)))


@single_precision
def svdvals(x: Any, /) -> Tensor:
    """The singular values, in descending order."""
    return host_op("svdvals", matrices("svdvals", x))


def relative_limit(what: str, x: Tensor, rtol: Any) -> Tensor:
    """For each matrix how small a singular value counts as zero, relative to the largest."""
    dtype = x.dtype.real
    if rtol is None:
        m, n = x.shape[-2:]
        rtol = _EPS[dtype.name] * (m if m > n else n)
    limit = cast(as_tensor(rtol, what), dtype)
    return spread_to(limit, x.shape[:-2])


@single_precision
def matrix_rank(x: Any, /, *, rtol: Any = None) -> Tensor:
    """The number of singular values above `rtol` times the largest one.

    Args:
        rtol: a number, or one for each matrix; max(M, N) times the dtype's epsilon by default.
    """
    tensor = matrices("matrix_rank", x)
    values = svdvals(tensor)
    limit = relative_limit("matrix_rank", tensor, rtol)
    if not values.shape[-1]:
        return cast(multiply(limit, 0.0), int64)
    limit = multiply(max(values, axis=-1), limit)
    counted = greater(values, to_shape(limit, (*limit.shape, 1)))
    return sum(cast(counted, int64), axis=-1)


@single_precision
def pinv(x: Any, /, *, rtol: Any = None) -> Tensor:
    """The pseudo-inverse (Moore-Penrose): singular values that count as zero stay zero.

    Args:
        rtol: as of `matrix_rank`; it has no gradient.
    """
    tensor = matrices("pinv", x)
    return host_op("pinv", tensor, relative_limit("pinv", tensor, rtol))
