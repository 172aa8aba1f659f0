"""Optimizers."""

from einkorn.optim.adam import Adam, AdamW
from einkorn.optim.base import Optimizer, clip_by_global_norm, global_norm
from einkorn.optim.scaler import LossScaler
from einkorn.optim.sgd import SGD, Adagrad, Momentum, RMSProp

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "LossScaler",
    "Momentum",
    "Optimizer",
    "RMSProp",
    "clip_by_global_norm",
    "global_norm",
]
