"""What metrics have in common: state in buffers, which an update moves on and `compute` reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.manipulation import spread_to, to_shape
from einkorn.functions.statistical import sum as sum_over
from einkorn.ir.dtypes import float64
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.leaf import Leaf
from einkorn.nn.loss import chosen
from einkorn.nn.module import Module
from einkorn.recording import no_grad
from einkorn.tensor import Tensor

MSG_SHAPES = "{what}: y_pred {pred} and y_true {true} must have one shape; reshape one of them"
MSG_WEIGHT = (
    "{what}: sample_weight {weight} does not fit values {values}: its shape is the start of theirs"
)


class Metric(Module):
    """The base of metrics: a value over everything that was seen since the last `reset`.

    A subclass makes its state with `self.add_buffer(name, zeros)` in `__init__` and defines
    `update` and `compute`. State starts at zero, and is written inside of a compiled step like any
    other. `metric(...)` updates and then computes.

    Attributes:
        name: the key in the logs of `ek.Model`; the class in snake case when None.
        on: which part of nested predictions and targets it sees, when it is called and in
            `ek.Model`: an index, a key, or a tuple of these.
    """

    name: str | None = None
    on: Any = None

    def __init__(self, *, name: str | None = None, on: Any = None) -> None:
        if name is not None and not (isinstance(name, str) and name):
            raise EinkornError(f"{type(self).__name__}: a name is text, got {name!r}")
        self.name, self.on = name, on

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take one batch into account."""
        raise EinkornError(f"{type(self).__name__} has no update method: define it in the class")

    def compute(self) -> Any:
        """The value over what was seen since the last reset."""
        raise EinkornError(f"{type(self).__name__} has no compute method: define it in the class")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        what, on = type(self).__name__, self.on
        if on is not None:
            args = tuple(chosen(what, "an argument", x, on) for x in args)
        self.update(*args, **kwargs)
        return self.compute()

    def reset(self) -> None:
        """Forget what was seen."""
        for leaf in self.buffers.to_flat_list():
            leaf.value = np.zeros(leaf.shape, leaf.dtype.numpy)

    def _ek_state(self, name: str, shape: tuple[int, ...] = ()) -> Leaf:
        """A buffer of float64 zeros."""
        return self.add_buffer(name, np.zeros(shape), "float64")

    def _ek_add(self, **amounts: Any) -> None:
        """Add to buffers, all of which are checked before the first one changes."""
        with no_grad():
            sums = {name: ew.add(getattr(self, name), x) for name, x in amounts.items()}
            for name, total in sums.items():
                getattr(self, name).value = total


def wide(what: str, x: Any) -> Tensor:
    """Values as float64, in which metrics add up; no gradient flows through."""
    return ew.astype(ew.stop_gradient(as_tensor(x, what)), float64)


def weights_like(what: str, sample_weight: Any, values: Tensor) -> Tensor | None:
    """One weight for each value, from weights for the leading axes; None without weights."""
    if sample_weight is None:
        return None
    weight = wide(what, sample_weight)
    shape = weight.shape
    while shape != values.shape[: len(shape)] and shape[-1:] == (1,):
        shape = shape[:-1]
    if shape != values.shape[: len(shape)]:
        raise ShapeError(MSG_WEIGHT.format(what=what, weight=weight._type, values=values._type))
    rest = (1,) * (values.ndim - len(shape))
    return spread_to(to_shape(weight, (*shape, *rest)), values.shape)


def weighted(what: str, values: Any, sample_weight: Any) -> tuple[Tensor, Any]:
    """The weighted sum of values, and the sum of the weights."""
    numbers = wide(what, values)
    weights = weights_like(what, sample_weight, numbers)
    if weights is None:
        return sum_over(numbers), float(numbers.size)
    return sum_over(ew.multiply(numbers, weights)), sum_over(weights)


def paired(what: str, y_pred: Any, y_true: Any) -> tuple[Tensor, Tensor]:
    """Predictions and targets of one shape, up to a last axis of size 1."""
    pred = ew.stop_gradient(as_tensor(y_pred, what))
    true = ew.stop_gradient(as_tensor(y_true, what))
    if pred.shape == (*true.shape, 1) or (*pred.shape, 1) == true.shape:
        true = to_shape(true, pred.shape)
    if pred.shape != true.shape:
        raise ShapeError(MSG_SHAPES.format(what=what, pred=pred._type, true=true._type))
    return pred, true


def above(what: str, x: Tensor, limit: float) -> Tensor:
    """Whether values are above a number, which is rounded to their dtype."""
    return ew.greater(x if x.dtype.is_float else wide(what, x), limit)


def divided(total: Any, count: Any) -> Tensor:
    """A quotient that is 0 where the denominator is."""
    bottom = as_tensor(count, "compute")
    none = ew.equal(bottom, 0)
    return ew.where(none, 0, ew.divide(total, ew.where(none, 1, bottom)))


class Sum(Metric):
    """The (weighted) sum of values."""

    def __init__(self, *, name: str | None = None, on: Any = None) -> None:
        super().__init__(name=name, on=on)
        self.total = self._ek_state("total")

    def update(self, values: Any, sample_weight: Any = None) -> None:
        """Add up values of any shape, each times the weight of its sample."""
        self._ek_add(total=weighted(type(self).__name__, values, sample_weight)[0])

    def compute(self) -> Tensor:
        """The sum."""
        return ew.stop_gradient(self.total)


class Mean(Metric):
    """The (weighted) mean of values; NaN before the first one."""

    def __init__(self, *, name: str | None = None, on: Any = None) -> None:
        super().__init__(name=name, on=on)
        self.total, self.count = self._ek_state("total"), self._ek_state("count")

    def update(self, values: Any, sample_weight: Any = None) -> None:
        """Take in values of any shape, each with the weight of its sample."""
        total, count = weighted(type(self).__name__, values, sample_weight)
        self._ek_add(total=total, count=count)

    def compute(self) -> Tensor:
        """The mean."""
        return ew.divide(ew.stop_gradient(self.total), ew.stop_gradient(self.count))


class MeanOverSamples(Mean):
    """The base of metrics that are a mean: a subclass defines `elementwise`."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Any:
        """One value per sample, or finer."""
        name = type(self).__name__
        raise EinkornError(f"{name} has no elementwise method: define it in the class")

    def update(self, y_pred: Any, y_true: Any, sample_weight: Any = None) -> None:  # type: ignore[override] # not of values
        """Take in one batch of predictions and targets."""
        with no_grad():
            values = self.elementwise(y_pred, y_true)
            super().update(values, sample_weight)
