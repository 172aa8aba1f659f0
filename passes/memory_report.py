"""`memory_report`: where a program keeps its temporaries and how it writes its updates.

Read off the results of two stages: the scheduled launches know the buffers, and the instructions
made of them know the places. So the report shows what was planned, whatever planned it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from einkorn.ir.program import ARENA, Program
from einkorn.passes.launches import Buffer, Launches
from einkorn.passes.tables import amount, table


@dataclass(frozen=True, slots=True)
class Temporary:
    """A value that is kept in the arena while it is needed.

    Attributes:
        label: its type, or what it is.
        computes: the label of the first instruction that writes it.
        offset: its place in the arena.
        nbytes: its size.
        first: the number of the first instruction that uses it.
        last: the number of the last one.
        over: the place in `temporaries` of the one that it is written over in place, if any.
    """

    label: str
    computes: str
    offset: int
    nbytes: int
    first: int
    last: int
    over: int | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """A leaf that the step assigns.

    Attributes:
        name: its readable name.
        nbytes: its size.
        in_place: whether the new value is written over the old one; otherwise it is written
            beside it, and the two are exchanged when the whole step has succeeded.
        reason: why not in place.
    """

    name: str
    nbytes: int
    in_place: bool
    reason: str = ""


@dataclass(frozen=True)
class MemoryReport:
    """The memory plan of a program; prints as tables.

    Attributes:
        name: the name of the graph.
        arena_bytes: the size of the arena, which holds all temporaries.
        temporaries: what lies in the arena, in the order of first use.
        peak_bytes: the most bytes of temporaries that are needed at one time.
        peak_at: the number of the instruction at which they are; None without temporaries.
        updates: every leaf that is assigned.
    """

    name: str
    arena_bytes: int
    temporaries: tuple[Temporary, ...]
    peak_bytes: int
    peak_at: int | None
    updates: tuple[Update, ...]

    @property
    def spare_bytes(self) -> int:
        """Storage for new values that are written beside the old ones."""
        return sum(row.nbytes for row in self.updates if not row.in_place)

    def __str__(self) -> str:
        peak = "" if self.peak_at is None else f", at instruction {self.peak_at}"
        rows = [
            f"memory of {self.name}: arena {amount(self.arena_bytes)} bytes, peak "
            f"{amount(self.peak_bytes)} bytes{peak}, spare {amount(self.spare_bytes)} bytes"
        ]
        if self.temporaries:
            rows += table(_TEMPORARIES, [self._row(k) for k in range(len(self.temporaries))], 3)
        if self.updates:
            body = [(amount(row.nbytes), row.name, _how(row)) for row in self.updates]
            rows += table(("bytes", "update", "written"), body, left=2)
        return "\n".join(rows)

    def _row(self, number: int) -> tuple[str, ...]:
        row = self.temporaries[number]
        over = "" if row.over is None else f" over t{row.over}"
        return (
            f"t{number}",
            str(row.offset),
            amount(row.nbytes),
            f"{row.first}..{row.last}",
            f"{row.label}{over}",
            row.computes,
        )


_TEMPORARIES = ("", "offset", "bytes", "used", "holds", "computed by")


def _how(update: Update) -> str:
    return "in place" if update.in_place else f"beside the old value: {update.reason}"


def memory_report(launches: Launches, program: Program) -> MemoryReport:
    """The plan of `program`, which was made of the scheduled `launches`."""
    numbers = [k for k, row in enumerate(program.instructions) if row.kernel is not None]
    temporaries = _temporaries(launches, program, numbers)
    peak, at = _peak(temporaries)
    updates = tuple(_update(launches, numbers, k) for k in range(len(launches.graph.updates)))
    return MemoryReport(program.name, program.arena_bytes, temporaries, peak, at, updates)


def _temporaries(
    launches: Launches, program: Program, numbers: Sequence[int]
) -> tuple[Temporary, ...]:
    found: dict[Buffer, Temporary] = {}
    for number, launch in zip(numbers, launches.steps, strict=True):
        operands = program.instructions[number].operands
        touched = (*launch.reads, *launch.writes)
        for operand, (buffer, inside) in zip(operands, touched, strict=True):
            if operand.slot != ARENA:
                continue
            known = found.get(buffer)
            if known is None:
                offset, computes = operand.offset - inside, launch.label
                first, over = number, _over(found, offset, buffer.nbytes, number)
            else:
                offset, computes = known.offset, known.computes
                first, over = known.first, known.over
            found[buffer] = Temporary(
                buffer.label, computes, offset, buffer.nbytes, first, number, over
            )
    return tuple(found.values())


def _over(found: dict[Buffer, Temporary], offset: int, nbytes: int, number: int) -> int | None:
    """Which temporary, in use by this instruction, has this place."""
    for k, other in enumerate(found.values()):
        meets = offset < other.offset + other.nbytes and other.offset < offset + nbytes
        if meets and other.last == number:
            return k
    return None


def _peak(temporaries: Sequence[Temporary]) -> tuple[int, int | None]:
    """The most bytes needed at one time, places that are shared counted once; and when."""
    most, at = 0, None
    for number in sorted({row.first for row in temporaries}):
        live = [row for row in temporaries if row.first <= number <= row.last]
        needed, end = 0, 0
        for row in sorted(live, key=lambda row: row.offset):
            needed += max(0, row.offset + row.nbytes - max(end, row.offset))
            end = max(end, row.offset + row.nbytes)
        if needed > most:
            most, at = needed, number
    return most, at


def _update(launches: Launches, numbers: Sequence[int], index: int) -> Update:
    leaf, value = launches.graph.updates[index]
    in_place = index in launches.in_place
    reason = "" if in_place else _why_beside(launches, numbers, index)
    return Update(launches.graph.name_of(leaf), value.tensor.nbytes, in_place, reason)


def _why_beside(launches: Launches, numbers: Sequence[int], index: int) -> str:
    """What keeps an update from being written over the old value."""
    graph = launches.graph
    leaf, _ = graph.updates[index]
    if leaf in graph.inputs:
        return "it is an argument"
    position = graph.captures.index(leaf)
    writers: list[int] = []
    readers: list[int] = []
    for k, launch in enumerate(launches.steps):
        if any((x.role, x.index) == ("update", index) for x, _ in launch.writes):
            writers.append(k)
        reads = {x for x, _ in launch.reads if (x.role, x.index) == ("capture", position)}
        if reads and not (writers == [k] and reads <= launch.in_step):
            readers.append(k)
    if not writers:
        return "no instruction writes it"
    if len(writers) > 1:
        return f"instructions {', '.join(str(numbers[k]) for k in writers)} write parts of it"
    if writers[0] < launches.commit:
        return f"instruction {numbers[writers[0]]} writes it before the commit point"
    late = [k for k in readers if k >= writers[0]]
    if not late:
        return "the schedule keeps the old value"
    what = "reads other elements of" if late[0] == writers[0] else "still reads"
    return f"instruction {numbers[late[0]]} {what} the old value"
