"""The arguments of a compiled call: what is an input, what is a run-time scalar, what is static."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.convert import to_array
from einkorn.ir.dtypes import DType, as_dtype
from einkorn.ir.errors import EinkornError
from einkorn.ir.types import TensorType
from einkorn.leaf import Leaf
from einkorn.number import Number
from einkorn.recording import Record, Value, current_region, current_trace, result
from einkorn.runtime.memory import address_of
from einkorn.tensor import Tensor
from einkorn.tree import flatten, paths, unflatten

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1

_dtypes: dict[Any, DType] = {}


def _record_of(value: Value | None) -> Record | None:
    """The record of an argument where a function runs eagerly, perhaps in a region of its own."""
    record = None if value is None else value._tracked()
    if record is None or value is None:
        return None
    value._lend()
    region = current_region.get()
    return record if region is None else region.argument(record)


def _is_tracked(trace: Any, value: Value) -> bool:
    """Whether an argument of a function being traced is tracked where it is called."""
    if trace.outer is not None:
        return trace.outer.tracks(value)
    return value._tracked() is not None


_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)
_CHANGING = (list, dict, set, bytearray, np.ndarray, Value)

MSG_CHANGING = (
    "{name}: a static argument is a constant of the trace, and a {kind} can change; pass a tuple "
    "{instead}"
)


class Fixed:
    """Says of the argument inside that it is static, whatever it is."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _plain_key(value: Any) -> Any:
    """What plain values that are equal have in common; None for any other object."""
    if isinstance(value, _PLAIN) and type(value) is not Number:  # whose text is part of a trace
        return (type(value), repr(value))
    if not isinstance(value, tuple):
        return None
    parts = tuple([_plain_key(item) for item in value])
    return None if None in parts else (type(value), parts)


class Static:
    """A static argument in a key: equal by identity, or by type and value for plain values.

    Of other objects it holds a weak reference where they allow one: a trace keeps no model alive.
    """

    __slots__ = ("_held", "_key", "_weak")

    def __init__(self, value: Any) -> None:
        plain = _plain_key(value)
        self._key = id(value) if plain is None else plain
        self._held, self._weak = value, None
        if plain is None:
            try:
                self._held, self._weak = None, weakref.ref(value)
            except TypeError:  # an object of a class with slots stays
                pass

    @property
    def value(self) -> Any:
        """The argument; None when it is gone."""
        return self._held if self._weak is None else self._weak()

    @property
    def is_weak(self) -> bool:
        """Whether it does not keep the argument alive."""
        return self._weak is not None

    @property
    def gone(self) -> bool:
        """Whether no call can have this argument any more."""
        return self._weak is not None and self._weak() is None

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        # The number of an object that is gone can be that of a new one.
        if not isinstance(other, Static) or self._key != other._key:
            return False
        return not self.gone and not other.gone


