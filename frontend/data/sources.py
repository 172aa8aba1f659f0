"""What `fit` and its like take batches from: arrays, loaders, iterables and generators."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from einkorn.convert import as_count
from einkorn.data.dataset import ArrayDataset, Dataset, as_arrays, check_lengths
from einkorn.data.loader import DataLoader, Order
from einkorn.ir.errors import EinkornError
from einkorn.recording import Value
from einkorn.tree import flatten, unflatten

Batch = tuple[Any, Any, Any]

MSG_BATCH = (
    "a batch is x, or a tuple (x, y) or (x, y, sample_weight), got a tuple of {count}; put several "
    "inputs into a tuple or dict of their own: ((x1, x2), y)"
)
MSG_NO_Y = "{what}: {name} goes with arrays; {kind} gives it in its batches: (x, y, sample_weight)"
MSG_ENDLESS = (
    "{what}: the generator has given all its batches; pass a function that makes a new one, a list "
    "or a DataLoader, or give a generator without end and steps_per_epoch"
)


class Source(Protocol):
    """Where batches come from.

    Attributes:
        steps: how many an epoch has; None when it is not known.
    """

    steps: int | None

    def new_order(self) -> Order | None:
        """Begin an epoch: what its order is made from."""
        ...

    def seek(self, epoch: int) -> None:
        """Say which epoch begins next."""
        ...

    def peek(self) -> Batch:
        """The first batch, which is given again."""
        ...

    def batches(self, order: Order | None, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on."""
        ...


class LoaderSource:
    """The batches of a `DataLoader`."""

    def __init__(self, loader: DataLoader, parts: int | None = None) -> None:
        self._loader, self._parts = loader, parts
        self.steps: int | None = len(loader)
        self.new_order = loader.new_order

    def peek(self) -> Batch:
        """The first samples in order."""
        return next(self.batches(None, 0))

    def seek(self, epoch: int) -> None:
        """The epoch that begins next."""
        self._loader.epoch = epoch

    def batches(self, order: Order | None, start: int) -> Iterator[Batch]:
        found = self._loader.batches(order, start)
        return found if self._parts == 3 else map(unpacked, found)


class IterableSource:
    """The batches of what can be iterated over: each epoch begins anew, but for a generator.

    Args:
        data: an iterable, an iterator, or a function that returns one.
    """

    def __init__(self, what: str, data: Any) -> None:
        self._what = what
        self._data: Any = data
        self._is_once = not callable(data) and iter(data) is data
        self._is_used = False
        self._head: list[Any] = []  # a batch that was looked at already
        self.steps: int | None = _size(data)

    def new_order(self) -> Order | None:
        return None

    def seek(self, epoch: int) -> None:
        """Nothing: what is iterated over has an order of its own."""

    def batches(self, order: Order | None, start: int) -> Iterator[Batch]:
        if self._is_once:
            self._head = self._head or list(itertools.islice(self._data, 1))
            if not self._head and self._is_used:
                raise EinkornError(MSG_ENDLESS.format(what=self._what))
            found, self._head, self._is_used = self._chained(self._head), [], True
        else:
            found = itertools.islice(self._anew(), start, None)
        return map(unpacked, found)

    def _anew(self) -> Any:
        data: Any = self._data
        return data() if callable(data) else data

    def _chained(self, head: list[Any]) -> Iterator[Any]:
        return itertools.chain(head, self._data)

    def peek(self) -> Batch:
        """The first batch, which is given again."""
        if self._is_once:
            self._head = self._head or list(itertools.islice(self._data, 1))
            found = iter(self._head)
        else:
            found = iter(self._anew())
        batch = next(found, None)
        if batch is None:
            raise EinkornError(f"{self._what}: there were no batches")
        return unpacked(batch)


def _size(data: Any) -> int | None:
    return len(data) if hasattr(data, "__len__") else None


def unpacked(batch: Any) -> Batch:
    """x, y and sample_weight of a batch, with arrays that a compiled step takes."""
    if isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
        if not 1 <= len(batch) <= 3:
            raise EinkornError(MSG_BATCH.format(count=len(batch)))
        x, y, weight = (*map(_usable, batch), *(None,) * (3 - len(batch)))
        return x, y, weight
    return _usable(batch), None, None


def _usable(x: Any) -> Any:
    if x is None or type(x) is np.ndarray or isinstance(x, Value):
        return x
    ends, structure = flatten(x)
    if all(end is None or isinstance(end, (np.ndarray, Value)) for end in ends):
        return x
    taken = [end if isinstance(end, Value) else as_arrays("a batch", end) for end in ends]
    return unflatten(structure, taken)


def source_of(
    what: str,
    x: Any,
    y: Any,
    sample_weight: Any,
    batch_size: int | None,
    shuffle: bool,
    drop_last: bool = False,
) -> Source:
    """Where the batches of a call come from.

    Args:
        what: the method that is called, for errors.
    """
    other = _other_source(what, x)
    if other is not None:
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None:
                kind = type(x).__name__
                raise EinkornError(MSG_NO_Y.format(what=what, name=name, kind=kind))
        return other
    x, y, sample_weight = (as_arrays(what, nest) for nest in (x, y, sample_weight))
    check_lengths(what, x=x, y=y, sample_weight=sample_weight)
    dataset = ArrayDataset(x, y, sample_weight)
    if not len(dataset):
        raise EinkornError(f"{what}: there are no samples: the arrays have length 0")
    size = 32 if batch_size is None else as_count(what, "batch_size", batch_size, 1)
    loader = DataLoader(dataset, size, shuffle=shuffle, drop_last=drop_last)
    if not len(loader):
        raise EinkornError(f"{what}: {len(dataset)} samples make no batch of {size}")
    return LoaderSource(loader, parts=3)


def is_arrays(x: Any) -> bool:
    """Whether `x` is arrays, and not something that has batches."""
    return not (isinstance(x, (DataLoader, Dataset)) or _is_maker(x) or _is_batches(x))


def _is_maker(x: Any) -> bool:
    return callable(x) and not hasattr(x, "__array__")


def _other_source(what: str, x: Any) -> Source | None:
    """The source for anything but arrays."""
    if isinstance(x, DataLoader):
        return LoaderSource(x)
    if isinstance(x, Dataset):
        raise EinkornError(f"{what}: cut a Dataset into batches: ek.data.DataLoader(dataset, 32)")
    if _is_maker(x) or _is_batches(x):
        return IterableSource(what, x)
    return None


def _is_batches(x: Any) -> bool:
    """Whether `x` is an iterable of batches, and no array or nest of arrays.

    A list of tuples is: of arrays only, it is several inputs.
    """
    if x is None:
        raise EinkornError("there is no data: x is None")
    if isinstance(x, list):
        return bool(x) and all(isinstance(item, tuple) for item in x)
    plain = isinstance(x, (tuple, dict, Value, np.ndarray, str, bytes)) or hasattr(x, "__array__")
    return not plain and hasattr(x, "__iter__")
