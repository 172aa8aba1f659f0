"""`Lowered`: every stage of one compilation, to read."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from einkorn.ir.diff import diff
from einkorn.ir.errors import EinkornError
from einkorn.ir.graph import Graph
from einkorn.ir.loops import Kernel
from einkorn.ir.program import Program
from einkorn.runtime.compiler import build_program, compile_graph, kernel_sources
from einkorn.runtime.executable import Executable


class Lowered:
    """What `step.lower(*args)` gives: the stages of the compilation, without running it.

    Attributes:
        graph: the traced graph, the first stage.
    """

    def __init__(self, graph: Graph, backend: str) -> None:
        self.graph = graph
        self._backend = "llvm" if backend == "reference" else backend

    @cached_property
    def stages(self) -> dict[str, Any]:
        """The result of every stage by name, in order: graphs, groups, launches, the program."""
        found: dict[str, Any] = {}
        build_program(self.graph, self._backend, found.__setitem__)
        return found

    @property
    def program(self) -> Program:
        """The last stage."""
        return self.stages["plan-memory"]

    def ir(self, stage: str | None = None) -> str:
        """The text of one stage; of the trace by default."""
        name = stage or "trace"
        if name not in self.stages:
            known = ", ".join(self.stages)
            raise EinkornError(f"there is no stage {name!r}; the stages are {known}")
        return str(self.stages[name])

    def diff(self, before: str, after: str) -> str:
        """What changed between two stages, as a text diff."""
        return diff(self.ir(before), self.ir(after))

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The distinct kernels, in the order of their first use."""
        return self.program.kernels

    def llvm_ir(self) -> str:
        """The LLVM text of every kernel."""
        return kernel_sources(self.program, self._backend)

    @property
    def memory(self) -> int:
        """The bytes of the arena: all temporaries of a step."""
        return self.program.arena_bytes

    def compile(self) -> Executable:
        """The executable of this program."""
        return compile_graph(self.graph, self._backend)

    def __str__(self) -> str:
        return self.ir()
