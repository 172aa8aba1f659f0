"""From what users pass (arrays, numbers, nested lists) to Tensors of a known dtype and shape.

Python numbers are weak: they take the dtype of the tensor they meet. Arrays keep their dtype;
Python floats and lists of them become float32, ints int64.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.ir.dtypes import DType, as_dtype, bool_, complex64, float32, int64, promote
from einkorn.ir.errors import DTypeError, ShapeError, TraceError
from einkorn.ir.node import constant
from einkorn.ir.numpy_rules import cast as cast_values
from einkorn.ir.ops import Op
from einkorn.ir.shape_rules import MAX_RANK
from einkorn.ir.sizes import Size
from einkorn.ir.types import TensorType
from einkorn.recording import Value, apply, current_trace, result, scalar

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Array = np.ndarray[Any, Any]

MSG_LISTED = (
    "{what}: needs one tensor, got a list or tuple with one of {type} in it, whose value {name} "
    "has only when it runs; pass one of its items, or join them with ek.stack"
)
_SCALARS = (bool, int, float, complex)


def as_operand(x: object) -> bool:
    """Whether an operator of Tensor takes `x`; sequences and arrays yes, other objects no."""
    return isinstance(x, (Value, bool, int, float, complex, np.ndarray, np.generic, list, tuple))


def check_dtype(spec: object) -> DType:
    """A dtype from what a user wrote."""
    return as_dtype(spec)


def check_device(what: str, device: object) -> None:
    """DTypeError when `device` is given and is not "cpu"."""
    if device is not None and not (isinstance(device, str) and device == "cpu"):
        raise DTypeError(f"{what}: device {device!r} is not available; there is 'cpu'")


def to_array(
    x: Any, dtype: DType | None = None, what: str = "asarray", *, copy: bool = False
) -> Array:
    """A C-contiguous, aligned array of a supported dtype in native byte order.

    Args:
        copy: never share memory with `x`; otherwise the result may be `x` itself.
    """
    if isinstance(x, Size):
        raise x.unknown(what)
    listed = isinstance(x, (list, tuple))
    array = _from_sequence(x, what, dtype) if listed else np.asarray(x)
    if array.dtype.kind in "OSUVMm" and array.dtype.name != "bfloat16":
        raise DTypeError(f"{what}: {_no_numbers(x, array)}")
    if array.dtype.kind == "c" and dtype is not None and not dtype.is_complex:
        raise DTypeError(f"{what}: complex numbers are no {dtype}; take their real part first")
    weak = type(x) in _SCALARS
    wanted = dtype or (weak_dtype(x) if weak else as_dtype(array.dtype.newbyteorder("=")))
    if wanted.is_integer and array.dtype.kind not in "bui":
        if not np.isfinite(array).all():
            raise DTypeError(
                f"{what}: NaN and infinity have no value in {wanted}; replace them first, as with "
                "np.nan_to_num"
            )
        return cast_values(array, wanted)
    if (weak or (listed and not _has_arrays(x))) and wanted.is_integer:
        _check_range(what, array, wanted)
    dense = array.flags.c_contiguous and array.flags.aligned
    if copy or array.dtype != wanted.numpy or not dense:
        with np.errstate(over="ignore"):
            array = np.array(array, dtype=wanted.numpy, order="C", copy=True)
    return array


def _no_numbers(x: Any, array: Array) -> str:
    """What is wrong with values that are no numbers, and what to pass."""
    if x is None:
        return "needs a tensor or array, got None"
    if isinstance(x, dict):
        keys = ", ".join(map(str, x)) or "no keys"
        return f"needs one tensor or array, got a dict of them ({keys}); pass one of its values"
    return (
        f"values of dtype {array.dtype} ({type(x).__name__}) are not numbers that einkorn "
        "supports; convert them to a float, integer or bool array first"
    )


def _check_range(what: str, array: Array, dtype: DType) -> None:
    """Python numbers must fit an integer dtype; arrays wrap around."""
    info = np.iinfo(dtype.numpy)
    for number in (int(array.min()), int(array.max())) if array.size else ():
        if not info.min <= number <= info.max:
            raise DTypeError(
                f"{what}: {number} does not fit {dtype} ({info.min} to {info.max}); use a wider "
                "dtype"
            )


def known_array(x: Any, what: str) -> Array:
    """An array of numbers that must be known now; a run-time scalar is specialised."""
    if isinstance(x, (list, tuple)):
        return _from_sequence(x, what, None)
    return np.asarray(concrete(x, what))


def _from_sequence(x: Sequence[Any], what: str, dtype: DType | None) -> Array:
    items = _plain(x, what)
    try:
        array = np.array(items)
    except ValueError as error:
        raise ShapeError(f"{what}: nested lists must be rectangular: {error}") from None
    except (OverflowError, TypeError) as error:
        raise DTypeError(f"{what}: the list holds values that are no numbers: {error}") from None
    if dtype is None and (array.size == 0 or (array.dtype.kind in "fc" and not _has_arrays(x))):
        with np.errstate(over="ignore"):
            array = array.astype(np.complex64 if array.dtype.kind == "c" else np.float32)
    return array


def _plain(item: Any, what: str, depth: int = 0) -> Any:
    """Nested lists of what NumPy knows; run-time scalars are specialised."""
    if isinstance(item, (list, tuple)):
        check_depth(what, depth)
        return [_plain(x, what, depth + 1) for x in item]
    if isinstance(item, Size):
        raise item.unknown(f"{what}: a list of numbers")
    if not isinstance(item, Value):
        return item
    if item._weak:
        return concrete(item, what)
    try:
        return np.asarray(item)
    except TraceError:
        trace = current_trace.get()
        name = "a step" if trace is None else trace.name
        raise TraceError(MSG_LISTED.format(what=what, type=item._type, name=name)) from None


def check_depth(what: str, depth: int) -> None:
    """ShapeError when lists are nested deeper than tensors have axes, as cyclic ones are."""
    if depth >= MAX_RANK:
        raise ShapeError(
            f"{what}: lists are nested more than {MAX_RANK} deep, or contain themselves"
        )


def _has_arrays(x: Any) -> bool:
    if isinstance(x, (list, tuple)):
        return any(_has_arrays(item) for item in x)
    return isinstance(x, (np.ndarray, np.generic)) or (isinstance(x, Value) and not x._weak)


def weak_dtype(number: bool | int | float | complex) -> DType:
    """The dtype of a Python number that meets no tensor."""
    if isinstance(number, bool):
        return bool_
    if isinstance(number, complex):
        return complex64
    return int64 if isinstance(number, int) else float32


def is_known(x: object) -> bool:
    """Whether `x` is a real Python number itself, not what stands for one when a step runs."""
    return isinstance(x, (bool, int, float)) and not isinstance(x, (Value, Size))


def is_weak(x: object) -> bool:
    """Whether `x` is a Python number, or a run-time scalar or size that stands for one."""
    return type(x) in _SCALARS or (isinstance(x, Value) and x._weak) or isinstance(x, Size)


def as_tensor(x: Any, what: str) -> Tensor:
    """A Tensor for any argument; numbers get their default dtype, run-time scalars too."""
    if isinstance(x, Value):
        if x._weak:
            return in_dtype(what, x, float32 if x._type.dtype.is_float else int64)
        return x  # type: ignore[return-value] # every Value that users hold is a Tensor
    if type(x) in _SCALARS or isinstance(x, Size):
        return in_dtype(what, x, weak_dtype(x))
    # A recording must not see what the caller writes into x later; a compiled step must.
    array = to_array(x, what=what, copy=current_trace.get() is None)
    return result(TensorType(as_dtype(array.dtype), array.shape), array=array)


def meet(what: str, *operands: Any) -> tuple[Tensor, ...]:
    """The operands as Tensors of one promoted dtype; Python numbers follow the tensors."""
    tensors = [x if is_weak(x) else as_tensor(x, what) for x in operands]
    strong = [x._type.dtype for x in tensors if not is_weak(x)]
    dtype = meet_dtype(what, strong, [x for x in tensors if is_weak(x)])
    return tuple(in_dtype(what, x, dtype) for x in tensors)


def meet_dtype(what: str, dtypes: Sequence[DType], numbers: Sequence[Any]) -> DType:
    """The dtype in which dtypes and Python numbers meet, of which there is at least one."""
    dtype = None
    for other in dtypes:
        dtype = other if dtype is None else _promoted(what, dtype, other)
    for number in numbers:
        dtype = _with_weak(dtype, number)
    assert dtype is not None
    return dtype


def snapshot(x: Tensor) -> Tensor:
    """The value of `x` as it is now: `x` itself unless it is a leaf, which can change."""
    return x if type(x) is Value._result_class else apply(Op.RESHAPE, x, shape=x.shape)


def concrete(x: Any, what: str) -> Any:
    """The Python number behind a scalar input; the trace then holds for this number alone."""
    return x._trace.specialise(x, what) if isinstance(x, Value) and x._weak else x


def _promoted(what: str, a: DType, b: DType) -> DType:
    try:
        return promote(a, b)
    except DTypeError as error:
        raise DTypeError(f"{what}: {error}") from None


def _with_weak(dtype: DType | None, x: Any) -> DType:
    """The dtype when a Python number joins: its kind may raise the kind, never the width."""
    kind = _weak_kind(x)
    if dtype is None:
        return {"b": bool_, "i": int64, "f": float32, "c": complex64}[kind]
    if kind == "c":
        return dtype if dtype.is_complex else dtype.complex
    if kind == "f" and not dtype.is_inexact:
        return float32
    if kind == "i" and dtype is bool_:
        return int64
    return dtype


def _weak_kind(x: Any) -> str:
    """The kind of a Python number, or of the one that a run-time scalar stands for."""
    if isinstance(x, Value):
        return "f" if x._type.dtype.is_float else "i"
    if isinstance(x, complex):
        return "c"
    return "b" if isinstance(x, bool) else "i" if isinstance(x, int) else "f"


def in_dtype(what: str, x: Any, dtype: DType) -> Tensor:
    """One operand as a Tensor of `dtype`; a Python number must fit it."""
    if dtype.is_integer and isinstance(x, Value) and x._weak and x._type.dtype is not dtype:
        x = concrete(x, what)  # the number decides whether it fits
    if isinstance(x, Size):
        _check_fits(what, x, dtype)
        node = constant(dtype, x)
        return result(node.tensor, node=node)
    if type(x) in _SCALARS:
        _check_fits(what, x, dtype)
        return _scalar(dtype, x)
    tensor: Any = x if isinstance(x, Value) else as_tensor(x, what)
    if tensor._type.dtype is not dtype:
        return apply(Op.CAST, tensor, dtype=dtype)
    # A run-time scalar that was given a dtype is a number of that dtype and weak no more.
    return result(tensor._type, node=tensor._node, trace=tensor._trace) if tensor._weak else tensor


def _check_fits(what: str, number: Any, dtype: DType) -> None:
    """Integers hold their range; floats round, but not what is beyond every float."""
    if isinstance(number, complex):
        if not dtype.is_complex:
            raise DTypeError(f"{what}: the complex number {number} is no {dtype}")
        return
    if dtype.is_integer and not isinstance(number, bool):
        info = np.iinfo(dtype.numpy)
        if not info.min <= number <= info.max:
            raise DTypeError(
                f"{what}: {shown(number)} does not fit {dtype} ({info.min} to {info.max}); cast "
                "the tensor to a wider dtype"
            )
    elif isinstance(number, int) and number.bit_length() > 1023:
        raise DTypeError(f"{what}: {shown(number)} is too large for {dtype}")


def shown(number: Any) -> str:
    """A number in a message; Python does not print integers of thousands of digits."""
    if is_known(number) and isinstance(number, int) and number.bit_length() > 256:
        return f"an integer of {number.bit_length()} bits"
    return repr(number)


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
    axis = as_int(what, axis, "an axis is an integer")
    if not -rank <= axis < rank:
        known = f"axes go from {-rank} to {rank - 1}" if rank else "a scalar has no axes"
        raise ShapeError(f"{what}: axis {shown(axis)} is out of range for rank {rank}; {known}")
    return axis % rank if rank else axis


def normal_axes(what: str, axis: Any, rank: int) -> tuple[int, ...]:
    """Sorted non-negative axes; all of them for None."""
    if axis is None:
        return tuple(range(rank))
    listed = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(normal_axis(what, a, rank) for a in listed)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{what}: axes {listed} name an axis twice; name it once")
    return tuple(sorted(axes))


def as_shape(what: str, shape: Any) -> tuple[int, ...]:
    """A shape from an int or a sequence of ints."""
    listed = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if len(listed) > MAX_RANK:
        raise ShapeError(f"{what}: a tensor has at most {MAX_RANK} axes, got {len(listed)}")
    sizes = tuple(as_size(what, n, "a shape is made of integers") for n in listed)
    if any(n.bit_length() > 63 for n in sizes):
        shape = ", ".join(map(shown, sizes))
        raise ShapeError(f"{what}: the shape ({shape}) is too large for any machine")
    return sizes


# -- options ---------------------------------------------------------------------------------------


def as_int(what: str, number: Any, rule: str = "needs an integer") -> int:
    """An int; DTypeError for what is no integer. A run-time scalar is specialised."""
    if not isinstance(number, (bool, float)):
        try:
            return operator.index(number)
        except TypeError:
            pass
    raise DTypeError(f"{what}: {rule}, got {number!r}") from None


def as_count(what: str, name: str, number: Any, least: int = 0) -> int:
    """The argument `name`, an int of at least `least`."""
    count = as_int(what, number, f"{name} is an integer")
    if count < least:
        raise ShapeError(f"{what}: {name} is at least {least}, got {count}")
    return count


def as_size(what: str, number: Any, rule: str = "needs an integer") -> int:
    """An int that counts elements, or a size that is known when the step runs."""
    return number if isinstance(number, Size) else as_int(what, number, rule)


def as_number(what: str, number: Any, rule: str = "needs numbers") -> int | float:
    """An int or float; DTypeError for what is neither. A run-time scalar is specialised."""
    if not isinstance(number, (bool, np.bool_, str, bytes)):
        try:
            return operator.index(number)
        except TypeError:
            pass
        try:
            return float(number)
        except (TypeError, ValueError, OverflowError):
            pass
    raise DTypeError(f"{what}: {rule}, got {number!r}")


def as_flag(what: str, name: str, flag: Any) -> bool:
    """A bool; DTypeError for what is none."""
    if not isinstance(flag, (bool, np.bool_)):
        raise DTypeError(f"{what}: {name} is True or False, got {flag!r}")
    return bool(flag)


def as_choice(what: str, name: str, choice: Any, choices: Sequence[str]) -> str:
    """One of some words; ShapeError for any other."""
    if not isinstance(choice, str) or choice not in choices:
        listed = " or ".join(map(repr, choices))
        raise ShapeError(f"{what}: {name} must be {listed}, got {choice!r}")
    return choice


__all__ = [
    "as_choice",
    "as_flag",
    "as_int",
    "as_number",
    "as_operand",
    "as_shape",
    "as_size",
    "as_tensor",
    "check_depth",
    "check_device",
    "check_dtype",
    "concrete",
    "in_dtype",
    "is_weak",
    "known_array",
    "meet",
    "meet_dtype",
    "normal_axes",
    "normal_axis",
    "shown",
    "snapshot",
    "to_array",
    "weak_dtype",
]
