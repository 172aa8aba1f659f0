"""Losses, and one-hot vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einkorn.autocast import single_precision
from einkorn.convert import (
    as_choice,
    as_int,
    as_number,
    as_tensor,
    check_device,
    check_dtype,
    in_dtype,
    meet,
    normal_axis,
)
from einkorn.functions.elementwise import (
    add,
    astype,
    divide,
    equal,
    multiply,
    negative,
    not_equal,
    subtract,
    where,
)
from einkorn.functions.indexing import pick
from einkorn.functions.manipulation import as_sizes, moveaxis, spread_to, to_shape
from einkorn.functions.statistical import log_softmax, mean
from einkorn.functions.statistical import sum as sum_over
from einkorn.ir.dtypes import bool_, float32, int64, uint64
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.ir.types import same_shape
from einkorn.recording import apply

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

REDUCTIONS = ("mean", "sum", "none")


def reduced(what: str, losses: Tensor, reduction: Any) -> Tensor:
    """Losses as they are, or their mean or sum."""
    as_choice(what, "reduction", reduction, REDUCTIONS)
    if reduction == "none":
        return losses
    return mean(losses) if reduction == "mean" else sum_over(losses)


@single_precision
def cross_entropy(
    logits: Any,
    labels: Any,
    /,
    *,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """The cross entropy of softmax(logits) with class labels or class probabilities.

    Args:
        logits: unnormalised log probabilities, with the classes along `axis`.
        labels: integer classes, in the shape of the logits without that axis, or probabilities in
            the shape of the logits.
        weight: one number for each class, which its part of a loss is multiplied by. The mean over
            labels is then the weighted one; over probabilities it is not.
        ignore_index: a label whose loss is 0 and which the mean does not count.
        label_smoothing: the share of each label that is spread evenly over all classes.
        reduction: "mean", "sum", or "none" for one loss for each label.
    """
    what = "cross_entropy"
    scores, target = as_tensor(logits, what), as_tensor(labels, what)
    if not scores.dtype.is_float:
        raise DTypeError(f"{what}: logits must be floats, got {scores._type}")
    label_smoothing = as_number(what, label_smoothing, "label_smoothing is a number")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ShapeError(f"{what}: label_smoothing must be between 0 and 1, got {label_smoothing}")
    axis = normal_axis(what, axis, scores.ndim)
    if scores.shape[axis] == 0:
        raise ShapeError(f"{what}: there are no classes along axis {axis} of {scores._type}")
    by_class = _are_classes(what, scores, target, axis)
    logs = moveaxis(log_softmax(scores, axis=axis), axis, -1)
    weights = _class_weights(what, weight, logs)
    if by_class:
        return _of_classes(what, logs, target, weights, ignore_index, label_smoothing, reduction)
    if ignore_index is not None:
        raise ShapeError(f"{what}: ignore_index is for labels that are classes")
    target = moveaxis(in_dtype(what, target, scores.dtype), axis, -1)
    return reduced(what, _of_probabilities(logs, target, weights, label_smoothing), reduction)


@single_precision
def nll_loss(
    log_probabilities: Any,
    labels: Any,
    /,
    *,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log probability of each label; the arguments are those of `cross_entropy`."""
    what = "nll_loss"
    logs, target = as_tensor(log_probabilities, what), as_tensor(labels, what)
    axis = normal_axis(what, axis, logs.ndim)
    if not logs.dtype.is_float:
        raise DTypeError(f"{what}: log probabilities must be floats, got {logs._type}")
    if not _are_classes(what, logs, target, axis):
        raise ShapeError(
            f"{what}: needs floats and integer labels, got {logs._type}, {target._type}"
        )
    logs = moveaxis(logs, axis, -1)
    weights = _class_weights(what, weight, logs)
    return _of_classes(what, logs, target, weights, ignore_index, 0.0, reduction)


