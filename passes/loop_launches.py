"""Launches of loop kernels: from operands with strides over natural axes to kernel and parameters.

The axes of an index space fall into parts: outer axes, for "columns" the reduced rows, and the
inner ones; within a part, neighbours that all operands cross evenly become one axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Protocol

from einkorn.ir.loops import (
    COLUMN_BLOCK,
    COLUMN_CHUNK,
    PARTIALS,
    ROW_BLOCK,
    Access,
    Expr,
    Level,
    LoopKernel,
    Over,
    levels,
)
from einkorn.passes.costs import SCRATCH_BYTES, grain_of, loop_cost, op_cost
from einkorn.passes.launches import Buffer, Launch
from einkorn.passes.views import View, merge_axes

Ints = tuple[int, ...]

KEEP_NS = 0.12  # computing a value of a row again costs more than this: it is kept (costs.py)


@dataclass(frozen=True, slots=True)
class LoopOperand:
    """What a loop reads or writes.

    Attributes:
        buffer: where it is.
        view: its first element and its strides along the loop's axes; by its base the dtype.
    """

    buffer: Buffer
    view: View

    @property
    def place(self) -> tuple[Buffer, int]:
        return self.buffer, self.view.offset * self.view.base.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop nest before its axes are merged.

    Attributes:
        reduction: as of `LoopKernel`.
        shape: the sizes of its axes.
        cuts: where parts of axes end: none for maps and "blocks", the end of the outer axes for
            "rows" and "bands", the ends of the outer and of the reduced axes for "columns".
        loads, stores: operands; a store with the number of its value.
        body: the steps.
        label: for people.
    """

    reduction: str | None
    shape: Ints
    cuts: Ints
    loads: Sequence[LoopOperand]
    stores: Sequence[tuple[LoopOperand, int]]
    body: tuple[Expr, ...]
    label: str


class Emits(Protocol):
    """What takes launches."""

    def emit(self, launch: Launch) -> None: ...


def emit_loop(lowering: Emits, loop: Loop) -> None:
    """Emit the launch of a loop."""
    operands = [*loop.loads, *(operand for operand, _ in loop.stores)]
    extents, strides = _merged(loop, operands)
    accesses = [Access(x.view.base.dtype, inner_class(row)) for x, row in zip(operands, strides)]
    count = len(loop.loads)
    kernel = LoopKernel(
        len(extents),
        tuple(accesses[:count]),
        loop.body,
        tuple((access, number) for access, (_, number) in zip(accesses[count:], loop.stores)),
        loop.reduction,
    )
    if loop.reduction in ("rows", "bands"):  # the others have one pass
        kernel = _with_kept(kernel, extents[-1])
    work, multiple = _work(loop.reduction, extents)
    cost = loop_cost(kernel, prod(extents))
    lowering.emit(
        Launch(
            kernel,
            tuple(operand.place for operand in loop.loads),
            tuple(operand.place for operand, _ in loop.stores),
            (*extents, *(n for row in strides for n in row)),
            work,
            grain_of(work, cost, multiple),
            cost,
            loop.label,
            in_step=_in_step(kernel, loop, strides),
        )
    )


def inner_class(strides: Ints) -> str:
    """The class of an access by its stride along the last axis."""
    return {1: "unit", 0: "zero"}.get(strides[-1], "any")


def _merged(loop: Loop, operands: Sequence[LoopOperand]) -> tuple[Ints, list[Ints]]:
    """The extents of the kernel, and the strides of every operand along them."""
    bounds = [0, *loop.cuts, len(loop.shape)]
    extents: list[int] = []
    rows: list[list[int]] = [[] for _ in operands]
    for part, (a, b) in enumerate(pairwise(bounds)):
        outer = part == 0 and bool(loop.cuts)
        if outer and prod(loop.shape[a:b]) == 1:
            continue
        merged, found = merge_axes(loop.shape[a:b], [x.view.strides[a:b] for x in operands])
        even = outer or loop.reduction is None or len(merged) == 1
        assert even, f"{loop.label}: {loop.shape} does not merge"
        extents += merged
        for row, strides in zip(rows, found):
            row += strides
    return tuple(extents), [tuple(row) for row in rows]


def _work(reduction: str | None, extents: Ints) -> tuple[int, int]:
    """The number of work items, and of what number of them a part is a multiple."""
    if reduction == "blocks":
        return -(-extents[0] // ROW_BLOCK), 1
    if reduction == "bands":
        return -(-prod(extents[:-1]) // COLUMN_BLOCK), 1
    if reduction == "columns":
        parts = -(-extents[-2] // COLUMN_BLOCK)
        return prod(extents[:-2]) * parts * -(-extents[-1] // COLUMN_CHUNK), 1
    if len(extents) == 1 and reduction is None:
        return extents[0], PARTIALS
    return prod(extents[:-1]), 1


def _in_step(kernel: LoopKernel, loop: Loop, strides: list[Ints]) -> frozenset[Buffer]:
    """Buffers that are read exactly at the element that is written, and not after that."""
    count = len(loop.loads)
    known = levels(kernel)
    last = _last_uses(kernel, known)[:count]
    early = min((known[number].stage for _, number in loop.stores), default=0)
    targets = {
        (row, store.place[1], kernel.dtype_of(number).itemsize)
        for (store, number), row in zip(loop.stores, strides[count:])
        if kernel.over(number) in (None, Over.ROW)
    }
    times = Counter(load.buffer for load in loop.loads)
    return frozenset(
        load.buffer
        for load, row, access, at in zip(loop.loads, strides, kernel.loads, last)
        if times[load.buffer] == 1
        and at <= early
        and (row, load.place[1], access.dtype.itemsize) in targets
    )


# -- rows that are passed over several times -------------------------------------------------------


def _with_kept(kernel: LoopKernel, n: int) -> LoopKernel:
    """Choose the values that are kept between passes: those too expensive to compute again.

    The first of them, as many as there is room for.
    """
    found = levels(kernel)
    count = len(kernel.loads)
    again: list[float] = [0.0] * count
    kept: list[int] = []
    room = SCRATCH_BYTES
    latest = _last_uses(kernel, found)
    for number, step in enumerate(kernel.body, count):
        cost = op_cost(step.op) + sum(again[k] for k in step.inputs)
        level = found[number]
        wanted_later = latest[number] > level.stage and level.varies
        nbytes = n * max(step.dtype.itemsize, 4)
        if wanted_later and cost > KEEP_NS and step.dtype.bits > 8 and nbytes <= room:
            kept.append(number)
            room -= nbytes
            cost = 0.0
        again.append(cost if level.varies else 0.0)
    return replace(kernel, kept=tuple(kept))


def _last_uses(kernel: LoopKernel, found: list[Level]) -> list[int]:
    """The last pass in which each value is needed, if nothing is kept."""
    count = len(kernel.loads)
    latest = [-1] * len(found)
    for _, number in kernel.stores:
        latest[number] = max(latest[number], found[number].stage)
    for number in range(len(found) - 1, count - 1, -1):
        step = kernel.body[number - count]
        at = latest[number]
        if step.over is not None:
            at = found[number].stage - (step.over is Over.ROW)
        for k in step.inputs:
            latest[k] = max(latest[k], at)
    return latest
