"""Kernel launches over named buffers: the form of a step between fusion and the memory plan."""

from __future__ import annotations

from dataclasses import dataclass, field

from einkorn.ir.graph import Graph
from einkorn.ir.loops import Kernel
from einkorn.ir.node import Node


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
class Groups:
    """What `fuse` decided.

    Attributes:
        graph: the graph that was grouped.
        roots: nodes that get a buffer, in the order in which they are computed.
        members: for each elementwise root the nodes that are computed with it, inputs first,
            the root last.
    """

    graph: Graph
    roots: tuple[Node, ...]
    members: dict[Node, tuple[Node, ...]]

    def __str__(self) -> str:
        rows = [f"groups {self.graph.name} {{"]
        for root in self.roots:
            ops = " ".join(node.op.name.lower() for node in self.members.get(root, (root,)))
            rows.append(f"  {root.type} <- {ops}")
        return "\n".join([*rows, "}"])
