"""Elementwise functions of the array namespace: arithmetic, comparison, logic, exponentials."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from einkorn.autocast import in_single_precision, low_dtype, single_precision
from einkorn.convert import (
    as_flag,
    as_tensor,
    check_device,
    check_dtype,
    concrete,
    in_dtype,
    meet,
    shown,
    snapshot,
)
from einkorn.host import host_op
from einkorn.ir.dtypes import DType, bool_, float32
from einkorn.ir.errors import DTypeError
from einkorn.ir.ops import Op
from einkorn.recording import Value, apply, apply_elementwise, current_trace

if TYPE_CHECKING:
    from einkorn.tensor import Tensor


# Computed in float32 under autocast.
_SINGLE = frozenset(
    {
        *(Op.EXP, Op.EXPM1, Op.LOG, Op.LOG1P, Op.LOG2, Op.LOG10, Op.RSQRT, Op.SOFTPLUS),
        *(Op.TAN, Op.ASIN, Op.ACOS, Op.SINH, Op.COSH),
    }
)


def _unary(op: Op, x: Any) -> Tensor:
    return apply(op, as_tensor(x, op.name.lower()))


def _floating(op: Op, x: Any) -> Tensor:
    """Apply a function of floats; integers and bool are converted to float32 first."""
    tensor = as_tensor(x, op.name.lower())
    if op in _SINGLE and low_dtype() is not None:
        tensor = in_single_precision(tensor)
    return apply(op, tensor if tensor.dtype.is_inexact else cast(tensor, float32))


def _binary(op: Op, x: Any, y: Any) -> Tensor:
    return apply_elementwise(op, *meet(op.name.lower(), x, y))


def _numbers(op: Op, x: Any, y: Any) -> Tensor:
    """Arithmetic; bool has none."""
    a, b = meet(op.name.lower(), x, y)
    if a.dtype is bool_:
        raise DTypeError(
            f"{op.name.lower()}: bool has no arithmetic; use &, |, ^ or cast with .astype('int32')"
        )
    return apply_elementwise(op, a, b)


def cast(x: Any, dtype: DType) -> Tensor:
    """`x` in a dtype; a leaf of that dtype is given back as it is."""
    return in_dtype("astype", as_tensor(x, "astype"), dtype)


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """Convert to `dtype`. Float to integer rounds toward zero, saturates, and gives 0 for NaN.

    Args:
        copy: of no effect, since tensors are immutable.
    """
    as_flag("astype", "copy", copy)
    check_device("astype", device)
    return snapshot(cast(x, check_dtype(dtype)))


def stop_gradient(x: Any, /) -> Tensor:
    """x with no gradient flowing back through it."""
    return apply(Op.STOP_GRADIENT, as_tensor(x, "stop_gradient"))


# -- arithmetic ------------------------------------------------------------------------------------


def add(x1: Any, x2: Any, /) -> Tensor:
    """x1 + x2."""
    return _numbers(Op.ADD, x1, x2)


def subtract(x1: Any, x2: Any, /) -> Tensor:
    """x1 - x2."""
    return _numbers(Op.SUB, x1, x2)


def multiply(x1: Any, x2: Any, /) -> Tensor:
    """x1 * x2."""
    return _numbers(Op.MUL, x1, x2)


def divide(x1: Any, x2: Any, /) -> Tensor:
    """x1 / x2, correctly rounded; integers are converted to float32 first."""
    a, b = meet("divide", x1, x2)
    if not a.dtype.is_inexact:
        a, b = in_dtype("divide", a, float32), in_dtype("divide", b, float32)
    return apply_elementwise(Op.DIV, a, b)


def floor_divide(x1: Any, x2: Any, /) -> Tensor:
    """floor(x1 / x2); 0 where an integer divisor is 0."""
    return _numbers(Op.FLOOR_DIV, x1, x2)


def remainder(x1: Any, x2: Any, /) -> Tensor:
    """The remainder of x1 / x2 with the divisor's sign; 0 where an integer divisor is 0."""
    return _numbers(Op.REMAINDER, x1, x2)


