"""Elegy's data sets and loaders."""

from __future__ import annotations

from typing import Any

from einkorn import data
from einkorn.data import Dataset
from einkorn.ir.errors import EinkornError

__all__ = ["DataLoader", "Dataset"]

MSG_WORKERS = "DataLoader: workers are threads, got worker_type={given!r}"


class DataLoader(data.DataLoader):
    """`ek.data.DataLoader`.

    Args:
        n_workers: how many threads read ahead.
        prefetch: how many batches each of them may be ahead.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = False,
        n_workers: int = 0,
        worker_type: str = "thread",
        prefetch: int = 1,
    ) -> None:
        if worker_type != "thread":
            raise EinkornError(MSG_WORKERS.format(given=worker_type))
        super().__init__(dataset, batch_size, shuffle=shuffle, workers=n_workers, prefetch=prefetch)
