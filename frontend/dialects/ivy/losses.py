"""Ivy's losses: functions of (true, pred), and modules with its defaults.

Where an `axis` is given, the reduction ("none", "sum" or "mean") is over that axis.
"""

from __future__ import annotations

from typing import Any

from einkorn.convert import as_choice, as_tensor
from einkorn.dialects.ivy.modules import Module
from einkorn.functions import elementwise as ew
from einkorn.functions import more_losses as ml
from einkorn.functions import statistical as st
from einkorn.functions.losses import one_hot
from einkorn.ir.errors import EinkornError
from einkorn.tensor import Tensor

REDUCTIONS = ("none", "sum", "mean")

MSG_SETTING = "{owner} has the settings {known}, got {found!r}"


def _reduced(what: str, losses: Tensor, reduction: str, axis: Any) -> Tensor:
    as_choice(what, "reduction", reduction, REDUCTIONS)
    if reduction == "none":
        return losses
    return (st.sum if reduction == "sum" else st.mean)(losses, axis=axis)


def cross_entropy(
    true: Any,
    pred: Any,
    /,
    *,
    axis: int | None = -1,
    epsilon: float = 1e-7,
    reduction: str = "mean",
) -> Tensor:
    """-true * log(pred) for probabilities, brought into [epsilon, 1 - epsilon], along an axis."""
    limited = ew.clip(as_tensor(pred, "cross_entropy"), epsilon, 1 - epsilon)
    losses = ew.negative(ew.multiply(ew.log(limited), true))
    return _reduced("cross_entropy", losses, reduction, axis)


def sparse_cross_entropy(
    true: Any, pred: Any, /, *, axis: int = -1, epsilon: float = 1e-7, reduction: str = "mean"
) -> Tensor:
    """`cross_entropy` for classes, integers in the shape of `pred` without its last axis."""
    like = as_tensor(pred, "sparse_cross_entropy")
    chosen = one_hot(true, like.shape[axis], dtype=like.dtype)
    return cross_entropy(chosen, like, axis=axis, epsilon=epsilon, reduction=reduction)


def binary_cross_entropy(
    true: Any,
    pred: Any,
    /,
    *,
    from_logits: bool = False,
    epsilon: float = 0.0,
    reduction: str = "mean",
    pos_weight: Any = None,
    axis: int | None = None,
) -> Tensor:
    """-(true * log(p) + (1 - true) * log(1 - p)) for p = pred, or its sigmoid with from_logits.

    Args:
        epsilon: p is brought into [epsilon, 1 - epsilon].
        pos_weight: what the first term is multiplied by, for logits.
    """
    what = "binary_cross_entropy"
    given = as_tensor(pred, what)
    target = ew.astype(as_tensor(true, what), given.dtype)
    if from_logits:
        losses = ml.binary_cross_entropy_with_logits(
            given, target, pos_weight=pos_weight, reduction="none"
        )
    else:
        limited = ew.clip(given, epsilon, 1 - epsilon) if epsilon else given
        losses = ml.binary_cross_entropy(limited, target, reduction="none")
    return _reduced(what, losses, reduction, axis)


def log_poisson_loss(
    true: Any,
    pred: Any,
    /,
    *,
    compute_full_loss: bool = False,
    axis: int | None = -1,
    reduction: str = "none",
) -> Tensor:
    """exp(pred) - true * pred for logarithms `pred` of expected counts.

    Args:
        compute_full_loss: add Stirling's approximation of log(true!) for counts above 1.
    """
    losses = ml.poisson_nll_loss(pred, true, full=compute_full_loss, reduction="none")
    return _reduced("log_poisson_loss", losses, reduction, axis)


def huber_loss(true: Any, pred: Any, /, *, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """Half the squared difference where it is at most delta, else linear (Huber, 1964)."""
    return ml.huber_loss(pred, true, delta=delta, reduction=reduction)


def wasserstein_loss_generator(pred_fake: Any, /) -> Tensor:
    """-mean(pred_fake), for what a critic says of generated samples (Arjovsky et al., 2017)."""
    return ew.negative(st.mean(as_tensor(pred_fake, "wasserstein_loss_generator")))


def wasserstein_loss_discriminator(p_real: Any, p_fake: Any, /) -> Tensor:
    """mean(p_fake) - mean(p_real), for what a critic says of samples (Arjovsky et al., 2017)."""
    what = "wasserstein_loss_discriminator"
    return ew.subtract(st.mean(as_tensor(p_fake, what)), st.mean(as_tensor(p_real, what)))


class _Loss(Module):
    """A loss whose settings a call can replace: loss(true, pred, reduction="mean")."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        Module.__init__(self)

    def _forward(self, true: Any, pred: Any, **changed: Any) -> Tensor:
        unknown = changed.keys() - self._settings.keys()
        if unknown:
            known = ", ".join(self._settings)
            raise EinkornError(
                MSG_SETTING.format(owner=type(self).__name__, known=known, found=min(unknown))
            )
        return self._function(true, pred, **{**self._settings, **changed})

    def _function(self, true: Any, pred: Any, **settings: Any) -> Tensor:
        raise NotImplementedError

    def _extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self._settings.items())


class CrossEntropyLoss(_Loss):
    """`cross_entropy`, by default the sum along the last axis."""

    def __init__(
        self, *, axis: int | None = -1, epsilon: float = 1e-7, reduction: str = "sum"
    ) -> None:
        super().__init__(axis=axis, epsilon=epsilon, reduction=reduction)

    def _function(self, true: Any, pred: Any, **settings: Any) -> Tensor:
        return cross_entropy(true, pred, **settings)


class BinaryCrossEntropyLoss(_Loss):
    """`binary_cross_entropy`, by default of each element."""

    def __init__(
        self,
        *,
        from_logits: bool = False,
        epsilon: float = 0.0,
        reduction: str = "none",
        pos_weight: Any = None,
        axis: int | None = None,
    ) -> None:
        super().__init__(
            from_logits=from_logits,
            epsilon=epsilon,
            reduction=reduction,
            pos_weight=pos_weight,
            axis=axis,
        )

    def _function(self, true: Any, pred: Any, **settings: Any) -> Tensor:
        return binary_cross_entropy(true, pred, **settings)


class LogPoissonLoss(_Loss):
    """`log_poisson_loss`, by default of each element."""

    def __init__(
        self, *, compute_full_loss: bool = False, axis: int | None = -1, reduction: str = "none"
    ) -> None:
        super().__init__(compute_full_loss=compute_full_loss, axis=axis, reduction=reduction)

    def _function(self, true: Any, pred: Any, **settings: Any) -> Tensor:
        return log_poisson_loss(true, pred, **settings)
