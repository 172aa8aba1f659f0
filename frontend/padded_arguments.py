"""Arguments whose varying axes are padded: what the trace sees, and what its program gets."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.arguments import Arguments
from einkorn.ir.errors import BoundsError
from einkorn.ir.sizes import Length, has_size, plain
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

    @property
    def key(self) -> Any:
        """That of any arguments; sizes are compared as expressions, which asks nothing of them."""
        kinds = [
            (kind.dtype, plain(kind.shape, lambda size: size.terms)) if _is_padded(kind) else kind
            for kind in self.kinds
        ]
        return (self.structure, tuple(kinds), self.tracked)

    @property
    def passed(self) -> Arguments:
        return self.given

    def at(self, type: TensorType) -> TensorType:
        """A type with the sizes of this call."""
        return type.with_shape(plain(type.shape, lambda size: size.at(self.lengths)))

    def kinds_of_call(self) -> list[Any]:
        """The kinds of what the program of the trace gets."""
        kinds = [_longest(kind) for kind in self.kinds]
        return kinds + ["int"] * len(self.lengths)

    def of_call(self) -> Arguments:
        """What the program of the trace gets: padded arrays, and the lengths behind the others."""
        kinds = self.kinds_of_call()
        ends, values = [*self.ends], [*self.values]
        for k, (kind, longest) in enumerate(zip(self.kinds, kinds)):
            if longest is not kind:
                ends[k], values[k] = _padded(ends[k], longest.shape), None
        ends += [self.lengths[length] for length in sorted(self.lengths)]
        values += [None] * len(self.lengths)
        return Arguments(self.name, ends, kinds, values, self.structure)

    @contextmanager
    def explained(self) -> Generator[None]:
        """Within the block the error of an index out of range tells which sizes there are."""
        try:
            yield
        except BoundsError as error:
            rows = self.lengths.items()
            error.add_note(", ".join(f"{x.name} is {n}, padded to {x.high}" for x, n in rows))
            raise


def _longest(kind: Any) -> Any:
    """A kind with its padded axes as long as their padding."""
    shape = plain(kind.shape, lambda size: size.padded) if _is_padded(kind) else ()
    return kind.with_shape(shape) if shape else kind


def _is_padded(kind: Any) -> bool:
    return isinstance(kind, TensorType) and has_size(kind.shape)


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
