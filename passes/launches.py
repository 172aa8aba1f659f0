"""Kernel launches over named buffers: the form of a step between fusion and the memory plan."""

from __future__ import annotations

from dataclasses import dataclass, field

from einkorn.ir.graph import Graph
from einkorn.ir.loops import Kernel
from einkorn.ir.node import Node
from einkorn.ir.program import Program


@dataclass(eq=False, slots=True)
class Buffer:
    """Memory that launches read and write; compared by identity.

    Attributes:
        label: for people.
        nbytes: its size.
        role: "arena" for temporaries, else what binds it: "input", "capture", "output", "update".
        index: which input, capture, output or update.
    """

    label: str
    nbytes: int
    role: str = "arena"
    index: int = -1


@dataclass(eq=False, slots=True)
class Launch:
    """One kernel with its buffers (and byte offsets), parameters and amount of work.

    Attributes:
        reads: operands it reads, in the kernel's order.
        writes: operands it writes, in the kernel's order, after the reads.
        in_step: buffers of `reads` that are read exactly at the element that is written, so that
            the result may take their place.
        inner: the programs that a kernel of control flow runs.
    """

    kernel: Kernel
    reads: tuple[tuple[Buffer, int], ...]
    writes: tuple[tuple[Buffer, int], ...]
    params: tuple[int, ...]
    work: int
    grain: int
    cost: float
    label: str
    refuses: bool = False
    in_step: frozenset[Buffer] = frozenset()
    inner: tuple[Program, ...] = ()


@dataclass(eq=False)
class Launches:
    """A graph as launches in a valid order, before anything has an address.

    Attributes:
        graph: what they compute.
        steps: the launches.
        commit: how many leading launches must succeed before state may be written.
        in_place: indices of updates that may be written over the old value.
    """

    graph: Graph
    steps: list[Launch] = field(default_factory=list[Launch])
    commit: int = 0
    in_place: frozenset[int] = frozenset()

    def __str__(self) -> str:
        rows = [f"launches {self.graph.name} {{"]
        names: dict[Buffer, str] = {}

        def name(buffer: Buffer, offset: int) -> str:
            prefix = "t" if buffer.role == "arena" else buffer.role
            number = len(names) if buffer.role == "arena" else buffer.index
            text = names.setdefault(buffer, f"{prefix}{number}")
            return f"{text}+{offset}" if offset else text

        for position, launch in enumerate(self.steps):
            if position == self.commit > 0 and any(step.refuses for step in self.steps):
                rows.append("  commit")
            reads = ", ".join(name(*operand) for operand in launch.reads)
            writes = ", ".join(name(*operand) for operand in launch.writes)
            kind = type(launch.kernel).__name__
            rows.append(
                f"  {writes} <- {kind}({reads}) params={launch.params} work={launch.work}"
                f"  # {launch.label}"
            )
        return "\n".join([*rows, "}"])


@dataclass(frozen=True, eq=False)
class Group:
    """Nodes that one kernel computes (a few when a reduction runs in parts, or a dot packs).

    Attributes:
        kind: "map", "rows", "blocks", "columns", "dot" or "single" (passes/fuse.py says what each
            may hold).
        space: the sizes of the index space.
        members: the nodes, inputs first.
        results: the members that get a buffer.
        of_rows: the members with one value for each row of a "rows" space.
    """

    kind: str
    space: tuple[int, ...]
    members: tuple[Node, ...]
    results: tuple[Node, ...]
    of_rows: frozenset[Node] = frozenset()

    def __str__(self) -> str:
        sizes = "x".join(str(n) for n in self.space)
        ops = " ".join(node.op.name.lower() for node in self.members)
        types = ", ".join(str(node.type) for node in self.results)
        return f"{types} <- {self.kind}[{sizes}]: {ops}"


@dataclass(frozen=True, eq=False)
class Groups:
    """What `fuse` decided: the groups of a graph, in the order in which they are computed."""

    graph: Graph
    groups: tuple[Group, ...]

    def __str__(self) -> str:
        rows = [f"groups {self.graph.name} {{", *(f"  {group}" for group in self.groups), "}"]
        return "\n".join(rows)
