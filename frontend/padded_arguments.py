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


class Plan:
    """How arguments of some kinds are padded.

    Attributes:
        kinds: what a trace is made for; sizes of padded axes are those of `ir/sizes.py`.
        settled: the kinds as part of a key, where sizes are compared as expressions.
        longest: what the program of the trace gets: padded arrays, and then the lengths.
        lengths: how long each of them is.
    """

    __slots__ = ("kinds", "lengths", "longest", "settled")

    def __init__(self, kinds: list[Any], lengths: Mapping[Length, int]) -> None:
        self.kinds, self.lengths = kinds, lengths
        self.settled = tuple(
            (kind.dtype, plain(kind.shape, lambda size: size.terms)) if _is_padded(kind) else kind
            for kind in kinds
        )
        self.longest = [*map(_longest, kinds), *["int"] * len(lengths)]


@dataclass(slots=True)
class PaddedArguments(Arguments):
    """Arguments whose kinds are those of a plan.

    Attributes:
        given: what the caller passed.
        plan: how it is padded.
    """

    given: Arguments
    plan: Plan

    @staticmethod
    def of(given: Arguments, plan: Plan) -> PaddedArguments:
        """The arguments of a call, to be padded."""
        rest = given.values, given.structure
        return PaddedArguments(given.name, given.ends, plan.kinds, *rest, given, plan)

    @property
    def lengths(self) -> Mapping[Length, int]:
        """How long each length is in this call."""
        return self.plan.lengths

    @property
    def key(self) -> Any:
        return (self.structure, self.plan.settled, self.tracked)

    @property
    def passed(self) -> Arguments:
        return self.given

    def at(self, type: TensorType) -> TensorType:
        """A type with the sizes of this call."""
        if not has_size(type.shape):
            return type
        return type.with_shape(plain(type.shape, lambda size: size.at(self.lengths)))

    def of_call(self) -> Arguments:
        """What the program of the trace gets: padded arrays, and the lengths behind the others."""
        plan, ends, values = self.plan, [*self.ends], [*self.values]
        for k, (kind, longest) in enumerate(zip(plan.kinds, plan.longest)):
            if longest is not kind:
                ends[k], values[k] = _padded(ends[k], longest.shape), None
        ends += [plan.lengths[length] for length in sorted(plan.lengths)]
        values += [None] * len(plan.lengths)
        return Arguments(self.name, ends, plan.longest, values, self.structure)

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
