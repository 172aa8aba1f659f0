"""Products of matrices with axes: the launches of convolutions (passes/lower_conv.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from einkorn.ir.loops import Epilogue, TiledDot
from einkorn.ir.node import Node
from einkorn.ir.ops import Op
from einkorn.passes.conv_tiles import Choice, Shape, block_of, grain_for_parts, part_of
from einkorn.passes.convolutions import Phase
from einkorn.passes.launches import Buffer
from einkorn.passes.lower import Lowering
from einkorn.passes.lower_dot import Finish, Product, Side, launch_product, packed
from einkorn.passes.views import View, merge_axes

Ints = tuple[int, ...]

_EVERYWHERE = (1 << 63) - 1
_PACK_NS = 0.05  # a byte written to panels


@dataclass(frozen=True, slots=True)
class Axes:
    """Axes of a product: the extent of each, and its stride in each access.

    The accesses are left, right, and then those of the epilogue; what an operand does not have, or
    has in panels, has stride 0.
    """

    extents: Ints
    strides: tuple[Ints, ...]

    def of(self, access: int) -> Ints:
        return self.strides[access]

    @staticmethod
    def merged(extents: Sequence[int], strides: Sequence[Sequence[int]]) -> Axes:
        found, rows = merge_axes(extents, strides)
        return Axes(found, tuple(rows))


@dataclass(frozen=True, slots=True)
class Problem:
    """A product with all its axes, and the operands as they lie.

    Attributes:
        batch, rows, k: axes, outermost first.
        columns: how many there are; their strides are 1 in the right operand, `across` in all.
        across: the stride of the columns in each access.
        diagonal: see TiledDot.
        in_place: whether the right operand is read in place.
    """

    node: Node
    batch: Axes
    rows: Axes
    k: Axes
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
class Results:
    """What is computed with the results and stored.

    Attributes:
        epilogue: the steps.
        operands: for each access its buffer, the byte of its first element, an element's bytes.
        strides: for each access its strides along the axes of the node.
    """

    epilogue: Epilogue
    operands: tuple[tuple[Buffer, int, int], ...]
    strides: tuple[Ints, ...]

    def of(self, chosen: Sequence[Phase]) -> Results:
        """The accesses of the results of a phase."""
        first = (0, *(phase.first for phase in chosen), 0)
        every = (1, *(phase.every for phase in chosen), 1)
        operands = tuple(
            (buffer, at + size * offset_of(first, strides), size)
            for (buffer, at, size), strides in zip(self.operands, self.strides)
        )
        strides = tuple(tuple(n * m for n, m in zip(every, row)) for row in self.strides)
        return Results(self.epilogue, operands, strides)


def offset_of(index: Sequence[int], strides: Sequence[int]) -> int:
    """How far an index lies from the first element."""
    return sum(i * stride for i, stride in zip(index, strides))


@dataclass(frozen=True, slots=True)
class Source:
    """A right operand that is to be packed: its view, extents and strides of k, stride of a row."""

    view: View
    extents: Ints
    steps: Ints
    row: int


def with_panels(
    lowering: Lowering, problem: Problem, source: Source, choice: Choice, label: str
) -> tuple[Problem, tuple[Buffer, int]]:
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


def _with_right(axes: Axes, strides: Ints) -> Axes:
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

    def moved(self, index: Ints, batch: Axes) -> tuple[tuple[Buffer, int], ...]:
        """Operands, starting at an index of some batch axes."""
        rows = zip(self.buffers, self.offsets, self.sizes, batch.strides)
        return tuple(
            (buffer, at + size * sum(i * stride for i, stride in zip(index, strides)))
            for buffer, at, size, strides in rows
        )


def emit(
    lowering: Lowering,
    problem: Problem,
    choice: Choice,
    operands: Sequence[tuple[Buffer, int]],
    found: Results,
    label: str,
) -> None:
    """The launch of a product, or several where it has more batch axes than a kernel."""
    size = problem.node.dtype.itemsize
    places = [*((buffer, at, size) for buffer, at in operands), *found.operands]
    buffers, offsets, sizes = zip(*places)
    accesses = _Accesses(buffers, offsets, sizes)
    rows = problem.rows
    extra = max(len(rows.extents) - 3, 0)
    batch = Axes.merged(
        (*rows.extents[:extra], *problem.batch.extents),
        [(*a[:extra], *b) for a, b in zip(rows.strides, problem.batch.strides)],
    )
    rows = Axes(rows.extents[extra:], tuple(row[extra:] for row in rows.strides))
    outside = max(len(batch.extents) - 2, 0)
    inner = Axes(batch.extents[outside:], tuple(row[outside:] for row in batch.strides))
    problem = replace(problem, batch=inner, rows=rows)
    for index in product(*(range(n) for n in batch.extents[:outside])):
        _launch(lowering, problem, choice, accesses.moved(index, batch), found, label)


def _launch(
    lowering: Lowering,
    problem: Problem,
    choice: Choice,
    operands: Sequence[tuple[Buffer, int]],
    found: Results,
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


def _filled(axes: Axes, count: int) -> Axes:
    """With axes of one element in front, so that there are `count`."""
    more = count - len(axes.extents)
    strides = tuple((*(0,) * more, *row) for row in axes.strides)
    return Axes((*(1,) * more, *axes.extents), strides)


def _finish(
    problem: Problem,
    batch: Axes,
    rows: Axes,
    operands: Sequence[tuple[Buffer, int]],
    found: Results,
) -> Finish:
    """The epilogue with its buffers, and the strides of each: batch, rows and columns."""
    strides = [
        (*batch.of(number), *rows.of(number), across)
        for number, across in enumerate(problem.across[2:], 2)
    ]
    first = 2 + len(found.epilogue.loads)
    finish = Finish(
        found.epilogue, tuple(operands[2:first]), tuple(operands[first:]), tuple(strides)
    )
    return finish.oriented(problem.columns, swap=False)