def _are_classes(what: str, scores: Tensor, target: Tensor, axis: int) -> bool:
    """Whether labels are classes and not probabilities; ShapeError when they are neither."""
    classes = scores.shape[:axis] + scores.shape[axis + 1 :]
    by_class = target.dtype.is_integer and same_shape(target.shape, classes)
    if not by_class and not (target.dtype.is_float and same_shape(target.shape, scores.shape)):
        raise ShapeError(
            f"{what}: for logits {scores._type} with classes along axis {axis}, labels are "
            f"integers of shape {classes} or probabilities of shape {scores.shape}, got "
            f"{target._type}"
        )
    return by_class


def _class_weights(what: str, weight: Any, logs: Tensor) -> Tensor | None:
    if weight is None:
        return None
    weights = in_dtype(what, as_tensor(weight, what), logs.dtype)
    if weights.shape != logs.shape[-1:]:
        raise ShapeError(
            f"{what}: weight has one number for each of the {logs.shape[-1]} classes, got "
            f"{weights._type}"
        )
    return weights


def _chosen(what: str, rows: Tensor, labels: Tensor) -> Tensor:
    """rows [..., classes] at the label of each row."""
    columns = to_shape(labels, (*labels.shape, 1))
    return to_shape(pick(what, rows, columns, negative=False), labels.shape)


def _of_classes(
    what: str,
    logs: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    ignore_index: int | None,
    smoothing: float,
    reduction: str,
) -> Tensor:
    as_choice(what, "reduction", reduction, REDUCTIONS)
    counted = None
    if ignore_index is not None:
        number = as_int(what, ignore_index, "ignore_index is an integer")
        wide = labels if labels.dtype is uint64 else astype(labels, int64)
        counted = not_equal(wide, number) if number >= 0 or wide.dtype is int64 else None
        labels = labels if counted is None else where(counted, wide, 0)
    losses = negative(_chosen(what, logs, labels))
    each = None
    if weights is not None:
        each = _chosen(what, spread_to(weights, logs.shape), labels)
        losses = multiply(losses, each)
    if smoothing != 0.0:
        parts = logs if weights is None else multiply(logs, weights)
        even = negative(mean(parts, axis=-1))
        losses = add(multiply(losses, 1.0 - smoothing), multiply(even, smoothing))
    if counted is not None:
        losses = where(counted, losses, 0)
        ones = astype(counted, logs.dtype)
        each = ones if each is None else where(counted, each, 0)
    if reduction != "mean" or each is None:
        return reduced(what, losses, reduction)
    return divide(sum_over(losses), sum_over(each))


def _of_probabilities(
    logs: Tensor, target: Tensor, weights: Tensor | None, smoothing: float
) -> Tensor:
    if smoothing != 0.0:
        target = add(multiply(target, 1.0 - smoothing), smoothing / logs.shape[-1])
    products = multiply(target, logs)
    return negative(sum_over(products if weights is None else multiply(products, weights), axis=-1))


@single_precision
def mse_loss(pred: Any, target: Any, /, *, reduction: str = "mean") -> Tensor:
    """The mean of the squared differences; the shapes must be equal."""
    a, b = meet("mse_loss", pred, target)
    if a.shape != b.shape:
        raise ShapeError(
            f"mse_loss: pred {a._type} and target {b._type} must have one shape, since "
            "broadcasting them is hardly ever meant; reshape one of them"
        )
    if not a.dtype.is_float:
        raise DTypeError(f"mse_loss: needs floats, got {a._type}; use .astype('float32') first")
    difference = subtract(a, b)
    return reduced("mse_loss", multiply(difference, difference), reduction)


def one_hot(labels: Any, n: int, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Vectors of `n` elements with 1 at each label, along a new last axis.

    A label outside [0, n) gives zeros.
    """
    check_device("one_hot", device)
    classes = as_tensor(labels, "one_hot")
    if not classes.dtype.is_integer:
        raise DTypeError(f"one_hot: labels must be integers, got {classes._type}")
    wanted = float32 if dtype is None else check_dtype(dtype)
    (count,) = as_sizes("one_hot", n, wanted)
    wide = classes if classes.dtype is uint64 else astype(classes, int64)
    positions = apply(Op.IOTA, size=count, dtype=wide.dtype)
    hot = equal(to_shape(wide, (*wide.shape, 1)), positions)
    return hot if wanted is bool_ else astype(hot, wanted)