@single_precision
def pow(x1: Any, x2: Any, /) -> Tensor:
    """x1 ** x2. A Python int as exponent multiplies; any other exponent is the power function.

    Integers multiply and wrap around. A negative exponent of one is refused where it is known;
    where only a compiled step knows it, the result is 1 / x1 ** -x2 without its fraction.
    """
    if isinstance(x2, Value) and x2._weak and not x2._type.dtype.is_float:
        x2 = concrete(x2, "an integer power")
    if type(x2) is int:
        if x2.bit_length() > 63:
            raise DTypeError(f"pow: the exponent {shown(x2)} does not fit int64")
        return apply(Op.INTEGER_POW, as_tensor(x1, "pow"), exponent=x2)
    a, b = meet("pow", x1, x2)
    if a.dtype is bool_:
        raise DTypeError("pow: bool has no arithmetic; cast with .astype('int32')")
    return _whole_power(a, b) if a.dtype.is_integer else apply_elementwise(Op.POW, a, b)


def _whole_power(x: Tensor, n: Tensor) -> Tensor:
    """x ** n by squaring, from the lowest bit of n on."""
    bits = n.dtype.bits
    known = n._array if current_trace.get() is None else None
    if known is not None:
        if known.size and int(known.min()) < 0:
            raise DTypeError(
                "pow: an integer to a negative power is not an integer; cast the base with "
                ".astype('float32')"
            )
        bits = int(known.max()).bit_length() if known.size else 0
    elif n.dtype.kind == "i":
        bits -= 1
    square, power = x, where(equal(bitwise_and(n, 1), 0), 1, x)
    for bit in range(1, bits):
        square = multiply(square, square)
        power = where(equal(bitwise_and(n, 1 << bit), 0), power, multiply(power, square))
    if known is not None or n.dtype.kind == "u":
        return power
    # Only 1 and -1 have whole numbers as negative powers; those of n are its lowest bit's.
    whole = equal(multiply(x, x), 1)
    even = where(equal(bitwise_and(n, 1), 0), multiply(x, x), x)
    return where(less(n, 0), where(bitwise_and(whole, less_equal(abs(x), 1)), even, 0), power)


def maximum(x1: Any, x2: Any, /) -> Tensor:
    """The larger of each pair; NaN if either is NaN, and 0.0 counts above -0.0."""
    return _binary(Op.MAXIMUM, x1, x2)


def minimum(x1: Any, x2: Any, /) -> Tensor:
    """The smaller of each pair; NaN if either is NaN, and -0.0 counts below 0.0."""
    return _binary(Op.MINIMUM, x1, x2)


def negative(x: Any, /) -> Tensor:
    """-x."""
    return _unary(Op.NEG, x)


def positive(x: Any, /) -> Tensor:
    """x itself."""
    return snapshot(as_tensor(x, "positive"))


def abs(x: Any, /) -> Tensor:
    """The absolute value; of complex numbers a real one."""
    return _unary(Op.ABS, x)


def sign(x: Any, /) -> Tensor:
    """-1, 0 or 1 by the sign; NaN stays NaN. Of a complex number x / |x|, and 0 for 0."""
    return _unary(Op.SIGN, x)


def square(x: Any, /) -> Tensor:
    """x * x."""
    tensor = as_tensor(x, "square")
    return multiply(tensor, tensor)


@single_precision
def reciprocal(x: Any, /) -> Tensor:
    """1 / x."""
    return divide(1, as_tensor(x, "reciprocal"))


def clip(x: Any, /, min: Any = None, max: Any = None) -> Tensor:
    """x limited to [min, max]; a bound may be None. At a bound the gradient is that of x."""
    tensor = as_tensor(x, "clip")
    if min is not None:
        tensor = where(greater_equal(tensor, min), tensor, maximum(tensor, min))
    if max is not None:
        tensor = where(less_equal(tensor, max), tensor, minimum(tensor, max))
    return snapshot(tensor)


# -- roots, exponentials, trigonometry -------------------------------------------------------------


def sqrt(x: Any, /) -> Tensor:
    """The square root, correctly rounded."""
    return _floating(Op.SQRT, x)


