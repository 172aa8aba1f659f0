"""Pass: exact identities only. Never changes a shape, a dtype, a bit, or a NaN into a number.

Runs after autodiff, so aliases and stop_gradient have served. A rule may look at a constant only
where the identity is exact; calls and regions stay as they are, and so do gather and scatter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from einkorn.ir.dtypes import DType
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, constant, constant_value, is_const, make
from einkorn.ir.ops import Op
from einkorn.ir.rewrite import Allow, Rule, always, rewrite
from einkorn.passes.turned_dots import turn_dots

_MANTISSA = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
_EXPONENT = {"float16": 5, "bfloat16": 8, "float32": 8, "float64": 11}


def simplify(graph: Graph, *, allow: Allow = always) -> Graph:
    """Apply the identities of ALGEBRA until none matches, then turn transposed products."""
    return turn_dots(rewrite(graph, ALGEBRA, allow=allow), allow=allow)


def widens(source: DType, target: DType) -> bool:
    """Whether every value of `source` is a value of `target`, so that a cast is exact."""
    if source is target or source.kind == "b":
        return True
    if target.kind == "b":
        return False
    if source.is_float:
        return target.is_float and (
            _MANTISSA[source.name] <= _MANTISSA[target.name]
            and _EXPONENT[source.name] <= _EXPONENT[target.name]
        )
    digits = source.bits - (source.kind == "i")
    if target.is_float:
        return digits <= _MANTISSA[target.name]
    if source.kind == "i" and target.kind == "u":
        return False
    return digits <= target.bits - (target.kind == "i")


def filled(scalar: Node, shape: tuple[int, ...]) -> Node:
    """The scalar at every index of `shape`."""
    return make(Op.BROADCAST, scalar, shape=shape) if shape else scalar


def fill_of(node: Node) -> Node | None:
    """The scalar that a node holds at every index, when that shows; itself for rank 0."""
    while node.op is Op.BROADCAST:
        node = node.inputs[0]
    return node if node.tensor.rank == 0 else None


def _constant_like(node: Node, value: float) -> Node:
    return filled(constant(node.dtype, value), node.shape)


def _beside(node: Node, value: float) -> Node | None:
    """The operand of a commutative node beside the constant `value`."""
    x, y = node.inputs
    if is_const(y, value):
        return x
    return y if is_const(x, value) else None


def _same_operands(node: Node) -> bool:
    return node.inputs[0] is node.inputs[1]


# -- arithmetic ------------------------------------------------------------------------------------


def add_zero(node: Node) -> Node | None:
    """x + 0 -> x; for floats the zero is -0.0, because -0.0 + 0.0 is 0.0"""
    return _beside(node, -0.0 if node.dtype.is_float else 0)


def add_negative(node: Node) -> Node | None:
    """x + neg(y) -> x - y; neg(x) + y -> y - x"""
    x, y = node.inputs
    if y.op is Op.NEG:
        return make(Op.SUB, x, y.inputs[0])
    return make(Op.SUB, y, x.inputs[0]) if x.op is Op.NEG else None


def subtract_zero(node: Node) -> Node | None:
    """x - 0 -> x; for floats the zero is +0.0, because -0.0 - -0.0 is 0.0"""
    x, y = node.inputs
    return x if is_const(y, 0) else None


def subtract_negative(node: Node) -> Node | None:
    """x - neg(y) -> x + y"""
    x, y = node.inputs
    return make(Op.ADD, x, y.inputs[0]) if y.op is Op.NEG else None


def subtract_self(node: Node) -> Node | None:
    """x - x -> 0, for integers only: a float may be NaN or infinite"""
    if node.dtype.is_float or not _same_operands(node):
        return None
    return _constant_like(node, 0)


def multiply_one(node: Node) -> Node | None:
    """x * 1 -> x"""
    return _beside(node, 1)


def multiply_minus_one(node: Node) -> Node | None:
    """x * -1 -> neg(x)"""
    x = None if node.dtype.kind == "u" else _beside(node, -1)
    return None if x is None else make(Op.NEG, x)


def multiply_zero(node: Node) -> Node | None:
    """x * 0 -> 0, for integers only: a float may be negative, NaN or infinite"""
    if node.dtype.is_float or _beside(node, 0) is None:
        return None
    return _constant_like(node, 0)


def divide_one(node: Node) -> Node | None:
    """x / 1 -> x"""
    x, y = node.inputs
    return x if is_const(y, 1) else None


def floor_divide_one(node: Node) -> Node | None:
    """x // 1 -> x, for integers only"""
    x, y = node.inputs
    return x if is_const(y, 1) and node.dtype.is_integer else None


