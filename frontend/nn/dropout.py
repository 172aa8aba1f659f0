"""`Dropout`."""

from __future__ import annotations

from typing import Any

from einkorn import random
from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.ir.errors import DTypeError
from einkorn.nn.module import Module
from einkorn.nn.settings import Rate, check_flag
from einkorn.tensor import Tensor
from einkorn.tunable import module_path


class Dropout(Module):
    """Zeroes each element with probability `rate` while training (Srivastava et al., 2014).

    Args:
        scale: divide what remains by 1 - rate, which keeps the expectation.
    """

    rate = Rate()

    def __init__(self, rate: float = 0.5, scale: bool = True) -> None:
        self.rate = rate
        self.scale = check_flag("Dropout", "scale", scale)

    def forward(self, x: Any) -> Tensor:
        tensor = as_tensor(x, "Dropout")
        if not tensor.dtype.is_float:
            raise DTypeError(f"{module_path.get()}: Dropout needs floats, got {tensor._type}")
        rate = self.rate
        if not self.training or isinstance(rate, int):
            return tensor
        kept = 1.0 - rate
        chosen = random.bernoulli(kept, tensor.shape)
        return ew.where(chosen, ew.divide(tensor, kept) if self.scale else tensor, 0)

    def extra_repr(self) -> str:
        return f"{self.__dict__['rate']}" + ("" if self.scale else ", scale=False")
