"""Elegy's module system: `from einkorn.dialects import elegy`.

`from einkorn.dialects.elegy import jax` and `from einkorn.dialects.elegy.jax import numpy as jnp`
stand for what programs for Elegy import beside it.
"""

from einkorn.dialects.elegy import (
    callbacks,
    data,
    initializers,
    jax,
    losses,
    metrics,
    model,
    nets,
    nn,
    regularizers,
)
from einkorn.dialects.elegy.hooks import (
    RNG,
    DynamicContext,
    StaticContext,
    add_loss,
    add_metric,
    add_summary,
    can_update,
    get_dynamic_context,
    get_losses,
    get_metrics,
    get_rng,
    get_static_context,
    get_summaries,
    hooks_context,
    init_context,
    is_initializing,
    is_training,
    name_context,
    next_rng_key,
    rng_context,
    set_context,
    set_rng,
    set_static_context,
    set_training,
    training,
    training_context,
)
from einkorn.dialects.elegy.losses import Loss
from einkorn.dialects.elegy.metrics import Metric
from einkorn.dialects.elegy.model import Model
from einkorn.dialects.elegy.modules import Module, to_module
from einkorn.dialects.elegy.transforms import jit, value_and_grad
from einkorn.nn.making import ModuleOrderError
from einkorn.tree import tree_map

tree_multimap = tree_map

__all__ = [
    "RNG",
    "DynamicContext",
    "Loss",
    "Metric",
    "Model",
    "Module",
    "ModuleOrderError",
    "StaticContext",
    "add_loss",
    "add_metric",
    "add_summary",
    "callbacks",
    "can_update",
    "data",
    "get_dynamic_context",
    "get_losses",
    "get_metrics",
    "get_rng",
    "get_static_context",
    "get_summaries",
    "hooks_context",
    "init_context",
    "initializers",
    "is_initializing",
    "is_training",
    "jax",
    "jit",
    "losses",
    "metrics",
    "model",
    "name_context",
    "nets",
    "next_rng_key",
    "nn",
    "regularizers",
    "rng_context",
    "set_context",
    "set_rng",
    "set_static_context",
    "set_training",
    "to_module",
    "training",
    "training_context",
    "tree_map",
    "tree_multimap",
    "value_and_grad",
]
