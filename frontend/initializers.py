"""First values of parameters: `initializer(shape, dtype)` gives a tensor of them.

Weights are (out, in), those of convolutions (out, k..., in): fan_in is the number of inputs of one
output, fan_out the number of outputs of one input. Draws come from the global generator, so that
`ek.random.seed` makes them reproducible. A layer whose weights mean something else by their axes
gives the fans as keywords.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from einkorn import random
from einkorn.convert import as_choice, as_shape, as_tensor, check_dtype
from einkorn.functions.creation import full
from einkorn.functions.elementwise import multiply
from einkorn.functions.manipulation import to_shape
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.recording import current_trace, no_grad
from einkorn.tensor import Tensor
from einkorn.tunable import is_number

__all__ = [
    "Constant",
    "FirstLayerSiren",
    "GlorotNormal",
    "GlorotUniform",
    "Initializer",
    "KaimingNormal",
    "KaimingUniform",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "Siren",
    "TruncatedNormal",
    "Uniform",
    "UniformScaling",
    "VarianceScaling",
    "Zeros",
]

Shape = tuple[int, ...]
Fans = tuple[int, int]

MODES = ("fan_in", "fan_out", "fan_avg", "fan_sum")
KINDS = ("truncated_normal", "normal", "uniform")
CUT_STD = 0.87962566103423978  # of a normal distribution cut at two standard deviations


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
    """The base: subclasses define `_values(shape, dtype, fans)`."""

    def __call__(
        self,
        shape: Any,
        dtype: Any = float32,
        *,
        fan_in: int | None = None,
        fan_out: int | None = None,
    ) -> Tensor:
        """First values.

        Args:
            fan_in, fan_out: inputs of one output and outputs of one input, where they are not
                those of weights (out, k..., in).
        """
        sizes, kind = as_shape(type(self).__name__, shape), check_dtype(dtype)
        inputs, outputs = fans(sizes)
        both = (inputs if fan_in is None else fan_in, outputs if fan_out is None else fan_out)
        with no_grad():
            return self._values(sizes, kind, (max(both[0], 1), max(both[1], 1)))

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({inside})"


class Constant(Initializer):
    """One value everywhere."""

    def __init__(self, value: float) -> None:
        self.value = value if isinstance(value, bool) else _number("value", value)

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
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

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        return random.normal(shape, self.mean, self.std, dtype=dtype)


class TruncatedNormal(RandomNormal):
    """Normal numbers, those beyond two standard deviations drawn again."""

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        return random.truncated_normal(shape, mean=self.mean, std=self.std, dtype=dtype)


class RandomUniform(Initializer):
    """Uniform numbers in [low, high)."""

    def __init__(self, low: float = -0.05, high: float = 0.05) -> None:
        if not _number("low", low) <= _number("high", high):
            raise EinkornError(f"RandomUniform needs low <= high, got {low} and {high}")
        self.low, self.high = float(low), float(high)

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        return random.uniform(shape, self.low, self.high, dtype=dtype)


class Orthogonal(Initializer):
    """`gain` times orthonormal rows or columns, whichever are fewer (Saxe et al., 2014).

    Weights (out, k..., in) are taken as a matrix (out, k... * in).
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = _not_negative("gain", gain)

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        if len(shape) < 2:
            raise ShapeError(f"Orthogonal needs weights of at least two axes, got shape {shape}")
        rows, columns = shape[0], math.prod(shape[1:])
        matrix = random.orthogonal(rows, (), columns, dtype=dtype)
        return multiply(to_shape(matrix, shape), self.gain)


# -- scaled by the fans ----------------------------------------------------------------------------


def _fan(mode: str, fans: Fans) -> float:
    inputs, outputs = fans
    known = {"fan_in": inputs, "fan_out": outputs, "fan_sum": inputs + outputs}
    return known.get(mode, (inputs + outputs) / 2)


class VarianceScaling(Initializer):
    """Numbers of variance scale / fan.

    Args:
        mode: "fan_in", "fan_out", "fan_avg" or "fan_sum".
        distribution: "normal", "uniform", or "truncated_normal" within two standard deviations
            (of the distribution before it is cut, which is widened to keep the variance).
    """

    def __init__(
        self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal"
    ) -> None:
        self.scale = _not_negative("scale", scale)
        self.mode = as_choice("an initializer", "mode", mode, MODES)
        self.distribution = as_choice("an initializer", "distribution", distribution, KINDS)

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        return _of_std(
            self.distribution, math.sqrt(self.scale / _fan(self.mode, fans)), shape, dtype
        )


