"""Searching for positions whose number depends on the values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from einkorn.convert import as_tensor
from einkorn.ir.errors import ShapeError, TraceError
from einkorn.recording import current_trace

if TYPE_CHECKING:
    from einkorn.tensor import Tensor

MSG_NONZERO = (
    "nonzero: the size of the result depends on the values, which only exist when {trace} "
    "(compiled) runs; use ek.where(mask, a, b), or ek.sum(mask) for the count"
)


def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """The positions of the elements that are not zero, one index tensor for each axis."""
    tensor = as_tensor(x, "nonzero")
    if (trace := current_trace.get()) is not None:
        raise TraceError(MSG_NONZERO.format(trace=trace.name))
    if not tensor.ndim:
        raise ShapeError(f"nonzero: needs at least one axis, got {tensor._type}")
    places = np.nonzero(tensor._eager())
    return tuple(as_tensor(place.astype(np.int64), "nonzero") for place in places)
