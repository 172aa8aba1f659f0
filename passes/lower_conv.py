"""Lowering of convolutions in their normal form (passes/convolutions.py): matrix products.

`conv` is, for each group, [N so, k c] @ [k c, O]; `conv_filter` is [O, N so] @ [N so, k c].
"""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.ir.loops import Access, Epilogue
from einkorn.ir.node import Node
from einkorn.ir.ops import Op
from einkorn.passes.lower import Lowering, expression
from einkorn.passes.lower_dot import Finish, Product, Side, copied, tiled
from einkorn.passes.views import View, dense_strides, reshaped_strides

Ints = tuple[int, ...]


def conv(
    lowering: Lowering, node: Node, members: Sequence[Node] = (), results: Sequence[Node] = ()
) -> None:
    """CONV, and the elementwise `members` computed with it; `results` get a buffer."""
    w = node.inputs[1]
    groups = node.attr("groups")
    out, m = node.shape[-1], node.tensor.size // node.shape[-1]
    windows = _windows(lowering, node, w.shape[1:-1])
    filter = lowering.dense(w)
    k = w.tensor.size // out
    left = Side(lowering.operand(windows), m, (0, m * k, k, 1))
    each = out // groups
    right = Side(lowering.operand(filter), each, (0, each * k, k, 1))
    shape = (m, groups, each)
    finish = _finish(lowering, node, members, results, shape, (1, 0, 2))
    label = lowering.label(node, (node, *members))
    tiled(lowering, Product(node, (1, groups), k, left, right, finish, label))


def conv_filter(
    lowering: Lowering, node: Node, members: Sequence[Node] = (), results: Sequence[Node] = ()
) -> None:
    """CONV_FILTER, and the elementwise `members` computed with it; `results` get a buffer."""
    g = node.inputs[1]
    groups, out = node.attr("groups"), node.shape[0]
    each, columns, k = out // groups, node.tensor.size // out, g.tensor.size // out
    windows = _windows(lowering, node, node.attr("window"))
    left = Side(lowering.operand(lowering.dense(g)), each, (0, each, 1, out))
    right = Side(lowering.operand(windows), columns, (0, k * columns, 1, columns))
    finish = _finish(lowering, node, members, results, (groups, each, columns), (0, 1, 2))
    label = lowering.label(node, (node, *members))
    tiled(lowering, Product(node, (1, groups), k, left, right, finish, label))


def _windows(lowering: Lowering, node: Node, window: Ints) -> View:
    """A dense copy of what each result sees: [groups, N, so..., k..., C / groups]."""
    x, groups = node.inputs[0], node.attr("groups")
    view = lowering.view(x)
    batch, *steps, channel = view.strides
    channels = x.shape[-1] // groups
    results = _results(node)
    apart = tuple(a * b for a, b in zip(node.attr("strides"), steps))
    inside = tuple(a * b for a, b in zip(node.attr("dilation"), steps))
    return copied(
        lowering,
        View(
            view.base,
            view.offset,
            (groups, x.shape[0], *results, *window, channels),
            (channels * channel, batch, *apart, *inside, channel),
        ),
    )


def _results(node: Node) -> Ints:
    """The sizes of the axes along which results lie."""
    like = node if node.op is Op.CONV else node.inputs[1]
    return like.shape[1:-1]


def _finish(
    lowering: Lowering,
    node: Node,
    members: Sequence[Node],
    results: Sequence[Node],
    shape: Ints,
    order: Ints,
) -> Finish:
    """The epilogue over the node seen as three axes; `order` finds batch, rows and columns."""
    body, loads, number = expression(lowering, members, [node])
    stored = tuple(results) or (node,)
    rows: list[Ints] = []
    views: list[View] = []
    for view in loads:
        strides = reshaped_strides(view.shape, view.strides, shape)
        if strides is None:
            view = copied(lowering, view)
            strides = dense_strides(shape)
        views.append(view)
        rows.append(strides)
    rows += [dense_strides(shape)] * len(stored)
    return Finish(
        Epilogue(
            tuple(Access(view.base.dtype, "") for view in views),
            body,
            tuple((Access(result.dtype, ""), number[result]) for result in stored),
        ),
        tuple(lowering.operand(view) for view in views),
        tuple((lowering.result(result), 0) for result in stored),
        tuple((0, *(row[axis] for axis in order)) for row in rows),
    )
