"""Convolution layers, with weights (out, k..., in / groups) and channels last by default.

`Conv2D(32, 3)` takes its input channels from the first input; `Conv2D(16, 32, 3)` is given them.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

from einkorn.convert import as_tensor
from einkorn.functions.convolution import conv, conv_transpose
from einkorn.initializers import GlorotUniform, Zeros
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.leaf import Leaf
from einkorn.nn.settings import check_data_format, check_flag, check_size, check_sizes, check_word
from einkorn.nn.sized import Sized, check_dtype_of, check_rank, check_width, parameter, shifted
from einkorn.tensor import Tensor

ORDERS = {
    (1, True): "(N, W, C)",
    (2, True): "(N, H, W, C)",
    (3, True): "(N, D, H, W, C)",
    (1, False): "(N, C, W)",
    (2, False): "(N, C, H, W)",
    (3, False): "(N, C, D, H, W)",
}


class _Convolution(Sized):
    _size_name = "in_channels"
    spatial: ClassVar[int] = 0
    mask: Leaf

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        kernel_size: Any = None,
        *,
        stride: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        groups: int = 1,
        with_bias: bool = True,
        mask: Any = None,
        data_format: str = "NHWC",
        weight_initializer: Any = GlorotUniform,
        bias_initializer: Any = Zeros,
        dtype: Any = float32,
    ) -> None:
        name, axes = type(self).__name__, self.spatial
        names = ("in_channels", "out_channels", "kernel_size")
        known, out, kernel = shifted(name, names, in_channels, out_channels, kernel_size)
        self.out_channels = check_size(name, "out_channels", out)
        self.kernel_size = check_sizes(name, "kernel_size", kernel, axes)
        self.stride = check_sizes(name, "stride", stride, axes)
        self.dilation = check_sizes(name, "dilation", dilation, axes)
        if isinstance(padding, str):
            check_word(name, "padding", padding, ("valid", "same"))
        self.padding = padding
        self.groups = check_size(name, "groups", groups)
        if self.out_channels % self.groups:
            raise EinkornError(f"{name}: {out} output channels are no {groups} equal groups")
        self.with_bias = check_flag(name, "with_bias", with_bias)
        self.data_format = data_format
        self._axis = -1 if check_data_format(name, data_format) else 1
        self._how = (weight_initializer, bias_initializer, dtype, mask)
        self._begin(known)

    def _make(self, size: int) -> None:
        weight, bias, dtype, mask = self._how
        if size % self.groups:
            raise EinkornError(
                f"{type(self).__name__}: {size} input channels are no {self.groups} equal groups"
            )
        shape = (self.out_channels, *self.kernel_size, size // self.groups)
        kept = None if mask is None else self._mask(mask, shape, dtype)
        self.w = parameter(weight, shape, dtype, *self._fans(shape))
        self.b = parameter(bias, (self.out_channels,), dtype) if self.with_bias else None
        if kept is not None:
            self.add_buffer("mask", kept)
        self._masked = kept is not None

    def _fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Those of one group."""
        window = prod(shape[1:-1])
        return window * shape[-1], window * shape[0] // self.groups

    def _mask(self, mask: Any, shape: tuple[int, ...], dtype: Any) -> Tensor:
        given = as_tensor(mask, type(self).__name__)
        sizes = (1,) * (len(shape) - given.ndim) + given.shape
        if len(sizes) != len(shape) or any(a not in (1, b) for a, b in zip(sizes, shape)):
            raise ShapeError(
                f"{type(self).__name__}: mask broadcasts to the weights {shape}, got {given._type}"
            )
        return given.astype(dtype).reshape(sizes)

    def _size_of(self, x: Tensor) -> int:
        self._check_rank(x)
        return x.shape[self._axis]

    def _check_rank(self, x: Tensor) -> None:
        check_rank(self, x, (self.spatial + 2,), ORDERS[self.spatial, self._axis == -1])

    def forward(self, x: Any) -> Tensor:
        tensor = as_tensor(x, type(self).__name__)
        self._check_rank(tensor)
        check_width(self, tensor, getattr(self, self._size_name), "channels", self._axis)
        check_dtype_of(self, tensor, self.w)
        return self._apply(tensor, self.w * self.mask if self._masked else self.w)

    def _apply(self, x: Tensor, w: Tensor) -> Tensor:
        return conv(
            x,
            w,
            self.b,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            data_format=self.data_format,
        )

    def extra_repr(self) -> str:
        shown = [self._shown_size(), str(self.out_channels), str(self.kernel_size)]
        for name in ("stride", "dilation"):
            value = getattr(self, name)
            shown += [f"{name}={value}"] if any(n != 1 for n in value) else []
        shown += [f"padding={self.padding!r}"] if self.padding != "valid" else []
        shown += [f"groups={self.groups}"] if self.groups != 1 else []
        shown += ["with_bias=False"] if not self.with_bias else []
        return ", ".join(shown)


