"""Optimizers."""

from einkorn.optim.adam import Adam, AdamW
from einkorn.optim.base import Optimizer, clip_by_global_norm, global_norm
from einkorn.optim.sgd import SGD, Adagrad, Momentum, RMSProp

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Optimizer",
    "RMSProp",
    "clip_by_global_norm",
    "global_norm",
]
