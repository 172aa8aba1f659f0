"""Gradients of windows: picking and placing are each other's transpose, sums are their own."""

from __future__ import annotations

from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.ir.windows import reach
from einkorn.passes.build import zeros
from einkorn.passes.gradients.rule import Contributions, Rule


def _pick(node: Node, g: Node) -> Contributions:
    """The cotangent placed where it was picked; the keys only choose."""
    return None, make(Op.WINDOW_PLACE, node.inputs[0], g, **dict(node.attrs))


def _place(node: Node, g: Node) -> Contributions:
    """What is picked from the cotangent."""
    return None, make(Op.WINDOW_PICK, node.inputs[0], g, **dict(node.attrs))


def _sum(node: Node, g: Node) -> Contributions:
    """The sum over the windows that contain an element: strides become gaps, and gaps strides."""
    x = node.inputs[0]
    if x.tensor.size == 0:
        return (zeros(x.tensor),)
    names = ("window", "strides", "low", "dilation", "interior")
    attributes: list[tuple[int, ...]] = [node.attr(name) for name in names]
    rows = zip(x.shape[1:-1], node.shape[1:-1], *attributes)
    low: list[int] = []
    high: list[int] = []
    for size, count, window, stride, before, dilation, gap in rows:
        span = reach(window, dilation)
        low.append(span - 1 - before)
        high.append((size - 1) * (gap + 1) + span - low[-1] - ((count - 1) * stride + 1))
    attrs = {
        "window": node.attr("window"),
        "strides": tuple(gap + 1 for gap in node.attr("interior")),
        "low": tuple(low),
        "high": tuple(high),
        "dilation": node.attr("dilation"),
        "interior": tuple(stride - 1 for stride in node.attr("strides")),
    }
    return (make(Op.WINDOW_SUM, g, **attrs),)


RULES: dict[Op, Rule] = {
    Op.WINDOW_PICK: _pick,
    Op.WINDOW_PLACE: _place,
    Op.WINDOW_SUM: _sum,
}
