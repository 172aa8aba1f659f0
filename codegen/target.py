"""What every compiling target fulfils, and the lookup by name."""

from __future__ import annotations

from typing import Protocol

from einkorn.codegen.llvm.target import LLVM
from einkorn.ir.errors import EinkornError
from einkorn.ir.loops import Kernel
from einkorn.ir.machine import Machine


class Target(Protocol):
    """Turns kernels into native functions of the signature in ir/loops.py."""

    @property
    def machine(self) -> Machine:
        """Facts that passes use to choose kernels."""
        ...

    def text(self, kernel: Kernel) -> str:
        """The source of a kernel in the target's language."""
        ...

    def assembly(self, kernel: Kernel) -> str:
        """The machine code of a kernel, for people."""
        ...

    def address(self, kernel: Kernel) -> int:
        """The address of the compiled kernel; compiled at the first request in this process."""
        ...


TARGETS: dict[str, Target] = {"llvm": LLVM}


def target_named(name: str) -> Target:
    """The target called `name`; EinkornError with the known names when there is none."""
    found = TARGETS.get(name)
    if found is None:
        known = ", ".join([*TARGETS, "reference"])
        raise EinkornError(f"there is no backend {name!r}; use one of {known}")
    return found
