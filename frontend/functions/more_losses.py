"""Losses of pairs of values, probabilities, distributions and distances.

Formulas and conventions are PyTorch's. The shapes of predictions and targets must be equal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from einkorn.autocast import single_precision
from einkorn.convert import as_choice, as_flag, as_number, as_tensor, in_dtype, meet, normal_axis
from einkorn.functions import elementwise as ew
from einkorn.functions.floating import in_single
from einkorn.functions.losses import REDUCTIONS, reduced
from einkorn.functions.statistical import sum as sum_over
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import DTypeError, ShapeError

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

LEAST_LOG = -100.0  # the logarithm of a probability of 0


def same_floats(what: str, pred: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Two operands of one float dtype and one shape."""
    a, b = meet(what, pred, target)
    if a.shape != b.shape:
        raise ShapeError(
            f"{what}: pred {a._type} and target {b._type} must have one shape, since "
            "broadcasting them is hardly ever meant; reshape one of them"
        )
    if not a.dtype.is_float:
        raise DTypeError(f"{what}: needs floats, got {a._type}; use .astype('float32') first")
    return a, b


def _weighted(what: str, losses: Tensor, weight: Any, reduction: Any) -> Tensor:
    """Losses times a weight for each, then reduced; the mean is over their number."""
    if weight is not None:
        factor = in_dtype(what, as_tensor(weight, what), losses.dtype)
        weighted = ew.multiply(losses, factor)
        if weighted.shape != losses.shape:
            raise ShapeError(f"{what}: weight must broadcast to {losses._type}, got {factor._type}")
        losses = weighted
    return reduced(what, losses, reduction)


# -- differences -----------------------------------------------------------------------------------


@single_precision
def l1_loss(pred: Any, target: Any, /, *, reduction: str = "mean") -> Tensor:
    """|pred - target|; the gradient is 0 where they are equal."""
    a, b = same_floats("l1_loss", pred, target)
    return reduced("l1_loss", ew.abs(ew.subtract(a, b)), reduction)


@single_precision
def huber_loss(pred: Any, target: Any, /, *, delta: Any = 1.0, reduction: str = "mean") -> Tensor:
    """d**2 / 2 where |d| < delta, else delta * (|d| - delta / 2) (Huber, 1964)."""
    a, b = same_floats("huber_loss", pred, target)
    limit = as_number("huber_loss", delta, "delta is a number")
    if not limit > 0:
        raise ShapeError(f"huber_loss: delta must be positive, got {delta!r}")
    return reduced("huber_loss", _huber(a, b, limit), reduction)


def _huber(a: Tensor, b: Tensor, limit: float) -> Tensor:
    """m * (|d| - m / 2) with m = min(|d|, limit): one formula, also where d is infinite."""
    distance = ew.abs(ew.subtract(a, b))
    least = ew.minimum(distance, limit)
    return ew.multiply(least, ew.subtract(distance, ew.multiply(least, 0.5)))


@single_precision
def smooth_l1_loss(
    pred: Any, target: Any, /, *, beta: Any = 1.0, reduction: str = "mean"
) -> Tensor:
    """d**2 / (2 beta) where |d| < beta, else |d| - beta / 2; |d| for beta 0."""
    what = "smooth_l1_loss"
    a, b = same_floats(what, pred, target)
    limit = as_number(what, beta, "beta is a number")
    if not limit >= 0:
        raise ShapeError(f"{what}: beta must not be negative, got {beta!r}")
    if limit == 0:
        return reduced(what, ew.abs(ew.subtract(a, b)), reduction)
    return reduced(what, ew.divide(_huber(a, b, limit), limit), reduction)


@single_precision
def log_cosh_loss(pred: Any, target: Any, /, *, reduction: str = "mean") -> Tensor:
    """log(cosh(pred - target)), without overflow."""
    a, b = same_floats("log_cosh_loss", pred, target)
    losses = in_single("log_cosh_loss", _log_cosh, a, b)
    return reduced("log_cosh_loss", losses, reduction)


