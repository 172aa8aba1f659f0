"""`Model`: a module with a loss, metrics and an optimizer, and the loops around them."""

from __future__ import annotations

import os
from typing import Any

from einkorn.callbacks.base import CallbackList
from einkorn.callbacks.records import History
from einkorn.compile import Compiled
from einkorn.convert import as_count
from einkorn.data.sources import source_of, unpacked
from einkorn.ir.errors import EinkornError, StateError
from einkorn.model import checkpoint, fitting
from einkorn.model.checkpoint import Progress
from einkorn.model.injection import module_arguments
from einkorn.model.parts import class_weights
from einkorn.model.steps import Steps, tensors
from einkorn.nn.building import PENDING
from einkorn.nn.hooks import training_context
from einkorn.nn.summary_table import Summary
from einkorn.recording import no_grad

MSG_NOT_BUILT = (
    "Model.{what}: the sizes of some parameters are those of the first input, and there was none "
    "yet; call model.build(x) with an example before"
)

MSG_UNBUILT = "{error}; if forward makes modules, call model.build(x) with an example before"


class Model(Steps):
    """Trains, evaluates and runs a module: each step is one compiled call.

    Losses, metrics and the module get what the names of their parameters ask for, among `x`,
    `y_true`, `y_pred`, `sample_weight`, `class_weight`, `training`, `parameters` and `states`; of
    parameters with other names the first is y_pred and the second y_true.

    Args:
        module: what computes the predictions.
        loss: a function or `ek.nn.Loss`, or a nest of these in lists and dicts, which are added
            up. One under a key that the outputs have, too, is that of this output; `on=` chooses
            otherwise. A loss may return a dict of losses.
        metrics: an `ek.metrics.Metric`, a function whose values are averaged, or a nest of these.
        optimizer: an optimizer of the module, or a function that makes one when the parameters
            exist. Adam(1e-3) by default.
        run_eagerly: whether steps run without compilation, for a debugger; the bits are the same.

    Attributes:
        stop_training: set it in a callback, and training stops at the end of the batch or epoch.
        progress: how far training has come.
        history: of the last `fit`, or None.
    """

    def __init__(
        self,
        module: Any,
        loss: Any = None,
        metrics: Any = None,
        optimizer: Any = None,
        run_eagerly: bool = False,
    ) -> None:
        self.module, self.loss, self.metrics = module, loss, metrics
        self.optimizer, self.run_eagerly = optimizer, run_eagerly
        self.stop_training = False
        self.progress = Progress()
        self.history: History | None = None
        self._callbacks: CallbackList | None = None
        self._loaded: list[tuple[str, dict[str, Any]]] = []

    # -- fit, evaluate, predict ----------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
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
        drop_last: bool = False,
        resume: bool = False,
    ) -> History:
        """Train for some epochs.

        Args:
            x: arrays (or dicts, tuples of them), a `DataLoader`, any iterable of batches (x, y) or
                (x, y, sample_weight), a generator, or a function that returns one.
            y: targets, with arrays.
            batch_size: 32 by default; the last batch of an epoch holds the rest.
            epochs: the number of the last epoch.
            verbose: 0 for silence, 1 for a progress bar, 2 for one line for each epoch.
            callbacks: an `ek.callbacks.Callback`, or several.
            validation_split: the share of the samples, from the end, that is kept for validation.
            validation_data: (x, y), (x, y, sample_weight), or batches as `x` may be.
            shuffle: whether arrays are taken in a new random order in each epoch.
            class_weight: what the loss of a sample is multiplied by, by its class.
            sample_weight: what it is multiplied by, for each sample.
            initial_epoch: the number of epochs that count as done.
            steps_per_epoch: how many batches an epoch has; all by default.
            validation_steps: how many batches validation has; all by default.
            validation_batch_size: that of training by default.
            validation_freq: after how many epochs there is validation, or a list of their numbers,
                counted from 1.
            drop_last: leave out a last batch that is smaller.
            resume: go on from the point of the file that `load` read, whatever `initial_epoch`:
                with the same data and callbacks everything comes as without the interruption.

        Returns:
            The logs of each epoch. After Ctrl-C, which stops at the end of a batch, it is that of
            the epochs that were completed.
        """
        validation = validation_data
        if validation_split:
            if validation_data is not None:
                raise EinkornError("fit: give validation_split or validation_data, not both")
            parts = fitting.split_off(x, y, sample_weight, validation_split)
            (x, y, sample_weight), validation = parts
        source = source_of("fit", x, y, sample_weight, batch_size, bool(shuffle), drop_last)
        plan = fitting.Plan(
            source,
            as_count("fit", "epochs", epochs),
            fitting.checked_steps("steps_per_epoch", steps_per_epoch),
            class_weights(class_weight),
            fitting.validation_source(validation, validation_batch_size or batch_size),
            fitting.checked_steps("validation_steps", validation_steps),
            fitting.checked_frequency(validation_freq),
        )
        first = as_count("fit", "initial_epoch", initial_epoch)
        return self._fit(plan, self.progress if resume else Progress(first), verbose, callbacks)

    def _fit(self, plan: fitting.Plan, start: Progress, verbose: int, callbacks: Any) -> History:
        source = plan.source
        resume = start is self.progress
        params = {
            "epochs": plan.epochs,
            "steps": source.steps if plan.steps is None else plan.steps,
            "verbose": verbose,
            "validates": plan.validation is not None,
        }
        listed = fitting.callback_list("fit", self, callbacks, verbose, params)
        if not self._is_built or self.optimizer is None:
            self.build(source.peek()[0])
        if resume:
            source.seek(start.epoch + (start.batch > 0))
        self._callbacks = listed
        with listed:
            listed.run("on_train_begin", {})
            if resume:
                self._give_back(listed)
            return fitting.run_fit(self, plan, listed, start)

    def _give_back(self, callbacks: CallbackList) -> None:
        """Give callbacks the states that the file has, by class and order."""
        waiting = list(self._loaded)
        for callback in callbacks.callbacks:
            name = type(callback).__name__
            found = next((item for item in waiting if item[0] == name), None)
            if found is not None:
                waiting.remove(found)
                callback.set_state(found[1])

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        verbose: int = 0,
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
    ) -> dict[str, Any]:
        """Loss and metrics, by name; the arguments are those of `fit`."""
        source = source_of("evaluate", x, y, sample_weight, batch_size, shuffle=False)
        params = {"steps": source.steps if steps is None else steps, "verbose": verbose}
        with fitting.callback_list("evaluate", self, callbacks, verbose, params) as listed:
            return fitting.run_test(self, source, steps, listed)

    def predict(
        self,
        x: Any,
        *,
        batch_size: int | None = None,
        verbose: int = 0,
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for all inputs: arrays, nested as the module nests its outputs."""
        source = source_of("predict", x, None, None, batch_size, shuffle=False)
        params = {"steps": source.steps if steps is None else steps, "verbose": verbose}
        with fitting.callback_list("predict", self, callbacks, verbose, params) as listed:
            return fitting.run_predict(self, source, steps, listed)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None
    ) -> dict[str, Any]:
        """One step of training; metrics go on from where they are (see `reset_metrics`)."""
        batch = unpacked((x, y, sample_weight))
        self.build(batch[0])
        with training_context(True):
            return dict(self._step("train")(*batch, class_weights(class_weight)))

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None
    ) -> dict[str, Any]:
        """Loss and metrics of one batch; metrics go on from where they are."""
        batch = unpacked((x, y, sample_weight))
        with training_context(False):
            return dict(self._step("test")(*batch, class_weights(class_weight)))

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch, as tensors."""
        with training_context(False):
            return self._step("predict")(unpacked((x,))[0])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self.module(*args, **kwargs)

    # -- text and files ------------------------------------------------------------------------

    def summary(self, x: Any, *, depth: int | None = None, measure: bool = True) -> Summary:
        """A table of the modules inside, for a prediction with a batch of inputs.

        See `Module.summary`; no state changes, but parameters whose sizes `x` decides are made.
        """
        with no_grad(), training_context(False):
            inputs, named = module_arguments(self.module, tensors(x), self._injected(False))
            return self.module.summary(*inputs, depth=depth, measure=measure, **named)

    def explain(self) -> str:
        """What was compiled for each kind of step: traces, why there are several, their cost."""
        compiled = [run for _, run in self._steps.values() if isinstance(run, Compiled)]
        return "\n".join(str(run.explain()) for run in compiled)

    def save(self, path: str | os.PathLike[str], include_optimizer: bool = True) -> None:
        """Write parameters, buffers, optimizer, metrics, generator and the progress of training.

        One safetensors file with JSON in its head; an old one stays until the new one is complete.
        """
        checkpoint.save(self, path, include_optimizer)

    def load(self, path: str | os.PathLike[str], include_optimizer: bool = True) -> None:
        """Read what `save` wrote: all of it or, when something does not fit, nothing.

        The global generator goes on from where it was. `fit(..., resume=True)` goes on training.

        Raises:
            StateError: the file is none of a model, or of another one.
        """
        if any(PENDING in vars(module) for module in self.module.modules()):
            raise StateError(MSG_NOT_BUILT.format(what="load"))
        make = self._make_optimizer
        makes = include_optimizer and self.optimizer is None
        if makes and (make is None or not self.module.parameters()):
            raise StateError(MSG_NOT_BUILT.format(what="load"))
        try:
            if makes:
                self.optimizer = make(self.module)
            self._loaded = checkpoint.load(self, path, include_optimizer)
        except BaseException as error:
            if makes:  # the optimizer may lack what forward still makes
                self.optimizer = make
            if isinstance(error, StateError) and not self._is_built:
                raise StateError(MSG_UNBUILT.format(error=error)) from None
            raise

    def __repr__(self) -> str:
        return f"Model({self.module!r})"
