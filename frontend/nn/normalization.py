"""Normalisation layers: (x - mean) / sqrt(variance + eps) * w + b over different axes.

`w` starts with ones and `b` with zeros; `affine=False` leaves both out. Sizes that are left out
are those of the first input.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

from einkorn.convert import as_tensor
from einkorn.functions import normalization as fn
from einkorn.initializers import Ones, Zeros
from einkorn.ir.dtypes import as_dtype, float32
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.nn.building import built
from einkorn.nn.module import Module
from einkorn.nn.settings import Number, check_data_format, check_flag, check_number, check_size
from einkorn.nn.sized import Sized, check_dtype_of, check_rank, check_width, parameter
from einkorn.tensor import Tensor


class _Channels(Sized):
    """One number for each channel; channels are the last axis, or axis 1 with "NCHW"."""

    _size_name = "channels"
    channels: Any
    ranks: ClassVar[tuple[int, ...]] = tuple(range(2, 33))

    def __init__(
        self,
        channels: int | None = None,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        data_format: str = "NHWC",
        dtype: Any = float32,
    ) -> None:
        name = type(self).__name__
        self.eps = check_number(name, "eps", eps, 0.0)
        self.affine = check_flag(name, "affine", affine)
        self.axis = -1 if check_data_format(name, data_format) else 1
        self._dtype = dtype
        self._begin(channels)

    def _make(self, size: int) -> None:
        self.w = parameter(Ones, (size,), self._dtype) if self.affine else None
        self.b = parameter(Zeros, (size,), self._dtype) if self.affine else None

    def _size_of(self, x: Tensor) -> int:
        self._check_rank(x)
        return x.shape[self.axis]

    def _check_rank(self, x: Tensor) -> None:
        few = self.ranks if len(self.ranks) < 3 else "two or more"
        order = "[N, s..., C]" if self.axis == -1 else "[N, C, s...]"
        check_rank(self, x, self.ranks, f"{order} with axes: {few}")

    def _checked(self, x: Any) -> Tensor:
        tensor = as_tensor(x, type(self).__name__)
        self._check_rank(tensor)
        check_width(self, tensor, self.channels, "channels", self.axis)
        check_dtype_of(self, tensor, self.w)
        return tensor

    def extra_repr(self) -> str:
        last = "" if self.axis == -1 else ", data_format='NCHW'"
        return f"{self._shown_size()}{'' if self.affine else ', affine=False'}{last}"


class BatchNorm(_Channels):
    """Each channel normalised over all other axes (Ioffe & Szegedy, 2015).

    [N, s..., C] -> the same, also [N, C]. While training, the mean and biased variance of the
    batch normalise it, and the buffers `running_mean` and `running_var` become
    (1 - momentum) * old + momentum * batch, with the unbiased variance, once for each call. In
    eval mode the buffers normalise; there are none without `track_running_stats`, and then the
    batch always does.

    Args:
        channels: how many; those of the first input by default.
        momentum: how much the new batch weighs.

    Raises:
        ShapeError: training with one value for each channel, which has no variance.
    """

    momentum = Number()

    def __init__(
        self,
        channels: int | None = None,
        *,
        momentum: float = 0.1,
        eps: float = 1e-5,
        affine: bool = True,
        track_running_stats: bool = True,
        data_format: str = "NHWC",
        dtype: Any = float32,
    ) -> None:
        self.momentum = momentum
        name = type(self).__name__
        self.track_running_stats = check_flag(name, "track_running_stats", track_running_stats)
        super().__init__(channels, eps=eps, affine=affine, data_format=data_format, dtype=dtype)

    def _make(self, size: int) -> None:
        super()._make(size)
        if not self.track_running_stats:
            self.running_mean = self.running_var = None
            return
        dtype = as_dtype(self._dtype)
        wide = float32 if dtype.itemsize == 2 else dtype
        self.add_buffer("running_mean", Zeros()((size,), wide))
        self.add_buffer("running_var", Ones()((size,), wide))

    def forward(self, x: Any) -> Tensor:
        tensor = self._checked(x)
        mean, var = self.running_mean, self.running_var
        y, new_mean, new_var = fn.batch_norm(
            tensor,
            mean,
            var,
            self.w,
            self.b,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
            axis=self.axis,
        )
        if mean is not None and var is not None and self.training:
            mean.value, var.value = new_mean, new_var
        return y


class BatchNorm1D(BatchNorm):
    """`BatchNorm` of [N, C] or [N, T, C]."""

    ranks = (2, 3)


class BatchNorm2D(BatchNorm):
    """`BatchNorm` of [N, H, W, C]."""

    ranks = (4,)


class BatchNorm3D(BatchNorm):
    """`BatchNorm` of [N, D, H, W, C]."""

    ranks = (5,)


class InstanceNorm(_Channels):
    """Each channel of each example normalised by itself (Ulyanov et al., 2016).

    [N, s..., C] -> the same.
    """

    def forward(self, x: Any) -> Tensor:
        tensor = self._checked(x)
        return fn.instance_norm(tensor, self.w, self.b, axis=self.axis, eps=self.eps)


class GroupNorm(_Channels):
    """Each example normalised over groups of adjacent channels (Wu & He, 2018).

    [N, s..., C] -> the same.

    Args:
        groups: into how many the channels are divided.
        channels: how many; those of the first input by default.
    """

    def __init__(
        self,
        groups: int,
        channels: int | None = None,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        data_format: str = "NHWC",
        dtype: Any = float32,
    ) -> None:
        self.groups = check_size("GroupNorm", "groups", groups)
        super().__init__(channels, eps=eps, affine=affine, data_format=data_format, dtype=dtype)

    def _make(self, size: int) -> None:
        if size % self.groups:
            raise EinkornError(f"GroupNorm: {size} channels are no {self.groups} equal groups")
        super()._make(size)

    def forward(self, x: Any) -> Tensor:
        tensor = self._checked(x)
        return fn.group_norm(tensor, self.groups, self.w, self.b, axis=self.axis, eps=self.eps)

    def extra_repr(self) -> str:
        return f"{self.groups}, {super().extra_repr()}"


class _LastAxes(Module):
    """One number for each element of the last axes."""

    def __init__(
        self,
        shape: Any = None,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: Any = float32,
    ) -> None:
        name = type(self).__name__
        self.eps = check_number(name, "eps", eps, 0.0)
        self.affine = check_flag(name, "affine", affine)
        self._dtype = dtype
        sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
        if not sizes:
            raise EinkornError(f"{name}: shape has at least one size, got {shape!r}")
        self.shape: tuple[int, ...] | None = None
        if shape is not None:
            self._make(tuple(check_size(name, "shape", n) for n in sizes))
            built(self)

    def _make(self, shape: tuple[int, ...]) -> None:
        self.w = parameter(Ones, shape, self._dtype) if self.affine else None
        self.b = parameter(Zeros, shape, self._dtype) if self.affine and self._has_b() else None
        self.shape = shape

    def _has_b(self) -> bool:
        return True

    def build(self, x: Any) -> None:
        """Make the parameters for the last axis of an input."""
        if self.shape is None:
            tensor = as_tensor(x, type(self).__name__)
            if not prod(tensor.shape[-1:]) or not tensor.ndim:
                raise ShapeError(f"{type(self).__name__} needs features, got {tensor._type}")
            self._make(tensor.shape[-1:])

    def _checked(self, x: Any) -> tuple[Tensor, tuple[int, ...]]:
        tensor, shape = as_tensor(x, type(self).__name__), self.shape
        assert shape is not None
        for axis in range(-1, -len(shape) - 1, -1):
            check_width(self, tensor, shape[axis], "features", axis)
        check_dtype_of(self, tensor, self.w)
        return tensor, tuple(range(-len(shape), 0))

    def extra_repr(self) -> str:
        shape = self.shape
        shown = "?" if shape is None else str(shape[0] if len(shape) == 1 else shape)
        return shown + ("" if self.affine else ", affine=False")


class LayerNorm(_LastAxes):
    """(x - mean) / sqrt(variance + eps) * w + b over the last axes (Ba et al., 2016).

    Args:
        shape: the size of the last axis, or of the last ones; by default that of the first input.
    """

    def forward(self, x: Any) -> Tensor:
        tensor, axes = self._checked(x)
        return fn.layer_norm(tensor, self.w, self.b, axes=axes, eps=self.eps)


class RMSNorm(_LastAxes):
    """x / sqrt(mean(x**2) + eps) * w over the last axes (Zhang & Sennrich, 2019).

    Args:
        shape: the size of the last axis, or of the last ones; by default that of the first input.
    """

    def _has_b(self) -> bool:
        return False

    def forward(self, x: Any) -> Tensor:
        tensor, axes = self._checked(x)
        return fn.rms_norm(tensor, self.w, axes=axes, eps=self.eps)
