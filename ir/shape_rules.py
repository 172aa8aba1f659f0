"""Shape rules: the type of an op's result from its operands' types and attributes.

Each rule raises a ShapeError, DTypeError or IRError that names what it got and what it wanted.
"""

from __future__ import annotations

from itertools import zip_longest
from math import prod
from typing import Any

import numpy as np

from einkorn.ir.dtypes import DType, bool_, int64, uint32, uint64
from einkorn.ir.errors import BoundsError, DTypeError, IRError, ShapeError
from einkorn.ir.sizes import Size, has_size
from einkorn.ir.types import TensorType, TupleType, Type

Axes = tuple[int, ...]

MAX_RANK = 32  # what NumPy broadcasts
MAX_BYTES = 1 << 62  # the largest result; offsets within it fit 64 bits with room to spare

MAX_POLYGAMMA = 30  # derivatives of digamma: the sums of more are too long to write out


def sized(type: TensorType) -> TensorType:
    """The type of a result; ShapeError when no machine could hold it."""
    if type.rank > MAX_RANK:
        raise ShapeError(f"a tensor has at most {MAX_RANK} axes, got {type.rank}: too large")
    if prod(n for n in type.shape if n) * type.dtype.itemsize > MAX_BYTES:
        raise ShapeError(f"a tensor of {type} is too large for any machine")
    return type


def common_shape(*types: TensorType) -> Axes | None:
    """The shape to which types broadcast, None when there is none; ShapeError when too large."""
    try:
        shape = broadcast_shapes(*(type.shape for type in types))
    except ValueError:
        columns = zip_longest(*(reversed(type.shape) for type in types), fillvalue=1)
        if any(len(set(column) - {1}) > 1 for column in columns):
            return None
        got = " and ".join(map(str, types))
        raise ShapeError(f"{got} broadcast to a shape that is too large for any machine") from None
    if prod(shape) > MAX_BYTES // 8:
        for type in types:
            sized(type.with_shape(shape))
    return shape


def broadcast_shapes(*shapes: Axes) -> Axes:
    """The shape to which shapes broadcast; ValueError when there is none."""
    if not any(map(has_size, shapes)):
        return np.broadcast_shapes(*shapes)
    common: list[int] = []
    for column in zip_longest(*map(reversed, shapes), fillvalue=1):
        large = [n for n in column if n != 1]
        if any(n != large[0] for n in large[1:]):
            raise ValueError("shapes do not broadcast")
        common.append(large[0] if large else 1)
    return tuple(reversed(common))


def _kinds(type: TensorType, kinds: str, wanted: str) -> TensorType:
    if type.dtype.kind not in kinds:
        raise DTypeError(f"needs {wanted}, got {type}; cast it with .astype")
    return type


def _same(*types: TensorType) -> TensorType:
    first = types[0]
    if any([type is not first and type != first for type in types]):
        got = " and ".join(map(str, types))
        raise ShapeError(
            f"operands must agree in shape and dtype, got {got}; broadcast or cast one"
        )
    return first


def _axis_list(axes: Axes, rank: int) -> Axes:
    if any(not 0 <= axis < rank for axis in axes):
        raise ShapeError(f"axes {axes} are out of range for rank {rank}")
    if len(set(axes)) != len(axes):
        raise ShapeError(f"axes {axes} name an axis twice")
    return axes


def _sizes(shape: Axes) -> Axes:
    if any(n < 0 for n in shape):
        raise ShapeError(f"sizes must not be negative, got {shape}")
    return shape


# -- elementwise -----------------------------------------------------------------------------------


def elementwise(*types: TensorType) -> TensorType:
    return _same(*types)


def numeric(*types: TensorType) -> TensorType:
    return _kinds(_same(*types), "fciu", "numbers; cast bool with .astype('int32') first")


def ordered(*types: TensorType) -> TensorType:
    """Operands whose dtype has an order."""
    return _kinds(
        _same(*types), "fiub", "an order, which complex numbers have not; use abs or real"
    )


def real_numeric(*types: TensorType) -> TensorType:
    return numeric(ordered(*types))


def magnitude(x: TensorType) -> TensorType:
    return numeric(x).with_dtype(x.dtype.real)