class Conv1D(_Convolution):
    """A convolution over one axis: (N, W, in) -> (N, W', out); see `Conv2D`."""

    spatial = 1


class Conv2D(_Convolution):
    """A convolution (cross-correlation) over two axes: (N, H, W, in) -> (N, H', W', out).

    out[n, o, c] = b[c] + sum over k, i of x[n, o * stride + k * dilation - low, i] * w[c, k, i],
    with H' = (H + low + high - (k - 1) * dilation - 1) // stride + 1 (LeCun et al., 1989).

    Args:
        in_channels: those of the first input when left out, as in Conv2D(32, 3).
        kernel_size, stride, dilation: one integer, or one for each axis.
        padding: "valid", "same" (H' = ceil(H / stride)), an integer, one for each axis, or a pair
            (before, after) for each.
        groups: channels are cut into so many groups, each with filters of its own.
        mask: what the weights are multiplied by; broadcasts to them.
        data_format: "NHWC", or "NCHW" for channels first in the input and the result.

    Raises:
        ShapeError: an input of another rank or number of channels.
        DTypeError: an input of another dtype than the weights.
    """

    spatial = 2


class Conv3D(_Convolution):
    """A convolution over three axes: (N, D, H, W, in) -> (N, D', H', W', out); see `Conv2D`."""

    spatial = 3


class _Transposed(_Convolution):
    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        kernel_size: Any = None,
        *,
        output_padding: Any = 0,
        **options: Any,
    ) -> None:
        name = type(self).__name__
        self.output_padding = check_sizes(name, "output_padding", output_padding, self.spatial, 0)
        super().__init__(in_channels, out_channels, kernel_size, **options)

    def _apply(self, x: Tensor, w: Tensor) -> Tensor:
        return conv_transpose(
            x,
            w,
            self.b,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
            data_format=self.data_format,
        )


class Conv1DTranspose(_Transposed):
    """A transposed convolution: (N, W, in) -> (N, W', out); see `Conv2DTranspose`."""

    spatial = 1


class Conv2DTranspose(_Transposed):
    """A transposed convolution: (N, H, W, in) -> (N, H', W', out) (Zeiler et al., 2010).

    out[n, i * stride + k * dilation - low, c] += x[n, i, j] * w[c, k, j], with
    H' = (H - 1) * stride - low - high + (k - 1) * dilation + 1 + output_padding. The arguments are
    those of `Conv2D`, and

    Args:
        padding: cuts off what it would have added there; "same" gives H' = H * stride.
        output_padding: further results at the end of each axis, less than stride or dilation.
    """

    spatial = 2


class Conv3DTranspose(_Transposed):
    """A transposed convolution: (N, D, H, W, in) -> (N, D', H', W', out); see `Conv2DTranspose`."""

    spatial = 3


class _Depthwise(_Convolution):
    _size_name = "channels"

    def __init__(
        self,
        channels: int | None = None,
        kernel_size: Any = None,
        *,
        multiplier: int = 1,
        **options: Any,
    ) -> None:
        name = type(self).__name__
        known, kernel = shifted(name, ("channels", "kernel_size"), channels, kernel_size)
        self.multiplier = check_size(name, "multiplier", multiplier)
        if "groups" in options:
            raise EinkornError(f"{name}: there is a group for each channel; leave groups out")
        super().__init__(None, 1, kernel, **options)
        if known is not None:
            self._begin(known)

    def _make(self, size: int) -> None:
        self.groups, self.out_channels = size, size * self.multiplier
        super()._make(size)

    def extra_repr(self) -> str:
        times = "" if self.multiplier == 1 else f", multiplier={self.multiplier}"
        return f"{self._shown_size()}, {self.kernel_size}{times}"


class DepthwiseConv1D(_Depthwise):
    """Filters for each channel alone: (N, W, C) -> (N, W', C * multiplier)."""

    spatial = 1


class DepthwiseConv2D(_Depthwise):
    """Filters for each channel alone: (N, H, W, C) -> (N, H', W', C * multiplier).

    A `Conv2D` with as many groups as channels (Chollet, 2017): w (C * multiplier, k..., 1), output
    channel c * multiplier + m belonging to input channel c. `DepthwiseConv2D(3)` takes the channels
    from the first input. The other arguments are those of `Conv2D`.

    Args:
        multiplier: how many filters each channel has.
    """

    spatial = 2


class DepthwiseConv3D(_Depthwise):
    """Filters for each channel alone: (N, D, H, W, C) -> (N, D', H', W', C * multiplier)."""

    spatial = 3
