"""The losses and metrics of a `Model`, from what the user gave: one, or nests of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from einkorn import metrics as metrics_by_name
from einkorn import nn
from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.functions.indexing import take
from einkorn.functions.manipulation import to_shape
from einkorn.functions.statistical import argmax, mean
from einkorn.ir.dtypes import int64
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.metrics.base import MeanOverSamples, Metric
from einkorn.model.injection import Injected
from einkorn.nn.loss import MSG_TARGETS, Loss, chosen, for_elements
from einkorn.nn.making import snake_case
from einkorn.nn.module import Module
from einkorn.tensor import Tensor

Array = np.ndarray[Any, Any]
_CLASSES = 2**24  # more have no array of their weights
Values = Mapping[str, Any]

MSG_SCALAR = (
    "the loss {name} is a floating-point scalar, got {type}; take .mean(), or reduction='mean'"
)
MSG_WEIGHTS = (
    "the loss {name} takes no weights of samples, as sample_weight and class_weight are: give it a "
    "parameter sample_weight, or reduction "
    "(which is then 'none'), or use one of the losses of ek.nn"
)


def name_of(item: Any) -> str:
    """The name of a loss or metric in the logs."""
    own = getattr(item, "name", None)
    if isinstance(own, str) and own:
        return own
    while isinstance(item, functools.partial):
        item = item.func
    name = getattr(item, "__name__", None)
    return snake_case(type(item).__name__ if name is None or name == "<lambda>" else name)


def flat_items(nest: Any, prefix: str = "", key: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """The name, innermost key and object of everything in nested lists and dicts."""
    if isinstance(nest, Mapping):
        for k, item in nest.items():
            yield from flat_items(item, f"{prefix}{k}/", k)
    elif isinstance(nest, (list, tuple)):
        for item in nest:
            yield from flat_items(item, prefix, key)
    elif nest is not None:
        yield (f"{prefix}{name_of(nest)}" if key is None else prefix[:-1]), key, nest


def written(home: str, names: Mapping[str, Any], given: Any, kind: type) -> str:
    """What to write in place of a loss or metric that was given by name or as a class."""
    if isinstance(given, type):
        return f"; make one of the class: {given.__name__}(...)"
    if not isinstance(given, str):
        return ""
    wanted = given.replace("_", "").lower()
    known = {x.lower(): x for x, item in names.items() if _is_proper(item, kind)}
    found = get_close_matches(wanted, known, n=1) or get_close_matches(f"{wanted}loss", known, n=1)
    return f"; write {home}.{known[found[0]]}()" if found else f"; {home} has them"


def _is_proper(item: Any, kind: type) -> bool:
    return isinstance(item, type) and issubclass(item, kind) and item is not kind


def _is_module_class(item: Any) -> bool:
    """Whether somebody gave a class in place of an object of it."""
    return isinstance(item, type) and issubclass(item, Module)


def unique(name: str, taken: Any) -> str:
    """A name that is not taken: acc, acc_1."""
    found, count = name, 0
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found


def part_of(owner: str, values: Values, on: Any, key: Any) -> dict[str, Any]:
    """The values of one loss or metric, which may be of one of several outputs."""
    found = dict(values)
    pred, true = values.get("y_pred"), values.get("y_true")
    if on is not None:
        found["y_pred"] = chosen(owner, "y_pred", pred, on)
        if true is not None:
            found["y_true"] = chosen(owner, "y_true", true, on)
    elif key is not None and isinstance(pred, Mapping) and key in pred:
        found["y_pred"] = pred[key]
        if isinstance(true, Mapping):
            found["y_true"] = true.get(key)
    else:
        return found
    weight = values.get("sample_weight")
    if isinstance(weight, Mapping):
        found["sample_weight"] = weight.get(key if on is None else on)
    return found


# -- losses ----------------------------------------------------------------------------------------


class Term:
    """One loss of a model."""

    def __init__(self, name: str, key: Any, loss: Any) -> None:
        if not callable(loss) or _is_module_class(loss):
            hint = written("ek.nn", vars(nn), loss, Loss)
            raise EinkornError(
                f"a loss is a function or a module such as ek.nn.MSELoss(), got {loss!r}{hint}"
            )
        self.name, self._key, self._loss = name, key, loss
        self._on = getattr(loss, "on", None)
        call = loss
        if isinstance(loss, Loss):  # the part is chosen here, for class weights to be those of it
            call = functools.partial(super(Loss, loss).__call__)
        target = getattr(loss, "forward", loss)
        self._call = Injected(name, call, target)
        self._weighs = "sample_weight" in self._call.names or self._call._takes_all
        self._is_reduced = not isinstance(loss, Loss) and _has_reduction(target)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made anew, of the copy of the loss."""
        return Term, (self.name, self._key, self._loss)

    def __call__(self, values: Values) -> Iterator[tuple[str, Tensor]]:
        """The named scalars that it adds to the loss."""
        own = part_of(self.name, values, self._on, self._key)
        if own.get("class_weight") is not None and "class_weight" not in self._call.names:
            own["sample_weight"] = _with_class_weight(own)
        weight = own.get("sample_weight")
        if weight is None or self._weighs or not _of_targets(self._call):
            found = self._call(own)
        elif self._is_reduced:
            losses = self._call(own, reduction="none")
            found = mean(ew.multiply(losses, for_elements(self.name, weight, losses)))
        else:
            raise EinkornError(MSG_WEIGHTS.format(name=self.name))
        parts = found.items() if isinstance(found, Mapping) else [(None, found)]
        for key, value in parts:
            name = self.name if key is None else f"{self.name}_{key}"
            loss = as_tensor(value, name)
            if loss.shape or not loss.dtype.is_float:
                raise ShapeError(MSG_SCALAR.format(name=name, type=loss._type))
            yield name, loss


