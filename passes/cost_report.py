"""`cost_report`: what each instruction of a program does, moves and is estimated to take."""

from __future__ import annotations

from dataclasses import dataclass

from einkorn.ir.program import Program
from einkorn.ir.work import instruction_work
from einkorn.passes.tables import amount, duration, table


@dataclass(frozen=True, slots=True)
class CostRow:
    """One instruction.

    Attributes:
        number: its place in the program.
        kernel: the kernel's class; "commit" for the commit point.
        label: what it computes: op names and the user's line.
        flops: operations (what counts as one: ir/work.py).
        bytes: bytes read and written, each element once.
        nanoseconds: estimated time on one thread.
        share: its part of the estimated time of the program.
    """

    number: int
    kernel: str
    label: str
    flops: int
    bytes: int
    nanoseconds: float
    share: float

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class CostReport:
    """The cost of every instruction, in order; prints as a table."""

    name: str
    rows: tuple[CostRow, ...]

    @property
    def flops(self) -> int:
        return sum(row.flops for row in self.rows)

    @property
    def bytes(self) -> int:
        return sum(row.bytes for row in self.rows)

    @property
    def nanoseconds(self) -> float:
        """The estimated time on one thread."""
        return sum(row.nanoseconds for row in self.rows)

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    def __str__(self) -> str:
        head = (
            f"cost of {self.name}: {amount(self.flops)} FLOPs, {amount(self.bytes)} bytes, "
            f"{self.intensity:.2f} FLOPs/byte, about {duration(self.nanoseconds)} on one thread"
        )
        titles = ("#", "FLOPs", "bytes", "FLOPs/byte", "time", "share", "kernel", "computes")
        body = [
            (
                str(row.number),
                amount(row.flops),
                amount(row.bytes),
                f"{row.intensity:.2f}",
                duration(row.nanoseconds),
                f"{row.share:.0%}",
                row.kernel,
                row.label,
            )
            for row in self.rows
        ]
        return "\n".join([head, *table(titles, body, left=2)])


def cost_report(program: Program) -> CostReport:
    """The cost of a program: operations and bytes from its parameters, time as estimated by it."""
    whole = sum(row.cost for row in program.instructions) or 1.0
    rows: list[CostRow] = []
    for number, row in enumerate(program.instructions):
        work = instruction_work(row)
        kernel = "commit" if row.kernel is None else type(row.kernel).__name__
        label = "" if row.kernel is None else row.label
        share = row.cost / whole
        rows.append(CostRow(number, kernel, label, work.flops, work.bytes, row.cost, share))
    return CostReport(program.name, tuple(rows))
