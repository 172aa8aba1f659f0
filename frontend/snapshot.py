"""A value as it is now, kept apart from later writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.leaf import Leaf
from einkorn.recording import Value, current_trace, no_grad, result


def snapshot(x: Any) -> Any:
    """The value of `x` as it is now, with no gradient and of no further change."""
    if isinstance(x, np.ndarray):
        return x.copy()
    if not isinstance(x, Value):
        return x
    if current_trace.get() is not None:
        with no_grad():
            return x.detach()  # type: ignore[attr-defined] # every Value that users hold is a Tensor
    return result(x._type, x._shared(), node=None if isinstance(x, Leaf) else x._node)
