"""Kernels: what passes hand to codegen. Target-neutral, hashable, and free of sizes.

A kernel is a loop nest over an expression, or a template for something a loop nest cannot say.
Extents and strides are run-time parameters, so equal layers, the last batch, eager mode and other
programs share one kernel. Every kernel has the same native signature

    void kernel(ptr pointers, ptr params, i64 begin, i64 end, ptr status)

with `pointers` the addresses of its buffers and `params` 64-bit integers, in the order that each
class states; [begin, end) is the part of its work items to do. Splitting the work anywhere, among
any number of threads, changes no bit. Strides count elements. No extent is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from einkorn.ir.dtypes import DType
from einkorn.ir.ops import Op
from einkorn.ir.types import TensorType
from einkorn.ir.windows import WindowKernel

BATCH_CHUNK = 4096  # elements of one tensor in one work item of a batched map
COLUMN_CHUNK = 64  # columns in one work item of a column reduction or a scatter
RANDOM_CHUNK = 64  # elements in one work item of Philox
ROW_BLOCK = 4096  # elements in one block of a row reduction (semantics: ir/ops.py)
COLUMN_BLOCK = 256  # rows in one block of a column reduction (semantics: ir/ops.py)
PARTIALS = 16  # partial results of a row reduction, chains of a skinny dot (semantics: ir/ops.py)
REDUCTIONS = (Op.SUM, Op.PROD, Op.MAX, Op.MIN)
SKINNY = 4  # min(M, N) up to which a dot uses interleaved chains (semantics: ir/ops.py)


@dataclass(frozen=True, slots=True)
class Access:
    """How a loop nest reads or writes one buffer.

    Attributes:
        dtype: what is stored.
        inner: the stride along the innermost axis: "unit" (1), "zero" (0) or "any".
    """

    dtype: DType
    inner: str


class Over(IntEnum):
    """What a reduction of a loop nest goes over."""

    ROW = 0  # the last axis
    COLUMN = 1  # the last axis but one
    WHOLE = 2  # all axes


@dataclass(frozen=True, slots=True)
class Expr:
    """One step of the scalar expression of a loop nest.

    `inputs` are value numbers: first the loads in order, then the steps in order.

    Attributes:
        op: an elementwise op, CONST, IOTA (the index along the last axis), or a reduction of its
            one input: SUM, PROD, MAX or MIN.
        inputs: value numbers of the operands.
        dtype: the dtype of the result.
        attrs: the op's attributes (`exponent` of integer_pow, `bits` of const).
        over: for a reduction, what it goes over.
    """

    op: Op
    inputs: tuple[int, ...]
    dtype: DType
    attrs: tuple[tuple[str, int], ...] = ()
    over: Over | None = None


@dataclass(frozen=True, slots=True)
class LoopKernel:
    """A loop nest: for every index, load, evaluate the expression, then store or reduce.

    pointers: loads, then stores. params: `rank` extents, then for each load and each store `rank`
    strides. The last axis is the vector axis.

    reduction None: no step reduces; every store writes its value at every index. Work items are
        the indices of the last axis for rank 1 (split at multiples of PARTIALS), else the rows
        before it, flattened.
    reduction "rows": later steps may use a reduction over the ROW, and the kernel passes over a
        row as often as that takes. A store whose inner stride is "zero" writes one value for the
        row. Work items are the rows, flattened (one for rank 1).
    reduction "bands": as "rows", but work items are bands of COLUMN_BLOCK rows, and there are also
        partial results: over the COLUMN one for each band and column, over the WHOLE one for each
        ROW_BLOCK elements (the last extent then divides ROW_BLOCK and is a multiple of PARTIALS).
    reduction "blocks": rank 1, partial results over the WHOLE. Work items are blocks of ROW_BLOCK
        elements.
    reduction "columns": rank >= 2, partial results over the COLUMN. Work items are the flattened
        indices before the last two axes, times bands of COLUMN_BLOCK rows, times chunks of
        COLUMN_CHUNK columns (chunk fastest).
    Partial results are stored densely: [indices before, bands, columns] or [blocks]; their strides
    are ignored, and no step uses them. A Sequence joins them.

    Attributes:
        rank: the number of axes, at least 1.
        loads: how each operand is read.
        body: the expression steps.
        stores: for each result its access and value number.
        reduction: how reductions are run.
        kept: value numbers that are kept in a row of stack memory between passes over a row, where
            others are computed again. Half types are kept as float32.
    """

    rank: int
    loads: tuple[Access, ...]
    body: tuple[Expr, ...]
    stores: tuple[tuple[Access, int], ...]
    reduction: str | None = None
    kept: tuple[int, ...] = ()

    def __str__(self) -> str:
        """One line for each load, step and store; `;` stands before what is one value for a row."""
        kind = self.reduction or "map"
        rows = [f"{kind} kernel, rank {self.rank}"]
        known = levels(self)
        for number, access in enumerate(self.loads):
            rows.append(f"  %{number}: {access.dtype.short} = load {access.inner}")
        for number, step in enumerate(self.body, len(self.loads)):
            along = "" if known[number].varies else "; "
            over = f" over {step.over.name.lower()}" if step.over is not None else ""
            inputs = ", ".join(f"%{k}" for k in step.inputs)
            attrs = "".join(f" {key}={value}" for key, value in step.attrs)
            name = step.op.name.lower()
            kept = "  # kept" if number in self.kept else ""
            rows.append(
                f"  {along}%{number}: {step.dtype.short} = {name}({inputs}){attrs}{over}{kept}"
            )
        rows += [
            f"  store %{number}: {access.dtype.short} {access.inner}"
            for access, number in self.stores
        ]
        return "\n".join(rows)

    def dtype_of(self, number: int) -> DType:
        """The dtype of a value."""
        loads = len(self.loads)
        return self.loads[number].dtype if number < loads else self.body[number - loads].dtype

    def over(self, number: int) -> Over | None:
        """What a value was reduced over, if it was."""
        loads = len(self.loads)
        return self.body[number - loads].over if number >= loads else None


@dataclass(frozen=True, slots=True)
class Level:
    """When a value of a loop nest is known.

    Attributes:
        stage: the pass over the row in which it can first be computed; for partial results, the
            pass that adds to them.
        varies: whether it differs along the row.
    """

    stage: int
    varies: bool


def levels(kernel: LoopKernel) -> list[Level]:
    """The level of every value of a kernel: of loads, then of steps."""
    found = [Level(0, access.inner != "zero") for access in kernel.loads]
    for step in kernel.body:
        inputs = [found[k] for k in step.inputs]
        stage = max((level.stage for level in inputs), default=0)
        if step.over is not None:
            found.append(Level(stage + (step.over is Over.ROW), False))
        else:
            varies = step.op is Op.IOTA or any(level.varies for level in inputs)
            found.append(Level(stage, varies))
    return found


@dataclass(frozen=True, slots=True)
class Batched:
    """One map kernel of rank 1 on several tensors of different sizes, as one launch.

    pointers: the loads of each tensor, then the stores of each. params: the number of tensors; the
    number of the first work item of each, and of all; then for each the params of the map kernel.
    Work items: for each tensor its chunks of BATCH_CHUNK elements.
    """

    kernel: LoopKernel


@dataclass(frozen=True, slots=True)
class Sequence:
    """Combine partial results in order: out[o, i] = ((neutral + x[o, 0, i]) + x[o, 1, i]) + ...

    pointers: x, out. params: outer, count, inner; both dense. Work items: outer * chunks of
    COLUMN_CHUNK of the inner axis (chunk fastest).

    Attributes:
        op: SUM, PROD, MAX or MIN.
        dtype: of the partial results and the result.
    """

    op: Op
    dtype: DType


@dataclass(frozen=True, slots=True)
class RandomBits:
    """Philox4x32-10: u32 element i is word i % 4 of block i // 4.

    pointers: key (u64), draw counter (u64), out. params: n elements. Work items: chunks of
    RANDOM_CHUNK elements.
    """


@dataclass(frozen=True, slots=True)
class Check:
    """out = x, one bool; bit 2 of the status word is set when it is not what is expected.

    pointers: x, out. params: what is expected. Work items: 1.
    """


@dataclass(frozen=True, slots=True)
class Scan:
    """Over the middle axis of dense [outer, n, inner]: y[0] = x[0], y[i] = y[i-1] op x[i].

    pointers: x, out. params: outer, n, inner. Work items: outer * inner lines, inner fastest.
    Half types accumulate in float32, sums and products of float32 in float64. op is SUM, PROD, MAX
    or MIN.
    """

    op: Op
    dtype: DType


@dataclass(frozen=True, slots=True)
class ArgReduce:
    """argmax or argmin over the middle axis of dense [outer, n, inner], the first of equals.

    NaN counts as the largest (smallest for argmin); -0.0 equals 0.0, as in NumPy.
    pointers: x, out (i64 [outer, inner]). params: outer, n, inner. Work items: outer * inner.
    """

    op: Op
    dtype: DType


@dataclass(frozen=True, slots=True)
class ArgSort:
    """The order that sorts each row of dense [rows, n]: ascending, stable, NaN last, -0.0 as 0.0.

    pointers: x, then of shape [rows, n]: out (i64), other places (i64), and twice keys of
    `sort_key_bits(dtype)` bits; all but `out` are only working space. params: rows, n, and the
    number of passes, ceil(log2(n)). Work items: rows.
    """

    dtype: DType


def sort_key_bits(dtype: DType) -> int:
    """The width of the integers whose order is that of the elements."""
    return 64 if dtype.itemsize == 8 else 32


@dataclass(frozen=True, slots=True)
class Gather:
    """out[o, i, :] = x[o, indices[i], :] for dense [outer, size, inner].

    A negative index counts from the end once; beyond that the index is clamped and bit 0 of the
    status word is set (atomically). pointers: x, indices, out. params: outer, size, count, inner.
    Work items: outer * count.
    """

    itemsize: int
    index: DType


@dataclass(frozen=True, slots=True)
class Scatter:
    """out[o, indices[i], :] op= updates[o, i, :], i in order; `out` already holds x.

    Indices as in Gather. pointers: indices, updates, out. params: outer, size, count, inner.
    Work items: outer * chunks of COLUMN_CHUNK of the inner axis (chunk fastest).
    op is SCATTER_ADD or SCATTER_SET; never a half type for SCATTER_ADD.
    """

    op: Op
    dtype: DType
    index: DType


@dataclass(frozen=True, slots=True)
class Epilogue:
    """What a dot computes with every finished result, element by element, before storing it.

    Value number 0 is the dot's result, rounded to its dtype; then the loads, then the steps. A load
    may read the very elements that are stored: each is read before it is written, and only once.
    """

    loads: tuple[Access, ...]
    body: tuple[Expr, ...]
    stores: tuple[tuple[Access, int], ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Copy a matrix operand into panels: dst[batch][panel][k][width], zero beyond the last row.

    Rows are the M axis of the left operand or the N axis of the right one; k has two axes, the
    second one faster. Half types are widened to float32. pointers: src, dst. params: outer batch,
    inner batch, rows, both extents of k, and the source's strides for all five. Work items: batch *
    ceil(rows / width) panels.
    """

    dtype: DType
    width: int


