"""Pooling layers: [N, s..., C] with channels last, or first with data_format "NCHW"."""

from __future__ import annotations

from typing import Any, ClassVar

from einkorn.convert import as_tensor
from einkorn.functions import pooling as fp
from einkorn.functions.elementwise import astype
from einkorn.functions.statistical import max as max_over
from einkorn.functions.statistical import mean
from einkorn.nn.convolution import ORDERS
from einkorn.nn.module import Module
from einkorn.nn.settings import check_data_format, check_flag, check_sizes, check_word
from einkorn.nn.sized import check_rank
from einkorn.tensor import Tensor


class _Spatial(Module):
    """What has one to three spatial axes."""

    spatial: ClassVar[int] = 0
    data_format: str

    def _checked(self, x: Any) -> Tensor:
        tensor = as_tensor(x, type(self).__name__)
        last = check_data_format(type(self).__name__, self.data_format)
        check_rank(self, tensor, (self.spatial + 2,), ORDERS[self.spatial, last])
        return tensor


class _Pool(_Spatial):
    def __init__(
        self,
        window: Any,
        stride: Any = None,
        padding: Any = "valid",
        *,
        dilation: Any = 1,
        ceil_mode: bool = False,
        data_format: str = "NHWC",
    ) -> None:
        name, axes = type(self).__name__, self.spatial
        self.window = check_sizes(name, "window", window, axes)
        self.stride = self.window if stride is None else check_sizes(name, "stride", stride, axes)
        if isinstance(padding, str):
            check_word(name, "padding", padding, ("valid", "same"))
        self.padding = padding
        self.dilation = check_sizes(name, "dilation", dilation, axes)
        self.ceil_mode = check_flag(name, "ceil_mode", ceil_mode)
        check_data_format(name, data_format)
        self.data_format = data_format

    def _options(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "ceil_mode", "data_format")
        return {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        stride = "" if self.stride == self.window else f", stride={self.stride}"
        padding = "" if self.padding == "valid" else f", padding={self.padding!r}"
        return f"{self.window}{stride}{padding}"


class _MaxPool(_Pool):
    def forward(self, x: Any) -> Tensor:
        return fp.max_pool(self._checked(x), self.window, **self._options())


class _AvgPool(_Pool):
    def __init__(
        self,
        window: Any,
        stride: Any = None,
        padding: Any = "valid",
        *,
        dilation: Any = 1,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        data_format: str = "NHWC",
    ) -> None:
        super().__init__(
            window,
            stride,
            padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
            data_format=data_format,
        )
        self.count_include_pad = check_flag(
            type(self).__name__, "count_include_pad", count_include_pad
        )

    def forward(self, x: Any) -> Tensor:
        options = {**self._options(), "count_include_pad": self.count_include_pad}
        return fp.avg_pool(self._checked(x), self.window, **options)


class MaxPool1D(_MaxPool):
    """The largest element of each window: (N, W, C) -> (N, W', C); see `MaxPool2D`."""

    spatial = 1


class MaxPool2D(_MaxPool):
    """The largest element of each window: (N, H, W, C) -> (N, H', W', C).

    Args:
        window: one size, or one for each axis; the same for `dilation` and `stride`, which is the
            window by default.
        padding: "valid", "same", an integer, one for each axis, or a pair for each.
        ceil_mode: whether a last window may stand out behind.
        data_format: "NHWC", or "NCHW" for channels first.
    """

    spatial = 2


class MaxPool3D(_MaxPool):
    """The largest element of each window: (N, D, H, W, C) -> the same axes; see `MaxPool2D`."""

    spatial = 3


class AvgPool1D(_AvgPool):
    """The mean of each window: (N, W, C) -> (N, W', C); see `AvgPool2D`."""

    spatial = 1


class AvgPool2D(_AvgPool):
    """The mean of each window: (N, H, W, C) -> (N, H', W', C).

    The arguments are those of `MaxPool2D`, and

    Args:
        count_include_pad: whether padding counts as elements that are zero.
    """

    spatial = 2


class AvgPool3D(_AvgPool):
    """The mean of each window: (N, D, H, W, C) -> the same axes; see `AvgPool2D`."""

    spatial = 3


class _Adaptive(_Spatial):
    def __init__(self, size: Any, *, data_format: str = "NHWC") -> None:
        self.size = check_sizes(type(self).__name__, "size", size, self.spatial)
        check_data_format(type(self).__name__, data_format)
        self.data_format = data_format

    def extra_repr(self) -> str:
        return str(self.size)


class _AdaptiveMax(_Adaptive):
    def forward(self, x: Any) -> Tensor:
        return fp.adaptive_max_pool(self._checked(x), self.size, data_format=self.data_format)


class _AdaptiveAvg(_Adaptive):
    def forward(self, x: Any) -> Tensor:
        return fp.adaptive_avg_pool(self._checked(x), self.size, data_format=self.data_format)


class AdaptiveMaxPool1D(_AdaptiveMax):
    """The largest element of each of `size` windows: (N, W, C) -> (N, size, C)."""

    spatial = 1


class AdaptiveMaxPool2D(_AdaptiveMax):
    """The largest element of each of `size` windows of each axis: (N, H, W, C) -> (N, *size, C)."""

    spatial = 2


class AdaptiveMaxPool3D(_AdaptiveMax):
    """The largest element of `size` windows of each axis: (N, D, H, W, C) -> (N, *size, C)."""

    spatial = 3


class AdaptiveAvgPool1D(_AdaptiveAvg):
    """The mean of each of `size` windows: (N, W, C) -> (N, size, C)."""

    spatial = 1


class AdaptiveAvgPool2D(_AdaptiveAvg):
    """The mean of each of `size` windows of each axis: (N, H, W, C) -> (N, *size, C).

    Window i of n elements goes from floor(i n / size) up to ceil((i + 1) n / size).
    """

    spatial = 2


class AdaptiveAvgPool3D(_AdaptiveAvg):
    """The mean of each of `size` windows of each axis: (N, D, H, W, C) -> (N, *size, C)."""

    spatial = 3


class _Global(Module):
    def __init__(self, *, data_format: str = "NHWC") -> None:
        check_data_format(type(self).__name__, data_format)
        self.data_format = data_format

    def _axes(self, x: Tensor) -> tuple[int, ...]:
        check_rank(self, x, range(3, 33), "[N, s..., C] with one spatial axis or more")
        last = check_data_format(type(self).__name__, self.data_format)
        return tuple(range(1, x.ndim - 1)) if last else tuple(range(2, x.ndim))


class GlobalMaxPool(_Global):
    """The largest element of each channel: [N, s..., C] -> (N, C)."""

    def forward(self, x: Any) -> Tensor:
        tensor = as_tensor(x, "GlobalMaxPool")
        return max_over(tensor, axis=self._axes(tensor))


class GlobalAvgPool(_Global):
    """The mean of each channel: [N, s..., C] -> (N, C); half types compute in float32."""

    def forward(self, x: Any) -> Tensor:
        tensor = as_tensor(x, "GlobalAvgPool")
        half = tensor.dtype.is_float and tensor.dtype.itemsize == 2
        found = mean(astype(tensor, "float32") if half else tensor, axis=self._axes(tensor))
        return astype(found, tensor.dtype) if half else found
