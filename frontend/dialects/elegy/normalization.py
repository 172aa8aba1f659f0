"""Elegy's layers that normalise: those of `ek.nn`, scale and offset chosen apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einkorn import nn
from einkorn.dialects.elegy.modules import Module
from einkorn.initializers import Ones, Zeros
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import EinkornError
from einkorn.nn.sized import parameter

FORMATS = {"channels_last": "NHWC", "channels_first": "NCHW"}
MSG_AXIS = "LayerNormalization: axis is -1, the features of the last axis, got {axis!r}"


class _Affine(Module):
    """Makes only the parameters that are wanted."""

    def _affine(self, scale: bool, offset: bool, scale_init: Any, offset_init: Any) -> None:
        self._wanted = (
            (Ones if scale_init is None else scale_init) if scale else None,
            (Zeros if offset_init is None else offset_init) if offset else None,
        )

    if not TYPE_CHECKING:  # layers call what they are given a size or a shape

        def _make(self, size: Any) -> None:
            super()._make(size)
            shape = (size,) if isinstance(size, int) else size
            for name, initializer in zip("wb", self._wanted):
                made = None if initializer is None else parameter(initializer, shape, self.dtype)
                setattr(self, name, made)


class BatchNormalization(_Affine, nn.BatchNorm):
    """`ek.nn.BatchNorm`; `decay_rate` weighs what was seen before."""

    def __init__(
        self,
        create_scale: bool = True,
        create_offset: bool = True,
        decay_rate: float = 0.99,
        eps: float = 1e-5,
        scale_init: Any = None,
        offset_init: Any = None,
        data_format: str = "channels_last",
        name: str | None = None,
        dtype: Any = float32,
    ) -> None:
        Module.__init__(self, name, dtype)
        self._affine(create_scale, create_offset, scale_init, offset_init)
        kind = FORMATS.get(data_format, data_format)
        more: dict[str, Any] = {"data_format": kind, "dtype": dtype, "affine": False}
        nn.BatchNorm.__init__(self, momentum=1 - decay_rate, eps=eps, **more)


class LayerNormalization(_Affine, nn.LayerNorm):
    """`ek.nn.LayerNorm` over the last axis."""

    def __init__(
        self,
        axis: int = -1,
        create_scale: bool = True,
        create_offset: bool = True,
        eps: float = 1e-5,
        scale_init: Any = None,
        offset_init: Any = None,
        name: str | None = None,
        dtype: Any = float32,
    ) -> None:
        if axis != -1:
            raise EinkornError(MSG_AXIS.format(axis=axis))
        Module.__init__(self, name, dtype)
        self._affine(create_scale, create_offset, scale_init, offset_init)
        nn.LayerNorm.__init__(self, eps=eps, affine=False, dtype=dtype)


class InstanceNormalization(_Affine, nn.InstanceNorm):
    """`ek.nn.InstanceNorm`."""

    def __init__(
        self,
        create_scale: bool = True,
        create_offset: bool = True,
        eps: float = 1e-5,
        scale_init: Any = None,
        offset_init: Any = None,
        data_format: str = "channels_last",
        name: str | None = None,
        dtype: Any = float32,
    ) -> None:
        Module.__init__(self, name, dtype)
        self._affine(create_scale, create_offset, scale_init, offset_init)
        kind = FORMATS.get(data_format, data_format)
        nn.InstanceNorm.__init__(self, eps=eps, affine=False, data_format=kind, dtype=dtype)
