"""Ivy's stateful API: `from einkorn.dialects import ivy`.

What is not defined here is einkorn's own: its array functions, layers and activations.
"""

from typing import Any

import einkorn
from einkorn import nn
from einkorn.dialects.ivy.containers import Container
from einkorn.dialects.ivy.flow import for_loop, if_else, try_except, while_loop
from einkorn.dialects.ivy.functions import (
    array,
    random_normal,
    random_uniform,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_prod,
    reduce_sum,
    reduce_var,
)
from einkorn.dialects.ivy.gradients import (
    execute_with_gradients,
    grad,
    is_variable,
    jac,
    requires_gradient,
    stop_gradient,
    value_and_grad,
    variable,
)
from einkorn.dialects.ivy.initializers import (
    Constant,
    FirstLayerSiren,
    GlorotUniform,
    Initializer,
    KaimingNormal,
    Ones,
    RandomNormal,
    Siren,
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
    "FirstLayerSiren",
    "GlorotUniform",
    "Initializer",
    "KaimingNormal",
    "Linear",
    "Module",
    "Ones",
    "Optimizer",
    "RandomNormal",
    "Sequential",
    "Siren",
    "Uniform",
    "Zeros",
    "adam_step",
    "adam_update",
    "array",
    "execute_with_gradients",
    "for_loop",
    "grad",
    "gradient_descent_update",
    "if_else",
    "is_variable",
    "jac",
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
    "requires_gradient",
    "stop_gradient",
    "try_except",
    "value_and_grad",
    "variable",
    "while_loop",
]


def __getattr__(name: str) -> Any:
    """What has the same name and meaning in einkorn."""
    for home in (einkorn, nn):
        if name in home.__all__:
            return getattr(home, name)
    raise AttributeError(f"module 'einkorn.dialects.ivy' has no attribute {name!r}")
