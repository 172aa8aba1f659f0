"""Gradients of convolutions: both ops are bilinear, and together they are closed."""

from __future__ import annotations

from einkorn.ir.conv_rules import Axis, axes_of
from einkorn.ir.node import Node, make
from einkorn.ir.ops import Op
from einkorn.passes.build import reshape, transpose, zeros
from einkorn.passes.gradients.rule import Contributions, Rule

Ints = tuple[int, ...]


def _conv(node: Node, g: Node) -> Contributions:
    """By x: `_spread`; by w: the filter's own op."""
    x, w = node.inputs
    window: Ints = w.shape[1:-1]
    by_filter = make(Op.CONV_FILTER, x, g, window=window, **dict(node.attrs))
    return _spread(node, x, w, g), by_filter


def _conv_filter(node: Node, g: Node) -> Contributions:
    """Linear in the input by a transposed convolution, in the results by a convolution."""
    x, results = node.inputs
    attrs = {key: value for key, value in node.attrs if key != "window"}
    return _spread(node, x, g, results), make(Op.CONV, x, g, **attrs)


def _spread(node: Node, x: Node, w: Node, g: Node) -> Node:
    """What `g`, shaped like the results, brings to `x` through the filter `w`.

    A convolution of `g` with the window the other way round; what were strides are gaps between
    the elements of `g`, and the gaps are strides.
    """
    if x.tensor.size == 0 or g.tensor.size == 0:
        return zeros(x.tensor)
    names = ("strides", "low", "high", "interior", "dilation")
    attrs = {name: node.attr(name) for name in names}
    axes = axes_of(x.shape[1:-1], w.shape[1:-1], **attrs)
    low = tuple(axis.span - 1 - axis.low for axis in axes)
    return make(
        Op.CONV,
        g,
        turned(w, node.attr("groups")),
        strides=tuple(axis.spacing for axis in axes),
        low=low,
        high=tuple(_high(axis, size, n) for axis, size, n in zip(axes, low, g.shape[1:-1])),
        interior=tuple(axis.stride - 1 for axis in axes),
        dilation=attrs["dilation"],
        groups=node.attr("groups"),
    )


def _high(axis: Axis, low: int, results: int) -> int:
    """The padding with which there is exactly one result for each element of the input."""
    wanted = (axis.size - 1) * axis.spacing + axis.span
    return wanted - low - ((results - 1) * axis.stride + 1)


def turned(w: Node, groups: int) -> Node:
    """[O, k..., C / groups] -> [C, k..., O / groups], with every axis of the window reversed."""
    out, *window, channels = w.shape
    rank = len(w.shape)
    split = reshape(w, (groups, out // groups, *window, channels))
    swapped = transpose(split, (0, rank, *range(2, rank), 1))
    joined = reshape(swapped, (groups * channels, *window, out // groups))
    axes = tuple(k for k in range(1, rank - 1) if joined.shape[k] > 1)
    return make(Op.FLIP, joined, axes=axes) if axes else joined


RULES: dict[Op, Rule] = {Op.CONV: _conv, Op.CONV_FILTER: _conv_filter}
