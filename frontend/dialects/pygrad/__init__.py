"""pygrad: tensors with a tape, layers, losses, optimizers, and a Module.

`from einkorn.dialects.pygrad.tensor import Tensor` stands for `from pygrad.tensor import Tensor`,
and likewise for the modules basics, activations, losses, optims, module and constants.
"""

from einkorn.dialects.pygrad.activations import ReLU, Sigmoid, Tanh
from einkorn.dialects.pygrad.basics import AddNorm, Conv2D, Dropout, Flatten, Linear, Softmax
from einkorn.dialects.pygrad.constants import PRECISION, set_default_dtype
from einkorn.dialects.pygrad.losses import BCELoss, CCELoss
from einkorn.dialects.pygrad.module import Module
from einkorn.dialects.pygrad.optims import SGD, Adam, RMSProp, SGD_Momentum
from einkorn.dialects.pygrad.tensor import Tensor, array

__all__ = [
    "PRECISION",
    "SGD",
    "Adam",
    "AddNorm",
    "BCELoss",
    "CCELoss",
    "Conv2D",
    "Dropout",
    "Flatten",
    "Linear",
    "Module",
    "RMSProp",
    "ReLU",
    "SGD_Momentum",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Tensor",
    "array",
    "set_default_dtype",
]
