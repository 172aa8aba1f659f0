"""`Callback`: what `fit`, `evaluate` and `predict` call at their stages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from einkorn.ir.errors import EinkornError
from einkorn.tunable import is_number

HOOKS = tuple(
    f"on_{stage}_{end}"
    for stage in (
        "train", "test", "predict", "epoch", "train_batch", "test_batch", "predict_batch"
    )
    for end in ("begin", "end")
)  # fmt: skip

MSG_MONITOR = "{name}: there is no {monitor!r} in the logs of this epoch; there are {known}"
MSG_HOOK = "{name} has no stage {hook!r}; there are {known}"


class Callback:
    """The base of callbacks: override what is of interest.

    Stages of an epoch get its number, counted from 0, stages of a batch that of the batch within
    the epoch. `logs` at the end of a stage holds the loss and metrics so far, by name; those of a
    batch are computed in the step itself, and become Python numbers when they are looked at.

    Attributes:
        model: the `ek.Model`.
        params: `epochs`, `steps` (None when not known), `verbose`, `validates`.
        runs_last: whether it comes behind the callbacks that do not say so.
    """

    runs_last = False
    model: Any = None
    params: Mapping[str, Any] = {}  # replaced, never written

    def set_model(self, model: Any) -> None:
        """Called before the first stage."""
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Called before the first stage."""
        self.params = params

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps: numbers, text, lists, and dicts of arrays."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `get_state` gave when training goes on from a checkpoint."""

    def close(self) -> None:
        """Let go of what is open: called last of all, also when something raised."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Any = None) -> None:
        """After the last epoch, also when it was stopped; not when something raised."""

    def on_test_begin(self, logs: Any = None) -> None:
        """Before an evaluation, also one within `fit`."""

    def on_test_end(self, logs: Any = None) -> None:
        """After an evaluation."""

    def on_predict_begin(self, logs: Any = None) -> None:
        """Before predictions."""

    def on_predict_end(self, logs: Any = None) -> None:
        """After predictions."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Before the first batch of an epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """After the last batch of an epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a training step."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a training step."""

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a batch is evaluated."""

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a batch was evaluated."""

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a batch is predicted."""

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a batch was predicted."""


class CallbackList:
    """Several callbacks as one; a stage that none of them overrides costs nothing."""

    def __init__(
        self,
        callbacks: Iterable[Callback] = (),
        model: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
        for callback in given:
            if not isinstance(callback, Callback):
                raise EinkornError(
                    f"callbacks are objects of classes that derive from ek.callbacks.Callback, got "
                    f"{callback!r}"
                )
        self.callbacks = sorted(given, key=lambda x: x.runs_last)
        for callback in self.callbacks:
            callback.set_params({} if params is None else params)
            if model is not None:
                callback.set_model(model)

    def __enter__(self) -> CallbackList:
        return self

    def __exit__(self, *error: object) -> None:
        for callback in self.callbacks:
            callback.close()

    def of(self, hook: str) -> list[Callable[..., None]]:
        """The methods for one stage, of callbacks that have one of their own."""
        plain = getattr(Callback, hook)
        methods = (getattr(callback, hook) for callback in self.callbacks)
        return [x for x in methods if getattr(x, "__func__", x) is not plain]

    def run(self, hook: str, *args: Any) -> None:
        """Call one stage of every callback."""
        if hook not in HOOKS:
            raise EinkornError(
                MSG_HOOK.format(name="CallbackList", hook=hook, known=", ".join(HOOKS))
            )
        for method in self.of(hook):
            method(*args)


def checked_number(owner: str, name: str, given: Any) -> float:
    """A real number as a float; scalar arrays and tensors are numbers, too."""
    number = given.item() if getattr(given, "shape", None) == () else given
    if not is_number(number):
        raise EinkornError(f"{owner}: {name} is a number, got {given!r}")
    return float(number)


def checked_path(owner: str, path: Any) -> str:
    """The path of a file or folder as text."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise EinkornError(f"{owner} needs a path, got {path!r}") from None


class LambdaCallback(Callback):
    """A callback from functions, by the names of the stages.

    LambdaCallback(on_epoch_end=lambda epoch, logs: ...)
    """

    def __init__(self, **stages: Callable[..., Any]) -> None:
        for hook, function in stages.items():
            name = type(self).__name__
            if hook not in HOOKS:
                raise EinkornError(MSG_HOOK.format(name=name, hook=hook, known=", ".join(HOOKS)))
            if not callable(function):
                raise EinkornError(f"{name}: {hook} is a function, got {function!r}")
            setattr(self, hook, function)


class Monitor(Callback):
    """The base of callbacks that watch one entry of the logs.

    Args:
        monitor: its name, such as "val_loss".
        mode: "min", "max", or "auto": "max" for names of accuracies and the like.
        min_delta: a change by less is none.
    """

    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0) -> None:
        name = type(self).__name__
        if not isinstance(monitor, str):
            raise EinkornError(
                f"{name}: monitor is the name of an entry of the logs, got {monitor!r}"
            )
        if mode not in ("auto", "min", "max"):
            raise EinkornError(f"{name}: mode is 'auto', 'min' or 'max', got {mode!r}")
        self.monitor, self.min_delta = monitor, abs(checked_number(name, "min_delta", min_delta))
        rising = any(word in monitor.lower() for word in _RISING)
        self.sign = -1.0 if mode == "max" or (mode == "auto" and rising) else 1.0

    def value(self, logs: Mapping[str, Any]) -> float | None:
        """What is watched; None in an epoch without validation."""
        if self.monitor in logs:
            return checked_number(type(self).__name__, self.monitor, logs[self.monitor])
        validated = any(key.startswith("val_") for key in logs)
        if self.monitor.startswith("val_") and self.params.get("validates") and not validated:
            return None
        known = ", ".join(logs)
        name = type(self).__name__
        raise EinkornError(MSG_MONITOR.format(name=name, monitor=self.monitor, known=known))

    def improves(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far; NaN never is."""
        if best is None:
            return value == value
        return self.sign * value < self.sign * best - self.min_delta


_RISING = ("acc", "auc", "precision", "recall", "f1", "top_k")
