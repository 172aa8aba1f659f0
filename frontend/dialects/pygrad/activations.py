"""Activations as layers."""

from __future__ import annotations

from einkorn.dialects.pygrad.basics import Layer, Softmax
from einkorn.dialects.pygrad.tensor import Tensor

__all__ = ["ReLU", "Sigmoid", "Softmax", "Tanh"]


class ReLU(Layer):
    """max(x, 0)."""

    def __init__(self, label: str | int | None = "ReLU") -> None:
        super().__init__(label)

    def __call__(self, x: Tensor) -> Tensor:
        return self._kept(x.relu())


class Tanh(Layer):
    """The hyperbolic tangent."""

    def __init__(self, label: str | int | None = "Tanh") -> None:
        super().__init__(label)

    def __call__(self, x: Tensor) -> Tensor:
        return self._kept(x.tanh())


class Sigmoid(Layer):
    """1 / (1 + exp(-x))."""

    def __init__(self, label: str | int | None = "Sigmoid") -> None:
        super().__init__(label)

    def __call__(self, x: Tensor) -> Tensor:
        return self._kept(x.sigmoid())
