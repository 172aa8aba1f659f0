"""Losses, and one-hot vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einkorn.convert import (
    as_choice,
    as_number,
    as_tensor,
    check_device,
    check_dtype,
    in_dtype,
    meet,
    normal_axis,
)
from einkorn.functions.elementwise import add, astype, equal, multiply, negative, subtract
from einkorn.functions.indexing import pick
from einkorn.functions.manipulation import as_sizes, moveaxis, to_shape
from einkorn.functions.statistical import log_softmax, mean
from einkorn.functions.statistical import sum as sum_over
from einkorn.ir.dtypes import bool_, float32, int64, uint64
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.ir.ops import Op
from einkorn.recording import apply

if TYPE_CHECKING:
    from einkorn.tensor import Tensor


def _reduced(what: str, losses: Tensor, reduction: str) -> Tensor:
    as_choice(what, "reduction", reduction, ("mean", "sum", "none"))
    if reduction == "none":
        return losses
    return mean(losses) if reduction == "mean" else sum_over(losses)


def cross_entropy(
    logits: Any,
    labels: Any,
    /,
    *,
    axis: int = -1,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """The cross entropy of softmax(logits) with class labels or class probabilities.

    Args:
        logits: unnormalised log probabilities, with the classes along `axis`.
        labels: integer classes, in the shape of the logits without that axis, or probabilities in
            the shape of the logits.
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
    by_class = _are_classes(scores, target, axis)
    logs = moveaxis(log_softmax(scores, axis=axis), axis, -1)
    if by_class:
        losses = _of_classes(logs, target, label_smoothing)
    else:
        target = moveaxis(in_dtype(what, target, scores.dtype), axis, -1)
        losses = _of_probabilities(logs, target, label_smoothing)
    return _reduced(what, losses, reduction)


def _are_classes(scores: Tensor, target: Tensor, axis: int) -> bool:
    """Whether labels are classes and not probabilities; ShapeError when they are neither."""
    classes = scores.shape[:axis] + scores.shape[axis + 1 :]
    by_class = target.dtype.is_integer and target.shape == classes
    if not by_class and not (target.dtype.is_float and target.shape == scores.shape):
        raise ShapeError(
            f"cross_entropy: for logits {scores._type} with classes along axis {axis}, labels are "
            f"integers of shape {classes} or probabilities of shape {scores.shape}, got "
            f"{target._type}"
        )
    return by_class


def _of_classes(logs: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    columns = to_shape(labels, (*labels.shape, 1))
    chosen = to_shape(pick("cross_entropy", logs, columns, negative=False), labels.shape)
    losses = negative(chosen)
    if smoothing == 0.0:
        return losses
    even = negative(mean(logs, axis=-1))
    return add(multiply(losses, 1.0 - smoothing), multiply(even, smoothing))


def _of_probabilities(logs: Tensor, target: Tensor, smoothing: float) -> Tensor:
    if smoothing != 0.0:
        target = add(multiply(target, 1.0 - smoothing), smoothing / logs.shape[-1])
    return negative(sum_over(multiply(target, logs), axis=-1))


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
    return _reduced("mse_loss", multiply(difference, difference), reduction)


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
