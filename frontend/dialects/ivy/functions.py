"""Functions that Ivy names or calls in another way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from einkorn import random
from einkorn.convert import check_device, normal_axis
from einkorn.functions import elementwise as ew
from einkorn.functions import linear_algebra, manipulation, normalization, segments, statistical
from einkorn.functions.creation import asarray
from einkorn.functions.manipulation import reshape
from einkorn.ir.errors import ShapeError
from einkorn.nn.embeddings import shortened
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


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
    """x @ weight.T + bias over the last axis of x, for weights of shape (out, in)."""
    return linear_algebra.linear(x, weight, bias)


def split(
    x: Any, num_or_size_splits: Any = None, axis: int = 0, with_remainder: bool = False
) -> list[Tensor]:
    """Parts along an axis.

    Args:
        num_or_size_splits: how many equal parts, or the size of each; as many as there are
            elements by default.
        with_remainder: whether the last of so many parts may be smaller.
    """
    tensor = asarray(x)
    axis = normal_axis("split", axis, tensor.ndim)
    count = tensor.shape[axis] if num_or_size_splits is None else num_or_size_splits
    if isinstance(count, (list, tuple)):
        marks = list(accumulate(count))
        if not marks or marks[-1] != tensor.shape[axis]:
            raise ShapeError(f"split: axis {axis} of {tensor._type} has no parts of {count}")
        return manipulation.split(tensor, marks[:-1], axis=axis)
    if with_remainder:
        size = -(-tensor.shape[axis] // count)
        return manipulation.split(tensor, list(range(size, tensor.shape[axis], size)), axis=axis)
    return manipulation.split(tensor, count, axis=axis)


def embedding(weights: Any, indices: Any, /, *, max_norm: float | None = None) -> Tensor:
    """Rows of a table; longer ones are scaled to the length `max_norm`."""
    rows = segments.embedding(indices, weights)
    return rows if max_norm is None else shortened(rows, max_norm)


def layer_norm(
    x: Any,
    normalized_idxs: Sequence[int],
    /,
    *,
    scale: Any = None,
    offset: Any = None,
    eps: float = 1e-5,
    new_std: float = 1.0,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * new_std * scale + offset over axes."""
    weight = scale if scale is None or new_std == 1.0 else ew.multiply(scale, new_std)
    axes = tuple(normalized_idxs)
    if scale is not None or new_std == 1.0:
        return normalization.layer_norm(x, weight, offset, axes=axes, eps=eps)
    scaled = ew.multiply(normalization.layer_norm(x, axes=axes, eps=eps), new_std)
    return scaled if offset is None else ew.add(scaled, offset)
