"""The arguments of a compiled call: what is an input, what is a run-time scalar, what is static."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.convert import to_array
from einkorn.ir.dtypes import DType, as_dtype
from einkorn.ir.errors import DTypeError
from einkorn.ir.types import TensorType
from einkorn.leaf import Leaf
from einkorn.recording import Value, current_trace, result
from einkorn.tensor import Tensor
from einkorn.tree import flatten, paths, unflatten

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1

_dtypes: dict[Any, DType] = {}


class Static:
    """A static argument in a key: equal by identity, or by type and value for plain values."""

    __slots__ = ("_key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        plain = isinstance(value, (bool, int, float, str, bytes, type(None)))
        self._key = (type(value), repr(value)) if plain else id(value)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._key == other._key


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
    def key(self) -> Any:
        """What has to be equal for a trace to be used again."""
        return (self.structure, tuple(self.kinds))

    def describe(self) -> str:
        """The kinds of arguments, for people."""
        return ", ".join(
            repr(kind.value) if isinstance(kind, Static) else str(kind) for kind in self.kinds
        )

    def eager(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with tensors in place of arrays, as a traced function sees them."""
        replaced = [
            result(kind, end.copy()) if isinstance(kind, TensorType) and value is None
            else end if value is None else value
            for end, kind, value in zip(self.ends, self.kinds, self.values)
        ]  # fmt: skip
        return unflatten(self.structure, replaced)

    def tensors(self) -> Iterable[Tensor]:
        """The ends that are inputs of a nested trace: tensors, in order."""
        for end, kind, value in zip(self.ends, self.kinds, self.values):
            if isinstance(kind, TensorType):
                yield value if value is not None else result(kind, end)

    def _labels(self, names: Sequence[str]) -> list[str]:
        """A name for each end: its parameter's, and the way to it in a nested argument."""
        labels: list[str] = []
        for side, key, *rest in paths(self.structure):
            known = side == 1 or key < len(names)
            head = (key if side == 1 else names[key]) if known else f"arg{key}"
            labels.append(".".join(map(str, (head, *rest))))
        return labels

    def traced(self, trace: Any, names: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with inputs of `trace` in place of tensors and numbers.

        Args:
            trace: where the inputs belong.
            names: the names of the positional parameters, for printed IR.
        """
        replaced: list[Any] = []
        for label, end, kind in zip(self._labels(names), self.ends, self.kinds):
            if isinstance(kind, TensorType):
                replaced.append(trace.argument(kind, label))
            elif isinstance(kind, str) and trace.outer is None:
                type_ = TensorType(as_dtype("float64" if kind == "float" else "int64"), ())
                replaced.append(trace.argument(type_, label, number=end))
            else:
                replaced.append(end)
        return unflatten(self.structure, replaced)


def read_arguments(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], static: frozenset[int | str]
) -> Arguments:
    """Flatten and classify the arguments of a call."""
    if static:
        args = tuple(Static(x) if k in static else x for k, x in enumerate(args))
        kwargs = {k: Static(x) if k in static else x for k, x in kwargs.items()}
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


def _classify(name: str, end: Any) -> tuple[Any, Any, Any]:
    """(what to pass on, its kind, the Tensor it is)."""
    if isinstance(end, Value):
        if isinstance(end, Leaf) or end._weak:
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
        if not INT_MIN <= end <= INT_MAX:
            raise DTypeError(f"{name}: the integer {end} does not fit 64 bits; make it static")
        return end, "int", None
    if isinstance(end, Static):
        return end.value, end, None
    if isinstance(end, (np.ndarray, np.generic)):
        return _array(name, np.asarray(end))
    return end, Static(end), None


def _array(name: str, array: Any) -> tuple[Any, Any, Any]:
    dtype = _dtypes.get(array.dtype)
    if dtype is None or not array.flags.c_contiguous or not array.flags.aligned:
        array = to_array(array, what=name)
        dtype = _dtypes.setdefault(array.dtype, as_dtype(array.dtype))
    return array, TensorType(dtype, array.shape), None
