"""Data: data sets, and loaders that cut them into batches, in an order that can be repeated."""

from einkorn.data.dataset import ArrayDataset, Dataset
from einkorn.data.loader import DataLoader

__all__ = ["ArrayDataset", "DataLoader", "Dataset"]


def __dir__() -> list[str]:
    return __all__
