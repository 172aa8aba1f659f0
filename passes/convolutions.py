"""The normal form of convolutions: all that they read lies inside of the input.

    conv(x, w, low, high, ...) -> conv(pad(x), w, ...)
    conv of a half type        -> cast(conv(cast(x), cast(w)))

With gaps between the elements of the input (`interior`), results whose windows meet the same
positions form a phase: a convolution without gaps with a part of the filter. The phases interleave
to the whole. A transposed convolution with stride 2 by 2 is four small ones. Lowering makes a
launch for each phase; `conv_filter`, and a `conv` of which some results meet nothing, are put
together of their phases here.

    x     a . b . c        results 0, 2, ... meet window positions 0, 2
    w     0 1 2            results 1, 3, ... meet position 1

Every bit stays: see "Convolution" in ir/ops.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import gcd, prod
from typing import Any

from einkorn.ir.conv_rules import Axis, axes_of
from einkorn.ir.dtypes import float32
from einkorn.ir.node import Node, constant, make
from einkorn.ir.ops import Op
from einkorn.ir.rewrite import Rule
from einkorn.passes.build import reshape, slice_axis, zeros

Ints = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """Part of an axis with gaps: results `first`, `first + every`, ... and some of the window.

    Attributes:
        start, step: the positions of the window that these results meet.
        axis: the convolution of these, without gaps.
    """

    first: int
    every: int
    start: int
    step: int
    axis: Axis


def period(axis: Axis) -> int:
    """How far apart results are that meet the same positions of the window."""
    return axis.spacing // gcd(axis.spacing, axis.stride)


def phases(axis: Axis) -> list[Phase]:
    """The phases of an axis in which anything meets; all have as many results as the longest."""
    gap = axis.spacing
    every, step = period(axis), gap // gcd(gap, axis.dilation)
    count = -(-axis.results // every)
    found: list[Phase] = []
    for first in range(min(every, axis.results)):
        for start in range(min(step, axis.window)):
            at = first * axis.stride + start * axis.dilation - axis.low
            if at % gap == 0:
                window = len(range(start, axis.window, step))
                stride, dilation = axis.stride * every // gap, axis.dilation * step // gap
                part = Axis(axis.size, window, stride, -(at // gap), 0, 0, dilation)
                high = (count - 1) * stride + part.span - axis.size - part.low
                found.append(Phase(first, every, start, step, replace(part, high=high)))
    return found


def attributes(node: Node) -> dict[str, Any]:
    """The attributes of a convolution that `axes_of` takes."""
    names = ("strides", "low", "high", "interior", "dilation")
    return {name: node.attr(name) for name in names}


def _is_normal(node: Node) -> bool:
    around = (*node.attr("low"), *node.attr("high"), *node.attr("interior"))
    half = node.dtype.is_float and node.dtype.itemsize == 2
    return not (any(around) or half)


def _simple(op: Op, x: Node, other: Node, axes: Sequence[Axis], groups: int) -> Node:
    """A convolution without gaps, or its filter's gradient, of the input with its frame."""
    nothing = (0,) * len(axes)
    attrs: dict[str, Any] = {
        "strides": tuple(axis.stride for axis in axes),
        "low": nothing,
        "high": nothing,
        "interior": nothing,
        "dilation": tuple(axis.dilation for axis in axes),
        "groups": groups,
    }
    if op is Op.CONV_FILTER:
        attrs["window"] = tuple(axis.window for axis in axes)
    return make(op, _framed(x, axes), other, **attrs)


def _framed(x: Node, axes: Sequence[Axis]) -> Node:
    """The input with zeros around it, or without what is cut off."""
    low, high = [0], [0]
    for place, axis in enumerate(axes, 1):
        first = min(max(-axis.low, 0), axis.size)
        last = max(min(axis.size + axis.high, axis.size), first)
        if (first, last) != (0, axis.size):
            x = slice_axis(x, place, first, last)
        total = axis.size + axis.low + axis.high
        low.append(min(max(axis.low, 0), total))
        high.append(total - (last - first) - low[-1])
    if not any((*low, *high)):
        return x
    around = {"low": (*low, 0), "high": (*high, 0), "interior": (0,) * len(x.shape)}
    return make(Op.PAD, x, constant(x.dtype, 0), **around)


# -- the two ops -----------------------------------------------------------------------------------


def normal_conv(node: Node) -> Node | None:
    """conv(x, w) -> conv(pad(x), w), with nothing of x outside; halves in float32"""
    x, w = node.inputs
    if node.tensor.size == 0 or prod(w.shape[1:]) == 0:
        return zeros(node.tensor)
    axes = axes_of(x.shape[1:-1], w.shape[1:-1], **attributes(node))
    of_axes = [phases(axis) for axis in axes]
    source, filter = _widened(x), _widened(w)
    if any(len(found) < min(period(axis), axis.results) for found, axis in zip(of_axes, axes)):
        return _narrowed(_conv_of_some(node, source, filter, axes), node)
    low = [max(0, *(phase.axis.low for phase in found)) for found in of_axes]
    high = [
        max(0, *(_exactly(axis, phase).high for phase in found))
        for axis, found in zip(axes, of_axes)
    ]
    if source is x and not any((*low, *high)):
        return None
    attrs = dict(node.attrs)
    for name, widths in (("low", low), ("high", high)):
        rows = zip(attrs[name], widths, axes)
        attrs[name] = tuple(have - width * axis.spacing for have, width, axis in rows)
    around = {"low": (0, *low, 0), "high": (0, *high, 0), "interior": (0,) * len(x.shape)}
    if any((*low, *high)):
        source = make(Op.PAD, source, constant(source.dtype, 0), **around)
    return _narrowed(make(Op.CONV, source, filter, **attrs), node)


