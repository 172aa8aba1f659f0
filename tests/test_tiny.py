"""Fifteen short lines of intent, end to end. Runs in seconds, before anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einkorn as ek

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def mlp() -> Any:
    ek.random.seed(0)
    return ek.nn.Sequential(ek.nn.Linear(4, 8), ek.nn.ReLU(), ek.nn.Linear(8, 2))


def loss_of(model: Any) -> Any:
    return lambda x, y: ek.nn.cross_entropy(model(x), y)


def test_an_expression() -> None:
    assert (ek.asarray([1.0, 2.0]) * 3 + 1).tolist() == [4, 7]


def test_numpy_in_numpy_out() -> None:
    assert np.allclose(np.asarray(ek.exp(X)), np.exp(X))


def test_compiled_is_eager_to_the_bit() -> None:
    f = lambda x: (ek.tanh(x @ x.T)).sum(axis=0)  # noqa: E731
    assert ek.compile(f)(X).numpy().tobytes() == f(ek.asarray(X)).numpy().tobytes()


def test_backward() -> None:
    w = ek.Parameter([1.0, 2.0, 3.0])
    (w * w).sum().backward()
    assert w.grad.tolist() == [2, 4, 6]


def test_grad_of_grad() -> None:
    assert ek.grad(ek.grad(lambda x: x**3))(2.0).item() == 12


def test_value_and_grad() -> None:
    value, grad = ek.value_and_grad(lambda x: (x * 3).sum())(X)
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert (grad == 3).all()


def test_compiled_state() -> None:
    count = ek.tensor(0)
    step = ek.compile(lambda: setattr(count, "value", count + 1))
    for _ in range(3):
        step()
    assert count.item() == 3


def test_a_learning_rate_does_not_retrace() -> None:
    step = ek.compile(lambda x, lr: x * lr)
    assert [step(2.0 * X, lr)[0, 0].item() for lr in (0.5, 0.25)] == [-1, -0.5]
    assert len(step.explain().traces) == 1


def test_random_numbers_are_repeatable() -> None:
    ek.random.seed(1)
    first = ek.random.normal((5,)).tolist()
    ek.random.seed(1)
    assert ek.compile(lambda: ek.random.normal((5,)))().tolist() == first


def test_training_learns() -> None:
    model = mlp()
    opt = ek.optim.Adam(model, lr=0.05)
    loss = loss_of(model)

    @ek.compile
    def step(x: Any, y: Any) -> Any:
        value, grads = ek.value_and_grad(loss, model)(x, y)
        opt.step(grads)
        return value

    losses = [step(X, np.array([0, 1, 0])).item() for _ in range(60)]
    assert losses[-1] < 0.1 < losses[0]


def test_training_with_backward_learns_the_same_way_eager_and_compiled() -> None:
    finals = []
    for compiled in (False, True):
        model = mlp()
        opt = ek.optim.SGD(model, lr=0.1)
        forward = ek.compile(loss_of(model))
        with ek.settings(compile=compiled):
            for _ in range(5):
                opt.zero_grad()
                forward(X, np.array([0, 1, 0])).backward()
                opt.step()
        finals.append(b"".join(p.numpy().tobytes() for p in model.parameters()))
    assert finals[0] == finals[1]


def test_every_stage_prints() -> None:
    low = ek.compile(lambda x: ek.exp(x).sum()).lower(X)
    assert "exp" in low.ir()
    assert "define" in low.llvm_ir()
    assert next(iter(low.stages)) == "trace"


def test_an_error_teaches() -> None:
    with pytest.raises(ValueError, match=r"f32\[3,4\]"):
        ek.asarray(X) @ ek.asarray(X)


def test_a_bad_index_changes_nothing() -> None:
    table = ek.tensor(X)
    step = ek.compile(lambda i: setattr(table, "value", table.at[i].set(0.0)))
    with pytest.raises(IndexError):
        step(np.array([0, 7]))
    assert table.numpy().tobytes() == X.tobytes()


def test_a_model_saves_and_loads(tmp_path: Any) -> None:
    model, other = mlp(), mlp()
    for p in other.parameters():
        p.value = p.numpy() * 0
    model.save(tmp_path / "model.safetensors")
    other.load(tmp_path / "model.safetensors")
    assert other(X).numpy().tobytes() == model(X).numpy().tobytes()
