"""Lion: steps of one size along the sign of a momentum."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from einkorn.functions import elementwise as ew
from einkorn.optim.base import Optimizer, Options, Slots
from einkorn.optim.hyper import Hyper
from einkorn.tensor import Tensor


class Lion(Optimizer):
    """p * (1 - lr * weight_decay) - lr * sign(beta1 * m + (1 - beta1) * g) (Chen et al., 2023).

    Then m = beta2 * m + (1 - beta2) * g.
    """

    slots: ClassVar[tuple[str, ...]] = ("m",)
    beta1 = Hyper(below=1.0)
    beta2 = Hyper(below=1.0)

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        self.beta1, self.beta2 = beta1, beta2
        chosen: Options = {"decoupled": True, **options}
        super().__init__(params, lr, weight_decay, **chosen)

    def apply_single(
        self, param: Tensor, grad: Tensor, slots: Slots, shared: dict[str, Any]
    ) -> tuple[Tensor, Slots]:
        def mix(beta: Any) -> Tensor:
            return ew.add(ew.multiply(slots["m"], beta), ew.multiply(grad, 1.0 - beta))

        move = ew.multiply(ew.sign(mix(self.beta1)), self.rate_for(param, shared))
        return ew.subtract(param, move), {"m": mix(self.beta2)}