@dataclass(frozen=True, slots=True)
class TiledDot:
    """out[b, m, n] = epilogue(fma chain over k), one micro-tile of rows x columns at a time.

    An operand is read in place or from panels (Pack of the tile's width); both are strides:
    element (r, k) of the tile that starts at row `first` lies at first * tile + r * row + k * step.
    In place `tile` and `row` are the stride of the rows, and a last tile that would stand out
    starts earlier, at `last`, so nothing outside is read; what it computes again is not stored. In
    panels, which are padded, `tile` is the length of the contraction and `last` the largest i64.
    The columns of a right tile are adjacent.

    k has up to four axes, the last one fastest, each with a step on either side: the windows of a
    convolution, or all its results. Rows may have three axes as well: then `run` rows follow each
    other along the last one, which `run` divides, and every run of a tile has its own place.

    pointers: left, right, epilogue loads, stores, and the buffer of unfinished sums if it has one.
    params: outer batch, inner batch, m, n, extents of k, block; with runs the extents of the last
    two row axes; with unfinished sums how much of k goes between two visits (steps, or with more
    axes steps of all but the last one, flattened); left (outer, inner, tile, row, steps, last),
    with runs (outer, inner, strides of the three row axes, steps, last); right (outer, inner,
    tile, steps, last); (outer, inner, m, n) strides of each load and store, with runs (outer,
    inner, three row axes, n).
    Work items: batch * ceil(m / rows) * ceil(n / columns) tiles: `block` tiles of rows go through
    all columns (rows fastest), then the next block. With unfinished sums all tiles of a range are
    visited once for each part of k, so that what they read of it stays near: a sum continues from
    where it was, which lies at rows * columns * (number of the work item).

    Attributes:
        dtype: of the operands and of the accumulators; float32 panels for half types.
        out: the dtype of the dot.
        rows, columns: the size of a tile.
        adjacent_rows: whether the `row` stride of the left operand is 1.
        masked: whether columns beyond n are masked: in place, with n < columns.
        epilogue: what is stored.
        depth: how many axes k has.
        run: how many rows follow each other evenly; 0: all of a tile.
        unfinished: whether sums are put down and taken up again between parts of k.
        diagonal: the left operand has the columns of the right one, adjacent, instead of one
            element for all of them: a depthwise convolution. Both are in place.
    """

    dtype: DType
    out: DType
    rows: int
    columns: int
    adjacent_rows: bool
    masked: bool
    epilogue: Epilogue
    depth: int = 1
    run: int = 0
    unfinished: bool = False
    diagonal: bool = False

    @property
    def row_axes(self) -> int:
        return 3 if self.run else 1


