"""`Linear`: x @ w.T + b."""

from __future__ import annotations

from typing import Any

from einkorn.convert import as_tensor
from einkorn.functions.linear_algebra import linear
from einkorn.initializers import GlorotUniform, Zeros
from einkorn.ir.dtypes import float32
from einkorn.nn.settings import check_flag, check_size
from einkorn.nn.sized import Sized, check_dtype_of, check_width, parameter, shifted
from einkorn.tensor import Tensor


class Linear(Sized):
    """x @ w.T + b over the last axis, with `w` of shape (out_features, in_features).

    [..., in_features] -> [..., out_features]. `Linear(64)` takes its in_features from the first
    input.

    Args:
        with_bias: whether there is a `b`, of shape (out_features,).
        weight_initializer: an initializer or its class.
        bias_initializer: an initializer or its class.

    Raises:
        ShapeError: the last axis of the input is not in_features.
        DTypeError: the input has another dtype than the parameters.
    """

    def __init__(
        self,
        in_features: int | None = None,
        out_features: int | None = None,
        with_bias: bool = True,
        *,
        weight_initializer: Any = GlorotUniform,
        bias_initializer: Any = Zeros,
        dtype: Any = float32,
    ) -> None:
        names = ("in_features", "out_features")
        in_features, out = shifted("Linear", names, in_features, out_features)
        self.out_features = check_size("Linear", "out_features", out)
        self.with_bias = check_flag("Linear", "with_bias", with_bias)
        self._how = (weight_initializer, bias_initializer, dtype)
        self._begin(in_features)

    def _make(self, size: int) -> None:
        weight, bias, dtype = self._how
        self.w = parameter(weight, (self.out_features, size), dtype)
        self.b = parameter(bias, (self.out_features,), dtype) if self.with_bias else None

    def forward(self, x: Any) -> Tensor:
        tensor = as_tensor(x, "Linear")
        check_width(self, tensor, self.w.shape[1])
        check_dtype_of(self, tensor, self.w)
        return linear(tensor, self.w, self.b)

    def extra_repr(self) -> str:
        bias = "" if self.with_bias else ", with_bias=False"
        return f"{self._shown_size()}, {self.out_features}{bias}"
