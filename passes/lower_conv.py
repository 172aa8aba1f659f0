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
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from einkorn.ir.loops import Access, Epilogue, TiledDot
from einkorn.ir.node import Node
from einkorn.ir.ops import Op
from einkorn.passes.conv_tiles import (
    Choice,
    Shape,
    block_of,
    choose_tile,
    grain_for_parts,
    part_of,
)
from einkorn.passes.launches import Buffer
from einkorn.passes.lower import Lowering, expression
from einkorn.passes.lower_dot import Finish, Product, Side, copied, launch_product, packed
from einkorn.passes.views import View, dense_strides, merge_axes

Ints = tuple[int, ...]

_EVERYWHERE = (1 << 63) - 1
_PACK_NS = 0.05  # a byte written to panels
_PACK_FAR_NS = 0.12  # the same for what comes from afar
_APART = 1.1  # how much longer it takes where a row of columns lies apart from the next one


@dataclass(frozen=True, slots=True)
class _Axes:
    """Axes of a product: the extent of each, and its stride in each access.

    The accesses are left, right, and then those of the epilogue; what an operand does not have, or
    has in panels, has stride 0.
    """

    extents: Ints
    strides: tuple[Ints, ...]

    def of(self, access: int) -> Ints:
        return self.strides[access]

    @staticmethod
    def merged(extents: Sequence[int], strides: Sequence[Sequence[int]]) -> _Axes:
        found, rows = merge_axes(extents, strides)
        return _Axes(found, tuple(rows))


@dataclass(frozen=True, slots=True)
class _Problem:
    """A product with all its axes, and the operands as they lie.

    Attributes:
        batch, rows, k: axes, outermost first.
        columns: how many there are; their strides are 1 in the right operand, `across` in all.
        across: the stride of the columns in each access.
        diagonal: see TiledDot.
        in_place: whether the right operand is read in place.
    """

    node: Node
    batch: _Axes
    rows: _Axes
    k: _Axes
    columns: int
    across: Ints
    in_place: bool
    diagonal: bool = False

    def shape(self) -> Shape:
        rows, k = self.rows.extents, self.k.extents
        several = len(rows) > 1
        return Shape(
            prod(rows),
            self.columns,
            rows[-1] if several else 0,
            prod(k[:-1]),
            k[-1],
            not several and not self.diagonal and self.rows.of(0)[0] == 1,
            self.in_place,
            self.diagonal,
        )


@dataclass(frozen=True, slots=True)
class _Results:
    """What is computed with the results and stored, and the strides of each access in the node."""

    epilogue: Epilogue
    views: tuple[View, ...]
    stored: tuple[Node, ...]
    strides: tuple[Ints, ...]


def conv(
    lowering: Lowering, node: Node, members: Sequence[Node] = (), results: Sequence[Node] = ()
) -> None:
    """CONV, and the elementwise `members` computed with it; `results` get a buffer."""
    x, w = node.inputs
    groups, depthwise = node.attr("groups"), _is_depthwise(node)
    view = lowering.view(x)
    if depthwise and view.strides[-1] != 1:
        view = lowering.dense(x)
    found = _results(lowering, node, members, results)
    inside, across = _around(node, view)
    each, channels = w.shape[0] // groups, w.shape[-1]
    nothing = (0,) * (len(node.shape) - 1)
    rows = _Axes.merged(
        node.shape[:-1],
        [(view.strides[0], *across), nothing, *(row[:-1] for row in found.strides)],
    )
    rest = [(0,) * len(w.shape[1:])] * len(found.strides)
    of_filter = dense_strides(w.shape[1:])
    if depthwise:
        of_filter = tuple(groups * step for step in of_filter)
    k = _Axes.merged(w.shape[1:], [(*inside, view.strides[-1]), of_filter, *rest])
    last = [row[-1] for row in found.strides]
    label = lowering.label(node, (node, *members))
    if depthwise:
        batch = _Axes((1,), ((0,),) * (2 + len(last)))
        problem = _Problem(node, batch, rows, k, groups, (1, 1, *last), True, True)
        choice = choose_tile(lowering.machine, node.dtype, problem.shape())
        across = copied(lowering, _channels_last(lowering.view(w)))
        operands = lowering.operand(view), lowering.operand(across)
        _emit(lowering, problem, choice, operands, found, label)
        return
    steps = [channels * view.strides[-1], 1, *(each * stride for stride in last)]
    batch = _Axes((groups,), tuple((step,) for step in steps))
    problem = _Problem(node, batch, rows, k, each, (0, 1, *last), False)
    choice = choose_tile(lowering.machine, node.dtype, problem.shape())
    filter = lowering.view(w)
    if len(merge_axes(w.shape[1:], [filter.strides[1:]])[0]) > 2:
        filter = lowering.dense(w)
    source = _Source(filter, w.shape[1:], filter.strides[1:], filter.strides[0])
    problem, panels = _with_panels(lowering, problem, source, choice, label)
    _emit(lowering, problem, choice, (lowering.operand(view), panels), found, label)


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
        source = _Source(views[1], g.shape[:-1], views[1].strides[:-1], 1)
        problem, operands[1] = _with_panels(lowering, problem, source, choice, label)
    elif number == 0 and not problem.diagonal:
        operands.reverse()
    _emit(lowering, problem, choice, operands, found, label)


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
) -> _Results:
    body, loads, number = expression(lowering, members, [node])
    stored = tuple(results) or (node,)
    if node.op is Op.CONV_FILTER:  # whose axes have to be joined
        loads = [view if view.is_dense else copied(lowering, view) for view in loads]
    epilogue = Epilogue(
        tuple(Access(view.base.dtype, "") for view in loads),
        body,
        tuple((Access(result.dtype, ""), number[result]) for result in stored),
    )
    dense = dense_strides(node.shape)
    strides = (*(view.strides for view in loads), *([dense] * len(stored)))
    return _Results(epilogue, tuple(loads), stored, strides)


