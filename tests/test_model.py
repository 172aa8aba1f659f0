"""`ek.Model`: steps, losses and metrics by name, weights, data of every kind, checkpoints."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import einkorn as ek

RNG = np.random.default_rng(0)
X = RNG.normal(size=(52, 6)).astype("float32")
Y = (X[:, 0] > 0).astype("int64") + (X[:, 1] > 0)


class Net(ek.nn.Module):
    def __init__(self, rate: float = 0.2) -> None:
        self.hidden, self.drop = ek.nn.Linear(6, 8), ek.nn.Dropout(rate)
        self.out = ek.nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.drop(ek.nn.relu(self.hidden(x))))


class Sized(ek.nn.Module):
    """A layer whose first input decides its size."""

    def build(self, x: Any) -> None:
        self.add_parameter("w", (x.shape[-1], 3), initializer=ek.initializers.GlorotUniform)

    def forward(self, x: Any) -> Any:
        return x @ self.w


def make(seed: int = 0, **options: Any) -> ek.Model:
    ek.random.seed(seed)
    net = Net()
    settings = {
        "loss": ek.nn.CrossEntropyLoss(),
        "metrics": [ek.metrics.Accuracy()],
        "optimizer": ek.optim.Adam(net, lr=1e-2),
    }
    return ek.Model(net, **{**settings, **options})


def state(model: ek.Model) -> dict[str, bytes]:
    found = {**model.module.state_dict(), **model.optimizer.state_dict()}
    return {name: x.tobytes() for name, x in found.items()}


def test_fit_is_the_loop_written_by_hand() -> None:
    model, by_hand = make(), make()
    history = model.fit(X, Y, batch_size=20, epochs=2, shuffle=False, verbose=0)
    ek.random.seed(0)
    net, opt = by_hand.module, by_hand.optimizer
    for layer, value in Net().named_parameters():
        net.v[layer].value = value.numpy()
    losses = []
    for _ in range(2):
        total = 0.0
        for k in range(0, 52, 20):
            x, y = X[k : k + 20], Y[k : k + 20]

            def loss_fn(x: Any = x, y: Any = y) -> Any:
                return ek.nn.cross_entropy(net(ek.asarray(x)), ek.asarray(y))

            loss, grads = ek.value_and_grad(loss_fn, net)()
            opt.step(grads)
            total += loss.item() * len(x)
        losses.append(total / 52)
    np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-6)
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(model.module.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_eager_and_compiled_have_the_same_bits() -> None:
    compiled, eager = make(), make(run_eagerly=True)
    options: Any = {"batch_size": 16, "epochs": 2, "verbose": 0, "validation_split": 0.25}
    ek.random.seed(1)
    first = compiled.fit(X, Y, **options)
    ek.random.seed(1)
    second = eager.fit(X, Y, **options)
    assert first.history == second.history
    assert state(compiled) == state(eager)


def test_two_traces_whatever_the_epochs() -> None:
    model = make()
    model.fit(X, Y, batch_size=20, epochs=4, verbose=0)
    model.fit(X, Y, batch_size=20, epochs=2, verbose=0)
    assert "train_step: 2 traces" in model.explain()


def test_evaluate_and_predict_see_every_sample() -> None:
    model = make()
    logits = model.module.eval()(ek.asarray(X)).numpy()
    model.module.train()
    assert np.allclose(model.predict(X, batch_size=20), logits, atol=1e-6)
    found = model.evaluate(X, Y, batch_size=20)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert found["loss"] == pytest.approx(-logs[np.arange(52), Y].mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == Y).mean())
    assert model.module.training


def test_parameters_by_name() -> None:
    seen: dict[str, Any] = {}

    def loss(y_true: Any, y_pred: Any, parameters: Any, x: Any, training: Any) -> Any:
        seen.update(names=list(parameters), training=training, x=x.shape)
        return {"a": ek.nn.cross_entropy(y_pred, y_true), "b": y_pred.mean() * 0}

    def share(scores: Any, labels: Any) -> Any:
        return ek.argmax(scores, axis=-1) == labels

    model = make(loss=[loss, ek.nn.cross_entropy], metrics={"right": share})
    logs = model.train_on_batch(X, Y)
    assert list(logs) == ["loss", "loss_a", "loss_b", "cross_entropy", "right"]
    assert logs["loss"] == pytest.approx(2 * logs["cross_entropy"], rel=1e-5)
    assert seen == {"names": ["hidden", "out"], "training": True, "x": (52, 6)}
    model.reset_metrics()
    right = (model.predict(X).argmax(1) == Y).mean()
    assert model.test_on_batch(X, Y)["right"] == pytest.approx(right)
    assert seen["training"] is False


def test_regularizers_and_losses_of_layers_are_added() -> None:
    class Penalised(Net):
        def forward(self, x: Any) -> Any:
            out = super().forward(x)
            ek.add_loss("size", (out * out).mean())
            ek.add_metric("largest", ek.max(out))
            return out

    ek.random.seed(0)
    net = Penalised(0.0)
    model = ek.Model(net, [ek.nn.CrossEntropyLoss(), ek.regularizers.L2(0.1)])
    out = model.predict(X)
    logs = model.evaluate(X, Y)
    size = next(v for name, v in logs.items() if name.endswith("size_loss"))
    squares = sum((v.astype(float) ** 2).sum() for v in net.state_dict().values())
    assert size == pytest.approx((out**2).mean(), rel=1e-5)
    assert logs["l2"] == pytest.approx(0.1 * squares, rel=1e-5)
    assert logs["loss"] == pytest.approx(logs["cross_entropy_loss"] + logs["l2"] + size)
    assert max(v for name, v in logs.items() if name.endswith("largest")) <= out.max()


class Two(ek.nn.Module):
    def __init__(self) -> None:
        self.a, self.b = ek.nn.Linear(6, 3), ek.nn.Linear(6, 1)

    def forward(self, left: Any, right: Any) -> Any:
        return {"class": self.a(left), "parts": (self.b(right), right)}


def test_several_inputs_and_outputs() -> None:
    targets = {"class": Y, "parts": (X[:, :1], X)}
    model = ek.Model(
        Two(),
        {"class": ek.nn.CrossEntropyLoss(), "number": ek.nn.MSELoss(on=("parts", 0))},
        {"class": ek.metrics.Accuracy(), "mae": ek.metrics.MeanAbsoluteError(on=("parts", 0))},
        lambda module: ek.optim.SGD(module, lr=0.1),
    )
    history = model.fit((X, X), targets, epochs=3, verbose=0).history
    assert set(history) == {"loss", "class", "number", "class_1", "mae"}
    assert history["loss"][-1] < history["loss"][0]
    out = model.predict({"left": X, "right": X})
    assert (out["class"].shape, out["parts"][0].shape) == ((52, 3), (52, 1))
    found = model.evaluate(((x, t) for x, t in [((X, X), targets)]))
    assert found["mae"] == pytest.approx(abs(out["parts"][0] - X[:, :1]).mean(), rel=1e-5)


def test_weights_of_samples_and_classes() -> None:
    weight = RNG.uniform(0.5, 2, 52).astype("float32")
    model = make(loss=ek.nn.CrossEntropyLoss())
    logits = model.predict(X).astype(float)
    each = -(logits - np.log(np.exp(logits).sum(1, keepdims=True)))[np.arange(52), Y]
    by_class = np.array([1.0, 3.0, 1.0])[Y]
    found = model.test_on_batch(X, Y, weight, {1: 3.0})
    assert found["loss"] == pytest.approx((each * weight * by_class).mean(), rel=1e-5)
    right = (logits.argmax(1) == Y) * weight
    assert found["accuracy"] == pytest.approx(right.sum() / weight.sum(), rel=1e-6)
    plain = make(loss=ek.nn.cross_entropy)  # a function with a reduction
    assert plain.test_on_batch(X, Y, weight)["loss"] == pytest.approx((each * weight).mean(), 1e-5)
    with pytest.raises(ek.EinkornError, match="takes no weights of samples"):
        make(loss=lambda p, t: (p[:, 0] * 0).mean()).test_on_batch(X, Y, weight)


def batches() -> Iterator[Any]:
    for k in range(0, 52, 20):
        yield X[k : k + 20], Y[k : k + 20]


@pytest.mark.parametrize(
    "data",
    [
        list(batches()),
        batches,
        ek.data.DataLoader((X, Y), 20),
        ek.data.DataLoader((X, Y), 20, workers=2),
    ],
    ids=["list", "function", "loader", "threads"],
)
def test_any_iterable_of_batches(data: Any) -> None:
    model = make()
    found = model.fit(data, epochs=2, verbose=0, validation_data=data).history
    arrays = make()
    options: Any = {"batch_size": 20, "shuffle": False, "validation_data": (X, Y)}
    assert found == arrays.fit(X, Y, epochs=2, verbose=0, **options).history
    assert state(model) == state(arrays)


def test_a_generator_goes_on_over_epochs() -> None:
    def forever() -> Iterator[Any]:
        while True:
            yield from batches()

    model = make()
    seen: list[int] = []
    model.fit(
        forever(),
        steps_per_epoch=4,
        epochs=3,
        verbose=0,
        callbacks=ek.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: seen.append(b)),
    )
    assert seen == [0, 1, 2, 3] * 3
    with pytest.raises(ek.EinkornError, match="has given all its batches"):
        make().fit(batches(), epochs=2, verbose=0)


def test_sizes_of_layers_come_from_the_first_batch(capsys: pytest.CaptureFixture[str]) -> None:
    ek.random.seed(0)
    model = ek.Model(
        ek.nn.Sequential(ek.nn.Linear(6, 8), ek.nn.ReLU(), Sized()), ek.nn.CrossEntropyLoss()
    )
    history = model.fit(X, Y, epochs=3, verbose=0).history
    assert history["loss"][2] < history["loss"][0]
    err = capsys.readouterr().err
    assert err == "ek.Model was given no optimizer: it trains with ek.optim.Adam(module, lr=1e-3)\n"


class StopAt(ek.callbacks.Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        self.at, self.now = (epoch, batch), 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.now, batch) == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("stop", [(0, 1), (1, 0), (1, 3), (2, 2)])
def test_training_goes_on_bit_for_bit(stop: tuple[int, int], tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        return [
            ek.callbacks.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=1.0),
            ek.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
        ]

    options: Any = {"batch_size": 16, "epochs": 4, "verbose": 0, "validation_data": (X, Y)}
    whole = make()
    expected = whole.fit(X, Y, callbacks=callbacks(), **options).history
    after = ek.random.normal(3).numpy()
    first = make()
    history = first.fit(X, Y, callbacks=[*callbacks(), StopAt(*stop)], **options)
    assert history.interrupted
    first.save(tmp_path / "half.safetensors")
    ek.random.seed(99)
    second = make(seed=7)
    second.load(tmp_path / "half.safetensors")
    found = second.fit(X, Y, callbacks=callbacks(), resume=True, **options).history
    assert found == expected
    assert state(second) == state(whole)
    assert np.array_equal(ek.random.normal(3).numpy(), after)


def test_a_file_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    model, path = make(), tmp_path / "model.safetensors"
    model.fit(X, Y, verbose=0)
    model.save(path)
    other = ek.Model(ek.nn.Linear(6, 3), ek.nn.CrossEntropyLoss())
    other.fit(X, Y, verbose=0)
    before = state(other)
    with pytest.raises(ek.StateError, match="unknown keys"):
        other.load(path)
    assert state(other) == before
    model.module.save(tmp_path / "plain.safetensors")
    with pytest.raises(ek.StateError, match=r"was not written by Model\.save"):
        model.load(tmp_path / "plain.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ek.StateError, match="not a safetensors file"):
        model.load(tmp_path / "broken.safetensors")
    lazy = ek.Model(ek.nn.Sequential(Sized()), ek.nn.CrossEntropyLoss())
    with pytest.raises(ek.StateError, match=r"call model\.build\(x\)"):
        lazy.load(path)


def test_evaluating_in_the_middle_leaves_the_metrics_alone() -> None:
    plain, evaluated = make(), make()
    look = ek.callbacks.LambdaCallback(
        on_train_batch_end=lambda b, logs: evaluated.evaluate(X, Y, batch_size=52)
    )
    ek.random.seed(2)
    first = plain.fit(X, Y, epochs=2, verbose=0).history
    ek.random.seed(2)
    assert evaluated.fit(X, Y, epochs=2, verbose=0, callbacks=look).history == first


def test_a_step_of_ones_own() -> None:
    class Doubled(ek.Model):
        def train_step(self, x: Any, y_true: Any, sample_weight: Any, class_weight: Any) -> Any:
            logs = super().train_step(x, y_true, sample_weight, class_weight)
            return {**logs, "twice": logs["loss"] * 2, "vector": ek.ones(2)}

    model = make()
    own = Doubled(model.module, model.loss, None, model.optimizer)
    logs = own.train_on_batch(X, Y)
    assert logs["twice"] == 2 * logs["loss"]
    assert logs["vector"].tolist() == [1, 1]


def test_a_new_part_is_used_at_once() -> None:
    model = make()
    first = model.evaluate(X, Y)["loss"]
    model.loss = ek.nn.CrossEntropyLoss(weight=2.0)
    assert model.evaluate(X, Y)["loss"] == pytest.approx(2 * first)
    model.loss.weight = 3.0
    assert model.evaluate(X, Y)["loss"] == pytest.approx(3 * first)


def test_a_metric_that_is_a_table() -> None:
    model = make(metrics=[ek.metrics.ConfusionMatrix(3)])
    found = model.evaluate(X, Y, batch_size=20)["confusion_matrix"]
    expected = np.zeros((3, 3))
    np.add.at(expected, (Y, model.predict(X).argmax(1)), 1)
    assert np.array_equal(found, expected)
    assert not math.isnan(model.fit(X, Y, verbose=0).history["loss"][0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ek.Model(3), "needs an ek.nn.Module"),
        (lambda: make(loss=3), "a loss is a function"),
        (lambda: make(metrics=[3]), "a metric is a function"),
        (lambda: make(loss="mse"), "write ek.nn.MSELoss()"),
        (lambda: make(loss="cross_entropy"), "write ek.nn.CrossEntropyLoss()"),
        (lambda: make(metrics=["accuracy"]), r"write ek.metrics.Accuracy\(\)"),
        (lambda: make(metrics=["none of them"]), "ek.metrics has them"),
        (lambda: make(optimizer=3), "a function that makes one"),
        (lambda: make(optimizer=ek.optim.Adam(lr=1e-3)), "optimizer=lambda module: ek.optim.Adam"),
        (lambda: make().fit(X, Y, epochs=-1), "epochs is at least 0, got -1"),
        (lambda: make().fit(X, Y, steps_per_epoch=0), "steps_per_epoch is at least 1"),
        (lambda: make().fit(X, Y, validation_steps=0), "validation_steps is at least 1"),
        (lambda: make().fit(X, Y, validation_freq=0), "validation_freq is at least 1"),
        (lambda: make(loss=lambda a, b, c: a), "parameter 'c', for which there is no value"),
        (lambda: make(loss=None).fit(X, Y, verbose=0), "nothing to minimise"),
        (lambda: make(loss=lambda p, t: p).fit(X, Y, verbose=0), "is a floating-point scalar"),
        (lambda: make().fit(X, Y[:5], verbose=0), "got x 52, y 5"),
        (lambda: make().fit(X[:0], Y[:0], verbose=0), "no samples"),
        (lambda: make().fit(X, Y, validation_split=1.5), "a share between 0 and 1"),
        (lambda: make().fit(X, Y, class_weight={"a": 1}), "class numbers"),
        (lambda: make().fit(X, Y, callbacks=[3]), "callbacks are objects"),
        (lambda: make().fit(iter([]), verbose=0), "no batches"),
        (lambda: make().fit([(1, 2, 3, 4)], verbose=0), "got a tuple of 4"),
        (lambda: make().fit(batches(), Y, verbose=0), "y goes with arrays"),
        (lambda: make().evaluate(None), "x is None"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ek.EinkornError, match=message):
        call()


def test_a_summary_takes_inputs_as_fit_does() -> None:
    class Two(ek.nn.Module):
        def forward(self, left: Any, right: Any, training: bool) -> Any:
            self.add_parameter("seen", trainable=False).value = 1.0
            return ek.nn.Linear(2)(left + right)

    for inputs in ((X, X), {"right": X, "left": X}):
        model = ek.Model(Two())
        table = model.summary(inputs)
        assert (table.parameters, table["linear"].output) == (15, ("f32[52,2]",))
        assert "linear: Linear" in str(table)
        assert model.module.seen.item() == 0.0  # state is as before
        assert model.optimizer is None
    assert [row.path for row in make().summary(X, depth=0, measure=False).rows] == [""]
