"""First values of parameters: `initializer(shape, dtype)` gives a tensor of them.

Weights are (out, in), those of convolutions (out, k..., in): fan_in is the number of inputs of one
output, fan_out the number of outputs of one input. Draws come from the global generator, so that
`ek.random.seed` makes them reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from einkorn import random
from einkorn.convert import as_shape, check_dtype
from einkorn.functions.creation import full
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError
from einkorn.recording import no_grad
from einkorn.tensor import Tensor
from einkorn.tunable import is_number

Shape = tuple[int, ...]


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of weights of a shape (out, k..., in)."""
    if len(shape) < 2:
        return (shape[0], shape[0]) if shape else (1, 1)
    kernel = math.prod(shape[1:-1])
    return kernel * shape[-1], kernel * shape[0]


def as_initializer(given: Any) -> Callable[[Shape, Any], Any]:
    """An initializer from one, or from its class."""
    made = given() if isinstance(given, type) else given
    if not callable(made):
        raise EinkornError(
            f"an initializer is called as initializer(shape, dtype), got {given!r}; "
            "for a constant use ek.initializers.Constant(value)"
        )
    return made


class Initializer:
    """The base: subclasses define `_values(shape, dtype)`."""

    def __call__(self, shape: Any, dtype: Any = float32) -> Tensor:
        with no_grad():
            return self._values(as_shape(type(self).__name__, shape), check_dtype(dtype))

    def _values(self, shape: Shape, dtype: Any) -> Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({inside})"


class Constant(Initializer):
    """One value everywhere."""

    def __init__(self, value: float) -> None:
        self.value = value if isinstance(value, bool) else _number("value", value)

    def _values(self, shape: Shape, dtype: Any) -> Tensor:
        return full(shape, self.value, dtype=dtype)


class Zeros(Constant):
    """0 everywhere."""

    def __init__(self) -> None:
        super().__init__(0)


class Ones(Constant):
    """1 everywhere."""

    def __init__(self) -> None:
        super().__init__(1)


class RandomNormal(Initializer):
    """Normal numbers."""

    def __init__(self, mean: float = 0.0, std: float = 0.05) -> None:
        self.mean, self.std = float(_number("mean", mean)), _not_negative("std", std)

    def _values(self, shape: Shape, dtype: Any) -> Tensor:
        return random.normal(shape, self.mean, self.std, dtype=dtype)


class RandomUniform(Initializer):
    """Uniform numbers in [low, high)."""

    def __init__(self, low: float = -0.05, high: float = 0.05) -> None:
        if not _number("low", low) <= _number("high", high):
            raise EinkornError(f"RandomUniform needs low <= high, got {low} and {high}")
        self.low, self.high = float(low), float(high)

    def _values(self, shape: Shape, dtype: Any) -> Tensor:
        return random.uniform(shape, self.low, self.high, dtype=dtype)


class GlorotUniform(Initializer):
    """Uniform numbers of variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010)."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = _not_negative("gain", gain)

    def _values(self, shape: Shape, dtype: Any) -> Tensor:
        limit = self.gain * math.sqrt(6.0 / max(sum(fans(shape)), 1))
        return random.uniform(shape, -limit, limit, dtype=dtype)


class GlorotNormal(Initializer):
    """Normal numbers of variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010)."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = _not_negative("gain", gain)

    def _values(self, shape: Shape, dtype: Any) -> Tensor:
        std = self.gain * math.sqrt(2.0 / max(sum(fans(shape)), 1))
        return random.normal(shape, 0.0, std, dtype=dtype)


class _Kaiming(Initializer):
    """Variance 2 / ((1 + negative_slope**2) fan)."""

    def __init__(self, negative_slope: float = 0.0, mode: str = "fan_in") -> None:
        if mode not in ("fan_in", "fan_out"):
            raise EinkornError(f"mode is 'fan_in' or 'fan_out', got {mode!r}")
        self.negative_slope, self.mode = float(_number("negative_slope", negative_slope)), mode

    def _std(self, shape: Shape) -> float:
        fan = fans(shape)[self.mode == "fan_out"]
        return math.sqrt(2.0 / ((1.0 + self.negative_slope**2) * max(fan, 1)))


class KaimingNormal(_Kaiming):
    """Normal numbers that keep the variance through (leaky) ReLU layers (He et al., 2015)."""

    def _values(self, shape: Shape, dtype: Any) -> Tensor:
        return random.normal(shape, 0.0, self._std(shape), dtype=dtype)


class KaimingUniform(_Kaiming):
    """Uniform numbers that keep the variance through (leaky) ReLU layers (He et al., 2015)."""

    def _values(self, shape: Shape, dtype: Any) -> Tensor:
        limit = math.sqrt(3.0) * self._std(shape)
        return random.uniform(shape, -limit, limit, dtype=dtype)


def _number(name: str, value: Any) -> Any:
    if not is_number(value):
        raise EinkornError(f"{name} is a number, got {value!r}")
    return value


def _not_negative(name: str, value: Any) -> float:
    if not is_number(value) or not value >= 0:
        raise EinkornError(f"{name} is a number that is not negative, got {value!r}")
    return float(value)
