"""Activations as modules; the functions themselves are in `einkorn.functions`.

Each works elementwise unless it says otherwise, and gives the shape and dtype of its input.
"""

from __future__ import annotations

from typing import Any

from einkorn.convert import as_tensor
from einkorn.functions import activations as fa
from einkorn.functions import elementwise as ew
from einkorn.functions import statistical as st
from einkorn.initializers import Constant
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError
from einkorn.leaf import Parameter
from einkorn.nn.module import Module, initial
from einkorn.nn.settings import (
    Number,
    check_axis,
    check_data_format,
    check_number,
    check_size,
    check_word,
)
from einkorn.nn.sized import check_dtype_of, check_width
from einkorn.tensor import Tensor


class ReLU(Module):
    """x where x > 0, else 0 (Nair & Hinton, 2010)."""

    def forward(self, x: Any) -> Tensor:
        return ew.relu(x)


class ReLU6(Module):
    """min(max(x, 0), 6)."""

    def forward(self, x: Any) -> Tensor:
        return fa.relu6(x)


class _OneNumber(Module):
    """An activation with one number, which compiled steps read at each call."""

    _number = ""

    def extra_repr(self) -> str:
        return str(self.__dict__[self._number])


class LeakyReLU(_OneNumber):
    """x where x > 0, else negative_slope * x (Maas et al., 2013)."""

    negative_slope = Number()
    _number = "negative_slope"

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        return fa.leaky_relu(x, self.negative_slope)


class PReLU(Module):
    """x where x > 0, else a * x with a learned `a` (He et al., 2015).

    Args:
        channels: 1 for one `a`, or as many as there are channels.
        slope: what `a` starts with.
        data_format: where the channels are: last, or in axis 1 for "NCHW".
    """

    def __init__(
        self,
        channels: int = 1,
        slope: float = 0.25,
        *,
        data_format: str = "NHWC",
        dtype: Any = float32,
    ) -> None:
        size = check_size("PReLU", "channels", channels)
        start = Constant(check_number("PReLU", "slope", slope))
        self.axis = -1 if check_data_format("PReLU", data_format) else 1
        self.a = Parameter(initial(start, (size,), dtype), dtype)

    def forward(self, x: Any) -> Tensor:
        tensor = as_tensor(x, "PReLU")
        check_dtype_of(self, tensor, self.a, "a")
        size = self.a.shape[0]
        if size == 1:
            return fa.prelu(tensor, self.a)
        check_width(self, tensor, size, "channels", self.axis, "a")
        behind = 0 if self.axis == -1 else tensor.ndim - 2
        return fa.prelu(tensor, self.a.reshape(size, *(1,) * behind))

    def extra_repr(self) -> str:
        return str(self.a.shape[0])


class ELU(_OneNumber):
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al., 2016)."""

    alpha = Number()
    _number = "alpha"

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Any) -> Tensor:
        return fa.elu(x, self.alpha)


class CELU(ELU):
    """x where x > 0, else alpha * (exp(x / alpha) - 1) (Barron, 2017)."""

    def forward(self, x: Any) -> Tensor:
        return fa.celu(x, self.alpha)


class SELU(Module):
    """scale * x where x > 0, else scale * alpha * (exp(x) - 1) (Klambauer et al., 2017)."""

    def forward(self, x: Any) -> Tensor:
        return fa.selu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Any) -> Tensor:
        return ew.tanh(x)


class Hardtanh(Module):
    """x limited to [low, high]."""

    low, high = Number(), Number()

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        self.low, self.high = low, high
        if not low <= high:
            raise EinkornError(f"Hardtanh needs low <= high, got {low} and {high}")

    def forward(self, x: Any) -> Tensor:
        return fa.hardtanh(x, self.low, self.high)

    def extra_repr(self) -> str:
        return f"{self.__dict__['low']}, {self.__dict__['high']}"


class Tanhshrink(Module):
    """x - tanh(x)."""

    def forward(self, x: Any) -> Tensor:
        return fa.tanhshrink(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Any) -> Tensor:
        return ew.sigmoid(x)


class LogSigmoid(Module):
    """log(sigmoid(x)), computed as -softplus(-x)."""

    def forward(self, x: Any) -> Tensor:
        return fa.log_sigmoid(x)


class Hardsigmoid(Module):
    """relu6(x + 3) / 6."""

    def forward(self, x: Any) -> Tensor:
        return fa.hardsigmoid(x)


class SiLU(Module):
    """x * sigmoid(x) (Elfwing et al., 2018)."""

    def forward(self, x: Any) -> Tensor:
        return ew.silu(x)


class Hardswish(Module):
    """x * relu6(x + 3) / 6 (Howard et al., 2019)."""

    def forward(self, x: Any) -> Tensor:
        return fa.hardswish(x)


class Mish(Module):
    """x * tanh(softplus(x)) (Misra, 2019)."""

    def forward(self, x: Any) -> Tensor:
        return fa.mish(x)


class GELU(Module):
    """x * Phi(x), Phi the normal distribution (Hendrycks & Gimpel, 2016).

    Args:
        approximate: "none", or "tanh" for the approximation by a hyperbolic tangent.
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = check_word("GELU", "approximate", approximate, ("none", "tanh"))

    def forward(self, x: Any) -> Tensor:
        return fa.gelu(x, approximate=self.approximate)

    def extra_repr(self) -> str:
        return "" if self.approximate == "none" else repr(self.approximate)


