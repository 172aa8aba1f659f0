"""Loop nests as LLVM text.

A map kernel of rank 2 becomes, for each vector of 16 lanes with a masked tail:

    for row in begin..end:
        for i in 0..n step 16:  store(out + row*s + i, body(load(x + row*t + i), ...))

A "rows" kernel passes over its row once for each stage of `ir.loops.levels`; values that are the
same along the row are computed once, between the passes. Reductions keep 16 partials for a row or a
block of the whole, and one accumulator for each column, in the canonical orders of ir/ops.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.codegen.llvm.loop_values import Lanes, Nest, Row
from einkorn.codegen.llvm.text import Value, Writer
from einkorn.codegen.llvm.vectors import (
    ceil_div,
    divmod_,
    element,
    load_lanes,
    pointer,
    signature,
    smaller,
    store,
    store_lanes,
    sweep,
)
from einkorn.ir.loops import (
    COLUMN_BLOCK,
    COLUMN_CHUNK,
    PARTIALS,
    ROW_BLOCK,
    LoopKernel,
    Over,
)


def generate(kernel: LoopKernel) -> str:
    """The LLVM module of a loop nest; its function is named "kernel"."""
    w = Writer()
    with w.function("kernel", signature()) as (pointers, params, begin, end, _):
        buffers = len(kernel.loads) + len(kernel.stores)
        nest = Nest(w, kernel, params, [pointer(w, pointers, k) for k in range(buffers)])
        write = {None: _map, "rows": _rows, "bands": _bands, "blocks": _blocks, "columns": _columns}
        write[kernel.reduction](nest, begin, end)
    return w.module()


class _Pass:
    """What one pass over a row does: the reductions it makes, and what it stores and keeps.

    Attributes:
        stage: the number of the pass.
        carried: value numbers of the reductions whose partials stay in registers.
        columns: those that a band of rows adds up in memory.
        stores: (access number, value number) of the results that are written along the row.
        kept: value numbers that later passes read back.
    """

    def __init__(self, nest: Nest, stage: int, registers: Sequence[Over]) -> None:
        self.nest, self.stage = nest, stage
        kernel, loads = nest.kernel, len(nest.kernel.loads)
        steps = [(n, step.over) for n, step in enumerate(kernel.body, loads)]
        reductions = [(n, over) for n, over in steps if over is not None]
        ends = {n: nest.levels[n].stage - (over is Over.ROW) for n, over in reductions}
        here = [(n, over) for n, over in reductions if ends[n] == stage]
        self.carried = [n for n, over in here if over in registers]
        self.columns = [n for n, over in here if over not in registers]
        partial = {n for n, over in reductions if over is not Over.ROW}
        self.stores = [
            (k, v)
            for k, (access, v) in enumerate(kernel.stores, loads)
            if nest.levels[v].stage == stage and access.inner != "zero" and v not in partial
        ]
        self.kept = [number for number in kernel.kept if nest.levels[number].stage == stage]

    @property
    def is_idle(self) -> bool:
        return not (self.carried or self.columns or self.stores or self.kept)

    def start(self) -> list[Value]:
        """The neutral partials of the carried reductions."""
        return [self.nest.neutral(number) for number in self.carried]

    def run(
        self,
        row: Row,
        start: Value,
        stop: Value,
        carried: Sequence[Value],
        band: _Band | None = None,
    ) -> list[Value]:
        """The pass over [start, stop) of a row; the partials of the carried reductions."""

        def body(index: Value, mask: Value | None, carried: list[Value]) -> list[Value]:
            return self.at(row, index, mask, carried, band)

        return sweep(self.nest.w, start, stop, carried, body)

    def at(
        self,
        row: Row,
        index: Value,
        mask: Value | None,
        carried: Sequence[Value],
        band: _Band | None = None,
    ) -> list[Value]:
        """One vector of the pass; `carried` holds the partials of its reductions so far."""
        nest, w = self.nest, self.nest.w
        lanes = Lanes(row, index, mask, self.stage)
        following: list[Value] = []
        for number, old in zip(self.carried, carried):
            operand = lanes.value(nest.operand(number))
            if mask is not None:
                operand = w.select(mask, operand, nest.neutral(number))
            following.append(nest.combined(number, old, operand))
        values = [lanes.value(v) for _, v in self.stores]  # all loads before any store
        if band is not None:
            for number in self.columns:
                band.add(number, index, mask, lanes.value(nest.operand(number)))
        for (k, _), value in zip(self.stores, values):
            nest.write(k, row.bases[k], index, mask, value)
        for number in self.kept:
            lanes.keep(number)
        return following


class _Band:
    """A band of rows whose columns are added up in memory, where the partial results are wanted.

    Attributes:
        number: which band of the matrix it is.
        is_first: whether the row at hand is the first of the band.
    """

    def __init__(self, nest: Nest, number: Value, is_first: Value) -> None:
        self._nest, self._number, self._is_first = nest, number, is_first

    def add(self, number: int, index: Value, mask: Value | None, value: Value) -> None:
        """total = (neutral in the first row, else what is there) + value"""
        nest, w = self._nest, self._nest.w
        dtype = nest.kernel.dtype_of(number)
        base = nest.bases[nest.store_of(number)]
        at = w.add(w.mul(self._number, nest.extents[-1]), index)
        place = element(w, dtype, base, at)
        held = load_lanes(w, dtype, place, mask)
        first = w.splat(self._is_first, PARTIALS)
        before = w.select(first, nest.neutral(number), held)
        store_lanes(w, dtype, nest.combined(number, before, value), place, mask)


def _map(nest: Nest, begin: Value, end: Value) -> None:
    if nest.kernel.rank == 1:
        write_all(nest, nest.bases, begin, end)
        return
    w = nest.w
    with w.loop(begin, end) as rows:
        bases = nest.at(rows.index, range(nest.kernel.rank - 1))
        write_all(nest, bases, w.i64(0), nest.extents[-1])


def write_all(nest: Nest, bases: Sequence[Value], start: Value, stop: Value) -> None:
    """Every store of a map kernel over [start, stop) of the row at `bases`."""
    row = Row(nest, bases)
    stores = [(k, v) for k, (_, v) in enumerate(nest.kernel.stores, len(nest.kernel.loads))]

    def body(index: Value, mask: Value | None, _: list[Value]) -> list[Value]:
        lanes = Lanes(row, index, mask, 0)
        values = [lanes.value(v) for _, v in stores]
        for (k, _v), value in zip(stores, values):
            nest.write(k, bases[k], index, mask, value)
        return []

    sweep(nest.w, start, stop, [], body)


def _rows(nest: Nest, begin: Value, end: Value) -> None:
    passes = _passes(nest)
    with nest.w.loop(begin, end) as rows:
        _run_row(nest, rows.index, passes, [[] for _ in passes], None)


def _passes(nest: Nest) -> list[_Pass]:
    stages = 1 + max(level.stage for level in nest.levels)
    return [_Pass(nest, stage, (Over.ROW, Over.WHOLE)) for stage in range(stages)]


def _run_row(
    nest: Nest,
    number: Value,
    passes: Sequence[_Pass],
    whole: Sequence[Sequence[Value]],
    band: _Band | None,
) -> list[list[Value]]:
    """All passes over one row. `whole`: for each pass its WHOLE partials, given back with more."""
    w, kernel = nest.w, nest.kernel
    row = Row(nest, nest.at(number, range(kernel.rank - 1)))
    following: list[list[Value]] = []
    for each, held in zip(passes, whole):
        following.append([])
        if not each.is_idle:
            following[-1] = _run_pass(nest, row, each, held, band)
            row.settle()
    for k, (access, value) in enumerate(kernel.stores, len(kernel.loads)):
        if access.inner == "zero" and nest.kernel.over(value) in (None, Over.ROW):
            store(w, access.dtype, w.extract(row.known[value], 0), row.bases[k])
    return following


def _run_pass(
    nest: Nest, row: Row, each: _Pass, whole: Sequence[Value], band: _Band | None
) -> list[Value]:
    """One pass; results over the row become known to it. Gives the WHOLE partials with more."""
    w = nest.w
    own = [number for number in each.carried if nest.kernel.over(number) is Over.ROW]
    if not own:
        return each.run(row, w.i64(0), nest.extents[-1], whole, band)
    # `carried` of a pass lists reductions in the order of the steps; these are ROW and WHOLE mixed.
    ends = [nest.scalar_neutral(number) for number in own]
    with w.loop(w.i64(0), nest.extents[-1], ROW_BLOCK, [*ends, *whole]) as blocks:
        totals, held = blocks.carried[: len(own)], iter(blocks.carried[len(own) :])
        stop = smaller(w, w.add(blocks.index, w.i64(ROW_BLOCK)), nest.extents[-1])
        start = [nest.neutral(n) if n in own else next(held) for n in each.carried]
        found = dict(zip(each.carried, each.run(row, blocks.index, stop, start, band)))
        blocks.next = [
            *(nest.combined(n, total, nest.joined(n, found[n])) for n, total in zip(own, totals)),
            *(partial for n, partial in found.items() if n not in own),
        ]
    for number, total in zip(own, blocks.results):
        row.known[number] = w.splat(nest.rounded(number, total), PARTIALS)
    return blocks.results[len(own) :]


def _bands(nest: Nest, begin: Value, end: Value) -> None:
    """Bands of COLUMN_BLOCK rows; partials over the whole go from row to row."""
    w, passes = nest.w, _passes(nest)
    count = w.i64(1)
    for extent in nest.extents[:-1]:
        count = w.mul(count, extent)
    group = w.binary("udiv", w.i64(ROW_BLOCK), nest.extents[-1])
    numbers = [[n for n in each.carried if nest.kernel.over(n) is Over.WHOLE] for each in passes]
    flat = [number for row in numbers for number in row]
    with w.loop(begin, end) as bands:
        first = w.mul(bands.index, w.i64(COLUMN_BLOCK))
        stop = smaller(w, w.add(first, w.i64(COLUMN_BLOCK)), count)
        with w.loop(first, stop, 1, [nest.neutral(n) for n in flat]) as rows:
            band = _Band(nest, bands.index, w.icmp("eq", rows.index, first))
            held = iter(rows.carried)
            whole = [[next(held) for _ in row] for row in numbers]
            found = _run_row(nest, rows.index, passes, whole, band)
            partials = [partial for row in found for partial in row]
            rows.next = _end_blocks(nest, flat, partials, rows.index, count, group)


def _end_blocks(
    nest: Nest,
    numbers: Sequence[int],
    partials: Sequence[Value],
    row: Value,
    count: Value,
    group: Value,
) -> list[Value]:
    """Store the partial results of a block after its last row, and start over."""
    if not numbers:
        return []
    w = nest.w
    following = w.add(row, w.i64(1))
    block, _ = divmod_(w, row, group)
    _, rest = divmod_(w, following, group)
    ends = w.or_(w.icmp("eq", rest, w.i64(0)), w.icmp("eq", following, count))
    with w.if_(ends):
        for number, partial in zip(numbers, partials):
            _store_block(nest, number, partial, block)
    return [
        w.select(w.splat(ends, PARTIALS), nest.neutral(number), partial)
        for number, partial in zip(numbers, partials)
    ]


def _store_block(nest: Nest, number: int, partials: Value, block: Value) -> None:
    """Store the result of a block of ROW_BLOCK elements."""
    dtype, k = nest.kernel.dtype_of(number), nest.store_of(number)
    total = nest.rounded(number, nest.joined(number, partials))
    store(nest.w, dtype, total, element(nest.w, dtype, nest.bases[k], block))


def _blocks(nest: Nest, begin: Value, end: Value) -> None:
    w = nest.w
    each, row = _Pass(nest, 0, (Over.WHOLE,)), Row(nest, nest.bases)
    with w.loop(begin, end) as blocks:
        start = w.mul(blocks.index, w.i64(ROW_BLOCK))
        stop = smaller(w, w.add(start, w.i64(ROW_BLOCK)), nest.extents[-1])
        partials = each.run(row, start, stop, each.start())
        for number, partial in zip(each.carried, partials):
            _store_block(nest, number, partial, blocks.index)


def _columns(nest: Nest, begin: Value, end: Value) -> None:
    w, kernel = nest.w, nest.kernel
    outer = range(kernel.rank - 2)
    chunks = ceil_div(w, nest.extents[-1], COLUMN_CHUNK)
    parts = ceil_div(w, nest.extents[-2], COLUMN_BLOCK)
    with w.loop(begin, end) as items:
        band, chunk = divmod_(w, items.index, chunks)
        number, part = divmod_(w, band, parts)
        bases = nest.at(number, outer) if outer else nest.bases
        start = w.mul(chunk, w.i64(COLUMN_CHUNK))
        stop = smaller(w, w.add(start, w.i64(COLUMN_CHUNK)), nest.extents[-1])

        def body(index: Value, mask: Value | None, _: list[Value]) -> list[Value]:
            _column_band(nest, bases, (band, part), index, mask)
            return []

        sweep(w, start, stop, [], body)


def _column_band(
    nest: Nest,
    bases: Sequence[Value],
    place: tuple[Value, Value],
    index: Value,
    mask: Value | None,
) -> None:
    """PARTIALS columns of a band of rows: band number `place[0]`, `place[1]` among its matrix."""
    w = nest.w
    band, part = place
    each = _Pass(nest, 0, (Over.COLUMN,))
    first = w.mul(part, w.i64(COLUMN_BLOCK))
    stop = smaller(w, w.add(first, w.i64(COLUMN_BLOCK)), nest.extents[-2])
    with w.loop(first, stop, 1, each.start()) as rows:
        offsets = [w.mul(rows.index, strides[-2]) for strides in nest.strides]
        row = Row(nest, nest.moved(bases, offsets))
        rows.next = each.at(row, index, mask, rows.carried)
    at = w.add(w.mul(band, nest.extents[-1]), index)
    for number, total in zip(each.carried, rows.results):
        dtype, base = nest.kernel.dtype_of(number), nest.bases[nest.store_of(number)]
        store_lanes(w, dtype, nest.rounded(number, total), element(w, dtype, base, at), mask)
