"""Making tensors: from values, filled, counting, and parts of matrices.

None of these is tracked. Sequences are computed with ops, the same ones eager and traced.
"""

from __future__ import annotations

from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.convert import (
    as_choice,
    as_flag,
    as_int,
    as_number,
    as_tensor,
    check_depth,
    check_device,
    check_dtype,
    concrete,
    in_dtype,
    meet,
    shown,
    snapshot,
    to_array,
    weak_dtype,
)
from einkorn.functions.elementwise import add, cast, equal, floor, less_equal, multiply, where
from einkorn.functions.manipulation import (
    as_sizes,
    common_shape,
    filling,
    reshape,
    spread_to,
    stack,
)
from einkorn.host import host_op
from einkorn.ir.dtypes import DType, as_dtype, complex64, float32, float64, int64
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.ir.sizes import Size
from einkorn.ir.types import TensorType
from einkorn.recording import Value, apply, result, scalar

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Number = bool | int | float


# -- from values -----------------------------------------------------------------------------------


def asarray(
    obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None
) -> Tensor:
    """A tensor of the values of `obj`: an array, number, nested list or Tensor.

    Args:
        copy: False shares the memory of `obj`, or raises when that cannot be done.
    """
    check_device("asarray", device)
    copy = None if copy is None else as_flag("asarray", "copy", copy)
    wanted = None if dtype is None else check_dtype(dtype)
    if wanted is not None and wanted.is_integer:
        obj = concrete(obj, "asarray")
    if isinstance(obj, (Value, Size)):
        tensor = as_tensor(obj, "asarray") if wanted is None else in_dtype("asarray", obj, wanted)
        return snapshot(tensor)
    if isinstance(obj, (list, tuple)) and _holds_tensors(obj):
        return stack([asarray(item, dtype=wanted) for item in obj])
    source: Any = obj
    if hasattr(source, "__dlpack__") and not hasattr(source, "__array__"):
        source = obj = np.from_dlpack(source)
    array = to_array(source, wanted, "asarray", copy=copy is not False)
    if copy is False and array.size and not np.may_share_memory(array, np.asarray(obj)):
        raise ShapeError(
            f"asarray: copy=False, but this {type(obj).__name__} has to be converted to a "
            f"contiguous {array.dtype} array; leave copy out"
        )
    return result(TensorType(as_dtype(array.dtype), array.shape), array=array)


def _holds_tensors(items: Any, depth: int = 0) -> bool:
    if isinstance(items, (list, tuple)):
        check_depth("asarray", depth)
        return any(_holds_tensors(item, depth + 1) for item in items)
    return isinstance(items, Value)


# -- filled ----------------------------------------------------------------------------------------


def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor with every element equal to `fill_value`."""
    check_device("full", device)
    if dtype is not None:
        wanted = check_dtype(dtype)
    elif type(fill_value) in (bool, int, float, complex):
        wanted = weak_dtype(fill_value)
    else:
        wanted = as_tensor(fill_value, "full").dtype
    if wanted.is_integer:
        fill_value = concrete(fill_value, "full")
    if isinstance(fill_value, float) and wanted.is_integer:
        if not fill_value.is_integer():
            raise DTypeError(f"full: {fill_value} is not a whole number, but dtype is {wanted}")
        fill_value = int(fill_value)
    return _filled("full", shape, fill_value, wanted)


def _or_float32(dtype: Any) -> DType:
    return float32 if dtype is None else check_dtype(dtype)


def _filled(what: str, shape: Any, value: Any, dtype: DType) -> Tensor:
    sizes = as_sizes(what, shape, dtype)
    return apply(Op.BROADCAST, filling(what, value, dtype), shape=sizes)


def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of zeros, float32 by default."""
    check_device("zeros", device)
    return _filled("zeros", shape, 0, _or_float32(dtype))


def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of ones, float32 by default."""
    check_device("ones", device)
    return _filled("ones", shape, 1, _or_float32(dtype))


def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of zeros: nothing here shows memory that was not written."""
    return zeros(shape, dtype=dtype, device=device)


def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of the shape of `x`, and of its dtype by default, filled with one value."""
    tensor = as_tensor(x, "full_like")
    wanted = tensor.dtype if dtype is None else dtype
    return full(tensor.shape, fill_value, dtype=wanted, device=device)


def zeros_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros of the shape of `x`, and of its dtype by default."""
    return full_like(x, 0, dtype=dtype, device=device)


def ones_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones of the shape of `x`, and of its dtype by default."""
    return full_like(x, 1, dtype=dtype, device=device)


def empty_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros of the shape of `x`, and of its dtype by default."""
    return zeros_like(x, dtype=dtype, device=device)


# -- counting --------------------------------------------------------------------------------------


