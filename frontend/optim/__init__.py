"""Optimizers, schedules of learning rates, clipping, and averages of weights."""

from einkorn.optim import schedules
from einkorn.optim.adam import Adam, Adamax, AdamW, AMSGrad, NAdam, RAdam
from einkorn.optim.average import EMA
from einkorn.optim.base import Optimizer
from einkorn.optim.clipping import (
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    global_norm,
)
from einkorn.optim.hyper import Hyper
from einkorn.optim.large_batch import LAMB, LARS
from einkorn.optim.lion import Lion
from einkorn.optim.scaler import LossScaler
from einkorn.optim.sgd import SGD, Adadelta, Adagrad, Momentum, RMSProp

__all__ = [
    "EMA",
    "LAMB",
    "LARS",
    "SGD",
    "AMSGrad",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Hyper",
    "Lion",
    "LossScaler",
    "Momentum",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSProp",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "global_norm",
    "schedules",
]


def __dir__() -> list[str]:
    return __all__
