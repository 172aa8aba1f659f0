"""Callbacks: functions of the user that a step calls on the host, in the order of the program.

A callback takes a token, one bool, and gives another; so one comes after the other, and after the
branches that lead to it. The last token is a result of the graph, so none is dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from einkorn.ir.dtypes import bool_
from einkorn.ir.errors import DTypeError, HostError
from einkorn.ir.types import TensorType, TupleType

Array = np.ndarray[Any, Any]

_numbers = itertools.count(1)


class Callback:
    """A function of the user under a number that no other one has.

    Attributes:
        function: takes arrays, gives a sequence of arrays.
        name: for people.
    """

    __slots__ = ("function", "name", "number")

    def __init__(self, function: Callable[..., Sequence[Any]], name: str) -> None:
        self.function, self.name, self.number = function, name, next(_numbers)

    def __repr__(self) -> str:
        return f"{self.name}#{self.number}"


def infer(
    *operands: TensorType, callback: Callback, results: tuple[TensorType, ...], id: int
) -> TupleType:
    """The types of the token and of the declared results; the last operand is a token."""
    token = TensorType(bool_, ())
    if not operands or operands[-1] != token:
        raise DTypeError(f"the last operand of a callback is a token, {token}")
    return TupleType((token, *results))


def run(*arrays: Array, callback: Callback, results: tuple[TensorType, ...], id: int) -> Any:
    """The token and the results of one call."""
    copies = [np.array(x) for x in arrays[:-1]]  # they may be kept; the step's memory is used again
    found = [np.asarray(x) for x in callback.function(*copies)]
    if len(found) != len(results):
        raise HostError(
            f"{callback.name} gave {len(found)} results, declared are {len(results)}; both must "
            "agree"
        )
    for x, wanted in zip(found, results):
        if x.shape != wanted.shape or x.dtype != wanted.dtype.numpy:
            got = f"{x.dtype}{list(x.shape)}"
            raise HostError(
                f"{callback.name} gave {got} where {wanted} was declared; declare what it gives, "
                "or convert there"
            )
    token = np.ones((), np.bool_)
    return [token, *found] if results else token
