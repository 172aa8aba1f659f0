"""Data sets and loaders: batches, orders that can be repeated, threads that read ahead."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn.data import ArrayDataset, DataLoader, Dataset


class Squares(Dataset):
    """Pairs of a number and its square."""

    def __init__(self, size: int) -> None:
        self.size, self.threads = size, set()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        self.threads.add(threading.current_thread().name)
        if index == 13:
            raise ValueError("sample 13 is broken")
        return {"x": np.full(2, index), "half": index / 2}, index**2


def numbers(batches: Any) -> list[list[int]]:
    return [[int(x) for x in batch] for batch in batches]


def test_batches_in_order_and_the_rest() -> None:
    assert numbers(DataLoader(np.arange(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    loader = DataLoader(np.arange(7), 3, drop_last=True)
    assert numbers(loader) == [[0, 1, 2], [3, 4, 5]]
    assert len(loader) == 2
    assert len(DataLoader(np.arange(7), 3)) == 3


def test_arrays_in_nests() -> None:
    data = ArrayDataset({"a": np.arange(4), "b": [np.ones((4, 2)), None]}, [5, 6, 7, 8])
    (x, y), (_, last) = DataLoader(data, 3)
    assert (x["a"].tolist(), x["b"][0].shape, x["b"][1]) == ([0, 1, 2], (3, 2), None)
    assert (y.tolist(), last.tolist()) == ([5, 6, 7], [8])
    assert data[1][1] == 6
    assert np.shares_memory(next(iter(DataLoader(np.zeros(4), 2))), np.zeros(4)) is False
    array = np.zeros(4)
    assert np.shares_memory(next(iter(DataLoader(array, 2))), array)


def test_a_seed_gives_the_same_epochs_again() -> None:
    first, second = (DataLoader(np.arange(50), 8, shuffle=True, seed=3) for _ in range(2))
    orders = [numbers(first) for _ in range(2)]
    assert orders == [numbers(second) for _ in range(2)]
    assert orders[0] != orders[1]
    for order in orders:
        assert sorted(x for batch in order for x in batch) == list(range(50))
    second.epoch = 1
    assert numbers(second) == orders[1]


def test_without_a_seed_the_global_generator_decides() -> None:
    loader = DataLoader(np.arange(30), 30, shuffle=True)
    ek.random.seed(5)
    orders = numbers([*loader, *loader])
    ek.random.seed(5)
    assert orders == numbers([*loader, *loader])
    assert orders[0] != orders[1]


def test_an_epoch_can_begin_in_the_middle() -> None:
    loader = DataLoader(np.arange(30), 4, shuffle=True, seed=0)
    order = loader.new_order()
    whole = numbers(loader.batches(order))
    assert numbers(loader.batches(order, start=3)) == whole[3:]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_threads_give_the_same_batches(workers: int) -> None:
    data = Squares(12)
    loader = DataLoader(data, 5, workers=workers, prefetch=1)
    for start, (x, y) in zip((0, 5, 10), loader):
        size = min(5, 12 - start)
        assert x["x"].shape == (size, 2)
        assert x["half"].dtype == np.float32
        assert y.tolist() == [k**2 for k in range(start, start + size)]
    here = threading.current_thread().name
    assert (here in data.threads) == (workers == 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_samples_come_out(workers: int) -> None:
    batches = iter(DataLoader(Squares(20), 5, workers=workers))
    next(batches)
    next(batches)
    with pytest.raises(ValueError, match="sample 13 is broken"):
        next(batches)


def test_threads_end_with_the_iterator() -> None:
    batches = iter(DataLoader(Squares(12), 1, workers=2))
    next(batches)
    batches.close()  # type: ignore[attr-defined] # a generator
    for thread in threading.enumerate():
        if thread.name.startswith("einkorn-data"):
            thread.join(5)
            assert not thread.is_alive()


class Uneven(Squares):
    def __getitem__(self, index: int) -> Any:
        return np.zeros(index)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataLoader(np.arange(3), 0), "batch_size is at least 1"),
        (lambda: DataLoader(np.arange(3), 2.5), "batch_size is an integer"),
        (lambda: DataLoader(np.arange(3), workers=-1), "workers is at least 0"),
        (lambda: DataLoader(np.arange(3), shuffle=1), "shuffle"),
        (lambda: DataLoader(x for x in "ab"), "can only be iterated over"),
        (lambda: ArrayDataset(), "at least one array"),
        (lambda: ArrayDataset(np.zeros(3), np.zeros(4)), "got 3, 4"),
        (lambda: ArrayDataset(np.float32(3)), "got a scalar"),
        (lambda: ArrayDataset(np.array(["a"])), "arrays of numbers"),
        (lambda: next(iter(DataLoader(Uneven(4), 2))), "one structure and shape"),
        (lambda: len(Dataset()), "has no __len__"),
    ],
)
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ek.EinkornError, match=message):
        make()
