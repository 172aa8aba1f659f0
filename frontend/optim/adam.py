"""Adam and its relatives: running means of the gradients and of their squares."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from einkorn.functions import elementwise as ew
from einkorn.optim.base import Optimizer, Options, Slots
from einkorn.optim.hyper import Hyper
from einkorn.optim.nests import in_dtype_of
from einkorn.tensor import Tensor


class Adam(Optimizer):
    """p - lr * m' / (sqrt(v') + eps) with bias-corrected moments (Kingma & Ba, 2015).

    m = beta1 * m + (1 - beta1) * g and v = beta2 * v + (1 - beta2) * g**2; m' = m / (1 - beta1**t),
    v' = v / (1 - beta2**t), t the number of the step. The corrections are computed in float64.
    """

    slots: ClassVar[tuple[str, ...]] = ("m", "v")
    beta1 = Hyper(below=1.0)
    beta2 = Hyper(below=1.0)
    eps = Hyper()

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        super().__init__(params, lr, weight_decay, **options)

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        beta1, beta2, lr = self.beta1, self.beta2, self.rate(count)
        first = ew.subtract(1.0, ew.pow(beta1, count))
        second = ew.subtract(1.0, ew.pow(beta2, count))
        return {
            "lr": lr,
            "beta1": beta1,
            "rest1": 1.0 - beta1,
            "beta2": beta2,
            "rest2": 1.0 - beta2,
            "eps": self.eps,
            "size": ew.divide(lr, first),
            "unbias": ew.divide(1.0, ew.sqrt(second)),
        }

    def apply_single(
        self, param: Tensor, grad: Tensor, slots: Slots, shared: dict[str, Any]
    ) -> tuple[Tensor, Slots]:
        new = self.moments(grad, slots, shared)
        move = ew.divide(self.advance(grad, new, shared), self.below(new["v"], shared))
        return ew.subtract(param, move), new

    def moments(self, grad: Tensor, slots: Slots, shared: dict[str, Any]) -> Slots:
        """The next running means."""
        m = ew.add(ew.multiply(slots["m"], shared["beta1"]), ew.multiply(grad, shared["rest1"]))
        squares = ew.multiply(ew.multiply(grad, grad), shared["rest2"])
        v = ew.add(ew.multiply(slots["v"], shared["beta2"]), squares)
        return {"m": m, "v": v}

    def advance(self, grad: Tensor, new: Slots, shared: dict[str, Any]) -> Tensor:
        """lr * m'."""
        return ew.multiply(new["m"], in_dtype_of(grad, shared["size"]))

    def below(self, v: Tensor, shared: dict[str, Any]) -> Tensor:
        """sqrt(v') + eps."""
        unbias = in_dtype_of(v, shared["unbias"])  # a product is cheaper than a quotient
        return ew.add(ew.multiply(ew.sqrt(v), unbias), shared["eps"])


class AdamW(Adam):
    """Adam, and p * (1 - lr * weight_decay) before it (Loshchilov & Hutter, 2019)."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        **options: Unpack[Options],
    ) -> None:
        chosen: Options = {"decoupled": True, **options}
        super().__init__(params, lr, beta1, beta2, eps, weight_decay, **chosen)


class AMSGrad(Adam):
    """Adam with the largest v' of all steps below (Reddi et al., 2018).

    As in other libraries the largest v is kept, and corrected for its bias where it is used.
    """

    slots: ClassVar[tuple[str, ...]] = ("m", "v", "largest")

    def apply_single(
        self, param: Tensor, grad: Tensor, slots: Slots, shared: dict[str, Any]
    ) -> tuple[Tensor, Slots]:
        new = self.moments(grad, slots, shared)
        new["largest"] = ew.maximum(slots["largest"], new["v"])
        move = ew.divide(self.advance(grad, new, shared), self.below(new["largest"], shared))
        return ew.subtract(param, move), new


class NAdam(Adam):
    """Adam with Nesterov's momentum (Dozat, 2016), beta1 the same in all steps.

    m' = beta1 * m / (1 - beta1**(t + 1)) + (1 - beta1) * g / (1 - beta1**t).
    """

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        shared = super().coefficients(count)
        later = ew.subtract(1.0, ew.pow(self.beta1, ew.add(count, 1)))
        ahead = ew.divide(shared["lr"] * shared["beta1"], later)
        return {**shared, "ahead": ahead, "now": ew.multiply(shared["size"], shared["rest1"])}

    def advance(self, grad: Tensor, new: Slots, shared: dict[str, Any]) -> Tensor:
        """lr * m'."""
        ahead = ew.multiply(new["m"], in_dtype_of(grad, shared["ahead"]))
        return ew.add(ahead, ew.multiply(grad, in_dtype_of(grad, shared["now"])))


class RAdam(Adam):
    """Adam with a rectified step, without v while its variance is unknown (Liu et al., 2020).

    r = 2 / (1 - beta2) - 1 and r_t = r - 2 * t * beta2**t / (1 - beta2**t); the step is lr * m'
    while r_t <= 5, then lr * m' / (sqrt(v') + eps) times
    sqrt((r_t - 4) * (r_t - 2) * r / ((r - 4) * (r - 2) * r_t)).
    """

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        shared = super().coefficients(count)
        power = ew.pow(self.beta2, count)
        limit = 2.0 / shared["rest2"] - 1.0
        term = ew.divide(ew.multiply(ew.multiply(2.0, count), power), ew.subtract(1.0, power))
        length = ew.subtract(limit, term)
        known = ew.greater(length, 5.0)
        length = ew.where(known, length, limit)
        factor = ew.multiply(ew.subtract(length, 4.0), ew.subtract(length, 2.0))
        factor = ew.divide(ew.multiply(factor, limit), length)
        rectified = ew.sqrt(ew.divide(factor, (limit - 4.0) * (limit - 2.0)))
        size = ew.where(known, ew.multiply(shared["size"], rectified), shared["size"])
        return {**shared, "size": size, "known": known}

    def below(self, v: Tensor, shared: dict[str, Any]) -> Tensor:
        """sqrt(v') + eps, or 1 while the variance of v is unknown."""
        return ew.where(shared["known"], super().below(v, shared), 1.0)


class Adamax(Optimizer):
    """p - lr / (1 - beta1**t) * m / u with u = max(beta2 * u, |g| + eps) (Kingma & Ba, 2015)."""

    slots: ClassVar[tuple[str, ...]] = ("m", "u")
    beta1 = Hyper(below=1.0)
    beta2 = Hyper(below=1.0)
    eps = Hyper()

    def __init__(
        self,
        params: Any,
        lr: Any = 2e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        super().__init__(params, lr, weight_decay, **options)

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        beta1, lr = self.beta1, self.rate(count)
        size = ew.divide(lr, ew.subtract(1.0, ew.pow(beta1, count)))
        return {"lr": lr, "beta1": beta1, "rest1": 1.0 - beta1, "size": size}

    def apply_single(
        self, param: Tensor, grad: Tensor, slots: Slots, shared: dict[str, Any]
    ) -> tuple[Tensor, Slots]:
        m = ew.add(ew.multiply(slots["m"], shared["beta1"]), ew.multiply(grad, shared["rest1"]))
        u = ew.maximum(ew.multiply(slots["u"], self.beta2), ew.add(ew.abs(grad), self.eps))
        move = ew.divide(ew.multiply(m, in_dtype_of(param, shared["size"])), u)
        return ew.subtract(param, move), {"m": m, "u": u}
