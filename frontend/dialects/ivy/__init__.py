"""Ivy's stateful API: `from einkorn.dialects import ivy`.

What is not defined here is einkorn's own: its array functions, layers and activations.
"""

from typing import Any

import einkorn
from einkorn import nn
from einkorn.dialects.ivy.containers import Container
from einkorn.dialects.ivy.functions import (
    array,
    execute_with_gradients,
    random_normal,
    random_uniform,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_prod,
    reduce_sum,
    reduce_var,
)
from einkorn.dialects.ivy.initializers import (
    Constant,
    GlorotUniform,
    Initializer,
    KaimingNormal,
    Ones,
    RandomNormal,
    Uniform,
    Zeros,
)
from einkorn.dialects.ivy.layers import Linear
from einkorn.dialects.ivy.modules import Module, Sequential
from einkorn.dialects.ivy.optimizers import LAMB, LARS, SGD, Adam, AdamW, Optimizer
from einkorn.dialects.ivy.updates import (
    adam_step,
    adam_update,
    gradient_descent_update,
    lamb_update,
    lars_update,
    optimizer_update,
)
from einkorn.functions.linear_algebra import linear

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Container",
    "GlorotUniform",
    "Initializer",
    "KaimingNormal",
    "Linear",
    "Module",
    "Ones",
    "Optimizer",
    "RandomNormal",
    "Sequential",
    "Uniform",
    "Zeros",
    "adam_step",
    "adam_update",
    "array",
    "execute_with_gradients",
    "gradient_descent_update",
    "lamb_update",
    "lars_update",
    "linear",
    "optimizer_update",
    "random_normal",
    "random_uniform",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "reduce_var",
]


def __getattr__(name: str) -> Any:
    """What has the same name and meaning in einkorn."""
    for home in (einkorn, nn):
        if name in home.__all__:
            return getattr(home, name)
    raise AttributeError(f"module 'einkorn.dialects.ivy' has no attribute {name!r}")
