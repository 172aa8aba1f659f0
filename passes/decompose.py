"""Pass `decompose`: state composite ops in simpler ones, so that fusion sees what they are made of.

softmax, log_softmax and logsumexp become a maximum, an exponential, a sum and what joins them.
Reductions get a normal form: rows [R, n] or [n] reduced over the last axis, or columns [O, R, C]
over the middle one; a reduction over both kinds of axes becomes two. Sums of half types become
sums of float32, rounded at the end. Convolutions have theirs in passes/convolutions.py. Every bit
stays: these are the definitions of ir/ops.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from einkorn.ir.dtypes import float32
from einkorn.ir.graph import Graph
from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.ir.rewrite import Rule, rewrite
from einkorn.passes.build import (
    add,
    broadcast,
    div,
    filled,
    reshape,
    select,
    sub,
    transpose,
)
from einkorn.passes.convolutions import RULES as CONVOLUTIONS

Ints = tuple[int, ...]


def decompose(graph: Graph) -> Graph:
    """The graph with composite ops and reductions in their normal forms."""
    return rewrite(graph, RULES)


def _is_half(node: Node) -> bool:
    return node.dtype.is_float and node.dtype.itemsize == 2


def _cast(x: Node, like: Node) -> Node:
    return x if x.dtype is like.dtype else make(Op.CAST, x, dtype=like.dtype)


def _widened(x: Node) -> Node:
    return make(Op.CAST, x, dtype=float32) if _is_half(x) else x


# -- softmax ---------------------------------------------------------------------------------------


def softmax(node: Node) -> Node | None:
    """exp(x - top) / sum(exp(x - top)), with top the maximum of the row"""
    if node.tensor.size == 0:
        return filled(node.tensor, 0)
    x = _widened(node.inputs[0])
    terms = make(Op.EXP, sub(x, _along(_reduced(Op.MAX, x), x)))
    return _cast(div(terms, _along(_reduced(Op.SUM, terms), x)), node)


def log_softmax(node: Node) -> Node | None:
    """(x - top) - log(sum(exp(x - top)))"""
    if node.tensor.size == 0:
        return filled(node.tensor, 0)
    x = _widened(node.inputs[0])
    moved = sub(x, _along(_reduced(Op.MAX, x), x))
    total = _reduced(Op.SUM, make(Op.EXP, moved))
    return _cast(sub(moved, _along(make(Op.LOG, total), x)), node)


def logsumexp(node: Node) -> Node | None:
    """top + log(sum(exp(x - top))), with 0 for a top that is not finite"""
    x = _widened(node.inputs[0])
    if x.tensor.size == 0:
        return filled(node.tensor, float("-inf"))
    top = _reduced(Op.MAX, x)
    shift = select(make(Op.ISFINITE, top), top, filled(top.tensor, 0))
    total = _reduced(Op.SUM, make(Op.EXP, sub(x, _along(shift, x))))
    return _cast(add(make(Op.LOG, total), shift), node)


def _reduced(op: Op, x: Node) -> Node:
    """A reduction over the last axis, in normal form."""
    plain = make(op, x, axes=(len(x.shape) - 1,))
    return normal_form(plain) or plain


def _along(x: Node, like: Node) -> Node:
    """One value for each row of `like`, repeated along the row."""
    return broadcast(reshape(x, (*x.shape, 1)), like.shape)


# -- reductions ------------------------------------------------------------------------------------


def normal_form(node: Node) -> Node | None:
    """sum(x, axes) -> reshape(sum(reshape(x, [R, n]), 1)), or [O, R, C] and axis 1"""
    (x,) = node.inputs
    if x.tensor.size == 0:
        return None
    if _is_half(node) and node.op in (Op.SUM, Op.PROD):
        return _cast(_normal(node.op, _widened(x), node.attr("axes")), node)
    found = _normal(node.op, x, node.attr("axes"))
    return None if found is node else found


def _normal(op: Op, x: Node, axes: Ints) -> Node:
    """`op` of `x` over `axes`; axes of one element do not count."""
    shape = tuple(n for k, n in enumerate(x.shape) if k not in axes)
    large = [k for k, n in enumerate(x.shape) if n != 1]
    sizes = tuple(x.shape[k] for k in large)
    reduced = tuple(place for place, k in enumerate(large) if k in axes)
    return reshape(_over(op, reshape(x, sizes), reduced), shape)


def _over(op: Op, x: Node, axes: Ints) -> Node:
    """A reduction of `x`, which has no axes of one element: the last axes, then the others."""
    if not axes:
        return x
    tail = len(x.shape)
    while tail - 1 in axes:
        tail -= 1
    rest = tuple(axis for axis in axes if axis < tail)
    if tail < len(x.shape):
        n = prod(x.shape[tail:])
        rows = reshape(x, (prod(x.shape[:tail]), n) if tail else (n,))
        total = make(op, rows, axes=(len(rows.shape) - 1,))
        return _over(op, reshape(total, x.shape[:tail]), rest)
    return _columns(op, x, axes)


def _columns(op: Op, x: Node, axes: Ints) -> Node:
    """A reduction over axes of which none is the last; they are brought together if need be."""
    kept = tuple(axis for axis in range(len(x.shape)) if axis not in axes)
    shape = tuple(x.shape[axis] for axis in kept)
    if axes != tuple(range(axes[0], axes[-1] + 1)):
        x = transpose(x, (*kept[:-1], *axes, kept[-1]))
        axes = tuple(range(len(kept) - 1, len(kept) - 1 + len(axes)))
    first, last = axes[0], axes[-1] + 1
    sizes = (prod(x.shape[:first]), prod(x.shape[first:last]), prod(x.shape[last:]))
    return reshape(make(op, reshape(x, sizes), axes=(1,)), shape)


RULES: Mapping[Op, Sequence[Rule]] = {
    Op.SOFTMAX: (softmax,),
    Op.LOG_SOFTMAX: (log_softmax,),
    Op.LOGSUMEXP: (logsumexp,),
    **dict.fromkeys((Op.SUM, Op.PROD, Op.MAX, Op.MIN), (normal_form,)),
    **CONVOLUTIONS,
}
