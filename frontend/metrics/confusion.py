"""Metrics from counts of right and wrong positives and negatives, and the whole table of counts."""

from __future__ import annotations

from typing import Any

from einkorn.convert import as_choice, as_int, as_number, as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.creation import ones_like
from einkorn.functions.manipulation import flatten, flip, to_shape
from einkorn.functions.segments import segment_sum
from einkorn.functions.statistical import argmax, cumulative_sum
from einkorn.functions.statistical import sum as sum_over
from einkorn.ir.dtypes import float64, int64
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.metrics.accuracy import classes_of, scores_of
from einkorn.metrics.base import Metric, above, divided, paired, weights_like, wide
from einkorn.recording import no_grad
from einkorn.tensor import Tensor

MSG_CLASS = "{what}: class_id={class_id} is not among the {count} classes of y_pred {scores}"


class ConfusionCounts(Metric):
    """The (weighted) numbers of true and false positives and negatives; the base of metrics.

    Args:
        threshold: predictions above it are positive. None: the class with the largest score is,
            for which `class_id` is needed.
        class_id: look at one class only, of scores with classes along the last axis; targets are
            integer labels or one-hot.
    """

    def __init__(
        self,
        threshold: float | None = 0.5,
        class_id: int | None = None,
        *,
        name: str | None = None,
        on: Any = None,
    ) -> None:
        super().__init__(name=name, on=on)
        what = type(self).__name__
        if threshold is None and class_id is None:
            raise EinkornError(f"{what}: threshold=None needs a class_id")
        self.threshold = None if threshold is None else float(as_number(what, threshold))
        self.class_id = None if class_id is None else as_int(what, class_id)
        self.true_positives = self._ek_state("true_positives")
        self.false_positives = self._ek_state("false_positives")
        self.true_negatives = self._ek_state("true_negatives")
        self.false_negatives = self._ek_state("false_negatives")

    def _sides(self, y_pred: Any, y_true: Any) -> tuple[Tensor, Tensor]:
        """Whether each prediction and each target is positive."""
        what = type(self).__name__
        if self.class_id is None:
            pred, true = paired(what, y_pred, y_true)
            limit = self.threshold or 0.0
            return above(what, pred, limit), above(what, true, 0.5)
        scores = scores_of(what, y_pred)
        count = scores.shape[-1]
        if not 0 <= self.class_id < count:
            raise EinkornError(
                MSG_CLASS.format(
                    what=what, class_id=self.class_id, count=count, scores=scores._type
                )
            )
        if self.threshold is None:
            positive = ew.equal(argmax(scores, axis=-1), self.class_id)
        else:
            positive = above(what, scores[..., self.class_id], self.threshold)
        true = as_tensor(y_true, what)
        if true.shape == scores.shape:  # several classes may hold at once
            return positive, above(what, true[..., self.class_id], 0.5)
        return positive, ew.equal(classes_of(what, scores, true), self.class_id)

    def update(self, y_pred: Any, y_true: Any, sample_weight: Any = None) -> None:
        """Count one batch."""
        with no_grad():
            positive, true = (ew.astype(x, float64) for x in self._sides(y_pred, y_true))
            weight = weights_like(type(self).__name__, sample_weight, true)
            weight = ones_like(true) if weight is None else weight
            hit, wrong = (
                ew.multiply(positive, weight),
                ew.multiply(ew.subtract(1, positive), weight),
            )
            miss = ew.subtract(1, true)
            self._ek_add(
                true_positives=sum_over(ew.multiply(hit, true)),
                false_positives=sum_over(ew.multiply(hit, miss)),
                true_negatives=sum_over(ew.multiply(wrong, miss)),
                false_negatives=sum_over(ew.multiply(wrong, true)),
            )

    def compute(self) -> Any:
        """The four numbers, by name."""
        names = ("true_positives", "false_positives", "true_negatives", "false_negatives")
        return {name: ew.stop_gradient(getattr(self, name)) for name in names}


class Precision(ConfusionCounts):
    """True positives / all that were predicted positive; 0 when none was."""

    def compute(self) -> Tensor:
        hits = ew.stop_gradient(self.true_positives)
        return divided(hits, ew.add(hits, self.false_positives))


class Recall(ConfusionCounts):
    """True positives / all that are positive; 0 when none is."""

    def compute(self) -> Tensor:
        hits = ew.stop_gradient(self.true_positives)
        return divided(hits, ew.add(hits, self.false_negatives))


class F1(ConfusionCounts):
    """The harmonic mean of precision and recall; 0 when both are."""

    def compute(self) -> Tensor:
        twice = ew.multiply(ew.stop_gradient(self.true_positives), 2)
        return divided(twice, ew.add(ew.add(twice, self.false_positives), self.false_negatives))


