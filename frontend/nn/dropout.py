"""`Dropout`."""

from __future__ import annotations

from typing import Any

from einkorn import random
from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.ir.errors import DTypeError, EinkornError
from einkorn.nn.module import Module
from einkorn.tensor import Tensor
from einkorn.tunable import Tunable, is_number, module_path


class Rate(Tunable):
    """A probability below 1; a new one takes effect in compiled steps at once."""

    def __set__(self, instance: Any, value: Any) -> None:
        if not is_number(value) or not 0 <= value < 1:
            name = type(instance).__name__
            raise EinkornError(f"{name}: {self.name} is a number in [0, 1), got {value!r}")
        super().__set__(instance, float(value))


class Dropout(Module):
    """Zeroes each element with probability `rate` while training (Srivastava et al., 2014).

    Args:
        scale: divide what remains by 1 - rate, which keeps the expectation.
    """

    rate = Rate()

    def __init__(self, rate: float = 0.5, scale: bool = True) -> None:
        if not isinstance(scale, bool):
            raise EinkornError(f"Dropout: scale is True or False, got {scale!r}")
        self.rate = rate
        self.scale = scale

    def forward(self, x: Any) -> Tensor:
        tensor = as_tensor(x, "Dropout")
        if not tensor.dtype.is_float:
            raise DTypeError(f"{module_path.get()}: Dropout needs floats, got {tensor._type}")
        if not self.training:
            return tensor
        kept = 1.0 - self.rate
        chosen = random.bernoulli(kept, tensor.shape)
        return ew.where(chosen, ew.divide(tensor, kept) if self.scale else tensor, 0)

    def extra_repr(self) -> str:
        return f"{self.__dict__['rate']}" + ("" if self.scale else ", scale=False")
