"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from typing import Any, ClassVar

from einkorn.functions import elementwise as ew
from einkorn.optim.base import Hyper, Optimizer, Slots, in_dtype_of
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
    ) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        super().__init__(params, lr)

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
        m = ew.add(ew.multiply(slots["m"], shared["beta1"]), ew.multiply(grad, shared["rest1"]))
        squares = ew.multiply(ew.multiply(grad, grad), shared["rest2"])
        v = ew.add(ew.multiply(slots["v"], shared["beta2"]), squares)
        unbias = in_dtype_of(param, shared["unbias"])  # a product is cheaper than a quotient
        below = ew.add(ew.multiply(ew.sqrt(v), unbias), shared["eps"])
        move = ew.divide(ew.multiply(m, in_dtype_of(param, shared["size"])), below)
        return ew.subtract(self.decayed(param, shared), move), {"m": m, "v": v}

    def decayed(self, param: Tensor, shared: dict[str, Any]) -> Tensor:
        """The parameter that the move is subtracted from."""
        return param


class AdamW(Adam):
    """Adam, and p * (1 - lr * weight_decay) before it (Loshchilov & Hutter, 2019)."""

    weight_decay = Hyper()

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        self.weight_decay = weight_decay
        super().__init__(params, lr, beta1, beta2, eps)

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        shared = super().coefficients(count)
        return {**shared, "kept": 1.0 - shared["lr"] * self.weight_decay}

    def decayed(self, param: Tensor, shared: dict[str, Any]) -> Tensor:
        return ew.multiply(param, in_dtype_of(param, shared["kept"]))
