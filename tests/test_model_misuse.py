"""`ek.Model` in other orders and with other things than were meant: copies, resuming, bad input."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einkorn as ek

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3)).astype("float32")
Y = RNG.normal(size=(20, 2)).astype("float32")
FIT: Any = {"batch_size": 8, "verbose": 0}


def make(**options: Any) -> ek.Model:
    ek.random.seed(0)
    net = ek.nn.Sequential(ek.nn.Linear(3, 4), ek.nn.Tanh(), ek.nn.Linear(4, 2))
    settings = {"loss": ek.nn.MSELoss(), "optimizer": ek.optim.Adam(net, lr=0.01)}
    return ek.Model(net, **{**settings, **options})


class Two(ek.nn.Module):
    def __init__(self) -> None:
        self.left, self.right = ek.nn.Linear(3, 2), ek.nn.Linear(3, 2)

    def forward(self, p: Any, q: Any) -> Any:
        return {"sum": self.left(p) + self.right(q), "left": self.left(p)}


def two(keys: tuple[str, str] = ("sum", "left")) -> ek.Model:
    ek.random.seed(0)
    return ek.Model(Two(), dict.fromkeys(keys, ek.nn.MSELoss()), optimizer=ek.optim.Adam)


def state(model: ek.Model) -> dict[str, bytes]:
    found = {**model.module.state_dict(), **model.optimizer.state_dict()}
    return {name: x.tobytes() for name, x in found.items()}


# -- parts that belong together --------------------------------------------------------------------


def test_the_optimizer_of_another_module_trains_nothing() -> None:
    model, other = make(), make()
    model.optimizer = other.optimizer
    before = state(other)
    with pytest.raises(ek.StateError, match="Adam was made for other parameters: its submodules"):
        model.fit(X, Y, **FIT)
    assert state(other) == before
    model.optimizer = ek.optim.SGD(model.module, lr=0.1)
    model.fit(X, Y, **FIT)
    model.module = other.module
    with pytest.raises(ek.StateError, match=r"assign it to model\.optimizer"):
        model.train_on_batch(X, Y)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_trains_by_itself(copied: Any) -> None:
    model = make(
        loss={"a": ek.nn.MSELoss(), "b": ek.nn.L1Loss()}, metrics=ek.metrics.MeanAbsoluteError()
    )
    model.fit(X, Y, callbacks=ek.callbacks.LambdaCallback(on_epoch_end=lambda *a: None), **FIT)
    before, other = state(model), copied(model)
    history = other.fit(X, Y, shuffle=False, **FIT).history
    assert state(model) == before
    assert model.fit(X, Y, shuffle=False, **FIT).history == history
    assert state(other) == state(model)


# -- going on --------------------------------------------------------------------------------------


def test_all_of_the_optimizer_is_in_the_file(tmp_path: Path) -> None:
    def whole() -> ek.Model:
        model = make()
        options: Any = {"ema": 0.9, "groups": {"*/b": {"lr": 0.05}}, "weight_decay": 0.1}
        model.optimizer = ek.optim.AdamW(model.module, lr=0.01, **options)
        return model

    def changed(model: ek.Model) -> None:
        model.optimizer.weight_decay = 0.3
        model.optimizer.groups["*/b"].lr = 0.2

    expected = whole()
    expected.fit(X, Y, epochs=2, **FIT)
    changed(expected)
    expected.save(tmp_path / "half")
    expected.fit(X, Y, epochs=4, resume=True, **FIT)
    found = whole()
    found.load(tmp_path / "half")
    assert (found.optimizer.weight_decay, found.optimizer.groups["*/b"].lr) == (0.3, 0.2)
    found.fit(X, Y, epochs=4, resume=True, **FIT)
    assert state(found) == state(expected)
    bad = make()  # its optimizer has neither groups nor an average
    before = state(bad)
    with pytest.raises(ek.StateError, match=r"settings\.\*/b\.lr"):
        bad.load(tmp_path / "half")
    assert state(bad) == before


def test_a_rate_that_is_a_leaf_comes_back(tmp_path: Path) -> None:
    model = make()
    model.optimizer = ek.optim.SGD(model.module, lr=ek.tensor(0.1))
    model.fit(X, Y, **FIT)
    model.optimizer.lr.value = 0.01
    model.save(tmp_path / "file")
    other = make()
    other.optimizer = ek.optim.SGD(other.module, lr=ek.tensor(0.1))
    other.load(tmp_path / "file")
    assert other.optimizer.lr.item() == np.float32(0.01)


def test_a_checkpoint_of_the_last_batch_has_the_logs_of_its_epoch(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        path = tmp_path / "{epoch}-{batch}"
        stop = ek.callbacks.EarlyStopping("loss", patience=9)
        return [stop, ek.callbacks.ModelCheckpoint(path, save_freq=1)]

    def model() -> ek.Model:
        return make(metrics=[ek.metrics.MeanAbsoluteError(), per_column])

    def per_column(y_pred: Any, y_true: Any) -> Any:
        return ek.abs(y_pred - y_true)[:, 0]

    expected = model().fit(X, Y, epochs=3, callbacks=callbacks(), **FIT)
    second = model()
    second.load(tmp_path / "2-3")
    found = second.fit(X, Y, epochs=3, callbacks=callbacks(), resume=True, **FIT)
    assert found.history == expected.history


def test_evaluating_between_an_interruption_and_going_on() -> None:
    class Fails(ek.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                raise RuntimeError

    expected = make().fit(X, Y, **FIT).history
    model = make()
    with pytest.raises(RuntimeError):
        model.fit(X, Y, callbacks=Fails(), **FIT)
    model.evaluate(X, Y)
    assert model.fit(X, Y, resume=True, **FIT).history == expected


def test_a_file_of_another_model_leaves_no_metrics(tmp_path: Path) -> None:
    one, other = two(), make()
    one.fit((X, X), {"sum": Y, "left": Y}, **FIT)
    one.save(tmp_path / "two")
    other.fit(X, Y, **FIT)
    names = set(other._all_metrics())
    with pytest.raises(ek.StateError, match="include_optimizer=False leaves the optimizer out"):
        other.load(tmp_path / "two")
    assert set(other._all_metrics()) == names


def test_loading_before_forward_has_made_its_modules(tmp_path: Path) -> None:
    class Grows(ek.nn.Module):
        def __init__(self) -> None:
            self.first = ek.nn.Linear(3, 4)

        def forward(self, x: Any) -> Any:
            return ek.nn.Linear(2)(self.first(x))

    class Made(ek.nn.Module):
        def forward(self, x: Any) -> Any:
            return ek.nn.Linear(2)(x)

    model = ek.Model(Grows(), ek.nn.MSELoss(), optimizer=ek.optim.Adam)
    model.fit(X, Y, **FIT)
    model.save(tmp_path / "file")
    other = ek.Model(Grows(), ek.nn.MSELoss(), optimizer=ek.optim.Adam)
    with pytest.raises(ek.StateError, match=r"if forward makes modules, call model\.build\(x\)"):
        other.load(tmp_path / "file")
    assert other.optimizer is None
    other.build(X)
    other.load(tmp_path / "file")
    assert state(other) == state(model)
    nothing = ek.Model(Made(), ek.nn.MSELoss(), optimizer=ek.optim.Adam)
    with pytest.raises(ek.StateError, match=r"call model\.build\(x\)"):
        nothing.load(tmp_path / "file")


def test_a_state_that_is_no_json_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    class Odd(ek.callbacks.Callback):
        def get_state(self) -> dict[str, Any]:
            return {"what": object()}

    model, path = make(), tmp_path / "file"
    model.save(path)
    before = path.read_bytes()
    model.fit(X, Y, callbacks=Odd(), **FIT)
    with pytest.raises(ek.EinkornError, match=r"the state of a callback.*object is not JSON"):
        model.save(path)
    assert path.read_bytes() == before


def test_the_bar_is_taken_away_when_training_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def fails(batch: int, logs: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(sys, "stdout", out := Terminal())
    with pytest.raises(RuntimeError):
        make().fit(X, Y, callbacks=ek.callbacks.LambdaCallback(on_train_batch_end=fails))
    assert "\x1b[?25h" in out.getvalue()  # the cursor is shown again


# -- data ------------------------------------------------------------------------------------------


def test_several_inputs_as_a_tuple_or_list_also_for_validation() -> None:
    y = {"sum": Y, "left": Y}
    expected = two().fit({"p": X, "q": X}, y, validation_data=({"p": X, "q": X}, y), **FIT).history
    for x in ((X, X), [X, X]):
        assert two().fit(x, y, validation_data=(x, y), **FIT).history == expected
        assert two().fit(x, y, validation_data=[x, y], **FIT).history == expected
        assert {"val_sum", "val_left"} < set(two().fit(x, y, validation_split=0.3, **FIT).history)
        assert two().predict(x)["sum"].shape == (20, 2)


def test_lists_of_numbers_are_float32() -> None:
    options: Any = {"validation_split": 0.5, **FIT}
    expected = make().fit(X, Y, **options).history
    assert make().fit(X.tolist(), Y.tolist(), **options).history == expected
    assert ek.data.ArrayDataset([0.5, 1.5])[0].dtype == np.float32


def test_outputs_without_rows() -> None:
    class Some(ek.nn.Module):
        def forward(self, x: Any) -> Any:
            return {"x": x, "none": None}

    class Mean(ek.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.mean()

    found = ek.Model(Some()).predict(X, batch_size=8)
    assert found["none"] is None
    assert np.array_equal(found["x"], X)
    with pytest.raises(ek.ShapeError, match="an output is a scalar for the whole batch"):
        ek.Model(Mean()).predict(X, batch_size=8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make().fit(X, batch_size=8), "MSELoss compares y_pred with y_true"),
        (lambda: make(metrics=ek.metrics.Accuracy(), loss=lambda y_pred: y_pred.mean()).fit(X),
         "accuracy compares y_pred with y_true"),
        (lambda: two().fit((X, X), {"sum": Y}), "where outputs are a dict"),
        (lambda: two(("sum", "other")).fit((X, X), {"sum": Y, "left": Y}),
         r"got a dict of them \(sum, left\)"),
        (lambda: two().fit({"p": X, "z": X}, Y), r"inputs \{p: \*, z: \*\}: missing .*'q'"),
        (lambda: two().fit((X, X, X), Y), r"inputs \(\*, \*, \*\): too many"),
        (lambda: make(loss=ek.nn.MSELoss), r"make one of the class: MSELoss\(\.\.\.\)"),
        (lambda: make(metrics=ek.metrics.Mean), r"make one of the class: Mean\(\.\.\.\)"),
        (lambda: make().fit(X, Y, callbacks=3), "callbacks are objects"),
        (lambda: make().fit(X, Y, verbose=3), "fit: verbose is 0, 1 or 2, got 3"),
        (lambda: make().predict(X, verbose="x"), "predict: verbose is 0, 1 or 2"),
        (lambda: make().evaluate(X, Y, batch_size=0), "evaluate: batch_size is at least 1"),
        (lambda: make().fit(X, Y, validation_data=(X,)), r"validation_data is \(x, y\).*of 1"),
        (lambda: make().fit(X, Y, class_weight="abc"), "one number >= 0 for each class"),
        (lambda: make().fit(X, Y, class_weight={0: "a"}), "one number >= 0 for each class"),
        (lambda: make().fit(X, Y, class_weight={10**12: 1}), "a class is less than"),
        (lambda: make().fit(X, Y, sample_weight=np.ones(3)), "x 20, y 20, sample_weight 3"),
        (lambda: make().fit([[1.0], [1.0, 2.0]], Y), "nested lists must be rectangular"),
        (lambda: make().fit([], []), "got no arrays"),
        (lambda: make().fit((X, X), Y, **FIT), "Linear: needs one tensor, got a list or tuple"),
    ],
)  # fmt: skip
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ek.EinkornError, match=message):
        call()


@pytest.mark.parametrize(
    ("make_callback", "message"),
    [
        (lambda: ek.callbacks.EarlyStopping(patience=-1), "patience is at least 0, got -1"),
        (lambda: ek.callbacks.EarlyStopping(3), "monitor is the name of an entry of the logs"),
        (lambda: ek.callbacks.EarlyStopping(min_delta="a"), "min_delta is a number"),
        (lambda: ek.callbacks.EarlyStopping(baseline="a"), "baseline is a number"),
        (lambda: ek.callbacks.EarlyStopping(start_from_epoch="a"), "start_from_epoch is"),
        (lambda: ek.callbacks.EarlyStopping("table"), "table is a number, got array"),
        (lambda: ek.callbacks.ModelCheckpoint(3), "ModelCheckpoint needs a path, got 3"),
        (lambda: ek.callbacks.ModelCheckpoint("{epoch:zz}"), "cannot be filled in: "),
        (lambda: ek.callbacks.ModelCheckpoint("a", save_freq="batch"), "save_freq, when not"),
        (lambda: ek.callbacks.ReduceLROnPlateau(patience="a"), "patience is an integer"),
        (lambda: ek.callbacks.ReduceLROnPlateau(cooldown="a"), "cooldown is an integer"),
        (lambda: ek.callbacks.ReduceLROnPlateau(min_lr="a"), "min_lr is a number"),
        (lambda: ek.callbacks.LearningRateScheduler(lambda epoch, lr: None),
         "what the schedule gives is a number, got None"),
        (lambda: ek.callbacks.CSVLogger(3), "CSVLogger needs a path, got 3"),
    ],
)  # fmt: skip
def test_callbacks_refuse_what_they_cannot_use(make_callback: Any, message: str) -> None:
    table = ek.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(table=np.ones(2))
    )
    with pytest.raises(ek.EinkornError, match=message):
        make().fit(X, Y, callbacks=[table, make_callback()], **FIT)
