"""`ExponentialMovingAverage` of a value."""

from __future__ import annotations

from typing import Any

from einkorn.convert import as_tensor
from einkorn.functions import elementwise as ew
from einkorn.initializers import Zeros
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.leaf import Leaf
from einkorn.nn.module import Module
from einkorn.nn.settings import check_flag, check_number
from einkorn.nn.sized import MSG_RANK
from einkorn.tensor import Tensor
from einkorn.tunable import module_path


class ExponentialMovingAverage(Module):
    """average = decay * average + (1 - decay) * x, for x of one shape, while training.

    The buffers are `average` and `left`, which is decay**calls. In eval mode the average is
    returned as it is.

    Args:
        decay: in [0, 1).
        debias: divide by 1 - decay**calls, so that the first result is x (Kingma & Ba, 2015).
    """

    average: Leaf
    left: Leaf

    def __init__(self, decay: float = 0.99, debias: bool = True) -> None:
        name = type(self).__name__
        self.decay = check_number(name, "decay", decay, 0.0)
        if not self.decay < 1:
            raise EinkornError(f"{name}: decay is a number in [0, 1), got {decay!r}")
        self.debias = check_flag(name, "debias", debias)

    def build(self, x: Any) -> None:
        """Make the average for the shape and dtype of an input."""
        tensor = as_tensor(x, type(self).__name__)
        if not tensor.dtype.is_float:
            raise DTypeError(f"{module_path.get()}: {self} needs floats, got {tensor._type}")
        self.add_buffer("average", Zeros()(tensor.shape, tensor.dtype))
        self.add_buffer("left", 1.0, float32)

    def forward(self, x: Any) -> Tensor:
        tensor = as_tensor(x, type(self).__name__)
        average, left = self.average, self.left
        if tensor._type != average._type:
            raise ShapeError(
                MSG_RANK.format(
                    path=module_path.get(), layer=self, order=average._type, got=tensor._type
                )
            )
        if self.training:
            kept = ew.multiply(average, self.decay)
            average.value = ew.add(kept, ew.multiply(tensor, 1.0 - self.decay))
            left.value = ew.multiply(left, self.decay)
        if not self.debias:
            return ew.stop_gradient(average)
        share = ew.where(ew.equal(left, 1.0), 1.0, ew.subtract(1.0, left))
        return ew.stop_gradient(ew.divide(average, ew.cast(share, average.dtype)))

    def extra_repr(self) -> str:
        return str(self.decay)
