"""Linear equations, determinants, powers and exponentials of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einkorn.autocast import single_precision
from einkorn.convert import as_flag, as_int, as_tensor, normal_axis
from einkorn.functions.creation import eye, tril, triu
from einkorn.functions.elementwise import add, multiply, subtract
from einkorn.functions.factors import SlogdetResult, matrices, pinv
from einkorn.functions.floating import floats, in_single
from einkorn.functions.linear_algebra import matmul, numbers
from einkorn.functions.manipulation import common_shape, concat, cut, spread_to, to_shape
from einkorn.functions.statistical import sum
from einkorn.host import host_op, host_ops
from einkorn.ir.errors import ShapeError
from einkorn.ir.shape_rules import broadcast_shapes

if TYPE_CHECKING:
    from einkorn.tensor import Tensor


@single_precision
def inv(x: Any, /) -> Tensor:
    """The inverse of square matrices.

    Raises:
        LinAlgError: a matrix is singular.
    """
    return host_op("inv", matrices("inv", x))


@single_precision
def det(x: Any, /) -> Tensor:
    """The determinant of square matrices; its gradient needs matrices that are not singular."""
    return host_op("det", matrices("det", x))


@single_precision
def slogdet(x: Any, /) -> SlogdetResult:
    """The sign and the logarithm of the absolute value of the determinant: 0 and -inf if singular.

    Its gradient needs matrices that are not singular.
    """
    return SlogdetResult(*host_ops("slogdet", matrices("slogdet", x)))


@single_precision
def solve(x1: Any, x2: Any, /) -> Tensor:
    """The solution of x1 @ y = x2; the axes before the last two broadcast.

    Args:
        x1: square matrices.
        x2: a vector, if it has one axis, else matrices.

    Raises:
        LinAlgError: a matrix is singular.
    """
    a, b = floats("solve", x1, x2)
    return _solved("solve", a, b)


def _solved(what: str, a: Tensor, b: Tensor) -> Tensor:
    right = to_shape(b, (b.size, 1)) if b.ndim == 1 else b
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ShapeError(f"{what}: needs square matrices, got {a._type}")
    if right.ndim < 2 or right.shape[-2] != a.shape[-1]:
        raise ShapeError(
            f"{what}: {a._type} has {a.shape[-1]} rows, and so must {b._type} have: one for each "
            "equation"
        )
    batch = _batch(what, a, right)
    left = spread_to(a, (*batch, *a.shape[-2:]))
    right = spread_to(right, (*batch, *right.shape[-2:]))
    found = host_op("solve", left, right)
    return to_shape(found, found.shape[:-1]) if b.ndim == 1 else found


def _batch(what: str, a: Tensor, b: Tensor) -> tuple[int, ...]:
    """The common shape of the axes before the last two."""
    try:
        return broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"{what}: the axes before the last two of {a._type} and {b._type} do not broadcast"
        ) from None


@single_precision
def solve_triangular(
    a: Any, b: Any, /, *, lower: bool = False, unit_diagonal: bool = False
) -> Tensor:
    """The solution of a @ y = b for triangular `a`, whose other half is not looked at.

    Computed as `solve`, so it costs as much.

    Args:
        lower: whether `a` is a lower triangle.
        unit_diagonal: take the diagonal of `a` for ones.
    """
    what = "solve_triangular"
    lower = as_flag(what, "lower", lower)
    x, y = floats(what, a, b)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{what}: needs square matrices, got {x._type}")
    inner = -1 if as_flag(what, "unit_diagonal", unit_diagonal) else 0
    half = tril(x, k=inner) if lower else triu(x, k=-inner)
    if inner:
        half = add(half, eye(x.shape[-1], dtype=x.dtype))
    return _solved(what, half, y)


@single_precision
def lstsq(a: Any, b: Any, /, *, rtol: Any = None) -> Tensor:
    """The y with the least norm among those for which the norm of a @ y - b is least.

    Args:
        b: a vector, if it has one axis, else matrices.
        rtol: as of `pinv`.
    """
    x, y = floats("lstsq", a, b)
    return matmul(pinv(x, rtol=rtol), y)


@single_precision
def matrix_power(x: Any, n: int, /) -> Tensor:
    """The product of n times the same matrix; of its inverse for negative n, the identity for 0."""
    tensor = matrices("matrix_power", x)
    n = as_int("matrix_power", n, "the exponent is an integer")
    if tensor.ndim < 2 or tensor.shape[-1] != tensor.shape[-2]:
        raise ShapeError(f"matrix_power: needs square matrices, got {tensor._type}")
    if n == 0:
        return spread_to(eye(tensor.shape[-1], dtype=tensor.dtype), tensor.shape)
    tensor = inv(tensor) if n < 0 else tensor
    found = tensor
    for digit in f"{abs(n):b}"[1:]:  # from the second most significant on
        found = matmul(found, found)
        if digit == "1":
            found = matmul(found, tensor)
    return found


@single_precision
def expm(x: Any, /) -> Tensor:
    """The exponential of square matrices, sum of x**k / k! (Higham, 2005), computed in float64."""
    return host_op("expm", matrices("expm", x))


def diagonal(x: Any, /, *, offset: int = 0) -> Tensor:
    """The diagonals of matrices; of the one above for a positive offset."""
    tensor = as_tensor(x, "diagonal")
    if tensor.ndim < 2:
        raise ShapeError(f"diagonal: needs at least 2 axes, got {tensor._type}")
    offset = as_int("diagonal", offset, "the offset is an integer")
    *batch, m, n = tensor.shape
    count = max(0, min(m + min(offset, 0), n - max(offset, 0)))
    if not count:
        return to_shape(cut(to_shape(tensor, (*batch, m * n)), len(batch), 0, 0), (*batch, 0))
    start = offset if offset >= 0 else -offset * n
    flat = to_shape(tensor, (*batch, m * n))
    return flat[..., start : start + (count - 1) * (n + 1) + 1 : n + 1]


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sum of a diagonal."""
    return sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def _minor(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return subtract(multiply(a, b), multiply(c, d))


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """The cross product of vectors of three elements along one axis; the others broadcast."""
    a, b = numbers("cross", x1, x2)
    shape = common_shape("cross", a, b)
    rank = min(a.ndim, b.ndim)
    if a.ndim != b.ndim and axis >= 0:
        raise ShapeError(
            f"cross: axis {axis} of {a._type} and {b._type}, which differ in rank, must be counted "
            "from the end"
        )
    axis = normal_axis("cross", axis, rank) - rank
    if a.shape[axis] != 3 or b.shape[axis] != 3:
        raise ShapeError(f"cross: axis {axis} of {a._type} and {b._type} must have 3 elements")
    place = len(shape) + axis
    a, b = spread_to(a, shape), spread_to(b, shape)
    one, two = ([cut(x, place, k, k + 1) for k in range(3)] for x in (a, b))
    places = ((1, 2), (2, 0), (0, 1))
    if a.dtype.is_float:
        parts = [in_single("cross", _minor, one[i], two[j], one[j], two[i]) for i, j in places]
    else:
        parts = [_minor(one[i], two[j], one[j], two[i]) for i, j in places]
    return concat(parts, axis=place)