def _has_reduction(target: Any) -> bool:
    return "reduction" in inspect.signature(target).parameters


def _of_targets(call: Injected) -> bool:
    """Whether a loss compares predictions: a regularizer has no samples to weigh."""
    return bool(call.names & {"y_pred", "y_true"})


def _with_class_weight(values: Values) -> Tensor:
    """Sample weights times the weight of each sample's class; 1 for classes that have none."""
    weights = as_tensor(values["class_weight"], "class_weight")
    true = as_tensor(values["y_true"], "class_weight")
    if true.dtype.is_integer or true.ndim < 2 or true.shape[-1] == 1:
        labels = ew.astype(true, int64)
        if labels.ndim > 1 and labels.shape[-1] == 1:
            labels = to_shape(labels, labels.shape[:-1])
    else:
        labels = argmax(true, axis=-1)
    known = ew.bitwise_and(ew.greater_equal(labels, 0), ew.less(labels, weights.shape[0]))
    each = ew.where(known, take(weights, ew.where(known, labels, 0), axis=0), 1.0)
    given = values.get("sample_weight")
    if given is None:
        return each
    own = as_tensor(given, "sample_weight")
    return ew.multiply(each, to_shape(own, (*own.shape, *(1,) * (each.ndim - own.ndim))))


def class_weights(weights: Any) -> Array | None:
    """Class weights as float32 [classes]; None for none. Classes that a dict lacks have 1."""
    if weights is None:
        return None
    listed = weights
    if isinstance(weights, Mapping):
        numbers = [k for k in weights if type(k) is int or isinstance(k, np.integer)]
        if not weights or len(numbers) != len(weights) or min(numbers) < 0:
            raise EinkornError(
                f"class_weight is a dict of weights by class numbers 0, 1, ...; got {weights!r}"
            )
        if max(numbers) >= _CLASSES:
            raise EinkornError(f"class_weight: a class is less than {_CLASSES}; got {weights!r}")
        listed = [weights.get(k, 1.0) for k in range(max(numbers) + 1)]
    try:
        array = np.asarray(listed, "float32")
    except (TypeError, ValueError):
        array = np.empty(0, "float32")
    if array.ndim != 1 or not array.size or not (np.isfinite(array).all() and (array >= 0).all()):
        raise EinkornError(f"class_weight: one number >= 0 for each class, got {weights!r}")
    return array


def terms_of(loss: Any) -> list[Term]:
    """The losses of a model."""
    found: dict[str, Term] = {}
    for name, key, item in flat_items(loss):
        own = unique(name, found)
        found[own] = Term(own, key, item)
    return list(found.values())


# -- metrics ---------------------------------------------------------------------------------------


class FunctionMetric(MeanOverSamples):
    """The mean over samples of what a function gives."""

    def __init__(self, function: Any) -> None:
        super().__init__(name=name_of(function))
        self._call = Injected(name_of(function), function)

    def update(self, sample_weight: Any = None, **values: Any) -> None:  # type: ignore[override]
        """Call the function with values by name."""
        found = as_tensor(self._call(values), str(self.name))
        count = as_tensor(values["y_pred"], "a metric").shape[:1] if found.ndim == 0 else ()
        if count:  # a batch counts as often as it has samples
            found = ew.add(found, np.zeros(count, found.dtype.numpy))
        super(MeanOverSamples, self).update(found, sample_weight if not count else None)


class MetricSet:
    """The metrics of a model, by name."""

    def __init__(self, metrics: Any) -> None:
        self.metrics: dict[str, Metric] = {}
        self._updates: dict[str, tuple[Injected, Any]] = {}
        for name, key, item in flat_items(metrics):
            if not callable(item) or _is_module_class(item):
                hint = written("ek.metrics", vars(metrics_by_name), item, Metric)
                raise EinkornError(
                    f"a metric is a function or an ek.metrics.Metric, got {item!r}{hint}"
                )
            metric = item if isinstance(item, Metric) else FunctionMetric(item)
            own = unique(name, self.metrics)
            self.metrics[own] = metric
            self._updates[own] = (Injected(own, metric.update), key)

    def update(self, values: Values) -> None:
        """Take one batch into account."""
        for name, (update, key) in self._updates.items():
            own = part_of(name, values, self.metrics[name].on, key)
            compares = (
                "y_true" in update.required and type(self.metrics[name]) is not FunctionMetric
            )
            if compares and own.get("y_true") is None:
                raise EinkornError(MSG_TARGETS.format(owner=name))
            update(own)

    def compute(self) -> dict[str, Any]:
        """The values so far; a metric that gives several has their names in its own."""
        found: dict[str, Any] = {}
        for name, metric in self.metrics.items():
            value = metric.compute()
            parts = value if isinstance(value, Mapping) else {None: value}
            for key, part in parts.items():
                found[name if key is None else f"{name}_{key}"] = part
        return found
