"""Ivy's initializers: `create_variables(var_shape, dev, fan_out, fan_in)` gives values."""

from __future__ import annotations

import math
from typing import Any

from einkorn import random
from einkorn.functions.creation import full
from einkorn.ir.errors import EinkornError
from einkorn.tensor import Tensor


class Initializer:
    """The base: subclasses define `create_variables`."""

    def create_variables(
        self,
        var_shape: Any,
        dev: Any = None,
        fan_out: Any = None,
        fan_in: Any = None,
        dtype: Any = "float32",
    ) -> Tensor:
        """The first values of a variable."""
        raise NotImplementedError


class Constant(Initializer):
    """One value everywhere."""

    def __init__(self, constant: float) -> None:
        self._constant = constant

    def create_variables(
        self,
        var_shape: Any,
        dev: Any = None,
        fan_out: Any = None,
        fan_in: Any = None,
        dtype: Any = "float32",
    ) -> Tensor:
        """The constant in a shape."""
        return full(tuple(var_shape), self._constant, dtype=dtype)


class Zeros(Constant):
    """0 everywhere."""

    def __init__(self) -> None:
        super().__init__(0.0)


class Ones(Constant):
    """1 everywhere."""

    def __init__(self) -> None:
        super().__init__(1.0)


def _fan(mode: str, fan_in: Any, fan_out: Any) -> float:
    needed = {"fan_in": (fan_in,), "fan_out": (fan_out,)}.get(mode, (fan_in, fan_out))
    if None in needed:
        raise EinkornError(f"fan_mode {mode!r} needs fan_in and fan_out, got {fan_in}, {fan_out}")
    return sum(needed) / (2 if mode == "fan_avg" else 1)


def _checked_mode(mode: str) -> str:
    modes = ("fan_in", "fan_out", "fan_sum", "fan_avg")
    if mode not in modes:
        raise EinkornError(f"fan_mode is one of {', '.join(modes)}, got {mode!r}")
    return mode


class Uniform(Initializer):
    """Uniform numbers up to gain * (numerator / fan) ** power on both sides of 0."""

    def __init__(self, numerator: float, fan_mode: str, power: float, gain: float) -> None:
        self._numerator, self._fan_mode = numerator, _checked_mode(fan_mode)
        self._power, self._gain = power, gain

    def create_variables(
        self,
        var_shape: Any,
        dev: Any = None,
        fan_out: Any = None,
        fan_in: Any = None,
        dtype: Any = "float32",
    ) -> Tensor:
        """Uniform numbers in a shape."""
        fan = _fan(self._fan_mode, fan_in, fan_out)
        limit = self._gain * (self._numerator / fan) ** self._power
        return random.uniform(tuple(var_shape), -limit, limit, dtype=dtype)


class GlorotUniform(Uniform):
    """Uniform numbers of variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010)."""

    def __init__(self) -> None:
        super().__init__(numerator=6, fan_mode="fan_sum", power=0.5, gain=1)


class KaimingNormal(Initializer):
    """Normal numbers of variance 2 / ((1 + negative_slope**2) fan) (He et al., 2015)."""

    def __init__(self, mean: float = 0.0, fan_mode: str = "fan_in") -> None:
        self._mean, self._fan_mode = mean, _checked_mode(fan_mode)

    def create_variables(
        self,
        var_shape: Any,
        dev: Any = None,
        fan_out: Any = None,
        fan_in: Any = None,
        dtype: Any = "float32",
        negative_slope: float = 0.0,
    ) -> Tensor:
        """Normal numbers in a shape."""
        fan = _fan(self._fan_mode, fan_in, fan_out)
        std = math.sqrt(2 / ((1 + negative_slope**2) * fan))
        return random.normal(tuple(var_shape), self._mean, std, dtype=dtype)


class RandomNormal(Initializer):
    """Normal numbers."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05) -> None:
        self._mean, self._stddev = mean, stddev

    def create_variables(
        self,
        var_shape: Any,
        dev: Any = None,
        fan_out: Any = None,
        fan_in: Any = None,
        dtype: Any = "float32",
    ) -> Tensor:
        """Normal numbers in a shape."""
        return random.normal(tuple(var_shape), self._mean, self._stddev, dtype=dtype)
