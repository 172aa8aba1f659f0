"""Data movement: reshape, transpose, broadcast, join, flip, roll, repeat and pad."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.convert import (
    as_int,
    as_shape,
    as_tensor,
    concrete,
    in_dtype,
    is_weak,
    known_array,
    meet,
    normal_axes,
    normal_axis,
    snapshot,
)
from einkorn.ir import shape_rules
from einkorn.ir.dtypes import DType
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.ir.types import same_shape
from einkorn.recording import apply

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

Shape = tuple[int, ...]
Axis = int | Sequence[int] | None


def as_sizes(what: str, shape: Any, dtype: DType) -> Shape:
    """A shape of sizes that are not negative and fit the address space."""
    sizes = as_shape(what, shape)
    if any(n < 0 for n in sizes):
        raise ShapeError(f"{what}: sizes must not be negative, got {sizes}")
    if prod(n for n in sizes if n) * dtype.itemsize > shape_rules.MAX_BYTES:
        raise ShapeError(f"{what}: a {dtype} tensor of shape {sizes} is too large for any machine")
    return sizes


def common_shape(what: str, *tensors: Tensor) -> Shape:
    """The shape to which all tensors broadcast; ShapeError naming them when there is none."""
    shape = shape_rules.common_shape(*(x._type for x in tensors))
    if shape is None:
        got = " and ".join(str(x._type) for x in tensors)
        raise ShapeError(
            f"{what}: {got} do not broadcast: counted from the last axis, sizes must be equal or 1"
        )
    return shape


def cut(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """x[start:stop] along one axis; bounds must lie inside the axis."""
    starts = tuple(start if k == axis else 0 for k in range(x.ndim))
    stops = tuple(stop if k == axis else n for k, n in enumerate(x.shape))
    return apply(Op.SLICE, x, starts=starts, stops=stops, steps=(1,) * x.ndim)


# -- shape -----------------------------------------------------------------------------------------


def reshape(x: Any, /, shape: Any, *, copy: bool | None = None) -> Tensor:
    """The same elements in row-major order with another shape; one size may be -1."""
    tensor = as_tensor(x, "reshape")
    wanted = as_shape("reshape", shape)
    known = prod(n for n in wanted if n != -1)
    if wanted.count(-1) == 1 and known > 0 and tensor.size % known == 0:
        wanted = tuple(tensor.size // known if n == -1 else n for n in wanted)
    if any(n < 0 for n in wanted) or prod(wanted) != tensor.size:
        raise ShapeError(
            f"reshape: cannot reshape {tensor._type} ({tensor.size} elements) to {wanted}; sizes "
            f"must multiply to {tensor.size}, and one of them may be -1"
        )
    return to_shape(tensor, wanted)


def to_shape(x: Tensor, shape: Shape) -> Tensor:
    """`x` with a shape of the same number of elements."""
    return snapshot(x) if same_shape(x.shape, shape) else apply(Op.RESHAPE, x, shape=shape)


def flatten(x: Any, /) -> Tensor:
    """All elements in row-major order on one axis."""
    tensor = as_tensor(x, "flatten")
    return to_shape(tensor, (tensor.size,))


def expand_dims(x: Any, /, *, axis: int | Sequence[int] = 0) -> Tensor:
    """New axes of one element, at the given positions of the result."""
    tensor = as_tensor(x, "expand_dims")
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    new = normal_axes("expand_dims", axis, tensor.ndim + count)
    sizes = iter(tensor.shape)
    shape = (1 if k in new else next(sizes) for k in range(tensor.ndim + count))
    return to_shape(tensor, tuple(shape))


def squeeze(x: Any, /, axis: int | Sequence[int]) -> Tensor:
    """The tensor without the given axes, which must have one element."""
    tensor = as_tensor(x, "squeeze")
    axes = normal_axes("squeeze", axis, tensor.ndim)
    if any(tensor.shape[k] != 1 for k in axes):
        raise ShapeError(f"squeeze: axes {axes} of {tensor._type} must all have one element")
    return to_shape(tensor, tuple(n for k, n in enumerate(tensor.shape) if k not in axes))


# -- order of axes ---------------------------------------------------------------------------------


def permute_dims(x: Any, /, axes: Sequence[int]) -> Tensor:
    """The axes in the given order."""
    tensor = as_tensor(x, "permute_dims")
    order = tuple(normal_axis("permute_dims", axis, tensor.ndim) for axis in _listed(axes))
    if sorted(order) != list(range(tensor.ndim)):
        raise ShapeError(
            f"permute_dims: axes {axes} must list each of the {tensor.ndim} axes of "
            f"{tensor._type} once"
        )
    return reorder(tensor, order)


def reorder(x: Tensor, order: Shape) -> Tensor:
    """The axes of `x` in an order that lists each once."""
    if order == tuple(range(x.ndim)):
        return snapshot(x)
    return apply(Op.TRANSPOSE, x, axes=order)


def matrix_transpose(x: Any, /) -> Tensor:
    """The last two axes exchanged."""
    tensor = as_tensor(x, "matrix_transpose")
    if tensor.ndim < 2:
        raise ShapeError(
            f"matrix_transpose: needs at least 2 axes, got {tensor._type}; a vector becomes a "
            "column with x[:, None]"
        )
    return swapaxes(tensor, -1, -2)


def swapaxes(x: Any, /, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    tensor = as_tensor(x, "swapaxes")
    a, b = (normal_axis("swapaxes", axis, tensor.ndim) for axis in (axis1, axis2))
    order = list(range(tensor.ndim))
    order[a], order[b] = b, a
    return reorder(tensor, tuple(order))


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int], /) -> Tensor:
    """The axes of `source` moved to the positions of `destination`, the others kept in order."""
    tensor = as_tensor(x, "moveaxis")
    old, new = (
        [normal_axis("moveaxis", axis, tensor.ndim) for axis in _listed(axes)]
        for axes in (source, destination)
    )
    if len(old) != len(new) or len(set(old)) != len(old) or len(set(new)) != len(new):
        raise ShapeError(
            f"moveaxis: source {source} and destination {destination} must name equally many "
            "different axes"
        )
    order = [axis for axis in range(tensor.ndim) if axis not in old]
    for position, axis in sorted(zip(new, old)):
        order.insert(position, axis)
    return reorder(tensor, tuple(order))


def _listed(axes: int | Sequence[int]) -> Sequence[int]:
    return axes if isinstance(axes, (tuple, list)) else (axes,)  # type: ignore[return-value]


# -- broadcasting ----------------------------------------------------------------------------------


def broadcast_to(x: Any, /, shape: Any) -> Tensor:
    """The elements repeated along new axes and axes of one element."""
    tensor = as_tensor(x, "broadcast_to")
    wanted = as_sizes("broadcast_to", shape, tensor.dtype)
    tail = wanted[len(wanted) - tensor.ndim :] if tensor.ndim else ()
    if tensor.ndim > len(wanted) or any(a not in (1, b) for a, b in zip(tensor.shape, tail)):
        raise ShapeError(
            f"broadcast_to: cannot broadcast {tensor._type} to {wanted}: counted from the last "
            "axis, sizes must be equal or 1"
        )
    return spread_to(tensor, wanted)


def spread_to(x: Tensor, shape: Shape) -> Tensor:
    """`x` broadcast to a shape that it is known to broadcast to."""
    return snapshot(x) if same_shape(x.shape, shape) else apply(Op.BROADCAST, x, shape=shape)


def broadcast_arrays(*arrays: Any) -> list[Tensor]:
    """All arrays broadcast to their common shape."""
    tensors = [as_tensor(x, "broadcast_arrays") for x in arrays]
    shape = common_shape("broadcast_arrays", *tensors)
    return [spread_to(x, shape) for x in tensors]


# -- joining and splitting -------------------------------------------------------------------------


def concat(arrays: Sequence[Any], /, *, axis: int | None = 0) -> Tensor:
    """The arrays one after the other along an axis that exists; None joins them flattened."""
    parts = _parts("concat", arrays)
    if axis is None:
        parts, axis = [flatten(part) for part in parts], 0
    first = parts[0]
    if first.ndim == 0:
        raise ShapeError(f"concat: needs at least one axis, got {first._type}; use stack")
    axis = normal_axis("concat", axis, first.ndim)
    rest = _without(first.shape, axis)
    if any(x.ndim != first.ndim or _without(x.shape, axis) != rest for x in parts):
        got = ", ".join(str(x._type) for x in parts)
        raise ShapeError(f"concat: arrays must agree in every axis but {axis}, got {got}")
    return snapshot(first) if len(parts) == 1 else apply(Op.CONCAT, *parts, axis=axis)


def _parts(what: str, arrays: Sequence[Any]) -> list[Tensor]:
    try:
        parts = list(arrays)
    except TypeError:
        raise DTypeError(f"{what}: needs a sequence of arrays, got {arrays!r}") from None
    if not parts:
        raise ShapeError(f"{what}: needs at least one array, got none")
    return list(meet(what, *parts))


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def stack(arrays: Sequence[Any], /, *, axis: int = 0) -> Tensor:
    """Arrays of one shape joined along a new axis."""
    parts = _parts("stack", arrays)
    shape = parts[0].shape
    if any(part.shape != shape for part in parts):
        got = ", ".join(str(x._type) for x in parts)
        raise ShapeError(f"stack: arrays must have one shape, got {got}")
    axis = normal_axis("stack", axis, len(shape) + 1)
    slim = [to_shape(part, (*shape[:axis], 1, *shape[axis:])) for part in parts]
    return slim[0] if len(slim) == 1 else apply(Op.CONCAT, *slim, axis=axis)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, without that axis."""
    tensor = as_tensor(x, "unstack")
    axis = normal_axis("unstack", axis, tensor.ndim)
    shape = _without(tensor.shape, axis)
    return tuple(
        apply(Op.RESHAPE, cut(tensor, axis, k, k + 1), shape=shape)
        for k in range(tensor.shape[axis])
    )


