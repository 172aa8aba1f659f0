"""Ivy's convolution and pooling layers. Channels come last unless `data_format` says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict, Unpack

from einkorn import nn
from einkorn.dialects.ivy.initializers import GlorotUniform, Zeros
from einkorn.dialects.ivy.layers import Layer
from einkorn.dialects.ivy.modules import Module
from einkorn.functions.convolution import conv_transpose
from einkorn.ir.dtypes import float32
from einkorn.tensor import Tensor

LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


class Options(TypedDict, total=False):
    """What `Module` takes."""

    device: Any
    dev: Any
    v: Mapping[str, Any] | None
    training: bool


class Settings(Options, total=False):
    """What every convolution takes besides its sizes."""

    weight_initializer: Any
    bias_initializer: Any
    data_format: str
    dilations: Any
    dtype: Any


def _small(padding: Any) -> Any:
    """The words "SAME" and "VALID" as einkorn has them."""
    return padding.lower() if isinstance(padding, str) else padding


class _Convolution(Layer):
    """Sizes, strides and padding, then settings:

    Args:
        strides, dilations: one integer, or one for each axis.
        padding: "SAME", "VALID", or as einkorn has it.
        settings: `weight_initializer`, `bias_initializer`, `data_format`, `dilations`, `dtype`, and
            those of `Module`.
    """

    spatial: ClassVar[int]

    def _start(self, sizes: Any, strides: Any, padding: Any, settings: Settings) -> None:
        given: dict[str, Any] = {**settings}
        dtype = given.pop("dtype", None)
        self.native.__init__(
            self,
            *sizes,
            stride=strides,
            padding=_small(padding),
            dilation=given.pop("dilations", 1),
            data_format=given.pop("data_format", LAST[self.spatial]),
            weight_initializer=given.pop("weight_initializer", None) or GlorotUniform(),
            bias_initializer=given.pop("bias_initializer", None) or Zeros(),
            dtype=dtype or float32,
        )
        Module.__init__(self, dtype=dtype, **given)


class _Dense(_Convolution):
    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        filter_shape: Any,
        strides: Any,
        padding: Any,
        **settings: Unpack[Settings],
    ) -> None:
        self._start((input_channels, output_channels, filter_shape), strides, padding, settings)


class Conv1D(_Dense, nn.Conv1D):
    """A convolution: (N, W, in) -> (N, W', out)."""

    native = nn.Conv1D


class Conv2D(_Dense, nn.Conv2D):
    """A convolution: (N, H, W, in) -> (N, H', W', out)."""

    native = nn.Conv2D


class Conv3D(_Dense, nn.Conv3D):
    """A convolution: (N, D, H, W, in) -> (N, D', H', W', out)."""

    native = nn.Conv3D


class DepthwiseConv2D(_Convolution, nn.DepthwiseConv2D):
    """A filter for each channel alone: (N, H, W, C) -> (N, H', W', C)."""

    native = nn.DepthwiseConv2D

    def __init__(
        self,
        num_channels: int,
        filter_shape: Any,
        strides: Any,
        padding: Any,
        **settings: Unpack[Settings],
    ) -> None:
        self._start((num_channels, filter_shape), strides, padding, settings)


class _Transposed(_Convolution):
    """Further:

    Args:
        output_shape: sizes of the result along its spatial axes, or all of its shape; by default
            those that follow from the padding.
    """

    stride: Any
    dilation: Any
    kernel_size: Any
    data_format: str
    b: Any

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        filter_shape: Any,
        strides: Any,
        padding: Any,
        *,
        output_shape: Sequence[int] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        self.output_shape = None if output_shape is None else tuple(output_shape)
        self._start((input_channels, output_channels, filter_shape), strides, padding, settings)

    def _apply(self, x: Tensor, w: Tensor) -> Tensor:
        if self.output_shape is None:
            return self.native._apply(self, x, w)
        first = 1 if self.data_format.endswith("C") else 2
        inner = slice(first, first + self.spatial)
        wanted = self.output_shape
        wanted = wanted[inner] if len(wanted) == self.spatial + 2 else wanted
        reach = zip(x.shape[inner], self.kernel_size, self.stride, self.dilation, strict=True)
        whole = [(size - 1) * step + (k - 1) * apart + 1 for size, k, step, apart in reach]
        over = [a - b for a, b in zip(whole, wanted, strict=True)]
        return conv_transpose(
            x,
            w,
            self.b,
            stride=self.stride,
            padding=[(max(n, 0) // 2, (max(n, 0) + 1) // 2) for n in over],
            output_padding=[max(-n, 0) for n in over],
            dilation=self.dilation,
            data_format=self.data_format,
        )


class Conv1DTranspose(_Transposed, nn.Conv1DTranspose):
    """A transposed convolution: (N, W, in) -> (N, W', out)."""

    native = nn.Conv1DTranspose


class Conv2DTranspose(_Transposed, nn.Conv2DTranspose):
    """A transposed convolution: (N, H, W, in) -> (N, H', W', out)."""

    native = nn.Conv2DTranspose


class Conv3DTranspose(_Transposed, nn.Conv3DTranspose):
    """A transposed convolution: (N, D, H, W, in) -> (N, D', H', W', out)."""

    native = nn.Conv3DTranspose


# -- pooling ---------------------------------------------------------------------------------------


class _Pool(Layer):
    spatial: ClassVar[int]
    _more: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        *,
        data_format: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        chosen = data_format or LAST[self.spatial]
        self.native.__init__(
            self, kernel_size, stride, _small(padding), data_format=chosen, **self._more
        )
        Module.__init__(self, **options)


class MaxPool1D(_Pool, nn.MaxPool1D):
    """The largest element of each window: (N, W, C) -> (N, W', C)."""

    native = nn.MaxPool1D


class MaxPool2D(_Pool, nn.MaxPool2D):
    """The largest element of each window: (N, H, W, C) -> (N, H', W', C)."""

    native = nn.MaxPool2D


class MaxPool3D(_Pool, nn.MaxPool3D):
    """The largest element of each window: (N, D, H, W, C) -> (N, D', H', W', C)."""

    native = nn.MaxPool3D


class _Mean(_Pool):
    _more: ClassVar[dict[str, Any]] = {"count_include_pad": False}


class AvgPool1D(_Mean, nn.AvgPool1D):
    """The mean of each window, without padding: (N, W, C) -> (N, W', C)."""

    native = nn.AvgPool1D


class AvgPool2D(_Mean, nn.AvgPool2D):
    """The mean of each window, without padding: (N, H, W, C) -> (N, H', W', C)."""

    native = nn.AvgPool2D


class AvgPool3D(_Mean, nn.AvgPool3D):
    """The mean of each window, without padding: (N, D, H, W, C) -> (N, D', H', W', C)."""

    native = nn.AvgPool3D


class AdaptiveAvgPool1d(Layer, nn.AdaptiveAvgPool1D):
    """The mean of each of `output_size` windows: (N, C, W) -> (N, C, output_size)."""

    native = nn.AdaptiveAvgPool1D

    def __init__(self, output_size: int, **options: Unpack[Options]) -> None:
        nn.AdaptiveAvgPool1D.__init__(self, output_size, data_format="NCW")
        Module.__init__(self, **options)


class AdaptiveAvgPool2d(Layer, nn.AdaptiveAvgPool2D):
    """The mean of each of `output_size` windows: (N, H, W, C) -> (N, *output_size, C)."""

    native = nn.AdaptiveAvgPool2D

    def __init__(
        self, output_size: Any, *, data_format: str = "NHWC", **options: Unpack[Options]
    ) -> None:
        nn.AdaptiveAvgPool2D.__init__(self, output_size, data_format=data_format)
        Module.__init__(self, **options)
