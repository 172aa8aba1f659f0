"""Pass `plan_memory`: give every temporary its place in one arena, and make the program.

A temporary lives from the launch that first writes it to the last one that reads it; places are
shared by temporaries whose lives do not meet (best fit over the free gaps). `after` of each
instruction covers what it reads and whoever used its memory before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from einkorn.ir.program import ARENA, Instruction, Operand, Program, Slot
from einkorn.ir.types import TensorType
from einkorn.passes.launches import Buffer, Launch, Launches
from einkorn.passes.schedule import dependencies

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


@dataclass(slots=True)
class _Life:
    """The first and the last launch that touch a temporary."""

    first: int
    last: int


class _Arena:
    """Best-fit places for temporaries, freed in order of time."""

    def __init__(self) -> None:
        self.size = 0
        self._gaps: list[tuple[int, int]] = []  # (offset, bytes), sorted by offset

    def take(self, nbytes: int) -> int:
        fitting = [gap for gap in self._gaps if gap[1] >= nbytes]
        if fitting:
            gap = min(fitting, key=lambda gap: gap[1])
            self._gaps.remove(gap)
            if gap[1] > nbytes:
                self._insert(gap[0] + nbytes, gap[1] - nbytes)
            return gap[0]
        last = self._gaps[-1] if self._gaps and sum(self._gaps[-1]) == self.size else None
        start = last[0] if last else self.size
        if last:
            self._gaps.pop()
        self.size = start + nbytes
        return start

    def give(self, offset: int, nbytes: int) -> None:
        self._insert(offset, nbytes)

    def _insert(self, offset: int, nbytes: int) -> None:
        """Add a gap, joined with its neighbours."""
        joined: list[tuple[int, int]] = []
        for start, size in self._gaps:
            if start + size == offset:
                offset, nbytes = start, size + nbytes
            elif offset + nbytes == start:
                nbytes += size
            else:
                joined.append((start, size))
        self._gaps = sorted([*joined, (offset, nbytes)])


def plan_memory(launches: Launches) -> Program:
    """The program of scheduled launches: instructions over slots and one arena."""
    steps = launches.steps
    lives = _lifetimes(steps)
    offsets, arena_bytes = _places(steps, lives)
    slots, slot_of = _slots(launches)
    waits = _waits(steps, lives, offsets)
    commit_at = launches.commit if any(launch.refuses for launch in steps) else -1

    def operand(buffer: Buffer, offset: int) -> Operand:
        if buffer.role == "arena":
            return Operand(ARENA, offsets[buffer] + offset)
        return Operand(slot_of[buffer.role, buffer.index], offset)

    instructions: list[Instruction] = []
    for k, launch in enumerate(steps):
        if k == commit_at:
            instructions.append(_commit(k))
        shift = int(0 <= commit_at <= k)
        after = max(
            waits[k] + shift if waits[k] > commit_at else waits[k], commit_at + 1 if shift else 0
        )
        instructions.append(_instruction(launch, after, operand))
    if commit_at == len(steps):
        instructions.append(_commit(len(steps)))
    cost = sum(launch.cost for launch in steps)
    return Program(
        launches.graph.name, slots, tuple(instructions), arena_bytes, cost, launches.in_place
    )


def _instruction(
    launch: Launch, after: int, operand: Callable[[Buffer, int], Operand]
) -> Instruction:
    operands = tuple(operand(*item) for item in (*launch.reads, *launch.writes))
    return Instruction(
        launch.kernel,
        operands,
        launch.params,
        launch.work,
        launch.grain,
        after,
        launch.cost,
        launch.label,
    )


def _commit(after: int) -> Instruction:
    return Instruction(None, (), (), 0, 1, after, 0.0, "commit")


def _rounded(nbytes: int) -> int:
    return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)


def _lifetimes(steps: list[Launch]) -> dict[Buffer, _Life]:
    lives: dict[Buffer, _Life] = {}
    for k, launch in enumerate(steps):
        for buffer, _ in (*launch.reads, *launch.writes):
            if buffer.role == "arena":
                lives.setdefault(buffer, _Life(k, k)).last = k
    return lives


def _places(steps: list[Launch], lives: dict[Buffer, _Life]) -> tuple[dict[Buffer, int], int]:
    starts: dict[int, list[Buffer]] = {}
    ends: dict[int, list[Buffer]] = {}
    for buffer, life in lives.items():
        starts.setdefault(life.first, []).append(buffer)
        ends.setdefault(life.last, []).append(buffer)
    arena = _Arena()
    offsets: dict[Buffer, int] = {}
    for k in range(len(steps)):
        for buffer in starts.get(k, ()):
            offsets[buffer] = arena.take(_rounded(buffer.nbytes))
        for buffer in ends.get(k, ()):
            arena.give(offsets[buffer], _rounded(buffer.nbytes))
    return offsets, arena.size


def _waits(
    steps: list[Launch], lives: dict[Buffer, _Life], offsets: dict[Buffer, int]
) -> list[int]:
    """For each launch how many leading launches must be finished before it starts."""
    needs = dependencies(steps)
    waits = [max(need, default=-1) + 1 for need in needs]
    ordered = sorted(lives, key=lambda buffer: lives[buffer].first)
    active: list[Buffer] = []
    for buffer in ordered:
        first, start = lives[buffer].first, offsets[buffer]
        end = start + _rounded(buffer.nbytes)
        kept: list[Buffer] = []
        for other in active:
            low, high = offsets[other], offsets[other] + _rounded(other.nbytes)
            if low < end and start < high:  # the same memory: its last user goes first
                waits[first] = max(waits[first], lives[other].last + 1)
                if start <= low and high <= end:
                    continue
            kept.append(other)
        active = [*kept, buffer]
    _wait_for_readers(steps, waits)
    return waits


def _wait_for_readers(steps: list[Launch], waits: list[int]) -> None:
    """A launch that writes state waits for everything before it: old values may still be read."""
    last_reader = 0
    for k, launch in enumerate(steps):
        if any(buffer.role == "update" for buffer, _ in launch.writes):
            waits[k] = max(waits[k], last_reader)
        if any(buffer.role in ("input", "capture") for buffer, _ in launch.reads):
            last_reader = k + 1


def _slots(launches: Launches) -> tuple[tuple[Slot, ...], dict[tuple[str, int], int]]:
    graph = launches.graph
    rows: list[tuple[str, list[TensorType]]] = [
        ("input", [node.tensor for node in graph.inputs]),
        ("capture", [node.tensor for node in graph.captures]),
        ("output", [node.tensor for node in graph.outputs]),
        ("update", [value.tensor for _, value in graph.updates]),
    ]
    slots = [Slot("arena", 0, None)]
    numbers: dict[tuple[str, int], int] = {}
    for role, types in rows:
        for index, type in enumerate(types):
            numbers[role, index] = len(slots)
            slots.append(Slot(role, index, type))
    return tuple(slots), numbers