# -- the gradient by the filter --------------------------------------------------------------------


def _filter_problems(node: Node, x: View, g: View, found: _Results) -> list[_Problem]:
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

    def problem(turned: bool, in_place: bool) -> _Problem:
        """Rows are the results, or `turned` the input."""
        order = (0, 1) if turned else (1, 0)
        rows, across = (of_input, of_results) if turned else (of_results, of_input)
        sizes = (columns, each) if turned else (each, columns)
        pick = [*order, *range(2, 2 + count)]
        outer, inner = ([table[p] for p in pick] for table in (outside, k))
        if not in_place:
            outer[1], inner[1] = (1, *outer[1][1:]), dense_strides(extents)
        return _Problem(
            node,
            _Axes((groups, *rest), tuple(outer)),
            _Axes((sizes[0],), tuple((step,) for step in (1, 0, *rows))),
            _Axes.merged(extents, inner),
            sizes[1],
            (0, 1, *across),
            in_place,
        )

    return [problem(False, True), problem(True, True), problem(True, False)]


def _depthwise_filter(node: Node, x: View, g: View, found: _Results) -> _Problem:
    """Rows are the last axis of the window, columns the channels of both operands."""
    channels, *window, _ = node.shape
    inside, across = _around(node, x)
    axes = len(window) - 1
    count = len(found.strides)
    batch = _Axes(
        tuple(window[:-1]) or (1,),
        tuple(
            row or (0,)
            for row in (inside[:-1], (0,) * axes, *(row[1 : 1 + axes] for row in found.strides))
        ),
    )
    rows = _Axes((window[-1],), ((inside[-1],), (0,), *((row[-2],) for row in found.strides)))
    k = [(x.strides[0], *across), g.strides[:-1], *([(0,) * (1 + len(across))] * count)]
    across_of = (1, 1, *(row[0] for row in found.strides))
    extents = node.inputs[1].shape[:-1]
    return _Problem(node, batch, rows, _Axes.merged(extents, k), channels, across_of, True, True)


# -- launches --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """A right operand that is to be packed: its view, extents and strides of k, stride of a row."""

    view: View
    extents: Ints
    steps: Ints
    row: int