@dataclass(frozen=True, slots=True)
class SkinnyDot:
    """out[b, few, many] with PARTIALS interleaved fma chains over k, joined by the tree of ir/ops.

    `few` is M or N, whichever is at most SKINNY, and `many` the other one. Half types are widened
    to float32 as they are read.

    pointers: few, many, epilogue loads, stores.
    params: outer batch, inner batch, many, k; few (outer, inner, row, k); many (outer, inner, row,
    k); (outer, inner, few, many) strides of each load and store.
    Work items: batch * ceil(many / columns).

    Attributes:
        dtype: of the operands.
        out: the dtype of the dot.
        rows: how many the few are.
        columns: how many of the many make one work item.
        adjacent: what has stride 1: "many" of the many side, or "k" of both sides.
        masked: whether many < columns, with adjacent "many"; else the last item starts earlier.
        epilogue: what is stored.
    """

    dtype: DType
    out: DType
    rows: int
    columns: int
    adjacent: str
    masked: bool
    epilogue: Epilogue


@dataclass(frozen=True, slots=True)
class ScanLoop:
    """Run a nested program once for each step of a scan.

    The first params of this kernel and the two below are filled in when a program gets its
    addresses (einkorn.ir.program): the driver's `run`, then for each nested program its block, its
    table of slots, how many binds it has, and how many of them change from step to step. The last
    pointer is the nested arena. A step that refuses is the last one.

    pointers: consts, first carries, columns, last carries, stacked results, spare carries, arena.
    params: 1 + 4 words; length, reverse, the numbers of consts, carries, columns and stacked
    results; the bytes of a row of each column, and of each stacked result. Work items: 1.
    The nested program takes consts, carries and rows, and gives carries and rows. `length` > 0.
    """


