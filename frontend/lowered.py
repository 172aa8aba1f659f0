"""`Lowered`: every stage of one compilation, to read."""

from __future__ import annotations

from typing import Any

from einkorn.ir.cached import cached_property
from einkorn.ir.diff import diff
from einkorn.ir.errors import EinkornError
from einkorn.ir.graph import Graph
from einkorn.ir.loops import Kernel
from einkorn.ir.program import Program
from einkorn.passes.cost_report import CostReport, cost_report
from einkorn.passes.memory_report import MemoryReport, memory_report
from einkorn.runtime.compiler import (
    build_program,
    compile_graph,
    kernel_assembly,
    kernel_sources,
)
from einkorn.runtime.executable import Executable


class Lowered:
    """What `step.lower(*args)` gives: the stages of the compilation, without running it.

        low = step.lower(x, y)
        print(low.ir("simplify"))                   # a stage as text
        print(low.diff("expand-autodiff", "dce"))   # what passes changed
        print(low.cost, low.memory, sep="\\n")       # tables, with the same as data in them
        print(low.asm())                            # the machine code of every kernel

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
        return diff(self.ir(before), self.ir(after), titles=(before, after))

    # -- code ----------------------------------------------------------------------------------

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The distinct kernels, in the order of their first use."""
        return self.program.kernels

    def source(self, target: str) -> str:
        """What a target runs: "llvm" for the kernels' LLVM text, "reference" for Python text.

        The Python text is that of the last graph before fusion; it is a module that runs.
        """
        if target == "reference":
            return self.stages["dce"].to_python()
        same = target == self._backend
        program = self.program if same else build_program(self.graph, target)
        return kernel_sources(program, target)

    def llvm_ir(self) -> str:
        """The LLVM text of every kernel, under what it computes."""
        return self.source("llvm")

    def asm(self) -> str:
        """The machine code of every kernel for this CPU, under what it computes."""
        return kernel_assembly(self.program, self._backend)

    # -- reports -------------------------------------------------------------------------------

    @cached_property
    def memory(self) -> MemoryReport:
        """The memory plan: the arena, what lies where and when, and how updates are written."""
        return memory_report(self.stages["schedule"], self.program)

    @cached_property
    def cost(self) -> CostReport:
        """Operations, bytes and estimated time of every instruction."""
        return cost_report(self.program)

    def compile(self) -> Executable:
        """The executable of this program."""
        return compile_graph(self.graph, self._backend)

    def __str__(self) -> str:
        return self.ir()