def rsqrt(x: Any, /) -> Tensor:
    """1 / sqrt(x)."""
    return _floating(Op.RSQRT, x)


def exp(x: Any, /) -> Tensor:
    """e ** x."""
    return _floating(Op.EXP, x)


def expm1(x: Any, /) -> Tensor:
    """e ** x - 1, accurate near 0."""
    return _floating(Op.EXPM1, x)


def log(x: Any, /) -> Tensor:
    """The natural logarithm."""
    return _floating(Op.LOG, x)


def log1p(x: Any, /) -> Tensor:
    """log(1 + x), accurate near 0."""
    return _floating(Op.LOG1P, x)


def log2(x: Any, /) -> Tensor:
    """The logarithm to base 2."""
    return _floating(Op.LOG2, x)


def log10(x: Any, /) -> Tensor:
    """The logarithm to base 10."""
    return _floating(Op.LOG10, x)


def sin(x: Any, /) -> Tensor:
    """The sine of x in radians."""
    return _floating(Op.SIN, x)


def cos(x: Any, /) -> Tensor:
    """The cosine of x in radians."""
    return _floating(Op.COS, x)


def tan(x: Any, /) -> Tensor:
    """The tangent of x in radians."""
    return _floating(Op.TAN, x)


def asin(x: Any, /) -> Tensor:
    """The inverse sine, in [-pi/2, pi/2]; NaN outside of [-1, 1]."""
    return _floating(Op.ASIN, x)


def acos(x: Any, /) -> Tensor:
    """The inverse cosine, in [0, pi]; NaN outside of [-1, 1]."""
    return _floating(Op.ACOS, x)


def sinh(x: Any, /) -> Tensor:
    """The hyperbolic sine, (e**x - e**-x) / 2."""
    return _floating(Op.SINH, x)


def cosh(x: Any, /) -> Tensor:
    """The hyperbolic cosine, (e**x + e**-x) / 2."""
    return _floating(Op.COSH, x)


def tanh(x: Any, /) -> Tensor:
    """The hyperbolic tangent."""
    return _floating(Op.TANH, x)


def asinh(x: Any, /) -> Tensor:
    """The inverse hyperbolic sine, log(x + sqrt(x**2 + 1))."""
    return _floating(Op.ASINH, x)


def acosh(x: Any, /) -> Tensor:
    """The inverse hyperbolic cosine, log(x + sqrt(x**2 - 1)); NaN for x < 1."""
    return _floating(Op.ACOSH, x)


def atanh(x: Any, /) -> Tensor:
    """The inverse hyperbolic tangent, log((1 + x) / (1 - x)) / 2; NaN outside of [-1, 1]."""
    return _floating(Op.ATANH, x)


def erf(x: Any, /) -> Tensor:
    """The error function."""
    return _floating(Op.ERF, x)


# -- rounding and tests ----------------------------------------------------------------------------


def _round(op: Op, x: Any) -> Tensor:
    tensor = as_tensor(x, op.name.lower())
    return apply(op, tensor) if tensor.dtype.is_inexact else snapshot(tensor)


def floor(x: Any, /) -> Tensor:
    """The largest whole number not above x."""
    return _round(Op.FLOOR, x)


def ceil(x: Any, /) -> Tensor:
    """The smallest whole number not below x."""
    return _round(Op.CEIL, x)


def round(x: Any, /) -> Tensor:
    """The nearest whole number; halves go to the even one."""
    return _round(Op.ROUND, x)


def trunc(x: Any, /) -> Tensor:
    """x without its fraction."""
    return _round(Op.TRUNC, x)


def parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """The real and the imaginary part of complex numbers."""
    return host_op("real", x), host_op("imag", x)


def isfinite(x: Any, /) -> Tensor:
    """Whether x is neither infinite nor NaN."""
    return _unary(Op.ISFINITE, x)


def isnan(x: Any, /) -> Tensor:
    """Whether x is NaN."""
    tensor = as_tensor(x, "isnan")
    return not_equal(tensor, tensor)


