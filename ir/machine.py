"""What passes need to know of the machine that a program is for: facts that a target states."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Facts that choose kernels. They never change a bit of a result.

    Attributes:
        lanes: float32 elements in one vector register.
        registers: how many vector registers there are.
    """

    lanes: int
    registers: int
