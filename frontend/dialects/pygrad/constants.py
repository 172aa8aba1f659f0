"""The dtype of tensors that name none."""

from __future__ import annotations

from typing import Any

import numpy as np

from einkorn.ir.dtypes import as_dtype
from einkorn.ir.errors import DTypeError

PRECISION = np.float64

_default: list[Any] = [PRECISION]


def set_default_dtype(dtype: Any) -> None:
    """Let tensors and layers that are made from now on have this dtype when they name none."""
    _default[0] = floating(dtype)


def floating(dtype: Any) -> Any:
    """A dtype as NumPy's scalar type; None gives the default. DTypeError when it is no float."""
    if dtype is None:
        return _default[0]
    found = as_dtype(dtype)
    if not found.is_float:
        raise DTypeError(f"pygrad: a tensor holds floats, got dtype {found}; write np.float64")
    return found.numpy.type
