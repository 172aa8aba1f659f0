"""Functions that are computed on the host: NumPy's, called from inside compiled steps.

They have NumPy's numerics, the same in every mode. Each call takes some microseconds more than a
kernel, and the step gives up the interpreter lock for its whole length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einkorn.convert import as_tensor
from einkorn.ir.host import host_function
from einkorn.ir.ops import Op
from einkorn.ir.types import TupleType
from einkorn.recording import apply, apply_several

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

__all__ = ["call"]


def call(function: str, /, *operands: Any, params: tuple[int, ...] = ()) -> Any:
    """The result of a host function by its name, a tuple of tensors when it has several.

    What `Graph.to_python` prints; users call the functions of `ek.linalg` and `ek.fft`.
    """
    tensors = [as_tensor(x, function) for x in operands]
    type = host_function(function).infer(*(x._type for x in tensors), *params)
    if isinstance(type, TupleType):
        return tuple(apply_several(Op.HOST, *tensors, function=function, params=params))
    return apply(Op.HOST, *tensors, function=function, params=params)


def host_op(function: str, *operands: Tensor, params: tuple[int, ...] = ()) -> Tensor:
    """The only result of a host function."""
    return apply(Op.HOST, *operands, function=function, params=params)


def host_ops(function: str, *operands: Tensor, params: tuple[int, ...] = ()) -> list[Tensor]:
    """The results of a host function that has several."""
    return apply_several(Op.HOST, *operands, function=function, params=params)