@dataclass(frozen=True, slots=True)
class WhileLoop:
    """Run two nested programs in turn: a condition, and the body while it holds.

    pointers: consts, first carries, last carries, spare carries, the condition's bool, arena.
    params: 1 + 8 words (see ScanLoop); the numbers of consts and carries; the bytes of each carry.
    Work items: 1. Both nested programs take consts and carries.
    """


@dataclass(frozen=True, slots=True)
class Branch:
    """Run one of several nested programs, chosen by an index that is moved into their range.

    pointers: the index (i64), operands, results, arena. params: 1 word, 4 words for each nested
    program (see ScanLoop), the number of operands and results together. Work items: 1.

    Attributes:
        branches: how many programs there are.
    """

    branches: int


@dataclass(frozen=True, slots=True)
class HostCall:
    """Call the reference of an op on the host (einkorn.ir.host_calls), unless the step has refused.

    pointers: operands, results, all dense. params: 3 words, filled in by the runtime
    (einkorn.ir.program). Work items: 1. The one kernel that knows its shapes: what is called needs
    them. The code is the same for all.

    Attributes:
        op: what is computed.
        attrs: the op's attributes.
        operands: their types.
        results: their types.
    """

    op: Op
    attrs: tuple[tuple[str, Any], ...]
    operands: tuple[TensorType, ...]
    results: tuple[TensorType, ...]

    def __str__(self) -> str:
        attrs = "".join(f" {name}={value}" for name, value in self.attrs)
        operands, results = (", ".join(map(str, x)) for x in (self.operands, self.results))
        return f"host call {self.op.name.lower()}{attrs}: {operands} -> {results}"


Template = (
    Batched
    | RandomBits
    | Check
    | Sequence
    | Scan
    | ArgReduce
    | ArgSort
    | Gather
    | Scatter
    | Pack
    | TiledDot
    | SkinnyDot
    | WindowKernel
)
Nesting = ScanLoop | WhileLoop | Branch
Kernel = LoopKernel | Template | Nesting | HostCall