def _of_std(distribution: str, std: float, shape: Shape, dtype: Any) -> Tensor:
    if distribution == "uniform":
        return _within(math.sqrt(3.0) * std, shape, dtype)
    if distribution == "normal":
        return random.normal(shape, 0.0, std, dtype=dtype)
    return random.truncated_normal(shape, std=std / CUT_STD, dtype=dtype)


def _within(limit: float, shape: Shape, dtype: Any) -> Tensor:
    """`random.uniform` in [-limit, limit): for float32 outside of traces by NumPy, to the same bit.

    A model draws once for each parameter, and one draw of words is what this takes.
    """
    if dtype is not float32 or current_trace.get() is not None:
        return random.uniform(shape, -limit, limit, dtype=dtype)
    words = random.bits(shape).numpy()
    high = np.float32(limit)
    unit = (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    value = unit * (high + high) - high
    return as_tensor(np.where(value < high, value, -high), "an initializer")


class _Glorot(Initializer):
    def __init__(self, gain: float = 1.0) -> None:
        self.gain = _not_negative("gain", gain)

    def _std(self, fans: Fans) -> float:
        return self.gain * math.sqrt(2.0 / _fan("fan_sum", fans))


class GlorotUniform(_Glorot):
    """Uniform numbers of variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010)."""

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        limit = self.gain * math.sqrt(6.0 / _fan("fan_sum", fans))
        return _within(limit, shape, dtype)


class GlorotNormal(_Glorot):
    """Normal numbers of variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010)."""

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        return random.normal(shape, 0.0, self._std(fans), dtype=dtype)


class _Kaiming(Initializer):
    """Variance 2 / ((1 + negative_slope**2) fan)."""

    def __init__(self, negative_slope: float = 0.0, mode: str = "fan_in") -> None:
        self.negative_slope = float(_number("negative_slope", negative_slope))
        self.mode = as_choice("an initializer", "mode", mode, MODES)

    def _std(self, fans: Fans) -> float:
        return math.sqrt(2.0 / ((1.0 + self.negative_slope**2) * _fan(self.mode, fans)))


class KaimingNormal(_Kaiming):
    """Normal numbers that keep the variance through (leaky) ReLU layers (He et al., 2015)."""

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        return random.normal(shape, 0.0, self._std(fans), dtype=dtype)


class KaimingUniform(_Kaiming):
    """Uniform numbers that keep the variance through (leaky) ReLU layers (He et al., 2015)."""

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        return _of_std("uniform", self._std(fans), shape, dtype)


class LecunNormal(VarianceScaling):
    """Normal numbers of variance 1 / fan_in (LeCun et al., 1998)."""

    def __init__(self) -> None:
        super().__init__(1.0, "fan_in", "normal")


class LecunUniform(VarianceScaling):
    """Uniform numbers of variance 1 / fan_in (LeCun et al., 1998)."""

    def __init__(self) -> None:
        super().__init__(1.0, "fan_in", "uniform")


class UniformScaling(VarianceScaling):
    """Uniform numbers within sqrt(3 / fan_in) * scale (Sussillo & Abbott, 2014)."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(_not_negative("scale", scale) ** 2, "fan_in", "uniform")


class Uniform(Initializer):
    """Uniform numbers within gain * (numerator / fan)**power."""

    def __init__(
        self,
        numerator: float = 6.0,
        mode: str = "fan_sum",
        power: float = 0.5,
        gain: float = 1.0,
    ) -> None:
        self.numerator = _not_negative("numerator", numerator)
        self.mode = as_choice("an initializer", "mode", mode, MODES)
        self.power, self.gain = float(_number("power", power)), _not_negative("gain", gain)

    def _values(self, shape: Shape, dtype: Any, fans: Fans) -> Tensor:
        limit = self.gain * (self.numerator / _fan(self.mode, fans)) ** self.power
        return _within(limit, shape, dtype)


class FirstLayerSiren(Uniform):
    """Within 1 / fan_in: the first layer of a network of sines (Sitzmann et al., 2020)."""

    def __init__(self) -> None:
        super().__init__(1.0, "fan_in", 1.0)


class Siren(Uniform):
    """Within sqrt(6 / fan_in) / w0: the other layers of a network of sin(w0 x)."""

    def __init__(self, w0: float = 30.0) -> None:
        if not _number("w0", w0) > 0:
            raise EinkornError(f"w0 is a positive number, got {w0!r}")
        super().__init__(6.0, "fan_in", 0.5, 1.0 / w0)


def _number(name: str, value: Any) -> Any:
    if not is_number(value):
        raise EinkornError(f"{name} is a number, got {value!r}")
    return value


def _not_negative(name: str, value: Any) -> float:
    if not is_number(value) or not value >= 0:
        raise EinkornError(f"{name} is a number that is not negative, got {value!r}")
    return float(value)


def __dir__() -> list[str]:
    return __all__
