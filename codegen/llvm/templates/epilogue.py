"""What dots do with finished results: round, evaluate the epilogue, store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from einkorn.codegen.llvm.expressions import evaluate
from einkorn.codegen.llvm.text import Value, Writer, lanes_of, vector
from einkorn.codegen.llvm.vectors import (
    accumulator,
    element,
    load,
    load_lanes,
    masked_load,
    masked_store,
    param,
    pointer,
    round_to,
    storage,
    store,
    sweep,
    to_register,
    to_storage,
)
from einkorn.ir.dtypes import DType
from einkorn.ir.loops import PARTIALS, Access, Epilogue
from einkorn.ir.ops import Op

# Ops of one or two instructions: with no others an epilogue is unrolled over the registers.
_LIGHT = frozenset(
    (
        *(Op.ADD, Op.SUB, Op.MUL, Op.MAXIMUM, Op.MINIMUM, Op.NEG, Op.ABS, Op.SELECT, Op.CONST),
        *(Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE, Op.AND, Op.OR, Op.NOT),
    )
)
_LIGHT_STEPS = 12


@dataclass(frozen=True, slots=True)
class Finish:
    """The epilogue of a kernel with its buffers.

    Attributes:
        epilogue: what is computed and stored.
        dtype: the dtype of the dot, to which its accumulators are rounded first.
        bases: the address of each load, then of each store.
        strides: their strides: outer batch, inner batch, rows, column.
    """

    epilogue: Epilogue
    dtype: DType
    bases: list[Value]
    strides: list[list[Value]]

    @property
    def accesses(self) -> list[Access]:
        return [*self.epilogue.loads, *(access for access, _ in self.epilogue.stores)]

    @property
    def is_light(self) -> bool:
        """Whether it is short enough to be written once for each register of a tile."""
        steps = self.epilogue.body
        return (
            len(steps) <= _LIGHT_STEPS
            and all(step.op in _LIGHT for step in steps)
            and all(access.inner != "any" for access in self.accesses)
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """Where the results of one work item belong, and which of them are to be stored.

    Attributes:
        origin: outer batch, inner batch, rows and column of the first one.
        rows, columns: the ranges to store, counted from the origin.
        find: gives the row indices of a row counted from the origin, where rows have several.
    """

    origin: list[Value]
    rows: tuple[Value, Value]
    columns: tuple[Value, Value]
    find: Callable[[Value], list[Value]] | None = None


def read_finish(
    w: Writer,
    epilogue: Epilogue,
    dtype: DType,
    pointers: Value,
    params: Value,
    first: tuple[int, int],
    axes: int = 4,
) -> Finish:
    """Load the addresses and the strides, from these numbers of pointers and parameters on."""
    count = len(epilogue.loads) + len(epilogue.stores)
    at, word = first
    return Finish(
        epilogue,
        dtype,
        [pointer(w, pointers, at + k) for k in range(count)],
        [[param(w, params, word + axes * k + axis) for axis in range(axes)] for k in range(count)],
    )


def places(w: Writer, finish: Finish, index: Sequence[Value]) -> list[Value]:
    """The address of every access at an index: outer batch, inner batch, rows, column."""
    found: list[Value] = []
    for access, base, strides in zip(finish.accesses, finish.bases, finish.strides):
        offset = w.i64(0)
        for position, stride in zip(index, strides):
            offset = w.add(offset, w.mul(position, stride))
        found.append(element(w, access.dtype, base, offset))
    return found


def moved(w: Writer, finish: Finish, at: list[Value], axis: int, steps: Value) -> list[Value]:
    """Addresses moved by `steps` along an axis."""
    rows = zip(finish.accesses, at, finish.strides)
    return [
        element(w, access.dtype, place, w.mul(steps, strides[axis]))
        for access, place, strides in rows
    ]


def finish_vector(
    w: Writer, finish: Finish, at: list[Value], column: Value, total: Value, mask: Value | None
) -> None:
    """Round, evaluate and store the lanes of `total`, adjacent columns from the addresses `at`."""
    lanes = lanes_of(total.type)
    indices = vector(lanes, "i64")
    loads = [(finish.dtype, round_to(w, finish.dtype, total))]
    for access, place, strides in zip(finish.epilogue.loads, at, finish.strides):
        loads.append((access.dtype, _read(w, access, place, strides[-1], lanes, mask)))
    index = w.add(w.splat(column, lanes), w.lanes(indices, range(lanes)))
    values = evaluate(w, finish.epilogue.body, loads, indices, index)
    first = len(finish.epilogue.loads)
    rows = zip(finish.epilogue.stores, at[first:], finish.strides[first:])
    for (access, number), place, strides in rows:
        _write(w, access, place, strides[-1], values[number], mask)


def finish_stack(w: Writer, finish: Finish, tile: Tile, stack: Value, width: int) -> None:
    """Finish a tile that lies on the stack in rows of `width` elements.

    for row in rows: for 16 columns at a time, or all: finish_vector(stack[row][column:], ...)
    """
    lanes = min(PARTIALS, width)
    outer, inner, first_row, *_, first_column = tile.origin
    wide = accumulator(finish.dtype)
    with w.loop(*tile.rows) as loop:
        row = tile.find(loop.index) if tile.find else [w.add(first_row, loop.index)]
        starts = places(w, finish, (outer, inner, *row, first_column))
        source = element(w, wide, stack, w.mul(loop.index, w.i64(width)))

        def body(index: Value, mask: Value | None, _: list[Value]) -> list[Value]:
            total = load_lanes(w, wide, element(w, wide, source, index), mask, lanes)
            at = moved(w, finish, starts, -1, index)
            finish_vector(w, finish, at, w.add(first_column, index), total, mask)
            return []

        sweep(w, *tile.columns, [], body, lanes)


def _read(
    w: Writer, access: Access, place: Value, stride: Value, lanes: int, mask: Value | None
) -> Value:
    if access.inner == "zero":
        return w.splat(load(w, access.dtype, place), lanes)
    if access.inner == "any":
        type = vector(lanes, storage(access.dtype))
        where = _addresses(w, access, place, stride, lanes)
        return to_register(w, access.dtype, w.gather(type, where, _all(w, lanes, mask)))
    if mask is None:
        return load(w, access.dtype, place, lanes)
    return masked_load(w, access.dtype, place, mask)


def _write(
    w: Writer, access: Access, place: Value, stride: Value, value: Value, mask: Value | None
) -> None:
    if access.inner != "unit":
        lanes = lanes_of(value.type)
        where = _addresses(w, access, place, stride, lanes)
        w.scatter(to_storage(w, access.dtype, value), where, _all(w, lanes, mask))
    elif mask is None:
        store(w, access.dtype, value, place)
    else:
        masked_store(w, access.dtype, value, place, mask)


def _addresses(w: Writer, access: Access, place: Value, stride: Value, lanes: int) -> Value:
    offsets = w.mul(w.lanes(vector(lanes, "i64"), range(lanes)), w.splat(stride, lanes))
    return w.geps(storage(access.dtype), place, offsets)


def _all(w: Writer, lanes: int, mask: Value | None) -> Value:
    return mask if mask is not None else w.const(vector(lanes, "i1"), True)
