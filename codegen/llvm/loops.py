"""Loop nests as LLVM text.

A map kernel of rank 2 becomes, for each vector of 16 lanes with a masked tail:

    for row in begin..end:
        for i in 0..n step 16:  store(out + row*s + i, body(load(x + row*t + i), ...))

A "rows" kernel passes over its row once for each stage of `ir.loops.levels`; values that are the
same along the row are computed once, between the passes. Reductions keep 16 partials for a row and
one accumulator for each column, in the canonical orders of ir/ops.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.codegen.llvm.expressions import evaluate_step
from einkorn.codegen.llvm.text import Value, Writer, vector
from einkorn.codegen.llvm.vectors import (
    accumulator,
    ceil_div,
    combine,
    divmod_,
    element,
    join,
    load,
    load_lanes,
    neutral,
    param,
    pointer,
    register,
    round_down,
    round_to,
    signature,
    smaller,
    storage,
    store,
    store_lanes,
    sweep,
    to_register,
    to_storage,
)
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import (
    COLUMN_BLOCK,
    COLUMN_CHUNK,
    PARTIALS,
    ROW_BLOCK,
    Access,
    Expr,
    LoopKernel,
    levels,
)
from einkorn.ir.ops import Op

_INDICES = vector(PARTIALS, "i64")


def generate(kernel: LoopKernel) -> str:
    """The LLVM module of a loop nest; its function is named "kernel"."""
    w = Writer()
    with w.function("kernel", signature()) as args:
        nest = _Nest(w, kernel, args)
        write = {None: _map, "rows": _rows, "blocks": _blocks, "columns": _columns}
        write[kernel.reduction](nest)
    return w.module()


class _Nest:
    """The parameters of one kernel, loaded once, and the vector loads and stores on them."""

    def __init__(self, w: Writer, kernel: LoopKernel, args: Sequence[Value]) -> None:
        self.w, self.kernel = w, kernel
        pointers, params, self.begin, self.end, _ = args
        rank = kernel.rank
        self.accesses: list[Access] = [*kernel.loads, *(access for access, _ in kernel.stores)]
        self.extents = [param(w, params, axis) for axis in range(rank)]
        self.strides = [
            [param(w, params, rank * (k + 1) + axis) for axis in range(rank)]
            for k in range(len(self.accesses))
        ]
        self.bases = [pointer(w, pointers, k) for k in range(len(self.accesses))]
        self.levels = levels(kernel)
        rounded = round_down(w, w.add(self.extents[-1], w.i64(PARTIALS - 1)), PARTIALS)
        self.scratch = {k: w.alloca(register(kernel.dtype_of(k)), rounded) for k in kernel.kept}

    def at(self, number: Value, axes: Sequence[int]) -> list[Value]:
        """The address of every access at the flattened index `number` over `axes`, last fastest."""
        w = self.w
        offsets = [w.i64(0)] * len(self.accesses)
        for position, axis in reversed(list(enumerate(axes))):
            if position:
                number, index = divmod_(w, number, self.extents[axis])
            else:
                index = number
            offsets = [
                w.add(offset, w.mul(index, strides[axis]))
                for offset, strides in zip(offsets, self.strides)
            ]
        return self.moved(self.bases, offsets)

    def moved(self, bases: Sequence[Value], offsets: Sequence[Value]) -> list[Value]:
        rows = zip(self.accesses, bases, offsets)
        return [element(self.w, access.dtype, base, offset) for access, base, offset in rows]

    def read(self, k: int, base: Value, index: Value, mask: Value | None) -> Value:
        """PARTIALS elements of load `k` along the last axis."""
        w, access = self.w, self.accesses[k]
        if access.inner == "unit":
            return load_lanes(w, access.dtype, element(w, access.dtype, base, index), mask)
        addresses = self._addresses(k, base, index)
        type = vector(PARTIALS, storage(access.dtype))
        return to_register(w, access.dtype, w.gather(type, addresses, self._mask(mask)))

    def write(self, k: int, base: Value, index: Value, mask: Value | None, value: Value) -> None:
        """Store PARTIALS elements along the last axis."""
        w, access = self.w, self.accesses[k]
        if access.inner == "unit":
            store_lanes(w, access.dtype, value, element(w, access.dtype, base, index), mask)
        else:
            addresses = self._addresses(k, base, index)
            w.scatter(to_storage(w, access.dtype, value), addresses, self._mask(mask))

    def _addresses(self, k: int, base: Value, index: Value) -> Value:
        w = self.w
        lanes = w.add(w.splat(index, PARTIALS), w.lanes(_INDICES, range(PARTIALS)))
        offsets = w.mul(lanes, w.splat(self.strides[k][-1], PARTIALS))
        return w.geps(storage(self.accesses[k].dtype), base, offsets)

    def _mask(self, mask: Value | None) -> Value:
        return mask if mask is not None else self.w.const(vector(PARTIALS, "i1"), True)


class _Row:
    """The values of one row: what is the same along it, and how to compute the rest at an index.

    Attributes:
        bases: the address of each access at the start of the row.
        known: values that are the same along the row, in every lane.
    """

    def __init__(self, nest: _Nest, bases: Sequence[Value]) -> None:
        self.nest, self.bases = nest, bases
        self.known: dict[int, Value] = {}
        kernel, w = nest.kernel, nest.w
        for k, access in enumerate(kernel.loads):
            if access.inner == "zero":
                self.known[k] = w.splat(load(w, access.dtype, bases[k]), PARTIALS)
        self.settle()

    def settle(self) -> None:
        """Compute every step that is the same along the row and whose operands are known."""
        kernel, loads = self.nest.kernel, len(self.nest.kernel.loads)
        for number, step in enumerate(kernel.body, loads):
            ready = all(k in self.known for k in step.inputs)
            if ready and not self.nest.levels[number].varies and not step.reduces:
                if number not in self.known:
                    self.known[number] = self._step(step, [self.known[k] for k in step.inputs])

    def lanes(self, index: Value, mask: Value | None, stage: int) -> _Lanes:
        return _Lanes(self, index, mask, stage)

    def _step(self, step: Expr, args: list[Value], index: Value | None = None) -> Value:
        kernel = self.nest.kernel
        kind = kernel.dtype_of(step.inputs[0]) if step.inputs else step.dtype
        lanes = index if index is not None else self.nest.w.const(_INDICES, 0)
        return evaluate_step(self.nest.w, step, kind, args, _INDICES, lanes)


class _Lanes:
    """Values at PARTIALS indices of a row, each computed when it is first asked for."""

    def __init__(self, row: _Row, index: Value, mask: Value | None, stage: int) -> None:
        self._row, self._index, self._mask, self._stage = row, index, mask, stage
        self._found = dict(row.known)

    def value(self, number: int) -> Value:
        """Value `number`, after those it depends on (without recursion: bodies may be long)."""
        pending = [number]
        while pending:
            k = pending[-1]
            if k in self._found:
                pending.pop()
                continue
            missing = [x for x in self._operands(k) if x not in self._found]
            if missing:
                pending.extend(missing)
            else:
                self._found[k] = self._computed(k)
                pending.pop()
        return self._found[number]

    def keep(self, number: int) -> None:
        """Leave a value for later passes over the row."""
        self.nest.w.store(self.value(number), self._place(number))

    @property
    def nest(self) -> _Nest:
        return self._row.nest

    def _is_kept(self, k: int) -> bool:
        return k in self.nest.scratch and self.nest.levels[k].stage < self._stage

    def _operands(self, k: int) -> Sequence[int]:
        loads = len(self.nest.kernel.loads)
        return () if k < loads or self._is_kept(k) else self.nest.kernel.body[k - loads].inputs

    def _computed(self, k: int) -> Value:
        nest, w = self.nest, self.nest.w
        loads = len(nest.kernel.loads)
        if self._is_kept(k):
            type = register(nest.kernel.dtype_of(k))
            return w.load(vector(PARTIALS, type), self._place(k))
        if k < loads:
            return nest.read(k, self._row.bases[k], self._index, self._mask)
        step = nest.kernel.body[k - loads]
        lanes = w.add(w.splat(self._index, PARTIALS), w.lanes(_INDICES, range(PARTIALS)))
        return self._row._step(step, [self._found[x] for x in step.inputs], lanes)

    def _place(self, k: int) -> Value:
        w = self.nest.w
        return w.gep(register(self.nest.kernel.dtype_of(k)), self.nest.scratch[k], self._index)


class _Pass:
    """What one pass over a row does: the reductions it makes, and what it stores and keeps.

    Attributes:
        stage: the number of the pass.
        reductions: value numbers of the steps that reduce in it.
        stores: (access number, value number) of the results that are written along the row.
        kept: value numbers that later passes read back.
    """

    def __init__(self, nest: _Nest, stage: int) -> None:
        self.nest, self.stage = nest, stage
        kernel, loads = nest.kernel, len(nest.kernel.loads)
        self.reductions = [
            number
            for number, step in enumerate(kernel.body, loads)
            if step.reduces and nest.levels[number].stage == stage + 1
        ]
        here = [level.stage == stage for level in nest.levels]
        self.stores = [
            (k, v)
            for k, (access, v) in enumerate(kernel.stores, loads)
            if here[v] and access.inner != "zero"
        ]
        self.kept = [number for number in kernel.kept if here[number]]

    def start(self) -> list[Value]:
        """The neutral element of each reduction, in every lane."""
        return [
            self.nest.w.const(vector(PARTIALS, register(dtype)), neutral(op, dtype))
            for op, dtype in map(self._reduction, self.reductions)
        ]

    def _reduction(self, number: int) -> tuple[Op, DType]:
        """The op of a reduction, and the dtype in which it accumulates."""
        kernel = self.nest.kernel
        step = kernel.body[number - len(kernel.loads)]
        return step.op, accumulator(kernel.dtype_of(step.inputs[0]))

    def run(
        self, row: _Row, start: Value, stop: Value, carried: Sequence[Value]
    ) -> list[Value]:
        """The pass over [start, stop) of a row; the partials of its reductions."""

        def body(index: Value, mask: Value | None, carried: list[Value]) -> list[Value]:
            return self.at(row.lanes(index, mask, self.stage), row, index, mask, carried)

        return sweep(self.nest.w, start, stop, carried, body)

    def at(
        self, lanes: _Lanes, row: _Row, index: Value, mask: Value | None, carried: list[Value]
    ) -> list[Value]:
        """One vector of the pass."""
        w, kernel = self.nest.w, self.nest.kernel
        following: list[Value] = []
        for number, neutral_, old in zip(self.reductions, self.start(), carried):
            operand = lanes.value(kernel.body[number - len(kernel.loads)].inputs[0])
            if mask is not None:
                operand = w.select(mask, operand, neutral_)
            following.append(combine(w, *self._reduction(number), old, operand))
        values = [lanes.value(v) for _, v in self.stores]  # all loads before any store
        for (k, _), value in zip(self.stores, values):
            self.nest.write(k, row.bases[k], index, mask, value)
        for number in self.kept:
            lanes.keep(number)
        return following

    def combined(self, totals: Sequence[Value], parts: Sequence[Value]) -> list[Value]:
        """total + part for each reduction."""
        rows = zip(self.reductions, totals, parts)
        return [combine(self.nest.w, *self._reduction(n), total, part) for n, total, part in rows]

    def joined(self, partials: Sequence[Value]) -> list[Value]:
        """The partials of each reduction as one scalar."""
        rows = zip(self.reductions, partials)
        return [join(self.nest.w, *self._reduction(n), part) for n, part in rows]

    def scalars(self) -> list[Value]:
        """The neutral element of each reduction, as a scalar."""
        rows = map(self._reduction, self.reductions)
        return [self.nest.w.const(register(dtype), neutral(op, dtype)) for op, dtype in rows]

    def rounded(self, number: int, value: Value) -> Value:
        """A finished total in the dtype of its step."""
        return round_to(self.nest.w, self.nest.kernel.dtype_of(number), value)


def _map(nest: _Nest) -> None:
    w = nest.w
    if nest.kernel.rank == 1:
        _write_all(nest, _Row(nest, nest.bases), nest.begin, nest.end)
        return
    with w.loop(nest.begin, nest.end) as rows:
        bases = nest.at(rows.index, range(nest.kernel.rank - 1))
        _write_all(nest, _Row(nest, bases), w.i64(0), nest.extents[-1])


def _write_all(nest: _Nest, row: _Row, start: Value, stop: Value) -> None:
    """Every store of a map kernel over a part of a row; also of values that do not vary."""
    stores = [(k, v) for k, (_, v) in enumerate(nest.kernel.stores, len(nest.kernel.loads))]

    def body(index: Value, mask: Value | None, _: list[Value]) -> list[Value]:
        lanes = row.lanes(index, mask, 0)
        values = [lanes.value(v) for _, v in stores]
        for (k, _v), value in zip(stores, values):
            nest.write(k, row.bases[k], index, mask, value)
        return []

    sweep(nest.w, start, stop, [], body)


def _rows(nest: _Nest) -> None:
    w, kernel = nest.w, nest.kernel
    stages = 1 + max(level.stage for level in nest.levels)
    passes = [_Pass(nest, stage) for stage in range(stages)]
    with w.loop(nest.begin, nest.end) as rows:
        row = _Row(nest, nest.at(rows.index, range(kernel.rank - 1)))
        for each in passes:
            if each.reductions:
                _reduce_row(nest, row, each)
            elif each.stores or each.kept:
                each.run(row, w.i64(0), nest.extents[-1], [])
        for k, (access, number) in enumerate(kernel.stores, len(kernel.loads)):
            if access.inner == "zero":
                store(w, access.dtype, w.extract(row.known[number], 0), row.bases[k])


def _reduce_row(nest: _Nest, row: _Row, each: _Pass) -> None:
    """One pass in blocks of ROW_BLOCK; its results become known to the row."""
    w = nest.w
    with w.loop(w.i64(0), nest.extents[-1], ROW_BLOCK, each.scalars()) as blocks:
        stop = smaller(w, w.add(blocks.index, w.i64(ROW_BLOCK)), nest.extents[-1])
        partials = each.run(row, blocks.index, stop, each.start())
        blocks.next = each.combined(blocks.carried, each.joined(partials))
    for number, total in zip(each.reductions, blocks.results):
        row.known[number] = w.splat(each.rounded(number, total), PARTIALS)
    row.settle()


def _blocks(nest: _Nest) -> None:
    w, kernel = nest.w, nest.kernel
    each, row = _Pass(nest, 0), _Row(nest, nest.bases)
    places = {v: k for k, (_, v) in enumerate(kernel.stores, len(kernel.loads))}
    with w.loop(nest.begin, nest.end) as blocks:
        start = w.mul(blocks.index, w.i64(ROW_BLOCK))
        stop = smaller(w, w.add(start, w.i64(ROW_BLOCK)), nest.extents[-1])
        partials = each.run(row, start, stop, each.start())
        for number, total in zip(each.reductions, each.joined(partials)):
            dtype, k = kernel.dtype_of(number), places[number]
            place = element(w, dtype, nest.bases[k], blocks.index)
            store(w, dtype, each.rounded(number, total), place)


def _columns(nest: _Nest) -> None:
    w, kernel = nest.w, nest.kernel
    outer = range(kernel.rank - 2)
    chunks = ceil_div(w, nest.extents[-1], COLUMN_CHUNK)
    parts = ceil_div(w, nest.extents[-2], COLUMN_BLOCK)
    with w.loop(nest.begin, nest.end) as items:
        rest, chunk = divmod_(w, items.index, chunks)
        number, part = divmod_(w, rest, parts)
        bases = nest.at(number, outer) if outer else nest.bases
        start = w.mul(chunk, w.i64(COLUMN_CHUNK))
        stop = smaller(w, w.add(start, w.i64(COLUMN_CHUNK)), nest.extents[-1])

        def body(index: Value, mask: Value | None, _: list[Value]) -> list[Value]:
            _column_block(nest, bases, part, index, mask)
            return []

        sweep(w, start, stop, [], body)


def _column_block(
    nest: _Nest, bases: Sequence[Value], part: Value, index: Value, mask: Value | None
) -> None:
    """One block of rows of PARTIALS columns."""
    w, kernel = nest.w, nest.kernel
    each = _Pass(nest, 0)
    first = w.mul(part, w.i64(COLUMN_BLOCK))
    stop = smaller(w, w.add(first, w.i64(COLUMN_BLOCK)), nest.extents[-2])
    with w.loop(first, stop, 1, each.start()) as rows:
        offsets = [w.mul(rows.index, strides[-2]) for strides in nest.strides]
        row = _Row(nest, nest.moved(bases, offsets))
        rows.next = each.at(row.lanes(index, mask, 0), row, index, mask, rows.carried)
    for k, (access, number) in enumerate(kernel.stores, len(kernel.loads)):
        if number in each.reductions:
            total = each.rounded(number, rows.results[each.reductions.index(number)])
            place = element(w, access.dtype, bases[k], w.mul(part, nest.strides[k][-2]))
            nest.write(k, place, index, mask, total)
