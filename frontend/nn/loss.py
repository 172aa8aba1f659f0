"""`Loss`: the base of losses as modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from einkorn.convert import as_tensor, in_dtype
from einkorn.functions.elementwise import astype, divide, multiply
from einkorn.functions.losses import REDUCTIONS
from einkorn.functions.manipulation import to_shape
from einkorn.functions.statistical import mean
from einkorn.functions.statistical import sum as sum_over
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.nn.module import Module
from einkorn.nn.settings import Number
from einkorn.tensor import Tensor

MSG_ON = (
    "{owner}: on={on!r} chooses from nested outputs and targets, but {what} {fault}; leave `on` "
    "out, or give values that are nested so"
)


MSG_TARGETS = (
    "{owner} compares y_pred with y_true, and there is no y_true: give it targets; in ek.Model "
    "pass y or batches (x, y), and where outputs are a dict, one with the same keys"
)


def chosen(owner: str, what: str, values: Any, on: Any) -> Any:
    """The part of nested outputs or targets at an index, a key, or a path of these."""
    for step in on if isinstance(on, (tuple, list)) else (on,):
        if not isinstance(values, (Mapping, list, tuple)):
            fault = f"has {type(values).__name__} where {step!r} is looked up"
            raise EinkornError(MSG_ON.format(owner=owner, on=on, what=what, fault=fault))
        try:
            values = values[step]
        except (KeyError, IndexError, TypeError):
            have = list(values) if isinstance(values, Mapping) else f"{len(values)} items"
            fault = f"has no {step!r} (there are {have})"
            raise EinkornError(MSG_ON.format(owner=owner, on=on, what=what, fault=fault)) from None
    return values


class Loss(Module):
    """A number to minimise for predictions and targets. A subclass defines `elementwise`.

    Losses for elements are multiplied by `sample_weight`, then reduced, then multiplied by
    `weight`. The mean divides by the number of elements, whatever the sample weights.

    Args:
        reduction: "mean", "sum", or "none" for the losses themselves.
        weight: what the loss is multiplied by; a new one takes effect in compiled steps at once.
        on: an index or key, or a path of these, of the outputs and targets that the loss is of.
    """

    weight = Number()

    def __init__(self, *, reduction: str = "mean", weight: float = 1.0, on: Any = None) -> None:
        if not isinstance(reduction, str) or reduction not in REDUCTIONS:
            name = type(self).__name__
            raise EinkornError(f"{name}: reduction is 'mean', 'sum' or 'none', got {reduction!r}")
        self.reduction, self.on, self.weight = reduction, on, weight

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of predictions, targets and, optionally, sample weights."""
        if self.on is not None:
            name, on = type(self).__name__, self.on
            args = (*(chosen(name, "an argument", x, on) for x in args[:2]), *args[2:])
            for key in ("y_pred", "y_true"):
                if kwargs.get(key) is not None:
                    kwargs[key] = chosen(name, key, kwargs[key], on)
        return super().__call__(*args, **kwargs)

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        """One loss for each sample, or more than one."""
        raise EinkornError(
            f"{type(self).__name__} has no elementwise method: define  "
            "def elementwise(self, y_pred, y_true): ...  in the class"
        )

    def counted(self, y_pred: Any, y_true: Any) -> Tensor | None:
        """How much each element counts in the mean; None for 1."""
        return None

    def forward(self, y_pred: Any, y_true: Any = None, sample_weight: Any = None) -> Tensor:
        name = type(self).__name__
        if y_true is None and _needs_targets(self.elementwise):
            raise EinkornError(MSG_TARGETS.format(owner=name))
        losses = as_tensor(self.elementwise(y_pred, y_true), name)
        if sample_weight is not None:
            losses = multiply(losses, for_elements(name, sample_weight, losses))
        return multiply(self._reduced(losses, y_pred, y_true), self.weight)

    def _reduced(self, losses: Tensor, y_pred: Any, y_true: Any) -> Tensor:
        if self.reduction == "none":
            return losses
        if self.reduction == "sum":
            return sum_over(losses)
        counts = self.counted(y_pred, y_true)
        return mean(losses) if counts is None else divide(sum_over(losses), sum_over(counts))

    def extra_repr(self) -> str:
        state = self.__dict__
        ours = {"reduction": "mean", "weight": 1.0, "on": None}
        own = (f"{k}={x!r}" for k, x in state.items() if _is_setting(k, x) and k not in ours)
        base = (f"{k}={state[k]!r}" for k, usual in ours.items() if state.get(k, usual) != usual)
        return ", ".join((*own, *base))


def _needs_targets(elementwise: Callable[..., Any]) -> bool:
    parameters = list(inspect.signature(elementwise).parameters.values())
    return len(parameters) > 1 and parameters[1].default is inspect.Parameter.empty


def _is_setting(name: str, value: Any) -> bool:
    plain = isinstance(value, (bool, int, float, str))
    return plain and not name.startswith("_") and name != "training"


def for_elements(what: str, sample_weight: Any, losses: Tensor) -> Tensor:
    """Sample weights with further axes of one element, in the dtype of the losses."""
    given = as_tensor(sample_weight, what)
    sizes = (*given.shape, *(1,) * (losses.ndim - given.ndim))
    if len(sizes) != losses.ndim or any(a not in (1, b) for a, b in zip(sizes, losses.shape)):
        raise ShapeError(
            f"{what}: sample_weight needs the first axes of the losses, {losses._type}, or ones in "
            f"their place, got {given._type}"
        )
    if given.dtype.is_complex:
        raise DTypeError(f"{what}: sample_weight is made of real numbers, got {given._type}")
    number = given if given.dtype.is_float else astype(given, losses.dtype)
    return to_shape(in_dtype(what, number, losses.dtype), sizes)