def _conv_of_some(node: Node, x: Node, w: Node, axes: Sequence[Axis]) -> Node:
    """A convolution of which some results meet nothing: the phases of the others, and zeros."""
    parts: dict[Ints, Node] = {}
    for chosen in product(*map(phases, axes)):
        piece = w
        for place, phase in enumerate(chosen, 1):
            piece = _every(piece, place, phase.start, phase.step)
        key = tuple(phase.first for phase in chosen)
        inner = [phase.axis for phase in chosen]
        parts[key] = _simple(Op.CONV, x, piece, inner, node.attr("groups"))
    every = tuple(min(period(axis), axis.results) for axis in axes)
    return _interleaved(parts, every, node.shape, x)


def normal_conv_filter(node: Node) -> Node | None:
    """conv_filter(x, g) -> conv_filter(pad(x), g), by phases where there are gaps"""
    x, g = node.inputs
    if node.tensor.size == 0 or prod(g.shape[:-1]) == 0:
        return zeros(node.tensor)
    if _is_normal(node):
        return None
    axes = axes_of(x.shape[1:-1], node.attr("window"), **attributes(node))
    source, results = _widened(x), _widened(g)
    steps = [axis.spacing // gcd(axis.spacing, axis.dilation) for axis in axes]
    steps = [min(step, axis.window) for step, axis in zip(steps, axes)]
    parts: dict[Ints, Node] = {}
    for chosen in product(*map(phases, axes)):
        piece = results
        inner = [_exactly(axis, phase) for axis, phase in zip(axes, chosen)]
        for place, phase in enumerate(chosen, 1):
            piece = _every(piece, place, phase.first, phase.every)
        found = _simple(Op.CONV_FILTER, source, piece, inner, node.attr("groups"))
        longest = [-(-axis.window // step) for axis, step in zip(axes, steps)]
        key = tuple(phase.start for phase in chosen)
        parts[key] = _extended(found, (found.shape[0], *longest, found.shape[-1]))
    return _narrowed(_interleaved(parts, tuple(steps), node.shape, source), node)


def _exactly(axis: Axis, phase: Phase) -> Axis:
    """The axis of a phase with as many results as there are."""
    count = len(range(phase.first, axis.results, phase.every))
    part = phase.axis
    return replace(part, high=(count - 1) * part.stride + part.span - part.size - part.low)


def _widened(x: Node) -> Node:
    half = x.dtype.is_float and x.dtype.itemsize == 2
    return make(Op.CAST, x, dtype=float32) if half else x


def _narrowed(x: Node, like: Node) -> Node:
    return x if x.dtype is like.dtype else make(Op.CAST, x, dtype=like.dtype)


def _every(x: Node, axis: int, first: int, step: int) -> Node:
    """x[..., first::step, ...]"""
    if step == 1 and first == 0:
        return x
    return slice_axis(x, axis, first, x.shape[axis], step)


def _extended(x: Node, shape: Ints) -> Node:
    """`x` with zeros behind it, up to a shape."""
    if x.shape == shape:
        return x
    nothing = (0,) * len(shape)
    high = tuple(n - m for n, m in zip(shape, x.shape))
    return make(Op.PAD, x, constant(x.dtype, 0), low=nothing, high=high, interior=nothing)


def _interleaved(parts: Mapping[Ints, Node], every: Ints, shape: Ints, like: Node) -> Node:
    """The node of which `parts[r]` has the elements r, r + every, ... along each inner axis.

    What is missing is zero.
    """
    if not parts:
        return zeros(like.tensor.with_shape(shape))
    some = next(iter(parts.values()))
    if all(n == 1 for n in every):
        return some

    def joined(key: Ints) -> Node:
        """The parts whose first residues are given, put together along the other axes."""
        if len(key) == len(every):
            return parts.get(key) or zeros(some.tensor)
        axis = len(key) + 1
        rows = [joined((*key, r)) for r in range(every[axis - 1])]
        return _alternating(rows, axis, shape[axis])

    return joined(())


def _alternating(rows: Sequence[Node], axis: int, size: int) -> Node:
    """rows[0][0], rows[1][0], ..., rows[0][1], ... along an axis, `size` of them."""
    if len(rows) == 1:
        return rows[0]
    shape = rows[0].shape
    apart = [reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :])) for x in rows]
    stacked = make(Op.CONCAT, *apart, axis=axis + 1)
    whole = reshape(stacked, (*shape[:axis], shape[axis] * len(rows), *shape[axis + 1 :]))
    return whole if whole.shape[axis] == size else slice_axis(whole, axis, 0, size)


RULES: Mapping[Op, Sequence[Rule]] = {
    Op.CONV: (normal_conv,),
    Op.CONV_FILTER: (normal_conv_filter,),
}
