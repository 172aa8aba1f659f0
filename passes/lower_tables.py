"""Lowering of indexing, random bits, padding and joining; and the table of all."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from einkorn.ir.dtypes import DType, float32
from einkorn.ir.host_calls import is_host_node
from einkorn.ir.loops import (
    COLUMN_CHUNK,
    RANDOM_CHUNK,
    Check,
    Expr,
    Gather,
    RandomBits,
    Scatter,
)
from einkorn.ir.machine import Machine
from einkorn.ir.node import Node, constant
from einkorn.ir.ops import Op
from einkorn.passes import lower_control, lower_conv, lower_dot, lower_host, lower_windows
from einkorn.passes.costs import LAUNCH_NS
from einkorn.passes.launches import Buffer, Groups, Launches
from einkorn.passes.lower import Lowering, Nested
from einkorn.passes.lower_loops import empty_reduction, loops
from einkorn.passes.lower_scans import arg_sort, middle_axis
from einkorn.passes.views import View, dense_strides

Ints = tuple[int, ...]
Operand = tuple[Buffer, int]


def gather(lowering: Lowering, node: Node) -> None:
    """GATHER along one axis."""
    if node.tensor.size == 0:
        return
    source, indices = node.inputs
    sizes = _index_sizes(source, indices, node.attr("axis"))
    if source.dtype.is_complex:
        sizes = (*sizes[:-1], 2 * sizes[-1])
    views = [lowering.dense(x) for x in node.inputs]
    buffer = lowering.result(node)
    outer, _, count, inner = sizes
    work = outer * count
    cost = LAUNCH_NS + work * (4 + inner * 0.3)
    lowering.launch(
        Gather(source.dtype.real.itemsize, indices.dtype),
        tuple(lowering.operand(view) for view in views),
        buffer,
        sizes,
        work,
        cost,
        node,
        refuses=True,
    )


def scatter(lowering: Lowering, node: Node) -> None:
    """SCATTER_ADD, SCATTER_SET: a copy of x, then the updates in order; halves add in float32."""
    if node.tensor.size == 0:
        return
    source, _, updates = node.inputs
    half = node.dtype.is_float and node.dtype.itemsize == 2
    wide = float32 if half and node.op is Op.SCATTER_ADD else node.dtype
    if wide is not node.dtype:
        rows = _converted(lowering, updates, wide)
        out = _converted(lowering, source, wide)
        _scatter(lowering, node, wide, (rows, 0), out)
        buffer = lowering.result(node)
        narrow = View(constant(wide, 0), 0, node.shape, dense_strides(node.shape))
        body = (Expr(Op.CAST, (0,), node.dtype),)
        target = lowering.views[node]
        lowering.nest(target, buffer, [(out, narrow)], body, 1, lowering.label(node))
        return
    rows_view = lowering.dense(updates)
    buffer = lowering.result(node)
    lowering.copy(lowering.view(source), buffer, lowering.views[node], node)
    _scatter(lowering, node, wide, lowering.operand(rows_view), buffer)


def _converted(lowering: Lowering, source: Node, dtype: DType) -> Buffer:
    """A dense copy of a node in another dtype."""
    type = source.tensor.with_dtype(dtype)
    buffer = lowering.temporary(type, f"copy {type}")
    target = View(constant(dtype, 0), 0, source.shape, dense_strides(source.shape))
    body = (Expr(Op.CAST, (0,), dtype),)
    view = lowering.view(source)
    lowering.nest(target, buffer, [view], body, 1, lowering.label(source))
    return buffer


def _scatter(lowering: Lowering, node: Node, dtype: DType, rows: Operand, buffer: Buffer) -> None:
    """The updates of a scatter into a buffer that already holds x."""
    source, indices, _ = node.inputs
    sizes = _index_sizes(source, indices, node.attr("axis"))
    if dtype.is_complex:
        sizes, dtype = (*sizes[:-1], 2 * sizes[-1]), dtype.real
    where = lowering.operand(lowering.dense(indices))
    outer, _, count, inner = sizes
    work = outer * -(-inner // COLUMN_CHUNK) if count else 0
    cost = LAUNCH_NS + outer * count * (4 + inner * 0.3)
    lowering.launch(
        Scatter(node.op, dtype, indices.dtype),
        (where, rows),
        buffer,
        sizes,
        work,
        cost,
        node,
        refuses=True,
    )


def _index_sizes(source: Node, indices: Node, axis: int) -> Ints:
    outer, inner = prod(source.shape[:axis]), prod(source.shape[axis + 1 :])
    return outer, source.shape[axis], indices.tensor.size, inner


def random_bits(lowering: Lowering, node: Node) -> None:
    """RANDOM_BITS: one Philox block for every four elements."""
    n = node.tensor.size
    if n == 0:
        return
    operands = tuple(lowering.operand(lowering.view(x)) for x in node.inputs)
    buffer = lowering.result(node)
    work = -(-n // RANDOM_CHUNK)
    cost = LAUNCH_NS + n * 1.0
    lowering.launch(
        RandomBits(),
        operands,
        buffer,
        (n,),
        work,
        cost,
        node,
    )


def check(lowering: Lowering, node: Node) -> None:
    """CHECK: one bool, passed on."""
    operand = lowering.operand(lowering.view(node.inputs[0]))
    buffer = lowering.result(node)
    params = (int(node.attr("expected")),)
    lowering.launch(Check(), (operand,), buffer, params, 1, LAUNCH_NS, node, refuses=True)


def pad(lowering: Lowering, node: Node) -> None:
    """PAD: fill, then copy the operand into its place."""
    if node.tensor.size == 0:
        return
    source, value = node.inputs
    buffer = lowering.result(node)
    target = lowering.views[node]
    lowering.fill(value, buffer, target)
    low, interior = node.attr("low"), node.attr("interior")
    offset = sum(a * stride for a, stride in zip(low, target.strides))
    strides = tuple((gap + 1) * stride for gap, stride in zip(interior, target.strides))
    lowering.copy(lowering.view(source), buffer, View(node, offset, source.shape, strides), node)


def concat(lowering: Lowering, node: Node) -> None:
    """CONCAT: copy every part into its place."""
    buffer = lowering.result(node)
    target = lowering.views[node]
    axis: int = node.attr("axis")
    offset = 0
    for part in node.inputs:
        place = View(node, offset, part.shape, target.strides)
        lowering.copy(lowering.view(part), buffer, place, node)
        offset += part.shape[axis] * target.strides[axis]


def iota(lowering: Lowering, node: Node) -> None:
    """IOTA: the index along the one axis."""
    buffer = lowering.result(node)
    body = (Expr(Op.IOTA, (), node.dtype),)
    lowering.nest(lowering.views[node], buffer, [], body, 0, lowering.label(node))


CONTRACTIONS = {
    Op.DOT: lower_dot.dot,
    Op.CONV: lower_conv.conv,
    Op.CONV_FILTER: lower_conv.conv_filter,
}

LOWER: dict[Op, Callable[[Lowering, Node], None]] = {
    **CONTRACTIONS,
    Op.GATHER: gather,
    Op.SCATTER_ADD: scatter,
    Op.SCATTER_SET: scatter,
    Op.RANDOM_BITS: random_bits,
    Op.CHECK: check,
    Op.PAD: pad,
    Op.CONCAT: concat,
    Op.IOTA: iota,
    Op.SUM: empty_reduction,
    Op.PROD: empty_reduction,
    Op.MAX: empty_reduction,
    Op.MIN: empty_reduction,
    Op.ARGMAX: middle_axis,
    Op.ARGMIN: middle_axis,
    Op.ARGSORT: arg_sort,
    Op.CUMSUM: middle_axis,
    Op.CUMPROD: middle_axis,
    Op.CUMMAX: middle_axis,
    Op.CUMMIN: middle_axis,
    Op.WINDOW_PICK: lower_windows.over_windows,
    Op.WINDOW_PLACE: lower_windows.place,
    Op.WINDOW_SUM: lower_windows.over_windows,
    Op.HOST: lower_host.host,
    **lower_control.LOWER,
}


def lower(groups: Groups, machine: Machine, nested: Nested | None = None) -> Launches:
    """The launches of every group, in order, then the copies that results need.

    Args:
        groups: what is computed together.
        machine: facts of the target.
        nested: makes the programs of closed graphs that control flow applies.
    """
    lowering = Lowering(groups, machine, nested)
    for group in groups.groups:
        if group.kind == "single":
            (node,) = group.members
            rule = lower_host.host if is_host_node(node) else LOWER[node.op]
            rule(lowering, node)
        elif group.kind == "dot":
            node, *members = group.members
            CONTRACTIONS[node.op](lowering, node, members, group.results)
        else:
            loops(lowering, group)
    return lowering.finish()
