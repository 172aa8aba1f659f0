"""Elegy's layers: those of `ek.nn` with input sizes left out, and Elegy's names of arguments.

Weights have the shapes of `ek.nn`: (out, in) and (out, k..., in / groups).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from einkorn import nn
from einkorn.dialects.elegy.modules import Module
from einkorn.initializers import VarianceScaling, Zeros
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError

_FORMATS = {"channels_last": "NHWC", "channels_first": "NCHW"}


def _first(given: Any) -> Any:
    """The initializer of weights: of variance 1 / fan_in by default."""
    return VarianceScaling() if given is None else given


class Linear(nn.Linear, Module):
    """`ek.nn.Linear` for as many features as the first input has."""

    def __init__(
        self,
        output_size: int,
        with_bias: bool = True,
        w_init: Any = None,
        b_init: Any = None,
        name: str | None = None,
        dtype: Any = float32,
    ) -> None:
        Module.__init__(self, name, dtype)
        nn.Linear.__init__(
            self,
            None,
            output_size,
            with_bias,
            weight_initializer=_first(w_init),
            bias_initializer=Zeros if b_init is None else b_init,
            dtype=dtype,
        )


def _convolution(layer: type[Any]) -> Callable[..., None]:
    """The constructor of a convolution with Elegy's arguments."""
    create: Any = layer.__init__

    def __init__(
        self: Any,
        output_channels: int,
        kernel_shape: Any,
        stride: Any = 1,
        rate: Any = 1,
        padding: Any = "SAME",
        with_bias: bool = True,
        w_init: Any = None,
        b_init: Any = None,
        data_format: str = "channels_last",
        mask: Any = None,
        groups: int = 1,
        name: str | None = None,
        dtype: Any = float32,
        **options: Any,
    ) -> None:
        Module.__init__(self, name, dtype)
        create(
            self,
            None,
            output_channels,
            kernel_shape,
            stride=stride,
            dilation=rate,
            padding=padding.lower() if isinstance(padding, str) else padding,
            with_bias=with_bias,
            weight_initializer=_first(w_init),
            bias_initializer=Zeros if b_init is None else b_init,
            data_format=_FORMATS.get(data_format, data_format),
            mask=mask,
            groups=groups,
            dtype=dtype,
            **options,
        )

    return __init__


class Conv1D(nn.Conv1D, Module):
    """`ek.nn.Conv1D` for as many channels as the first input has."""

    __init__ = _convolution(nn.Conv1D)


class Conv2D(nn.Conv2D, Module):
    """`ek.nn.Conv2D` for as many channels as the first input has."""

    __init__ = _convolution(nn.Conv2D)


class Conv3D(nn.Conv3D, Module):
    """`ek.nn.Conv3D` for as many channels as the first input has."""

    __init__ = _convolution(nn.Conv3D)


class Conv1DTranspose(nn.Conv1DTranspose, Module):
    """`ek.nn.Conv1DTranspose` for as many channels as the first input has."""

    __init__ = _convolution(nn.Conv1DTranspose)


class Conv2DTranspose(nn.Conv2DTranspose, Module):
    """`ek.nn.Conv2DTranspose` for as many channels as the first input has."""

    __init__ = _convolution(nn.Conv2DTranspose)


class Conv3DTranspose(nn.Conv3DTranspose, Module):
    """`ek.nn.Conv3DTranspose` for as many channels as the first input has."""

    __init__ = _convolution(nn.Conv3DTranspose)


class Dropout(nn.Dropout, Module):
    """`ek.nn.Dropout`."""

    def __init__(self, rate: float, name: str | None = None) -> None:
        Module.__init__(self, name)
        nn.Dropout.__init__(self, rate)


class Sequential(Module):
    """What a function returns, one after the other: modules and other functions.

    Args:
        layers: gives a list; it runs in each call, and modules that it makes are made once.
    """

    def __init__(self, layers: Callable[[], Sequence[Any]], name: str | None = None) -> None:
        super().__init__(name)
        if not callable(layers):
            raise EinkornError(
                "Sequential takes a function that makes the layers: "
                f"Sequential(lambda: [Linear(64), jax.nn.relu]), got {type(layers).__name__}"
            )
        self.layers = layers

    def call(self, *args: Any, **kwargs: Any) -> Any:
        first, *rest = self.layers()
        out = first(*args, **kwargs)
        for layer in rest:
            out = layer(out)
        return out
