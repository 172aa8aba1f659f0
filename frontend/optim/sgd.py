"""Gradient descent: plain, with momentum, and scaled by past squares."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from einkorn.functions import elementwise as ew
from einkorn.ir.errors import EinkornError
from einkorn.optim.base import Optimizer, Options, Slots
from einkorn.optim.hyper import Hyper
from einkorn.tensor import Tensor
from einkorn.tunable import Mode


class SGD(Optimizer):
    """p - lr * (g + weight_decay * p)."""

    def __init__(
        self, params: Any, lr: Any, weight_decay: float = 0.0, **options: Unpack[Options]
    ) -> None:
        super().__init__(params, lr, weight_decay, **options)

    def apply_single(
        self, param: Tensor, grad: Tensor, slots: Slots, shared: dict[str, Any]
    ) -> tuple[Tensor, Slots]:
        move, slots = self.direction(grad, slots, shared)
        return ew.subtract(param, ew.multiply(move, self.rate_for(param, shared))), slots

    def direction(self, grad: Tensor, slots: Slots, shared: dict[str, Any]) -> tuple[Tensor, Slots]:
        """What the learning rate multiplies, and the next slots."""
        return grad, slots


class Momentum(SGD):
    """SGD along m = momentum * m + g (Polyak, 1964; Sutskever et al., 2013, with `nesterov`)."""

    slots: ClassVar[tuple[str, ...]] = ("m",)
    momentum = Hyper(below=1.0)
    nesterov = Mode()

    def __init__(
        self,
        params: Any,
        lr: Any,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        if not isinstance(nesterov, bool):
            raise EinkornError(f"Momentum: nesterov is True or False, got {nesterov!r}")
        self.momentum, self.nesterov = momentum, nesterov
        super().__init__(params, lr, weight_decay, **options)

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        return {**super().coefficients(count), "momentum": self.momentum}

    def direction(self, grad: Tensor, slots: Slots, shared: dict[str, Any]) -> tuple[Tensor, Slots]:
        m = ew.add(ew.multiply(slots["m"], shared["momentum"]), grad)
        if self.nesterov:
            return ew.add(grad, ew.multiply(m, shared["momentum"])), {"m": m}
        return m, {"m": m}


class RMSProp(SGD):
    """SGD along g / (sqrt(v) + eps), v a running mean of g**2 (Tieleman & Hinton, 2012).

    v = alpha * v + (1 - alpha) * g**2.
    """

    slots: ClassVar[tuple[str, ...]] = ("v",)
    alpha = Hyper(below=1.0)
    eps = Hyper()

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        self.alpha, self.eps = alpha, eps
        super().__init__(params, lr, weight_decay, **options)

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        alpha = self.alpha
        more = {"alpha": alpha, "rest": 1.0 - alpha, "eps": self.eps}
        return {**super().coefficients(count), **more}

    def direction(self, grad: Tensor, slots: Slots, shared: dict[str, Any]) -> tuple[Tensor, Slots]:
        old = ew.multiply(slots["v"], shared["alpha"])
        v = ew.add(old, ew.multiply(ew.multiply(grad, grad), shared["rest"]))
        return ew.divide(grad, ew.add(ew.sqrt(v), shared["eps"])), {"v": v}


class Adagrad(SGD):
    """SGD along g / (sqrt(v) + eps) with v the sum of all g**2 (Duchi et al., 2011)."""

    slots: ClassVar[tuple[str, ...]] = ("v",)
    eps = Hyper()

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-2,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        self.eps = eps
        super().__init__(params, lr, weight_decay, **options)

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        return {**super().coefficients(count), "eps": self.eps}

    def direction(self, grad: Tensor, slots: Slots, shared: dict[str, Any]) -> tuple[Tensor, Slots]:
        v = ew.add(slots["v"], ew.multiply(grad, grad))
        return ew.divide(grad, ew.add(ew.sqrt(v), shared["eps"])), {"v": v}


class Adadelta(SGD):
    """SGD along d = g * sqrt(u + eps) / sqrt(v + eps) (Zeiler, 2012).

    v is a running mean of g**2, then u one of d**2: v = rho * v + (1 - rho) * g**2.
    """

    slots: ClassVar[tuple[str, ...]] = ("v", "u")
    rho = Hyper(below=1.0)
    eps = Hyper()

    def __init__(
        self,
        params: Any,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        self.rho, self.eps = rho, eps
        super().__init__(params, lr, weight_decay, **options)

    def coefficients(self, count: Tensor) -> dict[str, Any]:
        rho = self.rho
        return {**super().coefficients(count), "rho": rho, "rest": 1.0 - rho, "eps": self.eps}

    def direction(self, grad: Tensor, slots: Slots, shared: dict[str, Any]) -> tuple[Tensor, Slots]:
        def mean(old: Tensor, x: Tensor) -> Tensor:
            squares = ew.multiply(ew.multiply(x, x), shared["rest"])
            return ew.add(ew.multiply(old, shared["rho"]), squares)

        eps = shared["eps"]
        v = mean(slots["v"], grad)
        ratio = ew.divide(ew.sqrt(ew.add(slots["u"], eps)), ew.sqrt(ew.add(v, eps)))
        move = ew.multiply(grad, ratio)
        return move, {"v": v, "u": mean(slots["u"], move)}
