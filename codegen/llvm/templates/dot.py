"""The micro-kernel of contractions: a tile of results in registers, operands in place or packed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

from einkorn.codegen.llvm.templates.epilogue import (
    Finish,
    Tile,
    finish_stack,
    finish_vector,
    moved,
    places,
    read_finish,
)
from einkorn.codegen.llvm.text import Value, Writer, is_float, vector
from einkorn.codegen.llvm.vectors import (
    ceil_div,
    divmod_,
    element,
    load,
    masked_load,
    param,
    pointer,
    register,
    round_down,
    signature,
    smaller,
    store,
)
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import TiledDot

_UNROLL = 2  # steps of k in one pass of the micro-kernel's loop
_ROWS_A_POINTER = 4  # rows of the left operand that are found from one pointer


@dataclass(frozen=True, slots=True)
class _Side:
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
        return element(w, dtype, self.base, _offset(w, index, (*self.batch, *self.rows)))


@dataclass(frozen=True, slots=True)
class _Dot:
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
    left: _Side
    row: Value
    right: _Side
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


def tiled_dot(kernel: TiledDot, lanes: int) -> str:
    """LLVM text of TiledDot.

    for tile in range(begin, end):
        acc[:, :] = +0                               # rows x columns, in registers
        for line in axes of k but the last, for k in the last:
            acc[r, :] = fma(left[r, k], right[k, :], acc[r, :]) for each row r
        out[tile] = epilogue(acc)                    # from registers, or through the stack

    With unfinished sums:
    for part of k: for tile in range(begin, end):
        acc = sums[tile], or +0 in the first part; ...; sums[tile] = acc, or the epilogue at the end
    """
    w = Writer()
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        dot = _read(w, kernel, lanes, pointers, params)
        if kernel.unfinished:
            total = _length(w, dot)
            with w.loop(w.i64(0), _parts(w, total, dot.part[0])) as loop:
                first = w.mul(loop.index, dot.part[0])
                stop = smaller(w, total, w.add(first, dot.part[0]))
                _all_tiles(w, dot, begin, end, first, stop)
        else:
            _all_tiles(w, dot, begin, end, w.i64(0), _length(w, dot))
    return w.module()


def _read(w: Writer, kernel: TiledDot, lanes: int, pointers: Value, params: Value) -> _Dot:
    """The parameters in the order of ir/loops.py."""
    taken = iter(range(1 << 16))

    def take(count: int) -> list[Value]:
        return [param(w, params, next(taken)) for _ in range(count)]

    def side(number: int, rows: int) -> _Side:
        batch, strides, steps = take(2), take(rows), take(kernel.depth)
        return _Side(pointer(w, pointers, number), batch, strides, steps, *take(1))

    depth, runs = kernel.depth, 2 if kernel.run else 0
    sizes, k, block = take(4), take(depth), take(1)
    around, part = take(runs), take(int(kernel.unfinished))
    left, right = side(0, 3 if kernel.run else 2), side(1, 1)
    row = left.rows[-1]
    if not kernel.run:
        left.rows.pop()
    axes = 3 + kernel.row_axes
    finish = read_finish(w, kernel.epilogue, kernel.out, pointers, params, (2, next(taken)), axes)
    accesses = len(finish.accesses)
    sums = pointer(w, pointers, 2 + accesses) if kernel.unfinished else left.base
    return _Dot(
        kernel,
        sizes,
        k,
        block[0],
        around,
        part,
        left,
        row,
        right,
        finish,
        sums,
        gcd(kernel.columns, 4 * lanes // kernel.dtype.itemsize),
        w.alloca(register(kernel.dtype), kernel.rows * kernel.columns),
        w.alloca("i64", 3 * kernel.rows),
        w.alloca("i64"),
    )


def _parts(w: Writer, total: Value, part: Value) -> Value:
    """How many visits there are."""
    return w.binary("udiv", w.add(total, w.sub(part, w.i64(1))), part)


def _length(w: Writer, dot: _Dot) -> Value:
    """The steps of k, or with more axes those of all but the last one."""
    first, *others = dot.k[: max(len(dot.k) - 1, 1)]
    for extent in others:
        first = w.mul(first, extent)
    return first


def _all_tiles(w: Writer, dot: _Dot, begin: Value, end: Value, first: Value, stop: Value) -> None:
    """A part of k for every tile of a range."""
    with w.loop(begin, end, 1, _position(w, dot, begin)) as loop:
        loop.next = _following(w, dot, loop.carried)
        _one_tile(w, dot, loop.index, loop.carried, (first, stop))


# -- which tile ------------------------------------------------------------------------------------


def _counts(w: Writer, dot: _Dot) -> tuple[Value, Value]:
    """How many tiles there are along m and along n."""
    return (
        ceil_div(w, dot.sizes[2], dot.kernel.rows),
        ceil_div(w, dot.sizes[3], dot.kernel.columns),
    )


def _position(w: Writer, dot: _Dot, item: Value) -> list[Value]:
    """Outer batch, inner batch, first tile row of the block, tile column, tile row in the block."""
    inner, block = dot.sizes[1], dot.block
    tiles_m, tiles_n = _counts(w, dot)
    batch, rest = divmod_(w, item, w.mul(tiles_m, tiles_n))
    number, rest = divmod_(w, rest, w.mul(block, tiles_n))
    top = w.mul(number, block)
    column, row = divmod_(w, rest, smaller(w, block, w.sub(tiles_m, top)))
    return [*divmod_(w, batch, inner), top, column, row]


def _following(w: Writer, dot: _Dot, position: list[Value]) -> list[Value]:
    """The next tile's position: rows of the block first, then columns, blocks, batches."""
    outer, inner, top, column, row = position
    block = dot.block
    tiles_m, tiles_n = _counts(w, dot)
    one = w.i64(1)
    rows = smaller(w, block, w.sub(tiles_m, top))
    row, carry = _stepped(w, row, one, rows, w.const("i1", True))
    column, carry = _stepped(w, column, one, tiles_n, carry)
    top, carry = _stepped(w, top, block, tiles_m, carry)
    inner, carry = _stepped(w, inner, one, dot.sizes[1], carry)
    return [w.add(outer, w.select(carry, one, w.i64(0))), inner, top, column, row]


