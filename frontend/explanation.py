"""What `explain()` tells of a compiled function, as data and as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TraceReport:
    """One trace of a compiled function.

    Attributes:
        why: why it was made.
        nodes: the nodes of its graph.
        calls: how often it was called.
        specialised: the numbers whose values it needed, and where.
        guards: what has to be as it was.
        constants: arrays that it holds as they were, each with the line that used it.
        tracing_ms, compiling_ms: what making it took.
        instructions, kernels, arena_bytes: of its program; None with the reference.
    """

    why: str
    nodes: int
    calls: int
    specialised: tuple[str, ...]
    guards: tuple[str, ...]
    constants: tuple[str, ...]
    tracing_ms: float
    compiling_ms: float
    instructions: int | None
    kernels: int | None
    arena_bytes: int | None

    def rows(self) -> Iterator[str]:
        """The report, line by line."""
        yield f"trace because: {self.why} ({self.nodes} nodes, called {self.calls} times)"
        for reason in self.specialised:
            yield f"  specialised: {reason}"
        for guard in self.guards:
            yield f"  guard: {guard}"
        for constant in self.constants:
            yield f"  constant: {constant}"
        yield (
            f"  made in: {self.tracing_ms:.1f} ms of tracing, "
            f"{self.compiling_ms:.1f} ms of compiling"
        )
        if self.instructions is not None:
            yield (
                f"  program: {self.instructions} instructions of {self.kernels} "
                f"kernels, an arena of {self.arena_bytes} bytes"
            )


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of a compiled function; `str` of it is text for people.

    Attributes:
        name: of the function.
        traces: those that are kept.
        made: how many were made in all.
        reasons: why it was traced again, the latest last.
    """

    name: str
    traces: tuple[TraceReport, ...]
    made: int
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        dropped = self.made - len(self.traces)
        more = f", {dropped} more were dropped" if dropped else ""
        rows = [f"{self.name}: {len(self.traces)} traces{more}"]
        rows += [f"  {row}" for trace in self.traces for row in trace.rows()]
        return "\n".join(rows)