def signed(x: TensorType) -> TensorType:
    return _kinds(x, "fi", "signed numbers")


def floating(*types: TensorType) -> TensorType:
    if types[0].dtype.is_complex:
        raise DTypeError(f"needs real floating-point numbers, got {types[0]}; take ek.real or abs")
    return _kinds(_same(*types), "f", "floating-point numbers; use .astype('float32') first")


def inexact(*types: TensorType) -> TensorType:
    return _kinds(
        _same(*types), "fc", "floating-point or complex numbers; use .astype('float32') first"
    )


def bitwise(*types: TensorType) -> TensorType:
    return _kinds(_same(*types), "iub", "integers or bool")


def shift(*types: TensorType) -> TensorType:
    return _kinds(_same(*types), "iu", "integers")


def integer_pow(x: TensorType, exponent: int) -> TensorType:
    if exponent < 0 and not x.dtype.is_inexact:
        raise DTypeError(
            f"an integer to the negative power {exponent} is not an integer; cast first"
        )
    return _kinds(x, "fciu", "numbers")


def polygamma(x: TensorType, order: int) -> TensorType:
    if not 0 <= order <= MAX_POLYGAMMA:
        raise IRError(f"the order must be from 0 to {MAX_POLYGAMMA}, got {order}")
    return floating(x)


def comparison(*types: TensorType) -> TensorType:
    return _same(*types).with_dtype(bool_)


def ordered_comparison(*types: TensorType) -> TensorType:
    return ordered(*types).with_dtype(bool_)


def predicate(x: TensorType) -> TensorType:
    return x.with_dtype(bool_)


def select(condition: TensorType, yes: TensorType, no: TensorType) -> TensorType:
    result = _same(yes, no)
    if condition != result.with_dtype(bool_):
        raise ShapeError(f"the condition must be {result.with_dtype(bool_)}, got {condition}")
    return result


def cast(x: TensorType, dtype: DType) -> TensorType:
    if x.dtype.is_complex and not dtype.is_complex and dtype is not bool_:
        raise DTypeError(f"{x} has an imaginary part, {dtype} has none; use ek.real(x) or abs(x)")
    return sized(x.with_dtype(dtype))


def alias(x: TensorType, id: int) -> TensorType:
    return x


# -- sources ---------------------------------------------------------------------------------------


def source(dtype: DType, shape: Axes, id: int) -> TensorType:
    return sized(TensorType(dtype, _sizes(shape)))


def const(dtype: DType, bits: int) -> TensorType:
    if not 0 <= bits < (2 if dtype is bool_ else 1 << dtype.bits):
        raise IRError(f"{bits:#x} does not fit the {dtype.bits} bits of {dtype}")
    return TensorType(dtype, ())


def iota(size: int, dtype: DType) -> TensorType:
    if dtype.kind in "bc" or size < 0:
        raise DTypeError(f"needs a size of at least 0 and a real dtype, got {size} and {dtype}")
    return sized(TensorType(dtype, (size,)))


def size(size: Size, dtype: DType) -> TensorType:
    """A number that a call brings; passes/padding puts what computes it in its place."""
    return TensorType(dtype, ())


def random_bits(key: TensorType, counter: TensorType, shape: Axes) -> TensorType:
    for name, type in (("key", key), ("counter", counter)):
        if type != TensorType(uint64, ()):
            raise DTypeError(f"the {name} must be u64[], got {type}")
    return sized(TensorType(uint32, _sizes(shape)))


# -- movement --------------------------------------------------------------------------------------


def reshape(x: TensorType, shape: Axes) -> TensorType:
    result = x.with_shape(shape)
    if result.size != x.size or any(n < 0 for n in shape):
        raise ShapeError(f"cannot reshape {x} ({x.size} elements) to {shape}")
    return sized(result)


def broadcast(x: TensorType, shape: Axes) -> TensorType:
    tail = _sizes(shape)[len(shape) - x.rank :]
    if x.rank > len(shape) or any(a not in (b, 1) for a, b in zip(x.shape, tail)):
        raise ShapeError(f"cannot broadcast {x} to shape {shape}")
    return sized(x.with_shape(shape))


