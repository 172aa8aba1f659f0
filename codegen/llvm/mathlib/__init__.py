"""Vector math for float32 and float64, written inline as LLVM text.

Every function takes a writer and scalars or vectors of float or double, of any lane count, and
writes arithmetic, integer and select instructions only: no symbol is left to link. All rounding is
that of the written operations, so a lane's bits depend on its own input alone, whatever the vector
width. The measured errors are in docs/math.md.
"""

from __future__ import annotations

from collections.abc import Callable

from einkorn.codegen.llvm.mathlib import (
    error,
    exponential,
    gamma,
    hyperbolic,
    inverse_trigonometric,
    logarithm,
    power,
    trigonometric,
)
from einkorn.codegen.llvm.mathlib.float32 import FLOAT32
from einkorn.codegen.llvm.mathlib.float64 import FLOAT64
from einkorn.codegen.llvm.mathlib.formats import Format
from einkorn.codegen.llvm.mathlib.number import Number
from einkorn.codegen.llvm.text import Value, Writer, element_of

_FORMATS = {"float": FLOAT32, "double": FLOAT64}


def _format(x: Value) -> Format:
    found = _FORMATS.get(element_of(x.type))
    if found is None:
        raise TypeError(f"no math functions for {x.type}: convert to float or double first")
    return found


def _unary(function: Callable[[Format, Number], Number]) -> Callable[..., Value]:
    def write(w: Writer, x: Value) -> Value:
        return function(_format(x), Number(w, x)).value

    return write


def _binary(function: Callable[[Format, Number, Number], Number]) -> Callable[..., Value]:
    def write(w: Writer, x: Value, y: Value) -> Value:
        return function(_format(x), Number(w, x), Number(w, y)).value

    return write


def _wide(function: Callable[[Format, Number], Number]) -> Callable[..., Value]:
    """A function that computes in float64 whatever the format."""

    def write(w: Writer, x: Value) -> Value:
        if _format(x) is FLOAT64:
            return function(FLOAT64, Number(w, x)).value
        wide = Number(w, x).cast("fpext", "double")
        return function(FLOAT64, wide).cast("fptrunc", "float").value

    return write


def _erfinv(w: Writer, x: Value) -> Value:
    refine = _format(x) is FLOAT64
    return _wide(lambda f, wide: error.erfinv(f, wide, refine))(w, x)


def polygamma(w: Writer, x: Value, order: int) -> Value:
    """The derivative of digamma of that order."""
    return _wide(lambda f, wide: gamma.polygamma(f, wide, order))(w, x)


MATH: dict[str, Callable[..., Value]] = {
    "exp": _unary(exponential.exp),
    "log": _unary(logarithm.log),
    "expm1": _unary(exponential.expm1),
    "log1p": _unary(logarithm.log1p),
    "sin": _unary(trigonometric.sin),
    "cos": _unary(trigonometric.cos),
    "tan": _unary(trigonometric.tan),
    "tanh": _unary(exponential.tanh),
    "erf": _unary(error.erf),
    "sigmoid": _unary(exponential.sigmoid),
    "silu": _unary(exponential.silu),
    "gelu": _unary(error.gelu),
    "softplus": _unary(logarithm.softplus),
    "rsqrt": _unary(power.rsqrt),
    "pow": _binary(power.pow),
    "log2": _unary(power.log2),
    "log10": _unary(power.log10),
    "sinh": _unary(hyperbolic.sinh),
    "cosh": _unary(hyperbolic.cosh),
    "asinh": _unary(hyperbolic.asinh),
    "acosh": _unary(hyperbolic.acosh),
    "atanh": _unary(hyperbolic.atanh),
    "asin": _unary(inverse_trigonometric.asin),
    "acos": _unary(inverse_trigonometric.acos),
    "atan2": _binary(inverse_trigonometric.atan2),
    "erfc": _unary(error.erfc),
    "erfinv": _erfinv,
    "ndtr": _unary(error.ndtr),
    "lgamma": _wide(gamma.lgamma),
    "digamma": _wide(gamma.digamma),
}
