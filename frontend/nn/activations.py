"""Activations as modules; the functions themselves are in `einkorn.functions`."""

from __future__ import annotations

from typing import Any

from einkorn.functions import elementwise as ew
from einkorn.functions import statistical as st
from einkorn.functions.activations import elu, leaky_relu
from einkorn.ir.errors import EinkornError
from einkorn.nn.module import Module
from einkorn.tensor import Tensor
from einkorn.tunable import Tunable, is_number


class Slope(Tunable):
    """A number that compiled steps read at each call."""

    def __set__(self, instance: Any, value: Any) -> None:
        if not is_number(value):
            name = type(instance).__name__
            raise EinkornError(f"{name}: {self.name} is a number, got {value!r}")
        super().__set__(instance, float(value))


class ReLU(Module):
    """x where x > 0, else 0."""

    def forward(self, x: Any) -> Tensor:
        return ew.relu(x)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope * x."""

    negative_slope = Slope()

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        return leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return str(self.__dict__["negative_slope"])


class ELU(Module):
    """x where x > 0, else alpha * (exp(x) - 1)."""

    alpha = Slope()

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Any) -> Tensor:
        return elu(x, self.alpha)

    def extra_repr(self) -> str:
        return str(self.__dict__["alpha"])


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Any) -> Tensor:
        return ew.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Any) -> Tensor:
        return ew.sigmoid(x)


class SiLU(Module):
    """x * sigmoid(x)."""

    def forward(self, x: Any) -> Tensor:
        return ew.silu(x)


class GELU(Module):
    """x * Phi(x) with the exact normal distribution."""

    def forward(self, x: Any) -> Tensor:
        return ew.gelu(x)


class Softplus(Module):
    """log(1 + exp(x))."""

    def forward(self, x: Any) -> Tensor:
        return ew.softplus(x)


class _AlongAxis(Module):
    def __init__(self, axis: int = -1) -> None:
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise EinkornError(f"{type(self).__name__}: an axis is an integer, got {axis!r}")
        self.axis = axis

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class Softmax(_AlongAxis):
    """exp(x) / exp(x).sum() along an axis."""

    def forward(self, x: Any) -> Tensor:
        return st.softmax(x, axis=self.axis)


class LogSoftmax(_AlongAxis):
    """The logarithm of softmax."""

    def forward(self, x: Any) -> Tensor:
        return st.log_softmax(x, axis=self.axis)
