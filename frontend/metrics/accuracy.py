"""How often predictions are right."""

from __future__ import annotations

from typing import Any

from einkorn.convert import as_int, as_number, as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.manipulation import to_shape
from einkorn.functions.statistical import argmax
from einkorn.functions.statistical import sum as sum_over
from einkorn.ir.dtypes import bool_, float64, int64
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.ir.ops import Op
from einkorn.metrics.base import MeanOverSamples, above, paired, wide
from einkorn.recording import apply
from einkorn.tensor import Tensor

MSG_LABELS = (
    "{what}: for scores {scores} with classes along the last axis, y_true is integers of shape "
    "{shape} or one-hot of shape {full}, got {true}"
)


def classes_of(what: str, scores: Tensor, y_true: Any) -> Tensor:
    """Class labels int64 [...] for scores [..., classes], from labels or one-hot vectors."""
    true = ew.stop_gradient(as_tensor(y_true, what))
    shape = scores.shape[:-1]
    labels = true.dtype.is_integer and true.shape in (shape, (*shape, 1))
    if scores.ndim == 0 or not (labels or true.shape == scores.shape):
        raise ShapeError(
            MSG_LABELS.format(
                what=what, scores=scores._type, shape=shape, full=scores.shape, true=true._type
            )
        )
    if labels:
        return ew.astype(to_shape(true, shape), int64)
    return argmax(ew.astype(true, float64) if true.dtype is bool_ else true, axis=-1)


def scores_of(what: str, y_pred: Any) -> Tensor:
    """Scores [..., classes], without gradient."""
    scores = ew.stop_gradient(as_tensor(y_pred, what))
    if scores.ndim == 0 or scores.dtype is bool_:
        raise ShapeError(f"{what}: y_pred has classes along its last axis, got {scores._type}")
    return scores


def binary_hits(what: str, y_pred: Any, y_true: Any, threshold: float) -> Tensor:
    """Whether both are above the threshold or both are not; targets count from 1/2 on."""
    pred, true = paired(what, y_pred, y_true)
    return ew.equal(above(what, pred, threshold), above(what, true, 0.5))


class BinaryAccuracy(MeanOverSamples):
    """The share of predictions on the right side of a threshold.

    Args:
        threshold: predictions above it mean 1; use 0 for logits.
    """

    def __init__(self, threshold: float = 0.5, *, name: str | None = None, on: Any = None) -> None:
        super().__init__(name=name, on=on)
        self.threshold = float(as_number(type(self).__name__, threshold))

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        return binary_hits(type(self).__name__, y_pred, y_true, self.threshold)


class SparseCategoricalAccuracy(MeanOverSamples):
    """The share of samples whose class has the largest score: integer labels."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        what = type(self).__name__
        scores = scores_of(what, y_pred)
        return ew.equal(argmax(scores, axis=-1), classes_of(what, scores, y_true))


class CategoricalAccuracy(SparseCategoricalAccuracy):
    """The share of samples whose class has the largest score: one-hot targets."""


class Accuracy(MeanOverSamples):
    """The share of right predictions, whatever their form.

    Integer or boolean predictions are compared as they are. Scores with one axis more than
    integer targets, or with targets of their own shape along a last axis of several classes, are
    right when the largest score is that of the class. Other floats are right on the side of 1/2
    on which the target is.
    """

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        what = type(self).__name__
        pred = ew.stop_gradient(as_tensor(y_pred, what))
        true = ew.stop_gradient(as_tensor(y_true, what))
        if not pred.dtype.is_float:
            left, right = paired(what, pred, true)
            return ew.equal(wide(what, left), wide(what, right))
        several = pred.ndim > 0 and pred.shape[-1] > 1
        if several and (pred.ndim > 1 or true.ndim == 0):
            return ew.equal(argmax(pred, axis=-1), classes_of(what, pred, true))
        return binary_hits(what, pred, true, 0.5)


class TopKAccuracy(MeanOverSamples):
    """The share of samples whose class is among the k largest scores.

    Of equal scores those of lower classes come first.
    """

    def __init__(self, k: int = 5, *, name: str | None = None, on: Any = None) -> None:
        super().__init__(name=name, on=on)
        self.k = as_int("TopKAccuracy", k, "k is an integer")
        if self.k < 1:
            raise EinkornError(f"TopKAccuracy: k is at least 1, got {k}")

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        what = type(self).__name__
        scores = scores_of(what, y_pred)
        labels = classes_of(what, scores, y_true)
        column = to_shape(labels, (*labels.shape, 1))
        classes = apply(Op.IOTA, size=scores.shape[-1], dtype=int64)
        own = ew.equal(column, classes)
        numbers = wide(what, scores)
        score = sum_over(ew.where(own, numbers, 0), axis=-1, keepdims=True)
        ahead = ew.bitwise_or(
            ew.greater(numbers, score),
            ew.bitwise_and(ew.equal(numbers, score), ew.less(classes, column)),
        )
        rank = sum_over(ew.astype(ahead, float64), axis=-1)
        known = ew.greater(sum_over(ew.astype(own, float64), axis=-1), 0)
        comparable = ew.equal(score, score)  # NaN is above nothing, and below nothing
        return ew.bitwise_and(
            ew.bitwise_and(ew.less(rank, self.k), known), to_shape(comparable, rank.shape)
        )
