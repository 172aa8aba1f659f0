"""Nests of parameters, gradients and state: how optimizers look at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from einkorn.container import Container
from einkorn.convert import as_tensor, is_weak
from einkorn.functions import elementwise as ew
from einkorn.ir.dtypes import bool_
from einkorn.ir.errors import DTypeError, EinkornError, StateError
from einkorn.leaf import Leaf
from einkorn.recording import no_grad
from einkorn.tensor import Tensor

MSG_PAIRS = (
    "{name} got pairs of a name and a parameter, as model.named_parameters() gives them; pass the "
    "model itself, or model.parameters()"
)

MSG_NUMBER = (
    "{name}({found!r}): the first argument is what is trained, and settings have names: "
    "{name}(model, lr={found!r})"
)


def as_container(nest: Any) -> Container:
    """A Module's parameters, a Container, or lists and dicts of those, as one Container."""
    if hasattr(nest, "_gradient_targets"):
        return nest.v
    if isinstance(nest, Container):
        return nest
    if isinstance(nest, dict):
        return Container((str(key), _item(value)) for key, value in nest.items())
    if isinstance(nest, (list, tuple)):
        return Container((f"v{k}", _item(value)) for k, value in enumerate(nest))
    return Container(v0=nest)


def _item(value: Any) -> Any:
    nested = isinstance(value, (dict, list, tuple)) or hasattr(value, "_gradient_targets")
    return as_container(value) if nested else value


def rebuilt(nest: Any, values: Any) -> Any:
    """The nest that `as_container` was given, with new ends; a Module becomes a Container."""
    if hasattr(nest, "_gradient_targets"):
        nest = nest.v
    if isinstance(nest, dict):
        items = ((key, rebuilt(value, values)) for key, value in nest.items())
        return type(nest)(items) if isinstance(nest, Container) else dict(items)
    if isinstance(nest, (list, tuple)):
        return type(nest)(rebuilt(value, values) for value in nest)
    return next(values)


def checked_params(name: str, params: Any) -> Container:
    """The leaves that an optimizer may move, by path."""
    if isinstance(params, (int, float)):
        raise EinkornError(MSG_NUMBER.format(name=name, found=params))
    flat = as_container(params)
    seen: dict[int, str] = {}
    for path, leaf in flat.flat_items():
        if isinstance(leaf, str):
            raise EinkornError(MSG_PAIRS.format(name=name))
        if not isinstance(leaf, Leaf):
            raise EinkornError(
                f"{name} needs a Module, leaves (ek.Parameter, ek.tensor) or a nest of them, got "
                f"{type(leaf).__name__} at {path}"
            )
        if not leaf.dtype.is_float:
            raise DTypeError(
                f"{name}: only floating-point leaves can be trained; {path} is {leaf._type}"
            )
        if leaf.id in seen:
            raise StateError(
                f"{name}: {seen[leaf.id]} and {path} are the same leaf; pass it once, or pass the "
                "Module that holds both"
            )
        seen[leaf.id] = path
    if not seen:
        raise EinkornError(f"{name}: there is no parameter to train in {type(params).__name__}")
    return flat


def zeros_like(x: Any) -> Tensor:
    """A tensor of zeros of the type of `x`."""
    like = as_tensor(x, "init")
    return as_tensor(np.zeros(like.shape, like.dtype.numpy), "init")


def in_dtype_of(param: Tensor, value: Any) -> Any:
    """A coefficient as it meets a parameter: rounded once to its dtype."""
    return value if is_weak(value) else ew.astype(value, param.dtype)


def chosen(when: Any, new: Mapping[str, Tensor], old: Any) -> dict[str, Tensor]:
    """New values where `when` holds, else the old ones."""
    condition = as_tensor(when, "step")
    if condition.dtype is not bool_ or condition.shape:
        raise DTypeError(f"step: when is one bool, got {condition._type}")
    with no_grad():
        return {path: ew.where(condition, value, old[path]) for path, value in new.items()}
