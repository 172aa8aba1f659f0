"""Flat arguments recognised without flattening: the short way into a trace that is known.

A `Signature` says in one pass whether positional and keyword arguments are of the kinds that a
trace was made for, and gives their addresses and numbers. What it does not recognise may still be
a call of this trace (an array that is not contiguous, a number of NumPy): such a call takes the
long way through `read_arguments`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from einkorn.arguments import INT_MAX, INT_MIN, Arguments, Static
from einkorn.ir.types import TensorType
from einkorn.runtime.memory import address_of
from einkorn.tensor import Tensor
from einkorn.tree import END

# Gives the word of an argument for the tables of a call, or None for another kind of argument.
Reader = Callable[[Any], Any]

ndarray = np.ndarray
_DENSE = 0x101  # the flags of an array that is contiguous and aligned
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Signature:
    """The kinds of a trace's arguments, none of them nested or tracked."""

    __slots__ = ("_count", "_names", "_readers", "_sorted")

    def __init__(self, readers: Iterable[Reader], names: tuple[str, ...]) -> None:
        self._readers = tuple(readers)
        self._names, self._sorted = frozenset(names), names
        self._count = len(self._readers) - len(names)

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any] | None:
        """The words of the arguments in the order of a trace; None when one is of another kind."""
        if len(args) != self._count:
            return None
        if kwargs or self._names:
            if kwargs.keys() != self._names:
                return None
            args = (*args, *[kwargs[name] for name in self._sorted])
        words: list[Any] = []
        for read, x in zip(self._readers, args):
            word = read(x)
            if word is None:
                return None
            words.append(word)
        return words


def signature_of(arguments: Arguments, specialised: Mapping[int, Any]) -> Signature | None:
    """The signature of a trace; None when arguments are nested or tracked.

    Args:
        arguments: those that the trace was made for.
        specialised: the numbers among them, by position, that the trace holds for alone.
    """
    positional, named = arguments.structure[4:]
    if any(part != END for part in (*positional[4:], *named[4:])) or arguments.tracked:
        return None
    rows = enumerate(arguments.kinds)
    readers = [_reader(kind, k in specialised, specialised.get(k)) for k, kind in rows]
    return Signature(readers, named[2])


def _reader(kind: Any, is_specialised: bool, number: Any) -> Reader:
    if isinstance(kind, TensorType):
        return _array_reader(kind.dtype.numpy, kind.shape)
    if is_specialised:
        return _number_reader(number)
    if kind == "float":
        return lambda x: x if type(x) is float else None
    if kind == "int":
        return lambda x: x if type(x) is int and INT_MIN <= x <= INT_MAX else None
    return _plain_reader(kind.value) if type(kind.value) in _PLAIN else _object_reader(kind)


def _array_reader(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Reader:
    def read(x: Any) -> int | None:
        kind = type(x)
        if kind is not ndarray:
            if kind is not Tensor or x._record is not None or x._weak or x._array is None:
                return None
            x = x._array
        if x.dtype is not dtype or x.shape != shape or x.flags.num & _DENSE != _DENSE:
            return None
        return address_of(x)

    return read


def _number_reader(number: Any) -> Reader:
    """A number that is part of the trace: the same to the bit."""
    kind, shown = type(number), repr(number)
    return lambda x: x if type(x) is kind and repr(x) == shown else None


def _plain_reader(value: Any) -> Reader:
    kind, shown = type(value), repr(value)
    return lambda x: 0 if x is value or (type(x) is kind and repr(x) == shown) else None


def _object_reader(static: Static) -> Reader:
    """The object itself, which is not kept alive."""
    return lambda x: 0 if x is not None and x is static.value else None
