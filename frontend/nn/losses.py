"""Losses as modules; the functions themselves are in `einkorn.functions`.

Predictions and targets have one shape unless stated otherwise. Targets that are integers or bools
become floats where floats are needed. The options of `Loss` (reduction, weight, on) are keywords.
"""

from __future__ import annotations

from typing import Any

from einkorn.convert import as_tensor, normal_axis
from einkorn.functions import elementwise as ew
from einkorn.functions import losses as fl
from einkorn.functions import more_losses as ml
from einkorn.functions.indexing import take
from einkorn.functions.similarity import ssim_loss
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.nn.loss import Loss
from einkorn.nn.settings import check_axis, check_flag, check_number
from einkorn.tensor import Tensor

LEAST_PROBABILITY = 1e-7


def _floats(y_true: Any, y_pred: Any) -> Tensor:
    """Targets as floats: those that are none in the dtype of the predictions."""
    target, like = as_tensor(y_true, "a loss"), as_tensor(y_pred, "a loss")
    return target if target.dtype.is_float else ew.astype(target, like.dtype)


def _some(loss: Loss, values: Any, count: int, names: str) -> Any:
    """Predictions that are several tensors."""
    if not isinstance(values, (tuple, list)) or len(values) != count:
        kind = type(values).__name__
        raise EinkornError(f"{type(loss).__name__}: y_pred is ({names}), got one {kind}")
    return values


# -- classes ---------------------------------------------------------------------------------------