def _log_cosh(a: Tensor, b: Tensor) -> Tensor:
    d = ew.abs(ew.subtract(a, b))
    return ew.subtract(ew.add(d, ew.softplus(ew.multiply(d, -2.0))), math.log(2))


# -- probabilities ---------------------------------------------------------------------------------


@single_precision
def binary_cross_entropy(
    pred: Any, target: Any, /, *, weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """-(target * log(pred) + (1 - target) * log(1 - pred)).

    A logarithm is not less than -100, and has no gradient there. Better keep logits and use
    `binary_cross_entropy_with_logits`.

    Args:
        pred: probabilities.
        target: probabilities, often 0 and 1.
        weight: what each loss is multiplied by; broadcasts.
    """
    what = "binary_cross_entropy"
    p, t = same_floats(what, pred, target)
    yes, no = _log(p), _log(ew.subtract(1.0, p))
    losses = ew.add(ew.multiply(t, yes), ew.multiply(ew.subtract(1.0, t), no))
    return _weighted(what, ew.negative(losses), weight, reduction)


def _log(p: Tensor) -> Tensor:
    """log(p), but LEAST_LOG for 0, and below what a float of that logarithm would be."""
    known = ew.bitwise_invert(ew.less_equal(p, math.exp(LEAST_LOG)))
    return ew.where(known, ew.log(ew.where(known, p, 1.0)), LEAST_LOG)


@single_precision
def binary_cross_entropy_with_logits(
    logits: Any,
    target: Any,
    /,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(logits), computed without overflow or cancellation.

    Args:
        logits: log odds.
        target: probabilities, often 0 and 1.
        weight: what each loss is multiplied by; broadcasts.
        pos_weight: what the part of the target is multiplied by; broadcasts.
    """
    what = "binary_cross_entropy_with_logits"
    x, t = same_floats(what, logits, target)
    softened = ew.softplus(ew.negative(x))
    if pos_weight is not None:
        factor = ew.add(ew.subtract(ew.multiply(t, pos_weight), t), 1.0)
        if factor.shape != x.shape:
            raise ShapeError(f"{what}: pos_weight must broadcast to {x._type}")
        softened = ew.multiply(softened, in_dtype(what, factor, x.dtype))
    losses = ew.add(ew.multiply(ew.subtract(1.0, t), x), softened)
    return _weighted(what, losses, weight, reduction)


@single_precision
def kl_div(
    log_pred: Any, target: Any, /, *, log_target: bool = False, reduction: str = "mean"
) -> Tensor:
    """target * (log(target) - log_pred), 0 where the target is 0 (Kullback & Leibler, 1951).

    Args:
        log_pred: logarithms of probabilities.
        target: probabilities, or their logarithms with `log_target`.
        reduction: also "batchmean": the sum divided by the size of the first axis.
    """
    what = "kl_div"
    x, t = same_floats(what, log_pred, target)
    as_choice(what, "reduction", reduction, (*REDUCTIONS, "batchmean"))
    if as_flag(what, "log_target", log_target):
        losses = ew.multiply(ew.exp(t), ew.subtract(t, x))
    else:
        known = ew.not_equal(t, 0)
        logs = ew.log(ew.where(known, t, 1.0))
        losses = ew.where(known, ew.multiply(t, ew.subtract(logs, x)), 0)
    if reduction != "batchmean":
        return reduced(what, losses, reduction)
    if not losses.ndim:
        raise ShapeError(f"{what}: 'batchmean' needs a first axis, got {losses._type}")
    return ew.divide(sum_over(losses), losses.shape[0])


@single_precision
def poisson_nll_loss(
    pred: Any,
    target: Any,
    /,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: Any = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """exp(pred) - target * pred; pred - target * log(pred + eps) without `log_input`.

    Args:
        full: add Stirling's term t log(t) - t + log(2 pi t) / 2 for targets above 1.
    """
    what = "poisson_nll_loss"
    x, t = same_floats(what, pred, target)
    if as_flag(what, "log_input", log_input):
        losses = ew.subtract(ew.exp(x), ew.multiply(t, x))
    else:
        losses = ew.subtract(x, ew.multiply(t, ew.log(ew.add(x, eps))))
    if as_flag(what, "full", full):
        large = ew.greater(t, 1)
        safe = ew.where(large, t, 1.0)
        half = ew.multiply(ew.log(ew.multiply(safe, 2 * math.pi)), 0.5)
        term = ew.add(ew.subtract(ew.multiply(safe, ew.log(safe)), safe), half)
        losses = ew.add(losses, ew.where(large, term, 0))
    return reduced(what, losses, reduction)


@single_precision
def gaussian_nll_loss(
    pred: Any,
    target: Any,
    var: Any,
    /,
    *,
    full: bool = False,
    eps: Any = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log(var) + (pred - target)**2 / var) / 2 (Nix & Weigend, 1994).

    Args:
        var: variances that broadcast to pred; those below `eps` count as `eps`, with a gradient.
        full: add log(2 pi) / 2.
    """
    what = "gaussian_nll_loss"
    x, t = same_floats(what, pred, target)
    given = in_dtype(what, as_tensor(var, what), x.dtype)
    limited = ew.maximum(given, as_number(what, eps, "eps is a number"))
    safe = ew.add(given, ew.stop_gradient(ew.subtract(limited, given)))
    d = ew.subtract(x, t)
    losses = ew.add(ew.log(safe), ew.divide(ew.multiply(d, d), safe))
    losses = ew.multiply(losses, 0.5)
    if losses.shape != x.shape:
        raise ShapeError(f"{what}: var must broadcast to {x._type}, got {given._type}")
    if as_flag(what, "full", full):
        losses = ew.add(losses, 0.5 * math.log(2 * math.pi))
    return reduced(what, losses, reduction)


# -- margins ---------------------------------------------------------------------------------------


def _above_zero(x: Tensor) -> Tensor:
    """max(x, 0), whose gradient at 0 is 1."""
    return ew.clip(x, 0.0, None)


@single_precision
def hinge_loss(pred: Any, target: Any, /, *, margin: Any = 1.0, reduction: str = "mean") -> Tensor:
    """max(0, margin - target * pred) for targets 1 and -1; the gradient counts at the bend."""
    x, y = same_floats("hinge_loss", pred, target)
    losses = _above_zero(ew.subtract(margin, ew.multiply(y, x)))
    return reduced("hinge_loss", losses, reduction)


@single_precision
def hinge_embedding_loss(
    pred: Any, target: Any, /, *, margin: Any = 1.0, reduction: str = "mean"
) -> Tensor:
    """pred where the target is 1, max(0, margin - pred) where it is -1."""
    x, y = same_floats("hinge_embedding_loss", pred, target)
    near = ew.where(ew.equal(y, -1), 0, x)
    far = ew.where(ew.equal(y, 1), 0, _above_zero(ew.subtract(margin, x)))
    return reduced("hinge_embedding_loss", ew.add(near, far), reduction)


@single_precision
def soft_margin_loss(pred: Any, target: Any, /, *, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * pred)) for targets 1 and -1."""
    x, y = same_floats("soft_margin_loss", pred, target)
    return reduced("soft_margin_loss", ew.softplus(ew.negative(ew.multiply(y, x))), reduction)


@single_precision
def margin_ranking_loss(
    first: Any, second: Any, target: Any, /, *, margin: Any = 0.0, reduction: str = "mean"
) -> Tensor:
    """max(0, margin - target * (first - second)): target 1 wants the first one to be larger."""
    what = "margin_ranking_loss"
    a, b = same_floats(what, first, second)
    _, y = same_floats(what, a, target)
    losses = _above_zero(ew.subtract(margin, ew.multiply(y, ew.subtract(a, b))))
    return reduced(what, losses, reduction)


# -- distances -------------------------------------------------------------------------------------


def _wide(x: Tensor) -> Tensor:
    return ew.cast(x, float32) if x.dtype.itemsize == 2 else x


def _root(x: Tensor, least: float) -> Tensor:
    """sqrt(max(x, least)), with no gradient below; NaN stays."""
    below = ew.less(x, least)
    return ew.where(below, math.sqrt(least), ew.sqrt(ew.where(below, 1.0, x)))


def _broadcast_pair(what: str, x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    a, b = meet(what, x1, x2)
    if not a.dtype.is_float:
        raise DTypeError(f"{what}: needs floats, got {a._type}")
    return a, b


@single_precision
def cosine_similarity(x1: Any, x2: Any, /, *, axis: int = -1, eps: Any = 1e-8) -> Tensor:
    """x1 . x2 / (max(|x1|, eps) * max(|x2|, eps)) along an axis; the operands broadcast."""
    what = "cosine_similarity"
    a, b = _broadcast_pair(what, x1, x2)
    least = as_number(what, eps, "eps is a number")
    if not least > 0:
        raise ShapeError(f"{what}: eps must be positive, got {eps!r}")
    wide_a, wide_b = _wide(a), _wide(b)
    at = normal_axis(what, axis, max(a.ndim, b.ndim)) - max(a.ndim, b.ndim)
    if min(a.ndim, b.ndim) < -at:
        raise ShapeError(f"{what}: {a._type} and {b._type} do not both have axis {axis}")
    parts = [
        ew.divide(x, _root(sum_over(ew.multiply(x, x), axis=at, keepdims=True), least * least))
        for x in (wide_a, wide_b)
    ]
    return ew.cast(sum_over(ew.multiply(*parts), axis=at), a.dtype)


@single_precision
def cosine_embedding_loss(
    x1: Any, x2: Any, target: Any, /, *, margin: Any = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cos(x1, x2) where the target is 1, max(0, cos - margin) where it is -1.

    Args:
        x1, x2: [..., D]; target: [...].
    """
    what = "cosine_embedding_loss"
    a, b = same_floats(what, x1, x2)
    y = as_tensor(target, what)
    if not a.ndim or y.shape != a.shape[:-1]:
        raise ShapeError(
            f"{what}: the target has one number for each row of {a._type}, got {y._type}"
        )
    cosine = _cosine(a, b)
    near = ew.where(ew.equal(y, 1), ew.subtract(1.0, cosine), 0)
    far = ew.where(ew.equal(y, -1), _above_zero(ew.subtract(cosine, margin)), 0)
    return reduced(what, ew.add(near, far), reduction)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of rows, with 1e-12 added to each square of a length."""
    x, y = _wide(a), _wide(b)
    dot, first, second = (
        sum_over(ew.multiply(*pair), axis=-1) for pair in ((x, y), (x, x), (y, y))
    )
    lengths = ew.sqrt(ew.multiply(ew.add(first, 1e-12), ew.add(second, 1e-12)))
    return ew.cast(ew.divide(dot, lengths), a.dtype)


@single_precision
def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    /,
    *,
    margin: Any = 1.0,
    eps: Any = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + margin) for rows of one shape.

    Args:
        eps: added to each difference, so that lengths have a gradient.
        swap: use the smaller of the negative's distances to the anchor and to the positive
            (Balntas et al., 2016).
    """
    what = "triplet_margin_loss"
    a, p = same_floats(what, anchor, positive)
    _, n = same_floats(what, a, negative)
    if not a.ndim:
        raise ShapeError(f"{what}: needs rows, got {a._type}")

    def distance(x: Tensor, y: Tensor) -> Tensor:
        d = ew.add(ew.subtract(_wide(x), _wide(y)), eps)
        return _root(sum_over(ew.multiply(d, d), axis=-1), 0.0)

    far = distance(a, n)
    if as_flag(what, "swap", swap):
        far = ew.minimum(far, distance(p, n))
    losses = _above_zero(ew.add(ew.subtract(distance(a, p), far), margin))
    return reduced(what, ew.cast(losses, a.dtype), reduction)
