"""The micro-kernel of contractions: a tile of results in registers, operands in place or packed."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

from einkorn.codegen.llvm.templates.epilogue import (
    Tile,
    finish_stack,
    finish_vector,
    moved,
    places,
    read_finish,
)
from einkorn.codegen.llvm.templates.tile import (
    ROWS_A_POINTER,
    Masks,
    TileKernel,
    TileSide,
    accumulate,
    stepped,
)
from einkorn.codegen.llvm.text import Value, Writer, vector
from einkorn.codegen.llvm.vectors import (
    ceil_div,
    divmod_,
    element,
    param,
    pointer,
    register,
    signature,
    smaller,
    store,
)
from einkorn.ir.loops import TiledDot


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


def _read(w: Writer, kernel: TiledDot, lanes: int, pointers: Value, params: Value) -> TileKernel:
    """The parameters in the order of ir/loops.py."""
    taken = iter(range(1 << 16))

    def take(count: int) -> list[Value]:
        return [param(w, params, next(taken)) for _ in range(count)]

    def side(number: int, rows: int) -> TileSide:
        batch, strides, steps = take(2), take(rows), take(kernel.depth)
        return TileSide(pointer(w, pointers, number), batch, strides, steps, *take(1))

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
    return TileKernel(
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


def _length(w: Writer, dot: TileKernel) -> Value:
    """The steps of k, or with more axes those of all but the last one."""
    first, *others = dot.k[: max(len(dot.k) - 1, 1)]
    for extent in others:
        first = w.mul(first, extent)
    return first


def _all_tiles(
    w: Writer, dot: TileKernel, begin: Value, end: Value, first: Value, stop: Value
) -> None:
    """A part of k for every tile of a range."""
    with w.loop(begin, end, 1, _position(w, dot, begin)) as loop:
        loop.next = _following(w, dot, loop.carried)
        _one_tile(w, dot, loop.index, loop.carried, (first, stop))


# -- which tile ------------------------------------------------------------------------------------


def _counts(w: Writer, dot: TileKernel) -> tuple[Value, Value]:
    """How many tiles there are along m and along n."""
    return (
        ceil_div(w, dot.sizes[2], dot.kernel.rows),
        ceil_div(w, dot.sizes[3], dot.kernel.columns),
    )


def _position(w: Writer, dot: TileKernel, item: Value) -> list[Value]:
    """Outer batch, inner batch, first tile row of the block, tile column, tile row in the block."""
    inner, block = dot.sizes[1], dot.block
    tiles_m, tiles_n = _counts(w, dot)
    batch, rest = divmod_(w, item, w.mul(tiles_m, tiles_n))
    number, rest = divmod_(w, rest, w.mul(block, tiles_n))
    top = w.mul(number, block)
    column, row = divmod_(w, rest, smaller(w, block, w.sub(tiles_m, top)))
    return [*divmod_(w, batch, inner), top, column, row]


def _following(w: Writer, dot: TileKernel, position: list[Value]) -> list[Value]:
    """The next tile's position: rows of the block first, then columns, blocks, batches."""
    outer, inner, top, column, row = position
    block = dot.block
    tiles_m, tiles_n = _counts(w, dot)
    one = w.i64(1)
    rows = smaller(w, block, w.sub(tiles_m, top))
    row, carry = stepped(w, row, one, rows, w.const("i1", True))
    column, carry = stepped(w, column, one, tiles_n, carry)
    top, carry = stepped(w, top, block, tiles_m, carry)
    inner, carry = stepped(w, inner, one, dot.sizes[1], carry)
    return [w.add(outer, w.select(carry, one, w.i64(0))), inner, top, column, row]


# -- one tile --------------------------------------------------------------------------------------


