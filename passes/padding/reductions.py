"""Padding of reductions, scans and sorting: what is behind becomes what changes nothing.

The canonical orders (ir/ops.py) make appended neutral elements invisible to the bit. The elements
are appended where the padded axis is the first of those that are reduced together, flattened;
where it is not, they are brought together without padding first.
"""

from __future__ import annotations

from math import inf, nan, prod

import numpy as np

from einkorn.ir.dtypes import DType, float32
from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.ir.sizes import Size
from einkorn.passes.build import reshape, transpose
from einkorn.passes.padding.context import Ints, Padding, Rule, same


def least(dtype: DType) -> float | int:
    """The smallest value of a dtype."""
    if dtype.is_float:
        return -inf
    return 0 if dtype.kind == "b" else int(np.iinfo(dtype.numpy).min)


def largest(dtype: DType) -> float | int:
    """The largest value of a dtype."""
    if dtype.is_float:
        return inf
    return 1 if dtype.kind == "b" else int(np.iinfo(dtype.numpy).max)


def neutral(op: Op, dtype: DType) -> float | int:
    """What changes no reduction, not even that of -0.0."""
    if op is Op.SUM:
        return -0.0 if dtype.is_float else 0
    if op is Op.PROD:
        return 1
    return least(dtype) if op in (Op.MAX, Op.ARGMAX) else largest(dtype)


def reduced(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """A reduction with its neutral element in the padding of the axes that it goes over."""
    source = node.inputs[0]
    axes: Ints = node.attr("axes")
    if any(isinstance(source.shape[k], Size) for group in _together(node) for k in group[1:]):
        return pad(_separated(node))
    fill = neutral(node.op, source.dtype)
    return make(node.op, pad.cleared(operands[0], source.shape, axes, fill), axes=axes)


def _together(node: Node) -> list[list[int]]:
    """The axes that are flattened and reduced as one: the trailing ones, and the others."""
    shape = node.inputs[0].shape
    axes: Ints = node.attr("axes")
    large = [k for k, n in enumerate(shape) if n != 1]  # decided for every length
    tail = len(large)
    while tail and large[tail - 1] in axes:
        tail -= 1
    return [[k for k in large[:tail] if k in axes], large[tail:]]


def _separated(node: Node) -> Node:
    """The same reduction, each group of axes made one axis first, in float32 for half types."""
    (x,) = node.inputs
    half = node.dtype.is_float and node.dtype.itemsize == 2 and node.op in (Op.SUM, Op.PROD)
    x = make(Op.CAST, x, dtype=float32) if half else x
    others, trailing = _together(node)
    kept = [k for k in range(len(x.shape)) if k not in (*others, *trailing)]
    large = [k for k in kept if x.shape[k] != 1]
    shape, sizes = x.shape, tuple(x.shape[k] for k in large)
    if trailing:
        front = tuple(shape[k] for k in sorted((*large, *others)))
        x = reshape(x, (*front, prod(shape[k] for k in trailing)))
        x = make(node.op, x, axes=(len(front),))
    if others:
        present = sorted((*large, *others))
        x = reshape(x, tuple(shape[k] for k in present))
        order = [present.index(k) for k in (*large[:-1], *others, *large[-1:])]
        x = transpose(x, tuple(order))
        x = reshape(x, (*sizes[:-1], prod(shape[k] for k in others), *sizes[-1:]))
        x = make(node.op, x, axes=(max(len(large) - 1, 0),))
    x = reshape(x, node.shape)
    return make(Op.CAST, x, dtype=node.dtype) if half else x


def chosen(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """The position of the first extreme: what is behind is no more extreme than any."""
    source = node.inputs[0]
    axis: int = node.attr("axis")
    fill = neutral(node.op, source.dtype) if node.op is Op.ARGMAX else largest(source.dtype)
    return make(node.op, pad.cleared(operands[0], source.shape, (axis,), fill), axis=axis)


def sorted_(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """Ascending and stable: what counts as largest and comes last stays last."""
    source = node.inputs[0]
    fill = nan if source.dtype.is_float else largest(source.dtype)
    last = len(source.shape) - 1
    return make(Op.ARGSORT, pad.cleared(operands[0], source.shape, (last,), fill))


def normalized(pad: Padding, node: Node, operands: tuple[Node, ...]) -> Node:
    """The softmax family along a padded last axis: exp(-inf) adds +0 to a sum of exponentials."""
    source = node.inputs[0]
    last = len(source.shape) - 1
    return make(node.op, pad.cleared(operands[0], source.shape, (last,), -inf))


RULES: dict[Op, Rule] = {
    **dict.fromkeys((Op.SUM, Op.PROD, Op.MAX, Op.MIN), reduced),
    Op.ARGMAX: chosen,
    Op.ARGMIN: chosen,
    Op.ARGSORT: sorted_,
    **dict.fromkeys((Op.CUMSUM, Op.CUMPROD, Op.CUMMAX, Op.CUMMIN), same),  # the front, in order
    **dict.fromkeys((Op.SOFTMAX, Op.LOG_SOFTMAX, Op.LOGSUMEXP), normalized),
}
