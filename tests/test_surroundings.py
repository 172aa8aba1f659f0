"""Blocks that decide how code inside runs: `ek.training_context` and `ek.random.use`."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from compile_checks import assert_same_nest, traces

import einkorn as ek
from einkorn import nn
from einkorn.ir.errors import DTypeError, EinkornError

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


class Net(nn.Module):
    """What trains differently: dropout, statistics, attention's own dropout, code that asks."""

    def __init__(self) -> None:
        self.attend = nn.MultiHeadAttention(3, 1, dropout=0.5)
        self.norm, self.drop = nn.BatchNorm(3), nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        return self.drop(self.norm(self.attend(x, x, x))) + (1.0 if ek.training() else 0.0)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_block_decides_for_all_modules(own: bool, compiled: bool) -> None:
    model = Net()
    run = ek.compile(lambda x: model(x)) if compiled else model
    state = model.state_dict()
    expected = {}
    for mode in (True, False):
        model.load_state_dict(state)
        ek.random.seed(1)
        expected[mode] = np.asarray(model.train(mode)(X))
    assert not np.array_equal(expected[True], expected[False])
    for _ in range(2):
        for mode in (True, False, True):
            model.train(own)
            model.load_state_dict(state)
            ek.random.seed(1)
            with ek.training_context(not mode), ek.training_context(mode):
                assert ek.training() is mode
                np.testing.assert_array_equal(np.asarray(run(X)), expected[mode])
            assert (model.training, model.drop.training, ek.training()) == (own, own, True)
    if compiled:
        assert traces(run) == 2


def test_a_block_inside_of_a_compiled_function() -> None:
    model = Net()

    @ek.compile
    def both(x: Any) -> Any:
        with ek.training_context(False):
            first = model(x)
        return first, model(x)

    evaluated = np.asarray(model.eval()(X))
    model.train()
    a, b = both(X)
    np.testing.assert_array_equal(np.asarray(a), evaluated)
    assert not np.array_equal(np.asarray(a), np.asarray(b))
    with pytest.raises(EinkornError, match="training_context: training is True or False, got 1"):
        ek.training_context(1)  # type: ignore[arg-type]


def test_a_model_that_fits_trains_also_in_such_a_block() -> None:
    results = []
    for inside in (False, True):
        ek.random.seed(2)
        net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        model = ek.Model(net, loss=nn.MSELoss(), optimizer=ek.optim.SGD(net, lr=0.1))
        net.eval()
        with ek.training_context(not inside):
            model.fit(X, X[:, :1], epochs=2, verbose=0)
            assert model.predict(X).tobytes() == model.predict(X).tobytes()
        assert not net.training  # as it was before
        results.append([leaf.numpy().tobytes() for leaf in net.parameters()])
    assert results[0] == results[1]


def test_a_block_belongs_to_its_thread() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    step = ek.compile(lambda x: model(x))
    barrier, ones = threading.Barrier(2), np.ones(64, "float32")

    def work(mode: bool) -> list[bool]:
        found = []
        with ek.training_context(mode):
            for _ in range(20):
                barrier.wait()
                found.append(bool(np.array_equal(np.asarray(step(ones)), ones)))
        return found

    with ThreadPoolExecutor(2) as pool:
        trained, evaluated = pool.map(work, (True, False))
    assert not any(trained)
    assert all(evaluated)


def test_draws_come_from_the_generator_in_use() -> None:
    def draws() -> Any:
        return [ek.random.uniform((3,)), ek.random.normal((3,), key=ek.next_rng_key())]

    ek.random.seed(5)
    want = [draws(), draws()]
    rest = draws()
    ek.random.seed(5)
    generator = ek.random.Generator(5)
    for compiled in (False, True):
        generator.seed(5)
        run = ek.compile(draws) if compiled else draws
        with ek.random.use(generator):
            for one in want:
                assert_same_nest(run(), one)
            assert generator.draw.item() == 4
    assert ek.random.default_generator().draw.item() == 0
    weights = nn.Linear(2, 2).w
    with ek.random.use(generator):
        assert ek.random.default_generator() is generator
        ek.random.seed(5)
        assert_same_nest(nn.Linear(2, 2).w.detach(), weights.detach())
        draws()
        draws()
        assert_same_nest(draws(), rest)
        with ek.random.use(ek.random.Generator(5)):
            assert_same_nest(draws(), want[0])
    assert_same_nest(draws(), want[0])
    with pytest.raises(DTypeError, match=r"use takes an ek\.random\.Generator, got 3"):
        ek.random.use(3).__enter__()  # type: ignore[arg-type]


def test_a_compiled_function_has_a_trace_for_each_generator() -> None:
    step = ek.compile(lambda x: x + ek.random.uniform((2,)))
    first = ek.random.Generator(1)
    second = copy.deepcopy(first)
    zero = np.zeros(2, "float32")
    found = []
    for generator in (first, second, first, second):
        with ek.random.use(generator):
            found.append(np.asarray(step(zero)))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[2], found[3])
    assert not np.array_equal(found[0], found[2])
    assert traces(step) == 2
    assert "under something else: no_grad" in str(step.explain())
    with ek.random.use(ek.random.default_generator()):
        step(zero)
    step(zero)
    assert traces(step) == 3


def test_threads_draw_from_generators_of_their_own() -> None:
    step = ek.compile(lambda: ek.random.uniform((2,)))

    def work(seed: int) -> list[bytes]:
        with ek.random.use(ek.random.Generator(seed)):
            return [np.asarray(step()).tobytes() for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(4)))
    assert together == [work(seed) for seed in range(4)]


def test_orders_of_data_and_checkpoints_take_the_generator_in_use(tmp_path: Any) -> None:
    loader = ek.data.DataLoader(ek.data.ArrayDataset(np.arange(20)), 20, shuffle=True)
    orders = []
    for _ in range(2):
        with ek.random.use(ek.random.Generator(3)):
            orders.append(np.asarray(next(iter(loader))[0]).tolist())
    assert orders[0] == orders[1] != list(range(20))
    net = nn.Sequential(nn.Linear(3, 1))
    model = ek.Model(net, loss=nn.MSELoss(), optimizer=ek.optim.SGD(net, lr=0.1))
    generator = ek.random.Generator(8)
    with ek.random.use(generator):
        model.fit(X, X[:, :1], epochs=1, verbose=0)
        model.save(tmp_path / "model")
        drawn = np.asarray(ek.random.uniform((3,)))
        model.load(tmp_path / "model")
        np.testing.assert_array_equal(np.asarray(ek.random.uniform((3,))), drawn)
