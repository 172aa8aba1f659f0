"""Ivy's stateful API: `from einkorn.dialects import ivy`.

What is not defined here is einkorn's own: array functions, and layers that are alike.
"""

from typing import Any

import einkorn
from einkorn import nn
from einkorn.dialects.ivy.activations import (
    GELU,
    LeakyReLU,
    PReLU,
    SeLU,
    Softplus,
    gelu,
    leaky_relu,
    logsigmoid,
    softplus,
)
from einkorn.dialects.ivy.containers import Container
from einkorn.dialects.ivy.flow import for_loop, if_else, try_except, while_loop
from einkorn.dialects.ivy.functions import (
    array,
    dropout,
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
from einkorn.dialects.ivy.layers import (
    LSTM,
    BatchNorm1D,
    BatchNorm2D,
    BatchNorm3D,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    MultiHeadAttention,
)
from einkorn.dialects.ivy.losses import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    LogPoissonLoss,
    binary_cross_entropy,
    cross_entropy,
    huber_loss,
    log_poisson_loss,
    sparse_cross_entropy,
    wasserstein_loss_discriminator,
    wasserstein_loss_generator,
)
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
from einkorn.dialects.ivy.windows import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AvgPool1D,
    AvgPool2D,
    AvgPool3D,
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
    DepthwiseConv2D,
    MaxPool1D,
    MaxPool2D,
    MaxPool3D,
)
from einkorn.functions.linear_algebra import linear

__all__ = [
    "GELU",
    "LAMB",
    "LARS",
    "LSTM",
    "SGD",
    "Adam",
    "AdamW",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "BatchNorm1D",
    "BatchNorm2D",
    "BatchNorm3D",
    "BinaryCrossEntropyLoss",
    "Constant",
    "Container",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "CrossEntropyLoss",
    "DepthwiseConv2D",
    "Dropout",
    "Embedding",
    "FirstLayerSiren",
    "GlorotUniform",
    "Initializer",
    "KaimingNormal",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogPoissonLoss",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
    "Module",
    "MultiHeadAttention",
    "Ones",
    "Optimizer",
    "PReLU",
    "RandomNormal",
    "SeLU",
    "Sequential",
    "Siren",
    "Softplus",
    "Uniform",
    "Zeros",
    "adam_step",
    "adam_update",
    "array",
    "binary_cross_entropy",
    "cross_entropy",
    "dropout",
    "execute_with_gradients",
    "for_loop",
    "gelu",
    "grad",
    "gradient_descent_update",
    "huber_loss",
    "if_else",
    "is_variable",
    "jac",
    "lamb_update",
    "lars_update",
    "leaky_relu",
    "linear",
    "log_poisson_loss",
    "logsigmoid",
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
    "softplus",
    "sparse_cross_entropy",
    "stop_gradient",
    "try_except",
    "value_and_grad",
    "variable",
    "wasserstein_loss_discriminator",
    "wasserstein_loss_generator",
    "while_loop",
]


def __getattr__(name: str) -> Any:
    """What has the same name and meaning in einkorn."""
    for home in (einkorn, nn):
        if name in home.__all__:
            return getattr(home, name)
    raise AttributeError(f"module 'einkorn.dialects.ivy' has no attribute {name!r}")
