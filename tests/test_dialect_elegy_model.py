"""The dialect `elegy`: its page's Model, and losses and metrics by Elegy's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_checks import traces
from test_dialect_elegy import blocks, run

import einkorn as ek
from einkorn.dialects import elegy
from einkorn.dialects.elegy import jax
from einkorn.dialects.elegy.jax import numpy as jnp
from einkorn.dialects.elegy.losses import Reduction
from einkorn.ir.errors import BoundsError, EinkornError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(26, 3))
Y = X.sum(axis=1, keepdims=True)
HIGH_LEVEL = 11


def slow(module: Any) -> ek.optim.SGD:
    return ek.optim.SGD(module, lr=1e-2)


def mlp() -> elegy.nn.Sequential:
    return elegy.nn.Sequential(lambda: [elegy.nn.Linear(8), jax.nn.relu, elegy.nn.Linear(1)])


def make(**options: Any) -> elegy.Model:
    settings = {
        "loss": elegy.losses.MeanSquaredError(),
        "optimizer": lambda module: ek.optim.Adam(module, lr=1e-2),
    }
    return elegy.Model(mlp(), **{**settings, **options})


def bits_of(model: Any) -> list[bytes]:
    return [leaf.numpy().tobytes() for leaf in model.module.parameters()]


# -- the page --------------------------------------------------------------------------------------


def test_the_model_of_the_page_trains_with_a_notice(capsys: pytest.CaptureFixture[str]) -> None:
    ek.random.seed(0)
    np.random.seed(0)
    model = run({HIGH_LEVEL: blocks()[HIGH_LEVEL]})["model"]
    out, err = capsys.readouterr()
    assert err == "ek.Model was given no optimizer: it trains with ek.optim.Adam(module, lr=1e-3)\n"
    assert "epoch 1000/1000" in out
    losses = model.history.history["loss"]
    assert len(losses) == 1000
    assert losses[-1] < 0.2 * losses[0]
    assert list(model.module.submodules) == ["linear", "linear_1", "linear_2"]
    assert traces(model._steps["train", False][1]) == 1
    assert (model.optimizer.lr, type(model.optimizer)) == (1e-3, ek.optim.Adam)


def test_the_model_of_the_page_gives_the_same_bits_eagerly() -> None:
    code = blocks()[HIGH_LEVEL].replace("epochs=1000", "epochs=12, verbose=0")
    results = []
    for eager in (True, False):
        ek.random.seed(1)
        np.random.seed(1)
        with ek.settings(compile=not eager):
            model = run({HIGH_LEVEL: code})["model"]
        results.append((bits_of(model), model.history.history))
    assert results[0] == results[1]


# -- Model -----------------------------------------------------------------------------------------


def test_arguments_by_position(capsys: pytest.CaptureFixture[str]) -> None:
    ek.random.seed(2)
    model = make(metrics=elegy.metrics.MeanAbsoluteError())
    history = model.fit(X, Y, 8, 3, 0, None, 0.25)
    assert set(history.history) == {
        "loss", "mean_absolute_error", "val_loss", "val_mean_absolute_error"
    }  # fmt: skip
    assert traces(model._steps["train", False][1]) == 2  # the last batch of an epoch is smaller
    found = model.evaluate(X, Y, 0, 8)
    np.testing.assert_allclose(found["loss"], np.mean((model.predict(X, 0, 5) - Y) ** 2), rtol=1e-5)
    assert model.predict(X).dtype == np.float32
    assert capsys.readouterr().out == ""
    model.evaluate(X, Y)
    assert "loss" in capsys.readouterr().out
    model.reset_metrics(hard=True)
    assert model.train_on_batch(X, Y)["loss"] < found["loss"] * 1.5
    assert model.test_on_batch(X, Y)["mean_absolute_error"] > 0
    assert model.predict_on_batch(X[:2]).shape == (2, 1)


def test_a_summary_is_printed_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    class Counting(elegy.Module):
        def call(self, x: Any) -> Any:
            calls = self.add_parameter("calls", trainable=False)
            self.update_parameter("calls", calls + 1.0)
            return mlp()(x)

    model = elegy.Model(Counting())
    model.summary(X, depth=1)
    out = capsys.readouterr().out
    assert "sequential: Sequential" in out
    assert "linear" not in out
    assert model.module.calls.item() == 0.0
    assert model.optimizer is None


def test_files_give_a_model_back(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    model = make()
    model.fit(X, Y, epochs=2, verbose=0)
    model.save(path)
    other = make()
    other.build(X)
    other.load(path)
    assert bits_of(other) == bits_of(model)
    ek.random.seed(0)
    model.fit(X, Y, verbose=0)
    ek.random.seed(0)
    other.fit(X, Y, verbose=0)
    assert bits_of(other) == bits_of(model)
    with pytest.raises(EinkornError, match=r"files hold no code.*model\.load\("):
        elegy.model.load(path)


def test_steps_may_be_overridden() -> None:
    class Doubled(elegy.Model):
        def loss_fn(self, *args: Any, **kwargs: Any) -> Any:
            loss, found = super().loss_fn(*args, **kwargs)
            return loss * 2.0, found

        def train_fn(self, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> Any:
            logs = super().train_fn(x, y, sample_weight, class_weight)
            return {**logs, "twice": logs["loss"] * 1.0}

        def predict_step(self, x: Any) -> Any:
            return {"doubled": super().predict_step(x) * 2.0}

    ek.random.seed(3)
    model = Doubled(mlp(), loss=elegy.losses.MeanSquaredError(), optimizer=slow)
    model.build(X)
    plain = model.module(X).numpy()
    np.testing.assert_array_equal(model.predict(X)["doubled"], plain * 2)
    logs = model.train_on_batch(X, Y)
    assert logs["twice"] == logs["loss"]
    np.testing.assert_allclose(logs["loss"], 2 * np.mean((plain - Y) ** 2), rtol=1e-5)


def test_values_by_name_for_losses_and_modules() -> None:
    class Asks(elegy.Module):
        def call(self, x: Any, training: bool) -> Any:
            elegy.add_loss("activity", jnp.mean(x) * 0.0 + 0.25)
            elegy.add_metric("trains", 1.0 if training else 0.0)
            return elegy.nn.Linear(1)(x)

    class Near(elegy.Loss):
        def call(self, x: Any, y_true: Any, y_pred: Any) -> Any:
            return jnp.abs(y_true - y_pred + 0.0 * x[:, :1])[:, 0]

    ek.random.seed(4)
    losses = [Near(weight=2.0, name="near"), elegy.regularizers.GlobalL2(l=0.1)]
    model = elegy.Model(Asks(), loss=losses, optimizer=slow)
    model.build(X)
    weights = np.linspace(0, 1, 26)
    found = model.test_on_batch(X, Y, weights)
    error = np.abs(Y - model.module(X, training=False).numpy())[:, 0]
    expected = 2 * np.mean(weights * error)
    penalty = 0.1 * sum((leaf.numpy() ** 2).sum() for leaf in model.module.parameters())
    np.testing.assert_allclose(found["near"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["global_l2"], penalty, rtol=1e-5)
    np.testing.assert_allclose(found["loss"], expected + penalty + 0.25, rtol=1e-5)
    assert found["trains"] == 0.0
    assert model.train_on_batch(X, Y)["trains"] == 0.5  # the mean of both batches


# -- losses ----------------------------------------------------------------------------------------

P = RNG.uniform(0.1, 0.9, (4, 5)).astype("float32")
T = RNG.uniform(0.1, 0.9, (4, 5)).astype("float32")
LABELS = np.array([0, 4, 2, 1])
ONE_HOT = np.eye(5)[LABELS]
Q = P / P.sum(axis=1, keepdims=True)
LOGS = P - np.log(np.exp(P).sum(axis=1, keepdims=True))


def huber(d: Any, delta: float) -> Any:
    return np.where(np.abs(d) <= delta, d * d / 2, delta * (np.abs(d) - delta / 2))


LOSSES: dict[str, Any] = {
    "MSE": (elegy.losses.MeanSquaredError, {}, T, P, lambda: ((P - T) ** 2).mean(1)),
    "MAE": (elegy.losses.MeanAbsoluteError, {}, T, P, lambda: np.abs(P - T).mean(1)),
    "MAPE": (
        elegy.losses.MeanAbsolutePercentageError, {}, T, P,
        lambda: (100 * np.abs(P - T) / T).mean(1),
    ),
    "MSLE": (
        elegy.losses.MeanSquaredLogarithmicError, {}, T, P,
        lambda: ((np.log1p(P) - np.log1p(T)) ** 2).mean(1),
    ),
    "Huber": (elegy.losses.Huber, {"delta": 0.2}, T, P, lambda: huber(P - T, 0.2).mean(1)),
    "BCE": (
        elegy.losses.BinaryCrossentropy, {}, T, P,
        lambda: -(T * np.log(P) + (1 - T) * np.log(1 - P)).mean(1),
    ),
    "BCE logits": (
        elegy.losses.BinaryCrossentropy, {"from_logits": True, "label_smoothing": 0.2}, ONE_HOT, P,
        lambda: (np.log1p(np.exp(P)) - (0.8 * ONE_HOT + 0.1) * P).mean(1),
    ),
    "CCE": (
        elegy.losses.CategoricalCrossentropy, {}, ONE_HOT, Q,
        lambda: -(ONE_HOT * np.log(Q)).sum(1),
    ),
    "CCE logits": (
        elegy.losses.CategoricalCrossentropy, {"from_logits": True, "label_smoothing": 0.1},
        ONE_HOT.astype(int), P, lambda: -((0.9 * ONE_HOT + 0.02) * LOGS).sum(1),
    ),
    "SCCE": (
        elegy.losses.SparseCategoricalCrossentropy, {}, LABELS.astype(float), Q,
        lambda: -np.log(Q[np.arange(4), LABELS]),
    ),
    "SCCE logits": (
        elegy.losses.SparseCategoricalCrossentropy, {"from_logits": True, "check_bounds": False},
        LABELS, P, lambda: -LOGS[np.arange(4), LABELS],
    ),
    "cosine": (
        elegy.losses.CosineSimilarity, {"axis": 1}, T, P,
        lambda: -(P * T).sum(1) / np.linalg.norm(P, axis=1) / np.linalg.norm(T, axis=1),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options", "true", "pred", "formula"), LOSSES.values(), ids=LOSSES
)
def test_losses_are_their_formulas(
    kind: Any, options: Any, true: Any, pred: Any, formula: Any
) -> None:
    rows, weights = formula(), np.linspace(0.5, 2, 4)
    near = {"rtol": 2e-5, "atol": 1e-6}
    np.testing.assert_allclose(kind(**options)(true, pred).numpy(), rows.mean(), **near)
    none = kind(**options, reduction=Reduction.NONE, weight=3.0)
    np.testing.assert_allclose(none(true, pred).numpy(), 3 * rows, **near)
    whole = kind(**options, reduction=Reduction.SUM, on="y")
    step = elegy.jit(lambda t, p, w: whole(y_true=t, y_pred=p, sample_weight=w))
    given = ({"y": true}, {"y": pred}, weights)
    np.testing.assert_allclose(step(*given).numpy(), (weights * rows).sum(), **near)
    np.testing.assert_array_equal(step(*given), whole(*given))


def test_losses_refuse() -> None:
    with pytest.raises(EinkornError, match=r"Huber: reduction is one of elegy\.losses\.Reduction"):
        elegy.losses.Huber(reduction="sum")  # type: ignore[arg-type]
    with pytest.raises(BoundsError):
        elegy.losses.SparseCategoricalCrossentropy()(LABELS + 1, Q)
    with pytest.raises(TypeError, match="y_pred"):
        elegy.losses.MeanSquaredError()(T)

    class Doubled(elegy.losses.MeanSquaredError):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return super().call(y_true, y_pred) * 2.0

    np.testing.assert_allclose(Doubled()(T, P).numpy(), 2 * ((P - T) ** 2).mean(), rtol=1e-5)


# -- metrics ---------------------------------------------------------------------------------------

HITS = RNG.uniform(size=(40,)).astype("float32")
TRUE = (RNG.uniform(size=(40,)) > 0.5).astype("int64")
SCORES = RNG.uniform(size=(40, 3)).astype("float32")
CLASSES = RNG.integers(0, 3, 40)
POSITIVE = HITS > 0.5
METRICS: dict[str, Any] = {
    "Accuracy": (elegy.metrics.Accuracy(), CLASSES, SCORES, (SCORES.argmax(1) == CLASSES).mean()),
    "Binary": (elegy.metrics.BinaryAccuracy(0.3), TRUE, HITS, ((HITS > 0.3) == TRUE).mean()),
    "Categorical": (
        elegy.metrics.CategoricalAccuracy(), np.eye(3)[CLASSES], SCORES,
        (SCORES.argmax(1) == CLASSES).mean(),
    ),
    "Sparse": (
        elegy.metrics.SparseCategoricalAccuracy(), CLASSES, SCORES,
        (SCORES.argmax(1) == CLASSES).mean(),
    ),
    "BCE": (
        elegy.metrics.BinaryCrossentropy(), TRUE, HITS,
        -np.where(TRUE, np.log(HITS), np.log1p(-HITS)).mean(),
    ),
    "MSE": (elegy.metrics.MeanSquaredError(), TRUE, HITS, ((HITS - TRUE) ** 2).mean()),
    "MAE": (elegy.metrics.MeanAbsoluteError(), TRUE, HITS, np.abs(HITS - TRUE).mean()),
    "MAPE": (
        elegy.metrics.MeanAbsolutePercentageError(), TRUE + 1, HITS,
        (100 * np.abs(HITS - TRUE - 1) / (TRUE + 1)).mean(),
    ),
    "Precision": (elegy.metrics.Precision(), TRUE, HITS, TRUE[POSITIVE].mean()),
    "Recall": (elegy.metrics.Recall(), TRUE, HITS, POSITIVE[TRUE == 1].mean()),
    "F1": (
        elegy.metrics.F1(), TRUE, HITS,
        2 * (POSITIVE & (TRUE == 1)).sum() / (POSITIVE.sum() + TRUE.sum()),
    ),
    "counts": (
        elegy.metrics.ReduceConfusionMatrix(elegy.metrics.Reduction.FALSE_POSITIVES), TRUE, HITS,
        (POSITIVE & (TRUE == 0)).sum(),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("metric", "true", "pred", "expected"), METRICS.values(), ids=METRICS)
def test_metrics_take_targets_first(metric: Any, true: Any, pred: Any, expected: float) -> None:
    metric.reset()
    step = elegy.jit(lambda t, p: metric(y_true=t, y_pred=p))
    metric(true[:25], pred[:25])
    np.testing.assert_allclose(float(step(true[25:], pred[25:])), expected, rtol=1e-5)


def test_sums_and_means_of_values() -> None:
    values, weights = np.arange(6.0).reshape(2, 3), np.array([1.0, 3.0])
    kinds = elegy.metrics.Reduction
    expected = {kinds.SUM: 39.0, kinds.SUM_OVER_BATCH_SIZE: 6.5, kinds.WEIGHTED_MEAN: 3.25}
    for kind, result in expected.items():
        metric = elegy.metrics.Reduce(kind)
        metric(values[:1], weights[:1])
        assert float(metric(values[1:], sample_weight=weights[1:])) == result
    with pytest.raises(EinkornError, match=r"reduction is one of SUM, .* got 'sum'"):
        elegy.metrics.Reduce("sum")  # type: ignore[arg-type]


class Largest(elegy.Metric):
    """The largest error so far."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        largest = self.add_parameter("largest", initializer=-1.0, trainable=False)
        self.update_parameter("largest", jnp.maximum(largest, jnp.max(jnp.abs(y_true - y_pred))))
        return self.largest


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_metric_of_ones_own(run_eagerly: bool) -> None:
    model = make(metrics=[Largest(), elegy.metrics.MeanSquaredError(name="mse")])
    model.run_eagerly = run_eagerly
    model.fit(X, Y, batch_size=13, epochs=2, verbose=0, shuffle=False)
    found = model.evaluate(X, Y, 0, 13)
    errors = np.abs(Y - model.predict(X))
    np.testing.assert_allclose(found["largest"], errors.max(), rtol=1e-6)
    np.testing.assert_allclose(found["mse"], np.mean(errors**2), rtol=1e-5)
    if not run_eagerly:
        assert traces(model._steps["train", False][1]) == 1
    metric = Largest()
    assert float(metric(T, P)) == np.abs(T - P).max()
    metric.reset()
    assert metric.largest.item() == -1.0
