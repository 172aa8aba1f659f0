"""The steps of a tile: its operands, and the chain over k in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from einkorn.codegen.llvm.templates.epilogue import (
    Finish,
)
from einkorn.codegen.llvm.text import Value, Writer, is_float
from einkorn.codegen.llvm.vectors import (
    divmod_,
    element,
    load,
    masked_load,
    round_down,
)
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import TiledDot

_UNROLL = 2  # steps of k in one pass of the micro-kernel's loop
ROWS_A_POINTER = 4  # rows of the left operand that are found from one pointer


@dataclass(frozen=True, slots=True)
class TileSide:
    """An operand: its address, batch strides, the strides of rows or tiles, the steps of k.

    Attributes:
        last: the last first row of a tile.
    """

    base: Value
    batch: list[Value]
    rows: list[Value]
    steps: list[Value]
    last: Value

    def at(self, w: Writer, dtype: DType, index: Sequence[Value]) -> Value:
        """The address at an index: outer batch, inner batch, rows."""
        return element(w, dtype, self.base, offset_of(w, index, (*self.batch, *self.rows)))


@dataclass(frozen=True, slots=True)
class TileKernel:
    """A kernel and its parameters.

    Attributes:
        sizes: outer batch, inner batch, m, n.
        k: the extents of k.
        block: tiles of rows in a block.
        around: the extents of the last two row axes, for a kernel with runs.
        part: how much of k goes between two visits, for a kernel with unfinished sums.
        row: the stride from a row to the next one.
        sums: the address of unfinished sums.
        width: elements of one vector.
        stack: room for a tile.
        places: room for the indices of a tile's runs.
        hidden: room for a number that LLVM must not see through.
    """

    kernel: TiledDot
    sizes: list[Value]
    k: list[Value]
    block: Value
    around: list[Value]
    part: list[Value]
    left: TileSide
    row: Value
    right: TileSide
    finish: Finish
    sums: Value
    width: int
    stack: Value
    places: Value
    hidden: Value

    @property
    def vectors(self) -> int:
        """Vectors in a row of the tile."""
        return self.kernel.columns // self.width

    @property
    def run(self) -> int:
        """Rows that follow each other."""
        return self.kernel.run or self.kernel.rows


def stepped(w: Writer, value: Value, by: Value, limit: Value, carry: Value) -> tuple[Value, Value]:
    """A digit with carry: `value + by` if `carry`, and whether it went over to 0."""
    grown = w.add(value, w.select(carry, by, w.i64(0)))
    over = w.icmp("sge", grown, limit)
    return w.select(over, w.i64(0), grown), over


def offset_of(w: Writer, index: Sequence[Value], strides: Sequence[Value]) -> Value:
    """How far an index lies from the first element."""
    total = w.i64(0)
    for position, stride in zip(index, strides):
        total = w.add(total, w.mul(position, stride))
    return total


Masks = Sequence[Value | None]


def accumulate(
    w: Writer,
    dot: TileKernel,
    heads: list[Value],
    right: Value,
    masks: Masks,
    acc: list[Value],
    part: tuple[Value, Value],
) -> list[Value]:
    """The accumulators of a tile, row by row, after a part of k."""
    w.store(dot.left.steps[-1], dot.hidden)
    apart = [w.mul(dot.row, w.i64(r)) for r in range(min(ROWS_A_POINTER, dot.run))]
    dtype = dot.kernel.dtype
    if dot.kernel.depth > 1:
        return _lines(w, dot, heads, right, masks, acc, part, apart)
    first, stop = part
    moved = [element(w, dtype, head, w.mul(first, dot.left.steps[0])) for head in heads]
    start = element(w, dtype, right, w.mul(first, dot.right.steps[0]))
    return _steps(w, dot, moved, start, masks, acc, w.sub(stop, first), apart)


def _lines(
    w: Writer,
    dot: TileKernel,
    heads: list[Value],
    right: Value,
    masks: Masks,
    acc: list[Value],
    part: tuple[Value, Value],
    apart: list[Value],
) -> list[Value]:
    """The same with several axes of k: the last one for every index of the others, in order."""
    dtype = dot.kernel.dtype
    extents = dot.k[:-1]
    left_steps, right_steps = dot.left.steps[:-1], dot.right.steps[:-1]
    index: list[Value] = []
    rest = part[0]
    for extent in reversed(extents[1:]):
        rest, digit = divmod_(w, rest, extent)
        index.insert(0, digit)
    starts = [offset_of(w, (rest, *index), steps) for steps in (left_steps, right_steps)]
    with w.loop(*part, 1, [*acc, *starts, *index]) as loop:
        held = loop.carried[: len(acc)]
        at_left, at_right, *index = loop.carried[len(acc) :]
        moved = [element(w, dtype, head, at_left) for head in heads]
        start = element(w, dtype, right, at_right)
        held = _steps(w, dot, moved, start, masks, held, dot.k[-1], apart)
        at_left, at_right = w.add(at_left, left_steps[-1]), w.add(at_right, right_steps[-1])
        carry = w.const("i1", True)
        for axis in range(len(extents) - 1, 0, -1):
            index[axis - 1], carry = stepped(w, index[axis - 1], w.i64(1), extents[axis], carry)
            jumps = [
                w.sub(steps[axis - 1], w.mul(extents[axis], steps[axis]))
                for steps in (left_steps, right_steps)
            ]
            at_left, at_right = (
                w.add(at, w.select(carry, jump, w.i64(0)))
                for at, jump in zip((at_left, at_right), jumps)
            )
        loop.next = [*held, at_left, at_right, *index]
    return loop.results[: len(acc)]


def _steps(
    w: Writer,
    dot: TileKernel,
    heads: list[Value],
    right: Value,
    masks: Masks,
    acc: list[Value],
    count: Value,
    apart: list[Value],
) -> list[Value]:
    """The accumulators after `count` steps along the last axis of k."""
    state = [*acc, right, *heads]
    full = round_down(w, count, _UNROLL)
    for start, stop, unroll in ((w.i64(0), full, _UNROLL), (full, count, 1)):
        with w.loop(start, stop, unroll, state) as loop:
            loop.next = loop.carried
            for _ in range(unroll):
                loop.next = _rank_one(w, dot, loop.next, apart, masks)
        state = loop.results
    return state[: len(acc)]


def _rank_one(
    w: Writer, dot: TileKernel, state: list[Value], apart: list[Value], masks: Masks
) -> list[Value]:
    """acc[r, :] = fma(left[r], right[:], acc[r, :]), and the addresses of the next k."""
    dtype = dot.kernel.dtype
    count = dot.kernel.rows * dot.vectors
    acc, right, heads = state[:count], state[count], state[count + 1 :]
    columns = _columns(w, dot, right, masks)
    result: list[Value] = []
    for r in range(dot.kernel.rows):
        place = _row_place(w, dot, heads, apart, r)
        if dot.kernel.diagonal:
            factors = _columns(w, dot, place, masks)
        else:
            factors = [w.splat(load(w, dtype, place), dot.width)] * dot.vectors
        held = acc[r * dot.vectors : (r + 1) * dot.vectors]
        result += [multiply_add(w, *row) for row in zip(factors, columns, held)]
    # LLVM finds the rows by a chain of additions when it sees through the step. The chain sets the
    # pace when there is one vector for each row; beside more of them it keeps loads near their use.
    step = w.load("i64", dot.hidden) if dot.vectors == 1 else dot.left.steps[-1]
    steps = [dot.right.steps[-1], *([step] * len(heads))]
    return [*result, *(element(w, dtype, p, s) for p, s in zip((right, *heads), steps))]


def _columns(w: Writer, dot: TileKernel, place: Value, masks: Masks) -> list[Value]:
    """A row of adjacent columns, vector by vector."""
    dtype, width = dot.kernel.dtype, dot.width
    found: list[Value] = []
    for c, mask in enumerate(masks):
        at = element(w, dtype, place, w.i64(c * width))
        found.append(load(w, dtype, at, width) if mask is None else masked_load(w, dtype, at, mask))
    return found


def _row_place(
    w: Writer, dot: TileKernel, heads: list[Value], apart: list[Value], row: int
) -> Value:
    """Where a row of the left operand lies, found from the nearest head."""
    run, rest = divmod(row, dot.run)
    if dot.kernel.adjacent_rows:
        return element(w, dot.kernel.dtype, heads[run], w.i64(rest))
    head = run * -(-dot.run // ROWS_A_POINTER) + rest // ROWS_A_POINTER
    return element(w, dot.kernel.dtype, heads[head], apart[rest % ROWS_A_POINTER])


def multiply_add(w: Writer, a: Value, b: Value, c: Value) -> Value:
    """a * b + c with one rounding; wrapping for integers."""
    return w.fma(a, b, c) if is_float(a.type) else w.add(w.mul(a, b), c)
