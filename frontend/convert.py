"""From what users pass (arrays, numbers, nested lists) to Tensors of a known dtype and shape.

Python numbers are weak: they take the dtype of the tensor they meet. Arrays keep their dtype;
Python floats and lists of them become float32, ints int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.ir.dtypes import DType, as_dtype, bool_, float32, float64, int64, promote
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.numpy_rules import cast as cast_values
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.recording import Value, apply, current_trace, result, scalar

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Array = np.ndarray[Any, Any]

_SCALARS = (bool, int, float)

MAX_RANK = 64  # NumPy's limit, and enough


def as_operand(x: object) -> bool:
    """Whether an operator of Tensor takes `x`; sequences and arrays yes, other objects no."""
    return isinstance(x, (Value, bool, int, float, np.ndarray, np.generic, list, tuple))


def check_dtype(spec: object) -> DType:
    """A dtype from what a user wrote."""
    return as_dtype(spec)


def to_array(
    x: Any, dtype: DType | None = None, what: str = "asarray", *, copy: bool = False
) -> Array:
    """A C-contiguous, aligned array of a supported dtype in native byte order.

    Args:
        copy: never share memory with `x`; otherwise the result may be `x` itself.
    """
    listed = isinstance(x, (list, tuple))
    array = _from_sequence(x, what, dtype) if listed else np.asarray(x)
    if array.dtype.kind in "OSUVMmc" and array.dtype.name != "bfloat16":
        raise DTypeError(
            f"{what}: values of dtype {array.dtype} ({type(x).__name__}) are not numbers that "
            "einkorn supports; convert them to a float, integer or bool array first"
        )
    weak = type(x) in _SCALARS
    wanted = dtype or (weak_dtype(x) if weak else as_dtype(array.dtype.newbyteorder("=")))
    if wanted.is_integer and array.dtype.kind not in "bui":
        if not np.isfinite(array).all():
            raise DTypeError(f"{what}: NaN and infinity have no value in {wanted}")
        return cast_values(array, wanted)
    if (weak or (listed and not _has_arrays(x))) and wanted.is_integer:
        _check_range(what, array, wanted)
    dense = array.flags.c_contiguous and array.flags.aligned
    if copy or array.dtype != wanted.numpy or not dense:
        with np.errstate(over="ignore"):
            array = np.array(array, dtype=wanted.numpy, order="C", copy=True)
    return array


def _check_range(what: str, array: Array, dtype: DType) -> None:
    """Python numbers must fit an integer dtype; arrays wrap around."""
    info = np.iinfo(dtype.numpy)
    for number in (int(array.min()), int(array.max())) if array.size else ():
        if not info.min <= number <= info.max:
            raise DTypeError(
                f"{what}: {number} does not fit {dtype} ({info.min} to {info.max}); use a wider "
                "dtype"
            )


def _from_sequence(x: Sequence[Any], what: str, dtype: DType | None) -> Array:
    items = [_plain(item) for item in x]
    try:
        array = np.array(items)
    except ValueError as error:
        raise ShapeError(f"{what}: nested lists must be rectangular: {error}") from None
    if dtype is None and (array.size == 0 or (array.dtype.kind == "f" and not _has_arrays(x))):
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    return array


def _plain(item: Any) -> Any:
    if isinstance(item, (list, tuple)):
        return [_plain(x) for x in item]
    return np.asarray(item) if isinstance(item, Value) else item


def _has_arrays(x: Any) -> bool:
    if isinstance(x, (list, tuple)):
        return any(_has_arrays(item) for item in x)
    return isinstance(x, (np.ndarray, np.generic, Value))


def weak_dtype(number: bool | int | float) -> DType:
    """The dtype of a Python number that meets no tensor."""
    if isinstance(number, bool):
        return bool_
    return int64 if isinstance(number, int) else float32


def is_weak(x: object) -> bool:
    """Whether `x` is a Python number, or a run-time scalar that stands for one."""
    return type(x) in _SCALARS or (isinstance(x, Value) and x._weak)


def as_tensor(x: Any, what: str) -> Tensor:
    """A Tensor for any argument; numbers get their default dtype, run-time scalars too."""
    if isinstance(x, Value):
        if x._weak and x._type.dtype is float64:
            return apply(Op.CAST, x, dtype=float32)
        return x  # type: ignore[return-value] # every Value that users hold is a Tensor
    if type(x) in _SCALARS:
        return scalar(weak_dtype(x), x)
    # A recording must not see what the caller writes into x later; a compiled step must.
    array = to_array(x, what=what, copy=current_trace.get() is None)
    return result(TensorType(as_dtype(array.dtype), array.shape), array=array)


def meet(what: str, *operands: Any) -> tuple[Tensor, ...]:
    """The operands as Tensors of one promoted dtype; Python numbers follow the tensors."""
    strong = [as_tensor(x, what) for x in operands if not is_weak(x)]
    dtype = None
    for x in strong:
        dtype = x._type.dtype if dtype is None else _promoted(what, dtype, x._type.dtype)
    for x in operands:
        if is_weak(x):
            dtype = _with_weak(what, dtype, x)
    assert dtype is not None
    return tuple(in_dtype(what, x, dtype) for x in operands)


def meet_numbers(what: str, *operands: Any) -> tuple[Tensor, ...]:
    """The operands of Python arithmetic: scalars among themselves are float64, as in Python."""
    if not all(map(is_weak, operands)) or not any(isinstance(x, Value) for x in operands):
        return meet(what, *operands)
    numbers = [concrete(x, what) if _weak_kind(x) != "f" else x for x in operands]
    dtype = float64 if any(_weak_kind(x) == "f" for x in numbers) else int64
    return tuple(in_dtype(what, x, dtype) for x in numbers)


def concrete(x: Any, what: str) -> Any:
    """The Python number behind a scalar input; the trace then holds for this number alone."""
    return x._trace.specialise(x, what) if isinstance(x, Value) and x._weak else x


def _promoted(what: str, a: DType, b: DType) -> DType:
    try:
        return promote(a, b)
    except DTypeError as error:
        raise DTypeError(f"{what}: {error}") from None


def _with_weak(what: str, dtype: DType | None, x: Any) -> DType:
    """The dtype when a Python number joins: its kind may raise the kind, never the width."""
    kind = _weak_kind(x)
    if dtype is None:
        return {"b": bool_, "i": int64, "f": float32}[kind]
    if kind == "f" and not dtype.is_float:
        return float32
    if kind == "i" and dtype is bool_:
        return int64
    return dtype


def _weak_kind(x: Any) -> str:
    if isinstance(x, Value):
        return "f" if x._type.dtype.is_float else "i"
    return "b" if isinstance(x, bool) else "i" if isinstance(x, int) else "f"


def in_dtype(what: str, x: Any, dtype: DType) -> Tensor:
    """One operand as a Tensor of `dtype`; a Python number must fit an integer dtype."""
    if type(x) in _SCALARS:
        if dtype.is_integer and not isinstance(x, bool):
            info = np.iinfo(dtype.numpy)
            if not info.min <= x <= info.max:
                raise DTypeError(
                    f"{what}: {x} does not fit {dtype} ({info.min} to {info.max}); cast the tensor "
                    "to a wider dtype"
                )
        return _scalar(dtype, x)
    tensor: Any = x if isinstance(x, Value) else as_tensor(x, what)
    if tensor._type.dtype is not dtype:
        return apply(Op.CAST, tensor, dtype=dtype)
    # A run-time scalar that was given a dtype is a number of that dtype and weak no more.
    return result(tensor._type, node=tensor._node, trace=tensor._trace) if tensor._weak else tensor


_scalars: dict[tuple[DType, type, Any], Any] = {}


def _scalar(dtype: DType, number: Any) -> Tensor:
    """A constant; those in use are kept, keyed so that 1, True, 1.0 and -0.0 stay apart."""
    key = (dtype, type(number), repr(number))
    known = _scalars.get(key)
    if known is None:
        if len(_scalars) > 4096:
            _scalars.clear()
        known = _scalars[key] = scalar(dtype, number)
    return known


def normal_axis(what: str, axis: int, rank: int) -> int:
    """A non-negative axis; ShapeError when it is out of range."""
    if isinstance(axis, (bool, float)) or not hasattr(axis, "__index__"):
        raise DTypeError(f"{what}: an axis is an integer, got {axis!r}")
    axis = axis.__index__()
    if not -rank <= axis < rank:
        raise ShapeError(f"{what}: axis {axis} is out of range for rank {rank}")
    return axis % rank if rank else axis


def normal_axes(what: str, axis: Any, rank: int) -> tuple[int, ...]:
    """Sorted non-negative axes; all of them for None."""
    if axis is None:
        return tuple(range(rank))
    listed = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(normal_axis(what, a, rank) for a in listed)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{what}: axes {listed} name an axis twice")
    return tuple(sorted(axes))


def as_shape(what: str, shape: Any) -> tuple[int, ...]:
    """A shape from an int or a sequence of ints."""
    listed = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    for n in listed:
        if isinstance(n, (bool, float)) or not hasattr(n, "__index__"):
            raise DTypeError(f"{what}: a shape is made of integers, got {n!r}")
    if len(listed) > MAX_RANK:
        raise ShapeError(f"{what}: a tensor has at most {MAX_RANK} axes, got {len(listed)}")
    return tuple(n.__index__() for n in listed)


__all__ = [
    "as_operand",
    "as_shape",
    "as_tensor",
    "check_dtype",
    "in_dtype",
    "is_weak",
    "meet",
    "meet_numbers",
    "normal_axes",
    "normal_axis",
    "to_array",
    "weak_dtype",
]
