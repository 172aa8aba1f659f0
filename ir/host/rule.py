"""What a host function is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.types import TensorType, Type


@dataclass(frozen=True, slots=True)
class HostFunction:
    """One row of the registry.

    Attributes:
        infer: (types, parameters) -> the type of the result, or of several; raises when the
            function does not take them.
        run: (arrays, parameters) -> an array, or a tuple of arrays. Axes in front of those that
            the function is about are examples, each computed by itself.
        flops: types of the operands -> about how many floating-point operations.
        refuses: whether it raises for some values. Its first operand then is a stack of matrices,
            and for the identity it does not.
    """

    infer: Callable[..., Type]
    run: Callable[..., Any]
    flops: Callable[..., float]
    refuses: bool = False


def inexact(*types: TensorType) -> TensorType:
    """The first of operands that share one dtype, float32, float64 or complex."""
    first = types[0]
    if not first.dtype.is_inexact or first.dtype.itemsize < 4:
        raise DTypeError(
            f"needs float32, float64 or a complex dtype, got {first}; cast with .astype('float32')"
        )
    if any(type.dtype is not first.dtype for type in types):
        got = " and ".join(map(str, types))
        raise DTypeError(f"operands must have one dtype, got {got}; cast one of them")
    return first


def matrix(x: TensorType) -> TensorType:
    """A stack of matrices."""
    if inexact(x).rank < 2:
        raise ShapeError(f"needs a matrix, or a stack of them: at least 2 axes, got {x}")
    return x


def square(x: TensorType) -> TensorType:
    """A stack of square matrices."""
    if matrix(x).shape[-1] != x.shape[-2]:
        raise ShapeError(f"needs square matrices: the last two axes must be equal, got {x}")
    return x
