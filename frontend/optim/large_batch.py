"""Optimizers for large batches: the step of each tensor is in proportion to its norm."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from einkorn.functions import elementwise as ew
from einkorn.optim.adam import Adam
from einkorn.optim.base import Optimizer, Options, Slots
from einkorn.optim.clipping import square_sum
from einkorn.optim.hyper import Hyper
from einkorn.optim.nests import in_dtype_of
from einkorn.tensor import Tensor


class LARS(Optimizer):
    """p - m with m = momentum * m + lr * rate * (g + weight_decay * p) (You et al., 2017).

    rate = trust * |p| / (|g| + weight_decay * |p| + eps) for each tensor, 1 where |p| or |g| is 0;
    |p| is the Euclidean norm.
    """

    slots: ClassVar[tuple[str, ...]] = ("m",)
    decays_itself: ClassVar[bool] = True
    momentum = Hyper(below=1.0)
    trust = Hyper(positive=True)
    eps = Hyper()

    def __init__(
        self,
        params: Any,
        lr: Any,
        momentum: float = 0.9,
        trust: float = 1e-3,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        self.momentum, self.trust, self.eps = momentum, trust, eps
        super().__init__(params, lr, weight_decay, **options)

    def apply_single(
        self, param: Tensor, grad: Tensor, slots: Slots, shared: dict[str, Any]
    ) -> tuple[Tensor, Slots]:
        decay, size, slope = self.weight_decay, norm(param), norm(grad)
        below = ew.add(ew.add(slope, ew.multiply(size, decay)), self.eps)
        ratio = ew.divide(ew.multiply(size, self.trust), below)
        rate = ew.multiply(where_both(size, slope, ratio), self.rate_for(size, shared))
        move = ew.add(grad, ew.multiply(param, decay))
        move = ew.multiply(move, in_dtype_of(param, rate))
        m = ew.add(ew.multiply(slots["m"], self.momentum), move)
        return ew.subtract(param, m), {"m": m}


class LAMB(Adam):
    """p - lr * ratio * u with u = m' / (sqrt(v') + eps) + weight_decay * p (You et al., 2020).

    m' and v' are those of Adam; ratio = min(|p|, max_norm) / |u| for each tensor, 1 where |p| or
    |u| is 0; |p| is the Euclidean norm, and without `max_norm` it has no limit.
    """

    decays_itself: ClassVar[bool] = True
    max_norm = Hyper(positive=True, optional=True)

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_norm: float | None = 10.0,
        **options: Unpack[Options],
    ) -> None:
        self.max_norm = max_norm
        super().__init__(params, lr, beta1, beta2, eps, weight_decay, **options)

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        unscaled = ew.divide(1.0, ew.subtract(1.0, ew.pow(self.beta1, count)))
        return {**super().coefficients(count), "size": unscaled}

    def apply_single(
        self, param: Tensor, grad: Tensor, slots: Slots, shared: dict[str, Any]
    ) -> tuple[Tensor, Slots]:
        new = self.moments(grad, slots, shared)
        move = ew.divide(self.advance(grad, new, shared), self.below(new["v"], shared))
        move = ew.add(move, ew.multiply(param, self.weight_decay))
        size, length, limit = norm(param), norm(move), self.max_norm
        ratio = ew.divide(size if limit is None else ew.minimum(size, limit), length)
        rate = ew.multiply(where_both(size, length, ratio), self.rate_for(size, shared))
        return ew.subtract(param, ew.multiply(move, in_dtype_of(param, rate))), new


def norm(x: Tensor) -> Tensor:
    """The Euclidean norm of a tensor, in float32 or wider."""
    return ew.sqrt(square_sum(x, "norm"))


def where_both(a: Tensor, b: Tensor, ratio: Tensor) -> Tensor:
    """`ratio` where both norms are above 0, else 1."""
    both = ew.bitwise_and(ew.greater(a, 0.0), ew.greater(b, 0.0))
    return ew.where(both, ratio, 1.0)