def _stepped(w: Writer, value: Value, by: Value, limit: Value, carry: Value) -> tuple[Value, Value]:
    """A digit with carry: `value + by` if `carry`, and whether it went over to 0."""
    grown = w.add(value, w.select(carry, by, w.i64(0)))
    over = w.icmp("sge", grown, limit)
    return w.select(over, w.i64(0), grown), over


# -- one tile --------------------------------------------------------------------------------------


def _one_tile(
    w: Writer, dot: _Dot, item: Value, position: list[Value], part: tuple[Value, Value]
) -> None:
    outer, inner, top, column, row = position
    kernel = dot.kernel
    _, _, m, n = dot.sizes
    wanted_m = w.mul(w.add(top, row), w.i64(kernel.rows))
    wanted_n = w.mul(column, w.i64(kernel.columns))
    first_m = smaller(w, wanted_m, dot.left.last)
    first_n = smaller(w, wanted_n, dot.right.last)
    runs = _runs(w, dot, first_m)
    heads = _heads(w, dot, (outer, inner), runs)
    if kernel.diagonal:
        heads = [element(w, kernel.dtype, head, first_n) for head in heads]
    right = dot.right.at(w, kernel.dtype, (outer, inner, first_n))
    masks = [
        _mask(w, dot, w.sub(w.sub(n, first_n), w.i64(c * dot.width))) if kernel.masked else None
        for c in range(dot.vectors)
    ]
    acc = _started(w, dot, item, part[0])
    acc = _accumulate(w, dot, heads, right, masks, acc, part)
    tile = Tile(
        [outer, inner, *runs[0], first_n],
        (w.sub(wanted_m, first_m), smaller(w, w.sub(m, first_m), w.i64(kernel.rows))),
        (w.sub(wanted_n, first_n), smaller(w, w.sub(n, first_n), w.i64(kernel.columns))),
        _row_finder(w, dot, runs) if kernel.run else None,
    )
    if not kernel.unfinished:
        _finish(w, dot, tile, runs, masks, acc)
        return
    with w.if_else(w.icmp("eq", part[1], _length(w, dot))) as branches:
        _finish(w, dot, tile, runs, masks, acc)
        branches.otherwise()
        for number, value in enumerate(acc):
            w.store(value, _sum_place(w, dot, item, number))