def arange(
    start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """start, start + step, ... before `stop`; from 0 when only one number is given."""
    check_device("arange", device)
    if stop is None:
        start, stop = 0, start
    first, last, gap = (
        x if isinstance(x, Size) else _number("arange", x) for x in (start, stop, step)
    )
    if gap == 0:
        raise ShapeError("arange: the step must not be 0")
    whole = all(isinstance(x, int) for x in (first, last, gap))
    wanted = check_dtype(dtype) if dtype is not None else int64 if whole else float32
    if whole:
        count = max(0, -((first - last) // gap))  # type: ignore[operator] # all are int
    else:
        count = max(0, ceil((last - first) / gap))
    (size,) = as_sizes("arange", count, wanted)
    if not (whole and wanted.is_integer):
        return cast(_steps(size, float(first), float(gap)), wanted)
    for edge in (first, first + (size - 1) * gap) if size else ():
        in_dtype("arange", edge, wanted)
    counted = apply(Op.IOTA, size=size, dtype=wanted)
    # The step is taken modulo the width, so that unsigned sequences can go down.
    counted = counted if gap == 1 else multiply(counted, scalar(wanted, np.int64(gap)))
    return counted if first == 0 else add(counted, first)


def _number(what: str, x: Any) -> int | float:
    """A Python number from a number or tensor of one element; NaN and infinity are refused."""
    number = as_number(what, x)
    if isinstance(number, float) and not isfinite(number):
        raise ShapeError(f"{what}: needs finite numbers, got {x}")
    if isinstance(number, int) and number.bit_length() > 64:
        raise DTypeError(f"{what}: {shown(number)} does not fit 64 bits")
    return number


def _steps(count: int, start: float, step: float) -> Tensor:
    """start + k * step for k below `count`, in float64 so that rounding happens once."""
    counted = apply(Op.IOTA, size=count, dtype=float64)
    return add(multiply(counted, step), start)


def linspace(
    start: Any,
    stop: Any,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
) -> Tensor:
    """`num` numbers evenly spaced from `start` to `stop`, which is left out without `endpoint`."""
    check_device("linspace", device)
    if _is_complex(start) or _is_complex(stop):
        return _complex_steps(complex(start), complex(stop), num, dtype, endpoint)
    wanted = _or_float32(dtype)
    endpoint = as_flag("linspace", "endpoint", endpoint)
    first, last = float(_number("linspace", start)), float(_number("linspace", stop))
    (count,) = as_sizes("linspace", num, wanted)
    gaps = count - 1 if endpoint else count
    numbers = _steps(count, first, (last - first) / gaps if gaps > 0 else 0.0)
    if endpoint and count > 1:
        at_end = equal(apply(Op.IOTA, size=count, dtype=int64), count - 1)
        numbers = where(at_end, last, numbers)
    return cast(numbers if wanted.is_inexact else floor(numbers), wanted)


def _is_complex(x: Any) -> bool:
    if isinstance(x, (Value, np.ndarray, np.generic)):
        return as_tensor(x, "linspace").dtype.is_complex
    return isinstance(x, complex)


def _complex_steps(start: complex, stop: complex, num: int, dtype: Any, endpoint: bool) -> Tensor:
    wanted = complex64 if dtype is None else check_dtype(dtype)
    if not wanted.is_complex:
        raise DTypeError(f"linspace: {start} and {stop} are complex numbers, not {wanted}")
    ends = ((start.real, stop.real), (start.imag, stop.imag))
    parts = (linspace(a, b, num, dtype=wanted.real, endpoint=endpoint) for a, b in ends)
    return host_op("complex", *parts)


# -- matrices --------------------------------------------------------------------------------------


def _row_and_column(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """The row numbers as a column and the column numbers as a row."""
    down = apply(Op.IOTA, size=rows, dtype=int64)
    return reshape(down, (rows, 1)), apply(Op.IOTA, size=columns, dtype=int64)


def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Ones on diagonal `k`, zeros elsewhere; float32 by default."""
    check_device("eye", device)
    wanted = _or_float32(dtype)
    shape = as_sizes("eye", (n_rows, n_rows if n_cols is None else n_cols), wanted)
    row, column = _row_and_column(*shape)
    k = as_int("eye", k)
    return cast(equal(add(row, k), column), wanted)


def _triangle(what: str, x: Any, k: int, lower: bool) -> Tensor:
    tensor = as_tensor(x, what)
    if tensor.ndim < 2:
        raise ShapeError(f"{what}: needs at least 2 axes, got {tensor._type}")
    row, column = _row_and_column(*tensor.shape[-2:])
    k = as_int(what, k)
    below = less_equal(column, add(row, k if lower else k - 1))
    zero = scalar(tensor.dtype, 0)
    return where(below, tensor, zero) if lower else where(below, zero, tensor)


def tril(x: Any, /, *, k: int = 0) -> Tensor:
    """The last two axes with zeros above diagonal `k`."""
    return _triangle("tril", x, k, lower=True)


def triu(x: Any, /, *, k: int = 0) -> Tensor:
    """The last two axes with zeros below diagonal `k`."""
    return _triangle("triu", x, k, lower=False)


def meshgrid(*arrays: Any, indexing: str = "xy") -> list[Tensor]:
    """The coordinates of a grid, one tensor for each of its one-dimensional axes.

    Args:
        indexing: "xy" puts the second array along axis 0, "ij" the first.
    """
    as_choice("meshgrid", "indexing", indexing, ("xy", "ij"))
    tensors = list(meet("meshgrid", *arrays)) if arrays else []
    if any(x.ndim > 1 for x in tensors):
        got = ", ".join(str(x._type) for x in tensors)
        raise ShapeError(f"meshgrid: needs one-dimensional arrays, got {got}")
    places = list(range(len(tensors)))
    if indexing == "xy":
        places[:2] = reversed(places[:2])
    slim = [
        reshape(x, tuple(x.size if k == place else 1 for k in range(len(tensors))))
        for x, place in zip(tensors, places)
    ]
    return [spread_to(x, common_shape("meshgrid", *slim)) for x in slim]
