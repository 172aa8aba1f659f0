"""Elegy's layers: those of `ek.nn` with input sizes left out, and Elegy's names of arguments.

Weights have the shapes of `ek.nn`: (out, in) and (out, k..., in / groups).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from einkorn import nn
from einkorn.convert import as_tensor
from einkorn.dialects.elegy import transformers
from einkorn.dialects.elegy.averages import EMAParamsTree, ExponentialMovingAverage
from einkorn.dialects.elegy.initializers import OfLayer
from einkorn.dialects.elegy.modules import Module
from einkorn.dialects.elegy.normalization import (
    FORMATS,
    BatchNormalization,
    InstanceNormalization,
    LayerNormalization,
)
from einkorn.dialects.elegy.transformers import (
    MultiHeadAttention,
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from einkorn.functions.pooling import avg_pool, max_pool
from einkorn.initializers import RandomNormal, VarianceScaling, Zeros
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.tensor import Tensor

__all__ = [
    "AvgPool",
    "BatchNormalization",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dropout",
    "EMAParamsTree",
    "Embedding",
    "ExponentialMovingAverage",
    "Flatten",
    "InstanceNormalization",
    "LayerNormalization",
    "Linear",
    "MaxPool",
    "MultiHeadAttention",
    "Reshape",
    "Sequential",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "transformers",
]

MSG_WINDOW = (
    "{name}: {what} is one size for all spatial axes of [N, s..., C], or one for each axis of the "
    "input with 1 for examples and channels, got {given!r} for {x}"
)


def _first(given: Any) -> OfLayer:
    """The initializer of weights: of variance 1 / fan_in by default."""
    return OfLayer(VarianceScaling() if given is None else given)


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
            data_format=FORMATS.get(data_format, data_format),
            mask=mask,
            groups=groups,
            dtype=dtype,
            **options,
        )

    return __init__


class Conv1D(nn.Conv1D, Module):
    """`ek.nn.Conv1D` for as many channels as the first input has."""

    __init__: Any = _convolution(nn.Conv1D)


class Conv2D(nn.Conv2D, Module):
    """`ek.nn.Conv2D` for as many channels as the first input has."""

    __init__: Any = _convolution(nn.Conv2D)


class Conv3D(nn.Conv3D, Module):
    """`ek.nn.Conv3D` for as many channels as the first input has."""

    __init__: Any = _convolution(nn.Conv3D)


class Conv1DTranspose(nn.Conv1DTranspose, Module):
    """`ek.nn.Conv1DTranspose` for as many channels as the first input has."""

    __init__: Any = _convolution(nn.Conv1DTranspose)


class Conv2DTranspose(nn.Conv2DTranspose, Module):
    """`ek.nn.Conv2DTranspose` for as many channels as the first input has."""

    __init__: Any = _convolution(nn.Conv2DTranspose)


class Conv3DTranspose(nn.Conv3DTranspose, Module):
    """`ek.nn.Conv3DTranspose` for as many channels as the first input has."""

    __init__: Any = _convolution(nn.Conv3DTranspose)


class Dropout(nn.Dropout, Module):
    """`ek.nn.Dropout`."""

    def __init__(self, rate: float, name: str | None = None) -> None:
        Module.__init__(self, name)
        nn.Dropout.__init__(self, rate)


class Embedding(nn.Embedding, Module):
    """`ek.nn.Embedding`.

    Args:
        vocab_size, embed_dim: of the table, unless `embedding_matrix` is one.
        lookup_style: accepted; rows are always taken by their index.
    """

    def __init__(
        self,
        vocab_size: int | None = None,
        embed_dim: int | None = None,
        embedding_matrix: Any = None,
        w_init: Any = None,
        lookup_style: str = "ARRAY_INDEX",
        name: str | None = None,
        dtype: Any = float32,
    ) -> None:
        Module.__init__(self, name, dtype)
        self.lookup_style, initializer = lookup_style, w_init or RandomNormal(0.0, 1.0)
        if embedding_matrix is not None:
            matrix = as_tensor(embedding_matrix, "Embedding").astype(dtype)
            if matrix.ndim != 2:
                raise ShapeError(f"Embedding: embedding_matrix is [rows, features], {matrix._type}")
            (vocab_size, embed_dim), initializer = matrix.shape, lambda *_: matrix
        size: Any = (vocab_size, embed_dim)
        nn.Embedding.__init__(self, *size, weight_initializer=initializer, dtype=dtype)


class Flatten(nn.Flatten, Module):
    """`ek.nn.Flatten`."""

    def __init__(self, preserve_dims: int = 1, name: str | None = None) -> None:
        Module.__init__(self, name)
        nn.Flatten.__init__(self, preserve_dims)


class Reshape(nn.Reshape, Module):
    """`ek.nn.Reshape`."""

    def __init__(self, output_shape: Any, preserve_dims: int = 1, name: str | None = None) -> None:
        Module.__init__(self, name)
        nn.Reshape.__init__(self, output_shape, preserve_dims)


class _Pool(Module):
    def __init__(
        self,
        window_shape: Any,
        strides: Any = None,
        padding: str = "VALID",
        channel_axis: int = -1,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.window_shape, self.padding = window_shape, padding.lower()
        self.strides = window_shape if strides is None else strides
        if channel_axis not in (-1, 1):
            raise EinkornError(f"{type(self).__name__}: channel_axis is -1 or 1")
        self.channel_axis = channel_axis

    def _sizes(self, what: str, given: Any, x: Tensor) -> tuple[int, ...]:
        """A size for each spatial axis."""
        spatial = tuple(range(1, x.ndim - 1) if self.channel_axis == -1 else range(2, x.ndim))
        if isinstance(given, int):
            return (given,) * len(spatial)
        whole = (*(1,) * (x.ndim - len(given)), *given)
        others = [n for axis, n in enumerate(whole) if axis not in spatial]
        if len(whole) != x.ndim or any(n != 1 for n in others):
            name = type(self).__name__
            raise ShapeError(MSG_WINDOW.format(name=name, what=what, given=given, x=x._type))
        return tuple(whole[axis] for axis in spatial)

    def _options(self, x: Tensor) -> dict[str, Any]:
        return {
            "stride": self._sizes("strides", self.strides, x),
            "padding": self.padding,
            "data_format": "NHWC" if self.channel_axis == -1 else "NCHW",
        }


class MaxPool(_Pool):
    """The largest element of each window, at any number of spatial axes."""

    def call(self, value: Any) -> Tensor:
        x = as_tensor(value, "MaxPool")
        return max_pool(x, self._sizes("window_shape", self.window_shape, x), **self._options(x))


class AvgPool(_Pool):
    """The mean of each window, of what it covers of the input."""

    def call(self, value: Any) -> Tensor:
        x = as_tensor(value, "AvgPool")
        window = self._sizes("window_shape", self.window_shape, x)
        return avg_pool(x, window, count_include_pad=False, **self._options(x))


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
