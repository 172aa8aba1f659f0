"""`jax.nn`: the functions of `ek.nn`, with JAX's reading of arrays."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from einkorn import nn
from einkorn.dialects.elegy.narrowing import narrowed
from einkorn.functions import losses


@functools.cache
def _function(name: str) -> Any:
    found = {"swish": nn.silu, "one_hot": losses.one_hot}.get(name) or getattr(nn, name, None)
    return narrowed(found) if inspect.isfunction(found) else None


def __getattr__(name: str) -> Any:
    """An activation or another function of `ek.nn`."""
    found = None if name.startswith("_") else _function(name)
    if found is None:
        raise AttributeError(f"module 'einkorn.dialects.elegy.jax.nn' has no attribute {name!r}")
    return found
