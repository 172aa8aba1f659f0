"""Losses as modules; the functions themselves are in `einkorn.functions.losses`."""

from __future__ import annotations

from typing import Any

from einkorn.functions.losses import cross_entropy, mse_loss
from einkorn.ir.errors import EinkornError
from einkorn.nn.module import Module
from einkorn.tensor import Tensor


def _check_reduction(owner: Module, reduction: Any) -> str:
    if reduction not in ("mean", "sum", "none"):
        raise EinkornError(
            f"{type(owner).__name__}: reduction is 'mean', 'sum' or 'none', got {reduction!r}"
        )
    return reduction


class CrossEntropyLoss(Module):
    """The cross entropy of softmax(logits) with class labels or class probabilities."""

    def __init__(
        self, axis: int = -1, label_smoothing: float = 0.0, reduction: str = "mean"
    ) -> None:
        self.axis = axis
        self.label_smoothing = label_smoothing
        self.reduction = _check_reduction(self, reduction)

    def forward(self, logits: Any, labels: Any) -> Tensor:
        return cross_entropy(
            logits,
            labels,
            axis=self.axis,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
        )


class MSELoss(Module):
    """The mean of the squared differences."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = _check_reduction(self, reduction)

    def forward(self, pred: Any, target: Any) -> Tensor:
        return mse_loss(pred, target, reduction=self.reduction)