def power_one(node: Node) -> Node | None:
    """integer_pow(x, 1) -> x"""
    return node.inputs[0] if node.attr("exponent") == 1 else None


def twice(node: Node) -> Node | None:
    """neg(neg(x)) -> x; not(not(x)) -> x"""
    (x,) = node.inputs
    return x.inputs[0] if x.op is node.op else None


def again(node: Node) -> Node | None:
    """f(f(x)) -> f(x) for abs, sign, floor, ceil, round and trunc"""
    (x,) = node.inputs
    return x if x.op is node.op else None


def round_rounded(node: Node) -> Node | None:
    """f(g(x)) -> g(x) for f and g among floor, ceil, round and trunc"""
    (x,) = node.inputs
    return x if x.op in (Op.FLOOR, Op.CEIL, Op.ROUND, Op.TRUNC) else None


def abs_negative(node: Node) -> Node | None:
    """abs(neg(x)) -> abs(x), for signed numbers"""
    (x,) = node.inputs
    if x.op is not Op.NEG or node.dtype.kind == "u":
        return None
    return make(Op.ABS, x.inputs[0])


def abs_unsigned(node: Node) -> Node | None:
    """abs(x) -> x, for unsigned integers"""
    return node.inputs[0] if node.dtype.kind == "u" else None


def same(node: Node) -> Node | None:
    """f(x, x) -> x for maximum, minimum, and, or"""
    return node.inputs[0] if _same_operands(node) else None


# -- bits, comparisons, select ---------------------------------------------------------------------


def _all_ones(node: Node) -> int:
    return 1 if node.dtype.kind == "b" else -1


def and_ones(node: Node) -> Node | None:
    """x & ~0 -> x"""
    return _beside(node, _all_ones(node))


def and_zero(node: Node) -> Node | None:
    """x & 0 -> 0"""
    return None if _beside(node, 0) is None else _constant_like(node, 0)


def or_zero(node: Node) -> Node | None:
    """x | 0 -> x; x ^ 0 -> x"""
    return _beside(node, 0)


def or_ones(node: Node) -> Node | None:
    """x | ~0 -> ~0"""
    ones = _all_ones(node)
    return None if _beside(node, ones) is None else _constant_like(node, ones)


def xor_self(node: Node) -> Node | None:
    """x ^ x -> 0"""
    return _constant_like(node, 0) if _same_operands(node) else None


def shift_zero(node: Node) -> Node | None:
    """x << 0 -> x; x >> 0 -> x"""
    x, y = node.inputs
    return x if is_const(y, 0) else None


def compare_self(node: Node) -> Node | None:
    """x == x -> true, x < x -> false and so on; a float may be NaN, so only `<` and `>` there"""
    x, _ = node.inputs
    if not _same_operands(node) or (x.dtype.is_float and node.op not in (Op.LT, Op.GT)):
        return None
    return _constant_like(node, node.op in (Op.EQ, Op.LE, Op.GE))


def select_constant(node: Node) -> Node | None:
    """select(true, x, y) -> x; select(false, x, y) -> y"""
    condition, yes, no = node.inputs
    scalar = fill_of(condition)
    if scalar is None or scalar.op is not Op.CONST:
        return None
    return yes if constant_value(scalar) else no


def select_same(node: Node) -> Node | None:
    """select(c, x, x) -> x"""
    _, yes, no = node.inputs
    return yes if yes is no else None


def select_not(node: Node) -> Node | None:
    """select(not(c), x, y) -> select(c, y, x)"""
    condition, yes, no = node.inputs
    return make(Op.SELECT, condition.inputs[0], no, yes) if condition.op is Op.NOT else None


# -- casts -----------------------------------------------------------------------------------------


def cast_same(node: Node) -> Node | None:
    """cast(x, its dtype) -> x"""
    (x,) = node.inputs
    return x if x.dtype is node.dtype else None


