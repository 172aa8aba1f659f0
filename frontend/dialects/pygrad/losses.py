"""Losses: scalars, averaged over the batch."""

from __future__ import annotations

from einkorn.dialects.pygrad.tensor import Tensor, apply
from einkorn.functions import elementwise as ew
from einkorn.functions import losses, more_losses, statistical
from einkorn.ir.errors import ShapeError


class BCELoss:
    """-(t * log(p) + (1 - t) * log(1 - p)), added up and divided by B, for p and t [B, 1, 1].

    A logarithm is not less than -100, so 0 and 1 are allowed.
    """

    def __init__(self, label: str = "BCELoss") -> None:
        self.label = label

    def __call__(self, pred: Tensor, target: Tensor) -> Tensor:
        batch = _checked("BCELoss", pred, target)
        total = apply(
            lambda p, t: more_losses.binary_cross_entropy(p, t, reduction="sum"), pred, target
        )
        return total * (1 / batch)

    def __repr__(self) -> str:
        return f"BCELoss(name={self.label})"


class CCELoss:
    """-t * log_softmax(p), added up and divided by the number of rows, for p and t [B, n, classes].

    Softmax is applied inside: `pred` holds scores. With `mask=True` class 0 ends a sequence, and
    the rows behind the first one whose target it is do not count.
    """

    def __init__(self, label: str = "CCELoss") -> None:
        self.label = label

    def __call__(self, pred: Tensor, target: Tensor, mask: bool = False) -> Tensor:
        _checked("CCELoss", pred, target)
        rows = apply(lambda p, t: losses.cross_entropy(p, t, reduction="none"), pred, target)
        if not mask:
            return rows.mean(axis=None, keepdims=False)
        ends = ew.astype(ew.equal(target.data[:, :, 0], 1.0), "int64")
        before = ew.subtract(statistical.cumulative_sum(ends, axis=1), ends)
        counts = ew.astype(ew.equal(before, 0), pred.dtype)
        return (rows * counts).sum() / statistical.sum(counts)

    def __repr__(self) -> str:
        return f"CCELoss(name={self.label})"


def _checked(what: str, pred: Tensor, target: Tensor) -> int:
    """The size of the batch."""
    if len(pred.shape) != 3 or pred.shape != target.shape:
        raise ShapeError(
            f"{what}: pred and target have one shape [B, n, classes], got {pred.shape} and "
            f"{target.shape}"
        )
    return pred.shape[0]
