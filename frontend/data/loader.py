"""`DataLoader`: a data set in batches, shuffled by our generator, read ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from einkorn.convert import as_count, as_flag
from einkorn.data.dataset import ArrayDataset, Dataset, stacked
from einkorn.ir.dtypes import uint64
from einkorn.ir.errors import EinkornError
from einkorn.random.generator import default_generator, fold_in
from einkorn.random.generator import key as key_of
from einkorn.random.ordering import permutation
from einkorn.recording import no_grad, scalar

Order = tuple[int, int]  # the key and counter of one draw


class DataLoader:
    """Iterating over it gives the batches of one epoch.

    Args:
        dataset: a `Dataset`, anything with `__len__` and `__getitem__`, or arrays.
        batch_size: the last batch of an epoch holds the rest.
        shuffle: take samples in a new random order in each epoch.
        seed: of those orders: epoch k then has the same one whenever it is run. None draws them
            from the global generator, which `ek.random.seed` starts.
        drop_last: leave out a last batch that is smaller.
        workers: how many threads read batches ahead; 0 reads in the thread that asks.
        prefetch: how many batches each of them may be ahead.

    Attributes:
        epoch: how many epochs were begun; with a seed, the next one's order belongs to it.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        workers: int = 0,
        prefetch: int = 2,
    ) -> None:
        self.dataset = _as_dataset(dataset)
        self.batch_size = as_count("DataLoader", "batch_size", batch_size, 1)
        self.shuffle = as_flag("DataLoader", "shuffle", shuffle)
        self.drop_last = as_flag("DataLoader", "drop_last", drop_last)
        self.workers = as_count("DataLoader", "workers", workers, 0)
        self.prefetch = as_count("DataLoader", "prefetch", prefetch, 1)
        self._seed = None if seed is None else key_of(seed)
        self.epoch = 0

    def __len__(self) -> int:
        count = len(self.dataset)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        return self.batches(self.new_order())

    def new_order(self) -> Order | None:
        """Begin an epoch: what its order is made from; None without shuffling."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        if not self.shuffle:
            return None
        with no_grad():
            if self._seed is not None:
                word, counter = fold_in(self._seed, epoch)
                return int(word.numpy()), int(counter.numpy())
            with default_generator().drawing() as (word, counter):
                return int(word.numpy()), int(counter.numpy())

    def batches(self, order: Order | None, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from number `start` on."""
        count, size = len(self.dataset), self.batch_size
        if order is None:
            chosen: Any = None
        else:
            word, counter = (scalar(uint64, number) for number in order)
            with no_grad():
                chosen = permutation(count, key=(word, counter)).numpy()
        parts = (slice(k * size, min((k + 1) * size, count)) for k in range(start, len(self)))
        wanted = (_picked(self.dataset, chosen, part) for part in parts)
        if not self.workers:
            return map(self._batch, wanted)
        return self._ahead(wanted)

    def _batch(self, indices: Any) -> Any:
        own = getattr(self.dataset, "batch", None)
        return stacked([self.dataset[int(k)] for k in indices]) if own is None else own(indices)

    def _ahead(self, wanted: Iterator[Any]) -> Iterator[Any]:
        """Batches in order, while threads read those that come next."""
        waiting: deque[Future[Any]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="einkorn-data")
        try:
            for indices in wanted:
                waiting.append(pool.submit(self._batch, indices))
                if len(waiting) > self.workers * self.prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _picked(dataset: Any, chosen: Any, part: slice) -> Any:
    if chosen is not None:
        return chosen[part]
    return part if isinstance(dataset, ArrayDataset) else np.arange(part.start, part.stop)


def _as_dataset(dataset: Any) -> Any:
    if isinstance(dataset, (Dataset, ArrayDataset)):
        return dataset
    if isinstance(dataset, (tuple, dict)) or hasattr(dataset, "__array__"):
        return ArrayDataset(*dataset) if type(dataset) is tuple else ArrayDataset(dataset)
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        return dataset
    raise EinkornError(
        f"DataLoader needs a Dataset or arrays, got {type(dataset).__name__}; what can only be "
        "iterated over is given to fit as it is"
    )
