"""Elegy's losses: `call(y_true, y_pred)` gives one for each sample, which are weighed and reduced.

The formulas are those of `ek.nn`; over the last axis Elegy takes the mean before it reduces.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any

from einkorn import nn
from einkorn.convert import as_tensor
from einkorn.dialects.elegy.modules import Module
from einkorn.functions import elementwise as ew
from einkorn.functions.more_losses import cosine_similarity
from einkorn.functions.statistical import mean
from einkorn.ir.errors import EinkornError
from einkorn.nn.loss import for_elements
from einkorn.tensor import Tensor

MSG_REDUCTION = "{name}: reduction is one of elegy.losses.Reduction, or None, got {given!r}"


class Reduction(Enum):
    """What becomes of the losses of samples."""

    NONE = "none"
    SUM = "sum"
    SUM_OVER_BATCH_SIZE = "mean"


class Loss(nn.Loss, Module):
    """The base: a subclass defines `call`, which asks for values by the names of its parameters.

    Args:
        reduction: SUM_OVER_BATCH_SIZE, the mean, by default.
        weight: what the loss is multiplied by.
        on: an index or key, or a path of these, of the outputs and targets that the loss is of.
        name: its name in the logs.
    """

    def __init__(
        self,
        reduction: Reduction | None = None,
        weight: float | None = None,
        on: Any = None,
        name: str | None = None,
        **settings: Any,
    ) -> None:
        if reduction is not None and not isinstance(reduction, Reduction):
            raise EinkornError(MSG_REDUCTION.format(name=type(self).__name__, given=reduction))
        Module.__init__(self, name)
        super().__init__(  # of the loss of `ek.nn` that a subclass has as a second base
            reduction=(reduction or Reduction.SUM_OVER_BATCH_SIZE).value,
            weight=1.0 if weight is None else weight,
            on=on,
            **settings,
        )

    def counted(self, y_pred: Any, y_true: Any) -> None:
        """The mean is over samples, whatever their weights."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "call" in vars(cls):
            cls.forward = _weighed(vars(cls)["call"])


def _weighed(call: Callable[..., Any]) -> Callable[..., Tensor]:
    """`call` with a parameter `sample_weight`; its losses are weighed and reduced."""
    own = inspect.signature(call)
    kind = inspect.Parameter.KEYWORD_ONLY
    if all(p.kind is p.POSITIONAL_OR_KEYWORD for p in own.parameters.values()):
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    more = inspect.Parameter("sample_weight", kind, default=None)
    kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in own.parameters.values() if p.kind is p.VAR_KEYWORD]
    signature = own.replace(parameters=[*kept, more, *rest])

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        given = signature.bind(*args, **kwargs)
        sample_weight = given.arguments.pop("sample_weight", None)
        loss: Loss = args[0]
        losses = as_tensor(call(*given.args, **given.kwargs), type(loss).__name__)
        if sample_weight is not None:
            weights = for_elements(type(loss).__name__, sample_weight, losses)
            losses = ew.multiply(losses, weights)
        return ew.multiply(loss._reduced(losses, None, None), loss.weight)

    forward.__signature__ = signature  # type: ignore[attr-defined]
    return forward


class _OfSamples(Loss):
    """A loss of `ek.nn` that has one number for each sample."""

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return self.elementwise(y_pred, y_true)


class _OfElements(Loss):
    """A loss of `ek.nn` for elements, of which samples have the mean over the last axis."""

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        losses = self.elementwise(y_pred, y_true)
        return mean(losses, axis=-1) if losses.ndim else losses


class MeanSquaredError(_OfElements, nn.MSELoss):
    """The mean of (y_pred - y_true)**2."""


class MeanAbsoluteError(_OfElements, nn.L1Loss):
    """The mean of |y_pred - y_true|."""


class MeanAbsolutePercentageError(_OfElements, nn.MAPELoss):
    """The mean of 100 |y_pred - y_true| / |y_true|."""


class MeanSquaredLogarithmicError(_OfElements, nn.MSLELoss):
    """The mean of (log(1 + y_pred) - log(1 + y_true))**2."""


class Huber(_OfElements, nn.HuberLoss):
    """The mean of d**2 / 2 where |d| < delta, else of delta (|d| - delta / 2)."""

    def __init__(
        self,
        delta: float = 1.0,
        reduction: Reduction | None = None,
        weight: float | None = None,
        on: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, weight, on, name, delta=delta)


class BinaryCrossentropy(_OfElements, nn.BinaryCrossEntropyLoss):
    """The mean of -(t log(p) + (1 - t) log(1 - p)), for probabilities or, if so said, log odds."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: Reduction | None = None,
        weight: float | None = None,
        on: Any = None,
        name: str | None = None,
    ) -> None:
        more = {"from_logits": from_logits, "label_smoothing": label_smoothing}
        super().__init__(reduction, weight, on, name, **more)


class CategoricalCrossentropy(_OfSamples, nn.CrossEntropyLoss):
    """-sum(p log(q)) for targets p that are probabilities, one-hot ones mostly."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: Reduction | None = None,
        weight: float | None = None,
        on: Any = None,
        name: str | None = None,
    ) -> None:
        more = {"from_logits": from_logits, "label_smoothing": label_smoothing}
        super().__init__(reduction, weight, on, name, **more)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        target = as_tensor(y_true, "CategoricalCrossentropy")
        like = as_tensor(y_pred, "CategoricalCrossentropy")
        return self.elementwise(like, target.astype(like.dtype))


class SparseCategoricalCrossentropy(_OfSamples, nn.CrossEntropyLoss):
    """-log(q[label]); a label that is no class is an error, eagerly and compiled.

    Args:
        check_bounds: accepted, and labels are always checked.
    """

    def __init__(
        self,
        from_logits: bool = False,
        check_bounds: bool = True,
        reduction: Reduction | None = None,
        weight: float | None = None,
        on: Any = None,
        name: str | None = None,
    ) -> None:
        self.check_bounds = check_bounds
        super().__init__(reduction, weight, on, name, from_logits=from_logits)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        labels = as_tensor(y_true, "SparseCategoricalCrossentropy")
        whole = labels if labels.dtype.is_integer else labels.astype("int64")
        return self.elementwise(y_pred, whole)


class CosineSimilarity(Loss):
    """-cos of the angle between predictions and targets along an axis."""

    def __init__(
        self,
        axis: int = -1,
        reduction: Reduction | None = None,
        weight: float | None = None,
        on: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, weight, on, name)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return -cosine_similarity(y_pred, y_true, axis=self.axis)
