"""Callbacks that change how training goes on: early stopping, checkpoints, learning rates."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from einkorn.callbacks.base import (
    Callback,
    Monitor,
    checked_number,
    checked_path,
)
from einkorn.convert import as_count, as_flag
from einkorn.ir.errors import EinkornError
from einkorn.tunable import is_number

MSG_RATE = (
    "{name} sets the learning rate, but that of the optimizer is {lr!r}; give the optimizer a "
    "number, such as lr=1e-3"
)
MSG_PATH = (
    "ModelCheckpoint: the path {path!r} asks for {key}, and there is no such entry among epoch, "
    "batch and the logs ({known})"
)


class EarlyStopping(Monitor):
    """Stops when the watched value has not improved for `patience` epochs.

    Args:
        monitor: an entry of the logs.
        min_delta: an improvement by less is none.
        patience: how many epochs without improvement are too many.
        mode: "min", "max" or "auto".
        baseline: a value to be better than; None for none.
        restore_best_weights: whether parameters and buffers become those of the best epoch at the
            end; not after Ctrl-C, from where training may go on.
        start_from_epoch: epochs before it are not looked at.

    Attributes:
        stopped_epoch: when it stopped, or None.
        best: the best value.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        name = "EarlyStopping"
        self.patience = as_count(name, "patience", patience)
        self.baseline = None if baseline is None else checked_number(name, "baseline", baseline)
        self.start_from_epoch = as_count(name, "start_from_epoch", start_from_epoch)
        self.restores = as_flag(name, "restore_best_weights", restore_best_weights)
        self._start()

    def _start(self) -> None:
        self.wait, self.best, self.best_epoch = 0, None, None
        self.stopped_epoch: int | None = None
        self._weights: Mapping[str, Any] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._start()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        value = self.value(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restores and self._weights is None:
            self._keep(epoch)
        self.wait += 1
        if self.improves(value, self.best):
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
            self.best = value
            self._keep(epoch)
        elif self.wait >= self.patience:
            self.stopped_epoch, self.model.stop_training = epoch, True

    def _keep(self, epoch: int) -> None:
        self.best_epoch = epoch
        if self.restores:
            self._weights = self.model.module.state_dict()

    def on_train_end(self, logs: Any = None) -> None:
        if self._weights is not None and not self.model.history.interrupted:
            self.model.module.load_state_dict(self._weights)

    def get_state(self) -> dict[str, Any]:
        state = {"wait": self.wait, "best": self.best, "best_epoch": self.best_epoch}
        return {**state, "weights": self._weights or {}}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.wait, self.best, self.best_epoch = state["wait"], state["best"], state["best_epoch"]
        self._weights = state["weights"] or None


class ModelCheckpoint(Monitor):
    """Saves the model after epochs or batches: with the optimizer, everything `fit` goes on from.

    Args:
        path: of the file; "{epoch:03d}" and entries of the logs such as "{val_loss:.3f}" become
            their values. Epochs count from 1 there.
        monitor: what `save_best_only` looks at.
        save_best_only: whether a file is written only when that has improved.
        save_weights_only: write parameters and buffers only, for `module.load`.
        mode: "min", "max" or "auto".
        save_freq: "epoch", or a number of batches.
    """

    runs_last = True  # so that it saves what the other callbacks have made of the epoch

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
    ) -> None:
        super().__init__(monitor, mode)
        self.path = checked_path("ModelCheckpoint", path)
        self.save_best_only = as_flag("ModelCheckpoint", "save_best_only", save_best_only)
        self.save_weights_only = as_flag("ModelCheckpoint", "save_weights_only", save_weights_only)
        if save_freq != "epoch":
            as_count("ModelCheckpoint", "save_freq, when not 'epoch',", save_freq, least=1)
        self.save_freq = save_freq
        self.best: float | None = None
        self._epoch = self._seen = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            return
        self._seen += 1
        if self._seen % int(self.save_freq) == 0:
            self._save(self._epoch, batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, None, logs)

    def _save(self, epoch: int, batch: int | None, logs: Mapping[str, Any]) -> None:
        if self.save_best_only:
            value = self.value(logs)
            if value is None or not self.improves(value, self.best):
                return
            self.best = value
        entries = {**logs, "epoch": epoch + 1, "batch": 0 if batch is None else batch + 1}
        try:
            path = self.path.format(**entries)
        except (KeyError, IndexError) as error:
            known = ", ".join(logs)
            raise EinkornError(MSG_PATH.format(path=self.path, key=error, known=known)) from None
        except ValueError as error:
            raise EinkornError(
                f"ModelCheckpoint: the path {self.path!r} cannot be filled in: {error}"
            ) from None
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        if self.save_weights_only:
            self.model.module.save(path)
        else:
            self.model.save(path)

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best, "seen": self._seen}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.best, self._seen = state["best"], state["seen"]


class TerminateOnNaN(Callback):
    """Stops training at the end of a batch whose loss is no finite number."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            self.model.stop_training = True


class _RateCallback(Callback):
    def rate(self) -> float:
        lr = self.model.optimizer.lr
        if not is_number(lr):
            raise EinkornError(MSG_RATE.format(name=type(self).__name__, lr=lr))
        return float(lr)


class LearningRateScheduler(_RateCallback):
    """Sets the learning rate before each epoch.

    Args:
        schedule: called with the number of the epoch and the learning rate; gives the next one.
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        if not callable(schedule):
            raise EinkornError(f"LearningRateScheduler needs a function, got {schedule!r}")
        self.schedule = schedule

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        lr = self.schedule(epoch, self.rate())
        what = "what the schedule gives"
        self.model.optimizer.lr = checked_number("LearningRateScheduler", what, lr)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["lr"] = self.rate()


class ReduceLROnPlateau(Monitor, _RateCallback):
    """Multiplies the learning rate by `factor` when the watched value has not improved.

    Args:
        monitor: an entry of the logs.
        factor: in (0, 1).
        patience: how many epochs without improvement are enough.
        mode: "min", "max" or "auto".
        min_delta: an improvement by less is none.
        cooldown: how many epochs after a reduction are not counted.
        min_lr: the learning rate does not become less.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not is_number(factor) or not 0 < factor < 1:
            raise EinkornError(f"ReduceLROnPlateau: factor is between 0 and 1, got {factor!r}")
        name = "ReduceLROnPlateau"
        self.factor, self.patience = float(factor), as_count(name, "patience", patience)
        self.cooldown = as_count(name, "cooldown", cooldown)
        self.min_lr = checked_number(name, "min_lr", min_lr)
        self._start()

    def _start(self) -> None:
        self.wait = self.rest = 0
        self.best: float | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._start()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["lr"] = self.rate()
        value = self.value(logs)
        if value is None:
            return
        if self.rest:
            self.rest, self.wait = self.rest - 1, 0
        if self.improves(value, self.best):
            self.best, self.wait = value, 0
        elif not self.rest:
            self.wait += 1
            if self.wait >= self.patience:
                self.model.optimizer.lr = max(self.rate() * self.factor, self.min_lr)
                self.rest, self.wait = self.cooldown, 0

    def get_state(self) -> dict[str, Any]:
        return {"wait": self.wait, "rest": self.rest, "best": self.best}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.wait, self.rest, self.best = state["wait"], state["rest"], state["best"]
