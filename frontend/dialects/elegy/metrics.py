"""Elegy's metrics: those of `ek.metrics`, called with targets first."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn import metrics
from einkorn.convert import as_tensor
from einkorn.dialects.elegy.modules import Module
from einkorn.functions.elementwise import astype, stop_gradient
from einkorn.ir.dtypes import float32, float64
from einkorn.ir.errors import EinkornError
from einkorn.leaf import Parameter
from einkorn.metrics import Mean, Sum
from einkorn.metrics.base import weighted
from einkorn.nn.building import outside
from einkorn.recording import no_grad
from einkorn.tensor import Tensor

__all__ = [
    "F1",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "Metric",
    "Precision",
    "Recall",
    "Reduce",
    "ReduceConfusionMatrix",
    "Reduction",
    "SparseCategoricalAccuracy",
    "Sum",
]

MSG_REDUCTION = "{what}: reduction is one of {known} of elegy.metrics.Reduction, got {given!r}"


class _TargetsFirst(metrics.Metric):
    """`update` and the call take y_true and then y_pred."""

    if not TYPE_CHECKING:  # the order of arguments is the other one

        def update(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            """Take in one batch of targets and predictions."""
            super().update(y_pred, y_true, sample_weight)


class Accuracy(_TargetsFirst, metrics.Accuracy):
    """The share of right predictions, whatever their form."""


class BinaryAccuracy(_TargetsFirst, metrics.BinaryAccuracy):
    """The share of predictions on the right side of a threshold."""


class CategoricalAccuracy(_TargetsFirst, metrics.CategoricalAccuracy):
    """The share of samples whose class has the largest score: one-hot targets."""


class SparseCategoricalAccuracy(_TargetsFirst, metrics.SparseCategoricalAccuracy):
    """The share of samples whose class has the largest score: integer labels."""


class BinaryCrossentropy(_TargetsFirst, metrics.BinaryCrossEntropy):
    """The mean binary cross entropy of probabilities or, if so said, log odds."""


class MeanSquaredError(_TargetsFirst, metrics.MeanSquaredError):
    """The mean of (y_pred - y_true)**2."""


class MeanAbsoluteError(_TargetsFirst, metrics.MeanAbsoluteError):
    """The mean of abs(y_pred - y_true)."""


class MeanAbsolutePercentageError(_TargetsFirst, metrics.MeanAbsolutePercentageError):
    """The mean of 100 * abs(y_pred - y_true) / abs(y_true)."""


class Precision(_TargetsFirst, metrics.Precision):
    """True positives / all that were predicted positive."""


class Recall(_TargetsFirst, metrics.Recall):
    """True positives / all that are positive."""


class F1(_TargetsFirst, metrics.F1):
    """The harmonic mean of precision and recall."""


class Reduction(Enum):
    """What becomes of values or of counts."""

    SUM = "sum"
    SUM_OVER_BATCH_SIZE = "mean"
    WEIGHTED_MEAN = "weighted mean"
    TRUE_POSITIVES = "true_positives"
    FALSE_POSITIVES = "false_positives"
    TRUE_NEGATIVES = "true_negatives"
    FALSE_NEGATIVES = "false_negatives"


_OF_VALUES = (Reduction.SUM, Reduction.SUM_OVER_BATCH_SIZE, Reduction.WEIGHTED_MEAN)
_OF_COUNTS = tuple(kind for kind in Reduction if kind not in _OF_VALUES)


def _checked(what: str, given: Any, kinds: tuple[Reduction, ...]) -> Reduction:
    if given not in kinds:
        known = ", ".join(kind.name for kind in kinds)
        raise EinkornError(MSG_REDUCTION.format(what=what, known=known, given=given))
    return given


class Reduce(metrics.Mean):
    """The weighted sum of values, which may be divided.

    Args:
        reduction: SUM; SUM_OVER_BATCH_SIZE, by the number of values; WEIGHTED_MEAN, by the weights.
    """

    def __init__(self, reduction: Reduction, on: Any = None, name: str | None = None) -> None:
        super().__init__(name=name, on=on)
        self.reduction = _checked("Reduce", reduction, _OF_VALUES)

    def update(self, values: Any, sample_weight: Any = None) -> None:
        """Take in values of any shape."""
        total, count = weighted("Reduce", values, sample_weight)
        if self.reduction is Reduction.SUM_OVER_BATCH_SIZE:
            count = float(as_tensor(values, "Reduce").size)
        self._ek_add(total=total, count=count)

    def compute(self) -> Tensor:
        """The sum or mean so far."""
        return stop_gradient(self.total) if self.reduction is Reduction.SUM else super().compute()


class ReduceConfusionMatrix(_TargetsFirst, metrics.ConfusionCounts):
    """The number of right or wrong positives or negatives."""

    def __init__(
        self,
        reduction: Reduction,
        threshold: float | None = 0.5,
        class_id: int | None = None,
        on: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(threshold, class_id, name=name, on=on)
        self.reduction = _checked("ReduceConfusionMatrix", reduction, _OF_COUNTS)

    def compute(self) -> Tensor:
        """The number so far."""
        return super().compute()[self.reduction.value]


class Metric(metrics.Metric, Module):
    """The base of metrics of one's own: `call` gives the value so far, which is a scalar.

    Its state are parameters with `trainable=False`, which `update_parameter` moves on; `reset`
    gives them their first values.
    """

    last: Any

    def __init__(self, on: Any = None, name: str | None = None, dtype: Any = float32) -> None:
        Module.__init__(self, name, dtype)
        metrics.Metric.__init__(self, name=self.name, on=on)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "call" in vars(cls):
            cls.update = _noting(vars(cls)["call"])

    def add_parameter(self, name: str, *args: Any, **kwargs: Any) -> Parameter:
        """State of the metric, in `call` the same each time."""
        leaf = super().add_parameter(name, *args, **kwargs)
        first = vars(self).setdefault("_ek_start", SimpleNamespace())
        if not hasattr(first, name):
            with outside():
                setattr(first, name, np.array(leaf.numpy()))
        return leaf

    def compute(self) -> Tensor:
        """What `call` gave last."""
        return stop_gradient(self.last)

    def reset(self) -> None:
        """Forget what was seen."""
        for name, value in vars(vars(self).get("_ek_start", SimpleNamespace())).items():
            getattr(self, name).value = value


def _noting(call: Callable[..., Any]) -> Callable[..., None]:
    """An `update` that keeps what the call of the metric gives."""

    def update(self: Metric, *args: Any, **kwargs: Any) -> None:
        with no_grad():
            value = self(*args, **kwargs)
            if "last" not in vars(self):
                with outside():
                    self._ek_state("last")
            self.last.value = astype(value, float64)

    update.__signature__ = inspect.signature(call)  # type: ignore[attr-defined]
    return update
