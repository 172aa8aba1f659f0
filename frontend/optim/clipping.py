"""Clipping of gradients: by value, each by its own norm, and all by their common norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from einkorn.convert import as_tensor, is_known
from einkorn.functions import elementwise as ew
from einkorn.ir.errors import EinkornError
from einkorn.optim.nests import as_container, in_dtype_of, rebuilt
from einkorn.recording import no_grad
from einkorn.tensor import Tensor


def square_sum(x: Any, what: str) -> Tensor:
    """The sum of the squares of all elements, in float32 or wider."""
    wide = as_tensor(x, what)
    wide = wide if wide.dtype.itemsize >= 4 else wide.astype("float32")
    return ew.multiply(wide, wide).sum()


def global_norm(grads: Any) -> Tensor:
    """The Euclidean norm of all gradients together, in float32 or wider."""
    squares = [square_sum(grad, "global_norm") for grad in as_container(grads).to_flat_list()]
    if not squares:
        raise EinkornError("global_norm: there are no gradients; pass what value_and_grad gives")
    total = squares[0]
    for square in squares[1:]:
        total = ew.add(total, square)
    return ew.sqrt(total)


def clip_by_global_norm(grads: Any, max_norm: Any) -> Any:
    """The gradients, scaled down when their global norm exceeds `max_norm` (Pascanu et al., 2013).

    The result has the structure of `grads`.
    """
    _check_limit("clip_by_global_norm: max_norm", max_norm)
    with no_grad():
        scale = _shrink(global_norm(grads), max_norm)
        return _each(grads, lambda grad: _scaled(grad, scale), "clip_by_global_norm")


def clip_by_norm(grads: Any, max_norm: Any) -> Any:
    """The gradients, each scaled down when its own Euclidean norm exceeds `max_norm`.

    The result has the structure of `grads`.
    """
    _check_limit("clip_by_norm: max_norm", max_norm)
    with no_grad():
        return _each(grads, lambda grad: clipped_by_norm(grad, max_norm), "clip_by_norm")


def clip_by_value(grads: Any, limit: Any) -> Any:
    """The gradients with every element brought into [-limit, limit]; NaN stays NaN.

    The result has the structure of `grads`.
    """
    _check_limit("clip_by_value: limit", limit)
    with no_grad():
        return _each(grads, lambda grad: clipped_by_value(grad, limit), "clip_by_value")


def clipped_by_norm(grad: Tensor, max_norm: Any) -> Tensor:
    """One gradient with a norm of at most `max_norm`."""
    return _scaled(grad, _shrink(ew.sqrt(square_sum(grad, "clip_by_norm")), max_norm))


def clipped_by_value(grad: Tensor, limit: Any) -> Tensor:
    """One gradient in [-limit, limit]."""
    return ew.maximum(ew.minimum(grad, limit), -limit)


def _check_limit(what: str, limit: Any) -> None:
    if is_known(limit) and (isinstance(limit, bool) or not limit > 0):
        raise EinkornError(f"{what} is above 0, got {limit!r}")


def _shrink(norm: Tensor, max_norm: Any) -> Tensor:
    """What a gradient of this norm is multiplied by: at most 1."""
    return ew.divide(max_norm, ew.maximum(norm, max_norm))


def _scaled(grad: Tensor, scale: Tensor) -> Tensor:
    return ew.multiply(grad, in_dtype_of(grad, scale))


def _each(grads: Any, fn: Callable[[Tensor], Tensor], what: str) -> Any:
    ends = [as_tensor(grad, what) for grad in as_container(grads).to_flat_list()]
    return rebuilt(grads, iter([fn(grad) for grad in ends]))
