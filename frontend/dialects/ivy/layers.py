"""Ivy's layers, under its names and with its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einkorn.dialects.ivy.initializers import GlorotUniform, Zeros
from einkorn.dialects.ivy.modules import Module
from einkorn.functions.linear_algebra import linear
from einkorn.tensor import Tensor


class Linear(Module):
    """x @ w.T + b, with `w` of shape (output_channels, input_channels)."""

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        weight_initializer: Any = None,
        bias_initializer: Any = None,
        with_bias: bool = True,
        dev: Any = None,
        v: Mapping[str, Any] | None = None,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self._input_channels, self._output_channels = input_channels, output_channels
        self._w_init = weight_initializer or GlorotUniform()
        self._b_init = bias_initializer or Zeros()
        self._with_bias = with_bias
        Module.__init__(self, device=device or dev, v=v, dtype=dtype)

    def _create_variables(self, *, device: Any = None, dtype: Any = None) -> Mapping[str, Any]:
        out, into = self._output_channels, self._input_channels
        v = {"w": self._w_init.create_variables((out, into), device, out, into, dtype=dtype)}
        if self._with_bias:
            v["b"] = self._b_init.create_variables((out,), device, out, into, dtype=dtype)
        return v

    def _forward(self, x: Any) -> Tensor:
        return linear(x, self.v.w, self.v.b if self._with_bias else None)

    def _extra_repr(self) -> str:
        bias = "" if self._with_bias else ", with_bias=False"
        return f"{self._input_channels}, {self._output_channels}{bias}"
