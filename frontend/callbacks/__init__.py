"""Callbacks of `ek.Model.fit`: what happens between its steps."""

from einkorn.callbacks.base import Callback, CallbackList, LambdaCallback, Monitor
from einkorn.callbacks.control import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from einkorn.callbacks.records import CompileReport, CSVLogger, History, ProgressBar, TensorBoard

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "CompileReport",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "Monitor",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]


def __dir__() -> list[str]:
    return __all__
