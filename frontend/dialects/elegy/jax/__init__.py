"""The part of JAX that programs for Elegy call beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from einkorn import tree
from einkorn.dialects.elegy.jax import nn, numpy, random
from einkorn.dialects.elegy.narrowing import narrowed
from einkorn.dialects.elegy.transforms import jit
from einkorn.transforms import gradients
from einkorn.tree import tree_leaves, tree_map
from einkorn.vectorize import vmap

tree_multimap = tree.tree_map


def grad(fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Any:
    """A function that gives the gradient of `fun` by some of its arguments."""
    wrt = argnums if isinstance(argnums, int) else tuple(argnums)
    return narrowed(gradients.grad(fun, wrt, has_aux=has_aux))


def value_and_grad(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Any:
    """A function that gives the value of `fun` and its gradient by some of its arguments."""
    wrt = argnums if isinstance(argnums, int) else tuple(argnums)
    return narrowed(gradients.value_and_grad(fun, wrt, has_aux=has_aux))


__all__ = [
    "grad",
    "jit",
    "nn",
    "numpy",
    "random",
    "tree_leaves",
    "tree_map",
    "tree_multimap",
    "value_and_grad",
    "vmap",
]