class CrossEntropyLoss(Loss):
    """-log(softmax(logits)[label]), or -sum(p * log(softmax(logits))) for probabilities p.

    y_pred (..., classes) has the classes along `axis`; y_true holds integers in the shape without
    that axis, or probabilities in the same shape. One loss for each label.

    Args:
        label_smoothing: the share of each label that is spread evenly (Szegedy et al., 2016).
        from_logits: False for predictions that are probabilities, which are normalised.
        class_weight: one number for each class; the mean over integer labels is then weighted.
        ignore_index: a label that counts nowhere.

    Raises:
        BoundsError: a label is no class, eager and compiled.
    """

    def __init__(
        self,
        axis: int = -1,
        label_smoothing: float = 0.0,
        *,
        from_logits: bool = True,
        class_weight: Any = None,
        ignore_index: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.axis = check_axis("CrossEntropyLoss", axis)
        self.label_smoothing = check_number(
            "CrossEntropyLoss", "label_smoothing", label_smoothing, 0.0
        )
        self.from_logits = check_flag("CrossEntropyLoss", "from_logits", from_logits)
        self.class_weight, self.ignore_index = class_weight, ignore_index

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        scores = y_pred if self.from_logits else ew.log(ew.maximum(y_pred, LEAST_PROBABILITY))
        return fl.cross_entropy(
            scores,
            y_true,
            axis=self.axis,
            weight=self.class_weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )

    def counted(self, y_pred: Any, y_true: Any) -> Tensor | None:
        return _counted(self.class_weight, self.ignore_index, y_true, as_tensor(y_pred, "a loss"))


class NLLLoss(Loss):
    """-y_pred[label] for log probabilities y_pred (..., classes); see `CrossEntropyLoss`."""

    def __init__(
        self,
        axis: int = -1,
        *,
        class_weight: Any = None,
        ignore_index: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.axis = check_axis("NLLLoss", axis)
        self.class_weight, self.ignore_index = class_weight, ignore_index

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        return fl.nll_loss(
            y_pred,
            y_true,
            axis=self.axis,
            weight=self.class_weight,
            ignore_index=self.ignore_index,
            reduction="none",
        )

    def counted(self, y_pred: Any, y_true: Any) -> Tensor | None:
        return _counted(self.class_weight, self.ignore_index, y_true, as_tensor(y_pred, "a loss"))


def _counted(weight: Any, ignored: int | None, y_true: Any, like: Tensor) -> Tensor | None:
    """For labels that are classes the weight of each, 0 for those that are ignored."""
    labels = as_tensor(y_true, "a loss")
    if not labels.dtype.is_integer or (weight is None and ignored is None):
        return None
    dtype = like.dtype if like.dtype.itemsize > 2 else "float32"
    counted = None if ignored is None else ew.not_equal(labels, ignored)
    if weight is None:
        assert counted is not None
        return ew.astype(counted, dtype)
    places = labels if counted is None else ew.where(counted, labels, 0)
    weights = ew.astype(take(as_tensor(weight, "a loss"), places, axis=0), dtype)
    return weights if counted is None else ew.where(counted, weights, 0)


class BinaryCrossEntropyLoss(Loss):
    """-(t log(p) + (1 - t) log(1 - p)) with p = sigmoid(y_pred), or y_pred without `from_logits`.

    Args:
        from_logits: whether predictions are log odds; False for probabilities.
        label_smoothing: targets t become t (1 - s) + s / 2.
        pos_weight: what the first term is multiplied by, for logits.
    """

    def __init__(
        self,
        from_logits: bool = True,
        label_smoothing: float = 0.0,
        *,
        pos_weight: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        name = "BinaryCrossEntropyLoss"
        self.from_logits = check_flag(name, "from_logits", from_logits)
        self.label_smoothing = check_number(name, "label_smoothing", label_smoothing, 0.0)
        if pos_weight is not None and not from_logits:
            raise EinkornError(f"{name}: pos_weight is for predictions that are logits")
        self.pos_weight = pos_weight

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        target = _floats(y_true, y_pred)
        if self.label_smoothing != 0.0:
            kept, even = 1.0 - self.label_smoothing, self.label_smoothing / 2
            target = ew.add(ew.multiply(target, kept), even)
        if not self.from_logits:
            return ml.binary_cross_entropy(y_pred, target, reduction="none")
        return ml.binary_cross_entropy_with_logits(
            y_pred, target, pos_weight=self.pos_weight, reduction="none"
        )


class KLDivLoss(Loss):
    """t (log(t) - y_pred) for log probabilities y_pred and probabilities t.

    Args:
        log_target: targets are log probabilities, too.
    """

    def __init__(self, log_target: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.log_target = check_flag("KLDivLoss", "log_target", log_target)

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        return ml.kl_div(y_pred, y_true, log_target=self.log_target, reduction="none")


# -- distances -------------------------------------------------------------------------------------


class MSELoss(Loss):
    """(y_pred - y_true)**2."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        return fl.mse_loss(y_pred, _floats(y_true, y_pred), reduction="none")


class L1Loss(Loss):
    """|y_pred - y_true|; the mean is the mean absolute error."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        return ml.l1_loss(y_pred, _floats(y_true, y_pred), reduction="none")


class MAPELoss(Loss):
    """100 |y_pred - y_true| / max(|y_true|, 1e-7); the mean absolute percentage error."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        target = _floats(y_true, y_pred)
        distance = ml.l1_loss(y_pred, target, reduction="none")
        size = ew.maximum(ew.abs(target), LEAST_PROBABILITY)
        return ew.multiply(ew.divide(distance, ew.astype(size, distance.dtype)), 100.0)


class MSLELoss(Loss):
    """(log(1 + y_pred) - log(1 + y_true))**2, both at least 1e-7."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        logs = [
            ew.log1p(ew.maximum(x, LEAST_PROBABILITY)) for x in (y_pred, _floats(y_true, y_pred))
        ]
        return fl.mse_loss(*logs, reduction="none")


class HuberLoss(Loss):
    """d**2 / 2 where |d| < delta, else delta (|d| - delta / 2) (Huber, 1964)."""

    def __init__(self, delta: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.delta = check_number("HuberLoss", "delta", delta)
        if not self.delta > 0:
            raise EinkornError(f"HuberLoss: delta must be positive, got {delta!r}")

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        target = _floats(y_true, y_pred)
        return ml.huber_loss(y_pred, target, delta=self.delta, reduction="none")


class SmoothL1Loss(Loss):
    """d**2 / (2 beta) where |d| < beta, else |d| - beta / 2 (Girshick, 2015)."""

    def __init__(self, beta: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.beta = check_number("SmoothL1Loss", "beta", beta, 0.0)

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        target = _floats(y_true, y_pred)
        return ml.smooth_l1_loss(y_pred, target, beta=self.beta, reduction="none")


class LogCoshLoss(Loss):
    """log(cosh(y_pred - y_true))."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        return ml.log_cosh_loss(y_pred, _floats(y_true, y_pred), reduction="none")


class PoissonNLLLoss(Loss):
    """exp(x) - t x, or x - t log(x + 1e-8) without `log_input`.

    Args:
        full: add Stirling's term t log(t) - t + log(2 pi t) / 2 for targets above 1. With it and
            `log_input` this is also known as the log-Poisson loss.
    """

    def __init__(self, log_input: bool = True, full: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.log_input = check_flag("PoissonNLLLoss", "log_input", log_input)
        self.full = check_flag("PoissonNLLLoss", "full", full)

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        return ml.poisson_nll_loss(
            y_pred,
            _floats(y_true, y_pred),
            log_input=self.log_input,
            full=self.full,
            reduction="none",
        )


class LogPoissonLoss(PoissonNLLLoss):
    """exp(x) - t x for logarithms x of the expected counts."""

    def __init__(self, full: bool = False, **options: Any) -> None:
        super().__init__(True, full, **options)


class GaussianNLLLoss(Loss):
    """(log(var) + (mean - y_true)**2 / var) / 2 for y_pred = (mean, var) (Nix & Weigend, 1994).

    Args:
        full: add log(2 pi) / 2.
        eps: the least variance.
    """

    def __init__(self, full: bool = False, eps: float = 1e-6, **options: Any) -> None:
        super().__init__(**options)
        self.full = check_flag("GaussianNLLLoss", "full", full)
        self.eps = check_number("GaussianNLLLoss", "eps", eps, 0.0)

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        centre, var = _some(self, y_pred, 2, "mean, var")
        target = _floats(y_true, centre)
        return ml.gaussian_nll_loss(
            centre, target, var, full=self.full, eps=self.eps, reduction="none"
        )


# -- margins ---------------------------------------------------------------------------------------


class HingeLoss(Loss):
    """max(0, margin - y_true y_pred) for targets 1 and -1."""

    def __init__(self, margin: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.margin = check_number("HingeLoss", "margin", margin)

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        target = _floats(y_true, y_pred)
        return ml.hinge_loss(y_pred, target, margin=self.margin, reduction="none")


class HingeEmbeddingLoss(HingeLoss):
    """y_pred where the target is 1, max(0, margin - y_pred) where it is -1."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        target = _floats(y_true, y_pred)
        return ml.hinge_embedding_loss(y_pred, target, margin=self.margin, reduction="none")


class SoftMarginLoss(Loss):
    """log(1 + exp(-y_true y_pred)) for targets 1 and -1."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        return ml.soft_margin_loss(y_pred, _floats(y_true, y_pred), reduction="none")


class MarginRankingLoss(Loss):
    """max(0, margin - y_true (a - b)) for y_pred = (a, b); target 1 wants a to be larger."""

    def __init__(self, margin: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.margin = check_number("MarginRankingLoss", "margin", margin)

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        a, b = _some(self, y_pred, 2, "first, second")
        return ml.margin_ranking_loss(
            a, b, _floats(y_true, a), margin=self.margin, reduction="none"
        )


class CosineSimilarityLoss(Loss):
    """-cos(y_pred, y_true) along an axis, one loss for each pair of vectors."""

    def __init__(self, axis: int = -1, **options: Any) -> None:
        super().__init__(**options)
        self.axis = check_axis("CosineSimilarityLoss", axis)

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        pred = as_tensor(y_pred, "CosineSimilarityLoss")
        axis = normal_axis("CosineSimilarityLoss", self.axis, pred.ndim)
        return ew.negative(ml.cosine_similarity(pred, _floats(y_true, pred), axis=axis))


class CosineEmbeddingLoss(MarginRankingLoss):
    """1 - cos(a, b) where the target is 1, max(0, cos - margin) where it is -1.

    y_pred is (a, b), both (..., features), and y_true is (...).
    """

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        a, b = _some(self, y_pred, 2, "first, second")
        return ml.cosine_embedding_loss(
            a, b, _floats(y_true, a), margin=self.margin, reduction="none"
        )


class TripletMarginLoss(Loss):
    """max(0, |a - p| - |a - n| + margin) for y_pred = (a, p, n), all (..., features); no y_true.

    Args:
        swap: take |p - n| in place of |a - n| where it is less (Balntas et al., 2016).
    """

    def __init__(self, margin: float = 1.0, swap: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.margin = check_number("TripletMarginLoss", "margin", margin)
        self.swap = check_flag("TripletMarginLoss", "swap", swap)

    def elementwise(self, y_pred: Any, y_true: Any = None) -> Tensor:
        a, p, n = _some(self, y_pred, 3, "anchor, positive, negative")
        return ml.triplet_margin_loss(a, p, n, margin=self.margin, swap=self.swap, reduction="none")


class WassersteinLoss(Loss):
    """-y_true y_pred for critics' scores: targets 1 for real, -1 for generated (Arjovsky, 2017)."""

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        scores, target = as_tensor(y_pred, "WassersteinLoss"), _floats(y_true, y_pred)
        if scores.shape != target.shape:
            raise ShapeError(
                f"WassersteinLoss: predictions {scores._type} and targets {target._type} must have "
                "one shape; reshape one of them"
            )
        return ew.negative(ew.multiply(scores, target))


class SSIMLoss(Loss):
    """1 - the structural similarity of images (n, height, width, channels), one loss for each.

    Args:
        data_range: what lies between the least and the largest value that a pixel may have.
        window, sigma: the side of the Gaussian window and its standard deviation, in pixels.
        data_format: "NHWC" or "NCHW".

    Source: Wang et al., 2004.
    """

    def __init__(
        self,
        data_range: float = 1.0,
        window: int = 11,
        sigma: float = 1.5,
        data_format: str = "NHWC",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.data_range = check_number("SSIMLoss", "data_range", data_range)
        self.window, self.sigma, self.data_format = window, sigma, data_format

    def elementwise(self, y_pred: Any, y_true: Any) -> Tensor:
        return ssim_loss(
            y_pred,
            _floats(y_true, y_pred),
            data_range=self.data_range,
            window=self.window,
            sigma=self.sigma,
            data_format=self.data_format,
            reduction="none",
        )
