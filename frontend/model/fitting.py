"""The loops of a `Model`: epochs, batches, callbacks, validation, and Ctrl-C in between."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from einkorn.callbacks.base import CallbackList
from einkorn.callbacks.records import History, ProgressBar
from einkorn.convert import as_count
from einkorn.data.dataset import as_arrays
from einkorn.data.sources import Source, is_arrays, source_of
from einkorn.ir.errors import EinkornError, ShapeError
from einkorn.model.checkpoint import Progress
from einkorn.nn.hooks import training_context
from einkorn.tree import flatten, unflatten
from einkorn.tunable import is_number

MSG_EMPTY = "{what}: there were no batches"
MSG_SPLIT = (
    "fit: validation_split={split!r} is a share between 0 and 1 of the samples of arrays; for "
    "other data pass validation_data"
)
MSG_ROWS = (
    "predict: an output is a scalar for the whole batch; those of batches are joined along axis 0, "
    "so return one row for each sample, or call model.predict_on_batch(x)"
)
MSG_PAIR = (
    "fit: validation_data is (x, y), (x, y, sample_weight), or batches as x may be, got a {kind} "
    "of {count}"
)
VERBOSE = (0, 1, 2)


class Interrupt:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def interruptible() -> Generator[Interrupt]:
    """Within the block the first Ctrl-C is only noted; a second one raises KeyboardInterrupt."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # somebody else looks after it
        yield interrupt
        return

    def note(number: int, frame: Any) -> None:
        interrupt.requested = True
        signal.signal(signal.SIGINT, before)
        sys.stderr.write("training stops at the end of this batch; Ctrl-C again stops at once\n")

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass
class Plan:
    """What one call of `fit` does.

    Attributes:
        source: the batches for training.
        epochs: the number of the last epoch.
        steps: batches of an epoch; None for all that there are.
        class_weight: by class.
        validation: the batches for validation; None for none.
        validation_steps: how many of them; None for all.
        validation_freq: after how many epochs, or the numbers of the epochs, from 1 on.
    """

    source: Source
    epochs: int
    steps: int | None
    class_weight: Any
    validation: Source | None
    validation_steps: int | None
    validation_freq: int | Collection[int]

    def validates(self, epoch: int) -> bool:
        """Whether there is validation after an epoch, counted from 0."""
        if self.validation is None:
            return False
        often = self.validation_freq
        return (epoch + 1) % often == 0 if isinstance(often, int) else epoch + 1 in often


def checked_steps(name: str, given: Any) -> int | None:
    """How many batches there are in an epoch; None for all."""
    return None if given is None else as_count("fit", name, given, least=1)


def checked_frequency(given: Any) -> int | Collection[int]:
    """After how many epochs something happens, or their numbers."""
    if isinstance(given, Collection) and all(isinstance(x, int) for x in given):
        return given
    return as_count("fit", "validation_freq", given, least=1)


def split_off(x: Any, y: Any, sample_weight: Any, split: Any) -> tuple[Any, Any]:
    """The first samples for training and the last ones for validation, as (x, y, weight) each."""
    if not is_number(split) or not 0 < split < 1 or not is_arrays(x):
        raise EinkornError(MSG_SPLIT.format(split=split))
    ends, structure = flatten(tuple(as_arrays("fit", nest) for nest in (x, y, sample_weight)))
    if not all(end is None or getattr(end, "shape", ()) for end in ends):
        raise EinkornError(MSG_SPLIT.format(split=split))
    count = min(len(end) for end in ends if end is not None)
    at = int(np.floor(count * (1 - split)))
    if not 0 < at < count:
        raise EinkornError(f"fit: validation_split={split} of {count} samples leaves nothing")
    parts = [
        unflatten(structure, [None if end is None else end[part] for end in ends])
        for part in (slice(0, at), slice(at, None))
    ]
    return parts[0], parts[1]


def validation_source(data: Any, batch_size: int | None) -> Source | None:
    """The batches of `validation_data`: (x, y), (x, y, sample_weight), or what fit takes."""
    if data is None:
        return None
    is_list = isinstance(data, list)
    if type(data) is tuple or (is_list and is_arrays(data)):
        if len(data) not in (2, 3):
            raise EinkornError(MSG_PAIR.format(kind=type(data).__name__, count=len(data)))
        x, y, weight = (*data, None)[:3]
        return source_of("fit", x, y, weight, batch_size, shuffle=False)
    return source_of("fit", data, None, None, batch_size, shuffle=False)


