"""Activations whose arguments Ivy has in another way; the others are einkorn's."""

from __future__ import annotations

from typing import Any

from einkorn import nn
from einkorn.functions import activations as fa
from einkorn.functions import elementwise as ew
from einkorn.tensor import Tensor

SeLU = nn.SELU
logsigmoid = fa.log_sigmoid


class GELU(nn.GELU):
    """x * Phi(x), Phi the normal distribution; `approximate` it by a hyperbolic tangent."""

    def __init__(self, *, approximate: bool = False) -> None:
        super().__init__("tanh" if approximate else "none")


class LeakyReLU(nn.LeakyReLU):
    """x where x > 0, else alpha * x."""

    def __init__(self, alpha: float = 0.2) -> None:
        super().__init__(alpha)


class PReLU(nn.Module):
    """x where x > 0, else slope * x, for a given slope that broadcasts to x."""

    def __init__(self, slope: Any) -> None:
        self._slope = slope

    def forward(self, x: Any) -> Tensor:
        return fa.prelu(x, self._slope)


class Softplus(nn.Softplus):
    """log(1 + exp(beta x)) / beta, and x where beta x > threshold when there is one."""

    def __init__(self, beta: float | None = 1.0, threshold: float | None = None) -> None:
        super().__init__(1.0 if beta is None else beta, threshold)


def gelu(x: Any, /, *, approximate: bool = False) -> Tensor:
    """x * Phi(x), Phi the normal distribution; `approximate` it by a hyperbolic tangent."""
    return fa.gelu(x, approximate="tanh" if approximate else "none")


def leaky_relu(x: Any, /, *, alpha: float = 0.2) -> Tensor:
    """x where x > 0, else alpha * x."""
    return fa.leaky_relu(x, alpha)


def softplus(x: Any, /, *, beta: float | None = None, threshold: float | None = None) -> Tensor:
    """log(1 + exp(beta x)) / beta, and x where beta x > threshold when there is one."""
    scaled = x if beta is None else ew.multiply(x, beta)
    soft = ew.softplus(scaled)
    soft = soft if beta is None else ew.divide(soft, beta)
    return soft if threshold is None else ew.where(ew.greater(scaled, threshold), x, soft)