@dataclass(slots=True)
class Arguments:
    """One call's arguments, flattened.

    Attributes:
        ends: every end of the nest: arrays as NumPy arrays, numbers, static objects.
        kinds: for each end its TensorType (arrays), "float", "int", or a Static.
        values: for each end the Tensor it was given as, if it was one.
        structure: how the ends are nested.
    """

    name: str
    ends: list[Any]
    kinds: list[Any]
    values: list[Any]
    structure: Any

    @property
    def tracked(self) -> tuple[int, ...]:
        """The positions of the ends that are tracked."""
        rows = enumerate(self.values)
        return tuple([k for k, x in rows if x is not None and x._tracked() is not None])

    @property
    def key(self) -> Any:
        """What has to be equal for a trace to be used again: kinds, and which ends are tracked."""
        return (self.structure, tuple(self.kinds), self.tracked)

    @property
    def passed(self) -> Arguments:
        """The arguments as the caller passed them."""
        return self

    def of_call(self) -> Arguments:
        """What the program of a trace gets."""
        return self

    def explained(self) -> AbstractContextManager[None]:
        """Within the block errors of a call are told what belongs to its arguments."""
        return nullcontext()

    def words(self) -> list[Any]:
        """For each end its address, its number, or 0 when it is static."""
        return [
            address_of(end) if isinstance(kind, TensorType) else end if isinstance(kind, str) else 0
            for end, kind in zip(self.ends, self.kinds)
        ]

    def describe(self) -> str:
        """The kinds of arguments, for people."""
        return ", ".join(
            repr(kind.value) if isinstance(kind, Static) else str(kind) for kind in self.kinds
        )

    def eager(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with tensors in place of arrays, as a traced function sees them.

        Each tensor is another object, and in a region another param, however often it was passed.
        """
        replaced = [
            end if not isinstance(kind, TensorType)
            else result(kind, end.copy() if value is None else end, record=_record_of(value))
            for end, kind, value in zip(self.ends, self.kinds, self.values)
        ]  # fmt: skip
        return unflatten(self.structure, replaced)

    def own(self) -> None:
        """Copy arrays that belong to the caller, who may write to them: a recording keeps them."""
        for k, (kind, value) in enumerate(zip(self.kinds, self.values)):
            if isinstance(kind, TensorType) and value is None:
                self.ends[k] = self.ends[k].copy()

    def tensors(self) -> Iterable[Tensor]:
        """The ends that are inputs of a nested trace: tensors, in order."""
        for end, kind, value in zip(self.ends, self.kinds, self.values):
            if isinstance(kind, TensorType):
                yield value if value is not None else result(kind, end)

    def labels(self, names: Sequence[str]) -> list[str]:
        """A name for each end: its parameter's, and the way to it in a nested argument.

        Args:
            names: of the parameters; one that takes any number of arguments has a star in front.
        """
        labels: list[str] = []
        stars = [k for k, name in enumerate(names) if name.startswith("*")]
        for side, key, *rest in paths(self.structure):
            if side == 1:
                head = (key,)
            elif stars and key >= stars[0] and not names[stars[0]].startswith("**"):
                head = (names[stars[0]][1:], key - stars[0])
            else:
                head = (names[key] if key < len(names) else f"arg{key}",)
            labels.append(".".join(map(str, (*head, *rest))))
        return labels

    def objects(self, names: Sequence[str]) -> dict[str, Any]:
        """The arguments that are passed on as they are, by the names of their parameters."""
        found: dict[str, Any] = {}
        rows = zip(paths(self.structure), self.ends, self.kinds)
        for (side, key, *rest), end, kind in rows:
            if isinstance(kind, Static) and not rest and (side == 1 or key < len(names)):
                name: Any = key if side == 1 else names[key]
                found[name] = end
        return found

    def traced(self, trace: Any, names: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with inputs of `trace` in place of tensors and numbers.

        Args:
            trace: where the inputs belong.
            names: the names of the positional parameters, for printed IR.
        """
        replaced: list[Any] = []
        rows = zip(self.labels(names), self.ends, self.kinds, self.values)
        for label, end, kind, value in rows:
            if isinstance(kind, TensorType):
                tracks = value is not None and _is_tracked(trace, value)
                replaced.append(trace.argument(kind, label, tracks=tracks))
            elif isinstance(kind, str) and trace.outer is None:
                type_ = TensorType(as_dtype("float64" if kind == "float" else "int64"), ())
                replaced.append(trace.argument(type_, label, number=end))
            else:
                replaced.append(end)
        return unflatten(self.structure, replaced)


def is_gone(key: Any) -> bool:
    """Whether a key names an object that is gone, so that no call can have it."""
    return key is None or any(isinstance(kind, Static) and kind.gone for kind in key[0][1])


def objects_of(key: Any) -> list[Any]:
    """The objects that a key names and does not keep alive."""
    held = [kind.value for kind in key[0][1] if isinstance(kind, Static) and kind.is_weak]
    return [x for x in held if x is not None]


def read_arguments(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], static: frozenset[int | str]
) -> Arguments:
    """Flatten and classify the arguments of a call."""
    if static:
        args = tuple(_fixed(name, x) if k in static else x for k, x in enumerate(args))
        kwargs = {k: _fixed(name, x) if k in static else x for k, x in kwargs.items()}
    if len(kwargs) > 1:
        kwargs = dict(sorted(kwargs.items()))
    ends, structure = flatten((args, kwargs))
    kinds: list[Any] = []
    values: list[Any] = []
    for k, end in enumerate(ends):
        array, kind, value = _classify(name, end)
        ends[k] = array
        kinds.append(kind)
        values.append(value)
    return Arguments(name, ends, kinds, values, structure)


def _fixed(name: str, value: Any) -> Fixed:
    if isinstance(value, _CHANGING) and not isinstance(value, Leaf):
        listed = isinstance(value, (list, set, bytearray))
        instead = "of its items" if listed else "of what the trace needs, or leave it an input"
        raise EinkornError(
            MSG_CHANGING.format(name=name, kind=type(value).__name__, instead=instead)
        )
    return Fixed(value)


def _classify(name: str, end: Any) -> tuple[Any, Any, Any]:
    """(what to pass on, its kind, the Tensor it is)."""
    if isinstance(end, Value):
        if type(end) is Number or isinstance(end, Leaf):
            return end, Static(end), None
        array = end._array
        if array is None and current_trace.get() is None:
            end._eager()  # refuses: a tensor of a trace that is over
        if array is not None and not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        return array, end._type, end
    kind = type(end)
    if kind is np.ndarray:
        return _array(name, end)
    if kind is float:
        return end, "float", None
    if kind is int:
        # One that does not fit a word computes as Python's own: it is part of the trace.
        return end, "int" if INT_MIN <= end <= INT_MAX else Static(end), None
    if isinstance(end, Fixed):
        return end.value, Static(end.value), None
    if isinstance(end, (np.ndarray, np.generic)):
        return _array(name, np.asarray(end))
    return end, Static(end), None


def _array(name: str, array: Any) -> tuple[Any, Any, Any]:
    dtype = _dtypes.get(array.dtype)
    if dtype is None or not array.flags.c_contiguous or not array.flags.aligned:
        array = to_array(array, what=name)
        dtype = _dtypes.setdefault(array.dtype, as_dtype(array.dtype))
    return array, TensorType(dtype, array.shape), None
