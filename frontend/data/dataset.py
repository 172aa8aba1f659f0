"""Data sets: samples by their number, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from einkorn.convert import to_array
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.tensor import Tensor
from einkorn.tree import alike, describe, flatten, unflatten

Array = np.ndarray[Any, Any]

MSG_LENGTHS = "{what}: all arrays have one sample for each index of axis 0, got {sizes} of them"
MSG_SAMPLES_OF = "{what}: arrays must have equally many samples (axis 0), got {sizes}"
MSG_SAMPLES = "{what}: samples have one structure and shape; got {first} and {other}"


class Dataset:
    """The base of data sets: a subclass defines `__len__` and `__getitem__`.

    A sample is an array, a number, or a nest of these; `fit` takes a pair as x and y, and a triple
    as x, y and sample_weight.
    """

    def __len__(self) -> int:
        raise EinkornError(f"{type(self).__name__} has no __len__ method: define it in the class")

    def __getitem__(self, index: int) -> Any:
        raise EinkornError(f"{type(self).__name__} has no __getitem__ method: define it")

    def batch(self, indices: Any) -> Any:
        """The samples at these indices, stacked along a new first axis."""
        return stacked([self[int(k)] for k in indices])


class ArrayDataset(Dataset):
    """Arrays, or nests of them, whose first axis counts the samples.

    Args:
        nests: of arrays of one length; one is a sample by itself, several are a tuple.
    """

    def __init__(self, *nests: Any) -> None:
        if not nests:
            raise EinkornError("ArrayDataset needs at least one array")
        parts = [as_arrays("ArrayDataset", nest) for nest in nests]
        self._ends, self._structure = flatten(parts[0] if len(parts) == 1 else tuple(parts))
        self._size = _one_length("ArrayDataset", [x for x in self._ends if x is not None])

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        return unflatten(self._structure, [None if x is None else x[index] for x in self._ends])

    def batch(self, indices: Any) -> Any:
        """The rows at these indices, or of a slice: then views."""
        return self[indices]


def as_arrays(what: str, nest: Any) -> Any:
    """A nest with NumPy arrays at its ends; a list of plain numbers is one array.

    Python floats become float32, as everywhere.
    """
    if isinstance(nest, list) and nest and _is_plain(nest):
        return to_array(nest, what=what)
    ends, structure = flatten(nest)
    return unflatten(structure, [_as_array(what, x) for x in ends])


def _is_plain(nest: Any) -> bool:
    if isinstance(nest, list):
        return all(map(_is_plain, nest))
    return isinstance(nest, (bool, int, float, np.generic))


def _as_array(what: str, x: Any) -> Any:
    if x is None or type(x) is np.ndarray:
        array = x
    elif isinstance(x, Tensor):
        array = x.numpy()
    elif hasattr(x, "__array__") or hasattr(x, "__dlpack__"):
        array = np.asarray(x)
    else:
        raise EinkornError(f"{what}: needs arrays, or nests of them, got {type(x).__name__}")
    if array is not None and array.dtype.kind not in "biufcV":
        raise EinkornError(f"{what}: needs arrays of numbers, got one of dtype {array.dtype}")
    return array


def check_lengths(what: str, **nests: Any) -> None:
    """ShapeError when arrays differ in their number of samples."""
    arrays = {name: [x for x in flatten(nest)[0] if x is not None] for name, nest in nests.items()}
    sizes = {
        name: "/".join(dict.fromkeys(str(len(x)) if x.ndim else "a scalar" for x in found))
        for name, found in arrays.items()
        if found
    }
    if len(set(sizes.values())) != 1 or not next(iter(sizes.values())).isdecimal():
        found = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "no arrays"
        raise ShapeError(MSG_SAMPLES_OF.format(what=what, sizes=found))


def _one_length(what: str, arrays: Sequence[Array]) -> int:
    sizes = sorted({len(x) if x.ndim else -1 for x in arrays})
    if len(sizes) != 1 or sizes[0] < 0:
        found = ", ".join("a scalar" if n < 0 else str(n) for n in sizes) or "none"
        raise ShapeError(MSG_LENGTHS.format(what=what, sizes=found))
    return sizes[0]


def stacked(samples: Sequence[Any]) -> Any:
    """Samples of one structure as one nest of arrays; Python floats become float32."""
    what = "a batch"
    ends, structure = flatten(samples[0])
    rows = [ends]
    for sample in samples[1:]:
        other, its = flatten(sample)
        if not alike(structure, its):
            raise ShapeError(
                MSG_SAMPLES.format(what=what, first=describe(structure), other=describe(its))
            )
        rows.append(other)
    return unflatten(structure, [_stack(what, column) for column in zip(*rows)])


def _stack(what: str, column: Sequence[Any]) -> Any:
    if all(x is None for x in column):
        return None
    if all(type(x) is float for x in column):
        return np.array(column, "float32")
    arrays = [np.asarray(x.numpy() if isinstance(x, Tensor) else x) for x in column]
    for x in arrays:
        if x.shape != arrays[0].shape:
            raise ShapeError(MSG_SAMPLES.format(what=what, first=arrays[0].shape, other=x.shape))
    return np.stack(arrays)
