"""Layers, losses and initializers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einkorn import nn, random
from einkorn.initializers import Constant
from einkorn.ir.errors import DTypeError, EinkornError, ShapeError
from einkorn.tensor import Tensor
from einkorn.transforms.gradients import value_and_grad


def inputs() -> Any:
    return np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)


# -- layers ----------------------------------------------------------------------------------------


def test_linear() -> None:
    layer = nn.Linear(3, 2, bias_initializer=Constant(0.5))
    x = inputs()
    expected = x @ np.asarray(layer.w).T + 0.5
    np.testing.assert_allclose(np.asarray(layer(x)), expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(DTypeError, match=r"linear: Linear\(3, 2\).*float32.*f64\[5,3\]"):
        layer(x.astype("float64"))
    with pytest.raises(ShapeError, match=r"v0: .*takes 3 features.*f32\[5,2\]"):
        nn.Sequential(nn.Linear(3, 2))(x[:, :2])
    with pytest.raises(EinkornError, match="with_bias is True or False"):
        nn.Linear(48, 3, [3, 3])  # type: ignore[arg-type]
    with pytest.raises(EinkornError, match="out_features"):
        nn.Linear(48, [3, 3])  # type: ignore[arg-type]
    with pytest.raises(EinkornError, match="in_features"):
        nn.Linear(0, 3)


def test_dropout() -> None:
    random.seed(1)
    layer = nn.Dropout(0.25)
    out = np.asarray(layer(np.ones((200, 50), np.float32)))
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    random.seed(1)
    same = np.asarray(layer(np.ones((200, 50), np.float32)))
    np.testing.assert_array_equal(out, same)
    unscaled = np.asarray(nn.Dropout(0.5, scale=False)(np.ones(100, np.float32)))
    assert set(np.unique(unscaled)) == {0.0, 1.0}
    for rate in (1.0, -0.1, True, "x", float("nan")):
        with pytest.raises(EinkornError, match="rate is a number in"):
            layer.rate = rate
    assert layer.rate == 0.25


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.ReLU(), lambda x: np.maximum(x, 0)),
        (nn.LeakyReLU(0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
        (nn.ELU(2.0), lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0)))),
        (nn.Tanh(), np.tanh),
        (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
        (nn.Softplus(), lambda x: np.log1p(np.exp(x))),
        (nn.Softmax(), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
        (nn.LogSoftmax(0), lambda x: x - np.log(np.exp(x).sum(0))),
    ],
)
def test_activations(module: Any, expected: Any) -> None:
    x = np.linspace(-3, 3, 12).reshape(3, 4)
    np.testing.assert_allclose(np.asarray(module(x)), expected(x), rtol=1e-12, atol=1e-14)
    assert module.v.key_chains() == []


def test_elu_has_a_finite_gradient_far_out() -> None:
    x = np.float32([1000.0, -1000.0])
    _, grad = value_and_grad(lambda x: nn.elu(x).sum())(x)
    assert np.asarray(grad).tolist() == [1.0, 0.0]


def test_sequential_is_a_sequence() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert model.v.key_chains()[2] == "submodules/v2/w"
    assert len(model) == 3
    assert model[-1].w is model.v.submodules.v2.w
    head = model[:2]
    assert isinstance(head, nn.Sequential)
    assert list(head) == list(model)[:2]
    with pytest.raises(IndexError):
        model[3]
    with pytest.raises(EinkornError, match="item 1 is relu"):
        nn.Sequential(nn.Linear(1, 1), nn.relu)  # type: ignore[arg-type]


def test_losses() -> None:
    logits, labels = inputs(), np.array([0, 1, 2, 0, 1])
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = nn.CrossEntropyLoss()(logits, labels)
    np.testing.assert_allclose(float(loss), -logs[np.arange(5), labels].mean(), rtol=1e-6)
    assert isinstance(nn.MSELoss(reduction="none")(logits, logits), Tensor)
    with pytest.raises(EinkornError, match="reduction"):
        nn.MSELoss(reduction="avg")
