"""Metrics of numbers: errors of predictions, and losses as metrics."""

from __future__ import annotations

from typing import Any

from einkorn.functions import elementwise as ew
from einkorn.functions.losses import cross_entropy
from einkorn.functions.manipulation import to_shape
from einkorn.functions.more_losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
)
from einkorn.ir.errors import EinkornError
from einkorn.metrics.base import MeanOverSamples, paired, wide
from einkorn.tensor import Tensor


def _difference(metric: MeanOverSamples, y_pred: Any, y_true: Any) -> tuple[Tensor, Tensor]:
    """The errors and the targets, in float64."""
    what = type(metric).__name__
    pred, true = paired(what, y_pred, y_true)
    target = wide(what, true)
    return ew.subtract(wide(what, pred), target), target


class MeanSquaredError(MeanOverSamples):
    """The mean of (y_pred - y_true)**2."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        error, _ = _difference(self, y_pred, y_true)
        return ew.multiply(error, error)


class RootMeanSquaredError(MeanSquaredError):
    """The square root of the mean of (y_pred - y_true)**2."""

    def compute(self) -> Tensor:
        return ew.sqrt(super().compute())


class MeanAbsoluteError(MeanOverSamples):
    """The mean of abs(y_pred - y_true)."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        return ew.abs(_difference(self, y_pred, y_true)[0])


class MeanAbsolutePercentageError(MeanOverSamples):
    """The mean of 100 * abs(y_pred - y_true) / max(abs(y_true), 1e-7)."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        error, true = _difference(self, y_pred, y_true)
        return ew.multiply(ew.divide(ew.abs(error), ew.maximum(ew.abs(true), 1e-7)), 100)


class BinaryCrossEntropy(MeanOverSamples):
    """The mean of -(y_true * log(y_pred) + (1 - y_true) * log(1 - y_pred)).

    Args:
        from_logits: whether predictions are logits instead of probabilities.
    """

    def __init__(
        self, from_logits: bool = False, *, name: str | None = None, on: Any = None
    ) -> None:
        super().__init__(name=name, on=on)
        if not isinstance(from_logits, bool):
            raise EinkornError(
                f"BinaryCrossEntropy: from_logits is True or False, got {from_logits!r}"
            )
        self.from_logits = from_logits

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        what = type(self).__name__
        pred, true = paired(what, y_pred, y_true)
        loss = binary_cross_entropy_with_logits if self.from_logits else binary_cross_entropy
        return loss(wide(what, pred), wide(what, true), reduction="none")


class CrossEntropy(MeanOverSamples):
    """The mean of `ek.nn.cross_entropy`: logits along the last axis, classes or probabilities."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        what = type(self).__name__
        logits, true = ew.stop_gradient(y_pred), ew.stop_gradient(y_true)
        if true.shape == (*logits.shape[:-1], 1):
            true = to_shape(true, logits.shape[:-1])
        target = true if true.dtype.is_integer else wide(what, true)
        return cross_entropy(wide(what, logits), target, reduction="none")