class ConfusionMatrix(Metric):
    """How often samples of each class (row) were taken for each class (column).

    Predictions are integer classes or scores along the last axis, targets integer classes or
    one-hot. A class outside [0, classes) counts nowhere.

    Args:
        classes: how many there are.
        normalize: "none" for counts, "true" for shares of each row.
    """

    def __init__(
        self, classes: int, normalize: str = "none", *, name: str | None = None, on: Any = None
    ) -> None:
        super().__init__(name=name, on=on)
        self.classes = as_int("ConfusionMatrix", classes, "classes is an integer")
        if self.classes < 1:
            raise EinkornError(f"ConfusionMatrix: classes is at least 1, got {classes}")
        self.normalize = as_choice("ConfusionMatrix", "normalize", normalize, ("none", "true"))
        self.counts = self._ek_state("counts", (self.classes, self.classes))

    def update(self, y_pred: Any, y_true: Any, sample_weight: Any = None) -> None:
        """Count one batch."""
        what, n = type(self).__name__, self.classes
        with no_grad():
            pred = ew.stop_gradient(as_tensor(y_pred, what))
            if pred.dtype.is_integer:
                pred, true = paired(what, pred, y_true)
                pred, true = ew.astype(pred, int64), ew.astype(true, int64)
            else:
                true = classes_of(what, scores_of(what, pred), y_true)
                pred = argmax(pred, axis=-1)
            inside = ew.bitwise_and(_within(pred, n), _within(true, n))
            cell = ew.where(inside, ew.add(ew.multiply(true, n), pred), -1)
            weight = weights_like(what, sample_weight, wide(what, true))
            ones = ones_like(wide(what, true)) if weight is None else weight
            counts = segment_sum(flatten(ones), flatten(cell), n * n)
            self._ek_add(counts=to_shape(counts, (n, n)))

    def compute(self) -> Tensor:
        """[classes, classes], float64."""
        counts = ew.stop_gradient(self.counts)
        if self.normalize == "none":
            return counts
        return divided(counts, sum_over(counts, axis=1, keepdims=True))


def _within(x: Tensor, n: int) -> Tensor:
    return ew.bitwise_and(ew.greater_equal(x, 0), ew.less(x, n))


class AUC(Metric):
    """The area under the ROC curve, or the average precision, from scores in bins.

    Scores are rounded down to one of `bins` values evenly spaced in [0, 1]; between those the
    result is that of the scores themselves. Ties count half.

    Args:
        bins: how many values.
        curve: "ROC", or "PR" for the average precision, the sum of precision times the step in
            recall.
        from_logits: whether scores go through a sigmoid first.
    """

    def __init__(
        self,
        bins: int = 201,
        curve: str = "ROC",
        from_logits: bool = False,
        *,
        name: str | None = None,
        on: Any = None,
    ) -> None:
        super().__init__(name=name, on=on)
        self.bins = as_int("AUC", bins, "bins is an integer")
        if self.bins < 2:
            raise EinkornError(f"AUC: bins is at least 2, got {bins}")
        self.curve = as_choice("AUC", "curve", curve, ("ROC", "PR"))
        if not isinstance(from_logits, bool):
            raise EinkornError(f"AUC: from_logits is True or False, got {from_logits!r}")
        self.from_logits = from_logits
        self.positives = self._ek_state("positives", (self.bins,))
        self.negatives = self._ek_state("negatives", (self.bins,))

    def update(self, y_pred: Any, y_true: Any, sample_weight: Any = None) -> None:
        """Count one batch of scores and 0/1 targets of one shape."""
        what = type(self).__name__
        with no_grad():
            pred, true = paired(what, y_pred, y_true)
            if not pred.dtype.is_float:
                raise ShapeError(f"AUC: y_pred is floating-point scores, got {pred._type}")
            score = wide(what, ew.sigmoid(pred) if self.from_logits else pred)
            # A grid value k / (bins - 1), rounded to its dtype, may lie just below.
            scaled = ew.add(ew.multiply(score, self.bins - 1), 1e-5)
            place = ew.clip(ew.floor(scaled), 0, self.bins - 1)
            comparable = ew.equal(score, score)
            place = ew.where(comparable, ew.astype(ew.where(comparable, place, 0), int64), -1)
            label = ew.astype(above(what, true, 0.5), float64)
            weight = weights_like(what, sample_weight, label)
            positive = label if weight is None else ew.multiply(label, weight)
            total = ones_like(label) if weight is None else weight
            ids = flatten(place)
            self._ek_add(
                positives=segment_sum(flatten(positive), ids, self.bins),
                negatives=segment_sum(flatten(ew.subtract(total, positive)), ids, self.bins),
            )

    def compute(self) -> Tensor:
        """The area; 0 without samples of both kinds."""
        here = flip(ew.stop_gradient(self.positives))
        wrong = flip(ew.stop_gradient(self.negatives))
        above = cumulative_sum(here)  # at or above each value, from the highest down
        total = sum_over(here)
        if self.curve == "PR":
            precision = divided(above, ew.add(above, cumulative_sum(wrong)))
            return divided(sum_over(ew.multiply(here, precision)), total)
        ahead = ew.subtract(above, ew.multiply(here, 0.5))
        return divided(sum_over(ew.multiply(wrong, ahead)), ew.multiply(total, sum_over(wrong)))