def isinf(x: Any, /) -> Tensor:
    """Whether x is infinite."""
    tensor = as_tensor(x, "isinf")
    if tensor.dtype.is_complex:
        return bitwise_or(*(equal(abs(part), inf) for part in parts(tensor)))
    return bitwise_and(bitwise_invert(isfinite(tensor)), bitwise_invert(isnan(tensor)))


# -- comparison and logic --------------------------------------------------------------------------


def equal(x1: Any, x2: Any, /) -> Tensor:
    """x1 == x2."""
    return _binary(Op.EQ, x1, x2)


def not_equal(x1: Any, x2: Any, /) -> Tensor:
    """x1 != x2."""
    return _binary(Op.NE, x1, x2)


def less(x1: Any, x2: Any, /) -> Tensor:
    """x1 < x2."""
    return _binary(Op.LT, x1, x2)


def less_equal(x1: Any, x2: Any, /) -> Tensor:
    """x1 <= x2."""
    return _binary(Op.LE, x1, x2)


def greater(x1: Any, x2: Any, /) -> Tensor:
    """x1 > x2."""
    return _binary(Op.GT, x1, x2)


def greater_equal(x1: Any, x2: Any, /) -> Tensor:
    """x1 >= x2."""
    return _binary(Op.GE, x1, x2)


def bitwise_and(x1: Any, x2: Any, /) -> Tensor:
    """x1 & x2."""
    return _binary(Op.AND, x1, x2)


def bitwise_or(x1: Any, x2: Any, /) -> Tensor:
    """x1 | x2."""
    return _binary(Op.OR, x1, x2)


def bitwise_xor(x1: Any, x2: Any, /) -> Tensor:
    """x1 ^ x2."""
    return _binary(Op.XOR, x1, x2)


def bitwise_invert(x: Any, /) -> Tensor:
    """~x."""
    return _unary(Op.NOT, x)


def bitwise_left_shift(x1: Any, x2: Any, /) -> Tensor:
    """x1 << x2; 0 for counts outside the width."""
    return _binary(Op.SHIFT_LEFT, x1, x2)


def bitwise_right_shift(x1: Any, x2: Any, /) -> Tensor:
    """x1 >> x2, keeping the sign."""
    return _binary(Op.SHIFT_RIGHT, x1, x2)


def _as_bool(x: Any) -> Tensor:
    return cast(x, bool_)


def logical_and(x1: Any, x2: Any, /) -> Tensor:
    """Whether both are not zero."""
    return bitwise_and(_as_bool(x1), _as_bool(x2))


def logical_or(x1: Any, x2: Any, /) -> Tensor:
    """Whether one is not zero."""
    return bitwise_or(_as_bool(x1), _as_bool(x2))


def logical_xor(x1: Any, x2: Any, /) -> Tensor:
    """Whether exactly one is not zero."""
    return bitwise_xor(_as_bool(x1), _as_bool(x2))


def logical_not(x: Any, /) -> Tensor:
    """Whether x is zero."""
    return bitwise_invert(_as_bool(x))


def where(condition: Any, x1: Any, x2: Any, /) -> Tensor:
    """x1 where the condition holds, else x2; all three broadcast."""
    return apply_elementwise(Op.SELECT, _as_bool(condition), *meet("where", x1, x2))


# -- activations -----------------------------------------------------------------------------------


def relu(x: Any, /) -> Tensor:
    """0 where x <= 0, else x; NaN stays, and the gradient at 0 is 0."""
    tensor = as_tensor(x, "relu")
    return where(less_equal(tensor, 0), 0, tensor)


def sigmoid(x: Any, /) -> Tensor:
    """1 / (1 + exp(-x))."""
    return _floating(Op.SIGMOID, x)


def silu(x: Any, /) -> Tensor:
    """x * sigmoid(x), also called swish (Hendrycks & Gimpel, 2016)."""
    return _floating(Op.SILU, x)


def gelu(x: Any, /) -> Tensor:
    """x * Phi(x) with the exact normal distribution (Hendrycks & Gimpel, 2016)."""
    return _floating(Op.GELU, x)


def softplus(x: Any, /) -> Tensor:
    """log(1 + exp(x))."""
    return _floating(Op.SOFTPLUS, x)