def _started(w: Writer, dot: _Dot, item: Value, first: Value) -> list[Value]:
    """The accumulators before a part of k."""
    count = dot.kernel.rows * dot.vectors
    zero = w.const(vector(dot.width, register(dot.kernel.dtype)), 0)
    if not dot.kernel.unfinished:
        return [zero] * count
    fresh = w.icmp("eq", first, w.i64(0))
    held = [w.load(zero.type, _sum_place(w, dot, item, number)) for number in range(count)]
    return [w.select(fresh, zero, value) for value in held]


def _sum_place(w: Writer, dot: _Dot, item: Value, number: int) -> Value:
    """The address of an unfinished vector of a work item."""
    tile = w.mul(item, w.i64(dot.kernel.rows * dot.kernel.columns))
    return element(w, dot.kernel.dtype, dot.sums, w.add(tile, w.i64(number * dot.width)))


def _runs(w: Writer, dot: _Dot, first: Value) -> list[list[Value]]:
    """The row indices at which the runs of a tile start."""
    if not dot.kernel.run:
        return [[first]]
    middle, last = dot.around
    a, rest = divmod_(w, first, w.mul(middle, last))
    b, c = divmod_(w, rest, last)
    found = [[a, b, c]]
    for _ in range(dot.kernel.rows // dot.kernel.run - 1):
        c, carry = _stepped(w, c, w.i64(dot.kernel.run), last, w.const("i1", True))
        b, carry = _stepped(w, b, w.i64(1), middle, carry)
        a = w.add(a, w.select(carry, w.i64(1), w.i64(0)))
        found.append([a, b, c])
    return found


def _row_finder(w: Writer, dot: _Dot, runs: list[list[Value]]) -> Callable[[Value], list[Value]]:
    """Finds the indices of a row of the tile whose number is not known: through memory."""
    for number, value in enumerate(index for run in runs for index in run):
        w.store(value, w.gep("i64", dot.places, w.i64(number)))

    def find(row: Value) -> list[Value]:
        run, rest = divmod_(w, row, w.i64(dot.kernel.run))
        at = w.gep("i64", dot.places, w.mul(run, w.i64(3)))
        a, b, c = (w.load("i64", w.gep("i64", at, w.i64(k))) for k in range(3))
        return [a, b, w.add(c, rest)]

    return find


def _offset(w: Writer, index: Sequence[Value], strides: Sequence[Value]) -> Value:
    total = w.i64(0)
    for position, stride in zip(index, strides):
        total = w.add(total, w.mul(position, stride))
    return total


def _heads(
    w: Writer, dot: _Dot, batch: tuple[Value, Value], runs: list[list[Value]]
) -> list[Value]:
    """The addresses from which the rows of the left operand are found, at the start of k."""
    dtype, found = dot.kernel.dtype, list[Value]()
    for run in runs:
        start = dot.left.at(w, dtype, (*batch, *run))
        found.append(start)
        if not dot.kernel.adjacent_rows:
            for r in range(_ROWS_A_POINTER, dot.run, _ROWS_A_POINTER):
                found.append(element(w, dtype, start, w.mul(dot.row, w.i64(r))))
    return found


def _mask(w: Writer, dot: _Dot, remaining: Value) -> Value:
    """A mask of the first `remaining` lanes, out of memory: LLVM would make it again for each k."""
    mask = w.tail_mask(remaining, dot.width)
    w.store(w.bitcast(mask, f"i{dot.width}"), dot.hidden)
    return w.bitcast(w.load(f"i{dot.width}", dot.hidden), mask.type)


# -- the contraction -------------------------------------------------------------------------------

Masks = Sequence[Value | None]


def _accumulate(
    w: Writer,
    dot: _Dot,
    heads: list[Value],
    right: Value,
    masks: Masks,
    acc: list[Value],
    part: tuple[Value, Value],
) -> list[Value]:
    """The accumulators of a tile, row by row, after a part of k."""
    w.store(dot.left.steps[-1], dot.hidden)
    apart = [w.mul(dot.row, w.i64(r)) for r in range(min(_ROWS_A_POINTER, dot.run))]
    dtype = dot.kernel.dtype
    if dot.kernel.depth > 1:
        return _lines(w, dot, heads, right, masks, acc, part, apart)
    first, stop = part
    moved = [element(w, dtype, head, w.mul(first, dot.left.steps[0])) for head in heads]
    start = element(w, dtype, right, w.mul(first, dot.right.steps[0]))
    return _steps(w, dot, moved, start, masks, acc, w.sub(stop, first), apart)


def _lines(
    w: Writer,
    dot: _Dot,
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
    starts = [_offset(w, (rest, *index), steps) for steps in (left_steps, right_steps)]
    with w.loop(*part, 1, [*acc, *starts, *index]) as loop:
        held = loop.carried[: len(acc)]
        at_left, at_right, *index = loop.carried[len(acc) :]
        moved = [element(w, dtype, head, at_left) for head in heads]
        start = element(w, dtype, right, at_right)
        held = _steps(w, dot, moved, start, masks, held, dot.k[-1], apart)
        at_left, at_right = w.add(at_left, left_steps[-1]), w.add(at_right, right_steps[-1])
        carry = w.const("i1", True)
        for axis in range(len(extents) - 1, 0, -1):
            index[axis - 1], carry = _stepped(w, index[axis - 1], w.i64(1), extents[axis], carry)
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
    dot: _Dot,
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
    w: Writer, dot: _Dot, state: list[Value], apart: list[Value], masks: Masks
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


def _columns(w: Writer, dot: _Dot, place: Value, masks: Masks) -> list[Value]:
    """A row of adjacent columns, vector by vector."""
    dtype, width = dot.kernel.dtype, dot.width
    found: list[Value] = []
    for c, mask in enumerate(masks):
        at = element(w, dtype, place, w.i64(c * width))
        found.append(load(w, dtype, at, width) if mask is None else masked_load(w, dtype, at, mask))
    return found


def _row_place(w: Writer, dot: _Dot, heads: list[Value], apart: list[Value], row: int) -> Value:
    """Where a row of the left operand lies, found from the nearest head."""
    run, rest = divmod(row, dot.run)
    if dot.kernel.adjacent_rows:
        return element(w, dot.kernel.dtype, heads[run], w.i64(rest))
    head = run * -(-dot.run // _ROWS_A_POINTER) + rest // _ROWS_A_POINTER
    return element(w, dot.kernel.dtype, heads[head], apart[rest % _ROWS_A_POINTER])


def multiply_add(w: Writer, a: Value, b: Value, c: Value) -> Value:
    """a * b + c with one rounding; wrapping for integers."""
    return w.fma(a, b, c) if is_float(a.type) else w.add(w.mul(a, b), c)


# -- storing ---------------------------------------------------------------------------------------


def _finish(
    w: Writer,
    dot: _Dot,
    tile: Tile,
    runs: list[list[Value]],
    masks: Masks,
    acc: list[Value],
) -> None:
    """A whole tile with a short epilogue from registers, anything else through the stack."""
    kernel = dot.kernel
    if not dot.finish.is_light:
        _through_stack(w, dot, tile, acc)
        return
    stored = w.sub(tile.rows[1], tile.rows[0])
    whole = w.icmp("eq", stored, w.i64(kernel.rows))
    if not kernel.masked:
        across = w.sub(tile.columns[1], tile.columns[0])
        whole = w.and_(whole, w.icmp("eq", across, w.i64(kernel.columns)))
    with w.if_else(whole) as branches:
        for number, run in enumerate(runs):
            at = places(w, dot.finish, (*tile.origin[:2], *run, tile.origin[-1]))
            for r in range(number * dot.run, (number + 1) * dot.run):
                for c, mask in enumerate(masks):
                    here = moved(w, dot.finish, at, -1, w.i64(c * dot.width))
                    column = w.add(tile.origin[-1], w.i64(c * dot.width))
                    value = acc[r * dot.vectors + c]
                    finish_vector(w, dot.finish, here, column, value, mask)
                at = moved(w, dot.finish, at, -2, w.i64(1))
        branches.otherwise()
        _through_stack(w, dot, tile, acc)


def _through_stack(w: Writer, dot: _Dot, tile: Tile, acc: list[Value]) -> None:
    for number, value in enumerate(acc):
        place = element(w, dot.kernel.dtype, dot.stack, w.i64(number * dot.width))
        store(w, dot.kernel.dtype, value, place)
    finish_stack(w, dot.finish, tile, dot.stack, dot.kernel.columns)
