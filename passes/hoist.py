"""Launches of a loop's step that do the same in each step move in front of the loop.

A launch moves when all it reads are consts, or results of launches that move: the packing of a
weight, a copy of it turned, a buffer of zeros. What the step still reads of them becomes a const.
Never changes a bit: the kernels stay what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from einkorn.ir.dtypes import uint8
from einkorn.ir.loops import Nesting
from einkorn.ir.node import placeholder
from einkorn.ir.types import TensorType
from einkorn.passes.launches import Buffer, Launch, Launches


@dataclass(frozen=True, slots=True)
class Moved:
    """What moves in front of a loop.

    Attributes:
        launches: the launches, in their order.
        results: the buffers that the step reads of them.
    """

    launches: Sequence[Launch]
    results: Sequence[Buffer]


def invariant(launches: Launches, consts: int) -> Moved:
    """The launches of a step that depend on its first `consts` inputs alone."""
    steps = launches.steps
    fixed: set[Buffer] = set()
    moving = [False] * len(steps)
    for k, launch in enumerate(steps):
        moving[k] = _may_move(launch) and all(
            buffer in fixed or (buffer.role == "input" and buffer.index < consts)
            for buffer, _ in launch.reads
        )
        if moving[k]:
            fixed.update(buffer for buffer, _ in launch.writes)
    while mixed := _written_by_both(steps, moving):
        for k, launch in enumerate(steps):
            touched = {buffer for buffer, _ in (*launch.reads, *launch.writes)}
            moving[k] = moving[k] and mixed.isdisjoint(touched)
    chosen = [launch for launch, moves in zip(steps, moving) if moves]
    made = dict.fromkeys(buffer for launch in chosen for buffer, _ in launch.writes)
    read = {
        buffer for launch, moves in zip(steps, moving) if not moves for buffer, _ in launch.reads
    }
    return Moved(chosen, [buffer for buffer in made if buffer in read])


def _may_move(launch: Launch) -> bool:
    temporary = all(buffer.role == "arena" for buffer, _ in launch.writes)
    return temporary and not launch.refuses and not isinstance(launch.kernel, Nesting)


def _written_by_both(steps: Sequence[Launch], moving: Sequence[bool]) -> set[Buffer]:
    """Buffers that launches which move and others write, or that one reads before it is written."""
    stays = {b for launch, moves in zip(steps, moving) if not moves for b, _ in launch.writes}
    moves = {b for launch, moves in zip(steps, moving) if moves for b, _ in launch.writes}
    reads = {b for launch, moves in zip(steps, moving) if moves for b, _ in launch.reads}
    return stays & (moves | reads)


def without(launches: Launches, moved: Moved, consts: int, before: int, extra: int) -> Launches:
    """The step without what moves.

    Args:
        launches: the step, whose buffers are changed: it must not be used any more.
        moved: what moves.
        consts: how many consts it had.
        before: how many of the new consts come before its own.
        extra: how many new consts there are; those of other steps are left alone.
    """
    chosen = set(map(id, moved.launches))
    steps = [launch for launch in launches.steps if id(launch) not in chosen]
    for buffer in {b for launch in steps for b, _ in (*launch.reads, *launch.writes)}:
        if buffer.role == "input" and buffer.index >= consts:
            buffer.index += extra
    for k, buffer in enumerate(moved.results):
        buffer.role, buffer.index = "input", consts + before + k
    sizes = [0] * before + [x.nbytes for x in moved.results]
    sizes += [0] * (extra - len(sizes))
    added = (placeholder(TensorType(uint8, (size,))) for size in sizes)
    inputs = launches.graph.inputs
    graph = replace(launches.graph, inputs=(*inputs[:consts], *added, *inputs[consts:]))
    return replace(launches, graph=graph, steps=steps)


def in_front(
    moved: Moved, operands: Sequence[tuple[Buffer, int]]
) -> tuple[list[Launch], Mapping[Buffer, Buffer]]:
    """The launches for the program around the loop, and its buffer for each of theirs.

    Args:
        moved: what moves.
        operands: where the consts are.
    """
    made: dict[Buffer, Buffer] = {}

    def operand(buffer: Buffer, offset: int) -> tuple[Buffer, int]:
        if buffer.role == "input":
            base, start = operands[buffer.index]
            return base, start + offset
        if buffer not in made:
            made[buffer] = Buffer(buffer.label, buffer.nbytes)
        return made[buffer], offset

    launches = [
        replace(
            launch,
            reads=tuple(operand(*x) for x in launch.reads),
            writes=tuple(operand(*x) for x in launch.writes),
            in_step=frozenset(),
        )
        for launch in moved.launches
    ]
    return launches, made