def cast_chain(node: Node) -> Node | None:
    """cast(cast(x, wider), dtype) -> cast(x, dtype), where the first cast keeps every value

    Integers wrap around into integers but floats saturate, so an integer that passes through a
    float and becomes an integer again keeps the chain, unless the result is of its own dtype.
    """
    (inner,) = node.inputs
    if inner.op is not Op.CAST:
        return None
    (x,) = inner.inputs
    if not widens(x.dtype, inner.dtype):
        return None
    through_float = x.dtype.is_integer and inner.dtype.is_float and node.dtype.is_integer
    if through_float and not widens(x.dtype, node.dtype):
        return None
    return make(Op.CAST, x, dtype=node.dtype)


def cast_round_trip(node: Node) -> Node | None:
    """cast(cast(x, wider), dtype of x) -> x, for integers also of another sign"""
    (inner,) = node.inputs
    if inner.op is not Op.CAST or inner.inputs[0].dtype is not node.dtype:
        return None
    integers = node.dtype.is_integer and inner.dtype.is_integer
    if integers and inner.dtype.itemsize >= node.dtype.itemsize:
        return inner.inputs[0]
    return inner.inputs[0] if widens(node.dtype, inner.dtype) else None


# -- movement --------------------------------------------------------------------------------------


def move_filled(node: Node) -> Node | None:
    """move(broadcast(scalar)) -> broadcast(scalar), for reshape, transpose, slice and flip"""
    (x,) = node.inputs
    scalar = fill_of(x)
    if scalar is None or (scalar is x and x.op is not Op.CONST):
        return None
    return filled(scalar, node.shape)


def move_nothing(node: Node) -> Node | None:
    """reshape(x, its shape) -> x; broadcast(x, its shape) -> x"""
    (x,) = node.inputs
    return x if x.shape == node.shape else None


def reshape_reshape(node: Node) -> Node | None:
    """reshape(reshape(x)) -> reshape(x)"""
    (x,) = node.inputs
    return make(Op.RESHAPE, x.inputs[0], shape=node.shape) if x.op is Op.RESHAPE else None


def broadcast_broadcast(node: Node) -> Node | None:
    """broadcast(broadcast(x)) -> broadcast(x)"""
    (x,) = node.inputs
    return make(Op.BROADCAST, x.inputs[0], shape=node.shape) if x.op is Op.BROADCAST else None


def transpose_nothing(node: Node) -> Node | None:
    """transpose(x, axes in order) -> x"""
    axes = node.attr("axes")
    return node.inputs[0] if axes == tuple(range(len(axes))) else None


def transpose_transpose(node: Node) -> Node | None:
    """transpose(transpose(x, a), b) -> transpose(x, a[b])"""
    (x,) = node.inputs
    if x.op is not Op.TRANSPOSE:
        return None
    inner = x.attr("axes")
    return make(Op.TRANSPOSE, x.inputs[0], axes=tuple(inner[axis] for axis in node.attr("axes")))


def slice_nothing(node: Node) -> Node | None:
    """slice(x, everything) -> x"""
    (x,) = node.inputs
    return x if x.shape == node.shape and not any(node.attr("starts")) else None


