"""Loop nests as LLVM text.

A map kernel of rank 2 becomes, for each vector of 16 lanes with a masked tail:

    for row in begin..end:
        for i in 0..n step 16:  store(out + row*s + i, body(load(x + row*t + i), ...))

Row reductions keep 16 partials a block, column reductions one accumulator for each column, in the
canonical orders of ir/ops.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from einkorn.codegen.llvm.expressions import evaluate
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
    LoopKernel,
)

_INDICES = vector(PARTIALS, "i64")


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

    def repeated(self, bases: Sequence[Value]) -> dict[int, Value]:
        """The loads whose inner stride is zero: one element in every lane."""
        return {
            k: self.w.splat(load(self.w, access.dtype, bases[k]), PARTIALS)
            for k, access in enumerate(self.kernel.loads)
            if access.inner == "zero"
        }

    def values(
        self, bases: Sequence[Value], known: dict[int, Value], index: Value, mask: Value | None
    ) -> list[Value]:
        """All values of the expression for the lanes from `index` on along the last axis."""
        w = self.w
        loads: list[tuple[DType, Value]] = []
        for k, access in enumerate(self.kernel.loads):
            value = known[k] if k in known else self.read(k, bases[k], index, mask)
            loads.append((access.dtype, value))
        lanes = w.add(w.splat(index, PARTIALS), w.lanes(_INDICES, range(PARTIALS)))
        return evaluate(w, self.kernel.body, loads, _INDICES, lanes)

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


def generate(kernel: LoopKernel) -> str:
    """The LLVM module of a loop nest; its function is named "kernel"."""
    w = Writer()
    with w.function("kernel", signature()) as args:
        nest = _Nest(w, kernel, args)
        {None: _map, "rows": _rows, "columns": _columns}[kernel.reduction](nest)
    return w.module()


def _map(nest: _Nest) -> None:
    if nest.kernel.rank == 1:
        _map_range(nest, nest.bases, nest.begin, nest.end)
        return
    w = nest.w
    with w.loop(nest.begin, nest.end) as rows:
        bases = nest.at(rows.index, range(nest.kernel.rank - 1))
        _map_range(nest, bases, w.i64(0), nest.extents[-1])


def _map_range(nest: _Nest, bases: Sequence[Value], start: Value, stop: Value) -> None:
    known = nest.repeated(bases)
    loads = len(nest.kernel.loads)

    def body(index: Value, mask: Value | None, _: list[Value]) -> list[Value]:
        values = nest.values(bases, known, index, mask)
        for k, (_access, number) in enumerate(nest.kernel.stores, loads):
            nest.write(k, bases[k], index, mask, values[number])
        return []

    sweep(nest.w, start, stop, [], body)


def _rows(nest: _Nest) -> None:
    w, kernel = nest.w, nest.kernel
    assert kernel.combine is not None
    (out, number), op = kernel.stores[0], kernel.combine
    dtype = accumulator(_value_dtype(kernel, number))
    type = register(dtype)
    start = w.const(vector(PARTIALS, type), neutral(op, dtype))
    with w.loop(nest.begin, nest.end) as rows:
        bases = nest.at(rows.index, range(kernel.rank - 1))
        known = nest.repeated(bases)

        def body(index: Value, mask: Value | None, carried: list[Value]) -> list[Value]:
            value = nest.values(bases, known, index, mask)[number]
            if mask is not None:
                value = w.select(mask, value, start)
            return [combine(w, op, dtype, carried[0], value)]

        first = w.const(type, neutral(op, dtype))
        with w.loop(w.i64(0), nest.extents[-1], ROW_BLOCK, [first]) as blocks:
            stop = smaller(w, w.add(blocks.index, w.i64(ROW_BLOCK)), nest.extents[-1])
            (partials,) = sweep(w, blocks.index, stop, [start], body)
            joined = join(w, op, dtype, partials)
            blocks.next = [combine(w, op, dtype, blocks.carried[0], joined)]
        total = round_to(w, out.dtype, blocks.results[0])
        store(w, out.dtype, total, bases[-1])


def _columns(nest: _Nest) -> None:
    w, kernel = nest.w, nest.kernel
    outer = range(kernel.rank - 2)
    chunks = ceil_div(w, nest.extents[-1], COLUMN_CHUNK)
    with w.loop(nest.begin, nest.end) as items:
        number, chunk = divmod_(w, items.index, chunks)
        bases = nest.at(number, outer) if outer else nest.bases
        start = w.mul(chunk, w.i64(COLUMN_CHUNK))
        stop = smaller(w, w.add(start, w.i64(COLUMN_CHUNK)), nest.extents[-1])

        def body(index: Value, mask: Value | None, _: list[Value]) -> list[Value]:
            total = _column_totals(nest, bases, index, mask)
            nest.write(len(kernel.loads), bases[-1], index, mask, total)
            return []

        sweep(w, start, stop, [], body)


def _column_totals(nest: _Nest, bases: Sequence[Value], index: Value, mask: Value | None) -> Value:
    """The results of PARTIALS columns: rows in blocks of COLUMN_BLOCK, in sequence."""
    w, kernel = nest.w, nest.kernel
    assert kernel.combine is not None
    (out, number), op = kernel.stores[0], kernel.combine
    dtype = accumulator(_value_dtype(kernel, number))
    start = w.const(vector(PARTIALS, register(dtype)), neutral(op, dtype))
    count = nest.extents[-2]
    with w.loop(w.i64(0), count, COLUMN_BLOCK, [start]) as blocks:
        stop = smaller(w, w.add(blocks.index, w.i64(COLUMN_BLOCK)), count)
        with w.loop(blocks.index, stop, 1, [start]) as rows:
            offsets = [w.mul(rows.index, strides[-2]) for strides in nest.strides]
            at_row = nest.moved(bases, offsets)
            value = nest.values(at_row, nest.repeated(at_row), index, mask)[number]
            rows.next = [combine(w, op, dtype, rows.carried[0], value)]
        blocks.next = [combine(w, op, dtype, blocks.carried[0], rows.results[0])]
    return round_to(w, out.dtype, blocks.results[0])


def _value_dtype(kernel: LoopKernel, number: int) -> DType:
    """The dtype of value `number` of the expression."""
    loads = len(kernel.loads)
    return kernel.loads[number].dtype if number < loads else kernel.body[number - loads].dtype
