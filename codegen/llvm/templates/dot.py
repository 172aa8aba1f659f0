"""Contractions: the packed micro-kernel, and dots with few rows or columns."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from einkorn.codegen.llvm.text import Value, Writer, is_float, lanes_of, vector
from einkorn.codegen.llvm.vectors import (
    accumulator,
    ceil_div,
    divmod_,
    element,
    join,
    load,
    load_lanes,
    param,
    pointer,
    register,
    round_down,
    round_to,
    signature,
    smaller,
    store,
    store_lanes,
    sweep,
)
from einkorn.ir.dtypes import DType, float32, float64, int8, int16, int32, int64
from einkorn.ir.loops import PARTIALS, PackedDot, SkinnyDot
from einkorn.ir.ops import Op

# (tile_m, tile_n) by lanes (of 32 bits in a machine register) and dtype; accumulators fill the
# registers but for those of a row of the right panel and one element of the left one.
TILES: dict[int, dict[DType, tuple[int, int]]] = {
    16: {
        float32: (14, 32),
        float64: (14, 16),
        int64: (8, 16),
        int32: (8, 32),
        int16: (8, 32),
        int8: (8, 32),
    },
    8: {
        float32: (6, 16),
        float64: (6, 8),
        int64: (4, 8),
        int32: (6, 16),
        int16: (6, 16),
        int8: (6, 16),
    },
    4: {
        float32: (8, 8),
        float64: (8, 4),
        int64: (4, 4),
        int32: (8, 8),
        int16: (8, 8),
        int8: (8, 8),
    },
}
_SIGNED = {1: int8, 2: int16, 4: int32, 8: int64}
_UNROLL = 2  # steps of k in one pass of the micro-kernel's loop
_GROUP = 4  # outputs of a skinny dot computed side by side, to hide the latency of fma


def tile_shape(dtype: DType, lanes: int) -> tuple[int, int]:
    """The micro-tile (tile_m, tile_n) of a PackedDot; half types have that of float32."""
    wide = accumulator(dtype)
    return TILES[lanes][wide if wide.is_float else _SIGNED[wide.itemsize]]


# -- the packed micro-kernel -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tile:
    """One micro-tile.

    Attributes:
        left, right: the addresses of its packed panels.
        k: the length of the contraction.
        out: the address of its first result.
        rows, columns: how many results there are from the first one on; more than a tile at times.
        row_stride, column_stride: the strides of `out`.
    """

    left: Value
    right: Value
    k: Value
    out: Value
    rows: Value
    columns: Value
    row_stride: Value
    column_stride: Value


def packed_dot(kernel: PackedDot, lanes: int) -> str:
    """LLVM text of PackedDot.

    for tile in range(begin, end):
        acc[:, :] = +0                               # tile_m x tile_n, in registers
        for k in range(K):
            acc[r, :] = fma(left[k][r], right[k][:], acc[r, :]) for each row r
        out[tile] = acc                              # edges and strided results through the stack
    """
    w = Writer()
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        buffers = [pointer(w, pointers, i) for i in range(3)]
        sizes = [param(w, params, i) for i in range(1, 7)]
        stack = w.alloca(register(kernel.dtype), kernel.tile_m * kernel.tile_n)
        with w.loop(begin, end) as loop:
            tile = _locate(w, kernel, loop.index, buffers, sizes)
            acc = _accumulate(w, kernel, tile, lanes)
            _store_tile(w, kernel, tile, acc, stack)
    return w.module()


def _locate(
    w: Writer, kernel: PackedDot, index: Value, buffers: list[Value], sizes: list[Value]
) -> _Tile:
    """Tile `index`, n fastest, then m, then batch."""
    left, right, out = buffers
    m, n, k, batch_stride, row_stride, column_stride = sizes
    tile_m, tile_n = w.i64(kernel.tile_m), w.i64(kernel.tile_n)
    tiles_m, tiles_n = ceil_div(w, m, kernel.tile_m), ceil_div(w, n, kernel.tile_n)
    panel_m, column = divmod_(w, index, tiles_n)
    batch, row = divmod_(w, panel_m, tiles_m)
    panel_n = w.add(w.mul(batch, tiles_n), column)
    first_m, first_n = w.mul(row, tile_m), w.mul(column, tile_n)
    origin = w.add(w.mul(first_m, row_stride), w.mul(first_n, column_stride))
    return _Tile(
        element(w, kernel.dtype, left, w.mul(panel_m, w.mul(k, tile_m))),
        element(w, kernel.dtype, right, w.mul(panel_n, w.mul(k, tile_n))),
        k,
        element(w, kernel.out, out, w.add(w.mul(batch, batch_stride), origin)),
        w.sub(m, first_m),
        w.sub(n, first_n),
        row_stride,
        column_stride,
    )


def _accumulate(w: Writer, kernel: PackedDot, tile: _Tile, lanes: int) -> list[list[Value]]:
    """The accumulators of a tile, tile_m rows of vectors, after all of k."""
    width = gcd(kernel.tile_n, 4 * lanes // kernel.dtype.itemsize)
    vectors = kernel.tile_n // width
    zero = w.const(vector(width, register(kernel.dtype)), 0)
    full = round_down(w, tile.k, _UNROLL)
    acc = [zero] * (kernel.tile_m * vectors)
    for start, stop, unroll in ((w.i64(0), full, _UNROLL), (full, tile.k, 1)):
        with w.loop(start, stop, unroll, acc) as loop:
            loop.next = loop.carried
            a = _at(w, kernel, tile.left, w.mul(loop.index, w.i64(kernel.tile_m)))
            b = _at(w, kernel, tile.right, w.mul(loop.index, w.i64(kernel.tile_n)))
            for step in range(unroll):
                row_a = _at(w, kernel, a, w.i64(step * kernel.tile_m))
                row_b = _at(w, kernel, b, w.i64(step * kernel.tile_n))
                loop.next = _rank_one(w, kernel, row_a, row_b, width, loop.next)
        acc = loop.results
    return [acc[r * vectors : (r + 1) * vectors] for r in range(kernel.tile_m)]


def _rank_one(
    w: Writer, kernel: PackedDot, a: Value, b: Value, width: int, acc: list[Value]
) -> list[Value]:
    """acc[r, :] = fma(a[r], b[:], acc[r, :])"""
    dtype = kernel.dtype
    columns = [
        load(w, dtype, _at(w, kernel, b, w.i64(c)), width) for c in range(0, kernel.tile_n, width)
    ]
    result: list[Value] = []
    for r in range(kernel.tile_m):
        left = w.splat(load(w, dtype, _at(w, kernel, a, w.i64(r))), width)
        held = acc[r * len(columns) : (r + 1) * len(columns)]
        result += [_multiply_add(w, left, column, old) for column, old in zip(columns, held)]
    return result


def _at(w: Writer, kernel: PackedDot, panel: Value, index: Value) -> Value:
    return element(w, kernel.dtype, panel, index)


def _multiply_add(w: Writer, a: Value, b: Value, c: Value) -> Value:
    """a * b + c with one rounding; wrapping for integers."""
    return w.fma(a, b, c) if is_float(a.type) else w.add(w.mul(a, b), c)


def _store_tile(
    w: Writer, kernel: PackedDot, tile: _Tile, acc: list[list[Value]], stack: Value
) -> None:
    """Store a whole tile with adjacent columns from registers, anything else through the stack."""
    if kernel.inner != "unit":
        _spill(w, kernel, acc, stack)
        _store_strided(w, kernel, tile, stack)
        return
    whole_m = w.icmp("sge", tile.rows, w.i64(kernel.tile_m))
    whole_n = w.icmp("sge", tile.columns, w.i64(kernel.tile_n))
    with w.if_else(w.and_(whole_m, whole_n)) as branches:
        for r, row in enumerate(acc):
            place = element(w, kernel.out, tile.out, w.mul(w.i64(r), tile.row_stride))
            for value, at in _parts(w, kernel.out, place, row):
                store(w, kernel.out, round_to(w, kernel.out, value), at)
        branches.otherwise()
        _spill(w, kernel, acc, stack)
        _store_edge(w, kernel, tile, stack)


def _parts(w: Writer, dtype: DType, place: Value, row: list[Value]) -> list[tuple[Value, Value]]:
    """The vectors of a row, each with its address."""
    width = lanes_of(row[0].type)
    return [(value, element(w, dtype, place, w.i64(i * width))) for i, value in enumerate(row)]


def _spill(w: Writer, kernel: PackedDot, acc: list[list[Value]], stack: Value) -> None:
    for r, row in enumerate(acc):
        place = element(w, kernel.dtype, stack, w.i64(r * kernel.tile_n))
        for value, at in _parts(w, kernel.dtype, place, row):
            store(w, kernel.dtype, value, at)


def _store_edge(w: Writer, kernel: PackedDot, tile: _Tile, stack: Value) -> None:
    """out[r, :] = stack[r, :] as far as there are rows and columns; adjacent columns."""
    columns = smaller(w, tile.columns, w.i64(kernel.tile_n))
    with w.loop(w.i64(0), smaller(w, tile.rows, w.i64(kernel.tile_m))) as loop:
        source = _at(w, kernel, stack, w.mul(loop.index, w.i64(kernel.tile_n)))
        target = element(w, kernel.out, tile.out, w.mul(loop.index, tile.row_stride))

        def copy(index: Value, mask: Value | None, carried: list[Value]) -> list[Value]:
            value = load_lanes(w, kernel.dtype, _at(w, kernel, source, index), mask)
            place = element(w, kernel.out, target, index)
            store_lanes(w, kernel.out, round_to(w, kernel.out, value), place, mask)
            return []

        sweep(w, w.i64(0), columns, [], copy)


def _store_strided(w: Writer, kernel: PackedDot, tile: _Tile, stack: Value) -> None:
    """out[r, c] = stack[r, c] as far as there are rows and columns; any strides."""
    columns = smaller(w, tile.columns, w.i64(kernel.tile_n))
    with w.loop(w.i64(0), columns) as column:
        first = w.mul(column.index, tile.column_stride)
        with w.loop(w.i64(0), smaller(w, tile.rows, w.i64(kernel.tile_m))) as row:
            held = w.add(w.mul(row.index, w.i64(kernel.tile_n)), column.index)
            value = load(w, kernel.dtype, _at(w, kernel, stack, held))
            offset = w.add(first, w.mul(row.index, tile.row_stride))
            place = element(w, kernel.out, tile.out, offset)
            store(w, kernel.out, round_to(w, kernel.out, value), place)


# -- few rows or columns ---------------------------------------------------------------------------


def skinny_dot(kernel: SkinnyDot, lanes: int) -> str:
    """LLVM text of SkinnyDot.

    for four items at a time, then for each of the last ones:
        acc[16] = +0
        for i in range(0, k, 16): acc = fma(a[i : i + 16], b[i : i + 16], acc)
        out[item] = tree(acc)
    """
    w = Writer()
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        buffers = [pointer(w, pointers, i) for i in range(3)]
        sizes = [param(w, params, i) for i in range(1, 11)]
        full = w.add(begin, round_down(w, w.sub(end, begin), _GROUP))
        for start, stop, group in ((begin, full, _GROUP), (full, end, 1)):
            with w.loop(start, stop, group) as loop:
                items = [w.add(loop.index, w.i64(i)) for i in range(group)]
                places = [_skinny_places(w, kernel.dtype, i, buffers, sizes) for i in items]
                _skinny_group(w, kernel.dtype, places, sizes[2])
    return w.module()


def _skinny_places(
    w: Writer, dtype: DType, item: Value, buffers: list[Value], sizes: list[Value]
) -> list[Value]:
    """The addresses of item's row of a, its row of b, and its result."""
    m, n, _, a_batch, a_row, b_batch, b_row, out_batch, out_m, out_n = sizes
    rest, column = divmod_(w, item, n)
    batch, row = divmod_(w, rest, m)
    a = w.add(w.mul(batch, a_batch), w.mul(row, a_row))
    b = w.add(w.mul(batch, b_batch), w.mul(column, b_row))
    out = w.add(w.mul(batch, out_batch), w.add(w.mul(row, out_m), w.mul(column, out_n)))
    return [element(w, dtype, buffer, at) for buffer, at in zip(buffers, (a, b, out))]


def _skinny_group(w: Writer, dtype: DType, places: list[list[Value]], k: Value) -> None:
    wide = accumulator(dtype)
    zero = w.const(vector(PARTIALS, register(wide)), 0)

    def body(index: Value, mask: Value | None, carried: list[Value]) -> list[Value]:
        following: list[Value] = []
        for (a, b, _), acc in zip(places, carried):
            left, right = (load_lanes(w, dtype, element(w, dtype, p, index), mask) for p in (a, b))
            new = _multiply_add(w, left, right, acc)
            # 0 * 0 + acc would turn a chain that underflowed to -0 into +0.
            following.append(new if mask is None else w.select(mask, new, acc))
        return following

    for (_, _, out), acc in zip(places, sweep(w, w.i64(0), k, [zero] * len(places), body)):
        total = join(w, Op.SUM, wide, acc)
        store(w, dtype, round_to(w, dtype, total), out)
