"""Lowering of convolutions in their normal form (passes/convolutions.py): tiles without copies.

Both are products of matrices whose operands are read where they lie. For each group

    conv         rows (N, so...), columns O,      k (window..., C): x is read through its strides,
                 the filter from panels;
    conv_filter  rows O, columns (kw, C), k (N, so...), for every other position of the window; or
                 rows (kw, C) and columns O, whichever fills tiles better.

A depthwise convolution has the channels as columns on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod

from einkorn.ir.conv_rules import Axis, axes_of
from einkorn.ir.loops import Access, Epilogue
from einkorn.ir.node import Node
from einkorn.ir.ops import Op
from einkorn.passes.conv_products import (
    Axes,
    Problem,
    Results,
    Source,
    emit,
    offset_of,
    with_panels,
)
from einkorn.passes.conv_tiles import choose_tile
from einkorn.passes.convolutions import Phase, attributes, phases
from einkorn.passes.lower import Lowering, expression
from einkorn.passes.lower_dot import copied
from einkorn.passes.views import View, dense_strides, merge_axes

Ints = tuple[int, ...]

_PACK_FAR_NS = 0.12  # the same for what comes from afar
_APART = 1.1  # how much longer it takes where a row of columns lies apart from the next one


def conv(
    lowering: Lowering, node: Node, members: Sequence[Node] = (), results: Sequence[Node] = ()
) -> None:
    """CONV, and the elementwise `members` computed with it; `results` get a buffer."""
    x, w = node.inputs
    view, filter = lowering.view(x), lowering.view(w)
    if _is_depthwise(node) and view.strides[-1] != 1:
        view = lowering.dense(x)
    found = _results(lowering, node, members, results)
    label = lowering.label(node, (node, *members))
    axes = axes_of(x.shape[1:-1], w.shape[1:-1], **attributes(node))
    for chosen in product(*map(phases, axes)):
        _phase(lowering, node, (view, filter), found.of(chosen), axes, chosen, label)


def _phase(
    lowering: Lowering,
    node: Node,
    views: tuple[View, View],
    found: Results,
    axes: Sequence[Axis],
    chosen: Sequence[Phase],
    label: str,
) -> None:
    """One phase of a convolution: all of it, where there are no gaps."""
    groups, depthwise = node.attr("groups"), _is_depthwise(node)
    view, filter = views[0], _part_of_filter(views[1], chosen)
    steps = view.strides[1:-1]
    start = view.offset - offset_of([phase.axis.low for phase in chosen], steps)
    inside = tuple(phase.axis.dilation * step for phase, step in zip(chosen, steps))
    across = tuple(phase.axis.stride * step for phase, step in zip(chosen, steps))
    sizes = (len(range(p.first, axis.results, p.every)) for p, axis in zip(chosen, axes))
    rows = Axes.merged(
        (node.shape[0], *sizes),
        [(view.strides[0], *across), (0,) * (1 + len(axes)), *(row[:-1] for row in found.strides)],
    )
    extents = filter.shape[1:]
    rest = [(0,) * len(extents)] * len(found.strides)
    of_filter = tuple((groups if depthwise else 1) * step for step in dense_strides(extents))
    k = Axes.merged(extents, [(*inside, view.strides[-1]), of_filter, *rest])
    last = [row[-1] for row in found.strides]
    left = lowering.operand(replace(view, offset=start))
    if depthwise:
        batch = Axes((1,), ((0,),) * (2 + len(last)))
        problem = Problem(node, batch, rows, k, groups, (1, 1, *last), True, True)
        choice = choose_tile(lowering.machine, node.dtype, problem.shape())
        right = lowering.operand(copied(lowering, _channels_last(filter)))
    else:
        each = filter.shape[0] // groups
        strides = [extents[-1] * view.strides[-1], 1, *(each * stride for stride in last)]
        batch = Axes((groups,), tuple((step,) for step in strides))
        problem = Problem(node, batch, rows, k, each, (0, 1, *last), False)
        choice = choose_tile(lowering.machine, node.dtype, problem.shape())
        if len(merge_axes(extents, [filter.strides[1:]])[0]) > 2:
            filter = copied(lowering, filter)
        source = Source(filter, extents, filter.strides[1:], filter.strides[0])
        problem, right = with_panels(lowering, problem, source, choice, label)
    emit(lowering, problem, choice, (left, right), found, label)


def _part_of_filter(view: View, chosen: Sequence[Phase]) -> View:
    """The positions of the window that a phase meets."""
    out, *strides, channel = view.strides
    return View(
        view.base,
        view.offset + offset_of([phase.start for phase in chosen], strides),
        (view.shape[0], *(phase.axis.window for phase in chosen), view.shape[-1]),
        (out, *(phase.step * stride for phase, stride in zip(chosen, strides)), channel),
    )


def _channels_last(view: View) -> View:
    """The filter of a depthwise convolution as [k..., channels]."""
    shape, strides = view.shape, view.strides
    return View(view.base, view.offset, (*shape[1:], shape[0]), (*strides[1:], strides[0]))


def conv_filter(
    lowering: Lowering, node: Node, members: Sequence[Node] = (), results: Sequence[Node] = ()
) -> None:
    """CONV_FILTER, and the elementwise `members` computed with it; `results` get a buffer."""
    found = _results(lowering, node, members, results)
    x, g = node.inputs
    views = [lowering.view(operand) for operand in node.inputs]
    for place, operand in enumerate((x, g)):
        if views[place].strides[-1] != 1 and operand.shape[-1] > 1:
            views[place] = lowering.dense(operand)
    problems = _filter_problems(node, views[0], views[1], found)
    choices = [choose_tile(lowering.machine, node.dtype, problem.shape()) for problem in problems]
    pack_ns = g.tensor.nbytes * _PACK_FAR_NS
    costs = [
        choice.dot_ns * prod(problem.batch.extents) * (_APART if problem.in_place else 1.0)
        + (0.0 if problem.in_place else pack_ns)
        for problem, choice in zip(problems, choices)
    ]
    number = costs.index(min(costs))
    problem, choice = problems[number], choices[number]
    operands = [lowering.operand(view) for view in views]
    label = lowering.label(node, (node, *members))
    if not problem.in_place:
        if len(merge_axes(g.shape[:-1], [views[1].strides[:-1]])[0]) > 2:
            views[1] = lowering.dense(g)
        source = Source(views[1], g.shape[:-1], views[1].strides[:-1], 1)
        problem, operands[1] = with_panels(lowering, problem, source, choice, label)
    elif number == 0 and not problem.diagonal:
        operands.reverse()
    emit(lowering, problem, choice, operands, found, label)


def _is_depthwise(node: Node) -> bool:
    """Whether every channel of the input has one result of its own."""
    groups = node.attr("groups")
    return groups > 1 and groups == node.inputs[0].shape[-1] == _channels(node)


def _channels(node: Node) -> int:
    """The number of the convolution's results at a place."""
    return node.shape[-1] if node.op is Op.CONV else node.shape[0]