def callback_list(
    what: str, model: Any, callbacks: Any, verbose: int, params: dict[str, Any]
) -> CallbackList:
    """The callbacks of a call of the method `what` with those that come by themselves."""
    if verbose not in VERBOSE:
        raise EinkornError(f"{what}: verbose is 0, 1 or 2, got {verbose!r}")
    given: Any = () if callbacks is None else callbacks
    given = list(given) if isinstance(given, Iterable) else [given]
    kept = [History()] if what == "fit" else []
    bar = [ProgressBar(verbose)] if verbose else []
    return CallbackList([*given, *kept, *bar], model, params)


def run_fit(model: Any, plan: Plan, callbacks: CallbackList, start: Progress) -> History:
    """Train from a point on to the last epoch."""
    history = next(x for x in callbacks.callbacks if isinstance(x, History))
    model.stop_training = False
    model.progress, model.history = start, history
    with interruptible() as interrupt:
        for epoch in range(start.epoch, plan.epochs):
            callbacks.run("on_epoch_begin", epoch, {})
            logs, complete = _train_epoch(model, plan, callbacks, interrupt)
            if interrupt.requested and not complete:
                break
            values = dict(logs)
            if complete:
                model.progress = Progress(epoch + 1)
                if plan.validates(epoch):
                    assert plan.validation is not None
                    found = run_test(model, plan.validation, plan.validation_steps, callbacks)
                    values.update({f"val_{name}": x for name, x in found.items()})
            callbacks.run("on_epoch_end", epoch, values)
            if model.stop_training or interrupt.requested:
                break
    history.interrupted = interrupt.requested
    callbacks.run("on_train_end", {})
    return history


def _train_epoch(
    model: Any, plan: Plan, callbacks: CallbackList, interrupt: Interrupt
) -> tuple[Mapping[str, Any], bool]:
    """One epoch, or what is left of it: the last logs, and whether it is complete."""
    progress: Progress = model.progress
    start = progress.batch
    if not start:
        model.reset_metrics()
        progress.order = plan.source.new_order()
    begin, end = callbacks.of("on_train_batch_begin"), callbacks.of("on_train_batch_end")
    step, weights, logs = model._step("train"), plan.class_weight, None
    batches = plan.source.batches(progress.order, start)
    count = start
    with training_context(True):
        while count != plan.steps:
            batch = next(batches, None)
            if batch is None:
                break
            for method in begin:
                method(count, {})
            logs = step(*batch, weights)
            count += 1
            progress.batch, progress.logs = count, logs
            for method in end:
                method(count - 1, logs)
            if model.stop_training or interrupt.requested:
                break
    if logs is None:
        if progress.logs is not None:  # the checkpoint was made after the last batch
            return progress.logs, True
        raise EinkornError(MSG_EMPTY.format(what="fit"))
    expected = plan.source.steps if plan.steps is None else plan.steps
    stopped = model.stop_training or interrupt.requested
    return logs, not stopped or count == expected


def run_test(
    model: Any, source: Source, steps: int | None, callbacks: CallbackList
) -> dict[str, Any]:
    """Loss and metrics over the batches of a source."""
    callbacks.run("on_test_begin", {})
    begin, end = callbacks.of("on_test_batch_begin"), callbacks.of("on_test_batch_end")
    step, logs, count = model._step("test"), None, 0
    with training_context(False), model._own_metrics():
        for batch in source.batches(source.new_order(), 0):
            for method in begin:
                method(count, {})
            logs = step(*batch, None)
            count += 1
            for method in end:
                method(count - 1, logs)
            if count == steps:
                break
        if logs is None:
            raise EinkornError(MSG_EMPTY.format(what="evaluate"))
        values = dict(logs)
    callbacks.run("on_test_end", values)
    return values


def run_predict(model: Any, source: Source, steps: int | None, callbacks: CallbackList) -> Any:
    """The outputs for all batches of a source, as one nest of arrays."""
    callbacks.run("on_predict_begin", {})
    begin, end = callbacks.of("on_predict_batch_begin"), callbacks.of("on_predict_batch_end")
    step, rows, structure, count = model._step("predict"), [], None, 0
    with training_context(False):
        for x, _, _ in source.batches(source.new_order(), 0):
            for method in begin:
                method(count, {})
            ends, structure = flatten(step(x))
            rows.append([_rows(part) for part in ends])
            count += 1
            for method in end:
                method(count - 1, {})
            if count == steps:
                break
    if structure is None:
        raise EinkornError(MSG_EMPTY.format(what="predict"))
    callbacks.run("on_predict_end", {})
    columns = [None if column[0] is None else np.concatenate(column) for column in zip(*rows)]
    return unflatten(structure, columns)


def _rows(part: Any) -> Any:
    """An output as an array with one row for each sample; None stays."""
    array = None if part is None else np.array(part)
    if array is not None and not array.ndim:
        raise ShapeError(MSG_ROWS)
    return array
