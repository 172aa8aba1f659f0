"""Elegy's Model: the arguments of its methods by their positions, and `train_fn`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from einkorn.callbacks.records import History
from einkorn.dialects.elegy.narrowing import narrow
from einkorn.ir.errors import EinkornError
from einkorn.model import model

MSG_LOAD = (
    "elegy.model.load({path!r}) cannot make the model: files hold no code. Make it as before, call "
    "model.build(x) with an example and then model.load({path!r})"
)


class Model(model.Model):
    """`ek.Model`, which reads arrays of 64-bit floats as such of 32 bits.

    `train_step`, `test_step`, `predict_step`, `train_fn` and `loss_fn` may be overridden: they run
    inside of the compiled steps.
    """

    def fit(  # type: ignore[override] # positions are Elegy's
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int = 1,
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
        drop_remaining: bool = False,
        **options: Any,
    ) -> History:
        """Train for some epochs; the arguments are those of `ek.Model.fit`."""
        return super().fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
            drop_last=drop_remaining,
            **options,
        )

    def evaluate(  # type: ignore[override] # positions are Elegy's
        self,
        x: Any,
        y: Any = None,
        verbose: int = 1,
        batch_size: int | None = None,
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
    ) -> dict[str, Any]:
        """Loss and metrics, by name."""
        more = {"sample_weight": sample_weight, "steps": steps, "callbacks": callbacks}
        return super().evaluate(x, y, batch_size=batch_size, verbose=verbose, **more)

    def predict(  # type: ignore[override] # positions are Elegy's
        self,
        x: Any,
        verbose: int = 0,
        batch_size: int | None = None,
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for all inputs."""
        more = {"steps": steps, "callbacks": callbacks}
        return super().predict(x, batch_size=batch_size, verbose=verbose, **more)

    def summary(  # type: ignore[override] # prints, as Elegy's does
        self, x: Any, depth: int = 2, tablefmt: str = "fancy_grid"
    ) -> None:
        """Print what each module returns, holds and computes for an input."""
        sys.stdout.write(f"{super().summary(narrow(x), depth=depth)}\n")

    def reset_metrics(self, hard: bool = False) -> None:
        """Forget what loss and metrics have seen."""
        super().reset_metrics()

    def train_fn(self, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> Any:
        """One step of training: gradient, optimizer, metrics; gives the logs."""
        return super().train_step(x, y, sample_weight, class_weight)

    def train_step(self, x: Any, y_true: Any, sample_weight: Any, class_weight: Any) -> Any:
        """What is compiled for a batch of training."""
        return self.train_fn(x, y_true, sample_weight, class_weight)

    # -- 64-bit floats -------------------------------------------------------------------------

    def build(self, x: Any) -> None:
        """Make what the first input decides."""
        super().build(narrow(x))

    def _step(self, kind: str) -> Callable[..., Any]:
        step = super()._step(kind)
        return lambda *batch: step(*narrow(batch))


def load(path: str | os.PathLike[str], include_optimizer: bool = True) -> Model:
    """Refused, with what to write instead."""
    raise EinkornError(MSG_LOAD.format(path=os.fspath(path)))
