"""Callbacks of `fit`: early stopping, checkpoints, learning rates, records."""

from __future__ import annotations

import csv
import io
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einkorn as ek
from einkorn.callbacks import base

X = np.linspace(-1, 1, 24, dtype="float32").reshape(24, 1)
Y = 3 * X


def make(lr: float = 0.1) -> ek.Model:
    ek.random.seed(0)
    layer = ek.nn.Linear(1, 1)
    return ek.Model(
        layer, ek.nn.MSELoss(), ek.metrics.MeanAbsoluteError(), ek.optim.SGD(layer, lr=lr)
    )


def fit(model: ek.Model, *callbacks: Any, epochs: int = 3, **options: Any) -> Any:
    return model.fit(X, Y, epochs=epochs, batch_size=8, verbose=0, callbacks=callbacks, **options)


class Scripted(ek.callbacks.Callback):
    """Puts values of a script into the logs of each epoch."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["score"] = self.values[epoch]


def test_every_stage_is_called_in_order() -> None:
    seen: list[str] = []
    stages = {
        hook: (lambda *args, hook=hook: seen.append(hook.removeprefix("on_")))
        for hook in base.HOOKS
    }
    model = make()
    callback = ek.callbacks.LambdaCallback(**stages)
    model.fit(X, Y, batch_size=24, verbose=0, callbacks=callback, validation_data=(X, Y))
    batch = ["train_batch_begin", "train_batch_end"]
    test = ["test_begin", "test_batch_begin", "test_batch_end", "test_end"]
    assert seen == ["train_begin", "epoch_begin", *batch, *test, "epoch_end", "train_end"]
    seen.clear()
    model.predict(X, callbacks=callback)
    model.evaluate(X, Y, callbacks=[callback])
    predict = ["predict_begin", "predict_batch_begin", "predict_batch_end", "predict_end"]
    assert seen == [*predict, *test]
    assert len(base.HOOKS) == 14


def test_logs_of_a_batch_are_running_means() -> None:
    seen: list[dict[str, float]] = []
    keep = ek.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: seen.append(dict(logs)))
    history = fit(make(), keep, epochs=1).history
    assert len(seen) == 3
    assert seen[-1] == {name: values[0] for name, values in history.items()}


@pytest.mark.parametrize(
    ("options", "stopped", "best"),
    [
        ({"patience": 0}, 3, 2),
        ({"patience": 2}, 4, 2),
        ({"patience": 2, "mode": "max"}, 2, 0),
        ({"patience": 1, "min_delta": 3.0}, 1, 0),
        ({"patience": 1, "start_from_epoch": 3}, None, 5),
        ({"patience": 9}, None, 2),
    ],
)
def test_early_stopping(options: dict[str, Any], stopped: int | None, best: int) -> None:
    stop = ek.callbacks.EarlyStopping("score", **options)
    history = fit(make(), Scripted(5, 4, 3, 3.5, 3.2, 3.1), stop, epochs=6)
    assert (stop.stopped_epoch, stop.best_epoch) == (stopped, best)
    assert len(history.epoch) == (6 if stopped is None else stopped + 1)


def test_the_best_weights_come_back() -> None:
    weights: list[np.ndarray] = []
    model = make()
    keep = ek.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(model.module.w.numpy().copy())
    )
    stop = ek.callbacks.EarlyStopping("score", patience=2, restore_best_weights=True)
    fit(model, Scripted(5, 4, 6, 7), keep, stop, epochs=4)
    assert np.array_equal(model.module.w.numpy(), weights[1])
    assert not np.array_equal(weights[1], weights[3])


def test_what_is_watched_must_be_there() -> None:
    with pytest.raises(ek.EinkornError, match=r"no 'val_loss' in the logs .* loss, mean_absolute"):
        fit(make(), ek.callbacks.EarlyStopping())
    model = make()
    stop = ek.callbacks.EarlyStopping(patience=1)
    fit(model, stop, epochs=4, validation_data=(X, Y), validation_freq=2)
    assert stop.best_epoch in (1, 3)


def test_checkpoints(tmp_path: Path) -> None:
    model = make()
    pattern = tmp_path / "in" / "model-{epoch:02d}-{score:.1f}.safetensors"
    fit(model, Scripted(5, 4, 6), ek.callbacks.ModelCheckpoint(pattern))
    names = sorted(path.name for path in (tmp_path / "in").iterdir())
    assert names == [f"model-{k}.safetensors" for k in ("01-5.0", "02-4.0", "03-6.0")]
    other = make()
    other.load(tmp_path / "in" / names[2])
    assert np.array_equal(other.module.w.numpy(), model.module.w.numpy())
    best = ek.callbacks.ModelCheckpoint(tmp_path / "best", "score", save_best_only=True)
    plain = ek.callbacks.ModelCheckpoint(tmp_path / "w{batch}", save_weights_only=True, save_freq=2)
    fit(make(), Scripted(5, 4, 6), best, plain)
    other.load(tmp_path / "best")
    assert other.progress.epoch == 2
    other.module.load(tmp_path / "w2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "in", "w1", "w2", "w3"]
    with pytest.raises(ek.EinkornError, match="asks for 'acc'"):
        fit(make(), ek.callbacks.ModelCheckpoint(tmp_path / "{acc}"))


def test_a_checkpoint_within_an_epoch_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def callbacks(path: str) -> list[Any]:
        decay = ek.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5)
        return [ek.callbacks.ModelCheckpoint(tmp_path / path, save_freq=4), decay]

    whole = make()
    expected = fit(whole, *callbacks("model-{epoch}-{batch}"), epochs=4).history
    other = make()
    other.load(tmp_path / "model-2-1")
    assert (other.progress.epoch, other.progress.batch) == (1, 1)
    # the rate of the second epoch is part of the file and is set when an epoch begins
    other.optimizer.lr *= 2
    found = fit(other, *callbacks("again"), epochs=4, resume=True).history
    assert found == expected
    assert np.array_equal(other.module.w.numpy(), whole.module.w.numpy())


def test_learning_rates_without_a_retrace() -> None:
    model = make()
    rates = fit(model, ek.callbacks.LearningRateScheduler(lambda epoch, lr: 0.1 / (epoch + 1)))
    assert rates.history["lr"] == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert "train_step: 1 traces" in model.explain()
    model = make()
    model.optimizer.lr = lambda count: 0.1
    with pytest.raises(ek.EinkornError, match="sets the learning rate, but"):
        fit(model, ek.callbacks.LearningRateScheduler(lambda epoch, lr: lr))


def test_the_rate_falls_on_a_plateau() -> None:
    plateau = ek.callbacks.ReduceLROnPlateau("score", 0.5, patience=2, cooldown=1, min_lr=0.03)
    rates = fit(make(), Scripted(*[5] * 9), plateau, epochs=9).history["lr"]
    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03]


def test_not_a_number_ends_training() -> None:
    model = make(lr=1e30)
    seen: list[int] = []
    count = ek.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: seen.append(b))
    history = fit(model, ek.callbacks.TerminateOnNaN(), count, epochs=9)
    assert len(history.epoch) == 1 + (len(seen) - 1) // 3
    assert len(seen) < 9


def test_ctrl_c_stops_at_the_end_of_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    model, seen = make(), []

    def press(batch: int, logs: Any) -> None:
        seen.append(batch)
        if batch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    ended: list[int] = []
    history = fit(
        model,
        ek.callbacks.LambdaCallback(
            on_train_batch_begin=press, on_train_end=lambda logs: ended.append(1)
        ),
    )
    assert (seen, ended, history.interrupted, history.epoch) == ([0, 1], [1], True, [])
    assert (model.progress.epoch, model.progress.batch) == (0, 2)
    assert "at the end of this batch" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def twice(batch: int, logs: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(make(), ek.callbacks.LambdaCallback(on_train_batch_begin=twice))


def test_lines_for_each_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    model = make()
    model.fit(X, Y, epochs=2, verbose=2, callbacks=ek.callbacks.CSVLogger(path))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1/2", "2/2"]
    again = ek.callbacks.CSVLogger(path, append=True)
    fit(model, again, epochs=3, initial_epoch=2)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert float(rows[1]["loss"]) > float(rows[2]["loss"])
    later = fit(make(), ek.callbacks.CSVLogger(path), validation_data=(X, Y), validation_freq=2)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["val_loss"], float(rows[1]["val_loss"])) == ("", later.history["val_loss"][0])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_in_a_terminal() -> None:
    out = Terminal()
    bar = ek.callbacks.ProgressBar(file=out)
    fit(make(), bar, validation_data=(X, Y))
    assert "val_mean_absolute_error" in out.getvalue()
    assert out.getvalue().count("epoch 3/3") >= 2  # the bar, and the line that stays
    make().evaluate(X, Y, callbacks=bar)
    assert "evaluate  loss" in out.getvalue()


def test_the_report_of_compilation(tmp_path: Path) -> None:
    report = ek.callbacks.CompileReport(tmp_path / "report.txt")
    fit(make(), report)
    text = (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert "train_step: 1 traces" in text
    assert text == report.text + "\n"


def test_event_files_need_a_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("tensorboardX", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ek.EinkornError, match="pip install tensorboardX"):
        ek.callbacks.TensorBoard(tmp_path)
    written: list[Any] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            self.folder = os.path.basename(folder)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((self.folder, name, step))

        def flush(self) -> None: ...
        def close(self) -> None: ...

    library = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", library)
    board = ek.callbacks.TensorBoard(tmp_path, update_freq=2)
    fit(make(), board, epochs=1, validation_data=(X, Y))
    assert ("train", "batch_loss", 2) in written
    assert ("validation", "epoch_loss", 0) in written


def test_bad_input() -> None:
    with pytest.raises(ek.EinkornError, match="has no stage 'on_epoch'"):
        ek.callbacks.LambdaCallback(on_epoch=print)
    with pytest.raises(ek.EinkornError, match="mode is"):
        ek.callbacks.EarlyStopping(mode="up")
    with pytest.raises(ek.EinkornError, match="between 0 and 1"):
        ek.callbacks.ReduceLROnPlateau(factor=2)
    with pytest.raises(ek.EinkornError, match="at least 1"):
        ek.callbacks.ModelCheckpoint("x", save_freq=0)