def transpose(x: TensorType, axes: Axes) -> TensorType:
    if len(axes) != x.rank:
        raise ShapeError(f"axes {axes} must list every axis of {x} once")
    _axis_list(axes, x.rank)
    return x.with_shape(tuple(x.shape[axis] for axis in axes))


def slice_(x: TensorType, starts: Axes, stops: Axes, steps: Axes) -> TensorType:
    if not len(starts) == len(stops) == len(steps) == x.rank:
        raise ShapeError(f"starts, stops and steps need one entry for each axis of {x}")
    for n, start, stop, step in zip(x.shape, starts, stops, steps):
        if not 0 <= start <= stop <= n or step < 1:
            raise BoundsError(f"slice {start}:{stop}:{step} does not fit an axis of {n} in {x}")
    sizes = (-(-(stop - start) // step) for start, stop, step in zip(starts, stops, steps))
    return x.with_shape(tuple(sizes))


def flip(x: TensorType, axes: Axes) -> TensorType:
    _axis_list(axes, x.rank)
    return x


def pad(x: TensorType, value: TensorType, low: Axes, high: Axes, interior: Axes) -> TensorType:
    if value != TensorType(x.dtype, ()):
        raise DTypeError(f"the value must be {TensorType(x.dtype, ())}, got {value}")
    if not len(low) == len(high) == len(interior) == x.rank:
        raise ShapeError(f"low, high and interior need one entry for each axis of {x}")
    if any(n < 0 for n in (*low, *high, *interior)):
        raise ShapeError(f"padding must not be negative, got {low}, {high}, {interior}")
    rows = zip(x.shape, low, high, interior)
    return sized(x.with_shape(tuple(a + n + b + gap * max(n - 1, 0) for n, a, b, gap in rows)))


def concat(*parts: TensorType, axis: int) -> TensorType:
    if not parts:
        raise ShapeError("needs at least one part")
    first = parts[0]
    _axis_list((axis,), first.rank)
    for part in parts:
        same = part.rank == first.rank and part.dtype is first.dtype
        if not same or any(
            a != b for k, (a, b) in enumerate(zip(part.shape, first.shape)) if k != axis
        ):
            got = ", ".join(map(str, parts))
            raise ShapeError(f"parts must agree in dtype and in every axis but {axis}, got {got}")
    total = sum(part.shape[axis] for part in parts)
    return sized(first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :])))


# -- reductions and scans --------------------------------------------------------------------------


def reduction(x: TensorType, axes: Axes) -> TensorType:
    _kinds(x, "fciu", "numbers; cast bool first")
    return _reduced(x, axes)


def ordered_reduction(x: TensorType, axes: Axes) -> TensorType:
    ordered(x)
    if any(x.shape[axis] == 0 for axis in _axis_list(axes, x.rank)):
        raise ShapeError(
            f"{x} has no elements along axes {axes}, so there is no largest or smallest; concat "
            "one that is there in any case, or ask for x.size first"
        )
    return _reduced(x, axes)


def _reduced(x: TensorType, axes: Axes) -> TensorType:
    _axis_list(axes, x.rank)
    if tuple(sorted(axes)) != axes:
        raise ShapeError(f"axes {axes} must be sorted")
    return x.with_shape(tuple(n for k, n in enumerate(x.shape) if k not in axes))


def arg_reduction(x: TensorType, axis: int) -> TensorType:
    return ordered_reduction(x, (axis,)).with_dtype(int64)


def scan(x: TensorType, axis: int) -> TensorType:
    _axis_list((axis,), x.rank)
    return _kinds(x, "fciu", "numbers")


def ordered_scan(x: TensorType, axis: int) -> TensorType:
    return scan(ordered(x), axis)


def arg_sort(x: TensorType) -> TensorType:
    if x.rank == 0:
        raise ShapeError("needs at least one axis, got a scalar")
    return _kinds(ordered(x), "fiu", "numbers; cast bool to uint8").with_dtype(int64)


def last_axis(x: TensorType) -> TensorType:
    if x.rank == 0:
        raise ShapeError("needs at least one axis, got a scalar")
    return _kinds(x, "f", "floating-point numbers")


def last_axis_reduction(x: TensorType) -> TensorType:
    return last_axis(x).with_shape(x.shape[:-1])


# -- indexing --------------------------------------------------------------------------------------


