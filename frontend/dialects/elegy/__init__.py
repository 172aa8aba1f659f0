"""Elegy's module system: `from einkorn.dialects import elegy`.

`from einkorn.dialects.elegy import jax` and `from einkorn.dialects.elegy.jax import numpy as jnp`
stand for what programs for Elegy import beside it.
"""

from einkorn.dialects.elegy import initializers, jax, losses, metrics, model, nn, regularizers
from einkorn.dialects.elegy.losses import Loss
from einkorn.dialects.elegy.metrics import Metric
from einkorn.dialects.elegy.model import Model
from einkorn.dialects.elegy.modules import Module, to_module
from einkorn.dialects.elegy.transforms import jit, value_and_grad
from einkorn.nn.hooks import add_loss, add_metric, add_summary, next_rng_key, training
from einkorn.nn.making import ModuleOrderError
from einkorn.tree import tree_map

is_training = training
tree_multimap = tree_map

__all__ = [
    "Loss",
    "Metric",
    "Model",
    "Module",
    "ModuleOrderError",
    "add_loss",
    "add_metric",
    "add_summary",
    "initializers",
    "is_training",
    "jax",
    "jit",
    "losses",
    "metrics",
    "model",
    "next_rng_key",
    "nn",
    "regularizers",
    "to_module",
    "training",
    "tree_map",
    "tree_multimap",
    "value_and_grad",
]
