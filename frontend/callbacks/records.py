"""Callbacks that write down how training goes: history, progress bar, files."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from einkorn.callbacks.base import Callback, checked_path
from einkorn.ir.errors import EinkornError
from einkorn.tunable import is_number

MSG_TENSORBOARD = (
    "TensorBoard writes event files through tensorboardX or torch.utils.tensorboard, and neither "
    "can be imported here: pip install tensorboardX. CSVLogger needs no other library"
)


class History(Callback):
    """The logs of every epoch; `fit` returns one.

    Attributes:
        epoch: the numbers of the epochs.
        history: for each name the values, one for each epoch that had one.
        interrupted: whether Ctrl-C ended training.
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[Any]] = {}
        self.interrupted = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def get_state(self) -> dict[str, Any]:
        history = {k: [x for x in v if is_number(x)] for k, v in self.history.items()}
        return {"epoch": list(self.epoch), "history": history}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.epoch = list(state["epoch"])
        self.history = {name: list(values) for name, values in state["history"].items()}

    def __repr__(self) -> str:
        return f"History({len(self.epoch)} epochs: {', '.join(self.history)})"


def as_text(logs: Mapping[str, Any]) -> str:
    """Logs on one line."""
    numbers = ((name, x) for name, x in logs.items() if is_number(x))
    return "  ".join(f"{name} {x:.4g}" for name, x in numbers)


class ProgressBar(Callback):
    """Shows the epoch, a bar for its batches, loss and metrics; one line for each epoch stays.

    Without a terminal there are only the lines.

    Args:
        verbose: 1 for a bar, 2 for the lines only.
        file: where to; standard output by default.
    """

    def __init__(self, verbose: int = 1, file: Any = None) -> None:
        self.verbose, self._file = verbose, file
        self._bar: Any = None
        self._task: Any = None
        self._shown = self._begun = 0.0

    def _out(self) -> Any:
        return sys.stdout if self._file is None else self._file

    def _open(self, total: int | None, what: str) -> None:
        if self.verbose != 1 or not self._out().isatty():
            return
        from rich.console import Console  # loaded on first use: `import einkorn` stays quick
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn())
        text = TextColumn("{task.fields[logs]}")
        console = Console(file=self._out())
        self._bar = Progress(*columns, TimeRemainingColumn(), text, console=console, transient=True)
        self._bar.start()
        self._task = self._bar.add_task(what, total=total, logs="")

    def _advance(self, batch: int, logs: Any) -> None:
        now = time.monotonic()
        if self._bar is not None and now - self._shown >= 0.1:
            self._shown = now
            text = as_text(logs) if logs is not None else ""
            self._bar.update(self._task, completed=batch + 1, logs=text)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _title(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{self.params['epochs']}"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begun = time.monotonic()
        self._open(self.params.get("steps"), self._title(epoch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._advance(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.close()
        seconds = time.monotonic() - self._begun
        self._out().write(f"{self._title(epoch)}  {seconds:.1f} s  {as_text(logs)}\n")
        self._out().flush()

    def on_test_begin(self, logs: Any = None) -> None:
        if self._is_alone():
            self._open(self.params.get("steps"), "evaluate")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._is_alone():
            self._advance(batch, logs)

    def on_test_end(self, logs: Any = None) -> None:
        if self._is_alone():
            self.close()
            self._out().write(f"evaluate  {as_text(logs)}\n")

    def on_predict_begin(self, logs: Any = None) -> None:
        self._open(self.params.get("steps"), "predict")

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self._advance(batch, logs)

    def _is_alone(self) -> bool:
        """Whether the evaluation is not part of `fit`."""
        return "epochs" not in self.params


class CSVLogger(Callback):
    """Writes the logs of each epoch as one line of a file.

    Args:
        path: of the file.
        separator: between values.
        append: whether lines are added to a file that exists.
    """

    def __init__(
        self, path: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        self.path = checked_path("CSVLogger", path)
        self.separator, self.append = separator, append
        self._names: list[str] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._names = None
        if self.append and os.path.exists(self.path) and os.path.getsize(self.path):
            with open(self.path, newline="", encoding="utf-8") as file:
                self._names = next(csv.reader(file, delimiter=self.separator))[1:]
        else:
            with open(self.path, "w", encoding="utf-8"):
                pass

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = {name: x for name, x in logs.items() if is_number(x)}
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=self.separator)
            if self._names is None:
                validates = self.params.get("validates")
                own = [name for name in values if not name.startswith("val_")]
                missing = [f"val_{x}" for x in own if x != "lr"] if validates else []
                self._names = list(dict.fromkeys([*values, *missing]))
                writer.writerow(["epoch", *self._names])
            writer.writerow([epoch, *(values.get(name, "") for name in self._names)])


class TensorBoard(Callback):
    """Writes event files for TensorBoard through the library that is installed.

    Args:
        folder: for the files; each of train and validation gets one inside.
        update_freq: "epoch", or a number of batches after which their logs are written, too.

    Raises:
        EinkornError: neither tensorboardX nor torch.utils.tensorboard can be imported.
    """

    def __init__(
        self, folder: str | os.PathLike[str] = "logs", update_freq: str | int = "epoch"
    ) -> None:
        self._make = _summary_writer()
        self.folder, self.update_freq = checked_path("TensorBoard", folder), update_freq
        self._writers: dict[str, Any] = {}
        self._step = 0

    def _writer(self, name: str) -> Any:
        if name not in self._writers:
            self._writers[name] = self._make(os.path.join(self.folder, name))
        return self._writers[name]

    def _write(self, logs: Mapping[str, Any], step: int, prefix: str) -> None:
        for name, value in logs.items():
            if is_number(value):
                part = "validation" if name.startswith("val_") else "train"
                label = f"{prefix}{name.removeprefix('val_')}"
                self._writer(part).add_scalar(label, value, step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step += 1
        if self.update_freq != "epoch" and self._step % int(self.update_freq) == 0:
            self._write(logs, self._step, "batch_")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._write(logs, epoch, "epoch_")
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Close the files; later values go to new ones."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def get_state(self) -> dict[str, Any]:
        return {"step": self._step}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._step = state["step"]


def _summary_writer() -> Any:
    """The class that writes event files."""
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
    except ImportError:
        try:
            from torch.utils.tensorboard import (  # pyright: ignore[reportMissingImports]
                SummaryWriter,
            )
        except ImportError:
            raise EinkornError(MSG_TENSORBOARD) from None
    return SummaryWriter


class CompileReport(Callback):
    """Tells at the end what was compiled: traces of each step, why, when, and what it cost.

    Args:
        path: of a text file; None writes to standard output.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else checked_path("CompileReport", path)
        self.text = ""

    def on_train_end(self, logs: Any = None) -> None:
        self.text = self.model.explain()
        if self.path is None:
            sys.stdout.write(self.text + "\n")
        else:
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(self.text + "\n")
