"""The micro-kernel of contractions: a tile of results in registers, operands in place or packed."""

from __future__ import annotations

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
from einkorn.ir.loops import TiledDot

_UNROLL = 2  # steps of k in one pass of the micro-kernel's loop
_ROWS_A_POINTER = 4  # rows of the left operand that are found from one pointer
_FIRST_EPILOGUE_PARAM = 17


@dataclass(frozen=True, slots=True)
class _Dot:
    """A kernel and its parameters.

    Attributes:
        sizes: outer batch, inner batch, m, n, k, tiles of rows in a block.
        left: the address, the strides outer, inner, tile, row and step, the last first row.
        right: the address, the strides outer, inner, tile and step, the last first column.
        width: elements of one vector.
        stack: room for a tile.
        hidden: room for a number that LLVM must not see through.
    """

    kernel: TiledDot
    sizes: list[Value]
    left: list[Value]
    right: list[Value]
    finish: Finish
    width: int
    stack: Value
    hidden: Value

    @property
    def vectors(self) -> int:
        """Vectors in a row of the tile."""
        return self.kernel.columns // self.width


def tiled_dot(kernel: TiledDot, lanes: int) -> str:
    """LLVM text of TiledDot.

    for tile in range(begin, end):
        acc[:, :] = +0                               # rows x columns, in registers
        for k in range(K):
            acc[r, :] = fma(left[r, k], right[k, :], acc[r, :]) for each row r
        out[tile] = epilogue(acc)                    # from registers, or through the stack
    """
    w = Writer()
    width = gcd(kernel.columns, 4 * lanes // kernel.dtype.itemsize)
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        words = [param(w, params, i) for i in range(_FIRST_EPILOGUE_PARAM)]
        dot = _Dot(
            kernel,
            words[:6],
            [pointer(w, pointers, 0), *words[6:12]],
            [pointer(w, pointers, 1), *words[12:17]],
            read_finish(w, kernel.epilogue, kernel.out, pointers, params, _FIRST_EPILOGUE_PARAM),
            width,
            w.alloca(register(kernel.dtype), kernel.rows * kernel.columns),
            w.alloca("i64"),
        )
        with w.loop(begin, end, 1, _position(w, dot, begin)) as loop:
            loop.next = _following(w, dot, loop.carried)
            _one_tile(w, dot, loop.carried)
    return w.module()


# -- which tile ------------------------------------------------------------------------------------


def _counts(w: Writer, dot: _Dot) -> tuple[Value, Value]:
    """How many tiles there are along m and along n."""
    return (
        ceil_div(w, dot.sizes[2], dot.kernel.rows),
        ceil_div(w, dot.sizes[3], dot.kernel.columns),
    )


def _position(w: Writer, dot: _Dot, item: Value) -> list[Value]:
    """Outer batch, inner batch, first tile row of the block, tile column, tile row in the block."""
    _, inner, *_, block = dot.sizes
    tiles_m, tiles_n = _counts(w, dot)
    batch, rest = divmod_(w, item, w.mul(tiles_m, tiles_n))
    number, rest = divmod_(w, rest, w.mul(block, tiles_n))
    top = w.mul(number, block)
    column, row = divmod_(w, rest, smaller(w, block, w.sub(tiles_m, top)))
    return [*divmod_(w, batch, inner), top, column, row]


def _following(w: Writer, dot: _Dot, position: list[Value]) -> list[Value]:
    """The next tile's position: rows of the block first, then columns, blocks, batches."""
    outer, inner, top, column, row = position
    _, inner_count, *_, block = dot.sizes
    tiles_m, tiles_n = _counts(w, dot)
    zero, one = w.i64(0), w.i64(1)

    def step(value: Value, by: Value, limit: Value, carry: Value) -> tuple[Value, Value]:
        grown = w.add(value, w.select(carry, by, zero))
        over = w.icmp("sge", grown, limit)
        return w.select(over, zero, grown), over

    rows = smaller(w, block, w.sub(tiles_m, top))
    row, carry = step(row, one, rows, w.const("i1", True))
    column, carry = step(column, one, tiles_n, carry)
    top, carry = step(top, block, tiles_m, carry)
    inner, carry = step(inner, one, inner_count, carry)
    return [w.add(outer, w.select(carry, one, zero)), inner, top, column, row]


# -- one tile --------------------------------------------------------------------------------------


def _one_tile(w: Writer, dot: _Dot, position: list[Value]) -> None:
    outer, inner, top, column, row = position
    kernel = dot.kernel
    _, _, m, n, k, _ = dot.sizes
    wanted_m = w.mul(w.add(top, row), w.i64(kernel.rows))
    wanted_n = w.mul(column, w.i64(kernel.columns))
    left, left_outer, left_inner, left_tile, *_, last_m = dot.left
    right, right_outer, right_inner, right_tile, _, last_n = dot.right
    first_m, first_n = smaller(w, wanted_m, last_m), smaller(w, wanted_n, last_n)
    at_left = _offset(w, (outer, left_outer), (inner, left_inner), (first_m, left_tile))
    at_right = _offset(w, (outer, right_outer), (inner, right_inner), (first_n, right_tile))
    acc = _accumulate(
        w,
        dot,
        element(w, kernel.dtype, left, at_left),
        element(w, kernel.dtype, right, at_right),
        k,
        w.sub(n, first_n),
    )
    tile = Tile(
        [outer, inner, first_m, first_n],
        (w.sub(wanted_m, first_m), smaller(w, w.sub(m, first_m), w.i64(kernel.rows))),
        (w.sub(wanted_n, first_n), smaller(w, w.sub(n, first_n), w.i64(kernel.columns))),
    )
    _finish(w, dot, tile, acc)


def _offset(w: Writer, *terms: tuple[Value, Value]) -> Value:
    total = w.i64(0)
    for index, stride in terms:
        total = w.add(total, w.mul(index, stride))
    return total


def _accumulate(
    w: Writer, dot: _Dot, left: Value, right: Value, k: Value, columns: Value
) -> list[Value]:
    """The accumulators of a tile, row by row, after all of k."""
    kernel, width = dot.kernel, dot.width
    masks = [
        _mask(w, dot, w.sub(columns, w.i64(c * width))) if kernel.masked else None
        for c in range(dot.vectors)
    ]
    row = dot.left[4]
    apart = [w.mul(row, w.i64(r)) for r in range(_ROWS_A_POINTER)]
    heads = [left]
    if not kernel.adjacent_rows:
        starts = range(_ROWS_A_POINTER, kernel.rows, _ROWS_A_POINTER)
        heads += [element(w, kernel.dtype, left, w.mul(row, w.i64(r))) for r in starts]
    w.store(dot.left[5], dot.hidden)
    zero = w.const(vector(width, register(kernel.dtype)), 0)
    state = [*([zero] * (kernel.rows * dot.vectors)), right, *heads]
    full = round_down(w, k, _UNROLL)
    for start, stop, unroll in ((w.i64(0), full, _UNROLL), (full, k, 1)):
        with w.loop(start, stop, unroll, state) as loop:
            loop.next = loop.carried
            for _ in range(unroll):
                loop.next = _rank_one(w, dot, loop.next, apart, masks)
        state = loop.results
    return state[: kernel.rows * dot.vectors]


def _mask(w: Writer, dot: _Dot, remaining: Value) -> Value:
    """A mask of the first `remaining` lanes, out of memory: LLVM would make it again for each k."""
    mask = w.tail_mask(remaining, dot.width)
    w.store(w.bitcast(mask, f"i{dot.width}"), dot.hidden)
    return w.bitcast(w.load(f"i{dot.width}", dot.hidden), mask.type)


def _rank_one(
    w: Writer, dot: _Dot, state: list[Value], apart: list[Value], masks: list[Value | None]
) -> list[Value]:
    """acc[r, :] = fma(left[r], right[:], acc[r, :]), and the addresses of the next k."""
    kernel, dtype, width = dot.kernel, dot.kernel.dtype, dot.width
    count = kernel.rows * dot.vectors
    acc, right, heads = state[:count], state[count], state[count + 1 :]
    columns: list[Value] = []
    for c, mask in enumerate(masks):
        place = element(w, dtype, right, w.i64(c * width))
        columns.append(
            load(w, dtype, place, width) if mask is None else masked_load(w, dtype, place, mask)
        )
    result: list[Value] = []
    for r in range(kernel.rows):
        if kernel.adjacent_rows:
            place = element(w, dtype, heads[0], w.i64(r))
        else:
            place = element(w, dtype, heads[r // _ROWS_A_POINTER], apart[r % _ROWS_A_POINTER])
        factor = w.splat(load(w, dtype, place), width)
        held = acc[r * dot.vectors : (r + 1) * dot.vectors]
        result += [multiply_add(w, factor, column, old) for column, old in zip(columns, held)]
    # LLVM finds the rows by a chain of additions when it sees through the step. The chain sets the
    # pace when there is one vector for each row; beside more of them it keeps loads near their use.
    step = w.load("i64", dot.hidden) if dot.vectors == 1 else dot.left[5]
    steps = [dot.right[4], *([step] * len(heads))]
    return [*result, *(element(w, dtype, p, s) for p, s in zip((right, *heads), steps))]


def multiply_add(w: Writer, a: Value, b: Value, c: Value) -> Value:
    """a * b + c with one rounding; wrapping for integers."""
    return w.fma(a, b, c) if is_float(a.type) else w.add(w.mul(a, b), c)


def _finish(w: Writer, dot: _Dot, tile: Tile, acc: list[Value]) -> None:
    """A whole tile with a short epilogue from registers, anything else through the stack."""
    kernel = dot.kernel
    if not dot.finish.is_light or kernel.masked:
        _through_stack(w, dot, tile, acc)
        return
    stored = w.sub(tile.rows[1], tile.rows[0])
    across = w.sub(tile.columns[1], tile.columns[0])
    whole_rows = w.icmp("eq", stored, w.i64(kernel.rows))
    whole = w.and_(whole_rows, w.icmp("eq", across, w.i64(kernel.columns)))
    with w.if_else(whole) as branches:
        at = places(w, dot.finish, tile.origin)
        for r in range(kernel.rows):
            for c in range(dot.vectors):
                here = moved(w, dot.finish, at, 3, w.i64(c * dot.width))
                column = w.add(tile.origin[3], w.i64(c * dot.width))
                finish_vector(w, dot.finish, here, column, acc[r * dot.vectors + c], None)
            at = moved(w, dot.finish, at, 2, w.i64(1))
        branches.otherwise()
        _through_stack(w, dot, tile, acc)


def _through_stack(w: Writer, dot: _Dot, tile: Tile, acc: list[Value]) -> None:
    for number, value in enumerate(acc):
        place = element(w, dot.kernel.dtype, dot.stack, w.i64(number * dot.width))
        store(w, dot.kernel.dtype, value, place)
    finish_stack(w, dot.finish, tile, dot.stack, dot.kernel.columns)
