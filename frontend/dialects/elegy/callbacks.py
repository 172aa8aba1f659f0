"""Elegy's callbacks: those of `ek.callbacks` with Elegy's arguments."""

from __future__ import annotations

import os
from typing import Any

from einkorn import callbacks
from einkorn.callbacks import (
    Callback,
    CallbackList,
    History,
    LambdaCallback,
    LearningRateScheduler,
    ReduceLROnPlateau,
    TerminateOnNaN,
)

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]


class ProgbarLogger(callbacks.ProgressBar):
    """A progress bar on standard output; its arguments are accepted."""

    def __init__(self, count_mode: str = "samples", stateful_metrics: Any = None) -> None:
        super().__init__()


class CSVLogger(callbacks.CSVLogger):
    """Writes the logs of each epoch as one line of a file."""

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        super().__init__(filename, separator, append)


class TensorBoard(callbacks.TensorBoard):
    """Writes event files for TensorBoard."""

    def __init__(
        self, logdir: str | os.PathLike[str] = "logs", update_freq: str | int = "epoch"
    ) -> None:
        super().__init__(logdir, update_freq)


class EarlyStopping(callbacks.EarlyStopping):
    """Stops when the watched value has not improved for `patience` epochs."""

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
    ) -> None:
        super().__init__(monitor, min_delta, patience, mode, baseline, restore_best_weights)


class ModelCheckpoint(callbacks.ModelCheckpoint):
    """Saves the model after epochs or batches; all of it that `fit` goes on from."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
    ) -> None:
        super().__init__(path, monitor, save_best_only, mode=mode, save_freq=save_freq)
