"""Copying matrix operands into the panels that the packed micro-kernel reads."""

from __future__ import annotations

from dataclasses import dataclass

from einkorn.codegen.llvm.text import Value, Writer
from einkorn.codegen.llvm.vectors import (
    accumulator,
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
from einkorn.ir.loops import Pack

_K_BLOCK = 256  # as much of a panel stays in the first-level cache while its rows are written


@dataclass(frozen=True, slots=True)
class _Panel:
    """A line of k of one panel: `valid` rows of the source, then zeros up to `width`.

    Attributes:
        square: rows and steps of k that are transposed together in registers.
    """

    dtype: DType
    width: int
    source: Value
    target: Value
    valid: Value
    k: Value
    row_stride: Value
    k_stride: Value
    square: int


def _square_of(width: int, lanes: int) -> int:
    """Whole vectors when the panels are whole vectors wide, else squares of 4."""
    return lanes if width % lanes == 0 else 4


def pack(kernel: Pack, lanes: int) -> str:
    """LLVM text of Pack.

    for panel in range(begin, end), for line of k:
        if adjacent rows: dst[k][:] = `width` elements of src, for every k
        else:             squares of rows and k where k is adjacent, then single elements
    """
    w = Writer()
    dtype, width = kernel.dtype, kernel.width
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        source, target = pointer(w, pointers, 0), pointer(w, pointers, 1)
        inner, rows, lines, k, *strides = (param(w, params, i) for i in range(1, 10))
        with w.loop(begin, end) as loop:
            batch, index = divmod_(w, loop.index, ceil_div(w, rows, width))
            first = w.mul(index, w.i64(width))
            start = w.mul(first, strides[2])
            for part, stride in zip(divmod_(w, batch, inner), strides):
                start = w.add(start, w.mul(part, stride))
            part = w.mul(k, w.i64(width))
            panel_start = w.mul(w.mul(loop.index, lines), part)
            with w.loop(w.i64(0), lines) as line:
                at_source = w.add(start, w.mul(line.index, strides[3]))
                at_target = w.add(panel_start, w.mul(line.index, part))
                panel = _Panel(
                    dtype,
                    width,
                    element(w, dtype, source, at_source),
                    element(w, accumulator(dtype), target, at_target),
                    smaller(w, w.sub(rows, first), w.i64(width)),
                    k,
                    strides[2],
                    strides[4],
                    _square_of(width, lanes),
                )
                with w.if_else(w.icmp("eq", panel.row_stride, w.i64(1))) as branches:
                    _copy_rows(w, panel)
                    branches.otherwise()
                    _copy_transposed(w, panel)
    return w.module()


def _copy_rows(w: Writer, panel: _Panel) -> None:
    """dst[k][:] = src[:, k] with adjacent rows: a vector for each k, masked in the last panel."""
    first = w.i64(0)
    with w.if_else(w.icmp("eq", panel.valid, w.i64(panel.width))) as branches:
        with w.loop(w.i64(0), panel.k) as k:
            column = load(w, panel.dtype, _source(w, panel, first, k.index), panel.width)
            _write(w, panel, column, first, k.index)
        branches.otherwise()
        mask = w.tail_mask(panel.valid, panel.width)
        with w.loop(w.i64(0), panel.k) as k:
            column = masked_load(w, panel.dtype, _source(w, panel, first, k.index), mask)
            _write(w, panel, column, first, k.index)


def _copy_transposed(w: Writer, panel: _Panel) -> None:
    """dst[k][r] = src[r, k]

    squares of rows and adjacent k;  the last rows of these k;  the other k;  zeros
    """
    adjacent = w.icmp("eq", panel.k_stride, w.i64(1))
    full_k = w.select(adjacent, round_down(w, panel.k, panel.square), w.i64(0))
    full_rows = round_down(w, panel.valid, panel.square)
    with w.loop(w.i64(0), full_k, _K_BLOCK) as block:
        stop = smaller(w, full_k, w.add(block.index, w.i64(_K_BLOCK)))
        rows = w.loop(w.i64(0), full_rows, panel.square)
        with rows as row, w.loop(block.index, stop, panel.square) as k:
            _copy_square(w, panel, row.index, k.index)
    _copy_elements(w, panel, (full_rows, panel.valid), (w.i64(0), full_k))
    _copy_elements(w, panel, (w.i64(0), panel.valid), (full_k, panel.k))
    with w.loop(panel.valid, w.i64(panel.width)) as row, w.loop(w.i64(0), panel.k) as k:
        zero = w.const(register(accumulator(panel.dtype)), 0)
        _write(w, panel, zero, row.index, k.index)


def _copy_square(w: Writer, panel: _Panel, row: Value, k: Value) -> None:
    """Load rows, interleave row i with row i + half until they are columns, store them.

    Of a row's index and a step's index, log2(square) interleavings swap all bits.
    """
    size = panel.square
    rows = [
        load(w, panel.dtype, _source(w, panel, w.add(row, w.i64(i)), k), size) for i in range(size)
    ]
    orders = [[start + i // 2 + (i % 2) * size for i in range(size)] for start in (0, size // 2)]
    for _ in range(size.bit_length() - 1):
        pairs = list(zip(rows[: size // 2], rows[size // 2 :]))
        rows = [w.shuffle(a, b, order) for a, b in pairs for order in orders]
    for i, column in enumerate(rows):
        _write(w, panel, column, row, w.add(k, w.i64(i)))


def _copy_elements(
    w: Writer, panel: _Panel, rows: tuple[Value, Value], ks: tuple[Value, Value]
) -> None:
    with w.loop(*rows) as row, w.loop(*ks) as k:
        value = load(w, panel.dtype, _source(w, panel, row.index, k.index))
        _write(w, panel, value, row.index, k.index)


def _source(w: Writer, panel: _Panel, row: Value, k: Value) -> Value:
    offset = w.add(w.mul(row, panel.row_stride), w.mul(k, panel.k_stride))
    return element(w, panel.dtype, panel.source, offset)


def _write(w: Writer, panel: _Panel, value: Value, row: Value, k: Value) -> None:
    wide = accumulator(panel.dtype)
    at = w.add(w.mul(k, w.i64(panel.width)), row)
    store(w, wide, value, element(w, wide, panel.target, at))
