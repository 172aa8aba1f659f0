"""`jnp`: the functions of einkorn under the names that NumPy has for them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import einkorn
from einkorn.convert import as_tensor
from einkorn.dialects.elegy.narrowing import narrowed
from einkorn.functions.linear_algebra import matmul, tensordot
from einkorn.functions.manipulation import permute_dims
from einkorn.tensor import Tensor

# What NumPy calls in another way than the array API standard.
_STANDARD = {
    "absolute": "abs",
    "amax": "max",
    "amin": "min",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "array": "asarray",
    "concatenate": "concat",
    "cumprod": "cumulative_prod",
    "cumsum": "cumulative_sum",
    "invert": "bitwise_invert",
    "left_shift": "bitwise_left_shift",
    "mod": "remainder",
    "power": "pow",
    "right_shift": "bitwise_right_shift",
    "true_divide": "divide",
}
# Where NumPy takes a dtype by its position: the names of the arguments after the first.
_POSITIONAL = {
    **dict.fromkeys(("array", "asarray", "empty", "ones", "zeros"), ("dtype",)),
    **dict.fromkeys(("empty_like", "ones_like", "zeros_like"), ("dtype",)),
    **dict.fromkeys(("full", "full_like"), ("fill_value", "dtype")),
}
ndarray = Tensor


def _dot(a: Any, b: Any) -> Tensor:
    """The sum over the last axis of `a` and the last but one of `b`; a product with a scalar."""
    x, y = as_tensor(a, "dot"), as_tensor(b, "dot")
    if not x.ndim or not y.ndim:
        return x * y
    if x.ndim <= 2 and y.ndim <= 2:
        return matmul(x, y)
    return tensordot(x, y, axes=((x.ndim - 1,), (max(y.ndim - 2, 0),)))


def _transpose(a: Any, axes: Any = None) -> Tensor:
    """The axes in another order; in reverse by default."""
    x = as_tensor(a, "transpose")
    return permute_dims(x, tuple(range(x.ndim))[::-1] if axes is None else tuple(axes))


dot, transpose = narrowed(_dot), narrowed(_transpose)


@functools.cache
def _standard(name: str) -> Any:
    found = getattr(einkorn, _STANDARD.get(name, name))
    if not inspect.isfunction(found):
        return found
    return narrowed(_positional(found, _POSITIONAL[name]) if name in _POSITIONAL else found)


def _positional(fn: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapped(first: Any, *rest: Any, **named: Any) -> Any:
        return fn(first, *rest[len(names) :], **dict(zip(names, rest)), **named)

    return wrapped


def __getattr__(name: str) -> Any:
    """A function of einkorn, with JAX's reading of arrays, or one of its dtypes and constants."""
    if name in _STANDARD or name in einkorn.__all__:
        return _standard(name)
    raise AttributeError(f"module 'einkorn.dialects.elegy.jax.numpy' has no attribute {name!r}")
