"""Arrays of 64-bit floats come in as 32-bit ones, as JAX reads them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

_NARROW = {np.dtype(np.float64): np.float32, np.dtype(np.complex128): np.complex64}


def narrow(x: Any) -> Any:
    """A nest in which NumPy's 64-bit floats are of 32 bits; itself when there are none.

    Tensors keep their dtype: whoever makes one of float64 wants it.
    """
    if isinstance(x, (np.ndarray, np.generic)):
        kind = _NARROW.get(x.dtype.newbyteorder("="))
        return x if kind is None else x.astype(kind)
    if isinstance(x, dict) and type(x) is dict:
        items = {key: narrow(item) for key, item in x.items()}
        return items if any(items[key] is not x[key] for key in x) else x
    if type(x) in (list, tuple) or hasattr(x, "_fields"):
        row = [narrow(item) for item in x]
        if all(a is b for a, b in zip(row, x)):
            return x
        return type(x)(*row) if hasattr(x, "_fields") else type(x)(row)
    return x


def narrowed(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which sees its arguments so."""

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return fn(*narrow(args), **narrow(kwargs))

    return wrapped
