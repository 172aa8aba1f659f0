"""Losses as modules: formulas, reductions, sample weights, what they are of, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from same_bits import assert_same_bits

import einkorn as ek
from einkorn.ir.errors import BoundsError, EinkornError, ShapeError

nn = ek.nn
rng = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return rng.normal(size=shape)


def probabilities(*shape: int) -> Any:
    raw = np.exp(floats(*shape))
    return raw / raw.sum(-1, keepdims=True)


def log_softmax(x: Any) -> Any:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def signs(*shape: int) -> Any:
    return np.where(floats(*shape) > 0, 1, -1)


def cosine(a: Any, b: Any) -> Any:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def huber(d: Any, delta: float) -> Any:
    return np.where(abs(d) < delta, d * d / 2, delta * (abs(d) - delta / 2))


def binary(p: Any, t: Any) -> Any:
    return -(t * np.log(p) + (1 - t) * np.log1p(-p))


def rows(x: Any, labels: Any) -> Any:
    return x[np.arange(len(labels)), labels]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def one_minus_similarity(p: Any, t: Any) -> Any:
    """For a range of 2 and a window of 4 with deviation 1.2."""
    line = np.exp(-((np.arange(4) - 1.5) ** 2) / (2 * 1.2**2))
    weights = np.outer(line, line) / line.sum() ** 2

    def blurred(x: Any) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(x, (4, 4), axis=(1, 2))
        return (windows * weights).sum((-2, -1))

    a, b = blurred(p), blurred(t)
    spreads = blurred(p * p) - a * a + blurred(t * t) - b * b
    shared = blurred(p * t) - a * b
    low, high = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    found = (2 * a * b + low) * (2 * shared + high) / ((a * a + b * b + low) * (spreads + high))
    return 1 - found.mean((1, 2, 3))


def triplet(p: Any, _: Any) -> Any:
    a, b, c = p
    length = [np.linalg.norm(x + 1e-6, axis=-1) for x in (a - b, a - c)]
    return np.maximum(length[0] - length[1] + 0.5, 0)


LABELS = rng.integers(0, 3, 5)
ZERO_ONE = rng.integers(0, 2, (5, 3))
CASES: list[tuple[Any, Any, Any, Callable[[Any, Any], Any]]] = [
    (nn.CrossEntropyLoss(), floats(5, 3), LABELS, lambda p, t: -rows(log_softmax(p), t)),
    (
        nn.CrossEntropyLoss(label_smoothing=0.3),
        floats(5, 3),
        probabilities(5, 3),
        lambda p, t: -((t * 0.7 + 0.1) * log_softmax(p)).sum(-1),
    ),
    (
        nn.CrossEntropyLoss(from_logits=False),
        probabilities(5, 3),
        LABELS,
        lambda p, t: -np.log(rows(p, t)),
    ),
    (nn.NLLLoss(), floats(5, 3), LABELS, lambda p, t: -rows(p, t)),
    (nn.BinaryCrossEntropyLoss(), floats(5, 3), ZERO_ONE, lambda p, t: binary(sigmoid(p), t)),
    (
        nn.BinaryCrossEntropyLoss(False, 0.2),
        probabilities(5, 3),
        ZERO_ONE == 1,
        lambda p, t: binary(p, t * 0.8 + 0.1),
    ),
    (
        nn.KLDivLoss(),
        floats(5, 3),
        probabilities(5, 3),
        lambda p, t: t * (np.log(t) - p),
    ),
    (nn.MSELoss(), floats(5, 3), floats(5, 3), lambda p, t: (p - t) ** 2),
    (nn.L1Loss(), floats(5, 3), ZERO_ONE, lambda p, t: abs(p - t)),
    (nn.MAPELoss(), floats(5, 3), floats(5, 3), lambda p, t: 100 * abs(p - t) / abs(t)),
    (
        nn.MSLELoss(),
        probabilities(5, 3),
        probabilities(5, 3),
        lambda p, t: (np.log1p(p) - np.log1p(t)) ** 2,
    ),
    (nn.HuberLoss(0.5), floats(5, 3), floats(5, 3), lambda p, t: huber(p - t, 0.5)),
    (nn.SmoothL1Loss(0.5), floats(5, 3), floats(5, 3), lambda p, t: huber(p - t, 0.5) / 0.5),
    (nn.LogCoshLoss(), floats(5, 3), floats(5, 3), lambda p, t: np.log(np.cosh(p - t))),
    (nn.PoissonNLLLoss(), floats(5), ZERO_ONE[:, 0], lambda p, t: np.exp(p) - t * p),
    (nn.LogPoissonLoss(), floats(5), ZERO_ONE[:, 0], lambda p, t: np.exp(p) - t * p),
    (
        nn.GaussianNLLLoss(),
        (floats(5), probabilities(5)),
        floats(5),
        lambda p, t: (np.log(p[1]) + (p[0] - t) ** 2 / p[1]) / 2,
    ),
    (nn.HingeLoss(), floats(5), signs(5), lambda p, t: np.maximum(0, 1 - t * p)),
    (
        nn.HingeEmbeddingLoss(),
        floats(5),
        signs(5),
        lambda p, t: np.where(t == 1, p, np.maximum(0, 1 - p)),
    ),
    (nn.SoftMarginLoss(), floats(5), signs(5), lambda p, t: np.log1p(np.exp(-t * p))),
    (
        nn.MarginRankingLoss(0.1),
        (floats(5), floats(5)),
        signs(5),
        lambda p, t: np.maximum(0, 0.1 - t * (p[0] - p[1])),
    ),
    (nn.CosineSimilarityLoss(), floats(5, 3), floats(5, 3), lambda p, t: -cosine(p, t)),
    (
        nn.CosineEmbeddingLoss(0.1),
        (floats(5, 3), floats(5, 3)),
        signs(5),
        lambda p, t: np.where(t == 1, 1 - cosine(*p), np.maximum(0, cosine(*p) - 0.1)),
    ),
    (nn.TripletMarginLoss(0.5), (floats(5, 3), floats(5, 3), floats(5, 3)), None, triplet),
    (nn.WassersteinLoss(), floats(5), signs(5), lambda p, t: -p * t),
    (nn.SSIMLoss(2.0, 4, 1.2), floats(5, 6, 7, 2), floats(5, 6, 7, 2), one_minus_similarity),
]


def test_every_loss_is_in_the_table() -> None:
    found = {getattr(nn, name) for name in nn.__all__ if name.endswith("Loss")}
    assert found - {nn.Loss} == {type(case[0]) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case[0]))
def test_losses(case: Any) -> None:
    loss, pred, true, formula = case
    want = formula(pred, true)
    assert np.shape(want)[0] == 5
    np.testing.assert_allclose(loss.elementwise(pred, true), want, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(loss(pred, true), want.mean(), rtol=1e-10)
    sample_weight = np.array([0.5, 2, 0, 1, 3], np.float32)
    wide = sample_weight.reshape(5, *(1,) * (want.ndim - 1))
    weighted = ek.compile(ek.value_and_grad(lambda p: loss(p, true, sample_weight)))(pred)[0]
    np.testing.assert_allclose(weighted, (want * wide).sum() / want.size, rtol=1e-10)


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case[0]))
def test_same_bits_eager_and_compiled(case: Any) -> None:
    loss, pred, true, _ = case
    pred = ek.tree_map(lambda x: x.astype("float32"), pred)
    both = ek.value_and_grad(lambda p: loss(p, true))
    eager, native = both(pred), ek.compile(both)(pred)
    for one, other in zip(ek.tree_leaves(eager), ek.tree_leaves(native), strict=True):
        assert_same_bits(other, one)


def test_reductions_and_weight() -> None:
    pred, true = floats(4, 2), floats(4, 2)
    each = np.asarray(nn.MSELoss(reduction="none")(pred, true))
    assert each.shape == (4, 2)
    np.testing.assert_allclose(nn.MSELoss(reduction="sum")(pred, true), each.sum())
    loss = nn.MSELoss(weight=3)
    step = ek.compile(lambda p: loss(p, true))
    np.testing.assert_allclose(step(pred), 3 * each.mean())
    loss.weight = 0.5
    np.testing.assert_allclose(step(pred), each.mean() / 2)
    assert len(step.explain().traces) == 1
    assert repr(loss) == "MSELoss(weight=0.5)"
    assert (
        nn.MSELoss()(ek.asarray(pred, dtype="float16"), true.astype("float16")).dtype == "float16"
    )


def test_the_mean_of_weighted_classes_is_weighted() -> None:
    logits, labels = floats(5, 3), np.array([0, 1, 2, -1, 1])
    weights = np.array([1.0, 2.0, 5.0])
    loss = nn.CrossEntropyLoss(class_weight=weights, ignore_index=-1)
    want = nn.cross_entropy(logits, labels, weight=weights, ignore_index=-1)
    np.testing.assert_allclose(loss(logits, labels), want, rtol=1e-12)
    only = nn.CrossEntropyLoss(ignore_index=-1)(logits, labels)
    np.testing.assert_allclose(only, nn.cross_entropy(logits, labels, ignore_index=-1), rtol=1e-12)


def test_labels_that_are_no_class_are_refused_eager_and_compiled() -> None:
    loss = nn.CrossEntropyLoss()
    for call in (loss, ek.compile(lambda p, t: loss(p, t))):
        with pytest.raises(BoundsError):
            call(floats(2, 3), np.array([0, 3]))


def test_on_chooses_from_nested_values() -> None:
    pred, true = floats(3), floats(3)
    want = nn.MSELoss()(pred, true)
    for on, nest in (
        ("a", lambda x: {"a": x, "b": None}),
        (1, lambda x: [None, x]),
        (("a", 0), lambda x: {"a": (x,)}),
    ):
        loss = nn.MSELoss(on=on)
        assert_same_bits(loss(nest(pred), nest(true)), want)
        assert_same_bits(loss(y_pred=nest(pred), y_true=nest(true)), want)
    with pytest.raises(EinkornError, match=r"on='a' chooses .*has no 'a' \(there are \['b'\]\)"):
        nn.MSELoss(on="a")({"b": pred}, {"b": true})
    with pytest.raises(EinkornError, match="has ndarray where 0 is looked up"):
        nn.MSELoss(on=0)(pred, true)


def test_a_loss_of_ones_own() -> None:
    class Cubic(nn.Loss):
        def elementwise(self, y_pred: Any, y_true: Any) -> Any:
            return ek.abs(y_pred - y_true) ** 3

    pred, true = ek.asarray(floats(4, 2)), floats(4, 2)
    np.testing.assert_allclose(Cubic()(pred, true), (abs(pred - true) ** 3).mean())
    with pytest.raises(EinkornError, match="Loss has no elementwise method"):
        nn.Loss()(pred, true)


def test_bad_input() -> None:
    pred, true = floats(4, 2), floats(4, 2)
    with pytest.raises(ShapeError, match=r"first axes of the losses, f64\[4,2\].*got f64\[2\]"):
        nn.MSELoss()(pred, true, np.ones(2))
    with pytest.raises(ShapeError, match="must have one shape"):
        nn.MSELoss()(pred, true[:, 0])
    with pytest.raises(ShapeError, match="must have one shape"):
        nn.WassersteinLoss()(pred, true[:, 0])
    with pytest.raises(EinkornError, match="reduction is 'mean', 'sum' or 'none', got 'avg'"):
        nn.L1Loss(reduction="avg")
    with pytest.raises(EinkornError, match="weight is a number"):
        nn.L1Loss(weight="big")  # type: ignore[arg-type]
    with pytest.raises(EinkornError, match="delta must be positive"):
        nn.HuberLoss(0.0)
    with pytest.raises(EinkornError, match="pos_weight is for predictions that are logits"):
        nn.BinaryCrossEntropyLoss(False, pos_weight=2.0)
    with pytest.raises(EinkornError, match=r"y_pred is \(first, second\), got one ndarray"):
        nn.MarginRankingLoss()(pred, true)


def test_structural_similarity_of_images() -> None:
    image = np.random.default_rng(3).uniform(0, 1, (2, 16, 16, 3)).astype("float32")
    noisy = np.clip(image + np.float32(0.1), 0, 1)
    assert nn.ssim_loss(image, image).item() < 1e-6
    assert nn.ssim_loss(image, 1 - image).item() > nn.ssim_loss(image, noisy).item() > 1e-4
    first = image.transpose(0, 3, 1, 2)
    same = nn.ssim_loss(first, noisy.transpose(0, 3, 1, 2), data_format="NCHW")
    assert_same_bits(same, nn.ssim_loss(image, noisy))
    with pytest.raises(ShapeError, match="a window of 11 needs images"):
        nn.ssim_loss(image[:, :8], image[:, :8])
    with pytest.raises(ShapeError, match="sigma must be positive"):
        nn.ssim_loss(image, image, sigma=0.0)
    with pytest.raises(ShapeError, match='data_format is "NHWC" or "NCHW"'):
        nn.ssim_loss(image, image, data_format="NWC")
