"""Lowering of reductions, scans, softmax and arg-reductions.

A reduction drops axes of one element, reduces the axes at the end as rows, then the others as
columns (the order that ir/ops.py states); half types keep float32 between the two.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from einkorn.ir.dtypes import DType, float32
from einkorn.ir.loops import COLUMN_CHUNK, Access, ArgReduce, LoopKernel, RowSoftmax, Scan
from einkorn.ir.node import Node, constant
from einkorn.ir.ops import Op
from einkorn.passes.costs import BYTE_NS, LAUNCH_NS, grain_of
from einkorn.passes.launches import Buffer, Launch
from einkorn.passes.lower import Lowering, inner_class
from einkorn.passes.views import View, dense_strides, merge_axes

Ints = tuple[int, ...]
_EMPTY = {Op.SUM: 0, Op.PROD: 1}


def reduce(lowering: Lowering, node: Node) -> None:
    """SUM, PROD, MAX, MIN."""
    source = node.inputs[0]
    if source.tensor.size == 0:
        if node.tensor.size:
            buffer = lowering.result(node)
            neutral = constant(node.dtype, _EMPTY[node.op])
            lowering.fill(neutral, buffer, lowering.views[node])
        return
    view, axes = _without_ones(lowering.view(source), node.attr("axes"))
    tail = _tail(view, axes)
    rest = tuple(axis for axis in axes if axis < tail)
    wide = float32 if node.dtype.is_float and node.dtype.itemsize == 2 else node.dtype
    if not axes:
        buffer = lowering.result(node)
        target = replace(lowering.views[node], shape=view.shape, strides=dense_strides(view.shape))
        lowering.copy(view, buffer, target, node)
    elif not rest:
        _rows(lowering, node, view, tail, lowering.result(node), node.dtype)
    elif tail == len(view.shape):
        _columns(lowering, node, lowering.operand(view), view, rest, view.base.dtype)
    else:
        kept = view.shape[:tail]
        partial = Buffer("row partials", prod(kept) * wide.itemsize)
        _rows(lowering, node, view, tail, partial, wide)
        dense = View(node, 0, kept, dense_strides(kept))
        _columns(lowering, node, (partial, 0), dense, rest, wide)


def _without_ones(view: View, axes: Ints) -> tuple[View, Ints]:
    """The view without axes of one element, and the reduced axes that remain, renumbered."""
    kept = [axis for axis, n in enumerate(view.shape) if n != 1]
    shape = tuple(view.shape[axis] for axis in kept)
    strides = tuple(view.strides[axis] for axis in kept)
    renumbered = tuple(k for k, axis in enumerate(kept) if axis in axes)
    return replace(view, shape=shape, strides=strides), renumbered


def _tail(view: View, axes: Ints) -> int:
    """The first of the reduced axes that stand together at the end."""
    tail = len(view.shape)
    while tail - 1 in axes:
        tail -= 1
    return tail


def _dense_copy(
    lowering: Lowering,
    node: Node,
    source: tuple[Buffer, int],
    view: View,
    dtype: DType,
    order: Ints,
) -> tuple[tuple[Buffer, int], View]:
    """A dense copy of a view with its axes in another order."""
    shape = tuple(view.shape[axis] for axis in order)
    moved = replace(view, shape=shape, strides=tuple(view.strides[axis] for axis in order))
    buffer = Buffer("reduction copy", prod(shape) * dtype.itemsize)
    _copy_raw(lowering, source, moved, buffer, dtype, node)
    return (buffer, 0), View(view.base, 0, shape, dense_strides(shape))


def _copy_raw(
    lowering: Lowering,
    source: tuple[Buffer, int],
    view: View,
    buffer: Buffer,
    dtype: DType,
    node: Node,
) -> None:
    rows = [view.strides, dense_strides(view.shape)]
    extents, strides = merge_axes(view.shape, rows)
    load, store = (Access(dtype, inner_class(row)) for row in strides)
    kernel = LoopKernel(len(extents), (load,), (), ((store, 0),))
    work = extents[0] if len(extents) == 1 else prod(extents[:-1])
    cost = LAUNCH_NS + view.size * dtype.itemsize * 4 * BYTE_NS
    params = (*extents, *(n for row in strides for n in row))
    grain = grain_of(work, cost, 16 if len(extents) == 1 else 1)
    label = lowering.label(node) + " copy"
    lowering.emit(Launch(kernel, (source,), ((buffer, 0),), params, work, grain, cost, label))


def _rows(
    lowering: Lowering, node: Node, view: View, tail: int, buffer: Buffer, dtype: DType
) -> None:
    """Reduce the axes from `tail` on, flattened, into dense [kept axes]."""
    source = lowering.operand(view)
    row, (row_strides,) = merge_axes(view.shape[tail:], [view.strides[tail:]])
    if len(row) > 1:
        order = tuple(range(len(view.shape)))
        source, view = _dense_copy(lowering, node, source, view, view.base.dtype, order)
        row, row_strides = (prod(view.shape[tail:]),), (1,)
    kept, strides = view.shape[:tail], view.strides[:tail]
    extents: Ints = ()
    outer: list[Ints] = [(), ()]
    if kept:
        extents, outer = merge_axes(kept, [strides, dense_strides(kept)])
    loads = (*outer[0], *row_strides)
    stores = (*outer[1], 0)
    load = Access(view.base.dtype, inner_class(row_strides))
    kernel = LoopKernel(
        len(extents) + 1, (load,), (), ((Access(dtype, "zero"), 0),), "rows", node.op
    )
    work = prod(extents)
    cost = LAUNCH_NS + view.size * (0.05 + BYTE_NS * load.dtype.itemsize)
    params = (*extents, *row, *loads, *stores)
    lowering.launch(
        kernel,
        (source,),
        buffer,
        params,
        work,
        cost,
        node,
    )


def _columns(
    lowering: Lowering,
    node: Node,
    source: tuple[Buffer, int],
    view: View,
    axes: Ints,
    dtype: DType,
) -> None:
    """Reduce `axes`, none of them the last, into dense [other axes]: the node's result."""
    kept = [axis for axis in range(len(view.shape)) if axis not in axes]
    reduced, (reduced_strides,) = merge_axes(
        [view.shape[axis] for axis in axes], [tuple(view.strides[axis] for axis in axes)]
    )
    if len(reduced) > 1:
        order = (*kept[:-1], *axes, kept[-1])
        source, view = _dense_copy(lowering, node, source, view, dtype, order)
        first = len(kept) - 1
        axes = tuple(range(first, first + len(axes)))
        kept = [axis for axis in range(len(view.shape)) if axis not in axes]
        reduced, reduced_strides = (
            (prod(view.shape[axis] for axis in axes),),
            (view.strides[axes[-1]],),
        )
    shape = tuple(view.shape[axis] for axis in kept)
    buffer = lowering.result(node)
    extents, (load_row, store_row) = merge_axes(
        shape, [tuple(view.strides[axis] for axis in kept), dense_strides(shape)]
    )
    load = Access(dtype, inner_class(load_row))
    store = Access(node.dtype, inner_class(store_row))
    kernel = LoopKernel(len(extents) + 1, (load,), (), ((store, 0),), "columns", node.op)
    params = (
        *(*extents[:-1], *reduced, extents[-1]),
        *(*load_row[:-1], *reduced_strides, load_row[-1]),
        *(*store_row[:-1], 0, store_row[-1]),
    )
    work = prod(extents[:-1]) * -(-extents[-1] // COLUMN_CHUNK)
    cost = LAUNCH_NS + view.size * (0.05 + BYTE_NS * dtype.itemsize)
    lowering.launch(kernel, (source,), buffer, params, work, cost, node)


def softmax(lowering: Lowering, node: Node) -> None:
    """SOFTMAX, LOG_SOFTMAX, LOGSUMEXP over the last axis."""
    source = node.inputs[0]
    if source.tensor.size == 0:
        if node.tensor.size:  # a log-sum-exp over nothing
            buffer = lowering.result(node)
            lowering.fill(constant(node.dtype, float("-inf")), buffer, lowering.views[node])
        return
    view = lowering.view(source)
    n = view.shape[-1]
    outer: Ints = (1,)
    strides: Ints = (n,)
    if view.shape[:-1]:
        outer, (strides,) = merge_axes(view.shape[:-1], [view.strides[:-1]])
    if len(outer) > 1 or (n > 1 and view.strides[-1] != 1):
        view = lowering.dense(source)
        outer, strides = (prod(view.shape[:-1]),), (n,)
    rows = prod(outer)
    buffer = lowering.result(node)
    step = 1 if node.op is Op.LOGSUMEXP else n
    cost = LAUNCH_NS + rows * (20 + n * 1.0)
    lowering.launch(
        RowSoftmax(node.op, node.dtype),
        (lowering.operand(view),),
        buffer,
        (rows, n, strides[0], step),
        rows,
        cost,
        node,
    )


def middle_axis(lowering: Lowering, node: Node) -> None:
    """CUMSUM, ARGMAX, ARGMIN: dense [outer, n, inner] around the axis."""
    if node.tensor.size == 0:
        return
    source = node.inputs[0]
    axis: int = node.attr("axis")
    view = lowering.dense(source)
    n = source.shape[axis]
    outer, inner = prod(source.shape[:axis]), prod(source.shape[axis + 1 :])
    dtype = source.dtype
    kernel = Scan(dtype) if node.op is Op.CUMSUM else ArgReduce(node.op, dtype)
    buffer = lowering.result(node)
    work = outer * inner
    cost = LAUNCH_NS + work * n * 1.5
    lowering.launch(
        kernel,
        (lowering.operand(view),),
        buffer,
        (outer, n, inner),
        work,
        cost,
        node,
    )
