"""Metrics: values over a stream of batches, weighted, with their state in buffers."""

from einkorn.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    TopKAccuracy,
)
from einkorn.metrics.base import Mean, MeanOverSamples, Metric, Sum
from einkorn.metrics.confusion import AUC, F1, ConfusionCounts, ConfusionMatrix, Precision, Recall
from einkorn.metrics.regression import (
    BinaryCrossEntropy,
    CrossEntropy,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    RootMeanSquaredError,
)

__all__ = [
    "AUC",
    "F1",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossEntropy",
    "CategoricalAccuracy",
    "ConfusionCounts",
    "ConfusionMatrix",
    "CrossEntropy",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanOverSamples",
    "MeanSquaredError",
    "Metric",
    "Precision",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "Sum",
    "TopKAccuracy",
]


def __dir__() -> list[str]:
    return __all__
