"""Running results that are no op of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from einkorn.associative import associative_scan
from einkorn.autocast import single_precision
from einkorn.convert import as_tensor, normal_axis, snapshot
from einkorn.functions.elementwise import cast
from einkorn.functions.floating import logaddexp
from einkorn.ir.dtypes import float32

if TYPE_CHECKING:
    from einkorn.tensor import Tensor


@single_precision
def cumulative_logsumexp(x: Any, /, *, axis: int = -1) -> Tensor:
    """The logarithm of the sum of exp(x) up to each element of an axis, without overflow."""
    what = "cumulative_logsumexp"
    tensor = as_tensor(x, what)
    floats = tensor if tensor.dtype.is_float else cast(tensor, float32)
    at = normal_axis(what, axis, tensor.ndim)
    if tensor.size == 0 or tensor.shape[at] == 1:
        return snapshot(floats)
    wide = cast(floats, float32) if floats.dtype.itemsize == 2 else floats
    return cast(associative_scan(logaddexp, wide, axis=at), floats.dtype)
