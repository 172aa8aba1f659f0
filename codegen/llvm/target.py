"""The `llvm` target: kernel -> LLVM text -> object -> address, each found again when asked for."""

from __future__ import annotations

from einkorn.codegen.llvm import loops
from einkorn.codegen.llvm.objects import assembly, host_features, load
from einkorn.codegen.llvm.templates import TEMPLATES
from einkorn.ir.cached import cached_property
from einkorn.ir.loops import HostCall, Kernel, LoopKernel
from einkorn.ir.machine import Machine


class LlvmTarget:
    """Kernels for this machine's CPU."""

    def __init__(self) -> None:
        self._addresses: dict[Kernel | type[HostCall], int] = {}

    @property
    def machine(self) -> Machine:
        """The vector registers of this CPU."""
        return self._machine

    @cached_property
    def _machine(self) -> Machine:
        features = host_features()
        return Machine(features.lanes, features.registers)

    def text(self, kernel: Kernel) -> str:
        """The LLVM module of a kernel, with one function named "kernel"."""
        if isinstance(kernel, LoopKernel):
            return loops.generate(kernel)
        return TEMPLATES[type(kernel)](kernel, self.machine.lanes)

    def assembly(self, kernel: Kernel) -> str:
        """The machine code of a kernel, for people."""
        return assembly(self.text(kernel))

    def address(self, kernel: Kernel) -> int:
        """The address of the compiled kernel."""
        # What is called is no part of the code, and must not be kept alive by it.
        key = type(kernel) if isinstance(kernel, HostCall) else kernel
        known = self._addresses.get(key)
        if known is None:
            known = self._addresses[key] = load(self.text(kernel), "kernel")
        return known


LLVM = LlvmTarget()