def slice_slice(node: Node) -> Node | None:
    """slice(slice(x)) -> slice(x)"""
    (x,) = node.inputs
    if x.op is not Op.SLICE:
        return None
    starts: list[int] = []
    stops: list[int] = []
    steps: list[int] = []
    outer = zip(node.attr("starts"), node.attr("steps"), node.shape)
    for (start, step, size), first, limit, stride in zip(
        outer, x.attr("starts"), x.attr("stops"), x.attr("steps")
    ):
        begin = min(first + start * stride, limit)
        starts.append(begin)
        stops.append(begin + (size - 1) * step * stride + 1 if size else begin)
        steps.append(step * stride)
    return make(Op.SLICE, x.inputs[0], starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def flip_nothing(node: Node) -> Node | None:
    """flip(x, axes of at most one element) -> x"""
    (x,) = node.inputs
    axes: tuple[int, ...] = node.attr("axes")
    return x if all(x.shape[axis] <= 1 for axis in axes) else None


def flip_flip(node: Node) -> Node | None:
    """flip(flip(x, a), b) -> flip(x, the axes in one of a and b)"""
    (x,) = node.inputs
    if x.op is not Op.FLIP:
        return None
    axes = set(x.attr("axes")) ^ set(node.attr("axes"))
    return make(Op.FLIP, x.inputs[0], axes=tuple(sorted(axes)))


def pad_nothing(node: Node) -> Node | None:
    """pad(x, by nothing) -> x"""
    x, _ = node.inputs
    return x if x.shape == node.shape else None


def concat_one(node: Node) -> Node | None:
    """concat(x) -> x"""
    return node.inputs[0] if len(node.inputs) == 1 else None


def concat_empty(node: Node) -> Node | None:
    """concat(x, empty, y) -> concat(x, y)"""
    axis = node.attr("axis")
    parts = [x for x in node.inputs if x.shape[axis] > 0]
    if len(parts) == len(node.inputs):
        return None
    return make(Op.CONCAT, *(parts or node.inputs[:1]), axis=axis)


# -- reductions, aliases ---------------------------------------------------------------------------


def reduce_one(node: Node) -> Node | None:
    """reduce(x, axes of one element) -> reshape(x)"""
    (x,) = node.inputs
    axes: tuple[int, ...] = node.attr("axes")
    if any(x.shape[axis] != 1 for axis in axes):
        return None
    return x if x.shape == node.shape else make(Op.RESHAPE, x, shape=node.shape)


def scan_one(node: Node) -> Node | None:
    """cumsum(x, an axis of at most one element) -> x; the other scans too"""
    (x,) = node.inputs
    return x if x.shape[node.attr("axis")] <= 1 else None


def drop_alias(node: Node) -> Node | None:
    """alias(x) -> x; stop_gradient(x) -> x"""
    return node.inputs[0]


_ROUND = (round_rounded,)
_COMPARE = (compare_self,)
_REDUCE = (reduce_one,)

ALGEBRA: Mapping[Op, Sequence[Rule]] = {
    Op.ADD: (add_zero, add_negative),
    Op.SUB: (subtract_zero, subtract_negative, subtract_self),
    Op.MUL: (multiply_one, multiply_minus_one, multiply_zero),
    Op.DIV: (divide_one,),
    Op.FLOOR_DIV: (floor_divide_one,),
    Op.INTEGER_POW: (power_one,),
    Op.NEG: (twice,),
    Op.ABS: (abs_unsigned, again, abs_negative),
    Op.SIGN: (again,),
    Op.FLOOR: _ROUND,
    Op.CEIL: _ROUND,
    Op.ROUND: _ROUND,
    Op.TRUNC: _ROUND,
    Op.MAXIMUM: (same,),
    Op.MINIMUM: (same,),
    Op.NOT: (twice,),
    Op.AND: (same, and_ones, and_zero),
    Op.OR: (same, or_zero, or_ones),
    Op.XOR: (or_zero, xor_self),
    Op.SHIFT_LEFT: (shift_zero,),
    Op.SHIFT_RIGHT: (shift_zero,),
    Op.EQ: _COMPARE,
    Op.NE: _COMPARE,
    Op.LT: _COMPARE,
    Op.LE: _COMPARE,
    Op.GT: _COMPARE,
    Op.GE: _COMPARE,
    Op.SELECT: (select_constant, select_same, select_not),
    Op.CAST: (cast_same, cast_round_trip, cast_chain),
    Op.RESHAPE: (move_nothing, move_filled, reshape_reshape),
    Op.BROADCAST: (move_nothing, broadcast_broadcast),
    Op.TRANSPOSE: (transpose_nothing, move_filled, transpose_transpose),
    Op.SLICE: (slice_nothing, move_filled, slice_slice),
    Op.FLIP: (flip_nothing, move_filled, flip_flip),
    Op.PAD: (pad_nothing,),
    Op.CONCAT: (concat_one, concat_empty),
    Op.SUM: _REDUCE,
    Op.PROD: _REDUCE,
    Op.MAX: _REDUCE,
    Op.MIN: _REDUCE,
    Op.CUMSUM: (scan_one,),
    Op.CUMPROD: (scan_one,),
    Op.CUMMAX: (scan_one,),
    Op.CUMMIN: (scan_one,),
    Op.ALIAS: (drop_alias,),
    Op.STOP_GRADIENT: (drop_alias,),
}
"""The rules of each op, in the order in which they are tried."""