class Softplus(Module):
    """log(1 + exp(beta x)) / beta, and x where beta x > threshold when there is one."""

    beta = Number()

    def __init__(self, beta: float = 1.0, threshold: float | None = None) -> None:
        self.beta = beta
        if not beta > 0:
            raise EinkornError(f"Softplus: beta is positive, got {beta!r}")
        self.threshold = (
            None if threshold is None else check_number("Softplus", "threshold", threshold)
        )

    def forward(self, x: Any) -> Tensor:
        scaled = ew.multiply(x, self.beta)
        soft = ew.divide(ew.softplus(scaled), self.beta)
        if self.threshold is None:
            return soft
        return ew.where(ew.greater(scaled, self.threshold), x, soft)

    def extra_repr(self) -> str:
        threshold = "" if self.threshold is None else f", {self.threshold}"
        return f"{self.__dict__['beta']}{threshold}"


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, x: Any) -> Tensor:
        return fa.softsign(x)


class Hardshrink(_OneNumber):
    """x where |x| > threshold, else 0."""

    threshold = Number()
    _number = "threshold"

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold

    def forward(self, x: Any) -> Tensor:
        return fa.hardshrink(x, self.threshold)


class Softshrink(Hardshrink):
    """x moved towards 0 by the threshold, and 0 within it."""

    def forward(self, x: Any) -> Tensor:
        return fa.softshrink(x, self.threshold)


class Threshold(Module):
    """x where x > limit, else value."""

    limit, value = Number(), Number()

    def __init__(self, limit: float, value: float) -> None:
        self.limit, self.value = limit, value

    def forward(self, x: Any) -> Tensor:
        return fa.threshold(x, self.limit, self.value)

    def extra_repr(self) -> str:
        return f"{self.__dict__['limit']}, {self.__dict__['value']}"


class Logit(Module):
    """log(x / (1 - x)), with x limited to [eps, 1 - eps] when eps is given."""

    def __init__(self, eps: float | None = None) -> None:
        self.eps = None if eps is None else check_number("Logit", "eps", eps, 0.0)

    def forward(self, x: Any) -> Tensor:
        return fa.logit(x, self.eps)

    def extra_repr(self) -> str:
        return "" if self.eps is None else str(self.eps)


# -- along an axis ---------------------------------------------------------------------------------


class _AlongAxis(Module):
    def __init__(self, axis: int = -1) -> None:
        self.axis = check_axis(type(self).__name__, axis)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class Softmax(_AlongAxis):
    """exp(x) / exp(x).sum() along an axis."""

    def forward(self, x: Any) -> Tensor:
        return st.softmax(x, axis=self.axis)


class Softmin(_AlongAxis):
    """softmax(-x) along an axis."""

    def forward(self, x: Any) -> Tensor:
        return st.softmin(x, axis=self.axis)


class LogSoftmax(_AlongAxis):
    """The logarithm of softmax."""

    def forward(self, x: Any) -> Tensor:
        return st.log_softmax(x, axis=self.axis)


class GLU(_AlongAxis):
    """The first half of an axis times sigmoid of the second (Dauphin et al., 2017)."""

    def forward(self, x: Any) -> Tensor:
        return fa.glu(x, axis=self.axis)


class GEGLU(_AlongAxis):
    """The first half of an axis times gelu of the second (Shazeer, 2020)."""

    def forward(self, x: Any) -> Tensor:
        return fa.geglu(x, axis=self.axis)


class SwiGLU(_AlongAxis):
    """The first half of an axis times silu of the second (Shazeer, 2020)."""

    def forward(self, x: Any) -> Tensor:
        return fa.swiglu(x, axis=self.axis)