def _around(node: Node, view: View) -> tuple[Ints, Ints]:
    """The strides of x from a position of the window to the next, and from a result to the next."""
    steps = view.strides[1:-1]
    return (
        tuple(a * b for a, b in zip(node.attr("dilation"), steps)),
        tuple(a * b for a, b in zip(node.attr("strides"), steps)),
    )


def _results(
    lowering: Lowering, node: Node, members: Sequence[Node], results: Sequence[Node]
) -> Results:
    body, loads, number = expression(lowering, members, [node])
    stored = tuple(results) or (node,)
    if node.op is Op.CONV_FILTER:  # whose axes have to be joined
        loads = [view if view.is_dense else copied(lowering, view) for view in loads]
    epilogue = Epilogue(
        tuple(Access(view.base.dtype, "") for view in loads),
        body,
        tuple((Access(result.dtype, ""), number[result]) for result in stored),
    )
    operands = [
        *((*lowering.operand(view), view.base.dtype.itemsize) for view in loads),
        *((lowering.result(result), 0, result.dtype.itemsize) for result in stored),
    ]
    dense = dense_strides(node.shape)
    strides = (*(view.strides for view in loads), *([dense] * len(stored)))
    return Results(epilogue, tuple(operands), strides)


# -- the gradient by the filter --------------------------------------------------------------------


def _filter_problems(node: Node, x: View, g: View, found: Results) -> list[Problem]:
    """The ways to see it as a product."""
    if _is_depthwise(node):
        return [_depthwise_filter(node, x, g, found)]
    groups = node.attr("groups")
    each, *window, channels = node.shape
    each //= groups
    inside, across = _around(node, x)
    joined = groups == 1 and inside[-1] == channels
    columns = channels * (window[-1] if joined else 1)
    rest = window[:-1] if joined else window
    count = len(found.strides)
    axes = len(rest)
    outside = [
        (channels, *inside[:axes]),
        (each, *(0,) * axes),
        *((each * row[0], *row[1 : 1 + axes]) for row in found.strides),
    ]
    k = [(x.strides[0], *across), g.strides[:-1], *([(0,) * (1 + len(across))] * count)]
    extents = (*node.inputs[1].shape[:-1],)
    of_results = [row[0] for row in found.strides]
    of_input = [row[-1] for row in found.strides]

    def problem(turned: bool, in_place: bool) -> Problem:
        """Rows are the results, or `turned` the input."""
        order = (0, 1) if turned else (1, 0)
        rows, across = (of_input, of_results) if turned else (of_results, of_input)
        sizes = (columns, each) if turned else (each, columns)
        pick = [*order, *range(2, 2 + count)]
        outer, inner = ([table[p] for p in pick] for table in (outside, k))
        if not in_place:
            outer[1], inner[1] = (1, *outer[1][1:]), dense_strides(extents)
        return Problem(
            node,
            Axes((groups, *rest), tuple(outer)),
            Axes((sizes[0],), tuple((step,) for step in (1, 0, *rows))),
            Axes.merged(extents, inner),
            sizes[1],
            (0, 1, *across),
            in_place,
        )

    return [problem(False, True), problem(True, True), problem(True, False)]


def _depthwise_filter(node: Node, x: View, g: View, found: Results) -> Problem:
    """Rows are the last axis of the window, columns the channels of both operands."""
    channels, *window, _ = node.shape
    inside, across = _around(node, x)
    axes = len(window) - 1
    count = len(found.strides)
    batch = Axes(
        tuple(window[:-1]) or (1,),
        tuple(
            row or (0,)
            for row in (inside[:-1], (0,) * axes, *(row[1 : 1 + axes] for row in found.strides))
        ),
    )
    rows = Axes((window[-1],), ((inside[-1],), (0,), *((row[-2],) for row in found.strides)))
    k = [(x.strides[0], *across), g.strides[:-1], *([(0,) * (1 + len(across))] * count)]
    across_of = (1, 1, *(row[0] for row in found.strides))
    extents = node.inputs[1].shape[:-1]
    return Problem(node, batch, rows, Axes.merged(extents, k), channels, across_of, True, True)
