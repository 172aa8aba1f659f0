"""Elegy's initializers: those of `ek.initializers` with Elegy's names of arguments."""

from __future__ import annotations

from typing import Any

from einkorn import initializers


class RandomUniform(initializers.RandomUniform):
    """Uniform numbers in [minval, maxval)."""

    def __init__(self, minval: Any = 0.0, maxval: Any = 1.0) -> None:
        super().__init__(minval, maxval)
