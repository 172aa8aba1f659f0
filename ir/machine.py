"""What passes need to know of the machine that a program is for: facts that a target states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from einkorn.ir.dtypes import DType


@dataclass(frozen=True, eq=False)
class Machine:
    """Facts that choose kernels. They never change a bit of a result.

    Attributes:
        lanes: float32 elements in one vector register.
        tiles: rows and columns of the matmul micro-tile, by accumulator dtype.
    """

    lanes: int
    tiles: Mapping[DType, tuple[int, int]]
