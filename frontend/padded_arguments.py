"""Arguments whose varying axes are padded: what the trace sees, and what its program gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.arguments import Arguments
from einkorn.ir.sizes import Length, Size, plain
from einkorn.ir.types import TensorType

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class PaddedArguments(Arguments):
    """Arguments in whose kinds the sizes of padded axes are those of `ir/sizes.py`.

    Attributes:
        given: what the caller passed.
        lengths: how long each of them is in this call.
    """

    given: Arguments
    lengths: Mapping[Length, int]

    @staticmethod
    def of(given: Arguments, kinds: list[Any], lengths: Mapping[Length, int]) -> PaddedArguments:
        """The arguments of a call with other kinds."""
        return PaddedArguments(
            given.name, given.ends, kinds, given.values, given.structure, given, lengths
        )

    def at(self, type: TensorType) -> TensorType:
        """A type with the sizes of this call."""
        return type.with_shape(plain(type.shape, lambda size: size.at(self.lengths)))

    def of_call(self) -> Arguments:
        """What the program of the trace gets: padded arrays, and the lengths behind the others."""
        ends, kinds, values = [*self.ends], [*self.kinds], [*self.values]
        for k, kind in enumerate(self.kinds):
            if isinstance(kind, TensorType) and any(isinstance(n, Size) for n in kind.shape):
                shape = plain(kind.shape, lambda size: size.padded)
                ends[k], kinds[k], values[k] = _padded(ends[k], shape), kind.with_shape(shape), None
        ordered = sorted(self.lengths)
        ends += [self.lengths[length] for length in ordered]
        kinds += ["int"] * len(ordered)
        values += [None] * len(ordered)
        return Arguments(self.name, ends, kinds, values, self.structure)

    def cut(self, arrays: Sequence[Array], types: Sequence[TensorType]) -> list[Array]:
        """Results of the program without their padding."""
        found: list[Array] = []
        for array, type in zip(arrays, types):
            shape = self.at(type).shape
            if shape != array.shape:
                array = np.ascontiguousarray(array[tuple(map(slice, shape))])
            found.append(array)
        return found

    def describe_lengths(self) -> str:
        """The lengths of this call, for people."""
        return ", ".join(f"{x.name} is {n}, padded to {x.high}" for x, n in self.lengths.items())


def filling(dtype: np.dtype[Any]) -> Any:
    """What padding of a dtype holds; no result depends on it."""
    return 0


def _padded(array: Array, shape: tuple[int, ...]) -> Array:
    """A larger array with the elements of another one in front."""
    if array.shape == shape:
        return array
    larger = np.full(shape, filling(array.dtype), array.dtype)
    larger[tuple(map(slice, array.shape))] = array
    return larger
