"""Pass `plan_memory`: give every temporary its place in one arena, and make the program.

A temporary lives from the first launch that touches it to the last. A result takes the place of an
operand that dies with the launch and is read exactly at the element that is written; other places
are shared by temporaries whose lives do not meet (passes/arena.py). `after` of each instruction
covers what it reads and whoever used its memory before.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from einkorn.ir.program import ARENA, Instruction, Operand, Program, Slot
from einkorn.ir.types import TensorType
from einkorn.passes.arena import arrange, rounded
from einkorn.passes.launches import Buffer, Launch, Launches
from einkorn.passes.replace import touches
from einkorn.passes.schedule import dependencies
from einkorn.passes.share import share


@dataclass(eq=False, slots=True)
class _Place:
    """Memory of one temporary, or of several that follow each other in it.

    Attributes:
        nbytes: its size.
        first, last: the first and the last launch that touch it.
        users: the launches that touch the temporary that had it last.
    """

    nbytes: int
    first: int
    last: int
    users: list[int] = field(default_factory=list[int])


def plan_memory(launches: Launches) -> Program:
    """The program of scheduled launches: instructions over slots and one arena."""
    steps: list[Launch | None] = list(launches.steps)
    if any(launch.refuses for launch in launches.steps):
        steps.insert(launches.commit, None)
    needs = dependencies(launches.graph, steps)
    place_of, places = _places(steps, needs)
    offsets, arena_bytes = arrange([(place.nbytes, place.first, place.last) for place in places])
    _wait_for_memory(places, offsets, needs)
    offset_of = dict(zip(places, offsets))
    slots, slot_of = _slots(launches)

    def operand(buffer: Buffer, offset: int) -> Operand:
        if buffer.role == "arena":
            return Operand(ARENA, offset_of[place_of[buffer]] + offset)
        return Operand(slot_of[buffer.role, buffer.index], offset)

    units, shared_cost = share(steps, needs)
    runs = {unit.first: unit.count for unit in units}
    afters = [max(need, default=-1) + 1 for need in needs]
    for unit in units:
        afters[unit.first] = unit.after
    instructions = [
        _instruction(launch, runs.get(k, 0), afters[k], operand) for k, launch in enumerate(steps)
    ]
    return Program(
        launches.graph.name,
        slots,
        tuple(instructions),
        arena_bytes,
        sum(launch.cost for launch in launches.steps),
        launches.in_place,
        shared_cost,
    )


def _instruction(
    launch: Launch | None, run: int, after: int, operand: Callable[[Buffer, int], Operand]
) -> Instruction:
    if launch is None:
        return Instruction(None, (), (), 0, 1, after, 0.0, "commit")
    return Instruction(
        launch.kernel,
        tuple(operand(*item) for item in (*launch.reads, *launch.writes)),
        launch.params,
        launch.work,
        launch.grain,
        after,
        launch.cost,
        launch.label,
        run,
        launch.inner,
    )


def _places(
    steps: Sequence[Launch | None], needs: list[set[int]]
) -> tuple[dict[Buffer, _Place], list[_Place]]:
    """The place of each temporary, and all places; results that replace an operand wait for it."""
    place_of: dict[Buffer, _Place] = {}
    for k, launch in enumerate(steps):
        operands = () if launch is None else (*launch.reads, *launch.writes)
        for buffer, _ in operands:
            if buffer.role == "arena":
                place = place_of.get(buffer)
                if place is None:
                    place = place_of[buffer] = _Place(buffer.nbytes, k, k)
                place.last = k
                place.users.append(k)
    for k, launch in enumerate(steps):
        if launch is None or not launch.in_step:
            continue
        for buffer, result in _replacements(k, launch, place_of):
            place, new = place_of[buffer], place_of[result]
            needs[k].update(user for user in place.users if user < k)
            place.last, place.users = new.last, new.users
            place_of[result] = place
    return place_of, list(dict.fromkeys(place_of.values()))


def _replacements(
    k: int, launch: Launch, place_of: dict[Buffer, _Place]
) -> Iterable[tuple[Buffer, Buffer]]:
    """Operands that die with a launch, each with the result that takes its place."""
    dying = [
        buffer
        for buffer, _ in launch.reads
        if buffer in launch.in_step and buffer in place_of and place_of[buffer].last == k
    ]
    touched = touches(launch) if dying else {}
    free = {touched[buffer]: buffer for buffer in dying if buffer in touched}
    for result, _ in launch.writes if free else ():
        new = result in place_of and place_of[result].first == k
        buffer = free.pop(touched[result], None) if new and result in touched else None
        if buffer is not None:
            yield buffer, result


def _wait_for_memory(
    places: Sequence[_Place], offsets: Sequence[int], needs: list[set[int]]
) -> None:
    """The first launch that touches a place needs those that used its memory before."""
    starts: list[int] = [0]  # part i of the arena is [starts[i], starts[i + 1])
    holders: list[_Place | None] = [None]  # who had it last
    for place, low in sorted(zip(places, offsets), key=lambda row: row[0].first):
        high = low + rounded(place.nbytes)
        if low == high:
            continue
        i, j = bisect_right(starts, low) - 1, bisect_left(starts, high)
        for holder in holders[i:j]:
            if holder is not None:
                needs[place.first].update(holder.users)
        parts: list[tuple[int, _Place | None]] = [(low, place)]
        if starts[i] < low:
            parts.insert(0, (starts[i], holders[i]))
        if j == len(starts) or starts[j] > high:
            parts.append((high, holders[j - 1]))
        starts[i:j] = [start for start, _ in parts]
        holders[i:j] = [holder for _, holder in parts]


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
