"""`Linear`: x @ w.T + b."""

from __future__ import annotations

from typing import Any

from einkorn.autocast import meet_in_autocast
from einkorn.convert import as_tensor
from einkorn.functions.linear_algebra import linear
from einkorn.initializers import GlorotUniform, Zeros
from einkorn.ir.dtypes import float32
from einkorn.ir.errors import DTypeError, ShapeError
from einkorn.leaf import Parameter
from einkorn.nn.module import Module, initial
from einkorn.nn.settings import check_flag, check_size
from einkorn.tensor import Tensor
from einkorn.tunable import module_path

MSG_WIDTH = (
    "{path}: {layer} takes {width} features in the last axis of its input, got {got}; check the "
    "layer before, or make it Linear({found}, ...)"
)
MSG_DTYPE = (
    "{path}: {layer} has parameters of {own} (w is {w}) but was called with {got}; cast the input "
    "with x.astype('{own}'), or make the layer with dtype='{other}'"
)


def check_dtype_of(layer: Module, x: Tensor, w: Tensor) -> None:
    """DTypeError unless the input has the dtype of the layer's parameters or autocast casts it."""
    if x.dtype is not w.dtype and not meet_in_autocast(x.dtype, w.dtype):
        other = x.dtype if x.dtype.is_float else w.dtype
        path = module_path.get()
        raise DTypeError(
            MSG_DTYPE.format(
                path=path, layer=layer, own=w.dtype, w=w._type, got=x._type, other=other
            )
        )


class Linear(Module):
    """x @ w.T + b over the last axis, with `w` of shape (out_features, in_features).

    Args:
        with_bias: whether there is a `b`, of shape (out_features,).
        weight_initializer: an initializer or its class.
        bias_initializer: an initializer or its class.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        with_bias: bool = True,
        *,
        weight_initializer: Any = GlorotUniform,
        bias_initializer: Any = Zeros,
        dtype: Any = float32,
    ) -> None:
        self.in_features = check_size("Linear", "in_features", in_features)
        self.out_features = check_size("Linear", "out_features", out_features)
        check_flag("Linear", "with_bias", with_bias)
        shape = (self.out_features, self.in_features)
        self.w = Parameter(initial(weight_initializer, shape, dtype), dtype)
        self.b = (
            Parameter(initial(bias_initializer, shape[:1], dtype), dtype) if with_bias else None
        )

    def forward(self, x: Any) -> Tensor:
        tensor = as_tensor(x, "Linear")
        if tensor.ndim == 0 or tensor.shape[-1] != self.in_features:
            found = tensor.shape[-1] if tensor.ndim else "..."
            raise ShapeError(
                MSG_WIDTH.format(
                    path=module_path.get(),
                    layer=self,
                    width=self.in_features,
                    got=tensor._type,
                    found=found,
                )
            )
        check_dtype_of(self, tensor, self.w)
        return linear(tensor, self.w, self.b)

    def extra_repr(self) -> str:
        bias = "" if self.b is not None else ", with_bias=False"
        return f"{self.in_features}, {self.out_features}{bias}"