def split(x: Any, sections: int | Sequence[int], /, *, axis: int = 0) -> list[Tensor]:
    """Parts along an axis: `sections` equal ones, or cut before each of the listed positions."""
    tensor = as_tensor(x, "split")
    axis = normal_axis("split", axis, tensor.ndim)
    size = tensor.shape[axis]
    count = None if isinstance(sections, (tuple, list)) else as_int("split", sections)
    if count is None:
        marks = [min(max(as_int("split", k), 0), size) for k in _listed(sections)]
    elif count < 1 or size % count:
        raise ShapeError(f"split: axis {axis} of {tensor._type} has no {count} equal parts")
    else:
        marks = [k * (size // count) for k in range(1, count)]
    bounds = zip([0, *marks], [*marks, size])
    return [cut(tensor, axis, a, max(a, b)) for a, b in bounds]


# -- reordering and repeating elements -------------------------------------------------------------


def flip(x: Any, /, *, axis: Axis = None) -> Tensor:
    """The elements in reverse order along the axes; along all of them by default."""
    tensor = as_tensor(x, "flip")
    axes = normal_axes("flip", axis, tensor.ndim)
    return apply(Op.FLIP, tensor, axes=axes) if axes else snapshot(tensor)


def roll(x: Any, /, shift: int | Sequence[int], *, axis: Axis = None) -> Tensor:
    """The elements moved on by `shift` places, those past the end coming in at the start."""
    tensor = as_tensor(x, "roll")
    if axis is None:
        return to_shape(roll(flatten(tensor), shift, axis=0), tensor.shape)
    shifts, axes = _listed(shift), [normal_axis("roll", a, tensor.ndim) for a in _listed(axis)]
    if len(shifts) == 1:
        shifts = [shifts[0]] * len(axes)
    if len(shifts) != len(axes):
        raise ShapeError(f"roll: {len(shifts)} shifts for {len(axes)} axes; give one for each")
    result = snapshot(tensor)
    for k, places in zip(axes, shifts):
        result = _rolled(result, k, as_int("roll", places))
    return result


def _rolled(x: Tensor, axis: int, places: int) -> Tensor:
    size = x.shape[axis]
    places = places % size if size else 0
    if places == 0:
        return x
    ends = cut(x, axis, size - places, size), cut(x, axis, 0, size - places)
    return apply(Op.CONCAT, *ends, axis=axis)


def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element `repeats` times, one after the other; flattened without an axis.

    Args:
        repeats: one count, or one for each element of the axis; known while tracing.
    """
    tensor = as_tensor(x, "repeat")
    if axis is None:
        tensor, axis = flatten(tensor), 0
    axis = normal_axis("repeat", axis, tensor.ndim)
    size = tensor.shape[axis]
    counts = known_array(repeats, "repeat")
    if counts.dtype.kind not in "iu" or counts.ndim > 1 or (counts < 0).any():
        raise ShapeError(f"repeat: counts must be integers of at least 0, got {repeats!r}")
    if counts.size == 1:
        return _repeated(tensor, axis, int(counts.reshape(())))
    if counts.size != size:
        raise ShapeError(
            f"repeat: {counts.size} counts for axis {axis} of {tensor._type}; give one, or {size}"
        )
    total = int(counts.sum(dtype=np.float64))
    as_sizes("repeat", (*tensor.shape[:axis], total, *tensor.shape[axis + 1 :]), tensor.dtype)
    places = as_tensor(np.repeat(np.arange(size), counts.astype(np.int64)), "repeat")
    return apply(Op.GATHER, tensor, places, axis=axis)


def _repeated(x: Tensor, axis: int, count: int) -> Tensor:
    before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    shape = as_sizes("repeat", (*before, size * count, *after), x.dtype)
    if count == 1:
        return snapshot(x)
    column = apply(Op.RESHAPE, x, shape=(*before, size, 1, *after))
    wide = apply(Op.BROADCAST, column, shape=(*before, size, count, *after))
    return apply(Op.RESHAPE, wide, shape=shape)


def tile(x: Any, repetitions: int | Sequence[int], /) -> Tensor:
    """The whole tensor repeated along each axis; missing axes are added in front."""
    tensor = as_tensor(x, "tile")
    counts = as_sizes("tile", repetitions, tensor.dtype)
    rank = max(len(counts), tensor.ndim)
    counts = (1,) * (rank - len(counts)) + counts
    shape = (1,) * (rank - tensor.ndim) + tensor.shape
    wanted = as_sizes("tile", tuple(n * m for n, m in zip(shape, counts)), tensor.dtype)
    if wanted == shape:
        return to_shape(tensor, shape)
    spaced = apply(Op.RESHAPE, tensor, shape=tuple(k for n in shape for k in (1, n)))
    full = tuple(k for n, m in zip(shape, counts) for k in (m, n))
    return apply(Op.RESHAPE, apply(Op.BROADCAST, spaced, shape=full), shape=wanted)


def pad(x: Any, widths: Any, /, *, value: Any = 0) -> Tensor:
    """The tensor with `value` added around it.

    Args:
        widths: one number for all sides, (before, after) for all axes, or such a pair for each.
    """
    tensor = as_tensor(x, "pad")
    pairs = _pairs(widths, tensor)
    low, high = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
    as_sizes("pad", [n + a + b for n, a, b in zip(tensor.shape, low, high)], tensor.dtype)
    fill = filling("pad", value, tensor.dtype)
    return apply(Op.PAD, tensor, fill, low=low, high=high, interior=(0,) * tensor.ndim)


def filling(what: str, value: Any, dtype: DType) -> Tensor:
    """A scalar of `dtype` from a number or 0-d tensor that needs no narrowing."""
    if not is_weak(value):
        value = as_tensor(value, what)
    elif not dtype.is_float:
        value = concrete(value, what)
    if isinstance(value, float) and not dtype.is_inexact:
        raise DTypeError(f"{what}: the float {value} is no {dtype}; give an integer")
    scalar = in_dtype(what, value, dtype)
    if scalar.shape:
        raise ShapeError(f"{what}: the value must be a number or of rank 0, got {scalar._type}")
    return scalar


def _pairs(widths: Any, x: Tensor) -> list[tuple[int, int]]:
    """One (before, after) for each axis."""
    try:
        table = np.broadcast_to(known_array(widths, "pad"), (x.ndim, 2))
    except ValueError:
        raise ShapeError(
            f"pad: widths {widths!r} do not fit {x._type}: give n, (before, after), or "
            f"(before, after) for each of the {x.ndim} axes"
        ) from None
    if table.dtype.kind not in "iu" or (table < 0).any():
        raise ShapeError(f"pad: widths must be integers of at least 0, got {widths!r}")
    return [(int(a), int(b)) for a, b in table]
