"""Modules, layers, activations and losses."""

from einkorn.functions.convolution import conv, conv_filter, conv_transpose
from einkorn.functions.elementwise import gelu, relu, sigmoid, silu, softplus, tanh
from einkorn.functions.losses import cross_entropy, mse_loss
from einkorn.functions.statistical import log_softmax, softmax
from einkorn.leaf import Parameter
from einkorn.nn.activations import (
    ELU,
    GELU,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    elu,
    leaky_relu,
)
from einkorn.nn.dropout import Dropout
from einkorn.nn.linear import Linear
from einkorn.nn.losses import CrossEntropyLoss, MSELoss
from einkorn.nn.module import Module
from einkorn.nn.sequential import Sequential

__all__ = [
    "ELU",
    "GELU",
    "CrossEntropyLoss",
    "Dropout",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "conv",
    "conv_filter",
    "conv_transpose",
    "cross_entropy",
    "elu",
    "gelu",
    "leaky_relu",
    "log_softmax",
    "mse_loss",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]
