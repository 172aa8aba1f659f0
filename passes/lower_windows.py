"""Lowering of windows over spatial axes: dense operands, one launch each."""

from __future__ import annotations

from math import prod

from einkorn.ir.dtypes import float32
from einkorn.ir.loops import Expr
from einkorn.ir.node import Node, constant
from einkorn.ir.ops import Op
from einkorn.ir.windows import WINDOW_CHUNK, WindowPick, WindowPlace, WindowSum, channel_kind, reach
from einkorn.passes.costs import LAUNCH_NS
from einkorn.passes.launches import Buffer
from einkorn.passes.lower import Lowering
from einkorn.passes.views import View, dense_strides

Ints = tuple[int, ...]

TAP_NS = 0.15  # of one tap of one element
WINDOW_NS = 3.0  # of one window, whatever its channels


def _axes(outer: Node, inner: Node, node: Node) -> Ints:
    """For each spatial axis its size, number of windows, stride and padding; then the channels."""
    strides, low = node.attr("strides"), node.attr("low")
    rows = zip(outer.shape[1:-1], inner.shape[1:-1], strides, low)
    return (*(number for row in rows for number in row), outer.shape[-1])


def _kernel_shape(outer: Node, inner: Node, node: Node) -> tuple[Ints, Ints, int, bool]:
    """What a kernel knows: window, dilation, the kind of channels, whether taps lie outside."""
    window, dilation = node.attr("window"), node.attr("dilation")
    ends = zip(outer.shape[1:-1], inner.shape[1:-1], node.attr("strides"), window, dilation)
    padded = any(node.attr("low")) or any(
        (count - 1) * stride + reach(taps, gap) > size for size, count, stride, taps, gap in ends
    )
    return window, dilation, channel_kind(outer.shape[-1]), padded


def window_cost(windows: Node, node: Node) -> float:
    """The time of all windows; sixteen channels cost as much as one."""
    taps = prod(node.attr("window"))
    if node.op is Op.WINDOW_SUM:
        taps = max(1, taps // prod(gap + 1 for gap in node.attr("interior")))
    channels = -(-windows.shape[-1] // 16) * 16
    return LAUNCH_NS + prod(windows.shape[:-1]) * (WINDOW_NS + taps * channels * TAP_NS)


def over_windows(lowering: Lowering, node: Node) -> None:
    """WINDOW_PICK and WINDOW_SUM: one result for each window."""
    if node.tensor.size == 0:
        return
    x = node.inputs[0]
    operands = list(dict.fromkeys(node.inputs))
    reads = [lowering.operand(lowering.dense(operand)) for operand in operands]
    shape = _kernel_shape(x, node, node)
    if node.op is Op.WINDOW_PICK:
        kernel = WindowPick(node.dtype, *shape, same=len(operands) == 1)
    else:
        base = tuple(gap + 1 for gap in node.attr("interior"))
        kernel = WindowSum(node.dtype, *shape, base)
    chunks = -(-node.shape[-2] // WINDOW_CHUNK)
    params = (*_axes(x, node, node), chunks, node.shape[0])
    work = prod(node.shape[:-2]) * chunks
    cost = window_cost(node, node)
    lowering.launch(kernel, reads, lowering.result(node), params, work, cost, node)


def place(lowering: Lowering, node: Node) -> None:
    """WINDOW_PLACE: blocks of windows without an element in common; halves add in float32."""
    if node.tensor.size == 0:
        return
    keys, updates = node.inputs
    reads = [lowering.operand(lowering.dense(x)) for x in (keys, updates)]
    window, dilation = node.attr("window"), node.attr("dilation")
    apart = reach(window[0], dilation[0]) <= node.attr("strides")[0]
    rows = 1 if apart else updates.shape[1]
    blocks = updates.shape[1] // rows
    params = (*_axes(keys, updates, node), rows, blocks, node.shape[0])
    work, cost = node.shape[0] * blocks, 2 * window_cost(updates, node)
    kernel = WindowPlace(node.dtype, *_kernel_shape(keys, updates, node))
    half = node.dtype.is_float and node.dtype.itemsize == 2
    if not half:
        lowering.launch(kernel, reads, lowering.result(node), params, work, cost, node)
        return
    wide = lowering.temporary(node.tensor.with_dtype(float32), "sums in f32")
    lowering.launch(kernel, reads, wide, params, work, cost, node)
    _narrow(lowering, node, wide)


def _narrow(lowering: Lowering, node: Node, wide: Buffer) -> None:
    """The result from its sums in float32."""
    buffer = lowering.result(node)
    source = View(constant(float32, 0), 0, node.shape, dense_strides(node.shape))
    body = (Expr(Op.CAST, (0,), node.dtype),)
    lowering.nest(lowering.views[node], buffer, [(wide, source)], body, 1, lowering.label(node))