def _index_axis(x: TensorType, indices: TensorType, axis: int) -> tuple[int, ...]:
    _axis_list((axis,), x.rank)
    if not indices.dtype.is_integer:
        raise DTypeError(f"indices must be integers, got {indices}")
    return (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def gather(x: TensorType, indices: TensorType, axis: int) -> TensorType:
    result = sized(x.with_shape(_index_axis(x, indices, axis)))
    if x.shape[axis] == 0 and result.size > 0:
        raise BoundsError(f"cannot take from the empty axis {axis} of {x}")
    return result


def scatter(x: TensorType, indices: TensorType, updates: TensorType, axis: int) -> TensorType:
    wanted = x.with_shape(_index_axis(x, indices, axis))
    if updates != wanted:
        raise ShapeError(f"updates for {x} at {indices} must be {wanted}, got {updates}")
    if x.shape[axis] == 0 and updates.size > 0:
        raise BoundsError(f"cannot write to the empty axis {axis} of {x}")
    return x


def scatter_add(x: TensorType, indices: TensorType, updates: TensorType, axis: int) -> TensorType:
    return scatter(_kinds(x, "fciu", "numbers"), indices, updates, axis)


# -- contraction -----------------------------------------------------------------------------------


def dot(a: TensorType, b: TensorType, contract: tuple[int, int]) -> TensorType:
    """[batch..., M, K] and [batch..., K, N] in any order of the last two -> [batch..., M, N]."""
    ca, cb = contract
    if a.rank < 2 or b.rank != a.rank or a.shape[:-2] != b.shape[:-2]:
        raise ShapeError(f"needs two matrices with equal batch axes, got {a} and {b}")
    if ca not in (a.rank - 2, a.rank - 1) or cb not in (b.rank - 2, b.rank - 1):
        raise ShapeError(f"contract={contract} must name one of the last two axes of {a} and {b}")
    if a.shape[ca] != b.shape[cb]:
        raise ShapeError(
            f"axis {ca} of {a} has {a.shape[ca]} elements, axis {cb} of {b} has {b.shape[cb]}; "
            "they must be equal"
        )
    _kinds(_same(a.with_shape(()), b.with_shape(())), "fciu", "numbers")
    m, n = a.shape[2 * a.rank - 3 - ca], b.shape[2 * b.rank - 3 - cb]
    return sized(a.with_shape((*a.shape[:-2], m, n)))


# -- conditions ------------------------------------------------------------------------------------


def check(x: TensorType, expected: bool) -> TensorType:
    if x != TensorType(bool_, ()):
        raise DTypeError(f"a condition is bool[], got {x}")
    return x


# -- several results and regions -------------------------------------------------------------------


def project(x: Type, index: int) -> TensorType:
    if not isinstance(x, TupleType) or not 0 <= index < len(x.items):
        raise IRError(f"no result {index} in {x}")
    return x.items[index]


def grad(*operands: TensorType, outputs: int = 1, forward: int = 0) -> TupleType:
    """Some outputs, a cotangent for each, and what to differentiate by: the cotangents of these.

    Forwards: some outputs, what to differentiate by, and a tangent for each: those of the outputs.
    """
    ends, rest = operands[:outputs], operands[outputs:]
    half = len(rest) // 2 if forward else outputs
    wrt = rest[:half] if forward else rest[half:]
    given = zip(wrt, rest[half:]) if forward else zip(ends, rest)
    name = "tangent" if forward else "cotangent"
    for like, found in given:
        if found != like:
            raise ShapeError(f"the {name} of {like} must have its type, got {found}")
    for type in (*ends, *wrt):
        _kinds(type, "fc", "floating-point values; integers and bool have no gradient")
    return TupleType(ends if forward else wrt)


def call(
    *args: TensorType,
    graph: Any,
    id: int = 0,
    recompute: tuple[int, ...] = (),
    backward: Any = None,
    outputs: int = 0,
) -> TupleType:
    wanted = tuple(node.type for node in (*graph.inputs, *graph.captures))
    if args != wanted:
        got, want = (", ".join(map(str, types)) for types in (args, wanted))
        raise ShapeError(f"{graph.name} takes ({want}), got ({got})")
    return TupleType(tuple(node.tensor for node in graph.outputs))
