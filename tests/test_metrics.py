"""Metrics against NumPy and scikit-learn: streaming, weighted, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import einkorn as ek

Make = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def labels(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(n, 6)).astype("float32"), rng.integers(0, 6, n)


def one_hot(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    scores, classes = labels(rng, n)
    return scores, np.eye(6, dtype="float32")[classes]


def binary(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 21, n).astype("float32") / 20, rng.integers(0, 2, n)


def numbers(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(n, 3)).astype("float32"), rng.normal(size=(n, 3)).astype("float32")


def mean(values: Any, w: Any) -> float:
    values = np.asarray(values, "float64")
    w = np.broadcast_to(w.reshape(-1, *(1,) * (values.ndim - 1)), values.shape)
    return float((values * w).sum() / w.sum())


def cells(p: Any, t: Any, w: Any) -> tuple[float, float, float]:
    hit, true = p > 0.5, t > 0.5
    return w[hit & true].sum(), w[hit & ~true].sum(), w[~hit & true].sum()


def precision(p: Any, t: Any, w: Any) -> float:
    tp, fp, _ = cells(p, t, w)
    return tp / (tp + fp)


def recall(p: Any, t: Any, w: Any) -> float:
    tp, _, fn = cells(p, t, w)
    return tp / (tp + fn)


def f1(p: Any, t: Any, w: Any) -> float:
    tp, fp, fn = cells(p, t, w)
    return 2 * tp / (2 * tp + fp + fn)


def top2(p: Any, t: Any, w: Any) -> float:
    rank = np.argsort(-p, axis=1, kind="stable")[:, :2]
    return mean((rank == t[:, None]).any(1), w)


def area(p: Any, t: Any, w: Any) -> float:
    one, zero = t == 1, t == 0
    won = (p[one][:, None] > p[zero]) + 0.5 * (p[one][:, None] == p[zero])
    pairs = w[one][:, None] * w[zero]
    return float((won * pairs).sum() / pairs.sum())


def average_precision(p: Any, t: Any, w: Any) -> float:
    total = 0.0
    for score in np.unique(p):
        at, above = p == score, p >= score
        total += w[at & (t == 1)].sum() * w[above & (t == 1)].sum() / w[above].sum()
    return total / w[t == 1].sum()


def matrix(p: Any, t: Any, w: Any) -> np.ndarray:
    found = np.zeros((6, 6))
    np.add.at(found, (t, p.argmax(1)), w)
    return found


def cross_entropy(p: Any, t: Any, w: Any) -> float:
    logs = p.astype("float64") - np.log(np.exp(p.astype("float64")).sum(1, keepdims=True))
    return mean(-logs[np.arange(len(t)), t], w)


def binary_cross_entropy(p: Any, t: Any, w: Any) -> float:
    logit = p.astype("float64")
    return mean(np.log1p(np.exp(logit)) - t * logit, w)


M = ek.metrics
CASES: dict[str, tuple[Callable[[], Any], Make, Callable[..., Any]]] = {
    "sparse": (M.SparseCategoricalAccuracy, labels, lambda p, t, w: mean(p.argmax(1) == t, w)),
    "one_hot": (
        M.CategoricalAccuracy,
        one_hot,
        lambda p, t, w: mean(p.argmax(1) == t.argmax(1), w),
    ),
    "auto_sparse": (M.Accuracy, labels, lambda p, t, w: mean(p.argmax(1) == t, w)),
    "auto_one_hot": (M.Accuracy, one_hot, lambda p, t, w: mean(p.argmax(1) == t.argmax(1), w)),
    "auto_binary": (M.Accuracy, binary, lambda p, t, w: mean((p > 0.5) == (t > 0.5), w)),
    "binary": (lambda: M.BinaryAccuracy(0.3), binary, lambda p, t, w: mean((p > 0.3) == t, w)),
    "top_k": (lambda: M.TopKAccuracy(2), labels, top2),
    "mse": (M.MeanSquaredError, numbers, lambda p, t, w: mean((p - t.astype(float)) ** 2, w)),
    "rmse": (
        M.RootMeanSquaredError,
        numbers,
        lambda p, t, w: mean((p - t.astype(float)) ** 2, w) ** 0.5,
    ),
    "mae": (M.MeanAbsoluteError, numbers, lambda p, t, w: mean(abs(p - t.astype(float)), w)),
    "mape": (
        M.MeanAbsolutePercentageError,
        numbers,
        lambda p, t, w: mean(100 * abs(p - t.astype(float)) / np.maximum(abs(t), 1e-7), w),
    ),
    "cross_entropy": (M.CrossEntropy, labels, cross_entropy),
    "binary_cross_entropy": (lambda: M.BinaryCrossEntropy(True), binary, binary_cross_entropy),
    "precision": (M.Precision, binary, precision),
    "recall": (M.Recall, binary, recall),
    "f1": (M.F1, binary, f1),
    "f1_of_a_class": (
        lambda: M.F1(None, 2),
        labels,
        lambda p, t, w: f1(p.argmax(1) == 2, t == 2, w),
    ),
    "recall_of_a_class": (
        lambda: M.Recall(class_id=1),
        one_hot,
        lambda p, t, w: recall(p[:, 1], t[:, 1], w),
    ),
    "auc": (lambda: M.AUC(21), binary, area),
    "average_precision": (lambda: M.AUC(21, "PR"), binary, average_precision),
    "confusion": (lambda: M.ConfusionMatrix(6), labels, matrix),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_streaming_in_a_compiled_step_is_the_value_over_everything(
    case: str, weighted: bool
) -> None:
    make, data, reference = CASES[case]
    pred, true = data(np.random.default_rng(3), 60)
    weight = np.random.default_rng(4).uniform(0.5, 2, 60).astype("float32")
    eager, compiled = make(), make()
    step = ek.compile(lambda p, t, w: compiled(p, t, sample_weight=w))
    for start, stop in ((0, 25), (25, 50), (50, 60)):
        part = slice(start, stop)
        w = weight[part] if weighted else None
        found = step(pred[part], true[part], w)
        mine = eager(ek.asarray(pred[part]), ek.asarray(true[part]), sample_weight=w)
        assert np.array_equal(found.numpy(), mine.numpy())
    expected = reference(pred, true, weight.astype(float) if weighted else np.ones(60))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert len(step.explain().traces) == 2  # whole batches, and the rest
    compiled.reset()
    again = compiled(pred, true, sample_weight=weight if weighted else None)
    np.testing.assert_allclose(again.numpy(), expected, rtol=1e-6)


def test_mean_and_sum_take_values() -> None:
    mean_of, sum_of = M.Mean(), M.Sum()
    for values in ([1.0, 2.0], [6.0]):
        mean_of.update(values)
        total = sum_of(values)
    assert (mean_of.compute().item(), total.item()) == (3.0, 9.0)
    assert mean_of([[1.0, 3.0]], sample_weight=[3.0]).item() == (9 + 3 * 1 + 3 * 3) / 9


def test_long_streams_lose_nothing() -> None:
    metric = M.Mean()
    step = ek.compile(lambda x: metric.update(x))
    x = np.full(1 << 16, 0.1, "float32")
    for _ in range(50):
        step(x)
    assert abs(metric.compute().item() - float(np.float32(0.1))) < 1e-12


def test_agrees_with_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    pred, true = binary(np.random.default_rng(8), 500)
    weight = np.random.default_rng(9).uniform(size=500)
    for metric, reference in (
        (M.AUC(21), sk.roc_auc_score),
        (M.AUC(21, "PR"), sk.average_precision_score),
    ):
        found = metric(pred, true, sample_weight=weight)
        assert found.item() == pytest.approx(reference(true, pred, sample_weight=weight), rel=1e-9)


def test_nothing_positive_gives_zero() -> None:
    zeros = np.zeros(4, "float32")
    for metric in (M.Precision(), M.Recall(), M.F1(), M.AUC(), M.AUC(curve="PR")):
        assert metric(zeros, zeros.astype("int64")).item() == 0
    assert np.isnan(M.Mean().compute().item())


def test_what_is_out_of_range_counts_nowhere() -> None:
    matrix = M.ConfusionMatrix(2)
    matrix.update(np.array([0, 1, 5, -1]), np.array([0, 7, 1, 1]))
    assert matrix.compute().numpy().tolist() == [[1, 0], [0, 0]]
    assert M.TopKAccuracy(9)(np.zeros((2, 3), "float32"), np.array([1, 7])).item() == 0.5
    scores = np.array([np.nan, 2.0, -1.0], "float32")
    auc = M.AUC(11)
    auc.update(scores, np.array([1, 1, 0]))
    assert (auc.positives.numpy().sum(), auc.compute().item()) == (1, 1)


def test_shares_of_rows() -> None:
    matrix = M.ConfusionMatrix(3, "true")
    matrix.update(np.array([0, 1, 1]), np.array([0, 0, 1]))
    assert matrix.compute().numpy().tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]]


def test_a_metric_of_one_output() -> None:
    metric = M.MeanAbsoluteError(on=("parts", 1))
    outputs = {"parts": [np.zeros(2), np.array([1.0, 2.0])]}
    targets = {"parts": [np.zeros(2), np.array([2.0, 4.0])]}
    assert metric(outputs, targets).item() == 1.5
    with pytest.raises(ek.EinkornError, match=r"on=\('parts', 1\) chooses .* has no 'parts'"):
        metric({"a": 1}, targets)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: M.Precision(None), "threshold=None needs a class_id"),
        (lambda: M.TopKAccuracy(0), "k is at least 1"),
        (lambda: M.TopKAccuracy(1.5), "k is an integer"),
        (lambda: M.AUC(1), "bins is at least 2"),
        (lambda: M.AUC(curve="XY"), "curve"),
        (lambda: M.ConfusionMatrix(0), "classes is at least 1"),
        (lambda: M.Mean(name=""), "a name is text"),
        (lambda: M.Mean()([1.0, 2.0], sample_weight=[1.0, 2.0, 3.0]), "sample_weight f64"),
        (lambda: M.MeanSquaredError()(np.zeros((4, 2)), np.zeros(4)), "must have one shape"),
        (lambda: M.Recall(class_id=3)(np.zeros((4, 3)), np.zeros(4, int)), "among the 3 classes"),
        (lambda: M.Accuracy()(np.zeros((4, 3)), np.zeros(4)), "y_true is integers of shape"),
        (lambda: M.Metric().update(), "has no update method"),
    ],
)
def test_bad_input(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ek.EinkornError, match=message):
        make()


def test_a_refused_update_changes_nothing() -> None:
    metric = M.ConfusionMatrix(3)
    metric.update(np.array([1, 2]), np.array([1, 1]))
    before = metric.counts.numpy().copy()
    with pytest.raises(ek.ShapeError):
        metric.update(np.array([1, 2]), np.array([1, 1, 1]))
    assert np.array_equal(before, metric.counts.numpy())


def test_a_metric_of_ones_own() -> None:
    class Largest(ek.metrics.Metric):
        def __init__(self) -> None:
            self.seen = self.add_buffer("seen", 0.0)

        def update(self, y_pred: Any, y_true: Any) -> None:
            self.seen.value = ek.maximum(self.seen, ek.max(y_pred))

        def compute(self) -> Any:
            return self.seen

    metric = Largest()
    step = ek.compile(lambda x: metric.update(x, x))
    step(np.array([3.0, 5.0], "float32"))
    step(np.array([4.0], "float32"))
    assert metric.compute().item() == 5
    metric.reset()
    assert metric.seen.item() == 0