def _one_tile(
    w: Writer, dot: TileKernel, item: Value, position: list[Value], part: tuple[Value, Value]
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
    acc = accumulate(w, dot, heads, right, masks, acc, part)
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


def _started(w: Writer, dot: TileKernel, item: Value, first: Value) -> list[Value]:
    """The accumulators before a part of k."""
    count = dot.kernel.rows * dot.vectors
    zero = w.const(vector(dot.width, register(dot.kernel.dtype)), 0)
    if not dot.kernel.unfinished:
        return [zero] * count
    fresh = w.icmp("eq", first, w.i64(0))
    held = [w.load(zero.type, _sum_place(w, dot, item, number)) for number in range(count)]
    return [w.select(fresh, zero, value) for value in held]


def _sum_place(w: Writer, dot: TileKernel, item: Value, number: int) -> Value:
    """The address of an unfinished vector of a work item."""
    tile = w.mul(item, w.i64(dot.kernel.rows * dot.kernel.columns))
    return element(w, dot.kernel.dtype, dot.sums, w.add(tile, w.i64(number * dot.width)))


def _runs(w: Writer, dot: TileKernel, first: Value) -> list[list[Value]]:
    """The row indices at which the runs of a tile start."""
    if not dot.kernel.run:
        return [[first]]
    middle, last = dot.around
    a, rest = divmod_(w, first, w.mul(middle, last))
    b, c = divmod_(w, rest, last)
    found = [[a, b, c]]
    for _ in range(dot.kernel.rows // dot.kernel.run - 1):
        c, carry = stepped(w, c, w.i64(dot.kernel.run), last, w.const("i1", True))
        b, carry = stepped(w, b, w.i64(1), middle, carry)
        a = w.add(a, w.select(carry, w.i64(1), w.i64(0)))
        found.append([a, b, c])
    return found


def _row_finder(
    w: Writer, dot: TileKernel, runs: list[list[Value]]
) -> Callable[[Value], list[Value]]:
    """Finds the indices of a row of the tile whose number is not known: through memory."""
    for number, value in enumerate(index for run in runs for index in run):
        w.store(value, w.gep("i64", dot.places, w.i64(number)))

    def find(row: Value) -> list[Value]:
        run, rest = divmod_(w, row, w.i64(dot.kernel.run))
        at = w.gep("i64", dot.places, w.mul(run, w.i64(3)))
        a, b, c = (w.load("i64", w.gep("i64", at, w.i64(k))) for k in range(3))
        return [a, b, w.add(c, rest)]

    return find


def _heads(
    w: Writer, dot: TileKernel, batch: tuple[Value, Value], runs: list[list[Value]]
) -> list[Value]:
    """The addresses from which the rows of the left operand are found, at the start of k."""
    dtype, found = dot.kernel.dtype, list[Value]()
    for run in runs:
        start = dot.left.at(w, dtype, (*batch, *run))
        found.append(start)
        if not dot.kernel.adjacent_rows:
            for r in range(ROWS_A_POINTER, dot.run, ROWS_A_POINTER):
                found.append(element(w, dtype, start, w.mul(dot.row, w.i64(r))))
    return found


def _mask(w: Writer, dot: TileKernel, remaining: Value) -> Value:
    """A mask of the first `remaining` lanes, out of memory: LLVM would make it again for each k."""
    mask = w.tail_mask(remaining, dot.width)
    w.store(w.bitcast(mask, f"i{dot.width}"), dot.hidden)
    return w.bitcast(w.load(f"i{dot.width}", dot.hidden), mask.type)


# -- storing ---------------------------------------------------------------------------------------


def _finish(
    w: Writer,
    dot: TileKernel,
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


def _through_stack(w: Writer, dot: TileKernel, tile: Tile, acc: list[Value]) -> None:
    for number, value in enumerate(acc):
        place = element(w, dot.kernel.dtype, dot.stack, w.i64(number * dot.width))
        store(w, dot.kernel.dtype, value, place)
    finish_stack(w, dot.finish, tile, dot.stack, dot.kernel.columns)
