"""`jax.random`: draws with the key in front."""

from __future__ import annotations

from typing import Any

from einkorn import random
from einkorn.random import Key, fold_in, split
from einkorn.random import key as PRNGKey  # as JAX spells it
from einkorn.tensor import Tensor

__all__ = [
    "PRNGKey",
    "bernoulli",
    "categorical",
    "fold_in",
    "normal",
    "permutation",
    "randint",
    "split",
    "truncated_normal",
    "uniform",
]


def uniform(
    key: Key, shape: Any = (), dtype: Any = "float32", minval: Any = 0.0, maxval: Any = 1.0
) -> Tensor:
    """Uniform numbers in [minval, maxval)."""
    return random.uniform(tuple(shape), minval, maxval, dtype=dtype, key=key)


def normal(key: Key, shape: Any = (), dtype: Any = "float32") -> Tensor:
    """Standard normal numbers."""
    return random.normal(tuple(shape), dtype=dtype, key=key)


def truncated_normal(
    key: Key, lower: Any, upper: Any, shape: Any = (), dtype: Any = "float32"
) -> Tensor:
    """Standard normal numbers between two bounds."""
    return random.truncated_normal(tuple(shape), lower, upper, dtype=dtype, key=key)


def bernoulli(key: Key, p: Any = 0.5, shape: Any = None) -> Tensor:
    """True with probability `p`."""
    return random.bernoulli(p, shape if shape is None else tuple(shape), key=key)


def randint(key: Key, shape: Any, minval: Any, maxval: Any, dtype: Any = "int32") -> Tensor:
    """Integers in [minval, maxval)."""
    return random.randint(minval, maxval, tuple(shape), dtype=dtype, key=key)


def categorical(key: Key, logits: Any, axis: int = -1) -> Tensor:
    """Classes with the probabilities that scores say."""
    return random.categorical(logits, axis=axis, key=key)


def permutation(key: Key, x: Any, axis: int = 0) -> Tensor:
    """An order of the numbers below `x`, or the parts of an array in another order."""
    return random.permutation(x, axis, key=key)
