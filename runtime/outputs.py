"""Output arrays that are used again once nobody can see them any more.

A result that was let go is memory the CPU still has near, without the page faults of a fresh one.
An array is taken back only when its pool holds the one reference to it: a Tensor, a recording, a
view, a memoryview and whatever else shares the memory refer to the array that owns it.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from sys import getrefcount
from typing import Any

import numpy as np

from einkorn.ir.types import TensorType
from einkorn.runtime.memory import address_of

Array = np.ndarray[Any, Any]


def _references(arrays: Sequence[Array | None]) -> list[int]:
    return list(map(getrefcount, arrays))


_ALONE = _references([np.empty(1)])[0]
# Without a GIL the count is not the whole truth.
can_count = getattr(sys, "_is_gil_enabled", lambda: True)()


class Outputs:
    """The outputs of a program that serves one call at a time.

    For each output there are up to two arrays: `loss = step(x)` still refers to the last loss
    while the step makes the next one.
    """

    __slots__ = ("_addresses", "_alone", "_arrays", "_first", "_rows", "_slots", "_spares")

    def __init__(self, types: Sequence[TensorType], slots: array[int], first: int) -> None:
        """
        Args:
            types: of the outputs.
            slots: where the addresses belong.
            first: the slot of the first output.
        """
        self._rows = [(type.shape, type.dtype.numpy) for type in types]
        self._slots, self._first = slots, first
        self._arrays = [np.empty(*row) for row in self._rows]
        self._spares: list[Array | None] = [None] * len(self._rows)
        self._alone = [_ALONE if can_count else -1] * len(self._rows)
        for k, made in enumerate(self._arrays):
            slots[first + k] = address_of(made)

    def take(self) -> list[Array]:
        """An array for each output that nobody else sees, its address in its slot."""
        if list(map(getrefcount, self._arrays)) != self._alone:
            self._exchange()
        return self._arrays.copy()

    def _exchange(self) -> None:
        """Put other arrays in the place of those that somebody sees."""
        counts = zip(_references(self._arrays), _references(self._spares))
        for k, (count, spare_count) in enumerate(counts):
            if count == self._alone[k]:
                continue
            spare = self._spares[k]
            if spare is None or spare_count != self._alone[k]:
                spare = np.empty(*self._rows[k])
            self._spares[k], self._arrays[k] = self._arrays[k], spare
            self._slots[self._first + k] = address_of(spare)
