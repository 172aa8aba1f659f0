"""Contractions with few rows or columns: interleaved chains, joined by the tree of ir/ops.py."""

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
from einkorn.codegen.llvm.templates.tile import multiply_add
from einkorn.codegen.llvm.text import Value, Writer, vector
from einkorn.codegen.llvm.vectors import (
    accumulator,
    ceil_div,
    divmod_,
    element,
    join,
    larger,
    load,
    load_lanes,
    masked_load,
    param,
    pointer,
    register,
    signature,
    smaller,
    store,
    sweep,
)
from einkorn.ir.loops import PARTIALS, SkinnyDot
from einkorn.ir.ops import Op

_FIRST_EPILOGUE_PARAM = 12


@dataclass(frozen=True, slots=True)
class _Skinny:
    """A kernel and its parameters.

    Attributes:
        sizes: inner batch, many, k.
        few, many: the address, the strides outer, inner, row and k.
        width: elements of one vector of the many.
        held: accumulators that the registers hold.
    """

    kernel: SkinnyDot
    sizes: list[Value]
    few: list[Value]
    many: list[Value]
    finish: Finish
    width: int
    held: int
    stack: Value


def skinny_dot(kernel: SkinnyDot, lanes: int) -> str:
    """LLVM text of SkinnyDot: one function for each of the two layouts."""
    w = Writer()
    wide = accumulator(kernel.dtype)
    chains = PARTIALS if kernel.adjacent == "many" else 1
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        words = [param(w, params, i) for i in range(_FIRST_EPILOGUE_PARAM)]
        skinny = _Skinny(
            kernel,
            words[1:4],
            [pointer(w, pointers, 0), *words[4:8]],
            [pointer(w, pointers, 1), *words[8:12]],
            read_finish(
                w, kernel.epilogue, kernel.out, pointers, params, (2, _FIRST_EPILOGUE_PARAM)
            ),
            gcd(kernel.columns, 4 * lanes // wide.itemsize),
            8 if lanes == 8 else 16,
            w.alloca(register(wide), chains * kernel.rows * kernel.columns),
        )
        with w.loop(begin, end) as loop:
            _one_item(w, skinny, loop.index)
    return w.module()


def _one_item(w: Writer, skinny: _Skinny, item: Value) -> None:
    kernel = skinny.kernel
    inner_count, many, _ = skinny.sizes
    columns = w.i64(kernel.columns)
    batch, strip = divmod_(w, item, ceil_div(w, many, kernel.columns))
    outer, inner = divmod_(w, batch, inner_count)
    wanted = w.mul(strip, columns)
    first = wanted
    if kernel.adjacent == "many" and not kernel.masked:
        first = smaller(w, wanted, w.sub(many, columns))
    few = _moved(w, skinny, skinny.few, (outer, inner, w.i64(0)))
    across = _moved(w, skinny, skinny.many, (outer, inner, first))
    valid = smaller(w, w.sub(many, first), columns)
    tile = Tile(
        [outer, inner, w.i64(0), first],
        (w.i64(0), w.i64(kernel.rows)),
        (w.sub(wanted, first), valid),
    )
    if kernel.adjacent == "many":
        _chains_of_columns(w, skinny, few, across, valid)
        _finish_chains(w, skinny, tile)
    else:
        _chains_in_lanes(w, skinny, few, across, valid)
        finish_stack(w, skinny.finish, tile, skinny.stack, kernel.columns)


def _moved(w: Writer, skinny: _Skinny, operand: list[Value], index: tuple[Value, ...]) -> Value:
    base, *strides = operand
    offset = w.i64(0)
    for position, stride in zip(index, strides):
        offset = w.add(offset, w.mul(position, stride))
    return element(w, skinny.kernel.dtype, base, offset)


# -- adjacent columns: a vector of columns for every chain -----------------------------------------


def _chains_of_columns(w: Writer, skinny: _Skinny, few: Value, many: Value, valid: Value) -> None:
    """stack[chain][row][:] = the chains of a strip of columns.

    for first in range(0, 16, group):                    # chains that the registers hold together
        for k in range(first, K, 16):
            acc[j, r, :] = fma(few[r, k + j], many[k + j, :], acc[j, r, :]) for each j < group
        stack[first : first + group] = acc
    """
    kernel, wide = skinny.kernel, accumulator(skinny.kernel.dtype)
    k, vectors = skinny.sizes[2], kernel.columns // skinny.width
    group = max(1, min(PARTIALS, skinny.held // (kernel.rows * vectors)))
    group = 1 << (group.bit_length() - 1)
    masks = [
        w.tail_mask(w.sub(valid, w.i64(v * skinny.width)), skinny.width) if kernel.masked else None
        for v in range(vectors)
    ]
    each = kernel.rows * vectors
    zero = w.const(vector(skinny.width, register(wide)), 0)
    with w.loop(w.i64(0), w.i64(PARTIALS), group) as chains:
        whole = larger(w, w.sub(k, w.i64(group - 1)), chains.index)
        state = [chains.index, *([zero] * (group * each))]
        with w.loop(chains.index, whole, PARTIALS, state) as loop:
            acc: list[Value] = []
            for j in range(group):
                at = w.add(loop.index, w.i64(j))
                held = loop.carried[1 + j * each : 1 + (j + 1) * each]
                acc += _step(w, skinny, few, many, at, held, masks)
            loop.next = [w.add(loop.index, w.i64(PARTIALS)), *acc]
        reached, *acc = loop.results
        for j in range(group):
            held = acc[j * each : (j + 1) * each]
            with w.loop(w.add(reached, w.i64(j)), k, PARTIALS, held) as rest:
                rest.next = _step(w, skinny, few, many, rest.index, rest.carried, masks)
            for number, value in enumerate(rest.results):
                chain = w.mul(w.add(chains.index, w.i64(j)), w.i64(each * skinny.width))
                at = w.add(chain, w.i64(number * skinny.width))
                store(w, wide, value, element(w, wide, skinny.stack, at))


def _step(
    w: Writer,
    skinny: _Skinny,
    few: Value,
    many: Value,
    k: Value,
    acc: list[Value],
    masks: list[Value | None],
) -> list[Value]:
    """acc[r, :] = fma(few[r, k], many[k, :], acc[r, :])"""
    dtype, width = skinny.kernel.dtype, skinny.width
    row = element(w, dtype, many, w.mul(k, skinny.many[4]))
    columns: list[Value] = []
    for v, mask in enumerate(masks):
        place = element(w, dtype, row, w.i64(v * width))
        columns.append(
            load(w, dtype, place, width) if mask is None else masked_load(w, dtype, place, mask)
        )
    result: list[Value] = []
    place = element(w, dtype, few, w.mul(k, skinny.few[4]))
    for r in range(skinny.kernel.rows):
        at = element(w, dtype, place, w.mul(w.i64(r), skinny.few[3]))
        factor = w.splat(load(w, dtype, at), width)
        held = acc[r * len(columns) : (r + 1) * len(columns)]
        result += [multiply_add(w, factor, column, old) for column, old in zip(columns, held)]
    return result


def _finish_chains(w: Writer, skinny: _Skinny, tile: Tile) -> None:
    """Join the chains on the stack by the tree, column by column, and finish them."""
    kernel, wide = skinny.kernel, accumulator(skinny.kernel.dtype)
    apart = kernel.rows * kernel.columns
    outer, inner, _, first = tile.origin
    with w.loop(*tile.rows) as row:
        starts = places(w, skinny.finish, (outer, inner, row.index, first))
        source = element(w, wide, skinny.stack, w.mul(row.index, w.i64(kernel.columns)))

        def body(index: Value, mask: Value | None, _: list[Value]) -> list[Value]:
            at = element(w, wide, source, index)
            chains = [
                load_lanes(w, wide, element(w, wide, at, w.i64(j * apart)), mask)
                for j in range(PARTIALS)
            ]
            while len(chains) > 1:
                half = len(chains) // 2
                chains = [w.add(a, b) for a, b in zip(chains[:half], chains[half:])]
            here = moved(w, skinny.finish, starts, 3, index)
            finish_vector(w, skinny.finish, here, w.add(first, index), chains[0], mask)
            return []

        sweep(w, *tile.columns, [], body)


# -- adjacent k: a chain in every lane -------------------------------------------------------------


def _chains_in_lanes(w: Writer, skinny: _Skinny, few: Value, many: Value, valid: Value) -> None:
    """stack[row][column] = tree(chains) for a strip, some columns at a time.

    for column in range(0, valid, group):                # columns beyond the last repeat it
        for k in range(0, K, 16):
            acc[r, c][:] = fma(few[r, k : k + 16], many[column + c, k : k + 16], acc[r, c][:])
        stack[r][column + c] = tree(acc[r, c])
    """
    kernel, dtype = skinny.kernel, skinny.kernel.dtype
    wide = accumulator(dtype)
    group = max(1, skinny.held * skinny.width // PARTIALS // kernel.rows)
    group = min(8, 1 << (group.bit_length() - 1))
    zero = w.const(vector(PARTIALS, register(wide)), 0)
    last = w.sub(valid, w.i64(1))
    rows = [element(w, dtype, few, w.mul(w.i64(r), skinny.few[3])) for r in range(kernel.rows)]
    with w.loop(w.i64(0), valid, group) as loop:
        numbers = [smaller(w, w.add(loop.index, w.i64(c)), last) for c in range(group)]
        columns = [element(w, dtype, many, w.mul(n, skinny.many[3])) for n in numbers]

        def body(index: Value, mask: Value | None, carried: list[Value]) -> list[Value]:
            right = [load_lanes(w, dtype, element(w, dtype, p, index), mask) for p in columns]
            following: list[Value] = []
            for r, place in enumerate(rows):
                left = load_lanes(w, dtype, element(w, dtype, place, index), mask)
                for column, old in zip(right, carried[r * group : (r + 1) * group]):
                    new = multiply_add(w, left, column, old)
                    # 0 * 0 + acc would turn a chain that underflowed to -0 into +0.
                    following.append(new if mask is None else w.select(mask, new, old))
            return following

        acc = sweep(w, w.i64(0), skinny.sizes[2], [zero] * (len(rows) * group), body)
        for number, value in enumerate(acc):
            row, column = divmod(number, group)
            at = w.add(w.i64(row * kernel.columns), numbers[column])
            store(w, wide, join(w, Op.SUM, wide, value), element(w, wide, skinny.stack, at))
