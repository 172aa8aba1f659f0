"""Ivy's initializers: those of einkorn with `create_variables(var_shape, dev, fan_out, fan_in)`."""

from __future__ import annotations

from typing import Any

from einkorn import initializers as own
from einkorn import random
from einkorn.convert import check_device
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import float32
from einkorn.tensor import Tensor


class Initializer(own.Initializer):
    """The base: subclasses define `create_variables`. Fans that are not given are the shape's."""

    def create_variables(
        self,
        var_shape: Any,
        dev: Any = None,
        fan_out: Any = None,
        fan_in: Any = None,
        dtype: Any = None,
        *,
        device: Any = None,
    ) -> Tensor:
        """The first values of a variable."""
        check_device(type(self).__name__, dev or device)
        kind = dtype or float32
        return own.Initializer.__call__(self, var_shape, kind, fan_in=fan_in, fan_out=fan_out)

    def __call__(
        self,
        shape: Any,
        dtype: Any = float32,
        *,
        fan_in: int | None = None,
        fan_out: int | None = None,
    ) -> Tensor:
        """`create_variables`, as layers of einkorn ask for it."""
        inputs, outputs = own.fans(tuple(shape))
        known = (fan_out or outputs, fan_in or inputs)
        return self.create_variables(tuple(shape), None, *known, dtype=dtype)


class Constant(Initializer, own.Constant):
    """One value everywhere."""

    def __init__(self, constant: float) -> None:
        own.Constant.__init__(self, constant)


class Zeros(Constant):
    """0 everywhere."""

    def __init__(self) -> None:
        super().__init__(0.0)


class Ones(Constant):
    """1 everywhere."""

    def __init__(self) -> None:
        super().__init__(1.0)


class Uniform(Initializer, own.Uniform):
    """Uniform numbers up to gain * (numerator / fan) ** power on both sides of 0."""

    def __init__(self, numerator: float, fan_mode: str, power: float, gain: float) -> None:
        own.Uniform.__init__(self, numerator, fan_mode, power, gain)


class GlorotUniform(Uniform):
    """Uniform numbers of variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010)."""

    def __init__(self) -> None:
        super().__init__(numerator=6, fan_mode="fan_sum", power=0.5, gain=1)


class FirstLayerSiren(Initializer, own.FirstLayerSiren):
    """Within 1 / fan_in: the first layer of a network of sines (Sitzmann et al., 2020)."""


class Siren(Initializer, own.Siren):
    """Within sqrt(6 / fan_in) / w0: the other layers of a network of sin(w0 x)."""


class KaimingNormal(Initializer):
    """Normal numbers of variance 2 / ((1 + negative_slope**2) fan) (He et al., 2015)."""

    def __init__(self, mean: float = 0.0, fan_mode: str = "fan_in") -> None:
        own.KaimingNormal(mode=fan_mode)  # refuses another mode
        self.mean, self.fan_mode = mean, fan_mode

    def create_variables(  # type: ignore[override] # as Ivy has it
        self,
        var_shape: Any,
        dev: Any = None,
        fan_out: Any = None,
        fan_in: Any = None,
        negative_slope: float = 0.0,
        dtype: Any = None,
        *,
        device: Any = None,
    ) -> Tensor:
        """The first values of a variable."""
        check_device("KaimingNormal", dev or device)
        made = own.KaimingNormal(negative_slope, self.fan_mode)
        values = made(var_shape, dtype or float32, fan_in=fan_in, fan_out=fan_out)
        return ew.add(values, self.mean) if self.mean else values


class RandomNormal(Initializer, own.RandomNormal):
    """Normal numbers.

    Args:
        seed: draw the same numbers each time, those of this seed.
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        own.RandomNormal.__init__(self, mean, stddev)
        self.seed = seed

    def _values(self, shape: Any, dtype: Any, fans: Any) -> Tensor:
        key = None if self.seed is None else random.key(self.seed)
        return random.normal(shape, self.mean, self.std, dtype=dtype, key=key)