def _with_panels(
    lowering: Lowering, problem: _Problem, source: _Source, choice: Choice, label: str
) -> tuple[_Problem, tuple[Buffer, int]]:
    """The right operand in panels, [group][panel][k][width], and the problem with their strides.

    Before, the steps of k are those of one row of a panel, and those of the batch 1 for a group.
    """
    node, columns, width = problem.node, problem.columns, choice.columns
    groups, length = problem.batch.extents[0], prod(source.extents)
    axes, (strides,) = merge_axes(source.extents, [source.steps])
    lines = (axes[0], strides[0]) if len(axes) == 2 else (1, 0)
    step = (0, columns * source.row, source.row, strides[-1])
    side = Side(lowering.operand(source.view), columns, step)
    whole = Product(node, (1, groups), length, side, side, _nothing(), label)
    each = -(-columns // width) * width * length
    cost = groups * each * node.dtype.itemsize * _PACK_NS
    buffer, _ = packed(lowering, whole, side, width, cost, lines)
    batch, k = problem.batch, problem.k
    return replace(
        problem,
        batch=_with_right(batch, tuple(each * stride for stride in batch.of(1))),
        k=_with_right(k, tuple(width * stride for stride in k.of(1))),
    ), (buffer, 0)


def _with_right(axes: _Axes, strides: Ints) -> _Axes:
    """With these strides in the right operand."""
    return replace(axes, strides=(axes.of(0), strides, *axes.strides[2:]))


def _nothing() -> Finish:
    return Finish(Epilogue((), (), ()), (), (), ())


@dataclass(frozen=True, slots=True)
class _Accesses:
    """The accesses of a product: buffer, the byte of the first element, bytes of an element."""

    buffers: tuple[Buffer, ...]
    offsets: Ints
    sizes: Ints

    def moved(self, index: Ints, batch: _Axes) -> tuple[tuple[Buffer, int], ...]:
        """Operands, starting at an index of some batch axes."""
        rows = zip(self.buffers, self.offsets, self.sizes, batch.strides)
        return tuple(
            (buffer, at + size * sum(i * stride for i, stride in zip(index, strides)))
            for buffer, at, size, strides in rows
        )


def _emit(
    lowering: Lowering,
    problem: _Problem,
    choice: Choice,
    operands: Sequence[tuple[Buffer, int]],
    found: _Results,
    label: str,
) -> None:
    """The launch of a product, or several where it has more batch axes than a kernel."""
    size = problem.node.dtype.itemsize
    places = [
        *((buffer, at, size) for buffer, at in operands),
        *((*lowering.operand(view), view.base.dtype.itemsize) for view in found.views),
        *((lowering.result(node), 0, node.dtype.itemsize) for node in found.stored),
    ]
    buffers, offsets, sizes = zip(*places)
    accesses = _Accesses(buffers, offsets, sizes)
    rows = problem.rows
    extra = max(len(rows.extents) - 3, 0)
    batch = _Axes.merged(
        (*rows.extents[:extra], *problem.batch.extents),
        [(*a[:extra], *b) for a, b in zip(rows.strides, problem.batch.strides)],
    )
    rows = _Axes(rows.extents[extra:], tuple(row[extra:] for row in rows.strides))
    outside = max(len(batch.extents) - 2, 0)
    inner = _Axes(batch.extents[outside:], tuple(row[outside:] for row in batch.strides))
    problem = replace(problem, batch=inner, rows=rows)
    for index in product(*(range(n) for n in batch.extents[:outside])):
        _launch(lowering, problem, choice, accesses.moved(index, batch), found, label)


def _launch(
    lowering: Lowering,
    problem: _Problem,
    choice: Choice,
    operands: Sequence[tuple[Buffer, int]],
    found: _Results,
    label: str,
) -> None:
    """One launch: the parameters of TiledDot (ir/loops.py)."""
    node, k, run = problem.node, problem.k, choice.run
    batch, rows = _filled(problem.batch, 2), _filled(problem.rows, 3 if choice.run else 1)
    m, n, size = prod(rows.extents), problem.columns, node.dtype.itemsize
    left = rows.of(0) if run else rows.of(0) * 2
    right_tile = 1 if problem.in_place else prod(k.extents)
    shape = problem.shape()
    line_bytes = size * sum(
        shape.steps * min(extent, abs(k.of(side)[-1])) for side, extent in ((0, m), (1, n))
    )
    is_filter = node.op is Op.CONV_FILTER
    part = part_of(shape, line_bytes) if is_filter else 0
    finish = _finish(problem, batch, rows, operands, found)
    kernel = TiledDot(
        node.dtype,
        node.dtype,
        choice.rows,
        choice.columns,
        shape.adjacent,
        n < choice.columns,
        finish.epilogue,
        len(k.extents),
        run,
        part > 0,
        problem.diagonal,
    )
    tiles = -(-m // choice.rows), -(-n // choice.columns)
    near = block_of(abs(rows.of(0)[-1]) * size * shape.lines, choice.rows)
    params = (
        *(*batch.extents, m, n, *k.extents, tiles[0] if is_filter else near),
        *(rows.extents[1:] if run else ()),
        *((part,) if part else ()),
        *(*batch.of(0), *left, *k.of(0), max(m - choice.rows, 0)),
        *(*batch.of(1), right_tile, *k.of(1)),
        max(n - choice.columns, 0) if problem.in_place else _EVERYWHERE,
    )
    matrices = prod(batch.extents)
    work, cost = matrices * tiles[0] * tiles[1], matrices * choice.dot_ns
    sums, grain = None, 0
    if part:
        sums = Buffer("unfinished sums", work * choice.rows * choice.columns * size)
        grain = grain_for_parts(work, cost, shape.lines * line_bytes)
    side = Side(operands[0], m, (0, 0, 0, 0))
    whole = Product(node, (1, matrices), prod(k.extents), side, side, finish, label)
    launch_product(lowering, whole, kernel, finish, operands[:2], params, work, cost, sums, grain)


def _filled(axes: _Axes, count: int) -> _Axes:
    """With axes of one element in front, so that there are `count`."""
    more = count - len(axes.extents)
    strides = tuple((*(0,) * more, *row) for row in axes.strides)
    return _Axes((*(1,) * more, *axes.extents), strides)


def _finish(
    problem: _Problem,
    batch: _Axes,
    rows: _Axes,
    operands: Sequence[tuple[Buffer, int]],
    found: _Results,
) -> Finish:
    """The epilogue with its buffers, and the strides of each: batch, rows and columns."""
    strides = [
        (*batch.of(number), *rows.of(number), across)
        for number, across in enumerate(problem.across[2:], 2)
    ]
    first = 2 + len(found.views)
    finish = Finish(
        found.epilogue, tuple(operands[2:first]), tuple(operands[first:]), tuple(strides)
    )
    return finish.oriented(problem.columns, swap=False)
