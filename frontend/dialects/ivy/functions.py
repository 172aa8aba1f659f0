"""Functions that Ivy names or calls in another way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einkorn import random
from einkorn.convert import check_device
from einkorn.functions import elementwise as ew
from einkorn.functions import statistical
from einkorn.functions.creation import asarray
from einkorn.functions.manipulation import reshape
from einkorn.tensor import Tensor


def array(values: Any, dtype: Any = None, dev: Any = None, device: Any = None) -> Tensor:
    """A tensor of values."""
    check_device("array", dev or device)
    return asarray(values, dtype=dtype)


def random_uniform(
    low: Any = 0.0,
    high: Any = 1.0,
    shape: Any = (),
    dev: Any = None,
    device: Any = None,
    dtype: Any = "float32",
) -> Tensor:
    """Uniform numbers in [low, high)."""
    check_device("random_uniform", dev or device)
    return random.uniform(shape, low, high, dtype=dtype)


def random_normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    shape: Any = (),
    dev: Any = None,
    device: Any = None,
    dtype: Any = "float32",
) -> Tensor:
    """Normal numbers."""
    check_device("random_normal", dev or device)
    return random.normal(shape, mean, std, dtype=dtype)


def dropout(
    x: Any,
    prob: float,
    /,
    *,
    scale: bool = True,
    dtype: Any = None,
    training: bool = True,
    seed: int | None = None,
) -> Tensor:
    """x with each element zeroed with probability `prob`.

    Args:
        scale: divide what remains by 1 - prob.
        dtype: that of the result.
        training: whether anything is done.
        seed: draw the same mask each time, that of this seed.
    """
    tensor = asarray(x, dtype=dtype)
    if not training or not prob:
        return tensor
    key = None if seed is None else random.key(seed)
    kept = random.bernoulli(1.0 - prob, tensor.shape, key=key)
    return ew.where(kept, ew.divide(tensor, 1.0 - prob) if scale else tensor, 0)


def _reduced(name: str) -> Callable[..., Tensor]:
    fn = getattr(statistical, name)

    def reduce(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
        result = fn(x, axis=axis, keepdims=keepdims)
        return reshape(result, (1,)) if result.ndim == 0 else result

    reduce.__name__ = f"reduce_{name}"
    reduce.__doc__ = f"`{name}` over axes; over all of them the result has the shape (1,)."
    return reduce


reduce_max, reduce_mean, reduce_min = _reduced("max"), _reduced("mean"), _reduced("min")
reduce_prod, reduce_sum, reduce_var = _reduced("prod"), _reduced("sum"), _reduced("var")
