"""Elementwise functions made of others: lengths, sums of exponentials, signs, and complex parts."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from einkorn.autocast import single_precision
from einkorn.convert import as_tensor, in_dtype, meet, snapshot
from einkorn.functions.creation import zeros_like
from einkorn.functions.elementwise import (
    abs,
    add,
    bitwise_or,
    cast,
    divide,
    equal,
    greater,
    greater_equal,
    less,
    maximum,
    multiply,
    negative,
    reciprocal,
    softplus,
    sqrt,
    subtract,
    where,
)
from einkorn.host import host_op
from einkorn.ir.dtypes import bool_, float32, float64
from einkorn.ir.errors import DTypeError
from einkorn.ir.ops import Op
from einkorn.recording import apply_elementwise

if TYPE_CHECKING:
    from einkorn.tensor import Tensor


def floats(what: str, *operands: Any) -> tuple[Tensor, ...]:
    """The operands in one floating-point or complex dtype; integers and bool become float32."""
    tensors = meet(what, *operands)
    if tensors[0].dtype.is_inexact:
        return tensors
    return tuple(in_dtype(what, x, float32) for x in tensors)


def in_single(what: str, function: Callable[..., Tensor], *operands: Any) -> Tensor:
    """A function of several ops, in float32 for half types, whose result is rounded once."""
    tensors = floats(what, *operands)
    dtype = tensors[0].dtype
    if dtype.is_complex:
        raise DTypeError(f"{what}: needs real numbers, got {tensors[0]._type}")
    if dtype.itemsize > 2:
        return function(*tensors)
    return cast(function(*(cast(x, float32) for x in tensors)), dtype)


def atan(x: Any, /) -> Tensor:
    """The inverse tangent, in [-pi/2, pi/2]."""
    (tensor,) = floats("atan", x)
    if tensor.dtype.is_complex:
        return host_op("atan", tensor)
    return apply_elementwise(Op.ATAN2, *meet("atan", *floats("atan", x), 1.0))


def atan2(x1: Any, x2: Any, /) -> Tensor:
    """The angle of the point (x2, x1) in [-pi, pi], by the signs of both, zeros included.

    The gradient at (0, 0) is NaN, as PyTorch's.
    """
    return apply_elementwise(Op.ATAN2, *floats("atan2", x1, x2))


def hypot(x1: Any, x2: Any, /) -> Tensor:
    """sqrt(x1**2 + x2**2) without overflow; inf if either is infinite, even beside NaN.

    The gradient at (0, 0) is NaN, as PyTorch's.
    """
    return in_single("hypot", _hypot, x1, x2)


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    """Squares of numbers far from 1 are scaled by powers of two, which is exact."""
    edge, down, up = (2.0**500, 2.0**-600, 2.0**600)
    if x.dtype is not float64:
        edge, down, up = (2.0**60, 2.0**-65, 2.0**86)
    a, b = abs(x), abs(y)
    large = maximum(a, b)
    one = in_dtype("hypot", 1.0, x.dtype)
    scale = where(greater(large, edge), down, where(less(large, 1 / edge), up, one))
    u, v = multiply(x, scale), multiply(y, scale)
    length = divide(sqrt(add(multiply(u, u), multiply(v, v))), scale)
    return where(bitwise_or(equal(a, inf), equal(b, inf)), inf, length)


@single_precision
def logaddexp(x1: Any, x2: Any, /) -> Tensor:
    """log(exp(x1) + exp(x2)), to 2 units in the last place of the larger of |result| and 1."""
    return in_single("logaddexp", _logaddexp, x1, x2)


def _logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """large + softplus(small - large); a select, unlike maximum, keeps all derivatives at ties."""
    first = greater_equal(x, y)
    large, small = where(first, x, y), where(first, y, x)
    shift = where(equal(abs(large), inf), 0, large)
    return add(large, softplus(subtract(small, shift)))


def signbit(x: Any, /) -> Tensor:
    """Whether x is negative, -0.0 included; False for NaN, whose sign einkorn does not keep."""
    tensor = as_tensor(x, "signbit")
    if tensor.dtype is bool_:
        raise DTypeError("signbit: bool has no sign; cast with .astype('int32')")
    if not tensor.dtype.is_float:
        return less(tensor, 0)
    return less(where(equal(tensor, 0), reciprocal(tensor), tensor), 0)


def copysign(x1: Any, x2: Any, /) -> Tensor:
    """|x1| with the sign of x2, that of -0.0 included; NaN counts as positive.

    The gradient by x1 is 0 where x1 is 0, as PyTorch's, and that by x2 is 0.
    """
    x, y = floats("copysign", x1, x2)
    size = abs(x)
    return where(signbit(y), negative(size), size)


def nextafter(x1: Any, x2: Any, /) -> Tensor:
    """The next number after x1 in the direction of x2 in their dtype; the gradient of x1."""
    return apply_elementwise(Op.NEXTAFTER, *floats("nextafter", x1, x2))


def real(x: Any, /) -> Tensor:
    """The real part; of real numbers these themselves."""
    tensor = as_tensor(x, "real")
    return host_op("real", tensor) if tensor.dtype.is_complex else snapshot(tensor)


def imag(x: Any, /) -> Tensor:
    """The imaginary part; zeros for real numbers."""
    tensor = as_tensor(x, "imag")
    return host_op("imag", tensor) if tensor.dtype.is_complex else zeros_like(tensor)


def conj(x: Any, /) -> Tensor:
    """The complex conjugate; real numbers themselves."""
    tensor = as_tensor(x, "conj")
    return host_op("conj", tensor) if tensor.dtype.is_complex else snapshot(tensor)


def angle(x: Any, /) -> Tensor:
    """The angle of complex numbers in [-pi, pi]; 0 or pi for real ones."""
    (tensor,) = floats("angle", x)
    return atan2(imag(tensor), real(tensor))
