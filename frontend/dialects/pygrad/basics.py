"""Layers: what they compute is kept in `.tensor`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from einkorn import random
from einkorn.dialects.pygrad import tape
from einkorn.dialects.pygrad.constants import floating
from einkorn.dialects.pygrad.tensor import Tensor, apply
from einkorn.functions import elementwise as ew
from einkorn.functions.manipulation import reshape
from einkorn.functions.normalization import layer_norm
from einkorn.ir.errors import EinkornError, ShapeError


class Layer:
    """The base: a name, and the last output."""

    def __init__(self, label: str | int | None) -> None:
        self.label = label
        self.tensor: Tensor | None = None

    def _kept(self, out: Tensor) -> Tensor:
        if tape.is_recording():
            out.label = "" if self.label is None else str(self.label)
            self.tensor = out
        return out

    def parameters(self) -> list[Tensor]:
        """The weights of the layer."""
        return [x for x in vars(self).values() if isinstance(x, Tensor) and not x.leaf]

    def __repr__(self) -> str:
        shapes = "".join(f", {x.label} {x.shape}" for x in self.parameters())
        return f"{type(self).__name__}(name={self.label}{shapes})"


class Dropout:
    """Zeros at exactly int(rate * size) elements; the others stay as they are.

    They are not divided by 1 - rate as in `ek.nn.Dropout`.
    """

    def __init__(self, rate: float = 0.1) -> None:
        if not 0 <= rate <= 1:
            raise EinkornError(f"Dropout: rate is from 0 to 1, got {rate!r}")
        self.rate = rate

    def __call__(self, x: Tensor, training: bool = True) -> Tensor:
        if not training:
            return x
        size = math.prod(x.shape)
        count = int(size * self.rate)
        kept = ew.greater_equal(reshape(random.permutation(size), x.shape), count)
        return apply(lambda value: ew.where(kept, value, 0.0), x)


class AddNorm:
    """gain * (y - mean) / sqrt(std**2 + epsilon) + bias over the last axis, with y = x + skip."""

    def __init__(self, gain: float = 1.0, bias: float = 0.0, epsilon: float = 1e-9) -> None:
        self.gain, self.bias, self.epsilon = gain, bias, epsilon

    def __call__(self, x: Tensor, skip: Tensor) -> Tensor:
        if x.shape != skip.shape:
            raise ShapeError(f"AddNorm: x and skip have one shape, got {x.shape} and {skip.shape}")
        normal = apply(lambda y: layer_norm(y, eps=self.epsilon), x + skip)
        return self.gain * normal + self.bias


class Linear(Layer):
    """x @ W + B for x [B, n, i_dim].

    W is [1, i_dim, o_dim] and B [1, 1, o_dim], whatever the batch; both are uniform in
    +-1 / sqrt(i_dim).
    """

    def __init__(
        self,
        i_dim: int,
        o_dim: int,
        bias: bool = True,
        label: str | int | None = "Linear",
        dtype: Any = None,
    ) -> None:
        super().__init__(label)
        self.i_dim, self.o_dim, self.bias, self.dtype = i_dim, o_dim, bias, floating(dtype)
        bound = 1 / math.sqrt(_size(self, i_dim=i_dim, o_dim=o_dim))
        self.W = _uniform((1, i_dim, o_dim), bound, f"W_{label}", self.dtype)
        self.B = _uniform((1, 1, o_dim), bound, f"b_{label}", self.dtype) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        if len(x.shape) != 3 or x.shape[-1] != self.i_dim:
            raise ShapeError(f"Linear {self.label}: x is [B, n, {self.i_dim}], got {x.shape}")
        out = x @ self.W
        return self._kept(out if self.B is None else out + self.B)


class Conv2D(Layer):
    """A kernel over images [B, i_dim, H, W] plus a bias for each output channel.

    `kw` is [1, o_dim, i_dim, kH, kW] and `kb` [1, o_dim, 1, 1], whatever the batch; both are
    uniform in +-1 / sqrt(i_dim * kH * kW).
    """

    def __init__(
        self,
        o_dim: int,
        i_dim: int,
        kH: int,
        kW: int,
        bias: bool = True,
        label: str | int | None = "Conv2D",
        dtype: Any = None,
    ) -> None:
        super().__init__(label)
        self.o_dim, self.i_dim, self.kH, self.kW = o_dim, i_dim, kH, kW
        self.bias, self.dtype = bias, floating(dtype)
        fan = _size(self, i_dim=i_dim, o_dim=o_dim, kH=kH, kW=kW) * kH * kW
        shape, bound = (1, o_dim, i_dim, kH, kW), 1 / math.sqrt(fan)
        self.kw = _uniform(shape, bound, f"ConvW_{label}", self.dtype)
        self.kb = _uniform((1, o_dim, 1, 1), bound, f"ConvB_{label}", self.dtype) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        out = self.kw.conv2D(x)
        return self._kept(out if self.kb is None else out + self.kb)


class Softmax(Layer):
    """Softmax over the last axis."""

    def __init__(self, label: str | int | None = "Softmax") -> None:
        super().__init__(label)

    def __call__(self, x: Tensor) -> Tensor:
        return self._kept(x.softmax())


class Flatten(Layer):
    """[B, ...] as [B, 1, n]."""

    def __init__(self, label: str | int | None = "Flatten") -> None:
        super().__init__(label)

    def __call__(self, x: Tensor) -> Tensor:
        return self._kept(x.reshape((x.shape[0], 1, -1)))


def _size(layer: Layer, **sizes: Any) -> int:
    """The first of some sizes, all of which are checked."""
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
            raise EinkornError(
                f"{type(layer).__name__}: {name} is a whole number of at least 1, got {size!r}"
            )
    return next(iter(sizes.values()))


def _uniform(shape: tuple[int, ...], bound: float, label: str, dtype: Any) -> Tensor:
    return Tensor(random.uniform(shape, -bound, bound, dtype=dtype), label, dtype)
